/* route: one stanza for one recipient, at the recipient's home: RFC 6121 8 as the tables of xmpp.md
 * 3 have it. What the user's blocks, archive and copies will add stands in this order too.
 *
 *   route_deliver   finds the user (or waits for it)
 *   route_stanza    message, presence, IQ
 *   route_undelivered   what a session that ended has not given to its client (xmpp.md 6) */
#include "node/home/inside.h"

/* ---- a route that waits ---- */

static void drop_kept(struct work *w) { route_done(container_of(w, struct route, work)); }

struct route *route_keep(const struct route *r)
{
    struct route *k = malloc(sizeof *k + r->to.full.n);
    must(k);
    *k = *r;
    memcpy(k->text, r->to.full.p, r->to.full.n);
    k->to = jid_parse_prepared(str_from(k->text, r->to.full.n));
    k->owned = stanza_ref(k->stanza);
    if (k->ticket)
        ticket_open(k->ticket);
    list_init(&k->work.link);
    k->work.drop = drop_kept;
    k->work.bytes = (uint32_t)(sizeof *k + k->to.full.n + k->stanza->size);
    return k;
}

void route_done(struct route *kept)
{
    stanza_unref(kept->owned);
    if (kept->ticket)
        ticket_close(kept->ticket);
    free(kept);
}

static void run_loaded(struct work *w, struct user *u)
{
    struct route *r = container_of(w, struct route, work);
    r->user = u;
    if (u)
        route_stanza(u, r);
    else
        route_error(r, ERR_STANZA_RESOURCE_CONSTRAINT);
    route_done(r);
}

void route_replace(struct route *r, struct stanza *with)
{
    stanza_unref(r->owned);
    r->stanza = r->owned = with;
}

/* ---- answers ---- */

static void answer(struct route *r, struct stanza *s, const char *purpose)
{
    home_send_derived(r->home, s, r->uid, r->to.bare, purpose, r->ticket);
    stanza_unref(s);
}

void route_error(struct route *r, err e)
{
    struct stanza *error = r->stanza->kind == STANZA_PRESENCE
                               ? NULL
                               : stanza_error(r->home->node->scan, r->stanza, e, r->to.domain,
                                              STR_NONE, home_arena(r->home));
    home_count(r->home,
               METRIC_AT(undelivered, error ? FATE_BOUNCED : FATE_DROPPED, METRIC_ERR(STANZA, e)),
               1);
    if (!error)
        return;
    home_count(r->home, METRIC_AT(stanza_errors, METRIC_ERR(CONDITION, e), 0), 1);
    answer(r, error, "error");
}

static void drop(struct route *r) { home_count(r->home, METRIC_undelivered_rule, 1); }

/* A stanza without `to` of its own (presence for many) gets the recipient's at the edge. */
static uint32_t to_flags(const struct route *r)
{
    uint32_t again = r->flags & FRAME_AGAIN;
    if (r->stanza->index.to.off)
        return again;
    return again | (r->to.resource.n ? FRAME_TO_FULL : FRAME_TO_BARE);
}

static struct outbound *give(struct session *s, struct route *r)
{
    return session_send(s, r->stanza, r->uid, to_flags(r), r->us, r->ticket);
}

/* ---- messages ---- */

/* Highest priority of the eligible, when only that one counts. */
static int least_priority(const struct user *u)
{
    int top = 0;
    if (user_host(u) && user_host(u)->bare_delivery == CONF_BARE_TOP)
        user_each_session(s, u)
            if (session_eligible(s) && s->priority > top)
                top = s->priority;
    return top;
}

void route_would_give(struct user *u, struct route *r)
{
    struct session *s = r->to.resource.n ? session_named(u, r->to.resource) : NULL;
    r->gave_one = s;
    r->gave_least = s ? GAVE_NONE : least_priority(u);
}

bool route_gave(const struct route *r, const struct session *s)
{
    return r->gave_one ? s == r->gave_one : session_eligible(s) && s->priority >= r->gave_least;
}

unsigned route_to_eligible(struct user *u, struct route *r)
{
    int least = least_priority(u);
    unsigned n = 0;
    struct outbound *first = NULL;
    r->gave_least = least;
    user_each_session(s, u) {
        if (!session_eligible(s) || s->priority < least)
            continue;
        struct outbound *o = give(s, r);
        n++;
        if (!o)
            continue;
        o->shared = n > 1;
        if (first)
            first->shared = true;
        else
            first = o;
    }
    return n;
}

static bool anybody_attached(const struct user *u)
{
    user_each_session(s, u)
        if (session_eligible(s) && !s->detached)
            return true;
    return false;
}

static void put_offline(struct user *u, struct route *r)
{
    if (offline_wants(u, r->stanza))
        offline_put(u, r);
    else if (r->stanza->flags & STANZA_BODY)
        route_error(r, ERR_STANZA_SERVICE_UNAVAILABLE);
    else
        drop(r);
}

/* chat and normal to the bare JID. Messages that are in the store go first: behind them it waits,
 * or is stored too while nobody is there to take them. */
static void message_to_bare(struct user *u, struct route *r)
{
    if (!r->offline_only && offline_wait(u, r, NULL))
        return;
    bool behind = r->offline_only || ((u->offline_count || u->putting) && !anybody_attached(u));
    if (behind && offline_wants(u, r->stanza))
        offline_put(u, r);
    else if (!route_to_eligible(u, r))
        put_offline(u, r);
    chain_given(u, r);
}

/* RFC 6121 8.5.1 */
static void message_without_account(struct route *r)
{
    if (r->stanza->type == TYPE_HEADLINE || r->stanza->type == TYPE_ERROR)
        drop(r);
    else
        route_error(r, ERR_STANZA_SERVICE_UNAVAILABLE);
}

/* Detached, it is given the rows when its client comes back; what comes now is behind them. */
static bool is_behind_rows(const struct user *u, const struct session *s)
{
    return (u->offline_count || u->putting) && s->detached && session_eligible(s) &&
           !anybody_attached(u);
}

static void give_one(struct user *u, struct route *r, struct session *s)
{
    r->gave_one = s;
    give(s, r);
    chain_given(u, r);
}

/* RFC 6121 8.5.2.1.1, 8.5.2.2.1, 8.5.3.1, 8.5.3.2.1. */
static void route_message(struct user *u, struct route *r)
{
    /* Our predecessor may have stored it: the store knows its uid, and gives all in order. */
    if ((r->flags & FRAME_AGAIN) && (u->offline_count || u->putting) &&
        offline_wants(u, r->stanza)) {
        offline_put_again(u, r);
        chain_given(u, r);
        return;
    }
    bool full = r->to.resource.n > 0;
    struct session *s = full ? session_named(u, r->to.resource) : NULL;
    if (s) {
        if (is_behind_rows(u, s) && offline_wants(u, r->stanza))
            offline_put(u, r), chain_given(u, r);
        else if (!offline_wait(u, r, s))
            give_one(u, r, s);
        return;
    }
    if (full && (r->flags & FRAME_AGAIN)) { /* its session may have died with our predecessor */
        route_undelivered(r, false, false);
        return;
    }
    switch (r->stanza->type) {
    case TYPE_CHAT: message_to_bare(u, r); return;
    case TYPE_NORMAL:
        if (full)
            route_error(r, ERR_STANZA_SERVICE_UNAVAILABLE);
        else
            message_to_bare(u, r);
        return;
    case TYPE_HEADLINE:
        if (full || !route_to_eligible(u, r))
            drop(r);
        if (!full)
            chain_given(u, r);
        return;
    case TYPE_GROUPCHAT: route_error(r, ERR_STANZA_SERVICE_UNAVAILABLE); return;
    default: /* an error; to the bare JID it answers what the home itself has sent */
        drop(r);
        if (full)
            chain_given(u, r);
    }
}

/* ---- presence ---- */

static void run_behind_change(struct work *w, struct user *u)
{
    struct route *r = container_of(w, struct route, work);
    ring_remove(&u->changes, &w->link);
    u->changing = false;
    route_stanza(u, r);
    route_done(r);
}

/* It waited for the barrier: its sender's home sent it to our predecessor already. */
enum { ROUTE_EARLY = 1u << 31 };

/* Each session for itself, for presence of many is in the hands of some clients while others wait;
 * and not again where what has followed it is there already (delivery.md 9, 5). What comes later is
 * done again by a home that is new itself, which may have shown an older state meanwhile. */
static bool client_has(const struct session *s, const struct route *r)
{
    return (r->flags & FRAME_AGAIN) && (r->flags & ROUTE_EARLY) &&
           mark_set_has_of(&r->home->known, r->uid, s->sid, stanza_fp(r->stanza));
}

static void presence_to_sessions(struct user *u, struct route *r)
{
    bool any = false;
    user_each_session(s, u) {
        bool meant =
            r->to.resource.n ? str_eq(session_resource(s), r->to.resource) : session_available(s);
        if (meant && !client_has(s, r))
            give(s, r);
        any |= meant;
    }
    if (!any)
        drop(r);
}

/* A subscription stanza, but not a home's `unsubscribed` as the answer to a client's own probe. */
static bool is_change(const struct route *r)
{
    switch (r->stanza->type) {
    case TYPE_UNSUBSCRIBED: return !r->uid.lane || !r->to.resource.n;
    case TYPE_SUBSCRIBE:
    case TYPE_SUBSCRIBED:
    case TYPE_UNSUBSCRIBE: return true;
    default: return false;
    }
}

static void route_presence(struct user *u, struct route *r)
{
    /* Presence keeps its order with the changes of the roster that were under way before it; what
     * becomes a change itself stands in line at once. */
    if (u->changes && !u->pumping && !is_change(r)) {
        struct route *k = route_keep(r);
        k->work.run = run_behind_change;
        ring_push_back(&u->changes, &k->work.link);
        return;
    }
    if (is_change(r)) {
        if (u->exists)
            subscription_to(u, r);
        return;
    }
    switch (r->stanza->type) {
    case TYPE_PROBE: presence_probed(u, r); return;
    case TYPE_ERROR:
        if (!r->to.resource.n) {
            drop(r);
            return;
        }
        /* fall through */
    default: presence_to_sessions(u, r);
    }
}

/* ---- IQ (RFC 6121 8.5.2.1.3, 8.5.3) ---- */

static bool may_ask(const struct session *s, str asker)
{
    const struct conf_host *host = user_host(s->user);
    if (!host || host->iq_strangers == CONF_STRANGERS_DELIVER)
        return true;
    struct jid j = jid_parse_prepared(asker);
    return roster_sees_us(s->user, j.bare) || presence_directed_to(s, j.full) ||
           presence_directed_to(s, j.bare);
}

static void route_iq(struct user *u, struct route *r)
{
    bool request = r->stanza->type == TYPE_GET || r->stanza->type == TYPE_SET;
    if (!r->to.resource.n) {
        str asker = jid_parse_prepared(stanza_from(r->stanza)).bare;
        if (request)
            iq_dispatch(r->home, IQ_OTHER_ACCOUNT, u->exists ? u : NULL, NULL, r->stanza,
                        u->exists && roster_sees_us(u, asker), r->us, r->ticket);
        return;
    }
    struct session *s = session_named(u, r->to.resource);
    if (s && (!request || may_ask(s, stanza_from(r->stanza))))
        give(s, r);
    else if (request)
        route_error(r, ERR_STANZA_SERVICE_UNAVAILABLE);
}

/* ---- what comes again ---- */

/* Has this been handled before? Then it is as safe as it was then: what is still open of it is
 * waited for. Presence may be repeated (delivery.md 9, 5); so may an answer, by whose lane a sender
 * of requests to everybody would fill the table. */
static bool may_come_again(const struct stanza *s, struct uid uid)
{
    return uid.sid && s->kind != STANZA_PRESENCE && s->type != TYPE_ERROR && s->type != TYPE_RESULT;
}

/* account: its hash among the users. Its resources have rows of their own: fingerprints of single
 * stanzas are short, and not kept of all that may come again. */
static bool note(struct home *h, uint64_t account, unsigned slot, const struct stanza *s,
                 struct uid uid)
{
    return may_come_again(s, uid) && seen_note(&h->seen, uid, account ^ stanza_to_fp(s), slot,
                                               stanza_fp(s), loop_now_ms(h->node->loop));
}

void route_note(struct home *h, const struct stanza *s, struct uid uid)
{
    str bare = stanza_to_jid(s).bare;
    note(h, hash_str(&h->node->key, bare), ring_slot(h->node->ring, bare), s, uid);
}

/* In a cluster the first one to come may be marked so and the second not: from the sender's new
 * home on one channel, from the former one, late, on another. */
static bool is_known(struct home *h, const struct route *r)
{
    bool known = note(h, r->user->node.hash, r->user->slot, r->stanza, r->uid);
    if (!(r->flags & FRAME_AGAIN) && !h->node->epoch)
        return false;
    known |= r->stanza->kind != STANZA_PRESENCE &&
             mark_set_has(&h->known, r->uid, r->user->slot, stanza_fp(r->stanza));
    if (!known)
        return false;
    home_count(h, METRIC_duplicates_home, 1);
    struct ticket *first = r->ticket ? ticket_find(&h->open, r->uid, r->ticket) : NULL;
    if (first)
        ticket_join(first, r->ticket);
    return true;
}

/* ---- the whole ---- */

void route_stanza(struct user *u, struct route *r)
{
    r->user = u;
    bool first = !r->noted;
    r->noted = true;
    r->gave_one = NULL, r->gave_least = GAVE_NONE;
    if (first && u->exists && is_known(u->home, r)) {
        chain_known(u, r);
        return;
    }
    if (first && u->exists && !chain_received(u, r))
        return;
    switch ((enum stanza_kind)r->stanza->kind) {
    case STANZA_MESSAGE:
        if (u->exists)
            route_message(u, r);
        else
            message_without_account(r);
        return;
    case STANZA_PRESENCE: route_presence(u, r); return;
    case STANZA_IQ: route_iq(u, r); return;
    }
}

/* Does this need nothing but the sessions? Whoever has one is in memory: then nobody is loaded for
 * it. So the presence of one who comes does not load all contacts that are away. */
static bool needs_sessions_only(const struct stanza *s, const struct jid *to)
{
    switch ((enum stanza_type)s->type) {
    case TYPE_AVAILABLE:
    case TYPE_UNAVAILABLE:
    case TYPE_RESULT:
    case TYPE_HEADLINE:
    case TYPE_ERROR: return true;
    case TYPE_GET:
    case TYPE_SET: return to->resource.n > 0;
    default: return false;
    }
}

static void without_user(struct route *r)
{
    if (r->stanza->type == TYPE_GET || r->stanza->type == TYPE_SET)
        route_error(r, ERR_STANZA_SERVICE_UNAVAILABLE);
    else
        drop(r);
}

static void run_behind_barrier(struct work *w, struct user *u)
{
    struct route *r = container_of(w, struct route, work);
    if (home_waits(r->home, r->to.bare)) /* no room */
        route_error(r, ERR_STANZA_RESOURCE_CONSTRAINT);
    else
        route_deliver(r->home, &r->to, r->stanza, r->uid, r->flags | ROUTE_EARLY, r->us, r->ticket);
    route_done(r);
}

void route_deliver(struct home *h, const struct jid *to, struct stanza *s, struct uid uid,
                   uint32_t flags, int64_t us, struct ticket *t)
{
    struct route r = {.work = {.run = run_loaded},
                      .home = h,
                      .ticket = t,
                      .stanza = s,
                      .to = *to,
                      .uid = uid,
                      .us = us,
                      .flags = flags};
    if (!r.to.local.n || !home_serves(h, r.to.domain))
        return; /* no account can be there */
    if (home_waits(h, r.to.bare)) {
        struct route *k = route_keep(&r);
        k->work.run = run_behind_barrier;
        home_park(h, &h->routes, &k->work);
        return;
    }
    struct user *u = user_find(h, r.to.bare);
    if (u && u->state == USER_READY) {
        user_pin(u);
        route_stanza(u, &r);
        user_unpin(u);
        stanza_unref(r.owned);
    } else if (!u && needs_sessions_only(s, &r.to)) {
        without_user(&r);
    } else {
        struct route *k = route_keep(&r);
        user_with(h, k->to.bare, &k->work);
    }
}

/* ---- after a session's end ---- */

static bool another_holds(const struct user *u, const struct route *r)
{
    user_each_session(s, u)
        if (session_find_out(s, r->uid, stanza_fp(r->stanza)))
            return true;
    return false;
}

static bool is_behind_store(const struct user *u) { return u->offline_count || u->putting; }

static void message_again(struct route *r)
{
    struct user *u = r->user;
    str domain = jid_parse_prepared(user_bare(u)).domain;
    struct stanza *was = r->stanza;
    bool given = false;
    r->stanza = stanza_with_delay(r->home->node->scan, was, domain, r->us, home_arena(r->home));
    if (anybody_attached(u) && !offline_wait(u, r, NULL))
        given = route_to_eligible(u, r) > 0;
    else
        given = anybody_attached(u);
    stanza_unref(r->stanza);
    r->stanza = was;
    if (!given)
        put_offline(u, r);
}

/* Of a message for other resources (XEP-0280), or of an archive's: nobody else's. Clients' own have
 * a resource. */
static bool is_copy(const struct route *r)
{
    return r->stanza->index.nchild == 1 &&
           (r->stanza->index.child[0].ns == NS_CARBONS || r->stanza->index.child[0].ns == NS_MAM) &&
           str_eq(stanza_from(r->stanza), user_bare(r->user));
}

void route_undelivered(struct route *r, bool shared, bool taken)
{
    enum stanza_type type = r->stanza->type;
    if (is_copy(r) || r->stanza->kind == STANZA_PRESENCE || type == TYPE_HEADLINE ||
        type == TYPE_ERROR || type == TYPE_RESULT)
        drop(r);
    else if (r->stanza->kind == STANZA_IQ || type == TYPE_GROUPCHAT)
        route_error(r, ERR_STANZA_RECIPIENT_UNAVAILABLE);
    else if (!r->user->exists)
        message_without_account(r);
    else if ((shared && taken) || another_holds(r->user, r))
        drop(r);
    else if (r->stored && is_behind_store(r->user) && offline_wants(r->user, r->stanza))
        offline_put(r->user, r); /* the store knows, and gives all in order */
    else
        message_again(r);
}
