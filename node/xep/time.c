/* XEP-0202: Entity Time, in UTC. */
#include "node/xep/xep.h"

static void get(struct iq *q)
{
    if (q->entity == IQ_OTHER_ACCOUNT && !q->subscribed) {
        iq_error(q, ERR_STANZA_SERVICE_UNAVAILABLE);
        return;
    }
    struct xml_writer w;
    xml_writer_init(&w, q->arena);
    xml_open_ns(&w, "time", "urn:xmpp:time");
    xml_put_leaf(&w, "tzo", NULL, STR("+00:00"));
    xml_put_leaf(&w, "utc", NULL, stanza_stamp(clock_wall_us(q->node->clock), q->arena));
    xml_close(&w, "time");
    iq_result(q, xml_written(&w));
}

static const struct xep_iq iqs[] = {
    {"urn:xmpp:time", IQ_SERVER | IQ_OWN_ACCOUNT | IQ_OTHER_ACCOUNT, get, NULL},
    {NULL, 0, NULL, NULL},
};
static const char *const features[] = {"urn:xmpp:time", NULL};
const struct xep xep_time = {
    .name = "time", .server = features, .account = features, .contact = features, .iqs = iqs};
