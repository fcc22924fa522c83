/* Channels between shards on two ends in one process: order, acks out of order, death, replay. */
#include "cluster/channel.h"
#include "cluster/ticket.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { LOG_MAX = 4096 };

struct end {
    struct channels *c;
    struct end *other;
    unsigned self;
    struct arena turn;
    unsigned woken;
    bool cut;   /* bytes to the other end are lost */
    bool later; /* the last were no reason to wake it */
    struct {
        struct origin from;
        uint64_t seq;
        uint32_t flags;
        enum frame_kind kind;
        const struct stanza *stanza; /* which: it may be gone */
        size_t stanza_size;
    } got[LOG_MAX];
    size_t got_count, sent_bytes;
    struct {
        struct hold hold;
        bool lost;
    } settled[LOG_MAX];
    size_t settled_count;
};

static void on_frame(void *ctx, struct origin from, const struct frame *f)
{
    struct end *e = ctx;
    assert_true(e->got_count < LOG_MAX);
    e->got[e->got_count].from = from;
    e->got[e->got_count].seq = f->seq;
    e->got[e->got_count].flags = f->flags;
    e->got[e->got_count].stanza = f->stanza;
    e->got[e->got_count].stanza_size = f->stanza ? f->stanza->size : 0;
    e->got[e->got_count++].kind = f->kind;
}
static void on_settled(void *ctx, struct hold h, bool lost)
{
    struct end *e = ctx;
    e->settled[e->settled_count].hold = h;
    e->settled[e->settled_count++].lost = lost;
}
static void on_send(void *ctx, unsigned peer, const struct iovec *v, size_t n, bool later)
{
    struct end *e = ctx;
    char bytes[16384];
    size_t have = 0;
    for (size_t i = 0; i < n; have += v[i++].iov_len) {
        assert_true(v[i].iov_len <= sizeof bytes - have);
        memcpy(bytes + have, v[i].iov_base, v[i].iov_len);
    }
    e->sent_bytes += have, e->later = later;
    if (!e->cut)
        assert_int_equal(channel_receive(e->other->c, e->self, str_from(bytes, have)), ERR_OK);
}
static void on_wake(void *ctx) { ((struct end *)ctx)->woken++; }

static void end_open(struct end *e, struct end *other, unsigned self)
{
    memset(e, 0, sizeof *e);
    arena_init(&e->turn);
    e->self = self, e->other = other;
    struct channel_sinks sinks = {e, on_frame, on_settled, on_send, on_wake};
    e->c = channels_new(self, 2, &sinks);
}
static void end_close(struct end *e)
{
    channels_free(e->c);
    arena_close(&e->turn);
}
static struct end a, b;

static int open_both(void **state)
{
    end_open(&a, &b, 0);
    end_open(&b, &a, 1);
    channel_peer_up(a.c, 1, 7);
    channel_peer_up(b.c, 0, 9);
    return 0;
}
static int close_both(void **state)
{
    end_close(&a);
    end_close(&b);
    return 0;
}
static void send_n(struct end *e, unsigned peer, uint64_t n, bool keep)
{
    struct frame f = {.kind = FRAME_CACK, .seq = n, .bare = STR("a@x"), .sid = 5};
    channel_send(e->c, peer, &f, (struct hold){HOLD_TICKET, n, 0}, keep);
}
static void flush_both(void)
{
    channel_flush(a.c), channel_flush(b.c);
    channel_run(a.c), channel_run(b.c);
}

static void frames_arrive_in_order_and_nothing_is_settled_before_it_is_done(void **state)
{
    for (uint64_t i = 1; i <= 200; i++)
        send_n(&a, 1, i, false);
    assert_int_equal(b.got_count, 200);
    for (size_t i = 0; i < 200; i++)
        assert_int_equal(b.got[i].seq, i + 1);
    flush_both();
    assert_int_equal(a.settled_count, 0);
    assert_int_equal(channel_unacked(a.c), 200);
}

static void acks_out_of_order_settle_exactly_those_frames_once(void **state)
{
    for (uint64_t i = 1; i <= 100; i++)
        send_n(&a, 1, i, false);
    static const size_t order[] = {50, 51, 99, 0, 1, 2, 98};
    for (size_t i = 0; i < array_len(order); i++)
        channel_done(b.c, b.got[order[i]].from);
    flush_both();
    flush_both();
    assert_int_equal(a.settled_count, array_len(order));
    bool seen[101] = {false};
    for (size_t i = 0; i < a.settled_count; i++) {
        assert_false(seen[a.settled[i].hold.a] || a.settled[i].lost);
        seen[a.settled[i].hold.a] = true;
    }
    for (size_t i = 0; i < array_len(order); i++)
        assert_true(seen[order[i] + 1]);
    for (size_t i = 0; i < 100; i++)
        if (i > 2 && i != 50 && i != 51 && i < 98)
            channel_done(b.c, b.got[i].from);
    flush_both();
    assert_int_equal(a.settled_count, 100);
    assert_int_equal(channel_unacked(a.c), 0);
}

static void more_ranges_than_an_ack_holds_follow_in_another(void **state)
{
    for (uint64_t i = 1; i <= 4000; i++)
        send_n(&a, 1, i, false);
    for (size_t i = 1; i < 4000; i += 2)
        channel_done(b.c, b.got[i].from);
    b.woken = 0;
    channel_flush(b.c);
    assert_int_equal(b.woken, 1);
    while (b.woken) {
        b.woken = 0;
        channel_flush(b.c);
    }
    channel_run(a.c);
    assert_int_equal(a.settled_count, 2000);
    for (size_t i = 3998;; i -= 2) { /* and in the other order, one ack each */
        channel_done(b.c, b.got[i].from);
        channel_flush(b.c);
        if (i == 0)
            break;
    }
    channel_run(a.c);
    assert_int_equal(a.settled_count, 4000);
    assert_int_equal(channel_unacked(a.c), 0);
}

static void frames_to_the_own_shard_wait_for_run_and_come_after_those_before_them(void **state)
{
    send_n(&a, 0, 1, false);
    send_n(&a, 0, 2, true);
    assert_int_equal(a.got_count, 0);
    assert_true(channel_run(a.c));
    assert_int_equal(a.got_count, 2);
    assert_int_equal(a.got[1].seq, 2);
    channel_done(a.c, a.got[1].from);
    assert_int_equal(a.settled_count, 0); /* never from inside done */
    channel_run(a.c);
    assert_int_equal(a.settled_count, 1);
    assert_int_equal(a.settled[0].hold.a, 2);
    assert_false(channel_run(a.c));
}

static void a_death_loses_what_was_not_kept_and_repeats_the_rest_in_order(void **state)
{
    for (uint64_t i = 1; i <= 6; i++)
        send_n(&a, 1, i, i % 2 == 0);
    channel_done(b.c, b.got[1].from); /* 2 is acked */
    flush_both();
    channel_peer_down(a.c, 1);
    send_n(&a, 1, 8, true);  /* waits */
    send_n(&a, 1, 9, false); /* lost at once */
    flush_both();
    size_t lost = 0;
    for (size_t i = 0; i < a.settled_count; i++)
        lost += a.settled[i].lost;
    assert_int_equal(lost, 4); /* 1 3 5 9 */
    end_close(&b);
    end_open(&b, &a, 1);
    channel_peer_up(b.c, 0, 9);
    channel_peer_up(a.c, 1, 8);
    send_n(&a, 1, 10, false);
    static const uint64_t want[] = {4, 6, 8, 10};
    assert_int_equal(b.got_count, 4);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(b.got[i].seq, want[i]);
        assert_int_equal(b.got[i].flags & FRAME_AGAIN, i < 3 ? FRAME_AGAIN : 0);
        channel_done(b.c, b.got[i].from);
    }
    flush_both();
    assert_int_equal(a.settled_count, 1 + 4 + 4);
    assert_int_equal(channel_unacked(a.c), 0);
}

static void an_answer_for_a_dead_incarnation_is_ignored(void **state)
{
    send_n(&a, 1, 1, false);
    struct origin old = b.got[0].from;
    channel_peer_down(b.c, 0);
    channel_peer_up(b.c, 0, 10);
    channel_done(b.c, old);
    flush_both();
    assert_int_equal(a.settled_count, 0);
}

static struct stanza *stanza_of(size_t body)
{
    struct xml_scan *scan = xml_scan_new();
    char *xml = malloc(body + 100);
    int n =
        sprintf(xml, "<message xmlns='jabber:client'><body>%0*d</body></message>", (int)body, 0);
    struct stanza *s = stanza_make(scan, str_from(xml, (size_t)n), &a.turn);
    xml_scan_free(scan);
    free(xml);
    return s;
}

/* The bytes it took. */
static size_t send_stanza(struct stanza *s)
{
    struct frame f = {.kind = FRAME_OUT, .sid = 5, .stanza = s};
    size_t before = a.sent_bytes, n = b.got_count;
    channel_send(a.c, 1, &f, (struct hold){HOLD_NONE, 0, 0}, true);
    assert_int_equal(b.got_count, n + 1);
    assert_int_equal(b.got[n].stanza_size, s->size);
    assert_int_equal(b.got[n].flags & FRAME_SAME, 0);
    return a.sent_bytes - before;
}

static void a_stanza_for_many_crosses_once_and_again_behind_another_or_a_death(void **state)
{
    struct stanza *one = stanza_of(300), *other = stanza_of(300), *large = stanza_of(8000);
    assert_true(send_stanza(one) > 300);
    assert_true(send_stanza(one) < 150);
    assert_true(send_stanza(one) < 150);
    assert_ptr_equal(b.got[0].stanza, b.got[2].stanza);
    assert_true(send_stanza(other) > 300);
    assert_ptr_not_equal(b.got[2].stanza, b.got[3].stanza);
    assert_true(send_stanza(large) > 8000);
    assert_true(send_stanza(large) > 8000);
    assert_true(send_stanza(other) < 150);
    assert_true(send_stanza(one) > 300);
    channel_peer_down(a.c, 1), channel_peer_down(b.c, 0);
    channel_peer_up(b.c, 0, 10);
    channel_peer_up(a.c, 1, 8); /* all eight go again, the first of them the one that went last */
    assert_int_equal(b.got_count, 16);
    for (size_t i = 0; i < 8; i++)
        assert_int_equal(b.got[8 + i].stanza_size, i == 4 || i == 5 ? large->size : one->size);
    stanza_unref(one), stanza_unref(other), stanza_unref(large);
}

static void who_sends_the_same_as_nothing_is_no_peer(void **state)
{
    struct frame f = {.kind = FRAME_OUT, .flags = FRAME_SAME};
    assert_int_equal(channel_receive(b.c, 0, frame_bytes(&f, 1, &a.turn)), ERR_BAD);
    f.stanza = stanza_of(10);
    assert_int_equal(channel_receive(b.c, 0, frame_bytes(&f, 1, &a.turn)), ERR_BAD);
    stanza_unref(f.stanza);
    assert_int_equal(b.got_count, 0);
}

static void a_gap_or_garbage_from_a_peer_is_an_error_and_no_crash(void **state)
{
    struct frame f = {.kind = FRAME_CACK};
    assert_int_equal(channel_receive(b.c, 0, frame_bytes(&f, 3, &a.turn)), ERR_BAD);
    assert_int_equal(channel_receive(b.c, 0, STR("\xff\xff garbage")), ERR_BAD);
    assert_int_equal(channel_receive(b.c, 0, STR("")), ERR_BAD);
    assert_int_equal(b.got_count, 0);
}

static void a_ticket_acks_its_cause_when_the_last_effect_is_safe(void **state)
{
    send_n(&a, 1, 1, false);
    struct ticket *t = ticket_new(b.c, b.got[0].from, (struct uid){1, 1, 0}, NULL, NULL);
    struct hold h = ticket_hold(t);
    ticket_open(t);
    ticket_close(t); /* the handling itself */
    ticket_settled(h);
    flush_both();
    assert_int_equal(a.settled_count, 0);
    ticket_close(t);
    flush_both();
    assert_int_equal(a.settled_count, 1);
}

static void send_flagged(uint32_t flags)
{
    struct frame f = {.kind = FRAME_IN, .flags = flags, .sid = 5};
    channel_send(a.c, 1, &f, (struct hold){0}, false);
}

static void an_ack_that_nobody_waits_for_is_no_reason_to_wake(void **state)
{
    send_flagged(FRAME_PATIENT);
    assert_false(a.later); /* itself is one */
    send_flagged(FRAME_PATIENT);
    send_flagged(FRAME_PATIENT);
    send_flagged(0);
    for (size_t i = 0; i < 2; i++)
        channel_done(b.c, b.got[i].from);
    flush_both();
    assert_true(b.later);
    channel_done(b.c, b.got[2].from); /* with one that somebody waits for */
    channel_done(b.c, b.got[3].from);
    flush_both();
    assert_false(b.later);
    assert_int_equal(channel_unacked(a.c), 0);
    send_flagged(FRAME_PATIENT | FRAME_LATER);
    assert_true(a.later);
}

static uint32_t flags_of_one_from(struct origin o)
{
    struct ticket *t = ticket_new(b.c, o, (struct uid){1, 1, 0}, NULL, NULL);
    uint32_t flags = ticket_flags(t);
    ticket_close(t);
    return flags;
}

static void what_a_patient_frame_leads_to_is_patient(void **state)
{
    send_flagged(FRAME_PATIENT);
    send_flagged(0);
    struct frame own = {.kind = FRAME_ROUTE, .flags = FRAME_PATIENT};
    channel_send(b.c, 1, &own, (struct hold){0}, false);
    channel_run(b.c);
    assert_int_equal(flags_of_one_from(b.got[0].from), FRAME_PATIENT);
    assert_int_equal(flags_of_one_from(b.got[1].from), 0);
    assert_int_equal(flags_of_one_from(b.got[2].from), FRAME_PATIENT);
    assert_int_equal(ticket_flags(NULL), FRAME_PATIENT);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, open_both, close_both)
    const struct CMUnitTest tests[] = {
        T(frames_arrive_in_order_and_nothing_is_settled_before_it_is_done),
        T(acks_out_of_order_settle_exactly_those_frames_once),
        T(more_ranges_than_an_ack_holds_follow_in_another),
        T(frames_to_the_own_shard_wait_for_run_and_come_after_those_before_them),
        T(a_death_loses_what_was_not_kept_and_repeats_the_rest_in_order),
        T(an_answer_for_a_dead_incarnation_is_ignored),
        T(a_gap_or_garbage_from_a_peer_is_an_error_and_no_crash),
        T(a_stanza_for_many_crosses_once_and_again_behind_another_or_a_death),
        T(who_sends_the_same_as_nothing_is_no_peer),
        T(an_ack_that_nobody_waits_for_is_no_reason_to_wake),
        T(what_a_patient_frame_leads_to_is_patient),
        T(a_ticket_acks_its_cause_when_the_last_effect_is_safe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
