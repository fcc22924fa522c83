/* offline: N accounts get --messages each while they are away, from N others; then they log in and
 * take them all, whole and in order. Both sides use XEP-0198: stored is what the server has
 * acknowledged to the sender. The receivers bind first and send their presence all at once, so that
 * taking is measured without the logins. */
#include <stdlib.h>

#include "bench/load/pairs.h"

enum { LISTEN_MS = 500, MESSAGES = 20 };

struct state {
    struct pair *pairs;
    unsigned left; /* senders with something not acknowledged, then receivers that miss something */
    uint64_t begin_us;
};

static unsigned messages(const struct plan *p) { return p->messages ? p->messages : MESSAGES; }

static void set_up(struct worker *w)
{
    struct state *s = calloc(1, sizeof *s);
    must(s);
    w->rig.keep = true;
    s->pairs = pairs_new(w, true);
    w->state = s;
}

static void connect_senders(struct worker *w) { worker_connect(w, w->units); }

static void begin(struct worker *w)
{
    struct state *s = w->state;
    s->left = w->units;
    s->begin_us = now_us();
    if (!s->left)
        worker_done(w);
}

static void store(struct worker *w)
{
    struct state *s = w->state;
    begin(w);
    for (unsigned i = 0; i < w->units; i++)
        for (unsigned n = 0; n < messages(w->plan); n++)
            pair_send(w, &s->pairs[i], now_us());
}

static void take(struct worker *w)
{
    struct state *s = w->state;
    begin(w);
    for (unsigned i = 0; i < w->units; i++)
        client_send(s->pairs[i].to, STR("<presence/>"));
}

static const struct step steps[] = {
    {.name = "connecting", .begin = connect_senders, .waits = true},
    {.name = "storing", .begin = store, .waits = true},
    {.name = "arriving", .begin = worker_connect_all, .waits = true},
    {.name = "taking", .begin = take, .waits = true, .ms = 60000},
    {.name = "listening", .ms = LISTEN_MS},
};
enum { STORING = 1, TAKING = 3 };

static void on_acked(struct worker *w, struct client *c)
{
    struct state *s = w->state;
    if (w->step == STORING && --s->left == 0)
        worker_done(w);
}

static void on_stanza(struct worker *w, struct client *c, str item, const struct xml_index *x)
{
    struct state *s = w->state;
    struct pair *p = pair_of(w, s->pairs, c);
    struct mark m;
    if (!pair_take(w, p, c, item, x, &m) || !pair_is_whole(p) || w->step != TAKING)
        return;
    spread_count(&w->tally->latency, now_us() - s->begin_us);
    if (--s->left == 0)
        worker_done(w);
}

static void finish(struct worker *w) { pairs_end(w, ((struct state *)w->state)->pairs); }

static void print(struct report *r, const struct outcome *o)
{
    double sent = (double)o->tally.sent, received = (double)o->tally.received;
    report_row(r, "messages", received, "");
    report_row(r, "stored_per_s", sent / outcome_seconds(o, STORING), "/s");
    report_cpu_as(r, "stored_cpu_us", o, STORING, sent, "us per message");
    report_row(r, "taken_per_s", received / outcome_seconds(o, TAKING), "/s");
    report_cpu_as(r, "taken_cpu_us", o, TAKING, received, "us per message");
    report_latency(r, "taken", &o->tally.latency);
}

const struct scenario scenario_offline = {
    .name = "offline",
    .unit = "accounts",
    .says = "N accounts get --messages each while away, then take them: rates, CPU",
    .clients = scenario_two,
    .steps = steps,
    .nsteps = array_len(steps),
    .sm = true,
    .set_up = set_up,
    .stanza = on_stanza,
    .acked = on_acked,
    .finish = finish,
    .print = print,
};
