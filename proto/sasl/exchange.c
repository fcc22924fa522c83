/* exchange: the server's side of a SCRAM exchange (RFC 5802 5 and 7), with the hash of what was
 * advertised (XEP-0474) and the version of TLS (XEP-0515) in the first message.
 *
 *     client-first ─► exchange_first ─► NEED_KEYS ─► exchange_keys ─► server-first
 *     client-final ─► exchange_final ─► SUCCESS with server-final, or FAILURE
 *
 * Everything that depends on whether the account exists is decided in exchange_final, after all the
 * computing; syntax, which the client knows by itself, fails where it is seen. */
#include "proto/base/base64.h"
#include "proto/sasl/inside.h"

enum {
    NONCE_MAX = 256,        /* of the client; they are 20 to 40 in the wild */
    NONCE_BYTES = 18,       /* of ours; no padding in base64 */
    SERVER_FIRST_MAX = 512, /* without the client's nonce */
};

/* Cuts *rest at the first comma; false when there is none. */
static bool take(str *rest, str *out)
{
    const char *comma = rest->n ? memchr(rest->p, ',', rest->n) : NULL;
    if (!comma)
        return false;
    *out = (str){rest->p, (size_t)(comma - rest->p)};
    *rest = str_skip(*rest, out->n + 1);
    return true;
}

/* The last or next attribute: up to the comma or the end, which leaves rest without p. */
static str take_attribute(str *rest)
{
    str all = *rest, out;
    if (take(rest, &out))
        return out;
    *rest = STR_NONE;
    return all;
}

static bool is_alpha(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

/* attr-val = ALPHA "=" value, with the name given; the value may not be empty. */
static bool attribute_is(str attribute, char name, str *value)
{
    if (attribute.n < 3 || attribute.p[0] != name || attribute.p[1] != '=')
        return false;
    *value = str_skip(attribute, 2);
    return true;
}

/* Extensions are to be ignored, but for "m", which says that they must not be (RFC 5802 5.1). */
static bool extensions_ok(str rest)
{
    while (rest.p) {
        str x = take_attribute(&rest);
        if (x.n < 3 || !is_alpha(x.p[0]) || x.p[0] == 'm' || x.p[1] != '=' || memchr(x.p, 0, x.n))
            return false;
    }
    return true;
}

static bool nonce_ok(str nonce)
{
    for (size_t i = 0; i < nonce.n; i++)
        if (nonce.p[i] < 0x21 || nonce.p[i] > 0x7e)
            return false;
    return nonce.n > 0 && nonce.n <= NONCE_MAX;
}

/* saslname (RFC 5802 7): "=2C" and "=3D" are the only places of "=". */
static bool saslname_decode(str in, struct arena *a, str *out)
{
    char *p = arena_alloc(a, in.n + 1);
    size_t n = 0;
    for (size_t i = 0; i < in.n; i++) {
        char c = in.p[i];
        if (c == 0)
            return false;
        if (c == '=') {
            str code = {in.p + i, in.n - i < 3 ? in.n - i : 3};
            if (!str_is(code, "=2C") && !str_is(code, "=3D"))
                return false;
            c = code.p[1] == '2' ? ',' : '=';
            i += 2;
        }
        p[n++] = c;
    }
    p[n] = 0;
    *out = (str){p, n};
    return n > 0;
}

struct client_first {
    str gs2, flag, authzid; /* authzid decoded */
    str bare, name, nonce;  /* name decoded */
};

static bool parse_first(str message, struct arena *a, struct client_first *out)
{
    str rest = message, authzid, value;
    if (!take(&rest, &out->flag) || !take(&rest, &authzid))
        return false;
    out->gs2 = (str){message.p, message.n - rest.n};
    out->bare = rest;
    out->authzid = STR("");
    if (authzid.n &&
        (!attribute_is(authzid, 'a', &value) || !saslname_decode(value, a, &out->authzid)))
        return false;
    if (!attribute_is(take_attribute(&rest), 'n', &value) ||
        !saslname_decode(value, a, &out->name) || !rest.p)
        return false;
    if (!attribute_is(take_attribute(&rest), 'r', &out->nonce) || !nonce_ok(out->nonce))
        return false;
    return extensions_ok(rest);
}

static bool plus_was_offered(const struct sasl_offer *o)
{
    for (int m = 0; m < SASL_MECHANISMS; m++)
        if ((o->mechanisms & SASL_BIT(m)) && sasl_is_plus((enum sasl_mechanism)m))
            return true;
    return false;
}

/* RFC 5802 6: "p" belongs to -PLUS and only there; "y" says that the client saw no -PLUS, so when
 * there was one, somebody in between took it away. */
static err choose_binding(struct sasl *s, str flag)
{
    bool plus = sasl_is_plus(s->mechanism);
    if (!str_starts(flag, STR("p="))) {
        if (plus || (!str_is(flag, "n") && !str_is(flag, "y")))
            return ERR_SASL_MALFORMED_REQUEST;
        return flag.p[0] == 'y' && plus_was_offered(s->offer) ? ERR_SASL_NOT_AUTHORIZED : ERR_OK;
    }
    if (!plus)
        return ERR_SASL_MALFORMED_REQUEST;
    for (int b = 0; b < SASL_BINDINGS; b++)
        if (s->offer->binding[b].n &&
            str_eq(str_skip(flag, 2), sasl_binding_name((enum channel_binding)b))) {
            s->binding = (uint8_t)(b + 1);
            return ERR_OK;
        }
    return ERR_SASL_NOT_AUTHORIZED;
}

struct sasl_answer exchange_first(struct sasl *s, str message, struct arena *a)
{
    struct client_first f;
    if (!parse_first(message, a, &f))
        return sasl_fail(s, ERR_SASL_MALFORMED_REQUEST);
    str user = {0};
    err e = choose_binding(s, f.flag);
    if (!e)
        e = sasl_name(s, f.name, f.authzid, a, &user);
    if (e)
        return sasl_fail(s, e);
    sasl_reserve(s, user.n + f.gs2.n + f.bare.n + f.nonce.n + SERVER_FIRST_MAX);
    s->user = sasl_keep(s, user);
    s->gs2 = sasl_keep(s, f.gs2);
    s->auth = sasl_keep(s, f.bare);
    s->nonce = (str){s->auth.p + (f.nonce.p - f.bare.p), f.nonce.n};
    sasl_fake_key(s, user.n ? user : f.name);
    if (user.n == 0) /* anybody can tell that the name does not prepare: no need to ask the store */
        return exchange_keys(s, a);
    s->state = SASL_KEYS;
    return (struct sasl_answer){.verdict = SASL_NEED_KEYS};
}

static void sort(str *names, size_t n)
{
    for (size_t i = 1; i < n; i++)
        for (size_t j = i; j > 0; j--) {
            str x = names[j - 1], y = names[j];
            int order = memcmp(x.p, y.p, x.n < y.n ? x.n : y.n);
            if (order < 0 || (order == 0 && x.n <= y.n))
                break;
            names[j - 1] = y, names[j] = x;
        }
}

/* Appends names, sorted, with U+001E between them. */
static size_t add_names(str *parts, size_t n, str *names, size_t names_n)
{
    sort(names, names_n);
    for (size_t i = 0; i < names_n; i++) {
        if (i)
            parts[n++] = STR("\x1e");
        parts[n++] = names[i];
    }
    return n;
}

/* XEP-0474 2.1 (version 0.5): what was advertised, so that the client sees when it saw something
 * else. Covered by the proof, being part of the server's first message. */
static str offer_hash(const struct sasl_offer *o, enum scram_hash h, struct arena *a)
{
    str mechanisms[SASL_MECHANISMS], bindings[SASL_BINDINGS];
    str parts[2 * (SASL_MECHANISMS + SASL_BINDINGS)];
    size_t mechanisms_n = 0, bindings_n = 0;
    for (int m = 0; m < SASL_MECHANISMS; m++)
        if (o->mechanisms & SASL_BIT(m))
            mechanisms[mechanisms_n++] = sasl_mechanism_name((enum sasl_mechanism)m);
    for (int b = 0; b < SASL_BINDINGS; b++)
        if (o->binding[b].n)
            bindings[bindings_n++] = sasl_binding_name((enum channel_binding)b);
    size_t n = add_names(parts, 0, mechanisms, mechanisms_n);
    if (bindings_n) {
        parts[n++] = STR("\x1f");
        n = add_names(parts, n, bindings, bindings_n);
    }
    unsigned char digest[SCRAM_DIGEST_MAX];
    scram_digest(h, parts, n, digest);
    return base64_encode_in(a, str_from(digest, scram_hash_size(h)));
}

struct sasl_answer exchange_keys(struct sasl *s, struct arena *a)
{
    unsigned char fresh[NONCE_BYTES];
    entropy_fill(s->offer->entropy, fresh, sizeof fresh);
    str ours = base64_encode_in(a, str_from(fresh, sizeof fresh));
    str salt = base64_encode_in(a, str_from(s->key.salt, s->key.salt_n));
    str hash = offer_hash(s->offer, s->hash, a);
    str first = arena_printf(a, "r=%.*s%.*s,s=%.*s,i=%u,h=%.*s", STR_ARG(s->nonce), STR_ARG(ours),
                             STR_ARG(salt), s->key.iterations, STR_ARG(hash));
    if (s->offer->tls_version) /* XEP-0515 4.1 */
        first = arena_printf(a, "%.*s,t=%04x", STR_ARG(first), s->offer->tls_version);
    must(first.n < s->nonce.n + SERVER_FIRST_MAX);
    size_t nonce_n = s->nonce.n + ours.n;
    str comma = sasl_keep(s, STR(","));
    must(comma.p == s->auth.p + s->auth.n);
    str kept = sasl_keep(s, first);
    s->auth.n += comma.n + kept.n;
    s->nonce = (str){kept.p + 2, nonce_n};
    s->state = SASL_FINAL;
    return (struct sasl_answer){.verdict = SASL_CONTINUE, .bytes = first};
}

struct client_final {
    str binding; /* decoded */
    str nonce;
    str proof;         /* decoded */
    str without_proof; /* the bytes that are signed */
};

static bool parse_final(str message, struct arena *a, struct client_final *out)
{
    const char *last = memrchr(message.p, ',', message.n);
    str proof, binding;
    if (!last)
        return false;
    out->without_proof = (str){message.p, (size_t)(last - message.p)};
    if (!attribute_is(str_skip(message, out->without_proof.n + 1), 'p', &proof) ||
        base64_decode_in(a, proof, &out->proof))
        return false;
    str rest = out->without_proof;
    if (!attribute_is(take_attribute(&rest), 'c', &binding) ||
        base64_decode_in(a, binding, &out->binding) || !rest.p)
        return false;
    return attribute_is(take_attribute(&rest), 'r', &out->nonce) && extensions_ok(rest);
}

/* cbind-input = gs2-header [ channel binding data ] (RFC 5802 7). */
static bool binding_right(const struct sasl *s, str got)
{
    str data = STR("");
    if (s->binding) {
        int b = s->binding - 1;
        data = str_from(s->offer->binding[b].data, s->offer->binding[b].n);
    }
    return got.n == s->gs2.n + data.n && scram_equal(got.p, s->gs2.p, s->gs2.n) &&
           scram_equal(got.p + s->gs2.n, data.p, data.n);
}

static bool proof_right(const struct sasl *s, const struct client_final *f)
{
    size_t size = scram_hash_size(s->hash);
    unsigned char key[SCRAM_DIGEST_MAX], stored[SCRAM_DIGEST_MAX];
    str signed_bytes[] = {s->auth, STR(","), f->without_proof};
    scram_hmac(s->hash, str_from(s->key.stored_key, size), signed_bytes, array_len(signed_bytes),
               key);
    if (f->proof.n != size)
        return false;
    for (size_t i = 0; i < size; i++)
        key[i] ^= (unsigned char)f->proof.p[i];
    scram_digest(s->hash, &(str){(char *)key, size}, 1, stored);
    bool right = scram_equal(stored, s->key.stored_key, size);
    scram_wipe(key, sizeof key);
    return right;
}

static str server_final(const struct sasl *s, const struct client_final *f, struct arena *a)
{
    size_t size = scram_hash_size(s->hash);
    unsigned char signature[SCRAM_DIGEST_MAX];
    str signed_bytes[] = {s->auth, STR(","), f->without_proof};
    scram_hmac(s->hash, str_from(s->key.server_key, size), signed_bytes, array_len(signed_bytes),
               signature);
    str parts[] = {STR("v="), base64_encode_in(a, str_from(signature, size))};
    return arena_concat(a, parts, array_len(parts));
}

struct sasl_answer exchange_final(struct sasl *s, str message, struct arena *a)
{
    struct client_final f;
    if (!parse_final(message, a, &f))
        return sasl_fail(s, ERR_SASL_MALFORMED_REQUEST);
    bool binding = binding_right(s, f.binding), nonce = str_eq(f.nonce, s->nonce);
    bool proof = proof_right(s, &f); /* computed whatever the others say: the same time for all */
    if (!(binding & nonce & proof & s->known))
        return sasl_fail(s, ERR_SASL_NOT_AUTHORIZED);
    if (s->refused)
        return sasl_fail(s, s->refused);
    s->state = SASL_DONE;
    return (struct sasl_answer){.verdict = SASL_SUCCESS, .bytes = server_final(s, &f, a)};
}
