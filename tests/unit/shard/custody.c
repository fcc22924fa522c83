/* custody: kill -9 of each process of a small node before every frame it could happen at, for every
 * placement of edge and home of a sender and an addressee (delivery.md 5 and 8, for one node). Two
 * shards with real edges, homes, channels and store clients, and the real store worker, on virtual
 * time; frames between them wait on a wire that is delivered one by one, so that a kill comes
 * between any two. Each kill runs in a fork of the prepared world.
 *
 * The oracle knows only what clients see: what was acknowledged to the sender (<a h/>, <resumed h/>
 * or <failed h/>) arrives exactly once and in order, the rest at most once. Excused is only what
 * came on a stream before its <enabled/> (delivery.md 9, 2). */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "cluster/copy.h"
#include "cluster/peers.h"
#include "cluster/view.h"
#include "node/conf/conf.h"
#include "node/edge/c2s.h"
#include "node/edge/stream.h"
#include "node/home/home.h"
#include "node/home/session.h"
#include "node/os/loop_impl.h"
#include "node/shard/rooms.h"
#include "node/store/store.h"
#include "node/store_client/store_client.h"
#include "proto/bus/store.pb-c.h"

enum { SHARDS = 2, STORE = 2, ENDS = 3, NUMBERS = 64, TEXT = 1 << 18 };
enum { BATCH = 3, LAG = 2, STAY = 3, SECOND_AT = 8, GO_AT = 6, BACK_AT = 14, STEPS_MAX = 2000 };

struct parcel {
    struct list link;
    unsigned from, to;
    size_t n;
    char data[];
};

struct person;
struct line { /* one connection */
    struct transport t;
    struct person *person;
    size_t in_flight;
    bool closing;
};

struct shard {
    struct loop loop;
    struct node node;
    struct metric_page metrics;
    struct arena turn;
    struct home *home;
    struct edge *edge;
    struct store_client *store;
    unsigned index;
    uint32_t incarnation;
};

struct person {
    char bare[64], previd[64];
    unsigned home, edge;
    bool resends, lazy; /* lazy: leaves <r/> unanswered */
    struct line *line;
    char *in; /* from the server, not looked at yet */
    size_t in_n;
    bool counting, bound, ended;
    uint32_t received;      /* h towards the server */
    unsigned sent[NUMBERS]; /* what each stanza since <enabled/> was: a number, 0: no message */
    uint32_t sent_n, acked;
    unsigned numbers; /* given so far */
    bool confirmed[NUMBERS];
    unsigned got[4 * NUMBERS], got_n;
    bool uncounted[4 * NUMBERS]; /* heard before <enabled/> */
    const char *to;
};

static struct world {
    struct shard *shard[SHARDS];
    struct store_worker *worker;
    struct store_port port;
    struct conf *conf;
    struct ring *ring;
    bool cluster; /* each shard is a node of its own, and slots move */
    struct view *view[2];
    uint64_t epoch;
    struct log log;
    struct clock clock;
    struct entropy entropy;
    struct list wire;
    uint64_t now_us, random, seed;
    bool setting_up;
    struct person a, b;
    char story[256];
} w;

/* ---- doors ---- */

static void no_op(struct loop *l, struct op *op) {}
static unsigned no_wait(struct loop *l, unsigned want, uint64_t us_max) { return 0; }
static bool no_run(struct loop *l) { return false; }
static void no_end(struct loop *l) {}
static uint64_t virtual_now(struct loop *l) { return w.now_us; }
static const struct loop_impl loop_impl = {.name = "virtual",
                                           .arm = no_op,
                                           .cancel = no_op,
                                           .wait = no_wait,
                                           .run = no_run,
                                           .turn_end = no_end,
                                           .now_us = virtual_now,
                                           .close = no_end};

static int64_t wall(struct clock *c) { return (int64_t)(w.now_us + 1700000000000000ull); }
static void fill(struct entropy *e, void *out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ((unsigned char *)out)[i] = (unsigned char)hash_u64(w.random++);
}
static void no_log(struct log *l, enum log_event e, enum log_level level, const struct log_field *f,
                   size_t n)
{
}

static void put_on_wire(unsigned from, unsigned to, const char *p, size_t n)
{
    struct parcel *b = malloc(sizeof *b + n);
    must(b);
    b->from = from, b->to = to, b->n = n;
    memcpy(b->data, p, n);
    list_push_back(&w.wire, &b->link);
}

static void on_reply(struct store_port *port, unsigned peer, const char *p, size_t n)
{
    if (!w.setting_up)
        put_on_wire(STORE, peer, p, n);
}

/* ---- a shard, wired as node/shard does it ---- */

static void on_frame(void *ctx, struct origin from, const struct frame *f)
{
    struct shard *s = ctx;
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
    str parts[FRAME_PARTS];
    for (size_t i = 0; i < n; i++)
        parts[i] = str_from(v[i].iov_base, v[i].iov_len);
    str whole = arena_concat(&s->turn, parts, n);
    put_on_wire(s->index, w.cluster ? 1 - s->index : peer, whole.p, whole.n);
}
static void to_store(void *ctx, const char *p, size_t n)
{
    put_on_wire(((struct shard *)ctx)->index, STORE, p, n);
}
static void on_wake(void *ctx) {}

static struct shard *shard_start(unsigned index, uint32_t incarnation)
{
    struct shard *s = calloc(1, sizeof *s);
    must(s);
    s->index = index, s->incarnation = incarnation;
    loop_init(&s->loop, &loop_impl, eventfd(0, EFD_NONBLOCK));
    s->loop.now_us = w.now_us;
    arena_init(&s->turn);
    struct channel_sinks sinks = {s, on_frame, on_settled, to_shard, on_wake};
    s->node = (struct node){.shard = w.cluster ? 0 : index,
                            .shards = w.cluster ? 1 : SHARDS,
                            .loop = &s->loop,
                            .clock = &w.clock,
                            .entropy = &w.entropy,
                            .log = &w.log,
                            .metrics = &s->metrics,
                            .ring = w.cluster ? NULL : w.ring,
                            .turn = &s->turn,
                            .scan = xml_scan_new(),
                            .conf = w.conf};
    entropy_fill(&w.entropy, &s->node.key, sizeof s->node.key);
    s->node.channels = channels_new(s->node.shard, s->node.shards, &sinks);
    struct copies_config copies = {.channels = s->node.channels,
                                   .ring = w.cluster ? NULL : w.ring,
                                   .turn = &s->turn,
                                   .marks = &s->node.marks,
                                   .loop = &s->loop};
    s->node.copies = copies_new(&copies);
    s->store = store_client_new(&s->loop, w.conf, &s->metrics, &w.log, to_store, s);
    s->node.store = store_client_door(s->store);
    store_client_worker_up(s->store);
    s->home = home_new(&s->node);
    if (!w.cluster)
        home_await_others(s->home);
    s->edge = edge_new(&s->node);
    return s;
}

static void meet(struct shard *s, struct shard *peer)
{
    rooms_peer_up(&s->node, s->edge, s->home, peer->index, peer->incarnation);
}

/* ---- connections ---- */

static size_t line_write(struct transport *t, const struct iovec *iov, size_t n)
{
    struct line *l = (struct line *)t;
    for (size_t i = 0; i < n; i++) {
        if (l->person) {
            must(l->person->in_n + iov[i].iov_len < TEXT);
            memcpy(l->person->in + l->person->in_n, iov[i].iov_base, iov[i].iov_len);
            l->person->in_n += iov[i].iov_len;
        }
        l->in_flight += iov[i].iov_len;
    }
    return l->in_flight;
}
static void line_pause(struct transport *t) {}
static void line_close(struct transport *t, bool graceful) { ((struct line *)t)->closing = true; }
static void line_free(struct transport *t) { free(t); }
static void line_info(const struct transport *t, struct transport_info *out)
{
    *out = (struct transport_info){.address.ss_family = AF_UNIX};
}
static err line_binding(const struct transport *t, enum channel_binding kind, unsigned char out[64],
                        size_t *n)
{
    return ERR_NOT_FOUND;
}
static const struct transport_impl line_impl = {line_write, line_pause, line_pause,  line_close,
                                                line_free,  line_info,  line_binding};

static void say(struct person *p, const char *fmt, ...)
{
    char text[1024];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    must(n > 0 && (size_t)n < sizeof text);
    if (p->line && !p->line->closing)
        p->line->t.sink->bytes(&p->line->t, text, (size_t)n);
}

/* Logged in already: SASL is another test's. */
static void dial(struct person *p, unsigned edge)
{
    struct line *l = calloc(1, sizeof *l);
    must(l);
    l->t.impl = &line_impl, l->person = p;
    p->line = l, p->edge = edge, p->in_n = 0, p->ended = p->bound = false;
    struct conn *c = conn_open(w.shard[edge]->edge, &l->t, LISTENER_C2S);
    conn_authenticated(c);
    c->secured = true;
    negotiation_keep(&c->negotiation->host, STR("localhost"));
    negotiation_keep(&c->negotiation->bare, str_of(p->bare));
    say(p, "<stream:stream to='localhost' version='1.0' xmlns='jabber:client' "
           "xmlns:stream='http://etherx.jabber.org/streams'>");
}

/* ---- what a client does with what it gets ---- */

static void put_number(struct person *p, unsigned number)
{
    p->sent[p->sent_n++] = number;
    say(p, "<message to='%s' type='chat' id='%u'><body>%u</body></message>", p->to, number, number);
}

static void count(struct person *p, uint32_t h)
{
    must(h >= p->acked && h <= p->sent_n);
    for (; p->acked < h; p->acked++)
        p->confirmed[p->sent[p->acked]] = true;
}

static void begin(struct person *p)
{
    p->previd[0] = 0, p->counting = false, p->sent_n = p->acked = p->received = 0;
    say(p, "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>"
           "<resource>x</resource></bind></iq>");
}

static void resumed(struct person *p, uint32_t h)
{
    uint32_t n = p->sent_n;
    count(p, h);
    p->sent_n = h, p->bound = true;
    for (uint32_t i = h; i < n; i++)
        if (!p->sent[i])
            p->sent[p->sent_n++] = 0, say(p, "<presence/>");
        else if (p->resends)
            put_number(p, p->sent[i]);
}

static long number_after(const char *xml, const char *what)
{
    const char *at = strstr(xml, what);
    return at ? strtol(at + strlen(what), NULL, 10) : -1;
}

static bool starts(const char *xml, const char *what) { return !strncmp(xml, what, strlen(what)); }

static void element(struct person *p, const char *xml)
{
    bool stanza = starts(xml, "<message") || starts(xml, "<presence") || starts(xml, "<iq");
    p->received += stanza && p->counting;
    if (starts(xml, "<message")) {
        p->uncounted[p->got_n] = !p->counting;
        p->got[p->got_n++] = (unsigned)number_after(xml, "<body>");
        must(!strstr(xml, "type='error'") && p->got_n < array_len(p->got));
    } else if (starts(xml, "<stream:features")) {
        if (p->previd[0])
            say(p, "<resume xmlns='urn:xmpp:sm:3' previd='%s' h='%u'/>", p->previd, p->received);
        else
            begin(p);
    } else if (starts(xml, "<iq") && strstr(xml, "urn:ietf:params:xml:ns:xmpp-bind")) {
        p->sent[p->sent_n++] = 0;
        say(p, "<enable xmlns='urn:xmpp:sm:3' resume='true'/><presence/>");
    } else if (starts(xml, "<enabled")) {
        sscanf(strstr(xml, "id='"), "id='%63[^']", p->previd);
        p->counting = p->bound = true;
    } else if (starts(xml, "<resumed")) {
        resumed(p, (uint32_t)number_after(xml, " h='"));
    } else if (starts(xml, "<failed")) {
        if (number_after(xml, " h='") >= 0)
            count(p, (uint32_t)number_after(xml, " h='"));
        begin(p);
    } else if (starts(xml, "<a ")) {
        count(p, (uint32_t)number_after(xml, " h='"));
    } else if (starts(xml, "<r ") && !p->lazy) {
        say(p, "<a xmlns='urn:xmpp:sm:3' h='%u'/>", p->received);
    } else if (starts(xml, "<stream:error")) {
        p->ended = true;
    }
}

/* The end of the first element at stream level in text, or 0. */
static size_t element_end(const char *text, size_t n)
{
    const char *close = memchr(text, '>', n);
    char name[40] = "</";
    if (!close)
        return 0;
    if (close[-1] == '/' || starts(text, "<?xml") || starts(text, "<stream:stream") ||
        starts(text, "</"))
        return (size_t)(close + 1 - text);
    sscanf(text, "<%30[^ />]", name + 2);
    strcat(name, ">");
    const char *end = memmem(text, n, name, strlen(name));
    return end ? (size_t)(end - text) + strlen(name) : 0;
}

static bool listen_to(struct person *p)
{
    size_t n, at = 0;
    bool any = false;
    while (at < p->in_n && (n = element_end(p->in + at, p->in_n - at))) {
        char xml[4096];
        must(n < sizeof xml);
        memcpy(xml, p->in + at, n);
        xml[n] = 0;
        at += n;
        element(p, xml);
        any = true;
    }
    memmove(p->in, p->in + at, p->in_n - at);
    p->in_n -= at;
    return any;
}

/* ---- time goes on ---- */

static void shard_turn(struct shard *s)
{
    for (int i = 0; i < 4; i++) {
        loop_turn(&s->loop, 0);
        channel_run(s->node.channels);
        channel_flush(s->node.channels);
    }
    arena_reset(&s->turn);
}

static bool line_turn(struct person *p)
{
    struct line *l = p->line;
    if (!l)
        return false;
    if (l->in_flight) {
        l->in_flight = 0;
        l->t.sink->written(&l->t);
        return true;
    }
    if (l->closing) {
        p->line = NULL, p->ended = true;
        l->t.sink->closed(&l->t, ERR_OK);
        return true;
    }
    return false;
}

/* Everything that needs no frame from another process. */
static void settle(void)
{
    bool any = true;
    for (int i = 0; any; i++) {
        must(i < STEPS_MAX);
        for (unsigned k = 0; k < SHARDS; k++)
            shard_turn(w.shard[k]);
        any = line_turn(&w.a);
        any |= line_turn(&w.b);
        any |= listen_to(&w.a);
        any |= listen_to(&w.b);
    }
}

/* Some frame that is the first from its sender to its receiver. */
static struct parcel *next_parcel(void)
{
    struct parcel *heads[ENDS * ENDS];
    unsigned n = 0;
    bool seen[ENDS][ENDS] = {0};
    list_each(b, &w.wire, struct parcel, link) {
        if (!seen[b->from][b->to])
            heads[n++] = b;
        seen[b->from][b->to] = true;
    }
    return n ? heads[hash_u64(w.seed++) % n] : NULL;
}

static bool step(void)
{
    struct parcel *b = next_parcel();
    if (!b)
        return false;
    list_remove(&b->link);
    if (b->to == STORE) {
        store_worker_on_request(w.worker, b->from, b->data, b->n);
        store_worker_run(w.worker);
    } else if (b->from == STORE) {
        store_client_on_frame(w.shard[b->to]->store, b->data, b->n);
    } else {
        unsigned from = w.cluster ? peer_number(1, 0) : b->from;
        must(channel_receive(w.shard[b->to]->node.channels, from, str_from(b->data, b->n)) ==
             ERR_OK);
    }
    free(b);
    settle();
    return true;
}

static void run(void)
{
    settle();
    for (int i = 0; step(); i++)
        must(i < STEPS_MAX);
}

static void pass_ms(uint64_t ms)
{
    for (uint64_t done = 0; done < ms; done += 100) {
        w.now_us += 100000;
        run();
    }
}

/* ---- death ---- */

static void lose_wire_of(unsigned end)
{
    list_each(b, &w.wire, struct parcel, link)
        if (b->from == end || b->to == end) {
            list_remove(&b->link);
            free(b);
        }
}

static void kill_store(void)
{
    lose_wire_of(STORE);
    for (unsigned i = 0; i < SHARDS; i++) {
        store_worker_forget(w.worker, i);
        store_client_worker_down(w.shard[i]->store);
        store_client_worker_up(w.shard[i]->store);
    }
}

/* Its memory is simply never looked at again. */
static void kill_shard(unsigned index)
{
    struct shard *other = w.shard[1 - index];
    uint32_t incarnation = w.shard[index]->incarnation + 1;
    lose_wire_of(index);
    store_worker_forget(w.worker, index);
    struct person *people[] = {&w.a, &w.b};
    for (int i = 0; i < 2; i++)
        if (people[i]->edge == index && people[i]->line) {
            listen_to(people[i]); /* what the kernel had taken arrives */
            people[i]->line = NULL, people[i]->ended = true;
        }
    rooms_peer_down(&other->node, other->home, index);
    w.shard[index] = shard_start(index, incarnation);
    meet(other, w.shard[index]);
    meet(w.shard[index], other);
}

static void come_back(struct person *p, unsigned edge)
{
    if (!p->ended)
        return;
    if (p->line)
        p->line->person = NULL; /* what the old connection still says reaches nobody */
    dial(p, edge);
}

/* ---- a run ---- */

static void talk(struct person *p, unsigned n)
{
    for (unsigned i = 0; i < n && p->bound; i++)
        put_number(p, ++p->numbers);
    say(p, "<r xmlns='urn:xmpp:sm:3'/>");
}

/* ---- slots that move ---- */

static const unsigned char SECRET[32] = {7};
enum { WEIGHT = 100, HEAVY = 300 };

/* By the second view the other node than `from` is heavier. */
static void make_views(unsigned from)
{
    for (unsigned i = 0; i < 2; i++) {
        w.view[i] = view_new(1);
        for (unsigned k = 0; k < SHARDS; k++) {
            struct view_node *n;
            must(view_add(w.view[i], k ? STR("n1") : STR("n0"), STR("x"), &n) == ERR_OK);
            n->owner = 1, n->state = VIEW_LIVE;
            n->weight = i == 1 && k != from ? HEAVY : WEIGHT;
            view_node_set(n, 0, 1);
        }
    }
}

static void publish(unsigned which) { w.view[which]->epoch = ++w.epoch; }

static void adopt(unsigned index, unsigned which)
{
    struct shard *s = w.shard[index];
    const unsigned blocks[SHARDS] = {index, 1 - index};
    bool first = !s->node.ring;
    rooms_adopt(&s->node, s->edge, s->home, ring_new(SECRET, w.view[which], blocks, s->node.ring));
    if (first)
        channel_path_up(s->node.channels, peer_number(1, 0), 1, 0);
    settle();
}

static void tell_settled(void)
{
    for (unsigned i = 0; i < SHARDS; i++)
        rooms_epoch_settled(&w.shard[i]->node, w.shard[i]->home, w.epoch);
    settle();
}

/* Its home, and whether that is another by the other view. */
static bool lives_there(const char *bare, unsigned home, bool moves)
{
    if (!w.cluster)
        return ring_home(w.ring, str_of(bare)) == home;
    struct ring *r[2];
    unsigned at[2];
    for (int i = 0; i < 2; i++) {
        r[i] = ring_new(SECRET, w.view[i], NULL, NULL);
        at[i] = peer_block(ring_home(r[i], str_of(bare)));
        ring_free(r[i]);
    }
    return at[0] == home && (at[0] != at[1]) == moves;
}

static void person_init(struct person *p, const char *name, unsigned home, bool moves)
{
    *p = (struct person){.home = home, .in = malloc(TEXT)};
    must(p->in);
    for (int i = 0;; i++) {
        snprintf(p->bare, sizeof p->bare, "%s%d@localhost", name, i);
        if (lives_there(p->bare, home, moves))
            break;
    }
    Store__AccountAdd add = STORE__ACCOUNT_ADD__INIT;
    add.keys = (ProtobufCBinaryData){4, (uint8_t *)"keys"}, add.created_us = 1;
    Store__Request req = STORE__REQUEST__INIT;
    req.owner = (ProtobufCBinaryData){strlen(p->bare), (uint8_t *)p->bare};
    req.op_case = STORE__REQUEST__OP_ACCOUNT_ADD, req.account_add = &add;
    uint8_t packed[512];
    size_t n = store__request__pack(&req, packed);
    w.setting_up = true;
    store_worker_on_request(w.worker, 0, (const char *)packed, n);
    store_worker_run(w.worker);
    w.setting_up = false;
}

struct placement {
    unsigned a_home, a_edge, b_home, b_edge;
};

static void world_open_as(const struct placement *p, bool cluster, bool a_moves)
{
    static const char *const settings[] = {NULL};
    char why[256];
    memset(&w, 0, sizeof w);
    w.cluster = cluster;
    if (cluster)
        make_views(a_moves ? p->a_home : p->b_home);
    w.now_us = 1000000, w.clock.wall_us = wall, w.entropy.fill = fill;
    w.log.write = no_log, w.log.level = LOG_ERROR, w.port.reply = on_reply;
    list_init(&w.wire);
    w.conf = conf_test_with(settings);
    w.ring = ring_single(SECRET, SHARDS);
    struct store_worker_options o = {.path = ":memory:", .batch_max = 1};
    must(store_worker_open(&o, &w.port, &w.log, why, sizeof why, &w.worker) == ERR_OK);
    for (unsigned i = 0; i < SHARDS; i++)
        w.shard[i] = shard_start(i, 1);
    person_init(&w.a, "a", p->a_home, a_moves);
    person_init(&w.b, "b", p->b_home, cluster && !a_moves);
    if (cluster) {
        publish(0);
        for (unsigned i = 0; i < SHARDS; i++)
            adopt(i, 0);
        run();
        tell_settled();
    } else {
        meet(w.shard[0], w.shard[1]);
        meet(w.shard[1], w.shard[0]);
    }
    dial(&w.a, p->a_edge);
    dial(&w.b, p->b_edge);
    run();
    must(w.a.bound && w.b.bound);
}

static void world_open(const struct placement *p) { world_open_as(p, false, false); }

static void fail_run(const char *what, unsigned number)
{
    fprintf(stderr, "%s: %s %u; got", w.story, what, number);
    for (unsigned i = 0; i < w.b.got_n; i++)
        fprintf(stderr, " %u", w.b.got[i]);
    fprintf(stderr, "; acknowledged");
    for (unsigned i = 1; i <= w.a.numbers; i++)
        if (w.a.confirmed[i])
            fprintf(stderr, " %u", i);
    fprintf(stderr, "\n");
    _exit(1);
}

static void judge(void)
{
    bool there[NUMBERS] = {0}, heard[NUMBERS] = {0};
    unsigned last = 0;
    for (unsigned i = 0; i < w.b.got_n; i++) {
        unsigned n = w.b.got[i];
        if (w.b.uncounted[i]) { /* it may come again, and did not wait for what was stored */
            heard[n] = true;
            continue;
        }
        if (there[n])
            fail_run("twice", n);
        if (n < last)
            fail_run("out of order", n);
        there[n] = true, last = n;
    }
    for (unsigned n = 1; n <= w.a.numbers; n++)
        if (w.a.confirmed[n] && !there[n] && !heard[n])
            fail_run("lost", n);
    if (!there[w.a.numbers])
        fail_run("the last one did not arrive:", w.a.numbers);
    if (!w.a.confirmed[w.a.numbers])
        fail_run("the last one was not acknowledged:", w.a.numbers);
}

struct variant {
    bool resends, lazy, away; /* away: the addressee is not connected, and comes at the end */
    bool returns;             /* … or as the kill draws near, and is given what is stored */
    enum { STAYS, LEAVES, DROPS } goes; /* the addressee, who has heard nothing since the first */
    bool back; /* … and comes back before the kill, through the other edge */
    bool same; /* who lost its edge comes back through the new one, else the other */
    bool full; /* to the full JID */
    uint64_t seed;
};

/* The addressee's network is broken, and nobody knows yet. */
static void go_deaf(struct person *p) { p->line->person = NULL; }

static void go(struct person *p, const struct variant *v)
{
    struct line *l = p->line;
    if (!l)
        return;
    if (v->goes == LEAVES) {
        say(p, "</stream:stream>");
    } else {
        p->line = NULL, p->ended = true;
        l->t.sink->closed(&l->t, ERR_CLOSED);
    }
    settle();
}

/* False: the chat was over before that many frames. */
static bool run_killed(const struct placement *p, const struct variant *v, unsigned victim,
                       unsigned at)
{
    static char to[80];
    snprintf(to, sizeof to, "%s%s", w.b.bare, v->full ? "/x" : "");
    w.a.to = to, w.a.resends = v->resends, w.b.lazy = v->lazy, w.seed = v->seed;
    if (v->away) {
        say(&w.b, "</stream:stream>");
        run();
        w.b.line = NULL, w.b.previd[0] = 0;
    }
    bool more = true, gone = false;
    if (v->goes)
        go_deaf(&w.b);
    talk(&w.a, BATCH);
    settle();
    if (v->returns) {
        run();
        dial(&w.b, p->b_edge);
        settle();
    }
    for (unsigned i = 0; i < at && (more || i <= SECOND_AT); i++) {
        if (i == SECOND_AT)
            talk(&w.a, BATCH), settle();
        if (i == GO_AT && v->goes)
            go(&w.b, v), gone = true;
        if (i == BACK_AT && v->back)
            come_back(&w.b, 1 - p->b_edge);
        more = step();
    }
    if (!more)
        return false;
    if (victim == STORE)
        kill_store();
    else
        kill_shard(victim);
    settle();
    if (v->goes && !gone)
        go(&w.b, v);
    unsigned other = victim == STORE ? 0 : 1 - victim;
    for (int i = 0; i < 2; i++) {
        come_back(&w.a, v->same ? 1 - other : other);
        if (!v->away || v->returns)
            come_back(&w.b, v->same ? 1 - other : other);
        run();
    }
    if (v->away && !v->returns)
        dial(&w.b, p->b_edge);
    run();
    w.b.lazy = false;
    talk(&w.a, 1);
    pass_ms(1500);
    talk(&w.a, 0);
    pass_ms(1500);
    judge();
    return true;
}

typedef bool run_f(const struct placement *p, const struct variant *v, unsigned who, unsigned at);

/* Before each frame; each in a process of its own. How many there were. */
static unsigned run_all(run_f *one, const struct placement *p, const struct variant *v,
                        unsigned victim)
{
    for (unsigned at = 0;; at++) {
        must(at < STEPS_MAX);
        snprintf(w.story, sizeof w.story,
                 "a %u%u b %u%u, %u killed (or first) at %u, resends %d lazy %d away %d returns %d "
                 "same %d "
                 "full %d goes %d back %d seed %llu",
                 p->a_home, p->a_edge, p->b_home, p->b_edge, victim, at, v->resends, v->lazy,
                 v->away, v->returns, v->same, v->full, v->goes, v->back,
                 (unsigned long long)v->seed);
        fflush(NULL);
        pid_t pid = fork();
        must(pid >= 0);
        if (pid == 0)
            _exit(one(p, v, victim, at) ? 0 : 2);
        int status;
        must(waitpid(pid, &status, 0) == pid);
        if (!WIFEXITED(status))
            fprintf(stderr, "%s: died\n", w.story);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) != 1);
        if (WEXITSTATUS(status) == 2)
            return at;
        assert_int_equal(WEXITSTATUS(status), 0);
    }
}

/* The view changes before that many frames, and back some frames later; the two shards adopt it at
 * different times. False: the chat was over before. */
static bool run_moved(const struct placement *p, const struct variant *v, unsigned first,
                      unsigned at)
{
    static char to[80];
    snprintf(to, sizeof to, "%s%s", w.b.bare, v->full ? "/x" : "");
    w.a.to = to, w.a.resends = v->resends, w.b.lazy = v->lazy, w.seed = v->seed;
    talk(&w.a, BATCH);
    settle();
    bool more = true;
    for (unsigned i = 0; i < at && (more || i <= SECOND_AT); i++) {
        if (i == SECOND_AT)
            talk(&w.a, BATCH), settle();
        more = step();
    }
    if (!more)
        return false;
    for (unsigned turn = 0; turn < 2; turn++) {
        publish(1 - turn);
        adopt(first, 1 - turn);
        for (unsigned i = 0; i < LAG + turn; i++)
            step();
        adopt(1 - first, 1 - turn);
        for (unsigned i = 0; i < LAG; i++)
            step();
        tell_settled();
        if (turn == 0)
            talk(&w.a, 1), settle();
        for (unsigned i = 0; i < STAY; i++)
            step();
    }
    run();
    w.b.lazy = false;
    talk(&w.a, 1);
    pass_ms(1500);
    talk(&w.a, 0);
    pass_ms(1500);
    judge();
    return true;
}

/* Each placement and victim with one of the variants, or, when PEMBERLEY_CHAOS is set, with all. */
static void everywhere(const struct variant *variants, size_t n)
{
    bool all = getenv("PEMBERLEY_CHAOS") != NULL;
    unsigned kills = 0;
    for (unsigned i = 0; i < 16; i++) {
        struct placement p = {i & 1, i >> 1 & 1, i >> 2 & 1, i >> 3 & 1};
        world_open(&p);
        for (unsigned victim = 0; victim < ENDS; victim++)
            for (size_t k = 0; k < n; k++)
                if (all || (i + victim) % n == k)
                    kills += run_all(run_killed, &p, &variants[k], victim);
    }
    printf("%u kills\n", kills);
}

static void what_was_acknowledged_outlives_a_kill_before_any_frame(void **state)
{
    static const struct variant variants[] = {
        {.resends = true, .same = true, .seed = 1},
        {.lazy = true, .seed = 2},
        {.resends = true, .lazy = true, .full = true, .seed = 3},
    };
    everywhere(variants, array_len(variants));
}

static void what_was_stored_outlives_a_kill_before_any_frame(void **state)
{
    static const struct variant variants[] = {
        {.resends = true, .away = true, .seed = 4},
        {.away = true, .same = true, .seed = 5},
        {.away = true, .returns = true, .resends = true, .seed = 6},
        {.away = true, .returns = true, .lazy = true, .same = true, .seed = 7},
    };
    everywhere(variants, array_len(variants));
}

static void what_the_client_left_unheard_outlives_a_kill_before_any_frame(void **state)
{
    static const struct variant variants[] = {
        {.resends = true, .goes = LEAVES, .same = true, .seed = 8},
        {.goes = DROPS, .seed = 9},
        {.resends = true, .goes = DROPS, .back = true, .full = true, .seed = 10},
        {.resends = true, .goes = DROPS, .lazy = true, .back = true, .same = true, .seed = 11},
        {.goes = LEAVES, .full = true, .back = true, .seed = 12},
    };
    everywhere(variants, array_len(variants));
}

static void what_was_acknowledged_outlives_a_move_before_any_frame(void **state)
{
    static const struct variant variants[] = {
        {.resends = true, .seed = 13},
        {.resends = true, .lazy = true, .full = true, .seed = 14},
    };
    unsigned moves = 0;
    for (unsigned i = 0; i < 32; i++) {
        struct placement p = {i & 1, i >> 1 & 1, i >> 2 & 1, i >> 3 & 1};
        world_open_as(&p, true, i >> 4);
        moves += run_all(run_moved, &p, &variants[(i >> 1 ^ i >> 4) & 1], (i ^ i >> 2) & 1);
    }
    printf("%u moves\n", moves);
}

const char *__asan_default_options(void);
const char *__asan_default_options(void) { return "detect_leaks=0"; } /* the dead free nothing */

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_acknowledged_outlives_a_move_before_any_frame),
        cmocka_unit_test(what_was_acknowledged_outlives_a_kill_before_any_frame),
        cmocka_unit_test(what_was_stored_outlives_a_kill_before_any_frame),
        cmocka_unit_test(what_the_client_left_unheard_outlives_a_kill_before_any_frame),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
