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

#include "cluster/peers.h"
#include "cluster/view.h"
#include "pemberley/hash.h"

/* What a ring of a cluster is against the one before it. */
struct change {
    uint64_t since[RING_SLOTS], surely[RING_SLOTS];
    uint64_t changed[RING_SLOTS / 64]; /* bits */
    bool gap;                          /* all have moved, as far as anybody knows here */
};

struct ring {
    struct hash_key key;
    uint16_t home[RING_SLOTS], successor[RING_SLOTS];
    uint64_t epoch;
    struct change *change; /* NULL: ring_single */
    bool by_node;          /* domains are nodes */
    struct ring_peer *peers;
    size_t count;
    uint16_t *place; /* by peer number: 1 + where it is among peers; 0: no member */
    unsigned end;
};

/* A node as the table's maker sees it. */
struct domain {
    uint64_t key;
    uint64_t shards; /* bits */
    uint32_t weight;
    uint32_t number; /* in the view */
    uint32_t block;
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
    return shards ? (uint16_t)peer_number(d->block, winner(slot, shards)) : RING_NONE;
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
    struct ring *r = calloc(1, sizeof *r);
    must(r);
    stretch(secret, &r->key);
    return r;
}

/* ---- members ---- */

static void add_peer(struct ring *r, unsigned peer, bool full, uint64_t incarnation)
{
    r->peers[r->count++] = (struct ring_peer){peer, full, incarnation};
    r->end = peer >= r->end ? peer + 1 : r->end;
}

static void index_peers(struct ring *r)
{
    r->place = calloc(r->end + 1, sizeof *r->place);
    must(r->place);
    for (size_t i = 0; i < r->count; i++)
        r->place[r->peers[i].peer] = (uint16_t)(i + 1);
}

static void add_members(struct ring *r, const struct view *v, const unsigned *blocks)
{
    size_t n = 0;
    for (size_t i = 0; i < v->count; i++)
        n += (size_t)__builtin_popcountll(v->nodes[i].shards);
    r->peers = malloc((n + 1) * sizeof *r->peers);
    must(r->peers);
    for (size_t i = 0; i < v->count; i++) {
        const struct view_node *node = &v->nodes[i];
        for (unsigned k = 0; k < VIEW_SHARDS_MAX; k++)
            if (node->shards >> k & 1)
                add_peer(r, peer_number(blocks ? blocks[i] : (unsigned)i, k),
                         node->state != VIEW_JOINING, node->incarnation[k]);
    }
    index_peers(r);
}

struct ring *ring_single(const unsigned char secret[32], unsigned shards)
{
    must(shards >= 1 && shards <= VIEW_SHARDS_MAX);
    struct ring *r = new_ring(secret);
    fill(r, &(struct domain){.shards = ~0ull >> (64 - shards), .weight = 1}, 1);
    r->peers = malloc(shards * sizeof *r->peers);
    must(r->peers);
    for (unsigned i = 0; i < shards; i++)
        add_peer(r, i, true, 0);
    index_peers(r);
    return r;
}

/* ---- of a view ---- */

/* By weight, then as in the view: an order that no sorting algorithm can change. */
static int heavier_first(const void *pa, const void *pb)
{
    const struct domain *a = pa, *b = pb;
    if (a->weight != b->weight)
        return a->weight > b->weight ? -1 : 1;
    return a->number < b->number ? -1 : 1;
}

static uint64_t incarnation_of(const struct ring *r, unsigned peer)
{
    const struct ring_peer *p = ring_peer(r, peer);
    return p ? p->incarnation : 0;
}

static bool same_home(const struct ring *a, const struct ring *b, unsigned slot)
{
    return a->home[slot] == b->home[slot] &&
           incarnation_of(a, a->home[slot]) == incarnation_of(b, b->home[slot]);
}

static void compare(struct ring *r, const struct ring *before)
{
    struct change *c = r->change = calloc(1, sizeof *c);
    must(c && (!before || (before->change && before->epoch < r->epoch)));
    c->gap = !before || before->epoch + 1 != r->epoch;
    for (unsigned slot = 0; slot < RING_SLOTS; slot++) {
        bool same = before && same_home(r, before, slot);
        c->since[slot] = same ? before->change->since[slot] : before ? before->epoch + 1 : 1;
        c->surely[slot] = same && !c->gap ? before->change->surely[slot] : r->epoch;
        c->changed[slot / 64] |= (uint64_t)!same << slot % 64;
    }
}

static size_t full_nodes(const struct view *v)
{
    size_t n = 0;
    for (size_t i = 0; i < v->count; i++)
        n += v->nodes[i].state != VIEW_JOINING && v->nodes[i].shards;
    return n;
}

struct ring *ring_new(const unsigned char secret[32], const struct view *v, const unsigned *blocks,
                      const struct ring *before)
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
                                           .number = (uint32_t)i,
                                           .block = blocks ? blocks[i] : (uint32_t)i};
    }
    qsort(domains, n, sizeof *domains, heavier_first);
    fill(r, domains, n);
    free(domains);
    r->epoch = v->epoch, r->by_node = full_nodes(v) >= 2;
    add_members(r, v, blocks);
    compare(r, before);
    return r;
}

void ring_free(struct ring *r)
{
    if (!r)
        return;
    free(r->peers);
    free(r->place);
    free(r->change);
    free(r);
}

/* ---- asked ---- */

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

uint64_t ring_epoch(const struct ring *r) { return r->epoch; }

const struct ring_peer *ring_peers(const struct ring *r, size_t *n)
{
    *n = r->count;
    return r->peers;
}

const struct ring_peer *ring_peer(const struct ring *r, unsigned peer)
{
    return peer < r->end && r->place[peer] ? &r->peers[r->place[peer] - 1] : NULL;
}

unsigned ring_peers_end(const struct ring *r) { return r->end; }

bool ring_same_domain(const struct ring *r, unsigned a, unsigned b)
{
    return r->by_node ? peer_block(a) == peer_block(b) : a == b;
}

bool ring_changed(const struct ring *r, unsigned slot)
{
    must(slot < RING_SLOTS && r->change);
    return r->change->changed[slot / 64] >> slot % 64 & 1;
}

bool ring_moved(const struct ring *r, unsigned slot)
{
    return ring_changed(r, slot) || r->change->gap;
}

uint64_t ring_since(const struct ring *r, unsigned slot)
{
    must(slot < RING_SLOTS);
    return r->change ? r->change->since[slot] : 0;
}

uint64_t ring_surely_since(const struct ring *r, unsigned slot)
{
    must(slot < RING_SLOTS);
    return r->change ? r->change->surely[slot] : 0;
}
