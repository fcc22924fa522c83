/* reconnect: connections that are cut, all at once, and come back, each after a delay of its own up
 * to --jitter; one that fails tries again after a second or two, as long as the step lasts. With
 * --kill those to the first server are cut, which has just died, and come back to the others. */
#ifndef PEMBERLEY_BENCH_RECONNECT_H
#define PEMBERLEY_BENCH_RECONNECT_H

#include "bench/load/load.h"

struct reconnect;
/* For all clients of the worker. */
struct reconnect *reconnect_new(struct worker *w);
/* Everybody whose turn it is (all, or those of the dead server) is cut, then comes back; forget: as
 * a new session. The worker is done when all are ready. */
void reconnect_cut(struct worker *w, struct reconnect *r, bool forget);
/* A connection has failed. True: it was to be cut, or is coming back: it will try again, and that
 * is counted. False: it had no part in this. */
bool reconnect_failed(struct worker *w, struct reconnect *r, struct client *c);
/* Microseconds since reconnect_cut; 0: it has not been. */
uint64_t reconnect_age_us(const struct reconnect *r);

/* Rows: how long it took until half, 99 % and all of the sessions were back, and retries. */
void reconnect_print(struct report *r, const struct outcome *o, unsigned step);

#endif
