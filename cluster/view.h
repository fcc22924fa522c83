/* view: who is a member, in one epoch (architecture 7). A member is a shard incarnation of a node.
 * Views are values: whoever changes one changes a copy of its own and gives it another epoch; two
 * views of one epoch have the same content everywhere.
 *
 * Nodes stand in the order of their names. view_member_of(node, shard) numbers the members; with a
 * single node it is the shard's index. Numbers hold within one epoch only. */
#ifndef PEMBERLEY_VIEW_H
#define PEMBERLEY_VIEW_H

#include "pemberley/arena.h"
#include "pemberley/err.h"
#include "pemberley/registry.h"

enum {
    VIEW_NODES_MAX = 1000,
    VIEW_SHARDS_MAX = 64,   /* of one node */
    VIEW_ADDRESS_MAX = 263, /* a domain name, a colon, a port */
    VIEW_WEIGHT_MAX = 1000,
};

/* JOINING: known to all, owns nothing yet, decides nothing about others. LIVE: full member.
 * DRAINING: full member that owns nothing any more. */
enum view_state { VIEW_JOINING, VIEW_LIVE, VIEW_DRAINING };

struct view_node {
    char name[REGISTRY_NODE_MAX + 1];
    char address[VIEW_ADDRESS_MAX + 1]; /* of its bus */
    uint64_t owner;                     /* of its lease: random, of one run of its supervisor */
    uint32_t weight;                    /* 0..1000 */
    enum view_state state;
    uint64_t shards;                       /* bit i: shard i is a member */
    uint64_t incarnation[VIEW_SHARDS_MAX]; /* of shard i; never 0 for a member, else 0 */
};

struct view {
    uint64_t epoch;
    size_t count, room;
    struct view_node *nodes;
};

struct view *view_new(uint64_t epoch); /* without a node */
struct view *view_copy(const struct view *v, uint64_t epoch);
void view_free(struct view *v);

/* A node's name: 1 to 32 of [a-z0-9-]. */
bool view_name_ok(str name);
struct view_node *view_find(const struct view *v, str name); /* NULL: no such node */
/* A node of that name without shards, which has none yet. ERR_FULL: VIEW_NODES_MAX. The name is
 * one (must), the address fits (must). Moves the nodes behind it. */
nodiscard err view_add(struct view *v, str name, str address, struct view_node **out);
void view_remove(struct view *v, struct view_node *n);
static inline void view_node_set(struct view_node *n, unsigned shard, uint64_t incarnation)
{
    must(shard < VIEW_SHARDS_MAX && incarnation);
    n->shards |= 1ull << shard, n->incarnation[shard] = incarnation;
}
static inline void view_node_clear(struct view_node *n, unsigned shard)
{
    must(shard < VIEW_SHARDS_MAX);
    n->shards &= ~(1ull << shard), n->incarnation[shard] = 0;
}
/* The share that it has a right to now: 0 when it is not LIVE, or has no shard. */
static inline uint32_t view_node_share(const struct view_node *n)
{
    return n->state == VIEW_LIVE && n->shards ? n->weight : 0;
}
bool view_same_but_epoch(const struct view *a, const struct view *b);

static inline unsigned view_member_of(size_t node, unsigned shard)
{
    return (unsigned)node * VIEW_SHARDS_MAX + shard;
}

/* At most REGISTRY_VIEW_MAX bytes, whatever is in it. */
str view_encode(const struct view *v, struct arena *a);
/* ERR_BAD: not a view, or one beyond the bounds. ERR_REFUSED: of a version or with a feature that
 * this program does not know. */
nodiscard err view_decode(str bytes, struct view **out);

#endif
