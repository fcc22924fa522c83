/* exposition: /metrics as Prometheus text 0.0.4 or OpenMetrics 1.0, from the pages that each shard
 * writes without locks. The pages outlive their writers, so counters never go backwards. */
#ifndef PEMBERLEY_NODE_SUPER_EXPOSITION_H
#define PEMBERLEY_NODE_SUPER_EXPOSITION_H

#include "node/super/http.h"

struct http_answer exposition(struct super *s, bool openmetrics, struct arena *a);

#endif
