/* tags: reading accepted bytes, for cursor.c and splice.c. */
#include "proto/xml/tags.h"

#include "proto/xml/chars.h"

static bool ends_name(char c) { return is_space((uchar)c) || c == '=' || c == '/' || c == '>'; }

static const char *name_end(const char *p, const char *end)
{
    while (p < end && !ends_name(*p))
        p++;
    return p;
}

/* Behind the '>' of the tag at p; quoted values may hold a '>'. */
static const char *tag_end(const char *p, const char *end)
{
    while (p < end) {
        char c = *p++;
        if (c == '>')
            return p;
        if (c == '\'' || c == '"') {
            p = memchr(p, c, (size_t)(end - p));
            if (!p)
                return end;
            p++;
        }
    }
    return end;
}

struct tag tag_read(str bytes)
{
    if (bytes.n == 0)
        return (struct tag){.all = bytes, .name = bytes};
    const char *end = bytes.p + bytes.n, *name = bytes.p + 1;
    const char *stop = tag_end(name, end), *behind = name_end(name, stop);
    return (struct tag){
        .all = str_from(bytes.p, (size_t)(stop - bytes.p)),
        .name = str_from(name, (size_t)(behind - name)),
        .empty = stop - bytes.p > 2 && stop[-2] == '/',
    };
}

const char *tag_attrs(const struct tag *t) { return t->name.p + t->name.n; }

bool tag_attr_next(const struct tag *t, const char **at, struct tag_attr *out)
{
    const char *p = *at, *end = t->all.p + t->all.n;
    while (p < end && is_space((uchar)*p))
        p++;
    const char *behind = name_end(p, end);
    out->name = str_from(p, (size_t)(behind - p));
    for (p = behind; p < end && (is_space((uchar)*p) || *p == '=');)
        p++;
    if (out->name.n == 0 || p == end || (*p != '\'' && *p != '"'))
        return false;
    const char *quote = memchr(p + 1, *p, (size_t)(end - p) - 1);
    if (!quote)
        return false;
    out->value = str_from(p + 1, (size_t)(quote - p) - 1);
    *at = quote + 1;
    return true;
}

str tag_prefix(str name)
{
    const char *colon = name.n ? memchr(name.p, ':', name.n) : NULL;
    return colon ? str_from(name.p, (size_t)(colon - name.p)) : STR("");
}

str tag_local(str name)
{
    str prefix = tag_prefix(name);
    return prefix.n ? str_skip(name, prefix.n + 1) : name;
}

bool tag_attr_declares(const struct tag_attr *attr, str *prefix)
{
    if (!str_starts(attr->name, STR("xmlns")))
        return false;
    *prefix = attr->name.n > 6 ? str_skip(attr->name, 6) : STR("");
    return attr->name.n == 5 || attr->name.p[5] == ':';
}

/* ---- content ---- */

static const str CDATA_OPEN = {"<![CDATA[", 9}, CDATA_CLOSE = {"]]>", 3};

/* The inside of the section that s begins with. */
static str cdata_inside(str s)
{
    s = str_skip(s, CDATA_OPEN.n);
    const char *close = s.n ? memmem(s.p, s.n, CDATA_CLOSE.p, CDATA_CLOSE.n) : NULL;
    return close ? str_from(s.p, (size_t)(close - s.p)) : s;
}

/* How far the element that s begins with reaches. */
static size_t element_len(str s)
{
    size_t depth = 0;
    const char *p = s.p, *end = s.p + s.n;
    while (p && p < end) {
        str rest = str_from(p, (size_t)(end - p));
        if (str_starts(rest, CDATA_OPEN)) {
            str inside = cdata_inside(rest);
            p = inside.p + inside.n;
        } else if (rest.n > 1 && p[1] == '/') {
            p = tag_end(p, end);
            depth -= depth > 0;
        } else {
            struct tag t = tag_read(rest);
            p = t.all.p + t.all.n;
            depth += !t.empty;
        }
        if (depth == 0)
            return (size_t)(p - s.p);
        p = memchr(p, '<', (size_t)(end - p));
    }
    return s.n;
}

enum tag_part tag_next(str *rest, str *part)
{
    str s = *rest;
    if (s.n == 0)
        return TAG_END;
    if (s.p[0] != '<') {
        const char *lt = memchr(s.p, '<', s.n);
        *part = lt ? str_from(s.p, (size_t)(lt - s.p)) : s;
        *rest = str_skip(s, part->n);
        return TAG_TEXT;
    }
    if (str_starts(s, CDATA_OPEN)) {
        *part = cdata_inside(s);
        size_t used = CDATA_OPEN.n + part->n + CDATA_CLOSE.n;
        *rest = str_skip(s, used < s.n ? used : s.n);
        return TAG_CDATA;
    }
    if (s.n > 1 && s.p[1] == '/')
        return TAG_END;
    *part = str_from(s.p, element_len(s));
    *rest = str_skip(s, part->n);
    return TAG_ELEMENT;
}

size_t tag_resolve(str raw, enum tag_text kind, char *out)
{
    const uchar *p = (const uchar *)raw.p, *end = p + raw.n;
    char *o = out;
    while (p < end) {
        uint32_t len, cp;
        if (*p == '&' && kind != TAG_TEXT_CDATA && xml_reference(p, end, &len, &cp) == ERR_OK) {
            o += utf8_encode(cp, o);
            p += len;
        } else if (*p == '\r') { /* XML 1.0 2.11 */
            p += p + 1 < end && p[1] == '\n' ? 2 : 1;
            *o++ = kind == TAG_TEXT_VALUE ? ' ' : '\n';
        } else {
            bool space = kind == TAG_TEXT_VALUE && is_space(*p); /* 3.3.3 */
            *o++ = space ? ' ' : (char)*p;
            p++;
        }
    }
    return (size_t)(o - out);
}
