/* store_client: the window, the re-sending, the time limit.
 *
 * Only a window of requests is with the worker at a time: what is more waits here, where
 * store.queue_max bounds it, and not in the fifo's outbox or the worker's memory. A request that
 * ran out of time while the worker had it stays in the window as a husk (no done, not sent again)
 * until its late reply comes or the worker goes: else a stuck worker would be sent a new window
 * every time-out. */
#include "node/store_client/store_client.h"

#include <stdlib.h>

#include "pemberley/arena.h"
#include "proto/bus/store.pb-c.h"

enum { WINDOW_REQUESTS = 1024, WINDOW_BYTES = 4 << 20 };

struct request {
    struct list link;
    uint64_t id;
    uint64_t submitted_us, due_ms;
    store_done_f *done; /* NULL: a husk */
    void *ctx;
    bool sent;   /* in which list */
    unsigned op; /* for the log: Store__Request__OpCase */
    size_t n;
    uint8_t data[];
};

struct store_client {
    struct store door;
    struct loop *loop;
    struct metric_page *metrics;
    struct log *log;
    store_client_send_f *send;
    void *send_ctx;
    bool up;
    uint64_t next_id;
    struct list waiting, sent; /* in order of id; all of sent come before all of waiting */
    struct list refused;       /* answered ERR_FULL at the turn's end */
    size_t live, live_bytes;   /* requests without a reply, without husks */
    size_t window, window_bytes;
    size_t queue_max, queue_bytes_max;
    uint64_t timeout_ms, slow_us;
    struct timer timer;
    struct turn_hook hook;
    struct arena arena; /* of the reply at hand */
};

/* The labels of METRIC_store_requests are those of the oneof that are in these ranges, in order,
 * and "other". */
static const struct op_range {
    unsigned first, last;
} op_ranges[] = {{STORE__REQUEST__OP_ACCOUNT_GET, STORE__REQUEST__OP_NODE_ADMIT},
                 {STORE__REQUEST__OP_ARCHIVE_PUT, STORE__REQUEST__OP_OFFLINE_DROP_ARCHIVED},
                 {STORE__REQUEST__OP_LEAF_LOAD, STORE__REQUEST__OP_CAPS_PUT}};
enum {
    OPS_OLD = STORE__REQUEST__OP_NODE_ADMIT - STORE__REQUEST__OP_ACCOUNT_GET + 1,
    OPS_ARCHIVE = STORE__REQUEST__OP_OFFLINE_DROP_ARCHIVED - STORE__REQUEST__OP_ARCHIVE_PUT + 1,
    OPS_LEAF = STORE__REQUEST__OP_CAPS_PUT - STORE__REQUEST__OP_LEAF_LOAD + 1,
    OP_OTHER = METRIC_SIZE_OP - 1,
};
_Static_assert(OPS_OLD + OPS_ARCHIVE + OPS_LEAF == OP_OTHER, "labels.def: OP");

static unsigned op_label(const struct request *q)
{
    unsigned label = 0;
    for (size_t i = 0; i < array_len(op_ranges); i++) {
        const struct op_range *r = &op_ranges[i];
        if (q->op >= r->first && q->op <= r->last)
            return label + (q->op - r->first);
        label += r->last - r->first + 1;
    }
    return OP_OTHER;
}

static void gauge(struct store_client *c)
{
    metric_set(c->metrics, METRIC_store_queue, c->live);
    metric_set(c->metrics, METRIC_store_queue_bytes, c->live_bytes);
}

static void count(struct store_client *c, const struct request *q, err e)
{
    bool failed = e == ERR_AWAY || e == ERR_IO || e == ERR_DISK_FULL || e == ERR_BAD;
    enum metric_result r = e == ERR_OK ? RESULT_OK : failed ? RESULT_FAILED : RESULT_REFUSED;
    metric_add(c->metrics, METRIC_AT(store_requests, op_label(q), r), 1);
    if (q->submitted_us)
        metric_observe(c->metrics, HISTOGRAM_AT(store_request, op_label(q)),
                       loop_now_us(c->loop) - q->submitted_us);
}

/* ---- sending --------------------------------------------------------------------------------- */

static void pump(struct store_client *c)
{
    while (c->up && !list_empty(&c->waiting) && c->window < WINDOW_REQUESTS &&
           c->window_bytes < WINDOW_BYTES) {
        struct request *q = list_first(&c->waiting, struct request, link);
        list_remove(&q->link);
        list_push_back(&c->sent, &q->link);
        q->sent = true;
        c->window++;
        c->window_bytes += q->n;
        c->send(c->send_ctx, (const char *)q->data, q->n);
    }
}

/* The oldest request without an answer, or NULL; husks are passed over. */
static struct request *oldest(struct store_client *c)
{
    list_each(q, &c->sent, struct request, link)
        if (q->done)
            return q;
    return list_empty(&c->waiting) ? NULL : list_first(&c->waiting, struct request, link);
}

static void submit(struct store *s, struct Store__Request *req, store_done_f *done, void *ctx)
{
    struct store_client *c = container_of(s, struct store_client, door);
    req->id = ++c->next_id;
    size_t n = store__request__get_packed_size(req);
    bool full = c->live >= c->queue_max || c->live_bytes + n > c->queue_bytes_max;
    struct request *q = malloc(sizeof *q + (full ? 0 : n));
    must(q);
    *q = (struct request){.id = req->id, .done = done, .ctx = ctx, .op = req->op_case, .n = n};
    if (full) {
        list_push_back(&c->refused, &q->link);
        loop_at_turn_end(c->loop, &c->hook);
        return;
    }
    store__request__pack(req, q->data);
    q->submitted_us = loop_now_us(c->loop);
    q->due_ms = loop_now_ms(c->loop) + c->timeout_ms;
    list_push_back(&c->waiting, &q->link);
    c->live++;
    c->live_bytes += n;
    if (!timer_is_set(&c->timer))
        loop_timer_set(c->loop, &c->timer, c->timeout_ms);
    gauge(c);
    pump(c);
}
static const struct store_impl impl = {submit};

/* ---- answers --------------------------------------------------------------------------------- */

/* The request has its answer; it leaves the bounds, and done may submit again. */
static void answer(struct store_client *c, struct request *q, err e, const Store__Reply *r)
{
    store_done_f *done = q->done;
    q->done = NULL;
    c->live--;
    c->live_bytes -= q->n;
    gauge(c);
    count(c, q, e);
    done(q->ctx, e, r);
}

static void leave_window(struct store_client *c, struct request *q)
{
    list_remove(&q->link);
    c->window--;
    c->window_bytes -= q->n;
}

static void refuse(struct turn_hook *h)
{
    struct store_client *c = container_of(h, struct store_client, hook);
    struct list now;
    list_init(&now);
    list_append(&now, &c->refused); /* what is refused meanwhile gets a hook of its own */
    while (!list_empty(&now)) {
        struct request *q = list_first(&now, struct request, link);
        list_remove(&q->link);
        metric_add(c->metrics, METRIC_AT(store_requests, op_label(q), RESULT_FAILED), 1);
        q->done(q->ctx, ERR_FULL, NULL);
        free(q);
    }
}

/* In order of submission: after a reload to a shorter time-out a request waits for those before it,
 * no longer than their time. */
static void expire(struct timer *t)
{
    struct store_client *c = container_of(t, struct store_client, timer);
    uint64_t now = loop_now_ms(c->loop);
    struct request *q;
    while ((q = oldest(c)) && q->due_ms <= now) {
        bool husk = q->sent;
        if (!husk)
            list_remove(&q->link);
        answer(c, q, ERR_AWAY, NULL);
        if (!husk)
            free(q);
    }
    if (q)
        loop_timer_set(c->loop, &c->timer, q->due_ms - now);
}

static err err_of(Store__Result r)
{
    switch (r) {
    case STORE__RESULT__OK: return ERR_OK;
    case STORE__RESULT__NOT_FOUND: return ERR_NOT_FOUND;
    case STORE__RESULT__EXISTS: return ERR_EXISTS;
    case STORE__RESULT__FULL: return ERR_FULL;
    case STORE__RESULT__DISK_FULL: return ERR_DISK_FULL;
    case STORE__RESULT__BAD: return ERR_BAD;
    default: return ERR_IO;
    }
}

static void log_slow(struct store_client *c, const struct request *q)
{
    uint64_t us = loop_now_us(c->loop) - q->submitted_us;
    if (us < c->slow_us)
        return;
    const ProtobufCFieldDescriptor *op =
        protobuf_c_message_descriptor_get_field(&store__request__descriptor, q->op);
    LOG(c->log, store_slow, F_STR("op", str_of(op ? op->name : "none")), F_INT("ms", us / 1000),
        F_INT("queue", c->live));
}

/* Nearly always the first: the worker answers in order. */
static struct request *find_sent(struct store_client *c, uint64_t id)
{
    list_each(q, &c->sent, struct request, link) {
        if (q->id == id)
            return q;
        if (q->id > id)
            return NULL;
    }
    return NULL;
}

static void *arena_for_protobuf(void *arena, size_t n) { return arena_alloc(arena, n); }
static void arena_keeps(void *arena, void *p) {}

void store_client_on_frame(struct store_client *c, const char *p, size_t n)
{
    ProtobufCAllocator memory = {arena_for_protobuf, arena_keeps, &c->arena};
    Store__Reply *r = store__reply__unpack(&memory, n, (const uint8_t *)p);
    if (!r) {
        LOG(c->log, frame_refused, F_STR("peer", STR("store")), F_STR("reason", STR("no reply")));
        arena_reset(&c->arena);
        return;
    }
    struct request *q = find_sent(c, r->id);
    if (q) {
        leave_window(c, q);
        if (q->done) {
            log_slow(c, q);
            answer(c, q, err_of(r->result), r);
        }
        free(q);
    }
    arena_reset(&c->arena);
    pump(c);
    if (c->live == 0)
        loop_timer_stop(c->loop, &c->timer);
}

/* ---- the worker ------------------------------------------------------------------------------ */

void store_client_worker_down(struct store_client *c)
{
    c->up = false;
    c->window = c->window_bytes = 0;
    list_each(q, &c->sent, struct request, link) {
        q->sent = false;
        metric_add(c->metrics, METRIC_store_retries, q->done != NULL);
        if (!q->done) {
            list_remove(&q->link);
            free(q);
        }
    }
    list_append(&c->sent, &c->waiting); /* old before new */
    list_append(&c->waiting, &c->sent);
}

void store_client_worker_up(struct store_client *c)
{
    store_client_worker_down(c); /* a new one may come without a word that the old one went */
    c->up = true;
    pump(c);
}

/* ---- life ------------------------------------------------------------------------------------ */

void store_client_configure(struct store_client *c, const struct conf *conf)
{
    c->queue_max = conf->store_queue_max;
    c->queue_bytes_max = conf->store_queue_bytes_max;
    c->timeout_ms = (uint64_t)conf->store_timeout;
    c->slow_us = (uint64_t)conf->log_slow * 1000;
}

struct store_client *store_client_new(struct loop *loop, const struct conf *conf,
                                      struct metric_page *metrics, struct log *log,
                                      store_client_send_f *send, void *ctx)
{
    struct store_client *c = calloc(1, sizeof *c);
    must(c);
    c->door.impl = &impl;
    c->loop = loop, c->metrics = metrics, c->log = log;
    c->send = send, c->send_ctx = ctx;
    list_init(&c->waiting);
    list_init(&c->sent);
    list_init(&c->refused);
    timer_init(&c->timer, expire);
    c->hook = (struct turn_hook){.fn = refuse};
    list_init(&c->hook.link);
    arena_init(&c->arena);
    store_client_configure(c, conf);
    return c;
}

struct store *store_client_door(struct store_client *c) { return &c->door; }

void store_client_sample(struct store_client *c)
{
    const struct request *q = oldest(c);
    uint64_t us = q ? loop_now_us(c->loop) - q->submitted_us : 0;
    metric_set(c->metrics, METRIC_store_oldest_ms, us / 1000);
}

size_t store_client_waiting(const struct store_client *c) { return c->live; }

static void free_all(struct list *requests)
{
    list_each(q, requests, struct request, link)
        free(q);
}

void store_client_free(struct store_client *c)
{
    loop_timer_stop(c->loop, &c->timer);
    list_remove(&c->hook.link);
    free_all(&c->waiting);
    free_all(&c->sent);
    free_all(&c->refused);
    arena_close(&c->arena);
    free(c);
}
