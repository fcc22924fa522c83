/* publish: items (XEP-0060 6.5, 7.1, 7.2). */
#include "node/pubsub/service.h"
#include "node/xep/avatar.h"

#define OPTIONS_TYPE NS_PS "#publish-options"

/* ---- publish (7.1) ---- */

struct publication {
    str id, payload; /* payload: XML that stands alone; empty: none */
};

/* Ids of items that have none are made of the request's uid: the same when it is done again. */
static str made_id(const struct ask *x)
{
    struct uid uid = home_cause(x->q->ticket);
    str text = arena_printf(x->arena, "%llu %llu %u", (unsigned long long)uid.sid,
                            (unsigned long long)uid.ord, uid.lane);
    return arena_printf(x->arena, "%08x%08x", home_lane(text, "item"), home_lane(text, "id"));
}

/* The one item of <publish/>, or what is wrong with it (7.1.3). */
static struct refusal read_item(const struct ask *x, struct publication *p)
{
    struct arena *a = x->arena;
    struct xml_el item, next, payload;
    if (!xml_find(&x->el, NS_PS, "item", &item, a))
        return (struct refusal){ERR_STANZA_BAD_REQUEST, "item-required"};
    next = item;
    if (xml_next(&x->el, &next, a))
        return (struct refusal){ERR_STANZA_BAD_REQUEST, "invalid-payload"};
    p->id = xml_attr(&item, "id", a);
    if (!p->id.n)
        p->id = made_id(x);
    if (p->id.n >= LEAF_TEXT_MAX)
        return (struct refusal){ERR_STANZA_NOT_ACCEPTABLE, NULL};
    p->payload = STR_NONE;
    if (!xml_first(&item, &payload, a))
        return (struct refusal){ERR_STANZA_BAD_REQUEST, "payload-required"};
    p->payload = xml_standalone(&payload, STR_NONE, a);
    if (xml_next(&item, &payload, a))
        return (struct refusal){ERR_STANZA_BAD_REQUEST, "invalid-payload"};
    if (p->payload.n > x->q->node->conf->modules_pep_item_max)
        return (struct refusal){ERR_STANZA_NOT_ACCEPTABLE, "payload-too-big"};
    return (struct refusal){ERR_OK, NULL};
}

/* 7.1.5: conditions where there is a leaf, the configuration of one that is made. */
static struct refusal read_options(const struct ask *x, struct leaf_config *c)
{
    static const struct refusal bad = {ERR_STANZA_CONFLICT, "precondition-not-met"};
    struct xml_el options, form;
    struct form f;
    if (xml_find(&x->pubsub, NS_PS, "new", &options, x->arena) && !x->q->session &&
        x->q->entity == IQ_OWN_ACCOUNT && xml_first(&options, &form, x->arena)) {
        if (!x->leaf)
            config_decode(form.all, c, x->arena); /* the home's own (pubsub_publish) */
        return (struct refusal){ERR_OK, NULL};
    }
    if (!xml_find(&x->pubsub, NS_PS, "publish-options", &options, x->arena))
        return (struct refusal){ERR_OK, NULL};
    if (!xml_first(&options, &form, x->arena) ||
        !config_read_form(&form, OPTIONS_TYPE, &f, x->arena) || f.cancel)
        return (struct refusal){ERR_STANZA_BAD_REQUEST, NULL};
    for (size_t i = 0; i < f.n; i++) {
        if (x->leaf && !config_is(c, &f.fields[i], x->arena))
            return bad;
        if (!x->leaf && config_set(c, &f.fields[i]) != ERR_OK)
            return bad;
    }
    return (struct refusal){ERR_OK, NULL};
}

static struct leaf_config config_now(const struct ask *x)
{
    return x->leaf ? leaf_config_of(x->leaf, x->arena) : leaf_config_pep;
}

static void tell_published(struct user *u, const struct leaf *l, const struct publication *p,
                           const struct cause *c)
{
    struct xml_writer w;
    xml_writer_init(&w, home_arena(u->home));
    xml_open(&w, "items");
    xml_put_attr(&w, "node", leaf_name(l));
    xml_open(&w, "item");
    xml_put_attr(&w, "id", p->id);
    if (l->rules.payloads)
        xml_put_raw(&w, p->payload);
    xml_close(&w, "item");
    xml_close(&w, "items");
    pep_tell(u, l, xml_written(&w), c);
}

static void answer_published(struct ask *x, const struct publication *p)
{
    struct xml_writer w;
    xml_writer_init(&w, x->arena);
    xml_open(&w, "publish");
    xml_put_attr(&w, "node", x->node);
    xml_open(&w, "item");
    xml_put_attr(&w, "id", p->id);
    xml_close(&w, "item");
    xml_close(&w, "publish");
    ask_result(x, NS_PS, xml_written(&w));
}

static void published(struct ask *x, const Store__Reply *reply)
{
    struct publication p;
    struct leaf_config config = config_now(x);
    struct leaf *l = x->leaf;
    struct user *u = x->q->user;
    if (read_item(x, &p).e != ERR_OK || (!l && read_options(x, &config).e != ERR_OK)) {
        iq_error(x->q, ERR_STANZA_INTERNAL_SERVER_ERROR);
        return;
    }
    if (!l)
        l = leaf_make(pubsub_leaves(x->p), x->node, &config, x->q->us, x->arena);
    if (l->rules.persist)
        leaf_set_last(l, p.id, p.payload, true, x->q->us);
    struct cause c = ask_cause(x);
    user_pin(u);
    answer_published(x, &p);
    tell_published(u, l, &p, &c);
    avatar_published(u, leaf_name(l), p.id, p.payload, &c);
    cause_end(&c);
    user_unpin(u);
}

static void submit_item(struct ask *x, const struct publication *p, const struct leaf_config *c)
{
    Store__Request req = STORE__REQUEST__INIT;
    Store__ItemPut op = STORE__ITEM_PUT__INIT;
    Store__LeafItem item = STORE__LEAF_ITEM__INIT;
    item.id = home_bytes(p->id), item.xml = home_bytes(p->payload);
    item.publisher = home_bytes(x->q->asker.full), item.time_us = x->q->us;
    op.leaf = home_bytes(x->node), op.item = &item;
    op.items_max = ask_items_max(x, &c->rules);
    op.leaves_max = (uint32_t)x->q->node->conf->modules_pep_nodes_max;
    op.again_us = ask_again_us(x);
    if (!x->leaf)
        op.config = home_bytes(config_encode(c, x->arena));
    req.op_case = STORE__REQUEST__OP_ITEM_PUT, req.item_put = &op;
    ask_change(x, &req, published);
}

void publish_run(struct ask *x)
{
    struct publication p;
    struct leaf_config c = config_now(x);
    if (!x->node.n) {
        ask_refuse(x, ERR_STANZA_BAD_REQUEST, "nodeid-required");
        return;
    }
    struct refusal no = x->leaf      ? leaf_may_publish(x->leaf, &x->who)
                        : x->who.own ? (struct refusal){ERR_OK, NULL}
                                     : (struct refusal){ERR_STANZA_FORBIDDEN, NULL};
    if (no.e == ERR_OK)
        no = read_item(x, &p);
    if (no.e == ERR_OK)
        no = read_options(x, &c);
    if (no.e != ERR_OK)
        ask_refuse(x, no.e, no.why);
    else if (x->leaf && !c.rules.persist)
        published(x, NULL);
    else
        submit_item(x, &p, &c);
}

/* ---- retract (7.2) ---- */

static str retracted_id(const struct ask *x)
{
    struct xml_el item;
    return xml_find(&x->el, NS_PS, "item", &item, x->arena) ? xml_attr(&item, "id", x->arena)
                                                            : STR_NONE;
}

static bool wants_notice(const struct ask *x)
{
    str v = xml_attr(&x->el, "notify", x->arena);
    return x->leaf->rules.notify_retract || str_is(v, "true") || str_is(v, "1");
}

static void retracted(struct ask *x, const Store__Reply *reply)
{
    str id = retracted_id(x);
    struct leaf *l = x->leaf;
    struct user *u = x->q->user;
    struct cause c = ask_cause(x);
    bool tell = l && wants_notice(x);
    if (l && l->last && str_eq(str_from(l->last->text, l->last->id_len), id))
        leaf_forget_last(l, true);
    user_pin(u);
    ask_result(x, NS_PS, STR_NONE);
    if (tell) {
        struct xml_writer w;
        xml_writer_init(&w, x->arena);
        xml_open(&w, "items");
        xml_put_attr(&w, "node", leaf_name(l));
        xml_open(&w, "retract");
        xml_put_attr(&w, "id", id);
        xml_close(&w, "retract");
        xml_close(&w, "items");
        pep_tell(u, l, xml_written(&w), &c);
    }
    avatar_published(u, x->node, id, STR_NONE, &c);
    cause_end(&c);
    user_unpin(u);
}

void retract_run(struct ask *x)
{
    str id = retracted_id(x);
    struct xml_el item;
    if (!x->who.own && !x->leaf) {
        ask_refuse(x, ERR_STANZA_FORBIDDEN, NULL);
        return;
    }
    if (!ask_wants_leaf(x))
        return;
    if (!x->who.own && leaf_affiliation(x->leaf, x->who.bare) < AFFILIATION_PUBLISHER) {
        ask_refuse(x, ERR_STANZA_FORBIDDEN, NULL);
        return;
    }
    if (!id.n || id.n >= LEAF_TEXT_MAX) {
        ask_refuse(x, ERR_STANZA_BAD_REQUEST, "item-required");
        return;
    }
    if (xml_find(&x->el, NS_PS, "item", &item, x->arena) && xml_next(&x->el, &item, x->arena)) {
        ask_refuse(x, ERR_STANZA_BAD_REQUEST, "invalid-payload");
        return;
    }
    Store__Request req = STORE__REQUEST__INIT;
    Store__ItemRemove op = STORE__ITEM_REMOVE__INIT;
    op.leaf = home_bytes(x->node), op.id = home_bytes(id), op.again_us = ask_again_us(x);
    req.op_case = STORE__REQUEST__OP_ITEM_REMOVE, req.item_remove = &op;
    ask_change(x, &req, retracted);
}

/* ---- retrieve (6.5) ---- */

enum { IDS_MAX = 64, ANSWER_BYTES_MAX = 512 << 10 };

struct query {
    ProtobufCBinaryData ids[IDS_MAX];
    size_t ids_n;
    uint32_t limit;
    str behind;
    bool bad;
};

static uint32_t read_number(str v, bool *bad)
{
    uint32_t n = 0;
    for (size_t i = 0; i < v.n; i++) {
        if (v.p[i] < '0' || v.p[i] > '9' || v.n > 9)
            return *bad = true, 0;
        n = n * 10 + (uint32_t)(v.p[i] - '0');
    }
    return n;
}

/* Ids, max_items, and of XEP-0059 what pages need: max and after. */
static void read_query(const struct ask *x, struct query *q)
{
    struct xml_el el, in;
    *q = (struct query){.limit = 0};
    for (bool more = xml_first(&x->el, &el, x->arena); more;
         more = xml_next(&x->el, &el, x->arena)) {
        str id = xml_is(&el, NS_PS, "item") ? xml_attr(&el, "id", x->arena) : STR_NONE;
        if (!id.n || id.n >= LEAF_TEXT_MAX || q->ids_n == IDS_MAX) {
            q->bad = true;
            return;
        }
        q->ids[q->ids_n++] = home_bytes(id);
    }
    q->limit = read_number(xml_attr(&x->el, "max_items", x->arena), &q->bad);
    if (!xml_find(&x->pubsub, "http://jabber.org/protocol/rsm", "set", &el, x->arena))
        return;
    if (xml_find(&el, "http://jabber.org/protocol/rsm", "max", &in, x->arena)) {
        uint32_t max = read_number(xml_text(&in, x->arena), &q->bad);
        q->limit = !q->limit || max < q->limit ? max : q->limit;
    }
    if (xml_find(&el, "http://jabber.org/protocol/rsm", "after", &in, x->arena))
        q->behind = xml_text(&in, x->arena);
    q->bad = q->bad || q->behind.n >= LEAF_TEXT_MAX;
}

static void put_item(struct xml_writer *w, const Store__LeafItem *item)
{
    xml_open(w, "item");
    xml_put_attr(w, "id", home_str(item->id));
    xml_put_raw(w, home_str(item->xml));
    xml_close(w, "item");
}

/* XEP-0059: where the page is among all. */
static void put_set(struct xml_writer *w, const Store__ItemPage *page)
{
    xml_open_ns(w, "set", "http://jabber.org/protocol/rsm");
    xml_put_leaf(w, "first", NULL, home_str(page->items[0]->id));
    xml_put_leaf(w, "last", NULL, home_str(page->items[page->n_items - 1]->id));
    xml_put_leaf(w, "count", NULL, arena_printf(w->arena, "%u", page->count));
    xml_close(w, "set");
}

static void got_items(struct iq *kept, err e, const Store__Reply *reply)
{
    struct ask x;
    struct xml_writer w;
    if (e != ERR_OK) {
        iq_store_error(kept, e);
        return;
    }
    const Store__ItemPage *page = reply->items;
    ask_again(kept, &x, home_arena(kept->home));
    struct query q;
    read_query(&x, &q);
    xml_writer_init(&w, x.arena);
    xml_open(&w, "items");
    xml_put_attr(&w, "node", x.node);
    for (size_t i = 0; i < page->n_items; i++)
        put_item(&w, page->items[i]);
    xml_close(&w, "items");
    if (page->n_items && !q.ids_n && (page->more || q.behind.n))
        put_set(&w, page);
    ask_result(&x, NS_PS, xml_written(&w));
}

void items_run(struct ask *x)
{
    struct query q;
    if (!ask_wants_leaf(x) || !ask_may_see(x))
        return;
    read_query(x, &q);
    if (q.bad) {
        ask_refuse(x, ERR_STANZA_BAD_REQUEST, NULL);
        return;
    }
    Store__Request req = STORE__REQUEST__INIT;
    Store__ItemGet op = STORE__ITEM_GET__INIT;
    op.leaf = home_bytes(x->node);
    op.n_ids = q.ids_n, op.ids = q.ids;
    op.limit = q.limit > 1000 ? 1000 : q.limit;
    op.bytes_max = ANSWER_BYTES_MAX, op.behind = home_bytes(q.behind);
    req.op_case = STORE__REQUEST__OP_ITEM_GET, req.item_get = &op;
    ask_read(x, &req, got_items);
}
