/* metric: numbers that one process writes and the supervisor reads: a page of shared memory per
 * shard, one writer, no locks, so that it survives the writer's death. Rows in metrics.def. */
#ifndef PEMBERLEY_METRIC_H
#define PEMBERLEY_METRIC_H

#include <stdatomic.h>
#include <stdint.h>

enum metric {
#define METRIC(name, kind, help) METRIC_##name,
#include "pemberley/metrics.def"
#undef METRIC
    METRIC_MAX
};

/* Log-linear histogram in microseconds: 8 buckets per power of two, up to about 67 s. */
enum { METRIC_HISTOGRAM_BUCKETS = 8 * 24 };
struct metric_page {
    _Atomic uint64_t heartbeat; /* +1 per turn: the supervisor tells a stuck loop by it */
    _Atomic uint64_t value[METRIC_MAX];
    _Atomic uint64_t delivery_us[METRIC_HISTOGRAM_BUCKETS];
};

static inline void metric_add(struct metric_page *m, enum metric k, int64_t n)
{
    atomic_store_explicit(&m->value[k],
                          atomic_load_explicit(&m->value[k], memory_order_relaxed) + (uint64_t)n,
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
static inline void metric_delivery(struct metric_page *m, uint64_t us)
{
    _Atomic uint64_t *b = &m->delivery_us[metric_bucket(us)];
    atomic_store_explicit(b, atomic_load_explicit(b, memory_order_relaxed) + 1,
                          memory_order_relaxed);
}

#endif
