#include "node/shard/rooms.h"

#include "cluster/copy.h"
#include "cluster/peers.h"
#include "cluster/ticket.h"

void rooms_frame(struct node *n, struct edge *e, struct home *h, struct origin from,
                 const struct frame *f)
{
    switch (f->kind) {
    case FRAME_BOUND:
    case FRAME_RESUMED:
    case FRAME_FAILED:
    case FRAME_ENABLED:
    case FRAME_OUT:
    case FRAME_STATE:
    case FRAME_CLOSE: edge_frame(e, from, f); break;
    case FRAME_SNAP:
    case FRAME_MIRROR:
    case FRAME_NOTE:
        copies_frame(n->copies, f);
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
                          void (*run)(struct node *n, const struct ring_peer *p))
{
    size_t count;
    const struct ring_peer *p = ring_peers(is, &count);
    for (size_t i = 0; i < count; i++)
        if (p[i].peer != n->shard && !is_same(was, &p[i]))
            run(n, &p[i]);
}

static void peer_down(struct node *n, const struct ring_peer *p)
{
    channel_peer_down(n->channels, p->peer);
}

static void peer_up(struct node *n, const struct ring_peer *p)
{
    if (peer_block(p->peer) != 0)
        channel_peer_remote(n->channels, p->peer);
    channel_peer_up(n->channels, p->peer, (uint32_t)p->incarnation);
}

void rooms_adopt(struct node *n, struct edge *e, struct home *h, struct ring *ring)
{
    const struct ring *before = n->ring;
    if (before)
        each_new_peer(n, before, ring, peer_down);
    n->ring = ring, n->epoch = ring_epoch(ring);
    copies_adopt(n->copies, ring);
    channel_adopt(n->channels, n->epoch, STR_NONE);
    each_new_peer(n, ring, before, peer_up);
    ring_free((struct ring *)before);
}

void rooms_epoch_settled(struct node *n, struct home *h, uint64_t epoch) {}
