#include "cluster/snap.h"

#include "proto/bus/bus.pb-c.h"

str snap_encode(const struct snap *s, struct arena *a)
{
    Bus__Snap m = BUS__SNAP__INIT;
    m.sid = s->sid, m.gen = s->gen;
    m.full = (ProtobufCBinaryData){.len = s->full.n, .data = (uint8_t *)s->full.p};
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
    if (!m || m->out_acked > m->out_seq || m->out_base > m->out_seq || m->in_base > m->in_ord)
        return ERR_BAD;
    *out = (struct snap){
        .sid = m->sid,
        .gen = m->gen,
        .full = {(const char *)m->full.data, m->full.len},
        .sm = m->sm,
        .resumable = m->resumable,
        .max_ms = m->max_ms,
        .in_ord = m->in_ord,
        .in_base = m->in_base,
        .out_seq = m->out_seq,
        .out_base = m->out_base,
        .out_acked = m->out_acked,
    };
    return ERR_OK;
}
