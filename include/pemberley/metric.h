/* metric: numbers that one process writes and the supervisor reads: a page of shared memory per
 * shard and store worker, one writer, no locks, so that it survives the writer's death. Rows in
 * metrics.def, label sets in labels.def. Counting is one relaxed load and store. */
#ifndef PEMBERLEY_METRIC_H
#define PEMBERLEY_METRIC_H

#include <stdatomic.h>
#include <stdint.h>

#include "pemberley/err.h"
#include "pemberley/log.h"

enum metric_set {
#define LABELS(set, key, ...) METRIC_SET_##set,
#define ERRORS(set, key, first, last) METRIC_SET_##set,
#define EVENTS(set, key) METRIC_SET_##set,
#define HOSTS(set, key, n) METRIC_SET_##set,
#define PEERS(set, key, n) METRIC_SET_##set,
#include "pemberley/labels.def"
    METRIC_SET_MAX
};
enum { /* how many labels a set has; of errors one more, for "other" */
#define LABELS(set, key, ...) \
    METRIC_SIZE_##set = sizeof((const char *const[]){__VA_ARGS__}) / sizeof(const char *),
#define ERRORS(set, key, first, last) METRIC_SIZE_##set = (last) - (first) + 2,
#define EVENTS(set, key) METRIC_SIZE_##set = LOG_EVENT_MAX,
#define HOSTS(set, key, n) METRIC_SIZE_##set = (n) + 1,
#define PEERS(set, key, n) METRIC_SIZE_##set = (n) + 1,
#include "pemberley/labels.def"
};
enum {
#define ERRORS(set, key, first, last) METRIC_FIRST_##set = first,
#include "pemberley/labels.def"
};
enum metric_fate { FATE_BOUNCED, FATE_DROPPED };
enum metric_hop { HOP_SAME_SHARD, HOP_SAME_NODE, HOP_OTHER_NODE };
enum { METRIC_NONZA = METRIC_SIZE_KIND }; /* behind the kinds of stanzas in COUNTED */
enum metric_stage { STAGE_EDGE_IN, STAGE_HOME_FROM, STAGE_BUS, STAGE_HOME_TO, STAGE_EDGE_OUT };
/* Of so many stanzas the stages of one are timed (node.h). */
enum { METRIC_STAGES_OF = 64 };
enum metric_way { WAY_IN, WAY_OUT };
enum metric_pool {
    POOL_CONN,
    POOL_SESSION,
    POOL_QUEUE,
    POOL_USER,
    POOL_COPY,
    POOL_CHANNEL,
    POOL_SEEN,
    POOL_MARK,
    POOL_BUF
};
#define METRIC_TRAFFIC(way, kind) ((way)*METRIC_SIZE_KIND + (kind)) /* of enum stanza_kind */
enum metric_quota { QUOTA_USERS, QUOTA_OFFLINE };
enum metric_registry_refusal { REFUSED_EPOCH, REFUSED_FORM, REFUSED_FULL };
enum metric_resync { RESYNC_RECONNECTED, RESYNC_LOST };
enum metric_member { MEMBERS_LIVE, MEMBERS_SUSPECT, MEMBERS_JOINING, MEMBERS_DRAINING };
enum metric_ring_cause { RING_JOINED, RING_LEFT, RING_DIED, RING_DRAIN, RING_WEIGHT, RING_SHARD };
enum metric_frame_refusal { FRAMES_EPOCH, FRAMES_SLOT, FRAMES_GEN, FRAMES_HOPS, FRAMES_FOREIGN };
enum metric_rail { RAILS_UP, RAILS_CONNECTING, RAILS_STALLED };
enum metric_result { RESULT_OK, RESULT_REFUSED, RESULT_FAILED };

enum metric {
#define METRIC(id, family, labels, kind, scope, scale, help) METRIC_##id,
#define METRIC_ARRAY(id, family, a, b, kind, scope, scale, help) \
    METRIC_##id, METRIC_##id##_LAST = METRIC_##id + METRIC_SIZE_##a * METRIC_SIZE_##b - 1,
#include "pemberley/metrics.def"
    METRIC_MAX
};
enum {
#define METRIC_ARRAY(id, family, a, b, kind, scope, scale, help) \
    METRIC_##id##_WIDTH = METRIC_SIZE_##b,
#include "pemberley/metrics.def"
};
/* The i-th label of the first set, the j-th of the second (0 when that is NONE). */
#define METRIC_AT(id, i, j) \
    ((enum metric)(METRIC_##id + (unsigned)(i)*METRIC_##id##_WIDTH + (unsigned)(j)))
/* The index of an error in a set of errors; one that is not of the set is "other". */
#define METRIC_ERR(set, e) metric_err((e), METRIC_FIRST_##set, METRIC_SIZE_##set)
static inline unsigned metric_err(err e, unsigned first, unsigned size)
{
    unsigned i = (unsigned)e - first;
    return i < size - 1 ? i : size - 1;
}

enum histogram {
#define HISTOGRAM(id, family, set, unit, scope, help) \
    HISTOGRAM_##id, HISTOGRAM_##id##_LAST = HISTOGRAM_##id + METRIC_SIZE_##set - 1,
#include "pemberley/metrics.def"
    HISTOGRAM_MAX
};
#define HISTOGRAM_AT(id, i) ((enum histogram)(HISTOGRAM_##id + (unsigned)(i)))

/* Log-linear: 8 buckets per power of two; 0 to 67 s in microseconds, 0 to 64 MiB in bytes. */
enum { METRIC_HISTOGRAM_BUCKETS = 8 * 24 };

/* The last events of level warn and above, for the status page: a circular array that outlives its
 * writer like the numbers (node/os/recent.c). No JID, no address. */
enum { METRIC_RECENT = 10, METRIC_RECENT_TEXT = 240 };
struct metric_recent {
    _Atomic uint32_t version;      /* odd while it is being written */
    uint32_t event;                /* enum log_event */
    int64_t at_us;                 /* wall time */
    char text[METRIC_RECENT_TEXT]; /* "key=value key=value", cut off, ends with NUL */
};
enum { METRIC_PEER_BYTES = 33 }; /* a node's name and a NUL */

struct metric_page {
    _Atomic uint64_t heartbeat; /* +1 per turn: the supervisor tells a stuck loop by it */
    _Atomic uint64_t value[METRIC_MAX];
    _Atomic uint64_t bucket[HISTOGRAM_MAX][METRIC_HISTOGRAM_BUCKETS];
    _Atomic uint64_t sum[HISTOGRAM_MAX];
    _Atomic uint32_t recent_n; /* ever kept */
    struct metric_recent recent[METRIC_RECENT];
    _Atomic uint32_t peers;                         /* named so far: places 1 to peers */
    char peer[METRIC_SIZE_PEER][METRIC_PEER_BYTES]; /* [0] is "other" */
};

static inline void metric_plus(_Atomic uint64_t *v, uint64_t n)
{
    atomic_store_explicit(v, atomic_load_explicit(v, memory_order_relaxed) + n,
                          memory_order_relaxed);
}
static inline void metric_add(struct metric_page *m, enum metric k, int64_t n)
{
    metric_plus(&m->value[k], (uint64_t)n);
}
static inline void metric_set(struct metric_page *m, enum metric k, uint64_t v)
{
    atomic_store_explicit(&m->value[k], v, memory_order_relaxed);
}
static inline uint64_t metric_get(const struct metric_page *m, enum metric k)
{
    return atomic_load_explicit(&m->value[k], memory_order_relaxed);
}
static inline unsigned metric_bucket(uint64_t v)
{
    if (v < 8)
        return (unsigned)v;
    unsigned power = 63u - (unsigned)__builtin_clzll(v);
    unsigned b = (power - 2) * 8 + (unsigned)((v >> (power - 3)) & 7);
    return b < METRIC_HISTOGRAM_BUCKETS ? b : METRIC_HISTOGRAM_BUCKETS - 1;
}
/* A node's place among the labels of PEER: the one it has had on this page, else a free one below
 * max (metrics.peers_max), else 0, which is all others. For who meets a node, not for each frame.
 */
unsigned metric_peer(struct metric_page *m, const char *name, unsigned max);
/* The upper edge of a bucket. */
static inline uint64_t metric_bucket_us(unsigned b)
{
    return b < 8 ? b : (uint64_t)(8 + b % 8 + 1) << (b / 8 - 1);
}
static inline void metric_observe(struct metric_page *m, enum histogram h, uint64_t v)
{
    metric_plus(&m->bucket[h][metric_bucket(v)], 1);
    metric_plus(&m->sum[h], v);
}

#endif
