/* worker: the queues of requests, and their way in and out. What happens to a batch in between is
 * the back-end's (sqlite_batch.c, postgres_batch.c).
 *
 * A batch is the requests that wait, up to batch_max, in one transaction: the fsync at its end is
 * what costs, so under load it is shared by many (group commit), and alone one pays for itself.
 * Waiting for more to come was rejected: while one batch syncs, the next gathers by itself. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <xxhash.h>

#include "node/store/backend.h"

static void *arena_for_protobuf(void *arena, size_t n) { return arena_alloc(arena, n); }
static void arena_keeps(void *arena, void *p) {}

static uint64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* ---- a batch --------------------------------------------------------------------------------- */

static const Store__Request *unpack(const struct request *q, struct arena *arena)
{
    ProtobufCAllocator memory = {arena_for_protobuf, arena_keeps, arena};
    if (q->n > STORE_REQUEST_MAX)
        return NULL;
    return store__request__unpack(&memory, q->n, (const uint8_t *)q->data);
}

void job_decode(struct job *j, struct request *q, struct sql *sql, struct arena *arena,
                size_t behind)
{
    *j = (struct job){.request = q};
    j->ops = (struct ops){.sql = sql, .arena = arena, .queue = behind, .q = unpack(q, arena)};
    j->row = j->ops.q ? ops_row(j->ops.q) : NULL;
    j->ops.row = j->row;
    store__reply__init(&j->ops.r);
}

void batch_open(struct batch *b)
{
    *b = (struct batch){0};
    arena_init(&b->arena);
}

void batch_begin(struct batch *b)
{
    if (b->n_replies == 0)
        b->began_us = now_us();
    arena_reset(&b->arena);
    b->n_replies = 0, b->out_n = 0;
}

static Store__Result result_of(err e)
{
    switch (e) {
    case ERR_OK: return STORE__RESULT__OK;
    case ERR_NOT_FOUND: return STORE__RESULT__NOT_FOUND;
    case ERR_EXISTS: return STORE__RESULT__EXISTS;
    case ERR_FULL: return STORE__RESULT__FULL;
    case ERR_DISK_FULL: return STORE__RESULT__DISK_FULL;
    case ERR_BAD: return STORE__RESULT__BAD;
    default: return STORE__RESULT__IO;
    }
}

static struct reply *add_reply(struct batch *b, size_t n)
{
    must(n <= STORE_REPLY_MAX);
    if (b->n_replies == b->replies_cap) {
        b->replies_cap = b->replies_cap ? b->replies_cap * 2 : 16;
        must((b->replies = realloc(b->replies, b->replies_cap * sizeof *b->replies)));
    }
    if (b->out_cap - b->out_n < n) {
        b->out_cap = (b->out_n + n) * 2;
        must((b->out = realloc(b->out, b->out_cap)));
    }
    struct reply *reply = &b->replies[b->n_replies++];
    *reply = (struct reply){.at = b->out_n, .n = n};
    b->out_n += n;
    return reply;
}

void batch_answer(struct batch *b, const struct job *j, err e)
{
    Store__Reply r = j->ops.r;
    if (e != ERR_OK)
        r.body_case = STORE__REPLY__BODY__NOT_SET;
    r.id = j->ops.q ? j->ops.q->id : 0;
    r.result = result_of(e);
    struct reply *reply = add_reply(b, store__reply__get_packed_size(&r));
    store__reply__pack(&r, (uint8_t *)b->out + reply->at);
}

static void count_batch(const struct batch *b, const struct store_worker *w, bool failed)
{
    if (!w->metrics)
        return;
    metric_observe(w->metrics, HISTOGRAM_store_batch, b->n_replies);
    metric_observe(w->metrics, HISTOGRAM_store_commit, now_us() - b->began_us);
    metric_add(w->metrics, METRIC_store_batches_failed, failed);
}

static void drop(struct lane *lane, struct request *q)
{
    list_remove(&q->link);
    lane->queued--;
    free(q);
}

void batch_deliver(struct batch *b, struct store_worker *w, struct lane *lane, bool failed)
{
    count_batch(b, w, failed);
    must(lane->queued >= b->n_replies);
    for (size_t i = 0; i < b->n_replies; i++) {
        struct request *q = list_first(&lane->queue, struct request, link);
        b->replies[i].peer = q->peer;
        b->replies[i].forgotten = q->forgotten;
        drop(lane, q);
    }
    lane->running = 0;
    for (size_t i = 0; i < b->n_replies; i++) {
        const struct reply *r = &b->replies[i];
        if (!r->forgotten)
            w->port->reply(w->port, r->peer, b->out + r->at, r->n);
    }
    b->n_replies = 0;
}

void batch_close(struct batch *b)
{
    arena_close(&b->arena);
    free(b->replies);
    free(b->out);
}

/* ---- the door -------------------------------------------------------------------------------- */

err store_worker_open(const struct store_worker_options *o, struct store_port *port,
                      struct log *log, char *text, size_t text_n, struct store_worker **out)
{
    struct backend *backend;
    err e = o->postgres ? o->postgres->open(o, log, text, text_n, &backend)
                        : sqlite_open(o, log, text, text_n, &backend);
    if (e != ERR_OK)
        return e;
    struct store_worker *w = calloc(1, sizeof *w);
    must(w && backend->lanes >= 1 && backend->lanes <= LANES_MAX);
    w->backend = backend, w->port = port, w->log = log;
    for (unsigned i = 0; i < backend->lanes; i++)
        list_init(&w->lanes[i].queue);
    store_worker_set_batch_max(w, o->batch_max);
    *out = w;
    return ERR_OK;
}

void store_worker_set_batch_max(struct store_worker *w, unsigned batch_max)
{
    w->batch_max = batch_max > 0 ? batch_max : 1;
}

void store_worker_set_timeout(struct store_worker *w, int64_t timeout_ms)
{
    if (w->backend->impl->set_timeout)
        w->backend->impl->set_timeout(w->backend, timeout_ms);
}

void store_worker_set_metrics(struct store_worker *w, struct metric_page *metrics)
{
    w->metrics = metrics;
    store_worker_sample(w);
}

const char *store_worker_backend(const struct store_worker *w) { return w->backend->impl->name; }

/* Whoever has one owner has one lane; what has none goes with the empty one. */
static struct lane *lane_of(struct store_worker *w, const struct request *q)
{
    if (w->backend->lanes == 1)
        return &w->lanes[0];
    struct arena arena;
    arena_init(&arena);
    const Store__Request *r = unpack(q, &arena);
    uint64_t hash = r ? XXH3_64bits(r->owner.data, r->owner.len) : 0;
    arena_close(&arena);
    return &w->lanes[hash % w->backend->lanes];
}

void store_worker_on_request(struct store_worker *w, unsigned peer, const char *p, size_t n)
{
    struct request *q = malloc(sizeof *q + n);
    must(q);
    *q = (struct request){.peer = peer, .n = n};
    if (n > 0)
        memcpy(q->data, p, n);
    struct lane *lane = lane_of(w, q);
    list_push_back(&lane->queue, &q->link);
    lane->queued++;
}

void store_worker_forget(struct store_worker *w, unsigned peer)
{
    for (unsigned i = 0; i < w->backend->lanes; i++) {
        size_t at = 0;
        list_each(q, &w->lanes[i].queue, struct request, link) {
            bool running = at++ < w->lanes[i].running;
            if (q->peer == peer && running)
                q->forgotten = true;
            else if (q->peer == peer)
                drop(&w->lanes[i], q);
        }
    }
}

size_t store_worker_queued(const struct store_worker *w)
{
    size_t n = 0;
    for (unsigned i = 0; i < w->backend->lanes; i++)
        n += w->lanes[i].queued;
    return n;
}

bool store_worker_enough(const struct store_worker *w)
{
    size_t n = 0;
    for (unsigned i = 0; i < w->backend->lanes; i++)
        n += w->lanes[i].queued - w->lanes[i].running;
    return n >= (size_t)w->batch_max * w->backend->lanes;
}

bool store_worker_run(struct store_worker *w) { return w->backend->impl->run(w->backend, w); }

size_t store_worker_fds(const struct store_worker *w, struct pollfd *fds, size_t max)
{
    return w->backend->impl->fds ? w->backend->impl->fds(w->backend, fds, max) : 0;
}

int store_worker_wait_ms(const struct store_worker *w, int ms)
{
    return w->backend->impl->wait_ms ? w->backend->impl->wait_ms(w->backend, ms) : ms;
}

void store_worker_sample(const struct store_worker *w)
{
    if (w->metrics)
        w->backend->impl->sample(w->backend, w->metrics);
}

void store_worker_close(struct store_worker *w)
{
    w->backend->impl->close(w->backend);
    for (unsigned i = 0; i < w->backend->lanes; i++)
        list_each(q, &w->lanes[i].queue, struct request, link)
            drop(&w->lanes[i], q);
    free(w->backend);
    free(w);
}
