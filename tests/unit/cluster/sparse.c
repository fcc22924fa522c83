/* What a channel remembers of its frames: right as a table of all numbers would be, and as large as
 * what is open. */
#include "cluster/arrived.h"
#include "cluster/unacked.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "pemberley/hash.h"

enum { FRAMES = 10 * 1000 * 1000, RANGES = 64, NUMBERS = 6000, ROUNDS = 40 };

static uint64_t seed;
static uint64_t next(void) { return hash_u64(++seed); }

static void ack(struct unacked *u, uint64_t number)
{
    uint64_t n = number;
    struct pend *p = unacked_next(u, &n);
    assert_true(p && n == number && p->a == number);
    unacked_ack(u, number, p);
}

static void behind_one_that_is_not_acked_ten_million_pass_in_little_memory(void **state)
{
    struct unacked u = {0};
    unacked_begin(&u);
    for (uint64_t i = 1; i <= FRAMES; i++) {
        assert_true(unacked_push(&u, (struct pend){.a = i}) == i);
        if (i > 20 && i - 20 != 5)
            ack(&u, i - 20);
    }
    assert_int_equal(unacked_count(&u), 21);
    assert_true(u.mask < 64 && u.late_cap <= 16);
    ack(&u, 5);
    assert_int_equal(u.late_cap, 0);
    unacked_close(&u);
}

static void behind_one_that_is_not_done_ten_million_pass_in_little_memory(void **state)
{
    struct arrived a = {0};
    uint64_t ranges[RANGES], told = 0;
    arrived_begin(&a);
    for (uint64_t i = 1; i <= FRAMES; i++) {
        arrived_push(&a);
        if (i > 20 && i - 20 != 5)
            arrived_done(&a, i - 20);
        if (i % 7)
            continue;
        size_t n = arrived_tell(&a, ranges, RANGES);
        for (size_t k = 0; k < n; k += 2)
            told += ranges[k + 1] - ranges[k] + 1;
    }
    assert_true(a.upto == 4 && told + 4 + 21 + 7 > FRAMES && told + 4 + 21 <= FRAMES);
    assert_true(a.mask < 64 && a.late_cap <= 16);
    arrived_done(&a, 5);
    arrived_tell(&a, ranges, RANGES);
    assert_true(a.upto == FRAMES - 20 && a.late_cap == 0);
    arrived_close(&a);
}

/* Acks in any order, among them some that come very late, and long pauses in between. */
static void what_is_not_acked_is_found_in_order(void **state)
{
    for (int round = 0; round < ROUNDS; round++) {
        bool open[NUMBERS + 1] = {false};
        struct unacked u = {0};
        size_t count = 0;
        unacked_begin(&u);
        for (uint64_t last = 0; last < NUMBERS;) {
            uint64_t n = last ? 1 + next() % last : 1;
            if (next() % 16 == 0)
                n = last > 30 ? last - next() % 30 : last;
            if (next() % 3 == 0 || !last) {
                open[++last] = true, count++;
                unacked_push(&u, (struct pend){.a = last});
            } else if (open[n]) {
                open[n] = false, count--;
                ack(&u, n);
            }
        }
        assert_int_equal(unacked_count(&u), count);
        uint64_t n = 1;
        for (uint64_t i = 1; i <= NUMBERS; i++) {
            if (!open[i])
                continue;
            const struct pend *p = unacked_next(&u, &n);
            assert_true(p && n == i && p->a == i);
            n++;
        }
        assert_null(unacked_next(&u, &n));
        unacked_close(&u);
    }
}

struct model {
    bool done[NUMBERS + 1], told[NUMBERS + 1];
    uint64_t last;
};

static void take_ranges(struct arrived *a, struct model *m)
{
    uint64_t ranges[RANGES];
    do {
        size_t n = arrived_tell(a, ranges, 8);
        for (uint64_t i = 1; i <= a->upto; i++) {
            assert_true(m->done[i]);
            m->told[i] = true;
        }
        for (size_t k = 0; k < n; k += 2)
            for (uint64_t i = ranges[k]; i <= ranges[k + 1]; i++) {
                assert_true(i <= m->last && m->done[i]);
                m->told[i] = true;
            }
    } while (arrived_has_more(a));
    for (uint64_t i = 1; i <= m->last; i++)
        assert_true(m->told[i] == m->done[i]);
}

static void what_is_done_is_told_and_told_again_when_that_was_lost(void **state)
{
    for (int round = 0; round < ROUNDS; round++) {
        static struct model m;
        struct arrived a = {0};
        m = (struct model){.last = 0};
        arrived_begin(&a);
        while (m.last < NUMBERS) {
            uint64_t n = m.last ? 1 + next() % m.last : 1;
            uint64_t what = next();
            if (what % 16 == 0)
                n = m.last > 30 ? m.last - next() % 30 : m.last;
            if (what % 3 == 0 || !m.last) {
                arrived_push(&a), m.last++;
            } else if (n && !m.done[n]) {
                m.done[n] = true;
                arrived_done(&a, n);
            } else if (what % 701 == 1) {
                take_ranges(&a, &m);
            } else if (what % 1201 == 1) {
                memset(m.told, 0, sizeof m.told);
                arrived_tell_again(&a);
                take_ranges(&a, &m);
            }
        }
        take_ranges(&a, &m);
        arrived_close(&a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(behind_one_that_is_not_acked_ten_million_pass_in_little_memory),
        cmocka_unit_test(behind_one_that_is_not_done_ten_million_pass_in_little_memory),
        cmocka_unit_test(what_is_not_acked_is_found_in_order),
        cmocka_unit_test(what_is_done_is_told_and_told_again_when_that_was_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
