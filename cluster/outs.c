/* outs: see outs.h. */
#include "cluster/outs.h"

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

static void grow(struct outs **o)
{
    struct outs *old = *o;
    uint32_t cap = old ? old->cap * 2 : 4;
    struct outs *new = malloc(sizeof *new + cap * sizeof *new->at);
    must(new);
    *new = old ? *old : (struct outs){0};
    new->cap = cap, new->head = 0;
    for (uint32_t i = 0; i < new->count; i++)
        new->at[i] = *outs_at(old, i);
    free(old);
    *o = new;
}

void outs_push(struct outs **o, struct out out)
{
    if (!*o || (*o)->count == (*o)->cap)
        grow(o);
    struct outs *q = *o;
    *outs_at(q, q->count++) = out;
    q->bytes += out.stanza->index.len;
    q->unsent += out.stanza->index.len;
}

void outs_pop(struct outs **o)
{
    struct outs *q = *o;
    struct out *first = outs_at(q, 0);
    q->bytes -= first->stanza->index.len;
    stanza_unref(first->stanza);
    q->head = (q->head + 1) & (q->cap - 1);
    if (--q->count)
        return;
    free(q);
    *o = NULL;
}

void outs_close(struct outs **o)
{
    while (*o)
        outs_pop(o);
}
