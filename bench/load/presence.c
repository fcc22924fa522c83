/* presence: N groups of --roster + 1 accounts that are all subscribed to each other. Round by round
 * one member of a group, in turn, sends --burst presences in one write, and each reaches the
 * --roster others; when all have all, the next member begins. A delivery is a presence that has
 * come to somebody; the one that comes back to its sender (RFC 6121 4.4.2) is counted as one too,
 * but nobody waits for it.
 *
 * The rosters must be there: made by whoever made the accounts, or with --prepare by the clients
 * themselves, which subscribe to each other first (any server; slower). Account g * (R + 1) + i is
 * member i of group g, so a set of accounts has one R: what its rosters say beyond the group is an
 * error. */
#include <stdio.h>
#include <stdlib.h>

#include "bench/load/pairs.h"

enum { WARM_MS = 1000, DRAIN_MS = 10000, LISTEN_MS = 300, SUBSCRIBE_AT_ONCE = 16 };

struct member {
    struct form form; /* what it sends */
    struct sequence seen;
    unsigned friends, asked; /* contacts with subscription both; asked to subscribe so far */
    bool *friend;            /* by member */
};
struct group {
    struct member *member;
    uint64_t sent;     /* number of the group's newest presence */
    uint64_t expected; /* of this round, in all */
    unsigned turn;     /* who sends in this round */
};
struct groups {
    struct group *group;
    unsigned left; /* groups whose round is not over */
    unsigned unprepared;
};

static unsigned members(const struct plan *p) { return p->roster + 1; }
static struct group *group_of(struct worker *w, const struct client *c)
{
    return &((struct groups *)w->state)->group[c->unit - w->first];
}
static unsigned number_of(const struct client *c)
{
    const struct worker *w = worker_of(c);
    return c->index % w->per_unit;
}
static struct member *member_of(struct worker *w, const struct client *c)
{
    return &group_of(w, c)->member[number_of(c)];
}

static void make_member(struct worker *w, struct group *g, unsigned unit, unsigned i)
{
    struct member *m = &g->member[i];
    form_init(&m->form, STR("<presence><status>"), STR("</status></presence>"), w->plan->run,
              (w->first + unit) * w->per_unit + i, 0);
    m->friend = calloc(w->per_unit, sizeof *m->friend);
    must(m->friend);
}

static void set_up(struct worker *w)
{
    struct groups *all = calloc(1, sizeof *all);
    must(all);
    all->group = calloc(w->units ? w->units : 1, sizeof *all->group);
    must(all->group);
    for (unsigned u = 0; u < w->units; u++) {
        struct group *g = &all->group[u];
        g->member = calloc(w->per_unit, sizeof *g->member);
        must(g->member);
        for (unsigned i = 0; i < w->per_unit; i++)
            make_member(w, g, u, i);
    }
    all->unprepared = w->nclients;
    w->state = all;
}

/* ---- rosters --------------------------------------------------------------------------------- */

/* Which member of c's group an address names; per_unit: none. */
static unsigned member_named(const struct worker *w, const struct client *c, str jid)
{
    size_t n = strlen(w->rig.prefix);
    if (jid.n <= n || memcmp(jid.p, w->rig.prefix, n) != 0)
        return w->per_unit;
    unsigned long user = 0;
    for (size_t i = n; i < jid.n && jid.p[i] >= '0' && jid.p[i] <= '9' && user < UINT32_MAX; i++)
        user = user * 10 + (unsigned long)(jid.p[i] - '0');
    unsigned long first = (unsigned long)c->unit * w->per_unit;
    return user >= first && user < first + w->per_unit ? (unsigned)(user - first) : w->per_unit;
}

/* A roster or a push: counts new friends. */
static void take_roster(struct worker *w, struct client *c, str item)
{
    struct arena *a = &w->rig.turn;
    struct member *m = member_of(w, c);
    struct xml_el iq = xml_root(item, STR("jabber:client"), a), query, el;
    if (!xml_find(&iq, "jabber:iq:roster", "query", &query, a))
        return;
    for (bool more = xml_first(&query, &el, a); more; more = xml_next(&query, &el, a)) {
        str subscription = xml_attr(&el, "subscription", a);
        unsigned who = member_named(w, c, xml_attr(&el, "jid", a));
        if (!str_is(subscription, "both"))
            continue;
        if (who == w->per_unit)
            return worker_break(w, "a roster has a stranger: fresh accounts for another --roster");
        m->friends += !m->friend[who];
        m->friend[who] = true;
    }
}

static void subscribe_next(struct worker *w, struct client *c)
{
    struct member *m = member_of(w, c);
    while (m->asked < w->per_unit && (m->asked == number_of(c) || m->friend[m->asked]))
        m->asked++;
    if (m->asked >= w->per_unit)
        return;
    client_send(c, arena_printf(&w->rig.turn, "<presence type='subscribe' to='%s%u@%s'/>",
                                w->rig.prefix, c->unit * w->per_unit + m->asked, w->rig.host));
    m->asked++;
}

static void prepare(struct worker *w)
{
    struct groups *all = w->state;
    for (unsigned i = 0; i < w->nclients; i++)
        all->unprepared -= member_of(w, &w->clients[i])->friends >= w->plan->roster;
    if (all->unprepared && !w->plan->prepare)
        return worker_break(w, "rosters lack members of the group: --prepare makes them");
    for (unsigned i = 0; i < w->nclients && all->unprepared; i++)
        for (unsigned n = 0; n < SUBSCRIBE_AT_ONCE; n++)
            subscribe_next(w, &w->clients[i]);
    if (!all->unprepared)
        worker_done(w);
}

static void on_push(struct worker *w, struct client *c, str item, const struct xml_index *x)
{
    struct groups *all = w->state;
    struct member *m = member_of(w, c);
    bool before = m->friends >= w->plan->roster;
    if (!x->type.off || !str_is(str_from(item.p + x->type.off, x->type.len), "set"))
        return;
    take_roster(w, c, item);
    client_send(c, arena_printf(&w->rig.turn, "<iq type='result' id='%.*s'/>", (int)x->id.len,
                                item.p + x->id.off));
    if (!before && m->friends >= w->plan->roster && --all->unprepared == 0)
        worker_done(w);
}

/* Requests to subscribe are granted; what is granted makes room for the next. */
static void on_subscription(struct worker *w, struct client *c, str type, str from)
{
    if (str_is(type, "subscribe"))
        client_send(c, arena_printf(&w->rig.turn, "<presence type='subscribed' to='%.*s'/>",
                                    STR_ARG(from)));
    else if (str_is(type, "subscribed"))
        subscribe_next(w, c);
}

/* ---- rounds ---------------------------------------------------------------------------------- */

static void begin_round(struct worker *w, unsigned unit)
{
    struct group *g = &((struct groups *)w->state)->group[unit];
    struct member *m = &g->member[g->turn];
    uint64_t now = now_us();
    g->expected = (uint64_t)w->plan->burst * w->plan->roster;
    for (unsigned k = 0; k < w->plan->burst; k++) {
        client_send(worker_client(w, unit, g->turn), form_fill(&m->form, ++g->sent, now));
        sequence_take(&m->seen, g->sent, &w->tally->faults); /* its echo is not waited for */
    }
    w->tally->sent += g->expected;
}

static void begin_sending(struct worker *w)
{
    struct groups *all = w->state;
    w->sending = true;
    all->left = w->units;
    for (unsigned u = 0; u < w->units; u++)
        begin_round(w, u);
}

static void round_over(struct worker *w, struct client *c, struct group *g)
{
    struct groups *all = w->state;
    g->turn = (g->turn + 1) % w->per_unit;
    if (w->sending)
        begin_round(w, c->unit - w->first);
    else if (--all->left == 0)
        worker_done(w);
}

static void drain(struct worker *w)
{
    struct groups *all = w->state;
    worker_rest(w);
    if (all->left == 0)
        worker_done(w);
}

static void take(struct worker *w, struct client *c, const struct mark *mark)
{
    struct tally *t = w->tally;
    struct group *g = group_of(w, c);
    if (w->measuring) {
        t->measured++;
        spread_count(&t->latency, now_us() - mark->time_us);
    }
    if (number_of(c) == g->turn) {
        t->echoes += w->measuring;
        return;
    }
    uint64_t doubled = t->faults.duplicated;
    t->received++;
    sequence_take(&member_of(w, c)->seen, mark->number, &t->faults);
    if (t->faults.duplicated == doubled && --g->expected == 0)
        round_over(w, c, g);
}

/* In a group only the one whose turn it is sends, so its form is what must arrive; an echo may be
 * later than the end of its round, and is then the form of the one before. */
static void on_presence(struct worker *w, struct client *c, str item, const struct xml_index *x)
{
    struct group *g = group_of(w, c);
    struct member *own = member_of(w, c);
    struct mark mark;
    str status = child_text(item, x, STR("status"));
    if (!status.n || x->type.off)
        return;
    enum verdict v = form_read(&g->member[g->turn].form, status, &mark);
    if (v == MARK_WHOLE && mark.number && mark.number <= g->sent)
        take(w, c, &mark);
    else if (v != MARK_STALE && form_read(&own->form, status, &mark) == MARK_WHOLE)
        w->tally->measured += w->measuring, w->tally->echoes += w->measuring;
    else if (v == MARK_STALE)
        w->tally->faults.stale++;
    else
        w->tally->faults.damaged++;
}

static void on_stanza(struct worker *w, struct client *c, str item, const struct xml_index *x)
{
    str name = str_from(item.p + x->name_off, x->name_len);
    str type = x->type.off ? str_from(item.p + x->type.off, x->type.len) : STR_NONE;
    str from = x->from.off ? str_from(item.p + x->from.off, x->from.len) : STR_NONE;
    if (str_is(name, "iq"))
        on_push(w, c, item, x);
    else if (str_starts(type, STR("subscribe")))
        on_subscription(w, c, type, from);
    else if (str_is(name, "presence"))
        on_presence(w, c, item, x);
}

static void finish(struct worker *w)
{
    struct groups *all = w->state;
    for (unsigned u = 0; u < w->units; u++)
        for (unsigned i = 0; i < w->per_unit; i++)
            sequence_end(&all->group[u].member[i].seen, all->group[u].sent, &w->tally->faults);
}

static const struct step steps[] = {
    {.name = "connecting", .begin = worker_connect_all, .waits = true},
    {.name = "preparing", .begin = prepare, .waits = true},
    {.name = "warming", .begin = begin_sending, .ms = WARM_MS},
    {.name = "measuring", .begin = worker_measure, .seconds = true},
    {.name = "draining", .begin = drain, .waits = true, .ms = DRAIN_MS},
    {.name = "listening", .ms = LISTEN_MS},
};
enum { MEASURED = 3 };

static void print(struct report *r, const struct outcome *o)
{
    double n = (double)o->tally.measured;
    report_row(r, "roster", o->plan->roster, "contacts each");
    report_row(r, "burst", o->plan->burst, "presences in one write");
    report_row(r, "deliveries", n, "");
    report_row(r, "deliveries_per_s", n / outcome_seconds(o, MEASURED), "/s");
    report_row(r, "echoes", (double)o->tally.echoes, "of these, back to their sender");
    report_latency(r, "latency", &o->tally.latency);
    report_cpu(r, o, MEASURED, n, "us per delivery");
}

const struct scenario scenario_presence = {
    .name = "presence",
    .unit = "groups",
    .says = "N groups of --roster + 1 friends, --burst presences per round: CPU per delivery",
    .clients = members,
    .steps = steps,
    .nsteps = array_len(steps),
    .presence = true,
    .set_up = set_up,
    .stanza = on_stanza,
    .roster = take_roster,
    .finish = finish,
    .print = print,
};
