#include "node/shard/siblings.h"

#include <stdlib.h>

#include "node/os/fifo.h"

struct held {
    struct list link;
    size_t n;
    char bytes[];
};

struct sibling {
    uint64_t view;     /* its incarnation as the view has it; 0: not in it */
    uint64_t attached; /* as the fifo has it; 0: none is there */
    uint64_t gone;     /* the last one whose fifo went */
    uint64_t passed;   /* the last one that the view had and has not any more */
    struct list out;   /* for `view`, when its fifo comes */
    struct list in;    /* from `attached`, when the view has it */
};

struct siblings {
    struct fifo_hub *hub;
    struct channels *channels;
    bool held;
    struct sibling of[VIEW_SHARDS_MAX];
};

/* ---- what waits ---- */

static void hold(struct list *l, const struct iovec *v, size_t n)
{
    size_t size = 0;
    for (size_t i = 0; i < n; i++)
        size += v[i].iov_len;
    struct held *h = malloc(sizeof *h + size);
    must(h);
    h->n = size;
    char *at = h->bytes;
    for (size_t i = 0; i < n; i++)
        at = mempcpy(at, v[i].iov_base, v[i].iov_len);
    list_init(&h->link);
    list_push_back(l, &h->link);
}

static void drop(struct list *l)
{
    list_each(h, l, struct held, link) {
        list_remove(&h->link);
        free(h);
    }
}

/* ---- fifos and views ---- */

static bool in_step(const struct sibling *b) { return b->attached && b->attached == b->view; }
static bool goes_on(const struct siblings *s, const struct sibling *b)
{
    return in_step(b) && !s->held;
}

static void send_held(struct siblings *s, unsigned shard)
{
    struct sibling *b = &s->of[shard];
    if (!goes_on(s, b))
        return;
    list_each(h, &b->out, struct held, link)
        fifo_hub_send(s->hub, fifo_shard(shard), &(struct iovec){h->bytes, h->n}, 1);
    drop(&b->out);
}

void siblings_attached(struct siblings *s, unsigned shard, uint64_t incarnation)
{
    s->of[shard].attached = incarnation;
    send_held(s, shard);
}

void siblings_detached(struct siblings *s, unsigned shard)
{
    struct sibling *b = &s->of[shard];
    if (b->attached)
        b->gone = b->attached;
    b->attached = 0;
    drop(&b->in);
}

void siblings_expect(struct siblings *s, const struct view_node *own)
{
    for (unsigned i = 0; i < VIEW_SHARDS_MAX; i++) {
        struct sibling *b = &s->of[i];
        if (b->view == own->incarnation[i])
            continue;
        b->passed = b->view;
        b->view = own->incarnation[i];
        drop(&b->out);
    }
}

static bool receive_held(struct siblings *s, unsigned shard)
{
    struct sibling *b = &s->of[shard];
    bool good = true;
    while (good && goes_on(s, b) && !list_empty(&b->in)) {
        struct held *h = list_first(&b->in, struct held, link);
        list_remove(&h->link);
        good = channel_receive(s->channels, shard, (str){h->bytes, h->n}) == ERR_OK;
        free(h);
    }
    return good;
}

void siblings_adopted(struct siblings *s, void (*bad)(void *ctx, unsigned shard), void *ctx)
{
    for (unsigned i = 0; i < VIEW_SHARDS_MAX; i++)
        if (!receive_held(s, i))
            bad(ctx, i);
}

void siblings_hold(struct siblings *s, bool hold, void (*bad)(void *ctx, unsigned shard), void *ctx)
{
    s->held = hold;
    for (unsigned i = 0; i < VIEW_SHARDS_MAX; i++)
        send_held(s, i);
    siblings_adopted(s, bad, ctx);
}

/* ---- frames ---- */

void siblings_send(struct siblings *s, unsigned shard, const struct iovec *v, size_t n, bool later)
{
    struct sibling *b = &s->of[shard];
    if (goes_on(s, b) && later)
        fifo_hub_send_later(s->hub, fifo_shard(shard), v, n);
    else if (goes_on(s, b))
        fifo_hub_send(s->hub, fifo_shard(shard), v, n);
    else if (b->view != b->gone)
        hold(&b->out, v, n);
}

err siblings_receive(struct siblings *s, unsigned shard, str bytes)
{
    struct sibling *b = &s->of[shard];
    if (goes_on(s, b))
        return channel_receive(s->channels, shard, bytes);
    if (b->attached != b->passed)
        hold(&b->in, &(struct iovec){(char *)bytes.p, bytes.n}, 1);
    return ERR_OK;
}

/* ---- life ---- */

struct siblings *siblings_new(struct fifo_hub *hub, struct channels *channels)
{
    struct siblings *s = calloc(1, sizeof *s);
    must(s);
    s->hub = hub, s->channels = channels;
    for (unsigned i = 0; i < VIEW_SHARDS_MAX; i++)
        list_init(&s->of[i].out), list_init(&s->of[i].in);
    return s;
}

void siblings_free(struct siblings *s)
{
    for (unsigned i = 0; i < VIEW_SHARDS_MAX; i++)
        drop(&s->of[i].out), drop(&s->of[i].in);
    free(s);
}
