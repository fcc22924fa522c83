/* hash: an intrusive chained hash table, and the keyed hash of strings. Tables keyed by a peer's
 * strings use a secret of the process (XXH3 with a random secret), so that nobody can choose names
 * that fall into one chain. The caller compares keys; the table compares hashes. */
#ifndef PEMBERLEY_HASH_H
#define PEMBERLEY_HASH_H

#include "pemberley/must.h"
#include "pemberley/str.h"

struct hash_key {
    unsigned char secret[192]; /* random */
};
uint64_t hash_str(const struct hash_key *k, str s);
/* For integers that are random already or ours (splitmix64). */
static inline uint64_t hash_u64(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

struct hnode {
    struct hnode *next;
    uint64_t hash;
};
struct htable {
    struct hnode **slots;
    size_t mask; /* slots - 1 */
    size_t count;
};

void htable_init(struct htable *t);
void htable_close(struct htable *t); /* frees the slots, not the nodes */
void htable_insert(struct htable *t, struct hnode *n, uint64_t hash);
void htable_remove(struct htable *t, struct hnode *n); /* must be in the table */
/* The first node of this hash, and the next one of the same hash; NULL at the end. */
struct hnode *htable_find(const struct htable *t, uint64_t hash);
struct hnode *htable_find_next(const struct hnode *n);
static inline size_t htable_bytes(const struct htable *t)
{
    return (t->mask + 1) * sizeof *t->slots;
}
/* Walks all nodes. The body may remove (and free) `it`, and only it, and inserts nothing. */
#define htable_each(it, table) \
    for (size_t it##_slot = 0; it##_slot <= (table)->mask; it##_slot++) \
        for (struct hnode *it = (table)->slots[it##_slot], *it##_next = it ? it->next : NULL; it; \
             it = it##_next, it##_next = it ? it->next : NULL)

#endif
