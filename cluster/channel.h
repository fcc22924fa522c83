/* channel: frames between shards, numbered, acknowledged, in order (delivery.md 4). One channel per
 * ordered pair of shard incarnations, the own shard included: the same calls, only without bytes.
 * Peers are numbered by the wiring, which knows what a number stands for.
 *
 * A frame is acked when its *effects are safe*, not when it was read: the receiver says
 * channel_done with the origin it was given, now or later, once. The sender gets its `hold` back
 * exactly once: acked, or lost (the peer died and the frame was not to be kept). Kept frames (keep)
 * survive the peer: they wait, and go again in order, marked FRAME_AGAIN, to its next incarnation
 * before anything new. Nothing refuses: bounds are the sources' business (delivery.md 5.3).
 *
 * A path to a *remote* peer, on another node, may break while both ends live. What was sent is
 * then kept until the peer has received it (its acks say so, once per turn) and goes again, with
 * its number, when the path is up: nothing is lost, nothing comes twice. A path is our way to the
 * peer; its way to us is its own affair. What is sent meanwhile waits.
 *
 * In a cluster shards go by epochs (delivery.md 5.6), and a frame is judged by that in which it was
 * sent: FRAME_EPOCH says from where on a channel goes by another one. What comes by an epoch that
 * is not adopted here yet, acks too, waits until it is. What was sent to a home whose slots have
 * gone to another is taken back (channel_take_back): its number means nothing any more.
 *
 * Most of what goes between shards that have little to do is acks, and each costs the other one a
 * wake-up. FRAME_PATIENT says that nobody waits for a frame's ack: no client has asked what is
 * safe of its stanzas, no window is near its end. What a home does for such a frame is patient too
 * (ticket_flags). Acks of none but patient ones, and frames with FRAME_LATER, are given to the sink
 * as such: they may wait until the peer is awake, or for a moment.
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
/* Who sent a frame: to be given back to channel_done. In two registers: with a third word a message
 * cost 150 instructions more. */
struct origin {
    uint32_t peer, incarnation;
    uint64_t number : 63, patient : 1; /* patient: it does not wait for the ack */
};

struct channel_sinks {
    void *ctx;
    /* A frame has come. Views in it are valid until this returns; its stanza is borrowed. */
    void (*frame)(void *ctx, struct origin from, const struct frame *f);
    void (*settled)(void *ctx, struct hold h, bool lost);
    /* Bytes for a peer that is up (remote: has a path), in n <= FRAME_PARTS pieces; gone when it
     * returns. later: they are no reason to wake it. Calls nothing of the channels. */
    void (*send)(void *ctx, unsigned peer, const struct iovec *v, size_t n, bool later);
    /* Something was queued for the own shard or is to be flushed: run and flush before sleeping. */
    void (*wake)(void *ctx);
};

enum { CHANNEL_PEERS_MAX = 1 << 20 };

/* shards: as many peers there are from the start, self among them; others as they are named. */
struct channels *channels_new(unsigned self, unsigned shards, const struct channel_sinks *sinks);
void channels_free(struct channels *c);

void channel_send(struct channels *c, unsigned peer, const struct frame *f, struct hold h,
                  bool keep);
void channel_done(struct channels *c, struct origin o);

/* The wiring calls these. */
void channel_peer_up(struct channels *c, unsigned peer, uint32_t incarnation);
void channel_peer_down(struct channels *c, unsigned peer);
bool channel_peer_is_up(const struct channels *c, unsigned peer);
/* Remote: before its first up; after each up it has no path yet. */
void channel_peer_remote(struct channels *c, unsigned peer);
/* The path is there (again): what the peer has not received goes again from there, in order.
 * received: as it may have told otherwise (channel_received there); 0: what its acks told counts.
 * Of an incarnation that is not the channel's: no effect. */
void channel_path_up(struct channels *c, unsigned peer, uint32_t incarnation, uint64_t received);
void channel_path_down(struct channels *c, unsigned peer);
/* Remote: something of it was not given to channel_receive: it is asked to send that again. */
void channel_missed(struct channels *c, unsigned peer);
uint64_t channel_received(const struct channels *c, unsigned peer);
/* ERR_BAD: the peer sent what no peer of ours sends; its fifo is to be poisoned. */
nodiscard err channel_receive(struct channels *c, unsigned peer, str bytes);
bool channel_run(struct channels *c); /* runs the own shard's queue until empty; whether any ran */
void channel_flush(struct channels *c); /* sends the acks that are due */
size_t channel_unacked(const struct channels *c);
uint64_t channel_resent(const struct channels *c); /* frames that went, or were given, again */
/* Of what is not acked or not done: the windows of numbers, not the frames that wait. */
size_t channel_bytes(const struct channels *c);

/* ---- epochs: in a cluster (channel_epoch.c) ---- */

/* This shard goes by that epoch from now on, higher than the one before: all peers that are up are
 * told, and first thing each that comes up. lost: the slots that it has lost by it, for their
 * FRAME_EPOCH. What has waited for this epoch is run by the next channel_run. */
void channel_adopt(struct channels *c, uint64_t epoch, str lost);
/* The epoch by which the sender of the frame that is being handled went when it sent it; the own
 * shard: ours. 0: without a cluster. */
uint64_t channel_epoch(const struct channels *c, unsigned peer);
/* Of a frame that was to be kept and is not acked: it stays; it is void; it stays, but some of its
 * recipients are to be sent it elsewhere. */
enum channel_fate { CHANNEL_STAYS, CHANNEL_GOES, CHANNEL_PARTS };
typedef enum channel_fate channel_fate_f(void *ctx, unsigned peer, const struct frame *f);
/* f, sent to that peer and marked FRAME_AGAIN now, is to be sent again, at once. Of one that has
 * gone the hold is to be given on; of one that parts it is still in use: to look at only. */
typedef void channel_again_f(void *ctx, unsigned peer, const struct frame *f, struct hold h,
                             enum channel_fate fate);
/* Asks the fate of all, then gives back those that do not stay, per peer in the order in which they
 * were sent; those for peers that are down and for the own shard too. From outside of any sink. */
void channel_take_back(struct channels *c, channel_fate_f *fate, channel_again_f *again, void *ctx);
/* Where tickets are kept: they live no longer than the channels (ticket.c). */
struct pool *channel_tickets(struct channels *c);

#endif
