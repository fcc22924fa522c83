/* What can be asked of a running node. Commands about one account go to the shard that is its home;
 * here they are only carried. */
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "node/super/hosts.h"
#include "node/super/inside.h"
#include "node/super/notify.h"
#include "node/super/json.h"
#include "node/super/super.h"
#include "proto/xmpp/jid.h"

/* ---- reload ---------------------------------------------------------------------------------- */

/* The changes of a reload, as three JSON lists. */
struct changes {
    FILE *out[3]; /* live, new, restart */
    char *text[3];
    size_t bytes[3];
    unsigned count[3];
};

static void on_change(void *ctx, const struct conf_draft_host *h, const struct conf_row *row,
                      str from, str to)
{
    struct changes *c = ctx;
    char name[512];
    int which = !row || row->class == 'L' ? 0 : row->class == 'N' ? 1 : 2;
    FILE *out = c->out[which];
    if (h)
        snprintf(name, sizeof name, "host[%.*s]%s%s", STR_ARG(h->title), row ? "." : "",
                 row ? row->path : "");
    else
        snprintf(name, sizeof name, "%s", row->path);
    fputs(c->count[which]++ ? "," : "", out);
    fputs("{\"option\":", out);
    json_write(out, str_of(name));
    fputs(",\"from\":", out);
    json_write(out, from);
    fputs(",\"to\":", out);
    json_write(out, to);
    fputs("}", out);
}

static str changes_json(struct super *s, struct changes *c, struct arena *a)
{
    for (int i = 0; i < 3; i++)
        must(fclose(c->out[i]) == 0);
    str json = arena_printf(a,
                            "{\"v\":1,\"node\":\"%s\",\"config\":\"%08llx\",\"live\":[%s],"
                            "\"new\":[%s],\"restart\":[%s]}",
                            s->node, (unsigned long long)s->conf->hash >> 32, c->text[0],
                            c->text[1], c->text[2]);
    for (int i = 0; i < 3; i++)
        free(c->text[i]);
    return json;
}

static void tell_reload(struct super *s)
{
    Control__Reload reload = CONTROL__RELOAD__INIT;
    Control__ToChild m = CONTROL__TO_CHILD__INIT;
    reload.generation = s->generation;
    m.what_case = CONTROL__TO_CHILD__WHAT_RELOAD, m.reload = &reload;
    for (unsigned i = 0; i < s->process_count; i++) {
        const int fds[] = {s->conf_fd, s->process[i].kind == CHILD_SHARD ? s->certs_fd : -1};
        process_send(&s->process[i], &m, fds, array_len(fds));
    }
}

static str rejected(struct super *s, struct conf_draft *d, struct arena *a)
{
    str all = STR("");
    for (size_t i = 0; i < d->problem_count && i < CONF_PROBLEMS_MAX; i++) {
        LOG(s->log, config_rejected, F_STR("problem", d->problems[i]));
        all = arena_printf(a, "%.*s%.*s\n", STR_ARG(all), STR_ARG(d->problems[i]));
    }
    all = arena_printf(a,
                       "%.*s%zu error%s. Nothing was changed: the node goes on with its config "
                       "(%08llx)",
                       STR_ARG(all), d->problem_count, d->problem_count == 1 ? "" : "s",
                       (unsigned long long)s->conf->hash >> 32);
    conf_draft_free(d);
    return all;
}

/* What children get, as memfds. */
struct sealed {
    int conf, certs, identity;
    int64_t identity_end_s;
};

/* All or nothing. c: the draft's image, or NULL. */
static bool seal(struct super *s, struct conf_draft *d, const struct conf *c, struct sealed *f)
{
    *f = (struct sealed){.conf = c ? conf_seal(c) : -1, .certs = -1, .identity = -1};
    if (f->conf < 0)
        return false;
    if (certificates_bus(d, c, &f->identity, &f->identity_end_s) == ERR_OK &&
        certificates_build(s, c, &f->certs) == ERR_OK)
        return true;
    if (d->problem_count == 0)
        conf_draft_problem(d, (struct conf_origin){NULL, 0},
                           "a certificate cannot be used: see certificate_failed in the log");
    if (f->identity >= 0)
        close(f->identity);
    close(f->conf);
    return false;
}

/* The new image and the new certificates are in force from here. */
static void adopt(struct super *s, struct conf_draft *d, struct conf *c, const struct sealed *f)
{
    const struct conf *old = s->conf;
    conf_draft_free(s->draft);
    close(s->conf_fd);
    close(s->certs_fd);
    if (s->cluster.identity_fd >= 0)
        close(s->cluster.identity_fd);
    s->draft = d, s->conf = c, s->conf_fd = f->conf, s->certs_fd = f->certs;
    s->cluster.identity_fd = f->identity, s->cluster.identity_end_s = f->identity_end_s;
    s->generation++;
    super_log_again(s);
    cluster_configured(s, old);
    tell_reload(s);
    free((struct conf *)(uintptr_t)old);
}

static str reload(struct super *s, const char *by, unsigned *exit, struct arena *a)
{
    struct conf_draft *d = conf_draft_new();
    struct changes changes = {0};
    *exit = EXIT_CONFIG;
    s->reload_refused = true, s->reload_s = time(NULL);
    conf_load(d, s->config_file);
    for (size_t i = 0; i < s->set_count; i++)
        conf_draft_assign(d, str_of(s->sets[i]));
    if (d->problem_count)
        return rejected(s, d, a);
    for (int i = 0; i < 3; i++)
        must((changes.out[i] = open_memstream(&changes.text[i], &changes.bytes[i])));
    conf_draft_compare(s->draft, d, on_change, &changes);
    struct conf *c = conf_draft_build(d);
    if (c)
        hosts_place(s->hosts, c);
    struct sealed sealed;
    if (!seal(s, d, c, &sealed)) {
        (void)changes_json(s, &changes, a);
        free(c);
        return rejected(s, d, a);
    }
    adopt(s, d, c, &sealed);
    s->restart_pending = changes.count[2];
    s->reload_refused = false;
    char hash[20];
    snprintf(hash, sizeof hash, "%08llx", (unsigned long long)c->hash >> 32);
    LOG(s->log, config_applied, F_STR("hash", str_of(hash)), F_INT("live", changes.count[0]),
        F_INT("new", changes.count[1]), F_INT("restart", changes.count[2]),
        F_STR("by", str_of(by)));
    *exit = EXIT_DONE;
    return changes_json(s, &changes, a);
}

str command_reload(struct super *s, const char *by, unsigned *exit, struct arena *a)
{
    if (s->ready)
        notify_reloading();
    str answer = reload(s, by, exit, a);
    if (s->ready)
        notify_send("READY=1");
    return answer;
}

/* ---- the table ------------------------------------------------------------------------------- */

static void run_status(struct super *s, struct client *c, size_t argc, const str *argv)
{
    struct arena a;
    arena_init(&a);
    admin_reply(s, c, EXIT_DONE, status_json(s, &a));
    arena_close(&a);
}

static bool all_have(const struct super *s, uint64_t generation)
{
    for (unsigned i = 0; i < s->process_count; i++)
        if (s->process[i].state == PROCESS_UP && s->process[i].generation < generation)
            return false;
    return true;
}

void command_reloaded(struct super *s)
{
    for (unsigned i = 0; i < CLIENTS_MAX; i++) {
        struct client *c = &s->client[i];
        if (!client_is_there(c) || !c->waits_for || !all_have(s, c->waits_for))
            continue;
        str text = c->reloaded;
        c->waits_for = 0, c->reloaded = STR_NONE;
        admin_reply(s, c, EXIT_DONE, text);
        free((char *)(uintptr_t)text.p);
    }
}

/* Who is told that it is done may go by it: not before every process does. */
static void run_reload(struct super *s, struct client *c, size_t argc, const str *argv)
{
    struct arena a;
    unsigned exit;
    arena_init(&a);
    str text = command_reload(s, "socket", &exit, &a);
    if (exit == EXIT_DONE) {
        c->reloaded = (str){strndup(text.p, text.n), text.n};
        c->waits_for = s->generation;
        command_reloaded(s);
    } else {
        admin_reply(s, c, exit, text);
    }
    arena_close(&a);
}

static void run_stop(struct super *s, struct client *c, size_t argc, const str *argv)
{
    bool now = argc > 1 && str_is(argv[1], "now");
    c->waits_for_stop = true;
    super_stop(s, now ? 0 : s->conf->node_stop_timeout, "socket");
}

static void run_drain(struct super *s, struct client *c, size_t argc, const str *argv)
{
    drain_command(s, c, argc, argv);
}

void command_forward(struct super *s, struct client *c, struct process *to, size_t argc,
                     const str *argv)
{
    ProtobufCBinaryData args[64];
    Control__Command command = CONTROL__COMMAND__INIT;
    Control__ToChild m = CONTROL__TO_CHILD__INIT;
    must(argc <= array_len(args));
    for (size_t i = 0; i < argc; i++)
        args[i] = (ProtobufCBinaryData){argv[i].n, (uint8_t *)(uintptr_t)argv[i].p};
    command.id = c->forwarded = s->next_command++;
    command.argv = args, command.n_argv = argc;
    m.what_case = CONTROL__TO_CHILD__WHAT_COMMAND, m.command = &command;
    c->to = to;
    process_send(to, &m, NULL, 0);
}

static void run_anywhere(struct super *s, struct client *c, size_t argc, const str *argv)
{
    for (unsigned i = 0; i < s->shards; i++) {
        if (s->process[i].state == PROCESS_UP) {
            command_forward(s, c, &s->process[i], argc, argv);
            return;
        }
    }
    admin_reply(s, c, EXIT_TIMEOUT, STR("no shard is up; ask again"));
}

/* To the home of the account named; in a cluster to any shard, which knows where that is. */
static void run_at_home(struct super *s, struct client *c, size_t argc, const str *argv)
{
    struct arena a;
    struct jid jid;
    arena_init(&a);
    if (argc < 2 || jid_prepare(argv[1], &a, &jid) != ERR_OK || jid.local.n == 0) {
        admin_reply(s, c, EXIT_USAGE, STR("a JID like alice@example.com is wanted"));
    } else {
        struct process *home = &s->process[ring_home(s->ring, jid.bare)];
        if (s->cluster.owner)
            run_anywhere(s, c, argc, argv);
        else if (home->state == PROCESS_UP)
            command_forward(s, c, home, argc, argv);
        else
            admin_reply(s, c, EXIT_TIMEOUT, STR("the account's shard is starting; ask again"));
    }
    arena_close(&a);
}

static const struct command {
    const char *name;
    void (*run)(struct super *s, struct client *c, size_t argc, const str *argv);
} commands[] = {
    {"status", run_status},
    {"reload", run_reload},
    {"stop", run_stop},
    {"user-add", run_at_home},
    {"user-passwd", run_at_home},
    {"user-remove", run_at_home},
    {"user-disable", run_at_home},
    {"user-enable", run_at_home},
    {"user-show", run_at_home},
    {"user-sessions", run_at_home},
    {"user-kick", run_at_home},
    {"user-list", run_anywhere},
    {"drain", run_drain},
    {"node-list", cluster_command},
    {"node-ring", cluster_command},
    {"node-remove", cluster_command},
    {"node-drain", cluster_command},
    {"node-weight", cluster_command},
};

void command_run(struct super *s, struct client *c, size_t argc, const str *argv)
{
    for (size_t i = 0; i < array_len(commands); i++) {
        if (str_eq(argv[0], str_of(commands[i].name))) {
            commands[i].run(s, c, argc, argv);
            return;
        }
    }
    admin_reply(s, c, EXIT_USAGE, STR("this node does not know that command"));
}

bool command_is_for_others(str name)
{
    static const char *const names[] = {"status", "node-drain", "node-weight"};
    for (size_t i = 0; i < array_len(names); i++)
        if (str_eq(name, str_of(names[i])))
            return true;
    return false;
}
