/* What a clerk does with the registry: renews the node's lease, looks at some others' leases, reads
 * the view that is in force, and publishes the next one where something is due.
 *
 * Nodes are watched by their three predecessors in the view's order, and by everybody who does not
 * hear them: so a thousand nodes ask for three leases each, and half of them can die at once.
 *
 * A publication either only removes or only adds and changes. Its epoch is one higher than any that
 * was heard of, its own failed tries among them: an epoch never has two contents. */
#include "cluster/member_impl.h"
#include "pemberley/hash.h"

enum { WATCHED = 3 };
/* A cluster that is founded once more may not be the first one that was, with all who know of that
 * one dead: its epoch is drawn, so that no two are the same. */
enum { FOUND_GAP = 10000, FOUND_SPREAD = 1 << 20 };

static registry_done_f on_renewed, on_leases, on_view, on_published, on_nothing;

/* NULL: too many are under way. */
static struct request *take(struct member *m, enum ask what)
{
    for (size_t i = 0; i < REQUESTS_MAX; i++) {
        struct request *q = &m->requests[i];
        if (q->m)
            continue;
        *q = (struct request){.m = m, .what = what, .sent_ms = m->now};
        return q;
    }
    return NULL;
}

static bool under_way(const struct member *m, enum ask what)
{
    for (size_t i = 0; i < REQUESTS_MAX; i++)
        if (m->requests[i].m && m->requests[i].what == what)
            return true;
    return false;
}

/* The request is answered: its slot is free, and here is its member, if it still goes on. */
static struct member *answered(void *ctx, struct request *copy)
{
    struct request *q = ctx;
    *copy = *q;
    q->m = NULL;
    return member_enter(copy->m) ? copy->m : NULL;
}

static void on_nothing(void *ctx, err e, const struct registry_reply *reply)
{
    struct request *q = ctx;
    q->m = NULL;
}

static struct registry_lease my_lease(const struct member *m)
{
    return (struct registry_lease){.node = m->s.node,
                                   .owner = m->s.owner,
                                   .ttl_ms = m->s.lease_ms,
                                   .member = member_has_node_in_view(m)};
}

void member_drop_lease(struct member *m)
{
    struct request *q = take(m, ASK_DROP);
    if (q)
        registry_lease_drop(m->registry, my_lease(m), on_nothing, q);
}

/* ---- the view in force ---- */

void member_read_view(struct member *m)
{
    struct request *q = under_way(m, ASK_VIEW) ? NULL : take(m, ASK_VIEW);
    if (q)
        registry_view_get(m->registry, on_view, q);
}

/* What the registry said, if nothing that was asked later has said it already. */
static void note_epoch(struct member *m, uint64_t sent_ms, uint64_t epoch)
{
    if (sent_ms < m->said_ms)
        return;
    m->said_ms = sent_ms, m->registry_said = true, m->registry_epoch = epoch;
    member_know(m, epoch);
    bool lost = !epoch || (member_has_node_in_view(m) && epoch < m->view->epoch);
    m->lost_ms = lost ? m->lost_ms ? m->lost_ms : m->now : 0;
    if (lost)
        m->emptied_ms = m->now;
    if (epoch && (!m->in_force || m->in_force->epoch != epoch))
        member_read_view(m);
}

/* Looks that are further apart than a lease say nothing about the time between them. */
void member_note_others(struct member *m, bool somebody)
{
    bool goes_on = m->nobody_ms && m->now - m->nobody_last_ms < m->s.lease_ms;
    m->met |= somebody;
    m->nobody_ms = somebody ? 0 : goes_on ? m->nobody_ms : m->now;
    m->nobody_last_ms = m->now;
}

static void on_view(void *ctx, err e, const struct registry_reply *reply)
{
    struct request q;
    struct member *m = answered(ctx, &q);
    struct view *v = NULL;
    if (!m || e || (reply->view.n && view_decode(reply->view, &v)))
        return;
    if (v && v->epoch != reply->epoch) {
        view_free(v);
        return;
    }
    view_free(m->in_force);
    m->in_force = v;
    note_epoch(m, q.sent_ms, v ? v->epoch : 0);
    member_note_others(m, v || reply->members);
    member_publish(m);
}

/* ---- leases ---- */

bool member_is_away(const struct member *m)
{
    uint64_t patience = m->s.heartbeat_ms + m->s.heartbeat_ms / 4;
    return m->lease_ms && m->now - m->renewed_ms >= patience;
}

/* Who never had it waits until the one before must have lost it, and then gives up. To who had it
 * others have done this: it ends when it can be stalled no longer. */
static void refused(struct member *m, const struct registry_reply *reply)
{
    m->refused |= m->lease_ms != 0;
    if (m->stalled)
        member_over(m, MEMBER_FENCED);
    if (m->lease_ms || reply->lease_count < 1 || reply->leases[0].owner == m->s.owner)
        return;
    if (!m->taken_ms)
        m->taken_ms = m->now;
    if (m->now - m->taken_ms >= 2 * m->s.lease_ms)
        member_over(m, MEMBER_NAME_TAKEN);
}

static void on_renewed(void *ctx, err e, const struct registry_reply *reply)
{
    struct request q;
    struct member *m = answered(ctx, &q);
    if (!m)
        return;
    if (e == ERR_AWAY && m->lost_ms)
        m->lost_ms = m->now; /* it may have lost everything once more */
    m->lease_failures += e != ERR_OK;
    if (e == ERR_EXISTS)
        refused(m, reply);
    if (e)
        return;
    uint64_t until = q.sent_ms + member_short_lease(m);
    m->taken_ms = 0, m->refused = false;
    if (until > m->lease_ms && until > m->now)
        m->lease_ms = until;
    if (m->stalled && m->now < m->lease_ms && canary(CANARY_LEASE_IS_ENOUGH))
        member_go_on(m);
    if (q.sent_ms > m->renewed_ms)
        m->renewed_ms = q.sent_ms;
    if (m->away && !member_is_away(m))
        m->away = false, m->back_ms = m->now;
    note_epoch(m, q.sent_ms, reply->epoch);
    if (!reply->epoch && !member_has_node_in_view(m))
        member_read_view(m); /* is there a member at all? */
    member_orders(m);
    member_publish(m);
}

/* Where nodes join, mostly others do, too, of whom the registry tells; who waits for a view has
 * nothing else to do. */
uint32_t member_pace(const struct member *m)
{
    uint32_t beat = m->s.heartbeat_ms;
    bool young = !m->view || m->now - m->adopted_ms < 3ull * beat;
    return (young && !m->away) || m->stalled ? beat / 4 : beat;
}

static void renew(struct member *m)
{
    struct request *q;
    if ((m->asked_ms && m->now - m->asked_ms < member_pace(m)) || !(q = take(m, ASK_RENEW)))
        return;
    m->asked_ms = m->now;
    registry_lease_renew(m->registry, my_lease(m), on_renewed, q);
}

static bool unheard(const struct member *m, const struct peer *p)
{
    return p->silent || p->ended || m->now - p->heard_ms >= 2 * m->s.heartbeat_ms;
}

static bool is_forgotten(const struct member *m, size_t i)
{
    return strcmp(m->view->nodes[i].name, m->forget) == 0;
}

static bool watched(const struct member *m, size_t i, size_t self)
{
    size_t behind = (i + m->view->count - self) % m->view->count;
    const struct peer *p = &m->peers[i];
    return behind <= WATCHED || p->absent_ms || unheard(m, p) || is_forgotten(m, i);
}

static bool is_full(const struct member *m)
{
    const struct view_node *own = m->view ? member_own(m, m->view) : NULL;
    return own && own->state != VIEW_JOINING;
}

/* Does a missing lease say that its node has stopped acting? Not while it may go on by promises: by
 * ours, by those of our predecessor, or without any of ours as it does not know us yet. */
static bool is_evidence(const struct member *m)
{
    bool full = is_full(m) || canary(CANARY_ANYONE_REMOVES);
    return full && m->now >= m->quiet_ms && m->now - m->start_ms >= member_long_lease(m);
}

/* Begins where the last look ended: with more than fit, all have their turn. */
static void look_at_leases(struct member *m)
{
    str names[REGISTRY_LEASES_MAX];
    struct request *q;
    if (!m->view || !m->view->count || under_way(m, ASK_LEASES) || !(q = take(m, ASK_LEASES)))
        return;
    const struct view_node *own = view_find(m->view, m->s.node);
    size_t self = own ? (size_t)(own - m->view->nodes) : 0, count = m->view->count;
    q->epoch = m->view->epoch, q->evidence = is_evidence(m);
    for (size_t k = 0; k < count && q->count < REGISTRY_LEASES_MAX; k++) {
        size_t i = (m->watch + k) % count;
        if (!member_is_peer(m, i) || !watched(m, i, self))
            continue;
        names[q->count] = str_of(m->view->nodes[i].name);
        q->nodes[q->count++] = (uint16_t)i;
    }
    if (!q->count) {
        q->m = NULL;
        return;
    }
    m->watch = q->count < REGISTRY_LEASES_MAX ? 0 : q->nodes[q->count - 1] + 1;
    registry_leases_get(m->registry, names, q->count, on_leases, q);
}

static void on_leases(void *ctx, err e, const struct registry_reply *reply)
{
    struct request q;
    struct member *m = answered(ctx, &q);
    if (!m || e || q.epoch != m->view->epoch || reply->lease_count != q.count)
        return;
    for (size_t k = 0; k < q.count; k++) {
        struct peer *p = &m->peers[q.nodes[k]];
        bool there = reply->leases[k].owner == m->view->nodes[q.nodes[k]].owner;
        bool evidence = q.evidence && m->now >= m->quiet_ms; /* else it was promised since */
        bool absent = !there && (evidence || is_forgotten(m, q.nodes[k]));
        p->read_ms = q.sent_ms, p->missing = !there;
        p->absent_ms = !absent ? 0 : p->absent_ms ? p->absent_ms : m->now;
    }
    member_publish(m);
}

/* ---- who is silent on the bus with a lease that lives ---- */

/* Of two halves that do not hear each other at most one may go on. */
static bool hears_most(const struct member *m)
{
    size_t heard = 0;
    bool first = false;
    for (size_t i = 0; i < m->view->count; i++) {
        bool yes = !member_is_peer(m, i) || !unheard(m, &m->peers[i]);
        heard += yes;
        first |= yes && i == 0;
    }
    return 2 * heard > m->view->count || (2 * heard == m->view->count && first);
}

static void revoke_silent(struct member *m)
{
    if (!is_full(m) || m->stalled || m->away || m->lost_ms || m->now < m->quiet_ms ||
        m->now - m->adopted_ms < m->s.silence_ms || !hears_most(m))
        return;
    for (size_t i = 0; i < m->view->count; i++) {
        const struct peer *p = &m->peers[i];
        const struct view_node *n = &m->view->nodes[i];
        struct request *q;
        if (!member_is_peer(m, i) || p->absent_ms || m->now - p->heard_ms < m->s.silence_ms ||
            under_way(m, ASK_REVOKE) || !(q = take(m, ASK_REVOKE)))
            continue;
        registry_lease_revoke(m->registry,
                              (struct registry_lease){.node = str_of(n->name), .owner = n->owner},
                              my_lease(m), on_nothing, q);
    }
}

void member_ask_registry(struct member *m)
{
    renew(m);
    if (!m->lease_ms)
        return;
    look_at_leases(m);
    revoke_silent(m);
}

/* ---- what is due: removals ---- */

/* Its shards have all stopped. A lease alone may be missing because a registry has lost its last
 * second of writes: who is heard all the same has time to renew it, more of it if he says that he
 * waits for the registry; and everybody when it was seen empty just now. */
static bool is_dead(const struct member *m, size_t i)
{
    const struct peer *p = &m->peers[i];
    bool emptied = m->emptied_ms && m->now - m->emptied_ms < member_long_lease(m);
    uint64_t patience =
        p->misses && !unheard(m, p) ? 3 * member_long_lease(m) : member_long_lease(m);
    bool long_absent = p->absent_ms && m->now - p->absent_ms >= patience;
    return long_absent || (p->absent_ms && unheard(m, p) && !emptied);
}

static bool remove_dead_nodes(struct member *m, struct view *next)
{
    bool any = false;
    for (size_t i = m->view->count; i-- > 0;)
        if (member_is_peer(m, i) && is_dead(m, i)) {
            view_remove(next, &next->nodes[i]);
            any = true;
        }
    return any;
}

/* Incarnations of this node that are no more. */
static bool remove_dead_shards(struct member *m, struct view_node *own)
{
    bool any = own->owner != m->s.owner;
    if (any) {
        own->owner = m->s.owner, own->shards = 0;
        memset(own->incarnation, 0, sizeof own->incarnation);
    }
    for (unsigned i = 0; i < VIEW_SHARDS_MAX; i++) {
        uint64_t now = i == m->s.shard ? m->s.incarnation : m->siblings[i].incarnation;
        bool lives = now == own->incarnation[i] && (i == m->s.shard || member_sibling_counts(m, i));
        if (own->shards >> i & 1 && !lives) {
            view_node_clear(own, i);
            any = true;
        }
    }
    return any;
}

static bool removals(struct member *m, struct view *next)
{
    bool any = remove_dead_nodes(m, next);
    struct view_node *own = view_find(next, m->s.node);
    if (!own)
        return any;
    if (m->leave && own->state == VIEW_DRAINING && m->settled) {
        view_remove(next, own);
        return true;
    }
    return remove_dead_shards(m, own) || any;
}

/* ---- what is due: additions and changes ---- */

/* An incarnation that was published and is not there any more is not published again: others may
 * have seen it come and go. */
static bool has_gone(const struct member *m, unsigned shard)
{
    const struct view_node *own = member_own(m, m->in_force);
    uint64_t offered = m->siblings[shard].offered;
    return offered && offered <= m->in_force->epoch && !(own && own->shards >> shard & 1);
}

static bool add_shards(struct member *m, struct view_node *own, uint64_t epoch)
{
    bool any = false;
    for (unsigned i = 0; i < VIEW_SHARDS_MAX; i++) {
        struct sibling *b = &m->siblings[i];
        bool self = i == m->s.shard;
        if (own->shards >> i & 1 || !(self || (b->incarnation && b->ready && !b->cut)))
            continue;
        if (!self && has_gone(m, i)) {
            b->cut = true;
            m->sinks.stuck(m->sinks.ctx, i);
            continue;
        }
        view_node_set(own, i, self ? m->s.incarnation : b->incarnation);
        b->offered = epoch;
        any = true;
    }
    return any;
}

static bool others_have_a_share(const struct view *v, const struct view_node *own)
{
    for (size_t i = 0; i < v->count; i++)
        if (&v->nodes[i] != own && view_node_share(&v->nodes[i]))
            return true;
    return false;
}

static bool change_state(const struct member *m, struct view *next, struct view_node *own)
{
    enum view_state was = own->state;
    if (was == VIEW_JOINING)
        own->state = m->settled && m->in_view ? VIEW_LIVE : VIEW_JOINING;
    else if (!m->drain)
        own->state = VIEW_LIVE;
    else if (others_have_a_share(next, own) || (m->leave && next->count == 1))
        own->state = VIEW_DRAINING;
    return own->state != was;
}

static bool additions(struct member *m, struct view *next)
{
    struct view_node *own = view_find(next, m->s.node);
    bool any = !own;
    if (!own) {
        if (m->leave)
            member_over(m, MEMBER_LEFT);
        if (m->drain)
            return false;
        if (view_add(next, m->s.node, m->s.address, &own)) {
            member_over(m, MEMBER_FULL);
            return false;
        }
        own->owner = m->s.owner, own->state = VIEW_JOINING;
    }
    any |= own->weight != m->s.weight || !str_eq(str_of(own->address), m->s.address);
    own->weight = m->s.weight;
    memset(own->address, 0, sizeof own->address);
    memcpy(own->address, m->s.address.p, m->s.address.n);
    any |= add_shards(m, own, next->epoch);
    return change_state(m, next, own) || any;
}

/* ---- what is due: a view where there is none ---- */

/* Heard since, and not ahead of us; or without a lease, and not heard any more. Nobody is removed
 * by this: it is enough that who is not heard does not renew. */
static bool agrees(const struct member *m, size_t i)
{
    const struct peer *p = &m->peers[i];
    bool heard = p->beat_ms > m->lost_ms && !p->ended;
    uint64_t since = heard ? p->beat_ms : m->lost_ms;
    if (p->missing && p->read_ms >= since + member_long_lease(m))
        return true;
    return (heard && p->adopted <= m->view->epoch) || is_forgotten(m, i);
}

static bool may_restore(const struct member *m)
{
    if (m->now - m->lost_ms < member_long_lease(m))
        return false;
    for (size_t i = 0; i < m->view->count; i++)
        if (member_is_peer(m, i) && !agrees(m, i))
            return false;
    return true;
}

/* Is it for us to say that there is, and was, no cluster? */
static bool is_first(const struct member *m)
{
    return m->s.found_ms < 4 * m->s.lease_ms && !m->known && !m->met;
}

static struct view *founded(struct member *m)
{
    uint64_t gap = FOUND_GAP + hash_u64(m->s.owner ^ m->now) % FOUND_SPREAD;
    struct view *v = view_new(is_first(m) ? 1 : m->known + gap);
    struct view_node *own;
    must(view_add(v, m->s.node, m->s.address, &own) == ERR_OK);
    own->owner = m->s.owner, own->weight = m->s.weight, own->state = VIEW_LIVE;
    view_node_set(own, m->s.shard, m->s.incarnation);
    m->siblings[m->s.shard].offered = v->epoch;
    return v;
}

static struct view *instead_of_the_lost(struct member *m)
{
    if (member_has_node_in_view(m))
        return may_restore(m) ? view_copy(m->view, m->known + RESTORE_GAP) : NULL;
    uint64_t patience = m->s.found_ms;
    if (!is_first(m) && patience < 4 * m->s.lease_ms)
        patience = 4 * m->s.lease_ms;
    bool found = m->s.found_ms && m->nobody_ms && m->now - m->nobody_ms >= patience;
    return found ? founded(m) : NULL;
}

/* ---- publishing ---- */

static void on_published(void *ctx, err e, const struct registry_reply *reply)
{
    struct request q;
    struct member *m = answered(ctx, &q);
    if (!m)
        return;
    struct view *v = m->pending;
    m->pending = NULL;
    if (e == ERR_OK) {
        view_free(m->in_force);
        m->in_force = view_copy(v, v->epoch);
        note_epoch(m, q.sent_ms, v->epoch);
        member_adopt(m, v, true);
        return;
    }
    for (unsigned i = 0; e == ERR_STALE && i < VIEW_SHARDS_MAX; i++)
        if (m->siblings[i].offered == v->epoch)
            m->siblings[i].offered = 0;
    view_free(v);
    if (e == ERR_STALE)
        note_epoch(m, q.sent_ms, reply->epoch);
}

static void publish(struct member *m, struct view *next)
{
    struct request *q = take(m, ASK_CAS);
    if (!q) {
        view_free(next);
        return;
    }
    m->pending = next;
    q->epoch = next->epoch;
    member_know(m, next->epoch);
    registry_view_cas(m->registry, m->registry_epoch, next->epoch, view_encode(next, &m->scratch),
                      on_published, q);
}

/* The view gone by is the one in force: goes by it first, where it may. */
static bool up_to_date(struct member *m)
{
    if (!m->in_force || m->in_force->epoch != m->registry_epoch)
        return false;
    if (!m->view || m->view->epoch < m->in_force->epoch)
        member_adopt(m, view_copy(m->in_force, m->in_force->epoch), false);
    return !m->over && m->view && m->view->epoch == m->in_force->epoch;
}

/* Who is stalled goes on by a view of its own (member.h). */
static struct view *the_one_in_force_again(struct member *m)
{
    if (!m->in_force || m->in_force->epoch != m->registry_epoch)
        return NULL; /* it is being read */
    if (member_has_me(m, m->in_force))
        return view_copy(m->in_force, m->known + 1);
    member_over(m, MEMBER_REMOVED);
    return NULL;
}

static struct view *after_the_one_in_force(struct member *m)
{
    if (!m->in_view && has_gone(m, m->s.shard)) {
        member_over(m, MEMBER_REMOVED);
        return NULL;
    }
    struct view *next = view_copy(m->in_force, m->known + 1);
    if ((removals(m, next) || additions(m, next)) && !m->over)
        return next;
    view_free(next);
    return NULL;
}

void member_publish(struct member *m)
{
    if (m->over || !member_is_clerk(m) || !m->registry_said || m->pending ||
        m->now >= m->lease_ms || (m->now < m->quiet_ms && !canary(CANARY_ADOPT)))
        return;
    struct view *next = NULL;
    if (m->lost_ms)
        next = instead_of_the_lost(m);
    else if (m->stalled)
        next = the_one_in_force_again(m);
    else if (up_to_date(m))
        next = after_the_one_in_force(m);
    if (next)
        publish(m, next);
}
