/* entropy: unpredictable bytes: getrandom in production, a seed in the simulator. Never fails. */
#ifndef PEMBERLEY_ENTROPY_H
#define PEMBERLEY_ENTROPY_H

#include <stddef.h>
#include <stdint.h>

struct entropy {
    void (*fill)(struct entropy *e, void *out, size_t n);
};
static inline void entropy_fill(struct entropy *e, void *out, size_t n) { e->fill(e, out, n); }
static inline uint64_t entropy_u64(struct entropy *e)
{
    uint64_t x;
    e->fill(e, &x, sizeof x);
    return x;
}

#endif
