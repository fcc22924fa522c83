#include "node/super/health.h"

#include "node/super/inside.h"

enum { STORE_SILENT_MS = 5000, CRASH_LOOP_MS = 60000, CHECKS_MAX = 8 };

struct check {
    char mark; /* + fine, ! degraded, - not ready */
    const char *name;
    str text;
};

static unsigned shards_up(const struct super *s)
{
    unsigned up = 0;
    for (unsigned i = 0; i < s->shards; i++)
        up += s->process[i].state == PROCESS_UP;
    return up;
}

static bool store_answers(const struct super *s)
{
    const struct process *p = &s->process[s->shards];
    return p->state == PROCESS_UP || s->now_ms - p->down_since_ms < STORE_SILENT_MS;
}

static bool gave_up(const struct super *s)
{
    for (unsigned i = 0; i < s->shards; i++)
        if (s->process[i].state != PROCESS_UP && s->ready &&
            s->now_ms - s->process[i].down_since_ms > CRASH_LOOP_MS)
            return true;
    return false;
}

static struct check cluster_check(const struct super *s, struct arena *a)
{
    if (s->cluster.fenced)
        return (struct check){'-', "cluster", STR("fenced")};
    if (s->cluster.stalled_ms)
        return (struct check){'-', "cluster", STR("stalled")};
    if (!s->ready)
        return (struct check){'-', "cluster", STR("joining")};
    return (struct check){'+', "cluster",
                          arena_printf(a, "epoch %llu", (unsigned long long)cluster_epoch(s))};
}

static size_t checks(const struct super *s, struct check *c, struct arena *a)
{
    unsigned up = shards_up(s);
    size_t n = 0;
    c[n++] = (struct check){s->ready ? '+' : '-', "listen", STR("")};
    c[n++] = (struct check){up == s->shards ? '+'
                            : up            ? '!'
                                            : '-',
                            "shards", arena_printf(a, "%u/%u", up, s->shards)};
    c[n++] = (struct check){store_answers(s) ? '+' : '-', "store", STR("")};
    if (s->cluster.owner)
        c[n++] = cluster_check(s, a);
    if (cluster_registry_away_s(s))
        c[n++] = (struct check){
            '!', "registry",
            arena_printf(a, "away %llds (degraded)", (long long)cluster_registry_away_s(s))};
    if (drain_is_on(s))
        c[n++] = (struct check){'-', "draining", arena_printf(a, "%.0f%%", drain_share(s) * 100)};
    if (s->stopping)
        c[n++] = (struct check){'-', "stopping", STR("")};
    must(n <= CHECKS_MAX);
    return n;
}

bool health_is_ready(const struct super *s)
{
    return s->ready && !s->cluster.fenced && !s->cluster.stalled_ms && shards_up(s) &&
           store_answers(s) && !s->stopping && !drain_is_on(s);
}

static struct http_answer answer(bool good, const char *word, const struct check *c, size_t n,
                                 bool json, struct arena *a)
{
    str body =
        json ? arena_printf(a, "{\"v\":1,\"%s\":%s,\"checks\":[", word, good ? "true" : "false")
             : arena_printf(a, "%s%s\n", good ? "" : "not ", word);
    for (size_t i = 0; i < n; i++) {
        str line = json ? arena_printf(a, "%s{\"name\":\"%s\",\"state\":\"%s\",\"text\":\"%.*s\"}",
                                       i ? "," : "", c[i].name,
                                       c[i].mark == '+'   ? "ok"
                                       : c[i].mark == '!' ? "degraded"
                                                          : "failed",
                                       STR_ARG(c[i].text))
                        : arena_printf(a, "[%c]%s%s%.*s\n", c[i].mark, c[i].name,
                                       c[i].text.n ? " " : "", STR_ARG(c[i].text));
        body = arena_concat(a, (str[]){body, line}, 2);
    }
    if (json)
        body = arena_concat(a, (str[]){body, STR("]}")}, 2);
    return (struct http_answer){good ? 200 : 503,
                                json ? "application/json" : "text/plain; charset=utf-8", body};
}

struct http_answer health_live(struct super *s, bool json, struct arena *a)
{
    return answer(!gave_up(s), "live", NULL, 0, json, a);
}

struct http_answer health_ready(struct super *s, bool json, struct arena *a)
{
    struct check c[CHECKS_MAX];
    size_t n = checks(s, c, a);
    return answer(health_is_ready(s), "ready", c, n, json, a);
}
