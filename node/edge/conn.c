/* conn: see conn.h. Bytes in, bytes out. */
#include "node/edge/conn.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>

#include "node/edge/c2s.h"
#include "node/edge/listen.h"
#include "node/edge/stream.h"
#include "node/tls/tls.h"

enum {
    /* Bytes that may come behind a pause. After login nobody can send more: the loop leaves it in
     * the socket. Before, who has said so much without waiting for an answer is no client. */
    CARRY_HELD_MAX = TLS_RECV_MAX,
    CARRY_HELD_MAX_PREAUTH = 16384,
    /* Output beyond which a peer that goes on asking is not read; after login stanzas may fill a
     * whole write. */
    UNREAD_MAX_PREAUTH = 8192,
    UNREAD_MAX = OUTPUT_WRITE_MAX,
    WHITESPACE_MS = 100, /* a byte of white space is forgiven after */
};

_Static_assert(CARRY_HELD_MAX >= (int)LOOP_RECV_MAX, "what a socket may still bring fits");

static void tick(struct timer *t);
static void turn_end(struct turn_hook *h);

struct conn *conn_open(struct edge *e, struct transport *t, enum listener_kind kind)
{
    struct conn *c = calloc(1, sizeof *c);
    must(c);
    c->edge = e, c->transport = t, c->listener = kind;
    c->opened_ms = c->heard_ms = c->wrote_ms = loop_now_ms(e->node->loop);
    list_init(&c->link);
    list_push_back(&e->conns, &c->link);
    timer_init(&c->timer, tick);
    list_init(&c->hook.link);
    c->hook.fn = turn_end;
    t->sink = &conn_sink, t->owner = c;
    conn_place(c, false);
    c->handshaking = kind == LISTENER_C2S_TLS;
    c->negotiation = negotiation_new(c);
    e->conn_count++, e->preauth_count++;
    metric_add(e->node->metrics, METRIC_AT(connections, kind, 0), 1);
    metric_add(e->node->metrics, METRIC_connections_preauth, 1);
    metric_add(e->node->metrics, METRIC_AT(connections_opened, kind, 0), 1);
    loop_timer_set(e->node->loop, &c->timer, stream_deadline_ms(c));
    return c;
}

void conn_opened_at(struct conn *c, uint64_t ms)
{
    c->opened_ms = ms;
    loop_timer_set(c->edge->node->loop, &c->timer, stream_deadline_ms(c));
}

void conn_place(struct conn *c, bool elsewhere)
{
    c->elsewhere = elsewhere;
    c->exempt = conn_is_in(c, c->edge->node->conf->limits_exempt_from);
}

bool conn_is_in(const struct conn *c, struct conf_list nets)
{
    struct listen_peer peer = {.elsewhere = c->elsewhere};
    conn_address(c, &peer.address);
    return listen_peer_is_in(c->edge, &peer, nets);
}

struct conn *conn_find(struct edge *e, uint64_t number)
{
    struct hnode *n = htable_find(&e->negotiations, hash_u64(number)); /* a bijection */
    return n ? container_of(n, struct negotiation, by_number)->conn : NULL;
}

void conn_authenticated(struct conn *c)
{
    must(!c->authenticated);
    c->authenticated = true;
    c->edge->preauth_count--;
    metric_add(c->edge->node->metrics, METRIC_connections_preauth, -1);
}

void conn_address(const struct conn *c, struct sockaddr_storage *out)
{
    struct transport_info info;
    transport_info(c->transport, &info);
    *out = info.address;
}

uint16_t conn_tls_version(const struct conn *c)
{
    struct transport_info info;
    transport_info(c->transport, &info);
    return info.tls_version;
}

str conn_address_text(const struct conn *c, struct arena *a)
{
    struct sockaddr_storage s;
    char text[INET6_ADDRSTRLEN] = "";
    conn_address(c, &s);
    if (s.ss_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)&s;
        inet_ntop(AF_INET, &in->sin_addr, text, sizeof text);
        return arena_printf(a, "%s:%u", text, ntohs(in->sin_port));
    }
    if (s.ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const void *)&s;
        inet_ntop(AF_INET6, &in6->sin6_addr, text, sizeof text);
        return arena_printf(a, "[%s]:%u", text, ntohs(in6->sin6_port));
    }
    return STR("local");
}

/* ---- in ---- */

static const struct xml_limits *limits(const struct conn *c)
{
    return c->authenticated ? &c->edge->c2s : &c->edge->preauth;
}

struct carried {
    void *scan; /* saved state for the first item */
    uint32_t n, cap;
    char bytes[];
};

/* It is the caller's now, to be freed. */
static struct carried *carry_take(struct conn *c)
{
    struct carried *k = c->carried;
    if (k)
        c->edge->carried -= k->cap;
    c->carried = NULL;
    return k;
}

static void carried_free(struct carried *k)
{
    if (k)
        free(k->scan);
    free(k);
}

static void carry_free(struct conn *c) { carried_free(carry_take(c)); }

/* Behind the item that was incomplete when reading paused. */
static uint32_t carry_max(const struct conn *c)
{
    return limits(c)->bytes_max + (c->authenticated ? CARRY_HELD_MAX : CARRY_HELD_MAX_PREAUTH);
}

/* What is carried, with room for that many bytes in all. */
static struct carried *carry_reserve(struct conn *c, size_t need)
{
    struct carried *k = c->carried;
    if (k && k->cap >= need)
        return k;
    size_t cap = k && 2 * (size_t)k->cap > need ? 2 * (size_t)k->cap : need;
    k = realloc(k, sizeof *k + cap);
    must(k);
    if (!c->carried)
        k->scan = NULL, k->n = k->cap = 0;
    c->edge->carried += cap - k->cap;
    k->cap = (uint32_t)cap;
    return c->carried = k;
}

static void carry_append(struct conn *c, str bytes)
{
    struct carried *k = carry_reserve(c, (c->carried ? c->carried->n : 0) + bytes.n);
    memcpy(k->bytes + k->n, bytes.p, bytes.n);
    k->n += (uint32_t)bytes.n;
}

static bool is_reading(const struct conn *c) { return c->pauses == 0 && !c->ending; }

/* Of an item that begins in `in`, which is carried now or will be when this turn's feeding ends. */
static void scan_save(struct conn *c, const struct xml_scan *scan, size_t in)
{
    size_t n = xml_scan_save_size(scan);
    struct carried *k = carry_reserve(c, in);
    k->scan = malloc(n ? n : 1);
    must(k->scan);
    xml_scan_save(scan, k->scan);
}

static void scan_start(struct conn *c, struct xml_scan *scan)
{
    const struct xml_header *header = stream_header(c);
    struct carried *k = c->carried;
    if (!k || !k->scan)
        return xml_scan_begin(scan, limits(c), header);
    xml_scan_restore(scan, k->scan, limits(c), header);
    free(k->scan);
    k->scan = NULL;
}

/* White space between items is life; what comes too thick without an item between is a flood (RFC
 * 6120 4.6.1, 11.7), what comes now and then never adds up to one. */
static void whitespace(struct conn *c, size_t n)
{
    uint64_t forgiven = (loop_now_ms(c->edge->node->loop) - c->heard_ms) / WHITESPACE_MS;
    c->whitespace -= forgiven < c->whitespace ? (uint32_t)forgiven : c->whitespace;
    c->whitespace += (uint32_t)n;
    if (c->whitespace > limits(c)->whitespace_max)
        stream_bad(c, ERR_STREAM_WHITESPACE_FLOOD);
}

static bool is_xml(str first) { return first.p[0] == '<' || strchr(" \t\r\n", first.p[0]); }

/* White space before the declaration is let pass: it may be the line end of the element that ended
 * the stream before. */
static enum xml_expect expected(const struct conn *c)
{
    if (c->step != STEP_HEADER)
        return XML_EXPECT_ELEMENT;
    return c->declared ? XML_EXPECT_HEADER : XML_EXPECT_START;
}

/* Scans one item of in. The bytes it took; 0: more are needed, or the stream ended. */
static size_t feed_one(struct conn *c, str in)
{
    struct xml_scan *scan = c->edge->node->scan;
    enum xml_item what = XML_NONE;
    size_t used = 0;
    const struct xml_index *index = NULL;
    scan_start(c, scan);
    err e = xml_scan(scan, in, expected(c), &what, &used, &index);
    if (e == ERR_PARTIAL || (e == ERR_OK && what == XML_NONE)) {
        scan_save(c, scan, in.n);
        return 0;
    }
    if (e != ERR_OK && c->step == STEP_HEADER && !is_xml(in))
        return conn_lost(c, ERR_BAD), 0; /* HTTP, TLS on a plain port: no word (xmpp.md 10) */
    if (e != ERR_OK)
        return stream_bad(c, e), 0;
    if (what == XML_WHITESPACE)
        whitespace(c, used);
    else
        c->whitespace = 0, stream_item(c, what, str_from(in.p, used), index);
    return used;
}

/* Everything of in that can be had; the bytes taken. */
static size_t feed(struct conn *c, str in)
{
    size_t taken = 0;
    c->feeding = true;
    while (taken < in.n && is_reading(c)) {
        size_t n = feed_one(c, str_skip(in, taken));
        if (n == 0)
            break;
        taken += n;
    }
    c->feeding = false;
    return c->ending || c->upgrading ? in.n : taken; /* behind <starttls/>: RFC 6120 5.4.3.3 */
}

static void feed_carry(struct conn *c)
{
    size_t taken = feed(c, str_from(c->carried->bytes, c->carried->n));
    struct carried *k = c->carried;
    if (taken == k->n)
        return carry_free(c);
    memmove(k->bytes, k->bytes + taken, k->n - taken);
    k->n -= (uint32_t)taken;
}

struct rate_hold {
    struct timer timer;
    struct conn *conn;
};

static void rate_hold_free(struct conn *c)
{
    if (!c->rate_hold)
        return;
    loop_timer_stop(c->edge->node->loop, &c->rate_hold->timer);
    free(c->rate_hold);
    c->rate_hold = NULL;
}

static void rate_over(struct timer *t)
{
    struct conn *c = container_of(t, struct rate_hold, timer)->conn;
    rate_hold_free(c);
    conn_resume(c, PAUSE_RATE);
}

static struct rate_hold *rate_hold_new(struct conn *c)
{
    struct rate_hold *h = malloc(sizeof *h);
    must(h);
    timer_init(&h->timer, rate_over);
    h->conn = c;
    return h;
}

static void hold_for_rate(struct conn *c, uint64_t wait_ms)
{
    if (wait_ms == 0 || c->exempt)
        return;
    if (!(c->pauses & PAUSE_RATE))
        metric_add(c->edge->node->metrics, METRIC_limit_rate, 1);
    conn_pause(c, PAUSE_RATE);
    if (!c->rate_hold)
        c->rate_hold = rate_hold_new(c);
    loop_timer_set(c->edge->node->loop, &c->rate_hold->timer, wait_ms);
}

void conn_charge_stanza(struct conn *c)
{
    const struct conf *conf = c->edge->node->conf;
    hold_for_rate(c, bucket_charge(&c->stanza_rate, conf->limits_c2s_stanza_rate,
                                   conf->limits_c2s_stanza_burst, 1,
                                   loop_now_ms(c->edge->node->loop)));
}

static void on_bytes(struct transport *t, const char *p, size_t n)
{
    struct conn *c = t->owner;
    struct node *node = c->edge->node;
    const struct conf *conf = node->conf;
    uint64_t now = loop_now_ms(node->loop);
    c->bytes_in += n;
    metric_add(node->metrics, METRIC_AT(bytes_in, c->listener, 0), (int64_t)n);
    /* Before <proceed/> has left, nothing that comes can be TLS yet: it was injected in clear. */
    if (c->ending || (c->upgrading && c->flying == 0))
        return;
    str in = str_from(p, n);
    if (is_reading(c) && !c->carried) {
        size_t taken = feed(c, in);
        if (taken < n)
            carry_append(c, str_skip(in, taken));
    } else {
        carry_append(c, in);
        if (is_reading(c))
            feed_carry(c);
    }
    if (!is_reading(c) && c->carried && c->carried->n > carry_max(c))
        stream_bad(c, ERR_STREAM_POLICY_VIOLATION);
    c->heard_ms = now, c->pinged = false;
    if (!c->ending)
        hold_for_rate(c, bucket_charge(&c->byte_rate, conf->limits_c2s_byte_rate,
                                       conf->limits_c2s_byte_burst, n, now));
}

/* why: one bit. */
static void count_pause(struct conn *c, enum conn_pause why, int n)
{
    metric_add(c->edge->node->metrics, METRIC_AT(reads_paused, __builtin_ctz(why), 0), n);
}

void conn_pause(struct conn *c, enum conn_pause why)
{
    if (!c->stopped && !c->closing)
        transport_pause(c->transport), c->stopped = true;
    if (!(c->pauses & why))
        count_pause(c, why, 1);
    c->pauses |= why;
}

void conn_resume(struct conn *c, enum conn_pause why)
{
    if (!(c->pauses & why))
        return;
    c->pauses &= ~(unsigned)why;
    count_pause(c, why, -1);
    if (c->pauses == 0)
        conn_at_turn_end(c);
}

/* ---- out ---- */

static uint32_t unread_max(const struct conn *c)
{
    return c->authenticated ? UNREAD_MAX : UNREAD_MAX_PREAUTH;
}

void conn_put(struct conn *c, str xml)
{
    if (c->ending || xml.n == 0)
        return;
    output_put(&c->out, xml, &c->edge->short_outputs);
    if (c->out.bytes > unread_max(c))
        conn_pause(c, PAUSE_OUTPUT);
    conn_at_turn_end(c);
}

void conn_put_cstr(struct conn *c, const char *xml) { conn_put(c, str_of(xml)); }

void conn_at_turn_end(struct conn *c) { loop_at_turn_end(c->edge->node->loop, &c->hook); }

static void close_gracefully(struct conn *c)
{
    c->closing = true;
    if (c->session)
        c2s_lost(c->session, c->end_reason);
    output_close(&c->out, &c->edge->short_outputs);
    transport_close(c->transport, true);
}

static void flush(struct conn *c)
{
    if (c->flying || c->closing || c->handshaking)
        return;
    if (c->session && !c->ending)
        c2s_pump(c->session);
    if (output_is_empty(&c->out)) {
        if (c->ending)
            close_gracefully(c);
        return;
    }
    struct iovec iov[SEND_IOV_MAX];
    size_t n = output_iov(&c->out, iov, SEND_IOV_MAX);
    c->wrote_ms = loop_now_ms(c->edge->node->loop);
    c->flying = (uint32_t)transport_write(c->transport, iov, n);
    must(c->flying > 0);
    conn_set_stall_timer(c);
}

static void count_out(struct conn *c)
{
    metric_add(c->edge->node->metrics, METRIC_output_queue_bytes,
               (int64_t)c->out.bytes - c->counted_out);
    c->counted_out = c->out.bytes;
}

static void turn_end(struct turn_hook *h)
{
    struct conn *c = container_of(h, struct conn, hook);
    if (c->carried && is_reading(c) && !c->feeding)
        feed_carry(c);
    if (c->left && !(c->session && c->carried && c->pauses) && !c->ending)
        conn_lost(c, ERR_CLOSED);
    /* Only now: what waits would grow by a receive for each window that opens. */
    if (c->stopped && is_reading(c) && !c->closing)
        c->stopped = false, transport_resume(c->transport);
    if (c->session)
        c2s_turn_end(c->session);
    flush(c);
    count_out(c);
}

/* <proceed/> has left: from here on the bytes are TLS's, also those that came meanwhile. */
static void start_tls(struct conn *c)
{
    struct carried *early = carry_take(c);
    struct transport *low = c->transport;
    c->upgrading = false;
    c->handshaking = true;
    c->transport = tls_server_open(c->edge->node->tls, low, TLS_STARTTLS, stream_host(c));
    c->transport->sink = &conn_sink, c->transport->owner = c;
    stream_restart(c);
    conn_resume(c, PAUSE_TLS);
    loop_timer_set(c->edge->node->loop, &c->timer, stream_deadline_ms(c));
    if (early)
        low->sink->bytes(low, early->bytes, early->n);
    carried_free(early);
}

static void on_written(struct transport *t)
{
    struct conn *c = t->owner;
    uint32_t n = c->flying;
    c->flying = 0;
    c->bytes_out += n;
    c->wrote_ms = loop_now_ms(c->edge->node->loop);
    metric_add(c->edge->node->metrics, METRIC_AT(bytes_out, c->listener, 0), n);
    if (c->closing)
        return;
    uint32_t outs = output_taken(&c->out, n, &c->edge->short_outputs);
    if (c->session && outs)
        c2s_taken(c->session, outs);
    if (c->out.bytes <= unread_max(c))
        conn_resume(c, PAUSE_OUTPUT);
    if (c->upgrading && output_is_empty(&c->out))
        return start_tls(c);
    flush(c);
    count_out(c);
}

/* ---- time and end ---- */

static void tick(struct timer *t)
{
    struct conn *c = container_of(t, struct conn, timer);
    if (c->ending) {
        c->closing = true; /* also what is still being written is given up */
        return transport_close(c->transport, false);
    }
    uint64_t next = stream_tick(c);
    if (next && !c->ending)
        loop_timer_set(c->edge->node->loop, &c->timer, next);
}

void conn_set_stall_timer(struct conn *c)
{
    uint64_t stall = (uint64_t)c->edge->node->conf->limits_output_stall_timeout;
    uint64_t due = loop_now_ms(c->edge->node->loop) + stall;
    if (!timer_is_set(&c->timer) || c->timer.due_ms > due)
        loop_timer_set(c->edge->node->loop, &c->timer, stall);
}

void conn_end_extra(struct conn *c, err reason, str extra)
{
    if (c->ending)
        return;
    if (c->handshaking)
        return conn_lost(c, reason);
    c->end_reason = reason;
    stream_put_end(c, reason, extra);
    if (c->session && !c2s_is_draining(c->session))
        c2s_lost(c->session, reason);
    c->ending = true;
    if (!c->feeding)
        carry_free(c);
    rate_hold_free(c);
    loop_timer_set(c->edge->node->loop, &c->timer,
                   (uint64_t)c->edge->node->conf->limits_close_timeout);
    conn_at_turn_end(c);
}

void conn_end(struct conn *c, err reason) { conn_end_extra(c, reason, STR_NONE); }

void conn_lost(struct conn *c, err reason)
{
    if (!c->ending)
        c->end_reason = reason;
    if (c->session)
        c2s_lost(c->session, c->end_reason);
    c->ending = true;
    if (!c->closing)
        c->closing = true, transport_close(c->transport, false);
}

/* Nothing was written since the connection's begin or <proceed/>: that is when it began. */
static void count_handshake(struct conn *c)
{
    struct node *n = c->edge->node;
    struct transport_info info;
    transport_info(c->transport, &info);
    unsigned label = (info.tls_version >= 0x0304) * 2u + info.resumed;
    metric_add(n->metrics, METRIC_AT(tls_handshakes, c->listener, label), 1);
    metric_observe(n->metrics, HISTOGRAM_AT(tls_handshake, c->listener),
                   (loop_now_ms(n->loop) - c->wrote_ms) * 1000);
}

static void on_opened(struct transport *t)
{
    struct conn *c = t->owner;
    count_handshake(c);
    c->secured = true, c->handshaking = false;
    conn_at_turn_end(c);
    c->heard_ms = loop_now_ms(c->edge->node->loop);
}

/* What a session's client sent before it left is not lost in the carry while that waits for a pause
 * to end (turn_end): who says what it has to say, `</stream:stream>`, and leaves, does no wrong. */
static void on_ended(struct transport *t)
{
    struct conn *c = t->owner;
    c->left = true;
    if (c->session && c->carried)
        conn_at_turn_end(c);
    else if (!c->ending)
        conn_lost(c, ERR_CLOSED);
}

static void log_closed(struct conn *c, err reason)
{
    struct node *n = c->edge->node;
    struct sockaddr_storage address;
    conn_address(c, &address);
    str listener = listen_name(c->listener);
    str why = str_of(err_row(c->end_reason ? c->end_reason : reason)->name);
    uint64_t ms = loop_now_ms(n->loop) - c->opened_ms;
    if (reason == ERR_TLS)
        LOG(n->log, tls_failed, F_STR("listener", listener), F_ADDR("address", &address),
            F_STR("reason", str_of(tls_failure(c->transport))), F_INT("version", 0));
    LOG_AT(n->log, c->authenticated ? LOG_DEBUG : LOG_INFO, conn_closed,
           F_STR("listener", listener), F_ADDR("address", &address), F_STR("reason", why),
           F_INT("bytes_in", c->bytes_in), F_INT("bytes_out", c->bytes_out), F_INT("ms", ms));
}

static void count_closed(struct conn *c, err reason)
{
    struct metric_page *m = c->edge->node->metrics;
    err why = c->end_reason ? c->end_reason : reason;
    metric_add(m, METRIC_AT(connections, c->listener, 0), -1);
    metric_add(m, METRIC_AT(connections_closed, c->listener, METRIC_ERR(CLOSE, why)), 1);
    if (reason == ERR_TLS || c->handshaking)
        metric_add(m, METRIC_AT(tls_handshake_failures, c->listener, METRIC_ERR(LOCAL, reason)), 1);
    for (unsigned left = c->pauses; left; left &= left - 1)
        count_pause(c, (enum conn_pause)(left & -left), -1);
    metric_add(m, METRIC_output_queue_bytes, -(int64_t)c->counted_out);
}

static void on_closed(struct transport *t, err reason)
{
    struct conn *c = t->owner;
    struct edge *e = c->edge;
    struct loop *loop = e->node->loop;
    if (c->session && !c->ending)
        c->end_reason = reason == ERR_OK ? ERR_CLOSED : reason;
    if (c->session)
        c2s_lost(c->session, c->end_reason);
    log_closed(c, reason);
    count_closed(c, reason);
    loop_timer_stop(loop, &c->timer);
    rate_hold_free(c);
    list_remove(&c->hook.link);
    list_remove(&c->link);
    negotiation_free(c->negotiation);
    stream_header_unref(e, c->header);
    if (c->address)
        c->address->live--;
    carry_free(c);
    output_close(&c->out, &c->edge->short_outputs);
    transport_free(t);
    e->conn_count--;
    if (!c->authenticated) {
        e->preauth_count--;
        metric_add(e->node->metrics, METRIC_connections_preauth, -1);
    }
    free(c);
    edge_check_stopped(e);
}

const struct transport_sink conn_sink = {on_opened, on_bytes, on_written, on_ended, on_closed};
