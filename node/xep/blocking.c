/* XEP-0191: Blocking Command, with the reports of XEP-0377. Whoever is blocked finds what he would
 * find if there was no such account: no presence, service-unavailable; what he sends is neither
 * given nor kept. What is sent to him comes back with <blocked/>.
 *
 * The list is one value in the store, written as a whole. A change stands in line with those of the
 * roster, so that two resources do not write over each other, and what its client sends next finds
 * it done. Handled again by a new home it says everything again: unavailable may be heard twice. */
#include "node/home/inside.h"
#include "node/xep/xep.h"

#define NS "urn:xmpp:blocking"
#define NS_REPORT "urn:xmpp:reporting:1"

enum { LIST_BYTES_MAX = 512 << 10, REPORT_TEXT_MAX = 256 };

chain_sent_f blocking_sent;
chain_received_f blocking_received;
chain_loaded_f blocking_loaded;
chain_forgotten_f blocking_forgotten;

/* ---- stanzas (3.3) ---- */

bool blocking_sent(struct session *s, struct sent *m)
{
    const struct stanza *stanza = m->stanza;
    if (!m->to.full.n || !user_blocks(s->user, m->to.full))
        return true;
    from_error_extra(s, m->stanza, ERR_STANZA_BLOCKED,
                     STR("<blocked xmlns='urn:xmpp:blocking:errors'/>"), m->ticket);
    home_count(s->user->home, METRIC_undelivered_rule,
               stanza->type == TYPE_ERROR || stanza->type == TYPE_RESULT);
    return false;
}

static bool is_answered(const struct stanza *s)
{
    if (s->kind == STANZA_IQ)
        return s->type == TYPE_GET || s->type == TYPE_SET;
    return s->kind == STANZA_MESSAGE && s->type != TYPE_ERROR && s->type != TYPE_HEADLINE;
}

bool blocking_received(struct user *u, struct route *r)
{
    if (!user_blocks(u, stanza_from(r->stanza)))
        return true;
    if (is_answered(r->stanza))
        route_error(r, ERR_STANZA_SERVICE_UNAVAILABLE);
    else
        home_count(u->home, METRIC_undelivered_rule, 1);
    return false;
}

void blocking_loaded(struct user *u, const struct Store__User *from)
{
    if (from->blocked.len)
        user_set_blocked(u, blocked_new(NULL, home_str(from->blocked), true));
}

void blocking_forgotten(struct user *u) { user_set_blocked(u, NULL); }

/* ---- the list (3.2) ---- */

static void put_items(struct xml_writer *w, str jids)
{
    while (jids.n) {
        xml_open(w, "item");
        xml_put_attr(w, "jid", blocked_next(&jids));
        xml_close(w, "item");
    }
}

static void get(struct iq *q)
{
    struct xml_writer w;
    if (!xml_is(&q->payload, NS, "blocklist")) {
        iq_error(q, ERR_STANZA_FEATURE_NOT_IMPLEMENTED);
        return;
    }
    if (!q->session->blocklist) {
        q->session->blocklist = true;
        second_state(q->session, q->ticket);
    }
    xml_writer_init(&w, q->arena);
    xml_open_ns(&w, "blocklist", NS);
    put_items(&w, blocked_jids(user_blocked(q->user)));
    xml_close(&w, "blocklist");
    iq_result(q, xml_written(&w));
}

/* ---- changes (3.3 to 3.5) ---- */

struct blocking {
    struct change change; /* first: change_end frees it */
    struct iq *iq;
    struct blocked *next;  /* what is to be */
    struct blocked *named; /* whom the request names; NULL: all */
    bool block;
};

static void end(struct blocking *b)
{
    free(b->next);
    free(b->named);
    change_end(&b->change);
}

static void refuse(struct blocking *b, err e)
{
    iq_error(b->iq, e);
    end(b);
}

static void push(struct user *u, const struct blocking *b, struct ticket *t)
{
    struct arena *a = home_arena(u->home);
    struct uid uid = home_cause(t);
    const char *name = b->block ? "block" : "unblock";
    struct xml_writer w;
    xml_writer_init(&w, a);
    xml_open(&w, "iq");
    xml_put_attr(&w, "type", STR("set"));
    xml_put_attr(&w, "id",
                 arena_printf(a, "%s-%llx", name, (unsigned long long)(uid.sid ^ uid.ord)));
    xml_open_ns(&w, name, NS);
    put_items(&w, blocked_jids(b->named));
    xml_close(&w, name);
    xml_close(&w, "iq");
    struct stanza *s = stanza_make(u->home->node->scan, xml_written(&w), a);
    uid.lane = home_lane(user_bare(u), "block push");
    uint32_t again = t && ticket_is_again(t) ? FRAME_AGAIN : 0;
    user_each_session(o, u)
        if (o->blocklist)
            session_send(o, s, uid, FRAME_TO_FULL | again, home_wall_us(u->home), t);
    stanza_unref(s);
}

/* A contact that the change is about, for which it makes a difference, as far as we know: a former
 * home may have died before it had told all. */
struct effects {
    struct user *user;
    const struct blocking *blocking;
    const struct blocked *was;
    struct ticket *ticket;
};

static bool is_concerned(const struct effects *x, str contact)
{
    bool again = x->ticket && ticket_is_again(x->ticket), block = x->blocking->block;
    if (x->blocking->named && !blocked_matches(x->blocking->named, contact))
        return false;
    return blocked_matches(user_blocked(x->user), contact) == block &&
           (again || blocked_matches(x->was, contact) != block);
}

static void tell_contact(const struct item *i, void *ctx)
{
    const struct effects *x = ctx;
    str contact = item_contact(i);
    if (!is_concerned(x, contact))
        return;
    if (x->blocking->block && (i->subscription & SUB_FROM))
        presence_hide(x->user, contact, x->ticket);
    if (!x->blocking->block && (i->subscription & SUB_FROM))
        presence_show(x->user, contact, x->ticket);
    if (!x->blocking->block && (i->subscription & SUB_TO))
        presence_ask(x->user, contact, x->ticket);
}

/* Of contacts whose resources are blocked one by one: these alone see it. */
static void tell_resources(const struct effects *x, str jids)
{
    while (jids.n) {
        struct jid j = jid_parse_prepared(blocked_next(&jids));
        if (!j.resource.n || !is_concerned(x, j.full) || !roster_sees_us(x->user, j.bare) ||
            str_eq(j.bare, user_bare(x->user)))
            continue;
        if (x->blocking->block)
            presence_hide(x->user, j.full, x->ticket);
        else
            presence_show(x->user, j.full, x->ticket);
    }
}

static void tell(struct user *u, const struct blocking *b, const struct blocked *was,
                 struct ticket *t)
{
    struct effects x = {u, b, was, t};
    user_roster_each(u, tell_contact, &x);
    tell_resources(&x, blocked_jids(b->named ? b->named : was));
    if (b->block)
        presence_hide_directed(u, t);
}

static void on_stored(struct home *h, void *ctx, err e, const Store__Reply *reply)
{
    struct blocking *b = ctx;
    struct user *u = b->change.user;
    struct blocked *was;
    if (e != ERR_OK) {
        iq_store_error(b->iq, e);
        end(b);
        return;
    }
    was = blocked_new(user_blocked(u), STR_NONE, true);
    user_set_blocked(u, b->next);
    b->next = NULL;
    iq_result(b->iq, STR_NONE);
    push(u, b, b->change.ticket);
    tell(u, b, was, b->change.ticket);
    free(was);
    end(b);
}

static bool is_too_much(const struct user *u, const struct blocked *next)
{
    return blocked_count(next) > u->home->node->conf->limits_blocklist_max ||
           blocked_jids(next).n > LIST_BYTES_MAX;
}

static void run(struct work *w, struct user *u)
{
    struct change *c = container_of(w, struct change, work);
    struct blocking *b = container_of(c, struct blocking, change);
    if (b->block || b->named)
        b->next = blocked_new(user_blocked(u), blocked_jids(b->named), b->block);
    if (b->block && is_too_much(u, b->next)) {
        home_count(u->home, METRIC_limit_blocklist, 1);
        refuse(b, ERR_STANZA_RESOURCE_CONSTRAINT);
        return;
    }
    if (u->anonymous) { /* nothing of a guest is kept */
        on_stored(u->home, b, ERR_OK, NULL);
        return;
    }
    Store__Request req = STORE__REQUEST__INIT;
    Store__BlockPut op = STORE__BLOCK_PUT__INIT;
    op.jids = home_bytes(blocked_jids(b->next));
    req.op_case = STORE__REQUEST__OP_BLOCK_PUT, req.block_put = &op;
    home_store(u->home, user_bare(u), &req, on_stored, b);
}

/* ---- reports (XEP-0377 4) ---- */

static enum metric reason_of(str reason)
{
    if (str_is(reason, "urn:xmpp:reporting:spam"))
        return METRIC_reports_spam;
    return str_is(reason, "urn:xmpp:reporting:abuse") ? METRIC_reports_abuse : METRIC_reports_other;
}

/* For the operator: who it is about, and the words that came with it. Without a reason it is none,
 * and the block is one all the same. */
static void note_report(const struct iq *q, const struct xml_el *item, str jid)
{
    struct xml_el report, said;
    str words = STR_NONE, reason;
    if (!xml_find(item, NS_REPORT, "report", &report, q->arena))
        return;
    reason = xml_attr(&report, "reason", q->arena);
    if (!reason.n)
        return;
    if (xml_find(&report, NS_REPORT, "text", &said, q->arena))
        words = xml_text(&said, q->arena);
    home_count(q->home, reason_of(reason), 1);
    LOG(q->node->log, abuse_reported, F_JID("by", q->asker.bare), F_JID("jid", jid),
        F_STR("reason",
              str_from(reason.p, reason.n > REPORT_TEXT_MAX ? REPORT_TEXT_MAX : reason.n)),
        F_STR("text", str_from(words.p, words.n > REPORT_TEXT_MAX ? REPORT_TEXT_MAX : words.n)));
}

/* ---- requests ---- */

/* The JIDs of the items, each followed by a NUL; out.p: room for as many bytes as preparing may
 * make of them. */
static err read_items(struct iq *q, bool block, str *out)
{
    struct arena *a = q->arena;
    struct xml_el item;
    char *all = NULL;
    size_t n = 0, cap = 0;
    for (bool more = xml_first(&q->payload, &item, a); more;
         more = xml_next(&q->payload, &item, a)) {
        struct jid jid;
        str raw = xml_attr(&item, "jid", a);
        if (!xml_is(&item, NS, "item") || !raw.n)
            return ERR_STANZA_BAD_REQUEST;
        if (jid_prepare(raw, a, &jid) != ERR_OK)
            return ERR_STANZA_JID_MALFORMED;
        if (n + jid.full.n + 1 > cap) {
            char *old = all;
            cap = 2 * (cap + jid.full.n + 1);
            all = arena_alloc(a, cap);
            memcpy(all, old ? old : "", n);
        }
        memcpy(all + n, jid.full.p, jid.full.n);
        all[n + jid.full.n] = 0;
        n += jid.full.n + 1;
    }
    *out = str_from(all, n);
    return block && !n ? ERR_STANZA_BAD_REQUEST : ERR_OK;
}

static void note_reports(struct iq *q)
{
    struct xml_el item;
    struct arena *a = q->arena;
    for (bool more = xml_first(&q->payload, &item, a); more; more = xml_next(&q->payload, &item, a))
        note_report(q, &item, xml_attr(&item, "jid", a));
}

static void set(struct iq *q)
{
    bool block = xml_is(&q->payload, NS, "block");
    str jids;
    if (!block && !xml_is(&q->payload, NS, "unblock")) {
        iq_error(q, ERR_STANZA_FEATURE_NOT_IMPLEMENTED);
        return;
    }
    err e = read_items(q, block, &jids);
    if (e != ERR_OK) {
        iq_error(q, e);
        return;
    }
    if (block)
        note_reports(q);
    struct blocking *b = calloc(1, sizeof *b);
    must(b);
    b->block = block;
    b->named = blocked_new(NULL, jids, true);
    b->change.work.run = run;
    b->change.ticket = q->ticket, b->change.sid = q->session->sid;
    struct user *u = q->user;
    b->iq = iq_keep(q);
    change_start(u, &b->change);
}

static const struct xep_iq iqs[] = {
    {NS, IQ_OWN_ACCOUNT, get, set},
    {NULL, 0, NULL, NULL},
};
static const char *const features[] = {NS, NS_REPORT, NULL};
const struct xep xep_blocking = {
    .name = "blocking", .server = features, .account = features, .iqs = iqs};
