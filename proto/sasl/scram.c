#include "proto/sasl/scram.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/mem.h>

#include "proto/base/utf8.h"
#include "proto/xmpp/precis.h"

_Static_assert((int)SCRAM_PASSWORD_MAX == (int)PRECIS_MAX, "a prepared password fits");

static const struct {
    const char *name;
    size_t size;
    const EVP_MD *(*md)(void);
} hashes[SCRAM_HASHES] = {
    [SCRAM_SHA1] = {"SHA-1", 20, EVP_sha1},
    [SCRAM_SHA256] = {"SHA-256", 32, EVP_sha256},
    [SCRAM_SHA512] = {"SHA-512", 64, EVP_sha512},
};

size_t scram_hash_size(enum scram_hash h) { return hashes[h].size; }
const char *scram_hash_name(enum scram_hash h) { return hashes[h].name; }
void scram_wipe(void *p, size_t n) { OPENSSL_cleanse(p, n); }
bool scram_equal(const void *a, const void *b, size_t n) { return CRYPTO_memcmp(a, b, n) == 0; }

/* libcrypto fails in these only without memory, which ends a process everywhere else too. */
void scram_digest(enum scram_hash h, const str *parts, size_t n, unsigned char *out)
{
    EVP_MD_CTX c;
    EVP_MD_CTX_init(&c);
    must(EVP_DigestInit_ex(&c, hashes[h].md(), NULL));
    for (size_t i = 0; i < n; i++)
        must(EVP_DigestUpdate(&c, parts[i].p, parts[i].n));
    must(EVP_DigestFinal_ex(&c, out, NULL));
    EVP_MD_CTX_cleanup(&c);
}

void scram_hmac(enum scram_hash h, str key, const str *parts, size_t n, unsigned char *out)
{
    HMAC_CTX c;
    HMAC_CTX_init(&c);
    must(HMAC_Init_ex(&c, key.p ? key.p : "", key.n, hashes[h].md(), NULL));
    for (size_t i = 0; i < n; i++)
        must(HMAC_Update(&c, (const unsigned char *)parts[i].p, parts[i].n));
    must(HMAC_Final(&c, out, NULL));
    HMAC_CTX_cleanup(&c);
}

err scram_password_prepare(str raw, size_t characters_min, struct arena *a, str *out)
{
    str s;
    if (precis_opaque(raw, a, &s) || utf8_count(s) < characters_min)
        return ERR_STANZA_NOT_ACCEPTABLE;
    *out = s;
    return ERR_OK;
}

void scram_key_of(str salted, enum scram_hash h, str salt, uint32_t iterations,
                  struct scram_key *out)
{
    size_t size = hashes[h].size;
    unsigned char client_key[SCRAM_DIGEST_MAX];
    must(salted.n == size && salt.n > 0 && salt.n <= SCRAM_SALT_MAX);
    *out = (struct scram_key){.iterations = iterations, .salt_n = (uint8_t)salt.n};
    memcpy(out->salt, salt.p, salt.n);
    scram_hmac(h, salted, &STR("Client Key"), 1, client_key);
    scram_digest(h, &(str){(char *)client_key, size}, 1, out->stored_key);
    scram_hmac(h, salted, &STR("Server Key"), 1, out->server_key);
    scram_wipe(client_key, sizeof client_key);
}

void scram_derive(str password, enum scram_hash h, str salt, uint32_t iterations,
                  struct scram_key *out)
{
    must(salt.n > 0 && salt.n <= SCRAM_SALT_MAX);
    must(iterations > 0 && iterations <= SCRAM_ITERATIONS_MAX);
    size_t size = hashes[h].size;
    unsigned char salted[SCRAM_DIGEST_MAX];
    must(PKCS5_PBKDF2_HMAC(password.p, password.n, (const unsigned char *)salt.p, salt.n,
                           iterations, hashes[h].md(), size, salted));
    scram_key_of(str_from(salted, size), h, salt, iterations, out);
    scram_wipe(salted, sizeof salted);
}

void scram_keys_make(str password, uint32_t iterations, struct entropy *e, struct scram_keys *out)
{
    for (int h = 0; h < SCRAM_HASHES; h++) {
        char salt[SCRAM_SALT_BYTES];
        entropy_fill(e, salt, sizeof salt);
        scram_derive(password, (enum scram_hash)h, str_from(salt, sizeof salt), iterations,
                     &out->of[h]);
    }
}

/* ---- the store's form: 1, then for each hash that is there:
 *      hash u8 | iterations u32 big-endian | salt_n u8 | salt | stored_key | server_key ---- */

enum { BLOB_VERSION = 1, BLOB_HEAD = 6 };

size_t scram_keys_encode(const struct scram_keys *keys, unsigned char out[SCRAM_BLOB_MAX])
{
    unsigned char *at = out;
    *at++ = BLOB_VERSION;
    for (unsigned h = 0; h < SCRAM_HASHES; h++) {
        const struct scram_key *k = &keys->of[h];
        size_t size = hashes[h].size;
        if (k->iterations == 0)
            continue;
        must(k->salt_n > 0 && k->salt_n <= SCRAM_SALT_MAX);
        unsigned char head[BLOB_HEAD] = {
            (unsigned char)h,
            (unsigned char)(k->iterations >> 24),
            (unsigned char)(k->iterations >> 16),
            (unsigned char)(k->iterations >> 8),
            (unsigned char)k->iterations,
            k->salt_n,
        };
        at = mempcpy(at, head, sizeof head);
        at = mempcpy(at, k->salt, k->salt_n);
        at = mempcpy(at, k->stored_key, size);
        at = mempcpy(at, k->server_key, size);
    }
    return (size_t)(at - out);
}

static err decode_key(str *rest, struct scram_keys *out)
{
    const unsigned char *p = (const unsigned char *)rest->p;
    if (rest->n < BLOB_HEAD || p[0] >= SCRAM_HASHES)
        return ERR_BAD;
    struct scram_key *k = &out->of[p[0]];
    size_t size = hashes[p[0]].size, salt_n = p[5];
    uint32_t iterations =
        (uint32_t)p[1] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 8 | (uint32_t)p[4];
    if (k->iterations || iterations == 0 || iterations > SCRAM_ITERATIONS_MAX || salt_n == 0 ||
        salt_n > SCRAM_SALT_MAX || rest->n < BLOB_HEAD + salt_n + 2 * size)
        return ERR_BAD;
    k->iterations = iterations, k->salt_n = (uint8_t)salt_n;
    memcpy(k->salt, p + BLOB_HEAD, salt_n);
    memcpy(k->stored_key, p + BLOB_HEAD + salt_n, size);
    memcpy(k->server_key, p + BLOB_HEAD + salt_n + size, size);
    *rest = str_skip(*rest, BLOB_HEAD + salt_n + 2 * size);
    return ERR_OK;
}

err scram_keys_decode(str blob, struct scram_keys *out)
{
    *out = (struct scram_keys){0};
    if (blob.n == 0 || blob.p[0] != BLOB_VERSION)
        return ERR_BAD;
    for (str rest = str_skip(blob, 1); rest.n;) {
        err e = decode_key(&rest, out);
        if (e)
            return e;
    }
    return ERR_OK;
}
