/* ring: which shard is the home of a bare JID (architecture 7). slot = keyed XXH3-64 of the
 * prepared bare JID mod 16384; slot -> node by weighted rendezvous hashing, then shard by plain
 * rendezvous among the node's: a dead shard's slots stay with its siblings, and a node that comes,
 * goes or changes its weight moves only what it gains or loses. One array load per look-up.
 *
 * A shard is named by its number in the view that the ring was made of (view_member_of); in
 * ring_single by its index. Every machine computes the same table. */
#ifndef PEMBERLEY_RING_H
#define PEMBERLEY_RING_H

#include "pemberley/str.h"

enum { RING_SLOTS = 16384, RING_NONE = 0xffff };

struct ring;
struct view;
/* The ring of one node with `shards` shards. secret: the cluster's 32 bytes. */
struct ring *ring_single(const unsigned char secret[32], unsigned shards);
/* The ring of a view, which is not kept. A slot has no home (RING_NONE) only if no node of the view
 * has a share (view_node_share). */
struct ring *ring_new(const unsigned char secret[32], const struct view *v);
void ring_free(struct ring *r);
unsigned ring_slot(const struct ring *r, str bare_jid);
unsigned ring_home_of_slot(const struct ring *r, unsigned slot);
/* Who has the next best score in another domain than the home: another node, or where only one has
 * a share, another shard; RING_NONE: there is none (delivery.md 1). */
unsigned ring_successor(const struct ring *r, unsigned slot);
/* Those whose home is one shard, for who asks by slot. */
struct ring_share {
    const struct ring *ring;
    unsigned shard;
};
static inline bool ring_share_has(const void *share, unsigned slot)
{
    const struct ring_share *s = share;
    return ring_home_of_slot(s->ring, slot) == s->shard;
}
static inline unsigned ring_home(const struct ring *r, str bare_jid)
{
    return ring_home_of_slot(r, ring_slot(r, bare_jid));
}

#endif
