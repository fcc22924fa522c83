/* message: P pairs, one direction each, a closed loop: --window messages are on their way per pair,
 * and each that arrives makes its sender write the next. */
#include "bench/load/pairs.h"

enum { WARM_MS = 1500, DRAIN_MS = 10000, LISTEN_MS = 300 };

static void set_up(struct worker *w) { w->state = pairs_new(w, false); }

static void begin_sending(struct worker *w)
{
    struct pair *pairs = w->state;
    w->sending = true;
    for (unsigned i = 0; i < w->units; i++)
        for (unsigned n = 0; n < w->plan->window; n++)
            pair_send(w, &pairs[i], now_us());
}

static void drain(struct worker *w)
{
    worker_rest(w);
    if (pairs_are_whole(w, w->state))
        worker_done(w);
}

static const struct step steps[] = {
    {.name = "connecting", .begin = worker_connect_all, .waits = true},
    {.name = "warming", .begin = begin_sending, .ms = WARM_MS},
    {.name = "measuring", .begin = worker_measure, .seconds = true},
    {.name = "draining", .begin = drain, .waits = true, .ms = DRAIN_MS},
    {.name = "listening", .ms = LISTEN_MS}, /* would anything come twice? */
};
enum { MEASURED = 2, DRAINING = 3 };

static void on_stanza(struct worker *w, struct client *c, str item, const struct xml_index *x)
{
    struct pair *pairs = w->state, *p = pair_of(w, pairs, c);
    struct mark m;
    if (!pair_take(w, p, c, item, x, &m))
        return;
    uint64_t now = now_us();
    if (w->measuring) {
        w->tally->measured++;
        spread_count(&w->tally->latency, now - m.time_us);
    }
    if (w->sending)
        pair_send(w, p, now);
    else if (w->step == DRAINING && w->tally->received >= w->tally->sent &&
             pairs_are_whole(w, pairs))
        worker_done(w);
}

static void finish(struct worker *w) { pairs_end(w, w->state); }

static void print(struct report *r, const struct outcome *o)
{
    double n = (double)o->tally.measured;
    report_row(r, "window", o->plan->window, "per pair");
    report_row(r, "messages", n, "");
    report_row(r, "messages_per_s", n / outcome_seconds(o, MEASURED), "/s");
    report_latency(r, "latency", &o->tally.latency);
    report_cpu(r, o, MEASURED, n, "us each");
}

const struct scenario scenario_message = {
    .name = "message",
    .unit = "pairs",
    .says = "N pairs, --window messages on the way each: rate, latency, CPU per message",
    .clients = scenario_two,
    .steps = steps,
    .nsteps = array_len(steps),
    .presence = true,
    .set_up = set_up,
    .stanza = on_stanza,
    .finish = finish,
    .print = print,
};
