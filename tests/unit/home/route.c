/* The routing table of xmpp.md 3, row by row: every type, address and state of the addressee. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "tests/unit/support/home_rig.h"

enum state { ELIGIBLE, NEGATIVE, CONNECTED, OFFLINE, STATES };
enum fate { GIVEN, STORED, DROPPED, UNAVAILABLE };

struct row {
    const char *to, *type;
    enum fate fate[STATES];
};
#define SAME(f) \
    { \
        f, f, f, f \
    }
static const struct row messages[] = {
    {"bob@localhost", "chat", {GIVEN, STORED, STORED, STORED}},
    {"bob@localhost", "normal", {GIVEN, STORED, STORED, STORED}},
    {"bob@localhost", "", {GIVEN, STORED, STORED, STORED}},
    {"bob@localhost", "unheard-of", {GIVEN, STORED, STORED, STORED}},
    {"bob@localhost", "headline", {GIVEN, DROPPED, DROPPED, DROPPED}},
    {"bob@localhost", "groupchat", SAME(UNAVAILABLE)},
    {"bob@localhost", "error", SAME(DROPPED)},
    {"bob@localhost/home", "chat", {GIVEN, GIVEN, GIVEN, STORED}},
    {"bob@localhost/home", "normal", {GIVEN, GIVEN, GIVEN, UNAVAILABLE}},
    {"bob@localhost/home", "groupchat", {GIVEN, GIVEN, GIVEN, UNAVAILABLE}},
    {"bob@localhost/home", "headline", {GIVEN, GIVEN, GIVEN, DROPPED}},
    {"bob@localhost/home", "error", {GIVEN, GIVEN, GIVEN, DROPPED}},
    {"bob@localhost/away", "chat", {GIVEN, STORED, STORED, STORED}},
    {"bob@localhost/away", "normal", SAME(UNAVAILABLE)},
    {"bob@localhost/away", "groupchat", SAME(UNAVAILABLE)},
    {"bob@localhost/away", "headline", SAME(DROPPED)},
    {"bob@localhost/away", "error", SAME(DROPPED)},
    {"nobody@localhost", "chat", SAME(UNAVAILABLE)},
    {"nobody@localhost", "normal", SAME(UNAVAILABLE)},
    {"nobody@localhost", "groupchat", SAME(UNAVAILABLE)},
    {"nobody@localhost", "headline", SAME(DROPPED)},
    {"nobody@localhost", "error", SAME(DROPPED)},
    {"localhost", "chat", SAME(UNAVAILABLE)},
    {"localhost", "error", SAME(DROPPED)},
};

static void set_state(struct rig *r, struct client *bob, enum state state)
{
    if (state == OFFLINE)
        return;
    assert_int_equal(rig_bind(r, bob, 1, "bob@localhost", "home"), ERR_OK);
    if (state == ELIGIBLE)
        rig_online(bob, 0);
    else if (state == NEGATIVE)
        rig_online(bob, -1);
}

static void check(const struct row *row, enum state state)
{
    struct rig *r = rig_open(NULL);
    struct client alice, bob = {0};
    char xml[256];
    rig_user(r, "alice@localhost");
    rig_user(r, "bob@localhost");
    assert_int_equal(rig_bind(r, &alice, 0, "alice@localhost", "desk"), ERR_OK);
    set_state(r, &bob, state);
    uint64_t stored = r ? rig_node(r, 0)->metrics->value[METRIC_offline_stored] : 0;
    snprintf(xml, sizeof xml, "<message to='%s'%s%s%s id='m'><body>hi</body></message>", row->to,
             *row->type ? " type='" : "", row->type, *row->type ? "'" : "");
    rig_send(&alice, xml);
    rig_run(r);
    stored = rig_node(r, 0)->metrics->value[METRIC_offline_stored] - stored;
    enum fate fate = row->fate[state];
    if (stored != (fate == STORED))
        fail_msg("%s in state %d: stored %d", xml, state, (int)stored);
    if (fate == GIVEN)
        rig_expect(&bob, "<body>hi</body>");
    if (state != OFFLINE)
        rig_expect_nothing(&bob);
    if (fate == UNAVAILABLE)
        rig_expect(&alice, "<service-unavailable");
    rig_expect_nothing(&alice);
    assert_int_equal(alice.safe, 1);
    rig_close(r);
}

static void messages_go_where_the_table_says(void **state)
{
    for (size_t i = 0; i < array_len(messages); i++)
        for (int s = 0; s < STATES; s++)
            check(&messages[i], (enum state)s);
}

static void an_iq_reply_without_a_resource_is_swallowed(void **state)
{
    struct rig *r = rig_open(NULL);
    struct client alice;
    rig_user(r, "alice@localhost");
    assert_int_equal(rig_bind(r, &alice, 0, "alice@localhost", "desk"), ERR_OK);
    rig_send(&alice, "<iq type='result' id='push-1'/>");
    rig_send(&alice, "<iq type='result' id='x' to='localhost'/>");
    rig_send(&alice, "<iq type='error' id='y' to='bob@localhost'><error/></iq>");
    rig_expect_nothing(&alice);
    assert_int_equal(alice.safe, 3);
    rig_close(r);
}

static void an_iq_goes_to_its_resource_or_is_answered(void **state)
{
    struct rig *r = rig_open(NULL);
    struct client alice, bob;
    rig_user(r, "alice@localhost");
    rig_user(r, "bob@localhost");
    assert_int_equal(rig_bind(r, &alice, 0, "alice@localhost", "desk"), ERR_OK);
    assert_int_equal(rig_bind(r, &bob, 1, "bob@localhost", "home"), ERR_OK);
    rig_send(&alice, "<iq type='get' id='1' to='bob@localhost/home'><q xmlns='x:y'/></iq>");
    rig_expect(&bob, "id='1'");
    rig_send(&alice, "<iq type='get' id='2' to='bob@localhost/none'><q xmlns='x:y'/></iq>");
    rig_expect(&alice, "<service-unavailable");
    rig_send(&alice, "<iq type='get' id='3' to='nobody@localhost/x'><q xmlns='x:y'/></iq>");
    rig_expect(&alice, "<service-unavailable");
    rig_send(&alice, "<iq type='get' id='4' to='bob@localhost'>"
                     "<query xmlns='jabber:iq:roster'/></iq>");
    rig_expect(&alice, "<forbidden");
    rig_send(&alice, "<iq type='get' id='5' to='a@elsewhere.org'><q xmlns='x:y'/></iq>");
    rig_expect(&alice, "<remote-server-not-found");
    rig_send(&bob, "<iq type='result' id='1' to='alice@localhost/desk'/>");
    rig_expect(&alice, "type='result'");
    rig_expect_nothing(&bob);
    rig_close(r);
}

static void what_the_edge_found_wrong_is_answered_from_where_it_was_sent(void **state)
{
    struct rig *r = rig_open(NULL);
    struct client alice;
    rig_user(r, "alice@localhost");
    assert_int_equal(rig_bind(r, &alice, 0, "alice@localhost", "desk"), ERR_OK);
    rig_send_bad(&alice, "<iq type='get' id='1'><a/><b/></iq>", ERR_STANZA_BAD_REQUEST);
    rig_expect(&alice, "<bad-request");
    rig_expect_nothing(&alice);
    rig_close(r);
}

static void a_message_waits_for_an_account_that_is_being_loaded(void **state)
{
    struct rig *r = rig_open(NULL);
    struct client alice;
    rig_user(r, "alice@localhost");
    rig_user(r, "bob@localhost");
    assert_int_equal(rig_bind(r, &alice, 0, "alice@localhost", "desk"), ERR_OK);
    fake_store_pause(rig_store(r), true);
    rig_send(&alice, "<message to='bob@localhost' type='chat'><body>hi</body></message>");
    rig_expect_nothing(&alice);
    assert_int_equal(alice.safe, 0); /* nobody has it: it is not safe */
    fake_store_pause(rig_store(r), false);
    rig_expect_nothing(&alice);
    assert_int_equal(alice.safe, 1);
    rig_close(r);
}

static void a_store_that_stays_away_is_told_to_the_sender(void **state)
{
    struct rig *r = rig_open(NULL);
    struct client alice;
    rig_user(r, "alice@localhost");
    assert_int_equal(rig_bind(r, &alice, 0, "alice@localhost", "desk"), ERR_OK);
    fake_store_fail_next(rig_store(r), 1000, ERR_AWAY);
    rig_send(&alice, "<message to='bob@localhost' type='chat'><body>hi</body></message>");
    rig_pass(r, 10000);
    rig_expect_nothing(&alice);
    rig_pass(r, 15000);
    rig_expect(&alice, "<resource-constraint");
    assert_int_equal(alice.safe, 1);
    fake_store_fail_next(rig_store(r), 0, ERR_OK);
    rig_close(r);
}

static void errors_say_who_speaks(void **state)
{
    struct rig *r = rig_open(NULL);
    struct client alice, bob;
    rig_user(r, "alice@localhost");
    rig_user(r, "bob@localhost");
    assert_int_equal(rig_bind(r, &alice, 0, "alice@localhost", "desk"), ERR_OK);
    assert_int_equal(rig_bind(r, &bob, 1, "bob@localhost", "desk"), ERR_OK);
    static const char *const by_us[] = {"bob@localhost/none", "nobody@localhost", "bob@localhost",
                                        "x@elsewhere.example"};
    for (size_t i = 0; i < array_len(by_us); i++) {
        char xml[256];
        snprintf(xml, sizeof xml, "<iq type='get' id='1' to='%s'><x xmlns='urn:x'/></iq>",
                 by_us[i]);
        rig_send(&alice, xml);
        rig_expect(&alice, "by='localhost'");
    }
    rig_send(&alice, "<iq type='get' id='1' to='localhost'><x xmlns='urn:x'/></iq>");
    rig_run(r);
    assert_null(strstr(rig_stanza(&alice), "by="));
    rig_send_bad(&alice, "<message to='@localhost' id='2'><body/></message>",
                 ERR_STANZA_JID_MALFORMED);
    rig_expect(&alice, "from='alice@localhost' to='alice@localhost/desk'");
    rig_close(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_go_where_the_table_says),
        cmocka_unit_test(an_iq_reply_without_a_resource_is_swallowed),
        cmocka_unit_test(an_iq_goes_to_its_resource_or_is_answered),
        cmocka_unit_test(what_the_edge_found_wrong_is_answered_from_where_it_was_sent),
        cmocka_unit_test(a_message_waits_for_an_account_that_is_being_loaded),
        cmocka_unit_test(a_store_that_stays_away_is_told_to_the_sender),
        cmocka_unit_test(errors_say_who_speaks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
