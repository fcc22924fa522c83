/* What the registry is told of sessions: one record each, as it is now, until it ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "pemberley/registry.h"
#include "proto/bus/cluster.pb-c.h"
#include "tests/unit/support/home_rig.h"

#define HAS(needle) assert_non_null(memmem(kept.presence, kept.presence_n, needle, strlen(needle)))

/* ---- a registry that keeps the records it is given ------------------------------------------- */

enum { KEPT_MAX = 16 };

struct kept {
    bool used;
    char key[64], field[64];
    uint64_t epoch;
    size_t n;
    unsigned char value[REGISTRY_RECORD_VALUE_MAX];
};
struct fake {
    struct registry registry;
    unsigned puts, removed;
    uint64_t removed_epoch;
    struct kept kept[KEPT_MAX];
};

static struct kept *find(struct fake *g, str key, str field)
{
    for (size_t i = 0; i < KEPT_MAX; i++)
        if (g->kept[i].used && str_eq(str_of(g->kept[i].key), key) &&
            str_eq(str_of(g->kept[i].field), field))
            return &g->kept[i];
    return NULL;
}

static struct kept *place(struct fake *g, const struct registry_record *r)
{
    struct kept *k = find(g, r->key, r->field);
    for (size_t i = 0; !k && i < KEPT_MAX; i++)
        if (!g->kept[i].used)
            k = &g->kept[i];
    assert_non_null(k);
    return k;
}

static void on_put(struct registry *door, const struct registry_record *r)
{
    struct fake *g = container_of(door, struct fake, registry);
    struct kept *k = place(g, r);
    assert_int_equal(r->kind, REGISTRY_USER);
    k->used = true, k->epoch = r->epoch, k->n = r->value.n;
    snprintf(k->key, sizeof k->key, "%.*s", STR_ARG(r->key));
    snprintf(k->field, sizeof k->field, "%.*s", STR_ARG(r->field));
    memcpy(k->value, r->value.p, r->value.n);
    g->puts++;
}

static void on_remove(struct registry *door, const struct registry_record *r)
{
    struct fake *g = container_of(door, struct fake, registry);
    struct kept *k = find(g, r->key, r->field);
    assert_non_null(k);
    k->used = false;
    g->removed++;
    g->removed_epoch = r->epoch;
}

static const struct registry_impl impl = {.record_put = on_put, .record_remove = on_remove};
static struct fake fake;

static size_t records(void)
{
    size_t n = 0;
    for (size_t i = 0; i < KEPT_MAX; i++)
        n += fake.kept[i].used;
    return n;
}

/* What is kept of a session. */
struct read {
    uint64_t epoch, session;
    unsigned edge, home, generation;
    bool available, resumable, detached, left_out;
    int priority;
    int64_t since_us;
    size_t presence_n;
    char presence[REGISTRY_RECORD_VALUE_MAX], edge_node[64], home_node[64];
};
static struct read kept;

static void copy(char out[64], ProtobufCBinaryData b)
{
    snprintf(out, 64, "%.*s", (int)b.len, (const char *)b.data);
}

static bool read_record(const char *bare, const char *resource)
{
    const struct kept *k = find(&fake, str_of(bare), str_of(resource));
    if (!k)
        return false;
    Cluster__PresenceRecord *m = cluster__presence_record__unpack(NULL, k->n, k->value);
    assert_non_null(m);
    assert_int_equal(m->version, 1);
    assert_int_equal(m->epoch, k->epoch);
    kept = (struct read){.epoch = m->epoch,
                         .session = m->session,
                         .edge = m->edge_shard,
                         .home = m->home_shard,
                         .generation = m->generation,
                         .available = m->available,
                         .resumable = m->resumable,
                         .detached = m->detached,
                         .left_out = m->presence_left_out,
                         .priority = m->priority,
                         .since_us = m->since_us,
                         .presence_n = m->presence.len};
    if (m->presence.len)
        memcpy(kept.presence, m->presence.data, m->presence.len);
    copy(kept.edge_node, m->edge_node);
    copy(kept.home_node, m->home_node);
    cluster__presence_record__free_unpacked(m, NULL);
    return true;
}

/* ---- the rig --------------------------------------------------------------------------------- */

static int setup(void **state)
{
    struct rig *r = rig_open(NULL);
    memset(&fake, 0, sizeof fake);
    fake.registry.impl = &impl;
    for (unsigned i = 0; i < RIG_SHARDS; i++) {
        rig_node(r, i)->registry = &fake.registry;
        rig_node(r, i)->name = STR("a");
    }
    rig_user(r, "romeo@localhost");
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    rig_close(*state);
    return 0;
}

static void say(struct client *c, const char *xml)
{
    rig_send(c, xml);
    rig_run(c->rig);
}

/* ---- tests ----------------------------------------------------------------------------------- */

static void a_bound_session_has_a_record_without_any_presence(void **state)
{
    struct rig *r = *state;
    struct client c;
    assert_int_equal(rig_bind(r, &c, 1, "romeo@localhost", "balcony"), ERR_OK);
    assert_true(read_record("romeo@localhost", "balcony"));
    assert_int_equal(kept.edge, 1);
    assert_int_equal(kept.home, rig_home_of(r, "romeo@localhost"));
    assert_string_equal(kept.edge_node, "a");
    assert_string_equal(kept.home_node, "a");
    assert_int_equal(kept.session, c.sid);
    assert_int_equal(kept.generation, 1);
    assert_true(kept.since_us > 0);
    assert_false(kept.available || kept.resumable || kept.detached || kept.left_out);
    assert_int_equal(kept.presence_n, 0);
}

static void presence_and_its_end_are_in_it(void **state)
{
    struct rig *r = *state;
    struct client c;
    assert_int_equal(rig_bind(r, &c, 0, "romeo@localhost", "balcony"), ERR_OK);
    say(&c, "<presence><priority>-7</priority><status>sighing</status></presence>");
    assert_true(read_record("romeo@localhost", "balcony"));
    assert_true(kept.available);
    assert_int_equal(kept.priority, -7);
    HAS("<presence");
    HAS("romeo@localhost/balcony");
    HAS("<status>sighing</status></presence>");
    say(&c, "<presence><show>away</show></presence>");
    assert_true(read_record("romeo@localhost", "balcony"));
    assert_int_equal(kept.priority, 0);
    HAS("<show>away</show>");
    say(&c, "<presence type='unavailable'/>");
    assert_true(read_record("romeo@localhost", "balcony"));
    assert_false(kept.available);
    assert_int_equal(kept.presence_n, 0);
}

static void a_presence_beyond_the_bound_is_left_out(void **state)
{
    enum { LONG = 20000 };
    struct rig *r = *state;
    struct client c;
    char *xml = malloc(LONG + 100);
    assert_int_equal(rig_bind(r, &c, 0, "romeo@localhost", "balcony"), ERR_OK);
    int n = sprintf(xml, "<presence><priority>3</priority><status>");
    memset(xml + n, 'x', LONG);
    strcpy(xml + n + LONG, "</status></presence>");
    say(&c, xml);
    free(xml);
    assert_true(read_record("romeo@localhost", "balcony"));
    assert_true(kept.available && kept.left_out);
    assert_int_equal(kept.priority, 3);
    assert_int_equal(kept.presence_n, 0);
}

static void going_away_and_coming_back_are_in_it(void **state)
{
    struct rig *r = *state;
    struct client c;
    assert_int_equal(rig_bind(r, &c, 0, "romeo@localhost", "balcony"), ERR_OK);
    rig_enable(&c, 60000);
    assert_true(read_record("romeo@localhost", "balcony"));
    assert_true(kept.resumable && !kept.detached);
    rig_online(&c, 1);
    rig_detach(&c);
    rig_run(r);
    assert_true(read_record("romeo@localhost", "balcony"));
    assert_true(kept.detached && kept.available);
    rig_resume(&c, 1, 0);
    rig_run(r);
    assert_true(read_record("romeo@localhost", "balcony"));
    assert_true(!kept.detached && kept.available && kept.resumable);
    assert_int_equal(kept.edge, 1);
    assert_int_equal(kept.generation, 2);
}

static void a_session_that_ends_leaves_nothing(void **state)
{
    struct rig *r = *state;
    struct client a, b;
    assert_int_equal(rig_bind(r, &a, 0, "romeo@localhost", "balcony"), ERR_OK);
    assert_int_equal(rig_bind(r, &b, 1, "romeo@localhost", "orchard"), ERR_OK);
    rig_online(&a, 1);
    assert_int_equal(records(), 2);
    rig_end(&a);
    rig_run(r);
    assert_false(read_record("romeo@localhost", "balcony"));
    assert_true(read_record("romeo@localhost", "orchard"));
    struct client c; /* in the place of b */
    assert_int_equal(rig_bind(r, &c, 0, "romeo@localhost", "orchard"), ERR_OK);
    assert_true(read_record("romeo@localhost", "orchard"));
    assert_int_equal(kept.session, c.sid);
    assert_int_equal(fake.removed, 2);
    rig_enable(&c, 60000);
    rig_detach(&c);
    rig_run(r);
    rig_pass(r, 120000); /* it is not resumed */
    assert_int_equal(records(), 0);
}

/* What later epochs have written is not touched: the registry looks at that. */
static void each_change_says_in_which_epoch_it_was_made(void **state)
{
    struct rig *r = *state;
    struct client c;
    assert_int_equal(rig_bind(r, &c, 0, "romeo@localhost", "balcony"), ERR_OK);
    rig_enable(&c, 60000);
    assert_true(read_record("romeo@localhost", "balcony"));
    assert_int_equal(kept.epoch, 0);
    rig_detach(&c);
    rig_run(r);
    rig_node(r, rig_home_of(r, "romeo@localhost"))->epoch = 41;
    rig_pass(r, 120000); /* it ends by itself */
    assert_int_equal(fake.removed, 1);
    assert_int_equal(fake.removed_epoch, 41);
}

static void what_changes_nothing_writes_nothing(void **state)
{
    struct rig *r = *state;
    struct client a, b;
    assert_int_equal(rig_bind(r, &a, 0, "romeo@localhost", "balcony"), ERR_OK);
    assert_int_equal(rig_bind(r, &b, 1, "romeo@localhost", "orchard"), ERR_OK);
    rig_online(&a, 1);
    rig_online(&b, 1);
    unsigned before = fake.puts;
    for (int i = 0; i < 50; i++)
        say(&a, "<message to='romeo@localhost/orchard' type='chat'><body>o</body></message>");
    assert_int_equal(fake.puts, before);
    assert_int_equal(fake.puts, 4); /* bound and available, twice */
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_bound_session_has_a_record_without_any_presence),
        CASE(presence_and_its_end_are_in_it),
        CASE(a_presence_beyond_the_bound_is_left_out),
        CASE(going_away_and_coming_back_are_in_it),
        CASE(a_session_that_ends_leaves_nothing),
        CASE(each_change_says_in_which_epoch_it_was_made),
        CASE(what_changes_nothing_writes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
