/* metric: numbers that one process writes and the supervisor reads: a page of shared memory per
 * shard, one writer, no locks, so that it survives the writer's death. Rows in metrics.def. */
#ifndef PEMBERLEY_METRIC_H
#define PEMBERLEY_METRIC_H

#include <stdatomic.h>
#include <stdint.h>

enum metric {
#define METRIC(id, family, labels, kind, scope, scale, help) METRIC_##id,
#include "pemberley/metrics.def"
    METRIC_MAX
};
enum histogram {
#define HISTOGRAM(id, family, labels, scope, help) HISTOGRAM_##id,
#include "pemberley/metrics.def"
    HISTOGRAM_MAX
};

/* Log-linear histogram in microseconds: 8 buckets per power of two, up to about 67 s. */
enum { METRIC_HISTOGRAM_BUCKETS = 8 * 24 };
struct metric_page {
    _Atomic uint64_t heartbeat; /* +1 per turn: the supervisor tells a stuck loop by it */
    _Atomic uint64_t value[METRIC_MAX];
    _Atomic uint64_t bucket[HISTOGRAM_MAX][METRIC_HISTOGRAM_BUCKETS];
    _Atomic uint64_t sum_us[HISTOGRAM_MAX];
};

static inline void metric_add(struct metric_page *m, enum metric k, int64_t n)
{
    _Atomic uint64_t *v = &m->value[k];
    atomic_store_explicit(v, atomic_load_explicit(v, memory_order_relaxed) + (uint64_t)n,
                          memory_order_relaxed);
}
static inline void metric_set(struct metric_page *m, enum metric k, uint64_t v)
{
    atomic_store_explicit(&m->value[k], v, memory_order_relaxed);
}
static inline unsigned metric_bucket(uint64_t us)
{
    if (us < 8)
        return (unsigned)us;
    unsigned power = 63u - (unsigned)__builtin_clzll(us);
    unsigned b = (power - 2) * 8 + (unsigned)((us >> (power - 3)) & 7);
    return b < METRIC_HISTOGRAM_BUCKETS ? b : METRIC_HISTOGRAM_BUCKETS - 1;
}
/* The upper edge of a bucket. */
static inline uint64_t metric_bucket_us(unsigned b)
{
    return b < 8 ? b : (uint64_t)(8 + b % 8 + 1) << (b / 8 - 1);
}
static inline void metric_plus(_Atomic uint64_t *v, uint64_t n)
{
    atomic_store_explicit(v, atomic_load_explicit(v, memory_order_relaxed) + n,
                          memory_order_relaxed);
}
static inline void metric_observe(struct metric_page *m, enum histogram h, uint64_t us)
{
    metric_plus(&m->bucket[h][metric_bucket(us)], 1);
    metric_plus(&m->sum_us[h], us);
}
static inline void metric_delivery(struct metric_page *m, uint64_t us)
{
    metric_observe(m, HISTOGRAM_delivery, us);
}

#endif
