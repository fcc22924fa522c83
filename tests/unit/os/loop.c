/* The loop, over both implementations: each test runs twice. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "node/os/os.h"

enum { TURNS_MAX = 200000 };

static const enum loop_choice choices[] = {LOOP_URING, LOOP_EPOLL};

static int setup(void **state)
{
    struct loop_fault fault;
    struct loop_config c = {.choice = *(const enum loop_choice *)*state, .wake_fd = -1};
    struct loop *l = NULL;
    err e = loop_new(&c, &fault, &l);
    if (e)
        fail_msg("%s: %s", fault.feature, strerror(fault.error));
    *state = l;
    return 0;
}

static int teardown(void **state)
{
    loop_close(*state);
    return 0;
}

/* Turns until the condition holds; the bound is of turns, so that a lost completion fails. */
#define turn_until(l, condition) \
    do { \
        int turns_ = 0; \
        while (!(condition)) { \
            assert_true(turns_++ < TURNS_MAX); \
            loop_turn((l), 100); \
        } \
    } while (0)

static void stream_pair(int fds[2])
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
}

static int listener(struct sockaddr_in *address)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    socklen_t n = sizeof *address;
    *address =
        (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)address, sizeof *address), 0);
    assert_int_equal(listen(fd, 1024), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)address, &n), 0);
    return fd;
}

static int dial(const struct sockaddr_in *address)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)address, sizeof *address), 0);
    return fd;
}

/* ---- a receiver that remembers --------------------------------------------------------------- */

struct sink {
    struct recv_op recv;
    struct loop *loop;
    size_t bytes, turn_bytes_max, turn_bytes;
    uint64_t turn, last_turn;
    int done, res;
    size_t stop_after;
};

static void sink_data(struct recv_op *r, const char *p, size_t n)
{
    struct sink *s = container_of(r, struct sink, recv);
    uint64_t turn = loop_stats(s->loop)->turns;
    for (size_t i = 0; i < n; i++)
        assert_int_equal((unsigned char)p[i], (unsigned char)((s->bytes + i) * 31 >> 3));
    if (turn != s->turn)
        s->turn = turn, s->turn_bytes = 0;
    s->turn_bytes += n;
    s->last_turn = turn;
    if (s->turn_bytes > s->turn_bytes_max)
        s->turn_bytes_max = s->turn_bytes;
    s->bytes += n;
    if (s->stop_after && s->bytes >= s->stop_after)
        loop_recv_stop(s->loop, r);
}

static void sink_done(struct op *op, int res)
{
    struct sink *s = container_of(op, struct sink, recv.op);
    s->done++;
    s->res = res;
}

static void sink_start(struct sink *s, struct loop *l, int fd)
{
    s->recv.op.done = sink_done;
    s->recv.data = sink_data;
    s->loop = l;
    loop_recv(l, &s->recv, fd);
}

static void pattern(char *p, size_t n, size_t from)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (char)(unsigned char)((from + i) * 31 >> 3);
}

struct sender {
    struct send_op send;
    int done, res;
};

static void sender_done(struct op *op, int res)
{
    struct sender *s = container_of(op, struct sender, send.op);
    s->done++;
    s->res = res;
}

/* ---- echo over transports -------------------------------------------------------------------- */

struct echo {
    struct loop *loop;
    struct accept_op accept;
    int listen_fd, open, closed, accepts;
    bool stop;
};
struct echo_conn {
    struct echo *echo;
    char out[4096];
    size_t n;
    bool ended;
};

static void echo_bytes(struct transport *t, const char *p, size_t n)
{
    struct echo_conn *c = t->owner;
    assert_true(c->n + n <= sizeof c->out);
    memcpy(c->out + c->n, p, n);
    c->n += n;
    transport_pause(t);
    struct iovec iov = {c->out, c->n};
    assert_int_equal(transport_write(t, &iov, 1), c->n);
}
static void echo_written(struct transport *t)
{
    struct echo_conn *c = t->owner;
    c->n = 0;
    transport_resume(t);
}
static void echo_ended(struct transport *t) { transport_close(t, true); }
static void echo_closed(struct transport *t, err reason)
{
    struct echo_conn *c = t->owner;
    assert_int_equal(reason, ERR_OK);
    c->echo->closed++;
    transport_free(t);
    free(c);
}
static const struct transport_sink echo_sink = {
    .bytes = echo_bytes, .written = echo_written, .ended = echo_ended, .closed = echo_closed};

static void echo_accepted(struct op *op, int res)
{
    struct echo *e = container_of(op, struct echo, accept.op);
    e->accepts++;
    if (res == -ECANCELED)
        return;
    assert_true(res >= 0);
    assert_int_equal(((struct sockaddr_in *)&e->accept.address)->sin_addr.s_addr,
                     htonl(INADDR_LOOPBACK));
    struct echo_conn *c = calloc(1, sizeof *c);
    c->echo = e;
    e->open++;
    sock_transport_open(e->loop, res, &e->accept.address, &echo_sink, c);
    loop_accept(e->loop, &e->accept, e->listen_fd);
}

static void a_thousand_connections_get_their_bytes_back(void **state)
{
    enum { CONNS = 1000 };
    struct loop *l = *state;
    struct sockaddr_in address;
    struct echo e = {
        .loop = l, .listen_fd = listener(&address), .accept = {.op = {.done = echo_accepted}}};
    static int fds[CONNS];
    loop_accept(l, &e.accept, e.listen_fd);
    for (int i = 0; i < CONNS; i++) {
        fds[i] = dial(&address);
        loop_turn(l, 0);
    }
    turn_until(l, e.open == CONNS);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < CONNS; i++) {
            char m[64];
            int n = snprintf(m, sizeof m, "conn %d round %d", i, round);
            assert_int_equal(send(fds[i], m, (size_t)n, 0), n);
        }
        for (int i = 0; i < CONNS; i++) {
            char m[64], got[64];
            int n = snprintf(m, sizeof m, "conn %d round %d", i, round), have = 0;
            while (have < n) {
                ssize_t r = recv(fds[i], got + have, sizeof got - (size_t)have, MSG_DONTWAIT);
                if (r > 0)
                    have += (int)r;
                else
                    loop_turn(l, 100);
            }
            assert_memory_equal(m, got, (size_t)n);
        }
    }
    for (int i = 0; i < CONNS; i++)
        close(fds[i]);
    turn_until(l, e.closed == CONNS);
    loop_accept_stop(l, &e.accept);
    turn_until(l, e.accepts == CONNS + 1);
    close(e.listen_fd);
}

/* ---- receiving ------------------------------------------------------------------------------- */

/* Fills the socket without blocking; returns how much it took. */
static size_t fill(int fd, size_t from)
{
    static char chunk[16384];
    size_t sent = 0;
    for (;;) {
        pattern(chunk, sizeof chunk, from + sent);
        ssize_t r = send(fd, chunk, sizeof chunk, MSG_DONTWAIT);
        if (r <= 0)
            return sent;
        sent += (size_t)r;
    }
}

static void stopped_reading_leaves_the_rest_in_the_socket(void **state)
{
    struct loop *l = *state;
    int fds[2];
    stream_pair(fds);
    struct sink s = {.stop_after = 1};
    sink_start(&s, l, fds[0]);
    size_t sent = fill(fds[1], 0);
    turn_until(l, s.done);
    assert_int_equal(s.res, -ECANCELED);
    assert_true(s.bytes > 0);
    size_t before = s.bytes;
    sent += fill(fds[1], sent);
    assert_true(before < sent);
    for (int i = 0; i < 20; i++)
        loop_turn(l, 0);
    assert_int_equal(s.bytes, before);

    s.stop_after = 0;
    sink_start(&s, l, fds[0]);
    turn_until(l, s.bytes == sent);
    close(fds[1]);
    turn_until(l, s.done == 2);
    assert_int_equal(s.res, 0);
    close(fds[0]);
}

/* A peer over TCP whose full socket is filled again by each receive: the kernel acknowledges from
 * inside it. */
static void a_stopped_receive_brings_no_more_than_a_share_however_fast_the_peer(void **state)
{
    enum { ROUNDS = 6 };
    struct loop *l = *state;
    struct sockaddr_in address;
    int listen_fd = listener(&address), peer = dial(&address), fd = accept(listen_fd, NULL, NULL);
    struct sink s = {0};
    size_t sent = 0;
    for (int i = 0; i < ROUNDS; i++) {
        size_t before = s.bytes;
        sent += fill(peer, sent);
        assert_true(sent - before > 4 * LOOP_RECV_MAX);
        s.stop_after = before + 1;
        sink_start(&s, l, fd);
        turn_until(l, s.done > i);
        assert_int_equal(s.res, -ECANCELED);
        assert_true(s.bytes > before);
        assert_true(s.bytes - before <= LOOP_RECV_MAX);
    }
    s.stop_after = 0;
    sink_start(&s, l, fd);
    turn_until(l, s.bytes == sent);
    close(peer);
    turn_until(l, s.done == ROUNDS + 1);
    assert_int_equal(s.res, 0);
    close(fd), close(listen_fd);
}

static void no_connection_gets_more_than_its_share_of_a_turn(void **state)
{
    struct loop *l = *state;
    int greedy[2], modest[2], big = 4 << 20;
    stream_pair(greedy);
    stream_pair(modest);
    setsockopt(greedy[1], SOL_SOCKET, SO_SNDBUFFORCE, &big, sizeof big);
    struct sink g = {0}, m = {0};
    size_t sent = fill(greedy[1], 0);
    assert_true(sent > 128 * 1024);
    char one[1];
    pattern(one, 1, 0);
    assert_int_equal(send(modest[1], one, 1, 0), 1);
    sink_start(&g, l, greedy[0]);
    sink_start(&m, l, modest[0]);
    turn_until(l, m.bytes == 1);
    assert_true(g.bytes < sent); /* the modest one did not wait for all of the greedy one's */
    turn_until(l, g.bytes == sent);
    assert_true(g.turn_bytes_max <= LOOP_RECV_MAX);
    assert_true(g.last_turn > m.last_turn);
    close(greedy[1]), close(modest[1]);
    turn_until(l, g.done && m.done);
    close(greedy[0]), close(modest[0]);
}

static void many_full_sockets_lose_nothing_when_buffers_run_out(void **state)
{
    enum { N = 40 };
    struct loop *l = *state;
    int fds[N][2];
    struct sink s[N];
    size_t sent[N];
    memset(s, 0, sizeof s);
    for (int i = 0; i < N; i++) {
        stream_pair(fds[i]);
        sent[i] = fill(fds[i][1], 0);
        close(fds[i][1]);
        sink_start(&s[i], l, fds[i][0]);
    }
    for (int i = 0; i < N; i++) {
        turn_until(l, s[i].done);
        assert_int_equal(s[i].res, 0);
        assert_int_equal(s[i].bytes, sent[i]);
        close(fds[i][0]);
    }
}

static void stopping_at_once_after_starting_ends_cancelled(void **state)
{
    struct loop *l = *state;
    int fds[2];
    stream_pair(fds);
    struct sink s = {0};
    sink_start(&s, l, fds[0]);
    loop_recv_stop(l, &s.recv);
    loop_recv_stop(l, &s.recv);
    assert_int_equal(s.done, 0); /* never from inside */
    turn_until(l, s.done);
    assert_int_equal(s.res, -ECANCELED);
    for (int i = 0; i < 5; i++)
        loop_turn(l, 0);
    assert_int_equal(s.done, 1);
    close(fds[0]), close(fds[1]);
}

/* ---- sending --------------------------------------------------------------------------------- */

static void a_send_larger_than_the_socket_completes_once_and_whole(void **state)
{
    enum { BYTES = 3 << 20 };
    struct loop *l = *state;
    int fds[2];
    stream_pair(fds);
    char *p = malloc(BYTES);
    pattern(p, BYTES, 0);
    struct iovec iov[3] = {{p, 1}, {p + 1, BYTES / 2}, {p + 1 + BYTES / 2, BYTES / 2 - 1}};
    struct sender out = {.send = {.op = {.done = sender_done}}};
    struct sink in = {0};
    loop_send(l, &out.send, fds[1], iov, 3);
    for (int i = 0; i < 10; i++)
        loop_turn(l, 0);
    assert_int_equal(out.done, 0);
    sink_start(&in, l, fds[0]);
    turn_until(l, out.done && in.bytes == BYTES);
    assert_int_equal(out.res, BYTES);
    assert_int_equal(out.done, 1);
    close(fds[1]);
    turn_until(l, in.done);
    close(fds[0]);
    free(p);
}

static void a_send_to_a_closed_peer_fails_without_a_signal(void **state)
{
    struct loop *l = *state;
    int fds[2];
    stream_pair(fds);
    close(fds[0]);
    struct iovec iov = {"x", 1};
    struct sender out = {.send = {.op = {.done = sender_done}}};
    loop_send(l, &out.send, fds[1], &iov, 1);
    assert_int_equal(out.done, 0);
    turn_until(l, out.done);
    assert_int_equal(out.res, -EPIPE);
    close(fds[1]);
}

/* ---- transports: closing --------------------------------------------------------------------- */

struct end {
    size_t bytes;
    int written, ended, closed;
    err reason;
};
static void end_bytes(struct transport *t, const char *p, size_t n)
{
    ((struct end *)t->owner)->bytes += n;
}
static void end_written(struct transport *t) { ((struct end *)t->owner)->written++; }
static void end_ended(struct transport *t) { ((struct end *)t->owner)->ended++; }
static void end_closed(struct transport *t, err reason)
{
    struct end *e = t->owner;
    e->closed++;
    e->reason = reason;
}
static const struct transport_sink end_sink = {
    .bytes = end_bytes, .written = end_written, .ended = end_ended, .closed = end_closed};

static bool has_eof(int fd)
{
    char c;
    ssize_t r;
    while ((r = recv(fd, &c, 1, MSG_DONTWAIT)) > 0)
        ;
    return r == 0;
}

static void a_graceful_close_sends_all_then_fin_then_waits_for_the_peer(void **state)
{
    enum { BYTES = 2 << 20 };
    struct loop *l = *state;
    struct sockaddr_in address;
    int listen_fd = listener(&address), peer = dial(&address), fd = accept(listen_fd, NULL, NULL);
    struct end e = {0};
    struct transport *t = sock_transport_open(l, fd, NULL, &end_sink, &e);
    char *p = calloc(1, BYTES), got[65536];
    struct iovec iov = {p, BYTES};
    assert_int_equal(transport_write(t, &iov, 1), BYTES);
    transport_close(t, true);
    size_t have = 0;
    for (int i = 0; i < TURNS_MAX && have < BYTES; i++) {
        ssize_t r = recv(peer, got, sizeof got, MSG_DONTWAIT);
        assert_int_not_equal(r, 0);
        have += r > 0 ? (size_t)r : 0;
        loop_turn(l, 1);
    }
    assert_int_equal(have, BYTES);
    turn_until(l, has_eof(peer));
    assert_int_equal(send(peer, "late", 4, 0), 4);
    for (int i = 0; i < 5; i++)
        loop_turn(l, 1);
    assert_int_equal(e.closed, 0);
    close(peer);
    turn_until(l, e.closed);
    assert_int_equal(e.reason, ERR_OK);
    assert_int_equal(e.bytes, 0);
    assert_int_equal(e.ended, 0);
    assert_int_equal(fcntl(fd, F_GETFD), -1);
    transport_free(t);
    close(listen_fd);
    free(p);
}

static void a_hard_close_with_a_stuck_send_ends_both_ops(void **state)
{
    enum { BYTES = 8 << 20 };
    struct loop *l = *state;
    int fds[2];
    stream_pair(fds);
    struct end e = {0};
    struct transport *t = sock_transport_open(l, fds[0], NULL, &end_sink, &e);
    char *p = calloc(1, BYTES);
    struct iovec iov = {p, BYTES};
    transport_write(t, &iov, 1);
    for (int i = 0; i < 5; i++)
        loop_turn(l, 0);
    transport_close(t, false);
    transport_close(t, true);
    assert_int_equal(e.closed, 0);
    turn_until(l, e.closed);
    assert_int_equal(e.reason, ERR_OK);
    assert_int_equal(e.written, 0);
    transport_free(t);
    turn_until(l, has_eof(fds[1]));
    close(fds[1]);
    free(p);
}

static void a_paused_transport_closes_too(void **state)
{
    struct loop *l = *state;
    int fds[2];
    stream_pair(fds);
    struct end e = {0};
    struct transport *t = sock_transport_open(l, fds[0], NULL, &end_sink, &e);
    transport_pause(t);
    transport_resume(t);
    transport_pause(t);
    assert_int_equal(send(fds[1], "x", 1, 0), 1);
    for (int i = 0; i < 5; i++)
        loop_turn(l, 0);
    assert_true(e.bytes <= 1);
    transport_close(t, false);
    turn_until(l, e.closed);
    transport_free(t);
    close(fds[1]);
}

static void a_reset_closes_by_itself_and_says_so(void **state)
{
    struct loop *l = *state;
    struct sockaddr_in address;
    int listen_fd = listener(&address), peer = dial(&address), fd = accept(listen_fd, NULL, NULL);
    struct end e = {0};
    struct transport *t = sock_transport_open(l, fd, NULL, &end_sink, &e);
    loop_turn(l, 0);
    struct linger reset = {1, 0};
    setsockopt(peer, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(peer);
    turn_until(l, e.closed);
    assert_int_equal(e.reason, ERR_CLOSED);
    assert_int_equal(e.ended, 0);
    struct iovec iov = {"x", 1};
    assert_int_equal(transport_write(t, &iov, 1), 1); /* dropped */
    transport_free(t);
    close(listen_fd);
}

/* ---- timers ---------------------------------------------------------------------------------- */

struct ticker {
    struct timer t;
    struct loop *loop;
    int fired;
    uint64_t fired_ms;
    struct ticker *other;
    int what;
};
enum { STOP_OTHER = 1, MOVE_OTHER, FREE_SELF, AGAIN };
static int freed;

static void tick(struct timer *t)
{
    struct ticker *k = container_of(t, struct ticker, t);
    k->fired++;
    k->fired_ms = loop_now_ms(k->loop);
    switch (k->what) {
    case STOP_OTHER: loop_timer_stop(k->loop, &k->other->t); break;
    case MOVE_OTHER: loop_timer_set(k->loop, &k->other->t, 50); break;
    case FREE_SELF:
        freed++;
        free(k);
        break;
    case AGAIN:
        if (k->fired < 3)
            loop_timer_set(k->loop, t, 0);
        break;
    }
}

static struct ticker ticker(struct loop *l, int what)
{
    struct ticker k = {.loop = l, .what = what};
    return k;
}

static void timers_fire_in_order_and_never_early(void **state)
{
    struct loop *l = *state;
    static const unsigned after[] = {0, 5, 10, 95, 200, 999, 1001, 1500};
    struct ticker k[array_len(after)];
    loop_turn(l, 0);
    uint64_t begin = loop_now_ms(l);
    for (size_t i = 0; i < array_len(after); i++) {
        k[i] = ticker(l, 0);
        timer_init(&k[i].t, tick);
        loop_timer_set(l, &k[i].t, after[i]);
        assert_true(timer_is_set(&k[i].t));
    }
    turn_until(l, k[array_len(after) - 1].fired);
    for (size_t i = 0; i < array_len(after); i++) {
        assert_int_equal(k[i].fired, 1);
        assert_false(timer_is_set(&k[i].t));
        assert_true(k[i].fired_ms >= begin + after[i]);
        assert_true(i == 0 || k[i].fired_ms >= k[i - 1].fired_ms);
    }
    assert_true(k[3].fired_ms < begin + 95 + 500); /* a slow machine is allowed for */
}

static void timers_may_stop_move_and_free_each_other_while_firing(void **state)
{
    struct loop *l = *state;
    struct ticker stopper = ticker(l, STOP_OTHER), stopped = ticker(l, 0);
    struct ticker mover = ticker(l, MOVE_OTHER), moved = ticker(l, 0), again = ticker(l, AGAIN);
    struct ticker *suicide = malloc(sizeof *suicide);
    *suicide = ticker(l, FREE_SELF);
    stopper.other = &stopped, mover.other = &moved;
    struct ticker *all[] = {&stopper, &stopped, suicide, &mover, &moved, &again};
    for (size_t i = 0; i < array_len(all); i++) {
        timer_init(&all[i]->t, tick);
        loop_timer_set(l, &all[i]->t, 10);
    }
    freed = 0;
    uint64_t begin = loop_now_ms(l);
    turn_until(l, moved.fired && again.fired == 3);
    assert_int_equal(stopped.fired, 0);
    assert_int_equal(moved.fired, 1);
    assert_true(moved.fired_ms >= mover.fired_ms + 50);
    assert_int_equal(freed, 1);
    assert_true(again.fired_ms < begin + 1000); /* not one round of the wheel later */
}

static void a_timer_set_again_moves(void **state)
{
    struct loop *l = *state;
    struct ticker a = ticker(l, 0), b = ticker(l, 0);
    timer_init(&a.t, tick), timer_init(&b.t, tick);
    loop_timer_set(l, &a.t, 20);
    loop_timer_set(l, &b.t, 100000);
    loop_timer_set(l, &a.t, 3000);
    loop_timer_set(l, &b.t, 40);
    turn_until(l, b.fired);
    assert_int_equal(a.fired, 0);
    loop_timer_stop(l, &a.t);
    assert_false(timer_is_set(&a.t));
    loop_timer_stop(l, &a.t);
}

/* ---- hooks ----------------------------------------------------------------------------------- */

struct hook {
    struct turn_hook h;
    struct loop *loop;
    int ran, again;
    uint64_t turn;
};
static void run_hook(struct turn_hook *h)
{
    struct hook *k = container_of(h, struct hook, h);
    k->ran++;
    k->turn = loop_stats(k->loop)->turns;
    if (k->again-- > 0)
        loop_at_turn_end(k->loop, h);
}

struct waking {
    unsigned wakes, wakes_at_done;
    struct op op;
};
static void count_wake(void *ctx) { ((struct waking *)ctx)->wakes++; }
static void polled(struct op *op, int res)
{
    struct waking *w = container_of(op, struct waking, op);
    w->wakes_at_done = w->wakes;
}

static void who_is_told_of_wake_ups_is_told_before_anything_is_done(void **state)
{
    struct loop *l = *state;
    struct waking w = {.op.done = polled};
    int fds[2];
    stream_pair(fds);
    loop_on_wake(l, count_wake, &w);
    loop_poll(l, &w.op, fds[0], POLLOUT);
    unsigned turns = 0;
    for (; !w.wakes_at_done; turns++) {
        assert_true(turns < TURNS_MAX);
        loop_turn(l, 100);
    }
    assert_int_equal(w.wakes_at_done, turns);
    loop_on_wake(l, NULL, NULL);
    loop_turn(l, 0);
    assert_int_equal(w.wakes, turns);
    close(fds[0]), close(fds[1]);
}

static void a_turn_hook_runs_once_and_may_ask_again_within_a_bound(void **state)
{
    struct loop *l = *state;
    struct hook once = {.h = {.fn = run_hook}, .loop = l}, twice = once, forever = once;
    list_init(&once.h.link), list_init(&twice.h.link), list_init(&forever.h.link);
    twice.again = 1, forever.again = 100;
    loop_at_turn_end(l, &once.h);
    loop_at_turn_end(l, &once.h);
    loop_at_turn_end(l, &twice.h);
    loop_at_turn_end(l, &forever.h);
    assert_int_equal(once.ran, 0);
    loop_turn(l, 0);
    assert_int_equal(once.ran, 1);
    assert_int_equal(twice.ran, 2);
    assert_true(forever.ran > 2 && forever.ran < 100);
    turn_until(l, forever.ran == 101);
    assert_int_equal(once.ran, 1);
}

/* ---- sources and the wake-up ----------------------------------------------------------------- */

struct mailbox {
    struct loop_source source;
    _Atomic uint64_t sent;
    _Atomic uint32_t sleeping;
    uint64_t seen;
    int wake_fd;
};
enum { MAILS = 20000 };

static bool mailbox_poll(struct loop_source *s)
{
    struct mailbox *m = container_of(s, struct mailbox, source);
    uint64_t sent = atomic_load(&m->sent);
    bool any = sent != m->seen;
    m->seen = sent;
    return any;
}
static void mailbox_sleep(struct loop_source *s, bool sleeping)
{
    struct mailbox *m = container_of(s, struct mailbox, source);
    atomic_exchange(&m->sleeping, sleeping);
}
static void *mailbox_send(void *arg)
{
    struct mailbox *m = arg;
    for (int i = 0; i < MAILS; i++) {
        atomic_fetch_add(&m->sent, 1);
        if (atomic_fetch_add(&m->sleeping, 0) && atomic_exchange(&m->sleeping, 0)) {
            uint64_t one = 1;
            ssize_t r = write(m->wake_fd, &one, sizeof one);
            must(r == sizeof one);
        }
        if (i % 64 == 0)
            sched_yield();
    }
    return NULL;
}

static void no_wake_up_from_another_thread_is_lost(void **state)
{
    struct loop *l = *state;
    struct mailbox m = {.source = {.poll = mailbox_poll, .sleep = mailbox_sleep},
                        .wake_fd = loop_wake_fd(l)};
    pthread_t thread;
    loop_source_add(l, &m.source);
    assert_int_equal(pthread_create(&thread, NULL, mailbox_send, &m), 0);
    uint64_t slowest = 0;
    while (m.seen < MAILS) {
        uint64_t before = loop_now_ms(l);
        loop_turn(l, 20000); /* a lost wake-up shows as a wait to the end */
        if (loop_now_ms(l) - before > slowest)
            slowest = loop_now_ms(l) - before;
    }
    pthread_join(thread, NULL);
    loop_source_remove(l, &m.source);
    assert_true(slowest < 15000);
}

/* Mail that arrives while the loop goes to sleep, from one who saw it awake: nobody wakes it. */
static void mailbox_late(struct loop_source *s, bool sleeping)
{
    struct mailbox *m = container_of(s, struct mailbox, source);
    if (sleeping && !m->sleeping)
        atomic_fetch_add(&m->sent, 1);
    m->sleeping = sleeping;
}

static void a_source_is_looked_at_again_after_it_was_told_of_the_sleep(void **state)
{
    struct loop *l = *state;
    struct mailbox m = {.source = {.poll = mailbox_poll, .sleep = mailbox_late}};
    loop_turn(l, 0);
    loop_source_add(l, &m.source);
    uint64_t before = loop_now_ms(l);
    loop_turn(l, 20000);
    assert_int_equal(m.seen, 1);
    assert_true(loop_now_ms(l) - before < 15000);
    loop_source_remove(l, &m.source);
}

/* ---- polls and accepts ----------------------------------------------------------------------- */

struct poller {
    struct op op;
    int done, res;
};
static void poller_done(struct op *op, int res)
{
    struct poller *p = container_of(op, struct poller, op);
    p->done++;
    p->res = res;
}

static void polls_are_one_shot_and_can_be_stopped(void **state)
{
    struct loop *l = *state;
    int fds[2];
    stream_pair(fds);
    struct poller in = {.op = {.done = poller_done}}, out = {.op = {.done = poller_done}};
    loop_poll(l, &in.op, fds[0], POLLIN);
    loop_poll(l, &out.op, fds[0], POLLOUT);
    turn_until(l, out.done);
    assert_int_equal(out.res, POLLOUT);
    assert_int_equal(in.done, 0);
    assert_int_equal(send(fds[1], "x", 1, 0), 1);
    turn_until(l, in.done);
    assert_int_equal(in.res, POLLIN);
    for (int i = 0; i < 5; i++)
        loop_turn(l, 0);
    assert_int_equal(in.done + out.done, 2);
    assert_int_equal(recv(fds[0], (char[1]){0}, 1, 0), 1);
    loop_poll(l, &in.op, fds[0], POLLIN);
    loop_turn(l, 0);
    loop_poll_stop(l, &in.op);
    turn_until(l, in.done == 2);
    assert_int_equal(in.res, -ECANCELED);
    close(fds[0]), close(fds[1]);
}

/* The same number for a new file, within the very callback: the loop must not mix them up. */
struct reopen {
    struct op op;
    struct loop *loop;
    struct sink sink;
    int old, fresh, other;
};
static void reopen_done(struct op *op, int res)
{
    struct reopen *r = container_of(op, struct reopen, op);
    int fds[2];
    must(close(r->old) == 0);
    must(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
    r->fresh = fds[0], r->other = fds[1];
    sink_start(&r->sink, r->loop, r->fresh);
}

static void a_reused_fd_is_not_taken_for_the_old_one(void **state)
{
    struct loop *l = *state;
    int fds[2];
    stream_pair(fds);
    struct reopen r = {.op = {.done = reopen_done}, .loop = l, .old = fds[0]};
    loop_poll(l, &r.op, fds[0], POLLIN);
    assert_int_equal(send(fds[1], "x", 1, 0), 1);
    turn_until(l, r.fresh);
    assert_int_equal(r.fresh, fds[0]);
    char c[1];
    pattern(c, 1, 0);
    assert_int_equal(send(r.other, c, 1, 0), 1);
    turn_until(l, r.sink.bytes == 1);
    close(r.other);
    turn_until(l, r.sink.done);
    close(r.fresh), close(fds[1]);
}

struct acceptor {
    struct accept_op a;
    int done, res;
};
static void acceptor_done(struct op *op, int res)
{
    struct acceptor *a = container_of(op, struct acceptor, a.op);
    a->done++;
    a->res = res;
}

static void accepts_in_flight_have_each_their_peers_address(void **state)
{
    enum { N = 8 };
    struct loop *l = *state;
    struct sockaddr_in address;
    int listen_fd = listener(&address), peers[N];
    struct acceptor a[N];
    memset(a, 0, sizeof a);
    for (int i = 0; i < N; i++) {
        a[i].a.op.done = acceptor_done;
        loop_accept(l, &a[i].a, listen_fd);
    }
    loop_turn(l, 0);
    for (int i = 0; i < N; i++)
        peers[i] = dial(&address);
    for (int i = 0; i < N; i++) {
        turn_until(l, a[i].done);
        struct sockaddr_in peer;
        socklen_t n = sizeof peer;
        assert_true(a[i].res >= 0);
        assert_int_equal(getpeername(a[i].res, (struct sockaddr *)&peer, &n), 0);
        assert_int_equal(peer.sin_port, ((struct sockaddr_in *)&a[i].a.address)->sin_port);
        assert_int_equal(fcntl(a[i].res, F_GETFD), FD_CLOEXEC);
        close(a[i].res);
    }
    for (int i = 0; i < N; i++)
        close(peers[i]);
    close(listen_fd);
}

static void an_accept_waits_on_a_non_blocking_listener_too(void **state)
{
    struct loop *l = *state;
    struct sockaddr_in address;
    int listen_fd = listener(&address);
    fcntl(listen_fd, F_SETFL, O_NONBLOCK);
    struct acceptor a = {.a = {.op = {.done = acceptor_done}}};
    loop_accept(l, &a.a, listen_fd);
    for (int i = 0; i < 5; i++)
        loop_turn(l, 0);
    assert_int_equal(a.done, 0);
    int peer = dial(&address);
    turn_until(l, a.done);
    assert_true(a.res >= 0);
    close(a.res), close(peer), close(listen_fd);
}

static void an_accept_without_free_fds_says_emfile(void **state)
{
    struct loop *l = *state;
    struct sockaddr_in address;
    int listen_fd = listener(&address), peer = dial(&address);
    struct rlimit old, none;
    struct acceptor a = {.a = {.op = {.done = acceptor_done}}};
    loop_turn(l, 0);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    none = old;
    none.rlim_cur = (rlim_t)peer + 1;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    int filler = dup(peer), fillers = 0, filled[64];
    while (filler >= 0 && fillers < 64)
        filled[fillers++] = filler, filler = dup(peer);
    loop_accept(l, &a.a, listen_fd);
    turn_until(l, a.done);
    setrlimit(RLIMIT_NOFILE, &old);
    for (int i = 0; i < fillers; i++)
        close(filled[i]);
    assert_int_equal(a.res, -EMFILE);
    loop_accept(l, &a.a, listen_fd);
    turn_until(l, a.done == 2);
    assert_true(a.res >= 0);
    close(a.res), close(peer), close(listen_fd);
}

static void more_requests_than_the_submission_queue_holds_are_all_done(void **state)
{
    enum { N = 3000 };
    struct loop *l = *state;
    int fds[2];
    stream_pair(fds);
    static struct poller p[N];
    memset(p, 0, sizeof p);
    for (int i = 0; i < N; i++) {
        p[i].op.done = poller_done;
        loop_poll(l, &p[i].op, fds[0], POLLOUT);
    }
    for (int i = 0; i < N; i++)
        turn_until(l, p[i].done);
    close(fds[0]), close(fds[1]);
}

#define BOTH(test) \
    {#test " (io_uring)", test, setup, teardown, (void *)&choices[0]}, \
    { \
#test " (epoll)", test, setup, teardown, (void *)&choices[1] \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(a_thousand_connections_get_their_bytes_back),
        BOTH(stopped_reading_leaves_the_rest_in_the_socket),
        BOTH(a_stopped_receive_brings_no_more_than_a_share_however_fast_the_peer),
        BOTH(no_connection_gets_more_than_its_share_of_a_turn),
        BOTH(many_full_sockets_lose_nothing_when_buffers_run_out),
        BOTH(stopping_at_once_after_starting_ends_cancelled),
        BOTH(a_send_larger_than_the_socket_completes_once_and_whole),
        BOTH(a_send_to_a_closed_peer_fails_without_a_signal),
        BOTH(a_graceful_close_sends_all_then_fin_then_waits_for_the_peer),
        BOTH(a_hard_close_with_a_stuck_send_ends_both_ops),
        BOTH(a_paused_transport_closes_too),
        BOTH(a_reset_closes_by_itself_and_says_so),
        BOTH(timers_fire_in_order_and_never_early),
        BOTH(timers_may_stop_move_and_free_each_other_while_firing),
        BOTH(a_timer_set_again_moves),
        BOTH(a_turn_hook_runs_once_and_may_ask_again_within_a_bound),
        BOTH(who_is_told_of_wake_ups_is_told_before_anything_is_done),
        BOTH(no_wake_up_from_another_thread_is_lost),
        BOTH(a_source_is_looked_at_again_after_it_was_told_of_the_sleep),
        BOTH(polls_are_one_shot_and_can_be_stopped),
        BOTH(a_reused_fd_is_not_taken_for_the_old_one),
        BOTH(accepts_in_flight_have_each_their_peers_address),
        BOTH(an_accept_waits_on_a_non_blocking_listener_too),
        BOTH(an_accept_without_free_fds_says_emfile),
        BOTH(more_requests_than_the_submission_queue_holds_are_all_done),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
