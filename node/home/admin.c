/* Commands of the control socket that name an account, executed at its home: the account is loaded
 * like for anybody, and the same calls end sessions and cancel subscriptions that stanzas use. The
 * password never comes here: the CLI derives the keys. Answers are operator.md 3: exit 0 and JSON,
 * or an exit code and a sentence. */
#include <jansson.h>
#include <stdlib.h>

#include "cluster/peers.h"
#include "node/home/admin.h"
#include "proto/base/hex.h"
#include "proto/sasl/scram.h"

/* ---- answers ---- */

void admin_answer(struct command *c, int code, str text)
{
    c->answer(c->ctx, code, text);
    free(c);
}

/* Takes root. */
static void answer_root(struct command *c, json_t *root)
{
    char *text = json_dumps(root, JSON_COMPACT);
    must(text);
    json_decref(root);
    str s = arena_dup(home_arena(c->home), str_of(text));
    free(text);
    admin_answer(c, 0, s);
}

static json_t *node_name(const struct command *c)
{
    str name = c->home->node->name;
    return json_stringn(name.n ? name.p : "", name.n);
}

static void answer_json(struct command *c, json_t *items)
{
    answer_root(c, json_pack("{s:i, s:o, s:o}", "v", 1, "node", node_name(c), "items", items));
}

void admin_answer_account(struct command *c, const char *what)
{
    LOG(c->home->node->log, account_changed, F_JID("jid", c->jid), F_STR("what", str_of(what)),
        F_STR("by", STR("admin")));
    answer_json(c, json_pack("[{s:s%}]", "jid", c->jid.p, c->jid.n));
}

static void counted(struct home *h, void *ctx, err e, const Store__Reply *reply)
{
    struct command *c = ctx;
    str domain = jid_parse_prepared(c->jid).domain;
    str text = arena_printf(home_arena(h), "no user %.*s", STR_ARG(c->jid));
    if (e == ERR_OK)
        text = arena_printf(home_arena(h), "%.*s (host %.*s has %u users)", STR_ARG(text),
                            STR_ARG(domain), (unsigned)reply->accounts->total);
    admin_answer(c, EXIT_NO_SUCH, text);
}

/* How many there are tells a wrong name from a wrong host. */
void admin_no_such_user(struct command *c)
{
    Store__AccountList op = STORE__ACCOUNT_LIST__INIT;
    Store__Request r = STORE__REQUEST__INIT;
    str domain = jid_parse_prepared(c->jid).domain;
    if (!home_serves(c->home, domain)) {
        admin_answer(c, EXIT_NO_SUCH,
                     arena_printf(home_arena(c->home), "no user %.*s: no host %.*s",
                                  STR_ARG(c->jid), STR_ARG(domain)));
        return;
    }
    op.host = home_bytes(domain), op.limit = 1;
    r.op_case = STORE__REQUEST__OP_ACCOUNT_LIST, r.account_list = &op;
    home_store(c->home, STR_NONE, &r, counted, c);
}

static void full(struct command *c)
{
    unsigned host = conf_host_metric(c->home->node->conf, jid_parse_prepared(c->jid).domain);
    home_count(c->home, METRIC_AT(host_quota_hits, host, QUOTA_USERS), 1);
    admin_answer(c, EXIT_FAILED, STR("the host has all the users it may have (users_max)"));
}

void admin_store_failed(struct command *c, err e)
{
    if (e == ERR_NOT_FOUND)
        admin_no_such_user(c);
    else if (e == ERR_EXISTS)
        admin_answer(c, EXIT_THERE_ALREADY,
                     arena_printf(home_arena(c->home), "%.*s exists already", STR_ARG(c->jid)));
    else if (e == ERR_FULL)
        full(c);
    else
        admin_answer(
            c, EXIT_FAILED,
            arena_printf(home_arena(c->home), "the store could not do it: %s", err_row(e)->text));
}

/* ---- accounts ---- */

static void store(struct command *c, Store__Request *r, home_store_f *done)
{
    home_store(c->home, c->jid, r, done, c);
}

void admin_keep(struct command *c, struct user *u)
{
    c->user = u;
    user_pin(u);
}

void admin_let_go(struct command *c) { user_unpin(c->user); }

static bool keys_of(struct command *c, struct scram_keys *keys, unsigned char *blob, size_t *n)
{
    str hex = c->arg[0];
    *n = hex.n / 2;
    return c->argc == 1 && hex.n % 2 == 0 && *n <= SCRAM_BLOB_MAX && !hex_decode(hex, blob, *n) &&
           !scram_keys_decode((str){(char *)blob, *n}, keys);
}

static void added(struct home *h, void *ctx, err e, const Store__Reply *reply)
{
    struct command *c = ctx;
    admin_let_go(c);
    if (e) {
        admin_store_failed(c, e);
        return;
    }
    user_account_changed(c->user, true, false);
    admin_answer_account(c, "added");
}

static void passwd_done(struct home *h, void *ctx, err e, const Store__Reply *reply)
{
    struct command *c = ctx;
    if (e) {
        admin_store_failed(c, e);
        return;
    }
    struct user *u = user_find(h, c->jid);
    if (u && u->state == USER_READY)
        user_end_sessions(u, ERR_STREAM_RESET, NULL);
    admin_answer_account(c, "password");
}

/* host.users_max of the account's domain; 0: no limit. */
static uint64_t host_max(const struct command *c)
{
    const struct conf_host *host =
        conf_host_find(c->home->node->conf, jid_parse_prepared(c->jid).domain);
    return host ? host->users_max : 0;
}

static void add(struct command *c, struct user *u)
{
    struct scram_keys keys;
    unsigned char blob[SCRAM_BLOB_MAX];
    Store__AccountAdd op = STORE__ACCOUNT_ADD__INIT;
    if (!keys_of(c, &keys, blob, &op.keys.len)) {
        admin_answer(c, EXIT_USAGE, STR("user-add: keys expected"));
        return;
    }
    op.keys.data = blob;
    op.created_us = home_wall_us(c->home);
    op.host_max = host_max(c);
    Store__Request r = STORE__REQUEST__INIT;
    r.op_case = STORE__REQUEST__OP_ACCOUNT_ADD, r.account_add = &op;
    admin_keep(c, u);
    store(c, &r, added);
}

static void passwd(struct command *c, struct user *u)
{
    struct scram_keys keys;
    unsigned char blob[SCRAM_BLOB_MAX];
    Store__AccountSetKeys op = STORE__ACCOUNT_SET_KEYS__INIT;
    if (!keys_of(c, &keys, blob, &op.keys.len)) {
        admin_answer(c, EXIT_USAGE, STR("user-passwd: keys expected"));
        return;
    }
    op.keys.data = blob;
    Store__Request r = STORE__REQUEST__INIT;
    r.op_case = STORE__REQUEST__OP_ACCOUNT_SET_KEYS, r.account_set_keys = &op;
    store(c, &r, passwd_done);
}

static void removed(struct home *h, void *ctx, err e, const Store__Reply *reply)
{
    struct command *c = ctx;
    admin_let_go(c);
    if (e) {
        admin_store_failed(c, e);
        return;
    }
    user_cancel_subscriptions(c->user);
    user_account_changed(c->user, false, false);
    admin_answer_account(c, "removed");
}

/* Loaded before, so that its contacts can be told (their items are gone from the store after). */
static void remove_user(struct command *c, struct user *u)
{
    Store__AccountRemove op = STORE__ACCOUNT_REMOVE__INIT;
    Store__Request r = STORE__REQUEST__INIT;
    if (!u->exists) {
        admin_no_such_user(c);
        return;
    }
    r.op_case = STORE__REQUEST__OP_ACCOUNT_REMOVE, r.account_remove = &op;
    admin_keep(c, u);
    store(c, &r, removed);
}

/* ---- list, show ---- */

static void listed(struct home *h, void *ctx, err e, const Store__Reply *reply)
{
    struct command *c = ctx;
    if (e) {
        admin_store_failed(c, e);
        return;
    }
    json_t *items = json_array();
    const Store__AccountPage *page = reply->accounts;
    for (size_t i = 0; i < page->n_jids; i++)
        json_array_append_new(items,
                              json_pack("{s:s%}", "jid", page->jids[i].data, page->jids[i].len));
    answer_root(c, json_pack("{s:i, s:o, s:I, s:o}", "v", 1, "node", node_name(c), "total",
                             (json_int_t)page->total, "items", items));
}

static void list_users(struct command *c)
{
    Store__AccountList op = STORE__ACCOUNT_LIST__INIT;
    if (!home_serves(c->home, c->jid)) {
        admin_answer(c, EXIT_NO_SUCH,
                     arena_printf(home_arena(c->home), "no host %.*s", STR_ARG(c->jid)));
        return;
    }
    op.host = home_bytes(c->jid);
    op.like = home_bytes(c->argc > 0 ? c->arg[0] : STR_NONE);
    op.after = home_bytes(c->argc > 1 ? c->arg[1] : STR_NONE);
    op.limit = c->argc > 2 && c->arg[2].n ? (uint32_t)strtoul(c->arg[2].p, NULL, 10) : 0;
    op.disabled = c->argc > 3 && str_is(c->arg[3], "disabled");
    Store__Request r = STORE__REQUEST__INIT;
    r.op_case = STORE__REQUEST__OP_ACCOUNT_LIST, r.account_list = &op;
    home_store(c->home, STR_NONE, &r, listed, c);
}

static unsigned count_sessions(struct user *u)
{
    unsigned n = 0;
    user_each_session(s, u)
        n++;
    return n;
}

static const char *stamp(struct home *h, int64_t us)
{
    return us ? stanza_stamp(us, home_arena(h)).p : "";
}

static void show(struct command *c, struct user *u)
{
    if (!u->exists) {
        admin_no_such_user(c);
        return;
    }
    answer_json(c, json_pack("[{s:s%, s:s, s:b, s:i, s:i, s:i, s:s}]", "jid", c->jid.p, c->jid.n,
                             "created", stamp(c->home, u->created_us), "disabled", u->disabled,
                             "sessions", (int)count_sessions(u), "roster",
                             u->roster ? (int)u->roster->count : 0, "offline_messages",
                             (int)u->offline_count, "last_seen",
                             stamp(c->home, u->last ? u->last->us : 0)));
}

/* ---- sessions ---- */

static const char *tls_name(unsigned version)
{
    return version == 0x0304 ? "1.3" : version == 0x0303 ? "1.2" : "";
}

static json_t *session_json(struct home *h, struct session *s)
{
    struct node *n = h->node;
    str full = session_full(s, home_arena(h));
    str edge_node = n->peers ? peers_name(n->peers, peer_block(s->edge)) : n->name;
    str edge = arena_printf(home_arena(h), "%.*s/%u", STR_ARG(edge_node), peer_shard(s->edge));
    str address = session_address(s, home_arena(h));
    str home_at = arena_printf(home_arena(h), "%.*s/%u", STR_ARG(n->name), n->shard);
    int64_t since = s->since_us;
    return json_pack("{s:s%, s:s, s:s, s:s, s:s, s:s, s:s, s:i, s:b, s:i, s:i}", "jid", full.p,
                     full.n, "state", s->detached ? "detached" : "connected", "edge", edge.p,
                     "home", home_at.p, "address", address.p, "tls", tls_name(s->tls), "since",
                     stamp(h, since), "priority", (int)s->priority, "resumable", s->resumable,
                     "unacked", (int)s->queued, "queue_bytes", (int)s->queued_bytes);
}

static void sessions(struct command *c, struct user *u)
{
    if (!u->exists && !u->anonymous) {
        admin_no_such_user(c);
        return;
    }
    json_t *items = json_array();
    user_each_session(s, u)
        json_array_append_new(items, session_json(c->home, s));
    answer_json(c, items);
}

static void kick(struct command *c, struct user *u)
{
    if (!u->exists && !u->anonymous) {
        admin_no_such_user(c);
        return;
    }
    json_t *items = json_array();
    user_each_session(s, u)
        if (c->argc == 0 || str_eq(c->arg[0], session_resource(s))) {
            json_array_append_new(items, session_json(c->home, s));
            session_doom(s, ERR_STREAM_KICKED);
        }
    if (c->argc && json_array_size(items) == 0) {
        json_decref(items);
        admin_answer(c, EXIT_NO_SUCH,
                     arena_printf(home_arena(c->home), "%.*s has no session \"%.*s\"",
                                  STR_ARG(c->jid), STR_ARG(c->arg[0])));
        return;
    }
    answer_json(c, items);
}

/* ---- dispatch ---- */

static const struct row {
    const char *name;
    size_t argc_min, argc_max; /* behind the JID */
    void (*run)(struct command *c, struct user *u);
    void (*run_host)(struct command *c); /* instead: the first argument is a host */
} rows[] = {
    {"user-add", 1, 1, add, NULL},
    {"user-passwd", 1, 1, passwd, NULL},
    {"user-remove", 0, 0, remove_user, NULL},
    {"user-show", 0, 0, show, NULL},
    {"user-sessions", 0, 0, sessions, NULL},
    {"user-kick", 0, 1, kick, NULL},
    {"user-disable", 0, 0, admin_disable, NULL},
    {"user-enable", 0, 0, admin_enable, NULL},
    {"user-roster", 0, 0, admin_roster, NULL},
    {"user-list", 0, 4, NULL, list_users},
    {"users-online", 0, 0, NULL, admin_users_online},
    {"announce", 1, 2, NULL, admin_announce},
};

static struct command *command_new(struct home *h, const str *argv, size_t argc,
                                   home_answer_f *done, void *ctx)
{
    size_t n = 0;
    for (size_t i = 1; i < argc; i++)
        n += argv[i].n + 1;
    struct command *c = calloc(1, sizeof *c + n);
    must(c);
    c->home = h, c->answer = done, c->ctx = ctx, c->argc = argc - 2;
    char *at = c->text;
    for (size_t i = 1; i < argc; i++) {
        str copy = {memcpy(at, argv[i].p ? argv[i].p : "", argv[i].n), argv[i].n};
        at += argv[i].n + 1;
        if (i == 1)
            c->jid = copy;
        else
            c->arg[i - 2] = copy;
    }
    return c;
}

static void with_user(struct work *w, struct user *u)
{
    struct command *c = container_of(w, struct command, work);
    if (u)
        c->run(c, u);
    else
        admin_store_failed(c, ERR_AWAY);
}

void home_command(struct home *h, const str *argv, size_t argc, home_answer_f *done, void *ctx)
{
    const struct row *row = NULL;
    for (size_t i = 0; argc && i < array_len(rows); i++)
        if (str_eq(argv[0], str_of(rows[i].name)))
            row = &rows[i];
    if (!row || argc < 2 + row->argc_min || argc > 2 + row->argc_max) {
        done(ctx, EXIT_USAGE, STR("this shard does not know such a command"));
        return;
    }
    struct command *c = command_new(h, argv, argc, done, ctx);
    if (row->run_host) {
        row->run_host(c);
        return;
    }
    list_init(&c->work.link);
    c->work.run = with_user;
    c->run = row->run;
    user_with(h, c->jid, &c->work);
}
