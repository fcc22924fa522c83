#include "cluster/mark.h"

#include <endian.h>
#include <stdlib.h>

/* On the wire, big-endian: sid, ord, lane, fp << 16 | slot. */
enum { MARK_BYTES = 24 };
_Static_assert(MARK_BYTES * 1024 <= FRAME_RECIPIENTS_BYTES, "a frame holds a good many");

/* 24 bytes instead of 40. An ord never gets to 2^40, a slot has 14 bits, and whose time comes round
 * after 49 days is told in vain, no more. */
struct packed_mark {
    uint64_t sid;
    uint64_t ord : 40, slot : 16, fp : 8;
    uint32_t lane, ms;
};
_Static_assert(sizeof(struct packed_mark) == 24, "");

void marks_put(struct marks *m, struct mark mark)
{
    if (!m->ring) {
        m->ring = malloc(MARKS_MAX * sizeof *m->ring);
        must(m->ring);
    }
    struct packed_mark *at = &m->ring[m->count % MARKS_MAX];
    m->dropped += m->count >= MARKS_MAX && (uint32_t)mark.ms - at->ms < MARKS_MS;
    m->count++;
    *at = (struct packed_mark){.sid = mark.uid.sid,
                               .ord = mark.uid.ord & ((1ull << 40) - 1),
                               .slot = mark.slot & 0xffff,
                               .fp = mark.fp & 0xff,
                               .lane = mark.uid.lane,
                               .ms = (uint32_t)mark.ms};
}

static void encode(const struct packed_mark *k, char *p)
{
    uint64_t sid = htobe64(k->sid), ord = htobe64(k->ord);
    uint32_t lane = htobe32(k->lane), slot = htobe32((uint32_t)k->fp << 16 | k->slot);
    memcpy(p, &sid, 8);
    memcpy(p + 8, &ord, 8);
    memcpy(p + 16, &lane, 4);
    memcpy(p + 20, &slot, 4);
}

static struct mark decode(const char *p)
{
    uint64_t sid, ord;
    uint32_t lane, slot;
    memcpy(&sid, p, 8);
    memcpy(&ord, p + 8, 8);
    memcpy(&lane, p + 16, 4);
    memcpy(&slot, p + 20, 4);
    slot = be32toh(slot);
    struct uid uid = {be64toh(sid), be64toh(ord), be32toh(lane)};
    return (struct mark){.uid = uid, .slot = slot & 0xffff, .fp = slot >> 16 & 0xff};
}

str marks_encode(const struct marks *m, uint64_t *at, mark_wanted_f *wanted, const void *ctx,
                 uint64_t now_ms, struct arena *a)
{
    uint64_t oldest = m->count > MARKS_MAX ? m->count - MARKS_MAX : 0;
    char *p = NULL;
    size_t n = 0;
    for (*at = *at > oldest ? *at : oldest; *at < m->count; ++*at) {
        const struct packed_mark *k = &m->ring[*at % MARKS_MAX];
        if ((uint32_t)now_ms - k->ms > MARKS_MS || !wanted(ctx, k->slot))
            continue;
        if (n + MARK_BYTES > FRAME_RECIPIENTS_BYTES)
            break;
        p = p ? p : arena_alloc(a, FRAME_RECIPIENTS_BYTES);
        encode(k, p + n);
        n += MARK_BYTES;
    }
    return str_from(p, n);
}

void marks_close(struct marks *m)
{
    free(m->ring);
    *m = (struct marks){0};
}

struct known {
    struct hnode node;
    struct mark mark;
};

static uint64_t hash_of(struct uid uid, unsigned slot)
{
    return hash_u64(uid.sid ^ hash_u64(uid.ord ^ hash_u64((uint64_t)uid.lane << 32 | slot)));
}

bool mark_set_has(const struct mark_set *s, struct uid uid, unsigned slot, uint32_t fp)
{
    if (!s->table.slots)
        return false;
    struct hnode *n = htable_find(&s->table, hash_of(uid, slot));
    for (; n; n = htable_find_next(n)) {
        const struct mark *k = &container_of(n, struct known, node)->mark;
        if (uid_eq(k->uid, uid) && k->slot == slot && k->fp == (fp & 0xff))
            return true;
    }
    return false;
}

void mark_set_add(struct mark_set *s, str bytes)
{
    if (!s->table.slots)
        htable_init(&s->table);
    for (; bytes.n >= MARK_BYTES; bytes = str_skip(bytes, MARK_BYTES)) {
        struct mark mark = decode(bytes.p);
        if (mark_set_has(s, mark.uid, mark.slot, mark.fp))
            continue;
        struct known *k = malloc(sizeof *k);
        must(k);
        k->mark = mark;
        htable_insert(&s->table, &k->node, hash_of(mark.uid, mark.slot));
    }
}

void mark_set_clear(struct mark_set *s)
{
    if (!s->table.slots)
        return;
    htable_each(it, &s->table) {
        htable_remove(&s->table, it);
        free(container_of(it, struct known, node));
    }
    htable_close(&s->table);
    *s = (struct mark_set){0};
}
