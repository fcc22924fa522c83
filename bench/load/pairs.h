/* pairs: who writes to whom: client 2i of a unit to client 2i + 1, to its full JID. What all
 * scenarios of messages share: sending a numbered message, checking one that has come. */
#ifndef PEMBERLEY_BENCH_PAIRS_H
#define PEMBERLEY_BENCH_PAIRS_H

#include "bench/load/load.h"

struct pair {
    struct client *from, *to;
    struct form form;
    struct sequence seen;
    uint64_t sent; /* the newest number */
};

/* The pairs of this worker's units of two clients; to bare JIDs when bare. */
struct pair *pairs_new(struct worker *w, bool bare);
static inline struct pair *pair_of(const struct worker *w, struct pair *pairs,
                                   const struct client *c)
{
    return &pairs[c->unit - w->first];
}
/* A message that should have left at this time, from which its latency counts. */
void pair_send(struct worker *w, struct pair *p, uint64_t time_us);
/* A stanza has come to one of the pair's clients. True: it is a whole message of this run for its
 * receiver, and *out is its mark. Faults and receipt are counted, its latency is not. */
bool pair_take(struct worker *w, struct pair *p, const struct client *c, str item,
               const struct xml_index *x, struct mark *out);
/* Whether all that was sent has come. */
static inline bool pair_is_whole(const struct pair *p)
{
    return p->seen.newest == p->sent && !p->seen.missing;
}
bool pairs_are_whole(const struct worker *w, const struct pair *pairs);
/* Nothing more comes: what is missing is lost. */
void pairs_end(struct worker *w, struct pair *pairs);
/* The text of the child of that name; STR_NONE if there is none. */
str child_text(str item, const struct xml_index *x, str name);

#endif
