/* sasl: which mechanism it is, PLAIN and ANONYMOUS whole, and what they share with SCRAM
 * (exchange.c): names, made-up keys, and the memory of an attempt. */
#include "proto/sasl/sasl.h"

#include <stdlib.h>

#include "proto/base/base64.h"
#include "proto/base/hex.h"
#include "proto/sasl/inside.h"
#include "proto/xmpp/jid.h"
#include "proto/xmpp/precis.h"

enum kind { KIND_SCRAM, KIND_PLAIN, KIND_ANONYMOUS, KIND_BEARER, KIND_TOKEN };

static const struct mechanism {
    str name;
    enum kind kind;
    enum scram_hash hash;
    bool plus;
} mechanisms[SASL_MECHANISMS] = {
#define SASL_MECHANISM(name, wire, kind, hash, plus) \
    {{wire, sizeof wire - 1}, KIND_##kind, SCRAM_##hash, plus},
#include "proto/sasl/mechanisms.def"
#undef SASL_MECHANISM
};

str sasl_mechanism_name(enum sasl_mechanism m) { return mechanisms[m].name; }
bool sasl_is_plus(enum sasl_mechanism m) { return mechanisms[m].plus; }

enum sasl_mechanism sasl_mechanism_find(str name)
{
    int m = 0;
    while (m < SASL_MECHANISMS && !str_eq(mechanisms[m].name, name))
        m++;
    return (enum sasl_mechanism)m;
}

str sasl_binding_name(enum channel_binding b)
{
    return b == CB_TLS_EXPORTER ? STR("tls-exporter") : STR("tls-server-end-point");
}

uint32_t sasl_offered(const struct sasl_offer *o, uint32_t configured)
{
    uint32_t out = 0;
    bool binding = false;
    for (int b = 0; b < SASL_BINDINGS; b++)
        binding |= o->binding[b].n > 0;
    for (int m = 0; m < SASL_MECHANISMS; m++) {
        bool secret = m == SASL_PLAIN || mechanisms[m].kind == KIND_BEARER;
        if (mechanisms[m].kind == KIND_TOKEN || (mechanisms[m].plus && !binding) ||
            (secret && !o->tls))
            continue;
        out |= configured & SASL_BIT(m);
    }
    return out;
}

/* ---- an attempt's memory ---- */

void sasl_end(struct sasl *s)
{
    if (s->heap)
        scram_wipe(s->heap, s->heap_cap);
    free(s->heap);
    scram_wipe(s, sizeof *s); /* which leaves it idle */
}

void sasl_reserve(struct sasl *s, size_t n)
{
    must(!s->heap);
    s->heap_cap = n + 1;
    s->heap = malloc(s->heap_cap);
    must(s->heap);
}

str sasl_keep(struct sasl *s, str bytes)
{
    must(s->heap_cap - s->heap_n >= bytes.n);
    char *p = s->heap + s->heap_n;
    if (bytes.n)
        memcpy(p, bytes.p, bytes.n);
    s->heap_n += bytes.n;
    return (str){p, bytes.n};
}

struct sasl_answer sasl_fail(struct sasl *s, err reason)
{
    s->state = SASL_DONE;
    return (struct sasl_answer){.verdict = SASL_FAILURE, .reason = reason};
}

/* ---- who it is ---- */

err sasl_name(const struct sasl *s, str name, str authzid, struct arena *a, str *user)
{
    str local;
    *user = STR("");
    if (!jid_prepare_local(name, a, &local))
        *user = jid_join(a, local, s->offer->host, STR("")).bare;
    if (authzid.n == 0)
        return ERR_OK;
    struct jid j;
    if (jid_prepare(authzid, a, &j) || !str_eq(j.full, *user) ||
        (s->offer->from.n && !str_eq(j.full, s->offer->from))) /* XEP-0388 4.6 */
        return ERR_SASL_INVALID_AUTHZID;
    return ERR_OK;
}

/* xmpp.md 10. The labels keep these apart from whatever else the secret is a key for. */
void sasl_fake_key(struct sasl *s, str id)
{
    unsigned char salt[SCRAM_DIGEST_MAX];
    str hash = str_of(scram_hash_name(s->hash));
    str for_salt[] = {STR("pemberley scram salt\0"), hash, STR("\0"), id};
    str for_key[] = {STR("pemberley scram key\0"), hash, STR("\0"), id};
    scram_hmac(SCRAM_SHA256, s->offer->secret, for_salt, array_len(for_salt), salt);
    s->key = (struct scram_key){.iterations = s->offer->iterations, .salt_n = SCRAM_SALT_BYTES};
    memcpy(s->key.salt, salt, SCRAM_SALT_BYTES);
    scram_hmac(SCRAM_SHA512, s->offer->secret, for_key, array_len(for_key), s->key.stored_key);
}

/* ---- PLAIN (RFC 4616) ---- */

static bool take_nul(str *rest, str *out)
{
    const char *nul = rest->n ? memchr(rest->p, 0, rest->n) : NULL;
    if (!nul)
        return false;
    *out = (str){rest->p, (size_t)(nul - rest->p)};
    *rest = str_skip(*rest, out->n + 1);
    return true;
}

/* A password that does not prepare is checked all the same, in vain, so that it takes its time. */
static str plain_password(struct sasl *s, str raw, struct arena *a)
{
    str prepared;
    s->hopeless = precis_opaque(raw, a, &prepared) != ERR_OK;
    if (!s->hopeless)
        return prepared;
    return (str){raw.p, raw.n < SCRAM_PASSWORD_MAX ? raw.n : SCRAM_PASSWORD_MAX};
}

static struct sasl_answer plain_keys(struct sasl *s)
{
    s->state = SASL_CHECK;
    return (struct sasl_answer){.verdict = SASL_NEED_CHECK};
}

static struct sasl_answer plain_first(struct sasl *s, str message, struct arena *a)
{
    str password = message, authzid, name, user = {0};
    if (!take_nul(&password, &authzid) || !take_nul(&password, &name) || name.n == 0 ||
        password.n == 0 || memchr(password.p, 0, password.n))
        return sasl_fail(s, ERR_SASL_MALFORMED_REQUEST);
    err e = sasl_name(s, name, authzid, a, &user);
    if (e)
        return sasl_fail(s, e);
    password = plain_password(s, password, a);
    sasl_reserve(s, user.n + password.n);
    s->user = sasl_keep(s, user);
    s->password = sasl_keep(s, password);
    sasl_fake_key(s, user.n ? user : name);
    if (user.n == 0)
        return plain_keys(s);
    s->state = SASL_KEYS;
    return (struct sasl_answer){.verdict = SASL_NEED_KEYS};
}

void sasl_check_take(const struct sasl *s, struct sasl_check *out)
{
    must(s->state == SASL_CHECK);
    out->hash = s->hash;
    out->key = s->key;
    out->password_n = (uint16_t)s->password.n;
    memcpy(out->password, s->password.p, s->password.n);
}

bool sasl_check_run(const struct sasl_check *c)
{
    struct scram_key k;
    scram_derive((str){c->password, c->password_n}, c->hash, str_from(c->key.salt, c->key.salt_n),
                 c->key.iterations, &k);
    bool right = scram_equal(k.stored_key, c->key.stored_key, scram_hash_size(c->hash));
    scram_wipe(&k, sizeof k);
    return right;
}

struct sasl_answer sasl_checked(struct sasl *s, bool right)
{
    must(s->state == SASL_CHECK);
    if (!right || !s->known || s->hopeless)
        return sasl_fail(s, ERR_SASL_NOT_AUTHORIZED);
    if (s->refused)
        return sasl_fail(s, s->refused);
    s->state = SASL_DONE;
    return (struct sasl_answer){.verdict = SASL_SUCCESS};
}

/* ---- ANONYMOUS (RFC 4505, XEP-0175): the trace is not looked at ---- */

static struct sasl_answer anonymous(struct sasl *s, struct arena *a)
{
    char name[16], local[32];
    entropy_fill(s->offer->entropy, name, sizeof name);
    hex_encode(local, str_from(name, sizeof name));
    struct jid j = jid_join(a, str_from(local, sizeof local), s->offer->host, STR(""));
    sasl_reserve(s, j.bare.n);
    s->user = sasl_keep(s, j.bare);
    s->state = SASL_DONE;
    return (struct sasl_answer){.verdict = SASL_SUCCESS};
}

/* ---- the door ---- */

static struct sasl_answer first(struct sasl *s, str message, struct arena *a)
{
    if (message.n > SASL_MESSAGE_MAX)
        return sasl_fail(s, ERR_SASL_MALFORMED_REQUEST);
    switch (mechanisms[s->mechanism].kind) {
    case KIND_SCRAM: return exchange_first(s, message, a);
    case KIND_PLAIN: return plain_first(s, message, a);
    case KIND_ANONYMOUS: return anonymous(s, a);
    case KIND_BEARER: return bearer_first(s, message, a);
    case KIND_TOKEN: return token_first(s, message, a);
    }
    must(!"a mechanism's kind");
}

struct sasl_answer sasl_begin(struct sasl *s, str mechanism, const struct sasl_offer *offer,
                              const str *initial, struct arena *a)
{
    sasl_end(s);
    s->offer = offer;
    s->mechanism = sasl_mechanism_find(mechanism);
    bool offered = s->mechanism < SASL_MECHANISMS &&
                   ((offer->mechanisms | offer->tokens) & SASL_BIT(s->mechanism));
    if (!offered && s->mechanism == SASL_PLAIN && !offer->tls)
        return sasl_fail(s, ERR_SASL_ENCRYPTION_REQUIRED);
    if (!offered)
        return sasl_fail(s, ERR_SASL_INVALID_MECHANISM);
    s->hash = mechanisms[s->mechanism].hash;
    s->state = SASL_FIRST;
    if (initial || s->mechanism == SASL_ANONYMOUS)
        return first(s, initial ? *initial : STR(""), a);
    return (struct sasl_answer){.verdict = SASL_CONTINUE, .bytes = STR("")};
}

struct sasl_answer sasl_step(struct sasl *s, str response, struct arena *a)
{
    must(s->state == SASL_FIRST || s->state == SASL_FINAL);
    if (s->state == SASL_FIRST)
        return first(s, response, a);
    if (response.n > SASL_MESSAGE_MAX)
        return sasl_fail(s, ERR_SASL_MALFORMED_REQUEST);
    return mechanisms[s->mechanism].kind == KIND_BEARER ? bearer_final(s)
                                                        : exchange_final(s, response, a);
}

/* SCRAM names its hash; PLAIN can do with any, and takes SHA-256 if it may choose: SHA-512 costs
 * three times as much (design: measurements.md 5). */
static const struct scram_key *usable_key(struct sasl *s, const struct scram_keys *keys)
{
    if (keys->of[s->hash].iterations)
        return &keys->of[s->hash];
    for (int h = 0; h < SCRAM_HASHES && s->mechanism == SASL_PLAIN; h++)
        if (keys->of[h].iterations) {
            s->hash = (enum scram_hash)h;
            return &keys->of[h];
        }
    return NULL;
}

struct sasl_answer sasl_keys(struct sasl *s, const struct scram_keys *keys, err refused,
                             struct arena *a)
{
    must(s->state == SASL_KEYS);
    const struct scram_key *k = keys ? usable_key(s, keys) : NULL;
    if (k)
        s->key = *k;
    s->known = k != NULL;
    s->refused = refused;
    return mechanisms[s->mechanism].kind == KIND_PLAIN ? plain_keys(s) : exchange_keys(s, a);
}

/* ---- on the wire ---- */

err sasl_decode(str text, struct arena *a, str *out)
{
    if (str_is(text, "=")) {
        *out = STR("");
        return ERR_OK;
    }
    if (text.n > base64_encoded_size(SASL_MESSAGE_MAX))
        return ERR_SASL_MALFORMED_REQUEST;
    return base64_decode_in(a, text, out) ? ERR_SASL_INCORRECT_ENCODING : ERR_OK;
}

str sasl_encode(str bytes, struct arena *a)
{
    return bytes.n ? base64_encode_in(a, bytes) : STR("=");
}
