/* jwt: JSON Web Tokens (RFC 7519) as a service that knows its users hands them out: signed (RFC
 * 7515) with HS256, RS256 or ES256. What a key is decides what it may verify: the token's own `alg`
 * only has to agree with it. */
#ifndef PEMBERLEY_JWT_H
#define PEMBERLEY_JWT_H

#include "pemberley/arena.h"
#include "pemberley/err.h"
#include "pemberley/str.h"

enum { JWT_KEYS_MAX = 16, JWT_FILE_MAX = 256 * 1024 };

/* Read from a JWKS (RFC 7517: oct, RSA, EC P-256) or public keys in PEM, one behind the other; what
 * is for something else is left out. NULL: there is no key in it. */
struct jwt_keys;
struct jwt_keys *jwt_keys_new(str file);
void jwt_keys_free(struct jwt_keys *k); /* NULL is fine */

/* What a token must say. */
struct jwt_rules {
    const struct jwt_keys *keys;
    str issuer, audience; /* empty: of no matter */
    str user_claim;       /* which names the user: a localpart, or a bare JID */
    int64_t now_s, leeway_s;
};
/* The user as the claim has it, in the arena. ERR_SASL_NOT_AUTHORIZED: it is none of ours;
 * ERR_SASL_CREDENTIALS_EXPIRED: it was. */
nodiscard err jwt_verify(const struct jwt_rules *r, str token, struct arena *a, str *user);

#endif
