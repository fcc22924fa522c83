/* channel: frames between shards, numbered, acknowledged, in order (delivery.md 4). One channel per
 * ordered pair of shard incarnations, the own shard included: the same calls, only without bytes.
 *
 * A frame is acked when its *effects are safe*, not when it was read: the receiver says
 * channel_done with the origin it was given, now or later, once. The sender gets its `hold` back
 * exactly once: acked, or lost (the peer died and the frame was not to be kept). Kept frames (keep)
 * survive the peer: they wait, and go again in order, marked FRAME_AGAIN, to its next incarnation
 * before anything new. Nothing refuses: bounds are the sources' business (delivery.md 5.3).
 *
 * Frames to the own shard are queued and run by channel_run, never from inside channel_send: no
 * room is ever entered twice. */
#ifndef PEMBERLEY_CHANNEL_H
#define PEMBERLEY_CHANNEL_H

#include "proto/bus/frame.h"

struct channels;
struct pool;

/* The sender's note: whose it is (a kind that the wiring knows) and two numbers of its own. */
enum hold_owner { HOLD_NONE, HOLD_EDGE_IN, HOLD_TICKET, HOLD_MIRROR };
struct hold {
    enum hold_owner owner;
    uint64_t a, b;
};
/* Who sent a frame: to be given back to channel_done. */
struct origin {
    uint32_t peer, incarnation;
    uint64_t number;
};

struct channel_sinks {
    void *ctx;
    /* A frame has come. Views in it are valid until this returns; its stanza is borrowed. */
    void (*frame)(void *ctx, struct origin from, const struct frame *f);
    void (*settled)(void *ctx, struct hold h, bool lost);
    /* Bytes for a peer that is up, in n <= FRAME_PARTS pieces; gone when it returns. Calls nothing
     * of the channels. */
    void (*send)(void *ctx, unsigned peer, const struct iovec *v, size_t n);
    /* Something was queued for the own shard or is to be flushed: run and flush before sleeping. */
    void (*wake)(void *ctx);
};

struct channels *channels_new(unsigned self, unsigned shards, const struct channel_sinks *sinks);
void channels_free(struct channels *c);

void channel_send(struct channels *c, unsigned peer, const struct frame *f, struct hold h,
                  bool keep);
void channel_done(struct channels *c, struct origin o);

/* The wiring calls these. */
void channel_peer_up(struct channels *c, unsigned peer, uint32_t incarnation);
void channel_peer_down(struct channels *c, unsigned peer);
bool channel_peer_is_up(const struct channels *c, unsigned peer);
/* ERR_BAD: the peer sent what no peer of ours sends; its fifo is to be poisoned. */
nodiscard err channel_receive(struct channels *c, unsigned peer, str bytes);
bool channel_run(struct channels *c); /* runs the own shard's queue until empty; whether any ran */
void channel_flush(struct channels *c); /* sends the acks that are due */
size_t channel_unacked(const struct channels *c);
/* Where tickets are kept: they live no longer than the channels (ticket.c). */
struct pool *channel_tickets(struct channels *c);

#endif
