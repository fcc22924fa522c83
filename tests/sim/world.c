#include "tests/sim/world.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>

#include "cluster/copy.h"
#include "cluster/peers.h"
#include "node/shard/rooms.h"
#include "proto/bus/store.pb-c.h"
#include "tests/sim/cluster.h"

enum { TURNS = 4, STORE_RUNS_MAX = 1000 };

void world_say(const struct world *w, const char *fmt, ...)
{
    if (!w->trace)
        return;
    va_list args;
    va_start(args, fmt);
    printf("%10.4f ", (double)w->now_us / 1e6);
    vprintf(fmt, args);
    printf("\n");
    va_end(args);
}

/* ---- doors ---- */

static void no_op(struct loop *l, struct op *op) {}
static unsigned no_wait(struct loop *l, unsigned want, uint64_t us_max) { return 0; }
static bool no_run(struct loop *l) { return false; }
static void no_end(struct loop *l) {}
static uint64_t virtual_now(struct loop *l)
{
    return container_of(l, struct shard, loop)->world->now_us;
}
static const struct loop_impl loop_impl = {.name = "virtual",
                                           .arm = no_op,
                                           .cancel = no_op,
                                           .wait = no_wait,
                                           .run = no_run,
                                           .turn_end = no_end,
                                           .now_us = virtual_now,
                                           .close = no_end};

static int64_t wall(struct clock *c)
{
    return (int64_t)(container_of(c, struct world, clock)->now_us + 1700000000000000ull);
}

uint64_t world_random(struct world *w, uint64_t below)
{
    return below ? hash_u64(w->random++) % below : 0;
}

static void fill(struct entropy *e, void *out, size_t n)
{
    struct world *w = container_of(e, struct world, entropy);
    for (size_t i = 0; i < n; i++)
        ((unsigned char *)out)[i] = (unsigned char)hash_u64(w->random++);
}
static void no_log(struct log *l, enum log_event e, enum log_level level, const struct log_field *f,
                   size_t n)
{
}

/* ---- the wire ---- */

static const char *kind_name(enum frame_kind k)
{
    static const char *const names[FRAME_KINDS] = {
        [FRAME_ACK] = "ACK",       [FRAME_BIND] = "BIND",       [FRAME_RESUME] = "RESUME",
        [FRAME_ENABLE] = "ENABLE", [FRAME_IN] = "IN",           [FRAME_CACK] = "CACK",
        [FRAME_DETACH] = "DETACH", [FRAME_END] = "END",         [FRAME_ATTACH] = "ATTACH",
        [FRAME_QUEUED] = "QUEUED", [FRAME_KNOWN] = "KNOWN",     [FRAME_ATTACHED] = "ATTACHED",
        [FRAME_ROUTE] = "ROUTE",   [FRAME_BOUND] = "BOUND",     [FRAME_RESUMED] = "RESUMED",
        [FRAME_FAILED] = "FAILED", [FRAME_ENABLED] = "ENABLED", [FRAME_OUT] = "OUT",
        [FRAME_CLOSE] = "CLOSE",   [FRAME_STATE] = "STATE",     [FRAME_SNAP] = "SNAP",
        [FRAME_MIRROR] = "MIRROR", [FRAME_NOTE] = "NOTE",       [FRAME_EPOCH] = "EPOCH",
        [FRAME_CSI] = "CSI",
    };
    return k < FRAME_KINDS && names[k] ? names[k] : "?";
}

static uint64_t big_endian(const char *p, size_t n)
{
    uint64_t x = 0;
    for (size_t i = 0; i < n; i++)
        x = x << 8 | (unsigned char)p[i];
    return x;
}

static void trace_notes(const struct world *w, str p)
{
    static const char *const names[] = {"safe", "acked", "drop", "ended", "drop beside"};
    for (; p.n >= NOTE_BYTES; p = str_skip(p, NOTE_BYTES)) {
        unsigned kind = (unsigned char)p.p[16];
        world_say(w, "    %s sid %llx %llu", kind < array_len(names) ? names[kind] : "?",
                  (unsigned long long)big_endian(p.p, 8),
                  (unsigned long long)big_endian(p.p + 8, 8));
    }
}

static void trace_one(const struct world *w, unsigned from, unsigned to, uint64_t number,
                      const struct frame *f)
{
    str xml = f->stanza ? stanza_xml(f->stanza) : STR_NONE;
    world_say(w,
              "%u>%u #%llu %s sid %llx gen %u ord %llu lane %x seq %llu conn %llx flags %x ms "
              "%llu %.*s",
              from, to, (unsigned long long)number, kind_name(f->kind), (unsigned long long)f->sid,
              f->gen, (unsigned long long)f->ord, f->lane, (unsigned long long)f->seq,
              (unsigned long long)f->conn, f->flags, (unsigned long long)f->ms, (int)xml.n, xml.p);
    if (f->kind == FRAME_NOTE)
        trace_notes(w, f->payload);
}

static void trace_frame(const struct world *w, unsigned from, unsigned to, str bytes)
{
    struct arena a;
    struct frame f;
    uint64_t number;
    if (!w->trace || from >= w->shards || to >= w->shards)
        return;
    arena_init(&a);
    if (frame_decode(bytes.p, bytes.n, &a, &f, &number) == ERR_OK) {
        trace_one(w, from, to, number, &f);
        stanza_unref(f.stanza);
    }
    arena_close(&a);
}

static void put_on_wire(struct world *w, unsigned from, unsigned to, const char *p, size_t n)
{
    struct parcel *b = malloc(sizeof *b + n);
    must(b);
    uint64_t due = w->now_us + (w->delay_us ? w->delay_us(w, from, to) : 0);
    if (due < w->link_due_us[from][to])
        due = w->link_due_us[from][to];
    w->link_due_us[from][to] = due;
    *b = (struct parcel){.from_incarnation = w->incarnation[from],
                         .to_incarnation = w->incarnation[to],
                         .due_us = due,
                         .n = n};
    if (from < w->shards && w->shard[from])
        b->to_incarnation = w->shard[from]->met[to];
    memcpy(b->data, p, n);
    list_push_back(&w->wire[from][to], &b->link);
}

static void on_reply(struct store_port *port, unsigned peer, const char *p, size_t n)
{
    struct world *w = container_of(port, struct world, port);
    if (!w->setting_up)
        put_on_wire(w, world_store(w), peer, p, n);
}

static void lose(struct list *l)
{
    list_each(b, l, struct parcel, link) {
        list_remove(&b->link);
        free(b);
    }
}

void world_lose(struct world *w, unsigned from, unsigned to, uint32_t but)
{
    list_each(b, &w->wire[from][to], struct parcel, link)
        if (b->from_incarnation != but) {
            list_remove(&b->link);
            free(b);
        }
}

/* ---- nodes ---- */

unsigned world_peer(const struct shard *s, unsigned shard)
{
    const struct world *w = s->world;
    char name[16];
    if (!w->nodes || world_node(w, shard) == world_node(w, s->place))
        return shard % w->per;
    snprintf(name, sizeof name, "n%u", world_node(w, shard));
    return peer_number(peers_block(s->peers, str_of(name)), shard % w->per);
}

static unsigned place_of(const struct shard *s, unsigned peer)
{
    const struct world *w = s->world;
    if (!w->nodes)
        return peer;
    unsigned node = (unsigned)atoi(peers_name(s->peers, peer_block(peer)).p + 1);
    return node * w->per + peer_shard(peer);
}

unsigned world_home(const struct world *w, const char *bare)
{
    return w->nodes ? cluster_home(w, bare) : ring_home(w->ring, str_of(bare));
}

bool world_same_domain(const struct world *w, unsigned a, unsigned b)
{
    bool by_node = w->nodes && cluster_by_node(w);
    return by_node ? world_node(w, a) == world_node(w, b) : a == b;
}

bool world_is_ready(const struct world *w, unsigned shard)
{
    return w->shard[shard] && (!w->nodes || w->shard[shard]->ready);
}

/* ---- a shard, wired as node/shard does it ---- */

static void on_frame(void *ctx, struct origin from, const struct frame *f)
{
    struct shard *s = ctx;
    if (s->world->trace && from.peer == s->node.shard) /* the others are said as they arrive */
        trace_one(s->world, s->place, s->place, from.number, f);
    rooms_frame(&s->node, s->edge, s->home, from, f);
}

static void on_settled(void *ctx, struct hold h, bool lost)
{
    struct shard *s = ctx;
    rooms_settled(s->edge, s->home, h, lost);
}

static void to_shard(void *ctx, unsigned peer, const struct iovec *v, size_t n, bool later)
{
    struct shard *s = ctx;
    struct world *w = s->world;
    struct arena a;
    arena_init(&a);
    str parts[FRAME_PARTS];
    for (size_t i = 0; i < n; i++)
        parts[i] = str_from(v[i].iov_base, v[i].iov_len);
    str whole = arena_concat(&a, parts, n);
    unsigned to = place_of(s, peer);
    if (w->hooks && w->hooks->sending)
        whole = w->hooks->sending(w, s->place, to, whole, &a);
    put_on_wire(w, s->place, to, whole.p, whole.n);
    arena_close(&a);
}

static void to_store(void *ctx, const char *p, size_t n)
{
    struct shard *s = ctx;
    put_on_wire(s->world, s->place, world_store(s->world), p, n);
}
static void on_wake(void *ctx) { ((struct shard *)ctx)->stirred = true; }

static void open_rooms(struct shard *s)
{
    struct world *w = s->world;
    struct channel_sinks sinks = {s, on_frame, on_settled, to_shard, on_wake};
    s->node.channels = channels_new(s->node.shard, w->per, &sinks);
    struct copies_config copies = {.channels = s->node.channels,
                                   .ring = w->ring,
                                   .turn = &s->turn,
                                   .marks = &s->node.marks,
                                   .loop = &s->loop};
    s->node.copies = copies_new(&copies);
    s->store = store_client_new(&s->loop, w->conf, &s->metrics, &w->log, to_store, s);
    s->node.store = store_client_door(s->store);
    s->home = home_new(&s->node);
    if (!w->nodes && (!w->hooks || !w->hooks->no_barrier))
        home_await_others(s->home);
    s->edge = edge_new(&s->node);
}

void world_start(struct world *w, unsigned index)
{
    static int wake_fd = -1; /* nobody waits for it */
    struct shard *s = calloc(1, sizeof *s);
    must(s && !w->shard[index]);
    s->world = w, s->place = index, s->incarnation = ++w->incarnation[index];
    if (wake_fd < 0)
        wake_fd = eventfd(0, EFD_NONBLOCK);
    loop_init(&s->loop, &loop_impl, wake_fd);
    s->loop.now_us = w->now_us;
    arena_init(&s->turn);
    s->node = (struct node){.shard = index % w->per,
                            .shards = w->per,
                            .loop = &s->loop,
                            .clock = &w->clock,
                            .entropy = &w->entropy,
                            .log = &w->log,
                            .metrics = &s->metrics,
                            .ring = w->ring,
                            .turn = &s->turn,
                            .scan = xml_scan_new(),
                            .conf = w->conf};
    entropy_fill(&w->entropy, &s->node.key, sizeof s->node.key);
    w->shard[index] = s;
    open_rooms(s);
    if (w->nodes)
        cluster_shard_starts(w, s);
    world_say(w, "shard %u starts, incarnation %u", index, s->incarnation);
}

/* ---- who knows whom ---- */

bool world_have_met(const struct world *w, unsigned a, unsigned b)
{
    return w->shard[a] && w->shard[b] && w->shard[a]->met[b] == w->incarnation[b];
}

void world_tell_down(struct world *w, unsigned who, unsigned peer)
{
    struct shard *s = w->shard[who];
    if (!s || !s->met[peer])
        return;
    world_say(w, "%u is told that %u is down", who, peer);
    s->met[peer] = 0, s->stirred = true;
    if (peer == world_store(w)) {
        store_client_worker_down(s->store);
    } else {
        rooms_peer_down(&s->node, s->home, peer);
    }
}

void world_tell_up(struct world *w, unsigned who, unsigned peer)
{
    struct shard *s = w->shard[who];
    if (!s || s->met[peer] == w->incarnation[peer])
        return;
    if (peer == world_store(w) ? !w->store_up : !w->shard[peer])
        return;
    world_tell_down(w, who, peer);
    world_say(w, "%u is told that %u is up", who, peer);
    s->met[peer] = w->incarnation[peer], s->stirred = true;
    if (peer == world_store(w)) {
        store_client_worker_up(s->store);
        return;
    }
    rooms_peer_up(&s->node, s->edge, s->home, peer, s->met[peer]);
}

void world_kill(struct world *w, unsigned shard)
{
    world_say(w, "shard %u is killed", shard);
    w->shard[shard] = NULL;
    for (unsigned i = 0; i < WORLD_ENDS; i++)
        lose(&w->wire[i][shard]);
    store_worker_forget(w->worker, shard);
}

void world_store_kill(struct world *w)
{
    world_say(w, "the store worker is killed");
    w->store_up = false;
    for (unsigned i = 0; i < w->shards; i++) {
        lose(&w->wire[i][world_store(w)]);
        store_worker_forget(w->worker, i);
    }
}

void world_store_start(struct world *w)
{
    world_say(w, "the store worker starts");
    w->store_up = true;
    w->incarnation[world_store(w)]++;
}

/* ---- turns ---- */

void world_turn(struct world *w, unsigned shard)
{
    struct shard *s = w->shard[shard];
    if (!s)
        return;
    for (int i = 0; i < TURNS && (i == 0 || s->stirred); i++) {
        s->stirred = false;
        loop_turn(&s->loop, 0);
        channel_run(s->node.channels);
        channel_flush(s->node.channels);
    }
    while (!list_empty(&s->loop.hooks)) {
        loop_turn(&s->loop, 0);
        channel_run(s->node.channels);
        channel_flush(s->node.channels);
    }
    arena_reset(&s->turn);
}

static void refuse(struct world *w, unsigned shard, uint64_t id, int result)
{
    Store__Reply r = STORE__REPLY__INIT;
    uint8_t packed[64];
    r.id = id, r.result = (Store__Result)result;
    put_on_wire(w, world_store(w), shard, (const char *)packed, store__reply__pack(&r, packed));
}

/* The XML is at the end of a stanza's block. */
static str xml_of_block(ProtobufCBinaryData b)
{
    const char *xml = b.data ? memmem(b.data, b.len, "<message", 8) : NULL;
    return xml ? str_from(xml, (size_t)((const char *)b.data + b.len - xml)) : STR_NONE;
}

static void trace_request(const struct world *w, unsigned from, const Store__Request *r)
{
    const ProtobufCFieldDescriptor *op =
        protobuf_c_message_descriptor_get_field(&store__request__descriptor, r->op_case);
    str xml = STR_NONE;
    if (r->op_case == STORE__REQUEST__OP_OFFLINE_PUT)
        xml = xml_of_block(r->offline_put->stanza);
    world_say(w, "%u>store #%llu %s %.*s %.*s", from, (unsigned long long)r->id,
              op ? op->name : "none", (int)r->owner.len, (const char *)r->owner.data, (int)xml.n,
              xml.p);
}

static void to_worker(struct world *w, unsigned from, const struct parcel *b)
{
    int result;
    if (w->refuse) {
        Store__Request *r = store__request__unpack(NULL, b->n, (const uint8_t *)b->data);
        must(r);
        trace_request(w, from, r);
        bool refused = w->refuse(w, r->op_case, &result);
        if (refused)
            refuse(w, from, r->id, result);
        store__request__free_unpacked(r, NULL);
        if (refused)
            return;
    }
    store_worker_on_request(w->worker, from, b->data, b->n);
    for (int i = 0; store_worker_run(w->worker); i++)
        must(i < STORE_RUNS_MAX);
}

static bool is_stray(const struct world *w, unsigned from, unsigned to, const struct parcel *b)
{
    return w->hooks && w->hooks->stray && from != world_store(w) &&
           b->from_incarnation < w->incarnation[from] &&
           w->shard[to]->met[from] == w->incarnation[from];
}

/* Can it arrive now (0), not yet (1), never (-1)? */
static int fate(const struct world *w, unsigned from, unsigned to, const struct parcel *b)
{
    if (to == world_store(w))
        return !w->store_up || b->to_incarnation != w->incarnation[to] ? -1 : 0;
    const struct shard *s = w->shard[to];
    if (!s || (from != world_store(w) && b->to_incarnation != s->incarnation) ||
        (from == world_store(w) && b->to_incarnation != s->incarnation))
        return -1;
    if (s->met[from] == b->from_incarnation || is_stray(w, from, to, b))
        return 0;
    bool may_stray = w->hooks && w->hooks->stray && from != world_store(w);
    bool is_next = b->from_incarnation > s->met[from];
    return (is_next && b->from_incarnation == w->incarnation[from]) || may_stray ? 1 : -1;
}

static struct parcel *first(struct world *w, unsigned from, unsigned to, int *f)
{
    struct list *l = &w->wire[from][to];
    while (!list_empty(l)) {
        struct parcel *b = list_first(l, struct parcel, link);
        *f = fate(w, from, to, b);
        if (*f >= 0)
            return b;
        list_remove(&b->link);
        free(b);
    }
    return NULL;
}

bool world_deliver_one(struct world *w, unsigned from, unsigned to)
{
    int f;
    struct parcel *b = first(w, from, to, &f);
    if (!b || f)
        return false;
    list_remove(&b->link);
    str bytes = str_from(b->data, b->n);
    if (to == world_store(w)) {
        to_worker(w, from, b);
    } else if (from == world_store(w)) {
        store_client_on_frame(w->shard[to]->store, b->data, b->n);
    } else if (is_stray(w, from, to, b)) {
        w->hooks->stray(w, from, to, bytes);
    } else {
        trace_frame(w, from, to, bytes);
        if (w->hooks && w->hooks->arriving)
            w->hooks->arriving(w, from, to, bytes);
        err e = channel_receive(w->shard[to]->node.channels, world_peer(w->shard[to], from), bytes);
        must(e == ERR_OK);
    }
    if (to < w->shards)
        w->shard[to]->stirred = true;
    free(b);
    return true;
}

uint64_t world_next_us(const struct world *w)
{
    uint64_t next = UINT64_MAX;
    for (unsigned i = 0; i < WORLD_ENDS; i++)
        for (unsigned k = 0; k < WORLD_ENDS; k++) {
            if (list_empty(&w->wire[i][k]))
                continue;
            const struct parcel *b = list_first(&w->wire[i][k], struct parcel, link);
            if (fate(w, i, k, b) <= 0 && b->due_us < next)
                next = b->due_us;
        }
    return next;
}

/* Seeds of one node are what they were when there was no other. */
enum { NODE_ENDS = 6 };
static unsigned end_at(const struct world *w, unsigned i)
{
    return !w->nodes && i == NODE_ENDS - 1 ? world_store(w) : i;
}

bool world_deliver(struct world *w)
{
    bool any = false;
    unsigned ends = w->nodes ? WORLD_ENDS : NODE_ENDS;
    unsigned shift = (unsigned)world_random(w, ends);
    if (w->hooks && w->hooks->between)
        w->hooks->between(w);
    for (unsigned i = 0; i < ends; i++)
        for (unsigned k = 0; k < ends; k++) {
            unsigned from = end_at(w, (i + shift) % ends), to = end_at(w, (k + shift) % ends);
            int f;
            for (struct parcel *b; (b = first(w, from, to, &f)) && !f && b->due_us <= w->now_us;)
                any |= world_deliver_one(w, from, to);
        }
    for (unsigned i = 0; i < w->shards; i++)
        if (w->shard[i] && w->shard[i]->stirred)
            world_turn(w, i);
    return any;
}

bool world_wire_is_empty(const struct world *w)
{
    for (unsigned i = 0; i < WORLD_ENDS; i++)
        for (unsigned k = 0; k < WORLD_ENDS; k++)
            if (!list_empty(&w->wire[i][k]))
                return false;
    return true;
}

/* ---- accounts ---- */

static void ask_store(struct world *w, const char *bare, Store__Request *req)
{
    req->owner = (ProtobufCBinaryData){strlen(bare), (uint8_t *)bare};
    size_t n = store__request__get_packed_size(req);
    uint8_t *packed = malloc(n);
    must(packed);
    store__request__pack(req, packed);
    w->setting_up = true;
    store_worker_on_request(w->worker, 0, (const char *)packed, n);
    while (store_worker_run(w->worker))
        ;
    w->setting_up = false;
    free(packed);
}

void world_account(struct world *w, const char *bare)
{
    Store__AccountAdd add = STORE__ACCOUNT_ADD__INIT;
    add.keys = (ProtobufCBinaryData){4, (uint8_t *)"keys"}, add.created_us = 1;
    Store__Request req = STORE__REQUEST__INIT;
    req.op_case = STORE__REQUEST__OP_ACCOUNT_ADD, req.account_add = &add;
    ask_store(w, bare, &req);
}

void world_befriend(struct world *w, const char *bare, const char *const *contacts, unsigned n)
{
    Store__RosterItem items[32], *pointers[32];
    must(n <= array_len(items));
    for (unsigned i = 0; i < n; i++) {
        store__roster_item__init(&items[i]);
        items[i].contact = (ProtobufCBinaryData){strlen(contacts[i]), (uint8_t *)contacts[i]};
        items[i].subscription = STORE__SUBSCRIPTION__BOTH;
        pointers[i] = &items[i];
    }
    Store__RosterChange change = STORE__ROSTER_CHANGE__INIT;
    change.version = 1, change.n_items = n, change.items = pointers;
    Store__Request req = STORE__REQUEST__INIT;
    req.op_case = STORE__REQUEST__OP_ROSTER_CHANGE, req.roster_change = &change;
    ask_store(w, bare, &req);
}

/* ---- begin ---- */

void world_open(struct world *w, unsigned nodes, unsigned shards, uint64_t seed,
                const char *const *settings)
{
    static const unsigned char secret[32] = {7};
    char why[256];
    w->nodes = nodes, w->per = shards;
    w->shards = nodes ? nodes * shards : shards;
    must(w->shards <= WORLD_SHARDS_MAX);
    w->now_us = 1000000, w->random = hash_u64(seed ^ 0x5eed);
    w->clock.wall_us = wall, w->entropy.fill = fill;
    w->log.write = no_log, w->log.level = LOG_ERROR, w->port.reply = on_reply;
    for (unsigned i = 0; i < WORLD_ENDS; i++)
        for (unsigned k = 0; k < WORLD_ENDS; k++)
            list_init(&w->wire[i][k]);
    w->conf = conf_test_with(settings);
    w->ring = nodes ? NULL : ring_single(secret, shards);
    if (nodes)
        cluster_open(w);
    struct store_worker_options o = {.path = ":memory:", .batch_max = 1};
    err e = store_worker_open(&o, &w->port, &w->log, why, sizeof why, &w->worker);
    must(e == ERR_OK);
    world_store_start(w);
    for (unsigned i = 0; i < w->shards; i++)
        world_start(w, i);
    for (unsigned i = 0; i < w->shards; i++) {
        world_tell_up(w, i, world_store(w));
        for (unsigned k = 0; !nodes && k < shards; k++)
            if (i != k)
                world_tell_up(w, i, k);
    }
}

/* ---- what is to be seen ---- */

uint64_t world_metric(const struct world *w, enum metric m)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < w->shards; i++)
        sum += w->shard[i] ? metric_get(&w->shard[i]->metrics, m) : 0;
    return sum;
}

size_t world_unacked(const struct world *w)
{
    size_t n = 0;
    for (unsigned i = 0; i < w->shards; i++)
        n += w->shard[i] ? channel_unacked(w->shard[i]->node.channels) : 0;
    return n;
}

size_t world_copies(const struct world *w)
{
    size_t n = 0;
    for (unsigned i = 0; i < w->shards; i++)
        n += w->shard[i] ? copies_count(w->shard[i]->node.copies) : 0;
    return n;
}
