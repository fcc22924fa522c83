/* The load generator's own checker: what it is there to find, it must find. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above */
#include <cmocka.h>

#include <stdio.h>

#include "bench/load/check.h"
#include "bench/load/tally.h"

static struct form form_of(uint32_t run, uint32_t sender)
{
    struct form f;
    form_init(&f, STR("<message to='a@b'><body>"), STR("</body></message>"), run, sender, 300);
    return f;
}

static str text_of(const struct form *f) { return str_from(f->xml + f->text, f->text_n); }

static struct faults take_all(const uint64_t *numbers, size_t n, uint64_t sent)
{
    struct sequence s = {.newest = 0};
    struct faults f = {.lost = 0};
    for (size_t i = 0; i < n; i++)
        sequence_take(&s, numbers[i], &f);
    sequence_end(&s, sent, &f);
    return f;
}
#define TAKE(sent, ...) \
    take_all((uint64_t[]){__VA_ARGS__}, sizeof((uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t), sent)

static void assert_faults(struct faults f, uint64_t lost, uint64_t duplicated, uint64_t reordered)
{
    assert_int_equal(f.lost, lost);
    assert_int_equal(f.duplicated, duplicated);
    assert_int_equal(f.reordered, reordered);
}

static void what_arrives_once_and_in_order_is_no_fault(void **state)
{
    assert_faults(TAKE(5, 1, 2, 3, 4, 5), 0, 0, 0);
}

static void what_does_not_arrive_is_lost(void **state)
{
    assert_faults(TAKE(5, 1, 2, 4, 5), 1, 0, 0);
    assert_faults(TAKE(5, 1, 2, 3), 2, 0, 0);
    assert_faults(TAKE(1, 1), 0, 0, 0);
    assert_faults(TAKE(300, 1, 300), 298, 0, 0);
    assert_faults(TAKE(5, 5), 4, 0, 0);
}

static void what_was_skipped_long_ago_is_lost_too(void **state)
{
    struct sequence s = {.newest = 0};
    struct faults f = {.lost = 0};
    for (uint64_t i = 2; i <= 1000; i++)
        sequence_take(&s, i, &f);
    sequence_end(&s, 1000, &f);
    assert_faults(f, 1, 0, 0);
}

static void what_arrives_again_is_duplicated(void **state)
{
    assert_faults(TAKE(3, 1, 2, 2, 3), 0, 1, 0);
    assert_faults(TAKE(3, 1, 2, 3, 1), 0, 1, 0);
    assert_faults(TAKE(3, 1, 3, 2, 2), 0, 1, 1);
}

static void what_arrives_behind_a_later_one_is_reordered(void **state)
{
    assert_faults(TAKE(4, 2, 1, 4, 3), 0, 0, 2);
    assert_faults(TAKE(64, 64, 1), 62, 0, 1);
}

static void a_stanza_comes_back_as_it_was_filled(void **state)
{
    struct form f = form_of(7, 9);
    struct mark m;
    str xml = form_fill(&f, 12345, 67890);
    assert_int_equal(xml.n, 300);
    assert_int_equal(form_read(&f, text_of(&f), &m), MARK_WHOLE);
    assert_int_equal(m.number, 12345);
    assert_int_equal(m.time_us, 67890);
    form_free(&f);
}

static void every_changed_byte_but_those_of_number_and_time_is_damage(void **state)
{
    struct form f = form_of(7, 9);
    struct mark m;
    form_fill(&f, 1, 2);
    str text = text_of(&f);
    char copy[512];
    unsigned damaged = 0, stale = 0;
    for (size_t i = 0; i < text.n; i++) {
        memcpy(copy, text.p, text.n);
        copy[i] ^= 0x40;
        enum verdict v = form_read(&f, str_from(copy, text.n), &m);
        damaged += v == MARK_DAMAGED;
        stale += v == MARK_STALE;
    }
    assert_int_equal(stale, 8);
    /* A digit with that bit turned is none: 0x30 becomes 0x70, 'p'. */
    assert_int_equal(damaged, text.n - 8);
    assert_int_equal(form_read(&f, str_from(text.p, text.n - 1), &m), MARK_DAMAGED);
    assert_int_equal(form_read(&f, str_from(text.p, 10), &m), MARK_DAMAGED);
    assert_int_equal(form_read(&f, STR_NONE, &m), MARK_DAMAGED);
    form_free(&f);
}

static void another_senders_stanza_is_damage_and_another_runs_is_stale(void **state)
{
    struct form own = form_of(7, 9), other = form_of(7, 10), old = form_of(6, 9);
    struct mark m;
    assert_int_equal(form_read(&own, text_of(&other), &m), MARK_DAMAGED);
    assert_int_equal(form_read(&own, text_of(&old), &m), MARK_STALE);
    form_free(&own), form_free(&other), form_free(&old);
}

static void percentiles_are_within_a_step_of_the_truth(void **state)
{
    struct spread s = {.n = 0};
    for (uint64_t us = 1; us <= 100000; us++)
        spread_count(&s, us);
    uint64_t p50 = spread_at(&s, 0.5), p999 = spread_at(&s, 0.999);
    assert_in_range(p50, 50000 - 50000 / 32, 50000);
    assert_in_range(p999, 99900 - 99900 / 32, 99900);
    assert_int_equal(spread_at(&s, 1), 100000);
}

static void two_tallies_add_up(void **state)
{
    static struct tally a, b;
    tally_error(&a, "refused", 2);
    tally_error(&b, "refused", 1);
    tally_error(&b, "reset", 1);
    a.faults.lost = 1, b.faults.lost = 2;
    spread_count(&a.latency, 10), spread_count(&b.latency, 1000);
    tally_add(&a, &b);
    assert_int_equal(a.faults.lost, 3);
    assert_int_equal(a.error[0].n, 3);
    assert_string_equal(a.error[1].why, "reset");
    assert_int_equal(spread_at(&a.latency, 1), 1000);
    assert_int_equal(spread_at(&a.latency, 0.5), 10);
    for (int i = 0; i < 40; i++) {
        char why[16];
        snprintf(why, sizeof why, "kind %d", i);
        tally_error(&a, why, 1);
    }
    assert_string_equal(a.error[TALLY_ERRORS - 1].why, "other");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_arrives_once_and_in_order_is_no_fault),
        cmocka_unit_test(what_does_not_arrive_is_lost),
        cmocka_unit_test(what_was_skipped_long_ago_is_lost_too),
        cmocka_unit_test(what_arrives_again_is_duplicated),
        cmocka_unit_test(what_arrives_behind_a_later_one_is_reordered),
        cmocka_unit_test(a_stanza_comes_back_as_it_was_filled),
        cmocka_unit_test(every_changed_byte_but_those_of_number_and_time_is_damage),
        cmocka_unit_test(another_senders_stanza_is_damage_and_another_runs_is_stale),
        cmocka_unit_test(percentiles_are_within_a_step_of_the_truth),
        cmocka_unit_test(two_tallies_add_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
