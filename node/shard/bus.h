/* bus: what joins this shard's channels to the shards of other nodes (architecture 7). It opens and
 * closes rails (cluster/rail.h) as the view says, dials and accepts their sockets, and carries
 *
 *   frames   channel ─► rail ─► the same-numbered shard there ─► its fifo ─► the shard it is for
 *   words    of membership (cluster/word.h), to siblings over fifos, to other nodes over rails
 *
 * Which rails: shard i of a node has one with the i-th (mod their count) shard of each other node,
 * counted among those that live; so a shard may have several with a node of more shards, and says
 * what it has to say to all of that node by the one of its own count (its *way*).
 *
 * Frames only go where the view says that they are heard: a channel has a path while our way to its
 * node is up. What comes from an incarnation that our view does not have (yet) is dropped, not
 * kept: the channel on the other side has it until we say that it has come, and is asked to send it
 * again when our view has come so far (channel_missed). So nothing here has to be bounded, and what
 * the dead have said needs no telling from what the newest say.
 *
 * Between siblings go *posts*: POST_MARK, with which no frame begins (frame.h), kind and name,
 * and what it carries. */
#ifndef PEMBERLEY_SHARD_BUS_H
#define PEMBERLEY_SHARD_BUS_H

#include "cluster/view.h"
#include "node/node.h"
#include "proto/bus/frame.h"

struct bus;
struct fifo_hub;
struct resolver;

struct bus_sinks {
    void *ctx;
    /* A word from a shard of that node, ours among them; a view until it returns. ERR_BAD: it is
     * none. */
    err (*word)(void *ctx, str node, str bytes);
    /* The node does not answer pings; or a rail to it has come up. */
    void (*silent)(void *ctx, str node, bool silent);
    /* A rail has cluster.rail_queue_max waiting (or none has any more): no more sources. */
    void (*full)(void *ctx, bool full);
};

struct bus_config {
    struct node *node; /* loop, clock, entropy, log, metrics, channels, tls, conf */
    struct fifo_hub *hub;
    struct resolver *resolver;
    str cluster; /* its name */
    uint64_t incarnation;
};

struct bus *bus_new(const struct bus_config *c, const struct bus_sinks *sinks);
void bus_listen(struct bus *b, int fd); /* takes it over; once */
void bus_reload(struct bus *b);         /* node->conf is the new one */
/* The view gone by, behind rooms_adopt. blocks[i]: of its i-th node (cluster/peers.h). */
void bus_adopt(struct bus *b, const struct view *v, const unsigned *blocks);

/* Nothing but words goes or comes from here on: channels have no path, and frames are dropped, to
 * be sent again when it is over. Off: they go on. */
void bus_hold(struct bus *b, bool hold);

/* A channel's bytes for a shard of another node. */
void bus_send(struct bus *b, unsigned peer, const struct iovec *v, size_t n);
/* member_sinks.say. */
void bus_say(struct bus *b, str node, unsigned shard, str word);
/* What came over a sibling's fifo: a frame, or a post for bus_take? */
static inline bool bus_is_post(const char *p, size_t n)
{
    return n >= 2 && (unsigned char)p[0] == 0xff && (unsigned char)p[1] == 0xff;
}
/* ERR_BAD: no sibling of ours says that. */
nodiscard err bus_take(struct bus *b, const char *p, size_t n);

/* Wall clock of that peer's machine less ours, as pings measure it. */
int64_t bus_offset_us(const struct bus *b, unsigned peer);
/* The last round trip to a node; 0: none yet. */
uint64_t bus_round_trip_us(const struct bus *b, str node);

void bus_sample(struct bus *b); /* once a second: metrics */

#endif
