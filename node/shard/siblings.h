/* siblings: the fifos to the other shards of this node, in step with the views of a cluster.
 *
 * A fifo comes and goes with its process, a channel with the view: either may be first. Numbers of
 * a channel within a node are never sent again, so nothing may be lost between the two: what the
 * channel has for a sibling whose fifo is not there yet waits for the fifo, and what comes from one
 * that the view does not have yet waits for the view. Both are a matter of milliseconds; what waits
 * for a process that has died is dropped. */
#ifndef PEMBERLEY_SHARD_SIBLINGS_H
#define PEMBERLEY_SHARD_SIBLINGS_H

#include "cluster/channel.h"
#include "cluster/view.h"

struct fifo_hub;
struct siblings;
struct siblings *siblings_new(struct fifo_hub *hub, struct channels *channels);
void siblings_free(struct siblings *s);

/* A fifo to it is there, or is not any more. */
void siblings_attached(struct siblings *s, unsigned shard, uint64_t incarnation);
void siblings_detached(struct siblings *s, unsigned shard);
/* The view that is about to be gone by (own: this node in it): before rooms_adopt. */
void siblings_expect(struct siblings *s, const struct view_node *own);
/* What has waited for that view is received: behind rooms_adopt. bad: what came was no frame. */
void siblings_adopted(struct siblings *s, void (*bad)(void *ctx, unsigned shard), void *ctx);

/* Frames wait on both sides, also those of who is there. Off: they go on; bad as above. */
void siblings_hold(struct siblings *s, bool hold, void (*bad)(void *ctx, unsigned shard),
                   void *ctx);

/* A channel's bytes for a sibling. later: as in channel_sinks. */
void siblings_send(struct siblings *s, unsigned shard, const struct iovec *v, size_t n, bool later);
/* A frame from one. ERR_BAD as channel_receive. */
nodiscard err siblings_receive(struct siblings *s, unsigned shard, str bytes);

#endif
