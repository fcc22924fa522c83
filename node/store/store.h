/* store: the room of the store worker, the one process that talks SQL (SQLite; one worker only).
 *
 *   request bytes --on_request--> queue --run: one transaction per batch--> replies, after COMMIT
 *
 * The worker is written over a port, so that it runs alike in pemberley-store (fifos), in tests and
 * in the simulator (tests/unit/support/fake_store.h). SQL may block: nobody else lives in the
 * process. Promises:
 *   - what is answered OK is committed (and fsynced, with sync_full), even if the worker is killed
 *     the moment after;
 *   - requests of one peer are executed and answered in the order given;
 *   - a request that fails changes nothing and fails alone (savepoints); a full disk or a failing
 *     database fails the writes of its batch, reads go on, the last committed state stays, and the
 *     next batch tries again. */
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

struct store_worker_options {
    const char *path;   /* of the database, or ":memory:" */
    bool sync_full;     /* false: a power cut may lose the last second */
    unsigned batch_max; /* requests in one transaction, at least 1 */
};

struct store_worker;

/* Opens and locks the database, creates or migrates its schema. On failure *why says what is wrong
 * in a sentence for the operator (in `text`, text_n bytes): ERR_EXISTS another worker has it,
 * ERR_BAD the schema is newer than this program or the file is something else, ERR_DISK_FULL,
 * ERR_IO. */
nodiscard err store_worker_open(const struct store_worker_options *o, struct store_port *port,
                                struct log *log, char *text, size_t text_n,
                                struct store_worker **out);
/* Copies the bytes. Garbage is answered with result BAD, and id 0 if not even that can be read. The
 * queue has no bound of its own: peers have windows (node/store_client), and who feeds it stops at
 * `enough`. */
void store_worker_on_request(struct store_worker *w, unsigned peer, const char *p, size_t n);
/* The peer has ended: its requests are dropped, nothing is sent to it for them. */
void store_worker_forget(struct store_worker *w, unsigned peer);
/* Executes one batch, commits, replies. Returns whether more is waiting. */
bool store_worker_run(struct store_worker *w);
bool store_worker_enough(const struct store_worker *w); /* a whole batch is waiting */
void store_worker_set_batch_max(struct store_worker *w, unsigned batch_max);
/* Before the first run; without it nothing is counted. */
void store_worker_set_metrics(struct store_worker *w, struct metric_page *metrics);
/* Sizes of database and disk into the metrics page; about once a second. */
void store_worker_sample(const struct store_worker *w);
void store_worker_close(struct store_worker *w); /* what was not run is dropped unanswered */

#endif
