/* harness: an edge without a machine around it: virtual time, a transport that is a byte string in
 * each direction, a home that is a list of frames, a store with one account. The doors' functions
 * are defined here, so that nothing of node/os, node/tls or the channels is linked.
 *
 * One world at a time (`w`), because the doors' C functions have no place for another; world_open
 * makes a fresh one. */
#ifndef TESTS_EDGE_HARNESS_H
#define TESTS_EDGE_HARNESS_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>

#include "node/edge/c2s.h"
#include "node/edge/listen.h"
#include "node/edge/stream.h"
#include "node/os/os.h"
#include "node/tls/helper.h"
#include "node/tls/tls.h"
#include "proto/bus/store.pb-c.h"

#define JULIET "juliet@localhost"
#define PASSWORD "wherefore art thou"

struct sent_frame {
    struct frame f;
    unsigned peer;
    struct hold hold;
    bool keep;
    char bare[256], resource[256], text[256];
};
struct fake_transport {
    struct transport t;
    struct fake_transport *low; /* under "TLS" */
    char out[1 << 20];
    size_t out_n, writes, in_flight, resumes;
    bool paused, stalled, closing, closed, tls;
    char address[32];
    uint16_t port;
};
enum { FRAMES_MAX = 4096, JOBS_MAX = 16 };
static struct world {
    struct node node;
    struct edge *edge;
    uint64_t now_us;
    struct list timers, hooks;
    size_t frame_n, done_n;
    struct {
        store_done_f *done;
        void *ctx;
        char owner[300];
    } store[JOBS_MAX];
    size_t store_n;
    struct helper_job *jobs[JOBS_MAX];
    size_t job_n;
    struct metric_page metrics;
    struct arena turn;
    struct clock clock;
    struct entropy entropy;
    struct log log;
    struct store store_door;
    struct fake_transport *transport; /* the one the conn has now */
    struct conn *conn;
    unsigned char keys[SCRAM_BLOB_MAX];
    size_t keys_n;
    uint64_t random;
    int stop_calls;
    struct sent_frame frames[FRAMES_MAX]; /* last: not cleared */
} w;

/* ---- loop ---- */

struct loop {
    int unused;
};
static struct loop the_loop;

uint64_t loop_now_ms(const struct loop *l) { return w.now_us / 1000; }
uint64_t loop_now_us(const struct loop *l) { return w.now_us; }
uint64_t loop_clock_us(struct loop *l) { return w.now_us; }
void timer_init(struct timer *t, timer_f *fn) { list_init(&t->link), t->fn = fn, t->due_ms = 0; }
void loop_timer_set(struct loop *l, struct timer *t, uint64_t in_ms)
{
    list_remove(&t->link);
    t->due_ms = loop_now_ms(l) + in_ms;
    list_push_back(&w.timers, &t->link);
}
void loop_timer_stop(struct loop *l, struct timer *t) { list_remove(&t->link); }
void loop_at_turn_end(struct loop *l, struct turn_hook *h)
{
    if (list_empty(&h->link))
        list_push_back(&w.hooks, &h->link);
}
static struct loop_source *the_source; /* the edge's, for handshakes */
void loop_source_add(struct loop *l, struct loop_source *s) { the_source = s; }
void loop_source_remove(struct loop *l, struct loop_source *s) { the_source = NULL; }
enum { ACCEPTS_MAX = 64 };
static struct accept_op *accepts[ACCEPTS_MAX]; /* armed; those that are being stopped too */
static size_t accept_n, accept_stop_n;
void loop_accept(struct loop *l, struct accept_op *a, int fd)
{
    must(accept_n < ACCEPTS_MAX);
    accepts[accept_n++] = a;
}
void loop_accept_stop(struct loop *l, struct accept_op *a) { accept_stop_n++; }

/* ---- channels ---- */

static void copy_str(str *s, char *to, size_t cap)
{
    must(s->n < cap);
    if (s->n)
        memcpy(to, s->p, s->n);
    s->p = to;
}
void channel_send(struct channels *c, unsigned peer, const struct frame *f, struct hold h,
                  bool keep)
{
    must(w.frame_n < FRAMES_MAX);
    struct sent_frame *s = &w.frames[w.frame_n++];
    s->f = *f, s->peer = peer, s->hold = h, s->keep = keep;
    copy_str(&s->f.bare, s->bare, sizeof s->bare);
    copy_str(&s->f.resource, s->resource, sizeof s->resource);
    copy_str(&s->f.text, s->text, sizeof s->text);
    if (f->stanza)
        stanza_ref(f->stanza);
}
void channel_done(struct channels *c, struct origin o) { w.done_n++; }

/* ---- transport ---- */

static size_t fake_write(struct transport *t, const struct iovec *iov, size_t n)
{
    struct fake_transport *f = (struct fake_transport *)t;
    size_t total = 0;
    must(f->in_flight == 0 && !f->closing && n <= SEND_IOV_MAX);
    for (size_t i = 0; i < n; i++) { /* one record's worth, as TLS takes it */
        size_t part = iov[i].iov_len < 16384 - total ? iov[i].iov_len : 16384 - total;
        must(f->out_n + part < sizeof f->out);
        memcpy(f->out + f->out_n, iov[i].iov_base, part);
        f->out_n += part, total += part;
    }
    f->out[f->out_n] = 0;
    f->in_flight = total, f->writes++;
    return total;
}
static void fake_pause(struct transport *t) { ((struct fake_transport *)t)->paused = true; }
static void fake_resume(struct transport *t)
{
    ((struct fake_transport *)t)->paused = false;
    ((struct fake_transport *)t)->resumes++;
}
static void fake_close(struct transport *t, bool graceful)
{
    struct fake_transport *f = (struct fake_transport *)t;
    f->closing = true;
    f->closed |= !graceful;
}
static void fake_free(struct transport *t)
{
    free(((struct fake_transport *)t)->low);
    free(t);
}
static void fake_info(const struct transport *t, struct transport_info *out)
{
    *out = (struct transport_info){0};
    struct sockaddr_in *in = (void *)&out->address;
    in->sin_family = AF_INET, in->sin_port = htons(((const struct fake_transport *)t)->port);
    inet_pton(AF_INET, ((const struct fake_transport *)t)->address, &in->sin_addr);
}
static err fake_binding(const struct transport *t, enum channel_binding kind, unsigned char out[64],
                        size_t *n)
{
    return ERR_NOT_FOUND;
}
static const struct transport_impl fake_impl = {fake_write, fake_pause, fake_resume, fake_close,
                                                fake_free,  fake_info,  fake_binding};

static struct fake_transport *fake_new(void)
{
    struct fake_transport *f = calloc(1, sizeof *f);
    must(f);
    f->t.impl = &fake_impl;
    strcpy(f->address, "192.0.2.1"), f->port = 4711;
    return f;
}
struct transport *sock_transport_open(struct loop *l, int fd, const struct sockaddr_storage *peer,
                                      const struct transport_sink *sink, void *owner)
{
    return &fake_new()->t;
}
void sock_transport_readdress(struct transport *t, const struct sockaddr_storage *peer)
{
    const struct sockaddr_in *in = (const void *)peer;
    must(in->sin_family == AF_INET);
    struct fake_transport *f = (struct fake_transport *)t;
    f->port = ntohs(in->sin_port);
    inet_ntop(AF_INET, &in->sin_addr, f->address, sizeof f->address);
}
/* What the lower transport brings to "TLS" is only counted. */
static size_t tls_bytes_n;
static void tls_bytes(struct transport *t, const char *p, size_t n) { tls_bytes_n += n; }
static const struct transport_sink tls_sink = {.bytes = tls_bytes};
struct transport *tls_server_open(struct tls *t, struct transport *low, enum tls_use use, str host)
{
    struct fake_transport *f = fake_new();
    f->low = (struct fake_transport *)low, f->tls = true, low->sink = &tls_sink;
    w.transport = f;
    return &f->t;
}
const char *tls_failure(const struct transport *t) { return ""; }
/* Handshakes that wait are a number; each takes a while. */
static size_t handshakes_in_line, handshakes_done;
static uint64_t handshake_us;
void tls_line_keep(struct tls *t) { handshakes_in_line = handshakes_done = 0, handshake_us = 200; }
size_t tls_line_length(const struct tls *t) { return handshakes_in_line; }
bool tls_line_next(struct tls *t)
{
    if (handshakes_in_line == 0)
        return false;
    handshakes_in_line--, handshakes_done++;
    w.now_us += handshake_us;
    return true;
}

/* ---- helper, store, clock, entropy, log ---- */

err helper_submit(struct helper *h, struct helper_job *j)
{
    if (w.job_n == JOBS_MAX)
        return ERR_FULL;
    return w.jobs[w.job_n++] = j, ERR_OK;
}
static void fake_submit(struct store *s, struct Store__Request *r, store_done_f *done, void *ctx)
{
    must(w.store_n < JOBS_MAX);
    w.store[w.store_n].done = done, w.store[w.store_n].ctx = ctx;
    snprintf(w.store[w.store_n++].owner, 300, "%.*s", (int)r->owner.len, (char *)r->owner.data);
}
static const struct store_impl fake_store = {fake_submit};
static int64_t fake_wall(struct clock *c) { return (int64_t)w.now_us; }
static void fake_fill(struct entropy *e, void *out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ((unsigned char *)out)[i] = (unsigned char)hash_u64(w.random++);
}
const enum log_level log_event_level[LOG_EVENT_MAX] = {
#define EVENT(name, level, fields) [LOG_##name] = level,
#include "pemberley/events.def"
#undef EVENT
};
static void fake_log(struct log *l, enum log_event e, enum log_level level,
                     const struct log_field *f, size_t n)
{
}

/* ---- the world ---- */

__attribute__((unused)) static bool run_store(err e)
{
    if (w.store_n == 0)
        return false;
    store_done_f *done = w.store[0].done;
    void *ctx = w.store[0].ctx;
    Store__Reply reply = STORE__REPLY__INIT;
    Store__Account account = STORE__ACCOUNT__INIT;
    account.exists = strcmp(w.store[0].owner, JULIET) == 0;
    if (account.exists)
        account.keys = (ProtobufCBinaryData){w.keys_n, w.keys};
    reply.body_case = STORE__REPLY__BODY_ACCOUNT, reply.account = &account;
    memmove(w.store, w.store + 1, --w.store_n * sizeof w.store[0]);
    done(ctx, e, e == ERR_AWAY ? NULL : &reply);
    return true;
}
static bool run_job(void)
{
    if (w.job_n == 0)
        return false;
    struct helper_job *j = w.jobs[0];
    memmove(w.jobs, w.jobs + 1, --w.job_n * sizeof w.jobs[0]);
    j->run(j);
    j->done(j);
    return true;
}
static void run_hooks(void)
{
    while (!list_empty(&w.hooks)) {
        struct turn_hook *h = list_first(&w.hooks, struct turn_hook, link);
        list_remove(&h->link);
        h->fn(h);
    }
    arena_reset(&w.turn);
}
/* The transport's socket does what it can. Whether it did anything. */
static bool run_transport(void)
{
    struct fake_transport *t = w.transport;
    if (!t || t->stalled || !w.conn)
        return false;
    if (t->in_flight) {
        t->in_flight = 0;
        if (t->t.owner)
            return t->t.sink->written(&t->t), true;
    }
    if (t->closed && t->t.owner) {
        w.conn = NULL, w.transport = NULL;
        return t->t.sink->closed(&t->t, ERR_OK), true;
    }
    return false;
}
/* One turn; another, as long as something happens. */
static void turn(void)
{
    do {
        run_hooks();
    } while (run_transport() || run_job());
    run_hooks();
}
__attribute__((unused)) static void pass_ms(uint64_t ms)
{
    uint64_t until = w.now_us + ms * 1000;
    for (;;) {
        struct timer *next = NULL;
        list_each(t, &w.timers, struct timer, link)
            if (!next || t->due_ms < next->due_ms)
                next = t;
        if (!next || next->due_ms * 1000 > until)
            break;
        if (next->due_ms * 1000 > w.now_us)
            w.now_us = next->due_ms * 1000;
        list_remove(&next->link);
        next->fn(next);
        turn();
    }
    w.now_us = until;
}

static void world_open(const char *const *settings)
{
    memset(&w, 0, offsetof(struct world, frames));
    w.now_us = 1000000000;
    list_init(&w.timers), list_init(&w.hooks);
    arena_init(&w.turn);
    w.clock.wall_us = fake_wall, w.entropy.fill = fake_fill;
    w.log.write = fake_log, w.store_door.impl = &fake_store;
    w.node = (struct node){
        .shards = 2,
        .loop = &the_loop,
        .clock = &w.clock,
        .entropy = &w.entropy,
        .log = &w.log,
        .metrics = &w.metrics,
        .store = &w.store_door,
        .turn = &w.turn,
        .scan = xml_scan_new(),
        .tls = (struct tls *)&the_loop,
        .conf = settings ? conf_test_with(settings) : conf_test_default(),
    };
    w.node.ring = ring_single(w.node.secret, 2);
    struct copies_config copies = {
        .ring = w.node.ring, .turn = &w.turn, .marks = &w.node.marks, .loop = w.node.loop};
    w.node.copies = copies_new(&copies);
    struct scram_keys keys;
    scram_keys_make(STR(PASSWORD), 1, &w.entropy, &keys);
    w.keys_n = scram_keys_encode(&keys, w.keys);
    w.edge = edge_new(&w.node);
}

static void client_open(enum listener_kind kind)
{
    w.transport = fake_new();
    w.conn = conn_open(w.edge, &w.transport->t, kind);
    if (kind == LISTENER_C2S_TLS)
        w.transport->t.sink->opened(&w.transport->t);
    turn();
}
static void client_sends_bytes(const char *p, size_t n)
{
    if (w.conn && !w.transport->closing)
        w.transport->t.sink->bytes(&w.transport->t, p, n);
}
static void client_sends(const char *text)
{
    client_sends_bytes(text, strlen(text));
    turn();
}
/* What the client has received since the last call. */
static const char *received(void)
{
    static char text[sizeof w.transport->out];
    text[0] = 0;
    if (w.transport) {
        memcpy(text, w.transport->out, w.transport->out_n);
        text[w.transport->out_n] = 0;
        w.transport->out_n = 0;
    }
    return text;
}
__attribute__((unused)) static bool got(const char *text, const char *part)
{
    if (strstr(text, part))
        return true;
    fprintf(stderr, "no %s in:\n%s\n", part, text);
    return false;
}
static void forget_frames(void)
{
    for (size_t i = 0; i < w.frame_n; i++)
        stanza_unref(w.frames[i].f.stanza);
    w.frame_n = 0;
}
static struct sent_frame *last_frame(enum frame_kind kind)
{
    for (size_t i = w.frame_n; i-- > 0;)
        if (w.frames[i].f.kind == kind)
            return &w.frames[i];
    return NULL;
}
__attribute__((unused)) static size_t frame_count(enum frame_kind kind)
{
    size_t n = 0;
    for (size_t i = 0; i < w.frame_n; i++)
        n += w.frames[i].f.kind == kind;
    return n;
}
static void home_sends(const struct frame *f)
{
    edge_frame(w.edge, (struct origin){ring_home(w.node.ring, STR(JULIET)), 1, 1, false}, f);
}

#define HEADER \
    "<?xml version='1.0'?><stream:stream to='localhost' version='1.0' xml:lang='de' " \
    "xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"
#define BIND \
    "<iq type='set' id='b1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>" \
    "<resource>balcony</resource></bind></iq>"
#define SM "xmlns='urn:xmpp:sm:3'"
static uint64_t sid_of_juliet(void)
{
    return (uint64_t)ring_slot(w.node.ring, STR(JULIET)) << 50 | 0x1234;
}

static void client_authenticates(void)
{
    char plain[256], auth[512];
    int n = snprintf(plain, sizeof plain, "%cjuliet%c" PASSWORD, 0, 0);
    str text = sasl_encode(str_from(plain, (size_t)n), &w.turn);
    snprintf(auth, sizeof auth,
             "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>%.*s</auth>",
             STR_ARG(text));
    client_sends(HEADER);
    client_sends(auth);
    run_store(ERR_OK);
    turn();
}
/* Logs Juliet in and binds juliet@localhost/balcony. */
__attribute__((unused)) static void client_logs_in(void)
{
    client_open(LISTENER_C2S_TLS);
    client_authenticates();
    client_sends(HEADER);
    client_sends(BIND);
    struct sent_frame *bind = last_frame(FRAME_BIND);
    must(bind);
    home_sends(&(struct frame){.kind = FRAME_BOUND,
                               .conn = bind->f.conn,
                               .sid = sid_of_juliet(),
                               .gen = 1,
                               .text = STR(JULIET "/balcony")});
    turn();
    forget_frames();
    received();
}
__attribute__((unused)) static void client_enables_sm(uint64_t out_base)
{
    client_sends("<enable " SM " resume='true'/>");
    home_sends(&(struct frame){
        .kind = FRAME_ENABLED, .sid = sid_of_juliet(), .gen = 1, .seq = out_base, .ms = 600000});
    turn();
    received();
    forget_frames();
}
/* An OUT as the home makes it; the stanza has no `to`. */
__attribute__((unused)) static void home_sends_out(uint64_t seq, const char *xml, uint32_t flags)
{
    struct stanza *s = stanza_make(w.node.scan, str_of(xml), &w.turn);
    home_sends(&(struct frame){.kind = FRAME_OUT,
                               .sid = sid_of_juliet(),
                               .gen = 1,
                               .seq = seq,
                               .stanza = s,
                               .flags = flags,
                               .us = w.now_us,
                               .ord = seq,
                               .conn = 77});
    stanza_unref(s);
}
/* The home reports FRAME_IN number i (of those not forgotten) safe. */
__attribute__((unused)) static void settle(size_t i)
{
    size_t n = 0;
    for (size_t k = 0; k < w.frame_n; k++)
        if (w.frames[k].f.kind == FRAME_IN && n++ == i)
            return edge_settled(w.edge, w.frames[k].hold, false);
    must(!"no such frame");
}
static void on_stopped(void *ctx) { w.stop_calls++; }
static void world_close(void)
{
    while (run_store(ERR_AWAY))
        ;
    edge_stop(w.edge, on_stopped, NULL);
    if (w.transport)
        w.transport->stalled = false;
    turn();
    if (w.transport) {
        w.transport->closed = true;
        turn();
    }
    must(w.stop_calls == 1);
    edge_free(w.edge);
    copies_free(w.node.copies);
    marks_close(&w.node.marks);
    forget_frames();
    ring_free((struct ring *)w.node.ring);
    xml_scan_free(w.node.scan);
    free((void *)w.node.conf);
    arena_close(&w.turn);
}

#endif
