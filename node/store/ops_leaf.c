/* ops_leaf: the leaves of an account (XEP-0060's nodes; what PEP keeps), their items and who may or
 * wants to see them; and what clients of a verified hash can do (XEP-0115), which is nobody's.
 *
 * An account's home is the only writer and knows configs, affiliations and subscriptions: it has
 * loaded them all at once. Items stay here. */
#include "node/store/ops.h"

static bool name_ok(ProtobufCBinaryData name) { return ops_key_ok(ops_str(name), LEAF_NAME_MAX); }

/* ---- load ---- */

static Store__LeafItem *item_of(struct ops *x, const struct sql_cell *c)
{
    Store__LeafItem *item = arena_alloc(x->arena, sizeof *item);
    store__leaf_item__init(item);
    item->id = ops_keep(x, c[0].s);
    item->publisher = ops_keep(x, c[1].s);
    item->time_us = c[2].i;
    if (!c[3].null)
        item->xml = ops_keep(x, c[3].s);
    return item;
}

static bool on_leaf(struct ops *x, const struct sql_row *row)
{
    Store__LeafSet *set = x->r.leaves;
    Store__Leaf *leaf = arena_alloc(x->arena, sizeof *leaf);
    store__leaf__init(leaf);
    leaf->name = ops_keep(x, row->c[0].s);
    leaf->config = ops_keep(x, row->c[1].s);
    leaf->time_us = row->c[2].i;
    if (!row->c[3].null)
        leaf->last = item_of(x, row->c + 3);
    set->leaves = ops_grow(x, set->leaves, set->n_leaves, sizeof(void *));
    set->leaves[set->n_leaves++] = leaf;
    return true;
}

static Store__Leaf *leaf_named(struct ops *x, str name)
{
    for (size_t i = 0; i < x->r.leaves->n_leaves; i++)
        if (str_eq(ops_str(x->r.leaves->leaves[i]->name), name))
            return x->r.leaves->leaves[i];
    return NULL;
}

static bool on_affiliation(struct ops *x, const struct sql_row *row)
{
    Store__Leaf *leaf = leaf_named(x, row->c[0].s);
    if (!leaf)
        return true;
    Store__LeafAffiliation *a = arena_alloc(x->arena, sizeof *a);
    store__leaf_affiliation__init(a);
    a->jid = ops_keep(x, row->c[1].s);
    a->affiliation = (uint32_t)row->c[2].i;
    leaf->affiliations = ops_grow(x, leaf->affiliations, leaf->n_affiliations, sizeof(void *));
    leaf->affiliations[leaf->n_affiliations++] = a;
    return true;
}

static bool on_subscription(struct ops *x, const struct sql_row *row)
{
    Store__Leaf *leaf = leaf_named(x, row->c[0].s);
    if (!leaf)
        return true;
    Store__LeafSubscription *s = arena_alloc(x->arena, sizeof *s);
    store__leaf_subscription__init(s);
    s->jid = ops_keep(x, row->c[1].s);
    s->subid = ops_keep(x, row->c[2].s);
    s->state = (uint32_t)row->c[3].i;
    s->options = ops_keep(x, row->c[4].s);
    leaf->subscriptions = ops_grow(x, leaf->subscriptions, leaf->n_subscriptions, sizeof(void *));
    leaf->subscriptions[leaf->n_subscriptions++] = s;
    return true;
}

err op_leaf_load(struct ops *x)
{
    x->r.body_case = STORE__REPLY__BODY_LEAVES;
    x->r.leaves = arena_alloc(x->arena, sizeof *x->r.leaves);
    store__leaf_set__init(x->r.leaves);
    ops_sql(x, leaf_load, on_leaf, A_TEXT(x->owner), A_INT(x->q->leaf_load->inline_max));
    ops_sql(x, leaf_affiliations, on_affiliation, A_TEXT(x->owner));
    ops_sql(x, leaf_subscriptions, on_subscription, A_TEXT(x->owner));
    return ERR_OK;
}

/* ---- leaves ---- */

static err is_stored(struct ops *x) { return x->stored ? ERR_OK : ERR_FULL; }

static void trim(struct ops *x, str leaf, uint32_t items_max)
{
    ops_sql(x, item_trim, NULL, A_TEXT(x->owner), A_BLOB(leaf), A_INT(items_max));
}

err op_leaf_put(struct ops *x)
{
    const Store__LeafPut *put = x->q->leaf_put;
    if (!name_ok(put->leaf) || put->config.len > LEAF_CONFIG_MAX || put->again_us < 0)
        return ERR_BAD;
    ops_sql(x, leaf_put, ops_on_stored, A_TEXT(x->owner), A_BLOB(ops_str(put->leaf)),
            A_BLOB(ops_str(put->config)), A_INT(put->time_us), A_INT(put->leaves_max),
            A_INT(put->again_us));
    trim(x, ops_str(put->leaf), put->items_max);
    x->done = is_stored;
    return ERR_OK;
}

err op_leaf_remove(struct ops *x)
{
    const Store__LeafRemove *remove = x->q->leaf_remove;
    if (!name_ok(remove->leaf) || remove->again_us < 0)
        return ERR_BAD;
    ops_sql(x, leaf_remove, NULL, A_TEXT(x->owner), A_BLOB(ops_str(remove->leaf)),
            A_INT(remove->again_us));
    return ERR_OK;
}

err op_leaf_purge(struct ops *x)
{
    const Store__LeafPurge *purge = x->q->leaf_purge;
    if (!name_ok(purge->leaf) || purge->again_us < 0)
        return ERR_BAD;
    ops_sql(x, leaf_purge, NULL, A_TEXT(x->owner), A_BLOB(ops_str(purge->leaf)),
            A_INT(purge->again_us));
    return ERR_OK;
}

/* ---- items ---- */

err op_item_put(struct ops *x)
{
    const Store__ItemPut *put = x->q->item_put;
    const Store__LeafItem *item = put->item;
    if (!name_ok(put->leaf) || !item || !name_ok(item->id) || item->xml.len > XML_MAX ||
        item->publisher.len > CONTACT_MAX || put->config.len > LEAF_CONFIG_MAX || put->again_us < 0)
        return ERR_BAD;
    str leaf = ops_str(put->leaf);
    if (put->config.len)
        ops_sql(x, leaf_make, NULL, A_TEXT(x->owner), A_BLOB(leaf), A_BLOB(ops_str(put->config)),
                A_INT(item->time_us), A_INT(put->leaves_max));
    ops_sql(x, item_put, NULL, A_TEXT(x->owner), A_BLOB(leaf), A_BLOB(ops_str(item->id)),
            A_BLOB(ops_str(item->publisher)), A_INT(item->time_us), A_BLOB(ops_str(item->xml)),
            A_INT(put->again_us));
    trim(x, leaf, put->items_max);
    ops_sql(x, leaf_has, ops_on_stored, A_TEXT(x->owner), A_BLOB(leaf));
    x->done = is_stored;
    return ERR_OK;
}

static err is_removed(struct ops *x)
{
    return x->stored || x->q->item_remove->again_us ? ERR_OK : ERR_NOT_FOUND;
}

err op_item_remove(struct ops *x)
{
    const Store__ItemRemove *remove = x->q->item_remove;
    if (!name_ok(remove->leaf) || !name_ok(remove->id) || remove->again_us < 0)
        return ERR_BAD;
    ops_sql(x, item_remove, ops_on_stored, A_TEXT(x->owner), A_BLOB(ops_str(remove->leaf)),
            A_BLOB(ops_str(remove->id)), A_INT(remove->again_us));
    x->done = is_removed;
    return ERR_OK;
}

static bool add_item(struct ops *x, Store__LeafItem *item)
{
    Store__ItemPage *page = x->r.items;
    page->items = ops_grow(x, page->items, page->n_items, sizeof(void *));
    page->items[page->n_items++] = item;
    return true;
}

static bool on_item(struct ops *x, const struct sql_row *row)
{
    size_t n = row->c[3].s.n;
    if (x->r.items->n_items == x->limit || (x->r.items->n_items > 0 && n > x->left)) {
        x->r.items->more = true;
        return false;
    }
    x->left -= n < x->left ? n : x->left;
    return add_item(x, item_of(x, row->c));
}

static bool on_name(struct ops *x, const struct sql_row *row)
{
    if (x->r.items->n_items == x->limit) {
        x->r.items->more = true;
        return false;
    }
    Store__LeafItem *item = arena_alloc(x->arena, sizeof *item);
    store__leaf_item__init(item);
    item->id = ops_keep(x, row->c[0].s);
    return add_item(x, item);
}

static bool on_count(struct ops *x, const struct sql_row *row)
{
    x->r.items->count = (uint32_t)row->c[0].i;
    return false;
}

static err is_behind(struct ops *x) { return x->stored ? ERR_OK : ERR_NOT_FOUND; }

static bool ids_ok(const Store__ItemGet *get)
{
    if (get->n_ids > ITEM_IDS_MAX || (get->behind.len && !name_ok(get->behind)))
        return false;
    for (size_t i = 0; i < get->n_ids; i++)
        if (!name_ok(get->ids[i]))
            return false;
    return true;
}

static void get_page(struct ops *x, const Store__ItemGet *get)
{
    str leaf = ops_str(get->leaf), behind = ops_str(get->behind);
    if (behind.n) {
        ops_sql(x, item_get, ops_on_stored, A_TEXT(x->owner), A_BLOB(leaf), A_BLOB(behind));
        x->done = is_behind;
    }
    if (get->names)
        ops_sql(x, item_names, on_name, A_TEXT(x->owner), A_BLOB(leaf), A_INT(x->limit + 1),
                A_BLOB(behind));
    else
        ops_sql(x, item_page, on_item, A_TEXT(x->owner), A_BLOB(leaf), A_INT(x->limit + 1),
                A_INT(x->left), A_BLOB(behind));
    ops_sql(x, item_count, on_count, A_TEXT(x->owner), A_BLOB(leaf));
}

err op_item_get(struct ops *x)
{
    const Store__ItemGet *get = x->q->item_get;
    if (!name_ok(get->leaf) || get->limit > PAGE_MAX || get->bytes_max > PAGE_BYTES_MAX ||
        !ids_ok(get))
        return ERR_BAD;
    x->r.body_case = STORE__REPLY__BODY_ITEMS;
    x->r.items = arena_alloc(x->arena, sizeof *x->r.items);
    store__item_page__init(x->r.items);
    x->limit = get->limit ? get->limit : PAGE_DEFAULT;
    x->left = get->bytes_max ? get->bytes_max : PAGE_BYTES_MAX;
    if (!get->n_ids)
        get_page(x, get);
    for (size_t i = 0; i < get->n_ids; i++)
        ops_sql(x, item_get, on_item, A_TEXT(x->owner), A_BLOB(ops_str(get->leaf)),
                A_BLOB(ops_str(get->ids[i])));
    return ERR_OK;
}

/* ---- who may see them, who wants to ---- */

err op_affiliation_put(struct ops *x)
{
    const Store__AffiliationPut *put = x->q->affiliation_put;
    if (!name_ok(put->leaf) || put->n_affiliations > LEAF_CHANGES_MAX)
        return ERR_BAD;
    for (size_t i = 0; i < put->n_affiliations; i++)
        if (!ops_key_ok(ops_str(put->affiliations[i]->jid), CONTACT_MAX))
            return ERR_BAD;
    str leaf = ops_str(put->leaf);
    for (size_t i = 0; i < put->n_affiliations; i++) {
        str jid = ops_str(put->affiliations[i]->jid);
        if (put->affiliations[i]->affiliation)
            ops_sql(x, affiliation_put, NULL, A_TEXT(x->owner), A_BLOB(leaf), A_TEXT(jid),
                    A_INT(put->affiliations[i]->affiliation));
        else
            ops_sql(x, affiliation_remove, NULL, A_TEXT(x->owner), A_BLOB(leaf), A_TEXT(jid));
    }
    return ERR_OK;
}

err op_subscription_put(struct ops *x)
{
    const Store__SubscriptionPut *put = x->q->subscription_put;
    if (!name_ok(put->leaf) || put->n_subscriptions > LEAF_CHANGES_MAX)
        return ERR_BAD;
    for (size_t i = 0; i < put->n_subscriptions; i++) {
        const Store__LeafSubscription *s = put->subscriptions[i];
        if (!ops_key_ok(ops_str(s->jid), CONTACT_MAX) || s->subid.len > UID_MAX ||
            s->options.len > TEXT_MAX)
            return ERR_BAD;
    }
    str leaf = ops_str(put->leaf);
    for (size_t i = 0; i < put->n_subscriptions; i++) {
        const Store__LeafSubscription *s = put->subscriptions[i];
        if (s->state)
            ops_sql(x, subscription_put, NULL, A_TEXT(x->owner), A_BLOB(leaf),
                    A_TEXT(ops_str(s->jid)), A_BLOB(ops_str(s->subid)), A_INT(s->state),
                    A_BLOB(ops_str(s->options)));
        else
            ops_sql(x, subscription_remove, NULL, A_TEXT(x->owner), A_BLOB(leaf),
                    A_TEXT(ops_str(s->jid)));
    }
    return ERR_OK;
}

/* ---- caps ---- */

static bool on_caps(struct ops *x, const struct sql_row *row)
{
    x->r.body_case = STORE__REPLY__BODY_CAPS;
    x->r.caps = arena_alloc(x->arena, sizeof *x->r.caps);
    store__caps__init(x->r.caps);
    x->r.caps->features = ops_keep(x, row->c[0].s);
    return false;
}

static err is_there(struct ops *x)
{
    return x->r.body_case == STORE__REPLY__BODY_CAPS ? ERR_OK : ERR_NOT_FOUND;
}

static bool key_ok(ProtobufCBinaryData key) { return key.len > 0 && key.len <= CAPS_KEY_MAX; }

err op_caps_get(struct ops *x)
{
    if (!key_ok(x->q->caps_get->key))
        return ERR_BAD;
    ops_sql(x, caps_get, on_caps, A_BLOB(ops_str(x->q->caps_get->key)));
    x->done = is_there;
    return ERR_OK;
}

err op_caps_put(struct ops *x)
{
    const Store__CapsPut *put = x->q->caps_put;
    if (!key_ok(put->key) || put->features.len > CAPS_FEATURES_MAX)
        return ERR_BAD;
    ops_sql(x, caps_put, NULL, A_BLOB(ops_str(put->key)), A_BLOB(ops_str(put->features)));
    ops_sql(x, caps_trim, NULL, A_INT(CAPS_MAX));
    return ERR_OK;
}
