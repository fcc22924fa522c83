#include "cluster/snap.h"

#include "proto/bus/bus.pb-c.h"

static ProtobufCBinaryData bytes_of(str s)
{
    return (ProtobufCBinaryData){.len = s.n, .data = (uint8_t *)s.p};
}
static str str_of_bytes(ProtobufCBinaryData b) { return str_from(b.data, b.len); }

str snap_encode(const struct snap *s, struct arena *a)
{
    Bus__Snap m = BUS__SNAP__INIT;
    m.sid = s->sid, m.gen = s->gen;
    m.full = bytes_of(s->full), m.address = bytes_of(s->address);
    m.presence = bytes_of(s->presence), m.presence_ord = s->presence_ord;
    m.presence_us = s->presence_us, m.since_us = s->since_us, m.tls = s->tls;
    m.interested = s->interested, m.anonymous = s->anonymous;
    m.blocklist = s->blocklist, m.carbons = s->carbons, m.inactive = s->inactive;
    m.reads_archive = s->reads_archive;
    m.directed = arena_alloc(a, s->directed_count * sizeof *m.directed);
    m.n_directed = s->directed_count;
    for (size_t i = 0; i < s->directed_count; i++)
        m.directed[i] = bytes_of(s->directed[i]);
    m.sm = s->sm, m.resumable = s->resumable, m.max_ms = s->max_ms;
    m.in_ord = s->in_ord, m.in_base = s->in_base;
    m.out_seq = s->out_seq, m.out_base = s->out_base, m.out_acked = s->out_acked;
    char *p = arena_alloc(a, bus__snap__get_packed_size(&m));
    return (str){p, bus__snap__pack(&m, (uint8_t *)p)};
}

static void *from_arena(void *arena, size_t n) { return arena_alloc(arena, n); }
static void leave(void *arena, void *p) { (void)arena, (void)p; }

err snap_decode(str bytes, struct arena *a, struct snap *out)
{
    ProtobufCAllocator allocator = {.alloc = from_arena, .free = leave, .allocator_data = a};
    Bus__Snap *m = bus__snap__unpack(&allocator, bytes.n, (const uint8_t *)bytes.p);
    if (!m)
        return ERR_BAD;
    str *directed = arena_alloc(a, m->n_directed * sizeof *directed);
    for (size_t i = 0; i < m->n_directed; i++)
        directed[i] = str_of_bytes(m->directed[i]);
    *out = (struct snap){
        .sid = m->sid,
        .gen = m->gen,
        .full = str_of_bytes(m->full),
        .sm = m->sm,
        .resumable = m->resumable,
        .max_ms = m->max_ms,
        .in_ord = m->in_ord,
        .in_base = m->in_base,
        .out_seq = m->out_seq,
        .out_base = m->out_base,
        .out_acked = m->out_acked,
        .presence = str_of_bytes(m->presence),
        .presence_ord = m->presence_ord,
        .presence_us = m->presence_us,
        .since_us = m->since_us,
        .interested = m->interested,
        .blocklist = m->blocklist,
        .carbons = m->carbons,
        .inactive = m->inactive,
        .reads_archive = m->reads_archive,
        .anonymous = m->anonymous,
        .directed = directed,
        .directed_count = m->n_directed,
        .address = str_of_bytes(m->address),
        .tls = (uint16_t)m->tls,
    };
    return ERR_OK;
}

void snap_learn(struct snap *s, const struct snap *told)
{
    s->presence = told->presence, s->presence_us = told->presence_us;
    s->presence_ord = told->presence_ord;
    s->since_us = told->since_us;
    s->interested = told->interested, s->anonymous = told->anonymous;
    s->blocklist = told->blocklist, s->carbons = told->carbons;
    s->inactive = told->inactive;
    s->reads_archive = told->reads_archive;
    s->directed = told->directed, s->directed_count = told->directed_count;
}
