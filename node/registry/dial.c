/* dial: a transport that has yet to be connected.
 *
 *     resolving --addresses--> connecting --POLLOUT--> connected: everything goes to and comes from
 *         |                    |  ^    |                `low`
 *         |                    |  +----+ the next address
 *         +---- none, or close-+-----> closed()
 *
 * low is the socket's transport, or TLS over it. Freed by its owner after closed(). */
#include "node/registry/dial.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/un.h>
#include <unistd.h>

#include "node/os/os.h"

struct line {
    struct transport transport;
    struct dialer *dialer;
    struct transport *low; /* NULL: not connected */
    struct op op;          /* waits for the connection */
    int fd;                /* -1: none yet */
    const char *failure;   /* NULL: none so far */
    bool closing;
    struct turn_hook hook; /* closed while it had no socket */
    size_t next, end;      /* addresses to be tried: modulo n */
    size_t n;
    struct sockaddr_storage addresses[RESOLVE_ADDRESSES_MAX];
    char host[RESOLVE_HOST_MAX + 1];
};

static struct line *line_of(const struct transport *t)
{
    return container_of(t, struct line, transport);
}

/* ---- addresses ------------------------------------------------------------------------------- */

static bool read_unix(str path, struct sockaddr_storage *out)
{
    struct sockaddr_un *un = (struct sockaddr_un *)out;
    if (path.n == 0 || path.n >= sizeof un->sun_path)
        return false;
    un->sun_family = AF_UNIX;
    memcpy(un->sun_path, path.p, path.n);
    return true;
}

struct target {
    str host; /* empty: unix */
    uint16_t port;
    struct sockaddr_storage address; /* AF_UNSPEC: host is a name */
};

static bool read_target(str a, struct target *t)
{
    *t = (struct target){.port = 0};
    if (str_starts(a, STR("unix:")))
        return read_unix(str_skip(a, 5), &t->address);
    if (!resolve_split(a, &t->host, &t->port))
        return false;
    resolve_is_numeric(t->host, t->port, &t->address);
    return true;
}

bool dial_address_is_good(str address)
{
    struct target t;
    return read_target(address, &t);
}

/* ---- what comes from low --------------------------------------------------------------------- */

static void on_opened(struct transport *t)
{
    struct line *l = t->owner;
    l->transport.sink->opened(&l->transport);
}

static void on_bytes(struct transport *t, const char *p, size_t n)
{
    struct line *l = t->owner;
    l->transport.sink->bytes(&l->transport, p, n);
}

static void on_written(struct transport *t)
{
    struct line *l = t->owner;
    l->transport.sink->written(&l->transport);
}

static void on_ended(struct transport *t)
{
    struct line *l = t->owner;
    l->transport.sink->ended(&l->transport);
}

static void on_closed(struct transport *t, err reason)
{
    struct line *l = t->owner;
    l->transport.sink->closed(&l->transport, reason);
}

static const struct transport_sink sink = {on_opened, on_bytes, on_written, on_ended, on_closed};

/* ---- connecting ------------------------------------------------------------------------------ */

static socklen_t length_of(const struct sockaddr_storage *a)
{
    return a->ss_family == AF_UNIX ? sizeof(struct sockaddr_un) : resolve_length(a);
}

static int connect_to(const struct sockaddr_storage *a)
{
    int on = 1;
    int fd = socket(a->ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    if (a->ss_family != AF_UNIX) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    }
    if (connect(fd, (const struct sockaddr *)a, length_of(a)) == 0 || errno == EINPROGRESS)
        return fd;
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

/* False: there is no address left. */
static bool connect_next(struct line *l)
{
    l->fd = -1;
    while (l->fd < 0 && l->next != l->end) {
        l->fd = connect_to(&l->addresses[l->next++ % l->n]);
        if (l->fd < 0)
            l->failure = strerrordesc_np(errno);
    }
    if (l->fd < 0)
        return false;
    loop_poll(l->dialer->loop, &l->op, l->fd, POLLOUT);
    return true;
}

static void fail(struct line *l)
{
    list_remove(&l->hook.link);
    l->transport.sink->closed(&l->transport, l->closing ? ERR_OK : ERR_IO);
}

/* The socket blocks from here on: a loop on io_uring waits for it, one on epoll never blocks. */
static void become_connected(struct line *l)
{
    struct dialer *d = l->dialer;
    fcntl(l->fd, F_SETFL, fcntl(l->fd, F_GETFL) & ~O_NONBLOCK);
    struct transport *low = sock_transport_open(d->loop, l->fd, NULL, &sink, l);
    bool plain = !d->secure || !l->host[0];
    if (!plain)
        low = d->secure(d->ctx, low, l->host);
    low->sink = &sink, low->owner = l;
    l->low = low;
    if (plain)
        l->transport.sink->opened(&l->transport);
}

/* One that does not answer takes all the time that its owner has: then the next line begins with
 * another one. */
static void on_connected(struct op *op, int res)
{
    struct line *l = container_of(op, struct line, op);
    int error = res < 0 ? -res : 0;
    socklen_t n = sizeof error;
    if (res >= 0 && getsockopt(l->fd, SOL_SOCKET, SO_ERROR, &error, &n) < 0)
        error = errno;
    if (error == 0 && !l->closing)
        return become_connected(l);
    close(l->fd);
    l->dialer->first++;
    if (!l->closing)
        l->failure = strerrordesc_np(error);
    if (l->closing || !connect_next(l))
        fail(l);
}

static void on_resolved(void *ctx, err e, const struct sockaddr_storage *addresses, size_t n)
{
    struct line *l = ctx;
    l->failure = e == ERR_NOT_FOUND ? "no such name" : "the name has no answer";
    if (n) {
        memcpy(l->addresses, addresses, n * sizeof *addresses);
        l->n = n, l->next = l->dialer->first % n, l->end = l->next + n;
    }
    if (!connect_next(l))
        fail(l);
}

/* Closed while it was resolved: nobody hears it inside of transport_close. */
static void on_turn_end(struct turn_hook *h) { fail(container_of(h, struct line, hook)); }

/* ---- what goes to low ------------------------------------------------------------------------ */

static size_t line_write(struct transport *t, const struct iovec *iov, size_t n)
{
    return transport_write(line_of(t)->low, iov, n);
}

static void line_pause(struct transport *t) { transport_pause(line_of(t)->low); }
static void line_resume(struct transport *t) { transport_resume(line_of(t)->low); }

static void line_close(struct transport *t, bool graceful)
{
    struct line *l = line_of(t);
    if (l->low)
        return transport_close(l->low, graceful);
    if (l->closing)
        return;
    l->closing = true;
    if (l->fd >= 0)
        return loop_poll_stop(l->dialer->loop, &l->op);
    resolve_forget(l->dialer->resolver, l);
    loop_at_turn_end(l->dialer->loop, &l->hook);
}

static void line_free(struct transport *t)
{
    struct line *l = line_of(t);
    if (l->low)
        transport_free(l->low);
    free(l);
}

static void line_info(const struct transport *t, struct transport_info *out)
{
    const struct line *l = line_of(t);
    *out = (struct transport_info){.tls = false};
    if (l->low)
        transport_info(l->low, out);
    else if (l->failure)
        out->failure = str_of(l->failure);
}

static err line_channel_binding(const struct transport *t, enum channel_binding kind,
                                unsigned char out[64], size_t *n)
{
    const struct line *l = line_of(t);
    return l->low ? transport_channel_binding(l->low, kind, out, n) : ERR_NOT_FOUND;
}

static const struct transport_impl line_impl = {
    .write = line_write,
    .pause = line_pause,
    .resume = line_resume,
    .close = line_close,
    .free = line_free,
    .info = line_info,
    .channel_binding = line_channel_binding,
};

/* ---- the dialer ------------------------------------------------------------------------------ */

static struct line *new_line(struct dialer *d, const struct target *t)
{
    struct line *l = calloc(1, sizeof *l);
    must(l);
    l->transport.impl = &line_impl;
    l->dialer = d;
    l->fd = -1;
    l->op.done = on_connected;
    l->hook = (struct turn_hook){.fn = on_turn_end};
    list_init(&l->hook.link);
    if (t->host.n)
        memcpy(l->host, t->host.p, t->host.n);
    return l;
}

static struct transport *dial(struct registry_dialer *r, str address,
                              const struct transport_sink *k, void *owner, const char **problem)
{
    struct dialer *d = container_of(r, struct dialer, dialer);
    struct target target;
    *problem = "no address of the form host:port or unix:/path";
    if (!read_target(address, &target))
        return NULL;
    bool named = target.address.ss_family == AF_UNSPEC;
    *problem = "names cannot be resolved here";
    if (named && !d->resolver)
        return NULL;
    *problem = d->refusal;
    if (d->refusal)
        return NULL;
    struct line *l = new_line(d, &target);
    l->transport.sink = k, l->transport.owner = owner;
    if (named) {
        resolve(d->resolver, target.host, target.port, on_resolved, l);
        return &l->transport;
    }
    l->addresses[0] = target.address;
    l->n = l->end = 1;
    if (connect_next(l))
        return &l->transport;
    *problem = l->failure;
    free(l);
    return NULL;
}

void dialer_init(struct dialer *d, struct loop *l, struct resolver *resolver,
                 registry_secure_f *secure, void *ctx)
{
    *d = (struct dialer){
        .dialer = {dial}, .loop = l, .resolver = resolver, .secure = secure, .ctx = ctx};
}
