/* ops_roster: the roster with its change log, requests that wait for an answer (RFC 6121 3.1.3),
 * and user_load, which reads at once what a home keeps in memory of a user.
 *
 * The log of changes is the rows themselves: each has the version of its last change, and a removed
 * item leaves a tombstone. Tombstones older than ROSTER_LOG versions go; roster_log_floor then says
 * from which version on the changes are still all known (RFC 6121 2.6). */
#include "node/store/ops.h"

static bool on_user(struct ops *x, const struct sql_row *row)
{
    Store__User *user = x->r.user;
    user->exists = true;
    user->disabled = row->c[0].i != 0;
    user->created_us = row->c[1].i;
    user->roster_version = (uint64_t)row->c[2].i;
    user->roster_log_floor = (uint64_t)row->c[3].i;
    user->offline_count = (uint32_t)row->c[4].i;
    user->offline_bytes = (uint64_t)row->c[5].i;
    if (!row->c[9].null)
        user->blocked = ops_keep(x, row->c[9].s);
    user->archive_prefs = ops_keep(x, row->c[8].s);
    if (row->c[6].null)
        return false;
    user->last = arena_alloc(x->arena, sizeof *user->last);
    store__last__init(user->last);
    user->last->time_us = row->c[6].i;
    user->last->status = ops_keep(x, row->c[7].s);
    return false;
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

static void load_item(struct ops *x, const struct sql_row *row)
{
    Store__User *user = x->r.user;
    Store__RosterItem *item = arena_alloc(x->arena, sizeof *item);
    store__roster_item__init(item);
    item->contact = ops_keep(x, row->c[0].s);
    item->version = (uint64_t)row->c[1].i;
    item->name = ops_keep(x, row->c[3].s);
    item->subscription = (Store__Subscription)row->c[4].i;
    item->ask = row->c[5].i != 0;
    item->approved = row->c[6].i != 0;
    load_groups(x, row->c[7].s, item);
    user->items = ops_grow(x, user->items, user->n_items, sizeof(void *));
    user->items[user->n_items++] = item;
}

static void load_tombstone(struct ops *x, const struct sql_row *row)
{
    Store__User *user = x->r.user;
    Store__Tombstone *stone = arena_alloc(x->arena, sizeof *stone);
    store__tombstone__init(stone);
    stone->contact = ops_keep(x, row->c[0].s);
    stone->version = (uint64_t)row->c[1].i;
    user->tombstones = ops_grow(x, user->tombstones, user->n_tombstones, sizeof(void *));
    user->tombstones[user->n_tombstones++] = stone;
}

static bool on_item(struct ops *x, const struct sql_row *row)
{
    if (row->c[2].i)
        load_tombstone(x, row);
    else
        load_item(x, row);
    return true;
}

static bool on_pending(struct ops *x, const struct sql_row *row)
{
    Store__User *user = x->r.user;
    Store__Pending *pending = arena_alloc(x->arena, sizeof *pending);
    store__pending__init(pending);
    pending->contact = ops_keep(x, row->c[0].s);
    pending->stanza = ops_keep(x, row->c[1].s);
    pending->time_us = row->c[2].i;
    user->pending = ops_grow(x, user->pending, user->n_pending, sizeof(void *));
    user->pending[user->n_pending++] = pending;
    return true;
}

/* Metadata without an <info/> say that there is no picture (XEP-0084 3.4). */
static bool on_avatar(struct ops *x, const struct sql_row *row)
{
    if (memmem(row->c[1].s.p, row->c[1].s.n, "info", 4))
        x->r.user->avatar = ops_keep(x, row->c[0].s);
    return false;
}

err op_user_load(struct ops *x)
{
    x->r.body_case = STORE__REPLY__BODY_USER;
    x->r.user = arena_alloc(x->arena, sizeof *x->r.user);
    store__user__init(x->r.user);
    ops_sql(x, user_load, on_user, A_TEXT(x->owner));
    ops_sql(x, roster_load, on_item, A_TEXT(x->owner));
    ops_sql(x, pending_load, on_pending, A_TEXT(x->owner));
    ops_sql(x, leaf_newest, on_avatar, A_TEXT(x->owner), A_BLOB(STR("urn:xmpp:avatar:metadata")));
    return ERR_OK;
}

/* ---- changes --------------------------------------------------------------------------------- */

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

static void put_item(struct ops *x, const Store__RosterItem *item, uint64_t version)
{
    str contact = ops_str(item->contact), none = STR("");
    if (item->removed)
        ops_sql(x, roster_put, NULL, A_TEXT(x->owner), A_INT(version), A_TEXT(contact), A_INT(1),
                A_BLOB(none), A_INT(0), A_INT(0), A_INT(0), A_BLOB(none));
    else
        ops_sql(x, roster_put, NULL, A_TEXT(x->owner), A_INT(version), A_TEXT(contact), A_INT(0),
                A_BLOB(ops_str(item->name)), A_INT(item->subscription), A_INT(item->ask != 0),
                A_INT(item->approved != 0), A_BLOB(pack_groups(x, item)));
}

static bool on_version(struct ops *x, const struct sql_row *row)
{
    x->equal = x->q->roster_change->version <= (uint64_t)row->c[0].i; /* a repeat */
    return false;
}

static bool on_guard(struct ops *x, const struct sql_row *row)
{
    x->full = x->full || row->c[0].null;
    return false;
}

static uint64_t log_floor(uint64_t version)
{
    return version > ROSTER_LOG ? version - ROSTER_LOG : 0;
}

/* The walk over the whole roster (its guard) is for changes of items, not of what is pending. */
static void change_items(struct ops *x, const Store__RosterChange *change)
{
    uint64_t floor = log_floor(change->version);
    ops_sql(x, roster_version, on_version, A_TEXT(x->owner));
    for (size_t i = 0; i < change->n_items; i++)
        put_item(x, change->items[i], change->version);
    if (floor > 0)
        ops_sql(x, roster_trim, NULL, A_TEXT(x->owner), A_INT(change->version), A_INT(floor));
    ops_sql(x, roster_guard, on_guard, A_TEXT(x->owner), A_INT(change->version), A_INT(ROSTER_MAX));
}

/* A request alone is put only if there is room, which a stranger may try all day; one that belongs
 * to a greater change undoes it. */
static void put_pending(struct ops *x, const Store__RosterChange *change)
{
    const Store__Pending *put = change->pending_put;
    str contact = ops_str(put->contact), stanza = ops_str(put->stanza);
    ops_sql(x, pending_put, ops_on_stored, A_TEXT(x->owner), A_INT(change->version),
            A_TEXT(contact), A_BLOB(stanza), A_INT(put->time_us), A_INT(change->pending_max),
            A_INT(PENDING_STANZAS_MAX));
    if (change->version > 0 || change->pending_remove.len > 0)
        ops_sql(x, pending_guard, on_guard, A_TEXT(x->owner), A_INT(change->version),
                A_TEXT(contact), A_BLOB(stanza), A_INT(put->time_us));
}

static err change_done(struct ops *x)
{
    const Store__RosterChange *change = x->q->roster_change;
    if (change->version > 0 && x->equal)
        return ERR_OK;
    return x->full || (change->pending_put && !x->stored) ? ERR_FULL : ERR_OK;
}

err op_roster_change(struct ops *x)
{
    const Store__RosterChange *change = x->q->roster_change;
    if (!change_ok(change))
        return ERR_BAD;
    if (change->version > 0)
        change_items(x, change);
    if (change->pending_remove.len > 0)
        ops_sql(x, pending_remove, NULL, A_TEXT(x->owner), A_INT(change->version),
                A_TEXT(ops_str(change->pending_remove)));
    if (change->pending_put)
        put_pending(x, change);
    if (change->version > 0)
        ops_sql(x, roster_set_version, NULL, A_TEXT(x->owner), A_INT(change->version),
                A_INT(log_floor(change->version)));
    x->done = change_done;
    return ERR_OK;
}
