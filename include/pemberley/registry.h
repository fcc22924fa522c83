/* registry: the door to what all nodes of a cluster share: the nodes' leases, the view that is in
 * force (cluster/view.h), and the presence records (architecture 7, 9). Implementations: Redis and
 * memory (node/os), the simulator's.
 *
 * Requests are asynchronous: done runs once for each, never from inside the request, in any order.
 * Lease and view requests are never kept for later: when there is no connection, or no answer in
 * time, they end with ERR_AWAY, and what was asked for *may have happened, or may still happen*.
 * The door never sends one of them twice. Arguments are copied before the request returns; a reply
 * is valid until done returns.
 *
 * What the other side says is data: a view or a lease that has not the form agreed on here is
 * ERR_REFUSED, as is an error of the server itself (no permission, read only, out of memory). */
#ifndef PEMBERLEY_REGISTRY_H
#define PEMBERLEY_REGISTRY_H

#include "pemberley/err.h"
#include "pemberley/must.h"

enum {
    REGISTRY_NODE_MAX = 32,            /* bytes of a node's name, [a-z0-9-] */
    REGISTRY_VIEW_MAX = 1 << 20,       /* bytes of a view: 1,000 nodes of 64 shards take 0.8 MB */
    REGISTRY_LEASES_MAX = 64,          /* names in one leases_get */
    REGISTRY_RECORD_KEY_MAX = 2047,    /* a bare JID */
    REGISTRY_RECORD_FIELD_MAX = 1023,  /* a resource or nickname */
    REGISTRY_RECORD_VALUE_MAX = 65535, /* a presence stanza with what is known of its session */
};

/* Who holds the lease of a node's name. owner: random, made when the node starts, never 0. */
struct registry_lease {
    str node;
    uint64_t owner;  /* 0: nobody, the lease has run out or was dropped */
    uint32_t ttl_ms; /* of a request: how long from now; of a reply: how long still */
    bool member;  /* of a renewal: this node acts by a view; noted for as long (reply->members) */
    bool revoked; /* it cannot be renewed any more and runs out (lease_revoke) */
};

struct registry_reply {
    uint64_t epoch;                      /* of the view in force; 0: there is none */
    str view;                            /* its bytes: view_get only */
    const struct registry_lease *leases; /* leases_get: as many as asked for, in that order;
                                            lease_renew with ERR_EXISTS: the one who has it */
    size_t lease_count;
    bool members; /* view_get: some node has renewed its lease as a member, and that one has not run
                     out: one key for all, set by lease_renew with the lease's own life */
};
/* reply is NULL exactly with ERR_AWAY and ERR_REFUSED. */
typedef void registry_done_f(void *ctx, err e, const struct registry_reply *reply);

/* A presence record: a field of the hash of a user or a room. The home is the only writer. */
enum registry_kind { REGISTRY_USER, REGISTRY_ROOM };
struct registry_record {
    enum registry_kind kind;
    str key;        /* bare JID of the user or room */
    str field;      /* resource or nickname */
    str value;      /* put: the record */
    uint64_t epoch; /* of the writer; a hash written by a later epoch is not touched */
};

struct registry;
struct registry_impl {
    /* The lease becomes or stays l.owner's for l.ttl_ms, if nobody else has it and it is not
     * revoked. ERR_EXISTS: another owner has it, or it is this one's and revoked (leases[0] says).
     * reply->epoch: of the view in force at that moment. */
    void (*lease_renew)(struct registry *r, struct registry_lease l, registry_done_f *done,
                        void *ctx);
    /* The lease ends now, if it is l.owner's. ERR_OK even when it was not. */
    void (*lease_drop)(struct registry *r, struct registry_lease l, registry_done_f *done,
                       void *ctx);
    /* The lease `of` (node, owner) cannot be renewed from now on; it runs out when it would have.
     * Only if `by` (node, owner) has a lease that is not revoked itself, in one step: of two nodes
     * that revoke each other exactly one wins. ERR_STALE: `by` has none. ERR_OK also when there is
     * no such lease any more. */
    void (*lease_revoke)(struct registry *r, struct registry_lease of, struct registry_lease by,
                         registry_done_f *done, void *ctx);
    /* n <= REGISTRY_LEASES_MAX names. */
    void (*leases_get)(struct registry *r, const str *nodes, size_t n, registry_done_f *done,
                       void *ctx);
    /* ERR_OK with epoch 0 and no bytes: there is no view. */
    void (*view_get)(struct registry *r, registry_done_f *done, void *ctx);
    /* In one step: if the view in force is `expected` (0: there is none), `epoch` with these bytes
     * is from now on. ERR_STALE: it is another one; reply->epoch says which. epoch > expected;
     * at most REGISTRY_VIEW_MAX bytes. */
    void (*view_cas)(struct registry *r, uint64_t expected, uint64_t epoch, str bytes,
                     registry_done_f *done, void *ctx);
    /* Records are written behind: kept by the door, in order per key, until the other side has
     * them, also over a time when it is away; refreshed, so that they live as long as they are not
     * removed, and no longer than registry.record_lifetime after their writer has gone. A record
     * that a later epoch has overwritten is refused there, counted and forgotten. */
    void (*record_put)(struct registry *r, const struct registry_record *record);
    void (*record_remove)(struct registry *r, const struct registry_record *record);
    /* All records of that key have another writer from now on: the door keeps none of them. Nothing
     * is removed on the other side. */
    void (*record_forget)(struct registry *r, enum registry_kind kind, str key);
    /* No done of a request made with this ctx runs any more. */
    void (*forget)(struct registry *r, void *ctx);
};
struct registry {
    const struct registry_impl *impl;
};

static inline void registry_lease_renew(struct registry *r, struct registry_lease l,
                                        registry_done_f *done, void *ctx)
{
    must(l.owner && l.ttl_ms && l.node.n && l.node.n <= REGISTRY_NODE_MAX);
    r->impl->lease_renew(r, l, done, ctx);
}
static inline void registry_lease_drop(struct registry *r, struct registry_lease l,
                                       registry_done_f *done, void *ctx)
{
    r->impl->lease_drop(r, l, done, ctx);
}
static inline void registry_lease_revoke(struct registry *r, struct registry_lease of,
                                         struct registry_lease by, registry_done_f *done, void *ctx)
{
    must(of.owner && by.owner);
    r->impl->lease_revoke(r, of, by, done, ctx);
}
static inline void registry_leases_get(struct registry *r, const str *nodes, size_t n,
                                       registry_done_f *done, void *ctx)
{
    must(n && n <= REGISTRY_LEASES_MAX);
    r->impl->leases_get(r, nodes, n, done, ctx);
}
static inline void registry_view_get(struct registry *r, registry_done_f *done, void *ctx)
{
    r->impl->view_get(r, done, ctx);
}
static inline void registry_view_cas(struct registry *r, uint64_t expected, uint64_t epoch,
                                     str bytes, registry_done_f *done, void *ctx)
{
    must(epoch > expected && bytes.n && bytes.n <= REGISTRY_VIEW_MAX);
    r->impl->view_cas(r, expected, epoch, bytes, done, ctx);
}
static inline void registry_record_put(struct registry *r, const struct registry_record *record)
{
    must(record->key.n <= REGISTRY_RECORD_KEY_MAX && record->field.n <= REGISTRY_RECORD_FIELD_MAX &&
         record->value.n <= REGISTRY_RECORD_VALUE_MAX);
    r->impl->record_put(r, record);
}
static inline void registry_record_remove(struct registry *r, const struct registry_record *record)
{
    must(record->key.n <= REGISTRY_RECORD_KEY_MAX && record->field.n <= REGISTRY_RECORD_FIELD_MAX);
    r->impl->record_remove(r, record);
}
static inline void registry_record_forget(struct registry *r, enum registry_kind kind, str key)
{
    must(key.n <= REGISTRY_RECORD_KEY_MAX);
    r->impl->record_forget(r, kind, key);
}
static inline void registry_forget(struct registry *r, void *ctx) { r->impl->forget(r, ctx); }

#endif
