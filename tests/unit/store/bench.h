/* bench: what the store's tests share: a worker, and requests as one-liners that return the result.
 * One reply rests until the next call. */
#ifndef TESTS_UNIT_STORE_BENCH_H
#define TESTS_UNIT_STORE_BENCH_H

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "node/store/store.h"
#include "proto/bus/store.pb-c.h"

enum { BENCH_REPLIES = 512 };
struct bench {
    struct store_port port;
    struct log log;
    unsigned logged[LOG_EVENT_MAX];
    char said[LOG_EVENT_MAX][256]; /* its last field */
    struct store_worker *worker;
    Store__Reply *replies[BENCH_REPLIES];
    unsigned peers[BENCH_REPLIES];
    size_t n;
    char path[256]; /* empty: in memory */
    char why[512];
};

static inline ProtobufCBinaryData bytes_of(const char *z)
{
    return (ProtobufCBinaryData){strlen(z), (uint8_t *)z};
}
#define assert_bytes(b, z) \
    do { \
        assert_int_equal((b).len, strlen(z)); \
        assert_memory_equal((b).data, z, strlen(z)); \
    } while (0)

static inline void bench_on_reply(struct store_port *port, unsigned peer, const char *p, size_t n)
{
    struct bench *b = container_of(port, struct bench, port);
    assert_true(b->n < BENCH_REPLIES);
    b->peers[b->n] = peer;
    b->replies[b->n] = store__reply__unpack(NULL, n, (const uint8_t *)p);
    assert_non_null(b->replies[b->n++]);
}

static inline void bench_forget(struct bench *b)
{
    while (b->n > 0)
        store__reply__free_unpacked(b->replies[--b->n], NULL);
}

static inline void bench_on_log(struct log *l, enum log_event e, enum log_level level,
                                const struct log_field *f, size_t n)
{
    struct bench *b = container_of(l, struct bench, log);
    b->logged[e]++;
    snprintf(b->said[e], sizeof b->said[e], "%.*s", STR_ARG(f[n - 1].s));
}

static inline err bench_open_options(struct bench *b, const struct store_worker_options *o)
{
    *b = (struct bench){.port.reply = bench_on_reply, .log.write = bench_on_log};
    snprintf(b->path, sizeof b->path, "%s", o->path ? o->path : "");
    return store_worker_open(o, &b->port, &b->log, b->why, sizeof b->why, &b->worker);
}

static inline err bench_open(struct bench *b, const char *path, unsigned batch_max)
{
    struct store_worker_options o = {.path = path, .sync_full = true, .batch_max = batch_max};
    return bench_open_options(b, &o);
}

static inline err bench_open_postgres(struct bench *b, const struct store_postgres *postgres,
                                      unsigned batch_max)
{
    struct store_worker_options o = {
        .sync_full = true, .batch_max = batch_max, .postgres = postgres};
    return bench_open_options(b, &o);
}

static inline void bench_close(struct bench *b)
{
    bench_forget(b);
    store_worker_close(b->worker);
}

static inline void bench_send(struct bench *b, unsigned peer, Store__Request *q)
{
    size_t n = store__request__get_packed_size(q);
    uint8_t *p = malloc(n);
    store__request__pack(q, p);
    store_worker_on_request(b->worker, peer, (const char *)p, n);
    free(p);
}

/* One turn as pemberley-store has it, waiting no longer than ms. */
static inline void bench_turn(struct bench *b, int ms)
{
    struct pollfd fds[STORE_FDS_MAX];
    if (store_worker_run(b->worker) || store_worker_queued(b->worker) == 0)
        return;
    size_t n = store_worker_fds(b->worker, fds, STORE_FDS_MAX);
    poll(fds, n, store_worker_wait_ms(b->worker, ms));
}

/* Runs until nothing waits, at most 20 s; replies of before are forgotten. */
static inline void bench_run(struct bench *b)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    time_t until = t.tv_sec + 20;
    bench_forget(b);
    while (store_worker_queued(b->worker) > 0) {
        bench_turn(b, 100);
        clock_gettime(CLOCK_MONOTONIC, &t);
        assert_true(t.tv_sec < until);
    }
}

static inline Store__Reply *bench_ask(struct bench *b, Store__Request *q)
{
    bench_send(b, 0, q);
    bench_run(b);
    assert_int_equal(b->n, 1);
    assert_int_equal(b->replies[0]->id, q->id);
    return b->replies[0];
}

/* A request with an operation: REQUEST(q, "romeo@x", ROSTER_CHANGE, roster_change, &change). */
#define REQUEST(name, jid, CASE, member, message) \
    Store__Request name = STORE__REQUEST__INIT; \
    name.id = 7; \
    name.owner = bytes_of(jid); \
    name.op_case = STORE__REQUEST__OP_##CASE; \
    name.member = (message)

static inline Store__Result add_account(struct bench *b, const char *jid)
{
    Store__AccountAdd add = STORE__ACCOUNT_ADD__INIT;
    add.keys = bytes_of("keys");
    add.created_us = 1000;
    REQUEST(q, jid, ACCOUNT_ADD, account_add, &add);
    return bench_ask(b, &q)->result;
}

static inline Store__User *load_user(struct bench *b, const char *jid)
{
    Store__UserLoad load = STORE__USER_LOAD__INIT;
    REQUEST(q, jid, USER_LOAD, user_load, &load);
    Store__Reply *r = bench_ask(b, &q);
    assert_int_equal(r->result, STORE__RESULT__OK);
    return r->user;
}

static inline Store__Request *offline_put_init(Store__Request *q, Store__OfflinePut *put,
                                               const char *jid, const char *uid, const char *stanza)
{
    store__offline_put__init(put);
    store__request__init(q);
    put->uid = bytes_of(uid);
    put->stanza = bytes_of(stanza);
    put->time_us = 5;
    q->id = 7;
    q->owner = bytes_of(jid);
    q->op_case = STORE__REQUEST__OP_OFFLINE_PUT;
    q->offline_put = put;
    return q;
}

static inline Store__Result put_offline(struct bench *b, const char *jid, const char *uid,
                                        const char *stanza)
{
    Store__Request q;
    Store__OfflinePut put;
    return bench_ask(b, offline_put_init(&q, &put, jid, uid, stanza))->result;
}

static inline Store__OfflinePage *get_offline(struct bench *b, const char *jid, uint64_t after,
                                              uint32_t limit, uint64_t bytes_max)
{
    Store__OfflineGet get = STORE__OFFLINE_GET__INIT;
    get.after_id = after, get.limit = limit, get.bytes_max = bytes_max;
    REQUEST(q, jid, OFFLINE_GET, offline_get, &get);
    Store__Reply *r = bench_ask(b, &q);
    return r->result == STORE__RESULT__OK ? r->offline : NULL;
}

#endif
