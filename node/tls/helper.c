/* helper: see helper.h. Two lists under one mutex; the loop looks at a counter each turn and takes
 * the mutex only when a job has ended. The wake-up is the loop's own eventfd, so no descriptor is
 * spent. At one job per millisecond none of this is worth a lock-free queue.
 * Life: with the shard. The thread starts at the first job and ends in helper_free. */
#include "node/tls/helper.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "pemberley/must.h"

struct helper {
    struct loop *loop;
    struct loop_source source;
    int wake_fd;
    unsigned jobs; /* submitted and not done; the loop's */
    bool running;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wanted;
    struct list waiting, ended; /* under lock */
    bool stop;                  /* under lock */
    _Atomic unsigned ended_n;   /* lengthened under lock, read without */
};

static struct helper_job *next_job(struct helper *h)
{
    while (list_empty(&h->waiting) && !h->stop)
        pthread_cond_wait(&h->wanted, &h->lock);
    if (list_empty(&h->waiting))
        return NULL;
    struct helper_job *j = list_first(&h->waiting, struct helper_job, link);
    list_remove(&j->link);
    return j;
}

static void *work(void *arg)
{
    struct helper *h = arg;
    const uint64_t one = 1;
    struct helper_job *j;

    pthread_mutex_lock(&h->lock);
    while ((j = next_job(h))) {
        pthread_mutex_unlock(&h->lock);
        j->run(j);
        pthread_mutex_lock(&h->lock);
        list_push_back(&h->ended, &j->link);
        atomic_fetch_add(&h->ended_n, 1);
        /* EAGAIN is a full counter: the loop is being woken already. */
        ssize_t ignored = write(h->wake_fd, &one, sizeof one);
        (void)ignored;
    }
    pthread_mutex_unlock(&h->lock);
    return NULL;
}

static void finish(struct helper *h)
{
    struct list ended;

    list_init(&ended);
    pthread_mutex_lock(&h->lock);
    list_append(&ended, &h->ended);
    atomic_store(&h->ended_n, 0);
    pthread_mutex_unlock(&h->lock);
    while (!list_empty(&ended)) {
        struct helper_job *j = list_first(&ended, struct helper_job, link);
        list_remove(&j->link);
        h->jobs--;
        j->done(j);
    }
}

static bool on_poll(struct loop_source *s)
{
    struct helper *h = container_of(s, struct helper, source);

    if (atomic_load(&h->ended_n) == 0)
        return false;
    finish(h);
    return true;
}

/* The thread always writes the wake fd: a job is a thousand times as long as that. */
static void on_sleep(struct loop_source *s, bool sleeping) {}

struct helper *helper_new(struct loop *l)
{
    struct helper *h = calloc(1, sizeof *h);

    must(h);
    h->loop = l;
    h->source.poll = on_poll, h->source.sleep = on_sleep;
    h->wake_fd = loop_wake_fd(l);
    list_init(&h->source.link);
    list_init(&h->waiting);
    list_init(&h->ended);
    pthread_mutex_init(&h->lock, NULL);
    pthread_cond_init(&h->wanted, NULL);
    return h;
}

/* Signals are for the loop's thread. */
static bool start(struct helper *h)
{
    sigset_t all, old;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    h->running = pthread_create(&h->thread, NULL, work, h) == 0;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (h->running)
        loop_source_add(h->loop, &h->source);
    return h->running;
}

err helper_submit(struct helper *h, struct helper_job *j)
{
    if (h->jobs >= HELPER_JOBS_MAX)
        return ERR_FULL;
    if (!h->running && !start(h))
        return ERR_AWAY;
    h->jobs++;
    list_init(&j->link);
    pthread_mutex_lock(&h->lock);
    list_push_back(&h->waiting, &j->link);
    pthread_cond_signal(&h->wanted);
    pthread_mutex_unlock(&h->lock);
    return ERR_OK;
}

void helper_free(struct helper *h)
{
    if (h->running) {
        pthread_mutex_lock(&h->lock);
        h->stop = true;
        pthread_cond_signal(&h->wanted);
        pthread_mutex_unlock(&h->lock);
        pthread_join(h->thread, NULL);
        loop_source_remove(h->loop, &h->source);
        finish(h);
        must(h->jobs == 0);
    }
    pthread_mutex_destroy(&h->lock);
    pthread_cond_destroy(&h->wanted);
    free(h);
}
