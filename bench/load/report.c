/* report: see report.h. */
#include <stdio.h>

#include "bench/load/load.h"

void report_row(struct report *r, const char *name, double value, const char *unit)
{
    if (r->json)
        printf(",\"%s\":%.3f", name, value);
    else
        printf("%-24s %14.2f %s\n", name, value, unit);
}

void report_latency(struct report *r, const char *prefix, const struct spread *h)
{
    static const struct {
        const char *name;
        double share;
    } rows[] = {{"p50", 0.5}, {"p99", 0.99}, {"p999", 0.999}, {"max", 1}};
    for (unsigned i = 0; i < array_len(rows); i++) {
        char name[64];
        snprintf(name, sizeof name, "%s_%s_us", prefix, rows[i].name);
        report_row(r, name, (double)spread_at(h, rows[i].share), "us");
    }
}

void report_cpu_as(struct report *r, const char *name, const struct outcome *o, unsigned step,
                   double n, const char *unit)
{
    if (o->plan->server_known)
        report_row(r, name, n > 0 ? outcome_cpu_us(o, step) / n : 0, unit);
}

void report_cpu(struct report *r, const struct outcome *o, unsigned step, double n,
                const char *unit)
{
    report_cpu_as(r, "server_cpu_us", o, step, n, unit);
}

static void print_faults(struct report *r, const struct faults *f)
{
    report_row(r, "lost", (double)f->lost, "");
    report_row(r, "duplicated", (double)f->duplicated, "");
    report_row(r, "reordered", (double)f->reordered, "");
    report_row(r, "damaged", (double)f->damaged, "");
    if (f->stale)
        report_row(r, "stale", (double)f->stale, "of an earlier run");
}

/* Reasons come from the server too: nothing that JSON would have to escape. */
static void print_errors(const struct report *r, const struct tally *t)
{
    const char *comma = "";
    if (r->json)
        printf(",\"errors\":{");
    for (unsigned i = 0; i < TALLY_ERRORS && t->error[i].n; i++) {
        char why[TALLY_WHY] = "";
        for (unsigned k = 0; t->error[i].why[k]; k++) {
            char c = t->error[i].why[k];
            why[k] = c >= ' ' && c < 127 && c != '"' && c != '\\' ? c : '?';
        }
        if (r->json)
            printf("%s\"%s\":%llu", comma, why, (unsigned long long)t->error[i].n);
        else
            printf("%-24s %14llu %s\n", "error", (unsigned long long)t->error[i].n, why);
        comma = ",";
    }
    if (r->json)
        printf("}");
}

void report_print(const struct outcome *o)
{
    static const char *const security[] = {"plain", "starttls", "tls"};
    const struct plan *p = o->plan;
    struct report r = {.json = p->json};
    const char *sm = p->rig.sm ? "+sm" : "";
    if (r.json)
        printf("{\"scenario\":\"%s\",\"security\":\"%s%s\",\"count\":%u,\"processes\":%u",
               p->scenario->name, security[p->rig.security], sm, p->count, p->processes);
    else
        printf("%s, %u %s, %s%s, %u process%s\n", p->scenario->name, p->count, p->scenario->unit,
               security[p->rig.security], sm, p->processes, p->processes > 1 ? "es" : "");
    p->scenario->print(&r, o);
    print_faults(&r, &o->tally.faults);
    print_errors(&r, &o->tally);
    printf(r.json ? "}\n" : "");
}
