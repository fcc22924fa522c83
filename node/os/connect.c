/* connect: see connect.h.
 *
 *     RESOLVING ─► TRYING address 0 ─► … ─► done
 *          └──────── stop, time ────────────┘
 *
 * The time is one for all: a name with eight dead addresses takes no longer than one. */
#include "node/os/connect.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#include "node/os/resolve.h"

struct connecting {
    struct loop *loop;
    struct resolver *resolver;
    connected_f *done; /* NULL: nobody waits any more */
    void *ctx;
    struct timer timer;
    struct op op; /* waits for the socket */
    int fd;
    bool late;
    size_t n, at;
    struct sockaddr_storage to[RESOLVE_ADDRESSES_MAX];
};

static void finish(struct connecting *c, err e, int fd)
{
    loop_timer_stop(c->loop, &c->timer);
    resolve_forget(c->resolver, c);
    if (c->done)
        c->done(c->ctx, e, fd, &c->to[c->at < c->n ? c->at : 0]);
    else if (fd >= 0)
        close(fd);
    free(c);
}

static int socket_to(const struct sockaddr_storage *to)
{
    int on = 1, fd = socket(to->ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    if (connect(fd, (const struct sockaddr *)to, resolve_length(to)) == 0 || errno == EINPROGRESS)
        return fd;
    close(fd);
    return -1;
}

static void try_next(struct connecting *c)
{
    for (; c->at < c->n; c->at++) {
        c->fd = socket_to(&c->to[c->at]);
        if (c->fd < 0)
            continue;
        loop_poll(c->loop, &c->op, c->fd, POLLOUT);
        return;
    }
    finish(c, ERR_IO, -1);
}

static void on_writable(struct op *op, int res)
{
    struct connecting *c = container_of(op, struct connecting, op);
    int error = 0;
    socklen_t n = sizeof error;
    bool good = c->done && !c->late && res >= 0 &&
                getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &n) == 0 && error == 0;
    if (good) {
        fcntl(c->fd, F_SETFL, fcntl(c->fd, F_GETFL) & ~O_NONBLOCK);
        finish(c, ERR_OK, c->fd);
        return;
    }
    close(c->fd);
    c->at++;
    if (c->done && !c->late)
        try_next(c);
    else
        finish(c, ERR_TIMEOUT, -1);
}

static void on_resolved(void *ctx, err e, const struct sockaddr_storage *addresses, size_t n)
{
    struct connecting *c = ctx;
    if (e) {
        finish(c, e, -1);
        return;
    }
    must(n <= array_len(c->to));
    memcpy(c->to, addresses, n * sizeof *addresses);
    c->n = n;
    try_next(c);
}

static void give_up(struct connecting *c)
{
    if (c->op.state == OP_IDLE)
        finish(c, ERR_TIMEOUT, -1);
    else
        loop_poll_stop(c->loop, &c->op);
}

static void on_late(struct timer *t)
{
    struct connecting *c = container_of(t, struct connecting, timer);
    c->late = true;
    give_up(c);
}

struct connecting *connect_start(struct loop *l, struct resolver *r, str host, uint16_t port,
                                 uint32_t timeout_ms, connected_f *done, void *ctx)
{
    struct connecting *c = calloc(1, sizeof *c);
    must(c && done);
    c->loop = l, c->resolver = r, c->done = done, c->ctx = ctx;
    c->op.done = on_writable;
    timer_init(&c->timer, on_late);
    loop_timer_set(l, &c->timer, timeout_ms);
    resolve(r, host, port, on_resolved, c);
    return c;
}

void connect_stop(struct connecting *c)
{
    c->done = NULL;
    loop_timer_stop(c->loop, &c->timer);
    give_up(c);
}
