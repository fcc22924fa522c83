/* admit: see admit.h. The line is worked off by a source of the loop, behind the fifos: frames for
 * those who are here come first. */
#include "node/edge/admit.h"

#include "node/edge/auth.h"
#include "node/edge/listen.h"
#include "node/edge/stream.h"
#include "node/tls/tls.h"

enum {
    COST_US = 200,   /* before one was measured */
    COST_OF = 8,     /* it follows the last ones */
    SAID_MS = 60000, /* a storm closes and opens the door a few times a second: said once */
};

static size_t in_line(const struct edge *e)
{
    return e->node->tls ? tls_line_length(e->node->tls) : 0;
}

/* ---- accepting ---- */

bool admit_is_open(const struct edge *e) { return !e->admission.closed; }

/* Whether it is below the bounds; half of them, once it was not. */
static bool has_room(const struct edge *e)
{
    unsigned half = e->admission.closed ? 2 : 1;
    return in_line(e) * e->admission.cost_us < ADMIT_LINE_US / half &&
           e->logins_waiting_count < auth_jobs_max(e) * ADMIT_LOGINS / half;
}

static void close_door(struct edge *e)
{
    struct node *n = e->node;
    uint64_t now = loop_now_ms(n->loop);
    e->admission.closed = true;
    metric_add(n->metrics, METRIC_limit_logins_concurrent, 1);
    if (now < e->admission.silent_until_ms)
        return;
    e->admission.silent_until_ms = now + SAID_MS;
    LOG(n->log, logins_deferred, F_INT("waiting", in_line(e) + e->logins_waiting_count),
        F_STR("reason", STR("accepting_paused")));
}

void admit_look(struct edge *e)
{
    bool room = has_room(e);
    metric_set(e->node->metrics, METRIC_logins_waiting, in_line(e) + e->logins_waiting_count);
    if (!room && !e->admission.closed) {
        close_door(e);
    } else if (room && e->admission.closed) {
        e->admission.closed = false;
        listen_go_on(e);
    }
}

/* ---- handshakes ---- */

static void work(struct edge *e)
{
    struct admission *a = &e->admission;
    struct loop *loop = e->node->loop;
    uint64_t begin = loop_clock_us(loop), last = begin;
    while (last - begin < ADMIT_TURN_US && tls_line_next(e->node->tls)) {
        uint64_t now = loop_clock_us(loop);
        a->cost_us = (a->cost_us * (COST_OF - 1) + (now - last) + COST_OF - 1) / COST_OF;
        last = now;
    }
}

static bool poll(struct loop_source *s)
{
    struct edge *e = container_of(s, struct edge, admission.source);
    bool any = in_line(e) > 0;
    if (e->admission.sleeping || !(any || e->admission.closed))
        return any;
    admit_look(e); /* as long as it is now */
    work(e);
    admit_look(e);
    return any;
}

static void sleep(struct loop_source *s, bool sleeping)
{
    container_of(s, struct admission, source)->sleeping = sleeping;
}

void admit_start(struct edge *e)
{
    struct admission *a = &e->admission;
    a->cost_us = COST_US;
    list_init(&a->source.link);
    a->source.poll = poll, a->source.sleep = sleep;
    if (!e->node->tls)
        return;
    tls_line_keep(e->node->tls);
    loop_source_add(e->node->loop, &a->source);
}

void admit_stop(struct edge *e) { loop_source_remove(e->node->loop, &e->admission.source); }

/* ---- who is told to come back ---- */

bool admit_is_full(const struct edge *e)
{
    return e->logins_waiting_count >= e->node->conf->limits_logins_queue_max;
}

static void count_deferred(struct conn *c, enum admit_why why)
{
    static const struct {
        enum metric deferred;
        const char *reason, *limit;
    } of[] = {
        [ADMIT_FULL] = {METRIC_logins_deferred_full, "queue_full", "logins_queue_max"},
        [ADMIT_LATE] = {METRIC_logins_deferred_late, "waited", "login_wait_max"},
        [ADMIT_STORE] = {METRIC_logins_deferred_store, "store_away", NULL},
    };
    struct node *n = c->edge->node;
    size_t waiting = c->edge->logins_waiting_count;
    metric_add(n->metrics, of[why].deferred, 1);
    LOG(n->log, logins_deferred, F_INT("waiting", waiting),
        F_STR("reason", str_of(of[why].reason)));
    if (!of[why].limit)
        return;
    struct sockaddr_storage address;
    conn_address(c, &address);
    metric_add(n->metrics, why == ADMIT_FULL ? METRIC_limit_logins_queue : METRIC_limit_login_wait,
               1);
    LOG(n->log, limit_hit, F_STR("limit", str_of(of[why].limit)), F_ADDR("address", &address),
        F_JID("jid", STR_NONE), F_INT("value", waiting));
}

/* Around the time in which the line is worked off, at the slowest. */
static unsigned retry_s(const struct node *n)
{
    uint64_t wait = (uint64_t)n->conf->limits_login_wait_max / 1000;
    return (unsigned)(wait / 2 + 1 + entropy_u64(n->entropy) % (wait + 1));
}

void admit_defer(struct conn *c, enum admit_why why)
{
    struct arena *a = c->edge->node->turn;
    count_deferred(c, why);
    str text =
        arena_printf(a, "too many logins at once; try again in %u seconds", retry_s(c->edge->node));
    auth_put_deferred(c, text);
    conn_end_extra(c, ERR_STREAM_LOGINS_DEFERRED,
                   arena_printf(a,
                                "<text xmlns='urn:ietf:params:xml:ns:xmpp-streams' "
                                "xml:lang='en'>%.*s</text>",
                                STR_ARG(text)));
}
