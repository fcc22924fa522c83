/* A snap comes out of its codec as it went in, and nothing else does. */
#include "cluster/snap.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void a_snap_survives_its_codec(void **state)
{
    struct arena a;
    arena_init(&a);
    struct snap in =
                    {
                        .sid = 0xfedcba9876543210,
                        .gen = 3,
                        .full = STR("a@x/r"),
                        .sm = true,
                        .resumable = true,
                        .max_ms = 600000,
                        .in_ord = 90,
                        .in_base = 5,
                        .out_seq = 1u << 31,
                        .out_base = 7,
                        .out_acked = 8,
                    },
                out;
    assert_int_equal(snap_decode(snap_encode(&in, &a), &a, &out), ERR_OK);
    assert_true(str_eq(in.full, out.full));
    assert_true(in.sid == out.sid && in.gen == out.gen && in.sm == out.sm);
    assert_true(in.resumable == out.resumable && in.max_ms == out.max_ms);
    assert_true(in.in_ord == out.in_ord && in.in_base == out.in_base);
    assert_true(in.out_seq == out.out_seq && in.out_base == out.out_base);
    assert_int_equal(in.out_acked, out.out_acked);
    arena_close(&a);
}

static void counters_that_contradict_each_other_are_refused(void **state)
{
    struct arena a;
    arena_init(&a);
    struct snap in = {.sid = 1, .full = STR("a@x/r"), .out_seq = 3, .out_acked = 4}, out;
    assert_int_equal(snap_decode(snap_encode(&in, &a), &a, &out), ERR_BAD);
    assert_int_equal(snap_decode(STR("\xff\xff\xff"), &a, &out), ERR_BAD);
    arena_close(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_snap_survives_its_codec),
        cmocka_unit_test(counters_that_contradict_each_other_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
