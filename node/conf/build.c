/* A draft without problems becomes an image: fields by their row's offset, texts and lists behind
 * the struct. The buffer is cleared before it is filled, so that equal settings give equal bytes
 * and the hash of the bytes names the configuration. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

#include "node/conf/check.h"
#include "node/conf/draft.h"
#include "node/conf/image.h"
#include "node/conf/value.h"

struct build {
    struct conf_draft *draft;
    char *image; /* zeroed beyond what is written */
    size_t size, cap;
};

/* Room for n bytes at a multiple of 8; its offset. */
static uint32_t append(struct build *b, size_t n)
{
    size_t at = (b->size + 7) & ~(size_t)7;
    if (at + n > b->cap) {
        size_t cap = 2 * (at + n);
        b->image = realloc(b->image, cap);
        must(b->image && cap <= UINT32_MAX);
        memset(b->image + b->cap, 0, cap - b->cap);
        b->cap = cap;
    }
    b->size = at + n;
    return (uint32_t)at;
}

static struct conf_text text(struct build *b, str s)
{
    struct conf_text t = {append(b, s.n + 1), (uint32_t)s.n};
    if (s.n)
        memcpy(b->image + t.at, s.p, s.n);
    return t;
}

static union conf_value value(struct build *b, const struct conf_row *row, str s)
{
    union conf_value v;
    must(conf_value_parse(row, s, &b->draft->arena, &v) == NULL); /* checked when it was set */
    return v;
}

static struct conf_list list(struct build *b, const struct conf_row *row,
                             const struct conf_setting *s)
{
    size_t each = row->kind == CONF_NETS ? sizeof(struct conf_net) : sizeof(struct conf_text);
    struct conf_list l = {append(b, each * s->count), (uint32_t)s->count};
    for (size_t i = 0; i < s->count; i++) {
        union conf_value v = value(b, row, s->values[i]);
        size_t at = l.at + i * each;
        if (row->kind == CONF_NETS) {
            memcpy(b->image + at, &v.net, each);
        } else {
            struct conf_text t = text(b, v.text);
            memcpy(b->image + at, &t, each);
        }
    }
    return l;
}

static uint32_t flags(struct build *b, const struct conf_row *row, const struct conf_setting *s)
{
    uint32_t bits = 0;
    for (size_t i = 0; i < s->count; i++)
        bits |= 1u << value(b, row, s->values[i]).count;
    return bits;
}

#define PUT(b, at, type, v) \
    do { \
        type put_ = (v); /* first: it may move the image */ \
        memcpy((b)->image + (at), &put_, sizeof put_); \
    } while (0)

static void put(struct build *b, size_t at, const struct conf_row *row,
                const struct conf_setting *s)
{
    union conf_value v = {0};
    at += row->at;
    if (!conf_kind_is_list(row->kind))
        v = value(b, row, s->values[0]);
    switch (row->kind) {
    case CONF_NAME:
    case CONF_ENDPOINT:
    case CONF_TEXT: PUT(b, at, struct conf_text, text(b, v.text)); break;
    case CONF_COUNT:
    case CONF_COUNT_AUTO:
    case CONF_SIZE: PUT(b, at, uint64_t, v.count); break;
    case CONF_DURATION: PUT(b, at, int64_t, v.ms); break;
    case CONF_RATE:
    case CONF_RATE_AUTO:
    case CONF_BYTE_RATE: PUT(b, at, struct conf_rate, v.rate); break;
    case CONF_MEMORY: PUT(b, at, struct conf_memory, v.memory); break;
    case CONF_SWITCH: PUT(b, at, bool, v.count); break;
    case CONF_WORD: PUT(b, at, uint32_t, (uint32_t)v.count); break;
    case CONF_FLAGS: PUT(b, at, uint32_t, flags(b, row, s)); break;
    default: PUT(b, at, struct conf_list, list(b, row, s));
    }
}

static int by_domain(const void *a, const void *b)
{
    str x = (*(struct conf_draft_host *const *)a)->domain;
    str y = (*(struct conf_draft_host *const *)b)->domain;
    int r = memcmp(x.p, y.p, x.n < y.n ? x.n : y.n);
    return r ? r : (x.n > y.n) - (x.n < y.n);
}

static void put_hosts(struct build *b)
{
    struct conf_draft *d = b->draft;
    struct conf_draft_host **sorted = arena_alloc(&d->arena, (d->host_count + 1) * sizeof *sorted);
    uint32_t n = 0;
    for (size_t i = 0; i < d->host_count; i++)
        if (!d->hosts[i].pattern)
            sorted[n++] = &d->hosts[i];
    const struct conf_draft_host *first = n ? sorted[0] : NULL;
    qsort(sorted, n, sizeof *sorted, by_domain);
    uint32_t at = append(b, n * sizeof(struct conf_host));
    PUT(b, offsetof(struct conf, hosts_at), uint32_t, at);
    PUT(b, offsetof(struct conf, host_count), uint32_t, n);
    for (uint32_t i = 0; i < n; i++, at += (uint32_t)sizeof(struct conf_host)) {
        if (sorted[i] == first)
            PUT(b, offsetof(struct conf, host_first), uint32_t, i);
        PUT(b, at + offsetof(struct conf_host, domain), struct conf_text,
            text(b, sorted[i]->domain));
        for (int row = 0; row < CONF_HOST_ROWS; row++)
            put(b, at, &conf_host_rows[row], conf_draft_get(d, sorted[i], row));
    }
}

static bool switches_off(const struct conf *c)
{
    for (uint32_t i = 0; i < c->host_count; i++)
        if (conf_host_at(c, i)->modules_off.count)
            return true;
    return c->modules_off.count > 0;
}

struct conf *conf_draft_build(struct conf_draft *d)
{
    conf_check(d);
    if (d->problem_count)
        return NULL;
    struct build b = {.draft = d};
    append(&b, sizeof(struct conf));
    for (int row = 0; row < CONF_ROWS; row++)
        put(&b, 0, &conf_rows[row], conf_draft_get(d, NULL, row));
    put_hosts(&b);
    struct conf *c = (struct conf *)(void *)b.image;
    c->magic = CONF_MAGIC;
    c->size = b.size;
    c->all_modules = !switches_off(c);
    c->hash = XXH3_64bits(c, b.size);
    return c;
}

int conf_seal(const struct conf *c)
{
    int fd = memfd_create("pemberley-conf", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -1;
    for (size_t done = 0; done < c->size;) {
        ssize_t n = write(fd, (const char *)c + done, c->size - done);
        if (n <= 0)
            goto fail;
        done += (size_t)n;
    }
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) == 0)
        return fd;
fail:
    close(fd);
    return -1;
}
