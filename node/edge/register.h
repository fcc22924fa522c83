/* register: a new account before login (XEP-0077 3.1), for hosts with registration = open. */
#ifndef PEMBERLEY_EDGE_REGISTER_H
#define PEMBERLEY_EDGE_REGISTER_H

#include "node/edge/stream.h"

/* An iq whose only listed child is in jabber:iq:register. */
void register_iq(struct conn *c, str item, const struct xml_index *x);

#endif
