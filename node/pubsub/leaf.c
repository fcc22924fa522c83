/* leaf: an owner's leaves in memory, and the rules: who may see, who may publish
 * (XEP-0060 4.1, 4.5). Lists of affiliated and subscribed are short, and looked through. */
#include "node/pubsub/pubsub.h"

#include <stdlib.h>

#include "proto/bus/store.pb-c.h"

static str of(ProtobufCBinaryData b) { return str_from(b.data, b.len); }

/* ---- names ---- */

static const char *const affiliations[] = {"none",         "outcast",   "member",
                                           "publish-only", "publisher", "owner"};
_Static_assert(array_len(affiliations) == AFFILIATIONS, "a name each");

const char *affiliation_name(enum affiliation a) { return affiliations[a]; }

bool affiliation_named(str name, enum affiliation *out)
{
    for (enum affiliation i = AFFILIATION_NONE; i < AFFILIATIONS; i++)
        if (str_eq(name, str_of(affiliations[i]))) {
            *out = i;
            return true;
        }
    return false;
}

const char *subscription_state_name(enum subscription_state s)
{
    static const char *const names[] = {"none", "pending", "subscribed"};
    return names[s];
}

/* ---- the table ---- */

void leaves_init(struct leaves *s, const struct hash_key *key)
{
    s->key = key;
    htable_init(&s->by_name);
}

static void leaf_free(struct leaf *l)
{
    for (struct affiliated *a = l->affiliated, *next; a; a = next)
        next = a->next, free(a);
    for (struct subscriber *s = l->subscribers, *next; s; s = next)
        next = s->next, free(s);
    free(l->last);
    free(l->config);
    free(l);
}

void leaf_remove(struct leaves *s, struct leaf *l)
{
    htable_remove(&s->by_name, &l->node);
    leaf_free(l);
}

void leaves_close(struct leaves *s)
{
    htable_each(it, &s->by_name)
        leaf_remove(s, container_of(it, struct leaf, node));
    htable_close(&s->by_name);
}

struct leaf *leaf_find(const struct leaves *s, str name)
{
    uint64_t hash = hash_str(s->key, name);
    for (struct hnode *n = htable_find(&s->by_name, hash); n; n = htable_find_next(n)) {
        struct leaf *l = container_of(n, struct leaf, node);
        if (str_eq(leaf_name(l), name))
            return l;
    }
    return NULL;
}

static void keep_config(struct leaf *l, str config, const struct leaf_rules *rules, int64_t us)
{
    free(l->config);
    l->config = malloc(config.n + 1);
    must(l->config);
    memcpy(l->config, config.p, config.n);
    l->config_len = (uint32_t)config.n;
    l->rules = *rules, l->us = us;
}

void leaf_configure(struct leaf *l, const struct leaf_config *c, int64_t us, struct arena *a)
{
    keep_config(l, config_encode(c, a), &c->rules, us);
}

struct leaf *leaf_make(struct leaves *s, str name, const struct leaf_config *c, int64_t us,
                       struct arena *a)
{
    struct leaf *l = calloc(1, sizeof *l + name.n);
    must(l);
    memcpy(l->name, name.p, name.n);
    l->name_len = (uint32_t)name.n;
    leaf_configure(l, c, us, a);
    htable_insert(&s->by_name, &l->node, hash_str(s->key, name));
    return l;
}

struct leaf_config leaf_config_of(const struct leaf *l, struct arena *a)
{
    struct leaf_config c;
    config_decode(str_from(l->config, l->config_len), &c, a);
    return c;
}

struct leaf *leaf_load(struct leaves *s, const struct Store__Leaf *from, struct arena *a)
{
    struct leaf_config c;
    config_decode(of(from->config), &c, a);
    struct leaf *l = leaf_make(s, of(from->name), &c, from->time_us, a);
    for (size_t i = 0; i < from->n_affiliations; i++)
        if (from->affiliations[i]->affiliation < AFFILIATIONS)
            leaf_set_affiliation(l, of(from->affiliations[i]->jid),
                                 (enum affiliation)from->affiliations[i]->affiliation);
    for (size_t i = 0; i < from->n_subscriptions; i++) {
        const Store__LeafSubscription *sub = from->subscriptions[i];
        enum subscription_state state =
            sub->state == SUBSCRIPTION_PENDING ? SUBSCRIPTION_PENDING : SUBSCRIPTION_SUBSCRIBED;
        leaf_set_subscriber(l, of(sub->jid), of(sub->subid), state, str_is(of(sub->options), "q"));
    }
    const Store__LeafItem *last = from->last;
    if (last)
        leaf_set_last(l, of(last->id), of(last->xml), last->xml.len > 0, last->time_us);
    return l;
}

void leaf_forget_last(struct leaf *l, bool unknown)
{
    free(l->last);
    l->last = NULL;
    l->last_unknown = unknown;
}

void leaf_set_last(struct leaf *l, str id, str xml, bool whole, int64_t us)
{
    bool cached = whole && xml.n <= LAST_CACHED_MAX;
    size_t n = cached ? xml.n : 0;
    leaf_forget_last(l, false);
    l->last = malloc(sizeof *l->last + id.n + n);
    must(l->last);
    *l->last = (struct last_item){
        .us = us, .id_len = (uint32_t)id.n, .xml_len = (uint32_t)n, .cached = cached};
    memcpy(l->last->text, id.p, id.n);
    if (n)
        memcpy(l->last->text + id.n, xml.p, n);
}

/* ---- affiliations and subscriptions ---- */

static struct affiliated **affiliated_at(const struct leaf *l, str bare)
{
    struct affiliated **at = (struct affiliated **)&l->affiliated;
    while (*at && !str_eq(str_from((*at)->jid, (*at)->jid_len), bare))
        at = &(*at)->next;
    return at;
}

enum affiliation leaf_affiliation(const struct leaf *l, str bare)
{
    struct affiliated *a = *affiliated_at(l, bare);
    return a ? a->as : AFFILIATION_NONE;
}

void leaf_set_affiliation(struct leaf *l, str bare, enum affiliation as)
{
    struct affiliated **at = affiliated_at(l, bare), *a = *at;
    if (a && as == AFFILIATION_NONE) {
        *at = a->next;
        free(a);
        return;
    }
    if (!a && as == AFFILIATION_NONE)
        return;
    if (!a) {
        a = calloc(1, sizeof *a + bare.n);
        must(a);
        a->jid_len = (uint32_t)bare.n;
        memcpy(a->jid, bare.p, bare.n);
        *at = a;
    }
    a->as = as;
}

unsigned leaf_affiliations(const struct leaf *l)
{
    unsigned n = 0;
    for (const struct affiliated *a = l->affiliated; a; a = a->next)
        n++;
    return n;
}

static struct subscriber **subscriber_at(const struct leaf *l, str jid)
{
    struct subscriber **at = (struct subscriber **)&l->subscribers;
    while (*at && !str_eq(str_from((*at)->jid, (*at)->jid_len), jid))
        at = &(*at)->next;
    return at;
}

struct subscriber *leaf_subscriber(const struct leaf *l, str jid) { return *subscriber_at(l, jid); }

struct subscriber *leaf_set_subscriber(struct leaf *l, str jid, str subid,
                                       enum subscription_state state, bool quiet)
{
    struct subscriber **at = subscriber_at(l, jid), *s = *at;
    if (state == SUBSCRIPTION_NONE) {
        if (s)
            *at = s->next;
        free(s);
        return NULL;
    }
    if (!s) {
        s = calloc(1, sizeof *s + jid.n);
        must(s);
        s->jid_len = (uint32_t)jid.n;
        memcpy(s->jid, jid.p, jid.n);
        *at = s;
    }
    size_t n = subid.n < sizeof s->subid ? subid.n : sizeof s->subid - 1;
    if (n)
        memcpy(s->subid, subid.p, n);
    s->subid[n] = '\0';
    s->state = state, s->quiet = quiet;
    return s;
}

unsigned leaf_subscribers(const struct leaf *l)
{
    unsigned n = 0;
    for (const struct subscriber *s = l->subscribers; s; s = s->next)
        n++;
    return n;
}

/* ---- the rules ---- */

static bool in_groups(const struct leaf *l, const struct visitor *v, struct arena *a)
{
    struct leaf_config c = leaf_config_of(l, a);
    for (size_t i = 0; i < c.groups_n; i++)
        for (size_t k = 0; k < v->groups_n; k++)
            if (str_eq(c.groups[i], v->groups[k]))
                return true;
    return false;
}

static bool is_subscribed(const struct leaf *l, str bare)
{
    for (const struct subscriber *s = l->subscribers; s; s = s->next)
        if (s->state == SUBSCRIPTION_SUBSCRIBED &&
            str_eq(jid_parse_prepared(str_from(s->jid, s->jid_len)).bare, bare))
            return true;
    return false;
}

struct refusal leaf_may_see(const struct leaf *l, const struct visitor *v, struct arena *a)
{
    static const struct refusal yes = {ERR_OK, NULL};
    if (v->own)
        return yes;
    enum affiliation as = leaf_affiliation(l, v->bare);
    if (as == AFFILIATION_OUTCAST || as == AFFILIATION_PUBLISH_ONLY)
        return (struct refusal){ERR_STANZA_FORBIDDEN, NULL};
    if (as != AFFILIATION_NONE)
        return yes;
    switch ((enum leaf_access)l->rules.access) {
    case ACCESS_OPEN: return yes;
    case ACCESS_PRESENCE:
        return v->sees
                   ? yes
                   : (struct refusal){ERR_STANZA_NOT_AUTHORIZED, "presence-subscription-required"};
    case ACCESS_ROSTER:
        return v->sees && in_groups(l, v, a)
                   ? yes
                   : (struct refusal){ERR_STANZA_NOT_AUTHORIZED, "not-in-roster-group"};
    case ACCESS_AUTHORIZE:
        return is_subscribed(l, v->bare)
                   ? yes
                   : (struct refusal){ERR_STANZA_NOT_AUTHORIZED, "not-subscribed"};
    case ACCESS_WHITELIST: break;
    }
    return (struct refusal){ERR_STANZA_NOT_ALLOWED, "closed-node"};
}

struct refusal leaf_may_publish(const struct leaf *l, const struct visitor *v)
{
    static const struct refusal yes = {ERR_OK, NULL}, no = {ERR_STANZA_FORBIDDEN, NULL};
    enum affiliation as = leaf_affiliation(l, v->bare);
    if (v->own || as >= AFFILIATION_PUBLISH_ONLY)
        return yes;
    if (as == AFFILIATION_OUTCAST)
        return no;
    if (l->rules.publishing == PUBLISH_OPEN)
        return yes;
    return l->rules.publishing == PUBLISH_SUBSCRIBERS && is_subscribed(l, v->bare) ? yes : no;
}

bool leaf_may_own(const struct leaf *l, const struct visitor *v)
{
    return v->own || leaf_affiliation(l, v->bare) == AFFILIATION_OWNER;
}
