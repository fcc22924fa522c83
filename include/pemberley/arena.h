/* arena: memory that lives as long as a turn of the loop (or one request) and is given back at
 * once. It grows by chunks, keeps the first for the next turn, and never fails: a process that can
 * not have 64 KiB cannot go on (must). Not for bytes whose size a peer chooses without a bound. */
#ifndef PEMBERLEY_ARENA_H
#define PEMBERLEY_ARENA_H

#include <stdarg.h>

#include "pemberley/str.h"

struct arena_chunk;
struct arena {
    struct arena_chunk *chunks; /* newest first */
    char *p, *end;
    size_t used; /* bytes handed out since the last reset */
};

void arena_init(struct arena *a);
void arena_reset(struct arena *a);            /* everything handed out is gone */
void arena_close(struct arena *a);            /* frees all chunks */
void *arena_alloc(struct arena *a, size_t n); /* aligned to 16, not cleared */
void *arena_zalloc(struct arena *a, size_t n);
str arena_dup(struct arena *a, str s); /* a copy, followed by a NUL */
str arena_printf(struct arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
str arena_concat(struct arena *a, const str *parts, size_t n);

#endif
