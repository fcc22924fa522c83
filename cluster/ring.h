/* ring: which shard is the home of a bare JID (architecture 7). slot = keyed XXH3-64 of the
 * prepared bare JID mod 16384; slot -> shard by weighted rendezvous hashing. One array load per
 * look-up. */
#ifndef PEMBERLEY_RING_H
#define PEMBERLEY_RING_H

#include "pemberley/str.h"

enum { RING_SLOTS = 16384 };

struct ring;
/* The ring of one node with `shards` shards. secret: the cluster's 32 bytes. */
struct ring *ring_single(const unsigned char secret[32], unsigned shards);
void ring_free(struct ring *r);
unsigned ring_slot(const struct ring *r, str bare_jid);
unsigned ring_home_of_slot(const struct ring *r, unsigned slot);
static inline unsigned ring_home(const struct ring *r, str bare_jid)
{
    return ring_home_of_slot(r, ring_slot(r, bare_jid));
}

#endif
