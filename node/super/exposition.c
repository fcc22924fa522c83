#include "node/super/exposition.h"

#include <stdio.h>
#include <stdlib.h>

#include "node/super/health.h"
#include "node/super/inside.h"

enum kind { C, G };
enum scope { SHARD, NODE, PROCESS };

static const struct row {
    const char *family, *labels;
    enum kind kind;
    enum scope scope;
    double scale;
    const char *help;
} rows[METRIC_MAX] = {
#define METRIC(id, family, labels, kind, scope, scale, help) \
    [METRIC_##id] = {family, labels, kind, scope, scale, help},
#include "pemberley/metrics.def"
};
static const struct {
    const char *family, *labels;
    enum scope scope;
    const char *help;
} histograms[HISTOGRAM_MAX] = {
#define HISTOGRAM(id, family, labels, scope, help) [HISTOGRAM_##id] = {family, labels, scope, help},
#include "pemberley/metrics.def"
};
/* Exposed buckets (operator.md 5): 50 us to 10 s by 1, 2.5, 5. */
static const uint64_t edges_us[] = {50,     100,    250,    500,     1000,    2500,    5000,    10000,
                                    25000,  50000,  100000, 250000,  500000,  1000000, 2500000, 5000000,
                                    10000000};

struct out {
    FILE *f;
    bool openmetrics;
};

static uint64_t value_of(const struct process *p, enum metric m)
{
    return atomic_load_explicit(&p->page->value[m], memory_order_relaxed);
}

/* OpenMetrics names a counter's family without _total, the text format with it. */
static void put_head(struct out *o, const char *family, enum kind kind, const char *help)
{
    const char *suffix = kind == C && !o->openmetrics ? "_total" : "";
    fprintf(o->f, "# HELP pemberley_%s%s %s\n# TYPE pemberley_%s%s %s\n", family, suffix, help,
            family, suffix, kind == C ? "counter" : "gauge");
}

static void put_number(struct out *o, double v)
{
    if (v == (double)(uint64_t)v)
        fprintf(o->f, " %llu\n", (unsigned long long)v);
    else
        fprintf(o->f, " %.6f\n", v);
}

static void put_sample(struct out *o, const struct row *r, str labels, double v)
{
    fprintf(o->f, "pemberley_%s%s", r->family, r->kind == C ? "_total" : "");
    if (r->labels[0] || labels.n)
        fprintf(o->f, "{%s%s%.*s}", r->labels, r->labels[0] && labels.n ? "," : "",
                STR_ARG(labels));
    put_number(o, v * r->scale);
}

static void put_row(struct out *o, const struct super *s, enum metric m, struct arena *a)
{
    const struct row *r = &rows[m];
    double sum = 0;
    unsigned n = r->scope == PROCESS ? s->process_count : s->shards;
    for (unsigned i = 0; i < n; i++) {
        const struct process *p = &s->process[i];
        double v = (double)value_of(p, m);
        if (r->scope == SHARD)
            put_sample(o, r, arena_printf(a, "shard=\"%u\"", p->index), v);
        else if (r->scope == PROCESS)
            put_sample(o, r, arena_printf(a, "process=\"%s\",index=\"%u\"", process_name(p), p->index),
                       v);
        sum += v;
    }
    if (r->scope == NODE)
        put_sample(o, r, STR(""), sum);
}

static void put_metrics(struct out *o, const struct super *s, struct arena *a)
{
    for (unsigned m = 0; m < METRIC_MAX; m++) {
        if (m == 0 || !str_eq(str_of(rows[m].family), str_of(rows[m - 1].family)))
            put_head(o, rows[m].family, rows[m].kind, rows[m].help);
        put_row(o, s, (enum metric)m, a);
    }
}

static void put_histogram(struct out *o, const struct super *s, enum histogram h)
{
    uint64_t fine[METRIC_HISTOGRAM_BUCKETS] = {0}, sum_us = 0, seen = 0;
    for (unsigned i = 0; i < s->shards; i++) {
        const struct metric_page *p = s->process[i].page;
        for (unsigned b = 0; b < METRIC_HISTOGRAM_BUCKETS; b++)
            fine[b] += atomic_load_explicit(&p->bucket[h][b], memory_order_relaxed);
        sum_us += atomic_load_explicit(&p->sum_us[h], memory_order_relaxed);
    }
    const char *family = histograms[h].family;
    fprintf(o->f, "# HELP pemberley_%s %s\n# TYPE pemberley_%s histogram\n", family,
            histograms[h].help, family);
    unsigned b = 0;
    for (unsigned e = 0; e < array_len(edges_us); e++) {
        while (b < METRIC_HISTOGRAM_BUCKETS && metric_bucket_us(b) <= edges_us[e])
            seen += fine[b++];
        fprintf(o->f, "pemberley_%s_bucket{le=\"%g\"} %llu\n", family, (double)edges_us[e] / 1e6,
                (unsigned long long)seen);
    }
    while (b < METRIC_HISTOGRAM_BUCKETS)
        seen += fine[b++];
    fprintf(o->f, "pemberley_%s_bucket{le=\"+Inf\"} %llu\npemberley_%s_sum %.6f\n", family,
            (unsigned long long)seen, family, (double)sum_us / 1e6);
    fprintf(o->f, "pemberley_%s_count %llu\n", family, (unsigned long long)seen);
}

/* ---- what the supervisor knows itself --------------------------------------------------------- */

static void put_gauge(struct out *o, const char *family, const char *help, const char *labels,
                      double v)
{
    put_head(o, family, G, help);
    fprintf(o->f, "pemberley_%s%s", family, labels);
    put_number(o, v);
}

static void put_node(struct out *o, const struct super *s, struct arena *a)
{
    put_gauge(o, "build_info", "always 1", "{version=\"" PEMBERLEY_VERSION "\"}", 1);
    str info = arena_printf(a, "{cluster=\"\",node=\"%s\",loop=\"%s\"}", s->node, s->process[0].loop);
    put_gauge(o, "node_info", "always 1", info.p, 1);
    int64_t up_ms = s->now_ms - s->started_ms;
    put_gauge(o, "start_time_seconds", "start, Unix time", "",
              (double)(clock_wall_us((struct clock *)&s->clock) / 1000 - up_ms) / 1e3);
    put_gauge(o, "node_ready", "1 when /readyz says so", "", health_is_ready(s));
    str hash = arena_printf(a, "{hash=\"%08llx\"}", (unsigned long long)s->conf->hash >> 32);
    put_gauge(o, "config_info", "always 1", hash.p, 1);
    put_gauge(o, "config_restart_pending", "changed options that wait for a restart", "",
              s->restart_pending);
    put_gauge(o, "tls_certificate_not_after_timestamp_seconds",
              "end of the certificate that ends first", "", (double)s->certificate_first_end_s);
}

static void put_processes(struct out *o, const struct super *s)
{
    put_head(o, "process_up", G, "1 while the process serves");
    for (unsigned i = 0; i < s->process_count; i++)
        fprintf(o->f, "pemberley_process_up{process=\"%s\",index=\"%u\"} %d\n",
                process_name(&s->process[i]), s->process[i].index,
                s->process[i].state == PROCESS_UP);
    put_head(o, "process_restarts", C, "restarts after a death");
    for (unsigned i = 0; i < s->process_count; i++)
        fprintf(o->f, "pemberley_process_restarts_total{process=\"%s\",index=\"%u\"} %u\n",
                process_name(&s->process[i]), s->process[i].index, s->process[i].restarts);
}

struct http_answer exposition(struct super *s, bool openmetrics, struct arena *a)
{
    char *text = NULL;
    size_t n = 0;
    struct out o = {open_memstream(&text, &n), openmetrics};
    must(o.f);
    put_node(&o, s, a);
    put_processes(&o, s);
    put_metrics(&o, s, a);
    for (unsigned h = 0; h < HISTOGRAM_MAX; h++)
        put_histogram(&o, s, (enum histogram)h);
    if (openmetrics)
        fputs("# EOF\n", o.f);
    must(fclose(o.f) == 0);
    str body = arena_dup(a, str_from(text, n));
    free(text);
    return (struct http_answer){
        200, openmetrics ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
                         : "text/plain; version=0.0.4; charset=utf-8", body};
}
