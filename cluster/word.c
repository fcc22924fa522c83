#include "cluster/word.h"

#include "proto/bus/cluster.pb-c.h"

enum { WORD_VERSION = 1, WORD_BYTES_MAX = REGISTRY_VIEW_MAX + 1024 };

static ProtobufCBinaryData binary(str s)
{
    return (ProtobufCBinaryData){.len = s.n, .data = (uint8_t *)s.p};
}

str word_encode(const struct word *w, struct arena *a)
{
    Cluster__Word m = CLUSTER__WORD__INIT;
    m.version = WORD_VERSION, m.kind = w->kind, m.flags = w->flags;
    m.node = binary(w->node), m.owner = w->owner;
    m.shard = w->shard, m.incarnation = w->incarnation;
    m.epoch = w->epoch, m.adopted = w->adopted, m.known = w->known;
    m.mine_ms = w->mine_ms, m.yours_ms = w->yours_ms;
    m.lease_ms = w->lease_ms, m.frozen_ms = w->frozen_ms, m.quiet_ms = w->quiet_ms;
    m.renewed_ms = w->renewed_ms, m.settled = w->settled;
    m.view = binary(w->view);
    char *p = arena_alloc(a, cluster__word__get_packed_size(&m));
    return (str){p, cluster__word__pack(&m, (uint8_t *)p)};
}

static void *from_arena(void *arena, size_t n) { return arena_alloc(arena, n); }
static void leave(void *arena, void *p) { (void)arena, (void)p; }

err word_decode(str bytes, struct arena *a, struct word *out)
{
    if (bytes.n > WORD_BYTES_MAX)
        return ERR_BAD;
    ProtobufCAllocator allocator = {.alloc = from_arena, .free = leave, .allocator_data = a};
    Cluster__Word *m = cluster__word__unpack(&allocator, bytes.n, (const uint8_t *)bytes.p);
    if (!m)
        return ERR_BAD;
    if (m->version != WORD_VERSION)
        return ERR_REFUSED;
    *out = (struct word){
        .kind = (enum word_kind)m->kind,
        .flags = m->flags,
        .node = str_from(m->node.data, m->node.len),
        .owner = m->owner,
        .shard = m->shard,
        .incarnation = m->incarnation,
        .epoch = m->epoch,
        .adopted = m->adopted,
        .known = m->known,
        .mine_ms = m->mine_ms,
        .yours_ms = m->yours_ms,
        .lease_ms = m->lease_ms,
        .frozen_ms = m->frozen_ms,
        .quiet_ms = m->quiet_ms,
        .renewed_ms = m->renewed_ms,
        .settled = m->settled,
        .view = str_from(m->view.data, m->view.len),
    };
    bool ok = m->kind >= WORD_BEAT && m->kind <= WORD_REPORT && view_name_ok(out->node) &&
              m->owner && m->shard < VIEW_SHARDS_MAX && m->incarnation;
    return ok ? ERR_OK : ERR_BAD;
}
