#include "proto/base/hex.h"

void hex_encode(char *out, str in)
{
    static const char digits[16] = "0123456789abcdef";
    for (size_t i = 0; i < in.n; i++) {
        unsigned char c = (unsigned char)in.p[i];
        out[2 * i] = digits[c >> 4];
        out[2 * i + 1] = digits[c & 15];
    }
}

static int digit_of(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

err hex_decode(str in, unsigned char *out, size_t n)
{
    if (in.n != 2 * n)
        return ERR_BAD;
    for (size_t i = 0; i < n; i++) {
        int high = digit_of(in.p[2 * i]), low = digit_of(in.p[2 * i + 1]);
        if (high < 0 || low < 0)
            return ERR_BAD;
        out[i] = (unsigned char)(high << 4 | low);
    }
    return ERR_OK;
}
