/* kept: what the server has not acknowledged yet (XEP-0198 4), to be sent again when the session is
 * resumed. It is asked for an acknowledgement once per turn, while none is open. */
#include <stdlib.h>

#include "bench/load/client.h"

struct kept {
    struct list link;
    size_t n;
    char xml[];
};

static void drop_first(struct client *c)
{
    struct kept *k = list_first(&c->kept, struct kept, link);
    list_remove(&k->link);
    free(k);
}

void kept_put(struct client *c, str stanza)
{
    struct kept *k = malloc(sizeof *k + stanza.n);
    must(k);
    k->n = stanza.n;
    memcpy(k->xml, stanza.p, stanza.n);
    list_push_back(&c->kept, &k->link);
}

void kept_ask(struct client *c)
{
    if (c->asked || !c->enabled || list_empty(&c->kept) || c->step != CLIENT_READY)
        return;
    c->asked = true;
    client_put(c, STR("<r xmlns='urn:xmpp:sm:3'/>"));
}

void kept_acked(struct client *c, uint32_t h)
{
    bool some = !list_empty(&c->kept);
    c->asked = false;
    while (c->acked != h && !list_empty(&c->kept)) {
        drop_first(c);
        c->acked++;
    }
    if (c->acked != h)
        return client_fail(c, "acknowledged more than was sent");
    if (some && list_empty(&c->kept) && c->rig->calls->acked)
        c->rig->calls->acked(c);
    kept_ask(c);
}

void kept_again(struct client *c)
{
    list_each(k, &c->kept, struct kept, link)
        client_put(c, str_from(k->xml, k->n));
    kept_ask(c);
}

void kept_drop(struct client *c)
{
    while (!list_empty(&c->kept))
        drop_first(c);
    c->acked = 0, c->asked = false;
}
