/* Commands about the nodes of a cluster (operator.md 3): any node can be asked about any other.
 * What they answer is the clerk's JSON (child.h). */
#include <poll.h>
#include <stdlib.h>

#include "node/super/cli.h"
#include "node/super/json.h"
#include "node/super/table.h"

enum { LOOK_MS = 500 };

static int unreadable(void) { return cli_fail(EXIT_FAILED, "the node's answer cannot be read"); }

/* A member's number by this, or "-" where it is not known. */
static str cell(struct arena *a, const struct json *j, const char *key,
                str (*format)(struct arena *a, double v))
{
    return json_get(j, key) ? format(a, json_number(j, key)) : STR("-");
}

static str as_count(struct arena *a, double v) { return arena_printf(a, "%.0f", v); }
static str as_age(struct arena *a, double v) { return format_duration(a, (int64_t)v); }
static str as_seconds(struct arena *a, double v) { return arena_printf(a, "%.1fs", v); }

/* ---- list, show ------------------------------------------------------------------------------ */

static str drain_of(struct arena *a, const struct json *j)
{
    if (!json_get(j, "drain_share"))
        return STR("");
    return arena_printf(a, "drain %.0f %%, about %.0f s left", json_number(j, "drain_share") * 100,
                        json_number(j, "drain_eta_seconds"));
}

static void add_node(struct table *t, const struct json *j)
{
    struct arena *a = t->arena;
    str version = json_text(j, "version");
    bool self = str_is(json_text(j, "self"), "true");
    table_add(t, arena_printf(a, "%.*s%s", STR_ARG(json_text(j, "name")), self ? " *" : ""));
    table_add(t, json_text(j, "state"));
    table_add(t, version.n ? version : STR("-"));
    table_add(t, json_text(j, "address"));
    table_add(t, json_text(j, "shards"));
    table_add(t, json_text(j, "weight"));
    table_add(t, json_text(j, "slots"));
    table_add(t, cell(a, j, "sessions", as_count));
    table_add(t, cell(a, j, "lease_seconds", as_seconds));
    table_add(t, cell(a, j, "rtt_seconds", format_latency));
    table_add(t, cell(a, j, "up_seconds", as_age));
    if (t->columns == TABLE_COLUMNS_MAX)
        table_add(t, drain_of(a, j));
}

/* "epoch 41, one view on all 3 nodes, registry ok, slots 16384/16384 owned" */
static void print_view(struct cli *c, const struct json *root)
{
    const struct json *items = json_get(root, "items");
    double epoch = json_number(root, "epoch");
    unsigned nodes = 0, agree = 0;
    for (const struct json *j = items->first; j; j = j->next) {
        nodes++;
        agree += json_number(j, "epoch") == epoch;
    }
    cli_say(c, "epoch %.0f, ", epoch);
    if (agree == nodes)
        cli_say(c, "one view on %s%u node%s, ", nodes > 1 ? "all " : "", nodes,
                nodes > 1 ? "s" : "");
    else
        cli_say(c, "%u of %u nodes go by it, ", agree, nodes);
    cli_say(c, "registry %s%s, slots %.0f/16384 owned%s\n",
            str_is(json_text(root, "registry"), "true") ? "ok" : "away",
            str_is(json_text(root, "stalled"), "true")  ? " (this node waits for it)"
            : str_is(json_text(root, "frozen"), "true") ? " (membership is frozen)"
                                                        : "",
            json_number(root, "slots"),
            str_is(json_text(root, "settled"), "true") ? "" : ", not settled yet");
}

static bool any_drains(const struct json *items)
{
    for (const struct json *j = items->first; j; j = j->next)
        if (json_get(j, "drain_share"))
            return true;
    return false;
}

/* What the options that are to be alike say (operator.md 2); nodes that differ, or the version. */
static void print_differences(struct cli *c, const struct json *items)
{
    static const char *const keys[] = {"config", "version"};
    static const char *const words[] = {"options that must be alike differ between the nodes",
                                        "versions differ"};
    for (size_t i = 0; i < array_len(keys); i++) {
        str first = STR("");
        bool differ = false;
        for (const struct json *j = items->first; j; j = j->next) {
            str v = json_text(j, keys[i]);
            differ |= v.n && first.n && !str_eq(v, first);
            first = first.n ? first : v;
        }
        if (differ)
            cli_say(c, "warning: %s\n", words[i]);
    }
}

/* node-list's answer; NULL: it is shown already, and *exit is what is left to return. */
static const struct json *ask_list(struct cli *c, bool show_json, int *exit)
{
    const str argv[] = {STR("node-list")};
    str text;
    *exit = cli_ask(c, 1, argv, &text);
    if (*exit) {
        cli_fail(*exit, "%.*s", STR_ARG(text));
        return NULL;
    }
    const struct json *root = json_parse(text, &c->arena);
    if (!json_get(root, "items")) {
        *exit = unreadable();
        return NULL;
    }
    if (!show_json)
        return root;
    printf("%.*s\n", STR_ARG(text));
    return NULL;
}

int cli_node_list(struct cli *c)
{
    static const char *const heads[TABLE_COLUMNS_MAX] = {
        "NODE",   "STATE",     "VERSION", "ADDRESS", ">SHARDS", ">WEIGHT",
        ">SLOTS", ">SESSIONS", ">LEASE",  ">RTT",    ">UP",     ""};
    int exit;
    struct table t;
    const struct json *root = ask_list(c, c->json, &exit);
    if (!root)
        return exit;
    const struct json *items = json_get(root, "items");
    table_init(&t, &c->arena, heads, any_drains(items) ? TABLE_COLUMNS_MAX : TABLE_COLUMNS_MAX - 1);
    for (const struct json *j = items->first; j; j = j->next)
        add_node(&t, j);
    table_print(&t, stdout);
    print_view(c, root);
    print_differences(c, items);
    return EXIT_DONE;
}

static int take_node(struct cli *c, str *name)
{
    *name = str_of(c->argc ? c->argv[0] : "");
    return name->n ? EXIT_DONE : cli_fail(EXIT_USAGE, "the name of a node is wanted");
}

static const struct json *find(const struct json *root, str name)
{
    for (const struct json *j = json_get(root, "items")->first; j; j = j->next)
        if (str_eq(json_text(j, "name"), name))
            return j;
    return NULL;
}

/* Fractions come with all the digits that a double has. */
static str short_number(struct arena *a, const struct json *j)
{
    if (j->kind != JSON_NUMBER || !memchr(j->text.p, '.', j->text.n))
        return j->text;
    return arena_printf(a, "%.6g", strtod(arena_dup(a, j->text).p, NULL));
}

int cli_node_show(struct cli *c)
{
    str name;
    int exit = take_node(c, &name);
    const struct json *root = exit ? NULL : ask_list(c, false, &exit);
    if (!root)
        return exit;
    const struct json *node = find(root, name);
    if (!node)
        return cli_fail(EXIT_NOT_FOUND, "no node %.*s in this cluster. See: pemberley node list",
                        STR_ARG(name));
    if (c->json)
        printf("{\"v\":1,\"node\":\"%.*s\"", STR_ARG(json_text(root, "node")));
    for (const struct json *j = node->first; j; j = j->next) {
        if (!c->json) {
            printf("%-18.*s %.*s\n", STR_ARG(j->key), STR_ARG(short_number(&c->arena, j)));
            continue;
        }
        printf(",\"%.*s\":", STR_ARG(j->key));
        if (j->kind == JSON_STRING)
            json_write(stdout, j->text);
        else
            printf("%.*s", STR_ARG(j->text));
    }
    if (c->json)
        puts("}");
    return EXIT_DONE;
}

/* ---- ring ------------------------------------------------------------------------------------ */

static int print_slot(struct cli *c, const struct json *root)
{
    str successor = json_text(root, "successor");
    cli_say(c, "slot %.*s: home %.*s, %s%.*s, since epoch %.*s\n", STR_ARG(json_text(root, "slot")),
            STR_ARG(json_text(root, "home")), successor.n ? "successor " : "no successor",
            STR_ARG(successor), STR_ARG(json_text(root, "since")));
    return EXIT_DONE;
}

static int print_ring(struct cli *c, const struct json *root)
{
    static const char *const heads[] = {"NODE", ">SHARD", ">WEIGHT", ">SLOTS", ">SHARE"};
    const struct json *items = json_get(root, "items");
    struct table t;
    if (!items)
        return unreadable();
    table_init(&t, &c->arena, heads, array_len(heads));
    for (const struct json *j = items->first; j; j = j->next) {
        table_add(&t, json_text(j, "node"));
        table_add(&t, json_text(j, "shard"));
        table_add(&t, json_text(j, "weight"));
        table_add(&t, json_text(j, "slots"));
        table_add(&t, arena_printf(&c->arena, "%.1f %%", json_number(j, "slots") * 100 / 16384));
    }
    table_print(&t, stdout);
    cli_say(c, "epoch %.*s\n", STR_ARG(json_text(root, "epoch")));
    return EXIT_DONE;
}

int cli_node_ring(struct cli *c)
{
    str argv[3] = {STR("node-ring")}, text;
    size_t n = 1;
    bool shown;
    if (c->slot && c->jid)
        return cli_fail(EXIT_USAGE, "--slot or --jid, not both");
    if (c->slot || c->jid) {
        argv[n++] = c->slot ? STR("slot") : STR("jid");
        argv[n++] = str_of(c->slot ? c->slot : c->jid);
    }
    int exit = cli_ask_shown(c, n, argv, &text, &shown);
    if (shown)
        return exit;
    const struct json *root = json_parse(text, &c->arena);
    return n == 1 ? print_ring(c, root) : print_slot(c, root);
}

/* ---- weight, remove -------------------------------------------------------------------------- */

int cli_node_weight(struct cli *c)
{
    str name, text;
    bool shown;
    if (c->argc < 2)
        return cli_fail(EXIT_USAGE, "a node and its weight are wanted: node weight b 50");
    int exit = take_node(c, &name);
    if (exit)
        return exit;
    const str argv[] = {STR("node-weight"), name, str_of(c->argv[1])};
    exit = cli_ask_shown(c, 3, argv, &text, &shown);
    if (!shown)
        cli_say(c, "%.*s: weight %s, until its config says another\n", STR_ARG(name), c->argv[1]);
    return exit;
}

int cli_node_remove(struct cli *c)
{
    str name, text;
    bool shown;
    int exit = take_node(c, &name);
    if (exit)
        return exit;
    const char *what = arena_printf(&c->arena,
                                    "this says that node %.*s is dead: as soon as its lease has "
                                    "run out, its accounts have other homes",
                                    STR_ARG(name))
                           .p;
    if ((exit = cli_confirm(c, name, what)) != EXIT_DONE)
        return exit;
    const str argv[] = {STR("node-remove"), name};
    exit = cli_ask_shown(c, 2, argv, &text, &shown);
    if (!shown)
        cli_say(c, "%.*s: goes when its lease has run out\n", STR_ARG(name));
    return exit;
}

/* ---- drain ----------------------------------------------------------------------------------- */

static int cancel(struct cli *c, str name)
{
    const str argv[] = {STR("node-drain"), name, STR("cancel")};
    str text;
    bool shown;
    int exit = cli_ask_shown(c, 3, argv, &text, &shown);
    if (!shown)
        cli_say(c, "%.*s serves again\n", STR_ARG(name));
    return exit;
}

/* The node that is asked may be the one that drains: then its one answer is the last. Another one
 * says how far it is, and is asked until it has come to the end. */
int cli_node_drain(struct cli *c)
{
    str argv[6] = {STR("node-drain")}, text;
    int exit = take_node(c, &argv[1]);
    if (exit)
        return exit;
    if (c->cancel)
        return cancel(c, argv[1]);
    size_t n = cli_drain_words(c, argv, 2);
    for (;;) {
        exit = cli_ask(c, n, argv, &text);
        const struct json *root = exit ? NULL : json_parse(text, &c->arena);
        str phase = json_text(root, "phase");
        if (exit)
            return cli_fail(exit, "%.*s", STR_ARG(text));
        if (str_is(phase, "none") || phase.n == 0)
            return cli_fail(EXIT_FAILED, "the drain was cancelled; the node serves again");
        if (str_is(phase, "empty"))
            return cli_drained(c, text);
        cli_show_drain(c, text);
        poll(NULL, 0, LOOK_MS);
    }
}
