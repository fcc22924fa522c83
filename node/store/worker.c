/* worker: the queue of requests and the batches.
 *
 * A batch is the requests that wait, up to batch_max, in one transaction: the fsync at its end is
 * what costs, so under load it is shared by many (group commit), and alone one pays for itself.
 * Waiting for more to come was rejected: while one batch syncs, the next gathers by itself.
 *
 * Each write runs in a savepoint. When the transaction as a whole fails (disk full, database
 * broken) it is rolled back and the same requests run once more with `refuse`: writes are answered
 * with the error, reads are done again against the last committed state. Replies leave after
 * that. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "node/store/ops.h"
#include "node/store/store.h"
#include "pemberley/list.h"

enum { OUT_ENOUGH = 8 << 20 }; /* bytes of replies that end a batch early */

struct request {
    struct list link;
    unsigned peer;
    size_t n;
    char data[];
};
struct reply {
    unsigned peer;
    size_t at, n; /* in out */
};

struct store_worker {
    struct db db;
    struct store_port *port;
    struct log *log;
    struct metric_page *metrics; /* may be NULL */
    struct list queue;           /* struct request */
    size_t queued;
    unsigned batch_max;
    struct arena arena;    /* of the batch */
    struct reply *replies; /* batch_max */
    size_t n_replies;
    char *out;
    size_t out_n, out_cap;
};

static void *arena_for_protobuf(void *arena, size_t n) { return arena_alloc(arena, n); }
static void arena_keeps(void *arena, void *p) {}

err store_worker_open(const struct store_worker_options *o, struct store_port *port,
                      struct log *log, char *text, size_t text_n, struct store_worker **out)
{
    struct store_worker *w = calloc(1, sizeof *w);
    must(w);
    err e = db_open(&w->db, o->path, o->sync_full, text, text_n);
    if (e != ERR_OK) {
        free(w);
        return e;
    }
    w->port = port, w->log = log;
    list_init(&w->queue);
    arena_init(&w->arena);
    store_worker_set_batch_max(w, o->batch_max);
    if (w->db.schema_from != schema_version)
        LOG(log, store_migrated, F_INT("from", w->db.schema_from), F_INT("to", schema_version));
    *out = w;
    return ERR_OK;
}

void store_worker_set_batch_max(struct store_worker *w, unsigned batch_max)
{
    w->batch_max = batch_max > 0 ? batch_max : 1;
    w->replies = realloc(w->replies, w->batch_max * sizeof *w->replies);
    must(w->replies);
}

void store_worker_set_metrics(struct store_worker *w, struct metric_page *metrics)
{
    w->metrics = metrics;
}

void store_worker_on_request(struct store_worker *w, unsigned peer, const char *p, size_t n)
{
    struct request *q = malloc(sizeof *q + n);
    must(q);
    q->peer = peer, q->n = n;
    if (n > 0)
        memcpy(q->data, p, n);
    list_push_back(&w->queue, &q->link);
    w->queued++;
}

static void drop(struct store_worker *w, struct request *q)
{
    list_remove(&q->link);
    w->queued--;
    free(q);
}

void store_worker_forget(struct store_worker *w, unsigned peer)
{
    list_each(q, &w->queue, struct request, link)
        if (q->peer == peer)
            drop(w, q);
}

bool store_worker_enough(const struct store_worker *w) { return w->queued >= w->batch_max; }

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

static void add_reply(struct store_worker *w, unsigned peer, Store__Reply *r)
{
    size_t n = store__reply__get_packed_size(r);
    must(n <= STORE_REPLY_MAX && w->n_replies < w->batch_max);
    if (w->out_cap - w->out_n < n) {
        w->out_cap = (w->out_n + n) * 2;
        must((w->out = realloc(w->out, w->out_cap)));
    }
    store__reply__pack(r, (uint8_t *)w->out + w->out_n);
    w->replies[w->n_replies++] = (struct reply){peer, w->out_n, n};
    w->out_n += n;
}

static void log_failure(struct store_worker *w, const char *op, err e)
{
    LOG(w->log, store_failed, F_STR("op", str_of(op)), F_STR("reason", str_of(db_why(&w->db))));
    if (e == ERR_DISK_FULL)
        LOG(w->log, disk_low, F_INT("free_bytes", db_disk_free(&w->db)));
}

/* What an op returns; *broken: the transaction cannot go on. */
static err run_write(struct store_worker *w, struct ops *x, const struct op_row *row,
                     const Store__Request *q, Store__Reply *r, bool *broken)
{
    err e = db_do(&w->db, savepoint);
    if (e == ERR_OK)
        e = ops_run(x, row, q, r);
    if (e == ERR_DISK_FULL || e == ERR_IO)
        log_failure(w, row->name, e);
    *broken = e == ERR_DISK_FULL || !db_in_transaction(&w->db);
    if (!*broken && e != ERR_OK)
        *broken = db_do(&w->db, rollback_op) != ERR_OK;
    if (!*broken)
        *broken = db_do(&w->db, release) != ERR_OK;
    return e;
}

static err run_read(struct store_worker *w, struct ops *x, const struct op_row *row,
                    const Store__Request *q, Store__Reply *r, bool *broken)
{
    bool before = db_in_transaction(&w->db);
    err e = ops_run(x, row, q, r);
    if (e == ERR_DISK_FULL || e == ERR_IO)
        log_failure(w, row->name, e);
    *broken = before && !db_in_transaction(&w->db);
    return e;
}

/* One request. refuse: ERR_OK, or what writes are answered. Returns an error only if the
 * transaction is broken. */
static err run_one(struct store_worker *w, const struct request *raw, size_t behind, err refuse)
{
    ProtobufCAllocator memory = {arena_for_protobuf, arena_keeps, &w->arena};
    struct ops x = {.db = &w->db, .arena = &w->arena, .queue = behind};
    Store__Reply r = STORE__REPLY__INIT;
    err e = ERR_BAD;
    bool broken = false;
    const Store__Request *q = NULL;
    if (raw->n <= STORE_REQUEST_MAX)
        q = store__request__unpack(&memory, raw->n, (const uint8_t *)raw->data);
    const struct op_row *row = q ? ops_row(q) : NULL;
    if (row && !row->write)
        e = run_read(w, &x, row, q, &r, &broken);
    else if (row && refuse != ERR_OK)
        e = refuse;
    else if (row)
        e = run_write(w, &x, row, q, &r, &broken);
    if (broken && refuse == ERR_OK)
        return e == ERR_DISK_FULL ? ERR_DISK_FULL : ERR_IO;
    if (e != ERR_OK)
        r.body_case = STORE__REPLY__BODY__NOT_SET;
    r.id = q ? q->id : 0;
    r.result = result_of(e);
    add_reply(w, raw->peer, &r);
    return ERR_OK;
}

static err commit(struct store_worker *w)
{
    err e = db_do(&w->db, commit);
    if (e != ERR_OK)
        log_failure(w, "commit", e);
    return e;
}

static err run_transaction(struct store_worker *w, err refuse)
{
    arena_reset(&w->arena);
    w->n_replies = 0, w->out_n = 0;
    /* A refusing run has only reads, and what they meet they answer one by one. */
    err e = refuse == ERR_OK ? db_do(&w->db, begin_write) : db_do(&w->db, begin_read);
    if (e != ERR_OK)
        log_failure(w, "begin", e);
    if (e != ERR_OK && refuse == ERR_OK)
        return e;
    e = ERR_OK;
    list_each(q, &w->queue, struct request, link) {
        if (w->n_replies == w->batch_max || w->out_n >= OUT_ENOUGH)
            break;
        if ((e = run_one(w, q, w->queued - w->n_replies - 1, refuse)) != ERR_OK)
            break;
    }
    if (e == ERR_OK && db_in_transaction(&w->db))
        e = commit(w);
    if (db_in_transaction(&w->db))
        sqlite3_exec(w->db.sqlite, "ROLLBACK", NULL, NULL, NULL);
    return refuse == ERR_OK ? e : ERR_OK;
}

static uint64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void count_batch(const struct store_worker *w, uint64_t began_us, err e)
{
    if (!w->metrics)
        return;
    metric_observe(w->metrics, HISTOGRAM_store_batch, w->n_replies);
    metric_observe(w->metrics, HISTOGRAM_store_commit, now_us() - began_us);
    metric_add(w->metrics, METRIC_store_batches_failed, e != ERR_OK);
}

void store_worker_sample(const struct store_worker *w)
{
    if (!w->metrics)
        return;
    metric_set(w->metrics, METRIC_store_database_bytes, db_bytes_on_disk(&w->db));
    metric_set(w->metrics, METRIC_store_disk_free_bytes, db_disk_free(&w->db));
    metric_set(w->metrics, METRIC_store_schema_version, (uint64_t)schema_version);
}

bool store_worker_run(struct store_worker *w)
{
    if (list_empty(&w->queue))
        return false;
    uint64_t began_us = now_us();
    err e = run_transaction(w, ERR_OK);
    if (e != ERR_OK)
        must(run_transaction(w, e) == ERR_OK);
    count_batch(w, began_us, e);
    for (size_t i = 0; i < w->n_replies; i++)
        drop(w, list_first(&w->queue, struct request, link));
    for (size_t i = 0; i < w->n_replies; i++) {
        struct reply *r = &w->replies[i];
        w->port->reply(w->port, r->peer, w->out + r->at, r->n);
    }
    return !list_empty(&w->queue);
}

void store_worker_close(struct store_worker *w)
{
    list_each(q, &w->queue, struct request, link)
        drop(w, q);
    db_close(&w->db);
    arena_close(&w->arena);
    free(w->replies);
    free(w->out);
    free(w);
}
