/* What architecture 7 promises, story by story: clusters in which nothing happens but what is told
 * here. Times are milliseconds of virtual time. */
#include "tests/unit/cluster/member_world.h"

#include <setjmp.h>

#include <cmocka.h>

static struct world the_world;
enum { NEVER = 1 << 30, ALL_SLOTS = (1 << SLOTS) - 1 };

/* Nodes a, b, c … that have found each other. */
static struct world *cluster_of(unsigned nodes, unsigned shards)
{
    struct world *w = &the_world;
    world_open(w, 1);
    w->count = 0;
    w->node_count = nodes, w->shard_count = shards;
    for (unsigned i = 0; i < nodes; i++) {
        struct node *n = &w->nodes[i];
        n->registry.impl = &sim_registry;
        n->w = w, n->index = i, n->name[0] = (char)('a' + i), n->drift = 0;
        later(w, 100 * i, (struct event){.what = EV_START_NODE, .node = i});
    }
    run_until(w, 10000);
    check_one_view(w);
    assert_null(w->fault);
    return w;
}

static void end(struct world *w)
{
    world_close(w);
    assert_null(w->fault);
}

static unsigned ended(const struct world *w)
{
    unsigned n = 0;
    for (size_t i = 0; i < array_len(w->ends); i++)
        n += w->ends[i];
    return n;
}

static bool all_owned(const struct world *w)
{
    uint32_t owned = 0;
    for (unsigned i = 0; i < w->node_count; i++)
        for (unsigned k = 0; k < w->shard_count; k++)
            if (may_act(&w->nodes[i].shards[k]))
                owned |= w->nodes[i].shards[k].owned;
    return owned == ALL_SLOTS;
}

/* How long until every slot has an owner. */
static uint64_t time_to_recover(struct world *w, uint64_t max)
{
    uint64_t from = w->now;
    while (!all_owned(w) && w->now < from + max)
        run_until(w, w->now + 10);
    return w->now - from;
}

static const struct view *view_of(const struct world *w, unsigned node, unsigned shard)
{
    return member_view(w->nodes[node].shards[shard].member);
}

static void three_nodes_have_one_view_within_two_seconds_and_a_half(void **state)
{
    struct world *w = &the_world;
    cluster_of(3, 2);
    assert_int_equal(view_of(w, 0, 0)->count, 3);
    assert_int_equal(ended(w), 0);
    end(w);
}

static void the_registry_alone_dying_stops_nothing(void **state)
{
    struct world *w = cluster_of(4, 3);
    uint64_t epoch = w->epoch;
    w->down = true;
    run_until(w, w->now + 60000);
    assert_int_equal(ended(w), 0);
    assert_true(all_owned(w));
    assert_true(member_is_frozen(w->nodes[2].shards[1].member));
    w->down = false;
    run_until(w, w->now + 10000);
    assert_int_equal(ended(w), 0);
    assert_int_equal(w->epoch, epoch);
    assert_false(member_is_frozen(w->nodes[2].shards[1].member));
    end(w);
}

static void a_registry_that_comes_back_to_one_after_the_other_costs_nobody(void **state)
{
    struct world *w = cluster_of(3, 1);
    w->down = true;
    run_until(w, w->now + 20000);
    for (unsigned i = 0; i < 3; i++)
        w->nodes[i].cut_off = true;
    w->down = false;
    for (unsigned i = 0; i < 3; i++) {
        w->nodes[i].cut_off = false;
        run_until(w, w->now + 2500);
    }
    assert_int_equal(ended(w), 0);
    end(w);
}

static void a_registry_that_comes_back_empty_gets_the_view_again(void **state)
{
    struct world *w = cluster_of(3, 2);
    uint64_t epoch = w->epoch;
    struct view *before = view_copy(view_of(w, 0, 0), 1);
    memset(w->leases, 0, sizeof w->leases);
    w->epoch = w->members_until = 0, w->view_n = 0;
    run_until(w, w->now + LEASE - 100);
    assert_int_equal(w->epoch, 0);
    run_until(w, w->now + 5000);
    assert_true(w->epoch > epoch);
    assert_int_equal(ended(w), 0);
    assert_true(view_same_but_epoch(before, view_of(w, 2, 1)));
    check_one_view(w);
    view_free(before);
    end(w);
}

static void a_node_that_is_cut_off_alone_fences_itself_and_is_replaced(void **state)
{
    struct world *w = cluster_of(3, 2);
    w->nodes[1].cut_off = true;
    run_until(w, w->now + 2 * LEASE);
    assert_int_equal(w->ends[MEMBER_FENCED], 2);
    assert_true(time_to_recover(w, 5000) < 5000);
    assert_null(view_find(view_of(w, 0, 0), STR("b")));
    w->nodes[1].cut_off = false;
    run_until(w, w->now + 5000);
    check_one_view(w);
    end(w);
}

static void a_killed_node_is_replaced_soon_after_its_lease(void **state)
{
    struct world *w = cluster_of(3, 2);
    kill_node(w, &w->nodes[2], NEVER);
    uint64_t ms = time_to_recover(w, 20000);
    print_message("a node: %d ms\n", (int)ms);
    assert_true(ms > LEASE - 2 * HEARTBEAT && ms < LEASE + 1500);
    assert_int_equal(ended(w), 0);
    assert_int_equal(view_of(w, 0, 0)->count, 2);
    end(w);
}

static void a_dead_shard_is_removed_at_once_and_comes_back_as_another(void **state)
{
    for (unsigned shard = 0; shard < 2; shard++) { /* the clerk, and one that is not */
        struct world *w = cluster_of(2, 3);
        uint64_t incarnation = w->nodes[0].shards[shard].incarnation, epoch = w->epoch;
        kill_shard(w, &w->nodes[0], shard);
        in_node(w, &w->nodes[0], EV_SIBLING_DOWN, shard, 0);
        appoint(w, &w->nodes[0]);
        uint64_t ms = time_to_recover(w, 20000);
        print_message("%s: %d ms\n", shard ? "a shard" : "the clerk", (int)ms);
        assert_true(ms <= 1500);
        assert_int_equal(view_of(w, 1, 0)->nodes[0].shards, 7 & ~(1u << shard));
        assert_true(w->epoch == epoch + 1);
        start_shard(w, &w->nodes[0], shard);
        run_until(w, w->now + 3000);
        assert_int_equal(ended(w), 0);
        assert_true(view_of(w, 1, 0)->nodes[0].incarnation[shard] > incarnation);
        check_one_view(w);
        end(w);
    }
}

static void a_node_restarts_under_its_name_as_soon_as_its_old_lease_is_over(void **state)
{
    struct world *w = cluster_of(3, 2);
    uint64_t owner = w->nodes[1].owner;
    kill_node(w, &w->nodes[1], 200);
    run_until(w, w->now + LEASE + 4000);
    assert_int_not_equal(view_find(view_of(w, 0, 0), STR("b"))->owner, owner);
    assert_int_equal(ended(w), 0);
    check_one_view(w);
    end(w);
}

static void a_second_node_of_a_name_is_refused_and_the_first_goes_on(void **state)
{
    struct world *w = cluster_of(2, 1);
    struct node *twin = &w->nodes[2];
    *twin = (struct node){.w = w, .index = 2, .name = "a", .offset = 5000};
    twin->registry.impl = &sim_registry;
    w->node_count = 3;
    start_node(w, twin);
    run_until(w, w->now + 2 * LEASE + 2000);
    assert_int_equal(w->ends[MEMBER_NAME_TAKEN], 1);
    assert_int_equal(ended(w), 1);
    assert_true(may_act(&w->nodes[0].shards[0]) && may_act(&w->nodes[1].shards[0]));
    end(w);
}

static void drained_then_left_a_node_costs_nobody_a_slot(void **state)
{
    struct world *w = cluster_of(3, 2);
    struct node *n = &w->nodes[1];
    n->leaving = true;
    for (unsigned k = 0; k < 2; k++) {
        running = &n->shards[k];
        member_drain(running->member, true);
    }
    run_until(w, w->now + 3000);
    assert_int_equal(view_find(view_of(w, 0, 0), STR("b"))->state, VIEW_DRAINING);
    assert_int_equal(n->shards[0].owned | n->shards[1].owned, 0);
    assert_true(all_owned(w));
    leave(w, n);
    run_until(w, w->now + 3000);
    assert_int_equal(w->ends[MEMBER_LEFT], 2);
    assert_int_equal(ended(w), 2);
    assert_null(view_find(view_of(w, 0, 0), STR("b")));
    assert_true(all_owned(w));
    end(w);
}

static void the_last_node_with_a_share_is_not_drained(void **state)
{
    struct world *w = cluster_of(2, 1);
    for (unsigned i = 0; i < 2; i++) {
        running = &w->nodes[i].shards[0];
        member_drain(running->member, true);
    }
    run_until(w, w->now + 5000);
    assert_true(all_owned(w));
    unsigned draining = 0;
    for (unsigned i = 0; i < 2; i++)
        draining += view_of(w, 0, 0)->nodes[i].state == VIEW_DRAINING;
    assert_int_equal(draining, 1);
    end(w);
}

static void of_two_halves_that_do_not_hear_each_other_one_goes_on(void **state)
{
    for (unsigned nodes = 2; nodes <= 4; nodes++) {
        struct world *w = cluster_of(nodes, 1);
        for (unsigned i = 0; i < nodes; i++)
            w->blocked[i][nodes - 1] = w->blocked[nodes - 1][i] = i < nodes - 1;
        run_until(w, w->now + SILENCE + 2 * LEASE + 2000);
        assert_true(time_to_recover(w, 5000) < 5000);
        assert_true(may_act(&w->nodes[0].shards[0]));
        struct view_node *other = view_find(view_of(w, 0, 0), str_of(w->nodes[nodes - 1].name));
        assert_true(!other || other->state == VIEW_JOINING); /* it tries again */
        end(w);
    }
}

static unsigned stalled(const struct world *w)
{
    unsigned n = 0;
    for (unsigned i = 0; i < w->node_count; i++)
        for (unsigned k = 0; k < w->shard_count; k++) {
            const struct member *m = w->nodes[i].shards[k].member;
            n += m && member_is_stalled(m) && !may_act(&w->nodes[i].shards[k]);
        }
    return n;
}

static void empty_registry(struct world *w)
{
    memset(w->leases, 0, sizeof w->leases);
    w->epoch = w->members_until = 0, w->view_n = 0;
}

static void a_registry_and_a_node_dying_together_stall_the_others_until_it_is_back(void **state)
{
    for (int empty = 0; empty < 2; empty++) {
        struct world *w = cluster_of(3, 2);
        w->down = true;
        kill_node(w, &w->nodes[2], NEVER);
        run_until(w, w->now + 20 * LEASE);
        assert_int_equal(stalled(w), 4);
        assert_true(member_has_company(w->nodes[0].shards[0].member));
        if (empty)
            empty_registry(w);
        w->down = false;
        uint64_t from = w->now;
        while (stalled(w) && w->now < from + 20000)
            run_until(w, w->now + 10);
        uint64_t on = w->now - from, all = on + time_to_recover(w, 20000);
        print_message("registry back%s: all go on after %d ms, the dead node's part too after %d\n",
                      empty ? ", empty" : "", (int)on, (int)all);
        assert_true(on < (empty ? LEASE + 2000 : 1000) && all < (empty ? 3 : 2) * LEASE);
        assert_int_equal(view_of(w, 0, 0)->count, 2);
        assert_int_equal(ended(w), 0);
        end(w);
    }
}

static void nodes_that_hear_each_other_again_wait_for_the_registry_together(void **state)
{
    struct world *w = cluster_of(3, 2);
    w->down = true;
    for (unsigned i = 0; i < 2; i++)
        w->blocked[i][2] = w->blocked[2][i] = true;
    run_until(w, w->now + 20 * LEASE);
    assert_int_equal(stalled(w), 6);
    assert_true(member_has_company(w->nodes[1].shards[0].member));
    assert_false(member_has_company(w->nodes[2].shards[0].member));
    memset(w->blocked, 0, sizeof w->blocked);
    run_until(w, w->now + 20 * LEASE);
    assert_int_equal(stalled(w), 6);
    assert_true(member_has_company(w->nodes[2].shards[0].member));
    w->down = false;
    run_until(w, w->now + 2000);
    assert_int_equal(w->gone_on, 6);
    assert_int_equal(ended(w), 0);
    check_one_view(w);
    end(w);
}

static void who_stalls_and_was_removed_meanwhile_ends_as_soon_as_it_knows(void **state)
{
    struct world *w = cluster_of(3, 2);
    w->nodes[2].cut_off = true;
    for (unsigned i = 0; i < 2; i++)
        w->blocked[i][2] = w->blocked[2][i] = true;
    run_until(w, w->now + 5 * LEASE);
    assert_true(all_owned(w));
    assert_int_equal(stalled(w), 2);
    assert_int_equal(ended(w), 0);
    w->nodes[2].cut_off = false;
    run_until(w, w->now + 500);
    assert_int_equal(ended(w), 2);
    end(w);
}

static void who_was_paused_longer_than_the_lease_stalls_before_it_does_anything(void **state)
{
    struct world *w = cluster_of(2, 2);
    struct shard *s = &w->nodes[1].shards[1];
    pause_shard(w, s, LEASE + 500);
    run_until(w, w->now + LEASE + 499);
    assert_false(may_act(s));
    assert_int_equal(w->stalls, 0);
    run_until(w, w->now + 10);
    assert_int_equal(w->stalls, 1);
    run_until(w, w->now + 5000); /* its clerk did not, and has not replaced it yet */
    assert_int_equal(w->gone_on, 1);
    assert_int_equal(ended(w), 0);
    check_one_view(w);
    end(w);
}

static void a_node_that_was_paused_longer_than_its_lease_ends_if_it_was_removed(void **state)
{
    struct world *w = cluster_of(2, 2);
    for (unsigned k = 0; k < 2; k++)
        pause_shard(w, &w->nodes[1].shards[k], 3 * LEASE / 2);
    run_until(w, w->now + 3 * LEASE / 2 + 100);
    assert_int_equal(w->stalls, 2);
    assert_int_equal(w->gone_on, 0);
    assert_int_equal(ended(w), 2);
    run_until(w, w->now + 5000);
    check_one_view(w);
    end(w);
}

static void a_dead_node_that_nobody_may_remove_goes_when_the_operator_says_so(void **state)
{
    struct world *w = cluster_of(1, 1);
    w->node_count = 2;
    struct node *b = &w->nodes[1];
    *b = (struct node){.w = w, .index = 1, .name = "b", .offset = 5000};
    b->registry.impl = &sim_registry;
    kill_node(w, &w->nodes[0], NEVER);
    start_node(w, b);
    run_until(w, w->now + 30000);
    assert_false(all_owned(w));
    running = &b->shards[0];
    member_forget(running->member, STR("a"));
    run_until(w, w->now + 10000);
    assert_true(all_owned(w));
    end(w);
}

static void words_that_are_none_and_of_false_names_are_refused(void **state)
{
    struct world *w = cluster_of(2, 1);
    struct member *m = w->nodes[0].shards[0].member;
    struct arena a;
    arena_init(&a);
    struct word word = {.kind = WORD_BEAT, .node = STR("b"), .owner = 1, .incarnation = 1}, out;
    running = &w->nodes[0].shards[0];
    str bytes = word_encode(&word, &a);
    assert_int_equal(word_decode(bytes, &a, &out), ERR_OK);
    assert_int_equal(member_hear(m, STR("b"), bytes), ERR_OK);
    assert_int_equal(member_hear(m, STR("c"), bytes), ERR_BAD);
    assert_int_equal(member_hear(m, STR("b"), STR("\xff\xff\xff")), ERR_BAD);
    assert_int_equal(member_hear(m, STR("b"), STR("")), ERR_REFUSED);
    char *copy = malloc(bytes.n);
    uint64_t seed = 1;
    for (int i = 0; i < 5000; i++) {
        memcpy(copy, bytes.p, bytes.n);
        seed = hash_u64(seed);
        copy[seed % bytes.n] = (char)(seed >> 32);
        (void)!member_hear(m, STR("b"), (str){copy, hash_u64(seed) % (bytes.n + 1)});
    }
    free(copy);
    arena_close(&a);
    run_until(w, w->now + 5000);
    assert_int_equal(ended(w), 0);
    end(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(three_nodes_have_one_view_within_two_seconds_and_a_half),
        cmocka_unit_test(the_registry_alone_dying_stops_nothing),
        cmocka_unit_test(a_registry_that_comes_back_to_one_after_the_other_costs_nobody),
        cmocka_unit_test(a_registry_that_comes_back_empty_gets_the_view_again),
        cmocka_unit_test(a_node_that_is_cut_off_alone_fences_itself_and_is_replaced),
        cmocka_unit_test(a_killed_node_is_replaced_soon_after_its_lease),
        cmocka_unit_test(a_dead_shard_is_removed_at_once_and_comes_back_as_another),
        cmocka_unit_test(a_node_restarts_under_its_name_as_soon_as_its_old_lease_is_over),
        cmocka_unit_test(a_second_node_of_a_name_is_refused_and_the_first_goes_on),
        cmocka_unit_test(drained_then_left_a_node_costs_nobody_a_slot),
        cmocka_unit_test(the_last_node_with_a_share_is_not_drained),
        cmocka_unit_test(of_two_halves_that_do_not_hear_each_other_one_goes_on),
        cmocka_unit_test(a_registry_and_a_node_dying_together_stall_the_others_until_it_is_back),
        cmocka_unit_test(nodes_that_hear_each_other_again_wait_for_the_registry_together),
        cmocka_unit_test(who_stalls_and_was_removed_meanwhile_ends_as_soon_as_it_knows),
        cmocka_unit_test(who_was_paused_longer_than_the_lease_stalls_before_it_does_anything),
        cmocka_unit_test(a_node_that_was_paused_longer_than_its_lease_ends_if_it_was_removed),
        cmocka_unit_test(a_dead_node_that_nobody_may_remove_goes_when_the_operator_says_so),
        cmocka_unit_test(words_that_are_none_and_of_false_names_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
