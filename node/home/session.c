/* session: a bound full JID at its home; its states are drawn in session.h. Sessions end only at
 * places where nobody walks through sessions: in a frame of their own, by a timer, or doomed, at
 * the end of the turn. */
#include "node/home/session.h"

#include "cluster/copy.h"
#include "cluster/peers.h"
#include "node/home/inside.h"
#include "pemberley/buf.h"

static const struct hold NOBODY = {HOLD_NONE, 0, 0};

/* A stanza of the client that waits behind a handler. */
struct held_in {
    struct list link;
    struct stanza *stanza;
    struct ticket *ticket;
    int64_t us;
    err reason;
};
/* Of a detached session. */
struct absence {
    struct timer timer; /* max_ms */
    struct session *session;
    uint64_t since_ms;
    /* A RESUME that waits until all that the home received is safe (delivery.md 5.2, order 4). */
    struct resume {
        struct ticket *ticket; /* not safe before its answer: it goes to a new home then */
        uint64_t conn;
        uint32_t h, edge;
    } resume; /* ticket NULL: none */
};

static struct home *home_of(const struct session *s) { return s->user->home; }

str session_full(const struct session *s, struct arena *a)
{
    str parts[] = {user_bare(s->user), STR("/"), session_resource(s)};
    return arena_concat(a, parts, 3);
}

struct session *session_find(struct home *h, uint64_t sid)
{
    for (struct hnode *n = htable_find(&h->sessions, sid); n; n = htable_find_next(n)) {
        struct session *s = container_of(n, struct session, node);
        if (s->sid == sid)
            return s;
    }
    return NULL;
}

struct session *session_named(struct user *u, str resource)
{
    struct session *ending = NULL;
    user_each_session(s, u) {
        if (!str_eq(session_resource(s), resource))
            continue;
        if (!s->doomed)
            return s;
        ending = s;
    }
    return ending;
}

static void to_edge(struct home *h, unsigned edge, const struct frame *f)
{
    channel_send(h->node->channels, edge, f, NOBODY, false);
}

static void tell_close(struct session *s, err reason)
{
    struct frame f = {.kind = FRAME_CLOSE, .sid = s->sid, .gen = s->gen, .reason = reason};
    to_edge(home_of(s), s->edge, &f);
}

static struct session **end_of(struct user *u)
{
    struct session **at = &u->sessions;
    while (*at)
        at = &(*at)->next;
    return at;
}

static void unlink_session(struct session *s)
{
    struct session **at = &s->user->sessions;
    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
}

uint64_t session_new_sid(struct user *u)
{
    struct home *h = u->home;
    uint64_t sid, slot = ring_slot(h->node->ring, user_bare(u));
    do
        sid = slot << 50 | (entropy_u64(h->node->entropy) & ((1ull << 50) - 1));
    while (!sid || session_find(h, sid));
    return sid;
}

struct session *session_new(struct user *u, str resource, uint64_t sid, uint32_t gen)
{
    struct home *h = u->home;
    size_t size = offsetof(struct session, resource) + resource.n;
    struct session *s = calloc(1, size > sizeof *s ? size : sizeof *s);
    must(s);
    s->user = u, s->gen = gen;
    s->since_us = home_wall_us(h);
    s->resource_len = (uint16_t)resource.n;
    memcpy(s->resource, resource.p, resource.n);
    user_count_session(u, 1);
    *end_of(u) = s;
    htable_insert(&h->sessions, &s->node, sid);
    user_touch(u);
    return s;
}

/* ---- inbound ---- */

static void on_in_safe(void *ctx, struct ticket *t);

/* us: when its edge had read it. */
static void run_in(struct session *s, struct stanza *stanza, int64_t us, err reason,
                   struct ticket *t)
{
    home_of(s)->in_us = us;
    from_stanza(s, stanza, reason, t);
    ticket_close(t);
}

struct waiting *session_waiting(struct session *s)
{
    if (!s->waiting) {
        s->waiting = calloc(1, sizeof *s->waiting);
        must(s->waiting);
    }
    return s->waiting;
}

void session_waited(struct session *s)
{
    const struct waiting *w = s->waiting;
    if (!w || w->held || w->kept || w->queries || w->probes || w->back || w->holds || w->gates)
        return;
    free(s->waiting);
    s->waiting = NULL;
}

static void hold_in(struct session *s, struct stanza *stanza, int64_t us, err reason,
                    struct ticket *t)
{
    struct held_in *w = malloc(sizeof *w);
    must(w);
    *w = (struct held_in){.stanza = stanza_ref(stanza), .ticket = t, .us = us, .reason = reason};
    ring_push_back(&session_waiting(s)->held, &w->link);
}

/* It ends with this turn: what comes now is not run any more (nor counted, see put_ended), so that
 * a client which asks for more than its queue may hold gets it but once. */
static struct held_in *next_held(struct session *s)
{
    struct list **held = &s->waiting->held;
    struct held_in *w = list_entry(*held, struct held_in, link);
    ring_remove(held, &w->link);
    return w;
}

/* How many may wait is the edge's window (unsafe_max): none of them is safe. */
static void on_in(struct session *s, struct origin from, const struct frame *f)
{
    struct home *h = home_of(s);
    bool again = (f->flags & FRAME_AGAIN) && f->ord <= s->in_ord; /* received by our predecessor */
    if ((!again && f->ord != s->in_ord + 1) || !f->stanza) {
        channel_done(h->node->channels, from);
        return;
    }
    s->in_ord += !again, s->open_in++;
    struct ticket *t =
        ticket_new(h->node->channels, from, (struct uid){s->sid, f->ord, 0}, on_in_safe, h);
    if (h->node->epoch)
        ticket_list(t, &h->tickets);
    if ((f->flags & FRAME_AGAIN) || (s->others && f->ord <= s->others->doubt))
        ticket_set_again(t);
    if (session_is_held(s) || s->doomed)
        hold_in(s, f->stanza, (int64_t)f->us, f->reason, t);
    else
        run_in(s, f->stanza, (int64_t)f->us, f->reason, t);
}

void session_hold(struct session *s) { session_waiting(s)->holds++; }

static void drain(struct session *s)
{
    if (s->draining)
        return;
    s->draining = true;
    while (s->waiting && !s->waiting->holds && s->waiting->held && !s->doomed) {
        struct held_in *w = next_held(s);
        run_in(s, w->stanza, w->us, w->reason, w->ticket);
        stanza_unref(w->stanza);
        free(w);
    }
    s->draining = false;
    session_waited(s);
    if (s->closing && !(s->waiting && s->waiting->holds))
        session_doom(s, s->doom);
}

void session_release(struct home *h, uint64_t sid)
{
    struct session *s = session_find(h, sid);
    if (!s)
        return;
    must(s->waiting && s->waiting->holds);
    s->waiting->holds--;
    drain(s);
}

/* ---- detach and resume ---- */

static void on_absence_timer(struct timer *t);

static struct absence *absence_new(struct session *s)
{
    struct absence *a = calloc(1, sizeof *a);
    must(a);
    timer_init(&a->timer, on_absence_timer);
    a->session = s;
    a->since_ms = loop_now_ms(home_of(s)->node->loop);
    return a;
}

static void absence_free(struct session *s)
{
    if (!s->absence)
        return;
    loop_timer_stop(home_of(s)->node->loop, &s->absence->timer);
    free(s->absence);
    s->absence = NULL;
}

static void detach(struct session *s, err reason)
{
    struct home *h = home_of(s);
    second_detached(s);
    s->detached = true;
    s->absence = absence_new(s);
    loop_timer_set(h->node->loop, &s->absence->timer, s->max_ms);
    home_count(h, METRIC_sessions_connected, -1);
    home_count(h, METRIC_sessions_detached, 1);
    LOG(h->node->log, session_detached, F_JID("jid", session_full(s, home_arena(h))),
        F_STR("reason", str_of(err_row(reason)->name)));
    record_put(s);
    offline_left(s->user, s);
    session_pump(s);
}

static void lost(struct session *s, err reason)
{
    if (s->detached)
        return;
    if (s->resumable)
        detach(s, reason);
    else if (s->waiting && s->waiting->holds)
        s->closing = true, s->doom = reason;
    else
        session_end(s, reason, false);
}

static bool is_resuming(const struct session *s) { return s->absence && s->absence->resume.ticket; }

static void resume_end(struct session *s)
{
    struct ticket *t = s->absence->resume.ticket;
    s->absence->resume = (struct resume){0};
    ticket_close(t);
}

void session_answered(struct session *s)
{
    struct ticket *t = s->others->asked;
    s->others->answer = ANSWER_NONE, s->others->asked = NULL;
    buf_unref(s->others->bound);
    s->others->bound = NULL;
    if (t)
        ticket_close(t);
}

/* Also one that was taken and is not answered yet: its edge knows nothing of it to be closed. */
static void give_up_resume(struct session *s)
{
    if (s->others && s->others->answer == ANSWER_RESUMED) {
        ended_failed(home_of(s), s->edge, s->others->conn, NULL);
        session_answered(s);
    }
    if (!is_resuming(s))
        return;
    ended_failed(home_of(s), s->absence->resume.edge, s->absence->resume.conn, NULL);
    resume_end(s);
}

void session_edge_died(struct session *s, unsigned shard)
{
    if (is_resuming(s) && s->absence->resume.edge == shard) {
        resume_end(s);
        loop_timer_set(home_of(s)->node->loop, &s->absence->timer, s->max_ms);
    }
    if (s->edge == shard)
        lost(s, ERR_CLOSED);
}

static void on_absence_timer(struct timer *timer)
{
    struct session *s = container_of(timer, struct absence, timer)->session;
    if (is_resuming(s)) {
        give_up_resume(s);
        loop_timer_set(home_of(s)->node->loop, timer, s->max_ms);
        return;
    }
    session_end(s, ERR_STREAM_CONNECTION_TIMEOUT, false);
}

/* The client's h, 32 bits, as our number; false when it is more than was sent (XEP-0198 4). */
static bool seq_of_h(const struct session *s, uint32_t client_h, uint64_t *seq)
{
    uint64_t known = s->out_acked > s->out_base ? s->out_acked : s->out_base;
    uint32_t more = client_h - (uint32_t)(known - s->out_base);
    if (more >= 1u << 31)
        more = 0; /* an older one than we have seen: harmless, as in an <a/> */
    *seq = known + more;
    return *seq <= s->out_seq;
}

static void answer_resumed(struct session *s)
{
    struct home *h = home_of(s);
    struct snap snap = {.sid = s->sid,
                        .gen = s->gen,
                        .full = session_full(s, home_arena(h)),
                        .sm = true,
                        .resumable = true,
                        .max_ms = s->max_ms,
                        .in_ord = s->in_ord,
                        .in_base = s->in_base,
                        .out_seq = s->out_seq,
                        .out_base = s->out_base,
                        .out_acked = s->out_acked};
    struct frame f = {.kind = FRAME_RESUMED,
                      .conn = s->others->conn,
                      .sid = s->sid,
                      .gen = s->gen,
                      .payload = snap_encode(&snap, home_arena(h))};
    to_edge(h, s->edge, &f);
    session_answered(s);
    session_replay(s);
    second_replayed(s);
}

static void answer_enabled(struct session *s)
{
    struct frame answer = {
        .kind = FRAME_ENABLED, .sid = s->sid, .gen = s->gen, .seq = s->out_base, .ms = s->max_ms};
    to_edge(home_of(s), s->edge, &answer);
    session_answered(s);
}

/* delivery.md 5.2, 2: nothing was said that the copy does not know. */
void session_copied(struct session *s)
{
    if (!s->others)
        return;
    if (s->others->answer == ANSWER_ENABLED)
        answer_enabled(s);
    else if (s->others->answer == ANSWER_RESUMED)
        answer_resumed(s);
    else if (s->others->answer == ANSWER_BOUND)
        bind_answer(s);
    second_settled(s);
    session_pump(s);
}

/* By where the session's edge was, as its new one sees it. */
static enum metric resumed_from(const struct node *n, unsigned from, unsigned edge)
{
    if (from == edge)
        return METRIC_resumptions_same_shard;
    if (!ring_peer(n->ring, from))
        return METRIC_resumptions_dead_node;
    return peer_block(from) == peer_block(edge) ? METRIC_resumptions_same_node
                                                : METRIC_resumptions_other_node;
}

static void resume_go(struct session *s)
{
    struct home *h = home_of(s);
    struct absence *a = s->absence;
    uint64_t seq, from = s->edge, gap_ms = loop_now_ms(h->node->loop) - a->since_ms;
    bool good = seq_of_h(s, a->resume.h, &seq);
    if (good)
        session_out_acked(s, seq, true); /* before its holders change: they are told */
    s->edge = a->resume.edge;
    s->shown_ord = 0; /* what came before is safe; its client may say something else again */
    second_fence(s);
    window_close(&s->others->in); /* all is safe that its client is told of (session_may_resume) */
    s->others->in.safe = s->in_ord;
    s->others->answer = ANSWER_RESUMED, s->others->stop = 0, s->others->conn = a->resume.conn;
    s->others->asked = a->resume.ticket;
    a->resume = (struct resume){0};
    s->detached = false;
    absence_free(s);
    inactive_set(s, false, NULL);
    record_put(s);
    home_count(h, METRIC_sessions_connected, 1);
    home_count(h, METRIC_sessions_detached, -1);
    if (!good) {
        home_count(h, METRIC_resumption_failures_h, 1);
        answer_resumed(s);
        session_doom(s, ERR_STREAM_HANDLED_COUNT_TOO_HIGH);
        return;
    }
    if (second_choose(s))
        session_copied(s);
    home_count(h, resumed_from(h->node, from, s->edge), 1);
    metric_observe(h->node->metrics, HISTOGRAM_resumption_gap, gap_ms * 1000);
    LOG(h->node->log, session_resumed, F_JID("jid", session_full(s, home_arena(h))),
        F_INT("from", from), F_INT("gap_ms", gap_ms), F_INT("replayed", s->queued));
    if (session_eligible(s))
        offline_start(s);
}

static void on_in_safe(void *ctx, struct ticket *t)
{
    struct session *s = session_find(ctx, ticket_uid(t).sid);
    if (!s) {
        ended_in_safe(ctx, ticket_uid(t).sid);
        return;
    }
    second_safe(s, t);
    if (s->others && ticket_uid(t).ord <= s->others->in_upto)
        window_mark(&s->others->in, ticket_uid(t).ord);
    must(s->open_in);
    s->open_in--;
    session_may_resume(s);
}

/* What came on the old connection is safe, and its holder has all: make before break. */
void session_may_resume(struct session *s)
{
    if (is_resuming(s) && !s->open_in && second_is_whole(s))
        resume_go(s);
}

void session_resume(struct user *u, unsigned edge, const struct frame *f, struct ticket *t)
{
    struct home *h = u->home;
    struct session *s = session_find(h, f->sid);
    if (!s || s->user != u || !s->resumable || s->closing || s->doomed) {
        ended_resume(u, edge, f, t);
        return;
    }
    give_up_resume(s);
    if (!s->detached) {
        tell_close(s, ERR_STREAM_RESUMED_ELSEWHERE);
        detach(s, ERR_STREAM_RESUMED_ELSEWHERE);
    }
    s->gen++; /* from now on nothing of the old attachment is obeyed */
    s->absence->resume = (struct resume){t, f->conn, (uint32_t)f->h, edge};
    ticket_open(t);
    session_note_peer(s, f->text, (uint16_t)f->lane);
    loop_timer_set(h->node->loop, &s->absence->timer, RESUME_WAIT_MS);
    session_may_resume(s);
}

/* Done when it is answered: its edge waits for that, from us or from another home. */
static void enable(struct session *s, struct origin from, const struct frame *f)
{
    struct channels *channels = home_of(s)->node->channels;
    if (s->sm) {
        channel_done(channels, from);
        return;
    }
    session_sm_on(s, f);
    record_put(s);
    s->out_base = s->out_seq, s->in_base = f->ord;
    struct others *o = second_others(s);
    o->answer = ANSWER_ENABLED, o->stop = s->out_base;
    o->asked = ticket_new(channels, from, (struct uid){s->sid, 0, 0}, NULL, NULL);
    if (second_choose(s))
        session_copied(s);
}

/* ---- end ---- */

void session_doom(struct session *s, err reason)
{
    struct doomed *d = &home_of(s)->doomed;
    if (s->ended || s->doomed)
        return;
    if (d->n == d->cap) {
        d->cap = d->cap ? 2 * d->cap : 16;
        d->sids = realloc(d->sids, d->cap * sizeof *d->sids);
        must(d->sids);
    }
    d->sids[d->n++] = s->sid;
    s->doom = reason, s->doomed = true;
    loop_at_turn_end(home_of(s)->node->loop, &home_of(s)->reap);
}

/* Its queue, in order; s is in no list any more. */
static void dispose(struct session *s)
{
    struct user *u = s->user;
    str full = session_full(s, home_arena(u->home));
    struct ticket *t = second_disposal(s);
    while (s->first) {
        struct outbound *o = session_pop_out(s);
        str to = stanza_to(o->stanza);
        struct route r = {.home = u->home,
                          .user = u,
                          .ticket = t,
                          .stanza = o->stanza,
                          .uid = o->uid,
                          .us = o->us,
                          .to = jid_parse_prepared(to.n ? to : full),
                          .flags = FRAME_AGAIN,
                          .noted = true,
                          .stored = s->others && s->others->doubt};
        if (s->resumable && o->seq > s->out_base)
            r.sid = s->sid, r.seq = o->seq - s->out_base;
        if (o->offline_id)
            offline_back(u, &r);
        else
            route_undelivered(&r, o->shared, o->taken);
        session_let_go(home_of(s), o);
    }
    ticket_close(t);
}

static uint64_t drop_held(struct session *s)
{
    uint64_t n = 0;
    for (; s->waiting && s->waiting->held; n++) {
        struct held_in *w = next_held(s);
        ticket_close(w->ticket);
        stanza_unref(w->stanza);
        free(w);
    }
    return n;
}

static void count_ended(struct session *s, err reason)
{
    struct home *h = home_of(s);
    home_count(h, s->detached ? METRIC_sessions_detached : METRIC_sessions_connected, -1);
    home_count(h, METRIC_AT(sessions_ended, METRIC_ERR(CLOSE, reason), 0), 1);
    LOG(h->node->log, session_ended, F_JID("jid", session_full(s, home_arena(h))),
        F_STR("reason", str_of(err_row(reason)->name)),
        F_INT("seconds", (home_wall_us(h) - s->since_us) / 1000000), F_INT("in", s->in_ord),
        F_INT("out", s->out_seq), F_INT("unacked", s->queued));
}

static void free_session(struct session *s)
{
    directed_free(s);
    probes_free(s);
    inactive_free(s);
    free(s->shown);
    if (s->others)
        session_answered(s), window_close(&s->others->in);
    free(s->others);
    free(s->waiting);
    free(s);
}

void session_end(struct session *s, err reason, bool tell)
{
    struct user *u = s->user;
    must(!s->ended);
    s->ended = true;
    user_pin(u);
    if (tell && !s->detached)
        tell_close(s, reason);
    give_up_resume(s);
    bind_give_up(s);
    count_ended(s, reason);
    presence_ended(s);
    record_remove(s);
    unlink_session(s);
    user_count_session(u, -1);
    htable_remove(&u->home->sessions, &s->node);
    absence_free(s);
    iq_session_ended(s);
    uint64_t dropped = drop_held(s);
    if (s->resumable && u->exists && !u->anonymous)
        ended_note(s, dropped);
    dispose(s);
    offline_left(u, s); /* behind its queue: what waited for the rows is newer */
    offline_give(u);
    free_session(s);
    if (u->anonymous && !u->sessions)
        u->exists = false;
    user_unpin(u);
}

uint64_t session_in_safe(const struct session *s, uint64_t open[4])
{
    const struct others *o = s->others;
    memset(open, 0, 4 * sizeof *open);
    if (s->open_in)
        ticket_ords(&home_of(s)->tickets, s->sid, on_in_safe, open);
    for (uint64_t i = o ? o->in.safe + 1 : 1; o && i <= o->in_upto; i++)
        if (!window_has(&o->in, i))
            open[i / 64 % 4] |= 1ull << i % 64;
    uint64_t safe = s->in_ord > WINDOW_MAX ? s->in_ord - WINDOW_MAX : 0;
    while (safe < s->in_ord && !(open[(safe + 1) / 64 % 4] >> (safe + 1) % 64 & 1))
        safe++;
    return safe;
}

void session_leave(struct session *s)
{
    struct home *h = home_of(s);
    home_count(h, s->detached ? METRIC_sessions_detached : METRIC_sessions_connected, -1);
    second_leave(s);
    unlink_session(s);
    user_count_session(s->user, -1);
    htable_remove(&h->sessions, &s->node);
    if (is_resuming(s))
        resume_end(s);
    absence_free(s);
    iq_session_ended(s);
    drop_held(s);
    while (s->first)
        session_let_go(h, session_pop_out(s));
    free_session(s);
}

/* ---- made again ---- */

struct session *session_restore(struct user *u, const struct snap *snap)
{
    struct home *h = u->home;
    struct jid full = jid_parse_prepared(snap->full);
    struct session *s = session_new(u, full.resource, snap->sid, snap->gen);
    s->sm = snap->sm, s->resumable = snap->resumable, s->max_ms = snap->max_ms;
    s->in_ord = snap->in_ord, s->in_base = snap->in_base, s->out_base = snap->out_base;
    s->out_seq = s->out_acked = snap->out_acked;
    s->interested = snap->interested, s->blocklist = snap->blocklist;
    s->carbons = snap->carbons, s->inactive = snap->inactive;
    s->reads_archive = snap->reads_archive;
    s->since_us = snap->since_us ? snap->since_us : s->since_us;
    second_others(s)->doubt = s->in_ord + WINDOW_MAX; /* a client sends again */
    session_note_peer(s, snap->address, snap->tls);
    presence_restore(s, snap);
    home_count(h, METRIC_sessions_detached, 1);
    s->detached = true;
    return s;
}

void session_restore_in(struct session *s, const struct window *safe)
{
    struct others *o = second_others(s);
    o->in.safe = safe->safe, o->in_upto = s->in_ord;
    if (safe->bits)
        window_take(&o->in, (const char *)safe->bits);
}

/* Whether others were given it too died with the former home; that the client of one of them has
 * it, its edge has said (KNOWN). */
void session_restore_out(struct session *s, const struct out *o)
{
    struct home *h = home_of(s);
    struct uid uid = {o->sid, o->ord, o->lane};
    uint32_t flags = o->flags & (FRAME_TO_BARE | FRAME_TO_FULL);
    if (o->row) {
        session_send_row(s, o->stanza, uid, flags, (int64_t)o->us, o->row);
        return;
    }
    struct outbound *out = session_send(s, o->stanza, uid, flags, (int64_t)o->us, NULL);
    out->shared = true;
    out->taken = (o->flags & FRAME_TAKEN) ||
                 mark_set_has(&h->known, uid, (unsigned)(s->sid >> 50), stanza_fp(o->stanza));
}

/* A former home may have stored what is in the queue again, when it ended the session that it had,
 * or not yet removed what the client has: both are ours now. Not the rows that are in the queue
 * themselves. */
void session_take_back_rows(struct session *s)
{
    uint64_t from = 0, last = s->out_seq > s->out_base ? s->out_seq - s->out_base : 0;
    for (const struct outbound *o = s->first; o; o = o->next) {
        uint64_t at = o->seq > s->out_base ? o->seq - s->out_base : 0;
        if (!o->offline_id || !at)
            continue;
        if (at > from)
            ended_take_rows(s->user, s->sid, from, at - 1);
        from = at + 1;
    }
    if (last >= from)
        ended_take_rows(s->user, s->sid, from, last);
}

void session_restored(struct session *s, unsigned edge, bool live, uint64_t sent)
{
    struct home *h = home_of(s);
    s->edge = edge;
    if (live) {
        s->detached = false;
        home_count(h, METRIC_sessions_connected, 1);
        home_count(h, METRIC_sessions_detached, -1);
        for (s->unsent = s->first; s->unsent && s->unsent->seq <= sent;)
            s->unsent = s->unsent->next;
    } else {
        s->absence = absence_new(s);
        loop_timer_set(h->node->loop, &s->absence->timer, s->max_ms);
    }
    record_put(s);
    second_choose(s);
    session_pump(s);
    if (session_available(s))
        chain_shown(s, SHOWN_RESTORED, NULL);
    if (session_eligible(s) && !s->detached)
        offline_start(s);
}

/* ---- frames ---- */

/* Done when what it changes is known to the second holder. */
static void on_csi(struct session *s, struct origin from, const struct frame *f)
{
    struct ticket *t =
        ticket_new(home_of(s)->node->channels, from, (struct uid){s->sid, 0, 0}, NULL, NULL);
    inactive_set(s, f->flags & FRAME_INACTIVE, t);
    ticket_close(t);
}

void session_frame(struct session *s, struct origin from, const struct frame *f)
{
    struct channels *channels = home_of(s)->node->channels;
    if (f->kind == FRAME_IN) {
        on_in(s, from, f);
        return;
    }
    switch (f->kind) {
    case FRAME_ENABLE: enable(s, from, f); return;
    case FRAME_CSI: on_csi(s, from, f); return;
    case FRAME_DETACH: lost(s, f->reason); break;
    case FRAME_END:
        if (session_is_held(s))
            s->closing = true, s->doom = f->reason;
        else
            session_end(s, f->reason, false);
        break;
    default: break;
    }
    channel_done(channels, from);
}
