/* scram_client: the client's side of SCRAM, for tests and load generation. Slow (PBKDF2) in
 * scram_client_final. Strings given to it must live as long as it does; what it returns lies in the
 * arena, which must not be reset during the attempt. */
#ifndef PEMBERLEY_SCRAM_CLIENT_H
#define PEMBERLEY_SCRAM_CLIENT_H

#include "proto/sasl/scram.h"

/* What PBKDF2 gave for one password, hash, salt and number of iterations, kept by who logs in again
 * and again (RFC 5802 3 allows that). All zero at first; only ever used with the same password. */
struct scram_salted {
    enum scram_hash hash;
    uint32_t iterations; /* 0: nothing is known yet */
    uint8_t salt_n;
    unsigned char salt[SCRAM_SALT_MAX];
    unsigned char client_key[SCRAM_DIGEST_MAX], server_key[SCRAM_DIGEST_MAX];
};

struct scram_client {
    enum scram_hash hash;
    str user, password; /* prepared; user without host */
    str authzid;        /* empty: none */
    str binding_name;   /* empty: no channel binding */
    str binding_data;
    char flag;                   /* without binding: 'n', or 'y' = could, but saw no -PLUS */
    str nonce;                   /* printable, no comma */
    struct scram_salted *salted; /* looked at and filled by scram_client_final; may be NULL */
    str features_hash; /* XEP-0474: base64 of the hash that is expected; empty: not looked at */
    str gs2, first_bare;
    unsigned char server_signature[SCRAM_DIGEST_MAX];
};

str scram_client_first(struct scram_client *c, struct arena *a);
/* ERR_BAD: the server's message is malformed, its nonce is not ours, or the hash of what it
 * advertised is not the one expected. */
nodiscard err scram_client_final(struct scram_client *c, str server_first, struct arena *a,
                                 str *out);
/* Whether the server has proven that it knows the keys. */
nodiscard bool scram_client_verify(const struct scram_client *c, str server_final);

#endif
