/* XEP-0160: what is kept (xmpp.md 5), in which order it is given out, when it is gone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "tests/unit/support/home_rig.h"

static struct rig *open_with(struct client *alice, const char *setting)
{
    const char *settings[] = {setting, NULL};
    struct rig *r = rig_open(setting ? settings : NULL);
    rig_user(r, "alice@localhost");
    rig_user(r, "bob@localhost");
    assert_int_equal(rig_bind(r, alice, 0, "alice@localhost", "x"), ERR_OK);
    return r;
}

static void say(struct client *from, const char *body)
{
    char xml[256];
    snprintf(xml, sizeof xml, "<message to='bob@localhost' type='chat'><body>%s</body></message>",
             body);
    rig_send(from, xml);
}

static uint64_t stored(struct rig *r)
{
    return rig_node(r, 0)->metrics->value[METRIC_offline_stored];
}

#define TO_BOB "<message to='bob@localhost' type='chat'>"

static void only_what_is_worth_it_is_kept(void **state)
{
    static const struct {
        const char *xml;
        bool kept;
        const char *answer;
    } rows[] = {
        {TO_BOB "<body>x</body></message>", true, NULL},
        {TO_BOB "<composing xmlns='http://jabber.org/protocol/chatstates'/></message>", false,
         NULL},
        {TO_BOB "<body>x</body><no-store xmlns='urn:xmpp:hints'/></message>", false,
         "<service-unavailable"},
        {TO_BOB "<active xmlns='http://jabber.org/protocol/chatstates'/>"
                "<store xmlns='urn:xmpp:hints'/></message>",
         true, NULL},
        {TO_BOB "<received xmlns='urn:xmpp:receipts' id='1'/></message>", true, NULL},
        {"<message to='bob@localhost'><x xmlns='some:thing'/></message>", true, NULL},
    };
    for (size_t i = 0; i < array_len(rows); i++) {
        struct client alice;
        struct rig *r = open_with(&alice, NULL);
        rig_send(&alice, rows[i].xml);
        rig_run(r);
        if (stored(r) != rows[i].kept)
            fail_msg("%s: kept %d", rows[i].xml, (int)stored(r));
        if (rows[i].answer)
            rig_expect(&alice, rows[i].answer);
        rig_expect_nothing(&alice);
        rig_close(r);
    }
}

static void messages_are_given_out_in_order_with_the_time_they_came(void **state)
{
    struct client alice, bob;
    struct rig *r = open_with(&alice, NULL);
    char body[16];
    for (int i = 0; i < 120; i++) { /* more than two pages */
        snprintf(body, sizeof body, "m%d.", i);
        say(&alice, body);
        rig_run(r);
    }
    assert_int_equal(stored(r), 120);
    assert_int_equal(rig_bind(r, &bob, 1, "bob@localhost", "x"), ERR_OK);
    rig_send(&bob, "<presence/>");
    rig_expect(&bob, "<presence");
    for (int i = 0; i < 120; i++) {
        snprintf(body, sizeof body, ">m%d.<", i);
        const char *xml = rig_stanza(&bob);
        assert_non_null(strstr(xml, body));
        assert_non_null(strstr(xml, "<delay xmlns='urn:xmpp:delay' from='localhost'"));
    }
    rig_expect_nothing(&bob);
    rig_close(r);
}

static void a_negative_priority_gets_none_until_it_is_raised(void **state)
{
    struct client alice, bob;
    struct rig *r = open_with(&alice, NULL);
    say(&alice, "later");
    rig_run(r);
    assert_int_equal(rig_bind(r, &bob, 1, "bob@localhost", "x"), ERR_OK);
    rig_online(&bob, -1);
    rig_send(&bob, "<presence><priority>3</priority></presence>");
    rig_expect(&bob, "<priority>3");
    rig_expect(&bob, "later");
    rig_close(r);
}

static void what_comes_live_meanwhile_waits_behind(void **state)
{
    struct client alice, bob;
    struct rig *r = open_with(&alice, NULL);
    say(&alice, "first");
    rig_run(r);
    assert_int_equal(rig_bind(r, &bob, 1, "bob@localhost", "x"), ERR_OK);
    fake_store_pause(rig_store(r), true);
    rig_send(&bob, "<presence/>");
    rig_expect(&bob, "<presence");
    say(&alice, "second");
    rig_expect_nothing(&bob);
    fake_store_pause(rig_store(r), false);
    rig_expect(&bob, "first");
    rig_expect(&bob, "second");
    rig_close(r);
}

static void a_row_is_gone_when_the_client_has_it_and_not_before(void **state)
{
    struct client alice, bob;
    struct rig *r = open_with(&alice, NULL);
    say(&alice, "once");
    rig_run(r);
    assert_int_equal(rig_bind(r, &bob, 1, "bob@localhost", "x"), ERR_OK);
    rig_send(&bob, "<presence/>");
    rig_expect(&bob, "<presence");
    rig_expect(&bob, "once");
    rig_end(&bob);                  /* it has not said that it has it */
    assert_int_equal(stored(r), 1); /* the row has never left */
    assert_int_equal(rig_bind(r, &bob, 1, "bob@localhost", "x"), ERR_OK);
    rig_send(&bob, "<presence/>");
    rig_expect(&bob, "<presence");
    rig_expect(&bob, "once");
    rig_cack(&bob, bob.out_seq);
    rig_end(&bob);
    rig_pass(r, 62000); /* what the store has is looked at anew */
    assert_int_equal(rig_bind(r, &bob, 1, "bob@localhost", "x"), ERR_OK);
    rig_send(&bob, "<presence/>");
    rig_expect(&bob, "<presence");
    rig_expect_nothing(&bob);
    rig_close(r);
}

static void a_full_store_is_told_to_the_sender(void **state)
{
    struct client alice;
    struct rig *r = open_with(&alice, "host[localhost].offline_max=2");
    say(&alice, "1");
    say(&alice, "2");
    say(&alice, "3");
    rig_expect(&alice, "<service-unavailable");
    rig_expect_nothing(&alice);
    assert_int_equal(stored(r), 2);
    rig_close(r);
}

static void a_write_without_an_answer_is_tried_again_and_stored_once(void **state)
{
    struct client alice, bob;
    struct rig *r = open_with(&alice, NULL);
    say(&alice, "load bob");
    rig_run(r);
    fake_store_fail_next(rig_store(r), 2, ERR_AWAY);
    say(&alice, "again");
    rig_expect_nothing(&alice);
    assert_int_equal(alice.safe, 2);
    assert_int_equal(stored(r), 2);
    assert_int_equal(rig_bind(r, &bob, 1, "bob@localhost", "x"), ERR_OK);
    rig_send(&bob, "<presence/>");
    rig_expect(&bob, "<presence");
    rig_expect(&bob, "load bob");
    rig_expect(&bob, "again");
    rig_expect_nothing(&bob);
    rig_close(r);
}

static void who_comes_while_a_message_is_written_gets_it_too(void **state)
{
    struct client alice, bob;
    struct rig *r = open_with(&alice, NULL);
    assert_int_equal(rig_bind(r, &bob, 1, "bob@localhost", "x"), ERR_OK);
    fake_store_pause(rig_store(r), true);
    say(&alice, "crossing");
    rig_run(r);
    rig_send(&bob, "<presence/>");
    rig_expect(&bob, "<presence");
    say(&alice, "live");
    rig_expect_nothing(&bob);
    fake_store_pause(rig_store(r), false);
    rig_expect(&bob, "crossing");
    rig_expect(&bob, "live");
    rig_expect_nothing(&bob);
    rig_close(r);
}

static void a_failed_resumption_takes_back_what_its_client_had(void **state)
{
    struct client alice, bob;
    struct rig *r = open_with(&alice, NULL);
    assert_int_equal(rig_bind(r, &bob, 1, "bob@localhost", "x"), ERR_OK);
    rig_online(&bob, 0);
    rig_enable(&bob, 1000);
    say(&alice, "had it");
    say(&alice, "had it not");
    rig_forget(&bob);
    rig_detach(&bob);
    rig_pass(r, 3000);
    assert_int_equal(stored(r), 2);
    rig_resume(&bob, 1, 1);
    rig_run(r);
    assert_int_equal(rig_next(&bob)->frame.kind, FRAME_FAILED);
    assert_int_equal(rig_bind(r, &bob, 1, "bob@localhost", "x"), ERR_OK);
    rig_send(&bob, "<presence/>");
    rig_expect(&bob, "<presence");
    rig_expect(&bob, "had it not");
    rig_expect_nothing(&bob);
    rig_close(r);
}

/* What was given out from the store and not counted by its session's end. */
static void a_failed_resumption_takes_back_stored_messages_too(void **state)
{
    struct client alice, bob;
    struct rig *r = open_with(&alice, NULL);
    say(&alice, "had it");
    say(&alice, "had it not");
    rig_run(r);
    assert_int_equal(rig_bind(r, &bob, 1, "bob@localhost", "x"), ERR_OK);
    rig_enable(&bob, 1000);
    rig_online(&bob, 0); /* its own presence is 1 */
    rig_detach(&bob);
    rig_pass(r, 3000);
    rig_resume(&bob, 1, 2);
    rig_run(r);
    assert_int_equal(rig_next(&bob)->frame.kind, FRAME_FAILED);
    assert_int_equal(rig_bind(r, &bob, 1, "bob@localhost", "x"), ERR_OK);
    rig_send(&bob, "<presence/>");
    rig_expect(&bob, "<presence");
    rig_expect(&bob, "had it not");
    rig_expect_nothing(&bob);
    rig_close(r);
}

/* The resource that was given them goes: the next one gets the rest at once. */
static void who_takes_no_more_messages_leaves_them_to_another(void **state)
{
    static const char *const ways[] = {"<presence type='unavailable'/>",
                                       "<presence><priority>-1</priority></presence>", NULL};
    for (int way = 0; way < 3; way++) {
        const char *settings[] = {"limits.unacked_max=16", NULL};
        struct rig *r = rig_open(settings);
        struct client alice, first, second;
        rig_user(r, "alice@localhost");
        rig_user(r, "bob@localhost");
        assert_int_equal(rig_bind(r, &alice, 0, "alice@localhost", "x"), ERR_OK);
        for (int i = 0; i < 12; i++) {
            rig_send(&alice, "<message to='bob@localhost' type='chat'><body>m</body></message>");
            rig_run(r);
        }
        assert_int_equal(rig_bind(r, &first, 0, "bob@localhost", "1"), ERR_OK);
        assert_int_equal(rig_bind(r, &second, 1, "bob@localhost", "2"), ERR_OK);
        rig_online(&first, 0);
        rig_online(&second, 0);
        rig_cack(&second, second.out_seq);
        if (ways[way])
            rig_send(&first, ways[way]);
        else
            rig_end(&first);
        rig_run(r);
        unsigned got = 0;
        for (const struct note *n = rig_next(&second); n; n = rig_next(&second)) {
            got += n->xml && strstr(n->xml, "<body>m") != NULL;
            rig_cack(&second, second.out_seq);
        }
        if (ways[way])
            assert_in_range(got, 1, 11); /* the first ones are in the other's queue */
        else
            assert_int_equal(got, 12);
        rig_close(r);
    }
}

static void a_senders_own_delay_is_not_taken_for_ours(void **state)
{
    struct client alice, bob;
    struct rig *r = rig_open(NULL);
    rig_user(r, "alice@localhost");
    rig_user(r, "bob@localhost");
    assert_int_equal(rig_bind(r, &alice, 0, "alice@localhost", "x"), ERR_OK);
    assert_int_equal(rig_bind(r, &bob, 1, "bob@localhost", "x"), ERR_OK);
    rig_send(&alice, "<message to='bob@localhost' type='chat'><body>b</body>"
                     "<delay xmlns='urn:xmpp:delay' from='localhost' stamp='2001-01-01T00:00:00Z'/>"
                     "</message>");
    rig_run(r);
    rig_send(&bob, "<presence/>");
    rig_expect(&bob, "<presence");
    const char *xml = rig_stanza(&bob), *first = strstr(xml, "urn:xmpp:delay");
    assert_non_null(first);
    const char *ours = strstr(first + 1, "urn:xmpp:delay");
    assert_non_null(ours);
    assert_non_null(strstr(ours, "stamp='2023-"));
    assert_null(strstr(ours + 1, "urn:xmpp:delay"));
    rig_close(r);
}

/* One was given live, one waits behind stored ones: the session's end stores them in that order. */
static void what_waited_is_stored_behind_what_was_given(void **state)
{
    struct client alice, bob;
    struct rig *r = rig_open(NULL);
    rig_user(r, "alice@localhost");
    rig_user(r, "bob@localhost");
    assert_int_equal(rig_bind(r, &alice, 0, "alice@localhost", "x"), ERR_OK);
    assert_int_equal(rig_bind(r, &bob, 1, "bob@localhost", "x"), ERR_OK);
    rig_online(&bob, 0);
    rig_cack(&bob, bob.out_seq);
    say(&alice, "given");
    rig_forget(&bob);
    rig_online(&bob, -1);
    say(&alice, "stored");
    rig_run(r);
    fake_store_pause(rig_store(r), true);
    rig_online(&bob, 0);
    say(&alice, "waits");
    rig_run(r);
    rig_end(&bob);
    fake_store_pause(rig_store(r), false);
    rig_run(r);
    assert_int_equal(rig_bind(r, &bob, 1, "bob@localhost", "x"), ERR_OK);
    rig_send(&bob, "<presence/>");
    rig_expect(&bob, "<presence");
    rig_expect(&bob, ">stored<");
    rig_expect(&bob, ">given<");
    rig_expect(&bob, ">waits<");
    rig_close(r);
}

/* A client that goes on under numbers that it has used says something new (delivery.md 2). */
static void another_message_under_an_old_number_is_stored_too(void **state)
{
    struct client alice, bob;
    struct rig *r = open_with(&alice, NULL);
    const struct uid uid = {99, 1, 0};
    const char *first = "<message from='alice@localhost/x' to='bob@localhost' type='chat' id='1'>"
                        "<body>first</body></message>";
    rig_inject(r, first, uid, 0);
    rig_inject(r, first, uid, FRAME_AGAIN);
    rig_inject(r,
               "<message from='alice@localhost/x' to='bob@localhost' type='chat' id='2'>"
               "<body>second</body></message>",
               uid, FRAME_AGAIN);
    rig_run(r);
    assert_int_equal(rig_bind(r, &bob, 1, "bob@localhost", "x"), ERR_OK);
    rig_send(&bob, "<presence/>");
    rig_expect(&bob, "<presence");
    rig_expect(&bob, ">first<");
    rig_expect(&bob, ">second<");
    rig_expect_nothing(&bob);
    rig_close(r);
}

static void a_page_that_does_not_come_is_asked_for_again(void **state)
{
    struct client alice, bob;
    struct rig *r = open_with(&alice, NULL);
    say(&alice, "stored");
    rig_run(r);
    assert_int_equal(rig_bind(r, &bob, 1, "bob@localhost", "x"), ERR_OK);
    fake_store_pause(rig_store(r), true);
    rig_online(&bob, 0);
    say(&alice, "live");
    rig_run(r);
    fake_store_fail_next(rig_store(r), 1, ERR_AWAY);
    fake_store_pause(rig_store(r), false);
    rig_expect(&bob, ">stored<");
    rig_expect(&bob, ">live<");
    rig_expect_nothing(&bob);
    rig_close(r);
}

/* What was stored when its resource was not there is given to another one: when that goes, or the
 * next page, it may be that resource's turn, and what is sent to it now is newer. */
static void what_comes_to_a_resource_waits_behind_what_was_stored_for_it(void **state)
{
    struct client alice, first, second;
    struct rig *r = open_with(&alice, NULL);
    rig_send(&alice, "<message to='bob@localhost/2' type='chat'><body>stored</body></message>");
    rig_run(r);
    assert_int_equal(rig_bind(r, &first, 0, "bob@localhost", "1"), ERR_OK);
    assert_int_equal(rig_bind(r, &second, 1, "bob@localhost", "2"), ERR_OK);
    fake_store_pause(rig_store(r), true);
    rig_online(&first, 0);
    rig_online(&second, 0);
    rig_send(&alice, "<message to='bob@localhost/2' type='chat'><body>newer</body></message>");
    rig_expect_nothing(&second);
    rig_end(&first);
    fake_store_pause(rig_store(r), false);
    rig_expect(&second, "unavailable");
    rig_expect(&second, ">stored<");
    rig_expect(&second, ">newer<");
    rig_expect_nothing(&second);
    rig_close(r);
}

/* Its sender's home has moved, so what follows is marked as coming again, although it has not. */
static void what_comes_again_is_not_given_before_what_waited(void **state)
{
    struct client alice, bob;
    struct rig *r = open_with(&alice, NULL);
    say(&alice, "stored");
    rig_run(r);
    assert_int_equal(rig_bind(r, &bob, 1, "bob@localhost", "x"), ERR_OK);
    fake_store_pause(rig_store(r), true);
    rig_send(&bob, "<presence/>");
    rig_expect(&bob, "<presence");
    for (unsigned i = 0; i < 2; i++) {
        char xml[128];
        snprintf(xml, sizeof xml,
                 "<message from='x@localhost/r' to='bob@localhost' type='chat' id='%u'>"
                 "<body>message %u</body></message>",
                 i, i);
        rig_inject(r, xml, (struct uid){77, 1 + i, 0}, i ? FRAME_AGAIN : 0);
        rig_run(r);
    }
    fake_store_pause(rig_store(r), false);
    rig_expect(&bob, "stored");
    rig_expect(&bob, "message 0");
    rig_expect(&bob, "message 1");
    rig_expect_nothing(&bob);
    rig_close(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_what_is_worth_it_is_kept),
        cmocka_unit_test(messages_are_given_out_in_order_with_the_time_they_came),
        cmocka_unit_test(a_negative_priority_gets_none_until_it_is_raised),
        cmocka_unit_test(what_comes_live_meanwhile_waits_behind),
        cmocka_unit_test(a_row_is_gone_when_the_client_has_it_and_not_before),
        cmocka_unit_test(a_full_store_is_told_to_the_sender),
        cmocka_unit_test(a_write_without_an_answer_is_tried_again_and_stored_once),
        cmocka_unit_test(who_comes_while_a_message_is_written_gets_it_too),
        cmocka_unit_test(a_failed_resumption_takes_back_what_its_client_had),
        cmocka_unit_test(a_failed_resumption_takes_back_stored_messages_too),
        cmocka_unit_test(who_takes_no_more_messages_leaves_them_to_another),
        cmocka_unit_test(a_senders_own_delay_is_not_taken_for_ours),
        cmocka_unit_test(what_waited_is_stored_behind_what_was_given),
        cmocka_unit_test(another_message_under_an_old_number_is_stored_too),
        cmocka_unit_test(a_page_that_does_not_come_is_asked_for_again),
        cmocka_unit_test(what_comes_again_is_not_given_before_what_waited),
        cmocka_unit_test(what_comes_to_a_resource_waits_behind_what_was_stored_for_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
