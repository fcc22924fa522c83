/* sid: the ids that archives give to stanzas (XEP-0359). One that an archive's owner has not given
 * must not stand there in his name (5, 6: business rules), in whatever spelling. */
#ifndef PEMBERLEY_SID_H
#define PEMBERLEY_SID_H

#include "proto/xmpp/stanza.h"

/* s without each <stanza-id/> whose `by` prepares to this bare JID, and, unless id is empty, with
 * ours as the last child. NULL: s is that already. *kept (may be NULL): its XML without ours, as it
 * is archived; a view into s or the arena. */
struct stanza *sid_put(const struct stanza *s, str by, str id, struct arena *a, str *kept);
/* The id that it has by this bare JID; empty: none. */
str sid_find(const struct stanza *s, str by, struct arena *a);
/* The XML of a stanza that has children, with that id as its last child. */
str sid_into(str xml, str by, str id, struct arena *a);

#endif
