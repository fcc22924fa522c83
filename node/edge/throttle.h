/* throttle: token buckets and live counts by a peer's address or name, in a table of bounded size.
 *
 * Entries are found by a keyed 64-bit hash alone: nobody can choose names that meet, and two that
 * meet by chance merely share a bucket. When the table is full the entry that was used longest ago
 * and counts nothing alive is forgotten: forgetting gives an attacker with many addresses no more
 * than those addresses give him anyway. */
#ifndef PEMBERLEY_EDGE_THROTTLE_H
#define PEMBERLEY_EDGE_THROTTLE_H

#include <sys/socket.h>

#include "node/edge/bucket.h"
#include "pemberley/hash.h"
#include "pemberley/list.h"

struct throttle {
    struct htable entries;
    struct list used; /* oldest first */
    size_t max;
};
struct throttle_entry {
    struct hnode node;
    struct list link;
    struct bucket bucket;
    uint32_t live; /* entries with live things are never forgotten */
};

void throttle_init(struct throttle *t, size_t max);
void throttle_close(struct throttle *t);
/* What was spent is forgiven: the rates have changed. */
void throttle_forgive(struct throttle *t);
/* The entry of that hash, made if need be. Valid until the next throttle_get, or as long as it
 * counts something live. */
struct throttle_entry *throttle_get(struct throttle *t, uint64_t hash);
/* One hash per IPv4 address and per IPv6 /64: what one customer of a provider gets. */
uint64_t throttle_address_hash(const struct hash_key *k, const struct sockaddr_storage *a);

#endif
