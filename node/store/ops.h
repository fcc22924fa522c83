/* ops: what the store can do: one function per operation of store.proto, all in ops.def, the same
 * for every back-end. An op looks at its part of the request (ERR_BAD), and hands over all its
 * statements; when their rows have come, its `done` weighs them and may set the reply's body.
 * Memory is the arena's, which lives as long as the batch. An op that answers anything but ERR_OK
 * has changed nothing, or has run a guard (sql.h). */
#ifndef NODE_STORE_OPS_H
#define NODE_STORE_OPS_H

#include "node/store/sql.h"
#include "pemberley/arena.h"
#include "proto/bus/store.pb-c.h"

struct ops {
    struct sql *sql;
    struct arena *arena;
    const struct op_row *row;
    const Store__Request *q;
    Store__Reply r;
    err (*done)(struct ops *x); /* NULL: what came is the answer */
    err e;                      /* the back-end: the first statement that failed */
    str owner;
    size_t queue; /* requests that wait behind this one */
    /* what rows have told */
    bool found;           /* the account */
    bool stored, equal;   /* what was to be put; what was there before */
    bool full;            /* a guard: undo */
    size_t limit, left;   /* of a page */
    size_t missing;       /* things named by their keys that were not seen yet */
    int64_t lower, upper; /* between these, themselves left out */
};

/* Bounds of what a request may carry; more is ERR_BAD. A bare JID is RFC 7622's 1,023 twice. */
enum {
    OWNER_MAX = 2047,
    CONTACT_MAX = 3071,
    NODE_MAX = 32,      /* a node's name */
    TEXT_MAX = 8 << 10, /* a name, a status, keys, a group, a key */
    UID_MAX = 64,
    CLIENT_MAX = 64,   /* a client, a mechanism */
    XML_MAX = 1 << 20, /* a stanza, a vCard, private XML */
    PENDING_STANZAS_MAX = 2 << 20,
    ROSTER_MAX = 4 << 20,
    GROUPS_MAX = 256, /* of an item */
    ROSTER_LOG = 500, /* versions */
    ENDED_MAX = 10,
    LEAF_NAME_MAX = 1023,
    LEAF_CONFIG_MAX = 16 << 10,
    LEAF_CHANGES_MAX = 256, /* affiliations, subscriptions of one request */
    ITEM_IDS_MAX = 64,      /* of one request */
    CAPS_KEY_MAX = 200,
    CAPS_FEATURES_MAX = 32 << 10,
    CAPS_MAX = 20000, /* hashes that are kept */
    PAGE_MAX = 1000,
    PAGE_DEFAULT = 100,
    PAGE_BYTES_MAX = 1 << 20,
    ARCHIVE_ID = 16,
    ARCHIVE_IDS_MAX = 250, /* in one request */
    ARCHIVE_PREFS_MAX = 512 << 10,
    ARCHIVE_COUNT_MAX = 1000000,
    ARCHIVE_FIND_ROWS = 10000, /* of a contact: older ones are not found */
    TRIM_MAX = 10000,
};
#define CLIENT_SEEN_US INT64_C(3600000000) /* when it was here is not noted more often */
#define ENDED_LIFE_US INT64_C(86400000000)

typedef err ops_f(struct ops *x);
enum ops_owner { OPS_NO_OWNER, OPS_OWNER, OPS_ACCOUNT };
struct op_row {
    ops_f *run;
    const char *name;
    bool write;
    enum ops_owner needs; /* nothing, a JID, an account that exists (else ERR_NOT_FOUND) */
};
/* The row of a request, or NULL if it is none. */
const struct op_row *ops_row(const Store__Request *q);
/* x has sql, arena, row, q and queue. ERR_BAD: what was handed over (the account's
 * look-up) has no effect, ops_end does not follow. */
nodiscard err ops_begin(struct ops *x);
/* All rows are there. The answer, and with ERR_OK the body in x->r. */
nodiscard err ops_end(struct ops *x);

#define OP(name, NAME, write, needs) ops_f op_##name;
#include "node/store/ops.def"
#undef OP

/* Hands a statement over: ops_sql(x, vcard_put, NULL, A_TEXT(x->owner), A_BLOB(xml)). Nothing more
 * runs once one has failed. */
static inline void ops_sql_args(struct ops *x, enum statement s, sql_row_f *on_row,
                                const struct sql_arg *a, size_t n)
{
    if (x->e == ERR_OK)
        x->sql->run(x->sql, x, s, on_row, a, n);
}
#define ops_sql(x, name, on_row, ...) \
    ops_sql_args((x), SQL_##name, (on_row), (const struct sql_arg[]){__VA_ARGS__}, \
                 sizeof((const struct sql_arg[]){__VA_ARGS__}) / sizeof(struct sql_arg))

static inline str ops_str(ProtobufCBinaryData b) { return str_from(b.data, b.len); }
ProtobufCBinaryData ops_keep(struct ops *x, str s); /* a copy in the arena */
/* Text that becomes a key or goes into a list: not empty, no NUL, not too long. */
static inline bool ops_key_ok(str s, size_t max)
{
    return s.n > 0 && s.n <= max && !memchr(s.p, 0, s.n);
}
bool ops_ids_ok(const uint64_t *ids, size_t n);
/* Appends to a repeated field whose array grows in the arena by doubling. */
void *ops_grow(struct ops *x, void *array, size_t n, size_t size);
/* Row handlers that several use. */
sql_row_f ops_on_found, ops_on_stored;

#endif
