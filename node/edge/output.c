/* output: see output.h. */
#include "node/edge/output.h"

enum { FEW = 4 }; /* pieces, of the pool */
struct pieces {
    uint32_t head, count, cap; /* a circular array; cap is a power of two */
    struct piece at[];
};

static uint32_t count(const struct output *o) { return o->pieces ? o->pieces->count : 0; }

static struct piece *at(const struct output *o, uint32_t i)
{
    return &o->pieces->at[(o->pieces->head + i) & (o->pieces->cap - 1)];
}

static void release(struct piece *p)
{
    buf_unref(p->buf);
    stanza_unref(p->stanza);
}

static struct pieces *new_pieces(uint32_t cap, struct pool *pool)
{
    size_t size = sizeof(struct pieces) + cap * sizeof(struct piece);
    struct pieces *p = cap == FEW ? pool_get(pool, size) : malloc(size);
    must(p);
    return p;
}

static void free_pieces(struct pieces *p, struct pool *pool)
{
    if (p && p->cap == FEW)
        pool_put(pool, p);
    else
        free(p);
}

void output_close(struct output *o, struct pool *pool)
{
    for (uint32_t i = 0; i < count(o); i++)
        release(at(o, i));
    free_pieces(o->pieces, pool);
    *o = (struct output){0};
}

static void grow(struct output *o, struct pool *pool)
{
    uint32_t n = count(o), cap = o->pieces ? o->pieces->cap * 2 : FEW;
    struct pieces *new = new_pieces(cap, pool);
    new->head = 0, new->count = n, new->cap = cap;
    for (uint32_t i = 0; i < n; i++)
        new->at[i] = *at(o, i);
    free_pieces(o->pieces, pool);
    o->pieces = new;
}

static struct piece *push(struct output *o, const char *p, uint32_t n, struct pool *pool)
{
    if (!o->pieces || o->pieces->count == o->pieces->cap)
        grow(o, pool);
    struct piece *new = at(o, o->pieces->count++);
    *new = (struct piece){.p = p, .n = n};
    o->bytes += n;
    return new;
}

/* The last piece, if n more bytes fit behind it in its own buffer. They may be put there while the
 * piece is being written: what is in flight was counted by bytes. */
static struct piece *tail_with_room(const struct output *o, size_t n)
{
    if (!o->pieces)
        return NULL;
    struct piece *p = at(o, o->pieces->count - 1);
    return p->buf && p->buf->cap - p->buf->len >= n ? p : NULL;
}

void output_put(struct output *o, str bytes, struct pool *pool)
{
    struct piece *p = tail_with_room(o, bytes.n);
    if (!p) {
        /* The first of a batch is likely to be the only one: no whole chunk for it. */
        size_t want = o->pieces ? OUTPUT_CHUNK : 512;
        struct buf *b = buf_new((uint32_t)(bytes.n > want ? bytes.n : want));
        p = push(o, NULL, 0, pool);
        p->buf = b, p->p = b->data;
    }
    memcpy(p->buf->data + p->buf->len, bytes.p, bytes.n);
    p->buf->len += (uint32_t)bytes.n;
    p->n += (uint32_t)bytes.n;
    o->bytes += (uint32_t)bytes.n;
}

void output_put_stanza(struct output *o, struct stanza *s, str bytes, struct pool *pool)
{
    bool first = !o->pieces && bytes.n >= OUTPUT_REFER_MIN;
    if (bytes.n <= OUTPUT_COPY_MAX && !first)
        return output_put(o, bytes, pool);
    push(o, bytes.p, (uint32_t)bytes.n, pool)->stanza = stanza_ref(s);
}

void output_mark_out(struct output *o)
{
    must(o->pieces);
    at(o, o->pieces->count - 1)->outs++;
}

size_t output_iov(const struct output *o, struct iovec *iov, size_t max)
{
    size_t n = 0, bytes = 0;
    for (; n < count(o) && n < max && bytes < OUTPUT_WRITE_MAX; n++) {
        const struct piece *p = at(o, (uint32_t)n);
        iov[n] = (struct iovec){(void *)p->p, p->n};
        bytes += p->n;
    }
    return n;
}

uint32_t output_taken(struct output *o, size_t n, struct pool *pool)
{
    uint32_t outs = 0;
    must(n <= o->bytes);
    o->bytes -= (uint32_t)n;
    while (n > 0) {
        struct piece *p = at(o, 0);
        if (n < p->n) {
            p->p += n, p->n -= (uint32_t)n;
            return outs;
        }
        n -= p->n;
        outs += p->outs;
        release(p);
        o->pieces->head = (o->pieces->head + 1) & (o->pieces->cap - 1);
        o->pieces->count--;
    }
    if (!count(o))
        output_close(o, pool);
    return outs;
}
