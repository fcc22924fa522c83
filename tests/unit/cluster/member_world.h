/* member_world: nodes of several shards, a registry and links between them, on virtual time from
 * one seed, for the tests of membership: member_sim.c lets chance have its way, member.c tells
 * stories.
 *
 * Checked from outside, after every step: no slot has two owners who may act (each by its own
 * clock); an epoch has one content; an epoch that removes changes nothing else; nobody adopts an
 * epoch while somebody lives on his promise. The first thing that is wrong is world.fault. */
#ifndef TESTS_MEMBER_WORLD_H
#define TESTS_MEMBER_WORLD_H

#include "cluster/member.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "cluster/member_impl.h"
#include "pemberley/hash.h"

/* Not every test needs all of it. */
#pragma GCC diagnostic ignored "-Wunused-function"

enum {
    NODES = 4,
    SHARDS = 3,
    SLOTS = 16,
    HEARTBEAT = 1000,
    LEASE = 3000,
    SILENCE = 5000,
    TIMEOUT = 1000,
    LATELY = 4500, /* who renewed then may have been heard as one that has the registry */
    CHAOS_MS = 45000,
    HEALED_MS = 60000,
    EPOCHS = 1 << 12,
};

struct world;
struct node;
struct shard {
    struct node *node;
    unsigned index;
    struct member *member; /* NULL: no process */
    uint64_t incarnation;
    bool ended;
    uint64_t paused_until;
    uint64_t awake;   /* its clock when it last ran */
    uint64_t wake_at; /* world time of its next wake-up */
    uint64_t wake_id;
    uint32_t owned; /* bits: slots that it may act on */
    uint32_t share; /* bits: slots that its view gives to it */
};
struct node {
    struct registry registry; /* its connection: first, the door is cast back */
    struct world *w;
    unsigned index;
    char name[8];
    bool up, leaving, cut_off; /* cut_off: from the registry */
    uint64_t owner, incarnations;
    int drift;       /* of its clock, per mille */
    uint64_t offset; /* of its clock */
    bool ran;
    uint64_t remembers; /* the highest epoch, on its disk */
    unsigned clerk;
    uint64_t renewed_ms; /* when it last heard that it was */
    struct shard shards[SHARDS];
};

enum op_kind { OP_RENEW, OP_DROP, OP_REVOKE, OP_LEASES, OP_VIEW, OP_CAS };
struct request_op {
    struct request_op *next;
    enum op_kind kind;
    struct node *node;
    struct shard *shard;
    uint64_t incarnation;
    registry_done_f *done; /* NULL: answered or forgotten */
    void *ctx;
    unsigned refs;
    char name[8], by[8];
    uint64_t owner, by_owner, ttl, expected, epoch;
    bool member;
    char names[REGISTRY_LEASES_MAX][8];
    size_t count;
    char *bytes;
    size_t n;
    err e;
    struct registry_reply reply;
    struct registry_lease leases[REGISTRY_LEASES_MAX];
};
struct lease {
    char name[8];
    uint64_t owner, expires;
    bool revoked;
};

enum what {
    EV_WAKE,
    EV_WORD,
    EV_SIBLING_UP,
    EV_SIBLING_DOWN,
    EV_CLERK,
    EV_EXECUTE,
    EV_REPLY,
    EV_TIMEOUT,
    EV_RESTART_SHARD,
    EV_START_NODE,
    EV_KILL,
    EV_CHAOS,
    EV_HEAL_LINK,
    EV_HEAL_REGISTRY,
    EV_LEAVE,
};
struct event {
    uint64_t at, seq;
    enum what what;
    unsigned node, shard; /* whom it is for */
    uint64_t id;          /* incarnation there, or what it is about */
    unsigned from;
    char *bytes;
    size_t n;
    struct request_op *op;
};

struct world {
    uint64_t now, seq, random, seed;
    bool talks;
    struct event *heap;
    size_t count, room;
    struct node nodes[NODES];
    unsigned node_count, shard_count;
    bool blocked[NODES][NODES]; /* from, to */
    unsigned loss;              /* per cent of words */
    /* the registry */
    bool down;
    unsigned slow_ms;
    uint64_t keep_links; /* the registry was emptied: nobody is cut off from it until then */
    struct lease leases[NODES];
    uint64_t members_until, epoch;
    char *view;
    size_t view_n;
    struct request_op *ops;
    /* checkers */
    struct content {
        uint64_t epoch, sum;
    } contents[EPOCHS];
    const char *fault;
    unsigned steps;
    unsigned ends[8];
    unsigned stalls, gone_on;
};

static uint64_t draw(struct world *w) { return w->random = hash_u64(w->random); }
static unsigned below(struct world *w, unsigned n) { return (unsigned)(draw(w) >> 20) % n; }
static bool chance(struct world *w, unsigned per_cent) { return below(w, 100) < per_cent; }

static void tell(const struct world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void tell(const struct world *w, const char *fmt, ...)
{
    if (!w->talks)
        return;
    va_list ap;
    va_start(ap, fmt);
    printf("%7.3f  ", (double)w->now / 1000);
    vprintf(fmt, ap);
    printf("\n");
    va_end(ap);
}

static void fault(struct world *w, const char *what)
{
    if (!w->fault)
        tell(w, "FAULT: %s", what);
    w->fault = w->fault ? w->fault : what;
}

/* ---- events ---- */

static bool sooner(const struct event *a, const struct event *b)
{
    return a->at != b->at ? a->at < b->at : a->seq < b->seq;
}

static void push(struct world *w, struct event e)
{
    if (w->count == w->room) {
        w->room = w->room ? 2 * w->room : 256;
        w->heap = realloc(w->heap, w->room * sizeof *w->heap);
        must(w->heap);
    }
    size_t i = w->count++;
    for (; i && sooner(&e, &w->heap[(i - 1) / 2]); i = (i - 1) / 2)
        w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = e;
}

static struct event pop(struct world *w)
{
    struct event first = w->heap[0], last = w->heap[--w->count];
    size_t i = 0;
    for (size_t k; (k = 2 * i + 1) < w->count; i = k) {
        if (k + 1 < w->count && sooner(&w->heap[k + 1], &w->heap[k]))
            k++;
        if (!sooner(&w->heap[k], &last))
            break;
        w->heap[i] = w->heap[k];
    }
    w->heap[i] = last;
    return first;
}

static void later(struct world *w, uint64_t in, struct event e)
{
    e.at = w->now + in, e.seq = ++w->seq;
    push(w, e);
}

/* ---- clocks ---- */

static uint64_t clock_of(const struct node *n, uint64_t at)
{
    return n->offset + at * (uint64_t)(1000 + n->drift) / 1000;
}
static uint64_t world_time(const struct node *n, uint64_t clock)
{
    return (clock - n->offset) * 1000 / (uint64_t)(1000 + n->drift) + 1;
}

/* ---- checkers ---- */

/* Who should own a slot by this view: plain rendezvous over those with a share. Not the ring's: the
 * rule is not what is tested here. */
static uint32_t share_of(const struct view *v, const char *name, unsigned shard)
{
    uint32_t bits = 0;
    for (unsigned slot = 0; slot < SLOTS; slot++) {
        uint64_t best = 0;
        bool mine = false;
        for (size_t i = 0; i < v->count; i++)
            for (unsigned k = 0; view_node_share(&v->nodes[i]) && k < SHARDS; k++) {
                uint64_t score =
                    hash_u64((uint64_t)slot << 32 | k << 8 | (unsigned char)v->nodes[i].name[0]);
                if (!(v->nodes[i].shards >> k & 1) || score <= best)
                    continue;
                best = score;
                mine = strcmp(v->nodes[i].name, name) == 0 && k == shard;
            }
        bits |= (uint32_t)mine << slot;
    }
    return bits;
}

/* It would act if it had something to do: it runs, or will look at its deadline first. */
static bool may_act(const struct shard *s)
{
    if (!s->member || s->ended || !member_acts(s->member))
        return false;
    uint64_t deadline = member_deadline_ms(s->member);
    return clock_of(s->node, s->node->w->now) < deadline || s->awake >= deadline;
}

static void check_owners(struct world *w)
{
    uint32_t taken = 0;
    for (unsigned i = 0; i < w->node_count; i++)
        for (unsigned k = 0; k < w->shard_count; k++) {
            const struct shard *s = &w->nodes[i].shards[k];
            if (!s->owned || !may_act(s))
                continue;
            if (taken & s->owned)
                fault(w, "a slot has two owners");
            taken |= s->owned;
        }
}

/* Its place; free if its epoch is 0. */
static struct content *content_of(struct world *w, uint64_t epoch)
{
    uint64_t at = hash_u64(epoch);
    for (unsigned i = 0; i < EPOCHS; i++, at++)
        if (w->contents[at % EPOCHS].epoch == epoch || !w->contents[at % EPOCHS].epoch)
            return &w->contents[at % EPOCHS];
    must(!"more epochs than the world has room for");
    return NULL;
}

static void check_content(struct world *w, const struct view *v)
{
    struct arena a;
    arena_init(&a);
    str bytes = view_encode(v, &a);
    uint64_t sum = bytes.n;
    for (size_t i = 0; i < bytes.n; i++)
        sum = hash_u64(sum ^ (unsigned char)bytes.p[i]);
    struct content *c = content_of(w, v->epoch);
    if (c->epoch && c->sum != sum)
        fault(w, "an epoch has two contents");
    *c = (struct content){v->epoch, sum};
    arena_close(&a);
}

static void check_promises(struct world *w, const struct shard *who, uint64_t epoch)
{
    for (unsigned i = 0; i < w->node_count; i++)
        for (unsigned k = 0; k < w->shard_count; k++) {
            const struct shard *s = &w->nodes[i].shards[k];
            if (s->node == who->node || !may_act(s) ||
                clock_of(s->node, w->now) < s->member->lease_ms)
                continue;
            const struct view_node *n = view_find(s->member->view, str_of(who->node->name));
            if (n && n->owner == who->node->owner &&
                n->incarnation[who->index] == who->incarnation && s->member->view->epoch < epoch)
                fault(w, "adopted while somebody lives on a promise");
        }
}

/* Nobody ends for want of a lease alone: the registry, or a node that has it, has told it, or one
 * that has was heard of it not long ago. */
static void check_end(struct world *w, const struct shard *s, enum member_end why)
{
    const struct member *m = s->member;
    if (why != MEMBER_FENCED || !m->in_view || m->refused)
        return;
    for (unsigned i = 0; i < w->node_count; i++)
        if (&w->nodes[i] != s->node && w->now - w->nodes[i].renewed_ms < LATELY)
            return;
    fault(w, "ended though nobody had the registry");
}

static bool adds_something(const struct view *old, const struct view *new)
{
    for (size_t i = 0; i < new->count; i++) {
        const struct view_node *n = &new->nodes[i], *o = view_find(old, str_of(n->name));
        if (!o || (n->owner != o->owner && n->shards) ||
            (n->owner == o->owner && n->shards & ~o->shards) || n->state != o->state ||
            n->weight != o->weight)
            return true;
    }
    return false;
}

static bool removes_something(const struct view *old, const struct view *new)
{
    for (size_t i = 0; i < old->count; i++) {
        const struct view_node *o = &old->nodes[i], *n = view_find(new, str_of(o->name));
        if (!n || n->owner != o->owner || o->shards & ~n->shards)
            return true;
    }
    return false;
}

static void check_change(struct world *w, str before, str after)
{
    struct view *old, *new;
    if (!before.n)
        return;
    must(view_decode(before, &old) == ERR_OK && view_decode(after, &new) == ERR_OK);
    if (removes_something(old, new) && adds_something(old, new))
        fault(w, "an epoch removes and does something else");
    view_free(old);
    view_free(new);
}

/* ---- the registry ---- */

static struct lease *lease_of(struct world *w, const char *name)
{
    struct lease *l = &w->leases[name[0] - 'a'];
    if (l->expires <= w->now)
        *l = (struct lease){0};
    return l;
}

static void unref(struct request_op *o)
{
    if (--o->refs)
        return;
    free(o->bytes);
    free(o);
}

static void execute_renew(struct world *w, struct request_op *o)
{
    struct lease *l = lease_of(w, o->name);
    o->reply.epoch = w->epoch;
    if (l->owner && (l->owner != o->owner || l->revoked)) {
        o->leases[0] = (struct registry_lease){.owner = l->owner, .revoked = l->revoked};
        o->reply.lease_count = 1;
        o->e = ERR_EXISTS;
        return;
    }
    *l = (struct lease){.owner = o->owner, .expires = w->now + o->ttl};
    if (o->member)
        w->members_until = w->now + o->ttl;
}

static void execute_cas(struct world *w, struct request_op *o)
{
    o->reply.epoch = w->epoch;
    if (w->epoch != o->expected) {
        o->e = ERR_STALE;
        return;
    }
    check_change(w, str_from(w->view, w->view_n), str_from(o->bytes, o->n));
    free(w->view);
    w->view = malloc(o->n);
    must(w->view);
    memcpy(w->view, o->bytes, o->n);
    w->view_n = o->n, w->epoch = o->reply.epoch = o->epoch;
    tell(w, "epoch %d by %s/%u", (int)o->epoch, o->node->name, o->shard->index);
    struct view *v;
    if (w->talks && !view_decode(str_from(o->bytes, o->n), &v)) {
        for (size_t i = 0; i < v->count; i++)
            tell(w, "   %s: shards %x, state %d", v->nodes[i].name, (unsigned)v->nodes[i].shards,
                 v->nodes[i].state);
        view_free(v);
    }
}

static void execute(struct world *w, struct request_op *o)
{
    struct lease *l;
    switch (o->kind) {
    case OP_RENEW: execute_renew(w, o); break;
    case OP_DROP:
        l = lease_of(w, o->name);
        if (l->owner == o->owner)
            *l = (struct lease){0};
        break;
    case OP_REVOKE:
        l = lease_of(w, o->by);
        if (l->owner != o->by_owner || l->revoked)
            o->e = ERR_STALE;
        else if ((l = lease_of(w, o->name))->owner == o->owner)
            l->revoked = true;
        break;
    case OP_LEASES:
        for (size_t i = 0; i < o->count; i++)
            o->leases[i].owner = lease_of(w, o->names[i])->owner;
        o->reply.lease_count = o->count;
        break;
    case OP_VIEW:
        o->bytes = malloc(w->view_n + 1);
        must(o->bytes);
        if (w->view_n)
            memcpy(o->bytes, w->view, w->view_n);
        o->reply.view = str_from(o->bytes, w->view_n);
        o->reply.epoch = w->epoch, o->reply.members = w->members_until > w->now;
        break;
    case OP_CAS: execute_cas(w, o); break;
    }
}

static struct shard *running; /* whose call this is: requests come from inside it */

static struct request_op *new_op(struct registry *r, enum op_kind kind, registry_done_f *done,
                                 void *ctx)
{
    struct node *n = (struct node *)r;
    struct world *w = n->w;
    struct request_op *o = calloc(1, sizeof *o);
    must(o);
    *o = (struct request_op){.next = w->ops,
                             .kind = kind,
                             .node = n,
                             .shard = running,
                             .incarnation = running->incarnation,
                             .done = done,
                             .ctx = ctx,
                             .refs = 3};
    o->reply.leases = o->leases;
    w->ops = o;
    unsigned slow = w->slow_ms ? below(w, w->slow_ms) : 0;
    later(w, 1 + below(w, 4) + slow, (struct event){.what = EV_EXECUTE, .op = o});
    later(w, TIMEOUT,
          (struct event){.what = EV_TIMEOUT,
                         .op = o,
                         .node = n->index,
                         .shard = running->index,
                         .id = running->incarnation});
    return o;
}

static void name_into(char to[8], str name)
{
    must(name.n < 8);
    memcpy(to, name.p, name.n);
}

static void sim_renew(struct registry *r, struct registry_lease l, registry_done_f *done, void *ctx)
{
    struct request_op *o = new_op(r, OP_RENEW, done, ctx);
    name_into(o->name, l.node);
    o->owner = l.owner, o->ttl = l.ttl_ms, o->member = l.member;
}
static void sim_drop(struct registry *r, struct registry_lease l, registry_done_f *done, void *ctx)
{
    struct request_op *o = new_op(r, OP_DROP, done, ctx);
    name_into(o->name, l.node);
    o->owner = l.owner;
}
static void sim_revoke(struct registry *r, struct registry_lease of, struct registry_lease by,
                       registry_done_f *done, void *ctx)
{
    struct request_op *o = new_op(r, OP_REVOKE, done, ctx);
    name_into(o->name, of.node);
    name_into(o->by, by.node);
    o->owner = of.owner, o->by_owner = by.owner;
    tell(o->node->w, "%s wants the lease of %s revoked", o->by, o->name);
}
static void sim_leases(struct registry *r, const str *names, size_t n, registry_done_f *done,
                       void *ctx)
{
    struct request_op *o = new_op(r, OP_LEASES, done, ctx);
    for (o->count = 0; o->count < n; o->count++)
        name_into(o->names[o->count], names[o->count]);
}
static void sim_view(struct registry *r, registry_done_f *done, void *ctx)
{
    new_op(r, OP_VIEW, done, ctx);
}
static void sim_cas(struct registry *r, uint64_t expected, uint64_t epoch, str bytes,
                    registry_done_f *done, void *ctx)
{
    struct request_op *o = new_op(r, OP_CAS, done, ctx);
    o->expected = expected, o->epoch = epoch, o->n = bytes.n;
    o->bytes = malloc(bytes.n);
    must(o->bytes);
    memcpy(o->bytes, bytes.p, bytes.n);
}
static void sim_forget(struct registry *r, void *ctx)
{
    for (struct request_op *o = ((struct node *)r)->w->ops; o; o = o->next)
        if (o->ctx == ctx)
            o->done = NULL;
}
static const struct registry_impl sim_registry = {
    .lease_renew = sim_renew,
    .lease_drop = sim_drop,
    .lease_revoke = sim_revoke,
    .leases_get = sim_leases,
    .view_get = sim_view,
    .view_cas = sim_cas,
    .forget = sim_forget,
};

static bool registry_reaches(const struct world *w, const struct node *n)
{
    return !w->down && !n->cut_off && n->up;
}

/* Ops are freed when all three of their events have come; until then they are in the list. */
static void op_event_gone(struct world *w, struct request_op *o)
{
    if (o->refs == 1)
        for (struct request_op **p = &w->ops; *p; p = &(*p)->next)
            if (*p == o) {
                *p = o->next;
                break;
            }
    unref(o);
}

/* ---- sinks ---- */

static uint64_t sink_now(void *ctx)
{
    struct shard *s = ctx;
    return clock_of(s->node, s->node->w->now);
}

static void sink_say(void *ctx, str node, unsigned shard, str bytes)
{
    struct shard *s = ctx;
    struct world *w = s->node->w;
    unsigned to = (unsigned)(node.p[0] - 'a');
    bool inside = to == s->node->index;
    if (to >= w->node_count ||
        (!inside && (w->blocked[s->node->index][to] || below(w, 100) < w->loss)))
        return;
    char *copy = malloc(bytes.n);
    must(copy);
    memcpy(copy, bytes.p, bytes.n);
    later(w, inside ? 1 : 1 + below(w, chance(w, 5) ? 400 : 30),
          (struct event){.what = EV_WORD,
                         .node = to,
                         .shard = shard,
                         .from = s->node->index,
                         .bytes = copy,
                         .n = bytes.n});
}

static void sink_adopted(void *ctx, const struct view *v)
{
    struct shard *s = ctx;
    check_content(s->node->w, v);
    check_promises(s->node->w, s, v->epoch);
    s->share = share_of(v, s->node->name, s->index);
    const struct view_node *n = view_find(v, str_of(s->node->name));
    if (!n || n->incarnation[s->index] != s->incarnation)
        s->share = 0;
    s->owned &= s->share;
    tell(s->node->w, "%s/%u goes by %d", s->node->name, s->index, (int)v->epoch);
}

static void sink_settled(void *ctx, uint64_t epoch)
{
    struct shard *s = ctx;
    s->owned = s->share;
    tell(s->node->w, "%s/%u settled %d", s->node->name, s->index, (int)epoch);
}

static void sink_suspect(void *ctx, const struct view_node *n, bool suspect)
{
    struct shard *s = ctx;
    tell(s->node->w, "%s %s %s", s->node->name, suspect ? "suspects" : "hears", n->name);
}

static void sink_stuck(void *ctx, unsigned shard)
{
    struct shard *s = ctx;
    later(s->node->w, 1,
          (struct event){.what = EV_KILL,
                         .node = s->node->index,
                         .shard = shard,
                         .id = s->node->shards[shard].incarnation});
}

static void sink_stalled(void *ctx, bool stalled)
{
    struct shard *s = ctx;
    struct world *w = s->node->w;
    w->stalls += stalled;
    w->gone_on += !stalled;
    tell(w, "%s/%u %s", s->node->name, s->index, stalled ? "stalls" : "goes on");
}

static void sink_ended(void *ctx, enum member_end why)
{
    struct shard *s = ctx;
    struct world *w = s->node->w;
    check_end(w, s, why);
    s->ended = true, s->owned = 0;
    w->ends[why]++;
    tell(w, "%s/%u ended: %s", s->node->name, s->index, member_end_text(why));
    later(w, 50 + below(w, 200),
          (struct event){
              .what = EV_KILL, .node = s->node->index, .shard = s->index, .id = s->incarnation});
}

/* ---- processes ---- */

static void wake(struct shard *s);

static void in_node(struct world *w, struct node *n, enum what what, unsigned about, uint64_t id)
{
    for (unsigned k = 0; k < w->shard_count; k++)
        if (n->shards[k].member && (k != about || what == EV_CLERK))
            later(w, 1,
                  (struct event){.what = what,
                                 .node = n->index,
                                 .shard = k,
                                 .id = n->shards[k].incarnation,
                                 .from = about,
                                 .n = (size_t)id});
}

static void appoint(struct world *w, struct node *n)
{
    if (n->clerk < w->shard_count && n->shards[n->clerk].member)
        return;
    for (n->clerk = 0; n->clerk < w->shard_count && !n->shards[n->clerk].member;)
        n->clerk++;
    if (n->clerk < w->shard_count)
        in_node(w, n, EV_CLERK, n->clerk, 0);
}

static void start_shard(struct world *w, struct node *n, unsigned k)
{
    static const struct member_sinks sinks = {.now_ms = sink_now,
                                              .say = sink_say,
                                              .adopted = sink_adopted,
                                              .settled = sink_settled,
                                              .suspect = sink_suspect,
                                              .stuck = sink_stuck,
                                              .stalled = sink_stalled,
                                              .ended = sink_ended};
    struct shard *s = &n->shards[k];
    uint64_t wakes = s->wake_id;
    *s = (struct shard){.node = n, .index = k, .incarnation = ++n->incarnations, .wake_id = wakes};
    struct member_sinks own = sinks;
    own.ctx = s;
    struct member_settings settings = {.node = str_of(n->name),
                                       .address = STR("127.0.0.1:5275"),
                                       .owner = n->owner,
                                       .shard = k,
                                       .incarnation = s->incarnation,
                                       .weight = 100,
                                       .heartbeat_ms = HEARTBEAT,
                                       .lease_ms = LEASE,
                                       .silence_ms = SILENCE,
                                       .found_ms = n->index || n->remembers ? 4 * LEASE : HEARTBEAT,
                                       .epoch = n->remembers,
                                       .again = n->ran};
    s->member = member_new(&settings, &n->registry, &own);
    if (n->leaving)
        member_drain(s->member, true);
    in_node(w, n, EV_SIBLING_UP, k, s->incarnation);
    for (unsigned i = 0; i < w->shard_count; i++)
        if (i != k && n->shards[i].member)
            later(w, 1,
                  (struct event){.what = EV_SIBLING_UP,
                                 .node = n->index,
                                 .shard = k,
                                 .id = s->incarnation,
                                 .from = i,
                                 .n = (size_t)n->shards[i].incarnation});
    if (n->clerk < w->shard_count && n->shards[n->clerk].member)
        later(w, 1,
              (struct event){.what = EV_CLERK,
                             .node = n->index,
                             .shard = k,
                             .id = s->incarnation,
                             .from = n->clerk});
}

static void start_node(struct world *w, struct node *n)
{
    if (n->up)
        return;
    n->up = true, n->leaving = false, n->ran = false;
    n->owner = draw(w) | 1;
    n->clerk = SHARDS;
    tell(w, "%s starts", n->name);
    for (unsigned k = 0; k < w->shard_count; k++)
        start_shard(w, n, k);
    n->ran = true;
    appoint(w, n);
}

static void kill_shard(struct world *w, struct node *n, unsigned k)
{
    struct shard *s = &n->shards[k];
    if (!s->member)
        return;
    tell(w, "%s/%u dies", n->name, k);
    if (member_known_epoch(s->member) > n->remembers)
        n->remembers = member_known_epoch(s->member);
    member_free(s->member);
    s->member = NULL, s->owned = 0;
}

static void shard_died(struct world *w, struct node *n, unsigned k)
{
    kill_shard(w, n, k);
    in_node(w, n, EV_SIBLING_DOWN, k, 0);
    appoint(w, n);
    if (n->up)
        later(
            w, 1 + below(w, 300),
            (struct event){.what = EV_RESTART_SHARD, .node = n->index, .shard = k, .id = n->owner});
}

static void kill_node(struct world *w, struct node *n, uint64_t back_in)
{
    if (!n->up)
        return;
    for (unsigned k = 0; k < w->shard_count; k++)
        kill_shard(w, n, k);
    n->up = false;
    later(w, back_in, (struct event){.what = EV_START_NODE, .node = n->index});
}

static void wake(struct shard *s)
{
    struct world *w = s->node->w;
    if (!s->member || s->ended)
        return;
    running = s;
    uint64_t next = member_wake(s->member);
    s->awake = clock_of(s->node, w->now);
    if (next == UINT64_MAX)
        return;
    uint64_t at = world_time(s->node, next);
    s->wake_at = at > w->now ? at : w->now + 1;
    struct event e = {.at = s->wake_at,
                      .seq = ++w->seq,
                      .what = EV_WAKE,
                      .node = s->node->index,
                      .shard = s->index,
                      .id = ++s->wake_id};
    push(w, e);
}

/* ---- chaos ---- */

static void pause_shard(struct world *w, struct shard *s, uint64_t ms)
{
    if (s->member && s->paused_until < w->now + ms)
        s->paused_until = w->now + ms;
}

static void partition(struct world *w)
{
    bool one_way = chance(w, 30);
    unsigned side = below(w, 1u << w->node_count);
    uint64_t ms = 500 + below(w, 12000);
    tell(w, "partition %x%s for %d ms", side, one_way ? " one way" : "", (int)ms);
    for (unsigned i = 0; i < w->node_count; i++)
        for (unsigned j = 0; j < w->node_count; j++)
            if ((side >> i & 1) != (side >> j & 1) && (!one_way || side >> i & 1)) {
                w->blocked[i][j] = true;
                later(w, ms, (struct event){.what = EV_HEAL_LINK, .node = i, .shard = j});
            }
}

static void registry_trouble(struct world *w)
{
    uint64_t ms = 300 + below(w, 10000);
    unsigned kind = below(w, 10);
    if (kind < 4) {
        w->down = true;
        later(w, ms, (struct event){.what = EV_HEAL_REGISTRY});
        tell(w, "registry away for %d ms", (int)ms);
    } else if (kind < 6) {
        w->slow_ms = 200 + below(w, 2500);
        later(w, ms, (struct event){.what = EV_HEAL_REGISTRY});
        tell(w, "registry slow for %d ms", (int)ms);
    } else if (kind < 9 && w->now > w->keep_links) {
        struct node *n = &w->nodes[below(w, w->node_count)];
        n->cut_off = true;
        later(w, ms, (struct event){.what = EV_HEAL_REGISTRY});
        tell(w, "%s cut off from the registry for %d ms", n->name, (int)ms);
    } else if (kind == 9) {
        w->down = true;
        later(w, ms, (struct event){.what = EV_HEAL_REGISTRY});
        memset(w->leases, 0, sizeof w->leases);
        w->epoch = w->members_until = 0, w->view_n = 0;
        w->keep_links = w->now + ms + 8 * LEASE;
        for (unsigned i = 0; i < w->node_count; i++)
            w->nodes[i].cut_off = false;
        tell(w, "registry restarts empty in %d ms", (int)ms);
    }
}

static void wish(struct world *w, struct node *n)
{
    if (!n->up)
        return;
    unsigned kind = below(w, 4);
    uint32_t weight = 1 + below(w, 300);
    n->leaving = kind == 1;
    tell(w, "%s %s", n->name, n->leaving ? "is to leave" : kind ? "gets a weight" : "is undrained");
    for (unsigned k = 0; k < w->shard_count; k++) {
        struct member *m = n->shards[k].member;
        running = &n->shards[k];
        if (!m || n->shards[k].ended || n->shards[k].paused_until > w->now)
            continue;
        wake(running);
        if (kind <= 1)
            member_drain(m, n->leaving);
        else
            member_weight(m, weight);
        n->shards[k].awake = clock_of(n, w->now);
    }
    if (n->leaving)
        later(w, 3000 + below(w, 9000),
              (struct event){.what = EV_LEAVE, .node = n->index, .id = n->owner});
}

static void leave(struct world *w, struct node *n)
{
    for (unsigned k = 0; k < w->shard_count; k++) {
        running = &n->shards[k];
        if (!running->member || running->ended || running->paused_until > w->now)
            continue;
        wake(running);
        member_leave(running->member);
    }
}

static void chaos(struct world *w)
{
    struct node *n = &w->nodes[below(w, w->node_count)];
    struct shard *s = &n->shards[below(w, w->shard_count)];
    switch (below(w, 14)) {
    case 0:
    case 1: shard_died(w, n, s->index); break;
    case 2: kill_node(w, n, 50 + below(w, 15000)); break;
    case 3:
    case 4: pause_shard(w, s, 50 + below(w, 9000)); break;
    case 5:
        for (unsigned k = 0; k < w->shard_count; k++)
            pause_shard(w, &n->shards[k], 3000 + below(w, 100));
        break;
    case 6:
    case 7:
    case 8: partition(w); break;
    case 9:
    case 10:
    case 11: registry_trouble(w); break;
    case 12: wish(w, n); break;
    case 13: w->loss = below(w, 30); break;
    }
    later(w, 100 + below(w, 4000), (struct event){.what = EV_CHAOS});
}

static void heal_registry(struct world *w)
{
    w->down = false, w->slow_ms = 0;
    for (unsigned i = 0; i < w->node_count; i++)
        w->nodes[i].cut_off = false;
}

static void heal(struct world *w)
{
    tell(w, "all is healed");
    heal_registry(w);
    memset(w->blocked, 0, sizeof w->blocked);
    w->loss = 0;
    for (unsigned i = 0; i < w->node_count; i++) {
        struct node *n = &w->nodes[i];
        start_node(w, n);
        n->leaving = false;
        for (unsigned k = 0; k < w->shard_count; k++) {
            struct shard *s = &n->shards[k];
            if (s->paused_until > w->now)
                shard_died(w, n, k);
            if (!s->member || s->ended)
                continue;
            wake(s);
            if (!s->ended)
                member_drain(s->member, false);
        }
    }
}

/* ---- the run ---- */

static void deliver(struct world *w, struct shard *s, struct event *e)
{
    struct member *m = s->member;
    switch (e->what) {
    case EV_WORD: {
        err bad = member_hear(m, str_of(w->nodes[e->from].name), str_from(e->bytes, e->n));
        must(bad == ERR_OK);
        break;
    }
    case EV_SIBLING_UP: member_sibling_up(m, e->from, e->n); break;
    case EV_SIBLING_DOWN: member_sibling_down(m, e->from); break;
    case EV_CLERK: member_clerk(m, e->from); break;
    case EV_REPLY:
    case EV_TIMEOUT:
        if (e->op->done) {
            registry_done_f *done = e->op->done;
            err result = e->what == EV_TIMEOUT ? ERR_AWAY : e->op->e;
            e->op->done = NULL;
            if (e->op->kind == OP_RENEW && result == ERR_OK)
                s->node->renewed_ms = w->now;
            done(e->op->ctx, result, result == ERR_AWAY ? NULL : &e->op->reply);
        }
        break;
    default: break;
    }
    s->awake = clock_of(s->node, w->now);
}

static void execute_event(struct world *w, struct event *e)
{
    struct request_op *o = e->op;
    struct event reply = {.what = EV_REPLY,
                          .op = o,
                          .node = o->node->index,
                          .shard = o->shard->index,
                          .id = o->incarnation};
    if (registry_reaches(w, o->node)) {
        execute(w, o);
        unsigned slow = w->slow_ms ? below(w, w->slow_ms) : 0;
        later(w, 1 + below(w, 4) + slow, reply);
    } else {
        op_event_gone(w, o);
    }
    op_event_gone(w, o);
}

/* Whoever it is for: found, running, of the right incarnation. */
static struct shard *addressee(struct world *w, struct event *e)
{
    struct node *n = &w->nodes[e->node];
    if (e->what == EV_WORD && e->shard == MEMBER_ANY_SHARD)
        e->shard = below(w, w->shard_count);
    struct shard *s = &n->shards[e->shard];
    bool right = e->what == EV_WORD || e->id == s->incarnation;
    return s->member && !s->ended && right ? s : NULL;
}

static void to_a_shard(struct world *w, struct event *e)
{
    struct shard *s = addressee(w, e);
    bool lost = e->what == EV_REPLY && !registry_reaches(w, e->op->node);
    if (s && !lost) {
        if (s->paused_until > w->now) {
            e->at = s->paused_until;
            push(w, *e);
            return;
        }
        wake(s);
        running = s;
        if (!s->ended)
            deliver(w, s, e);
        if (!s->ended)
            wake(s);
    }
    free(e->bytes);
    if (e->op)
        op_event_gone(w, e->op);
}

static void on_wake(struct world *w, struct event *e)
{
    struct shard *s = &w->nodes[e->node].shards[e->shard];
    if (e->id != s->wake_id)
        return;
    if (s->paused_until > w->now) {
        e->at = s->paused_until;
        push(w, *e);
        return;
    }
    wake(s);
}

static void step(struct world *w)
{
    struct event e = pop(w);
    w->now = e.at;
    struct node *n = &w->nodes[e.node];
    switch (e.what) {
    case EV_WAKE: on_wake(w, &e); break;
    case EV_EXECUTE: execute_event(w, &e); break;
    case EV_RESTART_SHARD:
        if (n->up && n->owner == e.id && !n->shards[e.shard].member) {
            start_shard(w, n, e.shard);
            appoint(w, n);
        }
        break;
    case EV_START_NODE: start_node(w, n); break;
    case EV_KILL:
        if (n->shards[e.shard].incarnation == e.id && n->shards[e.shard].member)
            shard_died(w, n, e.shard);
        break;
    case EV_CHAOS:
        if (w->now < CHAOS_MS)
            chaos(w);
        break;
    case EV_HEAL_LINK: w->blocked[e.node][e.shard] = false; break;
    case EV_HEAL_REGISTRY: heal_registry(w); break;
    case EV_LEAVE:
        if (n->up && n->leaving && n->owner == e.id)
            leave(w, n);
        break;
    default: to_a_shard(w, &e); break;
    }
    w->steps++;
    check_owners(w);
}

static void run_until(struct world *w, uint64_t until)
{
    while (w->count && w->heap[0].at <= until && !w->fault)
        step(w);
    w->now = until;
}

static void describe(const struct world *w, const struct shard *s)
{
    const struct member *m = s->member;
    if (!m)
        return;
    tell(w, "%s/%u: view %d, %s, lease %d, quiet %d, registry %d, lost %d, clerk %u", m->name,
         m->s.shard, m->view ? (int)m->view->epoch : 0, m->in_view ? "in it" : "not in it",
         (int)(m->lease_ms - m->now), (int)(m->quiet_ms - m->now), (int)m->registry_epoch,
         m->lost_ms ? (int)(m->now - m->lost_ms) : 0, m->clerk);
    for (size_t i = 0; member_is_clerk(m) && m->view && i < m->view->count; i++)
        tell(w, "   %s %s, heard %d ago, goes by %d, lease %s, %s", m->view->nodes[i].name,
             m->view->nodes[i].owner == w->nodes[m->view->nodes[i].name[0] - 'a'].owner ? "now"
                                                                                        : "before",
             (int)(m->now - m->peers[i].heard_ms), (int)m->peers[i].adopted,
             m->peers[i].absent_ms ? "missing" : "there or not asked",
             m->peers[i].settled ? "settled" : "not settled");
}

/* One view in force, everybody goes by it, it is settled, and everybody is in it. */
static void check_one_view(struct world *w)
{
    for (unsigned i = 0; i < w->node_count; i++)
        for (unsigned k = 0; k < w->shard_count; k++) {
            struct shard *s = &w->nodes[i].shards[k];
            if (!s->member || !may_act(s) || member_view(s->member)->epoch != w->epoch ||
                !member_is_settled(s->member) || s->owned != s->share) {
                describe(w, s);
                fault(w, "not one settled view with everybody after healing");
            } else if (view_find(member_view(s->member), str_of(w->nodes[i].name))->state !=
                       VIEW_LIVE) {
                fault(w, "a node is not live after healing");
            }
        }
}

static void world_open(struct world *w, uint64_t seed)
{
    memset(w, 0, sizeof *w);
    w->random = hash_u64(seed), w->seed = seed;
    w->talks = getenv("MEMBER_SEED") != NULL;
    w->node_count = 2 + below(w, NODES - 1);
    w->shard_count = 1 + below(w, SHARDS);
    for (unsigned i = 0; i < w->node_count; i++) {
        struct node *n = &w->nodes[i];
        n->registry.impl = &sim_registry;
        n->w = w, n->index = i;
        n->name[0] = (char)('a' + i);
        n->drift = (int)below(w, 41) - 20;
        n->offset = 1000 + draw(w) % 1000000000;
        later(w, below(w, 3000), (struct event){.what = EV_START_NODE, .node = i});
    }
}

static void world_close(struct world *w)
{
    for (unsigned i = 0; i < w->node_count; i++)
        for (unsigned k = 0; k < w->shard_count; k++)
            member_free(w->nodes[i].shards[k].member);
    while (w->count) {
        struct event e = pop(w);
        free(e.bytes);
        if (e.op)
            op_event_gone(w, e.op);
        if (e.what == EV_EXECUTE)
            op_event_gone(w, e.op);
    }
    free(w->heap);
    free(w->view);
}

#endif
