/* The table slot -> shard of one node. The 192 bytes that XXH3 wants as its secret are stretched
 * from the cluster's 32, so that every node and every restart computes the same slots. */
#include "cluster/ring.h"

#include <stdlib.h>
#include <xxhash.h>

#include "pemberley/hash.h"

struct ring {
    struct hash_key key;
    uint8_t home[RING_SLOTS];
};

static void stretch(const unsigned char secret[32], struct hash_key *k)
{
    for (size_t i = 0; i < sizeof k->secret; i += 8) {
        uint64_t word = XXH3_64bits_withSeed(secret, 32, 0x70656d62 + i);
        memcpy(k->secret + i, &word, 8);
    }
}

/* Rendezvous: the shard with the highest score of (slot, shard) wins, so that one shard more or
 * less moves only its own slots. */
static unsigned winner(unsigned slot, unsigned shards)
{
    unsigned best = 0;
    uint64_t best_score = 0;
    for (unsigned i = 0; i < shards; i++) {
        uint64_t score = hash_u64((uint64_t)slot << 32 | (i + 1));
        if (score >= best_score)
            best = i, best_score = score;
    }
    return best;
}

struct ring *ring_single(const unsigned char secret[32], unsigned shards)
{
    must(shards >= 1 && shards <= 64);
    struct ring *r = malloc(sizeof *r);
    must(r);
    stretch(secret, &r->key);
    for (unsigned slot = 0; slot < RING_SLOTS; slot++)
        r->home[slot] = (uint8_t)winner(slot, shards);
    return r;
}

void ring_free(struct ring *r) { free(r); }

unsigned ring_slot(const struct ring *r, str bare_jid)
{
    return (unsigned)(hash_str(&r->key, bare_jid) % RING_SLOTS);
}

unsigned ring_home_of_slot(const struct ring *r, unsigned slot)
{
    must(slot < RING_SLOTS);
    return r->home[slot];
}
