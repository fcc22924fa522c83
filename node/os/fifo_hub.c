/* fifo_hub: all links of a process, as one source of its loop (fifo.h). A producer sets its bit in
 * the consumer's bell, so that a poll costs two loads when nobody has published, however many peers
 * there are. What is sent in a turn is published once, at its end, and the peer is woken only if it
 * sleeps; for what may wait (fifo_hub_send_later) only by a timer, which then wakes everybody who
 * has not seen it. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "node/os/fifo_link.h"
#include "node/os/fifo_segment.h"

struct peer {
    struct fifo_hub *hub;
    unsigned id;
    struct fifo_segment segment;
    struct fifo_bell *bell;
    int wake_fd;
    bool busy, detached, told; /* busy: inside its poll; told: of its poisoning */
    struct fifo_link link;
};

struct fifo_hub {
    struct fifo_hub_config c;
    struct fifo_bell *bell;
    struct peer *peers[FIFO_PEERS];
    uint64_t dirty[FIFO_PEERS / 64]; /* to be flushed at the turn's end */
    uint64_t ring[FIFO_PEERS / 64];  /* … and to be woken for it */
    uint64_t later[FIFO_PEERS / 64]; /* slept when something was published for later */
    struct timer timer;              /* set while any has */
    struct loop_source source;
    struct turn_hook hook;
    struct fifo_stats stats;
    char scratch[FIFO_FRAGMENT_MAX];
};

static uint64_t bit(unsigned id) { return UINT64_C(1) << (id % 64); }

static void make_dirty(struct fifo_hub *h, unsigned id, bool later)
{
    h->dirty[id / 64] |= bit(id);
    if (!later)
        h->ring[id / 64] |= bit(id);
    if (h->c.loop)
        loop_at_turn_end(h->c.loop, &h->hook);
}

/* The counter of an eventfd cannot run full by ones; EAGAIN means that it is set, which is enough.
 */
static void ring_bell(struct fifo_hub *h, struct peer *p)
{
    uint64_t one = 1;
    h->later[p->id / 64] &= ~bit(p->id);
    if (!fifo_bell_ring(p->bell, h->c.self.peer))
        return;
    h->stats.wakeups++;
    ssize_t r = write(p->wake_fd, &one, sizeof one);
    must(r == sizeof one || errno == EAGAIN);
}

static void note_later(struct fifo_hub *h, struct peer *p)
{
    if (!fifo_bell_note(p->bell, h->c.self.peer))
        return;
    h->later[p->id / 64] |= bit(p->id);
    if (!timer_is_set(&h->timer))
        loop_timer_set(h->c.loop, &h->timer, FIFO_LATER_MS);
}

static void on_later(struct timer *t)
{
    struct fifo_hub *h = container_of(t, struct fifo_hub, timer);
    for (unsigned w = 0; w < array_len(h->later); w++) {
        uint64_t mask = h->later[w];
        h->later[w] = 0;
        for (; mask; mask &= mask - 1) {
            struct peer *p = h->peers[w * 64 + (unsigned)__builtin_ctzll(mask)];
            if (fifo_out_unread(&p->link.out))
                ring_bell(h, p);
        }
    }
}

/* ---- peers ----------------------------------------------------------------------------------- */

static void peer_free(struct peer *p)
{
    fifo_link_close(&p->link);
    fifo_segment_unmap(&p->segment);
    fifo_bell_unmap(p->bell);
    if (p->wake_fd >= 0)
        close(p->wake_fd);
    free(p);
}

static err peer_map(struct peer *p, const struct fifo_end *end, int segment_fd, int bell_fd)
{
    err e = fifo_segment_map(segment_fd, &p->hub->c.self, end, &p->segment);
    if (e == ERR_OK)
        e = fifo_bell_map(bell_fd, &p->bell);
    if (e)
        return e;
    struct fifo_segment *s = &p->segment;
    unsigned out = s->end, in = 1 - s->end;
    fifo_link_init(&p->link, p->hub->c.frame_max, p->hub->c.outbox_max);
    fifo_out_init(&p->link.out, &s->lanes[out], fifo_segment_data(s, out), s->size);
    fifo_in_init(&p->link.in, &s->lanes[in], fifo_segment_data(s, in), s->size);
    return ERR_OK;
}

/* Our own bit is set as if it had published: it may have done so before it was attached here. */
err fifo_hub_attach(struct fifo_hub *h, struct fifo_end end, int segment_fd, int bell_fd,
                    int wake_fd)
{
    struct peer *p = calloc(1, sizeof *p);
    must(p);
    p->hub = h, p->id = end.peer, p->wake_fd = wake_fd;
    err e = end.peer < FIFO_PEERS ? peer_map(p, &end, segment_fd, bell_fd) : ERR_BAD;
    close(segment_fd);
    close(bell_fd);
    if (e) {
        peer_free(p);
        return e;
    }
    fifo_hub_detach(h, p->id);
    h->peers[p->id] = p;
    atomic_fetch_or(&h->bell->pending[p->id / 64], bit(p->id));
    return ERR_OK;
}

void fifo_hub_detach(struct fifo_hub *h, unsigned id)
{
    must(id < FIFO_PEERS);
    struct peer *p = h->peers[id];
    if (!p)
        return;
    h->peers[id] = NULL;
    h->dirty[id / 64] &= ~bit(id), h->ring[id / 64] &= ~bit(id), h->later[id / 64] &= ~bit(id);
    p->detached = true;
    if (p->busy)
        p->link.poison = "detached"; /* its poll ends, and frees it */
    else
        peer_free(p);
}

bool fifo_hub_attached(const struct fifo_hub *h, unsigned id)
{
    return id < FIFO_PEERS && h->peers[id];
}

/* Told once, with nothing of the peer on the stack: the owner may detach it. */
static void tell_poisoned(struct fifo_hub *h, struct peer *p)
{
    if (p->link.poison && !p->told) {
        p->told = true;
        h->c.on_poisoned(h->c.ctx, p->id, p->link.poison);
    }
}

/* ---- out ------------------------------------------------------------------------------------- */

static void send_frame(struct fifo_hub *h, unsigned id, const struct iovec *iov, size_t n,
                       bool later)
{
    must(id < FIFO_PEERS);
    struct peer *p = h->peers[id];
    if (!p || p->link.poison) {
        h->stats.dropped++;
        return;
    }
    bool waited = p->link.outbox_n;
    fifo_link_send(&p->link, iov, n);
    h->stats.frames_out++;
    h->stats.full += !waited && p->link.outbox_n;
    make_dirty(h, id, later);
}

void fifo_hub_send(struct fifo_hub *h, unsigned id, const struct iovec *iov, size_t n)
{
    send_frame(h, id, iov, n, false);
}

void fifo_hub_send_later(struct fifo_hub *h, unsigned id, const struct iovec *iov, size_t n)
{
    must(h->c.loop);
    send_frame(h, id, iov, n, true);
}

static void flush_peer(struct fifo_hub *h, struct peer *p, bool ring)
{
    if (!fifo_link_flush(&p->link))
        return tell_poisoned(h, p);
    if (ring)
        ring_bell(h, p);
    else
        note_later(h, p);
}

void fifo_hub_flush(struct fifo_hub *h)
{
    for (unsigned w = 0; w < array_len(h->dirty); w++) {
        uint64_t mask = h->dirty[w], ring = h->ring[w];
        h->dirty[w] = h->ring[w] = 0;
        for (; mask; mask &= mask - 1) {
            struct peer *p = h->peers[w * 64 + (unsigned)__builtin_ctzll(mask)];
            if (p) /* else detached by on_poisoned of another */
                flush_peer(h, p, ring & mask & -mask);
        }
    }
}

static void on_turn_end(struct turn_hook *hook)
{
    fifo_hub_flush(container_of(hook, struct fifo_hub, hook));
}

/* ---- in -------------------------------------------------------------------------------------- */

static void on_link_frame(void *ctx, const char *p, size_t n)
{
    struct peer *from = ctx;
    from->hub->c.on_frame(from->hub->c.ctx, from->id, p, n);
}

/* Whoever rings may have made room instead of frames: then the outbox goes on. */
static bool peer_poll(struct fifo_hub *h, struct peer *p)
{
    bool ring;
    uint64_t before = p->link.in.head;
    p->busy = true;
    size_t n = fifo_link_poll(&p->link, h->scratch, on_link_frame, p, &ring);
    p->busy = false;
    h->stats.frames_in += n;
    if (p->detached) {
        peer_free(p);
        return true;
    }
    if (ring)
        ring_bell(h, p);
    if (p->link.outbox_n)
        make_dirty(h, p->id, false);
    bool any = p->link.in.head != before; /* fragments of a frame count too */
    tell_poisoned(h, p);
    return any;
}

bool fifo_hub_poll(struct fifo_hub *h)
{
    bool any = false;
    for (unsigned w = 0; w < array_len(h->bell->pending); w++) {
        if (!atomic_load(&h->bell->pending[w]))
            continue;
        uint64_t mask = atomic_exchange(&h->bell->pending[w], 0);
        for (; mask; mask &= mask - 1) {
            struct peer *p = h->peers[w * 64 + (unsigned)__builtin_ctzll(mask)];
            if (p)
                any |= peer_poll(h, p);
        }
    }
    return any;
}

void fifo_hub_sleep(struct fifo_hub *h, bool sleeping)
{
    atomic_exchange(&h->bell->sleeping, sleeping);
}

static bool source_poll(struct loop_source *s)
{
    return fifo_hub_poll(container_of(s, struct fifo_hub, source));
}

static void source_sleep(struct loop_source *s, bool sleeping)
{
    fifo_hub_sleep(container_of(s, struct fifo_hub, source), sleeping);
}

/* ---- life ------------------------------------------------------------------------------------ */

err fifo_hub_open(const struct fifo_hub_config *c, struct fifo_hub **out)
{
    must(c->self.peer < FIFO_PEERS && c->on_frame && c->on_poisoned && c->frame_max > 0);
    struct fifo_hub *h = calloc(1, sizeof *h);
    must(h);
    h->c = *c;
    err e = fifo_bell_map(c->bell_fd, &h->bell);
    close(c->bell_fd);
    if (e) {
        free(h);
        return e;
    }
    list_init(&h->hook.link);
    h->hook.fn = on_turn_end;
    timer_init(&h->timer, on_later);
    list_init(&h->source.link);
    h->source.poll = source_poll;
    h->source.sleep = source_sleep;
    if (c->loop)
        loop_source_add(c->loop, &h->source);
    *out = h;
    return ERR_OK;
}

void fifo_hub_close(struct fifo_hub *h)
{
    for (unsigned id = 0; id < FIFO_PEERS; id++)
        fifo_hub_detach(h, id);
    list_remove(&h->source.link);
    list_remove(&h->hook.link);
    if (h->c.loop)
        loop_timer_stop(h->c.loop, &h->timer);
    fifo_bell_unmap(h->bell);
    free(h);
}

const struct fifo_stats *fifo_hub_stats(const struct fifo_hub *h) { return &h->stats; }

uint64_t fifo_hub_queued(const struct fifo_hub *h)
{
    uint64_t sum = 0;
    for (unsigned id = 0; id < FIFO_PEERS; id++) {
        const struct peer *p = h->peers[id];
        if (!p)
            continue;
        const struct fifo_out *o = &p->link.out;
        uint64_t head = atomic_load_explicit(&o->lane->head, memory_order_relaxed);
        if (head <= o->tail && o->tail - head <= o->size) /* else the peer lies */
            sum += o->tail - head;
        sum += p->link.outbox_n;
    }
    return sum;
}
