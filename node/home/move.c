/* move: slots that come to this home and go from it, by the epochs of a cluster (delivery.md 5.6,
 * 6).
 *
 * To the slots that go, this is their death, as planned as may be: sessions become copies, which
 * are offered to the new home like all others, and stay until that has another holder; their users
 * and all that waits for these are forgotten without effect: whoever has sent any of it sends it
 * again, to that home.
 *
 * Slots that come wait. The barrier opens when every shard that may hold something of theirs has
 * said that it has told all (ATTACHED), by an epoch not before the last in which some came, and
 * membership says that the epoch is settled: nobody obeys another home any more.
 *
 * What was asked of the store for a user that has left is waited for before this shard says that it
 * has told all: the new home never loads a row that is about to change. */
#include "cluster/peers.h"
#include "node/home/inside.h"

/* Users that have left for a node, by its block: until that is told. */
struct left {
    unsigned block, users;
};

struct moving {
    uint64_t waits[RING_SLOTS / 64]; /* bits */
    uint64_t since_ms;               /* the first of them */
    uint64_t gained, settled;        /* epochs: the last in which slots came; the last settled */
    uint64_t owed;                   /* ATTACHED of this epoch is to be said; 0: none */
    size_t former;                   /* requests of those who have left that are under way */
    uint64_t *said;                  /* by peer: the epoch of its last ATTACHED */
    unsigned said_n;
    uint64_t left_ms; /* since when they leave */
    struct left *left;
    unsigned left_n;
};

static struct moving *moving_of(struct home *h)
{
    if (!h->moving) {
        h->moving = calloc(1, sizeof *h->moving);
        must(h->moving);
    }
    return h->moving;
}

void move_free(struct home *h)
{
    if (!h->moving)
        return;
    free(h->moving->said);
    free(h->moving->left);
    free(h->moving);
}

static bool has_slot(const uint64_t *slots, unsigned slot)
{
    return slots[slot / 64] >> slot % 64 & 1;
}

bool move_waits(const struct home *h, unsigned slot)
{
    return h->moving && has_slot(h->moving->waits, slot);
}

/* ---- the barrier ---- */

static bool all_have_told(const struct home *h)
{
    const struct moving *m = h->moving;
    size_t n;
    const struct ring_peer *p = ring_peers(h->node->ring, &n);
    for (size_t i = 0; i < n; i++)
        if (p[i].full && (p[i].peer >= m->said_n || m->said[p[i].peer] < m->gained))
            return false;
    return true;
}

/* Who was here with the slots that have come, or was asked for meanwhile. */
static void count_came(struct home *h, const uint64_t *slots)
{
    uint64_t held_us = (loop_now_ms(h->node->loop) - h->moving->since_ms) * 1000;
    htable_each(it, &h->users) {
        if (!has_slot(slots, container_of(it, struct user, node)->slot))
            continue;
        home_count(h, METRIC_AT(cluster_users_moved, WAY_IN, 0), 1);
        metric_observe(h->node->metrics, HISTOGRAM_cluster_freeze, held_us);
    }
}

void move_sample(struct home *h)
{
    metric_set(h->node->metrics, METRIC_cluster_users_moving, h->closed ? h->attached.count : 0);
}

static void look(struct home *h)
{
    struct moving *m = h->moving;
    if (!h->closed || m->settled < m->gained || !all_have_told(h))
        return;
    uint64_t waited[RING_SLOTS / 64];
    memcpy(waited, m->waits, sizeof waited);
    memset(m->waits, 0, sizeof m->waits);
    home_open(h);
    count_came(h, waited);
}

void move_attached(struct home *h, unsigned peer, uint64_t epoch)
{
    struct moving *m = moving_of(h);
    if (peer >= m->said_n) {
        unsigned n = peer + 1;
        m->said = realloc(m->said, n * sizeof *m->said);
        must(m->said);
        memset(m->said + m->said_n, 0, (n - m->said_n) * sizeof *m->said);
        m->said_n = n;
    }
    if (epoch > m->said[peer])
        m->said[peer] = epoch;
    look(h);
}

void home_epoch_settled(struct home *h, uint64_t epoch)
{
    moving_of(h)->settled = epoch;
    look(h);
}

/* ---- all is told ---- */

static void tell_left(struct home *h)
{
    struct moving *m = h->moving;
    const struct node *n = h->node;
    for (unsigned i = 0; n->peers && i < m->left_n; i++)
        LOG(n->log, users_moved, F_STR("peer", peers_name(n->peers, m->left[i].block)),
            F_INT("users", m->left[i].users), F_INT("ms", loop_now_ms(n->loop) - m->left_ms));
    m->left_n = 0;
}

static void tell(struct home *h)
{
    struct moving *m = h->moving;
    if (!m->owed || m->former)
        return;
    struct frame f = {.kind = FRAME_ATTACHED, .ms = m->owed};
    size_t n;
    const struct ring_peer *p = ring_peers(h->node->ring, &n);
    for (size_t i = 0; i < n; i++)
        channel_send(h->node->channels, p[i].peer, &f, (struct hold){0}, false);
    m->owed = 0;
    tell_left(h);
}

void move_asked(struct home *h) { moving_of(h)->former++; }

void move_answered(struct home *h)
{
    must(h->moving->former);
    h->moving->former--;
    tell(h);
}

void home_has_attached(struct home *h)
{
    moving_of(h)->owed = h->node->epoch;
    htable_each(it, &h->sessions)
        second_ring_changed(container_of(it, struct session, node));
    tell(h);
}

/* ---- a new ring ---- */

static bool is_lost(const void *ctx, unsigned slot)
{
    const struct home *h = ctx;
    return ring_home_of_slot(h->node->ring, slot) != h->node->shard;
}

static bool has_changed(const void *ring, unsigned slot) { return ring_changed(ring, slot); }

static void count_left(struct home *h, unsigned to)
{
    struct moving *m = h->moving;
    unsigned i = 0;
    home_count(h, METRIC_AT(cluster_users_moved, WAY_OUT, 0), 1);
    if (to == RING_NONE || !peer_block(to))
        return;
    while (i < m->left_n && m->left[i].block != peer_block(to))
        i++;
    if (i == m->left_n) {
        m->left = realloc(m->left, (i + 1) * sizeof *m->left);
        must(m->left);
        m->left[m->left_n++] = (struct left){peer_block(to), 0};
    }
    m->left[i].users++;
}

/* What this home was told of its accounts' clients goes on with them: who told it may be dead, and
 * a sender's client may come back as late as resume_timeout and send again. */
struct telling {
    struct home *home;
    unsigned peer;
};
static void tell_known_to(void *ctx, str bytes)
{
    const struct telling *t = ctx;
    struct frame f = {.kind = FRAME_KNOWN, .payload = bytes};
    channel_send(t->home->node->channels, t->peer, &f, (struct hold){0}, false);
}
static bool has_moved_there(const void *share, unsigned slot)
{
    const struct ring_share *s = share;
    return ring_share_has(s, slot) && ring_moved(s->ring, slot);
}
static void tell_known(struct home *h)
{
    const struct node *node = h->node;
    size_t n;
    const struct ring_peer *p = ring_peers(node->ring, &n);
    for (size_t i = 0; i < n; i++) {
        struct ring_share share = {node->ring, p[i].peer};
        struct telling t = {h, p[i].peer};
        if (p[i].peer != node->shard)
            mark_set_tell(&h->known, has_moved_there, &share, node->turn, tell_known_to, &t);
    }
}

static void leave(struct home *h)
{
    tell_known(h);
    moving_of(h)->former += home_part_with_requests(h, is_lost, h);
    second_leave_ended(h, is_lost, h);
    htable_each(it, &h->users) {
        struct user *u = container_of(it, struct user, node);
        if (!is_lost(h, u->slot))
            continue;
        count_left(h, ring_home_of_slot(h->node->ring, u->slot));
        user_leave(u);
    }
    ticket_orphan_of(&h->tickets, is_lost, h);
    home_drop_waiting(h, is_lost, h);
    seen_forget(&h->seen, is_lost, h);
}

void home_adopt(struct home *h)
{
    const struct node *n = h->node;
    struct moving *m = moving_of(h);
    bool waits = false;
    for (unsigned slot = 0; slot < RING_SLOTS; slot++) {
        uint64_t bit = 1ull << slot % 64;
        if (ring_home_of_slot(n->ring, slot) != n->shard)
            m->waits[slot / 64] &= ~bit;
        else if (ring_changed(n->ring, slot))
            m->waits[slot / 64] |= bit, m->gained = n->epoch;
        waits |= (m->waits[slot / 64] & bit) != 0;
    }
    if (waits && !h->closed)
        m->since_ms = loop_now_ms(n->loop);
    h->closed = waits;
    m->left_ms = m->left_n ? m->left_ms : loop_now_ms(n->loop);
    leave(h);
    uint64_t late_ms = (uint64_t)n->conf->limits_resume_timeout + SEEN_MS;
    seen_pin(&h->seen, has_changed, n->ring, loop_now_ms(n->loop) + late_ms);
}
