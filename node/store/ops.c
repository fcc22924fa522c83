/* ops: the table of operations, what they share, and what is nobody's: ping, fences of nodes. */
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

bool ops_on_found(struct ops *x, const struct sql_row *row)
{
    x->found = true;
    return false;
}

bool ops_on_stored(struct ops *x, const struct sql_row *row)
{
    x->stored = true;
    return false;
}

err ops_begin(struct ops *x)
{
    x->owner = ops_str(x->q->owner);
    store__reply__init(&x->r);
    if (x->row->needs != OPS_NO_OWNER && !ops_key_ok(x->owner, OWNER_MAX))
        return ERR_BAD;
    if (x->row->needs == OPS_ACCOUNT)
        ops_sql(x, account_find, ops_on_found, A_TEXT(x->owner));
    return x->row->run(x);
}

err ops_end(struct ops *x)
{
    if (x->e != ERR_OK)
        return x->e;
    if (x->row->needs == OPS_ACCOUNT && !x->found)
        return ERR_NOT_FOUND;
    return x->done ? x->done(x) : ERR_OK;
}

ProtobufCBinaryData ops_keep(struct ops *x, str s)
{
    str copy = arena_dup(x->arena, s);
    return (ProtobufCBinaryData){copy.n, (uint8_t *)copy.p};
}

bool ops_ids_ok(const uint64_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (ids[i] > INT64_MAX)
            return false;
    return true;
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

static bool on_database_bytes(struct ops *x, const struct sql_row *row)
{
    x->r.health->database_bytes = (uint64_t)row->c[0].i;
    return false;
}

err op_ping(struct ops *x)
{
    x->r.body_case = STORE__REPLY__BODY_HEALTH;
    x->r.health = arena_alloc(x->arena, sizeof *x->r.health);
    store__health__init(x->r.health);
    x->r.health->schema_version = (uint32_t)x->sql->schema_version;
    x->r.health->disk_free_bytes = x->sql->disk_free ? x->sql->disk_free(x->sql) : 0;
    x->r.health->queue = (uint32_t)x->queue;
    ops_sql(x, database_bytes, on_database_bytes);
    return ERR_OK;
}

static bool node_ok(str node, uint64_t epoch)
{
    return ops_key_ok(node, NODE_MAX) && epoch > 0 && epoch <= INT64_MAX;
}

err op_node_fence(struct ops *x)
{
    const Store__NodeFence *f = x->q->node_fence;
    if (!node_ok(ops_str(f->node), f->epoch))
        return ERR_BAD;
    ops_sql(x, fence_put, NULL, A_TEXT(ops_str(f->node)), A_INT(f->epoch));
    return ERR_OK;
}

static err admitted(struct ops *x) { return x->stored ? ERR_EXISTS : ERR_OK; }

err op_node_admit(struct ops *x)
{
    const Store__NodeAdmit *f = x->q->node_admit;
    if (!node_ok(ops_str(f->node), f->epoch))
        return ERR_BAD;
    ops_sql(x, fence_lift, NULL, A_TEXT(ops_str(f->node)), A_INT(f->epoch));
    ops_sql(x, fence_left, ops_on_stored, A_TEXT(ops_str(f->node)));
    x->done = admitted;
    return ERR_OK;
}
