/* subscribe: what who wants to be told of a leaf may ask (XEP-0060 5.6, 5.7, 6.1 to 6.4). An
 * account's contacts need none of it: their presence subscription is one (XEP-0163 4). */
#include "node/pubsub/service.h"

#define OPTIONS_TYPE NS_PS "#subscribe_options"

/* The JID that is to be subscribed is the asker's, bare or full (6.1.3.1). */
static bool read_jid(struct ask *x, struct jid *j)
{
    str raw = xml_attr(&x->el, "jid", x->arena);
    bool ours = raw.n && jid_prepare(raw, x->arena, j) == ERR_OK &&
                (str_eq(j->full, x->q->asker.bare) || str_eq(j->full, x->q->asker.full));
    if (!ours)
        ask_refuse(x, ERR_STANZA_BAD_REQUEST, raw.n ? "invalid-jid" : "jid-required");
    return ours;
}

static void put_subscription(struct xml_writer *w, str node, const struct subscriber *s)
{
    xml_open(w, "subscription");
    xml_put_attr(w, "node", node);
    xml_put_attr(w, "jid", str_from(s->jid, s->jid_len));
    xml_put_attr(w, "subid", str_of(s->subid));
    xml_put_attr(w, "subscription", str_of(subscription_state_name(s->state)));
    xml_close(w, "subscription");
}

static void submit(struct ask *x, str jid, str subid, enum subscription_state state, bool quiet,
                   ask_done_f *done)
{
    Store__Request req = STORE__REQUEST__INIT;
    Store__LeafSubscription s = STORE__LEAF_SUBSCRIPTION__INIT, *all[] = {&s};
    Store__SubscriptionPut op = STORE__SUBSCRIPTION_PUT__INIT;
    s.jid = home_bytes(jid), s.subid = home_bytes(subid), s.state = state;
    s.options = home_bytes(quiet ? STR("q") : STR_NONE);
    op.leaf = home_bytes(x->node), op.subscriptions = all, op.n_subscriptions = 1;
    req.op_case = STORE__REQUEST__OP_SUBSCRIPTION_PUT, req.subscription_put = &op;
    ask_change(x, &req, done);
}

/* ---- subscribe (6.1) ---- */

static enum subscription_state state_for(const struct ask *x)
{
    struct refusal no = leaf_may_see(x->leaf, &x->who, x->arena);
    return no.e == ERR_OK ? SUBSCRIPTION_SUBSCRIBED : SUBSCRIPTION_PENDING;
}

/* Deterministic: the same when it is done again. */
static str made_subid(const struct ask *x)
{
    struct uid uid = home_cause(x->q->ticket);
    str text = arena_printf(x->arena, "%llu %llu", (unsigned long long)uid.sid,
                            (unsigned long long)uid.ord);
    return arena_printf(x->arena, "%08x%08x", home_lane(text, "subid"), home_lane(text, "id"));
}

static void answer_subscribed(struct ask *x, const struct subscriber *s)
{
    struct xml_writer w;
    xml_writer_init(&w, x->arena);
    put_subscription(&w, x->node, s);
    ask_result(x, NS_PS, xml_written(&w));
}

static void subscribed(struct ask *x, const Store__Reply *reply)
{
    struct jid j;
    if (!read_jid(x, &j))
        return;
    struct leaf *l = x->leaf;
    must(l); /* it was there, and others have waited */
    struct user *u = x->q->user;
    struct subscriber *s = leaf_set_subscriber(l, j.full, made_subid(x), state_for(x), false);
    struct cause c = ask_cause(x);
    user_pin(u);
    answer_subscribed(x, s);
    if (s->state == SUBSCRIPTION_SUBSCRIBED && l->rules.last != LAST_NEVER)
        pep_tell_last(u, l, str_from(s->jid, s->jid_len), &c);
    cause_end(&c);
    user_unpin(u);
}

void subscribe_run(struct ask *x)
{
    struct jid j;
    if (!read_jid(x, &j) || !ask_wants_leaf(x))
        return;
    struct refusal no = leaf_may_see(x->leaf, &x->who, x->arena);
    bool asks = x->leaf->rules.access == ACCESS_AUTHORIZE && no.e == ERR_STANZA_NOT_AUTHORIZED;
    struct subscriber *had = leaf_subscriber(x->leaf, j.full);
    if (no.e != ERR_OK && !asks)
        ask_refuse(x, no.e, no.why);
    else if (had)
        answer_subscribed(x, had);
    else if (leaf_subscribers(x->leaf) >= SUBSCRIPTIONS_MAX)
        ask_refuse(x, ERR_STANZA_NOT_ALLOWED, "too-many-subscriptions");
    else
        submit(x, j.full, made_subid(x), state_for(x), false, subscribed);
}

/* ---- unsubscribe (6.2), options (6.3) ---- */

/* The subscription that is meant: else answers, NULL. */
static struct subscriber *find_own(struct ask *x)
{
    struct jid j;
    if (!read_jid(x, &j) || !ask_wants_leaf(x))
        return NULL;
    struct subscriber *s = leaf_subscriber(x->leaf, j.full);
    str subid = xml_attr(&x->el, "subid", x->arena);
    if (!s)
        ask_refuse(x, ERR_STANZA_UNEXPECTED_REQUEST, "not-subscribed");
    else if (subid.n && !str_eq(subid, str_of(s->subid)))
        ask_refuse(x, ERR_STANZA_NOT_ACCEPTABLE, "invalid-subid");
    else
        return s;
    return NULL;
}

static void unsubscribed(struct ask *x, const Store__Reply *reply)
{
    struct jid j;
    if (!read_jid(x, &j))
        return;
    if (x->leaf)
        leaf_set_subscriber(x->leaf, j.full, STR_NONE, SUBSCRIPTION_NONE, false);
    ask_result(x, NS_PS, STR_NONE);
}

void unsubscribe_run(struct ask *x)
{
    struct subscriber *s = find_own(x);
    if (s)
        submit(x, str_from(s->jid, s->jid_len), STR_NONE, SUBSCRIPTION_NONE, false, unsubscribed);
}

static void put_options_form(struct xml_writer *w, bool deliver)
{
    xml_put_raw(w, STR("<x xmlns='jabber:x:data' type='form'><field var='FORM_TYPE' type='hidden'>"
                       "<value>" OPTIONS_TYPE "</value></field><field var='pubsub#deliver'"
                       " type='boolean' label='Deliver event notifications'><value>"));
    xml_put_raw(w, deliver ? STR("1") : STR("0"));
    xml_put_raw(w, STR("</value></field></x>"));
}

void options_get_run(struct ask *x)
{
    struct subscriber *s = find_own(x);
    struct xml_writer w;
    if (!s)
        return;
    xml_writer_init(&w, x->arena);
    xml_open(&w, "options");
    xml_put_attr(&w, "node", x->node);
    xml_put_attr(&w, "jid", str_from(s->jid, s->jid_len));
    put_options_form(&w, !s->quiet);
    xml_close(&w, "options");
    ask_result(x, NS_PS, xml_written(&w));
}

/* 0, 1: what deliver is to be; -1: not a form; -2: as it is. */
static int read_deliver(const struct ask *x)
{
    struct xml_el form;
    struct form f;
    if (!xml_first(&x->el, &form, x->arena) || !config_read_form(&form, OPTIONS_TYPE, &f, x->arena))
        return -1;
    for (size_t i = 0; i < f.n; i++) {
        if (!str_is(f.fields[i].var, "pubsub#deliver"))
            continue;
        str v = f.fields[i].n == 1 ? f.fields[i].values[0] : STR_NONE;
        if (str_is(v, "1") || str_is(v, "true"))
            return 1;
        return str_is(v, "0") || str_is(v, "false") ? 0 : -1;
    }
    return -2;
}

static void optioned(struct ask *x, const Store__Reply *reply)
{
    struct jid j;
    if (!read_jid(x, &j))
        return;
    struct subscriber *s = x->leaf ? leaf_subscriber(x->leaf, j.full) : NULL;
    if (s)
        s->quiet = read_deliver(x) == 0;
    ask_result(x, NS_PS, STR_NONE);
}

void options_set_run(struct ask *x)
{
    struct subscriber *s = find_own(x);
    if (!s)
        return;
    int deliver = read_deliver(x);
    if (deliver == -1)
        ask_refuse(x, ERR_STANZA_BAD_REQUEST, "invalid-options");
    else if (deliver == -2)
        ask_result(x, NS_PS, STR_NONE);
    else
        submit(x, str_from(s->jid, s->jid_len), str_of(s->subid), s->state, deliver == 0, optioned);
}

void default_subscription_run(struct ask *x)
{
    struct xml_writer w;
    xml_writer_init(&w, x->arena);
    xml_open(&w, "default");
    put_options_form(&w, true);
    xml_close(&w, "default");
    ask_result(x, NS_PS, xml_written(&w));
}

/* ---- what one has here (5.6, 5.7) ---- */

static void put_own_subscriptions(struct xml_writer *w, const struct ask *x, const struct leaf *l)
{
    for (const struct subscriber *s = l->subscribers; s; s = s->next)
        if (str_eq(jid_parse_prepared(str_from(s->jid, s->jid_len)).bare, x->who.bare))
            put_subscription(w, leaf_name(l), s);
}

static void put_own_affiliation(struct xml_writer *w, const struct ask *x, const struct leaf *l)
{
    enum affiliation as = x->who.own ? AFFILIATION_OWNER : leaf_affiliation(l, x->who.bare);
    if (as == AFFILIATION_NONE)
        return;
    xml_open(w, "affiliation");
    xml_put_attr(w, "node", leaf_name(l));
    xml_put_attr(w, "affiliation", str_of(affiliation_name(as)));
    xml_close(w, "affiliation");
}

/* Of the leaf that is named, or of all. */
static void answer_own(struct ask *x, const char *name,
                       void (*put)(struct xml_writer *, const struct ask *, const struct leaf *))
{
    struct xml_writer w;
    if (x->node.n && !ask_wants_leaf(x))
        return;
    xml_writer_init(&w, x->arena);
    xml_open(&w, name);
    if (x->node.n)
        put(&w, x, x->leaf);
    else
        htable_each(it, &pubsub_leaves(x->p)->by_name)
            put(&w, x, container_of(it, struct leaf, node));
    xml_close(&w, name);
    ask_result(x, NS_PS, xml_written(&w));
}

void subscriptions_run(struct ask *x) { answer_own(x, "subscriptions", put_own_subscriptions); }
void affiliations_run(struct ask *x) { answer_own(x, "affiliations", put_own_affiliation); }
