/* Envelopes and HELLO: what is read is what was written; everything else is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "proto/bus/envelope.h"

static size_t frame(char *out, const char *text, struct envelope_address a)
{
    size_t n = envelope_head(ENVELOPE_FRAME, &a, strlen(text), out);
    memcpy(out + n, text, strlen(text));
    return n + strlen(text);
}

static void a_frame_is_read_as_it_was_written_and_not_before_its_last_byte(void **state)
{
    char out[64];
    struct envelope e;
    size_t size, n = frame(out, "text", (struct envelope_address){1, 65535, 1u << 31, 7, 2});
    for (size_t i = 0; i < n; i++) {
        char *exact = malloc(i ? i : 1);
        memcpy(exact, out, i);
        assert_int_equal(envelope_read(str_from(exact, i), 4, &e, &size), ERR_PARTIAL);
        assert_in_range(size, i + 1, n);
        free(exact);
    }
    assert_int_equal(envelope_read(str_from(out, n), 4, &e, &size), ERR_OK);
    assert_int_equal(size, n);
    assert_true(str_is(e.body, "text"));
    assert_int_equal(e.address.to, 1);
    assert_int_equal(e.address.from, 65535);
    assert_int_equal(e.address.to_incarnation, 1u << 31);
    assert_int_equal(e.address.from_incarnation, 7);
    assert_int_equal(e.address.hops, 2);
    assert_int_equal(envelope_read(str_from(out, n), 3, &e, &size), ERR_BAD);
}

static void what_is_no_envelope_is_refused_from_its_head(void **state)
{
    static const struct {
        uint32_t n;
        uint8_t kind, hops, zero;
    } rows[] = {
        {8, ENVELOPE_NONE, 0, 0},
        {8, ENVELOPE_KINDS, 0, 0},
        {8, 255, 0, 0},
        {8, ENVELOPE_PING, 0, 1},
        {9, ENVELOPE_PING, 0, 0},
        {8, ENVELOPE_PONG, 0, 0},
        {0, ENVELOPE_REFUSE, 0, 0},
        {4, ENVELOPE_HELLO, 0, 0},
        {513, ENVELOPE_HELLO, 0, 0},
        {12, ENVELOPE_FRAME, 0, 0},
        {0, ENVELOPE_WORD, 0, 0},
        {1001, ENVELOPE_WORD, 0, 0},
        {0xffffffff, ENVELOPE_FRAME, 0, 0},
        {20, ENVELOPE_FRAME, ENVELOPE_HOPS_MAX + 1, 0},
    };
    for (size_t i = 0; i < array_len(rows); i++) {
        struct envelope e;
        size_t size;
        char head[8] = {(char)rows[i].n,         (char)(rows[i].n >> 8),
                        (char)(rows[i].n >> 16), (char)(rows[i].n >> 24),
                        (char)rows[i].kind,      (char)rows[i].hops,
                        (char)rows[i].zero,      0};
        assert_int_equal(envelope_read(str_from(head, 8), 1000, &e, &size), ERR_BAD);
    }
}

static void a_hello_is_read_as_it_was_written(void **state)
{
    struct arena a;
    arena_init(&a);
    struct hello h = {1,  3,  1ull << 63, STR("derby"), STR("node-7"),
                      63, 99, 98,         1ull << 40,   STR("1.2.3")},
                 g;
    assert_int_equal(hello_decode(hello_encode(&h, &a), &a, &g), ERR_OK);
    assert_true(str_eq(g.cluster, h.cluster) && str_eq(g.node, h.node));
    assert_true(str_eq(g.software, h.software));
    assert_true(g.version_min == 1 && g.version_max == 3 && g.features == h.features);
    assert_true(g.shard == 63 && g.incarnation == 99 && g.sees == 98 && g.epoch == h.epoch);
    h.software = STR("123456789012345678901234567890123"); /* one too many */
    assert_int_equal(hello_decode(hello_encode(&h, &a), &a, &g), ERR_BAD);
    arena_close(&a);
}

static void names_are_bounded(void **state)
{
    static const char *const bad[] = {
        "", "A", "a.b", "a b", "a/b", "ä", "123456789012345678901234567890123"};
    struct arena a;
    arena_init(&a);
    for (size_t i = 0; i < array_len(bad); i++) {
        struct hello h = {1, 1, 0, STR("derby"), str_of(bad[i]), 0, 1, 1, 1, STR("")}, g;
        assert_false(node_name_is_good(str_of(bad[i])));
        assert_int_equal(hello_decode(hello_encode(&h, &a), &a, &g), ERR_BAD);
        h.node = STR("a"), h.cluster = str_of(bad[i]);
        assert_int_equal(hello_decode(hello_encode(&h, &a), &a, &g), ERR_BAD);
    }
    assert_true(node_name_is_good(STR("12345678901234567890123456789012")));
    assert_int_equal(hello_decode(STR("PRALxxxxxxx"), &a, &(struct hello){0}), ERR_BAD);
    assert_int_equal(hello_decode(STR("PRA"), &a, &(struct hello){0}), ERR_BAD);
    arena_close(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_frame_is_read_as_it_was_written_and_not_before_its_last_byte),
        cmocka_unit_test(what_is_no_envelope_is_refused_from_its_head),
        cmocka_unit_test(a_hello_is_read_as_it_was_written),
        cmocka_unit_test(names_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
