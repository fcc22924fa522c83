/* postgres_link: one connection: parameters, connecting, the setup, its loss. Nothing here blocks
 * but the look-up of a host's name, which libpq does in PQconnectStart. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "node/store/postgres.h"

enum {
    CONNECT_MS = 5000,
    BACKOFF_MIN_MS = 100,
    BACKOFF_MAX_MS = 5000,
    SETUP_MS = 10000,
};

void pg_message(const char *from, char *text, size_t text_n)
{
    size_t n = 0;
    for (const char *p = from; *p && n + 1 < text_n; p++) {
        bool space = isspace((unsigned char)*p);
        if (!space || (n > 0 && text[n - 1] != ' '))
            text[n++] = space ? ' ' : *p;
    }
    while (n > 0 && text[n - 1] == ' ')
        n--;
    text[n] = 0;
}

void pg_no_notice(void *arg, const char *message) {}

/* ---- parameters ------------------------------------------------------------------------------ */

/* host, host:port, [address]:port; an address with colons and no brackets has no port. */
static void split_host(const char *from, struct pg_params *p)
{
    const char *end = from + strlen(from), *colon = strrchr(from, ':');
    const char *bracket = *from == '[' ? strchr(from, ']') : NULL;
    if (bracket)
        colon = bracket[1] == ':' ? bracket + 1 : NULL;
    else if (colon && memchr(from, ':', (size_t)(colon - from)))
        colon = NULL;
    const char *start = bracket ? from + 1 : from;
    const char *stop = bracket ? bracket : colon ? colon : end;
    snprintf(p->host, sizeof p->host, "%.*s", (int)(stop - start), start);
    snprintf(p->port, sizeof p->port, "%s", colon ? colon + 1 : "5432");
}

/* The first line. Group rights are a service manager's way to hand a file over. */
static err read_password(const char *file, char *out, size_t n, char *text, size_t text_n)
{
    struct stat st;
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd >= 0 ? read(fd, out, n - 1) : -1;
    if (got < 0)
        snprintf(text, text_n, "cannot read %s: %s", file, strerror(errno));
    else if (fstat(fd, &st) == 0 && (st.st_mode & S_IRWXO)) {
        snprintf(text, text_n, "%s may be read by everybody: chmod o= it", file);
        got = -1;
    }
    if (fd >= 0)
        close(fd);
    out[got > 0 ? got : 0] = 0;
    out[strcspn(out, "\r\n")] = 0;
    return got < 0 ? ERR_IO : ERR_OK;
}

static const char *ca_of(const struct store_postgres *o)
{
    if (o->tls == STORE_TLS_REQUIRE || o->tls == STORE_TLS_OFF)
        return NULL; /* a file would make libpq verify after all */
    return *o->ca_file ? o->ca_file : "/etc/ssl/certs/ca-certificates.crt";
}

err pg_params_of(const struct pg *pg, unsigned host, struct pg_params *p, char *text, size_t text_n)
{
    static const char *const modes[] = {"verify-full", "verify-ca", "require", "disable"};
    const struct store_postgres *o = &pg->options;
    *p = (struct pg_params){0};
    split_host(o->hosts[host], p);
    if (*o->password_file &&
        read_password(o->password_file, p->password, sizeof p->password, text, text_n) != ERR_OK)
        return ERR_IO;
    snprintf(p->name, sizeof p->name, "pemberley %s", o->node);
    const char *const all[][2] = {
        {"host", p->host},
        {"port", p->port},
        {"dbname", o->database},
        {"user", o->user},
        {"password", *p->password ? p->password : NULL},
        {"sslmode", modes[o->tls]},
        {"sslrootcert", ca_of(o)},
        {"gssencmode", "disable"},
        {"target_session_attrs", "read-write"},
        {"application_name", p->name},
        {"client_encoding", "UTF8"},
        {"connect_timeout", "5"},
    };
    size_t n = 0;
    for (size_t i = 0; i < array_len(all); i++)
        if (all[i][1])
            p->keys[n] = all[i][0], p->values[n++] = all[i][1];
    must(n < PG_PARAMS);
    return ERR_OK;
}

/* ---- the loss -------------------------------------------------------------------------------- */

static void log_lost(struct link *l, const char *why)
{
    struct pg *pg = l->pg;
    if (pg_up(pg) > 0)
        return;
    if (pg->lost_ms == 0)
        pg->lost_ms = pg_now_ms();
    else if (strcmp(pg->lost_why, why) == 0)
        return;
    snprintf(pg->lost_why, sizeof pg->lost_why, "%s", why);
    LOG(pg->log, store_lost, F_STR("backend", STR("postgres")), F_STR("reason", str_of(why)));
}

static int64_t back_off(struct link *l)
{
    unsigned rounds = l->failures / (unsigned)l->pg->options.hosts_n;
    int64_t ms = BACKOFF_MIN_MS << (rounds < 6 ? rounds : 6);
    ms = ms < BACKOFF_MAX_MS ? ms : BACKOFF_MAX_MS;
    return ms / 2 + pg_dice(l->pg, (unsigned)(ms / 2) + 1);
}

void link_close(struct link *l)
{
    PQfinish(l->conn);
    l->conn = NULL;
    l->state = LINK_DOWN;
    l->sent_n = l->sent_at = 0;
    l->sending = l->in_error = false;
    l->failure = (struct failure){0};
}

/* The hosts in turn; after a round, a pause. */
void link_fail(struct link *l, struct store_worker *w, const char *why)
{
    bool was_up = l->state == LINK_IDLE || l->state == LINK_BUSY;
    if (l->state == LINK_BUSY) {
        l->pg->replayed += l->jobs_n;
        l->failed = true;
        w->lanes[l->lane].running = 0;
    }
    char text[400];
    snprintf(text, sizeof text, "%s", why); /* it may be the connection's own */
    link_close(l);
    l->tries = 0;
    l->failures = was_up ? 0 : l->failures + 1;
    l->host = was_up ? 0 : (l->host + 1) % (unsigned)l->pg->options.hosts_n;
    l->deadline_ms = pg_now_ms() + (!was_up && l->host != 0 ? 0 : back_off(l));
    log_lost(l, text);
}

static void fail_by_libpq(struct link *l, struct store_worker *w)
{
    char why[400];
    pg_message(PQerrorMessage(l->conn), why, sizeof why);
    link_fail(l, w, *why ? why : "the connection was closed");
}

/* ---- the setup ------------------------------------------------------------------------------- */

static bool setup_text(struct link *l, const char *sql, sql_row_f *on_row)
{
    pg_expect(l, SENT_SETUP, NULL, on_row);
    return PQsendQueryParams(l->conn, sql, 0, NULL, NULL, NULL, NULL, 1);
}

/* Statements wait for other nodes' locks no longer than half their time. */
static bool setup_session(struct link *l)
{
    char statement[64], lock[64];
    l->timeout_ms = l->pg->options.timeout_ms;
    snprintf(statement, sizeof statement, "SET statement_timeout = %lld", (long long)l->timeout_ms);
    snprintf(lock, sizeof lock, "SET lock_timeout = %lld", (long long)l->timeout_ms / 2);
    /* full: at least what a COMMIT promises on this server, even if its default is less */
    const char *sync = l->pg->sync_full ? "SELECT set_config('synchronous_commit', 'on', false)"
                                          " WHERE current_setting('synchronous_commit') = 'off'"
                                        : "SET synchronous_commit = off";
    return setup_text(l, statement, NULL) && setup_text(l, lock, NULL) && setup_text(l, sync, NULL);
}

/* The fence row: what a former link may still have under way ends first. */
static bool setup_fence(struct link *l)
{
    const char *node = l->pg->options.node;
    char lane[16];
    int lane_n = snprintf(lane, sizeof lane, "%u", l->lane);
    const char *values[] = {node, lane};
    int lengths[] = {(int)strlen(node), lane_n}, formats[] = {1, 0};
    pg_expect(l, SENT_SETUP, NULL, NULL);
    return PQsendQueryParams(l->conn,
                             "INSERT INTO fence (node, lane, link) VALUES ($1, $2, 1)"
                             " ON CONFLICT (node, lane) DO UPDATE SET link = fence.link + 1"
                             " RETURNING link",
                             2, (const Oid[]){17, 20}, values, lengths, formats, 1);
}

static void begin_setup(struct link *l, struct store_worker *w)
{
    PQsetNoticeProcessor(l->conn, pg_no_notice, NULL);
    PQsetnonblocking(l->conn, 1);
    l->state = LINK_SETUP;
    l->deadline_ms = pg_now_ms() + SETUP_MS;
    bool good = PQenterPipelineMode(l->conn) && setup_session(l) && setup_fence(l) &&
                pg_prepare_all(l) && PQpipelineSync(l->conn);
    if (good)
        link_flush(l, w);
    else
        fail_by_libpq(l, w);
}

/* A database that another program has changed meanwhile is known by the failing prepares. */
static void end_setup(struct link *l, struct store_worker *w)
{
    if (l->failure.any) {
        char why[sizeof l->failure.why + 32];
        snprintf(why, sizeof why, "connection set up: %s", l->failure.why);
        link_fail(l, w, why);
        return;
    }
    l->state = LINK_IDLE;
    l->deadline_ms = 0;
    l->failures = 0;
    struct pg *pg = l->pg;
    if (pg->lost_ms == 0)
        return;
    LOG(pg->log, store_back, F_STR("backend", STR("postgres")),
        F_INT("ms", pg_now_ms() - pg->lost_ms), F_INT("replayed", pg->replayed));
    pg->lost_ms = 0, pg->replayed = 0, pg->lost_why[0] = 0;
}

/* ---- connecting ------------------------------------------------------------------------------ */

void link_start(struct link *l)
{
    struct pg_params p;
    char why[400] = "";
    if (pg_params_of(l->pg, l->host, &p, why, sizeof why) == ERR_OK) {
        l->conn = PQconnectStartParams(p.keys, p.values, 0);
        must(l->conn);
        if (PQstatus(l->conn) != CONNECTION_BAD) {
            l->state = LINK_CONNECTING;
            l->polling = PGRES_POLLING_WRITING;
            l->deadline_ms = pg_now_ms() + CONNECT_MS;
            explicit_bzero(p.password, sizeof p.password);
            return;
        }
        pg_message(PQerrorMessage(l->conn), why, sizeof why);
    }
    explicit_bzero(p.password, sizeof p.password);
    link_fail(l, NULL, why);
}

static void on_connecting(struct link *l, struct store_worker *w)
{
    l->polling = PQconnectPoll(l->conn);
    if (l->polling == PGRES_POLLING_OK)
        begin_setup(l, w);
    else if (l->polling == PGRES_POLLING_FAILED)
        fail_by_libpq(l, w);
}

/* ---- results --------------------------------------------------------------------------------- */

static void keep_failure(struct link *l, const struct sent *s, const PGresult *res)
{
    struct failure *f = &l->failure;
    if (f->any)
        return;
    const char *state = PQresultErrorField(res, PG_DIAG_SQLSTATE);
    const char *primary = PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY);
    *f = (struct failure){.any = true, .what = s->what, .job = s->job};
    snprintf(f->state, sizeof f->state, "%s", state ? state : "");
    pg_message(primary ? primary : PQresultErrorMessage(res), f->why, sizeof f->why);
}

static int64_t number(const char *p, int n)
{
    uint64_t v = 0;
    for (int i = 0; i < n; i++)
        v = v << 8 | (uint8_t)p[i];
    return n == 4 ? (int32_t)v : (int64_t)v;
}

/* All columns are int4, int8 or bytea, in binary; set_config's text is of no interest. */
static void read_row(const PGresult *res, int at, struct sql_row *row)
{
    int columns = PQnfields(res);
    must(columns <= SQL_COLUMNS_MAX);
    for (int i = 0; i < columns; i++) {
        struct sql_cell *c = &row->c[i];
        Oid type = PQftype(res, i);
        int n = PQgetlength(res, at, i);
        *c = (struct sql_cell){.null = PQgetisnull(res, at, i)};
        if (type == 20 || type == 23)
            c->i = number(PQgetvalue(res, at, i), n);
        else
            c->s = str_from(PQgetvalue(res, at, i), (size_t)n);
    }
}

/* libpq gives one result for each statement; what comes beyond them is the server's word about the
 * connection, which it is ending: that ends the batch. */
static void on_result(struct link *l, const PGresult *res)
{
    if (l->sent_at == l->sent_n)
        return;
    struct sent *s = &l->sent[l->sent_at++];
    ExecStatusType status = PQresultStatus(res);
    struct sql_row row;
    if (status == PGRES_TUPLES_OK && s->job && s->on_row)
        for (int i = 0, more = true; more && i < PQntuples(res); i++) {
            read_row(res, i, &row);
            more = s->on_row(&s->job->ops, &row);
        }
    else if (status == PGRES_TUPLES_OK && s->what == SENT_SETUP && PQntuples(res) == 1 &&
             PQftype(res, 0) == 20) {
        read_row(res, 0, &row);
        l->fence = row.c[0].i;
    } else if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK &&
               status != PGRES_PIPELINE_ABORTED)
        keep_failure(l, s, res);
    if (s->what == SENT_COMMIT)
        l->committed =
            status == PGRES_COMMAND_OK && strcmp(PQcmdStatus((PGresult *)res), "COMMIT") == 0;
}

/* Until the sync, or until more must come from the server. */
static bool take_results(struct link *l)
{
    unsigned nothing = 0;
    while (nothing < 2 && !PQisBusy(l->conn)) {
        PGresult *res = PQgetResult(l->conn);
        if (!res) { /* between two statements */
            nothing++;
            continue;
        }
        nothing = 0;
        bool end = PQresultStatus(res) == PGRES_PIPELINE_SYNC;
        if (!end)
            on_result(l, res);
        PQclear(res);
        if (end) {
            l->sent_n = l->sent_at = 0;
            return true;
        }
    }
    return false;
}

void link_flush(struct link *l, struct store_worker *w)
{
    int left = PQflush(l->conn);
    l->sending = left > 0;
    if (left < 0)
        fail_by_libpq(l, w);
}

static void on_readable(struct link *l, struct store_worker *w)
{
    if (!PQconsumeInput(l->conn) || PQstatus(l->conn) == CONNECTION_BAD) {
        fail_by_libpq(l, w);
        return;
    }
    if (l->state == LINK_IDLE)
        return;
    l->deadline_ms = pg_now_ms() + l->timeout_ms + SETUP_MS / 2; /* it is alive */
    if (!take_results(l))
        return;
    if (l->state == LINK_SETUP)
        end_setup(l, w);
    else
        pg_batch_end(l, w);
}

void link_on_ready(struct link *l, struct store_worker *w, short revents)
{
    if (l->state == LINK_CONNECTING) {
        on_connecting(l, w);
        return;
    }
    if (l->sending && (revents & POLLOUT))
        link_flush(l, w);
    if (l->conn && (revents & ~POLLOUT))
        on_readable(l, w);
}
