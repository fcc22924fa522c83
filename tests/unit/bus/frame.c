/* The codec of frames against protobuf-c, which defines what a header's bytes are. */
#include "proto/bus/frame.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "pemberley/hash.h"
#include "proto/bus/bus.pb-c.h"
#include "proto/bus/wire.h"

enum { ROUNDS = 5000, LIST_MAX = 40 };

static struct arena arena;
static uint64_t seed;

static uint64_t next(void) { return hash_u64(++seed); }

/* Of every length, and often 0. */
static uint64_t number(void)
{
    uint64_t r = next();
    return r % 4 == 0 ? 0 : next() >> (r >> 8) % 64;
}

static str bytes(void)
{
    uint64_t r = next();
    size_t n = r % 3 == 0 ? 0 : (r >> 8) % 200;
    char *p = arena_alloc(&arena, n + 1);
    for (size_t i = 0; i < n; i++)
        p[i] = (char)next();
    return (str){p, n};
}

static struct frame any_frame(void)
{
    struct frame f = {
        .kind = 1 + next() % (FRAME_KINDS - 1),
        .flags = (uint32_t)number(),
        .sid = number(),
        .ord = number(),
        .seq = number(),
        .gen = (uint32_t)number(),
        .lane = (uint32_t)number(),
        .fp = (uint32_t)number(),
        .conn = number(),
        .h = number(),
        .ms = number(),
        .us = number(),
        .sent = number(),
        .reason = next() % ERR_MAX,
        .bare = bytes(),
        .resource = bytes(),
        .text = bytes(),
        .payload = bytes(),
        .ack_upto = number(),
    };
    f.recipient_count = next() % 2 ? next() % LIST_MAX : 0;
    f.ack_range_count = next() % 2 ? next() % LIST_MAX : 0;
    str *to = arena_alloc(&arena, LIST_MAX * sizeof *to);
    uint64_t *ranges = arena_alloc(&arena, LIST_MAX * sizeof *ranges);
    for (size_t i = 0; i < LIST_MAX; i++)
        to[i] = bytes(), ranges[i] = number();
    f.recipients = to, f.ack_ranges = ranges;
    return f;
}

static ProtobufCBinaryData binary(str s)
{
    return (ProtobufCBinaryData){.len = s.n, .data = (uint8_t *)s.p};
}

static str packed_by_protobuf_c(const struct frame *f, uint64_t n)
{
    Bus__Header h = BUS__HEADER__INIT;
    h.kind = f->kind, h.number = n, h.flags = f->flags, h.sid = f->sid, h.ord = f->ord;
    h.seq = f->seq, h.gen = f->gen, h.lane = f->lane, h.fp = f->fp, h.conn = f->conn;
    h.h = f->h, h.ms = f->ms, h.us = f->us, h.sent = f->sent, h.reason = f->reason;
    h.bare = binary(f->bare), h.resource = binary(f->resource);
    h.text = binary(f->text), h.payload = binary(f->payload);
    h.n_recipients = f->recipient_count;
    h.recipients = arena_alloc(&arena, LIST_MAX * sizeof *h.recipients);
    for (size_t i = 0; i < f->recipient_count; i++)
        h.recipients[i] = binary(f->recipients[i]);
    h.ack_upto = f->ack_upto;
    h.n_ack_ranges = f->ack_range_count, h.ack_ranges = (uint64_t *)f->ack_ranges;
    size_t size = bus__header__get_packed_size(&h);
    char *p = arena_alloc(&arena, size + 1);
    return (str){p, bus__header__pack(&h, (uint8_t *)p)};
}

static void assert_same(const struct frame *f, const struct frame *g)
{
    assert_int_equal(f->kind, g->kind);
    assert_true(f->flags == g->flags && f->gen == g->gen && f->lane == g->lane && f->fp == g->fp);
    assert_true(f->sid == g->sid && f->ord == g->ord && f->seq == g->seq && f->conn == g->conn);
    assert_true(f->h == g->h && f->ms == g->ms && f->us == g->us && f->reason == g->reason);
    assert_true(str_eq(f->bare, g->bare) && str_eq(f->resource, g->resource));
    assert_true(str_eq(f->text, g->text) && str_eq(f->payload, g->payload));
    assert_true(f->ack_upto == g->ack_upto);
    assert_int_equal(f->recipient_count, g->recipient_count);
    for (size_t i = 0; i < f->recipient_count; i++)
        assert_true(str_eq(f->recipients[i], g->recipients[i]));
    assert_int_equal(f->ack_range_count, g->ack_range_count);
    for (size_t i = 0; i < f->ack_range_count; i++)
        assert_true(f->ack_ranges[i] == g->ack_ranges[i]);
}

static void the_header_has_the_bytes_of_protobuf_c(void **state)
{
    for (int i = 0; i < ROUNDS; i++, arena_reset(&arena)) {
        struct frame f = any_frame();
        uint64_t n = number();
        str ours = str_skip(frame_bytes(&f, n, &arena), 2), theirs = packed_by_protobuf_c(&f, n);
        assert_int_equal(ours.n, theirs.n);
        assert_memory_equal(ours.p, theirs.p, ours.n);
    }
}

static void a_frame_comes_back_as_it_was(void **state)
{
    for (int i = 0; i < ROUNDS; i++, arena_reset(&arena)) {
        struct frame f = any_frame(), g;
        uint64_t n = number(), again;
        str b = frame_bytes(&f, n, &arena);
        assert_int_equal(frame_decode(b.p, b.n, &arena, &g, &again), ERR_OK);
        assert_true(again == n);
        assert_same(&f, &g);
    }
}

/* In a block of exactly its size. */
static err decode_copy(const char *p, size_t n, struct frame *f, uint64_t *number)
{
    char *exact = malloc(n);
    memcpy(exact, p, n);
    err e = frame_decode(exact, n, &arena, f, number);
    free(exact);
    return e;
}

static void a_plain_frame_comes_back_as_it_was_from_a_shard_of_the_same_node(void **state)
{
    for (int i = 0; i < ROUNDS; i++, arena_reset(&arena)) {
        struct frame f = any_frame(), g;
        char head[FRAME_PLAIN];
        struct iovec v[FRAME_PARTS];
        uint64_t n = number(), again;
        memset(&f.bare, 0, sizeof f - offsetof(struct frame, bare));
        assert_true(frame_is_plain(&f));
        assert_int_equal(frame_encode_plain(&f, n, head, v), 1);
        assert_int_equal(decode_copy(v[0].iov_base, v[0].iov_len, &g, &again), ERR_OK);
        assert_true(again == n && g.sent == f.sent);
        assert_same(&f, &g);
    }
}

static void a_plain_frame_that_is_cut_or_of_no_kind_is_bad(void **state)
{
    struct frame f = {.kind = FRAME_CACK, .seq = 3}, g;
    char head[FRAME_PLAIN];
    struct iovec v[FRAME_PARTS];
    uint64_t number;
    frame_encode_plain(&f, 1, head, v);
    for (size_t n = 0; n < FRAME_PLAIN; n++)
        assert_int_equal(decode_copy(head, n, &g, &number), ERR_BAD);
    f.kind = FRAME_KINDS;
    frame_encode_plain(&f, 1, head, v);
    assert_int_equal(decode_copy(head, FRAME_PLAIN, &g, &number), ERR_BAD);
    f.kind = FRAME_CLOSE, f.reason = ERR_MAX;
    frame_encode_plain(&f, 1, head, v);
    assert_int_equal(decode_copy(head, FRAME_PLAIN, &g, &number), ERR_BAD);
}

/* Header bytes in a block of exactly their size, so that a read behind them is seen. */
static err decode(str header, struct frame *f)
{
    uint64_t n;
    char *p = malloc(header.n + 2);
    p[0] = (char)header.n, p[1] = (char)(header.n >> 8);
    memcpy(p + 2, header.p, header.n);
    err e = frame_decode(p, header.n + 2, &arena, f, &n);
    free(p);
    return e;
}

static void what_a_later_version_adds_is_skipped(void **state)
{
    char b[64], *p = wire_put_number(b, 1, FRAME_CACK);
    struct frame f;
    p = wire_put_number(p, 6, 300);
    p = wire_put_number(p, 99, 1234567);
    p = wire_put_bytes(p, 100, STR("new"));
    p = wire_put_word(p, WIRE_FIXED64, 101, 7);
    p = wire_put_word(p, WIRE_FIXED32, 102, 7);
    assert_int_equal(decode(str_from(b, (size_t)(p - b)), &f), ERR_OK);
    assert_int_equal(f.seq, 300);
}

static void a_field_of_another_type_is_bad(void **state)
{
    char b[64], *p = wire_put_number(b, 1, FRAME_CACK);
    struct frame f;
    p = wire_put_bytes(p, 6, STR("300"));
    assert_int_equal(decode(str_from(b, (size_t)(p - b)), &f), ERR_BAD);
}

static void a_length_beyond_the_end_is_bad(void **state)
{
    char b[64], *p = wire_put_number(b, 1, FRAME_CACK);
    struct frame f;
    p = wire_put_varint(wire_put_tag(p, 15, WIRE_BYTES), UINT64_MAX);
    assert_int_equal(decode(str_from(b, (size_t)(p - b)), &f), ERR_BAD);
}

static void a_varint_of_eleven_bytes_is_bad(void **state)
{
    char b[64], *p = wire_put_number(b, 1, FRAME_CACK);
    struct frame f;
    p = wire_put_tag(p, 6, WIRE_VARINT);
    memset(p, 0x80, 10);
    p[10] = 0;
    assert_int_equal(decode(str_from(b, (size_t)(p + 11 - b)), &f), ERR_BAD);
}

static void a_header_cut_anywhere_is_read_no_further(void **state)
{
    for (int i = 0; i < 200; i++, arena_reset(&arena)) {
        struct frame f = any_frame(), g;
        str whole = str_skip(frame_bytes(&f, 1, &arena), 2);
        for (size_t n = 0; n < whole.n; n++)
            if (decode(str_from(whole.p, n), &g) == ERR_OK)
                assert_int_equal(g.kind, f.kind);
    }
}

static int set_up(void **state)
{
    arena_init(&arena);
    return 0;
}
static int tear_down(void **state)
{
    arena_close(&arena);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_header_has_the_bytes_of_protobuf_c),
        cmocka_unit_test(a_frame_comes_back_as_it_was),
        cmocka_unit_test(a_plain_frame_comes_back_as_it_was_from_a_shard_of_the_same_node),
        cmocka_unit_test(a_plain_frame_that_is_cut_or_of_no_kind_is_bad),
        cmocka_unit_test(what_a_later_version_adds_is_skipped),
        cmocka_unit_test(a_field_of_another_type_is_bad),
        cmocka_unit_test(a_length_beyond_the_end_is_bad),
        cmocka_unit_test(a_varint_of_eleven_bytes_is_bad),
        cmocka_unit_test(a_header_cut_anywhere_is_read_no_further),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
