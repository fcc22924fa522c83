/* chars: what XML 1.0 allows where, for the files of this room only. ASCII is a table, the rest of
 * names a binary search (names.c); UTF-8 is strict (RFC 3629). Everything is bounded by `end`. */
#ifndef PEMBERLEY_PROTO_XML_CHARS_H
#define PEMBERLEY_PROTO_XML_CHARS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pemberley/err.h"
#include "pemberley/str.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

typedef unsigned char uchar;

enum { CHAR_NAME = 1, CHAR_START = 2, CHAR_SPACE = 4 };
extern const uint8_t xml_class[256]; /* ASCII only; ':' is in no class */

static inline bool is_space(uchar c) { return xml_class[c] & CHAR_SPACE; }
static inline bool is_name(uchar c) { return xml_class[c] & CHAR_NAME; }
static inline bool is_start(uchar c) { return xml_class[c] & CHAR_START; }

/* Whether a character outside ASCII may stand in (start: begin) a name. */
bool xml_name_char(uint32_t cp, bool start);

/* XML 1.0 2.2, production Char. */
static inline bool xml_is_char(uint32_t cp)
{
    if (cp < 0x20)
        return cp == '\t' || cp == '\n' || cp == '\r';
    return cp < 0xd800 || (cp > 0xdfff && cp < 0xfffe) || (cp > 0xffff && cp < 0x110000);
}

/* Decodes the character at p, whose first byte is >= 0x80: its length; 0 when more bytes are
 * needed; -1 when it is not one that XML allows. */
static inline int utf8_decode(const uchar *p, const uchar *end, uint32_t *cp)
{
    int len = *p >= 0xf0 ? 4 : *p >= 0xe0 ? 3 : 2;
    if (*p < 0xc2 || *p > 0xf4)
        return -1;
    uint32_t c = *p & (0x7fu >> len);
    for (int i = 1; i < len; i++) {
        if (p + i == end)
            return 0;
        if ((p[i] & 0xc0) != 0x80)
            return -1;
        c = c << 6 | (p[i] & 0x3fu);
    }
    *cp = c;
    static const uint32_t shortest[5] = {0, 0, 0x80, 0x800, 0x10000};
    return c >= shortest[len] && xml_is_char(c) ? len : -1;
}
/* The length of the character at p if it is one of those that need no closer look: U+0080 to
 * U+07FF, U+1000 to U+CFFF and U+E000 to U+EFFF, nearly all of what people write; else 0. */
static inline int utf8_common(const uchar *p, const uchar *end)
{
    if (*p >= 0xc2 && *p < 0xe0)
        return end - p >= 2 && (p[1] & 0xc0) == 0x80 ? 2 : 0;
    if (*p > 0xe0 && *p < 0xef && *p != 0xed)
        return end - p >= 3 && (p[1] & 0xc0) == 0x80 && (p[2] & 0xc0) == 0x80 ? 3 : 0;
    return 0;
}

/* Appends cp; returns the bytes written, 4 at most. */
static inline size_t utf8_encode(uint32_t cp, char *out)
{
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    size_t len = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    for (size_t i = len - 1; i > 0; i--, cp >>= 6)
        out[i] = (char)(0x80 | (cp & 0x3f));
    out[0] = (char)((0xf00 >> len) | cp);
    return len;
}

/* The first byte in [p, end) that character data or (quote != 0) an attribute value in these quotes
 * cannot pass over blindly: '<' '&', bytes below 0x20 or above 0x7f, and '>' or the quote. */
static inline const uchar *find_stop(const uchar *p, const uchar *end, uchar quote)
{
#ifdef __SSE2__
    const __m128i space = _mm_set1_epi8(0x20), amp = _mm_set1_epi8('&');
    const __m128i lt = _mm_set1_epi8('<'), gt = _mm_set1_epi8('>');
    const __m128i quotes = _mm_set1_epi8((char)quote), two = _mm_set1_epi8(2);
    for (; end - p >= 16; p += 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)p);
        __m128i hit = _mm_or_si128(_mm_cmplt_epi8(v, space), _mm_cmpeq_epi8(v, amp));
        if (quote) /* '<' and '>' differ in one bit only */
            hit = _mm_or_si128(hit, _mm_or_si128(_mm_cmpeq_epi8(v, lt), _mm_cmpeq_epi8(v, quotes)));
        else
            hit = _mm_or_si128(hit, _mm_cmpeq_epi8(_mm_or_si128(v, two), gt));
        unsigned mask = (unsigned)_mm_movemask_epi8(hit);
        if (mask)
            return p + __builtin_ctz(mask);
    }
#endif
    const uchar last = quote ? quote : '>';
    while (p < end && *p >= 0x20 && *p < 0x80 && *p != '<' && *p != '&' && *p != last)
        p++;
    return p;
}

/* The first byte in [p, end) that is no ASCII name character. By bytes, because names are short and
 * the same ones come again: a predicted loop runs ahead of its loads, whereas a vector's result has
 * to be waited for before the next token's place is known (measured: a tenth of the whole scan). */
static inline const uchar *find_name_end(const uchar *p, const uchar *end)
{
    for (; end - p >= 4; p += 4) {
        if (!is_name(p[0]))
            return p;
        if (!is_name(p[1]))
            return p + 1;
        if (!is_name(p[2]))
            return p + 2;
        if (!is_name(p[3]))
            return p + 3;
    }
    while (p < end && is_name(*p))
        p++;
    return p;
}

/* One reference at p (which points at '&'): its length and character. ERR_PARTIAL, or the stream
 * error: an entity that is not one of the five is restricted-xml (RFC 6120 11.1). */
enum { XML_REFERENCE_MAX = 32 };
err xml_reference(const uchar *p, const uchar *end, uint32_t *len, uint32_t *cp);

/* Reads a raw attribute value as the application sees it: one character per call, -1 at its end. */
struct value_reader {
    const uchar *p, *end;
};
int32_t value_next(struct value_reader *r);
bool value_eq(str a, str b); /* compares what the raw values mean */

#endif
