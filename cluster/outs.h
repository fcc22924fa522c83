/* outs: stanzas from a home that a client (without XEP-0198: the transport) has not taken, in order
 * of their seq, as whoever holds them for it keeps them. A circular array with its header in one
 * block; an empty queue is NULL. */
#ifndef PEMBERLEY_OUTS_H
#define PEMBERLEY_OUTS_H

#include <stdlib.h>

#include "pemberley/pool.h"
#include "proto/bus/frame.h"

/* Its seq is its place. 48 bytes. */
struct out {
    struct stanza *stanza;
    uint64_t sid, ord; /* uid */
    uint64_t row;      /* of the offline store that it is; 0: none */
    uint32_t lane;
    uint32_t flags : 8; /* enum frame_flag */
    uint64_t us : 56;   /* when its home took it, wall time */
};
struct outs {
    uint32_t head, count, cap; /* cap is a power of two */
    uint32_t unsent;           /* bytes of those that are not written to the conn yet */
    uint64_t bytes;            /* of all */
    struct out at[];
};

struct out out_of(const struct frame *f); /* OUT, MIRROR, QUEUED; takes a reference of its stanza */
/* pool: of short queues, for who has one that comes and goes with every stanza; or NULL. */
void outs_push(struct outs **o, struct out out, struct pool *pool);
/* The oldest goes; with the last one the queue. */
void outs_pop(struct outs **o, struct pool *pool);
void outs_close(struct outs **o);

static inline uint32_t outs_count(const struct outs *o) { return o ? o->count : 0; }
/* i: from the oldest. */
static inline struct out *outs_at(struct outs *o, uint64_t i)
{
    return &o->at[(o->head + i) & (o->cap - 1)];
}

#endif
