/* membership: see membership.h. A view is gone by at once, wherever in a turn it comes from: what
 * this shard says next, it says by that epoch. */
#include "node/shard/membership.h"

#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "cluster/peers.h"
#include "node/conf/conf.h"
#include "node/registry/dial.h"
#include "node/registry/registry.h"
#include "node/shard/bus.h"
#include "node/shard/fencing.h"
#include "node/shard/rooms.h"
#include "node/shard/siblings.h"
#include "node/shard/view_change.h"
#include "node/tls/tls.h"
#include "pemberley/store.h"
#include "proto/bus/store.pb-c.h"

#define SYSTEM_TRUST "/etc/ssl/certs/ca-certificates.crt"

struct membership {
    struct node *node;
    struct child *child;
    struct edge *edge;
    struct home *home;
    struct bus *bus;
    struct siblings *siblings;
    struct fencing *fencing;
    struct membership_sinks sinks;
    struct member *member;
    struct dialer dialer;
    struct registry_redis *redis;
    struct peers *peers;
    struct timer timer;
    uint64_t due_ms; /* of the clock below, for which it is set; 0: it is not */
    uint64_t told_epoch;
    uint64_t lease_failures;                /* as already counted */
    uint64_t incarnations[VIEW_SHARDS_MAX]; /* of siblings; 0: down */
    unsigned clerk;
    struct view *view; /* gone by, a copy: what the next one changes; NULL: none yet */
    bool ready, settled;
    bool admitted; /* the store has lifted what fences this node, as of this view */
    bool admitting, late;
    uint64_t admit_until_ms; /* of the clock below: it is asked for again each second */
    bool company;            /* the supervisor was told so, of the stall that it is in */
};

/* ---- time ---- */

static uint64_t boottime_ms(void *ctx)
{
    struct timespec ts;
    clock_gettime(CLOCK_BOOTTIME, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void remember_epoch(struct membership *m)
{
    uint64_t known = member_known_epoch(m->member);
    if (known <= m->told_epoch)
        return;
    m->told_epoch = known;
    child_epoch(m->child, known);
}

static void on_wake(void *ctx)
{
    struct membership *m = ctx;
    uint64_t due = member_wake(m->member);
    remember_epoch(m);
    if (due == m->due_ms || due == UINT64_MAX)
        return;
    uint64_t now = boottime_ms(NULL);
    m->due_ms = due;
    loop_timer_set(m->node->loop, &m->timer, due > now ? due - now : 0);
}

/* That the loop wakes up is enough; a timer that came early is set again. */
static void on_timer(struct timer *t) { container_of(t, struct membership, timer)->due_ms = 0; }

/* ---- what a view changes ---- */

static void tell_change(struct membership *m, const struct view *v)
{
    struct node *n = m->node;
    struct view_change c = view_change_of(m->view, v);
    size_t moved = 0;
    for (unsigned slot = 0; slot < RING_SLOTS; slot++)
        moved += ring_changed(n->ring, slot);
    if (c.any)
        metric_add(n->metrics, METRIC_AT(cluster_ring_changes, c.cause, 0), 1);
    LOG_AT(n->log, membership_is_clerk(m) ? LOG_INFO : LOG_DEBUG, ring_changed,
           F_INT("epoch", v->epoch), F_STR("cause", str_of(view_change_cause(&c))),
           F_STR("joined", str_of(c.joined)), F_STR("left", str_of(c.left)),
           F_INT("moved_slots", moved));
}

/* A node is ready when all its shards are: it is enough that the clerk waits for the store. */
static void become_ready(struct membership *m)
{
    const struct view_node *own = m->view ? view_find(m->view, m->node->name) : NULL;
    if (m->ready || !m->settled || !own || own->state == VIEW_JOINING ||
        (membership_is_clerk(m) && !m->admitted))
        return;
    m->ready = true;
    m->sinks.ready(m->sinks.ctx);
}

/* ---- the store's fence ---- */

static void on_admitted(void *ctx, err e, const struct Store__Reply *reply)
{
    struct membership *m = ctx;
    m->admitting = false;
    m->admitted |= e == ERR_OK;
    become_ready(m);
}

/* What was set when this node was last removed is lifted, whatever epoch tried to: it acts, and so
 * has its lease; who has none does not come so far. */
static void ask_to_be_admitted(struct membership *m)
{
    struct node *n = m->node;
    Store__NodeAdmit admit = STORE__NODE_ADMIT__INIT;
    Store__Request q = STORE__REQUEST__INIT;
    if (m->admitted || m->admitting || !membership_is_clerk(m) || !member_acts(m->member))
        return;
    admit.node = (ProtobufCBinaryData){n->name.n, (uint8_t *)(uintptr_t)n->name.p};
    admit.epoch = member_known_epoch(m->member);
    q.op_case = STORE__REQUEST__OP_NODE_ADMIT, q.node_admit = &admit;
    m->admitting = true;
    store_submit(n->store, &q, on_admitted, m);
}

static void show_nodes(struct membership *m)
{
    struct metric_page *page = m->node->metrics;
    uint64_t count[METRIC_SIZE_MEMBER] = {0};
    for (size_t i = 0; m->view && membership_is_clerk(m) && i < m->view->count; i++) {
        const struct view_node *n = &m->view->nodes[i];
        static const enum metric_member states[] = {[VIEW_JOINING] = MEMBERS_JOINING,
                                                    [VIEW_LIVE] = MEMBERS_LIVE,
                                                    [VIEW_DRAINING] = MEMBERS_DRAINING};
        bool suspect = member_suspects(m->member, str_of(n->name));
        count[suspect ? MEMBERS_SUSPECT : states[n->state]]++;
    }
    for (unsigned i = 0; i < METRIC_SIZE_MEMBER; i++)
        metric_set(page, METRIC_AT(cluster_nodes, i, 0), count[i]);
}

/* At once: the supervisor goes by it when it lets the node's slots go. */
static void show_view(struct membership *m)
{
    struct node *n = m->node;
    unsigned own = 0;
    for (unsigned slot = 0; n->ring && slot < RING_SLOTS; slot++)
        own += ring_home_of_slot(n->ring, slot) == n->shard;
    metric_set(n->metrics, METRIC_cluster_slots, own);
    metric_set(n->metrics, METRIC_cluster_epoch, m->view ? m->view->epoch : 0);
    metric_set(n->metrics, METRIC_cluster_settled,
               membership_is_clerk(m) && member_is_settled(m->member));
    show_nodes(m);
}

/* ---- what a view means ---- */

static void tell_stall(struct membership *m)
{
    const struct view *v = member_view(m->member);
    m->company = !membership_is_clerk(m) || member_has_company(m->member);
    child_stalled(m->child, member_is_stalled(m->member), m->company, v ? v->epoch : 0);
}

/* Who was about to remove us may still fence us in the store, for as long as a request there can
 * take, though it cannot publish it any more. */
static void on_stalled(void *ctx, bool stalled)
{
    struct membership *m = ctx;
    const struct conf *c = m->node->conf;
    m->sinks.stalled(m->sinks.ctx, stalled);
    tell_stall(m);
    m->admit_until_ms = boottime_ms(NULL) + (uint64_t)(c->store_timeout + c->cluster_lease);
}

static void on_adopted(void *ctx, const struct view *v)
{
    struct membership *m = ctx;
    struct node *n = m->node;
    fencing_adopted(m->fencing, v);
    if (!member_acts(m->member)) /* we are not in it yet */
        return;
    const unsigned *blocks = peers_blocks(m->peers, v, n->turn);
    siblings_expect(m->siblings, view_find(v, n->name));
    rooms_adopt(n, m->edge, m->home, ring_new(n->secret, v, blocks, n->ring));
    peers_keep(m->peers, v);
    bus_adopt(m->bus, v, blocks);
    siblings_adopted(m->siblings, m->sinks.bad, m->sinks.ctx);
    tell_change(m, v);
    view_free(m->view);
    m->view = view_copy(v, v->epoch);
    show_view(m);
    m->admitted = m->settled = false;
    ask_to_be_admitted(m);
}

static void on_settled(void *ctx, uint64_t epoch)
{
    struct membership *m = ctx;
    if (!member_acts(m->member))
        return;
    rooms_epoch_settled(m->node, m->home, epoch);
    m->settled = true;
    become_ready(m);
}

static void on_suspect(void *ctx, const struct view_node *n, bool suspect)
{
    struct membership *m = ctx;
    if (suspect)
        LOG(m->node->log, peer_suspect, F_STR("peer", str_of(n->name)),
            F_INT("silent_ms", member_silence_ms(m->member, str_of(n->name))));
}

static void on_stuck(void *ctx, unsigned shard)
{
    struct membership *m = ctx;
    if (m->incarnations[shard])
        child_stuck(m->child, shard, m->incarnations[shard]);
}

static void on_ended(void *ctx, enum member_end why)
{
    struct membership *m = ctx;
    remember_epoch(m);
    const struct view *v = member_view(m->member);
    if (why != MEMBER_LEFT)
        child_ended(m->child, why, v ? v->epoch : 0);
    m->sinks.ended(m->sinks.ctx, why);
}

static void on_say(void *ctx, str node, unsigned shard, str bytes)
{
    struct membership *m = ctx;
    bus_say(m->bus, node, shard, bytes);
}

/* ---- news ---- */

void membership_sibling_up(struct membership *m, unsigned shard, uint64_t incarnation)
{
    m->incarnations[shard] = incarnation;
    member_sibling_up(m->member, shard, incarnation);
}

void membership_sibling_down(struct membership *m, unsigned shard)
{
    m->incarnations[shard] = 0;
    member_sibling_down(m->member, shard);
}

void membership_clerk(struct membership *m, unsigned shard)
{
    m->clerk = shard;
    member_clerk(m->member, shard);
}

void membership_wish(struct membership *m, const struct child_wish *w)
{
    member_weight(m->member, w->weight);
    member_drain(m->member, w->drain);
}

bool membership_leave(struct membership *m)
{
    if (!membership_is_clerk(m) || !member_acts(m->member))
        return false;
    member_leave(m->member);
    return true;
}

err membership_hear(struct membership *m, str node, str bytes)
{
    return member_hear(m->member, node, bytes);
}

void membership_silent(struct membership *m, str node, bool silent)
{
    member_silent(m->member, node, silent);
}

/* ---- once a second ---- */

/* Late: the next renewal is overdue by half a heartbeat, or by a third of the lease. */
static void show_lease(struct membership *m)
{
    const struct conf *c = m->node->conf;
    int64_t left = (int64_t)membership_lease_ms(m);
    bool late = member_deadline_ms(m->member) &&
                left < c->cluster_lease - c->cluster_lease / 10 - 3 * c->cluster_heartbeat / 2;
    uint64_t failures = member_lease_failures(m->member);
    metric_set(m->node->metrics, METRIC_cluster_lease_ms, (uint64_t)left);
    metric_add(m->node->metrics, METRIC_cluster_lease_failures,
               (int64_t)(failures - m->lease_failures));
    m->lease_failures = failures;
    if (late && !m->late && membership_is_clerk(m) && !member_is_frozen(m->member))
        LOG(m->node->log, lease_late, F_INT("remaining_ms", left));
    m->late = late;
}

void membership_sample(struct membership *m)
{
    show_view(m);
    show_lease(m);
    if (member_is_stalled(m->member) && membership_is_clerk(m) &&
        m->company != member_has_company(m->member))
        tell_stall(m);
    if (m->ready && boottime_ms(NULL) < m->admit_until_ms)
        m->admitted = false;
    ask_to_be_admitted(m);
}

bool membership_is_stalled(const struct membership *m) { return member_is_stalled(m->member); }
bool membership_is_clerk(const struct membership *m) { return m->clerk == m->node->shard; }
uint64_t membership_lease_ms(const struct membership *m)
{
    uint64_t now = boottime_ms(NULL), until = member_deadline_ms(m->member);
    return until > now ? until - now : 0;
}

struct member *membership_member(struct membership *m) { return m->member; }
unsigned membership_block(struct membership *m, str node) { return peers_block(m->peers, node); }
str membership_name(const struct membership *m, unsigned block)
{
    return peers_name(m->peers, block);
}

const struct view *membership_view(const struct membership *m) { return member_view(m->member); }

/* ---- start ---- */

static struct transport *secure(void *ctx, struct transport *low, const char *host)
{
    return tls_proven_open(ctx, low, host);
}

/* Without authorities nobody is dialled, as registry_lost says. */
static void open_dialer(struct membership *m, struct resolver *r)
{
    struct node *n = m->node;
    const struct conf *c = n->conf;
    bool own = conf_text(c, c->registry_redis_ca_file).n > 0;
    const char *ca = own ? conf_path(c, c->registry_redis_ca_file, n->turn).p : SYSTEM_TRUST;
    dialer_init(&m->dialer, n->loop, r, c->registry_redis_tls ? secure : NULL, n->tls);
    if (c->registry_redis_tls && tls_take_trust(n->tls, ca))
        m->dialer.refusal = "registry.redis.ca_file has no certificates";
}

static void open_registry(struct membership *m, struct resolver *r)
{
    struct node *n = m->node;
    const struct conf *c = n->conf;
    struct registry_settings s = {
        .cluster = conf_text(c, c->cluster_name),
        .mode = (enum registry_mode)c->registry_redis_mode,
        .master = conf_text(c, c->registry_redis_master),
        .user = conf_text(c, c->registry_redis_user),
        .password_file = conf_path(c, c->registry_redis_password_file, n->turn),
        .timeout_ms = (uint32_t)c->registry_redis_timeout,
        .refresh_ms = (uint32_t)c->registry_refresh,
        .record_lifetime_ms = (uint32_t)c->registry_record_lifetime,
        .records_max = c->registry_records_max,
        .records_bytes_max = c->registry_records_bytes_max,
    };
    for (uint32_t i = 0; i < c->registry_redis_servers.count && i < REGISTRY_SERVERS_MAX; i++)
        s.servers[s.servers_n++] = conf_list_at(c, c->registry_redis_servers, i);
    open_dialer(m, r);
    const struct registry_doors d = {.loop = n->loop,
                                     .entropy = n->entropy,
                                     .log = n->log,
                                     .metrics = n->metrics,
                                     .dialer = &m->dialer.dialer};
    m->redis = registry_redis_new(&d, &s);
}

/* The node on which the cluster was made has its authority's key, and begins it; that key may as
 * well be kept elsewhere. Then any node does, when it has seen nobody for long. */
static uint32_t found_ms(const struct node *n, uint64_t epoch)
{
    const struct conf *c = n->conf;
    str ca = conf_path(c, c->cluster_ca_file, n->turn);
    const char *slash = memrchr(ca.p, '/', ca.n);
    str dir = slash ? str_from(ca.p, (size_t)(slash + 1 - ca.p)) : STR_NONE;
    bool made_here = access(arena_printf(n->turn, "%.*sca.key", STR_ARG(dir)).p, F_OK) == 0;
    return (uint32_t)(made_here && !epoch ? c->cluster_heartbeat : 4 * c->cluster_lease);
}

static struct member_settings settings_of(const struct node *n, const struct child_start *start)
{
    const struct conf *c = n->conf;
    return (struct member_settings){
        .node = n->name,
        .address = conf_text(c, c->listen_bus_address),
        .owner = start->cluster.owner,
        .shard = n->shard,
        .incarnation = start->incarnation,
        .weight = (uint32_t)c->cluster_weight,
        .heartbeat_ms = (uint32_t)c->cluster_heartbeat,
        .lease_ms = (uint32_t)c->cluster_lease,
        .silence_ms = (uint32_t)c->cluster_barrier_timeout,
        .found_ms = found_ms(n, start->cluster.epoch),
        .epoch = start->cluster.epoch,
        .again = start->cluster.again,
    };
}

struct membership *membership_new(struct node *n, const struct child_start *start,
                                  struct child *child, struct resolver *r,
                                  const struct membership_sinks *sinks)
{
    struct membership *m = calloc(1, sizeof *m);
    must(m);
    m->node = n, m->child = child, m->sinks = *sinks;
    m->told_epoch = start->cluster.epoch, m->clerk = VIEW_SHARDS_MAX;
    timer_init(&m->timer, on_timer);
    m->peers = peers_new(n->name);
    open_registry(m, r);
    n->peers = m->peers, n->registry = registry_redis_door(m->redis);
    const struct member_settings s = settings_of(n, start);
    const struct member_sinks k = {m,          boottime_ms, on_say,     on_adopted, on_settled,
                                   on_suspect, on_stuck,    on_stalled, on_ended};
    m->fencing = fencing_new(registry_redis_door(m->redis), n->store);
    m->member = member_new(&s, fencing_door(m->fencing), &k);
    return m;
}

void membership_start(struct membership *m, struct edge *e, struct home *h, struct bus *b,
                      struct siblings *siblings)
{
    m->edge = e, m->home = h, m->bus = b, m->siblings = siblings;
    loop_on_wake(m->node->loop, on_wake, m);
}
