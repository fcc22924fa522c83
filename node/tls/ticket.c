/* ticket: keys of session tickets, derived from a secret and the time.
 *
 * Period p is wall time ÷ (lifetime ÷ 2). A ticket is sealed with the key of the current period and
 * opened with the previous, the current and the next one (clocks of nodes differ), so it lives
 * between half the lifetime and all of it. Whoever has the secret (all shards of a cluster) opens
 * everybody's tickets, and nothing need ever be distributed or rotated. Rejected:
 * SSL_CTX_set_tlsext_ticket_keys, which knows one key: after a change nobody resumes. */
#include <openssl/digest.h>
#include <openssl/hkdf.h>
#include <openssl/hmac.h>
#include <openssl/mem.h>
#include <openssl/rand.h>

#include "node/tls/inside.h"

static const char label[] = "pemberley session ticket";

static void derive(struct ticket_key *k, const unsigned char *secret, int64_t period)
{
    unsigned char info[sizeof label - 1 + 8];
    unsigned char out[sizeof k->name + sizeof k->aes + sizeof k->hmac];

    memcpy(info, label, sizeof label - 1);
    for (int i = 0; i < 8; i++)
        info[sizeof label - 1 + (size_t)i] = (unsigned char)((uint64_t)period >> (56 - 8 * i));
    must(HKDF(out, sizeof out, EVP_sha256(), secret, TLS_SECRET_SIZE, NULL, 0, info, sizeof info));
    memcpy(k->name, out, sizeof k->name);
    memcpy(k->aes, out + sizeof k->name, sizeof k->aes);
    memcpy(k->hmac, out + sizeof k->name + sizeof k->aes, sizeof k->hmac);
    k->period = period;
    OPENSSL_cleanse(out, sizeof out);
}

/* Seconds of a period. */
static int64_t half_of(int64_t lifetime_s) { return lifetime_s > 1 ? lifetime_s / 2 : 1; }

int64_t tls_ticket_key_age_s(int64_t now_s, int64_t lifetime_s)
{
    return lifetime_s ? now_s % half_of(lifetime_s) : 0;
}

/* Keys of [now - 1, now + 1]; derived anew only when the period has changed. */
static void turn_to(struct ticket_keys *k, int64_t now_s)
{
    int64_t period = now_s / half_of(k->lifetime_s);

    if (k->key[1].period == period)
        return;
    for (int i = 0; i < 3; i++)
        derive(&k->key[i], k->secret, period - 1 + i);
}

void ticket_keys_init(struct ticket_keys *k, const unsigned char *secret, uint32_t lifetime_s)
{
    memcpy(k->secret, secret, sizeof k->secret);
    k->lifetime_s = lifetime_s;
    k->key[1].period = INT64_MIN; /* none yet */
}

void ticket_keys_close(struct ticket_keys *k) { OPENSSL_cleanse(k, sizeof *k); }

static int start(const struct ticket_key *k, const uint8_t *iv, EVP_CIPHER_CTX *cipher,
                 HMAC_CTX *hmac, int encrypt)
{
    return EVP_CipherInit_ex(cipher, EVP_aes_256_cbc(), NULL, k->aes, iv, encrypt) &&
           HMAC_Init_ex(hmac, k->hmac, sizeof k->hmac, EVP_sha256(), NULL);
}

int ticket_crypt(struct ticket_keys *k, int64_t now_s, uint8_t *name, uint8_t *iv,
                 EVP_CIPHER_CTX *cipher, HMAC_CTX *hmac, int encrypt)
{
    turn_to(k, now_s);
    if (encrypt) {
        memcpy(name, k->key[1].name, sizeof k->key[1].name);
        RAND_bytes(iv, 16);
        return start(&k->key[1], iv, cipher, hmac, 1) ? 1 : -1;
    }
    for (int i = 0; i < 3; i++)
        if (memcmp(name, k->key[i].name, sizeof k->key[i].name) == 0)
            return !start(&k->key[i], iv, cipher, hmac, 0) ? -1 : i == 1 ? 1 : 2;
    return 0;
}
