/* What is counted, from the children's metrics pages, without asking them: the answer comes also when
 * a shard hangs. Rates are what happened in the last second, percentiles in the last ten to twenty. */
#include <stdlib.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "node/super/inside.h"
#include "node/super/json.h"

static uint64_t metric_get(const struct process *p, enum metric k)
{
    return atomic_load_explicit(&p->page->value[k], memory_order_relaxed);
}

void status_tick(struct super *s)
{
    for (unsigned i = 0; i < s->process_count; i++) {
        struct process *p = &s->process[i];
        for (unsigned k = 0; k < METRIC_MAX; k++) {
            uint64_t now = metric_get(p, (enum metric)k);
            p->rate[k] = now > p->was[k] ? now - p->was[k] : 0;
            p->was[k] = now;
        }
    }
}

static void read_histogram(const struct process *p, uint64_t out[METRIC_HISTOGRAM_BUCKETS])
{
    for (unsigned b = 0; b < METRIC_HISTOGRAM_BUCKETS; b++)
        out[b] = atomic_load_explicit(&p->page->bucket[HISTOGRAM_delivery][b], memory_order_relaxed);
}

void status_rotate(struct super *s)
{
    for (unsigned i = 0; i < s->process_count; i++) {
        struct process *p = &s->process[i];
        memcpy(p->delivery_old, p->delivery_new, sizeof p->delivery_old);
        read_histogram(p, p->delivery_new);
    }
}

uint64_t status_percentile(const uint64_t old[METRIC_HISTOGRAM_BUCKETS],
                           const uint64_t now[METRIC_HISTOGRAM_BUCKETS], double p)
{
    uint64_t total = 0, seen = 0;
    for (unsigned b = 0; b < METRIC_HISTOGRAM_BUCKETS; b++)
        total += now[b] - old[b];
    for (unsigned b = 0; b < METRIC_HISTOGRAM_BUCKETS && total; b++) {
        seen += now[b] - old[b];
        if ((double)seen >= p * (double)total)
            return metric_bucket_us(b);
    }
    return 0;
}

static const char *state_name(const struct process *p)
{
    static const char *const names[] = {"down", "starting", "up"};
    return names[p->state];
}

static void put_process(const struct process *p, FILE *out)
{
    uint64_t histogram[METRIC_HISTOGRAM_BUCKETS];
    read_histogram(p, histogram);
    fprintf(out,
            "{\"process\":\"%s\",\"index\":%u,\"state\":\"%s\",\"pid\":%d,\"loop\":\"%s\","
            "\"sessions\":%llu,\"detached\":%llu,\"connections\":%llu,",
            process_name(p), p->index, state_name(p), p->state == PROCESS_DOWN ? 0 : (int)p->pid,
            p->loop, (unsigned long long)metric_get(p, METRIC_sessions_connected),
            (unsigned long long)metric_get(p, METRIC_sessions_detached),
            (unsigned long long)metric_get(p, METRIC_connections));
    fprintf(out,
            "\"stanzas_in_rate\":%llu,\"stanzas_out_rate\":%llu,\"busy\":%.3f,"
            "\"p99_seconds\":%.6f,\"memory_bytes\":%llu,\"store_queue\":%llu,\"restarts\":%u}",
            (unsigned long long)p->rate[METRIC_stanzas_in],
            (unsigned long long)p->rate[METRIC_stanzas_out],
            (double)p->rate[METRIC_loop_busy_us] / 1e6,
            (double)status_percentile(p->delivery_old, histogram, 0.99) / 1e6,
            (unsigned long long)metric_get(p, METRIC_process_memory_bytes),
            (unsigned long long)metric_get(p, METRIC_store_queue), p->restarts);
}

static const char *node_state(struct super *s)
{
    if (s->stopping)
        return "stopping";
    if (!s->ready)
        return "starting";
    for (unsigned i = 0; i < s->process_count; i++)
        if (s->process[i].state != PROCESS_UP)
            return "degraded";
    return "ready";
}

static void put_node(struct super *s, FILE *out)
{
    struct statvfs disk;
    str directory = conf_text(s->conf, s->conf->node_data_dir);
    bool known = statvfs(directory.p, &disk) == 0;
    fprintf(out,
            "{\"v\":1,\"node\":\"%s\",\"version\":\"" PEMBERLEY_VERSION
            "\",\"supervisor_pid\":%d,\"state\":\"%s\",",
            s->node, (int)getpid(), node_state(s));
    fprintf(out, "\"uptime_seconds\":%lld,\"config\":\"%08llx\",\"restart_pending\":%u,",
            (long long)(s->now_ms - s->started_ms) / 1000, (unsigned long long)s->conf->hash >> 32,
            s->restart_pending);
    fprintf(out, "\"shards\":%u,\"hosts\":%u,\"ready_seconds\":%.2f,\"disk_free_bytes\":%llu,",
            s->shards, s->conf->host_count, (double)s->ready_ms / 1e3,
            known ? (unsigned long long)disk.f_bavail * disk.f_frsize : 0ull);
    fprintf(out, "\"certificates\":%u,\"certificate_first_end_seconds\":%lld,",
            s->certificate_count, (long long)(s->certificate_first_end_s - time(NULL)));
}

static void put_listener(FILE *out, bool first, const char *kind, str address)
{
    fprintf(out, "%s{\"kind\":\"%s\",\"address\":", first ? "" : ",", kind);
    json_write(out, address);
    fputs("}", out);
}

static void put_listeners(const struct super *s, FILE *out)
{
    struct conf_list pages = s->conf->listen_metrics_address;
    fputs("\"listeners\":[", out);
    for (unsigned i = 0; i < s->listener_count; i++)
        put_listener(out, i == 0, s->listener[i].kind == CHILD_C2S ? "c2s" : "c2s_tls",
                     s->listener[i].address);
    for (uint32_t i = 0; i < pages.count; i++)
        put_listener(out, i + s->listener_count == 0, "metrics", conf_list_at(s->conf, pages, i));
    fputs("],\"items\":[", out);
}

str status_json(struct super *s, struct arena *a)
{
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    must(out);
    put_node(s, out);
    put_listeners(s, out);
    for (unsigned i = 0; i < s->process_count; i++) {
        fputs(i ? "," : "", out);
        put_process(&s->process[i], out);
    }
    fputs("]}", out);
    must(fclose(out) == 0);
    str copy = arena_dup(a, str_from(text, n));
    free(text);
    return copy;
}
