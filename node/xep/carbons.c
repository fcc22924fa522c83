/* XEP-0280: Message Carbons. A session that has asked for it gets a copy of what the account's
 * other resources send and receive, of the messages that section 6.1 names.
 *
 *   sent      at the sender's home, when the message goes out
 *   received  behind the choice of resources (RFC 6121 8.5): to whom that gave nothing. Of a
 * message that went to the store, a resource that will be given it from there gets no copy
 *
 * A copy is a stanza of its own, with custody like any other, but nobody's in the end: what a
 * session has not taken of them ends with it. One stanza serves all sessions, their edges put in
 * `to`; the lane of each is that of its full JID. */
#include "node/home/inside.h"
#include "node/xep/xep.h"

chain_sent_f carbons_sent;
chain_given_f carbons_given;
chain_known_f carbons_known;
chain_bound_f carbons_bound;

enum direction { SENT, RECEIVED };

/* ---- which messages (6.1) ---- */

/* x is the element of XEP-0045: a mediated invitation (7.8.2)? */
static bool is_invitation(const struct stanza *s, struct arena *a)
{
    struct xml_el root = stanza_root(s, a), x, invite;
    return xml_find(&root, "http://jabber.org/protocol/muc#user", "x", &x, a) &&
           xml_find(&x, "http://jabber.org/protocol/muc#user", "invite", &invite, a);
}

/* Payloads of instant messaging. */
static bool is_payload(const struct stanza *s, enum xml_ns ns, struct arena *a)
{
    switch (ns) {
    case NS_RECEIPTS:
    case NS_CHATSTATES:
    case NS_MARKERS:
    case NS_X_CONFERENCE:
    case NS_EME:
    case NS_OMEMO:
    case NS_OMEMO2:
    case NS_RETRACT:
    case NS_REACTIONS:
    case NS_CORRECT:
    case NS_JINGLE_MESSAGE: return true;
    case NS_MUC_USER: return is_invitation(s, a);
    default: return false;
    }
}

static bool has_payload(const struct stanza *s, struct arena *a)
{
    for (unsigned i = 0; i < s->index.nchild; i++)
        if (is_payload(s, s->index.child[i].ns, a))
            return true;
    return false;
}

/* <private/>, and what is a copy itself or pretends to be. */
static bool has_carbons_child(const struct stanza *s)
{
    for (unsigned i = 0; i < s->index.nchild; i++)
        if (s->index.child[i].ns == NS_CARBONS)
            return true;
    return false;
}

/* A room gives private messages of its occupants to each resource that is there itself. */
static bool is_from_occupant(const struct stanza *s, struct arena *a)
{
    return (s->flags & STANZA_MUC_USER) && stanza_to_jid(s).resource.n &&
           jid_parse_prepared(stanza_from(s)).resource.n && !is_invitation(s, a);
}

/* Of an error nobody says what it answers: it is for a message of instant messaging when it brings
 * that back, or comes from where such messages are sent to: a bare JID. */
static bool is_answer_to_eligible(const struct stanza *s, struct arena *a)
{
    return (s->flags & STANZA_BODY) || has_payload(s, a) ||
           !jid_parse_prepared(stanza_from(s)).resource.n;
}

static bool is_eligible(const struct stanza *s, enum direction d, struct arena *a)
{
    if (s->kind != STANZA_MESSAGE || s->type == TYPE_GROUPCHAT ||
        (s->flags & STANZA_HINT_NO_COPY) || has_carbons_child(s) ||
        (d == RECEIVED && is_from_occupant(s, a)))
        return false;
    if (s->type == TYPE_ERROR)
        return is_answer_to_eligible(s, a);
    return s->type == TYPE_CHAT || (s->type == TYPE_NORMAL && (s->flags & STANZA_BODY)) ||
           has_payload(s, a);
}

/* ---- a copy ---- */

/* The original as it stands in another element: it names whom it is for, and is in its namespace.
 */
static str original(const struct stanza *s, str bare, str archive_id, struct arena *a)
{
    struct xml_edit to = {s->index.splice, 0, xml_attr_text("to", bare, a)};
    str xml = stanza_xml(s);
    if (!s->index.to.off) {
        char *with = arena_alloc(a, xml_splice_size(xml.n, &to, 1));
        xml_splice(xml, &to, 1, with);
        xml = str_from(with, xml_splice_size(xml.n, &to, 1));
    }
    xml = xml_with_default_ns(xml, "jabber:client", a);
    if (!archive_id.n || s->index.empty)
        return xml;
    size_t end = xml.n;
    while (xml.p[--end] != '<')
        ;
    str id[] = {str_from(xml.p, end),
                STR("<stanza-id xmlns='urn:xmpp:sid:0'"),
                xml_attr_text("by", bare, a),
                xml_attr_text("id", archive_id, a),
                STR("/>"),
                str_skip(xml, end)};
    return arena_concat(a, id, array_len(id));
}

static const char *const type_names[] = {[TYPE_NORMAL] = NULL,
                                         [TYPE_CHAT] = "chat",
                                         [TYPE_HEADLINE] = "headline",
                                         [TYPE_ERROR] = "error"};

static struct stanza *copy_of(struct user *u, const struct stanza *s, enum direction d,
                              str archive_id)
{
    struct arena *a = home_arena(u->home);
    const char *name = d == SENT ? "sent" : "received";
    struct xml_writer w;
    xml_writer_init(&w, a);
    xml_open(&w, "message");
    xml_put_attr(&w, "from", user_bare(u));
    if (type_names[s->type])
        xml_put_attr(&w, "type", str_of(type_names[s->type]));
    xml_open_ns(&w, name, "urn:xmpp:carbons:2");
    xml_open_ns(&w, "forwarded", "urn:xmpp:forward:0");
    xml_put_raw(&w, original(s, user_bare(u), archive_id, a));
    xml_close(&w, "forwarded");
    xml_close(&w, name);
    xml_close(&w, "message");
    return stanza_make(u->home->node->scan, xml_written(&w), a);
}

/* Who shares a message's cause shares its lane (a bounce, and what bounced): both may have copies
 * at one session. */
static struct uid uid_of_copy(const struct session *s, struct uid uid)
{
    uid.lane ^= home_lane(session_full(s, home_arena(s->user->home)), "carbon");
    uid.lane = uid.lane ? uid.lane : 1;
    return uid;
}

/* Its client has had it from a former home. */
static bool is_taken(const struct session *s, struct uid uid, const struct stanza *copy)
{
    return mark_set_has_of(&s->user->home->known, uid, s->sid, stanza_fp(copy));
}

/* Nobody looks: and it would be nothing but this that wakes the client (XEP-0352). */
static bool is_worth_a_copy(const struct session *s, const struct stanza *original)
{
    return !s->inactive || !(original->flags & STANZA_CHATSTATE) ||
           !(original->flags & STANZA_ONLY_TRANSIENT);
}

static void give_copy(struct session *s, struct stanza *copy, struct uid uid, uint32_t again,
                      int64_t us, struct ticket *t)
{
    uid = uid_of_copy(s, uid);
    if (!again || !is_taken(s, uid, copy))
        session_send(s, copy, uid, FRAME_TO_FULL | again, us, t);
}

/* ---- sent (8) ---- */

static bool is_wanted_by_another(const struct session *s)
{
    user_each_session(o, s->user)
        if (o != s && o->carbons)
            return true;
    return false;
}

/* What is refused is not sent; what goes to the own account comes there as received. */
static bool goes_out(const struct session *s, const struct sent *m)
{
    return m->to.local.n && home_serves(s->user->home, m->to.domain) &&
           !str_eq(m->to.bare, user_bare(s->user));
}

bool carbons_sent(struct session *s, struct sent *m)
{
    struct home *h = s->user->home;
    if (m->stanza->kind != STANZA_MESSAGE || !is_wanted_by_another(s) || !goes_out(s, m) ||
        !is_eligible(m->stanza, SENT, home_arena(h)))
        return true;
    struct stanza *copy = copy_of(s->user, m->stanza, SENT, m->archive_id);
    uint32_t again = ticket_is_again(m->ticket) ? FRAME_AGAIN : 0;
    user_each_session(o, s->user)
        if (o != s && o->carbons && is_worth_a_copy(o, m->stanza))
            give_copy(o, copy, ticket_uid(m->ticket), again, h->in_us, m->ticket);
    stanza_unref(copy);
    return true;
}

/* ---- received (7) ---- */

static bool is_to_copy(const struct route *r, const struct session *s, str from)
{
    bool stored = !r->gave_one && r->gave_least == GAVE_NONE && r->stanza->type != TYPE_ERROR;
    return s->carbons && is_worth_a_copy(s, r->stanza) && !route_gave(r, s) &&
           !(stored && session_eligible(s)) && !(from.n && str_eq(session_resource(s), from));
}

/* Which of our own resources has sent it; empty: another account has. */
static str own_sender(const struct user *u, const struct stanza *s)
{
    struct jid from = jid_parse_prepared(stanza_from(s));
    return str_eq(from.bare, user_bare(u)) ? from.resource : STR_NONE;
}

void carbons_given(struct user *u, struct route *r)
{
    struct stanza *copy = NULL;
    str from = STR_NONE;
    if (r->stanza->kind != STANZA_MESSAGE)
        return;
    user_each_session(s, u) {
        if (!s->carbons)
            continue;
        if (!copy) {
            if (!is_eligible(r->stanza, RECEIVED, home_arena(u->home)))
                return;
            from = own_sender(u, r->stanza);
        }
        if (!is_to_copy(r, s, from))
            continue;
        if (!copy)
            copy = copy_of(u, r->stanza, RECEIVED, STR_NONE);
        give_copy(s, copy, r->uid, r->flags & FRAME_AGAIN, r->us, r->ticket);
    }
    stanza_unref(copy);
}

/* A former home may have died between what it gave and the copies. */
void carbons_known(struct user *u, struct route *r)
{
    if (r->stanza->kind != STANZA_MESSAGE)
        return;
    route_would_give(u, r);
    carbons_given(u, r);
}

/* ---- who wants them (4, 5) ---- */

static void set(struct iq *q)
{
    bool enable = xml_is(&q->payload, "", "enable");
    if (!enable && !xml_is(&q->payload, "", "disable")) {
        iq_error(q, ERR_STANZA_FEATURE_NOT_IMPLEMENTED);
        return;
    }
    if (q->session->carbons != enable) {
        q->session->carbons = enable;
        second_state(q->session, q->ticket);
    }
    iq_result(q, STR_NONE);
}

/* XEP-0386 4.3: "As this operation MUST succeed, no response is necessary." */
void carbons_bound(struct session *s, struct binding *b)
{
    struct xml_el enable;
    s->carbons =
        xml_find(&b->bind, "urn:xmpp:carbons:2", "enable", &enable, home_arena(s->user->home));
}

static const struct xep_iq iqs[] = {
    {"urn:xmpp:carbons:2", IQ_OWN_ACCOUNT, NULL, set},
    {NULL, 0, NULL, NULL},
};
static const char *const features[] = {"urn:xmpp:carbons:2", "urn:xmpp:carbons:rules:0", NULL};
const struct xep xep_carbons = {
    .name = "carbons", .server = features, .account = features, .iqs = iqs};
