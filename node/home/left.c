/* left: the copies of a session's queue that edges keep after its connection (node/edge/left.h),
 * seen from the home, which alone knows when one is not needed any more: when the edge of the
 * resumed session holds what was replayed, or when the queue of the ended one was disposed of
 * safely. Make before break (delivery.md 5.2, 3): while a replay is not held yet the former copy
 * stays the one that counts. A home never keeps a note of a copy in its own process: that dies with
 * it. */
#include "node/home/inside.h"

static void drop(struct home *h, struct copy c, uint64_t sid)
{
    struct frame f = {.kind = FRAME_CLOSE, .sid = sid, .gen = c.gen, .reason = ERR_OK};
    if (c.gen)
        channel_send(h->node->channels, c.edge, &f, (struct hold){HOLD_NONE, 0, 0}, false);
}

static bool edge_is_there(const struct session *s)
{
    return channel_peer_is_up(s->user->home->node->channels, s->edge);
}

/* What the edge of its connection keeps when that goes (also when nothing waits: OUTs may be under
 * way); gen 0: nothing. */
static struct copy current(const struct session *s)
{
    if (s->edge == s->user->home->node->shard || !edge_is_there(s))
        return (struct copy){0, 0};
    return (struct copy){s->edge, s->gen};
}

void left_detached(struct session *s)
{
    if (s->left.gen)
        drop(s->user->home, current(s), s->sid);
    else
        s->left = current(s);
}

void left_edge_died(struct session *s, unsigned shard)
{
    if (s->left.edge == shard)
        s->left.gen = 0;
}

/* ---- resumed ---- */

/* Unless its connection has gone again, or is just going with its edge. */
static void on_replayed(void *ctx, struct ticket *t)
{
    struct session *s = session_find(ctx, ticket_uid(t).sid);
    if (!s || s->gen != ticket_uid(t).ord || s->detached || !edge_is_there(s))
        return;
    drop(ctx, s->left, s->sid);
    s->left.gen = 0;
}

struct ticket *left_replay(struct session *s)
{
    struct home *h = s->user->home;
    struct uid uid = {s->sid, s->gen, 0};
    return ticket_new(h->node->channels, (struct origin){0}, uid, on_replayed, h);
}

/* ---- ended ---- */

struct disposal {
    struct home *home;
    struct copy former, last;
};

static void on_disposed(void *ctx, struct ticket *t)
{
    struct disposal *d = ctx;
    drop(d->home, d->former, ticket_uid(t).sid);
    drop(d->home, d->last, ticket_uid(t).sid);
    free(d);
}

struct ticket *left_disposal(struct session *s)
{
    struct copy last = s->detached ? (struct copy){0, 0} : current(s);
    if (!s->left.gen && !last.gen)
        return NULL;
    struct disposal *d = malloc(sizeof *d);
    must(d);
    *d = (struct disposal){s->user->home, s->left, last};
    return ticket_new(d->home->node->channels, (struct origin){0}, (struct uid){s->sid, 0, 0},
                      on_disposed, d);
}
