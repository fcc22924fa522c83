/* A name per block. Looked through from the first: that is done once per node and epoch, and for a
 * thousand nodes takes a millisecond. */
#include "cluster/peers.h"

#include <stdlib.h>

struct block {
    char name[REGISTRY_NODE_MAX + 1]; /* empty: free */
    bool kept;
};

struct peers {
    unsigned count; /* blocks that were ever given */
    struct block block[PEERS_BLOCKS_MAX];
};

_Static_assert(PEERS_BLOCKS_MAX *VIEW_SHARDS_MAX < 0xffff, "numbers fit where rings keep them");
_Static_assert((int)PEERS_BLOCKS_MAX > (int)VIEW_NODES_MAX,
               "there is a free one while a view is full");

static void name_block(struct block *b, str name)
{
    must(view_name_ok(name));
    memset(b, 0, sizeof *b);
    memcpy(b->name, name.p, name.n);
    b->kept = true;
}

struct peers *peers_new(str own)
{
    struct peers *p = calloc(1, sizeof *p);
    must(p);
    name_block(&p->block[p->count++], own);
    return p;
}

void peers_free(struct peers *p) { free(p); }

unsigned peers_find(const struct peers *p, str name)
{
    for (unsigned i = 0; i < p->count; i++)
        if (str_eq(str_of(p->block[i].name), name))
            return i;
    return PEERS_NONE;
}

/* One that nobody had before comes first: who has gone may come back. */
static unsigned free_block(struct peers *p)
{
    if (p->count < PEERS_BLOCKS_MAX)
        return p->count++;
    for (unsigned i = 1; i < p->count; i++)
        if (!p->block[i].kept)
            return i;
    must(false); /* a view has not so many */
    return 0;
}

unsigned peers_block(struct peers *p, str name)
{
    unsigned i = peers_find(p, name);
    if (i == PEERS_NONE) {
        i = free_block(p);
        name_block(&p->block[i], name);
    }
    p->block[i].kept = true;
    return i;
}

str peers_name(const struct peers *p, unsigned block)
{
    return block < p->count ? str_of(p->block[block].name) : STR_NONE;
}

const unsigned *peers_blocks(struct peers *p, const struct view *v, struct arena *a)
{
    unsigned *blocks = arena_alloc(a, (v->count + 1) * sizeof *blocks);
    for (size_t i = 0; i < v->count; i++)
        blocks[i] = peers_block(p, str_of(v->nodes[i].name));
    return blocks;
}

void peers_keep(struct peers *p, const struct view *v)
{
    for (unsigned i = 1; i < p->count; i++)
        p->block[i].kept = view_find(v, str_of(p->block[i].name)) != NULL;
}
