/* conn: TLS as a transport on top of another one.
 *
 *     low's bytes ─► gate (whole records; carry) ─► BIO ─► SSL_read ─► t->plain ─► sink->bytes
 *     write ─► SSL_write ─► BIO ─► out ─► flying ─► low's write … written ─► sink->written
 *
 * The library reads from what is being fed and from nothing else, and its writes always fit (out
 * grows; the bound is one record of the owner and the flights of a handshake), so WANT_WRITE does
 * not exist. Every feed is drained to its end: what stayed inside the library would wake nobody.
 *
 * State: HANDSHAKE -> OPEN -> (FAILED ->) GONE. FAILED waits only for its alert to be written; the
 * owner's timers bound that, as they bound the handshake. Whatever the owner does from inside a
 * callback happens at once, but closed() waits until we have returned (busy), because the owner
 * frees us there. Life: made by the owner, freed by the owner after closed(); frees low. */
#include <openssl/err.h>
#include <openssl/pool.h>

#include "node/tls/gate.h"
#include "node/tls/inside.h"

enum {
    /* All records before the handshake is done: a hello twice, and a client's own certificates,
     * which we do not ask for. A server's flight may be a long chain. */
    HANDSHAKE_IN_SERVER = 32 << 10,
    HANDSHAKE_IN_CLIENT = 128 << 10,
    CARRY_MIN = 64,
    SEAL_OVERHEAD = 64, /* header, tag, content type; nonce of TLS 1.2 */
};
_Static_assert(TLS_RECV_MAX >= LOOP_RECV_MAX + TLS_RECORD_PLAIN_MAX, "a record and a turn's input");

static bool reads(const struct tls_conn *c) { return c->state < CONN_FAILED && !c->peer_ended; }

/* --- the end --- */

static void enter(struct tls_conn *c) { c->busy++; }

/* The last thing that touches c: closed() may free it. */
static void leave(struct tls_conn *c)
{
    if (--c->busy > 0 || !c->low_closed || c->told)
        return;
    c->told = true;
    c->t.sink->closed(&c->t, c->reason ? (err)c->reason : (err)c->low_reason);
}

static void go(struct tls_conn *c)
{
    if (c->state == CONN_GONE)
        return;
    tls_line_leave(c);
    c->state = CONN_GONE;
    if (!c->low_closed)
        transport_close(c->low, false);
}

void tls_conn_flush(struct tls_conn *c)
{
    if (c->flying || !c->out || c->low_closing || c->state == CONN_GONE)
        return;
    c->flying = c->out, c->out = NULL;
    c->user_flying = c->user_queued, c->user_queued = false;
    struct iovec v = {c->flying->data, c->flying->len};
    must(transport_write(c->low, &v, 1) == v.iov_len);
}

/* Nothing more is read. What the library has to say (an alert) goes out first. */
static void fail(struct tls_conn *c, err reason, const char *why)
{
    if (c->state >= CONN_FAILED)
        return;
    tls_line_leave(c);
    c->state = CONN_FAILED;
    c->reason = (uint8_t)reason, c->why = why;
    tls_conn_flush(c);
    if (!c->flying)
        go(c);
}

static void fail_library(struct tls_conn *c)
{
    const char *why = c->why ? c->why : ERR_reason_error_string(ERR_peek_error());

    if (c->bus && c->peer->why)
        why = c->peer->why;
    ERR_clear_error();
    fail(c, ERR_TLS, why ? why : "unknown");
}

/* --- the library's side: its BIO --- */

static int bio_read(BIO *b, char *out, int n)
{
    struct tls *t = BIO_get_data(b);
    struct tls_conn *c = t->calling;

    BIO_clear_retry_flags(b);
    if (t->feeding != c || t->in_n == 0) {
        BIO_set_retry_read(b);
        return -1;
    }
    size_t take = (size_t)n < t->in_n ? (size_t)n : t->in_n;
    memcpy(out, t->in, take);
    t->in += take, t->in_n -= take;
    return (int)take;
}

static void out_reserve(struct tls_conn *c, size_t n)
{
    size_t have = c->out ? c->out->len : 0;

    if (c->out && c->out->cap - have >= n)
        return;
    struct buf *b = tls_buf_get(c->tls, have + n);
    if (have)
        memcpy(b->data, c->out->data, have);
    b->len = (uint32_t)have;
    tls_buf_put(c->tls, c->out);
    c->out = b;
}

static int bio_write(BIO *b, const char *p, int n)
{
    struct tls_conn *c = ((struct tls *)BIO_get_data(b))->calling;

    out_reserve(c, (size_t)n);
    memcpy(c->out->data + c->out->len, p, (size_t)n);
    c->out->len += (uint32_t)n;
    return n;
}

static long bio_ctrl(BIO *b, int what, long n, void *p) { return what == BIO_CTRL_FLUSH; }

static int bio_create(BIO *b)
{
    BIO_set_init(b, 1);
    return 1;
}

static const BIO_METHOD bio_method = {
    .type = 0,
    .name = "pemberley",
    .bwrite = bio_write,
    .bread = bio_read,
    .ctrl = bio_ctrl,
    .create = bio_create,
};

BIO *tls_bio_new(struct tls *t)
{
    BIO *b = BIO_new(&bio_method);

    must(b);
    BIO_set_data(b, t);
    return b;
}

SSL *tls_conn_calls(struct tls_conn *c)
{
    c->tls->calling = c;
    return c->ssl;
}

/* Through the BIO, not SSL_set_ex_data, which allocates an array per connection. */
struct tls_conn *tls_conn_of(const SSL *ssl)
{
    struct tls *t = BIO_get_data(SSL_get_rbio(ssl));

    must(t->calling->ssl == ssl);
    return t->calling;
}

void tls_conn_start(struct tls_conn *c)
{
    BIO *b = c->tls->bio;

    c->ssl = SSL_new(c->bus ? c->peer->bus->ctx : c->client ? c->tls->client : c->tls->server);
    must(c->ssl);
    BIO_up_ref(b);
    SSL_set_bio(c->ssl, b, b);
    SSL_set_shed_handshake_config(c->ssl, 1); /* 0.7 KB per idle connection */
}

/* --- in --- */

static void deliver(struct tls_conn *c, size_t n)
{
    if (n > 0 && c->state == CONN_OPEN)
        c->t.sink->bytes(&c->t, c->tls->plain, n);
}

static void end_of_peer(struct tls_conn *c)
{
    if (c->peer_ended || c->state != CONN_OPEN)
        return;
    c->peer_ended = true;
    c->t.sink->ended(&c->t);
}

/* What the library said last is asked before the owner, in bytes(), makes it say something else. */
static void drained(struct tls_conn *c, size_t have, int e)
{
    const char *why = e == SSL_ERROR_SSL ? ERR_reason_error_string(ERR_peek_error()) : NULL;

    deliver(c, have);
    if (e == SSL_ERROR_ZERO_RETURN)
        end_of_peer(c);
    else if (e != SSL_ERROR_WANT_READ)
        fail(c, ERR_TLS, why ? why : "unknown");
}

/* One SSL_read gives at most one record; several are brought together, so that the owner parses a
 * burst as one piece. */
static void drain(struct tls_conn *c)
{
    struct tls *t = c->tls;
    size_t have = 0;

    while (reads(c)) {
        int n = SSL_read(tls_conn_calls(c), t->plain + have, (int)(TLS_SCRATCH - have));
        if (n <= 0) {
            drained(c, have, SSL_get_error(c->ssl, n));
            return;
        }
        have += (size_t)n;
        if (TLS_SCRATCH - have < TLS_RECORD_PLAIN_MAX) {
            deliver(c, have);
            have = 0;
        }
    }
}

/* A session that was opened holds no certificates any more: the old generation may go. */
static void handshake_done(struct tls_conn *c)
{
    c->state = CONN_OPEN;
    tls_certs_unref(c->certs);
    c->certs = NULL;
    tls_conn_flush(c);
    c->t.sink->opened(&c->t);
}

static void handshake(struct tls_conn *c)
{
    struct tls *t = c->tls;
    size_t before = t->in_n;
    SSL *ssl = tls_conn_calls(c);
    int r = c->client ? SSL_connect(ssl) : SSL_accept(ssl);

    c->handshake_in += (uint32_t)(before - t->in_n); /* data may lie behind the last record */
    if (r == 1)
        handshake_done(c);
    else if (SSL_get_error(c->ssl, r) != SSL_ERROR_WANT_READ)
        fail_library(c);
    else if (c->handshake_in > (c->client ? HANDSHAKE_IN_CLIENT : HANDSHAKE_IN_SERVER))
        fail(c, ERR_TLS, "handshake_too_long");
    else if (!c->client)
        c->called = !SSL_used_hello_retry_request(c->ssl);
}

/* Whole records only. Nothing of them is left when it returns, unless nothing more is read. */
static void feed(struct tls_conn *c, const unsigned char *p, size_t n)
{
    struct tls *t = c->tls;

    if (!c->ssl)
        tls_conn_start(c);
    must(!t->feeding);
    t->feeding = c, t->in = p, t->in_n = n;
    if (c->state == CONN_HANDSHAKE)
        handshake(c);
    if (c->state == CONN_OPEN)
        drain(c);
    t->feeding = NULL;
    tls_conn_flush(c);
}

static enum gate_stage stage(const struct tls_conn *c)
{
    return c->client || c->hello_seen ? GATE_OPEN : GATE_FIRST;
}

/* As many bytes as came, and never more than twice that: what a header announces costs nothing. */
static void carry_append(struct tls_conn *c, const unsigned char *p, size_t n)
{
    size_t have = c->carry ? c->carry->len : 0;

    if (!c->carry || c->carry->cap - have < n) {
        size_t cap = 2 * (have + n);
        cap = cap < CARRY_MIN ? CARRY_MIN : cap > GATE_RECORD_MAX ? GATE_RECORD_MAX : cap;
        struct buf *b = buf_new((uint32_t)cap);
        if (have)
            memcpy(b->data, c->carry->data, have);
        b->len = (uint32_t)have;
        buf_unref(c->carry);
        c->carry = b;
    }
    memcpy(c->carry->data + have, p, n);
    c->carry->len += (uint32_t)n;
}

/* Completes the carried record from p and feeds it. Returns the bytes taken. */
static size_t carry_fill(struct tls_conn *c, const unsigned char *p, size_t n)
{
    size_t used = 0, missing = 0;

    for (;;) {
        const unsigned char *record = (const unsigned char *)c->carry->data;
        const char *bad = gate_missing(record, c->carry->len, stage(c), &missing);
        if (bad) {
            fail(c, ERR_TLS, bad);
            return n;
        }
        size_t take = missing < n - used ? missing : n - used;
        if (take == 0)
            break;
        carry_append(c, p + used, take);
        used += take;
    }
    if (missing == 0 && !tls_line_holds(c)) {
        struct buf *whole = c->carry;
        c->carry = NULL, c->hello_seen = true;
        feed(c, (const unsigned char *)whole->data, whole->len);
        buf_unref(whole);
    }
    return used;
}

/* What comes behind a hello that waits in line: no client has much to say before it is answered. */
static void hold(struct tls_conn *c, const unsigned char *p, size_t n)
{
    if ((c->carry ? c->carry->len : 0) + n > GATE_RECORD_MAX)
        fail(c, ERR_TLS, "handshake_too_long");
    else
        carry_append(c, p, n);
}

static void take(struct tls_conn *c, const unsigned char *p, size_t n)
{
    while (n > 0 && c->carry && !c->line && reads(c)) {
        size_t used = carry_fill(c, p, n);
        p += used, n -= used;
    }
    if (n == 0 || !reads(c))
        return;
    size_t whole = 0;
    const char *bad = c->line ? NULL : gate_run(p, n, stage(c), &whole);
    if (c->line || (whole > 0 && tls_line_holds(c))) {
        hold(c, p, n);
        return;
    }
    if (whole > 0) {
        c->hello_seen = true;
        feed(c, p, whole);
    }
    if (!reads(c))
        return;
    if (bad)
        fail(c, ERR_TLS, bad);
    else if (n > whole)
        carry_append(c, p + whole, n - whole);
}

void tls_conn_called(struct tls_conn *c)
{
    struct buf *held = c->carry;

    c->carry = NULL;
    enter(c);
    take(c, (const unsigned char *)held->data, held->len);
    leave(c);
    buf_unref(held);
}

static void on_low_bytes(struct transport *low, const char *p, size_t n)
{
    struct tls_conn *c = low->owner;

    enter(c);
    take(c, (const unsigned char *)p, n);
    leave(c);
}

static void on_low_ended(struct transport *low)
{
    struct tls_conn *c = low->owner;

    enter(c);
    if (c->state == CONN_HANDSHAKE)
        fail(c, ERR_CLOSED, "closed_in_handshake");
    else
        end_of_peer(c);
    leave(c);
}

/* --- out and close --- */

/* After close(graceful), when nothing is in flight: close_notify, then low's own end. */
static void close_on(struct tls_conn *c)
{
    if (!c->closing || c->state >= CONN_FAILED)
        return;
    if (c->state == CONN_OPEN && !c->notified && !c->flying) {
        c->notified = true;
        SSL_shutdown(tls_conn_calls(c));
        tls_conn_flush(c);
    }
    if (!c->flying && !c->low_closing) {
        c->low_closing = true;
        transport_close(c->low, true);
    }
}

static void on_low_written(struct transport *low)
{
    struct tls_conn *c = low->owner;
    bool user = c->user_flying;

    must(c->flying);
    enter(c);
    tls_buf_put(c->tls, c->flying);
    c->flying = NULL, c->user_flying = false;
    if (user && c->state == CONN_OPEN)
        c->t.sink->written(&c->t); /* before the flush: what it writes goes with the rest */
    tls_conn_flush(c);
    if (c->state == CONN_FAILED && !c->flying)
        go(c);
    close_on(c);
    leave(c);
}

static void on_low_closed(struct transport *low, err reason)
{
    struct tls_conn *c = low->owner;

    enter(c);
    tls_line_leave(c);
    c->low_closed = true, c->low_reason = (uint8_t)reason;
    c->state = CONN_GONE;
    leave(c);
}

static void on_low_opened(struct transport *low) {} /* low is TLS: its own handshake */

static const struct transport_sink low_sink = {
    .opened = on_low_opened,
    .bytes = on_low_bytes,
    .written = on_low_written,
    .ended = on_low_ended,
    .closed = on_low_closed,
};

/* One piece of plaintext, at most a record: the first slice in place, or several in t->linear. */
static str gather(struct tls *t, const struct iovec *iov, size_t n)
{
    size_t have = 0;

    if (n == 1 || iov[0].iov_len >= TLS_RECORD_PLAIN_MAX) {
        have = iov[0].iov_len < TLS_RECORD_PLAIN_MAX ? iov[0].iov_len : TLS_RECORD_PLAIN_MAX;
        return str_from(iov[0].iov_base, have);
    }
    for (size_t i = 0; i < n && have < sizeof t->linear; i++) {
        size_t room = sizeof t->linear - have;
        size_t k = iov[i].iov_len < room ? iov[i].iov_len : room;
        if (k)
            memcpy(t->linear + have, iov[i].iov_base, k);
        have += k;
    }
    return (str){t->linear, have};
}

static size_t conn_write(struct transport *transport, const struct iovec *iov, size_t n)
{
    struct tls_conn *c = (struct tls_conn *)transport;

    must(c->state != CONN_HANDSHAKE && !c->closing && !c->user_queued && !c->user_flying && n > 0);
    str plain = gather(c->tls, iov, n);
    must(plain.n > 0);
    if (c->state != CONN_OPEN) /* the owner was not told yet: closed() follows, not written() */
        return plain.n;
    enter(c);
    out_reserve(c, plain.n + SEAL_OVERHEAD);
    if (SSL_write(tls_conn_calls(c), plain.p, (int)plain.n) == (int)plain.n)
        c->user_queued = true;
    else
        fail_library(c);
    tls_conn_flush(c);
    leave(c);
    return plain.n;
}

static void conn_pause(struct transport *t)
{
    struct tls_conn *c = (struct tls_conn *)t;

    if (c->state < CONN_FAILED)
        transport_pause(c->low);
}

static void conn_resume(struct transport *t)
{
    struct tls_conn *c = (struct tls_conn *)t;

    if (c->state < CONN_FAILED)
        transport_resume(c->low);
}

static void conn_close(struct transport *t, bool graceful)
{
    struct tls_conn *c = (struct tls_conn *)t;

    if (c->state == CONN_GONE || (c->state == CONN_FAILED && graceful))
        return;
    enter(c);
    c->closing = true;
    if (graceful && c->state == CONN_OPEN)
        close_on(c);
    else
        go(c); /* half a handshake has nothing to say */
    leave(c);
}

static void conn_free(struct transport *t)
{
    struct tls_conn *c = (struct tls_conn *)t;

    must(c->told && !c->busy && !c->line);
    SSL_free(c->ssl); /* first: a handshake's certificates are views of certs' pages */
    buf_unref(c->carry);
    tls_buf_put(c->tls, c->out);
    tls_buf_put(c->tls, c->flying);
    tls_certs_unref(c->certs);
    if (c->bus)
        bus_peer_free(c->peer);
    else if (c->client)
        SSL_SESSION_free(c->session);
    else
        identity_unref(c->identity);
    transport_free(c->low);
    free(c);
}

/* --- asking --- */

static void conn_info(const struct transport *t, struct transport_info *out)
{
    const struct tls_conn *c = (const struct tls_conn *)t;
    const uint8_t *alpn = NULL;
    unsigned alpn_n = 0;

    transport_info(c->low, out);
    out->tls = true;
    out->failure = str_of(tls_failure(t));
    if (c->bus && c->state == CONN_OPEN)
        out->peer = str_of(c->peer->name.node);
    if (c->named && !c->client && c->identity)
        out->sni = (str){c->identity->name, c->identity->name_n};
    if (!c->ssl || c->state == CONN_HANDSHAKE)
        return;
    out->tls_version = (uint16_t)SSL_version(c->ssl);
    out->resumed = SSL_session_reused(c->ssl);
    SSL_get0_alpn_selected(c->ssl, &alpn, &alpn_n);
    out->alpn = str_from(alpn, alpn_n);
}

/* RFC 9266: where two handshakes cannot share a master secret, that is TLS 1.3, or 1.2 with the
 * extended master secret (RFC 7627), always without renegotiation. */
static err exporter(const struct tls_conn *c, unsigned char out[64], size_t *n)
{
    static const char label[] = "EXPORTER-Channel-Binding";

    if (SSL_version(c->ssl) < TLS1_3_VERSION && !SSL_get_extms_support(c->ssl))
        return ERR_NOT_FOUND;
    *n = 32;
    if (!SSL_export_keying_material(c->ssl, out, *n, label, sizeof label - 1, NULL, 0, 1))
        return ERR_NOT_FOUND;
    return ERR_OK;
}

static err end_point(const struct tls_conn *c, unsigned char out[64], size_t *n)
{
    if (c->client) {
        const STACK_OF(CRYPTO_BUFFER) *chain = SSL_get0_peer_certificates(c->ssl);
        if (!chain || sk_CRYPTO_BUFFER_num(chain) == 0)
            return ERR_NOT_FOUND;
        const CRYPTO_BUFFER *leaf = sk_CRYPTO_BUFFER_value(chain, 0);
        *n = binding_end_point(str_from(CRYPTO_BUFFER_data(leaf), CRYPTO_BUFFER_len(leaf)), out);
    } else if (c->bus) {
        return ERR_NOT_FOUND;
    } else {
        *n = c->identity->binding_n;
        memcpy(out, c->identity->binding, *n);
    }
    return *n ? ERR_OK : ERR_NOT_FOUND;
}

static err conn_channel_binding(const struct transport *t, enum channel_binding kind,
                                unsigned char out[64], size_t *n)
{
    const struct tls_conn *c = (const struct tls_conn *)t;

    if (c->state != CONN_OPEN)
        return ERR_NOT_FOUND;
    return kind == CB_TLS_EXPORTER ? exporter(c, out, n) : end_point(c, out, n);
}

static const struct transport_impl conn_impl = {
    .write = conn_write,
    .pause = conn_pause,
    .resume = conn_resume,
    .close = conn_close,
    .free = conn_free,
    .info = conn_info,
    .channel_binding = conn_channel_binding,
};

const char *tls_failure(const struct transport *t)
{
    const char *why = ((const struct tls_conn *)t)->why;

    return why ? why : "";
}

/* --- opening --- */

struct tls_conn *tls_conn_new(struct tls *t, struct transport *low)
{
    struct tls_conn *c = calloc(1, sizeof *c);

    must(c);
    _Static_assert(sizeof *c <= 120, "what an idle connection costs beside the library's 2.8 KB");
    c->t.impl = &conn_impl;
    c->tls = t, c->low = low;
    low->sink = &low_sink, low->owner = c;
    return c;
}

struct transport *tls_server_open(struct tls *t, struct transport *low, enum tls_use use,
                                  str starttls_host)
{
    struct tls_conn *c = tls_conn_new(t, low);

    c->use = use;
    if (t->certs) {
        c->certs = tls_certs_ref(t->certs);
        long row = tls_certs_find(c->certs, starttls_host);
        c->fallback_row = (uint32_t)(row >= 0 ? row : tls_certs_default(c->certs));
    }
    return &c->t;
}
