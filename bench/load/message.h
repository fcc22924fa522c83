/* message: the bodies of a pair: numbered, timed, checked. A body carries the pair, a number that
 * counts up and the time it was sent; the rest is padding that must come back as it was. */
#ifndef PEMBERLEY_BENCH_MESSAGE_H
#define PEMBERLEY_BENCH_MESSAGE_H

#include "bench/load/client.h"

enum { MESSAGE_WINDOW_MAX = 64 };

struct pair {
    struct client from, to;
    unsigned index;
    char *xml; /* the stanza; its number and time are written over for each */
    size_t xml_n, number_at;
    uint64_t sent, next; /* numbers: last sent, next one expected */
    uint64_t missing;    /* bit i: number next - 1 - i has not come */
};

/* Log-linear: 32 steps per octave of microseconds. */
enum { LATENCY_STEPS = 32, LATENCY_CELLS = 64 * LATENCY_STEPS };
struct tally {
    uint64_t sent, received, lost, duplicated, reordered, damaged;
    uint64_t latency[LATENCY_CELLS];
};

void pair_init(struct pair *p, unsigned index, str to_jid, size_t stanza_bytes);
void pair_send(struct pair *p, struct tally *t, uint64_t now_us);
/* A message of the pair has come: counts what is wrong with it. */
void pair_take(struct pair *p, struct tally *t, str item, const struct xml_index *x,
               uint64_t now_us);
/* What is still missing is lost. */
void pair_end(struct pair *p, struct tally *t);
void tally_count(struct tally *t, uint64_t us); /* a round trip's or a delivery's time */
uint64_t tally_latency_us(const struct tally *t, double share);

#endif
