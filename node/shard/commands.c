#include "node/shard/commands.h"

#include <stdlib.h>

#include "cluster/peers.h"
#include "node/home/home.h"
#include "node/shard/commands_inside.h"
#include "node/shard/membership.h"
#include "node/super/child.h"
#include "proto/xmpp/jid.h"

enum {
    ASKS_MAX = 256,
    JOBS_MAX = 256, /* of other shards; the supervisor has bounds of its own */
    ANSWER_MS = 5000,
    ANSWER_MAX = 16 << 20, /* of another shard: the longest of a home is a page of users */
    CHUNK = 32 << 10,      /* of an answer in one frame */
    ARGS_BYTES_MAX = 32 << 10,
};

/* ---- asking others ---- */

struct ask {
    struct list link;
    struct commands *commands;
    uint64_t id;
    unsigned peer;
    struct timer timer;
    command_done_f *done;
    void *ctx;
    char *text; /* what has come of the answer */
    size_t n;
};

static void ask_end(struct ask *a, unsigned exit, str text)
{
    list_remove(&a->link);
    a->commands->ask_count--;
    loop_timer_stop(a->commands->c.node->loop, &a->timer);
    a->done(a->ctx, exit, text);
    free(a->text);
    free(a);
}

static void on_late(struct timer *t)
{
    ask_end(container_of(t, struct ask, timer), COMMAND_LATE, STR("no answer in time"));
}

static struct ask *ask_find(struct commands *c, uint64_t id)
{
    list_each(a, &c->asks, struct ask, link)
        if (a->id == id)
            return a;
    return NULL;
}

static void send_command(struct commands *c, unsigned peer, uint64_t id, size_t argc,
                         const str *argv)
{
    struct frame f = {
        .kind = FRAME_COMMAND, .conn = id, .recipients = argv, .recipient_count = argc};
    channel_send(c->c.node->channels, peer, &f, (struct hold){HOLD_NONE, 0, 0}, false);
}

void commands_ask(struct commands *c, unsigned peer, size_t argc, const str *argv,
                  uint64_t timeout_ms, command_done_f *done, void *ctx)
{
    size_t bytes = 0;
    for (size_t i = 0; i < argc; i++)
        bytes += argv[i].n;
    if (c->ask_count == ASKS_MAX || argc > COMMAND_ARGS_MAX || bytes > ARGS_BYTES_MAX) {
        done(ctx, COMMAND_FAILED, STR("too many commands, or one that is too long"));
        return;
    }
    struct ask *a = calloc(1, sizeof *a);
    must(a);
    *a = (struct ask){.commands = c, .id = ++c->next_id, .peer = peer, .done = done, .ctx = ctx};
    timer_init(&a->timer, on_late);
    list_push_back(&c->asks, &a->link);
    c->ask_count++;
    loop_timer_set(c->c.node->loop, &a->timer, timeout_ms);
    if (peer == PEER_SUPERVISOR)
        child_ask(c->c.child, a->id, argc, argv);
    else
        send_command(c, peer, a->id, argc, argv);
}

static void take_answer(struct ask *a, unsigned exit, str text, bool more)
{
    if (text.n > ANSWER_MAX - a->n) {
        ask_end(a, COMMAND_FAILED, STR("the answer is too long"));
        return;
    }
    a->text = realloc(a->text, a->n + text.n + 1);
    must(a->text);
    if (text.n)
        memcpy(a->text + a->n, text.p, text.n);
    a->n += text.n;
    if (!more)
        ask_end(a, exit, (str){a->text, a->n});
}

void commands_answered(struct commands *c, uint64_t id, unsigned exit, str text, bool more)
{
    struct ask *a = ask_find(c, id);
    if (a && a->peer == PEER_SUPERVISOR)
        take_answer(a, exit, text, more);
}

/* ---- answering ---- */

static void send_answer(const struct job *j, unsigned exit, str text)
{
    struct channels *channels = j->commands->c.node->channels;
    do {
        str chunk = text.n > CHUNK ? str_from(text.p, CHUNK) : text;
        text = str_skip(text, chunk.n);
        struct frame f = {.kind = FRAME_ANSWER,
                          .conn = j->id,
                          .ord = exit,
                          .flags = text.n ? FRAME_MORE : 0,
                          .payload = chunk};
        channel_send(channels, j->from.peer, &f, (struct hold){HOLD_NONE, 0, 0}, false);
    } while (text.n);
}

void job_answer(struct job *j, unsigned exit, str text)
{
    if (j->done)
        j->done(j->ctx, exit, text);
    else if (j->remote)
        send_answer(j, exit, text);
    else
        child_reply(j->commands->c.child, j->id, exit, text);
    j->commands->job_count--;
    free(j);
}

static void pass_answer(void *ctx, unsigned exit, str text) { job_answer(ctx, exit, text); }

/* ---- who does it ---- */

static void answer_of_home(void *ctx, int exit, str text) { job_answer(ctx, (unsigned)exit, text); }

static void run_at_home(struct job *j, size_t argc, const str *argv)
{
    struct commands *c = j->commands;
    struct node *n = c->c.node;
    struct jid jid;
    bool named = argc > 1 && !str_is(argv[0], "user-list") &&
                 jid_prepare(argv[1], n->turn, &jid) == ERR_OK && jid.local.n > 0;
    unsigned home = named && n->ring ? ring_home(n->ring, jid.bare) : n->shard;
    if (c->c.membership && membership_is_stalled(c->c.membership))
        job_answer(j, COMMAND_LATE, STR("the node waits for the registry; ask again"));
    else if (home == n->shard)
        home_command(c->c.home, argv, argc, answer_of_home, j);
    else if (home == RING_NONE || j->remote)
        job_answer(j, COMMAND_LATE, STR("the account has no home at this moment; ask again"));
    else
        commands_ask(c, home, argc, argv, ANSWER_MS, pass_answer, j);
}

/* The lowest shard of a node of the view; RING_NONE: there is none. */
static unsigned shard_of(const struct commands *c, str name)
{
    const struct view *v = membership_view(c->c.membership);
    const struct view_node *n = v ? view_find(v, name) : NULL;
    if (!n || !n->shards)
        return RING_NONE;
    return peer_number(membership_block(c->c.membership, name),
                       (unsigned)__builtin_ctzll(n->shards));
}

/* Of a node's supervisor: ours, or through a shard of it. */
static void ask_node(struct job *j, size_t argc, const str *argv)
{
    struct commands *c = j->commands;
    if (argc < 2) {
        job_answer(j, COMMAND_USAGE, STR("the name of a node is wanted"));
        return;
    }
    if (str_eq(argv[1], c->c.node->name)) {
        commands_ask(c, PEER_SUPERVISOR, argc, argv, ANSWER_MS, pass_answer, j);
        return;
    }
    unsigned peer = j->remote ? RING_NONE : shard_of(c, argv[1]);
    if (peer == RING_NONE)
        job_answer(j, COMMAND_NO_SUCH,
                   arena_printf(c->c.node->turn, "no node %.*s in this cluster", STR_ARG(argv[1])));
    else
        commands_ask(c, peer, argc, argv, ANSWER_MS, pass_answer, j);
}

/* ---- everybody does it ---- */

static const char *const all[] = {"users-online", "announce"};

static bool concerns_all(str command)
{
    for (size_t i = 0; i < array_len(all); i++)
        if (str_eq(command, str_of(all[i])))
            return true;
    return false;
}

struct gathering {
    struct job *job;
    unsigned open, exit; /* exit: the first that is none */
    char *text;
    size_t n;
};

static void gathered(void *ctx, unsigned exit, str text)
{
    struct gathering *g = ctx;
    if (exit && !g->exit)
        g->exit = exit;
    if (!exit && text.n && text.n <= ANSWER_MAX - g->n) {
        g->text = realloc(g->text, g->n + text.n);
        must(g->text);
        memcpy(g->text + g->n, text.p, text.n);
        g->n += text.n;
    }
    if (--g->open)
        return;
    job_answer(g->job, g->exit, str_from(g->text ? g->text : "", g->n));
    free(g->text);
    free(g);
}

static void gathered_here(void *ctx, int exit, str text) { gathered(ctx, (unsigned)exit, text); }

static void ask_all(struct job *j, size_t argc, const str *argv)
{
    struct commands *c = j->commands;
    struct node *n = c->c.node;
    struct gathering *g = calloc(1, sizeof *g);
    must(g);
    g->job = j, g->open = 1;
    for (unsigned peer = 0; peer < ring_peers_end(n->ring); peer++)
        if (peer != n->shard && channel_peer_is_up(n->channels, peer)) {
            g->open++;
            commands_ask(c, peer, argc, argv, ANSWER_MS, gathered, g);
        }
    home_command(c->c.home, argv, argc, gathered_here, g);
}

static void run(struct job *j, size_t argc, const str *argv)
{
    bool cluster = j->commands->c.membership;
    if (cluster && argc && (str_is(argv[0], "node-drain") || str_is(argv[0], "node-weight")))
        ask_node(j, argc, argv);
    else if (argc && !j->remote && j->commands->c.node->ring && concerns_all(argv[0]))
        ask_all(j, argc, argv);
    else if (!cluster || !argc || !node_command(j, argc, argv))
        run_at_home(j, argc, argv);
}

static struct job *job_new(struct commands *c, uint64_t id)
{
    struct job *j = calloc(1, sizeof *j);
    must(j);
    j->commands = c, j->id = id;
    c->job_count++;
    return j;
}

void commands_run(struct commands *c, uint64_t id, size_t argc, const str *argv)
{
    run(job_new(c, id), argc, argv);
}

void commands_frame(struct commands *c, struct origin from, const struct frame *f)
{
    struct ask *a = f->kind == FRAME_ANSWER ? ask_find(c, f->conn) : NULL;
    if (f->kind == FRAME_COMMAND) {
        struct job *j = job_new(c, f->conn);
        j->remote = true, j->from = from;
        if (c->job_count > JOBS_MAX)
            job_answer(j, COMMAND_FAILED, STR("too many commands"));
        else
            run(j, f->recipient_count, f->recipients);
    } else if (a && a->peer == from.peer) {
        take_answer(a, (unsigned)f->ord, f->payload, f->flags & FRAME_MORE);
    }
    channel_done(c->c.node->channels, from);
}

static void run_for_door(struct command_door *d, size_t argc, const str *argv, command_done_f *done,
                         void *ctx)
{
    struct commands *c = container_of(d, struct commands, door);
    struct job *j = job_new(c, 0);
    j->done = done, j->ctx = ctx;
    if (c->job_count > JOBS_MAX)
        job_answer(j, COMMAND_FAILED, STR("too many commands"));
    else
        run(j, argc, argv);
}

struct commands *commands_new(const struct commands_config *config)
{
    struct commands *c = calloc(1, sizeof *c);
    must(c);
    c->c = *config;
    c->door.run = run_for_door;
    config->node->commands = &c->door;
    list_init(&c->asks);
    c->next_id =
        entropy_u64(config->node->entropy) >> 8; /* an answer to a predecessor is nobody's */
    return c;
}
