#include "pemberley/must.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

must_report_f *must_report;

void must_failed(const char *file, int line, const char *expr)
{
    if (must_report)
        must_report(file, line, expr);
    else
        fprintf(stderr, "%s:%d: broken invariant: %s\n", file, line, expr);
    abort();
}
