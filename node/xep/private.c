/* XEP-0049: Private XML Storage, of the own account only. The key of an entry is the namespace and
 * the name of its element. */
#include "node/conf/conf.h"
#include "node/xep/bookmarks.h"
#include "node/xep/xep.h"
#include "proto/bus/store.pb-c.h"

/* The only child, in a namespace of its own; NULL-named otherwise. */
static bool entry(struct xml_el *query, struct xml_el *out, struct arena *a)
{
    struct xml_el next;
    if (!xml_first(query, out, a))
        return false;
    next = *out;
    return !xml_next(query, &next, a) && out->ns.n && !str_is(out->ns, "jabber:iq:private") &&
           !str_is(out->ns, "jabber:client");
}

static str key_of(const struct xml_el *e, struct arena *a)
{
    return arena_concat(a, (str[]){e->name, STR(" "), e->ns}, 3);
}

static void submit(struct iq *q, Store__Request *r, iq_store_f *done)
{
    r->owner = (ProtobufCBinaryData){.len = q->asker.bare.n, .data = (uint8_t *)q->asker.bare.p};
    iq_store(q, r, done);
}

static void answer_with(struct iq *q, str inner)
{
    str query = arena_concat(
        q->arena, (str[]){STR("<query xmlns='jabber:iq:private'>"), inner, STR("</query>")}, 3);
    iq_result(q, query);
}

/* What was never stored comes back empty, as the client asked for it (2.3). */
static void got(struct iq *kept, err e, const Store__Reply *reply)
{
    struct xml_el query = iq_payload(kept, kept->arena), asked;
    bool any = entry(&query, &asked, kept->arena);
    if (e && e != ERR_NOT_FOUND)
        iq_store_error(kept, e);
    else if (any && bookmarks_are(kept, &asked))
        bookmarks_get(kept, e ? STR_NONE : str_from(reply->xml->xml.data, reply->xml->xml.len));
    else if (!e)
        answer_with(kept, str_from(reply->xml->xml.data, reply->xml->xml.len));
    else if (any)
        answer_with(kept, xml_standalone(&asked, STR("jabber:iq:private"), kept->arena));
}

static void get(struct iq *q)
{
    struct xml_el asked;
    if (q->entity == IQ_OTHER_ACCOUNT) {
        iq_error(q, ERR_STANZA_FORBIDDEN);
        return;
    }
    if (!entry(&q->payload, &asked, q->arena)) {
        iq_error(q, ERR_STANZA_BAD_REQUEST);
        return;
    }
    str key = key_of(&asked, q->arena);
    Store__PrivateGet get_op = STORE__PRIVATE_GET__INIT;
    get_op.key = (ProtobufCBinaryData){.len = key.n, .data = (uint8_t *)key.p};
    Store__Request r = STORE__REQUEST__INIT;
    r.op_case = STORE__REQUEST__OP_PRIVATE_GET, r.private_get = &get_op;
    submit(q, &r, got);
}

static void put(struct iq *kept, err e, const Store__Reply *reply)
{
    struct xml_el query = iq_payload(kept, kept->arena), given;
    if (e == ERR_FULL &&
        reply) /* over modules.private.size_max; without a reply: the store's queue */
        iq_error(kept, ERR_STANZA_NOT_ACCEPTABLE);
    else if (e)
        iq_store_error(kept, e);
    else if (entry(&query, &given, kept->arena) && bookmarks_are(kept, &given))
        bookmarks_set(kept);
    else
        iq_result(kept, STR_NONE);
}

static void set(struct iq *q)
{
    struct xml_el given;
    if (q->entity == IQ_OTHER_ACCOUNT) {
        iq_error(q, ERR_STANZA_FORBIDDEN);
        return;
    }
    if (!entry(&q->payload, &given, q->arena)) {
        iq_error(q, ERR_STANZA_NOT_ACCEPTABLE);
        return;
    }
    str key = key_of(&given, q->arena);
    str xml = xml_standalone(&given, STR("jabber:iq:private"), q->arena);
    Store__PrivatePut put_op = STORE__PRIVATE_PUT__INIT;
    put_op.key = (ProtobufCBinaryData){.len = key.n, .data = (uint8_t *)key.p};
    put_op.xml = (ProtobufCBinaryData){.len = xml.n, .data = (uint8_t *)xml.p};
    put_op.size_max = q->node->conf->modules_private_size_max;
    Store__Request r = STORE__REQUEST__INIT;
    r.op_case = STORE__REQUEST__OP_PRIVATE_PUT, r.private_put = &put_op;
    submit(q, &r, put);
}

static const struct xep_iq iqs[] = {
    {"jabber:iq:private", IQ_OWN_ACCOUNT | IQ_OTHER_ACCOUNT, get, set},
    {NULL, 0, NULL, NULL},
};
static const char *const features[] = {"jabber:iq:private", NULL};
const struct xep xep_private = {.name = "private", .server = features, .iqs = iqs};
