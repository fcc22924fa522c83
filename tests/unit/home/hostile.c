/* What a client may do on purpose: none of it stops a shard, keeps another one from logging in, or
 * makes anybody remember without a bound. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "node/home/inside.h"
#include "tests/unit/support/home_rig.h"

static struct rig *open_with(const char *setting, struct client *alice, struct client *bob)
{
    const char *settings[] = {setting, NULL};
    struct rig *r = rig_open(setting ? settings : NULL);
    rig_user(r, "alice@localhost");
    rig_user(r, "bob@localhost");
    assert_int_equal(rig_bind(r, alice, 0, "alice@localhost", "x"), ERR_OK);
    if (bob)
        assert_int_equal(rig_bind(r, bob, 1, "bob@localhost", "x"), ERR_OK);
    return r;
}

static void repeat(char *at, char c, size_t n)
{
    memset(at, c, n);
    at[n] = 0;
}

static void presence_to_many_long_names_takes_as_many_frames_as_it_needs(void **state)
{
    struct client alice;
    struct rig *r = open_with(NULL, &alice, NULL);
    char local[1000], resource[1000], xml[2200];
    repeat(local, 'l', sizeof local - 1);
    repeat(resource, 'r', sizeof resource - 1);
    for (int i = 0; i < 120; i++) {
        snprintf(xml, sizeof xml, "<presence to='%s%d@localhost/%s'/>", local, i, resource);
        rig_send(&alice, xml);
        rig_run(r);
    }
    rig_send(&alice, "<presence type='unavailable'/>");
    rig_run(r);
    assert_true(rig_routed(r, "alice@localhost/x", TYPE_UNAVAILABLE) > 2);
    rig_expect_nothing(&alice);
    rig_close(r);
}

/* Its own ping is answered behind a page of stored messages that the store is noting; a resumption
 * waits for that answer, and claims more than it was sent. */
static void a_resumption_behind_a_page_of_stored_messages_claims_too_much(void **state)
{
    struct client alice, bob;
    struct rig *r = open_with(NULL, &alice, &bob);
    rig_enable(&bob, 60000);
    rig_send(&alice, "<message to='bob@localhost' type='chat'><body>1</body></message>");
    rig_run(r);
    fake_store_pause(rig_store(r), true);
    rig_send(&bob, "<presence/>");
    rig_run(r);
    fake_store_step(rig_store(r)); /* the page is there, not yet noted */
    rig_send(&bob, "<iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>");
    rig_send(&bob, "<iq type='get' id='q'><ping xmlns='urn:xmpp:ping'/></iq>");
    rig_run(r);
    rig_detach(&bob);
    rig_resume(&bob, 0, 4);
    rig_run(r);
    fake_store_pause(rig_store(r), false);
    rig_run(r);
    const struct note *n = rig_next(&bob);
    assert_non_null(n);
    assert_int_equal(n->frame.kind, FRAME_RESUMED);
    rig_close(r);
}

/* A stranger has filled the store with long messages: more than a session may hold. */
static void more_stored_bytes_than_a_session_may_hold_come_page_by_page(void **state)
{
    struct client alice, bob;
    struct rig *r = open_with("limits.unacked_bytes_max=64k", &alice, &bob);
    static char xml[4096], body[3000];
    repeat(body, 'b', sizeof body - 1);
    for (int i = 0; i < 60; i++) {
        snprintf(xml, sizeof xml,
                 "<message to='bob@localhost' type='chat' id='%d'><body>%s</body>"
                 "</message>",
                 i, body);
        rig_send(&alice, xml);
        rig_run(r);
    }
    rig_send(&bob, "<presence/>");
    rig_expect(&bob, "<presence");
    for (int i = 0; i < 60;) {
        const struct note *n = rig_next(&bob);
        assert_non_null(n);
        assert_int_equal(n->frame.kind, FRAME_OUT);
        if (strstr(n->xml, "<message"))
            i++;
        rig_cack(&bob, bob.out_seq);
    }
    rig_expect_nothing(&bob);
    rig_close(r);
}

static void pages_are_smaller_than_a_small_queue(void **state)
{
    struct client alice, bob;
    struct rig *r = open_with("limits.unacked_max=16", &alice, &bob);
    for (int i = 0; i < 40; i++) {
        rig_send(&alice, "<message to='bob@localhost' type='chat'><body>b</body></message>");
        rig_run(r);
    }
    rig_send(&bob, "<presence/>");
    rig_run(r);
    for (int i = 0; i < 41; i++) {
        assert_non_null(strstr(rig_stanza(&bob), i ? "<message" : "<presence"));
        rig_cack(&bob, bob.out_seq);
    }
    rig_expect_nothing(&bob);
    rig_close(r);
}

static void a_request_to_subscribe_is_kept_only_if_it_is_short(void **state)
{
    struct client alice, bob;
    struct rig *r = open_with(NULL, &alice, &bob);
    rig_online(&bob, 0);
    static char xml[10000];
    int n = snprintf(xml, sizeof xml, "<presence type='subscribe' to='bob@localhost'><status>");
    repeat(xml + n, 's', 9000);
    strcat(xml, "</status></presence>");
    rig_send(&alice, xml);
    rig_expect(&alice, "<not-acceptable");
    rig_expect_nothing(&bob);
    rig_send(&alice, "<presence type='subscribe' to='bob@localhost'/>");
    rig_expect(&bob, "type='subscribe'");
    rig_close(r);
}

/* More requests than a session may hold at once do not end it. */
static void many_requests_wait_for_another_presence(void **state)
{
    struct client alice, bob, asker[30];
    struct rig *r = open_with("limits.unacked_max=16", &alice, &bob);
    for (int i = 0; i < 30; i++) {
        char jid[32];
        snprintf(jid, sizeof jid, "asker%d@localhost", i);
        rig_user(r, jid);
        assert_int_equal(rig_bind(r, &asker[i], 0, jid, "x"), ERR_OK);
        rig_send(&asker[i], "<presence type='subscribe' to='bob@localhost'/>");
        rig_run(r);
    }
    rig_send(&bob, "<presence/>");
    rig_run(r);
    unsigned shown = 0;
    for (const struct note *n = rig_next(&bob); n; n = rig_next(&bob)) {
        assert_int_equal(n->frame.kind, FRAME_OUT);
        shown += strstr(n->xml, "subscribe") != NULL;
    }
    assert_in_range(shown, 4, 16);
    rig_close(r);
}

static void a_guest_remembers_no_more_requests_than_an_account(void **state)
{
    struct client alice, bob, guest;
    struct rig *r = open_with("limits.subscribe_pending_max=1", &alice, &bob);
    struct user *u =
        user_anonymous(rig_home(r, rig_home_of(r, "guest@localhost")), STR("guest@localhost"));
    assert_int_equal(rig_bind(r, &guest, 0, "guest@localhost", "x"), ERR_OK);
    rig_send(&alice, "<presence type='subscribe' to='guest@localhost'/>");
    rig_send(&alice, "<presence type='subscribe' to='guest@localhost'/>");
    rig_run(r);
    rig_send(&bob, "<presence type='subscribe' to='guest@localhost'/>");
    rig_run(r);
    assert_int_equal(u->roster->pending_count, 1);
    assert_non_null(roster_pending(u, STR("alice@localhost")));
    rig_close(r);
}

/* Contacts are told at once; their answers come a share of the queue at a time. */
static void who_has_more_friends_than_his_queue_holds_can_log_in(void **state)
{
    enum { FRIENDS = 40 };
    struct client alice, bob, friend[FRIENDS];
    struct rig *r = open_with("limits.unacked_max=32", &alice, &bob);
    rig_online(&bob, 0);
    for (int i = 0; i < FRIENDS; i++) {
        char jid[32], xml[128];
        snprintf(jid, sizeof jid, "friend%d@localhost", i);
        rig_user(r, jid);
        assert_int_equal(rig_bind(r, &friend[i], i % 2, jid, "x"), ERR_OK);
        rig_online(&friend[i], 0);
        snprintf(xml, sizeof xml, "<presence type='subscribe' to='%s'/>", jid);
        rig_send(&bob, xml);
        rig_run(r);
        rig_send(&friend[i], "<presence type='subscribed' to='bob@localhost'/>");
        rig_forget(&bob);
        rig_cack(&bob, bob.out_seq);
    }
    rig_send(&bob, "<presence type='unavailable'/>");
    rig_forget(&bob);
    rig_cack(&bob, bob.out_seq);
    rig_send(&bob, "<presence/>");
    rig_run(r);
    unsigned seen = 0;
    for (const struct note *n = rig_next(&bob); n; n = rig_next(&bob)) {
        assert_int_equal(n->frame.kind, FRAME_OUT);
        seen += strstr(n->xml, "from='friend") != NULL;
        rig_cack(&bob, bob.out_seq);
    }
    assert_int_equal(seen, FRIENDS);
    rig_close(r);
}

/* Each answer is as long as his queue may be: what came behind the first too many is not run. */
static void who_asks_again_and_again_for_a_long_roster_gets_it_twice(void **state)
{
    struct client alice;
    struct rig *r = open_with("limits.unacked_bytes_max=64k", &alice, NULL);
    static char xml[1400], name[1001];
    repeat(name, 'n', 1000);
    for (int i = 0; i < 40; i++) {
        snprintf(xml, sizeof xml,
                 "<iq type='set' id='s'><query xmlns='jabber:iq:roster'>"
                 "<item jid='c%d@localhost' name='%s'/></query></iq>",
                 i, name);
        rig_send(&alice, xml);
        rig_run(r);
        rig_forget(&alice);
        rig_cack(&alice, alice.out_seq);
    }
    for (int i = 0; i < 30; i++)
        rig_send(&alice, "<iq type='get' id='g'><query xmlns='jabber:iq:roster'/></iq>");
    rig_run(r);
    unsigned n = 0;
    for (const struct note *note = rig_next(&alice); note; note = rig_next(&alice))
        n += note->frame.kind == FRAME_OUT;
    assert_int_equal(n, 2);
    rig_close(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(presence_to_many_long_names_takes_as_many_frames_as_it_needs),
        cmocka_unit_test(a_resumption_behind_a_page_of_stored_messages_claims_too_much),
        cmocka_unit_test(more_stored_bytes_than_a_session_may_hold_come_page_by_page),
        cmocka_unit_test(pages_are_smaller_than_a_small_queue),
        cmocka_unit_test(a_request_to_subscribe_is_kept_only_if_it_is_short),
        cmocka_unit_test(many_requests_wait_for_another_presence),
        cmocka_unit_test(a_guest_remembers_no_more_requests_than_an_account),
        cmocka_unit_test(who_has_more_friends_than_his_queue_holds_can_log_in),
        cmocka_unit_test(who_asks_again_and_again_for_a_long_roster_gets_it_twice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
