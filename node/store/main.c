/* pemberley-store: started by the supervisor only. One thread, no loop of the shards' kind: SQL
 * blocks anyway, so a turn is
 *
 *   frames of all shards -> a batch -> commit -> replies -> (nothing there? wait on the eventfd)
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
#include "node/super/child.h"

enum {
    OUTBOX_MAX = 256 << 20, /* replies to one shard; the shards' windows keep it far below */
    HEARTBEAT_MS = 1000,
    SAMPLE_MS = 1000,     /* memory, CPU and sizes into the metrics page */
    LAST_TURNS_MS = 1000, /* what a lost supervisor's worker may still take */
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

static void on_reply(struct store_port *port, unsigned peer, const char *p, size_t n)
{
    struct server *s = container_of(port, struct server, port);
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
        .event_rate = (uint32_t)s->conf->log_event_rate.count,
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

/* Without its database the process is of no use; the supervisor tries again with a back-off. */
static void open_worker(struct server *s)
{
    struct arena arena;
    arena_init(&arena);
    char why[1024];
    struct store_worker_options o = {
        .path = conf_path(s->conf, s->conf->store_path, &arena).p,
        .sync_full = s->conf->store_sync == CONF_SYNC_FULL,
        .batch_max = (unsigned)s->conf->store_batch_max,
    };
    s->port.reply = on_reply;
    err e = store_worker_open(&o, &s->port, s->log, why, sizeof why, &s->worker);
    if (e != ERR_OK) {
        LOG(s->log, store_failed, F_STR("op", STR("open")), F_STR("reason", str_of(why)));
        exit(1);
    }
    store_worker_set_metrics(s->worker, s->metrics);
    arena_close(&arena);
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
    child_ready(s->child, "sqlite");
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
    conf_unmap(old);
    child_reloaded(s->child, generation);
}

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static bool turn(struct server *s);

/* The shards have flushed before us; what they sent is executed. */
static void finish(struct server *s, uint64_t deadline_ms)
{
    uint64_t until = now_ms() + deadline_ms;
    while (s->hub && turn(s) && now_ms() < until)
        ;
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
    bool came = !store_worker_enough(s->worker) && fifo_hub_poll(s->hub);
    bool more = store_worker_run(s->worker);
    fifo_hub_flush(s->hub);
    return came || more;
}

/* Until somebody rings or the supervisor speaks; before the start there is only the supervisor. */
static void wait(struct server *s)
{
    struct pollfd fds[2] = {{child_fd(s->child), child_events(s->child), 0}, {-1, POLLIN, 0}};
    if (s->hub) {
        fds[1].fd = s->wake_fd;
        fifo_hub_sleep(s->hub, true);
        if (fifo_hub_poll(s->hub)) {
            fifo_hub_sleep(s->hub, false);
            return;
        }
    }
    poll(fds, 2, HEARTBEAT_MS);
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
    store_worker_close(s->worker); /* writes the WAL back */
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
