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

/* What was kept for its predecessor goes to it first, then what we hold of its sessions, then that
 * this was all (ATTACHED). */
void rooms_peer_up(struct node *n, struct edge *e, struct home *h, unsigned peer,
                   uint32_t incarnation);
void rooms_peer_down(struct node *n, struct home *h, unsigned peer);

#endif
