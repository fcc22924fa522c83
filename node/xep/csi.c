/* XEP-0352: Client State Indication. The edge hears it and shows the stream feature, the home holds
 * back (node/home/inactive.c); here it is said to be there. */
#include "node/home/inside.h"
#include "node/xep/xep.h"

chain_bound_f csi_bound;

/* XEP-0386 4.3: a client may be inactive from the start. */
void csi_bound(struct session *s, struct binding *b)
{
    struct xml_el inactive;
    if (xml_find(&b->bind, "urn:xmpp:csi:0", "inactive", &inactive, home_arena(s->user->home)))
        s->inactive = true;
}

const struct xep xep_csi = {.name = "csi"};
