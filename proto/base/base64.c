#include "proto/base/base64.h"

static const char alphabet[64] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

size_t base64_encode(char *out, str in)
{
    const unsigned char *p = (const unsigned char *)in.p;
    char *at = out;
    size_t i = 0;
    for (; i + 3 <= in.n; i += 3) {
        uint32_t v = (uint32_t)p[i] << 16 | (uint32_t)p[i + 1] << 8 | p[i + 2];
        *at++ = alphabet[v >> 18];
        *at++ = alphabet[v >> 12 & 63];
        *at++ = alphabet[v >> 6 & 63];
        *at++ = alphabet[v & 63];
    }
    if (i < in.n) {
        bool two = in.n - i == 2;
        uint32_t v = (uint32_t)p[i] << 16 | (two ? (uint32_t)p[i + 1] << 8 : 0);
        *at++ = alphabet[v >> 18];
        *at++ = alphabet[v >> 12 & 63];
        *at++ = two ? alphabet[v >> 6 & 63] : '=';
        *at++ = '=';
    }
    return (size_t)(at - out);
}

/* 0..63, or 64 for what is no base64 character. Branches on the text only where it is refused. */
static uint32_t value_of(char c)
{
    if (c >= 'A' && c <= 'Z')
        return (uint32_t)(c - 'A');
    if (c >= 'a' && c <= 'z')
        return (uint32_t)(c - 'a') + 26;
    if (c >= '0' && c <= '9')
        return (uint32_t)(c - '0') + 52;
    return c == '+' ? 62 : c == '/' ? 63 : 64;
}

/* One group of four with `n` characters before the padding; UINT32_MAX when it is malformed. */
static uint32_t group_of(const char *p, size_t n)
{
    uint32_t v = 0, bad = 0;
    for (size_t i = 0; i < 4; i++) {
        uint32_t x = i < n ? value_of(p[i]) : 0;
        bad |= x & 64;
        v = v << 6 | (x & 63);
    }
    uint32_t unused = n == 2 ? 0xffff : n == 3 ? 0xff : 0;
    return bad || (v & unused) ? UINT32_MAX : v;
}

err base64_decode(str in, unsigned char *out, size_t *n)
{
    if (in.n % 4)
        return ERR_BAD;
    size_t padding = 0;
    if (in.n && in.p[in.n - 1] == '=')
        padding = in.p[in.n - 2] == '=' ? 2 : 1;
    unsigned char *at = out;
    for (size_t i = 0; i < in.n; i += 4) {
        size_t used = i + 4 == in.n ? 4 - padding : 4;
        uint32_t v = group_of(in.p + i, used);
        if (v == UINT32_MAX)
            return ERR_BAD;
        *at++ = (unsigned char)(v >> 16);
        if (used > 2)
            *at++ = (unsigned char)(v >> 8);
        if (used > 3)
            *at++ = (unsigned char)v;
    }
    *n = (size_t)(at - out);
    return ERR_OK;
}

str base64_encode_in(struct arena *a, str in)
{
    char *p = arena_alloc(a, base64_encoded_size(in.n) + 1);
    size_t n = base64_encode(p, in);
    p[n] = 0;
    return (str){p, n};
}

err base64_decode_in(struct arena *a, str in, str *out)
{
    char *p = arena_alloc(a, base64_decoded_size_max(in.n) + 1);
    size_t n;
    err e = base64_decode(in, (unsigned char *)p, &n);
    if (e)
        return e;
    p[n] = 0;
    *out = (str){p, n};
    return ERR_OK;
}
