/* peers: the nodes that the shards' pages have numbers of (labels.def: PEER). Each page gives its
 * own places to them, in the order in which its shard met them; here they are one set of names. */
#ifndef PEMBERLEY_NODE_SUPER_PEERS_H
#define PEMBERLEY_NODE_SUPER_PEERS_H

#include "node/super/child.h"
#include "pemberley/metric.h"

struct super;
struct peers {
    unsigned n; /* names, the first of them "other": also what finds no room */
    char name[METRIC_SIZE_PEER][METRIC_PEER_BYTES];
    /* Of a shard's place: the name's. */
    unsigned char of[CHILD_SHARDS_MAX][METRIC_SIZE_PEER];
};

void peers_collect(struct peers *p, const struct super *s);

#endif
