/* ops_notes: the small things an account keeps: private XML (XEP-0049), its vCard (XEP-0054), how
 * far its ended sessions had come (XEP-0198 5), when it was last here (XEP-0012). */
#include "node/store/ops.h"

static err one_xml(struct ops *x, sqlite3_stmt *st, Store__Reply *r)
{
    err e = db_next(x->db, st);
    if (e != ERR_OK)
        return e;
    r->body_case = STORE__REPLY__BODY_XML;
    r->xml = arena_alloc(x->arena, sizeof *r->xml);
    store__xml__init(r->xml);
    r->xml->xml = ops_column(x, st, 0);
    db_stop(st);
    return ERR_OK;
}

err op_private_get(struct ops *x, const Store__Request *q, Store__Reply *r)
{
    str key = ops_str(q->private_get->key);
    if (!ops_key_ok(key, TEXT_MAX))
        return ERR_BAD;
    return one_xml(x, db_start(x->db, private_get, A_INT(x->account), A_BLOB(key)), r);
}

/* Put first, then weighed: what is too much is undone by the savepoint. */
static err check_private_size(struct ops *x, uint64_t size_max)
{
    sqlite3_stmt *st = db_start(x->db, private_bytes, A_INT(x->account));
    err e = db_next(x->db, st);
    if (e != ERR_OK)
        return e;
    bool full = size_max && (uint64_t)db_int(st, 0) > size_max;
    db_stop(st);
    return full ? ERR_FULL : ERR_OK;
}

err op_private_put(struct ops *x, const Store__Request *q, Store__Reply *r)
{
    const Store__PrivatePut *put = q->private_put;
    str key = ops_str(put->key), xml = ops_str(put->xml);
    if (!ops_key_ok(key, TEXT_MAX) || xml.n > XML_MAX)
        return ERR_BAD;
    if (xml.n == 0)
        return db_do(x->db, private_remove, A_INT(x->account), A_BLOB(key));
    err e = db_do(x->db, private_put, A_INT(x->account), A_BLOB(key), A_BLOB(xml));
    return e == ERR_OK ? check_private_size(x, put->size_max) : e;
}

err op_vcard_get(struct ops *x, const Store__Request *q, Store__Reply *r)
{
    return one_xml(x, db_start(x->db, vcard_get, A_INT(x->account)), r);
}

err op_vcard_put(struct ops *x, const Store__Request *q, Store__Reply *r)
{
    str xml = ops_str(q->vcard_put->xml);
    if (xml.n > XML_MAX)
        return ERR_BAD;
    if (xml.n == 0)
        return db_do(x->db, vcard_remove, A_INT(x->account));
    return db_do(x->db, vcard_put, A_INT(x->account), A_BLOB(xml));
}

err op_ended_put(struct ops *x, const Store__Request *q, Store__Reply *r)
{
    const Store__EndedPut *put = q->ended_put;
    if (put->token.len == 0 || put->token.len > UID_MAX || put->time_us < 0)
        return ERR_BAD;
    err e = db_do(x->db, ended_put, A_INT(x->account), A_BLOB(ops_str(put->token)), A_INT(put->h),
                  A_INT(put->time_us));
    if (e != ERR_OK)
        return e;
    return db_do(x->db, ended_trim, A_INT(x->account), A_INT(put->time_us - ENDED_LIFE_US),
                 A_INT(ENDED_MAX));
}

err op_ended_get(struct ops *x, const Store__Request *q, Store__Reply *r)
{
    const Store__EndedGet *get = q->ended_get;
    if (get->token.len == 0 || get->token.len > UID_MAX || get->time_us < 0)
        return ERR_BAD;
    sqlite3_stmt *st = db_start(x->db, ended_get, A_INT(x->account), A_BLOB(ops_str(get->token)));
    err e = db_next(x->db, st);
    if (e != ERR_OK)
        return e;
    bool old = get->time_us != 0 && db_int(st, 1) < get->time_us - ENDED_LIFE_US;
    uint32_t h = (uint32_t)db_int(st, 0);
    db_stop(st);
    if (old)
        return ERR_NOT_FOUND;
    r->body_case = STORE__REPLY__BODY_ENDED;
    r->ended = arena_alloc(x->arena, sizeof *r->ended);
    store__ended__init(r->ended);
    r->ended->h = h;
    return ERR_OK;
}

err op_last_put(struct ops *x, const Store__Request *q, Store__Reply *r)
{
    const Store__LastPut *put = q->last_put;
    if (put->status.len > TEXT_MAX)
        return ERR_BAD;
    return db_do(x->db, last_put, A_INT(x->account), A_INT(put->time_us),
                 A_BLOB(ops_str(put->status)));
}
