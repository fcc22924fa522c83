/* What an account's owner asks his server for: registration (XEP-0077), private XML (0049), vCard
 * (0054), last activity (0012): the cases that need another order, another host or a store that is
 * slow. The plain ones are rows of tests/e2e/iq. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "node/home/inside.h"
#include "tests/unit/support/home_rig.h"

#define REGISTER(inner) "<query xmlns='jabber:iq:register'>" inner "</query>"

static struct rig *open_rig(struct client *alice, struct client *bob)
{
    static const char *const settings[] = {"host[localhost].registration=open",
                                           "host[example.org].registration=open", NULL};
    struct rig *r = rig_open(settings);
    rig_user(r, "alice@localhost");
    rig_user(r, "bob@localhost");
    assert_int_equal(rig_bind(r, alice, 0, "alice@localhost", "x"), ERR_OK);
    assert_int_equal(rig_bind(r, bob, 1, "bob@localhost", "x"), ERR_OK);
    return r;
}

static void ask(struct client *c, const char *type, const char *to, const char *payload)
{
    char xml[2048];
    snprintf(xml, sizeof xml, "<iq type='%s' id='q'%s%s%s>%s</iq>", type, to ? " to='" : "",
             to ? to : "", to ? "'" : "", payload);
    rig_send(c, xml);
}

static void an_account_may_be_removed_through_its_server(void **state)
{
    struct client alice, bob, again;
    struct rig *r = open_rig(&alice, &bob);
    ask(&alice, "get", "localhost", REGISTER(""));
    rig_expect(&alice, "<username>alice</username>");
    ask(&alice, "set", "localhost", REGISTER("<remove/>"));
    rig_run(r);
    assert_non_null(strstr(rig_stanza(&alice), "type='result'"));
    const struct note *end = rig_next(&alice);
    assert_non_null(end);
    assert_int_equal(end->frame.kind, FRAME_CLOSE);
    assert_int_equal(end->frame.reason, ERR_STREAM_ACCOUNT_GONE);
    assert_int_equal(rig_bind(r, &again, 0, "alice@localhost", "x"), ERR_STANZA_NOT_AUTHORIZED);
    rig_close(r);
}

static void another_host_has_nothing_to_do_with_an_account(void **state)
{
    struct client alice, bob;
    struct rig *r = open_rig(&alice, &bob);
    ask(&alice, "get", "example.org", REGISTER(""));
    rig_expect(&alice, "<service-unavailable");
    ask(&alice, "set", "example.org", REGISTER("<remove/>"));
    rig_expect(&alice, "<service-unavailable");
    rig_expect_nothing(&alice);
    rig_close(r);
}

static void an_answer_for_a_session_that_has_ended_goes_nowhere(void **state)
{
    struct client alice, bob;
    struct rig *r = open_rig(&alice, &bob);
    fake_store_pause(rig_store(r), true);
    ask(&alice, "get", NULL, "<vCard xmlns='vcard-temp'/>");
    ask(&alice, "get", NULL, "<query xmlns='jabber:iq:private'><a xmlns='urn:a'/></query>");
    ask(&alice, "set", NULL, "<query xmlns='jabber:iq:roster'><item jid='c@localhost'/></query>");
    ask(&alice, "set", NULL, REGISTER("<remove/>"));
    rig_run(r);
    rig_end(&alice);
    fake_store_pause(rig_store(r), false);
    rig_run(r);
    rig_expect_nothing(&bob);
    assert_int_equal(channel_unacked(rig_node(r, 0)->channels), 0);
    assert_int_equal(channel_unacked(rig_node(r, 1)->channels), 0);
    rig_close(r);
}

static void ids_and_names_with_quotes_come_back_as_they_were(void **state)
{
    struct client alice, bob;
    struct rig *r = open_rig(&alice, &bob);
    assert_int_equal(rig_bind(r, &bob, 1, "bob@localhost", "o'neil & <co> \"x\""), ERR_OK);
    rig_send(&bob, "<iq type='get' id=\"a'b&quot;&amp;&lt;&#x9;\">"
                   "<ping xmlns='urn:xmpp:ping'/></iq>");
    rig_expect(&bob, "id='a&apos;b&quot;&amp;&lt;&#9;'");
    rig_send(&bob, "<iq type='get' id='x' to='localhost'><nothing xmlns='urn:x'/></iq>");
    rig_expect(&bob, "to='bob@localhost/o&apos;neil &amp; &lt;co&gt; &quot;x&quot;'");
    rig_send(&bob, "<presence/>");
    rig_expect(&bob, "from='bob@localhost/o&apos;neil &amp; &lt;co&gt; &quot;x&quot;'");
    rig_send(&bob, "<presence to='alice@localhost/x'/>");
    rig_expect(&alice, "o&apos;neil");
    rig_end(&bob);
    rig_expect(&alice, "from='bob@localhost/o&apos;neil &amp; &lt;co&gt; &quot;x&quot;'");
    rig_close(r);
}

static void a_status_that_was_cut_is_still_text(void **state)
{
    struct client alice, bob;
    struct rig *r = open_rig(&alice, &bob);
    char xml[2048] = "<presence type='unavailable'><status>", *at = xml + strlen(xml);
    memset(at, 's', 1022);
    strcpy(at + 1022, "\xc3\xa9\xc3\xa9</status></presence>"); /* é over the edge of 1,023 bytes */
    rig_send(&alice, "<presence/>");
    rig_run(r);
    rig_send(&alice, xml);
    rig_forget(&alice);
    ask(&alice, "get", NULL, "<query xmlns='jabber:iq:last'/>");
    rig_expect(&alice, "ss</query>");
    rig_close(r);
}

static void what_a_stranger_asks_costs_a_missing_account_the_same_requests(void **state)
{
    static const char *const asked[] = {
        "<vCard xmlns='vcard-temp'/>", "<query xmlns='jabber:iq:last'/>",
        "<ping xmlns='urn:xmpp:ping'/>", "<query xmlns='http://jabber.org/protocol/disco#info'/>",
        "<query xmlns='http://jabber.org/protocol/disco#items' node='n'/>"};
    struct client alice, bob;
    struct rig *r = open_rig(&alice, &bob);
    rig_user(r, "quiet@localhost");
    for (size_t i = 0; i < array_len(asked); i++) {
        uint64_t requests[2];
        char answer[2][512];
        for (int missing = 0; missing < 2; missing++) {
            const char *who = missing ? "quiex@localhost" : "quiet@localhost";
            ask(&alice, "get", who, "<first xmlns='urn:x'/>"); /* loaded, both */
            rig_forget(&alice);
            uint64_t before = rig_node(r, 0)->metrics->value[METRIC_store_requests];
            ask(&alice, "get", who, asked[i]);
            rig_run(r);
            snprintf(answer[missing], sizeof answer[0], "%s", rig_stanza(&alice));
            for (char *p; (p = strstr(answer[missing], "quiex"));)
                p[4] = 't';
            requests[missing] = rig_node(r, 0)->metrics->value[METRIC_store_requests] - before;
        }
        assert_int_equal(requests[0], requests[1]);
        assert_string_equal(answer[0], answer[1]);
    }
    rig_close(r);
}

static void a_namespace_longer_than_a_key_is_not_acceptable(void **state)
{
    struct client alice, bob;
    struct rig *r = open_rig(&alice, &bob);
    static char ns[9000], xml[10000];
    memset(ns, 'n', sizeof ns - 1);
    for (int set = 0; set < 2; set++) {
        snprintf(xml, sizeof xml,
                 "<iq type='%s' id='p'><query xmlns='jabber:iq:private'>"
                 "<x xmlns='urn:%s'/></query></iq>",
                 set ? "set" : "get", ns);
        rig_send(&alice, xml);
        rig_expect(&alice, "<not-acceptable");
    }
    rig_close(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_account_may_be_removed_through_its_server),
        cmocka_unit_test(another_host_has_nothing_to_do_with_an_account),
        cmocka_unit_test(an_answer_for_a_session_that_has_ended_goes_nowhere),
        cmocka_unit_test(ids_and_names_with_quotes_come_back_as_they_were),
        cmocka_unit_test(a_status_that_was_cut_is_still_text),
        cmocka_unit_test(what_a_stranger_asks_costs_a_missing_account_the_same_requests),
        cmocka_unit_test(a_namespace_longer_than_a_key_is_not_acceptable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
