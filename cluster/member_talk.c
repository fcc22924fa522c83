/* The words of a member: beats between clerks, orders and reports within a node, and what follows
 * from them: the promises that a frozen membership rests on, and when an epoch is settled.
 *
 * A promise is good for one lease from the moment at which it was asked for, by the clock of who
 * asked (its time goes there and back), and is kept for a little longer from the moment at which it
 * was given, by the clock of who gave it: no two clocks are compared. */
#include "cluster/member_impl.h"

static struct word a_word(const struct member *m, enum word_kind kind)
{
    return (struct word){
        .kind = kind,
        .node = m->s.node,
        .owner = m->s.owner,
        .shard = m->s.shard,
        .incarnation = m->s.incarnation,
        .epoch = m->view ? m->view->epoch : 0,
        .adopted = m->view ? m->view->epoch : 0,
        .known = m->known,
    };
}

static void say(struct member *m, str node, unsigned shard, const struct word *w)
{
    m->sinks.say(m->sinks.ctx, node, shard, word_encode(w, &m->scratch));
}

/* ---- beats ---- */

uint64_t member_uniform_epoch(const struct member *m)
{
    const struct view_node *own = m->view ? member_own(m, m->view) : NULL;
    for (unsigned i = 0; own && i < VIEW_SHARDS_MAX; i++) {
        const struct sibling *b = &m->siblings[i];
        if (i == m->s.shard || !(own->shards >> i & 1) || b->incarnation != own->incarnation[i] ||
            !member_sibling_counts(m, i))
            continue;
        if (!b->ready || b->epoch != m->view->epoch)
            return 0;
    }
    return own ? m->view->epoch : 0;
}

static bool asks(const struct member *m, const struct peer *p)
{
    return p->asked_ms && m->now - p->asked_ms < 2 * m->s.heartbeat_ms;
}

/* Only who has missed the registry itself promises: to a node that is the only one cut off nobody
 * does, and it stops. Who is stalled has nobody's promise, or had it too late: nor do others then
 * have all. */
static bool may_promise(const struct member *m)
{
    bool lately = m->back_ms && m->now < m->back_ms + 2 * m->s.lease_ms;
    return !m->over && !m->stalled && (m->away || lately) && member_uniform_epoch(m);
}

static void promise(struct member *m, struct peer *p)
{
    p->absent_ms = 0; /* it may act without a lease from now on */
    if (m->quiet_ms < m->now + member_long_lease(m))
        m->quiet_ms = m->now + member_long_lease(m);
}

void member_beat(struct member *m, size_t i)
{
    struct peer *p = &m->peers[i];
    struct word w = a_word(m, WORD_BEAT);
    w.epoch = member_uniform_epoch(m);
    w.mine_ms = m->now, w.yours_ms = p->their_ms;
    w.flags = m->over         ? WORD_ENDED
              : m->stalled    ? WORD_STALLED
              : m->away       ? WORD_ASKS
              : m->renewed_ms ? WORD_RENEWS
                              : 0;
    if (!m->over && member_has_node_in_view(m))
        w.flags |= WORD_MEMBER;
    if (asks(m, p) && may_promise(m)) {
        w.flags |= WORD_PROMISES;
        promise(m, p);
    }
    if (p->their_ms && p->adopted < m->view->epoch && (asks(m, p) || m->lost_ms))
        w.view = view_encode(m->view, &m->scratch);
    p->sent_ms = m->now;
    say(m, str_of(m->view->nodes[i].name), MEMBER_ANY_SHARD, &w);
}

void member_beats(struct member *m)
{
    for (size_t i = 0; m->view && i < m->view->count; i++)
        if (member_is_peer(m, i))
            member_beat(m, i);
}

static void take_view(struct member *m, str bytes, bool sure)
{
    struct view *v;
    if (bytes.n && view_decode(bytes, &v) == ERR_OK)
        member_adopt(m, v, sure);
}

static void note_beat(struct member *m, struct peer *p, const struct word *w)
{
    p->heard_ms = p->beat_ms = m->now, p->their_ms = w->mine_ms;
    p->epoch = w->epoch, p->adopted = w->adopted;
    p->ended = w->flags & WORD_ENDED;
    p->asked_ms = w->flags & WORD_ASKS ? m->now : 0;
    bool fresh = m->now - w->yours_ms < 2 * m->s.heartbeat_ms; /* else it has waited for us */
    p->renews = w->flags & WORD_RENEWS && fresh;
    p->misses = w->flags & (WORD_ASKS | WORD_STALLED);
    if (w->epoch != m->view->epoch)
        return;
    p->settled = true;
    if (w->flags & WORD_PROMISES && w->yours_ms > p->promise_ms)
        p->promise_ms = w->yours_ms;
}

/* Somebody who is not in our view goes by a later one with us in it, and the registry, which has
 * none, cannot tell it: he may. */
static void ask_for_view(struct member *m, const struct word *from)
{
    struct word w = a_word(m, WORD_BEAT);
    w.epoch = member_uniform_epoch(m);
    w.mine_ms = m->now, w.yours_ms = from->mine_ms;
    say(m, from->node, MEMBER_ANY_SHARD, &w);
}

static void on_beat(struct member *m, const struct word *w)
{
    member_know(m, w->known);
    if (w->flags & WORD_MEMBER)
        member_note_others(m, true);
    if (m->registry_said && !m->lost_ms && w->adopted > m->registry_epoch)
        member_read_view(m);
    struct view_node *n = m->view ? view_find(m->view, w->node) : NULL;
    struct peer *p = n ? &m->peers[n - m->view->nodes] : NULL;
    if (!p || n->owner != w->owner) {
        if (m->lost_ms && w->adopted > (m->view ? m->view->epoch : 0)) {
            ask_for_view(m, w);
            take_view(m, w->view, false);
        }
        return;
    }
    if (w->mine_ms < p->their_ms)
        return;
    note_beat(m, p, w);
    member_freeze(m);
    member_settle(m);
    /* An answer is wanted soon, but answers to answers would never end. */
    if (w->flags & WORD_ASKS && m->now - p->sent_ms >= m->s.heartbeat_ms / 8)
        member_beat(m, (size_t)(n - m->view->nodes));
    take_view(m, w->view, false);
}

/* ---- promises ---- */

void member_freeze(struct member *m)
{
    uint64_t least = m->now, most = 0;
    if (!m->away || m->stalled || !m->in_view || !member_uniform_epoch(m))
        return;
    for (size_t i = 0; i < m->view->count; i++) {
        if (!member_is_peer(m, i))
            continue;
        uint64_t promise = m->peers[i].promise_ms;
        least = promise < least ? promise : least;
        most = promise > most ? promise : most;
    }
    if (canary(CANARY_ONE_PROMISE))
        least = most;
    uint64_t until = least ? least + member_short_lease(m) : 0;
    if (until > m->frozen_ms) {
        m->frozen_ms = until;
        member_orders(m);
    }
}

/* ---- orders and reports ---- */

static void order(struct member *m, unsigned shard)
{
    struct sibling *b = &m->siblings[shard];
    struct word w = a_word(m, WORD_ORDER);
    w.flags = m->over ? WORD_ENDED : member_acts(m) ? WORD_ACTS : 0;
    w.lease_ms = m->over || m->stalled ? 0 : m->lease_ms, w.frozen_ms = m->frozen_ms;
    w.quiet_ms = m->quiet_ms, w.renewed_ms = m->renewed_ms;
    w.settled = m->settled ? m->view->epoch : 0;
    if (m->view && b->ready && b->epoch != m->view->epoch)
        w.view = view_encode(m->view, &m->scratch);
    if (b->granted_ms < member_deadline_ms(m))
        b->granted_ms = member_deadline_ms(m);
    say(m, m->s.node, shard, &w);
}

void member_orders(struct member *m)
{
    for (unsigned i = 0; m->lease_ms && i < VIEW_SHARDS_MAX; i++)
        if (m->siblings[i].incarnation && !m->siblings[i].cut)
            order(m, i);
}

/* A lease that has run out already is none for somebody who had none before. */
static void take_times(struct member *m, const struct word *w)
{
    if (w->lease_ms > m->lease_ms && w->lease_ms > m->now)
        m->lease_ms = w->lease_ms;
    if (w->renewed_ms > m->renewed_ms)
        m->renewed_ms = w->renewed_ms;
    if (w->quiet_ms > m->quiet_ms)
        m->quiet_ms = w->quiet_ms;
}

/* The clerk goes: it was cut off, or removed. */
static void clerk_ends(struct member *m)
{
    m->refused = true;
    if (m->stalled)
        member_over(m, MEMBER_FENCED);
}

/* A clerk that acts has had its lease since it went on itself, by a view that was in force then, or
 * by promises: so this shard may, if it goes by the same. */
static void on_order(struct member *m, const struct word *w)
{
    bool acts = w->flags & WORD_ACTS;
    if (w->shard != m->clerk || member_is_clerk(m))
        return;
    if (w->flags & WORD_ENDED) {
        clerk_ends(m);
        return;
    }
    m->refused &= !acts;
    member_know(m, w->known);
    take_times(m, w);
    take_view(m, w->view, acts);
    if (m->over || !m->view || m->view->epoch != w->epoch)
        return;
    if (m->lease_ms && w->frozen_ms > m->frozen_ms)
        m->frozen_ms = w->frozen_ms;
    if (m->stalled && acts && m->now < member_deadline_ms(m))
        member_go_on(m);
    if (w->settled == m->view->epoch && !m->settled) {
        m->settled = true;
        m->sinks.settled(m->sinks.ctx, m->view->epoch);
    }
}

void member_report(struct member *m)
{
    struct word w = a_word(m, WORD_REPORT);
    if (m->clerk < VIEW_SHARDS_MAX && !member_is_clerk(m))
        say(m, m->s.node, m->clerk, &w);
}

static void on_report(struct member *m, const struct word *w)
{
    struct sibling *b = &m->siblings[w->shard];
    if (!member_is_clerk(m) || w->shard == m->s.shard || b->incarnation != w->incarnation)
        return;
    member_know(m, w->known);
    bool news = !b->ready || b->epoch != w->epoch;
    uint64_t before = member_uniform_epoch(m);
    b->ready = true, b->heard_ms = m->now, b->epoch = w->epoch;
    if (m->view && w->epoch != m->view->epoch && m->lease_ms && !b->cut)
        order(m, w->shard);
    if (!news)
        return;
    member_freeze(m);
    member_settle(m);
    if (member_uniform_epoch(m) != before)
        member_beats(m);
    member_publish(m);
}

/* ---- settled ---- */

/* Node by node: all of a node's shards have said the epoch, or it has none, or has never owned
 * anything (so that one which can join but not talk holds up nobody). */
static bool all_have_said(const struct member *m)
{
    for (size_t i = 0; i < m->view->count; i++)
        if (member_is_peer(m, i) && m->view->nodes[i].shards &&
            m->view->nodes[i].state != VIEW_JOINING && !m->peers[i].settled)
            return false;
    return member_uniform_epoch(m) != 0;
}

void member_settle(struct member *m)
{
    if (m->settled || !m->view || !member_is_clerk(m) || !all_have_said(m))
        return;
    m->settled = true;
    m->sinks.settled(m->sinks.ctx, m->view->epoch);
    member_orders(m);
}

/* ---- in ---- */

err member_hear(struct member *m, str node, str bytes)
{
    struct word w;
    if (!member_enter(m))
        return ERR_OK;
    err e = word_decode(bytes, &m->scratch, &w);
    if (e)
        return e;
    /* A sibling hands on what it has heard from others. */
    bool relayed = w.kind == WORD_BEAT && str_eq(node, m->s.node);
    bool ours = str_eq(w.node, m->s.node) && w.owner == m->s.owner;
    if (!str_eq(node, w.node) && !relayed)
        return ERR_BAD;
    if (w.kind == WORD_BEAT && !member_is_clerk(m)) {
        if (!relayed && m->clerk < VIEW_SHARDS_MAX)
            m->sinks.say(m->sinks.ctx, m->s.node, m->clerk, bytes);
        return ERR_OK;
    }
    switch (w.kind) {
    case WORD_BEAT: on_beat(m, &w); break;
    case WORD_ORDER:
        if (ours)
            on_order(m, &w);
        break;
    case WORD_REPORT:
        if (ours)
            on_report(m, &w);
        break;
    }
    return ERR_OK;
}
