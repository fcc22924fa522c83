#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include "node/tls/helper.h"
#include "pemberley/must.h"

/* As much of a loop as the helper needs. */
struct loop {
    int wake_fd;
    int sources;
    struct loop_source *source;
};
void loop_source_add(struct loop *l, struct loop_source *s) { l->source = s, l->sources++; }
void loop_source_remove(struct loop *l, struct loop_source *s) { l->source = NULL, l->sources--; }
int loop_wake_fd(const struct loop *l) { return l->wake_fd; }

static struct loop loop_start(void) { return (struct loop){eventfd(0, EFD_NONBLOCK), 0, NULL}; }

/* Sleeps until somebody wakes it, then polls. */
static void turn(struct loop *l)
{
    struct pollfd p = {l->wake_fd, POLLIN, 0};
    uint64_t n;
    assert_int_equal(poll(&p, 1, 10000), 1);
    assert_int_equal(read(l->wake_fd, &n, sizeof n), sizeof n);
    l->source->poll(l->source);
}

struct job {
    struct helper_job j;
    struct helper *again; /* submit once more from done() */
    sem_t *gate;          /* wait for it in run() */
    int input, output;
    int order;
    pthread_t ran_on, done_on;
    int *count;
};
static void run(struct helper_job *j)
{
    struct job *b = container_of(j, struct job, j);
    if (b->gate)
        while (sem_wait(b->gate) < 0)
            ;
    b->output = b->input * 2;
    b->ran_on = pthread_self();
}
static void done(struct helper_job *j)
{
    struct job *b = container_of(j, struct job, j);
    b->done_on = pthread_self();
    b->order = ++*b->count;
    if (b->again) {
        struct helper *h = b->again;
        b->again = NULL;
        assert_int_equal(helper_submit(h, j), ERR_OK);
    }
}
static struct job job(int input, int *count)
{
    return (struct job){.j = {.run = run, .done = done}, .input = input, .count = count};
}

static void a_job_runs_on_the_thread_and_is_done_on_the_loop(void **state)
{
    struct loop l = loop_start();
    struct helper *h = helper_new(&l);
    int count = 0;
    struct job b = job(21, &count);
    assert_int_equal(l.sources, 0); /* nothing before the first need */
    assert_int_equal(helper_submit(h, &b.j), ERR_OK);
    assert_int_equal(l.sources, 1);
    turn(&l);
    assert_int_equal(b.output, 42);
    assert_false(pthread_equal(b.ran_on, pthread_self()));
    assert_true(pthread_equal(b.done_on, pthread_self()));
    assert_false(l.source->poll(l.source));
    helper_free(h);
    assert_int_equal(l.sources, 0);
    close(l.wake_fd);
}

static void sixty_four_are_taken_and_one_more_is_not(void **state)
{
    struct loop l = loop_start();
    struct helper *h = helper_new(&l);
    struct job b[HELPER_JOBS_MAX + 1];
    int count = 0;
    sem_t gate;
    sem_init(&gate, 0, 0);
    for (int i = 0; i <= HELPER_JOBS_MAX; i++) {
        b[i] = job(i, &count);
        b[i].gate = &gate;
        assert_int_equal(helper_submit(h, &b[i].j), i < HELPER_JOBS_MAX ? ERR_OK : ERR_FULL);
    }
    for (int i = 0; i < HELPER_JOBS_MAX; i++)
        sem_post(&gate);
    while (count < HELPER_JOBS_MAX)
        turn(&l);
    for (int i = 0; i < HELPER_JOBS_MAX; i++)
        assert_int_equal(b[i].order, i + 1);
    sem_post(&gate);
    assert_int_equal(helper_submit(h, &b[HELPER_JOBS_MAX].j), ERR_OK);
    while (count < HELPER_JOBS_MAX + 1) /* a wake-up may be for what was done already */
        turn(&l);
    helper_free(h);
    sem_destroy(&gate);
    close(l.wake_fd);
}

static void done_may_submit_again(void **state)
{
    struct loop l = loop_start();
    struct helper *h = helper_new(&l);
    int count = 0;
    struct job b = job(1, &count);
    b.again = h;
    assert_int_equal(helper_submit(h, &b.j), ERR_OK);
    while (count < 2)
        turn(&l);
    helper_free(h);
    close(l.wake_fd);
}

static void freeing_finishes_what_was_submitted(void **state)
{
    struct loop l = loop_start();
    struct helper *h = helper_new(&l);
    struct job b[10];
    int count = 0;
    for (int i = 0; i < 10; i++) {
        b[i] = job(i, &count);
        assert_int_equal(helper_submit(h, &b[i].j), ERR_OK);
    }
    helper_free(h);
    assert_int_equal(count, 10);
    for (int i = 0; i < 10; i++)
        assert_int_equal(b[i].output, 2 * i);
    close(l.wake_fd);
}

static void a_helper_that_was_never_needed_is_freed_without_a_thread(void **state)
{
    struct loop l = loop_start();
    helper_free(helper_new(&l));
    assert_int_equal(l.sources, 0);
    close(l.wake_fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_job_runs_on_the_thread_and_is_done_on_the_loop),
        cmocka_unit_test(sixty_four_are_taken_and_one_more_is_not),
        cmocka_unit_test(done_may_submit_again),
        cmocka_unit_test(freeing_finishes_what_was_submitted),
        cmocka_unit_test(a_helper_that_was_never_needed_is_freed_without_a_thread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
