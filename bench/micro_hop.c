/* micro_hop: what a hop over shared memory costs between two processes, each with its own loop.
 *   batched: frames of 300 bytes, 64 per turn, as fast as the other end takes them
 *   single:  one frame there and one back, each end asleep in between (two wake-ups)
 * Prints nanoseconds per frame and hop (the clock's: two processes wait for each other), the median
 * of the rounds and the least. micro_hop [io_uring|epoll] */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "node/os/fifo.h"
#include "node/os/os.h"

enum { FRAME = 300, BATCH = 64, SINGLE = 50000, ROUNDS = 5 };
enum { ACK_EVERY = 1024, WINDOW = 8 * ACK_EVERY, BATCHED = 1000 * ACK_EVERY };

struct side {
    struct fifo_end end;
    int bell, wake;
    struct loop *loop;
    struct fifo_hub *hub;
    unsigned peer;
    uint64_t got;
    bool echo;
};

static void send_one(struct side *s)
{
    static char frame[FRAME];
    struct iovec iov = {frame, sizeof frame};
    fifo_hub_send(s->hub, s->peer, &iov, 1);
}

static void on_frame(void *ctx, unsigned peer, const char *p, size_t n)
{
    struct side *s = ctx;
    s->got++;
    if (s->echo || (s->end.peer == 1 && s->got % ACK_EVERY == 0))
        send_one(s);
}

static void on_poisoned(void *ctx, unsigned peer, const char *why)
{
    fprintf(stderr, "poisoned: %s\n", why);
    abort();
}

static void open_side(struct side *s, const struct side *other, int segment,
                      enum loop_choice choice)
{
    struct loop_config lc = {.choice = choice, .wake_fd = s->wake};
    struct loop_fault fault;
    must(loop_new(&lc, &fault, &s->loop) == ERR_OK);
    struct fifo_hub_config c = {.self = s->end,
                                .bell_fd = s->bell,
                                .loop = s->loop,
                                .frame_max = 1 << 20,
                                .outbox_max = 64 << 20,
                                .on_frame = on_frame,
                                .on_poisoned = on_poisoned,
                                .ctx = s};
    must(fifo_hub_open(&c, &s->hub) == ERR_OK);
    must(fifo_hub_attach(s->hub, other->end, segment, dup(other->bell), dup(other->wake)) ==
         ERR_OK);
    s->peer = other->end.peer;
}

static uint64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Within a window, as all senders are; the other end acknowledges now and then. */
static double batched(struct side *s)
{
    uint64_t begin = now_ns(), sent = 0, got = s->got;
    while ((s->got - got) * ACK_EVERY < BATCHED) {
        bool open = sent < BATCHED && sent - (s->got - got) * ACK_EVERY < WINDOW;
        for (int i = 0; i < BATCH && open; i++, sent++)
            send_one(s);
        loop_turn(s->loop, open ? 0 : 1000);
    }
    return (double)(now_ns() - begin) / BATCHED;
}

static double single(struct side *s)
{
    uint64_t begin = now_ns();
    for (unsigned i = 0; i < SINGLE; i++) {
        uint64_t got = s->got;
        send_one(s);
        while (s->got == got)
            loop_turn(s->loop, 1000);
    }
    return (double)(now_ns() - begin) / SINGLE / 2;
}

static int smaller(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void run(enum loop_choice choice, bool echo, const char *what)
{
    struct side a = {.end = {0, 1}}, b = {.end = {1, 1}, .echo = echo};
    struct fifo_end ends[2] = {a.end, b.end};
    double ns[ROUNDS];
    int segment;
    must(fifo_segment_create(fifo_size_for(2), ends, &segment) == ERR_OK);
    must(fifo_bell_create(&a.bell) == ERR_OK && fifo_bell_create(&b.bell) == ERR_OK);
    a.wake = eventfd(0, EFD_NONBLOCK), b.wake = eventfd(0, EFD_NONBLOCK);
    fflush(stdout); /* else the other end has the lines too */
    pid_t pid = fork();
    if (pid == 0) {
        open_side(&b, &a, segment, choice);
        loop_run(b.loop);
    }
    open_side(&a, &b, segment, choice);
    for (int i = 0; i < ROUNDS; i++)
        ns[i] = echo ? single(&a) : batched(&a);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    fifo_hub_close(a.hub);
    loop_close(a.loop);
    qsort(ns, ROUNDS, sizeof *ns, smaller);
    printf("%-44s %12.1f %12.1f\n", what, ns[ROUNDS / 2], ns[0]);
}

int main(int argc, char **argv)
{
    enum loop_choice choice = argc > 1 && str_is(str_of(argv[1]), "epoll") ? LOOP_EPOLL : LOOP_AUTO;
    printf("%-44s %12s %12s  (%d rounds)\n", "ns each, 300 bytes", "median", "least", ROUNDS);
    run(choice, false, "hop, batched");
    run(choice, true, "hop, single, both ends asleep");
    return 0;
}
