/* node: what a shard gives to its rooms (edge, home): the doors and the things that are one per
 * shard. The shard owns all of it; rooms borrow. Nothing here is global. */
#ifndef PEMBERLEY_NODE_H
#define PEMBERLEY_NODE_H

#include "cluster/channel.h"
#include "cluster/mark.h"
#include "cluster/ring.h"
#include "pemberley/clock.h"
#include "pemberley/entropy.h"
#include "pemberley/hash.h"
#include "pemberley/log.h"
#include "pemberley/loop.h"
#include "pemberley/metric.h"
#include "pemberley/store.h"

struct conf;
struct tls;
struct helper;
struct doubts;
struct peers;
struct registry;

/* Commands as the control socket has them (node/super/child.h), for whoever speaks for an operator:
 * done by whom they concern, wherever that is. done runs once; text until it returns. */
typedef void command_done_f(void *ctx, unsigned exit, str text);
struct command_door {
    void (*run)(struct command_door *d, size_t argc, const str *argv, command_done_f *done,
                void *ctx);
};

struct node {
    str name; /* of the node */
    unsigned shard, shards;
    struct loop *loop;
    struct clock *clock;
    struct entropy *entropy;
    struct log *log;
    struct metric_page *metrics;
    struct store *store;
    struct channels *channels;
    struct copies *copies;    /* what this shard keeps of sessions of others */
    struct marks marks;       /* what clients have taken lately, here or as the copies know */
    const struct ring *ring;  /* in a cluster: replaced by rooms_adopt; NULL before the first */
    uint64_t epoch;           /* of the ring; 0: no cluster */
    struct doubts *doubts;    /* node/shard/obey.h */
    struct arena *turn;       /* reset at the end of every turn of the loop */
    struct xml_scan *scan;    /* scratch, for whoever scans within one call */
    struct hash_key key;      /* of this process, for tables keyed by peers' strings */
    unsigned char secret[32]; /* the cluster's */
    const struct conf *conf;  /* replaced between two turns at a reload */
    struct tls *tls;
    struct helper *helper;         /* the thread for PBKDF2 */
    struct peers *peers;           /* the names behind peer numbers; NULL: no cluster */
    struct registry *registry;     /* homes put presence records there; NULL: no cluster */
    struct command_door *commands; /* NULL: nobody takes them */
    uint64_t start_ms;             /* loop time of the shard's start */
};

/* Is a stanza with this stamp and ordinal one of those whose stages are timed? All on its way know.
 */
static inline bool node_times_stages(uint64_t us, uint64_t ord)
{
    return (us + ord) % METRIC_STAGES_OF == 0;
}
/* frame.sent of such a stanza; 0 of others. */
static inline uint64_t node_stage_stamp(const struct node *n, uint64_t us, uint64_t ord)
{
    return node_times_stages(us, ord) ? (uint64_t)clock_wall_us(n->clock) : 0;
}

#endif
