/* Commands about the node: status, reload, stop. */
#include <unistd.h>

#include "node/super/cli.h"
#include "node/super/json.h"
#include "node/super/table.h"

static str upper(struct arena *a, str s)
{
    char *p = (char *)(uintptr_t)arena_dup(a, s).p;
    for (size_t i = 0; i < s.n; i++)
        if (p[i] >= 'a' && p[i] <= 'z')
            p[i] = (char)(p[i] - 0x20);
    return (str){p, s.n};
}

static void add_shard(struct table *t, const struct json *j)
{
    struct arena *a = t->arena;
    table_add(t, json_text(j, "index"));
    table_add(t, json_text(j, "state"));
    table_add(t, json_text(j, "sessions"));
    table_add(t, json_text(j, "detached"));
    table_add(t, json_text(j, "stanzas_in_rate"));
    table_add(t, json_text(j, "stanzas_out_rate"));
    table_add(t, arena_printf(a, "%.0f %%", json_number(j, "busy") * 100));
    table_add(t, format_latency(a, json_number(j, "p99_seconds")));
    table_add(t, format_bytes(a, json_number(j, "memory_bytes")));
    table_add(t, json_text(j, "restarts"));
}

static void print_store(const struct json *root, const struct json *store, double queue,
                        struct arena *a, FILE *out)
{
    fprintf(out, "store  %.*s  %.*s  queue %.0f  p99 %.*s  disk %.*s free",
            STR_ARG(json_text(store, "state")), STR_ARG(json_text(store, "loop")), queue,
            STR_ARG(format_latency(a, json_number(store, "p99_seconds"))),
            STR_ARG(format_bytes(a, json_number(root, "disk_free_bytes"))));
    double end = json_number(root, "certificate_first_end_seconds");
    fprintf(out, "        certificates %.*s, first ends in %.0fd\n",
            STR_ARG(json_text(root, "certificates")), end / 86400);
    if (json_number(root, "restart_pending") > 0)
        fprintf(out, "%.0f changed option(s) wait for a restart: pemberley reload lists them\n",
                json_number(root, "restart_pending"));
}

static void print_status(const struct json *root, struct arena *a, FILE *out)
{
    static const char *const heads[] = {"SHARD",  "STATE", ">SESSIONS", ">DETACHED", ">IN/s",
                                        ">OUT/s", ">BUSY", ">P99",      ">MEMORY",   ">RESTARTS"};
    const struct json *items = json_get(root, "items"), *store = NULL;
    struct table t;
    double queue = 0;
    table_init(&t, a, heads, array_len(heads));
    fprintf(out, "node %.*s   %.*s   up %.*s   %.*s   config %.*s   cluster: none (single node)\n",
            STR_ARG(json_text(root, "node")), STR_ARG(json_text(root, "version")),
            STR_ARG(format_duration(a, (int64_t)json_number(root, "uptime_seconds"))),
            STR_ARG(upper(a, json_text(root, "state"))), STR_ARG(json_text(root, "config")));
    for (const struct json *j = items ? items->first : NULL; j; j = j->next) {
        queue += json_number(j, "store_queue");
        if (str_is(json_text(j, "process"), "store"))
            store = j;
        else
            add_shard(&t, j);
    }
    table_print(&t, out);
    print_store(root, store, queue, a, out);
}

static int status_once(struct cli *c)
{
    const str argv[] = {STR("status")};
    str text;
    bool shown;
    int exit = cli_ask_shown(c, 1, argv, &text, &shown);
    if (shown)
        return exit;
    const struct json *root = json_parse(text, &c->arena);
    if (!root)
        return cli_fail(EXIT_FAILED, "the node's answer cannot be read");
    if (c->watch && isatty(STDOUT_FILENO))
        fputs("\033[H\033[J", stdout);
    print_status(root, &c->arena, stdout);
    return exit;
}

int cli_status(struct cli *c)
{
    int exit = status_once(c);
    while (c->watch && exit == EXIT_DONE) {
        fflush(stdout);
        sleep(1);
        exit = status_once(c);
    }
    return exit;
}

static void print_changes(const struct cli *c, const struct json *root, const char *key,
                          const char *words, const char *before)
{
    const struct json *list = json_get(root, key);
    unsigned n = 0;
    for (const struct json *j = list ? list->first : NULL; j; j = j->next)
        n++;
    cli_say(c, "%s%s: %u", before, words, n);
    for (const struct json *j = list ? list->first : NULL; j; j = j->next)
        cli_say(c, "%s%.*s %.*s → %.*s%s", j == list->first ? " (" : ", ",
                STR_ARG(json_text(j, "option")), STR_ARG(json_text(j, "from")),
                STR_ARG(json_text(j, "to")), j->next ? "" : ")");
}

int cli_reload(struct cli *c)
{
    const str argv[] = {STR("reload")};
    str text;
    bool shown;
    int exit = cli_ask_shown(c, 1, argv, &text, &shown);
    if (shown)
        return exit;
    const struct json *root = json_parse(text, &c->arena);
    print_changes(c, root, "live", "changed live", "");
    print_changes(c, root, "new", "new connections", " · ");
    print_changes(c, root, "restart", "restart needed", " · ");
    cli_say(c, "\n");
    return exit;
}

int cli_stop(struct cli *c)
{
    const str argv[] = {STR("stop"), STR("now")};
    str text;
    bool shown;
    if (c->timeout_ms < 60000)
        c->timeout_ms = 11 * 60000; /* node.stop_timeout is ten minutes at most */
    int exit = cli_ask_shown(c, c->now ? 2 : 1, argv, &text, &shown);
    if (shown)
        return exit;
    const struct json *root = json_parse(text, &c->arena);
    cli_say(c, "told %.0f sessions, flushed %.0f stanzas, stopped in %.1f s\n",
            json_number(root, "sessions"), json_number(root, "flushed"),
            json_number(root, "seconds"));
    return exit;
}
