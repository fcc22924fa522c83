/* home_rig: the wiring of two shards without processes: channels whose bytes wait in a list, a loop
 * of virtual time, edges as a list of notes. */
#include "tests/unit/support/home_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>

#include <cmocka.h>

#include "cluster/copy.h"
#include "cluster/ticket.h"
#include "node/os/loop_impl.h"
#include "proto/xmpp/jid.h"

enum { NOTES_MAX = 65536 };

struct bytes {
    struct list link;
    unsigned from, to;
    size_t n;
    char data[];
};
struct held_out {
    struct list link;
    struct origin origin;
};
struct side {
    struct rig *rig;
    unsigned shard;
    struct node node;
    struct home *home;
    struct arena turn;
    struct list held;
};
struct rig {
    struct loop loop;
    uint64_t now_us;
    struct clock clock;
    struct entropy entropy;
    uint64_t seed;
    struct log log;
    struct metric_page metrics;
    struct conf *conf;
    struct fake_store *store;
    struct ring *ring;
    struct side side[RIG_SHARDS];
    struct list wire;
    struct note *notes;
    size_t count;
    uint64_t conns;
    bool hold_out;
    unsigned drops;
    struct {
        char from[256];
        enum stanza_type type;
    } routed[4096];
    size_t routed_count;
    struct client *clients[256];
    size_t client_count;
};

/* ---- doors ---- */

static void no_op(struct loop *l, struct op *op) {}
static unsigned no_wait(struct loop *l, unsigned want, uint64_t us_max) { return 0; }
static bool no_run(struct loop *l) { return false; }
static void no_end(struct loop *l) {}
static uint64_t rig_now(struct loop *l) { return container_of(l, struct rig, loop)->now_us; }
static const struct loop_impl loop_impl = {.name = "rig",
                                           .arm = no_op,
                                           .cancel = no_op,
                                           .wait = no_wait,
                                           .run = no_run,
                                           .turn_end = no_end,
                                           .now_us = rig_now,
                                           .close = no_end};

static int64_t wall(struct clock *c)
{
    return (int64_t)(container_of(c, struct rig, clock)->now_us + 1700000000000000ull);
}

static void fill(struct entropy *e, void *out, size_t n)
{
    struct rig *r = container_of(e, struct rig, entropy);
    for (size_t i = 0; i < n; i++)
        ((unsigned char *)out)[i] = (unsigned char)hash_u64(r->seed++);
}

static void no_log(struct log *l, enum log_event e, enum log_level level, const struct log_field *f,
                   size_t n)
{
}

/* ---- channels ---- */

static char *copy(str s)
{
    char *p = malloc(s.n + 1);
    must(p);
    if (s.n)
        memcpy(p, s.p, s.n);
    p[s.n] = 0;
    return p;
}

static void take_note(struct side *s, struct origin from, const struct frame *f)
{
    struct rig *r = s->rig;
    must(r->count < NOTES_MAX);
    struct note *n = &r->notes[r->count++];
    *n = (struct note){.edge = s->shard, .frame = *f, .text = copy(f->text)};
    if (f->stanza)
        n->xml = copy(stanza_xml(f->stanza));
    n->frame.stanza = NULL;
    if (f->kind == FRAME_OUT && r->hold_out) {
        struct held_out *h = malloc(sizeof *h);
        must(h);
        h->origin = from;
        list_push_back(&s->held, &h->link);
        return;
    }
    channel_done(s->node.channels, from);
}

static void note_route(struct rig *r, const struct stanza *s)
{
    if (s->kind != STANZA_PRESENCE || r->routed_count == array_len(r->routed))
        return;
    snprintf(r->routed[r->routed_count].from, sizeof r->routed[0].from, "%.*s",
             STR_ARG(stanza_from(s)));
    r->routed[r->routed_count++].type = (enum stanza_type)s->type;
}

static void count_drops(struct rig *r, const struct frame *f)
{
    for (size_t at = NOTE_BYTES; f->kind == FRAME_NOTE && at <= f->payload.n; at += NOTE_BYTES)
        r->drops += f->payload.p[at - 1] == NOTE_DROP;
}

static void on_frame(void *ctx, struct origin from, const struct frame *f)
{
    struct side *s = ctx;
    switch (f->kind) {
    case FRAME_BOUND:
    case FRAME_RESUMED:
    case FRAME_FAILED:
    case FRAME_ENABLED:
    case FRAME_OUT:
    case FRAME_CLOSE: take_note(s, from, f); break;
    case FRAME_STATE:
    case FRAME_SNAP:
    case FRAME_MIRROR:
    case FRAME_NOTE:
        count_drops(s->rig, f);
        copies_frame(s->node.copies, f);
        channel_done(s->node.channels, from);
        break;
    case FRAME_ROUTE:
        note_route(s->rig, f->stanza);
        /* fall through */
    default: home_frame(s->home, from, f);
    }
}

unsigned rig_drops(const struct rig *r) { return r->drops; }

unsigned rig_routed(struct rig *r, const char *from, enum stanza_type type)
{
    unsigned n = 0;
    for (size_t i = 0; i < r->routed_count; i++)
        n += r->routed[i].type == type && !strcmp(r->routed[i].from, from);
    return n;
}

static void on_settled(void *ctx, struct hold h, bool lost)
{
    struct side *s = ctx;
    if (h.owner == HOLD_TICKET) {
        ticket_settled(h);
        return;
    }
    if (h.owner == HOLD_MIRROR) {
        home_settled(s->home, h, lost);
        return;
    }
    for (size_t i = 0; i < s->rig->client_count; i++)
        if (s->rig->clients[i]->sid == h.a)
            s->rig->clients[i]->safe = h.b;
}

static void on_send(void *ctx, unsigned peer, const struct iovec *v, size_t n, bool later)
{
    struct side *s = ctx;
    size_t all = 0;
    for (size_t i = 0; i < n; i++)
        all += v[i].iov_len;
    struct bytes *b = malloc(sizeof *b + all);
    must(b);
    b->from = s->shard, b->to = peer, b->n = 0;
    for (size_t i = 0; i < n; b->n += v[i++].iov_len)
        memcpy(b->data + b->n, v[i].iov_base, v[i].iov_len);
    list_push_back(&s->rig->wire, &b->link);
}
static void on_wake(void *ctx) {}

static bool run_wire(struct rig *r)
{
    bool any = false;
    while (!list_empty(&r->wire)) {
        struct bytes *b = list_first(&r->wire, struct bytes, link);
        list_remove(&b->link);
        must(channel_receive(r->side[b->to].node.channels, b->from, str_from(b->data, b->n)) ==
             ERR_OK);
        free(b);
        any = true;
    }
    return any;
}

static bool run_once(struct rig *r)
{
    bool any = false;
    for (unsigned i = 0; i < RIG_SHARDS; i++) {
        any |= channel_run(r->side[i].node.channels);
        channel_flush(r->side[i].node.channels);
    }
    any |= run_wire(r);
    any |= fake_store_run(r->store) > 0;
    size_t before = r->count;
    loop_turn(&r->loop, 0);
    return any || r->count != before || !list_empty(&r->wire);
}

void rig_run(struct rig *r)
{
    int quiet = 0;
    for (int i = 0; i < 100000 && quiet < 3; i++)
        quiet = run_once(r) ? 0 : quiet + 1;
    must(quiet == 3);
    for (unsigned i = 0; i < RIG_SHARDS; i++)
        arena_reset(&r->side[i].turn);
}

void rig_pass(struct rig *r, uint64_t ms)
{
    rig_run(r);
    while (ms) {
        uint64_t step = ms < 500 ? ms : 500;
        r->now_us += step * 1000;
        ms -= step;
        rig_run(r);
    }
}

void rig_hold_out(struct rig *r, bool on)
{
    r->hold_out = on;
    for (unsigned i = 0; i < RIG_SHARDS && !on; i++)
        list_each(h, &r->side[i].held, struct held_out, link) {
            list_remove(&h->link);
            channel_done(r->side[i].node.channels, h->origin);
            free(h);
        }
}

void rig_edge_died(struct rig *r, unsigned edge)
{
    for (unsigned i = 0; i < RIG_SHARDS; i++)
        home_peer_down(r->side[i].home, edge);
}

/* ---- life ---- */

static void open_side(struct rig *r, unsigned i)
{
    struct side *s = &r->side[i];
    s->rig = r, s->shard = i;
    arena_init(&s->turn);
    list_init(&s->held);
    struct channel_sinks sinks = {s, on_frame, on_settled, on_send, on_wake};
    s->node = (struct node){.shard = i,
                            .shards = RIG_SHARDS,
                            .loop = &r->loop,
                            .clock = &r->clock,
                            .entropy = &r->entropy,
                            .log = &r->log,
                            .metrics = &r->metrics,
                            .store = fake_store_door(r->store),
                            .ring = r->ring,
                            .turn = &s->turn,
                            .scan = xml_scan_new(),
                            .conf = r->conf};
    memset(&s->node.key, (int)i + 1, sizeof s->node.key);
    s->node.channels = channels_new(i, RIG_SHARDS, &sinks);
    struct copies_config copies = {.channels = s->node.channels,
                                   .ring = r->ring,
                                   .turn = &s->turn,
                                   .marks = &s->node.marks,
                                   .loop = &r->loop};
    s->node.copies = copies_new(&copies);
    s->home = home_new(&s->node);
}

struct rig *rig_open(const char *const *settings)
{
    static const char *const none[] = {NULL};
    static const unsigned char secret[32] = {7};
    struct rig *r = calloc(1, sizeof *r);
    must(r);
    r->clock.wall_us = wall;
    r->entropy.fill = fill;
    r->log.write = no_log, r->log.level = LOG_ERROR;
    r->conf = conf_test_with(settings ? settings : none);
    r->store = fake_store_open();
    r->ring = ring_single(secret, RIG_SHARDS);
    r->notes = calloc(NOTES_MAX, sizeof *r->notes);
    must(r->notes);
    r->now_us = 1000000;
    list_init(&r->wire);
    loop_init(&r->loop, &loop_impl, eventfd(0, EFD_NONBLOCK));
    r->loop.now_us = r->now_us;
    for (unsigned i = 0; i < RIG_SHARDS; i++)
        open_side(r, i);
    for (unsigned i = 0; i < RIG_SHARDS; i++)
        channel_peer_up(r->side[i].node.channels, 1 - i, 1);
    return r;
}

static void on_stopped(void *ctx) { ++*(int *)ctx; }

void rig_close(struct rig *r)
{
    int stopped = 0;
    fake_store_pause(r->store, false);
    rig_hold_out(r, false);
    for (unsigned i = 0; i < RIG_SHARDS; i++)
        home_stop(r->side[i].home, on_stopped, &stopped);
    rig_run(r);
    assert_int_equal(stopped, RIG_SHARDS);
    for (unsigned i = 0; i < RIG_SHARDS; i++)
        home_free(r->side[i].home);
    rig_run(r);
    for (unsigned i = 0; i < RIG_SHARDS; i++) {
        copies_free(r->side[i].node.copies);
        marks_close(&r->side[i].node.marks);
        channels_free(r->side[i].node.channels);
        arena_close(&r->side[i].turn);
        xml_scan_free(r->side[i].node.scan);
    }
    for (size_t i = 0; i < r->count; i++) {
        free(r->notes[i].xml);
        free(r->notes[i].text);
    }
    list_each(b, &r->wire, struct bytes, link)
        free(b);
    fake_store_close(r->store);
    ring_free(r->ring);
    free(r->conf);
    free(r->notes);
    free(r);
}

struct conf *rig_conf(struct rig *r) { return r->conf; }
struct fake_store *rig_store(struct rig *r) { return r->store; }
struct home *rig_home(struct rig *r, unsigned shard) { return r->side[shard].home; }
struct node *rig_node(struct rig *r, unsigned shard) { return &r->side[shard].node; }
unsigned rig_home_of(struct rig *r, const char *bare) { return ring_home(r->ring, str_of(bare)); }
void rig_user(struct rig *r, const char *bare)
{
    fake_store_add_account(r->store, bare, STR("keys"));
}

/* ---- clients ---- */

static void to_home(struct client *c, struct frame *f, struct hold hold, bool keep)
{
    struct rig *r = c->rig;
    channel_send(r->side[c->edge].node.channels, rig_home_of(r, c->bare), f, hold, keep);
}
static const struct hold NOBODY = {HOLD_NONE, 0, 0};

const struct note *rig_next(struct client *c)
{
    struct rig *r = c->rig;
    while (c->seen < r->count) {
        const struct note *n = &r->notes[c->seen++];
        bool mine = n->frame.kind == FRAME_BOUND || n->frame.kind == FRAME_RESUMED ||
                            n->frame.kind == FRAME_FAILED
                        ? n->frame.conn == c->conn
                        : n->frame.sid == c->sid && n->edge == c->edge;
        if (!mine)
            continue;
        if (n->frame.kind == FRAME_OUT)
            c->out_seq = n->frame.seq;
        return n;
    }
    return NULL;
}

err rig_bind(struct rig *r, struct client *c, unsigned edge, const char *bare, const char *wish)
{
    bool known = false;
    for (size_t i = 0; i < r->client_count; i++)
        known |= r->clients[i] == c;
    if (!known)
        r->clients[r->client_count++] = c;
    *c = (struct client){.rig = r, .edge = edge, .conn = ++r->conns, .seen = r->count};
    snprintf(c->bare, sizeof c->bare, "%s", bare);
    struct frame f = {.kind = FRAME_BIND,
                      .bare = str_of(bare),
                      .resource = str_of(wish),
                      .conn = c->conn,
                      .text = STR("127.0.0.1")};
    to_home(c, &f, NOBODY, true);
    rig_run(r);
    const struct note *n = rig_next(c);
    assert_non_null(n);
    assert_int_equal(n->frame.kind, FRAME_BOUND);
    c->sid = n->frame.sid, c->gen = n->frame.gen;
    snprintf(c->full, sizeof c->full, "%s", n->text);
    return n->frame.reason;
}

void rig_enable(struct client *c, uint64_t max_ms)
{
    struct frame f = {.kind = FRAME_ENABLE,
                      .sid = c->sid,
                      .gen = c->gen,
                      .ord = c->ord,
                      .flags = FRAME_WANT_RESUME,
                      .ms = max_ms};
    to_home(c, &f, NOBODY, false);
    rig_run(c->rig);
    const struct note *n = rig_next(c);
    assert_non_null(n);
    assert_int_equal(n->frame.kind, FRAME_ENABLED);
}

static void simple(struct client *c, enum frame_kind kind, uint64_t seq)
{
    struct frame f = {.kind = kind, .sid = c->sid, .gen = c->gen, .seq = seq, .reason = ERR_CLOSED};
    to_home(c, &f, NOBODY, false);
    rig_run(c->rig);
}
void rig_csi(struct client *c, bool inactive)
{
    struct frame f = {
        .kind = FRAME_CSI, .sid = c->sid, .gen = c->gen, .flags = inactive ? FRAME_INACTIVE : 0};
    to_home(c, &f, NOBODY, true);
    rig_run(c->rig);
}
void rig_detach(struct client *c) { simple(c, FRAME_DETACH, 0); }
void rig_end(struct client *c) { simple(c, FRAME_END, 0); }

/* As an edge does it: with the rows of the offline store that are among them. */
void rig_cack(struct client *c, uint64_t seq)
{
    struct rig *r = c->rig;
    unsigned char rows[8 * 256];
    size_t n = 0;
    for (size_t i = 0; i < r->count && n < sizeof rows; i++) {
        const struct frame *f = &r->notes[i].frame;
        if (f->kind == FRAME_OUT && f->sid == c->sid && f->seq <= seq && f->h)
            for (int b = 56; b >= 0; b -= 8)
                rows[n++] = (unsigned char)(f->h >> b);
    }
    struct frame f = {.kind = FRAME_CACK,
                      .sid = c->sid,
                      .gen = c->gen,
                      .seq = seq,
                      .bare = str_of(c->bare),
                      .payload = str_from(rows, n)};
    to_home(c, &f, NOBODY, n > 0);
    rig_run(r);
}

void rig_resume(struct client *c, unsigned edge, uint32_t h)
{
    c->edge = edge, c->conn = ++c->rig->conns, c->seen = c->rig->count;
    struct frame f = {.kind = FRAME_RESUME,
                      .bare = str_of(c->bare),
                      .sid = c->sid,
                      .h = h,
                      .conn = c->conn,
                      .text = STR("127.0.0.1")};
    to_home(c, &f, NOBODY, true);
}

static bool is_subscription(enum stanza_type t)
{
    return t >= TYPE_SUBSCRIBE && t <= TYPE_UNSUBSCRIBED;
}

static struct stanza *stamp(struct client *c, const char *text)
{
    struct side *s = &c->rig->side[c->edge];
    static const struct xml_limits limits = {262144, 64, 64, 32, 1024, 4096, 1024};
    static const struct xml_header header = {.default_ns = NS_CLIENT};
    const struct xml_index *x;
    enum xml_item what;
    size_t used;
    enum stanza_kind kind;
    enum stanza_type type;
    str xml = str_of(text);
    xml_scan_begin(s->node.scan, &limits, &header);
    must(xml_scan(s->node.scan, xml, false, &what, &used, &x) == ERR_OK && what == XML_ELEMENT);
    must(stanza_classify(xml, x, &kind, &type) == ERR_OK);
    bool bare = kind == STANZA_PRESENCE && is_subscription(type);
    str from = str_of(bare ? c->bare : c->full);
    str to = x->to.off ? str_from(text + x->to.off, x->to.len) : STR_NONE;
    if (!to.n && kind != STANZA_PRESENCE)
        to = str_of(c->bare);
    struct xml_index index = *x;
    struct xml_edit e = {index.splice, 0, xml_attr_text("from", from, &s->turn)};
    struct stanza_head head = {kind, type, jid_parse_prepared(xml_unescape(to, true, &s->turn)),
                               from};
    return stanza_edited(xml, &index, &e, 1, &head);
}

void rig_send_bad(struct client *c, const char *xml, err reason)
{
    struct stanza *s = stamp(c, xml);
    struct frame f = {.kind = FRAME_IN,
                      .sid = c->sid,
                      .gen = c->gen,
                      .ord = ++c->ord,
                      .fp = stanza_fp(s),
                      .us = (uint64_t)wall(&c->rig->clock),
                      .stanza = s,
                      .reason = reason};
    to_home(c, &f, (struct hold){HOLD_EDGE_IN, c->sid, c->ord}, false);
    stanza_unref(s);
}
void rig_send(struct client *c, const char *xml) { rig_send_bad(c, xml, ERR_OK); }

const char *rig_stanza(struct client *c)
{
    const struct note *n = rig_next(c);
    if (!n)
        fail_msg("%s: nothing has come", c->full);
    if (n->frame.kind != FRAME_OUT)
        fail_msg("%s: frame %d instead of a stanza", c->full, n->frame.kind);
    return n->xml;
}

void rig_expect(struct client *c, const char *part)
{
    rig_run(c->rig);
    const char *xml = rig_stanza(c);
    if (!strstr(xml, part))
        fail_msg("%s: expected %s in %s", c->full, part, xml);
}

void rig_expect_nothing(struct client *c)
{
    rig_run(c->rig);
    const struct note *n = rig_next(c);
    if (n)
        fail_msg("%s: unexpected frame %d: %s", c->full, n->frame.kind, n->xml ? n->xml : "");
}

void rig_forget(struct client *c)
{
    rig_run(c->rig);
    while (rig_next(c))
        ;
}

void rig_online(struct client *c, int priority)
{
    char xml[128];
    snprintf(xml, sizeof xml, "<presence><priority>%d</priority></presence>", priority);
    rig_send(c, xml);
    rig_forget(c);
}

static void inject(struct rig *r, const char *xml, struct frame f)
{
    struct side *side = &r->side[0];
    struct stanza *s = stanza_make(side->node.scan, str_of(xml), &side->turn);
    f.stanza = s, f.fp = stanza_fp(s), f.us = (uint64_t)wall(&r->clock);
    f.bare = jid_parse_prepared(stanza_to(s)).bare;
    channel_send(side->node.channels, ring_home(r->ring, f.bare), &f, NOBODY, true);
    stanza_unref(s);
}

void rig_inject(struct rig *r, const char *xml, struct uid uid, uint32_t flags)
{
    inject(
        r, xml,
        (struct frame){
            .kind = FRAME_ROUTE, .sid = uid.sid, .ord = uid.ord, .lane = uid.lane, .flags = flags});
}
