/* table: what the command line shows to people: capitals, two spaces, aligned, no boxes. And the
 * short forms of numbers. */
#ifndef PEMBERLEY_NODE_SUPER_TABLE_H
#define PEMBERLEY_NODE_SUPER_TABLE_H

#include <stdio.h>

#include "pemberley/arena.h"

enum { TABLE_COLUMNS_MAX = 12 };

struct table {
    struct arena *arena;
    const char *const
        *heads; /* "SESSIONS"; a head that begins with '>' is a right-aligned column */
    size_t columns;
    str *cells;
    size_t count, cap;
};

void table_init(struct table *t, struct arena *a, const char *const *heads, size_t columns);
void table_add(struct table *t, str cell); /* row by row; kept by view */
void table_print(const struct table *t, FILE *out);

str format_duration(struct arena *a, int64_t seconds); /* 45s, 3m12s, 5h2m, 5d3h */
str format_bytes(struct arena *a, double bytes);       /* 512b, 9.1M, 41G */
str format_latency(struct arena *a, double seconds);   /* -, 0.2ms, 1.5s */

#endif
