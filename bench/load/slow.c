/* slow: N pairs as in `message`, of which --stalled (a tenth of them) get a reader that stops
 * reading while
 * --messages are written to it as fast as the server takes them. The others must not suffer: their
 * latency is taken before and while, with the server's memory before, while and after. Then the
 * stalled ones read again, or come back if the server has closed them: what they were sent should
 * come now, whole and in order; what does not is `stalled_missing`, no fault of its own, because a
 * server may drop a reader that it cannot keep (it says which in its documentation). */
#include <stdlib.h>
#include <sys/socket.h>

#include "bench/load/pairs.h"
#include "bench/load/reconnect.h"

enum { WARM_MS = 1500, RECOVER_MS = 20000, DRAIN_MS = 10000, LISTEN_MS = 300 };
enum { MESSAGES = 20000, RECEIVE_BUFFER = 65536 };

struct state {
    struct pair *pairs;
    bool *stalled; /* by unit */
    struct reconnect *reconnect;
};

static unsigned stalled(const struct plan *p)
{
    unsigned n = p->stalled ? p->stalled : (p->count + 9) / 10;
    return n < p->count ? n : p->count;
}

static bool is_stalled(const struct worker *w, const struct client *c)
{
    const struct state *s = w->state;
    return s->stalled[c->unit - w->first];
}

/* Evenly spread over the units, hence over the workers. */
static void set_up(struct worker *w)
{
    struct state *s = calloc(1, sizeof *s);
    uint64_t n = stalled(w->plan), all = w->plan->count;
    must(s);
    s->stalled = calloc(w->units ? w->units : 1, sizeof *s->stalled);
    must(s->stalled);
    for (unsigned i = 0; i < w->units; i++) {
        s->stalled[i] = (w->first + i) * n / all != (w->first + i + 1) * n / all;
        w->tally->stalled += s->stalled[i];
    }
    s->pairs = pairs_new(w, false);
    s->reconnect = reconnect_new(w);
    w->state = s;
}

/* ---- steps ----------------------------------------------------------------------------------- */

static void begin_sending(struct worker *w)
{
    struct state *s = w->state;
    w->sending = true;
    for (unsigned i = 0; i < w->units; i++)
        for (unsigned n = 0; n < w->plan->window && !s->stalled[i]; n++)
            pair_send(w, &s->pairs[i], now_us());
}

static void begin_stall(struct worker *w)
{
    struct state *s = w->state;
    unsigned messages = w->plan->messages ? w->plan->messages : MESSAGES;
    for (unsigned i = 0; i < w->units; i++) {
        struct pair *p = &s->pairs[i];
        int size = RECEIVE_BUFFER; /* so that the server and not the kernel holds them */
        if (!s->stalled[i])
            continue;
        setsockopt(p->to->fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
        client_pause(p->to);
        for (unsigned n = 0; n < messages; n++)
            pair_send(w, p, now_us());
        w->tally->stalled_sent += messages;
    }
}

static bool stalled_are_whole(const struct worker *w)
{
    const struct state *s = w->state;
    for (unsigned i = 0; i < w->units; i++)
        if (s->stalled[i] && !pair_is_whole(&s->pairs[i]))
            return false;
    return true;
}

/* A failed connection is found when it is read again. */
static void recover(struct worker *w)
{
    struct state *s = w->state;
    w->measuring = false;
    for (unsigned i = 0; i < w->units; i++)
        if (s->stalled[i] && s->pairs[i].to->paused)
            client_resume(s->pairs[i].to);
    if (stalled_are_whole(w))
        worker_done(w);
}

static bool healthy_are_whole(const struct worker *w)
{
    const struct state *s = w->state;
    for (unsigned i = 0; i < w->units; i++)
        if (!s->stalled[i] && !pair_is_whole(&s->pairs[i]))
            return false;
    return true;
}

static void drain(struct worker *w)
{
    worker_rest(w);
    if (healthy_are_whole(w))
        worker_done(w);
}

static const struct step steps[] = {
    {.name = "connecting", .begin = worker_connect_all, .waits = true},
    {.name = "warming", .begin = begin_sending, .ms = WARM_MS},
    {.name = "healthy", .begin = worker_measure, .seconds = true, .memory = true},
    {.name = "stalling", .begin = begin_stall, .seconds = true, .memory = true},
    {.name = "recovering", .begin = recover, .waits = true, .ms = RECOVER_MS, .memory = true},
    {.name = "draining", .begin = drain, .waits = true, .ms = DRAIN_MS},
    {.name = "listening", .ms = LISTEN_MS},
};
enum { HEALTHY = 2, STALLING = 3, RECOVERING = 4, DRAINING = 5 };

/* ---- what comes ------------------------------------------------------------------------------ */

static void take_healthy(struct worker *w, struct pair *p, const struct mark *m)
{
    uint64_t now = now_us();
    if (w->measuring && w->step == HEALTHY)
        spread_count(&w->tally->healthy, now - m->time_us);
    if (w->measuring && w->step == STALLING) {
        spread_count(&w->tally->latency, now - m->time_us);
        w->tally->measured++;
    }
    if (w->sending)
        pair_send(w, p, now);
    else if (w->step == DRAINING && healthy_are_whole(w))
        worker_done(w);
}

static void on_stanza(struct worker *w, struct client *c, str item, const struct xml_index *x)
{
    struct state *s = w->state;
    struct pair *p = pair_of(w, s->pairs, c);
    struct mark m;
    if (!pair_take(w, p, c, item, x, &m))
        return;
    if (!is_stalled(w, c))
        take_healthy(w, p, &m);
    else if (w->step == RECOVERING && pair_is_whole(p) && stalled_are_whole(w))
        worker_done(w);
}

static void on_ready(struct worker *w, struct client *c)
{
    if (w->step == RECOVERING)
        w->tally->resumed += c->resumed;
}

static bool on_failed(struct worker *w, struct client *c, const char *why)
{
    struct state *s = w->state;
    if (w->step == UINT32_MAX || w->step < STALLING || w->step > RECOVERING || !is_stalled(w, c))
        return false;
    if (c == pair_of(w, s->pairs, c)->to)
        w->tally->stalled_closed++;
    else
        w->tally->senders_closed++;
    w->ready--;
    reconnect_failed(w, s->reconnect, c);
    return true;
}

static void finish(struct worker *w)
{
    struct state *s = w->state;
    for (unsigned i = 0; i < w->units; i++) {
        struct faults missing = {.lost = 0};
        sequence_end(&s->pairs[i].seen, s->pairs[i].sent,
                     s->stalled[i] ? &missing : &w->tally->faults);
        w->tally->stalled_missing += missing.lost;
    }
}

static void print(struct report *r, const struct outcome *o)
{
    const struct tally *t = &o->tally;
    double before = (double)o->at[STALLING].private, growth = (double)o->at[RECOVERING].private;
    report_row(r, "window", o->plan->window, "per pair");
    report_latency(r, "healthy", &t->healthy);
    report_latency(r, "latency", &t->latency);
    report_row(r, "messages_per_s", (double)t->measured / outcome_seconds(o, STALLING), "/s");
    report_row(r, "stalled", (double)t->stalled, "pairs");
    report_row(r, "stalled_closed", (double)t->stalled_closed, "readers, by the server");
    report_row(r, "senders_closed", (double)t->senders_closed, "who wrote to them");
    report_row(r, "stalled_resumed", (double)t->resumed, "sessions");
    report_row(r, "stalled_sent", (double)t->stalled_sent, "messages");
    report_row(r, "stalled_missing", (double)t->stalled_missing, "of these");
    report_row(r, "memory_growth_bytes", growth - before, "private, while stalled");
    report_row(r, "memory_after_bytes", (double)o->at[DRAINING].private - before,
               "private, when all had read");
}

const struct scenario scenario_slow = {
    .name = "slow",
    .unit = "pairs",
    .says = "N pairs, --stalled readers stop: do the others suffer, does memory grow, what is kept",
    .clients = scenario_two,
    .steps = steps,
    .nsteps = array_len(steps),
    .presence = true,
    .set_up = set_up,
    .ready = on_ready,
    .stanza = on_stanza,
    .failed = on_failed,
    .finish = finish,
    .print = print,
};
