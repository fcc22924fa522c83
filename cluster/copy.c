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

void copy_learn(struct snap *s, const struct buf *state, struct arena *a)
{
    struct snap told;
    if (state && snap_decode(str_from(state->data, state->len), a, &told) == ERR_OK)
        snap_learn(s, &told);
}

void copy_attach(struct channels *c, unsigned peer, const struct attaching *w, struct arena *a)
{
    struct snap snap = w->snap;
    snap.out_acked = w->acked;
    snap.out_seq = w->acked + outs_count(w->outs);
    struct frame f = {.kind = FRAME_ATTACH,
                      .flags = w->flags,
                      .sid = snap.sid,
                      .gen = snap.gen,
                      .payload = snap_encode(&snap, a)};
    f.ord = w->in ? w->in->safe : snap.in_ord;
    if (w->in && w->in->bits)
        f.text = str_from(w->in->bits, WINDOW_MAX / 8);
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

/* One block with its snap, encoded as it came: there are as many as sessions, and nobody reads it
 * before their home is dead. Its numbers are of the moment it was made; those that move are here.
 */
struct copy {
    union {
        struct hnode by_sid;
        struct {
            struct hnode *next_;
            uint64_t sid; /* random, so it is its own hash */
        };
    };
    struct window window;
    struct outs *outs; /* the first has seq acked + 1 */
    uint64_t acked;
    uint32_t gen;
    uint32_t ended : 1, former : 1, left : 1, snap_n : 29; /* left: by its connection */
    char snap[];
};

_Static_assert(offsetof(struct copy, sid) == offsetof(struct copy, by_sid.hash), "one field");

struct copies {
    struct copies_config config;
    struct htable by_sid;
    size_t bytes; /* of the copies and of the stanzas in their queues */
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

/* Of the latest attachment: notes about stanzas of the client are about that. */
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

static size_t bytes_of(const struct copy *k)
{
    return sizeof *k + k->snap_n + (k->outs ? k->outs->bytes : 0);
}

static void forget(struct copies *c, struct copy *k)
{
    c->bytes -= bytes_of(k);
    htable_remove(&c->by_sid, &k->by_sid);
    outs_close(&k->outs);
    window_close(&k->window);
    free(k);
}

/* k (NULL: none yet) with this snap; it may move. */
static struct copy *keep_snap(struct copies *c, struct copy *k, uint64_t sid, str snap)
{
    if (k)
        htable_remove(&c->by_sid, &k->by_sid), c->bytes -= bytes_of(k);
    struct copy *new = realloc(k, sizeof *k + snap.n);
    must(new);
    if (!k)
        memset(new, 0, sizeof *new);
    new->snap_n = (uint32_t)snap.n &((1u << 29) - 1);
    memcpy(new->snap, snap.p, snap.n);
    htable_insert(&c->by_sid, &new->by_sid, sid);
    c->bytes += bytes_of(new);
    return new;
}

/* It was looked at when it came. */
static struct snap snap_of(const struct copies *c, const struct copy *k)
{
    struct snap snap;
    err e = snap_decode(str_from(k->snap, k->snap_n), c->config.turn, &snap);
    must(e == ERR_OK);
    return snap;
}

void copies_take(struct copies *c, const struct copy_of *of)
{
    const struct snap *snap = &of->snap;
    struct copy *old = find(c, snap->sid, snap->gen);
    if (old)
        forget(c, old);
    struct copy *k = keep_snap(c, NULL, snap->sid, snap_encode(snap, c->config.turn));
    k->gen = snap->gen;
    k->ended = of->ended, k->former = of->former, k->left = !of->former;
    k->window = of->window;
    k->outs = of->outs, k->acked = of->acked;
    c->bytes += k->outs ? k->outs->bytes : 0;
}

static void acked(struct copies *c, struct copy *k, uint64_t seq)
{
    uint64_t now = loop_now_ms(c->config.loop);
    while (k->outs && k->acked < seq) {
        const struct out *first = outs_at(k->outs, 0);
        struct uid uid = {first->sid, first->ord, first->lane};
        marks_put(c->config.marks, (struct mark){uid, k->sid, stanza_fp(first->stanza), now});
        c->bytes -= first->stanza->index.len;
        outs_pop(&k->outs, NULL);
        k->acked++;
    }
    if (k->acked < seq)
        k->acked = seq;
}

/* A queue that is there already is a prefix of the one that follows. */
static void on_snap(struct copies *c, const struct frame *f)
{
    struct snap snap;
    struct copy *k = find(c, f->sid, f->gen);
    if (snap_decode(f->payload, c->config.turn, &snap) != ERR_OK || snap.sid != f->sid ||
        snap.gen != f->gen)
        return;
    bool begins = !k;
    k = keep_snap(c, k, f->sid, f->payload);
    if (begins)
        k->gen = f->gen, k->acked = snap.out_acked;
    k->ended = false;
    window_close(&k->window);
    k->window.safe = snap.in_ord;
    acked(c, k, snap.out_acked);
}

/* With what <enable/> changes, should the edge that had it not have heard of that. */
static void on_state(struct copies *c, const struct frame *f)
{
    struct copy *k = find(c, f->sid, f->gen);
    struct snap told;
    if (!k || snap_decode(f->payload, c->config.turn, &told) != ERR_OK)
        return;
    struct snap snap = snap_of(c, k);
    snap_learn(&snap, &told);
    snap.sm = told.sm, snap.resumable = told.resumable, snap.max_ms = told.max_ms;
    snap.in_base = told.in_base, snap.out_base = told.out_base;
    keep_snap(c, k, f->sid, snap_encode(&snap, c->config.turn))->ended = false;
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
        outs_push(&k->outs, out_of(f), NULL), c->bytes += f->stanza->index.len;
}

/* Of all attachments: they number what goes to the client alike. */
static void acked_in_all(struct copies *c, uint64_t sid, uint64_t seq)
{
    struct hnode *n = htable_find(&c->by_sid, sid);
    for (; n; n = htable_find_next(n)) {
        struct copy *k = container_of(n, struct copy, by_sid);
        if (k->sid == sid)
            acked(c, k, seq);
    }
}

static void on_note(struct copies *c, struct copy_note n)
{
    bool of_gen = n.kind != NOTE_SAFE && n.kind != NOTE_ACKED;
    struct copy *k = of_gen ? find(c, n.sid, (uint32_t)n.value) : latest(c, n.sid);
    if (!k)
        return;
    switch (n.kind) {
    case NOTE_SAFE: window_mark(&k->window, n.value); break;
    case NOTE_ACKED: acked_in_all(c, n.sid, n.value); break;
    case NOTE_DROP: forget(c, k); break;
    case NOTE_ENDED: k->ended = true; break;
    case NOTE_DROP_BESIDE:
        if (!k->left)
            forget(c, k);
        break;
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

void copies_attach(struct copies *c, ring_wanted_f *wanted, const void *ctx)
{
    htable_each(it, &c->by_sid) {
        struct copy *k = container_of(it, struct copy, by_sid);
        unsigned slot = (unsigned)(k->sid >> 50);
        if (!wanted(ctx, slot))
            continue;
        struct attaching what = {.snap = snap_of(c, k),
                                 .outs = k->outs,
                                 .acked = k->acked,
                                 .in = &k->window,
                                 .flags = (k->ended ? (uint32_t)FRAME_ENDED : 0) |
                                          (k->former ? (uint32_t)FRAME_FORMER : 0)};
        k->former = false;
        what.snap.in_ord = k->window.safe;
        unsigned home = ring_home_of_slot(c->config.ring, slot);
        copy_attach(c->config.channels, home, &what, c->config.turn);
    }
}

/* ---- life ---- */

struct copies *copies_new(const struct copies_config *config)
{
    struct copies *c = calloc(1, sizeof *c);
    must(c);
    c->config = *config;
    htable_init(&c->by_sid);
    return c;
}

void copies_adopt(struct copies *c, const struct ring *ring) { c->config.ring = ring; }

void copies_free(struct copies *c)
{
    htable_each(it, &c->by_sid)
        forget(c, container_of(it, struct copy, by_sid));
    htable_close(&c->by_sid);
    free(c);
}

size_t copies_count(const struct copies *c) { return c->by_sid.count; }

size_t copies_bytes(const struct copies *c) { return c->bytes + htable_bytes(&c->by_sid); }
