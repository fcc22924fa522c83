/* report: figures as a table for people or as one JSON object for programs. */
#ifndef PEMBERLEY_BENCH_REPORT_H
#define PEMBERLEY_BENCH_REPORT_H

#include <stdbool.h>

#include "bench/load/tally.h"

struct outcome;
struct report {
    bool json;
};

/* name, scenario, count, processes; the scenario's own rows; faults and errors. */
void report_print(const struct outcome *o);
void report_row(struct report *r, const char *name, double value, const char *unit);
/* <prefix>_p50_us, _p99_us, _p999_us, _max_us */
void report_latency(struct report *r, const char *prefix, const struct spread *h);
/* server_cpu_us (or another name): CPU of a step per one of n; nothing if the server is not known.
 */
void report_cpu(struct report *r, const struct outcome *o, unsigned step, double n,
                const char *unit);
void report_cpu_as(struct report *r, const char *name, const struct outcome *o, unsigned step,
                   double n, const char *unit);

#endif
