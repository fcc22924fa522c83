/* control: one SOCK_SEQPACKET message with fds at a time (control.h). On a loop it is driven by
 * one-shot polls, not by recv ops: only recvmsg(2) brings fds. Messages keep their order: while
 * some wait, new ones queue behind them. A control lives until its last poll has come back. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#include "node/os/control.h"

enum { READS_PER_TURN = 16, SOCKET_BYTES = 1 << 20 };

/* ---- one message ----------------------------------------------------------------------------- */

err control_pair(int fds[2])
{
    int bytes = SOCKET_BYTES; /* as much as the kernel allows */
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) < 0)
        return ERR_IO;
    for (int i = 0; i < 2; i++)
        setsockopt(fds[i], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    return ERR_OK;
}

union rights {
    struct cmsghdr align;
    char space[CMSG_SPACE(CONTROL_FDS_MAX * sizeof(int))];
};

err control_write(int fd, const void *p, size_t n, const int *fds, size_t n_fds)
{
    must(n > 0 && n <= CONTROL_MESSAGE_MAX && n_fds <= CONTROL_FDS_MAX);
    union rights rights = {0};
    struct iovec iov = {(void *)(uintptr_t)p, n};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    if (n_fds) {
        msg.msg_control = rights.space;
        msg.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
    }
    ssize_t r;
    do
        r = sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (r < 0 && errno == EINTR);
    if (r >= 0)
        return ERR_OK;
    if (errno == EAGAIN || errno == ENOBUFS || errno == ETOOMANYREFS)
        return ERR_FULL;
    return errno == EPIPE || errno == ECONNRESET ? ERR_CLOSED : ERR_IO;
}

static size_t rights_take(struct msghdr *msg, int fds[CONTROL_FDS_MAX])
{
    size_t n = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t here = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        must(n + here <= CONTROL_FDS_MAX); /* the space for them has no more */
        memcpy(fds + n, CMSG_DATA(c), here * sizeof(int));
        n += here;
    }
    return n;
}

static void close_all(const int *fds, size_t n)
{
    for (size_t i = 0; i < n; i++)
        close(fds[i]);
}

err control_read(int fd, char buf[CONTROL_MESSAGE_MAX], size_t *n, int fds[CONTROL_FDS_MAX],
                 size_t *n_fds)
{
    union rights rights;
    struct iovec iov = {buf, CONTROL_MESSAGE_MAX};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = rights.space,
                         .msg_controllen = sizeof rights.space};
    ssize_t r;
    do
        r = recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    while (r < 0 && errno == EINTR);
    *n = 0, *n_fds = 0;
    if (r < 0)
        return errno == EAGAIN ? ERR_PARTIAL : errno == ECONNRESET ? ERR_CLOSED : ERR_IO;
    size_t got = rights_take(&msg, fds);
    if (r == 0 || (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC))) {
        close_all(fds, got);
        return r == 0 ? ERR_CLOSED : ERR_BAD;
    }
    *n = (size_t)r, *n_fds = got;
    return ERR_OK;
}

/* ---- on a loop ------------------------------------------------------------------------------- */

struct waiting {
    struct list link;
    size_t n, n_fds;
    int fds[CONTROL_FDS_MAX];
    char p[];
};

struct control {
    struct loop *loop;
    int fd;
    bool over, closing; /* over: the other end is gone */
    const struct control_sink *sink;
    void *ctx;
    struct op in, out;
    struct list queue;
    size_t queued;
    struct turn_hook end;
    char buf[CONTROL_MESSAGE_MAX];
};

static void waiting_free(struct control *c, struct waiting *w)
{
    list_remove(&w->link);
    c->queued--;
    close_all(w->fds, w->n_fds);
    free(w);
}

static void on_end(struct turn_hook *h)
{
    struct control *c = container_of(h, struct control, end);
    if (c->in.state != OP_IDLE || c->out.state != OP_IDLE)
        return; /* their done asks again */
    list_each(w, &c->queue, struct waiting, link)
        waiting_free(c, w);
    close(c->fd);
    free(c);
}

static void lost(struct control *c)
{
    if (c->over || c->closing)
        return;
    c->over = true;
    c->sink->closed(c->ctx);
}

/* A bound of messages per turn: the other end may be faster than we are. */
static void on_in(struct op *op, int res)
{
    struct control *c = container_of(op, struct control, in);
    err e = ERR_OK;
    for (int i = 0; i < READS_PER_TURN && e == ERR_OK && !c->closing && res >= 0; i++) {
        int fds[CONTROL_FDS_MAX];
        size_t n, n_fds;
        e = control_read(c->fd, c->buf, &n, fds, &n_fds);
        if (e == ERR_OK)
            c->sink->message(c->ctx, c->buf, n, fds, n_fds);
    }
    if (c->closing)
        loop_at_turn_end(c->loop, &c->end);
    else if (res < 0 || (e != ERR_OK && e != ERR_PARTIAL))
        lost(c);
    else
        loop_poll(c->loop, &c->in, c->fd, POLLIN);
}

static void on_out(struct op *op, int res)
{
    struct control *c = container_of(op, struct control, out);
    err e = ERR_OK;
    while (!c->closing && !list_empty(&c->queue) && e == ERR_OK) {
        struct waiting *w = list_first(&c->queue, struct waiting, link);
        e = control_write(c->fd, w->p, w->n, w->fds, w->n_fds);
        if (e == ERR_OK)
            waiting_free(c, w);
    }
    if (c->closing)
        loop_at_turn_end(c->loop, &c->end);
    else if (e == ERR_FULL && res >= 0)
        loop_poll(c->loop, &c->out, c->fd, POLLOUT);
    else if (e)
        lost(c);
}

static err enqueue(struct control *c, const void *p, size_t n, const int *fds, size_t n_fds)
{
    if (c->queued == CONTROL_QUEUE_MAX)
        return ERR_FULL;
    struct waiting *w = malloc(sizeof *w + n);
    must(w);
    memcpy(w->p, p, n);
    w->n = n, w->n_fds = 0;
    list_init(&w->link);
    list_push_back(&c->queue, &w->link);
    c->queued++;
    for (; w->n_fds < n_fds; w->n_fds++) {
        int fd = fcntl(fds[w->n_fds], F_DUPFD_CLOEXEC, 0);
        if (fd < 0) {
            waiting_free(c, w);
            return ERR_IO;
        }
        w->fds[w->n_fds] = fd;
    }
    if (c->out.state == OP_IDLE)
        loop_poll(c->loop, &c->out, c->fd, POLLOUT);
    return ERR_OK;
}

err control_send(struct control *c, const void *p, size_t n, const int *fds, size_t n_fds)
{
    if (c->over || c->closing)
        return ERR_CLOSED;
    if (!list_empty(&c->queue))
        return enqueue(c, p, n, fds, n_fds);
    err e = control_write(c->fd, p, n, fds, n_fds);
    return e == ERR_FULL ? enqueue(c, p, n, fds, n_fds) : e;
}

bool control_idle(const struct control *c) { return list_empty(&c->queue); }

struct control *control_open(struct loop *l, int fd, const struct control_sink *sink, void *ctx)
{
    struct control *c = calloc(1, sizeof *c);
    must(c);
    c->loop = l, c->fd = fd, c->sink = sink, c->ctx = ctx;
    c->in.done = on_in, c->out.done = on_out;
    list_init(&c->queue);
    list_init(&c->end.link);
    c->end.fn = on_end;
    loop_poll(l, &c->in, fd, POLLIN);
    return c;
}

void control_close(struct control *c)
{
    if (c->closing)
        return;
    c->closing = true;
    loop_poll_stop(c->loop, &c->in);
    loop_poll_stop(c->loop, &c->out);
    loop_at_turn_end(c->loop, &c->end);
}
