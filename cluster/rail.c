/* rail: calls, their HELLOs, and which of them is the rail's.
 *
 *     dialled:   OPENING (TLS) ─ HELLO out ─► GREETING ─ HELLO in ─► UP ─► OVER
 *     accepted:  OPENING (TLS) ─────────────► GREETING ─ HELLO in, HELLO out ─► UP ─► OVER
 *
 * Who was called says nothing before it has heard a HELLO that it can accept. OVER: the call counts
 * no more, only its socket has to come to rest (a refusal may be on its way).
 *
 * A peer is alive while it is heard; it must also answer pings, but behind a full queue an answer
 * may take several timeouts. Who was himself late (a paused machine) judges nobody in that turn.
 * Rejected: pings in a queue of their own before the frames: they would measure another way. */
#include "cluster/rail.h"

#include <stdlib.h>

#include "cluster/line.h"

enum {
    GREETING_MS = 5000, /* from the connection to the HELLO */
    FAREWELL_MS = 1000, /* for a refusal to be taken */
    ANSWER_TIMEOUTS = 4,
    STALLED_MS = 1000,
    RETRY_MIN_MS = 50,
    RETRY_MAX_MS = 5000,
    STRANGE_MAX = 20, /* refusals as unknown after which pauses grow as after others */
    GUESTS_MAX = 64,  /* accepted and without a HELLO: beyond, the oldest goes */
};

enum call_state { CALL_OPENING, CALL_GREETING, CALL_UP, CALL_OVER };

struct call {
    struct list link;
    struct rails *rails;
    struct rail *rail; /* NULL: accepted and not greeted yet, or OVER */
    struct line *line;
    struct timer timer; /* GREETING's and farewell's end; UP: heartbeat */
    enum call_state state;
    bool dialled;
    bool harmless; /* that it ends is nobody's trouble: for debug */
    bool hung_up;  /* the other end did, before it said who it is */
    uint64_t up_ms, ticked_ms;
    uint64_t asked_ms; /* of the oldest ping without an answer; 0: none */
};

struct rail {
    struct list link;
    struct rails *rails;
    char node[NODE_NAME_MAX];
    uint8_t node_n;
    uint16_t shard;
    uint32_t incarnation;
    void *owner;
    struct call *up, *dialled; /* dialled: not greeted yet */
    bool dialling;             /* the wiring was asked and has not answered */
    unsigned tries;
    unsigned strange; /* refusals as unknown since it was up */
    struct timer retry;
    bool full, stall_told, was_up;
    uint64_t full_ms; /* since when */
    struct rail_stats stats;
};

struct rails {
    struct rails_config config;
    struct rail_sinks sinks;
    char cluster[NODE_NAME_MAX], node[NODE_NAME_MAX];
    uint64_t epoch;
    struct list rails, calls; /* calls: oldest first */
    unsigned guests;
    uint64_t refused;
};

static const char *const refusals[RAIL_REFUSALS] = {
    [RAIL_REFUSED_OTHER] = "refused", [RAIL_MALFORMED] = "malformed", [RAIL_VERSION] = "version",
    [RAIL_CLUSTER] = "cluster",       [RAIL_NAME] = "name",           [RAIL_SELF] = "self",
    [RAIL_UNKNOWN] = "unknown_peer",  [RAIL_REPLACED] = "replaced",
};
const char *rail_refusal_name(enum rail_refusal r) { return refusals[r]; }

static str node_of(const struct rail *r) { return (str){r->node, r->node_n}; }

static int name_order(str a, str b)
{
    int c = memcmp(a.p, b.p, a.n < b.n ? a.n : b.n);
    return c ? c : (a.n > b.n) - (a.n < b.n);
}

static bool we_dial(const struct rail *r)
{
    return name_order(r->rails->config.node, node_of(r)) < 0;
}

/* ---- dialling ---- */

static void on_retry(struct timer *t)
{
    struct rail *r = container_of(t, struct rail, retry);
    if (r->up || r->dialled || r->dialling)
        return;
    r->dialling = true;
    r->rails->sinks.dial(r->rails->sinks.ctx, r);
}

/* 50 ms, 100, 200 … 5 s, of which the upper half is chance, so that a node that comes back is not
 * met by all others at one moment. */
static void retry_later(struct rail *r)
{
    if (!we_dial(r) || r->up || r->dialled || r->dialling)
        return;
    unsigned doublings = r->tries < 7 ? r->tries : 7;
    uint64_t ms = (uint64_t)RETRY_MIN_MS << doublings;
    ms = ms < RETRY_MAX_MS ? ms : RETRY_MAX_MS;
    r->tries++;
    ms = ms / 2 + entropy_u64(r->rails->config.entropy) % (ms / 2 + 1);
    loop_timer_set(r->rails->config.loop, &r->retry, ms);
}

void rail_failed(struct rail *r, err reason)
{
    must(r->dialling);
    r->dialling = false;
    LOG_AT(r->rails->config.log, r->tries > 1 ? LOG_DEBUG : LOG_WARN, rail_down,
           F_STR("peer", node_of(r)), F_INT("shard", r->shard),
           F_STR("reason", str_of(err_row(reason)->name)));
    retry_later(r);
}

/* ---- pressure ---- */

static void set_full(struct rail *r, bool full)
{
    uint64_t now = loop_now_ms(r->rails->config.loop);
    if (r->full == full)
        return;
    r->full = full;
    if (full)
        r->full_ms = now, r->stall_told = false;
    else
        r->stats.stalled_ms += now - r->full_ms;
    r->rails->sinks.full(r->rails->sinks.ctx, r, full);
}

static void tell_stall(struct rail *r, uint64_t now)
{
    if (!r->full || r->stall_told || now - r->full_ms < STALLED_MS)
        return;
    r->stall_told = true;
    LOG(r->rails->config.log, rail_stalled, F_STR("peer", node_of(r)), F_INT("shard", r->shard),
        F_INT("bytes", line_queued(r->up->line)), F_INT("ms", now - r->full_ms));
}

/* ---- the end of a call ---- */

/* It is nobody's any more. Its line goes on to its end. */
static void call_over(struct call *c)
{
    if (c->state < CALL_UP && !c->rail)
        c->rails->guests--;
    c->state = CALL_OVER;
    c->rail = NULL;
    loop_timer_stop(c->rails->config.loop, &c->timer);
}

/* The rail has lost this call; retrying begins. */
static void unhook(struct rail *r, struct call *c, str reason)
{
    struct rails *rs = r->rails;
    bool was_up = r->up == c;
    uint64_t now = loop_now_ms(rs->config.loop);
    if (was_up && now - c->up_ms >= RETRY_MAX_MS)
        r->tries = 0;
    bool news = was_up || (r->tries < 2 && !c->harmless);
    LOG_AT(rs->config.log, news ? LOG_WARN : LOG_DEBUG, rail_down, F_STR("peer", node_of(r)),
           F_INT("shard", r->shard), F_STR("reason", reason));
    if (was_up) {
        r->stats.bytes_in += line_bytes_in(c->line), r->stats.bytes_out += line_bytes_out(c->line);
        r->stats.stalled_ms += r->full ? now - r->full_ms : 0;
        r->full = false;
        r->up = NULL;
    } else {
        r->dialled = NULL;
    }
    call_over(c);
    retry_later(r);
}

static void guest_goes(struct call *c, str reason)
{
    struct transport_info info;
    transport_info(line_transport(c->line), &info);
    c->rails->refused += !c->harmless;
    enum log_level level = c->harmless ? LOG_DEBUG : c->hung_up ? LOG_INFO : LOG_ERROR;
    LOG_AT(c->rails->config.log, level, peer_refused, F_ADDR("address", &info.address),
           F_STR("reason", reason));
    call_over(c);
}

/* It counts no more; whether the owner of its rail is to be told, which comes last: it may close
 * the rail, and all others. */
static bool let_go(struct call *c, str reason)
{
    bool was_up = c->state == CALL_UP;
    if (c->rail)
        unhook(c->rail, c, reason);
    else if (c->state != CALL_OVER)
        guest_goes(c, reason);
    return was_up;
}

static void tell_down(struct rail *r, err e) { r->rails->sinks.down(r->rails->sinks.ctx, r, e); }

static void call_fail(struct call *c, err e, str reason)
{
    struct rail *r = c->rail;
    struct line *l = c->line;
    bool tell = let_go(c, reason);
    line_drop(l, e);
    if (tell)
        tell_down(r, e);
}

/* Between nodes of one cluster these come and pass: views are adopted one after the other, and two
 * calls may cross. Who is UNKNOWN has proven its name. */
static bool is_harmless(unsigned why) { return why == RAIL_UNKNOWN || why == RAIL_REPLACED; }

/* Before the call is anybody's: nobody is told but the peer. */
static void refuse(struct call *c, enum rail_refusal why)
{
    char byte = (char)why;
    c->harmless = is_harmless(why);
    line_send(c->line, ENVELOPE_REFUSE, NULL, &(struct iovec){&byte, 1}, 1);
    (void)let_go(c, str_of(refusals[why]));
    loop_timer_set(c->rails->config.loop, &c->timer, FAREWELL_MS);
    line_finish(c->line);
}

/* ---- greeting ---- */

static void say_hello(struct call *c)
{
    struct rails *rs = c->rails;
    struct arena a;
    struct hello h = {
        .version_min = RAIL_VERSION_MIN,
        .version_max = RAIL_VERSION_MAX,
        .features = RAIL_FEATURES,
        .cluster = rs->config.cluster,
        .node = rs->config.node,
        .shard = rs->config.shard,
        .incarnation = rs->config.incarnation,
        .sees = c->rail->incarnation,
        .epoch = rs->epoch,
        .software = rs->config.software,
    };
    arena_init(&a);
    str body = hello_encode(&h, &a);
    line_send(c->line, ENVELOPE_HELLO, NULL, &(struct iovec){(char *)body.p, body.n}, 1);
    arena_close(&a);
}

static struct rail *find(const struct rails *rs, str node, uint32_t shard)
{
    list_each(r, &rs->rails, struct rail, link)
        if (r->shard == shard && str_eq(node_of(r), node))
            return r;
    return NULL;
}

/* The name is the certificate's; without TLS, where the config allows that, whatever it says. */
static bool name_is_proven(const struct call *c, str name)
{
    struct transport_info info;
    transport_info(line_transport(c->line), &info);
    return info.tls ? str_eq(info.peer, name) : c->rails->config.plain;
}

/* RAIL_REFUSALS: nothing is wrong. *rail: whose call it is. */
static enum rail_refusal judge(const struct call *c, const struct hello *h, struct rail **rail)
{
    const struct rails_config *own = &c->rails->config;
    if (h->version_min > RAIL_VERSION_MAX || h->version_max < RAIL_VERSION_MIN)
        return RAIL_VERSION;
    if (!str_eq(h->cluster, own->cluster))
        return RAIL_CLUSTER;
    if (!name_is_proven(c, h->node))
        return RAIL_NAME;
    if (str_eq(h->node, own->node))
        return RAIL_SELF;
    *rail = c->rail ? c->rail : find(c->rails, h->node, h->shard);
    if (!*rail)
        return RAIL_UNKNOWN;
    if (!str_eq(node_of(*rail), h->node) || (*rail)->shard != h->shard)
        return RAIL_NAME;
    return RAIL_REFUSALS;
}

/* Whether the new call is kept rather than the other. */
static bool is_better(const struct rail *r, const struct call *new, const struct call *other)
{
    return new->dialled == other->dialled || new->dialled == we_dial(r);
}

/* Room for c as the rail's call; false: there is a better one. */
static bool make_room(struct rail *r, struct call *c)
{
    struct call *others[] = {r->up, r->dialled};
    for (unsigned i = 0; i < array_len(others); i++)
        if (others[i] && others[i] != c && !is_better(r, c, others[i]))
            return false;
    return true;
}

static void tick_later(struct call *c)
{
    c->ticked_ms = loop_now_ms(c->rails->config.loop);
    loop_timer_set(c->rails->config.loop, &c->timer, c->rails->config.ping_ms);
}

static void call_up(struct call *c, struct rail *r, const struct hello *h)
{
    struct rails *rs = c->rails;
    if (!c->rail)
        rs->guests--;
    c->rail = r;
    if (r->dialled == c)
        r->dialled = NULL;
    else
        say_hello(c);
    r->up = c;
    r->stats.reconnects += r->was_up;
    r->was_up = true;
    r->strange = 0;
    loop_timer_stop(rs->config.loop, &r->retry);
    c->state = CALL_UP;
    c->up_ms = loop_now_ms(rs->config.loop);
    tick_later(c);
    LOG(rs->config.log, rail_up, F_STR("peer", node_of(r)), F_INT("shard", r->shard),
        F_INT("version", h->version_max < RAIL_VERSION_MAX ? h->version_max : RAIL_VERSION_MAX));
    rs->sinks.up(rs->sinks.ctx, r, h);
}

static void on_hello(struct call *c, str body)
{
    struct hello h;
    struct arena a;
    struct rail *r = NULL;
    arena_init(&a);
    enum rail_refusal why =
        hello_decode(body, &a, &h) == ERR_OK ? judge(c, &h, &r) : RAIL_MALFORMED;
    if (why == RAIL_REFUSALS && !make_room(r, c))
        why = RAIL_REPLACED;
    if (why != RAIL_REFUSALS) {
        refuse(c, why);
        arena_close(&a);
        return;
    }
    if (r->dialled && r->dialled != c)
        call_fail(r->dialled, ERR_CLOSED, STR("replaced"));
    if (r->up)
        call_fail(r->up, ERR_CLOSED, STR("replaced"));
    /* The rail may have been closed by its owner, on being told. */
    if (find(c->rails, h.node, h.shard) == r && c->state == CALL_GREETING)
        call_up(c, r, &h);
    arena_close(&a);
}

/* ---- a call's line ---- */

static void on_ping(struct call *c, str stamp)
{
    uint64_t wall = htole64((uint64_t)clock_wall_us(c->rails->config.clock));
    struct iovec v[] = {{(char *)stamp.p, stamp.n}, {&wall, sizeof wall}};
    line_send(c->line, ENVELOPE_PONG, NULL, v, array_len(v));
}

/* The stamp is ours, come back: when we sent it. */
static void on_pong(struct call *c, str body)
{
    struct rail *r = c->rail;
    uint64_t sent, wall, now = loop_clock_us(c->rails->config.loop);
    memcpy(&sent, body.p, 8), memcpy(&wall, body.p + 8, 8);
    c->asked_ms = 0;
    if (sent > now) /* not one of ours */
        return;
    r->stats.round_trip_us = now - sent ? now - sent : 1;
    int64_t here = clock_wall_us(c->rails->config.clock);
    r->stats.offset_us = (int64_t)(le64toh(wall) + r->stats.round_trip_us / 2 - (uint64_t)here);
}

static void on_refused(struct call *c, uint8_t why)
{
    struct rail *r = c->rail;
    c->harmless = is_harmless(why);
    if (r && !c->harmless)
        r->tries = 7; /* nothing that heals by itself in milliseconds */
    else if (r && why == RAIL_UNKNOWN && r->strange++ < STRANGE_MAX)
        r->tries = 1; /* the peer is about to adopt a view with us */
    call_fail(c, ERR_BAD, str_of(refusals[why < RAIL_REFUSALS ? why : RAIL_REFUSED_OTHER]));
}

static void on_up_envelope(struct call *c, const struct envelope *e)
{
    struct rails *rs = c->rails;
    switch (e->kind) {
    case ENVELOPE_FRAME:
        c->rail->stats.frames_in++;
        rs->sinks.frame(rs->sinks.ctx, c->rail, e);
        return;
    case ENVELOPE_WORD: rs->sinks.word(rs->sinks.ctx, c->rail, e->body); return;
    case ENVELOPE_PING: on_ping(c, e->body); return;
    case ENVELOPE_PONG: on_pong(c, e->body); return;
    case ENVELOPE_REFUSE: on_refused(c, (uint8_t)e->body.p[0]); return;
    default: call_fail(c, ERR_BAD, STR("malformed")); return;
    }
}

static void on_envelope(struct line *l, const struct envelope *e)
{
    struct call *c = line_owner(l);
    if (c->state == CALL_UP)
        on_up_envelope(c, e);
    else if (c->state == CALL_GREETING && e->kind == ENVELOPE_HELLO)
        on_hello(c, e->body);
    else if (c->state == CALL_GREETING && e->kind == ENVELOPE_REFUSE && c->dialled)
        on_refused(c, (uint8_t)e->body.p[0]);
    else if (c->state != CALL_OVER)
        refuse(c, RAIL_MALFORMED);
}

static void greet(struct call *c)
{
    c->state = CALL_GREETING;
    if (c->dialled)
        say_hello(c);
}

static void on_opened(struct line *l)
{
    struct call *c = line_owner(l);
    if (c->state == CALL_OPENING)
        greet(c);
}

static void on_drained(struct line *l)
{
    struct call *c = line_owner(l);
    if (c->state == CALL_UP && line_queued(l) <= c->rails->config.queue_max / 2)
        set_full(c->rail, false);
}

static void on_ended(struct line *l, err reason)
{
    struct call *c = line_owner(l);
    struct rail *r = c->rail;
    struct transport_info info;
    transport_info(line_transport(l), &info);
    c->hung_up = reason == ERR_CLOSED; /* as one that has adopted another view meanwhile */
    bool tell = let_go(c, info.failure.n ? info.failure : str_of(err_row(reason)->name));
    loop_timer_stop(c->rails->config.loop, &c->timer);
    list_remove(&c->link);
    free(c);
    if (tell)
        tell_down(r, reason);
}

static const struct line_sink line_sink = {on_opened, on_envelope, on_drained, on_ended};

/* ---- time ---- */

static bool is_silent(const struct call *c, uint64_t now)
{
    const struct rails_config *f = &c->rails->config;
    if (now - c->ticked_ms > (uint64_t)f->ping_ms + f->timeout_ms) /* we were late ourselves */
        return false;
    return now - line_heard_ms(c->line) > f->timeout_ms ||
           (c->asked_ms && now - c->asked_ms > (uint64_t)ANSWER_TIMEOUTS * f->timeout_ms);
}

static void heartbeat(struct call *c)
{
    uint64_t now = loop_now_ms(c->rails->config.loop);
    uint64_t stamp = loop_clock_us(c->rails->config.loop);
    if (is_silent(c, now)) {
        call_fail(c, ERR_TIMEOUT, STR("timeout"));
        return;
    }
    tell_stall(c->rail, now);
    if (!c->asked_ms)
        c->asked_ms = now ? now : 1;
    line_send(c->line, ENVELOPE_PING, NULL, &(struct iovec){&stamp, sizeof stamp}, 1);
    tick_later(c);
}

static void on_timer(struct timer *t)
{
    struct call *c = container_of(t, struct call, timer);
    if (c->state == CALL_UP)
        heartbeat(c);
    else if (c->state == CALL_OVER)
        line_drop(c->line, ERR_TIMEOUT);
    else
        call_fail(c, ERR_TIMEOUT, STR("no_hello"));
}

/* ---- calls ---- */

static struct call *call_new(struct rails *rs, struct rail *r, struct transport *t)
{
    struct call *c = calloc(1, sizeof *c);
    must(c);
    c->rails = rs, c->rail = r, c->dialled = r != NULL;
    timer_init(&c->timer, on_timer);
    c->line = line_new(rs->config.loop, t, rs->config.frame_max, &line_sink, c);
    list_push_back(&rs->calls, &c->link);
    loop_timer_set(rs->config.loop, &c->timer, GREETING_MS);
    return c;
}

static void make_room_for_guest(struct rails *rs)
{
    if (rs->guests < GUESTS_MAX)
        return;
    list_each(c, &rs->calls, struct call, link)
        if (!c->rail && c->state != CALL_OVER) {
            call_fail(c, ERR_FULL, str_of(err_row(ERR_FULL)->name));
            return;
        }
}

void rails_accept(struct rails *rs, struct transport *t)
{
    make_room_for_guest(rs);
    struct call *c = call_new(rs, NULL, t);
    rs->guests++;
    if (line_is_open(c->line))
        greet(c);
}

void rail_connected(struct rail *r, struct transport *t)
{
    must(r->dialling);
    r->dialling = false;
    struct call *c = call_new(r->rails, r, t);
    r->dialled = c;
    if (line_is_open(c->line))
        greet(c);
}

/* ---- rails ---- */

static bool put(struct rail *r, enum envelope_kind kind, const struct envelope_address *a,
                const struct iovec *v, size_t n)
{
    if (!r->up)
        return false;
    line_send(r->up->line, kind, a, v, n);
    if (line_queued(r->up->line) > r->rails->config.queue_max)
        set_full(r, true);
    return true;
}

bool rail_send(struct rail *r, const struct envelope_address *a, const struct iovec *frame,
               size_t n)
{
    bool sent = put(r, ENVELOPE_FRAME, a, frame, n);
    r->stats.frames_out += sent;
    return sent;
}

bool rail_say(struct rail *r, str word)
{
    must(word.n && word.n <= r->rails->config.frame_max);
    return put(r, ENVELOPE_WORD, NULL, &(struct iovec){(char *)word.p, word.n}, 1);
}

struct rail *rail_open(struct rails *rs, str node, uint16_t shard, void *owner)
{
    must(node_name_is_good(node) && !str_eq(node, rs->config.node) && !find(rs, node, shard));
    struct rail *r = calloc(1, sizeof *r);
    must(r);
    r->rails = rs, r->shard = shard, r->owner = owner;
    memcpy(r->node, node.p, node.n);
    r->node_n = (uint8_t)node.n;
    timer_init(&r->retry, on_retry);
    list_push_back(&rs->rails, &r->link);
    if (we_dial(r))
        loop_timer_set(rs->config.loop, &r->retry, 0);
    return r;
}

void rail_close(struct rail *r)
{
    struct call *calls[] = {r->up, r->dialled};
    list_remove(&r->link);
    loop_timer_stop(r->rails->config.loop, &r->retry);
    for (unsigned i = 0; i < array_len(calls); i++)
        if (calls[i]) {
            call_over(calls[i]);
            line_drop(calls[i]->line, ERR_CLOSED);
        }
    free(r);
}

void rail_set_incarnation(struct rail *r, uint32_t incarnation) { r->incarnation = incarnation; }
bool rail_is_up(const struct rail *r) { return r->up != NULL; }
void *rail_owner(const struct rail *r) { return r->owner; }
str rail_node(const struct rail *r) { return node_of(r); }
uint16_t rail_shard(const struct rail *r) { return r->shard; }

struct rail_stats rail_stats(const struct rail *r)
{
    struct rail_stats s = r->stats;
    if (r->up) {
        s.bytes_in += line_bytes_in(r->up->line), s.bytes_out += line_bytes_out(r->up->line);
        s.queued = line_queued(r->up->line);
    }
    if (r->full)
        s.stalled_ms += loop_now_ms(r->rails->config.loop) - r->full_ms;
    return s;
}

/* ---- life ---- */

static str own(char to[NODE_NAME_MAX], str name)
{
    must(node_name_is_good(name));
    memcpy(to, name.p, name.n);
    return (str){to, name.n};
}

struct rails *rails_new(const struct rails_config *c, const struct rail_sinks *sinks)
{
    struct rails *rs = calloc(1, sizeof *rs);
    must(rs);
    rs->config = *c, rs->sinks = *sinks;
    rs->config.cluster = own(rs->cluster, c->cluster);
    rs->config.node = own(rs->node, c->node);
    list_init(&rs->rails), list_init(&rs->calls);
    return rs;
}

void rails_configure(struct rails *rs, uint32_t ping_ms, uint32_t timeout_ms, size_t queue_max)
{
    rs->config.ping_ms = ping_ms, rs->config.timeout_ms = timeout_ms;
    rs->config.queue_max = queue_max;
}

void rails_set_epoch(struct rails *rs, uint64_t epoch) { rs->epoch = epoch; }

void rails_close(struct rails *rs)
{
    while (!list_empty(&rs->rails))
        rail_close(list_first(&rs->rails, struct rail, link));
    list_each(c, &rs->calls, struct call, link) {
        if (c->state != CALL_OVER)
            call_over(c);
        line_drop(c->line, ERR_CLOSED);
    }
}

uint64_t rails_refused(const struct rails *rs) { return rs->refused; }
bool rails_at_rest(const struct rails *rs) { return list_empty(&rs->calls); }

void rails_free(struct rails *rs)
{
    must(rails_at_rest(rs) && list_empty(&rs->rails));
    free(rs);
}
