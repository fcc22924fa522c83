/* header: what a stream's start tag declares for all of its items. */
#include "pemberley/must.h"
#include "proto/xml/chars.h"
#include "proto/xml/scan.h"

uint16_t scan_uri_number(str raw, bool special)
{
    if (!special)
        return (uint16_t)xml_ns_find(raw);
    char plain[64]; /* no URI that has a number is longer */
    size_t len = 0;
    struct value_reader r = {(const uchar *)raw.p, (const uchar *)raw.p + raw.n};
    for (int32_t cp; (cp = value_next(&r)) >= 0;) {
        if (len + 4 > sizeof plain)
            return NS_OTHER;
        len += utf8_encode((uint32_t)cp, plain + len);
    }
    return (uint16_t)xml_ns_find(str_from(plain, len));
}

str xml_header_uri(const struct xml_header *h, unsigned i)
{
    if (h->prefix[i].ns != NS_OTHER)
        return xml_ns_uri((enum xml_ns)h->prefix[i].ns);
    return str_from(h->prefix[i].uri, h->prefix[i].uri_len);
}

static bool copy(char *out, uint8_t *len, size_t room, const char *item, uint32_t off, size_t n)
{
    if (n > room)
        return false;
    memcpy(out, item + off, n);
    *len = (uint8_t)n;
    return true;
}

static bool add_prefix(struct xml_header *h, const struct scan_binding *b, str item)
{
    if (h->prefixes == XML_HEADER_PREFIXES)
        return false;
    typeof(h->prefix[0]) *p = &h->prefix[h->prefixes++];
    p->ns = scan_uri_number(str_from(item.p + b->uri, b->uri_len), b->special);
    if (!copy(p->prefix, &p->prefix_len, sizeof p->prefix, item.p, b->prefix, b->prefix_len))
        return false;
    return p->ns != NS_OTHER ||
           copy(p->uri, &p->uri_len, sizeof p->uri, item.p, b->uri, b->uri_len);
}

err xml_header_read(const struct xml_scan *s, str item, struct xml_header *out)
{
    must(s->what == XML_HEADER);
    *out = (struct xml_header){0};
    const struct scan_open *el = &s->open[0];
    if (!copy(out->name, &out->name_len, sizeof out->name, item.p, el->name, el->name_len))
        return ERR_STREAM_POLICY_VIOLATION;
    for (const struct scan_binding *b = s->binding; b < s->binding + s->nbinding; b++) {
        str prefix = str_from(item.p + b->prefix, b->prefix_len);
        if (prefix.n == 0)
            out->default_ns = scan_uri_number(str_from(item.p + b->uri, b->uri_len), b->special);
        else if (!str_is(prefix, "xml") && !add_prefix(out, b, item))
            return ERR_STREAM_POLICY_VIOLATION;
    }
    return ERR_OK;
}

/* The quote that a raw value can stand in. */
static const char *quote_for(str raw) { return memchr(raw.p, '\'', raw.n) ? "\"" : "'"; }

str xml_header_declarations(const struct xml_header *h, const struct xml_index *x, struct arena *a)
{
    str parts[XML_HEADER_PREFIXES * 6];
    size_t n = 0;
    for (unsigned i = 0; i < h->prefixes; i++) {
        if (!(x->header_prefixes & 1u << i))
            continue;
        str uri = xml_header_uri(h, i), quote = str_of(quote_for(uri));
        parts[n++] = STR(" xmlns:");
        parts[n++] = str_from(h->prefix[i].prefix, h->prefix[i].prefix_len);
        parts[n++] = STR("=");
        parts[n++] = quote, parts[n++] = uri, parts[n++] = quote;
    }
    return n ? arena_concat(a, parts, n) : STR("");
}

size_t xml_index_size(const struct xml_index *x)
{
    return offsetof(struct xml_index, child) + x->nchild * sizeof x->child[0];
}
