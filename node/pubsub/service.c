/* service: one owner's requests, one after the other. Nothing is known of the leaves until somebody
 * asks: then all of them are loaded, and what came meanwhile waits. A change in the store's hands
 * makes the others wait, so that each sees what the former ones have made; questions about items go
 * to the store, which keeps their order.
 *
 *   NEW --asked--> LOADING --store answers--> READY --the account leaves memory--> freed
 *
 * Who waits has pinned the user. When an account is removed meanwhile (forgotten), what is under
 * way is finished with what was known, and then this is freed. */
#include "node/pubsub/service.h"

#include <stdlib.h>

enum state { STATE_NEW, STATE_LOADING, STATE_READY };

struct pubsub {
    struct user *user; /* pinned by each work */
    struct leaves leaves;
    struct list works; /* struct pubsub_work.link */
    enum state state;
    bool busy;    /* a change is in the store's hands */
    bool pumping; /* works are being run */
    bool orphan;  /* forgotten by the user */
};

/* A request among the works. */
struct request {
    struct pubsub_work work;
    struct iq *q; /* kept */
    struct pubsub *p;
    ask_done_f *done;
};

/* ---- life ---- */

struct pubsub *pubsub_of(struct user *u)
{
    struct pubsub *p = user_extra(u, EXTRA_PUBSUB);
    if (p)
        return p;
    p = calloc(1, sizeof *p);
    must(p);
    p->user = u;
    leaves_init(&p->leaves, &u->home->node->key);
    list_init(&p->works);
    user_set_extra(u, EXTRA_PUBSUB, p);
    return p;
}

struct leaves *pubsub_leaves(struct pubsub *p) { return &p->leaves; }

static bool is_idle(const struct pubsub *p)
{
    return !p->busy && !p->pumping && p->state != STATE_LOADING && list_empty(&p->works);
}

static void free_if_orphan(struct pubsub *p)
{
    if (!p->orphan || !is_idle(p))
        return;
    leaves_close(&p->leaves);
    free(p);
}

void pubsub_forgotten(struct user *u)
{
    struct pubsub *p = user_extra(u, EXTRA_PUBSUB);
    if (!p)
        return;
    user_set_extra(u, EXTRA_PUBSUB, NULL);
    p->orphan = true;
    free_if_orphan(p);
}

/* ---- in turn ---- */

static void run_one(struct pubsub *p, bool loaded)
{
    struct pubsub_work *w = list_first(&p->works, struct pubsub_work, link);
    struct user *u = p->user;
    list_remove(&w->link);
    user_pin(u);
    w->run(w, loaded ? p : NULL);
    user_unpin(u); /* of pubsub_with */
    user_unpin(u);
}

static void pump(struct pubsub *p)
{
    struct user *u = p->user;
    if (p->pumping)
        return;
    user_pin(u);
    p->pumping = true;
    while (p->state == STATE_READY && !p->busy && !list_empty(&p->works))
        run_one(p, true);
    p->pumping = false;
    free_if_orphan(p);
    user_unpin(u);
}

static void on_loaded(struct home *h, void *ctx, err e, const Store__Reply *reply)
{
    struct pubsub *p = ctx;
    struct user *u = p->user;
    bool loaded = e == ERR_OK && reply && reply->body_case == STORE__REPLY__BODY_LEAVES;
    p->state = loaded ? STATE_READY : STATE_NEW;
    for (size_t i = 0; loaded && i < reply->leaves->n_leaves; i++)
        leaf_load(&p->leaves, reply->leaves->leaves[i], home_arena(h));
    p->pumping = true;
    while (!loaded && !list_empty(&p->works))
        run_one(p, false);
    p->pumping = false;
    pump(p);
    user_unpin(u);
}

static void load(struct pubsub *p)
{
    Store__Request req = STORE__REQUEST__INIT;
    Store__LeafLoad op = STORE__LEAF_LOAD__INIT;
    op.inline_max = LAST_CACHED_MAX;
    req.op_case = STORE__REQUEST__OP_LEAF_LOAD, req.leaf_load = &op;
    p->state = STATE_LOADING;
    user_pin(p->user);
    home_store(p->user->home, user_bare(p->user), &req, on_loaded, p);
}

void pubsub_with(struct user *u, struct pubsub_work *w)
{
    struct pubsub *p = pubsub_of(u);
    w->user = u;
    user_pin(u);
    list_push_back(&p->works, &w->link);
    if (p->state == STATE_NEW)
        load(p);
    else
        pump(p);
}

/* ---- answers ---- */

void ask_refuse(struct ask *x, err e, const char *why)
{
    struct xml_writer w;
    xml_writer_init(&w, x->arena);
    if (why) {
        xml_open_ns(&w, why, NS_PS_ERRORS);
        xml_close(&w, why);
    }
    iq_error_extra(x->q, e, xml_written(&w));
}

void ask_unsupported(struct ask *x, const char *feature)
{
    iq_error_extra(
        x->q, ERR_STANZA_FEATURE_NOT_IMPLEMENTED,
        arena_printf(x->arena, "<unsupported xmlns='" NS_PS_ERRORS "' feature='%s'/>", feature));
}

void ask_result(struct ask *x, const char *ns, str payload)
{
    struct xml_writer w;
    if (!payload.n) {
        iq_result(x->q, STR_NONE);
        return;
    }
    xml_writer_init(&w, x->arena);
    xml_open_ns(&w, "pubsub", ns);
    xml_put_raw(&w, payload);
    xml_close(&w, "pubsub");
    iq_result(x->q, xml_written(&w));
}

struct cause ask_cause(const struct ask *x)
{
    struct cause c = {x->q->ticket, home_cause(x->q->ticket), x->q->us, stanza_ref(x->q->stanza)};
    if (c.ticket)
        ticket_open(c.ticket);
    return c;
}

void cause_end(struct cause *c)
{
    stanza_unref(c->stanza);
    if (c->ticket)
        ticket_close(c->ticket);
}

int64_t ask_again_us(const struct ask *x)
{
    return x->q->ticket && ticket_is_again(x->q->ticket) ? x->q->us : 0;
}

uint32_t ask_items_max(const struct ask *x, const struct leaf_rules *r)
{
    uint32_t most = (uint32_t)x->q->node->conf->modules_pep_items_max;
    if (!r->persist)
        return 0;
    return r->items_max > most ? most : r->items_max ? r->items_max : 1;
}

bool ask_wants_leaf(struct ask *x)
{
    if (!x->node.n)
        ask_refuse(x, ERR_STANZA_BAD_REQUEST, "nodeid-required");
    else if (!x->leaf)
        ask_refuse(x, ERR_STANZA_ITEM_NOT_FOUND, NULL);
    return x->leaf != NULL;
}

bool ask_wants_own(struct ask *x)
{
    if (x->node.n && !x->leaf && !x->who.own) /* the same for a node that is not theirs */
        return ask_refuse(x, ERR_STANZA_FORBIDDEN, NULL), false;
    if (!ask_wants_leaf(x))
        return false;
    if (!leaf_may_own(x->leaf, &x->who))
        ask_refuse(x, ERR_STANZA_FORBIDDEN, NULL);
    return leaf_may_own(x->leaf, &x->who);
}

bool ask_may_see(struct ask *x)
{
    struct refusal no = leaf_may_see(x->leaf, &x->who, x->arena);
    if (no.e != ERR_OK)
        ask_refuse(x, no.e, no.why);
    return no.e == ERR_OK;
}

/* ---- requests ---- */

static const struct verb {
    const char *name;
    bool owner, set;
    ask_run_f *run;
} verbs[] = {
    {"publish", false, true, publish_run},
    {"retract", false, true, retract_run},
    {"create", false, true, create_run},
    {"subscribe", false, true, subscribe_run},
    {"unsubscribe", false, true, unsubscribe_run},
    {"options", false, true, options_set_run},
    {"items", false, false, items_run},
    {"options", false, false, options_get_run},
    {"subscriptions", false, false, subscriptions_run},
    {"affiliations", false, false, affiliations_run},
    {"default", false, false, default_subscription_run},
    {"configure", true, true, configure_set_run},
    {"delete", true, true, delete_run},
    {"purge", true, true, purge_run},
    {"affiliations", true, true, owner_affiliations_set_run},
    {"subscriptions", true, true, owner_subscriptions_set_run},
    {"configure", true, false, configure_get_run},
    {"default", true, false, default_run},
    {"affiliations", true, false, owner_affiliations_get_run},
    {"subscriptions", true, false, owner_subscriptions_get_run},
};

static const struct verb *verb_of(const struct ask *x)
{
    bool owner = str_is(x->pubsub.ns, NS_PS_OWNER);
    for (size_t i = 0; i < array_len(verbs); i++)
        if (verbs[i].owner == owner && verbs[i].set == x->q->set &&
            str_eq(x->el.name, str_of(verbs[i].name)))
            return &verbs[i];
    return NULL;
}

/* False: it has no child of its namespace. */
static bool look(struct ask *x, struct iq *q, struct pubsub *p, struct arena *a)
{
    *x = (struct ask){.q = q, .p = p, .arena = a, .pubsub = iq_payload(q, a)};
    if (q->entity == IQ_OWN_ACCOUNT)
        x->who = (struct visitor){.bare = q->asker.bare, .own = true};
    else
        x->who = pep_visitor(q->user, q->asker.bare, a);
    if (!xml_first(&x->pubsub, &x->el, a) || !str_eq(x->el.ns, x->pubsub.ns))
        return false;
    x->node = xml_attr(&x->el, "node", a);
    if (p && x->node.n)
        x->leaf = leaf_find(&p->leaves, x->node);
    return true;
}

static void run_request(struct pubsub_work *w, struct pubsub *p)
{
    struct request *r = container_of(w, struct request, work);
    struct ask x;
    const struct verb *v;
    if (!p)
        iq_store_error(r->q, ERR_AWAY);
    else if (!look(&x, r->q, p, home_arena(r->q->home)))
        ask_refuse(&x, ERR_STANZA_BAD_REQUEST, NULL);
    else if (x.node.n > LEAF_TEXT_MAX - 1)
        ask_refuse(&x, ERR_STANZA_NOT_ACCEPTABLE, NULL);
    else if ((v = verb_of(&x)))
        v->run(&x);
    else
        iq_error(r->q, ERR_STANZA_FEATURE_NOT_IMPLEMENTED);
    free(r);
}

static void on_changed(struct home *h, void *ctx, err e, const Store__Reply *reply)
{
    struct request *r = ctx;
    struct pubsub *p = r->p;
    struct user *u = p->user;
    struct ask x;
    p->busy = false;
    p->pumping = true; /* what comes of it waits until it was told */
    if (e == ERR_FULL && reply)
        iq_error(r->q, ERR_STANZA_RESOURCE_CONSTRAINT);
    else if (e != ERR_OK)
        iq_store_error(r->q, e);
    else if (look(&x, r->q, p, home_arena(h)))
        r->done(&x, reply);
    free(r);
    p->pumping = false;
    pump(p);
    user_unpin(u);
}

void ask_change(struct ask *x, Store__Request *req, ask_done_f *done)
{
    struct request *r = malloc(sizeof *r);
    must(r);
    *r = (struct request){.q = x->q, .p = x->p, .done = done};
    x->p->busy = true;
    user_pin(x->p->user);
    home_store(x->q->home, user_bare(x->p->user), req, on_changed, r);
}

void ask_read(struct ask *x, Store__Request *req, iq_store_f *done) { iq_store(x->q, req, done); }

void ask_again(struct iq *kept, struct ask *x, struct arena *a)
{
    struct pubsub *p = pubsub_of(kept->user);
    must(look(x, kept, p, a));
}

/* There is no such account, or it is a guest without one: as if it had no leaves. */
static void answer_for_nobody(struct iq *q)
{
    struct xml_el el;
    bool any = xml_first(&q->payload, &el, q->arena);
    if (!any)
        iq_error(q, ERR_STANZA_BAD_REQUEST);
    else if (q->entity == IQ_OWN_ACCOUNT)
        iq_error(q, ERR_STANZA_SERVICE_UNAVAILABLE);
    else if (str_is(q->payload.ns, NS_PS_OWNER) || str_is(el.name, "publish") ||
             str_is(el.name, "create") || str_is(el.name, "retract"))
        iq_error(q, ERR_STANZA_FORBIDDEN);
    else
        iq_error(q, ERR_STANZA_ITEM_NOT_FOUND);
}

void pubsub_iq(struct iq *q)
{
    if (!q->user)
        q->user = q->session ? q->session->user : NULL;
    if (!q->user || q->user->anonymous) {
        answer_for_nobody(q);
        return;
    }
    struct request *r = malloc(sizeof *r);
    must(r);
    *r = (struct request){.work.run = run_request};
    list_init(&r->work.link);
    struct user *u = q->user;
    r->q = iq_keep(q);
    pubsub_with(u, &r->work);
}

/* ---- the home's own ---- */

static void ask_ourselves(struct user *u, str payload, struct ticket *t)
{
    struct home *h = u->home;
    struct arena *a = home_arena(h);
    struct xml_writer w;
    xml_writer_init(&w, a);
    xml_open(&w, "iq");
    xml_put_attr(&w, "type", STR("set"));
    xml_put_attr(&w, "id", STR("own"));
    xml_put_attr(&w, "from", user_bare(u));
    xml_put_raw(&w, payload);
    xml_close(&w, "iq");
    struct stanza *s = stanza_make(h->node->scan, xml_written(&w), a);
    struct xml_el root = stanza_root(s, a);
    struct iq q = {.home = h,
                   .node = h->node,
                   .entity = IQ_OWN_ACCOUNT,
                   .user = u,
                   .asker = jid_parse_prepared(stanza_from(s)),
                   .host = user_host(u),
                   .stanza = s,
                   .set = true,
                   .ticket = t,
                   .arena = a,
                   .us = home_wall_us(h)};
    q.asked = q.asker.bare;
    must(xml_first(&root, &q.payload, a));
    pubsub_iq(&q);
    stanza_unref(s);
}

void pubsub_publish(struct user *u, str leaf, str id, str payload,
                    const struct leaf_config *options, struct ticket *t)
{
    struct xml_writer w;
    xml_writer_init(&w, home_arena(u->home));
    xml_open_ns(&w, "pubsub", NS_PS);
    xml_open(&w, "publish");
    xml_put_attr(&w, "node", leaf);
    xml_open(&w, "item");
    xml_put_attr(&w, "id", id);
    xml_put_raw(&w, payload);
    xml_close(&w, "item");
    xml_close(&w, "publish");
    if (options) {
        xml_open(&w, "new"); /* not publish-options: those would be conditions, too */
        xml_put_raw(&w, config_encode(options, w.arena));
        xml_close(&w, "new");
    }
    xml_close(&w, "pubsub");
    ask_ourselves(u, xml_written(&w), t);
}

void pubsub_retract(struct user *u, str leaf, str id, struct ticket *t)
{
    struct xml_writer w;
    xml_writer_init(&w, home_arena(u->home));
    xml_open_ns(&w, "pubsub", NS_PS);
    xml_open(&w, "retract");
    xml_put_attr(&w, "node", leaf);
    xml_open(&w, "item");
    xml_put_attr(&w, "id", id);
    xml_close(&w, "item");
    xml_close(&w, "retract");
    xml_close(&w, "pubsub");
    ask_ourselves(u, xml_written(&w), t);
}
