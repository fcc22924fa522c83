/* record: what the registry says of our sessions (architecture 9): a record per session, written by
 * its home alone and behind everything, so that operators and other services see who is there. What
 * delivery does never depends on it.
 *
 * A record is made anew from the session whenever something in it has changed, and given to the
 * door, which keeps the last one of each until Redis has it. */
#include "cluster/peers.h"
#include "node/home/inside.h"
#include "pemberley/registry.h"
#include "proto/bus/cluster.pb-c.h"

enum {
    RECORD_VERSION = 1,
    RECORD_PRESENCE_MAX = 16 << 10, /* bytes of a presence; a longer one is left out */
};
_Static_assert(RECORD_PRESENCE_MAX + 1024 < (int)REGISTRY_RECORD_VALUE_MAX, "the rest fits too");
_Static_assert((int)JID_PART_MAX <= (int)REGISTRY_RECORD_FIELD_MAX, "a resource");
_Static_assert(2 * JID_PART_MAX + 1 <= (int)REGISTRY_RECORD_KEY_MAX, "a bare JID");

static str node_of(const struct node *n, unsigned peer)
{
    return n->peers ? peers_name(n->peers, peer_block(peer)) : n->name;
}

static str encode(const struct session *s)
{
    const struct node *n = s->user->home->node;
    Cluster__PresenceRecord m = CLUSTER__PRESENCE_RECORD__INIT;
    str shown = session_available(s) ? presence_shown(s) : STR_NONE;
    m.version = RECORD_VERSION;
    m.edge_node = home_bytes(node_of(n, s->edge)), m.edge_shard = peer_shard(s->edge);
    m.home_node = home_bytes(n->name), m.home_shard = n->shard;
    m.epoch = n->epoch, m.session = s->sid, m.generation = s->gen;
    m.available = session_available(s), m.priority = s->priority;
    m.presence_left_out = shown.n > RECORD_PRESENCE_MAX;
    if (!m.presence_left_out)
        m.presence = home_bytes(shown);
    m.resumable = s->resumable, m.detached = s->detached, m.since_us = s->since_us;
    void *p = arena_alloc(n->turn, cluster__presence_record__get_packed_size(&m));
    return str_from(p, cluster__presence_record__pack(&m, p));
}

static struct registry_record record_of(const struct session *s, str value)
{
    return (struct registry_record){.kind = REGISTRY_USER,
                                    .key = user_bare(s->user),
                                    .field = session_resource(s),
                                    .value = value,
                                    .epoch = s->user->home->node->epoch};
}

void record_put(const struct session *s)
{
    struct registry *r = s->user->home->node->registry;
    if (!r)
        return;
    struct registry_record record = record_of(s, encode(s));
    registry_record_put(r, &record);
}

void record_remove(const struct session *s)
{
    struct registry *r = s->user->home->node->registry;
    if (!r)
        return;
    struct registry_record record = record_of(s, STR_NONE);
    registry_record_remove(r, &record);
}

void record_leave(const struct user *u)
{
    struct registry *r = u->home->node->registry;
    if (r)
        registry_record_forget(r, REGISTRY_USER, user_bare(u));
}
