/* timer: the wheel of loop.h's timers: 128 slots of 10 ms and 512 of 1 s, beyond that they go
 * round again. A timer fires at the first slot boundary after its time, never early. Setting and
 * stopping are a list operation each; most timers (login, idle, resume) are stopped or set again
 * before they are due, so nothing sorts them. */
#include "node/os/loop_impl.h"

void timer_init(struct timer *t, timer_f *fn)
{
    list_init(&t->link);
    t->due_ms = 0;
    t->fn = fn;
}

void wheel_init(struct wheel *w, uint64_t now_ms)
{
    memset(w->fine_bits, 0, sizeof w->fine_bits);
    memset(w->coarse_bits, 0, sizeof w->coarse_bits);
    for (unsigned i = 0; i < FINE_SLOTS; i++)
        list_init(&w->fine[i]);
    for (unsigned i = 0; i < COARSE_SLOTS; i++)
        list_init(&w->coarse[i]);
    w->count = 0;
    w->fine_tick = now_ms / FINE_MS;
    w->coarse_tick = now_ms / COARSE_MS;
}

static void put(struct list *slots, uint64_t *bits, uint64_t tick, unsigned n, struct timer *t)
{
    unsigned i = (unsigned)(tick % n);
    list_push_back(&slots[i], &t->link);
    bits[i / 64] |= UINT64_C(1) << (i % 64);
}

/* The first boundary at or after due, and never a slot that this run has passed: a timer of 0 ms
 * set by a timer fires in the next slot, so that no pair of them can hold the turn. */
static uint64_t tick_of(uint64_t due_ms, unsigned slot_ms, uint64_t done_tick)
{
    uint64_t tick = (due_ms + slot_ms - 1) / slot_ms;
    return tick > done_tick ? tick : done_tick + 1;
}

void wheel_set(struct wheel *w, struct timer *t, uint64_t now_ms, uint64_t in_ms)
{
    must(t->fn);
    w->count += list_empty(&t->link);
    list_remove(&t->link);
    if (in_ms > UINT64_MAX / 4)
        in_ms = UINT64_MAX / 4;
    t->due_ms = now_ms + in_ms;
    uint64_t fine = tick_of(t->due_ms, FINE_MS, w->fine_tick);
    if (in_ms <= 1000 && fine - w->fine_tick < FINE_SLOTS)
        put(w->fine, w->fine_bits, fine, FINE_SLOTS, t);
    else
        put(w->coarse, w->coarse_bits, tick_of(t->due_ms, COARSE_MS, w->coarse_tick), COARSE_SLOTS,
            t);
}

void wheel_stop(struct wheel *w, struct timer *t)
{
    w->count -= !list_empty(&t->link);
    list_remove(&t->link);
}

/* Fires what is due in one slot; the rest (another round of the wheel) goes back. The list is moved
 * aside first: a callback may set, stop and free timers, of this list too. */
static void run_slot(struct list *slots, uint64_t *bits, unsigned i, uint64_t now_ms,
                     uint64_t *count)
{
    if (!(bits[i / 64] & (UINT64_C(1) << (i % 64))))
        return;
    bits[i / 64] &= ~(UINT64_C(1) << (i % 64));
    struct list moved;
    list_init(&moved);
    list_append(&moved, &slots[i]);
    while (!list_empty(&moved)) {
        struct timer *t = list_first(&moved, struct timer, link);
        list_remove(&t->link);
        if (t->due_ms > now_ms) {
            list_push_back(&slots[i], &t->link);
            bits[i / 64] |= UINT64_C(1) << (i % 64);
        } else {
            --*count;
            t->fn(t);
        }
    }
}

/* Runs the slots from *done to tick, each once at most. *done moves first: what a callback sets
 * lands behind the slots being run. */
static void run_slots(struct list *slots, uint64_t *bits, unsigned n, uint64_t *done, uint64_t tick,
                      uint64_t now_ms, uint64_t *count)
{
    uint64_t first = *done + 1;
    if (tick < first)
        return;
    if (tick - first >= n)
        first = tick - n + 1;
    *done = tick;
    for (uint64_t k = first; k <= tick; k++)
        run_slot(slots, bits, (unsigned)(k % n), now_ms, count);
}

void wheel_run(struct wheel *w, uint64_t now_ms)
{
    run_slots(w->fine, w->fine_bits, FINE_SLOTS, &w->fine_tick, now_ms / FINE_MS, now_ms,
              &w->count);
    run_slots(w->coarse, w->coarse_bits, COARSE_SLOTS, &w->coarse_tick, now_ms / COARSE_MS, now_ms,
              &w->count);
}

/* The first tick after `done` whose slot is not empty; UINT64_MAX: none. Clears stale bits. */
static uint64_t next_tick(struct list *slots, uint64_t *bits, unsigned n, uint64_t done)
{
    for (uint64_t k = done + 1; k <= done + n;) {
        unsigned i = (unsigned)(k % n);
        uint64_t rest = bits[i / 64] >> (i % 64);
        if (!rest) {
            k += 64 - i % 64;
            continue;
        }
        unsigned skip = (unsigned)__builtin_ctzll(rest);
        k += skip, i += skip;
        if (k > done + n)
            break;
        if (!list_empty(&slots[i]))
            return k;
        bits[i / 64] &= ~(UINT64_C(1) << (i % 64));
    }
    return UINT64_MAX;
}

uint64_t wheel_next_ms(struct wheel *w, uint64_t now_ms)
{
    uint64_t fine = next_tick(w->fine, w->fine_bits, FINE_SLOTS, w->fine_tick);
    uint64_t coarse = next_tick(w->coarse, w->coarse_bits, COARSE_SLOTS, w->coarse_tick);
    uint64_t at = UINT64_MAX;
    if (fine != UINT64_MAX)
        at = fine * FINE_MS;
    if (coarse != UINT64_MAX && coarse * COARSE_MS < at)
        at = coarse * COARSE_MS;
    if (at == UINT64_MAX)
        return at;
    return at > now_ms ? at - now_ms : 0;
}
