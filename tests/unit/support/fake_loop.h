/* fake_loop: the loop's timers and turn hooks on virtual time, without a kernel, for rooms that
 * reach sockets by transports only. Include it once per program that links no node/os. */
#ifndef PEMBERLEY_TEST_FAKE_LOOP_H
#define PEMBERLEY_TEST_FAKE_LOOP_H

#include "pemberley/loop.h"

struct loop {
    uint64_t now_us;
    struct list timers, hooks;
};

static inline void fake_loop_init(struct loop *l)
{
    l->now_us = 1000000;
    list_init(&l->timers), list_init(&l->hooks);
}

void timer_init(struct timer *t, timer_f *fn)
{
    list_init(&t->link);
    t->fn = fn;
}
void loop_timer_stop(struct loop *l, struct timer *t) { list_remove(&t->link); }
void loop_timer_set(struct loop *l, struct timer *t, uint64_t in_ms)
{
    list_remove(&t->link);
    t->due_ms = l->now_us / 1000 + in_ms;
    list_push_back(&l->timers, &t->link);
}
uint64_t loop_now_ms(const struct loop *l) { return l->now_us / 1000; }
uint64_t loop_now_us(const struct loop *l) { return l->now_us; }
uint64_t loop_clock_us(struct loop *l) { return l->now_us; }
void loop_at_turn_end(struct loop *l, struct turn_hook *h)
{
    if (list_empty(&h->link))
        list_push_back(&l->hooks, &h->link);
}

static inline bool fake_loop_fire(struct loop *l)
{
    struct timer *first = NULL;
    list_each(t, &l->timers, struct timer, link)
        if (t->due_ms <= l->now_us / 1000 && (!first || t->due_ms < first->due_ms))
            first = t;
    if (!first)
        return false;
    list_remove(&first->link);
    first->fn(first);
    return true;
}

/* What is due, then the hooks; whether there was anything. */
static inline bool fake_loop_turn(struct loop *l)
{
    bool any = false;
    for (int i = 0; fake_loop_fire(l); i++, any = true)
        must(i < 100000);
    for (int i = 0; !list_empty(&l->hooks); i++, any = true) {
        struct turn_hook *h = list_first(&l->hooks, struct turn_hook, link);
        list_remove(&h->link);
        h->fn(h);
        must(i < 100000);
    }
    return any;
}

#endif
