/* spread: a histogram of how long things took: log-linear, 32 steps per octave of microseconds (3 %
 * wide), so that p99.9 of a latency is not the edge of a bucket as wide as the answer. Any number
 * of them add up, which is how the processes' figures become one. (The server's own histograms have
 * 8 steps: they are read by Prometheus.) */
#ifndef PEMBERLEY_BENCH_SPREAD_H
#define PEMBERLEY_BENCH_SPREAD_H

#include <stdint.h>

enum { SPREAD_STEPS = 32, SPREAD_CELLS = 64 * SPREAD_STEPS };
struct spread {
    uint64_t n, max;
    uint64_t cell[SPREAD_CELLS];
};

void spread_count(struct spread *h, uint64_t us);
void spread_add(struct spread *h, const struct spread *more);
/* The value that `share` (0 to 1) of all stay at or below: the lower edge of its cell, 1: the
 * largest itself. 0 when nothing was counted. */
uint64_t spread_at(const struct spread *h, double share);

#endif
