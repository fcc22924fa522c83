/* reconnect: see reconnect.h. */
#include "bench/load/reconnect.h"

#include <stdlib.h>

enum { RETRY_MS = 1000 };

struct back {
    struct timer timer;
    struct client *client;
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

void reconnect_all(struct worker *w, struct reconnect *r, bool forget)
{
    w->ready = 0;
    atomic_store(&w->share->ready, 0);
    for (unsigned i = 0; i < w->nclients; i++) {
        client_cut(&w->clients[i]);
        if (forget)
            client_forget(&w->clients[i]);
    }
    r->cut_us = now_us();
    if (w->nclients == 0)
        worker_done(w);
    for (unsigned i = 0; i < w->nclients; i++) {
        uint64_t ms = within(w, w->plan->jitter_ms);
        if (ms)
            loop_timer_set(w->rig.loop, &r->back[i].timer, ms);
        else
            client_open(&w->clients[i]);
    }
}

void reconnect_failed(struct worker *w, struct reconnect *r, struct client *c)
{
    w->tally->retries++;
    loop_timer_set(w->rig.loop, &r->back[c - w->clients].timer, RETRY_MS + within(w, RETRY_MS));
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
