/* The numbers, the acks and the own shard's queue.
 *
 *   out: base ......... next      frames given a number and not yet acked: a circular array of
 *        [pend][pend][pend]       pends; the front is dropped while it is acked
 *   in:  done_upto .... received  one byte per frame that is received and not in done_upto:
 *        [byte][byte]             OPEN, DONE (to be told), TOLD
 *
 * A parcel is a frame with its strings and a reference to its stanza in memory of its own: what
 * waits in the own shard's queue, and what is kept for a peer that may die. */
#include "cluster/channel.h"

#include <stdlib.h>

#include "pemberley/list.h"
#include "pemberley/pool.h"

struct parcel {
    struct list link;
    struct hold hold; /* while it waits for a peer that is down */
    bool plain;       /* without strings: of the pool */
    struct frame frame;
    char strings[]; /* a table of str first */
};

struct pend {
    struct hold hold;
    struct parcel *kept; /* NULL: not kept */
    bool acked;
};

enum { IN_OPEN, IN_DONE, IN_TOLD };

struct channel {
    bool up;
    uint32_t incarnation;
    /* out */
    struct pend *pend;
    uint64_t base, next; /* numbers: base is the oldest un-acked, next the one to give */
    size_t pend_mask;
    struct list waiting; /* parcels for a peer that is down */
    /* in */
    uint8_t *state;
    size_t state_mask;
    uint64_t done_upto, received;
    bool ack_due;
    uint64_t due_first, due_last; /* with ack_due: among these are all that are DONE */
};

struct settle {
    struct hold hold;
    bool lost;
};

struct channels {
    unsigned self, shards;
    struct arena in, out; /* of the frame being received, of the one being encoded: hundreds in a
                           * turn go through memory that stays in the cache */
    struct channel_sinks sinks;
    struct pool parcels, tickets;
    struct list local; /* parcels for the own shard, in order; hold.a is the number */
    struct settle *settles;
    size_t settle_count, settle_cap, settle_at;
    struct channel peer[];
};

/* ---- parcels ---- */

static str take(char **at, str s)
{
    if (!s.n)
        return STR_NONE;
    memcpy(*at, s.p, s.n);
    str copy = {*at, s.n};
    *at += s.n;
    return copy;
}

/* What most messages' frames are. */
static struct parcel *parcel_plain(struct channels *c, const struct frame *f)
{
    struct parcel *p = pool_get(&c->parcels, sizeof *p);
    p->frame = *f;
    p->plain = true;
    return p;
}

static struct parcel *parcel_with_strings(const struct frame *f, size_t n)
{
    size_t table = f->recipient_count * sizeof(str);
    for (size_t i = 0; i < f->recipient_count; i++)
        n += f->recipients[i].n;
    struct parcel *p = malloc(sizeof *p + table + n);
    must(p);
    p->frame = *f;
    p->plain = false;
    str *recipients = (str *)p->strings;
    char *at = p->strings + table;
    p->frame.bare = take(&at, f->bare), p->frame.resource = take(&at, f->resource);
    p->frame.text = take(&at, f->text), p->frame.payload = take(&at, f->payload);
    for (size_t i = 0; i < f->recipient_count; i++)
        recipients[i] = take(&at, f->recipients[i]);
    p->frame.recipients = recipients;
    return p;
}

static struct parcel *parcel_new(struct channels *c, const struct frame *f)
{
    size_t n = f->bare.n + f->resource.n + f->text.n + f->payload.n;
    bool plain = n == 0 && f->recipient_count == 0;
    struct parcel *p = plain ? parcel_plain(c, f) : parcel_with_strings(f, n);
    list_init(&p->link);
    if (f->stanza)
        stanza_ref(f->stanza);
    return p;
}

static void parcel_free(struct channels *c, struct parcel *p)
{
    if (!p)
        return;
    stanza_unref(p->frame.stanza);
    if (p->plain)
        pool_put(&c->parcels, p);
    else
        free(p);
}

struct pool *channel_tickets(struct channels *c) { return &c->tickets; }

/* ---- settling: never from inside channel_send or channel_done ---- */

static void settle_later(struct channels *c, struct hold h, bool lost)
{
    if (h.owner == HOLD_NONE)
        return;
    if (c->settle_count == c->settle_cap) {
        c->settle_cap = c->settle_cap ? c->settle_cap * 2 : 64;
        c->settles = realloc(c->settles, c->settle_cap * sizeof *c->settles);
        must(c->settles);
    }
    c->settles[c->settle_count++] = (struct settle){h, lost};
    c->sinks.wake(c->sinks.ctx);
}

static bool run_settles(struct channels *c)
{
    if (!c->settle_count)
        return false;
    while (c->settle_at < c->settle_count) {
        struct settle s = c->settles[c->settle_at++];
        c->sinks.settled(c->sinks.ctx, s.hold, s.lost);
    }
    c->settle_at = c->settle_count = 0;
    return true;
}

/* ---- outgoing ---- */

static struct pend *pend_at(struct channel *ch, uint64_t number)
{
    return &ch->pend[number & ch->pend_mask];
}

static void pend_grow(struct channel *ch)
{
    size_t cap = ch->pend ? (ch->pend_mask + 1) * 2 : 64;
    struct pend *bigger = malloc(cap * sizeof *bigger);
    must(bigger);
    for (uint64_t n = ch->base; n < ch->next; n++)
        bigger[n & (cap - 1)] = *pend_at(ch, n);
    free(ch->pend);
    ch->pend = bigger, ch->pend_mask = cap - 1;
}

static uint64_t pend_push(struct channel *ch, struct hold h, struct parcel *kept)
{
    if (!ch->pend || ch->next - ch->base > ch->pend_mask)
        pend_grow(ch);
    *pend_at(ch, ch->next) = (struct pend){h, kept, false};
    return ch->next++;
}

static void pend_ack(struct channels *c, struct channel *ch, uint64_t number)
{
    if (number < ch->base || number >= ch->next)
        return;
    struct pend *p = pend_at(ch, number);
    if (p->acked)
        return;
    p->acked = true;
    parcel_free(c, p->kept);
    p->kept = NULL;
    settle_later(c, p->hold, false);
    while (ch->base < ch->next && pend_at(ch, ch->base)->acked)
        ch->base++;
}

static void put_bytes(struct channels *c, unsigned peer, const struct frame *f, uint64_t number)
{
    struct iovec v[FRAME_PARTS];
    size_t n = frame_encode(f, number, &c->out, v);
    c->sinks.send(c->sinks.ctx, peer, v, n);
    arena_reset(&c->out);
}

void channel_send(struct channels *c, unsigned peer, const struct frame *f, struct hold h,
                  bool keep)
{
    must(peer < c->shards);
    struct channel *ch = &c->peer[peer];
    if (peer == c->self) {
        struct parcel *p = parcel_new(c, f);
        p->hold.a = pend_push(ch, h, NULL);
        list_push_back(&c->local, &p->link);
        c->sinks.wake(c->sinks.ctx);
    } else if (ch->up) {
        put_bytes(c, peer, f, pend_push(ch, h, keep ? parcel_new(c, f) : NULL));
    } else if (keep) {
        struct parcel *p = parcel_new(c, f);
        p->hold = h;
        list_push_back(&ch->waiting, &p->link);
    } else {
        settle_later(c, h, true);
    }
}

/* ---- incoming ---- */

static uint8_t *state_at(struct channel *ch, uint64_t number)
{
    return &ch->state[number & ch->state_mask];
}

static void state_grow(struct channel *ch)
{
    size_t cap = ch->state ? (ch->state_mask + 1) * 2 : 64;
    uint8_t *bigger = malloc(cap);
    must(bigger);
    for (uint64_t n = ch->done_upto + 1; n <= ch->received; n++)
        bigger[n & (cap - 1)] = *state_at(ch, n);
    free(ch->state);
    ch->state = bigger, ch->state_mask = cap - 1;
}

static void state_push(struct channel *ch)
{
    if (!ch->state || ch->received - ch->done_upto > ch->state_mask)
        state_grow(ch);
    ch->received++;
    *state_at(ch, ch->received) = IN_OPEN;
}

void channel_done(struct channels *c, struct origin o)
{
    must(o.peer < c->shards);
    struct channel *ch = &c->peer[o.peer];
    if (o.peer == c->self) {
        pend_ack(c, ch, o.number);
        return;
    }
    if (!ch->up || o.incarnation != ch->incarnation)
        return; /* who asked is dead */
    must(o.number > ch->done_upto && o.number <= ch->received);
    uint8_t *s = state_at(ch, o.number);
    must(*s == IN_OPEN);
    *s = IN_DONE;
    if (!ch->ack_due || o.number < ch->due_first)
        ch->due_first = o.number;
    if (!ch->ack_due || o.number > ch->due_last)
        ch->due_last = o.number;
    ch->ack_due = true;
    c->sinks.wake(c->sinks.ctx);
}

static void receive_ack(struct channels *c, struct channel *ch, const struct frame *f)
{
    for (uint64_t n = ch->base; n <= f->ack_upto && n < ch->next; n++)
        pend_ack(c, ch, n);
    for (size_t i = 0; i + 1 < f->ack_range_count; i += 2) {
        uint64_t last = f->ack_ranges[i + 1] < ch->next ? f->ack_ranges[i + 1] : ch->next - 1;
        for (uint64_t n = f->ack_ranges[i] > ch->base ? f->ack_ranges[i] : ch->base; n <= last; n++)
            pend_ack(c, ch, n);
    }
}

err channel_receive(struct channels *c, unsigned peer, str bytes)
{
    must(peer < c->shards && peer != c->self);
    struct channel *ch = &c->peer[peer];
    struct frame f;
    uint64_t number;
    err e = frame_decode(bytes.p, bytes.n, &c->in, &f, &number);
    if (e) {
        arena_reset(&c->in);
        return e;
    }
    if (f.kind == FRAME_ACK) {
        receive_ack(c, ch, &f);
    } else if (number != ch->received + 1) {
        e = ERR_BAD;
    } else {
        state_push(ch);
        c->sinks.frame(c->sinks.ctx, (struct origin){peer, ch->incarnation, number}, &f);
    }
    stanza_unref(f.stanza);
    arena_reset(&c->in);
    return e;
}

/* ---- acks out ---- */

/* Looks only where something was done since the last ack: behind a frame that stays open for long
 * there may be a million that were told. */
static size_t ranges_of(struct channel *ch, uint64_t *ranges)
{
    size_t n = 0;
    uint64_t i = ch->due_first > ch->done_upto ? ch->due_first : ch->done_upto + 1;
    for (; i <= ch->due_last && n < FRAME_ACK_RANGES; i++) {
        if (*state_at(ch, i) != IN_DONE)
            continue;
        *state_at(ch, i) = IN_TOLD;
        if (n && ranges[n - 1] == i - 1)
            ranges[n - 1] = i;
        else
            ranges[n++] = i, ranges[n++] = i;
    }
    ch->due_first = i;
    ch->ack_due = i <= ch->due_last;
    return n;
}

static void send_ack(struct channels *c, unsigned peer)
{
    struct channel *ch = &c->peer[peer];
    while (ch->done_upto < ch->received && *state_at(ch, ch->done_upto + 1) != IN_OPEN)
        ch->done_upto++;
    uint64_t *ranges = arena_alloc(&c->out, FRAME_ACK_RANGES * sizeof *ranges);
    struct frame f = {.kind = FRAME_ACK, .ack_upto = ch->done_upto, .ack_ranges = ranges};
    f.ack_range_count = ranges_of(ch, ranges);
    put_bytes(c, peer, &f, 0);
    if (ch->ack_due) /* more than one frame holds */
        c->sinks.wake(c->sinks.ctx);
}

void channel_flush(struct channels *c)
{
    for (unsigned i = 0; i < c->shards; i++)
        if (c->peer[i].ack_due && c->peer[i].up)
            send_ack(c, i);
}

bool channel_run(struct channels *c)
{
    bool ran = false;
    while (run_settles(c) || !list_empty(&c->local)) {
        ran = true;
        if (list_empty(&c->local))
            continue;
        struct parcel *p = list_first(&c->local, struct parcel, link);
        list_remove(&p->link);
        c->sinks.frame(c->sinks.ctx, (struct origin){c->self, 0, p->hold.a}, &p->frame);
        parcel_free(c, p);
    }
    return ran;
}

/* ---- peers ---- */

void channel_peer_up(struct channels *c, unsigned peer, uint32_t incarnation)
{
    must(peer < c->shards && peer != c->self);
    struct channel *ch = &c->peer[peer];
    if (ch->up)
        channel_peer_down(c, peer);
    ch->up = true;
    ch->incarnation = incarnation;
    ch->base = ch->next = 1;
    ch->done_upto = ch->received = 0;
    ch->ack_due = false;
    struct list again;
    list_init(&again);
    list_append(&again, &ch->waiting);
    list_each(p, &again, struct parcel, link) {
        list_remove(&p->link);
        p->frame.flags |= FRAME_AGAIN;
        put_bytes(c, peer, &p->frame, pend_push(ch, p->hold, p));
    }
}

void channel_peer_down(struct channels *c, unsigned peer)
{
    struct channel *ch = &c->peer[peer];
    if (!ch->up)
        return;
    ch->up = false;
    for (uint64_t n = ch->base; n < ch->next; n++) {
        struct pend *p = pend_at(ch, n);
        if (p->acked)
            continue;
        if (p->kept) {
            p->kept->hold = p->hold;
            list_push_back(&ch->waiting, &p->kept->link);
        } else {
            settle_later(c, p->hold, true);
        }
    }
    ch->base = ch->next;
}

bool channel_peer_is_up(const struct channels *c, unsigned peer) { return c->peer[peer].up; }

/* ---- life ---- */

struct channels *channels_new(unsigned self, unsigned shards, const struct channel_sinks *sinks)
{
    must(self < shards);
    struct channels *c = calloc(1, sizeof *c + shards * sizeof *c->peer);
    must(c);
    c->self = self, c->shards = shards, c->sinks = *sinks;
    arena_init(&c->in), arena_init(&c->out);
    list_init(&c->local);
    for (unsigned i = 0; i < shards; i++) {
        list_init(&c->peer[i].waiting);
        c->peer[i].base = c->peer[i].next = 1;
    }
    c->peer[self].up = true;
    return c;
}

static void free_parcels(struct channels *c, struct list *l)
{
    list_each(p, l, struct parcel, link) {
        list_remove(&p->link);
        parcel_free(c, p);
    }
}

void channels_free(struct channels *c)
{
    free_parcels(c, &c->local);
    for (unsigned i = 0; i < c->shards; i++) {
        struct channel *ch = &c->peer[i];
        free_parcels(c, &ch->waiting);
        for (uint64_t n = ch->base; n < ch->next; n++)
            parcel_free(c, pend_at(ch, n)->kept);
        free(ch->pend);
        free(ch->state);
    }
    arena_close(&c->in), arena_close(&c->out);
    pool_close(&c->parcels), pool_close(&c->tickets);
    free(c->settles);
    free(c);
}

size_t channel_unacked(const struct channels *c)
{
    size_t n = 0;
    for (unsigned i = 0; i < c->shards; i++)
        n += c->peer[i].next - c->peer[i].base;
    return n;
}
