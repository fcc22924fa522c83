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

#include "node/edge/c2s.h"
#include "node/edge/stream.h"

enum { DELAY_AFTER_US = 5000000, HELD_MAX_MS = 1000 };
enum { CACK_ROWS = 4096 }; /* in one frame: its header holds 64 KiB */

static struct out *entry(const struct c2s *s, uint64_t seq)
{
    return &s->outs[(s->out_head + (seq - s->acked - 1)) & (s->out_cap - 1)];
}

static void grow(struct c2s *s)
{
    uint32_t cap = s->out_cap ? s->out_cap * 2 : 2;
    struct out *outs = malloc(cap * sizeof *outs);
    must(outs);
    for (uint32_t i = 0; i < s->out_count; i++)
        outs[i] = s->outs[(s->out_head + i) & (s->out_cap - 1)];
    free(s->outs);
    s->outs = outs, s->out_cap = cap, s->out_head = 0;
}

struct out out_of(const struct frame *f)
{
    return (struct out){
        .stanza = stanza_ref(f->stanza),
        .sid = f->conn,
        .ord = f->ord,
        .row = f->h,
        .lane = f->lane,
        .flags = f->flags & 0xff,
        .us = f->us & ((1ull << 56) - 1),
    };
}

static void push(struct c2s *s, const struct frame *f)
{
    if (s->out_count == s->out_cap)
        grow(s);
    s->last = f->seq;
    s->out_count++;
    *entry(s, f->seq) = out_of(f);
    s->out_bytes += f->stanza->index.len;
    s->unsent += f->stanza->index.len;
}

static void pop(struct c2s *s)
{
    struct out *o = entry(s, s->acked + 1);
    s->out_bytes -= o->stanza->index.len;
    stanza_unref(o->stanza);
    s->out_head = (s->out_head + 1) & (s->out_cap - 1);
    s->out_count--;
    s->acked++;
}

static void free_if_empty(struct c2s *s)
{
    if (s->out_count)
        return;
    free(s->outs);
    s->outs = NULL, s->out_head = s->out_cap = 0;
}

/* The client has the oldest one. */
static void take(struct c2s *s)
{
    const struct out *o = entry(s, s->acked + 1);
    struct edge *e = s->conn->edge;
    uint64_t row = o->row;
    marks_put(&e->marks, (struct mark){{o->sid, o->ord, o->lane},
                                       (unsigned)(s->sid >> 50),
                                       loop_now_ms(e->node->loop)});
    if (row && s->row_count == s->row_cap) {
        s->row_cap = s->row_cap ? s->row_cap * 2 : 8;
        s->rows = realloc(s->rows, s->row_cap * sizeof *s->rows);
        must(s->rows);
    }
    if (row)
        s->rows[s->row_count++] = htobe64(row);
    s->cack_due = true;
    pop(s);
}

/* ---- held frames ---- */

/* Is the transport behind; is the client, which may also be slow to ack? */
static bool is_unread(const struct c2s *s)
{
    const struct conf *conf = s->conn->edge->node->conf;
    return s->unsent > conf->limits_output_max || s->last - s->taken > conf->limits_unacked_max / 4;
}
static bool is_behind(const struct c2s *s)
{
    return is_unread(s) || s->out_count > s->conn->edge->node->conf->limits_unacked_max / 4;
}

static void hold(struct c2s *s, struct origin from)
{
    if (s->held_count == s->held_cap) {
        s->held_cap = s->held_cap ? s->held_cap * 2 : 8;
        s->held = realloc(s->held, s->held_cap * sizeof *s->held);
        must(s->held);
    }
    s->held[s->held_count++].from = from;
    if (!timer_is_set(&s->held_timer))
        loop_timer_set(s->conn->edge->node->loop, &s->held_timer, HELD_MAX_MS);
}

static void release_held(struct c2s *s)
{
    for (uint32_t i = 0; i < s->held_count; i++)
        channel_done(s->conn->edge->node->channels, s->held[i].from);
    free(s->held);
    s->held = NULL, s->held_count = s->held_cap = 0;
    loop_timer_stop(s->conn->edge->node->loop, &s->held_timer);
}

static void relieve(struct c2s *s)
{
    if (s->held_count && !is_behind(s))
        release_held(s);
}

void c2s_held_timer(struct timer *t)
{
    struct c2s *s = container_of(t, struct c2s, held_timer);
    if (!is_unread(s))
        return release_held(s);
    loop_timer_set(s->conn->edge->node->loop, t, HELD_MAX_MS);
}

/* ---- in from the home ---- */

static bool is_overflowing(const struct c2s *s)
{
    const struct conf *conf = s->conn->edge->node->conf;
    return s->out_count > conf->limits_unacked_max || s->out_bytes > conf->limits_unacked_bytes_max;
}

/* Nothing is on the way, so the home may begin where it likes. What the client acked before the
 * transport had it is still to be taken: it goes on standing before the new ones. */
static void begin_anywhere(struct c2s *s, uint64_t seq)
{
    uint64_t untaken = s->put - s->taken;
    s->acked = s->put = s->last = seq - 1;
    s->taken = s->put - untaken;
}

void c2s_on_out(struct c2s *s, struct origin from, const struct frame *f)
{
    struct node *n = s->conn->edge->node;
    struct conn *c = s->conn;
    bool again = f->seq <= s->last;
    if (again)
        metric_add(n->metrics, METRIC_duplicates_edge, 1);
    if (!again && s->out_count == 0)
        begin_anywhere(s, f->seq);
    if (again || f->seq != s->last + 1) {
        channel_done(n->channels, from);
        if (!again)
            conn_end(c, ERR_STREAM_INTERNAL); /* a gap: the client would count wrong */
        return;
    }
    push(s, f);
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
    int64_t age = clock_wall_us(n->clock) - (int64_t)o->us;
    if (!(o->flags & FRAME_REPLAY) || o->stanza->kind == STANZA_IQ || age < DELAY_AFTER_US)
        return stanza_ref(o->stanza);
    str bare = c2s_bare(s);
    const char *at = memchr(bare.p, '@', bare.n);
    str domain = at ? str_skip(bare, (size_t)(at + 1 - bare.p)) : bare;
    return stanza_with_delay(n->scan, o->stanza, domain, (int64_t)o->us, n->turn);
}

static void put_stanza(struct c2s *s, const struct out *o)
{
    struct output *out = &s->conn->out;
    struct stanza *stanza = delayed(s, o);
    str xml = stanza_xml(stanza);
    if (o->flags & (FRAME_TO_BARE | FRAME_TO_FULL)) {
        output_put(out, str_from(xml.p, stanza->index.splice));
        output_put(out, o->flags & FRAME_TO_FULL ? c2s_to_full(s) : c2s_to_bare(s));
        xml = str_skip(xml, stanza->index.splice);
    }
    output_put_stanza(out, stanza, xml);
    output_mark_out(out);
    stanza_unref(stanza);
}

void c2s_pump(struct c2s *s)
{
    struct conn *c = s->conn;
    c2s_put_enabled(s);
    while (s->put < s->last && c->out.bytes < OUTPUT_WRITE_MAX) {
        struct out *o = entry(s, s->put + 1);
        put_stanza(s, o);
        s->put++;
        s->unsent -= o->stanza->index.len;
        metric_add(c->edge->node->metrics, METRIC_AT(stanzas_out, o->stanza->kind, c->listener), 1);
        c2s_put_enabled(s);
    }
    relieve(s);
    if (s->put == s->last)
        c2s_put_request(s);
}

/* Where the stanza came from, as far as its uid tells: nothing of its way left this shard, or all
 * was within the node. */
static enum metric_hop hop_of(const struct c2s *s, const struct out *o)
{
    const struct node *n = s->conn->edge->node;
    bool here = c2s_home(s) == n->shard &&
                (!o->sid || ring_home_of_slot(n->ring, (unsigned)(o->sid >> 50)) == n->shard);
    return here ? HOP_SAME_SHARD : HOP_SAME_NODE;
}

/* Is the entry of that seq the client's to ack, not the transport's? */
static bool waits_for_client(const struct c2s *s, uint64_t seq)
{
    return s->sm && seq > s->out_base;
}

void c2s_taken(struct c2s *s, uint32_t n)
{
    struct node *node = s->conn->edge->node;
    int64_t now = clock_wall_us(node->clock);
    for (; n > 0; n--) {
        s->taken++;
        if (s->taken <= s->acked)
            continue; /* the client was quicker with its ack than the kernel with its own */
        const struct out *o = entry(s, s->taken);
        int64_t age = now - (int64_t)o->us;
        metric_observe(node->metrics, HISTOGRAM_AT(delivery, hop_of(s, o)),
                       age > 0 ? (uint64_t)age : 0);
    }
    while (s->acked < s->taken && !waits_for_client(s, s->acked + 1)) {
        take(s);
    }
    free_if_empty(s);
    relieve(s);
    if (s->cack_due)
        conn_at_turn_end(s->conn);
}

void c2s_out_acked(struct c2s *s, uint64_t seq)
{
    while (s->acked < seq)
        take(s);
    free_if_empty(s);
    relieve(s);
    conn_at_turn_end(s->conn);
}

/* With rows of the store it is kept until they are removed: a new home knows the session no more,
 * and would give them out again. */
void c2s_tell_acked(struct c2s *s)
{
    if (!s->cack_due)
        return;
    uint32_t told = 0;
    do {
        uint32_t n = s->row_count - told < CACK_ROWS ? s->row_count - told : CACK_ROWS;
        struct frame f = {.kind = FRAME_CACK,
                          .seq = s->acked,
                          .bare = c2s_bare(s),
                          .payload = n ? str_from(s->rows + told, n * sizeof *s->rows) : STR_NONE};
        c2s_tell(s, &f, n > 0);
        told += n;
    } while (told < s->row_count);
    s->cack_due = false;
    free(s->rows);
    s->rows = NULL, s->row_count = s->row_cap = 0;
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
    while (s->out_count)
        pop(s);
    free_if_empty(s);
    release_held(s);
    free(s->rows);
}
