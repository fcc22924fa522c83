/* login: N sessions log in, --concurrent at a time: logins per second, CPU of the server for each.
 */
#include "bench/load/load.h"

static const struct step steps[] = {
    {.name = "logging in", .begin = worker_connect_all, .waits = true},
};

static void print(struct report *r, const struct outcome *o)
{
    report_row(r, "logins_per_s", o->plan->count / outcome_seconds(o, 0), "/s");
    report_cpu(r, o, 0, o->plan->count, "us per login");
    report_latency(r, "login", &o->tally.login);
    if (o->plan->rig.tickets)
        report_row(r, "tls_resumed", (double)o->tally.tls_resumed, "sessions");
}

const struct scenario scenario_login = {
    .name = "login",
    .unit = "sessions",
    .says = "N sessions log in: rate, CPU per login",
    .clients = scenario_one,
    .steps = steps,
    .nsteps = array_len(steps),
    .print = print,
};
