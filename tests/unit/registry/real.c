/* The registry on Debian's Redis: one server, Sentinel, a cluster; servers that restart empty, die,
 * stall, ask for passwords, fail over and move slots. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "node/os/os.h"
#include "node/registry/dial.h"
#include "node/registry/registry.h"
#include "node/tls/tls.h"
#include "tests/unit/support/redis.h"

#define VIEW "a view of two nodes"

struct rig {
    struct redis_park park;
    struct loop *loop;
    struct entropy_real entropy;
    struct log log;
    unsigned logged[LOG_EVENT_MAX];
    char said[LOG_EVENT_MAX][256];
    struct metric_page *metrics;
    struct dialer dialer;
    struct registry_settings settings;
    struct registry_redis *redis;
    struct registry *door;
    /* the last reply */
    bool answered;
    err e;
    struct registry_reply reply;
    struct registry_lease leases[REGISTRY_LEASES_MAX];
    char view[256];
};

static void on_log(struct log *l, enum log_event e, enum log_level level, const struct log_field *f,
                   size_t n)
{
    struct rig *g = container_of(l, struct rig, log);
    g->logged[e]++;
    g->said[e][0] = 0;
    for (size_t i = 0; i < n; i++)
        if (f[i].kind == LOG_STR || f[i].kind == LOG_JID)
            snprintf(g->said[e] + strlen(g->said[e]), sizeof g->said[e] - strlen(g->said[e]),
                     "%s=%.*s ", f[i].key, STR_ARG(f[i].s));
}

#define turn_until(g, condition) \
    do { \
        time_t until_ = time(NULL) + 20; \
        while (!(condition)) { \
            loop_turn((g)->loop, 20); \
            assert_true(time(NULL) < until_); \
        } \
    } while (0)

static void make(struct rig *g)
{
    struct loop_config c = {LOOP_AUTO, -1};
    struct loop_fault fault = {NULL, 0};
    memset(g, 0, sizeof *g);
    redis_park_init(&g->park);
    assert_int_equal(loop_new(&c, &fault, &g->loop), ERR_OK);
    entropy_real_init(&g->entropy);
    g->log = (struct log){on_log, LOG_DEBUG};
    g->metrics = calloc(1, sizeof *g->metrics);
    dialer_init(&g->dialer, g->loop, NULL, NULL, NULL);
    g->settings = (struct registry_settings){
        .cluster = STR("derby"),
        .timeout_ms = 500,
        .refresh_ms = 600,
        .record_lifetime_ms = 1800,
        .records_max = 100000,
        .records_bytes_max = 64 << 20,
    };
}

static void open_registry(struct rig *g)
{
    struct registry_doors d = {g->loop, &g->entropy.entropy, &g->log, g->metrics,
                               &g->dialer.dialer};
    g->redis = registry_redis_new(&d, &g->settings);
    g->door = registry_redis_door(g->redis);
}

static void server_text(struct rig *g, int port)
{
    static char text[REGISTRY_SERVERS_MAX][32];
    size_t i = g->settings.servers_n++;
    snprintf(text[i], sizeof text[i], "127.0.0.1:%d", port);
    g->settings.servers[i] = str_of(text[i]);
}

static bool is_up(struct rig *g) { return metric_get(g->metrics, METRIC_registry_up) == 1; }

static void close_registry(struct rig *g)
{
    registry_redis_stop(g->redis);
    turn_until(g, registry_redis_stopped(g->redis));
    registry_redis_free(g->redis);
}

static int setup_one(void **state)
{
    struct rig *g = malloc(sizeof *g);
    make(g);
    server_text(g, redis_add(&g->park, "redis-server", "%s", "")->port);
    open_registry(g);
    turn_until(g, is_up(g));
    *state = g;
    return 0;
}

static int teardown(void **state)
{
    struct rig *g = *state;
    close_registry(g);
    loop_close(g->loop);
    redis_park_end(&g->park);
    free(g->metrics);
    free(g);
    return 0;
}

/* ---- asking ---------------------------------------------------------------------------------- */

static void on_done(void *ctx, err e, const struct registry_reply *r)
{
    struct rig *g = ctx;
    assert_false(g->answered);
    assert_int_equal(r == NULL, e == ERR_AWAY || e == ERR_REFUSED);
    g->answered = true;
    g->e = e;
    g->reply = r ? *r : (struct registry_reply){.epoch = 0};
    for (size_t i = 0; i < g->reply.lease_count; i++)
        g->leases[i] = r->leases[i];
    if (r && r->view.n && r->view.n < sizeof g->view)
        memcpy(g->view, r->view.p, r->view.n);
}

static err answer(struct rig *g)
{
    assert_false(g->answered); /* never from inside the request */
    turn_until(g, g->answered);
    g->answered = false;
    return g->e;
}

static struct registry_lease lease(const char *node, uint64_t owner, uint32_t ttl_ms)
{
    return (struct registry_lease){.node = str_of(node), .owner = owner, .ttl_ms = ttl_ms};
}

static err renew(struct rig *g, const char *node, uint64_t owner, uint32_t ttl_ms)
{
    registry_lease_renew(g->door, lease(node, owner, ttl_ms), on_done, g);
    return answer(g);
}

static err renew_as_member(struct rig *g, const char *node, uint64_t owner, uint32_t ttl_ms)
{
    struct registry_lease l = lease(node, owner, ttl_ms);
    l.member = true;
    registry_lease_renew(g->door, l, on_done, g);
    return answer(g);
}

static err revoke_lease(struct rig *g, const char *of, uint64_t of_owner, const char *by,
                        uint64_t owner)
{
    registry_lease_revoke(g->door, lease(of, of_owner, 0), lease(by, owner, 0), on_done, g);
    return answer(g);
}

static err cas(struct rig *g, uint64_t expected, uint64_t epoch, const char *view)
{
    registry_view_cas(g->door, expected, epoch, str_of(view), on_done, g);
    return answer(g);
}

static err view(struct rig *g)
{
    registry_view_get(g->door, on_done, g);
    return answer(g);
}

static void put(struct rig *g, const char *bare, const char *resource, const char *value,
                uint64_t epoch)
{
    struct registry_record r = {REGISTRY_USER, str_of(bare), str_of(resource), str_of(value),
                                epoch};
    registry_record_put(g->door, &r);
}

static void take(struct rig *g, const char *bare, const char *resource, uint64_t epoch)
{
    struct registry_record r = {REGISTRY_USER, str_of(bare), str_of(resource), STR_NONE, epoch};
    registry_record_remove(g->door, &r);
}

static bool all_saved(struct rig *g) { return registry_redis_unsaved(g->redis) == 0; }

static int port(struct rig *g) { return g->park.servers[0].port; }

/* A field of a user's hash. */
static const char *field(struct rig *g, int at, const char *bare, const char *resource)
{
    return redis_cli(&g->park, at, "HGET pemberley:derby:u:{%s} '%s'", bare, resource);
}

/* ---- leases and the view --------------------------------------------------------------------- */

static void a_lease_has_one_owner_until_it_ends(void **state)
{
    struct rig *g = *state;
    assert_int_equal(renew(g, "a", 7, 400), ERR_OK);
    assert_int_equal(g->reply.epoch, 0);
    assert_int_equal(renew(g, "a", 8, 400), ERR_EXISTS);
    assert_int_equal(g->leases[0].owner, 7);
    assert_true(g->leases[0].ttl_ms <= 400 && !g->leases[0].revoked);
    assert_int_equal(renew(g, "a", 7, 400), ERR_OK);
    turn_until(g, renew(g, "a", 8, 10000) == ERR_OK); /* it has run out */
    registry_lease_drop(g->door, lease("a", 7, 0), on_done, g);
    assert_int_equal(answer(g), ERR_OK);
    assert_int_equal(renew(g, "a", 7, 400), ERR_EXISTS); /* 7's word did nothing */
    registry_lease_drop(g->door, lease("a", 8, 0), on_done, g);
    assert_int_equal(answer(g), ERR_OK);
    assert_int_equal(renew(g, "a", 7, 400), ERR_OK);
}

static void a_revoked_lease_is_not_renewed_and_revokes_nothing(void **state)
{
    struct rig *g = *state;
    assert_int_equal(renew(g, "a", 1, 10000), ERR_OK);
    assert_int_equal(renew(g, "b", 2, 10000), ERR_OK);
    assert_int_equal(revoke_lease(g, "a", 1, "c", 3), ERR_STALE); /* c has none */
    assert_int_equal(revoke_lease(g, "a", 1, "b", 2), ERR_OK);
    assert_int_equal(renew(g, "a", 1, 10000), ERR_EXISTS);
    assert_true(g->leases[0].revoked && g->leases[0].owner == 1);
    assert_int_equal(revoke_lease(g, "b", 2, "a", 1), ERR_STALE);
    assert_int_equal(renew(g, "b", 2, 10000), ERR_OK);
    assert_int_equal(revoke_lease(g, "c", 9, "b", 2), ERR_OK); /* there is none: nothing to do */
    const str names[] = {STR("b"), STR("c"), STR("a")};
    registry_leases_get(g->door, names, 3, on_done, g);
    assert_int_equal(answer(g), ERR_OK);
    assert_int_equal(g->reply.lease_count, 3);
    assert_int_equal(g->leases[0].owner, 2);
    assert_true(g->leases[0].ttl_ms > 8000 && g->leases[0].ttl_ms <= 10000);
    assert_int_equal(g->leases[1].owner, 0);
    assert_true(g->leases[2].revoked && g->leases[2].ttl_ms > 8000);
}

/* Whether any member's lease lives, by one key for all. */
static bool has_members(struct rig *g)
{
    assert_int_equal(view(g), ERR_OK);
    return g->reply.members;
}

static void members_are_seen_as_long_as_the_last_of_their_leases(void **state)
{
    struct rig *g = *state;
    assert_int_equal(renew(g, "a", 1, 60000), ERR_OK);
    assert_false(has_members(g));
    assert_int_equal(renew_as_member(g, "a", 1, 700), ERR_OK);
    assert_true(has_members(g));
    assert_int_equal(renew_as_member(g, "b", 2, 60000), ERR_OK);
    assert_int_equal(renew_as_member(g, "a", 1, 700), ERR_OK); /* b's is longer */
    int ms = atoi(redis_cli(&g->park, port(g), "PTTL 'pemberley:{derby}:members'"));
    assert_in_range(ms, 30000, 60000);
    redis_cli(&g->park, port(g), "DEL 'pemberley:{derby}:members'");
    assert_int_equal(renew_as_member(g, "b", 3, 60000), ERR_EXISTS);
    assert_false(has_members(g)); /* who has no lease is no member */
    assert_int_equal(renew_as_member(g, "a", 1, 700), ERR_OK);
    assert_true(has_members(g));
    turn_until(g, !has_members(g));
    redis_cli(&g->park, port(g), "SET 'pemberley:{derby}:members' rubbish");
    assert_false(has_members(g)); /* it would never end */
    assert_int_equal(renew_as_member(g, "a", 1, 60000), ERR_OK);
    assert_true(has_members(g));
}

static void a_view_is_replaced_only_by_who_knows_it(void **state)
{
    struct rig *g = *state;
    const uint64_t high = UINT64_C(9007199254740993); /* not a double */
    assert_int_equal(view(g), ERR_OK);
    assert_int_equal(g->reply.epoch, 0);
    assert_int_equal(cas(g, 3, 4, VIEW), ERR_STALE);
    assert_int_equal(g->reply.epoch, 0);
    assert_int_equal(cas(g, 0, high, VIEW), ERR_OK);
    assert_int_equal(cas(g, high - 1, high + 1, "another"), ERR_STALE);
    assert_int_equal(g->reply.epoch, high);
    assert_int_equal(view(g), ERR_OK);
    assert_int_equal(g->reply.epoch, high);
    assert_string_equal(g->view, VIEW);
    assert_int_equal(renew(g, "a", 1, 1000), ERR_OK);
    assert_int_equal(g->reply.epoch, high);
    char *giant = malloc(REGISTRY_VIEW_MAX);
    memset(giant, 'v', REGISTRY_VIEW_MAX);
    registry_view_cas(g->door, high, high + 1, str_from(giant, REGISTRY_VIEW_MAX), on_done, g);
    assert_int_equal(answer(g), ERR_OK);
    assert_int_equal(view(g), ERR_OK);
    assert_int_equal(g->reply.view.n, REGISTRY_VIEW_MAX);
    free(giant);
}

static void what_is_none_of_ours_is_refused(void **state)
{
    struct rig *g = *state;
    redis_cli(&g->park, port(g), "SET 'pemberley:{derby}:member:a' rubbish");
    redis_cli(&g->park, port(g), "SET 'pemberley:derby:u:{b@x}' rubbish");
    redis_cli(&g->park, port(g), "HSET 'pemberley:derby:u:{c@x}' r1 rubbish '' short");
    assert_int_equal(renew(g, "a", 1, 1000), ERR_REFUSED);
    assert_non_null(strstr(g->said[LOG_registry_refused], "member:a"));
    redis_cli(&g->park, port(g), "LPUSH 'pemberley:{derby}:ring' x");
    assert_int_equal(view(g), ERR_REFUSED);
    redis_cli(&g->park, port(g), "DEL 'pemberley:{derby}:ring'");
    redis_cli(&g->park, port(g), "HSET 'pemberley:{derby}:ring' epoch 12x view v");
    assert_int_equal(view(g), ERR_REFUSED);
    put(g, "b@x", "r1", "v", 1);
    put(g, "c@x", "r1", "v", 1);
    turn_until(g, metric_get(g->metrics, METRIC_AT(registry_refused, REFUSED_FORM, 0)) >= 5);
    assert_int_equal(registry_redis_unsaved(g->redis), 2);
    redis_cli(&g->park, port(g), "DEL 'pemberley:derby:u:{b@x}' 'pemberley:derby:u:{c@x}'");
    turn_until(g, all_saved(g)); /* with the next refresh */
    assert_string_equal(field(g, port(g), "c@x", "r1"), "v\n");
}

/* ---- records --------------------------------------------------------------------------------- */

static void records_are_written_and_removed_behind(void **state)
{
    struct rig *g = *state;
    put(g, "romeo@x", "balcony", "here", 41);
    put(g, "romeo@x", "phone", "away", 41);
    assert_int_equal(registry_redis_unsaved(g->redis), 1);
    turn_until(g, all_saved(g));
    assert_string_equal(field(g, port(g), "romeo@x", "balcony"), "here\n");
    put(g, "romeo@x", "balcony", "gone", 41);
    take(g, "romeo@x", "phone", 41);
    put(g, "romeo@x", "orchard", "new", 41);
    turn_until(g, all_saved(g));
    assert_string_equal(field(g, port(g), "romeo@x", "balcony"), "gone\n");
    assert_string_equal(field(g, port(g), "romeo@x", "phone"), "\n");
    assert_string_equal(field(g, port(g), "romeo@x", "orchard"), "new\n");
    assert_int_equal(strncmp(field(g, port(g), "romeo@x", ""), "00000000000000000041 ", 21), 0);
}

static void records_live_while_refreshed_and_no_longer(void **state)
{
    struct rig *g = *state;
    put(g, "a@x", "r", "v", 1);
    turn_until(g, all_saved(g));
    time_t until = time(NULL) + 3; /* more than a lifetime */
    turn_until(g, time(NULL) > until);
    assert_string_equal(field(g, port(g), "a@x", "r"), "v\n");
    take(g, "a@x", "r", 1);
    turn_until(g, all_saved(g));
    turn_until(g, strcmp(redis_cli(&g->park, port(g), "DBSIZE"), "0\n") == 0);
}

static void a_later_epoch_fences_earlier_writers(void **state)
{
    struct rig *g = *state;
    struct rig *other = malloc(sizeof *other);
    put(g, "a@x", "old", "v", 5);
    turn_until(g, all_saved(g));
    make(other);
    server_text(other, port(g));
    open_registry(other);
    put(other, "a@x", "new", "v", 6);
    turn_until(other, all_saved(other));
    assert_string_equal(field(g, port(g), "a@x", "new"), "v\n");
    assert_string_equal(field(g, port(g), "a@x", "old"), "\n"); /* the new home knows best */
    put(g, "a@x", "old", "w", 5);
    turn_until(g, metric_get(g->metrics, METRIC_AT(registry_refused, REFUSED_EPOCH, 0)) == 1);
    assert_int_equal(registry_redis_unsaved(g->redis), 0); /* forgotten */
    assert_string_equal(field(g, port(g), "a@x", "old"), "\n");
    put(g, "a@x", "old", "again", 7);
    turn_until(g, all_saved(g));
    turn_until(other, metric_get(other->metrics, METRIC_AT(registry_refused, REFUSED_EPOCH, 0)));
    assert_string_equal(field(g, port(g), "a@x", "old"), "again\n");
    teardown((void **)&other);
}

static void a_large_room_is_written_in_pieces(void **state)
{
    enum { OCCUPANTS = 1000 };
    struct rig *g = *state;
    char nick[16], value[1000];
    memset(value, 'v', sizeof value);
    for (int i = 0; i < OCCUPANTS; i++) {
        struct registry_record r = {REGISTRY_ROOM, STR("hall@rooms"),
                                    str_from(nick, (size_t)sprintf(nick, "n%d", i)),
                                    str_from(value, sizeof value), 3};
        registry_record_put(g->door, &r);
    }
    turn_until(g, all_saved(g));
    assert_string_equal(redis_cli(&g->park, port(g), "HLEN 'pemberley:derby:room:{hall@rooms}'"),
                        "1001\n");
    for (int i = 0; i < OCCUPANTS - 1; i++) {
        struct registry_record r = {REGISTRY_ROOM, STR("hall@rooms"),
                                    str_from(nick, (size_t)sprintf(nick, "n%d", i)), STR_NONE, 3};
        registry_record_remove(g->door, &r);
    }
    turn_until(g, all_saved(g));
    assert_string_equal(redis_cli(&g->park, port(g), "HLEN 'pemberley:derby:room:{hall@rooms}'"),
                        "2\n");
}

/* ---- outages --------------------------------------------------------------------------------- */

static void put_users(struct rig *g, int n, const char *value, uint64_t epoch)
{
    char bare[32];
    for (int i = 0; i < n; i++) {
        sprintf(bare, "u%d@x", i);
        put(g, bare, "r", value, epoch);
    }
}

static void a_server_that_comes_back_empty_has_all_records_again(void **state)
{
    struct rig *g = *state;
    struct redis_server *s = &g->park.servers[0];
    put_users(g, 2000, "v", 1);
    turn_until(g, all_saved(g));
    assert_int_equal(cas(g, 0, 5, VIEW), ERR_OK);
    redis_kill(s);
    turn_until(g, g->logged[LOG_registry_lost] == 1);
    assert_int_equal(renew(g, "a", 1, 1000), ERR_AWAY);
    assert_int_equal(view(g), ERR_AWAY);
    put(g, "u1@x", "r", "meanwhile", 1);
    take(g, "u2@x", "r", 1);
    redis_start(&g->park, s);
    turn_until(g, g->logged[LOG_registry_back] == 1 && all_saved(g));
    assert_string_equal(field(g, s->port, "u1@x", "r"), "meanwhile\n");
    assert_string_equal(field(g, s->port, "u2@x", "r"), "\n");
    assert_string_equal(field(g, s->port, "u1999@x", "r"), "v\n");
    assert_string_equal(redis_cli(&g->park, s->port, "DBSIZE"), "2000\n");
    assert_int_equal(view(g), ERR_OK);
    assert_int_equal(g->reply.epoch, 0);
}

static void records_lost_behind_our_back_are_written_anew(void **state)
{
    struct rig *g = *state;
    put_users(g, 50, "v", 1);
    turn_until(g, all_saved(g));
    redis_cli(&g->park, port(g), "FLUSHALL");
    turn_until(g, metric_get(g->metrics, METRIC_AT(registry_resyncs, RESYNC_LOST, 0)) == 50);
    turn_until(g, all_saved(g));
    assert_string_equal(redis_cli(&g->park, port(g), "DBSIZE"), "50\n");
}

static void a_server_that_stalls_is_away_in_time(void **state)
{
    struct rig *g = *state;
    struct timespec from, to;
    assert_int_equal(renew(g, "a", 1, 30000), ERR_OK);
    kill(g->park.servers[0].pid, SIGSTOP);
    put(g, "a@x", "r", "v", 1);
    clock_gettime(CLOCK_MONOTONIC, &from);
    assert_int_equal(renew(g, "a", 1, 30000), ERR_AWAY);
    clock_gettime(CLOCK_MONOTONIC, &to);
    assert_true(to.tv_sec - from.tv_sec <= 1);
    turn_until(g, strstr(g->said[LOG_registry_lost], "no answer in time"));
    assert_int_equal(renew(g, "a", 1, 30000), ERR_AWAY); /* at once: it is not there */
    kill(g->park.servers[0].pid, SIGCONT);
    turn_until(g, is_up(g) && all_saved(g));
    assert_int_equal(renew(g, "a", 1, 30000), ERR_OK);
    assert_string_equal(field(g, port(g), "a@x", "r"), "v\n");
}

static void what_is_asked_while_it_is_away_ends_and_is_not_kept(void **state)
{
    struct rig *g = *state;
    redis_kill(&g->park.servers[0]);
    turn_until(g, !is_up(g));
    registry_lease_renew(g->door, lease("a", 1, 1000), on_done, g);
    registry_forget(g->door, g);
    loop_turn(g->loop, 0);
    loop_turn(g->loop, 0);
    assert_false(g->answered);
    redis_start(&g->park, &g->park.servers[0]);
    turn_until(g, is_up(g));
    assert_string_equal(redis_cli(&g->park, port(g), "DBSIZE"), "0\n");
}

static void addresses_are_numbers_names_or_paths(void **state)
{
    static const char *const good[] = {"127.0.0.1:6379", "[::1]:6379", "::1:6379",
                                       "unix:/run/r",    "redis:6379", "r-1.example.:1"};
    static const char *const bad[] = {
        "",          "127.0.0.1",     "redis",       "127.0.0.1:", "[::1]",      "1.2.3:1",
        "1.2.3.4:0", "1.2.3.4:65536", "unix:",       ":6379",      "1.2.3.4:1x", "[1.2.3.4:5",
        "[redis]:1", "a..b:1",        "[1.2.3.4]:5", "a b:1",      ".a:1"};
    char path[200];
    for (size_t i = 0; i < array_len(good); i++)
        assert_true(dial_address_is_good(str_of(good[i])));
    for (size_t i = 0; i < array_len(bad); i++)
        assert_false(dial_address_is_good(str_of(bad[i])));
    memset(path, 'x', sizeof path);
    memcpy(path, "unix:", 5);
    assert_false(dial_address_is_good(str_from(path, sizeof path)));
}

/* ---- login ----------------------------------------------------------------------------------- */

static void write_password(struct rig *g, char *path, size_t size, const char *password)
{
    snprintf(path, size, "%s/password", g->park.dir);
    FILE *f = fopen(path, "w");
    fprintf(f, "%s\n", password);
    fclose(f);
}

static void a_login_needs_no_more_rights_than_are_documented(void **state)
{
    struct rig *g = *state;
    static char path[96];
    close_registry(g);
    redis_cli(&g->park, port(g),
              "ACL SETUSER pemberley on '>secret word' '~pemberley:*' +evalsha +eval +role +ping "
              "+asking '+cluster|slots' +get +set +del +pttl +hget +hmget +hset +hdel +pexpire");
    write_password(g, path, sizeof path, "wrong");
    g->settings.user = STR("pemberley");
    g->settings.password_file = str_of(path);
    open_registry(g);
    turn_until(g, strstr(g->said[LOG_registry_lost], "WRONGPASS"));
    write_password(g, path, sizeof path, "secret word"); /* read at the next attempt */
    turn_until(g, is_up(g));
    assert_int_equal(renew(g, "a", 1, 1000), ERR_OK);
    assert_int_equal(renew_as_member(g, "b", 2, 1000), ERR_OK);
    assert_int_equal(revoke_lease(g, "a", 1, "b", 2), ERR_OK);
    assert_int_equal(cas(g, 0, 1, VIEW), ERR_OK);
    assert_int_equal(view(g), ERR_OK);
    put(g, "a@x", "r", "v", 1);
    put(g, "a@x", "s", "v", 1);
    turn_until(g, all_saved(g));
    take(g, "a@x", "r", 1);
    turn_until(g, all_saved(g));
    time_t until = time(NULL) + 1;
    turn_until(g, time(NULL) > until); /* a refresh */
    assert_int_equal(metric_get(g->metrics, METRIC_AT(registry_refused, REFUSED_FORM, 0)), 0);
    assert_int_equal(metric_get(g->metrics, METRIC_AT(registry_resyncs, RESYNC_LOST, 0)), 0);
}

static void a_replica_is_no_master(void **state)
{
    struct rig *g = *state;
    int first = port(g);
    const struct redis_server *replica =
        redis_add(&g->park, "redis-server", "replicaof 127.0.0.1 %d\n", first);
    close_registry(g);
    g->settings.servers_n = 0;
    server_text(g, replica->port);
    server_text(g, first);
    open_registry(g);
    turn_until(g, is_up(g)); /* the second of the list */
    assert_non_null(strstr(g->said[LOG_registry_lost], "no master"));
    assert_int_equal(renew(g, "a", 1, 1000), ERR_OK);
}

/* ---- TLS ------------------------------------------------------------------------------------- */

static struct transport *secure(void *ctx, struct transport *low, const char *host)
{
    return tls_proven_open(ctx, low, host);
}

/* A certificate of its own authority. */
static void make_certificate(struct rig *g, const char *name, const char *san, const char *days)
{
    char command[512];
    snprintf(command, sizeof command,
             "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days %s -subj "
             "/CN=redis -addext subjectAltName=%s -keyout %s/%s.key -out %s/%s.pem 2>/dev/null",
             days, san, g->park.dir, name, g->park.dir, name);
    assert_int_equal(system(command), 0);
}

static int add_tls_server(struct rig *g, const char *certificate)
{
    int tls_port = redis_port();
    redis_add(&g->park, "redis-server",
              "tls-port %d\ntls-cert-file %s.pem\ntls-key-file %s.key\ntls-ca-cert-file %s.pem\n"
              "tls-auth-clients no\n",
              tls_port, certificate, certificate, certificate);
    return tls_port;
}

static void tls_trusts_only_whom_it_is_told_to(void **state)
{
    struct rig *g = *state;
    static const unsigned char secret[TLS_SECRET_SIZE];
    struct clock clock;
    char path[256];
    clock_real_init(&clock);
    const struct tls_config c = {0x0303, 0, secret, &clock};
    struct tls *tls = tls_new(&c);
    close_registry(g);
    make_certificate(g, "good", "IP:127.0.0.1", "1");
    make_certificate(g, "other", "IP:127.0.0.2", "1");
    make_certificate(g, "foreign", "IP:127.0.0.1", "1");
    snprintf(path, sizeof path, "cat %s/good.pem %s/other.pem >%s/ca.pem", g->park.dir, g->park.dir,
             g->park.dir);
    assert_int_equal(system(path), 0);
    snprintf(path, sizeof path, "%s/ca.pem", g->park.dir);
    assert_int_equal(tls_take_trust(tls, "/nonexistent"), ERR_IO);
    assert_int_equal(tls_take_trust(tls, "/dev/null"), ERR_BAD);
    assert_int_equal(tls_take_trust(tls, path), ERR_OK);
    dialer_init(&g->dialer, g->loop, NULL, secure, tls);
    static const char *const bad[][2] = {{"other", "certificate_of_another_host"},
                                         {"foreign", "certificate_foreign"}};
    for (size_t i = 0; i < array_len(bad); i++) {
        g->settings.servers_n = 0;
        server_text(g, add_tls_server(g, bad[i][0]));
        open_registry(g);
        turn_until(g, strstr(g->said[LOG_registry_lost], bad[i][1]));
        close_registry(g);
    }
    server_text(g, add_tls_server(g, "good"));
    open_registry(g);
    turn_until(g, is_up(g));
    char *giant = malloc(REGISTRY_VIEW_MAX);
    memset(giant, 'v', REGISTRY_VIEW_MAX);
    registry_view_cas(g->door, 0, 1, str_from(giant, REGISTRY_VIEW_MAX), on_done, g);
    assert_int_equal(answer(g), ERR_OK);
    assert_int_equal(view(g), ERR_OK);
    assert_int_equal(g->reply.view.n, REGISTRY_VIEW_MAX);
    free(giant);
    put_users(g, 2000, "v", 1);
    turn_until(g, all_saved(g));
    close_registry(g);
    tls_free(tls);
    dialer_init(&g->dialer, g->loop, NULL, NULL, NULL);
    open_registry(g);
}

/* ---- Sentinel -------------------------------------------------------------------------------- */

static int setup_sentinel(void **state)
{
    struct rig *g = malloc(sizeof *g);
    make(g);
    int master = redis_add(&g->park, "redis-server", "%s", "")->port;
    redis_add(&g->park, "redis-server", "replicaof 127.0.0.1 %d\n", master);
    for (int i = 0; i < 3; i++)
        server_text(g, redis_add(&g->park, "redis-sentinel",
                                 "sentinel monitor derby 127.0.0.1 %d 2\n"
                                 "sentinel down-after-milliseconds derby 500\n"
                                 "sentinel failover-timeout derby 2000\n",
                                 master)
                           ->port);
    for (int i = 2; i < 5; i++)
        turn_until(g, strstr(redis_cli(&g->park, g->park.servers[i].port,
                                       "SENTINEL MASTER derby | tr '\\n' ' '"),
                             "num-slaves 1 num-other-sentinels 2"));
    g->settings.mode = REGISTRY_SENTINEL;
    g->settings.master = STR("derby");
    open_registry(g);
    turn_until(g, is_up(g));
    *state = g;
    return 0;
}

static void a_failover_of_sentinel_is_followed(void **state)
{
    struct rig *g = *state;
    put_users(g, 200, "v", 1);
    turn_until(g, all_saved(g));
    redis_kill(&g->park.servers[0]);
    redis_kill(&g->park.servers[2]); /* and the first sentinel */
    put(g, "u7@x", "r", "meanwhile", 1);
    turn_until(g, !is_up(g));
    assert_int_equal(renew(g, "a", 1, 1000), ERR_AWAY);
    turn_until(g, is_up(g) && all_saved(g));
    turn_until(g, renew_as_member(g, "a", 1, 5000) == ERR_OK);
    assert_true(has_members(g));
    assert_string_equal(field(g, g->park.servers[1].port, "u7@x", "r"), "meanwhile\n");
    assert_string_equal(redis_cli(&g->park, g->park.servers[1].port, "DBSIZE"), "202\n");
}

/* ---- Redis Cluster --------------------------------------------------------------------------- */

static int setup_cluster(void **state)
{
    struct rig *g = malloc(sizeof *g);
    make(g);
    for (int i = 0; i < 3; i++)
        redis_add(&g->park, "redis-server",
                  "cluster-enabled yes\ncluster-config-file nodes-%d.conf\n"
                  "cluster-node-timeout 2000\n",
                  i);
    const struct redis_server *s = g->park.servers;
    server_text(g, s[1].port);
    g->settings.mode = REGISTRY_CLUSTER;
    open_registry(g); /* it waits until there is a cluster */
    redis_cli(&g->park, s[0].port,
              "--cluster create 127.0.0.1:%d 127.0.0.1:%d 127.0.0.1:%d --cluster-yes", s[0].port,
              s[1].port, s[2].port);
    turn_until(g, is_up(g));
    *state = g;
    return 0;
}

static const char *node_id(struct rig *g, int i, char id[48])
{
    snprintf(id, 48, "%.40s", redis_cli(&g->park, g->park.servers[i].port, "CLUSTER MYID"));
    return id;
}

static void a_cluster_is_used_by_its_slots_while_they_move(void **state)
{
    enum { USERS = 300 };
    struct rig *g = *state;
    char from[48], to[48], command[512];
    put_users(g, USERS, "v0", 1);
    turn_until(g, cas(g, 0, 1, VIEW) == ERR_OK); /* CLUSTERDOWN until all have heard of all */
    turn_until(g, renew_as_member(g, "a", 1, 120000) == ERR_OK);
    assert_true(has_members(g));
    turn_until(g, all_saved(g));
    snprintf(command, sizeof command,
             "redis-cli --cluster reshard 127.0.0.1:%d --cluster-from %s --cluster-to %s "
             "--cluster-slots 300 --cluster-yes >%s/reshard 2>&1 && touch %s/done &",
             port(g), node_id(g, 0, from), node_id(g, 2, to), g->park.dir, g->park.dir);
    assert_int_equal(system(command), 0);
    char done[96], value[16];
    snprintf(done, sizeof done, "%s/done", g->park.dir);
    int round = 1;
    time_t until = time(NULL) + 30;
    for (; access(done, F_OK) < 0; round++) {
        sprintf(value, "v%d", round);
        put_users(g, USERS, value, 1);
        /* Two keys of a slot that is just moving may be on different servers (TRYAGAIN). */
        turn_until(g, renew(g, "a", 1, 1000) == ERR_OK);
        turn_until(g, all_saved(g));
        assert_true(time(NULL) < until);
    }
    sprintf(value, "v%d", round);
    put_users(g, USERS, value, 1);
    turn_until(g, all_saved(g));
    strcat(value, "\n");
    char key[64];
    for (int i = 0; i < USERS; i += 23) {
        sprintf(key, "-c HGET 'pemberley:derby:u:{u%d@x}' r", i);
        assert_string_equal(redis_cli(&g->park, port(g), "%s", key), value);
    }
    int keys = 0;
    for (int i = 0; i < 3; i++)
        keys += atoi(redis_cli(&g->park, g->park.servers[i].port, "DBSIZE"));
    assert_in_range(keys, USERS + 1, USERS + 3); /* the ring, perhaps leases and the members */
    turn_until(g, view(g) == ERR_OK);
    assert_string_equal(g->view, VIEW);
    assert_int_equal(metric_get(g->metrics, METRIC_AT(registry_refused, REFUSED_FORM, 0)), 0);
    redis_kill(&g->park.servers[1]); /* the only one that was named */
    turn_until(g, !is_up(g));
    redis_start(&g->park, &g->park.servers[1]);
    turn_until(g, is_up(g) && all_saved(g));
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, setup_one, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_lease_has_one_owner_until_it_ends),
        CASE(a_revoked_lease_is_not_renewed_and_revokes_nothing),
        CASE(members_are_seen_as_long_as_the_last_of_their_leases),
        CASE(a_view_is_replaced_only_by_who_knows_it),
        CASE(what_is_none_of_ours_is_refused),
        CASE(records_are_written_and_removed_behind),
        CASE(records_live_while_refreshed_and_no_longer),
        CASE(a_later_epoch_fences_earlier_writers),
        CASE(a_large_room_is_written_in_pieces),
        CASE(a_server_that_comes_back_empty_has_all_records_again),
        CASE(records_lost_behind_our_back_are_written_anew),
        CASE(a_server_that_stalls_is_away_in_time),
        CASE(what_is_asked_while_it_is_away_ends_and_is_not_kept),
        cmocka_unit_test(addresses_are_numbers_names_or_paths),
        CASE(a_login_needs_no_more_rights_than_are_documented),
        CASE(a_replica_is_no_master),
        CASE(tls_trusts_only_whom_it_is_told_to),
        cmocka_unit_test_setup_teardown(a_failover_of_sentinel_is_followed, setup_sentinel,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_cluster_is_used_by_its_slots_while_they_move,
                                        setup_cluster, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
