/* Presence (RFC 6121 4, xmpp.md 4): the order at the beginning, who is told what, probes, directed
 * presence, ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "node/home/inside.h"
#include "tests/unit/support/home_rig.h"

static struct rig *open_friends(struct client *alice, struct client *bob)
{
    struct rig *r = rig_open(NULL);
    rig_user(r, "alice@localhost");
    rig_user(r, "bob@localhost");
    rig_user(r, "carol@localhost");
    assert_int_equal(rig_bind(r, alice, 0, "alice@localhost", "x"), ERR_OK);
    assert_int_equal(rig_bind(r, bob, 1, "bob@localhost", "x"), ERR_OK);
    rig_online(alice, 0);
    rig_online(bob, 0);
    rig_send(alice, "<presence type='subscribe' to='bob@localhost'/>");
    rig_run(r);
    rig_send(bob, "<presence type='subscribed' to='alice@localhost'/>");
    rig_send(bob, "<presence type='subscribe' to='alice@localhost'/>");
    rig_run(r);
    rig_send(alice, "<presence type='subscribed' to='bob@localhost'/>");
    rig_forget(alice);
    rig_forget(bob);
    return r;
}

static void initial_presence_comes_in_the_order_of_the_sheet(void **state)
{
    struct client alice, bob, desk, carol;
    struct rig *r = open_friends(&alice, &bob);
    assert_int_equal(rig_bind(r, &carol, 0, "carol@localhost", "x"), ERR_OK);
    rig_send(&carol, "<presence type='subscribe' to='bob@localhost'>"
                     "<status>carol</status></presence>");
    rig_send(&carol, "<message to='bob@localhost' type='chat'><body>live</body></message>");
    rig_run(r);
    rig_end(&bob);
    rig_send(&carol, "<message to='bob@localhost' type='chat'><body>offline</body></message>");
    rig_run(r);
    assert_int_equal(rig_bind(r, &desk, 0, "bob@localhost", "desk"), ERR_OK);
    rig_online(&desk, -1);
    assert_int_equal(rig_bind(r, &bob, 1, "bob@localhost", "x"), ERR_OK);
    rig_forget(&alice);
    rig_send(&bob, "<presence><status>new</status></presence>");
    rig_run(r);
    /* itself, its other resource, the request that waits, then what was stored and what the probes
     * of contacts bring */
    rig_expect(&bob, "new");
    const char *xml = rig_stanza(&bob);
    assert_non_null(strstr(xml, "bob@localhost/desk"));
    assert_non_null(strstr(xml, "urn:xmpp:delay"));
    rig_expect(&bob, ">carol<");
    bool alice_seen = false, offline_seen = false, live_seen = false;
    for (const struct note *n = rig_next(&bob); n; n = rig_next(&bob)) {
        alice_seen |= strstr(n->xml, "from='alice@localhost/x'") != NULL;
        live_seen |= strstr(n->xml, "live") != NULL;
        assert_false(strstr(n->xml, "offline") && !live_seen);
        offline_seen |= strstr(n->xml, "offline") != NULL;
    }
    assert_true(alice_seen && offline_seen);
    rig_expect(&alice, "new");
    rig_expect(&desk, "new");
    rig_close(r);
}

static void later_presence_goes_to_contacts_without_probes(void **state)
{
    struct client alice, bob;
    struct rig *r = open_friends(&alice, &bob);
    unsigned probes = rig_routed(r, "bob@localhost/x", TYPE_PROBE);
    rig_send(&bob, "<presence><show>away</show></presence>");
    rig_expect(&alice, "away");
    rig_expect(&bob, "away");
    assert_int_equal(rig_routed(r, "bob@localhost/x", TYPE_PROBE), probes);
    rig_close(r);
}

static void unavailable_reaches_contacts_and_the_sender_once(void **state)
{
    struct client alice, bob;
    struct rig *r = open_friends(&alice, &bob);
    rig_send(&bob, "<presence type='unavailable'><status>bye</status></presence>");
    rig_expect(&alice, "bye");
    rig_expect(&bob, "bye");
    rig_end(&bob);
    rig_expect_nothing(&alice);
    rig_close(r);
}

static void a_session_that_ends_is_unavailable_to_all_who_saw_it(void **state)
{
    struct client alice, bob, carol;
    struct rig *r = open_friends(&alice, &bob);
    assert_int_equal(rig_bind(r, &carol, 0, "carol@localhost", "x"), ERR_OK);
    rig_online(&carol, 0);
    rig_send(&bob, "<presence to='carol@localhost'/>");
    rig_expect(&carol, "from='bob@localhost/x'");
    rig_end(&bob);
    rig_expect(&alice, "type='unavailable'");
    rig_expect(&carol, "type='unavailable'");
    rig_expect_nothing(&alice);
    rig_expect_nothing(&carol);
    rig_close(r);
}

static void directed_presence_taken_back_is_not_taken_back_again(void **state)
{
    struct client alice, bob, carol;
    struct rig *r = open_friends(&alice, &bob);
    assert_int_equal(rig_bind(r, &carol, 0, "carol@localhost", "x"), ERR_OK);
    rig_online(&carol, 0);
    rig_send(&bob, "<presence to='carol@localhost/x'/>");
    rig_expect(&carol, "<presence");
    rig_send(&bob, "<presence to='carol@localhost/x' type='unavailable'/>");
    rig_expect(&carol, "type='unavailable'");
    rig_end(&bob);
    rig_expect_nothing(&carol);
    rig_close(r);
}

static void the_list_of_directed_presence_is_bounded(void **state)
{
    struct client alice, bob;
    struct rig *r = open_friends(&alice, &bob);
    rig_conf(r)->limits_directed_max = 2;
    rig_send(&bob, "<presence to='a@localhost'/>");
    rig_send(&bob, "<presence to='b@localhost'/>");
    rig_send(&bob, "<presence to='b@localhost'/>");
    rig_expect_nothing(&bob);
    rig_send(&bob, "<presence to='c@localhost'/>");
    rig_expect(&bob, "<resource-constraint");
    rig_close(r);
}

static void a_strangers_probe_is_answered_unsubscribed_whoever_is_asked(void **state)
{
    static const char *const asked[] = {"carol@localhost", "nobody@localhost"};
    for (size_t i = 0; i < array_len(asked); i++) {
        struct client alice, bob;
        struct rig *r = open_friends(&alice, &bob);
        char xml[128];
        snprintf(xml, sizeof xml, "<presence type='probe' to='%s'/>", asked[i]);
        rig_send(&alice, xml);
        rig_expect(&alice, "type='unsubscribed'");
        rig_expect_nothing(&alice);
        rig_close(r);
    }
}

static void a_clients_probe_of_one_who_is_away_is_answered(void **state)
{
    struct client alice, bob;
    struct rig *r = open_friends(&alice, &bob);
    rig_send(&alice, "<presence type='probe' to='bob@localhost'/>");
    rig_expect(&alice, "urn:xmpp:delay");
    rig_end(&bob);
    rig_forget(&alice);
    rig_send(&alice, "<presence type='probe' to='bob@localhost'/>");
    rig_expect(&alice, "type='unavailable'");
    rig_close(r);
}

static void priorities_that_are_none_count_as_zero(void **state)
{
    static const struct {
        const char *text;
        bool eligible;
    } rows[] = {{"-1", false}, {"-128", false}, {"-129", true},
                {"128", true}, {"127", true},   {"", true},
                {"-x", true},  {" -5 ", false}, {"99999999999999999999", true},
                {"+3", true}};
    for (size_t i = 0; i < array_len(rows); i++) {
        struct client alice, bob;
        struct rig *r = open_friends(&alice, &bob);
        char xml[128];
        snprintf(xml, sizeof xml, "<presence><priority>%s</priority></presence>", rows[i].text);
        rig_send(&bob, xml);
        rig_forget(&bob);
        rig_send(&alice, "<message to='bob@localhost' type='chat'><body>hi</body></message>");
        if (rows[i].eligible)
            rig_expect(&bob, "hi");
        else
            rig_expect_nothing(&bob);
        rig_close(r);
    }
}

static void one_frame_carries_a_broadcast_to_a_shard(void **state)
{
    struct client alice;
    struct rig *r = rig_open(NULL);
    char xml[256];
    rig_user(r, "alice@localhost");
    assert_int_equal(rig_bind(r, &alice, 0, "alice@localhost", "x"), ERR_OK);
    for (int i = 0; i < 40; i++) {
        snprintf(xml, sizeof xml, "u%d@localhost", i);
        rig_user(r, xml);
        snprintf(xml, sizeof xml,
                 "<presence type='subscribe' from='u%d@localhost' to='alice@localhost'/>", i);
        rig_inject(r, xml, (struct uid){9, (uint64_t)i, 0}, 0);
        rig_run(r);
        snprintf(xml, sizeof xml, "<presence type='subscribed' to='u%d@localhost'/>", i);
        rig_send(&alice, xml);
        rig_run(r);
    }
    rig_send(&alice, "<presence/>");
    rig_run(r);
    assert_int_equal(rig_routed(r, "alice@localhost/x", TYPE_AVAILABLE), 2);
    rig_close(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(initial_presence_comes_in_the_order_of_the_sheet),
        cmocka_unit_test(later_presence_goes_to_contacts_without_probes),
        cmocka_unit_test(unavailable_reaches_contacts_and_the_sender_once),
        cmocka_unit_test(a_session_that_ends_is_unavailable_to_all_who_saw_it),
        cmocka_unit_test(directed_presence_taken_back_is_not_taken_back_again),
        cmocka_unit_test(the_list_of_directed_presence_is_bounded),
        cmocka_unit_test(a_strangers_probe_is_answered_unsubscribed_whoever_is_asked),
        cmocka_unit_test(a_clients_probe_of_one_who_is_away_is_answered),
        cmocka_unit_test(priorities_that_are_none_count_as_zero),
        cmocka_unit_test(one_frame_carries_a_broadcast_to_a_shard),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
