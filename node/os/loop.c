/* loop: the turn, common to all implementations (loop.h says what callers may expect, loop_impl.h
 * who does what). Order within a turn: wait, completions, timers, sources, hooks. */
#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "node/os/loop_impl.h"

enum { HOOK_ROUNDS_MAX = 16, WAIT_US_MAX = 60 * 1000 * 1000 };

uint64_t loop_monotonic_us(struct loop *l)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000u + (uint64_t)ts.tv_nsec / 1000u;
}

int loop_own_wake_fd(const struct loop_config *c)
{
    return c->wake_fd >= 0 ? c->wake_fd : eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
}

void loop_init(struct loop *l, const struct loop_impl *impl, int wake_fd)
{
    l->impl = impl;
    l->wake_fd = wake_fd;
    list_init(&l->due);
    list_init(&l->starved);
    list_init(&l->hooks);
    list_init(&l->sources);
    l->stats.buffers_free = 1; /* epoll's scratch buffer; io_uring counts */
    l->now_us = impl->now_us(l);
    wheel_init(&l->wheel, l->now_us / 1000);
}

err loop_new(const struct loop_config *c, struct loop_fault *fault, struct loop **out)
{
    *fault = (struct loop_fault){0};
    if (c->choice == LOOP_EPOLL)
        return epoll_loop_new(c, fault, out);
    err e = uring_loop_new(c, fault, out);
    if (e == ERR_OK || c->choice == LOOP_URING)
        return e;
    struct loop_fault worse = {0};
    e = epoll_loop_new(c, &worse, out);
    if (e)
        *fault = worse;
    return e;
}

/* ---- ops ------------------------------------------------------------------------------------- */

static void start(struct loop *l, struct op *op, enum op_kind kind, int fd)
{
    must(op->state == OP_IDLE && op->done && fd >= 0);
    list_init(&op->link);
    op->fd = fd;
    op->kind = kind;
    op->state = OP_ARMED;
    op->res = 0;
}

void loop_complete(struct loop *l, struct op *op, int res)
{
    op->res = res;
    op->state = OP_QUEUED;
    list_remove(&op->link);
    list_push_back(&l->due, &op->link);
}

void loop_finish(struct op *op, int res)
{
    must(op->state != OP_IDLE);
    list_remove(&op->link);
    op->state = OP_IDLE;
    op->done(op, res);
}

/* An op waits in one of: the kernel (armed), the starved, the due. */
static void stop(struct loop *l, struct op *op)
{
    if (op->state == OP_ARMED) {
        op->state = OP_CANCELLING;
        l->impl->cancel(l, op);
    }
}

void loop_accept(struct loop *l, struct accept_op *a, int listen_fd)
{
    start(l, &a->op, OP_ACCEPT, listen_fd);
    a->address_len = sizeof a->address;
    l->impl->arm(l, &a->op);
}

void loop_accept_stop(struct loop *l, struct accept_op *a) { stop(l, &a->op); }

void loop_recv(struct loop *l, struct recv_op *r, int fd)
{
    must(r->data);
    start(l, &r->op, OP_RECV, fd);
    l->impl->arm(l, &r->op);
}

void loop_recv_stop(struct loop *l, struct recv_op *r) { stop(l, &r->op); }

void loop_send(struct loop *l, struct send_op *s, int fd, struct iovec *iov, size_t n)
{
    must(n > 0 && n <= SEND_IOV_MAX);
    start(l, &s->op, OP_SEND, fd);
    s->msg = (struct msghdr){.msg_iov = iov, .msg_iovlen = n};
    l->impl->arm(l, &s->op);
}

void loop_poll(struct loop *l, struct op *op, int fd, short events)
{
    start(l, op, OP_POLL, fd);
    op->res = events;
    l->impl->arm(l, op);
}

void loop_poll_stop(struct loop *l, struct op *op) { stop(l, op); }

void loop_starve(struct loop *l, struct op *op) { list_push_back(&l->starved, &op->link); }

/* ---- time, hooks, sources -------------------------------------------------------------------- */

void loop_timer_set(struct loop *l, struct timer *t, uint64_t in_ms)
{
    wheel_set(&l->wheel, t, loop_now_ms(l), in_ms);
}

void loop_timer_stop(struct loop *l, struct timer *t) { wheel_stop(&l->wheel, t); }
uint64_t loop_now_ms(const struct loop *l) { return l->now_us / 1000; }
uint64_t loop_now_us(const struct loop *l) { return l->now_us; }
uint64_t loop_clock_us(struct loop *l) { return l->impl->now_us(l); }

void loop_at_turn_end(struct loop *l, struct turn_hook *h)
{
    if (list_empty(&h->link))
        list_push_back(&l->hooks, &h->link);
}

/* A hook may ask for hooks again; after some rounds the rest waits for the next turn. */
static void run_hooks(struct loop *l)
{
    for (int round = 0; round < HOOK_ROUNDS_MAX && !list_empty(&l->hooks); round++) {
        struct list now;
        list_init(&now);
        list_append(&now, &l->hooks);
        while (!list_empty(&now)) {
            struct turn_hook *h = list_first(&now, struct turn_hook, link);
            list_remove(&h->link);
            h->fn(h);
        }
    }
}

void loop_source_add(struct loop *l, struct loop_source *s)
{
    list_push_back(&l->sources, &s->link);
}

void loop_source_remove(struct loop *l, struct loop_source *s) { list_remove(&s->link); }

static bool poll_sources(struct loop *l)
{
    bool any = false;
    list_each(s, &l->sources, struct loop_source, link)
        any |= s->poll(s);
    return any;
}

static void sleep_sources(struct loop *l, bool sleeping)
{
    list_each(s, &l->sources, struct loop_source, link)
        s->sleep(s, sleeping);
}

void loop_on_wake(struct loop *l, void (*fn)(void *ctx), void *ctx)
{
    l->on_wake = fn, l->on_wake_ctx = ctx;
}

int loop_wake_fd(const struct loop *l) { return l->wake_fd; }

static void on_wake(struct op *op, int res)
{
    struct loop *l = container_of(op, struct loop, wake);
    uint64_t n;
    if (res < 0 || l->stopping)
        return;
    ssize_t got = read(l->wake_fd, &n, sizeof n); /* resets the counter; its value says nothing */
    (void)got;
    loop_poll(l, op, l->wake_fd, POLLIN);
}

void loop_start(struct loop *l)
{
    l->wake = (struct op){.done = on_wake};
    loop_poll(l, &l->wake, l->wake_fd, POLLIN);
}

const struct loop_stats *loop_stats(const struct loop *l) { return &l->stats; }
uint64_t loop_timers(const struct loop *l) { return l->wheel.count; }
const char *loop_name(const struct loop *l) { return l->impl->name; }

/* ---- the turn -------------------------------------------------------------------------------- */

static uint64_t wait_us(struct loop *l, uint64_t wait_ms_max)
{
    if (l->put_off || !list_empty(&l->due) || !list_empty(&l->hooks))
        return 0;
    uint64_t next = wheel_next_ms(&l->wheel, loop_now_ms(l));
    if (next < wait_ms_max)
        wait_ms_max = next;
    return wait_ms_max < WAIT_US_MAX / 1000 ? wait_ms_max * 1000 : WAIT_US_MAX;
}

/* When busy: for a batch, but at most 50 us; that saves up to half the CPU, and costs a system call
 * when idle. Then, if nothing came, for one completion. The sources are told before the long wait
 * and looked at again after that, or a wake-up could be lost. */
static unsigned wait_for_work(struct loop *l, uint64_t us)
{
    if (us && l->last_completions >= BUSY_COMPLETIONS) {
        unsigned n = l->impl->wait(l, BUSY_WAIT_N, us < BUSY_WAIT_US ? us : BUSY_WAIT_US);
        if (n || us <= BUSY_WAIT_US)
            return n;
    }
    if (us == 0)
        return l->impl->wait(l, 0, 0);
    sleep_sources(l, true);
    if (poll_sources(l))
        us = 0;
    unsigned n = l->impl->wait(l, us ? 1 : 0, us);
    sleep_sources(l, false);
    return n;
}

static void run_due(struct loop *l)
{
    struct list now;
    list_init(&now);
    list_append(&now, &l->due);
    while (!list_empty(&now)) {
        struct op *op = list_first(&now, struct op, link);
        l->stats.completions++;
        loop_finish(op, op->res);
    }
}

void loop_turn(struct loop *l, uint64_t wait_ms_max)
{
    unsigned n = wait_for_work(l, wait_us(l, wait_ms_max));
    uint64_t begin = l->now_us = l->impl->now_us(l);
    if (l->on_wake)
        l->on_wake(l->on_wake_ctx);
    run_due(l);
    l->put_off = l->impl->run(l);
    wheel_run(&l->wheel, loop_now_ms(l));
    poll_sources(l);
    run_hooks(l);
    l->impl->turn_end(l);
    l->last_completions = n;
    l->stats.turns++;
    l->stats.completions += n;
    l->now_us = l->impl->now_us(l); /* again: the wait counts from here */
    l->stats.busy_us += l->now_us - begin;
}

void loop_run(struct loop *l)
{
    l->stopping = false;
    while (!l->stopping)
        loop_turn(l, UINT64_MAX);
}

void loop_stop(struct loop *l) { l->stopping = true; }

void loop_close(struct loop *l)
{
    int wake_fd = l->wake_fd;
    must(list_empty(&l->due) && list_empty(&l->starved));
    pool_close(&l->writes);
    l->impl->close(l);
    close(wake_fd);
}
