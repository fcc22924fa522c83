/* home: frames in, frames out. Each frame becomes a ticket (cluster/ticket.h): its cause is acked
 * when the last effect is safe. What names a session goes to it by sid, what names a user waits
 * until that user is in memory. */
#include "node/home/home.h"

#include "node/home/inside.h"
#include "node/xep/caps.h"

/* The host that was asked for last is asked for first. Its place, not its address: whatever config
 * is in force when this is called is the one that is looked at. */
bool home_serves(struct home *h, str domain)
{
    const struct conf *c = h->node->conf;
    if (h->served < c->host_count &&
        str_eq(domain, conf_text(c, conf_host_at(c, h->served)->domain)))
        return true;
    const struct conf_host *host = conf_host_find(c, domain);
    if (host)
        h->served = (uint32_t)(host - conf_host_at(c, 0));
    return host;
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

static void drop_frame(struct work *work)
{
    struct frame_work *w = container_of(work, struct frame_work, work);
    ticket_close(w->ticket);
    stanza_unref(w->frame.stanza);
    free(w);
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
    drop_frame(work);
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
    *w = (struct frame_work){
        .work = {.run = run_frame, .drop = drop_frame, .bytes = (uint32_t)(sizeof *w + n)},
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
    if (login && home_waits(h, f->bare))
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
    bool stray = (f->kind == FRAME_DETACH || f->kind == FRAME_END) && (!s || s->gen != f->gen);
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
    if (stray)
        second_stray(h, s, (struct holder){from.peer, f->gen}, f->sid);
}

static void end_late(struct late *l)
{
    to_session(l->home, l->origin, &l->frame);
    stanza_unref(l->frame.stanza);
    free(l);
}

static void drop_late(struct work *work)
{
    struct late *l = container_of(work, struct late, work);
    channel_done(l->home->node->channels, l->origin);
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
    *l = (struct late){
        .work = {.run = run_late, .drop = drop_late}, .home = h, .origin = from, .frame = *f};
    list_init(&l->work.link);
    keep(keep(l->text, &l->frame.bare), &l->frame.payload);
    l->frame.resource = l->frame.text = STR_NONE;
    l->frame.recipients = NULL, l->frame.recipient_count = 0;
    if (f->stanza)
        stanza_ref(f->stanza);
    return l;
}

static unsigned slot_of(const struct frame *f) { return (unsigned)(f->sid >> 50); }

/* Where one waits: for the barrier, or (asked for once a second) for its account to be loaded. */
static void wait_late(struct home *h, struct late *l)
{
    str bare = attach_bare(h, l->frame.sid);
    if (!home_slot_waits(h, slot_of(&l->frame)) && bare.n && user_find(h, bare))
        user_with(h, bare, &l->work);
    else
        list_push_back(&h->frames, &l->work.link);
}

static void on_session_frame(struct home *h, struct origin from, const struct frame *f)
{
    if (home_slot_waits(h, slot_of(f)) || attach_bare(h, f->sid).n)
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
        if (home_slot_waits(h, slot_of(&l->frame)) || attach_bare(h, l->frame.sid).n)
            wait_late(h, l);
        else
            end_late(l);
    }
}

static void drop_list(struct home *h, struct list *l, ring_wanted_f *wanted, const void *ctx,
                      unsigned (*slot)(const struct home *, const struct work *))
{
    list_each(w, l, struct work, link) {
        if (!wanted(ctx, slot(h, w)))
            continue;
        list_remove(&w->link);
        h->parked_bytes -= w->bytes;
        work_drop(w);
    }
}

static unsigned slot_of_late(const struct home *h, const struct work *w)
{
    return slot_of(&container_of(w, struct late, work)->frame);
}
static unsigned slot_of_login(const struct home *h, const struct work *w)
{
    return ring_slot(h->node->ring, container_of(w, struct frame_work, work)->frame.bare);
}
static unsigned slot_of_route(const struct home *h, const struct work *w)
{
    return ring_slot(h->node->ring, container_of(w, struct route, work)->to.bare);
}

void home_drop_waiting(struct home *h, ring_wanted_f *wanted, const void *ctx)
{
    drop_list(h, &h->frames, wanted, ctx, slot_of_late); /* these have no bytes of their own */
    drop_list(h, &h->routes, wanted, ctx, slot_of_route);
    drop_list(h, &h->logins, wanted, ctx, slot_of_login);
    attach_drop(h, wanted, ctx);
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
void home_open(struct home *h)
{
    h->closed = false, h->awaited = 0;
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

static void on_barrier(struct timer *t) { home_open(container_of(t, struct home, barrier)); }

static void attached(struct home *h, unsigned shard)
{
    if (!h->awaited)
        return;
    h->awaited &= ~(1ull << shard);
    if (!h->awaited)
        home_open(h);
}

void home_await_others(struct home *h)
{
    must(h->node->shards <= 64);
    for (unsigned i = 0; i < h->node->shards; i++)
        if (i != h->node->shard)
            h->awaited |= 1ull << i;
    h->closed = h->awaited != 0;
    if (h->awaited)
        loop_timer_set(h->node->loop, &h->barrier, BARRIER_MS);
}

/* ---- frames ---- */

/* One that is not ours its sender sends, or has sent, to its home. */
static void route_one(struct home *h, struct origin from, const struct frame *f,
                      const struct jid *to, struct ticket *t)
{
    if (!h->node->epoch || home_obeys(h, from, ring_slot(h->node->ring, to->bare)))
        route_deliver(h, to, f->stanza, frame_uid(f), f->flags & FRAME_AGAIN, (int64_t)f->us, t);
}

static void on_route(struct home *h, struct origin from, const struct frame *f)
{
    struct uid uid = frame_uid(f);
    struct ticket *t = ticket_new(h->node->channels, from, uid, NULL, NULL);
    ticket_list(t, &h->open);
    if (f->flags & FRAME_AGAIN)
        ticket_set_again(t);
    struct jid to = stanza_to_jid(f->stanza);
    if (!f->recipient_count && to.full.n)
        route_one(h, from, f, &to, t);
    for (size_t i = 0; i < f->recipient_count; i++) {
        to = jid_parse_prepared(f->recipients[i]);
        route_one(h, from, f, &to, t);
    }
    ticket_close(t);
}

/* Clients whose edge and home has died may come back so late and send again (delivery.md 3). */
static uint64_t late_ms(const struct home *h)
{
    return (uint64_t)h->node->conf->limits_resume_timeout + SEEN_MS;
}

void home_know(struct home *h, struct uid uid, uint64_t sid, uint32_t fp)
{
    mark_set_put(&h->known, (struct mark){uid, sid, fp, 0});
    h->known_until_ms = loop_now_ms(h->node->loop) + late_ms(h);
}

static void on_known(struct home *h, struct origin from, const struct frame *f)
{
    mark_set_add(&h->known, f->payload);
    h->known_until_ms = loop_now_ms(h->node->loop) + late_ms(h);
    channel_done(h->node->channels, from);
}

bool home_obeys(const struct home *h, struct origin from, unsigned slot)
{
    const struct node *n = h->node;
    bool ours = !n->epoch || ring_home_of_slot(n->ring, slot) == n->shard;
    if (ours && (!n->epoch || channel_epoch(n->channels, from.peer) >= ring_since(n->ring, slot)))
        return true;
    metric_add(n->metrics, METRIC_AT(cluster_frames_refused, ours ? FRAMES_EPOCH : FRAMES_SLOT, 0),
               1);
    return false;
}

/* Else its sender takes it back, or has: what is said of it here is not heard. */
static bool obeys(struct home *h, struct origin from, unsigned slot)
{
    bool yes = home_obeys(h, from, slot);
    if (!yes)
        channel_done(h->node->channels, from);
    return yes;
}
static bool obeys_for(struct home *h, struct origin from, str bare)
{
    return !h->node->epoch || obeys(h, from, ring_slot(h->node->ring, bare));
}

void home_frame(struct home *h, struct origin from, const struct frame *f)
{
    switch (f->kind) {
    case FRAME_ATTACH:
    case FRAME_QUEUED: attach_offer(h, from, f); return;
    case FRAME_KNOWN: on_known(h, from, f); return;
    case FRAME_ATTACHED:
        if (h->node->epoch)
            move_attached(h, from.peer, f->ms);
        else
            attached(h, from.peer);
        channel_done(h->node->channels, from);
        return;
    case FRAME_BIND:
    case FRAME_RESUME:
        if (obeys_for(h, from, f->bare))
            on_user_frame(h, from, f);
        return;
    case FRAME_ROUTE:
        if (f->stanza)
            on_route(h, from, f);
        else
            channel_done(h->node->channels, from);
        return;
    default:
        if (obeys(h, from, slot_of(f)))
            on_session_frame(h, from, f);
    }
}

void home_settled(struct home *h, struct hold hold, bool lost)
{
    if (!lost)
        second_mirrored(h, hold);
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
    caps_sweep(h);
    seen_sweep(&h->seen, loop_now_ms(h->node->loop));
    count_dropped_marks(h);
    second_sweep(h);
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
    list_init(&h->tickets), list_init(&h->disposals), list_init(&h->asked);
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
    if (!h->node->epoch) /* else home_adopt has: of all that have moved */
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
static void set_memory(struct home *h, enum metric_pool pool, uint64_t bytes)
{
    metric_set(h->node->metrics, METRIC_AT(memory_bytes, pool, 0), bytes);
}

void home_sample(struct home *h)
{
    const struct metric_page *m = h->node->metrics;
    set_memory(h, POOL_SESSION,
               h->sessions.count * sizeof(struct session) + htable_bytes(&h->sessions));
    set_memory(h, POOL_QUEUE,
               metric_get(m, METRIC_unacked_stanzas) * sizeof(struct outbound) +
                   metric_get(m, METRIC_unacked_bytes));
    set_memory(h, POOL_USER,
               h->users.count * sizeof(struct user) + htable_bytes(&h->users) + h->roster_bytes);
    set_memory(h, POOL_SEEN, seen_bytes(&h->seen));
    move_sample(h);
}

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
    home_open(h);
    loop_timer_stop(h->node->loop, &h->sweep);
    if (!h->requests) {
        done(ctx);
        return;
    }
    h->stopped = done, h->stopped_ctx = ctx;
}

void home_free(struct home *h)
{
    home_open(h);
    htable_each(it, &h->users)
        user_free(container_of(it, struct user, node));
    loop_timer_stop(h->node->loop, &h->sweep);
    list_remove(&h->reap.link);
    free(h->doomed.sids);
    attach_free(h);
    move_free(h);
    second_free(h);
    ended_free(h);
    list_remove(&h->noting.link);
    seen_close(&h->seen);
    mark_set_clear(&h->known);
    htable_close(&h->attached);
    htable_close(&h->users);
    caps_free(h);
    htable_close(&h->sessions);
    pool_close(&h->outbounds);
    free(h);
}
