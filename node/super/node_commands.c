/* Commands about the node: status, reload, drain, stop. */
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

static str cluster_words(const struct json *k, struct arena *a)
{
    if (!k || k->kind != JSON_OBJECT)
        return STR("none (single node)");
    const char *fenced = str_is(json_text(k, "fenced"), "true") ? ", FENCED" : "";
    return arena_printf(a, "%.*s%s", STR_ARG(json_text(k, "name")), fenced);
}

static str nodes_words(const struct json *k, struct arena *a)
{
    static const char *const states[] = {"live", "suspect", "joining", "draining"};
    str text = STR("");
    double all = 0;
    for (size_t i = 0; i < array_len(states); i++) {
        double n = json_number(k, states[i]);
        all += n;
        if (n > 0)
            text =
                arena_printf(a, "%.*s%s%.0f %s", STR_ARG(text), text.n ? ", " : "", n, states[i]);
    }
    if (str_is(json_text(k, "settled"), "true") && all == json_number(k, "live"))
        return arena_printf(a, "one view on %s%.0f node%s", all > 1 ? "all " : "", all,
                            all > 1 ? "s" : "");
    return text;
}

static void print_cluster(const struct json *k, struct arena *a, FILE *out)
{
    if (!k || k->kind != JSON_OBJECT)
        return;
    double away = json_number(k, "registry_away_seconds");
    fprintf(out, "cluster  epoch %.*s, %.*s, %.*s slots here", STR_ARG(json_text(k, "epoch")),
            STR_ARG(nodes_words(k, a)), STR_ARG(json_text(k, "slots")));
    if (away > 0)
        fprintf(out, ", registry away %.0fs", away);
    else
        fputs(", registry ok", out);
    fprintf(out, ", rails %.*s/%.*s up\n", STR_ARG(json_text(k, "rails_up")),
            STR_ARG(json_text(k, "rails")));
}

static void print_status(const struct json *root, struct arena *a, FILE *out)
{
    static const char *const heads[] = {"SHARD",  "STATE", ">SESSIONS", ">DETACHED", ">IN/s",
                                        ">OUT/s", ">BUSY", ">P99",      ">MEMORY",   ">RESTARTS"};
    const struct json *items = json_get(root, "items"), *store = NULL;
    struct table t;
    double queue = 0;
    table_init(&t, a, heads, array_len(heads));
    str state = upper(a, json_text(root, "state"));
    if (str_is(state, "DRAINING"))
        state = arena_printf(a, "DRAINING %.0f %%", json_number(root, "drain_share") * 100);
    fprintf(out, "node %.*s   %.*s   up %.*s   %.*s   config %.*s   cluster: %.*s\n",
            STR_ARG(json_text(root, "node")), STR_ARG(json_text(root, "version")),
            STR_ARG(format_duration(a, (int64_t)json_number(root, "uptime_seconds"))),
            STR_ARG(state), STR_ARG(json_text(root, "config")),
            STR_ARG(cluster_words(json_get(root, "cluster"), a)));
    for (const struct json *j = items ? items->first : NULL; j; j = j->next) {
        queue += json_number(j, "store_queue");
        if (str_is(json_text(j, "process"), "store"))
            store = j;
        else
            add_shard(&t, j);
    }
    table_print(&t, out);
    print_store(root, store, queue, a, out);
    print_cluster(json_get(root, "cluster"), a, out);
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

/* On a terminal one line that changes; elsewhere a line per phase and tenth. */
void cli_show_drain(struct cli *c, str text)
{
    const struct json *root = json_parse(text, &c->arena);
    bool grace = str_is(json_text(root, "phase"), "grace"), tty = isatty(STDOUT_FILENO);
    bool move = str_is(json_text(root, "phase"), "move");
    int tenths = grace ? -1 : move ? -2 : (int)(json_number(root, "share") * 10);
    if (c->json || (!tty && tenths == c->shown_tenths))
        return;
    c->shown_tenths = tenths;
    cli_say(c, "%sdraining: %.0f of %.0f sessions left, %.0f %%, ", tty ? "\r\033[K" : "",
            json_number(root, "left"), json_number(root, "sessions"),
            json_number(root, "share") * 100);
    if (grace)
        cli_say(c, "accepting for %.0f s more", json_number(root, "grace_seconds"));
    else if (move)
        cli_say(c, "%.0f slots go to other nodes first", json_number(root, "slots"));
    else
        cli_say(c, "about %.0f s left", json_number(root, "eta_seconds"));
    cli_say(c, tty ? "" : "\n");
    fflush(stdout);
}

static int cancel_drain(struct cli *c)
{
    const str argv[] = {STR("drain"), STR("cancel")};
    str text;
    bool shown;
    int exit = cli_ask_shown(c, 2, argv, &text, &shown);
    if (!shown)
        cli_say(c, "the node serves again\n");
    return exit;
}

size_t cli_drain_words(struct cli *c, str *argv, size_t n)
{
    if (c->rate)
        argv[n++] = STR("rate"), argv[n++] = str_of(c->rate);
    if (c->timeout) /* that of the drain; progress comes twice a second */
        argv[n++] = STR("timeout"), argv[n++] = str_of(c->timeout), c->timeout_ms = 10000;
    c->shown_tenths = -3;
    c->on_progress = cli_show_drain;
    return n;
}

int cli_drained(struct cli *c, str text)
{
    const struct json *root = json_parse(text, &c->arena);
    double at_once = json_number(root, "at_once"), all = json_number(root, "sessions");
    double seconds = json_number(root, "seconds");
    if (c->json)
        printf("%.*s\n", STR_ARG(text));
    else if (at_once == 0)
        cli_say(c, "%sdrained: %.0f sessions in %.1f s\n", isatty(STDOUT_FILENO) ? "\r\033[K" : "",
                all, seconds);
    if (at_once == 0)
        return EXIT_DONE;
    return cli_fail(EXIT_TIMEOUT,
                    "the time was over after %.1f s: %.0f of %.0f sessions were let go at once",
                    seconds, at_once, all);
}

int cli_drain(struct cli *c)
{
    str argv[5] = {STR("drain")}, text;
    if (c->cancel)
        return cancel_drain(c);
    int exit = cli_ask(c, cli_drain_words(c, argv, 1), argv, &text);
    return exit ? cli_fail(exit, "%.*s", STR_ARG(text)) : cli_drained(c, text);
}

/* Who ends the last node ends the service. */
static int confirm_last(struct cli *c)
{
    const str argv[] = {STR("status")};
    str text;
    const struct json *root =
        cli_ask(c, 1, argv, &text) == EXIT_DONE ? json_parse(text, &c->arena) : NULL;
    const struct json *k = json_get(root, "cluster");
    if (!k || k->kind != JSON_OBJECT || c->yes ||
        json_number(k, "live") + json_number(k, "suspect") + json_number(k, "draining") != 1)
        return EXIT_DONE;
    return cli_confirm(c, json_text(root, "node"),
                       "this is the last live node of the cluster: nobody could log in any more");
}

int cli_stop(struct cli *c)
{
    const str argv[] = {STR("stop"), STR("now")};
    str text;
    bool shown;
    int exit = confirm_last(c);
    if (exit)
        return exit;
    if (c->timeout_ms < 60000)
        c->timeout_ms = 11 * 60000; /* node.stop_timeout is ten minutes at most */
    exit = cli_ask_shown(c, c->now ? 2 : 1, argv, &text, &shown);
    if (shown)
        return exit;
    const struct json *root = json_parse(text, &c->arena);
    cli_say(c, "told %.0f sessions, flushed %.0f stanzas, stopped in %.1f s\n",
            json_number(root, "sessions"), json_number(root, "flushed"),
            json_number(root, "seconds"));
    return exit;
}
