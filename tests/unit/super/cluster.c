/* The supervisor of a node of a cluster, with children that only speak the control protocol: what
 * it gives them, whom it appoints, and what it does when their membership ends. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "pemberley/must.h"
#include "pemberley/str.h"
#include "tests/unit/super/rig.h"

static void write_config(const char *name, const char *cluster)
{
    FILE *f = fopen(config, "w");
    assert_non_null(f);
    fprintf(f,
            "node { name = %s  data_dir = %s/data  run_dir = %s/data/run  shards = 2\n"
            "  stop_timeout = 4s  drain_grace = 0s }\n"
            "listen { c2s { address = {%s:5222} } c2s_tls { address = {} }\n"
            "  metrics { address = {%s:5290}  allow_from = {127.0.0.0/8} }\n"
            "  bus { address = %s:5275 } }\n"
            "store { kind = postgres  postgres { hosts = {127.0.0.1} } }\n"
            "registry { kind = redis  redis { servers = {127.0.0.1:6379} } }\n"
            "cluster { name = derby  %s }\nhost \"localhost\" { }\n",
            name, directory, directory, rig_address(), rig_address(), rig_address(), cluster);
    fclose(f);
}

static void begin(void)
{
    rig_start();
    wait_for("--json status", "\"state\":\"ready\"");
}

static int start(void **state)
{
    if (rig_open())
        return -1;
    write_config("t", "");
    return 0;
}

/* What the fake with the lowest index that is up knows. */
static void look(void) { assert_int_equal(run("--json user kick somebody@localhost"), 0); }

static void wait_for_look(const char *what)
{
    wait_for("--json user kick somebody@localhost", what);
}

/* An answer of the metrics port, with its head; empty when there is none. */
static const char *get(const char *path)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(5290)};
    char request[128];
    size_t n = 0;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(inet_pton(AF_INET, rig_address(), &to.sin_addr), 1);
    int len = snprintf(request, sizeof request, "GET %s HTTP/1.0\r\n\r\n", path);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) == 0 &&
        write(fd, request, (size_t)len) == len)
        for (ssize_t got; n < sizeof output - 1; n += (size_t)got)
            if ((got = read(fd, output + n, sizeof output - 1 - n)) <= 0)
                break;
    close(fd);
    output[n] = 0;
    return output;
}

static void wait_for_page(const char *path, const char *what)
{
    for (int i = 0; i < 300; i++) {
        if (strstr(get(path), what))
            return;
        usleep(20000);
    }
    fail_msg("no %s in: %s", what, output);
}

static unsigned logged(const char *what)
{
    char path[64], line[1024];
    unsigned n = 0;
    snprintf(path, sizeof path, "%s/log", directory);
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f))
        n += strstr(line, what) != NULL;
    if (f)
        fclose(f);
    return n;
}

static void shell(const char *fmt, ...)
{
    char line[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    assert_int_equal(system(line), 0);
}

/* check-config opens nothing, and does not know. */
static void without_its_identity_a_node_does_not_start_and_says_what_to_do(void **state)
{
    assert_int_equal(run("check-config"), 0);
    assert_int_equal(run("run"), 78);
    assert_non_null(strstr(output, "p.conf:8: cluster.name = derby: "));
    assert_non_null(strstr(output, "See: pemberley cluster init"));
    assert_int_equal(run("cluster init wickham"), 0);
    assert_int_equal(run("run"), 78); /* that is another cluster */
    assert_non_null(strstr(output, "derby"));
    shell("rm -r %s/data/cluster", directory);
    assert_int_equal(run("cluster init derby"), 0);
    assert_int_equal(run("run --set node.name=z"), 78); /* and that another node */
    shell("chmod 640 %s/data/cluster/node.key", directory);
    assert_int_equal(run("run"), 78);
    assert_non_null(strstr(output, "others can read it (chmod 600)"));
    shell("chmod 600 %s/data/cluster/node.key", directory);
}

static void the_secret_is_not_made_up(void **state)
{
    shell("mv %s/data/cluster/secret %s/s", directory, directory);
    assert_int_equal(run("run"), 1);
    assert_non_null(strstr(output, "cluster's secret"));
    shell("mv %s/s %s/data/cluster/secret", directory, directory);
}

static void an_address_of_another_machine_is_refused(void **state)
{
    assert_int_equal(run("run --set listen.bus.address=192.0.2.1:5275"), 1);
    assert_non_null(strstr(output, "cannot listen on 192.0.2.1:5275: this machine has no such"));
    assert_int_equal(run("run --set listen.bus.address=nowhere.invalid:5275"), 1);
    assert_non_null(strstr(output, "listen.bus.address: nowhere.invalid: "));
}

static void a_name_that_is_taken_ends_a_node_that_was_never_ready(void **state)
{
    write_config("x", "");
    shell("mv %s/data/cluster %s/of-t", directory, directory);
    assert_int_equal(run("cluster init derby"), 0);
    assert_int_equal(run("run"), 1);
    assert_non_null(
        strstr(output, "another node named \"x\" is in cluster \"derby\". Stop it, or"));
    assert_null(strstr(output, "process_died"));
    shell("rm -r %s/data/cluster && mv %s/of-t %s/data/cluster", directory, directory, directory);
    write_config("t", "");
}

static void shards_get_their_bus_and_the_lowest_is_the_clerk(void **state)
{
    begin();
    look();
    assert_int_equal(number("\"index\":"), 0);
    assert_int_equal(number("\"listeners\":"), 1);
    assert_int_equal(number("\"clerk\":"), 0);
    assert_int_equal(number("\"weight\":"), 100);
    assert_int_equal(number("\"again\":"), 0);
    assert_int_equal(number("\"epoch\":"), 0);
}

static void people_and_balancers_see_the_cluster(void **state)
{
    assert_int_equal(run("status"), 0);
    assert_non_null(strstr(output, "cluster: derby\n"));
    assert_non_null(strstr(output, "cluster  epoch 7, 2 live, "));
    assert_non_null(strstr(output, ", registry ok, rails 0/0 up\n"));
    assert_non_null(strstr(get("/readyz"), "[+]cluster epoch 7\n"));
    get("/metrics");
    assert_non_null(strstr(output, "pemberley_cluster_nodes{state=\"live\"} 2\n"));
    assert_non_null(strstr(output, "pemberley_cluster_fenced 0\n"));
    assert_non_null(strstr(output, "pemberley_node_info{cluster=\"derby\",node=\"t\""));
    assert_non_null(strstr(output, "pemberley_node_degraded{what=\"registry\"} 0\n"));
    assert_non_null(strstr(output, "pemberley_cluster_certificate_not_after_timestamp_seconds "));
    assert_non_null(strstr(output, "pemberley_bus_rails{state=\"up\"} 0\n"));
    assert_non_null(strstr(get("/"), "<b>Cluster</b> derby &middot; epoch 7"));
}

static void a_dead_clerk_is_followed_by_one_that_lives(void **state)
{
    assert_int_equal(run("user kick crash@localhost"), 7);
    wait_for_look("\"index\":0");
    assert_int_equal(number("\"clerk\":"), 1); /* though a lower one is there again */
    assert_int_equal(number("\"again\":"), 1);
    wait_for("--json status", "\"state\":\"ready\"");
}

static void the_epoch_is_remembered_over_restarts(void **state)
{
    assert_int_equal(run("user kick epoch@localhost"), 0);
    assert_int_equal(run("user kick crash@localhost"), 7);
    wait_for_look("\"epoch\":41");
    wait_for("--json status", "\"state\":\"ready\"");
}

static void a_stuck_sibling_is_ended(void **state)
{
    assert_int_equal(run("user kick stuck@localhost"), 0);
    wait_for_look("\"clerk\":0");
    wait_for("--json status", "\"state\":\"ready\"");
    assert_int_equal(logged("event=process_stuck"), 1);
}

static void registry_away_degrades_and_nothing_else(void **state)
{
    assert_int_equal(run("user kick lost@localhost"), 0);
    wait_for_page("/readyz", "[!]registry away ");
    assert_non_null(strstr(output, "s (degraded)\n"));
    assert_non_null(strstr(output, " 200 "));
    assert_non_null(strstr(get("/metrics"), "pemberley_node_degraded{what=\"registry\"} 1\n"));
    assert_int_equal(run("user kick crash@localhost"), 7); /* the fake has it again */
    wait_for("--json status", "\"state\":\"ready\"");
    wait_for("--json status", "\"registry_away_seconds\":0");
}

static void a_weight_holds_until_the_file_says_another(void **state)
{
    assert_int_equal(run("node weight t 30"), 0);
    assert_string_equal(output, "t: weight 30, until its config says another\n");
    wait_for_look("\"weight\":30");
    assert_int_equal(run("reload"), 0);
    look();
    assert_int_equal(number("\"weight\":"), 30);
    assert_int_equal(number("\"identities\":"), 1);
    write_config("t", "weight = 50");
    assert_int_equal(run("reload"), 0);
    wait_for_look("\"weight\":50");
    assert_int_equal(run("node weight t 1001"), 2);
    assert_non_null(strstr(output, "Allowed 0 to 1000"));
    assert_int_equal(run("node weight t"), 2);
}

static void a_renewed_identity_goes_to_the_shards_by_itself(void **state)
{
    look();
    unsigned long before = number("\"identities\":");
    char what[32];
    assert_int_equal(run("cluster init derby"), 0);
    snprintf(what, sizeof what, "\"identities\":%lu", before + 1);
    wait_for_look(what);
    shell("grep -q '^41$' %s/data/cluster/epoch", directory); /* linked into the new directory */
}

static void an_identity_that_is_not_ours_changes_nothing(void **state)
{
    shell("cp -r %s/data/cluster %s/kept", directory, directory);
    shell("printf x > %s/data/cluster/node.pem", directory);
    assert_int_equal(run("reload"), 78);
    assert_non_null(strstr(output, "node.pem: "));
    assert_non_null(strstr(output, "Nothing was changed"));
    shell("cp %s/kept/node.pem %s/data/cluster/node.pem", directory, directory);
    assert_int_equal(run("reload"), 0);
}

static void what_is_about_other_nodes_goes_to_the_clerk(void **state)
{
    assert_int_equal(run("--json node ring"), 0);
    assert_int_equal(number("\"words\":"), 1);
    assert_int_equal(run("--json node ring --slot 7"), 0);
    assert_int_equal(number("\"words\":"), 3);
    assert_int_equal(run("--json node weight b 5"), 0);
    assert_int_equal(number("\"words\":"), 3);
    assert_int_equal(run("node remove b </dev/null"), 6);
    assert_int_equal(run("--yes node remove b"), 0);
    assert_int_equal(run("node drain"), 2);
    assert_int_equal(run("node show nobody"), 4);
}

static void the_nodes_stand_in_a_table(void **state)
{
    assert_int_equal(run("node list"), 0);
    assert_string_equal(
        output,
        "NODE  STATE  VERSION  ADDRESS        SHARDS  WEIGHT  SLOTS  SESSIONS  LEASE    RTT  UP  \n"
        "a *   live   0.1.0    10.0.0.1:5275       8     100   5461     41203   2.4s      -  5d  \n"
        "b     live   0.1.0    10.0.0.2:5275       8     100   5462     40988   2.4s  0.3ms  2m  \n"
        "c     drain  0.1.0    10.0.0.3:5275       8       0   1207      9020   2.4s  0.3ms   -  "
        "drain 78 %, about 40 s left\n"
        "epoch 41, one view on all 3 nodes, registry ok, slots 16384/16384 owned\n");
    assert_int_equal(run("node show c"), 0);
    assert_non_null(strstr(output, "\nslots              1207\n"));
    assert_int_equal(run("--json node show b"), 0);
    assert_non_null(strstr(output, "\"address\":\"10.0.0.2:5275\",\"shards\":8"));
}

static void a_shard_asks_for_another_node_but_not_for_everything(void **state)
{
    assert_int_equal(run("--json user kick ask@localhost"), 0);
    assert_non_null(strstr(output, "\"name\":\"t\",\"weight\":7"));
    wait_for_look("\"weight\":7");
    assert_int_equal(run("user kick ask-other@localhost"), 4);
    assert_int_equal(run("user kick ask-stop@localhost"), 1);
    assert_non_null(strstr(output, "not done for another node"));
    assert_int_equal(run("--json user kick ask-drain@localhost"), 0); /* at once */
    assert_non_null(strstr(output, "\"phase\":\""));
    wait_for("--json status", "\"state\":\"draining\"");
    assert_int_equal(run("node drain t --cancel"), 0);
    wait_for("--json status", "\"state\":\"ready\"");
}

static void a_drain_moves_the_homes_first(void **state)
{
    shell("touch %s/data/stay", directory);
    wait_for("--json user kick ask-drain@localhost", "\"phase\":\"move\"");
    wait_for("--json status", "\"live\":1");
    for (int i = 0; i < 10; i++) {
        assert_int_equal(run("--json user kick ask-drain@localhost"), 0);
        assert_non_null(strstr(output, "\"phase\":\"move\""));
        assert_int_equal(number("\"slots\":"), 8192);
    }
    shell("rm %s/data/stay", directory);
    assert_int_equal(run("node drain t"), 0);
    assert_non_null(strstr(output, "drained: 0 sessions"));
    look();
    assert_int_equal(number("\"drain\":"), 1);
    assert_int_equal(run("--json status"), 0);
    assert_int_equal(number("\"slots\":"), 0);
    assert_int_equal(run("drain --cancel"), 0);
    wait_for_look("\"drain\":0");
    wait_for("--json status", "\"slots\":8192");
}

static void where_nobody_could_have_the_homes_a_drain_does_not_wait_for_them(void **state)
{
    shell("touch %s/data/alone %s/data/stay", directory, directory);
    assert_int_equal(run("--json node drain t --timeout 60s"), 0);
    assert_in_range(number("\"seconds\":"), 0, 30);
    assert_int_equal(run("--json status"), 0);
    assert_int_equal(number("\"slots\":"), 8192);
    shell("rm %s/data/alone %s/data/stay", directory, directory);
    assert_int_equal(run("drain --cancel"), 0);
    wait_for("--json status", "\"live\":2");
}

static void a_fenced_node_is_told_once_and_comes_back_by_itself(void **state)
{
    assert_int_equal(logged("event=node_fenced"), 0);
    unsigned died = logged("event=process_died");
    assert_int_equal(run("user kick fence@localhost"), 7);
    wait_for("--json status", "\"state\":\"ready\"");
    look();
    assert_int_equal(number("\"again\":"), 1);
    assert_int_equal(logged("event=node_fenced"), 1);
    assert_int_equal(logged("event=process_died"), died);
}

static bool gets_in(void)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(5222)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(inet_pton(AF_INET, rig_address(), &to.sin_addr), 1);
    bool good = connect(fd, (struct sockaddr *)&to, sizeof to) == 0;
    close(fd);
    return good;
}

static void while_all_shards_are_fenced_nobody_gets_in(void **state)
{
    assert_true(gets_in());
    shell("touch %s/data/hold", directory);
    assert_int_equal(run("user kick fence@localhost"), 7);
    assert_true(gets_in()); /* there is another one */
    assert_int_equal(run("user kick fence@localhost"), 7);
    assert_false(gets_in());
    assert_int_equal(logged("event=node_fenced"), 2); /* once for all, and once before */
    wait_for_page("/readyz", "[-]cluster fenced\n");
    assert_non_null(strstr(output, " 503 "));
    assert_non_null(strstr(get("/metrics"), "pemberley_cluster_fenced 1\n"));
    shell("rm %s/data/hold", directory);
    wait_for_page("/readyz", " 200 ");
    assert_true(gets_in());
    wait_for("--json status", "\"state\":\"ready\"");
}

static void
a_stalled_node_is_not_ready_and_lets_its_clients_go_when_nobody_waits_with_it(void **state)
{
    run("user kick stall@localhost");
    wait_for_page("/readyz", "[-]cluster stalled\n");
    assert_non_null(strstr(output, " 503 "));
    assert_true(gets_in());
    assert_int_equal(logged("event=node_stalled"), 1);
    run("user kick alone@localhost");
    assert_false(gets_in());
    assert_int_equal(logged("event=node_stalled"), 1);
    assert_int_equal(logged("event=node_goes_on"), 0);
    run("user kick go-on@localhost");
    wait_for_page("/readyz", " 200 ");
    assert_true(gets_in());
    assert_int_equal(logged("event=node_goes_on"), 1);
    assert_int_equal(logged("event=node_fenced"), 2); /* as before */
}

static void a_stop_lets_the_slots_go_and_the_clerk_last(void **state)
{
    int status;
    look();
    unsigned long clerk = number("\"clerk\":");
    shell("rm -f %s/data/stops", directory);
    assert_int_equal(run("stop"), 0);
    assert_non_null(strstr(output, "told 3 sessions, flushed 6 stanzas, stopped in "));
    assert_int_equal(waitpid(node, &status, 0), node);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    node = 0;
    shell("printf '%lu 1 1\\n%lu 1 0\\n' | cmp - %s/data/stops", 1 - clerk, clerk, directory);
    begin();
    look();
    assert_int_equal(number("\"epoch\":"), 41); /* also over a restart of the node */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_its_identity_a_node_does_not_start_and_says_what_to_do),
        cmocka_unit_test(the_secret_is_not_made_up),
        cmocka_unit_test(an_address_of_another_machine_is_refused),
        cmocka_unit_test(a_name_that_is_taken_ends_a_node_that_was_never_ready),
        cmocka_unit_test(shards_get_their_bus_and_the_lowest_is_the_clerk),
        cmocka_unit_test(people_and_balancers_see_the_cluster),
        cmocka_unit_test(a_dead_clerk_is_followed_by_one_that_lives),
        cmocka_unit_test(the_epoch_is_remembered_over_restarts),
        cmocka_unit_test(a_stuck_sibling_is_ended),
        cmocka_unit_test(registry_away_degrades_and_nothing_else),
        cmocka_unit_test(a_weight_holds_until_the_file_says_another),
        cmocka_unit_test(a_renewed_identity_goes_to_the_shards_by_itself),
        cmocka_unit_test(an_identity_that_is_not_ours_changes_nothing),
        cmocka_unit_test(what_is_about_other_nodes_goes_to_the_clerk),
        cmocka_unit_test(the_nodes_stand_in_a_table),
        cmocka_unit_test(a_shard_asks_for_another_node_but_not_for_everything),
        cmocka_unit_test(a_drain_moves_the_homes_first),
        cmocka_unit_test(where_nobody_could_have_the_homes_a_drain_does_not_wait_for_them),
        cmocka_unit_test(a_fenced_node_is_told_once_and_comes_back_by_itself),
        cmocka_unit_test(while_all_shards_are_fenced_nobody_gets_in),
        cmocka_unit_test(
            a_stalled_node_is_not_ready_and_lets_its_clients_go_when_nobody_waits_with_it),
        cmocka_unit_test(a_stop_lets_the_slots_go_and_the_clerk_last),
    };
    return cmocka_run_group_tests(tests, start, rig_close);
}
