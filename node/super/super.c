/* The supervisor's life, as a table of contents: prepare, open, spawn, turn, stop. */
#include "node/super/super.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "node/super/commit.inc"
#include "node/super/hosts.h"
#include "node/super/inside.h"
#include "node/super/machine.h"
#include "node/super/notify.h"

enum {
    TICK_MS = 1000,
    ROTATE_MS = 10000,
    STORE_STOP_MS = 10000,
    KILL_WAIT_MS = 2000,
    MOVE_LOOK_MS = 50
};

int64_t super_clock_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

int64_t super_clock_ms(void) { return super_clock_us() / 1000; }

/* ---- prepare --------------------------------------------------------------------------------- */

static int load(struct super *s)
{
    s->draft = conf_draft_new();
    conf_load(s->draft, s->config_file);
    for (size_t i = 0; i < s->set_count; i++)
        conf_draft_assign(s->draft, str_of(s->sets[i]));
    s->conf = conf_draft_build(s->draft);
    s->hosts = hosts_new();
    if (s->conf)
        hosts_place(s->hosts, s->conf);
    s->conf_fd = s->conf ? conf_seal(s->conf) : -1;
    struct cluster_state *k = &s->cluster;
    if (s->conf_fd >= 0 &&
        certificates_bus(s->draft, s->conf, &k->identity_fd, &k->identity_end_s) == ERR_OK)
        return EXIT_DONE;
    size_t n = s->draft->problem_count;
    for (size_t i = 0; i < n && i < CONF_PROBLEMS_MAX; i++)
        fprintf(stderr, "%.*s\n", STR_ARG(s->draft->problems[i]));
    fprintf(stderr, "%zu error%s.\n", n, n == 1 ? "" : "s");
    return EXIT_CONFIG;
}

void super_node_name(const struct conf *c, char out[33])
{
    char host[256] = "";
    str name = conf_text(c, c->node_name);
    if (name.n == 0 && gethostname(host, sizeof host - 1) == 0)
        name = str_from(host, strcspn(host, "."));
    size_t n = 0;
    for (size_t i = 0; i < name.n && n < 32; i++) {
        char k = name.p[i] >= 'A' && name.p[i] <= 'Z' ? (char)(name.p[i] | 0x20) : name.p[i];
        if ((k >= 'a' && k <= 'z') || (k >= '0' && k <= '9') || k == '-')
            out[n++] = k;
    }
    if (n == 0)
        out[n++] = 'a';
    out[n] = 0;
}

static struct log_config log_config(const struct super *s)
{
    static const enum log_privacy jids[] = {LOG_FULL, LOG_HASH, LOG_OFF};
    static const enum log_privacy addresses[] = {LOG_FULL, LOG_PREFIX, LOG_OFF};
    return (struct log_config){
        .fd = STDERR_FILENO,
        .format = s->conf->log_format == CONF_FORMAT_JSON ? LOG_FORMAT_JSON : LOG_FORMAT_LOGFMT,
        .level = (enum log_level)s->conf->log_level,
        .jids = jids[s->conf->log_jids],
        .addresses = addresses[s->conf->log_addresses],
        .event_rate = (uint32_t)conf_rate_per_second(s->conf->log_event_rate),
        .node = s->node,
        .process = "super",
        .clock = (struct clock *)(uintptr_t)&s->clock,
        .metrics = s->own,
    };
}

void super_log_again(struct super *s)
{
    const struct log_config c = log_config(s);
    log_reconfigure(s->log, &c);
}

static void raise_limits(void)
{
    struct rlimit files, none = {0, 0};
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &files);
    }
    (void)setrlimit(RLIMIT_CORE, &none); /* dumps hold keys: ops/coredump.md */
}

static bool find_directory(struct super *s)
{
    ssize_t n = readlink("/proc/self/exe", s->directory, sizeof s->directory - 1);
    if (n <= 0)
        return false;
    s->directory[n] = 0;
    *strrchr(s->directory, '/') = 0;
    return true;
}

static int open_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    const int signals[] = {SIGCHLD, SIGHUP, SIGTERM, SIGINT};
    for (size_t i = 0; i < array_len(signals); i++)
        sigaddset(&set, signals[i]);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* ---- open ------------------------------------------------------------------------------------ */

static err open_listeners(struct super *s, enum child_listener kind, struct conf_list addresses,
                          uint64_t backlog, str *problem, struct arena *a)
{
    for (uint32_t i = 0; i < addresses.count; i++) {
        if (s->listener_count == LISTENERS_MAX) {
            *problem = STR("too many addresses to listen on");
            return ERR_FULL;
        }
        struct listener *l = &s->listener[s->listener_count];
        *l = (struct listener){
            .kind = kind, .address = conf_list_at(s->conf, addresses, i), .backlog = (int)backlog};
        err e = listener_open(l, s->shards, a, problem);
        if (e)
            return e;
        l->address =
            (str){strndup(l->address.p, l->address.n), l->address.n}; /* outlives reloads */
        s->listener_count++;
    }
    return ERR_OK;
}

static err open_all_listeners(struct super *s, str *problem, struct arena *a)
{
    const struct conf *c = s->conf;
    err e = open_listeners(s, CHILD_C2S, c->listen_c2s_address, c->listen_c2s_backlog, problem, a);
    return e ? e
             : open_listeners(s, CHILD_C2S_TLS, c->listen_c2s_tls_address,
                              c->listen_c2s_tls_backlog, problem, a);
}

static err open_processes(struct super *s)
{
    s->process_count = s->shards + 1;
    for (unsigned i = 0; i < s->process_count; i++) {
        bool store = i == s->shards;
        process_init(&s->process[i], s, store ? CHILD_STORE : CHILD_SHARD, store ? 0 : i);
        err e = process_open(&s->process[i]);
        if (e)
            return e;
    }
    return ERR_OK;
}

static err open_node(struct super *s, str *problem, struct arena *a)
{
    *problem = STR("cannot set up shared memory");
    err e = files_directories(s->conf, problem, a);
    if (!e)
        e = files_lock(s, problem, a);
    if (!e)
        e = files_secret(s->conf, s->secret, problem, a);
    if (!e && (e = certificates_build(s, s->conf, &s->certs_fd)))
        *problem = STR("no usable certificate: see certificate_failed above");
    if (!e)
        e = open_all_listeners(s, problem, a);
    if (!e)
        e = cluster_open(s, problem, a);
    if (!e)
        e = http_open(s, &s->http, a, problem);
    if (!e)
        e = admin_open(s, problem);
    return e ? e : open_processes(s);
}

static void log_start(const struct super *s)
{
    struct utsname kernel = {0};
    uname(&kernel);
    LOG(s->log, node_starting, F_STR("version", STR(PEMBERLEY_VERSION)),
        F_STR("commit", STR(PEMBERLEY_COMMIT)), F_STR("kernel", str_of(kernel.release)),
        F_STR("config", str_of(s->config_file)));
}

/* ---- ready ----------------------------------------------------------------------------------- */

static void begin_listening(struct super *s)
{
    for (unsigned i = 0; i < s->listener_count; i++)
        if (listener_start(&s->listener[i], s->shards) != ERR_OK)
            LOG(s->log, node_degraded, F_STR("what", s->listener[i].address));
    for (unsigned i = 0; i < s->shards; i++)
        if (s->process[i].state == PROCESS_UP)
            process_listeners(&s->process[i], i);
}

void super_go_deaf(struct super *s)
{
    for (unsigned i = 0; i < s->shards; i++)
        super_unlisten(s, &s->process[i]);
    for (unsigned i = 0; i < s->listener_count; i++)
        listener_pause(&s->listener[i], s->shards);
}

void super_listen_again(struct super *s)
{
    for (unsigned i = 0; i < s->shards; i++)
        s->process[i].lent = false; /* nobody accepts for it; lend_listeners sees to that */
    begin_listening(s);
}

static void begin(struct super *s)
{
    begin_listening(s);
    s->ready = true;
    s->ready_ms = super_clock_ms() - s->started_ms;
    LOG(s->log, node_ready, F_INT("shards", s->shards), F_INT("hosts", s->conf->host_count),
        F_INT("ready_ms", s->ready_ms));
    notify_send("READY=1");
}

void super_unlisten(struct super *s, const struct process *owner)
{
    Control__ListenerGone gone = CONTROL__LISTENER_GONE__INIT;
    Control__ToChild m = CONTROL__TO_CHILD__INIT;
    gone.owner = owner->index;
    m.what_case = CONTROL__TO_CHILD__WHAT_LISTENER_GONE, m.listener_gone = &gone;
    for (unsigned i = 0; i < s->shards; i++)
        if (s->process[i].state == PROCESS_UP)
            process_send(&s->process[i], &m, NULL, 0);
}

/* From a neighbour: its owner is not sent its own listeners yet. */
static void take_back(struct super *s, struct process *owner)
{
    super_unlisten(s, owner);
    owner->lent = false;
}

void super_ready(struct super *s, struct process *p)
{
    bool fenced = s->cluster.fenced || s->cluster.let_go;
    if (s->ready && p->kind == CHILD_SHARD)
        cluster_ready(s); /* a fenced node listens again */
    if (s->ready) {
        if (p->lent)
            take_back(s, p);
        if (p->kind == CHILD_SHARD && !drain_is_closed(s) && !fenced)
            process_listeners(p, p->index);
        return;
    }
    for (unsigned i = 0; i < s->process_count; i++)
        if (s->process[i].state != PROCESS_UP)
            return;
    begin(s);
}

/* ---- turn ------------------------------------------------------------------------------------ */

/* What a dead shard had borrowed nobody serves; lend_listeners finds another. */
static void borrower_died(struct super *s, const struct process *dead)
{
    for (unsigned i = 0; dead->kind == CHILD_SHARD && i < s->shards; i++)
        if (s->process[i].lent && s->process[i].lent_to == dead->index)
            s->process[i].lent = false;
}

static void reap(struct super *s)
{
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
        for (unsigned i = 0; i < s->process_count; i++)
            if (s->process[i].state != PROCESS_DOWN && s->process[i].pid == pid) {
                process_turn(&s->process[i], 0); /* its last words */
                process_died(&s->process[i], status, s->now_ms);
                borrower_died(s, &s->process[i]);
            }
}

static void reload_by(struct super *s, const char *by)
{
    struct arena a;
    unsigned exit;
    arena_init(&a);
    (void)command_reload(s, by, &exit, &a);
    arena_close(&a);
}

static void on_signals(struct super *s)
{
    struct signalfd_siginfo info;
    while (read(s->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGCHLD)
            reap(s);
        else if (info.ssi_signo == SIGHUP)
            reload_by(s, "signal");
        else
            super_stop(s, s->conf->node_stop_timeout, "signal");
    }
}

static void start_due(struct super *s)
{
    for (unsigned i = 0; i < s->process_count; i++)
        if (s->process[i].state == PROCESS_DOWN && s->process[i].restart_at_ms <= s->now_ms)
            process_start(&s->process[i], s->now_ms);
    cluster_appoint(s);
}

/* A loop that has not turned for ten seconds is aborted; but not when we were late ourselves: then
 * the machine stood still, not the shard. */
static void watch_hearts(struct super *s, bool we_were_late)
{
    for (unsigned i = 0; i < s->process_count; i++) {
        struct process *p = &s->process[i];
        uint64_t beat = atomic_load_explicit(&p->page->heartbeat, memory_order_relaxed);
        if (p->state != PROCESS_UP || we_were_late || beat != p->heartbeat || beat == 0) {
            p->heartbeat = beat, p->heartbeat_at_ms = s->now_ms;
        } else if (s->now_ms - p->heartbeat_at_ms > HEARTBEAT_LATE_MS) {
            LOG(s->log, process_stuck, F_STR("process", str_of(process_name(p))),
                F_INT("index", p->index), F_INT("ms", s->now_ms - p->heartbeat_at_ms));
            kill(p->pid, SIGABRT);
            p->heartbeat_at_ms = s->now_ms;
        }
    }
}

static bool is_deaf(const struct super *s)
{
    return drain_is_closed(s) || s->cluster.fenced || s->cluster.let_go || s->stop_moving_until_ms;
}

/* The queue of a shard that stays down is served by the next one that is up. */
static void lend_listeners(struct super *s)
{
    for (unsigned i = 0; s->ready && !is_deaf(s) && i < s->shards; i++) {
        struct process *p = &s->process[i];
        if (p->state == PROCESS_UP || p->lent || s->now_ms - p->down_since_ms < HANDOVER_MS)
            continue;
        for (unsigned k = 1; k < s->shards && !p->lent; k++) {
            struct process *neighbour = &s->process[(i + k) % s->shards];
            if (neighbour->state == PROCESS_UP)
                process_listeners(neighbour, i), p->lent = true, p->lent_to = neighbour->index;
        }
    }
}

static void look_at_certificates(struct super *s)
{
    struct arena a;
    arena_init(&a);
    uint64_t seen = certificates_look(s, &a);
    arena_close(&a);
    if (seen == s->certificates_seen)
        return;
    s->certificates_seen = seen;
    reload_by(s, "certificate");
}

static void feed_watchdog(struct super *s)
{
    if (s->watchdog_ms == 0 || s->now_ms < s->watchdog_at_ms)
        return;
    s->watchdog_at_ms = s->now_ms + s->watchdog_ms;
    notify_send("WATCHDOG=1");
}

static void tick(struct super *s)
{
    bool late = s->now_ms - s->tick_at_ms > 2 * TICK_MS;
    s->tick_at_ms = s->now_ms + TICK_MS;
    feed_watchdog(s);
    status_tick(s);
    http_tick(s->http);
    cluster_tick(s);
    if (s->stopping)
        return;
    watch_hearts(s, late);
    lend_listeners(s);
    if (s->now_ms >= s->rotate_at_ms) {
        status_rotate(s);
        process_count_fds(s);
        s->rotate_at_ms = s->now_ms + ROTATE_MS;
    }
    if (s->now_ms >= s->certificates_at_ms) {
        look_at_certificates(s);
        s->certificates_at_ms = s->now_ms + CERTIFICATE_LOOK_MS;
    }
    log_flush(s->log);
}

static int wait_ms(const struct super *s)
{
    int64_t next = s->tick_at_ms;
    for (unsigned i = 0; !s->stopping && i < s->process_count; i++)
        if (s->process[i].state == PROCESS_DOWN && s->process[i].restart_at_ms < next)
            next = s->process[i].restart_at_ms;
    if (s->stopping && s->stop_deadline_ms < next)
        next = s->stop_deadline_ms;
    if (s->stop_moving_until_ms && s->now_ms + MOVE_LOOK_MS < next)
        next = s->now_ms + MOVE_LOOK_MS;
    if (drain_next_ms(s) < next)
        next = drain_next_ms(s);
    return next > s->now_ms ? (int)(next - s->now_ms) : 0;
}

static void turn(struct super *s)
{
    struct pollfd p[2 + PROCESSES_MAX + CLIENTS_MAX + HTTP_FDS];
    nfds_t n = 0;
    p[n++] = (struct pollfd){.fd = s->signal_fd, .events = POLLIN};
    p[n++] = (struct pollfd){.fd = s->admin_fd, .events = POLLIN};
    for (unsigned i = 0; i < s->process_count; i++)
        p[n++] = (struct pollfd){.fd = s->process[i].ended ? -1 : s->process[i].fd,
                                 .events = list_empty(&s->process[i].waiting) ? POLLIN
                                                                              : POLLIN | POLLOUT};
    for (unsigned i = 0; i < CLIENTS_MAX; i++)
        p[n++] = (struct pollfd){.fd = s->client[i].fd,
                                 .events = list_empty(&s->client[i].waiting) ? POLLIN : POLLOUT};
    http_fds(s->http, p + n);
    n += HTTP_FDS;
    if (poll(p, n, wait_ms(s)) < 0)
        must(errno == EINTR);
    s->now_ms = super_clock_ms();
    struct pollfd *at = p + 2;
    for (unsigned i = 0; i < s->process_count; i++, at++)
        if (at->revents && at->fd >= 0)
            process_turn(&s->process[i], at->revents);
    for (unsigned i = 0; i < CLIENTS_MAX; i++, at++)
        if (at->revents && at->fd >= 0)
            admin_turn(&s->client[i], s, at->revents);
    http_turn(s->http, at);
    if (p[1].revents)
        admin_accept(s);
    if (p[0].revents)
        on_signals(s);
    if (s->now_ms >= s->tick_at_ms)
        tick(s);
    drain_turn(s);
    if (!s->stopping)
        start_due(s);
}

/* ---- stop ------------------------------------------------------------------------------------ */

static void tell_stop(struct process *p, int64_t within_ms)
{
    Control__Stop stop = CONTROL__STOP__INIT;
    Control__ToChild m = CONTROL__TO_CHILD__INIT;
    stop.deadline_ms = (uint32_t)within_ms;
    m.what_case = CONTROL__TO_CHILD__WHAT_STOP, m.stop = &stop;
    if (p->state == PROCESS_STARTING)
        kill(p->pid, SIGTERM); /* it may not listen to us yet */
    process_send(p, &m, NULL, 0);
}

static int64_t time_left_ms(const struct super *s)
{
    int64_t left = s->stop_deadline_ms - KILL_WAIT_MS - s->now_ms;
    return left > 0 ? left : 0;
}

/* All but the clerk, which leaves the cluster for them when they have ended. */
static void stop_shards(struct super *s)
{
    for (unsigned i = 0; i < s->shards; i++)
        if (s->shards == 1 || !cluster_is_clerk(&s->process[i]))
            tell_stop(&s->process[i], time_left_ms(s));
}

static void stop_clerk(struct super *s)
{
    struct process *clerk = &s->process[s->cluster.clerk];
    if (s->clerk_told || s->shards == 1 || !cluster_is_clerk(clerk))
        return;
    for (unsigned i = 0; i < s->shards; i++)
        if (&s->process[i] != clerk && s->process[i].state != PROCESS_DOWN)
            return;
    s->clerk_told = true;
    tell_stop(clerk, time_left_ms(s));
}

static bool shards_down(const struct super *s)
{
    for (unsigned i = 0; i < s->shards; i++)
        if (s->process[i].state != PROCESS_DOWN)
            return false;
    return true;
}

void super_stop(struct super *s, int64_t within_ms, const char *reason)
{
    if (s->stopping) { /* a second Ctrl-C: now */
        s->stop_deadline_ms = s->now_ms;
        return;
    }
    drain_stopped(s);
    s->stopping = true;
    s->stop_reason = reason;
    s->stop_started_ms = s->now_ms;
    s->stop_deadline_ms = s->now_ms + within_ms + KILL_WAIT_MS;
    notify_send("STOPPING=1");
    if (s->ready && within_ms > 0 && !cluster_has_moved(s)) {
        s->stop_moving_until_ms = s->now_ms + within_ms / 2; /* the other half is for the rest */
        cluster_drain(s, true);
        super_go_deaf(s);
    } else {
        stop_shards(s);
    }
}

/* Homes go to other nodes before anything ends. */
static bool is_moving(struct super *s)
{
    if (!s->stop_moving_until_ms)
        return false;
    if (s->now_ms < s->stop_moving_until_ms && s->now_ms < s->stop_deadline_ms &&
        !cluster_has_moved(s) && !shards_down(s))
        return true;
    s->stop_moving_until_ms = 0;
    stop_shards(s);
    return false;
}

static void kill_late(struct super *s, unsigned from, unsigned to)
{
    for (unsigned i = from; i < to; i++)
        if (s->process[i].state != PROCESS_DOWN)
            kill(s->process[i].pid, SIGKILL);
    s->stop_deadline_ms = s->now_ms + KILL_WAIT_MS;
}

/* First the shards, which hand to the store what was not delivered; then the store. */
static bool stop_turn(struct super *s)
{
    bool late = s->now_ms >= s->stop_deadline_ms;
    if (is_moving(s))
        return false;
    stop_clerk(s);
    if (!shards_down(s)) {
        if (late)
            kill_late(s, 0, s->shards);
        return false;
    }
    struct process *store = super_store(s);
    if (!s->store_told) {
        s->store_told = true;
        s->stop_deadline_ms = s->now_ms + STORE_STOP_MS + KILL_WAIT_MS;
        tell_stop(store, STORE_STOP_MS);
    } else if (late) {
        kill_late(s, s->shards, s->shards + 1);
    }
    return store->state == PROCESS_DOWN;
}

static void answer_stop(struct super *s, int64_t ms)
{
    char text[256];
    int n = snprintf(text, sizeof text,
                     "{\"v\":1,\"node\":\"%s\",\"sessions\":%llu,\"flushed\":%llu,"
                     "\"seconds\":%.3f}",
                     s->node, (unsigned long long)s->told_sessions, (unsigned long long)s->flushed,
                     (double)ms / 1e3);
    for (unsigned i = 0; i < CLIENTS_MAX; i++)
        if (s->client[i].fd >= 0 && s->client[i].waits_for_stop)
            admin_reply(s, &s->client[i], EXIT_DONE, str_from(text, (size_t)n));
}

static void close_node(struct super *s)
{
    int64_t ms = super_clock_ms() - s->stop_started_ms;
    LOG(s->log, node_stopped, F_STR("reason", str_of(s->stop_reason)), F_INT("ms", ms));
    unlink(s->admin_path);
    close(s->lock_fd); /* before the answer: who waits for it may start the next node at once */
    answer_stop(s, ms);
    for (unsigned i = 0; i < CLIENTS_MAX; i++)
        if (s->client[i].fd >= 0)
            admin_close(&s->client[i]);
    http_close(s->http);
    cluster_close(s);
    for (unsigned i = 0; i < s->listener_count; i++) {
        listener_close(&s->listener[i], s->shards);
        free((char *)(uintptr_t)s->listener[i].address.p);
    }
    explicit_bzero(s->secret, sizeof s->secret);
}

/* ---- all of it ------------------------------------------------------------------------------- */

static int live(struct super *s)
{
    struct arena a;
    str problem;
    arena_init(&a);
    err e = open_node(s, &problem, &a);
    if (e)
        fprintf(stderr, "pemberley: %.*s\n", STR_ARG(problem));
    else
        s->certificates_seen = certificates_look(s, &a);
    arena_close(&a);
    if (e)
        return EXIT_FAILED;
    s->ring = ring_single(s->secret, s->shards);
    start_due(s);
    while (!s->stopping || !stop_turn(s))
        turn(s);
    ring_free(s->ring);
    close_node(s);
    return s->exit_code;
}

static void set_up(struct super *s)
{
    clock_real_init(&s->clock);
    super_node_name(s->conf, s->node);
    const struct log_config log = log_config(s);
    s->log = log_open(&log);
    s->shards = s->conf->node_shards ? (unsigned)s->conf->node_shards : machine_cores();
    if (s->shards > CHILD_SHARDS_MAX)
        s->shards = CHILD_SHARDS_MAX;
    s->now_ms = s->started_ms = super_clock_ms();
    s->tick_at_ms = s->now_ms + TICK_MS;
    s->rotate_at_ms = s->now_ms + ROTATE_MS;
    s->certificates_at_ms = s->now_ms + CERTIFICATE_LOOK_MS;
    s->watchdog_ms = notify_watchdog_ms();
    s->next_incarnation = (uint64_t)clock_wall_us(&s->clock);
    s->next_command = 1;
    for (unsigned i = 0; i < CLIENTS_MAX; i++) {
        s->client[i].fd = -1;
        list_init(&s->client[i].waiting);
    }
}

int super_run(const char *config_file, const char *const *sets, size_t n)
{
    struct super *s = calloc(1, sizeof *s);
    must(s);
    s->own = calloc(1, sizeof *s->own);
    must(s->own);
    s->reload_s = time(NULL);
    s->config_file = config_file, s->sets = sets, s->set_count = n;
    s->certs_fd = s->lock_fd = s->admin_fd = s->cluster.identity_fd = -1;
    int result = load(s);
    if (result == EXIT_DONE) {
        set_up(s);
        raise_limits();
        s->signal_fd = open_signals();
        log_start(s);
        result = s->signal_fd >= 0 && find_directory(s) ? live(s) : EXIT_FAILED;
        log_flush(s->log);
        log_close(s->log);
    }
    free(s->conf);
    conf_draft_free(s->draft);
    free(s->certificates);
    hosts_free(s->hosts);
    free(s->own);
    free(s);
    return result;
}
