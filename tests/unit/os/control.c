/* The control channel: messages with descriptors, bounded, in order, never blocking. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "node/os/control.h"
#include "node/os/os.h"

enum { TURNS_MAX = 100000 };
#define turn_until(l, condition) \
    do { \
        int turns_ = 0; \
        while (!(condition)) { \
            assert_true(turns_++ < TURNS_MAX); \
            loop_turn((l), 100); \
        } \
    } while (0)

struct end {
    struct control *control;
    unsigned messages, fds, closed;
    bool bad, close_in_message;
};
static void on_message(void *ctx, const char *p, size_t n, const int *fds, size_t n_fds)
{
    struct end *e = ctx;
    uint32_t k;
    memcpy(&k, p, sizeof k);
    e->bad |= k != e->messages++;
    for (size_t i = 0; i < n_fds; i++) {
        e->bad |= fcntl(fds[i], F_GETFD) != FD_CLOEXEC;
        close(fds[i]);
    }
    e->fds += (unsigned)n_fds;
    if (e->close_in_message)
        control_close(e->control);
}
static void on_closed(void *ctx) { ((struct end *)ctx)->closed++; }
static const struct control_sink sink = {on_message, on_closed};

static struct loop *loop_make(void)
{
    struct loop_config c = {.choice = LOOP_AUTO, .wake_fd = -1};
    struct loop_fault fault;
    struct loop *l = NULL;
    assert_int_equal(loop_new(&c, &fault, &l), ERR_OK);
    return l;
}

static err send_number(struct control *c, uint32_t k, size_t n, const int *fds, size_t n_fds)
{
    static char p[CONTROL_MESSAGE_MAX];
    memcpy(p, &k, sizeof k);
    return control_send(c, p, n, fds, n_fds);
}

static void messages_keep_order_and_bring_their_descriptors(void **state)
{
    struct loop *l = loop_make();
    int fds[2], given[CONTROL_FDS_MAX];
    assert_int_equal(control_pair(fds), ERR_OK);
    struct end a = {0}, b = {0};
    a.control = control_open(l, fds[0], &sink, &a);
    b.control = control_open(l, fds[1], &sink, &b);
    for (size_t i = 0; i < CONTROL_FDS_MAX; i++)
        given[i] = open("/dev/null", O_RDONLY);
    uint32_t sent = 0;
    for (; sent < 100; sent++) /* more than the socket holds: most wait */
        assert_int_equal(
            send_number(a.control, sent, sent % 2 ? 8 : CONTROL_MESSAGE_MAX, given, sent % 17),
            ERR_OK); /* a short one must not pass a long one that waits */
    assert_false(control_idle(a.control));
    for (size_t i = 0; i < CONTROL_FDS_MAX; i++)
        close(given[i]);
    turn_until(l, b.messages == sent);
    assert_false(b.bad);
    unsigned fds_sent = 0;
    for (uint32_t k = 0; k < sent; k++)
        fds_sent += k % 17;
    assert_int_equal(b.fds, fds_sent);
    assert_true(control_idle(a.control));
    control_close(a.control);
    turn_until(l, b.closed);
    assert_int_equal(b.closed, 1);
    assert_int_equal(send_number(b.control, 0, 8, NULL, 0), ERR_CLOSED);
    control_close(b.control);
    for (int i = 0; i < 5; i++)
        loop_turn(l, 0);
    assert_int_equal(a.closed, 0);
    assert_int_equal(fcntl(fds[0], F_GETFD), -1);
    assert_int_equal(fcntl(fds[1], F_GETFD), -1);
    loop_close(l);
}

static void the_queue_is_bounded(void **state)
{
    struct loop *l = loop_make();
    int fds[2];
    assert_int_equal(control_pair(fds), ERR_OK);
    struct end a = {0};
    a.control = control_open(l, fds[0], &sink, &a);
    err e = ERR_OK;
    uint32_t sent = 0;
    while (e == ERR_OK && sent < 10000)
        e = send_number(a.control, sent++, CONTROL_MESSAGE_MAX, NULL, 0);
    assert_int_equal(e, ERR_FULL);
    control_close(a.control);
    for (int i = 0; i < 5; i++)
        loop_turn(l, 0);
    close(fds[1]);
    loop_close(l);
}

static void it_may_be_closed_from_its_own_message(void **state)
{
    struct loop *l = loop_make();
    int fds[2];
    assert_int_equal(control_pair(fds), ERR_OK);
    struct end a = {0}, b = {.close_in_message = true};
    a.control = control_open(l, fds[0], &sink, &a);
    b.control = control_open(l, fds[1], &sink, &b);
    for (uint32_t k = 0; k < 3; k++)
        assert_int_equal(send_number(a.control, k, 8, NULL, 0), ERR_OK);
    turn_until(l, a.closed);
    assert_int_equal(b.messages, 1);
    assert_int_equal(b.closed, 0);
    control_close(a.control);
    for (int i = 0; i < 5; i++)
        loop_turn(l, 0);
    loop_close(l);
}

static void single_messages_say_partial_closed_and_full(void **state)
{
    int fds[2], got[CONTROL_FDS_MAX];
    static char p[CONTROL_MESSAGE_MAX];
    size_t n, n_fds;
    assert_int_equal(control_pair(fds), ERR_OK);
    assert_int_equal(control_read(fds[0], p, &n, got, &n_fds), ERR_PARTIAL);
    assert_int_equal(control_write(fds[1], "hello", 5, fds, 1), ERR_OK);
    assert_int_equal(control_read(fds[0], p, &n, got, &n_fds), ERR_OK);
    assert_int_equal(n, 5);
    assert_memory_equal(p, "hello", 5);
    assert_int_equal(n_fds, 1);
    close(got[0]);
    err e = ERR_OK;
    for (int i = 0; i < 10000 && e == ERR_OK; i++)
        e = control_write(fds[1], p, sizeof p, NULL, 0);
    assert_int_equal(e, ERR_FULL);
    close(fds[0]);
    assert_int_equal(control_write(fds[1], "x", 1, NULL, 0), ERR_CLOSED);
    close(fds[1]);
    assert_int_equal(control_pair(fds), ERR_OK);
    static char big[CONTROL_MESSAGE_MAX + 1];
    assert_int_equal(send(fds[1], big, sizeof big, 0), sizeof big);
    assert_int_equal(control_read(fds[0], p, &n, got, &n_fds), ERR_BAD);
    close(fds[1]);
    assert_int_equal(control_read(fds[0], p, &n, got, &n_fds), ERR_CLOSED);
    close(fds[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_keep_order_and_bring_their_descriptors),
        cmocka_unit_test(the_queue_is_bounded),
        cmocka_unit_test(it_may_be_closed_from_its_own_message),
        cmocka_unit_test(single_messages_say_partial_closed_and_full),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
