/* fencing: see fencing.h. A member has one publication under way at most (must). */
#include "node/shard/fencing.h"

#include <stdlib.h>

#include "proto/bus/store.pb-c.h"

struct publication {
    struct fencing *fencing;
    uint64_t expected, epoch;
    registry_done_f *done;
    void *ctx; /* NULL: forgotten */
    size_t left;
    bool failed;
    size_t n;
    char bytes[];
};

struct fencing {
    struct registry door;
    struct registry *inner;
    struct store *store;
    struct view *view;
    struct publication *publication; /* whose fences are awaited */
};

static struct fencing *fencing_of(struct registry *r)
{
    return container_of(r, struct fencing, door);
}

/* ---- publishing ---- */

static void publish(struct publication *p)
{
    struct fencing *f = p->fencing;
    if (f->publication == p)
        f->publication = NULL;
    if (p->ctx && p->failed)
        p->done(p->ctx, ERR_AWAY, NULL);
    else if (p->ctx)
        registry_view_cas(f->inner, p->expected, p->epoch, (str){p->bytes, p->n}, p->done, p->ctx);
    free(p);
}

static void on_fenced(void *ctx, err e, const Store__Reply *reply)
{
    struct publication *p = ctx;
    p->failed |= e != ERR_OK;
    if (--p->left == 0)
        publish(p);
}

static void fence(struct publication *p, const struct view_node *n)
{
    Store__NodeFence node = STORE__NODE_FENCE__INIT;
    Store__Request q = STORE__REQUEST__INIT;
    node.node = (ProtobufCBinaryData){strlen(n->name), (uint8_t *)(uintptr_t)n->name};
    node.epoch = p->epoch;
    q.op_case = STORE__REQUEST__OP_NODE_FENCE, q.node_fence = &node;
    p->left++;
    store_submit(p->fencing->store, &q, on_fenced, p);
}

static void fence_removed(struct publication *p, const struct view *next)
{
    const struct view *v = p->fencing->view;
    for (size_t i = 0; v && i < v->count; i++)
        if (!view_find(next, str_of(v->nodes[i].name)))
            fence(p, &v->nodes[i]);
}

static void view_cas(struct registry *r, uint64_t expected, uint64_t epoch, str bytes,
                     registry_done_f *done, void *ctx)
{
    struct fencing *f = fencing_of(r);
    struct view *next;
    err e = view_decode(bytes, &next);
    must(!e && !f->publication); /* of our own member */
    struct publication *p = malloc(sizeof *p + bytes.n);
    must(p);
    *p = (struct publication){
        .fencing = f, .expected = expected, .epoch = epoch, .done = done, .ctx = ctx, .n = bytes.n};
    memcpy(p->bytes, bytes.p, bytes.n);
    f->publication = p;
    fence_removed(p, next);
    view_free(next);
    if (p->left == 0)
        publish(p);
}

/* ---- what goes through ---- */

static void lease_renew(struct registry *r, struct registry_lease l, registry_done_f *done,
                        void *ctx)
{
    registry_lease_renew(fencing_of(r)->inner, l, done, ctx);
}
static void lease_drop(struct registry *r, struct registry_lease l, registry_done_f *done,
                       void *ctx)
{
    registry_lease_drop(fencing_of(r)->inner, l, done, ctx);
}
static void lease_revoke(struct registry *r, struct registry_lease of, struct registry_lease by,
                         registry_done_f *done, void *ctx)
{
    registry_lease_revoke(fencing_of(r)->inner, of, by, done, ctx);
}
static void leases_get(struct registry *r, const str *nodes, size_t n, registry_done_f *done,
                       void *ctx)
{
    registry_leases_get(fencing_of(r)->inner, nodes, n, done, ctx);
}
static void view_get(struct registry *r, registry_done_f *done, void *ctx)
{
    registry_view_get(fencing_of(r)->inner, done, ctx);
}
static void record_put(struct registry *r, const struct registry_record *record)
{
    registry_record_put(fencing_of(r)->inner, record);
}
static void record_remove(struct registry *r, const struct registry_record *record)
{
    registry_record_remove(fencing_of(r)->inner, record);
}
static void record_forget(struct registry *r, enum registry_kind kind, str key)
{
    registry_record_forget(fencing_of(r)->inner, kind, key);
}
static void forget(struct registry *r, void *ctx)
{
    struct fencing *f = fencing_of(r);
    if (f->publication && f->publication->ctx == ctx)
        f->publication->ctx = NULL, f->publication = NULL;
    registry_forget(f->inner, ctx);
}

static const struct registry_impl impl = {
    .lease_renew = lease_renew,
    .lease_drop = lease_drop,
    .lease_revoke = lease_revoke,
    .leases_get = leases_get,
    .view_get = view_get,
    .view_cas = view_cas,
    .record_put = record_put,
    .record_remove = record_remove,
    .record_forget = record_forget,
    .forget = forget,
};

/* ---- life ---- */

struct fencing *fencing_new(struct registry *inner, struct store *store)
{
    struct fencing *f = calloc(1, sizeof *f);
    must(f);
    *f = (struct fencing){.door = {&impl}, .inner = inner, .store = store};
    return f;
}

struct registry *fencing_door(struct fencing *f) { return &f->door; }

void fencing_adopted(struct fencing *f, const struct view *v)
{
    view_free(f->view);
    f->view = view_copy(v, v->epoch);
}

void fencing_free(struct fencing *f)
{
    must(!f->publication);
    view_free(f->view);
    free(f);
}
