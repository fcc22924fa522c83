/* out: a session's outbound queue (c2s.h). Circular; entry i has seq acked + 1 + i. Nothing is
 * serialised for a client that does not read: the conn's output is filled from here as the
 * transport takes it.
 *
 * Backpressure: while the client is behind, the frames' channel_done waits (held): their senders'
 * windows fill and *their* reading pauses. Behind is: more than limits.output_max waits, or a
 * quarter of limits.unacked_max is not taken or not acked, so that the windows of a dozen quick
 * senders still fit below the bound that ends the session. The transport is waited for until
 * limits.output_stall_timeout closes the reader; acks for a second only, because the client's <a/>
 * may lie behind stanzas that we do not read while *its* window waits for it: two clients that
 * flood each other would wait for each other. */
#include <endian.h>

#include "cluster/peers.h"
#include "node/edge/c2s.h"
#include "node/edge/stream.h"

enum { DELAY_AFTER_US = 5000000, HELD_MAX_MS = 1000 };
enum { CACK_ROWS = 4096 }; /* in one frame: its header holds 64 KiB */

/* A frame whose channel_done waits until the client has caught up. */
struct held {
    struct timer timer; /* the client's acks are not waited for longer */
    struct c2s *session;
    uint32_t count, cap;
    struct origin *from;
};
/* Rows of the offline store, big-endian. */
struct taken_rows {
    uint32_t count, cap;
    uint64_t row[];
};

static struct out *entry(const struct c2s *s, uint64_t seq)
{
    return outs_at(s->outs, seq - s->acked - 1);
}

static void pop(struct c2s *s)
{
    outs_pop(&s->outs, &s->conn->edge->short_queues);
    s->acked++;
}

static void note_row(struct c2s *s, uint64_t row)
{
    struct taken_rows *r = s->rows;
    if (!r || r->count == r->cap) {
        uint32_t count = r ? r->count : 0, cap = r ? r->cap * 2 : 8;
        r = realloc(r, sizeof *r + cap * sizeof *r->row);
        must(r);
        r->count = count, r->cap = cap;
        s->rows = r;
    }
    r->row[r->count++] = htobe64(row);
}

/* The client has the oldest one. */
static void take(struct c2s *s)
{
    const struct out *o = entry(s, s->acked + 1);
    struct edge *e = s->conn->edge;
    uint64_t row = o->row;
    marks_put(&e->node->marks, (struct mark){{o->sid, o->ord, o->lane},
                                             s->sid,
                                             stanza_fp(o->stanza),
                                             loop_now_ms(e->node->loop)});
    if (row)
        note_row(s, row);
    s->cack_due = true;
    if (row || (o->flags & FRAME_AWAITED))
        s->cack_soon = true;
    pop(s);
}

/* ---- held frames ---- */

/* Is the transport behind; is the client, which may also be slow to ack? */
static bool is_unread(const struct c2s *s)
{
    const struct conf *conf = s->conn->edge->node->conf;
    return (s->outs && s->outs->unsent > conf->limits_output_max) ||
           c2s_last(s) - s->taken > conf->limits_unacked_max / 4;
}
static bool is_behind(const struct c2s *s)
{
    return is_unread(s) || outs_count(s->outs) > s->conn->edge->node->conf->limits_unacked_max / 4;
}

static void release_held(struct c2s *s)
{
    struct held *h = s->held;
    if (!h)
        return;
    metric_add(s->conn->edge->node->metrics, METRIC_output_stalled, -1);
    for (uint32_t i = 0; i < h->count; i++)
        channel_done(s->conn->edge->node->channels, h->from[i]);
    loop_timer_stop(s->conn->edge->node->loop, &h->timer);
    free(h->from);
    free(h);
    s->held = NULL;
}

static void relieve(struct c2s *s)
{
    if (s->held && !is_behind(s))
        release_held(s);
}

static void on_held_timer(struct timer *t)
{
    struct c2s *s = container_of(t, struct held, timer)->session;
    if (!is_unread(s))
        return release_held(s);
    loop_timer_set(s->conn->edge->node->loop, t, HELD_MAX_MS);
}

static struct held *held_new(struct c2s *s)
{
    struct held *h = calloc(1, sizeof *h);
    must(h);
    h->session = s;
    timer_init(&h->timer, on_held_timer);
    loop_timer_set(s->conn->edge->node->loop, &h->timer, HELD_MAX_MS);
    metric_add(s->conn->edge->node->metrics, METRIC_output_stalled, 1);
    return h;
}

static void hold(struct c2s *s, struct origin from)
{
    if (!s->held)
        s->held = held_new(s);
    struct held *h = s->held;
    if (h->count == h->cap) {
        h->cap = h->cap ? h->cap * 2 : 8;
        h->from = realloc(h->from, h->cap * sizeof *h->from);
        must(h->from);
    }
    h->from[h->count++] = from;
}

/* ---- in from the home ---- */

static bool is_overflowing(const struct c2s *s)
{
    const struct conf *conf = s->conn->edge->node->conf;
    return s->outs && (s->outs->count > conf->limits_unacked_max ||
                       s->outs->bytes > conf->limits_unacked_bytes_max);
}

/* Nothing is on the way, so the home may begin where it likes. What the client acked before the
 * transport had it is still to be taken: it goes on standing before the new ones. */
static void begin_anywhere(struct c2s *s, uint64_t seq)
{
    uint64_t untaken = s->put - s->taken;
    s->acked = s->put = seq - 1;
    s->taken = s->put - untaken;
}

/* Where it is noted when a timed one came; who comes later takes the place. */
static struct probe *probe_of(const struct c2s *s, uint64_t seq)
{
    struct edge *e = s->conn->edge;
    return &e->out_probes[(s->sid + seq) % array_len(e->out_probes)];
}

static void probe_taken(struct c2s *s, uint64_t seq)
{
    struct node *n = s->conn->edge->node;
    const struct probe *p = probe_of(s, seq);
    if (p->a == s->sid && p->b == seq)
        metric_observe(n->metrics, HISTOGRAM_AT(stage, STAGE_EDGE_OUT),
                       loop_clock_us(n->loop) - p->us);
}

void c2s_on_out(struct c2s *s, struct origin from, const struct frame *f)
{
    struct node *n = s->conn->edge->node;
    struct conn *c = s->conn;
    bool again = f->seq <= c2s_last(s);
    if (again)
        metric_add(n->metrics, METRIC_duplicates_edge, 1);
    if (!again && !s->outs)
        begin_anywhere(s, f->seq);
    if (again || f->seq != c2s_last(s) + 1) {
        channel_done(n->channels, from);
        if (!again)
            conn_end(c, ERR_STREAM_INTERNAL); /* a gap: the client would count wrong */
        return;
    }
    outs_push(&s->outs, out_of(f), &s->conn->edge->short_queues);
    if (f->sent)
        *probe_of(s, f->seq) = (struct probe){s->sid, f->seq, loop_now_us(n->loop)};
    if (is_behind(s))
        hold(s, from);
    else
        channel_done(n->channels, from);
    if (is_overflowing(s)) {
        metric_add(n->metrics, METRIC_queue_overflows, 1);
        return conn_end(c, ERR_STREAM_QUEUE_OVERFLOW);
    }
    conn_at_turn_end(c);
}

/* ---- out to the client ---- */

/* A stanza that its client may have seen on the former connection, late: says so (xmpp.md 6). */
static struct stanza *delayed(struct c2s *s, const struct out *o)
{
    struct node *n = s->conn->edge->node;
    if (!(o->flags & FRAME_REPLAY) || o->stanza->kind == STANZA_IQ ||
        edge_wall_us(s->conn->edge) - (int64_t)o->us < DELAY_AFTER_US)
        return stanza_ref(o->stanza);
    str bare = c2s_bare(s);
    const char *at = memchr(bare.p, '@', bare.n);
    str domain = at ? str_skip(bare, (size_t)(at + 1 - bare.p)) : bare;
    return stanza_with_delay(n->scan, o->stanza, domain, (int64_t)o->us, n->turn);
}

static void put_stanza(struct c2s *s, const struct out *o)
{
    struct output *out = &s->conn->out;
    struct pool *pool = &s->conn->edge->short_outputs;
    struct stanza *stanza = delayed(s, o);
    str xml = stanza_xml(stanza);
    if (o->flags & (FRAME_TO_BARE | FRAME_TO_FULL)) {
        output_put(out, str_from(xml.p, stanza->index.splice), pool);
        bool full = o->flags & FRAME_TO_FULL;
        output_put(out, full ? c2s_to_full(s) : c2s_to_bare(s), pool);
        if (!full)
            output_put(out, STR("'"), pool);
        xml = str_skip(xml, stanza->index.splice);
    }
    output_put_stanza(out, stanza, xml, pool);
    output_mark_out(out);
    stanza_unref(stanza);
}

void c2s_pump(struct c2s *s)
{
    struct conn *c = s->conn;
    c2s_put_enabled(s);
    while (s->put < c2s_last(s) && c->out.bytes < OUTPUT_WRITE_MAX) {
        struct out *o = entry(s, s->put + 1);
        put_stanza(s, o);
        s->put++;
        s->outs->unsent -= o->stanza->index.len;
        metric_add(c->edge->node->metrics, METRIC_AT(stanzas_out, o->stanza->kind, c->listener), 1);
        c2s_count_host(s, WAY_OUT, o->stanza->kind, o->stanza->index.len);
        c2s_put_enabled(s);
    }
    relieve(s);
    if (s->put == c2s_last(s))
        c2s_put_request(s);
}

/* Where the stanza came from, as far as its uid tells: nothing of its way left this shard, or this
 * node; the sender's home stands for its edge. */
static enum metric_hop hop_of(const struct c2s *s, const struct out *o)
{
    const struct node *n = s->conn->edge->node;
    unsigned home = c2s_home(s);
    unsigned sender = o->sid ? ring_home_of_slot(n->ring, (unsigned)(o->sid >> 50)) : home;
    if (home == n->shard && sender == n->shard)
        return HOP_SAME_SHARD;
    return peer_block(home) == 0 && peer_block(sender) == 0 ? HOP_SAME_NODE : HOP_OTHER_NODE;
}

/* Is the entry of that seq the client's to ack, not the transport's? */
static bool waits_for_client(const struct c2s *s, uint64_t seq)
{
    return s->sm && seq > s->out_base;
}

void c2s_taken(struct c2s *s, uint32_t n)
{
    struct node *node = s->conn->edge->node;
    int64_t now = edge_wall_us(s->conn->edge);
    for (; n > 0; n--) {
        s->taken++;
        if (s->taken <= s->acked)
            continue; /* the client was quicker with its ack than the kernel with its own */
        const struct out *o = entry(s, s->taken);
        int64_t age = now - (int64_t)o->us;
        metric_observe(node->metrics, HISTOGRAM_AT(delivery, hop_of(s, o)),
                       age > 0 ? (uint64_t)age : 0);
        if (node_times_stages(o->us, o->ord))
            probe_taken(s, s->taken);
    }
    while (s->acked < s->taken && !waits_for_client(s, s->acked + 1)) {
        take(s);
    }
    relieve(s);
    c2s_tell_acked(s); /* at most one write ends per turn, so nothing could be put together */
}

void c2s_out_acked(struct c2s *s, uint64_t seq)
{
    while (s->acked < seq)
        take(s);
    relieve(s);
    conn_at_turn_end(s->conn);
}

/* With rows of the store it is kept until they are removed: a new home knows the session no more,
 * and would give them out again. */
void c2s_tell_acked(struct c2s *s)
{
    if (!s->cack_due)
        return;
    struct taken_rows *rows = s->rows;
    uint32_t count = rows ? rows->count : 0, told = 0;
    do {
        uint32_t n = count - told < CACK_ROWS ? count - told : CACK_ROWS;
        struct frame f = {.kind = FRAME_CACK, .flags = FRAME_PATIENT, .seq = s->acked};
        if (!s->cack_soon)
            f.flags |= FRAME_LATER;
        if (n)
            f.bare = c2s_bare(s), f.payload = str_from(rows->row + told, n * sizeof *rows->row);
        c2s_tell(s, &f, n > 0);
        told += n;
    } while (told < count);
    s->cack_due = s->cack_soon = false;
    free(rows);
    s->rows = NULL;
}

void c2s_turn_end(struct c2s *s)
{
    c2s_tell_acked(s);
    if (s->ack_now && s->sm && !s->enabled_due)
        c2s_put_ack(s);
}

/* ---- end ---- */

void c2s_out_free(struct c2s *s)
{
    while (s->outs)
        pop(s);
    release_held(s);
    free(s->rows);
}
