/* Commands about accounts. Passwords become SCRAM keys here: the node never sees them. */
#include <stdlib.h>

#include "node/os/os.h"
#include "node/super/cli.h"
#include "node/super/json.h"
#include "node/super/prompt.h"
#include "node/super/table.h"
#include "proto/sasl/scram.h"
#include "proto/xmpp/jid.h"

/* The first argument as a bare JID. */
static bool take_jid(struct cli *c, struct jid *jid, int *exit)
{
    *exit = EXIT_USAGE;
    if (c->argc < 1) {
        cli_fail(EXIT_USAGE, "a JID like alice@example.com is wanted");
        return false;
    }
    if (jid_prepare(str_of(c->argv[0]), &c->arena, jid) == ERR_OK && jid->local.n)
        return true;
    cli_fail(EXIT_USAGE, "%s is not a JID like alice@example.com", c->argv[0]);
    return false;
}

/* ---- passwords ------------------------------------------------------------------------------- */

static int ask_twice(str jid, uint64_t min, char password[PROMPT_MAX])
{
    char question[256], again[PROMPT_MAX];
    if (!prompt_possible())
        return cli_fail(EXIT_USAGE,
                        "no terminal: give the password with --stdin, or --generate one");
    snprintf(question, sizeof question,
             "Password for %.*s (%llu characters or more): ", STR_ARG(jid),
             (unsigned long long)min);
    bool good = prompt_secret(question, password) && prompt_secret("Again: ", again);
    bool same = good && strcmp(password, again) == 0;
    explicit_bzero(again, sizeof again);
    if (same)
        return EXIT_DONE;
    return cli_fail(EXIT_NOT_CONFIRMED, good ? "the two differ" : "no password was given");
}

static int take_password(struct cli *c, str jid, uint64_t min, char password[PROMPT_MAX])
{
    if (c->generate) {
        prompt_generate(password);
        return EXIT_DONE;
    }
    if (!c->from_stdin)
        return ask_twice(jid, min, password);
    return prompt_line(password) ? EXIT_DONE
                                 : cli_fail(EXIT_USAGE, "no password came on standard input");
}

static str hex_of(struct arena *a, const unsigned char *p, size_t n)
{
    static const char digit[] = "0123456789abcdef";
    char *out = arena_alloc(a, 2 * n + 1);
    for (size_t i = 0; i < n; i++)
        out[2 * i] = digit[p[i] >> 4], out[2 * i + 1] = digit[p[i] & 15];
    return (str){out, 2 * n};
}

static int derive(struct cli *c, const char *password, const struct conf *conf, str *hex)
{
    struct entropy_real e;
    struct scram_keys keys;
    unsigned char blob[SCRAM_BLOB_MAX];
    str prepared;
    if (scram_password_prepare(str_of(password), conf->auth_password_min, &c->arena, &prepared))
        return cli_fail(EXIT_FAILED,
                        "that password will not do: %llu characters or more, no "
                        "control characters",
                        (unsigned long long)conf->auth_password_min);
    entropy_real_init(&e);
    scram_keys_make(prepared, (uint32_t)conf->auth_scram_iterations, &e.entropy, &keys);
    *hex = hex_of(&c->arena, blob, scram_keys_encode(&keys, blob));
    if (prepared.p != password) /* else it is the caller's, who may want to show it */
        scram_wipe((void *)(uintptr_t)prepared.p, prepared.n);
    scram_wipe(&keys, sizeof keys);
    scram_wipe(blob, sizeof blob);
    return EXIT_DONE;
}

/* Password to keys as the config wants them; *hex for the node. */
static int keys_for(struct cli *c, const struct jid *jid, char password[PROMPT_MAX], str *hex)
{
    struct conf_draft *d = cli_config(c);
    struct conf *conf = d ? conf_draft_build(d) : NULL;
    if (!conf) {
        conf_draft_free(d);
        return EXIT_CONFIG;
    }
    int exit = EXIT_DONE;
    if (!conf_host_find(conf, jid->domain))
        exit = cli_fail(EXIT_NOT_FOUND, "no host %.*s", STR_ARG(jid->domain));
    if (exit == EXIT_DONE)
        exit = take_password(c, jid->bare, conf->auth_password_min, password);
    if (exit == EXIT_DONE)
        exit = derive(c, password, conf, hex);
    free(conf);
    conf_draft_free(d);
    return exit;
}

/* A password that was made is shown when it is in force, with --json inside of the one object. */
static void show_generated(const struct cli *c, const struct jid *jid, const char *password,
                           str text)
{
    if (!c->json) {
        printf("%s\n", password);
        return;
    }
    struct arena a;
    arena_init(&a);
    fputs("{\"v\":1,\"node\":", stdout);
    json_write(stdout, json_text(json_parse(text, &a), "node"));
    fputs(",\"items\":[{\"jid\":", stdout);
    json_write(stdout, jid->bare);
    fputs(",\"password\":", stdout);
    json_write(stdout, str_of(password));
    fputs("}]}\n", stdout);
    arena_close(&a);
}

static int set_keys(struct cli *c, const char *command, const char *done)
{
    char password[PROMPT_MAX];
    struct jid jid;
    str hex, text;
    int exit;
    if (!take_jid(c, &jid, &exit))
        return exit;
    if ((exit = keys_for(c, &jid, password, &hex)) == EXIT_DONE) {
        exit = cli_ask(c, 3, (const str[]){str_of(command), jid.bare, hex}, &text);
        if (exit != EXIT_DONE)
            cli_fail(exit, "%.*s", STR_ARG(text));
        else if (c->generate)
            show_generated(c, &jid, password, text);
        else if (c->json)
            printf("%.*s\n", STR_ARG(text));
        if (exit == EXIT_DONE && !c->json)
            cli_say(c, "%s %.*s\n", done, STR_ARG(jid.bare));
    }
    explicit_bzero(password, sizeof password);
    return exit;
}

int cli_user_add(struct cli *c) { return set_keys(c, "user-add", "added"); }
int cli_user_passwd(struct cli *c) { return set_keys(c, "user-passwd", "changed the password of"); }

/* ---- the rest -------------------------------------------------------------------------------- */

int cli_confirm(const struct cli *c, str name, const char *what)
{
    char line[PROMPT_MAX];
    if (c->yes)
        return EXIT_DONE;
    if (!prompt_possible())
        return cli_fail(EXIT_NOT_CONFIRMED, "%s: say --yes when there is no terminal", what);
    fprintf(stderr, "%s. Type %.*s to go on: ", what, STR_ARG(name));
    if (prompt_line(line) && str_eq(str_of(line), name))
        return EXIT_DONE;
    return cli_fail(EXIT_NOT_CONFIRMED, "not confirmed: nothing was changed");
}

int cli_user_remove(struct cli *c)
{
    struct jid jid;
    str text;
    bool shown;
    int exit;
    if (!take_jid(c, &jid, &exit))
        return exit;
    const char *what = arena_printf(&c->arena,
                                    "this removes %.*s with its roster, messages and all it keeps "
                                    "here",
                                    STR_ARG(jid.bare))
                           .p;
    if ((exit = cli_confirm(c, jid.bare, what)) != EXIT_DONE)
        return exit;
    const str argv[] = {STR("user-remove"), jid.bare};
    exit = cli_ask_shown(c, 2, argv, &text, &shown);
    if (!shown)
        cli_say(c, "removed %.*s\n", STR_ARG(jid.bare));
    return exit;
}

static int change_account(struct cli *c, const char *command, const char *done)
{
    struct jid jid;
    str text;
    bool shown;
    int exit;
    if (!take_jid(c, &jid, &exit))
        return exit;
    const str argv[] = {str_of(command), jid.bare};
    exit = cli_ask_shown(c, 2, argv, &text, &shown);
    if (!shown)
        cli_say(c, "%s %.*s\n", done, STR_ARG(jid.bare));
    return exit;
}

int cli_user_disable(struct cli *c) { return change_account(c, "user-disable", "disabled"); }
int cli_user_enable(struct cli *c) { return change_account(c, "user-enable", "enabled"); }

/* A table of the items' members. */
struct column {
    const char *head, *key;
};

static int print_items(struct cli *c, str text, const struct column *columns, size_t n)
{
    const char *heads[TABLE_COLUMNS_MAX];
    const struct json *root = json_parse(text, &c->arena), *items = json_get(root, "items");
    struct table t;
    if (!items)
        return cli_fail(EXIT_FAILED, "the node's answer cannot be read");
    for (size_t i = 0; i < n; i++)
        heads[i] = columns[i].head;
    table_init(&t, &c->arena, heads, n);
    for (const struct json *j = items->first; j; j = j->next)
        for (size_t i = 0; i < n; i++) {
            str cell = json_text(j, columns[i].key);
            table_add(&t, cell.n ? cell : STR("-"));
        }
    table_print(&t, stdout);
    return EXIT_DONE;
}

static int ask_items(struct cli *c, size_t argc, const str *argv, const struct column *columns,
                     size_t n)
{
    str text;
    bool shown;
    int exit = cli_ask_shown(c, argc, argv, &text, &shown);
    return shown ? exit : print_items(c, text, columns, n);
}

/* 1 to 1000, which is what the store gives at once. */
static bool is_limit(const char *s)
{
    size_t n = strspn(s, "0123456789");
    return n > 0 && n <= 4 && !s[n] && atoi(s) >= 1 && atoi(s) <= 1000;
}

int cli_user_list(struct cli *c)
{
    static const struct column columns[] = {{"JID", "jid"}};
    str host;
    if (c->argc < 1 || jid_prepare_domain(str_of(c->argv[0]), &c->arena, &host) != ERR_OK)
        return cli_fail(EXIT_USAGE, "a host is wanted: pemberley user list example.com");
    if (c->limit && !is_limit(c->limit))
        return cli_fail(EXIT_USAGE, "--limit is a number from 1 to 1000");
    const str argv[] = {STR("user-list"), host, str_of(c->like ? c->like : ""),
                        str_of(c->after ? c->after : ""), str_of(c->limit ? c->limit : "1000")};
    return ask_items(c, 5, argv, columns, array_len(columns));
}

int cli_user_show(struct cli *c)
{
    static const struct column columns[] = {{"JID", "jid"},
                                            {"CREATED", "created"},
                                            {"DISABLED", "disabled"},
                                            {">SESSIONS", "sessions"},
                                            {">OFFLINE", "offline_messages"},
                                            {"LAST SEEN", "last_seen"}};
    struct jid jid;
    int exit;
    if (!take_jid(c, &jid, &exit))
        return exit;
    const str argv[] = {STR("user-show"), jid.bare};
    return ask_items(c, 2, argv, columns, array_len(columns));
}

int cli_user_sessions(struct cli *c)
{
    static const struct column columns[] = {{"JID", "jid"},          {"STATE", "state"},
                                            {"EDGE", "edge"},        {"HOME", "home"},
                                            {"ADDRESS", "address"},  {"TLS", "tls"},
                                            {"SINCE", "since"},      {">PRIORITY", "priority"},
                                            {">UNACKED", "unacked"}, {">QUEUE", "queue_bytes"}};
    struct jid jid;
    int exit;
    if (!take_jid(c, &jid, &exit))
        return exit;
    const str argv[] = {STR("user-sessions"), jid.bare};
    return ask_items(c, 2, argv, columns, array_len(columns));
}

int cli_user_kick(struct cli *c)
{
    struct jid jid;
    str text;
    bool shown;
    int exit;
    if (!take_jid(c, &jid, &exit))
        return exit;
    const str argv[] = {STR("user-kick"), jid.bare, jid.resource};
    exit = cli_ask_shown(c, jid.resource.n ? 3 : 2, argv, &text, &shown);
    const struct json *items = shown ? NULL : json_get(json_parse(text, &c->arena), "items");
    unsigned n = 0;
    for (const struct json *j = items ? items->first : NULL; j; j = j->next)
        n++;
    if (!shown)
        cli_say(c, "kicked %.*s: %u session%s\n", STR_ARG(jid.full), n, n == 1 ? "" : "s");
    return exit;
}
