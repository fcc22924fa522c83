#include "node/super/exposition.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "node/super/commit.inc"
#include "node/super/families.h"
#include "node/super/health.h"
#include "node/super/hosts.h"
#include "node/super/inside.h"
#include "node/super/peers.h"
#include "node/tls/tls.h"

/* Exposed buckets (operator.md 5): 50 us to 10 s by 1, 2.5, 5; bytes from 64 to 16 MiB by 4; counts
 * by 4. */
static const uint64_t edges_us[] = {50,     100,     250,     500,     1000,    2500,
                                    5000,   10000,   25000,   50000,   100000,  250000,
                                    500000, 1000000, 2500000, 5000000, 10000000};
static const uint64_t edges_bytes[] = {64,    256,    1024,    4096,    16384,
                                       65536, 262144, 1048576, 4194304, 16777216};
static const uint64_t edges_count[] = {1, 4, 16, 64, 256, 1024};
static const struct {
    const uint64_t *edge;
    unsigned n;
    double scale;
} buckets[] = {
    [FAMILY_SECONDS] = {edges_us, array_len(edges_us), 1e-6},
    [FAMILY_BYTES] = {edges_bytes, array_len(edges_bytes), 1},
    [FAMILY_COUNT] = {edges_count, array_len(edges_count), 1},
};

struct out {
    FILE *f;
    bool openmetrics;
    const struct super *super;
    struct arena *arena;
    struct peers *peers;
};

/* ---- lines ----------------------------------------------------------------------------------- */

/* OpenMetrics names a counter's family without _total, the text format with it. */
static void put_head(struct out *o, const char *family, enum family_kind kind, const char *help)
{
    bool counter = kind == FAMILY_C;
    const char *suffix = counter && !o->openmetrics ? "_total" : "";
    fprintf(o->f, "# HELP pemberley_%s%s %s\n# TYPE pemberley_%s%s %s\n", family, suffix, help,
            family, suffix, counter ? "counter" : "gauge");
}

static void put_number(struct out *o, double v)
{
    if (v >= 0 && v < 1e15 && v == (double)(uint64_t)v)
        fprintf(o->f, " %llu\n", (unsigned long long)v);
    else
        fprintf(o->f, " %.6f\n", v);
}

/* "{a,b,c}" of those that are not empty; nothing when all are. */
static str braces(struct out *o, str a, str b, str c)
{
    str parts[] = {a, b, c}, text = STR("");
    for (unsigned i = 0; i < array_len(parts); i++)
        if (parts[i].n)
            text = arena_printf(o->arena, "%.*s%s%.*s", STR_ARG(text), text.n ? "," : "",
                                STR_ARG(parts[i]));
    return text.n ? arena_printf(o->arena, "{%.*s}", STR_ARG(text)) : text;
}

static void put_sample(struct out *o, const char *family, enum family_kind kind, str labels,
                       double v)
{
    fprintf(o->f, "pemberley_%s%s%.*s", family, kind == FAMILY_C ? "_total" : "", STR_ARG(labels));
    put_number(o, v);
}

/* ---- from the pages -------------------------------------------------------------------------- */

/* The processes that a scope speaks of: shards first, then the store. */
static void processes_of(const struct super *s, enum family_scope scope, unsigned *first,
                         unsigned *end)
{
    *first = scope == FAMILY_STORE ? s->shards : 0;
    *end = scope == FAMILY_PROCESS || scope == FAMILY_STORE || scope == FAMILY_ALL
               ? s->process_count
               : s->shards;
}

static str process_label(struct out *o, const struct process *p, enum family_scope scope)
{
    switch (scope) {
    case FAMILY_SHARD: return arena_printf(o->arena, "shard=\"%u\"", p->index);
    case FAMILY_STORE: return arena_printf(o->arena, "index=\"%u\"", p->index);
    case FAMILY_PROCESS:
        return arena_printf(o->arena, "process=\"%s\",index=\"%u\"", process_name(p), p->index);
    default: return STR("");
    }
}

/* One number of the node, made of its processes'. */
static void put_whole(struct out *o, const struct family *f, enum metric m, str a, str b)
{
    const struct super *s = o->super;
    unsigned first, end;
    double sum = f->scope == FAMILY_ALL ? (double)metric_get(s->own, m) * f->scale : 0, most = 0;
    processes_of(s, f->scope, &first, &end);
    for (unsigned i = first; i < end; i++) {
        double v = (double)metric_get(s->process[i].page, m) * f->scale;
        sum += v;
        most = v > most ? v : most;
    }
    put_sample(o, f->name, f->kind, braces(o, a, b, STR("")),
               f->scope == FAMILY_WORST ? most : sum);
}

static void put_each(struct out *o, const struct family *f, enum metric m, str a, str b)
{
    const struct super *s = o->super;
    unsigned first, end;
    processes_of(s, f->scope, &first, &end);
    for (unsigned i = first; i < end; i++) {
        const struct process *p = &s->process[i];
        put_sample(o, f->name, f->kind, braces(o, a, b, process_label(o, p, f->scope)),
                   (double)metric_get(p->page, m) * f->scale);
    }
    if (f->scope == FAMILY_PROCESS)
        put_sample(o, f->name, f->kind, STR("{process=\"supervisor\",index=\"0\"}"),
                   (double)metric_get(s->own, m) * f->scale);
}

static void put_value(struct out *o, const struct family *f, enum metric m, str a, str b)
{
    bool each = f->scope == FAMILY_SHARD || f->scope == FAMILY_PROCESS || f->scope == FAMILY_STORE;
    if (each)
        put_each(o, f, m, a, b);
    else
        put_whole(o, f, m, a, b);
}

/* By the nodes' names, which have other places in each page. */
static void put_peers(struct out *o, const struct family *f)
{
    const struct super *s = o->super;
    for (unsigned name = 0; name < o->peers->n; name++) {
        double sum = 0, most = 0;
        for (unsigned i = 0; i < s->shards; i++)
            for (unsigned k = 0; k < METRIC_SIZE_PEER; k++) {
                if (o->peers->of[i][k] != name)
                    continue;
                double v = (double)metric_get(s->process[i].page, f->first + k) * f->scale;
                sum += v;
                most = v > most ? v : most;
            }
        str label = arena_printf(o->arena, "{peer=\"%s\"}", o->peers->name[name]);
        put_sample(o, f->name, f->kind, label, f->scope == FAMILY_WORST ? most : sum);
    }
}

static str first_label(struct out *o, const struct family *f, unsigned i)
{
    if (f->a == METRIC_SET_HOST)
        return arena_printf(o->arena, "host=\"%s\"", hosts_name(o->super->hosts, i));
    return f->labels[0] ? str_of(f->labels) : set_label(f->a, i, o->arena);
}

static void put_family(struct out *o, const struct family *f)
{
    if (f->a == METRIC_SET_PEER)
        return put_peers(o, f);
    unsigned width = set_size(f->b);
    unsigned n = f->a == METRIC_SET_HOST ? hosts_named(o->super->hosts) : set_size(f->a);
    for (unsigned i = 0; i < n; i++)
        for (unsigned j = 0; j < width; j++) {
            str a = first_label(o, f, i);
            put_value(o, f, f->first + i * width + j, a, set_label(f->b, j, o->arena));
        }
}

/* What only a node of a cluster has: on a single one it would be zero for ever, and an alert. */
static bool is_left_out(const struct out *o, const char *name)
{
    static const char *const of_clusters[] = {"cluster_", "bus_", "registry_"};
    for (size_t i = 0; !o->super->cluster.owner && i < array_len(of_clusters); i++)
        if (str_starts(str_of(name), str_of(of_clusters[i])))
            return true;
    return false;
}

/* Rows of one family stand together. */
static void put_families(struct out *o)
{
    for (unsigned i = 0; i < families_count; i++) {
        const struct family *f = &families[i];
        if (is_left_out(o, f->name))
            continue;
        if (i == 0 || !str_eq(str_of(f->name), str_of(families[i - 1].name)))
            put_head(o, f->name, f->kind, f->help);
        put_family(o, f);
    }
}

static void add_buckets(const struct metric_page *p, enum histogram h,
                        uint64_t fine[METRIC_HISTOGRAM_BUCKETS], uint64_t *sum)
{
    for (unsigned b = 0; b < METRIC_HISTOGRAM_BUCKETS; b++)
        fine[b] += atomic_load_explicit(&p->bucket[h][b], memory_order_relaxed);
    *sum += atomic_load_explicit(&p->sum[h], memory_order_relaxed);
}

static void put_buckets(struct out *o, const struct histogram_family *f, str label,
                        const uint64_t fine[METRIC_HISTOGRAM_BUCKETS], uint64_t sum)
{
    uint64_t seen = 0;
    unsigned b = 0;
    double scale = buckets[f->unit].scale;
    const char *comma = label.n ? "," : "";
    for (unsigned e = 0; e < buckets[f->unit].n; e++) {
        while (b < METRIC_HISTOGRAM_BUCKETS && metric_bucket_us(b) <= buckets[f->unit].edge[e])
            seen += fine[b++];
        fprintf(o->f, "pemberley_%s_bucket{%.*s%sle=\"%.10g\"} %llu\n", f->name, STR_ARG(label),
                comma, (double)buckets[f->unit].edge[e] * scale, (unsigned long long)seen);
    }
    while (b < METRIC_HISTOGRAM_BUCKETS)
        seen += fine[b++];
    fprintf(o->f, "pemberley_%s_bucket{%.*s%sle=\"+Inf\"} %llu\n", f->name, STR_ARG(label), comma,
            (unsigned long long)seen);
    str only = braces(o, label, STR(""), STR(""));
    fprintf(o->f, "pemberley_%s_sum%.*s %.6f\n", f->name, STR_ARG(only), (double)sum * scale);
    fprintf(o->f, "pemberley_%s_count%.*s %llu\n", f->name, STR_ARG(only),
            (unsigned long long)seen);
}

static void put_histogram(struct out *o, const struct histogram_family *f, unsigned label)
{
    const struct super *s = o->super;
    uint64_t fine[METRIC_HISTOGRAM_BUCKETS] = {0}, sum = 0;
    str name = set_label(f->set, label, o->arena);
    unsigned first, end;
    processes_of(s, f->scope, &first, &end);
    for (unsigned i = first; i < end; i++) {
        add_buckets(s->process[i].page, f->first + label, fine, &sum);
        if (f->scope == FAMILY_NODE)
            continue;
        put_buckets(o, f, process_label(o, &s->process[i], f->scope), fine, sum);
        memset(fine, 0, sizeof fine), sum = 0;
    }
    if (f->scope == FAMILY_NODE)
        put_buckets(o, f, name, fine, sum);
}

static void put_histograms(struct out *o)
{
    for (unsigned i = 0; i < histogram_families_count; i++) {
        const struct histogram_family *f = &histogram_families[i];
        if (is_left_out(o, f->name))
            continue;
        fprintf(o->f, "# HELP pemberley_%s %s\n# TYPE pemberley_%s histogram\n", f->name, f->help,
                f->name);
        for (unsigned label = 0; label < set_size(f->set); label++)
            put_histogram(o, f, label);
    }
}

/* ---- what the supervisor knows itself -------------------------------------------------------- */

static void put_own_head(struct out *o, enum own which)
{
    const struct own_family *f = &own_families[which];
    put_head(o, f->name, f->kind, f->help);
}

static void put_own_sample(struct out *o, enum own which, str labels, double v)
{
    put_sample(o, own_families[which].name, own_families[which].kind, labels, v);
}

/* A family of one sample. */
static void put_own(struct out *o, enum own which, const char *labels, double v)
{
    put_own_head(o, which);
    put_own_sample(o, which, str_of(labels), v);
}

/* A worker sits out the loss of its PostgreSQL. */
static bool store_is_up(const struct process *p)
{
    return p->state == PROCESS_UP && metric_get(p->page, METRIC_store_connections) > 0;
}

static void put_node(struct out *o)
{
    const struct super *s = o->super;
    put_own(o, OWN_build_info,
            "{version=\"" PEMBERLEY_VERSION "\",commit=\"" PEMBERLEY_COMMIT "\"}", 1);
    str info =
        arena_printf(o->arena, "{cluster=\"%s\",node=\"%s\",loop=\"%s\"}",
                     conf_text(s->conf, s->conf->cluster_name).p, s->node, s->process[0].loop);
    put_own(o, OWN_node_info, info.p, 1);
    int64_t up_ms = s->now_ms - s->started_ms;
    put_own(o, OWN_start_time_seconds, "",
            (double)(clock_wall_us((struct clock *)&s->clock) / 1000 - up_ms) / 1e3);
    put_own(o, OWN_node_ready, "", health_is_ready(s));
    put_own(o, OWN_node_draining, "", s->stopping || drain_is_on(s));
    put_own(o, OWN_node_degraded, "{what=\"store\"}",
            s->ready && !store_is_up(&s->process[s->shards]));
    if (!s->cluster.owner)
        return;
    put_own_sample(o, OWN_node_degraded, STR("{what=\"registry\"}"),
                   cluster_registry_away_s(s) > 0);
    put_own_sample(o, OWN_node_degraded, STR("{what=\"bus\"}"), cluster_bus_is_degraded(s));
    put_own(o, OWN_cluster_fenced, "", s->cluster.fenced || s->cluster.stalled_ms);
    put_own(o, OWN_cluster_certificate_not_after_timestamp_seconds, "",
            (double)s->cluster.identity_end_s);
}

static void put_config(struct out *o)
{
    const struct super *s = o->super;
    str hash = arena_printf(o->arena, "{hash=\"%08llx\"}", (unsigned long long)s->conf->hash >> 32);
    put_own(o, OWN_config_info, hash.p, 1);
    put_own(o, OWN_config_last_reload_successful, "", !s->reload_refused);
    put_own(o, OWN_config_last_reload_timestamp_seconds, "", (double)s->reload_s);
    put_own(o, OWN_config_restart_pending, "", s->restart_pending);
}

static void put_certificates(struct out *o)
{
    const struct super *s = o->super;
    put_own_head(o, OWN_tls_certificate_not_after_timestamp_seconds);
    for (unsigned i = 0; i < s->certificate_count && i < CERTIFICATES_SHOWN_MAX; i++)
        put_own_sample(o, OWN_tls_certificate_not_after_timestamp_seconds,
                       arena_printf(o->arena, "{host=\"%s\"}", s->certificates[i].host),
                       (double)s->certificates[i].end_s);
    put_own(o, OWN_tls_ticket_key_age_seconds, "",
            (double)tls_ticket_key_age_s(time(NULL), s->conf->tls_ticket_lifetime / 1000));
}

static void put_restarts(struct out *o)
{
    static const char *const reasons[DEATHS] = {"exit", "kill", "abort", "signal"};
    const struct super *s = o->super;
    put_own_head(o, OWN_process_restarts);
    for (unsigned i = 0; i < s->process_count; i++)
        for (unsigned k = 0; k < DEATHS; k++)
            put_own_sample(o, OWN_process_restarts,
                           braces(o, process_label(o, &s->process[i], FAMILY_PROCESS),
                                  arena_printf(o->arena, "reason=\"%s\"", reasons[k]), STR("")),
                           s->process[i].restarts_by[k]);
}

static void put_fds(struct out *o)
{
    const struct super *s = o->super;
    put_own_head(o, OWN_process_open_fds);
    for (unsigned i = 0; i < s->process_count; i++)
        put_own_sample(
            o, OWN_process_open_fds,
            braces(o, process_label(o, &s->process[i], FAMILY_PROCESS), STR(""), STR("")),
            s->process[i].open_fds);
    put_own_sample(o, OWN_process_open_fds, STR("{process=\"supervisor\",index=\"0\"}"),
                   s->own_fds);
    put_own(o, OWN_shared_memory_bytes, "", (double)process_shared_bytes(s));
}

static void put_processes(struct out *o)
{
    const struct super *s = o->super;
    put_own_head(o, OWN_process_up);
    for (unsigned i = 0; i < s->process_count; i++)
        put_own_sample(
            o, OWN_process_up,
            braces(o, process_label(o, &s->process[i], FAMILY_PROCESS), STR(""), STR("")),
            s->process[i].state == PROCESS_UP);
    put_restarts(o);
    put_fds(o);
    put_own_head(o, OWN_store_up);
    for (unsigned i = s->shards; i < s->process_count; i++)
        put_own_sample(o, OWN_store_up,
                       braces(o, process_label(o, &s->process[i], FAMILY_STORE), STR(""), STR("")),
                       store_is_up(&s->process[i]));
}

struct http_answer exposition(struct super *s, bool openmetrics, struct arena *a)
{
    char *text = NULL;
    size_t n = 0;
    struct out o = {open_memstream(&text, &n), openmetrics, s, a,
                    arena_alloc(a, sizeof(struct peers))};
    must(o.f);
    peers_collect(o.peers, s);
    int64_t began_us = super_clock_us();
    put_node(&o);
    put_config(&o);
    put_certificates(&o);
    put_processes(&o);
    put_families(&o);
    put_histograms(&o);
    put_own(&o, OWN_scrape_seconds, "", (double)(super_clock_us() - began_us) / 1e6);
    if (openmetrics)
        fputs("# EOF\n", o.f);
    must(fclose(o.f) == 0);
    str body = arena_dup(a, str_from(text, n));
    free(text);
    return (struct http_answer){200,
                                openmetrics
                                    ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
                                    : "text/plain; version=0.0.4; charset=utf-8",
                                body};
}
