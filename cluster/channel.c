/* The numbers, the acks, the own shard's queue, and sending again on a path that broke.
 *
 * What was sent and is not acked, and what came and is not done, are windows of numbers that stay
 * sparse behind a frame that is open for long (unacked.h, arrived.h). A parcel is a frame in memory
 * of its own (parcel.h); of a remote peer `theirs` is how far it has received, as its acks say. A
 * shared-memory path cannot break between two live ends, so only remote peers pay for that.
 *
 * The own shard needs no numbers in order: a frame to it is acked by the place of its hold.
 *
 * A stanza for many recipients crosses to a shard of this node once: the frames that follow say
 * FRAME_SAME, and all who hold it there share one block. Both ends remember the last one that
 * went, or came, by the same rule.
 *
 * Of a remote peer, what comes twice is dropped, and behind a gap everything is, until it was sent
 * again: an ack with FRAME_AGAIN asks for it, once per gap. */
#include "cluster/channel_impl.h"

enum { SHARED_MAX = 4096 }; /* a block that is larger is not remembered */

struct pool *channel_tickets(struct channels *c) { return &c->tickets; }

/* ---- the table of peers ---- */

static struct channel *channel_new(unsigned peer)
{
    struct channel *ch = calloc(1, sizeof *ch);
    must(ch);
    ch->peer = peer;
    list_init(&ch->due), list_init(&ch->waiting);
    list_init(&ch->ahead), list_init(&ch->acks);
    unacked_begin(&ch->sent), arrived_begin(&ch->in);
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
    if (!c->settle_count)
        c->sinks.wake(c->sinks.ctx);
    c->settles[c->settle_count++] = (struct settle){h, lost};
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

/* ---- the own shard ---- */

static void own_grow(struct channels *c)
{
    c->own_cap = c->own_cap ? 2 * c->own_cap : 64;
    c->own_n = c->own_n ? c->own_n : OWN_NOBODY + 1;
    c->own = realloc(c->own, c->own_cap * sizeof *c->own);
    must(c->own);
}

static uint64_t own_open(struct channels *c, struct hold h, bool keep)
{
    c->own_open++;
    if (h.owner == HOLD_NONE && !keep)
        return OWN_NOBODY;
    size_t at = c->own_free;
    if (at) {
        c->own_free = c->own[at].hold.a;
    } else {
        if (c->own_n == c->own_cap)
            own_grow(c);
        at = c->own_n++;
    }
    c->own[at] = (struct own){.hold = h, .open = true};
    return at;
}

static void own_done(struct channels *c, uint64_t number)
{
    must(c->own_open);
    c->own_open--;
    if (number == OWN_NOBODY)
        return;
    must(number < c->own_n && c->own[number].open);
    settle_later(c, c->own[number].hold, false);
    struct parcel *kept = c->own[number].kept;
    if (kept)
        list_remove(&kept->link);
    if (kept != c->current)
        parcel_free(&c->parcels, kept);
    c->own[number] = (struct own){.hold.a = c->own_free};
    c->own_free = number;
}

static void own_send(struct channels *c, const struct frame *f, struct hold h, bool keep)
{
    struct parcel *p = parcel_new(&c->parcels, f);
    p->keep = keep && c->epoch;
    p->number = own_open(c, h, p->keep);
    if (list_empty(&c->local))
        c->sinks.wake(c->sinks.ctx);
    list_push_back(&c->local, &p->link);
}

/* ---- outgoing ---- */

static uint64_t push(struct channel *ch, struct hold h, struct parcel *kept, bool keep)
{
    struct pend p = {.owner = h.owner, .keep = keep, .a = h.a, .b = h.b, .kept = kept};
    return unacked_push(&ch->sent, p);
}

static struct hold hold_of(const struct pend *p) { return (struct hold){p->owner, p->a, p->b}; }

static void ack_range(struct channels *c, struct channel *ch, uint64_t first, uint64_t last)
{
    struct pend *p;
    for (uint64_t n = first; (p = unacked_next(&ch->sent, &n)) && n <= last; n++) {
        parcel_free(&c->parcels, p->kept);
        p->kept = NULL;
        settle_later(c, hold_of(p), false);
        unacked_ack(&ch->sent, n, p);
    }
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
    char head[FRAME_PLAIN];
    bool later = f->flags & FRAME_LATER;
    if (f->stanza && f->stanza == ch->went) {
        same = *f;
        same.stanza = NULL, same.flags |= FRAME_SAME;
        f = &same;
    } else if (f->stanza && !ch->remote) {
        remember(&ch->went, f->stanza);
    }
    if (!ch->remote && frame_is_plain(f)) {
        c->sinks.send(c->sinks.ctx, ch->peer, v, frame_encode_plain(f, number, head, v), later);
        return;
    }
    c->sinks.send(c->sinks.ctx, ch->peer, v, frame_encode(f, number, &c->out, v), later);
    arena_reset(&c->out);
}

static void put_parcel(struct channels *c, struct channel *ch, const struct parcel *p,
                       uint64_t number)
{
    struct frame scratch = {.kind = FRAME_NONE};
    put_bytes(c, ch, parcel_frame(p, &scratch), number);
}

/* What the peer has received need not be sent to it again; what is kept for its successor is. */
static void received_upto(struct channels *c, struct channel *ch, uint64_t upto)
{
    struct pend *p;
    if (upto >= ch->sent.next)
        upto = ch->sent.next - 1;
    for (uint64_t n = ch->theirs + 1; (p = unacked_next(&ch->sent, &n)) && n <= upto; n++) {
        if (p->keep)
            continue;
        parcel_free(&c->parcels, p->kept);
        p->kept = NULL;
    }
    if (upto > ch->theirs)
        ch->theirs = upto;
}

static void send_rest_again(struct channels *c, struct channel *ch)
{
    const struct pend *p;
    if (!has_path(ch))
        return;
    for (uint64_t n = ch->theirs + 1; (p = unacked_next(&ch->sent, &n)); n++)
        if (p->kept)
            put_parcel(c, ch, p->kept, n), c->resent++;
}

void channel_send(struct channels *c, unsigned peer, const struct frame *f, struct hold h,
                  bool keep)
{
    struct channel *ch = channel_of(c, peer);
    if (peer == c->self) {
        own_send(c, f, h, keep);
    } else if (ch->up && !ch->remote) {
        struct parcel *kept = keep ? parcel_new(&c->parcels, f) : NULL;
        put_bytes(c, ch, f, push(ch, h, kept, keep));
    } else if (ch->up) {
        uint64_t number = push(ch, h, parcel_new(&c->parcels, f), keep);
        if (ch->path)
            put_bytes(c, ch, f, number);
    } else if (keep) {
        struct parcel *p = parcel_new(&c->parcels, f);
        p->hold = h;
        list_push_back(&ch->waiting, &p->link);
    } else {
        settle_later(c, h, true);
    }
}

/* ---- incoming ---- */

static bool is_patient(const struct frame *f) { return f->flags & FRAME_PATIENT; }

static void ack_later(struct channels *c, struct channel *ch, bool soon)
{
    ch->ack_soon |= soon;
    if (ch->ack_due)
        return;
    list_push_back(&c->due, &ch->due);
    ch->ack_due = true;
    c->sinks.wake(c->sinks.ctx);
}

void channel_done(struct channels *c, struct origin o)
{
    must(o.peer < c->count && c->peer[o.peer]);
    struct channel *ch = c->peer[o.peer];
    if (o.peer == c->self) {
        own_done(c, o.number);
        return;
    }
    if (!ch->up || o.incarnation != ch->incarnation)
        return; /* who asked is dead */
    arrived_done(&ch->in, o.number);
    ack_later(c, ch, !o.patient);
}

static void receive_ack(struct channels *c, struct channel *ch, const struct frame *f,
                        uint64_t received)
{
    ack_range(c, ch, 0, f->ack_upto);
    for (size_t i = 0; i + 1 < f->ack_range_count; i += 2) {
        uint64_t last = f->ack_ranges[i + 1];
        last = last < ch->sent.next ? last : ch->sent.next - 1;
        ack_range(c, ch, f->ack_ranges[i], last);
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
    arrived_push(&ch->in);
    ch->asked = false;
    if (f->kind == FRAME_EPOCH)
        ch->epoch = f->ms;
    if (ch->remote)
        ack_later(c, ch, true);
    struct origin from = {ch->peer, ch->incarnation, ch->in.received, is_patient(f)};
    c->sinks.frame(c->sinks.ctx, from, f);
}

/* Told from a path that broke, or by no peer of ours. */
err channel_other(struct channels *c, struct channel *ch, uint64_t number)
{
    bool beyond = number > channel_due(ch);
    if (!ch->remote || number == 0)
        return ERR_BAD;
    if (!beyond || !ch->asked)
        ack_later(c, ch, true);
    if (beyond && !ch->asked)
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

err channel_take(struct channels *c, struct channel *ch, struct frame *f, uint64_t number)
{
    if (take_stanza(ch, f) != ERR_OK)
        return ERR_BAD;
    if (f->kind == FRAME_ACK)
        receive_ack(c, ch, f, number);
    else if (number == ch->in.received + 1)
        receive_new(c, ch, f);
    else
        return channel_other(c, ch, number);
    return ERR_OK;
}

err channel_receive(struct channels *c, unsigned peer, str bytes)
{
    must(peer < c->count && c->peer[peer] && peer != c->self);
    struct channel *ch = c->peer[peer];
    struct frame f;
    uint64_t number;
    err e = frame_decode(bytes.p, bytes.n, &c->in, &f, &number);
    if (e == ERR_OK) {
        e = channel_is_ahead(c, ch, &f) ? channel_wait(c, ch, &f, number, bytes)
                                        : channel_take(c, ch, &f, number);
        stanza_unref(f.stanza);
    }
    arena_reset(&c->in);
    return e;
}

/* ---- acks out ---- */

static void send_ack(struct channels *c, struct channel *ch)
{
    uint64_t *ranges = arena_alloc(&c->out, FRAME_ACK_RANGES * sizeof *ranges);
    struct frame f = {.kind = FRAME_ACK, .ack_ranges = ranges, .ms = c->epoch};
    f.ack_range_count = arrived_tell(&ch->in, ranges, FRAME_ACK_RANGES);
    f.ack_upto = ch->in.upto;
    f.flags = (ch->ask ? FRAME_AGAIN : 0) | (ch->ack_soon ? 0 : FRAME_LATER);
    ch->ask = ch->ack_soon = false;
    put_bytes(c, ch, &f, ch->remote ? ch->in.received : 0);
    arena_reset(&c->out);
    if (arrived_has_more(&ch->in)) /* more than one frame holds */
        ack_later(c, ch, true);
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

static void run_parcel(struct channels *c, struct frame *scratch)
{
    struct parcel *p = list_first(&c->local, struct parcel, link);
    list_remove(&p->link);
    const struct frame *f = parcel_frame(p, scratch);
    struct origin from = {c->self, 0, p->number, is_patient(f)};
    if (p->keep) {
        list_push_back(&c->running, &p->link);
        c->own[p->number].kept = c->current = p;
    }
    c->sinks.frame(c->sinks.ctx, from, f);
    c->current = NULL;
    if (list_empty(&p->link)) /* done already, or never to be taken back */
        parcel_free(&c->parcels, p);
}

bool channel_run(struct channels *c)
{
    struct frame scratch = {.kind = FRAME_NONE};
    bool ran = false;
    if (c->catching_up)
        channel_catch_up(c);
    while (run_settles(c) || !list_empty(&c->local)) {
        ran = true;
        if (!list_empty(&c->local))
            run_parcel(c, &scratch);
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
    unacked_begin(&ch->sent), arrived_begin(&ch->in);
    ch->theirs = ch->epoch = 0;
    ch->path = ch->ask = ch->asked = ch->ack_due = ch->ack_soon = false;
    remember(&ch->went, NULL), remember(&ch->came, NULL);
    list_remove(&ch->due);
    if (c->epoch)
        channel_say_epoch(c, ch, STR_NONE);
    struct list again;
    list_init(&again);
    list_append(&again, &ch->waiting);
    list_each(p, &again, struct parcel, link) {
        list_remove(&p->link);
        parcel_mark_again(p);
        c->resent++;
        uint64_t number = push(ch, p->hold, p, true);
        if (has_path(ch))
            put_parcel(c, ch, p, number);
    }
}

void channel_peer_down(struct channels *c, unsigned peer)
{
    struct channel *ch = channel_of(c, peer);
    if (!ch->up)
        return;
    ch->up = false;
    channel_forget_ahead(ch);
    const struct pend *p;
    for (uint64_t n = 0; (p = unacked_next(&ch->sent, &n)); n++) {
        if (p->keep) {
            p->kept->hold = hold_of(p);
            list_push_back(&ch->waiting, &p->kept->link);
        } else {
            parcel_free(&c->parcels, p->kept);
            settle_later(c, hold_of(p), true);
        }
    }
    unacked_begin(&ch->sent);
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
    arrived_tell_again(&ch->in);
    ch->ask = ch->asked;
    ack_later(c, ch, true);
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

void channel_missed(struct channels *c, unsigned peer)
{
    struct channel *ch = channel_of(c, peer);
    must(ch->remote);
    if (!ch->up)
        return;
    ch->ask = ch->asked = true;
    ack_later(c, ch, true);
}

uint64_t channel_received(const struct channels *c, unsigned peer)
{
    return channel_peer_is_up(c, peer) ? c->peer[peer]->in.received : 0;
}

/* ---- life ---- */

struct channels *channels_new(unsigned self, unsigned shards, const struct channel_sinks *sinks)
{
    must(self < shards);
    struct channels *c = calloc(1, sizeof *c);
    must(c);
    c->self = self, c->sinks = *sinks;
    arena_init(&c->in), arena_init(&c->out);
    list_init(&c->local), list_init(&c->running), list_init(&c->due);
    for (unsigned i = 0; i < shards; i++)
        (void)channel_of(c, i);
    c->peer[self]->up = true;
    return c;
}

static void free_parcels(struct channels *c, struct list *l)
{
    list_each(p, l, struct parcel, link) {
        list_remove(&p->link);
        parcel_free(&c->parcels, p);
    }
}

static void channel_free(struct channels *c, struct channel *ch)
{
    free_parcels(c, &ch->waiting);
    channel_forget_ahead(ch);
    remember(&ch->went, NULL), remember(&ch->came, NULL);
    const struct pend *p;
    for (uint64_t n = 0; (p = unacked_next(&ch->sent, &n)); n++)
        parcel_free(&c->parcels, p->kept);
    unacked_close(&ch->sent), arrived_close(&ch->in);
    free(ch);
}

void channels_free(struct channels *c)
{
    free_parcels(c, &c->local);
    free_parcels(c, &c->running);
    for (unsigned i = 0; i < c->count; i++)
        if (c->peer[i])
            channel_free(c, c->peer[i]);
    free(c->peer);
    arena_close(&c->in), arena_close(&c->out);
    pool_close(&c->parcels), pool_close(&c->tickets);
    free(c->settles);
    free(c->own);
    free(c);
}

size_t channel_bytes(const struct channels *c)
{
    size_t n = c->own_cap * sizeof *c->own + c->settle_cap * sizeof *c->settles;
    for (unsigned i = 0; i < c->count; i++)
        if (c->peer[i])
            n += sizeof *c->peer[i] + unacked_bytes(&c->peer[i]->sent);
    return n;
}

uint64_t channel_resent(const struct channels *c) { return c->resent; }

size_t channel_unacked(const struct channels *c)
{
    size_t n = c->own_open;
    for (unsigned i = 0; i < c->count; i++)
        n += c->peer[i] ? unacked_count(&c->peer[i]->sent) : 0;
    return n;
}
