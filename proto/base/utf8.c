#include "proto/base/utf8.h"

static bool is_tail(unsigned char c) { return (c & 0xc0) == 0x80; }

/* The narrower range of the second byte shuts out overlong forms, surrogates and what lies above
 * U+10FFFF (RFC 3629 4). */
size_t utf8_decode(str s, uint32_t *code)
{
    const unsigned char *p = (const unsigned char *)s.p;
    unsigned char c = p[0];
    if (c < 0x80) {
        *code = c;
        return 1;
    }
    if (c < 0xc2 || c > 0xf4)
        return 0;
    if (c < 0xe0) {
        if (s.n < 2 || !is_tail(p[1]))
            return 0;
        *code = (c & 0x1fu) << 6 | (p[1] & 0x3fu);
        return 2;
    }
    if (c < 0xf0) {
        unsigned char low = c == 0xe0 ? 0xa0 : 0x80, high = c == 0xed ? 0x9f : 0xbf;
        if (s.n < 3 || p[1] < low || p[1] > high || !is_tail(p[2]))
            return 0;
        *code = (c & 0x0fu) << 12 | (p[1] & 0x3fu) << 6 | (p[2] & 0x3fu);
        return 3;
    }
    unsigned char low = c == 0xf0 ? 0x90 : 0x80, high = c == 0xf4 ? 0x8f : 0xbf;
    if (s.n < 4 || p[1] < low || p[1] > high || !is_tail(p[2]) || !is_tail(p[3]))
        return 0;
    *code = (c & 0x07u) << 18 | (p[1] & 0x3fu) << 12 | (p[2] & 0x3fu) << 6 | (p[3] & 0x3fu);
    return 4;
}

size_t utf8_encode(char out[4], uint32_t code)
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (char)(0xc0 | code >> 6);
        out[1] = (char)(0x80 | (code & 0x3f));
        return 2;
    }
    if (code < 0x10000) {
        out[0] = (char)(0xe0 | code >> 12);
        out[1] = (char)(0x80 | (code >> 6 & 0x3f));
        out[2] = (char)(0x80 | (code & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | code >> 18);
    out[1] = (char)(0x80 | (code >> 12 & 0x3f));
    out[2] = (char)(0x80 | (code >> 6 & 0x3f));
    out[3] = (char)(0x80 | (code & 0x3f));
    return 4;
}

bool utf8_valid(str s)
{
    for (size_t i = 0; i < s.n;) {
        uint32_t code;
        size_t n = utf8_decode(str_skip(s, i), &code);
        if (n == 0)
            return false;
        i += n;
    }
    return true;
}

size_t utf8_count(str s)
{
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++)
        n += !is_tail((unsigned char)s.p[i]);
    return n;
}
