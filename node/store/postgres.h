/* postgres: batches on PostgreSQL (Debian's 15), by libpq's pipeline mode. Each lane has a
 * connection, its link:
 *
 *   DOWN --(back-off)--> CONNECTING --> SETUP --> IDLE <--> BUSY        any failure --> DOWN
 *
 * A batch is sent as one piece and costs one round trip:
 *
 *   BEGIN, fence, the statements of all its requests, COMMIT, sync
 *
 * What fails in it aborts the rest: then it is run again without the request whose fault it was, or
 * as it is if it was nobody's (a deadlock, a serialization failure). When the link is lost the
 * requests stay where they are, and the next link gets them: all writes are idempotent by their
 * keys, also when it was only the answer to COMMIT that was lost.
 *
 * The fence row of (node, lane) is read FOR SHARE by each batch that writes. It stops
 *   - what a lost link may have left in the server: each new link counts `link` up, which waits for
 *     a batch under way, and makes one that comes later fail;
 *   - a node that the others hold dead: whoever publishes an epoch without it sets `epoch` first.
 *
 * The dialect. What CockroachDB or YugabyteDB do not have or do otherwise is left out: triggers,
 * stored procedures, LISTEN, temporary tables, savepoints, cursors, COPY, extensions, enums,
 * composite and collated types, collations (JIDs are bytea: byte order, nothing to rebuild after a
 * new libc), sequences where order matters (an offline id is counted in its account's row), foreign
 * keys but to the account. Isolation may be read committed or stronger; 40001 is tried again. Where
 * there are no advisory locks, migrations are serialised by the row of pemberley_schema alone
 * (postgres_schema.c). Only PostgreSQL is tested.
 *
 * Only the postgres_* files of this room include it. */
#ifndef NODE_STORE_POSTGRES_H
#define NODE_STORE_POSTGRES_H

#include <libpq-fe.h>
#include <poll.h>

#include "node/store/backend.h"

enum link_state { LINK_DOWN, LINK_CONNECTING, LINK_SETUP, LINK_IDLE, LINK_BUSY };

/* What was sent and has no result yet. */
enum sent_what { SENT_SETUP, SENT_FENCE, SENT_CONTROL, SENT_COMMIT, SENT_OP };
struct sent {
    enum sent_what what;
    struct job *job; /* of SENT_OP */
    sql_row_f *on_row;
};

/* The first error of a batch or a setup. */
struct failure {
    bool any;
    enum sent_what what;
    struct job *job;
    char state[6];
    char why[400];
};

struct pg;
struct link {
    struct pg *pg;
    unsigned lane;
    enum link_state state;
    PGconn *conn;
    PostgresPollingStatusType polling;
    int64_t
        deadline_ms; /* DOWN: of the next try; IDLE: before it no batch; else: then it is lost */
    unsigned host, failures;
    bool sending;       /* libpq has bytes that the socket did not take */
    bool in_error;      /* the transaction was aborted and needs its ROLLBACK */
    bool committed;     /* COMMIT said so */
    int64_t fence;      /* `link` of its fence row */
    int64_t timeout_ms; /* that the server was told */
    struct sent *sent;
    size_t sent_n, sent_cap, sent_at;
    struct failure failure;
    /* the batch */
    struct sql sql;
    struct batch batch;
    struct job *jobs;
    unsigned jobs_n, jobs_cap, tries;
    bool failed; /* it was rolled back at least once */
};

struct pg {
    struct backend backend;
    struct log *log;
    struct store_postgres options;
    bool sync_full;
    int64_t lost_ms;   /* since when no link is up; 0: one is */
    unsigned replayed; /* requests that were under way then */
    char lost_why[400];
    uint64_t dice;
    struct link links[];
};

int64_t pg_now_ms(void);
/* 0 .. n - 1; for back-off only. */
unsigned pg_dice(struct pg *pg, unsigned n);
unsigned pg_up(const struct pg *pg); /* links that have their setup */

/* ---- postgres_link.c: connecting, and what every link says first ------------------------------
 */

/* Connection parameters of a host. ERR_IO: the password file; *text says why. */
enum { PG_PARAMS = 16 };
struct pg_params {
    const char *keys[PG_PARAMS], *values[PG_PARAMS];
    char host[256], port[8], password[1024], name[64];
};
nodiscard err pg_params_of(const struct pg *pg, unsigned host, struct pg_params *p, char *text,
                           size_t text_n);
/* Like libpq's message, in one line. */
void pg_message(const char *from, char *text, size_t text_n);
void pg_no_notice(void *arg, const char *message); /* libpq would print it */
void link_start(struct link *l);
void link_on_ready(struct link *l, struct store_worker *w, short revents);
void link_fail(struct link *l, struct store_worker *w, const char *why);
void link_close(struct link *l);
/* Sends what waits in libpq; and reads what has come. */
void link_flush(struct link *l, struct store_worker *w);

/* ---- postgres_batch.c -------------------------------------------------------------------------
 */

void pg_sql_open(struct link *l);
/* Prepares all statements; false: the link is broken. */
bool pg_prepare_all(struct link *l);
void pg_expect(struct link *l, enum sent_what what, struct job *job, sql_row_f *on_row);
/* A batch from the head of the lane; whether there was anything. */
bool pg_batch_start(struct link *l, struct store_worker *w);
/* Its last result has come. */
void pg_batch_end(struct link *l, struct store_worker *w);

/* ---- postgres_schema.c ------------------------------------------------------------------------
 */

extern const int pg_schema_version;
extern const int pg_schema_oldest;
/* On a connection of its own, blocking: brings the schema to pg_schema_version, or says why not;
 * makes what a former worker of this node left behind fail. *from: the version found. */
nodiscard err pg_schema_migrate(PGconn *conn, const struct pg *pg, int *from, char *text,
                                size_t text_n);

#endif
