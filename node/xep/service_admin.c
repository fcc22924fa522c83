/* XEP-0133: service administration, for a host's admins (host.admins), of that host. A command asks
 * by its form, and does what it says as the command line would (node->commands), one account after
 * the other. What it needs meanwhile lives in a task with an arena of its own. */
#include <jansson.h>
#include <stdlib.h>

#include "node/conf/conf.h"
#include "node/tls/new_keys.h"
#include "node/xep/adhoc.h"
#include "proto/base/hex.h"
#include "proto/sasl/scram.h"

#define NS "http://jabber.org/protocol/admin"
enum { JIDS_MAX = 100, ITEMS_MAX = 1000, ARGS_MAX = 6 };

struct ask {
    const char *var, *type, *label;
    bool required;
};
struct task;
struct row {
    const char *title;
    struct ask asks[3]; /* var NULL behind the last */
    void (*run)(struct task *t);
};
struct task {
    struct adhoc request;
    const struct row *row;
    struct arena arena;
    struct form form;
    str host;
    /* one account after the other */
    const char *command;
    str jids[JIDS_MAX];
    size_t n, at;
    void (*took)(struct task *t, str text); /* what was answered; NULL: it does not matter */
    struct xml_writer out;                  /* what the answer is made of */
};

/* ---- the end ---- */

static void end(struct task *t)
{
    arena_close(&t->arena);
    free(t);
}

static void done(struct task *t, str payload)
{
    adhoc_done(&t->request, payload);
    end(t);
}

static void failed(struct task *t, str why)
{
    adhoc_failed(&t->request, why);
    end(t);
}

static void bad(struct task *t)
{
    adhoc_bad_payload(&t->request);
    end(t);
}

static void command(struct task *t, size_t argc, const str *argv, command_done_f *answered)
{
    struct command_door *door = t->request.iq->node->commands;
    if (!door)
        failed(t, STR("this server takes no commands"));
    else
        door->run(door, argc, argv, answered, t);
}

/* ---- of accounts ---- */

/* A JID of this host, prepared. */
static bool take_jid(struct task *t, str text, struct jid *out)
{
    return jid_prepare(text, &t->arena, out) == ERR_OK && out->local.n &&
           str_eq(out->domain, t->host);
}

static void next(struct task *t);

static void on_each(void *ctx, unsigned exit, str text)
{
    struct task *t = ctx;
    if (exit) {
        failed(t, text);
        return;
    }
    if (t->took)
        t->took(t, text);
    t->at++;
    next(t);
}

static void next(struct task *t)
{
    if (t->at == t->n) {
        done(t, xml_written(&t->out));
        return;
    }
    struct jid j = jid_parse_prepared(t->jids[t->at]);
    const str argv[] = {str_of(t->command), j.bare, j.resource};
    command(t, j.resource.n ? 3 : 2, argv, on_each);
}

/* accountjid or accountjids; resources only where they mean something. */
static void each_account(struct task *t, const char *name, bool resources)
{
    const struct form_field *f = form_find(&t->form, "accountjids");
    f = f ? f : form_find(&t->form, "accountjid");
    t->command = name;
    if (!f || !f->n || f->n > JIDS_MAX) {
        bad(t);
        return;
    }
    for (size_t i = 0; i < f->n; i++) {
        struct jid j;
        if (!take_jid(t, f->values[i], &j) || (j.resource.n && !resources)) {
            bad(t);
            return;
        }
        t->jids[t->n++] = j.full;
    }
    next(t);
}

static void delete_user(struct task *t) { each_account(t, "user-remove", false); }
static void disable_user(struct task *t) { each_account(t, "user-disable", false); }
static void reenable_user(struct task *t) { each_account(t, "user-enable", false); }
static void end_session(struct task *t) { each_account(t, "user-kick", true); }

/* ---- with a password ---- */

static void on_changed(void *ctx, unsigned exit, str text)
{
    struct task *t = ctx;
    if (exit)
        failed(t, text);
    else
        done(t, STR_NONE);
}

static void on_keys(void *ctx, str blob)
{
    struct task *t = ctx;
    char hex[2 * SCRAM_BLOB_MAX + 1];
    hex_encode(hex, blob);
    const str argv[] = {str_of(t->command), t->jids[0], str_from(hex, 2 * blob.n)};
    command(t, 3, argv, on_changed);
    scram_wipe(hex, sizeof hex);
}

static void with_password(struct task *t, const char *name)
{
    const struct node *n = t->request.iq->node;
    struct jid j;
    str password;
    const struct form_field *again = form_find(&t->form, "password-verify");
    str given = form_value(&t->form, "password");
    t->command = name;
    if (!take_jid(t, form_value(&t->form, "accountjid"), &j) || j.resource.n) {
        bad(t);
        return;
    }
    t->jids[0] = j.bare;
    if (again && again->n && !str_eq(again->values[0], given))
        failed(t, STR("The two passwords are not the same."));
    else if (scram_password_prepare(given, n->conf->auth_password_min, &t->arena, &password))
        failed(t, STR("The password is too short, or has characters that cannot be in one."));
    else if (new_keys(n->helper, n->entropy, password, (uint32_t)n->conf->auth_scram_iterations,
                      on_keys, t))
        failed(t, STR("Too many passwords are being set; try again."));
}

static void add_user(struct task *t) { with_password(t, "user-add"); }
static void change_password(struct task *t) { with_password(t, "user-passwd"); }

/* ---- what is known of an account ---- */

static void roster_took(struct task *t, str text)
{
    form_open(&t->out, "result", NULL, NS);
    form_put_one(&t->out, "accountjids", jid_parse_prepared(t->jids[t->at]).bare);
    xml_put_raw(&t->out, text);
    form_close(&t->out);
}

static void get_roster(struct task *t)
{
    t->took = roster_took;
    each_account(t, "user-roster", false);
}

static str text_of(struct task *t, json_t *item, const char *key)
{
    const char *s = json_string_value(json_object_get(item, key));
    return arena_dup(&t->arena, str_of(s ? s : ""));
}

/* The only item of an answer, borrowed from root, or NULL. */
static json_t *item_of(json_t *root) { return json_array_get(json_object_get(root, "items"), 0); }

static json_t *parse(str text)
{
    json_error_t e;
    return json_loadb(text.p, text.n, 0, &e);
}

/* The store knows when somebody was here last, not when that began. */
static void last_took(struct task *t, str text)
{
    json_t *root = parse(text);
    form_open(&t->out, "result", NULL, NS);
    form_put_one(&t->out, "accountjids", jid_parse_prepared(t->jids[t->at]).bare);
    json_t *item = item_of(root);
    bool online = json_integer_value(json_object_get(item, "sessions")) > 0;
    str last = text_of(t, item, "last_seen");
    form_put_one(&t->out, "lastlogin", online ? STR("Online") : last.n ? last : STR("Never"));
    form_close(&t->out);
    json_decref(root);
}

static void get_last_login(struct task *t)
{
    t->took = last_took;
    each_account(t, "user-show", false);
}

static void put_sessions(struct task *t, json_t *items)
{
    size_t n = json_array_size(items);
    str *addresses = arena_alloc(&t->arena, (n + 1) * sizeof *addresses);
    str *resources = arena_alloc(&t->arena, (n + 1) * sizeof *resources);
    for (size_t i = 0; i < n; i++) {
        json_t *s = json_array_get(items, i);
        addresses[i] = text_of(t, s, "address");
        resources[i] = jid_parse_prepared(text_of(t, s, "jid")).resource;
    }
    form_put(&t->out, "ipaddresses", addresses, n);
    form_put(&t->out, "onlineresources", resources, n);
}

static void stats_took(struct task *t, str text)
{
    json_t *root = parse(text);
    if (t->at == 0) {
        json_int_t n = json_integer_value(json_object_get(item_of(root), "roster"));
        form_open(&t->out, "result", NULL, NS);
        form_put_one(&t->out, "rostersize", arena_printf(&t->arena, "%lld", (long long)n));
        t->command = "user-sessions";
        t->jids[t->n++] = t->jids[0];
    } else {
        put_sessions(t, json_object_get(root, "items"));
        form_close(&t->out);
    }
    json_decref(root);
}

static void get_stats(struct task *t)
{
    t->took = stats_took;
    each_account(t, "user-show", false);
}

/* ---- of the host ---- */

static void number(struct task *t, const char *var, json_int_t n)
{
    form_open(&t->out, "result", NULL, NS);
    form_put_one(&t->out, var, arena_printf(&t->arena, "%lld", (long long)n));
    form_close(&t->out);
    done(t, xml_written(&t->out));
}

static void on_accounts(void *ctx, unsigned exit, str text)
{
    struct task *t = ctx;
    if (exit) {
        failed(t, text);
        return;
    }
    json_t *root = parse(text), *items = json_object_get(root, "items");
    json_int_t total = json_integer_value(json_object_get(root, "total"));
    if (!t->row->asks[0].var) {
        number(t, t->command, total);
    } else {
        size_t n = json_array_size(items);
        str *jids = arena_alloc(&t->arena, (n + 1) * sizeof *jids);
        for (size_t i = 0; i < n; i++)
            jids[i] = text_of(t, json_array_get(items, i), "jid");
        form_open(&t->out, "result", NULL, NS);
        form_put(&t->out, t->command, jids, n);
        form_close(&t->out);
        done(t, xml_written(&t->out));
    }
    json_decref(root);
}

/* What the form allows, at most what the store gives at once. */
static unsigned items_max(const struct task *t)
{
    str s = form_value(&t->form, "max_items");
    unsigned n = 0;
    for (size_t i = 0; i < s.n && s.p[i] >= '0' && s.p[i] <= '9' && n <= ITEMS_MAX; i++)
        n = n * 10 + (unsigned)(s.p[i] - '0');
    return n && n < ITEMS_MAX ? n : ITEMS_MAX;
}

/* var: the field of the answer. */
static void accounts(struct task *t, const char *var, bool disabled)
{
    t->command = var;
    const str argv[] = {STR("user-list"),
                        t->host,
                        STR(""),
                        STR(""),
                        arena_printf(&t->arena, "%u", items_max(t)),
                        disabled ? STR("disabled") : STR("")};
    command(t, 6, argv, on_accounts);
}

static void registered_num(struct task *t) { accounts(t, "registeredusersnum", false); }
static void disabled_num(struct task *t) { accounts(t, "disabledusersnum", true); }
static void registered_list(struct task *t) { accounts(t, "registereduserjids", false); }
static void disabled_list(struct task *t) { accounts(t, "disableduserjids", true); }

/* Lines of users-online: all of them, or those with this mark. */
static void online(struct task *t, str text, char mark)
{
    unsigned total = 0, n = 0, max = items_max(t);
    str *jids = arena_alloc(&t->arena, max * sizeof *jids);
    while (text.n) {
        const char *end_of_line = memchr(text.p, '\n', text.n);
        size_t length = end_of_line ? (size_t)(end_of_line - text.p) : text.n;
        if (length > 1 && (!mark || text.p[0] == mark)) {
            if (n < max)
                jids[n++] = arena_dup(&t->arena, str_from(text.p + 1, length - 1));
            total++;
        }
        text = str_skip(text, end_of_line ? length + 1 : length);
    }
    if (!t->row->asks[0].var) {
        number(t, t->command, total);
        return;
    }
    form_open(&t->out, "result", NULL, NS);
    form_put(&t->out, t->command, jids, n);
    form_close(&t->out);
    done(t, xml_written(&t->out));
}

static void on_online(void *ctx, unsigned exit, str text)
{
    struct task *t = ctx;
    char mark = str_starts(str_of(t->command), STR("active")) ? '+'
                : str_starts(str_of(t->command), STR("idle")) ? '-'
                                                              : 0;
    if (exit)
        failed(t, text);
    else
        online(t, text, mark);
}

static void who_is_online(struct task *t, const char *var)
{
    t->command = var;
    const str argv[] = {STR("users-online"), t->host};
    command(t, 2, argv, on_online);
}

static void online_num(struct task *t) { who_is_online(t, "onlineusersnum"); }
static void active_num(struct task *t) { who_is_online(t, "activeusersnum"); }
static void idle_num(struct task *t) { who_is_online(t, "idleusersnum"); }
static void online_list(struct task *t) { who_is_online(t, "onlineuserjids"); }
static void active_list(struct task *t) { who_is_online(t, "activeuserjids"); }
static void idle_list(struct task *t) { who_is_online(t, "idleuserjids"); }

/* A text-multi's lines. */
static str lines_of(struct task *t, const char *var)
{
    const struct form_field *f = form_find(&t->form, var);
    str text = STR_NONE;
    for (size_t i = 0; f && i < f->n; i++)
        text = arena_concat(&t->arena, (str[]){text, i ? STR("\n") : STR(""), f->values[i]}, 3);
    return text;
}

static void announce(struct task *t)
{
    const str argv[] = {STR("announce"), t->host, lines_of(t, "announcement"),
                        form_value(&t->form, "subject")};
    if (!argv[2].n)
        bad(t);
    else
        command(t, argv[3].n ? 4 : 3, argv, on_changed);
}

/* ---- the table ---- */

#define JID \
    { \
        "accountjid", "jid-single", "The Jabber ID for this account", true \
    }
#define PASSWORD \
    { \
        "password", "text-private", "The password for this account", true \
    }
#define ITEMS \
    { \
        "max_items", "list-single", "Maximum number of items to show", false \
    }

/* node, name, fields of the form, function: section 4 of the XEP without what is retracted (4.6)
 * and what would be written into the config (lists of the service, messages of the day, admins). */
#define COMMANDS(X) \
    X("add-user", "Add User", add_user, JID, PASSWORD, \
      {"password-verify", "text-private", "Retype password", true}) \
    X("delete-user", "Delete User", delete_user, \
      {"accountjids", "jid-multi", "The Jabber ID(s) to delete", true}) \
    X("disable-user", "Disable User", disable_user, \
      {"accountjids", "jid-multi", "The Jabber ID(s) to disable", true}) \
    X("reenable-user", "Re-Enable User", reenable_user, \
      {"accountjids", "jid-multi", "The Jabber ID(s) to re-enable", true}) \
    X("end-user-session", "End User Session", end_session, \
      {"accountjids", "jid-multi", "The Jabber ID(s) for which to end sessions", true}) \
    X("change-user-password", "Change User Password", change_password, JID, PASSWORD) \
    X("get-user-roster", "Get User Roster", get_roster, \
      {"accountjids", "jid-multi", "The Jabber ID(s) for which to retrieve the roster", true}) \
    X("get-user-lastlogin", "Get User Last Login Time", get_last_login, \
      {"accountjids", "jid-multi", "The Jabber ID(s) for which to retrieve the last login time", \
       true}) \
    X("user-stats", "Get User Statistics", get_stats, \
      {"accountjid", "jid-single", "The Jabber ID for statistics", true}) \
    X("get-registered-users-num", "Get Number of Registered Users", registered_num, \
      {NULL, NULL, NULL, false}) \
    X("get-disabled-users-num", "Get Number of Disabled Users", disabled_num, \
      {NULL, NULL, NULL, false}) \
    X("get-online-users-num", "Get Number of Online Users", online_num, {NULL, NULL, NULL, false}) \
    X("get-active-users-num", "Get Number of Active Users", active_num, {NULL, NULL, NULL, false}) \
    X("get-idle-users-num", "Get Number of Idle Users", idle_num, {NULL, NULL, NULL, false}) \
    X("get-registered-users-list", "Get List of Registered Users", registered_list, ITEMS) \
    X("get-disabled-users-list", "Get List of Disabled Users", disabled_list, ITEMS) \
    X("get-online-users-list", "Get List of Online Users", online_list, ITEMS) \
    X("get-active-users", "Get List of Active Users", active_list, ITEMS) \
    X("get-idle-users", "Get List of Idle Users", idle_list, ITEMS) \
    X("announce", "Send Announcement to Online Users", announce, \
      {"subject", "text-single", "Subject", false}, \
      {"announcement", "text-multi", "Announcement", true})

static const struct row rows[] = {
#define X(node, name, run, ...) {name, {__VA_ARGS__}, run},
    COMMANDS(X)
#undef X
};

/* ---- stages ---- */

static bool may(const struct iq *q)
{
    return q->entity == IQ_SERVER && conf_host_is_admin(q->node->conf, q->host, q->asker.bare);
}

static void put_options(struct xml_writer *w)
{
    static const char *const sizes[] = {"25", "50", "75", "100", "150", "200", "none"};
    for (size_t i = 0; i < array_len(sizes); i++) {
        xml_open(w, "option");
        xml_put_attr(w, "label", str_of(sizes[i]));
        xml_put_leaf(w, "value", NULL, str_of(sizes[i]));
        xml_close(w, "option");
    }
}

static str form_of(const struct row *row, struct arena *a)
{
    struct xml_writer w;
    xml_writer_init(&w, a);
    form_open(&w, "form", row->title, NS);
    for (size_t i = 0; i < array_len(row->asks) && row->asks[i].var; i++) {
        xml_open(&w, "field");
        xml_put_attr(&w, "var", str_of(row->asks[i].var));
        xml_put_attr(&w, "type", str_of(row->asks[i].type));
        xml_put_attr(&w, "label", str_of(row->asks[i].label));
        if (row->asks[i].required)
            xml_put_raw(&w, STR("<required/>"));
        if (str_is(str_of(row->asks[i].type), "list-single"))
            put_options(&w);
        xml_close(&w, "field");
    }
    form_close(&w);
    return xml_written(&w);
}

static bool is_complete(const struct row *row, const struct form *f)
{
    for (size_t i = 0; i < array_len(row->asks) && row->asks[i].var; i++)
        if (row->asks[i].required && !form_value(f, row->asks[i].var).n)
            return false;
    return true;
}

/* The task outlives the turn, so does its request. */
static void start(const struct adhoc *r, const struct row *row)
{
    struct task *t = calloc(1, sizeof *t);
    must(t);
    t->row = row;
    arena_init(&t->arena);
    xml_writer_init(&t->out, &t->arena);
    t->host = arena_dup(&t->arena, conf_text(r->iq->node->conf, r->iq->host->domain));
    err e = r->submitted ? form_read(&r->form, &t->arena, &t->form) : ERR_OK;
    t->request = *r;
    if (e || (r->submitted && (!str_is(t->form.type, NS) || !is_complete(row, &t->form)))) {
        bad(t);
        return;
    }
    t->request.iq = iq_keep(r->iq);
    row->run(t);
}

static void run(const struct adhoc *r)
{
    const struct row *row = &rows[r->command - service_admin_commands];
    if (row->asks[0].var && !r->submitted)
        adhoc_ask(r, form_of(row, r->iq->arena));
    else
        start(r, row);
}

const struct adhoc_command service_admin_commands[] = {
#define X(node, name, fn, ...) {NS "#" node, name, may, run},
    COMMANDS(X)
#undef X
        {NULL, NULL, NULL, NULL}};
