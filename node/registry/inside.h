/* inside: what the files of this room share: the doors and settings, copied once. */
#ifndef NODE_REGISTRY_INSIDE_H
#define NODE_REGISTRY_INSIDE_H

#include "node/registry/registry.h"
#include "pemberley/arena.h"

struct redis {
    struct registry_doors doors;
    struct registry_settings settings; /* its strings lie in memory */
    struct arena memory;
};

/* So many milliseconds, shortened by up to a half at random: what fails together shall not come
 * back together. */
static inline uint64_t redis_jitter(struct redis *x, uint64_t ms)
{
    return ms - entropy_u64(x->doors.entropy) % (ms / 2 + 1);
}

#endif
