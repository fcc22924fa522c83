/* Bytes in and out: partial items, what the edge splices into a stanza, limits, coalescing. */
#include <setjmp.h>
#include <stdarg.h>

#include "tests/unit/edge/harness.h"

#include <cmocka.h>

static void in_is(const char *send, enum stanza_kind kind, const char *xml, const char *to,
                  err reason)
{
    client_sends(send);
    struct sent_frame *f = last_frame(FRAME_IN);
    assert_non_null(f);
    str got_xml = stanza_xml(f->f.stanza);
    if (!str_eq(got_xml, str_of(xml)) || !str_eq(stanza_to(f->f.stanza), str_of(to)))
        fail_msg("%s\n  gave %.*s\n  to %.*s", send, STR_ARG(got_xml),
                 STR_ARG(stanza_to(f->f.stanza)));
    assert_int_equal(f->f.stanza->kind, kind);
    assert_int_equal(f->f.reason, reason);
    assert_int_equal(f->f.fp, stanza_fp(f->f.stanza));
    settle(0);
    forget_frames();
}

#define FROM " from='juliet@localhost/balcony'"
#define BARE " from='juliet@localhost'"
#define LANG " xml:lang='de'"

static void a_stanza_is_spliced_not_serialised(void **state)
{
    world_open(NULL);
    client_logs_in();
    in_is("<message to='romeo@localhost'><body>a &amp; b</body></message>", STANZA_MESSAGE,
          "<message" FROM LANG " to='romeo@localhost'><body>a &amp; b</body></message>",
          "romeo@localhost", ERR_OK);
    in_is("<message  xml:lang='en' from='evil@x'\n to='ROMEO@localhost/Orchard'/>", STANZA_MESSAGE,
          "<message" FROM "  xml:lang='en'\n to='romeo@localhost/Orchard'/>",
          "romeo@localhost/Orchard", ERR_OK);
    in_is("<message from='evil@x' to='a@localhost'/>", STANZA_MESSAGE,
          "<message" FROM LANG " to='a@localhost'/>", "a@localhost", ERR_OK);
    in_is("<message to='ROMEO@localhost' from='evil@x' id='1'/>", STANZA_MESSAGE,
          "<message" FROM LANG " to='romeo@localhost' id='1'/>", "romeo@localhost", ERR_OK);
    in_is("<message to='a@localhost/o&apos;c'/>", STANZA_MESSAGE,
          "<message" FROM LANG " to='a@localhost/o&apos;c'/>", "a@localhost/o'c", ERR_OK);
    in_is("<presence type='subscribe' to='romeo@localhost'/>", STANZA_PRESENCE,
          "<presence" BARE LANG " type='subscribe' to='romeo@localhost'/>", "romeo@localhost",
          ERR_OK);
    in_is("<presence/>", STANZA_PRESENCE, "<presence" FROM LANG "/>", "", ERR_OK);
    in_is("<message/>", STANZA_MESSAGE, "<message" FROM LANG "/>", JULIET, ERR_OK);
    in_is("<iq type='get' id='1'><q xmlns='x'/></iq>", STANZA_IQ,
          "<iq" FROM LANG " type='get' id='1'><q xmlns='x'/></iq>", JULIET, ERR_OK);
    in_is("<message><stream:x/></message>", STANZA_MESSAGE,
          "<message" FROM LANG " xmlns:stream='http://etherx.jabber.org/streams'>"
          "<stream:x/></message>",
          JULIET, ERR_OK);
    world_close();
}

static void bad_shapes_go_to_the_home_with_their_error(void **state)
{
    world_open(NULL);
    client_logs_in();
    in_is("<message to='@'/>", STANZA_MESSAGE, "<message" FROM LANG " to='@'/>", "",
          ERR_STANZA_JID_MALFORMED);
    in_is("<message to=''/>", STANZA_MESSAGE, "<message" FROM LANG " to=''/>", "",
          ERR_STANZA_JID_MALFORMED);
    in_is("<iq type='get'><q xmlns='x'/></iq>", STANZA_IQ,
          "<iq" FROM LANG " type='get'><q xmlns='x'/></iq>", "", ERR_STANZA_BAD_REQUEST);
    in_is("<iq type='get' id='1'/>", STANZA_IQ, "<iq" FROM LANG " type='get' id='1'/>", "",
          ERR_STANZA_BAD_REQUEST);
    in_is("<iq type='set' id='1'><a xmlns='x'/><a xmlns='x'/></iq>", STANZA_IQ,
          "<iq" FROM LANG " type='set' id='1'><a xmlns='x'/><a xmlns='x'/></iq>", "",
          ERR_STANZA_BAD_REQUEST);
    in_is("<iq type='what' id='1'/>", STANZA_IQ, "<iq" FROM LANG " type='what' id='1'/>", "",
          ERR_STANZA_BAD_REQUEST);
    in_is("<iq id='1'/>", STANZA_IQ, "<iq" FROM LANG " id='1'/>", "", ERR_STANZA_BAD_REQUEST);
    in_is("<presence type='what'/>", STANZA_PRESENCE, "<presence" FROM LANG " type='what'/>", "",
          ERR_STANZA_BAD_REQUEST);
    world_close();
}

static void stanzas_are_numbered_without_gaps(void **state)
{
    world_open(NULL);
    client_logs_in();
    client_sends("<presence/><message/><iq type='get'/><message/>");
    assert_int_equal(frame_count(FRAME_IN), 4);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(w.frames[i].f.ord, i + 1);
        assert_int_equal(w.frames[i].hold.owner, HOLD_EDGE_IN);
        assert_int_equal(w.frames[i].hold.a, sid_of_juliet());
        assert_true(w.frames[i].keep); /* the next home gets it too */
    }
    world_close();
}

static void bytes_may_come_one_by_one(void **state)
{
    static const char text[] = "<message to='romeo@localhost'><body>p&amp;q</body></message> "
                               "<presence/>\n<message><x a=\"1'\"/></message>";
    world_open(NULL);
    client_logs_in();
    for (size_t i = 0; i < sizeof text - 1; i++)
        client_sends_bytes(text + i, 1);
    turn();
    assert_int_equal(frame_count(FRAME_IN), 3);
    assert_null(w.conn->carried);
    world_close();
}

static void any_cut_of_a_login_gives_the_same_session(void **state)
{
    char plain[64], text[2048];
    world_open(NULL);
    int n = snprintf(plain, sizeof plain, "%cjuliet%c" PASSWORD, 0, 0);
    str b64 = sasl_encode(str_from(plain, (size_t)n), &w.turn);
    n = snprintf(text, sizeof text,
                 HEADER "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' "
                        "mechanism='PLAIN'>%.*s</auth>" HEADER BIND,
                 STR_ARG(b64));
    world_close();
    for (int cut = 1; cut < n; cut += 7) {
        world_open(NULL);
        client_open(LISTENER_C2S_TLS);
        client_sends_bytes(text, (size_t)cut);
        client_sends_bytes(text + cut, (size_t)(n - cut));
        turn();
        run_store(ERR_OK);
        turn();
        assert_non_null(last_frame(FRAME_BIND));
        world_close();
    }
}

static void many_stanzas_of_a_turn_leave_in_one_write(void **state)
{
    world_open(NULL);
    client_logs_in();
    size_t writes = w.transport->writes;
    for (uint64_t seq = 1; seq <= 50; seq++)
        home_sends_out(seq, "<message><body>hello</body></message>", FRAME_TO_FULL);
    turn();
    assert_int_equal(w.transport->writes - writes, 1);
    const char *text = received();
    assert_int_equal(strncmp(text,
                             "<message to='juliet@localhost/balcony'><body>hello</body>"
                             "</message><message to='",
                             75),
                     0);
    world_close();
}

static void a_large_stanza_is_written_whole_and_in_order(void **state)
{
    world_open(NULL);
    client_logs_in();
    static char large[300000];
    snprintf(large, sizeof large, "<message><body>%0*d</body></message>", 200000, 7);
    home_sends_out(1, "<message id='1'/>", FRAME_TO_BARE);
    home_sends_out(2, large, FRAME_TO_BARE);
    home_sends_out(3, "<message id='3'/>", FRAME_TO_BARE);
    turn();
    const char *text = received();
    assert_int_equal(strlen(text), 2 * strlen("<message to='juliet@localhost' id='1'/>") +
                                       strlen(large) + strlen(" to='juliet@localhost'"));
    assert_true(got(text, "7</body></message><message to='juliet@localhost' id='3'/>"));
    assert_int_equal(last_frame(FRAME_CACK)->f.seq, 3);
    world_close();
}

static void the_preauth_limits_end_with_login(void **state)
{
    static char big[20000];
    snprintf(big, sizeof big, "<message><body>%0*d</body></message>", 9000, 0);
    world_open(NULL);
    client_open(LISTENER_C2S_TLS);
    client_sends(HEADER);
    client_sends(big);
    assert_true(got(received(), "<policy-violation "));
    world_close();
    world_open(NULL);
    client_logs_in();
    client_sends(big);
    assert_int_equal(frame_count(FRAME_IN), 1);
    world_close();
}

static void over_the_rate_reading_pauses_and_goes_on(void **state)
{
    world_open((const char *const[]){"limits.c2s.stanza_rate=10/s", "limits.c2s.stanza_burst=5",
                                     "limits.unsafe_max=256", NULL});
    client_logs_in();
    for (int i = 0; i < 20; i++)
        client_sends("<message/>");
    assert_int_equal(frame_count(FRAME_IN), 6);
    assert_true(w.transport->paused);
    pass_ms(1000);
    size_t n = frame_count(FRAME_IN);
    assert_true(n > 10 && n < 20);
    pass_ms(2000);
    assert_int_equal(frame_count(FRAME_IN), 20);
    pass_ms(1000);
    assert_false(w.transport->paused);
    world_close();
}

static void white_space_is_life_but_not_a_flood(void **state)
{
    static char spaces[4000];
    memset(spaces, ' ', sizeof spaces - 1);
    world_open(NULL);
    client_logs_in();
    client_sends(" \n ");
    pass_ms(200000);
    client_sends(" ");
    pass_ms(200000);
    assert_string_equal(received(), ""); /* no ping: it was heard of */
    client_sends(spaces);
    assert_true(got(received(), "<policy-violation "));
    world_close();
    world_open(NULL); /* the same in small portions */
    client_logs_in();
    for (int i = 0; i < 120; i++)
        client_sends("          ");
    assert_true(got(received(), "<policy-violation "));
    world_close();
}

static void equal_headers_are_shared(void **state)
{
    world_open(NULL);
    client_logs_in();
    struct header *h = w.conn->header;
    assert_int_equal(w.edge->headers.count, 1);
    assert_int_equal(h->refs, 1);
    printf("conn %zu B, session %zu B, out %zu B, header %zu B\n", sizeof(struct conn),
           sizeof(struct c2s), sizeof(struct out), sizeof(struct header));
    assert_true(sizeof(struct conn) + sizeof(struct c2s) <= 800);
    assert_true(sizeof(struct out) <= 48);
    world_close();
}

static void a_gap_in_the_homes_numbers_ends_the_stream(void **state)
{
    world_open(NULL);
    client_logs_in();
    w.transport->stalled = true;
    home_sends_out(1, "<message/>", 0);
    turn();
    home_sends_out(1, "<message/>", 0); /* again: ignored */
    home_sends_out(3, "<message/>", 0);
    assert_int_equal(w.done_n, 4); /* BOUND and these */
    w.transport->stalled = false;
    turn();
    assert_true(got(received(), "<message/><stream:error><internal-server-error "));
    world_close();
}

static struct listen_peer peer_of(const char *text)
{
    struct listen_peer s = {0};
    struct sockaddr_in *in = (void *)&s.address;
    in->sin_family = AF_INET;
    inet_pton(AF_INET, text, &in->sin_addr);
    return s;
}

static void an_address_has_its_share_of_connections(void **state)
{
    struct throttle_entry *entry;
    enum listen_refusal why;
    struct listen_peer a = peer_of("192.0.2.7"), other = peer_of("192.0.2.8"),
                       local = peer_of("127.0.0.1");
    world_open((const char *const[]){"limits.address_connections_max=3",
                                     "limits.address_connect_burst=4",
                                     "limits.address_connect_rate=1/s", NULL});
    for (int i = 0; i < 3; i++)
        assert_int_equal(listen_admit(w.edge, &a, &entry, &why), ERR_OK);
    assert_int_equal(listen_admit(w.edge, &a, &entry, &why), ERR_FULL);
    assert_int_equal(why, REFUSE_ADDRESS);
    throttle_get(&w.edge->addresses, throttle_address_hash(&w.node.key, &a.address))->live = 0;
    assert_int_equal(listen_admit(w.edge, &a, &entry, &why), ERR_OK);
    assert_int_equal(listen_admit(w.edge, &a, &entry, &why), ERR_FULL);
    assert_int_equal(why, REFUSE_RATE);
    assert_int_equal(listen_admit(w.edge, &other, &entry, &why), ERR_OK);
    for (int i = 0; i < 10; i++)
        assert_int_equal(listen_admit(w.edge, &local, &entry, &why), ERR_OK);
    assert_null(entry);
    world_close();
}

static void a_throttle_is_bounded_and_forgets_no_live_entry(void **state)
{
    struct throttle t;
    throttle_init(&t, 8);
    struct throttle_entry *first = throttle_get(&t, 1000);
    first->live = 1;
    for (uint64_t i = 0; i < 100; i++)
        throttle_get(&t, i);
    assert_int_equal(t.entries.count, 8);
    assert_ptr_equal(throttle_get(&t, 1000), first);
    throttle_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stanza_is_spliced_not_serialised),
        cmocka_unit_test(bad_shapes_go_to_the_home_with_their_error),
        cmocka_unit_test(stanzas_are_numbered_without_gaps),
        cmocka_unit_test(bytes_may_come_one_by_one),
        cmocka_unit_test(any_cut_of_a_login_gives_the_same_session),
        cmocka_unit_test(many_stanzas_of_a_turn_leave_in_one_write),
        cmocka_unit_test(a_large_stanza_is_written_whole_and_in_order),
        cmocka_unit_test(the_preauth_limits_end_with_login),
        cmocka_unit_test(over_the_rate_reading_pauses_and_goes_on),
        cmocka_unit_test(white_space_is_life_but_not_a_flood),
        cmocka_unit_test(equal_headers_are_shared),
        cmocka_unit_test(a_gap_in_the_homes_numbers_ends_the_stream),
        cmocka_unit_test(an_address_has_its_share_of_connections),
        cmocka_unit_test(a_throttle_is_bounded_and_forgets_no_live_entry),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
