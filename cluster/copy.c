#include "cluster/copy.h"

#include <endian.h>
#include <stdlib.h>

/* ---- attaching ---- */

struct buf *state_of(const struct frame *f)
{
    struct buf *b = buf_new((uint32_t)f->payload.n);
    if (f->payload.n)
        memcpy(b->data, f->payload.p, f->payload.n);
    b->len = (uint32_t)f->payload.n;
    return b;
}

static struct snap merged(const struct attaching *w, struct arena *a)
{
    struct snap s = w->own, told;
    if (w->state && snap_decode(str_from(w->state->data, w->state->len), a, &told) == ERR_OK) {
        s.presence = told.presence, s.presence_us = told.presence_us;
        s.since_us = told.since_us;
        s.interested = told.interested, s.anonymous = told.anonymous;
        s.directed = told.directed, s.directed_count = told.directed_count;
        s.address = told.address, s.tls = told.tls;
    }
    s.out_acked = w->acked;
    s.out_seq = w->acked + outs_count(w->outs);
    return s;
}

void copy_attach(struct channels *c, unsigned peer, const struct attaching *w, struct arena *a)
{
    struct snap snap = merged(w, a);
    struct frame f = {.kind = FRAME_ATTACH,
                      .flags = w->flags,
                      .sid = snap.sid,
                      .gen = snap.gen,
                      .payload = snap_encode(&snap, a)};
    channel_send(c, peer, &f, (struct hold){0}, false);
    for (uint32_t i = 0; i < outs_count(w->outs); i++) {
        const struct out *o = outs_at(w->outs, i);
        f = (struct frame){.kind = FRAME_QUEUED,
                           .flags = o->flags,
                           .sid = snap.sid,
                           .gen = snap.gen,
                           .seq = w->acked + 1 + i,
                           .conn = o->sid,
                           .ord = o->ord,
                           .lane = o->lane,
                           .us = o->us,
                           .h = o->row,
                           .stanza = o->stanza};
        channel_send(c, peer, &f, (struct hold){0}, false);
    }
}

/* ---- notes ---- */

void note_encode(struct copy_note n, char out[NOTE_BYTES])
{
    uint64_t sid = htobe64(n.sid), value = htobe64(n.value);
    memcpy(out, &sid, 8);
    memcpy(out + 8, &value, 8);
    out[16] = (char)n.kind;
}

static struct copy_note note_decode(const char *p)
{
    uint64_t sid, value;
    memcpy(&sid, p, 8);
    memcpy(&value, p + 8, 8);
    return (struct copy_note){be64toh(sid), be64toh(value), (enum note_kind)p[16]};
}

/* ---- the copies of a shard ---- */

struct copy {
    struct hnode by_sid;
    uint64_t sid;
    uint32_t gen;
    bool ended;
    struct snap own; /* its only string is full */
    struct buf *state;
    struct window window;
    struct outs *outs; /* the first has seq acked + 1 */
    uint64_t acked;
    char full[];
};

struct copies {
    struct copies_config config;
    struct htable by_sid;
};

static struct copy *find(const struct copies *c, uint64_t sid, uint32_t gen)
{
    struct hnode *n = htable_find(&c->by_sid, sid);
    for (; n; n = htable_find_next(n)) {
        struct copy *k = container_of(n, struct copy, by_sid);
        if (k->sid == sid && k->gen == gen)
            return k;
    }
    return NULL;
}

/* Of the latest attachment: notes about stanzas are about that. */
static struct copy *latest(const struct copies *c, uint64_t sid)
{
    struct copy *best = NULL;
    struct hnode *n = htable_find(&c->by_sid, sid);
    for (; n; n = htable_find_next(n)) {
        struct copy *k = container_of(n, struct copy, by_sid);
        if (k->sid == sid && (!best || k->gen > best->gen))
            best = k;
    }
    return best;
}

static void forget(struct copies *c, struct copy *k)
{
    htable_remove(&c->by_sid, &k->by_sid);
    outs_close(&k->outs);
    window_close(&k->window);
    buf_unref(k->state);
    free(k);
}

static struct copy *copy_new(struct copies *c, const struct snap *own)
{
    struct copy *k = calloc(1, sizeof *k + own->full.n);
    must(k);
    k->sid = own->sid, k->gen = own->gen;
    memcpy(k->full, own->full.p, own->full.n);
    k->own = (struct snap){.sid = own->sid,
                           .gen = own->gen,
                           .full = str_from(k->full, own->full.n),
                           .sm = own->sm,
                           .resumable = own->resumable,
                           .max_ms = own->max_ms,
                           .in_base = own->in_base,
                           .out_base = own->out_base};
    htable_insert(&c->by_sid, &k->by_sid, k->sid);
    return k;
}

void copies_take(struct copies *c, const struct copy_of *of)
{
    struct copy *old = find(c, of->sid, of->gen);
    if (old)
        forget(c, old);
    struct copy *k = copy_new(c, &of->own);
    k->ended = of->ended;
    k->state = of->state;
    k->window = of->window;
    k->outs = of->outs, k->acked = of->acked;
}

/* What <enable/> changes. */
static void update(struct copy *k, const struct snap *snap)
{
    k->ended = false;
    k->own.sm = snap->sm, k->own.resumable = snap->resumable, k->own.max_ms = snap->max_ms;
    k->own.in_base = snap->in_base, k->own.out_base = snap->out_base;
}

static void acked(struct copies *c, struct copy *k, uint64_t seq)
{
    uint64_t now = loop_now_ms(c->config.loop);
    while (k->outs && k->acked < seq) {
        const struct out *first = outs_at(k->outs, 0);
        struct uid uid = {first->sid, first->ord, first->lane};
        marks_put(c->config.marks,
                  (struct mark){uid, (unsigned)(k->sid >> 50), stanza_fp(first->stanza), now});
        outs_pop(&k->outs);
        k->acked++;
    }
    if (k->acked < seq)
        k->acked = seq;
}

static void take_state(struct copy *k, const struct frame *f)
{
    buf_unref(k->state);
    k->state = state_of(f);
}

/* A queue that is there already is a prefix of the one that follows. */
static void on_snap(struct copies *c, const struct frame *f)
{
    struct snap snap;
    struct copy *k = find(c, f->sid, f->gen);
    if (snap_decode(f->payload, c->config.turn, &snap) != ERR_OK || snap.sid != f->sid ||
        snap.gen != f->gen)
        return;
    if (!k) {
        k = copy_new(c, &snap);
        k->acked = snap.out_acked;
    }
    take_state(k, f);
    update(k, &snap);
    window_close(&k->window);
    k->window.safe = snap.in_ord;
    acked(c, k, snap.out_acked);
}

static void on_state(struct copies *c, const struct frame *f)
{
    struct copy *k = find(c, f->sid, f->gen);
    struct snap snap;
    if (!k || snap_decode(f->payload, c->config.turn, &snap) != ERR_OK)
        return;
    take_state(k, f);
    update(k, &snap);
}

/* How many may come is bounded where they come from: the home ends a session that is too full. One
 * that is not the next belongs to a queue that is not ours any more. */
static void on_mirror(struct copies *c, const struct frame *f)
{
    struct copy *k = find(c, f->sid, f->gen);
    if (!k || !f->stanza)
        return;
    if (!k->outs)
        k->acked = f->seq - 1;
    if (f->seq == k->acked + outs_count(k->outs) + 1)
        outs_push(&k->outs, out_of(f));
}

static void on_note(struct copies *c, struct copy_note n)
{
    struct copy *k = n.kind == NOTE_DROP ? find(c, n.sid, (uint32_t)n.value) : latest(c, n.sid);
    if (!k)
        return;
    switch (n.kind) {
    case NOTE_SAFE: window_mark(&k->window, n.value); break;
    case NOTE_ACKED: acked(c, k, n.value); break;
    case NOTE_DROP: forget(c, k); break;
    }
}

void copies_frame(struct copies *c, const struct frame *f)
{
    switch (f->kind) {
    case FRAME_SNAP: on_snap(c, f); break;
    case FRAME_STATE: on_state(c, f); break;
    case FRAME_OUT:
    case FRAME_MIRROR: on_mirror(c, f); break;
    case FRAME_NOTE:
        for (str p = f->payload; p.n >= NOTE_BYTES; p = str_skip(p, NOTE_BYTES))
            on_note(c, note_decode(p.p));
        break;
    default: break;
    }
}

void copies_attach(struct copies *c, unsigned peer)
{
    htable_each(it, &c->by_sid) {
        struct copy *k = container_of(it, struct copy, by_sid);
        if (ring_home_of_slot(c->config.ring, (unsigned)(k->sid >> 50)) != peer)
            continue;
        struct attaching what = {.own = k->own,
                                 .state = k->state,
                                 .outs = k->outs,
                                 .acked = k->acked,
                                 .flags = k->ended ? FRAME_ENDED : 0};
        what.own.in_ord = k->window.safe;
        copy_attach(c->config.channels, peer, &what, c->config.turn);
    }
}

/* ---- life ---- */

struct copies *copies_new(const struct copies_config *config)
{
    struct copies *c = malloc(sizeof *c);
    must(c);
    c->config = *config;
    htable_init(&c->by_sid);
    return c;
}

void copies_free(struct copies *c)
{
    htable_each(it, &c->by_sid)
        forget(c, container_of(it, struct copy, by_sid));
    htable_close(&c->by_sid);
    free(c);
}

size_t copies_count(const struct copies *c) { return c->by_sid.count; }
