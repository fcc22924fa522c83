/* XEP-0402 (#compat): rooms that were bookmarked in private XML (XEP-0048 in XEP-0049) are items of
 * urn:xmpp:bookmarks:1, and what is asked for there is made of these. What is no room (URLs) stays
 * in private XML. An account whose clients know nothing of PEP has what it has stored, until one
 * does. */
#include "node/xep/bookmarks.h"

#include <stdlib.h>

#include "node/home/inside.h"
#include "node/pubsub/pubsub.h"
#include "node/xep/xep.h"

#define NS_NEW "urn:xmpp:bookmarks:1"
#define NS_OLD "storage:bookmarks"

enum { ROOMS_MAX = 512 };

struct job {
    struct pubsub_work work;
    struct iq *q; /* kept */
    size_t len;
    char stored[];
};

bool bookmarks_are(const struct iq *q, const struct xml_el *entry)
{
    return q->entity == IQ_OWN_ACCOUNT && q->session && !q->session->user->anonymous &&
           xml_is(entry, NS_OLD, "storage") && xep_active(&xep_bookmarks, q->node->conf, q->host);
}

/* ---- one room, in both forms ---- */

static bool is_true(str v) { return str_is(v, "true") || str_is(v, "1"); }

static void put_text(struct xml_writer *w, const struct xml_el *c, const char *ns, const char *name)
{
    struct xml_el el;
    if (xml_find(c, ns, name, &el, w->arena))
        xml_put_leaf(w, name, NULL, xml_text(&el, w->arena));
}

/* c: of either namespace; the JID is an attribute of the old form only. */
static str conference(const struct xml_el *c, const char *from_ns, const char *to_ns, str jid,
                      struct arena *a)
{
    struct xml_writer w;
    xml_writer_init(&w, a);
    xml_open_ns(&w, "conference", to_ns);
    if (jid.n)
        xml_put_attr(&w, "jid", jid);
    if (xml_attr(c, "name", a).n)
        xml_put_attr(&w, "name", xml_attr(c, "name", a));
    if (is_true(xml_attr(c, "autojoin", a)))
        xml_put_attr(&w, "autojoin", STR("true"));
    put_text(&w, c, from_ns, "nick");
    put_text(&w, c, from_ns, "password");
    xml_close(&w, "conference");
    return xml_written(&w);
}

static str old_of_item(const Store__LeafItem *i, struct arena *a)
{
    struct xml_el c = xml_root(home_str(i->xml), STR_NONE, a);
    return conference(&c, NS_NEW, NS_OLD, home_str(i->id), a);
}

/* ---- get ---- */

static struct job *job_new(struct iq *kept, str stored,
                           void (*run)(struct pubsub_work *, struct pubsub *))
{
    struct job *j = malloc(sizeof *j + stored.n);
    must(j);
    *j = (struct job){.work.run = run, .q = kept, .len = stored.n};
    list_init(&j->work.link);
    if (stored.n)
        memcpy(j->stored, stored.p, stored.n);
    return j;
}

static void answer(struct iq *q, str storage)
{
    str parts[] = {STR("<query xmlns='jabber:iq:private'>"),
                   storage.n ? storage : STR("<storage xmlns='" NS_OLD "'/>"), STR("</query>")};
    iq_result(q, arena_concat(home_arena(q->home), parts, 3));
}

static void on_items(struct home *h, void *ctx, err e, const Store__Reply *reply)
{
    struct job *j = ctx;
    struct xml_writer w;
    struct arena *a = home_arena(h);
    if (e != ERR_OK) {
        iq_store_error(j->q, e);
        free(j);
        return;
    }
    xml_writer_init(&w, a);
    xml_open_ns(&w, "storage", NS_OLD);
    for (size_t i = 0; i < reply->items->n_items; i++)
        xml_put_raw(&w, old_of_item(reply->items->items[i], a));
    if (j->len) {
        struct xml_el root = xml_root(str_from(j->stored, j->len), STR("jabber:iq:private"), a), el;
        for (bool more = xml_first(&root, &el, a); more; more = xml_next(&root, &el, a))
            if (!xml_is(&el, NS_OLD, "conference"))
                xml_put_raw(&w, xml_standalone(&el, STR(NS_OLD), a));
    }
    xml_close(&w, "storage");
    answer(j->q, xml_written(&w));
    free(j);
}

static void ask_items(struct job *j, home_store_f *done)
{
    Store__Request req = STORE__REQUEST__INIT;
    Store__ItemGet op = STORE__ITEM_GET__INIT;
    op.leaf = home_bytes(STR(NS_NEW)), op.limit = ROOMS_MAX;
    req.op_case = STORE__REQUEST__OP_ITEM_GET, req.item_get = &op;
    home_store(j->q->home, j->q->asker.bare, &req, done, j);
}

static void run_get(struct pubsub_work *w, struct pubsub *p)
{
    struct job *j = container_of(w, struct job, work);
    if (p && leaf_find(pubsub_leaves(p), STR(NS_NEW))) {
        ask_items(j, on_items);
        return;
    }
    if (p)
        answer(j->q, str_from(j->stored, j->len));
    else
        iq_store_error(j->q, ERR_AWAY);
    free(j);
}

void bookmarks_get(struct iq *kept, str stored)
{
    if (!kept->session) { /* it has ended: nobody waits */
        iq_result(kept, STR_NONE);
        return;
    }
    pubsub_with(kept->session->user, &job_new(kept, stored, run_get)->work);
}

/* ---- set ---- */

static const Store__LeafItem *item_of(const Store__ItemPage *page, str jid)
{
    for (size_t i = 0; i < page->n_items; i++)
        if (str_eq(home_str(page->items[i]->id), jid))
            return page->items[i];
    return NULL;
}

static bool next_room(const struct xml_el *storage, struct xml_el *c, bool first, struct jid *jid,
                      struct arena *a)
{
    bool more = first ? xml_first(storage, c, a) : xml_next(storage, c, a);
    for (; more; more = xml_next(storage, c, a))
        if (xml_is(c, NS_OLD, "conference") && jid_prepare(xml_attr(c, "jid", a), a, jid) == ERR_OK)
            return true;
    return false;
}

static bool is_listed(const struct xml_el *storage, str id, struct arena *a)
{
    struct xml_el c;
    struct jid jid;
    for (bool more = next_room(storage, &c, true, &jid, a); more;
         more = next_room(storage, &c, false, &jid, a))
        if (str_eq(jid.bare, id))
            return true;
    return false;
}

/* XEP-0402 3: nobody else's, all of them kept, none sent at a login unasked. */
static struct leaf_config private_leaf(void)
{
    struct leaf_config c = leaf_config_pep;
    c.rules.access = ACCESS_WHITELIST, c.rules.last = LAST_NEVER, c.rules.items_max = UINT32_MAX;
    return c;
}

static void publish_changed(struct user *u, const struct xml_el *storage,
                            const Store__ItemPage *page, struct ticket *t)
{
    struct arena *a = home_arena(u->home);
    struct leaf_config config = private_leaf();
    struct xml_el c;
    struct jid jid;
    unsigned n = 0;
    for (bool more = next_room(storage, &c, true, &jid, a); more && n < ROOMS_MAX;
         more = next_room(storage, &c, false, &jid, a), n++) {
        const Store__LeafItem *had = item_of(page, jid.bare);
        str old = conference(&c, NS_OLD, NS_OLD, jid.bare, a);
        if (!had || !str_eq(old_of_item(had, a), old))
            pubsub_publish(u, STR(NS_NEW), jid.bare, conference(&c, NS_OLD, NS_NEW, STR_NONE, a),
                           &config, t);
    }
}

static void run_answer(struct pubsub_work *w, struct pubsub *p)
{
    struct job *j = container_of(w, struct job, work);
    iq_result(j->q, STR_NONE);
    free(j);
}

static void on_former(struct home *h, void *ctx, err e, const Store__Reply *reply)
{
    struct job *j = ctx;
    struct arena *a = home_arena(h);
    struct xml_el query = iq_payload(j->q, a), storage;
    struct user *u = j->q->session ? j->q->session->user : NULL;
    if (e != ERR_OK || !u || !xml_first(&query, &storage, a)) {
        iq_store_error(j->q, e != ERR_OK ? e : ERR_AWAY);
        free(j);
        return;
    }
    publish_changed(u, &storage, reply->items, j->q->ticket);
    for (size_t i = 0; i < reply->items->n_items; i++) {
        str id = home_str(reply->items->items[i]->id);
        if (!is_listed(&storage, id, a))
            pubsub_retract(u, STR(NS_NEW), id, j->q->ticket);
    }
    pubsub_with(u, &job_new(j->q, STR_NONE, run_answer)->work); /* behind all these */
    free(j);
}

void bookmarks_set(struct iq *kept) { ask_items(job_new(kept, STR_NONE, NULL), on_former); }

static const char *const features[] = {"urn:xmpp:bookmarks:1#compat", NULL};
const struct xep xep_bookmarks = {.name = "bookmarks", .account = features};
