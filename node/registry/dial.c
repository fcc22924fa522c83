/* dial: a transport that has yet to be connected.
 *
 *     connecting --POLLOUT--> connected: everything goes to and comes from `low`
 *          \-- close, or the connection fails --> closed()
 *
 * low is the socket's transport, or TLS over it. Freed by its owner after closed(). */
#include "node/registry/dial.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/un.h>
#include <unistd.h>

#include "node/os/os.h"

struct line {
    struct transport transport;
    struct dialer *dialer;
    struct transport *low; /* NULL: connecting */
    struct op op;          /* waits for the connection */
    int fd;
    int error;
    bool closing;
    char host[256];
};

static struct line *line_of(const struct transport *t)
{
    return container_of(t, struct line, transport);
}

/* ---- addresses ------------------------------------------------------------------------------- */

struct target {
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
        struct sockaddr_un un;
    } address;
    socklen_t n;
    char host[256];
};

static bool read_unix(str path, struct target *t)
{
    if (path.n == 0 || path.n >= sizeof t->address.un.sun_path)
        return false;
    t->address.un.sun_family = AF_UNIX;
    memcpy(t->address.un.sun_path, path.p, path.n);
    t->n = sizeof t->address.un;
    return true;
}

static bool read_port(str digits, in_port_t *port)
{
    unsigned n = 0;
    if (digits.n == 0 || digits.n > 5)
        return false;
    for (size_t i = 0; i < digits.n; i++) {
        if (digits.p[i] < '0' || digits.p[i] > '9')
            return false;
        n = n * 10 + (unsigned)(digits.p[i] - '0');
    }
    *port = htons((in_port_t)n);
    return n > 0 && n <= 65535;
}

static bool read_target(str a, struct target *t)
{
    *t = (struct target){.n = 0};
    if (str_starts(a, STR("unix:")))
        return read_unix(str_skip(a, 5), t);
    const char *colon = memrchr(a.p, ':', a.n);
    in_port_t port;
    if (!colon || !read_port(str_skip(a, (size_t)(colon + 1 - a.p)), &port))
        return false;
    str host = str_from(a.p, (size_t)(colon - a.p));
    if (host.n > 2 && host.p[0] == '[' && host.p[host.n - 1] == ']')
        host = str_from(host.p + 1, host.n - 2);
    if (host.n >= sizeof t->host)
        return false;
    memcpy(t->host, host.p, host.n);
    if (inet_pton(AF_INET, t->host, &t->address.v4.sin_addr) == 1) {
        t->address.v4.sin_family = AF_INET, t->address.v4.sin_port = port;
        t->n = sizeof t->address.v4;
    } else if (inet_pton(AF_INET6, t->host, &t->address.v6.sin6_addr) == 1) {
        t->address.v6.sin6_family = AF_INET6, t->address.v6.sin6_port = port;
        t->n = sizeof t->address.v6;
    }
    return t->n > 0;
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

static void fail(struct line *l)
{
    close(l->fd);
    l->transport.sink->closed(&l->transport, l->closing ? ERR_OK : ERR_IO);
}

/* The socket blocks from here on: a loop on io_uring waits for it, one on epoll never blocks. */
static void become_connected(struct line *l)
{
    struct dialer *d = l->dialer;
    fcntl(l->fd, F_SETFL, fcntl(l->fd, F_GETFL) & ~O_NONBLOCK);
    struct transport *low = sock_transport_open(d->loop, l->fd, NULL, &sink, l);
    if (d->secure)
        low = d->secure(d->ctx, low, l->host);
    low->sink = &sink, low->owner = l;
    l->low = low;
    if (!d->secure)
        l->transport.sink->opened(&l->transport);
}

static void on_connected(struct op *op, int res)
{
    struct line *l = container_of(op, struct line, op);
    socklen_t n = sizeof l->error;
    if (!l->closing && res >= 0 && getsockopt(l->fd, SOL_SOCKET, SO_ERROR, &l->error, &n) == 0 &&
        l->error == 0)
        become_connected(l);
    else
        fail(l);
}

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
    loop_poll_stop(l->dialer->loop, &l->op);
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
    else if (l->error)
        out->failure = str_of(strerrordesc_np(l->error));
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

static int connect_to(const struct target *t)
{
    int on = 1, family = t->address.any.sa_family;
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    if (family != AF_UNIX) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    }
    if (connect(fd, &t->address.any, t->n) == 0 || errno == EINPROGRESS)
        return fd;
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

static struct transport *dial(struct registry_dialer *r, str address,
                              const struct transport_sink *k, void *owner, const char **problem)
{
    struct dialer *d = container_of(r, struct dialer, dialer);
    struct target target;
    *problem = "no address of the form IP:port or unix:/path";
    int fd = read_target(address, &target) ? connect_to(&target) : -1;
    if (fd < 0) {
        if (target.n > 0)
            *problem = strerrordesc_np(errno);
        return NULL;
    }
    struct line *l = calloc(1, sizeof *l);
    must(l);
    l->transport = (struct transport){.impl = &line_impl, .sink = k, .owner = owner};
    l->dialer = d;
    l->fd = fd;
    l->op.done = on_connected;
    memcpy(l->host, target.host, sizeof l->host);
    loop_poll(d->loop, &l->op, fd, POLLOUT);
    return &l->transport;
}

void dialer_init(struct dialer *d, struct loop *l, registry_secure_f *secure, void *ctx)
{
    *d = (struct dialer){.dialer = {dial}, .loop = l, .secure = secure, .ctx = ctx};
}
