/* trim: forgets what archives need not keep any longer (archive_retention, archive_max), and what
 * removed accounts have left, in slices between the requests of shards: a request of the worker's
 * own (archive_trim), as often as it has been answered, then nothing until the next pass. */
#ifndef NODE_STORE_TRIM_H
#define NODE_STORE_TRIM_H

#include "node/conf/conf.h"
#include "node/os/fifo.h"
#include "node/store/store.h"

enum { TRIM_PEER = FIFO_PEERS }; /* nobody's number */

struct trimmer {
    uint64_t next_ms;
    uint32_t host; /* its place in the config */
    bool asked;
    size_t after_n;
    char after[2048]; /* the account behind which the next slice begins */
};

/* Asks for the next slice when it is time. */
void trim_turn(struct trimmer *t, struct store_worker *w, const struct conf *c, uint64_t now_ms,
               int64_t wall_us);
/* The answer to it. */
void trim_on_reply(struct trimmer *t, const char *p, size_t n, uint64_t now_ms);
/* ms, or less: until it is time. */
int trim_wait_ms(const struct trimmer *t, uint64_t now_ms, int ms);

#endif
