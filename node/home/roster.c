/* roster: contacts, versions, pushes (RFC 6121 2). An item is one block and is replaced as a whole;
 * a removed one stays as a tombstone for as long as versions need it. */
#include "node/home/roster.h"

#include <stdio.h>

#include "node/home/inside.h"

enum { NAME_MAX_BYTES = 1023, GROUPS_MAX = 256 };
#define NS "jabber:iq:roster"

/* ---- items ---- */

struct item *item_new(str contact, str name, const str *groups, unsigned n)
{
    size_t size = contact.n + name.n;
    for (unsigned i = 0; i < n; i++)
        size += 2 + groups[i].n;
    struct item *it = calloc(1, sizeof *it + size);
    must(it);
    it->contact_len = (uint16_t)contact.n, it->name_len = (uint16_t)name.n;
    it->groups = (uint16_t)n;
    char *p = it->text;
    memcpy(p, contact.p, contact.n), p += contact.n;
    if (name.n)
        memcpy(p, name.p, name.n), p += name.n;
    for (unsigned i = 0; i < n; i++) {
        *p++ = (char)(groups[i].n >> 8), *p++ = (char)(groups[i].n & 0xff);
        memcpy(p, groups[i].p, groups[i].n), p += groups[i].n;
    }
    return it;
}

str item_group(const struct item *i, unsigned n)
{
    const unsigned char *p = (const unsigned char *)i->text + i->contact_len + i->name_len;
    for (;; n--) {
        size_t len = (size_t)p[0] << 8 | p[1];
        if (!n)
            return str_from(p + 2, len);
        p += 2 + len;
    }
}

static unsigned groups_of(const struct item *i, str out[GROUPS_MAX])
{
    const unsigned char *p = (const unsigned char *)i->text + i->contact_len + i->name_len;
    for (unsigned n = 0; n < i->groups; n++) {
        size_t len = (size_t)p[0] << 8 | p[1];
        out[n] = str_from(p + 2, len);
        p += 2 + len;
    }
    return i->groups;
}

struct item *item_copy(const struct item *i, str contact)
{
    str groups[GROUPS_MAX];
    if (!i)
        return item_new(contact, STR_NONE, NULL, 0);
    struct item *c = item_new(contact, item_name(i), groups, groups_of(i, groups));
    c->subscription = i->subscription, c->ask = i->ask, c->approved = i->approved;
    return c;
}

/* ---- the roster ---- */

struct roster *roster_of(struct user *u)
{
    if (!u->roster) {
        u->roster = calloc(1, sizeof *u->roster);
        must(u->roster);
        htable_init(&u->roster->items);
        list_init(&u->roster->pending);
    }
    return u->roster;
}

static struct item *find(const struct user *u, str contact)
{
    if (!u->roster)
        return NULL;
    uint64_t hash = hash_str(&u->home->node->key, contact);
    for (struct hnode *n = htable_find(&u->roster->items, hash); n; n = htable_find_next(n)) {
        struct item *i = container_of(n, struct item, node);
        if (str_eq(item_contact(i), contact))
            return i;
    }
    return NULL;
}

const struct item *roster_find(const struct user *u, str contact)
{
    const struct item *i = find(u, contact);
    return i && !i->removed ? i : NULL;
}

struct pending *roster_pending(const struct user *u, str contact)
{
    if (u->roster)
        list_each(p, &u->roster->pending, struct pending, link)
            if (str_eq(str_from(p->contact, p->contact_len), contact))
                return p;
    return NULL;
}

bool roster_sees_us(const struct user *u, str bare)
{
    const struct item *i = roster_find(u, bare);
    return str_eq(bare, user_bare(u)) || (i && (i->subscription & SUB_FROM));
}

void user_roster_each(const struct user *u, roster_each_f *fn, void *ctx)
{
    if (u->roster)
        htable_each(it, &u->roster->items) {
            const struct item *i = container_of(it, struct item, node);
            if (!i->removed)
                fn(i, ctx);
        }
}

static size_t item_bytes(const struct item *i)
{
    str groups[GROUPS_MAX];
    size_t n = sizeof *i + i->contact_len + i->name_len;
    for (unsigned g = groups_of(i, groups); g-- > 0;)
        n += 2 + groups[g].n;
    return n;
}

static void item_free(struct user *u, struct item *i)
{
    u->home->roster_bytes -= item_bytes(i);
    htable_remove(&u->roster->items, &i->node);
    free(i);
}

static void put_item(struct user *u, struct item *i)
{
    struct roster *r = roster_of(u);
    struct item *old = find(u, item_contact(i));
    if (old) {
        r->count -= !old->removed;
        item_free(u, old);
    }
    r->count += !i->removed;
    htable_insert(&r->items, &i->node, hash_str(&u->home->node->key, item_contact(i)));
    u->home->roster_bytes += item_bytes(i);
}

static void remove_pending(struct user *u, str contact)
{
    struct pending *p = roster_pending(u, contact);
    if (!p)
        return;
    list_remove(&p->link);
    u->roster->pending_count--;
    stanza_unref(p->stanza);
    free(p);
}

static void put_pending(struct user *u, str contact, struct stanza *stanza, int64_t us)
{
    struct roster *r = roster_of(u);
    struct pending *p = malloc(sizeof *p + contact.n);
    must(p);
    p->stanza = stanza_ref(stanza), p->us = us;
    p->contact_len = (uint16_t)contact.n;
    memcpy(p->contact, contact.p, contact.n);
    list_push_back(&r->pending, &p->link);
    r->pending_count++;
}

/* Tombstones older than the log are of no use to any client. */
static void trim(struct user *u)
{
    struct roster *r = u->roster;
    if (r->version <= r->log_floor + ROSTER_LOG)
        return;
    r->log_floor = r->version - ROSTER_LOG;
    htable_each(it, &r->items) {
        struct item *i = container_of(it, struct item, node);
        if (i->removed && i->version <= r->log_floor)
            item_free(u, i);
    }
}

void roster_free(struct user *u)
{
    struct roster *r = u->roster;
    if (!r)
        return;
    htable_each(it, &r->items)
        item_free(u, container_of(it, struct item, node));
    htable_close(&r->items);
    list_each(p, &r->pending, struct pending, link) {
        stanza_unref(p->stanza);
        free(p);
    }
    free(r);
    u->roster = NULL;
}

static void load_item(struct user *u, const Store__RosterItem *from)
{
    str groups[GROUPS_MAX];
    unsigned n = from->n_groups < GROUPS_MAX ? (unsigned)from->n_groups : GROUPS_MAX;
    for (unsigned g = 0; g < n; g++)
        groups[g] = home_str(from->groups[g]);
    struct item *i = item_new(home_str(from->contact), home_str(from->name), groups, n);
    i->subscription = (uint8_t)from->subscription & SUB_BOTH;
    i->ask = from->ask, i->approved = from->approved, i->version = from->version;
    put_item(u, i);
}

void roster_load(struct user *u, const struct Store__User *from)
{
    if (!from->n_items && !from->n_tombstones && !from->n_pending && !from->roster_version)
        return;
    struct roster *r = roster_of(u);
    r->version = from->roster_version, r->log_floor = from->roster_log_floor;
    for (size_t i = 0; i < from->n_items; i++)
        load_item(u, from->items[i]);
    for (size_t i = 0; i < from->n_tombstones; i++) {
        struct item *t = item_new(home_str(from->tombstones[i]->contact), STR_NONE, NULL, 0);
        t->removed = true, t->version = from->tombstones[i]->version;
        put_item(u, t);
    }
    for (size_t i = 0; i < from->n_pending; i++) {
        const Store__Pending *p = from->pending[i];
        struct stanza *s;
        if (stanza_of_kept(u->home->node->scan, home_str(p->stanza), home_arena(u->home), &s))
            continue;
        put_pending(u, home_str(p->contact), s, p->time_us);
        stanza_unref(s);
    }
}

/* ---- changes ---- */

static void pump(struct user *u)
{
    if (u->pumping)
        return;
    u->pumping = true;
    user_pin(u);
    while (!u->changing && u->changes) {
        struct work *w = list_entry(u->changes, struct work, link);
        u->changing = true;
        w->run(w, u);
    }
    u->pumping = false;
    user_unpin(u);
}

void change_start(struct user *u, struct change *c)
{
    struct session *s = c->sid ? session_find(u->home, c->sid) : NULL;
    c->user = u;
    user_pin(u);
    if (c->ticket)
        ticket_open(c->ticket);
    if (c->stanza)
        stanza_ref(c->stanza);
    if (s)
        session_hold(s);
    else
        c->sid = 0;
    ring_push_back(&u->changes, &c->work.link);
    pump(u);
}

/* A session may end while its change waits: session_release finds it or not. */
void change_end(struct change *c)
{
    struct user *u = c->user;
    struct home *h = u->home;
    uint64_t sid = c->sid;
    ring_remove(&u->changes, &c->work.link);
    u->changing = false;
    stanza_unref(c->stanza);
    if (c->ticket)
        ticket_close(c->ticket);
    free(c->item);
    free(c);
    pump(u);
    if (sid)
        session_release(h, sid);
    user_unpin(u);
}

static void apply(struct change *c)
{
    struct user *u = c->user;
    if (c->item) {
        struct roster *r = roster_of(u);
        c->item->version = ++r->version;
        put_item(u, c->item);
        c->item = NULL;
        trim(u);
    }
    if (c->pending_remove || c->pending_put)
        remove_pending(u, c->contact);
    if (c->pending_put)
        put_pending(u, c->contact, c->stanza, c->us);
}

static void on_committed(struct home *h, void *ctx, err e, const Store__Reply *reply)
{
    struct change *c = ctx;
    if (e == ERR_OK)
        apply(c);
    else if (e == ERR_AWAY && c->item)
        roster_of(c->user)->version++; /* it may be written: the next one must not be its repeat */
    c->committed(c, e);
}

static void encode_item(const struct item *i, Store__RosterItem *out, ProtobufCBinaryData *groups)
{
    str views[GROUPS_MAX];
    out->contact = home_bytes(item_contact(i)), out->name = home_bytes(item_name(i));
    out->subscription = (Store__Subscription)i->subscription;
    out->ask = i->ask, out->approved = i->approved, out->removed = i->removed;
    out->n_groups = groups_of(i, views);
    for (size_t g = 0; g < out->n_groups; g++)
        groups[g] = home_bytes(views[g]);
    out->groups = groups;
}

void change_submit(struct change *c)
{
    struct user *u = c->user;
    struct home *h = u->home;
    if (u->anonymous) { /* nothing of a guest is kept */
        bool full = c->pending_put && !roster_pending(u, c->contact) &&
                    roster_of(u)->pending_count >= h->node->conf->limits_subscribe_pending_max;
        on_committed(h, c, full ? ERR_FULL : ERR_OK, NULL);
        return;
    }
    Store__Request req = STORE__REQUEST__INIT;
    Store__RosterChange op = STORE__ROSTER_CHANGE__INIT;
    Store__RosterItem item = STORE__ROSTER_ITEM__INIT, *items[] = {&item};
    Store__Pending pending = STORE__PENDING__INIT;
    ProtobufCBinaryData groups[GROUPS_MAX];
    req.op_case = STORE__REQUEST__OP_ROSTER_CHANGE, req.roster_change = &op;
    if (c->item) {
        encode_item(c->item, &item, groups);
        op.version = roster_of(u)->version + 1;
        op.items = items, op.n_items = 1;
    }
    if (c->pending_remove)
        op.pending_remove = home_bytes(c->contact);
    if (c->pending_put) {
        pending.contact = home_bytes(c->contact);
        pending.stanza = home_bytes(stanza_xml(c->stanza)), pending.time_us = c->us;
        op.pending_put = &pending;
        op.pending_max = (uint32_t)h->node->conf->limits_subscribe_pending_max;
    }
    home_store(h, user_bare(u), &req, on_committed, c);
}

/* ---- XML ---- */

/* created_us tells a roster from that of a former account of the same name. */
static str version_text(const struct user *u, uint64_t version, struct arena *a)
{
    return arena_printf(a, "%llx.%llu", (unsigned long long)u->created_us,
                        (unsigned long long)version);
}

static void put_xml(struct xml_writer *w, const struct item *i)
{
    static const char *const names[] = {"none", "to", "from", "both"};
    xml_open(w, "item");
    xml_put_attr(w, "jid", item_contact(i));
    if (i->name_len)
        xml_put_attr(w, "name", item_name(i));
    xml_put_attr(w, "subscription", i->removed ? STR("remove") : str_of(names[i->subscription]));
    if (i->ask)
        xml_put_attr(w, "ask", STR("subscribe"));
    if (i->approved)
        xml_put_attr(w, "approved", STR("true"));
    str groups[GROUPS_MAX];
    unsigned n = groups_of(i, groups);
    for (unsigned g = 0; g < n; g++) {
        xml_open(w, "group");
        xml_put_text(w, groups[g]);
        xml_close(w, "group");
    }
    xml_close(w, "item");
}

static struct stanza *make_push(struct user *u, const struct item *i)
{
    struct arena *a = home_arena(u->home);
    struct xml_writer w;
    xml_writer_init(&w, a);
    xml_open(&w, "iq");
    xml_put_attr(&w, "type", STR("set"));
    xml_put_attr(&w, "id", arena_printf(a, "push-%llu", (unsigned long long)i->version));
    xml_open_ns(&w, "query", NS);
    xml_put_attr(&w, "ver", version_text(u, i->version, a));
    put_xml(&w, i);
    xml_close(&w, "query");
    xml_close(&w, "iq");
    return stanza_make(u->home->node->scan, xml_written(&w), a);
}

static void push_to(struct session *s, struct stanza *push, uint64_t version, struct ticket *t)
{
    char purpose[32];
    snprintf(purpose, sizeof purpose, "push %llu", (unsigned long long)version);
    struct uid uid = home_cause(t);
    uid.lane = home_lane(user_bare(s->user), purpose);
    session_send(s, push, uid, FRAME_TO_FULL, home_wall_us(s->user->home), t);
    home_count(s->user->home, METRIC_roster_pushes, 1);
}

void roster_push(struct user *u, const struct item *i, struct ticket *t)
{
    struct stanza *push = make_push(u, i);
    user_each_session(s, u)
        if (s->interested)
            push_to(s, push, i->version, t);
    stanza_unref(push);
}

/* ---- get ---- */

static bool parse_version(const struct user *u, str text, uint64_t *out)
{
    char copy[64], *end;
    if (!text.n || text.n >= sizeof copy)
        return false;
    memcpy(copy, text.p, text.n);
    copy[text.n] = 0;
    char *dot = strchr(copy, '.');
    if (!dot || dot == copy || dot[1] < '0' || dot[1] > '9')
        return false;
    if ((int64_t)strtoull(copy, &end, 16) != u->created_us || end != dot)
        return false;
    *out = strtoull(dot + 1, &end, 10);
    return !*end;
}

static int by_version(const void *a, const void *b)
{
    const struct item *x = *(struct item *const *)a, *y = *(struct item *const *)b;
    return x->version < y->version ? -1 : x->version > y->version;
}

/* RFC 6121 2.6.3: one push per contact that has changed since, in order of its last change. */
static void push_since(struct session *s, uint64_t since, struct ticket *t)
{
    struct user *u = s->user;
    struct item **changed =
        arena_alloc(home_arena(u->home), (u->roster->items.count + 1) * sizeof(struct item *));
    size_t n = 0;
    htable_each(it, &u->roster->items) {
        struct item *i = container_of(it, struct item, node);
        if (i->version > since)
            changed[n++] = i;
    }
    qsort(changed, n, sizeof *changed, by_version);
    for (size_t k = 0; k < n; k++) {
        struct stanza *push = make_push(u, changed[k]);
        push_to(s, push, changed[k]->version, t);
        stanza_unref(push);
    }
}

static void put_xml_each(const struct item *i, void *w) { put_xml(w, i); }

str roster_xml(const struct user *u, struct arena *a)
{
    struct xml_writer w;
    xml_writer_init(&w, a);
    xml_open_ns(&w, "query", NS);
    xml_put_attr(&w, "ver", version_text(u, u->roster ? u->roster->version : 0, a));
    user_roster_each(u, put_xml_each, &w);
    xml_close(&w, "query");
    return xml_written(&w);
}

void roster_iq_get(struct iq *q)
{
    struct user *u = q->user;
    uint64_t now = u->roster ? u->roster->version : 0, floor = u->roster ? u->roster->log_floor : 0;
    uint64_t since;
    if (!q->session->interested) {
        q->session->interested = true;
        second_state(q->session, q->ticket);
    }
    bool known = parse_version(u, xml_attr(&q->payload, "ver", q->arena), &since) && since <= now &&
                 since >= floor;
    struct session *s = q->session;
    struct ticket *t = q->ticket;
    if (!known) {
        iq_result(q, roster_xml(u, q->arena));
        return;
    }
    iq_result(q, STR_NONE);
    if (since < now)
        push_since(s, since, t);
}

/* ---- set ---- */

struct set {
    struct change change; /* first: change_end frees it */
    struct iq *iq;
    struct item *wish, *was; /* was: of a removed contact */
    bool was_pending;
    char contact[];
};

static void on_set(struct change *c, err e)
{
    struct set *s = container_of(c, struct set, change);
    struct user *u = c->user;
    struct ticket *t = c->ticket;
    if (e == ERR_FULL) {
        iq_error(s->iq, ERR_STANZA_RESOURCE_CONSTRAINT);
    } else if (e != ERR_OK) {
        iq_store_error(s->iq, e);
    } else {
        iq_result(s->iq, STR_NONE);
        roster_push(u, find(u, c->contact), t);
        if (s->was) {
            subscription_cancel(u, c->contact, s->was, s->was_pending, t);
            if (s->was->subscription & SUB_FROM)
                presence_hide(u, c->contact, t);
        }
    }
    free(s->wish);
    free(s->was);
    change_end(c);
}

static void refuse(struct set *s, err e)
{
    iq_error(s->iq, e);
    free(s->wish);
    change_end(&s->change);
}

/* Its turn has come. `subscription`, `ask` and `approved` are ours, whatever the client says. */
static void run_set(struct work *w, struct user *u)
{
    struct change *c = container_of(w, struct change, work);
    struct set *s = container_of(c, struct set, change);
    const struct item *now = roster_find(u, c->contact);
    if (s->wish->removed && !now) {
        refuse(s, ERR_STANZA_ITEM_NOT_FOUND);
        return;
    }
    if (!now && roster_of(u)->count >= u->home->node->conf->limits_roster_max) {
        home_count(u->home, METRIC_limit_roster, 1);
        refuse(s, ERR_STANZA_RESOURCE_CONSTRAINT);
        return;
    }
    c->item = s->wish;
    s->wish = NULL;
    if (c->item->removed) {
        s->was = item_copy(now, c->contact);
        s->was_pending = c->pending_remove = roster_pending(u, c->contact) != NULL;
    } else if (now) {
        c->item->subscription = now->subscription;
        c->item->ask = now->ask, c->item->approved = now->approved;
    }
    change_submit(c);
}

static err read_groups(const struct xml_el *el, str groups[GROUPS_MAX], unsigned *n,
                       struct arena *a)
{
    struct xml_el g;
    *n = 0;
    for (bool more = xml_first(el, &g, a); more; more = xml_next(el, &g, a)) {
        if (!xml_is(&g, NS, "group"))
            continue;
        str text = xml_text(&g, a);
        if (!text.n || text.n > NAME_MAX_BYTES || *n == GROUPS_MAX)
            return ERR_STANZA_NOT_ACCEPTABLE;
        for (unsigned i = 0; i < *n; i++)
            if (str_eq(groups[i], text))
                return ERR_STANZA_BAD_REQUEST;
        groups[(*n)++] = text;
    }
    return ERR_OK;
}

/* RFC 6121 2.3.3: what a set must look like. */
static err read_item(const struct iq *q, struct item **out)
{
    struct arena *a = q->arena;
    struct xml_el el, other;
    if (!xml_first(&q->payload, &el, a) || !xml_is(&el, NS, "item"))
        return ERR_STANZA_BAD_REQUEST;
    other = el;
    if (xml_next(&q->payload, &other, a))
        return ERR_STANZA_BAD_REQUEST;
    str raw = xml_attr(&el, "jid", a), name = xml_attr(&el, "name", a);
    struct jid jid;
    if (!raw.n)
        return ERR_STANZA_BAD_REQUEST;
    if (jid_prepare(raw, a, &jid) != ERR_OK)
        return ERR_STANZA_JID_MALFORMED;
    if (jid.resource.n)
        return ERR_STANZA_BAD_REQUEST;
    if (str_eq(jid.bare, user_bare(q->user)))
        return ERR_STANZA_NOT_ALLOWED;
    if (str_is(xml_attr(&el, "subscription", a), "remove")) {
        *out = item_new(jid.bare, STR_NONE, NULL, 0);
        (*out)->removed = true;
        return ERR_OK;
    }
    if (name.n > NAME_MAX_BYTES)
        return ERR_STANZA_NOT_ACCEPTABLE;
    str groups[GROUPS_MAX];
    unsigned n;
    err e = read_groups(&el, groups, &n, a);
    if (e == ERR_OK)
        *out = item_new(jid.bare, name, groups, n);
    return e;
}

void roster_iq_set(struct iq *q)
{
    struct item *wish;
    err e = read_item(q, &wish);
    if (e != ERR_OK) {
        iq_error(q, e);
        return;
    }
    str contact = item_contact(wish);
    struct set *s = calloc(1, sizeof *s + contact.n);
    must(s);
    memcpy(s->contact, contact.p, contact.n);
    s->wish = wish;
    s->change.work.run = run_set;
    s->change.contact = str_from(s->contact, contact.n);
    s->change.ticket = q->ticket, s->change.sid = q->session->sid;
    s->change.committed = on_set;
    struct user *u = q->user;
    s->iq = iq_keep(q);
    change_start(u, &s->change);
}
