/* base64: RFC 4648 4, strict: no white space, padding required, the unused bits zero, so that one
 * byte string has one text. */
#ifndef PEMBERLEY_BASE64_H
#define PEMBERLEY_BASE64_H

#include "pemberley/arena.h"
#include "pemberley/err.h"
#include "pemberley/str.h"

static inline size_t base64_encoded_size(size_t n) { return (n + 2) / 3 * 4; }
/* At most; the padding says how many fewer. */
static inline size_t base64_decoded_size_max(size_t n) { return n / 4 * 3; }

/* Writes base64_encoded_size(in.n) characters, no NUL; returns how many. */
size_t base64_encode(char *out, str in);
/* Writes at most base64_decoded_size_max(in.n) bytes; ERR_BAD leaves *n alone. */
nodiscard err base64_decode(str in, unsigned char *out, size_t *n);

str base64_encode_in(struct arena *a, str in);
nodiscard err base64_decode_in(struct arena *a, str in, str *out);

#endif
