/* The fifos: lanes and links between threads (for TSan too), hubs in one process, and processes
 * that are killed. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "node/os/fifo_link.h"
#include "node/os/fifo_segment.h"
#include "node/os/os.h"

enum { FRAME_MAX = 256 * 1024, OUTBOX_MAX = 4 << 20, SIZE = 64 * 1024 };

/* Frame k: its number, its length, and bytes made of both. */
static size_t frame_len(uint64_t k)
{
    return k % 97 == 0 ? 100000 + k % 1000 : 16 + k * 7919 % 600;
}
static void frame_make(uint64_t k, char *p, size_t n)
{
    memcpy(p, &k, 8);
    memset(p + 8, (int)(k * 31 & 0xff), n - 8);
}
static bool frame_good(uint64_t k, const char *p, size_t n)
{
    uint64_t got;
    if (n != frame_len(k))
        return false;
    memcpy(&got, p, 8);
    for (size_t i = 8; i < n; i++)
        if ((unsigned char)p[i] != (k * 31 & 0xff))
            return false;
    return got == k;
}

/* ---- links between threads ------------------------------------------------------------------- */

struct wire {
    struct fifo_lane lanes[2];
    struct fifo_bell bells[2];
    char data[2][SIZE];
    struct fifo_link links[2];
};
enum { FRAMES = 30000 };

static struct wire *wire_new(void)
{
    struct wire *w = aligned_alloc(FIFO_CACHE_LINE, sizeof *w);
    memset(w, 0, sizeof *w);
    for (int i = 0; i < 2; i++) {
        fifo_link_init(&w->links[i], FRAME_MAX, OUTBOX_MAX);
        fifo_out_init(&w->links[i].out, &w->lanes[i], w->data[i], SIZE);
        fifo_in_init(&w->links[i].in, &w->lanes[1 - i], w->data[1 - i], SIZE);
    }
    return w;
}
static void wire_free(struct wire *w)
{
    for (int i = 0; i < 2; i++)
        fifo_link_close(&w->links[i]);
    free(w);
}

struct counter {
    uint64_t next;
    bool bad;
};
static void count_frame(void *ctx, const char *p, size_t n)
{
    struct counter *c = ctx;
    c->bad |= !frame_good(c->next++, p, n);
}

static void *produce(void *arg)
{
    struct wire *w = arg;
    char *p = malloc(FRAME_MAX), *scratch = malloc(FIFO_FRAGMENT_MAX);
    struct fifo_link *l = &w->links[0];
    bool ring;
    for (uint64_t k = 0; k < FRAMES || l->outbox_n;) {
        for (int batch = 0; batch < 16 && k < FRAMES && l->outbox_n < OUTBOX_MAX / 4;
             batch++, k++) {
            struct iovec iov[2] = {{p, 8}, {p + 8, frame_len(k) - 8}};
            frame_make(k, p, frame_len(k));
            fifo_link_send(l, iov, 2);
        }
        if (fifo_link_flush(l))
            fifo_bell_ring(&w->bells[1], 0);
        must(!l->poison);
        if (l->outbox_n) /* as if asleep until the consumer rings */
            while (!atomic_exchange(&w->bells[0].pending[0], 0))
                sched_yield();
    }
    must(fifo_link_poll(l, scratch, count_frame, NULL, &ring) == 0);
    free(scratch);
    free(p);
    return NULL;
}

static void frames_cross_threads_whole_and_in_order(void **state)
{
    struct wire *w = wire_new();
    struct counter c = {0};
    char scratch[FIFO_FRAGMENT_MAX];
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, produce, w), 0);
    while (c.next < FRAMES && !w->links[1].poison) {
        bool ring;
        if (!atomic_exchange(&w->bells[1].pending[0], 0)) {
            sched_yield();
            continue;
        }
        fifo_link_poll(&w->links[1], scratch, count_frame, &c, &ring);
        if (ring)
            fifo_bell_ring(&w->bells[0], 1);
    }
    pthread_join(thread, NULL);
    assert_null(w->links[1].poison);
    assert_false(c.bad);
    assert_int_equal(c.next, FRAMES);
    wire_free(w);
}

static void nothing_is_seen_before_it_is_published(void **state)
{
    struct wire *w = wire_new();
    struct counter c = {.next = 1};
    char scratch[FIFO_FRAGMENT_MAX], p[1024];
    bool ring;
    frame_make(1, p, frame_len(1));
    struct iovec iov = {p, frame_len(1)};
    fifo_link_send(&w->links[0], &iov, 1);
    assert_int_equal(fifo_link_poll(&w->links[1], scratch, count_frame, &c, &ring), 0);
    assert_true(fifo_link_flush(&w->links[0]));
    assert_false(fifo_link_flush(&w->links[0]));
    assert_int_equal(fifo_link_poll(&w->links[1], scratch, count_frame, &c, &ring), 1);
    assert_false(ring);
    assert_false(c.bad);
    wire_free(w);
}

static void a_full_lane_fills_the_outbox_and_asks_for_room(void **state)
{
    struct wire *w = wire_new();
    struct counter c = {0};
    char scratch[FIFO_FRAGMENT_MAX], *p = malloc(FRAME_MAX);
    bool ring = false, any_ring = false;
    for (uint64_t k = 0; k < 500; k++) {
        struct iovec iov = {p, frame_len(k)};
        frame_make(k, p, frame_len(k));
        fifo_link_send(&w->links[0], &iov, 1);
    }
    assert_true(w->links[0].outbox_n > 0);
    for (int i = 0; i < 1000 && c.next < 500; i++) {
        fifo_link_flush(&w->links[0]);
        fifo_link_poll(&w->links[1], scratch, count_frame, &c, &ring);
        any_ring |= ring;
        assert_true(ring || w->links[0].outbox_n == 0);
    }
    assert_true(any_ring);
    assert_int_equal(c.next, 500);
    assert_false(c.bad);
    assert_null(w->links[0].outbox);
    free(p);
    wire_free(w);
}

static void a_peer_that_never_reads_poisons_at_the_bound(void **state)
{
    struct wire *w = wire_new();
    static char p[100000];
    struct iovec iov = {p, sizeof p};
    for (int i = 0; i < 60; i++) {
        fifo_link_send(&w->links[0], &iov, 1);
        fifo_link_flush(&w->links[0]);
    }
    assert_non_null(w->links[0].poison);
    assert_true(w->links[0].outbox_n <= OUTBOX_MAX);
    wire_free(w);
}

static void poisons(void (*damage)(struct wire *w))
{
    struct wire *w = wire_new();
    struct counter c = {0};
    char scratch[FIFO_FRAGMENT_MAX];
    bool ring;
    damage(w);
    fifo_link_poll(&w->links[1], scratch, count_frame, &c, &ring);
    assert_non_null(w->links[1].poison);
    assert_int_equal(fifo_link_poll(&w->links[1], scratch, count_frame, &c, &ring), 0);
    wire_free(w);
}
static void raw(struct wire *w, uint32_t len, uint32_t flags, uint64_t tail)
{
    uint32_t header[2] = {len, flags};
    memcpy(w->data[0], header, sizeof header);
    w->lanes[0].tail = tail;
}
static void tail_too_far(struct wire *w) { w->lanes[0].tail = SIZE + 8; }
static void tail_odd(struct wire *w) { raw(w, 1, 0, 17); }
static void length_zero(struct wire *w) { raw(w, 0, 0, 64); }
static void length_huge(struct wire *w) { raw(w, 0xffffffff, 0, 64); }
static void length_beyond_tail(struct wire *w) { raw(w, 100, 0, 64); }
static void flags_unknown(struct wire *w) { raw(w, 8, 2, 16); }
static void frame_without_end(struct wire *w)
{
    uint32_t header[2] = {FIFO_FRAGMENT_MAX, FIFO_MORE};
    w->links[1].frame_max = 20000;
    for (int i = 0; i < 3; i++)
        memcpy(w->data[0] + i * (FIFO_FRAGMENT_MAX + 8), header, 8);
    w->lanes[0].tail = 3 * (FIFO_FRAGMENT_MAX + 8);
}

static void every_broken_rule_poisons_and_nothing_else(void **state)
{
    poisons(tail_too_far);
    poisons(tail_odd);
    poisons(length_zero);
    poisons(length_huge);
    poisons(length_beyond_tail);
    poisons(flags_unknown);
    poisons(frame_without_end);
}

static void a_consumer_that_lies_about_its_head_poisons(void **state)
{
    struct wire *w = wire_new();
    static char p[8000];
    struct iovec iov = {p, sizeof p};
    w->lanes[0].head = 1 << 30;
    for (int i = 0; i < 10; i++) {
        fifo_link_send(&w->links[0], &iov, 1);
        fifo_link_flush(&w->links[0]);
    }
    assert_non_null(w->links[0].poison);
    wire_free(w);
}

/* ---- hubs ------------------------------------------------------------------------------------ */

/* One process's fds as the supervisor holds them. */
struct proc {
    struct fifo_end end;
    int bell_fd, wake_fd;
    struct fifo_hub *hub;
    struct counter c;
    int poisoned;
    bool detach_in_frame;
};

static void hub_frame(void *ctx, unsigned peer, const char *p, size_t n)
{
    struct proc *me = ctx;
    count_frame(&me->c, p, n);
    if (me->detach_in_frame)
        fifo_hub_detach(me->hub, peer);
}
static void hub_poisoned(void *ctx, unsigned peer, const char *why)
{
    struct proc *me = ctx;
    me->poisoned++;
    fifo_hub_detach(me->hub, peer);
}

static struct proc proc_make(unsigned id, uint64_t incarnation)
{
    struct proc p = {.end = {id, incarnation}};
    assert_int_equal(fifo_bell_create(&p.bell_fd), ERR_OK);
    p.wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    assert_true(p.wake_fd >= 0);
    return p;
}
static void proc_open(struct proc *p, struct loop *l)
{
    struct fifo_hub_config c = {.self = p->end,
                                .bell_fd = dup(p->bell_fd),
                                .loop = l,
                                .frame_max = FRAME_MAX,
                                .outbox_max = OUTBOX_MAX,
                                .on_frame = hub_frame,
                                .on_poisoned = hub_poisoned,
                                .ctx = p};
    must(fifo_hub_open(&c, &p->hub) == ERR_OK);
}
static err proc_attach(struct proc *p, const struct proc *peer, int segment_fd)
{
    return fifo_hub_attach(p->hub, peer->end, dup(segment_fd), dup(peer->bell_fd),
                           dup(peer->wake_fd));
}
static void proc_close(struct proc *p)
{
    if (p->hub)
        fifo_hub_close(p->hub);
    close(p->bell_fd), close(p->wake_fd);
}
static int segment(const struct proc *a, const struct proc *b)
{
    struct fifo_end ends[2] = {a->end, b->end};
    int fd;
    assert_int_equal(fifo_segment_create(SIZE, ends, &fd), ERR_OK);
    return fd;
}
static void send_frames(struct proc *p, unsigned to, uint64_t from, uint64_t n)
{
    char *bytes = malloc(FRAME_MAX);
    for (uint64_t k = from; k < from + n; k++) {
        struct iovec iov = {bytes, frame_len(k)};
        frame_make(k, bytes, frame_len(k));
        fifo_hub_send(p->hub, to, &iov, 1);
    }
    free(bytes);
}

static void hubs_exchange_frames_and_wake_only_sleepers(void **state)
{
    struct proc a = proc_make(fifo_shard(0), 1), b = proc_make(fifo_store(3), 2);
    proc_open(&a, NULL), proc_open(&b, NULL);
    b.c.next = 1; /* frame 0 is a large one */
    int fd = segment(&a, &b);
    assert_int_equal(proc_attach(&a, &b, fd), ERR_OK);
    send_frames(&a, b.end.peer, 1, 3);
    fifo_hub_flush(a.hub); /* b is not attached yet: it must find this all the same */
    assert_false(fifo_hub_poll(b.hub));
    assert_int_equal(proc_attach(&b, &a, fd), ERR_OK);
    assert_true(fifo_hub_poll(b.hub));
    assert_int_equal(b.c.next, 4);
    assert_false(fifo_hub_poll(b.hub));

    uint64_t n;
    send_frames(&a, b.end.peer, 4, 1);
    fifo_hub_flush(a.hub);
    assert_int_equal(read(b.wake_fd, &n, 8), -1);
    assert_true(fifo_hub_poll(b.hub));
    fifo_hub_sleep(b.hub, true);
    send_frames(&a, b.end.peer, 5, 1);
    fifo_hub_flush(a.hub);
    send_frames(&a, b.end.peer, 6, 1);
    fifo_hub_flush(a.hub);
    assert_int_equal(read(b.wake_fd, &n, 8), 8);
    assert_int_equal(n, 1);
    assert_int_equal(fifo_hub_stats(a.hub)->wakeups, 1);
    fifo_hub_sleep(b.hub, false);
    assert_true(fifo_hub_poll(b.hub));
    assert_int_equal(b.c.next, 7);
    assert_false(b.c.bad);
    close(fd);
    proc_close(&a), proc_close(&b);
}

static void send_later(struct proc *p, unsigned to, uint64_t k)
{
    static char bytes[FRAME_MAX];
    struct iovec iov = {bytes, frame_len(k)};
    frame_make(k, bytes, frame_len(k));
    fifo_hub_send_later(p->hub, to, &iov, 1);
}
static bool was_woken(const struct proc *p)
{
    uint64_t n;
    return read(p->wake_fd, &n, sizeof n) == sizeof n;
}

static void what_may_wait_wakes_a_sleeper_only_after_a_while(void **state)
{
    struct proc a = proc_make(0, 1), b = proc_make(1, 2);
    struct loop_config lc = {.choice = LOOP_EPOLL, .wake_fd = dup(a.wake_fd)};
    struct loop_fault fault;
    struct loop *l;
    assert_int_equal(loop_new(&lc, &fault, &l), ERR_OK);
    proc_open(&a, l), proc_open(&b, NULL);
    b.c.next = 1;
    int fd = segment(&a, &b);
    assert_int_equal(proc_attach(&a, &b, fd), ERR_OK);
    assert_int_equal(proc_attach(&b, &a, fd), ERR_OK);
    fifo_hub_poll(b.hub);

    send_later(&a, 1, 1); /* to one that is awake */
    loop_turn(l, 0);
    assert_int_equal(loop_timers(l), 0);
    assert_true(fifo_hub_poll(b.hub));
    fifo_hub_sleep(b.hub, true);
    send_later(&a, 1, 2);
    loop_turn(l, 0);
    assert_int_equal(loop_timers(l), 1);
    assert_false(was_woken(&b));
    assert_true(fifo_hub_poll(b.hub)); /* woken by somebody else, it finds that */
    while (loop_timers(l))
        loop_turn(l, 1000);
    assert_false(was_woken(&b));

    send_later(&a, 1, 3);
    loop_turn(l, 0);
    assert_false(was_woken(&b));
    while (loop_timers(l))
        loop_turn(l, 1000);
    assert_true(was_woken(&b));
    fifo_hub_poll(b.hub);
    fifo_hub_sleep(b.hub, true);
    send_later(&a, 1, 4);
    send_frames(&a, 1, 5, 1); /* this one may not wait */
    loop_turn(l, 0);
    assert_true(was_woken(&b));
    fifo_hub_poll(b.hub);
    assert_int_equal(b.c.next, 6);
    assert_false(b.c.bad);
    close(fd);
    proc_close(&a), proc_close(&b);
    loop_close(l);
}

static void a_segment_of_another_incarnation_is_refused(void **state)
{
    struct proc a = proc_make(0, 1), b = proc_make(1, 2), b_new = proc_make(1, 3);
    proc_open(&a, NULL);
    int fd = segment(&a, &b);
    assert_int_equal(proc_attach(&a, &b_new, fd), ERR_BAD);
    assert_false(fifo_hub_attached(a.hub, 1));
    send_frames(&a, 1, 0, 1);
    assert_int_equal(fifo_hub_stats(a.hub)->dropped, 1);
    int plain = memfd_create("unsealed", MFD_CLOEXEC);
    assert_int_equal(ftruncate(plain, 4096 + 2 * SIZE), 0);
    assert_int_equal(proc_attach(&a, &b, plain), ERR_BAD);
    close(plain), close(fd);
    proc_close(&a), proc_close(&b), proc_close(&b_new);
}

static void a_peer_may_be_detached_from_its_own_frame(void **state)
{
    struct proc a = proc_make(0, 1), b = proc_make(1, 2);
    proc_open(&a, NULL), proc_open(&b, NULL);
    int fd = segment(&a, &b);
    assert_int_equal(proc_attach(&a, &b, fd), ERR_OK);
    assert_int_equal(proc_attach(&b, &a, fd), ERR_OK);
    b.detach_in_frame = true;
    send_frames(&a, 1, 1, 5);
    fifo_hub_flush(a.hub);
    fifo_hub_poll(b.hub);
    assert_int_equal(b.c.next, 1);
    assert_false(fifo_hub_attached(b.hub, 0));
    close(fd);
    proc_close(&a), proc_close(&b);
}

static void a_poisoned_peer_is_told_once(void **state)
{
    struct proc a = proc_make(0, 1), b = proc_make(1, 2);
    proc_open(&a, NULL), proc_open(&b, NULL);
    int fd = segment(&a, &b);
    assert_int_equal(proc_attach(&a, &b, fd), ERR_OK);
    assert_int_equal(proc_attach(&b, &a, fd), ERR_OK);
    struct fifo_segment s;
    assert_int_equal(fifo_segment_map(fd, &a.end, &b.end, &s), ERR_OK);
    send_frames(&a, 1, 1, 1);
    fifo_hub_flush(a.hub);
    memset(fifo_segment_data(&s, 0), 0xff, 64);
    fifo_hub_poll(b.hub);
    fifo_hub_poll(b.hub);
    assert_int_equal(b.poisoned, 1);
    assert_int_equal(b.c.next, 0);
    fifo_segment_unmap(&s);
    close(fd);
    proc_close(&a), proc_close(&b);
}

/* ---- killed processes ------------------------------------------------------------------------ */

/* A child that sends frames and reads ours until it is killed. More than the parent ever waits for,
 * less than fills the outbox: a parent that the machine keeps waiting must not poison the child. */
enum { CHILD_FRAMES = 2000 };

static void child_main(struct proc *me, const struct proc *peer, int segment_fd)
{
    struct loop_config c = {.choice = LOOP_EPOLL, .wake_fd = dup(me->wake_fd)};
    struct loop_fault fault;
    struct loop *l;
    must(loop_new(&c, &fault, &l) == ERR_OK);
    proc_open(me, l);
    must(proc_attach(me, peer, segment_fd) == ERR_OK);
    for (uint64_t k = 0;; k += 10) {
        if (k < CHILD_FRAMES)
            send_frames(me, peer->end.peer, k, 10);
        loop_turn(l, 1);
        must(!me->c.bad && !me->poisoned);
    }
}

static void kill_9_of_either_end_leaves_the_other_with_whole_frames(void **state)
{
    enum { KILLS = 40 };
    struct proc me = proc_make(0, 1);
    struct loop_config c = {.choice = LOOP_AUTO, .wake_fd = dup(me.wake_fd)};
    struct loop_fault fault;
    struct loop *l;
    uint64_t frames = 0;
    assert_int_equal(loop_new(&c, &fault, &l), ERR_OK);
    proc_open(&me, l);
    for (int i = 0; i < KILLS; i++) {
        struct proc other = proc_make(1, 100 + (uint64_t)i);
        int fd = segment(&me, &other);
        me.c = (struct counter){0};
        assert_int_equal(proc_attach(&me, &other, fd), ERR_OK);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            child_main(&other, &me, fd);
            _exit(0);
        }
        for (uint64_t k = 0; me.c.next < 20 + (uint64_t)i * 7 && !me.poisoned; k++) {
            if (k < 200)
                send_frames(&me, 1, k, 1);
            loop_turn(l, 1000);
        }
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        for (int t = 0; t < 10; t++)
            loop_turn(l, 0);
        assert_false(me.c.bad);
        assert_int_equal(me.poisoned, 0);
        frames += me.c.next;
        close(fd);
        proc_close(&other);
    }
    assert_true(frames > KILLS);
    proc_close(&me);
    loop_close(l);
}

static void the_size_follows_the_number_of_processes(void **state)
{
    assert_int_equal(fifo_size_for(1), 1 << 20);
    assert_int_equal(fifo_size_for(9), 1 << 20);
    assert_int_equal(fifo_size_for(16), 512 << 10);
    assert_int_equal(fifo_size_for(64), 128 << 10);
    assert_int_equal(fifo_size_for(128), 64 << 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_cross_threads_whole_and_in_order),
        cmocka_unit_test(nothing_is_seen_before_it_is_published),
        cmocka_unit_test(a_full_lane_fills_the_outbox_and_asks_for_room),
        cmocka_unit_test(a_peer_that_never_reads_poisons_at_the_bound),
        cmocka_unit_test(every_broken_rule_poisons_and_nothing_else),
        cmocka_unit_test(a_consumer_that_lies_about_its_head_poisons),
        cmocka_unit_test(hubs_exchange_frames_and_wake_only_sleepers),
        cmocka_unit_test(what_may_wait_wakes_a_sleeper_only_after_a_while),
        cmocka_unit_test(a_segment_of_another_incarnation_is_refused),
        cmocka_unit_test(a_peer_may_be_detached_from_its_own_frame),
        cmocka_unit_test(a_poisoned_peer_is_told_once),
        cmocka_unit_test(kill_9_of_either_end_leaves_the_other_with_whole_frames),
        cmocka_unit_test(the_size_follows_the_number_of_processes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
