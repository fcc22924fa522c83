/* clock: wall time from the kernel; for stamps only, it may jump back. */
#include <time.h>

#include "node/os/os.h"

static int64_t wall_us(struct clock *c)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

void clock_real_init(struct clock *c) { c->wall_us = wall_us; }
