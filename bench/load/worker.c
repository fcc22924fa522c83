/* worker: one process with one loop, which holds its share of the clients and does what the board
 * orders; see load.h. It is woken through its eventfd, tells the parent through the parent's. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "bench/load/load.h"

enum { PROGRESS_MS = 250, CLOSE_MS = 3000 };

static void tell(struct worker *w)
{
    uint64_t one = 1;
    must(write(w->told_fd, &one, sizeof one) == sizeof one);
}

void worker_done(struct worker *w)
{
    atomic_store(&w->share->done, w->step + 1);
    tell(w);
}

void worker_break(struct worker *w, const char *why)
{
    if (!atomic_load(&w->share->broken))
        fprintf(stderr, "\npemberley-load: %s\n", why);
    atomic_store(&w->share->broken, 1);
    tell(w);
}

unsigned worker_share(const struct worker *w, unsigned all)
{
    uint64_t n = w->plan->count;
    return (unsigned)((uint64_t)all * (w->first + w->units) / n - (uint64_t)all * w->first / n);
}

/* ---- logging in ------------------------------------------------------------------------------ */

static void open_more(struct worker *w)
{
    while (w->opened < w->target && w->opened - w->ready < w->at_once &&
           !atomic_load(&w->share->broken))
        client_open(&w->clients[w->opened++]);
}

void worker_connect(struct worker *w, unsigned target)
{
    w->target = target;
    if (w->ready == target)
        worker_done(w);
    open_more(w);
}

void worker_connect_all(struct worker *w) { worker_connect(w, w->nclients); }

void worker_measure(struct worker *w) { w->measuring = true; }
void worker_rest(struct worker *w) { w->sending = w->measuring = false; }

static void on_ready(struct client *c)
{
    struct worker *w = worker_of(c);
    spread_count(&w->tally->login, now_us() - c->began_us);
    w->tally->tls_resumed += c->tls_resumed;
    w->ready++;
    atomic_store(&w->share->ready, w->ready);
    if (w->scenario->ready)
        w->scenario->ready(w, c);
    if (w->ready == w->target)
        worker_done(w);
    else
        open_more(w);
}

static void on_failed(struct client *c, const char *why)
{
    struct worker *w = worker_of(c);
    tally_error(w->tally, why, 1);
    if (w->scenario->failed && w->scenario->failed(w, c, why))
        return;
    char text[256];
    snprintf(text, sizeof text, "session %u (%s%u): %s", c->index, c->rig->prefix, c->user, why);
    worker_break(w, text);
}

static void on_stanza(struct client *c, str item, const struct xml_index *x)
{
    struct worker *w = worker_of(c);
    if (w->scenario->stanza)
        w->scenario->stanza(w, c, item, x);
}

static void on_roster(struct client *c, str item)
{
    struct worker *w = worker_of(c);
    if (w->scenario->roster)
        w->scenario->roster(w, c, item);
}

static void on_acked(struct client *c)
{
    struct worker *w = worker_of(c);
    if (w->scenario->acked)
        w->scenario->acked(w, c);
}

static void on_closed(struct client *c) { worker_of(c)->ready--; }

static const struct client_calls calls = {on_ready, on_stanza, on_roster,
                                          on_acked, on_failed, on_closed};

/* ---- orders ---------------------------------------------------------------------------------- */

static bool take_orders(struct loop_source *s)
{
    struct worker *w = container_of(s, struct worker, orders);
    uint32_t order = atomic_load(&w->board->order);
    if (order == w->step + 1)
        return false;
    w->step = order - 1;
    if (w->step < w->scenario->nsteps && w->scenario->steps[w->step].begin)
        w->scenario->steps[w->step].begin(w);
    return true;
}

static void on_sleep(struct loop_source *s, bool sleeping) {}

static void on_progress(struct timer *t)
{
    struct worker *w = container_of(t, struct worker, progress);
    atomic_store(&w->share->received, w->tally->received);
    loop_timer_set(w->rig.loop, t, PROGRESS_MS);
}

/* ---- life ------------------------------------------------------------------------------------ */

static void set_up(struct worker *w, int wake_fd)
{
    static const unsigned char secret[TLS_SECRET_SIZE];
    const struct plan *p = w->plan;
    struct rig *r = &w->rig;
    struct loop_config lc = {.choice = p->loop, .wake_fd = wake_fd};
    struct loop_fault fault;
    *r = p->rig;
    must(loop_new(&lc, &fault, &r->loop) == ERR_OK);
    clock_real_init(&r->clock);
    entropy_real_init(&r->entropy);
    arena_init(&r->turn);
    r->scan = xml_scan_new();
    struct tls_config tc = {.version_min = 0x0303, .secret = secret, .clock = &r->clock};
    r->tls = tls_new(&tc);
    r->calls = &calls;
    w->orders = (struct loop_source){.poll = take_orders, .sleep = on_sleep};
    loop_source_add(r->loop, &w->orders);
    timer_init(&w->progress, on_progress);
    loop_timer_set(r->loop, &w->progress, PROGRESS_MS);
}

static void make_clients(struct worker *w)
{
    w->clients = calloc(w->nclients, sizeof *w->clients);
    must(w->clients);
    for (unsigned unit = 0; unit < w->units; unit++)
        for (unsigned i = 0; i < w->per_unit; i++) {
            unsigned index = (w->first + unit) * w->per_unit + i;
            client_init(worker_client(w, unit, i), &w->rig, index, w->first + unit,
                        index % w->plan->users, index / w->plan->users);
        }
}

static void turn(struct worker *w, uint64_t wait_ms)
{
    loop_turn(w->rig.loop, wait_ms);
    arena_reset(&w->rig.turn);
}

/* Streams end as they should: a session with XEP-0198 would wait for its client otherwise, and
 * keep what it has for it. */
static void close_all(struct worker *w)
{
    uint64_t until = now_us() + CLOSE_MS * 1000;
    for (unsigned i = 0; i < w->nclients; i++)
        if (w->clients[i].step == CLIENT_READY)
            client_close(&w->clients[i]);
    for (unsigned left = 1; left && now_us() < until; turn(w, 10)) {
        left = 0;
        for (unsigned i = 0; i < w->nclients && !left; i++)
            left = w->clients[i].step == CLIENT_CLOSING;
    }
}

_Noreturn void worker_run(struct worker *w, int wake_fd)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    set_up(w, wake_fd);
    make_clients(w);
    if (w->scenario->set_up)
        w->scenario->set_up(w);
    while (w->step == UINT32_MAX || w->step < w->scenario->nsteps)
        turn(w, 1000);
    if (w->scenario->finish)
        w->scenario->finish(w);
    close_all(w);
    worker_done(w);
    _exit(0);
}
