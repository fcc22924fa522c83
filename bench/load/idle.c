/* idle: N sessions stay: user-space memory of the server per session, as growth from --baseline
 * sessions to N. Memory is read some seconds after the last login, when nobody is busy. */
#include "bench/load/load.h"

enum { SETTLE_MS = 3000 };

static void connect_baseline(struct worker *w)
{
    worker_connect(w, worker_share(w, w->plan->baseline));
}

static const struct step steps[] = {
    {.name = "baseline", .begin = connect_baseline, .waits = true},
    {.name = "settling", .ms = SETTLE_MS, .memory = true},
    {.name = "growing", .begin = worker_connect_all, .waits = true},
    {.name = "settling", .ms = SETTLE_MS, .memory = true},
};

static void print(struct report *r, const struct outcome *o)
{
    const struct mark_at *from = &o->at[2], *to = &o->at[4];
    double sessions = o->plan->count - o->plan->baseline;
    report_row(r, "baseline_bytes", (double)from->memory, "bytes, all shards");
    report_row(r, "bytes_per_session", ((double)to->memory - (double)from->memory) / sessions,
               "bytes");
    report_row(r, "private_per_session", ((double)to->private - (double)from->private) / sessions,
               "bytes");
}

const struct scenario scenario_idle = {
    .name = "idle",
    .unit = "sessions",
    .says = "N sessions stay: memory per session, from --baseline to N",
    .clients = scenario_one,
    .steps = steps,
    .nsteps = array_len(steps),
    .presence = true,
    .print = print,
};
