/* ops_account: accounts and their SCRAM keys. */
#include "node/store/ops.h"

err op_account_get(struct ops *x, const Store__Request *q, Store__Reply *r)
{
    Store__Account *account = arena_alloc(x->arena, sizeof *account);
    store__account__init(account);
    sqlite3_stmt *st = db_start(x->db, account_get, A_TEXT(x->owner));
    err e = db_next(x->db, st);
    if (e == ERR_OK) {
        account->exists = true;
        account->disabled = db_int(st, 0) != 0;
        account->keys = ops_column(x, st, 1);
        account->created_us = db_int(st, 2);
        db_stop(st);
    }
    r->body_case = STORE__REPLY__BODY_ACCOUNT;
    r->account = account;
    return ops_end(e);
}

/* A repeat of the request that made the account must not tell its maker that somebody else did. */
static err compare_account(struct ops *x, const Store__AccountAdd *add)
{
    sqlite3_stmt *st = db_start(x->db, account_get, A_TEXT(x->owner));
    err e = db_next(x->db, st);
    if (e != ERR_OK)
        return e;
    bool same = str_eq(db_bytes(st, 1), ops_str(add->keys)) && db_int(st, 2) == add->created_us;
    db_stop(st);
    return same ? ERR_OK : ERR_EXISTS;
}

static err count_of_host(struct ops *x, str host, uint64_t *count)
{
    sqlite3_stmt *st = db_start(x->db, account_count, A_TEXT(host), A_TEXT(STR("")));
    err e = db_next(x->db, st);
    if (e != ERR_OK)
        return e;
    *count = (uint64_t)db_int(st, 0);
    db_stop(st);
    return ERR_OK;
}

/* ERR_FULL: host has all it may have, and the account is none of them. */
static err check_room(struct ops *x, const Store__AccountAdd *add, str host)
{
    uint64_t count = 0;
    err e = add->host_max ? count_of_host(x, host, &count) : ERR_OK;
    if (e != ERR_OK || count < add->host_max || add->host_max == 0)
        return e;
    e = compare_account(x, add);
    return e == ERR_NOT_FOUND ? ERR_FULL : e;
}

err op_account_add(struct ops *x, const Store__Request *q, Store__Reply *r)
{
    const Store__AccountAdd *add = q->account_add;
    const char *at = memchr(x->owner.p, '@', x->owner.n);
    if (!at || at == x->owner.p || add->keys.len > TEXT_MAX)
        return ERR_BAD;
    str host = str_skip(x->owner, (size_t)(at - x->owner.p) + 1);
    if (host.n == 0)
        return ERR_BAD;
    err e = check_room(x, add, host);
    if (e != ERR_OK)
        return e;
    e = db_do(x->db, account_add, A_TEXT(x->owner), A_TEXT(host), A_BLOB(ops_str(add->keys)),
              A_INT(add->created_us));
    if (e == ERR_OK && db_changes(x->db) == 0)
        return compare_account(x, add);
    return e;
}

err op_account_set_keys(struct ops *x, const Store__Request *q, Store__Reply *r)
{
    str keys = ops_str(q->account_set_keys->keys);
    if (keys.n > TEXT_MAX)
        return ERR_BAD;
    return db_do(x->db, account_set_keys, A_INT(x->account), A_BLOB(keys));
}

err op_account_set_disabled(struct ops *x, const Store__Request *q, Store__Reply *r)
{
    return db_do(x->db, account_set_disabled, A_INT(x->account),
                 A_INT(q->account_set_disabled->disabled != 0));
}

err op_account_remove(struct ops *x, const Store__Request *q, Store__Reply *r)
{
    return db_do(x->db, account_remove, A_INT(x->account));
}

static err count_accounts(struct ops *x, str host, str like, Store__AccountPage *page)
{
    sqlite3_stmt *st = db_start(x->db, account_count, A_TEXT(host), A_TEXT(like));
    err e = db_next(x->db, st);
    if (e != ERR_OK)
        return e;
    page->total = (uint64_t)db_int(st, 0);
    db_stop(st);
    return ERR_OK;
}

err op_account_list(struct ops *x, const Store__Request *q, Store__Reply *r)
{
    const Store__AccountList *list = q->account_list;
    str host = ops_str(list->host), like = ops_str(list->like), after = ops_str(list->after);
    if (!ops_key_ok(host, OWNER_MAX) || like.n > OWNER_MAX || after.n > OWNER_MAX ||
        list->limit > PAGE_MAX)
        return ERR_BAD;
    Store__AccountPage *page = arena_alloc(x->arena, sizeof *page);
    store__account_page__init(page);
    err e = count_accounts(x, host, like, page);
    if (e != ERR_OK)
        return e;
    sqlite3_stmt *st = db_start(x->db, account_list, A_TEXT(host), A_TEXT(after), A_TEXT(like),
                                A_INT(list->limit ? list->limit : PAGE_DEFAULT));
    while ((e = db_next(x->db, st)) == ERR_OK) {
        page->jids = ops_grow(x, page->jids, page->n_jids, sizeof *page->jids);
        page->jids[page->n_jids++] = ops_column(x, st, 0);
    }
    r->body_case = STORE__REPLY__BODY_ACCOUNTS;
    r->accounts = page;
    return ops_end(e);
}
