/* unacked: what was sent on a channel and is not acked yet, by number.
 *
 *   late ....... base ........ next     a window of numbers as a circular array, nearly always all
 *   [n][n][n]    [pend][pend][pend]     that there is; the front is dropped while it is acked
 *
 * One frame that stays open for long, as those to a reader that stalls do, would keep a window of
 * all that passes behind it: 11 to 16 MB/s. So the window does not grow while less than half of it
 * is open; what is open in its first half moves to `late`, a list in order. Memory is a share of
 * what is un-acked at once, and each entry moves once. Private to channel.c. */
#ifndef PEMBERLEY_UNACKED_H
#define PEMBERLEY_UNACKED_H

#include "cluster/channel.h"

struct parcel;

struct pend {
    enum hold_owner owner; /* and a, b: the hold */
    bool keep, acked;
    uint64_t a, b;
    struct parcel *kept; /* NULL: not kept, and nothing that could have to be sent again */
};
_Static_assert(sizeof(struct pend) == 32, "two in a cache line");

struct late_pend {
    uint64_t number;
    struct pend pend;
};

struct unacked {
    uint64_t base, next; /* numbers: base is the oldest in the window, next the one to give */
    struct pend *at;
    size_t mask, open; /* open: of the window */
    struct late_pend *late;
    size_t late_n, late_open, late_cap;
};

void unacked_begin(struct unacked *u); /* no number given yet; holds nothing */
void unacked_close(struct unacked *u); /* the memory, not the parcels */
uint64_t unacked_push(struct unacked *u, struct pend p);
static inline size_t unacked_count(const struct unacked *u) { return u->open + u->late_open; }
static inline size_t unacked_bytes(const struct unacked *u)
{
    return (u->at ? u->mask + 1 : 0) * sizeof *u->at + u->late_cap * sizeof *u->late;
}
/* The first that is not acked from *number on, which is set to its number; NULL: none. Valid until
 * the next push or ack. */
struct pend *unacked_next(const struct unacked *u, uint64_t *number);
/* p, of that number, is acked. */
void unacked_ack(struct unacked *u, uint64_t number, struct pend *p);

#endif
