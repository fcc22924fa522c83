#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "node/tls/gate.h"

static const unsigned char hello[] = {22, 3, 1, 0, 6, 1, 0, 0, 2, 3, 3};

static size_t missing_of(const unsigned char *p, size_t n, enum gate_stage stage)
{
    size_t missing = 0;
    assert_null(gate_missing(p, n, stage, &missing));
    return missing;
}

static void a_whole_record_misses_nothing(void **state)
{
    assert_int_equal(missing_of(hello, sizeof hello, GATE_FIRST), 0);
    assert_int_equal(gate_size(hello), sizeof hello);
}

static void what_is_missing_is_the_header_first_and_then_the_rest(void **state)
{
    assert_int_equal(missing_of(hello, 0, GATE_FIRST), 9);
    assert_int_equal(missing_of(hello, 1, GATE_FIRST), 8);
    assert_int_equal(missing_of(hello, 9, GATE_FIRST), 2);
    assert_int_equal(missing_of(hello, 1, GATE_OPEN), 4);
    assert_int_equal(missing_of(hello, 5, GATE_OPEN), 6);
}

static void text_on_a_tls_port_is_refused_at_its_first_byte(void **state)
{
    size_t missing;
    assert_string_equal(gate_missing((const unsigned char *)"<", 1, GATE_FIRST, &missing),
                        "not_tls");
}

static void a_first_record_that_is_no_client_hello_is_refused(void **state)
{
    unsigned char p[sizeof hello];
    size_t missing;
    memcpy(p, hello, sizeof p);
    p[5] = 2;
    assert_string_equal(gate_missing(p, 9, GATE_FIRST, &missing), "no_client_hello");
    p[0] = 23;
    assert_string_equal(gate_missing(p, 1, GATE_FIRST, &missing), "not_tls");
}

static void a_hello_above_8_kib_is_refused_from_nine_bytes(void **state)
{
    const unsigned char p[] = {22, 3, 1, 0x40, 0, 1, 0, 0x20, 1};
    const unsigned char fits[] = {22, 3, 1, 0x40, 0, 1, 0, 0x20, 0};
    size_t missing;
    assert_string_equal(gate_missing(p, 9, GATE_FIRST, &missing), "client_hello_too_big");
    assert_int_equal(missing_of(fits, 9, GATE_FIRST), 5 + 16384 - 9);
}

static void a_record_above_16_kib_and_256_is_refused(void **state)
{
    const unsigned char most[] = {23, 3, 3, 0x41, 0}, more[] = {23, 3, 3, 0x41, 1};
    size_t missing;
    assert_int_equal(missing_of(most, 5, GATE_OPEN), 16384 + 256);
    assert_string_equal(gate_missing(more, 5, GATE_OPEN, &missing), "bad_record_length");
}

static void a_run_stops_before_the_incomplete_record(void **state)
{
    const unsigned char p[] = {23, 3, 3, 0, 1, 'a', 21, 3, 3, 0, 2, 1, 0, 23, 3};
    size_t whole;
    assert_null(gate_run(p, sizeof p, GATE_OPEN, &whole));
    assert_int_equal(whole, 13);
}

static void a_run_gives_what_lies_before_a_bad_record(void **state)
{
    const unsigned char p[] = {23, 3, 3, 0, 1, 'a', 24};
    size_t whole;
    assert_string_equal(gate_run(p, sizeof p, GATE_OPEN, &whole), "bad_record_type");
    assert_int_equal(whole, 6);
}

static void only_the_first_record_must_be_a_hello(void **state)
{
    unsigned char p[sizeof hello + 6] = {0};
    const unsigned char next[] = {20, 3, 3, 0, 1, 1};
    size_t whole;
    memcpy(p, hello, sizeof hello);
    memcpy(p + sizeof hello, next, sizeof next);
    assert_null(gate_run(p, sizeof p, GATE_FIRST, &whole));
    assert_int_equal(whole, sizeof p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_record_misses_nothing),
        cmocka_unit_test(what_is_missing_is_the_header_first_and_then_the_rest),
        cmocka_unit_test(text_on_a_tls_port_is_refused_at_its_first_byte),
        cmocka_unit_test(a_first_record_that_is_no_client_hello_is_refused),
        cmocka_unit_test(a_hello_above_8_kib_is_refused_from_nine_bytes),
        cmocka_unit_test(a_record_above_16_kib_and_256_is_refused),
        cmocka_unit_test(a_run_stops_before_the_incomplete_record),
        cmocka_unit_test(a_run_gives_what_lies_before_a_bad_record),
        cmocka_unit_test(only_the_first_record_must_be_a_hello),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
