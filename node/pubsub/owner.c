/* owner: what a leaf's owner may do (XEP-0060 8): create, configure, delete, purge, say who is
 * affiliated and subscribed. */
#include "node/pubsub/service.h"

#define CONFIG_TYPE NS_PS "#node_config"

bool owner_read_form(struct ask *x, const struct xml_el *parent, const char *type, struct form *out)
{
    struct xml_el form;
    if (xml_first(parent, &form, x->arena) && config_read_form(&form, type, out, x->arena))
        return true;
    ask_refuse(x, ERR_STANZA_BAD_REQUEST, NULL);
    return false;
}

static void submit_config(struct ask *x, const struct leaf_config *c, ask_done_f *done)
{
    Store__Request req = STORE__REQUEST__INIT;
    Store__LeafPut op = STORE__LEAF_PUT__INIT;
    op.leaf = home_bytes(x->node), op.config = home_bytes(config_encode(c, x->arena));
    op.time_us = x->q->us, op.items_max = ask_items_max(x, &c->rules);
    op.leaves_max = (uint32_t)x->q->node->conf->modules_pep_nodes_max;
    op.again_us = ask_again_us(x);
    req.op_case = STORE__REQUEST__OP_LEAF_PUT, req.leaf_put = &op;
    ask_change(x, &req, done);
}

/* ---- create (8.1) ---- */

/* False: answered. */
static bool read_new(struct ask *x, struct leaf_config *c)
{
    struct xml_el configure, any;
    struct form f;
    *c = leaf_config_pep;
    if (!xml_find(&x->pubsub, NS_PS, "configure", &configure, x->arena) ||
        !xml_first(&configure, &any, x->arena))
        return true;
    if (!owner_read_form(x, &configure, CONFIG_TYPE, &f))
        return false;
    if (!f.cancel && config_set_all(c, &f) == ERR_OK)
        return true;
    ask_refuse(x, ERR_STANZA_NOT_ACCEPTABLE, NULL);
    return false;
}

static void created(struct ask *x, const Store__Reply *reply)
{
    struct leaf_config c;
    if (!read_new(x, &c))
        return;
    if (!x->leaf)
        leaf_make(pubsub_leaves(x->p), x->node, &c, x->q->us, x->arena);
    ask_result(x, NS_PS, STR_NONE);
}

void create_run(struct ask *x)
{
    struct leaf_config c;
    if (!x->who.own)
        ask_refuse(x, ERR_STANZA_FORBIDDEN, NULL);
    else if (!x->node.n) /* 8.1.2: instant nodes are not for accounts */
        ask_refuse(x, ERR_STANZA_NOT_ACCEPTABLE, "nodeid-required");
    else if (x->leaf && !ask_again_us(x))
        ask_refuse(x, ERR_STANZA_CONFLICT, NULL);
    else if (x->leaf)
        ask_result(x, NS_PS, STR_NONE);
    else if (read_new(x, &c))
        submit_config(x, &c, created);
}

/* ---- configure (8.2, 8.3) ---- */

static void answer_form(struct ask *x, const char *name, const struct leaf_config *c)
{
    struct xml_writer w;
    xml_writer_init(&w, x->arena);
    xml_open(&w, name);
    if (x->node.n)
        xml_put_attr(&w, "node", x->node);
    config_put_form(&w, c, false);
    xml_close(&w, name);
    ask_result(x, NS_PS_OWNER, xml_written(&w));
}

void configure_get_run(struct ask *x)
{
    if (!ask_wants_own(x))
        return;
    struct leaf_config c = leaf_config_of(x->leaf, x->arena);
    answer_form(x, "configure", &c);
}

void default_run(struct ask *x)
{
    if (x->who.own)
        answer_form(x, "default", &leaf_config_pep);
    else
        ask_refuse(x, ERR_STANZA_FORBIDDEN, NULL);
}

/* False: answered. */
static bool read_changed(struct ask *x, struct leaf_config *c)
{
    struct form f;
    if (!owner_read_form(x, &x->el, CONFIG_TYPE, &f))
        return false;
    *c = leaf_config_of(x->leaf, x->arena);
    if (f.cancel)
        ask_result(x, NS_PS_OWNER, STR_NONE);
    else if (config_set_all(c, &f) != ERR_OK)
        ask_refuse(x, ERR_STANZA_NOT_ACCEPTABLE, NULL);
    else
        return true;
    return false;
}

/* Answers, then tells: event may be empty. */
static void answer_and_tell(struct ask *x, str event)
{
    struct user *u = x->q->user;
    struct cause c = ask_cause(x);
    user_pin(u);
    ask_result(x, NS_PS_OWNER, STR_NONE);
    if (event.n)
        pep_tell(u, x->leaf, event, &c);
    cause_end(&c);
    user_unpin(u);
}

/* <name node='…'>inner</name> */
static str node_event(const struct ask *x, const char *name, str inner)
{
    struct xml_writer w;
    xml_writer_init(&w, x->arena);
    xml_open(&w, name);
    xml_put_attr(&w, "node", x->node);
    if (inner.n)
        xml_put_raw(&w, inner);
    xml_close(&w, name);
    return xml_written(&w);
}

static void configured(struct ask *x, const Store__Reply *reply)
{
    struct leaf_config c;
    if (!read_changed(x, &c))
        return;
    leaf_configure(x->leaf, &c, x->q->us, x->arena);
    answer_and_tell(x, c.rules.notify_config ? node_event(x, "configuration", STR_NONE) : STR_NONE);
}

void configure_set_run(struct ask *x)
{
    struct leaf_config c;
    if (ask_wants_own(x) && read_changed(x, &c))
        submit_config(x, &c, configured);
}

/* ---- delete, purge (8.4, 8.5) ---- */

static void deleted(struct ask *x, const Store__Reply *reply)
{
    struct xml_el redirect;
    str inner = STR_NONE;
    if (xml_find(&x->el, NS_PS_OWNER, "redirect", &redirect, x->arena)) {
        str parts[] = {STR("<redirect"),
                       xml_attr_text("uri", xml_attr(&redirect, "uri", x->arena), x->arena),
                       STR("/>")};
        inner = arena_concat(x->arena, parts, 3);
    }
    struct leaf *l = x->leaf;
    struct pubsub *p = x->p;
    answer_and_tell(x, l && l->rules.notify_delete ? node_event(x, "delete", inner) : STR_NONE);
    if (l)
        leaf_remove(pubsub_leaves(p), l);
}

void delete_run(struct ask *x)
{
    if (!ask_wants_own(x))
        return;
    Store__Request req = STORE__REQUEST__INIT;
    Store__LeafRemove op = STORE__LEAF_REMOVE__INIT;
    op.leaf = home_bytes(x->node), op.again_us = ask_again_us(x);
    req.op_case = STORE__REQUEST__OP_LEAF_REMOVE, req.leaf_remove = &op;
    ask_change(x, &req, deleted);
}

static void purged(struct ask *x, const Store__Reply *reply)
{
    if (x->leaf)
        leaf_forget_last(x->leaf, ask_again_us(x) != 0);
    bool tell = x->leaf && x->leaf->rules.notify_retract;
    answer_and_tell(x, tell ? node_event(x, "purge", STR_NONE) : STR_NONE);
}

void purge_run(struct ask *x)
{
    if (!ask_wants_own(x))
        return;
    Store__Request req = STORE__REQUEST__INIT;
    Store__LeafPurge op = STORE__LEAF_PURGE__INIT;
    op.leaf = home_bytes(x->node), op.again_us = ask_again_us(x);
    req.op_case = STORE__REQUEST__OP_LEAF_PURGE, req.leaf_purge = &op;
    ask_change(x, &req, purged);
}

/* ---- who is affiliated (8.9) ---- */

static void put_affiliation(struct xml_writer *w, str jid, enum affiliation as)
{
    xml_open(w, "affiliation");
    xml_put_attr(w, "jid", jid);
    xml_put_attr(w, "affiliation", str_of(affiliation_name(as)));
    xml_close(w, "affiliation");
}

void owner_affiliations_get_run(struct ask *x)
{
    struct xml_writer w;
    if (!ask_wants_own(x))
        return;
    xml_writer_init(&w, x->arena);
    xml_open(&w, "affiliations");
    xml_put_attr(&w, "node", x->node);
    put_affiliation(&w, user_bare(x->q->user), AFFILIATION_OWNER);
    for (const struct affiliated *a = x->leaf->affiliated; a; a = a->next)
        put_affiliation(&w, str_from(a->jid, a->jid_len), a->as);
    xml_close(&w, "affiliations");
    ask_result(x, NS_PS_OWNER, xml_written(&w));
}

struct affiliation_change {
    str jid;
    enum affiliation as;
};

/* How many; SIZE_MAX: answered. */
static size_t read_affiliations(struct ask *x, struct affiliation_change *out)
{
    struct xml_el el;
    size_t n = 0;
    for (bool more = xml_first(&x->el, &el, x->arena); more;
         more = xml_next(&x->el, &el, x->arena)) {
        struct jid j;
        enum affiliation as;
        if (n == AFFILIATIONS_MAX || !xml_is(&el, NS_PS_OWNER, "affiliation") ||
            jid_prepare(xml_attr(&el, "jid", x->arena), x->arena, &j) != ERR_OK ||
            !affiliation_named(xml_attr(&el, "affiliation", x->arena), &as)) {
            ask_refuse(x, ERR_STANZA_BAD_REQUEST, NULL);
            return SIZE_MAX;
        }
        if (str_eq(j.bare, user_bare(x->q->user)) && as != AFFILIATION_OWNER) {
            ask_refuse(x, ERR_STANZA_NOT_ACCEPTABLE, NULL); /* 8.9.2.4: one owner stays */
            return SIZE_MAX;
        }
        if (!str_eq(j.bare, user_bare(x->q->user)))
            out[n++] = (struct affiliation_change){j.bare, as};
    }
    return n;
}

static void affiliated(struct ask *x, const Store__Reply *reply)
{
    struct affiliation_change *all = arena_alloc(x->arena, AFFILIATIONS_MAX * sizeof *all);
    size_t n = read_affiliations(x, all);
    if (n == SIZE_MAX)
        return;
    for (size_t i = 0; x->leaf && i < n; i++)
        leaf_set_affiliation(x->leaf, all[i].jid, all[i].as);
    ask_result(x, NS_PS_OWNER, STR_NONE);
}

void owner_affiliations_set_run(struct ask *x)
{
    struct affiliation_change *all = arena_alloc(x->arena, AFFILIATIONS_MAX * sizeof *all);
    if (!ask_wants_own(x))
        return;
    size_t n = read_affiliations(x, all);
    if (n == SIZE_MAX)
        return;
    if (n + leaf_affiliations(x->leaf) > AFFILIATIONS_MAX) {
        ask_refuse(x, ERR_STANZA_RESOURCE_CONSTRAINT, NULL);
        return;
    }
    Store__Request req = STORE__REQUEST__INIT;
    Store__AffiliationPut op = STORE__AFFILIATION_PUT__INIT;
    Store__LeafAffiliation *rows = arena_alloc(x->arena, (n + 1) * sizeof *rows);
    Store__LeafAffiliation **at = arena_alloc(x->arena, (n + 1) * sizeof *at);
    for (size_t i = 0; i < n; i++) {
        store__leaf_affiliation__init(at[i] = &rows[i]);
        rows[i].jid = home_bytes(all[i].jid), rows[i].affiliation = all[i].as;
    }
    op.leaf = home_bytes(x->node), op.affiliations = at, op.n_affiliations = n;
    req.op_case = STORE__REQUEST__OP_AFFILIATION_PUT, req.affiliation_put = &op;
    ask_change(x, &req, affiliated);
}

/* ---- who is subscribed (8.8) ---- */

void owner_subscriptions_get_run(struct ask *x)
{
    struct xml_writer w;
    if (!ask_wants_own(x))
        return;
    xml_writer_init(&w, x->arena);
    xml_open(&w, "subscriptions");
    xml_put_attr(&w, "node", x->node);
    for (const struct subscriber *s = x->leaf->subscribers; s; s = s->next) {
        xml_open(&w, "subscription");
        xml_put_attr(&w, "jid", str_from(s->jid, s->jid_len));
        xml_put_attr(&w, "subscription", str_of(subscription_state_name(s->state)));
        xml_put_attr(&w, "subid", str_of(s->subid));
        xml_close(&w, "subscription");
    }
    xml_close(&w, "subscriptions");
    ask_result(x, NS_PS_OWNER, xml_written(&w));
}

struct subscription_change {
    str jid;
    enum subscription_state state;
};

static bool read_state(str v, enum subscription_state *out)
{
    for (enum subscription_state s = SUBSCRIPTION_NONE; s <= SUBSCRIPTION_SUBSCRIBED; s++)
        if (str_eq(v, str_of(subscription_state_name(s)))) {
            *out = s;
            return true;
        }
    return false;
}

/* How many; SIZE_MAX: answered. */
static size_t read_subscriptions(struct ask *x, struct subscription_change *out)
{
    struct xml_el el;
    size_t n = 0;
    for (bool more = xml_first(&x->el, &el, x->arena); more;
         more = xml_next(&x->el, &el, x->arena)) {
        struct jid j;
        if (n == SUBSCRIPTIONS_MAX || !xml_is(&el, NS_PS_OWNER, "subscription") ||
            jid_prepare(xml_attr(&el, "jid", x->arena), x->arena, &j) != ERR_OK ||
            !read_state(xml_attr(&el, "subscription", x->arena), &out[n].state)) {
            ask_refuse(x, ERR_STANZA_BAD_REQUEST, NULL);
            return SIZE_MAX;
        }
        out[n++].jid = j.full;
    }
    return n;
}

static str subid_of(const struct ask *x, str jid)
{
    struct subscriber *s = leaf_subscriber(x->leaf, jid);
    if (s)
        return str_of(s->subid);
    return arena_printf(x->arena, "%08x%08x", home_lane(jid, "subid"), home_lane(x->node, "id"));
}

static void subscriptions_put(struct ask *x, const Store__Reply *reply)
{
    struct subscription_change *all = arena_alloc(x->arena, SUBSCRIPTIONS_MAX * sizeof *all);
    size_t n = read_subscriptions(x, all);
    if (n == SIZE_MAX)
        return;
    for (size_t i = 0; x->leaf && i < n; i++) {
        struct subscriber *had = leaf_subscriber(x->leaf, all[i].jid);
        leaf_set_subscriber(x->leaf, all[i].jid, subid_of(x, all[i].jid), all[i].state,
                            had && had->quiet);
    }
    ask_result(x, NS_PS_OWNER, STR_NONE);
}

void owner_subscriptions_set_run(struct ask *x)
{
    struct subscription_change *all = arena_alloc(x->arena, SUBSCRIPTIONS_MAX * sizeof *all);
    if (!ask_wants_own(x))
        return;
    size_t n = read_subscriptions(x, all);
    if (n == SIZE_MAX)
        return;
    if (n + leaf_subscribers(x->leaf) > SUBSCRIPTIONS_MAX) {
        ask_refuse(x, ERR_STANZA_RESOURCE_CONSTRAINT, NULL);
        return;
    }
    Store__Request req = STORE__REQUEST__INIT;
    Store__SubscriptionPut op = STORE__SUBSCRIPTION_PUT__INIT;
    Store__LeafSubscription *rows = arena_alloc(x->arena, (n + 1) * sizeof *rows);
    Store__LeafSubscription **at = arena_alloc(x->arena, (n + 1) * sizeof *at);
    for (size_t i = 0; i < n; i++) {
        struct subscriber *had = leaf_subscriber(x->leaf, all[i].jid);
        store__leaf_subscription__init(at[i] = &rows[i]);
        rows[i].jid = home_bytes(all[i].jid), rows[i].state = all[i].state;
        rows[i].subid = home_bytes(subid_of(x, all[i].jid));
        rows[i].options = home_bytes(had && had->quiet ? STR("q") : STR_NONE);
    }
    op.leaf = home_bytes(x->node), op.subscriptions = at, op.n_subscriptions = n;
    req.op_case = STORE__REQUEST__OP_SUBSCRIPTION_PUT, req.subscription_put = &op;
    ask_change(x, &req, subscriptions_put);
}
