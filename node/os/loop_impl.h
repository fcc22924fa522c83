/* loop_impl: what an implementation of the loop is, and the part all share. Private to node/os and
 * to the simulator, whose loop is a third table.
 *
 * The common part (loop.c) owns the turn: time, timers, sources, hooks, and a queue of ops whose
 * done() is due without the kernel's help. An implementation owns the way to the kernel: arm,
 * cancel, wait (which collects) and run (which calls back). */
#ifndef NODE_OS_LOOP_IMPL_H
#define NODE_OS_LOOP_IMPL_H

#include "node/os/os.h"
#include "pemberley/pool.h"

enum {
    BUSY_COMPLETIONS = 8, /* a turn with as many is busy: the next one waits for a batch */
    BUSY_WAIT_N = 64,
    BUSY_WAIT_US = 50,
};

/* The timer wheel: slots of 10 ms for what is due within a second, of 1 s beyond. A set bit means
 * "perhaps something in this slot": stopping a timer does not clear it, looking does. */
enum { FINE_MS = 10, FINE_SLOTS = 128, COARSE_MS = 1000, COARSE_SLOTS = 512 };
struct wheel {
    uint64_t fine_tick, coarse_tick; /* the last ones that were run */
    uint64_t count;                  /* timers set */
    struct list fine[FINE_SLOTS], coarse[COARSE_SLOTS];
    uint64_t fine_bits[FINE_SLOTS / 64], coarse_bits[COARSE_SLOTS / 64];
};
void wheel_init(struct wheel *w, uint64_t now_ms);
void wheel_set(struct wheel *w, struct timer *t, uint64_t now_ms, uint64_t in_ms);
void wheel_stop(struct wheel *w, struct timer *t);
void wheel_run(struct wheel *w, uint64_t now_ms); /* calls what is due */
/* Milliseconds until the next slot that may hold something; UINT64_MAX: none. */
uint64_t wheel_next_ms(struct wheel *w, uint64_t now_ms);

struct loop_impl {
    const char *name;
    /* Starts op (state OP_ARMED already). It may complete it by loop_complete. */
    void (*arm)(struct loop *l, struct op *op);
    /* Stops op (state OP_CANCELLING already): its done comes with a later run. */
    void (*cancel)(struct loop *l, struct op *op);
    /* Submits; waits for `want` completions or us_max (0: only looks); collects them, and returns
     * how many there are to run. */
    unsigned (*wait)(struct loop *l, unsigned want, uint64_t us_max);
    /* Calls back what wait collected. Returns whether some was put off to the next turn. */
    bool (*run)(struct loop *l);
    void (*turn_end)(struct loop *l); /* arms the starved again */
    uint64_t (*now_us)(struct loop *l);
    void (*close)(struct loop *l); /* frees the loop */
};

struct loop {
    const struct loop_impl *impl;
    uint64_t now_us;
    bool stopping, put_off; /* put_off: there is work for the next turn: do not wait */
    uint64_t last_completions;
    struct wheel wheel;
    struct list due;     /* ops (OP_QUEUED) whose done() is called in the next run */
    struct list starved; /* receives to be armed at the turn's end, in order */
    struct list hooks, sources;
    struct pool writes;         /* sock.c's, of a few pieces, as nearly all are */
    void (*on_wake)(void *ctx); /* NULL: nobody is told */
    void *on_wake_ctx;
    struct loop_stats stats;
    int wake_fd;
    struct op wake;
};

/* For implementations. init: impl and wake_fd (>= 0) first. start: arms the wake-up op. */
void loop_init(struct loop *l, const struct loop_impl *impl, int wake_fd);
void loop_start(struct loop *l);
int loop_own_wake_fd(const struct loop_config *c); /* the configured one, or a new one; -1: errno */
uint64_t loop_monotonic_us(struct loop *l);
/* op is done with res: done() is called in the next run, not now. */
void loop_complete(struct loop *l, struct op *op, int res);
/* op is done now, called from run: it rests before done() is called. */
void loop_finish(struct op *op, int res);
void loop_starve(struct loop *l, struct op *op); /* to the end of the list of the starved */

#endif
