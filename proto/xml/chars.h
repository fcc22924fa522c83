/* chars: what XML 1.0 allows where, for the files of this room only. ASCII is a table, the rest of
 * names a binary search (names.c); UTF-8 is strict (RFC 3629). Everything is bounded by `end`. */
#ifndef PEMBERLEY_PROTO_XML_CHARS_H
#define PEMBERLEY_PROTO_XML_CHARS_H

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pemberley/err.h"
#include "pemberley/str.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

typedef unsigned char uchar;

enum { CHAR_NAME = 1, CHAR_START = 2, CHAR_SPACE = 4, CHAR_ODD = 8 };
extern const uint8_t xml_class[256]; /* names and space: ASCII only, ':' is in neither */

static inline bool is_space(uchar c) { return xml_class[c] & CHAR_SPACE; }
static inline bool is_name(uchar c) { return xml_class[c] & CHAR_NAME; }
/* ':' and what is not ASCII: it may belong to a name, but not without a closer look. */
static inline bool is_odd_in_name(uchar c) { return xml_class[c] & CHAR_ODD; }
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

/* The first byte in p[i] to p[end] that character data or (quote != 0) an attribute value in these
 * quotes cannot pass over blindly: '<' '&', bytes below 0x20 or above 0x7f, '>' or the quote. */
static inline size_t find_stop(const uchar *p, size_t i, size_t end, uchar quote)
{
#ifdef __SSE2__
    const __m128i space = _mm_set1_epi8(0x20), amp = _mm_set1_epi8('&');
    const __m128i lt = _mm_set1_epi8('<'), gt = _mm_set1_epi8('>');
    const __m128i quotes = _mm_set1_epi8((char)quote), two = _mm_set1_epi8(2);
    for (; i + 16 <= end; i += 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)(p + i));
        __m128i hit = _mm_or_si128(_mm_cmplt_epi8(v, space), _mm_cmpeq_epi8(v, amp));
        if (quote) /* '<' and '>' differ in one bit only */
            hit = _mm_or_si128(hit, _mm_or_si128(_mm_cmpeq_epi8(v, lt), _mm_cmpeq_epi8(v, quotes)));
        else
            hit = _mm_or_si128(hit, _mm_cmpeq_epi8(_mm_or_si128(v, two), gt));
        unsigned mask = (unsigned)_mm_movemask_epi8(hit);
        if (mask)
            return i + (size_t)__builtin_ctzll(mask);
    }
#endif
    const uchar last = quote ? quote : '>';
    while (i < end && p[i] >= 0x20 && p[i] < 0x80 && p[i] != '<' && p[i] != '&' && p[i] != last)
        i++;
    return i;
}

/* The first byte from p[i] on that is no ASCII name character; there is one. By bytes, because
 * names are short and the same ones come again: a predicted loop runs ahead of its loads, whereas a
 * vector's result has to be waited for before the next token's place is known (measured: a tenth of
 * the whole scan). */
static inline size_t find_fenced_name_end(const uchar *p, size_t i)
{
    for (;; i += 4) {
        if (!is_name(p[i]))
            return i;
        if (!is_name(p[i + 1]))
            return i + 1;
        if (!is_name(p[i + 2]))
            return i + 2;
        if (!is_name(p[i + 3]))
            return i + 3;
    }
}

/* The same where the bytes may end before the name does. */
static inline size_t find_name_end(const uchar *p, size_t i, size_t end)
{
    while (i < end && is_name(p[i]))
        i++;
    return i;
}

/* Whether n bytes, at least 8, are the same. */
static inline bool same_bytes(const char *a, const char *b, size_t n)
{
    uint64_t x, y, differs = 0;
    for (size_t i = 0; i + 8 < n; i += 8) {
        memcpy(&x, a + i, 8), memcpy(&y, b + i, 8);
        differs |= x ^ y;
    }
    memcpy(&x, a + n - 8, 8), memcpy(&y, b + n - 8, 8);
    return (differs | (x ^ y)) == 0;
}

/* Whether the first n of the 8 bytes at a and b are the same; n is 1 to 8. */
static inline bool same_word(const void *a, const void *b, size_t n)
{
    uint64_t x, y;
    memcpy(&x, a, 8), memcpy(&y, b, 8);
    return le64toh(x ^ y) << (64 - 8 * n) == 0;
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
