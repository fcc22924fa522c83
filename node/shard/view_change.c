#include "node/shard/view_change.h"

#include <stdio.h>

/* From the gravest down. */
static const struct {
    enum metric_ring_cause cause;
    const char *word;
} causes[METRIC_SIZE_RING_CAUSE] = {
    {RING_DIED, "died"},   {RING_LEFT, "left"},     {RING_JOINED, "joined"},
    {RING_DRAIN, "drain"}, {RING_WEIGHT, "weight"}, {RING_SHARD, "shard"},
};

static unsigned place(enum metric_ring_cause cause)
{
    unsigned i = 0;
    while (causes[i].cause != cause)
        i++;
    return i;
}

static void note(struct view_change *c, enum metric_ring_cause cause)
{
    if (!c->any || place(cause) < place(c->cause))
        c->cause = cause;
    c->any = true;
}

static void name(char list[VIEW_CHANGE_NAMES], const char *node)
{
    size_t n = strlen(list);
    snprintf(list + n, VIEW_CHANGE_NAMES - n, "%s%s", n ? "," : "", node);
}

static bool same_members(const struct view_node *a, const struct view_node *b)
{
    return a->owner == b->owner && a->shards == b->shards &&
           memcmp(a->incarnation, b->incarnation, sizeof a->incarnation) == 0;
}

static void look(struct view_change *c, const struct view_node *was, const struct view_node *is)
{
    if (!was) {
        name(c->joined, is->name);
        note(c, RING_JOINED);
        return;
    }
    if (was->state != is->state)
        note(c, was->state == VIEW_JOINING ? RING_JOINED : RING_DRAIN);
    if (was->weight != is->weight)
        note(c, RING_WEIGHT);
    if (!same_members(was, is))
        note(c, RING_SHARD);
}

struct view_change view_change_of(const struct view *was, const struct view *is)
{
    struct view_change c = {.any = false};
    for (size_t i = 0; i < is->count; i++)
        look(&c, was ? view_find(was, str_of(is->nodes[i].name)) : NULL, &is->nodes[i]);
    for (size_t i = 0; was && i < was->count; i++) {
        const struct view_node *n = &was->nodes[i];
        if (view_find(is, str_of(n->name)))
            continue;
        name(c.left, n->name);
        note(&c, n->state == VIEW_DRAINING ? RING_LEFT : RING_DIED);
    }
    return c;
}

const char *view_change_cause(const struct view_change *c)
{
    return c->any ? causes[place(c->cause)].word : "none";
}
