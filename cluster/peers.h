/* peers: the numbers by which this process knows shards. Its own node's shards are 0..63, their
 * index; shard i of another node is 64 * block + i, with a block for that node's name, given when
 * the name is first seen. Channels, rings, rooms, copies and holders all speak of these numbers;
 * nobody else knows them. A name keeps its block as long as this process lives and there are
 * others; one that is in no view any more (peers_keep) may lose it. */
#ifndef PEMBERLEY_PEERS_H
#define PEMBERLEY_PEERS_H

#include "cluster/view.h"

struct peers;
/* On 16 bits as numbers, beside RING_NONE; with room for names that come while others go. */
enum { PEERS_BLOCKS_MAX = 1023, PEERS_NONE = UINT32_MAX };

static inline unsigned peer_number(unsigned block, unsigned shard)
{
    return block * VIEW_SHARDS_MAX + shard;
}
static inline unsigned peer_block(unsigned peer) { return peer / VIEW_SHARDS_MAX; }
static inline unsigned peer_shard(unsigned peer) { return peer % VIEW_SHARDS_MAX; }

struct peers *peers_new(str own); /* a node's name: block 0 */
void peers_free(struct peers *p);
/* The block of that name (view_name_ok), which gets one if it has none. */
unsigned peers_block(struct peers *p, str name);
unsigned peers_find(const struct peers *p, str name);  /* PEERS_NONE: none */
str peers_name(const struct peers *p, unsigned block); /* empty: nobody's */
/* Those of a view's nodes, in its order, for ring_new. */
const unsigned *peers_blocks(struct peers *p, const struct view *v, struct arena *a);
/* The view that is gone by now: names that are not in it have no channel that is up, and nothing
 * waits for them; their blocks may go to others. */
void peers_keep(struct peers *p, const struct view *v);

#endif
