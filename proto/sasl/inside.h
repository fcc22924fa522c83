/* inside: what the files of this room say to each other; nobody else includes it. */
#ifndef PEMBERLEY_SASL_INSIDE_H
#define PEMBERLEY_SASL_INSIDE_H

#include "proto/sasl/sasl.h"

/* sasl.c */
bool sasl_is_plus(enum sasl_mechanism m);
struct sasl_answer sasl_fail(struct sasl *s, err reason);
void sasl_reserve(struct sasl *s, size_t n); /* once per attempt, before the first keep */
str sasl_keep(struct sasl *s, str bytes);    /* a copy that lives as long as the attempt */
/* Prepares the name that the client gave to s's bare JID (in the arena); empty when it does not
 * prepare. ERR_SASL_INVALID_AUTHZID when authzid is given and is not that. */
nodiscard err sasl_name(const struct sasl *s, str name, str authzid, struct arena *a, str *user);
/* The keys of somebody who does not exist; id is the bare JID, or the name that did not prepare. */
void sasl_fake_key(struct sasl *s, str id);

/* exchange.c: SCRAM */
struct sasl_answer exchange_first(struct sasl *s, str message, struct arena *a);
struct sasl_answer exchange_keys(struct sasl *s, struct arena *a);
struct sasl_answer exchange_final(struct sasl *s, str message, struct arena *a);

/* bearer.c: OAUTHBEARER */
struct sasl_answer bearer_first(struct sasl *s, str message, struct arena *a);
struct sasl_answer bearer_final(struct sasl *s);

/* token.c: HT-SHA-256-* */
struct sasl_answer token_first(struct sasl *s, str message, struct arena *a);

#endif
