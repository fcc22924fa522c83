/* page: the status page (operator.md 10): one self-contained file, read only, no JID and no
 * address. What changes is rendered here and nowhere else: whole for the first look and for
 * browsers without script, and as a fragment ("/?live") that the page's script puts in place every
 * two seconds. */
#ifndef PEMBERLEY_NODE_SUPER_PAGE_H
#define PEMBERLEY_NODE_SUPER_PAGE_H

#include "node/super/http.h"

struct http_answer page(const struct super *s, bool only_live, struct arena *a);

#endif
