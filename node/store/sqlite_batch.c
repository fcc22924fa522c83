/* sqlite_batch: batches on SQLite, which runs each statement at once.
 *
 * Each write runs in a savepoint. When the transaction as a whole fails (disk full, database
 * broken) it is rolled back and the same requests run once more with `refuse`: writes are answered
 * with the error, reads are done again against the last committed state. Replies leave after
 * that. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

#include "node/store/backend.h"
#include "node/store/sqlite.h"

enum { OUT_ENOUGH = 8 << 20 }; /* bytes of replies that end a batch early */

struct sqlite {
    struct backend backend;
    struct sql sql;
    struct db db;
    struct batch batch;
    struct log *log;
};

static struct sql_arg json_of(struct arena *arena, const struct sql_arg *a)
{
    size_t n = 0, count = (size_t)a->i;
    char *text = arena_alloc(arena, count * 20 + 2);
    text[n++] = '[';
    for (size_t i = 0; i < count; i++)
        n += (size_t)sprintf(text + n, i ? ",%llu" : "%llu", (unsigned long long)a->ids[i]);
    text[n++] = ']';
    return (struct sql_arg){SQL_ARG_IDS, 0, str_from(text, n), NULL};
}

static void run_statement(struct sql *sql, struct ops *x, enum statement s, sql_row_f *on_row,
                          const struct sql_arg *a, size_t n)
{
    struct sqlite *b = container_of(sql, struct sqlite, sql);
    struct sql_arg args[SQL_ARGS_MAX];
    must(n <= SQL_ARGS_MAX);
    if (!b->db.statements[s]) /* an empty text */
        return;
    for (size_t i = 0; i < n; i++)
        args[i] = a[i].kind == SQL_ARG_IDS ? json_of(x->arena, &a[i]) : a[i];
    x->e = db_run(&b->db, x, s, on_row, args, n);
}

static uint64_t disk_free(const struct sql *sql)
{
    return db_disk_free(&container_of(sql, const struct sqlite, sql)->db);
}

static void log_failure(struct sqlite *b, const char *op, err e)
{
    LOG(b->log, store_failed, F_STR("op", str_of(op)), F_STR("reason", str_of(db_why(&b->db))));
    if (e == ERR_DISK_FULL)
        LOG(b->log, disk_low, F_INT("free_bytes", db_disk_free(&b->db)));
}

static err execute(struct sqlite *b, struct job *j)
{
    err e = ops_begin(&j->ops);
    if (e == ERR_OK)
        e = ops_end(&j->ops);
    if (e == ERR_DISK_FULL || e == ERR_IO)
        log_failure(b, j->row->name, e);
    return e;
}

/* What an op returns; *broken: the transaction cannot go on. */
static err run_write(struct sqlite *b, struct job *j, bool *broken)
{
    err e = db_control(&b->db, DB_SAVEPOINT);
    if (e == ERR_OK)
        e = execute(b, j);
    else
        log_failure(b, j->row->name, e);
    *broken = e == ERR_DISK_FULL || !db_in_transaction(&b->db);
    if (!*broken && e != ERR_OK)
        *broken = db_control(&b->db, DB_UNDO) != ERR_OK;
    if (!*broken)
        *broken = db_control(&b->db, DB_RELEASE) != ERR_OK;
    return e;
}

static err run_read(struct sqlite *b, struct job *j, bool *broken)
{
    bool before = db_in_transaction(&b->db);
    err e = execute(b, j);
    *broken = before && !db_in_transaction(&b->db);
    return e;
}

/* One request. refuse: ERR_OK, or what writes are answered. Returns an error only if the
 * transaction is broken. */
static err run_one(struct sqlite *b, struct job *j, err refuse)
{
    err e = ERR_BAD;
    bool broken = false;
    if (j->row && !j->row->write)
        e = run_read(b, j, &broken);
    else if (j->row && refuse != ERR_OK)
        e = refuse;
    else if (j->row)
        e = run_write(b, j, &broken);
    if (broken && refuse == ERR_OK)
        return e == ERR_DISK_FULL ? ERR_DISK_FULL : ERR_IO;
    batch_answer(&b->batch, j, e);
    return ERR_OK;
}

static err run_all(struct sqlite *b, struct store_worker *w, err refuse)
{
    struct lane *lane = &w->lanes[0];
    err e = ERR_OK;
    list_each(q, &lane->queue, struct request, link) {
        if (b->batch.n_replies == w->batch_max || b->batch.out_n >= OUT_ENOUGH)
            break;
        struct job j;
        job_decode(&j, q, &b->sql, &b->batch.arena, lane->queued - b->batch.n_replies - 1);
        if ((e = run_one(b, &j, refuse)) != ERR_OK)
            break;
    }
    return e;
}

static err run_transaction(struct sqlite *b, struct store_worker *w, err refuse)
{
    batch_begin(&b->batch);
    /* A refusing run has only reads, and what they meet they answer one by one. */
    err e = db_control(&b->db, refuse == ERR_OK ? DB_BEGIN_WRITE : DB_BEGIN_READ);
    if (e != ERR_OK)
        log_failure(b, "begin", e);
    if (e != ERR_OK && refuse == ERR_OK)
        return e;
    e = run_all(b, w, refuse);
    if (e == ERR_OK && db_in_transaction(&b->db) && (e = db_control(&b->db, DB_COMMIT)) != ERR_OK)
        log_failure(b, "commit", e);
    if (db_in_transaction(&b->db))
        sqlite3_exec(b->db.sqlite, "ROLLBACK", NULL, NULL, NULL);
    return refuse == ERR_OK ? e : ERR_OK;
}

static bool run(struct backend *backend, struct store_worker *w)
{
    struct sqlite *b = container_of(backend, struct sqlite, backend);
    struct lane *lane = &w->lanes[0];
    if (list_empty(&lane->queue))
        return false;
    err e = run_transaction(b, w, ERR_OK);
    if (e != ERR_OK)
        must(run_transaction(b, w, e) == ERR_OK);
    batch_deliver(&b->batch, w, lane, e != ERR_OK);
    return !list_empty(&lane->queue);
}

static void sample(struct backend *backend, struct metric_page *metrics)
{
    struct sqlite *b = container_of(backend, struct sqlite, backend);
    metric_set(metrics, METRIC_store_database_bytes, db_bytes_on_disk(&b->db));
    metric_set(metrics, METRIC_store_disk_free_bytes, db_disk_free(&b->db));
    metric_set(metrics, METRIC_store_schema_version, (uint64_t)sqlite_schema_version);
    metric_set(metrics, METRIC_store_connections, 1);
}

static void close_backend(struct backend *backend)
{
    struct sqlite *b = container_of(backend, struct sqlite, backend);
    db_close(&b->db);
    batch_close(&b->batch);
}

static const struct backend_impl impl = {
    .name = "sqlite",
    .run = run,
    .sample = sample,
    .close = close_backend,
};

err sqlite_open(const struct store_worker_options *o, struct log *log, char *text, size_t text_n,
                struct backend **out)
{
    struct sqlite *b = calloc(1, sizeof *b);
    must(b);
    err e = db_open(&b->db, o->path, o->sync_full, text, text_n);
    if (e != ERR_OK) {
        free(b);
        return e;
    }
    b->backend = (struct backend){&impl, 1};
    b->sql = (struct sql){run_statement, disk_free, sqlite_schema_version};
    b->log = log;
    batch_open(&b->batch);
    if (b->db.schema_from != sqlite_schema_version)
        LOG(log, store_migrated, F_INT("from", b->db.schema_from),
            F_INT("to", sqlite_schema_version));
    *out = &b->backend;
    return ERR_OK;
}
