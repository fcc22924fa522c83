/* The way to a bound session, and everything that may come at the wrong time (xmpp.md 2, 6, 10). */
#include <setjmp.h>
#include <stdarg.h>

#include "tests/unit/edge/harness.h"

#include <cmocka.h>

enum stage { AT_START, AT_TLS, AT_LOGIN, AT_BIND, AT_BOUND };

static void go_to(enum stage stage)
{
    world_open(NULL);
    switch (stage) {
    case AT_START: client_open(LISTENER_C2S); break;
    case AT_TLS: client_open(LISTENER_C2S), client_sends(HEADER); break;
    case AT_LOGIN: client_open(LISTENER_C2S_TLS), client_sends(HEADER); break;
    case AT_BIND:
        client_open(LISTENER_C2S_TLS), client_authenticates(), client_sends(HEADER);
        break;
    case AT_BOUND: client_logs_in(); break;
    }
    received();
}

#define STREAM_ERROR(c) "<stream:error><" c " xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>"
#define SASL_NS "xmlns='urn:ietf:params:xml:ns:xmpp-sasl'"
#define SM_FAILED "<failed xmlns='urn:xmpp:sm:3'><unexpected-request"
#define OPEN(attrs) "<stream:stream " attrs " xmlns:stream='http://etherx.jabber.org/streams'>"

static const struct {
    enum stage stage;
    const char *send, *expect;
    bool ends;
} cases[] = {
    /* headers */
    {AT_START, OPEN("version='1.0' xmlns='jabber:client'"), STREAM_ERROR("improper-addressing"), 1},
    {AT_START, OPEN("to='elsewhere.example' version='1.0' xmlns='jabber:client'"),
     STREAM_ERROR("host-unknown"), 1},
    {AT_START, OPEN("to='juliet@localhost' version='1.0' xmlns='jabber:client'"),
     STREAM_ERROR("host-unknown"), 1},
    {AT_START, OPEN("to='localhost' version='1.0' xmlns='jabber:server'"),
     STREAM_ERROR("invalid-namespace"), 1},
    {AT_START,
     "<stream:stream to='localhost' version='1.0' xmlns='jabber:client' "
     "xmlns:stream='urn:wrong'>",
     STREAM_ERROR("invalid-namespace"), 1},
    {AT_START, OPEN("to='localhost' xmlns='jabber:client'"), STREAM_ERROR("unsupported-version"),
     1},
    {AT_START, OPEN("to='localhost' version='0.9' xmlns='jabber:client'"),
     STREAM_ERROR("unsupported-version"), 1},
    {AT_START, "<?xml version='1.0' encoding='latin1'?>" OPEN("to='localhost' version='1.0'"),
     STREAM_ERROR("unsupported-encoding"), 1},
    {AT_START, "<?xml version='1.0'?><?xml version='1.0'?>", STREAM_ERROR("restricted-xml"), 1},
    {AT_START, "<?xml version='1.0'?>\n<?", STREAM_ERROR("restricted-xml"), 1},
    {AT_START, "\n<?xml version='1.0'?>" OPEN("to='localhost' xmlns='jabber:client'"),
     STREAM_ERROR("unsupported-version"), 1},
    {AT_START, "<!DOCTYPE x>", STREAM_ERROR("restricted-xml"), 1},
    /* TLS is required */
    {AT_TLS, "<iq type='get' id='1'/>", STREAM_ERROR("policy-violation"), 1},
    {AT_TLS, "<auth " SASL_NS " mechanism='SCRAM-SHA-1'>biws</auth>",
     STREAM_ERROR("policy-violation"), 1},
    {AT_TLS, "<r " SM "/>", STREAM_ERROR("policy-violation"), 1},
    /* login */
    {AT_LOGIN, "<message/>", STREAM_ERROR("not-authorized"), 1},
    {AT_LOGIN, "<iq type='get' id='1'><query xmlns='jabber:iq:register'/></iq>",
     STREAM_ERROR("not-authorized"), 1},
    {AT_LOGIN, "<enable " SM "/>", SM_FAILED, 0},
    {AT_LOGIN, "<resume " SM " h='1' previd='x'/>", SM_FAILED, 0},
    {AT_LOGIN, "<!-- x -->", STREAM_ERROR("restricted-xml"), 1},
    {AT_LOGIN, "text", STREAM_ERROR("bad-format"), 1},
    {AT_LOGIN, "<a></b>", STREAM_ERROR("not-well-formed"), 1},
    {AT_LOGIN, "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>",
     "<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>", 1},
    {AT_LOGIN, "<stream:message/>", STREAM_ERROR("not-authorized"), 1},
    {AT_LOGIN, "</stream:stream>", "</stream:stream>", 1},
    /* bind */
    {AT_BIND, "<message to='romeo@localhost'/>", STREAM_ERROR("not-authorized"), 1},
    {AT_BIND, "<iq type='get' id='1' to='romeo@localhost'><q xmlns='x'/></iq>",
     STREAM_ERROR("not-authorized"), 1},
    {AT_BIND, "<iq type='get' id='1' to='localhost'><q xmlns='x'/></iq>",
     "<iq type='error' id='1'><error type='auth'>", 0},
    {AT_BIND, "<auth " SASL_NS " mechanism='PLAIN'/>", STREAM_ERROR("not-authorized"), 1},
    {AT_BIND, "<enable " SM "/>", SM_FAILED, 0},
    {AT_BIND, "<r " SM "/>", SM_FAILED, 0},
    {AT_BIND, "<resume " SM " h='1' previd='nonsense'/>", "<item-not-found ", 0},
    {AT_BIND, "<other xmlns='urn:x'/>", STREAM_ERROR("unsupported-stanza-type"), 1},
    /* bound */
    {AT_BOUND, "<other xmlns='urn:x'/>", STREAM_ERROR("unsupported-stanza-type"), 1},
    {AT_BOUND, "<r " SM "/>", SM_FAILED, 0},
    {AT_BOUND, "<a " SM " h='0'/>", SM_FAILED, 0},
    {AT_BOUND, "<resume " SM " h='0' previd='x'/>", SM_FAILED, 0},
    {AT_BOUND, "<c:message xmlns:c='jabber:client'/>", STREAM_ERROR("bad-namespace-prefix"), 1},
    {AT_BOUND, "<stream:stream to='localhost' version='1.0'>", STREAM_ERROR("bad-format"), 1},
    {AT_BOUND, "<stream xmlns='http://etherx.jabber.org/streams'>", STREAM_ERROR("bad-format"), 1},
    {AT_BOUND, "<s:stream xmlns:s='http://etherx.jabber.org/streams'>", STREAM_ERROR("bad-format"),
     1},
    {AT_BOUND, "text", STREAM_ERROR("bad-format"), 1},
    {AT_BOUND, "</stream:stream>", "</stream:stream>", 1},
    {AT_BOUND, "<iq type='set' id='s'><session xmlns='urn:ietf:params:xml:ns:xmpp-session'/></iq>",
     "<iq type='result' id='s'/>", 0},
};

static void each_event_at_each_step_gets_the_answer_of_the_table(void **state)
{
    for (size_t i = 0; i < array_len(cases); i++) {
        go_to(cases[i].stage);
        client_sends(cases[i].send);
        struct fake_transport *t = w.transport;
        bool ends = t->closing;
        const char *text = received();
        if (!got(text, cases[i].expect) || ends != cases[i].ends)
            fail_msg("case %zu: %s", i, cases[i].send);
        if (ends)
            assert_non_null(strstr(text, "</stream:stream>"));
        world_close();
    }
}

static void an_error_of_the_peer_ends_the_stream_and_is_not_answered_with_one(void **state)
{
    static const enum stage stages[] = {AT_TLS, AT_LOGIN, AT_BIND, AT_BOUND};
    for (size_t i = 0; i < array_len(stages); i++) {
        go_to(stages[i]);
        client_sends(STREAM_ERROR("reset") "</stream:error>");
        struct fake_transport *t = w.transport;
        assert_true(t->closing);
        const char *text = received();
        assert_true(got(text, "</stream:stream>"));
        assert_null(strstr(text, "<stream:error>"));
        world_close();
    }
}

static void an_error_before_the_header_is_preceded_by_ours(void **state)
{
    go_to(AT_START);
    client_sends(OPEN("version='1.0' xmlns='jabber:client'"));
    const char *text = received();
    assert_true(got(text, "<?xml version='1.0'?><stream:stream "));
    assert_true(strstr(text, "<stream:stream ") < strstr(text, "<stream:error>"));
    world_close();
}

static void http_on_the_port_is_closed_without_a_word(void **state)
{
    go_to(AT_START);
    client_sends("GET / HTTP/1.1\r\n\r\n");
    assert_null(w.transport);
    world_close();
}

static void features_without_tls_are_starttls_alone(void **state)
{
    world_open(NULL);
    client_open(LISTENER_C2S);
    client_sends(HEADER);
    const char *text = received();
    assert_true(got(text, "<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'>"
                          "<required/></starttls></stream:features>"));
    world_close();
}

static void plain_from_lets_its_networks_log_in_without_tls_but_not_by_plain(void **state)
{
    world_open((const char *const[]){"listen.c2s.plain_from={192.0.2.0/24}", NULL});
    client_open(LISTENER_C2S);
    client_sends(HEADER);
    const char *text = received();
    assert_true(got(text, "<mechanism>SCRAM-SHA-256</mechanism>"));
    assert_null(strstr(text, "PLUS"));
    assert_null(strstr(text, "<mechanism>PLAIN"));
    world_close();
}

static void login_and_bind_lead_to_a_session(void **state)
{
    world_open(NULL);
    client_open(LISTENER_C2S_TLS);
    client_authenticates();
    assert_true(got(received(), "<success "));
    client_sends(HEADER);
    const char *text = received();
    assert_true(got(text, "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>"));
    assert_true(got(text, "<sm xmlns='urn:xmpp:sm:3'/>"));
    client_sends(BIND);
    struct sent_frame *f = last_frame(FRAME_BIND);
    assert_non_null(f);
    assert_true(str_is(f->f.bare, JULIET));
    assert_true(str_is(f->f.resource, "balcony"));
    assert_true(f->keep);
    assert_int_equal(f->peer, ring_home(w.node.ring, STR(JULIET)));
    assert_true(w.transport->paused); /* nothing is read until the home has answered */
    home_sends(&(struct frame){.kind = FRAME_BOUND,
                               .conn = f->f.conn,
                               .sid = sid_of_juliet(),
                               .gen = 1,
                               .text = STR(JULIET "/o'clock")});
    turn();
    assert_true(got(received(), "<iq type='result' id='b1'>"
                                "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>"
                                "<jid>juliet@localhost/o"));
    assert_false(w.transport->paused);
    assert_null(w.conn->negotiation);
    world_close();
}

static void after_login_the_header_names_the_same_host(void **state)
{
    world_open(NULL);
    client_open(LISTENER_C2S_TLS);
    client_authenticates();
    received();
    client_sends(OPEN("to='example.org' version='1.0' xmlns='jabber:client'"));
    assert_true(got(received(), STREAM_ERROR("not-authorized")));
    world_close();
}

static void a_refused_bind_is_told_and_may_be_tried_again(void **state)
{
    go_to(AT_BIND);
    for (int i = 0; i < 2; i++) {
        client_sends(BIND);
        home_sends(&(struct frame){.kind = FRAME_BOUND,
                                   .conn = last_frame(FRAME_BIND)->f.conn,
                                   .reason = ERR_STANZA_RESOURCE_CONSTRAINT});
        turn();
        assert_true(got(received(), "<resource-constraint "));
    }
    assert_int_equal(frame_count(FRAME_BIND), 2);
    world_close();
}

static void a_session_bound_for_a_conn_that_has_gone_is_ended(void **state)
{
    go_to(AT_BIND);
    client_sends(BIND);
    uint64_t number = last_frame(FRAME_BIND)->f.conn;
    w.transport->t.sink->ended(&w.transport->t);
    turn();
    home_sends(&(struct frame){
        .kind = FRAME_BOUND, .conn = number, .sid = 99, .gen = 1, .text = STR(JULIET "/x")});
    assert_non_null(last_frame(FRAME_END));
    assert_int_equal(last_frame(FRAME_END)->f.sid, 99);
    world_close();
}

static void a_failure_is_told_late_and_the_third_ends_the_stream(void **state)
{
    go_to(AT_LOGIN);
    for (int i = 0; i < 3; i++) {
        client_sends("<auth " SASL_NS " mechanism='PLAIN'>AGp1bGlldAB3cm9uZyBwYXNz</auth>");
        run_store(ERR_OK);
        turn();
        assert_string_equal(received(), "");
        pass_ms(1001);
        assert_true(got(received(), "<not-authorized/></failure>"));
        turn();
    }
    assert_true(w.transport->closing);
    world_close();
}

static void a_store_that_is_away_is_a_temporary_failure(void **state)
{
    go_to(AT_LOGIN);
    client_sends("<auth " SASL_NS " mechanism='PLAIN'>AGp1bGlldAB3cm9uZyBwYXNz</auth>");
    run_store(ERR_AWAY);
    run_hooks();
    assert_true(got(received(), "<temporary-auth-failure/>"));
    world_close();
}

static void sasl_oddities_get_their_conditions(void **state)
{
    static const struct {
        const char *send, *expect;
    } odd[] = {
        {"<auth " SASL_NS " mechanism='NOPE'/>", "<invalid-mechanism/>"},
        {"<auth " SASL_NS "/>", "<invalid-mechanism/>"},
        {"<auth " SASL_NS " mechanism='PLAIN'>!!!</auth>", "<incorrect-encoding/>"},
        {"<response " SASL_NS "/>", "<malformed-request/>"},
        {"<abort " SASL_NS "/>", "<aborted/>"},
    };
    for (size_t i = 0; i < array_len(odd); i++) {
        go_to(AT_LOGIN);
        client_sends(odd[i].send);
        pass_ms(1001);
        assert_true(got(received(), odd[i].expect));
        world_close();
    }
}

static void logins_beyond_the_concurrent_ones_wait_in_line(void **state)
{
    enum { CLIENTS = 4 };
    static const char auth[] =
        "<auth " SASL_NS " mechanism='SCRAM-SHA-1'>biwsbj1qdWxpZXQscj1hYmM=</auth>";
    struct fake_transport *t[CLIENTS];
    world_open((const char *const[]){"limits.logins_concurrent=1", "limits.logins_queue_max=2",
                                     "auth.failure_delay=0s", NULL});
    for (int i = 0; i < CLIENTS; i++) {
        client_open(LISTENER_C2S_TLS);
        client_sends(HEADER);
        received();
        t[i] = w.transport;
    }
    for (int i = 0; i < CLIENTS; i++)
        t[i]->t.sink->bytes(&t[i]->t, auth, sizeof auth - 1);
    run_hooks();
    assert_int_equal(w.store_n, 1);
    assert_true(got(t[3]->out, "<temporary-auth-failure/>")); /* the line is full */
    run_store(ERR_OK);
    run_hooks();
    assert_true(got(t[0]->out, "<challenge "));
    assert_int_equal(w.store_n, 1); /* the next one's turn */
    pass_ms(30001);
    assert_true(got(t[2]->out, "<temporary-auth-failure/>")); /* waited for too long */
    assert_int_equal(w.edge->logins_waiting_count, 0);
    for (int i = 0; i < CLIENTS - 1; i++) { /* the world closes the last one */
        t[i]->t.sink->ended(&t[i]->t);
        t[i]->t.sink->closed(&t[i]->t, ERR_OK);
    }
    world_close();
}

static void plain_in_clear_is_told_that_encryption_is_required(void **state)
{
    go_to(AT_TLS);
    client_sends("<auth " SASL_NS " mechanism='PLAIN'>AGEAYg==</auth>");
    pass_ms(1001);
    assert_true(got(received(), "<encryption-required/>"));
    world_close();
}

static void bytes_behind_starttls_are_never_read(void **state)
{
    world_open(NULL);
    client_open(LISTENER_C2S);
    client_sends(HEADER);
    received();
    tls_bytes_n = 0;
    struct fake_transport *low = w.transport;
    client_sends_bytes("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/><message/>", 62);
    client_sends_bytes("<injected/>", 11); /* before <proceed/> has left */
    run_hooks();
    assert_true(strstr(low->out, "<proceed "));
    low->t.sink->bytes(&low->t, "hello", 5); /* the ClientHello may be quicker than written() */
    turn();
    assert_ptr_not_equal(w.transport, low);
    assert_int_equal(tls_bytes_n, 5);
    w.transport->t.sink->opened(&w.transport->t);
    client_sends(HEADER);
    assert_true(got(received(), "<mechanism>PLAIN</mechanism>"));
    world_close();
}

static void who_dawdles_is_timed_out(void **state)
{
    go_to(AT_START);
    pass_ms(9000);
    assert_string_equal(received(), "");
    pass_ms(1001);
    assert_true(got(received(), STREAM_ERROR("connection-timeout")));
    world_close();
    go_to(AT_BIND);
    pass_ms(60001);
    assert_true(got(received(), STREAM_ERROR("connection-timeout")));
    world_close();
}

static void registration_is_offered_only_where_it_is_open(void **state)
{
    world_open((const char *const[]){"host[localhost].registration=open", NULL});
    client_open(LISTENER_C2S_TLS);
    client_sends(HEADER);
    assert_true(got(received(), "<register xmlns='http://jabber.org/features/iq-register'/>"));
    client_sends("<iq type='set' id='r'><query xmlns='jabber:iq:register'>"
                 "<username>nurse</username><password>a long enough one</password></query></iq>");
    assert_int_equal(w.store_n, 1);
    assert_string_equal(w.store[0].owner, "nurse@localhost");
    run_store(ERR_OK);
    turn();
    assert_true(got(received(), "<iq type='result' id='r'/>"));
    world_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_event_at_each_step_gets_the_answer_of_the_table),
        cmocka_unit_test(an_error_of_the_peer_ends_the_stream_and_is_not_answered_with_one),
        cmocka_unit_test(an_error_before_the_header_is_preceded_by_ours),
        cmocka_unit_test(http_on_the_port_is_closed_without_a_word),
        cmocka_unit_test(features_without_tls_are_starttls_alone),
        cmocka_unit_test(plain_from_lets_its_networks_log_in_without_tls_but_not_by_plain),
        cmocka_unit_test(login_and_bind_lead_to_a_session),
        cmocka_unit_test(after_login_the_header_names_the_same_host),
        cmocka_unit_test(a_refused_bind_is_told_and_may_be_tried_again),
        cmocka_unit_test(a_session_bound_for_a_conn_that_has_gone_is_ended),
        cmocka_unit_test(a_failure_is_told_late_and_the_third_ends_the_stream),
        cmocka_unit_test(a_store_that_is_away_is_a_temporary_failure),
        cmocka_unit_test(sasl_oddities_get_their_conditions),
        cmocka_unit_test(logins_beyond_the_concurrent_ones_wait_in_line),
        cmocka_unit_test(plain_in_clear_is_told_that_encryption_is_required),
        cmocka_unit_test(bytes_behind_starttls_are_never_read),
        cmocka_unit_test(who_dawdles_is_timed_out),
        cmocka_unit_test(registration_is_offered_only_where_it_is_open),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
