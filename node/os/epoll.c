/* epoll: the loop where io_uring is forbidden (containers' seccomp profiles) or old. The same door,
 * so completion style: a request is tried when it is made or when its fd is ready, and its result
 * queued. A receive reads into one scratch buffer of a turn's share, so that an idle connection
 * holds no buffer here either; level-triggered readiness brings the rest in the next turn, which is
 * the fairness.
 *
 * A slot per fd holds the ops that wait for it. Its registration with the kernel is never more than
 * its ops once they have run: an fd that is closed and opened again must not meet an old one, and
 * one whose file lives on elsewhere (a listener that the supervisor keeps) must not stay
 * registered. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "node/os/loop_impl.h"

enum { EVENTS_MAX = 512, SLOTS_MIN = 64 };

struct slot {
    struct list ops;     /* op.link of those that wait for the fd; op.res: for which events */
    uint32_t registered; /* with the kernel; 0: not at all */
};

struct epoll {
    struct loop loop;
    int fd;
    struct slot **slots; /* by fd; they do not move, lists point into them */
    size_t n_slots;
    int n_events;
    struct epoll_event events[EVENTS_MAX];
    char scratch[LOOP_RECV_MAX];
};

static struct epoll *epoll_of(struct loop *l) { return container_of(l, struct epoll, loop); }

static struct slot *slot_of(struct epoll *e, int fd)
{
    size_t i = (size_t)fd;
    if (i >= e->n_slots) {
        size_t n = e->n_slots ? e->n_slots : SLOTS_MIN;
        while (n <= i)
            n *= 2;
        e->slots = realloc(e->slots, n * sizeof *e->slots);
        must(e->slots);
        memset(e->slots + e->n_slots, 0, (n - e->n_slots) * sizeof *e->slots);
        e->n_slots = n;
    }
    if (!e->slots[i]) {
        e->slots[i] = calloc(1, sizeof **e->slots);
        must(e->slots[i]);
        list_init(&e->slots[i]->ops);
    }
    return e->slots[i];
}

/* Makes the kernel's registration what the ops of the slot want. */
static int slot_register(struct epoll *e, int fd, struct slot *s)
{
    uint32_t want = 0;
    list_each(op, &s->ops, struct op, link)
        want |= (uint32_t)op->res;
    if (want == s->registered)
        return 0;
    struct epoll_event ev = {.events = want, .data.fd = fd};
    int how = !want ? EPOLL_CTL_DEL : s->registered ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    s->registered = want;
    int r = epoll_ctl(e->fd, how, fd, &ev);
    if (r < 0 && errno == ENOENT && how == EPOLL_CTL_MOD)
        r = epoll_ctl(e->fd, EPOLL_CTL_ADD, fd, &ev);
    if (r < 0 && how == EPOLL_CTL_DEL)
        return 0; /* closed by its owner: gone by itself */
    if (r < 0)
        s->registered = 0;
    return r < 0 ? -errno : 0;
}

/* ---- one op: try, wait, finish --------------------------------------------------------------- */

static uint32_t events_of(const struct op *op)
{
    switch (op->kind) {
    case OP_ACCEPT:
    case OP_RECV: return EPOLLIN;
    case OP_SEND: return EPOLLOUT;
    case OP_POLL: break;
    }
    return (uint32_t)op->res; /* poll(2)'s bits are epoll's */
}

static void wait_for_fd(struct epoll *e, struct op *op, uint32_t events)
{
    struct slot *s = slot_of(e, op->fd);
    op->res = (int)events;
    list_push_back(&s->ops, &op->link);
    int r = slot_register(e, op->fd, s);
    if (r < 0)
        loop_complete(&e->loop, op, r);
}

static bool again(ssize_t r) { return r < 0 && (errno == EAGAIN || errno == EINTR); }

/* Sends what is left of op. True: it is done, with *res. The caller's iov stays as it is. */
static bool try_send(struct op *op, int *res)
{
    struct send_op *s = container_of(op, struct send_op, op);
    struct iovec iov[SEND_IOV_MAX];
    struct msghdr msg = {.msg_iov = iov};
    size_t skip = op->sent, left = 0;
    for (size_t i = 0; i < s->msg.msg_iovlen; i++) {
        struct iovec v = s->msg.msg_iov[i];
        size_t cut = skip < v.iov_len ? skip : v.iov_len;
        skip -= cut;
        if (v.iov_len > cut) {
            iov[msg.msg_iovlen++] = (struct iovec){(char *)v.iov_base + cut, v.iov_len - cut};
            left += v.iov_len - cut;
        }
    }
    ssize_t r = sendmsg(op->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (again(r))
        return false;
    if (r > 0)
        op->sent += (uint32_t)r;
    *res = r < 0 && op->sent == 0 ? -errno : (int)op->sent;
    return r < 0 || (size_t)r == left;
}

static bool try_accept(struct op *op, int *res)
{
    struct accept_op *a = container_of(op, struct accept_op, op);
    a->address_len = sizeof a->address;
    int r = accept4(op->fd, (struct sockaddr *)&a->address, &a->address_len, SOCK_CLOEXEC);
    *res = r < 0 ? -errno : r;
    return !again(r) && *res != -ECONNABORTED;
}

/* A listener may be shared: without O_NONBLOCK, the loop would stop if another took the connection.
 */
static void make_nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags >= 0 && !(flags & O_NONBLOCK))
        fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

static void arm(struct loop *l, struct op *op)
{
    int res;
    if (op->kind == OP_SEND) {
        op->sent = 0;
        if (try_send(op, &res)) {
            loop_complete(l, op, res);
            return;
        }
    }
    if (op->kind == OP_ACCEPT)
        make_nonblocking(op->fd);
    wait_for_fd(epoll_of(l), op, events_of(op));
}

/* The registration follows now and not later: the owner may close the fd after done(). */
static void leave(struct epoll *e, struct op *op)
{
    list_remove(&op->link);
    slot_register(e, op->fd, slot_of(e, op->fd));
}

static void cancel(struct loop *l, struct op *op)
{
    leave(epoll_of(l), op);
    loop_complete(l, op, -ECANCELED);
}

/* ---- run ------------------------------------------------------------------------------------- */

static void finish(struct epoll *e, struct op *op, int res)
{
    leave(e, op);
    loop_finish(op, res);
}

static void run_recv(struct epoll *e, struct op *op)
{
    struct recv_op *r = container_of(op, struct recv_op, op);
    ssize_t n = recv(op->fd, e->scratch, sizeof e->scratch, MSG_DONTWAIT);
    if (n > 0)
        r->data(r, e->scratch, (size_t)n);
    else if (!again(n))
        finish(e, op, n < 0 ? -errno : 0);
}

/* The fd is ready for op (or has failed: then op finds out). */
static void run_op(struct epoll *e, struct op *op, uint32_t events)
{
    int res;
    switch (op->kind) {
    case OP_RECV: run_recv(e, op); break;
    case OP_ACCEPT:
        if (try_accept(op, &res))
            finish(e, op, res);
        break;
    case OP_SEND:
        if (try_send(op, &res))
            finish(e, op, res);
        break;
    case OP_POLL:
        res = (int)(events & ((uint32_t)op->res | EPOLLERR | EPOLLHUP));
        if (op == &e->loop.wake) /* polls again at once: spare it two system calls */
            loop_finish(op, res);
        else
            finish(e, op, res);
        break;
    }
}

/* Each op that waits gets its turn once, the first going to the back: accepts take turns so. A
 * callback may stop any of them and arm others. */
static void run_slot(struct epoll *e, int fd, uint32_t events)
{
    struct slot *s = slot_of(e, fd);
    unsigned n = 0;
    list_each(it, &s->ops, struct op, link)
        n++;
    if (n == 0)
        slot_register(e, fd, s);
    while (n-- && !list_empty(&s->ops)) {
        struct op *op = list_first(&s->ops, struct op, link);
        list_remove(&op->link);
        list_push_back(&s->ops, &op->link);
        if (events & ((uint32_t)op->res | EPOLLERR | EPOLLHUP))
            run_op(e, op, events);
    }
}

static bool run(struct loop *l)
{
    struct epoll *e = epoll_of(l);
    for (int i = 0; i < e->n_events; i++)
        run_slot(e, e->events[i].data.fd, e->events[i].events);
    e->n_events = 0;
    return false;
}

static void turn_end(struct loop *l) { (void)l; }

/* epoll knows neither "so many" nor microseconds: to wait for a batch, sleep and then look. */
static unsigned wait_for(struct loop *l, unsigned want, uint64_t us_max)
{
    struct epoll *e = epoll_of(l);
    int ms = (int)((us_max + 999) / 1000);
    if (want > 1) {
        usleep((unsigned)us_max);
        ms = 0;
    }
    int n = epoll_wait(e->fd, e->events, EVENTS_MAX, want ? ms : 0);
    must(n >= 0 || errno == EINTR);
    e->n_events = n > 0 ? n : 0;
    return (unsigned)e->n_events;
}

/* ---- life ------------------------------------------------------------------------------------ */

static void epoll_close(struct loop *l)
{
    struct epoll *e = epoll_of(l);
    for (size_t i = 0; i < e->n_slots; i++)
        free(e->slots[i]);
    free(e->slots);
    close(e->fd);
    free(e);
}

static const struct loop_impl epoll_impl = {
    .name = "epoll",
    .arm = arm,
    .cancel = cancel,
    .wait = wait_for,
    .run = run,
    .turn_end = turn_end,
    .now_us = loop_monotonic_us,
    .close = epoll_close,
};

err epoll_loop_new(const struct loop_config *c, struct loop_fault *fault, struct loop **out)
{
    struct epoll *e = calloc(1, sizeof *e);
    must(e);
    *fault = (struct loop_fault){0};
    e->fd = epoll_create1(EPOLL_CLOEXEC);
    int wake_fd = e->fd < 0 ? -1 : loop_own_wake_fd(c);
    if (wake_fd < 0) {
        *fault = (struct loop_fault){e->fd < 0 ? "epoll_create1" : "eventfd", errno};
        if (e->fd >= 0)
            close(e->fd);
        free(e);
        return ERR_IO;
    }
    loop_init(&e->loop, &epoll_impl, wake_fd);
    loop_start(&e->loop);
    *out = &e->loop;
    return ERR_OK;
}
