/* bucket: a token bucket (rate, burst) in 16 bytes. Zeroed memory is a full one. It counts what was
 * *spent*, in units of 1/per_ms of a token, so that no rate is rounded to nothing. */
#ifndef PEMBERLEY_EDGE_BUCKET_H
#define PEMBERLEY_EDGE_BUCKET_H

#include "node/conf/conf.h"

struct bucket {
    uint64_t spent; /* tokens * per_ms */
    uint64_t at_ms; /* when spent was true */
};

static inline void bucket_refill(struct bucket *b, struct conf_rate r, uint64_t now_ms)
{
    uint64_t elapsed = now_ms - b->at_ms;
    b->at_ms = now_ms;
    b->spent = elapsed >= b->spent / r.count + 1 ? 0 : b->spent - elapsed * r.count;
}
/* Takes n tokens whether they are there or not; returns how many milliseconds the taker is to wait
 * for what it overdrew: 0, go on. */
static inline uint64_t bucket_charge(struct bucket *b, struct conf_rate r, uint64_t burst,
                                     uint64_t n, uint64_t now_ms)
{
    if (r.count == 0)
        return 0;
    bucket_refill(b, r, now_ms);
    b->spent += n * r.per_ms;
    uint64_t full = burst * r.per_ms;
    return b->spent <= full ? 0 : (b->spent - full) / r.count + 1;
}
/* Takes n tokens only if they are there. */
static inline bool bucket_take(struct bucket *b, struct conf_rate r, uint64_t burst, uint64_t n,
                               uint64_t now_ms)
{
    if (r.count == 0)
        return true;
    bucket_refill(b, r, now_ms);
    if (b->spent + n * r.per_ms > burst * r.per_ms)
        return false;
    b->spent += n * r.per_ms;
    return true;
}

#endif
