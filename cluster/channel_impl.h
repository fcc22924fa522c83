/* channel_impl: what a channel is made of, for channel.c (numbers, acks, paths, the own shard) and
 * channel_epoch.c (epochs). */
#ifndef PEMBERLEY_CHANNEL_IMPL_H
#define PEMBERLEY_CHANNEL_IMPL_H

#include <stdlib.h>

#include "cluster/arrived.h"
#include "cluster/channel.h"
#include "cluster/parcel.h"
#include "cluster/unacked.h"

struct channel {
    unsigned peer;
    struct list due; /* while ack_due */
    bool up;
    bool remote;
    bool path;       /* remote: our way to it; what is sent while it is down goes when it is up */
    bool ask, asked; /* remote: that the peer sends again what is missing; to be, was */
    bool ack_due, ack_soon; /* soon: somebody waits for it */
    uint32_t incarnation;
    struct unacked sent;
    uint64_t theirs;     /* remote: all up to it has been received */
    struct list waiting; /* parcels for a peer that is down */
    struct stanza *went; /* the last; NULL: none since it is up */
    struct stanza *came;
    struct arrived in;
    /* in a cluster: */
    uint64_t epoch;    /* by which the peer goes, as far as it was heard here */
    struct list ahead; /* struct ahead.link: what came by an epoch that is not adopted here */
    struct list acks;  /* the same, of acks */
    uint64_t ahead_n;  /* numbers that wait in `ahead` */
    bool broken;       /* what waited was not what a peer of ours sends */
};

/* A frame to the own shard that is not done. */
struct own {
    struct hold hold;    /* free: a is the next free one */
    struct parcel *kept; /* in a cluster: in `running` */
    bool open;
};
enum { OWN_NOBODY = 1 }; /* stands for all of those without a hold; 0 is nobody's number */

struct settle {
    struct hold hold;
    bool lost;
};

struct channels {
    unsigned self, count;
    struct arena in, out; /* of the frame being received, of the one being encoded: hundreds in a
                           * turn go through memory that stays in the cache */
    struct channel_sinks sinks;
    struct pool parcels, tickets;
    struct list local;                         /* parcels for the own shard, in order */
    struct own *own;                           /* by number; 0 and OWN_NOBODY are nobody's */
    size_t own_n, own_cap, own_free, own_open; /* own_free: the first; 0: none */
    struct list running;                       /* parcels that were run and may be taken back */
    struct parcel *current;                    /* is being run */
    struct settle *settles;
    size_t settle_count, settle_cap, settle_at;
    struct list due; /* channels with an ack to send */
    struct channel **peer;
    uint64_t epoch;   /* 0: no cluster */
    bool catching_up; /* something that waits may be run now */
    uint64_t resent;
};

/* ---- channel.c ---- */

/* A frame whose turn it is, or an ack; ERR_BAD as of channel_receive. */
nodiscard err channel_take(struct channels *c, struct channel *ch, struct frame *f,
                           uint64_t number);
/* Not the number that is due. */
nodiscard err channel_other(struct channels *c, struct channel *ch, uint64_t number);
static inline uint64_t channel_due(const struct channel *ch)
{
    return ch->in.received + ch->ahead_n + 1;
}

/* ---- channel_epoch.c ---- */

static inline bool channel_is_ahead(const struct channels *c, const struct channel *ch,
                                    const struct frame *f)
{
    bool tells = f->kind == FRAME_ACK || f->kind == FRAME_EPOCH;
    return (tells && f->ms > c->epoch) || (ch->ahead_n && f->kind != FRAME_ACK);
}
/* f waits, as the bytes that it came in. */
nodiscard err channel_wait(struct channels *c, struct channel *ch, const struct frame *f,
                           uint64_t number, str bytes);
void channel_catch_up(struct channels *c);
void channel_forget_ahead(struct channel *ch);
void channel_say_epoch(struct channels *c, struct channel *ch, str lost);

#endif
