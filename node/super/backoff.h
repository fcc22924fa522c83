/* backoff: when a dead child is started again: at once, then after 0.1, 0.2, 0.4 … 5 s, until one
 * has lived for 60 s. At once, because most deaths are single and each second costs its users;
 * growing, because a child that dies at its start would burn the core its neighbours need. */
#ifndef PEMBERLEY_NODE_SUPER_BACKOFF_H
#define PEMBERLEY_NODE_SUPER_BACKOFF_H

#include <stdbool.h>
#include <stdint.h>

enum { BACKOFF_HEALTHY_MS = 60000, BACKOFF_FIRST_MS = 100, BACKOFF_MAX_MS = 5000 };

struct backoff {
    int64_t started_ms; /* of the last start */
    unsigned deaths;    /* in a row */
};

static inline void backoff_started(struct backoff *b, int64_t now_ms) { b->started_ms = now_ms; }

/* After a death: milliseconds until the next start. */
static inline int64_t backoff_died(struct backoff *b, int64_t now_ms)
{
    if (now_ms - b->started_ms >= BACKOFF_HEALTHY_MS)
        b->deaths = 0;
    unsigned doublings = b->deaths++;
    if (doublings == 0)
        return 0;
    int64_t ms = doublings > 7 ? BACKOFF_MAX_MS : (int64_t)BACKOFF_FIRST_MS << (doublings - 1);
    return ms < BACKOFF_MAX_MS ? ms : BACKOFF_MAX_MS;
}

#endif
