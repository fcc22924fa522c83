/* caps: who can do what (XEP-0115, XEP-0390). Each session whose presence says so has a record;
 * what its hash stands for is shared by all of this shard.
 *
 *   presence --> known here? --no--> the store --no--> the client is asked (disco#info)
 *                    |                  |                   | its answer is what the hash is of
 *                    v                  v                   v
 *             pep_wants: last items; events that came meanwhile
 *
 * An answer that the hash is not of counts for that session alone. While a hash is asked for, a few
 * of those who show it are asked; who does not answer in time is not asked again. Hashes that
 * nobody shows any more are kept, the last CACHED_MAX of them. */
#include "node/xep/caps.h"

#include <stdlib.h>

#include "node/home/inside.h"
#include "node/pubsub/pubsub.h"
#include "node/xep/xep.h"

#define NS_INFO "http://jabber.org/protocol/disco#info"

enum {
    CACHED_MAX = 2000,
    ASKED_MAX = 4, /* at once, for one hash */
    ANSWER_MS = 15000,
    FEATURES_MAX = 512,
    FEATURES_BYTES_MAX = 16 << 10,
    HELD_MAX = 32, /* events for a session of which nothing is known yet */
};

enum state { CAPS_LOOKED_UP, CAPS_ASKED, CAPS_KNOWN };

/* What a hash stands for; or, without a key, what one client has said. */
struct caps {
    struct hnode node;
    struct list idle;    /* of the cache's, when no record has it */
    struct list waiting; /* struct record.wait */
    uint32_t refs, key_len;
    enum state state;
    uint16_t wants_n;
    uint32_t wants_len;
    char *wants; /* the nodes, each with a NUL behind it */
    char key[];
};

struct held {
    struct list link;
    struct stanza *event;
    struct uid uid;
    int64_t us;
};

/* A session that has said something. */
struct record {
    struct record *next; /* of the user's */
    struct list wait;    /* of its caps', while these are not known */
    struct list held;    /* struct held.link */
    struct user *user;
    struct caps *caps;
    uint64_t sid, asked_ms; /* asked_ms 0: not asked */
    uint32_t held_n;
    bool initial; /* it is owed last items */
    bool silent;  /* it did not answer */
    size_t query_len;
    char query[];
};

struct caps_cache {
    struct htable by_key;
    struct list idle;
    size_t idle_n;
};

static str key_of(const struct caps *c) { return str_from(c->key, c->key_len); }

static struct caps_cache *cache_of(struct home *h)
{
    if (h->caps)
        return h->caps;
    h->caps = calloc(1, sizeof *h->caps);
    must(h->caps);
    htable_init(&h->caps->by_key);
    list_init(&h->caps->idle);
    return h->caps;
}

/* ---- the cache ---- */

static struct caps *caps_find(struct home *h, str key)
{
    struct caps_cache *cache = cache_of(h);
    for (struct hnode *n = htable_find(&cache->by_key, hash_str(&h->node->key, key)); n;
         n = htable_find_next(n)) {
        struct caps *c = container_of(n, struct caps, node);
        if (str_eq(key_of(c), key))
            return c;
    }
    return NULL;
}

static struct caps *caps_new(struct home *h, str key)
{
    struct caps *c = calloc(1, sizeof *c + key.n);
    must(c);
    list_init(&c->idle);
    list_init(&c->waiting);
    c->key_len = (uint32_t)key.n;
    if (!key.n)
        return c;
    memcpy(c->key, key.p, key.n);
    htable_insert(&cache_of(h)->by_key, &c->node, hash_str(&h->node->key, key));
    return c;
}

static void caps_destroy(struct home *h, struct caps *c)
{
    if (c->key_len)
        htable_remove(&h->caps->by_key, &c->node);
    if (!list_empty(&c->idle)) {
        list_remove(&c->idle);
        h->caps->idle_n--;
    }
    free(c->wants);
    free(c);
}

static struct caps *caps_ref(struct home *h, struct caps *c)
{
    if (!list_empty(&c->idle)) {
        list_remove(&c->idle);
        h->caps->idle_n--;
    }
    c->refs++;
    return c;
}

static void caps_unref(struct home *h, struct caps *c)
{
    if (--c->refs)
        return;
    if (!c->key_len || c->state == CAPS_ASKED) {
        caps_destroy(h, c);
        return;
    }
    list_push_back(&h->caps->idle, &c->idle);
    h->caps->idle_n++;
    struct caps *oldest = list_first(&h->caps->idle, struct caps, idle);
    if (h->caps->idle_n > CACHED_MAX && oldest->state == CAPS_KNOWN)
        caps_destroy(h, oldest);
}

void caps_free(struct home *h)
{
    if (!h->caps)
        return;
    htable_each(it, &h->caps->by_key)
        caps_destroy(h, container_of(it, struct caps, node));
    htable_close(&h->caps->by_key);
    free(h->caps);
    h->caps = NULL;
}

/* ---- records ---- */

static struct record *record_find(const struct user *u, uint64_t sid)
{
    struct record *r = user_extra(u, EXTRA_CAPS);
    while (r && r->sid != sid)
        r = r->next;
    return r;
}

static void forget_held(struct record *r)
{
    list_each(e, &r->held, struct held, link) {
        list_remove(&e->link);
        stanza_unref(e->event);
        free(e);
    }
    r->held_n = 0;
}

static void record_free(struct record *r)
{
    forget_held(r);
    list_remove(&r->wait);
    caps_unref(r->user->home, r->caps);
    free(r);
}

static void record_drop(struct user *u, uint64_t sid)
{
    struct record *first = user_extra(u, EXTRA_CAPS), **at = &first;
    while (*at && (*at)->sid != sid)
        at = &(*at)->next;
    struct record *r = *at;
    if (!r)
        return;
    *at = r->next;
    user_set_extra(u, EXTRA_CAPS, first);
    record_free(r);
}

void caps_forgotten(struct user *u)
{
    for (struct record *r = user_extra(u, EXTRA_CAPS), *next; r; r = next) {
        next = r->next;
        record_free(r);
    }
    user_set_extra(u, EXTRA_CAPS, NULL);
}

/* ---- what is wanted ---- */

static bool wants(const struct caps *c, str node)
{
    const char *p = c->wants;
    for (unsigned i = 0; i < c->wants_n; i++, p += strlen(p) + 1)
        if (str_eq(str_of(p), node))
            return true;
    return false;
}

/* features: each ends with a line feed. */
static void keep_wanted(struct caps *c, str features)
{
    static const str notify = STR("+notify");
    c->wants = malloc(features.n + 1);
    must(c->wants);
    c->wants_n = 0, c->wants_len = 0;
    while (features.n) {
        const char *end = memchr(features.p, '\n', features.n);
        str f = str_from(features.p, end ? (size_t)(end - features.p) : features.n);
        features = str_skip(features, end ? f.n + 1 : f.n);
        if (f.n <= notify.n || !str_eq(str_skip(f, f.n - notify.n), notify))
            continue;
        memcpy(c->wants + c->wants_len, f.p, f.n - notify.n);
        c->wants_len += (uint32_t)(f.n - notify.n);
        c->wants[c->wants_len++] = '\0';
        c->wants_n++;
    }
    char *fit = realloc(c->wants, c->wants_len + 1);
    c->wants = fit ? fit : c->wants;
    c->state = CAPS_KNOWN;
}

/* Its caps are known: what it is owed. */
static void settle(struct record *r)
{
    struct home *h = r->user->home;
    struct session *s = session_find(h, r->sid);
    struct list held;
    list_init(&held);
    list_append(&held, &r->held);
    list_remove(&r->wait);
    const struct caps *c = r->caps;
    bool initial = r->initial;
    r->initial = false, r->held_n = 0;
    str *nodes = arena_alloc(home_arena(h), (c->wants_n + 1u) * sizeof *nodes);
    size_t n = 0;
    for (const char *p = c->wants; n < c->wants_n; p += nodes[n++].n + 1)
        nodes[n] = arena_dup(home_arena(h), str_of(p));
    list_each(e, &held, struct held, link) {
        if (s)
            pep_give(s, e->event, e->uid, e->us);
        list_remove(&e->link);
        stanza_unref(e->event);
        free(e);
    }
    if (s && initial)
        pep_wants(s, nodes, n);
}

static void settle_all(struct caps *c)
{
    while (!list_empty(&c->waiting))
        settle(list_first(&c->waiting, struct record, wait));
}

bool caps_take(struct session *s, str node, struct stanza *event, struct uid uid, int64_t us)
{
    struct record *r = session_available(s) ? record_find(s->user, s->sid) : NULL;
    if (!r)
        return false;
    if (r->caps->state == CAPS_KNOWN)
        return wants(r->caps, node);
    if (r->held_n == HELD_MAX)
        return false;
    struct held *e = malloc(sizeof *e);
    must(e);
    *e = (struct held){.event = stanza_ref(event), .uid = uid, .us = us};
    list_push_back(&r->held, &e->link);
    r->held_n++;
    return false;
}

/* ---- asking ---- */

static void ask(struct record *r)
{
    struct home *h = r->user->home;
    struct arena *a = home_arena(h);
    struct session *s = session_find(h, r->sid);
    if (!s)
        return;
    struct xml_writer w;
    xml_writer_init(&w, a);
    xml_open(&w, "iq");
    xml_put_attr(&w, "type", STR("get"));
    xml_put_attr(&w, "id", STR("caps"));
    xml_put_attr(&w, "from", user_bare(r->user));
    xml_put_attr(&w, "to", session_full(s, a));
    xml_open_ns(&w, "query", NS_INFO);
    xml_put_attr(&w, "node", str_from(r->query, r->query_len));
    xml_close(&w, "query");
    xml_close(&w, "iq");
    struct stanza *iq = stanza_make(h->node->scan, xml_written(&w), a);
    struct uid uid = {s->sid, s->in_ord, home_lane(session_full(s, a), "caps")};
    r->asked_ms = loop_now_ms(h->node->loop);
    session_send(s, iq, uid, 0, home_wall_us(h), NULL);
    stanza_unref(iq);
}

static void ask_some(struct caps *c)
{
    unsigned asked = 0;
    list_each(r, &c->waiting, struct record, wait)
        asked += r->asked_ms && !r->silent;
    list_each(r, &c->waiting, struct record, wait) {
        if (asked >= ASKED_MAX)
            return;
        if (!r->asked_ms)
            ask(r), asked++;
    }
}

void caps_sweep(struct home *h)
{
    uint64_t now = loop_now_ms(h->node->loop);
    if (!h->caps)
        return;
    htable_each(it, &h->caps->by_key) {
        struct caps *c = container_of(it, struct caps, node);
        if (c->state != CAPS_ASKED)
            continue;
        list_each(r, &c->waiting, struct record, wait)
            if (r->asked_ms && now - r->asked_ms > ANSWER_MS)
                r->silent = true, forget_held(r);
        ask_some(c);
    }
}

/* ---- the store ---- */

struct look_up {
    size_t len;
    char key[CAPS_KEY_MAX];
};

static void on_looked_up(struct home *h, void *ctx, err e, const Store__Reply *reply)
{
    struct look_up *l = ctx;
    struct caps *c = h->caps ? caps_find(h, str_from(l->key, l->len)) : NULL;
    free(l);
    if (!c || c->state != CAPS_LOOKED_UP)
        return;
    if (e == ERR_OK && reply->body_case == STORE__REPLY__BODY_CAPS) {
        keep_wanted(c, home_str(reply->caps->features));
        settle_all(c);
        return;
    }
    c->state = CAPS_ASKED;
    if (c->refs)
        ask_some(c);
    else
        caps_destroy(h, c);
}

static void look_up(struct home *h, const struct caps *c)
{
    struct look_up *l = malloc(sizeof *l);
    must(l && c->key_len <= sizeof l->key);
    l->len = c->key_len;
    memcpy(l->key, c->key, c->key_len);
    Store__Request req = STORE__REQUEST__INIT;
    Store__CapsGet op = STORE__CAPS_GET__INIT;
    op.key = home_bytes(key_of(c));
    req.op_case = STORE__REQUEST__OP_CAPS_GET, req.caps_get = &op;
    home_store(h, STR_NONE, &req, on_looked_up, l);
}

static void on_stored(struct home *h, void *ctx, err e, const Store__Reply *reply) {}

static void write_behind(struct home *h, const struct caps *c, str features)
{
    Store__Request req = STORE__REQUEST__INIT;
    Store__CapsPut op = STORE__CAPS_PUT__INIT;
    op.key = home_bytes(key_of(c)), op.features = home_bytes(features);
    req.op_case = STORE__REQUEST__OP_CAPS_PUT, req.caps_put = &op;
    home_store(h, STR_NONE, &req, on_stored, NULL);
}

/* ---- presence ---- */

static void record_new(struct session *s, const struct caps_said *said, bool initial)
{
    struct home *h = s->user->home;
    struct caps *c = said->key.n ? caps_find(h, said->key) : NULL;
    bool fresh = !c;
    if (!c)
        c = caps_new(h, said->key);
    struct record *r = calloc(1, sizeof *r + said->query.n);
    must(r);
    *r = (struct record){.user = s->user,
                         .caps = caps_ref(h, c),
                         .sid = s->sid,
                         .initial = initial,
                         .query_len = said->query.n,
                         .next = user_extra(s->user, EXTRA_CAPS)};
    memcpy(r->query, said->query.p, said->query.n);
    list_init(&r->held);
    list_init(&r->wait);
    user_set_extra(s->user, EXTRA_CAPS, r);
    if (c->state == CAPS_KNOWN) {
        settle(r);
        return;
    }
    list_push_back(&c->waiting, &r->wait);
    if (fresh && c->key_len) {
        look_up(h, c);
    } else if (c->state == CAPS_ASKED || !c->key_len) {
        c->state = CAPS_ASKED;
        ask_some(c);
    }
}

void caps_shown(struct session *s, enum shown_change change, struct ticket *t)
{
    struct record *had = record_find(s->user, s->sid);
    if (change == SHOWN_GONE) {
        record_drop(s->user, s->sid);
        return;
    }
    struct caps_said said =
        caps_read(str_from(s->shown->xml, s->shown->n), home_arena(s->user->home));
    if (had && str_eq(str_from(had->query, had->query_len), said.query))
        return;
    record_drop(s->user, s->sid);
    if (said.query.n)
        /* What waited for an inactive client has died with its home: it is asked for again. */
        record_new(s, &said, change != SHOWN_RESTORED || s->inactive);
}

/* ---- answers ---- */

static str features_of(const struct xml_el *query, struct arena *a)
{
    struct xml_el el;
    str *parts = arena_alloc(a, 2 * FEATURES_MAX * sizeof *parts);
    size_t n = 0, bytes = 0;
    for (bool more = xml_first(query, &el, a); more && n < 2 * FEATURES_MAX;
         more = xml_next(query, &el, a)) {
        str var = xml_is(&el, NS_INFO, "feature") ? xml_attr(&el, "var", a) : STR_NONE;
        if (!var.n || memchr(var.p, '\n', var.n) || bytes + var.n + 1 > FEATURES_BYTES_MAX)
            continue;
        bytes += var.n + 1;
        parts[n++] = var, parts[n++] = STR("\n");
    }
    return arena_concat(a, parts, n);
}

/* What this session has said counts for it alone; the others' is asked on. */
static void keep_to_itself(struct record *r, str features)
{
    struct home *h = r->user->home;
    struct caps *shared = r->caps, *own = caps_new(h, STR_NONE);
    if (!shared->key_len) {
        caps_destroy(h, own);
        keep_wanted(shared, features);
        settle(r);
        return;
    }
    list_remove(&r->wait);
    keep_wanted(own, features);
    r->caps = caps_ref(h, own);
    if (shared->refs > 1)
        ask_some(shared);
    caps_unref(h, shared);
    settle(r);
}

static void answered(struct record *r, const struct stanza *s)
{
    struct home *h = r->user->home;
    struct arena *a = home_arena(h);
    struct xml_el root = stanza_root(s, a), query;
    struct caps *c = r->caps;
    if (s->type != TYPE_RESULT || !xml_find(&root, NS_INFO, "query", &query, a)) {
        r->silent = true;
        ask_some(c);
        return;
    }
    str features = features_of(&query, a);
    if (!c->key_len || !caps_verify(key_of(c), &query, a)) {
        keep_to_itself(r, features);
        return;
    }
    keep_wanted(c, features);
    write_behind(h, c, features);
    settle_all(c);
}

bool caps_sent(struct session *s, struct sent *m)
{
    const struct stanza *st = m->stanza;
    if (st->kind != STANZA_IQ || (st->type != TYPE_RESULT && st->type != TYPE_ERROR) ||
        !str_is(stanza_id(st), "caps") || !str_eq(m->to.full, user_bare(s->user)))
        return true;
    struct record *r = record_find(s->user, s->sid);
    if (r && r->asked_ms && r->caps->state == CAPS_ASKED)
        answered(r, st);
    return false;
}

static const char *const features[] = {"http://jabber.org/protocol/caps", "urn:xmpp:caps", NULL};
const struct xep xep_caps = {.name = "caps", .server = features};
