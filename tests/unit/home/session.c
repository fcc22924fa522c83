/* Sessions: binding and its conflicts, XEP-0198's counts through a resumption, what becomes of a
 * session's queue when it ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "node/conf/draft.h"
#include "node/home/inside.h"
#include "tests/unit/support/home_rig.h"

static struct rig *open_with(const char *setting)
{
    const char *settings[] = {setting, NULL};
    struct rig *r = rig_open(setting ? settings : NULL);
    rig_user(r, "alice@localhost");
    rig_user(r, "bob@localhost");
    return r;
}

static void say(struct client *from, const char *to, const char *type, const char *body)
{
    char xml[256];
    snprintf(xml, sizeof xml, "<message to='%s' type='%s' id='i'><body>%s</body></message>", to,
             type, body);
    rig_send(from, xml);
}

static uint64_t stored(struct rig *r)
{
    return rig_node(r, 0)->metrics->value[METRIC_offline_stored];
}

static void an_account_that_is_not_there_cannot_bind(void **state)
{
    struct rig *r = open_with(NULL);
    struct client c;
    assert_int_equal(rig_bind(r, &c, 0, "nobody@localhost", "x"), ERR_STANZA_NOT_AUTHORIZED);
    rig_user(r, "nobody@localhost"); /* made a moment later: what we remember is no obstacle */
    assert_int_equal(rig_bind(r, &c, 0, "nobody@localhost", "x"), ERR_OK);
    rig_close(r);
}

static void an_empty_wish_gets_a_resource_that_nobody_can_guess(void **state)
{
    struct rig *r = open_with(NULL);
    struct client a, b;
    assert_int_equal(rig_bind(r, &a, 0, "alice@localhost", ""), ERR_OK);
    assert_int_equal(rig_bind(r, &b, 0, "alice@localhost", ""), ERR_OK);
    assert_true(strlen(a.full) >= strlen("alice@localhost/") + 16);
    assert_string_not_equal(a.full, b.full);
    rig_close(r);
}

static void the_same_resource_replaces_refuses_or_renames(void **state)
{
    struct rig *r = open_with(NULL);
    struct client old, now;
    assert_int_equal(rig_bind(r, &old, 0, "alice@localhost", "x"), ERR_OK);
    assert_int_equal(rig_bind(r, &now, 1, "alice@localhost", "x"), ERR_OK);
    const struct note *n = rig_next(&old);
    assert_non_null(n);
    assert_int_equal(n->frame.kind, FRAME_CLOSE);
    assert_int_equal(n->frame.reason, ERR_STREAM_CONFLICT);
    rig_close(r);

    r = open_with("host[localhost].conflict=refuse");
    assert_int_equal(rig_bind(r, &old, 0, "alice@localhost", "x"), ERR_OK);
    assert_int_equal(rig_bind(r, &now, 1, "alice@localhost", "x"), ERR_STANZA_CONFLICT);
    rig_expect_nothing(&old);
    rig_close(r);

    r = open_with("host[localhost].conflict=rename");
    assert_int_equal(rig_bind(r, &old, 0, "alice@localhost", "x"), ERR_OK);
    assert_int_equal(rig_bind(r, &now, 1, "alice@localhost", "x"), ERR_OK);
    assert_string_not_equal(old.full, now.full);
    rig_close(r);
}

static void a_replaced_session_is_unavailable_before_the_new_one_is_bound(void **state)
{
    struct rig *r = open_with(NULL);
    struct client other, old, now;
    assert_int_equal(rig_bind(r, &other, 0, "alice@localhost", "other"), ERR_OK);
    rig_online(&other, 0);
    assert_int_equal(rig_bind(r, &old, 0, "alice@localhost", "x"), ERR_OK);
    rig_online(&old, 0);
    rig_forget(&other);
    assert_int_equal(rig_bind(r, &now, 0, "alice@localhost", "x"), ERR_OK);
    rig_send(&now, "<presence/>");
    rig_expect(&other, "type='unavailable'");
    rig_expect(&other, "<presence");
    rig_close(r);
}

static void too_many_resources_are_refused(void **state)
{
    struct rig *r = open_with("limits.sessions_per_user_max=2");
    struct client a, b, c;
    assert_int_equal(rig_bind(r, &a, 0, "alice@localhost", ""), ERR_OK);
    assert_int_equal(rig_bind(r, &b, 0, "alice@localhost", ""), ERR_OK);
    assert_int_equal(rig_bind(r, &c, 0, "alice@localhost", ""), ERR_STANZA_RESOURCE_CONSTRAINT);
    rig_close(r);
}

static void a_guest_is_there_as_long_as_its_session(void **state)
{
    struct rig *r = open_with(NULL);
    struct user *u =
        user_anonymous(rig_home(r, rig_home_of(r, "guest@localhost")), STR("guest@localhost"));
    struct client guest, alice;
    assert_non_null(u);
    assert_int_equal(rig_bind(r, &guest, 0, "guest@localhost", "x"), ERR_OK);
    assert_int_equal(rig_bind(r, &alice, 1, "alice@localhost", "x"), ERR_OK);
    say(&alice, "guest@localhost/x", "chat", "welcome");
    rig_expect(&guest, "welcome");
    rig_end(&guest);
    say(&alice, "guest@localhost", "chat", "gone?");
    rig_expect(&alice, "<service-unavailable");
    rig_close(r);
}

static void stanzas_out_of_order_or_of_another_generation_are_ignored(void **state)
{
    struct rig *r = open_with(NULL);
    struct client alice, bob;
    assert_int_equal(rig_bind(r, &alice, 0, "alice@localhost", "x"), ERR_OK);
    assert_int_equal(rig_bind(r, &bob, 1, "bob@localhost", "x"), ERR_OK);
    alice.ord = 5;
    say(&alice, "bob@localhost/x", "chat", "six");
    rig_expect_nothing(&bob);
    alice.ord = 0, alice.gen = 9;
    say(&alice, "bob@localhost/x", "chat", "nine");
    rig_expect_nothing(&bob);
    alice.ord = 0, alice.gen = 1;
    say(&alice, "bob@localhost/x", "chat", "one");
    rig_expect(&bob, "one");
    rig_close(r);
}

static void a_stanza_is_safe_only_when_its_addressee_holds_it(void **state)
{
    struct rig *r = open_with(NULL);
    struct client alice, bob;
    assert_int_equal(rig_bind(r, &alice, 0, "alice@localhost", "x"), ERR_OK);
    assert_int_equal(rig_bind(r, &bob, 1, "bob@localhost", "x"), ERR_OK);
    rig_hold_out(r, true);
    say(&alice, "bob@localhost/x", "chat", "hi");
    rig_run(r);
    assert_int_equal(alice.safe, 0);
    rig_hold_out(r, false);
    rig_run(r);
    assert_int_equal(alice.safe, 1);
    rig_close(r);
}

static void a_resumed_session_gets_what_its_client_has_not_counted(void **state)
{
    struct rig *r = open_with(NULL);
    struct client alice, bob;
    assert_int_equal(rig_bind(r, &alice, 0, "alice@localhost", "x"), ERR_OK);
    assert_int_equal(rig_bind(r, &bob, 1, "bob@localhost", "x"), ERR_OK);
    rig_online(&bob, 0); /* one stanza out and one in before <enable/> */
    rig_enable(&bob, 60000);
    say(&bob, "alice@localhost/x", "chat", "counts");
    for (int i = 1; i <= 3; i++) {
        char body[8];
        snprintf(body, sizeof body, "m%d", i);
        say(&alice, "bob@localhost", "chat", body);
    }
    rig_forget(&bob);
    rig_detach(&bob);
    say(&alice, "bob@localhost", "chat", "m4");
    rig_run(r);
    assert_int_equal(alice.safe, alice.ord); /* detached counts as there */
    assert_int_equal(stored(r), 0);
    rig_resume(&bob, 0, 2);
    rig_run(r);
    const struct note *n = rig_next(&bob);
    assert_non_null(n);
    assert_int_equal(n->frame.kind, FRAME_RESUMED);
    assert_int_equal(n->frame.gen, 2);
    bob.gen = 2;
    rig_expect(&bob, "m3");
    rig_expect(&bob, "m4");
    rig_expect_nothing(&bob);
    say(&alice, "bob@localhost", "chat", "m5");
    rig_expect(&bob, "m5");
    rig_detach(&bob);
    rig_resume(&bob, 0, 1); /* its memory is older than what it told: what it told counts */
    rig_run(r);
    assert_int_equal(rig_next(&bob)->frame.kind, FRAME_RESUMED);
    bob.gen = 3;
    rig_expect(&bob, "m3");
    rig_expect(&bob, "m4");
    rig_expect(&bob, "m5");
    rig_expect_nothing(&bob);
    rig_close(r);
}

static void the_former_edge_forgets_a_queue_when_another_holds_it_or_it_is_stored(void **state)
{
    struct rig *r = open_with(NULL);
    struct client alice, bob;
    assert_int_equal(rig_bind(r, &alice, 0, "alice@localhost", "x"), ERR_OK);
    unsigned away = 1 - rig_home_of(r, "bob@localhost");
    assert_int_equal(rig_bind(r, &bob, away, "bob@localhost", "x"), ERR_OK);
    rig_online(&bob, 0);
    rig_enable(&bob, 60000);
    say(&alice, "bob@localhost", "chat", "m1");
    rig_run(r);
    rig_detach(&bob);
    rig_run(r);
    assert_int_equal(rig_drops(r), 0);
    rig_resume(&bob, away, 0);
    assert_int_equal(rig_drops(r), 0); /* sent there, not held there */
    rig_run(r);
    assert_int_equal(rig_drops(r), 1);
    bob.gen = 2;
    rig_end(&bob);
    rig_run(r);
    assert_int_equal(stored(r), 1);
    assert_int_equal(rig_drops(r), 2);
    rig_close(r);
}

static void old_edge_says(struct client *c, unsigned edge, enum frame_kind kind)
{
    struct frame f = {.kind = kind, .sid = c->sid, .gen = 1, .reason = ERR_CLOSED};
    channel_send(rig_node(c->rig, edge)->channels, rig_home_of(c->rig, c->bare), &f,
                 (struct hold){0}, true);
    rig_run(c->rig);
}

/* Its connection closes while the resumption that it gives way to still waits. */
static void the_former_edge_is_kept_until_the_resumption_is_whole(void **state)
{
    struct rig *r = open_with(NULL);
    struct client alice;
    unsigned home = rig_home_of(r, "alice@localhost"), away = 1 - home;
    assert_int_equal(rig_bind(r, &alice, away, "alice@localhost", "x"), ERR_OK);
    rig_enable(&alice, 60000);
    fake_store_pause(rig_store(r), true);
    say(&alice, "bob@localhost", "chat", "to the store");
    rig_run(r);
    rig_resume(&alice, home, 0);
    rig_run(r);
    old_edge_says(&alice, away, FRAME_DETACH);
    assert_int_equal(rig_drops(r), 0);
    fake_store_pause(rig_store(r), false);
    rig_run(r);
    assert_int_equal(rig_next(&alice)->frame.kind, FRAME_RESUMED);
    assert_int_equal(rig_drops(r), 1);
    old_edge_says(&alice, away, FRAME_DETACH); /* of what it kept only now */
    assert_int_equal(rig_drops(r), 2);
    rig_close(r);
}

/* The same of a session that was replaced, and whose queue waits for the store. */
static void the_former_edge_is_kept_until_the_queue_is_disposed_of(void **state)
{
    struct rig *r = open_with(NULL);
    struct client alice, bob, now;
    unsigned home = rig_home_of(r, "bob@localhost"), away = 1 - home;
    assert_int_equal(rig_bind(r, &alice, 0, "alice@localhost", "x"), ERR_OK);
    assert_int_equal(rig_bind(r, &bob, away, "bob@localhost", "x"), ERR_OK);
    rig_enable(&bob, 60000);
    rig_online(&bob, 0);
    say(&alice, "bob@localhost", "chat", "m1");
    rig_run(r);
    fake_store_pause(rig_store(r), true);
    assert_int_equal(rig_bind(r, &now, home, "bob@localhost", "x"), ERR_OK);
    old_edge_says(&bob, away, FRAME_END);
    assert_int_equal(rig_drops(r), 0);
    fake_store_pause(rig_store(r), false);
    rig_run(r);
    assert_int_equal(stored(r), 1);
    assert_int_equal(rig_drops(r), 1);
    rig_close(r);
}

static void a_count_beyond_what_was_sent_ends_the_stream(void **state)
{
    struct rig *r = open_with(NULL);
    struct client bob;
    assert_int_equal(rig_bind(r, &bob, 1, "bob@localhost", "x"), ERR_OK);
    rig_enable(&bob, 60000);
    rig_detach(&bob);
    rig_resume(&bob, 0, 7);
    rig_run(r);
    assert_int_equal(rig_next(&bob)->frame.kind, FRAME_RESUMED);
    const struct note *n = rig_next(&bob);
    assert_non_null(n);
    assert_int_equal(n->frame.kind, FRAME_CLOSE);
    assert_int_equal(n->frame.reason, ERR_STREAM_HANDLED_COUNT_TOO_HIGH);
    rig_close(r);
}

static void a_resumption_waits_until_all_that_came_is_safe(void **state)
{
    struct rig *r = open_with(NULL);
    struct client alice;
    assert_int_equal(rig_bind(r, &alice, 0, "alice@localhost", "x"), ERR_OK);
    rig_enable(&alice, 60000);
    fake_store_pause(rig_store(r), true);
    say(&alice, "bob@localhost", "chat", "to the store");
    rig_run(r);
    rig_detach(&alice);
    rig_resume(&alice, 1, 0);
    rig_run(r);
    assert_null(rig_next(&alice));
    fake_store_pause(rig_store(r), false);
    rig_run(r);
    const struct note *n = rig_next(&alice);
    assert_non_null(n);
    assert_int_equal(n->frame.kind, FRAME_RESUMED);
    rig_close(r);
}

static void a_stream_resumed_elsewhere_is_closed_and_its_frames_count_no_more(void **state)
{
    struct rig *r = open_with(NULL);
    struct client alice, before;
    assert_int_equal(rig_bind(r, &alice, 0, "alice@localhost", "x"), ERR_OK);
    rig_enable(&alice, 60000);
    before = alice;
    rig_resume(&alice, 1, 0);
    rig_run(r);
    const struct note *n = rig_next(&before);
    assert_non_null(n);
    assert_int_equal(n->frame.kind, FRAME_CLOSE);
    assert_int_equal(n->frame.reason, ERR_STREAM_RESUMED_ELSEWHERE);
    assert_int_equal(rig_next(&alice)->frame.kind, FRAME_RESUMED);
    rig_end(&before); /* of the former generation */
    alice.gen = 2;
    say(&alice, "alice@localhost/x", "chat", "alive");
    rig_expect(&alice, "alive");
    rig_close(r);
}

static void an_unknown_id_fails_and_one_that_ended_tells_its_count(void **state)
{
    struct rig *r = open_with(NULL);
    struct client alice;
    assert_int_equal(rig_bind(r, &alice, 0, "alice@localhost", "x"), ERR_OK);
    rig_enable(&alice, 60000);
    say(&alice, "bob@localhost", "chat", "one");
    say(&alice, "bob@localhost", "chat", "two");
    rig_run(r);
    rig_end(&alice);
    rig_resume(&alice, 1, 0);
    rig_run(r);
    const struct note *n = rig_next(&alice);
    assert_non_null(n);
    assert_int_equal(n->frame.kind, FRAME_FAILED);
    assert_true(n->frame.flags & FRAME_HAS_H);
    assert_int_equal(n->frame.h, 2);
    alice.sid ^= 1;
    rig_resume(&alice, 1, 0);
    rig_run(r);
    n = rig_next(&alice);
    assert_int_equal(n->frame.kind, FRAME_FAILED);
    assert_false(n->frame.flags & FRAME_HAS_H);
    rig_close(r);
}

/* Its home may die before: then they are nowhere, and their client must not be told otherwise. */
static void on_noted(struct home *h, void *ctx, err e, const Store__Reply *reply) {}

/* As a home would have that ended it, and died before the others heard of that. */
static void note_count(struct client *c, uint32_t count)
{
    struct home *h = rig_home(c->rig, rig_home_of(c->rig, c->bare));
    unsigned char token[8];
    for (int i = 0; i < 8; i++)
        token[i] = (unsigned char)(c->sid >> (56 - 8 * i));
    Store__EndedPut op = STORE__ENDED_PUT__INIT;
    op.token = home_bytes(str_from(token, 8)), op.h = count, op.time_us = home_wall_us(h);
    Store__Request req = STORE__REQUEST__INIT;
    req.op_case = STORE__REQUEST__OP_ENDED_PUT, req.ended_put = &op;
    home_store(h, str_of(c->bare), &req, on_noted, NULL);
    rig_run(c->rig);
}

static void the_count_of_an_ended_session_waits_for_what_it_counts(void **state)
{
    struct rig *r = open_with(NULL);
    struct client alice, bob;
    assert_int_equal(rig_bind(r, &alice, 0, "alice@localhost", "x"), ERR_OK);
    assert_int_equal(rig_bind(r, &bob, 1, "bob@localhost", "x"), ERR_OK);
    rig_enable(&alice, 60000);
    note_count(&alice, 0);
    rig_hold_out(r, true);
    say(&alice, "bob@localhost/x", "chat", "hi");
    rig_run(r);
    rig_end(&alice);
    rig_resume(&alice, 1, 0);
    rig_run(r);
    const struct note *n = rig_next(&alice);
    assert_int_equal(n->frame.kind, FRAME_FAILED);
    assert_false(n->frame.flags & FRAME_HAS_H);
    rig_hold_out(r, false);
    rig_run(r);
    rig_resume(&alice, 1, 0);
    rig_run(r);
    n = rig_next(&alice);
    assert_int_equal(n->frame.kind, FRAME_FAILED);
    assert_true(n->frame.flags & FRAME_HAS_H);
    assert_int_equal(n->frame.h, 1);
    rig_close(r);
}

static void another_accounts_id_is_unknown(void **state)
{
    struct rig *r = open_with(NULL);
    struct client alice, thief;
    assert_int_equal(rig_bind(r, &alice, 0, "alice@localhost", "x"), ERR_OK);
    rig_enable(&alice, 60000);
    thief = alice;
    snprintf(thief.bare, sizeof thief.bare, "bob@localhost");
    rig_resume(&thief, 1, 0);
    rig_run(r);
    assert_int_equal(rig_next(&thief)->frame.kind, FRAME_FAILED);
    rig_expect_nothing(&alice);
    rig_close(r);
}

/* xmpp.md 6, "ended": each kind of stanza that was not acknowledged. */
static void what_an_ended_session_had_not_given_out_goes_where_it_belongs(void **state)
{
    struct rig *r = open_with(NULL);
    struct client alice, bob;
    assert_int_equal(rig_bind(r, &alice, 0, "alice@localhost", "x"), ERR_OK);
    assert_int_equal(rig_bind(r, &bob, 1, "bob@localhost", "x"), ERR_OK);
    rig_online(&bob, 0);
    rig_enable(&bob, 60000);
    say(&alice, "bob@localhost/x", "chat", "chat");
    say(&alice, "bob@localhost/x", "normal", "normal");
    say(&alice, "bob@localhost/x", "headline", "headline");
    say(&alice, "bob@localhost/x", "groupchat", "groupchat");
    rig_send(&alice, "<iq type='get' id='q' to='bob@localhost/x'><q xmlns='x:y'/></iq>");
    rig_send(&alice, "<iq type='result' id='a' to='bob@localhost/x'/>");
    rig_send(&alice, "<presence to='bob@localhost/x'/>");
    rig_forget(&bob);
    rig_detach(&bob);
    rig_forget(&alice);
    rig_pass(r, 61000);
    rig_expect(&alice, "groupchat");
    rig_expect(&alice, "<recipient-unavailable");
    rig_expect_nothing(&alice);
    assert_int_equal(stored(r), 2);
    rig_close(r);
}

static void what_an_ended_session_had_goes_to_the_other_resources(void **state)
{
    struct rig *r = open_with(NULL);
    struct client alice, phone, desk;
    assert_int_equal(rig_bind(r, &alice, 0, "alice@localhost", "x"), ERR_OK);
    assert_int_equal(rig_bind(r, &phone, 1, "bob@localhost", "phone"), ERR_OK);
    rig_online(&phone, 0);
    rig_enable(&phone, 60000);
    say(&alice, "bob@localhost/phone", "chat", "only for the phone");
    rig_forget(&phone);
    rig_detach(&phone);
    assert_int_equal(rig_bind(r, &desk, 0, "bob@localhost", "desk"), ERR_OK);
    rig_online(&desk, 0);
    say(&alice, "bob@localhost", "chat", "for both");
    rig_expect(&desk, "for both");
    rig_cack(&desk, desk.out_seq);
    rig_pass(r, 61000);
    rig_expect(&desk, "type='unavailable'");
    const char *xml = rig_stanza(&desk);
    assert_non_null(strstr(xml, "only for the phone"));
    assert_non_null(strstr(xml, "urn:xmpp:delay"));
    rig_expect_nothing(&desk); /* "for both" it has already */
    assert_int_equal(stored(r), 0);
    rig_close(r);
}

static void a_message_that_two_dying_sessions_shared_is_stored_once(void **state)
{
    struct rig *r = open_with(NULL);
    struct client alice, phone, desk;
    assert_int_equal(rig_bind(r, &alice, 0, "alice@localhost", "x"), ERR_OK);
    assert_int_equal(rig_bind(r, &phone, 1, "bob@localhost", "phone"), ERR_OK);
    rig_online(&phone, 0);
    assert_int_equal(rig_bind(r, &desk, 0, "bob@localhost", "desk"), ERR_OK);
    rig_online(&desk, 0);
    say(&alice, "bob@localhost", "chat", "for both");
    rig_run(r);
    rig_end(&phone);
    assert_int_equal(stored(r), 0);
    rig_end(&desk);
    assert_int_equal(stored(r), 1);
    rig_close(r);
}

static void a_queue_that_grows_too_long_ends_its_session_and_is_kept(void **state)
{
    struct rig *r = open_with("limits.unacked_max=16");
    struct client alice, bob;
    assert_int_equal(rig_bind(r, &alice, 0, "alice@localhost", "x"), ERR_OK);
    assert_int_equal(rig_bind(r, &bob, 1, "bob@localhost", "x"), ERR_OK);
    rig_enable(&bob, 60000);
    for (int i = 0; i < 18; i++)
        say(&alice, "bob@localhost/x", "chat", "more");
    rig_run(r);
    const struct note *n = rig_next(&bob);
    int given = 0;
    for (; n && n->frame.kind == FRAME_OUT; n = rig_next(&bob))
        given++;
    assert_non_null(n);
    assert_int_equal(n->frame.kind, FRAME_CLOSE);
    assert_int_equal(n->frame.reason, ERR_STREAM_QUEUE_OVERFLOW);
    assert_true(given <= 17); /* with a copy to be made first, fewer */
    assert_int_equal(stored(r), 18);
    assert_int_equal(alice.safe, 18);
    rig_close(r);
}

static void a_dead_edge_detaches_what_can_be_resumed_and_ends_the_rest(void **state)
{
    struct rig *r = open_with(NULL);
    struct client alice, sm, plain;
    assert_int_equal(rig_bind(r, &alice, 0, "alice@localhost", "x"), ERR_OK);
    assert_int_equal(rig_bind(r, &sm, 1, "bob@localhost", "sm"), ERR_OK);
    assert_int_equal(rig_bind(r, &plain, 1, "bob@localhost", "plain"), ERR_OK);
    rig_enable(&sm, 60000);
    rig_edge_died(r, 1);
    say(&alice, "bob@localhost/sm", "chat", "kept");
    say(&alice, "bob@localhost/plain", "normal", "lost");
    rig_expect(&alice, "<service-unavailable");
    rig_resume(&sm, 0, 0);
    rig_run(r);
    assert_int_equal(rig_next(&sm)->frame.kind, FRAME_RESUMED);
    rig_expect(&sm, "kept");
    rig_close(r);
}

static void a_frame_that_comes_again_is_not_queued_twice(void **state)
{
    struct rig *r = open_with(NULL);
    struct client bob;
    assert_int_equal(rig_bind(r, &bob, 1, "bob@localhost", "x"), ERR_OK);
    const char *xml = "<message from='alice@localhost/x' to='bob@localhost/x'>"
                      "<body>1</body></message>";
    rig_inject(r, xml, (struct uid){5, 1, 0}, 0);
    rig_inject(r, xml, (struct uid){5, 1, 0}, FRAME_AGAIN);
    rig_expect(&bob, "<body>1");
    rig_expect_nothing(&bob);
    rig_close(r);
}

/* A client that was resumed with fewer than it had sent may go on with other stanzas under the old
 * numbers (limits.unsafe_max of them at most): to another resource of the same account, too. */
static void an_old_number_is_another_stanza_when_it_goes_to_another_resource(void **state)
{
    struct rig *r = open_with("limits.unacked_max=1000");
    struct client one, two;
    enum { BEHIND = 200 };
    assert_int_equal(rig_bind(r, &one, 1, "bob@localhost", "one"), ERR_OK);
    assert_int_equal(rig_bind(r, &two, 1, "bob@localhost", "two"), ERR_OK);
    for (uint64_t i = 1; i <= BEHIND; i++) {
        rig_inject(r, "<message from='alice@localhost/x' to='bob@localhost/one'/>",
                   (struct uid){5, i, 0}, 0);
        rig_expect(&one, "<message");
    }
    for (uint64_t i = 1; i <= BEHIND; i++) {
        rig_inject(r, "<message from='alice@localhost/x' to='bob@localhost/two'/>",
                   (struct uid){5, i, 0}, FRAME_AGAIN);
        rig_expect(&two, "<message");
        rig_inject(r, "<message from='alice@localhost/x' to='bob@localhost/one'/>",
                   (struct uid){5, i, 0}, FRAME_AGAIN);
    }
    rig_expect_nothing(&one);
    rig_close(r);
}

static void use_conf_with_hosts(struct rig *r, const char *const *hosts)
{
    struct conf_draft *d = conf_draft_new();
    for (; *hosts; hosts++)
        must(conf_draft_host(d, str_of(*hosts), (struct conf_origin){"test", 0}));
    rig_node(r, 0)->conf = conf_draft_build(d);
    must(rig_node(r, 0)->conf);
    conf_draft_free(d);
}

/* Whatever was asked of the one before, which is no longer there, and before home_reload. */
static void what_is_served_is_what_the_config_in_force_says(void **state)
{
    static const char *const confs[][4] = {{"a.example", "b.example", "localhost"},
                                           {"b.example", "c.example", "d.example"},
                                           {"localhost"},
                                           {"a.example", "localhost"}};
    struct rig *r = open_with(NULL);
    struct home *h = rig_home(r, 0);
    struct node *n = rig_node(r, 0);
    const struct conf *rigs = n->conf;
    for (size_t i = 0; i < array_len(confs); i++) {
        use_conf_with_hosts(r, confs[i]);
        for (int twice = 0; twice < 2; twice++) {
            assert_true(home_serves(h, STR("localhost")) == (i != 1));
            assert_true(home_serves(h, STR("a.example")) == (i == 0 || i == 3));
            assert_true(home_serves(h, STR("d.example")) == (i == 1));
            assert_false(home_serves(h, STR("e.example")));
            assert_true(home_serves(h, STR("b.example")) == (i < 2));
        }
        for (size_t k = 0; confs[i][k]; k++) /* the last is remembered */
            assert_true(home_serves(h, str_of(confs[i][k])));
        free((void *)(uintptr_t)n->conf);
    }
    n->conf = rigs;
    rig_close(r);
}

static void an_idle_user_is_forgotten_after_a_minute(void **state)
{
    struct rig *r = open_with(NULL);
    struct client alice;
    assert_int_equal(rig_bind(r, &alice, 0, "alice@localhost", "x"), ERR_OK);
    say(&alice, "bob@localhost", "chat", "stored");
    say(&alice, "nobody@localhost", "chat", "bounced");
    rig_run(r);
    assert_int_equal(rig_node(r, 0)->metrics->value[METRIC_users_loaded], 3);
    rig_pass(r, 62000);
    assert_int_equal(rig_node(r, 0)->metrics->value[METRIC_users_loaded], 1);
    rig_close(r);
}

/* Replaced while a change of its roster was being stored: what stood behind it was never run. */
static void the_count_of_an_ended_session_leaves_out_what_was_dropped(void **state)
{
    struct rig *r = open_with(NULL);
    struct client old, now;
    assert_int_equal(rig_bind(r, &old, 0, "alice@localhost", "x"), ERR_OK);
    rig_enable(&old, 60000);
    fake_store_pause(rig_store(r), true);
    rig_send(&old, "<iq type='set' id='r'><query xmlns='jabber:iq:roster'>"
                   "<item jid='bob@localhost'/></query></iq>");
    say(&old, "bob@localhost", "chat", "never run");
    rig_run(r);
    assert_int_equal(rig_bind(r, &now, 1, "alice@localhost", "x"), ERR_OK);
    fake_store_pause(rig_store(r), false);
    rig_run(r);
    assert_int_equal(stored(r), 0);
    rig_resume(&old, 0, 0);
    rig_run(r);
    const struct note *n = rig_next(&old);
    assert_non_null(n);
    assert_int_equal(n->frame.kind, FRAME_FAILED);
    assert_true(n->frame.flags & FRAME_HAS_H);
    assert_int_equal(n->frame.h, 1);
    rig_close(r);
}

struct few {
    struct entropy door;
    unsigned drawn;
};

static void draw_the_same_twice(struct entropy *e, void *out, size_t n)
{
    struct few *f = container_of(e, struct few, door);
    memset(out, (int)(1 + f->drawn++ / 2), n);
}

static void a_sid_that_is_taken_is_drawn_again(void **state)
{
    struct rig *r = open_with(NULL);
    struct client a, b;
    struct node *n = rig_node(r, rig_home_of(r, "alice@localhost"));
    struct entropy *was = n->entropy;
    struct few few = {.door.fill = draw_the_same_twice};
    n->entropy = &few.door;
    assert_int_equal(rig_bind(r, &a, 0, "alice@localhost", "a"), ERR_OK);
    assert_int_equal(rig_bind(r, &b, 0, "alice@localhost", "b"), ERR_OK);
    assert_int_equal(few.drawn, 3);
    assert_true(a.sid != b.sid);
    n->entropy = was;
    rig_close(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_account_that_is_not_there_cannot_bind),
        cmocka_unit_test(an_empty_wish_gets_a_resource_that_nobody_can_guess),
        cmocka_unit_test(the_same_resource_replaces_refuses_or_renames),
        cmocka_unit_test(a_replaced_session_is_unavailable_before_the_new_one_is_bound),
        cmocka_unit_test(too_many_resources_are_refused),
        cmocka_unit_test(a_guest_is_there_as_long_as_its_session),
        cmocka_unit_test(stanzas_out_of_order_or_of_another_generation_are_ignored),
        cmocka_unit_test(a_stanza_is_safe_only_when_its_addressee_holds_it),
        cmocka_unit_test(a_resumed_session_gets_what_its_client_has_not_counted),
        cmocka_unit_test(the_former_edge_forgets_a_queue_when_another_holds_it_or_it_is_stored),
        cmocka_unit_test(the_former_edge_is_kept_until_the_resumption_is_whole),
        cmocka_unit_test(the_former_edge_is_kept_until_the_queue_is_disposed_of),
        cmocka_unit_test(a_count_beyond_what_was_sent_ends_the_stream),
        cmocka_unit_test(a_resumption_waits_until_all_that_came_is_safe),
        cmocka_unit_test(a_stream_resumed_elsewhere_is_closed_and_its_frames_count_no_more),
        cmocka_unit_test(an_unknown_id_fails_and_one_that_ended_tells_its_count),
        cmocka_unit_test(the_count_of_an_ended_session_waits_for_what_it_counts),
        cmocka_unit_test(another_accounts_id_is_unknown),
        cmocka_unit_test(what_an_ended_session_had_not_given_out_goes_where_it_belongs),
        cmocka_unit_test(what_an_ended_session_had_goes_to_the_other_resources),
        cmocka_unit_test(a_message_that_two_dying_sessions_shared_is_stored_once),
        cmocka_unit_test(a_queue_that_grows_too_long_ends_its_session_and_is_kept),
        cmocka_unit_test(a_dead_edge_detaches_what_can_be_resumed_and_ends_the_rest),
        cmocka_unit_test(a_frame_that_comes_again_is_not_queued_twice),
        cmocka_unit_test(an_old_number_is_another_stanza_when_it_goes_to_another_resource),
        cmocka_unit_test(what_is_served_is_what_the_config_in_force_says),
        cmocka_unit_test(an_idle_user_is_forgotten_after_a_minute),
        cmocka_unit_test(the_count_of_an_ended_session_leaves_out_what_was_dropped),
        cmocka_unit_test(a_sid_that_is_taken_is_drawn_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
