/* Files: lines, what is open, what is included, and the shipped file. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "node/conf/load.h"

static char directory[] = "/tmp/pemberley-conf-XXXXXX";

static const char *write_file(const char *name, const char *content)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(content, f);
    fclose(f);
    return path;
}

static void remove_file(const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    unlink(path);
}

static struct conf_draft *load(const char *content)
{
    struct conf_draft *d = conf_draft_new();
    conf_load(d, write_file("p.conf", content));
    return d;
}

static void expect_problem(const char *content, const char *problem)
{
    struct conf_draft *d = load(content);
    assert_int_equal(d->problem_count, 1);
    assert_string_equal(d->problems[0].p, problem);
    conf_draft_free(d);
}

static void mistakes_are_named_with_file_and_line(void **state)
{
    expect_problem("host \"a.org\" { }\nlimits {\n  c2s {\n    stanza_max = 256\n  }\n}\n",
                   "p.conf:4: limits.c2s.stanza_max = 256: a size needs a unit (b, k, m, g). "
                   "Allowed 10000b to 16m, default 256k. Did you mean 256k?");
    expect_problem("\nhost \"a.org\" {\n  certifcate_file = x\n}\n",
                   "p.conf:3: host \"a.org\": no option \"certifcate_file\". Did you mean "
                   "\"certificate_file\"?");
    expect_problem("limits {\n c2s { stanzas = 1 }\n}\n", "p.conf:2: limits.c2s: no option "
                                                          "\"stanzas\"");
    expect_problem("host \"a.org\" { }\nhost \"a.org\" { }\n",
                   "p.conf:2: host \"a.org\" stands there twice");
}

static void comments_stand_anywhere_and_move_no_line(void **state)
{
    expect_problem("# one { \"\n// two\nhost \"a.org\" { } # three\n/* four\n'five */ limits {\n"
                   "  depth_max = 0 // six\n}\n",
                   "p.conf:6: limits.depth_max = 0: too small. Allowed 16 to 256, default 64.");
    struct conf_draft *d = load("host \"a.org\" { } ## who\n"
                                "node { name = a//b# c } d\n"
                                " data_dir = \"/srv/#//\\\"p\" }\n"
                                "limits { exempt_from = {10.0.0.0/8, # the office\n"
                                "  192.168.0.0/16 /* and\nhome */} }\n");
    assert_int_equal(d->problem_count, 1);
    assert_non_null(strstr(d->problems[0].p, "p.conf:2: node.name = a//b:"));
    conf_draft_free(d);
}

static void one_run_names_all_wrong_values(void **state)
{
    struct conf_draft *d = load("host \"a.org\" { users_max = 3x\n auth = {sometimes} }\n"
                                "limits { exempt_from += {10.0.0.0/33}\n resume_timeout = 10 }\n");
    assert_int_equal(d->problem_count, 4);
    assert_null(conf_draft_build(d));
    conf_draft_free(d);
}

static void what_is_left_open_is_an_error(void **state)
{
    expect_problem("host \"a.org\" { }\nlimits {\n  c2s {\n  }\n",
                   "p.conf:5: the file ends, but section limits is still open: a } is missing");
    expect_problem("limits {\n  c2s {\n  }\nhost \"a.org\" { }\n",
                   "p.conf:4: limits: no option \"host\". Is a } missing before it?");
    expect_problem("host \"a.org\" { }\n/* never ended\n",
                   "p.conf: the file ends inside a comment");
    static const char *const others[] = {"listen { c2s { address = {:5222\n",
                                         "node { name = \"abc }\n",
                                         "node { name = 'abc }\n",
                                         "node {",
                                         "node",
                                         "host \"",
                                         "}"};
    for (size_t i = 0; i < array_len(others); i++) {
        struct conf_draft *d = load(others[i]);
        assert_true(d->problem_count > 0);
        conf_draft_free(d);
    }
}

static void a_mistake_leaves_nothing_behind_for_the_next_reading(void **state)
{
    conf_draft_free(load("node { name = \"abc }\n"));
    conf_draft_free(load("/* never ended"));
    conf_draft_free(load("node { name = 'abc }\n"));
    struct conf_draft *d = load("host \"a.org\" { }\n");
    assert_int_equal(d->problem_count, 0);
    conf_draft_free(d);
}

static void the_environment_is_taken_in_quotes(void **state)
{
    setenv("PEMBERLEY_TEST_NAME", "wickham", 1);
    unsetenv("PEMBERLEY_TEST_DIR");
    struct conf_draft *d = load("host \"a.org\" { }\nnode { name = \"${PEMBERLEY_TEST_NAME}\"\n"
                                "data_dir = \"${PEMBERLEY_TEST_DIR:-/srv/p}\" }\n");
    struct conf *c = conf_draft_build(d);
    assert_non_null(c);
    assert_true(str_is(conf_text(c, c->node_name), "wickham"));
    assert_true(str_is(conf_text(c, c->node_data_dir), "/srv/p"));
    free(c);
    conf_draft_free(d);
}

static void conf_d_comes_after_the_file_in_name_order_and_set_last(void **state)
{
    char sub[256];
    snprintf(sub, sizeof sub, "%s/conf.d", directory);
    mkdir(sub, 0700);
    write_file("conf.d/b.conf", "limits { depth_max = 50\n exempt_from += {10.0.0.0/8} }\n");
    write_file("conf.d/a.conf", "limits { depth_max = 40\n name_max = 2k }\n");
    write_file("conf.d/not.conf.bak", "nonsense {\n");
    struct conf_draft *d = load("host \"a.org\" { }\nlimits { depth_max = 30\n name_max = 3k\n"
                                " attributes_max = 30 }\n");
    conf_draft_assign(d, STR("limits.attributes_max=31"));
    struct conf *c = conf_draft_build(d);
    assert_non_null(c);
    assert_int_equal(c->limits_depth_max, 50);
    assert_int_equal(c->limits_name_max, 2048);
    assert_int_equal(c->limits_attributes_max, 31);
    assert_int_equal(c->limits_exempt_from.count, 3);
    const struct conf_setting *s = conf_draft_get(d, NULL, CONF_ROW_limits_depth_max);
    assert_string_equal(s->from.file, "conf.d/b.conf");
    assert_int_equal(s->from.line, 1);
    free(c);
    conf_draft_free(d);
    write_file("conf.d/b.conf", "limits {\n depth_max = 1 }\n");
    d = load("host \"a.org\" { }\n");
    assert_int_equal(d->problem_count, 1);
    assert_non_null(strstr(d->problems[0].p, "conf.d/b.conf:2: limits.depth_max = 1: too small"));
    conf_draft_free(d);
    remove_file("conf.d/a.conf"), remove_file("conf.d/b.conf");
    remove_file("conf.d/not.conf.bak");
    rmdir(sub);
}

static void an_empty_list_and_a_repeated_option_count_as_written(void **state)
{
    struct conf_draft *d = load("host \"a.org\" { }\nlisten { c2s { address = {} backlog = 64\n"
                                "backlog = 65 } }\nlimits { exempt_from = {} }\n");
    struct conf *c = conf_draft_build(d);
    assert_non_null(c);
    assert_int_equal(c->listen_c2s_address.count, 0);
    assert_int_equal(c->limits_exempt_from.count, 0);
    assert_int_equal(c->listen_c2s_backlog, 65);
    free(c);
    conf_draft_free(d);
}

static void a_file_that_is_not_there_or_not_text_is_a_problem(void **state)
{
    struct conf_draft *d = conf_draft_new();
    conf_load(d, "/nonexistent/p.conf");
    assert_string_equal(d->problems[0].p,
                        "/nonexistent/p.conf: cannot be read: No such file or directory");
    conf_draft_free(d);
    d = conf_draft_new();
    conf_load(d, directory); /* a directory */
    assert_int_equal(d->problem_count, 1);
    conf_draft_free(d);
}

static char *whole(const char *path)
{
    char *text = calloc(1, 1 << 20);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    assert_true(fread(text, 1, (1 << 20) - 1, f) > 0);
    fclose(f);
    return text;
}

static void the_shipped_file_is_the_table_and_says_the_defaults(void **state)
{
    char *generated = NULL, *shipped = whole("ops/pemberley.conf");
    size_t n;
    FILE *f = open_memstream(&generated, &n);
    conf_template(f);
    fclose(f);
    assert_string_equal(shipped, generated); /* pemberley config-template > ops/pemberley.conf */
    struct conf_draft *d = load(shipped), *bare = load("host \"localhost\" { }\n");
    struct conf *a = conf_draft_build(d), *b = conf_draft_build(bare);
    assert_non_null(a);
    assert_non_null(b);
    assert_int_equal(a->hash, b->hash);
    free(a), free(b);
    conf_draft_free(d), conf_draft_free(bare);
    free(generated), free(shipped);
}

static void what_is_printed_reads_back_the_same(void **state)
{
    for (int i = 0; i < CONF_ROWS; i++) {
        struct conf_draft *d = load("host \"localhost\" { }\n");
        const struct conf_setting *s = conf_draft_get(d, NULL, i);
        str text = conf_setting_text(&d->arena, &conf_rows[i], s);
        str value = str_is(text, "\"\"") ? STR("") : text;
        conf_draft_assign(d, arena_printf(&d->arena, "%s=%.*s", conf_rows[i].path, STR_ARG(value)));
        struct conf *c = conf_draft_build(d), *plain = conf_test_default();
        assert_non_null(c);
        assert_int_equal(c->limits_unacked_max, plain->limits_unacked_max);
        free(c), free(plain);
        conf_draft_free(d);
    }
}

static int make(void **state) { return mkdtemp(directory) ? 0 : -1; }
static int clear(void **state)
{
    remove_file("p.conf");
    return rmdir(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mistakes_are_named_with_file_and_line),
        cmocka_unit_test(comments_stand_anywhere_and_move_no_line),
        cmocka_unit_test(one_run_names_all_wrong_values),
        cmocka_unit_test(what_is_left_open_is_an_error),
        cmocka_unit_test(a_mistake_leaves_nothing_behind_for_the_next_reading),
        cmocka_unit_test(the_environment_is_taken_in_quotes),
        cmocka_unit_test(conf_d_comes_after_the_file_in_name_order_and_set_last),
        cmocka_unit_test(an_empty_list_and_a_repeated_option_count_as_written),
        cmocka_unit_test(a_file_that_is_not_there_or_not_text_is_a_problem),
        cmocka_unit_test(the_shipped_file_is_the_table_and_says_the_defaults),
        cmocka_unit_test(what_is_printed_reads_back_the_same),
    };
    return cmocka_run_group_tests(tests, make, clear);
}
