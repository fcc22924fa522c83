/* A home that takes over from one that died: what its predecessor had said and done, as far as
 * anybody knows of it, is neither undone nor done twice (delivery.md 6, "home dies"). */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "cluster/copy.h"
#include "node/home/inside.h"
#include "tests/unit/support/home_rig.h"

#define BOB "bob@localhost"

/* The rig's shard that is bob's new home, and the one that holds what is left of the former. */
struct takeover {
    struct rig *rig;
    unsigned home, holder;
    struct arena arena;
};

static struct takeover *takeover_begin(void)
{
    struct takeover *t = calloc(1, sizeof *t);
    assert_non_null(t);
    arena_init(&t->arena);
    t->rig = rig_open(NULL);
    rig_user(t->rig, BOB);
    rig_user(t->rig, "alice@localhost");
    t->home = rig_home_of(t->rig, BOB), t->holder = 1 - t->home;
    home_await_others(rig_home(t->rig, t->home));
    return t;
}

static void say(struct takeover *t, const struct frame *f)
{
    channel_send(rig_node(t->rig, t->holder)->channels, t->home, f, (struct hold){0}, false);
}

static void told_all(struct takeover *t)
{
    say(t, &(struct frame){.kind = FRAME_ATTACHED});
    rig_run(t->rig);
}

static void takeover_end(struct takeover *t)
{
    rig_close(t->rig);
    arena_close(&t->arena);
    free(t);
}

static uint64_t sid_of(struct takeover *t, unsigned n)
{
    return (uint64_t)ring_slot(rig_node(t->rig, 0)->ring, STR(BOB)) << 50 | n;
}

static struct snap session(struct takeover *t, unsigned n, uint32_t gen, const char *full)
{
    return (struct snap){.sid = sid_of(t, n),
                         .gen = gen,
                         .full = str_of(full),
                         .sm = true,
                         .resumable = true,
                         .max_ms = 60000};
}

static struct stanza *stanza_of(struct takeover *t, const char *xml)
{
    return stanza_make(rig_node(t->rig, t->holder)->scan, str_of(xml), &t->arena);
}

/* acked: its client has all up to there; message (NULL: none): queued behind, by the same uid
 * wherever it is. */
static void offer(struct takeover *t, struct snap snap, uint64_t acked, const char *message,
                  uint32_t flags)
{
    struct attaching what = {.snap = snap, .acked = acked, .flags = flags};
    if (message)
        outs_push(&what.outs, (struct out){.stanza = stanza_of(t, message), .sid = 99, .ord = 1},
                  NULL);
    copy_attach(rig_node(t->rig, t->holder)->channels, t->home, &what, &t->arena);
    outs_close(&what.outs);
}

#define SHARED "<message from='alice@localhost/x' to='" BOB "' type='chat'><body>m</body></message>"

/* Its home had taken the count from a <resume/> and begun a copy that says so, and died before it
 * said so to the holder of the queue. */
static void what_one_holder_knows_to_be_counted_is_taken_for_all(void **state)
{
    struct takeover *t = takeover_begin();
    offer(t, session(t, 1, 2, BOB "/a"), 0, SHARED, 0);
    offer(t, session(t, 1, 3, BOB "/a"), 1, NULL, 0);
    offer(t, session(t, 2, 1, BOB "/b"), 0, SHARED, FRAME_ENDED);
    told_all(t);
    assert_non_null(session_find(rig_home(t->rig, t->home), sid_of(t, 1)));
    assert_null(session_find(rig_home(t->rig, t->home), sid_of(t, 2)));
    assert_int_equal(rig_node(t->rig, t->home)->metrics->value[METRIC_offline_stored], 0);
    takeover_end(t);
}

static void presence(struct takeover *t, uint64_t ord, const char *xml, uint32_t flags)
{
    struct stanza *s = stanza_of(t, xml);
    say(t, &(struct frame){.kind = FRAME_IN,
                           .sid = sid_of(t, 1),
                           .gen = 1,
                           .ord = ord,
                           .flags = flags,
                           .stanza = s,
                           .fp = stanza_fp(s)});
    stanza_unref(s);
    rig_run(t->rig);
}

/* The first of two was not safe, because somebody was slow to take it; the second was. */
static void presence_that_was_overtaken_is_no_news(void **state)
{
    struct takeover *t = takeover_begin();
    struct snap snap = session(t, 1, 1, BOB "/a");
    snap.in_ord = 2, snap.presence_ord = 2;
    offer(t, snap, 0, NULL, FRAME_LIVE);
    told_all(t);
    presence(t, 1, "<presence from='" BOB "/a'/>", FRAME_AGAIN);
    struct session *s = session_find(rig_home(t->rig, t->home), sid_of(t, 1));
    assert_non_null(s);
    assert_false(session_available(s));
    presence(t, 3, "<presence from='" BOB "/a'/>", 0);
    assert_true(session_available(s));
    presence(t, 2, "<presence from='" BOB "/a' type='unavailable'/>", FRAME_AGAIN);
    assert_true(session_available(s));
    takeover_end(t);
}

static struct session *bob_of(struct takeover *t, unsigned n)
{
    return session_find(rig_home(t->rig, t->home), sid_of(t, n));
}

static void presence_goes_again_to_the_clients_that_have_not_had_it(void **state)
{
    struct takeover *t = takeover_begin();
    const char *xml = "<presence from='alice@localhost/x'><status>s</status></presence>";
    struct stanza *s = stanza_of(t, xml);
    struct marks had = {0};
    struct uid uid = {99, 5, 0};
    struct snap a = session(t, 1, 1, BOB "/a"), b = session(t, 2, 1, BOB "/b");
    a.presence = b.presence = STR("/>");
    offer(t, a, 0, NULL, FRAME_LIVE);
    offer(t, b, 0, NULL, FRAME_LIVE);
    marks_put(&had, (struct mark){uid, sid_of(t, 1), stanza_fp(s), 0});
    uint64_t at = 0;
    const struct ring_share of = {rig_node(t->rig, 0)->ring, t->home};
    struct frame known = {.kind = FRAME_KNOWN,
                          .payload = marks_encode(&had, &at, ring_share_has, &of, 0, &t->arena)};
    say(t, &known);
    str to = STR(BOB);
    struct frame again = {.kind = FRAME_ROUTE,
                          .sid = uid.sid,
                          .ord = uid.ord,
                          .flags = FRAME_AGAIN,
                          .recipients = &to,
                          .recipient_count = 1,
                          .stanza = s};
    say(t, &again);
    told_all(t);
    assert_int_equal(bob_of(t, 1)->queued, 0);
    assert_int_equal(bob_of(t, 2)->queued, 1);
    say(t, &again); /* by a home that is new itself, and was asked in between */
    rig_run(t->rig);
    assert_int_equal(bob_of(t, 1)->queued, 1);
    assert_int_equal(bob_of(t, 2)->queued, 1);
    stanza_unref(s);
    marks_close(&had);
    takeover_end(t);
}

static bool everything(const void *ctx, unsigned slot) { return true; }

/* Others have heard that it is gone, and its queue still waits for the store, as its home dies. */
static void a_session_that_was_ended_does_not_come_back(void **state)
{
    struct rig *r = rig_open(NULL);
    struct client bob;
    rig_user(r, BOB);
    unsigned home = rig_home_of(r, BOB), holder = 1 - home;
    assert_int_equal(rig_bind(r, &bob, home, BOB, "a"), ERR_OK); /* so its copy is the other's */
    rig_enable(&bob, 60000);
    rig_online(&bob, 0);
    rig_send(&bob, "<message to='" BOB "/a' type='chat'><body>m</body></message>");
    rig_run(r);
    fake_store_pause(rig_store(r), true);
    rig_end(&bob);
    assert_int_equal(copies_count(rig_node(r, holder)->copies), 1);
    home_await_others(rig_home(r, home)); /* as if it were the next one */
    copies_attach(rig_node(r, holder)->copies, everything, NULL);
    channel_send(rig_node(r, holder)->channels, home, &(struct frame){.kind = FRAME_ATTACHED},
                 (struct hold){0}, false);
    fake_store_pause(rig_store(r), false);
    rig_run(r);
    assert_null(session_find(rig_home(r, home), bob.sid));
    assert_int_equal(copies_count(rig_node(r, holder)->copies), 0);
    rig_close(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_one_holder_knows_to_be_counted_is_taken_for_all),
        cmocka_unit_test(presence_that_was_overtaken_is_no_news),
        cmocka_unit_test(presence_goes_again_to_the_clients_that_have_not_had_it),
        cmocka_unit_test(a_session_that_was_ended_does_not_come_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
