/* store_client: a shard's side of the store (the door: include/pemberley/store.h). Requests become
 * frames to the worker; replies come back as frames. It keeps each request until its reply, so that
 * a worker may die at any moment:
 *
 *   submit --> waiting --(window)--> sent --reply--> done(e, reply)
 *                 ^                    |
 *                 +---- worker down ---+      (in order; the next worker gets them all again)
 *
 * done is called from store_client_on_frame, from the loop's timer (ERR_AWAY, store.timeout after
 * the submit, whatever kept it), or at the turn's end (ERR_FULL: store.queue_max or
 * queue_bytes_max); never from inside submit, and for each request exactly once. Requests are sent
 * and answered in the order submitted. The queue's bounds count what has no reply yet. One worker,
 * one thread. */
#ifndef NODE_STORE_CLIENT_STORE_CLIENT_H
#define NODE_STORE_CLIENT_STORE_CLIENT_H

#include "node/conf/conf.h"
#include "pemberley/log.h"
#include "pemberley/loop.h"
#include "pemberley/metric.h"
#include "pemberley/store.h"

/* A request on its way to the worker, copied before it returns; no reply may come from inside. */
typedef void store_client_send_f(void *ctx, const char *p, size_t n);

struct store_client;
/* The worker is down at first. */
struct store_client *store_client_new(struct loop *loop, const struct conf *conf,
                                      struct metric_page *metrics, struct log *log,
                                      store_client_send_f *send, void *ctx);
struct store *store_client_door(struct store_client *c);
/* After a reload: the new bounds, and the timeout of requests to come. conf is not kept. */
void store_client_configure(struct store_client *c, const struct conf *conf);
/* A frame from the worker. One that is no reply is dropped and logged (frame_refused); one that
 * nobody waits for any more is dropped. */
void store_client_on_frame(struct store_client *c, const char *p, size_t n);
/* A (new) worker is there: everything without a reply is sent to it. */
void store_client_worker_up(struct store_client *c);
void store_client_worker_down(struct store_client *c); /* requests wait */
/* Once a second: the age of the oldest request into the metrics page. */
void store_client_sample(struct store_client *c);
size_t store_client_waiting(const struct store_client *c); /* requests without a reply */
/* What has no reply is forgotten: its done never runs (those who asked are gone already). */
void store_client_free(struct store_client *c);

#endif
