/* bearer: OAUTHBEARER (RFC 7628): a token of somebody else's, who knows the users.
 *
 *     gs2-header ^A auth=Bearer TOKEN ^A … ^A ^A   ─►   SUCCESS, or why not, in JSON
 *                                       ^A (3.2.3)  ─►   FAILURE */
#include "proto/sasl/inside.h"
#include "proto/sasl/jwt.h"
#include "proto/xmpp/jid.h"

/* Cuts *rest at the first c; false when there is none. */
static bool take(str *rest, char c, str *out)
{
    const char *at = rest->n ? memchr(rest->p, c, rest->n) : NULL;
    if (!at)
        return false;
    *out = (str){rest->p, (size_t)(at - rest->p)};
    *rest = str_skip(*rest, out->n + 1);
    return true;
}

static bool parse(str message, str *authzid, str *token)
{
    str flag, pair, bearer = STR("auth=Bearer ");
    *token = STR_NONE;
    if (!take(&message, ',', &flag) || !take(&message, ',', authzid) ||
        (!str_is(flag, "n") && !str_is(flag, "y")) || !take(&message, 1, &pair) || pair.n)
        return false;
    if (authzid->n && !str_starts(*authzid, STR("a=")))
        return false;
    *authzid = str_skip(*authzid, authzid->n ? 2 : 0);
    while (take(&message, 1, &pair) && pair.n)
        if (str_starts(pair, bearer) && !token->n)
            *token = str_skip(pair, bearer.n);
    return token->n > 0 && message.n == 0;
}

/* 3.2.2; told when the client has said that it has read it. */
static struct sasl_answer refuse(struct sasl *s, err why)
{
    s->refused = why;
    s->state = SASL_FINAL;
    return (struct sasl_answer){.verdict = SASL_CONTINUE,
                                .bytes = STR("{\"status\":\"invalid_token\"}")};
}

/* A bare JID of another domain is nobody here. */
static err name_of(const struct sasl *s, str user, str *name, struct arena *a)
{
    struct jid jid;
    *name = user;
    if (!memchr(user.p, '@', user.n))
        return ERR_OK;
    if (jid_prepare(user, a, &jid) || jid.resource.n || !str_eq(jid.domain, s->offer->host))
        return ERR_SASL_NOT_AUTHORIZED;
    *name = jid.local;
    return ERR_OK;
}

struct sasl_answer bearer_first(struct sasl *s, str message, struct arena *a)
{
    str authzid, token, claimed, name, user = {0};
    if (!parse(message, &authzid, &token))
        return sasl_fail(s, ERR_SASL_MALFORMED_REQUEST);
    err e = jwt_verify(s->offer->jwt, token, a, &claimed);
    if (!e)
        e = name_of(s, claimed, &name, a);
    if (e)
        return refuse(s, e);
    e = sasl_name(s, name, authzid, a, &user);
    if (e)
        return sasl_fail(s, e);
    if (!user.n)
        return refuse(s, ERR_SASL_NOT_AUTHORIZED);
    sasl_reserve(s, user.n);
    s->user = sasl_keep(s, user);
    s->state = SASL_KEYS;
    return (struct sasl_answer){.verdict = SASL_NEED_ACCOUNT};
}

struct sasl_answer bearer_final(struct sasl *s) { return sasl_fail(s, s->refused); }

struct sasl_answer sasl_account(struct sasl *s, err refused)
{
    must(s->state == SASL_KEYS);
    if (refused)
        return sasl_fail(s, refused);
    s->state = SASL_DONE;
    return (struct sasl_answer){.verdict = SASL_SUCCESS};
}
