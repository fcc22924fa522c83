/* bench/load: pemberley-load, an XMPP load generator for any server.
 *
 *   main.c       the command line -> a plan
 *   processes.c  the parent: makes the workers, leads them from step to step, reads the server's
 *                CPU and memory between steps, prints
 *   worker.c     a process with a loop, which holds its share of the clients
 *   client.h     one client: client.c (bytes), negotiate.c (login), kept.c (XEP-0198)
 *   pairs.h      who writes to whom, for the scenarios of messages
 *   reconnect.h  connections that are cut and come back
 *   check.h, spread.h, tally.h   what is counted
 *   report.c     progress line, table, JSON
 *   <name>.c     a scenario; all are rows of scenarios.def
 *
 * Nouns: a *plan* is what was asked for, the same in all processes. A *scenario* is a file that
 * says what its clients do, as a list of *steps*; its *units* (sessions, pairs, groups) are what is
 * shared out among the workers, so that no unit spans two. All workers do the same step at the same
 * time: a step begins when the parent says so and ends when its time is over or all workers have
 * said that they are done with it. A *tally* is what one worker has counted; the *outcome* is the
 * sum of them with the parent's marks. */
#ifndef PEMBERLEY_BENCH_LOAD_H
#define PEMBERLEY_BENCH_LOAD_H

#include "bench/load/client.h"
#include "bench/load/report.h"
#include "bench/load/server.h"
#include "bench/load/tally.h"

enum { PROCESSES_MAX = 64, STEPS_MAX = 12, WINDOW_MAX = 64 };

struct worker;
struct plan {
    const struct scenario *scenario;
    unsigned count;     /* units */
    unsigned processes; /* 0: as many as RLIMIT_NOFILE makes necessary */
    unsigned concurrent, users, window, baseline, seconds, stanza_bytes;
    unsigned roster, burst, messages, stalled, jitter_ms, timeout_s;
    double rate; /* messages per second in all */
    bool json, prepare;
    enum loop_choice loop;
    uint32_t run;         /* drawn anew for each run: see check.h */
    struct rig rig;       /* its first part: how and where to log in */
    struct server server; /* whose cost is measured */
    bool server_known;
    struct server victim; /* --kill: these die instead of connections being cut; else none */
};

/* ---- scenarios ---- */

struct step {
    const char *name;
    void (*begin)(struct worker *w); /* in each worker; may be NULL */
    bool waits;                      /* until all workers have said worker_done … */
    bool seconds;                    /* … or for the plan's seconds … */
    uint32_t ms;                     /* … or for so long; a waiting step: at most, 0: --timeout */
    bool memory;                     /* the server's memory is read when it has ended */
    bool kills;                      /* --kill's processes die just before it */
};

struct mark_at { /* the parent's, when a step begins */
    uint64_t us;
    double cpu_us;
    uint64_t memory, private;
};
struct outcome {
    const struct plan *plan;
    struct tally tally;
    struct mark_at at[STEPS_MAX + 1]; /* at[i + 1]: the end of step i */
};

struct scenario {
    const char *name, *unit, *says;
    unsigned (*clients)(const struct plan *p); /* per unit */
    const struct step *steps;
    unsigned nsteps, measured;        /* measured: the step whose time and CPU are the figures */
    bool presence;                    /* clients ask for the roster and send presence */
    bool reconnects;                  /* a client may have two sockets for a moment */
    bool sm;                          /* XEP-0198 whatever the command line says */
    void (*set_up)(struct worker *w); /* before the first step; makes w->state */
    void (*ready)(struct worker *w, struct client *c);
    void (*stanza)(struct worker *w, struct client *c, str item, const struct xml_index *x);
    void (*roster)(struct worker *w, struct client *c, str item);
    /* True: it is part of the scenario and has been dealt with; else the run has failed. */
    bool (*failed)(struct worker *w, struct client *c, const char *why);
    void (*acked)(struct worker *w, struct client *c);
    void (*finish)(struct worker *w); /* after the last step: what is still missing is lost */
    void (*print)(struct report *r, const struct outcome *o);
};
unsigned scenario_one(const struct plan *p); /* clients per unit: 1 */
unsigned scenario_two(const struct plan *p);
#define SCENARIO(name) extern const struct scenario scenario_##name;
#include "bench/load/scenarios.def"
#undef SCENARIO

/* A step's seconds, and the server's CPU in it. */
double outcome_seconds(const struct outcome *o, unsigned step);
double outcome_cpu_us(const struct outcome *o, unsigned step);

/* ---- workers ---- */

struct share {               /* a worker's page, written by it, read by the parent */
    _Atomic uint32_t done;   /* steps it is done with */
    _Atomic uint32_t broken; /* it has said why on stderr */
    _Atomic uint32_t ready;  /* sessions */
    _Atomic uint64_t received;
    struct tally tally; /* the parent reads it after the worker has ended */
};
struct board {              /* shared by all */
    _Atomic uint32_t order; /* steps the parent has begun */
    struct share share[PROCESSES_MAX];
};

struct worker {
    struct rig rig;
    const struct plan *plan;
    const struct scenario *scenario;
    struct board *board;
    struct share *share;
    struct tally *tally;
    int told_fd;                    /* the parent's eventfd */
    unsigned index;                 /* of the worker */
    unsigned first, units;          /* its units: [first, first + units) of the plan's count */
    unsigned per_unit, nclients;    /* clients: the first of each unit, then
                                     * the second of each … */
    unsigned opened, ready, target; /* clients: [0, target) are to be logged in */
    unsigned at_once;               /* logins */
    struct client *clients;
    unsigned step; /* that is being done; the one before the first: UINT32_MAX */
    bool sending, measuring;
    struct loop_source orders;
    struct timer progress;
    void *state; /* the scenario's */
};

/* In the worker's process: does what the board says, then ends. */
_Noreturn void worker_run(struct worker *w, int wake_fd);
/* The share of `all` (units, sessions, messages) that falls to this worker. */
unsigned worker_share(const struct worker *w, unsigned all);
/* Logs the clients [0, target) in, at_once at a time, and is done when all are ready. */
void worker_connect(struct worker *w, unsigned target);
void worker_connect_all(struct worker *w); /* for steps */
/* This worker is done with the step that is being done. */
void worker_done(struct worker *w);
/* The run makes no sense any more; why is printed. */
void worker_break(struct worker *w, const char *why);
static inline struct worker *worker_of(const struct client *c)
{
    return container_of(c->rig, struct worker, rig);
}
static inline struct client *worker_client(struct worker *w, unsigned unit, unsigned i)
{
    return &w->clients[i * w->units + unit];
}
/* For steps. */
void worker_measure(struct worker *w);
void worker_rest(struct worker *w); /* nothing new is sent, nothing more is measured */

/* ---- the parent ---- */

/* Runs the plan; false: it has said why not. */
bool processes_run(const struct plan *p, struct outcome *out);

#endif
