/* caps: what the clients of sessions can do (XEP-0115, XEP-0390): above all which events of PEP
 * they want ("…+notify"). What a hash stands for is known once per shard, and in the store for all;
 * it is taken for true only when the hash of the answer is that hash. */
#ifndef PEMBERLEY_CAPS_H
#define PEMBERLEY_CAPS_H

#include "node/home/chain.h"

/* May s be given this event of that leaf? While it is not known, the event is kept for it (and the
 * answer is no). */
bool caps_take(struct session *s, str node, struct stanza *event, struct uid uid, int64_t us);

/* chain.h */
chain_sent_f caps_sent;
chain_shown_f caps_shown;
chain_forgotten_f caps_forgotten;

void caps_sweep(struct home *h); /* once a second: who does not answer is not waited for */
void caps_free(struct home *h);

/* ---- caps_hash.c ---- */

enum { CAPS_KEY_MAX = 160 };
/* What a presence says. */
struct caps_said {
    str key;   /* algorithm and hash; empty: nothing that can be shared */
    str query; /* the node of disco#info to ask for; empty: no caps at all */
};
struct caps_said caps_read(str presence, struct arena *a);
/* Is this the <query/> that the key's hash is of? */
bool caps_verify(str key, const struct xml_el *query, struct arena *a);

#endif
