/* drain: a planned emptying of the node (operator.md 8).
 *
 *   NONE --drain--> GRACE --drain_grace--> MOVE --no home here--> RELEASE --nobody left----> EMPTY
 *                   /readyz 503,           listeners                      --drain_timeout--> EMPTY
 *                   still accepting        closed                           (the rest at once)
 *   any --drain --cancel--> NONE
 *
 * The node's slots begin to go to other nodes with GRACE; without a cluster MOVE takes no time.
 *
 * EMPTY is not an end: the node waits to be stopped, or to serve again by --cancel. The shards let
 * their connections go by themselves at their share of the rate; here is the clock, the listening
 * sockets, and what operators see. Sockets are not closed but stop listening (shutdown(2)): the
 * port stays ours, so that --cancel cannot fail because somebody else took it. */
#ifndef PEMBERLEY_NODE_SUPER_DRAIN_H
#define PEMBERLEY_NODE_SUPER_DRAIN_H

#include "pemberley/arena.h"
#include "pemberley/str.h"

struct super;
struct client;

enum drain_phase { DRAIN_NONE, DRAIN_GRACE, DRAIN_MOVE, DRAIN_RELEASE, DRAIN_EMPTY };
struct drain {
    enum drain_phase phase;
    int64_t started_ms, grace_until_ms, until_ms, ended_ms; /* monotonic */
    int64_t released_ms;                                    /* RELEASE began */
    int64_t look_ms;                                        /* the next turn */
    int64_t told_ms;                                        /* those who wait, of the progress */
    uint64_t rate_count, rate_per_ms;                       /* of the node; 0: as fast as may be */
    uint64_t sessions;                                      /* the most there were */
    uint64_t at_once;                                       /* let go when the time was over */
};

/* The commands `drain [rate N/s] [timeout D]`, also while draining (then what is said changes), and
 * `drain cancel`. The client is answered when it is over, and told of the progress meanwhile; a
 * shard that asks for another node is answered at once. */
void drain_command(struct super *s, struct client *c, size_t argc, const str *argv);
/* Once per turn of the supervisor. */
void drain_turn(struct super *s);
/* When it wants its next turn; INT64_MAX: it does not. */
int64_t drain_next_ms(const struct super *s);
/* The node stops: who waits for the drain's end is told so. */
void drain_stopped(struct super *s);
/* Has the node stopped listening? */
bool drain_is_closed(const struct super *s);
bool drain_is_on(const struct super *s);
double drain_share(const struct super *s); /* gone, 0 to 1 */
double drain_eta_s(const struct super *s); /* until the last is gone */
str drain_json(const struct super *s, struct arena *a);

#endif
