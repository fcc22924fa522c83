/* Blocking Command (XEP-0191): what matches, what requests must look like, what happens when the
 * store is slow or away. What a blocked contact sees is in tests/e2e/blocking. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "node/home/inside.h"
#include "tests/unit/support/home_rig.h"

#define NS "xmlns='urn:xmpp:blocking'"
#define JIDS(literal) str_from(literal, sizeof(literal) - 1)

static void a_jid_matches_by_section_6(void **state)
{
    static const struct {
        const char *jid;
        bool blocked;
    } rows[] = {
        {"one@a.example/x", true}, {"one@a.example/y", false}, {"one@a.example", false},
        {"two@a.example", true},   {"two@a.example/x", true},  {"twos@a.example", false},
        {"b.example/x", true},     {"b.example", false},       {"who@b.example/x", false},
        {"c.example", true},       {"who@c.example", true},    {"who@c.example/x", true},
        {"c.example/x", true},     {"sub.c.example", false},   {"a.example", false},
    };
    struct blocked *b =
        blocked_new(NULL, JIDS("one@a.example/x\0two@a.example\0b.example/x\0c.example\0"), true);
    assert_int_equal(blocked_count(b), 4);
    for (size_t i = 0; i < array_len(rows); i++) {
        print_message("%s\n", rows[i].jid);
        assert_int_equal(blocked_matches(b, str_of(rows[i].jid)), rows[i].blocked);
    }
    free(b);
}

static void a_list_is_a_set_that_keeps_its_order(void **state)
{
    struct blocked *one = blocked_new(NULL, JIDS("a\0b\0a\0\0c\0"), true);
    struct blocked *two = blocked_new(one, JIDS("d\0b\0"), true);
    struct blocked *three = blocked_new(two, JIDS("a\0x\0c\0"), false);
    assert_memory_equal(blocked_jids(two).p, "a\0b\0c\0d\0", 8);
    assert_int_equal(blocked_jids(two).n, 8);
    assert_memory_equal(blocked_jids(three).p, "b\0d\0", 4);
    assert_null(blocked_new(three, JIDS("d\0b\0"), false));
    free(one), free(two), free(three);
}

static struct rig *open_rig(struct client *alice, struct client *bob, const char *const *settings)
{
    struct rig *r = rig_open(settings);
    rig_user(r, "alice@localhost");
    rig_user(r, "bob@localhost");
    assert_int_equal(rig_bind(r, alice, 0, "alice@localhost", "x"), ERR_OK);
    assert_int_equal(rig_bind(r, bob, 1, "bob@localhost", "x"), ERR_OK);
    rig_online(alice, 0);
    rig_online(bob, 0);
    return r;
}

static void ask(struct client *c, const char *type, const char *payload)
{
    char xml[4096];
    snprintf(xml, sizeof xml, "<iq type='%s' id='q'>%s</iq>", type, payload);
    rig_send(c, xml);
}

static void requests_that_are_none_change_nothing(void **state)
{
    static const struct {
        const char *type, *payload, *answer;
    } rows[] = {
        {"set", "<block " NS "/>", "<bad-request"},
        {"set", "<block " NS "><item/></block>", "<bad-request"},
        {"set", "<block " NS "><item jid=''/></block>", "<bad-request"},
        {"set", "<block " NS "><item jid='bob@localhost'/><item jid='@'/></block>",
         "<jid-malformed"},
        {"set", "<block " NS "><other jid='bob@localhost'/></block>", "<bad-request"},
        {"set", "<block " NS "><item xmlns='urn:other' jid='bob@localhost'/></block>",
         "<bad-request"},
        {"set", "<unblock " NS "><item/></unblock>", "<bad-request"},
        {"set", "<blocklist " NS "/>", "<feature-not-implemented"},
        {"get", "<block " NS "/>", "<feature-not-implemented"},
        {"set", "<block " NS "><item jid='a'/><item jid='b'/><item jid='c'/></block>",
         "<resource-constraint"},
    };
    static const char *const settings[] = {"limits.blocklist_max=2", NULL};
    struct client alice, bob;
    struct rig *r = open_rig(&alice, &bob, settings);
    for (size_t i = 0; i < array_len(rows); i++) {
        print_message("%s\n", rows[i].payload);
        ask(&alice, rows[i].type, rows[i].payload);
        rig_expect(&alice, rows[i].answer);
    }
    ask(&alice, "get", "<blocklist " NS "/>");
    rig_expect(&alice, "<blocklist xmlns='urn:xmpp:blocking'/>");
    rig_expect_nothing(&alice);
    rig_close(r);
}

static void changes_of_two_resources_do_not_write_over_each_other(void **state)
{
    struct client alice, other, bob;
    struct rig *r = open_rig(&alice, &bob, NULL);
    assert_int_equal(rig_bind(r, &other, 1, "alice@localhost", "y"), ERR_OK);
    fake_store_pause(rig_store(r), true);
    ask(&alice, "set", "<block " NS "><item jid='a.example'/></block>");
    ask(&other, "set", "<block " NS "><item jid='b.example'/></block>");
    rig_run(r);
    rig_expect_nothing(&alice);
    fake_store_pause(rig_store(r), false);
    rig_run(r);
    rig_forget(&alice), rig_forget(&other);
    ask(&alice, "get", "<blocklist " NS "/>");
    rig_expect(&alice, "<item jid='a.example'/><item jid='b.example'/>");
    rig_close(r);
}

static void what_the_store_did_not_take_is_not_in_force(void **state)
{
    struct client alice, bob;
    struct rig *r = open_rig(&alice, &bob, NULL);
    fake_store_fail_next(rig_store(r), 1, ERR_IO);
    ask(&alice, "set", "<block " NS "><item jid='bob@localhost'/></block>");
    rig_expect(&alice, "<internal-server-error");
    rig_send(&bob, "<message to='alice@localhost' type='chat'><body>x</body></message>");
    rig_expect(&alice, "<body>x</body>");
    rig_close(r);
}

static void own_resources_are_never_blocked(void **state)
{
    struct client alice, bob;
    struct rig *r = open_rig(&alice, &bob, NULL);
    ask(&alice, "set",
        "<block " NS "><item jid='localhost'/><item jid='alice@localhost/x'/></block>");
    rig_expect(&alice, "type='result'");
    rig_send(&alice, "<message to='alice@localhost/x' type='chat'><body>x</body></message>");
    rig_expect(&alice, "<body>x</body>");
    rig_send(&alice, "<message to='bob@localhost' type='chat'><body>x</body></message>");
    rig_expect(&alice, "<blocked xmlns='urn:xmpp:blocking:errors'/>");
    rig_expect_nothing(&bob);
    rig_close(r);
}

static void a_list_comes_back_from_the_store(void **state)
{
    struct client alice, bob;
    struct rig *r = open_rig(&alice, &bob, NULL);
    ask(&alice, "set", "<block " NS "><item jid='Bob@LOCALHOST'/></block>");
    rig_expect(&alice, "type='result'");
    rig_end(&alice);
    rig_pass(r, USER_REST_MS + 2000);
    rig_run(r);
    assert_null(user_find(rig_home(r, rig_home_of(r, "alice@localhost")), STR("alice@localhost")));
    rig_send(&bob, "<message to='alice@localhost' type='chat' id='m'><body>x</body></message>");
    rig_expect(&bob, "<service-unavailable");
    rig_send(&bob, "<message to='alice@localhost' type='headline'><body>x</body></message>");
    rig_send(&bob, "<presence to='alice@localhost' type='probe'/>");
    rig_send(&bob, "<presence to='alice@localhost' type='subscribe'/>");
    rig_send(&bob, "<iq to='alice@localhost' type='result' id='r'/>");
    rig_expect_nothing(&bob);
    assert_int_equal(metric_get(rig_node(r, 0)->metrics, METRIC_offline_stored), 0);
    rig_close(r);
}

static void switched_off_nobody_is_blocked(void **state)
{
    struct client alice, bob;
    struct rig *r = open_rig(&alice, &bob, NULL);
    ask(&alice, "set", "<block " NS "><item jid='bob@localhost'/></block>");
    rig_expect(&alice, "type='result'");
    const struct user *u =
        user_find(rig_home(r, rig_home_of(r, "alice@localhost")), STR("alice@localhost"));
    assert_true(user_blocks(u, STR("bob@localhost/x")));
    rig_close(r);
    static const char *const settings[] = {"modules.off={blocking}", NULL};
    r = open_rig(&alice, &bob, settings);
    ask(&alice, "set", "<block " NS "><item jid='bob@localhost'/></block>");
    rig_expect(&alice, "<service-unavailable");
    rig_close(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_jid_matches_by_section_6),
        cmocka_unit_test(a_list_is_a_set_that_keeps_its_order),
        cmocka_unit_test(requests_that_are_none_change_nothing),
        cmocka_unit_test(changes_of_two_resources_do_not_write_over_each_other),
        cmocka_unit_test(what_the_store_did_not_take_is_not_in_force),
        cmocka_unit_test(own_resources_are_never_blocked),
        cmocka_unit_test(a_list_comes_back_from_the_store),
        cmocka_unit_test(switched_off_nobody_is_blocked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
