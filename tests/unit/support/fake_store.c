/* fake_store: requests wait as bytes in a list; run moves them through the worker one by one. */
#include "tests/unit/support/fake_store.h"

#include <stdlib.h>

#include "node/store/store.h"
#include "pemberley/list.h"
#include "proto/bus/store.pb-c.h"

struct waiting {
    struct list link;
    store_done_f *done;
    void *ctx;
    size_t n;
    uint8_t data[];
};

struct fake_store {
    struct store door;
    struct store_port port;
    struct log log;
    struct store_worker *worker;
    struct list waiting;
    size_t n_waiting;
    bool paused;
    size_t fail_n, lose_n;
    err fail;
    Store__Reply *reply; /* of the request that runs */
};

static void submit(struct store *s, struct Store__Request *req, store_done_f *done, void *ctx)
{
    struct fake_store *f = container_of(s, struct fake_store, door);
    req->id = 1;
    size_t n = store__request__get_packed_size(req);
    struct waiting *q = malloc(sizeof *q + n);
    must(q);
    q->done = done, q->ctx = ctx, q->n = n;
    store__request__pack(req, q->data);
    list_push_back(&f->waiting, &q->link);
    f->n_waiting++;
}
static const struct store_impl impl = {submit};

static void on_reply(struct store_port *port, unsigned peer, const char *p, size_t n)
{
    struct fake_store *f = container_of(port, struct fake_store, port);
    f->reply = store__reply__unpack(NULL, n, (const uint8_t *)p);
    must(f->reply);
}

static void no_log(struct log *l, enum log_event e, enum log_level level,
                   const struct log_field *fields, size_t n)
{
}

struct fake_store *fake_store_open(void)
{
    struct fake_store *f = calloc(1, sizeof *f);
    must(f);
    f->door.impl = &impl;
    f->port.reply = on_reply;
    f->log.write = no_log;
    f->log.level = LOG_ERROR;
    list_init(&f->waiting);
    char why[256];
    struct store_worker_options o = {.path = ":memory:", .batch_max = 1};
    must(store_worker_open(&o, &f->port, &f->log, why, sizeof why, &f->worker) == ERR_OK);
    return f;
}

struct store *fake_store_door(struct fake_store *f) { return &f->door; }
size_t fake_store_waiting(const struct fake_store *f) { return f->n_waiting; }
void fake_store_pause(struct fake_store *f, bool paused) { f->paused = paused; }

void fake_store_lose_next(struct fake_store *f, size_t n) { f->lose_n = n; }

void fake_store_fail_next(struct fake_store *f, size_t n, err e)
{
    f->fail_n = n;
    f->fail = e;
}

static err err_of(Store__Result r)
{
    static const err of[] = {
        [STORE__RESULT__OK] = ERR_OK,
        [STORE__RESULT__NOT_FOUND] = ERR_NOT_FOUND,
        [STORE__RESULT__EXISTS] = ERR_EXISTS,
        [STORE__RESULT__FULL] = ERR_FULL,
        [STORE__RESULT__DISK_FULL] = ERR_DISK_FULL,
        [STORE__RESULT__IO] = ERR_IO,
        [STORE__RESULT__BAD] = ERR_BAD,
    };
    return of[r];
}

static void fail(struct fake_store *f, const struct waiting *q)
{
    Store__Reply r = STORE__REPLY__INIT;
    r.result = f->fail == ERR_DISK_FULL ? STORE__RESULT__DISK_FULL : STORE__RESULT__IO;
    f->fail_n--;
    q->done(q->ctx, f->fail, f->fail == ERR_AWAY || f->fail == ERR_FULL ? NULL : &r);
}

static void execute(struct fake_store *f, const struct waiting *q)
{
    store_worker_on_request(f->worker, 0, (const char *)q->data, q->n);
    store_worker_run(f->worker);
    Store__Reply *r = f->reply;
    must(r);
    f->reply = NULL;
    if (f->lose_n > 0)
        f->lose_n--, q->done(q->ctx, ERR_AWAY, NULL);
    else
        q->done(q->ctx, err_of(r->result), r);
    store__reply__free_unpacked(r, NULL);
}

void fake_store_step(struct fake_store *f)
{
    struct waiting *q = list_first(&f->waiting, struct waiting, link);
    must(!list_empty(&f->waiting));
    list_remove(&q->link);
    f->n_waiting--;
    if (f->fail_n > 0)
        fail(f, q);
    else
        execute(f, q);
    free(q);
}

size_t fake_store_run(struct fake_store *f)
{
    size_t n = 0;
    for (; !f->paused && !list_empty(&f->waiting); n++) {
        must(n < 1000000); /* callbacks that ask for ever */
        fake_store_step(f);
    }
    return n;
}

void fake_store_add_account(struct fake_store *f, const char *jid, str keys)
{
    Store__AccountAdd add = STORE__ACCOUNT_ADD__INIT;
    add.keys = (ProtobufCBinaryData){keys.n, (uint8_t *)keys.p};
    add.created_us = 1;
    Store__Request req = STORE__REQUEST__INIT;
    req.owner = (ProtobufCBinaryData){strlen(jid), (uint8_t *)jid};
    req.op_case = STORE__REQUEST__OP_ACCOUNT_ADD;
    req.account_add = &add;
    uint8_t packed[16384];
    size_t n = store__request__get_packed_size(&req);
    must(n <= sizeof packed);
    store__request__pack(&req, packed);
    store_worker_on_request(f->worker, 0, (const char *)packed, n);
    store_worker_run(f->worker);
    must(f->reply && f->reply->result == STORE__RESULT__OK);
    store__reply__free_unpacked(f->reply, NULL);
    f->reply = NULL;
}

void fake_store_close(struct fake_store *f)
{
    list_each(q, &f->waiting, struct waiting, link) {
        list_remove(&q->link);
        free(q);
    }
    store_worker_close(f->worker);
    free(f);
}
