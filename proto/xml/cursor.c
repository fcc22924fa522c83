/* cursor: elements, attributes and text of bytes that the scanner has accepted, without a tree: an
 * element is a view, and going to the next one passes over the bytes between. Stanzas are small and
 * handlers look at few of their elements; a tree would cost more than all looks together.
 *
 * A scope is one declaration and those around it; elements that declare nothing share their
 * parent's. */
#include "proto/xml/chars.h"
#include "proto/xml/tags.h"

struct xml_scope {
    const struct xml_scope *up;
    str prefix; /* "": the default namespace */
    str uri;
};

static const struct xml_scope *find_scope(const struct xml_scope *s, str prefix)
{
    while (s && !str_eq(s->prefix, prefix))
        s = s->up;
    return s;
}

static str uri_in_force(const struct xml_scope *s, str prefix)
{
    if (str_is(prefix, "xml"))
        return xml_ns_uri(NS_XML);
    s = find_scope(s, prefix);
    return s ? s->uri : STR("");
}

static const struct xml_scope *add_scope(const struct xml_scope *up, str prefix, str uri,
                                         struct arena *a)
{
    struct xml_scope *s = arena_alloc(a, sizeof *s);
    *s = (struct xml_scope){up, prefix, uri};
    return s;
}

static const struct xml_scope *scope_of(const struct tag *t, const struct xml_scope *outer,
                                        struct arena *a)
{
    struct tag_attr attr;
    str prefix;
    for (const char *at = tag_attrs(t); tag_attr_next(t, &at, &attr);)
        if (tag_attr_declares(&attr, &prefix))
            outer = add_scope(outer, prefix, xml_unescape(attr.value, true, a), a);
    return outer;
}

static str inside(str all, const struct tag *t)
{
    str rest = str_skip(all, t->all.n);
    const char *end_tag = rest.n ? memrchr(rest.p, '<', rest.n) : NULL;
    return t->empty || !end_tag ? str_from(rest.p, 0)
                                : str_from(rest.p, (size_t)(end_tag - rest.p));
}

static struct xml_el make(str all, const struct xml_scope *outer, struct arena *a)
{
    struct tag t = tag_read(all);
    const struct xml_scope *scope = scope_of(&t, outer, a);
    return (struct xml_el){
        .all = all,
        .name = tag_local(t.name),
        .ns = uri_in_force(scope, tag_prefix(t.name)),
        .inner = inside(all, &t),
        .start = t.all,
        .scope = scope,
    };
}

struct xml_el xml_root(str element, str default_ns, struct arena *a)
{
    return make(element, add_scope(NULL, STR(""), default_ns, a), a);
}

/* ---- children ---- */

static bool next_element(str *rest, str *element)
{
    for (;;) {
        enum tag_part part = tag_next(rest, element);
        if (part == TAG_END)
            return false;
        if (part == TAG_ELEMENT)
            return true;
    }
}

static str behind(const struct xml_el *parent, const struct xml_el *child)
{
    const char *from = child->all.p + child->all.n;
    return str_from(from, (size_t)(parent->inner.p + parent->inner.n - from));
}

bool xml_first(const struct xml_el *el, struct xml_el *child, struct arena *a)
{
    str rest = el->inner, element;
    if (!next_element(&rest, &element))
        return false;
    *child = make(element, el->scope, a);
    return true;
}

bool xml_next(const struct xml_el *parent, struct xml_el *child, struct arena *a)
{
    str rest = behind(parent, child), element;
    if (!next_element(&rest, &element))
        return false;
    *child = make(element, parent->scope, a);
    return true;
}

bool xml_is(const struct xml_el *el, const char *ns, const char *name)
{
    return (!*name || str_eq(el->name, str_of(name))) && (!*ns || str_eq(el->ns, str_of(ns)));
}

bool xml_find(const struct xml_el *el, const char *ns, const char *name, struct xml_el *child,
              struct arena *a)
{
    str rest = el->inner, element;
    while (next_element(&rest, &element)) {
        if (*name && !str_eq(tag_local(tag_read(element).name), str_of(name)))
            continue;
        struct xml_el found = make(element, el->scope, a);
        if (xml_is(&found, ns, name)) {
            *child = found;
            return true;
        }
    }
    return false;
}

/* ---- attributes and text ---- */

str xml_attr(const struct xml_el *el, const char *name, struct arena *a)
{
    struct tag t = tag_read(el->start);
    struct tag_attr attr;
    for (const char *at = tag_attrs(&t); tag_attr_next(&t, &at, &attr);)
        if (str_eq(attr.name, str_of(name)))
            return xml_unescape(attr.value, true, a);
    return STR_NONE;
}

str xml_attr_ns(const struct xml_el *el, const char *ns, const char *name, struct arena *a)
{
    struct tag t = tag_read(el->start);
    struct tag_attr attr;
    for (const char *at = tag_attrs(&t); tag_attr_next(&t, &at, &attr);) {
        str prefix = tag_prefix(attr.name);
        if (prefix.n && str_eq(tag_local(attr.name), str_of(name)) &&
            str_eq(uri_in_force(el->scope, prefix), str_of(ns)))
            return xml_unescape(attr.value, true, a);
    }
    return STR_NONE;
}

static bool is_plain(str raw, bool attribute)
{
    for (size_t i = 0; i < raw.n; i++) {
        uchar c = (uchar)raw.p[i];
        if (c == '&' || c == '\r' || (attribute && (c == '\n' || c == '\t')))
            return false;
    }
    return true;
}

str xml_unescape(str raw, bool attribute, struct arena *a)
{
    if (is_plain(raw, attribute))
        return raw;
    char *out = arena_alloc(a, raw.n);
    return str_from(out, tag_resolve(raw, attribute ? TAG_TEXT_VALUE : TAG_TEXT_CONTENT, out));
}

str xml_text(const struct xml_el *el, struct arena *a)
{
    str rest = el->inner, part;
    if (rest.n == 0 || !memchr(rest.p, '<', rest.n))
        return xml_unescape(rest, false, a);
    char *out = arena_alloc(a, rest.n);
    size_t len = 0;
    for (enum tag_part kind; (kind = tag_next(&rest, &part)) != TAG_END;)
        if (kind != TAG_ELEMENT)
            len +=
                tag_resolve(part, kind == TAG_CDATA ? TAG_TEXT_CDATA : TAG_TEXT_CONTENT, out + len);
    return str_from(out, len);
}

/* ---- standing alone ---- */

/* Inherited declarations of el, the innermost first: use() finds that one. */
struct inherited {
    const struct xml_scope **scope;
    bool *used;
    size_t n;
};

static bool declares(const struct tag *t, str prefix)
{
    struct tag_attr attr;
    str declared;
    for (const char *at = tag_attrs(t); tag_attr_next(t, &at, &attr);)
        if (tag_attr_declares(&attr, &declared) && str_eq(declared, prefix))
            return true;
    return false;
}

static struct inherited find_inherited(const struct xml_el *el, const struct tag *t,
                                       struct arena *a)
{
    size_t depth = 0;
    for (const struct xml_scope *s = el->scope; s; s = s->up)
        depth++;
    struct inherited in = {
        .scope = arena_alloc(a, depth * sizeof(void *)),
        .used = arena_zalloc(a, depth),
    };
    for (const struct xml_scope *s = el->scope; s; s = s->up)
        if (s->prefix.n && !declares(t, s->prefix))
            in.scope[in.n++] = s;
    return in;
}

static void use(struct inherited *in, str name)
{
    str prefix = tag_prefix(name);
    for (size_t i = 0; prefix.n && i < in->n; i++)
        if (str_eq(in->scope[i]->prefix, prefix)) {
            in->used[i] = true;
            return;
        }
}

/* Marks each prefix that a name in el has. One that is declared again inside is marked too: that
 * costs a few bytes and changes nothing. */
static void find_used(struct inherited *in, str el)
{
    str part;
    while (in->n > 0 && el.n > 0) {
        if (el.p[0] != '<') {
            tag_next(&el, &part);
        } else if (el.n > 1 && el.p[1] == '!') {
            tag_next(&el, &part);
        } else if (el.n > 1 && el.p[1] == '/') {
            el = str_skip(el, tag_read(el).all.n);
        } else {
            struct tag t = tag_read(el);
            struct tag_attr attr;
            use(in, t.name);
            for (const char *at = tag_attrs(&t); tag_attr_next(&t, &at, &attr);)
                use(in, attr.name);
            el = str_skip(el, t.all.n);
        }
    }
}

static str prefix_declaration(const struct xml_scope *s, struct arena *a)
{
    const str parts[] = {STR(" xmlns:"), s->prefix, STR("='"), xml_escape(s->uri, a), STR("'")};
    return arena_concat(a, parts, array_len(parts));
}

str xml_standalone(const struct xml_el *el, str default_ns, struct arena *a)
{
    struct tag t = tag_read(el->start);
    struct inherited in = find_inherited(el, &t, a);
    find_used(&in, el->all);
    str *parts = arena_alloc(a, (in.n + 3) * sizeof *parts);
    size_t n = 0, splice = (size_t)(t.name.p + t.name.n - el->all.p);
    parts[n++] = str_from(el->all.p, splice);
    str uri = uri_in_force(el->scope, STR(""));
    if (!declares(&t, STR("")) && !str_eq(uri, default_ns))
        parts[n++] = xml_attr_text("xmlns", uri, a);
    for (size_t i = 0; i < in.n; i++)
        if (in.used[i])
            parts[n++] = prefix_declaration(in.scope[i], a);
    parts[n++] = str_skip(el->all, splice);
    return n == 2 ? el->all : arena_concat(a, parts, n);
}
