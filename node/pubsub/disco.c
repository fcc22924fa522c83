/* disco: an account's leaves and their items, as XEP-0030 shows them (XEP-0060 5.2 to 5.5): to each
 * those that it may see. */
#include "node/pubsub/service.h"

#include <stdlib.h>

#define NS_INFO "http://jabber.org/protocol/disco#info"
#define NS_ITEMS "http://jabber.org/protocol/disco#items"

struct disco {
    struct pubsub_work work;
    struct iq *q; /* kept */
    bool items;
};

static bool may_see(const struct iq *q, const struct leaf *l)
{
    struct arena *a = home_arena(q->home);
    struct visitor v = pep_visitor(q->user, q->asker.bare, a);
    return leaf_may_see(l, &v, a).e == ERR_OK;
}

static void answer_leaves(struct iq *q, const struct leaves *all)
{
    struct xml_writer w;
    xml_writer_init(&w, home_arena(q->home));
    xml_open_ns(&w, "query", NS_ITEMS);
    htable_each(it, &all->by_name) {
        const struct leaf *l = container_of(it, struct leaf, node);
        if (!may_see(q, l))
            continue;
        struct leaf_config c = leaf_config_of(l, w.arena);
        xml_open(&w, "item");
        xml_put_attr(&w, "jid", user_bare(q->user));
        xml_put_attr(&w, "node", leaf_name(l));
        if (c.title.n)
            xml_put_attr(&w, "name", c.title);
        xml_close(&w, "item");
    }
    xml_close(&w, "query");
    iq_result(q, xml_written(&w));
}

static void answer_info(struct iq *q, const struct leaf *l)
{
    struct xml_writer w;
    xml_writer_init(&w, home_arena(q->home));
    xml_open_ns(&w, "query", NS_INFO);
    xml_put_attr(&w, "node", leaf_name(l));
    xml_put_raw(&w, STR("<identity category='pubsub' type='leaf'/>"
                        "<feature var='" NS_PS "'/>"));
    struct leaf_config c = leaf_config_of(l, w.arena);
    config_put_form(&w, &c, true);
    xml_close(&w, "query");
    iq_result(q, xml_written(&w));
}

static void got_names(struct iq *kept, err e, const Store__Reply *reply)
{
    struct xml_writer w;
    if (e != ERR_OK) {
        iq_store_error(kept, e);
        return;
    }
    struct xml_el query = iq_payload(kept, home_arena(kept->home));
    xml_writer_init(&w, home_arena(kept->home));
    xml_open_ns(&w, "query", NS_ITEMS);
    xml_put_attr(&w, "node", xml_attr(&query, "node", w.arena));
    for (size_t i = 0; i < reply->items->n_items; i++) {
        xml_open(&w, "item");
        xml_put_attr(&w, "jid", user_bare(kept->user));
        xml_put_attr(&w, "name", home_str(reply->items->items[i]->id));
        xml_close(&w, "item");
    }
    xml_close(&w, "query");
    iq_result(kept, xml_written(&w));
}

static void ask_names(struct iq *q, const struct leaf *l)
{
    Store__Request req = STORE__REQUEST__INIT;
    Store__ItemGet op = STORE__ITEM_GET__INIT;
    op.leaf = home_bytes(leaf_name(l)), op.names = true, op.limit = 1000;
    req.op_case = STORE__REQUEST__OP_ITEM_GET, req.item_get = &op;
    iq_store(q, &req, got_names);
}

static void run(struct pubsub_work *work, struct pubsub *p)
{
    struct disco *d = container_of(work, struct disco, work);
    struct iq *q = d->q;
    struct xml_el query = iq_payload(q, home_arena(q->home));
    str node = xml_attr(&query, "node", home_arena(q->home));
    const struct leaf *l = p && node.n ? leaf_find(pubsub_leaves(p), node) : NULL;
    if (!p)
        iq_store_error(q, ERR_AWAY);
    else if (!node.n)
        answer_leaves(q, pubsub_leaves(p));
    else if (!l || !may_see(q, l))
        iq_error(q, ERR_STANZA_ITEM_NOT_FOUND);
    else if (d->items)
        ask_names(q, l);
    else
        answer_info(q, l);
    free(d);
}

bool pubsub_disco(struct iq *q, bool items)
{
    if (!q->user && q->session && q->entity == IQ_OWN_ACCOUNT)
        q->user = q->session->user;
    if (q->entity == IQ_SERVER || !q->user || q->user->anonymous)
        return false;
    struct user *u = q->user;
    struct disco *d = malloc(sizeof *d);
    must(d);
    *d = (struct disco){.work.run = run, .items = items};
    list_init(&d->work.link);
    d->q = iq_keep(q);
    pubsub_with(u, &d->work);
    return true;
}
