/* inactive: what is held back for a client that says nobody looks at it (XEP-0352), so that its
 * radio may sleep:
 *
 *   presence             the last of each full JID
 *   events (XEP-0060)    the last of each item of a node; not of each node: of bookmarks each
 * counts headlines            all lone chat states     the last of each sender
 *
 * Anything else goes at once, and before it all that is held, in order; so it does when the client
 * is active again, when it has resumed, and beyond a bound. A later one takes the place of a former
 * one at the end: what says that all of a contact's resources are gone must not come behind one
 * that is there again.
 *
 * It has no number yet and counts as safe: all of it is state. It dies with this home; the next one
 * knows that the client was inactive and asks for its contacts' presence anew (attach.c). */
#include "node/home/inside.h"

struct back {
    struct list link;
    struct stanza *stanza;
    struct uid uid;
    int64_t us;
    uint64_t key; /* 0: nothing takes its place */
    uint32_t flags;
};
struct held_back {
    struct list all;
    size_t n, bytes;
};

enum class { CLASS_PRESENCE = 1, CLASS_EVENT, CLASS_CHATSTATE };

static uint64_t key_of(const struct session *s, enum class class, str what)
{
    uint64_t key = hash_str(&s->user->home->node->key, what) + class;
    return key ? key : 1;
}

/* Of an event about one item. */
static uint64_t event_key(const struct session *s, const struct stanza *stanza)
{
    static const char ns[] = "http://jabber.org/protocol/pubsub#event";
    struct arena *a = home_arena(s->user->home);
    struct xml_el root = stanza_root(stanza, a), event, items, item, next;
    if (!xml_find(&root, ns, "event", &event, a) || !xml_find(&event, ns, "items", &items, a) ||
        !xml_first(&items, &item, a))
        return 0;
    next = item;
    str id = xml_attr(&item, "id", a), node = xml_attr(&items, "node", a);
    if (xml_next(&items, &next, a) || !id.n)
        return 0;
    str parts[] = {stanza_from(stanza), STR("\n"), node, STR("\n"), id};
    return key_of(s, CLASS_EVENT, arena_concat(a, parts, array_len(parts)));
}

static bool is_event(const struct stanza *s)
{
    for (unsigned i = 0; i < s->index.nchild; i++)
        if (s->index.child[i].ns == NS_PUBSUB_EVENT)
            return !(s->flags & STANZA_BODY);
    return false;
}

static bool is_lone_chatstate(const struct stanza *s)
{
    return (s->flags & STANZA_CHATSTATE) && (s->flags & STANZA_ONLY_TRANSIENT) &&
           !(s->flags & STANZA_HINT_STORE);
}

static bool can_wait(const struct session *s, const struct stanza *stanza, uint64_t *key)
{
    *key = 0;
    if (stanza->kind == STANZA_PRESENCE) {
        *key = key_of(s, CLASS_PRESENCE, stanza_from(stanza));
        return stanza->type == TYPE_AVAILABLE || stanza->type == TYPE_UNAVAILABLE;
    }
    if (stanza->kind != STANZA_MESSAGE || stanza->type == TYPE_ERROR)
        return false;
    if (is_event(stanza)) {
        *key = event_key(s, stanza);
        return true;
    }
    if (is_lone_chatstate(stanza)) {
        *key = key_of(s, CLASS_CHATSTATE, stanza_from(stanza));
        return true;
    }
    return stanza->type == TYPE_HEADLINE;
}

static struct held_back *held_back(struct session *s)
{
    struct waiting *w = session_waiting(s);
    if (!w->back) {
        w->back = calloc(1, sizeof *w->back);
        must(w->back);
        list_init(&w->back->all);
    }
    return w->back;
}

static void let_go(struct held_back *h, struct back *b)
{
    list_remove(&b->link);
    h->n--, h->bytes -= b->stanza->size;
    stanza_unref(b->stanza);
    free(b);
}

static void forget_former(struct session *s, struct held_back *h, uint64_t key)
{
    if (!key)
        return;
    list_each(b, &h->all, struct back, link)
        if (b->key == key) {
            let_go(h, b);
            home_count(s->user->home, METRIC_csi_replaced, 1);
            return;
        }
}

static void hold(struct session *s, const struct back *back)
{
    struct held_back *h = held_back(s);
    forget_former(s, h, back->key);
    struct back *b = malloc(sizeof *b);
    must(b);
    *b = *back;
    stanza_ref(b->stanza);
    list_init(&b->link);
    list_push_back(&h->all, &b->link);
    h->n++, h->bytes += b->stanza->size;
    home_count(s->user->home, METRIC_csi_held, 1);
}

/* All of it must fit into the session's queue. */
static bool is_full(const struct session *s)
{
    const struct conf *c = s->user->home->node->conf;
    const struct held_back *h = s->waiting->back;
    return h->n > c->modules_csi_queue_max || h->bytes > c->modules_csi_queue_bytes_max ||
           h->n > c->limits_unacked_max / 4 || h->bytes > c->limits_unacked_bytes_max / 4;
}

bool inactive_holds(struct session *s, struct stanza *stanza, struct uid uid, uint32_t flags,
                    int64_t us)
{
    struct back b = {.stanza = stanza, .uid = uid, .us = us, .flags = flags & ~FRAME_AGAIN};
    if (!can_wait(s, stanza, &b.key)) {
        inactive_flush(s);
        return false;
    }
    hold(s, &b);
    if (is_full(s))
        inactive_flush(s);
    return true;
}

void inactive_flush(struct session *s)
{
    struct held_back *h = s->waiting ? s->waiting->back : NULL;
    if (!h)
        return;
    bool was = s->inactive;
    s->waiting->back = NULL;
    s->inactive = false;
    list_each(b, &h->all, struct back, link) {
        session_send(s, b->stanza, b->uid, b->flags, b->us, NULL);
        let_go(h, b);
    }
    s->inactive = was;
    free(h);
    session_waited(s);
}

void inactive_set(struct session *s, bool inactive, struct ticket *t)
{
    if (s->inactive == inactive)
        return;
    inactive_flush(s);
    s->inactive = inactive;
    if (t)
        second_state(s, t);
}

void inactive_free(struct session *s)
{
    struct held_back *h = s->waiting ? s->waiting->back : NULL;
    if (!h)
        return;
    list_each(b, &h->all, struct back, link)
        let_go(h, b);
    free(h);
    s->waiting->back = NULL;
}
