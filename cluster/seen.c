#include "cluster/seen.h"

#include <stdlib.h>

/* As many as limits.unsafe_max is by default; half of each: what is asked is whether a client that
 * went on under old numbers has sent something else. (With 8 bits of 32 the simulator saw such
 * stanzas swallowed, one in 256.) */
enum { FPS = 64, TOUCH_MS = 1000 };

struct row {
    struct hnode node;
    struct list use;
    uint64_t sid, to, max; /* max: the highest ord */
    uint64_t until_ms;
    uint64_t bits[SEEN_WIDTH / 64]; /* ord mod SEEN_WIDTH */
    uint32_t lane;
    uint16_t slot;    /* of the addressee */
    uint16_t fp[FPS]; /* of the last ords */
};

static uint64_t hash_of(struct uid uid, uint64_t to)
{
    return hash_u64(uid.sid ^ hash_u64(to ^ uid.lane));
}

void seen_init(struct seen *s, size_t max)
{
    *s = (struct seen){.max = max};
    htable_init(&s->rows);
    list_init(&s->by_use);
}

static void row_free(struct seen *s, struct row *r)
{
    htable_remove(&s->rows, &r->node);
    list_remove(&r->use);
    free(r);
}

void seen_close(struct seen *s)
{
    htable_each(it, &s->rows)
        row_free(s, container_of(it, struct row, node));
    htable_close(&s->rows);
}

static struct row *find(const struct seen *s, struct uid uid, uint64_t to)
{
    struct hnode *n = htable_find(&s->rows, hash_of(uid, to));
    for (; n; n = htable_find_next(n)) {
        struct row *r = container_of(n, struct row, node);
        if (r->sid == uid.sid && r->lane == uid.lane && r->to == to)
            return r;
    }
    return NULL;
}

/* The oldest that is not pinned, of the first few; else the oldest. */
static void drop_one(struct seen *s, uint64_t now_ms)
{
    struct row *victim = list_first(&s->by_use, struct row, use);
    int looked = 0;
    list_each(r, &s->by_use, struct row, use) {
        if (r->until_ms <= now_ms + SEEN_MS) {
            victim = r;
            break;
        }
        if (++looked == 16)
            break;
    }
    row_free(s, victim);
    s->dropped++;
}

static struct row *row_new(struct seen *s, struct uid uid, uint64_t to, unsigned slot,
                           uint64_t now_ms)
{
    if (s->rows.count >= s->max)
        drop_one(s, now_ms);
    struct row *r = calloc(1, sizeof *r);
    must(r);
    r->sid = uid.sid, r->lane = uid.lane, r->to = to, r->slot = (uint16_t)slot;
    list_init(&r->use);
    htable_insert(&s->rows, &r->node, hash_of(uid, to));
    return r;
}

/* Forgets what lies between the highest so far and ord, beyond the width all. */
static void advance(struct row *r, uint64_t ord)
{
    if (ord - r->max >= SEEN_WIDTH)
        memset(r->bits, 0, sizeof r->bits);
    else
        for (uint64_t i = r->max + 1; i <= ord; i++)
            r->bits[i / 64 % 4] &= ~(1ull << i % 64);
    r->max = ord;
}

/* In the list by age it moves once a second, not with every stanza. */
static void touch(struct seen *s, struct row *r, uint64_t now_ms)
{
    uint64_t until_ms = now_ms + SEEN_MS;
    if (r->until_ms <= until_ms && until_ms - r->until_ms < TOUCH_MS)
        return;
    list_remove(&r->use);
    list_push_back(&s->by_use, &r->use);
    if (r->until_ms < until_ms)
        r->until_ms = until_ms;
}

bool seen_note(struct seen *s, struct uid uid, uint64_t to, unsigned slot, uint32_t fp,
               uint64_t now_ms)
{
    struct row *r = find(s, uid, to);
    if (!r)
        r = row_new(s, uid, to, slot, now_ms);
    touch(s, r, now_ms);
    if (uid.ord > r->max)
        advance(r, uid.ord);
    else if (r->max - uid.ord >= SEEN_WIDTH)
        return false;
    uint64_t *word = &r->bits[uid.ord / 64 % 4], bit = 1ull << uid.ord % 64;
    bool was = *word & bit, recent = r->max - uid.ord < FPS;
    bool same = !recent || r->fp[uid.ord % FPS] == (uint16_t)fp;
    *word |= bit;
    if (recent)
        r->fp[uid.ord % FPS] = (uint16_t)fp;
    return was && same;
}

void seen_pin(struct seen *s, ring_wanted_f *wanted, const void *ctx, uint64_t until_ms)
{
    htable_each(it, &s->rows) {
        struct row *r = container_of(it, struct row, node);
        if (wanted(ctx, (unsigned)(r->sid >> 50)) && r->until_ms < until_ms)
            r->until_ms = until_ms;
    }
}

void seen_forget(struct seen *s, ring_wanted_f *wanted, const void *ctx)
{
    htable_each(it, &s->rows)
        if (wanted(ctx, container_of(it, struct row, node)->slot))
            row_free(s, container_of(it, struct row, node));
}

/* By use is by age, but for the pinned ones: they are looked over. */
void seen_sweep(struct seen *s, uint64_t now_ms)
{
    struct list pinned;
    list_init(&pinned);
    while (!list_empty(&s->by_use)) {
        struct row *r = list_first(&s->by_use, struct row, use);
        if (r->until_ms <= now_ms) {
            row_free(s, r);
        } else if (r->until_ms > now_ms + SEEN_MS) {
            list_remove(&r->use);
            list_push_back(&pinned, &r->use);
        } else {
            break;
        }
    }
    list_append(&pinned, &s->by_use);
    list_append(&s->by_use, &pinned);
}

size_t seen_bytes(const struct seen *s)
{
    return s->rows.count * sizeof(struct row) + htable_bytes(&s->rows);
}
