/* pool: objects of one size that come and go with every message. A freed one waits to be the next:
 * last in, first out, so that it is still in the cache, and without a walk through malloc. A pool
 * belongs to somebody (no pool is global), holds POOL_WAITING free objects at most, and needs no
 * start: zeroed is empty. Under AddressSanitizer nothing waits, so that a use after the end is
 * seen.
 */
#ifndef PEMBERLEY_POOL_H
#define PEMBERLEY_POOL_H

#include <stdint.h>
#include <stdlib.h>

#include "pemberley/must.h"

#if defined(__SANITIZE_ADDRESS__)
enum { POOL_WAITING = 0 };
#elif defined(__has_feature)
enum { POOL_WAITING = __has_feature(address_sanitizer) ? 0 : 1024 };
#else
enum { POOL_WAITING = 1024 };
#endif

struct pool_free {
    struct pool_free *next;
};
struct pool {
    struct pool_free *first;
    uint32_t waiting;
};

/* size: the same at every call, at least a pointer's. Not cleared. */
static inline void *pool_get(struct pool *p, size_t size)
{
    void *object = p->first;
    if (object) {
        p->first = p->first->next;
        p->waiting--;
        return object;
    }
    object = malloc(size);
    must(object);
    return object;
}
static inline void pool_put(struct pool *p, void *object)
{
    if (p->waiting == POOL_WAITING) {
        free(object);
        return;
    }
    struct pool_free *f = object;
    f->next = p->first;
    p->first = f;
    p->waiting++;
}
static inline void pool_close(struct pool *p)
{
    while (p->first) {
        struct pool_free *f = p->first;
        p->first = f->next;
        free(f);
    }
    p->waiting = 0;
}

#endif
