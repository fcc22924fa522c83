/* splice: edits of accepted bytes. What changes on a stanza's way (to, from, lang, the namespaces
 * of the stream it leaves) is put between slices of the bytes that came: nothing is serialised
 * again. */
#include "pemberley/must.h"
#include "proto/xml/tags.h"

size_t xml_splice_size(size_t len, const struct xml_edit *e, size_t n)
{
    for (size_t i = 0; i < n; i++)
        len += e[i].ins.n - e[i].del;
    return len;
}

void xml_splice(str xml, const struct xml_edit *e, size_t n, char *out)
{
    size_t from = 0;
    for (size_t i = 0; i < n; i++) {
        must(e[i].off >= from && (size_t)e[i].off + e[i].del <= xml.n);
        memcpy(out, xml.p + from, e[i].off - from);
        out += e[i].off - from;
        if (e[i].ins.n)
            memcpy(out, e[i].ins.p, e[i].ins.n);
        out += e[i].ins.n;
        from = (size_t)e[i].off + e[i].del;
    }
    memcpy(out, xml.p + from, xml.n - from);
}

/* ---- the index ---- */

struct edits {
    const struct xml_edit *e;
    size_t n;
};

/* Where the place off has gone. An edit at off itself moves a beginning (what is put in there comes
 * before it), and not an end, nor the place where attributes are put in. */
static uint32_t moved(const struct edits *es, uint32_t off, bool begins)
{
    uint32_t to = off;
    for (size_t i = 0; i < es->n; i++) {
        const struct xml_edit *e = &es->e[i];
        if (e->off > off || (e->off == off && !begins))
            break;
        to += (uint32_t)e->ins.n - e->del;
    }
    return to;
}

static bool is_cut(const struct edits *es, uint32_t off, uint32_t len)
{
    for (size_t i = 0; i < es->n; i++) {
        const struct xml_edit *e = &es->e[i];
        if (e->del && e->off < off + (len ? len : 1) && e->off + e->del > off)
            return true;
    }
    return false;
}

/* Bytes between off and off + len after the edits inside of them. */
static uint32_t new_len(const struct edits *es, uint32_t off, uint32_t len)
{
    return moved(es, off + len, false) - moved(es, off, true);
}

/* The edit that puts something else exactly in the place of these bytes, or NULL. */
static const struct xml_edit *replacement(const struct edits *es, uint32_t off, uint32_t len)
{
    for (size_t i = 0; i < es->n; i++)
        if (es->e[i].off == off && es->e[i].del == len && len && es->e[i].ins.n)
            return &es->e[i];
    return NULL;
}

static void move_span(const struct edits *es, struct xml_span *s)
{
    if (s->off == 0)
        return;
    const struct xml_edit *other = replacement(es, s->off, s->len);
    if (other)
        *s = (struct xml_span){moved(es, s->off, false), (uint32_t)other->ins.n};
    else if (is_cut(es, s->off, s->len))
        *s = (struct xml_span){0};
    else
        *s = (struct xml_span){moved(es, s->off, true), s->len ? new_len(es, s->off, s->len) : 0};
}

static bool whole_cut(const struct edits *es, const struct xml_child *c)
{
    for (size_t i = 0; i < es->n; i++)
        if (es->e[i].off <= c->off && es->e[i].off + es->e[i].del >= c->off + c->len)
            return true;
    return false;
}

static void move_children(const struct edits *es, struct xml_index *x)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < x->nchild; i++) {
        struct xml_child c = x->child[i];
        if (whole_cut(es, &c)) {
            x->children--;
            continue;
        }
        c.len = new_len(es, c.off, c.len);
        c.off = moved(es, c.off, true);
        c.name_off = moved(es, c.name_off, true);
        move_span(es, &c.ns_uri);
        x->child[kept++] = c;
    }
    x->nchild = (uint16_t)kept;
}

static void shift(struct xml_span *s, uint32_t at, uint32_t n)
{
    if (s->off == 0)
        return;
    if (s->off >= at)
        s->off += n;
    else if (s->off + s->len > at)
        s->len += n;
}

/* The same for n bytes put in at one place, which is what nearly every stanza gets. */
static void insert(struct xml_index *x, uint32_t at, uint32_t n)
{
    struct xml_span *const spans[] = {&x->to,   &x->from,    &x->id,        &x->type,
                                      &x->lang, &x->to_attr, &x->from_attr, &x->ns_uri};
    for (size_t i = 0; i < array_len(spans); i++)
        shift(spans[i], at, n);
    for (unsigned i = 0; i < x->nchild; i++) {
        struct xml_child *c = &x->child[i];
        if (c->off >= at)
            c->off += n;
        else if (c->off + c->len > at)
            c->len += n;
        c->name_off += c->name_off >= at ? n : 0;
        shift(&c->ns_uri, at, n);
    }
    x->name_off += x->name_off >= at ? n : 0;
    x->splice += x->splice > at ? n : 0;
    x->open_len += x->open_len > at ? n : 0;
    x->len += n;
}

void xml_index_splice(struct xml_index *x, const struct xml_edit *e, size_t n)
{
    if (n == 1 && e->del == 0)
        return insert(x, e->off, (uint32_t)e->ins.n);
    const struct edits es = {e, n};
    move_children(&es, x);
    struct xml_span *const spans[] = {&x->to,   &x->from,    &x->id,        &x->type,
                                      &x->lang, &x->to_attr, &x->from_attr, &x->ns_uri};
    for (size_t i = 0; i < array_len(spans); i++)
        move_span(&es, spans[i]);
    x->name_off = moved(&es, x->name_off, true);
    x->splice = moved(&es, x->splice, false);
    x->open_len = moved(&es, x->open_len, false);
    x->len = (uint32_t)xml_splice_size(x->len, e, n);
}

/* ---- texts to put in ---- */

str xml_attr_text(const char *name, str value, struct arena *a)
{
    const str parts[] = {STR(" "), str_of(name), STR("='"), xml_escape(value, a), STR("'")};
    return arena_concat(a, parts, array_len(parts));
}

str xml_with_default_ns(str element, const char *ns, struct arena *a)
{
    struct tag t = tag_read(element);
    struct tag_attr attr;
    for (const char *at = tag_attrs(&t); tag_attr_next(&t, &at, &attr);)
        if (str_is(attr.name, "xmlns"))
            return element;
    size_t splice = (size_t)(t.name.p + t.name.n - element.p);
    const str parts[] = {str_from(element.p, splice), xml_attr_text("xmlns", str_of(ns), a),
                         str_skip(element, splice)};
    return arena_concat(a, parts, array_len(parts));
}
