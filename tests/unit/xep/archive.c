/* A message's way into the archive (XEP-0313): ids, what delivery waits for, what is given back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "tests/unit/support/home_rig.h"

#define QUERY "<iq type='set' id='q'><query xmlns='urn:xmpp:mam:2'/></iq>"

static struct rig *open_two(struct client *alice, struct client *bob)
{
    struct rig *r = rig_open(NULL);
    rig_user(r, "alice@localhost");
    rig_user(r, "bob@localhost");
    assert_int_equal(rig_bind(r, alice, 0, "alice@localhost", "desk"), ERR_OK);
    assert_int_equal(rig_bind(r, bob, 1, "bob@localhost", "home"), ERR_OK);
    rig_online(bob, 0);
    return r;
}

/* The value of `id` behind this. */
static void id_behind(const char *xml, const char *what, char id[33])
{
    const char *at = strstr(xml, what);
    assert_non_null(at);
    at = strstr(at, " id='");
    assert_non_null(at);
    memcpy(id, at + 5, 32);
    id[32] = '\0';
    assert_int_equal(at[5 + 32], '\'');
}

static void delivery_does_not_wait_for_the_store_but_h_does(void **state)
{
    struct client alice, bob;
    struct rig *r = open_two(&alice, &bob);
    fake_store_pause(rig_store(r), true);
    rig_send(&alice, "<message to='bob@localhost' type='chat' id='m'><body>hi</body></message>");
    rig_expect(&bob, "<stanza-id xmlns='urn:xmpp:sid:0' by='bob@localhost'");
    assert_int_equal(alice.safe, 0);
    fake_store_pause(rig_store(r), false);
    rig_run(r);
    assert_int_equal(alice.safe, 1);
    rig_close(r);
}

static void what_comes_again_has_its_id_and_its_row(void **state)
{
    static const char xml[] = "<message from='carol@localhost/c' to='bob@localhost' type='chat'"
                              " id='m'><body>hi</body></message>";
    struct client alice, bob;
    char live[33], archived[33];
    struct rig *r = open_two(&alice, &bob);
    const struct uid uid = {77, 1, 0};
    fake_store_fail_next(rig_store(r), 1, ERR_DISK_FULL); /* the first row is lost */
    rig_inject(r, xml, uid, 0);
    rig_run(r);
    id_behind(rig_stanza(&bob), "<stanza-id", live);
    rig_inject(r, xml, uid, FRAME_AGAIN);
    rig_inject(r, xml, uid, FRAME_AGAIN);
    rig_expect_nothing(&bob);
    rig_send(&bob, QUERY);
    rig_run(r);
    const char *result = rig_stanza(&bob);
    id_behind(result, "<result", archived);
    assert_string_equal(live, archived);
    rig_expect(&bob, "complete='true'");
    rig_close(r);
}

static void an_id_tells_neither_time_nor_number(void **state)
{
    struct client alice, bob;
    char ids[2][33];
    struct rig *r = open_two(&alice, &bob);
    for (int i = 0; i < 2; i++) {
        rig_send(&alice, "<message to='bob@localhost' type='chat'><body>hi</body></message>");
        rig_run(r);
        id_behind(rig_stanza(&bob), "<stanza-id", ids[i]);
    }
    unsigned same = 0;
    for (int i = 0; i < 32; i++)
        same += ids[0][i] == ids[1][i];
    assert_in_range(same, 0, 12); /* two of 16^32 */
    rig_close(r);
}

static void a_message_that_waits_is_given_with_its_id(void **state)
{
    struct client alice, bob;
    char given[33], archived[33];
    struct rig *r = open_two(&alice, &bob);
    rig_end(&bob);
    rig_send(&alice, "<message to='bob@localhost' type='chat'><body>hi</body></message>");
    rig_run(r);
    assert_int_equal(rig_bind(r, &bob, 1, "bob@localhost", "home"), ERR_OK);
    rig_send(&bob, "<presence/>");
    rig_expect(&bob, "<presence");
    id_behind(rig_stanza(&bob), "<stanza-id", given);
    rig_send(&bob, QUERY);
    rig_run(r);
    id_behind(rig_stanza(&bob), "<result", archived);
    assert_string_equal(given, archived);
    rig_close(r);
}

static void a_session_that_ends_is_owed_no_page(void **state)
{
    struct client alice, bob;
    struct rig *r = open_two(&alice, &bob);
    rig_send(&alice, "<message to='bob@localhost' type='chat'><body>hi</body></message>");
    rig_run(r);
    fake_store_pause(rig_store(r), true);
    for (int i = 0; i < 3; i++) /* one is asked, two wait */
        rig_send(&bob, QUERY);
    rig_run(r);
    rig_end(&bob);
    fake_store_pause(rig_store(r), false);
    rig_run(r);
    rig_close(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(delivery_does_not_wait_for_the_store_but_h_does),
        cmocka_unit_test(what_comes_again_has_its_id_and_its_row),
        cmocka_unit_test(an_id_tells_neither_time_nor_number),
        cmocka_unit_test(a_message_that_waits_is_given_with_its_id),
        cmocka_unit_test(a_session_that_ends_is_owed_no_page),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
