/* tally: what a worker has counted. Plain numbers, so that it can lie in memory shared with the
 * parent and tallies add up. */
#ifndef PEMBERLEY_BENCH_TALLY_H
#define PEMBERLEY_BENCH_TALLY_H

#include "bench/load/check.h"
#include "bench/load/spread.h"

enum { TALLY_ERRORS = 16, TALLY_WHY = 64 };
struct tally {
    uint64_t sent, received; /* in all; the measured step's are `measured` */
    uint64_t measured;
    struct faults faults;
    struct spread latency; /* of what was measured */
    struct spread healthy; /* slow: the same before anybody stalls */
    struct spread back;    /* resume, storm: from the cut until ready */
    struct spread login;   /* from connect (or the cut) until the session is ready */
    uint64_t late;         /* rate: sent more than 1 ms after their time */
    uint64_t echoes;       /* presence: what came back to its sender */
    uint64_t resumed, tls_resumed, retries;
    uint64_t stalled, stalled_closed, senders_closed, stalled_sent, stalled_missing;
    struct {
        char why[TALLY_WHY];
        uint64_t n;
    } error[TALLY_ERRORS]; /* by kind; the last row takes what does not fit */
};

void tally_error(struct tally *t, const char *why, uint64_t n);
void tally_add(struct tally *t, const struct tally *more);

#endif
