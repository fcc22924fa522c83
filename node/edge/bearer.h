/* bearer: OAUTHBEARER's surroundings: the keys of auth.jwt, and the account of whom they vouch for,
 * which is made with his first login: it has no password, so nothing but a token opens it. */
#ifndef PEMBERLEY_EDGE_BEARER_H
#define PEMBERLEY_EDGE_BEARER_H

#include "node/edge/stream.h"

/* (Re)reads auth.jwt.keys_file; a file that cannot be read leaves the keys as they are. */
void bearer_load(struct edge *e);
/* What tokens must say now. */
void bearer_rules(struct edge *e, struct jwt_rules *out);
/* The account of the attempt's user; then auth_answer. */
void bearer_fetch(struct conn *c);

#endif
