/* A view is an array of nodes, each with room for all of its shards: 0.9 KB per node, copied a few
 * times per epoch, and then nothing has to be looked up or counted. On the wire a node is its name,
 * its address and eight bytes per shard; the order is fixed, so that equal views are equal bytes.
 */
#include "cluster/view.h"

#include <stdlib.h>

#include "proto/bus/cluster.pb-c.h"
#include "proto/bus/wire.h"

enum { VIEW_VERSION = 1, VIEW_FIELD_NODES = 4 };
static const uint64_t features_known = 0;

/* The longest encoding of a node: tags, lengths and varints rounded up. */
_Static_assert(VIEW_NODES_MAX *(REGISTRY_NODE_MAX + VIEW_ADDRESS_MAX + 8 * VIEW_SHARDS_MAX + 48) +
                       64 <=
                   REGISTRY_VIEW_MAX,
               "a full view fits into the registry");
/* On 16 bits, beside the number that means nobody (ring.h). */
_Static_assert(VIEW_NODES_MAX *VIEW_SHARDS_MAX < 0xffff, "members have 16-bit numbers");

struct view *view_new(uint64_t epoch)
{
    struct view *v = calloc(1, sizeof *v);
    must(v);
    v->epoch = epoch;
    return v;
}

static void reserve(struct view *v, size_t room)
{
    if (room <= v->room)
        return;
    v->nodes = realloc(v->nodes, room * sizeof *v->nodes);
    must(v->nodes);
    v->room = room;
}

struct view *view_copy(const struct view *v, uint64_t epoch)
{
    struct view *copy = view_new(epoch);
    reserve(copy, v->count);
    if (v->count)
        memcpy(copy->nodes, v->nodes, v->count * sizeof *v->nodes);
    copy->count = v->count;
    return copy;
}

void view_free(struct view *v)
{
    if (!v)
        return;
    free(v->nodes);
    free(v);
}

bool view_name_ok(str name)
{
    for (size_t i = 0; i < name.n; i++) {
        char c = name.p[i];
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'))
            return false;
    }
    return name.n >= 1 && name.n <= REGISTRY_NODE_MAX;
}

static int compare(str a, const char *b)
{
    size_t n = strlen(b);
    int order = memcmp(a.p, b, a.n < n ? a.n : n);
    return order ? order : (a.n > n) - (a.n < n);
}

/* Where a node of that name stands, or would. */
static size_t place(const struct view *v, str name, bool *there)
{
    size_t low = 0, high = v->count;
    *there = false;
    while (low < high) {
        size_t middle = (low + high) / 2;
        int order = compare(name, v->nodes[middle].name);
        if (order == 0) {
            *there = true;
            return middle;
        }
        if (order > 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct view_node *view_find(const struct view *v, str name)
{
    bool there;
    size_t i = place(v, name, &there);
    return there ? &v->nodes[i] : NULL;
}

err view_add(struct view *v, str name, str address, struct view_node **out)
{
    bool there;
    size_t i = place(v, name, &there);
    must(view_name_ok(name) && address.n <= VIEW_ADDRESS_MAX && !there);
    if (v->count == VIEW_NODES_MAX)
        return ERR_FULL;
    if (v->count == v->room)
        reserve(v, v->room ? 2 * v->room : 4);
    struct view_node *n = &v->nodes[i];
    memmove(n + 1, n, (v->count++ - i) * sizeof *n);
    memset(n, 0, sizeof *n);
    memcpy(n->name, name.p, name.n);
    if (address.n)
        memcpy(n->address, address.p, address.n);
    *out = n;
    return ERR_OK;
}

void view_remove(struct view *v, struct view_node *n)
{
    size_t i = (size_t)(n - v->nodes);
    must(i < v->count);
    memmove(n, n + 1, (--v->count - i) * sizeof *n);
}

static bool same_node(const struct view_node *a, const struct view_node *b)
{
    return strcmp(a->name, b->name) == 0 && strcmp(a->address, b->address) == 0 &&
           a->owner == b->owner && a->weight == b->weight && a->state == b->state &&
           a->shards == b->shards &&
           memcmp(a->incarnation, b->incarnation, sizeof a->incarnation) == 0;
}

bool view_same_but_epoch(const struct view *a, const struct view *b)
{
    if (a->count != b->count)
        return false;
    for (size_t i = 0; i < a->count; i++)
        if (!same_node(&a->nodes[i], &b->nodes[i]))
            return false;
    return true;
}

/* ---- the codec ---- */

static ProtobufCBinaryData binary(char *z)
{
    return (ProtobufCBinaryData){.len = strlen(z), .data = (uint8_t *)z};
}

static Cluster__Node *encode_node(struct view_node *n, struct arena *a)
{
    Cluster__Node *m = arena_alloc(a, sizeof *m);
    cluster__node__init(m);
    m->name = binary(n->name), m->address = binary(n->address);
    m->owner = n->owner, m->weight = n->weight, m->state = n->state, m->shards = n->shards;
    m->incarnation = arena_alloc(a, sizeof n->incarnation);
    for (unsigned i = 0; i < VIEW_SHARDS_MAX; i++)
        if (n->shards >> i & 1)
            m->incarnation[m->n_incarnation++] = n->incarnation[i];
    return m;
}

str view_encode(const struct view *v, struct arena *a)
{
    Cluster__View m = CLUSTER__VIEW__INIT;
    m.version = VIEW_VERSION, m.features = 0, m.epoch = v->epoch;
    m.n_nodes = v->count;
    m.nodes = arena_alloc(a, (v->count + 1) * sizeof(Cluster__Node *));
    for (size_t i = 0; i < v->count; i++)
        m.nodes[i] = encode_node(&v->nodes[i], a);
    size_t n = cluster__view__get_packed_size(&m);
    must(n <= REGISTRY_VIEW_MAX);
    char *p = arena_alloc(a, n + 1);
    return (str){p, cluster__view__pack(&m, (uint8_t *)p)};
}

/* How many nodes are announced, before anything is allocated for them: an empty one takes two bytes
 * here and a hundred once unpacked. */
static bool too_many_nodes(str in)
{
    size_t nodes = 0;
    uint64_t tag, number;
    str bytes;
    while (in.n) {
        bool ok = wire_take_varint(&in, &tag);
        switch (ok ? tag & 7 : 7) {
        case WIRE_VARINT: ok = wire_take_varint(&in, &number); break;
        case WIRE_FIXED64: ok = wire_take_word(&in, 8, &number); break;
        case WIRE_FIXED32: ok = wire_take_word(&in, 4, &number); break;
        case WIRE_BYTES: ok = wire_take_bytes(&in, &bytes); break;
        default: ok = false;
        }
        nodes += ok && tag >> 3 == VIEW_FIELD_NODES;
        if (!ok || nodes > VIEW_NODES_MAX)
            return true;
    }
    return false;
}

static bool text_ok(ProtobufCBinaryData d, size_t max)
{
    for (size_t i = 0; i < d.len; i++)
        if (d.data[i] <= ' ' || d.data[i] >= 0x7f)
            return false;
    return d.len <= max;
}

static bool decode_node(const Cluster__Node *m, struct view *v)
{
    str name = str_from(m->name.data, m->name.len);
    if (!view_name_ok(name) || !text_ok(m->address, VIEW_ADDRESS_MAX) || !m->owner ||
        m->weight > VIEW_WEIGHT_MAX || m->state > VIEW_DRAINING ||
        m->n_incarnation != (size_t)__builtin_popcountll(m->shards) ||
        (v->count && compare(name, v->nodes[v->count - 1].name) <= 0))
        return false;
    struct view_node *n;
    if (view_add(v, name, str_from(m->address.data, m->address.len), &n))
        return false;
    n->owner = m->owner, n->weight = m->weight, n->state = (enum view_state)m->state;
    n->shards = m->shards;
    for (size_t i = 0, shard = 0; shard < VIEW_SHARDS_MAX; shard++) {
        if (!(m->shards >> shard & 1))
            continue;
        if (!(n->incarnation[shard] = m->incarnation[i++]))
            return false;
    }
    return true;
}

static err decode(const Cluster__View *m, struct view *v)
{
    if (m->version != VIEW_VERSION || m->features & ~features_known)
        return ERR_REFUSED;
    if (!m->epoch)
        return ERR_BAD;
    v->epoch = m->epoch;
    for (size_t i = 0; i < m->n_nodes; i++)
        if (!decode_node(m->nodes[i], v))
            return ERR_BAD;
    return ERR_OK;
}

static void *from_arena(void *arena, size_t n) { return arena_alloc(arena, n); }
static void leave(void *arena, void *p) { (void)arena, (void)p; }

err view_decode(str bytes, struct view **out)
{
    if (bytes.n > REGISTRY_VIEW_MAX || too_many_nodes(bytes))
        return ERR_BAD;
    struct arena a;
    arena_init(&a);
    ProtobufCAllocator allocator = {.alloc = from_arena, .free = leave, .allocator_data = &a};
    Cluster__View *m = cluster__view__unpack(&allocator, bytes.n, (const uint8_t *)bytes.p);
    struct view *v = view_new(0);
    err e = m ? decode(m, v) : ERR_BAD;
    arena_close(&a);
    if (e)
        view_free(v);
    else
        *out = v;
    return e;
}
