/* micro: see micro.h. */
#include "bench/micro.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "pemberley/must.h"

enum { ROUNDS = 9, ROUND_NS = 20000000 };

double micro_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* Twice as many until it takes a quarter of a round; also warms caches and branch predictors. */
static size_t times_of(const struct micro_case *c)
{
    size_t times = 1;
    double ns = c->run(c->ctx, times);
    while (ns < ROUND_NS / 4.0 && times < SIZE_MAX / 8)
        ns = c->run(c->ctx, times *= 2);
    size_t found = (size_t)((double)times * ROUND_NS / ns);
    return found ? found : 1;
}

static int smaller(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void micro_run(struct micro_case *cases, size_t n, int argc, char **argv)
{
    static double ns[MICRO_CASES_MAX][MICRO_ROUNDS_MAX];
    size_t rounds = argc > 1 ? strtoul(argv[1], NULL, 10) : ROUNDS;
    must(n <= MICRO_CASES_MAX);
    if (rounds < 1 || rounds > MICRO_ROUNDS_MAX) {
        fprintf(stderr, "usage: %s [rounds, %d at most]\n", argv[0], MICRO_ROUNDS_MAX);
        exit(2);
    }
    for (size_t i = 0; i < n; i++)
        if (!cases[i].times)
            cases[i].times = times_of(&cases[i]);
    for (size_t r = 0; r < rounds; r++)
        for (size_t i = 0; i < n; i++)
            ns[i][r] = cases[i].run(cases[i].ctx, cases[i].times) / (double)cases[i].times;
    printf("%-44s %12s %12s  (%zu rounds)\n", "ns each", "median", "least", rounds);
    for (size_t i = 0; i < n; i++) {
        qsort(ns[i], rounds, sizeof **ns, smaller);
        printf("%-44s %12.1f %12.1f\n", cases[i].name, ns[i][rounds / 2], ns[i][0]);
    }
}
