/* What a client does that no honest one does, or only in a hurry: acks before it can know, leaving in
 * the middle of things, filling what has no bound. */
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
    assert_int_equal(w.conn->session->out_count, 1);
    client_sends("<a " SM " h='3'/>");
    assert_int_equal(w.conn->session->out_count, 0);
    client_sends("<a " SM " h='4'/>");
    assert_true(got(received(), "<handled-count-too-high xmlns='urn:xmpp:sm:3' h='4' "
                                "send-count='3'/>"));
    world_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_ack_of_what_the_socket_has_not_taken_does_no_harm),
        cmocka_unit_test(the_count_of_acks_wraps_at_32_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
