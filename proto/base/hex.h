/* hex: lower case out, either case in. */
#ifndef PEMBERLEY_HEX_H
#define PEMBERLEY_HEX_H

#include "pemberley/err.h"
#include "pemberley/str.h"

void hex_encode(char *out, str in); /* writes 2 * in.n characters, no NUL */
/* Exactly n bytes from exactly 2 * n digits; else ERR_BAD. */
nodiscard err hex_decode(str in, unsigned char *out, size_t n);

#endif
