#include "node/super/cluster.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

#include "node/conf/value.h"
#include "node/super/inside.h"
#include "node/super/super.h"

enum {
    BUS_BACKLOG = 1024, /* as many nodes as a view has; their shards dial all at once */
    SOON_MS =
        1000, /* between two starts of a shard that is fenced at once, or bears a taken name */
};

/* ---- the epoch, over restarts ---------------------------------------------------------------- */

static str epoch_path(const struct super *s, struct arena *a)
{
    return arena_printf(a, "%s/cluster/epoch", conf_text(s->conf, s->conf->node_data_dir).p);
}

/* What it holds is a help when the registry has lost all, no condition: nothing there is none. */
static uint64_t epoch_read(const struct super *s, struct arena *a)
{
    unsigned long long epoch = 0;
    FILE *f = fopen(epoch_path(s, a).p, "re");
    if (f && fscanf(f, "%20llu", &epoch) != 1)
        epoch = 0;
    if (f)
        fclose(f);
    return epoch;
}

/* Whole or not at all: beside it, synced, renamed over it. */
static bool epoch_write(const struct super *s, struct arena *a)
{
    str path = epoch_path(s, a), beside = arena_printf(a, "%s.new", path.p);
    FILE *f = fopen(beside.p, "we");
    if (!f)
        return false;
    bool good = fprintf(f, "%llu\n", (unsigned long long)s->cluster.epoch) > 0 && fflush(f) == 0 &&
                fsync(fileno(f)) == 0;
    good = fclose(f) == 0 && good;
    return good && rename(beside.p, path.p) == 0;
}

void cluster_on_epoch(struct super *s, uint64_t epoch)
{
    struct arena a;
    if (!s->cluster.owner || epoch <= s->cluster.epoch)
        return;
    s->cluster.epoch = epoch;
    arena_init(&a);
    if (!epoch_write(s, &a))
        LOG(s->log, node_degraded, F_STR("what", STR("cluster/epoch cannot be written")));
    arena_close(&a);
}

/* ---- life ------------------------------------------------------------------------------------ */

static uint64_t draw_owner(void)
{
    uint64_t owner = 0;
    while (owner == 0)
        must(getrandom(&owner, sizeof owner, 0) == sizeof owner);
    return owner;
}

err cluster_open(struct super *s, str *problem, struct arena *a)
{
    struct cluster_state *k = &s->cluster;
    str bus = conf_text(s->conf, s->conf->listen_bus_address);
    if (conf_text(s->conf, s->conf->cluster_name).n == 0)
        return ERR_OK;
    err e = listener_open_bus(bus, s->shards, BUS_BACKLOG, k->bus_fd, problem, a);
    if (e)
        return e;
    k->bus_address = (str){strndup(bus.p, bus.n), bus.n};
    k->owner = draw_owner();
    k->epoch = epoch_read(s, a);
    k->weight = (uint32_t)s->conf->cluster_weight;
    return ERR_OK;
}

void cluster_close(struct super *s)
{
    struct cluster_state *k = &s->cluster;
    if (k->identity_fd >= 0)
        close(k->identity_fd);
    for (unsigned i = 0; k->owner && i < s->shards; i++)
        close(k->bus_fd[i]);
    free((char *)(uintptr_t)k->bus_address.p);
}

/* ---- to the shards --------------------------------------------------------------------------- */

void cluster_fill(const struct process *p, Control__Start *start)
{
    const struct cluster_state *k = &p->super->cluster;
    if (!k->owner || p->kind != CHILD_SHARD)
        return;
    start->has_owner = start->has_again = start->has_epoch = true;
    start->owner = k->owner, start->again = k->ran, start->epoch = k->epoch;
}

static void send_bus(struct process *p)
{
    const struct cluster_state *k = &p->super->cluster;
    Control__Listener l = CONTROL__LISTENER__INIT;
    Control__ToChild m = CONTROL__TO_CHILD__INIT;
    l.kind = CONTROL__LISTENER_KIND__BUS, l.owner = p->index;
    l.address = (char *)(uintptr_t)k->bus_address.p;
    m.what_case = CONTROL__TO_CHILD__WHAT_LISTENER, m.listener = &l;
    process_send(p, &m, &k->bus_fd[p->index], 1);
}

/* weight: `node weight`'s holds until the file says another. */
static void send_wish(struct process *p)
{
    Control__Wish wish = CONTROL__WISH__INIT;
    Control__ToChild m = CONTROL__TO_CHILD__INIT;
    wish.drain = p->super->cluster.drain, wish.weight = p->super->cluster.weight;
    m.what_case = CONTROL__TO_CHILD__WHAT_WISH, m.wish = &wish;
    process_send(p, &m, NULL, 0);
}

static void send_clerk(struct process *p)
{
    Control__Clerk clerk = CONTROL__CLERK__INIT;
    Control__ToChild m = CONTROL__TO_CHILD__INIT;
    clerk.shard = p->super->cluster.clerk;
    m.what_case = CONTROL__TO_CHILD__WHAT_CLERK, m.clerk = &clerk;
    process_send(p, &m, NULL, 0);
}

static void send_identity(struct process *p)
{
    Control__Identity identity = CONTROL__IDENTITY__INIT;
    Control__ToChild m = CONTROL__TO_CHILD__INIT;
    m.what_case = CONTROL__TO_CHILD__WHAT_IDENTITY, m.identity = &identity;
    process_send(p, &m, &p->super->cluster.identity_fd, 1);
}

static void tell_all(struct super *s, void (*send)(struct process *p))
{
    for (unsigned i = 0; s->cluster.owner && i < s->shards; i++)
        if (s->process[i].state != PROCESS_DOWN)
            send(&s->process[i]);
}

bool cluster_is_clerk(const struct process *p)
{
    const struct cluster_state *k = &p->super->cluster;
    return k->owner && p->kind == CHILD_SHARD && p->state != PROCESS_DOWN && p->index == k->clerk &&
           p->incarnation == k->clerk_incarnation;
}

void cluster_started(struct process *p)
{
    const struct super *s = p->super;
    if (!s->cluster.owner || p->kind != CHILD_SHARD)
        return;
    send_bus(p);
    send_wish(p);
    if (cluster_is_clerk(&s->process[s->cluster.clerk]))
        send_clerk(p);
}

/* The lowest that is up: it knows the view. Else the lowest that lives, as when all begin. */
static const struct process *choose_clerk(const struct super *s)
{
    const struct process *best = NULL;
    for (unsigned i = 0; i < s->shards; i++)
        if (s->process[i].state != PROCESS_DOWN && (!best || s->process[i].state > best->state))
            best = &s->process[i];
    return best;
}

void cluster_appoint(struct super *s)
{
    struct cluster_state *k = &s->cluster;
    if (!k->owner || s->stopping || cluster_is_clerk(&s->process[k->clerk]))
        return;
    const struct process *p = choose_clerk(s);
    k->clerk_incarnation = p ? p->incarnation : 0;
    if (!p)
        return;
    k->clerk = p->index;
    tell_all(s, send_clerk);
}

void cluster_configured(struct super *s, const struct conf *old)
{
    if (old->cluster_weight != s->conf->cluster_weight) {
        s->cluster.weight = (uint32_t)s->conf->cluster_weight;
        tell_all(s, send_wish);
    }
    tell_all(s, send_identity);
}

void cluster_drain(struct super *s, bool drain)
{
    s->cluster.drain = drain;
    tell_all(s, send_wish);
}

/* ---- the end of a membership ----------------------------------------------------------------- */

static void end_node(struct super *s, enum member_end why)
{
    str cluster = conf_text(s->conf, s->conf->cluster_name);
    if (why == MEMBER_NAME_TAKEN)
        fprintf(stderr,
                "pemberley: another node named \"%s\" is in cluster \"%.*s\". Stop it, or choose "
                "another node.name\n",
                s->node, STR_ARG(cluster));
    else
        fprintf(stderr, "pemberley: cluster \"%.*s\" has as many nodes as it may (%d)\n",
                STR_ARG(cluster), VIEW_NODES_MAX);
    s->exit_code = EXIT_FAILED;
    super_stop(s, 0, member_end_text(why));
}

/* One alone may have been removed by its own clerk: then the others go on. */
static bool all_are_fenced(const struct super *s)
{
    for (unsigned i = 0; i < s->shards; i++)
        if (s->process[i].state == PROCESS_UP && !s->process[i].fenced)
            return false;
    return true;
}

void cluster_on_ended(struct process *p, unsigned why, uint64_t epoch)
{
    struct super *s = p->super;
    struct cluster_state *k = &s->cluster;
    if (!k->owner || s->stopping || why > MEMBER_FULL || why == MEMBER_LEFT)
        return;
    p->fenced = true, p->name_taken = why == MEMBER_NAME_TAKEN;
    k->fenced |= k->let_go; /* the stall is over: who is ready again listens */
    k->stalled_ms = 0, k->let_go = false;
    if (!k->told)
        LOG(s->log, node_fenced, F_INT("epoch", epoch),
            F_STR("reason", str_of(member_end_text((enum member_end)why))));
    k->told = true;
    if (!s->ready && (why == MEMBER_NAME_TAKEN || why == MEMBER_FULL)) {
        end_node(s, (enum member_end)why);
    } else if (!k->fenced && all_are_fenced(s)) {
        k->fenced = true;
        super_go_deaf(s);
    }
}

/* ---- a stall --------------------------------------------------------------------------------- */

static bool any_is_stalled(const struct super *s)
{
    for (unsigned i = 0; i < s->shards; i++)
        if (s->process[i].state != PROCESS_DOWN && s->process[i].stalled)
            return true;
    return false;
}

/* They may be of use elsewhere: their sessions stay, and are detached when this node goes on. */
static void let_clients_go(struct super *s)
{
    Control__Drain drain = CONTROL__DRAIN__INIT;
    Control__ToChild m = CONTROL__TO_CHILD__INIT;
    s->cluster.let_go = true;
    if (!drain_is_closed(s))
        super_go_deaf(s);
    drain.on = drain.has_now = drain.now = true;
    m.what_case = CONTROL__TO_CHILD__WHAT_DRAIN, m.drain = &drain;
    for (unsigned i = 0; i < s->shards; i++)
        process_send(&s->process[i], &m, NULL, 0);
}

static void stall_is_over(struct super *s)
{
    struct cluster_state *k = &s->cluster;
    bool let_go = k->let_go;
    LOG(s->log, node_goes_on, F_INT("epoch", cluster_epoch(s)),
        F_INT("ms", s->now_ms - k->stalled_ms));
    k->stalled_ms = 0, k->let_go = false;
    if (let_go && !drain_is_closed(s))
        super_listen_again(s);
}

static void see_stall(struct super *s)
{
    struct cluster_state *k = &s->cluster;
    if (k->stalled_ms && !any_is_stalled(s))
        stall_is_over(s);
    else if (k->stalled_ms && !k->let_go && s->ready && !s->stopping &&
             s->now_ms - k->stalled_ms >= s->conf->cluster_stall_timeout)
        let_clients_go(s);
}

void cluster_on_stalled(struct process *p, const Control__Stalled *m)
{
    struct super *s = p->super;
    struct cluster_state *k = &s->cluster;
    p->stalled = m->stalled;
    if (m->stalled && !k->stalled_ms) {
        k->stalled_ms = s->now_ms;
        LOG(s->log, node_stalled, F_INT("epoch", m->epoch));
    }
    if (m->stalled && !m->company && !k->let_go && s->ready && !s->stopping)
        let_clients_go(s);
    see_stall(s);
}

int64_t cluster_fenced_wait(const struct process *p, int64_t now_ms)
{
    return p->name_taken || now_ms - p->backoff.started_ms < SOON_MS ? SOON_MS : 0;
}

void cluster_ready(struct super *s)
{
    bool was = s->cluster.fenced;
    s->cluster.told = s->cluster.fenced = false;
    if (was && !drain_is_closed(s))
        super_listen_again(s);
}

void cluster_on_stuck(struct process *by, uint32_t shard, uint64_t incarnation)
{
    struct super *s = by->super;
    struct process *p = shard < s->shards ? &s->process[shard] : NULL;
    if (!p || p == by || p->incarnation != incarnation || p->state == PROCESS_DOWN)
        return;
    LOG(s->log, process_stuck, F_STR("process", str_of(process_name(p))), F_INT("index", p->index),
        F_INT("ms", s->conf->cluster_barrier_timeout));
    kill(p->pid, SIGABRT);
}

/* ---- what the pages say ---------------------------------------------------------------------- */

static uint64_t most_of(const struct super *s, enum metric m)
{
    uint64_t most = 0;
    for (unsigned i = 0; i < s->shards; i++) {
        uint64_t v = metric_get(s->process[i].page, m);
        most = v > most ? v : most;
    }
    return most;
}

static uint64_t sum_of(const struct super *s, enum metric m)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < s->shards; i++)
        sum += metric_get(s->process[i].page, m);
    return sum;
}

uint64_t cluster_epoch(const struct super *s) { return most_of(s, METRIC_cluster_epoch); }

uint64_t cluster_slots(const struct super *s) { return sum_of(s, METRIC_cluster_slots); }

uint64_t cluster_nodes(const struct super *s, enum metric_member state)
{
    return most_of(s, METRIC_AT(cluster_nodes, state, 0));
}

/* Is no other node live? A node that is the only one with a share goes on being counted as live
 * itself: its draining is not published (member.h). A new clerk has counted nobody yet. */
static bool is_alone(const struct super *s)
{
    uint64_t live = cluster_nodes(s, MEMBERS_LIVE), draining = cluster_nodes(s, MEMBERS_DRAINING);
    return live + draining > 0 && live <= (draining == 0);
}

bool cluster_has_moved(const struct super *s)
{
    return !s->cluster.owner || cluster_slots(s) == 0 || is_alone(s);
}

/* The clerk's word: it is the one who would not be one without it. */
void cluster_tick(struct super *s)
{
    struct cluster_state *k = &s->cluster;
    const struct process *clerk = &s->process[k->clerk];
    see_stall(s);
    if (!k->owner || !cluster_is_clerk(clerk))
        return;
    if (metric_get(clerk->page, METRIC_registry_up))
        k->registry_lost_ms = 0;
    else if (!k->registry_lost_ms)
        k->registry_lost_ms = s->now_ms;
}

int64_t cluster_registry_away_s(const struct super *s)
{
    int64_t since = s->cluster.registry_lost_ms;
    return since ? (s->now_ms - since) / 1000 + 1 : 0;
}

uint64_t cluster_rails(const struct super *s, enum metric_rail state)
{
    return sum_of(s, METRIC_AT(bus_rails, state, 0));
}

bool cluster_bus_is_degraded(const struct super *s)
{
    return cluster_rails(s, RAILS_CONNECTING) || cluster_rails(s, RAILS_STALLED);
}

bool cluster_is_one(const struct super *s)
{
    return most_of(s, METRIC_cluster_settled) && !cluster_nodes(s, MEMBERS_SUSPECT);
}

/* ---- commands -------------------------------------------------------------------------------- */

static void to_clerk(struct super *s, struct client *c, size_t argc, const str *argv)
{
    struct process *clerk = &s->process[s->cluster.clerk];
    if (cluster_is_clerk(clerk))
        command_forward(s, c, clerk, argc, argv);
    else
        admin_reply(s, c, EXIT_TIMEOUT, STR("no shard is up; ask again"));
}

static void weigh(struct super *s, struct client *c, size_t argc, const str *argv)
{
    const struct conf_row *row = &conf_rows[CONF_ROW_cluster_weight];
    union conf_value v;
    struct arena a;
    arena_init(&a);
    const char *problem = argc == 3 ? conf_value_parse(row, argv[2], &a, &v) : "a weight is wanted";
    if (problem) {
        str value = argc == 3 ? argv[2] : STR("");
        admin_reply(s, c, EXIT_USAGE, conf_value_complaint(row, value, problem, &a));
    } else {
        s->cluster.weight = (uint32_t)v.count;
        tell_all(s, send_wish);
        admin_reply(s, c, EXIT_DONE,
                    arena_printf(&a, "{\"v\":1,\"node\":\"%s\",\"name\":\"%s\",\"weight\":%u}",
                                 s->node, s->node, s->cluster.weight));
    }
    arena_close(&a);
}

/* Of this node: here. Of another: its own supervisor does it, which a shard asks. */
static void of_a_node(struct super *s, struct client *c, size_t argc, const str *argv)
{
    bool drain = str_is(argv[0], "node-drain");
    if (argc < 2)
        admin_reply(s, c, EXIT_USAGE, STR("the name of a node is wanted"));
    else if (!str_eq(argv[1], str_of(s->node)) && c->asker)
        admin_reply(s, c, EXIT_NOT_FOUND, STR("this is another node"));
    else if (!str_eq(argv[1], str_of(s->node)))
        to_clerk(s, c, argc, argv);
    else if (drain)
        drain_command(s, c, argc - 1, argv + 1);
    else
        weigh(s, c, argc, argv);
}

void cluster_command(struct super *s, struct client *c, size_t argc, const str *argv)
{
    if (!s->cluster.owner)
        admin_reply(s, c, EXIT_FAILED, STR("this node is in no cluster (cluster.name is empty)"));
    else if (str_is(argv[0], "node-drain") || str_is(argv[0], "node-weight"))
        of_a_node(s, c, argc, argv);
    else
        to_clerk(s, c, argc, argv);
}
