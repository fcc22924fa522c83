/* A balancer's connection: its header in every piece, what follows it, whose address counts, and
 * how it is refused. */
#include <setjmp.h>
#include <stdarg.h>

#include "node/edge/proxied.h"
#include "tests/unit/edge/harness.h"

#include <cmocka.h>

#define V1 "PROXY TCP4 203.0.113.9 10.0.0.1 40000 5222\r\n"
#define V2_OF(a, b, c, d) "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" a b c d "\x0a\0\0\1\x9c\x40\x14\x66"
#define V2 V2_OF("\xcb", "\0", "\x71", "\x09")
#define V2_LOCAL "\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"

static void balancer_connects(const char *address, enum listener_kind kind)
{
    w.transport = fake_new();
    strcpy(w.transport->address, address);
    proxied_open(w.edge, kind, &w.transport->t);
    assert_int_equal(w.edge->conn_count, 1);
    assert_int_equal(w.edge->preauth_count, 1);
}

static void brings(struct fake_transport *t, str bytes)
{
    if (!t->closing)
        t->t.sink->bytes(&t->t, bytes.p, bytes.n);
    run_hooks();
}

/* The conn that the header has made; NULL: none. */
static struct conn *made(void)
{
    w.conn = list_empty(&w.edge->conns) ? NULL : list_first(&w.edge->conns, struct conn, link);
    return w.conn;
}

static bool is_of(struct conn *c, const char *address)
{
    return str_starts(conn_address_text(c, &w.turn), str_of(address));
}

/* The transport's last word, as its loop would say it. */
static void gone(void)
{
    struct fake_transport *t = w.transport;
    w.transport = NULL, w.conn = NULL;
    t->t.sink->closed(&t->t, ERR_OK);
}

static void refused(void)
{
    assert_true(w.transport->closed);
    assert_null(made());
    gone();
    assert_int_equal(w.edge->conn_count, 0);
    assert_int_equal(w.edge->preauth_count, 0);
    assert_true(list_empty(&w.timers));
    world_close();
}

static void header_and_stream_cut_anywhere(str header)
{
    char all[512];
    size_t n = header.n + strlen(HEADER);
    memcpy(all, header.p, header.n);
    memcpy(all + header.n, HEADER, strlen(HEADER));
    for (size_t cut = 0; cut <= n; cut++) {
        world_open(NULL);
        balancer_connects("10.0.0.7", LISTENER_C2S);
        if (cut)
            brings(w.transport, str_from(all, cut));
        if (cut < n)
            brings(w.transport, str_from(all + cut, n - cut));
        assert_non_null(made());
        turn();
        assert_true(is_of(w.conn, "203.0.113.9:40000"));
        assert_true(got(received(), "<stream:features>"));
        world_close();
    }
}

static void a_header_may_be_cut_anywhere(void **state)
{
    header_and_stream_cut_anywhere(STR(V1));
    header_and_stream_cut_anywhere(STR(V2));
}

static void a_header_may_come_byte_by_byte(void **state)
{
    static const char all[] = V2 HEADER;
    world_open(NULL);
    balancer_connects("10.0.0.7", LISTENER_C2S);
    for (size_t i = 0; i < sizeof all - 1; i++) {
        assert_true((made() != NULL) == (i >= sizeof V2 - 1));
        brings(w.transport, str_from(all + i, 1));
    }
    turn();
    assert_true(got(received(), "<stream:features>"));
    world_close();
}

static void what_follows_the_header_is_tls_where_that_comes_first(void **state)
{
    world_open(NULL);
    balancer_connects("10.0.0.7", LISTENER_C2S_TLS);
    tls_bytes_n = 0;
    brings(w.transport, STR(V2 "\x16\x03\x01hello"));
    assert_non_null(made());
    assert_int_equal(tls_bytes_n, 8);
    world_close();
}

static void without_a_header_it_is_closed_at_once(void **state)
{
    static const str bads[] = {STR("<"), STR("\x16\x03\x01"), STR("PROXY TCP4 x\r\n"),
                               STR("\r\n\r\n\0\r\nQUIT\n\x21\x11\x02\x09")};
    for (size_t i = 0; i < sizeof bads / sizeof *bads; i++) {
        world_open(NULL);
        balancer_connects("10.0.0.7", LISTENER_C2S);
        brings(w.transport, bads[i]);
        assert_int_equal(metric_get(&w.metrics, METRIC_AT(proxy_rejected, LISTENER_C2S, 0)), 1);
        refused();
    }
}

static void a_header_that_does_not_come_is_not_waited_for(void **state)
{
    world_open((const char *const[]){"limits.preauth.header_timeout=2s", NULL});
    balancer_connects("10.0.0.7", LISTENER_C2S);
    brings(w.transport, STR("PROXY TCP4 "));
    pass_ms(1999);
    assert_false(w.transport->closed);
    pass_ms(1);
    refused();
}

static void the_time_to_log_in_counts_from_the_connection(void **state)
{
    world_open((const char *const[]){"limits.preauth.header_timeout=2s", NULL});
    balancer_connects("10.0.0.7", LISTENER_C2S);
    pass_ms(1500);
    brings(w.transport, STR(V1));
    assert_non_null(made());
    turn();
    pass_ms(499);
    assert_false(w.conn->ending);
    pass_ms(1);
    assert_true(w.conn->ending);
    world_close();
}

static void a_bare_look_is_no_fault(void **state)
{
    world_open(NULL);
    balancer_connects("10.0.0.7", LISTENER_C2S);
    w.transport->t.sink->ended(&w.transport->t);
    assert_int_equal(metric_get(&w.metrics, METRIC_AT(proxy_rejected, LISTENER_C2S, 0)), 0);
    refused();
}

static void the_node_stops_without_waiting_for_headers(void **state)
{
    world_open(NULL);
    balancer_connects("10.0.0.7", LISTENER_C2S);
    edge_stop(w.edge, on_stopped, NULL);
    assert_true(w.transport->closed);
    gone();
    turn();
    assert_int_equal(w.stop_calls, 1);
    w.stop_calls = 0;
    world_close();
}

static void limits_count_who_is_named_not_who_connects(void **state)
{
    world_open((const char *const[]){"limits.address_connections_max=1", NULL});
    balancer_connects("10.0.0.7", LISTENER_C2S);
    brings(w.transport, STR(V1));
    assert_non_null(made());
    struct fake_transport *first = w.transport;
    w.transport = fake_new();
    proxied_open(w.edge, LISTENER_C2S, &w.transport->t);
    brings(w.transport, STR(V2)); /* the same client */
    assert_true(w.transport->closed);
    gone();
    w.transport = fake_new();
    proxied_open(w.edge, LISTENER_C2S, &w.transport->t);
    brings(w.transport, STR(V2_OF("\xcb", "\0", "\x71", "\x0a")));
    assert_false(w.transport->closed);
    assert_int_equal(w.edge->conn_count, 2);
    w.transport->t.sink->closed(&w.transport->t, ERR_OK);
    w.transport = first, made();
    world_close();
}

/* plain_from and exempt_from are those of the balancer's and the claimed address. */
static void privileges(const char *balancer, str header, bool plain, bool exempt)
{
    world_open((const char *const[]){"listen.c2s.plain_from={127.0.0.0/8, 10.0.0.0/8}",
                                     "limits.exempt_from={127.0.0.0/8, 10.0.0.0/8}", NULL});
    balancer_connects(balancer, LISTENER_C2S);
    brings(w.transport, header);
    assert_non_null(made());
    assert_int_equal(stream_plain_allowed(w.conn), plain);
    assert_int_equal(w.conn->exempt, exempt);
    assert_int_equal(w.conn->address == NULL, exempt);
    edge_reload(w.edge);
    assert_int_equal(w.conn->exempt, exempt);
    world_close();
}

static void a_claimed_address_gives_what_it_means_to_us(void **state)
{
    const str loopback = STR(V2_OF("\x7f", "\0", "\0", "\1"));
    const str inside = STR(V2_OF("\x0a", "\1", "\2", "\3"));
    privileges("10.0.0.7", STR(V1), false, false); /* the balancer's network is not the client's */
    privileges("10.0.0.7", inside, true, true);
    privileges("10.0.0.7", loopback, false, false); /* its loopback, not ours */
    privileges("10.0.0.7", STR("PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n"), false, false);
    privileges("127.0.0.1", loopback, true, true); /* of this machine */
    privileges("127.0.0.1", STR(V1), false, false);
    privileges("127.0.0.1", STR(V2_LOCAL), false, false); /* nobody is named */
    privileges("10.0.0.7", STR("PROXY UNKNOWN\r\n"), false, false);
}

static void who_names_nobody_has_the_balancers_address(void **state)
{
    world_open(NULL);
    balancer_connects("10.0.0.7", LISTENER_C2S);
    brings(w.transport, STR(V2_LOCAL HEADER));
    assert_non_null(made());
    assert_true(is_of(w.conn, "10.0.0.7:"));
    world_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_header_may_be_cut_anywhere),
        cmocka_unit_test(a_header_may_come_byte_by_byte),
        cmocka_unit_test(what_follows_the_header_is_tls_where_that_comes_first),
        cmocka_unit_test(without_a_header_it_is_closed_at_once),
        cmocka_unit_test(a_header_that_does_not_come_is_not_waited_for),
        cmocka_unit_test(the_time_to_log_in_counts_from_the_connection),
        cmocka_unit_test(a_bare_look_is_no_fault),
        cmocka_unit_test(the_node_stops_without_waiting_for_headers),
        cmocka_unit_test(limits_count_who_is_named_not_who_connects),
        cmocka_unit_test(a_claimed_address_gives_what_it_means_to_us),
        cmocka_unit_test(who_names_nobody_has_the_balancers_address),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
