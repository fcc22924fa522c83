/* XEP-0199: XMPP Ping. The server and the own account answer; so does an account for those who may
 * see its presence (a stranger learns nothing from it: xmpp.md 3). */
#include "node/xep/xep.h"

static void get(struct iq *q)
{
    if (q->entity == IQ_OTHER_ACCOUNT && !q->subscribed)
        iq_error(q, ERR_STANZA_SERVICE_UNAVAILABLE);
    else
        iq_result(q, STR_NONE);
}

static const struct xep_iq iqs[] = {
    {"urn:xmpp:ping", IQ_SERVER | IQ_OWN_ACCOUNT | IQ_OTHER_ACCOUNT, get, NULL},
    {NULL, 0, NULL, NULL},
};
static const char *const features[] = {"urn:xmpp:ping", NULL};
const struct xep xep_ping = {
    .name = "ping", .server = features, .account = features, .contact = features, .iqs = iqs};
