#include "node/super/page.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "node/os/recent.h"
#include "node/super/inside.h"

enum { CERTIFICATE_ENDING_S = 14 * 86400, DISK_LOW_BYTES = 1 << 30, EVENTS_SHOWN = 10 };

static const char html[] = {
#include "node/super/page.inc" /* page.html, by CMake */
    , 0};

/* ---- small things ---------------------------------------------------------------------------- */

/* Names come from the config; in HTML they are text. */
static void put_text(FILE *f, const char *z)
{
    for (; *z; z++) {
        if (*z == '<' || *z == '>' || *z == '&' || *z == '"')
            fprintf(f, "&#%d;", *z);
        else if ((unsigned char)*z < ' ' || *z == 0x7f)
            fputs("&#65533;", f);
        else
            fputc(*z, f);
    }
}

static void put_bytes(FILE *f, double n)
{
    static const char units[] = "BKMGT";
    unsigned u = 0;
    while (n >= 1024 && u < sizeof units - 2)
        n /= 1024, u++;
    fprintf(f, n < 10 && u ? "%.1f %c" : "%.0f %c", n, units[u]);
}

static void put_count(FILE *f, double n)
{
    char digits[32];
    int len = snprintf(digits, sizeof digits, "%.0f", n);
    for (int i = 0; i < len; i++) {
        fputc(digits[i], f);
        if (i + 1 < len && (len - i - 1) % 3 == 0)
            fputs("&thinsp;", f);
    }
}

static void put_duration(FILE *f, int64_t s)
{
    if (s >= 86400)
        fprintf(f, "%lldd %lldh", (long long)(s / 86400), (long long)(s / 3600 % 24));
    else if (s >= 3600)
        fprintf(f, "%lldh %lldm", (long long)(s / 3600), (long long)(s / 60 % 60));
    else
        fprintf(f, "%lldm %llds", (long long)(s / 60), (long long)(s % 60));
}

/* ---- tiles ----------------------------------------------------------------------------------- */

static double field_of(const struct history *h, unsigned field)
{
    const double all[] = {h->sessions, h->detached,   h->in_rate,
                          h->p99_ms,   h->login_rate, h->dropped};
    return all[field];
}

/* Ten minutes, oldest first, drawn between 0 and the highest. */
static void put_sparkline(FILE *f, const struct super *s, unsigned field)
{
    unsigned n = s->history_n < HISTORY ? s->history_n : HISTORY;
    double highest = 1;
    for (unsigned i = 0; i < n; i++) {
        double v = field_of(&s->history[i], field);
        highest = v > highest ? v : highest;
    }
    fprintf(f,
            "<svg viewBox=\"0 0 %d 20\" preserveAspectRatio=\"none\" aria-hidden=\"true\">"
            "<polyline points=\"",
            HISTORY - 1);
    for (unsigned i = 0; i < n; i++) {
        const struct history *h = &s->history[(s->history_n - n + i) % HISTORY];
        fprintf(f, "%u,%.1f ", HISTORY - n + i, 19 - 18 * field_of(h, field) / highest);
    }
    fputs("\"/></svg>", f);
}

static void put_tile(FILE *f, const struct super *s, const struct history *now, unsigned field,
                     const char *unit, const char *name)
{
    double v = field_of(now, field);
    fputs("<div class=\"tile\"><b>", f);
    if (field == 3)
        fprintf(f, v < 10 ? "%.1f" : "%.0f", v);
    else
        put_count(f, v);
    fprintf(f, "%s</b><span class=\"soft\">%s</span>", unit, name);
    put_sparkline(f, s, field);
    fputs("</div>\n", f);
}

static void put_tiles(FILE *f, const struct super *s)
{
    struct history now = status_now(s);
    fputs("<div class=\"tiles\">\n", f);
    put_tile(f, s, &now, 0, "", "sessions");
    put_tile(f, s, &now, 1, "", "detached");
    put_tile(f, s, &now, 2, " /s", "stanzas in");
    put_tile(f, s, &now, 3, " ms", "delivery p99");
    put_tile(f, s, &now, 4, " /s", "logins");
    put_tile(f, s, &now, 5, "", "dropped");
    fputs("</div>\n", f);
}

/* ---- tables ---------------------------------------------------------------------------------- */

static const char *state_of(const struct process *p)
{
    static const char *const names[] = {"down", "starting", "up"};
    return names[p->state];
}

static void put_head(FILE *f, const struct super *s)
{
    const char *state = status_state(s);
    char share[16] = "";
    if (drain_is_on(s))
        snprintf(share, sizeof share, " %.0f %%", drain_share(s) * 100);
    fputs("<header><h1>Pemberley</h1><span>node ", f);
    put_text(f, s->node);
    fprintf(f,
            "</span><span class=\"state %s\">%s%s</span><span class=\"soft\">" PEMBERLEY_VERSION
            " &middot; up ",
            state, state, share);
    put_duration(f, (s->now_ms - s->started_ms) / 1000);
    fprintf(f, " &middot; config %08llx</span></header>\n",
            (unsigned long long)s->conf->hash >> 32);
}

static void put_shard(FILE *f, const struct process *p)
{
    double busy = (double)status_rate(p, METRIC_loop_busy_us, METRIC_loop_busy_us) / 1e4;
    fprintf(f, "<tr><td data-name=\"shard\">%u</td><td data-name=\"state\" class=\"%s\">%s</td>",
            p->index, p->state == PROCESS_UP ? "good" : "bad", state_of(p));
    fputs("<td data-name=\"sessions\">", f);
    put_count(f, (double)(metric_get(p->page, METRIC_sessions_connected) +
                          metric_get(p->page, METRIC_sessions_detached)));
    fputs("</td><td data-name=\"in\">", f);
    put_count(f, (double)status_rate(p, METRIC_stanzas_in, STANZAS_IN_LAST));
    fputs(" /s</td><td data-name=\"out\">", f);
    put_count(f, (double)status_rate(p, METRIC_stanzas_out, STANZAS_OUT_LAST));
    fputs(" /s</td>", f);
    fprintf(f,
            "<td data-name=\"busy\"><meter max=\"100\" high=\"85\" value=\"%.0f\"></meter> %.0f %%"
            "</td><td data-name=\"p99\">%.1f ms</td><td data-name=\"memory\">",
            busy, busy, status_p99_s(p) * 1e3);
    put_bytes(f, (double)metric_get(p->page, METRIC_process_memory_bytes));
    fprintf(f, "</td><td data-name=\"restarts\">%u</td></tr>\n", p->restarts);
}

static void put_shards(FILE *f, const struct super *s)
{
    fputs("<section><table><thead><tr><th>Shard<th>state<th>sessions<th>in<th>out<th>busy<th>p99"
          "<th>memory<th>restarts</tr></thead><tbody>\n",
          f);
    for (unsigned i = 0; i < s->shards; i++)
        put_shard(f, &s->process[i]);
    fputs("</tbody></table></section>\n", f);
}

static void put_store(FILE *f, const struct super *s)
{
    const struct process *p = &s->process[s->shards];
    uint64_t queue = 0;
    for (unsigned i = 0; i < s->shards; i++)
        queue += metric_get(s->process[i].page, METRIC_store_queue);
    fprintf(f,
            "<section><b>Store</b> <span class=\"%s\">%s</span> &middot; %s &middot; queue %llu "
            "&middot; p99 %.1f ms &middot; database ",
            p->state == PROCESS_UP ? "good" : "bad", state_of(p), p->loop,
            (unsigned long long)queue, status_p99_s(p) * 1e3);
    put_bytes(f, (double)metric_get(p->page, METRIC_store_database_bytes));
    fputs(" &middot; disk ", f);
    put_bytes(f, (double)status_disk_free(s));
    fputs(" free</section>\n", f);
}

/* Who the nodes are, each one's `node list` says: the page names nobody. */
static void put_cluster(FILE *f, const struct super *s)
{
    static const char *const states[] = {"live", "suspect", "joining", "draining"};
    if (!s->cluster.owner)
        return;
    fputs("<section><b>Cluster</b> ", f);
    put_text(f, conf_text(s->conf, s->conf->cluster_name).p);
    fprintf(f, " &middot; epoch %llu%s", (unsigned long long)cluster_epoch(s),
            cluster_is_one(s) ? ", one view" : "");
    for (unsigned i = 0; i < array_len(states); i++) {
        uint64_t n = cluster_nodes(s, (enum metric_member)i);
        if (n)
            fprintf(f, " &middot; %llu %s", (unsigned long long)n, states[i]);
    }
    fputs(" &middot; ", f);
    put_count(f, (double)cluster_slots(s));
    fputs(" slots here &middot; registry ", f);
    bool away = cluster_registry_away_s(s) > 0, cut = cluster_bus_is_degraded(s);
    uint64_t up = cluster_rails(s, RAILS_UP);
    fprintf(f, "<span class=\"%s\">%s</span> &middot; <span class=\"%s\">rails %llu/%llu up</span>",
            away ? "bad" : "good", away ? "away" : "up", cut ? "bad" : "good",
            (unsigned long long)up,
            (unsigned long long)(up + cluster_rails(s, RAILS_CONNECTING) +
                                 cluster_rails(s, RAILS_STALLED)));
    fputs("</section>\n", f);
}

/* ---- what needs a look ----------------------------------------------------------------------- */

static unsigned put_certificates(FILE *f, const struct super *s)
{
    unsigned n = 0;
    time_t now = time(NULL);
    for (unsigned i = 0; i < s->certificate_count && n < 10; i++) {
        int64_t left = s->certificates[i].end_s - now;
        if (left >= CERTIFICATE_ENDING_S)
            break; /* the first to end stand first */
        fputs("<li>the certificate of ", f);
        put_text(f, s->certificates[i].host);
        fprintf(f, " %s %lld days%s</li>", left < 0 ? "ended" : "ends in",
                (long long)(left < 0 ? -left : left) / 86400, left < 0 ? " ago" : "");
        n++;
    }
    return n;
}

static unsigned put_processes(FILE *f, const struct super *s)
{
    unsigned n = 0;
    for (unsigned i = 0; i < s->process_count; i++) {
        const struct process *p = &s->process[i];
        if (p->state == PROCESS_UP)
            continue;
        fprintf(f, "<li>%s %u is %s</li>", process_name(p), p->index, state_of(p));
        n++;
    }
    return n;
}

static void put_attention(FILE *f, const struct super *s)
{
    fputs("<section class=\"attention\"><b>Attention</b><ul>", f);
    unsigned n = put_processes(f, s) + put_certificates(f, s);
    if (s->cluster.fenced)
        fputs("<li>fenced: this node has no part in the cluster</li>", f), n++;
    if (s->cluster.stalled_ms)
        fputs("<li>stalled: this node waits for the registry</li>", f), n++;
    if (s->cluster.owner && s->cluster.identity_end_s - time(NULL) < CERTIFICATE_ENDING_S)
        fputs("<li>the node's identity on the bus ends soon: pemberley cluster join-token</li>", f),
            n++;
    if (s->restart_pending)
        fprintf(f, "<li>%u changed options wait for a restart</li>", s->restart_pending), n++;
    if (s->reload_refused)
        fputs("<li>the last reload was refused: pemberley check-config says why</li>", f), n++;
    if (status_disk_free(s) < DISK_LOW_BYTES)
        fputs("<li>the disk is nearly full</li>", f), n++;
    fprintf(f, "%s</ul></section>\n", n ? "" : "<li class=\"soft\">nothing</li>");
}

/* The newest of all processes, newest first. */
struct events {
    struct shown {
        struct recent_event event;
        const struct process *process; /* NULL: the supervisor */
    } newest[EVENTS_SHOWN];
    unsigned n;
};

static void show_event(struct events *e, const struct shown *new)
{
    unsigned at = e->n;
    while (at > 0 && e->newest[at - 1].event.at_us < new->event.at_us)
        at--;
    if (at == EVENTS_SHOWN)
        return;
    unsigned behind = (e->n < EVENTS_SHOWN ? e->n : EVENTS_SHOWN - 1) - at;
    memmove(&e->newest[at + 1], &e->newest[at], behind * sizeof *new);
    e->newest[at] = *new;
    e->n += e->n < EVENTS_SHOWN;
}

static void gather_events(struct events *e, const struct metric_page *m, const struct process *p)
{
    struct shown new = {.process = p};
    for (unsigned i = 0; i < METRIC_RECENT; i++)
        if (recent_read(m, i, &new.event))
            show_event(e, &new);
}

static void put_event(FILE *f, const struct shown *s)
{
    time_t at = s->event.at_us / 1000000;
    struct tm tm;
    char text[32] = "";
    if (gmtime_r(&at, &tm))
        strftime(text, sizeof text, "%Y-%m-%d %H:%M:%SZ", &tm);
    fprintf(f, "<li><span class=\"soft\">%s</span> ", text);
    if (s->process)
        fprintf(f, "<span class=\"soft\">%s %u</span> ", process_name(s->process),
                s->process->index);
    bool error = log_event_level[s->event.event] == LOG_ERROR;
    fprintf(f, "<b class=\"%s\">%s</b>", error ? "bad" : "warn", log_event_names[s->event.event]);
    put_text(f, s->event.text);
    fputs("</li>\n", f);
}

static void put_events(FILE *f, const struct super *s)
{
    struct events e = {.n = 0};
    gather_events(&e, s->own, NULL);
    for (unsigned i = 0; i < s->process_count; i++)
        gather_events(&e, s->process[i].page, &s->process[i]);
    fputs("<section class=\"events\"><b>Last events</b><ul>", f);
    if (!e.n)
        fputs("<li class=\"soft\">none of level warn or above</li>", f);
    for (unsigned i = 0; i < e.n; i++)
        put_event(f, &e.newest[i]);
    fputs("</ul></section>\n", f);
}

static void put_live(FILE *f, const struct super *s)
{
    put_head(f, s);
    put_tiles(f, s);
    put_shards(f, s);
    put_store(f, s);
    put_cluster(f, s);
    put_attention(f, s);
    put_events(f, s);
}

struct http_answer page(const struct super *s, bool only_live, struct arena *a)
{
    static const char marker[] = "<!--live-->";
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    const char *hole = strstr(html, marker);
    must(f && hole);
    if (!only_live)
        fwrite(html, 1, (size_t)(hole - html), f);
    put_live(f, s);
    if (!only_live)
        fputs(hole + sizeof marker - 1, f);
    must(fclose(f) == 0);
    str body = arena_dup(a, str_from(text, n));
    free(text);
    return (struct http_answer){200, "text/html; charset=utf-8", body};
}
