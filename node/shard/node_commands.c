/* node_commands: what is known of the nodes, as JSON (child.h). Each node is asked for what only
 * its own supervisor knows; who does not answer within a second has that left out. */
#include <jansson.h>
#include <stdlib.h>

#include "cluster/member.h"
#include "cluster/peers.h"
#include "node/conf/conf.h"
#include "node/shard/bus.h"
#include "node/shard/commands_inside.h"
#include "node/shard/membership.h"
#include "proto/xmpp/jid.h"

enum { STATUS_MS = 1000 };

static json_t *text_of(str s) { return json_stringn(s.n ? s.p : "", s.n); }

/* Takes root. */
static void answer_json(struct job *j, json_t *root)
{
    struct arena *a = j->commands->c.node->turn;
    char *text = json_dumps(root, JSON_COMPACT);
    must(text);
    json_decref(root);
    str copy = arena_dup(a, str_of(text));
    free(text);
    job_answer(j, COMMAND_DONE, copy);
}

static json_t *head_of(const struct commands *c)
{
    const struct view *v = membership_view(c->c.membership);
    return json_pack("{s:i, s:o, s:I}", "v", 1, "node", text_of(c->c.node->name), "epoch",
                     (json_int_t)(v ? v->epoch : 0));
}

/* ---- a node of its own ---- */

/* What the supervisor's status says of it, in the words of node-list. */
static void copy_status(json_t *to, const json_t *status)
{
    static const char *const names[][2] = {{"version", "version"},
                                           {"sessions", "sessions"},
                                           {"uptime_seconds", "up_seconds"},
                                           {"drain_share", "drain_share"},
                                           {"drain_eta_seconds", "drain_eta_seconds"}};
    for (size_t i = 0; i < array_len(names); i++) {
        json_t *value = json_object_get(status, names[i][0]);
        if (value)
            json_object_set(to, names[i][1], value);
    }
    if (json_number_value(json_object_get(to, "drain_share")) == 0)
        json_object_del(to, "drain_share");
}

static uint64_t mix(uint64_t hash, uint64_t value) { return hash_u64(hash ^ value) + 1; }

/* Of the options that ought to be alike on all nodes (operator.md 2): numbers and words only, no
 * paths. */
static uint32_t agreed_options(const struct conf *c)
{
    uint64_t h = mix(mix(mix(0, (uint64_t)c->cluster_heartbeat), (uint64_t)c->cluster_lease),
                     (uint64_t)c->cluster_barrier_timeout);
    for (uint32_t i = 0; i < c->host_count; i++) {
        const struct conf_host *host = conf_host_at(c, i);
        str domain = conf_text(c, host->domain);
        for (size_t k = 0; k < domain.n; k++)
            h = mix(h, (unsigned char)domain.p[k]);
        const uint64_t values[] = {host->auth,         host->registration,      host->users_max,
                                   host->offline_max,  host->offline_bytes_max, host->bare_delivery,
                                   host->iq_strangers, host->conflict};
        for (size_t k = 0; k < array_len(values); k++)
            h = mix(h, values[k]);
    }
    return (uint32_t)h;
}

static void add_own(const struct commands *c, json_t *to)
{
    const struct view *v = membership_view(c->c.membership);
    json_object_set_new(to, "epoch", json_integer((json_int_t)(v ? v->epoch : 0)));
    json_object_set_new(
        to, "config",
        json_string(arena_printf(c->c.node->turn, "%08x", agreed_options(c->c.node->conf)).p));
    json_object_set_new(to, "lease_seconds",
                        json_real((double)membership_lease_ms(c->c.membership) / 1e3));
}

static void on_own_status(void *ctx, unsigned exit, str text)
{
    struct job *j = ctx;
    json_t *status = json_loadb(text.p ? text.p : "", text.n, 0, NULL), *root = json_object();
    if (exit == COMMAND_DONE && status)
        copy_status(root, status);
    add_own(j->commands, root);
    json_decref(status);
    answer_json(j, root);
}

static void own_status(struct job *j)
{
    const str argv[] = {STR("status")};
    commands_ask(j->commands, PEER_SUPERVISOR, 1, argv, STATUS_MS, on_own_status, j);
}

/* ---- node-list ---- */

struct listing {
    struct job *job;
    json_t *root;
    size_t left; /* answers */
};
struct listed {
    struct listing *listing;
    json_t *node; /* in the listing's */
    bool own;
};

static unsigned slots_of(const struct ring *r, unsigned block)
{
    unsigned n = 0;
    for (unsigned slot = 0; r && slot < RING_SLOTS; slot++) {
        unsigned home = ring_home_of_slot(r, slot);
        n += home != RING_NONE && peer_block(home) == block;
    }
    return n;
}

static unsigned owned_slots(const struct ring *r)
{
    unsigned n = 0;
    for (unsigned slot = 0; r && slot < RING_SLOTS; slot++)
        n += ring_home_of_slot(r, slot) != RING_NONE;
    return n;
}

static void listing_end(struct listing *l)
{
    answer_json(l->job, l->root);
    free(l);
}

static void on_status(void *ctx, unsigned exit, str text)
{
    struct listed *n = ctx;
    struct listing *l = n->listing;
    json_t *status = json_loadb(text.p ? text.p : "", text.n, 0, NULL);
    if (exit == COMMAND_DONE && json_is_object(status)) {
        if (n->own)
            copy_status(n->node, status);
        else
            json_object_update(n->node, status);
    }
    json_decref(status);
    free(n);
    if (--l->left == 0)
        listing_end(l);
}

static void ask_status(struct listing *l, json_t *node, unsigned peer)
{
    struct listed *n = calloc(1, sizeof *n);
    must(n);
    *n = (struct listed){l, node, peer == PEER_SUPERVISOR};
    const str argv[] = {n->own ? STR("status") : STR("node-status")};
    commands_ask(l->job->commands, peer, 1, argv, STATUS_MS, on_status, n);
}

static json_t *node_json(const struct commands *c, const struct view_node *n)
{
    static const char *const states[] = {
        [VIEW_JOINING] = "joining", [VIEW_LIVE] = "live", [VIEW_DRAINING] = "drain"};
    str name = str_of(n->name);
    bool self = str_eq(name, c->c.node->name);
    bool suspect = member_suspects(membership_member(c->c.membership), name);
    json_t *j =
        json_pack("{s:s, s:b, s:s, s:s, s:i, s:i, s:i}", "name", n->name, "self", self, "state",
                  suspect ? "suspect" : states[n->state], "address", n->address, "shards",
                  __builtin_popcountll(n->shards), "weight", (int)n->weight, "slots",
                  (int)slots_of(c->c.node->ring, membership_block(c->c.membership, name)));
    uint64_t rtt_us = bus_round_trip_us(c->c.bus, name);
    if (rtt_us)
        json_object_set_new(j, "rtt_seconds", json_real((double)rtt_us / 1e6));
    if (self)
        add_own(c, j);
    return j;
}

static void list_nodes(struct job *j)
{
    struct commands *c = j->commands;
    const struct member *m = membership_member(c->c.membership);
    const struct view *v = membership_view(c->c.membership);
    struct listing *l = calloc(1, sizeof *l);
    must(l);
    l->job = j, l->root = head_of(c), l->left = 1;
    json_t *items = json_array();
    json_object_set_new(l->root, "settled", json_boolean(v && member_is_settled(m)));
    json_object_set_new(l->root, "frozen", json_boolean(member_is_frozen(m)));
    json_object_set_new(l->root, "stalled", json_boolean(member_is_stalled(m)));
    json_object_set_new(l->root, "registry",
                        json_boolean(metric_get(c->c.node->metrics, METRIC_registry_up)));
    json_object_set_new(l->root, "slots", json_integer(owned_slots(c->c.node->ring)));
    json_object_set_new(l->root, "items", items);
    for (size_t i = 0; v && i < v->count; i++) {
        const struct view_node *n = &v->nodes[i];
        json_t *node = node_json(c, n);
        json_array_append_new(items, node);
        bool self = str_eq(str_of(n->name), c->c.node->name);
        if (!self && !n->shards)
            continue;
        l->left++;
        unsigned block = membership_block(c->c.membership, str_of(n->name));
        ask_status(l, node,
                   self ? PEER_SUPERVISOR
                        : peer_number(block, (unsigned)__builtin_ctzll(n->shards)));
    }
    if (--l->left == 0)
        listing_end(l);
}

/* ---- node-ring ---- */

static const char *shard_name(const struct commands *c, unsigned peer)
{
    str node = membership_name(c->c.membership, peer_block(peer));
    return arena_printf(c->c.node->turn, "%.*s/%u", STR_ARG(node), peer_shard(peer)).p;
}

static void show_slot(struct job *j, unsigned slot)
{
    struct commands *c = j->commands;
    const struct ring *r = c->c.node->ring;
    unsigned home = ring_home_of_slot(r, slot), successor = ring_successor(r, slot);
    json_t *root = head_of(c);
    json_object_set_new(root, "slot", json_integer(slot));
    if (home != RING_NONE)
        json_object_set_new(root, "home", json_string(shard_name(c, home)));
    if (successor != RING_NONE)
        json_object_set_new(root, "successor", json_string(shard_name(c, successor)));
    json_object_set_new(root, "since", json_integer((json_int_t)ring_since(r, slot)));
    answer_json(j, root);
}

static void show_ring(struct job *j)
{
    struct commands *c = j->commands;
    const struct ring *r = c->c.node->ring;
    const struct view *v = membership_view(c->c.membership);
    unsigned *slots = arena_zalloc(c->c.node->turn, ring_peers_end(r) * sizeof *slots);
    size_t n;
    const struct ring_peer *peers = ring_peers(r, &n);
    json_t *root = head_of(c), *items = json_array();
    for (unsigned slot = 0; slot < RING_SLOTS; slot++)
        if (ring_home_of_slot(r, slot) != RING_NONE)
            slots[ring_home_of_slot(r, slot)]++;
    for (size_t i = 0; i < n; i++) {
        str node = membership_name(c->c.membership, peer_block(peers[i].peer));
        const struct view_node *member = view_find(v, node);
        json_array_append_new(items, json_pack("{s:o, s:i, s:i, s:i}", "node", text_of(node),
                                               "shard", (int)peer_shard(peers[i].peer), "slots",
                                               (int)slots[peers[i].peer], "weight",
                                               member ? (int)member->weight : 0));
    }
    json_object_set_new(root, "items", items);
    answer_json(j, root);
}

static bool read_slot(str digits, unsigned *slot)
{
    *slot = 0;
    for (size_t i = 0; i < digits.n && *slot < RING_SLOTS; i++) {
        if (digits.p[i] < '0' || digits.p[i] > '9')
            return false;
        *slot = *slot * 10 + (unsigned)(digits.p[i] - '0');
    }
    return digits.n > 0 && *slot < RING_SLOTS;
}

static void ring(struct job *j, size_t argc, const str *argv)
{
    struct commands *c = j->commands;
    const struct ring *r = c->c.node->ring;
    struct jid jid;
    unsigned slot;
    if (!r)
        job_answer(j, COMMAND_LATE, STR("the node is not in the cluster yet; ask again"));
    else if (argc == 1)
        show_ring(j);
    else if (argc == 3 && str_is(argv[1], "slot") && read_slot(argv[2], &slot))
        show_slot(j, slot);
    else if (argc == 3 && str_is(argv[1], "jid") &&
             jid_prepare(argv[2], c->c.node->turn, &jid) == ERR_OK)
        show_slot(j, ring_slot(r, jid.bare));
    else
        job_answer(j, COMMAND_USAGE, STR("a slot (0 to 16383) or a JID is wanted"));
}

/* ---- node-remove ---- */

static void remove_node(struct job *j, size_t argc, const str *argv)
{
    struct commands *c = j->commands;
    struct arena *a = c->c.node->turn;
    struct member *m = membership_member(c->c.membership);
    const struct view *v = membership_view(c->c.membership);
    str name = argc > 1 ? argv[1] : STR("");
    if (!v || !view_find(v, name)) {
        job_answer(j, COMMAND_NO_SUCH,
                   arena_printf(a, "no node %.*s in this cluster", STR_ARG(name)));
    } else if (str_eq(name, c->c.node->name) || !member_suspects(m, name)) {
        job_answer(j, COMMAND_CONFLICT,
                   arena_printf(a, "node %.*s is alive: drain it, then stop it", STR_ARG(name)));
    } else {
        member_forget(m, name);
        answer_json(j, json_pack("{s:i, s:o, s:o}", "v", 1, "node", text_of(c->c.node->name),
                                 "name", text_of(name)));
    }
}

bool node_command(struct job *j, size_t argc, const str *argv)
{
    if (str_is(argv[0], "node-list"))
        list_nodes(j);
    else if (str_is(argv[0], "node-status"))
        own_status(j);
    else if (str_is(argv[0], "node-ring"))
        ring(j, argc, argv);
    else if (str_is(argv[0], "node-remove"))
        remove_node(j, argc, argv);
    else
        return false;
    return true;
}
