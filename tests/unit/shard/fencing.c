/* Fencing: a view without a node waits for the store; everything else goes through at once. */
#include "node/shard/fencing.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "proto/bus/store.pb-c.h"

static struct registry inner;
static struct store store;
static struct fencing *fencing;
static struct arena arena;

/* What the store was asked, and is to answer. */
static struct {
    char node[33];
    uint64_t epoch;
    store_done_f *done;
    void *ctx;
} asked[4];
static unsigned asked_n;
static void submit(struct store *s, struct Store__Request *q, store_done_f *done, void *ctx)
{
    assert_int_equal(q->op_case, STORE__REQUEST__OP_NODE_FENCE);
    snprintf(asked[asked_n].node, 33, "%.*s", (int)q->node_fence->node.len,
             (const char *)q->node_fence->node.data);
    asked[asked_n].epoch = q->node_fence->epoch;
    asked[asked_n].done = done, asked[asked_n++].ctx = ctx;
}
static const struct store_impl store_impl = {submit};
static void answers(unsigned i, err e) { asked[i].done(asked[i].ctx, e, NULL); }

/* What reached the registry. */
static uint64_t published;
static unsigned forgotten, gets;
static void view_cas(struct registry *r, uint64_t expected, uint64_t epoch, str bytes,
                     registry_done_f *done, void *ctx)
{
    struct view *v;
    assert_int_equal(view_decode(bytes, &v), ERR_OK);
    assert_int_equal(v->epoch, epoch);
    assert_int_equal(expected, 4);
    view_free(v);
    published = epoch;
    done(ctx, ERR_OK, NULL);
}
static void view_get(struct registry *r, registry_done_f *done, void *ctx) { gets++; }
static void forget(struct registry *r, void *ctx) { forgotten++; }
static const struct registry_impl inner_impl = {
    .view_cas = view_cas, .view_get = view_get, .forget = forget};

static err said;
static unsigned said_n;
static void on_done(void *ctx, err e, const struct registry_reply *reply) { said = e, said_n++; }

static struct view *view_of(const char *names, uint64_t epoch)
{
    struct view *v = view_new(epoch);
    for (; *names; names++) {
        struct view_node *n;
        assert_int_equal(view_add(v, str_from(names, 1), STR("x:1"), &n), ERR_OK);
        n->owner = 1;
    }
    return v;
}
static void goes_by(const char *names)
{
    struct view *v = view_of(names, 4);
    fencing_adopted(fencing, v);
    view_free(v);
}
static void publish(const char *names)
{
    struct view *v = view_of(names, 5);
    registry_view_cas(fencing_door(fencing), 4, 5, view_encode(v, &arena), on_done, &said);
    view_free(v);
}

static int open_fencing(void **state)
{
    inner.impl = &inner_impl, store.impl = &store_impl;
    asked_n = forgotten = gets = said_n = 0, published = 0, said = ERR_OK;
    arena_init(&arena);
    fencing = fencing_new(&inner, &store);
    return 0;
}
static int close_fencing(void **state)
{
    fencing_free(fencing);
    arena_close(&arena);
    return 0;
}

static void who_comes_or_changes_needs_no_fence(void **state)
{
    publish("a"); /* nothing was gone by yet */
    assert_int_equal(published, 5);
    goes_by("ab");
    publish("abc");
    assert_int_equal(said_n, 2);
    assert_int_equal(asked_n, 0);
}

static void all_who_go_are_fenced_before_it_is_published(void **state)
{
    goes_by("abc");
    publish("b");
    assert_int_equal(asked_n, 2);
    assert_string_equal(asked[0].node, "a");
    assert_string_equal(asked[1].node, "c");
    assert_int_equal(asked[0].epoch, 5);
    answers(1, ERR_OK);
    assert_int_equal(published, 0);
    answers(0, ERR_OK);
    assert_int_equal(published, 5);
    assert_int_equal(said, ERR_OK);
}

static void a_store_that_is_away_holds_it_up(void **state)
{
    goes_by("abc");
    publish("a");
    answers(0, ERR_OK);
    assert_int_equal(said_n, 0);
    answers(1, ERR_AWAY);
    assert_int_equal(published, 0);
    assert_int_equal(said, ERR_AWAY);
    publish("a"); /* again, and now it works */
    answers(2, ERR_OK), answers(3, ERR_OK);
    assert_int_equal(published, 5);
}

static void who_is_forgotten_publishes_nothing(void **state)
{
    goes_by("ab");
    publish("a");
    registry_forget(fencing_door(fencing), &said);
    answers(0, ERR_OK);
    assert_int_equal(published, 0);
    assert_int_equal(said_n, 0);
    assert_int_equal(forgotten, 1);
    registry_view_get(fencing_door(fencing), on_done, &said);
    assert_int_equal(gets, 1);
}

#define T(f) cmocka_unit_test_setup_teardown(f, open_fencing, close_fencing)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(who_comes_or_changes_needs_no_fence),
        T(all_who_go_are_fenced_before_it_is_published),
        T(a_store_that_is_away_holds_it_up),
        T(who_is_forgotten_publishes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
