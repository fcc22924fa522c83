/* What a client does that no honest one does, or only in a hurry: acks before it can know, leaving
 * in the middle of things, filling what has no bound. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>

#include "tests/unit/edge/harness.h"

#include <cmocka.h>

static void bound_with_sm(const char *const *settings)
{
    world_open(settings);
    client_logs_in();
    client_enables_sm(0);
}

static void written(void)
{
    w.transport->in_flight = 0;
    w.transport->t.sink->written(&w.transport->t);
}

static void an_ack_of_what_the_socket_has_not_taken_does_no_harm(void **state)
{
    bound_with_sm(NULL);
    struct c2s *s = w.conn->session;
    w.transport->stalled = true;
    home_sends_out(1, "<message/>", 0);
    turn();
    client_sends("<a " SM " h='1'/>");
    home_sends_out(2, "<message/>", 0);
    turn();
    assert_int_equal(s->taken, 0);
    written();
    assert_int_equal(s->taken, 1);
    client_sends("<a " SM " h='2'/>");
    assert_null(s->outs);
    written();
    written();
    assert_int_equal(s->taken, 2);
    w.transport->stalled = false;
    home_sends_out(3, "<message/>", 0);
    turn();
    assert_int_equal(s->taken, 3);
    assert_int_equal(s->acked, 2);
    world_close();
}

static void the_count_of_acks_wraps_at_32_bits(void **state)
{
    bound_with_sm(NULL);
    home_sends_out((1ull << 32) + 2, "<message/>", 0);
    home_sends_out((1ull << 32) + 3, "<message/>", 0);
    turn();
    client_sends("<a " SM " h='2'/>");
    assert_int_equal(outs_count(w.conn->session->outs), 1);
    client_sends("<a " SM " h='3'/>");
    assert_int_equal(outs_count(w.conn->session->outs), 0);
    client_sends("<a " SM " h='4'/>");
    assert_true(got(received(), "<handled-count-too-high xmlns='urn:xmpp:sm:3' h='4' "
                                "send-count='3'/>"));
    world_close();
}

static const char *const eight[] = {"limits.unsafe_max=8", NULL};

/* The peer's FIN or close_notify comes while a full window holds up what it sent before. */
static void what_was_sent_before_leaving_is_still_taken(void **state)
{
    world_open(eight);
    client_logs_in();
    char text[2000] = "";
    for (int i = 0; i < 20; i++)
        strcat(text, "<message to='romeo@localhost'/>");
    strcat(text, "</stream:stream>");
    client_sends_bytes(text, strlen(text));
    w.transport->t.sink->ended(&w.transport->t);
    turn();
    for (size_t i = 0; i < 20; i++) {
        assert_true(frame_count(FRAME_IN) > i);
        settle(i);
        turn();
    }
    assert_int_equal(frame_count(FRAME_IN), 20);
    assert_non_null(last_frame(FRAME_END));
    world_close();
}

static void who_leaves_in_the_middle_of_a_stanza_is_gone_when_the_rest_was_taken(void **state)
{
    bound_with_sm(eight);
    char text[2000] = "";
    for (int i = 0; i < 10; i++)
        strcat(text, "<message to='romeo@localhost'/>");
    strcat(text, "<message><bo");
    client_sends_bytes(text, strlen(text));
    w.transport->t.sink->ended(&w.transport->t);
    turn();
    assert_null(last_frame(FRAME_DETACH));
    for (size_t i = 0; i < 3; i++)
        settle(i);
    turn();
    assert_int_equal(frame_count(FRAME_IN), 10);
    assert_non_null(last_frame(FRAME_DETACH));
    assert_true(w.transport == NULL || w.transport->closed);
    world_close();
}

/* A stranger may send ahead while its login is looked up, but not fill our memory. */
static void a_stranger_is_not_kept_much_of(void **state)
{
    char *flood = malloc(70000);
    world_open(NULL);
    client_open(LISTENER_C2S_TLS);
    client_sends(HEADER "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>"
                        "AGp1bGlldAB4</auth>");
    memset(flood, ' ', 70000);
    client_sends_bytes(flood, 8000);
    assert_false(w.conn->ending);
    client_sends_bytes(flood, 62000);
    assert_true(w.conn->ending);
    assert_null(w.conn->carried);
    turn();
    free(flood);
    world_close();
}

/* Each guess is charged, but an address that is beyond its rate runs up no debt: it is let in when
 * the rate says so, not hours later. */
static void failures_are_forgiven_at_their_rate_however_many_there_were(void **state)
{
    world_open(NULL);
    for (int i = 0; i < 200; i++) {
        client_open(LISTENER_C2S_TLS);
        client_sends(HEADER "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='X'/>");
        w.transport->t.sink->ended(&w.transport->t);
        turn();
    }
    pass_ms(60000);
    client_open(LISTENER_C2S_TLS);
    client_authenticates();
    assert_true(got(received(), "<success"));
    world_close();
}

static void a_home_that_dies_before_enabled_was_told_is_asked_again(void **state)
{
    world_open(NULL);
    client_logs_in();
    client_sends("<enable " SM " resume='true'/>");
    assert_true(last_frame(FRAME_ENABLE)->keep);
    edge_attach(w.edge, ring_home(w.node.ring, STR(JULIET)));
    turn();
    assert_string_equal(received(), "");
    home_sends(&(struct frame){
        .kind = FRAME_ENABLED, .sid = sid_of_juliet(), .gen = 1, .seq = 0, .ms = 600000});
    turn();
    assert_true(got(received(), "<enabled xmlns='urn:xmpp:sm:3'"));
    world_close();
}

static void who_reads_nothing_from_before_its_bind_is_closed_too(void **state)
{
    world_open((const char *const[]){"limits.ping_interval=0s", NULL});
    client_open(LISTENER_C2S_TLS);
    client_authenticates();
    w.transport->stalled = true;
    client_sends(HEADER BIND);
    home_sends(&(struct frame){.kind = FRAME_BOUND,
                               .conn = last_frame(FRAME_BIND)->f.conn,
                               .sid = sid_of_juliet(),
                               .gen = 1,
                               .text = STR(JULIET "/balcony")});
    turn();
    assert_non_null(w.conn->session);
    pass_ms(60001);
    assert_non_null(last_frame(FRAME_END));
    assert_int_equal(last_frame(FRAME_END)->f.reason, ERR_STREAM_OUTPUT_STALLED);
    pass_ms(5001);
    assert_true(w.transport->closed);
    world_close();
}

/* A neighbour's queue of connections, served while that one was down. */
static void a_lent_listener_is_given_back(void **state)
{
    int fd = open("/dev/null", O_RDONLY);
    world_open(NULL);
    accept_n = accept_stop_n = 0;
    edge_listen(w.edge, LISTENER_C2S, 1, fd);
    size_t n = accept_n;
    assert_true(n > 1);
    edge_unlisten(w.edge, 0);
    assert_int_equal(accept_stop_n, 0);
    edge_unlisten(w.edge, 1);
    assert_int_equal(accept_stop_n, n);
    for (size_t i = 0; i < n; i++) {
        assert_int_not_equal(fcntl(fd, F_GETFD), -1);
        accepts[i]->op.done(&accepts[i]->op, -ECANCELED);
    }
    assert_int_equal(accept_n, n);
    assert_int_equal(fcntl(fd, F_GETFD), -1);
    assert_true(list_empty(&w.edge->listeners));
    world_close();
}

/* Nobody works for who has gone while it stood in line. */
static void a_login_whose_client_has_gone_costs_no_turn(void **state)
{
    static const char auth[] = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' "
                               "mechanism='SCRAM-SHA-1'>biwsbj1qdWxpZXQscj1hYmM=</auth>";
    world_open((const char *const[]){"limits.logins_concurrent=1", NULL});
    client_open(LISTENER_C2S_TLS);
    client_sends(HEADER);
    client_sends(auth);
    struct fake_transport *first = w.transport;
    client_open(LISTENER_C2S_TLS);
    client_sends(HEADER);
    client_sends(auth);
    assert_int_equal(w.store_n, 1);
    assert_int_equal(w.edge->logins_waiting_count, 1);
    conn_end(w.conn, ERR_STREAM_SYSTEM_SHUTDOWN);
    run_store(ERR_OK);
    assert_int_equal(w.store_n, 0);
    assert_int_equal(w.edge->logins_waiting_count, 0);
    first->t.sink->ended(&first->t);
    first->t.sink->closed(&first->t, ERR_OK);
    world_close();
}

/* More room for the shard's bytes lets those go on who waited for less of it to be used. */
static void a_wider_bound_lets_go_on_who_waits_below_it(void **state)
{
    static char large[70000];
    snprintf(large, sizeof large, "<message><body>%0*d</body></message>", 60000, 0);
    world_open((const char *const[]){"limits.inbound_max=1m", NULL});
    client_logs_in();
    size_t sent = 0;
    for (; sent < 20 && !w.transport->paused; sent++)
        client_sends(large);
    assert_true(sent < 20);
    client_sends(large); /* what came before the transport paused */
    assert_int_equal(frame_count(FRAME_IN), sent);
    const struct conf *old = w.node.conf;
    w.node.conf = conf_test_with((const char *const[]){"limits.inbound_max=64m", NULL});
    edge_reload(w.edge);
    free((void *)old);
    settle(0);
    turn();
    assert_int_equal(frame_count(FRAME_IN), sent + 1);
    assert_false(w.transport->paused);
    world_close();
}

/* Reading pauses in the middle of the longest stanza, and a share of the loop's, with the rest of a
 * TLS record, is on its way: all of it is kept. The peer can send no more. */
static void what_the_loop_had_taken_when_reading_paused_is_kept(void **state)
{
    static char text[TLS_RECV_MAX + 1], begun[300000];
    static const char one[] = "<message to='romeo@localhost'><body>b</body></message>";
    bound_with_sm(eight);
    snprintf(begun, w.edge->c2s.bytes_max - sizeof "</body></message>", "<message><body>%0*d",
             (int)sizeof begun, 0);
    client_sends(begun);
    conn_pause(w.conn, PAUSE_INBOUND);
    size_t n = (size_t)sprintf(text, "</body></message>"), count = 1;
    for (; n + sizeof one <= sizeof text; count++)
        n += (size_t)sprintf(text + n, "%s", one);
    client_sends_bytes(text, n);
    assert_false(w.conn->ending);
    conn_resume(w.conn, PAUSE_INBOUND);
    turn();
    for (size_t i = 0; i < count; i++) {
        assert_true(frame_count(FRAME_IN) > i);
        settle(i);
        turn();
    }
    assert_int_equal(frame_count(FRAME_IN), count);
    assert_null(w.conn->carried);
    assert_false(w.transport->paused);
    world_close();
}

static void requests_for_acks_are_charged_like_stanzas(void **state)
{
    bound_with_sm(
        (const char *const[]){"limits.c2s.stanza_rate=10/s", "limits.c2s.stanza_burst=5", NULL});
    for (int i = 0; i < 20; i++)
        client_sends("<r " SM "/>");
    assert_true(w.transport->paused);
    pass_ms(4000);
    assert_false(w.transport->paused);
    world_close();
}

/* Silence counts only while we listen. */
static void who_is_held_back_by_its_rate_is_not_dead(void **state)
{
    static char large[210000];
    snprintf(large, sizeof large, "<message><body>%0*d</body></message>", 200000, 0);
    bound_with_sm((const char *const[]){"limits.c2s.byte_rate=1k/s", "limits.c2s.byte_burst=16k",
                                        "limits.ping_interval=1m", "limits.ping_timeout=5s", NULL});
    client_sends(large);
    settle(0);
    assert_true(w.transport->paused);
    pass_ms(150000);
    assert_true(w.transport->paused);
    assert_non_null(w.conn->session);
    pass_ms(200000); /* it is read again, says nothing, and is asked */
    assert_null(w.conn);
    assert_int_equal(last_frame(FRAME_DETACH)->f.reason, ERR_STREAM_CONNECTION_TIMEOUT);
    world_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_ack_of_what_the_socket_has_not_taken_does_no_harm),
        cmocka_unit_test(the_count_of_acks_wraps_at_32_bits),
        cmocka_unit_test(what_was_sent_before_leaving_is_still_taken),
        cmocka_unit_test(who_leaves_in_the_middle_of_a_stanza_is_gone_when_the_rest_was_taken),
        cmocka_unit_test(a_stranger_is_not_kept_much_of),
        cmocka_unit_test(failures_are_forgiven_at_their_rate_however_many_there_were),
        cmocka_unit_test(a_home_that_dies_before_enabled_was_told_is_asked_again),
        cmocka_unit_test(who_reads_nothing_from_before_its_bind_is_closed_too),
        cmocka_unit_test(a_lent_listener_is_given_back),
        cmocka_unit_test(a_login_whose_client_has_gone_costs_no_turn),
        cmocka_unit_test(a_wider_bound_lets_go_on_who_waits_below_it),
        cmocka_unit_test(what_the_loop_had_taken_when_reading_paused_is_kept),
        cmocka_unit_test(requests_for_acks_are_charged_like_stanzas),
        cmocka_unit_test(who_is_held_back_by_its_rate_is_not_dead),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
