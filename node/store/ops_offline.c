/* ops_offline: messages that wait for their addressee (XEP-0160). A row goes when its client has
 * acknowledged it, by id; or, if it was moved here from a session's queue, when that session turns
 * out to have got it: by (sid, seq) (XEP-0198 5). */
#include "node/store/ops.h"

static err count_offline(struct ops *x, uint64_t *count, uint64_t *bytes)
{
    sqlite3_stmt *st = db_start(x->db, offline_count, A_INT(x->account));
    err e = db_next(x->db, st);
    if (e != ERR_OK)
        return e;
    *count = (uint64_t)db_int(st, 0);
    *bytes = (uint64_t)db_int(st, 1);
    db_stop(st);
    return ERR_OK;
}

/* ERR_OK: there is such a row; ERR_NOT_FOUND. */
static err find_uid(struct ops *x, str uid)
{
    sqlite3_stmt *st = db_start(x->db, offline_has, A_INT(x->account), A_BLOB(uid));
    err e = db_next(x->db, st);
    if (e == ERR_OK)
        db_stop(st);
    return e;
}

err op_offline_put(struct ops *x, const Store__Request *q, Store__Reply *r)
{
    const Store__OfflinePut *put = q->offline_put;
    str uid = ops_str(put->uid), sid = ops_str(put->sid), stanza = ops_str(put->stanza);
    if (uid.n == 0 || uid.n > UID_MAX || sid.n > UID_MAX || stanza.n == 0 || stanza.n > XML_MAX ||
        put->seq > INT64_MAX)
        return ERR_BAD;
    err e = find_uid(x, uid);     /* first: a repeat is fine however full it is */
    if (e == ERR_OK && sid.n > 0) /* it comes from a queue this time: what that tells is new */
        return db_do(x->db, offline_claim, A_INT(x->account), A_BLOB(uid), A_BLOB(sid),
                     A_INT(put->seq));
    if (e != ERR_NOT_FOUND)
        return e;
    uint64_t count, bytes;
    if ((e = count_offline(x, &count, &bytes)) != ERR_OK)
        return e;
    if ((put->count_max && count >= put->count_max) ||
        (put->bytes_max && bytes + stanza.n > put->bytes_max))
        return ERR_FULL;
    return db_do(x->db, offline_put, A_INT(x->account), A_BLOB(uid), A_INT(put->time_us),
                 A_BLOB(stanza), A_BLOB(sid), A_INT(put->seq));
}

static void add_row(struct ops *x, sqlite3_stmt *st, Store__OfflinePage *page)
{
    Store__OfflineRow *row = arena_alloc(x->arena, sizeof *row);
    store__offline_row__init(row);
    row->id = (uint64_t)db_int(st, 0);
    row->uid = ops_column(x, st, 1);
    row->time_us = db_int(st, 2);
    row->stanza = ops_column(x, st, 3);
    page->rows = ops_grow(x, page->rows, page->n_rows, sizeof(void *));
    page->rows[page->n_rows++] = row;
}

err op_offline_get(struct ops *x, const Store__Request *q, Store__Reply *r)
{
    const Store__OfflineGet *get = q->offline_get;
    if (get->after_id > INT64_MAX || get->limit > PAGE_MAX || get->bytes_max > PAGE_BYTES_MAX)
        return ERR_BAD;
    Store__OfflinePage *page = arena_alloc(x->arena, sizeof *page);
    store__offline_page__init(page);
    r->body_case = STORE__REPLY__BODY_OFFLINE;
    r->offline = page;
    size_t limit = get->limit ? get->limit : PAGE_DEFAULT;
    size_t left = get->bytes_max ? get->bytes_max : PAGE_BYTES_MAX;
    sqlite3_stmt *st = db_start(x->db, offline_get, A_INT(x->account), A_INT(get->after_id));
    err e;
    while ((e = db_next(x->db, st)) == ERR_OK) {
        size_t n = db_bytes(st, 3).n;
        if (page->n_rows == limit || (page->n_rows > 0 && n > left)) {
            page->more = true;
            db_stop(st);
            return ERR_OK;
        }
        left -= n < left ? n : left;
        add_row(x, st, page);
    }
    return ops_end(e);
}

err op_offline_given(struct ops *x, const Store__Request *q, Store__Reply *r)
{
    const Store__OfflineGiven *given = q->offline_given;
    str sid = ops_str(given->sid);
    if (sid.n == 0 || sid.n > UID_MAX || given->seq > INT64_MAX - given->n_ids)
        return ERR_BAD;
    for (size_t i = 0; i < given->n_ids; i++) {
        if (given->ids[i] > INT64_MAX)
            return ERR_BAD;
        err e = db_do(x->db, offline_given, A_INT(x->account), A_INT(given->ids[i]), A_BLOB(sid),
                      A_INT(given->seq + i));
        if (e != ERR_OK)
            return e;
    }
    return ERR_OK;
}

err op_offline_remove(struct ops *x, const Store__Request *q, Store__Reply *r)
{
    const Store__OfflineRemove *remove = q->offline_remove;
    for (size_t i = 0; i < remove->n_ids; i++) {
        if (remove->ids[i] > INT64_MAX)
            return ERR_BAD;
        err e = db_do(x->db, offline_remove, A_INT(x->account), A_INT(remove->ids[i]));
        if (e != ERR_OK)
            return e;
    }
    return ERR_OK;
}

err op_offline_remove_queue(struct ops *x, const Store__Request *q, Store__Reply *r)
{
    const Store__OfflineRemoveQueue *remove = q->offline_remove_queue;
    uint64_t seq_max = remove->seq_max < INT64_MAX ? remove->seq_max : INT64_MAX;
    if (remove->sid.len == 0 || remove->sid.len > UID_MAX)
        return ERR_BAD;
    return db_do(x->db, offline_remove_queue, A_INT(x->account), A_BLOB(ops_str(remove->sid)),
                 A_INT(seq_max));
}

err op_offline_count(struct ops *x, const Store__Request *q, Store__Reply *r)
{
    uint64_t count, bytes;
    err e = count_offline(x, &count, &bytes);
    if (e != ERR_OK)
        return e;
    r->body_case = STORE__REPLY__BODY_OFFLINE_STATE;
    r->offline_state = arena_alloc(x->arena, sizeof *r->offline_state);
    store__offline_state__init(r->offline_state);
    r->offline_state->count = (uint32_t)count;
    r->offline_state->bytes = bytes;
    return ERR_OK;
}
