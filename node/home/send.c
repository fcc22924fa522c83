/* send: what leaves a home: stanzas for the homes of their addressees, one or many, and requests to
 * the store. */
#include "node/home/inside.h"

/* FNV-1a: it must be the same on every shard, so no secret of the process; who finds two purposes
 * that collide has found them for stanzas of its own. */
uint32_t home_lane(str deriver, const char *purpose)
{
    uint32_t x = 2166136261u;
    for (size_t i = 0; i < deriver.n; i++)
        x = (x ^ (unsigned char)deriver.p[i]) * 16777619u;
    x = (x ^ 0xff) * 16777619u;
    for (; *purpose; purpose++)
        x = (x ^ (unsigned char)*purpose) * 16777619u;
    return x ? x : 1; /* 0 is the stanza itself */
}

void home_send(struct home *h, struct stanza *s, str to, struct uid uid, uint32_t flags, int64_t us,
               struct ticket *t)
{
    struct frame f = {.kind = FRAME_ROUTE,
                      .flags = flags,
                      .sid = uid.sid,
                      .ord = uid.ord,
                      .lane = uid.lane,
                      .fp = stanza_fp(s),
                      .us = (uint64_t)us,
                      .sent = node_stage_stamp(h->node, (uint64_t)us, uid.ord),
                      .stanza = s};
    if (to.n)
        f.recipients = &to, f.recipient_count = 1;
    f.flags |= ticket_flags(t);
    struct jid j = to.n ? jid_parse_prepared(to) : stanza_to_jid(s);
    struct hold hold = t ? ticket_hold(t) : (struct hold){HOLD_NONE, 0, 0};
    channel_send(h->node->channels, ring_home(h->node->ring, j.bare), &f, hold, true);
}

void home_send_derived(struct home *h, struct stanza *s, struct uid cause, str deriver,
                       const char *purpose, struct ticket *t)
{
    struct uid uid = {cause.sid, cause.ord, home_lane(deriver, purpose)};
    if (home_serves(h, stanza_to_jid(s).domain))
        home_send(h, s, STR_NONE, uid, 0, home_wall_us(h), t);
}

/* ---- fan-out ---- */

enum { RECIPIENT_OVERHEAD = 4 }; /* its tag and length in the header */
_Static_assert(JID_MAX + RECIPIENT_OVERHEAD < FRAME_RECIPIENTS_BYTES, "one fits");

void fanout_init(struct fanout *f, struct home *h, struct stanza *s, struct uid uid, int64_t us,
                 struct ticket *t)
{
    *f = (struct fanout){.home = h, .stanza = s, .uid = uid, .us = us, .ticket = t};
    f->nobody = ring_peers_end(h->node->ring);
    f->place = arena_zalloc(home_arena(h), (f->nobody + 1) * sizeof *f->place);
}

static void flush_list(struct fanout *f, struct fanout_list *l)
{
    if (!l->n)
        return;
    home_count(f->home, METRIC_fanout_recipients, (int64_t)l->n);
    home_count(f->home, METRIC_fanout_frames, 1);
    struct frame frame = {.kind = FRAME_ROUTE,
                          .flags = ticket_flags(f->ticket),
                          .sid = f->uid.sid,
                          .ord = f->uid.ord,
                          .lane = f->uid.lane,
                          .fp = stanza_fp(f->stanza),
                          .us = (uint64_t)f->us,
                          .sent = node_stage_stamp(f->home->node, (uint64_t)f->us, f->uid.ord),
                          .recipients = l->to,
                          .recipient_count = l->n,
                          .stanza = f->stanza};
    struct hold hold = f->ticket ? ticket_hold(f->ticket) : (struct hold){HOLD_NONE, 0, 0};
    channel_send(f->home->node->channels, l->peer, &frame, hold, true);
    l->n = l->bytes = 0;
}

/* Room for one more in an array of the arena. */
static void *grown(struct arena *a, void *old, size_t n, size_t *cap, size_t size)
{
    if (n < *cap)
        return old;
    *cap = *cap ? 2 * *cap : 16;
    void *more = arena_alloc(a, *cap * size);
    if (n)
        memcpy(more, old, n * size);
    return more;
}

static struct fanout_list *list_of(struct fanout *f, unsigned peer)
{
    uint16_t *place = &f->place[peer == RING_NONE ? f->nobody : peer];
    if (!*place) {
        f->lists = grown(home_arena(f->home), f->lists, f->count, &f->cap, sizeof *f->lists);
        f->lists[f->count++] = (struct fanout_list){.peer = peer};
        *place = (uint16_t)f->count;
    }
    return &f->lists[*place - 1];
}

void fanout_add(struct fanout *f, str to)
{
    struct jid j = jid_parse_prepared(to);
    if (!home_serves(f->home, j.domain))
        return;
    struct fanout_list *l = list_of(f, ring_home(f->home->node->ring, j.bare));
    if (l->bytes + to.n + RECIPIENT_OVERHEAD > FRAME_RECIPIENTS_BYTES)
        flush_list(f, l);
    l->to = grown(home_arena(f->home), l->to, l->n, &l->cap, sizeof *l->to);
    l->to[l->n++] = to;
    l->bytes += to.n + RECIPIENT_OVERHEAD;
}

void fanout_send(struct fanout *f)
{
    for (size_t i = 0; i < f->count; i++)
        flush_list(f, &f->lists[i]);
}

/* ---- the store ---- */

struct request {
    struct list link; /* of home->asked, in a cluster */
    struct home *home;
    home_store_f *done;
    void *ctx;
    uint16_t slot; /* of its owner; RING_NONE: nobody's, or without a cluster */
    bool former;   /* its owner has another home now */
};

static void on_store(void *ctx, err e, const Store__Reply *reply)
{
    struct request r = *(struct request *)ctx;
    list_remove(&((struct request *)ctx)->link);
    free(ctx);
    r.home->requests--;
    r.done(r.home, r.ctx, e, reply);
    if (r.former)
        move_answered(r.home);
    if (r.home->stopped && !r.home->requests) {
        void (*stopped)(void *) = r.home->stopped;
        r.home->stopped = NULL;
        stopped(r.home->stopped_ctx);
    }
}

/* Somebody who has left may still ask, and is waited for as long (ATTACHED). */
static void follow(struct request *r, str owner)
{
    struct home *h = r->home;
    if (!owner.n)
        return;
    r->slot = (uint16_t)ring_slot(h->node->ring, owner);
    r->former = ring_home_of_slot(h->node->ring, r->slot) != h->node->shard;
    if (r->former)
        move_asked(h);
    list_push_back(&h->asked, &r->link);
}

size_t home_part_with_requests(struct home *h, ring_wanted_f *wanted, const void *ctx)
{
    size_t n = 0;
    list_each(r, &h->asked, struct request, link)
        if (!r->former && wanted(ctx, r->slot))
            r->former = true, n++;
    return n;
}

void home_store(struct home *h, str owner, Store__Request *req, home_store_f *done, void *ctx)
{
    struct request *r = malloc(sizeof *r);
    must(r);
    *r = (struct request){.home = h, .done = done, .ctx = ctx, .slot = RING_NONE};
    list_init(&r->link);
    if (h->node->epoch)
        follow(r, owner);
    req->owner = home_bytes(owner);
    h->requests++;
    store_submit(h->node->store, req, on_store, r);
}
