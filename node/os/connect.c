/* connect: see connect.h.
 *
 *     RESOLVING ─► TRYING an address ─► … ─► done
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
#include <sys/un.h>
#include <unistd.h>

#include "node/os/resolve.h"

struct connecting {
    struct loop *loop;
    struct resolver *resolver;
    connected_f *done; /* NULL: nobody waits any more */
    void *ctx;
    struct timer timer;
    struct op op;          /* waits for the socket */
    struct turn_hook hook; /* there was not even a socket to wait for */
    int fd;
    bool late;
    const char *failure; /* the last */
    unsigned *first;
    size_t n, next, end; /* addresses; the next one to be tried and the end, modulo n */
    struct sockaddr_storage to[RESOLVE_ADDRESSES_MAX];
};

static const struct sockaddr_storage *current(const struct connecting *c)
{
    return &c->to[c->n && c->next ? (c->next - 1) % c->n : 0];
}

static void finish(struct connecting *c, err e, int fd)
{
    loop_timer_stop(c->loop, &c->timer);
    list_remove(&c->hook.link);
    if (c->resolver)
        resolve_forget(c->resolver, c);
    if (c->done)
        c->done(c->ctx, e, fd, current(c), c->failure);
    else if (fd >= 0)
        close(fd);
    free(c);
}

static socklen_t length_of(const struct sockaddr_storage *a)
{
    return a->ss_family == AF_UNIX ? sizeof(struct sockaddr_un) : resolve_length(a);
}

static int socket_to(const struct sockaddr_storage *to)
{
    int on = 1, fd = socket(to->ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    if (to->ss_family != AF_UNIX) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    }
    if (connect(fd, (const struct sockaddr *)to, length_of(to)) == 0 || errno == EINPROGRESS)
        return fd;
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

/* False: there is no address left. */
static bool try_next(struct connecting *c)
{
    while (c->next < c->end) {
        c->fd = socket_to(&c->to[c->next++ % c->n]);
        if (c->fd >= 0) {
            loop_poll(c->loop, &c->op, c->fd, POLLOUT);
            return true;
        }
        c->failure = strerrordesc_np(errno);
    }
    return false;
}

/* One that does not answer takes all the time that there is: then the next begins with another. */
static void on_writable(struct op *op, int res)
{
    struct connecting *c = container_of(op, struct connecting, op);
    int error = res < 0 ? -res : 0;
    socklen_t n = sizeof error;
    if (res >= 0 && getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &n) < 0)
        error = errno;
    bool given_up = !c->done || c->late;
    if (!error && !given_up) {
        fcntl(c->fd, F_SETFL, fcntl(c->fd, F_GETFL) & ~O_NONBLOCK);
        finish(c, ERR_OK, c->fd);
        return;
    }
    close(c->fd);
    if (c->first)
        ++*c->first;
    if (given_up) {
        c->failure = "no answer in time";
        finish(c, ERR_TIMEOUT, -1);
        return;
    }
    c->failure = strerrordesc_np(error);
    if (!try_next(c))
        finish(c, ERR_IO, -1);
}

static void on_resolved(void *ctx, err e, const struct sockaddr_storage *addresses, size_t n)
{
    struct connecting *c = ctx;
    if (e) {
        c->failure = e == ERR_NOT_FOUND ? "no such name" : "the name has no answer";
        finish(c, e, -1);
        return;
    }
    must(n <= array_len(c->to));
    memcpy(c->to, addresses, n * sizeof *addresses);
    c->n = n;
    c->next = c->first ? *c->first % n : 0, c->end = c->next + n;
    if (!try_next(c))
        finish(c, ERR_IO, -1);
}

static void give_up(struct connecting *c)
{
    if (c->op.state == OP_IDLE) {
        c->failure = "no answer in time";
        finish(c, ERR_TIMEOUT, -1);
    } else {
        loop_poll_stop(c->loop, &c->op);
    }
}

static void on_late(struct timer *t)
{
    struct connecting *c = container_of(t, struct connecting, timer);
    c->late = true;
    give_up(c);
}

static void on_turn_end(struct turn_hook *h)
{
    finish(container_of(h, struct connecting, hook), ERR_IO, -1);
}

struct connecting *connect_start(struct loop *l, struct resolver *r, const struct connect_to *to,
                                 connected_f *done, void *ctx)
{
    struct connecting *c = calloc(1, sizeof *c);
    must(c && done);
    c->loop = l, c->resolver = to->address ? NULL : r, c->done = done, c->ctx = ctx;
    c->first = to->first;
    c->op.done = on_writable;
    c->hook.fn = on_turn_end;
    list_init(&c->hook.link);
    timer_init(&c->timer, on_late);
    if (to->timeout_ms)
        loop_timer_set(l, &c->timer, to->timeout_ms);
    if (!to->address) {
        resolve(r, to->host, to->port, on_resolved, c);
        return c;
    }
    c->to[0] = *to->address, c->n = c->end = 1;
    if (!try_next(c))
        loop_at_turn_end(l, &c->hook);
    return c;
}

void connect_stop(struct connecting *c)
{
    c->done = NULL;
    if (c->first && c->op.state != OP_IDLE)
        ++*c->first;
    c->first = NULL; /* its owner may go before the poll does */
    loop_timer_stop(c->loop, &c->timer);
    give_up(c);
}
