/* scram: an account's keys (RFC 5802 3, RFC 7677). The server keeps StoredKey and ServerKey of all
 * three hashes for every account, never the password, so that each offered mechanism works for each
 * account. Deriving them is slow on purpose (about 5 ms for the three at 10,000 iterations): on a
 * helper thread or in the CLI, never on the loop. */
#ifndef PEMBERLEY_SCRAM_H
#define PEMBERLEY_SCRAM_H

#include "pemberley/arena.h"
#include "pemberley/entropy.h"
#include "pemberley/err.h"
#include "pemberley/str.h"

enum scram_hash { SCRAM_SHA1, SCRAM_SHA256, SCRAM_SHA512, SCRAM_HASHES };
enum {
    SCRAM_DIGEST_MAX = 64,
    SCRAM_SALT_BYTES = 16, /* of keys made here */
    SCRAM_SALT_MAX = 64,   /* imported accounts bring their own */
    SCRAM_ITERATIONS_MAX = 1000000,
    SCRAM_PASSWORD_MAX = 1023, /* bytes, prepared */
    SCRAM_BLOB_MAX = 1 + SCRAM_HASHES * (6 + SCRAM_SALT_MAX + 2 * SCRAM_DIGEST_MAX),
};

/* One hash's keys. iterations 0: the account has none for this hash (an import that brought only
 * some); a login with it fails like that of an unknown user. */
struct scram_key {
    uint32_t iterations;
    uint8_t salt_n;
    unsigned char salt[SCRAM_SALT_MAX];
    unsigned char stored_key[SCRAM_DIGEST_MAX]; /* scram_hash_size() bytes of these two */
    unsigned char server_key[SCRAM_DIGEST_MAX];
};
struct scram_keys {
    struct scram_key of[SCRAM_HASHES];
};

size_t scram_hash_size(enum scram_hash h);
const char *scram_hash_name(enum scram_hash h); /* "SHA-256" as in RFC 7677 */

/* A new password as a user or an operator gave it: OpaqueString (RFC 8265 4), at least
 * characters_min characters. ERR_STANZA_NOT_ACCEPTABLE. What comes out is what is derived from. */
nodiscard err scram_password_prepare(str raw, size_t characters_min, struct arena *a, str *out);

/* Derives one hash's keys of a prepared password; salt 1..SCRAM_SALT_MAX bytes, iterations
 * 1..SCRAM_ITERATIONS_MAX (must). Slow. */
void scram_derive(str password, enum scram_hash h, str salt, uint32_t iterations,
                  struct scram_key *out);
/* The same of SaltedPassword, which somebody else has derived. Quick. */
void scram_key_of(str salted, enum scram_hash h, str salt, uint32_t iterations,
                  struct scram_key *out);
/* All three with fresh salts of SCRAM_SALT_BYTES. Slow. */
void scram_keys_make(str password, uint32_t iterations, struct entropy *e, struct scram_keys *out);

/* The store's form, versioned: returns the bytes written. decode: ERR_BAD. */
size_t scram_keys_encode(const struct scram_keys *keys, unsigned char out[SCRAM_BLOB_MAX]);
nodiscard err scram_keys_decode(str blob, struct scram_keys *out);

/* What both sides compute with: H(parts…) and HMAC(key, parts…), scram_hash_size(h) bytes each. */
void scram_digest(enum scram_hash h, const str *parts, size_t n, unsigned char *out);
void scram_hmac(enum scram_hash h, str key, const str *parts, size_t n, unsigned char *out);
bool scram_equal(const void *a, const void *b, size_t n); /* in constant time */
void scram_wipe(void *p, size_t n); /* overwrites secrets so that no optimiser leaves it out */

#endif
