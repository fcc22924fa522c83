/* Client State Indication (XEP-0352) at the home: what waits, what goes, and in which order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "node/home/inside.h"
#include "tests/unit/support/home_rig.h"

#define EVENT(node, inner) \
    "<message from='carol@localhost' to='alice@localhost/x' type='headline'>" \
    "<event xmlns='http://jabber.org/protocol/pubsub#event'><items node='" node "'>" inner \
    "</items></event></message>"
#define TYPING \
    "<message to='alice@localhost/x' type='chat'>" \
    "<composing xmlns='http://jabber.org/protocol/chatstates'/></message>"

struct cast {
    struct rig *r;
    struct client alice, bob;
    uint64_t ord;
};

static void open_cast(struct cast *x, const char *const *settings)
{
    *x = (struct cast){.r = rig_open(settings)};
    rig_user(x->r, "alice@localhost");
    rig_user(x->r, "bob@localhost");
    assert_int_equal(rig_bind(x->r, &x->alice, 0, "alice@localhost", "x"), ERR_OK);
    assert_int_equal(rig_bind(x->r, &x->bob, 1, "bob@localhost", "b"), ERR_OK);
    rig_online(&x->alice, 0);
    rig_online(&x->bob, 0);
    rig_csi(&x->alice, true);
}

static void inject(struct cast *x, const char *xml)
{
    rig_inject(x->r, xml, (struct uid){7, ++x->ord, 0}, 0);
    rig_run(x->r);
}

static void presence(struct cast *x, const char *from, const char *inner)
{
    char xml[512];
    snprintf(xml, sizeof xml, "<presence from='%s' to='alice@localhost/x'>%s</presence>", from,
             inner);
    inject(x, xml);
}

static void presence_waits_and_the_last_of_each_resource_goes(void **state)
{
    struct cast x;
    open_cast(&x, NULL);
    presence(&x, "carol@localhost/1", "<show>away</show>");
    presence(&x, "carol@localhost/2", "<show>xa</show>");
    presence(&x, "carol@localhost/1", "<show>dnd</show>");
    rig_expect_nothing(&x.alice);
    rig_csi(&x.alice, false);
    rig_expect(&x.alice, "<show>xa</show>");
    rig_expect(&x.alice, "<show>dnd</show>");
    rig_expect_nothing(&x.alice);
    presence(&x, "carol@localhost/1", "<show>chat</show>"); /* active: at once */
    rig_expect(&x.alice, "<show>chat</show>");
    rig_close(x.r);
}

static void a_message_brings_all_that_waits_before_it(void **state)
{
    struct cast x;
    open_cast(&x, NULL);
    presence(&x, "carol@localhost/1", "<show>away</show>");
    rig_send(&x.bob, TYPING);
    rig_send(&x.bob, TYPING);
    rig_run(x.r);
    inject(&x, "<message from='carol@localhost' to='alice@localhost/x' type='headline'>"
               "<body>news</body></message>");
    rig_expect_nothing(&x.alice);
    rig_send(&x.bob, "<message to='alice@localhost/x' type='chat'><body>hello</body></message>");
    rig_expect(&x.alice, "<show>away</show>");
    rig_expect(&x.alice, "<composing");
    rig_expect(&x.alice, "news");
    rig_expect(&x.alice, "hello");
    presence(&x, "carol@localhost/1", "<show>xa</show>"); /* it is inactive still */
    rig_expect_nothing(&x.alice);
    rig_close(x.r);
}

static void what_is_more_than_state_goes_at_once(void **state)
{
    static const char *const rows[] = {
        "<presence from='carol@localhost' to='alice@localhost' type='subscribe'/>",
        "<presence from='carol@localhost/1' to='alice@localhost/x' type='error'/>",
        "<message from='carol@localhost/1' to='alice@localhost/x' type='error'><error/></message>",
        "<message from='r@c/n' to='alice@localhost/x' type='groupchat'><body>x</body></message>",
        ("<message from='carol@localhost/1' to='alice@localhost/x'>"
         "<received xmlns='urn:xmpp:receipts' id='1'/></message>"),
        "<iq from='carol@localhost/1' to='alice@localhost/x' type='get' id='1'><x xmlns='x'/></iq>",
        "<iq from='carol@localhost/1' to='alice@localhost/x' type='result' id='1'/>",
    };
    struct cast x;
    open_cast(&x, NULL);
    for (size_t i = 0; i < array_len(rows); i++) {
        print_message("%s\n", rows[i]);
        inject(&x, rows[i]);
        rig_stanza(&x.alice);
    }
    rig_close(x.r);
}

static void events_about_one_item_replace_each_other_and_others_do_not(void **state)
{
    struct cast x;
    open_cast(&x, NULL);
    inject(&x, EVENT("urn:a", "<item id='1'><a/></item>"));
    inject(&x, EVENT("urn:a", "<item id='2'><b/></item>"));
    inject(&x, EVENT("urn:b", "<item id='1'><c/></item>"));
    inject(&x, EVENT("urn:a", "<retract id='1'/>"));
    rig_expect_nothing(&x.alice);
    rig_csi(&x.alice, false);
    rig_expect(&x.alice, "<b/>");
    rig_expect(&x.alice, "<c/>");
    rig_expect(&x.alice, "<retract id='1'/>");
    rig_expect_nothing(&x.alice);
    rig_close(x.r);
}

static void an_answer_to_the_client_comes_behind_what_waited(void **state)
{
    struct cast x;
    open_cast(&x, NULL);
    presence(&x, "carol@localhost/1", "<show>away</show>");
    rig_send(&x.alice, "<iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>");
    rig_expect(&x.alice, "<show>away</show>");
    rig_expect(&x.alice, "type='result'");
    rig_close(x.r);
}

static void no_more_waits_than_the_bound_allows(void **state)
{
    static const char *const settings[] = {"modules.csi.queue_max=10", NULL};
    struct cast x;
    open_cast(&x, settings);
    for (int i = 0; i < 11; i++) {
        char from[64];
        rig_expect_nothing(&x.alice);
        snprintf(from, sizeof from, "carol@localhost/%d", i);
        presence(&x, from, "");
    }
    for (int i = 0; i < 11; i++)
        rig_stanza(&x.alice);
    rig_expect_nothing(&x.alice);
    rig_close(x.r);
}

static void a_resumed_client_is_active_and_is_given_what_waited(void **state)
{
    struct cast x;
    open_cast(&x, NULL);
    rig_enable(&x.alice, 60000);
    presence(&x, "carol@localhost/1", "<show>away</show>");
    rig_detach(&x.alice);
    presence(&x, "carol@localhost/1", "<show>dnd</show>");
    rig_resume(&x.alice, 1, 0);
    rig_run(x.r);
    assert_int_equal(rig_next(&x.alice)->frame.kind, FRAME_RESUMED);
    x.alice.gen++;
    rig_expect(&x.alice, "<show>dnd</show>");
    rig_expect_nothing(&x.alice);
    presence(&x, "carol@localhost/1", "<show>chat</show>"); /* 5.2: not restored */
    rig_expect(&x.alice, "<show>chat</show>");
    rig_close(x.r);
}

static void what_waits_counts_as_safe(void **state)
{
    struct cast x;
    open_cast(&x, NULL);
    rig_hold_out(x.r, true);
    rig_send(&x.bob, TYPING);
    rig_run(x.r);
    assert_int_equal(x.bob.safe, x.bob.ord);
    rig_end(&x.alice); /* and goes nowhere when the session ends */
    rig_expect_nothing(&x.bob);
    rig_hold_out(x.r, false);
    rig_close(x.r);
}

/* As a new home does (attach.c): a contact's server says what there is to see, whatever was said
 * before. */
static void asked_for_all_a_contact_shows_first_that_nothing_is_and_then_what_is(void **state)
{
    struct cast x;
    open_cast(&x, NULL);
    rig_csi(&x.alice, false);
    rig_send(&x.alice, "<presence type='subscribe' to='bob@localhost'/>");
    rig_run(x.r);
    rig_send(&x.bob, "<presence type='subscribed' to='alice@localhost'/>");
    rig_run(x.r);
    rig_forget(&x.alice), rig_forget(&x.bob);
    struct home *h = rig_home(x.r, rig_home_of(x.r, "alice@localhost"));
    presence_ask_all(session_find(h, x.alice.sid));
    rig_run(x.r);
    const char *xml = rig_stanza(&x.alice);
    assert_non_null(strstr(xml, "from='bob@localhost'"));
    assert_non_null(strstr(xml, "type='unavailable'"));
    rig_expect(&x.alice, "from='bob@localhost/b'");
    rig_expect_nothing(&x.alice);
    rig_expect_nothing(&x.bob);
    rig_close(x.r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(presence_waits_and_the_last_of_each_resource_goes),
        cmocka_unit_test(a_message_brings_all_that_waits_before_it),
        cmocka_unit_test(what_is_more_than_state_goes_at_once),
        cmocka_unit_test(events_about_one_item_replace_each_other_and_others_do_not),
        cmocka_unit_test(an_answer_to_the_client_comes_behind_what_waited),
        cmocka_unit_test(no_more_waits_than_the_bound_allows),
        cmocka_unit_test(a_resumed_client_is_active_and_is_given_what_waited),
        cmocka_unit_test(what_waits_counts_as_safe),
        cmocka_unit_test(asked_for_all_a_contact_shows_first_that_nothing_is_and_then_what_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
