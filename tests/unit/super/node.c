/* The real supervisor and command line, with children that only speak the control protocol
 * (fake_child.c): restarts, commands, reload, stop, and a second start on the same data. */
#include "pemberley/must.h"
#include "pemberley/str.h"
#include "tests/unit/super/rig.h"

static void write_config(const char *node_options, const char *limits)
{
    FILE *f = fopen(config, "w");
    assert_non_null(f);
    fprintf(f,
            "node { name = t  data_dir = %s/data  run_dir = %s/data/run  %s }\n"
            "listen { c2s { address = {%s:5222} } c2s_tls { address = {%s:5223} } "
            "metrics { address = {} } }\n"
            "limits { %s }\nhost \"localhost\" { }\n",
            directory, directory, node_options, rig_address(), rig_address(), limits);
    fclose(f);
}

static int start(void **state)
{
    if (rig_open())
        return -1;
    write_config("shards = 2", "");
    rig_start();
    wait_for("--json status", "\"state\":\"ready\"");
    return 0;
}

static void all_children_are_up_and_know_each_other(void **state)
{
    assert_int_equal(run("--json user kick somebody@localhost"), 0);
    assert_int_equal(number("\"listeners\":"), 2);
    assert_int_equal(number("\"peers_up\":"), 2); /* the other shard and the store */
    assert_int_equal(run("status"), 0);
    assert_non_null(strstr(output, "READY"));
    assert_non_null(strstr(output, "SHARD  STATE"));
}

static void a_dead_shard_is_back_in_well_under_a_second(void **state)
{
    assert_int_equal(run("user kick crash@localhost"), 7);
    assert_non_null(strstr(output, "ask again"));
    wait_for("--json status", "\"restarts\":1");
    wait_for("--json status", "\"state\":\"ready\"");
}

static void a_killed_store_is_back_too_and_its_peers_are_told(void **state)
{
    assert_int_equal(run("--json status"), 0);
    const char *store = strstr(output, "\"process\":\"store\"");
    assert_non_null(store);
    pid_t pid = atoi(strstr(store, "\"pid\":") + 6);
    assert_int_equal(kill(pid, SIGKILL), 0);
    wait_for("--json user kick somebody@localhost", "\"peers_down\":");
    wait_for("--json status", "\"state\":\"ready\"");
}

static void what_the_home_answers_is_the_exit_code_and_the_sentence(void **state)
{
    assert_int_equal(run("user kick nobody@localhost"), 4);
    assert_string_equal(output, "pemberley: no user nobody@localhost\n");
    assert_int_equal(run("user kick not@@a-jid"), 2);
    assert_int_equal(run("user frobnicate"), 2);
}

static void an_answer_longer_than_a_message_arrives_whole(void **state)
{
    assert_int_equal(run("--json user list localhost"), 0);
    assert_int_equal(strlen(output), 200001);
    assert_int_equal(run("user list localhost"), 0);
    assert_string_equal(output, "JID\na@localhost\n");
}

static void a_removal_wants_to_be_confirmed(void **state)
{
    assert_int_equal(run("user remove a@localhost </dev/null"), 6);
    assert_int_equal(run("--yes user remove a@localhost </dev/null"), 0);
    assert_string_equal(output, "removed a@localhost\n");
}

static void a_password_comes_from_stdin_and_is_checked(void **state)
{
    assert_int_equal(run("user add a@localhost </dev/null"), 2);
    assert_int_equal(run("user add --stdin a@elsewhere </dev/null"), 4);
    assert_int_equal(run("user add --stdin a@localhost </dev/null"), 2);
    assert_int_equal(run("user add --stdin a@localhost <<END\nshort\nEND\n"), 1);
    assert_non_null(strstr(output, "8 characters or more"));
    assert_int_equal(run("user add --stdin a@localhost <<END\nlong enough\nEND\n"), 0);
    assert_int_equal(run("user add --generate a@localhost </dev/null"), 0);
    assert_non_null(strstr(output, "added a@localhost"));
}

static void a_reload_takes_over_what_it_can_and_lists_the_rest(void **state)
{
    write_config("shards = 3", "depth_max = 65 resume_timeout = 9m");
    assert_int_equal(run("reload"), 0);
    assert_string_equal(output, "changed live: 0 · new connections: 2 (limits.depth_max 64 → 65, "
                                "limits.resume_timeout 10m → 9m) · restart needed: 1 (node.shards "
                                "2 → 3)\n");
    wait_for("--json user kick somebody@localhost", "\"reloads\":1");
    assert_int_equal(run("--json status"), 0);
    assert_int_equal(number("\"restart_pending\":"), 1);
    assert_int_equal(number("\"shards\":"), 2);
}

static void a_wrong_config_changes_nothing(void **state)
{
    write_config("shards = 2", "depth_max = 9");
    assert_int_equal(run("reload"), 78);
    assert_non_null(strstr(output, "p.conf:3: limits.depth_max = 9: too small"));
    write_config("shards = 2", "");
    assert_int_equal(run("check-config"), 0);
}

static void a_second_node_on_the_same_data_is_refused(void **state)
{
    assert_int_equal(run("run"), 1);
    assert_non_null(strstr(output, "data is in use by the node started "));
    assert_non_null(strstr(output, "(pid "));
    assert_int_equal(run("status"), 0);
}

static void a_stop_tells_everybody_and_ends_with_zero(void **state)
{
    int status;
    assert_int_equal(run("stop"), 0);
    assert_non_null(strstr(output, "told 3 sessions, flushed 6 stanzas, stopped in "));
    assert_int_equal(waitpid(node, &status, 0), node);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    node = 0;
    assert_int_equal(run("status"), 3);
    assert_non_null(strstr(output, "the node is not running"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_children_are_up_and_know_each_other),
        cmocka_unit_test(a_dead_shard_is_back_in_well_under_a_second),
        cmocka_unit_test(a_killed_store_is_back_too_and_its_peers_are_told),
        cmocka_unit_test(what_the_home_answers_is_the_exit_code_and_the_sentence),
        cmocka_unit_test(an_answer_longer_than_a_message_arrives_whole),
        cmocka_unit_test(a_removal_wants_to_be_confirmed),
        cmocka_unit_test(a_password_comes_from_stdin_and_is_checked),
        cmocka_unit_test(a_reload_takes_over_what_it_can_and_lists_the_rest),
        cmocka_unit_test(a_wrong_config_changes_nothing),
        cmocka_unit_test(a_second_node_on_the_same_data_is_refused),
        cmocka_unit_test(a_stop_tells_everybody_and_ends_with_zero),
    };
    return cmocka_run_group_tests(tests, start, rig_close);
}
