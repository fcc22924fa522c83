/* ring: which shard is the home of a bare JID (architecture 7). slot = keyed XXH3-64 of the
 * prepared bare JID mod 16384; slot -> node by weighted rendezvous hashing, then shard by plain
 * rendezvous among the node's: a dead shard's slots stay with its siblings, and a node that comes,
 * goes or changes its weight moves only what it gains or loses. One array load per look-up.
 *
 * A shard is named by its peer number (cluster/peers.h). Every machine computes the same table.
 *
 * Rings of a cluster follow each other in epochs, and each knows what it changes against the one
 * that was in force *here* before (delivery.md 5.6). A shard may skip epochs. Then it does not know
 * what was so in between, and errs on the safe side: whoever sends regards every slot as moved
 * (ring_moved), whoever is a home counts a slot as its own since the first epoch in which it may
 * have been (ring_since). Nothing is owned by an epoch that somebody skipped (cluster/member.h). */
#ifndef PEMBERLEY_RING_H
#define PEMBERLEY_RING_H

#include "pemberley/str.h"

enum { RING_SLOTS = 16384, RING_NONE = 0xffff };

struct ring;
struct view;
/* The ring of one node with `shards` shards: epoch 0, for ever. secret: the cluster's 32 bytes. */
struct ring *ring_single(const unsigned char secret[32], unsigned shards);
/* The ring of a view, which is not kept. blocks: of its nodes, in its order (peers_blocks); NULL:
 * the view's own order. before: the ring that was in force here, of an older epoch, with the same
 * blocks; NULL: none was. A slot has no home (RING_NONE) only if no node of the view has a share
 * (view_node_share). */
struct ring *ring_new(const unsigned char secret[32], const struct view *v, const unsigned *blocks,
                      const struct ring *before);
void ring_free(struct ring *r);
unsigned ring_slot(const struct ring *r, str bare_jid);
unsigned ring_home_of_slot(const struct ring *r, unsigned slot);
/* Who has the next best score in another domain than the home: another node, or where only one has
 * a share, another shard; RING_NONE: there is none (delivery.md 1). */
unsigned ring_successor(const struct ring *r, unsigned slot);

/* ---- members ---- */

struct ring_peer {
    unsigned peer;
    bool full;            /* of a node that is LIVE or DRAINING: it may hold something */
    uint64_t incarnation; /* ring_single: 0 */
};
uint64_t ring_epoch(const struct ring *r);
const struct ring_peer *ring_peers(const struct ring *r, size_t *n);    /* in the view's order */
const struct ring_peer *ring_peer(const struct ring *r, unsigned peer); /* NULL: no member */
/* One more than the highest number of a member. */
unsigned ring_peers_end(const struct ring *r);
/* Do they fail together? Shards of a node where there are two or more full members, else each
 * alone. (Not: two with a share. While all others drain, they are who can hold what would die with
 * the last one.) */
bool ring_same_domain(const struct ring *r, unsigned a, unsigned b);

/* ---- against the ring before ---- */

/* Its home is another, or another incarnation of the same shard. Without one before: always. */
bool ring_changed(const struct ring *r, unsigned slot);
/* The same, or it may have been in between: what went to its home goes there again. */
bool ring_moved(const struct ring *r, unsigned slot);
/* The first epoch from which on its home may have owned it without a break; and that from which on
 * it has for sure, as far as is known here: the last in which it moved. */
uint64_t ring_since(const struct ring *r, unsigned slot);
uint64_t ring_surely_since(const struct ring *r, unsigned slot);

typedef bool ring_wanted_f(const void *ctx, unsigned slot);
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
