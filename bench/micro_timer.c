/* micro_timer: the timer wheel through the loop's door, with 100,000 timers in it: as many
 * connections have one each. Most are set again or stopped before they are due; what fires is
 * measured with the turns that find it (waiting takes no CPU time). */
#include "bench/micro.h"

#include <stdlib.h>

#include "node/os/os.h"

enum { TIMERS = 100000, FIRING = 20000, FIRE_MS = 200 };

struct bench {
    struct loop *loop;
    size_t next;
    struct timer timers[TIMERS];
};

static size_t fired; /* a timer's callback has nothing but the timer */

static void on_timer(struct timer *t) { fired++; }

static struct timer *any(struct bench *b) { return &b->timers[b->next++ * 7919 % TIMERS]; }

static double moved(void *ctx, size_t times)
{
    struct bench *b = ctx;
    double from = micro_ns();
    for (size_t i = 0; i < times; i++)
        loop_timer_set(b->loop, any(b), 60000 + i % 64 * 1000);
    return micro_ns() - from;
}

static double moved_soon(void *ctx, size_t times)
{
    struct bench *b = ctx;
    double from = micro_ns();
    for (size_t i = 0; i < times; i++)
        loop_timer_set(b->loop, any(b), 900 + i % 64);
    double ns = micro_ns() - from;
    moved(b, TIMERS); /* before any of them is due */
    return ns;
}

static double stopped(void *ctx, size_t times)
{
    struct bench *b = ctx;
    double from = micro_ns();
    for (size_t i = 0; i < times; i++) {
        struct timer *t = any(b);
        loop_timer_stop(b->loop, t);
        loop_timer_set(b->loop, t, 60000);
    }
    return micro_ns() - from;
}

static double fires(void *ctx, size_t times)
{
    struct bench *b = ctx;
    loop_turn(b->loop, 0); /* so that time is known */
    fired = 0;
    double from = micro_ns();
    for (size_t i = 0; i < times; i++)
        loop_timer_set(b->loop, &b->timers[i], 1 + i % FIRE_MS);
    while (fired < times)
        loop_turn(b->loop, 1000);
    double ns = micro_ns() - from;
    for (size_t i = 0; i < times; i++)
        loop_timer_set(b->loop, &b->timers[i], 60000);
    return ns;
}

int main(int argc, char **argv)
{
    struct loop_config lc = {.choice = LOOP_AUTO, .wake_fd = -1};
    struct loop_fault fault;
    struct bench *b = calloc(1, sizeof *b);
    must(b && loop_new(&lc, &fault, &b->loop) == ERR_OK);
    loop_turn(b->loop, 0);
    for (size_t i = 0; i < TIMERS; i++) {
        timer_init(&b->timers[i], on_timer);
        loop_timer_set(b->loop, &b->timers[i], 60000);
    }
    struct micro_case cases[] = {
        {"set again, a minute ahead", moved, b, 0},
        {"set again, within a second", moved_soon, b, TIMERS},
        {"stopped and set", stopped, b, 0},
        {"set and fired, 20,000 within 200 ms", fires, b, FIRING},
    };
    micro_run(cases, array_len(cases), argc, argv);
    loop_close(b->loop);
    free(b);
    return 0;
}
