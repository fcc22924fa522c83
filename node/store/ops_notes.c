/* ops_notes: the small things an account keeps: private XML (XEP-0049), its vCard (XEP-0054), whom
 * it has blocked (XEP-0191), how far its ended sessions had come (XEP-0198 5), when it was last
 * here (XEP-0012). */
#include "node/store/ops.h"

static bool on_xml(struct ops *x, const struct sql_row *row)
{
    x->r.body_case = STORE__REPLY__BODY_XML;
    x->r.xml = arena_alloc(x->arena, sizeof *x->r.xml);
    store__xml__init(x->r.xml);
    x->r.xml->xml = ops_keep(x, row->c[0].s);
    return false;
}

static err is_there(struct ops *x)
{
    return x->r.body_case == STORE__REPLY__BODY__NOT_SET ? ERR_NOT_FOUND : ERR_OK;
}

err op_private_get(struct ops *x)
{
    str key = ops_str(x->q->private_get->key);
    if (!ops_key_ok(key, TEXT_MAX))
        return ERR_BAD;
    ops_sql(x, private_get, on_xml, A_TEXT(x->owner), A_BLOB(key));
    x->done = is_there;
    return ERR_OK;
}

static err is_stored(struct ops *x) { return x->stored ? ERR_OK : ERR_FULL; }

err op_private_put(struct ops *x)
{
    const Store__PrivatePut *put = x->q->private_put;
    str key = ops_str(put->key), xml = ops_str(put->xml);
    if (!ops_key_ok(key, TEXT_MAX) || xml.n > XML_MAX || put->size_max > INT64_MAX)
        return ERR_BAD;
    if (xml.n == 0) {
        ops_sql(x, private_remove, NULL, A_TEXT(x->owner), A_BLOB(key));
        return ERR_OK;
    }
    ops_sql(x, private_put, ops_on_stored, A_TEXT(x->owner), A_BLOB(key), A_BLOB(xml),
            A_INT(put->size_max));
    x->done = is_stored;
    return ERR_OK;
}

err op_vcard_get(struct ops *x)
{
    ops_sql(x, vcard_get, on_xml, A_TEXT(x->owner));
    x->done = is_there;
    return ERR_OK;
}

err op_vcard_put(struct ops *x)
{
    str xml = ops_str(x->q->vcard_put->xml);
    if (xml.n > XML_MAX)
        return ERR_BAD;
    if (xml.n == 0)
        ops_sql(x, vcard_remove, NULL, A_TEXT(x->owner));
    else
        ops_sql(x, vcard_put, NULL, A_TEXT(x->owner), A_BLOB(xml));
    return ERR_OK;
}

err op_block_put(struct ops *x)
{
    str jids = ops_str(x->q->block_put->jids);
    if (jids.n > XML_MAX || (jids.n && jids.p[jids.n - 1]))
        return ERR_BAD;
    if (jids.n == 0)
        ops_sql(x, block_remove, NULL, A_TEXT(x->owner));
    else
        ops_sql(x, block_put, NULL, A_TEXT(x->owner), A_BLOB(jids));
    return ERR_OK;
}

err op_ended_put(struct ops *x)
{
    const Store__EndedPut *put = x->q->ended_put;
    if (put->token.len == 0 || put->token.len > UID_MAX || put->time_us < 0)
        return ERR_BAD;
    ops_sql(x, ended_put, NULL, A_TEXT(x->owner), A_BLOB(ops_str(put->token)), A_INT(put->h),
            A_INT(put->time_us));
    ops_sql(x, ended_trim, NULL, A_TEXT(x->owner), A_INT(put->time_us - ENDED_LIFE_US),
            A_INT(ENDED_MAX));
    return ERR_OK;
}

static bool on_ended(struct ops *x, const struct sql_row *row)
{
    int64_t now = x->q->ended_get->time_us;
    if (now != 0 && row->c[1].i < now - ENDED_LIFE_US)
        return false;
    x->r.body_case = STORE__REPLY__BODY_ENDED;
    x->r.ended = arena_alloc(x->arena, sizeof *x->r.ended);
    store__ended__init(x->r.ended);
    x->r.ended->h = (uint32_t)row->c[0].i;
    return false;
}

err op_ended_get(struct ops *x)
{
    const Store__EndedGet *get = x->q->ended_get;
    if (get->token.len == 0 || get->token.len > UID_MAX || get->time_us < 0)
        return ERR_BAD;
    ops_sql(x, ended_get, on_ended, A_TEXT(x->owner), A_BLOB(ops_str(get->token)));
    x->done = is_there;
    return ERR_OK;
}

err op_last_put(struct ops *x)
{
    const Store__LastPut *put = x->q->last_put;
    if (put->status.len > TEXT_MAX)
        return ERR_BAD;
    ops_sql(x, last_put, NULL, A_TEXT(x->owner), A_INT(put->time_us), A_BLOB(ops_str(put->status)));
    return ERR_OK;
}
