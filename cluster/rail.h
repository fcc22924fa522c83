/* rail: one bus connection between this shard and the same-numbered shard of another node
 * (architecture 7): who is at the other end, heartbeats, reconnecting, and envelopes
 * (proto/bus/envelope.h) both ways.
 *
 * Nouns: *rails* is all of a shard's; a *rail* leads to one shard of one other node and outlives
 * its connections; a *call* is one connection, dialled or accepted, before and after its HELLOs.
 *
 * Who dials: the node with the smaller name, again and again, with growing pauses and jitter.
 * Should two connections exist, one is kept: of two in one direction the newer (its dialler has
 * given the older up), else that which the smaller name dialled; both ends come to the same.
 *
 * What a rail carried when it broke is lost: sending again by number is the channel's. It never
 * drops while it is up, and never refuses: beyond queue_max it says `full`, and who lets sources in
 * (delivery.md 5.3) stops them until it says that half is free again.
 *
 * Sockets and TLS come from the wiring: the dial sink asks for a connection, which is given back by
 * rail_connected; the name that a peer has proven is transport_info's. */
#ifndef PEMBERLEY_RAIL_H
#define PEMBERLEY_RAIL_H

#include <sys/uio.h>

#include "pemberley/clock.h"
#include "pemberley/entropy.h"
#include "pemberley/log.h"
#include "pemberley/loop.h"
#include "pemberley/transport.h"
#include "proto/bus/envelope.h"

struct rails;
struct rail;

/* The versions this build speaks, and what it can beyond them. */
enum { RAIL_VERSION_MIN = 1, RAIL_VERSION_MAX = 1 };
#define RAIL_FEATURES UINT64_C(0)

/* Why a call is refused; the other side is told. Values are the wire's. */
enum rail_refusal {
    RAIL_REFUSED_OTHER, /* by a reason that this version does not know */
    RAIL_MALFORMED,     /* no HELLO, or not in time */
    RAIL_VERSION,       /* no version that both speak */
    RAIL_CLUSTER,       /* of another cluster */
    RAIL_NAME,          /* not the name that its certificate proves, or not who was called */
    RAIL_SELF,          /* our own name */
    RAIL_UNKNOWN,       /* not in our membership (yet) */
    RAIL_REPLACED,      /* there is another connection, which is kept */
    RAIL_REFUSALS
};
const char *rail_refusal_name(enum rail_refusal r);

struct rails_config {
    struct loop *loop;
    struct entropy *entropy;
    struct clock *clock;
    struct log *log;
    str cluster, node; /* copied */
    str software;      /* told in HELLO; lives as long as the rails */
    uint16_t shard;
    uint32_t incarnation;
    bool plain; /* peers without TLS are believed their name: loopback and tests only */
    uint32_t ping_ms, timeout_ms; /* cluster.rail_ping, cluster.rail_timeout */
    size_t queue_max;             /* cluster.rail_queue_max */
    size_t frame_max;             /* a longer one breaks the call */
};

/* Each may call everything but rails_free. */
struct rail_sinks {
    void *ctx;
    /* Wanted: a connection to this rail's shard. Answered, later or at once, by rail_connected or
     * rail_failed, exactly once and in bounded time. */
    void (*dial)(void *ctx, struct rail *r);
    /* Envelopes may be sent. Strings of hello are gone when it returns. */
    void (*up)(void *ctx, struct rail *r, const struct hello *peer);
    /* What was on its way is lost, and it is not full any more. ERR_TIMEOUT: the peer did not
     * answer (it is suspect). */
    void (*down)(void *ctx, struct rail *r, err reason);
    /* Frames only; views until it returns. */
    void (*frame)(void *ctx, struct rail *r, const struct envelope *e);
    /* A word about membership, from the peer's node; a view until it returns. */
    void (*word)(void *ctx, struct rail *r, str bytes);
    /* true: queue_max is passed (also from inside rail_send); false: half of it is free again. */
    void (*full)(void *ctx, struct rail *r, bool full);
};

struct rails *rails_new(const struct rails_config *c, const struct rail_sinks *sinks);
/* Of what a reload may change. */
void rails_configure(struct rails *rs, uint32_t ping_ms, uint32_t timeout_ms, size_t queue_max);
void rails_set_epoch(struct rails *rs, uint64_t epoch); /* told in HELLO */
/* A connection that somebody has made to us; TLS: before its handshake is done. */
void rails_accept(struct rails *rs, struct transport *t);
/* Closes all rails; their connections rest some turns later. */
void rails_close(struct rails *rs);
bool rails_at_rest(const struct rails *rs);
uint64_t rails_refused(const struct rails *rs); /* calls of strangers, not of who is unknown yet */
void rails_free(struct rails *rs);              /* must be at rest */

/* From now on there is to be a rail to that shard of that node (neither ours; node is copied).
 * Dials from the next turn on, where that is our part. */
struct rail *rail_open(struct rails *rs, str node, uint16_t shard, void *owner);
/* At once and without down(): the owner knows. Frees r; a dial that was asked for is not to be
 * answered any more. */
void rail_close(struct rail *r);

/* Answers to the dial sink; the transport is taken over (TLS: before its handshake is done). */
void rail_connected(struct rail *r, struct transport *t);
void rail_failed(struct rail *r, err reason);

/* The other shard's incarnation as the membership has it: told in HELLO; 0: not known. */
void rail_set_incarnation(struct rail *r, uint32_t incarnation);
/* Queues a frame, copied when it returns; goes at the turn's end. False: the rail is down, and it
 * was dropped. */
bool rail_send(struct rail *r, const struct envelope_address *a, const struct iovec *frame,
               size_t n);
/* The same of a word about membership: 1 to frame_max bytes. */
bool rail_say(struct rail *r, str word);
bool rail_is_up(const struct rail *r);
void *rail_owner(const struct rail *r);
str rail_node(const struct rail *r);
uint16_t rail_shard(const struct rail *r);

struct rail_stats {
    uint64_t frames_in, frames_out, bytes_in, bytes_out; /* of all its calls */
    uint64_t reconnects, stalled_ms;                     /* time spent full */
    size_t queued;                                       /* bytes */
    uint64_t round_trip_us;                              /* of the last ping; 0: none yet */
    int64_t offset_us; /* the peer's wall clock less ours, wrong by half a round trip at most */
};
struct rail_stats rail_stats(const struct rail *r);

#endif
