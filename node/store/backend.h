/* backend: what the worker and a way of keeping things (SQLite, PostgreSQL) owe each other. The
 * worker has the requests, in lanes: those of one owner are in one lane, in order. A back-end takes
 * batches from a lane's head, executes them, answers them in that order, and says so with
 * batch_deliver, after COMMIT. Only files of this room include it. */
#ifndef NODE_STORE_BACKEND_H
#define NODE_STORE_BACKEND_H

#include "node/store/ops.h"
#include "node/store/store.h"
#include "pemberley/list.h"

enum { LANES_MAX = STORE_FDS_MAX };

struct request {
    struct list link;
    unsigned peer;
    bool forgotten; /* its peer has ended while it was executed */
    bool decided;   /* verdict holds; it is not executed again */
    err verdict;
    size_t n;
    char data[];
};

struct lane {
    struct list queue; /* struct request; a batch stays at the head until it is delivered */
    size_t queued, running;
};

struct backend;
struct backend_impl {
    const char *name;
    /* Goes on with what can go on; whether there is more to do at once. */
    bool (*run)(struct backend *b, struct store_worker *w);
    /* NULL: it waits for nothing but requests. */
    size_t (*fds)(const struct backend *b, struct pollfd *fds, size_t max);
    int (*wait_ms)(const struct backend *b, int ms);
    void (*set_timeout)(struct backend *b, int64_t timeout_ms);
    void (*sample)(struct backend *b, struct metric_page *metrics);
    void (*close)(struct backend *b);
};
struct backend {
    const struct backend_impl *impl;
    unsigned lanes;
};

struct store_worker {
    struct backend *backend;
    struct store_port *port;
    struct log *log;
    struct metric_page *metrics; /* may be NULL */
    unsigned batch_max;
    struct lane lanes[LANES_MAX];
};

/* One request while it is executed: decode, ops_begin, ops_end, batch_answer. */
struct job {
    struct request *request;
    const struct op_row *row; /* NULL: no request at all */
    struct ops ops;
};
void job_decode(struct job *j, struct request *q, struct sql *sql, struct arena *arena,
                size_t behind);

struct reply {
    unsigned peer;
    bool forgotten;
    size_t at, n; /* in out */
};
/* The answers of a batch, until they may leave. */
struct batch {
    struct arena arena;
    uint64_t began_us;
    struct reply *replies;
    size_t n_replies, replies_cap;
    char *out;
    size_t out_n, out_cap;
};
void batch_open(struct batch *b);
void batch_begin(struct batch *b); /* forgets what it had, so also before another try */
void batch_answer(struct batch *b, const struct job *j, err e);
/* Its requests leave the lane, its replies the process. failed: it was rolled back first. */
void batch_deliver(struct batch *b, struct store_worker *w, struct lane *lane, bool failed);
void batch_close(struct batch *b);

nodiscard err sqlite_open(const struct store_worker_options *o, struct log *log, char *text,
                          size_t text_n, struct backend **out);

#endif
