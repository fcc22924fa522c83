/* buf: refcounted bytes that outlive a turn of the loop. One thread; not atomic. */
#ifndef PEMBERLEY_BUF_H
#define PEMBERLEY_BUF_H

#include <stdlib.h>

#include "pemberley/must.h"
#include "pemberley/str.h"

struct buf {
    uint32_t refs;
    uint32_t len; /* bytes in use */
    uint32_t cap;
    char data[];
};

static inline struct buf *buf_new(uint32_t cap)
{
    struct buf *b = malloc(sizeof *b + cap);
    must(b);
    b->refs = 1, b->len = 0, b->cap = cap;
    return b;
}
static inline struct buf *buf_ref(struct buf *b) { return b->refs++, b; }
static inline void buf_unref(struct buf *b)
{
    if (b && --b->refs == 0)
        free(b);
}

#endif
