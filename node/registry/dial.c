/* dial: a transport that has yet to be connected (node/os/connect.h): then everything goes to and
 * comes from `low`, the socket's transport or TLS over it. Freed by its owner after closed(). */
#include "node/registry/dial.h"

#include <stdlib.h>
#include <sys/un.h>

#include "node/os/connect.h"
#include "node/os/os.h"

struct line {
    struct transport transport;
    struct dialer *dialer;
    struct transport *low;         /* NULL: not connected */
    struct connecting *connecting; /* NULL: it is, or was given up */
    const char *failure;           /* NULL: none so far */
    struct turn_hook hook;         /* closed while it was not */
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

static void on_connected(void *ctx, err e, int fd, const struct sockaddr_storage *to,
                         const char *failure)
{
    struct line *l = ctx;
    struct dialer *d = l->dialer;
    l->connecting = NULL;
    if (e) {
        l->failure = failure;
        l->transport.sink->closed(&l->transport, ERR_IO);
        return;
    }
    struct transport *low = sock_transport_open(d->loop, fd, NULL, &sink, l);
    bool plain = !d->secure || !l->host[0];
    if (!plain)
        low = d->secure(d->ctx, low, l->host);
    low->sink = &sink, low->owner = l;
    l->low = low;
    if (plain)
        l->transport.sink->opened(&l->transport);
}

/* Closed before it was connected: nobody hears it inside of transport_close. */
static void on_turn_end(struct turn_hook *h)
{
    struct line *l = container_of(h, struct line, hook);
    l->transport.sink->closed(&l->transport, ERR_OK);
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
    if (!l->connecting)
        return;
    connect_stop(l->connecting);
    l->connecting = NULL;
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
    const struct connect_to to = {.host = target.host,
                                  .port = target.port,
                                  .address = named ? NULL : &target.address,
                                  .first = &d->first};
    l->connecting = connect_start(d->loop, d->resolver, &to, on_connected, l);
    return &l->transport;
}

void dialer_init(struct dialer *d, struct loop *l, struct resolver *resolver,
                 registry_secure_f *secure, void *ctx)
{
    *d = (struct dialer){
        .dialer = {dial}, .loop = l, .resolver = resolver, .secure = secure, .ctx = ctx};
}
