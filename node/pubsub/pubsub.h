/* pubsub: leaves, which users call nodes (XEP-0060): who may see and change them, what is published
 * there, who is told. A guest of the home: all that concerns one owner's leaves passes at the
 * owner's home in one order. Owners are accounts (PEP, XEP-0163); services and rooms will be.
 *
 *   config.c    a leaf's configuration: defaults, forms of it, what is kept of it
 *   leaf.c      the model: an owner's leaves in memory, affiliations, subscriptions, the rules
 *   service.c   one owner's requests, one after the other: loading, changes, results; their IQ face
 *   publish.c   items: publish, retract, retrieve (XEP-0060 7.1, 7.2, 6.5)
 *   subscribe.c subscribers' use cases (6.1 to 6.4);  owner.c  the owner's (8)
 *   disco.c     leaves as XEP-0030 shows them
 *   pep.c       what accounts add: subscriptions by presence and caps, last items
 *
 * In memory are configurations, affiliations, subscriptions, and small last items; payloads are in
 * the store. A change: looked at when its turn comes, committed, then applied here, then answered,
 * then told to who wants to know. */
#ifndef PEMBERLEY_PUBSUB_H
#define PEMBERLEY_PUBSUB_H

#include "node/home/iq.h"
#include "pemberley/hash.h"
#include "pemberley/list.h"
#include "proto/bus/frame.h"
#include "proto/xmpp/form.h"

struct Store__Leaf;
struct Store__LeafItem;

#define NS_PS "http://jabber.org/protocol/pubsub"
#define NS_PS_OWNER NS_PS "#owner"
#define NS_PS_EVENT NS_PS "#event"
#define NS_PS_ERRORS NS_PS "#errors"

/* ---- config.c ---- */

enum leaf_access {
    ACCESS_PRESENCE,
    ACCESS_OPEN,
    ACCESS_ROSTER,
    ACCESS_AUTHORIZE,
    ACCESS_WHITELIST
};
enum leaf_publishing { PUBLISH_PUBLISHERS, PUBLISH_SUBSCRIBERS, PUBLISH_OPEN };
enum leaf_last { LAST_NEVER, LAST_ON_SUB, LAST_ON_SUB_AND_PRESENCE };

/* What the rules look at. */
struct leaf_rules {
    uint8_t access, publishing, last; /* of the enums above */
    uint8_t message;                  /* notifications: 0 headline, 1 normal, 2 chat */
    bool persist, payloads, notifications;
    bool notify_retract, notify_delete, notify_config;
    uint32_t items_max; /* UINT32_MAX: as many as there may be ("max") */
};
struct leaf_config {
    struct leaf_rules rules;
    str title, type, description;
    const str *groups;
    size_t groups_n;
};
enum { LEAF_GROUPS_MAX = 64, LEAF_TEXT_MAX = 1024 };
extern const struct leaf_config leaf_config_pep; /* defaults of an account's (xmpp.md 7) */

/* A form of that FORM_TYPE, or of none. */
bool config_read_form(const struct xml_el *x, const char *type, struct form *out, struct arena *a);
/* One field of a form: ERR_NOT_FOUND: no such field; ERR_BAD: not a value of it. Views are kept. */
nodiscard err config_set(struct leaf_config *c, const struct form_field *f);
/* All of a form; fields that nobody knows are passed over. */
nodiscard err config_set_all(struct leaf_config *c, const struct form *f);
/* Is the configuration as this field wants it (publish-options, XEP-0060 7.1.5)? */
bool config_is(const struct leaf_config *c, const struct form_field *f, struct arena *a);
/* What is kept of it, and back; views into the bytes and the arena. */
str config_encode(const struct leaf_config *c, struct arena *a);
void config_decode(str kept, struct leaf_config *out, struct arena *a);
/* The form for the owner (type 'form'), or about it (type 'result', disco's meta-data). */
void config_put_form(struct xml_writer *w, const struct leaf_config *c, bool meta_data);

/* ---- leaf.c ---- */

enum affiliation {
    AFFILIATION_NONE,
    AFFILIATION_OUTCAST,
    AFFILIATION_MEMBER,
    AFFILIATION_PUBLISH_ONLY,
    AFFILIATION_PUBLISHER,
    AFFILIATION_OWNER,
    AFFILIATIONS
};
const char *affiliation_name(enum affiliation a);
bool affiliation_named(str name, enum affiliation *out);

enum subscription_state { SUBSCRIPTION_NONE, SUBSCRIPTION_PENDING, SUBSCRIPTION_SUBSCRIBED };
const char *subscription_state_name(enum subscription_state s);

struct affiliated {
    struct affiliated *next;
    enum affiliation as;
    uint32_t jid_len;
    char jid[]; /* bare */
};
struct subscriber {
    struct subscriber *next;
    enum subscription_state state;
    uint32_t jid_len;
    bool quiet; /* its option: deliver = false */
    char subid[17];
    char jid[]; /* bare or full */
};
enum { AFFILIATIONS_MAX = 256, SUBSCRIPTIONS_MAX = 256 }; /* of one leaf */

/* The newest item. */
struct last_item {
    int64_t us;
    uint32_t id_len, xml_len;
    bool cached; /* xml is here; else it is large, and asked for */
    char text[]; /* id, xml */
};

struct leaf {
    struct hnode node;
    struct leaf_rules rules;
    int64_t us; /* last configured */
    struct affiliated *affiliated;
    struct subscriber *subscribers;
    struct last_item *last; /* NULL: there is none, unless */
    bool last_unknown;      /* … the store is to be asked */
    uint32_t name_len, config_len;
    char *config; /* encoded */
    char name[];
};
static inline str leaf_name(const struct leaf *l) { return (str){l->name, l->name_len}; }
struct leaf_config leaf_config_of(const struct leaf *l, struct arena *a);

struct leaves {
    const struct hash_key *key;
    struct htable by_name;
};
void leaves_init(struct leaves *s, const struct hash_key *key);
void leaves_close(struct leaves *s);
struct leaf *leaf_find(const struct leaves *s, str name);
/* As the store has it. */
struct leaf *leaf_load(struct leaves *s, const struct Store__Leaf *from, struct arena *a);
struct leaf *leaf_make(struct leaves *s, str name, const struct leaf_config *c, int64_t us,
                       struct arena *a);
void leaf_configure(struct leaf *l, const struct leaf_config *c, int64_t us, struct arena *a);
void leaf_remove(struct leaves *s, struct leaf *l);
enum { LAST_CACHED_MAX = 2048 }; /* bytes of a last item that memory keeps */
void leaf_set_last(struct leaf *l, str id, str xml, bool whole, int64_t us);
void leaf_forget_last(struct leaf *l, bool unknown);

enum affiliation leaf_affiliation(const struct leaf *l, str bare);
void leaf_set_affiliation(struct leaf *l, str bare, enum affiliation a);
unsigned leaf_affiliations(const struct leaf *l);
struct subscriber *leaf_subscriber(const struct leaf *l, str jid);
/* state NONE removes; the subscriber, or NULL. */
struct subscriber *leaf_set_subscriber(struct leaf *l, str jid, str subid,
                                       enum subscription_state state, bool quiet);
unsigned leaf_subscribers(const struct leaf *l);

/* Who asks, as the owner of the leaves sees it. */
struct visitor {
    str bare;
    bool own;          /* the account itself, a service's admin */
    bool sees;         /* may see the owner's presence (from, both) */
    const str *groups; /* that the owner has it in */
    size_t groups_n;
};
/* Why not, as XEP-0060 says it: an error with its pubsub#errors element; e ERR_OK: it may. */
struct refusal {
    err e;
    const char *why; /* NULL: nothing more to say */
};
struct refusal leaf_may_see(const struct leaf *l, const struct visitor *v, struct arena *a);
struct refusal leaf_may_publish(const struct leaf *l, const struct visitor *v);
bool leaf_may_own(const struct leaf *l, const struct visitor *v);

/* ---- service.c: one owner's leaves, and what is asked of them ---- */

/* At user_extra(u, EXTRA_PUBSUB); made when it is first needed. */
struct pubsub;
struct pubsub *pubsub_of(struct user *u);
void pubsub_forgotten(struct user *u); /* chain.h */
struct leaves *pubsub_leaves(struct pubsub *p);

/* The handler of both namespaces. Also for a request that the home itself makes: its session is
 * NULL and nobody hears of the answer. */
void pubsub_iq(struct iq *q);
/* A publication of the home's own into a leaf of u: payload is XML that stands alone; options: what
 * a new leaf is like, NULL: the default. An effect of t until it is done. */
void pubsub_publish(struct user *u, str leaf, str id, str payload,
                    const struct leaf_config *options, struct ticket *t);
void pubsub_retract(struct user *u, str leaf, str id, struct ticket *t);

/* A disco request to an account: its leaves, or one of them; false: not of an account. */
bool pubsub_disco(struct iq *q, bool items);

/* Something to do with the leaves when they are loaded and it is its turn. run frees it; p is NULL
 * when they could not be loaded. The user is pinned from pubsub_with to the end of run. */
struct pubsub_work {
    struct list link;
    struct user *user;
    void (*run)(struct pubsub_work *w, struct pubsub *p);
};
void pubsub_with(struct user *u, struct pubsub_work *w);

/* ---- pep.c ---- */

/* What caused something to be told: outlives the request. */
struct cause {
    struct ticket *ticket; /* may be NULL */
    struct uid uid;
    int64_t us;
    struct stanza *stanza; /* what is told are views into it; NULL: they are not */
};
/* Says `event` (what stands inside <event/>) about a leaf to who may see it and wants to. */
void pep_tell(struct user *u, const struct leaf *l, str event, const struct cause *c);
/* The same to one subscriber who has just come: the last item. */
void pep_tell_last(struct user *u, const struct leaf *l, str to, const struct cause *c);
struct visitor pep_visitor(const struct user *u, str bare, struct arena *a);
/* What its client wants has become known (node/xep/caps.h): the last items of these leaves, of its
 * own account and of its contacts. */
void pep_wants(struct session *s, const str *nodes, size_t n);
/* … and an event that came before that, if it is wanted. */
void pep_give(struct session *s, struct stanza *event, struct uid uid, int64_t us);
struct route;
bool pep_received(struct user *u, struct route *r); /* chain.h */

#endif
