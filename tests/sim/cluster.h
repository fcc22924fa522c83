/* cluster: membership of several nodes, as an oracle that knows everything: it sees who has died,
 * publishes views, lets each shard adopt them after a time of its own (one that is slow skips some)
 * and says when one is settled. It keeps the promises of cluster/member.h and no others:
 *
 *   - a view either removes or adds and changes; a node joins before it owns anything
 *   - who is removed has stopped before, and what it still sends to the store is lost (its fence)
 *   - settled: all shards of full members go by it
 *
 * Links between nodes are rails: what is on one that breaks is lost. */
#ifndef TESTS_SIM_CLUSTER_H
#define TESTS_SIM_CLUSTER_H

#include "tests/sim/world.h"

/* All nodes are members from the start, and their first view is adopted and settled. */
void cluster_open(struct world *w);
void cluster_shard_starts(struct world *w, struct shard *s);
/* What is due by now. Whether anything was. */
bool cluster_turn(struct world *w);
uint64_t cluster_next_us(const struct world *w);
/* All live and go by the same view, all have been told that it is settled, nothing is cut. */
bool cluster_is_settled(const struct world *w);
/* The node that is the home of this account, and its shard, as everybody will see it. */
unsigned cluster_home(const struct world *w, const char *bare);
bool cluster_by_node(const struct world *w); /* domains are nodes */
/* Planned changes; nothing where they may not be now. */
void cluster_weigh(struct world *w, unsigned node, unsigned weight);
void cluster_drain(struct world *w, unsigned node, bool drain);
/* What one node sends to the other is lost for so long. */
void cluster_cut(struct world *w, unsigned from, unsigned to, uint64_t us);

#endif
