/* wire: protobuf's encoding (protobuf.dev/programming-guides/encoding), as much of it as a header
 * that is written and read a million times a second needs: varints, fixed words, bytes. Fields that
 * are zero or empty are left out, as proto3 has it. */
#ifndef PEMBERLEY_BUS_WIRE_H
#define PEMBERLEY_BUS_WIRE_H

#include <endian.h>

#include "pemberley/str.h"

enum wire_type { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };
enum { WIRE_VARINT_MAX = 10, WIRE_NUMBER_MAX = 2 + WIRE_VARINT_MAX }; /* tags below 2^14 */

/* ---- writing: at p, which has room (WIRE_NUMBER_MAX and the bytes); returns the end ---- */

static inline char *wire_put_varint(char *p, uint64_t v)
{
    for (; v >= 0x80; v >>= 7)
        *p++ = (char)(v | 0x80);
    *p++ = (char)v;
    return p;
}
static inline char *wire_put_tag(char *p, uint32_t field, enum wire_type type)
{
    return wire_put_varint(p, field << 3 | type);
}
static inline char *wire_put_number(char *p, uint32_t field, uint64_t v)
{
    return v ? wire_put_varint(wire_put_tag(p, field, WIRE_VARINT), v) : p;
}
static inline char *wire_put_word(char *p, enum wire_type type, uint32_t field, uint64_t v)
{
    if (!v)
        return p;
    size_t n = type == WIRE_FIXED64 ? 8 : 4;
    uint64_t little = htole64(v);
    p = wire_put_tag(p, field, type);
    memcpy(p, &little, n);
    return p + n;
}
static inline char *wire_put_bytes(char *p, uint32_t field, str s)
{
    p = wire_put_varint(wire_put_tag(p, field, WIRE_BYTES), s.n);
    if (s.n)
        memcpy(p, s.p, s.n);
    return p + s.n;
}

/* ---- reading: takes from the front of *in; false: it is not there whole ---- */

static inline bool wire_take_varint(str *in, uint64_t *v)
{
    if (in->n && (uint8_t)in->p[0] < 0x80) {
        *v = (uint8_t)in->p[0];
        *in = str_skip(*in, 1);
        return true;
    }
    *v = 0;
    for (size_t i = 0; i < in->n && i < WIRE_VARINT_MAX; i++) {
        uint8_t b = (uint8_t)in->p[i];
        *v |= (uint64_t)(b & 0x7f) << 7 * i;
        if (b < 0x80) {
            *in = str_skip(*in, i + 1);
            return true;
        }
    }
    return false;
}
static inline bool wire_take_word(str *in, size_t n, uint64_t *v)
{
    uint64_t little = 0;
    if (in->n < n)
        return false;
    memcpy(&little, in->p, n);
    *v = le64toh(little);
    *in = str_skip(*in, n);
    return true;
}
static inline bool wire_take_bytes(str *in, str *s)
{
    uint64_t n;
    if (!wire_take_varint(in, &n) || n > in->n)
        return false;
    *s = (str){in->p, n};
    *in = str_skip(*in, n);
    return true;
}

#endif
