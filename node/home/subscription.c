/* subscription: RFC 6121 3 and its appendix A as two tables: state and stanza -> next state, and
 * whether the stanza goes on (to the contact when the user sent it, to the user when the contact
 * did).
 *
 * The state of a contact is its item's subscription and `ask`, and whether a request waits for the
 * the user's answer. What follows a change, in this order: commit; the stanza; roster push;
 * presence. */
#include "node/home/inside.h"

#include <stdio.h>

enum state { NONE, NONE_OUT, NONE_IN, NONE_OUT_IN, TO, TO_IN, FROM, FROM_OUT, BOTH, STATES };
enum kind { SUBSCRIBE, UNSUBSCRIBE, SUBSCRIBED, UNSUBSCRIBED, KINDS };

struct rule {
    enum state next : 8;
    bool pass;
};
#define GO(state) \
    { \
        state, true \
    }
#define STOP(state) \
    { \
        state, false \
    }

/* Appendix A.2: what the user sends. */
static const struct rule sends[KINDS][STATES] = {
    [SUBSCRIBE] = {GO(NONE_OUT), GO(NONE_OUT), GO(NONE_OUT_IN), GO(NONE_OUT_IN), GO(TO), GO(TO_IN),
                   GO(FROM_OUT), GO(FROM_OUT), GO(BOTH)},
    [UNSUBSCRIBE] = {GO(NONE), GO(NONE), GO(NONE_IN), GO(NONE_IN), GO(NONE), GO(NONE_IN), GO(FROM),
                     GO(FROM), GO(FROM)},
    [SUBSCRIBED] = {STOP(NONE), STOP(NONE_OUT), GO(FROM), GO(FROM_OUT), STOP(TO), GO(BOTH),
                    STOP(FROM), STOP(FROM_OUT), STOP(BOTH)},
    [UNSUBSCRIBED] = {STOP(NONE), STOP(NONE_OUT), GO(NONE), GO(NONE_OUT), STOP(TO), GO(TO),
                      GO(NONE), GO(NONE_OUT), GO(TO)},
};
/* Appendix A.3: what the contact sends. */
static const struct rule gets[KINDS][STATES] = {
    [SUBSCRIBE] = {GO(NONE_IN), GO(NONE_OUT_IN), STOP(NONE_IN), STOP(NONE_OUT_IN), GO(TO_IN),
                   STOP(TO_IN), STOP(FROM), STOP(FROM_OUT), STOP(BOTH)},
    [UNSUBSCRIBE] = {STOP(NONE), STOP(NONE_OUT), GO(NONE), GO(NONE_OUT), STOP(TO), GO(TO), GO(NONE),
                     GO(NONE_OUT), GO(TO)},
    [SUBSCRIBED] = {STOP(NONE), GO(TO), STOP(NONE_IN), GO(TO_IN), STOP(TO), STOP(TO_IN), STOP(FROM),
                    GO(BOTH), STOP(BOTH)},
    [UNSUBSCRIBED] = {STOP(NONE), GO(NONE), STOP(NONE_IN), GO(NONE_IN), GO(NONE), GO(NONE_IN),
                      STOP(FROM), GO(FROM), GO(FROM)},
};
static const struct {
    uint8_t subscription;
    bool ask, pending_in;
} meaning[STATES] = {
    [NONE] = {SUB_NONE, false, false},   [NONE_OUT] = {SUB_NONE, true, false},
    [NONE_IN] = {SUB_NONE, false, true}, [NONE_OUT_IN] = {SUB_NONE, true, true},
    [TO] = {SUB_TO, false, false},       [TO_IN] = {SUB_TO, false, true},
    [FROM] = {SUB_FROM, false, false},   [FROM_OUT] = {SUB_FROM, true, false},
    [BOTH] = {SUB_BOTH, false, false},
};

static enum state state_of(const struct item *i, bool pending_in)
{
    uint8_t subscription = i ? i->subscription : (uint8_t)SUB_NONE;
    bool ask = i && i->ask && !(subscription & SUB_TO);
    pending_in = pending_in && !(subscription & SUB_FROM);
    for (int s = 0; s < STATES; s++)
        if (meaning[s].subscription == subscription && meaning[s].ask == ask &&
            meaning[s].pending_in == pending_in)
            return (enum state)s;
    return NONE;
}

static enum kind kind_of(const struct stanza *s)
{
    switch ((enum stanza_type)s->type) {
    case TYPE_SUBSCRIBE: return SUBSCRIBE;
    case TYPE_UNSUBSCRIBE: return UNSUBSCRIBE;
    case TYPE_SUBSCRIBED: return SUBSCRIBED;
    default: return UNSUBSCRIBED;
    }
}

/* ---- one change ---- */

struct sub {
    struct change change;
    enum kind kind;
    bool outbound, pass, push, approves;
    bool answer; /* the home answers `subscribed` for the user */
    bool was_from, is_from;
    size_t contact_len;
    char contact[];
};

static str contact_of(const struct sub *s) { return str_from(s->contact, s->contact_len); }

static struct stanza *make(struct user *u, str contact, const char *type)
{
    return presence_make(u->home, user_bare(u), contact, type);
}

static void send_to_contact(struct user *u, str contact, const char *type, struct ticket *t)
{
    struct stanza *s = make(u, contact, type);
    home_send_derived(u->home, s, home_cause(t), user_bare(u), type, t);
    stanza_unref(s);
}

static void deliver(struct user *u, struct sub *s)
{
    struct ticket *t = s->change.ticket;
    user_each_session(o, u)
        if (s->kind == SUBSCRIBE ? session_available(o) : o->interested)
            session_send(o, s->change.stanza, home_cause(t), 0, s->change.us, t);
}

static void send_out(struct user *u, struct sub *s)
{
    home_send(u->home, s->change.stanza, contact_of(s), home_cause(s->change.ticket), 0,
              s->change.us, s->change.ticket);
}

/* All is committed and applied. */
static void effects(struct user *u, struct sub *s)
{
    struct ticket *t = s->change.ticket;
    const struct item *item = roster_find(u, contact_of(s));
    if (s->answer)
        send_to_contact(u, contact_of(s), "subscribed", t);
    else if (s->pass && s->outbound)
        send_out(u, s);
    else if (s->pass)
        deliver(u, s);
    if (s->push && item)
        roster_push(u, item, t);
    if (s->is_from && !s->was_from)
        presence_show(u, contact_of(s), t);
    else if (s->was_from && !s->is_from)
        presence_hide(u, contact_of(s), t);
}

static void report(struct user *u, struct sub *s, err e)
{
    err told = e == ERR_FULL        ? ERR_STANZA_RESOURCE_CONSTRAINT
               : e == ERR_DISK_FULL ? ERR_STANZA_DISK_FULL
                                    : ERR_STANZA_STORE_AWAY;
    struct session *from = s->change.sid ? session_find(u->home, s->change.sid) : NULL;
    if (from)
        from_error(from, s->change.stanza, told, s->change.ticket);
    if (s->outbound || e == ERR_FULL)
        return; /* requests beyond the bound are dropped */
    struct stanza *error = stanza_error(u->home->node->scan, s->change.stanza, told, STR_NONE,
                                        STR_NONE, home_arena(u->home));
    if (error)
        home_send_derived(u->home, error, home_cause(s->change.ticket), user_bare(u), "error",
                          s->change.ticket);
    stanza_unref(error);
}

static void on_committed(struct change *c, err e)
{
    struct sub *s = container_of(c, struct sub, change);
    if (e == ERR_OK)
        effects(c->user, s);
    else
        report(c->user, s, e);
    change_end(c);
}

/* The next state of the item, or NULL when it stays what it is. */
static struct item *next_item(const struct item *now, str contact, enum state next, bool approved)
{
    uint8_t subscription = meaning[next].subscription;
    bool ask = meaning[next].ask;
    if (now ? now->subscription == subscription && now->ask == ask && now->approved == approved
            : !subscription && !ask && !approved)
        return NULL;
    struct item *i = item_copy(now, contact);
    i->subscription = subscription, i->ask = ask, i->approved = approved;
    return i;
}

/* A contact's request that needs no question: it is subscribed already, or was approved before it
 * asked (RFC 6121 3.1.3, 3.4.2). */
static bool answers_itself(const struct sub *s, const struct item *now, enum state state)
{
    return !s->outbound && s->kind == SUBSCRIBE &&
           ((meaning[state].subscription & SUB_FROM) || (now && now->approved));
}

static enum state with_from(enum state s)
{
    return meaning[s].subscription & SUB_TO ? BOTH : meaning[s].ask ? FROM_OUT : FROM;
}

/* Its turn has come: looks at the state and decides. */
static void run(struct work *w, struct user *u)
{
    struct change *c = container_of(w, struct change, work);
    struct sub *s = container_of(c, struct sub, change);
    const struct item *now = roster_find(u, contact_of(s));
    bool pending = roster_pending(u, contact_of(s)) != NULL;
    enum state state = state_of(now, pending);
    struct rule rule = (s->outbound ? sends : gets)[s->kind][state];
    bool approved = now && now->approved;
    if (answers_itself(s, now, state)) {
        s->answer = true;
        rule = (struct rule){with_from(state), false};
    }
    if (s->outbound && s->kind == SUBSCRIBED && !rule.pass &&
        !(meaning[state].subscription & SUB_FROM))
        approved = true;
    if (s->outbound && s->kind == UNSUBSCRIBED)
        approved = false;
    s->pass = rule.pass;
    s->was_from = meaning[state].subscription & SUB_FROM;
    s->is_from = meaning[rule.next].subscription & SUB_FROM;
    c->item = next_item(now, contact_of(s), rule.next, approved);
    s->push = c->item != NULL;
    /* "whole stanza stored (one per contact, the last)": also when it is not shown again. */
    c->pending_put = !s->outbound && s->kind == SUBSCRIBE && meaning[rule.next].pending_in;
    c->pending_remove = pending && !meaning[rule.next].pending_in;
    if (c->item || c->pending_put || c->pending_remove) {
        change_submit(c);
        return;
    }
    effects(u, s);
    change_end(c);
}

static void start(struct user *u, struct stanza *stanza, str contact, bool outbound, uint64_t sid,
                  struct ticket *t)
{
    struct sub *s = calloc(1, sizeof *s + contact.n);
    must(s);
    s->change.work.run = run;
    s->change.ticket = t, s->change.stanza = stanza, s->change.sid = sid;
    s->change.committed = on_committed;
    s->change.contact = str_from(s->contact, contact.n);
    s->change.us = home_wall_us(u->home);
    s->kind = kind_of(stanza), s->outbound = outbound;
    s->contact_len = contact.n;
    memcpy(s->contact, contact.p, contact.n);
    change_start(u, &s->change);
}

/* `to` without its resource (RFC 6121 3.1.2). */
static struct stanza *to_bare(struct stanza *stanza, const struct jid *to, struct arena *a)
{
    if (jid_is_bare(to))
        return stanza_ref(stanza);
    const struct xml_index *x = &stanza->index;
    struct xml_edit e = {x->to.off, x->to.len, xml_escape(to->bare, a)};
    struct stanza_head head = {.kind = (enum stanza_kind)stanza->kind,
                               .type = (enum stanza_type)stanza->type,
                               .to = jid_parse_prepared(to->bare),
                               .from = stanza_from(stanza)};
    return stanza_edited(stanza_xml(stanza), x, &e, 1, &head);
}

/* A request is kept as a whole (RFC 6121 3.1.3), as many as limits.subscribe_pending_max of them,
 * and shown at every initial presence: what strangers may fill that with needs a bound. */
static bool is_too_big(const struct stanza *s)
{
    return s->type == TYPE_SUBSCRIBE && s->index.len > SUBSCRIBE_BYTES_MAX;
}

/* A full roster is no reason to keep what it holds, or a request unanswered. */
static bool makes_an_item(const struct stanza *s)
{
    return s->type == TYPE_SUBSCRIBE || s->type == TYPE_SUBSCRIBED;
}

void subscription_from(struct session *s, struct stanza *stanza, struct ticket *t)
{
    struct user *u = s->user;
    struct jid to = jid_parse_prepared(stanza_to(stanza));
    if (!home_serves(u->home, to.domain)) {
        from_error(s, stanza, ERR_STANZA_REMOTE_SERVER_NOT_FOUND, t);
        return;
    }
    if (str_eq(to.bare, user_bare(u)))
        return;
    if (is_too_big(stanza)) {
        from_error(s, stanza, ERR_STANZA_NOT_ACCEPTABLE, t);
        return;
    }
    if (makes_an_item(stanza) && !roster_find(u, to.bare) && u->roster &&
        u->roster->count >= u->home->node->conf->limits_roster_max) {
        from_error(s, stanza, ERR_STANZA_RESOURCE_CONSTRAINT, t);
        return;
    }
    struct stanza *bare = to_bare(stanza, &to, home_arena(u->home));
    start(u, bare, to.bare, true, s->sid, t);
    stanza_unref(bare);
}

void subscription_to(struct user *u, struct route *r)
{
    str contact = jid_parse_prepared(stanza_from(r->stanza)).bare;
    if (contact.n && !str_eq(contact, user_bare(u)) && !is_too_big(r->stanza))
        start(u, r->stanza, contact, false, 0, r->ticket);
}

void subscription_cancel(struct user *u, str contact, const struct item *i, bool pending_in,
                         struct ticket *t)
{
    if (i && ((i->subscription & SUB_TO) || i->ask))
        send_to_contact(u, contact, "unsubscribe", t);
    if ((i && (i->subscription & SUB_FROM)) || pending_in)
        send_to_contact(u, contact, "unsubscribed", t);
}
