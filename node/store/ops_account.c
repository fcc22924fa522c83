/* ops_account: accounts and their SCRAM keys. */
#include "node/store/ops.h"

static bool on_account(struct ops *x, const struct sql_row *row)
{
    Store__Account *account = x->r.account;
    account->exists = true;
    account->disabled = row->c[0].i != 0;
    account->keys = ops_keep(x, row->c[1].s);
    account->created_us = row->c[2].i;
    return false;
}

err op_account_get(struct ops *x)
{
    x->r.body_case = STORE__REPLY__BODY_ACCOUNT;
    x->r.account = arena_alloc(x->arena, sizeof *x->r.account);
    store__account__init(x->r.account);
    ops_sql(x, account_get, on_account, A_TEXT(x->owner));
    return ERR_OK;
}

/* A repeat of the request that made the account must not tell its maker that somebody else did. */
static bool on_same_account(struct ops *x, const struct sql_row *row)
{
    const Store__AccountAdd *add = x->q->account_add;
    x->found = true;
    x->equal = str_eq(row->c[1].s, ops_str(add->keys)) && row->c[2].i == add->created_us;
    return false;
}

/* Not found: the host has all it may have. */
static err account_add_done(struct ops *x)
{
    if (!x->found)
        return ERR_FULL;
    return x->equal ? ERR_OK : ERR_EXISTS;
}

err op_account_add(struct ops *x)
{
    const Store__AccountAdd *add = x->q->account_add;
    const char *at = memchr(x->owner.p, '@', x->owner.n);
    if (!at || at == x->owner.p || add->keys.len > TEXT_MAX || add->host_max > INT64_MAX)
        return ERR_BAD;
    str host = str_skip(x->owner, (size_t)(at - x->owner.p) + 1);
    if (host.n == 0)
        return ERR_BAD;
    ops_sql(x, account_add, NULL, A_TEXT(x->owner), A_TEXT(host), A_BLOB(ops_str(add->keys)),
            A_INT(add->created_us), A_INT(add->host_max));
    ops_sql(x, account_get, on_same_account, A_TEXT(x->owner));
    x->done = account_add_done;
    return ERR_OK;
}

static err is_changed(struct ops *x) { return x->stored ? ERR_OK : ERR_EXISTS; }

static bool on_changed(struct ops *x, const struct sql_row *row)
{
    x->stored = true;
    return false;
}

err op_account_set_keys(struct ops *x)
{
    const Store__AccountSetKeys *set = x->q->account_set_keys;
    if (set->keys.len > TEXT_MAX || set->former.len > TEXT_MAX)
        return ERR_BAD;
    if (set->former.len) {
        ops_sql(x, account_change_keys, on_changed, A_TEXT(x->owner), A_BLOB(ops_str(set->keys)),
                A_BLOB(ops_str(set->former)));
        x->done = is_changed;
    } else {
        ops_sql(x, account_set_keys, NULL, A_TEXT(x->owner), A_BLOB(ops_str(set->keys)));
    }
    if (!set->same_password)
        ops_sql(x, clients_reset, NULL, A_TEXT(x->owner));
    return ERR_OK;
}

err op_account_set_disabled(struct ops *x)
{
    ops_sql(x, account_set_disabled, NULL, A_TEXT(x->owner),
            A_INT(x->q->account_set_disabled->disabled != 0));
    return ERR_OK;
}

err op_account_remove(struct ops *x)
{
    ops_sql(x, account_remove, NULL, A_TEXT(x->owner));
    return ERR_OK;
}

static bool on_count(struct ops *x, const struct sql_row *row)
{
    x->r.accounts->total = (uint64_t)row->c[0].i;
    return false;
}

static bool on_jid(struct ops *x, const struct sql_row *row)
{
    Store__AccountPage *page = x->r.accounts;
    page->jids = ops_grow(x, page->jids, page->n_jids, sizeof *page->jids);
    page->jids[page->n_jids++] = ops_keep(x, row->c[0].s);
    return true;
}

err op_account_list(struct ops *x)
{
    const Store__AccountList *list = x->q->account_list;
    str host = ops_str(list->host), like = ops_str(list->like), after = ops_str(list->after);
    if (!ops_key_ok(host, OWNER_MAX) || like.n > OWNER_MAX || after.n > OWNER_MAX ||
        list->limit > PAGE_MAX)
        return ERR_BAD;
    x->r.body_case = STORE__REPLY__BODY_ACCOUNTS;
    x->r.accounts = arena_alloc(x->arena, sizeof *x->r.accounts);
    store__account_page__init(x->r.accounts);
    ops_sql(x, account_count, on_count, A_TEXT(host), A_TEXT(like), A_INT(list->disabled));
    ops_sql(x, account_list, on_jid, A_TEXT(host), A_TEXT(after), A_TEXT(like),
            A_INT(list->disabled), A_INT(list->limit ? list->limit : PAGE_DEFAULT));
    return ERR_OK;
}
