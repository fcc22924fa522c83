/* mark: what was let go of lately, told and known again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "cluster/mark.h"

static bool is_odd(const void *ctx, unsigned slot) { return slot % 2; }

static struct mark mark_of(uint64_t n, unsigned slot)
{
    return (struct mark){{0xfedcba9876543210u, n, 0x89abcdefu}, (uint64_t)slot << 50 | 7, 5, n};
}

/* Everything of odd slots that m tells at now_ms, in as many frames as it takes. */
static unsigned tell(const struct marks *m, struct mark_set *to, uint64_t now_ms)
{
    struct arena a;
    uint64_t at = 0;
    unsigned frames = 0;
    arena_init(&a);
    for (str s; (s = marks_encode(m, &at, is_odd, NULL, now_ms, &a)).n; frames++) {
        assert_true(s.n <= FRAME_RECIPIENTS_BYTES);
        mark_set_add(to, s);
    }
    arena_close(&a);
    return frames;
}

static void a_mark_is_known_by_all_of_its_uid_and_the_addressees_slot(void **state)
{
    struct marks m = {0};
    struct mark_set known = {0};
    assert_int_equal(tell(&m, &known, 0), 0);
    marks_put(&m, mark_of(1, 16383));
    marks_put(&m, mark_of(2, 16382));
    assert_int_equal(tell(&m, &known, 2), 1);
    struct uid uid = mark_of(1, 0).uid;
    assert_true(mark_set_has(&known, uid, 16383, 5));
    assert_false(mark_set_has(&known, uid, 16383, 6)); /* another stanza under an old uid */
    assert_false(mark_set_has(&known, uid, 16383, 5 + 256));
    assert_false(mark_set_has(&known, uid, 1, 5));
    assert_false(mark_set_has(&known, mark_of(2, 0).uid, 16382, 5)); /* another home's */
    uid.lane++;
    assert_false(mark_set_has(&known, uid, 16383, 5));
    mark_set_clear(&known);
    assert_false(mark_set_has(&known, mark_of(1, 0).uid, 16383, 5));
    marks_close(&m);
}

static void a_mark_is_of_one_session_of_the_account(void **state)
{
    struct marks m = {0};
    struct mark_set known = {0};
    struct mark a = mark_of(1, 3);
    marks_put(&m, a);
    tell(&m, &known, 1);
    assert_true(mark_set_has_of(&known, a.uid, a.sid, 5));
    assert_false(mark_set_has_of(&known, a.uid, a.sid + 1, 5));
    a.sid++;
    mark_set_put(&known, a);
    assert_true(mark_set_has_of(&known, a.uid, a.sid, 5));
    assert_true(mark_set_has_of(&known, a.uid, a.sid - 1, 5));
    mark_set_clear(&known);
    marks_close(&m);
}

static void the_oldest_are_overwritten_and_the_old_not_told(void **state)
{
    struct marks m = {0};
    struct mark_set known = {0};
    for (uint64_t n = 0; n <= MARKS_MAX; n++)
        marks_put(&m, mark_of(n, 1));
    assert_int_equal(m.dropped, 1); /* a young one */
    assert_true(tell(&m, &known, MARKS_MAX) > 1);
    assert_false(mark_set_has(&known, mark_of(0, 0).uid, 1, 5));
    assert_true(mark_set_has(&known, mark_of(1, 0).uid, 1, 5));
    assert_true(mark_set_has(&known, mark_of(MARKS_MAX, 0).uid, 1, 5));
    mark_set_clear(&known);
    tell(&m, &known, MARKS_MAX - 1 + MARKS_MS);
    assert_false(mark_set_has(&known, mark_of(MARKS_MAX - 20, 0).uid, 1, 5));
    assert_true(mark_set_has(&known, mark_of(MARKS_MAX - 1, 0).uid, 1, 5));
    mark_set_clear(&known);
    marks_close(&m);
}

static void add_to(void *ctx, str bytes)
{
    assert_true(bytes.n <= FRAME_RECIPIENTS_BYTES);
    mark_set_add(ctx, bytes);
}

/* To the home that has the account next. */
static void what_is_known_is_told_on_as_it_is(void **state)
{
    enum { MANY = 5000 };
    struct mark_set known = {0}, next = {0};
    struct arena a;
    arena_init(&a);
    mark_set_tell(&known, is_odd, NULL, &a, add_to, &next);
    for (uint64_t n = 0; n < MANY; n++)
        mark_set_put(&known, mark_of(n, n % 2 ? 16383 : 2));
    mark_set_tell(&known, is_odd, NULL, &a, add_to, &next);
    for (uint64_t n = 1; n < MANY; n += 2)
        assert_true(mark_set_has_of(&next, mark_of(n, 0).uid, mark_of(n, 16383).sid, 5));
    assert_false(mark_set_has(&next, mark_of(2, 0).uid, 2, 5));
    mark_set_clear(&known);
    mark_set_clear(&next);
    arena_close(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_mark_is_known_by_all_of_its_uid_and_the_addressees_slot),
        cmocka_unit_test(a_mark_is_of_one_session_of_the_account),
        cmocka_unit_test(what_is_known_is_told_on_as_it_is),
        cmocka_unit_test(the_oldest_are_overwritten_and_the_old_not_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
