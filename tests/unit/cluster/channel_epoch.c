/* Channels of a cluster: epochs, what waits for them, what is taken back. */
#include "cluster/channel.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "pemberley/list.h"

enum { LOG_MAX = 256, REMOTE = 64 };

struct packet {
    struct list link;
    size_t n;
    char data[];
};

/* Two ends, of which each is peer REMOTE for the other, with a wire each way. */
struct end {
    struct channels *c;
    struct end *other;
    struct list wire; /* to the other */
    struct {
        struct origin from;
        uint64_t seq, epoch, by; /* by: channel_epoch */
        uint32_t flags;
        enum frame_kind kind;
    } got[LOG_MAX];
    size_t got_n;
    uint64_t settled[LOG_MAX];
    size_t settled_n;
    bool does; /* each frame is done as it comes */
};
static struct end a, b;

static void on_frame(void *ctx, struct origin from, const struct frame *f)
{
    struct end *e = ctx;
    assert_true(e->got_n < LOG_MAX);
    e->got[e->got_n].from = from;
    e->got[e->got_n].seq = f->seq;
    e->got[e->got_n].epoch = f->ms;
    e->got[e->got_n].by = channel_epoch(e->c, from.peer);
    e->got[e->got_n].flags = f->flags;
    e->got[e->got_n++].kind = f->kind;
    if (e->does || f->kind == FRAME_EPOCH)
        channel_done(e->c, from);
}
static void on_settled(void *ctx, struct hold h, bool lost)
{
    struct end *e = ctx;
    assert_false(lost);
    e->settled[e->settled_n++] = h.a;
}
static void on_send(void *ctx, unsigned peer, const struct iovec *v, size_t n, bool later)
{
    struct end *e = ctx;
    size_t all = 0;
    for (size_t i = 0; i < n; i++)
        all += v[i].iov_len;
    struct packet *p = malloc(sizeof *p + all);
    assert_non_null(p);
    p->n = 0;
    for (size_t i = 0; i < n; p->n += v[i++].iov_len)
        memcpy(p->data + p->n, v[i].iov_base, v[i].iov_len);
    list_push_back(&e->wire, &p->link);
}
static void on_wake(void *ctx) {}

static void end_open(struct end *e, struct end *other)
{
    memset(e, 0, sizeof *e);
    e->other = other;
    list_init(&e->wire);
    struct channel_sinks sinks = {e, on_frame, on_settled, on_send, on_wake};
    e->c = channels_new(0, 1, &sinks);
    channel_peer_remote(e->c, REMOTE);
}

static void lose_wire(struct end *e)
{
    list_each(p, &e->wire, struct packet, link) {
        list_remove(&p->link);
        free(p);
    }
}

static void deliver(struct end *from)
{
    while (!list_empty(&from->wire)) {
        struct packet *p = list_first(&from->wire, struct packet, link);
        list_remove(&p->link);
        assert_int_equal(channel_receive(from->other->c, REMOTE, str_from(p->data, p->n)), ERR_OK);
        free(p);
    }
}

/* All that goes of itself. */
static void run(void)
{
    for (int i = 0; i < 4; i++) {
        channel_run(a.c), channel_run(b.c);
        channel_flush(a.c), channel_flush(b.c);
        deliver(&a), deliver(&b);
    }
}

static int open_both(void **state)
{
    end_open(&a, &b), end_open(&b, &a);
    channel_adopt(a.c, 5, STR_NONE), channel_adopt(b.c, 5, STR_NONE);
    channel_peer_up(a.c, REMOTE, 7), channel_peer_up(b.c, REMOTE, 7);
    channel_path_up(a.c, REMOTE, 7, 0), channel_path_up(b.c, REMOTE, 7, 0);
    run();
    a.got_n = b.got_n = 0;
    return 0;
}
static int close_both(void **state)
{
    lose_wire(&a), lose_wire(&b);
    channels_free(a.c), channels_free(b.c);
    return 0;
}

static void send_to(struct end *e, unsigned peer, uint64_t n)
{
    struct frame f = {.kind = FRAME_IN, .seq = n, .sid = 5};
    channel_send(e->c, peer, &f, (struct hold){HOLD_TICKET, n, 0}, true);
}
static void send_n(uint64_t n) { send_to(&a, REMOTE, n); }

static void a_peer_is_told_the_epoch_first_and_judged_by_it(void **state)
{
    send_n(1);
    channel_adopt(a.c, 6, STR("lost"));
    channel_adopt(b.c, 6, STR_NONE);
    send_n(2);
    run();
    assert_int_equal(b.got_n, 3);
    assert_int_equal(b.got[0].by, 5);
    assert_int_equal(b.got[1].kind, FRAME_EPOCH);
    assert_int_equal(b.got[1].epoch, 6);
    assert_int_equal(b.got[2].by, 6);
    assert_int_equal(channel_epoch(b.c, 0), 6);
    channel_peer_down(b.c, REMOTE);
    channel_peer_up(b.c, REMOTE, 8);
    channel_path_up(b.c, REMOTE, 8, 0);
    struct packet *first = list_first(&b.wire, struct packet, link);
    struct arena arena;
    struct frame f;
    uint64_t number;
    arena_init(&arena);
    assert_int_equal(frame_decode(first->data, first->n, &arena, &f, &number), ERR_OK);
    assert_int_equal(f.kind, FRAME_EPOCH);
    assert_int_equal(f.ms, 6);
    arena_close(&arena);
}

static void what_is_ahead_waits_in_order_until_its_epoch_is_adopted(void **state)
{
    send_n(1);
    channel_adopt(a.c, 6, STR_NONE);
    send_n(2), send_n(3);
    channel_adopt(a.c, 8, STR_NONE);
    send_n(4);
    run();
    assert_int_equal(b.got_n, 1);
    channel_adopt(b.c, 7, STR_NONE); /* one that a has skipped */
    assert_int_equal(b.got_n, 1);    /* not before it runs */
    run();
    assert_int_equal(b.got_n, 4);
    assert_int_equal(b.got[1].epoch, 6);
    assert_int_equal(b.got[2].seq, 2);
    assert_int_equal(b.got[3].seq, 3);
    assert_int_equal(b.got[3].by, 6);
    channel_adopt(b.c, 8, STR_NONE);
    run();
    assert_int_equal(b.got_n, 6);
    assert_int_equal(b.got[5].seq, 4);
    assert_int_equal(b.got[5].by, 8);
}

/* Who acks by the next epoch may have dropped it: its home is another. */
static void an_ack_by_an_epoch_that_is_ahead_is_not_heard_before(void **state)
{
    b.does = true;
    send_n(1);
    channel_adopt(b.c, 6, STR_NONE);
    run();
    assert_int_equal(b.got_n, 1);
    assert_int_equal(a.settled_n, 0);
    channel_adopt(a.c, 6, STR_NONE);
    run();
    assert_int_equal(a.settled_n, 1);
    assert_int_equal(channel_unacked(a.c), 0);
}

static void what_waits_goes_with_its_peer_and_comes_again_by_number(void **state)
{
    channel_adopt(a.c, 6, STR_NONE);
    send_n(1), send_n(2);
    run();
    channel_path_down(a.c, REMOTE);
    channel_path_up(a.c, REMOTE, 7, 0); /* nobody has acked: all goes again */
    run();
    assert_int_equal(b.got_n, 0);
    channel_adopt(b.c, 6, STR_NONE);
    run();
    assert_int_equal(b.got_n, 3);
    assert_int_equal(b.got[2].seq, 2);
    channel_adopt(a.c, 7, STR_NONE);
    send_n(3);
    run();
    channel_peer_down(b.c, REMOTE);
    channel_adopt(b.c, 7, STR_NONE);
    run();
    assert_int_equal(b.got_n, 3);
}

/* ---- taking back ---- */

struct back {
    uint64_t seq[LOG_MAX], hold[LOG_MAX];
    unsigned peer[LOG_MAX];
    uint32_t flags[LOG_MAX];
    enum channel_fate fate[LOG_MAX];
    size_t n;
};
static enum channel_fate odd_go_fours_part(void *ctx, unsigned peer, const struct frame *f)
{
    return f->seq % 2 ? CHANNEL_GOES : f->seq % 4 ? CHANNEL_STAYS : CHANNEL_PARTS;
}
static void on_again(void *ctx, unsigned peer, const struct frame *f, struct hold h,
                     enum channel_fate fate)
{
    struct back *k = ctx;
    k->seq[k->n] = f->seq, k->hold[k->n] = h.a;
    k->flags[k->n] = f->flags, k->fate[k->n++] = fate;
    if (fate == CHANNEL_GOES)
        channel_send(a.c, 0, f, h, true); /* to the own shard */
}

static void what_was_sent_to_a_former_home_is_taken_back_in_order_and_void_there(void **state)
{
    struct back back = {.n = 0};
    for (uint64_t i = 1; i <= 5; i++)
        send_n(i);
    deliver(&a);
    channel_take_back(a.c, odd_go_fours_part, on_again, &back);
    assert_int_equal(back.n, 4);
    assert_int_equal(back.seq[0], 1);
    assert_int_equal(back.seq[1], 3);
    assert_int_equal(back.seq[2], 4);
    assert_int_equal(back.seq[3], 5);
    assert_int_equal(back.hold[3], 5);
    assert_int_equal(back.fate[2], CHANNEL_PARTS);
    assert_true(back.flags[0] & FRAME_AGAIN);
    for (size_t i = 0; i < b.got_n; i++)
        channel_done(b.c, b.got[i].from); /* of the old home it means nothing any more */
    channel_flush(b.c);
    deliver(&b);
    channel_run(a.c);
    assert_int_equal(a.settled_n, 2); /* 2 and 4, which stayed */
    assert_int_equal(a.got_n, 3);
    for (size_t i = 0; i < a.got_n; i++)
        channel_done(a.c, a.got[i].from);
    channel_run(a.c);
    assert_int_equal(a.settled_n, 5);
    assert_int_equal(channel_unacked(a.c), 0);
}

/* Its number is owed to the peer, whose channel would stop at the gap. */
static void a_void_number_that_its_peer_has_not_got_goes_again_on_a_new_path(void **state)
{
    struct back back = {.n = 0};
    send_n(1), send_n(2);
    lose_wire(&a);
    channel_path_down(a.c, REMOTE);
    channel_take_back(a.c, odd_go_fours_part, on_again, &back);
    assert_int_equal(back.n, 1);
    channel_path_up(a.c, REMOTE, 7, channel_received(b.c, REMOTE));
    b.does = true;
    run();
    assert_int_equal(b.got_n, 2);
    assert_int_equal(b.got[0].seq, 1);
    assert_int_equal(a.settled_n, 1);
    assert_int_equal(a.settled[0], 2);
}

static void what_waits_for_a_peer_that_is_down_is_taken_back_too(void **state)
{
    struct back back = {.n = 0};
    channel_peer_down(a.c, REMOTE);
    send_n(1), send_n(2);
    channel_take_back(a.c, odd_go_fours_part, on_again, &back);
    assert_int_equal(back.n, 1);
    assert_int_equal(back.seq[0], 1);
    channel_peer_up(a.c, REMOTE, 8);
    channel_peer_down(b.c, REMOTE);
    channel_peer_up(b.c, REMOTE, 8);
    channel_path_up(a.c, REMOTE, 8, 0);
    deliver(&a);
    assert_int_equal(b.got_n, 2);
    assert_int_equal(b.got[0].kind, FRAME_EPOCH);
    assert_int_equal(b.got[1].seq, 2);
    lose_wire(&b);
}

static enum channel_fate all_go(void *ctx, unsigned peer, const struct frame *f)
{
    return CHANNEL_GOES;
}
static void on_again_there(void *ctx, unsigned peer, const struct frame *f, struct hold h,
                           enum channel_fate fate)
{
    struct back *k = ctx;
    k->seq[k->n++] = f->seq;
    channel_send(a.c, REMOTE, f, h, true);
}

/* One that was run and is open, one that is done, one that has not been run. */
static void frames_to_the_own_shard_live_until_they_are_done(void **state)
{
    struct back back = {.n = 0};
    send_to(&a, 0, 1), send_to(&a, 0, 2);
    channel_run(a.c);
    channel_done(a.c, a.got[0].from);
    channel_run(a.c);
    assert_int_equal(a.settled_n, 1);
    send_to(&a, 0, 3);
    channel_take_back(a.c, all_go, on_again_there, &back);
    assert_int_equal(back.n, 2);
    assert_int_equal(back.seq[0], 2);
    assert_int_equal(back.seq[1], 3);
    channel_run(a.c);
    assert_int_equal(a.got_n, 2); /* 3 was not run here */
    channel_done(a.c, a.got[1].from);
    channel_run(a.c);
    assert_int_equal(a.settled_n, 1);
    b.does = true;
    run();
    assert_int_equal(a.settled_n, 3);
    assert_int_equal(channel_unacked(a.c), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_both, close_both)
    const struct CMUnitTest tests[] = {
        TEST(a_peer_is_told_the_epoch_first_and_judged_by_it),
        TEST(what_is_ahead_waits_in_order_until_its_epoch_is_adopted),
        TEST(an_ack_by_an_epoch_that_is_ahead_is_not_heard_before),
        TEST(what_waits_goes_with_its_peer_and_comes_again_by_number),
        TEST(what_was_sent_to_a_former_home_is_taken_back_in_order_and_void_there),
        TEST(a_void_number_that_its_peer_has_not_got_goes_again_on_a_new_path),
        TEST(what_waits_for_a_peer_that_is_down_is_taken_back_too),
        TEST(frames_to_the_own_shard_live_until_they_are_done),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
