/* window: which of a client's stanzas are safe at their home (delivery.md I3). Everything up to and
 * with `safe` is; beyond it a bit per stanza, because acks come in any order. `h` towards the
 * client counts contiguous ones only, so that is the number kept. The bits have memory only while
 * one is set: nearly all acks come in order. */
#ifndef PEMBERLEY_WINDOW_H
#define PEMBERLEY_WINDOW_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "pemberley/must.h"

enum { WINDOW_MAX = 256 }; /* the width of a mark (delivery.md 3) */

struct window {
    uint64_t safe;
    uint64_t *bits; /* WINDOW_MAX of them, by ord mod WINDOW_MAX; NULL: none is set */
};

static inline void window_close(struct window *w)
{
    free(w->bits);
    w->bits = NULL;
}
static inline void window_note(struct window *w, uint64_t ord)
{
    if (!w->bits) {
        w->bits = calloc(WINDOW_MAX / 64, sizeof *w->bits);
        must(w->bits);
    }
    w->bits[ord / 64 % 4] |= 1ull << ord % 64;
}
/* The bits as another holder has them. */
static inline void window_take(struct window *w, const char bits[WINDOW_MAX / 8])
{
    window_note(w, 0); /* makes room */
    memcpy(w->bits, bits, WINDOW_MAX / 8);
}
static inline bool window_has(const struct window *w, uint64_t ord)
{
    return ord <= w->safe || (w->bits && w->bits[ord / 64 % 4] >> ord % 64 & 1);
}
/* `safe` moves over what was noted behind it. */
static inline void window_advance(struct window *w)
{
    for (;;) {
        uint64_t next = w->safe + 1, bit = 1ull << next % 64;
        if (!(w->bits[next / 64 % 4] & bit))
            break;
        w->bits[next / 64 % 4] &= ~bit;
        w->safe = next;
    }
    if (!(w->bits[0] | w->bits[1] | w->bits[2] | w->bits[3]))
        window_close(w);
}
/* ord is safe. Whether `safe` moved. */
static inline bool window_mark(struct window *w, uint64_t ord)
{
    if (ord <= w->safe || ord - w->safe > WINDOW_MAX)
        return false;
    if (ord != w->safe + 1)
        return window_note(w, ord), false;
    w->safe = ord;
    if (w->bits)
        window_advance(w);
    return true;
}
static inline bool window_is_full(const struct window *w, uint64_t last_ord, uint64_t max)
{
    return last_ord - w->safe >= (max < WINDOW_MAX ? max : WINDOW_MAX);
}

#endif
