/* The supervisor's pure parts: back-off, tables, JSON, error texts, cores, percentiles. */
#include <errno.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "node/super/backoff.h"
#include "node/super/families.h"
#include "node/super/inside.h"
#include "node/super/json.h"
#include "node/super/listen.h"
#include "node/super/machine.h"
#include "node/super/peers.h"
#include "node/super/table.h"

static void a_child_starts_at_once_then_later_and_later(void **state)
{
    static const int64_t waits[] = {0, 100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000};
    struct backoff b = {0};
    int64_t now = 1000;
    for (size_t i = 0; i < array_len(waits); i++) {
        backoff_started(&b, now);
        now += 50;
        int64_t wait = backoff_died(&b, now);
        assert_int_equal(wait, waits[i]);
        now += wait;
    }
    for (int i = 0; i < 100; i++)
        assert_int_equal(backoff_died(&b, now), 5000);
}

static void a_minute_of_health_is_forgiven(void **state)
{
    struct backoff b = {0};
    for (int i = 0; i < 5; i++)
        backoff_died(&b, 0);
    backoff_started(&b, 1000);
    assert_int_equal(backoff_died(&b, 1000 + BACKOFF_HEALTHY_MS), 0);
    backoff_started(&b, 100000);
    assert_int_equal(backoff_died(&b, 100000 + BACKOFF_HEALTHY_MS - 1), 100);
}

static void a_table_is_aligned_by_characters_not_bytes(void **state)
{
    static const char *const heads[] = {"JID", ">COUNT", "STATE"};
    struct arena a;
    struct table t;
    char *text = NULL;
    size_t n;
    arena_init(&a);
    table_init(&t, &a, heads, 3);
    const char *const cells[] = {"müller@a", "5", "up", "x@b", "123456", "down"};
    for (size_t i = 0; i < array_len(cells); i++)
        table_add(&t, str_of(cells[i]));
    FILE *f = open_memstream(&text, &n);
    table_print(&t, f);
    fclose(f);
    assert_string_equal(text, "JID        COUNT  STATE\n"
                              "müller@a       5  up\n"
                              "x@b       123456  down\n");
    free(text);
    arena_close(&a);
}

static void an_empty_table_is_its_head(void **state)
{
    static const char *const heads[] = {"JID", "STATE"};
    struct arena a;
    struct table t;
    char *text = NULL;
    size_t n;
    arena_init(&a);
    table_init(&t, &a, heads, 2);
    FILE *f = open_memstream(&text, &n);
    table_print(&t, f);
    fclose(f);
    assert_string_equal(text, "JID  STATE\n");
    free(text);
    arena_close(&a);
}

static void numbers_have_short_forms(void **state)
{
    struct arena a;
    arena_init(&a);
    assert_string_equal(format_duration(&a, 0).p, "0s");
    assert_string_equal(format_duration(&a, 192).p, "3m12s");
    assert_string_equal(format_duration(&a, 3600).p, "1h");
    assert_string_equal(format_duration(&a, 5 * 86400 + 3 * 3600 + 59).p, "5d3h");
    assert_string_equal(format_bytes(&a, 512).p, "512b");
    assert_string_equal(format_bytes(&a, 9.1 * 1024 * 1024).p, "9.1M");
    assert_string_equal(format_bytes(&a, 41.2 * 1024 * 1024 * 1024).p, "41G");
    assert_string_equal(format_latency(&a, 0).p, "-");
    assert_string_equal(format_latency(&a, 0.0002).p, "0.2ms");
    assert_string_equal(format_latency(&a, 1.52).p, "1.5s");
    arena_close(&a);
}

static void json_reads_what_json_writes(void **state)
{
    struct arena a;
    char *text = NULL;
    size_t n;
    str nasty = STR("a\"b\\c\n\t\x01 \xc3\xbc");
    arena_init(&a);
    FILE *f = open_memstream(&text, &n);
    fputs("{\"items\":[{\"jid\":", f);
    json_write(f, nasty);
    fputs(",\"n\":-1.5e3,\"yes\":true,\"none\":null,\"list\":[]}]}", f);
    fclose(f);
    const struct json *root = json_parse(str_from(text, n), &a);
    assert_non_null(root);
    const struct json *item = json_get(root, "items")->first;
    assert_true(str_eq(json_text(item, "jid"), nasty));
    assert_true(json_number(item, "n") == -1500);
    assert_int_equal(json_get(item, "yes")->kind, JSON_BOOL);
    assert_int_equal(json_get(item, "none")->kind, JSON_NULL);
    assert_null(json_get(item, "list")->first);
    assert_null(json_get(item, "missing"));
    assert_true(str_eq(json_text(NULL, "missing"), STR("")));
    free(text);
    arena_close(&a);
}

static void json_refuses_what_is_not_json(void **state)
{
    static const char *const bad[] = {"",
                                      "{",
                                      "[1,]",
                                      "{\"a\"}",
                                      "\"a",
                                      "\"\\x\"",
                                      "\"\\u12\"",
                                      "nope",
                                      "[1] 2",
                                      "{a:1}",
                                      "[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]"};
    struct arena a;
    arena_init(&a);
    for (size_t i = 0; i < array_len(bad); i++)
        if (json_parse(str_of(bad[i]), &a))
            fail_msg("accepted: %s", bad[i]);
    arena_close(&a);
}

static void a_taken_port_is_told_with_its_holder_and_a_way_out(void **state)
{
    struct arena a;
    arena_init(&a);
    assert_string_equal(
        listener_complaint(STR(":5222"), EADDRINUSE, STR("\"prosody\" (pid 812)"), &a).p,
        "cannot listen on :5222: address in use by \"prosody\" (pid 812). Stop it, or: ops/start "
        "--port-shift 1000");
    assert_string_equal(listener_complaint(STR(":5222"), EADDRINUSE, STR(""), &a).p,
                        "cannot listen on :5222: address in use. Stop it, or: ops/start "
                        "--port-shift 1000");
    assert_non_null(
        strstr(listener_complaint(STR(":22"), EACCES, STR(""), &a).p, "CAP_NET_BIND_SERVICE"));
    arena_close(&a);
}

static void the_holder_of_a_port_is_found(void **state)
{
    static const char line[] = "   0: 0100007F:1466 00000000:0000 0A 00000000:00000000 00:00000000 "
                               "00000000     0        0 67890 1 0000000000000000 100 0 0 10 0";
    static const char connected[] = "   1: 0100007F:1466 0100007F:D431 01 00000000:00000000 "
                                    "02:000AF 00000000     0        0 12345 2";
    assert_int_equal(machine_listen_inode(line, 5222), 67890);
    assert_int_equal(machine_listen_inode(line, 5223), 0);
    assert_int_equal(machine_listen_inode(connected, 5222), 0);
    assert_int_equal(machine_listen_inode("  sl  local_address rem_address", 5222), 0);
}

static void two_nodes_cannot_share_a_port(void **state)
{
    struct listener one = {.kind = CHILD_C2S, .address = STR("127.77.31.1:5222"), .backlog = 64};
    struct listener two = one;
    struct arena a;
    str problem;
    arena_init(&a);
    assert_int_equal(listener_open(&one, 4, &a, &problem), ERR_OK);
    assert_int_equal(listener_start(&one, 4), ERR_OK);
    assert_int_equal(listener_open(&two, 4, &a, &problem), ERR_IO);
    assert_non_null(strstr(problem.p, "cannot listen on 127.77.31.1:5222: address in use by \""));
    listener_close(&one, 4);
    assert_int_equal(listener_open(&two, 4, &a, &problem), ERR_OK);
    listener_close(&two, 4);
    arena_close(&a);
}

static void a_quota_of_processor_time_is_cores_rounded_up(void **state)
{
    assert_int_equal(machine_cores_of_quota("200000 100000\n"), 2);
    assert_int_equal(machine_cores_of_quota("150000 100000\n"), 2);
    assert_int_equal(machine_cores_of_quota("5000 100000\n"), 1);
    assert_int_equal(machine_cores_of_quota("max 100000\n"), 0);
    assert_true(machine_cores() >= 1);
}

static void put_quota(const char *root, const char *group, const char *cpu_max)
{
    char path[256];
    snprintf(path, sizeof path, "%s%s", root, group);
    assert_true(mkdir(path, 0700) == 0 || errno == EEXIST);
    snprintf(path, sizeof path, "%s%s/cpu.max", root, group);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(cpu_max, f);
    fclose(f);
}

static void the_least_quota_on_the_way_up_counts(void **state)
{
    char root[] = "/tmp/pemberley-cgroup-XXXXXX", remove[64];
    assert_non_null(mkdtemp(root));
    put_quota(root, "/slice", "250000 100000\n");
    put_quota(root, "/slice/pod", "max 100000\n");
    put_quota(root, "/slice/pod/mine", "400000 100000\n");
    assert_int_equal(machine_quota_cores(root, "/slice/pod/mine"), 3);
    assert_int_equal(machine_quota_cores(root, "/slice/pod"), 3);
    assert_int_equal(machine_quota_cores(root, ""), 0); /* the machine's root has no file */
    assert_int_equal(machine_quota_cores(root, "/not/there"), 0);
    put_quota(root, "/slice/pod/mine", "50000 100000\n");
    assert_int_equal(machine_quota_cores(root, "/slice/pod/mine"), 1);
    put_quota(root, "", "200000 100000\n"); /* a container's own */
    assert_int_equal(machine_quota_cores(root, "/"), 2);
    snprintf(remove, sizeof remove, "rm -r %s", root);
    assert_int_equal(system(remove), 0);
}

static void percentiles_look_at_what_is_new(void **state)
{
    static uint64_t old[METRIC_HISTOGRAM_BUCKETS], now[METRIC_HISTOGRAM_BUCKETS];
    assert_int_equal(status_percentile(old, now, 0.99), 0);
    old[metric_bucket(1000000)] = now[metric_bucket(1000000)] = 500; /* long ago */
    now[metric_bucket(200)] = 99;
    now[metric_bucket(9000)] = 1;
    uint64_t p99 = status_percentile(old, now, 0.99), p100 = status_percentile(old, now, 1);
    assert_in_range(p99, 200, 230);
    assert_in_range(p100, 9000, 10300);
}

/* Every number of a page belongs to exactly one family, in order. */
static void families_cover_the_page(void **state)
{
    unsigned next = 0, next_histogram = 0;
    for (unsigned i = 0; i < families_count; i++) {
        assert_int_equal(families[i].first, next);
        next += set_size(families[i].a) * set_size(families[i].b);
    }
    assert_int_equal(next, METRIC_MAX);
    for (unsigned i = 0; i < histogram_families_count; i++) {
        assert_int_equal(histogram_families[i].first, next_histogram);
        next_histogram += set_size(histogram_families[i].set);
    }
    assert_int_equal(next_histogram, HISTOGRAM_MAX);
}

static void a_family_stands_together_and_its_labels_differ(void **state)
{
    struct arena a;
    arena_init(&a);
    for (unsigned i = 1; i < families_count; i++)
        for (unsigned k = 0; k + 1 < i; k++)
            assert_true(strcmp(families[i].name, families[k].name) ||
                        !strcmp(families[i].name, families[i - 1].name));
    for (unsigned s = 0; s < METRIC_SET_MAX; s++)
        for (unsigned i = 0;
             s != METRIC_SET_HOST && s != METRIC_SET_PEER && i < set_size((enum metric_set)s); i++)
            for (unsigned k = 0; k < i; k++)
                assert_false(str_eq(set_label((enum metric_set)s, i, &a),
                                    set_label((enum metric_set)s, k, &a)));
    arena_close(&a);
}

static void nodes_have_one_name_whatever_their_place_on_each_page(void **state)
{
    struct super *s = calloc(1, sizeof *s);
    struct metric_page *page[2] = {calloc(1, sizeof *page[0]), calloc(1, sizeof *page[1])};
    struct peers *p = calloc(1, sizeof *p);
    char name[16];
    s->shards = 2;
    s->process[0].page = page[0], s->process[1].page = page[1];
    assert_int_equal(metric_peer(page[0], "b", 64), 1);
    assert_int_equal(metric_peer(page[0], "c", 64), 2);
    assert_int_equal(metric_peer(page[1], "c", 64), 1);
    assert_int_equal(metric_peer(page[1], "c", 64), 1); /* again, or another incarnation */
    assert_int_equal(metric_peer(page[1], "d", 1), 0);  /* metrics.peers_max */
    assert_int_equal(metric_peer(page[1], "a-name-of-thirty-two-letters-long", 64), 2);
    peers_collect(p, s);
    assert_int_equal(p->n, 4);
    assert_string_equal(p->name[0], "other");
    assert_string_equal(p->name[p->of[0][1]], "b");
    assert_string_equal(p->name[p->of[1][1]], "c");
    assert_int_equal(p->of[0][2], p->of[1][1]);
    for (int i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "n%d", i);
        assert_int_equal(metric_peer(page[i & 1], name, 64) > 0, i < 62 + 62);
    }
    peers_collect(p, s);
    assert_int_equal(p->n, METRIC_SIZE_PEER);
    free(p), free(page[0]), free(page[1]), free(s);
}

static void errors_have_labels_of_their_own_class(void **state)
{
    struct arena a;
    arena_init(&a);
    assert_true(str_is(set_label(METRIC_SET_STREAM, METRIC_ERR(STREAM, ERR_STREAM_TOO_DEEP), &a),
                       "condition=\"too_deep\""));
    assert_true(str_is(set_label(METRIC_SET_SASL, METRIC_ERR(SASL, ERR_SASL_ABORTED), &a),
                       "reason=\"aborted\""));
    assert_true(str_is(set_label(METRIC_SET_STANZA, METRIC_ERR(STANZA, ERR_SASL_ABORTED), &a),
                       "reason=\"other\""));
    assert_true(str_is(set_label(METRIC_SET_POLICY, METRIC_ERR(POLICY, ERR_STREAM_RESET), &a),
                       "limit=\"other\""));
    for (unsigned e = ERR_OK; e < ERR_MAX; e++) {
        enum err_class class = err_row((err)e)->class;
        assert_int_equal(METRIC_ERR(STREAM, (err)e) < METRIC_SIZE_STREAM - 1,
                         class == ERR_CLASS_STREAM);
        assert_int_equal(METRIC_ERR(STANZA, (err)e) < METRIC_SIZE_STANZA - 1,
                         class == ERR_CLASS_STANZA);
        assert_int_equal(METRIC_ERR(SASL, (err)e) < METRIC_SIZE_SASL - 1, class == ERR_CLASS_SASL);
        assert_int_equal(METRIC_ERR(LOCAL, (err)e) < METRIC_SIZE_LOCAL - 1,
                         class == ERR_CLASS_LOCAL);
    }
    arena_close(&a);
}

static void a_histogram_bucket_holds_what_it_says(void **state)
{
    uint64_t below = 0;
    for (unsigned b = 0; b + 1 < METRIC_HISTOGRAM_BUCKETS; b++) {
        uint64_t edge = metric_bucket_us(b);
        assert_true(b == 0 || edge > below);
        if (b >= 8) {
            assert_int_equal(metric_bucket(edge - 1), b);
            assert_int_equal(metric_bucket(edge), b + 1);
        }
        below = edge;
    }
    assert_int_equal(metric_bucket(UINT64_MAX), METRIC_HISTOGRAM_BUCKETS - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_child_starts_at_once_then_later_and_later),
        cmocka_unit_test(a_minute_of_health_is_forgiven),
        cmocka_unit_test(a_table_is_aligned_by_characters_not_bytes),
        cmocka_unit_test(an_empty_table_is_its_head),
        cmocka_unit_test(numbers_have_short_forms),
        cmocka_unit_test(json_reads_what_json_writes),
        cmocka_unit_test(json_refuses_what_is_not_json),
        cmocka_unit_test(a_taken_port_is_told_with_its_holder_and_a_way_out),
        cmocka_unit_test(the_holder_of_a_port_is_found),
        cmocka_unit_test(two_nodes_cannot_share_a_port),
        cmocka_unit_test(a_quota_of_processor_time_is_cores_rounded_up),
        cmocka_unit_test(the_least_quota_on_the_way_up_counts),
        cmocka_unit_test(percentiles_look_at_what_is_new),
        cmocka_unit_test(families_cover_the_page),
        cmocka_unit_test(a_family_stands_together_and_its_labels_differ),
        cmocka_unit_test(nodes_have_one_name_whatever_their_place_on_each_page),
        cmocka_unit_test(errors_have_labels_of_their_own_class),
        cmocka_unit_test(a_histogram_bucket_holds_what_it_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
