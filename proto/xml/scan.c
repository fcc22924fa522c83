/* scan: one pass over the bytes of an item finds its end, judges it and fills its index.
 *
 * A state machine with one function per state. All of what it knows is in struct xml_scan, as
 * offsets, so that it can stop behind any byte and go on when the bytes have grown or moved: a byte
 * that was passed is never read again, but for the token of a bounded length in which it stopped (a
 * reference, a character, the declaration). So a giant that trickles in costs what it costs at
 * once.
 *
 *   item_start ─► after_lt ─► element_name ─► in_tag ─► … attribute_value ─┐
 *                    ▲  │                      │  ▲─────────────────────────┘
 *                    │  ├─► end_tag            ▼
 *                    │  ├─► cdata           tag_done (prefixes bound, index filled)
 *                    └──┴──── text ◄───────────┘
 *
 * Rejected: a table-driven automaton (one dependent load per byte: 1.5 GB/s at best), and two
 * passes (structure, then names): short stanzas are all structure. Text and values go by SSE2,
 * which every amd64 has; AVX2 won nothing but on long base64. */
#include "pemberley/must.h"
#include "proto/xml/chars.h"
#include "proto/xml/element.h"
#include "proto/xml/scan.h"

/* What the states share. It lives in registers, because all that touch it are inlined into walk,
 * and what is not goes through aside().
 *
 * fence is the last '>' of the bytes. In front of it names, white space and punctuation end before
 * the bytes do, so that nobody has to look for the end; only a value may reach beyond. walk is
 * compiled twice, `fenced` for what stands in front of the fence and without for the rest. */
struct at {
    const uchar *bytes;
    size_t pos, end, fence;
    bool fenced; /* a constant in each walk: pos <= fence wherever passed_fence does not ask */
};

inlined err aside(err (*step)(struct xml_scan *, struct at *), struct xml_scan *s, struct at *a)
{
    struct at copy = *a;
    err e = step(s, &copy);
    a->pos = copy.pos;
    return e;
}

inlined uint32_t offset(const struct at *a) { return (uint32_t)a->pos; }
inlined uchar here(const struct at *a) { return a->bytes[a->pos]; }

/* No byte at pos: where a fence makes sure that there is one, and where it does not. */
inlined bool is_over(const struct at *a) { return !a->fenced && a->pos == a->end; }
inlined bool passed_fence(const struct at *a)
{
    return a->fenced ? a->pos > a->fence : a->pos == a->end;
}

inlined void skip_space(struct at *a)
{
    while (!is_over(a) && here(a) <= ' ' && is_space(here(a)))
        a->pos++;
}

/* ---- names ---- */

/* A character outside ASCII in a name. */
static err wide_name_char(struct xml_scan *s, struct at *a)
{
    uint32_t cp;
    int len = utf8_decode(a->bytes + a->pos, a->bytes + a->end, &cp);
    if (len == 0)
        return ERR_PARTIAL;
    bool first = offset(a) == s->token || (s->colon && offset(a) == s->token + s->colon + 1);
    if (len < 0 || !xml_name_char(cp, first))
        return ERR_STREAM_NOT_WELL_FORMED;
    a->pos += len;
    return ERR_OK;
}

/* At the colon of a name: the part behind it begins like a name too. */
static err pass_colon(struct xml_scan *s, struct at *a)
{
    if (s->colon)
        return ERR_STREAM_NOT_WELL_FORMED;
    if (a->pos + 1 == a->end)
        return ERR_PARTIAL;
    uchar next = a->bytes[a->pos + 1];
    if (!is_start(next) && next < 0x80)
        return ERR_STREAM_NOT_WELL_FORMED;
    s->colon = offset(a) - s->token;
    a->pos++;
    return ERR_OK;
}

/* Reads on in the qualified name that begins at s->token, whose first byte the caller has looked
 * at. ERR_OK: pos is behind it, and there is a byte at pos. */
inlined err read_name(struct xml_scan *s, struct at *a)
{
    for (;;) {
        a->pos = a->fenced ? find_fenced_name_end(a->bytes, a->pos)
                           : find_name_end(a->bytes, a->pos, a->end);
        if (offset(a) - s->token > s->name_max)
            return ERR_STREAM_NAME_TOO_LONG;
        if (is_over(a))
            return ERR_PARTIAL;
        uchar c = here(a);
        if (!is_odd_in_name(c))
            return ERR_OK;
        err e = c == ':' ? aside(pass_colon, s, a) : aside(wide_name_char, s, a);
        if (e != ERR_OK)
            return e;
    }
}

inlined err start_name(struct xml_scan *s, struct at *a, enum scan_state state)
{
    uchar c = here(a);
    if (!is_start(c) && c < 0x80)
        return ERR_STREAM_NOT_WELL_FORMED;
    s->token = offset(a);
    s->colon = 0;
    s->state = state;
    return ERR_OK;
}

/* ---- character data ---- */

/* What find_stop stopped at, in text, CDATA or a value: passes over it. A run of the same kind is
 * passed at once, because whoever writes Cyrillic or pretty-prints does so all along. Tabs and
 * line ends make a value special. */
static err odd_char(struct xml_scan *s, struct at *a)
{
    const uchar *p = a->bytes + a->pos, *end = a->bytes + a->end;
    uint32_t cp;
    if (*p < 0x80 && !is_space(*p))
        return ERR_STREAM_NOT_WELL_FORMED;
    while (p < end && (*p >= 0x80 || is_space(*p))) {
        int len = *p < 0x80 ? 1 : utf8_common(p, end);
        s->special |= *p < 0x20;
        if (len == 0)
            len = utf8_decode(p, end, &cp);
        if (len <= 0) {
            a->pos = (size_t)(p - a->bytes);
            return len == 0 ? ERR_PARTIAL : ERR_STREAM_NOT_WELL_FORMED;
        }
        p += len;
    }
    a->pos = (size_t)(p - a->bytes);
    return ERR_OK;
}

static err pass_reference(struct xml_scan *s, struct at *a)
{
    uint32_t len, cp;
    err e = xml_reference(a->bytes + a->pos, a->bytes + a->end, &len, &cp);
    if (e == ERR_OK)
        a->pos += len;
    return e;
}

/* Whether the '>' at pos ends "]]>". What stands before text is '>' or ';', before CDATA '[': so
 * looking back two bytes never looks beyond its beginning. */
inlined bool ends_cdata(const struct at *a)
{
    return a->bytes[a->pos - 1] == ']' && a->bytes[a->pos - 2] == ']';
}

inlined err read_text(struct xml_scan *s, struct at *a)
{
    for (;;) {
        if (a->pos == a->end)
            return ERR_PARTIAL;
        if (here(a) != '<') /* tag follows tag as often as not */
            a->pos = find_stop(a->bytes, a->pos, a->end, 0);
        if (a->pos == a->end)
            return ERR_PARTIAL;
        err e = ERR_OK;
        switch (here(a)) {
        case '<':
            a->pos++;
            s->state = SCAN_LT;
            return ERR_OK;
        case '&': e = aside(pass_reference, s, a); break;
        case '>': /* 2.4: "]]>" must not appear in text */
            if (ends_cdata(a))
                return ERR_STREAM_NOT_WELL_FORMED;
            a->pos++;
            break;
        default: e = aside(odd_char, s, a);
        }
        if (e != ERR_OK)
            return e;
    }
}

static err read_cdata(struct xml_scan *s, struct at *a)
{
    for (;;) {
        a->pos = find_stop(a->bytes, a->pos, a->end, 0);
        if (a->pos == a->end)
            return ERR_PARTIAL;
        uchar c = here(a);
        if (c == '>' && ends_cdata(a)) {
            a->pos++;
            s->state = SCAN_TEXT;
            return ERR_OK;
        }
        err e = ERR_OK;
        if (c == '<' || c == '&' || c == '>')
            a->pos++;
        else
            e = aside(odd_char, s, a);
        if (e != ERR_OK)
            return e;
    }
}

/* "<!" is CDATA inside an element; else a comment or a DTD, which RFC 6120 11.1 forbids. */
static err after_bang(struct xml_scan *s, struct at *a)
{
    static const char open[] = "<![CDATA[";
    const uchar *p = a->bytes + s->token;
    uint32_t have = (uint32_t)a->end - s->token, want = sizeof open - 1;
    if (have > 2 && p[2] != '[')
        return p[2] == '-' || is_start(p[2]) ? ERR_STREAM_RESTRICTED_XML
                                             : ERR_STREAM_NOT_WELL_FORMED;
    if (have > 2 && s->depth == 0)
        return s->header ? ERR_STREAM_BAD_FORMAT : ERR_STREAM_NOT_WELL_FORMED;
    if (memcmp(p, open, have < want ? have : want) != 0)
        return ERR_STREAM_NOT_WELL_FORMED;
    if (have < want)
        return ERR_PARTIAL;
    a->pos = s->token + want;
    s->state = SCAN_CDATA;
    return ERR_OK;
}

/* ---- tags ---- */

inlined err begin_element(struct xml_scan *s, struct at *a)
{
    if (s->depth >= s->depth_max)
        return ERR_STREAM_TOO_DEEP;
    if (s->elements >= s->limits->elements_max)
        return ERR_STREAM_TOO_MANY_ELEMENTS;
    s->elements++;
    struct scan_open *el = &s->open[s->depth];
    el->bindings = (uint16_t)s->nbinding, el->default_ns = (uint16_t)s->default_ns;
    s->nattr = s->declared = 0;
    s->seen = 0;
    s->prefixed = false;
    return start_name(s, a, SCAN_NAME);
}

inlined err after_lt(struct xml_scan *s, struct at *a)
{
    if (passed_fence(a))
        return ERR_PARTIAL;
    switch (here(a)) {
    case '/':
        if (s->depth == 0 && (!s->header || s->expect != XML_EXPECT_ELEMENT))
            return ERR_STREAM_NOT_WELL_FORMED;
        a->pos++;
        s->token = offset(a);
        s->state = SCAN_END_NAME;
        return ERR_OK;
    case '!':
        s->token = offset(a) - 1;
        s->state = SCAN_BANG;
        return ERR_OK;
    case '?':
        s->state = SCAN_DECLARATION;
        return s->depth == 0 && s->expect == XML_EXPECT_START ? ERR_OK : ERR_STREAM_RESTRICTED_XML;
    default: return begin_element(s, a);
    }
}

inlined err element_name(struct xml_scan *s, struct at *a)
{
    err e = read_name(s, a);
    if (e != ERR_OK)
        return e;
    struct scan_open *el = &s->open[s->depth];
    el->name = s->token;
    el->name_len = (uint16_t)(offset(a) - s->token);
    el->prefix_len = (uint16_t)s->colon;
    s->gap = offset(a);
    s->state = SCAN_TAG;
    return ERR_OK;
}

/* Behind a '/' that was the last byte, or that is not followed by '>'. */
static err empty_tag(struct xml_scan *s, struct at *a)
{
    if (a->pos == a->end)
        return ERR_PARTIAL;
    if (here(a) != '>')
        return ERR_STREAM_NOT_WELL_FORMED;
    a->pos++;
    return tag_done(s, a->bytes, offset(a), true);
}

/* Inside a start tag, behind its name or an attribute. */
inlined err in_tag(struct xml_scan *s, struct at *a)
{
    if (!is_over(a) && here(a) == ' ') /* one, mostly */
        a->pos++;
    skip_space(a);
    if (is_over(a))
        return ERR_PARTIAL;
    bool slash = here(a) == '/';
    if (here(a) != '>' && !slash)
        return offset(a) > s->gap ? start_name(s, a, SCAN_ATTR_NAME) : ERR_STREAM_NOT_WELL_FORMED;
    a->pos++;
    if (slash && (is_over(a) || here(a) != '>')) {
        s->state = SCAN_EMPTY;
        return ERR_OK;
    }
    a->pos += slash;
    return tag_done(s, a->bytes, offset(a), slash);
}

inlined err attribute_name(struct xml_scan *s, struct at *a)
{
    err e = read_name(s, a);
    if (e != ERR_OK)
        return e;
    s->state = SCAN_EQUALS;
    return attr_named(s, a->bytes, s->token, offset(a) - s->token, s->colon);
}

inlined err begin_value(struct xml_scan *s, struct at *a)
{
    s->quote = here(a);
    s->special = false;
    a->pos++;
    s->token = offset(a);
    s->state = SCAN_VALUE;
    return ERR_OK;
}

inlined bool is_quote(uchar c) { return c == '\'' || c == '"'; }

inlined err equals_sign(struct xml_scan *s, struct at *a)
{
    if (is_over(a) || here(a) != '=')
        skip_space(a);
    if (is_over(a))
        return ERR_PARTIAL;
    if (here(a) != '=')
        return ERR_STREAM_NOT_WELL_FORMED;
    a->pos++;
    if (!is_over(a) && is_quote(here(a)))
        return begin_value(s, a);
    s->state = SCAN_QUOTE;
    return ERR_OK;
}

inlined err opening_quote(struct xml_scan *s, struct at *a)
{
    skip_space(a);
    if (is_over(a))
        return ERR_PARTIAL;
    return is_quote(here(a)) ? begin_value(s, a) : ERR_STREAM_NOT_WELL_FORMED;
}

inlined err attribute_value(struct xml_scan *s, struct at *a)
{
    for (;;) {
        uchar quote = s->quote; /* as a constant it saves building a vector of it */
        a->pos = quote == '"' ? find_stop(a->bytes, a->pos, a->end, '"')
                              : find_stop(a->bytes, a->pos, a->end, '\'');
        if (a->pos == a->end)
            return ERR_PARTIAL;
        uchar c = here(a);
        if (c == quote)
            break;
        if (c == '<')
            return ERR_STREAM_NOT_WELL_FORMED;
        s->special |= c == '&';
        err e = c == '&' ? aside(pass_reference, s, a) : aside(odd_char, s, a);
        if (e != ERR_OK)
            return e;
    }
    const struct xml_span value = {s->token, offset(a) - s->token};
    a->pos++;
    s->state = SCAN_TAG;
    err e = attr_done(s, a->bytes, value, s->special, s->gap);
    s->gap = offset(a);
    return e == ERR_OK && passed_fence(a) ? ERR_PARTIAL : e;
}

/* Takes attributes in one step as long as they are like nearly all: one space, an ASCII name
 * without a prefix, no space around '=', and nothing in the value that needs a closer look. What is
 * not is left to the steps above, from its space on: a value may be read twice, but not more. */
inlined err plain_attributes(struct xml_scan *s, struct at *a)
{
    const uchar *bytes = a->bytes;
    while (bytes[a->pos] == ' ' && is_start(bytes[a->pos + 1])) {
        size_t name = a->pos + 1, name_end = find_fenced_name_end(bytes, name);
        uchar quote = bytes[name_end] == '=' ? bytes[name_end + 1] : 0;
        if (!is_quote(quote) || name_end - name > s->name_max)
            break;
        size_t value = name_end + 2;
        size_t end = quote == '"' ? find_stop(bytes, value, a->end, '"')
                                  : find_stop(bytes, value, a->end, '\'');
        if (end == a->end || bytes[end] != quote)
            break;
        err e = attr_named(s, bytes, (uint32_t)name, (uint32_t)(name_end - name), 0);
        if (e != ERR_OK)
            return e;
        const struct xml_span span = {(uint32_t)value, (uint32_t)(end - value)};
        e = attr_done(s, bytes, span, false, s->gap);
        a->pos = end + 1;
        s->gap = offset(a);
        if (e != ERR_OK || passed_fence(a))
            return e == ERR_OK ? ERR_PARTIAL : e;
    }
    return ERR_OK;
}

/* ---- end tags ---- */

inlined err end_name(struct xml_scan *s, struct at *a)
{
    const char *name;
    uint32_t want;
    if (s->depth > 0) {
        const struct scan_open *top = &s->open[s->depth - 1];
        name = (const char *)a->bytes + top->name, want = top->name_len;
    } else {
        name = s->header->name, want = s->header->name_len;
    }
    const uchar *from = a->bytes + s->token;
    uint32_t have = (uint32_t)a->end - s->token;
    if (have <= want)
        return memcmp(from, name, have) == 0 ? ERR_PARTIAL : ERR_STREAM_NOT_WELL_FORMED;
    bool same = want <= 8 && have >= 8 && s->depth > 0 ? same_word(from, name, want)
                                                       : memcmp(from, name, want) == 0;
    if (!same)
        return ERR_STREAM_NOT_WELL_FORMED;
    a->pos = s->token + want;
    s->state = SCAN_END_SPACE;
    return ERR_OK;
}

inlined err end_space(struct xml_scan *s, struct at *a)
{
    if (is_over(a) || here(a) != '>')
        skip_space(a);
    if (is_over(a))
        return ERR_PARTIAL;
    if (here(a) != '>')
        return ERR_STREAM_NOT_WELL_FORMED;
    a->pos++;
    if (s->depth == 0) {
        s->what = XML_CLOSE;
        s->state = SCAN_DONE;
        return ERR_OK;
    }
    element_done(s, offset(a));
    return ERR_OK;
}

/* ---- items ---- */

/* The first byte of an item that is neither white space nor '<'. A byte order mark, too, is no
 * character of a stream (RFC 6120 11.6); before a header nothing but XML is talked about at all. */
static err no_markup(const struct xml_scan *s, const struct at *a)
{
    uint32_t cp = here(a);
    int len = 1;
    if (cp >= 0x80)
        len = utf8_decode(a->bytes + a->pos, a->bytes + a->end, &cp);
    if (len == 0)
        return ERR_PARTIAL;
    bool text = len > 0 && xml_is_char(cp) && cp != 0xfeff;
    return text && s->header ? ERR_STREAM_BAD_FORMAT : ERR_STREAM_NOT_WELL_FORMED;
}

static err item_start(struct xml_scan *s, struct at *a)
{
    if (here(a) == '<') {
        a->pos++;
        s->state = SCAN_LT;
        return ERR_OK;
    }
    if (!is_space(here(a)))
        return no_markup(s, a);
    skip_space(a);
    s->what = XML_WHITESPACE;
    s->state = SCAN_DONE;
    return offset(a) > s->limits->whitespace_max ? ERR_STREAM_WHITESPACE_FLOOD : ERR_OK;
}

static err declaration(struct xml_scan *s, struct at *a)
{
    uint32_t used;
    err e = scan_declaration(str_from(a->bytes, a->end), &used);
    if (e != ERR_OK)
        return e;
    a->pos = used;
    s->what = XML_DECLARATION;
    s->state = SCAN_DONE;
    return ERR_OK;
}

/* The gotos are the ways that nearly all bytes go; without them each step would load its state and
 * jump through the table (a sixth of the whole scan). */
inlined err walk(struct xml_scan *s, struct at *a)
{
    err e = ERR_OK;
#define TRY(step) \
    if (__builtin_expect((e = step(s, a)) != ERR_OK, 0)) \
    return e
#define TRY_ASIDE(step) \
    if ((e = aside(step, s, a)) != ERR_OK) \
    return e
    for (;;) {
        switch (s->state) {
        case SCAN_ITEM:
            TRY_ASIDE(item_start);
            if (s->state != SCAN_LT)
                break;
            goto lt;
        case SCAN_DECLARATION: TRY_ASIDE(declaration); break;
        case SCAN_TEXT:
        text:
            TRY(read_text);
            __attribute__((fallthrough));
        case SCAN_LT:
        lt:
            TRY(after_lt);
            if (s->state == SCAN_END_NAME)
                goto end_tag;
            if (s->state != SCAN_NAME)
                break;
            __attribute__((fallthrough));
        case SCAN_NAME: TRY(element_name); goto tag;
        case SCAN_ATTR_NAME:
        attr_name:
            TRY(attribute_name);
            __attribute__((fallthrough));
        case SCAN_EQUALS:
            TRY(equals_sign);
            if (s->state == SCAN_VALUE)
                goto value;
            __attribute__((fallthrough));
        case SCAN_QUOTE: TRY(opening_quote); __attribute__((fallthrough));
        case SCAN_VALUE:
        value:
            TRY(attribute_value);
            __attribute__((fallthrough));
        case SCAN_TAG:
        tag:
            if (a->fenced)
                TRY(plain_attributes);
            TRY(in_tag);
            if (s->state == SCAN_ATTR_NAME)
                goto attr_name;
            if (s->state == SCAN_TEXT)
                goto text;
            break;
        case SCAN_EMPTY: TRY_ASIDE(empty_tag); break;
        case SCAN_BANG: TRY_ASIDE(after_bang); break;
        case SCAN_CDATA: TRY_ASIDE(read_cdata); break;
        case SCAN_END_NAME:
        end_tag:
            TRY(end_name);
            __attribute__((fallthrough));
        case SCAN_END_SPACE:
            TRY(end_space);
            if (s->state == SCAN_TEXT)
                goto text;
            return ERR_OK;
        case SCAN_DONE: return ERR_OK;
        }
    }
#undef TRY
#undef TRY_ASIDE
}

/* Puts the fence up: near the end, because the last '>' is looked for once per item, and a receive
 * may hold many items before a long piece of another. False: there is none from pos on. */
inlined bool find_fence(struct at *a)
{
    enum { NEAR = 256 };
    size_t stop = a->end - a->pos > NEAR ? a->end - NEAR : a->pos;
    for (a->fence = a->end; a->fence > stop;)
        if (a->bytes[--a->fence] == '>')
            return true;
    return false;
}

/* In front of the fence first; what could not be ended there goes on as it can. */
inlined err walk_all(struct xml_scan *s, struct at *a)
{
    struct at fenced = *a;
    fenced.fenced = true;
    if (find_fence(&fenced)) {
        err e = walk(s, &fenced);
        a->pos = fenced.pos;
        if (e != ERR_PARTIAL)
            return e;
    }
    return walk(s, a);
}

err xml_scan(struct xml_scan *s, str item, enum xml_expect expect, enum xml_item *what,
             size_t *used, const struct xml_index **index)
{
    *what = XML_NONE, *used = 0, *index = &s->index;
    if (item.n == 0)
        return ERR_OK;
    bool clipped = item.n >= s->limits->bytes_max;
    size_t end = clipped ? s->limits->bytes_max : item.n;
    must(s->state != SCAN_DONE && s->pos <= end);
    if (end == 0)
        return ERR_STREAM_STANZA_TOO_BIG;
    struct at a = {.bytes = (const uchar *)item.p, .pos = s->pos, .end = end};
    s->expect = expect;
    err e = walk_all(s, &a);
    s->pos = offset(&a);
    if (e == ERR_PARTIAL && clipped)
        return ERR_STREAM_STANZA_TOO_BIG;
    if (e == ERR_OK)
        *what = s->what, *used = s->pos;
    return e;
}
