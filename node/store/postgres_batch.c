/* postgres_batch: requests as statements of one pipeline, its results as answers, and what follows
 * from an error in it.
 *
 * Requests stay at the head of their lane until the batch has been committed, or each has been
 * found out to fail: `decided`. A batch is run again without those. That ends: each run either
 * decides one, or fails by nobody's fault, which it may TRIES_MAX times. */
#include <endian.h>
#include <stdio.h>
#include <stdlib.h>

#include "node/store/postgres.h"

enum {
    READS_MAX = 32,        /* the answer of each may have megabytes */
    READS_BESIDE_MAX = 16, /* writes */
    BATCH_BYTES = 4 << 20, /* of requests */
    TRIES_MAX = 8,         /* of what is nobody's fault */
    PAUSE_MS = 4,          /* between them, doubled each time, with dice */
    OID_BYTEA = 17,
    OID_INT8 = 20,
    OID_INT8_ARRAY = 1016,
};

static const struct text {
    const char *name, *args, *sql;
} texts[SQL_MAX] = {
#define STATEMENT(name, args, sqlite, postgres) {#name, args, postgres},
#include "node/store/statements.def"
};

/* Zero by division: fenced; an overflow: the row belongs to a later link. */
static const char fence_check[] = "SELECT 1 / CASE WHEN epoch > 0 THEN 0 ELSE 1 END"
                                  " + 9223372036854775807 * CASE WHEN link = $3 THEN 0 ELSE 2 END"
                                  " FROM fence WHERE node = $1 AND lane = $2";

/* That the row is of this link, without whether the node is fenced: for who lifts the fence. */
static const char link_check[] =
    "SELECT 9223372036854775807 * CASE WHEN link = $3 THEN 0 ELSE 2 END"
    " FROM fence WHERE node = $1 AND lane = $2 FOR SHARE";

/* ---- sending --------------------------------------------------------------------------------- */

void pg_expect(struct link *l, enum sent_what what, struct job *job, sql_row_f *on_row)
{
    if (l->sent_n == l->sent_cap) {
        l->sent_cap = l->sent_cap ? l->sent_cap * 2 : 64;
        must((l->sent = realloc(l->sent, l->sent_cap * sizeof *l->sent)));
    }
    l->sent[l->sent_n++] = (struct sent){what, job, on_row};
}

static Oid oid_of(char arg)
{
    return arg == 'i' ? OID_INT8 : arg == 'a' ? OID_INT8_ARRAY : OID_BYTEA;
}

static bool prepare(struct link *l, const char *name, const char *sql, const char *args)
{
    char text[2048];
    Oid types[SQL_ARGS_MAX];
    int n = (int)strlen(args), at = snprintf(text, sizeof text, "%s", sql);
    must(n <= SQL_ARGS_MAX && at < (int)sizeof text);
    for (char *p = text; *p; p++)
        *p = *p == '?' ? '$' : *p;
    for (int i = 0; i < n; i++)
        types[i] = oid_of(args[i]);
    pg_expect(l, SENT_SETUP, NULL, NULL);
    return PQsendPrepare(l->conn, name, text, n, types);
}

bool pg_prepare_all(struct link *l)
{
    char share[sizeof fence_check + 16];
    snprintf(share, sizeof share, "%s FOR SHARE", fence_check);
    bool good = prepare(l, "fence_read", fence_check, "tii") &&
                prepare(l, "fence_write", share, "tii") &&
                prepare(l, "fence_link", link_check, "tii");
    for (int i = 0; good && i < SQL_MAX; i++)
        if (*texts[i].sql)
            good = prepare(l, texts[i].name, texts[i].sql, texts[i].args);
    return good;
}

/* An int8[] in binary: dimensions, has no NULLs, type; length and lower bound; elements. */
static str array_of(struct arena *arena, const struct sql_arg *a)
{
    size_t n = (size_t)a->i;
    uint32_t head[] = {htobe32(n > 0), 0, htobe32(OID_INT8), htobe32((uint32_t)n), htobe32(1)};
    char *bytes = arena_alloc(arena, sizeof head + n * 12), *p = bytes;
    p = mempcpy(p, head, n > 0 ? sizeof head : 12);
    for (size_t i = 0; i < n; i++) {
        uint32_t size = htobe32(8);
        uint64_t v = htobe64(a->ids[i]);
        p = mempcpy(p, &size, sizeof size);
        p = mempcpy(p, &v, sizeof v);
    }
    return str_from(bytes, (size_t)(p - bytes));
}

static bool send_prepared(struct link *l, const char *name, const struct sql_arg *a, size_t n)
{
    const char *values[SQL_ARGS_MAX];
    int lengths[SQL_ARGS_MAX], formats[SQL_ARGS_MAX];
    uint64_t numbers[SQL_ARGS_MAX];
    must(n <= SQL_ARGS_MAX);
    for (size_t i = 0; i < n; i++) {
        str s = a[i].kind == SQL_ARG_IDS ? array_of(&l->batch.arena, &a[i]) : a[i].s;
        numbers[i] = htobe64((uint64_t)a[i].i);
        if (a[i].kind == SQL_ARG_INT)
            s = str_from((const char *)&numbers[i], sizeof numbers[i]);
        values[i] = s.p ? s.p : ""; /* a NULL pointer would be NULL, not an empty value */
        lengths[i] = (int)s.n, formats[i] = 1;
    }
    return PQsendQueryPrepared(l->conn, name, (int)n, values, lengths, formats, 1);
}

static void run_statement(struct sql *sql, struct ops *x, enum statement s, sql_row_f *on_row,
                          const struct sql_arg *a, size_t n)
{
    struct link *l = container_of(sql, struct link, sql);
    if (!*texts[s].sql)
        return;
    pg_expect(l, SENT_OP, container_of(x, struct job, ops), on_row);
    if (!send_prepared(l, texts[s].name, a, n))
        x->e = ERR_AWAY; /* the connection is gone: the link finds out at the end */
}

void pg_sql_open(struct link *l)
{
    l->sql = (struct sql){run_statement, NULL, pg_schema_version};
    batch_open(&l->batch);
}

static bool send_text(struct link *l, enum sent_what what, const char *sql)
{
    pg_expect(l, what, NULL, NULL);
    return PQsendQueryParams(l->conn, sql, 0, NULL, NULL, NULL, NULL, 1);
}

static bool lifts_fence(const struct job *j) { return j->row && j->row->run == op_node_admit; }

static bool send_fence(struct link *l, bool write)
{
    pg_expect(l, SENT_FENCE, NULL, NULL);
    const struct sql_arg a[] = {A_TEXT(str_of(l->pg->options.node)), A_INT(l->lane),
                                A_INT(l->fence)};
    const char *check = write ? "fence_write" : "fence_read";
    return send_prepared(l, lifts_fence(&l->jobs[0]) ? "fence_link" : check, a, array_len(a));
}

/* After a reload. */
static bool send_timeout(struct link *l)
{
    char sql[64];
    if (l->timeout_ms == l->pg->options.timeout_ms)
        return true;
    l->timeout_ms = l->pg->options.timeout_ms;
    snprintf(sql, sizeof sql, "SET statement_timeout = %lld", (long long)l->timeout_ms);
    bool good = send_text(l, SENT_CONTROL, sql);
    snprintf(sql, sizeof sql, "SET lock_timeout = %lld", (long long)l->timeout_ms / 2);
    return good && send_text(l, SENT_CONTROL, sql);
}

/* ---- a batch --------------------------------------------------------------------------------- */

static void decide(struct job *j, err e)
{
    j->request->decided = true;
    j->request->verdict = e;
}

/* Whether it still fits in; what it is decides what may follow. Who lifts the fence is alone: it is
 * not held by it. */
static bool take(struct link *l, struct request *q, size_t behind, unsigned *reads, bool *write)
{
    struct job *j = &l->jobs[l->jobs_n];
    job_decode(j, q, &l->sql, &l->batch.arena, behind);
    if (!j->row)
        decide(j, ERR_BAD);
    if (l->jobs_n > 0 && (lifts_fence(j) || lifts_fence(&l->jobs[0])))
        return false;
    bool writes = *write || (j->row && j->row->write);
    unsigned n = *reads + (j->row && !j->row->write);
    if (n > (writes ? READS_BESIDE_MAX : READS_MAX) && l->jobs_n > 0)
        return false;
    *write = writes, *reads = n;
    l->jobs_n++;
    return true;
}

static void take_all(struct link *l, struct store_worker *w, bool *write)
{
    struct lane *lane = &w->lanes[l->lane];
    unsigned reads = 0;
    size_t bytes = 0;
    if (l->jobs_cap < w->batch_max) {
        l->jobs_cap = w->batch_max;
        must((l->jobs = realloc(l->jobs, l->jobs_cap * sizeof *l->jobs)));
    }
    l->jobs_n = 0;
    list_each(q, &lane->queue, struct request, link) {
        bytes += q->n;
        if (l->jobs_n == w->batch_max || (l->jobs_n > 0 && bytes > BATCH_BYTES) ||
            !take(l, q, lane->queued - l->jobs_n - 1, &reads, write))
            break;
    }
    lane->running = l->jobs_n;
}

/* Whether any statement was sent. */
static bool send_jobs(struct link *l)
{
    size_t before = l->sent_n;
    for (unsigned i = 0; i < l->jobs_n; i++) {
        struct job *j = &l->jobs[i];
        if (j->request->decided)
            continue;
        err e = ops_begin(&j->ops);
        if (e != ERR_OK)
            decide(j, e); /* what it has handed over has no effect */
    }
    return l->sent_n > before;
}

static void answer(struct link *l, struct store_worker *w)
{
    for (unsigned i = 0; i < l->jobs_n; i++) {
        struct job *j = &l->jobs[i];
        batch_answer(&l->batch, j, j->request->decided ? j->request->verdict : ops_end(&j->ops));
    }
    batch_deliver(&l->batch, w, &w->lanes[l->lane], l->failed);
    l->tries = 0;
    l->failed = false;
}

bool pg_batch_start(struct link *l, struct store_worker *w)
{
    if (list_empty(&w->lanes[l->lane].queue))
        return false;
    bool write = false;
    batch_begin(&l->batch);
    take_all(l, w, &write);
    l->failure = (struct failure){0};
    l->committed = false;
    bool good = (!l->in_error || send_text(l, SENT_CONTROL, "ROLLBACK")) && send_timeout(l) &&
                send_text(l, SENT_CONTROL, "BEGIN") && send_fence(l, write);
    l->in_error = false;
    l->state = LINK_BUSY;
    l->deadline_ms = pg_now_ms() + 2 * l->timeout_ms;
    if (good)
        send_jobs(l);
    if (!good || !send_text(l, SENT_COMMIT, "COMMIT") || !PQpipelineSync(l->conn)) {
        char why[400];
        pg_message(PQerrorMessage(l->conn), why, sizeof why);
        link_fail(l, w, why);
        return true;
    }
    link_flush(l, w);
    return true;
}

/* ---- its end --------------------------------------------------------------------------------- */

static bool is(const struct failure *f, const char *state)
{
    return strncmp(f->state, state, strlen(state)) == 0;
}

static void log_failure(struct link *l, const char *op)
{
    LOG(l->pg->log, store_failed, F_STR("op", str_of(op)), F_STR("reason", str_of(l->failure.why)));
}

static const char *op_of(const struct failure *f)
{
    if (f->what == SENT_OP)
        return f->job->row->name;
    return f->what == SENT_COMMIT ? "commit" : "begin";
}

/* The server cannot write (53: resources, 58: its disk, XX: itself): reads are tried again. */
static void refuse_writes(struct link *l)
{
    err e = is(&l->failure, "53100") ? ERR_DISK_FULL : ERR_IO;
    log_failure(l, op_of(&l->failure));
    for (unsigned i = 0; i < l->jobs_n; i++)
        if (l->jobs[i].row && l->jobs[i].row->write && !l->jobs[i].request->decided)
            decide(&l->jobs[i], e);
    if (l->failure.what == SENT_OP && !l->failure.job->request->decided)
        decide(l->failure.job, e);
}

static void refuse_all(struct link *l)
{
    for (unsigned i = 0; i < l->jobs_n; i++)
        if (!l->jobs[i].request->decided)
            decide(&l->jobs[i], ERR_IO);
}

/* Nobody's fault: serialization, deadlock, a lock or statement that took too long, or a key that
 * another connection has just put (a former link's late commit). */
static bool transient(const struct failure *f)
{
    return is(f, "40") || is(f, "55P03") || is(f, "57014") || is(f, "23505");
}

static void try_again(struct link *l)
{
    l->deadline_ms = pg_now_ms() + pg_dice(l->pg, PAUSE_MS << l->tries);
    l->tries++;
}

/* Whether the link is still of use. */
static bool weigh(struct link *l, struct store_worker *w)
{
    struct failure *f = &l->failure;
    if (is(f, "57P") || is(f, "25006") || is(f, "08") || is(f, "26000") ||
        (f->what == SENT_FENCE && is(f, "22003"))) {
        link_fail(l, w, is(f, "22003") ? "another store worker has the name of this node" : f->why);
        return false;
    }
    if (f->what == SENT_FENCE && is(f, "22012")) {
        snprintf(f->why, sizeof f->why, "this node is fenced: an epoch without it holds");
        log_failure(l, "fence");
        refuse_all(l);
    } else if (transient(f) && l->tries < TRIES_MAX) {
        try_again(l);
    } else if (f->what == SENT_OP && is(f, "22012")) {
        decide(f->job, ERR_FULL); /* a guard */
    } else if (is(f, "53") || is(f, "58") || is(f, "XX")) {
        refuse_writes(l);
    } else if (f->what == SENT_OP) {
        log_failure(l, op_of(f));
        decide(f->job, ERR_IO);
    } else {
        log_failure(l, op_of(f));
        refuse_all(l);
    }
    return true;
}

static bool all_decided(const struct link *l)
{
    for (unsigned i = 0; i < l->jobs_n; i++)
        if (!l->jobs[i].request->decided)
            return false;
    return true;
}

void pg_batch_end(struct link *l, struct store_worker *w)
{
    l->state = LINK_IDLE;
    l->deadline_ms = 0;
    if (!l->failure.any && l->committed) {
        answer(l, w);
        return;
    }
    l->failed = true;
    l->in_error = true;
    w->lanes[l->lane].running = 0;
    if (!l->failure.any) {
        l->failure = (struct failure){.any = true, .what = SENT_COMMIT};
        snprintf(l->failure.why, sizeof l->failure.why, "the transaction was not committed");
    }
    if (!weigh(l, w))
        return;
    if (all_decided(l))
        answer(l, w);
}
