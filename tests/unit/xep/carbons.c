/* Message Carbons (XEP-0280): which messages, to whom, and what happens when a home has died. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "node/home/inside.h"
#include "tests/unit/support/home_rig.h"

#define ENABLE "<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>"

/* alice has three: one eligible, one of negative priority, one that is connected only. */
struct cast {
    struct rig *r;
    struct client one, two, three, bob;
};

static void enable(struct client *c)
{
    rig_send(c, ENABLE);
    rig_expect(c, "type='result'");
}

static void open_cast(struct cast *x, const char *const *settings)
{
    x->r = rig_open(settings);
    rig_user(x->r, "alice@localhost");
    rig_user(x->r, "bob@localhost");
    assert_int_equal(rig_bind(x->r, &x->one, 0, "alice@localhost", "one"), ERR_OK);
    assert_int_equal(rig_bind(x->r, &x->two, 1, "alice@localhost", "two"), ERR_OK);
    assert_int_equal(rig_bind(x->r, &x->three, 1, "alice@localhost", "three"), ERR_OK);
    assert_int_equal(rig_bind(x->r, &x->bob, 1, "bob@localhost", "b"), ERR_OK);
    rig_online(&x->one, 0);
    rig_online(&x->two, -1);
    rig_online(&x->bob, 0);
    rig_forget(&x->one);
    enable(&x->one);
    enable(&x->two);
    rig_run(x->r);
    rig_forget(&x->one);
    rig_forget(&x->two);
}

static void close_cast(struct cast *x) { rig_close(x->r); }

/* Its next one is a copy of this, with everything that section 7 or 8 asks for. */
static void expect_copy(struct client *c, const char *direction, const char *part)
{
    char element[128];
    rig_run(c->rig);
    const char *xml = rig_stanza(c);
    snprintf(element, sizeof element,
             "<%s xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'><message",
             direction);
    assert_non_null(strstr(xml, element));
    assert_non_null(strstr(xml, "from='alice@localhost'"));
    assert_non_null(strstr(xml, "xmlns='jabber:client'"));
    assert_non_null(strstr(xml, part));
}

static void messages_of_section_6_1_are_copied_and_others_are_not(void **state)
{
    static const struct {
        const char *attributes, *inner;
        bool copied;
    } rows[] = {
        {"type='chat'", "<body>x</body>", true},
        {"type='chat'", "", true},
        {"", "<body>x</body>", true},
        {"type='nonsense'", "<body>x</body>", true}, /* RFC 6121 5.2.2: normal */
        {"", "<subject>x</subject>", false},
        {"", "<x xmlns='urn:other'/>", false},
        {"", "<received xmlns='urn:xmpp:receipts' id='1'/>", true},
        {"", "<composing xmlns='http://jabber.org/protocol/chatstates'/>", true},
        {"", "<displayed xmlns='urn:xmpp:chat-markers:0' id='1'/>", true},
        {"", "<x xmlns='jabber:x:conference' jid='r@c'/>", true},
        {"", "<x xmlns='http://jabber.org/protocol/muc#user'><invite from='carol@localhost'/></x>",
         true},
        {"", "<x xmlns='http://jabber.org/protocol/muc#user'><decline/></x>", false},
        {"type='headline'", "<body>x</body>", false},
        {"type='groupchat'", "<body>x</body>", false},
        {"type='chat'", "<body>x</body><private xmlns='urn:xmpp:carbons:2'/>", false},
        {"type='chat'", "<body>x</body><no-copy xmlns='urn:xmpp:hints'/>", false},
        {"type='chat'", "<sent xmlns='urn:xmpp:carbons:2'/><body>x</body>", false},
        {"type='error'", "<body>x</body><error type='cancel'/>", true},
        {"type='error'", "<error type='cancel'/>", false}, /* from a resource: of what? */
    };
    struct cast x;
    open_cast(&x, NULL);
    for (size_t i = 0; i < array_len(rows); i++) {
        char xml[512];
        print_message("received %s %s\n", rows[i].attributes, rows[i].inner);
        snprintf(xml, sizeof xml, "<message to='alice@localhost/one' id='m' %s>%s</message>",
                 rows[i].attributes, rows[i].inner);
        rig_send(&x.bob, xml);
        rig_run(x.r);
        assert_non_null(strstr(rig_stanza(&x.one), "id='m'"));
        if (rows[i].copied)
            expect_copy(&x.two, "received", "id='m'");
        rig_expect_nothing(&x.two);
        rig_expect_nothing(&x.one);
        rig_expect_nothing(&x.three);
        print_message("sent\n");
        snprintf(xml, sizeof xml, "<message to='bob@localhost/b' id='m' %s>%s</message>",
                 rows[i].attributes, rows[i].inner);
        rig_send(&x.three, xml); /* irrespective of whether the sender has them enabled */
        if (rows[i].copied) {
            expect_copy(&x.one, "sent", "id='m'");
            expect_copy(&x.two, "sent", "id='m'");
        }
        rig_expect_nothing(&x.one);
        rig_expect_nothing(&x.two);
        rig_expect_nothing(&x.three);
        rig_forget(&x.bob);
    }
    close_cast(&x);
}

static void messages_of_a_rooms_occupant_are_copied_when_sent_and_not_when_received(void **state)
{
    static const char pm[] = "<message from='room@conf.localhost/nick' to='alice@localhost/one' "
                             "type='chat' id='m'><body>x</body>"
                             "<x xmlns='http://jabber.org/protocol/muc#user'/></message>";
    struct cast x;
    open_cast(&x, NULL);
    rig_inject(x.r, pm, (struct uid){7, 1, 0}, 0);
    rig_run(x.r);
    assert_non_null(strstr(rig_stanza(&x.one), "id='m'"));
    rig_expect_nothing(&x.two);
    rig_send(&x.one, "<message to='bob@localhost/nick' type='chat' id='m'><body>x</body>"
                     "<x xmlns='http://jabber.org/protocol/muc#user'/></message>");
    expect_copy(&x.two, "sent", "bob@localhost/nick");
    close_cast(&x);
}

static void whoever_is_given_the_message_itself_gets_no_copy(void **state)
{
    struct cast x;
    open_cast(&x, NULL);
    rig_send(&x.bob, "<message to='alice@localhost' type='chat' id='m'><body>x</body></message>");
    rig_run(x.r);
    assert_null(strstr(rig_stanza(&x.one), "carbons"));
    expect_copy(&x.two, "received", "to='alice@localhost'");
    rig_send(&x.bob, "<message to='alice@localhost/two' type='chat' id='m'/>");
    rig_run(x.r);
    assert_null(strstr(rig_stanza(&x.two), "carbons"));
    expect_copy(&x.one, "received", "to='alice@localhost/two'");
    rig_expect_nothing(&x.one);
    rig_expect_nothing(&x.two);
    rig_expect_nothing(&x.three);
    close_cast(&x);
}

static void what_one_sends_to_oneself_comes_once_to_each(void **state)
{
    struct cast x;
    open_cast(&x, NULL);
    rig_send(&x.one, "<message to='alice@localhost/three' type='chat' id='m'/>");
    rig_run(x.r);
    assert_null(strstr(rig_stanza(&x.three), "carbons"));
    expect_copy(&x.two, "received", "to='alice@localhost/three'");
    rig_expect_nothing(&x.one);                        /* 8: not to the sending full JID */
    rig_send(&x.two, "<message type='chat' id='n'/>"); /* to the own bare JID */
    rig_run(x.r);
    assert_non_null(strstr(rig_stanza(&x.one), "id='n'"));
    rig_expect_nothing(&x.one);
    rig_expect_nothing(&x.two);
    close_cast(&x);
}

static void a_copy_names_the_account_where_its_message_named_nobody(void **state)
{
    struct cast x;
    open_cast(&x, NULL);
    rig_send(&x.three, "<message type='chat' id='n'/>");
    rig_run(x.r);
    assert_non_null(strstr(rig_stanza(&x.one), "id='n'"));
    expect_copy(&x.two, "received", "to='alice@localhost'");
    close_cast(&x);
}

static void what_is_stored_is_copied_only_to_who_will_not_get_it_from_there(void **state)
{
    struct cast x;
    open_cast(&x, NULL);
    rig_end(&x.one);
    rig_forget(&x.two);
    rig_send(&x.bob, "<message to='alice@localhost' type='chat' id='m'><body>x</body></message>");
    expect_copy(&x.two, "received", "id='m'");
    rig_expect_nothing(&x.two);
    struct client four;
    assert_int_equal(rig_bind(x.r, &four, 0, "alice@localhost", "four"), ERR_OK);
    rig_online(&four, 0);
    close_cast(&x);
}

static void bounces_of_copies_go_to_nobody(void **state)
{
    struct cast x;
    open_cast(&x, NULL);
    /* 10.3: without the original children, too */
    rig_send(&x.two, "<message to='alice@localhost' type='error' id='m'><error/></message>");
    rig_send(&x.two, "<message to='alice@localhost' type='error' id='m'>"
                     "<received xmlns='urn:xmpp:carbons:2'/><body>x</body><error/></message>");
    rig_expect_nothing(&x.one);
    rig_expect_nothing(&x.two);
    rig_expect_nothing(&x.bob);
    close_cast(&x);
}

static void copies_end_with_their_session(void **state)
{
    struct cast x;
    open_cast(&x, NULL);
    rig_enable(&x.two, 60000);
    rig_detach(&x.two);
    rig_send(&x.bob,
             "<message to='alice@localhost/one' type='chat' id='m'><body>x</body></message>");
    rig_run(x.r);
    rig_forget(&x.one);
    rig_pass(x.r, 61000); /* its time is over: what it held is not stored, nor another's */
    rig_run(x.r);
    const char *gone = rig_stanza(&x.one);
    assert_non_null(strstr(gone, "unavailable"));
    rig_expect_nothing(&x.one);
    rig_expect_nothing(&x.bob);
    assert_int_equal(metric_get(rig_node(x.r, 0)->metrics, METRIC_offline_stored), 0);
    close_cast(&x);
}

static void forged_copies_stay_their_senders(void **state)
{
    struct cast x;
    open_cast(&x, NULL);
    rig_send(&x.bob, "<message to='alice@localhost/one' type='chat'>"
                     "<received xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'>"
                     "<message xmlns='jabber:client' from='carol@localhost' to='alice@localhost'>"
                     "<body>meet me</body></message></forwarded></received></message>");
    rig_run(x.r);
    const char *xml = rig_stanza(&x.one);
    assert_non_null(strstr(xml, " from='bob@localhost/b'"));
    assert_null(strstr(xml, " from='alice@localhost'"));
    rig_expect_nothing(&x.two);
    close_cast(&x);
}

static void both_requests_may_be_repeated_and_others_are_no_requests(void **state)
{
    struct cast x;
    open_cast(&x, NULL);
    enable(&x.two); /* 10.1 */
    for (int i = 0; i < 2; i++) {
        rig_send(&x.two, "<iq type='set' id='d'><disable xmlns='urn:xmpp:carbons:2'/></iq>");
        rig_expect(&x.two, "type='result'");
    }
    rig_send(&x.bob, "<message to='alice@localhost/one' type='chat'/>");
    rig_expect_nothing(&x.two);
    rig_send(&x.two, "<iq type='set' id='e'><able xmlns='urn:xmpp:carbons:2'/></iq>");
    rig_expect(&x.two, "<feature-not-implemented");
    rig_send(&x.two, "<iq type='get' id='f'><enable xmlns='urn:xmpp:carbons:2'/></iq>");
    rig_expect(&x.two, "<feature-not-implemented");
    rig_send(&x.two, "<iq type='set' id='g' to='bob@localhost'>"
                     "<enable xmlns='urn:xmpp:carbons:2'/></iq>");
    rig_expect(&x.two, "<service-unavailable");
    rig_expect_nothing(&x.two);
    close_cast(&x);
}

static void a_message_that_comes_again_makes_no_second_copies(void **state)
{
    static const char xml[] = "<message from='bob@localhost/b' to='alice@localhost/one' "
                              "type='chat' id='m'><body>x</body></message>";
    struct cast x;
    open_cast(&x, NULL);
    rig_enable(&x.one, 60000);
    rig_enable(&x.two, 60000);
    rig_inject(x.r, xml, (struct uid){7, 1, 0}, 0);
    rig_run(x.r);
    assert_non_null(strstr(rig_stanza(&x.one), "id='m'"));
    expect_copy(&x.two, "received", "id='m'");
    rig_inject(x.r, xml, (struct uid){7, 1, 0}, FRAME_AGAIN);
    rig_run(x.r);
    rig_expect_nothing(&x.one);
    rig_expect_nothing(&x.two);
    close_cast(&x);
}

static void switched_off_it_is_not_there(void **state)
{
    static const char *const settings[] = {"modules.off={carbons}", NULL};
    struct rig *r = rig_open(settings);
    struct client one;
    rig_user(r, "alice@localhost");
    assert_int_equal(rig_bind(r, &one, 0, "alice@localhost", "one"), ERR_OK);
    rig_send(&one, ENABLE);
    rig_expect(&one, "<service-unavailable");
    rig_send(&one, "<iq type='get' id='q' to='localhost'>"
                   "<query xmlns='http://jabber.org/protocol/disco#info'/></iq>");
    rig_run(r);
    assert_null(strstr(rig_stanza(&one), "carbons"));
    rig_close(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_of_section_6_1_are_copied_and_others_are_not),
        cmocka_unit_test(messages_of_a_rooms_occupant_are_copied_when_sent_and_not_when_received),
        cmocka_unit_test(whoever_is_given_the_message_itself_gets_no_copy),
        cmocka_unit_test(what_one_sends_to_oneself_comes_once_to_each),
        cmocka_unit_test(a_copy_names_the_account_where_its_message_named_nobody),
        cmocka_unit_test(what_is_stored_is_copied_only_to_who_will_not_get_it_from_there),
        cmocka_unit_test(bounces_of_copies_go_to_nobody),
        cmocka_unit_test(copies_end_with_their_session),
        cmocka_unit_test(forged_copies_stay_their_senders),
        cmocka_unit_test(both_requests_may_be_repeated_and_others_are_no_requests),
        cmocka_unit_test(a_message_that_comes_again_makes_no_second_copies),
        cmocka_unit_test(switched_off_it_is_not_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
