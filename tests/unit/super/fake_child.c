/* A child for the supervisor's tests: does nothing but speak the control protocol. Its index and
 * kind decide nothing; commands make it die or hang:
 *   user-kick crash@localhost   aborts      user-kick hang@localhost   stops turning
 * In a cluster it says what a shard would, as it is told to:
 *   user-kick fence@localhost   its membership ends   user-kick epoch@localhost   heard of epoch 41
 *   user-kick stuck@localhost   shard 1 hangs         user-kick lost@localhost    Redis is away
 *   user-kick stall@localhost   may not act, as others wait too; alone@localhost: nobody does;
 *                               go-on@localhost: may again
 *   user-kick ask@localhost     asks its supervisor   node.name x…                its name is taken
 * It is ready when it has its socket of the bus and knows the clerk, and no file "hold" lies in
 * data_dir. Its slots go a moment after the wish to drain, unless there is a file "stay"; with one
 * "alone" no other node could have them. At its stop it adds a line to the file "stops": index,
 * wish, whether its sibling lives. */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "node/conf/conf.h"
#include "node/os/os.h"
#include "node/super/child.h"

struct fake {
    struct child *child;
    struct metric_page *page;
    struct child_start start;
    unsigned listeners, peers_up, peers_down, reloads;
    unsigned buses, clerks, identities;
    uint32_t clerk;
    struct child_wish wish;
    char data_dir[256];
    bool is_ready;
    uint64_t asking;  /* the command that it asks for */
    uint64_t sibling; /* its incarnation: there is one; 0: it is down */
    bool done;
};

static bool in_cluster(const struct fake *f) { return f->start.cluster.owner; }

static void set(struct fake *f, enum metric m, uint64_t v) { metric_set(f->page, m, v); }

static bool is_there(const struct fake *f, const char *file)
{
    char path[300];
    snprintf(path, sizeof path, "%s/%s", f->data_dir, file);
    return access(path, F_OK) == 0;
}

static bool may_be_ready(const struct fake *f)
{
    return !in_cluster(f) || (f->buses && f->clerks && !is_there(f, "hold"));
}

static void be_ready(struct fake *f)
{
    if (f->is_ready || !f->page || !may_be_ready(f))
        return;
    f->is_ready = true;
    set(f, METRIC_cluster_epoch, 7);
    set(f, METRIC_cluster_slots, 4096);
    set(f, METRIC_AT(cluster_nodes, MEMBERS_LIVE, 0), 2);
    set(f, METRIC_registry_up, 1);
    child_ready(f->child, "fake");
}

static void on_start(void *ctx, const struct child_start *s)
{
    struct fake *f = ctx;
    const struct conf *c;
    f->start = *s;
    must(conf_map(s->conf_fd, &c) == ERR_OK && conf_host_find(c, STR("localhost")));
    must(metric_page_map(s->metrics_fd, &f->page) == ERR_OK);
    must((s->kind == CHILD_SHARD) == (s->certs_fd >= 0) && s->wake_fd >= 0 && s->bell_fd >= 0);
    snprintf(f->data_dir, sizeof f->data_dir, "%s", conf_text(c, c->node_data_dir).p);
    must((s->cluster.owner != 0) == (s->cluster.identity_fd >= 0));
    if (in_cluster(f) && conf_text(c, c->node_name).p[0] == 'x') { /* the test's name for it */
        child_ended(f->child, MEMBER_NAME_TAKEN, 3);
        exit(CHILD_EXIT_FENCED);
    }
    be_ready(f);
}

static void on_listener(void *ctx, enum child_listener kind, uint32_t owner, str address, int fd)
{
    struct fake *f = ctx;
    int listens = 0;
    socklen_t n = sizeof listens;
    must(getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &n) == 0 && listens);
    if (kind == CHILD_BUS)
        f->buses += owner == f->start.index;
    else
        f->listeners++;
    close(fd);
    be_ready(f);
}

static void on_clerk(void *ctx, uint32_t shard)
{
    struct fake *f = ctx;
    f->clerks++, f->clerk = shard;
    be_ready(f);
}

static void on_wish(void *ctx, const struct child_wish *w)
{
    struct fake *f = ctx;
    f->wish = *w;
    bool alone = is_there(f, "alone");
    set(f, METRIC_AT(cluster_nodes, MEMBERS_LIVE, 0), alone || w->drain ? 1 : 2);
    set(f, METRIC_AT(cluster_nodes, MEMBERS_DRAINING, 0), w->drain && !alone);
}

static void on_identity(void *ctx, int fd)
{
    ((struct fake *)ctx)->identities++;
    close(fd);
}

static void on_answer(void *ctx, uint64_t id, unsigned exit, str text, bool more)
{
    struct fake *f = ctx;
    must(id == f->asking && !more);
    child_reply(f->child, id, exit, text);
}

static void on_peer_up(void *ctx, const struct child_peer *p)
{
    struct fake *f = ctx;
    must(p->segment_fd >= 0 && p->wake_fd >= 0 && p->bell_fd >= 0);
    f->peers_up++;
    if (p->kind == CHILD_SHARD)
        f->sibling = p->incarnation;
    close(p->segment_fd), close(p->wake_fd), close(p->bell_fd);
}

static void on_peer_down(void *ctx, enum child_kind kind, uint32_t index, uint64_t incarnation)
{
    struct fake *f = ctx;
    f->peers_down++;
    if (kind == CHILD_SHARD && f->sibling == incarnation)
        f->sibling = 0;
}

static void on_reload(void *ctx, uint64_t generation, int conf_fd, int certs_fd)
{
    struct fake *f = ctx;
    f->reloads++;
    close(conf_fd);
    if (certs_fd >= 0)
        close(certs_fd);
    child_reloaded(f->child, generation);
}

/* The example of operator.md 1. */
#define NODE(name, state, address, weight, slots, sessions) \
    "{\"name\":\"" name "\",\"state\":\"" state "\",\"address\":\"" address \
    "\",\"shards\":8,\"weight\":" weight ",\"slots\":" slots ",\"sessions\":" sessions \
    ",\"epoch\":41,\"version\":\"0.1.0\",\"config\":\"7f3a91c2\",\"lease_seconds\":2.4,"
#define THREE_NODES \
    "{\"v\":1,\"node\":\"a\",\"epoch\":41,\"settled\":true,\"frozen\":false,\"registry\":true," \
    "\"slots\":16384,\"items\":[" NODE( \
        "a", "live", "10.0.0.1:5275", "100", "5461", \
        "41203") "\"self\":true,\"up_seconds\":432000}," NODE("b", "live", "10.0.0.2:5275", "100", \
                                                              "5462", \
                                                              "40988") "\"rtt_seconds\":0.0003," \
                                                                       "\"up_seconds\":120}" \
                                                                       "," NODE("c", "drain", \
                                                                                "10.0.0.3:5275", \
                                                                                "0", "1207", \
                                                                                "9020") "\"rtt_" \
                                                                                        "seconds" \
                                                                                        "\":0." \
                                                                                        "0003," \
                                                                                        "\"drain_" \
                                                                                        "share\":" \
                                                                                        "0.78," \
                                                                                        "\"drain_" \
                                                                                        "eta_" \
                                                                                        "seconds" \
                                                                                        "\":40}]}"

/* Whether it was one of those of a cluster. */
static bool cluster_command(struct fake *f, uint64_t id, size_t argc, const str *argv)
{
    const str ask[] = {STR("node-weight"), STR("t"), STR("7")};
    const str drain[] = {STR("node-drain"), STR("t"), STR("timeout"), STR("1m")};
    const str other[] = {STR("node-weight"), STR("b"), STR("7")};
    const str stop[] = {STR("stop")};
    str who = argc > 1 ? argv[1] : STR("");
    if (str_is(who, "fence@localhost")) {
        child_ended(f->child, MEMBER_FENCED, 9);
        exit(CHILD_EXIT_FENCED);
    }
    if (str_is(who, "stall@localhost") || str_is(who, "alone@localhost"))
        child_stalled(f->child, true, str_is(who, "stall@localhost"), 9);
    if (str_is(who, "go-on@localhost"))
        child_stalled(f->child, false, true, 10);
    f->asking = id;
    if (str_is(who, "ask@localhost"))
        child_ask(f->child, id, 3, ask);
    else if (str_is(who, "ask-drain@localhost"))
        child_ask(f->child, id, 4, drain);
    else if (str_is(who, "ask-other@localhost"))
        child_ask(f->child, id, 3, other);
    else if (str_is(who, "ask-stop@localhost"))
        child_ask(f->child, id, 1, stop);
    else
        return false;
    return true;
}

static void on_command(void *ctx, uint64_t id, size_t argc, const str *argv)
{
    struct fake *f = ctx;
    char text[512];
    if (argc > 1 && str_is(argv[1], "crash@localhost"))
        abort();
    while (argc > 1 && str_is(argv[1], "hang@localhost"))
        pause();
    if (in_cluster(f) && cluster_command(f, id, argc, argv))
        return;
    if (argc > 1 && str_is(argv[1], "epoch@localhost"))
        child_epoch(f->child, 41);
    if (argc > 1 && str_is(argv[1], "stuck@localhost"))
        child_stuck(f->child, 1, f->sibling);
    if (argc > 1 && str_is(argv[1], "lost@localhost"))
        set(f, METRIC_registry_up, 0);
    if (argc > 1 && str_is(argv[1], "nobody@localhost")) {
        child_reply(f->child, id, 4, STR("no user nobody@localhost"));
        return;
    }
    if (str_is(argv[0], "node-list")) {
        child_reply(f->child, id, 0, STR(THREE_NODES));
        return;
    }
    if (str_is(argv[0], "user-list")) { /* longer than one message */
        str big = {malloc(200000), 200000};
        memset((char *)(uintptr_t)big.p, ' ', big.n);
        memcpy((char *)(uintptr_t)big.p, "{\"items\":[{\"jid\":\"a@localhost\"}]}", 33);
        child_reply(f->child, id, 0, big);
        free((char *)(uintptr_t)big.p);
        return;
    }
    int n = snprintf(text, sizeof text,
                     "{\"v\":1,\"items\":[{\"index\":%u,\"listeners\":%u,\"peers_up\":%u,"
                     "\"peers_down\":%u,\"reloads\":%u,\"clerk\":%u,\"weight\":%u,\"drain\":%d,"
                     "\"again\":%d,\"epoch\":%u,\"identities\":%u,\"words\":%zu}]}",
                     f->start.index, f->listeners, f->peers_up, f->peers_down, f->reloads, f->clerk,
                     f->wish.weight, f->wish.drain, f->start.cluster.again,
                     (unsigned)f->start.cluster.epoch, f->identities, argc);
    child_reply(f->child, id, 0, str_from(text, (size_t)n));
}

static void note_stop(const struct fake *f)
{
    char path[300];
    snprintf(path, sizeof path, "%s/stops", f->data_dir);
    FILE *out = fopen(path, "ae");
    must(out);
    fprintf(out, "%u %d %d\n", f->start.index, f->wish.drain, f->sibling != 0);
    fclose(out);
}

static void on_stop(void *ctx, uint32_t deadline_ms)
{
    struct fake *f = ctx;
    if (in_cluster(f) && f->start.kind == CHILD_SHARD)
        note_stop(f);
    child_stopped(f->child, 1, 2);
    f->done = true;
}

static void on_lost(void *ctx) { ((struct fake *)ctx)->done = true; }

int main(void)
{
    static const struct child_calls calls = {
        .on_start = on_start,
        .on_listener = on_listener,
        .on_peer_up = on_peer_up,
        .on_peer_down = on_peer_down,
        .on_reload = on_reload,
        .on_clerk = on_clerk,
        .on_wish = on_wish,
        .on_identity = on_identity,
        .on_answer = on_answer,
        .on_command = on_command,
        .on_stop = on_stop,
        .on_lost = on_lost,
    };
    struct fake f = {0};
    signal(SIGINT, SIG_IGN);
    f.child = child_open(CHILD_FD, &calls, &f);
    while (!f.done) {
        struct pollfd p = {.fd = child_fd(f.child), .events = child_events(f.child)};
        poll(&p, 1, 100);
        child_turn(f.child);
        be_ready(&f);
        if (f.page && f.is_ready && in_cluster(&f))
            set(&f, METRIC_cluster_slots, f.wish.drain && !is_there(&f, "stay") ? 0 : 4096);
        if (f.page)
            atomic_fetch_add(&f.page->heartbeat, 1);
    }
    child_close(f.child);
    return 0;
}
