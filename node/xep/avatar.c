/* XEP-0398 (with 0084, 0153, 0054): the account's picture. Its hash is in memory as long as the
 * account is, for the presence of its sessions; it comes with the account from the store.
 *
 *   PEP metadata published --> hash here --> its data --> PHOTO of the vCard
 *                                                     `--> presence of all sessions again
 *   vCard set              --> PHOTO --> PEP data, metadata --> as above */
#include "node/xep/avatar.h"

#include <openssl/digest.h>
#include <stdio.h>
#include <stdlib.h>

#include "node/home/inside.h"
#include "node/xep/xep.h"
#include "proto/base/base64.h"

#define NS_DATA "urn:xmpp:avatar:data"
#define NS_METADATA "urn:xmpp:avatar:metadata"
#define NS_UPDATE "vcard-temp:x:update"
#define NS_VCARD_TEMP "vcard-temp"

enum { HASH = 40 };

struct avatar {
    char hash[HASH];
};

static str hash_of(const struct user *u)
{
    const struct avatar *a = user_extra(u, EXTRA_AVATAR);
    return a ? str_from(a->hash, HASH) : STR_NONE;
}

static bool is_hash(str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!strchr("0123456789abcdef", s.p[i]))
            return false;
    return s.n == HASH;
}

static void set_hash(struct user *u, str hash)
{
    struct avatar *a = user_extra(u, EXTRA_AVATAR);
    if (!hash.n) {
        free(a);
        user_set_extra(u, EXTRA_AVATAR, NULL);
        return;
    }
    if (!a) {
        a = malloc(sizeof *a);
        must(a);
        user_set_extra(u, EXTRA_AVATAR, a);
    }
    memcpy(a->hash, hash.p, HASH);
}

void avatar_loaded(struct user *u, const struct Store__User *from)
{
    str hash = home_str(from->avatar);
    if (is_hash(hash))
        set_hash(u, hash);
}

void avatar_forgotten(struct user *u) { set_hash(u, STR_NONE); }

/* ---- presence (XEP-0398 4, XEP-0153 4) ---- */

static str update_element(const struct user *u, struct arena *a)
{
    str hash = hash_of(u);
    return arena_printf(a, "<x xmlns='" NS_UPDATE "'><photo>%.*s</photo></x>", STR_ARG(hash));
}

static struct stanza *with_edit(const struct stanza *s, uint32_t off, uint32_t del, str ins)
{
    struct xml_edit e = {off, del, ins};
    struct stanza_head head = {(enum stanza_kind)s->kind, (enum stanza_type)s->type,
                               stanza_to_jid(s), stanza_from(s)};
    return stanza_edited(stanza_xml(s), &s->index, &e, 1, &head);
}

/* The same with the account's hash; NULL: it stays as it is. Who sends an empty photo has none. */
static struct stanza *with_hash(const struct user *u, const struct stanza *s)
{
    struct home *h = u->home;
    struct arena *a = home_arena(h);
    struct xml_el root = stanza_root(s, a), x, photo;
    str hash = hash_of(u);
    if (!xml_find(&root, NS_UPDATE, "x", &x, a))
        return hash.n ? stanza_with_child(h->node->scan, s, update_element(u, a), a) : NULL;
    if (xml_find(&x, NS_UPDATE, "photo", &photo, a) &&
        (!xml_text(&photo, a).n || str_eq(xml_text(&photo, a), hash)))
        return NULL;
    return with_edit(s, (uint32_t)(x.all.p - stanza_xml(s).p), (uint32_t)x.all.n,
                     update_element(u, a));
}

bool avatar_sent(struct session *s, struct sent *m)
{
    if (m->stanza->kind != STANZA_PRESENCE || m->stanza->type != TYPE_AVAILABLE)
        return true;
    struct stanza *with = with_hash(s->user, m->stanza);
    if (with)
        sent_replace(m, with);
    return true;
}

/* XEP-0398 3: all who see the account hear of it. */
static void show_again(struct user *u, struct ticket *t)
{
    struct home *h = u->home;
    user_each_session(s, u) {
        if (!session_available(s) || !t)
            continue;
        struct stanza *was = stanza_make(h->node->scan, presence_shown(s), home_arena(h));
        struct stanza *with = with_hash(u, was);
        if (with)
            presence_from(s, with, t);
        stanza_unref(with);
        stanza_unref(was);
    }
}

/* ---- PEP to vCard ---- */

/* PHOTO on its way into the vCard. */
struct photo {
    struct user *user;     /* pinned */
    struct ticket *ticket; /* an effect, until presence has been shown again; may be NULL */
    size_t type_len, data_len;
    char *data; /* base64 */
    char hash[HASH];
    char type[]; /* of the picture; NULL data and no type: none */
};

/* Presence comes last: who sees the hash asks for the vCard. */
static void photo_done(struct photo *p)
{
    show_again(p->user, p->ticket);
    if (p->ticket)
        ticket_close(p->ticket);
    user_unpin(p->user);
    free(p->data);
    free(p);
}

static void on_vcard_put(struct home *h, void *ctx, err e, const Store__Reply *reply)
{
    photo_done(ctx);
}

static str photo_element(const struct photo *p, struct arena *a)
{
    struct xml_writer w;
    if (!p->data)
        return STR_NONE;
    xml_writer_init(&w, a);
    xml_open_ns(&w, "PHOTO", NS_VCARD_TEMP);
    xml_put_leaf(&w, "TYPE", NULL, str_from(p->type, p->type_len));
    xml_put_leaf(&w, "BINVAL", NULL, str_from(p->data, p->data_len));
    xml_close(&w, "PHOTO");
    return xml_written(&w);
}

/* The vCard with that PHOTO for its own. */
static str with_photo(str vcard, const struct photo *p, struct arena *a)
{
    struct xml_el root = xml_root(vcard, STR(NS_VCARD_TEMP), a), el;
    struct xml_writer w;
    xml_writer_init(&w, a);
    xml_open_ns(&w, "vCard", NS_VCARD_TEMP);
    for (bool more = xml_first(&root, &el, a); more; more = xml_next(&root, &el, a))
        if (!xml_is(&el, NS_VCARD_TEMP, "PHOTO"))
            xml_put_raw(&w, xml_standalone(&el, STR(NS_VCARD_TEMP), a));
    str photo = photo_element(p, a);
    if (photo.n)
        xml_put_raw(&w, photo);
    xml_close(&w, "vCard");
    return xml_written(&w);
}

static void on_vcard(struct home *h, void *ctx, err e, const Store__Reply *reply)
{
    struct photo *p = ctx;
    if (e != ERR_OK && e != ERR_NOT_FOUND) {
        photo_done(p); /* the next change mends it */
        return;
    }
    str was = e == ERR_OK ? home_str(reply->xml->xml) : STR("<vCard xmlns='" NS_VCARD_TEMP "'/>");
    Store__Request req = STORE__REQUEST__INIT;
    Store__VcardPut op = STORE__VCARD_PUT__INIT;
    op.xml = home_bytes(with_photo(was, p, home_arena(h)));
    req.op_case = STORE__REQUEST__OP_VCARD_PUT, req.vcard_put = &op;
    home_store(h, user_bare(p->user), &req, on_vcard_put, p);
}

static void ask_vcard(struct photo *p)
{
    Store__Request req = STORE__REQUEST__INIT;
    Store__VcardGet op = STORE__VCARD_GET__INIT;
    req.op_case = STORE__REQUEST__OP_VCARD_GET, req.vcard_get = &op;
    home_store(p->user->home, user_bare(p->user), &req, on_vcard, p);
}

static void on_data(struct home *h, void *ctx, err e, const Store__Reply *reply)
{
    struct photo *p = ctx;
    struct arena *a = home_arena(h);
    if (e != ERR_OK || !reply->items->n_items) {
        photo_done(p); /* metadata without data: elsewhere, or a lie */
        return;
    }
    struct xml_el data = xml_root(home_str(reply->items->items[0]->xml), STR_NONE, a);
    str text = xml_text(&data, a);
    p->data = malloc(text.n + 1);
    must(p->data);
    memcpy(p->data, text.p, text.n);
    p->data_len = text.n;
    ask_vcard(p);
}

static void to_vcard(struct user *u, str hash, str type, struct ticket *t)
{
    struct photo *p = calloc(1, sizeof *p + type.n);
    must(p);
    user_pin(u);
    p->user = u, p->ticket = t, p->type_len = type.n;
    if (t)
        ticket_open(t);
    if (type.n)
        memcpy(p->type, type.p, type.n);
    if (!hash.n) {
        ask_vcard(p);
        return;
    }
    ProtobufCBinaryData id = home_bytes(hash);
    Store__Request req = STORE__REQUEST__INIT;
    Store__ItemGet op = STORE__ITEM_GET__INIT;
    op.leaf = home_bytes(STR(NS_DATA)), op.ids = &id, op.n_ids = 1;
    req.op_case = STORE__REQUEST__OP_ITEM_GET, req.item_get = &op;
    home_store(u->home, user_bare(u), &req, on_data, p);
}

void avatar_published(struct user *u, str node, str id, str payload, const struct cause *c)
{
    struct arena *a = home_arena(u->home);
    struct xml_el metadata, info;
    str hash = STR_NONE, type = STR_NONE;
    if (!str_is(node, NS_METADATA) || !xep_active(&xep_avatar, u->home->node->conf, user_host(u)))
        return;
    if (payload.n) {
        metadata = xml_root(payload, STR_NONE, a);
        if (xml_find(&metadata, NS_METADATA, "info", &info, a) && is_hash(id))
            hash = arena_dup(a, id), type = arena_dup(a, xml_attr(&info, "type", a));
    } else if (!str_eq(id, hash_of(u))) {
        return; /* another one was retracted */
    }
    if (str_eq(hash, hash_of(u)))
        return;
    set_hash(u, hash);
    to_vcard(u, hash, type, c->ticket);
}

/* ---- vCard to PEP ---- */

/* base64 is often folded. */
static str without_space(str s, struct arena *a)
{
    char *p = arena_alloc(a, s.n + 1);
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++)
        if (!strchr(" \t\r\n", s.p[i]))
            p[n++] = s.p[i];
    return str_from(p, n);
}

/* Defaults of what is made: a vCard is for everybody (XEP-0398 3). */
static struct leaf_config public_leaf(void)
{
    struct leaf_config c = leaf_config_pep;
    c.rules.access = ACCESS_OPEN;
    return c;
}

static void to_pep(struct user *u, str base64, str type, struct ticket *t)
{
    struct arena *a = home_arena(u->home);
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    char *hash = arena_alloc(a, HASH + 1);
    str bytes, data = without_space(base64, a);
    struct leaf_config c = public_leaf();
    struct xml_writer w;
    if (base64_decode_in(a, data, &bytes) != ERR_OK || !bytes.n ||
        data.n + 100 > u->home->node->conf->modules_pep_item_max)
        return;
    must(EVP_Digest(bytes.p, bytes.n, digest, &n, EVP_sha1(), NULL));
    for (unsigned i = 0; i < n; i++)
        snprintf(hash + 2 * i, 3, "%02x", digest[i]);
    str id = str_from(hash, HASH);
    if (str_eq(id, hash_of(u)))
        return;
    xml_writer_init(&w, a);
    xml_put_leaf(&w, "data", NS_DATA, data);
    pubsub_publish(u, STR(NS_DATA), id, xml_written(&w), &c, t);
    xml_writer_init(&w, a);
    xml_open_ns(&w, "metadata", NS_METADATA);
    xml_open(&w, "info");
    xml_put_attr_u64(&w, "bytes", bytes.n);
    xml_put_attr(&w, "id", id);
    xml_put_attr(&w, "type", type.n ? type : STR("image/png"));
    xml_close(&w, "info");
    xml_close(&w, "metadata");
    pubsub_publish(u, STR(NS_METADATA), id, xml_written(&w), &c, t);
}

void avatar_of_vcard(struct user *u, const struct xml_el *vcard, struct ticket *t)
{
    struct arena *a = home_arena(u->home);
    struct leaf_config c = public_leaf();
    struct xml_el photo, value, type;
    if (u->anonymous || !xep_active(&xep_avatar, u->home->node->conf, user_host(u)))
        return;
    if (!xml_find(vcard, NS_VCARD_TEMP, "PHOTO", &photo, a) ||
        !xml_find(&photo, NS_VCARD_TEMP, "BINVAL", &value, a)) {
        if (hash_of(u).n)
            pubsub_publish(u, STR(NS_METADATA), STR("none"),
                           STR("<metadata xmlns='" NS_METADATA "'/>"), &c, t);
        return;
    }
    str mime = xml_find(&photo, NS_VCARD_TEMP, "TYPE", &type, a) ? xml_text(&type, a) : STR_NONE;
    to_pep(u, xml_text(&value, a), mime, t);
}

static const char *const features[] = {"urn:xmpp:pep-vcard-conversion:0", NULL};
const struct xep xep_avatar = {.name = "avatar", .account = features};
