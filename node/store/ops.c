/* ops: the table of operations, what they share, and ping. */
#include "node/store/ops.h"

static const struct op_row rows[] = {
#define OP(name, NAME, write, needs) [STORE__REQUEST__OP_##NAME] = {op_##name, #name, write, needs},
#include "node/store/ops.def"
#undef OP
};

const struct op_row *ops_row(const Store__Request *q)
{
    size_t i = (size_t)q->op_case;
    return i < array_len(rows) && rows[i].run ? &rows[i] : NULL;
}

static err find_account(struct ops *x)
{
    sqlite3_stmt *st = db_start(x->db, account_find, A_TEXT(x->owner));
    err e = db_next(x->db, st);
    if (e != ERR_OK)
        return e;
    x->account = db_int(st, 0);
    db_stop(st);
    return ERR_OK;
}

err ops_run(struct ops *x, const struct op_row *row, const Store__Request *q, Store__Reply *r)
{
    x->owner = ops_str(q->owner);
    x->account = 0;
    if (row->needs != OPS_NO_OWNER && !ops_key_ok(x->owner, OWNER_MAX))
        return ERR_BAD;
    if (row->needs == OPS_ACCOUNT) {
        err e = find_account(x);
        if (e != ERR_OK)
            return e;
    }
    return row->run(x, q, r);
}

ProtobufCBinaryData ops_keep(struct ops *x, str s)
{
    str copy = arena_dup(x->arena, s);
    return (ProtobufCBinaryData){copy.n, (uint8_t *)copy.p};
}

void *ops_grow(struct ops *x, void *array, size_t n, size_t size)
{
    if (n > 0 && (n < 8 || (n & (n - 1)) != 0))
        return array; /* capacities are 8, 16, 32 … */
    char *bigger = arena_alloc(x->arena, (n ? n * 2 : 8) * size);
    if (n > 0)
        memcpy(bigger, array, n * size);
    return bigger;
}

err op_ping(struct ops *x, const Store__Request *q, Store__Reply *r)
{
    Store__Health *health = arena_alloc(x->arena, sizeof *health);
    store__health__init(health);
    sqlite3_stmt *st = x->db->statements[SQL_database_bytes];
    err e = db_next(x->db, st);
    if (e != ERR_OK)
        return e == ERR_NOT_FOUND ? ERR_IO : e;
    health->database_bytes = (uint64_t)db_int(st, 0);
    db_stop(st);
    health->schema_version = (uint32_t)schema_version;
    health->disk_free_bytes = db_disk_free(x->db);
    health->queue = (uint32_t)x->queue;
    r->body_case = STORE__REPLY__BODY_HEALTH;
    r->health = health;
    return ERR_OK;
}
