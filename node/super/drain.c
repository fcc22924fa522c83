/* drain: see drain.h. */
#include "node/super/drain.h"

#include <sys/socket.h>

#include "node/conf/value.h"
#include "node/super/inside.h"
#include "node/super/super.h"

enum { LOOK_MS = 50, TELL_MS = 500 };

static uint64_t sum_of(const struct super *s, enum metric first, enum metric last)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < s->shards; i++)
        for (unsigned k = first; k <= last; k++)
            sum += metric_get(s->process[i].page, (enum metric)k);
    return sum;
}

/* Those too that have not logged in, and those that are being closed. */
static uint64_t connections(const struct super *s)
{
    return sum_of(s, METRIC_connections, METRIC_connections_LAST);
}

/* Who is to go. In a cluster their homes are on other nodes as often as not, and count them. */
static uint64_t sessions(const struct super *s)
{
    if (!s->cluster.owner)
        return sum_of(s, METRIC_sessions_connected, METRIC_sessions_connected);
    uint64_t all = connections(s),
             early = sum_of(s, METRIC_connections_preauth, METRIC_connections_preauth);
    return all > early ? all - early : 0;
}

bool drain_is_on(const struct super *s) { return s->drain.phase != DRAIN_NONE; }
bool drain_is_closed(const struct super *s) { return s->drain.phase > DRAIN_GRACE; }

double drain_share(const struct super *s)
{
    uint64_t all = s->drain.sessions, left = sessions(s);
    if (s->drain.phase == DRAIN_EMPTY || all == 0)
        return 1;
    return left < all ? 1 - (double)left / (double)all : 0;
}

/* ---- what is told ---------------------------------------------------------------------------- */

/* Seconds until the last one is gone: at the rate given, else at that of so far. */
double drain_eta_s(const struct super *s)
{
    const struct drain *d = &s->drain;
    double left = (double)sessions(s), grace = 0, rate = 0;
    if (d->phase == DRAIN_EMPTY)
        return 0;
    if (d->phase == DRAIN_GRACE)
        grace = (double)(d->grace_until_ms - s->now_ms) / 1e3;
    double spent = (double)(s->now_ms - d->released_ms) / 1e3;
    if (d->rate_count)
        rate = (double)d->rate_count * 1e3 / (double)d->rate_per_ms;
    else if (d->phase == DRAIN_RELEASE && spent > 0)
        rate = ((double)d->sessions - left) / spent;
    double eta = grace + (rate > 0 ? left / rate : 0);
    double end = (double)(d->until_ms - s->now_ms) / 1e3;
    return eta < end ? eta : end;
}

str drain_json(const struct super *s, struct arena *a)
{
    static const char *const names[] = {"none", "grace", "move", "release", "empty"};
    const struct drain *d = &s->drain;
    int64_t end = d->phase == DRAIN_EMPTY ? d->ended_ms : s->now_ms;
    return arena_printf(a,
                        "{\"v\":1,\"node\":\"%s\",\"phase\":\"%s\",\"sessions\":%llu,"
                        "\"left\":%llu,\"share\":%.3f,\"at_once\":%llu,\"seconds\":%.1f,"
                        "\"grace_seconds\":%.1f,\"eta_seconds\":%.1f,\"slots\":%llu}",
                        s->node, names[d->phase], (unsigned long long)d->sessions,
                        (unsigned long long)sessions(s), drain_share(s),
                        (unsigned long long)d->at_once, (double)(end - d->started_ms) / 1e3,
                        d->phase == DRAIN_GRACE ? (double)(d->grace_until_ms - s->now_ms) / 1e3 : 0,
                        drain_eta_s(s), (unsigned long long)cluster_slots(s));
}

static bool waits(const struct client *c) { return client_is_there(c) && c->waits_for_drain; }

static void answer(struct super *s, struct client *c, unsigned exit, str text)
{
    c->waits_for_drain = false;
    admin_reply(s, c, exit, text);
}

static void answer_all(struct super *s, unsigned exit, str text)
{
    for (unsigned i = 0; i < CLIENTS_MAX; i++)
        if (waits(&s->client[i]))
            answer(s, &s->client[i], exit, text);
}

static void tell_progress(struct super *s)
{
    struct arena a;
    if (s->now_ms < s->drain.told_ms + TELL_MS)
        return;
    s->drain.told_ms = s->now_ms;
    arena_init(&a);
    str text = drain_json(s, &a);
    for (unsigned i = 0; i < CLIENTS_MAX; i++)
        if (waits(&s->client[i]))
            admin_progress(&s->client[i], text);
    arena_close(&a);
}

static void answer_end(struct super *s)
{
    const struct drain *d = &s->drain;
    struct arena a;
    arena_init(&a);
    if (d->at_once)
        answer_all(s, EXIT_TIMEOUT,
                   arena_printf(&a,
                                "the time was over after %.1f s: %llu of %llu sessions were let go "
                                "at once",
                                (double)(d->ended_ms - d->started_ms) / 1e3,
                                (unsigned long long)d->at_once, (unsigned long long)d->sessions));
    else
        answer_all(s, EXIT_DONE, drain_json(s, &a));
    arena_close(&a);
}

void drain_stopped(struct super *s)
{
    answer_all(s, EXIT_FAILED, STR("the node is being stopped"));
    s->drain.phase = DRAIN_NONE;
}

/* ---- steps ----------------------------------------------------------------------------------- */

static void tell_shards(struct super *s, bool on, bool now)
{
    const struct drain *d = &s->drain;
    Control__Drain drain = CONTROL__DRAIN__INIT;
    Control__ToChild m = CONTROL__TO_CHILD__INIT;
    drain.on = on, drain.has_now = true, drain.now = now;
    drain.has_count = drain.has_per_ms = true;
    drain.count = d->rate_count, drain.per_ms = d->rate_per_ms * s->shards;
    m.what_case = CONTROL__TO_CHILD__WHAT_DRAIN, m.drain = &drain;
    for (unsigned i = 0; i < s->shards; i++)
        process_send(&s->process[i], &m, NULL, 0);
}

static void end(struct super *s)
{
    struct drain *d = &s->drain;
    d->phase = DRAIN_EMPTY;
    d->ended_ms = s->now_ms;
    LOG(s->log, node_drained, F_INT("sessions", d->sessions),
        F_INT("ms", s->now_ms - d->started_ms), F_INT("left", d->at_once));
    answer_end(s);
}

static void over(struct super *s)
{
    if (s->drain.phase == DRAIN_GRACE)
        super_go_deaf(s);
    s->drain.at_once = sessions(s);
    tell_shards(s, true, true);
    end(s);
}

/* Homes go first: who comes back elsewhere finds its session without a detour to a node that is to
 * end. Without a cluster there is nothing to wait for. */
static void move(struct super *s)
{
    s->drain.phase = DRAIN_MOVE;
    super_go_deaf(s);
}

static void release(struct super *s)
{
    s->drain.phase = DRAIN_RELEASE;
    s->drain.released_ms = s->now_ms;
    tell_shards(s, true, false);
}

void drain_turn(struct super *s)
{
    struct drain *d = &s->drain;
    if (d->phase == DRAIN_NONE || d->phase == DRAIN_EMPTY || s->now_ms < d->look_ms)
        return;
    d->look_ms = s->now_ms + LOOK_MS;
    if (sessions(s) > d->sessions)
        d->sessions = sessions(s); /* who came during the grace */
    if (d->phase == DRAIN_GRACE && s->now_ms >= d->grace_until_ms)
        move(s);
    if (d->phase == DRAIN_MOVE && cluster_has_moved(s))
        release(s);
    if (d->phase == DRAIN_RELEASE && connections(s) == 0)
        end(s);
    else if (s->now_ms >= d->until_ms)
        over(s);
    else
        tell_progress(s);
}

int64_t drain_next_ms(const struct super *s)
{
    bool busy = s->drain.phase != DRAIN_NONE && s->drain.phase != DRAIN_EMPTY;
    return busy ? s->drain.look_ms : INT64_MAX;
}

static void begin(struct super *s, const struct client *c)
{
    struct drain *d = &s->drain;
    d->phase = DRAIN_GRACE;
    d->started_ms = d->look_ms = s->now_ms;
    d->grace_until_ms = s->now_ms + s->conf->node_drain_grace;
    d->sessions = sessions(s), d->at_once = 0, d->told_ms = 0;
    cluster_drain(s, true);
    LOG(s->log, node_draining, F_INT("sessions", d->sessions),
        F_STR("by", str_of(c->asker ? "cluster" : "socket")));
}

static void answer_now(struct super *s, struct client *c)
{
    struct arena a;
    arena_init(&a);
    admin_reply(s, c, EXIT_DONE, drain_json(s, &a));
    arena_close(&a);
}

static void cancel(struct super *s, struct client *c)
{
    if (!drain_is_on(s))
        return admin_reply(s, c, EXIT_FAILED, STR("the node is not draining"));
    bool closed = drain_is_closed(s);
    tell_shards(s, false, false);
    cluster_drain(s, false);
    s->drain.phase = DRAIN_NONE;
    if (closed)
        super_listen_again(s);
    answer_all(s, EXIT_FAILED, STR("the drain was cancelled; the node serves again"));
    answer_now(s, c);
}

/* ---- the command ----------------------------------------------------------------------------- */

/* "rate" "500/s" and "timeout" "90s", by the rules of the options that they stand for. */
struct wish {
    struct conf_rate rate;
    int64_t timeout_ms;
};

static bool read_wish(const struct super *s, size_t argc, const str *argv, struct wish *w,
                      str *complaint, struct arena *a)
{
    *w = (struct wish){s->conf->node_drain_rate, s->conf->node_drain_timeout};
    for (size_t i = 1; i + 1 < argc; i += 2) {
        bool is_rate = str_is(argv[i], "rate");
        const struct conf_row *row =
            &conf_rows[is_rate ? CONF_ROW_node_drain_rate : CONF_ROW_node_drain_timeout];
        union conf_value v;
        const char *problem = conf_value_parse(row, argv[i + 1], a, &v);
        if (problem) {
            *complaint = conf_value_complaint(row, argv[i + 1], problem, a);
            return false;
        }
        if (is_rate)
            w->rate = v.rate;
        else
            w->timeout_ms = v.ms;
    }
    return true;
}

static void drain(struct super *s, struct client *c, const struct wish *w)
{
    struct drain *d = &s->drain;
    bool ended = d->phase == DRAIN_EMPTY;
    c->waits_for_drain = !c->asker;
    if (!drain_is_on(s))
        begin(s, c);
    if (ended && !c->asker)
        return answer_end(s);
    d->rate_count = w->rate.count, d->rate_per_ms = w->rate.per_ms;
    d->until_ms = d->started_ms + w->timeout_ms;
    if (d->phase == DRAIN_RELEASE)
        tell_shards(s, true, false);
    drain_turn(s);
    if (c->asker) /* another node, which will ask again how far it is */
        answer_now(s, c);
}

void drain_command(struct super *s, struct client *c, size_t argc, const str *argv)
{
    struct arena a;
    struct wish w;
    str complaint;
    if (s->stopping || !s->ready)
        return admin_reply(s, c, EXIT_FAILED,
                           s->stopping ? STR("the node is being stopped")
                                       : STR("the node is still starting; ask again"));
    if (argc == 2 && str_is(argv[1], "cancel"))
        return cancel(s, c);
    arena_init(&a);
    if (read_wish(s, argc, argv, &w, &complaint, &a))
        drain(s, c, &w);
    else
        admin_reply(s, c, EXIT_USAGE, complaint);
    arena_close(&a);
}
