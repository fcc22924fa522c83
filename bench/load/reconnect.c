/* reconnect: see reconnect.h. */
#include "bench/load/reconnect.h"

#include <stdlib.h>

enum { RETRY_MS = 1000 };

struct back {
    struct timer timer;
    struct client *client;
    bool cut;
};
struct reconnect {
    uint64_t cut_us;
    struct back *back; /* by place among the worker's clients */
};

static void on_time(struct timer *t)
{
    struct client *c = container_of(t, struct back, timer)->client;
    if (c->step == CLIENT_NEW || c->step == CLIENT_FAILED)
        client_open(c);
}

struct reconnect *reconnect_new(struct worker *w)
{
    struct reconnect *r = calloc(1, sizeof *r);
    must(r);
    r->back = calloc(w->nclients ? w->nclients : 1, sizeof *r->back);
    must(r->back);
    for (unsigned i = 0; i < w->nclients; i++) {
        timer_init(&r->back[i].timer, on_time);
        r->back[i].client = &w->clients[i];
    }
    return r;
}

static uint64_t within(struct worker *w, unsigned ms)
{
    return ms ? entropy_u64(&w->rig.entropy.entropy) % ms : 0;
}

/* --kill's are the first server's processes. */
static bool falls(const struct worker *w, const struct client *c)
{
    return w->plan->victim.shards == 0 || c->server == 0;
}

static void cut(struct worker *w, struct reconnect *r, bool forget)
{
    for (unsigned i = 0; i < w->nclients; i++) {
        struct client *c = &w->clients[i];
        r->back[i].cut = falls(w, c);
        if (!r->back[i].cut)
            continue;
        client_cut(c);
        if (forget)
            client_forget(c);
        w->ready--;
    }
    atomic_store(&w->share->ready, w->ready);
}

void reconnect_cut(struct worker *w, struct reconnect *r, bool forget)
{
    cut(w, r, forget);
    r->cut_us = now_us();
    if (w->ready == w->nclients)
        worker_done(w);
    for (unsigned i = 0; i < w->nclients; i++) {
        uint64_t ms = r->back[i].cut ? within(w, w->plan->jitter_ms) : 0;
        if (ms)
            loop_timer_set(w->rig.loop, &r->back[i].timer, ms);
        else if (r->back[i].cut)
            client_open(&w->clients[i]);
    }
}

bool reconnect_failed(struct worker *w, struct reconnect *r, struct client *c)
{
    struct back *b = &r->back[c - w->clients];
    if (!r->cut_us) /* a worker may see a server's end before it is told of it */
        return w->plan->victim.shards && falls(w, c);
    if (!b->cut)
        return false;
    w->tally->retries++;
    loop_timer_set(w->rig.loop, &b->timer, RETRY_MS + within(w, RETRY_MS));
    return true;
}

uint64_t reconnect_age_us(const struct reconnect *r)
{
    return r->cut_us ? now_us() - r->cut_us : 0;
}

void reconnect_print(struct report *r, const struct outcome *o, unsigned step)
{
    const struct spread *back = &o->tally.back;
    report_row(r, "sessions", (double)back->n, "");
    report_row(r, "sessions_per_s", (double)back->n / outcome_seconds(o, step), "/s");
    report_row(r, "back_50_us", (double)spread_at(back, 0.5), "us until half were back");
    report_row(r, "back_99_us", (double)spread_at(back, 0.99), "us until 99 %");
    report_row(r, "back_100_us", (double)spread_at(back, 1), "us until all");
    report_row(r, "retries", (double)o->tally.retries, "");
    if (o->plan->rig.tickets)
        report_row(r, "tls_resumed", (double)o->tally.tls_resumed, "sessions");
    report_cpu(r, o, step, (double)back->n, "us per session");
}
