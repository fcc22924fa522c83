/* ops_offline: messages that wait for their addressee (XEP-0160). A row goes when its client has
 * acknowledged it, by id; or, if it was moved here from a session's queue, when that session turns
 * out to have got it: by (sid, seq) (XEP-0198 5). */
#include "node/store/ops.h"

/* The number of rows with the uid: one if it was there, or is now. */
static bool on_put(struct ops *x, const struct sql_row *row)
{
    x->found = true;
    x->stored = row->c[0].i > 0;
    return false;
}

static err put_done(struct ops *x)
{
    if (!x->found)
        return ERR_NOT_FOUND;
    return x->stored ? ERR_OK : ERR_FULL;
}

err op_offline_put(struct ops *x)
{
    const Store__OfflinePut *put = x->q->offline_put;
    str uid = ops_str(put->uid), sid = ops_str(put->sid), stanza = ops_str(put->stanza);
    if (uid.n == 0 || uid.n > UID_MAX || sid.n > UID_MAX || stanza.n == 0 || stanza.n > XML_MAX ||
        put->seq > INT64_MAX || put->bytes_max > INT64_MAX || put->archived.len > UID_MAX)
        return ERR_BAD;
    if (sid.n > 0) /* a repeat that comes from a queue this time: what that tells is new */
        ops_sql(x, offline_claim, NULL, A_TEXT(x->owner), A_BLOB(uid), A_BLOB(sid),
                A_INT(put->seq));
    ops_sql(x, offline_put, on_put, A_TEXT(x->owner), A_BLOB(uid), A_INT(put->time_us),
            A_BLOB(stanza), A_BLOB(sid), A_INT(put->seq), A_INT(put->count_max),
            A_INT(put->bytes_max), A_BLOB(ops_str(put->archived)));
    ops_sql(x, offline_has, on_put, A_TEXT(x->owner), A_BLOB(uid));
    x->done = put_done;
    return ERR_OK;
}

static bool on_row(struct ops *x, const struct sql_row *from)
{
    Store__OfflinePage *page = x->r.offline;
    size_t n = from->c[3].s.n;
    if (page->n_rows == x->limit || (page->n_rows > 0 && n > x->left)) {
        page->more = true;
        return false;
    }
    x->left -= n < x->left ? n : x->left;
    Store__OfflineRow *row = arena_alloc(x->arena, sizeof *row);
    store__offline_row__init(row);
    row->id = (uint64_t)from->c[0].i;
    row->uid = ops_keep(x, from->c[1].s);
    row->time_us = from->c[2].i;
    row->stanza = ops_keep(x, from->c[3].s);
    row->archived = ops_keep(x, from->c[4].s);
    page->rows = ops_grow(x, page->rows, page->n_rows, sizeof(void *));
    page->rows[page->n_rows++] = row;
    return true;
}

err op_offline_get(struct ops *x)
{
    const Store__OfflineGet *get = x->q->offline_get;
    if (get->after_id > INT64_MAX || get->limit > PAGE_MAX || get->bytes_max > PAGE_BYTES_MAX)
        return ERR_BAD;
    x->r.body_case = STORE__REPLY__BODY_OFFLINE;
    x->r.offline = arena_alloc(x->arena, sizeof *x->r.offline);
    store__offline_page__init(x->r.offline);
    x->limit = get->limit ? get->limit : PAGE_DEFAULT;
    x->left = get->bytes_max ? get->bytes_max : PAGE_BYTES_MAX;
    ops_sql(x, offline_get, on_row, A_TEXT(x->owner), A_INT(get->after_id), A_INT(x->limit + 1),
            A_INT(x->left));
    return ERR_OK;
}

err op_offline_given(struct ops *x)
{
    const Store__OfflineGiven *given = x->q->offline_given;
    str sid = ops_str(given->sid);
    if (sid.n == 0 || sid.n > UID_MAX || given->n_ids > INT32_MAX ||
        given->seq > INT64_MAX - given->n_ids || !ops_ids_ok(given->ids, given->n_ids))
        return ERR_BAD;
    ops_sql(x, offline_given, NULL, A_TEXT(x->owner), A_IDS(given->ids, given->n_ids), A_BLOB(sid),
            A_INT(given->seq));
    return ERR_OK;
}

err op_offline_remove(struct ops *x)
{
    const Store__OfflineRemove *remove = x->q->offline_remove;
    if (!ops_ids_ok(remove->ids, remove->n_ids))
        return ERR_BAD;
    ops_sql(x, offline_remove, NULL, A_TEXT(x->owner), A_IDS(remove->ids, remove->n_ids));
    return ERR_OK;
}

err op_offline_remove_queue(struct ops *x)
{
    const Store__OfflineRemoveQueue *remove = x->q->offline_remove_queue;
    str sid = ops_str(remove->sid);
    uint64_t seq_max = remove->seq_max < INT64_MAX ? remove->seq_max : INT64_MAX;
    uint64_t seq_min = remove->seq_min < INT64_MAX ? remove->seq_min : INT64_MAX;
    if (sid.n == 0 || sid.n > UID_MAX)
        return ERR_BAD;
    ops_sql(x, offline_remove_queue, NULL, A_TEXT(x->owner), A_BLOB(sid), A_INT(seq_max),
            A_INT(seq_min));
    return ERR_OK;
}

static bool on_state(struct ops *x, const struct sql_row *row)
{
    x->r.offline_state->count = (uint32_t)row->c[0].i;
    x->r.offline_state->bytes = (uint64_t)row->c[1].i;
    return false;
}

static void tell_state(struct ops *x)
{
    x->r.body_case = STORE__REPLY__BODY_OFFLINE_STATE;
    x->r.offline_state = arena_alloc(x->arena, sizeof *x->r.offline_state);
    store__offline_state__init(x->r.offline_state);
    ops_sql(x, offline_count, on_state, A_TEXT(x->owner));
}

err op_offline_count(struct ops *x)
{
    tell_state(x);
    return ERR_OK;
}

err op_offline_drop_archived(struct ops *x)
{
    ops_sql(x, offline_drop_archived, NULL, A_TEXT(x->owner));
    tell_state(x);
    return ERR_OK;
}
