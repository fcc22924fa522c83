/* The codec of envelopes and of HELLO. */
#include "proto/bus/envelope.h"

#include <endian.h>

#include "proto/bus/bus.pb-c.h"

static const char magic[4] = "PRAL";

/* ---- words ---- */

static char *put(char *p, uint64_t v, size_t n)
{
    uint64_t little = htole64(v);
    memcpy(p, &little, n);
    return p + n;
}

static uint64_t get(const char **p, size_t n)
{
    uint64_t little = 0;
    memcpy(&little, *p, n);
    *p += n;
    return le64toh(little);
}

/* ---- envelopes ---- */

size_t envelope_head(enum envelope_kind kind, const struct envelope_address *address, size_t body_n,
                     char out[ENVELOPE_HEAD_MAX])
{
    size_t more = address ? ENVELOPE_ADDRESS : 0;
    must((kind == ENVELOPE_FRAME) == (address != NULL) && body_n <= UINT32_MAX - more);
    char *p = put(out, body_n + more, 4);
    p = put(p, kind, 1);
    p = put(p, address ? address->hops : 0, 1);
    p = put(p, 0, 2);
    if (address) {
        must(address->hops <= ENVELOPE_HOPS_MAX);
        p = put(p, address->to, 2), p = put(p, address->from, 2);
        p = put(p, address->to_incarnation, 4), p = put(p, address->from_incarnation, 4);
    }
    return (size_t)(p - out);
}

static bool length_fits(enum envelope_kind kind, size_t n, size_t frame_max)
{
    switch (kind) {
    case ENVELOPE_HELLO: return n > sizeof magic && n <= ENVELOPE_BODY_MAX;
    case ENVELOPE_REFUSE: return n == 1;
    case ENVELOPE_PING: return n == 8;
    case ENVELOPE_PONG: return n == 16;
#ifdef ENVELOPE_CANARY
    case ENVELOPE_FRAME: return n <= ENVELOPE_ADDRESS + frame_max; /* must be caught */
#else
    case ENVELOPE_FRAME: return n > ENVELOPE_ADDRESS && n - ENVELOPE_ADDRESS <= frame_max;
#endif
    case ENVELOPE_WORD: return n > 0 && n <= frame_max;
    default: return false;
    }
}

static void read_address(str *body, struct envelope_address *a)
{
    const char *p = body->p;
    a->to = (uint16_t)get(&p, 2), a->from = (uint16_t)get(&p, 2);
    a->to_incarnation = (uint32_t)get(&p, 4), a->from_incarnation = (uint32_t)get(&p, 4);
    *body = str_skip(*body, ENVELOPE_ADDRESS);
}

err envelope_read(str in, size_t frame_max, struct envelope *out, size_t *size)
{
    *size = ENVELOPE_HEAD;
    if (in.n < ENVELOPE_HEAD)
        return ERR_PARTIAL;
    const char *p = in.p;
    size_t n = get(&p, 4);
    *out = (struct envelope){.kind = (uint32_t)get(&p, 1)};
    out->address.hops = (uint8_t)get(&p, 1);
    if (get(&p, 2) || out->address.hops > ENVELOPE_HOPS_MAX ||
        !length_fits(out->kind, n, frame_max))
        return ERR_BAD;
    *size = ENVELOPE_HEAD + n;
    if (in.n < *size)
        return ERR_PARTIAL;
    out->body = (str){in.p + ENVELOPE_HEAD, n};
    if (out->kind == ENVELOPE_FRAME)
        read_address(&out->body, &out->address);
    return ERR_OK;
}

/* ---- hello ---- */

static ProtobufCBinaryData binary(str s)
{
    return (ProtobufCBinaryData){s.n, (uint8_t *)(uintptr_t)s.p};
}

str hello_encode(const struct hello *h, struct arena *a)
{
    Bus__Hello m = BUS__HELLO__INIT;
    m.version_min = h->version_min, m.version_max = h->version_max, m.features = h->features;
    m.cluster = binary(h->cluster), m.node = binary(h->node);
    m.shard = h->shard, m.incarnation = h->incarnation, m.sees = h->sees, m.epoch = h->epoch;
    m.software = binary(h->software);
    char *p = arena_alloc(a, sizeof magic + bus__hello__get_packed_size(&m));
    memcpy(p, magic, sizeof magic);
    size_t n = sizeof magic + bus__hello__pack(&m, (uint8_t *)p + sizeof magic);
    must(n <= ENVELOPE_BODY_MAX);
    return (str){p, n};
}

static void *from_arena(void *arena, size_t n) { return arena_alloc(arena, n); }
static void leave(void *arena, void *p) { (void)arena, (void)p; }

err hello_decode(str body, struct arena *a, struct hello *out)
{
    ProtobufCAllocator allocator = {.alloc = from_arena, .free = leave, .allocator_data = a};
    if (body.n > ENVELOPE_BODY_MAX || !str_starts(body, str_from(magic, sizeof magic)))
        return ERR_BAD;
    Bus__Hello *m = bus__hello__unpack(&allocator, body.n - sizeof magic,
                                       (const uint8_t *)body.p + sizeof magic);
    if (!m)
        return ERR_BAD;
    *out = (struct hello){
        .version_min = m->version_min,
        .version_max = m->version_max,
        .features = m->features,
        .cluster = {(const char *)m->cluster.data, m->cluster.len},
        .node = {(const char *)m->node.data, m->node.len},
        .shard = m->shard,
        .incarnation = m->incarnation,
        .sees = m->sees,
        .epoch = m->epoch,
        .software = {(const char *)m->software.data, m->software.len},
    };
    if (out->software.n > HELLO_SOFTWARE_MAX)
        return ERR_BAD;
    return node_name_is_good(out->cluster) && node_name_is_good(out->node) ? ERR_OK : ERR_BAD;
}
