#include "pemberley/arena.h"

#include <stdio.h>
#include <stdlib.h>

#include "pemberley/must.h"

enum { CHUNK = 64 * 1024 };

struct arena_chunk {
    struct arena_chunk *next;
    size_t size;
    _Alignas(16) char data[];
};

static void add_chunk(struct arena *a, size_t n)
{
    size_t size = n > CHUNK ? n : CHUNK;
    struct arena_chunk *c = malloc(sizeof *c + size);
    must(c);
    c->next = a->chunks, c->size = size;
    a->chunks = c;
    a->p = c->data, a->end = c->data + size;
}

void arena_init(struct arena *a) { *a = (struct arena){0}; }

void arena_close(struct arena *a)
{
    for (struct arena_chunk *c = a->chunks, *next; c; c = next) {
        next = c->next;
        free(c);
    }
    arena_init(a);
}

/* The oldest chunk is kept: it has the ordinary size unless the first request was a giant. */
void arena_reset(struct arena *a)
{
    a->used = 0;
    if (!a->chunks)
        return;
    while (a->chunks->next || a->chunks->size > CHUNK) {
        struct arena_chunk *c = a->chunks;
        a->chunks = c->next;
        free(c);
        if (!a->chunks) {
            arena_init(a);
            return;
        }
    }
    a->p = a->chunks->data, a->end = a->chunks->data + a->chunks->size;
}

void *arena_alloc(struct arena *a, size_t n)
{
    n = (n + 15) & ~(size_t)15;
    if ((size_t)(a->end - a->p) < n)
        add_chunk(a, n);
    void *p = a->p;
    a->p += n;
    a->used += n;
    return p;
}

void *arena_zalloc(struct arena *a, size_t n) { return memset(arena_alloc(a, n), 0, n); }

str arena_dup(struct arena *a, str s)
{
    char *p = arena_alloc(a, s.n + 1);
    if (s.n)
        memcpy(p, s.p, s.n);
    p[s.n] = 0;
    return (str){p, s.n};
}

str arena_printf(struct arena *a, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    must(n >= 0);
    char *p = arena_alloc(a, (size_t)n + 1);
    vsnprintf(p, (size_t)n + 1, fmt, again);
    va_end(again);
    return (str){p, (size_t)n};
}

str arena_concat(struct arena *a, const str *parts, size_t n)
{
    size_t len = 0;
    for (size_t i = 0; i < n; i++)
        len += parts[i].n;
    char *p = arena_alloc(a, len + 1), *at = p;
    for (size_t i = 0; i < n; i++) {
        if (parts[i].n)
            memcpy(at, parts[i].p, parts[i].n);
        at += parts[i].n;
    }
    *at = 0;
    return (str){p, len};
}
