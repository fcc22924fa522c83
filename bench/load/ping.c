/* ping: sessions that ask the server whether it is there (XEP-0199), --window questions at a time.
 * The id of a question is its slot, so that every answer is that of one question. */
#include <stdlib.h>

#include "bench/load/load.h"

enum { WARM_MS = 1500, DRAIN_MS = 5000, LISTEN_MS = 300 };

struct pinger {
    uint64_t sent_us[WINDOW_MAX]; /* by slot; 0: nothing is asked */
};

static struct pinger *pinger_of(const struct worker *w, const struct client *c)
{
    return &((struct pinger *)w->state)[c->unit - w->first];
}

static void set_up(struct worker *w)
{
    w->state = calloc(w->units ? w->units : 1, sizeof(struct pinger));
    must(w->state);
}

static void ask(struct worker *w, struct client *c, unsigned slot)
{
    client_send(c, arena_printf(&w->rig.turn,
                                "<iq type='get' to='%s' id='ping-%02u'>"
                                "<ping xmlns='urn:xmpp:ping'/></iq>",
                                w->rig.host, slot));
    pinger_of(w, c)->sent_us[slot] = now_us();
    w->tally->sent++;
}

static void begin_sending(struct worker *w)
{
    w->sending = true;
    for (unsigned i = 0; i < w->nclients; i++)
        for (unsigned slot = 0; slot < w->plan->window; slot++)
            ask(w, &w->clients[i], slot);
}

static void drain(struct worker *w)
{
    worker_rest(w);
    if (w->tally->received == w->tally->sent)
        worker_done(w);
}

static const struct step steps[] = {
    {.name = "connecting", .begin = worker_connect_all, .waits = true},
    {.name = "warming", .begin = begin_sending, .ms = WARM_MS},
    {.name = "measuring", .begin = worker_measure, .seconds = true},
    {.name = "draining", .begin = drain, .waits = true, .ms = DRAIN_MS},
    {.name = "listening", .ms = LISTEN_MS},
};
enum { MEASURED = 2, DRAINING = 3 };

static bool slot_of(str id, unsigned *slot)
{
    if (id.n != 7 || !str_starts(id, STR("ping-")))
        return false;
    *slot = (unsigned)((id.p[5] - '0') * 10 + (id.p[6] - '0'));
    return *slot < WINDOW_MAX;
}

static void on_answer(struct worker *w, struct client *c, unsigned slot)
{
    struct pinger *p = pinger_of(w, c);
    if (!p->sent_us[slot]) {
        w->tally->faults.duplicated++;
        return;
    }
    if (w->measuring) {
        w->tally->measured++;
        spread_count(&w->tally->latency, now_us() - p->sent_us[slot]);
    }
    p->sent_us[slot] = 0;
    w->tally->received++;
    if (w->sending)
        ask(w, c, slot);
    else if (w->step == DRAINING && w->tally->received == w->tally->sent)
        worker_done(w);
}

static void on_stanza(struct worker *w, struct client *c, str item, const struct xml_index *x)
{
    unsigned slot;
    if (!str_is(str_from(item.p + x->name_off, x->name_len), "iq"))
        return;
    if (x->id.off && slot_of(str_from(item.p + x->id.off, x->id.len), &slot) && x->type.off &&
        str_is(str_from(item.p + x->type.off, x->type.len), "result"))
        on_answer(w, c, slot);
    else
        w->tally->faults.damaged++;
}

static void finish(struct worker *w)
{
    const struct pinger *pingers = w->state;
    for (unsigned i = 0; i < w->units; i++)
        for (unsigned slot = 0; slot < WINDOW_MAX; slot++)
            w->tally->faults.lost += pingers[i].sent_us[slot] != 0;
}

static void print(struct report *r, const struct outcome *o)
{
    double n = (double)o->tally.measured;
    report_row(r, "window", o->plan->window, "per session");
    report_row(r, "pings", n, "");
    report_row(r, "pings_per_s", n / outcome_seconds(o, MEASURED), "/s");
    report_latency(r, "latency", &o->tally.latency);
    report_cpu(r, o, MEASURED, n, "us each");
}

const struct scenario scenario_ping = {
    .name = "ping",
    .unit = "sessions",
    .says = "N sessions, --window pings on the way each: rate, latency, CPU per ping",
    .clients = scenario_one,
    .steps = steps,
    .nsteps = array_len(steps),
    .presence = true,
    .set_up = set_up,
    .stanza = on_stanza,
    .finish = finish,
    .print = print,
};
