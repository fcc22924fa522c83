/* pemberley-store: started by the supervisor only. One thread, no loop of the shards' kind: SQLite
 * blocks anyway, so a turn is
 *
 *   frames of all shards -> a batch -> commit -> replies -> (nothing there? wait on the eventfd,
 *                                                            and on PostgreSQL's sockets)
 *
 * While a batch commits, the next requests gather in the fifos. It ends by itself when the
 * supervisor says so or is gone: what waits is executed and answered first. */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "node/conf/conf.h"
#include "node/os/fifo.h"
#include "node/os/os.h"
#include "node/store/store.h"
#include "node/store/trim.h"
#include "node/super/child.h"

enum {
    OUTBOX_MAX = 256 << 20, /* replies to one shard; the shards' windows keep it far below */
    HEARTBEAT_MS = 1000,
    SAMPLE_MS = 1000,     /* memory, CPU and sizes into the metrics page */
    LAST_TURNS_MS = 1000, /* what a lost supervisor's worker may still take */
    FINISH_WAIT_MS = 20,
};

struct server {
    struct child *child;
    const struct conf *conf;
    struct log *log;
    struct clock clock;
    struct entropy_real entropy;
    struct hash_key key;
    char node[64];
    struct metric_page *metrics;
    struct fifo_hub *hub;
    struct store_port port;
    struct store_worker *worker;
    struct trimmer trimmer;
    struct arena names; /* of the config it was started with */
    int wake_fd;
    uint64_t cpu_counted_us, sampled_ms;
    uint64_t peer_incarnation[FIFO_PEERS];
    bool ended;
};

/* ---- frames ---------------------------------------------------------------------------------- */

static void on_frame(void *ctx, unsigned peer, const char *p, size_t n)
{
    struct server *s = ctx;
    store_worker_on_request(s->worker, peer, p, n);
}

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void on_reply(struct store_port *port, unsigned peer, const char *p, size_t n)
{
    struct server *s = container_of(port, struct server, port);
    if (peer == TRIM_PEER) {
        trim_on_reply(&s->trimmer, p, n, now_ms());
        return;
    }
    struct iovec iov = {(void *)p, n};
    fifo_hub_send(s->hub, peer, &iov, 1);
}

static void peer_gone(struct server *s, unsigned peer)
{
    fifo_hub_detach(s->hub, peer);
    store_worker_forget(s->worker, peer);
}

static void on_poisoned(void *ctx, unsigned peer, const char *why)
{
    struct server *s = ctx;
    char name[32];
    snprintf(name, sizeof name, "shard %u", peer);
    LOG(s->log, frame_refused, F_STR("peer", str_of(name)), F_STR("reason", str_of(why)));
    peer_gone(s, peer);
    child_poisoned(s->child, CHILD_SHARD, peer, s->peer_incarnation[peer]);
}

/* ---- the start ------------------------------------------------------------------------------- */

static struct log_config log_config_of(const struct server *s)
{
    static const enum log_privacy jids[] = {LOG_FULL, LOG_HASH, LOG_OFF};
    static const enum log_privacy addresses[] = {LOG_FULL, LOG_PREFIX, LOG_OFF};
    return (struct log_config){
        .fd = STDERR_FILENO,
        .format = (enum log_format)s->conf->log_format,
        .level = (enum log_level)s->conf->log_level,
        .jids = jids[s->conf->log_jids],
        .addresses = addresses[s->conf->log_addresses],
        .event_rate = (uint32_t)conf_rate_per_second(s->conf->log_event_rate),
        .node = s->node,
        .process = "store",
        .clock = (struct clock *)&s->clock,
        .key = &s->key,
        .metrics = s->metrics,
    };
}

static void start_log(struct server *s, const struct child_start *start)
{
    snprintf(s->node, sizeof s->node, "%.*s", STR_ARG(start->node));
    clock_real_init(&s->clock);
    entropy_real_init(&s->entropy);
    entropy_fill(&s->entropy.entropy, &s->key, sizeof s->key);
    struct log_config c = log_config_of(s);
    s->log = log_open(&c);
}

/* Views of the config that the worker was started with: all of these need a restart to change. */
static void postgres_of(struct server *s, struct store_postgres *p)
{
    static const enum store_tls tls[] = {STORE_TLS_VERIFY_FULL, STORE_TLS_VERIFY_CA,
                                         STORE_TLS_REQUIRE, STORE_TLS_OFF};
    const struct conf *c = s->conf;
    struct conf_list hosts = c->store_postgres_hosts;
    const char **names = arena_alloc(&s->names, (hosts.count + 1) * sizeof *names);
    for (uint32_t i = 0; i < hosts.count; i++)
        names[i] = arena_dup(&s->names, conf_list_at(c, hosts, i)).p;
    *p = (struct store_postgres){
        .open = store_postgres_open,
        .hosts = names,
        .hosts_n = hosts.count,
        .database = arena_dup(&s->names, conf_text(c, c->store_postgres_database)).p,
        .user = arena_dup(&s->names, conf_text(c, c->store_postgres_user)).p,
        .password_file = conf_path(c, c->store_postgres_password_file, &s->names).p,
        .tls = tls[c->store_postgres_tls],
        .ca_file = conf_path(c, c->store_postgres_ca_file, &s->names).p,
        .connections = (unsigned)c->store_postgres_connections,
        .node = s->node,
        .timeout_ms = c->store_timeout,
    };
}

/* Without its database the process is of no use; the supervisor tries again with a back-off. */
static void open_worker(struct server *s)
{
    char why[1024];
    struct store_postgres postgres;
    bool remote = s->conf->store_kind == CONF_STORE_POSTGRES;
    struct store_worker_options o = {
        .path = conf_path(s->conf, s->conf->store_path, &s->names).p,
        .sync_full = s->conf->store_sync == CONF_SYNC_FULL,
        .batch_max = (unsigned)s->conf->store_batch_max,
        .postgres = remote ? &postgres : NULL,
    };
    if (remote)
        postgres_of(s, &postgres);
    s->port.reply = on_reply;
    err e = store_worker_open(&o, &s->port, s->log, why, sizeof why, &s->worker);
    if (e != ERR_OK) {
        LOG(s->log, store_failed, F_STR("op", STR("open")), F_STR("reason", str_of(why)));
        exit(1);
    }
    store_worker_set_metrics(s->worker, s->metrics);
}

static void on_start(void *ctx, const struct child_start *start)
{
    struct server *s = ctx;
    must(conf_map(start->conf_fd, &s->conf) == ERR_OK); /* of the same build, by the supervisor */
    close(start->conf_fd);
    must(metric_page_map(start->metrics_fd, &s->metrics) == ERR_OK);
    close(start->metrics_fd);
    start_log(s, start);
    open_worker(s);
    s->wake_fd = start->wake_fd;
    struct fifo_hub_config c = {
        .self = {fifo_store(start->index), start->incarnation},
        .bell_fd = start->bell_fd,
        .frame_max = STORE_REQUEST_MAX,
        .outbox_max = OUTBOX_MAX,
        .on_frame = on_frame,
        .on_poisoned = on_poisoned,
        .ctx = s,
    };
    must(fifo_hub_open(&c, &s->hub) == ERR_OK);
    child_ready(s->child, store_worker_backend(s->worker));
}

/* ---- what the supervisor says later ---------------------------------------------------------- */

static void on_peer_up(void *ctx, const struct child_peer *p)
{
    struct server *s = ctx;
    unsigned peer = fifo_shard(p->index);
    peer_gone(s, peer); /* requests of its former life are nobody's */
    s->peer_incarnation[peer] = p->incarnation;
    struct fifo_end end = {peer, p->incarnation};
    if (fifo_hub_attach(s->hub, end, p->segment_fd, p->bell_fd, p->wake_fd) != ERR_OK)
        on_poisoned(s, peer, "segment cannot be mapped");
}

static void on_peer_down(void *ctx, enum child_kind kind, uint32_t index, uint64_t incarnation)
{
    struct server *s = ctx;
    if (s->peer_incarnation[fifo_shard(index)] == incarnation)
        peer_gone(s, fifo_shard(index));
}

static void on_reload(void *ctx, uint64_t generation, int conf_fd, int certs_fd)
{
    struct server *s = ctx;
    const struct conf *old = s->conf;
    must(conf_map(conf_fd, &s->conf) == ERR_OK);
    close(conf_fd);
    if (certs_fd >= 0)
        close(certs_fd);
    struct log_config log = log_config_of(s);
    log_reconfigure(s->log, &log);
    store_worker_set_batch_max(s->worker, (unsigned)s->conf->store_batch_max);
    store_worker_set_timeout(s->worker, s->conf->store_timeout);
    s->trimmer.host = s->conf->host_count; /* hosts may be others: a new pass, later */
    conf_unmap(old);
    child_reloaded(s->child, generation);
}

static bool turn(struct server *s);

/* SQLite has no sockets, and has executed a batch in each turn. */
static void wait_for_database(struct server *s, int ms)
{
    struct pollfd fds[STORE_FDS_MAX];
    size_t n = store_worker_fds(s->worker, fds, STORE_FDS_MAX);
    if (n > 0)
        poll(fds, n, store_worker_wait_ms(s->worker, ms));
}

/* The shards have flushed before us; what they sent is executed. */
static void finish(struct server *s, uint64_t deadline_ms)
{
    uint64_t until = now_ms() + deadline_ms;
    while (s->hub && (turn(s) || store_worker_queued(s->worker) > 0) && now_ms() < until)
        if (store_worker_queued(s->worker) > 0)
            wait_for_database(s, FINISH_WAIT_MS);
    s->ended = true;
}

static void on_stop(void *ctx, uint32_t deadline_ms)
{
    struct server *s = ctx;
    finish(s, deadline_ms);
    child_stopped(s->child, 0, 0);
}

static void on_lost(void *ctx) { finish(ctx, LAST_TURNS_MS); }

/* ---- turns ----------------------------------------------------------------------------------- */

static void sample(struct server *s)
{
    uint64_t now = now_ms();
    if (now - s->sampled_ms < SAMPLE_MS)
        return;
    s->sampled_ms = now;
    metric_sample_process(s->metrics, &s->cpu_counted_us);
    store_worker_sample(s->worker);
}

/* Returns whether there is more to do. */
static bool turn(struct server *s)
{
    atomic_fetch_add_explicit(&s->metrics->heartbeat, 1, memory_order_relaxed);
    sample(s);
    trim_turn(&s->trimmer, s->worker, s->conf, now_ms(), clock_wall_us(&s->clock));
    bool came = !store_worker_enough(s->worker) && fifo_hub_poll(s->hub);
    bool more = store_worker_run(s->worker);
    fifo_hub_flush(s->hub);
    return came || more;
}

/* Until somebody rings or the supervisor speaks; before the start there is only the supervisor. */
static void wait(struct server *s)
{
    struct pollfd fds[2 + STORE_FDS_MAX] = {{child_fd(s->child), child_events(s->child), 0},
                                            {-1, POLLIN, 0}};
    size_t n = 2;
    int ms = HEARTBEAT_MS;
    if (s->hub) {
        fds[1].fd = s->wake_fd;
        n += store_worker_fds(s->worker, fds + 2, STORE_FDS_MAX);
        ms = trim_wait_ms(&s->trimmer, now_ms(), store_worker_wait_ms(s->worker, ms));
        fifo_hub_sleep(s->hub, true);
        if (fifo_hub_poll(s->hub)) {
            fifo_hub_sleep(s->hub, false);
            return;
        }
    }
    poll(fds, n, ms);
    if (!s->hub)
        return;
    uint64_t rings;
    (void)!read(s->wake_fd, &rings, sizeof rings); /* it does not block */
    fifo_hub_sleep(s->hub, false);
    log_flush(s->log);
}

static void close_all(struct server *s)
{
    fifo_hub_close(s->hub);
    store_worker_close(s->worker); /* SQLite: writes the WAL back */
    arena_close(&s->names);
    log_close(s->log);
    metric_page_unmap(s->metrics);
    conf_unmap(s->conf);
    close(s->wake_fd);
}

int main(void)
{
    if (!child_has_supervisor()) {
        fputs("pemberley-store is started by the supervisor: run `pemberley run`\n", stderr);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    setenv("RES_OPTIONS", "timeout:1 attempts:2", 0); /* libpq looks names up in our only thread */
    signal(SIGXFSZ, SIG_IGN); /* a file size limit is a full disk, not our end */
    signal(SIGINT, SIG_IGN);  /* a terminal's Ctrl-C goes to all: the supervisor tells us */
    signal(SIGTERM, SIG_IGN); /* the supervisor's death: its socket ends, and we finish first */
    static const struct child_calls calls = {
        .on_start = on_start,
        .on_peer_up = on_peer_up,
        .on_peer_down = on_peer_down,
        .on_reload = on_reload,
        .on_stop = on_stop,
        .on_lost = on_lost,
    };
    struct server s = {.wake_fd = -1};
    arena_init(&s.names);
    s.child = child_open(CHILD_FD, &calls, &s);
    while (!s.ended) {
        if (!s.hub || !turn(&s))
            wait(&s);
        child_turn(s.child);
    }
    if (s.hub)
        close_all(&s);
    child_close(s.child);
    return 0;
}
