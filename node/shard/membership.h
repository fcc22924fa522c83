/* membership: this shard's part in its cluster: who is a member (cluster/member.h) with the
 * registry, time and words it needs, and what follows from each view: the ring, the rooms, the
 * rails.
 *
 *     supervisor ─► clerk, siblings, wish ─► struct member ─► adopted: ring_new ─► rooms_adopt
 *     registry ◄──── leases, views ─────────┘            │            └► bus_adopt
 *     bus ◄───────── words ─────────────────────────────┘ settled: rooms_epoch_settled; ready
 *
 * Only where there is a cluster (cluster.name); it is made before the rooms and knows them from
 * membership_start on. The registry's records are written past it (node.registry). */
#ifndef PEMBERLEY_SHARD_MEMBERSHIP_H
#define PEMBERLEY_SHARD_MEMBERSHIP_H

#include "node/edge/edge.h"
#include "node/home/home.h"
#include "node/super/child.h"

struct bus;
struct membership;
struct resolver;
struct siblings;
struct view;

struct membership_sinks {
    void *ctx;
    /* The first view that has this node as a full member is settled: clients may come. Once. */
    void (*ready)(void *ctx);
    /* It may not act: nothing of the rooms goes out or comes in, until it may again. */
    void (*stalled)(void *ctx, bool stalled);
    /* It is over: the shard's process ends at once, or for MEMBER_LEFT as it was going to. */
    void (*ended)(void *ctx, enum member_end why);
    /* A sibling has sent what is no frame. */
    void (*bad)(void *ctx, unsigned shard);
};

/* node: conf, loop, clock, entropy, log, metrics, name, shard; gets its registry here. start: as
 * the supervisor has it; kept by value, but for what points. */
struct membership *membership_new(struct node *n, const struct child_start *start,
                                  struct child *child, struct resolver *r,
                                  const struct membership_sinks *sinks);
/* From here on it acts; the rooms and the bus are there. */
void membership_start(struct membership *m, struct edge *e, struct home *h, struct bus *b,
                      struct siblings *siblings);

/* The supervisor's news. */
void membership_sibling_up(struct membership *m, unsigned shard, uint64_t incarnation);
void membership_sibling_down(struct membership *m, unsigned shard);
void membership_clerk(struct membership *m, unsigned shard);
void membership_wish(struct membership *m, const struct child_wish *w);
/* This shard has let go of everything: the node leaves; ended() comes with MEMBER_LEFT. False: it
 * is not the clerk, whose part that is. */
bool membership_leave(struct membership *m);

/* bus_sinks. */
nodiscard err membership_hear(struct membership *m, str node, str bytes);
void membership_silent(struct membership *m, str node, bool silent);

void membership_sample(struct membership *m); /* once a second: metrics, and what is due */
bool membership_is_clerk(const struct membership *m);
bool membership_is_stalled(const struct membership *m);
/* Milliseconds until its deadline. */
uint64_t membership_lease_ms(const struct membership *m);
struct member *membership_member(struct membership *m); /* for what commands want */
/* Of a node's name in a view, and back (cluster/peers.h). */
unsigned membership_block(struct membership *m, str node);
str membership_name(const struct membership *m, unsigned block);
const struct view *membership_view(const struct membership *m); /* NULL: none yet */

#endif
