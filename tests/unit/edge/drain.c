/* Connections are let go at a rate, all of them in the end, and none after it was called off. */
#include <setjmp.h>
#include <stdarg.h>

#include "tests/unit/edge/harness.h"

#include <cmocka.h>

enum { CLIENTS = 100 };
static struct fake_transport *clients[CLIENTS];

static void many_connect(void)
{
    for (size_t i = 0; i < CLIENTS; i++) {
        client_open(LISTENER_C2S);
        clients[i] = w.transport;
        client_sends(HEADER);
    }
    w.transport = NULL, w.conn = NULL;
}

static size_t told(void)
{
    size_t n = 0;
    for (size_t i = 0; i < CLIENTS; i++)
        n += strstr(clients[i]->out, "<system-shutdown ") != NULL;
    return n;
}

static void all_leave(void)
{
    for (size_t i = 0; i < CLIENTS; i++)
        clients[i]->t.sink->closed(&clients[i]->t, ERR_OK);
    world_close();
}

static void at_a_rate_so_many_go_in_so_long(void **state)
{
    world_open(NULL);
    many_connect();
    edge_drain(w.edge, (struct conf_rate){10, 1000});
    run_hooks();
    assert_int_equal(told(), 0);
    pass_ms(1000);
    assert_in_range(told(), 9, 10);
    assert_non_null(strstr(clients[0]->out, "<system-shutdown ")); /* the oldest first */
    pass_ms(3000);
    assert_in_range(told(), 39, 40);
    edge_drain_stop(w.edge);
    pass_ms(10000);
    assert_in_range(told(), 39, 40);
    edge_drain(w.edge, (struct conf_rate){10, 1000}); /* credit is not saved up */
    run_hooks();
    assert_in_range(told(), 39, 40);
    edge_let_all_go(w.edge);
    run_hooks();
    assert_int_equal(told(), CLIENTS);
    all_leave();
}

static void less_than_one_in_a_turn_adds_up(void **state)
{
    world_open((const char *const[]){"limits.preauth.header_timeout=10m",
                                     "limits.preauth.tls_timeout=10m", NULL});
    many_connect();
    edge_drain(w.edge, (struct conf_rate){6, 60000});
    pass_ms(60000);
    assert_in_range(told(), 5, 6);
    all_leave();
}

static void without_a_rate_it_takes_some_turns(void **state)
{
    world_open(NULL);
    many_connect();
    edge_drain(w.edge, (struct conf_rate){0, 0});
    run_hooks();
    assert_in_range(told(), 1, CLIENTS - 1);
    pass_ms(100);
    assert_int_equal(told(), CLIENTS);
    all_leave();
}

static void a_session_is_left_to_be_resumed(void **state)
{
    world_open(NULL);
    client_logs_in();
    client_enables_sm(0);
    edge_drain(w.edge, (struct conf_rate){0, 0});
    turn();
    struct sent_frame *detach = last_frame(FRAME_DETACH);
    assert_non_null(detach);
    assert_int_equal(detach->f.reason, ERR_STREAM_SYSTEM_SHUTDOWN);
    assert_null(last_frame(FRAME_END));
    assert_true(got(received(), "<system-shutdown "));
    world_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(at_a_rate_so_many_go_in_so_long),
        cmocka_unit_test(less_than_one_in_a_turn_adds_up),
        cmocka_unit_test(without_a_rate_it_takes_some_turns),
        cmocka_unit_test(a_session_is_left_to_be_resumed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
