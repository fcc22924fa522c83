/* view_change: what a view changes against the one before, for the log and the metrics. */
#ifndef PEMBERLEY_SHARD_VIEW_CHANGE_H
#define PEMBERLEY_SHARD_VIEW_CHANGE_H

#include "cluster/view.h"
#include "pemberley/metric.h"

enum { VIEW_CHANGE_NAMES = 200 };
struct view_change {
    bool any;
    enum metric_ring_cause cause;                            /* the gravest; with any */
    char joined[VIEW_CHANGE_NAMES], left[VIEW_CHANGE_NAMES]; /* names, cut off */
};
/* was: NULL, there was none. */
struct view_change view_change_of(const struct view *was, const struct view *is);
const char *view_change_cause(const struct view_change *c); /* a word */

#endif
