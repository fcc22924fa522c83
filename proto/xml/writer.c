/* writer: new XML into an arena. What is written is well-formed whatever the values hold: markup is
 * escaped, and what XML cannot hold at all (control characters, bytes that are not UTF-8) is left
 * out, because a value may come from where XML's rules do not reach (a certificate, a database). */
#include <stdio.h>

#include "pemberley/must.h"
#include "proto/xml/chars.h"
#include "proto/xml/xml.h"

enum { FIRST_CAP = 512 };

static void reserve(struct xml_writer *w, size_t n)
{
    if (w->cap - w->len >= n)
        return;
    size_t cap = w->cap ? w->cap * 2 : FIRST_CAP;
    while (cap - w->len < n)
        cap *= 2;
    char *p = arena_alloc(w->arena, cap);
    if (w->len)
        memcpy(p, w->p, w->len);
    w->p = p, w->cap = cap;
}

static void put(struct xml_writer *w, str s)
{
    reserve(w, s.n);
    if (s.n)
        memcpy(w->p + w->len, s.p, s.n);
    w->len += s.n;
}

/* What an ASCII character becomes; p == NULL: itself; n == 0: nothing. Tabs and line ends survive
 * an attribute only as references (XML 1.0 3.3.3), a carriage return also in text (2.11). */
static str escaped(uchar c, bool attribute)
{
    switch (c) {
    case '&': return STR("&amp;");
    case '<': return STR("&lt;");
    case '>': return STR("&gt;");
    case '\'': return STR("&apos;");
    case '"': return STR("&quot;");
    case '\r': return STR("&#13;");
    case '\n': return attribute ? STR("&#10;") : STR_NONE;
    case '\t': return attribute ? STR("&#9;") : STR_NONE;
    default: return c < 0x20 ? STR("") : STR_NONE;
    }
}

/* Plain runs are copied at once: find_stop knows them, but for the quote that it does not look for.
 */
static const uchar *plain_run(const uchar *p, const uchar *end)
{
    const uchar *quote = p;
    const uchar *stop = p + find_stop(p, 0, (size_t)(end - p), '"');
    while (quote < stop && *quote != '\'' && *quote != '>')
        quote++;
    return quote;
}

static void put_escaped(struct xml_writer *w, str s, bool attribute)
{
    const uchar *p = (const uchar *)s.p, *end = p + s.n;
    while (p < end) {
        const uchar *stop = plain_run(p, end);
        put(w, str_from(p, (size_t)(stop - p)));
        p = stop;
        if (p == end)
            return;
        uint32_t cp;
        int len = *p < 0x80 ? 1 : utf8_decode(p, end, &cp);
        str as = *p < 0x80 ? escaped(*p, attribute) : len > 0 ? STR_NONE : STR("");
        if (len <= 0)
            len = 1;
        put(w, as.p ? as : str_from(p, (size_t)len));
        p += len;
    }
}

static void end_start_tag(struct xml_writer *w)
{
    if (w->open)
        put(w, STR(">"));
    w->open = false;
}

void xml_writer_init(struct xml_writer *w, struct arena *a)
{
    *w = (struct xml_writer){.arena = a};
}

void xml_open(struct xml_writer *w, const char *name)
{
    end_start_tag(w);
    put(w, STR("<"));
    put(w, str_of(name));
    w->open = true;
}

void xml_open_ns(struct xml_writer *w, const char *name, const char *ns)
{
    xml_open(w, name);
    xml_put_attr(w, "xmlns", str_of(ns));
}

void xml_put_attr(struct xml_writer *w, const char *name, str value)
{
    must(w->open);
    put(w, STR(" "));
    put(w, str_of(name));
    put(w, STR("='"));
    put_escaped(w, value, true);
    put(w, STR("'"));
}

void xml_put_attr_u64(struct xml_writer *w, const char *name, uint64_t value)
{
    char digits[24];
    int n = snprintf(digits, sizeof digits, "%llu", (unsigned long long)value);
    xml_put_attr(w, name, str_from(digits, (size_t)n));
}

void xml_put_text(struct xml_writer *w, str text)
{
    end_start_tag(w);
    put_escaped(w, text, false);
}

void xml_put_raw(struct xml_writer *w, str xml)
{
    end_start_tag(w);
    put(w, xml);
}

void xml_close(struct xml_writer *w, const char *name)
{
    if (w->open) {
        put(w, STR("/>"));
        w->open = false;
        return;
    }
    put(w, STR("</"));
    put(w, str_of(name));
    put(w, STR(">"));
}

void xml_put_leaf(struct xml_writer *w, const char *name, const char *ns, str text)
{
    xml_open(w, name);
    if (ns)
        xml_put_attr(w, "xmlns", str_of(ns));
    if (text.n)
        xml_put_text(w, text);
    xml_close(w, name);
}

str xml_written(const struct xml_writer *w) { return str_from(w->p ? w->p : "", w->len); }

str xml_escape(str s, struct arena *a)
{
    struct xml_writer w;
    xml_writer_init(&w, a);
    reserve(&w, s.n + 1);
    put_escaped(&w, s, true);
    return xml_written(&w);
}
