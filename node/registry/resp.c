#include "node/registry/resp.h"

#include <hiredis/read.h>
#include <stdlib.h>

#include "pemberley/arena.h"

struct resp_reader {
    redisReader *reader;
    struct arena arena; /* of the reply at hand */
    size_t items, bytes;
    bool full; /* a bound was passed: hiredis calls that "out of memory" */
};

/* ---- values ---------------------------------------------------------------------------------- */

/* A value at its place in the array around it. NULL stops the reader. */
static struct resp *add(const redisReadTask *task, enum resp_kind kind, size_t bytes)
{
    struct resp_reader *r = task->privdata;
    r->bytes += bytes;
    r->items += task->parent == NULL; /* others count with the array around them */
    if (r->bytes > RESP_BYTES_MAX) {
        r->full = true;
        return NULL;
    }
    struct resp *v = arena_zalloc(&r->arena, sizeof *v);
    v->kind = kind;
    if (task->parent)
        ((struct resp *)task->parent->obj)->items[task->idx] = v;
    return v;
}

static void *on_string(const redisReadTask *task, char *p, size_t n)
{
    static const enum resp_kind kinds[] = {
        [REDIS_REPLY_STRING] = RESP_STRING,
        [REDIS_REPLY_STATUS] = RESP_STATUS,
        [REDIS_REPLY_ERROR] = RESP_ERROR,
    };
    struct resp *v = add(task, kinds[task->type], n);
    if (v)
        v->text = arena_dup(&((struct resp_reader *)task->privdata)->arena, str_from(p, n));
    return v;
}

/* What the array announces counts at once, so that nested ones cannot multiply. */
static void *on_array(const redisReadTask *task, int n)
{
    struct resp_reader *r = task->privdata;
    if (n < 0 || (size_t)n > RESP_ITEMS_MAX - r->items) {
        r->full = true;
        return NULL;
    }
    struct resp *v = add(task, RESP_ARRAY, (size_t)n * sizeof *v->items);
    r->items += (size_t)n;
    if (v) {
        v->n = (size_t)n;
        v->items = arena_zalloc(&r->arena, v->n * sizeof *v->items);
    }
    return v;
}

static void *on_integer(const redisReadTask *task, long long i)
{
    struct resp *v = add(task, RESP_INTEGER, 0);
    if (v)
        v->integer = i;
    return v;
}

static void *on_nil(const redisReadTask *task) { return add(task, RESP_NIL, 0); }

static const redisReplyObjectFunctions functions = {on_string, on_array, on_integer, on_nil, NULL};

/* ---- reading --------------------------------------------------------------------------------- */

struct resp_reader *resp_reader_new(void)
{
    struct resp_reader *r = calloc(1, sizeof *r);
    must(r);
    r->reader = redisReaderCreateWithFunctions((redisReplyObjectFunctions *)(uintptr_t)&functions);
    must(r->reader);
    r->reader->privdata = r;
    arena_init(&r->arena);
    return r;
}

void resp_reader_free(struct resp_reader *r)
{
    redisReaderFree(r->reader);
    arena_close(&r->arena);
    free(r);
}

static void forget(struct resp_reader *r)
{
    arena_reset(&r->arena);
    r->items = r->bytes = 0;
}

/* What lies in the reader's buffer is the beginning of one value. hiredis looks for the end of a
 * line from its start each time, so a line without end has a smaller bound than a string. */
static bool waits_too_long(const redisReader *h)
{
    size_t waiting = h->len - h->pos;
    bool line = h->ridx >= 0 && h->rstack[h->ridx].type != REDIS_REPLY_STRING;
    return waiting > (line ? (size_t)RESP_LINE_MAX : (size_t)RESP_BYTES_MAX);
}

err resp_feed(struct resp_reader *r, const char *p, size_t n, resp_f *on, void *ctx)
{
    if (redisReaderFeed(r->reader, p, n) != REDIS_OK)
        return ERR_BAD;
    for (;;) {
        void *reply = NULL;
        if (redisReaderGetReply(r->reader, &reply) != REDIS_OK)
            return r->full ? ERR_FULL : ERR_BAD;
        if (!reply)
            return waits_too_long(r->reader) ? ERR_FULL : ERR_OK;
        bool more = on(ctx, reply);
        forget(r);
        if (!more)
            return ERR_OK;
    }
}
