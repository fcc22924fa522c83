/* arrived: which frames of a peer's channel have come and which of them are done, by number.
 *
 *   upto ..... low .......... received   a window of numbers as a circular array of bytes: OPEN,
 *       [late]    [byte][byte][byte]     DONE (to be told), TOLD; the front is dropped once done
 *
 * Sparse like what its peer keeps (unacked.h): the window does not grow while less than half of it
 * is open; what is open in its first half then, or not told yet, moves to `late`. Private to
 * channel.c. */
#ifndef PEMBERLEY_ARRIVED_H
#define PEMBERLEY_ARRIVED_H

#include "cluster/channel.h"

struct late_state;

struct arrived {
    uint64_t upto; /* all up to it is done: what an ack says first */
    uint64_t low;  /* the window begins behind it; what is behind upto and not late is done, told */
    uint64_t received;
    uint8_t *state;
    size_t mask, open;            /* open: of the window */
    uint64_t due_first, due_last; /* in the window; among them are all that are DONE; none: > */
    struct late_state *late;
    size_t late_n, late_done, late_cap;
    uint64_t again; /* not 0: what is done from it on up to low is to be told again */
};

void arrived_begin(struct arrived *a); /* nothing has come yet; holds nothing */
void arrived_close(struct arrived *a);
void arrived_push(struct arrived *a);                  /* the next one has come */
void arrived_done(struct arrived *a, uint64_t number); /* that is OPEN */
/* What an ack says now: upto, and pairs of numbers behind it, each told once; at most max numbers.
 */
size_t arrived_tell(struct arrived *a, uint64_t *ranges, size_t max);
bool arrived_has_more(const struct arrived *a); /* it did not say all */
void arrived_tell_again(struct arrived *a);     /* what was told may not have come */

#endif
