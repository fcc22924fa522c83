/* ops_roster: the roster with its change log, requests that wait for an answer (RFC 6121 3.1.3),
 * and user_load, which reads at once what a home keeps in memory of a user.
 *
 * The log of changes is the rows themselves: each has the version of its last change, and a removed
 * item leaves a tombstone. Tombstones older than ROSTER_LOG versions go; roster_log_floor then says
 * from which version on the changes are still all known (RFC 6121 2.6). */
#include "node/store/ops.h"

static err load_items(struct ops *x, Store__User *user);
static err load_pending(struct ops *x, Store__User *user);

static void load_account(struct ops *x, sqlite3_stmt *st, Store__User *user)
{
    x->account = db_int(st, 0);
    user->exists = true;
    user->disabled = db_int(st, 1) != 0;
    user->created_us = db_int(st, 2);
    user->roster_version = (uint64_t)db_int(st, 3);
    user->roster_log_floor = (uint64_t)db_int(st, 4);
    user->offline_count = (uint32_t)db_int(st, 5);
    user->offline_bytes = (uint64_t)db_int(st, 6);
    if (sqlite3_column_type(st, 7) != SQLITE_NULL) {
        user->last = arena_alloc(x->arena, sizeof *user->last);
        store__last__init(user->last);
        user->last->time_us = db_int(st, 7);
        user->last->status = ops_column(x, st, 8);
    }
}

err op_user_load(struct ops *x, const Store__Request *q, Store__Reply *r)
{
    Store__User *user = arena_alloc(x->arena, sizeof *user);
    store__user__init(user);
    r->body_case = STORE__REPLY__BODY_USER;
    r->user = user;
    sqlite3_stmt *st = db_start(x->db, user_load, A_TEXT(x->owner));
    err e = db_next(x->db, st);
    if (e != ERR_OK)
        return ops_end(e);
    load_account(x, st, user);
    db_stop(st);
    if ((e = load_items(x, user)) != ERR_OK)
        return e;
    return load_pending(x, user);
}

static void load_groups(struct ops *x, str packed, Store__RosterItem *item)
{
    packed = arena_dup(x->arena, packed);
    while (packed.n > 0) {
        size_t n = strnlen(packed.p, packed.n);
        item->groups = ops_grow(x, item->groups, item->n_groups, sizeof *item->groups);
        item->groups[item->n_groups++] = (ProtobufCBinaryData){n, (uint8_t *)packed.p};
        packed = str_skip(packed, n < packed.n ? n + 1 : n);
    }
}

static void load_item(struct ops *x, sqlite3_stmt *st, Store__User *user)
{
    Store__RosterItem *item = arena_alloc(x->arena, sizeof *item);
    store__roster_item__init(item);
    item->contact = ops_column(x, st, 0);
    item->version = (uint64_t)db_int(st, 1);
    item->name = ops_column(x, st, 3);
    item->subscription = (Store__Subscription)db_int(st, 4);
    item->ask = db_int(st, 5) != 0;
    item->approved = db_int(st, 6) != 0;
    load_groups(x, db_bytes(st, 7), item);
    user->items = ops_grow(x, user->items, user->n_items, sizeof(void *));
    user->items[user->n_items++] = item;
}

static void load_tombstone(struct ops *x, sqlite3_stmt *st, Store__User *user)
{
    Store__Tombstone *stone = arena_alloc(x->arena, sizeof *stone);
    store__tombstone__init(stone);
    stone->contact = ops_column(x, st, 0);
    stone->version = (uint64_t)db_int(st, 1);
    user->tombstones = ops_grow(x, user->tombstones, user->n_tombstones, sizeof(void *));
    user->tombstones[user->n_tombstones++] = stone;
}

static err load_items(struct ops *x, Store__User *user)
{
    sqlite3_stmt *st = db_start(x->db, roster_load, A_INT(x->account));
    err e;
    while ((e = db_next(x->db, st)) == ERR_OK) {
        if (db_int(st, 2))
            load_tombstone(x, st, user);
        else
            load_item(x, st, user);
    }
    return ops_end(e);
}

static err load_pending(struct ops *x, Store__User *user)
{
    sqlite3_stmt *st = db_start(x->db, pending_load, A_INT(x->account));
    err e;
    while ((e = db_next(x->db, st)) == ERR_OK) {
        Store__Pending *pending = arena_alloc(x->arena, sizeof *pending);
        store__pending__init(pending);
        pending->contact = ops_column(x, st, 0);
        pending->stanza = ops_column(x, st, 1);
        pending->time_us = db_int(st, 2);
        user->pending = ops_grow(x, user->pending, user->n_pending, sizeof(void *));
        user->pending[user->n_pending++] = pending;
    }
    return ops_end(e);
}

static bool item_ok(const Store__RosterItem *item)
{
    if (!ops_key_ok(ops_str(item->contact), CONTACT_MAX) || item->name.len > TEXT_MAX ||
        item->n_groups > GROUPS_MAX || (unsigned)item->subscription > STORE__SUBSCRIPTION__BOTH)
        return false;
    for (size_t i = 0; i < item->n_groups; i++)
        if (!ops_key_ok(ops_str(item->groups[i]), TEXT_MAX))
            return false;
    return true;
}

static bool change_ok(const Store__RosterChange *change)
{
    const Store__Pending *put = change->pending_put;
    if (change->version > INT64_MAX || (change->version == 0 && change->n_items > 0) ||
        change->pending_remove.len > CONTACT_MAX)
        return false;
    if (put && (!ops_key_ok(ops_str(put->contact), CONTACT_MAX) || put->stanza.len > XML_MAX))
        return false;
    for (size_t i = 0; i < change->n_items; i++)
        if (!item_ok(change->items[i]))
            return false;
    return true;
}

static str pack_groups(struct ops *x, const Store__RosterItem *item)
{
    size_t n = 0;
    for (size_t i = 0; i < item->n_groups; i++)
        n += item->groups[i].len + 1;
    char *packed = arena_alloc(x->arena, n + 1), *p = packed;
    for (size_t i = 0; i < item->n_groups; i++) {
        p = mempcpy(p, item->groups[i].data, item->groups[i].len);
        *p++ = 0;
    }
    return str_from(packed, n);
}

static err put_item(struct ops *x, const Store__RosterItem *item, uint64_t version)
{
    str contact = ops_str(item->contact), none = STR("");
    if (item->removed)
        return db_do(x->db, roster_put, A_INT(x->account), A_TEXT(contact), A_INT(version),
                     A_INT(1), A_BLOB(none), A_INT(0), A_INT(0), A_INT(0), A_BLOB(none));
    return db_do(x->db, roster_put, A_INT(x->account), A_TEXT(contact), A_INT(version), A_INT(0),
                 A_BLOB(ops_str(item->name)), A_INT(item->subscription), A_INT(item->ask != 0),
                 A_INT(item->approved != 0), A_BLOB(pack_groups(x, item)));
}

/* Only an update of this account's row: the walk over the roster is for changes, not messages. */
static err check_roster_size(struct ops *x)
{
    sqlite3_stmt *st = db_start(x->db, roster_bytes, A_INT(x->account));
    err e = db_next(x->db, st);
    if (e != ERR_OK)
        return e;
    bool full = db_int(st, 0) > ROSTER_MAX;
    db_stop(st);
    return full ? ERR_FULL : ERR_OK;
}

static err change_items(struct ops *x, const Store__RosterChange *change)
{
    uint64_t floor = change->version > ROSTER_LOG ? change->version - ROSTER_LOG : 0;
    err e = ERR_OK;
    for (size_t i = 0; e == ERR_OK && i < change->n_items; i++)
        e = put_item(x, change->items[i], change->version);
    if (e == ERR_OK && floor > 0)
        e = db_do(x->db, roster_trim, A_INT(x->account), A_INT(floor));
    if (e == ERR_OK)
        e = db_do(x->db, roster_set_version, A_INT(x->account), A_INT(change->version),
                  A_INT(floor));
    return e == ERR_OK ? check_roster_size(x) : e;
}

static err put_pending(struct ops *x, const Store__RosterChange *change)
{
    const Store__Pending *put = change->pending_put;
    err e = db_do(x->db, pending_put, A_INT(x->account), A_TEXT(ops_str(put->contact)),
                  A_BLOB(ops_str(put->stanza)), A_INT(put->time_us));
    if (e != ERR_OK)
        return e;
    sqlite3_stmt *st = db_start(x->db, pending_size, A_INT(x->account));
    if ((e = db_next(x->db, st)) != ERR_OK)
        return e;
    bool full = (change->pending_max && db_int(st, 0) > change->pending_max) ||
                db_int(st, 1) > PENDING_STANZAS_MAX;
    db_stop(st);
    return full ? ERR_FULL : ERR_OK;
}

static err is_repeat(struct ops *x, uint64_t version, bool *out)
{
    sqlite3_stmt *st = db_start(x->db, roster_version, A_INT(x->account));
    err e = db_next(x->db, st);
    if (e != ERR_OK)
        return e;
    *out = version <= (uint64_t)db_int(st, 0);
    db_stop(st);
    return ERR_OK;
}

err op_roster_change(struct ops *x, const Store__Request *q, Store__Reply *r)
{
    const Store__RosterChange *change = q->roster_change;
    if (!change_ok(change))
        return ERR_BAD;
    err e = ERR_OK;
    if (change->version > 0) {
        bool repeat;
        if ((e = is_repeat(x, change->version, &repeat)) != ERR_OK || repeat)
            return e;
        e = change_items(x, change);
    }
    if (e == ERR_OK && change->pending_remove.len > 0)
        e = db_do(x->db, pending_remove, A_INT(x->account),
                  A_TEXT(ops_str(change->pending_remove)));
    if (e == ERR_OK && change->pending_put)
        e = put_pending(x, change);
    return e;
}
