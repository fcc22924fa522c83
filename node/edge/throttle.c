/* throttle: see throttle.h. One htable for look-up, one list for age. */
#include "node/edge/throttle.h"

#include <netinet/in.h>
#include <stdlib.h>

void throttle_init(struct throttle *t, size_t max)
{
    htable_init(&t->entries);
    list_init(&t->used);
    t->max = max;
}

static void forget(struct throttle *t, struct throttle_entry *e)
{
    htable_remove(&t->entries, &e->node);
    list_remove(&e->link);
    free(e);
}

void throttle_close(struct throttle *t)
{
    list_each(e, &t->used, struct throttle_entry, link)
        forget(t, e);
    htable_close(&t->entries);
}

void throttle_forgive(struct throttle *t)
{
    list_each(e, &t->used, struct throttle_entry, link)
        e->bucket = (struct bucket){0};
}

/* Looks at a few of the oldest: those with something live are put to the young end, so that the
 * next call does not meet them again. The live ones are bounded by the connections there are. */
static void make_room(struct throttle *t)
{
    for (int tries = 0; tries < 16 && t->entries.count >= t->max; tries++) {
        struct throttle_entry *e = list_first(&t->used, struct throttle_entry, link);
        if (e->live == 0)
            return forget(t, e);
        list_remove(&e->link);
        list_push_back(&t->used, &e->link);
    }
}

struct throttle_entry *throttle_get(struct throttle *t, uint64_t hash)
{
    struct hnode *found = htable_find(&t->entries, hash);
    if (found) {
        struct throttle_entry *e = container_of(found, struct throttle_entry, node);
        list_remove(&e->link);
        list_push_back(&t->used, &e->link);
        return e;
    }
    make_room(t);
    struct throttle_entry *e = calloc(1, sizeof *e);
    must(e);
    htable_insert(&t->entries, &e->node, hash);
    list_push_back(&t->used, &e->link);
    return e;
}

uint64_t throttle_address_hash(const struct hash_key *k, const struct sockaddr_storage *a)
{
    if (a->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)a;
        return hash_str(k, str_from(&in->sin_addr, 4));
    }
    if (a->ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const void *)a;
        if (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr))
            return hash_str(k, str_from(in6->sin6_addr.s6_addr + 12, 4));
        return hash_str(k, str_from(&in6->sin6_addr, 8));
    }
    return hash_str(k, STR("unix"));
}
