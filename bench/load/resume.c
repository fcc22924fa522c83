/* resume: N pairs with XEP-0198 and traffic as in `message`; every connection is cut (RST) at the
 * same moment, with messages on their way, and every client resumes its session. Nothing may be
 * lost, doubled or reordered: what the server had not acknowledged is sent again, what the client
 * had not acknowledged comes again. Who is not resumed logs in anew and loses what he had not been
 * acknowledged. Nothing new is sent until all are back, so the CPU is that of resuming. With --kill
 * the first server dies and its clients resume on the others; the rest keep their connections,
 * which must not end. */
#include <stdlib.h>

#include "bench/load/pairs.h"
#include "bench/load/reconnect.h"

enum { TRAFFIC_MS = 1000, DRAIN_MS = 10000, LISTEN_MS = 300 };

struct state {
    struct pair *pairs;
    struct reconnect *reconnect;
};

static void set_up(struct worker *w)
{
    struct state *s = calloc(1, sizeof *s);
    must(s);
    w->rig.keep = true;
    s->pairs = pairs_new(w, false);
    s->reconnect = reconnect_new(w);
    w->state = s;
}

static void begin_sending(struct worker *w)
{
    struct state *s = w->state;
    w->sending = true;
    for (unsigned i = 0; i < w->units; i++)
        for (unsigned n = 0; n < w->plan->window; n++)
            pair_send(w, &s->pairs[i], now_us());
}

/* What is written in this very turn does not leave before the cut, so there is always something
 * that the server has never seen. */
static void cut(struct worker *w)
{
    struct state *s = w->state;
    begin_sending(w);
    w->sending = false;
    w->tally->tls_resumed = 0;
    reconnect_cut(w, s->reconnect, false);
}

static void drain(struct worker *w)
{
    struct state *s = w->state;
    worker_rest(w);
    if (pairs_are_whole(w, s->pairs))
        worker_done(w);
}

static const struct step steps[] = {
    {.name = "connecting", .begin = worker_connect_all, .waits = true},
    {.name = "traffic", .begin = begin_sending, .ms = TRAFFIC_MS},
    {.name = "cut", .begin = cut, .waits = true, .kills = true},
    {.name = "traffic", .begin = begin_sending, .ms = TRAFFIC_MS},
    {.name = "draining", .begin = drain, .waits = true, .ms = DRAIN_MS},
    {.name = "listening", .ms = LISTEN_MS},
};
enum { CUT = 2, DRAINING = 4 };

static void on_ready(struct worker *w, struct client *c)
{
    struct state *s = w->state;
    if (w->step != CUT)
        return;
    spread_count(&w->tally->back, reconnect_age_us(s->reconnect));
    w->tally->resumed += c->resumed;
}

static bool on_failed(struct worker *w, struct client *c, const char *why)
{
    struct state *s = w->state;
    return (w->step == CUT || w->step == CUT - 1) && reconnect_failed(w, s->reconnect, c);
}

static void on_stanza(struct worker *w, struct client *c, str item, const struct xml_index *x)
{
    struct state *s = w->state;
    struct pair *p = pair_of(w, s->pairs, c);
    struct mark m;
    if (!pair_take(w, p, c, item, x, &m))
        return;
    if (w->sending)
        pair_send(w, p, now_us());
    else if (w->step == DRAINING && w->tally->received >= w->tally->sent &&
             pairs_are_whole(w, s->pairs))
        worker_done(w);
}

static void finish(struct worker *w) { pairs_end(w, ((struct state *)w->state)->pairs); }

static void print(struct report *r, const struct outcome *o)
{
    report_row(r, "messages", (double)o->tally.received, "");
    report_row(r, "resumed", (double)o->tally.resumed, "sessions");
    reconnect_print(r, o, CUT);
}

const struct scenario scenario_resume = {
    .name = "resume",
    .unit = "pairs",
    .says = "N pairs with XEP-0198 and traffic are cut and resume: time, losses, CPU",
    .clients = scenario_two,
    .steps = steps,
    .nsteps = array_len(steps),
    .presence = true,
    .reconnects = true,
    .sm = true,
    .set_up = set_up,
    .ready = on_ready,
    .stanza = on_stanza,
    .failed = on_failed,
    .finish = finish,
    .print = print,
};
