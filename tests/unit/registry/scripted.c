/* The registry against servers that answer wrongly, late, in pieces, or not at all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "node/registry/resp.h"
#include "node/registry/topology.h"
#include "tests/unit/registry/fake_redis.h"

/* ---- a rig ----------------------------------------------------------------------------------- */

struct rig {
    struct fake fake;
    const char *reply; /* to every script */
    int evals;         /* EVAL, the whole text */
    int answers;       /* done was called */
    err e;
    struct registry_reply last;
    struct registry_lease lease;
};
static struct rig rig;

static bool is_script(str s) { return str_is(s, "EVALSHA") || str_is(s, "EVAL"); }

static const char *say_reply(struct fake *f, struct fake_conn *c, int argc, const str *argv)
{
    rig.evals += str_is(argv[0], "EVAL");
    return is_script(argv[0]) ? rig.reply : NULL;
}

static void start_with(enum registry_mode mode, fake_answer_f *answer)
{
    memset(&rig, 0, sizeof rig);
    fake_init(&rig.fake, answer);
    fake_open(&rig.fake, mode);
    fake_advance(&rig.fake, 50);
}

static int setup(void **state)
{
    start_with(REGISTRY_SINGLE, say_reply);
    return 0;
}

static int teardown(void **state)
{
    fake_close(&rig.fake);
    return 0;
}

static void on_done(void *ctx, err e, const struct registry_reply *r)
{
    rig.answers++;
    rig.e = e;
    assert_int_equal(r == NULL, e == ERR_AWAY || e == ERR_REFUSED);
    rig.last = r ? *r : (struct registry_reply){.epoch = 0};
    if (rig.last.lease_count)
        rig.lease = r->leases[0];
}

static const struct registry_lease own = {.node = {"a", 1}, .owner = 0xabc, .ttl_ms = 3000};

/* What comes of a request within a second and a half. */
static err finish(void)
{
    int before = rig.answers;
    fake_advance(&rig.fake, 1500);
    assert_int_equal(rig.answers, before + 1);
    return rig.e;
}

static err renew(void)
{
    registry_lease_renew(rig.fake.door, own, on_done, NULL);
    return finish();
}

static err renew_answered(const char *reply)
{
    rig.reply = reply;
    return renew();
}

#define RENEWED "*4\r\n:1\r\n$16\r\n0000000000000abc\r\n:3000\r\n$2\r\n41\r\n"

static uint64_t refused(enum metric_registry_refusal reason)
{
    return metric_get(rig.fake.metrics, METRIC_AT(registry_refused, reason, 0));
}

/* ---- answers in any pieces ------------------------------------------------------------------- */

static void answers_are_read_in_pieces_of_any_size(void **state)
{
    for (size_t chunk = 1; chunk < 60; chunk++) {
        rig.fake.chunk = chunk;
        assert_int_equal(renew_answered(RENEWED), ERR_OK);
        assert_int_equal(rig.last.epoch, 41);
        assert_int_equal(rig.lease.owner, 0xabc);
        rig.reply = "*3\r\n$20\r\n18446744073709551615\r\n$4\r\n\r\n$1\r\n:1\r\n";
        registry_view_get(rig.fake.door, on_done, NULL);
        assert_int_equal(finish(), ERR_OK);
        assert_true(rig.last.epoch == UINT64_MAX && rig.last.view.n == 4 && rig.last.members);
    }
    assert_int_equal(rig.fake.dials, 1);
}

static bool count(void *ctx, const struct resp *r)
{
    ++*(int *)ctx;
    return true;
}

/* All of it at once, or byte by byte: the same verdict. */
static err read_all(const char *p, size_t n, int *replies)
{
    err verdicts[2] = {ERR_OK, ERR_OK};
    for (int way = 0; way < 2; way++) {
        struct resp_reader *r = resp_reader_new();
        size_t step = way ? 1 : n;
        *replies = 0;
        for (size_t i = 0; i < n && verdicts[way] == ERR_OK; i += step)
            verdicts[way] = resp_feed(r, p + i, step, count, replies);
        resp_reader_free(r);
    }
    assert_int_equal(verdicts[0], verdicts[1]);
    return verdicts[0];
}

static err read_text(const char *text, int *replies)
{
    return read_all(text, strlen(text), replies);
}

static void what_is_beyond_bounds_is_refused_before_it_costs_memory(void **state)
{
    int n;
    assert_int_equal(read_text("*65535\r\n", &n), ERR_OK); /* waits */
    assert_int_equal(read_text("*65537\r\n", &n), ERR_FULL);
    assert_int_equal(read_text("*100000000\r\n", &n), ERR_FULL);
    assert_int_equal(read_text("*2147483648\r\n", &n), ERR_BAD);
    assert_int_equal(read_text("*60000\r\n*60000\r\n", &n), ERR_FULL); /* together */
    assert_int_equal(read_text("*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n", &n), ERR_OK);
    assert_int_equal(n, 1);
    assert_int_equal(read_text("*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n", &n),
                     ERR_BAD);
    size_t size = RESP_BYTES_MAX + 100;
    char *giant = malloc(size);
    memset(giant, 'x', size);
    memcpy(giant, "+", 1);
    struct resp_reader *r = resp_reader_new();
    assert_int_equal(resp_feed(r, giant, RESP_LINE_MAX, count, &n), ERR_OK);
    assert_int_equal(resp_feed(r, giant + 1, 64, count, &n), ERR_FULL);
    resp_reader_free(r);
    memcpy(giant, "$4294967296\r\n", 13);
    r = resp_reader_new();
    assert_int_equal(resp_feed(r, giant, size, count, &n), ERR_FULL);
    resp_reader_free(r);
    free(giant);
}

static void what_is_no_resp2_is_refused(void **state)
{
    static const char *const wrong[] = {
        "hello\r\n",    "%1\r\n+a\r\n+b\r\n",
        ">1\r\n+a\r\n", "_\r\n",
        "#t\r\n",       ":x\r\n",
        "$x\r\n",       "*x\r\n",
        "$-2\r\n",      "*-2\r\n",
        ":1 \r\n",      ":99999999999999999999\r\n",
        "*1\r\n!\r\n",
    };
    int n;
    for (size_t i = 0; i < array_len(wrong); i++)
        assert_int_equal(read_text(wrong[i], &n), ERR_BAD);
    assert_int_equal(read_text("$-1\r\n*-1\r\n*0\r\n$0\r\n\r\n+\r\n-\r\n:-9\r\n", &n), ERR_OK);
    assert_int_equal(n, 7);
}

/* ---- answers of the wrong form --------------------------------------------------------------- */

static void an_answer_of_another_form_is_refused_and_counted(void **state)
{
    static const char *const wrong[] = {
        ":1\r\n",
        "+OK\r\n",
        "$-1\r\n",
        "*0\r\n",
        "*-1\r\n",
        "*1\r\n:1\r\n",
        "*2\r\n:2\r\n:2\r\n",
        "*3\r\n$1\r\n7\r\n$1\r\nv\r\n:2\r\n",
        "*3\r\n$1\r\n7\r\n$1\r\nv\r\n$1\r\n1\r\n",
        "*3\r\n$-1\r\n$1\r\nv\r\n:0\r\n",
        "*4\r\n:1\r\n:1\r\n:1\r\n:1\r\n",
        "*4\r\n$-1\r\n$-1\r\n$-1\r\n$-1\r\n",
        "*4\r\n:1\r\n$16\r\n000000000000ZZZZ\r\n:3000\r\n$2\r\n41\r\n",
        "*4\r\n:1\r\n$16\r\n0000000000000000\r\n:3000\r\n$2\r\n41\r\n",
        "*4\r\n:1\r\n$16\r\n0000000000000abc\r\n:-1\r\n$2\r\n41\r\n",
        "*4\r\n:1\r\n$16\r\n0000000000000abc\r\n:3000\r\n$2\r\n4x\r\n",
        "*4\r\n:1\r\n$16\r\n0000000000000abc\r\n:3000\r\n$21\r\n118446744073709551615\r\n",
        "*4\r\n:1\r\n$16\r\n0000000000000abc\r\n:3000\r\n$20\r\n18446744073709551616\r\n",
        "*4\r\n*0\r\n*0\r\n*0\r\n*0\r\n",
        "-ERR no\r\n",
        "-NOPERM no\r\n",
        "-OOM no\r\n",
    };
    const str node = STR("a");
    for (size_t i = 0; i < array_len(wrong); i++) {
        assert_int_equal(renew_answered(wrong[i]), ERR_REFUSED);
        registry_leases_get(rig.fake.door, &node, 1, on_done, NULL);
        assert_int_equal(finish(), ERR_REFUSED);
        registry_view_get(rig.fake.door, on_done, NULL);
        assert_int_equal(finish(), ERR_REFUSED);
        assert_int_equal(refused(REFUSED_FORM), 3 * i + 3);
    }
    assert_int_equal(rig.fake.dials, 1); /* the connection is none the worse */
    registry_view_cas(rig.fake.door, 1, 2, STR("v"), on_done, NULL);
    rig.reply = "*2\r\n:2\r\n$1\r\n2\r\n";
    assert_int_equal(finish(), ERR_REFUSED);
}

static void an_answer_nobody_asked_for_ends_the_connection(void **state)
{
    for (int i = 0; i < FAKE_CONNS; i++)
        fake_say(&rig.fake.conns[i], "+OK\r\n", 5);
    fake_run(&rig.fake);
    assert_non_null(strstr(rig.fake.log.text, "nobody asked for"));
    assert_int_equal(renew_answered(RENEWED), ERR_AWAY);
    assert_int_equal(renew_answered(RENEWED), ERR_OK); /* on the next one */
    assert_int_equal(rig.fake.dials, 2);
}

/* ---- scripts, redirections ------------------------------------------------------------------- */

static const char *know_no_script(struct fake *f, struct fake_conn *c, int argc, const str *argv)
{
    if (str_is(argv[0], "EVALSHA"))
        return "-NOSCRIPT No matching script.\r\n";
    return say_reply(f, c, argc, argv);
}

static void a_script_that_is_not_known_is_sent_once(void **state)
{
    rig.fake.answer = know_no_script;
    assert_int_equal(renew_answered(RENEWED), ERR_OK);
    assert_int_equal(rig.evals, 1);
    assert_int_equal(rig.fake.commands, 2);
    assert_int_equal(renew_answered("-NOSCRIPT still not\r\n"), ERR_REFUSED);
    assert_int_equal(rig.evals, 2);
}

#define SLOTS_ONE "*1\r\n*3\r\n:0\r\n:16383\r\n*3\r\n$8\r\n10.0.0.1\r\n:1\r\n$2\r\nid\r\n"
static const char *map;
static const char *on_first, *on_other; /* answers of 10.0.0.1:1, of the others */
static int asking;

static const char *be_cluster(struct fake *f, struct fake_conn *c, int argc, const str *argv)
{
    if (str_is(argv[0], "CLUSTER"))
        return map;
    if (str_is(argv[0], "ASKING"))
        return asking++, "+OK\r\n";
    if (is_script(argv[0]))
        return strcmp(c->address, "10.0.0.1:1") == 0 ? on_first : on_other;
    return NULL;
}

static int setup_cluster(void **state)
{
    map = SLOTS_ONE, on_first = RENEWED, on_other = RENEWED, asking = 0;
    start_with(REGISTRY_CLUSTER, be_cluster);
    return 0;
}

/* An answer with this test's slot in it. */
static const char *to(char out[128], const char *word, const char *address)
{
    snprintf(out, 128, "-%s %u %s\r\n", word, topology_slot(STR("{c}")), address);
    return out;
}

static void servers_that_send_us_to_each_other_are_left(void **state)
{
    char there[128], back[128];
    on_first = to(there, "MOVED", "10.0.0.2:2"), on_other = to(back, "MOVED", "10.0.0.1:1");
    assert_int_equal(renew(), ERR_AWAY); /* there was no connection to the other yet */
    rig.fake.commands = 0;
    assert_int_equal(renew(), ERR_AWAY);
    assert_in_range(rig.fake.commands, 2, 40);
    on_first = to(there, "ASK", "10.0.0.2:2"), on_other = to(back, "ASK", "10.0.0.1:1");
    assert_int_equal(renew(), ERR_AWAY);
    on_first = to(there, "MOVED", "10.0.0.1:1"); /* to itself */
    assert_int_equal(renew(), ERR_AWAY);
    on_first = RENEWED;
    assert_int_equal(renew(), ERR_OK);
}

#define SLOTS_MOVED "*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$8\r\n10.0.0.1\r\n:7\r\n"

static void a_slot_that_has_moved_is_asked_for_where_it_is(void **state)
{
    char there[128];
    map = SLOTS_MOVED;
    on_first = to(there, "MOVED", ":7"); /* port only: the same host */
    assert_int_equal(renew(), ERR_AWAY); /* there is no connection yet */
    assert_int_equal(renew(), ERR_OK);
    assert_int_equal(asking, 0);
}

static void a_slot_on_its_way_is_asked_for_there_with_asking(void **state)
{
    char there[128];
    on_first = to(there, "ASK", "10.0.0.1:7");
    assert_int_equal(renew(), ERR_AWAY);
    assert_int_equal(renew(), ERR_OK);
    assert_int_equal(renew(), ERR_OK);
    assert_int_equal(asking, 2); /* the slot is still the first one's */
}

static void redirections_of_another_form_are_refused(void **state)
{
    static const char *const forms[] = {
        "MOVED",         "MOVED ",    "MOVED x 10.0.0.1:1",     "MOVED 1",
        "MOVED 99999 a", "ASK 1 a:1", "MOVED 999999999999 a:1", "ASK",
    };
    char text[128];
    for (size_t i = 0; i < array_len(forms); i++) {
        snprintf(text, sizeof text, "-%s\r\n", forms[i]);
        on_first = text;
        assert_int_equal(renew(), ERR_REFUSED);
    }
    static const char *const addresses[] = {"", "x", "x:", ":", "x:0", "x:65536", "x:1x", "x:-1"};
    char there[128];
    for (size_t i = 0; i < array_len(addresses); i++) {
        on_first = to(there, "MOVED", addresses[i]);
        assert_int_equal(renew(), ERR_AWAY);
    }
    on_first = RENEWED;
    assert_int_equal(renew(), ERR_OK);
}

static void maps_of_another_form_are_not_taken(void **state)
{
    static const char *const maps[] = {
        "*0\r\n",
        "+OK\r\n",
        "$-1\r\n",
        "-ERR cluster support disabled\r\n",
        "*1\r\n:1\r\n",
        "*1\r\n*3\r\n:0\r\n:16384\r\n*2\r\n$1\r\na\r\n:1\r\n",
        "*1\r\n*3\r\n:-1\r\n:5\r\n*2\r\n$1\r\na\r\n:1\r\n",
        "*1\r\n*3\r\n:9\r\n:5\r\n*2\r\n$1\r\na\r\n:1\r\n",
        "*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$1\r\na\r\n:65536\r\n",
        "*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$1\r\na\r\n$1\r\n1\r\n",
        "*1\r\n*3\r\n:0\r\n:16383\r\n*0\r\n",
        "*1\r\n*2\r\n:0\r\n:16383\r\n",
        "*1\r\n*3\r\n:0\r\n:16383\r\n:1\r\n",
    };
    char there[128];
    for (size_t i = 0; i < array_len(maps); i++) {
        map = maps[i];
        on_first = to(there, "MOVED", "10.0.0.1:1"); /* makes it ask for the map */
        assert_int_equal(renew(), ERR_AWAY);
        on_first = RENEWED;
        assert_int_equal(renew(), ERR_OK); /* by the map that it has */
    }
}

static void maps_are_not_asked_for_without_a_pause(void **state)
{
    char there[128];
    on_first = to(there, "MOVED", "10.0.0.1:1");
    int before = rig.fake.dials;
    for (int i = 0; i < 20; i++)
        renew();
    assert_in_range(rig.fake.dials - before, 1, 20 * 1500 / 50);
    map = "*0\r\n"; /* and with longer ones when it fails */
    before = rig.fake.dials;
    fake_advance(&rig.fake, 100);
    renew();
    before = rig.fake.dials;
    fake_advance(&rig.fake, 20000);
    assert_in_range(rig.fake.dials - before, 10, 60);
}

static void slots_are_those_of_redis_cluster(void **state)
{
    assert_int_equal(topology_slot(STR("123456789")), 0x31c3);
    assert_int_equal(topology_slot(STR("foo")), 12182);
    assert_int_equal(topology_slot(STR("a{foo}b")), 12182);
    assert_int_equal(topology_slot(STR("a{foo}{bar}")), 12182);
    assert_int_equal(topology_slot(STR("{}foo")), topology_slot(STR("{}foo")));
    assert_int_not_equal(topology_slot(STR("{}foo")), topology_slot(STR("")));
    assert_int_equal(topology_slot(STR("{user1000}.following")), 3443);
}

/* ---- servers that are away ------------------------------------------------------------------- */

static void a_silent_server_is_away_and_is_asked_once(void **state)
{
    assert_int_equal(renew_answered(NULL), ERR_AWAY);
    assert_int_equal(rig.fake.commands, 1);
    fake_advance(&rig.fake, 5000);
    assert_int_equal(rig.fake.commands, 1);
    assert_non_null(strstr(rig.fake.log.text, "no answer in time"));
}

static void a_server_that_became_a_replica_is_left(void **state)
{
    assert_int_equal(renew_answered("-READONLY You can't write against a read only replica.\r\n"),
                     ERR_AWAY);
    assert_int_equal(rig.fake.dials, 2);
    assert_int_equal(rig.fake.commands, 1);
    assert_int_equal(renew_answered(RENEWED), ERR_OK);
    assert_string_equal(rig.fake.conns[0].used ? rig.fake.conns[0].address
                                               : rig.fake.conns[1].address,
                        "10.0.0.2:2");
}

static void a_server_out_of_reach_is_tried_with_longer_pauses(void **state)
{
    rig.fake.unreachable = true;
    for (int i = 0; i < FAKE_CONNS; i++)
        fake_hang_up(&rig.fake.conns[i]);
    fake_advance(&rig.fake, 60000);
    assert_in_range(rig.fake.dials, 20, 70); /* a second each without a greeting, and the pause */
    assert_int_equal(renew_answered(RENEWED), ERR_AWAY);
    rig.fake.unreachable = false;
    fake_advance(&rig.fake, 2500);
    assert_int_equal(renew(), ERR_OK);
}

static const char *hang_up(struct fake *f, struct fake_conn *c, int argc, const str *argv)
{
    fake_hang_up(c);
    return "";
}

static void a_server_that_hangs_up_at_once_is_not_hammered(void **state)
{
    rig.fake.answer = hang_up;
    for (int i = 0; i < FAKE_CONNS; i++)
        fake_hang_up(&rig.fake.conns[i]);
    rig.fake.dials = 0;
    fake_advance(&rig.fake, 60000);
    assert_in_range(rig.fake.dials, 50, 150);
}

/* ---- records --------------------------------------------------------------------------------- */

static int writes, touches;
static const char *write_reply, *touch_reply;
static char last_before[64];
static int last_fields; /* written, not removed */

static const char *keep_records(struct fake *f, struct fake_conn *c, int argc, const str *argv)
{
    if (!is_script(argv[0]))
        return NULL;
    if (argc == 9 && !str_is(argv[6], "*"))
        return touches++, touch_reply;
    snprintf(last_before, sizeof last_before, "%.*s", STR_ARG(argv[6]));
    last_fields = (argc - 9 - atoi(argv[8].p)) / 2;
    return writes++, write_reply;
}

static int setup_records(void **state)
{
    writes = touches = 0;
    write_reply = touch_reply = ":0\r\n";
    start_with(REGISTRY_SINGLE, keep_records);
    return 0;
}

static void put(const char *key, const char *name, const char *value)
{
    struct registry_record r = {REGISTRY_USER, str_of(key), str_of(name), str_of(value), 5};
    registry_record_put(rig.fake.door, &r);
}

static void drop(const char *key, const char *name)
{
    struct registry_record r = {REGISTRY_USER, str_of(key), str_of(name), STR_NONE, 5};
    registry_record_remove(rig.fake.door, &r);
}

static size_t unsaved(void) { return registry_redis_unsaved(rig.fake.redis); }

static void a_write_of_unknown_fate_is_made_anew(void **state)
{
    put("a@x", "r", "v");
    fake_run(&rig.fake);
    assert_string_equal(last_before, "*");
    put("a@x", "s", "v");
    fake_run(&rig.fake);
    assert_string_not_equal(last_before, "*"); /* what was left there */
    write_reply = NULL;
    put("a@x", "r", "w");
    fake_run(&rig.fake);
    assert_int_equal(writes, 3);
    put("a@x", "t", "meanwhile");
    fake_run(&rig.fake);
    assert_int_equal(writes, 3); /* one at a time */
    write_reply = ":0\r\n";
    fake_advance(&rig.fake, 3000);
    assert_int_equal(unsaved(), 0);
    assert_int_equal(writes, 4);
    assert_string_equal(last_before, "*");
}

static void what_is_put_and_taken_while_away_costs_nothing(void **state)
{
    rig.fake.unreachable = true;
    for (int i = 0; i < FAKE_CONNS; i++)
        fake_hang_up(&rig.fake.conns[i]);
    fake_advance(&rig.fake, 100);
    for (int i = 0; i < 5000; i++) {
        put("a@x", "r", "v");
        drop("a@x", "r");
    }
    assert_int_equal(unsaved(), 0);
    rig.fake.unreachable = false;
    fake_advance(&rig.fake, 3000);
    assert_int_equal(writes, 0);
}

static void records_beyond_the_bounds_are_counted_not_kept(void **state)
{
    char name[16];
    for (int i = 0; i < 1500; i++) {
        sprintf(name, "r%d", i);
        put("a@x", name, "v");
    }
    assert_int_equal(refused(REFUSED_FULL), 500);
    put("a@x", "r7", "still taken");
    assert_int_equal(refused(REFUSED_FULL), 500);
    fake_run(&rig.fake);
    assert_int_equal(unsaved(), 0);
    for (int i = 0; i < 1000; i++) {
        sprintf(name, "r%d", i);
        drop("a@x", name);
    }
    fake_run(&rig.fake);
    put("b@x", "r", "v");
    assert_int_equal(refused(REFUSED_FULL), 500);
}

static void every_answer_to_a_record_has_an_end(void **state)
{
    static const char *const replies[] = {
        ":1\r\n",      ":2\r\n",     ":3\r\n",
        ":99\r\n",     "+OK\r\n",    "$-1\r\n",
        "*0\r\n",      "-ERR x\r\n", "-LOADING Redis is loading\r\n",
        "-BUSY x\r\n", "-OOM x\r\n", "-WRONGTYPE x\r\n",
    };
    for (size_t i = 0; i < array_len(replies); i++) {
        put("a@x", "r", "v");
        write_reply = touch_reply = replies[i];
        writes = touches = 0;
        put("a@x", "r", "w");
        fake_advance(&rig.fake, 7000);
        assert_in_range(writes, 1, 140);
        write_reply = touch_reply = ":0\r\n";
        fake_advance(&rig.fake, 14000);
        assert_int_equal(unsaved(), 0);
    }
}

static void records_are_touched_in_each_refresh(void **state)
{
    char key[16];
    for (int i = 0; i < 100; i++) {
        sprintf(key, "u%d@x", i);
        put(key, "r", "v");
    }
    fake_advance(&rig.fake, 100);
    assert_int_equal(writes, 100);
    fake_advance(&rig.fake, 6400 * 3);
    assert_int_equal(writes, 100);
    assert_in_range(touches, 200, 300);
    touch_reply = ":2\r\n";
    fake_advance(&rig.fake, 6600);
    assert_int_equal(writes, 200);
}

static void forget(const char *key)
{
    registry_record_forget(rig.fake.door, REGISTRY_USER, str_of(key));
}

static void what_another_writes_now_is_left_to_it(void **state)
{
    put("a@x", "r", "v");
    put("b@x", "r", "v");
    fake_run(&rig.fake);
    assert_int_equal(writes, 2);
    forget("a@x");
    forget("nobody@x");
    fake_advance(&rig.fake, 6400 * 3);
    assert_in_range(touches, 2, 3); /* b's */
    assert_int_equal(writes, 2);
    drop("a@x", "r");
    fake_run(&rig.fake);
    assert_int_equal(writes, 2);
}

static void what_is_forgotten_on_its_way_is_written_anew_if_it_comes_back(void **state)
{
    write_reply = NULL;
    put("a@x", "r", "v");
    put("b@x", "r", "v");
    fake_run(&rig.fake);
    put("a@x", "s", "v");
    forget("a@x");
    forget("b@x");
    assert_int_equal(unsaved(), 0);
    put("a@x", "t", "v");
    assert_int_equal(unsaved(), 1);
    write_reply = ":0\r\n";
    fake_say(&rig.fake.conns[0], ":0\r\n:0\r\n", 8);
    fake_run(&rig.fake);
    assert_int_equal(writes, 3);
    assert_string_equal(last_before, "*");
    assert_int_equal(last_fields, 1);
    assert_int_equal(unsaved(), 0);
}

#define CASE(test, setup) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(answers_are_read_in_pieces_of_any_size, setup),
        cmocka_unit_test(what_is_beyond_bounds_is_refused_before_it_costs_memory),
        cmocka_unit_test(what_is_no_resp2_is_refused),
        CASE(an_answer_of_another_form_is_refused_and_counted, setup),
        CASE(an_answer_nobody_asked_for_ends_the_connection, setup),
        CASE(a_script_that_is_not_known_is_sent_once, setup),
        CASE(servers_that_send_us_to_each_other_are_left, setup_cluster),
        CASE(a_slot_that_has_moved_is_asked_for_where_it_is, setup_cluster),
        CASE(a_slot_on_its_way_is_asked_for_there_with_asking, setup_cluster),
        CASE(redirections_of_another_form_are_refused, setup_cluster),
        CASE(maps_of_another_form_are_not_taken, setup_cluster),
        CASE(maps_are_not_asked_for_without_a_pause, setup_cluster),
        cmocka_unit_test(slots_are_those_of_redis_cluster),
        CASE(a_silent_server_is_away_and_is_asked_once, setup),
        CASE(a_server_that_became_a_replica_is_left, setup),
        CASE(a_server_out_of_reach_is_tried_with_longer_pauses, setup),
        CASE(a_server_that_hangs_up_at_once_is_not_hammered, setup),
        CASE(a_write_of_unknown_fate_is_made_anew, setup_records),
        CASE(what_is_put_and_taken_while_away_costs_nothing, setup_records),
        CASE(records_beyond_the_bounds_are_counted_not_kept, setup_records),
        CASE(every_answer_to_a_record_has_an_end, setup_records),
        CASE(records_are_touched_in_each_refresh, setup_records),
        CASE(what_another_writes_now_is_left_to_it, setup_records),
        CASE(what_is_forgotten_on_its_way_is_written_anew_if_it_comes_back, setup_records),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
