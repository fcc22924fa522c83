#include "node/shard/rooms.h"

#include "cluster/copy.h"
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
