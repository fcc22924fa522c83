/* micro_ring: finding the home of a bare JID (hash and one array load), over as many accounts as do
 * not fit into the first caches, and building the table, which an epoch's change costs. */
#include "bench/micro.h"

#include <stdio.h>
#include <stdlib.h>

#include "cluster/ring.h"
#include "pemberley/must.h"

enum { JIDS = 1 << 16, JID_BYTES = 48 };

static const unsigned char secret[32] = "the secret of a bench of one....";

struct bench {
    struct ring *ring;
    str jids[JIDS];
    char text[JIDS][JID_BYTES];
    unsigned shards; /* to build for */
};

static double look_up(void *ctx, size_t times)
{
    struct bench *b = ctx;
    double from = micro_ns();
    unsigned sum = 0;
    for (size_t i = 0; i < times; i++)
        sum += ring_home(b->ring, b->jids[i % JIDS]);
    micro_use(sum);
    return micro_ns() - from;
}

static double look_up_slot(void *ctx, size_t times)
{
    struct bench *b = ctx;
    double from = micro_ns();
    unsigned sum = 0;
    for (size_t i = 0; i < times; i++)
        sum += ring_home_of_slot(b->ring, (unsigned)(i * 7919 % RING_SLOTS));
    micro_use(sum);
    return micro_ns() - from;
}

static double build(void *ctx, size_t times)
{
    const unsigned *shards = ctx;
    double from = micro_ns();
    for (size_t i = 0; i < times; i++)
        ring_free(ring_single(secret, *shards));
    return micro_ns() - from;
}

int main(int argc, char **argv)
{
    struct bench *b = calloc(1, sizeof *b);
    unsigned two = 2, sixteen = 16;
    must(b);
    b->ring = ring_single(secret, sixteen);
    for (unsigned i = 0; i < JIDS; i++) {
        int n = snprintf(b->text[i], JID_BYTES, "firstname.lastname%u@example.com", i);
        b->jids[i] = str_from(b->text[i], (size_t)n);
    }
    struct micro_case cases[] = {
        {"home of a bare JID", look_up, b, 0},
        {"home of a slot", look_up_slot, b, 0},
        {"table for 2 shards", build, &two, 0},
        {"table for 16 shards", build, &sixteen, 0},
    };
    micro_run(cases, array_len(cases), argc, argv);
    ring_free(b->ring);
    free(b);
    return 0;
}
