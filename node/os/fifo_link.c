/* fifo_link: frames over a pair of lanes (fifo_link.h). A frame longer than a fragment goes as
 * several, so that a lane of 64 KiB carries frames of any size. What does not fit lies, encoded, in
 * the outbox, and everything after it too: order is kept. */
#include <stdlib.h>

#include "node/os/fifo_link.h"

void fifo_link_init(struct fifo_link *l, size_t frame_max, size_t outbox_max)
{
    *l = (struct fifo_link){.frame_max = frame_max, .outbox_max = outbox_max};
}

void fifo_link_close(struct fifo_link *l)
{
    free(l->outbox);
    free(l->partial);
    l->outbox = l->partial = NULL;
    l->outbox_at = l->outbox_n = l->outbox_cap = l->partial_n = l->partial_cap = 0;
}

/* ---- out ------------------------------------------------------------------------------------- */

/* Reads along an iovec, piece by piece. */
struct cursor {
    const struct iovec *iov;
    size_t at;
};

static str cursor_take(struct cursor *c, size_t max)
{
    while (c->at == c->iov->iov_len)
        c->iov++, c->at = 0;
    str piece = {(const char *)c->iov->iov_base + c->at, c->iov->iov_len - c->at};
    if (piece.n > max)
        piece.n = max;
    c->at += piece.n;
    return piece;
}

static void fragment_to_lane(struct fifo_out *o, const uint32_t header[2], struct cursor *c)
{
    fifo_out_write(o, header, FIFO_HEADER);
    for (size_t left = header[0]; left;) {
        str piece = cursor_take(c, left);
        fifo_out_write(o, piece.p, piece.n);
        left -= piece.n;
    }
    fifo_out_pad(o);
}

/* Room for n more bytes in the outbox; what was taken from its front is closed up first. */
static bool outbox_grow(struct fifo_link *l, size_t n)
{
    size_t held = l->outbox_n - l->outbox_at;
    if (held + n > l->outbox_max) {
        l->poison = "does not read";
        return false;
    }
    if (l->outbox_at && l->outbox_n + n > l->outbox_cap) {
        memmove(l->outbox, l->outbox + l->outbox_at, held);
        l->outbox_at = 0, l->outbox_n = held;
    }
    if (l->outbox_n + n > l->outbox_cap) {
        l->outbox_cap = 2 * (l->outbox_n + n);
        l->outbox = realloc(l->outbox, l->outbox_cap);
        must(l->outbox);
    }
    return true;
}

static void fragment_to_outbox(struct fifo_link *l, const uint32_t header[2], struct cursor *c)
{
    size_t n = fifo_padded(header[0]);
    if (!outbox_grow(l, n))
        return;
    char *p = l->outbox + l->outbox_n, *end = p + n;
    memcpy(p, header, FIFO_HEADER);
    p += FIFO_HEADER;
    for (size_t left = header[0]; left;) {
        str piece = cursor_take(c, left);
        memcpy(p, piece.p, piece.n);
        p += piece.n, left -= piece.n;
    }
    memset(p, 0, (size_t)(end - p));
    l->outbox_n += n;
}

static bool room(struct fifo_link *l, size_t n)
{
    bool bad = false, yes = fifo_out_room(&l->out, n, &bad);
    if (bad)
        l->poison = "impossible head";
    return yes;
}

void fifo_link_send(struct fifo_link *l, const struct iovec *iov, size_t n)
{
    struct cursor c = {iov, 0};
    size_t left = 0;
    for (size_t i = 0; i < n; i++)
        left += iov[i].iov_len;
    must(left > 0 && left <= l->frame_max);
    while (left && !l->poison) {
        size_t now = left < FIFO_FRAGMENT_MAX ? left : FIFO_FRAGMENT_MAX;
        left -= now;
        uint32_t header[2] = {(uint32_t)now, left ? FIFO_MORE : 0};
        if (l->outbox_n == 0 && room(l, fifo_padded(now)))
            fragment_to_lane(&l->out, header, &c);
        else if (!l->poison)
            fragment_to_outbox(l, header, &c);
    }
}

/* Whole fragments, as many as fit. */
static void outbox_move(struct fifo_link *l)
{
    while (l->outbox_at < l->outbox_n) {
        uint32_t n;
        memcpy(&n, l->outbox + l->outbox_at, sizeof n);
        size_t padded = fifo_padded(n);
        if (!room(l, padded))
            return;
        fifo_out_write(&l->out, l->outbox + l->outbox_at, padded);
        l->outbox_at += padded;
    }
    free(l->outbox); /* an outbox is the exception: it holds no memory afterwards */
    l->outbox = NULL;
    l->outbox_at = l->outbox_n = l->outbox_cap = 0;
}

/* Hungry is set before the last look at the room: either we see the room, or the consumer, who
 * makes room first and looks at hungry then, sees that. */
bool fifo_link_flush(struct fifo_link *l)
{
    if (l->poison)
        return false;
    if (l->outbox_n) {
        outbox_move(l);
        if (l->outbox_n && !l->poison) {
            fifo_out_starve(&l->out);
            outbox_move(l);
        }
    }
    return !l->poison && fifo_out_publish(&l->out);
}

/* ---- in -------------------------------------------------------------------------------------- */

static bool partial_add(struct fifo_link *l, const char *p, size_t n)
{
    if (n > l->frame_max - l->partial_n) {
        l->poison = "frame too long";
        return false;
    }
    if (l->partial_n + n > l->partial_cap) {
        l->partial_cap = 2 * (l->partial_n + n);
        l->partial = realloc(l->partial, l->partial_cap);
        must(l->partial);
    }
    memcpy(l->partial + l->partial_n, p, n);
    l->partial_n += n;
    return true;
}

/* Gives the frame away, if this fragment ends it. Returns 1 then. */
static size_t fragment_in(struct fifo_link *l, const char *p, size_t n, bool more,
                          fifo_link_frame_f *f, void *ctx)
{
    if (!more && l->partial_n == 0 && n <= l->frame_max) {
        f(ctx, p, n);
        return 1;
    }
    if (!partial_add(l, p, n) || more)
        return 0;
    char *frame = l->partial;
    n = l->partial_n;
    l->partial = NULL, l->partial_n = l->partial_cap = 0;
    f(ctx, frame, n);
    free(frame);
    return 1;
}

size_t fifo_link_poll(struct fifo_link *l, char scratch[FIFO_FRAGMENT_MAX], fifo_link_frame_f *f,
                      void *ctx, bool *ring)
{
    size_t n, frames = 0;
    bool more;
    *ring = false;
    if (l->poison)
        return 0;
    uint64_t before = l->in.head;
    err e = fifo_in_begin(&l->in);
    while (e == ERR_OK && !l->poison) {
        e = fifo_in_next(&l->in, scratch, &n, &more);
        if (e == ERR_OK)
            frames += fragment_in(l, scratch, n, more, f, ctx);
    }
    if (e == ERR_BAD)
        l->poison = "malformed fragment";
    if (l->in.head != before)
        *ring = fifo_in_end(&l->in);
    return frames;
}
