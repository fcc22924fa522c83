/* Fifos and channels of siblings, of which either may be first: nothing is lost between the two,
 * and nothing of a process that is no more gets through. The hub and the channels are this file's.
 */
#include "node/shard/siblings.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "node/os/fifo.h"

static char sent[256], received[256];

void fifo_hub_send(struct fifo_hub *h, unsigned peer, const struct iovec *iov, size_t n)
{
    size_t at = strlen(sent);
    at += (size_t)snprintf(sent + at, sizeof sent - at, "%u:", peer);
    for (size_t i = 0; i < n; i++)
        at += (size_t)snprintf(sent + at, sizeof sent - at, "%.*s", (int)iov[i].iov_len,
                               (const char *)iov[i].iov_base);
    snprintf(sent + at, sizeof sent - at, " ");
}
void fifo_hub_send_later(struct fifo_hub *h, unsigned peer, const struct iovec *iov, size_t n)
{
    fifo_hub_send(h, peer, iov, n);
}
err channel_receive(struct channels *c, unsigned peer, str bytes)
{
    size_t at = strlen(received);
    snprintf(received + at, sizeof received - at, "%u:%.*s ", peer, STR_ARG(bytes));
    return str_is(bytes, "bad") ? ERR_BAD : ERR_OK;
}

static unsigned bads;
static void on_bad(void *ctx, unsigned shard) { bads += 1 + 100 * shard; }

static int open_siblings(void **state)
{
    sent[0] = received[0] = 0, bads = 0;
    *state = siblings_new(NULL, NULL);
    return 0;
}
static int close_siblings(void **state)
{
    siblings_free(*state);
    return 0;
}

/* The view has shard 1 with this incarnation; 0: not at all. */
static void view_has(struct siblings *s, uint64_t incarnation)
{
    struct view_node own = {.shards = 1};
    own.incarnation[1] = incarnation;
    siblings_expect(s, &own);
    siblings_adopted(s, on_bad, NULL);
}
static void send_text(struct siblings *s, const char *a, const char *b)
{
    struct iovec v[] = {{(void *)(uintptr_t)a, strlen(a)}, {(void *)(uintptr_t)b, strlen(b)}};
    siblings_send(s, 1, v, 2, false);
}
static void comes(struct siblings *s, const char *text)
{
    assert_int_equal(siblings_receive(s, 1, str_of(text)), ERR_OK);
}

static void a_fifo_that_is_first_keeps_what_comes_until_the_view_has_it(void **state)
{
    struct siblings *s = *state;
    siblings_attached(s, 1, 7);
    comes(s, "one"), comes(s, "two");
    assert_string_equal(received, "");
    view_has(s, 7);
    assert_string_equal(received, "1:one 1:two ");
    comes(s, "three");
    assert_string_equal(received, "1:one 1:two 1:three ");
    send_text(s, "di", "rect");
    assert_string_equal(sent, "1:direct ");
}

static void a_view_that_is_first_keeps_what_goes_until_the_fifo_is_there(void **state)
{
    struct siblings *s = *state;
    view_has(s, 7);
    send_text(s, "on", "e"), send_text(s, "tw", "o");
    assert_string_equal(sent, "");
    siblings_attached(s, 1, 7);
    assert_string_equal(sent, "1:one 1:two ");
}

static void what_was_for_or_from_another_incarnation_goes_with_it(void **state)
{
    struct siblings *s = *state;
    siblings_attached(s, 1, 7);
    comes(s, "of 7");
    siblings_detached(s, 1);
    siblings_attached(s, 1, 8);
    view_has(s, 6); /* it is behind */
    send_text(s, "for", " 6");
    view_has(s, 8);
    view_has(s, 9);
    siblings_detached(s, 1);
    siblings_attached(s, 1, 9);
    assert_string_equal(received, "");
    assert_string_equal(sent, "");
}

static void nothing_is_kept_for_who_has_died_nor_of_who_was_passed_over(void **state)
{
    struct siblings *s = *state;
    siblings_attached(s, 1, 7);
    view_has(s, 7);
    siblings_detached(s, 1);
    send_text(s, "to the", " dead");
    siblings_attached(s, 1, 7); /* a fresh segment of the same pair */
    assert_string_equal(sent, "");
    view_has(s, 0);
    comes(s, "of who is in no view any more");
    view_has(s, 7);
    assert_string_equal(received, "");
}

static void what_was_kept_and_is_no_frame_is_told(void **state)
{
    struct siblings *s = *state;
    siblings_attached(s, 1, 7);
    comes(s, "bad"), comes(s, "behind it");
    view_has(s, 7);
    assert_int_equal(bads, 101);
    assert_string_equal(received, "1:bad ");
}

#define T(f) cmocka_unit_test_setup_teardown(f, open_siblings, close_siblings)
static void while_it_is_held_frames_of_who_is_there_wait_on_both_sides(void **state)
{
    struct siblings *s = *state;
    siblings_attached(s, 1, 7);
    view_has(s, 7);
    siblings_hold(s, true, on_bad, NULL);
    comes(s, "one"), comes(s, "two");
    send_text(s, "th", "ree"), send_text(s, "fo", "ur");
    assert_string_equal(received, "");
    assert_string_equal(sent, "");
    siblings_hold(s, false, on_bad, NULL);
    assert_string_equal(received, "1:one 1:two ");
    assert_string_equal(sent, "1:three 1:four ");
    siblings_hold(s, true, on_bad, NULL);
    comes(s, "of the dead");
    siblings_detached(s, 1);
    siblings_attached(s, 1, 8);
    view_has(s, 8);
    comes(s, "of the new one");
    siblings_hold(s, false, on_bad, NULL);
    assert_string_equal(received, "1:one 1:two 1:of the new one ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_fifo_that_is_first_keeps_what_comes_until_the_view_has_it),
        T(a_view_that_is_first_keeps_what_goes_until_the_fifo_is_there),
        T(what_was_for_or_from_another_incarnation_goes_with_it),
        T(nothing_is_kept_for_who_has_died_nor_of_who_was_passed_over),
        T(what_was_kept_and_is_no_frame_is_told),
        T(while_it_is_held_frames_of_who_is_there_wait_on_both_sides),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
