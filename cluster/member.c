/* The life of a member: its deadline, the view it goes by, and what the supervisor tells it. Why
 * the pieces hold together stands in member.h; here is only what each of them does.
 *
 * Whatever comes in first meets the deadline (member_enter), with the time as it is now: a process
 * that was stopped for a minute ends before it believes a word that has waited for it. */
#include "cluster/member_impl.h"

#include <stdlib.h>

const char *member_end_text(enum member_end e)
{
    switch (e) {
    case MEMBER_FENCED: return "the node's lease could not be renewed in time";
    case MEMBER_REMOVED: return "the cluster goes on without this shard";
    case MEMBER_LEFT: return "the node has left the cluster";
    case MEMBER_NAME_TAKEN: return "another node of this name is in the cluster";
    case MEMBER_FULL: return "the cluster has as many nodes as it can have";
    }
    return "";
}

static void keep_text(char *to, size_t max, str *s)
{
    must(s->n <= max);
    memcpy(to, s->p, s->n);
    s->p = to;
}

struct member *member_new(const struct member_settings *s, struct registry *registry,
                          const struct member_sinks *sinks)
{
    must(view_name_ok(s->node) && s->owner && s->incarnation && s->shard < VIEW_SHARDS_MAX &&
         s->heartbeat_ms && s->lease_ms >= 3 * s->heartbeat_ms && s->weight <= VIEW_WEIGHT_MAX);
    struct member *m = calloc(1, sizeof *m);
    must(m);
    m->s = *s, m->registry = registry, m->sinks = *sinks;
    keep_text(m->name, REGISTRY_NODE_MAX, &m->s.node);
    keep_text(m->address, VIEW_ADDRESS_MAX, &m->s.address);
    arena_init(&m->scratch);
    m->margin_ms = s->lease_ms / 10;
    m->now = m->start_ms = sinks->now_ms(sinks->ctx);
    m->clerk = VIEW_SHARDS_MAX;
    m->known = s->epoch;
    return m;
}

static void forget_requests(struct member *m)
{
    for (size_t i = 0; i < REQUESTS_MAX; i++)
        if (m->requests[i].m) {
            registry_forget(m->registry, &m->requests[i]);
            m->requests[i].m = NULL;
        }
}

void member_free(struct member *m)
{
    if (!m)
        return;
    forget_requests(m);
    view_free(m->view);
    view_free(m->in_force);
    view_free(m->pending);
    free(m->peers);
    arena_close(&m->scratch);
    free(m);
}

/* ---- the deadline ---- */

uint64_t member_deadline_ms(const struct member *m)
{
    return m->frozen_ms > m->lease_ms ? m->frozen_ms : m->lease_ms;
}

bool member_is_frozen(const struct member *m)
{
    return !m->over && m->lease_ms && m->now >= m->lease_ms && m->now < m->frozen_ms;
}

bool member_acts(const struct member *m) { return !m->over && !m->stalled && m->in_view; }
bool member_is_stalled(const struct member *m) { return !m->over && m->stalled; }

void member_over(struct member *m, enum member_end why)
{
    m->over = true;
    if (member_is_clerk(m) && why == MEMBER_FENCED)
        member_beats(m);
    if (member_is_clerk(m) && (why == MEMBER_FENCED || (why == MEMBER_REMOVED && m->stalled)))
        member_orders(m);
    forget_requests(m);
    if (member_is_clerk(m) && why == MEMBER_LEFT)
        member_drop_lease(m);
    m->sinks.ended(m->sinks.ctx, why);
}

bool member_is_heard(const struct member *m, const struct peer *p)
{
    return p->beat_ms && !p->ended && m->now - p->beat_ms < 2 * m->s.heartbeat_ms;
}

/* Does a node that is heard have the registry, or miss it? Only the clerk knows. */
static bool hears(const struct member *m, bool renews)
{
    for (size_t i = 0; m->view && member_is_clerk(m) && i < m->view->count; i++) {
        const struct peer *p = &m->peers[i];
        bool says = renews ? p->renews : p->misses;
        if (member_is_peer(m, i) && member_is_heard(m, p) && says)
            return true;
    }
    return false;
}

bool member_has_company(const struct member *m) { return hears(m, false); }

/* Whether it may go on later is for others to know: but if they do, and it does not, it was cut
 * off. */
static bool stop_acting(struct member *m)
{
    if (!m->in_view || m->refused || hears(m, true)) {
        member_over(m, MEMBER_FENCED);
        return false;
    }
    m->stalled = true;
    m->sinks.stalled(m->sinks.ctx, true);
    return true;
}

void member_go_on(struct member *m)
{
    m->stalled = false;
    m->sinks.stalled(m->sinks.ctx, false);
}

bool member_enter(struct member *m)
{
    if (m->over)
        return false;
    arena_reset(&m->scratch);
    uint64_t now = m->sinks.now_ms(m->sinks.ctx);
    if (now > m->now)
        m->now = now;
    /* Once there was a lease, members may have been published that count on it: without it they
     * must not come to life later. */
    bool due = m->lease_ms && m->now >= member_deadline_ms(m) && !m->stalled;
    return !due || canary(CANARY_NO_FENCE) || stop_acting(m);
}

/* ---- the view ---- */

void member_know(struct member *m, uint64_t epoch)
{
    if (epoch > m->known)
        m->known = epoch;
}

struct view_node *member_own(const struct member *m, const struct view *v)
{
    struct view_node *n = view_find(v, m->s.node);
    return n && n->owner == m->s.owner ? n : NULL;
}

bool member_has_me(const struct member *m, const struct view *v)
{
    const struct view_node *n = member_own(m, v);
    return n && n->incarnation[m->s.shard] == m->s.incarnation;
}

static bool same_members(const struct view_node *a, const struct view_node *b)
{
    return a->shards == b->shards &&
           memcmp(a->incarnation, b->incarnation, sizeof a->incarnation) == 0;
}

/* What is known of a peer goes on; what was said about the last epoch does not, nor what was seen
 * of its lease: who has no lease has stopped acting, but may have published this epoch to go on,
 * and then had one again. */
static struct peer *peers_of(const struct member *m, const struct view *v)
{
    struct peer *peers = calloc(v->count + 1, sizeof *peers);
    must(peers);
    for (size_t i = 0; i < v->count; i++) {
        struct view_node *old = m->view ? view_find(m->view, str_of(v->nodes[i].name)) : NULL;
        struct peer *p = &peers[i];
        if (old && old->owner == v->nodes[i].owner)
            *p = m->peers[old - m->view->nodes];
        else
            p->heard_ms = m->now;
        if (!canary(CANARY_OLD_EVIDENCE))
            p->absent_ms = p->read_ms = 0, p->missing = false;
        if (!old || !same_members(old, &v->nodes[i]))
            p->ended = false;
        p->promise_ms = 0;
        p->settled = p->epoch == v->epoch;
    }
    return peers;
}

void member_adopt(struct member *m, struct view *v, bool sure)
{
    bool quiet = member_is_clerk(m) && m->now < m->quiet_ms && !canary(CANARY_ADOPT);
    if ((m->view && v->epoch <= m->view->epoch) || quiet || m->now >= m->lease_ms ||
        (m->stalled && !sure)) {
        view_free(v);
        return;
    }
    bool in_view = member_has_me(m, v), stalled = m->stalled;
    if (m->in_view && !in_view) {
        view_free(v);
        member_over(m, m->leave ? MEMBER_LEFT : MEMBER_REMOVED);
        return;
    }
    struct peer *peers = peers_of(m, v);
    if (m->view && v->epoch >= m->view->epoch + RESTORE_GAP)
        m->emptied_ms = m->now;
    free(m->peers);
    view_free(m->view);
    m->peers = peers, m->view = v;
    m->in_view = in_view, m->settled = m->stalled = false;
    m->frozen_ms = 0, m->adopted_ms = m->now;
    member_know(m, v->epoch);
    m->sinks.adopted(m->sinks.ctx, v);
    if (stalled)
        member_go_on(m);
    if (member_is_clerk(m)) {
        member_orders(m);
        member_beats(m);
        member_settle(m);
    } else {
        member_report(m);
    }
}

/* ---- time ---- */

/* A sibling that does not report gets no orders any more, and so stops by itself. Who slept itself
 * has not listened. */
static void cut_silent_siblings(struct member *m)
{
    bool late = m->now - m->next_ms >= m->s.heartbeat_ms;
    for (unsigned i = 0; i < VIEW_SHARDS_MAX; i++) {
        struct sibling *b = &m->siblings[i];
        if (late)
            b->heard_ms = m->now;
        if (b->incarnation && b->ready && !b->cut && m->now - b->heard_ms >= m->s.silence_ms) {
            b->cut = true;
            m->sinks.stuck(m->sinks.ctx, i);
        }
    }
}

static void tell_suspects(struct member *m)
{
    for (size_t i = 0; m->view && i < m->view->count; i++) {
        struct peer *p = &m->peers[i];
        bool suspect = p->silent || m->now - p->heard_ms >= 3 * m->s.heartbeat_ms;
        if (member_is_peer(m, i) && suspect != p->suspect) {
            p->suspect = suspect;
            m->sinks.suspect(m->sinks.ctx, &m->view->nodes[i], suspect);
        }
    }
}

static void clerk_beat(struct member *m)
{
    if (member_is_away(m))
        m->away = true;
    cut_silent_siblings(m);
    tell_suspects(m);
    member_ask_registry(m);
    member_publish(m);
    if (m->over)
        return;
    member_freeze(m);
    member_beats(m);
    member_orders(m);
    member_settle(m);
}

static uint64_t sooner(uint64_t next, uint64_t at, uint64_t now)
{
    return at > now && at < next ? at : next;
}

/* A heartbeat; sooner while a view is looked for, while promises are gathered, and when the
 * registry begins to be away. */
static uint64_t next_beat(const struct member *m)
{
    uint64_t beat = m->s.heartbeat_ms, next = m->now + beat;
    if (!member_is_clerk(m))
        return next;
    next = sooner(next, m->asked_ms + member_pace(m), m->now);
    if (m->lease_ms)
        next = sooner(next, m->renewed_ms + beat + beat / 4, m->now);
    return m->away ? sooner(next, m->now + beat / 4, m->now) : next;
}

uint64_t member_wake(struct member *m)
{
    if (!member_enter(m))
        return UINT64_MAX;
    if (m->clerk == VIEW_SHARDS_MAX)
        return m->now + m->s.heartbeat_ms;
    if (m->now >= m->next_ms) {
        if (member_is_clerk(m))
            clerk_beat(m);
        else
            member_report(m);
        if (m->over)
            return UINT64_MAX;
        m->next_ms = next_beat(m);
    }
    uint64_t deadline = m->stalled ? 0 : member_deadline_ms(m);
    return deadline && deadline < m->next_ms ? deadline : m->next_ms;
}

/* ---- news of the supervisor ---- */

bool member_sibling_counts(const struct member *m, unsigned shard)
{
    const struct sibling *b = &m->siblings[shard];
    return b->incarnation && (!b->cut || m->now < b->granted_ms + m->margin_ms);
}

void member_sibling_up(struct member *m, unsigned shard, uint64_t incarnation)
{
    must(shard < VIEW_SHARDS_MAX && shard != m->s.shard && incarnation);
    if (!member_enter(m))
        return;
    m->siblings[shard] = (struct sibling){.incarnation = incarnation, .heard_ms = m->now};
}

void member_sibling_down(struct member *m, unsigned shard)
{
    must(shard < VIEW_SHARDS_MAX && shard != m->s.shard);
    if (!member_enter(m))
        return;
    m->siblings[shard] = (struct sibling){0};
    member_publish(m);
    if (!m->over && member_is_clerk(m))
        member_settle(m);
}

/* The clerk before may have promised what this one does not know of: it promises only when the
 * registry has been away for a while, or was a short time ago; then the new one keeps still for as
 * long as a promise made until now can last. So does who comes up as the clerk of a node that has
 * been running. */
static void be_clerk(struct member *m, bool first)
{
    for (unsigned i = 0; i < VIEW_SHARDS_MAX; i++) {
        struct sibling *b = &m->siblings[i];
        b->heard_ms = m->now;
        if (b->granted_ms < m->now + m->s.lease_ms)
            b->granted_ms = m->now + m->s.lease_ms;
    }
    for (size_t i = 0; m->view && i < m->view->count; i++)
        m->peers[i].heard_ms = m->now; /* until now it was not us whom they spoke to */
    bool promised = m->renewed_ms
                        ? member_is_away(m) || (m->quiet_ms && m->quiet_ms + m->s.lease_ms > m->now)
                        : m->s.again || !first;
    if (promised && m->quiet_ms < m->now + member_long_lease(m))
        m->quiet_ms = m->now + member_long_lease(m);
}

void member_clerk(struct member *m, unsigned shard)
{
    must(shard < VIEW_SHARDS_MAX);
    if (!member_enter(m) || m->clerk == shard)
        return;
    bool first = m->clerk == VIEW_SHARDS_MAX;
    m->clerk = shard;
    m->next_ms = m->now;
    if (member_is_clerk(m))
        be_clerk(m, first);
}

/* ---- what is wanted ---- */

void member_weight(struct member *m, uint32_t weight)
{
    must(weight <= VIEW_WEIGHT_MAX);
    m->s.weight = weight;
    if (member_enter(m))
        member_publish(m);
}

void member_drain(struct member *m, bool drain)
{
    m->drain = drain;
    m->leave &= drain;
    if (member_enter(m))
        member_publish(m);
}

void member_leave(struct member *m)
{
    m->drain = m->leave = true;
    if (member_enter(m))
        member_publish(m);
}

void member_forget(struct member *m, str node)
{
    if (!view_name_ok(node) || !member_enter(m))
        return;
    memcpy(m->forget, node.p, node.n);
    m->forget[node.n] = 0;
}

void member_silent(struct member *m, str node, bool silent)
{
    if (!member_enter(m) || !m->view)
        return;
    struct view_node *n = view_find(m->view, node);
    if (!n)
        return;
    m->peers[n - m->view->nodes].silent = silent;
    if (!silent && member_is_clerk(m))
        member_beat(m, (size_t)(n - m->view->nodes));
}

/* ---- asked from outside ---- */

const struct view *member_view(const struct member *m) { return m->view; }
bool member_is_settled(const struct member *m) { return m->settled; }
uint64_t member_lease_failures(const struct member *m) { return m->lease_failures; }

static const struct peer *peer_named(const struct member *m, str node)
{
    const struct view_node *n = m->view ? view_find(m->view, node) : NULL;
    return n ? &m->peers[n - m->view->nodes] : NULL;
}

bool member_suspects(const struct member *m, str node)
{
    const struct peer *p = peer_named(m, node);
    return p && p->suspect;
}

uint64_t member_silence_ms(const struct member *m, str node)
{
    const struct peer *p = peer_named(m, node);
    return p ? m->now - p->heard_ms : 0;
}

uint64_t member_known_epoch(const struct member *m) { return m->known; }
