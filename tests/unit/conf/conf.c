/* The image and the values in it: units, ranges, guesses, networks, hosts, reload. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "node/conf/draft.h"
#include "node/conf/value.h"

/* The first problem of these settings, in an arena that lives until the next call; "" for none. */
static const char *problem_of(const char *setting)
{
    static char text[1024];
    struct conf_draft *d = conf_draft_new();
    assert_non_null(conf_draft_host(d, STR("localhost"), (struct conf_origin){"test", 1}));
    conf_draft_assign(d, str_of(setting));
    struct conf *c = conf_draft_build(d);
    assert_int_equal(c == NULL, d->problem_count > 0);
    snprintf(text, sizeof text, "%.*s", d->problem_count ? (int)d->problems[0].n : 0,
             d->problem_count ? d->problems[0].p : "");
    free(c);
    conf_draft_free(d);
    return text;
}

static void defaults_have_the_units_of_their_kind(void **state)
{
    struct conf *c = conf_test_default();
    assert_int_equal(c->limits_c2s_stanza_max, 256 * 1024);
    assert_int_equal(c->limits_resume_timeout, 600000);
    assert_int_equal(c->limits_c2s_stanza_rate.count, 1000);
    assert_int_equal(c->limits_c2s_stanza_rate.per_ms, 1000);
    assert_int_equal(c->auth_account_failure_rate.per_ms, 3600000);
    assert_int_equal(c->limits_c2s_byte_rate.count, 4 << 20);
    assert_int_equal(c->node_shards, 0);
    assert_int_equal(c->listen_c2s_tls, CONF_TLS_REQUIRED);
    assert_int_equal(c->auth_mechanisms.count, 7);
    assert_true(str_is(conf_list_at(c, c->auth_mechanisms, 6), "PLAIN"));
    assert_int_equal(c->host_count, 2);
    const struct conf_host *h = conf_host_find(c, STR("localhost"));
    assert_non_null(h);
    assert_int_equal(h->auth, CONF_AUTH_INTERNAL);
    assert_int_equal(h->registration, CONF_REGISTRATION_OFF);
    assert_null(conf_host_find(c, STR("local")));
    free(c);
}

static void a_number_without_its_unit_is_an_error_that_guesses(void **state)
{
    assert_string_equal(problem_of("limits.c2s.stanza_max=256"),
                        "--set: limits.c2s.stanza_max = 256: a size needs a unit (b, k, m, g). "
                        "Allowed 10000b to 16m, default 256k. Did you mean 256k?");
    assert_string_equal(problem_of("limits.resume_timeout=10"),
                        "--set: limits.resume_timeout = 10: a duration needs a unit (ms, s, m, h, "
                        "d). Allowed 0s to 24h, default 10m. Did you mean 10m?");
    assert_non_null(strstr(problem_of("limits.c2s.stanza_rate=10"), "a rate is N/s"));
    assert_non_null(strstr(problem_of("limits.c2s.byte_rate=10/s"), "256k/s"));
    assert_non_null(strstr(problem_of("limits.depth_max=64k"), "plain digits"));
}

static void foreign_and_sloppy_values_are_refused(void **state)
{
    static const char *const bad[] = {
        "limits.c2s.stanza_max=256 k",
        "limits.c2s.stanza_max=1s",
        "limits.c2s.stanza_max=-1k",
        "limits.c2s.stanza_max=99999999999999999999k",
        "limits.c2s.stanza_max=9999b",
        "limits.c2s.stanza_max=17m",
        "limits.resume_timeout=25h",
        "limits.c2s.stanza_rate=1000/d",
        "node.pin=yes",
        "node.shards=0",
        "node.shards=65",
        "node.loop=uring",
        "node.name=A",
        "node.data_dir=data",
        "listen.c2s.address={5222}",
        "listen.c2s.address={:0}",
        "listen.c2s.address={:65536}",
        "listen.c2s.address={10.0.0.256:1}",
        "limits.exempt_from={10.0.0.0/33}",
        "host[localhost].admins={a@b/c}",
        "host[localhost].auth={internal, none}",
        "host[nowhere].auth={internal}",
        "host[localhost].certificate_file=x",
        "limits.nothing=1",
        "limits.depth_max",
        "=1",
        "limits.depth_max+=1",
        "listen.c2s.address={:1",
    };
    for (size_t i = 0; i < array_len(bad); i++)
        if (problem_of(bad[i])[0] == 0)
            fail_msg("accepted: %s", bad[i]);
}

static void a_misspelt_option_or_word_is_answered_with_the_near_one(void **state)
{
    assert_string_equal(problem_of("limits.c2s.stanzamax=1m"),
                        "--set: no option \"limits.c2s.stanzamax\". Did you mean "
                        "\"limits.c2s.stanza_max\"?");
    assert_string_equal(problem_of("host[localhost].registraton=open"),
                        "--set: no option \"registraton\". Did you mean \"registration\"?");
    assert_non_null(strstr(problem_of("node.loop=iouring"), "Did you mean io_uring?"));
}

static void settings_replace_and_append(void **state)
{
    static const char *const settings[] = {
        "listen.c2s.address+={10.0.0.1:5222, \"[::1]:5222\"}", "listen.c2s_tls.address={}",
        "host[localhost].registration=open", "limits.resume_timeout=90s", NULL};
    struct conf *c = conf_test_with(settings);
    assert_int_equal(c->listen_c2s_address.count, 3);
    assert_true(str_is(conf_list_at(c, c->listen_c2s_address, 0), ":5222"));
    assert_true(str_is(conf_list_at(c, c->listen_c2s_address, 2), "[::1]:5222"));
    assert_int_equal(c->listen_c2s_tls_address.count, 0);
    assert_int_equal(c->limits_resume_timeout, 90000);
    assert_int_equal(conf_host_find(c, STR("localhost"))->registration, CONF_REGISTRATION_OPEN);
    assert_int_equal(conf_host_find(c, STR("example.org"))->registration, CONF_REGISTRATION_OFF);
    free(c);
}

static bool inside(const struct conf *c, int family, const char *address)
{
    struct sockaddr_storage s = {.ss_family = (sa_family_t)family};
    void *at = family == AF_INET ? (void *)&((struct sockaddr_in *)(void *)&s)->sin_addr
                                 : (void *)&((struct sockaddr_in6 *)(void *)&s)->sin6_addr;
    assert_int_equal(inet_pton(family, address, at), 1);
    return conf_net_contains(c, c->limits_exempt_from, (struct sockaddr *)&s);
}

static void networks_know_their_addresses(void **state)
{
    static const char *const settings[] = {
        "limits.exempt_from={10.1.2.3/12, \"2001:db8::/33\", 192.0.2.7}", NULL};
    struct conf *c = conf_test_with(settings);
    assert_true(inside(c, AF_INET, "10.15.255.255"));
    assert_false(inside(c, AF_INET, "10.16.0.0"));
    assert_true(inside(c, AF_INET6, "::ffff:10.0.0.1"));
    assert_true(inside(c, AF_INET, "192.0.2.7"));
    assert_false(inside(c, AF_INET, "192.0.2.6"));
    assert_true(inside(c, AF_INET6, "2001:db8:7fff::1"));
    assert_false(inside(c, AF_INET6, "2001:db8:8000::1"));
    assert_false(inside(c, AF_INET6, "::a01:203"));
    assert_false(
        conf_net_contains(c, c->limits_exempt_from, &(struct sockaddr){.sa_family = AF_UNIX}));
    free(c);
}

static void a_pattern_gives_what_the_host_does_not_set(void **state)
{
    const struct conf_origin at = {"test", 1};
    struct conf_draft *d = conf_draft_new();
    static const char *const names[] = {"a.free.org", "b.free.org", "c.org",
                                        "*",          "*.free.org", "*.org"};
    for (size_t i = 0; i < array_len(names); i++)
        assert_non_null(conf_draft_host(d, str_of(names[i]), at));
    conf_draft_assign(d, STR("host[*].users_max=1"));
    conf_draft_assign(d, STR("host[*.free.org].users_max=100"));
    conf_draft_assign(d, STR("host[*.org].users_max=50"));
    conf_draft_assign(d, STR("host[b.free.org].users_max=7"));
    struct conf *c = conf_draft_build(d);
    assert_non_null(c);
    assert_int_equal(c->host_count, 3);
    assert_int_equal(conf_host_find(c, STR("a.free.org"))->users_max, 100);
    assert_int_equal(conf_host_find(c, STR("b.free.org"))->users_max, 7);
    assert_int_equal(conf_host_find(c, STR("c.org"))->users_max, 50);
    assert_null(conf_host_find(c, STR("x.free.org")));
    free(c);
    conf_draft_free(d);
}

static void host_names_are_prepared_and_unique(void **state)
{
    const struct conf_origin at = {"a.conf", 3};
    struct conf_draft *d = conf_draft_new();
    assert_non_null(conf_draft_host(d, STR("Example.ORG"), at));
    assert_null(conf_draft_host(d, STR("example.org"), at));
    assert_string_equal(d->problems[0].p, "a.conf:3: host \"example.org\" stands there twice");
    assert_null(conf_draft_host(d, STR("a b"), at));
    assert_null(conf_draft_host(d, STR("../etc"), at));
    assert_null(conf_draft_host(d, STR("*x.org"), at));
    conf_draft_free(d);
}

static void the_image_survives_its_memfd(void **state)
{
    struct conf *c = conf_test_default();
    const struct conf *mapped;
    int fd = conf_seal(c);
    assert_true(fd >= 0);
    assert_int_equal(conf_map(fd, &mapped), ERR_OK);
    assert_int_equal(write(fd, "x", 1), -1);
    close(fd);
    assert_int_equal(mapped->hash, c->hash);
    assert_true(str_is(conf_text(mapped, mapped->node_data_dir), "/var/lib/pemberley"));
    assert_non_null(conf_host_find(mapped, STR("example.org")));
    conf_unmap(mapped);
    free(c);
}

static void equal_settings_have_an_equal_hash(void **state)
{
    static const char *const same[] = {"limits.resume_timeout=600s", NULL};
    static const char *const other[] = {"limits.resume_timeout=601s", NULL};
    struct conf *a = conf_test_default(), *b = conf_test_with(same), *c = conf_test_with(other);
    assert_int_equal(a->hash, b->hash);
    assert_true(a->hash != c->hash);
    free(a), free(b), free(c);
}

struct seen {
    unsigned live, fresh, restart, hosts;
    char last[128];
};
static void on_change(void *ctx, const struct conf_draft_host *h, const struct conf_row *row,
                      str from, str to)
{
    struct seen *s = ctx;
    if (!row) {
        s->hosts++;
        return;
    }
    s->live += row->class == 'L', s->fresh += row->class == 'N', s->restart += row->class == 'R';
    snprintf(s->last, sizeof s->last, "%s %.*s %.*s", row->path, STR_ARG(from), STR_ARG(to));
}

static struct conf_draft *draft_of(const char *host, const char *a, const char *b)
{
    struct conf_draft *d = conf_draft_new();
    conf_draft_host(d, str_of(host), (struct conf_origin){"x", 1});
    conf_draft_assign(d, str_of(a));
    conf_draft_assign(d, str_of(b));
    return d;
}

static void a_reload_keeps_back_what_needs_a_restart(void **state)
{
    struct seen s = {0};
    struct conf_draft *old = draft_of("a.org", "node.shards=2", "log.level=info");
    struct conf_draft *new = draft_of("a.org", "node.shards=4", "log.level=debug");
    conf_draft_compare(old, new, on_change, &s);
    assert_int_equal(s.live, 1);
    assert_int_equal(s.fresh, 0);
    assert_int_equal(s.restart, 1);
    conf_draft_free(old);
    struct conf *c = conf_draft_build(new);
    assert_non_null(c);
    assert_int_equal(c->node_shards, 2);
    assert_int_equal(c->log_level, CONF_LEVEL_DEBUG);
    free(c);
    struct conf_draft *third = draft_of("b.org", "node.shards=2", "log.level=debug");
    s = (struct seen){0};
    conf_draft_compare(new, third, on_change, &s);
    assert_int_equal(s.live + s.fresh + s.restart, 0);
    assert_int_equal(s.hosts, 2); /* one came, one went */
    conf_draft_free(new);
    conf_draft_free(third);
}

/* The problems of a draft with these settings, one per line. */
static const char *problems_of(const char *const *settings)
{
    static char text[4096];
    struct conf_draft *d = conf_draft_new();
    assert_non_null(conf_draft_host(d, STR("localhost"), (struct conf_origin){"test", 1}));
    for (size_t i = 0; settings[i]; i++)
        conf_draft_assign(d, str_of(settings[i]));
    struct conf *c = conf_draft_build(d);
    assert_int_equal(c == NULL, d->problem_count > 0);
    text[0] = 0;
    for (size_t i = 0; i < d->problem_count; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%.*s\n",
                 STR_ARG(d->problems[i]));
    free(c);
    conf_draft_free(d);
    return text;
}

#define PROBLEMS(...) problems_of((const char *const[]){__VA_ARGS__, NULL})
#define A_CLUSTER \
    "cluster.name=derby", "listen.bus.address=10.0.0.1:5275", "registry.kind=redis", \
        "registry.redis.servers={10.0.0.9:6379}", "store.kind=postgres", \
        "store.postgres.hosts={10.0.0.8}"

static void a_cluster_needs_its_bus_its_registry_and_its_database(void **state)
{
    assert_string_equal(PROBLEMS(A_CLUSTER), "");
    const char *all = PROBLEMS("cluster.name=derby");
    assert_non_null(strstr(all, "--set: cluster.name = derby needs listen.bus.address"));
    assert_non_null(strstr(all, "--set: cluster.name = derby needs registry.kind = redis"));
    assert_non_null(strstr(all, "--set: cluster.name = derby needs store.kind = postgres"));
    all = PROBLEMS("listen.bus.address=10.0.0.1:5275", "registry.kind=redis",
                   "registry.redis.servers={10.0.0.9:6379}");
    assert_non_null(strstr(all, "--set: listen.bus.address = 10.0.0.1:5275: cluster.name is"));
    assert_non_null(strstr(all, "--set: registry.kind = redis: cluster.name is empty"));
    assert_string_equal(PROBLEMS("store.kind=postgres", "store.postgres.hosts={db}"), "");
    assert_non_null(strstr(PROBLEMS(A_CLUSTER, "registry.redis.servers={}"),
                           "registry.kind = redis: registry.redis.servers is empty"));
    assert_non_null(strstr(PROBLEMS(A_CLUSTER, "registry.redis.mode=sentinel"),
                           "registry.redis.master are set together"));
    assert_non_null(strstr(PROBLEMS(A_CLUSTER, "registry.redis.master=m"),
                           "registry.redis.master are set together"));
    assert_string_equal(
        PROBLEMS(A_CLUSTER, "registry.redis.mode=sentinel", "registry.redis.master=m"), "");
}

static void what_has_to_be_longer_than_something_else_says_how_long(void **state)
{
    assert_string_equal(problem_of("cluster.lease=2s"),
                        "--set: cluster.lease = 2s is shorter than 3 x cluster.heartbeat (1s): a "
                        "late heartbeat would cost the node its users. Use 3s or more.");
    assert_string_equal(problem_of("cluster.heartbeat=1500ms"),
                        "--set: cluster.lease = 3s is shorter than 3 x cluster.heartbeat "
                        "(1500ms): a late heartbeat would cost the node its users. Use 4500ms or "
                        "more.");
    assert_string_equal(PROBLEMS("cluster.lease=300ms", "cluster.heartbeat=100ms"), "");
    assert_non_null(strstr(problem_of("registry.record_lifetime=2m"), "Use 3m or more."));
    assert_non_null(strstr(problem_of("registry.refresh=1h"), "Use 3h or more."));
    assert_non_null(strstr(problem_of("cluster.rail_timeout=499ms"), "Use 500ms or more."));
}

static void the_bus_has_one_address_that_others_can_reach(void **state)
{
    static const char *const good[] = {"10.0.0.1:5275", "[2001:db8::1]:5275", "b.example.net:5275",
                                       "b-0.b.ns.svc:65472", "node_b:1"};
    static const char *const bad[] = {
        ":5275",           "0.0.0.0:5275", "[::]:5275",       "[::ffff:0.0.0.0]:5275",
        "10.0.0.1",        "10.0.0.1:0",   "10.0.0.1:65536",  "10.0.0.1:x",
        "10.0.0.256:5275", "10.0.1:5275",  "b..example:5275", ".b:5275",
        "b.:5275",         "a b:5275",     "unix:/run/bus",   "2001:db8::1:5275",
        "[::1:5275",       "b.7:5275"};
    static char setting[256];
    for (size_t i = 0; i < array_len(good); i++) {
        snprintf(setting, sizeof setting, "listen.bus.address=%s", good[i]);
        assert_string_equal(PROBLEMS(A_CLUSTER, setting), "");
    }
    for (size_t i = 0; i < array_len(bad); i++) {
        snprintf(setting, sizeof setting, "listen.bus.address=%s", bad[i]);
        assert_non_null(strstr(PROBLEMS(A_CLUSTER, setting), "one address that other machines"));
    }
    assert_non_null(strstr(PROBLEMS(A_CLUSTER, "listen.bus.address=10.0.0.1:65473"),
                           "65472 is the last that may be given"));
    assert_string_equal(PROBLEMS(A_CLUSTER, "registry.redis.servers={unix:/run/r.sock, "
                                            "\"[::1]:6379\", redis.example.net:6379}"),
                        "");
    assert_non_null(
        strstr(PROBLEMS(A_CLUSTER, "registry.redis.servers={10.0.0.9}"), "not a server"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_cluster_needs_its_bus_its_registry_and_its_database),
        cmocka_unit_test(what_has_to_be_longer_than_something_else_says_how_long),
        cmocka_unit_test(the_bus_has_one_address_that_others_can_reach),
        cmocka_unit_test(defaults_have_the_units_of_their_kind),
        cmocka_unit_test(a_number_without_its_unit_is_an_error_that_guesses),
        cmocka_unit_test(foreign_and_sloppy_values_are_refused),
        cmocka_unit_test(a_misspelt_option_or_word_is_answered_with_the_near_one),
        cmocka_unit_test(settings_replace_and_append),
        cmocka_unit_test(networks_know_their_addresses),
        cmocka_unit_test(a_pattern_gives_what_the_host_does_not_set),
        cmocka_unit_test(host_names_are_prepared_and_unique),
        cmocka_unit_test(the_image_survives_its_memfd),
        cmocka_unit_test(equal_settings_have_an_equal_hash),
        cmocka_unit_test(a_reload_keeps_back_what_needs_a_restart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
