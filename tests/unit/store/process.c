/* pemberley-store as a process: this test is its supervisor and its one shard (the real fifo hub
 * and store_client on a real loop), kills it under load and starts it again. */
#include "tests/unit/store/bench.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "node/os/control.h"
#include "node/os/fifo.h"
#include "node/os/os.h"
#include "node/store_client/store_client.h"
#include "node/super/child.h"
#include "proto/bus/control.pb-c.h"

#define ROMEO "romeo@montague.example"
enum { MESSAGES = 3000, IN_FLIGHT = 50, KILLS = 5 };

static struct node {
    char dir[32];
    struct conf *conf;
    struct loop *loop;
    struct fifo_hub *hub;
    struct store_client *client;
    struct metric_page *metrics;
    struct log log;
    int wake_fd, bell_fd; /* the shard's */
    pid_t pid;            /* of the worker */
    int control;
    uint64_t incarnation;
    unsigned next, answered, away;
} node;

static void no_log(struct log *l, enum log_event e, enum log_level level, const struct log_field *f,
                   size_t n)
{
}

static void on_frame(void *ctx, unsigned peer, const char *p, size_t n)
{
    store_client_on_frame(node.client, p, n);
}
static void on_poisoned(void *ctx, unsigned peer, const char *why) { fail_msg("%s", why); }
static void to_worker(void *ctx, const char *p, size_t n)
{
    struct iovec iov = {(void *)p, n};
    fifo_hub_send(node.hub, fifo_store(0), &iov, 1);
}

/* ---- the supervisor -------------------------------------------------------------------------- */

static void tell(Control__ToChild *m, const int *fds, size_t n_fds)
{
    uint8_t packed[1024];
    size_t n = control__to_child__pack(m, packed);
    assert_int_equal(control_write(node.control, packed, n, fds, n_fds), ERR_OK);
}

static void exec_worker(int control)
{
    if (dup2(control, CHILD_FD) == CHILD_FD)
        fcntl(CHILD_FD, F_SETFD, 0);
    execl(STORE_BINARY, STORE_BINARY, (char *)NULL);
    _exit(127);
}

static int conf_fd(void)
{
    int fd = memfd_create("conf", MFD_CLOEXEC);
    assert_int_equal(write(fd, node.conf, node.conf->size), (ssize_t)node.conf->size);
    return fd;
}

static void send_start(int wake_fd, int bell_fd)
{
    uint8_t secret[CHILD_SECRET] = {0};
    Control__Start start = CONTROL__START__INIT;
    start.kind = CONTROL__KIND__STORE, start.shards = 1, start.stores = 1;
    start.incarnation = node.incarnation;
    start.secret = (ProtobufCBinaryData){sizeof secret, secret};
    start.node = "n1";
    Control__ToChild m = CONTROL__TO_CHILD__INIT;
    m.what_case = CONTROL__TO_CHILD__WHAT_START, m.start = &start;
    int metrics;
    assert_int_equal(metric_page_create(&metrics), ERR_OK);
    int fds[] = {conf_fd(), metrics, wake_fd, bell_fd};
    tell(&m, fds, 4);
    close(fds[0]);
    close(metrics);
}

static void introduce(int wake_fd, int bell_fd)
{
    const struct fifo_end ends[2] = {{fifo_shard(0), 1}, {fifo_store(0), node.incarnation}};
    int segment;
    assert_int_equal(fifo_segment_create(fifo_size_for(2), ends, &segment), ERR_OK);
    Control__PeerUp up = CONTROL__PEER_UP__INIT;
    up.kind = CONTROL__KIND__SHARD, up.incarnation = 1;
    Control__ToChild m = CONTROL__TO_CHILD__INIT;
    m.what_case = CONTROL__TO_CHILD__WHAT_PEER_UP, m.peer_up = &up;
    int fds[] = {segment, node.wake_fd, node.bell_fd};
    tell(&m, fds, 3);
    assert_int_equal(fifo_hub_attach(node.hub, ends[1], segment, bell_fd, wake_fd), ERR_OK);
}

static void start_worker(void)
{
    int pair[2], bell;
    assert_int_equal(control_pair(pair), ERR_OK);
    node.control = pair[0];
    node.incarnation++;
    node.pid = fork();
    assert_true(node.pid >= 0);
    if (node.pid == 0)
        exec_worker(pair[1]);
    close(pair[1]);
    int wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    assert_int_equal(fifo_bell_create(&bell), ERR_OK);
    send_start(wake, bell);
    introduce(wake, bell);
    store_client_worker_up(node.client);
}

static int end_of_worker(void)
{
    int status;
    assert_int_equal(waitpid(node.pid, &status, 0), node.pid);
    close(node.control);
    fifo_hub_detach(node.hub, fifo_store(0));
    store_client_worker_down(node.client);
    return status;
}

/* ---- the shard ------------------------------------------------------------------------------- */

static int setup(void **state)
{
    strcpy(node.dir, "/tmp/store-XXXXXX");
    assert_non_null(mkdtemp(node.dir));
    char setting[64];
    snprintf(setting, sizeof setting, "store.path=%s/db", node.dir);
    node.conf = conf_test_with((const char *const[]){setting, "store.timeout=60s", NULL});
    node.wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    assert_int_equal(fifo_bell_create(&node.bell_fd), ERR_OK);
    struct loop_config loop = {LOOP_EPOLL, dup(node.wake_fd)};
    struct loop_fault fault;
    assert_int_equal(loop_new(&loop, &fault, &node.loop), ERR_OK);
    struct fifo_hub_config hub = {.self = {fifo_shard(0), 1},
                                  .bell_fd = dup(node.bell_fd),
                                  .loop = node.loop,
                                  .frame_max = STORE_REPLY_MAX,
                                  .outbox_max = 64 << 20,
                                  .on_frame = on_frame,
                                  .on_poisoned = on_poisoned};
    assert_int_equal(fifo_hub_open(&hub, &node.hub), ERR_OK);
    node.metrics = calloc(1, sizeof *node.metrics);
    node.log.write = no_log;
    node.client = store_client_new(node.loop, node.conf, node.metrics, &node.log, to_worker, NULL);
    return 0;
}

static int teardown(void **state)
{
    store_client_free(node.client);
    fifo_hub_close(node.hub);
    loop_close(node.loop);
    close(node.wake_fd), close(node.bell_fd);
    free(node.metrics), free(node.conf);
    const char *ends[] = {"", "-wal", "-shm", ".lock"};
    char name[80];
    for (size_t i = 0; i < array_len(ends); i++) {
        snprintf(name, sizeof name, "%s/db%s", node.dir, ends[i]);
        unlink(name);
    }
    return rmdir(node.dir);
}

static void put_next(void);

static void on_put(void *ctx, err e, const Store__Reply *r)
{
    assert_int_equal(e, ERR_OK);
    assert_int_equal((unsigned long)ctx, node.answered); /* in order, each once */
    node.answered++;
    put_next();
}

static void put_next(void)
{
    if (node.next == MESSAGES)
        return;
    char uid[16];
    snprintf(uid, sizeof uid, "u%u", node.next);
    Store__Request q;
    Store__OfflinePut put;
    offline_put_init(&q, &put, ROMEO, uid, "<message/>");
    store_submit(store_client_door(node.client), &q, on_put, (void *)(unsigned long)node.next++);
}

static void on_flag(void *ctx, err e, const Store__Reply *r)
{
    assert_int_equal(e, ERR_OK);
    *(bool *)ctx = true;
}

static void on_user(void *ctx, err e, const Store__Reply *r)
{
    assert_int_equal(e, ERR_OK);
    *(unsigned *)ctx = r->user->offline_count;
}

static void add_romeo(void)
{
    bool done = false;
    Store__AccountAdd add = STORE__ACCOUNT_ADD__INIT;
    REQUEST(q, ROMEO, ACCOUNT_ADD, account_add, &add);
    store_submit(store_client_door(node.client), &q, on_flag, &done);
    while (!done)
        loop_turn(node.loop, 100);
}

static void nothing_is_lost_or_doubled_when_the_worker_is_killed(void **state)
{
    start_worker();
    add_romeo();
    for (unsigned i = 0; i < IN_FLIGHT; i++)
        put_next();
    for (unsigned k = 1; k <= KILLS; k++) {
        while (node.answered < k * MESSAGES / (KILLS + 1))
            loop_turn(node.loop, 100);
        kill(node.pid, SIGKILL);
        assert_true(WIFSIGNALED(end_of_worker()));
        start_worker();
    }
    while (node.answered < MESSAGES)
        loop_turn(node.loop, 100);
    unsigned count = 0;
    Store__UserLoad load = STORE__USER_LOAD__INIT;
    REQUEST(q, ROMEO, USER_LOAD, user_load, &load);
    store_submit(store_client_door(node.client), &q, on_user, &count);
    while (count == 0)
        loop_turn(node.loop, 100);
    assert_int_equal(count, MESSAGES);

    Control__Stop stop = CONTROL__STOP__INIT;
    stop.deadline_ms = 1000;
    Control__ToChild m = CONTROL__TO_CHILD__INIT;
    m.what_case = CONTROL__TO_CHILD__WHAT_STOP, m.stop = &stop;
    tell(&m, NULL, 0);
    int status = end_of_worker();
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void a_worker_whose_supervisor_is_gone_ends(void **state)
{
    start_worker();
    bool done = false;
    Store__Ping ping = STORE__PING__INIT;
    REQUEST(q, "", PING, ping, &ping);
    store_submit(store_client_door(node.client), &q, on_flag, &done);
    while (!done)
        loop_turn(node.loop, 100);
    shutdown(node.control, SHUT_RDWR);
    int status = end_of_worker();
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(nothing_is_lost_or_doubled_when_the_worker_is_killed, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_worker_whose_supervisor_is_gone_ends, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
