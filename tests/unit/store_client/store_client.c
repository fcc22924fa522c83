/* The client against a worker and a loop that the test plays itself: frames and time move only when
 * a test moves them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "node/store_client/store_client.h"
#include "proto/bus/store.pb-c.h"

/* ---- the loop, played ------------------------------------------------------------------------ */

static uint64_t now_ms;
static struct timer *timer_set;
static struct turn_hook *hook_set;

uint64_t loop_now_ms(const struct loop *l) { return now_ms; }
uint64_t loop_now_us(const struct loop *l) { return now_ms * 1000; }
void timer_init(struct timer *t, timer_f *fn)
{
    t->fn = fn;
    list_init(&t->link);
}
static struct list timers = {&timers, &timers};
void loop_timer_set(struct loop *l, struct timer *t, uint64_t in_ms)
{
    list_remove(&t->link);
    list_push_back(&timers, &t->link);
    t->due_ms = now_ms + in_ms;
    timer_set = t;
}
void loop_timer_stop(struct loop *l, struct timer *t)
{
    list_remove(&t->link);
    timer_set = NULL;
}
void loop_at_turn_end(struct loop *l, struct turn_hook *h) { hook_set = h; }

static void turn_ends(void)
{
    struct turn_hook *h = hook_set;
    hook_set = NULL;
    if (h)
        h->fn(h);
}

static void pass(uint64_t ms)
{
    now_ms += ms;
    while (timer_set && timer_set->due_ms <= now_ms) {
        struct timer *t = timer_set;
        loop_timer_stop(NULL, t);
        t->fn(t);
    }
}

/* ---- the worker and the asker, played -------------------------------------------------------- */

enum { SEEN_MAX = 4096 };
static uint64_t sent_ids[SEEN_MAX];
static char sent_owners[SEEN_MAX][24];
static size_t n_sent;
static struct answer {
    long which;
    err e;
    bool has_reply;
    int result;
} answers[SEEN_MAX];
static size_t n_answers;
static unsigned logged[LOG_EVENT_MAX];
static struct metric_page metrics;
static struct store_client *client;
static struct conf *conf;

static void on_send(void *ctx, const char *p, size_t n)
{
    Store__Request *q = store__request__unpack(NULL, n, (const uint8_t *)p);
    assert_non_null(q);
    assert_true(n_sent < SEEN_MAX);
    sent_ids[n_sent] = q->id;
    memcpy(sent_owners[n_sent], q->owner.data, q->owner.len);
    sent_owners[n_sent++][q->owner.len] = 0;
    store__request__free_unpacked(q, NULL);
}

static void on_done(void *ctx, err e, const Store__Reply *r)
{
    assert_true(n_answers < SEEN_MAX);
    answers[n_answers++] = (struct answer){(long)ctx, e, r != NULL, r ? (int)r->result : -1};
}

static void on_log(struct log *l, enum log_event e, enum log_level level, const struct log_field *f,
                   size_t n)
{
    logged[e]++;
}
static struct log the_log = {.write = on_log};

static void ask_with(long which, store_done_f *done)
{
    Store__Ping ping = STORE__PING__INIT;
    Store__Request q = STORE__REQUEST__INIT;
    char owner[24];
    snprintf(owner, sizeof owner, "o%ld", which);
    q.owner = (ProtobufCBinaryData){strlen(owner), (uint8_t *)owner};
    q.op_case = STORE__REQUEST__OP_PING;
    q.ping = &ping;
    size_t before = n_answers;
    store_submit(store_client_door(client), &q, done, (void *)which);
    assert_int_equal(n_answers, before); /* never from inside */
}
static void ask(long which) { ask_with(which, on_done); }

static void reply(uint64_t id, Store__Result result)
{
    uint8_t packed[64];
    Store__Reply r = STORE__REPLY__INIT;
    r.id = id, r.result = result;
    size_t n = store__reply__pack(&r, packed);
    store_client_on_frame(client, (const char *)packed, n);
}

static int setup(void **state)
{
    now_ms = 1000, timer_set = NULL, hook_set = NULL;
    n_sent = n_answers = 0;
    memset(logged, 0, sizeof logged);
    conf = conf_test_default();
    client = store_client_new(NULL, conf, &metrics, &the_log, on_send, NULL);
    return 0;
}

static int teardown(void **state)
{
    store_client_free(client);
    free(conf);
    return 0;
}

/* ---- the tests ------------------------------------------------------------------------------- */

static void requests_wait_for_a_worker_and_are_answered_once(void **state)
{
    ask(1);
    assert_int_equal(n_sent, 0);
    store_client_worker_up(client);
    ask(2);
    assert_int_equal(n_sent, 2);
    assert_string_equal(sent_owners[0], "o1");
    reply(sent_ids[0], STORE__RESULT__OK);
    reply(sent_ids[0], STORE__RESULT__OK);
    reply(sent_ids[1], STORE__RESULT__NOT_FOUND);
    assert_int_equal(n_answers, 2);
    assert_int_equal(answers[0].which, 1);
    assert_int_equal(answers[0].e, ERR_OK);
    assert_int_equal(answers[1].e, ERR_NOT_FOUND);
    assert_int_equal(store_client_waiting(client), 0);
    assert_null(timer_set);
}

static void each_result_has_its_error(void **state)
{
    static const struct {
        Store__Result result;
        err e;
    } rows[] = {
        {STORE__RESULT__OK, ERR_OK},
        {STORE__RESULT__NOT_FOUND, ERR_NOT_FOUND},
        {STORE__RESULT__EXISTS, ERR_EXISTS},
        {STORE__RESULT__FULL, ERR_FULL},
        {STORE__RESULT__DISK_FULL, ERR_DISK_FULL},
        {STORE__RESULT__IO, ERR_IO},
        {STORE__RESULT__BAD, ERR_BAD},
        {(Store__Result)99, ERR_IO},
    };
    store_client_worker_up(client);
    for (size_t i = 0; i < array_len(rows); i++) {
        ask((long)i);
        reply(sent_ids[i], rows[i].result);
        assert_int_equal(answers[i].e, rows[i].e);
        assert_true(answers[i].has_reply);
    }
}

static void a_new_worker_gets_what_has_no_reply_in_order(void **state)
{
    store_client_worker_up(client);
    ask(1), ask(2), ask(3);
    reply(sent_ids[1], STORE__RESULT__OK);
    store_client_worker_down(client);
    ask(4);
    assert_int_equal(n_sent, 3);
    n_sent = 0;
    store_client_worker_up(client);
    assert_int_equal(n_sent, 3);
    assert_string_equal(sent_owners[0], "o1");
    assert_string_equal(sent_owners[1], "o3");
    assert_string_equal(sent_owners[2], "o4");
}

static void without_a_reply_the_answer_is_away(void **state)
{
    ask(1); /* no worker */
    pass(4999);
    assert_int_equal(n_answers, 0);
    pass(1);
    assert_int_equal(n_answers, 1);
    assert_int_equal(answers[0].e, ERR_AWAY);
    assert_false(answers[0].has_reply);
    store_client_worker_up(client);
    assert_int_equal(n_sent, 0);

    ask(2); /* a worker that is stuck */
    pass(5000);
    assert_int_equal(answers[1].e, ERR_AWAY);
    reply(sent_ids[0], STORE__RESULT__OK); /* late */
    assert_int_equal(n_answers, 2);
    store_client_worker_up(client);
    assert_int_equal(n_sent, 1); /* not sent again */
}

static void time_runs_for_each_request_by_itself(void **state)
{
    store_client_worker_up(client);
    ask(1);
    pass(3000);
    ask(2);
    pass(2000);
    assert_int_equal(n_answers, 1);
    reply(sent_ids[1], STORE__RESULT__OK);
    assert_int_equal(n_answers, 2);
    assert_int_equal(answers[1].e, ERR_OK);
    ask(3);
    pass(4000);
    ask(4);
    pass(1000);
    assert_int_equal(n_answers, 3);
    pass(4000);
    assert_int_equal(n_answers, 4);
    assert_int_equal(answers[3].which, 4);
}

static void a_full_queue_is_refused_at_the_turns_end(void **state)
{
    conf->store_queue_max = 2;
    store_client_configure(client, conf);
    ask(1), ask(2), ask(3);
    turn_ends();
    assert_int_equal(n_answers, 1);
    assert_int_equal(answers[0].which, 3);
    assert_int_equal(answers[0].e, ERR_FULL);
    assert_false(answers[0].has_reply);
    store_client_worker_up(client);
    reply(sent_ids[0], STORE__RESULT__OK);
    ask(4);
    assert_int_equal(store_client_waiting(client), 2);
}

static void the_queue_is_bounded_in_bytes_too(void **state)
{
    conf->store_queue_bytes_max = 20;
    store_client_configure(client, conf);
    ask(1), ask(2), ask(3);
    turn_ends();
    assert_true(n_answers > 0);
    assert_int_equal(answers[n_answers - 1].e, ERR_FULL);
}

static void a_stuck_worker_gets_one_window_only(void **state)
{
    store_client_worker_up(client);
    for (long i = 0; i < 2000; i++)
        ask(i);
    assert_int_equal(n_sent, 1024);
    pass(5000);
    assert_int_equal(n_answers, 2000);
    for (long i = 0; i < 2000; i++)
        ask(i);
    assert_int_equal(n_sent, 1024); /* the husks hold their places */
    reply(sent_ids[0], STORE__RESULT__OK);
    assert_int_equal(n_sent, 1025);
    store_client_worker_up(client);
    assert_int_equal(n_sent, 1025 + 1024);
    assert_int_equal(sent_ids[1025], sent_ids[1024]);
    for (size_t i = 1026; i < n_sent; i++)
        assert_int_equal(sent_ids[i], sent_ids[i - 1] + 1); /* old before new */
    assert_int_equal(store_client_waiting(client), 2000);
}

static void ask_again(void *ctx, err e, const Store__Reply *r)
{
    on_done(ctx, e, r);
    ask((long)ctx + 1);
}

static void done_may_submit(void **state)
{
    store_client_worker_up(client);
    ask_with(1, ask_again);
    reply(sent_ids[0], STORE__RESULT__OK);
    assert_int_equal(n_sent, 2);
    store_client_worker_down(client);
    ask_with(5, ask_again);
    pass(5000);
    assert_int_equal(store_client_waiting(client), 1);
    conf->store_queue_max = 1;
    store_client_configure(client, conf);
    ask_with(7, ask_again);
    turn_ends();
    assert_int_equal(answers[n_answers - 1].which, 7);
    turn_ends();
    assert_int_equal(answers[n_answers - 1].which, 8);
}

static void garbage_is_refused_and_slow_replies_are_logged(void **state)
{
    store_client_worker_up(client);
    store_client_on_frame(client, "\xff\xff\xff", 3);
    assert_int_equal(logged[LOG_frame_refused], 1);
    ask(1);
    reply(77, STORE__RESULT__OK);
    assert_int_equal(n_answers, 0);
    pass(99);
    reply(sent_ids[0], STORE__RESULT__OK);
    assert_int_equal(logged[LOG_store_slow], 0);
    ask(2);
    pass(100);
    reply(sent_ids[1], STORE__RESULT__OK);
    assert_int_equal(logged[LOG_store_slow], 1);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(requests_wait_for_a_worker_and_are_answered_once),
        T(each_result_has_its_error),
        T(a_new_worker_gets_what_has_no_reply_in_order),
        T(without_a_reply_the_answer_is_away),
        T(time_runs_for_each_request_by_itself),
        T(a_full_queue_is_refused_at_the_turns_end),
        T(the_queue_is_bounded_in_bytes_too),
        T(a_stuck_worker_gets_one_window_only),
        T(done_may_submit),
        T(garbage_is_refused_and_slow_replies_are_logged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
