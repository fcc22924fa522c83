#include "node/edge/left.h"

struct left {
    struct list link;             /* of edge->lefts, the oldest first */
    struct hnode by_sid;          /* of edge->lefts_by_sid */
    struct outs *outs;            /* as it was in struct c2s */
    uint64_t sid, acked, counted; /* seq counted + 1 is the first that the client counts */
    uint32_t gen;
    uint16_t bare_n;
    char bare[];
};

void left_keep(struct c2s *s)
{
    struct edge *e = s->conn->edge;
    if (c2s_home(s) == e->node->shard)
        return;
    str bare = c2s_bare(s);
    struct left *l = malloc(sizeof *l + bare.n);
    must(l);
    *l = (struct left){
        .sid = s->sid,
        .gen = s->gen,
        .outs = s->outs,
        .acked = s->acked,
        .counted = s->sm ? s->out_base : UINT64_MAX,
        .bare_n = (uint16_t)bare.n,
    };
    memcpy(l->bare, bare.p, bare.n);
    s->outs = NULL;
    list_push_back(&e->lefts, &l->link);
    htable_insert(&e->lefts_by_sid, &l->by_sid, hash_u64(l->sid));
}

static struct left *find(struct edge *e, uint64_t sid, uint32_t gen)
{
    struct hnode *n = htable_find(&e->lefts_by_sid, hash_u64(sid));
    for (; n; n = htable_find_next(n)) {
        struct left *l = container_of(n, struct left, by_sid);
        if (l->sid == sid && l->gen == gen)
            return l;
    }
    return NULL;
}

/* How many may come is bounded where they come from: the home ends a session that is too full. */
void left_on_out(struct edge *e, const struct frame *f)
{
    struct left *l = find(e, f->sid, f->gen);
    if (!l)
        return;
    if (!l->outs)
        l->acked = f->seq - 1;
    if (f->seq == l->acked + outs_count(l->outs) + 1)
        outs_push(&l->outs, out_of(f));
}

static void forget(struct edge *e, struct left *l)
{
    list_remove(&l->link);
    htable_remove(&e->lefts_by_sid, &l->by_sid);
    outs_close(&l->outs);
    free(l);
}

void left_drop(struct edge *e, uint64_t sid, uint32_t gen)
{
    struct left *l = find(e, sid, gen);
    if (l)
        forget(e, l);
}

static void hand_over(struct edge *e, unsigned home, const struct left *l,
                      const struct mark_set *taken)
{
    for (uint32_t i = 0; i < outs_count(l->outs); i++) {
        const struct out *o = outs_at(l->outs, i);
        uint64_t seq = l->acked + 1 + i;
        struct frame f = {
            .kind = FRAME_ORPHAN,
            .flags = o->flags,
            .sid = o->sid,
            .ord = o->ord,
            .lane = o->lane,
            .us = o->us,
            .bare = str_from(l->bare, l->bare_n),
            .stanza = o->stanza,
            .conn = l->sid,
            .seq = seq > l->counted ? seq - l->counted : 0,
        };
        if (!mark_set_has(taken, frame_uid(&f), (unsigned)(l->sid >> 50)))
            channel_send(e->node->channels, home, &f, (struct hold){0}, true);
    }
}

void left_orphan(struct edge *e, unsigned shard, const struct mark_set *taken)
{
    list_each(l, &e->lefts, struct left, link) {
        unsigned home = ring_home_of_slot(e->node->ring, (unsigned)(l->sid >> 50));
        if (home != shard)
            continue;
        hand_over(e, home, l, taken);
        forget(e, l);
    }
}

void left_free(struct edge *e)
{
    list_each(l, &e->lefts, struct left, link)
        forget(e, l);
    htable_close(&e->lefts_by_sid);
}
