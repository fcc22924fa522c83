/* What is counted, from the children's metrics pages, without asking them: the answer comes also
 * when a shard hangs. Rates are what happened in the last second, percentiles in the last ten to
 * twenty. */
#include <stdlib.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "node/super/inside.h"
#include "node/super/json.h"

void status_tick(struct super *s)
{
    metric_sample_process(s->own, &s->own_cpu_us);
    for (unsigned i = 0; i < s->process_count; i++) {
        struct process *p = &s->process[i];
        for (unsigned k = 0; k < METRIC_MAX; k++) {
            uint64_t now = metric_get(p->page, (enum metric)k);
            p->rate[k] = now > p->was[k] ? now - p->was[k] : 0;
            p->was[k] = now;
        }
    }
}

static void read_histogram(const struct process *p, uint64_t out[METRIC_HISTOGRAM_BUCKETS])
{
    bool shard = p->kind == CHILD_SHARD;
    unsigned first = shard ? HISTOGRAM_delivery : HISTOGRAM_store_commit;
    unsigned last = shard ? HISTOGRAM_delivery_LAST : HISTOGRAM_store_commit_LAST;
    memset(out, 0, METRIC_HISTOGRAM_BUCKETS * sizeof *out);
    for (unsigned h = first; h <= last; h++)
        for (unsigned b = 0; b < METRIC_HISTOGRAM_BUCKETS; b++)
            out[b] += atomic_load_explicit(&p->page->bucket[h][b], memory_order_relaxed);
}

static double sum_of(const struct super *s, enum metric first, enum metric last)
{
    double sum = 0;
    for (unsigned i = 0; i < s->shards; i++)
        for (unsigned k = first; k <= last; k++)
            sum += (double)metric_get(s->process[i].page, (enum metric)k);
    return sum;
}

static double node_rate(const struct super *s, enum metric first, enum metric last)
{
    double sum = 0;
    for (unsigned i = 0; i < s->shards; i++)
        sum += (double)status_rate(&s->process[i], first, last);
    return sum;
}

static double node_p99_s(const struct super *s)
{
    double worst = 0;
    for (unsigned i = 0; i < s->shards; i++) {
        double p99 = status_p99_s(&s->process[i]);
        worst = p99 > worst ? p99 : worst;
    }
    return worst;
}

/* What was dropped for want of something; what RFC 6121 has us drop is no loss. */
static double lost(const struct super *s)
{
    static const err reasons[] = {ERR_STANZA_INTERNAL_SERVER_ERROR, ERR_STANZA_STORE_AWAY,
                                  ERR_STANZA_DISK_FULL, ERR_STANZA_RESOURCE_CONSTRAINT};
    double sum = 0;
    for (unsigned i = 0; i < array_len(reasons); i++) {
        enum metric m = METRIC_AT(undelivered, FATE_DROPPED, METRIC_ERR(STANZA, reasons[i]));
        sum += sum_of(s, m, m);
    }
    return sum;
}

struct history status_now(const struct super *s)
{
    return (struct history){
        .sessions = sum_of(s, METRIC_sessions_connected, METRIC_sessions_connected),
        .detached = sum_of(s, METRIC_sessions_detached, METRIC_sessions_detached),
        .in_rate = node_rate(s, METRIC_stanzas_in, STANZAS_IN_LAST),
        .p99_ms = node_p99_s(s) * 1e3,
        .login_rate = node_rate(s, METRIC_logins, METRIC_logins_LAST),
        .dropped = lost(s),
    };
}

void status_rotate(struct super *s)
{
    s->history[s->history_n++ % HISTORY] = status_now(s);
    for (unsigned i = 0; i < s->process_count; i++) {
        struct process *p = &s->process[i];
        memcpy(p->latency_old, p->latency_new, sizeof p->latency_old);
        read_histogram(p, p->latency_new);
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

double status_p99_s(const struct process *p)
{
    uint64_t now[METRIC_HISTOGRAM_BUCKETS];
    read_histogram(p, now);
    return (double)status_percentile(p->latency_old, now, 0.99) / 1e6;
}

uint64_t status_rate(const struct process *p, enum metric first, enum metric last)
{
    uint64_t sum = 0;
    for (unsigned k = first; k <= last; k++)
        sum += p->rate[k];
    return sum;
}

static const char *state_name(const struct process *p)
{
    static const char *const names[] = {"down", "starting", "up"};
    return names[p->state];
}

static void put_process(const struct process *p, FILE *out)
{
    double connections = 0;
    for (unsigned k = METRIC_connections; k <= METRIC_connections_LAST; k++)
        connections += (double)metric_get(p->page, (enum metric)k);
    fprintf(out,
            "{\"process\":\"%s\",\"index\":%u,\"state\":\"%s\",\"pid\":%d,\"loop\":\"%s\","
            "\"sessions\":%llu,\"detached\":%llu,\"connections\":%.0f,",
            process_name(p), p->index, state_name(p), p->state == PROCESS_DOWN ? 0 : (int)p->pid,
            p->loop, (unsigned long long)metric_get(p->page, METRIC_sessions_connected),
            (unsigned long long)metric_get(p->page, METRIC_sessions_detached), connections);
    fprintf(out,
            "\"stanzas_in_rate\":%llu,\"stanzas_out_rate\":%llu,\"busy\":%.3f,"
            "\"p99_seconds\":%.6f,\"memory_bytes\":%llu,\"store_queue\":%llu,\"restarts\":%u}",
            (unsigned long long)status_rate(p, METRIC_stanzas_in, STANZAS_IN_LAST),
            (unsigned long long)status_rate(p, METRIC_stanzas_out, STANZAS_OUT_LAST),
            (double)p->rate[METRIC_loop_busy_us] / 1e6, status_p99_s(p),
            (unsigned long long)metric_get(p->page, METRIC_process_memory_bytes),
            (unsigned long long)metric_get(p->page, METRIC_store_queue), p->restarts);
}

const char *status_state(const struct super *s)
{
    if (s->stopping)
        return "stopping";
    if (!s->ready)
        return "starting";
    if (drain_is_on(s))
        return "draining";
    for (unsigned i = 0; i < s->process_count; i++)
        if (s->process[i].state != PROCESS_UP)
            return "degraded";
    return "ready";
}

uint64_t status_disk_free(const struct super *s)
{
    struct statvfs disk;
    str directory = conf_text(s->conf, s->conf->node_data_dir);
    return statvfs(directory.p, &disk) == 0 ? (uint64_t)disk.f_bavail * disk.f_frsize : 0;
}

static void put_node(struct super *s, FILE *out)
{
    struct history now = status_now(s);
    fprintf(out,
            "{\"v\":1,\"node\":\"%s\",\"version\":\"" PEMBERLEY_VERSION
            "\",\"supervisor_pid\":%d,\"state\":\"%s\",",
            s->node, (int)getpid(), status_state(s));
    fprintf(out, "\"drain_share\":%.3f,\"drain_eta_seconds\":%.1f,",
            drain_is_on(s) ? drain_share(s) : 0, drain_is_on(s) ? drain_eta_s(s) : 0);
    fprintf(out, "\"uptime_seconds\":%lld,\"config\":\"%08llx\",\"restart_pending\":%u,",
            (long long)(s->now_ms - s->started_ms) / 1000, (unsigned long long)s->conf->hash >> 32,
            s->restart_pending);
    fprintf(out, "\"shards\":%u,\"hosts\":%u,\"ready_seconds\":%.2f,\"disk_free_bytes\":%llu,",
            s->shards, s->conf->host_count, (double)s->ready_ms / 1e3,
            (unsigned long long)status_disk_free(s));
    fprintf(out, "\"certificates\":%u,\"certificate_first_end_seconds\":%lld,",
            s->certificate_count,
            s->certificate_count ? (long long)(s->certificates[0].end_s - time(NULL)) : 0ll);
    fprintf(out,
            "\"sessions\":%.0f,\"detached\":%.0f,\"stanzas_in_rate\":%.0f,\"p99_seconds\":%.6f,"
            "\"login_rate\":%.0f,\"dropped\":%.0f,",
            now.sessions, now.detached, now.in_rate, now.p99_ms / 1e3, now.login_rate, now.dropped);
}

static void put_cluster(const struct super *s, FILE *out)
{
    const struct cluster_state *k = &s->cluster;
    if (!k->owner) {
        fputs("\"cluster\":null,", out);
        return;
    }
    fputs("\"cluster\":{\"name\":", out);
    json_write(out, conf_text(s->conf, s->conf->cluster_name));
    fprintf(out,
            ",\"epoch\":%llu,\"live\":%llu,\"suspect\":%llu,\"joining\":%llu,"
            "\"draining\":%llu,\"slots\":%llu,\"weight\":%u,",
            (unsigned long long)cluster_epoch(s),
            (unsigned long long)cluster_nodes(s, MEMBERS_LIVE),
            (unsigned long long)cluster_nodes(s, MEMBERS_SUSPECT),
            (unsigned long long)cluster_nodes(s, MEMBERS_JOINING),
            (unsigned long long)cluster_nodes(s, MEMBERS_DRAINING),
            (unsigned long long)cluster_slots(s), k->weight);
    uint64_t up = cluster_rails(s, RAILS_UP);
    fprintf(out, "\"settled\":%s,\"rails\":%llu,\"rails_up\":%llu,",
            cluster_is_one(s) ? "true" : "false",
            (unsigned long long)(up + cluster_rails(s, RAILS_CONNECTING) +
                                 cluster_rails(s, RAILS_STALLED)),
            (unsigned long long)up);
    fprintf(out, "\"registry_away_seconds\":%lld,\"fenced\":%s},",
            (long long)cluster_registry_away_s(s), k->fenced ? "true" : "false");
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
    put_cluster(s, out);
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
