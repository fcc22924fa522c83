/* One child: fork and exec (its own address space layout, no inherited heap), its control socket,
 * its death. What it needs is sent, never inherited. A message that its socket has no room for
 * waits here, with duplicates of its descriptors. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "node/os/control.h"
#include "node/super/families.h"
#include "node/super/inside.h"

enum { WAITING_MAX = 1024, OOM_SHARD = 200, OOM_STORE = 100, FDS_EACH = 8 };

struct message {
    struct list link;
    int fd[FDS_EACH];
    size_t fds, n;
    char bytes[];
};

const char *process_name(const struct process *p)
{
    return p->kind == CHILD_SHARD ? "shard" : "store";
}

static unsigned fifo_id(const struct process *p)
{
    return p->kind == CHILD_SHARD ? fifo_shard(p->index) : fifo_store(p->index);
}

void process_init(struct process *p, struct super *s, enum child_kind kind, uint32_t index)
{
    *p = (struct process){.super = s, .kind = kind, .index = index, .fd = -1};
    p->metrics_fd = p->wake_fd = p->bell_fd = -1;
    list_init(&p->waiting);
}

err process_open(struct process *p)
{
    err e = metric_page_create(&p->metrics_fd);
    return e ? e : metric_page_map(p->metrics_fd, &p->page);
}

/* ---- messages -------------------------------------------------------------------------------- */

static void drop_first(struct process *p)
{
    struct message *m = list_first(&p->waiting, struct message, link);
    list_remove(&m->link);
    p->waiting_count--;
    for (size_t i = 0; i < m->fds; i++)
        close(m->fd[i]);
    free(m);
}

void process_flush(struct process *p)
{
    while (!list_empty(&p->waiting)) {
        struct message *m = list_first(&p->waiting, struct message, link);
        if (control_write(p->fd, m->bytes, m->n, m->fd, m->fds) == ERR_FULL)
            return;
        drop_first(p);
    }
}

void process_send(struct process *p, Control__ToChild *what, const int *fds, size_t n_fds)
{
    size_t n = control__to_child__get_packed_size(what);
    must(n <= CONTROL_MESSAGE_MAX && n_fds <= FDS_EACH);
    if (p->fd < 0)
        return;
    if (p->waiting_count == WAITING_MAX) {
        kill(p->pid, SIGABRT); /* it has not read for a thousand messages: it hangs */
        return;
    }
    struct message *m = malloc(sizeof *m + n);
    must(m);
    m->n = control__to_child__pack(what, (uint8_t *)m->bytes);
    m->fds = 0;
    for (size_t i = 0; i < n_fds; i++)
        if (fds[i] >= 0)
            m->fd[m->fds++] = fcntl(fds[i], F_DUPFD_CLOEXEC, 3);
    list_push_back(&p->waiting, &m->link);
    p->waiting_count++;
    process_flush(p);
}

static void send_start(struct process *p)
{
    struct super *s = p->super;
    Control__Start start = CONTROL__START__INIT;
    Control__ToChild m = CONTROL__TO_CHILD__INIT;
    start.kind = (Control__Kind)p->kind, start.index = p->index;
    start.shards = s->shards, start.stores = 1;
    start.incarnation = p->incarnation;
    start.secret.data = s->secret, start.secret.len = sizeof s->secret;
    start.node = s->node;
    cluster_fill(p, &start);
    m.what_case = CONTROL__TO_CHILD__WHAT_START, m.start = &start;
    const int fds[] = {s->conf_fd,
                       p->metrics_fd,
                       p->wake_fd,
                       p->bell_fd,
                       p->kind == CHILD_SHARD ? s->certs_fd : -1,
                       p->kind == CHILD_SHARD ? s->cluster.identity_fd : -1};
    process_send(p, &m, fds, array_len(fds));
}

static void send_peer_up(struct process *to, const struct process *peer, int segment)
{
    Control__PeerUp up = CONTROL__PEER_UP__INIT;
    Control__ToChild m = CONTROL__TO_CHILD__INIT;
    up.kind = (Control__Kind)peer->kind, up.index = peer->index;
    up.incarnation = peer->incarnation;
    m.what_case = CONTROL__TO_CHILD__WHAT_PEER_UP, m.peer_up = &up;
    const int fds[] = {segment, peer->wake_fd, peer->bell_fd};
    process_send(to, &m, fds, array_len(fds));
}

static void send_peer_down(struct process *to, const struct process *peer)
{
    Control__PeerDown down = CONTROL__PEER_DOWN__INIT;
    Control__ToChild m = CONTROL__TO_CHILD__INIT;
    down.kind = (Control__Kind)peer->kind, down.index = peer->index;
    down.incarnation = peer->incarnation;
    m.what_case = CONTROL__TO_CHILD__WHAT_PEER_DOWN, m.peer_down = &down;
    process_send(to, &m, NULL, 0);
}

/* A fresh segment between the two, and the word to both. */
static void introduce(struct process *p, struct process *q)
{
    const struct fifo_end ends[2] = {{fifo_id(p), p->incarnation}, {fifo_id(q), q->incarnation}};
    int segment;
    if (fifo_segment_create(fifo_size_for(p->super->process_count), ends, &segment) != ERR_OK) {
        LOG(p->super->log, node_degraded, F_STR("what", STR("shared memory")));
        return;
    }
    send_peer_up(p, q, segment);
    send_peer_up(q, p, segment);
    close(segment);
}

void process_listeners(struct process *p, uint32_t owner)
{
    struct super *s = p->super;
    for (unsigned i = 0; i < s->listener_count; i++) {
        Control__Listener l = CONTROL__LISTENER__INIT;
        Control__ToChild m = CONTROL__TO_CHILD__INIT;
        l.kind = (Control__ListenerKind)s->listener[i].kind, l.owner = owner;
        l.address = (char *)(uintptr_t)s->listener[i].address.p; /* ends with NUL: of the config */
        m.what_case = CONTROL__TO_CHILD__WHAT_LISTENER, m.listener = &l;
        process_send(p, &m, &s->listener[i].fd[owner], 1);
    }
}

/* ---- life ------------------------------------------------------------------------------------ */

static void write_file(const char *path, int number)
{
    char text[16];
    int fd = open(path, O_WRONLY | O_CLOEXEC), n = snprintf(text, sizeof text, "%d", number);
    if (fd >= 0 && write(fd, text, (size_t)n) < 0)
        errno = 0; /* only a preference of the OOM killer */
    if (fd >= 0)
        close(fd);
}

static void pin(const struct process *p)
{
    cpu_set_t mine, one;
    if (!p->super->conf->node_pin || p->kind != CHILD_SHARD ||
        sched_getaffinity(0, sizeof mine, &mine) < 0 ||
        (unsigned)CPU_COUNT(&mine) != p->super->shards) /* else two nodes would share one CPU */
        return;
    unsigned nth = p->index;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &mine) || nth-- > 0)
            continue;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        (void)sched_setaffinity(0, sizeof one, &one);
        return;
    }
}

/* glibc keeps the last 7 freed blocks of a size at hand; the stanzas of a busy turn are some
 * hundred, and go the long way through the heap both times: 15 % of a message's instructions. At
 * most 17 MB lie so if every size up to 1 KiB once was in use. Only the environment can say so; the
 * operator's own wish holds. */
static void tune_malloc(void) { setenv("GLIBC_TUNABLES", "glibc.malloc.tcache_count=512", 0); }

static _Noreturn void become(const struct process *p, int fd, pid_t parent)
{
    char path[sizeof p->super->directory + 32];
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent)
        _exit(0);
    write_file("/proc/self/oom_score_adj", p->kind == CHILD_SHARD ? OOM_SHARD : OOM_STORE);
    pin(p);
    if (fd == CHILD_FD)
        fcntl(fd, F_SETFD, 0);
    else
        dup2(fd, CHILD_FD);
    tune_malloc();
    snprintf(path, sizeof path, "%s/pemberley-%s", p->super->directory, process_name(p));
    execl(path, process_name(p), (char *)NULL);
    dprintf(2, "pemberley: cannot start %s: %s\n", path, strerror(errno));
    _exit(127);
}

static bool make_ends(struct process *p, int pair[2])
{
    if (control_pair(pair) != ERR_OK)
        return false;
    p->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (p->wake_fd >= 0 && fifo_bell_create(&p->bell_fd) == ERR_OK)
        return true;
    close(pair[0]), close(pair[1]);
    return false;
}

static void release(struct process *p)
{
    int *fds[] = {&p->fd, &p->wake_fd, &p->bell_fd};
    for (size_t i = 0; i < array_len(fds); i++) {
        if (*fds[i] >= 0)
            close(*fds[i]);
        *fds[i] = -1;
    }
    while (!list_empty(&p->waiting))
        drop_first(p);
}

static void start_failed(struct process *p, int64_t now_ms)
{
    release(p);
    p->state = PROCESS_DOWN;
    p->restart_at_ms =
        now_ms + BACKOFF_MAX_MS; /* no descriptors or memory: not a crash of its own */
    LOG(p->super->log, node_degraded, F_STR("what", str_of(strerror(errno))));
}

void process_start(struct process *p, int64_t now_ms)
{
    struct super *s = p->super;
    int pair[2];
    pid_t self = getpid();
    if (!make_ends(p, pair)) {
        start_failed(p, now_ms);
        return;
    }
    p->incarnation = s->next_incarnation++;
    p->fd = pair[0];
    p->pid = fork();
    if (p->pid == 0)
        become(p, pair[1], self);
    close(pair[1]);
    if (p->pid < 0) {
        start_failed(p, now_ms);
        return;
    }
    p->state = PROCESS_STARTING;
    p->stopped = p->ended = p->fenced = p->stalled = p->name_taken = false;
    p->generation = s->generation;
    backoff_started(&p->backoff, now_ms);
    p->heartbeat = atomic_load(&p->page->heartbeat), p->heartbeat_at_ms = now_ms;
    LOG(s->log, process_started, F_STR("process", str_of(process_name(p))),
        F_INT("index", p->index), F_INT("pid", p->pid));
    send_start(p);
    for (unsigned i = 0; i < s->process_count; i++)
        if (&s->process[i] != p && s->process[i].state != PROCESS_DOWN)
            introduce(p, &s->process[i]);
    cluster_started(p);
}

/* What the dead one counted stays; what it held is gone. */
static void clear_gauges(struct metric_page *m)
{
    for (unsigned i = 0; i < families_count; i++) {
        const struct family *f = &families[i];
        for (unsigned k = 0; k < set_size(f->a) * set_size(f->b); k++)
            if (f->kind == FAMILY_G)
                metric_set(m, f->first + k, 0);
    }
}

static enum death death_of(int status)
{
    if (!WIFSIGNALED(status))
        return DEATH_EXIT;
    switch (WTERMSIG(status)) {
    case SIGKILL: return DEATH_KILL;  /* somebody, or the kernel for want of memory */
    case SIGABRT: return DEATH_ABORT; /* a must, or stuck */
    default: return DEATH_SIGNAL;
    }
}

/* When it is started again. A fenced one has done nothing wrong. */
static int64_t restart_wait(struct process *p, int status, int64_t now_ms)
{
    struct super *s = p->super;
    if (WIFEXITED(status) && WEXITSTATUS(status) == CHILD_EXIT_FENCED && s->cluster.owner)
        return cluster_fenced_wait(p, now_ms);
    int64_t wait = backoff_died(&p->backoff, now_ms);
    p->restarts++, p->restarts_by[death_of(status)]++;
    LOG(s->log, process_died, F_STR("process", str_of(process_name(p))), F_INT("index", p->index),
        F_INT("pid", p->pid), F_INT("signal", WIFSIGNALED(status) ? WTERMSIG(status) : 0),
        F_INT("core", WIFSIGNALED(status) && WCOREDUMP(status)), F_INT("restart_in_ms", wait));
    return wait;
}

void process_died(struct process *p, int status, int64_t now_ms)
{
    struct super *s = p->super;
    release(p);
    p->state = PROCESS_DOWN;
    p->stopped = true;
    p->down_since_ms = now_ms;
    clear_gauges(p->page);
    admin_lost(s, p);
    command_reloaded(s);
    for (unsigned i = 0; i < s->process_count; i++)
        if (&s->process[i] != p && s->process[i].state != PROCESS_DOWN)
            send_peer_down(&s->process[i], p);
    if (s->stopping)
        return;
    p->restart_at_ms = now_ms + restart_wait(p, status, now_ms);
    s->cluster.ran |= p->kind == CHILD_SHARD;
    cluster_appoint(s);
    if (!s->ready && WIFEXITED(status) && WEXITSTATUS(status) == CHILD_EXIT_CONFIG) {
        s->exit_code = CHILD_EXIT_CONFIG; /* starting it again mends nothing; it has said why */
        super_stop(s, 0, "config");
    }
}

/* ---- what it uses ---------------------------------------------------------------------------- */

static unsigned count_fds(pid_t pid)
{
    char path[32];
    struct stat st;
    unsigned n = 0;
    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    if (stat(path, &st) == 0 && st.st_size > 0)
        return (unsigned)st.st_size; /* from Linux 6.2 on */
    DIR *d = opendir(path);
    if (!d)
        return 0;
    while (readdir(d))
        n++;
    closedir(d);
    return n > 2 ? n - 2 : 0;
}

void process_count_fds(struct super *s)
{
    s->own_fds = count_fds(getpid());
    for (unsigned i = 0; i < s->process_count; i++) {
        struct process *p = &s->process[i];
        p->open_fds = p->state == PROCESS_DOWN ? 0 : count_fds(p->pid);
    }
}

uint64_t process_shared_bytes(const struct super *s)
{
    uint64_t up = 0, pages = s->process_count * sizeof(struct metric_page);
    for (unsigned i = 0; i < s->process_count; i++)
        up += s->process[i].state != PROCESS_DOWN;
    return pages + (up ? up * (up - 1) / 2 : 0) * 2 * fifo_size_for(s->process_count);
}

/* ---- what it says ---------------------------------------------------------------------------- */

static void on_poisoned(struct super *s, const Control__Poisoned *m)
{
    for (unsigned i = 0; i < s->process_count; i++) {
        struct process *p = &s->process[i];
        if (p->kind == (enum child_kind)m->kind && p->index == m->index &&
            p->incarnation == m->incarnation && p->state != PROCESS_DOWN) {
            LOG(s->log, process_broken, F_STR("process", str_of(process_name(p))),
                F_INT("index", p->index), F_STR("expr", STR("damaged frames")));
            kill(p->pid, SIGABRT);
        }
    }
}

static void on_message(struct process *p, const Control__FromChild *m)
{
    struct super *s = p->super;
    switch (m->what_case) {
    case CONTROL__FROM_CHILD__WHAT_READY:
        p->state = PROCESS_UP;
        snprintf(p->loop, sizeof p->loop, "%s", m->ready->loop ? m->ready->loop : "");
        super_ready(s, p);
        break;
    case CONTROL__FROM_CHILD__WHAT_STOPPED:
        p->stopped = true;
        s->told_sessions += m->stopped->sessions;
        s->flushed += m->stopped->flushed;
        break;
    case CONTROL__FROM_CHILD__WHAT_REPLY: admin_forward(s, m->reply); break;
    case CONTROL__FROM_CHILD__WHAT_POISONED: on_poisoned(s, m->poisoned); break;
    case CONTROL__FROM_CHILD__WHAT_ENDED:
        cluster_on_ended(p, m->ended->why, m->ended->epoch);
        break;
    case CONTROL__FROM_CHILD__WHAT_STALLED: cluster_on_stalled(p, m->stalled); break;
    case CONTROL__FROM_CHILD__WHAT_EPOCH: cluster_on_epoch(s, m->epoch->epoch); break;
    case CONTROL__FROM_CHILD__WHAT_STUCK:
        cluster_on_stuck(p, m->stuck->index, m->stuck->incarnation);
        break;
    case CONTROL__FROM_CHILD__WHAT_ASK: admin_ask(p, m->ask); break;
    case CONTROL__FROM_CHILD__WHAT_RELOADED:
        p->generation = m->reloaded->generation;
        command_reloaded(s);
        break;
    default: break;
    }
}

void process_turn(struct process *p, short events)
{
    char *buffer = p->super->buffer;
    int fds[CONTROL_FDS_MAX];
    size_t n, n_fds;
    err e = ERR_OK;
    if (events & POLLOUT)
        process_flush(p);
    while ((e = control_read(p->fd, buffer, &n, fds, &n_fds)) == ERR_OK) {
        for (size_t i = 0; i < n_fds; i++)
            close(fds[i]); /* children send none */
        Control__FromChild *m = control__from_child__unpack(NULL, n, (const uint8_t *)buffer);
        if (m)
            on_message(p, m);
        control__from_child__free_unpacked(m, NULL);
    }
    p->ended = e != ERR_PARTIAL; /* its death follows; until then the socket is not looked at */
}
