/* Rosters (RFC 6121 2): get, set, pushes, errors, versions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "node/home/inside.h"
#include "tests/unit/support/home_rig.h"

#define GET "<iq type='get' id='g'><query xmlns='jabber:iq:roster'/></iq>"

static struct rig *open_one(struct client *alice)
{
    struct rig *r = rig_open(NULL);
    rig_user(r, "alice@localhost");
    rig_user(r, "bob@localhost");
    assert_int_equal(rig_bind(r, alice, 0, "alice@localhost", "x"), ERR_OK);
    return r;
}

static void set(struct client *c, const char *items)
{
    char xml[4096];
    snprintf(xml, sizeof xml,
             "<iq type='set' id='s'>"
             "<query xmlns='jabber:iq:roster'>%s</query></iq>",
             items);
    rig_send(c, xml);
}

static void an_empty_roster_has_a_version(void **state)
{
    struct client alice;
    struct rig *r = open_one(&alice);
    rig_send(&alice, GET);
    rig_run(r);
    const char *xml = rig_stanza(&alice);
    assert_non_null(strstr(xml, "<query xmlns='jabber:iq:roster' ver='"));
    assert_null(strstr(xml, "<item"));
    rig_close(r);
}

static void a_set_is_answered_and_then_pushed_to_who_is_interested(void **state)
{
    struct client alice, phone, shy;
    struct rig *r = open_one(&alice);
    assert_int_equal(rig_bind(r, &phone, 1, "alice@localhost", "phone"), ERR_OK);
    assert_int_equal(rig_bind(r, &shy, 1, "alice@localhost", "shy"), ERR_OK);
    rig_send(&alice, GET);
    rig_send(&phone, GET);
    rig_forget(&alice);
    rig_forget(&phone);
    set(&alice, "<item jid='Bob@LOCALHOST' name='B &amp; B' subscription='both'>"
                "<group>F</group></item>");
    rig_expect(&alice, "type='result'");
    rig_expect(&alice, "<item jid='bob@localhost' name='B &amp; B' subscription='none'>"
                       "<group>F</group>");
    rig_expect(&phone, "bob@localhost");
    rig_expect_nothing(&shy);
    rig_expect_nothing(&alice);
    rig_close(r);
}

static void a_roster_survives_its_user(void **state)
{
    struct client alice;
    struct rig *r = open_one(&alice);
    set(&alice, "<item jid='bob@localhost' name='B'><group>one</group><group>two</group></item>");
    rig_forget(&alice);
    rig_end(&alice);
    rig_pass(r, 62000);
    assert_int_equal(rig_node(r, 0)->metrics->value[METRIC_users_loaded], 0);
    assert_int_equal(rig_bind(r, &alice, 0, "alice@localhost", "x"), ERR_OK);
    rig_send(&alice, GET);
    rig_expect(&alice, "<group>one</group><group>two</group>");
    rig_close(r);
}

static void a_bad_set_is_refused_as_the_rfc_says(void **state)
{
    static const struct {
        const char *items, *condition;
    } rows[] = {
        {"", "<bad-request"},
        {"<item/>", "<bad-request"},
        {"<item jid='a@localhost'/><item jid='b@localhost'/>", "<bad-request"},
        {"<item jid='a@localhost'><group>x</group><group>x</group></item>", "<bad-request"},
        {"<item jid='a@localhost/r'/>", "<bad-request"},
        {"<item jid='@localhost'/>", "<jid-malformed"},
        {"<item jid='a@localhost'><group/></item>", "<not-acceptable"},
        {"<item jid='alice@localhost'/>", "<not-allowed"},
        {"<item jid='a@localhost' subscription='remove'/>", "<item-not-found"},
    };
    struct client alice;
    struct rig *r = open_one(&alice);
    for (size_t i = 0; i < array_len(rows); i++) {
        set(&alice, rows[i].items);
        rig_expect(&alice, rows[i].condition);
        rig_expect_nothing(&alice);
    }
    char long_name[2048];
    snprintf(long_name, sizeof long_name, "<item jid='a@localhost' name='%01024d'/>", 1);
    set(&alice, long_name);
    rig_expect(&alice, "<not-acceptable");
    rig_conf(r)->limits_roster_max = 1;
    set(&alice, "<item jid='a@localhost'/>");
    rig_expect(&alice, "type='result'");
    set(&alice, "<item jid='b@localhost'/>");
    rig_expect(&alice, "<resource-constraint");
    set(&alice, "<item jid='a@localhost' name='again'/>");
    rig_expect(&alice, "type='result'");
    rig_close(r);
}

static void a_removed_contact_is_told_and_forgotten(void **state)
{
    struct client alice, bob;
    struct rig *r = open_one(&alice);
    assert_int_equal(rig_bind(r, &bob, 1, "bob@localhost", "x"), ERR_OK);
    rig_send(&alice, GET);
    rig_send(&bob, GET);
    rig_online(&alice, 0);
    rig_online(&bob, 0);
    rig_send(&alice, "<presence type='subscribe' to='bob@localhost'/>");
    rig_run(r);
    rig_send(&bob, "<presence type='subscribed' to='alice@localhost'/>");
    rig_send(&bob, "<presence type='subscribe' to='alice@localhost'/>");
    rig_run(r);
    rig_send(&alice, "<presence type='subscribed' to='bob@localhost'/>");
    rig_forget(&alice);
    rig_forget(&bob);
    set(&alice, "<item jid='bob@localhost' subscription='remove'/>");
    rig_expect(&alice, "type='result'");
    rig_expect(&alice, "subscription='remove'");
    bool unsubscribe = false, unsubscribed = false, unavailable = false;
    for (const struct note *n = rig_next(&bob); n; n = rig_next(&bob)) {
        unsubscribe |= strstr(n->xml, "type='unsubscribe'") != NULL;
        unsubscribed |= strstr(n->xml, "type='unsubscribed'") != NULL;
        unavailable |= strstr(n->xml, "type='unavailable'") != NULL;
    }
    assert_true(unsubscribe && unsubscribed && unavailable);
    rig_send(&alice, GET);
    const char *xml;
    do {
        rig_run(r);
        xml = rig_stanza(&alice);
    } while (!strstr(xml, "id='g'"));
    assert_null(strstr(xml, "<item"));
    rig_close(r);
}

static void version_of(const char *xml, char out[64])
{
    const char *p = strstr(xml, "ver='");
    assert_non_null(p);
    sscanf(p, "ver='%63[^']'", out);
}

static void ask_since(struct client *c, const char *version)
{
    char xml[256];
    snprintf(xml, sizeof xml,
             "<iq type='get' id='v'>"
             "<query xmlns='jabber:iq:roster' ver='%s'/></iq>",
             version);
    rig_send(c, xml);
}

static void an_old_version_brings_each_changed_contact_once_in_order(void **state)
{
    struct client alice;
    struct rig *r = open_one(&alice);
    char old[64], now[64];
    set(&alice, "<item jid='a@localhost'/>");
    set(&alice, "<item jid='b@localhost'/>");
    set(&alice, "<item jid='d@localhost'/>"); /* the last that its client knows */
    rig_forget(&alice);
    rig_send(&alice, GET);
    rig_run(r);
    version_of(rig_stanza(&alice), old);
    ask_since(&alice, old);
    rig_expect(&alice, "id='v'");
    rig_expect_nothing(&alice);
    set(&alice, "<item jid='b@localhost' name='1'/>");
    set(&alice, "<item jid='c@localhost'/>");
    set(&alice, "<item jid='b@localhost' name='2'/>");
    set(&alice, "<item jid='a@localhost' subscription='remove'/>");
    rig_forget(&alice);
    rig_end(&alice);
    rig_pass(r, 62000); /* the log is the store's too */
    assert_int_equal(rig_bind(r, &alice, 0, "alice@localhost", "x"), ERR_OK);
    ask_since(&alice, old);
    rig_run(r);
    assert_null(strstr(rig_stanza(&alice), "<query"));
    rig_expect(&alice, "c@localhost");
    rig_expect(&alice, "name='2'");
    const char *last = rig_stanza(&alice);
    assert_non_null(strstr(last, "subscription='remove'"));
    version_of(last, now);
    rig_expect_nothing(&alice);
    ask_since(&alice, now);
    rig_expect(&alice, "id='v'");
    rig_expect_nothing(&alice);
    rig_close(r);
}

static void a_version_of_another_time_brings_the_whole(void **state)
{
    static const char *const versions[] = {"",     "7",    "1.9999", "0.0",
                                           "1.-1", "1.1x", "x.1",    "ffffffffffffffffffffffff.1"};
    struct client alice;
    struct rig *r = open_one(&alice);
    set(&alice, "<item jid='a@localhost'/>");
    rig_forget(&alice);
    for (size_t i = 0; i < array_len(versions); i++) {
        ask_since(&alice, versions[i]);
        rig_expect(&alice, "<item jid='a@localhost'");
        rig_expect_nothing(&alice);
    }
    rig_close(r);
}

static void more_changes_than_the_log_holds_bring_the_whole(void **state)
{
    struct client alice;
    struct rig *r = open_one(&alice);
    char old[64];
    set(&alice, "<item jid='a@localhost'/>");
    rig_forget(&alice);
    rig_send(&alice, GET);
    rig_run(r);
    version_of(rig_stanza(&alice), old);
    for (int i = 0; i <= ROSTER_LOG; i++) {
        set(&alice, "<item jid='b@localhost'/>");
        rig_forget(&alice);
        rig_cack(&alice, alice.out_seq);
    }
    rig_forget(&alice);
    ask_since(&alice, old);
    rig_expect(&alice, "<item jid='a@localhost'");
    rig_close(r);
}

/* The store did it, but nobody heard: the next change is not taken for the same one. */
static void a_change_whose_answer_was_lost_does_not_swallow_the_next(void **state)
{
    struct rig *r = rig_open(NULL);
    struct client c;
    rig_user(r, "alice@localhost");
    assert_int_equal(rig_bind(r, &c, 0, "alice@localhost", "x"), ERR_OK);
    fake_store_lose_next(rig_store(r), 1);
    set(&c, "<item jid='lost@localhost'/>");
    rig_expect(&c, "type='error'");
    set(&c, "<item jid='kept@localhost'/>");
    rig_expect(&c, "type='result'");
    rig_end(&c);
    for (int i = 0; i < 70; i++)
        rig_pass(r, 1000); /* it is forgotten, and loaded again */
    assert_int_equal(rig_bind(r, &c, 0, "alice@localhost", "x"), ERR_OK);
    rig_send(&c, "<iq type='get' id='g'><query xmlns='jabber:iq:roster'/></iq>");
    rig_expect(&c, "kept@localhost");
    rig_close(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_roster_has_a_version),
        cmocka_unit_test(a_set_is_answered_and_then_pushed_to_who_is_interested),
        cmocka_unit_test(a_roster_survives_its_user),
        cmocka_unit_test(a_bad_set_is_refused_as_the_rfc_says),
        cmocka_unit_test(a_removed_contact_is_told_and_forgotten),
        cmocka_unit_test(an_old_version_brings_each_changed_contact_once_in_order),
        cmocka_unit_test(a_version_of_another_time_brings_the_whole),
        cmocka_unit_test(more_changes_than_the_log_holds_bring_the_whole),
        cmocka_unit_test(a_change_whose_answer_was_lost_does_not_swallow_the_next),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
