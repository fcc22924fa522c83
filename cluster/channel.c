/* The numbers, the acks, the own shard's queue, and sending again on a path that broke.
 *
 *   out: base ......... next      frames given a number and not yet acked: a circular array of
 *        [pend][pend][pend]       pends; the front is dropped while it is acked
 *   in:  done_upto .... received  one byte per frame that is received and not in done_upto:
 *        [byte][byte]             OPEN, DONE (to be told), TOLD
 *
 * A parcel is a frame with its strings and a reference to its stanza in memory of its own: what
 * waits in the own shard's queue, what is kept for a peer that may die, and what a remote peer has
 * not received yet: `theirs` is how far it has, as its acks say. A shared-memory path cannot break
 * between two live ends, so only remote peers pay for that.
 *
 * A stanza for many recipients crosses to a shard of this node once: the frames that follow say
 * FRAME_SAME, and all who hold it there share one block. Both ends remember the last one that
 * went, or came, by the same rule.
 *
 * Of a remote peer, what comes twice is dropped, and behind a gap everything is, until it was sent
 * again: an ack with FRAME_AGAIN asks for it, once per gap. */
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
    struct parcel *kept; /* NULL: not kept, and nothing that could have to be sent again */
    bool keep, acked;
};

enum { IN_OPEN, IN_DONE, IN_TOLD };
enum { SHARED_MAX = 4096 }; /* a block that is larger is not remembered */

struct channel {
    unsigned peer;
    struct list due; /* while ack_due */
    bool up;
    bool remote;
    bool path;       /* remote: our way to it; what is sent while it is down goes when it is up */
    bool ask, asked; /* remote: that the peer sends again from received + 1; to be, was */
    uint32_t incarnation;
    /* out */
    struct pend *pend;
    uint64_t base, next; /* numbers: base is the oldest un-acked, next the one to give */
    uint64_t theirs;     /* remote: all up to it has been received */
    size_t pend_mask;
    struct list waiting; /* parcels for a peer that is down */
    struct stanza *went; /* the last; NULL: none since it is up */
    /* in */
    struct stanza *came;
    uint8_t *state;
    size_t state_mask;
    uint64_t done_upto, received;
    bool ack_due;
    uint64_t due_first, due_last; /* among these are all that are DONE; none if first > last */
};

struct settle {
    struct hold hold;
    bool lost;
};

struct channels {
    unsigned self, count;
    struct arena in, out; /* of the frame being received, of the one being encoded: hundreds in a
                           * turn go through memory that stays in the cache */
    struct channel_sinks sinks;
    struct pool parcels, tickets;
    struct list local; /* parcels for the own shard, in order; hold.a is the number */
    struct settle *settles;
    size_t settle_count, settle_cap, settle_at;
    struct list due; /* channels with an ack to send */
    struct channel **peer;
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

/* ---- the table of peers ---- */

static struct channel *channel_new(unsigned peer)
{
    struct channel *ch = calloc(1, sizeof *ch);
    must(ch);
    ch->peer = peer;
    list_init(&ch->due), list_init(&ch->waiting);
    ch->base = ch->next = ch->due_first = 1;
    return ch;
}

static __attribute__((noinline)) struct channel *channel_make(struct channels *c, unsigned peer)
{
    must(peer < CHANNEL_PEERS_MAX);
    if (peer >= c->count) {
        unsigned count = c->count;
        for (c->count = count ? count : 1; c->count <= peer;)
            c->count *= 2;
        c->peer = realloc(c->peer, c->count * sizeof(struct channel *));
        must(c->peer);
        memset(c->peer + count, 0, (c->count - count) * sizeof(struct channel *));
    }
    if (!c->peer[peer])
        c->peer[peer] = channel_new(peer);
    return c->peer[peer];
}

static struct channel *channel_of(struct channels *c, unsigned peer)
{
    if (peer < c->count && c->peer[peer])
        return c->peer[peer];
    return channel_make(c, peer);
}

static bool has_path(const struct channel *ch) { return ch->up && (!ch->remote || ch->path); }

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

static uint64_t pend_push(struct channel *ch, struct hold h, struct parcel *kept, bool keep)
{
    if (!ch->pend || ch->next - ch->base > ch->pend_mask)
        pend_grow(ch);
    *pend_at(ch, ch->next) = (struct pend){h, kept, keep, false};
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

static void remember(struct stanza **last, struct stanza *s)
{
    if (s && s->size > SHARED_MAX)
        return;
    stanza_unref(*last);
    *last = s ? stanza_ref(s) : NULL;
}

static void put_bytes(struct channels *c, struct channel *ch, const struct frame *f,
                      uint64_t number)
{
    struct iovec v[FRAME_PARTS];
    struct frame same;
    if (f->stanza && f->stanza == ch->went) {
        same = *f;
        same.stanza = NULL, same.flags |= FRAME_SAME;
        f = &same;
    } else if (f->stanza && !ch->remote) {
        remember(&ch->went, f->stanza);
    }
    size_t n = frame_encode(f, number, &c->out, v);
    c->sinks.send(c->sinks.ctx, ch->peer, v, n);
    arena_reset(&c->out);
}

/* What the peer has received need not be sent to it again; what is kept for its successor is. */
static void received_upto(struct channels *c, struct channel *ch, uint64_t upto)
{
    if (upto >= ch->next)
        upto = ch->next - 1;
    for (uint64_t n = ch->theirs + 1 > ch->base ? ch->theirs + 1 : ch->base; n <= upto; n++) {
        struct pend *p = pend_at(ch, n);
        if (p->keep)
            continue;
        parcel_free(c, p->kept);
        p->kept = NULL;
    }
    if (upto > ch->theirs)
        ch->theirs = upto;
}

static void send_rest_again(struct channels *c, struct channel *ch)
{
    if (!has_path(ch))
        return;
    for (uint64_t n = ch->theirs + 1 > ch->base ? ch->theirs + 1 : ch->base; n < ch->next; n++) {
        struct pend *p = pend_at(ch, n);
        if (p->kept)
            put_bytes(c, ch, &p->kept->frame, n);
    }
}

void channel_send(struct channels *c, unsigned peer, const struct frame *f, struct hold h,
                  bool keep)
{
    struct channel *ch = channel_of(c, peer);
    if (peer == c->self) {
        struct parcel *p = parcel_new(c, f);
        p->hold.a = pend_push(ch, h, NULL, false);
        list_push_back(&c->local, &p->link);
        c->sinks.wake(c->sinks.ctx);
    } else if (ch->up && !ch->remote) {
        put_bytes(c, ch, f, pend_push(ch, h, keep ? parcel_new(c, f) : NULL, keep));
    } else if (ch->up) {
        uint64_t number = pend_push(ch, h, parcel_new(c, f), keep);
        if (ch->path)
            put_bytes(c, ch, f, number);
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

static void ack_later(struct channels *c, struct channel *ch)
{
    if (!ch->ack_due)
        list_push_back(&c->due, &ch->due);
    ch->ack_due = true;
    c->sinks.wake(c->sinks.ctx);
}

void channel_done(struct channels *c, struct origin o)
{
    must(o.peer < c->count && c->peer[o.peer]);
    struct channel *ch = c->peer[o.peer];
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
    bool none = ch->due_first > ch->due_last;
    if (none || o.number < ch->due_first)
        ch->due_first = o.number;
    if (none || o.number > ch->due_last)
        ch->due_last = o.number;
    ack_later(c, ch);
}

static void receive_ack(struct channels *c, struct channel *ch, const struct frame *f,
                        uint64_t received)
{
    for (uint64_t n = ch->base; n <= f->ack_upto && n < ch->next; n++)
        pend_ack(c, ch, n);
    for (size_t i = 0; i + 1 < f->ack_range_count; i += 2) {
        uint64_t last = f->ack_ranges[i + 1] < ch->next ? f->ack_ranges[i + 1] : ch->next - 1;
        for (uint64_t n = f->ack_ranges[i] > ch->base ? f->ack_ranges[i] : ch->base; n <= last; n++)
            pend_ack(c, ch, n);
        received = last > received ? last : received;
    }
    if (!ch->remote)
        return;
    received_upto(c, ch, f->ack_upto > received ? f->ack_upto : received);
    if (f->flags & FRAME_AGAIN)
        send_rest_again(c, ch);
}

static void receive_new(struct channels *c, struct channel *ch, const struct frame *f)
{
    state_push(ch);
    ch->asked = false;
    if (ch->remote)
        ack_later(c, ch);
    c->sinks.frame(c->sinks.ctx, (struct origin){ch->peer, ch->incarnation, ch->received}, f);
}

/* Not the number that is due: told from a path that broke, or no peer of ours. */
static err receive_other(struct channels *c, struct channel *ch, uint64_t number)
{
    if (!ch->remote || number == 0)
        return ERR_BAD;
    if (number <= ch->received || !ch->asked)
        ack_later(c, ch);
    if (number > ch->received && !ch->asked)
        ch->asked = ch->ask = true;
    return ERR_OK;
}

/* f's stanza, which may be the one that came before. */
static err take_stanza(struct channel *ch, struct frame *f)
{
    if (!(f->flags & FRAME_SAME)) {
        if (f->stanza && !ch->remote)
            remember(&ch->came, f->stanza);
        return ERR_OK;
    }
    if (f->stanza || !ch->came)
        return ERR_BAD;
    f->stanza = stanza_ref(ch->came);
    f->flags &= ~(uint32_t)FRAME_SAME;
    return ERR_OK;
}

static err receive(struct channels *c, struct channel *ch, struct frame *f, uint64_t number)
{
    if (take_stanza(ch, f) != ERR_OK)
        return ERR_BAD;
    if (f->kind == FRAME_ACK)
        receive_ack(c, ch, f, number);
    else if (number == ch->received + 1)
        receive_new(c, ch, f);
    else
        return receive_other(c, ch, number);
    return ERR_OK;
}

err channel_receive(struct channels *c, unsigned peer, str bytes)
{
    must(peer < c->count && c->peer[peer] && peer != c->self);
    struct frame f;
    uint64_t number;
    err e = frame_decode(bytes.p, bytes.n, &c->in, &f, &number);
    if (e == ERR_OK) {
        e = receive(c, c->peer[peer], &f, number);
        stanza_unref(f.stanza);
    }
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
    return n;
}

static void send_ack(struct channels *c, struct channel *ch)
{
    while (ch->done_upto < ch->received && *state_at(ch, ch->done_upto + 1) != IN_OPEN)
        ch->done_upto++;
    uint64_t *ranges = arena_alloc(&c->out, FRAME_ACK_RANGES * sizeof *ranges);
    struct frame f = {.kind = FRAME_ACK, .ack_upto = ch->done_upto, .ack_ranges = ranges};
    f.ack_range_count = ranges_of(ch, ranges);
    f.flags = ch->ask ? FRAME_AGAIN : 0;
    ch->ask = false;
    put_bytes(c, ch, &f, ch->remote ? ch->received : 0);
    if (ch->due_first <= ch->due_last) /* more than one frame holds */
        ack_later(c, ch);
}

void channel_flush(struct channels *c)
{
    struct list now;
    list_init(&now);
    list_append(&now, &c->due);
    list_each(ch, &now, struct channel, due) {
        list_remove(&ch->due);
        ch->ack_due = false;
        if (has_path(ch)) /* else all is told when there is one */
            send_ack(c, ch);
    }
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
    must(peer != c->self);
    struct channel *ch = channel_of(c, peer);
    if (ch->up)
        channel_peer_down(c, peer);
    ch->up = true;
    ch->incarnation = incarnation;
    ch->base = ch->next = ch->due_first = 1;
    ch->theirs = ch->done_upto = ch->received = ch->due_last = 0;
    ch->path = ch->ask = ch->asked = ch->ack_due = false;
    remember(&ch->went, NULL), remember(&ch->came, NULL);
    list_remove(&ch->due);
    struct list again;
    list_init(&again);
    list_append(&again, &ch->waiting);
    list_each(p, &again, struct parcel, link) {
        list_remove(&p->link);
        p->frame.flags |= FRAME_AGAIN;
        uint64_t number = pend_push(ch, p->hold, p, true);
        if (has_path(ch))
            put_bytes(c, ch, &p->frame, number);
    }
}

void channel_peer_down(struct channels *c, unsigned peer)
{
    struct channel *ch = channel_of(c, peer);
    if (!ch->up)
        return;
    ch->up = false;
    for (uint64_t n = ch->base; n < ch->next; n++) {
        struct pend *p = pend_at(ch, n);
        if (p->acked)
            continue;
        if (p->keep) {
            p->kept->hold = p->hold;
            list_push_back(&ch->waiting, &p->kept->link);
        } else {
            parcel_free(c, p->kept);
            settle_later(c, p->hold, true);
        }
    }
    ch->base = ch->next;
}

bool channel_peer_is_up(const struct channels *c, unsigned peer)
{
    return peer < c->count && c->peer[peer] && c->peer[peer]->up;
}

/* ---- paths ---- */

void channel_peer_remote(struct channels *c, unsigned peer)
{
    struct channel *ch = channel_of(c, peer);
    must(peer != c->self && !ch->up);
    ch->remote = true;
}

/* Acks went the same way: what was told may not have come. */
static void tell_again(struct channels *c, struct channel *ch)
{
    for (uint64_t n = ch->done_upto + 1; n <= ch->received; n++)
        if (*state_at(ch, n) == IN_TOLD)
            *state_at(ch, n) = IN_DONE;
    ch->due_first = ch->done_upto + 1, ch->due_last = ch->received;
    ch->ask = ch->asked;
    ack_later(c, ch);
}

void channel_path_up(struct channels *c, unsigned peer, uint32_t incarnation, uint64_t received)
{
    struct channel *ch = channel_of(c, peer);
    must(ch->remote);
    if (!ch->up || ch->incarnation != incarnation)
        return;
    ch->path = true;
    received_upto(c, ch, received);
    send_rest_again(c, ch);
    tell_again(c, ch);
}

void channel_path_down(struct channels *c, unsigned peer) { channel_of(c, peer)->path = false; }

uint64_t channel_received(const struct channels *c, unsigned peer)
{
    return channel_peer_is_up(c, peer) ? c->peer[peer]->received : 0;
}

/* ---- life ---- */

struct channels *channels_new(unsigned self, unsigned shards, const struct channel_sinks *sinks)
{
    must(self < shards);
    struct channels *c = calloc(1, sizeof *c);
    must(c);
    c->self = self, c->sinks = *sinks;
    arena_init(&c->in), arena_init(&c->out);
    list_init(&c->local), list_init(&c->due);
    for (unsigned i = 0; i < shards; i++)
        (void)channel_of(c, i);
    c->peer[self]->up = true;
    return c;
}

static void free_parcels(struct channels *c, struct list *l)
{
    list_each(p, l, struct parcel, link) {
        list_remove(&p->link);
        parcel_free(c, p);
    }
}

static void channel_free(struct channels *c, struct channel *ch)
{
    free_parcels(c, &ch->waiting);
    remember(&ch->went, NULL), remember(&ch->came, NULL);
    for (uint64_t n = ch->base; n < ch->next; n++)
        parcel_free(c, pend_at(ch, n)->kept);
    free(ch->pend);
    free(ch->state);
    free(ch);
}

void channels_free(struct channels *c)
{
    free_parcels(c, &c->local);
    for (unsigned i = 0; i < c->count; i++)
        if (c->peer[i])
            channel_free(c, c->peer[i]);
    free(c->peer);
    arena_close(&c->in), arena_close(&c->out);
    pool_close(&c->parcels), pool_close(&c->tickets);
    free(c->settles);
    free(c);
}

size_t channel_unacked(const struct channels *c)
{
    size_t n = 0;
    for (unsigned i = 0; i < c->count; i++)
        n += c->peer[i] ? c->peer[i]->next - c->peer[i]->base : 0;
    return n;
}
