/* tally: see tally.h. */
#include "bench/load/tally.h"

#include <stdio.h>
#include <string.h>

void tally_error(struct tally *t, const char *why, uint64_t n)
{
    unsigned i = 0;
    while (i + 1 < TALLY_ERRORS && t->error[i].n && strncmp(t->error[i].why, why, TALLY_WHY - 1))
        i++;
    if (!t->error[i].n)
        snprintf(t->error[i].why, TALLY_WHY, "%s", i + 1 < TALLY_ERRORS ? why : "other");
    t->error[i].n += n;
}

void tally_add(struct tally *t, const struct tally *more)
{
    t->sent += more->sent;
    t->received += more->received;
    t->measured += more->measured;
    faults_add(&t->faults, &more->faults);
    spread_add(&t->latency, &more->latency);
    spread_add(&t->healthy, &more->healthy);
    spread_add(&t->login, &more->login);
    spread_add(&t->back, &more->back);
    t->late += more->late;
    t->echoes += more->echoes;
    t->resumed += more->resumed;
    t->tls_resumed += more->tls_resumed;
    t->retries += more->retries;
    t->stalled += more->stalled;
    t->stalled_closed += more->stalled_closed;
    t->senders_closed += more->senders_closed;
    t->stalled_sent += more->stalled_sent;
    t->stalled_missing += more->stalled_missing;
    for (unsigned i = 0; i < TALLY_ERRORS; i++)
        if (more->error[i].n)
            tally_error(t, more->error[i].why, more->error[i].n);
}
