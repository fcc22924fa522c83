/* avatar: one picture, whichever way it was set (XEP-0398): PEP (XEP-0084) is the truth, the
 * vCard's PHOTO (XEP-0054) follows, and so does the hash in presence (XEP-0153). */
#ifndef PEMBERLEY_AVATAR_H
#define PEMBERLEY_AVATAR_H

#include "node/home/chain.h"
#include "node/pubsub/pubsub.h"

/* An item was published at, or (payload empty) retracted from, a leaf of u. */
void avatar_published(struct user *u, str node, str id, str payload, const struct cause *c);
/* The account's vCard is this now. */
void avatar_of_vcard(struct user *u, const struct xml_el *vcard, struct ticket *t);

chain_sent_f avatar_sent;
chain_loaded_f avatar_loaded;
chain_forgotten_f avatar_forgotten;

#endif
