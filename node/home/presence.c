/* presence: who is there, for whom (RFC 6121 4). A session keeps its last broadcast presence as it
 * came and the time it came: that is what probes are answered with. Broadcasts leave as one stanza
 * without `to` and a list of recipients per destination shard. */
#include "node/home/inside.h"

#include <ctype.h>

#define NS "jabber:client"

struct stanza *presence_make(struct home *h, str from, str to, const char *type)
{
    struct xml_writer w;
    xml_writer_init(&w, home_arena(h));
    xml_open(&w, "presence");
    xml_put_attr(&w, "from", from);
    if (to.n)
        xml_put_attr(&w, "to", to);
    if (type)
        xml_put_attr(&w, "type", str_of(type));
    xml_close(&w, "presence");
    return stanza_make(h->node->scan, xml_written(&w), home_arena(h));
}

/* RFC 6121 4.7.2.3; what is missing or wrong counts as 0. */
static int8_t priority_of(const struct stanza *s, struct arena *a)
{
    struct xml_el root = stanza_root(s, a), el;
    if (!xml_find(&root, NS, "priority", &el, a))
        return 0;
    str t = xml_text(&el, a);
    while (t.n && isspace((unsigned char)t.p[0]))
        t = str_skip(t, 1);
    while (t.n && isspace((unsigned char)t.p[t.n - 1]))
        t.n--;
    bool minus = t.n && t.p[0] == '-';
    if (minus || (t.n && t.p[0] == '+'))
        t = str_skip(t, 1);
    int x = 0;
    for (size_t i = 0; i < t.n; i++) {
        if (t.p[i] < '0' || t.p[i] > '9' || x > 128)
            return 0;
        x = x * 10 + (t.p[i] - '0');
    }
    x = minus ? -x : x;
    return x < -128 || x > 127 ? 0 : (int8_t)x;
}

/* How the presence of s begins, as its edge makes it. */
static str shown_begin(const struct session *s)
{
    struct arena *a = home_arena(s->user->home);
    str parts[] = {STR("<presence"), xml_attr_text("from", session_full(s, a), a)};
    return arena_concat(a, parts, 2);
}

str presence_shown(const struct session *s)
{
    str parts[] = {shown_begin(s), str_from(s->shown->xml, s->shown->n)};
    return arena_concat(home_arena(s->user->home), parts, 2);
}

static struct stanza *shown_stanza(struct home *h, const struct session *s)
{
    return stanza_make(h->node->scan, presence_shown(s), home_arena(h));
}

bool presence_is_here(const struct session *s)
{
    struct arena *a = home_arena(s->user->home);
    struct xml_el root = xml_root(presence_shown(s), STR(NS), a), el;
    str show = xml_find(&root, NS, "show", &el, a) ? xml_text(&el, a) : STR_NONE;
    return !str_is(show, "away") && !str_is(show, "xa");
}

static struct stanza *with_delay(struct home *h, const struct session *s)
{
    str domain = jid_parse_prepared(user_bare(s->user)).domain;
    struct stanza *shown = shown_stanza(h, s);
    struct stanza *delayed =
        stanza_with_delay(h->node->scan, shown, domain, s->shown->us, home_arena(h));
    stanza_unref(shown);
    return delayed;
}

static void keep_shown(struct session *s, str xml, int64_t us)
{
    free(s->shown);
    s->shown = malloc(sizeof *s->shown + xml.n);
    must(s->shown);
    s->shown->us = us;
    s->shown->n = (uint32_t)xml.n;
    memcpy(s->shown->xml, xml.p, xml.n);
}

static void show(struct session *s, const struct stanza *stanza)
{
    str xml = stanza_xml(stanza), begin = shown_begin(s);
    must(str_starts(xml, begin));
    keep_shown(s, str_skip(xml, begin.n), home_wall_us(s->user->home));
}

/* ---- directed presence (RFC 6121 4.6) ---- */

struct directed {
    struct hnode node;
    size_t len;
    char jid[];
};

static struct directed *directed_find(const struct session *s, str jid)
{
    if (!s->directed)
        return NULL;
    uint64_t hash = hash_str(&s->user->home->node->key, jid);
    for (struct hnode *n = htable_find(s->directed, hash); n; n = htable_find_next(n)) {
        struct directed *d = container_of(n, struct directed, node);
        if (str_eq(str_from(d->jid, d->len), jid))
            return d;
    }
    return NULL;
}

bool presence_directed_to(const struct session *s, str jid)
{
    return directed_find(s, jid) != NULL;
}

static void directed_add(struct session *s, str jid)
{
    if (!s->directed) {
        s->directed = malloc(sizeof *s->directed);
        must(s->directed);
        htable_init(s->directed);
    }
    struct directed *d = malloc(sizeof *d + jid.n);
    must(d);
    d->len = jid.n;
    memcpy(d->jid, jid.p, jid.n);
    htable_insert(s->directed, &d->node, hash_str(&s->user->home->node->key, jid));
}

static void directed_remove(struct session *s, struct directed *d)
{
    htable_remove(s->directed, &d->node);
    free(d);
}

void directed_free(struct session *s)
{
    if (!s->directed)
        return;
    htable_each(it, s->directed)
        directed_remove(s, container_of(it, struct directed, node));
    htable_close(s->directed);
    free(s->directed);
    s->directed = NULL;
}

static bool directed_full(const struct session *s)
{
    return s->directed && s->directed->count >= s->user->home->node->conf->limits_directed_max;
}

static void pass_on(struct session *s, struct stanza *stanza, struct ticket *t)
{
    struct home *h = s->user->home;
    home_send(h, stanza, STR_NONE, ticket_uid(t), 0, h->in_us, t);
}

/* 4.6.3: who has our presence by broadcast hears of our end by broadcast; before the initial
 * presence there is none. */
static bool is_told_anyway(const struct session *s, str bare)
{
    return s->shown && roster_sees_us(s->user, bare);
}

static void directed(struct session *s, struct stanza *stanza, struct ticket *t)
{
    struct jid to = jid_parse_prepared(stanza_to(stanza));
    struct directed *d = directed_find(s, to.full);
    if (!home_serves(s->user->home, to.domain)) {
        if (stanza->type == TYPE_AVAILABLE)
            from_error(s, stanza, ERR_STANZA_REMOTE_SERVER_NOT_FOUND, t);
        return;
    }
    if (!to.local.n)
        return; /* the server needs no presence */
    if (stanza->type == TYPE_UNAVAILABLE && d) {
        directed_remove(s, d);
        second_state(s, t);
    } else if (stanza->type == TYPE_AVAILABLE && !d && !is_told_anyway(s, to.bare)) {
        if (directed_full(s)) {
            home_count(s->user->home, METRIC_limit_directed, 1);
            from_error(s, stanza, ERR_STANZA_RESOURCE_CONSTRAINT, t);
            return;
        }
        directed_add(s, to.full);
        second_state(s, t);
    }
    pass_on(s, stanza, t);
}

/* ---- broadcast ---- */

struct broadcast {
    struct fanout fanout;
    const struct user *user;
};

static void add_contact(const struct item *i, void *ctx)
{
    struct broadcast *b = ctx;
    if ((i->subscription & SUB_FROM) && !user_blocks(b->user, item_contact(i)))
        fanout_add(&b->fanout, item_contact(i));
}

static void to_contacts(struct user *u, struct stanza *s, struct uid uid, struct ticket *t)
{
    struct broadcast out = {.user = u};
    fanout_init(&out.fanout, u->home, s, uid, home_wall_us(u->home), t);
    user_roster_each(u, add_contact, &out);
    fanout_send(&out.fanout);
}

static void to_own(struct session *s, struct stanza *stanza, struct uid uid, bool itself,
                   struct ticket *t)
{
    int64_t now = home_wall_us(s->user->home);
    user_each_session(o, s->user)
        if (o == s ? itself : session_available(o))
            session_send(o, stanza, uid, FRAME_TO_BARE, now, t);
}

/* Bare JIDs that the broadcast has reached are left out. */
static void to_directed(struct session *s, struct stanza *stanza, struct uid uid, bool broadcast,
                        struct ticket *t)
{
    if (!s->directed)
        return;
    struct fanout out;
    fanout_init(&out, s->user->home, stanza, uid, home_wall_us(s->user->home), t);
    htable_each(it, s->directed) {
        struct directed *d = container_of(it, struct directed, node);
        str jid = str_from(d->jid, d->len);
        if (!broadcast || !roster_sees_us(s->user, jid))
            fanout_add(&out, jid);
    }
    fanout_send(&out);
    directed_free(s);
}

/* ---- probes at a login ----
 *
 * Each may bring several answers, all at once: a share of the session's queue at a time, so that
 * nobody has too many friends to log in. */

struct probes {
    struct probes *next; /* behind it */
    struct stanza *probe;
    const char *purpose;
    unsigned answers; /* of one contact, at most, as far as is known */
    size_t at, len;
    char contacts[]; /* each 2 bytes of length and its bytes */
};

struct measured {
    const struct user *user;
    unsigned least; /* enum subscription: bits that a contact's has to have */
    size_t size;
    struct probes *probes;
};

static bool is_to_be_probed(const struct measured *m, const struct item *i)
{
    return (i->subscription & m->least) == m->least && !user_blocks(m->user, item_contact(i));
}

static void measure(const struct item *i, void *ctx)
{
    struct measured *m = ctx;
    if (is_to_be_probed(m, i))
        m->size += 2 + i->contact_len;
}

static void note_contact(const struct item *i, void *ctx)
{
    const struct measured *m = ctx;
    struct probes *p = m->probes;
    if (!is_to_be_probed(m, i))
        return;
    p->contacts[p->len++] = (char)(i->contact_len >> 8);
    p->contacts[p->len++] = (char)(i->contact_len & 0xff);
    memcpy(p->contacts + p->len, i->text, i->contact_len);
    p->len += i->contact_len;
}

static str next_contact(struct probes *p)
{
    const unsigned char *n = (const unsigned char *)p->contacts + p->at;
    str contact = str_from(n + 2, (size_t)n[0] << 8 | n[1]);
    p->at += 2 + contact.n;
    return contact;
}

static void probes_end(struct session *s)
{
    struct probes *p = s->waiting->probes;
    s->waiting->probes = p->next;
    stanza_unref(p->probe);
    free(p);
}

void probes_free(struct session *s)
{
    if (!s->waiting)
        return;
    while (s->waiting->probes)
        probes_end(s);
    session_waited(s);
}

/* Of a probe that is to be answered by all that there is to see now: by `unavailable` of the
 * account, then by what its resources show. */
#define ASK "ask"
static bool asks_for_all(const struct route *r)
{
    return r->uid.lane == home_lane(jid_parse_prepared(stanza_from(r->stanza)).bare, ASK);
}

static void send_probes(struct session *s, struct ticket *t)
{
    struct home *h = s->user->home;
    struct probes *p = s->waiting->probes;
    struct uid uid = {s->sid, s->in_ord, home_lane(user_bare(s->user), p->purpose)};
    uint64_t share = h->node->conf->limits_unacked_max / 8 / p->answers;
    struct fanout out;
    fanout_init(&out, h, p->probe, uid, home_wall_us(h), t);
    for (uint64_t n = share ? share : 1; n && p->at < p->len; n--)
        fanout_add(&out, next_contact(p));
    fanout_send(&out);
    if (p->at == p->len)
        probes_end(s), session_waited(s);
}

void presence_probe_more(struct session *s)
{
    if (s->waiting && s->waiting->probes && session_has_room(s))
        send_probes(s, NULL);
}

/* The probe goes to all contacts of (at least) that subscription, behind what is to be probed
 * already. */
static void probe_all(struct session *s, struct stanza *probe, const char *purpose,
                      unsigned answers, enum subscription least, struct ticket *t)
{
    struct measured m = {.user = s->user, .least = least};
    user_roster_each(s->user, measure, &m);
    if (!m.size)
        return;
    struct probes *p = m.probes = malloc(sizeof *p + m.size);
    must(p);
    *p = (struct probes){.probe = stanza_ref(probe), .purpose = purpose, .answers = answers};
    user_roster_each(s->user, note_contact, &m);
    struct probes **at = &session_waiting(s)->probes;
    bool first = !*at;
    while (*at)
        at = &(*at)->next;
    *at = p;
    if (first)
        send_probes(s, t);
}

static void probe_contacts(struct session *s, struct ticket *t)
{
    struct home *h = s->user->home;
    probes_free(s);
    struct stanza *probe = presence_make(h, session_full(s, home_arena(h)), STR_NONE, "probe");
    probe_all(s, probe, "probe", 1, SUB_TO, t);
    stanza_unref(probe);
}

void presence_ask_friends(struct session *s, struct stanza *probe, const char *purpose,
                          unsigned answers)
{
    probe_all(s, probe, purpose, answers, SUB_BOTH, NULL);
}

/* ---- initial presence ---- */

static void show_others_to(struct session *s, struct ticket *t)
{
    struct home *h = s->user->home;
    struct uid uid = ticket_uid(t);
    user_each_session(o, s->user) {
        if (o == s || !session_available(o))
            continue;
        struct stanza *p = with_delay(h, o);
        uid.lane = home_lane(session_full(o, home_arena(h)), "probed");
        session_send(s, p, uid, FRAME_TO_FULL, o->shown->us, t);
        stanza_unref(p);
    }
}

static void show_pending(struct session *s, struct ticket *t)
{
    if (!s->user->roster)
        return;
    list_each(p, &s->user->roster->pending, struct pending, link) {
        if (!session_has_room(s))
            return; /* the rest at the next initial presence */
        if (user_blocks(s->user, str_from(p->contact, p->contact_len)))
            continue;
        struct uid uid = ticket_uid(t);
        uid.lane = home_lane(str_from(p->contact, p->contact_len), "pending");
        session_send(s, p->stanza, uid, 0, p->us, t);
    }
}

/* Our predecessor had handled a later one before it died, whoever is to hear of that hears of it:
 * this one was not safe, and would be news of the past (delivery.md 9, 5). */
static bool is_past(const struct session *s, const struct ticket *t)
{
    return ticket_is_again(t) && ticket_uid(t).ord < s->shown_ord;
}

static void show_to_all(struct session *s, struct stanza *stanza, struct ticket *t)
{
    struct uid uid = ticket_uid(t);
    show(s, stanza);
    s->shown_ord = uid.ord;
    s->priority = priority_of(stanza, home_arena(s->user->home));
    record_put(s);
    second_state(s, t);
    to_own(s, stanza, uid, true, t);
    to_contacts(s->user, stanza, uid, t);
}

/* RFC 6121 4.2.2 and 4.4; the order is that of xmpp.md 4. */
static void available(struct session *s, struct stanza *stanza, struct ticket *t)
{
    bool initial = !s->shown || ticket_is_again(t); /* our predecessor may have done but the half */
    if (!is_past(s, t))
        show_to_all(s, stanza, t);
    if (initial && s->shown) {
        probe_contacts(s, t);
        show_others_to(s, t);
        show_pending(s, t);
    }
    if (s->shown) /* else it has become unavailable since */
        chain_shown(s, initial ? SHOWN_INITIAL : SHOWN_LATER, t);
    if (session_eligible(s))
        offline_start(s);
    else
        offline_left(s->user, s);
}

/* XEP-0012: since when, and with which words, nobody of this account is there. */
static void on_last_put(struct home *h, void *ctx, err e, const Store__Reply *reply) {}

static void note_last(struct user *u, str status)
{
    user_each_session(s, u)
        if (session_available(s))
            return;
    user_set_last(u, home_wall_us(u->home), str_from(status.p, status.n > 1023 ? 1023 : status.n));
    if (!u->exists || u->anonymous)
        return;
    Store__Request req = STORE__REQUEST__INIT;
    Store__LastPut op = STORE__LAST_PUT__INIT;
    op.time_us = u->last->us, op.status = home_bytes(str_of(u->last->status));
    req.op_case = STORE__REQUEST__OP_LAST_PUT, req.last_put = &op;
    home_store(u->home, user_bare(u), &req, on_last_put, NULL);
}

static str status_of(const struct stanza *s, struct arena *a)
{
    struct xml_el root = stanza_root(s, a), el;
    return xml_find(&root, NS, "status", &el, a) ? xml_text(&el, a) : STR_NONE;
}

static void gone(struct session *s, struct stanza *stanza, struct uid uid, bool itself,
                 struct ticket *t)
{
    bool broadcast = s->shown || (t && ticket_is_again(t)); /* it may have been said to some only */
    if (broadcast) {
        to_contacts(s->user, stanza, uid, t);
        to_own(s, stanza, uid, itself, t);
        free(s->shown);
        s->shown = NULL;
        chain_shown(s, SHOWN_GONE, t);
        probes_free(s);
        if (!s->ended) { /* else behind its queue */
            record_put(s);
            offline_left(s->user, s);
        }
        note_last(s->user, status_of(stanza, home_arena(s->user->home)));
    }
    to_directed(s, stanza, uid, broadcast, t);
    if (!s->ended)
        second_state(s, t);
}

static void unavailable(struct session *s, struct stanza *stanza, struct ticket *t)
{
    if (is_past(s, t))
        return;
    s->shown_ord = ticket_uid(t).ord;
    gone(s, stanza, ticket_uid(t), true, t);
}

/* Two of one full JID: only while sessions are made again (attach.c). */
static bool namesake_is_shown(const struct session *s)
{
    user_each_session(o, s->user)
        if (o != s && o->shown && str_eq(session_resource(o), session_resource(s)))
            return true;
    return false;
}

void presence_ended(struct session *s)
{
    struct home *h = s->user->home;
    if ((!s->shown && !s->directed) || namesake_is_shown(s))
        return;
    str full = session_full(s, home_arena(h));
    struct stanza *stanza = presence_make(h, full, STR_NONE, "unavailable");
    gone(s, stanza, (struct uid){s->sid, s->in_ord, home_lane(full, "ended")}, false, NULL);
    stanza_unref(stanza);
}

/* ---- what a second holder keeps ---- */

/* Of a frame's header, which has 64 KiB: of more only the half is kept. */
enum { SNAP_PRESENCE_MAX = 24 * 1024, SNAP_DIRECTED_MAX = 24 * 1024 };

/* A presence that is larger is kept as one that says nothing but its priority. */
static str presence_kept(const struct session *s)
{
    struct arena *a = home_arena(s->user->home);
    if (s->shown->n <= SNAP_PRESENCE_MAX)
        return str_from(s->shown->xml, s->shown->n);
    return arena_printf(a, " xmlns='jabber:client'><priority>%d</priority></presence>",
                        s->priority);
}

void presence_snap(const struct session *s, struct snap *snap)
{
    struct arena *a = home_arena(s->user->home);
    size_t bytes = 0;
    snap->presence_ord = s->shown_ord;
    if (s->shown)
        snap->presence = presence_kept(s), snap->presence_us = s->shown->us;
    if (!s->directed)
        return;
    str *jids = arena_alloc(a, s->directed->count * sizeof *jids);
    snap->directed = jids;
    htable_each(it, s->directed) {
        struct directed *d = container_of(it, struct directed, node);
        bytes += d->len + 8;
        if (bytes <= SNAP_DIRECTED_MAX)
            jids[snap->directed_count++] = str_from(d->jid, d->len);
    }
}

void presence_restore(struct session *s, const struct snap *snap)
{
    struct home *h = s->user->home;
    for (size_t i = 0; i < snap->directed_count; i++)
        if (!directed_find(s, snap->directed[i]) && !directed_full(s))
            directed_add(s, snap->directed[i]);
    s->shown_ord = snap->presence_ord;
    if (!snap->presence.n)
        return;
    keep_shown(s, snap->presence, snap->presence_us);
    struct stanza *p = shown_stanza(h, s);
    s->priority = priority_of(p, home_arena(h));
    stanza_unref(p);
}

void presence_from(struct session *s, struct stanza *stanza, struct ticket *t)
{
    bool to = stanza_to(stanza).n > 0;
    switch ((enum stanza_type)stanza->type) {
    case TYPE_SUBSCRIBE:
    case TYPE_SUBSCRIBED:
    case TYPE_UNSUBSCRIBE:
    case TYPE_UNSUBSCRIBED:
        if (to)
            subscription_from(s, stanza, t);
        return;
    case TYPE_AVAILABLE:
        if (!to) {
            available(s, stanza, t);
            return;
        }
        break;
    case TYPE_UNAVAILABLE:
        if (!to) {
            unavailable(s, stanza, t);
            return;
        }
        break;
    default: { /* probe, error */
        struct jid j = jid_parse_prepared(stanza_to(stanza));
        if (j.local.n && home_serves(s->user->home, j.domain))
            pass_on(s, stanza, t);
        return;
    }
    }
    directed(s, stanza, t);
}

/* ---- probes (RFC 6121 4.3) ---- */

/* A probe that a client has sent (lane 0) is answered to that client; one of a home at a login to
 * the account, where `unsubscribed` mends what the two rosters disagree about. */
static void answer_probe(struct route *r, const char *type)
{
    str from = stanza_from(r->stanza);
    str to = r->uid.lane == 0 ? from : jid_parse_prepared(from).bare;
    struct stanza *s = presence_make(r->home, r->to.bare, to, type);
    home_send_derived(r->home, s, r->uid, r->to.bare, "probed", r->ticket);
    stanza_unref(s);
}

void presence_probed(struct user *u, struct route *r)
{
    struct home *h = r->home;
    str prober = stanza_from(r->stanza);
    if (!u->exists || !roster_sees_us(u, jid_parse_prepared(prober).bare)) {
        answer_probe(r, "unsubscribed");
        return;
    }
    bool any = false;
    if (asks_for_all(r)) {
        struct stanza *gone_stanza = presence_make(h, r->to.bare, prober, "unavailable");
        home_send_derived(h, gone_stanza, r->uid, r->to.bare, "asked", r->ticket);
        stanza_unref(gone_stanza);
    }
    user_each_session(s, u) {
        if (!session_available(s))
            continue;
        struct stanza *p = with_delay(h, s);
        struct uid uid = {r->uid.sid, r->uid.ord,
                          home_lane(session_full(s, home_arena(h)), "probed")};
        home_send(h, p, prober, uid, 0, s->shown->us, r->ticket);
        stanza_unref(p);
        any = true;
    }
    /* One that a client has sent (lane 0) is answered; ours at a login mean: tell if you are
     * there. */
    if (!any && r->uid.lane == 0)
        answer_probe(r, "unavailable");
}

/* ---- for subscriptions ---- */

void presence_show(struct user *u, str to, struct ticket *t)
{
    struct home *h = u->home;
    struct uid uid = home_cause(t);
    user_each_session(s, u) {
        if (!session_available(s) || !home_serves(h, jid_parse_prepared(to).domain))
            continue;
        uid.lane = home_lane(session_full(s, home_arena(h)), "show");
        struct stanza *p = shown_stanza(h, s);
        home_send(h, p, to, uid, 0, s->shown->us, t);
        stanza_unref(p);
    }
}

void presence_hide(struct user *u, str to, struct ticket *t)
{
    struct home *h = u->home;
    user_each_session(s, u) {
        if (!session_available(s))
            continue;
        str full = session_full(s, home_arena(h));
        struct stanza *gone_stanza = presence_make(h, full, to, "unavailable");
        home_send_derived(h, gone_stanza, home_cause(t), full, "hide", t);
        stanza_unref(gone_stanza);
    }
}

/* ---- for blocks (XEP-0191 3.3, 3.4) ---- */

static bool hide_directed(struct session *s, struct ticket *t)
{
    struct home *h = s->user->home;
    str full = session_full(s, home_arena(h));
    bool any = false;
    if (!s->directed)
        return false;
    htable_each(it, s->directed) {
        struct directed *d = container_of(it, struct directed, node);
        str jid = str_from(d->jid, d->len);
        if (!user_blocks(s->user, jid))
            continue;
        struct stanza *p = presence_make(h, full, jid, "unavailable");
        home_send_derived(h, p, home_cause(t), full, "hide", t);
        stanza_unref(p);
        directed_remove(s, d);
        any = true;
    }
    return any;
}

void presence_hide_directed(struct user *u, struct ticket *t)
{
    user_each_session(s, u)
        if (hide_directed(s, t))
            second_state(s, t);
}

void presence_ask(struct user *u, str contact, struct ticket *t)
{
    struct home *h = u->home;
    user_each_session(s, u) {
        if (!session_available(s))
            continue;
        struct stanza *probe = presence_make(h, session_full(s, home_arena(h)), contact, "probe");
        home_send_derived(h, probe, home_cause(t), user_bare(u), ASK, t);
        stanza_unref(probe);
    }
}

void presence_ask_all(struct session *s)
{
    struct home *h = s->user->home;
    if (!session_available(s))
        return;
    struct stanza *probe = presence_make(h, session_full(s, home_arena(h)), STR_NONE, "probe");
    probe_all(s, probe, ASK, 2, SUB_TO, NULL);
    stanza_unref(probe);
}
