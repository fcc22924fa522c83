/* What those who come are given: a share of each turn, a place in line, or a word when to come
 * back (admit.h). */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>

#include "tests/unit/edge/harness.h"

#include <cmocka.h>

#define AUTH \
    "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' " \
    "mechanism='SCRAM-SHA-1'>biwsbj1qdWxpZXQscj1hYmM=</auth>"

static bool loop_looks(void) { return the_source->poll(the_source); }

static void handshakes_get_their_share_of_a_turn_and_no_more(void **state)
{
    world_open(NULL);
    handshakes_in_line = 100;
    assert_true(loop_looks());
    assert_int_equal(handshakes_done, ADMIT_TURN_US / handshake_us);
    handshakes_done = 0, handshake_us = 300 * 1000;
    assert_true(loop_looks());
    assert_int_equal(handshakes_done, 1); /* one at least, whatever it takes */
    world_close();
}

/* The loop asks twice when it is about to wait: whether it may, and then it comes back at once. */
static void a_loop_that_is_about_to_sleep_is_told_of_the_line_and_does_no_work(void **state)
{
    world_open(NULL);
    handshakes_in_line = 100;
    the_source->sleep(the_source, true);
    assert_true(loop_looks());
    assert_int_equal(handshakes_done, 0);
    the_source->sleep(the_source, false);
    handshakes_in_line = 0;
    assert_false(loop_looks());
    world_close();
}

static void accept_one(void)
{
    struct accept_op *a = accepts[0];
    accept_n--;
    memmove(accepts, accepts + 1, accept_n * sizeof *accepts);
    struct sockaddr_in *in = (void *)&a->address;
    in->sin_family = AF_INET, in->sin_addr.s_addr = htonl(0x7f000001);
    a->op.done(&a->op, -ECONNABORTED); /* the peer has gone meanwhile: nothing to look after */
}

static void accepting_pauses_while_the_line_is_long(void **state)
{
    world_open(NULL);
    accept_n = 0;
    edge_listen(w.edge, LISTENER_C2S_TLS, 0, open("/dev/null", O_RDONLY));
    size_t all = accept_n;
    accept_one();
    assert_int_equal(accept_n, all); /* the next one is asked for */

    handshakes_in_line = ADMIT_LINE_US / 200 + 10;
    loop_looks();
    assert_false(admit_is_open(w.edge));
    assert_int_equal(w.metrics.value[METRIC_limit_logins_concurrent], 1);
    assert_int_equal(w.metrics.value[METRIC_logins_waiting], handshakes_in_line);
    accept_one(), accept_one();
    assert_int_equal(accept_n, all - 2);

    while (handshakes_in_line >= ADMIT_LINE_US / 200 / 2)
        assert_int_equal(accept_n, all - 2), loop_looks();
    assert_true(admit_is_open(w.edge));
    assert_int_equal(accept_n, all);
    while (loop_looks())
        ;
    edge_unlisten(w.edge, 0);
    while (accept_n) {
        struct op *op = &accepts[--accept_n]->op;
        op->done(op, -ECANCELED);
    }
    world_close();
}

/* Measured: what a handshake costs here decides how many may wait. */
static void dear_handshakes_make_a_shorter_line(void **state)
{
    world_open(NULL);
    handshake_us = 2000;
    handshakes_in_line = 60;
    while (loop_looks())
        ;
    handshakes_in_line = ADMIT_LINE_US / 2000 + 10;
    loop_looks();
    assert_false(admit_is_open(w.edge));
    handshakes_in_line = 0;
    loop_looks();
    assert_true(admit_is_open(w.edge));
    world_close();
}

static struct fake_transport *one_more(void)
{
    client_open(LISTENER_C2S_TLS);
    client_sends(HEADER);
    received();
    client_sends(AUTH);
    return w.transport;
}

static void is_gone(struct fake_transport *t)
{
    if (t == w.transport)
        w.conn = NULL, w.transport = NULL;
    t->t.sink->ended(&t->t);
    t->t.sink->closed(&t->t, ERR_OK);
}

static void accepting_pauses_while_the_store_keeps_logins_waiting(void **state)
{
    enum { CLIENTS = ADMIT_LOGINS + 1 };
    struct fake_transport *t[CLIENTS];
    world_open((const char *const[]){"limits.logins_concurrent=1", NULL});
    for (int i = 0; i < CLIENTS; i++) {
        assert_true(admit_is_open(w.edge));
        t[i] = one_more();
    }
    assert_false(admit_is_open(w.edge));
    for (int i = 0; i < CLIENTS / 2; i++)
        run_store(ERR_OK), turn();
    assert_false(admit_is_open(w.edge));
    run_store(ERR_OK), turn();
    assert_true(admit_is_open(w.edge));
    for (int i = 0; i < CLIENTS - 1; i++)
        is_gone(t[i]);
    world_close();
}

/* "try again in 27 seconds", and 27. */
static unsigned told_seconds(const char *text)
{
    const char *in = strstr(text, "try again in ");
    assert_non_null(in);
    return (unsigned)atoi(in + 13);
}

static void a_client_beyond_the_line_is_told_when_to_come_back(void **state)
{
    world_open((const char *const[]){"limits.logins_concurrent=1", "limits.logins_queue_max=0",
                                     "limits.login_wait_max=30s", NULL});
    unsigned least = UINT32_MAX, most = 0;
    for (int i = 0; i < 40; i++) {
        client_open(LISTENER_C2S_TLS);
        client_sends(HEADER);
        const char *text = w.transport->out;
        assert_true(got(text, "<stream:stream "));
        assert_true(got(text, "<stream:error><resource-constraint "
                              "xmlns='urn:ietf:params:xml:ns:xmpp-streams'/><text "));
        assert_true(got(text, "</stream:error></stream:stream>"));
        unsigned s = told_seconds(text);
        least = s < least ? s : least, most = s > most ? s : most;
        is_gone(w.transport);
    }
    assert_in_range(least, 15, 20); /* each a time of its own */
    assert_in_range(most, 40, 46);
    assert_int_equal(w.metrics.value[METRIC_logins_deferred_full], 40);
    assert_int_equal(w.metrics.value[METRIC_limit_logins_queue], 40);
    world_close();
}

static void who_has_logged_in_is_not_sent_away_for_others(void **state)
{
    world_open(NULL);
    client_open(LISTENER_C2S_TLS);
    client_authenticates();
    received();
    ((struct conf *)w.node.conf)->limits_logins_queue_max = 0;
    client_sends(HEADER);
    assert_true(got(received(), "<bind "));
    world_close();
}

/* A store that is away for a minute must not leave a house behind one address locked out. */
static void a_login_that_the_store_does_not_answer_is_nobodys_failure(void **state)
{
    world_open(
        (const char *const[]){"auth.address_failure_rate=1/h", "limits.exempt_from={}", NULL});
    for (int i = 0; i < 5; i++) {
        one_more();
        run_store(ERR_AWAY);
        turn();
        const char *text = received();
        assert_true(got(text, "<temporary-auth-failure/><text xml:lang='en'>"));
        assert_true(got(text, "<stream:error><resource-constraint "));
        assert_in_range(told_seconds(text), 1, 600);
        is_gone(w.transport);
    }
    assert_int_equal(w.metrics.value[METRIC_logins_deferred_store], 5);
    client_logs_in();
    assert_int_equal(w.metrics.value[METRIC_AT(logins, SASL_PLAIN, 0)], 1);
    world_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(handshakes_get_their_share_of_a_turn_and_no_more),
        cmocka_unit_test(a_loop_that_is_about_to_sleep_is_told_of_the_line_and_does_no_work),
        cmocka_unit_test(accepting_pauses_while_the_line_is_long),
        cmocka_unit_test(dear_handshakes_make_a_shorter_line),
        cmocka_unit_test(accepting_pauses_while_the_store_keeps_logins_waiting),
        cmocka_unit_test(a_client_beyond_the_line_is_told_when_to_come_back),
        cmocka_unit_test(who_has_logged_in_is_not_sent_away_for_others),
        cmocka_unit_test(a_login_that_the_store_does_not_answer_is_nobodys_failure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
