/* bus: see bus.h.
 *
 *     struct bus ─► neighbour (a node of the view) ─► leg (a rail, its socket being dialled)
 *
 * A neighbour lives while its node is in the view, a leg while the two nodes' shards are as many as
 * make it one. */
#include "node/shard/bus.h"

#include <stdio.h>
#include <stdlib.h>

#include "cluster/rail.h"
#include "node/conf/conf.h"
#include "node/os/acceptor.h"
#include "node/os/connect.h"
#include "node/os/fifo.h"
#include "node/os/os.h"
#include "node/os/resolve.h"
#include "node/tls/tls.h"

enum { CONNECT_MS = 5000, FRAME_MAX = (16 << 20) + (64 << 10) };
enum { POST_HEAD = 4 };
enum post_kind {
    POST_FRAME = 1, /* from another node, by its name: an envelope */
    POST_WORD,      /* that this node says */
    POST_PASS,      /* a word, to be said to the node of this name */
};

struct leg {
    struct neighbour *neighbour;
    unsigned shard; /* at the other end */
    struct rail *rail;
    struct connecting *connecting;
    bool full;
    struct rail_stats counted; /* of it, as already added to the metrics page */
};

struct neighbour {
    struct list link;
    struct bus *bus;
    char name[REGISTRY_NODE_MAX + 1], address[VIEW_ADDRESS_MAX + 1];
    unsigned block;
    unsigned label; /* among those of metrics */
    char software[HELLO_SOFTWARE_MAX + 1];
    uint64_t shards;
    uint32_t incarnation[VIEW_SHARDS_MAX];
    struct leg *legs[VIEW_SHARDS_MAX];
    struct leg *way;  /* what we say to it goes there; NULL: it has no shard */
    struct leg *path; /* way, while it is up: that of the channels in `paths` */
    uint64_t paths;   /* bit i: the channel to shard i has one */
    uint64_t missed;  /* bit i: something that shard i said was dropped */
    int64_t offset_us;
    bool kept; /* while a view is adopted */
};

struct bus {
    struct bus_config c;
    struct bus_sinks sinks;
    struct rails *rails;
    struct list neighbours;
    struct neighbour **by_block;
    size_t blocks;
    uint64_t siblings; /* bits: shards of this node, this one among them */
    unsigned turn;     /* the sibling that was asked last to pass something on */
    unsigned full;     /* legs that are */
    bool held;
    uint64_t refused, resent; /* as already counted */
};

/* ---- who ---- */

static struct neighbour *by_name(const struct bus *b, str name)
{
    list_each(n, &b->neighbours, struct neighbour, link)
        if (str_eq(str_of(n->name), name))
            return n;
    return NULL;
}

static struct neighbour *by_peer(const struct bus *b, unsigned peer)
{
    unsigned block = peer / VIEW_SHARDS_MAX;
    return block < b->blocks ? b->by_block[block] : NULL;
}

static unsigned peer_of(const struct neighbour *n, unsigned shard)
{
    return n->block * VIEW_SHARDS_MAX + shard;
}

/* ---- which rails ---- */

static unsigned count_of(uint64_t set) { return (unsigned)__builtin_popcountll(set); }
static unsigned rank_of(uint64_t set, unsigned i) { return count_of(set & ((1ull << i) - 1)); }
static unsigned nth(uint64_t set, unsigned n)
{
    while (n-- > 0)
        set &= set - 1;
    return (unsigned)__builtin_ctzll(set);
}
/* Whom shard i of `from` says to what is for `to`. */
static unsigned partner(uint64_t from, unsigned i, uint64_t to)
{
    return nth(to, rank_of(from, i) % count_of(to));
}

/* ---- paths ---- */

static void lose_paths(struct neighbour *n)
{
    for (uint64_t left = n->paths; left; left &= left - 1)
        channel_path_down(n->bus->c.node->channels, peer_of(n, (unsigned)__builtin_ctzll(left)));
    n->paths = 0, n->path = NULL;
}

static void gain_path(struct neighbour *n, unsigned shard)
{
    struct channels *c = n->bus->c.node->channels;
    unsigned peer = peer_of(n, shard);
    uint64_t bit = 1ull << shard;
    if (!channel_peer_is_up(c, peer))
        return;
    n->paths |= bit;
    channel_path_up(c, peer, n->incarnation[shard], 0);
    if (n->missed & bit)
        channel_missed(c, peer);
    n->missed &= ~bit;
}

/* Whether channels have a path follows from the way, and from who is in the view. */
static void see_paths(struct neighbour *n)
{
    struct leg *path = n->way && rail_is_up(n->way->rail) && !n->bus->held ? n->way : NULL;
    if (path != n->path)
        lose_paths(n);
    n->path = path;
    for (uint64_t left = path ? n->shards & ~n->paths : 0; left; left &= left - 1)
        gain_path(n, (unsigned)__builtin_ctzll(left));
}

void bus_hold(struct bus *b, bool hold)
{
    b->held = hold;
    list_each(n, &b->neighbours, struct neighbour, link)
        see_paths(n);
}

/* ---- sockets ---- */

static void on_connected(void *ctx, err e, int fd, const struct sockaddr_storage *to,
                         const char *failure)
{
    struct leg *leg = ctx;
    struct node *n = leg->neighbour->bus->c.node;
    leg->connecting = NULL;
    if (e) {
        rail_failed(leg->rail, e);
        return;
    }
    struct transport *low = sock_transport_open(n->loop, fd, to, NULL, NULL);
    rail_connected(leg->rail, tls_rail_open(n->tls, low));
}

static void on_dial(void *ctx, struct rail *r)
{
    struct bus *b = ctx;
    struct leg *leg = rail_owner(r);
    struct connect_to to = {.timeout_ms = CONNECT_MS};
    if (!resolve_split(str_of(leg->neighbour->address), &to.host, &to.port) ||
        to.port + leg->shard > UINT16_MAX) {
        rail_failed(r, ERR_BAD);
        return;
    }
    to.port = (uint16_t)(to.port + leg->shard);
    leg->connecting = connect_start(b->c.node->loop, b->c.resolver, &to, on_connected, leg);
}

static void on_accepted(void *ctx, int fd, const struct sockaddr_storage *from)
{
    struct bus *b = ctx;
    struct node *n = b->c.node;
    struct transport *low = sock_transport_open(n->loop, fd, from, NULL, NULL);
    rails_accept(b->rails, tls_rail_accept(n->tls, low));
}

void bus_listen(struct bus *b, int fd) { acceptor_open(b->c.node->loop, fd, on_accepted, b); }

/* ---- what is counted ---- */

static void count_leg(struct leg *leg)
{
    struct neighbour *n = leg->neighbour;
    struct metric_page *m = n->bus->c.node->metrics;
    const struct rail_stats now = rail_stats(leg->rail), *was = &leg->counted;
#define ADD(id, field) metric_add(m, METRIC_AT(id, n->label, 0), (int64_t)(now.field - was->field))
    ADD(bus_frames_sent, frames_out);
    ADD(bus_frames_received, frames_in);
    ADD(bus_bytes_sent, bytes_out);
    ADD(bus_bytes_received, bytes_in);
    ADD(bus_stalled_ms, stalled_ms);
    ADD(bus_reconnects, reconnects);
#undef ADD
    leg->counted = now;
}

static void show_leg(const struct leg *leg)
{
    struct neighbour *n = leg->neighbour;
    struct metric_page *m = n->bus->c.node->metrics;
    const struct rail_stats now = rail_stats(leg->rail);
    metric_add(m, METRIC_AT(bus_queue_bytes, n->label, 0), (int64_t)now.queued);
    enum metric_rail state = leg->full               ? RAILS_STALLED
                             : rail_is_up(leg->rail) ? RAILS_UP
                                                     : RAILS_CONNECTING;
    metric_add(m, METRIC_AT(bus_rails, state, 0), 1);
    if (leg == n->way) {
        n->offset_us = now.offset_us;
        metric_set(m, METRIC_AT(bus_round_trip_us, n->label, 0), now.round_trip_us);
    }
}

static void clear_gauges(struct metric_page *m)
{
    for (unsigned i = 0; i < METRIC_SIZE_RAIL; i++)
        metric_set(m, METRIC_AT(bus_rails, i, 0), 0);
    for (unsigned i = 0; i < METRIC_SIZE_PEER; i++) {
        metric_set(m, METRIC_AT(bus_queue_bytes, i, 0), 0);
        metric_set(m, METRIC_AT(bus_round_trip_us, i, 0), 0);
    }
}

static bool is_known(const struct bus *b, const struct neighbour *n)
{
    if (!n->software[0] || !strcmp(n->software, PEMBERLEY_VERSION))
        return true;
    list_each(o, &b->neighbours, struct neighbour, link)
        if (o == n)
            return false;
        else if (!strcmp(o->software, n->software))
            return true;
    return false;
}

static unsigned count_versions(const struct bus *b)
{
    unsigned versions = 1; /* ours */
    list_each(n, &b->neighbours, struct neighbour, link)
        versions += !is_known(b, n);
    return versions;
}

void bus_sample(struct bus *b)
{
    struct metric_page *m = b->c.node->metrics;
    uint64_t refused = rails_refused(b->rails), resent = channel_resent(b->c.node->channels);
    metric_add(m, METRIC_bus_refused, (int64_t)(refused - b->refused));
    metric_add(m, METRIC_bus_resent_frames, (int64_t)(resent - b->resent));
    b->refused = refused, b->resent = resent;
    metric_set(m, METRIC_cluster_versions, count_versions(b));
    clear_gauges(m);
    list_each(n, &b->neighbours, struct neighbour, link)
        for (unsigned i = 0; i < VIEW_SHARDS_MAX; i++)
            if (n->legs[i])
                count_leg(n->legs[i]), show_leg(n->legs[i]);
}

/* ---- legs ---- */

static void set_full(struct leg *leg, bool full)
{
    struct bus *b = leg->neighbour->bus;
    if (leg->full == full)
        return;
    leg->full = full;
    b->full += full ? 1 : -1;
    if (b->full == full) /* the first, or none any more */
        b->sinks.full(b->sinks.ctx, full);
}

static void leg_open(struct neighbour *n, unsigned shard)
{
    struct leg *leg = calloc(1, sizeof *leg);
    must(leg);
    leg->neighbour = n, leg->shard = shard;
    leg->rail = rail_open(n->bus->rails, str_of(n->name), (uint16_t)shard, leg);
    n->legs[shard] = leg;
}

static void leg_close(struct leg *leg)
{
    struct neighbour *n = leg->neighbour;
    if (n->path == leg)
        lose_paths(n);
    if (n->way == leg)
        n->way = NULL;
    set_full(leg, false);
    count_leg(leg);
    if (leg->connecting)
        connect_stop(leg->connecting);
    rail_close(leg->rail);
    n->legs[leg->shard] = NULL;
    free(leg);
}

static void see_legs(struct neighbour *n)
{
    const struct bus *b = n->bus;
    unsigned self = b->c.node->shard;
    unsigned way = n->shards ? partner(b->siblings, self, n->shards) : VIEW_SHARDS_MAX;
    for (unsigned i = 0; i < VIEW_SHARDS_MAX; i++) {
        bool wanted =
            n->shards >> i & 1 && (i == way || partner(n->shards, i, b->siblings) == self);
        if (n->legs[i] && !wanted)
            leg_close(n->legs[i]);
        else if (!n->legs[i] && wanted)
            leg_open(n, i);
        if (wanted)
            rail_set_incarnation(n->legs[i]->rail, n->incarnation[i]);
    }
    n->way = n->shards ? n->legs[way] : NULL;
}

/* ---- neighbours ---- */

static struct neighbour *neighbour_new(struct bus *b, const struct view_node *v, unsigned block)
{
    struct neighbour *n = calloc(1, sizeof *n);
    must(n && block);
    n->bus = b, n->block = block;
    memcpy(n->name, v->name, sizeof n->name);
    n->label =
        metric_peer(b->c.node->metrics, n->name, (unsigned)b->c.node->conf->metrics_peers_max);
    if (block >= b->blocks) {
        size_t blocks = block + 16;
        b->by_block = realloc(b->by_block, blocks * sizeof *b->by_block);
        must(b->by_block);
        memset(b->by_block + b->blocks, 0, (blocks - b->blocks) * sizeof *b->by_block);
        b->blocks = blocks;
    }
    must(!b->by_block[block]);
    b->by_block[block] = n;
    list_push_back(&b->neighbours, &n->link);
    return n;
}

static void neighbour_free(struct neighbour *n)
{
    for (unsigned i = 0; i < VIEW_SHARDS_MAX; i++)
        if (n->legs[i])
            leg_close(n->legs[i]);
    n->bus->by_block[n->block] = NULL;
    list_remove(&n->link);
    free(n);
}

/* A channel of another incarnation has been made anew, and has no path. */
static void take_members(struct neighbour *n, const struct view_node *v)
{
    memcpy(n->address, v->address, sizeof n->address);
    n->shards = v->shards;
    for (unsigned i = 0; i < VIEW_SHARDS_MAX; i++) {
        uint32_t now = (uint32_t)v->incarnation[i];
        if (now != n->incarnation[i])
            n->paths &= ~(1ull << i);
        n->incarnation[i] = now;
    }
    n->paths &= n->shards, n->missed &= n->shards;
}

void bus_adopt(struct bus *b, const struct view *v, const unsigned *blocks)
{
    const struct view_node *own = view_find(v, b->c.node->name);
    b->siblings = (own ? own->shards : 0) | 1ull << b->c.node->shard;
    rails_set_epoch(b->rails, v->epoch);
    list_each(n, &b->neighbours, struct neighbour, link)
        n->kept = false;
    for (size_t i = 0; i < v->count; i++) {
        if (&v->nodes[i] == own)
            continue;
        struct neighbour *n = by_name(b, str_of(v->nodes[i].name));
        if (!n)
            n = neighbour_new(b, &v->nodes[i], blocks[i]);
        must(n->block == blocks[i]);
        n->kept = true;
        take_members(n, &v->nodes[i]);
        see_legs(n);
        see_paths(n);
    }
    list_each(n, &b->neighbours, struct neighbour, link)
        if (!n->kept)
            neighbour_free(n);
}

/* ---- frames ---- */

static void refused(struct bus *b, str peer, const char *why, enum metric_frame_refusal reason)
{
    metric_add(b->c.node->metrics, METRIC_AT(cluster_frames_refused, reason, 0), 1);
    LOG(b->c.node->log, frame_refused, F_STR("peer", peer), F_STR("reason", str_of(why)));
}

/* For this shard. ERR_BAD: what no peer of ours says. */
static err take_frame(struct neighbour *n, const struct envelope_address *a, str frame)
{
    struct bus *b = n->bus;
    struct channels *c = b->c.node->channels;
    unsigned peer = peer_of(n, a->from);
    if (a->to_incarnation != (uint32_t)b->c.incarnation) {
        metric_add(b->c.node->metrics, METRIC_AT(cluster_frames_refused, FRAMES_EPOCH, 0), 1);
        return ERR_OK;
    }
    if (a->from >= VIEW_SHARDS_MAX)
        return ERR_BAD;
    if (b->held || !(n->shards >> a->from & 1) || n->incarnation[a->from] != a->from_incarnation ||
        !channel_peer_is_up(c, peer)) {
        n->missed |= 1ull << a->from;
        return ERR_OK;
    }
    return channel_receive(c, peer, frame);
}

static void post(struct bus *b, unsigned shard, enum post_kind kind, str name,
                 const struct iovec v[2])
{
    unsigned char head[POST_HEAD] = {0xff, 0xff, (unsigned char)kind, (unsigned char)name.n};
    struct iovec all[] = {{head, sizeof head}, {(char *)name.p, name.n}, v[0], v[1]};
    fifo_hub_send(b->c.hub, fifo_shard(shard), all, v[1].iov_len ? 4 : 3);
}

static void hand_on(struct neighbour *n, const struct envelope *e)
{
    struct envelope_address a = e->address;
    char head[ENVELOPE_HEAD_MAX];
    if (++a.hops > ENVELOPE_HOPS_MAX || a.to >= VIEW_SHARDS_MAX) {
        refused(n->bus, str_of(n->name), "hops", FRAMES_HOPS);
        return;
    }
    size_t size = envelope_head(ENVELOPE_FRAME, &a, e->body.n, head);
    struct iovec v[] = {{head, size}, {(char *)e->body.p, e->body.n}};
    post(n->bus, a.to, POST_FRAME, str_of(n->name), v);
}

/* A peer that says what none of ours says has proven who it is: its rail begins anew. */
static void on_frame(void *ctx, struct rail *r, const struct envelope *e)
{
    struct bus *b = ctx;
    struct leg *leg = rail_owner(r);
    struct neighbour *n = leg->neighbour;
    unsigned shard = leg->shard;
    if (e->address.to != b->c.node->shard) {
        hand_on(n, e);
        return;
    }
    if (take_frame(n, &e->address, e->body) == ERR_OK)
        return;
    refused(b, str_of(n->name), "malformed", FRAMES_FOREIGN);
    leg_close(leg);
    leg_open(n, shard);
    see_legs(n);
}

void bus_send(struct bus *b, unsigned peer, const struct iovec *v, size_t n)
{
    struct neighbour *to = by_peer(b, peer);
    unsigned shard = peer % VIEW_SHARDS_MAX;
    must(to && to->path);
    struct envelope_address a = {.to = (uint16_t)shard,
                                 .from = (uint16_t)b->c.node->shard,
                                 .to_incarnation = to->incarnation[shard],
                                 .from_incarnation = (uint32_t)b->c.incarnation,
                                 .hops = 1};
    (void)rail_send(to->path->rail, &a, v, n);
}

/* ---- words ---- */

/* A sibling that has another way to it; the next one each time. */
static void ask_sibling(struct bus *b, str node, str word)
{
    uint64_t others = b->siblings & ~(1ull << b->c.node->shard);
    struct iovec v[2] = {{(char *)word.p, word.n}, {NULL, 0}};
    if (others)
        post(b, nth(others, b->turn++ % count_of(others)), POST_PASS, node, v);
}

/* Also while channels have no path. */
static bool say(struct neighbour *n, str word)
{
    return n->way && rail_is_up(n->way->rail) && rail_say(n->way->rail, word);
}

void bus_say(struct bus *b, str node, unsigned shard, str word)
{
    struct iovec v[2] = {{(char *)word.p, word.n}, {NULL, 0}};
    if (str_eq(node, b->c.node->name)) {
        post(b, shard, POST_WORD, node, v);
        return;
    }
    struct neighbour *n = by_name(b, node);
    if (n && !say(n, word))
        ask_sibling(b, node, word);
}

static void on_word(void *ctx, struct rail *r, str bytes)
{
    struct bus *b = ctx;
    str name = rail_node(r);
    if (b->sinks.word(b->sinks.ctx, name, bytes) != ERR_OK)
        refused(b, name, "word", FRAMES_FOREIGN);
}

/* ---- posts ---- */

static err take_envelope(struct bus *b, str name, str bytes)
{
    struct envelope e;
    size_t size;
    struct neighbour *n = by_name(b, name);
    err r = envelope_read(bytes, FRAME_MAX, &e, &size);
    if (r || size != bytes.n || e.kind != ENVELOPE_FRAME || e.address.to != b->c.node->shard)
        return ERR_BAD;
    if (n && take_frame(n, &e.address, e.body) != ERR_OK)
        refused(b, name, "malformed", FRAMES_FOREIGN); /* not the sibling's fault */
    return ERR_OK;
}

err bus_take(struct bus *b, const char *p, size_t n)
{
    size_t name_n = n > POST_HEAD ? (unsigned char)p[3] : 0;
    if (!name_n || n <= POST_HEAD + name_n)
        return ERR_BAD;
    str name = {p + POST_HEAD, name_n}, rest = {p + POST_HEAD + name_n, n - POST_HEAD - name_n};
    if (!view_name_ok(name))
        return ERR_BAD;
    switch ((enum post_kind)p[2]) {
    case POST_FRAME: return take_envelope(b, name, rest);
    case POST_WORD: return b->sinks.word(b->sinks.ctx, name, rest);
    case POST_PASS: {
        struct neighbour *to = by_name(b, name);
        if (to)
            (void)say(to, rest);
        return ERR_OK;
    }
    }
    return ERR_BAD;
}

/* ---- what rails say ---- */

static void on_up(void *ctx, struct rail *r, const struct hello *peer)
{
    struct bus *b = ctx;
    struct leg *leg = rail_owner(r);
    leg->neighbour->offset_us = rail_stats(r).offset_us;
    snprintf(leg->neighbour->software, sizeof leg->neighbour->software, "%.*s",
             STR_ARG(peer->software));
    see_paths(leg->neighbour);
    b->sinks.silent(b->sinks.ctx, rail_node(r), false);
}

static void on_down(void *ctx, struct rail *r, err reason)
{
    struct bus *b = ctx;
    struct leg *leg = rail_owner(r);
    set_full(leg, false);
    see_paths(leg->neighbour);
    if (reason == ERR_TIMEOUT)
        b->sinks.silent(b->sinks.ctx, rail_node(r), true);
}

static void on_full(void *ctx, struct rail *r, bool full) { set_full(rail_owner(r), full); }

/* ---- asked from outside ---- */

int64_t bus_offset_us(const struct bus *b, unsigned peer)
{
    const struct neighbour *n = by_peer(b, peer);
    return n ? n->offset_us : 0;
}

uint64_t bus_round_trip_us(const struct bus *b, str node)
{
    const struct neighbour *n = by_name(b, node);
    return n && n->way ? rail_stats(n->way->rail).round_trip_us : 0;
}

/* ---- life ---- */

struct bus *bus_new(const struct bus_config *c, const struct bus_sinks *sinks)
{
    const struct conf *conf = c->node->conf;
    struct bus *b = calloc(1, sizeof *b);
    must(b);
    b->c = *c, b->sinks = *sinks;
    list_init(&b->neighbours);
    struct rails_config rails = {
        .loop = c->node->loop,
        .entropy = c->node->entropy,
        .clock = c->node->clock,
        .log = c->node->log,
        .cluster = c->cluster,
        .node = c->node->name,
        .software = STR(PEMBERLEY_VERSION),
        .shard = (uint16_t)c->node->shard,
        .incarnation = (uint32_t)c->incarnation,
        .ping_ms = (uint32_t)conf->cluster_rail_ping,
        .timeout_ms = (uint32_t)conf->cluster_rail_timeout,
        .queue_max = conf->cluster_rail_queue_max,
        .frame_max = FRAME_MAX,
    };
    struct rail_sinks s = {b, on_dial, on_up, on_down, on_frame, on_word, on_full};
    b->rails = rails_new(&rails, &s);
    return b;
}

void bus_reload(struct bus *b)
{
    const struct conf *c = b->c.node->conf;
    rails_configure(b->rails, (uint32_t)c->cluster_rail_ping, (uint32_t)c->cluster_rail_timeout,
                    c->cluster_rail_queue_max);
}
