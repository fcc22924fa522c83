/* rate: pairs as in `message`, but an open loop: --rate messages per second in all leave on a
 * schedule drawn beforehand (exponential gaps, as independent users make them), whatever the server
 * does, and a message's latency counts from when it *should* have left. So a server that stops for
 * a second is late for everything of that second, not for the one message a closed loop would have
 * on its way (coordinated omission). What left more than 1 ms after its time was held up by this
 * program; it is counted (sent_late), for then the machine and not the server was measured. */
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "bench/load/pairs.h"

enum { WARM_MS = 1500, DRAIN_MS = 10000, LISTEN_MS = 300, AT_ONCE = 1024, LATE_US = 1000 };

struct rate {
    struct worker *worker;
    struct pair *pairs;
    struct op alarm;
    int fd;                /* timerfd: the loop's own timers have a grain of 10 ms */
    unsigned next;         /* pair */
    double due_us, gap_us; /* the next message's time; the mean gap */
    uint64_t random;
    uint64_t begin_us, end_us; /* of what is measured, by the messages' own times */
};

static double draw_gap(struct rate *r)
{
    r->random ^= r->random << 13, r->random ^= r->random >> 7, r->random ^= r->random << 17;
    double u = (double)(r->random >> 11) / 9007199254740992.0; /* [0, 1) */
    return -log(1 - u) * r->gap_us;
}

static void set_alarm(struct rate *r)
{
    uint64_t us = (uint64_t)r->due_us;
    struct itimerspec at = {
        .it_value = {.tv_sec = (time_t)(us / 1000000), .tv_nsec = (long)(us % 1000000 * 1000)}};
    must(timerfd_settime(r->fd, TFD_TIMER_ABSTIME, &at, NULL) == 0);
    loop_poll(r->worker->rig.loop, &r->alarm, r->fd, POLLIN);
}

static void on_alarm(struct op *op, int res)
{
    struct rate *r = container_of(op, struct rate, alarm);
    struct worker *w = r->worker;
    uint64_t fired, now = now_us();
    if (read(r->fd, &fired, sizeof fired) < 0)
        must(errno == EAGAIN);
    if (!w->sending)
        return;
    for (unsigned i = 0; i < AT_ONCE && r->due_us <= (double)now; i++) {
        if (w->measuring && (double)now - r->due_us > LATE_US)
            w->tally->late++;
        pair_send(w, &r->pairs[r->next], (uint64_t)r->due_us);
        r->next = (r->next + 1) % w->units;
        r->due_us += draw_gap(r);
    }
    set_alarm(r);
}

static void set_up(struct worker *w)
{
    struct rate *r = calloc(1, sizeof *r);
    must(r);
    r->worker = w;
    r->pairs = pairs_new(w, false);
    r->alarm = (struct op){.done = on_alarm};
    r->fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    must(r->fd >= 0);
    r->random = 0x9e3779b97f4a7c15ull * (w->index + 1);
    r->gap_us = 1e6 * w->plan->count / (w->plan->rate * (w->units ? w->units : 1));
    r->end_us = UINT64_MAX;
    w->state = r;
}

static void begin_sending(struct worker *w)
{
    struct rate *r = w->state;
    if (w->units == 0)
        return;
    w->sending = true;
    r->due_us = (double)now_us() + draw_gap(r);
    set_alarm(r);
}

static void measure(struct worker *w)
{
    ((struct rate *)w->state)->begin_us = now_us();
    w->measuring = true;
}

static void drain(struct worker *w)
{
    struct rate *r = w->state;
    r->end_us = now_us();
    worker_rest(w);
    if (pairs_are_whole(w, r->pairs))
        worker_done(w);
}

static const struct step steps[] = {
    {.name = "connecting", .begin = worker_connect_all, .waits = true},
    {.name = "warming", .begin = begin_sending, .ms = WARM_MS},
    {.name = "measuring", .begin = measure, .seconds = true},
    {.name = "draining", .begin = drain, .waits = true, .ms = DRAIN_MS},
    {.name = "listening", .ms = LISTEN_MS},
};
enum { MEASURED = 2, DRAINING = 3 };

static void on_stanza(struct worker *w, struct client *c, str item, const struct xml_index *x)
{
    struct rate *r = w->state;
    struct mark m;
    if (!pair_take(w, pair_of(w, r->pairs, c), c, item, x, &m))
        return;
    w->tally->measured += w->measuring;
    if (r->begin_us && m.time_us >= r->begin_us && m.time_us < r->end_us)
        spread_count(&w->tally->latency, now_us() - m.time_us);
    if (w->step == DRAINING && w->tally->received >= w->tally->sent && pairs_are_whole(w, r->pairs))
        worker_done(w);
}

static void finish(struct worker *w) { pairs_end(w, ((struct rate *)w->state)->pairs); }

static void print(struct report *r, const struct outcome *o)
{
    double n = (double)o->tally.measured;
    report_row(r, "rate", o->plan->rate, "/s asked for");
    report_row(r, "messages", n, "");
    report_row(r, "messages_per_s", n / outcome_seconds(o, MEASURED), "/s");
    report_row(r, "sent_late", (double)o->tally.late, "more than 1 ms after their time");
    report_latency(r, "latency", &o->tally.latency);
    report_cpu(r, o, MEASURED, n, "us each");
}

const struct scenario scenario_rate = {
    .name = "rate",
    .unit = "pairs",
    .says =
        "N pairs, --rate messages/s in all, whatever comes back: latency from when they were due",
    .clients = scenario_two,
    .steps = steps,
    .nsteps = array_len(steps),
    .presence = true,
    .set_up = set_up,
    .stanza = on_stanza,
    .finish = finish,
    .print = print,
};
