/* outs: see outs.h. */
#include "cluster/outs.h"

enum { SHORT = 4 };

struct out out_of(const struct frame *f)
{
    return (struct out){
        .stanza = stanza_ref(f->stanza),
        .sid = f->conn,
        .ord = f->ord,
        .row = f->h,
        .lane = f->lane,
        .flags = f->flags & 0xff,
        .us = f->us & ((1ull << 56) - 1),
    };
}

static struct outs *new_queue(uint32_t cap, struct pool *pool)
{
    size_t size = sizeof(struct outs) + cap * sizeof(struct out);
    struct outs *q = pool && cap == SHORT ? pool_get(pool, size) : malloc(size);
    must(q);
    return q;
}

static void free_queue(struct outs *q, struct pool *pool)
{
    if (pool && q && q->cap == SHORT)
        pool_put(pool, q);
    else
        free(q);
}

static void grow(struct outs **o, struct pool *pool)
{
    struct outs *old = *o;
    uint32_t cap = old ? old->cap * 2 : SHORT;
    struct outs *new = new_queue(cap, pool);
    *new = old ? *old : (struct outs){0};
    new->cap = cap, new->head = 0;
    for (uint32_t i = 0; i < new->count; i++)
        new->at[i] = *outs_at(old, i);
    free_queue(old, pool);
    *o = new;
}

void outs_push(struct outs **o, struct out out, struct pool *pool)
{
    if (!*o || (*o)->count == (*o)->cap)
        grow(o, pool);
    struct outs *q = *o;
    *outs_at(q, q->count++) = out;
    q->bytes += out.stanza->index.len;
    q->unsent += out.stanza->index.len;
}

void outs_pop(struct outs **o, struct pool *pool)
{
    struct outs *q = *o;
    struct out *first = outs_at(q, 0);
    q->bytes -= first->stanza->index.len;
    stanza_unref(first->stanza);
    q->head = (q->head + 1) & (q->cap - 1);
    if (--q->count)
        return;
    free_queue(q, pool);
    *o = NULL;
}

void outs_close(struct outs **o)
{
    while (*o)
        outs_pop(o, NULL);
}
