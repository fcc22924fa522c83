/* token: HT-SHA-256-* (draft-schmaus-kitten-sasl-ht 3, XEP-0484): the client shows in one message
 * that it has a token, bound to the channel by the mechanism's name.
 *
 *     authcid NUL HMAC(token, "Initiator" cb-data)   ─►   HMAC(token, "Responder" cb-data)
 *
 * What is compared takes the same time whether there is such an account, client or token. */
#include "proto/sasl/inside.h"

enum { HT_BYTES = 32 };

/* The type that a mechanism binds to; SASL_BINDINGS: none. */
static int binding_of(enum sasl_mechanism m)
{
    switch (m) {
    case SASL_HT_SHA_256_EXPR: return CB_TLS_EXPORTER;
    case SASL_HT_SHA_256_ENDP: return CB_TLS_SERVER_END_POINT;
    default: return SASL_BINDINGS;
    }
}

uint32_t sasl_token_mechanisms(const struct sasl_offer *o)
{
    static const enum sasl_mechanism all[] = {SASL_HT_SHA_256_EXPR, SASL_HT_SHA_256_ENDP,
                                              SASL_HT_SHA_256_NONE};
    uint32_t out = 0;
    for (size_t i = 0; o->tls && i < array_len(all); i++)
        if (binding_of(all[i]) == SASL_BINDINGS || o->binding[binding_of(all[i])].n)
            out |= SASL_BIT(all[i]);
    return out;
}

struct sasl_answer token_first(struct sasl *s, str message, struct arena *a)
{
    const char *nul = message.n ? memchr(message.p, 0, message.n) : NULL;
    str user = {0};
    if (!nul || nul == message.p)
        return sasl_fail(s, ERR_SASL_MALFORMED_REQUEST);
    str name = {message.p, (size_t)(nul - message.p)}, proof = str_skip(message, name.n + 1);
    if (proof.n != HT_BYTES)
        return sasl_fail(s, ERR_SASL_MALFORMED_REQUEST);
    err e = sasl_name(s, name, STR(""), a, &user);
    if (e)
        return sasl_fail(s, e);
    sasl_reserve(s, user.n + proof.n);
    s->user = sasl_keep(s, user);
    s->proof = sasl_keep(s, proof);
    if (user.n == 0) /* it does not prepare: there is nobody to look for */
        return sasl_fail(s, ERR_SASL_NOT_AUTHORIZED);
    s->state = SASL_KEYS;
    return (struct sasl_answer){.verdict = SASL_NEED_TOKENS};
}

static void mac(const struct sasl *s, const struct sasl_token *t, str who,
                unsigned char out[SCRAM_DIGEST_MAX])
{
    int b = binding_of(s->mechanism);
    str data =
        b == SASL_BINDINGS ? STR("") : str_from(s->offer->binding[b].data, s->offer->binding[b].n);
    str parts[] = {who, data};
    scram_hmac(SCRAM_SHA256, str_from(t->text, t->n), parts, array_len(parts), out);
}

struct sasl_answer sasl_tokens(struct sasl *s, const struct sasl_token *tokens, size_t n,
                               struct arena *a, size_t *which)
{
    unsigned char digest[SCRAM_DIGEST_MAX];
    must(s->state == SASL_KEYS);
    *which = n;
    for (size_t i = 0; i < n; i++) { /* all of them, whichever is right */
        mac(s, &tokens[i], STR("Initiator"), digest);
        bool right = scram_equal(digest, s->proof.p, HT_BYTES) & tokens[i].known;
        *which = right ? i : *which;
    }
    if (*which == n)
        return sasl_fail(s, ERR_SASL_NOT_AUTHORIZED);
    if (tokens[*which].refused)
        return sasl_fail(s, tokens[*which].refused);
    mac(s, &tokens[*which], STR("Responder"), digest);
    s->state = SASL_DONE;
    return (struct sasl_answer){.verdict = SASL_SUCCESS,
                                .bytes = arena_dup(a, str_from(digest, HT_BYTES))};
}
