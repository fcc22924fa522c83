/* postgres: the back-end: its start, and the turns of its links. */
#include "node/store/postgres.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { OPEN_MS = 5000 }; /* for each host */

int64_t pg_now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

unsigned pg_dice(struct pg *pg, unsigned n)
{
    pg->dice = pg->dice * 6364136223846793005u + 1442695040888963407u;
    return n ? (unsigned)(pg->dice >> 33) % n : 0;
}

unsigned pg_up(const struct pg *pg)
{
    unsigned n = 0;
    for (unsigned i = 0; i < pg->backend.lanes; i++)
        n += pg->links[i].state == LINK_IDLE || pg->links[i].state == LINK_BUSY;
    return n;
}

/* ---- turns ----------------------------------------------------------------------------------- */

static struct pg *of(const struct backend *b)
{
    return container_of((struct backend *)b, struct pg, backend);
}

static short events_of(const struct link *l)
{
    if (l->state == LINK_CONNECTING)
        return l->polling == PGRES_POLLING_READING ? POLLIN : POLLOUT;
    return l->sending ? POLLIN | POLLOUT : POLLIN;
}

static size_t fds(const struct backend *b, struct pollfd *out, size_t max)
{
    const struct pg *pg = of(b);
    must(max >= b->lanes);
    for (unsigned i = 0; i < b->lanes; i++) {
        const struct link *l = &pg->links[i];
        out[i] = (struct pollfd){l->conn ? PQsocket(l->conn) : -1, events_of(l), 0};
    }
    return b->lanes;
}

/* Of those that are to connect one in a turn: the look-up of its host's name may take seconds. */
static void look_at_time(struct link *l, struct store_worker *w, int64_t now, bool *connected)
{
    static const char *const late[] = {[LINK_CONNECTING] = "no connection in time",
                                       [LINK_SETUP] = "no answer in time",
                                       [LINK_BUSY] = "no answer in time"};
    if (l->state == LINK_IDLE || now < l->deadline_ms)
        return;
    if (l->state == LINK_DOWN && !*connected)
        *connected = true, link_start(l);
    else if (l->state != LINK_DOWN)
        link_fail(l, w, late[l->state]);
}

static bool run(struct backend *b, struct store_worker *w)
{
    struct pg *pg = of(b);
    struct pollfd ready[LANES_MAX];
    size_t n = fds(b, ready, LANES_MAX);
    bool more = false, connected = false;
    if (poll(ready, n, 0) < 0)
        return false;
    int64_t now = pg_now_ms();
    for (unsigned i = 0; i < b->lanes; i++) {
        struct link *l = &pg->links[i];
        if (l->conn && ready[i].revents)
            link_on_ready(l, w, ready[i].revents), more = true;
        look_at_time(l, w, now, &connected);
        if (l->state == LINK_IDLE && now >= l->deadline_ms)
            more |= pg_batch_start(l, w);
    }
    if (w->metrics)
        metric_set(w->metrics, METRIC_store_connections, pg_up(pg));
    return more;
}

static int wait_ms(const struct backend *b, int ms)
{
    const struct pg *pg = of(b);
    int64_t now = pg_now_ms();
    for (unsigned i = 0; i < b->lanes; i++) {
        const struct link *l = &pg->links[i];
        if (l->deadline_ms == 0)
            continue;
        int64_t left = l->deadline_ms - now;
        ms = left >= ms ? ms : left > 0 ? (int)left : 0;
    }
    return ms;
}

static void set_timeout(struct backend *b, int64_t timeout_ms)
{
    of(b)->options.timeout_ms = timeout_ms;
}

static void sample(struct backend *b, struct metric_page *metrics)
{
    metric_set(metrics, METRIC_store_schema_version, (uint64_t)pg_schema_version);
}

/* ---- the start and the end ------------------------------------------------------------------- */

static void close_backend(struct backend *b)
{
    struct pg *pg = of(b);
    for (unsigned i = 0; i < b->lanes; i++) {
        struct link *l = &pg->links[i];
        link_close(l);
        batch_close(&l->batch);
        free(l->jobs);
        free(l->sent);
    }
}

static const struct backend_impl impl = {
    .name = "postgres",
    .run = run,
    .fds = fds,
    .wait_ms = wait_ms,
    .set_timeout = set_timeout,
    .sample = sample,
    .close = close_backend,
};

/* Waits, for the process has nothing else to do yet. */
static err connect_to(const struct pg *pg, unsigned host, char *text, size_t text_n, PGconn **out)
{
    struct pg_params p;
    if (pg_params_of(pg, host, &p, text, text_n) != ERR_OK)
        return ERR_IO;
    PGconn *conn = PQconnectStartParams(p.keys, p.values, 0);
    explicit_bzero(p.password, sizeof p.password);
    must(conn);
    int64_t until = pg_now_ms() + OPEN_MS;
    PostgresPollingStatusType s = PGRES_POLLING_WRITING;
    while (PQstatus(conn) != CONNECTION_BAD && s != PGRES_POLLING_OK && s != PGRES_POLLING_FAILED &&
           pg_now_ms() < until) {
        struct pollfd fd = {PQsocket(conn), s == PGRES_POLLING_READING ? POLLIN : POLLOUT, 0};
        poll(&fd, 1, (int)(until - pg_now_ms()) + 1);
        if (fd.revents)
            s = PQconnectPoll(conn);
    }
    *out = conn;
    if (s == PGRES_POLLING_OK)
        return ERR_OK;
    pg_message(PQerrorMessage(conn), text, text_n);
    if (!*text || s != PGRES_POLLING_FAILED)
        snprintf(text, text_n, "%s does not answer", pg->options.hosts[host]);
    PQfinish(conn);
    return ERR_AWAY;
}

static err connect_to_any(const struct pg *pg, char *text, size_t text_n, PGconn **out)
{
    err e = ERR_AWAY;
    for (unsigned i = 0; i < pg->options.hosts_n && e != ERR_OK; i++)
        e = connect_to(pg, i, text, text_n, out);
    return e;
}

static err prepare_database(const struct pg *pg, struct log *log, char *text, size_t text_n)
{
    PGconn *conn;
    int from = 0;
    err e = connect_to_any(pg, text, text_n, &conn);
    if (e != ERR_OK)
        return e;
    PQsetNoticeProcessor(conn, pg_no_notice, NULL);
    e = pg_schema_migrate(conn, pg, &from, text, text_n);
    PQfinish(conn);
    if (e == ERR_OK && from < pg_schema_version)
        LOG(log, store_migrated, F_INT("from", from), F_INT("to", pg_schema_version));
    return e;
}

err store_postgres_open(const struct store_worker_options *o, struct log *log, char *text,
                        size_t text_n, struct backend **out)
{
    unsigned n = o->postgres->connections;
    must(n >= 1 && n <= LANES_MAX && o->postgres->hosts_n > 0);
    struct pg *pg = calloc(1, sizeof *pg + n * sizeof *pg->links);
    must(pg);
    pg->backend = (struct backend){&impl, n};
    pg->log = log, pg->options = *o->postgres, pg->sync_full = o->sync_full;
    pg->dice = (uint64_t)pg_now_ms() ^ (uintptr_t)pg;
    *text = 0;
    err e = prepare_database(pg, log, text, text_n);
    if (e != ERR_OK) {
        free(pg);
        return e;
    }
    for (unsigned i = 0; i < n; i++) {
        pg->links[i] = (struct link){.pg = pg, .lane = i, .deadline_ms = pg_now_ms()};
        pg_sql_open(&pg->links[i]);
    }
    *out = &pg->backend;
    return ERR_OK;
}
