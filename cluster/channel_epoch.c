/* Epochs on channels: what comes too early waits, and what went to a home that is none any more is
 * taken back.
 *
 * A frame that is ahead is kept as the bytes in which it came: it is looked at, with what its
 * stanza shares with the one before it, only when its turn comes. How many wait is bounded by what
 * sources were let in at the other end (delivery.md 5.3).
 *
 * Acks wait apart from frames: behind a path that broke one may come before the FRAME_EPOCH that
 * it followed, and then says its epoch itself. */
#include "cluster/channel_impl.h"

struct ahead {
    struct list link;
    uint64_t epoch; /* ACK, EPOCH: that it says */
    size_t n;
    char bytes[];
};

/* ---- waiting ---- */

static void keep_bytes(struct list *to, uint64_t epoch, str bytes)
{
    struct ahead *a = malloc(sizeof *a + bytes.n);
    must(a);
    a->epoch = epoch, a->n = bytes.n;
    memcpy(a->bytes, bytes.p, bytes.n);
    list_push_back(to, &a->link);
}

err channel_wait(struct channels *c, struct channel *ch, const struct frame *f, uint64_t number,
                 str bytes)
{
    if (ch->broken)
        return ERR_BAD;
    if (f->kind == FRAME_ACK) {
        keep_bytes(&ch->acks, f->ms, bytes);
        return ERR_OK;
    }
    if (number != channel_due(ch))
        return channel_other(c, ch, number);
    keep_bytes(&ch->ahead, f->kind == FRAME_EPOCH ? f->ms : 0, bytes);
    ch->ahead_n++;
    ch->asked = false;
    return ERR_OK;
}

static void forget(struct list *l)
{
    list_each(a, l, struct ahead, link) {
        list_remove(&a->link);
        free(a);
    }
}

void channel_forget_ahead(struct channel *ch)
{
    forget(&ch->ahead);
    forget(&ch->acks);
    ch->ahead_n = 0;
    ch->broken = false;
}

/* a is in no list any more. */
static err take(struct channels *c, struct channel *ch, struct ahead *a)
{
    struct frame f;
    uint64_t number;
    err e = frame_decode(a->bytes, a->n, &c->in, &f, &number);
    must(e == ERR_OK); /* it was looked at when it came */
    e = channel_take(c, ch, &f, number);
    stanza_unref(f.stanza);
    arena_reset(&c->in);
    free(a);
    return e;
}

static struct ahead *next_of(struct channels *c, struct list *l)
{
    struct ahead *a = list_empty(l) ? NULL : list_first(l, struct ahead, link);
    if (!a || a->epoch > c->epoch)
        return NULL;
    list_remove(&a->link);
    return a;
}

static void catch_up(struct channels *c, struct channel *ch)
{
    err e = ERR_OK;
    struct ahead *a;
    while (e == ERR_OK && (a = next_of(c, &ch->ahead))) {
        ch->ahead_n--;
        e = take(c, ch, a);
    }
    while (e == ERR_OK && (a = next_of(c, &ch->acks)))
        e = take(c, ch, a);
    if (e == ERR_OK)
        return;
    channel_forget_ahead(ch); /* the next thing that it says ends it */
    ch->broken = true;
    ch->ahead_n = 1;
}

void channel_catch_up(struct channels *c)
{
    c->catching_up = false;
    for (unsigned i = 0; i < c->count; i++)
        if (c->peer[i])
            catch_up(c, c->peer[i]);
}

/* ---- adopting ---- */

void channel_say_epoch(struct channels *c, struct channel *ch, str lost)
{
    struct frame f = {.kind = FRAME_EPOCH, .ms = c->epoch, .payload = lost};
    channel_send(c, ch->peer, &f, (struct hold){HOLD_NONE, 0, 0}, false);
}

void channel_adopt(struct channels *c, uint64_t epoch, str lost)
{
    must(epoch > c->epoch);
    c->epoch = epoch;
    for (unsigned i = 0; i < c->count; i++)
        if (i != c->self && c->peer[i] && c->peer[i]->up)
            channel_say_epoch(c, c->peer[i], lost);
    c->catching_up = true;
    c->sinks.wake(c->sinks.ctx);
}

uint64_t channel_epoch(const struct channels *c, unsigned peer)
{
    if (peer == c->self)
        return c->epoch;
    return peer < c->count && c->peer[peer] ? c->peer[peer]->epoch : 0;
}

/* ---- taking back ---- */

struct taken {
    struct list link;
    struct parcel *parcel;
    struct hold hold;
    enum channel_fate fate;
    unsigned peer;
};

struct taking {
    struct channels *c;
    channel_fate_f *fate;
    void *ctx;
    struct list taken;
};

static enum channel_fate fate_of(struct taking *t, unsigned peer, const struct parcel *p)
{
    struct frame scratch = {.kind = FRAME_NONE};
    return t->fate(t->ctx, peer, parcel_frame(p, &scratch));
}

static struct parcel *copy_of(struct taking *t, const struct parcel *p)
{
    struct frame scratch = {.kind = FRAME_NONE};
    return parcel_new(&t->c->parcels, parcel_frame(p, &scratch));
}

static void note(struct taking *t, unsigned peer, struct parcel *p, struct hold h,
                 enum channel_fate fate)
{
    struct taken *k = malloc(sizeof *k);
    must(k);
    *k = (struct taken){.parcel = p, .hold = h, .fate = fate, .peer = peer};
    list_init(&k->link);
    list_push_back(&t->taken, &k->link);
}

/* The peer is still to get the number, where its path may have lost it; it drops what it says. */
static void take_pend(struct taking *t, struct channel *ch, uint64_t number, struct pend *p)
{
    struct hold h = {p->owner, p->a, p->b};
    enum channel_fate fate = fate_of(t, ch->peer, p->kept);
    if (fate == CHANNEL_STAYS)
        return;
    bool lent = fate == CHANNEL_PARTS || (ch->remote && number > ch->theirs);
    note(t, ch->peer, lent ? copy_of(t, p->kept) : p->kept, h, fate);
    if (!lent)
        p->kept = NULL;
    if (fate == CHANNEL_GOES)
        p->keep = false, p->owner = HOLD_NONE;
}

static void take_sent(struct taking *t, struct channel *ch)
{
    struct pend *p;
    for (uint64_t n = 0; (p = unacked_next(&ch->sent, &n)); n++)
        if (p->keep)
            take_pend(t, ch, n, p);
}

static void take_waiting(struct taking *t, struct channel *ch)
{
    list_each(p, &ch->waiting, struct parcel, link) {
        enum channel_fate fate = fate_of(t, ch->peer, p);
        if (fate == CHANNEL_STAYS)
            continue;
        note(t, ch->peer, fate == CHANNEL_PARTS ? copy_of(t, p) : p, p->hold, fate);
        if (fate == CHANNEL_GOES)
            list_remove(&p->link);
    }
}

/* Of the own shard: those that were run are still to be said done; those that were not are not run
 * at all. */
static void take_own(struct taking *t, struct list *l, bool ran)
{
    struct channels *c = t->c;
    list_each(p, l, struct parcel, link) {
        enum channel_fate fate = p->keep ? fate_of(t, c->self, p) : CHANNEL_STAYS;
        if (fate == CHANNEL_STAYS)
            continue;
        struct own *o = &c->own[p->number];
        note(t, c->self, fate == CHANNEL_PARTS ? copy_of(t, p) : p, o->hold, fate);
        if (fate == CHANNEL_PARTS)
            continue;
        o->hold = (struct hold){0}, o->kept = NULL;
        list_remove(&p->link);
        if (!ran)
            channel_done(c, (struct origin){.peer = c->self, .number = p->number});
    }
}

void channel_take_back(struct channels *c, channel_fate_f *fate, channel_again_f *again, void *ctx)
{
    struct taking t = {.c = c, .fate = fate, .ctx = ctx};
    list_init(&t.taken);
    for (unsigned i = 0; i < c->count; i++) {
        if (!c->peer[i])
            continue;
        take_sent(&t, c->peer[i]);
        take_waiting(&t, c->peer[i]);
    }
    take_own(&t, &c->running, true);
    take_own(&t, &c->local, false);
    list_each(k, &t.taken, struct taken, link) {
        struct frame scratch = {.kind = FRAME_NONE};
        parcel_mark_again(k->parcel);
        c->resent++;
        again(ctx, k->peer, parcel_frame(k->parcel, &scratch), k->hold, k->fate);
        list_remove(&k->link);
        parcel_free(&c->parcels, k->parcel);
        free(k);
    }
}
