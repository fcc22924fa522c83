/* The ring, of one node and of many: stable, balanced, and moving no more than it must. */
#include "cluster/ring.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "cluster/view.h"
#include "pemberley/hash.h"

static const unsigned char secret[32] = "the secret of a cluster of one..";

static void every_shard_owns_its_share_within_a_few_per_cent(void **state)
{
    for (unsigned shards = 1; shards <= 64; shards *= 2) {
        struct ring *r = ring_single(secret, shards);
        unsigned owned[64] = {0};
        for (unsigned slot = 0; slot < RING_SLOTS; slot++)
            owned[ring_home_of_slot(r, slot)]++;
        for (unsigned i = 0; i < shards; i++) {
            double share = (double)owned[i] * shards / RING_SLOTS;
            assert_true(share > 0.75 && share < 1.25);
        }
        ring_free(r);
    }
}

static void one_more_shard_moves_only_slots_to_itself(void **state)
{
    struct ring *four = ring_single(secret, 4), *five = ring_single(secret, 5);
    for (unsigned slot = 0; slot < RING_SLOTS; slot++)
        if (ring_home_of_slot(five, slot) != 4)
            assert_int_equal(ring_home_of_slot(five, slot), ring_home_of_slot(four, slot));
    ring_free(four);
    ring_free(five);
}

static void a_jid_has_the_same_slot_after_a_restart_and_another_with_another_secret(void **state)
{
    static const unsigned char other[32] = "the secret of another cluster...";
    struct ring *a = ring_single(secret, 2), *b = ring_single(secret, 2),
                *c = ring_single(other, 2);
    unsigned differ = 0;
    for (int i = 0; i < 100; i++) {
        char jid[32];
        snprintf(jid, sizeof jid, "user%d@localhost", i);
        assert_int_equal(ring_slot(a, str_of(jid)), ring_slot(b, str_of(jid)));
        differ += ring_slot(a, str_of(jid)) != ring_slot(c, str_of(jid));
    }
    assert_true(differ > 95);
    ring_free(a);
    ring_free(b);
    ring_free(c);
}

static struct view *cluster_of(unsigned nodes, unsigned shards)
{
    struct view *v = view_new(1);
    for (unsigned i = 0; i < nodes; i++) {
        char name[16];
        struct view_node *n;
        snprintf(name, sizeof name, "node%u", i);
        assert_int_equal(view_add(v, str_of(name), STR("x"), &n), ERR_OK);
        n->owner = 1, n->weight = 100, n->state = VIEW_LIVE;
        for (unsigned k = 0; k < shards; k++)
            view_node_set(n, k, 1);
    }
    return v;
}

static unsigned node_of(unsigned member) { return member / VIEW_SHARDS_MAX; }

static void the_table_is_the_same_on_every_machine(void **state)
{
    struct view *v = cluster_of(7, 5);
    v->nodes[2].weight = 250, v->nodes[3].weight = 1, v->nodes[4].state = VIEW_DRAINING;
    struct ring *r = ring_new(secret, v, NULL, NULL);
    uint64_t sum = ring_slot(r, STR("alice@example.com"));
    for (unsigned slot = 0; slot < RING_SLOTS; slot++)
        sum = (sum ^ ring_home_of_slot(r, slot) ^ (uint64_t)ring_successor(r, slot) << 16) *
              0x9e3779b97f4a7c15u;
    assert_int_equal(sum, 0x484f8952bf5cfd05);
    ring_free(r);
    view_free(v);
}

/* Three standard deviations of a fair draw, for each node. */
static void assert_fair(const struct view *v, const struct ring *r)
{
    static unsigned owned[VIEW_NODES_MAX];
    memset(owned, 0, sizeof owned);
    double sum = 0;
    unsigned unfair = 0;
    for (unsigned slot = 0; slot < RING_SLOTS; slot++)
        owned[node_of(ring_home_of_slot(r, slot))]++;
    for (size_t i = 0; i < v->count; i++)
        sum += view_node_share(&v->nodes[i]);
    for (size_t i = 0; i < v->count; i++) {
        double want = RING_SLOTS * view_node_share(&v->nodes[i]) / sum, off = owned[i] - want;
        unfair += off * off > 9 * want;
        assert_true(off * off <= 25 * want + 1);
    }
    assert_true(unfair <= 1 + v->count / 100);
}

static void every_node_owns_its_share_by_weight(void **state)
{
    static const unsigned sizes[] = {2, 3, 10, 100, 1000};
    for (size_t s = 0; s < array_len(sizes); s++) {
        struct view *v = cluster_of(sizes[s], 4);
        struct ring *r = ring_new(secret, v, NULL, NULL);
        assert_fair(v, r);
        ring_free(r);
        for (size_t i = 0; i < v->count; i++)
            v->nodes[i].weight = (uint32_t)(1 + hash_u64(i) % VIEW_WEIGHT_MAX);
        r = ring_new(secret, v, NULL, NULL);
        assert_fair(v, r);
        ring_free(r);
        view_free(v);
    }
}

/* Counts slots whose node differs though neither the old nor the new one is `changed`. */
static unsigned strays(const struct ring *a, const struct ring *b, unsigned changed)
{
    unsigned n = 0;
    for (unsigned slot = 0; slot < RING_SLOTS; slot++) {
        unsigned x = node_of(ring_home_of_slot(a, slot)), y = node_of(ring_home_of_slot(b, slot));
        n += x != y && x != changed && y != changed;
    }
    return n;
}

static void a_change_of_one_node_moves_only_its_own_slots(void **state)
{
    static const unsigned sizes[] = {2, 5, 40, 1000};
    for (size_t s = 0; s < array_len(sizes); s++) {
        struct view *v = cluster_of(sizes[s], 4);
        for (size_t i = 0; i < v->count; i++)
            v->nodes[i].weight = (uint32_t)(1 + hash_u64(i) % VIEW_WEIGHT_MAX);
        struct ring *before = ring_new(secret, v, NULL, NULL);
        unsigned changed = sizes[s] / 2;
        struct view_node *n = &v->nodes[changed];
        for (int what = 0; what < 4; what++) {
            uint32_t weight = n->weight;
            if (what == 0)
                n->weight = weight > 500 ? 3 : 1000;
            else if (what == 1)
                n->state = VIEW_DRAINING;
            else if (what == 2)
                n->state = VIEW_JOINING;
            else
                n->shards = 0;
            struct ring *after = ring_new(secret, v, NULL, NULL);
            assert_int_equal(strays(before, after, changed), 0);
            for (unsigned slot = 0; what && slot < RING_SLOTS; slot++)
                assert_true(node_of(ring_home_of_slot(after, slot)) != changed);
            ring_free(after);
            n->weight = weight, n->state = VIEW_LIVE, n->shards = 15;
        }
        ring_free(before);
        view_free(v);
    }
}

static void a_node_that_comes_or_goes_moves_only_its_own_slots(void **state)
{
    struct view *v = cluster_of(30, 4), *without = view_copy(v, 2);
    view_remove(without, &without->nodes[10]);
    struct ring *all = ring_new(secret, v, NULL, NULL),
                *fewer = ring_new(secret, without, NULL, NULL);
    for (unsigned slot = 0; slot < RING_SLOTS; slot++) {
        unsigned x = ring_home_of_slot(all, slot), y = ring_home_of_slot(fewer, slot);
        if (node_of(x) == 10)
            continue;
        assert_string_equal(v->nodes[node_of(x)].name, without->nodes[node_of(y)].name);
        assert_int_equal(x % VIEW_SHARDS_MAX, y % VIEW_SHARDS_MAX);
    }
    ring_free(all);
    ring_free(fewer);
    view_free(v);
    view_free(without);
}

static void a_dead_shards_slots_stay_with_its_siblings(void **state)
{
    struct view *v = cluster_of(9, 6);
    struct ring *before = ring_new(secret, v, NULL, NULL);
    view_node_clear(&v->nodes[4], 2);
    struct ring *after = ring_new(secret, v, NULL, NULL);
    unsigned dead = view_member_of(4, 2), moved = 0, to[6] = {0};
    for (unsigned slot = 0; slot < RING_SLOTS; slot++) {
        unsigned x = ring_home_of_slot(before, slot), y = ring_home_of_slot(after, slot);
        if (x != dead) {
            assert_int_equal(x, y);
            continue;
        }
        assert_true(node_of(y) == 4 && y != dead);
        to[y % VIEW_SHARDS_MAX]++, moved++;
    }
    for (unsigned i = 0; i < 6; i++)
        assert_true(i == 2 || to[i] * 5 > moved / 2);
    ring_free(before);
    ring_free(after);
    view_free(v);
}

/* Whoever removes the home's node finds the successor's node in its place. */
static void the_successor_is_in_another_domain_and_next_in_line(void **state)
{
    struct view *v = cluster_of(6, 3);
    v->nodes[1].weight = 700;
    struct ring *r = ring_new(secret, v, NULL, NULL);
    for (unsigned gone = 0; gone < 6; gone++) {
        v->nodes[gone].state = VIEW_DRAINING;
        struct ring *less = ring_new(secret, v, NULL, NULL);
        for (unsigned slot = 0; slot < RING_SLOTS; slot++) {
            assert_true(node_of(ring_successor(r, slot)) != node_of(ring_home_of_slot(r, slot)));
            if (node_of(ring_home_of_slot(r, slot)) == gone)
                assert_int_equal(ring_home_of_slot(less, slot), ring_successor(r, slot));
        }
        ring_free(less);
        v->nodes[gone].state = VIEW_LIVE;
    }
    ring_free(r);
    view_free(v);
}

static void on_one_node_the_successor_is_another_shard_and_of_one_shard_nobody(void **state)
{
    struct ring *r = ring_single(secret, 3), *one = ring_single(secret, 1);
    for (unsigned slot = 0; slot < RING_SLOTS; slot++) {
        assert_true(ring_successor(r, slot) < 3);
        assert_true(ring_successor(r, slot) != ring_home_of_slot(r, slot));
        assert_int_equal(ring_successor(one, slot), RING_NONE);
    }
    ring_free(r);
    ring_free(one);
}

static void a_single_node_has_the_same_table_with_and_without_a_view(void **state)
{
    struct view *v = cluster_of(1, 5);
    struct ring *a = ring_single(secret, 5), *b = ring_new(secret, v, NULL, NULL);
    for (unsigned slot = 0; slot < RING_SLOTS; slot++)
        assert_int_equal(ring_home_of_slot(a, slot), ring_home_of_slot(b, slot));
    assert_int_equal(ring_slot(a, STR("a@b")), ring_slot(b, STR("a@b")));
    ring_free(a);
    ring_free(b);
    view_free(v);
}

static void where_nobody_has_a_share_no_slot_has_a_home(void **state)
{
    struct view *v = cluster_of(2, 2);
    v->nodes[0].weight = 0, v->nodes[1].state = VIEW_JOINING;
    struct ring *r = ring_new(secret, v, NULL, NULL);
    for (unsigned slot = 0; slot < RING_SLOTS; slot++) {
        assert_int_equal(ring_home_of_slot(r, slot), RING_NONE);
        assert_int_equal(ring_successor(r, slot), RING_NONE);
    }
    ring_free(r);
    view_free(v);
}

/* ---- one ring after the other ---- */

static void members_are_named_by_the_blocks_of_their_nodes(void **state)
{
    static const unsigned blocks[] = {5, 0, 2};
    struct view *v = cluster_of(3, 2);
    struct ring *own = ring_new(secret, v, NULL, NULL), *r = ring_new(secret, v, blocks, NULL);
    for (unsigned slot = 0; slot < RING_SLOTS; slot++) {
        unsigned there = ring_home_of_slot(own, slot), here = ring_home_of_slot(r, slot);
        assert_int_equal(here / VIEW_SHARDS_MAX, blocks[node_of(there)]);
        assert_int_equal(here % VIEW_SHARDS_MAX, there % VIEW_SHARDS_MAX);
    }
    size_t n;
    const struct ring_peer *p = ring_peers(r, &n);
    assert_int_equal(n, 6);
    assert_int_equal(p[0].peer, 5 * VIEW_SHARDS_MAX);
    assert_int_equal(ring_peers_end(r), 5 * VIEW_SHARDS_MAX + 2);
    assert_null(ring_peer(r, VIEW_SHARDS_MAX));
    assert_int_equal(ring_peer(r, 2 * VIEW_SHARDS_MAX + 1)->incarnation, 1);
    ring_free(own);
    ring_free(r);
    view_free(v);
}

static void domains_are_nodes_where_there_are_two_full_members(void **state)
{
    struct view *v = cluster_of(2, 2);
    struct ring *two = ring_new(secret, v, NULL, NULL);
    assert_true(ring_same_domain(two, 0, 1));
    assert_false(ring_same_domain(two, 0, VIEW_SHARDS_MAX));
    v->nodes[1].state = VIEW_DRAINING;
    struct ring *drains = ring_new(secret, v, NULL, NULL);
    assert_true(ring_same_domain(drains, 0, 1));
    ring_free(drains);
    v->nodes[1].state = VIEW_JOINING;
    struct ring *one = ring_new(secret, v, NULL, NULL);
    assert_false(ring_same_domain(one, 0, 1));
    assert_true(ring_same_domain(one, 1, 1));
    assert_false(ring_peer(one, VIEW_SHARDS_MAX)->full);
    assert_true(ring_peer(one, 0)->full);
    ring_free(one);
    ring_free(two);
    view_free(v);
}

static struct ring *next_ring(struct view *v, struct ring *before)
{
    struct ring *r = ring_new(secret, v, NULL, before);
    v->epoch++;
    return r;
}

static void a_slot_is_its_homes_since_the_epoch_in_which_it_came_there(void **state)
{
    struct view *v = cluster_of(3, 2);
    struct ring *first = next_ring(v, NULL);
    assert_int_equal(ring_since(first, 7), 1);
    assert_true(ring_changed(first, 7) && ring_moved(first, 7));
    v->nodes[1].weight = 200;
    struct ring *second = next_ring(v, first);
    view_node_set(&v->nodes[2], 1, 99); /* the same shard, started anew */
    struct ring *third = next_ring(v, second);
    unsigned moved = 0, anew = 0;
    for (unsigned slot = 0; slot < RING_SLOTS; slot++) {
        unsigned a = ring_home_of_slot(first, slot), b = ring_home_of_slot(second, slot);
        assert_int_equal(ring_changed(second, slot), a != b);
        assert_int_equal(ring_moved(second, slot), a != b);
        assert_int_equal(ring_since(second, slot), a != b ? 2 : 1);
        bool again = b == view_member_of(2, 1);
        assert_int_equal(ring_home_of_slot(third, slot), b);
        assert_int_equal(ring_changed(third, slot), again);
        assert_int_equal(ring_since(third, slot), again ? 3 : ring_since(second, slot));
        moved += a != b, anew += again;
    }
    assert_true(moved > 500 && anew > 1000);
    ring_free(first);
    ring_free(second);
    ring_free(third);
    view_free(v);
}

/* Who has skipped an epoch sends everything again, and counts as its own what may have been. */
static void
behind_a_skipped_epoch_all_has_moved_and_nothing_is_taken_for_newer_than_it_is(void **state)
{
    struct view *v = cluster_of(3, 2);
    struct ring *first = next_ring(v, NULL);
    v->epoch += 3, v->nodes[1].weight = 200;
    struct ring *later = next_ring(v, first);
    unsigned changed = 0;
    for (unsigned slot = 0; slot < RING_SLOTS; slot++) {
        assert_true(ring_moved(later, slot));
        assert_int_equal(ring_since(later, slot), ring_changed(later, slot) ? 2 : 1);
        changed += ring_changed(later, slot);
    }
    assert_true(changed > 500 && changed < RING_SLOTS / 2);
    assert_int_equal(ring_epoch(later), 5);
    ring_free(first);
    ring_free(later);
    view_free(v);
}

/* The time is printed, and bounded generously: sanitizers and busy machines are slow. */
static void a_thousand_nodes_of_64_shards_are_quick_to_lay_out(void **state)
{
    struct view *v = cluster_of(VIEW_NODES_MAX, VIEW_SHARDS_MAX);
    for (size_t i = 0; i < v->count; i++)
        v->nodes[i].weight = (uint32_t)(1 + hash_u64(i) % VIEW_WEIGHT_MAX);
    struct timespec from, to;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &from);
    struct ring *r = ring_new(secret, v, NULL, NULL);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &to);
    double ms = (double)(to.tv_sec - from.tv_sec) * 1e3 + (double)(to.tv_nsec - from.tv_nsec) / 1e6;
    print_message("1,000 nodes x 64 shards: %.1f ms\n", ms);
    assert_true(ms < 3000);
    ring_free(r);
    view_free(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_shard_owns_its_share_within_a_few_per_cent),
        cmocka_unit_test(one_more_shard_moves_only_slots_to_itself),
        cmocka_unit_test(a_jid_has_the_same_slot_after_a_restart_and_another_with_another_secret),
        cmocka_unit_test(the_table_is_the_same_on_every_machine),
        cmocka_unit_test(every_node_owns_its_share_by_weight),
        cmocka_unit_test(a_change_of_one_node_moves_only_its_own_slots),
        cmocka_unit_test(a_node_that_comes_or_goes_moves_only_its_own_slots),
        cmocka_unit_test(a_dead_shards_slots_stay_with_its_siblings),
        cmocka_unit_test(the_successor_is_in_another_domain_and_next_in_line),
        cmocka_unit_test(on_one_node_the_successor_is_another_shard_and_of_one_shard_nobody),
        cmocka_unit_test(a_single_node_has_the_same_table_with_and_without_a_view),
        cmocka_unit_test(where_nobody_has_a_share_no_slot_has_a_home),
        cmocka_unit_test(members_are_named_by_the_blocks_of_their_nodes),
        cmocka_unit_test(domains_are_nodes_where_there_are_two_full_members),
        cmocka_unit_test(a_slot_is_its_homes_since_the_epoch_in_which_it_came_there),
        cmocka_unit_test(
            behind_a_skipped_epoch_all_has_moved_and_nothing_is_taken_for_newer_than_it_is),
        cmocka_unit_test(a_thousand_nodes_of_64_shards_are_quick_to_lay_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
