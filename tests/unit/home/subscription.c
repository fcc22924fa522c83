/* RFC 6121 appendix A, every row: A.2 (what the user sends) and A.3 (what the contact sends), state
 * by state, written down from the RFC and not from the code; then what goes with a change. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "node/home/inside.h"
#include "tests/unit/support/home_rig.h"

enum state { NONE, NONE_OUT, NONE_IN, NONE_OUT_IN, TO, TO_IN, FROM, FROM_OUT, BOTH, STATES };
static const char *const state_names[] = {"None",  "None+Out", "None+In",  "None+Out+In", "To",
                                          "To+In", "From",     "From+Out", "Both"};
static const struct {
    Store__Subscription subscription;
    bool ask, pending;
} seeds[STATES] = {
    {STORE__SUBSCRIPTION__NONE, false, false}, {STORE__SUBSCRIPTION__NONE, true, false},
    {STORE__SUBSCRIPTION__NONE, false, true},  {STORE__SUBSCRIPTION__NONE, true, true},
    {STORE__SUBSCRIPTION__TO, false, false},   {STORE__SUBSCRIPTION__TO, false, true},
    {STORE__SUBSCRIPTION__FROM, false, false}, {STORE__SUBSCRIPTION__FROM, true, false},
    {STORE__SUBSCRIPTION__BOTH, false, false},
};

struct row {
    const char *type;
    enum stanza_type sent;
    struct {
        enum state next;
        bool passes;
    } by[STATES];
};
#define Y true
#define N false
static const struct row outbound[] = {
    {"subscribe",
     TYPE_SUBSCRIBE,
     {{NONE_OUT, Y},
      {NONE_OUT, Y},
      {NONE_OUT_IN, Y},
      {NONE_OUT_IN, Y},
      {TO, Y},
      {TO_IN, Y},
      {FROM_OUT, Y},
      {FROM_OUT, Y},
      {BOTH, Y}}},
    {"unsubscribe",
     TYPE_UNSUBSCRIBE,
     {{NONE, Y},
      {NONE, Y},
      {NONE_IN, Y},
      {NONE_IN, Y},
      {NONE, Y},
      {NONE_IN, Y},
      {FROM, Y},
      {FROM, Y},
      {FROM, Y}}},
    {"subscribed",
     TYPE_SUBSCRIBED,
     {{NONE, N},
      {NONE_OUT, N},
      {FROM, Y},
      {FROM_OUT, Y},
      {TO, N},
      {BOTH, Y},
      {FROM, N},
      {FROM_OUT, N},
      {BOTH, N}}},
    {"unsubscribed",
     TYPE_UNSUBSCRIBED,
     {{NONE, N},
      {NONE_OUT, N},
      {NONE, Y},
      {NONE_OUT, Y},
      {TO, N},
      {TO, Y},
      {NONE, Y},
      {NONE_OUT, Y},
      {TO, Y}}},
};
static const struct row inbound[] = {
    {"subscribe",
     TYPE_SUBSCRIBE,
     {{NONE_IN, Y},
      {NONE_OUT_IN, Y},
      {NONE_IN, N},
      {NONE_OUT_IN, N},
      {TO_IN, Y},
      {TO_IN, N},
      {FROM, N},
      {FROM_OUT, N},
      {BOTH, N}}},
    {"unsubscribe",
     TYPE_UNSUBSCRIBE,
     {{NONE, N},
      {NONE_OUT, N},
      {NONE, Y},
      {NONE_OUT, Y},
      {TO, N},
      {TO, Y},
      {NONE, Y},
      {NONE_OUT, Y},
      {TO, Y}}},
    {"subscribed",
     TYPE_SUBSCRIBED,
     {{NONE, N},
      {TO, Y},
      {NONE_IN, N},
      {TO_IN, Y},
      {TO, N},
      {TO_IN, N},
      {FROM, N},
      {BOTH, Y},
      {BOTH, N}}},
    {"unsubscribed",
     TYPE_UNSUBSCRIBED,
     {{NONE, N},
      {NONE, Y},
      {NONE_IN, N},
      {NONE_IN, Y},
      {NONE, Y},
      {NONE_IN, Y},
      {FROM, N},
      {FROM, Y},
      {FROM, Y}}},
};

static void ignore(void *ctx, err e, const Store__Reply *reply) { assert_int_equal(e, ERR_OK); }

static ProtobufCBinaryData bytes(str s) { return (ProtobufCBinaryData){s.n, (uint8_t *)s.p}; }

/* owner's roster as if all that had happened before. */
static void seed(struct rig *r, const char *owner, const char *contact, enum state state)
{
    struct node *n = rig_node(r, 0);
    Store__Request req = STORE__REQUEST__INIT;
    Store__RosterChange op = STORE__ROSTER_CHANGE__INIT;
    Store__RosterItem item = STORE__ROSTER_ITEM__INIT, *items[] = {&item};
    Store__Pending pending = STORE__PENDING__INIT;
    struct stanza *s = NULL;
    item.contact = bytes(str_of(contact));
    item.subscription = seeds[state].subscription, item.ask = seeds[state].ask;
    req.owner = bytes(str_of(owner));
    req.op_case = STORE__REQUEST__OP_ROSTER_CHANGE, req.roster_change = &op;
    if (item.subscription || item.ask)
        op.version = 1, op.items = items, op.n_items = 1;
    if (seeds[state].pending) {
        str xml =
            arena_printf(n->turn, "<presence type='subscribe' from='%s' to='%s'/>", contact, owner);
        s = stanza_make(n->scan, xml, n->turn);
        pending.contact = bytes(str_of(contact));
        pending.stanza = bytes(stanza_xml(s));
        op.pending_put = &pending;
    }
    if (state != NONE)
        store_submit(n->store, &req, ignore, NULL);
    rig_run(r);
    stanza_unref(s);
}

static enum state state_of(struct rig *r, const char *owner, const char *contact)
{
    struct user *u = user_find(rig_home(r, rig_home_of(r, owner)), str_of(owner));
    assert_non_null(u);
    const struct item *i = roster_find(u, str_of(contact));
    bool pending = roster_pending(u, str_of(contact)) != NULL;
    for (int s = 0; s < STATES; s++)
        if ((i ? (int)i->subscription : 0) == (int)seeds[s].subscription &&
            (i && i->ask) == seeds[s].ask && pending == seeds[s].pending)
            return (enum state)s;
    fail_msg("no such state");
    return STATES;
}

static struct rig *open_pair(void)
{
    struct rig *r = rig_open(NULL);
    rig_user(r, "alice@localhost");
    rig_user(r, "bob@localhost");
    return r;
}

static void come(struct rig *r, struct client *c, unsigned edge, const char *bare)
{
    assert_int_equal(rig_bind(r, c, edge, bare, "x"), ERR_OK);
    rig_send(c, "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>");
    rig_online(c, 0);
}

/* The contact's side, so that probes do not undo what was sown. */
static enum state mirror(enum state s)
{
    static const enum state mirrors[STATES] = {NONE,     NONE_IN, NONE_OUT, NONE_OUT_IN, FROM,
                                               FROM_OUT, TO,      TO_IN,    BOTH};
    return mirrors[s];
}

static struct rig *open_in(struct client *alice, enum state state)
{
    struct rig *r = open_pair();
    seed(r, "alice@localhost", "bob@localhost", state);
    seed(r, "bob@localhost", "alice@localhost", mirror(state));
    come(r, alice, 0, "alice@localhost");
    if (state_of(r, "alice@localhost", "bob@localhost") != state)
        fail_msg("%s was not sown", state_names[state]);
    return r;
}

static void check_outbound(const struct row *row, enum state state)
{
    struct client alice;
    struct rig *r = open_in(&alice, state);
    char xml[128];
    unsigned before = rig_routed(r, "alice@localhost", row->sent);
    snprintf(xml, sizeof xml, "<presence type='%s' to='bob@localhost/any'/>", row->type);
    rig_send(&alice, xml);
    rig_run(r);
    enum state now = state_of(r, "alice@localhost", "bob@localhost");
    if (now != row->by[state].next)
        fail_msg("sent %s in %s: now %s", row->type, state_names[state], state_names[now]);
    if ((rig_routed(r, "alice@localhost", row->sent) > before) != row->by[state].passes)
        fail_msg("sent %s in %s: routed is wrong", row->type, state_names[state]);
    rig_close(r);
}

static void check_inbound(const struct row *row, enum state state)
{
    struct client alice;
    struct rig *r = open_in(&alice, state);
    char xml[128], part[64];
    snprintf(xml, sizeof xml, "<presence type='%s' from='bob@localhost' to='alice@localhost'/>",
             row->type);
    snprintf(part, sizeof part, "type='%s'", row->type);
    rig_inject(r, xml, (struct uid){77, 1, 0}, 0);
    rig_run(r);
    bool passed = false;
    for (const struct note *n = rig_next(&alice); n; n = rig_next(&alice))
        passed |= n->xml && strstr(n->xml, "<presence") && strstr(n->xml, part);
    enum state now = state_of(r, "alice@localhost", "bob@localhost");
    if (now != row->by[state].next)
        fail_msg("got %s in %s: now %s", row->type, state_names[state], state_names[now]);
    if (passed != row->by[state].passes)
        fail_msg("got %s in %s: delivered is wrong", row->type, state_names[state]);
    rig_close(r);
}

static void what_the_user_sends_changes_states_as_a_2_says(void **unused)
{
    for (size_t i = 0; i < array_len(outbound); i++)
        for (int s = 0; s < STATES; s++)
            check_outbound(&outbound[i], (enum state)s);
}

static void what_the_contact_sends_changes_states_as_a_3_says(void **unused)
{
    for (size_t i = 0; i < array_len(inbound); i++)
        for (int s = 0; s < STATES; s++)
            check_inbound(&inbound[i], (enum state)s);
}

static void a_request_and_its_answer_bring_pushes_then_presence(void **unused)
{
    struct rig *r = open_pair();
    struct client alice, bob;
    come(r, &alice, 0, "alice@localhost");
    come(r, &bob, 1, "bob@localhost");
    rig_send(&alice, "<presence type='subscribe' to='bob@localhost'/>");
    rig_expect(&alice, "ask='subscribe'");
    rig_expect(&bob, "type='subscribe'");
    rig_send(&bob, "<presence type='subscribed' to='alice@localhost'/>");
    rig_expect(&bob, "subscription='from'");
    rig_expect(&alice, "type='subscribed'");
    rig_expect(&alice, "subscription='to'");
    rig_expect(&alice, "<priority>0</priority>");
    rig_expect_nothing(&alice);
    rig_expect_nothing(&bob);
    rig_send(&bob, "<presence type='unsubscribed' to='alice@localhost'/>");
    rig_expect(&alice, "type='unsubscribed'");
    rig_expect(&alice, "subscription='none'");
    rig_expect(&alice, "type='unavailable'");
    rig_expect_nothing(&alice);
    assert_int_equal(bob.safe, bob.ord);
    rig_close(r);
}

static void a_request_waits_for_the_user_until_it_is_answered(void **unused)
{
    struct rig *r = open_pair();
    struct client alice, bob;
    come(r, &alice, 0, "alice@localhost");
    rig_send(&alice, "<presence type='subscribe' to='bob@localhost'>"
                     "<status>me!</status></presence>");
    rig_run(r);
    for (int i = 0; i < 2; i++) { /* on every initial presence */
        assert_int_equal(rig_bind(r, &bob, 1, "bob@localhost", "x"), ERR_OK);
        rig_send(&bob, "<presence/>");
        rig_expect(&bob, "<presence");
        rig_expect(&bob, "me!");
        rig_expect_nothing(&bob);
        rig_end(&bob);
    }
    assert_int_equal(rig_bind(r, &bob, 1, "bob@localhost", "x"), ERR_OK);
    rig_send(&bob, "<presence type='unsubscribed' to='alice@localhost'/>");
    rig_send(&bob, "<presence/>");
    rig_expect(&bob, "<presence");
    rig_expect_nothing(&bob);
    rig_close(r);
}

static void who_was_approved_before_is_subscribed_without_a_question(void **unused)
{
    struct rig *r = open_pair();
    struct client alice, bob;
    come(r, &alice, 0, "alice@localhost");
    come(r, &bob, 1, "bob@localhost");
    rig_send(&bob, "<presence type='subscribed' to='alice@localhost'/>");
    rig_expect(&bob, "approved='true'");
    rig_expect_nothing(&alice);
    rig_send(&alice, "<presence type='subscribe' to='bob@localhost'/>");
    rig_expect(&alice, "ask='subscribe'");
    rig_expect(&alice, "type='subscribed'");
    rig_expect(&alice, "subscription='to'");
    rig_expect(&alice, "from='bob@localhost/x'");
    rig_expect(&bob, "subscription='from'");
    rig_expect_nothing(&bob);
    rig_close(r);
}

static void stanzas_behind_a_change_wait_for_its_commit(void **unused)
{
    struct rig *r = open_pair();
    struct client alice, bob;
    come(r, &alice, 0, "alice@localhost");
    come(r, &bob, 1, "bob@localhost");
    fake_store_pause(rig_store(r), true);
    rig_send(&alice, "<presence type='subscribe' to='bob@localhost'/>");
    rig_send(&alice, "<message to='bob@localhost' type='chat'><body>after</body></message>");
    rig_expect_nothing(&bob);
    fake_store_pause(rig_store(r), false);
    rig_forget(&bob);
    assert_int_equal(alice.safe, alice.ord);
    rig_close(r);
}

static void a_change_that_cannot_be_stored_is_refused_and_not_made(void **unused)
{
    struct rig *r = open_pair();
    struct client alice;
    come(r, &alice, 0, "alice@localhost");
    fake_store_fail_next(rig_store(r), 1, ERR_IO);
    rig_send(&alice, "<presence type='subscribe' to='bob@localhost' id='s'/>");
    rig_expect(&alice, "<internal-server-error");
    assert_int_equal(state_of(r, "alice@localhost", "bob@localhost"), NONE);
    rig_expect_nothing(&alice);
    rig_close(r);
}

static void an_approval_behind_a_change_comes_before_the_presence_that_follows_it(void **unused)
{
    struct rig *r = open_pair();
    struct client alice;
    come(r, &alice, 0, "alice@localhost");
    rig_send(&alice, "<presence type='subscribe' to='bob@localhost'/>");
    rig_forget(&alice);
    fake_store_pause(rig_store(r), true);
    rig_send(&alice, "<iq type='set' id='s'><query xmlns='jabber:iq:roster'>"
                     "<item jid='carol@localhost'/></query></iq>");
    rig_run(r);
    rig_inject(r, "<presence type='subscribed' from='bob@localhost' to='alice@localhost'/>",
               (struct uid){77, 1, 0}, 0);
    rig_inject(r,
               "<presence from='bob@localhost/x' to='alice@localhost'><status>there</status>"
               "</presence>",
               (struct uid){77, 2, 0}, 0);
    rig_run(r);
    fake_store_pause(rig_store(r), false);
    rig_expect(&alice, "type='result'");
    rig_expect(&alice, "carol@localhost");
    rig_expect(&alice, "type='subscribed'");
    rig_expect(&alice, "subscription='to'");
    rig_expect(&alice, ">there<");
    rig_close(r);
}

static void a_full_roster_still_refuses_a_request(void **unused)
{
    const char *settings[] = {"limits.roster_max=10", NULL};
    struct rig *r = rig_open(settings);
    struct client alice, bob;
    rig_user(r, "alice@localhost");
    rig_user(r, "bob@localhost");
    come(r, &alice, 0, "alice@localhost");
    come(r, &bob, 1, "bob@localhost");
    for (int i = 0; i < 10; i++) {
        char xml[160];
        snprintf(xml, sizeof xml,
                 "<iq type='set' id='s'><query xmlns='jabber:iq:roster'>"
                 "<item jid='c%d@localhost'/></query></iq>",
                 i);
        rig_send(&bob, xml);
    }
    rig_send(&alice, "<presence type='subscribe' to='bob@localhost'/>");
    rig_forget(&bob);
    rig_send(&bob, "<presence type='subscribed' to='alice@localhost'/>");
    rig_expect(&bob, "<resource-constraint");
    rig_forget(&alice);
    rig_send(&bob, "<presence type='unsubscribed' to='alice@localhost'/>");
    rig_expect(&alice, "type='unsubscribed'");
    rig_expect_nothing(&bob);
    rig_close(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_the_user_sends_changes_states_as_a_2_says),
        cmocka_unit_test(what_the_contact_sends_changes_states_as_a_3_says),
        cmocka_unit_test(a_request_and_its_answer_bring_pushes_then_presence),
        cmocka_unit_test(a_request_waits_for_the_user_until_it_is_answered),
        cmocka_unit_test(who_was_approved_before_is_subscribed_without_a_question),
        cmocka_unit_test(stanzas_behind_a_change_wait_for_its_commit),
        cmocka_unit_test(a_change_that_cannot_be_stored_is_refused_and_not_made),
        cmocka_unit_test(an_approval_behind_a_change_comes_before_the_presence_that_follows_it),
        cmocka_unit_test(a_full_roster_still_refuses_a_request),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
