/* archive: message archives (XEP-0313), with stanza ids (0359), preferences (0441) and tombstones
 * (0424); what its files share, and what others may ask.
 *
 *   archive.c          a message's way into the archive, at the homes of both sides
 *   archive_query.c    pages, metadata, the form
 *   archive_prefs.c    whose messages are archived
 *   archive_retract.c  a message that its author takes back
 *
 * An id is a keyed hash of owner, uid and stanza: unpredictable, and the same whenever and wherever
 * the stanza is handled again. The order is the store's, in which the home has handed the messages
 * over. */
#ifndef PEMBERLEY_XEP_ARCHIVE_H
#define PEMBERLEY_XEP_ARCHIVE_H

#include "node/home/inside.h"
#include "node/xep/xep.h"

enum { ARCHIVE_ID_BYTES = 16, ARCHIVE_ID_TEXT = 32 };

/* A JID's resource, and a message's id as its author gave it, as rows have them; 0: none. */
uint64_t archive_resource_hash(str resource);
uint64_t archive_message_hash(str id, bool sent);
/* The id that a client names; false: it is none of ours. */
bool archive_id_of_text(str text, unsigned char id[ARCHIVE_ID_BYTES]);
str archive_id_text(str id, struct arena *a);

/* Are messages with this one archived, as the account and its host want it? */
bool archive_wants_contact(const struct user *u, const struct jid *contact);

/* It was archived for u just now. Its effects are those of t. */
void archive_retract(struct user *u, struct stanza *s, const struct jid *contact, bool sent,
                     int64_t us, struct ticket *t);

/* Queries that wait for room in the session's queue: it has become shorter; it has ended. */
void archive_more(struct session *s);
void archive_session_ended(struct session *s);

/* <metadata/> of this moment (XEP-0313 5, XEP-0386): done once, later; empty: the store does not
 * answer. */
typedef void archive_metadata_f(void *ctx, str xml);
void archive_metadata(struct user *u, archive_metadata_f *done, void *ctx);

/* XEP-0441 */
void archive_get_prefs(struct iq *q);
void archive_set_prefs(struct iq *q);
/* XEP-0313 4, 5 */
void archive_get(struct iq *q);
void archive_query(struct iq *q);

#endif
