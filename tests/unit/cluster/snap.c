/* A snap comes out of its codec as it went in, and nothing else does. */
#include "cluster/snap.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void a_snap_survives_its_codec(void **state)
{
    struct arena a;
    arena_init(&a);
    const str jids[] = {STR("b@x"), STR("c@x/y")};
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
                        .presence = STR("/>"),
                        .presence_us = 9,
                        .since_us = 10,
                        .interested = true,
                        .blocklist = true,
                        .carbons = true,
                        .inactive = true,
                        .anonymous = true,
                        .directed = jids,
                        .directed_count = 2,
                        .address = STR("192.0.2.1:5"),
                        .tls = 0x0304,
                    },
                out;
    assert_int_equal(snap_decode(snap_encode(&in, &a), &a, &out), ERR_OK);
    assert_true(str_eq(in.full, out.full));
    assert_true(in.sid == out.sid && in.gen == out.gen && in.sm == out.sm);
    assert_true(in.resumable == out.resumable && in.max_ms == out.max_ms);
    assert_true(in.in_ord == out.in_ord && in.in_base == out.in_base);
    assert_true(in.out_seq == out.out_seq && in.out_base == out.out_base);
    assert_int_equal(in.out_acked, out.out_acked);
    assert_true(str_eq(in.presence, out.presence) && str_eq(in.address, out.address));
    assert_true(in.presence_us == out.presence_us && in.since_us == out.since_us);
    assert_true(out.blocklist && out.carbons && out.inactive);
    assert_true(out.interested && out.anonymous && in.tls == out.tls);
    assert_int_equal(out.directed_count, 2);
    assert_true(str_eq(out.directed[0], jids[0]) && str_eq(out.directed[1], jids[1]));
    arena_close(&a);
}

static void garbage_is_no_snap(void **state)
{
    struct arena a;
    arena_init(&a);
    struct snap out;
    assert_int_equal(snap_decode(STR("\xff\xff\xff"), &a, &out), ERR_BAD);
    arena_close(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_snap_survives_its_codec),
        cmocka_unit_test(garbage_is_no_snap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
