/* XEP-0441: whose messages an account has archived. Most accounts have never said: they have
 * nothing in memory, and their host's word holds. */
#include "node/xep/archive.h"

chain_loaded_f archive_loaded;
chain_forgotten_f archive_forgotten;

enum { JIDS_MAX = 1000, PREFS_BYTES_MAX = 256 << 10 };

static Store__ArchivePrefs *prefs_of(const struct user *u) { return user_extra(u, EXTRA_ARCHIVE); }

static void keep(struct user *u, str packed)
{
    Store__ArchivePrefs *old = prefs_of(u), *p = NULL;
    if (packed.n)
        p = store__archive_prefs__unpack(NULL, packed.n, (const uint8_t *)packed.p);
    if (old)
        store__archive_prefs__free_unpacked(old, NULL);
    user_set_extra(u, EXTRA_ARCHIVE, p);
}

void archive_loaded(struct user *u, const struct Store__User *from)
{
    if (from->archive_prefs.len)
        keep(u, home_str(from->archive_prefs));
}

void archive_forgotten(struct user *u)
{
    if (prefs_of(u))
        keep(u, STR_NONE);
}

/* ---- the rule (XEP-0441 2.4) ---- */

static bool has(const ProtobufCBinaryData *jids, size_t n, const struct jid *contact)
{
    for (size_t i = 0; i < n; i++)
        if (str_eq(home_str(jids[i]), contact->full) || str_eq(home_str(jids[i]), contact->bare))
            return true;
    return false;
}

static Store__ArchivePrefs__Default default_of(const struct user *u)
{
    static const Store__ArchivePrefs__Default of[] = {
        [CONF_ARCHIVE_ALWAYS] = STORE__ARCHIVE_PREFS__DEFAULT__ALWAYS,
        [CONF_ARCHIVE_ROSTER] = STORE__ARCHIVE_PREFS__DEFAULT__ROSTER,
        [CONF_ARCHIVE_NEVER] = STORE__ARCHIVE_PREFS__DEFAULT__NEVER};
    const Store__ArchivePrefs *p = prefs_of(u);
    const struct conf_host *host = user_host(u);
    if (p && p->behaviour != STORE__ARCHIVE_PREFS__DEFAULT__HOST)
        return p->behaviour;
    return host ? of[host->archive] : STORE__ARCHIVE_PREFS__DEFAULT__NEVER;
}

bool archive_wants_contact(const struct user *u, const struct jid *contact)
{
    const Store__ArchivePrefs *p = prefs_of(u);
    if (p && has(p->never, p->n_never, contact))
        return false;
    if (p && has(p->always, p->n_always, contact))
        return true;
    switch (default_of(u)) {
    case STORE__ARCHIVE_PREFS__DEFAULT__ALWAYS: return true;
    case STORE__ARCHIVE_PREFS__DEFAULT__ROSTER:
        return str_eq(contact->bare, user_bare(u)) || roster_find(u, contact->bare);
    default: return false;
    }
}

/* ---- asked and told ---- */

static void put_jids(struct xml_writer *w, const char *name, const ProtobufCBinaryData *jids,
                     size_t n)
{
    xml_open(w, name);
    for (size_t i = 0; i < n; i++)
        xml_put_leaf(w, "jid", NULL, home_str(jids[i]));
    xml_close(w, name);
}

static void answer(struct iq *q, struct user *u)
{
    static const char *const names[] = {[STORE__ARCHIVE_PREFS__DEFAULT__ALWAYS] = "always",
                                        [STORE__ARCHIVE_PREFS__DEFAULT__ROSTER] = "roster",
                                        [STORE__ARCHIVE_PREFS__DEFAULT__NEVER] = "never"};
    static const Store__ArchivePrefs none = STORE__ARCHIVE_PREFS__INIT;
    const Store__ArchivePrefs *p = prefs_of(u) ? prefs_of(u) : &none;
    struct xml_writer w;
    xml_writer_init(&w, q->arena);
    xml_open_ns(&w, "prefs", "urn:xmpp:mam:2");
    xml_put_attr(&w, "default", str_of(names[default_of(u)]));
    put_jids(&w, "always", p->always, p->n_always);
    put_jids(&w, "never", p->never, p->n_never);
    xml_close(&w, "prefs");
    iq_result(q, xml_written(&w));
}

void archive_get_prefs(struct iq *q) { answer(q, q->user); }

/* Prepared JIDs of <always/> or <never/>. ERR_FULL, ERR_STANZA_JID_MALFORMED, ERR_BAD. */
static err read_jids(const struct xml_el *list, struct arena *a, ProtobufCBinaryData **out,
                     size_t *n)
{
    struct xml_el el;
    struct jid j;
    if (*out)
        return ERR_BAD; /* twice */
    *out = arena_alloc(a, JIDS_MAX * sizeof **out);
    for (bool more = xml_first(list, &el, a); more; more = xml_next(list, &el, a)) {
        if (!xml_is(&el, "urn:xmpp:mam:2", "jid"))
            return ERR_BAD;
        if (*n == JIDS_MAX)
            return ERR_FULL;
        err e = jid_prepare(xml_text(&el, a), a, &j);
        if (e)
            return e;
        (*out)[(*n)++] = home_bytes(arena_dup(a, j.full));
    }
    return ERR_OK;
}

static err read_default(str name, Store__ArchivePrefs__Default *out)
{
    if (str_is(name, "always"))
        *out = STORE__ARCHIVE_PREFS__DEFAULT__ALWAYS;
    else if (str_is(name, "roster"))
        *out = STORE__ARCHIVE_PREFS__DEFAULT__ROSTER;
    else if (str_is(name, "never"))
        *out = STORE__ARCHIVE_PREFS__DEFAULT__NEVER;
    else
        return ERR_BAD;
    return ERR_OK;
}

static err read_prefs(const struct xml_el *prefs, struct arena *a, Store__ArchivePrefs *p)
{
    struct xml_el el;
    err e = read_default(xml_attr(prefs, "default", a), &p->behaviour);
    for (bool more = !e && xml_first(prefs, &el, a); more; more = !e && xml_next(prefs, &el, a)) {
        if (xml_is(&el, "urn:xmpp:mam:2", "always"))
            e = read_jids(&el, a, &p->always, &p->n_always);
        else if (xml_is(&el, "urn:xmpp:mam:2", "never"))
            e = read_jids(&el, a, &p->never, &p->n_never);
    }
    if (!e && store__archive_prefs__get_packed_size(p) > PREFS_BYTES_MAX)
        e = ERR_FULL;
    return e;
}

/* What the store has now was in the request. */
static void on_put(struct iq *kept, err e, const Store__Reply *reply)
{
    Store__ArchivePrefs p = STORE__ARCHIVE_PREFS__INIT;
    struct xml_el payload = iq_payload(kept, kept->arena);
    if (e) {
        iq_store_error(kept, e);
        return;
    }
    must(read_prefs(&payload, kept->arena, &p) == ERR_OK);
    uint8_t *packed = arena_alloc(kept->arena, store__archive_prefs__get_packed_size(&p));
    keep(kept->user, str_from(packed, store__archive_prefs__pack(&p, packed)));
    answer(kept, kept->user);
}

void archive_set_prefs(struct iq *q)
{
    Store__ArchivePrefs p = STORE__ARCHIVE_PREFS__INIT;
    err e = read_prefs(&q->payload, q->arena, &p);
    if (e) {
        iq_error(q, e == ERR_FULL  ? ERR_STANZA_RESOURCE_CONSTRAINT
                    : e == ERR_BAD ? ERR_STANZA_BAD_REQUEST
                                   : e);
        return;
    }
    uint8_t *packed = arena_alloc(q->arena, store__archive_prefs__get_packed_size(&p));
    Store__ArchivePrefsPut op = STORE__ARCHIVE_PREFS_PUT__INIT;
    Store__Request req = STORE__REQUEST__INIT;
    op.prefs = home_bytes(str_from(packed, store__archive_prefs__pack(&p, packed)));
    req.op_case = STORE__REQUEST__OP_ARCHIVE_PREFS_PUT, req.archive_prefs_put = &op;
    req.owner = home_bytes(user_bare(q->user));
    iq_store(q, &req, on_put);
}
