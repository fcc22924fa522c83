/* home: frames in, frames out. Each frame becomes a ticket (cluster/ticket.h): its cause is acked
 * when the last effect is safe. What names a session goes to it by sid, what names a user waits
 * until that user is in memory. */
#include "node/home/home.h"

#include "node/home/inside.h"

bool home_serves(struct home *h, str domain)
{
    return conf_host_find(h->node->conf, domain) != NULL;
}

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
    if (t && ticket_is_again(t))
        f.flags |= FRAME_AGAIN;
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
    f->shard = arena_zalloc(home_arena(h), h->node->shards * sizeof *f->shard);
}

static void fanout_flush(struct fanout *f, unsigned shard)
{
    if (!f->shard[shard].n)
        return;
    home_count(f->home, METRIC_fanout_recipients, (int64_t)f->shard[shard].n);
    home_count(f->home, METRIC_fanout_frames, 1);
    bool again = f->ticket && ticket_is_again(f->ticket);
    struct frame frame = {.kind = FRAME_ROUTE,
                          .flags = again ? FRAME_AGAIN : 0,
                          .sid = f->uid.sid,
                          .ord = f->uid.ord,
                          .lane = f->uid.lane,
                          .fp = stanza_fp(f->stanza),
                          .us = (uint64_t)f->us,
                          .sent = node_stage_stamp(f->home->node, (uint64_t)f->us, f->uid.ord),
                          .recipients = f->shard[shard].to,
                          .recipient_count = f->shard[shard].n,
                          .stanza = f->stanza};
    struct hold hold = f->ticket ? ticket_hold(f->ticket) : (struct hold){HOLD_NONE, 0, 0};
    channel_send(f->home->node->channels, shard, &frame, hold, true);
    f->shard[shard].n = f->shard[shard].bytes = 0;
}

void fanout_add(struct fanout *f, str to)
{
    struct jid j = jid_parse_prepared(to);
    if (!home_serves(f->home, j.domain))
        return;
    unsigned shard = ring_home(f->home->node->ring, j.bare);
    __typeof__(f->shard) list = &f->shard[shard];
    if (list->bytes + to.n + RECIPIENT_OVERHEAD > FRAME_RECIPIENTS_BYTES)
        fanout_flush(f, shard);
    if (list->n == list->cap) {
        size_t cap = list->cap ? 2 * list->cap : 16;
        str *grown = arena_alloc(home_arena(f->home), cap * sizeof *grown);
        if (list->n)
            memcpy(grown, list->to, list->n * sizeof *grown);
        list->to = grown, list->cap = cap;
    }
    list->to[list->n++] = to;
    list->bytes += to.n + RECIPIENT_OVERHEAD;
}

void fanout_send(struct fanout *f)
{
    for (unsigned i = 0; i < f->home->node->shards; i++)
        fanout_flush(f, i);
}

/* ---- the store ---- */

struct request {
    struct home *home;
    home_store_f *done;
    void *ctx;
};

static void on_store(void *ctx, err e, const Store__Reply *reply)
{
    struct request r = *(struct request *)ctx;
    free(ctx);
    r.home->requests--;
    r.done(r.home, r.ctx, e, reply);
    if (r.home->stopped && !r.home->requests) {
        void (*stopped)(void *) = r.home->stopped;
        r.home->stopped = NULL;
        stopped(r.home->stopped_ctx);
    }
}

void home_store(struct home *h, str owner, Store__Request *req, home_store_f *done, void *ctx)
{
    struct request *r = malloc(sizeof *r);
    must(r);
    *r = (struct request){h, done, ctx};
    req->owner = home_bytes(owner);
    h->requests++;
    store_submit(h->node->store, req, on_store, r);
}

/* ---- frames that name a user ---- */

struct frame_work {
    struct work work;
    struct home *home;
    struct ticket *ticket;
    struct frame frame;
    unsigned edge;
    char text[];
};

static void bind_failed(struct home *h, unsigned edge, const struct frame *f, err e)
{
    struct frame answer = {
        .kind = f->kind == FRAME_BIND ? FRAME_BOUND : FRAME_FAILED, .conn = f->conn, .reason = e};
    channel_send(h->node->channels, edge, &answer, (struct hold){HOLD_NONE, 0, 0}, false);
}

static void run_frame(struct work *work, struct user *u)
{
    struct frame_work *w = container_of(work, struct frame_work, work);
    struct frame *f = &w->frame;
    if (f->kind == FRAME_BIND && u)
        session_bind(u, w->edge, f, w->ticket);
    else if (f->kind == FRAME_RESUME && u)
        session_resume(u, w->edge, f, w->ticket);
    else if (f->kind == FRAME_CACK && u)
        offline_taken(u, f->payload, w->ticket);
    else if (f->kind == FRAME_BIND || f->kind == FRAME_RESUME)
        bind_failed(w->home, w->edge, f, ERR_STANZA_STORE_AWAY);
    ticket_close(w->ticket);
    stanza_unref(f->stanza);
    free(w);
}

static char *keep(char *at, str *s)
{
    if (s->n)
        memcpy(at, s->p, s->n);
    s->p = at;
    return at + s->n;
}

/* The copy of a frame that may wait for its user. */
static struct frame_work *frame_work_new(struct home *h, struct origin from, const struct frame *f)
{
    size_t n = f->bare.n + f->resource.n + f->text.n + f->payload.n;
    struct frame_work *w = malloc(sizeof *w + n);
    must(w);
    *w = (struct frame_work){.work = {.run = run_frame, .bytes = (uint32_t)(sizeof *w + n)},
                             .home = h,
                             .frame = *f,
                             .edge = from.peer};
    list_init(&w->work.link);
    char *at = keep(keep(w->text, &w->frame.bare), &w->frame.resource);
    keep(keep(at, &w->frame.text), &w->frame.payload);
    w->frame.recipients = NULL, w->frame.recipient_count = 0;
    if (f->stanza) {
        stanza_ref(f->stanza);
        w->work.bytes += f->stanza->size;
    }
    w->ticket = ticket_new(h->node->channels, from, frame_uid(f), NULL, NULL);
    return w;
}

static void enter(struct home *h, struct frame_work *w)
{
    const struct frame *f = &w->frame;
    struct user *u = user_find(h, w->frame.bare);
    if (f->kind == FRAME_BIND && (f->flags & FRAME_ANONYMOUS) && !u)
        user_anonymous(h, w->frame.bare);
    else if (f->kind == FRAME_BIND && u && u->anonymous)
        u->exists = true;
    else if (f->kind == FRAME_BIND && u && u->state == USER_READY && !u->exists)
        user_reload(u); /* it may have been made a moment ago, at another shard's edge */
    user_with(h, w->frame.bare, &w->work);
}

static void on_user_frame(struct home *h, struct origin from, const struct frame *f)
{
    bool login = f->kind == FRAME_BIND || f->kind == FRAME_RESUME;
    struct frame_work *w = frame_work_new(h, from, f);
    if (login && h->awaited)
        home_park(h, &h->logins, &w->work);
    else
        enter(h, w);
}

/* ---- frames that name a session ---- */

/* One that waits: for the barrier, or for its session to be made again. */
struct late {
    struct work work;
    struct home *home;
    struct origin origin;
    struct frame frame;
    char text[];
};

static void to_session(struct home *h, struct origin from, const struct frame *f)
{
    struct session *s = session_find(h, f->sid);
    bool rows = f->kind == FRAME_CACK && f->payload.n && f->bare.n;
    /* Another generation: the client is on another connection by now, whose edge has the truth. */
    if (s && s->gen == f->gen && f->kind == FRAME_CACK)
        session_acked(s, f->seq);
    if (rows)
        on_user_frame(h, from, f);
    else if (s && s->gen == f->gen && f->kind != FRAME_CACK)
        session_frame(s, from, f);
    else
        channel_done(h->node->channels, from);
}

static void end_late(struct late *l)
{
    to_session(l->home, l->origin, &l->frame);
    stanza_unref(l->frame.stanza);
    free(l);
}

static void run_late(struct work *work, struct user *u)
{
    struct late *l = container_of(work, struct late, work);
    if (!u) { /* its account was not there in time: next second again */
        list_push_back(&l->home->frames, &work->link);
        return;
    }
    end_late(l);
}

/* Not bounded by limits.park_max: how many there are is what edges were let in (delivery.md 5.3).
 */
static struct late *late_new(struct home *h, struct origin from, const struct frame *f)
{
    size_t n = f->bare.n + f->payload.n;
    struct late *l = malloc(sizeof *l + n);
    must(l);
    *l = (struct late){.work = {.run = run_late}, .home = h, .origin = from, .frame = *f};
    list_init(&l->work.link);
    keep(keep(l->text, &l->frame.bare), &l->frame.payload);
    l->frame.resource = l->frame.text = STR_NONE;
    l->frame.recipients = NULL, l->frame.recipient_count = 0;
    if (f->stanza)
        stanza_ref(f->stanza);
    return l;
}

/* Where one waits: for the barrier, or (asked for once a second) for its account to be loaded. */
static void wait_late(struct home *h, struct late *l)
{
    str bare = attach_bare(h, l->frame.sid);
    if (!h->awaited && bare.n && user_find(h, bare))
        user_with(h, bare, &l->work);
    else
        list_push_back(&h->frames, &l->work.link);
}

static void on_session_frame(struct home *h, struct origin from, const struct frame *f)
{
    if (h->awaited || attach_bare(h, f->sid).n)
        wait_late(h, late_new(h, from, f));
    else
        to_session(h, from, f);
}

static void run_frames(struct home *h)
{
    struct list frames;
    list_init(&frames);
    list_append(&frames, &h->frames);
    while (!list_empty(&frames)) {
        struct late *l = container_of(list_first(&frames, struct work, link), struct late, work);
        list_remove(&l->work.link);
        if (attach_bare(h, l->frame.sid).n)
            wait_late(h, l);
        else
            end_late(l);
    }
}

/* ---- the barrier ---- */

void home_park(struct home *h, struct list *list, struct work *w)
{
    if (h->parked_bytes + w->bytes > h->node->conf->limits_park_max) {
        home_count(h, METRIC_limit_park, 1);
        w->run(w, NULL);
        return;
    }
    h->parked_bytes += w->bytes;
    list_push_back(list, &w->link);
}

static struct work *unpark(struct home *h, struct list *list)
{
    struct work *w = list_first(list, struct work, link);
    list_remove(&w->link);
    h->parked_bytes -= w->bytes;
    return w;
}

/* Sessions first, then what their clients sent, then routes: what they bring belongs behind what
 * was held, and before what is sent to sessions that begin now. */
static void open_barrier(struct home *h)
{
    h->awaited = 0;
    loop_timer_stop(h->node->loop, &h->barrier);
    attach_restore(h);
    run_frames(h);
    while (!list_empty(&h->routes)) {
        struct work *w = unpark(h, &h->routes);
        w->run(w, NULL);
    }
    while (!list_empty(&h->logins))
        enter(h, container_of(unpark(h, &h->logins), struct frame_work, work));
}

static void on_barrier(struct timer *t) { open_barrier(container_of(t, struct home, barrier)); }

static void attached(struct home *h, unsigned shard)
{
    if (!h->awaited)
        return;
    h->awaited &= ~(1ull << shard);
    if (!h->awaited)
        open_barrier(h);
}

void home_await_others(struct home *h)
{
    must(h->node->shards <= 64);
    for (unsigned i = 0; i < h->node->shards; i++)
        if (i != h->node->shard)
            h->awaited |= 1ull << i;
    if (h->awaited)
        loop_timer_set(h->node->loop, &h->barrier, BARRIER_MS);
}

/* ---- frames ---- */

static void on_route(struct home *h, struct origin from, const struct frame *f)
{
    struct uid uid = frame_uid(f);
    struct ticket *t = ticket_new(h->node->channels, from, uid, NULL, NULL);
    ticket_list(t, &h->open);
    if (f->flags & FRAME_AGAIN)
        ticket_set_again(t);
    uint32_t again = f->flags & FRAME_AGAIN;
    struct jid to = stanza_to_jid(f->stanza);
    if (!f->recipient_count && to.full.n)
        route_deliver(h, &to, f->stanza, uid, again, (int64_t)f->us, t);
    for (size_t i = 0; i < f->recipient_count; i++) {
        to = jid_parse_prepared(f->recipients[i]);
        route_deliver(h, &to, f->stanza, uid, again, (int64_t)f->us, t);
    }
    ticket_close(t);
}

/* Clients whose edge and home has died may come back so late and send again (delivery.md 3). */
static uint64_t late_ms(const struct home *h)
{
    return (uint64_t)h->node->conf->limits_resume_timeout + SEEN_MS;
}

static void on_known(struct home *h, struct origin from, const struct frame *f)
{
    mark_set_add(&h->known, f->payload);
    h->known_until_ms = loop_now_ms(h->node->loop) + late_ms(h);
    channel_done(h->node->channels, from);
}

void home_frame(struct home *h, struct origin from, const struct frame *f)
{
    switch (f->kind) {
    case FRAME_ATTACH:
    case FRAME_QUEUED: attach_offer(h, from, f); return;
    case FRAME_KNOWN: on_known(h, from, f); return;
    case FRAME_ATTACHED:
        attached(h, from.peer);
        channel_done(h->node->channels, from);
        return;
    case FRAME_BIND:
    case FRAME_RESUME: on_user_frame(h, from, f); return;
    case FRAME_ROUTE:
        if (f->stanza)
            on_route(h, from, f);
        else
            channel_done(h->node->channels, from);
        return;
    default: on_session_frame(h, from, f);
    }
}

void home_settled(struct home *h, struct hold hold, bool lost)
{
    if (!lost)
        session_mirrored(h, hold.a, hold.b);
}

/* ---- life ---- */

static void on_reap(struct turn_hook *hook)
{
    struct home *h = container_of(hook, struct home, reap);
    for (size_t i = 0; i < h->doomed.n; i++) { /* it may grow meanwhile */
        struct session *s = session_find(h, h->doomed.sids[i]);
        if (s)
            session_end(s, s->doom, true);
    }
    free(h->doomed.sids);
    h->doomed = (struct doomed){0};
}

static void on_notes(struct turn_hook *hook)
{
    second_flush(container_of(hook, struct home, noting));
}

static void count_dropped_marks(struct home *h)
{
    uint64_t dropped = h->seen.dropped + h->node->marks.dropped;
    home_count(h, METRIC_marks_dropped, (int64_t)(dropped - h->marks_dropped));
    h->marks_dropped = dropped;
}

static void on_sweep(struct timer *timer)
{
    struct home *h = container_of(timer, struct home, sweep);
    user_sweep(h);
    seen_sweep(&h->seen, loop_now_ms(h->node->loop));
    count_dropped_marks(h);
    if (h->known_until_ms < loop_now_ms(h->node->loop))
        mark_set_clear(&h->known);
    if (!h->awaited) {
        attach_sweep(h);
        run_frames(h);
    }
    loop_timer_set(h->node->loop, &h->sweep, 1000);
}

struct home *home_new(struct node *n)
{
    struct home *h = calloc(1, sizeof *h);
    must(h);
    h->node = n;
    htable_init(&h->users);
    htable_init(&h->sessions);
    list_init(&h->resting);
    list_init(&h->again);
    list_init(&h->givings);
    list_init(&h->reap.link);
    h->reap.fn = on_reap;
    list_init(&h->noting.link);
    h->noting.fn = on_notes;
    list_init(&h->notes);
    list_init(&h->endings);
    list_init(&h->open);
    list_init(&h->frames);
    list_init(&h->unloaded);
    htable_init(&h->attached);
    seen_init(&h->seen, n->conf->limits_marks_max);
    list_init(&h->routes);
    list_init(&h->logins);
    timer_init(&h->barrier, on_barrier);
    timer_init(&h->sweep, on_sweep);
    loop_timer_set(n->loop, &h->sweep, 1000);
    return h;
}

static void pin_senders_of(struct home *h, unsigned shard)
{
    struct ring_share of = {h->node->ring, shard};
    seen_pin(&h->seen, ring_share_has, &of, loop_now_ms(h->node->loop) + late_ms(h));
}

void home_peer_down(struct home *h, unsigned shard)
{
    pin_senders_of(h, shard);
    htable_each(it, &h->sessions)
        session_edge_died(container_of(it, struct session, node), shard);
    htable_each(it, &h->sessions)
        second_peer_down(container_of(it, struct session, node), shard);
}

void home_peer_up(struct home *h, unsigned shard)
{
    htable_each(it, &h->sessions)
        second_peer_up(container_of(it, struct session, node));
}

/* Nothing is copied from the config, so only hosts that have gone matter. */
void home_reload(struct home *h)
{
    h->seen.max = h->node->conf->limits_marks_max;
    htable_each(it, &h->sessions) {
        struct session *s = container_of(it, struct session, node);
        if (!user_host(s->user))
            session_doom(s, ERR_STREAM_HOST_UNKNOWN);
    }
}

void home_stop(struct home *h, void (*done)(void *ctx), void *ctx)
{
    h->stopping = true;
    htable_each(it, &h->sessions)
        session_doom(container_of(it, struct session, node), ERR_STREAM_SYSTEM_SHUTDOWN);
    on_reap(&h->reap);
    open_barrier(h);
    loop_timer_stop(h->node->loop, &h->sweep);
    if (!h->requests) {
        done(ctx);
        return;
    }
    h->stopped = done, h->stopped_ctx = ctx;
}

void home_free(struct home *h)
{
    open_barrier(h);
    htable_each(it, &h->users)
        user_free(container_of(it, struct user, node));
    loop_timer_stop(h->node->loop, &h->sweep);
    list_remove(&h->reap.link);
    free(h->doomed.sids);
    attach_free(h);
    ended_free(h);
    list_remove(&h->noting.link);
    seen_close(&h->seen);
    mark_set_clear(&h->known);
    htable_close(&h->attached);
    htable_close(&h->users);
    htable_close(&h->sessions);
    pool_close(&h->outbounds);
    free(h);
}
