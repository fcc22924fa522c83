/* from: what the sender's home does with a stanza of its client: who is asked, and may he be? The
 * rest is the addressee's home's business (route.c). The edge has stamped `from` and prepared
 * `to`. */
#include "node/home/inside.h"

/* Our domain, where it answers in another's name (RFC 6120 8.3.2: `by`). */
static str speaker(const struct session *s, const struct stanza *stanza)
{
    struct jid own = jid_parse_prepared(user_bare(s->user));
    str to = stanza_to(stanza);
    return !to.n || str_eq(to, own.full) || str_eq(to, own.domain) ? STR_NONE : own.domain;
}

void from_error_extra(struct session *s, struct stanza *stanza, err e, str extra, struct ticket *t)
{
    struct home *h = s->user->home;
    struct stanza *answer =
        stanza_error(h->node->scan, stanza, e, speaker(s, stanza), extra, home_arena(h));
    if (!answer)
        return;
    home_count(h, METRIC_AT(stanza_errors, METRIC_ERR(CONDITION, e), 0), 1);
    session_answer(s, answer, "error", t);
    stanza_unref(answer);
}

void from_error(struct session *s, struct stanza *stanza, err e, struct ticket *t)
{
    from_error_extra(s, stanza, e, STR_NONE, t);
}

static void pass_on(struct session *s, struct stanza *stanza, struct ticket *t)
{
    struct home *h = s->user->home;
    home_send(h, stanza, STR_NONE, ticket_uid(t), 0, h->in_us, t);
}

/* RFC 6121 8.5.1 for domains: the server itself takes no messages. */
static void from_message(struct session *s, struct stanza *stanza, const struct jid *to,
                         struct ticket *t)
{
    if (!home_serves(s->user->home, to->domain))
        from_error(s, stanza, ERR_STANZA_REMOTE_SERVER_NOT_FOUND, t);
    else if (!to->local.n)
        from_error(s, stanza, ERR_STANZA_SERVICE_UNAVAILABLE, t);
    else
        pass_on(s, stanza, t);
}

/* What only an account's owner may see or change: refused here, whether that account exists or not
 * (xmpp.md 1). */
static bool is_private(const struct stanza *stanza)
{
    if (!stanza->index.nchild)
        return false;
    switch (stanza->index.child[0].ns) {
    case NS_ROSTER:
    case NS_PRIVATE:
    case NS_MAM:
    case NS_BLOCKING: return true;
    case NS_VCARD: return stanza->type == TYPE_SET;
    default: return false;
    }
}

static void from_request(struct session *s, struct stanza *stanza, const struct jid *to,
                         struct ticket *t)
{
    struct home *h = s->user->home;
    if (str_eq(to->full, user_bare(s->user)))
        iq_dispatch(h, IQ_OWN_ACCOUNT, s->user, s, stanza, true, h->in_us, t);
    else if (!home_serves(h, to->domain))
        from_error(s, stanza, ERR_STANZA_REMOTE_SERVER_NOT_FOUND, t);
    else if (jid_is_domain(to))
        iq_dispatch(h, IQ_SERVER, NULL, s, stanza, false, h->in_us, t);
    else if (!to->local.n)
        from_error(s, stanza, ERR_STANZA_SERVICE_UNAVAILABLE, t);
    else if (jid_is_bare(to) && is_private(stanza))
        from_error(s, stanza, ERR_STANZA_FORBIDDEN, t);
    else
        pass_on(s, stanza, t);
}

/* Answers go to the full JID that asked; those to us (roster pushes, pings) end here. */
static void from_reply(struct session *s, struct stanza *stanza, const struct jid *to,
                       struct ticket *t)
{
    if (to->local.n && to->resource.n && home_serves(s->user->home, to->domain))
        pass_on(s, stanza, t);
}

static void run(struct session *s, const struct sent *m)
{
    if (m->stanza->kind == STANZA_PRESENCE)
        presence_from(s, m->stanza, m->ticket);
    else if (m->stanza->kind == STANZA_MESSAGE)
        from_message(s, m->stanza, &m->to, m->ticket);
    else if (m->stanza->type == TYPE_GET || m->stanza->type == TYPE_SET)
        from_request(s, m->stanza, &m->to, m->ticket);
    else
        from_reply(s, m->stanza, &m->to, m->ticket);
}

void from_stanza(struct session *s, struct stanza *stanza, err reason, struct ticket *t)
{
    if (reason != ERR_OK) {
        from_error(s, stanza, reason, t);
        return;
    }
    struct sent m = {.stanza = stanza, .to = stanza_to_jid(stanza), .ticket = t};
    if (!m.to.full.n && stanza->kind != STANZA_PRESENCE)
        m.to = jid_parse_prepared(user_bare(s->user));
    if (chain_sent(s, &m))
        run(s, &m);
    stanza_unref(m.made);
}
