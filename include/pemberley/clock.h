/* clock: wall time, for stamps only (it may jump back). Intervals use loop_now_ms. */
#ifndef PEMBERLEY_CLOCK_H
#define PEMBERLEY_CLOCK_H

#include <stdint.h>

struct clock {
    int64_t (*wall_us)(struct clock *c); /* microseconds since 1970 */
};
static inline int64_t clock_wall_us(struct clock *c) { return c->wall_us(c); }

#endif
