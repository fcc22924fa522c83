/* utf8: RFC 3629: no surrogates, nothing above U+10FFFF, no overlong forms. */
#ifndef PEMBERLEY_UTF8_H
#define PEMBERLEY_UTF8_H

#include "pemberley/str.h"

/* Reads one code point of s (s.n > 0): its length in bytes 1..4, or 0 when it is malformed. */
size_t utf8_decode(str s, uint32_t *code);
/* Writes one code point that is no surrogate and at most U+10FFFF: bytes written, 1..4. */
size_t utf8_encode(char out[4], uint32_t code);

bool utf8_valid(str s);
size_t utf8_count(str s); /* code points of a valid string */

static inline bool utf8_is_ascii(str s)
{
    unsigned char all = 0;
    for (size_t i = 0; i < s.n; i++)
        all |= (unsigned char)s.p[i];
    return all < 0x80;
}

#endif
