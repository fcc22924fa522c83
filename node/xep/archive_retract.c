/* XEP-0424: who takes a message back leaves a tombstone in its place, in both archives. What is
 * retracted is looked for among the last messages with this contact, and read before it is
 * replaced: only its author may take it back. */
#include "node/xep/archive.h"

#define RETRACT "urn:xmpp:message-retract:1"

struct retraction {
    struct user *user;
    struct ticket *ticket;
    struct stanza *stanza; /* that asks for it */
    int64_t us;
};

static void end(struct retraction *x)
{
    if (x->ticket)
        ticket_close(x->ticket);
    stanza_unref(x->stanza);
    user_unpin(x->user);
    free(x);
}

/* What it takes back, and its own id; false: it is no retraction. */
static bool read_retract(const struct stanza *s, struct arena *a, str *target, str *own)
{
    struct xml_el root, el;
    bool any = false;
    for (unsigned i = 0; i < s->index.nchild; i++)
        any |= s->index.child[i].ns == NS_RETRACT;
    if (!any)
        return false;
    root = stanza_root(s, a);
    *own = xml_attr(&root, "id", a);
    if (!own->n || !xml_find(&root, RETRACT, "retract", &el, a))
        return false;
    *target = xml_attr(&el, "id", a);
    return target->n > 0;
}

/* 5: from the same bare JID; occupants of a room share that. */
static bool is_same_author(const struct stanza *retraction, const struct stanza *s)
{
    struct jid a = jid_parse_prepared(stanza_from(retraction));
    struct jid b = jid_parse_prepared(stanza_from(s));
    bool occupants = (retraction->flags | s->flags) & STANZA_MUC_USER;
    return occupants ? str_eq(a.full, b.full) && str_eq(stanza_to(retraction), stanza_to(s))
                     : str_eq(a.bare, b.bare);
}

static bool is_target(const struct stanza *retraction, const struct stanza *s, str target,
                      struct arena *a)
{
    for (unsigned i = 0; i < s->index.nchild; i++)
        if (s->index.child[i].ns == NS_RETRACT) /* a retraction, or a tombstone already */
            return false;
    struct xml_el root = stanza_root(s, a);
    return str_eq(xml_attr(&root, "id", a), target) && is_same_author(retraction, s);
}

static str tombstone(const struct stanza *s, str by_id, int64_t us, struct arena *a)
{
    static const char *const names[] = {"from", "to", "type", "id"};
    struct xml_el root = stanza_root(s, a);
    struct xml_writer w;
    xml_writer_init(&w, a);
    xml_open(&w, "message");
    for (size_t i = 0; i < array_len(names); i++) {
        str value = xml_attr(&root, names[i], a);
        if (value.p)
            xml_put_attr(&w, names[i], value);
    }
    xml_open_ns(&w, "retracted", RETRACT);
    xml_put_attr(&w, "id", by_id);
    xml_put_attr(&w, "stamp", stanza_stamp(us, a));
    xml_close(&w, "retracted");
    xml_close(&w, "message");
    return xml_written(&w);
}

static void on_replaced(struct home *h, void *ctx, err e, const Store__Reply *reply) { end(ctx); }

static void replace(struct retraction *x, const Store__ArchiveRow *row, str with)
{
    Store__Request req = STORE__REQUEST__INIT;
    Store__ArchiveReplace op = STORE__ARCHIVE_REPLACE__INIT;
    op.id = row->id, op.stanza = home_bytes(with);
    req.op_case = STORE__REQUEST__OP_ARCHIVE_REPLACE, req.archive_replace = &op;
    home_store(x->user->home, user_bare(x->user), &req, on_replaced, x);
}

static void on_found(struct home *h, void *ctx, err e, const Store__Reply *reply)
{
    struct retraction *x = ctx;
    struct arena *a = home_arena(h);
    str target, own;
    size_t n =
        e == ERR_OK && reply->body_case == STORE__REPLY__BODY_ARCHIVE ? reply->archive->n_rows : 0;
    must(read_retract(x->stanza, a, &target, &own));
    for (size_t i = 0; i < n; i++) {
        const Store__ArchiveRow *row = reply->archive->rows[i];
        struct stanza *s;
        if (stanza_of_kept(h->node->scan, home_str(row->stanza), a, &s))
            continue;
        bool found = is_target(x->stanza, s, target, a);
        str with = found ? tombstone(s, own, x->us, a) : STR_NONE;
        stanza_unref(s);
        if (found) {
            replace(x, row, with);
            return;
        }
    }
    end(x);
}

void archive_retract(struct user *u, struct stanza *s, const struct jid *contact, bool sent,
                     int64_t us, struct ticket *t)
{
    str target, own;
    if (!read_retract(s, home_arena(u->home), &target, &own))
        return;
    Store__Request req = STORE__REQUEST__INIT;
    Store__ArchiveFind op = STORE__ARCHIVE_FIND__INIT;
    op.contact = home_bytes(contact->bare);
    op.message = archive_message_hash(target, sent);
    struct retraction *x = malloc(sizeof *x);
    must(x);
    *x = (struct retraction){.user = u, .ticket = t, .stanza = stanza_ref(s), .us = us};
    if (t)
        ticket_open(t);
    user_pin(u);
    req.op_case = STORE__REQUEST__OP_ARCHIVE_FIND, req.archive_find = &op;
    home_store(u->home, user_bare(u), &req, on_found, x);
}
