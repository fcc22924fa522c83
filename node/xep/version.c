/* XEP-0092: Software Version. The operating system is not told: it helps attackers only. */
#include "node/xep/xep.h"

static void get(struct iq *q)
{
    iq_result(q, STR("<query xmlns='jabber:iq:version'><name>Pemberley</name>"
                     "<version>" PEMBERLEY_VERSION "</version></query>"));
}

static const struct xep_iq iqs[] = {
    {"jabber:iq:version", IQ_SERVER, get, NULL},
    {NULL, 0, NULL, NULL},
};
static const char *const features[] = {"jabber:iq:version", NULL};
const struct xep xep_version = {.name = "version", .server = features, .iqs = iqs};
