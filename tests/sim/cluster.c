#include "tests/sim/cluster.h"

#include <stdio.h>
#include <stdlib.h>

#include "cluster/peers.h"
#include "node/shard/rooms.h"

enum { SECRET = 7, REPORT_US = 20000, LEASE_US = 300000, ADOPT_US = 20000, SLOW_US = 400000 };

/* Per shard, by its place in the world. */
struct seat {
    uint64_t adopt_us, settle_us; /* due; 0: not */
    uint64_t told;                /* the last epoch that it was told is settled */
    uint64_t path_us[WORLD_ENDS]; /* its way there is due */
    uint32_t path[WORLD_ENDS];    /* … is up, to that incarnation */
};

struct oracle {
    struct view *view; /* the last that was published */
    bool settled;
    struct seat seat[WORLD_ENDS];
    uint64_t publish_us;                     /* the next look at who has died or come */
    uint64_t dead_since_us[WORLD_ENDS];      /* members; 0: it lives */
    uint64_t cut_us[WORLD_ENDS][WORLD_ENDS]; /* until then, by node */
};

static const unsigned char secret[32] = {SECRET};

static uint64_t soon(struct world *w, uint64_t us) { return w->now_us + 1 + world_random(w, us); }

static const char *name_of(unsigned node, char text[16])
{
    snprintf(text, 16, "n%u", node);
    return text;
}

static struct view_node *node_in(const struct view *v, unsigned node)
{
    char text[16];
    return view_find(v, str_of(name_of(node, text)));
}

static uint32_t member(const struct view *v, const struct world *w, unsigned shard)
{
    const struct view_node *n = node_in(v, world_node(w, shard));
    return n ? (uint32_t)n->incarnation[shard % w->per] : 0;
}

static bool lives(const struct world *w, unsigned shard)
{
    return w->shard[shard] && w->shard[shard]->incarnation == w->incarnation[shard];
}

static bool is_full(const struct view_node *n) { return n->state != VIEW_JOINING; }

/* ---- publishing ---- */

/* Who is to be told: all that live. A slow one may skip the next view. */
static void spread(struct world *w)
{
    struct oracle *o = w->oracle;
    for (unsigned i = 0; i < w->shards; i++) {
        bool slow = world_random(w, 12) == 0;
        if (w->shard[i] && !o->seat[i].adopt_us)
            o->seat[i].adopt_us = soon(w, slow ? SLOW_US : ADOPT_US);
        o->seat[i].settle_us = 0;
    }
}

static void say_view(const struct world *w, const struct view *v)
{
    static const char *const states[] = {"joining", "live", "draining"};
    world_say(w, "view %llu", (unsigned long long)v->epoch);
    for (size_t i = 0; i < v->count; i++)
        world_say(w, "    %s %s weight %u shards %llx", v->nodes[i].name, states[v->nodes[i].state],
                  v->nodes[i].weight, (unsigned long long)v->nodes[i].shards);
}

static void publish(struct world *w, struct view *v)
{
    struct oracle *o = w->oracle;
    view_free(o->view);
    o->view = v, o->settled = false;
    say_view(w, v);
    bool fence = !w->hooks || !w->hooks->no_store_fence;
    for (unsigned i = 0; fence && i < w->shards; i++) /* of who is no member any more */
        if (!node_in(v, world_node(w, i)))
            world_lose(w, i, world_store(w), lives(w, i) ? w->incarnation[i] : 0);
    spread(w);
}

static struct view *next_view(const struct world *w)
{
    return view_copy(w->oracle->view, w->oracle->view->epoch + 1);
}

/* ---- who dies and comes ---- */

static bool node_lives(const struct world *w, unsigned node)
{
    for (unsigned i = 0; i < w->per; i++)
        if (w->shard[node * w->per + i])
            return true;
    return false;
}

/* A dead shard is reported by its supervisor, a dead node loses its lease. */
static bool remove_dead(struct world *w, struct view *v)
{
    struct oracle *o = w->oracle;
    bool any = false;
    for (unsigned i = 0; i < w->shards; i++) {
        uint32_t was = member(v, w, i);
        if (!was || (lives(w, i) && was == w->incarnation[i])) {
            o->dead_since_us[i] = 0;
            continue;
        }
        if (!o->dead_since_us[i])
            o->dead_since_us[i] = w->now_us;
        uint64_t after = node_lives(w, world_node(w, i)) ? REPORT_US / 2 : LEASE_US;
        if (w->now_us < o->dead_since_us[i] + after)
            continue;
        struct view_node *n = node_in(v, world_node(w, i));
        view_node_clear(n, i % w->per);
        any = true;
        if (!n->shards)
            view_remove(v, n);
    }
    return any;
}

static bool all_go_by(const struct world *w, uint64_t epoch)
{
    const struct view *v = w->oracle->view;
    for (unsigned i = 0; i < w->shards; i++) {
        const struct view_node *n = node_in(v, world_node(w, i));
        if (n && is_full(n) && member(v, w, i) && (!lives(w, i) || w->shard[i]->node.epoch < epoch))
            return false;
    }
    return true;
}

/* As JOINING, then LIVE when all know it; a shard of a node that is there at once. */
static bool add_new(struct world *w, struct view *v)
{
    bool any = false;
    for (unsigned i = 0; i < w->shards; i++) {
        struct view_node *n = node_in(v, world_node(w, i));
        char text[16];
        if (!lives(w, i) || member(v, w, i))
            continue;
        if (!n) {
            err e = view_add(v, str_of(name_of(world_node(w, i), text)), STR("x"), &n);
            must(!e);
            n->owner = w->incarnation[i], n->weight = 100, n->state = VIEW_JOINING;
        }
        view_node_set(n, i % w->per, w->incarnation[i]);
        any = true;
    }
    for (size_t i = 0; !any && i < v->count; i++)
        if (v->nodes[i].state == VIEW_JOINING && all_go_by(w, w->oracle->view->epoch)) {
            v->nodes[i].state = VIEW_LIVE;
            return true;
        }
    return any;
}

static bool look_around(struct world *w)
{
    struct oracle *o = w->oracle;
    if (w->now_us < o->publish_us)
        return false;
    o->publish_us = soon(w, REPORT_US);
    struct view *v = next_view(w);
    if (remove_dead(w, v) || add_new(w, v)) {
        publish(w, v);
        return true;
    }
    view_free(v);
    return false;
}

/* ---- planned ---- */

static bool may_plan(const struct world *w, unsigned node)
{
    const struct view_node *n = node_in(w->oracle->view, node);
    return n && is_full(n);
}

static unsigned shares(const struct view *v)
{
    unsigned n = 0;
    for (size_t i = 0; i < v->count; i++)
        n += view_node_share(&v->nodes[i]) > 0;
    return n;
}

static void publish_if_shared(struct world *w, struct view *v)
{
    if (shares(v) && !view_same_but_epoch(v, w->oracle->view))
        publish(w, v);
    else
        view_free(v);
}

void cluster_weigh(struct world *w, unsigned node, unsigned weight)
{
    if (!may_plan(w, node))
        return;
    struct view *v = next_view(w);
    node_in(v, node)->weight = weight;
    publish_if_shared(w, v);
}

void cluster_drain(struct world *w, unsigned node, bool drain)
{
    if (!may_plan(w, node))
        return;
    struct view *v = next_view(w);
    node_in(v, node)->state = drain ? VIEW_DRAINING : VIEW_LIVE;
    publish_if_shared(w, v);
}

/* ---- adopting ---- */

static void adopt(struct world *w, struct shard *s)
{
    struct oracle *o = w->oracle;
    if (member(o->view, w, s->place) != s->incarnation)
        return; /* not yet, or not any more */
    const unsigned *blocks = peers_blocks(s->peers, o->view, &s->turn);
    struct ring *r = ring_new(secret, o->view, blocks, s->node.ring);
    world_say(w, "%u adopts %llu", s->place, (unsigned long long)o->view->epoch);
    for (unsigned i = 0; i < w->shards; i++)
        if (i != s->place)
            s->met[i] = member(o->view, w, i);
    rooms_adopt(&s->node, s->edge, s->home, r);
    peers_keep(s->peers, o->view);
    s->stirred = true;
}

static bool adopt_due(struct world *w)
{
    struct oracle *o = w->oracle;
    bool any = false;
    for (unsigned i = 0; i < w->shards; i++) {
        if (!o->seat[i].adopt_us || o->seat[i].adopt_us > w->now_us)
            continue;
        o->seat[i].adopt_us = 0, any = true;
        if (w->shard[i] && w->shard[i]->node.epoch < o->view->epoch)
            adopt(w, w->shard[i]);
    }
    return any;
}

static bool settle(struct world *w)
{
    struct oracle *o = w->oracle;
    bool any = false;
    if (!o->settled && all_go_by(w, o->view->epoch)) {
        o->settled = true;
        for (unsigned i = 0; i < w->shards; i++)
            o->seat[i].settle_us = soon(w, ADOPT_US);
    }
    for (unsigned i = 0; i < w->shards; i++) {
        struct seat *seat = &o->seat[i];
        struct shard *s = w->shard[i];
        if (!o->settled || !seat->settle_us || seat->settle_us > w->now_us)
            continue;
        seat->settle_us = 0, any = true;
        if (!s || s->node.epoch != o->view->epoch)
            continue;
        world_say(w, "%u is told that %llu is settled", i, (unsigned long long)o->view->epoch);
        rooms_epoch_settled(&s->node, s->home, s->node.epoch);
        seat->told = s->node.epoch, s->stirred = true;
        s->ready |= is_full(node_in(o->view, world_node(w, i)));
    }
    return any;
}

/* A JOINING node's shard that has not adopted in time for the others. */
static void remind(struct world *w)
{
    struct oracle *o = w->oracle;
    for (unsigned i = 0; i < w->shards; i++) {
        struct shard *s = w->shard[i];
        struct seat *seat = &o->seat[i];
        if (!s || member(o->view, w, i) != s->incarnation)
            continue;
        if (s->node.epoch < o->view->epoch && !seat->adopt_us)
            seat->adopt_us = soon(w, ADOPT_US);
        if (o->settled && s->node.epoch == o->view->epoch && seat->told != s->node.epoch &&
            !seat->settle_us)
            seat->settle_us = soon(w, ADOPT_US);
    }
}

/* ---- rails ---- */

static bool is_cut(const struct world *w, unsigned from, unsigned to)
{
    return w->oracle->cut_us[world_node(w, from)][world_node(w, to)] > w->now_us;
}

static void break_path(struct world *w, unsigned from, unsigned to)
{
    struct shard *s = w->shard[from];
    struct seat *seat = &w->oracle->seat[from];
    world_lose(w, from, to, UINT32_MAX);
    if (s && seat->path[to])
        channel_path_down(s->node.channels, world_peer(s, to));
    seat->path[to] = 0, seat->path_us[to] = 0;
}

void cluster_cut(struct world *w, unsigned from, unsigned to, uint64_t us)
{
    world_say(w, "node %u does not reach node %u for %llu us", from, to, (unsigned long long)us);
    w->oracle->cut_us[from][to] = w->now_us + us;
    for (unsigned i = 0; i < w->per; i++)
        for (unsigned k = 0; k < w->per; k++)
            break_path(w, from * w->per + i, to * w->per + k);
}

/* A path comes up a moment after its peer, or after the cut. */
static bool mend_path(struct world *w, struct shard *s, unsigned to)
{
    struct seat *seat = &w->oracle->seat[s->place];
    if (world_node(w, to) == world_node(w, s->place) || !s->met[to] || seat->path[to] == s->met[to])
        return false;
    if (is_cut(w, s->place, to))
        return false;
    if (!seat->path_us[to])
        seat->path_us[to] = soon(w, 3000);
    if (seat->path_us[to] > w->now_us)
        return false;
    seat->path_us[to] = 0, seat->path[to] = s->met[to];
    channel_path_up(s->node.channels, world_peer(s, to), s->met[to], 0);
    s->stirred = true;
    return true;
}

static bool mend_paths(struct world *w)
{
    bool any = false;
    for (unsigned i = 0; i < w->shards; i++)
        for (unsigned k = 0; w->shard[i] && k < w->shards; k++)
            any |= mend_path(w, w->shard[i], k);
    return any;
}

/* ---- all of it ---- */

bool cluster_turn(struct world *w)
{
    bool any = look_around(w);
    any |= adopt_due(w);
    any |= settle(w);
    any |= mend_paths(w);
    remind(w);
    return any;
}

static uint64_t sooner(uint64_t a, uint64_t b) { return b && b < a ? b : a; }

uint64_t cluster_next_us(const struct world *w)
{
    const struct oracle *o = w->oracle;
    uint64_t next = o->publish_us;
    for (unsigned i = 0; i < w->shards; i++) {
        next = sooner(next, o->seat[i].adopt_us);
        next = sooner(next, o->seat[i].settle_us);
        for (unsigned k = 0; k < w->shards; k++)
            next = sooner(next, o->seat[i].path_us[k]);
    }
    return next;
}

bool cluster_is_settled(const struct world *w)
{
    const struct oracle *o = w->oracle;
    for (unsigned i = 0; i < w->shards; i++) {
        if (!w->shard[i] || o->seat[i].told != o->view->epoch)
            return false;
        for (unsigned k = 0; k < w->shards; k++)
            if (world_node(w, i) != world_node(w, k) && o->seat[i].path[k] != w->incarnation[k])
                return false;
    }
    return o->settled;
}

unsigned cluster_home(const struct world *w, const char *bare)
{
    struct ring *r = ring_new(secret, w->oracle->view, NULL, NULL);
    unsigned peer = ring_home(r, str_of(bare));
    unsigned node = (unsigned)atoi(w->oracle->view->nodes[peer_block(peer)].name + 1);
    ring_free(r);
    return node * w->per + peer_shard(peer);
}

bool cluster_by_node(const struct world *w)
{
    const struct view *v = w->oracle->view;
    unsigned n = 0;
    for (size_t i = 0; i < v->count; i++)
        n += is_full(&v->nodes[i]) && v->nodes[i].shards;
    return n >= 2;
}

void cluster_shard_starts(struct world *w, struct shard *s)
{
    char text[16];
    s->peers = peers_new(str_of(name_of(world_node(w, s->place), text)));
    w->oracle->seat[s->place] = (struct seat){0};
}

void cluster_open(struct world *w)
{
    struct oracle *o = w->oracle = calloc(1, sizeof *o);
    must(o);
    o->view = view_new(1);
    for (unsigned node = 0; node < w->nodes; node++) {
        char text[16];
        struct view_node *n;
        err e = view_add(o->view, str_of(name_of(node, text)), STR("x"), &n);
        must(!e);
        n->owner = 1, n->weight = 100, n->state = VIEW_LIVE;
        for (unsigned i = 0; i < w->per; i++)
            view_node_set(n, i, 1);
    }
}
