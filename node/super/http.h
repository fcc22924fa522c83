/* http: the node's own pages on listen.metrics: /, /metrics, /livez, /readyz, /status.json. Read
 * only, plain, one answer per connection; for Prometheus, balancers and people nearby, not for the
 * internet. Served by the supervisor from what it knows anyway, so that an answer comes also when a
 * shard hangs or the store is away (operator.md 8).
 *
 * Bounds: HTTP_CLIENTS_MAX at once, a request head of 8 KiB, HTTP_TIME_MS for everything. What is
 * no HTTP is answered 400 and closed; networks not in listen.metrics.allow_from get 403. */
#ifndef PEMBERLEY_NODE_SUPER_HTTP_H
#define PEMBERLEY_NODE_SUPER_HTTP_H

#include <poll.h>

#include "node/super/listen.h"

struct super;

enum { HTTP_CLIENTS_MAX = 32, HTTP_LISTENERS_MAX = 4, HTTP_TIME_MS = 5000 };
enum { HTTP_FDS = HTTP_CLIENTS_MAX + HTTP_LISTENERS_MAX };

struct http;
/* Binds listen.metrics.address and listens. ERR_IO: *problem is the sentence. An empty list:
 * nothing is served. */
nodiscard err http_open(struct super *s, struct http **out, struct arena *a, str *problem);
void http_close(struct http *h);

/* Fills HTTP_FDS entries; after poll http_turn looks at the same. */
void http_fds(const struct http *h, struct pollfd *p);
void http_turn(struct http *h, const struct pollfd *p);
void http_tick(struct http *h); /* once a second: closes those that take too long */

/* One answer to a whole request, for http.c and tests. path without query. */
struct http_answer {
    unsigned status; /* 200, 403, 404, 405, 503 */
    const char *type;
    str body; /* in the arena */
};
struct http_answer http_route(struct super *s, str method, str path, str accept, struct arena *a);

#endif
