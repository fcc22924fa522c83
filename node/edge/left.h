/* left: a session's queue after its connection (delivery.md 1: the edge stays secondary as long as
 * it lives, and nothing is dropped before somebody else has it). Ended or detached, what the client
 * had not acked stays here until the home says that it is safe elsewhere (FRAME_CLOSE without a
 * reason), or goes to its successor when the home dies. The home drops each: when it has disposed
 * of the queue of a session that ended, when another edge holds what a resumed one had. So no timer
 * is needed: a detached session lives for its max_ms, and its queue was within limits.unacked_max
 * and limits.unacked_bytes_max while it had a connection. */
#ifndef PEMBERLEY_EDGE_LEFT_H
#define PEMBERLEY_EDGE_LEFT_H

#include "node/edge/c2s.h"

/* Takes the queue out of s, which goes; not where the home is this process, which dies with us. */
void left_keep(struct c2s *s);
/* An OUT that was under way when its session went: held here from now on like those before it. */
void left_on_out(struct edge *e, const struct frame *f);
void left_drop(struct edge *e, uint64_t sid, uint32_t gen);
/* A home is dead: what is kept of its sessions goes to its successor, but for what clients have
 * taken from us on a later connection. */
void left_orphan(struct edge *e, unsigned shard, const struct mark_set *taken);
void left_free(struct edge *e); /* all */

#endif
