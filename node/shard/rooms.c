#include "node/shard/rooms.h"

#include "cluster/copy.h"
#include "cluster/peers.h"
#include "cluster/ticket.h"
#include "node/shard/obey.h"

static void run(struct node *n, struct edge *e, struct origin from, const struct frame *f)
{
    switch (f->kind) {
    case FRAME_SNAP:
    case FRAME_MIRROR:
    case FRAME_NOTE:
        copies_frame(n->copies, f);
        channel_done(n->channels, from);
        break;
    default: edge_frame(e, from, f);
    }
}

/* What answers a request that waits is obeyed whoever says it: a request that was asked again has
 * another number. What nobody waits for is of a session. */
static bool is_awaited(struct edge *e, const struct frame *f)
{
    bool answers = f->kind == FRAME_BOUND || f->kind == FRAME_RESUMED;
    return answers && (!f->sid || edge_awaits(e, f));
}

void rooms_frame(struct node *n, struct edge *e, struct home *h, struct origin from,
                 const struct frame *f)
{
    switch (f->kind) {
    case FRAME_FAILED: edge_frame(e, from, f); break;
    case FRAME_BOUND:
    case FRAME_RESUMED:
    case FRAME_ENABLED:
    case FRAME_OUT:
    case FRAME_CLOSE:
    case FRAME_STATE:
    case FRAME_SNAP:
    case FRAME_MIRROR:
    case FRAME_NOTE:
        if (!n->epoch || is_awaited(e, f) || obey(n, e, from, f))
            run(n, e, from, f);
        break;
    case FRAME_EPOCH:
        obey_epoch(n, e, from, f, run);
        channel_done(n->channels, from);
        break;
    default: home_frame(h, from, f);
    }
}

void rooms_settled(struct edge *e, struct home *h, struct hold hold, bool lost)
{
    switch (hold.owner) {
    case HOLD_EDGE_IN: edge_settled(e, hold, lost); break;
    case HOLD_MIRROR: home_settled(h, hold, lost); break;
    default: ticket_settled(hold);
    }
}

void rooms_peer_up(struct node *n, struct edge *e, struct home *h, unsigned peer,
                   uint32_t incarnation)
{
    struct frame f = {.kind = FRAME_ATTACHED};
    channel_peer_up(n->channels, peer, incarnation);
    edge_attach(e, peer);
    home_peer_up(h, peer);
    channel_send(n->channels, peer, &f, (struct hold){HOLD_NONE, 0, 0}, false);
}

void rooms_peer_down(struct node *n, struct home *h, unsigned peer)
{
    channel_peer_down(n->channels, peer);
    home_peer_down(h, peer);
}

/* ---- in a cluster ---- */

static bool is_same(const struct ring *r, const struct ring_peer *p)
{
    const struct ring_peer *other = r ? ring_peer(r, p->peer) : NULL;
    return other && other->incarnation == p->incarnation;
}

/* Peers of `is` that are not in `was` as they are. */
static void each_new_peer(struct node *n, const struct ring *is, const struct ring *was,
                          void (*each)(struct node *n, const struct ring_peer *p))
{
    size_t count;
    const struct ring_peer *p = ring_peers(is, &count);
    for (size_t i = 0; i < count; i++)
        if (p[i].peer != n->shard && !is_same(was, &p[i]))
            each(n, &p[i]);
}

static void peer_down(struct node *n, const struct ring_peer *p)
{
    channel_peer_down(n->channels, p->peer);
    obey_peer_down(n, p->peer);
}

static void peer_up(struct node *n, const struct ring_peer *p)
{
    if (peer_block(p->peer) != 0)
        channel_peer_remote(n->channels, p->peer);
    channel_peer_up(n->channels, p->peer, (uint32_t)p->incarnation);
}

/* ---- what was sent to a former home goes to the new one ---- */

struct moving {
    struct node *node;
    struct edge *edge;
    const struct ring *before;
};

/* Does what was sent to that peer for this slot go to another now? It may be the same one, which
 * was not it in between. The own shard knows what it was. */
static bool goes(const struct moving *m, unsigned peer, unsigned slot)
{
    const struct ring *ring = m->node->ring;
    if (!m->before || ring_home_of_slot(m->before, slot) != peer)
        return false;
    return peer == m->node->shard ? ring_changed(ring, slot) : ring_moved(ring, slot);
}

static bool goes_for(const struct moving *m, unsigned peer, str jid)
{
    return goes(m, peer, ring_slot(m->node->ring, jid_parse_prepared(jid).bare));
}

static enum channel_fate fate_of_route(const struct moving *m, unsigned peer, const struct frame *f)
{
    size_t n = 0;
    if (!f->recipient_count)
        return goes_for(m, peer, stanza_to(f->stanza)) ? CHANNEL_GOES : CHANNEL_STAYS;
    for (size_t i = 0; i < f->recipient_count; i++)
        n += goes_for(m, peer, f->recipients[i]);
    return n == f->recipient_count ? CHANNEL_GOES : n ? CHANNEL_PARTS : CHANNEL_STAYS;
}

static enum channel_fate fate_of(void *ctx, unsigned peer, const struct frame *f)
{
    const struct moving *m = ctx;
    switch (f->kind) {
    case FRAME_ROUTE: return fate_of_route(m, peer, f);
    case FRAME_BIND:
    case FRAME_RESUME: return goes_for(m, peer, f->bare) ? CHANNEL_GOES : CHANNEL_STAYS;
    default: return goes(m, peer, (unsigned)(f->sid >> 50)) ? CHANNEL_GOES : CHANNEL_STAYS;
    }
}

/* One frame for those of its recipients that have this home; the others are struck out. */
static void send_piece(const struct moving *m, const struct frame *f, str *to, size_t n,
                       struct hold h)
{
    struct node *node = m->node;
    unsigned home = ring_home(node->ring, jid_parse_prepared(to[0]).bare);
    struct frame piece = *f;
    str *recipients = arena_alloc(node->turn, n * sizeof *recipients);
    piece.recipients = recipients, piece.recipient_count = 0;
    for (size_t i = 0; i < n; i++)
        if (to[i].n && ring_home(node->ring, jid_parse_prepared(to[i]).bare) == home)
            recipients[piece.recipient_count++] = to[i], to[i].n = 0;
    channel_send(node->channels, home, &piece, h, true);
}

static void route_again(const struct moving *m, unsigned peer, const struct frame *f, struct hold h,
                        enum channel_fate fate)
{
    str *to = arena_alloc(m->node->turn, (f->recipient_count + 1) * sizeof *to);
    bool shared = fate == CHANNEL_PARTS; /* the first one's effect is that of the frame itself */
    size_t n = 0;
    for (size_t i = 0; i < f->recipient_count; i++)
        if (goes_for(m, peer, f->recipients[i]))
            to[n++] = f->recipients[i];
    for (size_t i = 0; i < n; i++) {
        if (!to[i].n)
            continue;
        if (shared)
            ticket_hold_more(h);
        shared = true;
        send_piece(m, f, to + i, n - i, h);
    }
}

static void send_again(void *ctx, unsigned peer, const struct frame *f, struct hold h,
                       enum channel_fate fate)
{
    const struct moving *m = ctx;
    struct node *n = m->node;
    struct frame again = *f;
    unsigned slot = (unsigned)(f->sid >> 50);
    if (f->kind == FRAME_ROUTE && f->recipient_count) {
        route_again(m, peer, f, h, fate);
        return;
    }
    if (f->kind == FRAME_ROUTE)
        slot = ring_slot(n->ring, jid_parse_prepared(stanza_to(f->stanza)).bare);
    if (f->kind == FRAME_BIND || f->kind == FRAME_RESUME) {
        if (!edge_asks_again(m->edge, &again))
            return;
        slot = ring_slot(n->ring, f->bare);
    }
    channel_send(n->channels, ring_home_of_slot(n->ring, slot), &again, h, true);
}

/* ---- adopting ---- */

/* Of this shard's slots those that are others' now, a bit each. */
static str lost_slots(const struct node *n, const struct ring *before, const struct ring *ring)
{
    char *bits = arena_zalloc(n->turn, RING_SLOTS / 8);
    bool any = false;
    for (unsigned slot = 0; before && slot < RING_SLOTS; slot++)
        if (ring_home_of_slot(before, slot) == n->shard &&
            ring_home_of_slot(ring, slot) != n->shard)
            bits[slot / 8] |= (char)(1 << slot % 8), any = true;
    return str_from(bits, any ? RING_SLOTS / 8 : 0);
}

static void tell_home_of_the_dead(struct node *n, struct home *h, const struct ring *before)
{
    size_t count;
    const struct ring_peer *p = ring_peers(before, &count);
    for (size_t i = 0; i < count; i++)
        if (p[i].peer != n->shard && !is_same(n->ring, &p[i]))
            home_peer_down(h, p[i].peer);
}

/* The order is that of the design: what the dead were sent is taken back before anybody of the same
 * number comes up; and what is offered goes to homes that are up. */
void rooms_adopt(struct node *n, struct edge *e, struct home *h, struct ring *ring)
{
    const struct ring *before = n->ring;
    struct moving moving = {n, e, before};
    str lost = lost_slots(n, before, ring);
    if (before)
        each_new_peer(n, before, ring, peer_down);
    n->ring = ring, n->epoch = ring_epoch(ring);
    copies_adopt(n->copies, ring);
    channel_adopt(n->channels, n->epoch, lost);
    channel_take_back(n->channels, fate_of, send_again, &moving);
    each_new_peer(n, ring, before, peer_up);
    home_adopt(h);
    if (before)
        tell_home_of_the_dead(n, h, before);
    edge_attach_moved(e);
    home_has_attached(h);
    ring_free((struct ring *)before);
}

void rooms_epoch_settled(struct node *n, struct home *h, uint64_t epoch)
{
    if (epoch == n->epoch)
        home_epoch_settled(h, epoch);
}
