/* storm: N sessions lose their connections at the same moment and all log in anew at once, as after
 * a network's or a server's failure: how fast they are back, what refused them and how often, CPU
 * per login. --jitter gives the clients the delay that good ones have. */
#include "bench/load/reconnect.h"

enum { SETTLE_MS = 1000 };

static void set_up(struct worker *w) { w->state = reconnect_new(w); }

static void begin_storm(struct worker *w)
{
    w->tally->tls_resumed = 0;
    reconnect_cut(w, w->state, true);
}

static const struct step steps[] = {
    {.name = "connecting", .begin = worker_connect_all, .waits = true},
    {.name = "settling", .ms = SETTLE_MS},
    {.name = "storm", .begin = begin_storm, .waits = true, .kills = true},
    {.name = "settling", .ms = SETTLE_MS},
};
enum { STORM = 2 };

static void on_ready(struct worker *w, struct client *c)
{
    if (w->step == STORM)
        spread_count(&w->tally->back, reconnect_age_us(w->state));
}

static bool on_failed(struct worker *w, struct client *c, const char *why)
{
    return (w->step == STORM || w->step == STORM - 1) && reconnect_failed(w, w->state, c);
}

static void print(struct report *r, const struct outcome *o)
{
    reconnect_print(r, o, STORM);
    report_latency(r, "login", &o->tally.login);
}

const struct scenario scenario_storm = {
    .name = "storm",
    .unit = "sessions",
    .says = "N sessions are cut and all log in anew: time until all are back, retries",
    .clients = scenario_one,
    .steps = steps,
    .nsteps = array_len(steps),
    .presence = true,
    .reconnects = true,
    .set_up = set_up,
    .ready = on_ready,
    .failed = on_failed,
    .print = print,
};
