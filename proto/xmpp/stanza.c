/* Making stanzas. The block's layout is in stanza.h; one malloc per stanza. */
#include "proto/xmpp/stanza.h"

#include <stdlib.h>
#include <time.h>
#include <xxhash.h>

/* What the scanner inherits for XML of our own: the content namespace of the house. */
static const struct xml_header house_header = {.default_ns = NS_CLIENT};
static const struct xml_limits house_limits = {
    .bytes_max = UINT32_MAX,
    .depth_max = XML_DEPTH_MAX,
    .attributes_max = XML_ATTRIBUTES_MAX,
    .namespaces_max = XML_NAMESPACES_MAX,
    .name_max = UINT16_MAX,
    .elements_max = UINT32_MAX,
    .whitespace_max = UINT16_MAX,
};

void stanza_unref(struct stanza *s)
{
    if (s && --s->refs == 0)
        free(s);
}

static str span(str xml, struct xml_span s) { return (str){xml.p + s.off, s.off ? s.len : 0}; }

/* A literal, so that the compiler compares words. */
#define name_is(xml, off, len, literal) str_is(((str){(xml).p + (off), (len)}), literal)

static enum stanza_type message_type(str type)
{
    if (str_is(type, "chat"))
        return TYPE_CHAT;
    if (str_is(type, "groupchat"))
        return TYPE_GROUPCHAT;
    if (str_is(type, "headline"))
        return TYPE_HEADLINE;
    return str_is(type, "error") ? TYPE_ERROR : TYPE_NORMAL;
}

static enum stanza_type named_type(str type, const char *const *names, enum stanza_type first)
{
    for (int i = 0; names[i]; i++)
        if (str_eq(type, str_of(names[i])))
            return first + i;
    return str_is(type, "error") ? TYPE_ERROR : TYPE_INVALID;
}

err stanza_classify(str xml, const struct xml_index *x, enum stanza_kind *kind,
                    enum stanza_type *type)
{
    static const char *const presences[] = {
        "unavailable", "subscribe", "subscribed", "unsubscribe", "unsubscribed", "probe", NULL};
    static const char *const iqs[] = {"get", "set", "result", NULL};
    str t = span(xml, x->type);
    if (name_is(xml, x->name_off, x->name_len, "message")) {
        *kind = STANZA_MESSAGE, *type = message_type(t);
    } else if (name_is(xml, x->name_off, x->name_len, "presence")) {
        *kind = STANZA_PRESENCE;
        *type = x->type.off ? named_type(t, presences, TYPE_UNAVAILABLE) : TYPE_AVAILABLE;
    } else if (name_is(xml, x->name_off, x->name_len, "iq")) {
        *kind = STANZA_IQ, *type = named_type(t, iqs, TYPE_GET);
    } else {
        return ERR_NOT_FOUND;
    }
    return ERR_OK;
}

/* ---- flags: what the children say ---- */

static uint32_t hint_flag(str xml, const struct xml_child *c)
{
    if (name_is(xml, c->name_off, c->name_len, "store"))
        return STANZA_HINT_STORE;
    if (name_is(xml, c->name_off, c->name_len, "no-store"))
        return STANZA_HINT_NO_STORE;
    if (name_is(xml, c->name_off, c->name_len, "no-permanent-store"))
        return STANZA_HINT_NO_PERMANENT_STORE;
    return name_is(xml, c->name_off, c->name_len, "no-copy") ? STANZA_HINT_NO_COPY : 0;
}

/* Sets *transient to false when the child is more than a state, a thread, a hint or an id. */
static uint32_t child_flags(str xml, const struct xml_child *c, bool *transient)
{
    switch ((enum xml_ns)c->ns) {
    case NS_CLIENT:
        if (name_is(xml, c->name_off, c->name_len, "thread"))
            return 0;
        *transient = false;
        return name_is(xml, c->name_off, c->name_len, "body") ? STANZA_BODY | STANZA_CONTENT : 0;
    case NS_CHATSTATES: return STANZA_CHATSTATE;
    case NS_HINTS: return hint_flag(xml, c);
    case NS_SID: return 0;
    case NS_EME:
    case NS_OMEMO:
    case NS_OMEMO2:
    case NS_X_CONFERENCE:
    case NS_RECEIPTS:
    case NS_MARKERS:
    case NS_RETRACT:
    case NS_REACTIONS:
    case NS_CORRECT:
    case NS_JINGLE_MESSAGE: *transient = false; return STANZA_CONTENT;
    case NS_MUC_USER: *transient = false; return STANZA_MUC_USER | STANZA_CONTENT;
    case NS_DELAY: *transient = false; return STANZA_DELAY;
    case NS_CAPS: *transient = false; return STANZA_CAPS;
    default: *transient = false; return 0;
    }
}

static uint32_t flags_of(str xml, const struct xml_index *x)
{
    bool transient = x->children == x->nchild; /* what the index does not list may be anything */
    uint32_t flags = x->children == x->nchild ? 0 : STANZA_CONTENT;
    for (unsigned i = 0; i < x->nchild; i++)
        flags |= child_flags(xml, &x->child[i], &transient);
    return transient ? flags | STANZA_ONLY_TRANSIENT : flags;
}

/* ---- making ---- */

static struct stanza *new_block(const struct xml_index *x, size_t xml_len,
                                const struct stanza_head *h)
{
    str to = h->to.full, from = h->from;
    size_t head = offsetof(struct stanza, index) + xml_index_size(x);
    size_t size = head + xml_len + to.n + from.n;
    must(size <= UINT32_MAX);
    struct stanza *s = malloc(size);
    must(s);
    s->refs = 1, s->size = (uint32_t)size;
    s->xml_off = (uint32_t)head;
    s->to_off = (uint32_t)(head + xml_len), s->to_len = (uint32_t)to.n;
    s->from_off = s->to_off + s->to_len, s->from_len = (uint32_t)from.n;
    memcpy(&s->index, x, xml_index_size(x));
    s->to_local_len = (uint16_t)h->to.local.n, s->to_bare_len = (uint16_t)h->to.bare.n;
    s->kind = (uint8_t)h->kind, s->type = (uint8_t)h->type;
    if (to.n)
        memcpy((char *)s + s->to_off, to.p, to.n);
    if (from.n)
        memcpy((char *)s + s->from_off, from.p, from.n);
    return s;
}

static void set_fingerprints(struct stanza *s)
{
    str to = stanza_to(s), id = stanza_id(s);
    uint64_t h = XXH3_64bits_withSeed(to.p, to.n, (uint64_t)s->kind << 8 | s->type);
    s->to_fp = (uint16_t)h;
    if (s->kind == STANZA_PRESENCE && !id.n) /* as nearly all: what tells two of them apart? */
        id = stanza_xml(s);
    s->fp = (uint32_t)XXH3_64bits_withSeed(id.p, id.n, h);
}

struct stanza *stanza_edited(str xml, const struct xml_index *x, const struct xml_edit *e, size_t n,
                             const struct stanza_head *h)
{
    struct xml_index moved;
    size_t size = xml_splice_size(x->len, e, n);
    bool in_place = n == 1 && e->del == 0; /* as nearly always: no row goes */
    if (!in_place) {
        memcpy(&moved, x, xml_index_size(x)); /* a stanza's own index has only its used rows */
        xml_index_splice(&moved, e, n);
    }
    struct stanza *s = new_block(in_place ? x : &moved, size, h);
    if (in_place)
        xml_index_splice(&s->index, e, n);
    s->index.len = (uint32_t)size;
    xml_splice((str){xml.p, x->len}, e, n, (char *)s + s->xml_off);
    s->flags = flags_of(stanza_xml(s), &s->index);
    set_fingerprints(s);
    return s;
}

static uint32_t end_tag(str xml)
{
    size_t end = xml.n;
    while (xml.p[--end] != '<')
        ;
    return (uint32_t)end;
}

static void list_last(struct xml_index *x, const struct xml_child *row, uint32_t off, uint32_t len)
{
    x->children++;
    if (x->nchild == XML_CHILDREN || x->children != x->nchild + 1)
        return;
    struct xml_child *c = &x->child[x->nchild++];
    *c = *row;
    c->off = off, c->len = len;
    c->name_off += off;
    c->ns_uri.off += off;
}

struct stanza *stanza_with_last(const struct stanza *s, const struct xml_edit *cuts, size_t n,
                                str child, const struct xml_child *row, struct arena *a)
{
    struct xml_index moved;
    struct xml_edit *e = arena_alloc(a, (n + 1) * sizeof *e);
    str xml = stanza_xml(s);
    must(!child.n || !s->index.empty);
    if (n)
        memcpy(e, cuts, n * sizeof *e);
    e[n] = (struct xml_edit){end_tag(xml), 0, child};
    size_t edits = n + (child.n > 0), size = xml_splice_size(xml.n, e, edits);
    memcpy(&moved, &s->index, xml_index_size(&s->index)); /* it has its used rows only */
    xml_index_splice(&moved, e, edits);
    moved.children = (uint16_t)(s->index.children - n); /* listed or not */
    if (child.n)
        list_last(&moved, row, (uint32_t)(size - (xml.n - e[n].off) - child.n), (uint32_t)child.n);
    const struct stanza_head head = {(enum stanza_kind)s->kind, (enum stanza_type)s->type,
                                     stanza_to_jid(s), stanza_from(s)};
    struct stanza *with = new_block(&moved, size, &head);
    with->index.len = (uint32_t)size;
    xml_splice(xml, e, edits, (char *)with + with->xml_off);
    with->flags = flags_of(stanza_xml(with), &with->index);
    with->fp = s->fp, with->to_fp = s->to_fp; /* of what was not touched */
    return with;
}

err stanza_of_kept(struct xml_scan *scan, str xml, struct arena *a, struct stanza **out)
{
    enum xml_item what;
    size_t used;
    const struct xml_index *x;
    struct stanza_head head = {.kind = STANZA_MESSAGE};
    xml_scan_begin(scan, &house_limits, &house_header);
    if (xml_scan(scan, xml, false, &what, &used, &x) || what != XML_ELEMENT || used != xml.n ||
        stanza_classify(xml, x, &head.kind, &head.type))
        return ERR_BAD;
    head.to = jid_parse_prepared(xml_unescape(span(xml, x->to), true, a));
    head.from = xml_unescape(span(xml, x->from), true, a);
    *out = stanza_edited(xml, x, NULL, 0, &head);
    return ERR_OK;
}

struct stanza *stanza_make(struct xml_scan *scan, str xml, struct arena *a)
{
    struct stanza *s;
    err e = stanza_of_kept(scan, xml, a, &s);
    must(!e); /* we wrote it */
    return s;
}

/* The part of `xml` behind its last child: the end tag, or what makes <a/> an <a></a>. */
struct stanza *stanza_with_child(struct xml_scan *scan, const struct stanza *s, str child,
                                 struct arena *a)
{
    str xml = stanza_xml(s);
    str parts[4];
    if (s->index.empty) {
        size_t slash = xml.n - 2;
        str name = {xml.p + s->index.name_off, s->index.name_len};
        parts[0] = (str){xml.p, slash}, parts[1] = STR(">");
        parts[2] = child, parts[3] = arena_concat(a, (str[]){STR("</"), name, STR(">")}, 3);
    } else {
        size_t end = xml.n;
        while (xml.p[--end] != '<')
            ;
        parts[0] = (str){xml.p, end}, parts[1] = child;
        parts[2] = str_skip(xml, end), parts[3] = STR_NONE;
    }
    return stanza_make(scan, arena_concat(a, parts, 4), a);
}

struct xml_el stanza_root(const struct stanza *s, struct arena *a)
{
    return xml_root(stanza_xml(s), STR("jabber:client"), a);
}

/* ---- stamps ---- */

str stanza_stamp(int64_t wall_us, struct arena *a)
{
    time_t seconds = wall_us / 1000000;
    struct tm tm;
    gmtime_r(&seconds, &tm);
    char day[32];
    strftime(day, sizeof day, "%Y-%m-%dT%H:%M:%S", &tm);
    return arena_printf(a, "%s.%03dZ", day, (int)(wall_us / 1000 % 1000));
}

str stanza_delay(str from, int64_t wall_us, struct arena *a)
{
    struct xml_writer w;
    xml_writer_init(&w, a);
    xml_open_ns(&w, "delay", "urn:xmpp:delay");
    xml_put_attr(&w, "from", from);
    xml_put_attr(&w, "stamp", stanza_stamp(wall_us, a));
    xml_close(&w, "delay");
    return xml_written(&w);
}

static bool has_delay(const struct stanza *s, str from, int64_t wall_us, struct arena *a)
{
    if (!(s->flags & STANZA_DELAY))
        return false;
    struct xml_el root = stanza_root(s, a), el;
    str stamp = stanza_stamp(wall_us, a);
    for (bool more = xml_first(&root, &el, a); more; more = xml_next(&root, &el, a))
        if (xml_is(&el, "urn:xmpp:delay", "delay") && str_eq(xml_attr(&el, "from", a), from) &&
            str_eq(xml_attr(&el, "stamp", a), stamp))
            return true;
    return false;
}

struct stanza *stanza_with_delay(struct xml_scan *scan, struct stanza *s, str from, int64_t wall_us,
                                 struct arena *a)
{
    if (has_delay(s, from, wall_us, a))
        return stanza_ref(s);
    return stanza_with_child(scan, s, stanza_delay(from, wall_us, a), a);
}

/* ---- errors ---- */

enum { ERROR_COPY_MAX = 8 * 1024 };

str stanza_error_element(err e, str by, str extra, struct arena *a)
{
    const struct err_row *row = err_row(e);
    must(row->class == ERR_CLASS_STANZA);
    struct xml_writer w;
    xml_writer_init(&w, a);
    xml_open(&w, "error");
    xml_put_attr(&w, "type", str_of(row->type));
    if (by.n)
        xml_put_attr(&w, "by", by);
    xml_open_ns(&w, row->condition, "urn:ietf:params:xml:ns:xmpp-stanzas");
    xml_close(&w, row->condition);
    if (row->text[0]) {
        xml_open_ns(&w, "text", "urn:ietf:params:xml:ns:xmpp-stanzas");
        xml_put_attr(&w, "xml:lang", STR("en"));
        xml_put_text(&w, str_of(row->text));
        xml_close(&w, "text");
    }
    if (extra.n)
        xml_put_raw(&w, extra);
    xml_close(&w, "error");
    return xml_written(&w);
}

static bool may_copy_children(const struct stanza *s)
{
    if (s->index.len > ERROR_COPY_MAX)
        return false;
    for (unsigned i = 0; i < s->index.nchild; i++)
        if (s->index.child[i].ns == NS_REGISTER) /* passwords (XEP-0077 3.3) */
            return false;
    return true;
}

struct stanza *stanza_error(struct xml_scan *scan, const struct stanza *s, err e, str by, str extra,
                            struct arena *a)
{
    static const char *const names[] = {"message", "presence", "iq"};
    if (s->type == TYPE_ERROR || (s->kind == STANZA_IQ && s->type == TYPE_RESULT))
        return NULL;
    struct xml_el root = stanza_root(s, a);
    struct xml_writer w;
    xml_writer_init(&w, a);
    xml_open(&w, names[s->kind]);
    xml_put_attr(&w, "type", STR("error"));
    str id = xml_attr(&root, "id", a);
    if (id.p)
        xml_put_attr(&w, "id", id);
    str asked = xml_attr(&root, "to", a);
    if (asked.p && e == ERR_STANZA_JID_MALFORMED) /* no address that could answer */
        asked = jid_parse_prepared(stanza_from(s)).bare;
    if (asked.p)
        xml_put_attr(&w, "from", asked);
    if (s->from_len)
        xml_put_attr(&w, "to", stanza_from(s));
    if (may_copy_children(s)) {
        struct xml_el child;
        for (bool more = xml_first(&root, &child, a); more; more = xml_next(&root, &child, a))
            xml_put_raw(&w, xml_standalone(&child, STR("jabber:client"), a));
    }
    xml_put_raw(&w, stanza_error_element(e, by, extra, a));
    xml_close(&w, names[s->kind]);
    return stanza_make(scan, xml_written(&w), a);
}

/* ---- blocks ---- */

static bool inside(uint32_t off, uint32_t len, size_t n) { return (uint64_t)off + len <= n; }

/* The same for many, without a branch for each: not 0 when one is outside. */
static uint64_t outside(struct xml_span s, uint64_t n)
{
    return (n - ((uint64_t)s.off + s.len)) >> 63;
}

static bool parts_are_sound(const struct stanza *s)
{
    uint32_t local = s->to_local_len ? s->to_local_len + 1u : 0;
    return s->to_bare_len <= s->to_len && local <= s->to_bare_len;
}

/* The other process is one of ours, but memory damage must not spread: every offset of the header
 * is looked at; those of the index when they are used, by the same bound (index.len). */
static bool block_is_sound(const struct stanza *s, size_t n)
{
    const struct xml_index *x = &s->index;
    size_t head = offsetof(struct stanza, index);
    if (s->size != n || x->nchild > XML_CHILDREN || s->xml_off != head + xml_index_size(x))
        return false;
    if (!inside(s->xml_off, x->len, n) || !inside(s->to_off, s->to_len, n) ||
        !inside(s->from_off, s->from_len, n) || s->kind > STANZA_IQ || s->type > TYPE_INVALID ||
        !parts_are_sound(s))
        return false;
    uint64_t out = outside((struct xml_span){x->name_off, x->name_len}, x->len) |
                   outside(x->ns_uri, x->len) | outside(x->to, x->len) | outside(x->from, x->len) |
                   outside(x->id, x->len) | outside(x->type, x->len) | outside(x->lang, x->len) |
                   outside(x->to_attr, x->len) | outside(x->from_attr, x->len);
    if (x->splice > x->len || x->open_len > x->len)
        return false;
    for (unsigned i = 0; i < x->nchild; i++) {
        const struct xml_child *c = &x->child[i];
        out |= outside((struct xml_span){c->off, c->len}, x->len) |
               outside((struct xml_span){c->name_off, c->name_len}, x->len) |
               outside(c->ns_uri, x->len);
    }
    return !out;
}

err stanza_from_block(const void *p, size_t n, struct stanza **out)
{
    size_t head = offsetof(struct stanza, index) + offsetof(struct xml_index, child);
    if (n < head)
        return ERR_BAD;
    struct stanza *s = malloc(n);
    must(s);
    memcpy(s, p, n);
    s->refs = 1;
    if (s->index.nchild > XML_CHILDREN || n < head + s->index.nchild * sizeof(struct xml_child) ||
        !block_is_sound(s, n)) {
        free(s);
        return ERR_BAD;
    }
    *out = s;
    return ERR_OK;
}
