/* store: the room of the store worker, the one process that talks SQL.
 *
 *   request bytes --on_request--> lanes --run: one transaction per batch--> replies, after COMMIT
 *
 * What a request does (ops*.c) is the same on SQLite and PostgreSQL; they differ in how a batch
 * runs (sqlite_batch.c: at once; postgres_*.c: one round trip, several connections side by side).
 *
 * The worker is written over a port, so that it runs alike in pemberley-store (fifos), in tests and
 * in the simulator (tests/unit/support/fake_store.h). SQL may block: nobody else lives in the
 * process. Promises:
 *   - what is answered OK is committed (and fsynced, with sync_full), even if the worker is killed
 *     the moment after;
 *   - requests of one owner are executed and answered in the order given (SQLite: of one peer);
 *   - a request that fails changes nothing and fails alone; a full disk or a failing database fails
 *     the writes of its batch, reads go on, the last committed state stays, and the next batch
 *     tries again;
 *   - while a PostgreSQL is away requests wait, and are executed when it is back. */
#ifndef NODE_STORE_STORE_H
#define NODE_STORE_STORE_H

#include "pemberley/err.h"
#include "pemberley/log.h"
#include "pemberley/metric.h"

/* A request or reply as bytes of store.proto is never longer. The greatest reply is a user with a
 * full roster (4 MiB, with small groups half as much again) and all its requests (2 MiB). */
enum { STORE_REQUEST_MAX = 2 << 20, STORE_REPLY_MAX = 10 << 20 };

struct store_port {
    /* Called only inside store_worker_run; the bytes are valid until it returns. */
    void (*reply)(struct store_port *port, unsigned peer, const char *p, size_t n);
};

struct backend;
struct store_worker_options;
typedef err store_backend_open_f(const struct store_worker_options *o, struct log *log, char *text,
                                 size_t text_n, struct backend **out);

enum store_tls { STORE_TLS_VERIFY_FULL, STORE_TLS_VERIFY_CA, STORE_TLS_REQUIRE, STORE_TLS_OFF };

/* Views; they need to rest as long as the worker. */
struct store_postgres {
    store_backend_open_f *open; /* store_postgres_open: only who names it links libpq */
    const char *const *hosts;   /* host, host:port, [address]:port, or a socket's directory */
    size_t hosts_n;
    const char *database, *user;
    const char *password_file; /* "": none; read anew for each connection */
    enum store_tls tls;
    const char *ca_file;  /* "": the system's certificates */
    unsigned connections; /* 1..64 */
    const char *node;     /* whose fence rows are read; unique in the cluster */
    int64_t timeout_ms;   /* of a statement */
};
store_backend_open_f store_postgres_open;

struct store_worker_options {
    const char *path;                      /* SQLite: of the database, or ":memory:" */
    bool sync_full;                        /* false: a power cut may lose the last second */
    unsigned batch_max;                    /* requests in one transaction, at least 1 */
    const struct store_postgres *postgres; /* NULL: SQLite */
};

struct store_worker;

/* Opens the database (SQLite: locks it; PostgreSQL: waits for a connection, bounded), creates or
 * migrates its schema. On failure *why says what is wrong in a sentence for the operator (in
 * `text`, text_n bytes): ERR_EXISTS another worker has it, ERR_BAD the schema is newer than this
 * program or the file is something else, ERR_DISK_FULL, ERR_AWAY no connection, ERR_IO. */
nodiscard err store_worker_open(const struct store_worker_options *o, struct store_port *port,
                                struct log *log, char *text, size_t text_n,
                                struct store_worker **out);
/* Copies the bytes. Garbage is answered with result BAD, and id 0 if not even that can be read. The
 * queue has no bound of its own: peers have windows (node/store_client), and who feeds it stops at
 * `enough`. */
void store_worker_on_request(struct store_worker *w, unsigned peer, const char *p, size_t n);
/* The peer has ended: its requests are dropped, nothing is sent to it for them. */
void store_worker_forget(struct store_worker *w, unsigned peer);
/* Goes on with what can go on: SQLite executes one batch, commits, replies; PostgreSQL does what
 * its sockets are ready for. Returns whether there is more to do at once. */
bool store_worker_run(struct store_worker *w);
/* What the process waits for before the next run, besides requests (SQLite: nothing), and for how
 * long at most; ms is how long it would wait anyway. */
struct pollfd;
enum { STORE_FDS_MAX = 64 };
size_t store_worker_fds(const struct store_worker *w, struct pollfd *fds, size_t max);
int store_worker_wait_ms(const struct store_worker *w, int ms);
size_t store_worker_queued(const struct store_worker *w); /* requests without a reply */
bool store_worker_enough(const struct store_worker *w);   /* a whole batch per lane waits */
void store_worker_set_batch_max(struct store_worker *w, unsigned batch_max);
void store_worker_set_timeout(struct store_worker *w, int64_t timeout_ms); /* PostgreSQL's */
const char *store_worker_backend(const struct store_worker *w); /* "sqlite", "postgres" */
/* Before the first run; without it nothing is counted. */
void store_worker_set_metrics(struct store_worker *w, struct metric_page *metrics);
/* Sizes of database and disk into the metrics page; about once a second. */
void store_worker_sample(const struct store_worker *w);
void store_worker_close(struct store_worker *w); /* what was not run is dropped unanswered */

#endif
