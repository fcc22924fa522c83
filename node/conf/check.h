/* check: what no single option can know: whether the options of a draft fit together. */
#ifndef PEMBERLEY_NODE_CONF_CHECK_H
#define PEMBERLEY_NODE_CONF_CHECK_H

#include "node/conf/draft.h"

/* Problems go to the draft. Before conf_draft_build, which calls it. */
void conf_check(struct conf_draft *d);

#endif
