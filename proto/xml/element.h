/* element: what a start tag means, once the scanner has its parts: duplicate attributes, namespaces
 * (Namespaces in XML 1.0), and the index of the root and its children.
 *
 * For scan.c only, and a header because these are steps of its hottest loop, called from one place
 * each: inlined they cost a tenth less.
 *
 * A reference to a declaration is a number: 0 none, 1 + i the item's binding i, FROM_HEADER + i the
 * stream header's prefix i, or XML_ITSELF for the prefix "xml". */
#ifndef PEMBERLEY_PROTO_XML_ELEMENT_H
#define PEMBERLEY_PROTO_XML_ELEMENT_H

#include "proto/xml/chars.h"
#include "proto/xml/scan.h"

#define inlined static inline __attribute__((always_inline))

enum { FROM_HEADER = 1 + SCAN_BINDINGS, XML_ITSELF = FROM_HEADER + XML_HEADER_PREFIXES };

static str text_at(const uchar *bytes, uint32_t off, uint32_t len)
{
    return str_from(bytes + off, len);
}

/* ---- attributes ---- */

static inline bool is_declaration(const uchar *name, uint32_t len, uint32_t prefix_len)
{
    return (len == 5 || prefix_len == 5) && memcmp(name, "xmlns", 5) == 0;
}

/* Whether an attribute of this tag has that name already. Names differ nearly always in their
 * length or first byte: there is one bit for those, and only who finds it taken compares. */
static inline bool is_duplicate(struct xml_scan *s, const uchar *bytes, const uchar *name,
                                uint32_t len)
{
    uint64_t kind = 1ull << ((*name ^ len << 3) & 63);
    bool fresh = !(s->seen & kind);
    s->seen |= kind;
    if (fresh)
        return false;
#ifndef SCAN_CANARY
    for (unsigned i = 0; i < s->nattr; i++)
        if (s->attr[i].name_len == len && memcmp(bytes + s->attr[i].name, name, len) == 0)
            return true;
#endif
    return false;
}

static inline err attr_named(struct xml_scan *s, const uchar *bytes, uint32_t name, uint32_t len,
                             uint32_t prefix_len)
{
    /* The two limits are SCAN_ATTRS at most: there is room. */
    s->declares = is_declaration(bytes + name, len, prefix_len);
    if (s->declares) {
        if (++s->declared > s->namespaces_max)
            return ERR_STREAM_TOO_MANY_NAMESPACES;
    } else if (s->nattr - s->declared >= s->attributes_max) {
        return ERR_STREAM_TOO_MANY_ATTRIBUTES;
    }
    if (is_duplicate(s, bytes, bytes + name, len))
        return ERR_STREAM_NOT_WELL_FORMED;
    s->attr[s->nattr++] = (struct scan_attr){name, (uint16_t)len, (uint16_t)prefix_len};
    return ERR_OK;
}

/* The attributes of a root that the index tells about. gap: the white space before it. */
static void note_root_attr(struct xml_scan *s, str name, struct xml_span value, bool special,
                           uint32_t gap)
{
    struct xml_index *x = &s->index;
    const struct xml_span whole = {gap, value.off + value.len + 1 - gap};
    switch (name.n) {
    case 2:
        if (str_is(name, "to"))
            x->to = value, x->to_attr = whole;
        else if (str_is(name, "id"))
            x->id = value;
        else
            return;
        break;
    case 4:
        if (str_is(name, "from"))
            x->from = value, x->from_attr = whole;
        else if (str_is(name, "type"))
            x->type = value;
        else
            return;
        break;
    case 8:
        if (!str_is(name, "xml:lang"))
            return;
        x->lang = value;
        break;
    default: return;
    }
    x->entities |= special;
}

static bool means(str raw, bool special, str uri)
{
    return special ? value_eq(raw, uri) : str_eq(raw, uri);
}

/* Namespaces in XML 3: the two reserved names bind each other and nothing else; a prefix cannot be
 * undeclared. */
static bool may_bind(str prefix, str uri, bool special)
{
    if (prefix.n > 0 && uri.n == 0)
        return false;
    if (str_is(prefix, "xmlns"))
        return false;
    bool to_xml = means(uri, special, STR("http://www.w3.org/XML/1998/namespace"));
    bool to_xmlns = means(uri, special, STR("http://www.w3.org/2000/xmlns/"));
    return !to_xmlns && to_xml == str_is(prefix, "xml");
}

/* Nearly all URIs are told from the reserved ones, which may_bind knows, by their length. */
static bool may_be_reserved(uint32_t len)
{
    return len == sizeof "http://www.w3.org/XML/1998/namespace" - 1 ||
           len == sizeof "http://www.w3.org/2000/xmlns/" - 1;
}

static inline err declare(struct xml_scan *s, const uchar *bytes, const struct scan_attr *a,
                          struct xml_span uri, bool special)
{
    if (s->nbinding == SCAN_BINDINGS)
        return ERR_STREAM_TOO_MANY_NAMESPACES;
    struct scan_binding *b = &s->binding[s->nbinding++];
    b->uri = uri.off, b->uri_len = uri.len;
    b->special = special;
    b->prefix = a->name + 6;
    b->prefix_len = a->prefix_len ? (uint16_t)(a->name_len - 6) : 0;
    if (b->prefix_len == 0) {
        s->default_ns = s->nbinding;
        if (!special && !may_be_reserved(uri.len))
            return ERR_OK;
    }
    bool good = may_bind(text_at(bytes, b->prefix, b->prefix_len),
                         text_at(bytes, b->uri, b->uri_len), b->special);
    return good ? ERR_OK : ERR_STREAM_NOT_WELL_FORMED;
}

/* The value of the attribute named last. gap: the white space before it. */
inlined err attr_done(struct xml_scan *s, const uchar *bytes, struct xml_span value, bool special,
                      uint32_t gap)
{
    const struct scan_attr *a = &s->attr[s->nattr - 1];
    if (s->declares)
        return declare(s, bytes, a, value, special);
    if (a->prefix_len)
        s->prefixed = true;
    if (s->depth == 0)
        note_root_attr(s, text_at(bytes, a->name, a->name_len), value, special, gap);
    return ERR_OK;
}

/* ---- namespaces ---- */

/* The declaration that a prefix refers to; 0: there is none. */
static unsigned find_prefix(struct xml_scan *s, const uchar *bytes, str prefix)
{
    for (unsigned i = s->nbinding; i > 0; i--) {
        const struct scan_binding *b = &s->binding[i - 1];
        if (b->prefix_len == prefix.n && memcmp(bytes + b->prefix, prefix.p, prefix.n) == 0)
            return i;
    }
    if (str_is(prefix, "xml"))
        return XML_ITSELF;
    for (unsigned i = 0; s->header && i < s->header->prefixes; i++)
        if (str_eq(prefix,
                   str_from(s->header->prefix[i].prefix, s->header->prefix[i].prefix_len))) {
            s->index.header_prefixes |= (uint16_t)(1u << i);
            return FROM_HEADER + i;
        }
    return 0;
}

/* special: it has to be read by value_eq. */
static str uri_of(const struct xml_scan *s, const uchar *bytes, unsigned ref, bool *special)
{
    *special = ref >= FROM_HEADER;
    if (ref == XML_ITSELF)
        return xml_ns_uri(NS_XML);
    if (ref >= FROM_HEADER)
        return xml_header_uri(s->header, ref - FROM_HEADER);
    const struct scan_binding *b = &s->binding[ref - 1];
    *special = b->special;
    return text_at(bytes, b->uri, b->uri_len);
}

static bool same_uri(const struct xml_scan *s, const uchar *bytes, unsigned ref, unsigned other)
{
    bool special, other_special;
    str uri = uri_of(s, bytes, ref, &special), other_uri = uri_of(s, bytes, other, &other_special);
    return special || other_special ? value_eq(uri, other_uri) : str_eq(uri, other_uri);
}

static str local_name(const uchar *bytes, const struct scan_attr *a)
{
    uint32_t skip = a->prefix_len + 1u;
    return text_at(bytes, a->name + skip, a->name_len - skip);
}

/* Namespaces in XML 5.3 and 6.3: prefixes are declared, and no two attributes have one local name
 * and prefixes for one namespace. */
static __attribute__((noinline)) err bind_attributes(struct xml_scan *s, const uchar *bytes)
{
    uint16_t ref[SCAN_ATTRS];
    for (unsigned i = 0; i < s->nattr; i++) {
        const struct scan_attr *a = &s->attr[i];
        ref[i] = 0;
        if (!a->prefix_len || is_declaration(bytes + a->name, a->name_len, a->prefix_len))
            continue;
        ref[i] = (uint16_t)find_prefix(s, bytes, text_at(bytes, a->name, a->prefix_len));
        if (!ref[i])
            return ERR_STREAM_NOT_WELL_FORMED;
        for (unsigned k = 0; k < i; k++)
            if (ref[k] && str_eq(local_name(bytes, a), local_name(bytes, &s->attr[k])) &&
                same_uri(s, bytes, ref[i], ref[k]))
                return ERR_STREAM_NOT_WELL_FORMED;
    }
    return ERR_OK;
}

static void describe_ns(const struct xml_scan *s, const uchar *bytes, unsigned ref, uint16_t *ns,
                        struct xml_span *uri)
{
    *uri = (struct xml_span){0};
    if (ref == 0) {
        *ns = s->header ? s->header->default_ns : NS_OTHER;
    } else if (ref == XML_ITSELF) {
        *ns = NS_XML;
    } else if (ref >= FROM_HEADER) {
        *ns = s->header->prefix[ref - FROM_HEADER].ns;
    } else {
        const struct scan_binding *b = &s->binding[ref - 1];
        *uri = (struct xml_span){b->uri, b->uri_len};
        str raw = text_at(bytes, b->uri, b->uri_len);
        *ns = b->special ? scan_uri_number(raw, true) : (uint16_t)xml_ns_find(raw);
    }
}

/* ---- elements ---- */

static void note_root(struct xml_scan *s, const uchar *bytes, unsigned ref, uint32_t end)
{
    struct xml_index *x = &s->index;
    const struct scan_open *el = &s->open[s->depth];
    uint32_t skip = el->prefix_len ? el->prefix_len + 1u : 0;
    x->name_off = el->name + skip;
    x->name_len = (uint16_t)(el->name_len - skip);
    x->root_prefixed = el->prefix_len > 0;
    x->splice = el->name + el->name_len;
    x->open_len = end;
    describe_ns(s, bytes, ref, &x->ns, &x->ns_uri);
}

static void note_child(struct xml_scan *s, const uchar *bytes, unsigned ref)
{
    struct xml_index *x = &s->index;
    if (x->children < UINT16_MAX)
        x->children++;
    if (x->nchild == XML_CHILDREN)
        return;
    struct xml_child *c = &x->child[x->nchild++];
    const struct scan_open *el = &s->open[s->depth];
    uint32_t skip = el->prefix_len ? el->prefix_len + 1u : 0;
    c->off = el->name - 1;
    c->len = 0;
    c->name_off = el->name + skip;
    c->name_len = (uint16_t)(el->name_len - skip);
    describe_ns(s, bytes, ref, &c->ns, &c->ns_uri);
}

/* An element has ended at `end`, and s->depth are still open around it. */
static void ended(struct xml_scan *s, uint32_t end)
{
    struct xml_index *x = &s->index;
    s->state = SCAN_TEXT;
    if (s->depth == 0) {
        x->len = end;
        s->what = XML_ELEMENT;
        s->state = SCAN_DONE;
    } else if (s->depth == 1 && x->children == x->nchild) {
        struct xml_child *c = &x->child[x->nchild - 1];
        c->len = end - c->off;
    }
}

static void leave_scope(struct xml_scan *s, const struct scan_open *el)
{
    s->nbinding = el->bindings;
    s->default_ns = el->default_ns;
}

inlined void element_done(struct xml_scan *s, uint32_t end)
{
    leave_scope(s, &s->open[--s->depth]);
    ended(s, end);
}

static err header_done(struct xml_scan *s, uint32_t end, bool empty)
{
    if (empty) /* a stream that is over before it has begun */
        return ERR_STREAM_BAD_FORMAT;
    s->index.len = end;
    s->what = XML_HEADER;
    s->state = SCAN_DONE;
    return ERR_OK;
}

/* A second header inside the stream: its end would be waited for in vain (RFC 6120 4.9.3.1). */
static bool is_stream_header(const struct xml_scan *s, const uchar *bytes)
{
    const struct xml_index *x = &s->index;
    return x->ns == NS_STREAM && str_is(text_at(bytes, x->name_off, x->name_len), "stream");
}

inlined err tag_done(struct xml_scan *s, const uchar *bytes, uint32_t end, bool empty)
{
    const struct scan_open *el = &s->open[s->depth];
    unsigned ref = s->default_ns;
    if (el->prefix_len) {
        ref = find_prefix(s, bytes, text_at(bytes, el->name, el->prefix_len));
        if (!ref)
            return ERR_STREAM_NOT_WELL_FORMED;
    }
    if (s->prefixed) {
        err e = bind_attributes(s, bytes);
        if (e != ERR_OK)
            return e;
    }
    if (s->depth == 0) {
        note_root(s, bytes, ref, end);
        s->index.empty = empty;
        if (s->expect != XML_EXPECT_ELEMENT)
            return header_done(s, end, empty);
        if (s->header && is_stream_header(s, bytes))
            return ERR_STREAM_BAD_FORMAT;
    } else if (s->depth == 1) {
        note_child(s, bytes, ref);
    }
    if (empty) {
        leave_scope(s, el);
        ended(s, end);
    } else {
        s->depth++;
        s->state = SCAN_TEXT;
    }
    return ERR_OK;
}

#endif
