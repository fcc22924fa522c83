/* Commands that name an account: what else happens to that account at the same time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "node/home/inside.h"
#include "proto/base/hex.h"
#include "proto/sasl/scram.h"
#include "tests/unit/support/home_rig.h"

struct answer {
    int count, code;
    char text[512];
};

static void on_answer(void *ctx, int code, str text)
{
    struct answer *a = ctx;
    a->count++, a->code = code;
    snprintf(a->text, sizeof a->text, "%.*s", STR_ARG(text));
}

static void command(struct rig *r, struct answer *a, const char *name, const char *jid, str arg)
{
    str argv[] = {str_of(name), str_of(jid), arg};
    *a = (struct answer){.code = -1};
    home_command(rig_home(r, rig_home_of(r, jid)), argv, arg.n ? 3 : 2, on_answer, a);
}

static str some_keys(struct rig *r)
{
    struct scram_keys keys;
    unsigned char blob[SCRAM_BLOB_MAX];
    static char hex[2 * SCRAM_BLOB_MAX];
    scram_keys_make(STR("password"), 4096, rig_node(r, 0)->entropy, &keys);
    size_t n = scram_keys_encode(&keys, blob);
    hex_encode(hex, str_from(blob, n));
    return str_from(hex, 2 * n);
}

static void an_account_is_made_while_somebody_tries_to_log_in_to_it(void **state)
{
    struct rig *r = rig_open(NULL);
    struct client c = {.rig = r};
    struct answer a;
    assert_int_equal(rig_bind(r, &c, 0, "new@localhost", "x"), ERR_STANZA_NOT_AUTHORIZED);
    fake_store_pause(rig_store(r), true);
    command(r, &a, "user-add", "new@localhost", some_keys(r));
    struct frame f = {.kind = FRAME_BIND,
                      .bare = STR("new@localhost"),
                      .resource = STR("x"),
                      .conn = 99,
                      .text = STR("127.0.0.1")};
    unsigned home = rig_home_of(r, "new@localhost");
    channel_send(rig_node(r, 0)->channels, home, &f, (struct hold){0}, true);
    rig_run(r);
    fake_store_pause(rig_store(r), false);
    rig_run(r);
    assert_int_equal(a.count, 1);
    assert_int_equal(a.code, 0);
    assert_int_equal(rig_bind(r, &c, 0, "new@localhost", "x"), ERR_OK);
    rig_close(r);
}

static void whoever_waits_for_a_removed_account_is_told(void **state)
{
    struct rig *r = rig_open(NULL);
    struct client alice;
    struct answer a;
    rig_user(r, "alice@localhost");
    rig_user(r, "bob@localhost");
    assert_int_equal(rig_bind(r, &alice, 0, "alice@localhost", "x"), ERR_OK);
    rig_send(&alice, "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>");
    rig_send(&alice, "<presence type='subscribe' to='bob@localhost'/>");
    rig_forget(&alice);
    command(r, &a, "user-remove", "bob@localhost", STR_NONE);
    rig_expect(&alice, "type='unsubscribed'");
    rig_expect(&alice, "subscription='none'");
    assert_int_equal(a.code, 0);
    rig_close(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_account_is_made_while_somebody_tries_to_log_in_to_it),
        cmocka_unit_test(whoever_waits_for_a_removed_account_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
