/* XEP-0163: the personal eventing of accounts; what it does is in node/pubsub. */
#include "node/pubsub/pubsub.h"
#include "node/xep/xep.h"

static const struct xep_iq iqs[] = {
    {NS_PS, IQ_OWN_ACCOUNT | IQ_OTHER_ACCOUNT, pubsub_iq, pubsub_iq},
    {NS_PS_OWNER, IQ_OWN_ACCOUNT | IQ_OTHER_ACCOUNT, pubsub_iq, pubsub_iq},
    {NULL, 0, NULL, NULL},
};

static void info(const struct iq *q, struct xml_writer *w)
{
    if (q->entity != IQ_SERVER)
        xml_put_raw(w, STR("<identity category='pubsub' type='pep'/>"));
}

static bool disco_node(struct iq *q, str node, bool items) { return pubsub_disco(q, items); }

static const char *const features[] = {NS_PS,
                                       NS_PS "#access-authorize",
                                       NS_PS "#access-open",
                                       NS_PS "#access-presence",
                                       NS_PS "#access-roster",
                                       NS_PS "#access-whitelist",
                                       NS_PS "#auto-create",
                                       NS_PS "#auto-subscribe",
                                       NS_PS "#config-node",
                                       NS_PS "#config-node-max",
                                       NS_PS "#create-and-configure",
                                       NS_PS "#create-nodes",
                                       NS_PS "#delete-items",
                                       NS_PS "#delete-nodes",
                                       NS_PS "#filtered-notifications",
                                       NS_PS "#item-ids",
                                       NS_PS "#last-published",
                                       NS_PS "#manage-subscriptions",
                                       NS_PS "#member-affiliation",
                                       NS_PS "#meta-data",
                                       NS_PS "#modify-affiliations",
                                       NS_PS "#multi-items",
                                       NS_PS "#outcast-affiliation",
                                       NS_PS "#persistent-items",
                                       NS_PS "#presence-notifications",
                                       NS_PS "#presence-subscribe",
                                       NS_PS "#publish",
                                       NS_PS "#publish-only-affiliation",
                                       NS_PS "#publish-options",
                                       NS_PS "#publisher-affiliation",
                                       NS_PS "#purge-nodes",
                                       NS_PS "#retract-items",
                                       NS_PS "#retrieve-affiliations",
                                       NS_PS "#retrieve-default",
                                       NS_PS "#retrieve-items",
                                       NS_PS "#retrieve-subscriptions",
                                       NS_PS "#rsm",
                                       NS_PS "#subscribe",
                                       NS_PS "#subscription-options",
                                       NULL};
const struct xep xep_pep = {.name = "pep",
                            .account = features,
                            .contact = features,
                            .info = info,
                            .disco_node = disco_node,
                            .iqs = iqs};
