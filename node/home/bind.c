/* bind: a session begins (RFC 6120 7, XEP-0386): which resource it gets, who has to go for it, and
 * what is on from its first stanza. */
#include <arpa/inet.h>

#include "node/home/inside.h"
#include "pemberley/buf.h"

static struct home *home_of(const struct session *s) { return s->user->home; }

static void to_edge(struct home *h, unsigned edge, const struct frame *f)
{
    channel_send(h->node->channels, edge, f, (struct hold){HOLD_NONE, 0, 0}, false);
}

/* ---- answers ---- */

static void answer_bound(struct home *h, unsigned edge, const struct frame *asked,
                         const struct session *s, err reason)
{
    struct frame f = {.kind = FRAME_BOUND, .conn = asked->conn, .reason = reason};
    if (s) {
        f.sid = s->sid, f.gen = s->gen;
        f.text = session_full(s, home_arena(h));
    }
    to_edge(h, edge, &f);
}

/* To a BIND2: what was switched on as it was bound is safe by now. */
void bind_answer(struct session *s)
{
    struct home *h = home_of(s);
    const struct buf *bound = s->others->bound;
    struct frame f = {.kind = FRAME_BOUND,
                      .conn = s->others->conn,
                      .sid = s->sid,
                      .gen = s->gen,
                      .flags = s->sm ? FRAME_WANT_SM : 0,
                      .ms = s->max_ms,
                      .text = session_full(s, home_arena(h)),
                      .payload = str_from(bound->data, bound->len)};
    to_edge(h, s->edge, &f);
    session_answered(s);
    if (s->second_kind == SECOND_EDGE) /* a copy was begun with it */
        second_state(s, NULL);
}

/* It ends before it was answered: its edge knows nothing of it to be closed. */
void bind_give_up(struct session *s)
{
    if (!s->others || s->others->answer != ANSWER_BOUND)
        return;
    struct frame asked = {.conn = s->others->conn};
    answer_bound(home_of(s), s->edge, &asked, NULL, ERR_STANZA_CONFLICT);
    session_answered(s);
}

static str random_resource(struct home *h)
{
    return arena_printf(home_arena(h), "%016llx",
                        (unsigned long long)entropy_u64(h->node->entropy));
}

/* The resource that is free for this wish, or why there is none (RFC 6120 7.7.2.2). */
static err settle_resource(struct user *u, str wish, str *out)
{
    struct home *h = u->home;
    *out = wish.n ? wish : random_resource(h);
    struct session *old = wish.n ? session_named(u, wish) : NULL;
    if (!old)
        return ERR_OK;
    switch (user_host(u)->conflict) {
    case CONF_CONFLICT_REFUSE: return ERR_STANZA_CONFLICT;
    case CONF_CONFLICT_RENAME: *out = random_resource(h); return ERR_OK;
    default: session_end(old, ERR_STREAM_CONFLICT, true); return ERR_OK;
    }
}

/* What a client that named itself has as the end of its resources, whatever it calls itself. */
static str client_of(str resource)
{
    const char *slash = resource.n ? memrchr(resource.p, '/', resource.n) : NULL;
    return slash ? str_skip(resource, (size_t)(slash + 1 - resource.p)) : resource;
}

str session_client(const struct session *s) { return client_of(session_resource(s)); }

/* XEP-0386 4.2: who binds again has lost what it had. */
static void end_same_client(struct user *u, str resource)
{
    str client = client_of(resource);
    user_each_session(s, u)
        if (!s->doomed && str_eq(session_client(s), client))
            session_end(s, ERR_STREAM_CONFLICT, true);
}

static err may_bind(const struct user *u)
{
    if (!u->exists || !user_host(u))
        return ERR_STANZA_NOT_AUTHORIZED;
    return u->disabled ? ERR_STANZA_NOT_ALLOWED : ERR_OK;
}

static bool too_many(const struct user *u)
{
    uint64_t n = 0;
    user_each_session(s, u)
        n++;
    return n >= u->home->node->conf->limits_sessions_per_user_max;
}

/* ---- where its client is ---- */

/* What the edge wrote as 192.0.2.1:5 or [2001:db8::1]:5; anything else is of no family. */
static struct peer parse_peer(str text)
{
    struct peer p = {0};
    char host[INET6_ADDRSTRLEN] = "";
    const char *colon = text.n ? memrchr(text.p, ':', text.n) : NULL;
    size_t n = colon ? (size_t)(colon - text.p) : 0;
    bool bracketed = n > 2 && text.p[0] == '[';
    n -= bracketed ? 2 : 0;
    if (n == 0 || n >= sizeof host)
        return p;
    memcpy(host, text.p + bracketed, n);
    if (inet_pton(bracketed ? AF_INET6 : AF_INET, host, p.ip) != 1)
        return p;
    for (const char *d = colon + 1; d < text.p + text.n && *d >= '0' && *d <= '9'; d++)
        p.port = (uint16_t)(p.port * 10 + (*d - '0'));
    p.family = bracketed ? 6 : 4;
    return p;
}

/* Where its client is, as the edge says. */
void session_note_peer(struct session *s, str address, uint16_t tls)
{
    s->peer = parse_peer(address);
    s->tls = tls;
}

str session_address(const struct session *s, struct arena *a)
{
    const struct peer *p = &s->peer;
    char text[INET6_ADDRSTRLEN] = "";
    if (!p->family)
        return STR("local");
    inet_ntop(p->family == 6 ? AF_INET6 : AF_INET, p->ip, text, sizeof text);
    return arena_printf(a, p->family == 6 ? "[%s]:%u" : "%s:%u", text, p->port);
}

/* As an address again: log.addresses says how much of one may be written. */
static struct sockaddr_storage peer_address(const struct peer *p)
{
    struct sockaddr_storage out = {0};
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    memcpy(&v4.sin_addr, p->ip, sizeof v4.sin_addr);
    memcpy(&v6.sin6_addr, p->ip, sizeof v6.sin6_addr);
    if (p->family == 4)
        memcpy(&out, &v4, sizeof v4);
    else if (p->family == 6)
        memcpy(&out, &v6, sizeof v6);
    return out;
}

void session_sm_on(struct session *s, const struct frame *f)
{
    uint64_t max = (uint64_t)home_of(s)->node->conf->limits_resume_timeout;
    s->sm = true;
    /* Nobody can log in as the same guest again: what cannot be resumed is not kept. */
    s->resumable = (f->flags & FRAME_WANT_RESUME) && max && !s->user->anonymous;
    s->max_ms = s->resumable ? (uint32_t)(f->ms && f->ms < max ? f->ms : max) : 0;
}

/* All that its client wants is on from its first stanza (XEP-0386 4.2), and it is told when another
 * holds that too. */
static void bind2(struct session *s, const struct frame *f, struct ticket *t)
{
    struct arena *a = home_arena(home_of(s));
    struct binding b = {.bind = xml_root(f->payload, STR("jabber:client"), a)};
    xml_writer_init(&b.bound, a);
    s->reads_archive = true;
    if (f->flags & FRAME_WANT_SM)
        session_sm_on(s, f);
    chain_bound(s, &b);
    str said = xml_written(&b.bound);
    struct others *o = second_others(s);
    o->answer = ANSWER_BOUND, o->stop = 0, o->conn = f->conn, o->asked = t;
    ticket_open(t);
    o->bound = buf_new((uint32_t)said.n);
    o->bound->len = (uint32_t)said.n;
    if (said.n)
        memcpy(o->bound->data, said.p, said.n);
    if (second_choose(s))
        session_copied(s);
}

void session_bind(struct user *u, unsigned edge, const struct frame *f, struct ticket *t)
{
    struct home *h = u->home;
    str resource = STR_NONE;
    err e = may_bind(u);
    if (e == ERR_OK && (f->flags & FRAME_CLIENT))
        end_same_client(u, f->resource);
    if (e == ERR_OK)
        e = settle_resource(u, f->resource, &resource);
    if (e == ERR_OK && too_many(u)) {
        home_count(h, METRIC_limit_resources, 1);
        e = ERR_STANZA_RESOURCE_CONSTRAINT;
    }
    if (e != ERR_OK) {
        answer_bound(h, edge, f, NULL, e);
        return;
    }
    struct session *s = session_new(u, resource, session_new_sid(u), 1);
    s->edge = edge;
    session_note_peer(s, f->text, (uint16_t)f->lane);
    home_count(h, METRIC_sessions_connected, 1);
    home_count(h, METRIC_sessions_started, 1);
    struct sockaddr_storage from = peer_address(&s->peer);
    LOG(h->node->log, session_started, F_JID("jid", session_full(s, home_arena(h))),
        F_INT("home", h->node->shard), F_ADDR("address", &from));
    if (f->flags & FRAME_BIND2) {
        bind2(s, f, t);
    } else {
        second_choose(s);
        answer_bound(h, edge, f, s, ERR_OK);
    }
    record_put(s);
}
