/* micro: what the small benches share: cases that take some nanoseconds, run in interleaved rounds,
 * so that what else the machine does in a second falls on all of them alike. CPU time of the
 * thread, not the clock on the wall. Prints the median of the rounds and the least, which was
 * disturbed least. */
#ifndef PEMBERLEY_BENCH_MICRO_H
#define PEMBERLEY_BENCH_MICRO_H

#include <stddef.h>
#include <stdint.h>

enum { MICRO_CASES_MAX = 32, MICRO_ROUNDS_MAX = 99 };

struct micro_case {
    const char *name;
    /* Does it `times` times and returns the nanoseconds that counted: micro_ns() around all, or
     * around what is not preparation. */
    double (*run)(void *ctx, size_t times);
    void *ctx;
    size_t times; /* per round; 0: as many as take about 20 ms */
};

double micro_ns(void);
/* Rounds: argv[1], or 9. */
void micro_run(struct micro_case *cases, size_t n, int argc, char **argv);
/* The compiler must think that somebody looks at v. */
static inline void micro_use(uint64_t v) { __asm__ volatile("" : : "r"(v) : "memory"); }

#endif
