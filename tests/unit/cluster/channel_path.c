/* Channels to another node, whose path breaks while both ends live: at every byte, in both
 * directions, again and again; nothing is lost, nothing comes twice, order stays. */
#include "cluster/channel.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { LOG_MAX = 2048, WIRE_MAX = 1 << 20, A_HERE = 7, B_HERE = 9 };

struct end {
    struct channels *c;
    struct end *other;
    unsigned peer; /* the number of the other */
    /* What is on its way to the other: length, bytes; so many bytes pass before the wire breaks. */
    char wire[WIRE_MAX];
    size_t wire_n, passes, passed;
    uint64_t got[LOG_MAX], settled[LOG_MAX];
    uint32_t flags[LOG_MAX];
    struct origin from[LOG_MAX];
    size_t got_n, settled_n, lost_n, done_n;
    unsigned done_one_of; /* 1: all at once; n: every n-th at once, the rest by done_rest */
    bool is_done[LOG_MAX];
    uint64_t next;
};
static struct end a, b;

static void on_frame(void *ctx, struct origin from, const struct frame *f)
{
    struct end *e = ctx;
    assert_true(e->got_n < LOG_MAX);
    e->got[e->got_n] = f->seq, e->flags[e->got_n] = f->flags;
    assert_true(f->kind == FRAME_CACK && (f->seq % 3 != 0 || str_is(f->bare, "alice@example.org")));
    e->from[e->got_n++] = from;
    if (e->done_one_of && f->seq % e->done_one_of == 0) {
        channel_done(e->c, from);
        e->is_done[e->got_n - 1] = true;
    }
}
static void on_settled(void *ctx, struct hold h, bool lost)
{
    struct end *e = ctx;
    e->settled[e->settled_n++] = h.a;
    e->lost_n += lost;
}
static void on_send(void *ctx, unsigned peer, const struct iovec *v, size_t n, bool later)
{
    struct end *e = ctx;
    uint32_t length = 0;
    assert_int_equal(peer, e->peer);
    for (size_t i = 0; i < n; i++)
        length += (uint32_t)v[i].iov_len;
    assert_true(e->wire_n + 4 + length <= WIRE_MAX);
    memcpy(e->wire + e->wire_n, &length, 4);
    e->wire_n += 4;
    for (size_t i = 0; i < n; e->wire_n += v[i++].iov_len)
        memcpy(e->wire + e->wire_n, v[i].iov_base, v[i].iov_len);
}
static void on_wake(void *ctx) {}

static void end_open(struct end *e, struct end *other, unsigned self, unsigned peer)
{
    memset(e, 0, sizeof *e);
    struct channel_sinks sinks = {e, on_frame, on_settled, on_send, on_wake};
    e->other = other, e->peer = peer, e->passes = SIZE_MAX;
    e->c = channels_new(self, self + 1, &sinks);
    channel_peer_remote(e->c, peer);
}
static int open_both(void **state)
{
    end_open(&a, &b, 2, 70000); /* numbers of their own, and beyond what was there at the start */
    end_open(&b, &a, 0, 5);
    channel_peer_up(a.c, a.peer, B_HERE), channel_peer_up(b.c, b.peer, A_HERE);
    return 0;
}
static int close_both(void **state)
{
    channels_free(a.c), channels_free(b.c);
    return 0;
}

static void send_one(struct end *e, bool keep)
{
    uint64_t n = ++e->next;
    struct frame f = {.kind = FRAME_CACK, .seq = n, .sid = 5};
    if (n % 3 == 0)
        f.bare = STR("alice@example.org");
    channel_send(e->c, e->peer, &f, (struct hold){HOLD_TICKET, n, 0}, keep);
}

/* Frames that passed whole arrive; what lies behind the break does not. */
static void deliver(struct end *e)
{
    size_t at = 0;
    while (at < e->wire_n) {
        uint32_t n;
        memcpy(&n, e->wire + at, 4);
        if (e->passed + 4 + n > e->passes)
            break;
        str bytes = {e->wire + at + 4, n};
        char *copy = malloc(n);
        memcpy(copy, bytes.p, n);
        assert_int_equal(channel_receive(e->other->c, e->other->peer, (str){copy, n}), ERR_OK);
        free(copy);
        at += 4 + n, e->passed += 4 + n;
    }
    if (at < e->wire_n)
        e->passes = e->passed; /* broken: nothing passes any more */
    e->wire_n = 0;
}
static void turn(void)
{
    channel_flush(a.c), channel_flush(b.c);
    deliver(&a), deliver(&b);
    channel_run(a.c), channel_run(b.c);
}
static void turns(int n)
{
    while (n-- > 0)
        turn();
}

static void cut(void)
{
    channel_path_down(a.c, a.peer), channel_path_down(b.c, b.peer);
    a.wire_n = b.wire_n = 0;
}
static void heal(bool tell)
{
    a.passes = b.passes = SIZE_MAX;
    channel_path_up(a.c, a.peer, B_HERE, tell ? channel_received(b.c, b.peer) : 0);
    channel_path_up(b.c, b.peer, A_HERE, tell ? channel_received(a.c, a.peer) : 0);
}
static void done_rest(struct end *e)
{
    for (size_t i = 0; i < e->got_n; i++)
        if (!e->is_done[i]) {
            channel_done(e->c, e->from[i]);
            e->is_done[i] = true;
        }
}
static void assert_once_and_in_order(const struct end *e, uint64_t n)
{
    assert_int_equal(e->got_n, n);
    for (uint64_t i = 0; i < n; i++)
        assert_int_equal(e->got[i], i + 1);
}
static void assert_all_settled(const struct end *e, uint64_t n)
{
    bool seen[LOG_MAX] = {false};
    assert_int_equal(e->settled_n, n);
    assert_int_equal(e->lost_n, 0);
    for (uint64_t i = 0; i < n; i++) {
        assert_true(e->settled[i] >= 1 && e->settled[i] <= n && !seen[e->settled[i]]);
        seen[e->settled[i]] = true;
    }
    assert_int_equal(channel_unacked(e->c), 0);
}

/* Both sides send, answer and are cut off after so many bytes each way; then more, then healing. */
static size_t dialogue(size_t a_passes, size_t b_passes, bool tell)
{
    open_both(NULL);
    a.done_one_of = 2, b.done_one_of = 3;
    heal(false);
    a.passes = a_passes, b.passes = b_passes;
    for (int i = 0; i < 6; i++) {
        send_one(&a, i % 2), send_one(&a, false), send_one(&b, i % 3 == 0);
        turn();
    }
    size_t bytes = a.passed;
    cut();
    for (int i = 0; i < 4; i++)
        send_one(&a, i % 2), send_one(&b, i % 2);
    turn();
    heal(tell);
    turns(3);
    assert_once_and_in_order(&b, 16);
    assert_once_and_in_order(&a, 10);
    send_one(&a, false);
    turns(2);
    done_rest(&a), done_rest(&b);
    turns(3);
    assert_once_and_in_order(&b, 17);
    assert_all_settled(&a, 17), assert_all_settled(&b, 10);
    close_both(NULL);
    return bytes;
}

static void a_path_that_breaks_at_every_byte_loses_nothing_and_repeats_nothing(void **state)
{
    size_t whole = dialogue(SIZE_MAX, SIZE_MAX, false);
    assert_true(whole > 200);
    for (size_t i = 0; i <= whole; i++) {
        dialogue(i, SIZE_MAX, i % 2);
        dialogue(SIZE_MAX, i, i % 2);
        dialogue(i, (i * 7) % whole, i % 2);
        dialogue((i * 11) % whole, i, i % 2);
    }
}

static void it_may_break_at_random_again_and_again(void **state)
{
    for (unsigned seed = 1; seed <= 200; seed++) {
        srand(seed);
        open_both(NULL);
        a.done_one_of = 1 + seed % 3, b.done_one_of = 1 + seed % 2;
        heal(false);
        for (int i = 0; i < 200; i++) {
            switch (rand() % 8) {
            case 0: send_one(&b, rand() % 2); break;
            case 1: a.passes = a.passed + (size_t)rand() % 100; break;
            case 2: b.passes = b.passed + (size_t)rand() % 100; break;
            case 3: cut(), heal(rand() % 2); break;
            case 4: done_rest(rand() % 2 ? &a : &b); break;
            case 5: turn(); break;
            default: send_one(&a, rand() % 2); break;
            }
        }
        cut(), heal(seed % 2);
        turns(3);
        done_rest(&a), done_rest(&b);
        turns(4);
        assert_once_and_in_order(&b, a.next), assert_once_and_in_order(&a, b.next);
        assert_all_settled(&a, a.next), assert_all_settled(&b, b.next);
        close_both(NULL);
    }
}

static void before_the_path_is_up_frames_wait(void **state)
{
    for (int i = 0; i < 5; i++)
        send_one(&a, false);
    turns(2);
    assert_int_equal(b.got_n, 0);
    heal(false);
    turns(2);
    assert_once_and_in_order(&b, 5);
    assert_int_equal(b.flags[0] & FRAME_AGAIN, 0); /* to the same incarnation: it is no news */
}

static void an_ack_that_was_lost_is_told_again(void **state)
{
    heal(false);
    for (int i = 0; i < 4; i++)
        send_one(&a, false);
    turns(1);
    b.passes = b.passed;          /* from here on b is not heard */
    channel_done(b.c, b.from[2]); /* a range, not the first */
    b.is_done[2] = true;
    turns(2);
    assert_int_equal(a.settled_n, 0);
    b.passes = SIZE_MAX;
    channel_path_down(b.c, b.peer);
    channel_path_up(b.c, b.peer, A_HERE, 0);
    turns(2);
    assert_int_equal(a.settled_n, 1);
    assert_int_equal(a.settled[0], 3);
    done_rest(&b);
    turns(2);
    assert_all_settled(&a, 4);
}

static void behind_a_gap_the_peer_is_asked_to_send_again(void **state)
{
    heal(false);
    send_one(&a, false), send_one(&a, true);
    a.wire_n = 0; /* somebody on the way dropped them, and nobody knows */
    send_one(&a, false);
    turns(4);
    assert_once_and_in_order(&b, 3);
    for (int i = 0; i < 10; i++)
        send_one(&a, false);
    turns(2);
    assert_once_and_in_order(&b, 13);
}

static void what_was_dropped_before_it_was_known_comes_when_it_is_asked_for(void **state)
{
    heal(false);
    send_one(&a, false), send_one(&a, true);
    a.wire_n = 0;
    turns(2);
    assert_int_equal(b.got_n, 0); /* nobody sends anything more by which the gap would be seen */
    channel_missed(b.c, b.peer);
    turns(2);
    assert_once_and_in_order(&b, 2);
}

static void what_the_peer_has_received_does_not_go_again(void **state)
{
    heal(false);
    for (int i = 0; i < 100; i++)
        send_one(&a, true);
    turns(2); /* received, not done */
    cut(), heal(false);
    assert_int_equal(a.wire_n, 0);
    send_one(&a, true);
    assert_true(a.wire_n < 64);
    turns(2);
    assert_once_and_in_order(&b, 101);
}

static void a_dead_incarnation_ends_the_channel_and_kept_frames_go_to_the_next(void **state)
{
    heal(false);
    for (int i = 0; i < 6; i++)
        send_one(&a, i % 2);
    turns(2);
    channel_path_down(a.c, a.peer);
    for (int i = 0; i < 4; i++)
        send_one(&a, i % 2);
    channel_peer_down(a.c, a.peer);
    channel_run(a.c);
    assert_int_equal(a.settled_n, 5); /* those that were not to be kept */
    assert_int_equal(a.lost_n, 5);
    send_one(&a, true);
    channels_free(b.c); /* another b, that knows nothing */
    end_open(&b, &a, 0, 5);
    channel_peer_up(b.c, b.peer, A_HERE);
    channel_peer_up(a.c, a.peer, B_HERE + 1);
    assert_int_equal(a.wire_n, 0);
    channel_path_up(a.c, a.peer, B_HERE, 0); /* the dead one's path is nobody's */
    assert_int_equal(a.wire_n, 0);
    channel_path_up(a.c, a.peer, B_HERE + 1, 0);
    channel_path_up(b.c, b.peer, A_HERE, 0);
    turns(2);
    static const uint64_t kept[] = {2, 4, 6, 8, 10, 11};
    assert_int_equal(b.got_n, array_len(kept));
    for (size_t i = 0; i < array_len(kept); i++) {
        assert_int_equal(b.got[i], kept[i]);
        assert_int_equal(b.flags[i] & FRAME_AGAIN, FRAME_AGAIN);
    }
    done_rest(&b);
    turns(2);
    assert_int_equal(a.settled_n, 11);
    assert_int_equal(a.lost_n, 5);
}

static void what_no_peer_sends_does_no_harm(void **state)
{
    struct arena arena;
    arena_init(&arena);
    heal(false);
    for (int i = 0; i < 3; i++)
        send_one(&a, i % 2);
    turns(1);
    static const uint64_t far[] = {9, 1ull << 40, UINT64_MAX, UINT64_MAX - 1};
    struct frame f = {.kind = FRAME_ACK, .ack_ranges = far, .ack_range_count = 4};
    for (int i = 0; i < 2; i++) { /* acks and receipts of what was never sent */
        f.ack_upto = i ? UINT64_MAX : 1;
        assert_int_equal(channel_receive(a.c, a.peer, frame_bytes(&f, far[i + 1], &arena)), ERR_OK);
    }
    struct frame zero = {.kind = FRAME_CACK};
    assert_int_equal(channel_receive(a.c, a.peer, frame_bytes(&zero, 0, &arena)), ERR_BAD);
    assert_int_equal(channel_receive(a.c, a.peer, frame_bytes(&zero, 77, &arena)), ERR_OK);
    assert_int_equal(a.got_n, 0);
    send_one(&a, false);
    turns(2);
    assert_once_and_in_order(&b, 4);
    arena_close(&arena);
}

#define T(f) cmocka_unit_test_setup_teardown(f, open_both, close_both)
int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_path_that_breaks_at_every_byte_loses_nothing_and_repeats_nothing),
        cmocka_unit_test(it_may_break_at_random_again_and_again),
        T(before_the_path_is_up_frames_wait),
        T(an_ack_that_was_lost_is_told_again),
        T(behind_a_gap_the_peer_is_asked_to_send_again),
        T(what_was_dropped_before_it_was_known_comes_when_it_is_asked_for),
        T(what_the_peer_has_received_does_not_go_again),
        T(a_dead_incarnation_ends_the_channel_and_kept_frames_go_to_the_next),
        T(what_no_peer_sends_does_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
