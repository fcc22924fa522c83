/* processes: the parent's side, see load.h. Workers are forked before anybody has a loop; what they
 * share is one mapping (the board) and eventfds to wake each other. The parent has no loop: it
 * sleeps until a worker tells something or the step's time is over. SIGTERM ends the step that
 * lasts
 * --seconds, now or when it begins: whoever starts us may not know for how long we are needed. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/load/load.h"

enum { LOOK_MS = 500, END_MS = 10000 };

struct parent {
    const struct plan *plan;
    const struct scenario *scenario;
    struct board *board;
    struct outcome *out;
    int told_fd, stop_fd; /* stop_fd: SIGTERM */
    int wake_fd[PROCESSES_MAX];
    pid_t pid[PROCESSES_MAX]; /* 0: it has ended */
    unsigned n;
    bool tty, stopped;
};

/* ---- workers --------------------------------------------------------------------------------- */

static void make_worker(struct parent *p, struct worker *w, unsigned i)
{
    const struct plan *plan = p->plan;
    unsigned first = (unsigned)((uint64_t)plan->count * i / p->n);
    unsigned end = (unsigned)((uint64_t)plan->count * (i + 1) / p->n);
    unsigned at_once = plan->concurrent / p->n;
    *w = (struct worker){.plan = plan,
                         .scenario = p->scenario,
                         .board = p->board,
                         .share = &p->board->share[i],
                         .tally = &p->board->share[i].tally,
                         .told_fd = p->told_fd,
                         .index = i,
                         .first = first,
                         .units = end - first,
                         .per_unit = p->scenario->clients(plan),
                         .at_once = at_once ? at_once : 1,
                         .step = UINT32_MAX};
    w->nclients = w->units * w->per_unit;
}

static bool start_workers(struct parent *p)
{
    for (unsigned i = 0; i < p->n; i++) {
        p->wake_fd[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        must(p->wake_fd[i] >= 0);
    }
    for (unsigned i = 0; i < p->n; i++) {
        struct worker w;
        make_worker(p, &w, i);
        p->pid[i] = fork();
        if (p->pid[i] < 0)
            return fprintf(stderr, "pemberley-load: fork: %s\n", strerror(errno)), false;
        if (p->pid[i] == 0)
            worker_run(&w, p->wake_fd[i]);
    }
    return true;
}

/* A worker that ends before the last step is done takes the run with it. */
static bool all_live(struct parent *p)
{
    for (unsigned i = 0; i < p->n; i++) {
        int status;
        if (atomic_load(&p->board->share[i].broken))
            return false;
        if (!p->pid[i] || waitpid(p->pid[i], &status, WNOHANG) != p->pid[i])
            continue;
        p->pid[i] = 0;
        if (!WIFEXITED(status) || WEXITSTATUS(status))
            return fprintf(stderr, "pemberley-load: process %u ended\n", i), false;
    }
    return true;
}

static void stop_workers(struct parent *p)
{
    for (unsigned i = 0; i < p->n; i++)
        if (p->pid[i] > 0) {
            kill(p->pid[i], SIGKILL);
            waitpid(p->pid[i], NULL, 0);
        }
}

/* ---- steps ----------------------------------------------------------------------------------- */

static void order(struct parent *p, unsigned step)
{
    uint64_t one = 1;
    atomic_store(&p->board->order, step + 1);
    for (unsigned i = 0; i < p->n; i++)
        must(write(p->wake_fd[i], &one, sizeof one) == sizeof one);
}

static bool all_done(const struct parent *p, unsigned step)
{
    for (unsigned i = 0; i < p->n; i++)
        if (atomic_load(&p->board->share[i].done) != step + 1)
            return false;
    return true;
}

static void print_progress(const struct parent *p, const char *step)
{
    uint64_t received = 0;
    unsigned ready = 0;
    if (!p->tty)
        return;
    for (unsigned i = 0; i < p->n; i++) {
        ready += atomic_load(&p->board->share[i].ready);
        received += atomic_load(&p->board->share[i].received);
    }
    fprintf(stderr, "\r%-12s %u sessions, %llu received   ", step, ready,
            (unsigned long long)received);
}

/* Sleeps until a worker or a signal tells something, for ms at most. */
static void wait_a_while(struct parent *p, uint64_t ms)
{
    struct pollfd told[] = {{.fd = p->told_fd, .events = POLLIN},
                            {.fd = p->stop_fd, .events = POLLIN}};
    uint64_t unused;
    if (poll(told, array_len(told), ms < LOOK_MS ? (int)ms : LOOK_MS) <= 0)
        return;
    if (told[0].revents)
        must(read(p->told_fd, &unused, sizeof unused) == sizeof unused);
    p->stopped |= told[1].revents != 0;
    if (p->stopped)
        p->stop_fd = -1; /* poll() passes over it */
}

/* Until the time has come or, where that is waited for, all are done. False: a worker is broken. */
static bool wait_step(struct parent *p, unsigned step, bool waits, uint64_t ms)
{
    uint64_t until = now_us() + ms * 1000;
    const struct step *s = step < p->scenario->nsteps ? &p->scenario->steps[step] : NULL;
    for (;;) {
        uint64_t now = now_us();
        if (!all_live(p))
            return false;
        if (now >= until || (waits && all_done(p, step)) || (p->stopped && s && s->seconds))
            return true;
        wait_a_while(p, (until - now + 999) / 1000);
        print_progress(p, s ? s->name : "ending");
    }
}

static void mark(struct parent *p, unsigned i, bool memory)
{
    struct mark_at *m = &p->out->at[i];
    if (memory) {
        m->memory = server_memory(&p->plan->server);
        m->private = server_private(&p->plan->server);
    }
    m->cpu_us = server_cpu_us(&p->plan->server);
    m->us = now_us();
}

static bool run_step(struct parent *p, unsigned i)
{
    const struct step *s = &p->scenario->steps[i];
    uint64_t ms = s->seconds ? p->plan->seconds * 1000ull : s->ms;
    if (s->waits && !ms)
        ms = p->plan->timeout_s * 1000ull;
    mark(p, i, i > 0 && s[-1].memory);
    if (s->kills)
        server_kill(&p->plan->victim);
    order(p, i);
    if (!wait_step(p, i, s->waits, ms))
        return false;
    if (!s->waits || s->ms || all_done(p, i))
        return true;
    fprintf(stderr, "pemberley-load: %s: not done after %u s\n", s->name, p->plan->timeout_s);
    return false;
}

static bool run_steps(struct parent *p)
{
    unsigned n = p->scenario->nsteps;
    for (unsigned i = 0; i < n; i++)
        if (!run_step(p, i))
            return false;
    mark(p, n, p->scenario->steps[n - 1].memory);
    order(p, n);
    return wait_step(p, n, true, END_MS) && all_done(p, n);
}

/* ---- the whole ------------------------------------------------------------------------------- */

/* Blocked in the workers too, which end when we do. */
static int take_sigterm(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    must(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
    return signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
}

static void print_errors(const struct tally *t)
{
    for (unsigned i = 0; i < TALLY_ERRORS && t->error[i].n; i++)
        fprintf(stderr, "pemberley-load: %llu times: %s\n", (unsigned long long)t->error[i].n,
                t->error[i].why);
}

bool processes_run(const struct plan *plan, struct outcome *out)
{
    struct parent p = {.plan = plan,
                       .scenario = plan->scenario,
                       .out = out,
                       .n = plan->processes,
                       .tty = isatty(STDERR_FILENO)};
    p.board =
        mmap(NULL, sizeof *p.board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    p.told_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    p.stop_fd = take_sigterm();
    must(p.board != MAP_FAILED && p.told_fd >= 0 && p.stop_fd >= 0);
    out->plan = plan;
    bool ok = start_workers(&p) && run_steps(&p);
    stop_workers(&p);
    for (unsigned i = 0; i < p.n; i++)
        tally_add(&out->tally, &p.board->share[i].tally);
    munmap(p.board, sizeof *p.board);
    if (p.tty)
        fprintf(stderr, "\n");
    if (!ok)
        print_errors(&out->tally);
    return ok;
}
