/* obey: which home's words about a session its edge, or the holder of its copy, obeys (delivery.md
 * 5.6), in a cluster: those of the owner of its slot. A home that goes by an older epoch than this
 * shard may be the owner still, by an epoch that it skips; or it may not, and finds out when it
 * adopts the next one. Where this shard cannot know, the frame waits for that: the home's
 * FRAME_EPOCH says which slots it has lost. Nothing is acked before.
 *
 * What is said to a home it judges itself (home_obeys). */
#ifndef PEMBERLEY_SHARD_OBEY_H
#define PEMBERLEY_SHARD_OBEY_H

#include "node/edge/edge.h"

struct doubts; /* frames that wait; of a node, made with the first */

/* OUT STATE SNAP MIRROR NOTE ENABLED CLOSE, BOUND and RESUMED that nobody waits for. True: handle
 * it now, by `run`'s rules. False: it waits, or was dropped and is done. */
bool obey(struct node *n, struct edge *e, struct origin from, const struct frame *f);
/* A peer goes by another epoch from here on: what has waited for that is run, or dropped. */
typedef void obey_run_f(struct node *n, struct edge *e, struct origin from, const struct frame *f);
void obey_epoch(struct node *n, struct edge *e, struct origin from, const struct frame *f,
                obey_run_f *run);
void obey_peer_down(struct node *n, unsigned peer);

#endif
