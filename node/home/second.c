/* second: who else holds a session (delivery.md 1), so that it outlives the death of this home.
 *
 *   EDGE   its edge is in another domain and holds what it was sent (OUT): costs nothing
 *   COPY   its edge is in ours, or has gone: the slot's successor holds a copy. Of one that may be
 *          resumed, whatever goes to the client is there first (MIRROR), and `h` before the client
 *          is told (NOTE); of one that ends with its connection only its name and presence, so that
 *          somebody can say that it is gone
 *   NONE   there is nobody else, or nobody else is up: counted as missing, and mended when somebody
 *          comes
 *
 * A former holder is told to forget (DROP) when the next one has confirmed all: make before break
 * (5.2, 3). With this process dies what is in it: no note of a copy here. */
#include "cluster/copy.h"
#include "node/home/inside.h"

static struct home *home_of(const struct session *s) { return s->user->home; }

static bool is_up(const struct home *h, unsigned shard)
{
    return shard != h->node->shard && channel_peer_is_up(h->node->channels, shard);
}
static bool is_elsewhere(const struct home *h, unsigned shard)
{
    return !ring_same_domain(h->node->ring, shard, h->node->shard);
}

struct others *second_others(struct session *s)
{
    if (!s->others) {
        s->others = calloc(1, sizeof *s->others);
        must(s->others);
    }
    return s->others;
}

/* An idle session has none, unless a copy has its queue. */
void second_settled(struct session *s)
{
    const struct others *o = s->others;
    if (!o || s->detached || second_mirrors(s) || o->former.gen || o->answer ||
        s->in_ord < o->doubt)
        return;
    window_close(&s->others->in);
    free(s->others);
    s->others = NULL;
}

bool second_mirrors(const struct session *s)
{
    return s->second_kind == SECOND_COPY && s->resumable;
}

static struct holder second_of(const struct session *s)
{
    bool here = s->second_kind == SECOND_EDGE && !s->detached;
    return here ? (struct holder){s->edge, s->gen} : s->second;
}

/* ---- notes: those of a turn in one frame per peer ---- */

struct notes {
    struct list link; /* of home->notes */
    struct home *home;
    unsigned peer;
    size_t n, origin_n, cap;
    char *bytes;
    struct origin *origins; /* to be acked when the holder has this */
};

static void on_noted(void *ctx, struct ticket *t)
{
    struct notes *b = ctx;
    for (size_t i = 0; i < b->origin_n; i++)
        channel_done(b->home->node->channels, b->origins[i]);
    free(b->bytes);
    free(b->origins);
    free(b);
}

static void flush(struct notes *b)
{
    struct channels *channels = b->home->node->channels;
    list_remove(&b->link);
    struct ticket *t = ticket_new(channels, (struct origin){0}, (struct uid){0}, on_noted, b);
    struct frame f = {.kind = FRAME_NOTE, .payload = str_from(b->bytes, b->n * NOTE_BYTES)};
    channel_send(channels, b->peer, &f, ticket_hold(t), false);
    ticket_close(t);
}

void second_flush(struct home *h)
{
    while (!list_empty(&h->notes))
        flush(list_first(&h->notes, struct notes, link));
}

static struct notes *notes_to(struct home *h, unsigned peer)
{
    list_each(b, &h->notes, struct notes, link)
        if (b->peer == peer && b->n < NOTE_FRAME_MAX)
            return b;
    struct notes *b = calloc(1, sizeof *b);
    must(b);
    b->home = h, b->peer = peer;
    list_push_back(&h->notes, &b->link);
    loop_at_turn_end(h->node->loop, &h->noting);
    return b;
}

static void note(struct home *h, unsigned peer, struct copy_note n, const struct origin *o)
{
    struct notes *b = notes_to(h, peer);
    if (b->n == b->cap) {
        b->cap = b->cap ? b->cap * 2 : 16;
        b->bytes = realloc(b->bytes, b->cap * NOTE_BYTES);
        b->origins = realloc(b->origins, b->cap * sizeof *b->origins);
        must(b->bytes && b->origins);
    }
    note_encode(n, b->bytes + b->n++ * NOTE_BYTES);
    if (o)
        b->origins[b->origin_n++] = *o;
}

static void note_holder(struct home *h, struct holder who, uint64_t sid, enum note_kind kind)
{
    if (who.gen && (who.peer == h->node->shard || is_up(h, who.peer)))
        note(h, who.peer, (struct copy_note){sid, who.gen, kind}, NULL);
}

void second_drop(struct home *h, struct holder who, uint64_t sid)
{
    note_holder(h, who, sid, NOTE_DROP);
}

static bool is_second(const struct session *s, struct holder who)
{
    struct holder second = second_of(s);
    return s->second_kind != SECOND_NONE && second.peer == who.peer && second.gen == who.gen;
}

/* A former home's copy may lie where the connection is. When that goes, what it leaves there is the
 * second holder, and whether it has gone already we do not know yet. And a copy that was not needed
 * for a while may have been begun again where it lay. */
static void drop_former(struct session *s, struct holder who)
{
    if (!is_second(s, who))
        second_drop(home_of(s), who, s->sid);
    else if (s->second_kind == SECOND_EDGE)
        note_holder(home_of(s), who, s->sid, NOTE_DROP_BESIDE);
}

/* ---- what a holder is told ---- */

/* What may change, but for the numbers: these a holder has from elsewhere. */
static struct snap told_snap(const struct session *s)
{
    struct snap snap = {.sm = s->sm,
                        .resumable = s->resumable,
                        .max_ms = s->max_ms,
                        .in_base = s->in_base,
                        .out_base = s->out_base,
                        .since_us = s->since_us,
                        .interested = s->interested,
                        .blocklist = s->blocklist,
                        .carbons = s->carbons,
                        .reads_archive = s->reads_archive,
                        .inactive = s->inactive,
                        .anonymous = s->user->anonymous};
    presence_snap(s, &snap);
    return snap;
}

static struct snap snap_of(const struct session *s)
{
    struct arena *a = home_arena(home_of(s));
    struct snap snap = told_snap(s);
    snap.sid = s->sid, snap.gen = s->gen;
    snap.full = session_full(s, a);
    snap.address = session_address(s, a), snap.tls = s->tls;
    snap.in_ord = s->in_ord, snap.out_seq = s->out_seq, snap.out_acked = s->out_acked;
    return snap;
}

static void send_snap(struct session *s, enum frame_kind kind, struct snap snap, struct ticket *t)
{
    struct home *h = home_of(s);
    struct holder who = second_of(s);
    struct frame f = {
        .kind = kind, .sid = s->sid, .gen = who.gen, .payload = snap_encode(&snap, home_arena(h))};
    struct hold hold = t ? ticket_hold(t) : (struct hold){0};
    channel_send(h->node->channels, who.peer, &f, hold, false);
}

static void send_state(struct session *s, struct ticket *t)
{
    send_snap(s, FRAME_STATE, told_snap(s), t);
}

static bool others_there_are(const struct home *h)
{
    size_t n;
    ring_peers(h->node->ring, &n);
    return n > 1;
}

static void set_kind(struct session *s, enum second_kind kind)
{
    struct home *h = home_of(s);
    bool missing = kind == SECOND_NONE && s->resumable && !s->ended && others_there_are(h);
    s->second_kind = kind;
    home_count(h, METRIC_copies_missing, (int)missing - (int)s->missing);
    s->missing = missing;
    if (s->others && kind != SECOND_COPY)
        s->others->unmirrored = NULL;
}

/* ---- a copy ---- */

/* What the former holder has, another one has too. */
static void forget_former(struct session *s)
{
    if (!s->others || !s->others->former.gen)
        return;
    drop_former(s, s->others->former);
    s->others->former.gen = 0;
}

/* Whatever the copy was to have is there, or it has died with all. */
static void on_copied(void *ctx, struct ticket *t)
{
    struct home *h = ctx;
    struct session *s = session_find(h, ticket_uid(t).sid);
    uint64_t gen = ticket_uid(t).ord;
    if (!s)
        return;
    bool latest = ticket_uid(t).lane == (s->others ? s->others->copy : 0);
    if (latest && s->second_kind == SECOND_COPY && s->second.gen == gen)
        forget_former(s);
    if (latest && s->gen == gen)
        session_copied(s);
    session_may_resume(s);
}

/* Behind it everything sent before has been read. */
static void send_mark(struct session *s, unsigned peer, struct ticket *t)
{
    struct frame f = {.kind = FRAME_NOTE};
    channel_send(home_of(s)->node->channels, peer, &f, ticket_hold(t), false);
}

/* delivery.md I3: a copy counts what is safe, not what was received; it is told of each stanza that
 * is safe behind one that is not. */
static void send_copy(struct session *s, struct ticket *t)
{
    struct snap snap = snap_of(s);
    uint64_t open[4];
    if (home_of(s)->node->epoch)
        snap.in_ord = session_in_safe(s, open);
    send_snap(s, FRAME_SNAP, snap, t);
    for (uint64_t i = snap.in_ord + 1; i <= s->in_ord; i++)
        if (!(open[i / 64 % 4] >> i % 64 & 1))
            note(home_of(s), s->second.peer, (struct copy_note){s->sid, i, NOTE_SAFE}, NULL);
}

static void begin_copy(struct session *s, unsigned peer)
{
    struct home *h = home_of(s);
    set_kind(s, SECOND_COPY);
    s->second = (struct holder){peer, s->gen};
    struct others *o = s->resumable ? second_others(s) : NULL;
    if (o)
        o->copy = ++h->copies, o->unmirrored = s->first, o->mirrored = s->out_acked;
    struct ticket *t = ticket_new(h->node->channels, (struct origin){0},
                                  (struct uid){s->sid, s->gen, o ? o->copy : 0}, on_copied, h);
    if (h->node->epoch)
        ticket_list(t, &h->tickets);
    send_copy(s, t);
    session_pump(s);
    send_mark(s, peer, t);
    ticket_close(t);
}

/* The slot's successor, or while that is away the next that is there in another domain. */
static unsigned successor(const struct session *s)
{
    const struct home *h = home_of(s);
    const struct ring *ring = h->node->ring;
    unsigned slot = (unsigned)(s->sid >> 50), first = ring_successor(ring, slot);
    size_t n;
    const struct ring_peer *p = ring_peers(ring, &n);
    if (first != RING_NONE && is_elsewhere(h, first) && is_up(h, first))
        return first;
    for (size_t i = 0; i < n; i++) {
        const struct ring_peer *next = &p[(slot + i) % n];
        if (next->full && is_elsewhere(h, next->peer) && is_up(h, next->peer))
            return next->peer;
    }
    return RING_NONE;
}

bool second_choose(struct session *s)
{
    if (!s->detached && is_elsewhere(home_of(s), s->edge)) {
        set_kind(s, SECOND_EDGE);
        return true;
    }
    unsigned peer = s->resumable || session_available(s) ? successor(s) : RING_NONE;
    if (peer != RING_NONE) {
        begin_copy(s, peer);
        return false;
    }
    set_kind(s, SECOND_NONE);
    session_pump(s);
    return true;
}

void second_state(struct session *s, struct ticket *t)
{
    if (s->second_kind != SECOND_NONE)
        send_state(s, t);
    else if (!s->ended && session_available(s))
        second_choose(s);
}

/* Of which copy, and which seq: what one says that is none any more means nothing. */
enum { HOLD_SEQ_BITS = 48 };
static uint64_t hold_number(const struct others *o, uint64_t seq)
{
    return (uint64_t)o->copy << HOLD_SEQ_BITS | seq;
}

void second_mirrored(struct home *h, struct hold hold)
{
    struct session *s = session_find(h, hold.a);
    uint64_t seq = hold.b & ((1ull << HOLD_SEQ_BITS) - 1);
    if (!s || !s->others || hold.b != hold_number(s->others, seq) || seq <= s->others->mirrored)
        return;
    s->others->mirrored = seq;
    session_pump(s);
}

void second_mirror(struct session *s, const struct outbound *o)
{
    struct frame f = {.kind = FRAME_MIRROR,
                      .flags = o->flags | (o->taken ? (uint32_t)FRAME_TAKEN : 0),
                      .sid = s->sid,
                      .gen = s->second.gen,
                      .seq = o->seq,
                      .conn = o->uid.sid,
                      .ord = o->uid.ord,
                      .lane = o->uid.lane,
                      .us = (uint64_t)o->us,
                      .h = o->offline_id,
                      .stanza = o->stanza};
    channel_send(home_of(s)->node->channels, s->second.peer, &f,
                 (struct hold){HOLD_MIRROR, s->sid, hold_number(s->others, o->seq)}, false);
}

/* delivery.md 5.2, 2: the copy knows it before the edge may tell the client. */
void second_safe(struct session *s, struct ticket *t)
{
    if (!second_mirrors(s))
        return;
    struct origin o = ticket_defer(t);
    note(home_of(s), s->second.peer, (struct copy_note){s->sid, ticket_uid(t).ord, NOTE_SAFE}, &o);
}

/* Former holders too, and the edge of the connection that has gone: they know the stanzas that a
 * <resume/> says the client has, the new edge was never given them, and what a client has is to be
 * known when it comes again (cluster/mark.h). */
void second_acked(struct session *s)
{
    struct copy_note n = {s->sid, s->out_acked, NOTE_ACKED};
    bool gone = s->second_kind == SECOND_EDGE && s->detached && is_up(home_of(s), s->second.peer);
    if (second_mirrors(s) || gone)
        note(home_of(s), s->second.peer, n, NULL);
    if (s->others && s->others->former.gen && is_up(home_of(s), s->others->former.peer))
        note(home_of(s), s->others->former.peer, n, NULL);
}

/* ---- what is not needed any more ---- */

/* Of an ended session, until the holders have been told to forget it; in a cluster a while longer:
 * should its slot go to another home meanwhile, they might offer it there as one that lives
 * (delivery.md 3, tombstone). */
struct disposal {
    struct list link; /* of home->disposals */
    struct home *home;
    struct holder former, second, edge;
    uint64_t sid, until_ms; /* until_ms: 0 while it is not disposed of */
    uint32_t gen;
    bool left; /* its slot has another home */
    size_t full_n;
    char full[];
};

enum { TOMBSTONE_MS = 10000 };

static struct disposal *disposal_new(const struct session *s)
{
    struct home *h = home_of(s);
    str full = session_full(s, home_arena(h));
    struct disposal *d = calloc(1, sizeof *d + full.n);
    must(d);
    d->home = h, d->sid = s->sid, d->gen = s->gen, d->full_n = full.n;
    memcpy(d->full, full.p, full.n);
    list_init(&d->link);
    return d;
}

static void on_disposed(void *ctx, struct ticket *t)
{
    struct disposal *d = ctx;
    struct home *h = d->home;
    if (!d->left) {
        second_drop(h, d->former, d->sid);
        second_drop(h, d->second, d->sid);
        second_drop(h, d->edge, d->sid);
    }
    if (list_empty(&d->link) || !h->node->epoch) {
        list_remove(&d->link);
        free(d);
        return;
    }
    d->until_ms = loop_now_ms(h->node->loop) + TOMBSTONE_MS;
}

static void disposal_end(struct disposal *d)
{
    list_remove(&d->link);
    if (d->until_ms)
        free(d);
    else
        d->left = true; /* its ticket frees it */
}

void second_sweep(struct home *h)
{
    list_each(d, &h->disposals, struct disposal, link)
        if (d->until_ms && d->until_ms <= loop_now_ms(h->node->loop))
            disposal_end(d);
}

static void tell_ended(const struct disposal *d)
{
    struct node *n = d->home->node;
    struct snap snap = {.sid = d->sid, .gen = d->gen, .full = str_from(d->full, d->full_n)};
    struct frame f = {.kind = FRAME_ATTACH,
                      .flags = FRAME_FORMER | FRAME_ENDED,
                      .sid = d->sid,
                      .gen = d->gen,
                      .payload = snap_encode(&snap, n->turn)};
    if (d->until_ms)
        f.flags |= FRAME_DISPOSED;
    channel_send(n->channels, ring_home_of_slot(n->ring, (unsigned)(d->sid >> 50)), &f,
                 (struct hold){0}, false);
}

void second_leave_ended(struct home *h, ring_wanted_f *wanted, const void *ctx)
{
    list_each(d, &h->disposals, struct disposal, link)
        if (wanted(ctx, (unsigned)(d->sid >> 50))) {
            tell_ended(d);
            disposal_end(d);
        }
}

void second_free(struct home *h)
{
    list_each(d, &h->disposals, struct disposal, link)
        disposal_end(d);
}

/* ---- detach, resume ---- */

/* What an edge of our own domain keeps of it as its connection goes is not needed when the copy has
 * what was sent to it. */
static void edge_left_copy(struct session *s)
{
    struct home *h = home_of(s);
    struct holder left = {s->edge, s->gen};
    if (s->second_kind == SECOND_NONE) {
        second_former(s, left);
        return;
    }
    struct disposal *d = disposal_new(s);
    d->second = left;
    struct ticket *t = ticket_new(h->node->channels, (struct origin){0}, (struct uid){s->sid, 0, 0},
                                  on_disposed, d);
    send_mark(s, s->second.peer, t);
    ticket_close(t);
}

void second_detached(struct session *s)
{
    if (s->others)
        session_answered(s);
    if (s->second_kind == SECOND_EDGE)
        s->second = (struct holder){s->edge, s->gen};
    else if (s->edge != home_of(s)->node->shard)
        edge_left_copy(s);
}

/* Is the copy one that was begun for this attachment already, while its RESUME waited, and would be
 * chosen again? Dropped as a former one it would be gone itself. */
static bool is_begun(const struct session *s)
{
    return s->second_kind == SECOND_COPY && s->second.gen == s->gen &&
           !is_elsewhere(home_of(s), s->edge) && s->second.peer == successor(s);
}

static bool is_same_holder(struct holder a, struct holder b)
{
    return a.peer == b.peer && a.gen == b.gen;
}

static bool holds(const struct session *s, struct holder who)
{
    return (s->second_kind != SECOND_NONE && is_same_holder(second_of(s), who)) ||
           (s->others && is_same_holder(s->others->former, who));
}

/* Its queue is being disposed of, and should we die it is there: it goes with the others. */
static bool is_kept(const struct home *h, uint64_t sid, struct holder who)
{
    list_each(d, &h->disposals, struct disposal, link) {
        if (d->sid != sid || d->until_ms)
            continue;
        if (is_same_holder(d->second, who) || is_same_holder(d->former, who))
            return true;
        if (!d->edge.gen)
            d->edge = who;
        return is_same_holder(d->edge, who);
    }
    return false;
}

void second_stray(struct home *h, const struct session *s, struct holder who, uint64_t sid)
{
    if (s ? !holds(s, who) : !is_kept(h, sid, who))
        second_drop(h, who, sid);
}

bool second_is_whole(const struct session *s)
{
    return !s->others || !s->others->former.gen || s->second_kind == SECOND_NONE;
}

/* The holder of the attachment that is over becomes the former one: it has all (second_is_whole).
 * A copy that has ended with its peer leaves the one before. */
void second_fence(struct session *s)
{
    struct others *o = second_others(s);
    if (s->second_kind == SECOND_NONE || is_begun(s))
        return;
    o->former = s->second;
    s->second = (struct holder){0, 0};
    set_kind(s, SECOND_NONE);
}

/* It is there as long as its edge is, whether its connection has gone again or not. */
static void on_replayed(void *ctx, struct ticket *t)
{
    struct home *h = ctx;
    struct session *s = session_find(h, ticket_uid(t).sid);
    if (!s || s->second_kind != SECOND_EDGE || second_of(s).gen != ticket_uid(t).ord ||
        !is_up(h, second_of(s).peer))
        return;
    forget_former(s);
    second_settled(s);
    session_may_resume(s);
}

void second_replayed(struct session *s)
{
    struct home *h = home_of(s);
    if (s->second_kind != SECOND_EDGE)
        return;
    struct ticket *t = ticket_new(h->node->channels, (struct origin){0},
                                  (struct uid){s->sid, s->gen, 0}, on_replayed, h);
    if (h->node->epoch)
        ticket_list(t, &h->tickets);
    send_state(s, t);
    send_mark(s, s->edge, t);
    ticket_close(t);
}

/* ---- restored ---- */

/* What others offered of it and was not taken. */
void second_former(struct session *s, struct holder who)
{
    bool beside = s->second_kind == SECOND_EDGE && !s->detached; /* a copy beside the connection */
    if (is_second(s, who) && !beside)
        return;
    if (!second_others(s)->former.gen)
        s->others->former = who;
    else
        drop_former(s, who);
}

/* ---- ended ---- */

struct ticket *second_disposal(struct session *s)
{
    struct home *h = home_of(s);
    struct disposal *d = disposal_new(s);
    list_push_back(&h->disposals, &d->link);
    if (s->second_kind != SECOND_NONE)
        d->second = second_of(s);
    if (s->others)
        d->former = s->others->former;
    if (s->second_kind != SECOND_EDGE && !s->detached && s->edge != h->node->shard)
        d->edge = (struct holder){s->edge, s->gen};
    set_kind(s, SECOND_NONE);
    /* The queue may wait for the store, and others have heard that it is gone: should we die, it
     * must not come back. */
    note_holder(h, d->former, d->sid, NOTE_ENDED);
    note_holder(h, d->second, d->sid, NOTE_ENDED);
    note_holder(h, d->edge, d->sid, NOTE_ENDED);
    return ticket_new(h->node->channels, (struct origin){0}, (struct uid){s->sid, 0, 0},
                      on_disposed, d);
}

/* ---- peers ---- */

void second_peer_down(struct session *s, unsigned shard)
{
    if (s->others && s->others->former.peer == shard)
        s->others->former.gen = 0;
    if (s->second_kind == SECOND_NONE || second_of(s).peer != shard) {
        session_may_resume(s);
        return;
    }
    set_kind(s, SECOND_NONE);
    second_choose(s);
    session_may_resume(s);
}

void second_peer_up(struct session *s)
{
    if (s->second_kind == SECOND_NONE && !s->ended)
        second_choose(s);
}

static struct outs *queue_of(const struct session *s)
{
    struct outs *outs = NULL;
    for (const struct outbound *o = s->first; o; o = o->next)
        outs_push(&outs,
                  (struct out){.stanza = stanza_ref(o->stanza),
                               .sid = o->uid.sid,
                               .ord = o->uid.ord,
                               .row = o->offline_id,
                               .lane = o->uid.lane,
                               .flags = (o->flags & 0xff) | (o->taken ? (uint32_t)FRAME_TAKEN : 0),
                               .us = (uint64_t)o->us & ((1ull << 56) - 1)},
                  NULL);
    return outs;
}

void second_leave(struct session *s)
{
    struct copy_of of = {.snap = snap_of(s),
                         .former = true,
                         .outs = queue_of(s),
                         .acked = s->first ? s->first->seq - 1 : s->out_seq};
    uint64_t open[4];
    of.window.safe = of.snap.in_ord = session_in_safe(s, open);
    for (uint64_t i = of.window.safe + 1; i <= s->in_ord; i++)
        if (!(open[i / 64 % 4] >> i % 64 & 1))
            window_mark(&of.window, i);
    copies_take(home_of(s)->node->copies, &of);
    s->ended = true;
    set_kind(s, SECOND_NONE);
}

/* It stays with who holds it, unless that is in our domain now: then another is made before. */
void second_ring_changed(struct session *s)
{
    struct home *h = home_of(s);
    if (s->second_kind == SECOND_NONE) {
        second_peer_up(s);
        return;
    }
    struct holder who = second_of(s);
    if (s->ended || is_elsewhere(h, who.peer) || successor(s) == RING_NONE)
        return;
    if (s->second_kind == SECOND_COPY) {
        struct others *o = second_others(s);
        if (o->former.gen)
            second_drop(h, who, s->sid);
        else
            o->former = who;
    }
    second_choose(s);
}
