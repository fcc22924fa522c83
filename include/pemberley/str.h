/* str: a view of bytes, not NUL-terminated, never owned. A value, passed by copy. */
#ifndef PEMBERLEY_STR_H
#define PEMBERLEY_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    const char *p;
    size_t n;
} str;

#define STR(literal) ((str){"" literal, sizeof(literal) - 1})
#define STR_NONE ((str){NULL, 0})
/* For printf's %.*s. */
#define STR_ARG(s) (int)(s).n, (s).p

static inline str str_of(const char *z) { return (str){z, z ? strlen(z) : 0}; }
static inline str str_from(const void *p, size_t n) { return (str){(const char *)p, n}; }
/* By b's length: where b is a literal the compiler compares words and calls nobody. */
static inline bool str_eq(str a, str b)
{
    return a.n == b.n && (b.n == 0 || memcmp(a.p, b.p, b.n) == 0);
}
/* Compares with a string literal. */
#define str_is(s, literal) str_eq((s), STR(literal))
static inline bool str_starts(str s, str prefix)
{
    return s.n >= prefix.n && (prefix.n == 0 || memcmp(s.p, prefix.p, prefix.n) == 0);
}
static inline str str_skip(str s, size_t n) { return (str){s.p + n, s.n - n}; }

#endif
