/* health: what balancers and orchestrators ask (operator.md 8). */
#ifndef PEMBERLEY_NODE_SUPER_HEALTH_H
#define PEMBERLEY_NODE_SUPER_HEALTH_H

#include "node/super/http.h"

/* 200 while the supervisor turns; 503 only when it has given up on a shard (a crash loop of 60 s).
 */
struct http_answer health_live(struct super *s, bool json, struct arena *a);
/* 200 ready, or 503; one line per check. */
struct http_answer health_ready(struct super *s, bool json, struct arena *a);
/* The same as a flag, for the metrics. */
bool health_is_ready(const struct super *s);

#endif
