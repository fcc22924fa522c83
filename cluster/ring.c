/* The table slot -> shard. The 192 bytes that XXH3 wants as its secret are stretched from the
 * cluster's 32, so that every node and every restart computes the same slots.
 *
 * Weighted rendezvous: per slot, each node draws a number u in (0, 1) from its name, and the least
 * -ln(u) / weight wins: a node wins with the probability that its weight has in the sum, and no
 * other node's weight touches the order of two. Logarithms are taken in integers, so that no two
 * machines differ by a rounding, and hardly ever: nodes are looked at from the heaviest down, and
 * who is not heavier and has not drawn more than the second best so far cannot come in (1,000 nodes
 * take 3 logarithms per slot instead of 1,000). */
#include "cluster/ring.h"

#include <endian.h>
#include <stdlib.h>
#include <xxhash.h>

#include "cluster/view.h"
#include "pemberley/hash.h"

struct ring {
    struct hash_key key;
    uint16_t home[RING_SLOTS], successor[RING_SLOTS];
};

/* A node as the table's maker sees it. */
struct domain {
    uint64_t key;
    uint64_t shards; /* bits */
    uint32_t weight;
    uint32_t number; /* in the view */
};
struct draw {
    uint64_t u;
    const struct domain *domain; /* NULL: nobody */
};
struct choice {
    struct draw best, second;
};

static void stretch(const unsigned char secret[32], struct hash_key *k)
{
    for (size_t i = 0; i < sizeof k->secret; i += 8) {
        uint64_t word = htole64(XXH3_64bits_withSeed(secret, 32, 0x70656d62 + i));
        memcpy(k->secret + i, &word, 8);
    }
}

enum { LOG_BITS = 40 };
/* -log2(u / 2^64) with 40 binary digits behind the point, by squaring: exact to the last one but
 * for what the squares lose, which is the same everywhere. */
static uint64_t minus_log2(uint64_t u)
{
    unsigned zeros = u ? (unsigned)__builtin_clzll(u) : 63;
    uint64_t m = (u | 1) << zeros; /* 1 <= m / 2^63 < 2 */
    uint64_t log = 63 - zeros;
    for (int i = 0; i < LOG_BITS; i++) {
        unsigned __int128 square = (unsigned __int128)m * m;
        bool two = square >> 127;
        log = log << 1 | two;
        m = (uint64_t)(square >> (two ? 64 : 63));
    }
    return (64ull << LOG_BITS) - log;
}
_Static_assert(VIEW_WEIGHT_MAX < 1 << (64 - LOG_BITS - 7), "a log times a weight fits in 64 bits");

/* Does a, which is looked at after b, come before it? */
static bool beats(struct draw a, struct draw b)
{
    if (!b.domain)
        return true;
    if (a.u <= b.u)
        return false;
    if (a.domain->weight == b.domain->weight)
        return true;
    return minus_log2(a.u) * b.domain->weight < minus_log2(b.u) * a.domain->weight;
}

/* domains: from the heaviest down. */
static struct choice choose(const struct domain *domains, size_t n, unsigned slot)
{
    struct choice c = {0};
    uint64_t key = hash_u64(slot);
    for (size_t i = 0; i < n; i++) {
        struct draw d = {hash_u64(domains[i].key ^ key), &domains[i]};
        if (d.u <= c.second.u && c.second.domain)
            continue;
        if (beats(d, c.best))
            c.second = c.best, c.best = d;
        else if (beats(d, c.second))
            c.second = d;
    }
    return c;
}

/* The shard of `shards` with the highest score of (slot, shard). The same for all nodes: where a
 * slot goes to another node with as many shards, it goes to the same shard there. */
static unsigned winner(unsigned slot, uint64_t shards)
{
    unsigned best = 0;
    uint64_t best_score = 0;
    for (; shards; shards &= shards - 1) {
        unsigned i = (unsigned)__builtin_ctzll(shards);
        uint64_t score = hash_u64((uint64_t)slot << 32 | (i + 1));
        if (score >= best_score)
            best = i, best_score = score;
    }
    return best;
}

static uint16_t member(const struct domain *d, uint64_t shards, unsigned slot)
{
    return shards ? (uint16_t)view_member_of(d->number, winner(slot, shards)) : RING_NONE;
}

static void fill(struct ring *r, const struct domain *domains, size_t n)
{
    for (unsigned slot = 0; slot < RING_SLOTS; slot++) {
        struct choice c = choose(domains, n, slot);
        const struct domain *home = c.best.domain, *next = c.second.domain;
        r->home[slot] = home ? member(home, home->shards, slot) : RING_NONE;
        if (next)
            r->successor[slot] = member(next, next->shards, slot);
        else if (home)
            r->successor[slot] =
                member(home, home->shards & ~(1ull << r->home[slot] % VIEW_SHARDS_MAX), slot);
        else
            r->successor[slot] = RING_NONE;
    }
}

static struct ring *new_ring(const unsigned char secret[32])
{
    struct ring *r = malloc(sizeof *r);
    must(r);
    stretch(secret, &r->key);
    return r;
}

struct ring *ring_single(const unsigned char secret[32], unsigned shards)
{
    must(shards >= 1 && shards <= VIEW_SHARDS_MAX);
    struct ring *r = new_ring(secret);
    fill(r, &(struct domain){.shards = ~0ull >> (64 - shards), .weight = 1}, 1);
    return r;
}

/* By weight, then as in the view: an order that no sorting algorithm can change. */
static int heavier_first(const void *pa, const void *pb)
{
    const struct domain *a = pa, *b = pb;
    if (a->weight != b->weight)
        return a->weight > b->weight ? -1 : 1;
    return a->number < b->number ? -1 : 1;
}

struct ring *ring_new(const unsigned char secret[32], const struct view *v)
{
    struct ring *r = new_ring(secret);
    struct domain *domains = malloc((v->count + 1) * sizeof *domains);
    must(domains);
    size_t n = 0;
    for (size_t i = 0; i < v->count; i++) {
        const struct view_node *node = &v->nodes[i];
        if (view_node_share(node))
            domains[n++] = (struct domain){.key = hash_str(&r->key, str_of(node->name)),
                                           .shards = node->shards,
                                           .weight = node->weight,
                                           .number = (uint32_t)i};
    }
    qsort(domains, n, sizeof *domains, heavier_first);
    fill(r, domains, n);
    free(domains);
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

unsigned ring_successor(const struct ring *r, unsigned slot)
{
    must(slot < RING_SLOTS);
    return r->successor[slot];
}
