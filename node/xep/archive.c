/* archive: a message's way into the archives of both sides. It is on its way to the store before it
 * is delivered, and nothing waits for that but its ticket: `h` counts what is committed. */
#include "node/xep/archive.h"

#include <openssl/siphash.h>
#include <xxhash.h>

#include "proto/sasl/scram.h"
#include "proto/xmpp/sid.h"

chain_sent_f archive_sent;
chain_received_f archive_received;
chain_known_f archive_known;

enum { TRIES = 4 };

/* ---- ids ---- */

static const uint64_t *keys_of(struct home *h)
{
    unsigned char key[32];
    if (!h->archive_keys_known) {
        const str label = STR("archive ids");
        scram_hmac(SCRAM_SHA256, str_from(h->node->secret, sizeof h->node->secret), &label, 1, key);
        memcpy(h->archive_keys, key, sizeof key);
        h->archive_keys_known = true;
    }
    return h->archive_keys;
}

/* Two of the 64-bit function under keys of their own are one of 128 bits. What has no uid happens
 * once: its time tells it from others. */
static void make_id(struct home *h, str owner, struct uid uid, uint32_t fp, int64_t us,
                    unsigned char id[ARCHIVE_ID_BYTES])
{
    const uint64_t *keys = keys_of(h);
    uint64_t numbers[] = {uid.sid, uid.ord, (uint64_t)uid.lane << 32 | fp,
                          uid.sid ? 0 : (uint64_t)us};
    unsigned char text[sizeof numbers + JID_MAX];
    memcpy(text, numbers, sizeof numbers);
    memcpy(text + sizeof numbers, owner.p, owner.n);
    uint64_t halves[] = {SIPHASH_24(keys, text, sizeof numbers + owner.n),
                         SIPHASH_24(keys + 2, text, sizeof numbers + owner.n)};
    memcpy(id, halves, ARCHIVE_ID_BYTES);
}

str archive_id_text(str id, struct arena *a)
{
    static const char digits[] = "0123456789abcdef";
    char *text = arena_alloc(a, id.n * 2);
    for (size_t i = 0; i < id.n; i++) {
        text[2 * i] = digits[(unsigned char)id.p[i] >> 4];
        text[2 * i + 1] = digits[id.p[i] & 15];
    }
    return str_from(text, id.n * 2);
}

static int digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool archive_id_of_text(str text, unsigned char id[ARCHIVE_ID_BYTES])
{
    if (text.n != ARCHIVE_ID_TEXT)
        return false;
    for (size_t i = 0; i < ARCHIVE_ID_BYTES; i++) {
        int high = digit(text.p[2 * i]), low = digit(text.p[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        id[i] = (unsigned char)(high << 4 | low);
    }
    return true;
}

static uint64_t hash_of(str s, uint64_t seed)
{
    uint64_t x = XXH3_64bits_withSeed(s.p, s.n, seed) & INT64_MAX;
    return !s.n ? 0 : x ? x : 1;
}

uint64_t archive_resource_hash(str resource) { return hash_of(resource, 0); }
uint64_t archive_message_hash(str id, bool sent) { return hash_of(id, 1 + sent); }

/* ---- which messages (xmpp.md 5) ---- */

static bool is_worth_it(const struct stanza *s)
{
    if (s->type != TYPE_CHAT && s->type != TYPE_NORMAL)
        return false;
    if (s->flags & (STANZA_HINT_NO_STORE | STANZA_HINT_NO_PERMANENT_STORE))
        return false;
    return s->flags & (STANZA_HINT_STORE | STANZA_CONTENT);
}

static bool is_to_keep(const struct user *u, const struct stanza *s, const struct jid *contact)
{
    return u->exists && !u->anonymous && !s->index.empty && is_worth_it(s) &&
           archive_wants_contact(u, contact);
}

/* ---- a row on its way ---- */

struct put {
    struct user *user;
    struct ticket *ticket;
    int64_t us;
    uint64_t resource, message;
    unsigned tries, contact_len, xml_len;
    unsigned char id[ARCHIVE_ID_BYTES];
    char text[]; /* contact, XML */
};

static void submit(struct put *p);

static void on_put(struct home *h, void *ctx, err e, const Store__Reply *reply)
{
    struct put *p = ctx;
    if (e == ERR_AWAY && ++p->tries < TRIES) {
        submit(p); /* the same id: harmless if it was written */
        return;
    }
    home_count(h, e == ERR_OK ? METRIC_archive_messages : METRIC_archive_lost, 1);
    if (p->ticket)
        ticket_close(p->ticket);
    user_unpin(p->user);
    free(p);
}

static void submit(struct put *p)
{
    Store__Request req = STORE__REQUEST__INIT;
    Store__ArchivePut op = STORE__ARCHIVE_PUT__INIT;
    op.id = home_bytes(str_from(p->id, sizeof p->id));
    op.time_us = p->us;
    op.contact = home_bytes(str_from(p->text, p->contact_len));
    op.resource = p->resource, op.message = p->message;
    op.stanza = home_bytes(str_from(p->text + p->contact_len, p->xml_len));
    req.op_case = STORE__REQUEST__OP_ARCHIVE_PUT, req.archive_put = &op;
    home_store(p->user->home, user_bare(p->user), &req, on_put, p);
}

struct entry {
    struct stanza *stanza;
    const struct jid *contact;
    const unsigned char *id;
    str xml; /* without the owner's stanza-id */
    int64_t us;
    bool sent;
};

static str message_id(const struct stanza *s, struct arena *a)
{
    return s->index.entities ? xml_unescape(stanza_id(s), true, a) : stanza_id(s);
}

static void put(struct user *u, const struct entry *e, struct ticket *t)
{
    struct put *p = malloc(sizeof *p + e->contact->bare.n + e->xml.n);
    must(p);
    *p = (struct put){.user = u, .ticket = t, .us = e->us};
    p->resource = archive_resource_hash(e->contact->resource);
    p->message = archive_message_hash(message_id(e->stanza, home_arena(u->home)), e->sent);
    p->contact_len = (unsigned)e->contact->bare.n, p->xml_len = (unsigned)e->xml.n;
    memcpy(p->id, e->id, sizeof p->id);
    memcpy(p->text, e->contact->bare.p, e->contact->bare.n);
    memcpy(p->text + e->contact->bare.n, e->xml.p, e->xml.n);
    if (t)
        ticket_open(t);
    user_pin(u);
    submit(p);
    archive_retract(u, e->stanza, e->contact, e->sent, e->us, t);
}

/* ---- at the sender's home ---- */

static bool goes_out(const struct session *s, const struct sent *m)
{
    return m->to.local.n && home_serves(s->user->home, m->to.domain) &&
           !str_eq(m->to.bare, user_bare(s->user));
}

/* What goes out never says that our archive has it (XEP-0313 3.1.2), also when a client does. */
bool archive_sent(struct session *s, struct sent *m)
{
    struct user *u = s->user;
    struct home *h = u->home;
    unsigned char id[ARCHIVE_ID_BYTES];
    if (m->stanza->kind != STANZA_MESSAGE || !goes_out(s, m))
        return true;
    str kept;
    struct stanza *without = sid_put(m->stanza, user_bare(u), STR_NONE, home_arena(h), &kept);
    if (is_to_keep(u, m->stanza, &m->to)) {
        make_id(h, user_bare(u), ticket_uid(m->ticket), stanza_fp(m->stanza), h->in_us, id);
        put(u, &(struct entry){m->stanza, &m->to, id, kept, h->in_us, true}, m->ticket);
        m->archive_id = archive_id_text(str_from(id, sizeof id), home_arena(h));
    }
    if (without)
        sent_replace(m, without);
    return true;
}

/* ---- at the addressee's home ---- */

/* All that it becomes from now on, a copy for each resource and what waits offline, has the id. */
bool archive_received(struct user *u, struct route *r)
{
    struct home *h = u->home;
    unsigned char id[ARCHIVE_ID_BYTES];
    str text = STR_NONE, kept;
    if (r->stanza->kind != STANZA_MESSAGE)
        return true;
    struct jid from = jid_parse_prepared(stanza_from(r->stanza));
    bool keep = is_to_keep(u, r->stanza, &from);
    if (keep) {
        make_id(h, user_bare(u), r->uid, stanza_fp(r->stanza), r->us, id);
        text = archive_id_text(str_from(id, sizeof id), home_arena(h));
    }
    struct stanza *with = sid_put(r->stanza, user_bare(u), text, home_arena(h), &kept);
    if (keep)
        put(u, &(struct entry){r->stanza, &from, id, kept, r->us, false}, r->ticket);
    if (with)
        route_replace(r, with);
    return true;
}

/* The former home may have died before the store had it. */
void archive_known(struct user *u, struct route *r) { (void)archive_received(u, r); }

/* ---- what it offers ---- */

static const struct xep_iq iqs[] = {
    {"urn:xmpp:mam:2", IQ_OWN_ACCOUNT | IQ_OTHER_ACCOUNT, archive_get, archive_query},
    {NULL, 0, NULL, NULL},
};
static const char *const features[] = {"urn:xmpp:mam:2",
                                       "urn:xmpp:mam:2#extended",
                                       "urn:xmpp:sid:0",
                                       "urn:xmpp:message-retract:1",
                                       "urn:xmpp:message-retract:1#tombstone",
                                       NULL};
const struct xep xep_archive = {.name = "archive", .account = features, .iqs = iqs};
