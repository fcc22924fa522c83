/* loop: the door to the kernel's sockets and to time. Completion style: a request is an op that its
 * caller owns and that rests untouched from the call until its done() has run. Implementations:
 * node/os/uring.c, node/os/epoll.c, and the simulator's. Nothing above node/os may know which runs.
 *
 * A turn: wait (or not, when there is work) -> completions are moved to a queue -> their done()s
 * and due timers run -> sources are polled -> turn-end hooks run -> submit. done() is never called
 * from inside the function that started the op. Everything runs on the one thread that made the
 * loop. */
#ifndef PEMBERLEY_LOOP_H
#define PEMBERLEY_LOOP_H

#include <sys/socket.h>
#include <sys/uio.h>

#include "pemberley/err.h"
#include "pemberley/list.h"
#include "pemberley/str.h"

struct loop;
struct op;
typedef void op_f(struct op *op, int res); /* res: >= 0, or -errno */

enum op_state { OP_IDLE, OP_ARMED, OP_CANCELLING, OP_QUEUED };
enum op_kind { OP_ACCEPT, OP_RECV, OP_SEND, OP_POLL };
struct op {
    op_f *done;
    struct list link; /* the loop's: starved list, completion queue, waiting on a full queue */
    int fd;
    int res;
    enum op_state state : 8;
    enum op_kind kind : 8;
    uint32_t sent; /* epoll's: bytes of a send so far */
};

/* One-shot accept, so that each has the peer's address. done(res = new fd, CLOEXEC). After EMFILE,
 * ENFILE or ENOBUFS the caller waits 100 ms before it asks again. */
struct accept_op {
    struct op op;
    struct sockaddr_storage address;
    socklen_t address_len;
};
void loop_accept(struct loop *l, struct accept_op *a, int listen_fd);
void loop_accept_stop(struct loop *l, struct accept_op *a); /* done(-ECANCELED, or a last fd) */

/* Receives until stopped. data() gets views that are valid until it returns; at most LOOP_RECV_MAX
 * bytes per fd and turn (the rest comes next turn). done(0): the peer closed; done(-ECANCELED):
 * stopped; done(-errno): the socket failed. Between loop_recv_stop and done data() may be called
 * again, for what had been received already: with what the same turn brought before the stop that
 * is at most LOOP_RECV_MAX. All else stays in the socket, where it holds back the peer. */
enum { LOOP_RECV_MAX = 64 * 1024 };
struct recv_op;
typedef void recv_f(struct recv_op *r, const char *p, size_t n);
struct recv_op {
    struct op op;
    recv_f *data;
};
void loop_recv(struct loop *l, struct recv_op *r, int fd);
void loop_recv_stop(struct loop *l, struct recv_op *r);

/* Sends all of iov (which rests with the bytes until done): done(res = bytes; fewer than asked for
 * only when the socket is shut down meanwhile) or -errno. At most one in flight per fd. */
enum { SEND_IOV_MAX = 64 };
struct send_op {
    struct op op;
    struct msghdr msg;
};
void loop_send(struct loop *l, struct send_op *s, int fd, struct iovec *iov, size_t n);

/* One-shot poll for POLLIN or POLLOUT: done(res = events). For control sockets and libraries. */
void loop_poll(struct loop *l, struct op *op, int fd, short events);
void loop_poll_stop(struct loop *l, struct op *op); /* done(-ECANCELED) follows */

/* Time. now is read once per turn. Timers: 10 ms grain below a second, 1 s above. A timer set again
 * moves; a stopped one does not fire; fn may set or stop any timer, and free its own. */
struct timer;
typedef void timer_f(struct timer *t);
struct timer {
    struct list link;
    uint64_t due_ms;
    timer_f *fn;
};
void timer_init(struct timer *t, timer_f *fn);
void loop_timer_set(struct loop *l, struct timer *t, uint64_t in_ms); /* never early */
void loop_timer_stop(struct loop *l, struct timer *t);
static inline bool timer_is_set(const struct timer *t) { return !list_empty(&t->link); }
uint64_t loop_now_ms(const struct loop *l); /* CLOCK_MONOTONIC */
uint64_t loop_now_us(const struct loop *l);
uint64_t loop_clock_us(struct loop *l); /* not the turn's: a read of the clock */

/* A hook that runs once at the end of the turn in which it was asked for (outputs are flushed
 * there). It may ask for itself or others again: those run in the same turn, bounded. */
struct turn_hook {
    struct list link;
    void (*fn)(struct turn_hook *h);
};
void loop_at_turn_end(struct loop *l, struct turn_hook *h); /* a second time in a turn: no effect */

/* Runs first after every wait, before anything that the wait has brought: a deadline that was
 * passed in sleep is seen before anything is done. One per loop; NULL: none. */
void loop_on_wake(struct loop *l, void (*fn)(void *ctx), void *ctx);

/* Something polled every turn that wakes the loop through its eventfd: the shared-memory fifos.
 * poll() handles what is there and returns whether there was anything. Before the loop sleeps it
 * calls sleep(src, true), polls all sources once more, and after the wait sleep(src, false). */
struct loop_source {
    struct list link;
    bool (*poll)(struct loop_source *s);
    void (*sleep)(struct loop_source *s, bool sleeping);
};
void loop_source_add(struct loop *l, struct loop_source *s);
void loop_source_remove(struct loop *l, struct loop_source *s);
int loop_wake_fd(const struct loop *l); /* an eventfd: write 1 to wake this loop from anywhere */

struct loop_stats {
    uint64_t turns, completions, busy_us, buffers_exhausted, overflows;
    uint64_t buffers_free; /* for receiving, as the last turn found them */
};
const struct loop_stats *loop_stats(const struct loop *l);
uint64_t loop_timers(const struct loop *l);  /* set now */
const char *loop_name(const struct loop *l); /* "io_uring", "epoll", "sim" */

void loop_run(struct loop *l);                        /* turns until loop_stop */
void loop_turn(struct loop *l, uint64_t wait_ms_max); /* one turn; for tests */
void loop_stop(struct loop *l);
void loop_close(struct loop *l); /* no op may be armed */

#endif
