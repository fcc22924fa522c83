/* The ring of one node: stable, balanced, and moving no more than it must. */
#include "cluster/ring.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_shard_owns_its_share_within_a_few_per_cent),
        cmocka_unit_test(one_more_shard_moves_only_slots_to_itself),
        cmocka_unit_test(a_jid_has_the_same_slot_after_a_restart_and_another_with_another_secret),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
