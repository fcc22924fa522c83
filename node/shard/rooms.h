/* rooms: what the rooms of one shard are to each other (edge, home, copies): who gets a frame, who
 * is told that one has settled, what happens when another shard comes or goes. The shard has it
 * from here, and so has whoever runs shards without processes (tests/sim, unit/shard/custody): the
 * orders are the product's, not a test's. */
#ifndef PEMBERLEY_SHARD_ROOMS_H
#define PEMBERLEY_SHARD_ROOMS_H

#include "node/edge/edge.h"
#include "node/home/home.h"

/* For channel_sinks. */
void rooms_frame(struct node *n, struct edge *e, struct home *h, struct origin from,
                 const struct frame *f);
void rooms_settled(struct edge *e, struct home *h, struct hold hold, bool lost);

/* ---- without a cluster: another shard of the node comes or goes ---- */

/* What was kept for its predecessor goes to it first, then what we hold of its sessions, then that
 * this was all (ATTACHED). */
void rooms_peer_up(struct node *n, struct edge *e, struct home *h, unsigned peer,
                   uint32_t incarnation);
void rooms_peer_down(struct node *n, struct home *h, unsigned peer);

/* ---- in a cluster: epochs (delivery.md 5.6) ---- */

/* This shard goes by that ring from now on (member_sinks.adopted): between two turns, before any
 * frame is handled that came with this wake-up. The ring is of a view with this shard in it, and
 * was made with node->ring as the one before (NULL: the first); it is the rooms' from here, the one
 * before is freed. Peers that are not in it are down, those that are new are up when this returns;
 * remote ones wait for their path (channel_path_up, with (uint32_t) of their incarnation in the
 * view). Slots that have gone to others are theirs, those that have come wait.
 *
 * The wiring has to do nothing else with peers: no rooms_peer_up, no rooms_peer_down, no
 * home_await_others. Before the first ring no client may be here: node->ring is NULL. */
void rooms_adopt(struct node *n, struct edge *e, struct home *h, struct ring *ring);
/* Membership says that this epoch, the last that was adopted, is settled (member_sinks.settled). */
void rooms_epoch_settled(struct node *n, struct home *h, uint64_t epoch);

#endif
