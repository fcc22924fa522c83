/* XEP-0054: vcard-temp. One vCard per account, kept as it came. Anybody may ask for anybody's;
 * "none" and "no such account" are the same answer (3.3), and take the same way through the store,
 * so that time does not tell them apart either. */
#include "node/conf/conf.h"
#include "node/xep/avatar.h"
#include "node/xep/xep.h"
#include "proto/bus/store.pb-c.h"

static void got(struct iq *kept, err e, const Store__Reply *reply)
{
    if (e == ERR_NOT_FOUND && kept->entity == IQ_OWN_ACCOUNT)
        iq_result(kept, STR("<vCard xmlns='vcard-temp'/>"));
    else if (e == ERR_NOT_FOUND)
        iq_error(kept, ERR_STANZA_SERVICE_UNAVAILABLE);
    else if (e)
        iq_store_error(kept, e);
    else
        iq_result(kept, str_from(reply->xml->xml.data, reply->xml->xml.len));
}

static void submit(struct iq *q, Store__Request *r, iq_store_f *done)
{
    r->owner = (ProtobufCBinaryData){.len = q->asked.n, .data = (uint8_t *)q->asked.p};
    iq_store(q, r, done);
}

static void get(struct iq *q)
{
    Store__VcardGet get = STORE__VCARD_GET__INIT;
    Store__Request r = STORE__REQUEST__INIT;
    r.op_case = STORE__REQUEST__OP_VCARD_GET, r.vcard_get = &get;
    submit(q, &r, got);
}

/* The picture goes its way before the answer, and is seen behind it. */
static void stored(struct iq *kept)
{
    struct xml_el vcard = iq_payload(kept, kept->arena);
    if (kept->session)
        avatar_of_vcard(kept->session->user, &vcard, kept->ticket);
    iq_result(kept, STR_NONE);
}

static void put(struct iq *kept, err e, const Store__Reply *reply)
{
    if (e)
        iq_store_error(kept, e);
    else
        stored(kept);
}

static void set(struct iq *q)
{
    if (q->entity == IQ_OTHER_ACCOUNT) {
        iq_error(q, ERR_STANZA_FORBIDDEN);
        return;
    }
    str xml = xml_standalone(&q->payload, STR("jabber:client"), q->arena);
    if (xml.n > q->node->conf->modules_vcard_size_max) {
        iq_error(q, ERR_STANZA_NOT_ACCEPTABLE);
        return;
    }
    Store__VcardPut put_op = STORE__VCARD_PUT__INIT;
    put_op.xml = (ProtobufCBinaryData){.len = xml.n, .data = (uint8_t *)xml.p};
    Store__Request r = STORE__REQUEST__INIT;
    r.op_case = STORE__REQUEST__OP_VCARD_PUT, r.vcard_put = &put_op;
    submit(q, &r, put);
}

static const struct xep_iq iqs[] = {
    {"vcard-temp", IQ_OWN_ACCOUNT | IQ_OTHER_ACCOUNT, get, set},
    {NULL, 0, NULL, NULL},
};
static const char *const features[] = {"vcard-temp", NULL};
const struct xep xep_vcard = {
    .name = "vcard", .server = features, .account = features, .contact = features, .iqs = iqs};
