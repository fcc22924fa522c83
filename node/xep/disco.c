/* XEP-0030: Service Discovery. A feature is listed exactly when its extension is active for the
 * host (xmpp.md 8); what an account shows depends on who asks, and a stranger gets the same answers
 * whether the account exists or not (xmpp.md 3, XEP-0030 8). */
#include "node/conf/conf.h"
#include "node/home/user.h"
#include "node/xep/xep.h"

static void put_identity(struct xml_writer *w, const char *category, const char *type,
                         const char *name)
{
    xml_open(w, "identity");
    xml_put_attr(w, "category", str_of(category));
    xml_put_attr(w, "type", str_of(type));
    if (name)
        xml_put_attr(w, "name", str_of(name));
    xml_close(w, "identity");
}

static void put_feature(struct xml_writer *w, const char *feature)
{
    xml_open(w, "feature");
    xml_put_attr(w, "var", str_of(feature));
    xml_close(w, "feature");
}

static const char *const *features_for(const struct xep *x, const struct iq *q)
{
    if (q->entity == IQ_SERVER)
        return x->server;
    return q->entity == IQ_OWN_ACCOUNT ? x->account : x->contact;
}

static void put_features(struct xml_writer *w, const struct iq *q)
{
    for (size_t i = 0; xeps[i]; i++) {
        const char *const *f = features_for(xeps[i], q);
        if (f && xep_active(xeps[i], q->node->conf, q->host))
            for (; *f; f++)
                put_feature(w, *f);
    }
    if (q->entity == IQ_SERVER)
        put_feature(w, "msgoffline"); /* XEP-0160 */
}

static void put_forms(struct xml_writer *w, const struct iq *q)
{
    for (size_t i = 0; xeps[i]; i++)
        if (xeps[i]->info && xep_active(xeps[i], q->node->conf, q->host))
            xeps[i]->info(q, w);
}

static void put_identities(struct xml_writer *w, const struct iq *q)
{
    if (q->entity == IQ_SERVER)
        put_identity(w, "server", "im", "Pemberley");
    else
        put_identity(w, "account", q->user->anonymous ? "anonymous" : "registered", NULL);
}

/* May this one see anything here at all? */
static bool is_stranger(const struct iq *q)
{
    return q->entity == IQ_OTHER_ACCOUNT && (!q->user || !q->subscribed);
}

/* A request about a node is its extension's. False: it names none. */
static bool answer_node(struct iq *q, bool items)
{
    str node = xml_attr(&q->payload, "node", q->arena);
    if (!node.n)
        return false;
    for (size_t i = 0; xeps[i]; i++)
        if (xeps[i]->disco_node && xep_active(xeps[i], q->node->conf, q->host) &&
            xeps[i]->disco_node(q, node, items))
            return true;
    iq_error(q, ERR_STANZA_ITEM_NOT_FOUND);
    return true;
}

/* What is listed without a node. False: nobody has anything to list. */
static bool answer_items(struct iq *q)
{
    for (size_t i = 0; xeps[i]; i++)
        if (xeps[i]->disco_node && xep_active(xeps[i], q->node->conf, q->host) &&
            xeps[i]->disco_node(q, STR_NONE, true))
            return true;
    return false;
}

static void get_info(struct iq *q)
{
    if (is_stranger(q)) {
        iq_error(q, ERR_STANZA_SERVICE_UNAVAILABLE);
        return;
    }
    if (answer_node(q, false))
        return;
    struct xml_writer w;
    xml_writer_init(&w, q->arena);
    xml_open_ns(&w, "query", "http://jabber.org/protocol/disco#info");
    put_identities(&w, q);
    put_features(&w, q);
    put_forms(&w, q);
    xml_close(&w, "query");
    iq_result(q, xml_written(&w));
}

/* A stranger sees the same whether the account exists or not: an empty list. */
static void get_items(struct iq *q)
{
    if (is_stranger(q) || (!answer_node(q, true) && !answer_items(q)))
        iq_result(q, STR("<query xmlns='http://jabber.org/protocol/disco#items'/>"));
}

static const struct xep_iq iqs[] = {
    {"http://jabber.org/protocol/disco#info", IQ_SERVER | IQ_OWN_ACCOUNT | IQ_OTHER_ACCOUNT,
     get_info, NULL},
    {"http://jabber.org/protocol/disco#items", IQ_SERVER | IQ_OWN_ACCOUNT | IQ_OTHER_ACCOUNT,
     get_items, NULL},
    {NULL, 0, NULL, NULL},
};
static const char *const features[] = {"http://jabber.org/protocol/disco#info",
                                       "http://jabber.org/protocol/disco#items", NULL};
const struct xep xep_disco = {
    .name = "disco", .server = features, .account = features, .contact = features, .iqs = iqs};
