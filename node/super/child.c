/* The child's end: one datagram is one message; what comes is decoded and handed to a callback,
 * what goes waits in a bounded list while the socket is full. The supervisor always reads, so the
 * bound (as many as a big user list has chunks) is reached only when it hangs; then replies are
 * dropped, never the child's turn. */
#include "node/super/child.h"

#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "node/os/control.h"
#include "pemberley/list.h"
#include "proto/bus/control.pb-c.h"

enum { CHUNK = 60 * 1024, WAITING_MAX = 1024, ARGV_MAX = 64 };

struct packet {
    struct list link;
    size_t n;
    char bytes[];
};

struct child {
    int fd;
    const struct child_calls *calls;
    void *ctx;
    struct list waiting; /* struct packet */
    size_t waiting_count;
    bool lost;
    char buffer[CONTROL_MESSAGE_MAX];
};

bool child_has_supervisor(void)
{
    int type;
    socklen_t n = sizeof type;
    return !getsockopt(CHILD_FD, SOL_SOCKET, SO_TYPE, &type, &n) && type == SOCK_SEQPACKET;
}

struct child *child_open(int fd, const struct child_calls *calls, void *ctx)
{
    struct child *c = calloc(1, sizeof *c);
    must(c);
    c->fd = fd, c->calls = calls, c->ctx = ctx;
    list_init(&c->waiting);
    return c;
}

static void drop_first(struct child *c)
{
    struct packet *p = list_first(&c->waiting, struct packet, link);
    list_remove(&p->link);
    c->waiting_count--;
    free(p);
}

void child_close(struct child *c)
{
    while (!list_empty(&c->waiting))
        drop_first(c);
    close(c->fd);
    free(c);
}

int child_fd(const struct child *c) { return c->fd; }

short child_events(const struct child *c)
{
    return list_empty(&c->waiting) ? POLLIN : POLLIN | POLLOUT;
}

/* ---- out ------------------------------------------------------------------------------------- */

static void flush(struct child *c)
{
    while (!list_empty(&c->waiting)) {
        struct packet *p = list_first(&c->waiting, struct packet, link);
        if (control_write(c->fd, p->bytes, p->n, NULL, 0) == ERR_FULL)
            return;
        drop_first(c);
    }
}

static void send_message(struct child *c, Control__FromChild *m)
{
    size_t n = control__from_child__get_packed_size(m);
    struct packet *p = malloc(sizeof *p + n);
    must(p && n <= CONTROL_MESSAGE_MAX);
    p->n = control__from_child__pack(m, (uint8_t *)p->bytes);
    if (c->waiting_count == WAITING_MAX) {
        free(p);
        return;
    }
    list_push_back(&c->waiting, &p->link);
    c->waiting_count++;
    flush(c);
}

void child_ready(struct child *c, const char *loop)
{
    Control__Ready ready = CONTROL__READY__INIT;
    Control__FromChild m = CONTROL__FROM_CHILD__INIT;
    ready.loop = (char *)(uintptr_t)loop;
    m.what_case = CONTROL__FROM_CHILD__WHAT_READY, m.ready = &ready;
    send_message(c, &m);
}

void child_stopped(struct child *c, uint64_t sessions, uint64_t flushed)
{
    Control__Stopped stopped = CONTROL__STOPPED__INIT;
    Control__FromChild m = CONTROL__FROM_CHILD__INIT;
    stopped.has_sessions = stopped.has_flushed = 1;
    stopped.sessions = sessions, stopped.flushed = flushed;
    m.what_case = CONTROL__FROM_CHILD__WHAT_STOPPED, m.stopped = &stopped;
    send_message(c, &m);
    struct pollfd p = {.fd = c->fd, .events = POLLOUT};
    while (!list_empty(&c->waiting) && poll(&p, 1, 1000) > 0 && !(p.revents & (POLLERR | POLLHUP)))
        flush(c);
}

void child_reloaded(struct child *c, uint64_t generation)
{
    Control__Reloaded reloaded = CONTROL__RELOADED__INIT;
    Control__FromChild m = CONTROL__FROM_CHILD__INIT;
    reloaded.generation = generation;
    m.what_case = CONTROL__FROM_CHILD__WHAT_RELOADED, m.reloaded = &reloaded;
    send_message(c, &m);
}

void child_poisoned(struct child *c, enum child_kind kind, uint32_t index, uint64_t incarnation)
{
    Control__Poisoned poisoned = CONTROL__POISONED__INIT;
    Control__FromChild m = CONTROL__FROM_CHILD__INIT;
    poisoned.kind = (Control__Kind)kind, poisoned.index = index;
    poisoned.incarnation = incarnation;
    m.what_case = CONTROL__FROM_CHILD__WHAT_POISONED, m.poisoned = &poisoned;
    send_message(c, &m);
}

void child_ended(struct child *c, enum member_end why, uint64_t epoch)
{
    Control__Ended ended = CONTROL__ENDED__INIT;
    Control__FromChild m = CONTROL__FROM_CHILD__INIT;
    ended.why = why, ended.epoch = epoch;
    m.what_case = CONTROL__FROM_CHILD__WHAT_ENDED, m.ended = &ended;
    send_message(c, &m);
}

void child_stalled(struct child *c, bool stalled, bool company, uint64_t epoch)
{
    Control__Stalled now = CONTROL__STALLED__INIT;
    Control__FromChild m = CONTROL__FROM_CHILD__INIT;
    now.stalled = stalled, now.company = company, now.epoch = epoch;
    m.what_case = CONTROL__FROM_CHILD__WHAT_STALLED, m.stalled = &now;
    send_message(c, &m);
}

void child_epoch(struct child *c, uint64_t epoch)
{
    Control__Epoch known = CONTROL__EPOCH__INIT;
    Control__FromChild m = CONTROL__FROM_CHILD__INIT;
    known.epoch = epoch;
    m.what_case = CONTROL__FROM_CHILD__WHAT_EPOCH, m.epoch = &known;
    send_message(c, &m);
}

void child_stuck(struct child *c, uint32_t shard, uint64_t incarnation)
{
    Control__Stuck stuck = CONTROL__STUCK__INIT;
    Control__FromChild m = CONTROL__FROM_CHILD__INIT;
    stuck.index = shard, stuck.incarnation = incarnation;
    m.what_case = CONTROL__FROM_CHILD__WHAT_STUCK, m.stuck = &stuck;
    send_message(c, &m);
}

void child_ask(struct child *c, uint64_t id, size_t argc, const str *argv)
{
    ProtobufCBinaryData args[ARGV_MAX];
    Control__Command ask = CONTROL__COMMAND__INIT;
    Control__FromChild m = CONTROL__FROM_CHILD__INIT;
    must(id && argc && argc <= array_len(args));
    for (size_t i = 0; i < argc; i++)
        args[i] = (ProtobufCBinaryData){argv[i].n, (uint8_t *)(uintptr_t)argv[i].p};
    ask.id = id, ask.argv = args, ask.n_argv = argc;
    m.what_case = CONTROL__FROM_CHILD__WHAT_ASK, m.ask = &ask;
    send_message(c, &m);
}

void child_reply(struct child *c, uint64_t id, unsigned exit, str text)
{
    do {
        size_t n = text.n < CHUNK ? text.n : CHUNK;
        Control__Reply reply = CONTROL__REPLY__INIT;
        Control__FromChild m = CONTROL__FROM_CHILD__INIT;
        reply.id = id, reply.exit = exit, reply.more = n < text.n;
        reply.text.data = (uint8_t *)(uintptr_t)text.p, reply.text.len = n;
        m.what_case = CONTROL__FROM_CHILD__WHAT_REPLY, m.reply = &reply;
        send_message(c, &m);
        text = str_skip(text, n);
    } while (text.n);
}

/* ---- in -------------------------------------------------------------------------------------- */

/* Descriptors that came with a message; those nobody took are closed. */
struct fds {
    int fd[CONTROL_FDS_MAX];
    size_t n;
};

static int take(struct fds *f, size_t i)
{
    int fd = i < f->n ? f->fd[i] : -1;
    if (i < f->n)
        f->fd[i] = -1;
    return fd;
}

static void on_start(struct child *c, const Control__Start *s, struct fds *f)
{
    if (!c->calls->on_start || s->secret.len != CHILD_SECRET)
        return;
    struct child_start start = {
        .kind = (enum child_kind)s->kind,
        .index = s->index,
        .shards = s->shards,
        .stores = s->stores,
        .incarnation = s->incarnation,
        .node = str_of(s->node),
        .conf_fd = take(f, 0),
        .metrics_fd = take(f, 1),
        .wake_fd = take(f, 2),
        .bell_fd = take(f, 3),
        .certs_fd = take(f, 4), /* a store worker has none, */
        .cluster = {.owner = s->owner,
                    .again = s->again,
                    .epoch = s->epoch,
                    .identity_fd = take(f, 5)}, /* nor has a node without a cluster this */
    };
    memcpy(start.secret, s->secret.data, CHILD_SECRET);
    c->calls->on_start(c->ctx, &start);
    explicit_bzero(start.secret, sizeof start.secret);
}

static void on_peer_up(struct child *c, const Control__PeerUp *p, struct fds *f)
{
    if (!c->calls->on_peer_up)
        return;
    const struct child_peer peer = {
        .kind = (enum child_kind)p->kind,
        .index = p->index,
        .incarnation = p->incarnation,
        .segment_fd = take(f, 0),
        .wake_fd = take(f, 1),
        .bell_fd = take(f, 2),
    };
    c->calls->on_peer_up(c->ctx, &peer);
}

static void on_drain(struct child *c, const Control__Drain *m)
{
    const struct child_drain drain = {m->on, m->now, m->count, m->per_ms};
    if (c->calls->on_drain)
        c->calls->on_drain(c->ctx, &drain);
}

static void on_wish(struct child *c, const Control__Wish *m)
{
    const struct child_wish wish = {m->drain, m->weight};
    if (c->calls->on_wish)
        c->calls->on_wish(c->ctx, &wish);
}

static void on_answer(struct child *c, const Control__Reply *m)
{
    if (c->calls->on_answer)
        c->calls->on_answer(c->ctx, m->id, m->exit, str_from(m->text.data, m->text.len), m->more);
}

static void on_command(struct child *c, const Control__Command *m)
{
    str argv[ARGV_MAX];
    size_t n = m->n_argv < array_len(argv) ? m->n_argv : array_len(argv);
    for (size_t i = 0; i < n; i++)
        argv[i] = str_from(m->argv[i].data, m->argv[i].len);
    if (c->calls->on_command)
        c->calls->on_command(c->ctx, m->id, n, argv);
    else
        child_reply(c, m->id, 1, STR("this process takes no commands"));
}

static void dispatch(struct child *c, const Control__ToChild *m, struct fds *f)
{
    const struct child_calls *k = c->calls;
    switch (m->what_case) {
    case CONTROL__TO_CHILD__WHAT_START: on_start(c, m->start, f); break;
    case CONTROL__TO_CHILD__WHAT_LISTENER:
        if (k->on_listener)
            k->on_listener(c->ctx, (enum child_listener)m->listener->kind, m->listener->owner,
                           str_of(m->listener->address), take(f, 0));
        break;
    case CONTROL__TO_CHILD__WHAT_LISTENER_GONE:
        if (k->on_listener_gone)
            k->on_listener_gone(c->ctx, m->listener_gone->owner);
        break;
    case CONTROL__TO_CHILD__WHAT_PEER_UP: on_peer_up(c, m->peer_up, f); break;
    case CONTROL__TO_CHILD__WHAT_PEER_DOWN:
        if (k->on_peer_down)
            k->on_peer_down(c->ctx, (enum child_kind)m->peer_down->kind, m->peer_down->index,
                            m->peer_down->incarnation);
        break;
    case CONTROL__TO_CHILD__WHAT_RELOAD:
        if (k->on_reload) {
            int conf = take(f, 0);
            k->on_reload(c->ctx, m->reload->generation, conf, take(f, 1));
        }
        break;
    case CONTROL__TO_CHILD__WHAT_DRAIN: on_drain(c, m->drain); break;
    case CONTROL__TO_CHILD__WHAT_CLERK:
        if (k->on_clerk)
            k->on_clerk(c->ctx, m->clerk->shard);
        break;
    case CONTROL__TO_CHILD__WHAT_WISH: on_wish(c, m->wish); break;
    case CONTROL__TO_CHILD__WHAT_IDENTITY:
        if (k->on_identity)
            k->on_identity(c->ctx, take(f, 0));
        break;
    case CONTROL__TO_CHILD__WHAT_ANSWER: on_answer(c, m->answer); break;
    case CONTROL__TO_CHILD__WHAT_COMMAND: on_command(c, m->command); break;
    case CONTROL__TO_CHILD__WHAT_STOP:
        if (k->on_stop)
            k->on_stop(c->ctx, m->stop->deadline_ms);
        break;
    default: break; /* of a newer supervisor: not for us */
    }
}

static void lose(struct child *c)
{
    if (!c->lost && c->calls->on_lost) {
        c->lost = true;
        c->calls->on_lost(c->ctx);
    }
    c->lost = true;
}

/* One message; false when none is waiting. */
static bool receive(struct child *c)
{
    struct fds f = {.n = 0};
    size_t n;
    err e = control_read(c->fd, c->buffer, &n, f.fd, &f.n);
    if (e == ERR_PARTIAL)
        return false;
    if (e != ERR_OK) {
        lose(c);
        return false;
    }
    Control__ToChild *m = control__to_child__unpack(NULL, n, (const uint8_t *)c->buffer);
    if (m) {
        dispatch(c, m, &f);
        control__to_child__free_unpacked(m, NULL);
    }
    for (size_t i = 0; i < f.n; i++)
        if (f.fd[i] >= 0)
            close(f.fd[i]);
    return true;
}

void child_turn(struct child *c)
{
    flush(c);
    while (!c->lost && receive(c))
        ;
}
