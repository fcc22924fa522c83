/* jwt: see jwt.h. */
#include "proto/sasl/jwt.h"

#include <jansson.h>
#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/ec_key.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/nid.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <stdlib.h>

#include "proto/base/base64.h"
#include "proto/sasl/scram.h"

enum { RSA_BITS_MIN = 2048, P256_BYTES = 32, SECRET_MIN = 32, SECRET_MAX = 256, KID_MAX = 128 };

enum alg { HS256, RS256, ES256 };
static const char *const alg_names[] = {"HS256", "RS256", "ES256"};

struct jwt_key {
    enum alg alg;
    EVP_PKEY *pkey; /* RS256, ES256 */
    size_t secret_n;
    char secret[SECRET_MAX]; /* HS256 */
    char kid[KID_MAX];       /* empty: it has none */
};
struct jwt_keys {
    size_t n;
    struct jwt_key key[JWT_KEYS_MAX];
};

/* base64url without padding (RFC 7515 2), as base64 has it. */
static err decode(str text, struct arena *a, str *out)
{
    size_t n = (text.n + 3) / 4 * 4;
    char *p = arena_alloc(a, n + 1);
    for (size_t i = 0; i < n; i++) {
        char c = i < text.n ? text.p[i] : '=';
        if (i < text.n && (c == '+' || c == '/' || c == '='))
            return ERR_BAD;
        p[i] = c == '-' ? '+' : c == '_' ? '/' : c;
    }
    return text.n % 4 == 1 ? ERR_BAD : base64_decode_in(a, (str){p, n}, out);
}

static str json_text(const json_t *object, const char *name)
{
    const json_t *v = json_object_get(object, name);
    return json_is_string(v) ? str_from(json_string_value(v), json_string_length(v)) : STR_NONE;
}

/* ---- keys ---- */

static void add_pkey(struct jwt_keys *k, EVP_PKEY *pkey, str kid)
{
    struct jwt_key key = {.pkey = pkey};
    int id = pkey ? EVP_PKEY_id(pkey) : 0;
    const EC_KEY *ec = id == EVP_PKEY_EC ? EVP_PKEY_get0_EC_KEY(pkey) : NULL;
    bool p256 = ec && EC_GROUP_get_curve_name(EC_KEY_get0_group(ec)) == NID_X9_62_prime256v1;
    bool rsa = id == EVP_PKEY_RSA && EVP_PKEY_bits(pkey) >= RSA_BITS_MIN;
    if (k->n == JWT_KEYS_MAX || !(p256 || rsa) || kid.n >= KID_MAX) {
        EVP_PKEY_free(pkey);
        return;
    }
    key.alg = rsa ? RS256 : ES256;
    memcpy(key.kid, kid.p ? kid.p : "", kid.n);
    k->key[k->n++] = key;
}

static void add_secret(struct jwt_keys *k, str secret, str kid)
{
    struct jwt_key key = {.alg = HS256, .secret_n = secret.n};
    if (k->n == JWT_KEYS_MAX || secret.n < SECRET_MIN || secret.n > SECRET_MAX || kid.n >= KID_MAX)
        return;
    memcpy(key.secret, secret.p, secret.n);
    memcpy(key.kid, kid.p ? kid.p : "", kid.n);
    k->key[k->n++] = key;
}

static BIGNUM *number(const json_t *jwk, const char *name, struct arena *a)
{
    str bytes;
    if (decode(json_text(jwk, name), a, &bytes) || bytes.n == 0)
        return NULL;
    return BN_bin2bn((const uint8_t *)bytes.p, bytes.n, NULL);
}

static EVP_PKEY *rsa_key(const json_t *jwk, struct arena *a)
{
    BIGNUM *n = number(jwk, "n", a), *e = number(jwk, "e", a);
    RSA *rsa = n && e ? RSA_new() : NULL;
    EVP_PKEY *out = rsa ? EVP_PKEY_new() : NULL;
    if (!out) {
        BN_free(n), BN_free(e), RSA_free(rsa);
        return NULL;
    }
    must(RSA_set0_key(rsa, n, e, NULL)); /* takes both */
    must(EVP_PKEY_assign_RSA(out, rsa));
    return out;
}

static EVP_PKEY *ec_key(const json_t *jwk, struct arena *a)
{
    BIGNUM *x = number(jwk, "x", a), *y = number(jwk, "y", a);
    EC_KEY *ec = EC_KEY_new_by_curve_name(NID_X9_62_prime256v1);
    bool good = x && y && ec && str_is(json_text(jwk, "crv"), "P-256") &&
                EC_KEY_set_public_key_affine_coordinates(ec, x, y);
    EVP_PKEY *out = good ? EVP_PKEY_new() : NULL;
    if (!out || !EVP_PKEY_assign_EC_KEY(out, ec))
        EVP_PKEY_free(out), EC_KEY_free(ec), out = NULL;
    BN_free(x), BN_free(y);
    return out;
}

static void add_jwk(struct jwt_keys *k, const json_t *jwk, struct arena *a)
{
    str kty = json_text(jwk, "kty"), kid = json_text(jwk, "kid"), use = json_text(jwk, "use"),
        secret;
    if (use.n && !str_is(use, "sig"))
        return;
    if (str_is(kty, "oct") && !decode(json_text(jwk, "k"), a, &secret))
        add_secret(k, secret, kid);
    else if (str_is(kty, "RSA"))
        add_pkey(k, rsa_key(jwk, a), kid);
    else if (str_is(kty, "EC"))
        add_pkey(k, ec_key(jwk, a), kid);
}

static void read_jwks(struct jwt_keys *k, str file)
{
    struct arena a = {0};
    json_t *root = json_loadb(file.p, file.n, 0, NULL), *jwk;
    size_t i;
    json_array_foreach(json_object_get(root, "keys"), i, jwk) add_jwk(k, jwk, &a);
    json_decref(root);
    arena_close(&a);
}

static void read_pem(struct jwt_keys *k, str file)
{
    BIO *bio = BIO_new_mem_buf(file.p, (int)file.n);
    for (size_t i = 0; bio && i < JWT_KEYS_MAX; i++) {
        EVP_PKEY *pkey = PEM_read_bio_PUBKEY(bio, NULL, NULL, NULL);
        if (!pkey)
            break;
        add_pkey(k, pkey, STR(""));
    }
    BIO_free(bio);
}

struct jwt_keys *jwt_keys_new(str file)
{
    struct jwt_keys *k = calloc(1, sizeof *k);
    must(k);
    if (file.n && file.n <= JWT_FILE_MAX && memmem(file.p, file.n, "-----BEGIN", 10))
        read_pem(k, file);
    else if (file.n && file.n <= JWT_FILE_MAX)
        read_jwks(k, file);
    if (k->n)
        return k;
    free(k);
    return NULL;
}

void jwt_keys_free(struct jwt_keys *k)
{
    if (!k)
        return;
    for (size_t i = 0; i < k->n; i++)
        EVP_PKEY_free(k->key[i].pkey);
    scram_wipe(k, sizeof *k);
    free(k);
}

/* ---- signatures ---- */

static bool rsa_right(EVP_PKEY *key, str text, str signature)
{
    EVP_MD_CTX c;
    EVP_MD_CTX_init(&c);
    bool right = EVP_DigestVerifyInit(&c, NULL, EVP_sha256(), NULL, key) &&
                 EVP_DigestVerify(&c, (const uint8_t *)signature.p, signature.n,
                                  (const uint8_t *)text.p, text.n);
    EVP_MD_CTX_cleanup(&c);
    return right;
}

/* RFC 7518 3.4: R and S, 32 bytes each. */
static bool ec_right(EVP_PKEY *key, str text, str signature)
{
    unsigned char digest[SCRAM_DIGEST_MAX];
    if (signature.n != 2 * P256_BYTES)
        return false;
    scram_digest(SCRAM_SHA256, &text, 1, digest);
    ECDSA_SIG *sig = ECDSA_SIG_new();
    const uint8_t *p = (const uint8_t *)signature.p;
    BIGNUM *r = BN_bin2bn(p, P256_BYTES, NULL), *s = BN_bin2bn(p + P256_BYTES, P256_BYTES, NULL);
    must(sig && r && s);
    must(ECDSA_SIG_set0(sig, r, s));
    bool right = ECDSA_do_verify(digest, P256_BYTES, sig, EVP_PKEY_get0_EC_KEY(key)) == 1;
    ECDSA_SIG_free(sig);
    return right;
}

static bool is_right(const struct jwt_key *k, str text, str signature)
{
    unsigned char digest[SCRAM_DIGEST_MAX];
    switch (k->alg) {
    case RS256: return rsa_right(k->pkey, text, signature);
    case ES256: return ec_right(k->pkey, text, signature);
    case HS256:
        scram_hmac(SCRAM_SHA256, str_from(k->secret, k->secret_n), &text, 1, digest);
        return signature.n == P256_BYTES && scram_equal(digest, signature.p, P256_BYTES);
    }
    must(!"a key's algorithm");
}

static bool is_signed(const struct jwt_keys *keys, const json_t *head, str text, str signature)
{
    str alg = json_text(head, "alg"), kid = json_text(head, "kid");
    if (json_object_get(head, "crit")) /* RFC 7515 4.1.11: we understand none */
        return false;
    for (size_t i = 0; i < keys->n; i++) {
        const struct jwt_key *k = &keys->key[i];
        bool meant = !kid.n || !*k->kid || str_eq(kid, str_of(k->kid));
        if (meant && str_eq(alg, str_of(alg_names[k->alg])) && is_right(k, text, signature))
            return true;
    }
    return false;
}

/* ---- claims ---- */

static bool is_for(const json_t *claims, str audience)
{
    const json_t *aud = json_object_get(claims, "aud"), *one;
    size_t i;
    if (str_eq(json_text(claims, "aud"), audience))
        return true;
    json_array_foreach(aud, i,
                       one) if (json_is_string(one) &&
                                str_eq(str_from(json_string_value(one), json_string_length(one)),
                                       audience)) return true;
    return false;
}

/* Seconds of a NumericDate; false: it is there and no number. */
static bool date(const json_t *claims, const char *name, int64_t *out, bool *there)
{
    const json_t *v = json_object_get(claims, name);
    *there = v != NULL;
    if (!v)
        return true;
    double d = json_number_value(v);
    *out = d > 0 && d < 1e12 ? (int64_t)d : 0;
    return json_is_number(v);
}

static err check_claims(const struct jwt_rules *r, const json_t *claims)
{
    int64_t exp = 0, nbf = 0;
    bool has_exp, has_nbf;
    if (!date(claims, "exp", &exp, &has_exp) || !date(claims, "nbf", &nbf, &has_nbf) || !has_exp)
        return ERR_SASL_NOT_AUTHORIZED;
    if ((r->issuer.n && !str_eq(json_text(claims, "iss"), r->issuer)) ||
        (r->audience.n && !is_for(claims, r->audience)))
        return ERR_SASL_NOT_AUTHORIZED;
    if (has_nbf && nbf > r->now_s + r->leeway_s)
        return ERR_SASL_NOT_AUTHORIZED;
    return exp <= r->now_s - r->leeway_s ? ERR_SASL_CREDENTIALS_EXPIRED : ERR_OK;
}

static err take_claims(const struct jwt_rules *r, const json_t *claims, struct arena *a, str *user)
{
    char name[128];
    err e = check_claims(r, claims);
    if (e || r->user_claim.n >= sizeof name)
        return e ? e : ERR_SASL_NOT_AUTHORIZED;
    memcpy(name, r->user_claim.p, r->user_claim.n);
    name[r->user_claim.n] = 0;
    *user = arena_dup(a, json_text(claims, name));
    return user->n ? ERR_OK : ERR_SASL_NOT_AUTHORIZED;
}

err jwt_verify(const struct jwt_rules *r, str token, struct arena *a, str *user)
{
    const char *first = token.n ? memchr(token.p, '.', token.n) : NULL;
    const char *last = token.n ? memrchr(token.p, '.', token.n) : NULL;
    str head, claims, signature;
    if (!first || first == last)
        return ERR_SASL_NOT_AUTHORIZED;
    str text = {token.p, (size_t)(last - token.p)};
    if (decode((str){token.p, (size_t)(first - token.p)}, a, &head) ||
        decode((str){first + 1, (size_t)(last - first - 1)}, a, &claims) ||
        decode(str_skip(token, text.n + 1), a, &signature))
        return ERR_SASL_NOT_AUTHORIZED;
    json_t *h = json_loadb(head.p, head.n, JSON_REJECT_DUPLICATES, NULL);
    json_t *c = NULL;
    err e = ERR_SASL_NOT_AUTHORIZED;
    if (h && r->keys && is_signed(r->keys, h, text, signature))
        c = json_loadb(claims.p, claims.n, JSON_REJECT_DUPLICATES, NULL);
    if (c)
        e = take_claims(r, c, a, user);
    json_decref(h);
    json_decref(c);
    return e;
}
