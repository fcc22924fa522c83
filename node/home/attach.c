/* attach: a home that is new makes the sessions of its predecessor again (delivery.md 6, "home
 * dies"). Each holder offers what it has (ATTACH, QUEUED) before the barrier opens; then the best
 * of the offers of one session is taken:
 *
 *   highest gen wins; of that gen, whoever has the connection
 *   outbound: the queue that goes furthest (they are prefixes of one sequence), without what any of
 *   them knows to be acknowledged
 *
 * and the session waits for its account like everything that concerns a user; what names it waits
 * behind it. Offers are bounded by what the holders had been given. */
#include "cluster/copy.h"
#include "node/home/inside.h"

struct offer {
    struct list link;
    unsigned peer;
    uint32_t gen, flags;
    struct buf *snap;
    struct outs *outs; /* the first has seq acked + 1 */
    uint64_t acked;
    struct window in; /* of its client's stanzas, what is safe */
};

struct attached {
    struct hnode by_sid;
    struct list link; /* of home->unloaded */
    struct work work;
    struct home *home;
    uint64_t sid;
    struct list offers;
    bool begun; /* it waits for its account */
    size_t bare_n;
    char bare[];
};

static struct attached *find(struct home *h, uint64_t sid)
{
    struct hnode *n = htable_find(&h->attached, hash_u64(sid));
    for (; n; n = htable_find_next(n)) {
        struct attached *a = container_of(n, struct attached, by_sid);
        if (a->sid == sid)
            return a;
    }
    return NULL;
}

str attach_bare(struct home *h, uint64_t sid)
{
    const struct attached *a = find(h, sid);
    return a ? str_from(a->bare, a->bare_n) : STR_NONE;
}

static void offer_free(struct offer *o)
{
    list_remove(&o->link);
    buf_unref(o->snap);
    outs_close(&o->outs);
    window_close(&o->in);
    free(o);
}

static void attached_free(struct attached *a)
{
    list_each(o, &a->offers, struct offer, link)
        offer_free(o);
    list_remove(&a->link);
    htable_remove(&a->home->attached, &a->by_sid);
    free(a);
}

static bool snap_of(const struct offer *o, struct arena *a, struct snap *out)
{
    return snap_decode(str_from(o->snap->data, o->snap->len), a, out) == ERR_OK;
}

static uint64_t end_of(const struct offer *o) { return o->acked + outs_count(o->outs); }

/* ---- offers ---- */

static struct attached *attached_new(struct home *h, uint64_t sid, str bare)
{
    struct attached *a = calloc(1, sizeof *a + bare.n);
    must(a);
    a->home = h, a->sid = sid, a->bare_n = bare.n;
    memcpy(a->bare, bare.p, bare.n);
    list_init(&a->link);
    list_init(&a->offers);
    list_init(&a->work.link);
    htable_insert(&h->attached, &a->by_sid, hash_u64(sid));
    return a;
}

/* Late is dead (delivery.md 5.3): its client logs in again. */
static void refuse(struct home *h, unsigned peer, const struct frame *f)
{
    struct frame close = {
        .kind = FRAME_CLOSE, .sid = f->sid, .gen = f->gen, .reason = ERR_STREAM_HOME_LOST};
    if (f->flags & FRAME_LIVE)
        channel_send(h->node->channels, peer, &close, (struct hold){0}, false);
}

enum { ROLE = FRAME_LIVE | FRAME_FORMER };

/* The same holder has offered it before, by an epoch that was never settled. */
static void forget_offer(struct attached *a, unsigned peer, const struct frame *f)
{
    list_each(o, &a->offers, struct offer, link)
        if (o->peer == peer && o->gen == f->gen && (o->flags & ROLE) == (f->flags & ROLE))
            offer_free(o);
}

/* That it is saying the queue of. */
static struct offer *latest_of(const struct attached *a, unsigned peer)
{
    struct offer *latest = NULL;
    list_each(o, &a->offers, struct offer, link)
        if (o->peer == peer)
            latest = o;
    return latest;
}

static void on_attach(struct home *h, unsigned peer, const struct frame *f)
{
    struct snap snap;
    if (snap_decode(f->payload, home_arena(h), &snap) != ERR_OK)
        return;
    str bare = jid_parse_prepared(snap.full).bare;
    if (!bare.n || bare.n > JID_MAX || snap.sid != f->sid || snap.gen != f->gen) {
        refuse(h, peer, f);
        return;
    }
    struct attached *a = find(h, f->sid);
    a = a ? a : attached_new(h, f->sid, bare);
    forget_offer(a, peer, f);
    struct offer *o = calloc(1, sizeof *o);
    must(o);
    o->peer = peer, o->gen = f->gen, o->flags = f->flags;
    o->snap = state_of(f);
    o->acked = snap.out_acked;
    o->in.safe = f->ord;
    if (f->text.n == WINDOW_MAX / 8)
        window_take(&o->in, f->text.p);
    list_push_back(&a->offers, &o->link);
}

static void on_queued(struct home *h, unsigned peer, const struct frame *f)
{
    struct attached *a = f->stanza ? find(h, f->sid) : NULL;
    struct offer *o = a ? latest_of(a, peer) : NULL;
    if (o && o->gen == f->gen && f->seq == end_of(o) + 1)
        outs_push(&o->outs, out_of(f), NULL);
}

/* Who offers what nobody waits for here is late; in a cluster he may also have skipped an epoch,
 * and then everything is offered to everybody. */
void attach_offer(struct home *h, struct origin from, const struct frame *f)
{
    unsigned slot = (unsigned)(f->sid >> 50);
    bool awaited = home_slot_waits(h, slot) && home_obeys(h, from, slot);
    if (!awaited && f->kind == FRAME_ATTACH && !h->node->epoch)
        refuse(h, from.peer, f);
    else if (!awaited)
        ;
    else if (f->kind == FRAME_ATTACH)
        on_attach(h, from.peer, f);
    else
        on_queued(h, from.peer, f);
    channel_done(h->node->channels, from);
}

/* ---- the best of them ---- */

/* Of one gen: whoever has the connection; else its former home. */
static int rank(const struct offer *o)
{
    return o->flags & FRAME_LIVE ? 2 : o->flags & FRAME_FORMER ? 1 : 0;
}

static struct offer *best_of(const struct attached *a)
{
    struct offer *best = NULL;
    list_each(o, &a->offers, struct offer, link)
        if (!best || o->gen > best->gen || (o->gen == best->gen && rank(o) > rank(best)))
            best = o;
    return best;
}

static struct offer *longest_of(const struct attached *a)
{
    struct offer *longest = list_first(&a->offers, struct offer, link);
    list_each(o, &a->offers, struct offer, link)
        if (end_of(o) > end_of(longest))
            longest = o;
    return longest;
}

/* What the best was not told, another knows; of what the client has sent, who knows most. */
static struct snap snap_of_all(const struct attached *a, const struct offer *best)
{
    struct arena *arena = home_arena(a->home);
    struct snap snap, other;
    bool good = snap_of(best, arena, &snap);
    must(good); /* on_attach has looked */
    list_each(o, &a->offers, struct offer, link) {
        if (o == best || !snap_of(o, arena, &other))
            continue;
        snap.in_ord = other.in_ord > snap.in_ord ? other.in_ord : snap.in_ord;
        bool home = (o->flags & FRAME_FORMER) && !(o->flags & FRAME_ENDED);
        if (home || (!snap.since_us && other.since_us))
            snap_learn(&snap, &other);
    }
    return snap;
}

/* The client has all up to it, as far as any of them knows. */
static uint64_t acked_of(const struct attached *a)
{
    uint64_t acked = 0;
    list_each(o, &a->offers, struct offer, link)
        acked = o->acked > acked ? o->acked : acked;
    return acked;
}

static void fill_queue(struct session *s, struct attached *a, struct offer *longest)
{
    uint64_t all = acked_of(a), acked = all > s->out_acked ? all : s->out_acked;
    for (; longest->outs && longest->acked < acked; longest->acked++)
        outs_pop(&longest->outs, NULL);
    s->out_seq = s->out_acked = longest->outs ? longest->acked : acked;
    if (!longest->outs && s->out_base > s->out_seq)
        s->out_seq = s->out_acked = s->out_base;
    for (; longest->outs; outs_pop(&longest->outs, NULL))
        session_restore_out(s, outs_at(longest->outs, 0));
}

static bool is_live(const struct offer *best)
{
    return (best->flags & FRAME_LIVE) && !(best->flags & FRAME_ENDED);
}

/* Nobody will go on with it: it is made again for the sake of its queue and its contacts. */
static bool is_over(const struct attached *a)
{
    struct snap snap;
    struct offer *best = best_of(a);
    if (best->flags & FRAME_ENDED)
        return true;
    return snap_of(best, home_arena(a->home), &snap) && !snap.resumable && !is_live(best);
}

/* Its predecessor had bound that resource anew and was still disposing of the former one's queue:
 * that is over, at the end of this turn, when all of the account are there. */
static void end_namesake(struct session *s)
{
    user_each_session(o, s->user) {
        if (o == s || !str_eq(session_resource(o), session_resource(s)))
            continue;
        session_doom(o->since_us < s->since_us ? o : s, ERR_STREAM_CONFLICT);
        return;
    }
}

static void learn_safe(struct window *safe, const struct window *other)
{
    for (uint64_t i = safe->safe + 1; other->bits && i <= other->safe + WINDOW_MAX; i++)
        if (window_has(other, i))
            window_mark(safe, i);
}

/* What any of them knows to be safe; of stanzas behind one that may not be, only who has the latest
 * attachment: a client that resumed may have used their numbers anew. */
static struct window safe_of(const struct attached *a, const struct offer *best)
{
    struct window safe = {0};
    list_each(o, &a->offers, struct offer, link)
        safe.safe = o->in.safe > safe.safe ? o->in.safe : safe.safe;
    list_each(o, &a->offers, struct offer, link)
        if (o->gen == best->gen)
            learn_safe(&safe, &o->in);
    return safe;
}

/* Whose copy is to stay until the new holder has all: one of another domain, best the former home,
 * which has most. NULL: there is only the connection's edge. */
static struct offer *keeper_of(const struct attached *a)
{
    const struct node *n = a->home->node;
    struct offer *keeper = NULL;
    int best = -1;
    list_each(o, &a->offers, struct offer, link) {
        int rank = 2 * !ring_same_domain(n->ring, o->peer, n->shard) + !!(o->flags & FRAME_FORMER);
        if (!(o->flags & FRAME_LIVE) && rank > best)
            keeper = o, best = rank;
    }
    return keeper;
}

/* A connection that was resumed elsewhere has not heard of it, perhaps. */
static void supersede(struct session *s, const struct offer *o)
{
    struct frame close = {
        .kind = FRAME_CLOSE, .sid = s->sid, .gen = o->gen, .reason = ERR_STREAM_RESUMED_ELSEWHERE};
    if (o->gen == s->gen)
        return;
    channel_send(s->user->home->node->channels, o->peer, &close, (struct hold){0}, false);
    second_drop(s->user->home, (struct holder){o->peer, o->gen}, s->sid);
}

static void let_holders_go(struct session *s, const struct attached *a)
{
    struct offer *keeper = keeper_of(a);
    if (keeper)
        second_former(s, (struct holder){keeper->peer, keeper->gen});
    list_each(o, &a->offers, struct offer, link)
        if (o->flags & FRAME_LIVE)
            supersede(s, o);
        else if (o != keeper)
            second_former(s, (struct holder){o->peer, o->gen});
}

static void restore(struct attached *a, struct user *u)
{
    struct offer *best = best_of(a);
    struct snap snap = snap_of_all(a, best);
    struct window safe = safe_of(a, best);
    uint64_t sent = end_of(best);
    bool live = is_live(best), ended = is_over(a);
    struct session *s = session_restore(u, &snap);
    fill_queue(s, a, longest_of(a));
    session_restore_in(s, &safe);
    window_close(&safe);
    home_count(a->home, METRIC_sessions_reattached, !ended);
    if (!ended && s->resumable)
        session_take_back_rows(s);
    session_restored(s, best->peer, live, sent);
    let_holders_go(s, a);
    if (!second_is_whole(s))
        second_replayed(s);
    if (!ended) {
        end_namesake(s);
        if (s->inactive) /* what was held back for it is lost */
            presence_ask_all(s);
    } else {
        session_end(s, ERR_STREAM_CONNECTION_TIMEOUT, false); /* before what waits behind it */
    }
}

/* ---- when its account is there ---- */

static void run(struct work *w, struct user *u)
{
    struct attached *a = container_of(w, struct attached, work);
    if (!u) {
        list_push_back(&a->home->unloaded, &a->link);
        return;
    }
    if (!session_find(a->home, a->sid) && user_host(u))
        restore(a, u);
    attached_free(a);
}

static bool is_guest(struct attached *a)
{
    struct snap snap;
    return snap_of(list_first(&a->offers, struct offer, link), home_arena(a->home), &snap) &&
           snap.anonymous;
}

static void drop(struct work *w) { attached_free(container_of(w, struct attached, work)); }

static void load(struct attached *a)
{
    str bare = str_from(a->bare, a->bare_n);
    a->work.run = run, a->work.drop = drop;
    a->work.bytes = 0;
    if (is_guest(a) && !user_find(a->home, bare))
        user_anonymous(a->home, bare);
    user_with(a->home, bare, &a->work);
}

/* What they hold was handled: known before anything that may be the same again is looked at. And
 * what one of them holds although another knows that the client has it, that client has: its former
 * home may have died before it could say so to all. */
static void note_queues(struct attached *a)
{
    uint64_t acked = acked_of(a);
    list_each(o, &a->offers, struct offer, link)
        for (uint32_t i = 0; i < outs_count(o->outs); i++) {
            const struct out *k = outs_at(o->outs, i);
            struct uid uid = {k->sid, k->ord, k->lane};
            route_note(a->home, k->stanza, uid);
            if (o->acked + 1 + i <= acked)
                home_know(a->home, uid, a->sid, stanza_fp(k->stanza));
        }
}

/* Those that are over come last: what is in their queues may be in that of another resource. */
/* Its former home has seen to its queue already, and was about to say so to the holders. */
static bool is_disposed(const struct attached *a)
{
    bool disposed = false;
    list_each(o, &a->offers, struct offer, link)
        disposed |= (o->flags & FRAME_DISPOSED) != 0;
    list_each(o, &a->offers, struct offer, link)
        if (disposed && !(o->flags & FRAME_DISPOSED))
            second_drop(a->home, (struct holder){o->peer, o->gen}, a->sid);
    return disposed;
}

void attach_restore(struct home *h)
{
    struct list all;
    list_init(&all);
    htable_each(it, &h->attached) {
        struct attached *a = container_of(it, struct attached, by_sid);
        if (a->begun)
            continue;
        a->begun = true;
        note_queues(a);
        if (is_disposed(a)) {
            attached_free(a);
            continue;
        }
        if (is_over(a))
            list_push_back(&all, &a->link);
        else
            list_push_front(&all, &a->link);
    }
    list_each(a, &all, struct attached, link) {
        list_remove(&a->link);
        load(a);
    }
}

void attach_sweep(struct home *h)
{
    struct list again;
    list_init(&again);
    list_append(&again, &h->unloaded);
    list_each(a, &again, struct attached, link) {
        list_remove(&a->link);
        load(a);
    }
}

void attach_drop(struct home *h, ring_wanted_f *wanted, const void *ctx)
{
    htable_each(it, &h->attached) {
        struct attached *a = container_of(it, struct attached, by_sid);
        if (wanted(ctx, (unsigned)(a->sid >> 50)))
            attached_free(a);
    }
}

void attach_free(struct home *h)
{
    htable_each(it, &h->attached)
        attached_free(container_of(it, struct attached, by_sid));
}
