/* pipe_transport: a plain transport without sockets: two ends, and a pump that stands for the loop.
 * It holds its users to transport.h: one write in flight, nothing after close, bytes at rest until
 * written() (they are read from the writer's memory only then), free only after closed(). */
#ifndef PEMBERLEY_TEST_PIPE_TRANSPORT_H
#define PEMBERLEY_TEST_PIPE_TRANSPORT_H

#include <stdlib.h>

#include "pemberley/must.h"
#include "pemberley/transport.h"

struct pipe_end {
    struct transport t;
    struct pipe_end *peer;
    size_t chunk; /* bytes per bytes() call, at most; 0: all there is */
    struct iovec flying[64];
    size_t flying_n;
    char *in; /* on its way to this end */
    size_t in_n;
    size_t sent; /* bytes written here */
    bool paused, fin_sent, ended, told_ended, gone, told_closed, freed;
    bool abrupt; /* close(false) calls closed() before it returns, as a transport at rest may */
};

static inline size_t pipe_write(struct transport *t, const struct iovec *iov, size_t n)
{
    struct pipe_end *e = (struct pipe_end *)t;
    size_t total = 0;

    must(e->flying_n == 0 && !e->fin_sent && !e->gone && n > 0 && n <= 64);
    for (size_t i = 0; i < n; i++)
        e->flying[i] = iov[i], total += iov[i].iov_len;
    e->flying_n = n;
    return total;
}
static inline void pipe_pause(struct transport *t) { ((struct pipe_end *)t)->paused = true; }
static inline void pipe_resume(struct transport *t) { ((struct pipe_end *)t)->paused = false; }
static inline void pipe_close(struct transport *t, bool graceful)
{
    struct pipe_end *e = (struct pipe_end *)t;

    must(!e->gone && !(graceful && (e->fin_sent || e->flying_n)));
    if (!graceful)
        e->gone = true;
    if (!e->fin_sent && e->peer)
        e->peer->ended = true;
    e->fin_sent = true;
    if (!graceful && e->abrupt && !e->flying_n) {
        e->told_closed = true;
        t->sink->closed(t, ERR_OK);
    }
}
static inline void pipe_free(struct transport *t)
{
    struct pipe_end *e = (struct pipe_end *)t;

    must(e->told_closed && !e->freed);
    if (e->peer)
        e->peer->peer = NULL;
    free(e->in);
    e->in = NULL, e->in_n = 0, e->freed = true; /* the test owns the struct */
}
static inline void pipe_info(const struct transport *t, struct transport_info *out)
{
    memset(out, 0, sizeof *out);
    out->address.ss_family = AF_INET;
}
static inline err pipe_binding(const struct transport *t, enum channel_binding kind,
                               unsigned char out[64], size_t *n)
{
    return ERR_NOT_FOUND;
}
static const struct transport_impl pipe_impl = {pipe_write, pipe_pause, pipe_resume, pipe_close,
                                                pipe_free,  pipe_info,  pipe_binding};

static inline void pipe_init(struct pipe_end *a, struct pipe_end *b, size_t chunk)
{
    memset(a, 0, sizeof *a);
    memset(b, 0, sizeof *b);
    a->t.impl = b->t.impl = &pipe_impl;
    a->peer = b, b->peer = a;
    a->chunk = b->chunk = chunk;
}

/* What arrives at e, from nowhere. */
static inline void pipe_put(struct pipe_end *e, const void *p, size_t n)
{
    e->in = realloc(e->in, e->in_n + n);
    must(e->in);
    memcpy(e->in + e->in_n, p, n);
    e->in_n += n;
}

static inline bool pipe_pump_written(struct pipe_end *e)
{
    if (e->flying_n == 0 || e->freed)
        return false;
    for (size_t i = 0; i < e->flying_n; i++) {
        e->sent += e->flying[i].iov_len;
        if (e->peer && !e->peer->gone && !e->gone)
            pipe_put(e->peer, e->flying[i].iov_base, e->flying[i].iov_len);
    }
    e->flying_n = 0;
    if (!e->gone)
        e->t.sink->written(&e->t);
    return true;
}

static inline bool pipe_pump_bytes(struct pipe_end *e)
{
    if (e->in_n == 0 || e->paused || e->gone || e->freed)
        return false;
    size_t n = e->chunk && e->chunk < e->in_n ? e->chunk : e->in_n;
    char *piece = malloc(n); /* of its own, so that a sanitizer sees a view that is kept */
    must(piece);
    memcpy(piece, e->in, n);
    memmove(e->in, e->in + n, e->in_n - n);
    e->in_n -= n;
    e->t.sink->bytes(&e->t, piece, n);
    free(piece);
    return true;
}

static inline bool pipe_pump_end(struct pipe_end *e)
{
    if (e->freed || e->flying_n)
        return false;
    if (e->ended && !e->told_ended && e->in_n == 0 && !e->gone) {
        e->told_ended = true;
        e->t.sink->ended(&e->t);
        return true;
    }
    if (!e->told_closed && (e->gone || (e->fin_sent && e->told_ended))) {
        e->told_closed = e->gone = true;
        e->t.sink->closed(&e->t, ERR_OK);
        return true;
    }
    return false;
}

static inline bool pipe_pump(struct pipe_end *e)
{
    return pipe_pump_written(e) || pipe_pump_bytes(e) || pipe_pump_end(e);
}

/* Until nothing moves. */
static inline void pipe_run(struct pipe_end *a, struct pipe_end *b)
{
    for (int i = 0; (int)pipe_pump(a) | (int)pipe_pump(b); i++)
        must(i < 10000000);
}

#endif
