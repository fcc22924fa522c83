/* A view comes out of its codec as it went in, and nothing that is none comes out of it. */
#include "cluster/view.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "pemberley/hash.h"
#include "proto/bus/cluster.pb-c.h"

static struct view_node *add(struct view *v, const char *name, unsigned shards)
{
    struct view_node *n;
    assert_int_equal(view_add(v, str_of(name), STR("10.0.0.1:5275"), &n), ERR_OK);
    n->owner = hash_u64(v->count) | 1, n->weight = 100, n->state = VIEW_LIVE;
    for (unsigned i = 0; i < shards; i++)
        view_node_set(n, i, 7 + i);
    return n;
}

static struct view *of_three(void)
{
    struct view *v = view_new(41);
    add(v, "c", 2)->state = VIEW_DRAINING;
    add(v, "a", 8);
    view_node_clear(add(v, "b", 3), 1);
    return v;
}

static void a_view_survives_its_codec(void **state)
{
    struct arena a;
    arena_init(&a);
    struct view *in = of_three(), *out = NULL;
    assert_int_equal(view_decode(view_encode(in, &a), &out), ERR_OK);
    assert_int_equal(out->epoch, 41);
    assert_true(view_same_but_epoch(in, out));
    assert_string_equal(out->nodes[0].name, "a");
    assert_string_equal(out->nodes[2].name, "c");
    assert_int_equal(out->nodes[1].shards, 5);
    assert_int_equal(out->nodes[2].state, VIEW_DRAINING);
    view_free(in);
    view_free(out);
    arena_close(&a);
}

static void nodes_are_found_by_name_added_in_order_and_removed(void **state)
{
    struct view *v = of_three();
    assert_ptr_equal(view_find(v, STR("b")), &v->nodes[1]);
    assert_null(view_find(v, STR("bb")));
    assert_null(view_find(v, STR("")));
    view_remove(v, view_find(v, STR("a")));
    assert_int_equal(v->count, 2);
    assert_ptr_equal(view_find(v, STR("c")), &v->nodes[1]);
    view_free(v);
}

static void a_difference_in_any_field_is_seen(void **state)
{
    for (int what = 0; what < 7; what++) {
        struct view *a = of_three(), *b = view_copy(a, 42);
        assert_true(view_same_but_epoch(a, b));
        struct view_node *n = &b->nodes[1];
        switch (what) {
        case 0: n->owner++; break;
        case 1: n->weight++; break;
        case 2: n->state = VIEW_JOINING; break;
        case 3: view_node_set(n, 2, 99); break;
        case 4: view_node_clear(n, 2); break;
        case 5: view_remove(b, n); break;
        case 6: n->address[0] = '9'; break;
        }
        assert_false(view_same_but_epoch(a, b));
        view_free(a);
        view_free(b);
    }
}

/* The most that is allowed, and one more. */
static void a_thousand_nodes_of_64_shards_fit_and_no_more(void **state)
{
    struct arena a;
    arena_init(&a);
    char name[REGISTRY_NODE_MAX + 1], address[VIEW_ADDRESS_MAX + 1];
    memset(address, 'x', VIEW_ADDRESS_MAX), address[VIEW_ADDRESS_MAX] = 0;
    struct view *v = view_new(~0ull), *out;
    struct view_node *n;
    for (unsigned i = 0; i < VIEW_NODES_MAX; i++) {
        snprintf(name, sizeof name, "node-with-a-rather-long-name-%03u", i % VIEW_NODES_MAX);
        assert_int_equal(view_add(v, str_of(name), str_of(address), &n), ERR_OK);
        n->owner = ~0ull, n->weight = VIEW_WEIGHT_MAX, n->state = VIEW_LIVE;
        for (unsigned k = 0; k < VIEW_SHARDS_MAX; k++)
            view_node_set(n, k, ~0ull);
    }
    assert_int_equal(view_add(v, STR("one-more"), STR("x"), &n), ERR_FULL);
    str bytes = view_encode(v, &a);
    assert_true(bytes.n > 800000 && bytes.n <= REGISTRY_VIEW_MAX);
    assert_int_equal(view_decode(bytes, &out), ERR_OK);
    assert_true(view_same_but_epoch(v, out));
    view_free(v);
    view_free(out);
    arena_close(&a);
}

/* ---- hostile ones ---- */

struct bad {
    Cluster__View view;
    Cluster__Node node[2], *nodes[2];
    uint64_t incarnation[2];
};

static void fill(struct bad *b)
{
    cluster__view__init(&b->view);
    b->view.version = 1, b->view.epoch = 5;
    b->view.nodes = b->nodes, b->view.n_nodes = 2;
    for (int i = 0; i < 2; i++) {
        Cluster__Node *n = b->nodes[i] = &b->node[i];
        cluster__node__init(n);
        n->name = (ProtobufCBinaryData){1, (uint8_t *)(i ? "b" : "a")};
        n->owner = 1, n->weight = 10, n->state = 1, n->shards = 3;
        n->incarnation = b->incarnation, n->n_incarnation = 2;
    }
    b->incarnation[0] = b->incarnation[1] = 9;
}

static err decoded(const struct bad *b)
{
    size_t n = cluster__view__get_packed_size(&b->view);
    uint8_t *bytes = malloc(n);
    cluster__view__pack(&b->view, bytes);
    struct view *v = NULL;
    err e = view_decode(str_from(bytes, n), &v);
    view_free(v);
    free(bytes);
    return e;
}

static void what_is_no_view_is_refused(void **state)
{
    static char long_text[400];
    memset(long_text, 'a', sizeof long_text);
    for (int what = 0; what <= 14; what++) {
        struct bad b;
        fill(&b);
        Cluster__Node *n = &b.node[1];
        err want = what == 0 ? ERR_OK : what <= 2 ? ERR_REFUSED : ERR_BAD;
        switch (what) {
        case 1: b.view.version = 2; break;
        case 2: b.view.features = 1; break;
        case 3: b.view.epoch = 0; break;
        case 4: n->name.len = 0; break;
        case 5: n->name = (ProtobufCBinaryData){33, (uint8_t *)long_text}; break;
        case 6: n->name = (ProtobufCBinaryData){1, (uint8_t *)"B"}; break;
        case 7: n->name = (ProtobufCBinaryData){1, (uint8_t *)"a"}; break;
        case 8: n->address = (ProtobufCBinaryData){264, (uint8_t *)long_text}; break;
        case 9: n->address = (ProtobufCBinaryData){3, (uint8_t *)"a\nb"}; break;
        case 10: n->owner = 0; break;
        case 11: n->weight = 1001; break;
        case 12: n->state = 3; break;
        case 13: n->shards = 7; break;
        case 14: b.incarnation[1] = 0; break;
        }
        assert_int_equal(decoded(&b), want);
    }
}

/* A million bytes of empty nodes would be a hundred millions once unpacked. */
static void announced_nodes_are_counted_before_they_are_made(void **state)
{
    size_t n = REGISTRY_VIEW_MAX;
    uint8_t *bytes = malloc(n + 1);
    for (size_t i = 0; i < n; i += 2)
        bytes[i] = 4 << 3 | 2, bytes[i + 1] = 0;
    struct view *v;
    assert_int_equal(view_decode(str_from(bytes, n), &v), ERR_BAD);
    assert_int_equal(view_decode(str_from(bytes, n + 1), &v), ERR_BAD);
    free(bytes);
}

static void bytes_cut_short_or_changed_crash_nothing(void **state)
{
    struct arena a;
    arena_init(&a);
    struct view *in = of_three(), *out;
    str whole = view_encode(in, &a);
    char *copy = malloc(whole.n);
    uint64_t seed = 1;
    for (unsigned i = 0; i < 20000; i++) {
        memcpy(copy, whole.p, whole.n);
        for (unsigned k = 0; k <= i % 3u; k++) {
            seed = hash_u64(seed);
            copy[seed % whole.n] = (char)(seed >> 32);
        }
        size_t n = i % 2 ? whole.n : hash_u64(seed) % whole.n;
        if (view_decode((str){copy, n}, &out) == ERR_OK) {
            assert_true(out->count <= 3);
            view_free(out);
        }
    }
    free(copy);
    view_free(in);
    arena_close(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_view_survives_its_codec),
        cmocka_unit_test(nodes_are_found_by_name_added_in_order_and_removed),
        cmocka_unit_test(a_difference_in_any_field_is_seen),
        cmocka_unit_test(a_thousand_nodes_of_64_shards_fit_and_no_more),
        cmocka_unit_test(what_is_no_view_is_refused),
        cmocka_unit_test(announced_nodes_are_counted_before_they_are_made),
        cmocka_unit_test(bytes_cut_short_or_changed_crash_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
