/* parcel: see parcel.h. */
#include "cluster/parcel.h"

static str take(char **at, str s)
{
    if (!s.n)
        return STR_NONE;
    memcpy(*at, s.p, s.n);
    str copy = {*at, s.n};
    *at += s.n;
    return copy;
}

static struct parcel *new_plain(struct pool *pool, const struct frame *f)
{
    struct parcel *p = pool_get(pool, sizeof *p + FRAME_HEAD);
    memcpy(p->bytes, f, FRAME_HEAD);
    return p;
}

static struct parcel *new_with_strings(const struct frame *f)
{
    size_t table = f->recipient_count * sizeof(str);
    size_t n = f->bare.n + f->resource.n + f->text.n + f->payload.n;
    for (size_t i = 0; i < f->recipient_count; i++)
        n += f->recipients[i].n;
    struct parcel *p = malloc(sizeof *p + sizeof *f + table + n);
    must(p);
    struct frame *own = (struct frame *)p->bytes;
    str *recipients = (str *)(own + 1);
    char *at = (char *)(recipients + f->recipient_count);
    *own = *f;
    own->bare = take(&at, f->bare), own->resource = take(&at, f->resource);
    own->text = take(&at, f->text), own->payload = take(&at, f->payload);
    for (size_t i = 0; i < f->recipient_count; i++)
        recipients[i] = take(&at, f->recipients[i]);
    own->recipients = recipients;
    return p;
}

struct parcel *parcel_new(struct pool *pool, const struct frame *f)
{
    bool plain = frame_is_plain(f);
    struct parcel *p = plain ? new_plain(pool, f) : new_with_strings(f);
    p->plain = plain, p->keep = false;
    p->stanza = f->stanza ? stanza_ref(f->stanza) : NULL;
    list_init(&p->link);
    return p;
}

void parcel_free(struct pool *pool, struct parcel *p)
{
    if (!p)
        return;
    stanza_unref(p->stanza);
    if (p->plain)
        pool_put(pool, p);
    else
        free(p);
}

void parcel_mark_again(struct parcel *p)
{
    uint32_t flags;
    char *at = p->bytes + offsetof(struct frame, flags);
    memcpy(&flags, at, sizeof flags);
    flags |= FRAME_AGAIN;
    memcpy(at, &flags, sizeof flags);
}
