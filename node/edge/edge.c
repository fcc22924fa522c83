/* edge: the room's door (edge.h): frames from homes, settled stanzas, peers that die, reload,
 * stop. */
#include "node/edge/bearer.h"
#include "node/edge/inside.h"

#include <stdlib.h>
#include <sys/resource.h>

#include "node/edge/c2s.h"
#include "node/edge/listen.h"
#include "node/edge/stream.h"

enum { SPARE_FILES = 256, WHITESPACE_MAX = 1024 };
/* What we take in is scanned again with what we add: from and xml:lang on a root; on an element
 * that is cut out (private XML is the third within) what those around it and the header declare. */
enum {
    ATTRIBUTES_MAX = XML_ATTRIBUTES_MAX - 2,
    NAMESPACES_MAX = (XML_NAMESPACES_MAX - XML_HEADER_PREFIXES - 1) / 3,
};

static uint16_t at_most(uint64_t v, uint64_t max) { return (uint16_t)(v < max ? v : max); }

static struct xml_limits limits_of(const struct conf *c, uint64_t bytes, uint64_t elements)
{
    return (struct xml_limits){
        .bytes_max = (uint32_t)bytes,
        .elements_max = (uint32_t)elements,
        .depth_max = at_most(c->limits_depth_max, XML_DEPTH_MAX),
        .attributes_max = at_most(c->limits_attributes_max, ATTRIBUTES_MAX),
        .namespaces_max = at_most(c->limits_namespaces_max, NAMESPACES_MAX),
        .name_max = at_most(c->limits_name_max, UINT16_MAX),
        .whitespace_max = WHITESPACE_MAX,
    };
}

static size_t connections_max(const struct conf *c)
{
    struct rlimit files;
    if (c->limits_connections_max)
        return c->limits_connections_max;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur <= 2 * SPARE_FILES)
        return SPARE_FILES;
    return files.rlim_cur - SPARE_FILES;
}

/* The rates' units, as one number: what a bucket holds is counted in its rate's. */
static uint64_t rate_units(const struct conf *c)
{
    const struct conf_rate rates[] = {
        c->limits_address_connect_rate, c->auth_address_failure_rate,
        c->auth_account_failure_rate,   c->modules_register_address_rate,
        c->limits_c2s_stanza_rate,      c->limits_c2s_byte_rate};
    uint64_t units = 0;
    for (size_t i = 0; i < array_len(rates); i++)
        units = hash_u64(units + rates[i].per_ms);
    return units;
}

static void forgive(struct edge *e)
{
    throttle_forgive(&e->addresses);
    throttle_forgive(&e->failures);
    throttle_forgive(&e->registrations);
    list_each(conn, &e->conns, struct conn, link)
        conn->stanza_rate = conn->byte_rate = (struct bucket){0};
}

/* A conn's clock is looked at when it is due: by the old times, unless it is looked at now. */
static void take_over(struct conn *c)
{
    conn_resume(c, PAUSE_INBOUND); /* the half that it waits for may be another now */
    conn_place(c, c->elsewhere);
    c->pinged = false; /* how long its answer may take is another question now */
    if (!c->ending)
        loop_timer_set(c->edge->node->loop, &c->timer, 0);
}

void edge_reload(struct edge *e)
{
    const struct conf *c = e->node->conf;
    uint64_t units = rate_units(c);
    if (units != e->rate_units)
        forgive(e);
    e->rate_units = units;
    e->preauth = limits_of(c, c->limits_preauth_stanza_max, c->limits_preauth_elements_max);
    e->c2s = limits_of(c, c->limits_c2s_stanza_max, c->limits_c2s_elements_max);
    e->connections_max = connections_max(c);
    bearer_load(e);
    list_each(conn, &e->conns, struct conn, link)
        take_over(conn);
}

static void stop_check(struct turn_hook *h)
{
    struct edge *e = container_of(h, struct edge, stop_hook);
    if (e->stopped && e->conn_count == 0 && e->pending == 0) {
        void (*done)(void *) = e->stopped;
        e->stopped = NULL;
        done(e->stopped_ctx);
    }
}

/* From a hook, so that done() may free the edge. */
void edge_check_stopped(struct edge *e)
{
    if (e->stopping)
        loop_at_turn_end(e->node->loop, &e->stop_hook);
}

struct edge *edge_new(struct node *n)
{
    struct edge *e = calloc(1, sizeof *e);
    must(e);
    e->node = n;
    list_init(&e->listeners);
    list_init(&e->conns);
    list_init(&e->proxied);
    list_init(&e->logins_waiting);
    htable_init(&e->negotiations);
    htable_init(&e->sessions);
    htable_init(&e->headers);
    throttle_init(&e->addresses, EDGE_ADDRESSES_MAX);
    throttle_init(&e->failures, EDGE_ADDRESSES_MAX);
    throttle_init(&e->registrations, EDGE_ADDRESSES_MAX);
    timer_init(&e->drain.timer, edge_drain_tick);
    list_init(&e->stop_hook.link);
    e->stop_hook.fn = stop_check;
    /* Numbers of a former incarnation must not be taken for ours when a late answer comes. */
    e->last_number = entropy_u64(n->entropy) >> 8;
    edge_reload(e);
    admit_start(e);
    return e;
}

void edge_listen(struct edge *e, enum listener_kind kind, unsigned owner, int fd)
{
    listen_start(e, kind, owner, fd);
}

void edge_unlisten(struct edge *e, unsigned owner) { listen_stop(e, owner); }

/* A session's frame of another gen is for a former attachment: its copy's, or nobody's. */
static void session_frame(struct edge *e, struct origin from, const struct frame *f)
{
    struct c2s *s = c2s_find(e, f->sid, f->gen);
    if (s && f->kind == FRAME_OUT && f->stanza)
        return c2s_on_out(s, from, f);
    if (s && f->kind == FRAME_ENABLED) {
        c2s_on_enabled(s, f);
    } else if (s && f->kind == FRAME_STATE) {
        buf_unref(s->state);
        s->state = state_of(f);
    } else {
        copies_frame(e->node->copies, f);
    }
    channel_done(e->node->channels, from);
}

void edge_frame(struct edge *e, struct origin from, const struct frame *f)
{
    switch (f->kind) {
    case FRAME_OUT:
    case FRAME_STATE:
    case FRAME_ENABLED: return session_frame(e, from, f);
    case FRAME_BOUND: c2s_on_bound(e, from, f); break;
    case FRAME_RESUMED: c2s_on_resumed(e, from, f); break;
    case FRAME_FAILED: c2s_on_failed(e, f); break;
    case FRAME_CLOSE: c2s_on_close(e, f); break;
    default: break;
    }
    channel_done(e->node->channels, from);
}

void edge_settled(struct edge *e, struct hold h, bool lost)
{
    c2s_settled(e, h);
    if (!lost)
        c2s_safe(e, h);
}

/* The former home may not have acked to senders what our clients have: they will send it again. */
static void tell_marks(struct edge *e, unsigned shard, ring_wanted_f *wanted, const void *ctx)
{
    struct node *n = e->node;
    uint64_t at = 0, now = loop_now_ms(n->loop);
    struct frame f = {.kind = FRAME_KNOWN};
    while ((f.payload = marks_encode(&n->marks, &at, wanted, ctx, now, n->turn)).n)
        channel_send(n->channels, shard, &f, (struct hold){0}, false);
}

static void attach(struct edge *e, ring_wanted_f *wanted, const void *ctx)
{
    list_each(c, &e->conns, struct conn, link)
        if (c->session && wanted(ctx, (unsigned)(c->session->sid >> 50)))
            c2s_attach(c->session);
    copies_attach(e->node->copies, wanted, ctx);
}

void edge_attach(struct edge *e, unsigned shard)
{
    struct ring_share h = {e->node->ring, shard};
    attach(e, ring_share_has, &h);
    tell_marks(e, shard, ring_share_has, &h);
}

/* What is offered goes before what was sent, so both go again by one rule (node/shard/rooms.c): the
 * own shard knows that it was the home all the time and still has, in order, what we sent it. */
static bool has_moved(const void *node, unsigned slot)
{
    const struct node *n = node;
    bool own = ring_home_of_slot(n->ring, slot) == n->shard;
    return own ? ring_changed(n->ring, slot) : ring_moved(n->ring, slot);
}

static bool has_moved_there(const void *share, unsigned slot)
{
    const struct ring_share *s = share;
    return ring_share_has(s, slot) && ring_moved(s->ring, slot);
}

void edge_attach_moved(struct edge *e)
{
    const struct ring *ring = e->node->ring;
    bool *told = arena_zalloc(e->node->turn, ring_peers_end(ring));
    attach(e, has_moved, e->node);
    for (unsigned slot = 0; slot < RING_SLOTS; slot++) {
        struct ring_share h = {ring, ring_home_of_slot(ring, slot)};
        if (h.shard == RING_NONE || told[h.shard] || !ring_moved(ring, slot))
            continue;
        told[h.shard] = true;
        tell_marks(e, h.shard, has_moved_there, &h);
    }
}

bool edge_awaits(struct edge *e, const struct frame *f) { return c2s_waiting_conn(e, f) != NULL; }

bool edge_asks_again(struct edge *e, struct frame *f)
{
    struct conn *c = c2s_waiting_conn(e, f);
    if (!c)
        return false;
    negotiation_renumber(c->negotiation);
    f->conn = c->negotiation->number;
    return true;
}

/* Its session goes on at its new home until this stream's end is told there. */
void edge_former_close(struct edge *e, const struct frame *f)
{
    struct c2s *s = c2s_find(e, f->sid, f->gen);
    if (s)
        conn_end(s->conn, f->reason);
}

void edge_bus_full(struct edge *e, bool full)
{
    e->bus_full = full;
    if (!full)
        list_each(c, &e->conns, struct conn, link)
            conn_resume(c, PAUSE_BUS);
}

void edge_stop(struct edge *e, void (*done)(void *ctx), void *ctx)
{
    e->stopping = true, e->stopped = done, e->stopped_ctx = ctx;
    edge_drain_stop(e);
    edge_let_all_go(e);
    edge_check_stopped(e);
}

void edge_free(struct edge *e)
{
    must(e->conn_count == 0 && e->sessions.count == 0 && e->headers.count == 0);
    listen_free(e);
    jwt_keys_free(e->jwt_keys);
    admit_stop(e);
    list_remove(&e->stop_hook.link);
    throttle_close(&e->addresses);
    throttle_close(&e->failures);
    throttle_close(&e->registrations);
    htable_close(&e->negotiations);
    htable_close(&e->sessions);
    htable_close(&e->headers);
    pool_close(&e->short_queues), pool_close(&e->short_outputs);
    free(e);
}

static void set_memory(struct edge *e, enum metric_pool pool, size_t bytes)
{
    metric_set(e->node->metrics, METRIC_AT(memory_bytes, pool, 0), bytes);
}

/* A connection with its session's half; not its socket's and TLS's. */
void edge_sample(struct edge *e)
{
    size_t conns = e->conn_count * sizeof(struct conn) +
                   e->negotiations.count * sizeof(struct negotiation) +
                   e->sessions.count * sizeof(struct c2s) + htable_bytes(&e->sessions) +
                   htable_bytes(&e->negotiations);
    set_memory(e, POOL_CONN, conns);
    set_memory(e, POOL_BUF,
               e->carried + e->inbound + metric_get(e->node->metrics, METRIC_output_queue_bytes));
}

size_t edge_connections(const struct edge *e) { return e->conn_count; }
