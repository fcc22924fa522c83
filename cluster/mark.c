#include "cluster/mark.h"

#include <endian.h>
#include <stdlib.h>

/* On the wire, big-endian: sid, low half of ord, fp, lane, slot. */
enum { MARK_BYTES = 24 };
_Static_assert(MARK_BYTES * 1024 <= FRAME_RECIPIENTS_BYTES, "a frame holds a good many");

/* 24 bytes instead of 48. The low bits of an ord tell those of one session and minute apart, those
 * of a session's random number the sessions of an account, a slot has 14 bits, and whose time comes
 * round after 70 minutes is told in vain, no more. */
enum { AGE_MS = 16, AGE_BITS = 18, ORD_BITS = 22, SESSION_BITS = 32 - ORD_BITS };
struct packed_mark {
    uint64_t sid; /* of the uid */
    uint32_t ord : ORD_BITS, session : SESSION_BITS;
    uint32_t fp, lane;
    uint32_t slot : 14, age : AGE_BITS; /* age: in units of AGE_MS */
};
_Static_assert(sizeof(struct packed_mark) == 24, "");
_Static_assert(MARKS_MS / AGE_MS < 1 << AGE_BITS, "a mark grows old before its time comes round");

static uint64_t low_bits(uint64_t x, unsigned n) { return x & ((1ull << n) - 1); }
static unsigned slot_of(uint64_t sid) { return (unsigned)(sid >> 50); }

static bool is_young(const struct packed_mark *k, uint64_t now_ms)
{
    uint32_t age = ((uint32_t)(now_ms / AGE_MS) - k->age) & ((1u << AGE_BITS) - 1);
    return age <= MARKS_MS / AGE_MS;
}

static struct packed_mark pack(struct mark mark)
{
    return (struct packed_mark){.sid = mark.uid.sid,
                                .ord = (uint32_t)low_bits(mark.uid.ord, ORD_BITS),
                                .session = (uint32_t)low_bits(mark.sid, SESSION_BITS),
                                .fp = mark.fp,
                                .lane = mark.uid.lane,
                                .slot = slot_of(mark.sid),
                                .age = mark.ms / AGE_MS & ((1u << AGE_BITS) - 1)};
}

void marks_put(struct marks *m, struct mark mark)
{
    if (!m->ring) {
        m->ring = malloc(MARKS_MAX * sizeof *m->ring);
        must(m->ring);
    }
    struct packed_mark *at = &m->ring[m->count % MARKS_MAX];
    m->dropped += m->count >= MARKS_MAX && is_young(at, mark.ms);
    m->count++;
    *at = pack(mark);
}

static void encode(const struct packed_mark *k, char *p)
{
    uint64_t sid = htobe64(k->sid);
    uint32_t to = (uint32_t)k->session << 16 | k->slot;
    uint32_t rest[] = {htobe32(k->ord), htobe32(k->fp), htobe32(k->lane), htobe32(to)};
    memcpy(p, &sid, 8);
    memcpy(p + 8, rest, sizeof rest);
}

static struct mark decode(const char *p)
{
    uint64_t sid;
    uint32_t rest[4];
    memcpy(&sid, p, 8);
    memcpy(rest, p + 8, sizeof rest);
    struct uid uid = {be64toh(sid), be32toh(rest[0]), be32toh(rest[2])};
    uint64_t to = be32toh(rest[3]);
    return (struct mark){.uid = uid, .sid = (to & 0x3fff) << 50 | to >> 16, .fp = be32toh(rest[1])};
}

str marks_encode(const struct marks *m, uint64_t *at, mark_wanted_f *wanted, const void *ctx,
                 uint64_t now_ms, struct arena *a)
{
    uint64_t oldest = m->count > MARKS_MAX ? m->count - MARKS_MAX : 0;
    char *p = NULL;
    size_t n = 0;
    for (*at = *at > oldest ? *at : oldest; *at < m->count; ++*at) {
        const struct packed_mark *k = &m->ring[*at % MARKS_MAX];
        if (!is_young(k, now_ms) || !wanted(ctx, k->slot))
            continue;
        if (n + MARK_BYTES > FRAME_RECIPIENTS_BYTES)
            break;
        p = p ? p : arena_alloc(a, FRAME_RECIPIENTS_BYTES);
        encode(k, p + n);
        n += MARK_BYTES;
    }
    return str_from(p, n);
}

/* The ring is one piece; what no mark has lain in is not in memory yet. */
size_t marks_bytes(const struct marks *m)
{
    return (m->count < MARKS_MAX ? m->count : MARKS_MAX) * sizeof *m->ring;
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

/* session: SESSION_BITS, or any. */
enum { ANY_SESSION = -1 };
static bool has(const struct mark_set *s, struct uid uid, unsigned slot, uint32_t fp, int session)
{
    if (!s->table.slots)
        return false;
    uid.ord = low_bits(uid.ord, ORD_BITS);
    struct hnode *n = htable_find(&s->table, hash_of(uid, slot));
    for (; n; n = htable_find_next(n)) {
        const struct mark *k = &container_of(n, struct known, node)->mark;
        bool its = session == ANY_SESSION || (int)low_bits(k->sid, SESSION_BITS) == session;
        if (its && uid_eq(k->uid, uid) && slot_of(k->sid) == slot && k->fp == fp)
            return true;
    }
    return false;
}

bool mark_set_has(const struct mark_set *s, struct uid uid, unsigned slot, uint32_t fp)
{
    return has(s, uid, slot, fp, ANY_SESSION);
}

bool mark_set_has_of(const struct mark_set *s, struct uid uid, uint64_t sid, uint32_t fp)
{
    return has(s, uid, slot_of(sid), fp, (int)low_bits(sid, SESSION_BITS));
}

void mark_set_put(struct mark_set *s, struct mark mark)
{
    if (!s->table.slots)
        htable_init(&s->table);
    mark.uid.ord = low_bits(mark.uid.ord, ORD_BITS);
    if (mark_set_has_of(s, mark.uid, mark.sid, mark.fp))
        return;
    struct known *k = malloc(sizeof *k);
    must(k);
    k->mark = mark;
    htable_insert(&s->table, &k->node, hash_of(mark.uid, slot_of(mark.sid)));
}

void mark_set_add(struct mark_set *s, str bytes)
{
    for (; bytes.n >= MARK_BYTES; bytes = str_skip(bytes, MARK_BYTES))
        mark_set_put(s, decode(bytes.p));
}

void mark_set_tell(const struct mark_set *s, mark_wanted_f *wanted, const void *wanted_ctx,
                   struct arena *a, mark_tell_f *tell, void *ctx)
{
    size_t n = 0;
    if (!s->table.slots)
        return;
    char *p = arena_alloc(a, FRAME_RECIPIENTS_BYTES);
    htable_each(it, &s->table) {
        const struct mark *mark = &container_of(it, struct known, node)->mark;
        if (!wanted(wanted_ctx, slot_of(mark->sid)))
            continue;
        if (n + MARK_BYTES > FRAME_RECIPIENTS_BYTES)
            tell(ctx, str_from(p, n)), n = 0;
        struct packed_mark packed = pack(*mark);
        encode(&packed, p + n);
        n += MARK_BYTES;
    }
    if (n)
        tell(ctx, str_from(p, n));
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
