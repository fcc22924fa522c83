#include "proto/sasl/scram_client.h"

#include <openssl/evp.h>

#include "proto/base/base64.h"

static str saslname_encode(str in, struct arena *a)
{
    char *p = arena_alloc(a, 3 * in.n + 1);
    size_t n = 0;
    for (size_t i = 0; i < in.n; i++) {
        if (in.p[i] != ',' && in.p[i] != '=') {
            p[n++] = in.p[i];
            continue;
        }
        memcpy(p + n, in.p[i] == ',' ? "=2C" : "=3D", 3);
        n += 3;
    }
    return (str){p, n};
}

str scram_client_first(struct scram_client *c, struct arena *a)
{
    str authzid = saslname_encode(c->authzid, a), user = saslname_encode(c->user, a);
    str flag = c->binding_name.n ? arena_printf(a, "p=%.*s", STR_ARG(c->binding_name))
                                 : arena_printf(a, "%c", c->flag ? c->flag : 'n');
    c->gs2 =
        arena_printf(a, "%.*s,%s%.*s,", STR_ARG(flag), authzid.n ? "a=" : "", STR_ARG(authzid));
    c->first_bare = arena_printf(a, "n=%.*s,r=%.*s", STR_ARG(user), STR_ARG(c->nonce));
    str parts[] = {c->gs2, c->first_bare};
    return arena_concat(a, parts, array_len(parts));
}

/* The value of an attribute of a server's message; false when it is not there. */
static bool find(str message, char name, str *out)
{
    while (message.n) {
        const char *comma = memchr(message.p, ',', message.n);
        str x = {message.p, comma ? (size_t)(comma - message.p) : message.n};
        message = str_skip(message, x.n + (comma ? 1 : 0));
        if (x.n > 2 && x.p[0] == name && x.p[1] == '=') {
            *out = str_skip(x, 2);
            return true;
        }
    }
    return false;
}

static bool iterations_of(str text, uint32_t *out)
{
    uint32_t n = 0;
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] < '0' || text.p[i] > '9' || n > SCRAM_ITERATIONS_MAX)
            return false;
        n = n * 10 + (uint32_t)(text.p[i] - '0');
    }
    *out = n;
    return n > 0 && n <= SCRAM_ITERATIONS_MAX;
}

/* ClientKey and ServerKey of the password (RFC 5802 3). */
static void derive(const struct scram_client *c, str salt, uint32_t iterations,
                   unsigned char *client_key, unsigned char *server_key)
{
    static const EVP_MD *(*const md[])(void) = {EVP_sha1, EVP_sha256, EVP_sha512};
    size_t size = scram_hash_size(c->hash);
    unsigned char salted[SCRAM_DIGEST_MAX];
    must(PKCS5_PBKDF2_HMAC(c->password.p, c->password.n, (const unsigned char *)salt.p, salt.n,
                           iterations, md[c->hash](), size, salted));
    scram_hmac(c->hash, str_from(salted, size), &STR("Client Key"), 1, client_key);
    scram_hmac(c->hash, str_from(salted, size), &STR("Server Key"), 1, server_key);
}

static bool is_known(const struct scram_client *c, str salt, uint32_t iterations)
{
    const struct scram_salted *k = c->salted;
    return k && k->iterations == iterations && k->hash == c->hash &&
           str_eq(salt, str_from(k->salt, k->salt_n));
}

static void keys_of(const struct scram_client *c, str salt, uint32_t iterations,
                    unsigned char *client_key, unsigned char *server_key)
{
    struct scram_salted *k = c->salted;
    if (!k) {
        derive(c, salt, iterations, client_key, server_key);
        return;
    }
    if (!is_known(c, salt, iterations)) {
        k->hash = c->hash, k->iterations = iterations, k->salt_n = (uint8_t)salt.n;
        memcpy(k->salt, salt.p, salt.n);
        derive(c, salt, iterations, k->client_key, k->server_key);
    }
    memcpy(client_key, k->client_key, sizeof k->client_key);
    memcpy(server_key, k->server_key, sizeof k->server_key);
}

err scram_client_final(struct scram_client *c, str server_first, struct arena *a, str *out)
{
    str nonce, salt_text, iterations_text, salt, features;
    uint32_t iterations;
    if (!find(server_first, 'r', &nonce) || !str_starts(nonce, c->nonce) || nonce.n == c->nonce.n ||
        !find(server_first, 's', &salt_text) || base64_decode_in(a, salt_text, &salt) ||
        salt.n > SCRAM_SALT_MAX || !find(server_first, 'i', &iterations_text) ||
        !iterations_of(iterations_text, &iterations))
        return ERR_BAD;
    if (c->features_hash.n && find(server_first, 'h', &features) &&
        !str_eq(features, c->features_hash))
        return ERR_BAD;
    size_t size = scram_hash_size(c->hash);
    unsigned char key[SCRAM_DIGEST_MAX], server_key[SCRAM_DIGEST_MAX], stored[SCRAM_DIGEST_MAX];
    unsigned char signature[SCRAM_DIGEST_MAX];
    keys_of(c, salt, iterations, key, server_key);
    scram_digest(c->hash, &(str){(char *)key, size}, 1, stored);
    str cbind[] = {c->gs2, c->binding_data};
    str without_proof = arena_printf(
        a, "c=%.*s,r=%.*s", STR_ARG(base64_encode_in(a, arena_concat(a, cbind, array_len(cbind)))),
        STR_ARG(nonce));
    str auth[] = {c->first_bare, STR(","), server_first, STR(","), without_proof};
    scram_hmac(c->hash, str_from(stored, size), auth, array_len(auth), signature);
    scram_hmac(c->hash, str_from(server_key, size), auth, array_len(auth), c->server_signature);
    for (size_t i = 0; i < size; i++)
        key[i] ^= signature[i];
    str proof = base64_encode_in(a, str_from(key, size));
    *out = arena_printf(a, "%.*s,p=%.*s", STR_ARG(without_proof), STR_ARG(proof));
    return ERR_OK;
}

bool scram_client_verify(const struct scram_client *c, str server_final)
{
    char expected[2 + 4 * ((SCRAM_DIGEST_MAX + 2) / 3)] = "v=";
    str signature = str_from(c->server_signature, scram_hash_size(c->hash));
    size_t n = 2 + base64_encode(expected + 2, signature);
    return str_eq(server_final, (str){expected, n});
}
