/* ops: what the worker can do: one function per operation of store.proto, all in ops.def. An op
 * runs inside a transaction, reads its part of the request, may set the reply's body (memory from
 * the arena), and returns ERR_OK or why not; what it has written is undone then. */
#ifndef NODE_STORE_OPS_H
#define NODE_STORE_OPS_H

#include "node/store/sqlite.h"
#include "proto/bus/store.pb-c.h"

struct ops {
    struct db *db;
    struct arena *arena;
    int64_t account; /* of the request's owner, for ops that need one */
    str owner;
    size_t queue; /* requests that wait behind this one */
};

/* Bounds of what a request may carry; more is ERR_BAD. A bare JID is RFC 7622's 1,023 twice. */
enum {
    OWNER_MAX = 2047,
    CONTACT_MAX = 3071,
    TEXT_MAX = 8 << 10, /* a name, a status, keys, a group, a key */
    UID_MAX = 64,
    XML_MAX = 1 << 20, /* a stanza, a vCard, private XML */
    PENDING_STANZAS_MAX = 2 << 20,
    ROSTER_MAX = 4 << 20,
    GROUPS_MAX = 256, /* of an item */
    ROSTER_LOG = 500, /* versions */
    ENDED_MAX = 10,
    PAGE_MAX = 1000,
    PAGE_DEFAULT = 100,
    PAGE_BYTES_MAX = 1 << 20,
};
#define ENDED_LIFE_US INT64_C(86400000000)

typedef err ops_f(struct ops *x, const Store__Request *q, Store__Reply *r);
enum ops_owner { OPS_NO_OWNER, OPS_OWNER, OPS_ACCOUNT };
struct op_row {
    ops_f *run;
    const char *name;
    bool write;
    enum ops_owner needs; /* nothing, a JID, an account that exists (else ERR_NOT_FOUND) */
};
/* The row of a request, or NULL if it is none. */
const struct op_row *ops_row(const Store__Request *q);
/* Checks the owner, finds the account, runs. */
nodiscard err ops_run(struct ops *x, const struct op_row *row, const Store__Request *q,
                      Store__Reply *r);

#define OP(name, NAME, write, needs) ops_f op_##name;
#include "node/store/ops.def"
#undef OP

static inline str ops_str(ProtobufCBinaryData b) { return str_from(b.data, b.len); }
ProtobufCBinaryData ops_keep(struct ops *x, str s); /* a copy in the arena */
static inline ProtobufCBinaryData ops_column(struct ops *x, sqlite3_stmt *st, int column)
{
    return ops_keep(x, db_bytes(st, column));
}
/* ERR_NOT_FOUND of a walk is its end. */
static inline err ops_end(err e) { return e == ERR_NOT_FOUND ? ERR_OK : e; }
/* Text that becomes a key or goes into a list: not empty, no NUL, not too long. */
static inline bool ops_key_ok(str s, size_t max)
{
    return s.n > 0 && s.n <= max && !memchr(s.p, 0, s.n);
}
/* Appends to a repeated field whose array grows in the arena by doubling. */
void *ops_grow(struct ops *x, void *array, size_t n, size_t size);

#endif
