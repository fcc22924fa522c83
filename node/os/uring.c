/* uring: the loop on io_uring (systems.md 3). SINGLE_ISSUER and DEFER_TASKRUN: only the loop's
 * thread enters the ring, and nothing completes unless it enters with GETEVENTS, which each turn
 * does once.
 *
 * Receiving: one multishot recv per connection takes 4 KiB buffers out of a ring shared by all, so
 * that an idle connection holds none. It ends by itself after its share (RECV_SHARE bytes); whoever
 * has had that, met an empty buffer ring or was ended by the kernel, which may end a multishot at
 * any completion, goes to the list of the starved and is armed again, in order, at the turn's end.
 * That is the fairness between connections; and whoever stops reading finds no more than a share in
 * the completion queue, however fast its peer is: a cancel comes too late for that, for one enter
 * takes 400 KB from a fast sender, and more while the next one is on its way.
 *
 * The share is the kernel's business since Linux 6.17 (a multishot's total length). Older ones
 * would take as much as the ring has buffers, 4 MiB; there each receive is one-shot, of one buffer,
 * which costs its submission again each time: 5 to 10 % of a message.
 *
 * Rejected: direct descriptors (closed ones leak before Linux 6.13), multishot accept (no address),
 * SEND_ZC and MSG_RING (no gain). Nothing newer than Linux 6.1 is needed. */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#define URING_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define URING_ASAN 1
#endif
#endif
#ifdef URING_ASAN
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

#include "node/os/loop_impl.h"

enum {
    SQ_ENTRIES = 1024,
    CQ_ENTRIES = 8192,
    BUFFERS = 1024, /* a power of two */
    BUFFER_SIZE = 4096,
    BUFFER_GROUP = 0,
    RECV_SHARE = LOOP_RECV_MAX - BUFFER_SIZE, /* the last buffer may go beyond it */
    ENOMEM_TRIES = 40,                        /* of 50 ms */
};
_Static_assert(RECV_SHARE > 0 && RECV_SHARE + BUFFER_SIZE <= LOOP_RECV_MAX,
               "what one receive brings is at most what the door promises");

struct completion {
    struct op *op;
    int res;
    unsigned flags;
};
struct queue {
    struct completion *c;
    size_t n, cap;
};

struct uring {
    struct loop loop;
    struct io_uring ring;
    struct io_uring_buf_ring *buffer_ring;
    char *buffers;
    unsigned returned; /* buffers added to the ring but not shown to the kernel yet */
    bool shares;       /* the kernel ends a multishot recv after a share */
    struct queue collected, running;
};

static struct uring *uring_of(struct loop *l) { return container_of(l, struct uring, loop); }

/* ---- completions ----------------------------------------------------------------------------- */

static void queue_put(struct queue *q, struct completion c)
{
    if (q->n == q->cap) {
        q->cap = q->cap ? q->cap * 2 : CQ_ENTRIES;
        q->c = realloc(q->c, q->cap * sizeof *q->c);
        must(q->c);
    }
    q->c[q->n++] = c;
}

/* Moves what the kernel has completed to our queue; nothing is called. */
static unsigned collect(struct uring *u)
{
    struct io_uring_cqe *cqe;
    unsigned head, seen = 0, n = 0;
    if (io_uring_cq_has_overflow(&u->ring))
        u->loop.stats.overflows++;
    io_uring_for_each_cqe(&u->ring, head, cqe)
    {
        seen++;
        struct op *op = io_uring_cqe_get_data(cqe);
        if (!op) /* a cancel that found nothing */
            continue;
        queue_put(&u->collected, (struct completion){op, cqe->res, cqe->flags});
        n++;
    }
    io_uring_cq_advance(&u->ring, seen);
    u->loop.stats.buffers_free = u->collected.n < BUFFERS ? BUFFERS - u->collected.n : 0;
    return n;
}

/* A free submission entry. A full queue is submitted; if the kernel refuses (EBUSY: completions it
 * has no room for), collecting them makes the room. */
static struct io_uring_sqe *sqe_get(struct uring *u)
{
    struct io_uring_sqe *sqe;
    while (!(sqe = io_uring_get_sqe(&u->ring))) {
        int r = io_uring_submit(&u->ring);
        must(r >= 0 || r == -EBUSY || r == -EAGAIN || r == -EINTR);
        if (r < 0)
            collect(u);
    }
    return sqe;
}

static void buffer_return(struct uring *u, unsigned id)
{
    char *p = u->buffers + (size_t)id * BUFFER_SIZE;
    ASAN_POISON_MEMORY_REGION(p, BUFFER_SIZE); /* the kernel writes through it; we must not look */
    io_uring_buf_ring_add(u->buffer_ring, p, BUFFER_SIZE, (unsigned short)id,
                          io_uring_buf_ring_mask(BUFFERS), (int)u->returned++);
}

static void buffers_publish(struct uring *u)
{
    if (u->returned)
        io_uring_buf_ring_advance(u->buffer_ring, (int)u->returned);
    u->returned = 0;
}

/* ---- arm and cancel -------------------------------------------------------------------------- */

/* The share is what later headers call optlen, in the same place. */
static void prep_share(struct io_uring_sqe *sqe, int fd)
{
    io_uring_prep_recv_multishot(sqe, fd, NULL, 0, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = BUFFER_GROUP;
    sqe->file_index = RECV_SHARE;
}

static void prep_recv(const struct uring *u, struct io_uring_sqe *sqe, int fd)
{
    if (u->shares)
        return prep_share(sqe, fd);
    io_uring_prep_recv(sqe, fd, NULL, BUFFER_SIZE, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = BUFFER_GROUP;
}

static void arm(struct loop *l, struct op *op)
{
    struct io_uring_sqe *sqe = sqe_get(uring_of(l));
    switch (op->kind) {
    case OP_ACCEPT: {
        struct accept_op *a = container_of(op, struct accept_op, op);
        io_uring_prep_accept(sqe, op->fd, (struct sockaddr *)&a->address, &a->address_len,
                             SOCK_CLOEXEC);
        break;
    }
    case OP_RECV: prep_recv(uring_of(l), sqe, op->fd); break;
    case OP_SEND:
        io_uring_prep_sendmsg(sqe, op->fd, &container_of(op, struct send_op, op)->msg,
                              MSG_WAITALL | MSG_NOSIGNAL);
        break;
    case OP_POLL: io_uring_prep_poll_add(sqe, op->fd, (unsigned)op->res); break;
    }
    io_uring_sqe_set_data(sqe, op);
}

/* By the op's address. If the op has completed meanwhile, and even if its memory is an op anew,
 * this is harmless: entries are taken in order, so the cancel comes before the new op. */
static void cancel_armed(struct uring *u, struct op *op)
{
    struct io_uring_sqe *sqe = sqe_get(u);
    io_uring_prep_cancel(sqe, op, 0);
    sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    io_uring_sqe_set_data(sqe, NULL);
}

static void cancel(struct loop *l, struct op *op)
{
    if (!list_empty(&op->link)) /* starved: the kernel does not have it */
        loop_complete(l, op, -ECANCELED);
    else
        cancel_armed(uring_of(l), op);
}

/* ---- run ------------------------------------------------------------------------------------- */

static void recv_data(struct uring *u, struct recv_op *r, const struct completion *c)
{
    unsigned id = c->flags >> IORING_CQE_BUFFER_SHIFT;
    char *p = u->buffers + (size_t)id * BUFFER_SIZE;
    must(id < BUFFERS && c->res <= BUFFER_SIZE);
    ASAN_UNPOISON_MEMORY_REGION(p, (size_t)c->res);
    r->data(r, p, (size_t)c->res);
    buffer_return(u, id);
}

static bool recv_again(int res)
{
    return res > 0 || res == -ENOBUFS || res == -EAGAIN || res == -EINTR;
}

/* The request ended: for good, or to be armed again. */
static void recv_ended(struct uring *u, struct op *op, int res)
{
    if (res == -ENOBUFS)
        u->loop.stats.buffers_exhausted++;
    if (!recv_again(res))
        loop_finish(op, res);
    else if (op->state == OP_CANCELLING)
        loop_finish(op, -ECANCELED);
    else
        loop_starve(&u->loop, op);
}

static void run_recv(struct uring *u, const struct completion *c)
{
    struct recv_op *r = container_of(c->op, struct recv_op, op);
    if (c->res > 0)
        recv_data(u, r, c);
    else if (c->flags & IORING_CQE_F_BUFFER) /* the kernel picked one and had nothing to put in */
        buffer_return(u, c->flags >> IORING_CQE_BUFFER_SHIFT);
    if (!(c->flags & IORING_CQE_F_MORE))
        recv_ended(u, c->op, c->res);
}

/* A listener that is O_NONBLOCK fails instead of waiting. */
static bool accept_again(struct uring *u, const struct completion *c)
{
    if (c->res != -EAGAIN || c->op->state != OP_ARMED)
        return false;
    int flags = fcntl(c->op->fd, F_GETFL);
    if (flags < 0 || !(flags & O_NONBLOCK) || fcntl(c->op->fd, F_SETFL, flags & ~O_NONBLOCK) < 0)
        return false;
    arm(&u->loop, c->op);
    return true;
}

static void run_one(struct uring *u, const struct completion *c)
{
    must(c->op->state == OP_ARMED || c->op->state == OP_CANCELLING);
    if (c->op->kind == OP_RECV)
        run_recv(u, c);
    else if (c->op->kind != OP_ACCEPT || !accept_again(u, c))
        loop_finish(c->op, c->res);
}

/* What a full submission queue made us collect meanwhile is for the next turn. */
static bool run(struct loop *l)
{
    struct uring *u = uring_of(l);
    struct queue batch = u->collected;
    u->collected = u->running;
    for (size_t i = 0; i < batch.n; i++)
        run_one(u, &batch.c[i]);
    buffers_publish(u);
    batch.n = 0;
    u->running = batch;
    return u->collected.n > 0;
}

static void turn_end(struct loop *l)
{
    while (!list_empty(&l->starved)) {
        struct op *op = list_first(&l->starved, struct op, link);
        list_remove(&op->link);
        arm(l, op);
    }
}

static unsigned wait_for(struct loop *l, unsigned want, uint64_t us_max)
{
    struct uring *u = uring_of(l);
    int r;
    if (want == 0) {
        r = io_uring_submit_and_get_events(&u->ring);
    } else {
        struct __kernel_timespec ts = {.tv_sec = (long long)(us_max / 1000000),
                                       .tv_nsec = (long long)(us_max % 1000000) * 1000};
        struct io_uring_cqe *cqe;
        r = io_uring_submit_and_wait_timeout(&u->ring, &cqe, want, &ts, NULL);
    }
    must(r >= 0 || r == -ETIME || r == -EINTR || r == -EBUSY || r == -EAGAIN);
    return collect(u);
}

/* ---- life ------------------------------------------------------------------------------------ */

static void uring_close(struct loop *l)
{
    struct uring *u = uring_of(l);
    io_uring_queue_exit(&u->ring); /* ends the wake-up op */
    ASAN_UNPOISON_MEMORY_REGION(u->buffers, (size_t)BUFFERS * BUFFER_SIZE);
    munmap(u->buffers, (size_t)BUFFERS * BUFFER_SIZE);
    munmap(u->buffer_ring, BUFFERS * sizeof(struct io_uring_buf));
    free(u->collected.c);
    free(u->running.c);
    free(u);
}

static const struct loop_impl uring_impl = {
    .name = "io_uring",
    .arm = arm,
    .cancel = cancel,
    .wait = wait_for,
    .run = run,
    .turn_end = turn_end,
    .now_us = loop_monotonic_us,
    .close = uring_close,
};

static err missing(struct loop_fault *fault, const char *feature, int error)
{
    *fault = (struct loop_fault){feature, error};
    return ERR_IO;
}

/* Rings of dead processes are uncounted late, so ENOMEM is worth a wait. */
static int ring_init(struct io_uring *ring, struct io_uring_params *params)
{
    for (int i = 0;; i++) {
        *params = (struct io_uring_params){
            .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                     IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE,
            .cq_entries = CQ_ENTRIES,
        };
        int r = io_uring_queue_init_params(SQ_ENTRIES, ring, params);
        if (r != -ENOMEM || i == ENOMEM_TRIES)
            return r;
        nanosleep(&(struct timespec){.tv_nsec = 50 * 1000 * 1000}, NULL);
    }
}

static const char *init_feature(int error)
{
    switch (error) {
    case EPERM:
        return "io_uring_setup (allow io_uring_setup, io_uring_enter and io_uring_register in the "
               "container's seccomp profile, and set kernel.io_uring_disabled=0)";
    case ENOMEM: return "io_uring_setup (raise RLIMIT_MEMLOCK: LimitMEMLOCK=infinity, ulimit -l)";
    case EINVAL: return "IORING_SETUP_SINGLE_ISSUER|DEFER_TASKRUN (Linux 6.1)";
    default: return "io_uring_setup";
    }
}

static err check_features(struct uring *u, unsigned features, struct loop_fault *fault)
{
    static const unsigned char ops[] = {IORING_OP_ACCEPT, IORING_OP_RECV, IORING_OP_SENDMSG,
                                        IORING_OP_POLL_ADD, IORING_OP_ASYNC_CANCEL};
    if (!(features & IORING_FEAT_EXT_ARG))
        return missing(fault, "IORING_FEAT_EXT_ARG", ENOTSUP);
    if (!(features & IORING_FEAT_NODROP))
        return missing(fault, "IORING_FEAT_NODROP", ENOTSUP);
    struct io_uring_probe *probe = io_uring_get_probe_ring(&u->ring);
    if (!probe)
        return missing(fault, "IORING_REGISTER_PROBE", ENOTSUP);
    bool all = true;
    for (size_t i = 0; i < array_len(ops); i++)
        all &= io_uring_opcode_supported(probe, ops[i]);
    io_uring_free_probe(probe);
    return all ? ERR_OK : missing(fault, "an io_uring operation", ENOTSUP);
}

/* A kernel that knows no share refuses the request before it looks at the descriptor. */
static bool has_shares(struct uring *u)
{
    struct io_uring_cqe *cqe;
    prep_share(sqe_get(u), -1);
    if (io_uring_submit_and_wait(&u->ring, 1) < 0 || io_uring_peek_cqe(&u->ring, &cqe) < 0)
        return false;
    int res = cqe->res;
    io_uring_cqe_seen(&u->ring, cqe);
    return res == -EBADF;
}

static void *map(size_t n)
{
    void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static err buffers_init(struct uring *u, struct loop_fault *fault)
{
    u->buffers = map((size_t)BUFFERS * BUFFER_SIZE);
    u->buffer_ring = map(BUFFERS * sizeof(struct io_uring_buf));
    if (!u->buffers || !u->buffer_ring)
        return missing(fault, "mmap of the receive buffers", errno);
    madvise(u->buffers, (size_t)BUFFERS * BUFFER_SIZE, MADV_DONTDUMP); /* peers' plain text */
    io_uring_buf_ring_init(u->buffer_ring);
    struct io_uring_buf_reg reg = {.ring_addr = (uint64_t)(uintptr_t)u->buffer_ring,
                                   .ring_entries = BUFFERS,
                                   .bgid = BUFFER_GROUP};
    int r = io_uring_register_buf_ring(&u->ring, &reg, 0);
    if (r < 0)
        return missing(fault, "IORING_REGISTER_PBUF_RING", -r);
    for (unsigned i = 0; i < BUFFERS; i++)
        buffer_return(u, i);
    buffers_publish(u);
    return ERR_OK;
}

static void undo(struct uring *u)
{
    io_uring_queue_exit(&u->ring);
    if (u->buffers)
        munmap(u->buffers, (size_t)BUFFERS * BUFFER_SIZE);
    if (u->buffer_ring)
        munmap(u->buffer_ring, BUFFERS * sizeof(struct io_uring_buf));
}

err uring_loop_new(const struct loop_config *c, struct loop_fault *fault, struct loop **out)
{
    struct io_uring_params params;
    struct uring *u = calloc(1, sizeof *u);
    must(u);
    *fault = (struct loop_fault){0};
    int r = ring_init(&u->ring, &params);
    if (r < 0) {
        free(u);
        return missing(fault, init_feature(-r), -r);
    }
    err e = check_features(u, params.features, fault);
    if (e == ERR_OK)
        u->shares = has_shares(u), e = buffers_init(u, fault);
    int wake_fd = e ? -1 : loop_own_wake_fd(c);
    if (e == ERR_OK && wake_fd < 0)
        e = missing(fault, "eventfd", errno);
    if (e) {
        undo(u);
        free(u);
        return e;
    }
    io_uring_register_ring_fd(&u->ring); /* only saves a look-up per turn */
    loop_init(&u->loop, &uring_impl, wake_fd);
    loop_start(&u->loop);
    *out = &u->loop;
    return ERR_OK;
}
