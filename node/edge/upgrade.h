/* upgrade: keys for mechanisms that an account has none for, made with its client's help as it logs
 * in (XEP-0480): an import may have brought only some. */
#ifndef PEMBERLEY_EDGE_UPGRADE_H
#define PEMBERLEY_EDGE_UPGRADE_H

#include "node/edge/sasl2.h"

void upgrade_put_features(const struct conn *c, struct xml_writer *w);
/* The <upgrade/>s of an <authenticate/>. */
void upgrade_read(struct conn *c, const struct xml_el *request);
/* The account's keys, as the store has them, before the login is checked. */
void upgrade_keep_keys(struct negotiation *n, str blob);
/* <continue/> with the next task; false: there is none, the login goes on. */
bool upgrade_next(struct conn *c);
/* <next/>, <task-data/>, of a task that is under way: anything else ends the stream. */
void upgrade_task(struct conn *c, str item, const struct xml_index *x);

#endif
