/* outbound: a session's queue at its home (delivery.md I4): numbers what goes to the client, keeps
 * it until the client has it, and lets go to the edge what somebody else holds too. */
#include "node/xep/archive.h"

static struct home *home_of(const struct session *s) { return s->user->home; }

/* Is something not done before the client has what it was sent? */
static bool waits_for_cack(const struct session *s)
{
    const struct conf *c = home_of(s)->node->conf;
    return s->queued > c->limits_unacked_max / 4 ||
           s->queued_bytes > c->limits_unacked_bytes_max / 4 || s->user->giving ||
           (s->waiting && s->waiting->probes);
}

/* Its edge, or that of its last connection. */
static void send_out(struct session *s, struct outbound *o, uint32_t flags)
{
    struct frame f = {.kind = FRAME_OUT,
                      .flags = flags,
                      .sid = s->sid,
                      .gen = s->detached ? s->second.gen : s->gen,
                      .seq = o->seq,
                      .conn = o->uid.sid,
                      .ord = o->uid.ord,
                      .lane = o->uid.lane,
                      .us = (uint64_t)o->us,
                      .sent = node_stage_stamp(home_of(s)->node, (uint64_t)o->us, o->uid.ord),
                      .h = o->offline_id,
                      .stanza = o->stanza};
    f.flags |= ticket_flags(o->ticket) & FRAME_PATIENT;
    if (waits_for_cack(s))
        f.flags |= FRAME_AWAITED;
    struct hold hold = {o->ticket ? HOLD_TICKET : HOLD_NONE, (uintptr_t)o->ticket, 0};
    o->ticket = NULL; /* its effect is the frame's now */
    channel_send(home_of(s)->node->channels, s->edge, &f, hold, false);
}

/* From the newest: what is looked for is nearly always among the last. */
struct outbound *session_find_out(const struct session *s, struct uid uid, uint32_t fp)
{
    for (struct outbound *o = session_newest(s); o; o = session_older(s, o))
        if (uid_eq(o->uid, uid) && stanza_fp(o->stanza) == fp)
            return o;
    return NULL;
}

static void count_queued(struct session *s, int stanzas, int64_t bytes)
{
    home_count(home_of(s), METRIC_unacked_stanzas, stanzas);
    home_count(home_of(s), METRIC_unacked_bytes, bytes);
}

static void check_bounds(struct session *s)
{
    const struct conf *c = home_of(s)->node->conf;
    if (s->ended || s->doomed ||
        (s->queued <= c->limits_unacked_max && s->queued_bytes <= c->limits_unacked_bytes_max))
        return;
    home_count(home_of(s), METRIC_queue_overflows, 1);
    LOG(home_of(s)->node->log, queue_overflow,
        F_JID("jid", session_full(s, home_arena(home_of(s)))), F_INT("bytes", s->queued_bytes),
        F_STR("fate", STR("ended")));
    session_doom(s, ERR_STREAM_QUEUE_OVERFLOW);
}

bool session_has_room(const struct session *s)
{
    const struct conf *c = home_of(s)->node->conf;
    return s->queued <= c->limits_unacked_max / 2 &&
           s->queued_bytes <= c->limits_unacked_bytes_max / 2;
}

static void append(struct session *s, struct outbound *o)
{
    struct outbound *newest = session_newest(s);
    *(newest ? &newest->next : &s->first) = o;
    o->prev = newest;
    s->first->prev = o;
}

static struct outbound *queue(struct session *s, const struct outbound *o, struct ticket *t)
{
    struct outbound *at = pool_get(&home_of(s)->outbounds, sizeof *at);
    *at = *o;
    at->seq = ++s->out_seq;
    stanza_ref(at->stanza);
    append(s, at);
    s->queued++, s->queued_bytes += at->stanza->size;
    count_queued(s, 1, at->stanza->size);
    at->ticket = t;
    if (t)
        ticket_open(t);
    if (!s->unsent)
        s->unsent = at;
    if (second_mirrors(s) && !s->others->unmirrored)
        s->others->unmirrored = at;
    session_pump(s);
    check_bounds(s);
    return at;
}

static uint64_t lesser(uint64_t a, uint64_t b) { return a < b ? a : b; }

static uint64_t gate_of(const struct session *s)
{
    return s->waiting && s->waiting->gates ? s->waiting->gate : UINT64_MAX;
}

/* Up to which seq its edge may have what waits (delivery.md 5.2, 1). */
static uint64_t sendable(const struct session *s)
{
    uint64_t upto = gate_of(s);
    if (second_mirrors(s))
        upto = lesser(upto, s->others->mirrored);
    return s->others && s->others->answer ? lesser(upto, s->others->stop) : upto;
}

static void mirror(struct session *s)
{
    uint64_t gate = gate_of(s);
    struct outbound **at = &s->others->unmirrored;
    for (; *at && (*at)->seq <= gate; *at = (*at)->next)
        second_mirror(s, *at);
}

/* Detached and without an edge that keeps it, it is held by being here (and in the copy). The
 * tickets close afterwards: the last one may let a RESUME go on, which changes the queue. */
static void hold_here(struct session *s, uint64_t upto)
{
    struct arena *a = home_arena(home_of(s));
    struct ticket **tickets = arena_alloc(a, (s->queued + 1) * sizeof *tickets);
    size_t n = 0;
    for (; s->unsent && s->unsent->seq <= upto; s->unsent = s->unsent->next)
        if (s->unsent->ticket)
            tickets[n++] = s->unsent->ticket, s->unsent->ticket = NULL;
    for (size_t i = 0; i < n; i++)
        ticket_close(tickets[i]);
}

void session_pump(struct session *s)
{
    if (second_mirrors(s))
        mirror(s);
    uint64_t upto = sendable(s);
    if (!s->unsent || s->unsent->seq > upto)
        return;
    if (s->detached && s->second_kind != SECOND_EDGE) {
        hold_here(s, upto);
        return;
    }
    for (; s->unsent && s->unsent->seq <= upto; s->unsent = s->unsent->next)
        send_out(s, s->unsent, s->unsent->flags);
}

void session_replay(struct session *s)
{
    uint64_t upto = sendable(s);
    for (s->unsent = s->first; s->unsent && s->unsent->seq <= upto; s->unsent = s->unsent->next)
        send_out(s, s->unsent, s->unsent->flags | FRAME_REPLAY);
}

struct outbound *session_send(struct session *s, struct stanza *stanza, struct uid uid,
                              uint32_t flags, int64_t us, struct ticket *t)
{
    if ((flags & FRAME_AGAIN) && session_find_out(s, uid, stanza_fp(stanza))) {
        home_count(home_of(s), METRIC_duplicates_home, 1);
        return NULL;
    }
    if (s->inactive && inactive_holds(s, stanza, uid, flags, us))
        return NULL;
    struct outbound o = {
        .uid = uid, .stanza = stanza, .us = us, .flags = flags & (FRAME_TO_BARE | FRAME_TO_FULL)};
    return queue(s, &o, t);
}

void session_send_row(struct session *s, struct stanza *stanza, struct uid uid, uint32_t flags,
                      int64_t us, uint64_t row)
{
    struct outbound o = {.uid = uid, .stanza = stanza, .us = us, .offline_id = row, .flags = flags};
    if (s->inactive)
        inactive_flush(s);
    queue(s, &o, NULL);
}

void session_gate(struct session *s)
{
    struct waiting *w = session_waiting(s);
    if (!w->gates++)
        w->gate = s->out_seq;
}

void session_ungate(struct home *h, uint64_t sid)
{
    struct session *s = session_find(h, sid);
    if (!s || --s->waiting->gates)
        return;
    session_waited(s);
    session_pump(s);
}

void session_answer(struct session *s, struct stanza *answer, const char *purpose, struct ticket *t)
{
    struct uid uid = t ? ticket_uid(t) : (struct uid){0, 0, 0};
    uid.lane = home_lane(user_bare(s->user), purpose);
    uint32_t flags = t && ticket_is_again(t) ? FRAME_AGAIN : 0;
    session_send(s, answer, uid, flags, home_wall_us(home_of(s)), t);
}

struct outbound *session_pop_out(struct session *s)
{
    struct outbound *o = s->first;
    s->first = o->next;
    if (s->first)
        s->first->prev = o->prev;
    if (s->unsent == o)
        s->unsent = o->next;
    if (s->others && s->others->unmirrored == o)
        s->others->unmirrored = o->next;
    s->queued--, s->queued_bytes -= o->stanza->size;
    count_queued(s, -1, -(int64_t)o->stanza->size);
    return o;
}

/* One resource has it for sure: the copies of the others need no other home when these end. */
static void mark_taken(struct session *s, struct uid uid, uint32_t fp)
{
    user_each_session(other, s->user) {
        struct outbound *o = other == s ? NULL : session_find_out(other, uid, fp);
        if (o)
            o->taken = true;
    }
}

void session_let_go(struct home *h, struct outbound *o)
{
    if (o->ticket)
        ticket_close(o->ticket);
    stanza_unref(o->stanza);
    pool_put(&h->outbounds, o);
}

/* Its edge knows it too, but may die before the slot goes to another home. */
static void note_taken(const struct session *s, const struct outbound *o)
{
    struct node *n = home_of(s)->node;
    if (n->epoch)
        marks_put(&n->marks,
                  (struct mark){o->uid, s->sid, stanza_fp(o->stanza), loop_now_ms(n->loop)});
}

void session_out_acked(struct session *s, uint64_t seq, bool rows)
{
    uint64_t ids[64];
    size_t n = 0;
    while (s->first && s->first->seq <= seq) {
        struct outbound *o = session_pop_out(s);
        note_taken(s, o);
        if (o->offline_id && rows)
            ids[n++] = o->offline_id;
        if (o->shared)
            mark_taken(s, o->uid, stanza_fp(o->stanza));
        session_let_go(home_of(s), o);
        if (n == array_len(ids))
            offline_acked(s, ids, n), n = 0;
    }
    if (n)
        offline_acked(s, ids, n);
    if (seq > s->out_acked) {
        s->out_acked = seq;
        second_acked(s);
    }
    presence_probe_more(s);
    if (s->waiting)
        archive_more(s);
    if (s->user->giving)
        offline_more(s);
}

void session_acked(struct session *s, uint64_t seq)
{
    if (seq <= s->out_seq)
        session_out_acked(s, seq, false);
}
