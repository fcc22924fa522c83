/* window: which of a client's stanzas are safe at their home (delivery.md I3). Everything up to and
 * with `safe` is; beyond it a bit per stanza, because acks come in any order. `h` towards the
 * client counts contiguous ones only, so that is the number kept. */
#ifndef PEMBERLEY_EDGE_WINDOW_H
#define PEMBERLEY_EDGE_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

enum { WINDOW_MAX = 256 }; /* the width of a mark (delivery.md 3) */

struct window {
    uint64_t safe;
    uint64_t bits[WINDOW_MAX / 64]; /* ord mod WINDOW_MAX */
};

/* ord is safe. Whether `safe` moved. */
static inline bool window_mark(struct window *w, uint64_t ord)
{
    if (ord <= w->safe || ord - w->safe > WINDOW_MAX)
        return false;
    w->bits[ord / 64 % 4] |= 1ull << ord % 64;
    uint64_t before = w->safe;
    for (;;) {
        uint64_t next = w->safe + 1, bit = 1ull << next % 64;
        if (!(w->bits[next / 64 % 4] & bit))
            return w->safe != before;
        w->bits[next / 64 % 4] &= ~bit;
        w->safe = next;
    }
}
static inline bool window_is_full(const struct window *w, uint64_t last_ord, uint64_t max)
{
    return last_ord - w->safe >= (max < WINDOW_MAX ? max : WINDOW_MAX);
}

#endif
