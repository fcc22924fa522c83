/* The wiring of one shard. Start order: conf, log, loop, metrics, hub, channels, store, tls, home,
 * edge; stop order: edge (clients are told), home (what is undelivered is stored), then the process
 * ends and the kernel takes the rest. */
#include "node/shard/shard.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cluster/copy.h"
#include "cluster/peers.h"
#include "node/conf/conf.h"
#include "node/os/fifo.h"
#include "node/os/os.h"
#include "node/os/resolve.h"
#include "node/shard/bus.h"
#include "node/shard/commands.h"
#include "node/shard/membership.h"
#include "node/shard/rooms.h"
#include "node/shard/siblings.h"
#include "node/store_client/store_client.h"
#include "node/super/child.h"
#include "node/tls/helper.h"
#include "node/tls/tls.h"

enum {
    FRAME_MAX = 17 << 20,   /* the largest stanza, with what another node's bring along */
    OUTBOX_MAX = 256 << 20, /* windows keep it far below; more is a broken peer */
    SAMPLE_MS = 1000,       /* memory and CPU into the metrics page */
    LOST_MS = 1000,         /* the supervisor is gone: flush for so long */
    LEFT_MS = 100,          /* for the last word to the registry: that the lease is free */
    RESOLVE_MS = 5000,
};

struct shard {
    struct node node;
    struct child *child;
    struct op child_op;
    short child_waits_for; /* events the op was armed with */
    uint64_t peer_incarnation[FIFO_PEERS];
    char node_name[64], process_name[16];
    struct fifo_hub *hub;
    struct clock clock;
    struct entropy_real entropy;
    struct arena turn;
    struct store_client *store;
    struct edge *edge;
    struct home *home;
    struct bus *bus; /* of a cluster; else NULL, as the next three */
    struct siblings *siblings;
    struct membership *membership;
    struct resolver *resolver;
    struct commands *commands;
    struct turn_hook channel_hook;
    struct timer sample, deadline;
    uint64_t flushed, sessions; /* for the report of a stop */
    struct loop_stats counted;  /* of the loop, as already added to the metrics page */
    struct fifo_stats fifos_counted;
    uint64_t cpu_counted_us;
    bool bus_full, stalled;
    bool started, stopping, ended;
};

/* ---- frames ---- */

static void dispatch(struct shard *s, struct origin from, const struct frame *f)
{
    if (f->kind == FRAME_COMMAND || f->kind == FRAME_ANSWER)
        commands_frame(s->commands, from, f);
    else
        rooms_frame(&s->node, s->edge, s->home, from, f);
}

static void observe_stage(struct shard *s, enum metric_stage stage, int64_t us)
{
    metric_observe(s->node.metrics, HISTOGRAM_AT(stage, stage), us > 0 ? (uint64_t)us : 0);
}

/* One of the stanzas whose way is timed: the hop that ends here, and what its home does with it.
 * Out of line: its registers would cost all others (60 instructions a message, callgrind). */
static __attribute__((noinline, cold)) void timed_frame(struct shard *s, struct origin from,
                                                        const struct frame *f)
{
    int64_t began_us = clock_wall_us(s->node.clock);
    bool from_sender = f->kind == FRAME_IN, to_addressee = f->kind == FRAME_ROUTE;
    observe_stage(s, STAGE_BUS, began_us - (int64_t)f->sent);
    dispatch(s, from, f);
    if (from_sender || to_addressee)
        observe_stage(s, from_sender ? STAGE_HOME_FROM : STAGE_HOME_TO,
                      clock_wall_us(s->node.clock) - began_us);
}

static void handle_frame(struct shard *s, struct origin from, const struct frame *f)
{
    if (f->sent)
        timed_frame(s, from, f);
    else
        dispatch(s, from, f);
}

/* Another machine's stamps are of its clock: from here on they are of ours. */
static __attribute__((noinline)) void remote_frame(struct shard *s, struct origin from,
                                                   const struct frame *f)
{
    struct frame here = *f;
    int64_t offset_us = bus_offset_us(s->bus, from.peer);
    if (f->us)
        here.us = (uint64_t)((int64_t)f->us - offset_us);
    if (f->sent)
        here.sent = (uint64_t)((int64_t)f->sent - offset_us);
    handle_frame(s, from, &here);
}

static void on_frame(void *ctx, struct origin from, const struct frame *f)
{
    if (from.peer >= CHILD_SHARDS_MAX)
        remote_frame(ctx, from, f);
    else
        handle_frame(ctx, from, f);
}

static void on_settled(void *ctx, struct hold h, bool lost)
{
    struct shard *s = ctx;
    rooms_settled(s->edge, s->home, h, lost);
}

static void send_to_shard(void *ctx, unsigned peer, const struct iovec *v, size_t n, bool later)
{
    struct shard *s = ctx;
    if (!s->membership && later)
        fifo_hub_send_later(s->hub, fifo_shard(peer), v, n);
    else if (!s->membership)
        fifo_hub_send(s->hub, fifo_shard(peer), v, n);
    else if (peer < CHILD_SHARDS_MAX)
        siblings_send(s->siblings, peer, v, n, later);
    else
        bus_send(s->bus, peer, v, n);
}

static void send_to_store(void *ctx, const char *p, size_t n)
{
    struct shard *s = ctx;
    struct iovec iov = {(void *)p, n};
    fifo_hub_send(s->hub, fifo_store(0), &iov, 1);
}

static void wake_channels(void *ctx)
{
    struct shard *s = ctx;
    loop_at_turn_end(s->node.loop, &s->channel_hook);
}

static void run_channels(struct turn_hook *h)
{
    struct shard *s = container_of(h, struct shard, channel_hook);
    if (s->stalled)
        return;
    channel_run(s->node.channels);
    channel_flush(s->node.channels);
}

static void poison(struct shard *s, unsigned peer, const char *why);

static void sibling_frame(struct shard *s, unsigned peer, const char *p, size_t n)
{
    if (bus_is_post(p, n) ? bus_take(s->bus, p, n)
                          : siblings_receive(s->siblings, peer, (str){p, n}))
        poison(s, peer, "not a frame");
}

static void hub_frame(void *ctx, unsigned peer, const char *p, size_t n)
{
    struct shard *s = ctx;
    if (peer == fifo_store(0))
        store_client_on_frame(s->store, p, n);
    else if (s->membership)
        sibling_frame(s, peer, p, n);
    else if (channel_receive(s->node.channels, peer, (str){p, n}))
        poison(s, peer, "not a frame");
}

/* ---- peers ---- */

static void poison(struct shard *s, unsigned peer, const char *why)
{
    enum child_kind kind = peer < fifo_store(0) ? CHILD_SHARD : CHILD_STORE;
    uint32_t index = kind == CHILD_SHARD ? peer : peer - fifo_store(0);
    char name[32];
    snprintf(name, sizeof name, "%s %u", kind == CHILD_SHARD ? "shard" : "store", index);
    LOG(s->node.log, frame_refused, F_STR("peer", str_of(name)), F_STR("reason", str_of(why)));
    fifo_hub_detach(s->hub, peer);
    child_poisoned(s->child, kind, index, s->peer_incarnation[peer]);
}

static void hub_poisoned(void *ctx, unsigned peer, const char *why) { poison(ctx, peer, why); }

static unsigned peer_id(enum child_kind kind, uint32_t index)
{
    return kind == CHILD_SHARD ? fifo_shard(index) : fifo_store(index);
}

/* What it said last may not have been a reason to wake us: it is heard before its end is. */
static void peer_gone(struct shard *s, enum child_kind kind, uint32_t index)
{
    fifo_hub_poll(s->hub);
    fifo_hub_detach(s->hub, peer_id(kind, index));
    if (kind == CHILD_STORE) {
        store_client_worker_down(s->store);
        return;
    }
    if (s->membership) {
        siblings_detached(s->siblings, index);
        membership_sibling_down(s->membership, index);
    } else if (channel_peer_is_up(s->node.channels, index)) {
        rooms_peer_down(&s->node, s->home, index);
    }
}

static void on_peer_down(void *ctx, enum child_kind kind, uint32_t index, uint64_t incarnation)
{
    struct shard *s = ctx;
    if (s->peer_incarnation[peer_id(kind, index)] == incarnation)
        peer_gone(s, kind, index);
}

static void sibling_up(struct shard *s, unsigned index, uint64_t incarnation)
{
    siblings_attached(s->siblings, index, incarnation);
    membership_sibling_up(s->membership, index, incarnation);
}

static void on_peer_up(void *ctx, const struct child_peer *p)
{
    struct shard *s = ctx;
    unsigned peer = peer_id(p->kind, p->index);
    if (fifo_hub_attached(s->hub, peer))
        peer_gone(s, p->kind, p->index);
    s->peer_incarnation[peer] = p->incarnation;
    struct fifo_end end = {peer, p->incarnation};
    if (fifo_hub_attach(s->hub, end, p->segment_fd, p->bell_fd, p->wake_fd)) {
        poison(s, peer, "segment cannot be mapped");
        return;
    }
    if (p->kind == CHILD_STORE)
        store_client_worker_up(s->store);
    else if (s->membership)
        sibling_up(s, p->index, p->incarnation);
    else
        rooms_peer_up(&s->node, s->edge, s->home, p->index, (uint32_t)p->incarnation);
}

/* ---- start ---- */

static struct log_config log_config_of(const struct shard *s)
{
    const struct conf *conf = s->node.conf;
    static const enum log_privacy jids[] = {LOG_FULL, LOG_HASH, LOG_OFF};
    static const enum log_privacy addresses[] = {LOG_FULL, LOG_PREFIX, LOG_OFF};
    return (struct log_config){
        .fd = STDERR_FILENO,
        .format = (enum log_format)conf->log_format,
        .level = (enum log_level)conf->log_level,
        .jids = jids[conf->log_jids],
        .addresses = addresses[conf->log_addresses],
        .event_rate = (uint32_t)conf_rate_per_second(conf->log_event_rate),
        .node = s->node_name,
        .process = s->process_name,
        .clock = s->node.clock,
        .key = &s->node.key,
        .metrics = s->node.metrics,
    };
}

static void start_log(struct shard *s, const struct child_start *start)
{
    snprintf(s->node_name, sizeof s->node_name, "%.*s", STR_ARG(start->node));
    snprintf(s->process_name, sizeof s->process_name, "%u", start->index);
    struct log_config c = log_config_of(s);
    s->node.log = log_open(&c);
    s->node.name = str_of(s->node_name);
}

static void start_loop(struct shard *s, int wake_fd)
{
    struct loop_config c = {.choice = (enum loop_choice)s->node.conf->node_loop,
                            .wake_fd = wake_fd};
    struct loop_fault fault;
    err e = loop_new(&c, &fault, &s->node.loop);
    if (fault.feature) {
        /* Memory is one shard's own want; anything else is the machine's, and said once, unless the
         * node ends of it: who is first then ends the others. */
        bool says = s->node.shard == 0 || fault.error == ENOMEM;
        enum log_level level = e ? LOG_ERROR : says ? LOG_WARN : LOG_DEBUG;
        LOG_AT(s->node.log, level, uring_missing, F_STR("feature", str_of(fault.feature)),
               F_INT("errno", fault.error));
    }
    if (e) { /* node.loop = io_uring where it is forbidden: the event has said why */
        log_flush(s->node.log);
        exit(CHILD_EXIT_CONFIG);
    }
}

static struct tls_config tls_config_of(const struct node *n)
{
    return (struct tls_config){
        .version_min = n->conf->tls_version_min == CONF_VERSION_1_3 ? 0x0304 : 0x0303,
        .ticket_lifetime_s = (uint32_t)(n->conf->tls_ticket_lifetime / 1000),
        .secret = n->secret,
        .clock = n->clock,
    };
}

static void start_tls(struct shard *s, int certs_fd)
{
    struct tls_config c = tls_config_of(&s->node);
    s->node.tls = tls_new(&c);
    err e = tls_take_certs(s->node.tls, certs_fd);
    must(!e); /* the supervisor built it */
    close(certs_fd);
    s->node.helper = helper_new(s->node.loop);
}

static void start_hub(struct shard *s, const struct child_start *start)
{
    struct fifo_hub_config c = {
        .self = {fifo_shard(start->index), start->incarnation},
        .bell_fd = start->bell_fd,
        .loop = s->node.loop,
        .frame_max = FRAME_MAX,
        .outbox_max = OUTBOX_MAX,
        .on_frame = hub_frame,
        .on_poisoned = hub_poisoned,
        .ctx = s,
    };
    err e = fifo_hub_open(&c, &s->hub);
    must(!e);
    struct channel_sinks sinks = {s, on_frame, on_settled, send_to_shard, wake_channels};
    s->node.channels = channels_new(start->index, start->shards, &sinks);
    list_init(&s->channel_hook.link);
    s->channel_hook.fn = run_channels;
    struct copies_config copies = {.channels = s->node.channels,
                                   .ring = s->node.ring,
                                   .turn = &s->turn,
                                   .marks = &s->node.marks,
                                   .loop = s->node.loop};
    s->node.copies = copies_new(&copies);
}

static void count_fifos(struct shard *s)
{
    struct metric_page *m = s->node.metrics;
    const struct fifo_stats *now = fifo_hub_stats(s->hub), *was = &s->fifos_counted;
    metric_add(m, METRIC_fifo_frames, (int64_t)(now->frames_out - was->frames_out));
    metric_add(m, METRIC_fifo_full, (int64_t)(now->full - was->full));
    metric_add(m, METRIC_fifo_wakeups, (int64_t)(now->wakeups - was->wakeups));
    s->fifos_counted = *now;
    metric_set(m, METRIC_fifo_queue_bytes, fifo_hub_queued(s->hub));
}

/* What is not read is looked at once a second. */
static void count_pauses(struct metric_page *m)
{
    for (unsigned i = 0; i < METRIC_SIZE_PAUSE; i++) {
        uint64_t paused = metric_get(m, METRIC_AT(reads_paused, i, 0));
        metric_add(m, METRIC_AT(paused_ms, i, 0), (int64_t)paused * SAMPLE_MS);
    }
}

static void count_loop(struct shard *s)
{
    struct metric_page *m = s->node.metrics;
    metric_set(m, METRIC_buffers_free, loop_stats(s->node.loop)->buffers_free);
    metric_set(m, METRIC_timers, loop_timers(s->node.loop));
}

_Static_assert(METRIC_SIZE_POOL == POOL_BUF + 1, "labels.def: POOL");

static void count_memory(struct shard *s)
{
    const struct node *n = &s->node;
    edge_sample(s->edge);
    home_sample(s->home);
    metric_set(n->metrics, METRIC_AT(memory_bytes, POOL_COPY, 0), copies_bytes(n->copies));
    metric_set(n->metrics, METRIC_AT(memory_bytes, POOL_CHANNEL, 0), channel_bytes(n->channels));
    metric_set(n->metrics, METRIC_AT(memory_bytes, POOL_MARK, 0), marks_bytes(&n->marks));
}

static void sample(struct timer *t)
{
    struct shard *s = container_of(t, struct shard, sample);
    metric_sample_process(s->node.metrics, &s->cpu_counted_us);
    count_fifos(s);
    count_pauses(s->node.metrics);
    count_loop(s);
    store_client_sample(s->store);
    if (s->membership) {
        bus_sample(s->bus);
        membership_sample(s->membership);
    }
    count_memory(s);
    log_flush(s->node.log);
    loop_timer_set(s->node.loop, t, SAMPLE_MS);
}

/* ---- a cluster ---- */

static void on_ready(void *ctx)
{
    struct shard *s = ctx;
    child_ready(s->child, loop_name(s->node.loop));
}

static void ended(void *ctx);

static void on_bad_sibling(void *ctx, unsigned shard) { poison(ctx, shard, "not a frame"); }

/* Edge, home and copies speak by frames only: where none goes, none does anything that others see,
 * and what was not acked is safe with who sent it. The store knows by itself whom it is not to obey
 * (fencing.h), and what an edge has for its client already, the client may have. */
static void on_membership_stalled(void *ctx, bool stalled)
{
    struct shard *s = ctx;
    s->stalled = stalled;
    edge_bus_full(s->edge, s->bus_full || stalled);
    siblings_hold(s->siblings, stalled, on_bad_sibling, s);
    bus_hold(s->bus, stalled);
    wake_channels(s);
}

/* Whose membership is over has nothing to tell anybody: the kernel closes its clients' sockets,
 * without </stream:stream>, and they resume elsewhere (delivery.md 5.6). */
static void on_membership_ended(void *ctx, enum member_end why)
{
    struct shard *s = ctx;
    if (why == MEMBER_LEFT && s->stopping) {
        loop_timer_set(s->node.loop, &s->deadline, LEFT_MS);
        return;
    }
    log_flush(s->node.log);
    _exit(CHILD_EXIT_FENCED);
}

static err bus_word(void *ctx, str node, str bytes)
{
    struct shard *s = ctx;
    return membership_hear(s->membership, node, bytes);
}

static void bus_silent(void *ctx, str node, bool silent)
{
    struct shard *s = ctx;
    membership_silent(s->membership, node, silent);
}

static void bus_full(void *ctx, bool full)
{
    struct shard *s = ctx;
    s->bus_full = full;
    edge_bus_full(s->edge, full || s->stalled);
}

static void take_identity(struct shard *s, int fd)
{
    err e = tls_take_bus(s->node.tls, fd);
    must(!e); /* the supervisor built it */
    close(fd);
}

static void join_cluster(struct shard *s, const struct child_start *start)
{
    struct node *n = &s->node;
    const struct resolver_config resolver = {.timeout_ms = RESOLVE_MS};
    const struct membership_sinks member = {s, on_ready, on_membership_stalled, on_membership_ended,
                                            on_bad_sibling};
    const struct bus_sinks sinks = {s, bus_word, bus_silent, bus_full};
    take_identity(s, start->cluster.identity_fd);
    s->resolver = resolver_open(n->loop, &resolver);
    s->siblings = siblings_new(s->hub, n->channels);
    s->membership = membership_new(n, start, s->child, s->resolver, &member);
    const struct bus_config c = {.node = n,
                                 .hub = s->hub,
                                 .resolver = s->resolver,
                                 .cluster = conf_text(n->conf, n->conf->cluster_name),
                                 .incarnation = start->incarnation};
    s->bus = bus_new(&c, &sinks);
}

static void on_child(struct op *op, int res)
{
    struct shard *s = container_of(op, struct shard, child_op);
    child_turn(s->child);
}

/* Keeps the poll armed for what the control socket waits for now. */
static void poll_child(struct shard *s)
{
    short events = child_events(s->child);
    if (s->child_op.state == OP_IDLE) {
        s->child_waits_for = events;
        loop_poll(s->node.loop, &s->child_op, child_fd(s->child), events);
    } else if (events != s->child_waits_for) {
        loop_poll_stop(s->node.loop, &s->child_op);
    }
}

static void on_start(void *ctx, const struct child_start *start)
{
    struct shard *s = ctx;
    struct node *n = &s->node;
    arena_init(&s->turn);
    clock_real_init(&s->clock);
    entropy_real_init(&s->entropy);
    *n = (struct node){.shard = start->index,
                       .shards = start->shards,
                       .clock = &s->clock,
                       .entropy = &s->entropy.entropy,
                       .turn = &s->turn,
                       .scan = xml_scan_new()};
    entropy_fill(n->entropy, &n->key, sizeof n->key);
    memcpy(n->secret, start->secret, sizeof n->secret);
    err e = conf_map(start->conf_fd, &n->conf);
    must(!e); /* of the same build, by the supervisor */
    close(start->conf_fd);
    e = metric_page_map(start->metrics_fd, &n->metrics);
    must(!e);
    close(start->metrics_fd);
    start_log(s, start);
    start_loop(s, start->wake_fd);
    n->start_ms = loop_now_ms(n->loop);
    n->ring = start->cluster.owner ? NULL : ring_single(n->secret, n->shards);
    start_hub(s, start);
    s->store = store_client_new(n->loop, n->conf, n->metrics, n->log, send_to_store, s);
    n->store = store_client_door(s->store);
    start_tls(s, start->certs_fd);
    if (start->cluster.owner)
        join_cluster(s, start);
    s->home = home_new(n);
    if (!s->membership)
        home_await_others(s->home);
    s->edge = edge_new(n);
    if (s->membership)
        membership_start(s->membership, s->edge, s->home, s->bus, s->siblings);
    const struct commands_config commands = {n, s->home, s->child, s->membership, s->bus};
    s->commands = commands_new(&commands);
    s->child_op = (struct op){.done = on_child};
    timer_init(&s->sample, sample);
    loop_timer_set(n->loop, &s->sample, 0);
    s->started = true;
    if (!s->membership)
        on_ready(s);
}

/* ---- what the supervisor says later ---- */

static void on_listener(void *ctx, enum child_listener kind, uint32_t owner, str address, int fd)
{
    struct shard *s = ctx;
    if (kind == CHILD_BUS) {
        bus_listen(s->bus, fd);
        return;
    }
    edge_listen(s->edge, kind == CHILD_C2S ? LISTENER_C2S : LISTENER_C2S_TLS, owner, fd);
}

static void on_listener_gone(void *ctx, uint32_t owner)
{
    struct shard *s = ctx;
    edge_unlisten(s->edge, owner);
}

static void on_clerk(void *ctx, uint32_t shard)
{
    struct shard *s = ctx;
    membership_clerk(s->membership, shard);
}

static void on_wish(void *ctx, const struct child_wish *w)
{
    struct shard *s = ctx;
    membership_wish(s->membership, w);
}

static void on_identity(void *ctx, int fd) { take_identity(ctx, fd); }

static void on_reload(void *ctx, uint64_t generation, int conf_fd, int certs_fd)
{
    struct shard *s = ctx;
    struct node *n = &s->node;
    const struct conf *old = n->conf;
    err e = conf_map(conf_fd, &n->conf);
    must(!e);
    close(conf_fd);
    struct tls_config c = tls_config_of(n);
    tls_configure(n->tls, &c);
    if (certs_fd >= 0) {
        e = tls_take_certs(n->tls, certs_fd);
        must(!e);
        close(certs_fd);
    }
    struct log_config log = log_config_of(s);
    log_reconfigure(n->log, &log);
    store_client_configure(s->store, n->conf);
    if (s->bus)
        bus_reload(s->bus);
    home_reload(s->home);
    edge_reload(s->edge);
    conf_unmap(old);
    child_reloaded(s->child, generation);
}

static void on_drain(void *ctx, const struct child_drain *d)
{
    struct shard *s = ctx;
    struct conf_rate rate = {d->count, d->per_ms};
    if (d->now)
        edge_let_all_go(s->edge);
    else if (d->on)
        edge_drain(s->edge, rate);
    else
        edge_drain_stop(s->edge);
}

static void on_command(void *ctx, uint64_t id, size_t argc, const str *argv)
{
    struct shard *s = ctx;
    commands_run(s->commands, id, argc, argv);
}

static void on_answer(void *ctx, uint64_t id, unsigned exit, str text, bool more)
{
    struct shard *s = ctx;
    commands_answered(s->commands, id, exit, text, more);
}

/* ---- stop ---- */

static void ended(void *ctx)
{
    struct shard *s = ctx;
    if (s->ended)
        return;
    s->ended = true;
    child_stopped(s->child, s->sessions, s->flushed);
}

static void rooms_ended(void *ctx)
{
    struct shard *s = ctx;
    if (!s->membership || !membership_leave(s->membership))
        ended(s);
}

static void edge_ended(void *ctx)
{
    struct shard *s = ctx;
    home_stop(s->home, rooms_ended, s);
}

static void too_late(struct timer *t) { ended(container_of(t, struct shard, deadline)); }

static void begin_stop(struct shard *s, uint64_t within_ms)
{
    if (s->stopping)
        return;
    s->stopping = true;
    if (!s->started) {
        ended(s);
        return;
    }
    const struct metric_page *m = s->node.metrics;
    s->sessions =
        metric_get(m, METRIC_sessions_connected) + metric_get(m, METRIC_sessions_detached);
    timer_init(&s->deadline, too_late);
    loop_timer_set(s->node.loop, &s->deadline, within_ms);
    edge_stop(s->edge, edge_ended, s);
}

static void on_stop(void *ctx, uint32_t deadline_ms) { begin_stop(ctx, deadline_ms); }

static bool other_nodes_hold_ours(const struct shard *s)
{
    size_t n = 0;
    const struct ring_peer *p = s->membership && s->node.ring ? ring_peers(s->node.ring, &n) : NULL;
    for (size_t i = 0; i < n; i++)
        if (p[i].full && peer_block(p[i].peer) != 0)
            return true;
    return false;
}

/* Also in the middle of a stop: the next node may start at once, and is not to share its port. What
 * other nodes hold goes on there, as after the death of this one: to end it here would end it for
 * clients of theirs, too. */
static void on_lost(void *ctx)
{
    struct shard *s = ctx;
    if (!s->stopping && other_nodes_hold_ours(s)) {
        log_flush(s->node.log);
        _exit(CHILD_EXIT_FENCED);
    }
    begin_stop(s, LOST_MS);
    if (s->started && s->deadline.due_ms > loop_now_ms(s->node.loop) + LOST_MS)
        loop_timer_set(s->node.loop, &s->deadline, LOST_MS);
}

/* ---- life ---- */

static const struct child_calls calls = {
    .on_start = on_start,
    .on_listener = on_listener,
    .on_listener_gone = on_listener_gone,
    .on_peer_up = on_peer_up,
    .on_peer_down = on_peer_down,
    .on_reload = on_reload,
    .on_drain = on_drain,
    .on_clerk = on_clerk,
    .on_wish = on_wish,
    .on_identity = on_identity,
    .on_command = on_command,
    .on_answer = on_answer,
    .on_stop = on_stop,
    .on_lost = on_lost,
};

/* The page outlives us: what our loop did is added to what our predecessors' did. */
static void count_turn(struct shard *s)
{
    struct metric_page *m = s->node.metrics;
    const struct loop_stats *now = loop_stats(s->node.loop);
    metric_add(m, METRIC_loop_turns, (int64_t)(now->turns - s->counted.turns));
    uint64_t us = now->busy_us - s->counted.busy_us;
    metric_add(m, METRIC_loop_busy_us, (int64_t)us);
    metric_add(m, METRIC_loop_completions, (int64_t)(now->completions - s->counted.completions));
    metric_add(m, METRIC_uring_overflows, (int64_t)(now->overflows - s->counted.overflows));
    metric_add(m, METRIC_buffers_exhausted,
               (int64_t)(now->buffers_exhausted - s->counted.buffers_exhausted));
    metric_observe(m, HISTOGRAM_loop_turn, us);
    if (us > (uint64_t)s->node.conf->log_slow * 1000)
        metric_add(m, METRIC_loop_stalls, 1);
    s->counted = *now;
    atomic_fetch_add_explicit(&m->heartbeat, 1, memory_order_relaxed);
}

static void run(struct shard *s)
{
    while (!s->ended) {
        poll_child(s);
        loop_turn(s->node.loop, 60000);
        arena_reset(&s->turn);
        count_turn(s);
    }
}

int shard_main(void)
{
    struct shard *s = calloc(1, sizeof *s);
    must(s);
    s->child = child_open(CHILD_FD, &calls, s);
    while (!s->started && !s->ended) { /* no loop yet: it is made by on_start */
        struct pollfd p = {child_fd(s->child), child_events(s->child), 0};
        poll(&p, 1, -1);
        child_turn(s->child);
    }
    if (!s->ended)
        run(s);
    return 0;
}
