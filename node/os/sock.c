/* sock: the plain transport: a connected stream socket on a loop.
 *
 *     open --close(true)--> draining --peer's FIN--> shut --all ops back--> closed
 *       \\--------- close(false), the socket failed ------/
 *
 * Closing (systems.md 3): an fd with an armed receive sends no FIN when it is closed, so
 * shutdown(2) first, then all ops come back, then close(2). Graceful: the write in flight ends,
 * shutdown(WR), and reading goes on (dropped) until the peer closes. The owner frees it after
 * closed(). */
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <unistd.h>

#include "node/os/loop_impl.h"

/* A write in flight. In memory of its own: nearly all connections of a server are idle. */
struct sending {
    struct send_op op;
    struct sock *sock;
    size_t bytes;
    bool pooled; /* iov has IOV_POOLED rows, and it is of the loop's pool */
    struct iovec iov[];
};
enum { IOV_POOLED = 4 };

/* An address without what only the kernel needs: a tenth of a sockaddr_storage. */
struct peer {
    unsigned char ip[16]; /* IPv4: the first four */
    in_port_t port;
    uint8_t family;
};

/* Calls closed() when no op is left to do so. */
struct rest {
    struct turn_hook hook;
    struct sock *sock;
};

enum sock_state { SOCK_OPEN, SOCK_DRAINING, SOCK_SHUT, SOCK_CLOSED };
struct sock {
    struct transport transport;
    struct loop *loop;
    struct sending *sending; /* NULL: none */
    struct rest *rest;       /* from shut on */
    struct recv_op recv;
    err reason : 8;
    enum sock_state state : 8;
    bool paused : 1, ended : 1; /* ended: the peer's FIN came */
    struct peer peer;
};

static struct sock *sock_of(const struct transport *t)
{
    return container_of(t, struct sock, transport);
}

/* The receive was started with it, and names it for as long as the socket is open. */
static int fd_of(const struct sock *s) { return s->recv.op.fd; }

static bool receiving(const struct sock *s) { return s->recv.op.state != OP_IDLE; }

/* The last step, when every op rests. From the end of a turn, so never inside the owner's call. */
static void on_rest(struct turn_hook *h)
{
    struct sock *s = container_of(h, struct rest, hook)->sock;
    if (s->state != SOCK_SHUT || s->sending || receiving(s))
        return;
    s->state = SOCK_CLOSED;
    close(fd_of(s));
    s->transport.sink->closed(&s->transport, s->reason);
}

static void shut(struct sock *s, err reason)
{
    if (s->state >= SOCK_SHUT)
        return;
    s->state = SOCK_SHUT;
    s->reason = reason;
    s->rest = malloc(sizeof *s->rest);
    must(s->rest);
    list_init(&s->rest->hook.link);
    s->rest->hook.fn = on_rest, s->rest->sock = s;
    shutdown(fd_of(s), SHUT_RDWR);
    if (receiving(s))
        loop_recv_stop(s->loop, &s->recv);
    loop_at_turn_end(s->loop, &s->rest->hook);
}

static err reason_of(int res)
{
    switch (-res) {
    case ECONNRESET:
    case EPIPE: return ERR_CLOSED;
    case ETIMEDOUT: return ERR_TIMEOUT;
    default: return ERR_IO;
    }
}

/* ---- reading --------------------------------------------------------------------------------- */

static void on_data(struct recv_op *r, const char *p, size_t n)
{
    struct sock *s = container_of(r, struct sock, recv);
    if (s->state == SOCK_OPEN)
        s->transport.sink->bytes(&s->transport, p, n);
}

static void on_fin(struct sock *s)
{
    s->ended = true;
    if (s->state == SOCK_OPEN)
        s->transport.sink->ended(&s->transport);
    else if (s->state == SOCK_DRAINING && !s->sending)
        shut(s, ERR_OK);
}

static void on_recv_done(struct op *op, int res)
{
    struct sock *s = container_of(op, struct sock, recv.op);
    if (s->state == SOCK_SHUT)
        loop_at_turn_end(s->loop, &s->rest->hook);
    else if (res == 0)
        on_fin(s);
    else if (res != -ECANCELED)
        shut(s, reason_of(res));
    else if (!s->paused) /* resumed while it was being stopped */
        loop_recv(s->loop, &s->recv, fd_of(s));
}

static void sock_pause(struct transport *t)
{
    struct sock *s = sock_of(t);
    if (s->state != SOCK_OPEN || s->paused)
        return;
    s->paused = true;
    if (receiving(s))
        loop_recv_stop(s->loop, &s->recv);
}

static void read_on(struct sock *s)
{
    s->paused = false;
    if (!receiving(s) && !s->ended)
        loop_recv(s->loop, &s->recv, fd_of(s));
}

static void sock_resume(struct transport *t)
{
    struct sock *s = sock_of(t);
    if (s->state == SOCK_OPEN && s->paused)
        read_on(s);
}

/* ---- writing --------------------------------------------------------------------------------- */

static void finish_output(struct sock *s)
{
    shutdown(fd_of(s), SHUT_WR);
    if (s->ended)
        shut(s, ERR_OK);
}

static struct sending *sending_new(struct loop *l, size_t count)
{
    bool pooled = count <= IOV_POOLED;
    size_t size = sizeof(struct sending) + (pooled ? IOV_POOLED : count) * sizeof(struct iovec);
    struct sending *w = pooled ? pool_get(&l->writes, size) : malloc(size);
    must(w);
    w->op.op = (struct op){.done = NULL};
    w->pooled = pooled;
    return w;
}

static void sending_free(struct loop *l, struct sending *w)
{
    if (w->pooled)
        pool_put(&l->writes, w);
    else
        free(w);
}

static void on_send_done(struct op *op, int res)
{
    struct sending *w = container_of(op, struct sending, op.op);
    struct sock *s = w->sock;
    bool all = res >= 0 && (size_t)res == w->bytes;
    s->sending = NULL;
    sending_free(s->loop, w);
    if (s->state == SOCK_SHUT)
        loop_at_turn_end(s->loop, &s->rest->hook);
    else if (!all)
        shut(s, res < 0 ? reason_of(res) : ERR_CLOSED);
    else if (s->state == SOCK_DRAINING)
        finish_output(s);
    else
        s->transport.sink->written(&s->transport);
}

/* The iov is copied (the caller's is on its stack); the bytes are not. */
static size_t sock_write(struct transport *t, const struct iovec *iov, size_t n)
{
    struct sock *s = sock_of(t);
    size_t bytes = 0, count = n < SEND_IOV_MAX ? n : SEND_IOV_MAX;
    for (size_t i = 0; i < count; i++)
        bytes += iov[i].iov_len;
    if (s->state != SOCK_OPEN)
        return bytes;
    must(!s->sending && count > 0);
    struct sending *w = sending_new(s->loop, count);
    w->op.op.done = on_send_done;
    w->sock = s, w->bytes = bytes;
    memcpy(w->iov, iov, count * sizeof *iov);
    s->sending = w;
    loop_send(s->loop, &w->op, fd_of(s), w->iov, count);
    return bytes;
}

/* ---- life ------------------------------------------------------------------------------------ */

static void sock_close(struct transport *t, bool graceful)
{
    struct sock *s = sock_of(t);
    if (!graceful) {
        shut(s, ERR_OK);
    } else if (s->state == SOCK_OPEN) {
        s->state = SOCK_DRAINING;
        if (!s->sending)
            finish_output(s);
        if (s->state == SOCK_DRAINING)
            read_on(s);
    }
}

static void sock_free(struct transport *t)
{
    struct sock *s = sock_of(t);
    must(s->state == SOCK_CLOSED);
    list_remove(&s->rest->hook.link);
    free(s->rest);
    free(s);
}

static struct peer peer_of(const struct sockaddr_storage *a)
{
    struct peer p = {.family = (uint8_t)a->ss_family};
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    memcpy(&v4, a, sizeof v4);
    memcpy(&v6, a, sizeof v6);
    if (p.family == AF_INET6)
        memcpy(p.ip, &v6.sin6_addr, sizeof p.ip), p.port = v6.sin6_port;
    else if (p.family == AF_INET)
        memcpy(p.ip, &v4.sin_addr, sizeof v4.sin_addr), p.port = v4.sin_port;
    return p;
}

static void peer_put(const struct peer *p, struct sockaddr_storage *out)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = p->port};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = p->port};
    memcpy(&v4.sin_addr, p->ip, sizeof v4.sin_addr);
    memcpy(&v6.sin6_addr, p->ip, sizeof v6.sin6_addr);
    out->ss_family = p->family;
    if (p->family == AF_INET6)
        memcpy(out, &v6, sizeof v6);
    else if (p->family == AF_INET)
        memcpy(out, &v4, sizeof v4);
}

static void sock_info(const struct transport *t, struct transport_info *out)
{
    const struct sock *s = sock_of(t);
    *out = (struct transport_info){.tls = false};
    peer_put(&s->peer, &out->address);
}

static err sock_channel_binding(const struct transport *t, enum channel_binding kind,
                                unsigned char out[64], size_t *n)
{
    return ERR_NOT_FOUND;
}

static const struct transport_impl sock_impl = {
    .write = sock_write,
    .pause = sock_pause,
    .resume = sock_resume,
    .close = sock_close,
    .free = sock_free,
    .info = sock_info,
    .channel_binding = sock_channel_binding,
};

struct transport *sock_transport_open(struct loop *l, int fd, const struct sockaddr_storage *peer,
                                      const struct transport_sink *sink, void *owner)
{
    struct sock *s = calloc(1, sizeof *s);
    must(s);
    s->transport = (struct transport){.impl = &sock_impl, .sink = sink, .owner = owner};
    s->loop = l;
    s->recv = (struct recv_op){.op = {.done = on_recv_done}, .data = on_data};
    if (peer)
        sock_transport_readdress(&s->transport, peer);
    loop_recv(l, &s->recv, fd);
    return &s->transport;
}

void sock_transport_readdress(struct transport *t, const struct sockaddr_storage *peer)
{
    sock_of(t)->peer = peer_of(peer);
}
