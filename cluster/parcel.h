/* parcel: a frame in memory of its own, with its strings and a reference to its stanza: what waits
 * in the own shard's queue, what is kept for a peer that may die, and what a peer on another node
 * has not received yet. Of a plain frame, as most are, only its head: three of these are made for
 * each message. Private to channel.c. */
#ifndef PEMBERLEY_PARCEL_H
#define PEMBERLEY_PARCEL_H

#include <stdalign.h>

#include "cluster/channel.h"
#include "pemberley/list.h"
#include "pemberley/pool.h"

struct parcel {
    struct list link;
    struct hold hold;      /* while it waits for a peer that is down */
    uint64_t number;       /* own shard: which of the open ones it is */
    struct stanza *stanza; /* has a reference */
    bool plain;
    bool keep;               /* own shard, in a cluster: it may be taken back */
    alignas(8) char bytes[]; /* plain: FRAME_HEAD of a struct frame, of the pool; else all of it, a
                                table of recipients, strings */
};

struct parcel *parcel_new(struct pool *pool, const struct frame *f);
void parcel_free(struct pool *pool, struct parcel *p); /* NULL is fine */
/* It goes to somebody else than it was sent to first. */
void parcel_mark_again(struct parcel *p);

/* scratch: whose part behind the head is zero. Valid as long as both. */
static inline const struct frame *parcel_frame(const struct parcel *p, struct frame *scratch)
{
    if (!p->plain)
        return (const struct frame *)p->bytes;
    memcpy(scratch, p->bytes, FRAME_HEAD);
    scratch->stanza = p->stanza;
    return scratch;
}

#endif
