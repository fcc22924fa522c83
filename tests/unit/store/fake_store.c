/* The fake store keeps the door's promises, and its knobs work. */
#include "tests/unit/support/fake_store.h"
#include "tests/unit/store/bench.h"

#define JID "romeo@montague.example"

static struct answers {
    size_t n;
    err e[16];
    bool has_reply[16], exists[16];
    struct store *again; /* ask once more from done */
} got;

static void ask(struct store *s);

static void on_done(void *ctx, err e, const Store__Reply *r)
{
    assert_true(got.n < 16);
    got.e[got.n] = e;
    got.has_reply[got.n] = r != NULL;
    got.exists[got.n++] = r && r->body_case == STORE__REPLY__BODY_ACCOUNT && r->account->exists;
    struct store *again = got.again;
    got.again = NULL;
    if (again)
        ask(again);
}

static void ask(struct store *s)
{
    Store__AccountGet get = STORE__ACCOUNT_GET__INIT;
    REQUEST(q, JID, ACCOUNT_GET, account_get, &get);
    size_t before = got.n;
    store_submit(s, &q, on_done, NULL);
    assert_int_equal(got.n, before);
}

static int setup(void **state)
{
    got = (struct answers){0};
    *state = fake_store_open();
    return 0;
}

static int teardown(void **state)
{
    fake_store_close(*state);
    return 0;
}

static void answers_come_when_the_test_runs_it(void **state)
{
    struct store *s = fake_store_door(*state);
    ask(s);
    fake_store_add_account(*state, JID, STR("keys"));
    got.again = s;
    ask(s);
    assert_int_equal(fake_store_waiting(*state), 2);
    assert_int_equal(fake_store_run(*state), 3);
    assert_int_equal(got.n, 3);
    assert_int_equal(got.e[0], ERR_OK);
    assert_true(got.exists[0] && got.exists[2]);
    assert_int_equal(fake_store_run(*state), 0);
}

static void paused_it_answers_nothing(void **state)
{
    fake_store_pause(*state, true);
    ask(fake_store_door(*state));
    assert_int_equal(fake_store_run(*state), 0);
    fake_store_pause(*state, false);
    assert_int_equal(fake_store_run(*state), 1);
}

static void it_fails_as_often_as_asked(void **state)
{
    struct store *s = fake_store_door(*state);
    ask(s), ask(s), ask(s);
    fake_store_fail_next(*state, 2, ERR_AWAY);
    fake_store_run(*state);
    assert_int_equal(got.e[0], ERR_AWAY);
    assert_int_equal(got.e[1], ERR_AWAY);
    assert_false(got.has_reply[1]);
    assert_int_equal(got.e[2], ERR_OK);
    fake_store_fail_next(*state, 1, ERR_DISK_FULL);
    ask(s);
    fake_store_run(*state);
    assert_int_equal(got.e[3], ERR_DISK_FULL);
    assert_true(got.has_reply[3]);
}

static void what_was_not_run_is_freed_with_it(void **state) { ask(fake_store_door(*state)); }

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(answers_come_when_the_test_runs_it),
        T(paused_it_answers_nothing),
        T(it_fails_as_often_as_asked),
        T(what_was_not_run_is_freed_with_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
