/* line: see line.h.
 *
 *     transport's bytes ─► carry (the beginning of an envelope) ─► sink->envelope
 *     line_send ─► chunks of 16 KiB ─► at the turn's end one write ─► written ─► the next
 *
 * A chunk is as long as a TLS record holds, so that TLS seals it where it lies. The carry grows
 * with the bytes that came, never to the length that a head announces. */
#include "cluster/line.h"

#include <stdlib.h>

#include "pemberley/buf.h"

enum { CHUNK = 16384, WRITE_CHUNKS = 16, CARRY_MIN = 64 };

struct chunk {
    struct list link;
    uint32_t from, to; /* of data: not yet taken by the socket */
    char data[CHUNK];
};

struct line {
    const struct line_sink *sink;
    void *owner;
    struct loop *loop;
    struct transport *t;
    size_t frame_max;
    struct buf *carry;
    struct list out; /* chunks */
    size_t queued, flying;
    struct turn_hook hook;
    uint64_t heard_ms, bytes_in, bytes_out;
    unsigned busy; /* depth of our calls into the owner or the transport: ended() waits for 0 */
    err reason;
    bool open, finishing, closing, dropped, closed;
};

/* ---- the end ---- */

static void enter(struct line *l) { l->busy++; }

static void line_free(struct line *l)
{
    list_each(c, &l->out, struct chunk, link)
        free(c);
    list_remove(&l->hook.link);
    buf_unref(l->carry);
    transport_free(l->t);
    free(l);
}

/* The last thing that touches l. */
static void leave(struct line *l)
{
    if (--l->busy > 0 || !l->closed)
        return;
    l->sink->ended(l, l->reason ? l->reason : ERR_CLOSED);
    line_free(l);
}

static bool reads(const struct line *l) { return !l->finishing && !l->dropped && !l->closed; }

void line_drop(struct line *l, err reason)
{
    if (l->dropped || l->closed)
        return;
    enter(l);
    l->dropped = true;
    if (!l->reason)
        l->reason = reason;
    transport_close(l->t, false);
    leave(l);
}

static void close_if_drained(struct line *l)
{
    if (!l->finishing || l->closing || l->dropped || l->closed || l->queued)
        return;
    l->closing = true;
    transport_close(l->t, true);
}

void line_finish(struct line *l)
{
    enter(l);
    l->finishing = true;
    if (!l->open)
        line_drop(l, ERR_CLOSED); /* half a handshake has nothing to say */
    close_if_drained(l);
    leave(l);
}

/* ---- out ---- */

static void put(struct line *l, const char *p, size_t n)
{
    l->queued += n;
    while (n > 0) {
        struct chunk *c = list_entry(l->out.prev, struct chunk, link);
        if (list_empty(&l->out) || c->to == CHUNK) {
            must((c = malloc(sizeof *c)));
            c->from = c->to = 0;
            list_push_back(&l->out, &c->link);
        }
        size_t k = n < CHUNK - c->to ? n : CHUNK - c->to;
        memcpy(c->data + c->to, p, k);
        c->to += (uint32_t)k;
        p += k, n -= k;
    }
}

void line_send(struct line *l, enum envelope_kind kind, const struct envelope_address *address,
               const struct iovec *iov, size_t n)
{
    char head[ENVELOPE_HEAD_MAX];
    size_t body = 0;
    if (!reads(l))
        return;
    for (size_t i = 0; i < n; i++)
        body += iov[i].iov_len;
    put(l, head, envelope_head(kind, address, body, head));
    for (size_t i = 0; i < n; i++)
        put(l, iov[i].iov_base, iov[i].iov_len);
    loop_at_turn_end(l->loop, &l->hook);
}

static void flush(struct line *l)
{
    struct iovec v[WRITE_CHUNKS];
    size_t n = 0;
    if (!l->open || l->flying || l->closing || l->dropped || l->closed)
        return;
    list_each(c, &l->out, struct chunk, link) {
        if (n == WRITE_CHUNKS)
            break;
        v[n++] = (struct iovec){c->data + c->from, c->to - c->from};
    }
    if (!n)
        return;
    enter(l);
    l->flying = transport_write(l->t, v, n);
    leave(l);
}

static void on_turn_end(struct turn_hook *h) { flush(container_of(h, struct line, hook)); }

static void forget_written(struct line *l)
{
    size_t n = l->flying;
    l->queued -= n, l->bytes_out += n, l->flying = 0;
    while (n > 0) {
        struct chunk *c = list_first(&l->out, struct chunk, link);
        size_t k = n < c->to - c->from ? n : c->to - c->from;
        c->from += (uint32_t)k, n -= k;
        if (c->from == c->to) {
            list_remove(&c->link);
            free(c);
        }
    }
}

static void on_written(struct transport *t)
{
    struct line *l = t->owner;
    enter(l);
    forget_written(l);
    if (reads(l))
        l->sink->drained(l);
    if (l->queued && !l->dropped && !l->closed)
        loop_at_turn_end(l->loop, &l->hook);
    close_if_drained(l);
    leave(l);
}

/* ---- in ---- */

static void carry_append(struct line *l, str *in, size_t n)
{
    size_t have = l->carry ? l->carry->len : 0, max = ENVELOPE_HEAD_MAX + l->frame_max;
    if (max < ENVELOPE_HEAD + ENVELOPE_BODY_MAX)
        max = ENVELOPE_HEAD + ENVELOPE_BODY_MAX;
    if (!l->carry || l->carry->cap - have < n) {
        size_t cap = 2 * (have + n);
        cap = cap < CARRY_MIN ? CARRY_MIN : cap > max ? max : cap;
        struct buf *b = buf_new((uint32_t)cap);
        if (have)
            memcpy(b->data, l->carry->data, have);
        b->len = (uint32_t)have;
        buf_unref(l->carry);
        l->carry = b;
    }
    memcpy(l->carry->data + have, in->p, n);
    l->carry->len += (uint32_t)n;
    *in = str_skip(*in, n);
}

/* Completes the carried envelope from *in. */
static err carry_fill(struct line *l, str *in)
{
    struct envelope e;
    size_t size;
    for (;;) {
        err r = envelope_read(str_from(l->carry->data, l->carry->len), l->frame_max, &e, &size);
        if (r == ERR_OK)
            break;
        size_t missing = size - l->carry->len, n = missing < in->n ? missing : in->n;
        if (r != ERR_PARTIAL || !n)
            return r == ERR_PARTIAL ? ERR_OK : r;
        carry_append(l, in, n);
    }
    struct buf *whole = l->carry;
    l->carry = NULL;
    l->sink->envelope(l, &e);
    buf_unref(whole);
    return ERR_OK;
}

static err take(struct line *l, str in)
{
    struct envelope e;
    size_t size;
    while (in.n && reads(l)) {
        if (l->carry) {
            err r = carry_fill(l, &in);
            if (r)
                return r;
            continue;
        }
        err r = envelope_read(in, l->frame_max, &e, &size);
        if (r == ERR_PARTIAL) {
            carry_append(l, &in, in.n);
        } else if (r) {
            return r;
        } else {
            in = str_skip(in, size);
            l->sink->envelope(l, &e);
        }
    }
    return ERR_OK;
}

static void on_bytes(struct transport *t, const char *p, size_t n)
{
    struct line *l = t->owner;
    enter(l);
    l->heard_ms = loop_now_ms(l->loop);
    l->bytes_in += n;
    if (take(l, (str){p, n}) != ERR_OK)
        line_drop(l, ERR_BAD);
    leave(l);
}

static void on_opened(struct transport *t)
{
    struct line *l = t->owner;
    enter(l);
    l->open = true;
    l->heard_ms = loop_now_ms(l->loop);
    if (reads(l))
        l->sink->opened(l);
    leave(l);
}

/* A rail that is half closed is of no use. */
static void on_ended(struct transport *t) { line_drop(t->owner, ERR_CLOSED); }

static void on_closed(struct transport *t, err reason)
{
    struct line *l = t->owner;
    enter(l);
    l->closed = true;
    if (!l->reason)
        l->reason = reason;
    leave(l);
}

static const struct transport_sink sink = {on_opened, on_bytes, on_written, on_ended, on_closed};

/* ---- life ---- */

struct line *line_new(struct loop *loop, struct transport *t, size_t frame_max,
                      const struct line_sink *line_sink, void *owner)
{
    struct transport_info info;
    struct line *l = calloc(1, sizeof *l);
    must(l);
    l->sink = line_sink, l->owner = owner, l->loop = loop, l->t = t, l->frame_max = frame_max;
    list_init(&l->out);
    list_init(&l->hook.link);
    l->hook.fn = on_turn_end;
    l->heard_ms = loop_now_ms(loop);
    t->sink = &sink, t->owner = l;
    transport_info(t, &info);
    l->open = !info.tls;
    return l;
}

void *line_owner(const struct line *l) { return l->owner; }
bool line_is_open(const struct line *l) { return l->open; }
const struct transport *line_transport(const struct line *l) { return l->t; }
size_t line_queued(const struct line *l) { return l->queued; }
uint64_t line_heard_ms(const struct line *l) { return l->heard_ms; }
uint64_t line_bytes_in(const struct line *l) { return l->bytes_in; }
uint64_t line_bytes_out(const struct line *l) { return l->bytes_out; }
