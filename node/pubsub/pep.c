/* pep: what an account adds to leaves (XEP-0163): who may see its presence is subscribed to all
 * that access models let it see, as far as its clients' caps say that they want it ("…+notify").
 *
 * The owner's home does not know what the contacts' clients want; their homes do. So one message
 * without `to` goes to the homes of the contacts, and each gives it to those sessions that asked
 * for it. Such a message is told from all others by its uid: the lane is that of the leaf
 * (lane_of), and what clients send has lane 0. For last items it is the other way round: when it is
 * known what a session wants, its home asks those of its contacts with a probe that says so, and
 * gets the items for that full JID. */
#include "node/home/inside.h"
#include "node/pubsub/pubsub.h"
#include "node/xep/caps.h"

#define NS_WANTED "urn:pemberley:pep:wanted" /* between homes; never on a stream */

enum { WANTED_MAX = 64, LAST_SENT_MAX = 16 << 10 };

/* Of what is said of that leaf: no stanza of a client has it. */
static uint32_t lane_of(struct arena *a, str owner, str node)
{
    return home_lane(owner, arena_printf(a, "pep %.*s", STR_ARG(node)).p);
}

/* ---- who ---- */

struct visitor pep_visitor(const struct user *u, str bare, struct arena *a)
{
    struct visitor v = {.bare = bare, .own = str_eq(bare, user_bare(u))};
    v.sees = v.own || roster_sees_us(u, bare);
    const struct item *i = roster_find(u, bare);
    if (!i || !i->groups)
        return v;
    str *groups = arena_alloc(a, i->groups * sizeof *groups);
    for (unsigned g = 0; g < i->groups; g++)
        groups[g] = item_group(i, g);
    v.groups = groups, v.groups_n = i->groups;
    return v;
}

/* ---- what happens to a leaf ---- */

/* id: by it what a client causes under an old number is told from what it had caused under that
 * (delivery.md 2: the fingerprint). */
static struct stanza *message(struct user *u, const struct leaf *l, str to, str event, str more,
                              const struct cause *c)
{
    static const char *const types[] = {"headline", "normal", "chat"};
    struct home *h = u->home;
    struct xml_writer w;
    xml_writer_init(&w, home_arena(h));
    xml_open(&w, "message");
    xml_put_attr(&w, "from", user_bare(u));
    if (to.n)
        xml_put_attr(&w, "to", to);
    xml_put_attr(&w, "type", str_of(types[l->rules.message]));
    if (c->stanza)
        xml_put_attr(&w, "id", arena_printf(w.arena, "pep-%08x", stanza_fp(c->stanza)));
    xml_open_ns(&w, "event", NS_PS_EVENT);
    xml_put_raw(&w, event);
    xml_close(&w, "event");
    if (more.n)
        xml_put_raw(&w, more);
    xml_close(&w, "message");
    return stanza_make(h->node->scan, xml_written(&w), home_arena(h));
}

struct telling {
    struct user *user;
    const struct leaf *leaf;
    struct fanout out;
    struct arena *arena;
};

static void add_contact(const struct item *i, void *ctx)
{
    struct telling *t = ctx;
    if (!(i->subscription & SUB_FROM) || user_blocks(t->user, item_contact(i)))
        return;
    struct visitor v = pep_visitor(t->user, item_contact(i), t->arena);
    if (leaf_may_see(t->leaf, &v, t->arena).e == ERR_OK)
        fanout_add(&t->out, item_contact(i));
}

static void tell_own(struct user *u, struct stanza *s, str node, const struct cause *c,
                     struct uid uid)
{
    uint32_t again = c->ticket && ticket_is_again(c->ticket) ? FRAME_AGAIN : 0;
    user_each_session(it, u)
        if (caps_take(it, node, s, uid, c->us))
            session_send(it, s, uid, FRAME_TO_FULL | again, c->us, c->ticket);
}

/* Those who have subscribed to this leaf get it whatever their caps say. */
static void tell_subscribers(struct user *u, const struct leaf *l, struct stanza *s,
                             const struct cause *c, struct uid uid)
{
    struct telling t = {.user = u, .leaf = l, .arena = home_arena(u->home)};
    uid.lane = home_lane(user_bare(u), arena_printf(t.arena, "sub %.*s", STR_ARG(leaf_name(l))).p);
    fanout_init(&t.out, u->home, s, uid, c->us, c->ticket);
    for (const struct subscriber *sub = l->subscribers; sub; sub = sub->next) {
        str jid = str_from(sub->jid, sub->jid_len);
        struct visitor v = pep_visitor(u, jid_parse_prepared(jid).bare, t.arena);
        if (sub->state == SUBSCRIPTION_SUBSCRIBED && !sub->quiet && !user_blocks(u, jid) &&
            leaf_may_see(l, &v, t.arena).e == ERR_OK)
            fanout_add(&t.out, jid);
    }
    fanout_send(&t.out);
}

void pep_tell(struct user *u, const struct leaf *l, str event, const struct cause *c)
{
    struct arena *a = home_arena(u->home);
    if (!l->rules.notifications)
        return;
    struct stanza *s = message(u, l, STR_NONE, event, STR_NONE, c);
    struct uid uid = {c->uid.sid, c->uid.ord, lane_of(a, user_bare(u), leaf_name(l))};
    struct telling t = {.user = u, .leaf = l, .arena = a};
    tell_own(u, s, leaf_name(l), c, uid);
    fanout_init(&t.out, u->home, s, uid, c->us, c->ticket);
    user_roster_each(u, add_contact, &t);
    fanout_send(&t.out);
    if (l->subscribers)
        tell_subscribers(u, l, s, c, uid);
    stanza_unref(s);
}

/* ---- last items ---- */

/* One that is to be fetched. */
struct fetch {
    struct user *user;
    struct cause cause;
    size_t to_len, node_len;
    char text[]; /* to, node */
};

static void send_last(struct user *u, const struct leaf *l, str to, str id, str xml, int64_t us,
                      const struct cause *c)
{
    struct arena *a = home_arena(u->home);
    struct xml_writer w;
    xml_writer_init(&w, a);
    xml_open(&w, "items");
    xml_put_attr(&w, "node", leaf_name(l));
    xml_open(&w, "item");
    xml_put_attr(&w, "id", id);
    if (l->rules.payloads && xml.n <= LAST_SENT_MAX)
        xml_put_raw(&w, xml);
    xml_close(&w, "item");
    xml_close(&w, "items");
    str domain = jid_parse_prepared(user_bare(u)).domain;
    struct stanza *s = message(u, l, to, xml_written(&w), stanza_delay(domain, us, a), c);
    str purpose = arena_printf(a, "last %.*s", STR_ARG(leaf_name(l)));
    home_send(u->home, s, STR_NONE,
              (struct uid){c->uid.sid, c->uid.ord, home_lane(user_bare(u), purpose.p)}, 0, c->us,
              c->ticket);
    stanza_unref(s);
}

static void on_fetched(struct home *h, void *ctx, err e, const Store__Reply *reply)
{
    struct fetch *f = ctx;
    struct leaf *l =
        leaf_find(pubsub_leaves(pubsub_of(f->user)), str_from(f->text + f->to_len, f->node_len));
    const Store__ItemPage *page =
        e == ERR_OK && reply->body_case == STORE__REPLY__BODY_ITEMS ? reply->items : NULL;
    if (l && page && page->n_items) {
        const Store__LeafItem *i = page->items[0];
        if (!l->last && l->last_unknown)
            leaf_set_last(l, home_str(i->id), home_str(i->xml), true, i->time_us);
        send_last(f->user, l, str_from(f->text, f->to_len), home_str(i->id), home_str(i->xml),
                  i->time_us, &f->cause);
    }
    if (f->cause.ticket)
        ticket_close(f->cause.ticket);
    user_unpin(f->user);
    free(f);
}

static void fetch_last(struct user *u, const struct leaf *l, str to, const struct cause *c)
{
    struct fetch *f = malloc(sizeof *f + to.n + l->name_len);
    must(f);
    *f = (struct fetch){u, *c, to.n, l->name_len};
    f->cause.stanza = NULL; /* it does not outlive the request */
    memcpy(f->text, to.p, to.n);
    memcpy(f->text + to.n, l->name, l->name_len);
    if (c->ticket)
        ticket_open(c->ticket);
    user_pin(u);
    Store__Request req = STORE__REQUEST__INIT;
    Store__ItemGet op = STORE__ITEM_GET__INIT;
    op.leaf = home_bytes(leaf_name(l)), op.limit = 1;
    req.op_case = STORE__REQUEST__OP_ITEM_GET, req.item_get = &op;
    home_store(u->home, user_bare(u), &req, on_fetched, f);
}

void pep_tell_last(struct user *u, const struct leaf *l, str to, const struct cause *c)
{
    const struct last_item *last = l->last;
    if (last && last->cached)
        send_last(u, l, to, str_from(last->text, last->id_len),
                  str_from(last->text + last->id_len, last->xml_len), last->us, c);
    else if (last || l->last_unknown)
        fetch_last(u, l, to, c);
}

/* What a full JID wants to have, of one account. */
struct wish {
    struct pubsub_work work;
    struct stanza *probe;
    struct cause cause;
};

static void grant(struct user *u, struct leaf *l, const struct wish *w, const struct visitor *v)
{
    if (l && l->rules.last == LAST_ON_SUB_AND_PRESENCE && l->rules.notifications &&
        leaf_may_see(l, v, home_arena(u->home)).e == ERR_OK)
        pep_tell_last(u, l, stanza_from(w->probe), &w->cause);
}

static void run_wish(struct pubsub_work *work, struct pubsub *p)
{
    struct wish *w = container_of(work, struct wish, work);
    struct arena *a = home_arena(work->user->home);
    struct xml_el root = stanza_root(w->probe, a), wanted, node;
    str asker = jid_parse_prepared(stanza_from(w->probe)).bare;
    struct visitor v = pep_visitor(work->user, asker, a);
    unsigned n = 0;
    if (p && xml_find(&root, NS_WANTED, "wanted", &wanted, a))
        for (bool more = xml_first(&wanted, &node, a); more && n < WANTED_MAX;
             more = xml_next(&wanted, &node, a), n++)
            grant(work->user, leaf_find(pubsub_leaves(p), xml_text(&node, a)), w, &v);
    if (w->cause.ticket)
        ticket_close(w->cause.ticket);
    stanza_unref(w->probe);
    free(w);
}

static void take_wish(struct user *u, struct stanza *probe, struct uid uid, int64_t us,
                      struct ticket *t)
{
    struct wish *w = malloc(sizeof *w);
    must(w);
    *w = (struct wish){
        .work.run = run_wish, .probe = stanza_ref(probe), .cause = {t, uid, us, NULL}};
    list_init(&w->work.link);
    if (t)
        ticket_open(t);
    pubsub_with(u, &w->work);
}

/* ---- at the home of who wants it ---- */

void pep_wants(struct session *s, const str *nodes, size_t n)
{
    struct home *h = s->user->home;
    struct arena *a = home_arena(h);
    struct xml_writer w;
    if (!n)
        return;
    xml_writer_init(&w, a);
    xml_open(&w, "presence");
    xml_put_attr(&w, "from", session_full(s, a));
    xml_put_attr(&w, "type", STR("probe"));
    xml_open_ns(&w, "wanted", NS_WANTED);
    for (size_t i = 0; i < n && i < WANTED_MAX; i++)
        xml_put_leaf(&w, "node", NULL, nodes[i]);
    xml_close(&w, "wanted");
    xml_close(&w, "presence");
    struct stanza *probe = stanza_make(h->node->scan, xml_written(&w), a);
    if (s->user->exists && !s->user->anonymous)
        take_wish(s->user, probe, (struct uid){s->sid, s->in_ord, 0}, home_wall_us(h), NULL);
    presence_ask_friends(s, probe, "wanted", (unsigned)(n < WANTED_MAX ? n : WANTED_MAX));
    stanza_unref(probe);
}

static bool is_event(const struct route *r)
{
    const struct stanza *s = r->stanza;
    return s->kind == STANZA_MESSAGE && r->uid.lane && !s->index.to.off && s->index.nchild &&
           s->index.child[0].ns == NS_PUBSUB_EVENT && !r->to.resource.n;
}

/* The leaf that an event is about. */
static str event_node(const struct stanza *s, struct arena *a)
{
    struct xml_el root = stanza_root(s, a), event, el;
    if (!xml_first(&root, &event, a) || !xml_first(&event, &el, a))
        return STR_NONE;
    return xml_attr(&el, "node", a);
}

/* False: it was one of ours, and is dealt with. */
static bool take_event(struct user *u, struct route *r)
{
    struct arena *a = home_arena(u->home);
    str node = event_node(r->stanza, a);
    if (r->uid.lane != lane_of(a, stanza_from(r->stanza), node))
        return true;
    uint32_t flags = FRAME_TO_FULL | (r->flags & FRAME_AGAIN);
    user_each_session(s, u)
        if (caps_take(s, node, r->stanza, r->uid, r->us))
            session_send(s, r->stanza, r->uid, flags, r->us, r->ticket);
    return false;
}

void pep_give(struct session *s, struct stanza *event, struct uid uid, int64_t us)
{
    if (caps_take(s, event_node(event, home_arena(s->user->home)), event, uid, us))
        session_send(s, event, uid, FRAME_TO_FULL, us, NULL);
}

bool pep_received(struct user *u, struct route *r)
{
    const struct stanza *s = r->stanza;
    struct xml_el root, wanted;
    if (is_event(r))
        return take_event(u, r);
    if (s->kind != STANZA_PRESENCE || s->type != TYPE_PROBE || !r->uid.lane || !s->index.nchild)
        return true;
    root = stanza_root(s, home_arena(u->home));
    if (!xml_find(&root, NS_WANTED, "wanted", &wanted, home_arena(u->home)))
        return true;
    take_wish(u, r->stanza, r->uid, r->us, r->ticket);
    return false;
}
