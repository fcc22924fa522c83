/* blocked: whom an account has blocked (XEP-0191). What that means is decided where stanzas pass
 * (node/xep/blocking.c); here is the list, for whoever is about to tell somebody something. An
 * account that has blocked nobody has none, and costs nothing. */
#ifndef PEMBERLEY_HOME_BLOCKED_H
#define PEMBERLEY_HOME_BLOCKED_H

#include "node/home/user.h"

/* An immutable set of prepared JIDs. */
struct blocked;

/* Of `of` (NULL: none), and (with true) or but for (false) these JIDs, each followed by a NUL.
 * NULL: nobody is left. */
struct blocked *blocked_new(const struct blocked *of, str jids, bool with);
uint32_t blocked_count(const struct blocked *b); /* b may be NULL */
str blocked_jids(const struct blocked *b);       /* each followed by a NUL, in order of coming */
/* The next of such a list, and the rest of it. */
str blocked_next(str *jids);
/* XEP-0191 6: the JID itself, its bare JID, its domain. */
bool blocked_matches(const struct blocked *b, str jid);

/* The account's; NULL: it has blocked nobody. */
const struct blocked *user_blocked(const struct user *u);
void user_set_blocked(struct user *u, struct blocked *b); /* b is u's; the former one goes */

bool user_blocks_one(const struct user *u, str jid);
/* Is this (prepared) JID blocked? Own resources never are. */
static inline bool user_blocks(const struct user *u, str jid)
{
    return u->extras && user_blocks_one(u, jid);
}

#endif
