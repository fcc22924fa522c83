/* drain: letting go of connections (operator.md 8), a few every DRAIN_TICK_MS: a client that has to
 * go comes back elsewhere at once, so the rate here is the rate of logins there. Each goes as at a
 * stop: what was sent is written, the stream ends with system-shutdown, its session is detached or
 * ended. */
#include "node/edge/edge.h"

#include "node/edge/conn.h"
#include "node/edge/proxied.h"

enum {
    DRAIN_TICK_MS = 20,
    DRAIN_TICK_MAX =
        64, /* without a rate: about a millisecond of work, mostly TLS's close_notify */
};

/* How many may go now. */
static uint64_t due(struct drain *d, uint64_t now_ms)
{
    if (d->rate.count == 0)
        return DRAIN_TICK_MAX;
    d->credit += (now_ms - d->at_ms) * d->rate.count;
    d->at_ms = now_ms;
    uint64_t n = d->credit / d->rate.per_ms;
    d->credit -= n * d->rate.per_ms;
    return n;
}

static void let_go(struct edge *e, uint64_t n)
{
    list_each(c, &e->conns, struct conn, link) {
        if (n == 0)
            return;
        if (c->ending)
            continue;
        conn_end(c, ERR_STREAM_SYSTEM_SHUTDOWN);
        n--;
    }
}

void edge_drain_tick(struct timer *t)
{
    struct edge *e = container_of(t, struct edge, drain.timer);
    struct loop *loop = e->node->loop;
    let_go(e, due(&e->drain, loop_now_ms(loop)));
    loop_timer_set(loop, t, DRAIN_TICK_MS);
}

void edge_drain(struct edge *e, struct conf_rate rate)
{
    if (e->stopping)
        return;
    e->drain.rate = rate;
    e->drain.at_ms = loop_now_ms(e->node->loop), e->drain.credit = 0;
    proxied_stop(e);
    edge_drain_tick(&e->drain.timer);
}

void edge_drain_stop(struct edge *e) { loop_timer_stop(e->node->loop, &e->drain.timer); }

void edge_let_all_go(struct edge *e)
{
    proxied_stop(e);
    let_go(e, UINT64_MAX);
}
