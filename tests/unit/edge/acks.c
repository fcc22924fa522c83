/* XEP-0198 and the safe window: h counts what is safe, in both directions, and nobody waits for
 * ever. */
#include <setjmp.h>
#include <stdarg.h>

#include "tests/unit/edge/harness.h"

#include <cmocka.h>

static void bound(const char *const *settings)
{
    world_open(settings);
    client_logs_in();
}
static void bound_with_sm(uint64_t out_base)
{
    bound(NULL);
    client_enables_sm(out_base);
}

static void the_window_counts_contiguous_ones_in_any_order(void **state)
{
    struct window x = {.safe = 10};
    assert_false(window_mark(&x, 12));
    assert_false(window_mark(&x, 13));
    assert_true(window_mark(&x, 11));
    assert_int_equal(x.safe, 13);
    assert_false(window_mark(&x, 13));
    assert_false(window_mark(&x, 13 + WINDOW_MAX + 1));
    for (uint64_t ord = 13 + WINDOW_MAX; ord > 14; ord--)
        assert_false(window_mark(&x, ord));
    assert_true(window_mark(&x, 14));
    assert_int_equal(x.safe, 13 + WINDOW_MAX);
    assert_true(window_is_full(&x, x.safe + 64, 64));
    assert_false(window_is_full(&x, x.safe + 63, 64));
}

static void a_full_window_stops_reading_and_opens_again(void **state)
{
    bound((const char *const[]){"limits.unsafe_max=8", NULL});
    size_t resumes = w.transport->resumes;
    for (int i = 0; i < 12; i++)
        client_sends("<message to='romeo@localhost'/>");
    assert_int_equal(frame_count(FRAME_IN), 8);
    assert_true(w.transport->paused);
    settle(1);
    turn();
    assert_true(w.transport->paused); /* not contiguous */
    settle(0);
    turn();
    assert_int_equal(frame_count(FRAME_IN), 10);
    assert_int_equal(w.transport->resumes, resumes); /* what waits comes first */
    for (size_t i = 2; i < 10; i++)
        settle(i);
    turn();
    assert_false(w.transport->paused);
    assert_int_equal(frame_count(FRAME_IN), 12);
    world_close();
}

static bool last_in_is_patient(void)
{
    const struct frame *f = &last_frame(FRAME_IN)->f;
    return f->sent || (f->flags & FRAME_PATIENT);
}
static bool last_in_is_waited_for(void) { return !(last_frame(FRAME_IN)->f.flags & FRAME_PATIENT); }

static void nobody_waits_for_acks_without_sm_while_windows_are_wide(void **state)
{
    bound((const char *const[]){"limits.unsafe_max=8", NULL});
    for (int i = 0; i < 6; i++) {
        client_sends("<message to='romeo@localhost'/>");
        assert_true(i < 3 ? last_in_is_patient() : last_in_is_waited_for());
    }
    for (size_t i = 0; i < 6; i++)
        settle(i);
    client_sends("<message to='romeo@localhost'/>");
    assert_true(last_in_is_patient());
    client_sends("<enable " SM "/><message to='romeo@localhost'/>");
    assert_true(last_in_is_waited_for());
    world_close();
}

static void the_shards_bytes_have_a_bound_of_their_own(void **state)
{
    static char large[70000];
    snprintf(large, sizeof large, "<message><body>%0*d</body></message>", 60000, 0);
    bound((const char *const[]){"limits.inbound_max=1m", NULL});
    size_t sent = 0;
    for (size_t held = 0; held < 4; held += w.transport->paused) /* some come behind the pause */
        client_sends(large), sent++;
    size_t n = frame_count(FRAME_IN);
    assert_true(n > 10 && n < 20);
    for (size_t i = 0; i < n / 4; i++)
        settle(i);
    turn();
    assert_int_equal(frame_count(FRAME_IN), n);
    for (size_t i = n / 4; i < n; i++)
        settle(i);
    turn();
    assert_true(frame_count(FRAME_IN) > n);
    for (size_t i = n; i < frame_count(FRAME_IN); i++)
        settle(i), turn();
    assert_int_equal(frame_count(FRAME_IN), sent);
    assert_int_equal(w.edge->inbound, 0);
    world_close();
}

static void a_full_bus_stops_who_sends_with_its_next_stanza(void **state)
{
    bound(NULL);
    edge_bus_full(w.edge, true);
    assert_false(w.transport->paused); /* who says nothing is not asked */
    for (int i = 0; i < 3; i++)
        client_sends("<message to='romeo@localhost'/>");
    assert_int_equal(frame_count(FRAME_IN), 1);
    assert_true(w.transport->paused);
    settle(0);
    turn();
    assert_true(w.transport->paused);
    edge_bus_full(w.edge, false);
    turn();
    assert_int_equal(frame_count(FRAME_IN), 3);
    assert_false(w.transport->paused);
    world_close();
}

static void enable_tells_the_home_and_enabled_stands_at_its_place(void **state)
{
    bound(NULL);
    client_sends("<presence/><enable " SM " resume='true' max='60'/>");
    struct sent_frame *f = last_frame(FRAME_ENABLE);
    assert_non_null(f);
    assert_int_equal(f->f.ord, 1);
    assert_int_equal(f->f.ms, 60000);
    assert_true(f->f.flags & FRAME_WANT_RESUME);
    client_sends("<enable " SM "/>");
    assert_true(got(received(), "<unexpected-request"));
    home_sends_out(1, "<message id='one'/>", 0);
    home_sends(&(struct frame){
        .kind = FRAME_ENABLED, .sid = sid_of_juliet(), .gen = 1, .seq = 1, .ms = 60000});
    home_sends_out(2, "<message id='two'/>", 0);
    turn();
    const char *text = received();
    assert_true(got(text, "<message id='one'/><enabled xmlns='urn:xmpp:sm:3' id='"));
    assert_true(got(text, "resume='true' max='60'/><message id='two'/><r xmlns='urn:xmpp:sm:3'/>"));
    /* What came before it is the transport's to take, what came after it the client's to ack. */
    assert_int_equal(last_frame(FRAME_CACK)->f.seq, 1);
    client_sends("<a " SM " h='1'/>");
    assert_int_equal(last_frame(FRAME_CACK)->f.seq, 2);
    world_close();
}

static void a_request_is_answered_at_once_when_all_is_safe(void **state)
{
    bound(NULL);
    client_sends("<message/>");
    settle(0);
    client_enables_sm(0);
    client_sends("<r " SM "/><r " SM "/>");
    assert_string_equal(received(), "<a xmlns='urn:xmpp:sm:3' h='0'/>");
    client_sends("<message/>");
    settle(0);
    client_sends("<r " SM "/>");
    assert_string_equal(received(), "<a xmlns='urn:xmpp:sm:3' h='1'/>");
    world_close();
}

static void a_request_waits_for_safety_then_tells_what_is_then_the_rest_unasked(void **state)
{
    bound_with_sm(0);
    client_sends("<message/><message/><r " SM "/>");
    settle(0);
    pass_ms(400);
    assert_string_equal(received(), "");
    pass_ms(101);
    assert_string_equal(received(), "<a xmlns='urn:xmpp:sm:3' h='1'/>");
    settle(1);
    turn();
    assert_string_equal(received(), "<a xmlns='urn:xmpp:sm:3' h='2'/>");
    world_close();
}

static void a_request_is_answered_as_soon_as_all_before_it_is_safe(void **state)
{
    bound_with_sm(0);
    client_sends("<message/><r " SM "/>");
    settle(0);
    turn();
    assert_string_equal(received(), "<a xmlns='urn:xmpp:sm:3' h='1'/>");
    pass_ms(1000);
    assert_string_equal(received(), "");
    world_close();
}

static void a_lost_frame_is_never_told_safe(void **state)
{
    bound_with_sm(0);
    client_sends("<message/><r " SM "/>");
    edge_settled(w.edge, last_frame(FRAME_IN)->hold, true);
    pass_ms(501);
    assert_string_equal(received(), "<a xmlns='urn:xmpp:sm:3' h='0'/>");
    world_close();
}

static void a_hold_of_another_generation_says_nothing(void **state)
{
    bound_with_sm(0);
    client_sends("<message/><r " SM "/>");
    struct hold h = last_frame(FRAME_IN)->hold;
    h.b ^= 1ull << 48;
    edge_settled(w.edge, h, false);
    turn();
    assert_string_equal(received(), "");
    world_close();
}

static void an_ack_above_what_was_sent_ends_the_stream(void **state)
{
    bound_with_sm(5);
    home_sends_out(6, "<message/>", 0);
    turn();
    client_sends("<a " SM " h='2'/>");
    const char *text = received();
    assert_true(got(text, "<stream:error><undefined-condition"));
    assert_true(got(text, "<handled-count-too-high xmlns='urn:xmpp:sm:3' h='2' send-count='1'/>"));
    assert_int_equal(last_frame(FRAME_END)->f.reason, ERR_STREAM_HANDLED_COUNT_TOO_HIGH);
    world_close();
}

static void acks_free_the_queue_and_an_idle_session_holds_none(void **state)
{
    bound_with_sm(0);
    for (uint64_t seq = 1; seq <= 10; seq++)
        home_sends_out(seq, "<message><body>x</body></message>", FRAME_TO_FULL);
    turn();
    assert_int_equal(outs_count(w.conn->session->outs), 10);
    client_sends("<a " SM " h='4'/>");
    assert_int_equal(outs_count(w.conn->session->outs), 6);
    client_sends("<a " SM " h='3'/>"); /* late: harmless */
    assert_int_equal(outs_count(w.conn->session->outs), 6);
    client_sends("<a " SM " h='10'/>");
    assert_int_equal(last_frame(FRAME_CACK)->f.seq, 10);
    assert_null(w.conn->session->outs);
    assert_null(w.conn->out.pieces);
    world_close();
}

static void one_request_of_ours_is_open_at_a_time(void **state)
{
    bound_with_sm(0);
    home_sends_out(1, "<message/>", 0);
    turn();
    assert_true(got(received(), "<r xmlns='urn:xmpp:sm:3'/>"));
    home_sends_out(2, "<message/>", 0);
    turn();
    assert_string_equal(received(), "<message/>");
    client_sends("<a " SM " h='1'/>");
    assert_string_equal(received(), "<r xmlns='urn:xmpp:sm:3'/>");
    client_sends("<a " SM " h='1'/>"); /* one that lags is not asked again for the same */
    assert_string_equal(received(), "");
    client_sends("<a " SM " h='2'/>");
    assert_string_equal(received(), "");
    world_close();
}

static void without_sm_the_transport_acks(void **state)
{
    bound(NULL);
    w.transport->stalled = true;
    home_sends_out(1, "<message/>", 0);
    home_sends_out(2, "<message/>", 0);
    turn();
    assert_null(last_frame(FRAME_CACK));
    w.transport->stalled = false;
    turn();
    assert_int_equal(frame_count(FRAME_CACK), 1);
    assert_int_equal(last_frame(FRAME_CACK)->f.seq, 2);
    assert_null(w.conn->session->outs);
    uint32_t both = FRAME_PATIENT | FRAME_LATER;
    assert_int_equal(last_frame(FRAME_CACK)->f.flags, both);
    home_sends_out(3, "<message/>", FRAME_AWAITED);
    home_sends_out(4, "<message/>", 0);
    turn();
    assert_int_equal(last_frame(FRAME_CACK)->f.flags, FRAME_PATIENT);
    home_sends_out(5, "<message/>", 0);
    turn();
    assert_int_equal(last_frame(FRAME_CACK)->f.flags, both);
    world_close();
}

static void a_broken_connection_detaches_a_resumable_session_and_ends_another(void **state)
{
    bound_with_sm(0);
    w.transport->t.sink->ended(&w.transport->t);
    turn();
    assert_non_null(last_frame(FRAME_DETACH));
    world_close();
    bound(NULL);
    w.transport->t.sink->ended(&w.transport->t);
    turn();
    assert_non_null(last_frame(FRAME_END));
    world_close();
    bound_with_sm(0);
    client_sends("</stream:stream>");
    assert_non_null(last_frame(FRAME_END));
    assert_null(last_frame(FRAME_DETACH));
    world_close();
}

static void the_end_of_a_session_waits_for_what_is_being_written(void **state)
{
    bound(NULL);
    w.transport->stalled = true;
    home_sends_out(1, "<message/>", 0);
    turn();
    home_sends_out(2, "<message/>", 0);
    client_sends("</stream:stream>");
    home_sends_out(3, "<message/>", 0);
    assert_null(last_frame(FRAME_END));
    w.transport->stalled = false;
    turn();
    assert_string_equal(received(), "<message/></stream:stream>");
    assert_int_equal(last_frame(FRAME_CACK)->f.seq, 1); /* 2 and 3 are the home's to store */
    assert_non_null(last_frame(FRAME_END));
    assert_true(last_frame(FRAME_CACK) < last_frame(FRAME_END));
    world_close();
}

static void resume(const char *previd)
{
    char text[128];
    client_open(LISTENER_C2S_TLS);
    client_authenticates();
    client_sends(HEADER);
    received();
    snprintf(text, sizeof text, "<resume " SM " h='3' previd='%s'/><message/>", previd);
    client_sends(text);
}

static void a_resumed_session_goes_on_where_it_was(void **state)
{
    char previd[64];
    world_open(NULL);
    snprintf(previd, sizeof previd, "%016llx-x", (unsigned long long)sid_of_juliet());
    resume(previd);
    struct sent_frame *f = last_frame(FRAME_RESUME);
    assert_non_null(f);
    assert_int_equal(f->f.sid, sid_of_juliet());
    assert_int_equal(f->f.h, 3);
    assert_null(last_frame(FRAME_IN)); /* not before the answer */
    struct snap snap = {.sid = sid_of_juliet(),
                        .gen = 2,
                        .full = STR(JULIET "/balcony"),
                        .sm = true,
                        .resumable = true,
                        .in_ord = 7,
                        .in_base = 2,
                        .out_seq = 15,
                        .out_base = 10,
                        .out_acked = 13};
    home_sends(&(struct frame){.kind = FRAME_RESUMED,
                               .conn = f->f.conn,
                               .sid = sid_of_juliet(),
                               .gen = 2,
                               .payload = snap_encode(&snap, &w.turn)});
    for (uint64_t seq = 14; seq <= 15; seq++) {
        struct stanza *s =
            stanza_make(w.node.scan, STR("<message id='q'><body>b</body></message>"), &w.turn);
        home_sends(&(struct frame){.kind = FRAME_OUT,
                                   .sid = sid_of_juliet(),
                                   .gen = 2,
                                   .seq = seq,
                                   .stanza = s,
                                   .flags = FRAME_REPLAY,
                                   .us = seq == 14 ? w.now_us - 6000000 : w.now_us - 4000000});
        stanza_unref(s);
    }
    turn();
    const char *text = received();
    assert_true(got(text, "<resumed xmlns='urn:xmpp:sm:3' previd='"));
    assert_true(got(text, "-x' h='5'/><message id='q'><body>b</body>"
                          "<delay xmlns='urn:xmpp:delay'"));
    assert_true(got(text, "</message><message id='q'><body>b</body></message><r "));
    assert_int_equal(last_frame(FRAME_IN)->f.ord, 8);
    assert_int_equal(last_frame(FRAME_IN)->f.gen, 2);
    client_sends("<a " SM " h='5'/>");
    assert_int_equal(last_frame(FRAME_CACK)->f.seq, 15);
    world_close();
}

static void only_what_is_replayed_is_marked_as_delayed(void **state)
{
    bound_with_sm(0);
    struct stanza *s = stanza_make(w.node.scan, STR("<message/>"), &w.turn);
    home_sends(&(struct frame){.kind = FRAME_OUT,
                               .sid = sid_of_juliet(),
                               .gen = 1,
                               .seq = 1,
                               .stanza = s,
                               .us = w.now_us - 6000000});
    stanza_unref(s);
    turn();
    assert_string_equal(received(), "<message/><r xmlns='urn:xmpp:sm:3'/>");
    world_close();
}

static void a_failed_resume_leaves_the_stream_for_a_bind(void **state)
{
    world_open(NULL);
    resume("00000000000000ff-x");
    home_sends(&(struct frame){.kind = FRAME_FAILED,
                               .conn = last_frame(FRAME_RESUME)->f.conn,
                               .flags = FRAME_HAS_H,
                               .h = 9});
    run_hooks();
    const char *text = w.transport->out;
    assert_true(got(text, "<failed xmlns='urn:xmpp:sm:3' h='9'><item-not-found"));
    world_close();
}

static void a_close_from_the_home_is_not_told_back(void **state)
{
    bound_with_sm(0);
    home_sends(&(struct frame){
        .kind = FRAME_CLOSE, .sid = sid_of_juliet(), .gen = 2, .reason = ERR_STREAM_KICKED});
    turn();
    assert_string_equal(received(), ""); /* another generation */
    home_sends(&(struct frame){
        .kind = FRAME_CLOSE, .sid = sid_of_juliet(), .gen = 1, .reason = ERR_STREAM_CONFLICT});
    turn();
    assert_true(got(received(), "<conflict "));
    assert_null(last_frame(FRAME_END));
    assert_null(last_frame(FRAME_DETACH));
    world_close();
}

static void the_last_answer_of_a_removed_account_is_still_written(void **state)
{
    bound(NULL);
    home_sends_out(1, "<iq type='result' id='bye'/>", 0);
    home_sends(&(struct frame){
        .kind = FRAME_CLOSE, .sid = sid_of_juliet(), .gen = 1, .reason = ERR_STREAM_ACCOUNT_GONE});
    turn();
    assert_true(got(received(), "<iq type='result' id='bye'/><stream:error><not-authorized "));
    world_close();
}

static void a_new_home_is_told_all_that_an_edge_holds_and_its_client_hears_nothing(void **state)
{
    bound_with_sm(0);
    client_sends("<message/>");
    settle(0);
    turn();
    received();
    home_sends_out(1, "<message id='a'/>", 0);
    home_sends_out(2, "<message id='b'/>", 0);
    turn();
    client_sends("<a " SM " h='1'/>");
    received();
    edge_attach(w.edge, 1 - ring_home(w.node.ring, STR(JULIET)));
    assert_null(last_frame(FRAME_ATTACH));
    edge_attach(w.edge, ring_home(w.node.ring, STR(JULIET)));
    turn();
    assert_string_equal(received(), "");
    struct sent_frame *f = last_frame(FRAME_ATTACH);
    assert_true(f->f.sid == sid_of_juliet() && f->f.gen == 1 && (f->f.flags & FRAME_LIVE));
    assert_int_equal(frame_count(FRAME_QUEUED), 1);
    f = last_frame(FRAME_QUEUED);
    assert_true(f->f.seq == 2 && f->f.conn == 77 && f->f.ord == 2);
    assert_non_null(last_frame(FRAME_KNOWN)); /* what the client has acked */
    assert_null(last_frame(FRAME_END));
    world_close();
}

static void a_queue_over_its_bound_ends_the_session(void **state)
{
    bound((const char *const[]){"limits.unacked_max=16", NULL});
    client_enables_sm(0);
    for (uint64_t seq = 1; seq <= 17; seq++)
        home_sends_out(seq, "<message/>", 0);
    turn();
    assert_true(got(received(), "<resource-constraint "));
    assert_int_equal(last_frame(FRAME_END)->f.reason, ERR_STREAM_QUEUE_OVERFLOW);
    world_close();
}

static void a_slow_reader_holds_its_senders_back_and_is_closed_in_the_end(void **state)
{
    bound((const char *const[]){"limits.output_max=64k", "limits.unacked_max=1000", NULL});
    client_enables_sm(0);
    static char body[10000];
    snprintf(body, sizeof body, "<message><body>%0*d</body></message>", 9000, 0);
    w.transport->stalled = true;
    size_t done = w.done_n;
    for (uint64_t seq = 1; seq <= 30; seq++)
        home_sends_out(seq, body, 0);
    turn();
    assert_true(w.done_n - done < 30);
    assert_true(w.conn->out.bytes < 80000); /* the rest is not serialised */
    pass_ms(60001);
    assert_int_equal(last_frame(FRAME_DETACH)->f.reason, ERR_STREAM_OUTPUT_STALLED);
    assert_int_equal(w.done_n - done, 30);
    world_close();
}

static void a_client_that_is_slow_to_ack_slows_its_senders_for_a_while(void **state)
{
    bound((const char *const[]){"limits.unacked_max=40", NULL});
    client_enables_sm(0);
    size_t done = w.done_n;
    for (uint64_t seq = 1; seq <= 12; seq++)
        home_sends_out(seq, "<message/>", 0);
    turn();
    assert_int_equal(w.done_n - done, 10);
    client_sends("<a " SM " h='1'/>");
    assert_int_equal(w.done_n - done, 10);
    client_sends("<a " SM " h='2'/>");
    assert_int_equal(w.done_n - done, 12);
    home_sends_out(13, "<message/>", 0);
    turn();
    assert_int_equal(w.done_n - done, 12);
    pass_ms(1001); /* its <a/> may lie behind what we do not read: not for ever */
    assert_int_equal(w.done_n - done, 13);
    world_close();
}

static void a_silent_client_is_pinged_and_then_dead(void **state)
{
    bound_with_sm(0);
    pass_ms(300001);
    assert_string_equal(received(), "<r xmlns='urn:xmpp:sm:3'/>");
    client_sends("<a " SM " h='0'/>");
    pass_ms(299000);
    assert_string_equal(received(), "");
    pass_ms(1001);
    assert_string_equal(received(), "<r xmlns='urn:xmpp:sm:3'/>");
    pass_ms(60001);
    assert_int_equal(last_frame(FRAME_DETACH)->f.reason, ERR_STREAM_CONNECTION_TIMEOUT);
    world_close();
    bound(NULL);
    pass_ms(300001);
    assert_true(got(received(), "<ping xmlns='urn:xmpp:ping'/></iq>"));
    client_sends("<iq type='result' id='pemberley-ping-1' to='localhost'/>");
    assert_int_equal(frame_count(FRAME_IN), 0);
    pass_ms(100000);
    assert_non_null(w.conn->session);
    world_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_window_counts_contiguous_ones_in_any_order),
        cmocka_unit_test(a_full_window_stops_reading_and_opens_again),
        cmocka_unit_test(nobody_waits_for_acks_without_sm_while_windows_are_wide),
        cmocka_unit_test(the_shards_bytes_have_a_bound_of_their_own),
        cmocka_unit_test(a_full_bus_stops_who_sends_with_its_next_stanza),
        cmocka_unit_test(enable_tells_the_home_and_enabled_stands_at_its_place),
        cmocka_unit_test(a_request_is_answered_at_once_when_all_is_safe),
        cmocka_unit_test(a_request_waits_for_safety_then_tells_what_is_then_the_rest_unasked),
        cmocka_unit_test(a_request_is_answered_as_soon_as_all_before_it_is_safe),
        cmocka_unit_test(a_lost_frame_is_never_told_safe),
        cmocka_unit_test(a_hold_of_another_generation_says_nothing),
        cmocka_unit_test(an_ack_above_what_was_sent_ends_the_stream),
        cmocka_unit_test(acks_free_the_queue_and_an_idle_session_holds_none),
        cmocka_unit_test(one_request_of_ours_is_open_at_a_time),
        cmocka_unit_test(without_sm_the_transport_acks),
        cmocka_unit_test(a_broken_connection_detaches_a_resumable_session_and_ends_another),
        cmocka_unit_test(the_end_of_a_session_waits_for_what_is_being_written),
        cmocka_unit_test(a_resumed_session_goes_on_where_it_was),
        cmocka_unit_test(only_what_is_replayed_is_marked_as_delayed),
        cmocka_unit_test(a_failed_resume_leaves_the_stream_for_a_bind),
        cmocka_unit_test(a_close_from_the_home_is_not_told_back),
        cmocka_unit_test(the_last_answer_of_a_removed_account_is_still_written),
        cmocka_unit_test(a_new_home_is_told_all_that_an_edge_holds_and_its_client_hears_nothing),
        cmocka_unit_test(a_queue_over_its_bound_ends_the_session),
        cmocka_unit_test(a_slow_reader_holds_its_senders_back_and_is_closed_in_the_end),
        cmocka_unit_test(a_client_that_is_slow_to_ack_slows_its_senders_for_a_while),
        cmocka_unit_test(a_silent_client_is_pinged_and_then_dead),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
