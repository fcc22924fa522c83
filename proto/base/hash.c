#include "pemberley/hash.h"

#include <stdlib.h>
#include <xxhash.h>

uint64_t hash_str(const struct hash_key *k, str s)
{
    return XXH3_64bits_withSecret(s.p ? s.p : "", s.n, k->secret, sizeof k->secret);
}

enum { SLOTS_MIN = 16 };

static struct hnode **new_slots(size_t n)
{
    struct hnode **slots = calloc(n, sizeof *slots);
    must(slots);
    return slots;
}

void htable_init(struct htable *t)
{
    t->slots = new_slots(SLOTS_MIN);
    t->mask = SLOTS_MIN - 1;
    t->count = 0;
}

void htable_close(struct htable *t)
{
    free(t->slots);
    *t = (struct htable){0};
}

static void grow(struct htable *t)
{
    size_t n = (t->mask + 1) * 2;
    struct hnode **slots = new_slots(n);
    for (size_t i = 0; i <= t->mask; i++)
        for (struct hnode *h = t->slots[i], *next; h; h = next) {
            next = h->next;
            h->next = slots[h->hash & (n - 1)];
            slots[h->hash & (n - 1)] = h;
        }
    free(t->slots);
    t->slots = slots, t->mask = n - 1;
}

void htable_insert(struct htable *t, struct hnode *n, uint64_t hash)
{
    if (t->count > t->mask)
        grow(t);
    n->hash = hash;
    n->next = t->slots[hash & t->mask];
    t->slots[hash & t->mask] = n;
    t->count++;
}

void htable_remove(struct htable *t, struct hnode *n)
{
    struct hnode **at = &t->slots[n->hash & t->mask];
    while (*at != n) {
        must(*at);
        at = &(*at)->next;
    }
    *at = n->next;
    t->count--;
}

static struct hnode *same_hash(struct hnode *n, uint64_t hash)
{
    while (n && n->hash != hash)
        n = n->next;
    return n;
}

struct hnode *htable_find(const struct htable *t, uint64_t hash)
{
    return same_hash(t->slots[hash & t->mask], hash);
}

struct hnode *htable_find_next(const struct hnode *n) { return same_hash(n->next, n->hash); }
