/* bookmarks: XEP-0402 is the truth; what XEP-0049 keeps of XEP-0048 is a view of it. */
#ifndef PEMBERLEY_BOOKMARKS_H
#define PEMBERLEY_BOOKMARKS_H

#include "node/home/iq.h"

/* Is this private XML the bookmarks', of an account where they are one with PEP's? */
bool bookmarks_are(const struct iq *q, const struct xml_el *entry);
/* Answers a kept request: stored is what private XML has (empty: nothing). */
void bookmarks_get(struct iq *kept, str stored);
/* The same for one that has been stored. */
void bookmarks_set(struct iq *kept);

#endif
