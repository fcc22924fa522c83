/* registry: the door. Leases and views are asked for once, at once, or not at all; records go to
 * records.c. Whether Redis is away is one fact for the node: one event when it goes, one when it is
 * back and has been looked through. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "node/registry/call.h"
#include "node/registry/records.h"

enum { REQUESTS_MAX = 128, OWNER_DIGITS = 16, CLUSTER_NAME_MAX = 64 };

struct registry_redis {
    struct registry door;
    struct redis redis;
    struct topology *topology;
    struct records *records;
    struct list asked,
        failed; /* requests: at a server; to be answered ERR_AWAY at the turn's end */
    size_t requests;
    struct turn_hook hook;
    bool up, down; /* up: every server is; down: registry_lost was logged */
    uint64_t lost_ms;
    size_t resync; /* records looked at since Redis is back; until it is logged */
    struct timer timer;
};

/* A lease's or view's request: the arguments, copied, and how to read the answer. */
typedef err read_f(const struct resp *r, struct registry_reply *reply);
struct request {
    struct call call;
    struct list link;
    struct registry_redis *registry;
    registry_done_f *done; /* NULL: forgotten */
    void *ctx;
    read_f *read;
    str args[REGISTRY_LEASES_MAX + 4]; /* keys, then arguments */
    size_t args_n;
    str nodes[REGISTRY_LEASES_MAX]; /* of the leases asked for */
    size_t nodes_n;
    struct arena memory;
};

static struct registry_redis *registry_of(struct registry *r)
{
    return container_of(r, struct registry_redis, door);
}

/* ---- requests -------------------------------------------------------------------------------- */

static struct request *new_request(struct registry_redis *r, enum script script, read_f *read,
                                   registry_done_f *done, void *ctx)
{
    struct request *q = calloc(1, sizeof *q);
    must(q);
    q->registry = r, q->read = read, q->done = done, q->ctx = ctx;
    q->call.script = script;
    list_init(&q->link);
    arena_init(&q->memory);
    return q;
}

static void free_request(struct request *q)
{
    q->registry->requests--;
    list_remove(&q->link);
    arena_close(&q->memory);
    free(q);
}

static void add(struct request *q, str s)
{
    must(q->args_n < array_len(q->args));
    q->args[q->args_n++] = s;
}

static void add_key_ring(struct request *q)
{
    add(q, arena_printf(&q->memory, "pemberley:{%.*s}:ring",
                        STR_ARG(q->registry->redis.settings.cluster)));
    q->call.keys++;
}

static void add_key_members(struct request *q)
{
    add(q, arena_printf(&q->memory, "pemberley:{%.*s}:members",
                        STR_ARG(q->registry->redis.settings.cluster)));
    q->call.keys++;
}

static void add_key_lease(struct request *q, str node)
{
    add(q, arena_printf(&q->memory, "pemberley:{%.*s}:member:%.*s",
                        STR_ARG(q->registry->redis.settings.cluster), STR_ARG(node)));
    q->call.keys++;
    if (q->nodes_n < array_len(q->nodes))
        q->nodes[q->nodes_n++] = arena_dup(&q->memory, node);
}

static void add_owner(struct request *q, uint64_t owner)
{
    add(q, arena_printf(&q->memory, "%016" PRIx64, owner));
}

static void add_number(struct request *q, uint64_t n)
{
    add(q, arena_printf(&q->memory, "%" PRIu64, n));
}

static void on_args(struct call *c, struct server_args *a)
{
    const struct request *q = container_of(c, struct request, call);
    for (size_t i = 0; i < q->args_n; i++)
        server_arg(a, q->args[i]);
}

static void finish(struct request *q, err e, const struct registry_reply *reply)
{
    registry_done_f *done = q->done;
    void *ctx = q->ctx;
    free_request(q);
    if (done)
        done(ctx, e, reply);
}

static void on_refused(struct request *q, str reason)
{
    struct registry_doors *d = &q->registry->redis.doors;
    metric_add(d->metrics, METRIC_AT(registry_refused, REFUSED_FORM, 0), 1);
    LOG(d->log, registry_refused, F_JID("key", q->args[0]), F_STR("reason", reason));
    finish(q, ERR_REFUSED, NULL);
}

static void on_answer(struct call *c, err e, const struct resp *r)
{
    struct request *q = container_of(c, struct request, call);
    struct registry_lease leases[REGISTRY_LEASES_MAX] = {{.ttl_ms = 0}};
    struct registry_reply reply = {.leases = leases, .lease_count = q->nodes_n};
    if (e == ERR_REFUSED)
        return on_refused(q, r->text);
    if (e)
        return finish(q, e, NULL);
    for (size_t i = 0; i < q->nodes_n; i++)
        leases[i].node = q->nodes[i];
    e = q->read(r, &reply);
    if (e == ERR_BAD)
        return on_refused(q, STR("not the form agreed on"));
    struct arena memory = q->memory; /* has the names; the reply is valid until done returns */
    arena_init(&q->memory);
    finish(q, e, &reply);
    arena_close(&memory);
}

static void on_turn_end(struct turn_hook *h)
{
    struct registry_redis *r = container_of(h, struct registry_redis, hook);
    struct list now;
    list_init(&now);
    list_append(&now, &r->failed); /* what fails meanwhile gets a hook of its own */
    while (!list_empty(&now))
        finish(list_first(&now, struct request, link), ERR_AWAY, NULL);
}

static void ask(struct request *q)
{
    struct registry_redis *r = q->registry;
    q->call.slot = topology_slot(q->args[0]);
    q->call.args = on_args;
    q->call.done = on_answer;
    bool full = r->requests++ >= REQUESTS_MAX;
    if (!full && call_start(&q->call, r->topology) == ERR_OK) {
        list_push_back(&r->asked, &q->link);
        return;
    }
    list_push_back(&r->failed, &q->link);
    loop_at_turn_end(r->redis.doors.loop, &r->hook);
}

/* ---- the forms agreed on --------------------------------------------------------------------- */

/* An epoch: decimal, as we write it. Nil: 0, there is none. */
static bool read_epoch(const struct resp *r, uint64_t *epoch)
{
    *epoch = 0;
    if (r->kind == RESP_NIL)
        return true;
    if (r->kind != RESP_STRING || r->text.n == 0 || r->text.n > 20 || r->text.p[0] == '0')
        return false;
    for (size_t i = 0; i < r->text.n; i++) {
        unsigned digit = (unsigned)(unsigned char)r->text.p[i] - '0';
        if (digit > 9 || __builtin_mul_overflow(*epoch, 10, epoch) ||
            __builtin_add_overflow(*epoch, digit, epoch))
            return false;
    }
    return true;
}

/* A lease: 16 hex digits, perhaps "!". */
static bool read_owner(str s, struct registry_lease *l)
{
    l->owner = 0;
    l->revoked = s.n == OWNER_DIGITS + 1 && s.p[OWNER_DIGITS] == '!';
    if (s.n != (size_t)OWNER_DIGITS + l->revoked)
        return false;
    for (size_t i = 0; i < OWNER_DIGITS; i++) {
        char c = s.p[i];
        bool letter = c >= 'a' && c <= 'f';
        if (!letter && (c < '0' || c > '9'))
            return false;
        l->owner = l->owner << 4 | (unsigned)(letter ? c - 'a' + 10 : c - '0');
    }
    return l->owner != 0;
}

/* A lease and its PTTL; nil: nobody's. One that never ends is none of ours. */
static bool read_lease(const struct resp *value, const struct resp *ttl, struct registry_lease *l)
{
    if (value->kind == RESP_NIL)
        return true;
    if (value->kind != RESP_STRING || ttl->kind != RESP_INTEGER || ttl->integer < 0 ||
        ttl->integer > UINT32_MAX)
        return false;
    l->ttl_ms = (uint32_t)ttl->integer;
    return read_owner(value->text, l);
}

static bool is_array(const struct resp *r, size_t n)
{
#ifdef REGISTRY_CANARY
    return true;
#endif
    return r->kind == RESP_ARRAY && r->n == n;
}

static bool is_flag(const struct resp *r)
{
    return r->kind == RESP_INTEGER && (r->integer == 0 || r->integer == 1);
}

static err read_renewed(const struct resp *r, struct registry_reply *reply)
{
    struct registry_lease *l = (struct registry_lease *)(uintptr_t)reply->leases;
    if (!is_array(r, 4) || !is_flag(r->items[0]) || !read_lease(r->items[1], r->items[2], l) ||
        !l->owner || !read_epoch(r->items[3], &reply->epoch))
        return ERR_BAD;
    return r->items[0]->integer ? ERR_OK : ERR_EXISTS;
}

static err read_dropped(const struct resp *r, struct registry_reply *reply)
{
    return read_epoch(r, &reply->epoch) ? ERR_OK : ERR_BAD;
}

/* "Was it done" and the epoch in force. */
static err read_stale(const struct resp *r, struct registry_reply *reply)
{
    if (!is_array(r, 2) || !is_flag(r->items[0]) || !read_epoch(r->items[1], &reply->epoch))
        return ERR_BAD;
    return r->items[0]->integer ? ERR_OK : ERR_STALE;
}

static err read_leases(const struct resp *r, struct registry_reply *reply)
{
    struct registry_lease *leases = (struct registry_lease *)(uintptr_t)reply->leases;
    if (!is_array(r, 1 + 2 * reply->lease_count) || !read_epoch(r->items[0], &reply->epoch))
        return ERR_BAD;
    for (size_t i = 0; i < reply->lease_count; i++)
        if (!read_lease(r->items[1 + 2 * i], r->items[2 + 2 * i], &leases[i]))
            return ERR_BAD;
    return ERR_OK;
}

static err read_view(const struct resp *r, struct registry_reply *reply)
{
    if (!is_array(r, 3) || !read_epoch(r->items[0], &reply->epoch) || !is_flag(r->items[2]))
        return ERR_BAD;
    const struct resp *view = r->items[1];
    reply->members = r->items[2]->integer;
    if (reply->epoch == 0)
        return view->kind == RESP_NIL ? ERR_OK : ERR_BAD;
    if (view->kind != RESP_STRING || view->text.n == 0 || view->text.n > REGISTRY_VIEW_MAX)
        return ERR_BAD;
    reply->view = view->text;
    return ERR_OK;
}

/* ---- the door -------------------------------------------------------------------------------- */

static void lease_renew(struct registry *d, struct registry_lease l, registry_done_f *done,
                        void *ctx)
{
    struct request *q = new_request(registry_of(d), SCRIPT_lease_renew, read_renewed, done, ctx);
    add_key_lease(q, l.node);
    add_key_ring(q);
    add_key_members(q);
    add_owner(q, l.owner);
    add_number(q, l.ttl_ms);
    add_number(q, l.member);
    ask(q);
}

static void lease_drop(struct registry *d, struct registry_lease l, registry_done_f *done,
                       void *ctx)
{
    struct request *q = new_request(registry_of(d), SCRIPT_lease_drop, read_dropped, done, ctx);
    add_key_lease(q, l.node);
    add_key_ring(q);
    add_owner(q, l.owner);
    add(q, arena_printf(&q->memory, "%016" PRIx64 "!", l.owner));
    q->nodes_n = 0;
    ask(q);
}

static void lease_revoke(struct registry *d, struct registry_lease of, struct registry_lease by,
                         registry_done_f *done, void *ctx)
{
    struct request *q = new_request(registry_of(d), SCRIPT_lease_revoke, read_stale, done, ctx);
    add_key_lease(q, of.node);
    add_key_lease(q, by.node);
    add_key_ring(q);
    add_owner(q, of.owner);
    add_owner(q, by.owner);
    q->nodes_n = 0;
    ask(q);
}

static void leases_get(struct registry *d, const str *nodes, size_t n, registry_done_f *done,
                       void *ctx)
{
    struct request *q = new_request(registry_of(d), SCRIPT_leases_get, read_leases, done, ctx);
    add_key_ring(q);
    for (size_t i = 0; i < n; i++)
        add_key_lease(q, nodes[i]);
    ask(q);
}

static void view_get(struct registry *d, registry_done_f *done, void *ctx)
{
    struct request *q = new_request(registry_of(d), SCRIPT_view_get, read_view, done, ctx);
    add_key_ring(q);
    add_key_members(q);
    ask(q);
}

static void view_cas(struct registry *d, uint64_t expected, uint64_t epoch, str bytes,
                     registry_done_f *done, void *ctx)
{
    struct request *q = new_request(registry_of(d), SCRIPT_view_cas, read_stale, done, ctx);
    add_key_ring(q);
    add_number(q, expected);
    add_number(q, epoch);
    add(q, arena_dup(&q->memory, bytes));
    ask(q);
}

static void record_put(struct registry *d, const struct registry_record *record)
{
    records_put(registry_of(d)->records, record);
}

static void record_remove(struct registry *d, const struct registry_record *record)
{
    records_remove(registry_of(d)->records, record);
}

static void record_forget(struct registry *d, enum registry_kind kind, str key)
{
    records_forget(registry_of(d)->records, kind, key);
}

static void forget(struct registry *d, void *ctx)
{
    struct registry_redis *r = registry_of(d);
    list_each(q, &r->asked, struct request, link)
        if (q->ctx == ctx)
            q->done = NULL;
    list_each(q, &r->failed, struct request, link)
        if (q->ctx == ctx)
            q->done = NULL;
}

static const struct registry_impl impl = {
    .lease_renew = lease_renew,
    .lease_drop = lease_drop,
    .lease_revoke = lease_revoke,
    .leases_get = leases_get,
    .view_get = view_get,
    .view_cas = view_cas,
    .record_put = record_put,
    .record_remove = record_remove,
    .record_forget = record_forget,
    .forget = forget,
};

/* ---- is Redis there? ------------------------------------------------------------------------- */

static uint64_t now_ms(const struct registry_redis *r) { return loop_now_ms(r->redis.doors.loop); }

static void log_back(struct registry_redis *r)
{
    LOG(r->redis.doors.log, registry_back, F_STR("server", topology_where(r->topology)),
        F_INT("ms", now_ms(r) - r->lost_ms), F_INT("resynced", r->resync));
    r->down = false;
}

/* While records are looked through after an outage. */
static void on_time(struct timer *t)
{
    struct registry_redis *r = container_of(t, struct registry_redis, timer);
    if (!r->up || !r->down)
        return;
    if (records_resyncing(r->records) == 0)
        log_back(r);
    else
        loop_timer_set(r->redis.doors.loop, t, 10);
}

static void look(struct registry_redis *r)
{
    r->up = topology_is_up(r->topology);
    metric_set(r->redis.doors.metrics, METRIC_registry_up, r->up);
    if (r->up || r->down)
        return;
    r->down = true;
    r->lost_ms = now_ms(r);
    LOG(r->redis.doors.log, registry_lost, F_STR("server", topology_where(r->topology)),
        F_STR("reason", topology_reason(r->topology)));
}

static void on_up(void *ctx)
{
    struct registry_redis *r = ctx;
    records_resync(r->records);
    look(r);
    if (!r->up || !r->down)
        return;
    r->resync = records_resyncing(r->records);
    on_time(&r->timer);
}

static void on_down(void *ctx) { look(ctx); }

static void on_moved(void *ctx)
{
    struct registry_redis *r = ctx;
    records_retry(r->records);
    look(r);
}

static const struct topology_sink topology_sink = {on_up, on_down, on_moved};

/* ---- life ------------------------------------------------------------------------------------ */

static void copy_settings(struct redis *x, const struct registry_settings *s)
{
    struct registry_settings *c = &x->settings;
    must(s->servers_n > 0 && s->servers_n <= REGISTRY_SERVERS_MAX && s->timeout_ms > 0);
    must(s->cluster.n > 0 && s->cluster.n <= CLUSTER_NAME_MAX);
    must(s->record_lifetime_ms / 3 >= s->refresh_ms && s->refresh_ms > 0);
    arena_init(&x->memory);
    *c = *s;
    c->cluster = arena_dup(&x->memory, s->cluster);
    c->master = arena_dup(&x->memory, s->master);
    c->user = arena_dup(&x->memory, s->user);
    c->password_file = arena_dup(&x->memory, s->password_file);
    for (size_t i = 0; i < s->servers_n; i++) {
        must(s->servers[i].n < SERVER_ADDRESS_MAX);
        c->servers[i] = arena_dup(&x->memory, s->servers[i]);
    }
}

struct registry_redis *registry_redis_new(const struct registry_doors *d,
                                          const struct registry_settings *s)
{
    struct registry_redis *r = calloc(1, sizeof *r);
    must(r);
    r->door.impl = &impl;
    r->redis.doors = *d;
    copy_settings(&r->redis, s);
    list_init(&r->asked);
    list_init(&r->failed);
    r->hook = (struct turn_hook){.fn = on_turn_end};
    list_init(&r->hook.link);
    timer_init(&r->timer, on_time);
    r->lost_ms = now_ms(r);
    r->topology = topology_new(&r->redis, &topology_sink, r);
    r->records = records_new(&r->redis, r->topology);
    return r;
}

struct registry *registry_redis_door(struct registry_redis *r) { return &r->door; }

void registry_redis_stop(struct registry_redis *r)
{
    list_each(q, &r->asked, struct request, link)
        q->done = NULL;
    list_each(q, &r->failed, struct request, link)
        q->done = NULL;
    loop_timer_stop(r->redis.doors.loop, &r->timer);
    records_stop(r->records);
    topology_stop(r->topology);
}

bool registry_redis_stopped(const struct registry_redis *r)
{
    return topology_stopped(r->topology) && r->requests == 0;
}

void registry_redis_free(struct registry_redis *r)
{
    must(registry_redis_stopped(r));
    records_free(r->records);
    topology_free(r->topology);
    list_remove(&r->hook.link);
    arena_close(&r->redis.memory);
    free(r);
}

size_t registry_redis_unsaved(const struct registry_redis *r)
{
    return records_unsaved(r->records);
}
