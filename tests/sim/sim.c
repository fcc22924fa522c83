/* sim: a node of two to five shards in one process, on virtual time, and everything that happens to
 * it from one seed: how long each frame takes, who dies when, what clients do (delivery.md 5, 8,
 * 9). The checkers know only what clients see and what a shard counts of itself:
 *
 *   - what was acknowledged (XEP-0198) arrives once at each resource, and in order; where nobody
 * has heard it in the end, when all are there, it is lost (client.c);
 *   - h never goes back and never beyond what was sent (client.c);
 *   - when all is quiet each client sees of its contacts and other resources what is so;
 *   - nothing waits for ever: no frame without its ack, no session without a second holder, no copy
 *     that nobody needs, nothing in a queue.
 *
 * One failure at a time: the next comes when the copies are complete again. With `anytime` they
 * come as they like; from the first that came too early messages may be lost or come twice, and
 * only the rest is checked.
 *
 *   sim [--seeds N] [--first SEED] [--jobs N]   each in a process of its own
 *   sim --seed SEED                             that one, with a trace
 *   sim --hours H                               seeds until then
 *   sim --canaries [--seeds N]                  each canary must be found
 *   sim --canary NAME …                         with that one
 *   sim --nodes N …                             a cluster of N nodes of one to three shards */
#include "tests/sim/sim.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "proto/bus/store.pb-c.h"
#include "tests/sim/cluster.h"

enum {
    TICK_US = 10000,
    SETTLED_US = 700000, /* far more than frames and stalls take */
    EVENTS_MAX = 64,
    SEED_SECONDS_MAX = 60,    /* of real time */
    QUIET_US_MAX = 120000000, /* who floods each other gets on by a window a second (edge/out.c) */
};

void sim_story(struct sim *s, const char *fmt, ...)
{
    size_t n = strlen(s->story);
    va_list args;
    va_start(args, fmt);
    n += (size_t)snprintf(s->story + n, sizeof s->story - n, "%.4f ", (double)s->w.now_us / 1e6);
    if (n < sizeof s->story)
        n += (size_t)vsnprintf(s->story + n, sizeof s->story - n, fmt, args);
    if (n < sizeof s->story)
        snprintf(s->story + n, sizeof s->story - n, "\n");
    va_end(args);
}

void sim_fail(struct sim *s, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    printf("seed %llu failed at %.4f: ", (unsigned long long)s->seed, (double)s->w.now_us / 1e6);
    vprintf(fmt, args);
    printf("\n%s", s->story);
    va_end(args);
    fflush(NULL);
    _exit(1);
}

/* ---- the plan ---- */

static uint64_t below(struct sim *s, uint64_t n) { return world_random(&s->w, n); }
static bool chance(struct sim *s, unsigned percent) { return below(s, 100) < percent; }
static uint64_t between(struct sim *s, uint64_t a, uint64_t b) { return a + below(s, b - a + 1); }

/* What the supervisor is going to say. */
struct telling {
    uint64_t due_us;
    unsigned who, peer;
    uint32_t incarnation; /* of the peer */
    bool up;
};

struct plan {
    struct sim *sim;
    uint64_t plan_us; /* of several nodes: the next planned change, or trouble on a rail */
    uint64_t ends_us, kill_us, restart_us[WORLD_ENDS], troubled_us, store_well_us;
    unsigned kills, stalls_percent, changes;
    unsigned cut_off; /* 1 + the node that is, and stops at fence_us */
    uint64_t fence_us;
    enum { STORE_WELL, STORE_SLOW, STORE_FULL, STORE_STUCK } store;
    uint64_t resume_timeout_us, pace_us;
    struct telling telling[EVENTS_MAX];
    unsigned tellings;
};

static struct plan plan;

static uint64_t delay_us(struct world *w, unsigned from, unsigned to)
{
    struct sim *s = w->ctx;
    uint64_t d = 1 + world_random(w, 200);
    if (plan.store == STORE_SLOW && to == world_store(w))
        d += world_random(w, 400000);
    if (plan.store == STORE_STUCK && from == world_store(w))
        d += 9000000;
    uint64_t *stall = &s->stall_until_us[from][to];
    if (plan.stalls_percent && world_random(w, 1000) < plan.stalls_percent)
        *stall = w->now_us + world_random(w, 60000);
    return *stall > w->now_us ? *stall - w->now_us + d : d;
}

static bool refuse(struct world *w, unsigned op, int *result)
{
    if (plan.store != STORE_FULL || op == STORE__REQUEST__OP_USER_LOAD ||
        op == STORE__REQUEST__OP_OFFLINE_GET || op == STORE__REQUEST__OP_ENDED_GET)
        return false;
    *result = STORE__RESULT__DISK_FULL;
    return true;
}

static void settings_of(struct sim *s, char timeout[32], char unsafe[32])
{
    static const unsigned seconds[] = {2, 20, 600}, windows[] = {8, 64, 64};
    unsigned k = (unsigned)(hash_u64(s->seed ^ 1) % array_len(seconds));
    plan.resume_timeout_us = seconds[k] * 1000000ull;
    snprintf(timeout, 32, "limits.resume_timeout=%us", seconds[k]);
    snprintf(unsafe, 32, "limits.unsafe_max=%u", windows[hash_u64(s->seed ^ 2) % 3]);
}

static void make_friends(struct sim *s)
{
    for (unsigned i = 0; i < s->accounts; i++)
        for (unsigned k = 0; k < i; k++)
            s->friends[i][k] = s->friends[k][i] = chance(s, 70);
    for (unsigned i = 0; i < s->accounts; i++) {
        const char *of[CLIENTS_MAX];
        unsigned n = 0;
        for (unsigned k = 0; k < s->accounts; k++)
            if (s->friends[i][k])
                of[n++] = s->bare[k];
        s->friends[i][i] = true; /* its other resources */
        world_befriend(&s->w, s->bare[i], of, n);
    }
}

static struct manner some_manner(struct sim *s)
{
    return (struct manner){.sm = chance(s, 80),
                           .resends = chance(s, 70),
                           .lazy = chance(s, 30),
                           .forgets = chance(s, 12)};
}

static void make_clients(struct sim *s)
{
    s->accounts = (unsigned)between(s, 2, 4);
    for (unsigned i = 0; i < s->accounts; i++) {
        snprintf(s->bare[i], sizeof s->bare[i], "u%llu@localhost",
                 (unsigned long long)below(s, 1000000) * 8 + i);
        world_account(&s->w, s->bare[i]);
    }
    make_friends(s);
    for (unsigned i = 0; i < s->accounts; i++)
        for (uint64_t n = between(s, 1, 3); n; n--) {
            struct client *c = client_new(s, s->clients, i);
            c->manner = some_manner(s);
            c->next_us = s->w.now_us + below(s, 100000);
            s->client[s->clients++] = c;
        }
}

static void open_plan(struct sim *s)
{
    struct plan *p = &plan;
    p->sim = s;
    p->ends_us = s->w.now_us + between(s, 1500000, 4000000);
    p->kills = (unsigned)between(s, 1, 4);
    p->kill_us = s->w.now_us + between(s, 100000, 900000);
    p->stalls_percent = chance(s, 50) ? (unsigned)between(s, 1, 30) : 0;
    p->pace_us = between(s, 500, 20000);
    s->anytime = chance(s, 10);
    s->store_fails = chance(s, 10);
    sim_story(s, "%u shards, resume timeout %llu s, pace %llu us%s%s", s->w.shards,
              (unsigned long long)p->resume_timeout_us / 1000000, (unsigned long long)p->pace_us,
              s->anytime ? ", kills at any time" : "", s->store_fails ? ", the store fails" : "");
    for (unsigned i = 0; i < s->clients; i++) {
        const struct client *c = s->client[i];
        sim_story(s, "%s home %u%s%s%s%s", c->full, world_home(&s->w, c->bare),
                  c->manner.sm ? " sm" : "", c->manner.resends ? " resends" : "",
                  c->manner.lazy ? " lazy" : "", c->manner.forgets ? " forgets" : "");
    }
}

/* ---- the supervisor ---- */

static void tell(unsigned who, unsigned peer, bool up, uint64_t in_us)
{
    struct plan *p = &plan;
    uint64_t due = p->sim->w.now_us + in_us;
    for (unsigned i = 0; i < p->tellings; i++) /* one after the other */
        if (p->telling[i].who == who && p->telling[i].due_us > due)
            due = p->telling[i].due_us;
    must(p->tellings < EVENTS_MAX);
    p->telling[p->tellings++] = (struct telling){due, who, peer, p->sim->w.incarnation[peer], up};
}

static bool run_tellings(void)
{
    struct plan *p = &plan;
    struct world *w = &p->sim->w;
    bool any = false;
    for (unsigned i = 0; i < p->tellings;) {
        struct telling t = p->telling[i];
        if (t.due_us > w->now_us) {
            i++;
            continue;
        }
        memmove(&p->telling[i], &p->telling[i + 1], (p->tellings - i - 1) * sizeof *p->telling);
        p->tellings--;
        any = true;
        p->troubled_us = w->now_us;
        if (t.up)
            world_tell_up(w, t.who, t.peer);
        else if (w->shard[t.who] && w->shard[t.who]->met[t.peer] == t.incarnation)
            world_tell_down(w, t.who, t.peer);
    }
    return any;
}

static void tell_all(unsigned peer, bool up)
{
    struct world *w = &plan.sim->w;
    if (w->nodes && peer != world_store(w))
        return; /* membership says it */
    for (unsigned i = 0; i < w->shards; i++)
        if (i != peer && w->shard[i])
            tell(i, peer, up, below(plan.sim, 20000));
}

static uint64_t restart_in(struct sim *s)
{
    return chance(s, 10) ? between(s, 500000, 3000000) : between(s, 1000, 100000);
}

static void kill_shard(struct sim *s, unsigned victim)
{
    sim_story(s, "shard %u is killed", victim);
    lines_shard_died(s, victim);
    world_kill(&s->w, victim);
    plan.restart_us[victim] = s->w.now_us + restart_in(s);
    tell_all(victim, false);
}

static void kill_store(struct sim *s)
{
    sim_story(s, "the store worker is killed");
    world_store_kill(&s->w);
    plan.restart_us[world_store(&s->w)] = s->w.now_us + between(s, 1000, 200000);
    tell_all(world_store(&s->w), false);
}

static void restart(struct sim *s, unsigned end)
{
    struct world *w = &s->w;
    plan.restart_us[end] = 0;
    plan.troubled_us = w->now_us;
    if (end == world_store(w)) {
        world_store_start(w);
        sim_story(s, "the store worker is back");
    } else {
        world_start(w, end);
        sim_story(s, "shard %u is back", end);
        for (unsigned i = w->nodes ? world_store(w) : 0; i < WORLD_ENDS; i++)
            if (i != end && (i == world_store(w) ? w->store_up : i < w->shards && w->shard[i]))
                tell(end, i, true, below(s, 20000));
    }
    tell_all(end, true);
}

static bool all_have_met(const struct sim *s)
{
    const struct world *w = &s->w;
    for (unsigned i = 0; i < w->shards; i++) {
        if (!w->shard[i] || !w->store_up || w->shard[i]->met[world_store(w)] == 0)
            return false;
        for (unsigned k = 0; !w->nodes && k < w->shards; k++)
            if (i != k && !world_have_met(w, i, k))
                return false;
    }
    return !w->nodes || cluster_is_settled(w);
}

static bool is_complete(const struct sim *s)
{
    return all_have_met(s) && !plan.tellings && s->w.now_us > plan.troubled_us + SETTLED_US &&
           s->w.now_us > plan.store_well_us + SETTLED_US && plan.store == STORE_WELL &&
           world_metric(&s->w, METRIC_copies_missing) == 0;
}

static void kill_node(struct sim *s, unsigned node)
{
    uint64_t back_us = s->w.now_us + between(s, 400000, 1500000);
    sim_story(s, "node %u is killed", node);
    for (unsigned i = 0; i < s->w.per; i++) {
        unsigned shard = node * s->w.per + i;
        if (s->w.shard[shard])
            kill_shard(s, shard);
        plan.restart_us[shard] = back_us;
    }
}

/* Cut off from the others it ends (its lease has run out) before they go on without it. */
static void cut_off(struct sim *s, unsigned node)
{
    sim_story(s, "node %u is cut off", node);
    plan.cut_off = 1 + node, plan.fence_us = s->w.now_us + between(s, 50000, 300000);
    for (unsigned i = 0; i < s->w.nodes; i++)
        if (i != node) {
            cluster_cut(&s->w, node, i, plan.fence_us - s->w.now_us + 1000);
            cluster_cut(&s->w, i, node, plan.fence_us - s->w.now_us + 1000);
        }
}

static void maybe_fence(struct sim *s)
{
    if (!plan.cut_off || s->w.now_us < plan.fence_us)
        return;
    kill_node(s, plan.cut_off - 1);
    plan.cut_off = 0;
}

static void kill_something(struct sim *s)
{
    struct world *w = &s->w;
    unsigned victim = (unsigned)below(s, w->shards + 1),
             kind = w->nodes ? (unsigned)below(s, 10) : 9;
    if (kind < 3)
        kill_node(s, (unsigned)below(s, w->nodes));
    else if (kind < 5)
        cut_off(s, (unsigned)below(s, w->nodes));
    else if (victim == w->shards && w->store_up)
        kill_store(s);
    else if (victim < w->shards && w->shard[victim])
        kill_shard(s, victim);
}

/* Weights, drains, rails that break for a moment: at any time, they are no failures. */
static void maybe_change(struct sim *s)
{
    struct plan *p = &plan;
    struct world *w = &s->w;
    if (!w->nodes || w->now_us < p->plan_us || w->now_us > p->ends_us || p->cut_off)
        return;
    p->plan_us = w->now_us + between(s, 5000, 600000);
    unsigned node = (unsigned)below(s, w->nodes), other = (unsigned)below(s, w->nodes);
    switch (below(s, 8)) {
    case 0:
    case 1: cluster_drain(w, node, true); break;
    case 2:
    case 3: cluster_drain(w, node, false); break;
    case 4: cluster_weigh(w, node, (unsigned)between(s, 1, 300)); break;
    case 5:
    case 6:
        if (node != other)
            cluster_cut(w, node, other, between(s, 2000, 80000));
        break;
    default: break;
    }
}

static void maybe_kill(struct sim *s)
{
    struct plan *p = &plan;
    struct world *w = &s->w;
    if (!p->kills || w->now_us < p->kill_us || w->now_us > p->ends_us)
        return;
    if (!s->anytime && !is_complete(s)) {
        p->kill_us = w->now_us + between(s, 1000, 100000);
        return;
    }
    s->overlapped |= !is_complete(s);
    p->kills--;
    p->kill_us = w->now_us + between(s, 1000, 1500000);
    kill_something(s);
}

static void maybe_store_trouble(struct sim *s)
{
    struct plan *p = &plan;
    if (p->store != STORE_WELL && s->w.now_us > p->store_well_us) {
        p->store = STORE_WELL;
        sim_story(s, "the store is well");
    } else if (p->store == STORE_WELL && s->w.now_us < p->ends_us && chance(s, 1)) {
        p->store =
            s->store_fails && chance(s, 70) ? chance(s, 50) ? STORE_FULL : STORE_STUCK : STORE_SLOW;
        p->store_well_us = s->w.now_us + between(s, 10000, 500000);
        sim_story(s, "the store is %s",
                  p->store == STORE_SLOW   ? "slow"
                  : p->store == STORE_FULL ? "full"
                                           : "stuck");
    }
}

/* ---- what clients do ---- */

static unsigned some_shard(struct sim *s)
{
    unsigned i = (unsigned)below(s, s->w.shards);
    for (unsigned n = 0; n < s->w.shards && !world_is_ready(&s->w, i); n++)
        i = (i + 1) % s->w.shards;
    return i;
}

static void pause_for(struct client *c)
{
    struct sim *s = c->sim;
    bool long_one = chance(s, 10) && plan.resume_timeout_us < 3000000;
    c->next_us = s->w.now_us +
                 (long_one ? plan.resume_timeout_us + below(s, 200000) : between(s, 500, 200000));
}

static void be_bound(struct client *c)
{
    struct sim *s = c->sim;
    unsigned k = (unsigned)below(s, 1000);
    c->next_us = s->w.now_us + between(s, plan.pace_us / 4, plan.pace_us * 2);
    if (c->slow)
        c->slow = chance(s, 95);
    if (k < 600)
        for (uint64_t n = between(s, 1, 4), to = below(s, s->clients), full = below(s, 2); n; n--)
            client_message(c, (unsigned)to, full);
    else if (k < 800)
        client_request(c);
    else if (k < 860)
        client_presence(c, chance(s, 80));
    else if (k < 900)
        client_ack(c);
    else if (k < 910)
        c->slow = true;
    else if (k < 916)
        client_leave(c), pause_for(c);
    else if (k < 930)
        client_cut(c, below(s, 20000)), pause_for(c);
    else if (k < 938)
        client_cut(c, between(s, 500000, 3000000)), pause_for(c);
}

static void do_deed(struct client *c)
{
    struct sim *s = c->sim;
    unsigned there = some_shard(s);
    bool alive = world_is_ready(&s->w, there);
    if (!c->line) {
        c->slow = false;
        c->next_us = s->w.now_us + 1000;
        if (alive)
            client_dial(c, there);
    } else if (c->state == CLIENT_BOUND) {
        if (s->w.now_us < plan.ends_us)
            be_bound(c);
        else
            c->slow = false, c->next_us = s->w.now_us + 100000;
    } else {
        c->slow = false;
        c->next_us = s->w.now_us + between(s, 1000, 50000);
    }
}

/* ---- time goes on ---- */

static uint64_t sooner(uint64_t a, uint64_t b) { return a < b ? a : b; }

static uint64_t next_us(struct sim *s)
{
    struct world *w = &s->w;
    uint64_t next = (w->now_us / TICK_US + 1) * TICK_US;
    next = sooner(next, world_next_us(w));
    next = sooner(next, lines_next_us(s));
    for (unsigned i = 0; i < plan.tellings; i++)
        next = sooner(next, plan.telling[i].due_us);
    for (unsigned i = 0; i < s->clients; i++)
        next = sooner(next, s->client[i]->next_us);
    if (plan.kills && w->now_us < plan.ends_us)
        next = sooner(next, plan.kill_us);
    if (w->nodes)
        next = sooner(next, cluster_next_us(w));
    if (w->nodes && w->now_us < plan.ends_us)
        next = sooner(next, plan.plan_us);
    return next > w->now_us ? next : w->now_us + 1;
}

static void tick(struct sim *s)
{
    maybe_store_trouble(s);
    for (unsigned i = 0; i < s->w.shards; i++)
        world_turn(&s->w, i);
}

static void now(struct sim *s)
{
    struct world *w = &s->w;
    bool any = true;
    for (int i = 0; any; i++) {
        must(i < 100000);
        any = world_deliver(w);
        any |= lines_turn(s);
        for (unsigned k = 0; k < s->clients; k++)
            any |= client_turn(s->client[k]);
        any |= run_tellings();
        any |= w->nodes && cluster_turn(w);
        for (unsigned k = 0; k < w->shards; k++)
            if (w->shard[k] && w->shard[k]->stirred)
                world_turn(w, k), any = true;
    }
}

static void step(struct sim *s)
{
    struct world *w = &s->w;
    w->now_us = next_us(s);
    if (w->now_us % TICK_US == 0)
        tick(s);
    now(s);
    for (unsigned i = 0; i < WORLD_ENDS; i++)
        if (plan.restart_us[i] && plan.restart_us[i] <= w->now_us)
            restart(s, i);
    maybe_fence(s);
    maybe_change(s);
    maybe_kill(s);
    for (unsigned i = 0; i < s->clients; i++)
        if (s->client[i]->next_us <= w->now_us)
            do_deed(s->client[i]);
}

static void pass(struct sim *s, uint64_t us)
{
    for (uint64_t end = s->w.now_us + us; s->w.now_us < end;)
        step(s);
}

/* ---- judgement ---- */

static bool all_are_there(const struct sim *s)
{
    for (unsigned i = 0; i < s->clients; i++)
        if (s->client[i]->state != CLIENT_BOUND || !s->client[i]->line)
            return false;
    return true;
}

static void judge_presence(struct sim *s)
{
    for (unsigned i = 0; i < s->clients; i++)
        for (unsigned k = 0; k < s->clients; k++) {
            const struct client *c = s->client[i], *of = s->client[k];
            unsigned truth = s->friends[c->account][of->account] ? of->status : 0;
            if (i != k && c->status && c->seen[k] != truth)
                sim_fail(s, "%s sees status %u of %s, which is %u", c->full, c->seen[k], of->full,
                         truth);
        }
}

static void judge_messages(struct sim *s)
{
    for (unsigned n = 1; n <= s->messages; n++) {
        const struct message *m = &s->message[n];
        const struct client *from = s->client[m->from];
        bool bounced = m->bounced || (s->store_fails && from->session != m->session);
        if (m->confirmed && !m->heard && !bounced && !m->excused)
            sim_fail(s, "%u from %s to %s%s, sent at %.4f, was acknowledged and is lost", n,
                     from->full, s->client[m->to]->full, m->full ? "" : " (bare)",
                     (double)m->sent_us / 1e6);
    }
}

/* Of these somebody else than their edge is the second holder. */
static size_t copies_needed(const struct sim *s)
{
    size_t n = 0;
    for (unsigned i = 0; i < s->clients; i++) {
        const struct client *c = s->client[i];
        n += c->line && world_same_domain(&s->w, c->line->shard, world_home(&s->w, c->bare));
    }
    return n;
}

static void judge_counts(struct sim *s)
{
    static const struct {
        enum metric metric;
        const char *name;
    } none[] = {{METRIC_sessions_detached, "detached sessions"},
                {METRIC_copies_missing, "copies missing"},
                {METRIC_unacked_stanzas, "un-acked stanzas"},
                {METRIC_stanzas_unsafe, "unsafe stanzas"}};
    for (size_t i = 0; i < array_len(none); i++)
        if (world_metric(&s->w, none[i].metric))
            sim_fail(s, "%lld %s in the end", (long long)world_metric(&s->w, none[i].metric),
                     none[i].name);
    if (world_metric(&s->w, METRIC_sessions_connected) != s->clients)
        sim_fail(s, "%lld sessions in the end, %u clients",
                 (long long)world_metric(&s->w, METRIC_sessions_connected), s->clients);
    if (world_unacked(&s->w))
        sim_fail(s, "%zu frames without their ack in the end", world_unacked(&s->w));
    if (world_copies(&s->w) != copies_needed(s))
        sim_fail(s, "%zu copies in the end, %zu are needed", world_copies(&s->w), copies_needed(s));
}

static bool is_quiet(const struct sim *s)
{
    return all_are_there(s) && world_unacked(&s->w) == 0 &&
           world_metric(&s->w, METRIC_unacked_stanzas) == 0 &&
           world_metric(&s->w, METRIC_sessions_detached) == 0;
}

/* All well, all there, all said. */
static void heal(struct sim *s)
{
    struct plan *p = &plan;
    p->kills = 0, p->stalls_percent = 0;
    for (unsigned i = 0; i < s->clients; i++)
        s->client[i]->slow = false, s->client[i]->quiet = true;
    sim_story(s, "no more failures");
    for (uint64_t end = s->w.now_us + QUIET_US_MAX; !all_have_met(s) || !all_are_there(s);) {
        pass(s, 100000);
        if (s->w.now_us > end)
            sim_fail(s, "not everybody is there in the end");
    }
}

static void quiet(struct sim *s)
{
    for (unsigned i = 0; i < s->clients; i++)
        client_ack(s->client[i]);
    pass(s, 1000000);
    for (uint64_t end = s->w.now_us + QUIET_US_MAX; !is_quiet(s) && s->w.now_us < end;) {
        for (unsigned i = 0; i < s->clients; i++)
            client_ack(s->client[i]);
        pass(s, 500000);
    }
}

/* Each says something to everybody: it must be acknowledged and arrive. */
static void talk_once_more(struct sim *s)
{
    unsigned first = s->messages + 1;
    for (unsigned i = 0; i < s->clients; i++) {
        if (!s->client[i]->status)
            client_presence(s->client[i], true);
        for (unsigned k = 0; k < s->clients; k++)
            client_message(s->client[i], k, k & 1);
        client_request(s->client[i]);
    }
    quiet(s);
    for (unsigned i = 0; i < s->clients; i++)
        client_request(s->client[i]);
    quiet(s);
    for (unsigned n = first; n <= s->messages; n++) {
        const struct message *m = &s->message[n];
        if (!m->heard)
            sim_fail(s, "%u from %s to %s did not arrive in the end", n, s->client[m->from]->full,
                     s->client[m->to]->full);
        if (!m->confirmed && s->client[m->from]->counting)
            sim_fail(s, "%u from %s was not acknowledged in the end", n, s->client[m->from]->full);
    }
}

static void judge(struct sim *s)
{
    heal(s);
    quiet(s);
    if (!s->overlapped)
        judge_presence(s);
    talk_once_more(s);
    if (!s->overlapped) {
        judge_presence(s);
        judge_messages(s);
    }
    judge_counts(s);
}

/* Nobody comes before the first view is settled. */
static void meet_in_cluster(struct sim *s)
{
    for (int i = 0; !cluster_is_settled(&s->w); i++) {
        must(i < 10000);
        step(s);
    }
}

static void run_seed(uint64_t seed, unsigned nodes, enum canary canary, bool trace)
{
    struct sim *s = calloc(1, sizeof *s);
    char timeout[32], unsafe[32];
    must(s);
    s->seed = seed;
    memset(&plan, 0, sizeof plan);
    settings_of(s, timeout, unsafe);
    const char *settings[] = {timeout, unsafe, NULL};
    list_init(&s->lines);
    plan.sim = s;
    s->w.ctx = s, s->w.trace = trace, s->w.hooks = canary_hooks(canary);
    unsigned shards =
        nodes ? 1 + (unsigned)(hash_u64(seed ^ 3) % 3) : 2 + (unsigned)(hash_u64(seed ^ 3) % 4);
    world_open(&s->w, nodes, shards, seed, settings);
    if (nodes)
        meet_in_cluster(s);
    make_clients(s);
    open_plan(s);
    s->w.delay_us = delay_us, s->w.refuse = refuse;
    if (trace)
        printf("%s", s->story);
    while (s->w.now_us < plan.ends_us)
        step(s);
    judge(s);
    if (trace)
        printf("%ssimulated %.1f s, %u messages\n", s->story, (double)s->w.now_us / 1e6,
               s->messages);
}

/* ---- many ---- */

struct options {
    uint64_t first, seeds, seed;
    unsigned jobs, nodes;
    double hours;
    enum canary canary;
    bool trace, canaries;
};

struct job {
    pid_t pid;
    uint64_t seed;
    FILE *out;
};

static void job_start(struct job *j, uint64_t seed, unsigned nodes, enum canary canary)
{
    j->seed = seed, j->out = tmpfile();
    must(j->out);
    fflush(NULL);
    j->pid = fork();
    must(j->pid >= 0);
    if (j->pid)
        return;
    alarm(SEED_SECONDS_MAX);
    must(dup2(fileno(j->out), STDOUT_FILENO) >= 0 && dup2(fileno(j->out), STDERR_FILENO) >= 0);
    run_seed(seed, nodes, canary, false);
    fflush(NULL);
    _exit(0);
}

static void job_print(struct job *j)
{
    char text[512];
    rewind(j->out);
    for (unsigned lines = 0; lines < 80 && fgets(text, sizeof text, j->out); lines++)
        fputs(text, stdout);
}

/* The next to end; whether it was well. */
static bool job_end(struct job *jobs, unsigned n, bool print, struct job **ended)
{
    int status;
    pid_t pid = wait(&status);
    must(pid > 0);
    for (*ended = jobs; *ended < jobs + n && (*ended)->pid != pid;)
        ++*ended;
    must(*ended < jobs + n);
    bool well = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (!well && print) {
        if (!WIFEXITED(status))
            printf("seed %llu: ended by signal %d\n", (unsigned long long)(*ended)->seed,
                   WTERMSIG(status));
        job_print(*ended);
        printf("again: tests/run sim --seed %llu\n", (unsigned long long)(*ended)->seed);
        fflush(stdout);
    }
    fclose((*ended)->out);
    (*ended)->pid = 0;
    return well;
}

/* How many seeds failed; stops at the first if that is enough. */
static uint64_t run_seeds(const struct options *o, enum canary canary, bool print,
                          bool one_is_enough, uint64_t *ran)
{
    struct job jobs[64] = {0}, *j;
    uint64_t failed = 0, started = 0;
    unsigned running = 0, n = o->jobs < 64 ? o->jobs : 64;
    time_t end = o->hours > 0 ? time(NULL) + (time_t)(o->hours * 3600) : 0;
    for (;;) {
        bool more = end ? time(NULL) < end : started < o->seeds;
        if (one_is_enough && failed)
            more = false;
        if (!more && !running)
            break;
        if (more && running < n) {
            for (j = jobs; j->pid; j++)
                ;
            job_start(j, o->first + started++, o->nodes, canary);
            running++;
            continue;
        }
        failed += !job_end(jobs, n, print, &j);
        running--;
    }
    *ran = started;
    return failed;
}

static int run_canaries(const struct options *o)
{
    unsigned missed = 0;
    uint64_t ran;
    for (enum canary c = 1; c < CANARY_COUNT; c++) {
        struct options its = *o;
        its.nodes = canary_nodes(c);
        bool found = run_seeds(&its, c, false, true, &ran) > 0;
        printf("%s sim/canary/%s (%llu seeds): %s\n", found ? "ok  " : "FAIL", canary_name(c),
               (unsigned long long)ran, canary_text(c));
        fflush(stdout);
        missed += !found;
    }
    printf("%u passed, %u failed\n", (unsigned)CANARY_COUNT - 1 - missed, missed);
    return missed ? 1 : 0;
}

static void usage(void)
{
    fprintf(
        stderr,
        "usage: sim [--seeds N] [--first SEED] [--jobs N] [--hours H] [--seed SEED] [--nodes N] "
        "[--canary NAME] [--canaries]\n");
    exit(2);
}

static struct options options_of(int argc, char **argv)
{
    struct options o = {.first = 1, .seeds = 240, .jobs = (unsigned)sysconf(_SC_NPROCESSORS_ONLN)};
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (!strcmp(argv[i], "--canaries")) {
            o.canaries = true;
            continue;
        }
        if (!value)
            usage();
        if (!strcmp(argv[i], "--seed"))
            o.trace = true, o.seed = strtoull(value, NULL, 10);
        else if (!strcmp(argv[i], "--seeds"))
            o.seeds = strtoull(value, NULL, 10);
        else if (!strcmp(argv[i], "--first"))
            o.first = strtoull(value, NULL, 10);
        else if (!strcmp(argv[i], "--jobs"))
            o.jobs = (unsigned)strtoul(value, NULL, 10);
        else if (!strcmp(argv[i], "--nodes"))
            o.nodes = (unsigned)strtoul(value, NULL, 10);
        else if (!strcmp(argv[i], "--hours"))
            o.hours = strtod(value, NULL);
        else if (!strcmp(argv[i], "--canary"))
            o.canary = canary_named(value);
        else
            usage();
        i++;
    }
    return o;
}

static double real_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

const char *__asan_default_options(void);
const char *__asan_default_options(void) { return "detect_leaks=0"; } /* the dead free nothing */

int main(int argc, char **argv)
{
    struct options o = options_of(argc, argv);
    uint64_t ran;
    if (o.canary)
        o.nodes = canary_nodes(o.canary);
    if (o.canaries)
        return run_canaries(&o);
    if (o.trace) {
        run_seed(o.seed, o.nodes, o.canary, true);
        return 0;
    }
    double began = real_seconds();
    uint64_t failed = run_seeds(&o, o.canary, true, false, &ran);
    double took = real_seconds() - began;
    printf("seeds %llu to %llu: %.1f s, %.1f per second\n", (unsigned long long)o.first,
           (unsigned long long)(o.first + ran - 1), took, (double)ran / took);
    printf("%llu passed, %llu failed\n", (unsigned long long)(ran - failed),
           (unsigned long long)failed);
    return failed ? 1 : 0;
}
