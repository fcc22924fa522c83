/* The worker's promises: batches, order, commit before reply, failing members, a full disk; on
 * SQLite, and what is not about files or single turns on PostgreSQL too. */
#include "tests/unit/store/bench.h"
#include "tests/unit/support/cluster.h"

#include <signal.h>
#include <sqlite3.h>
#include <sys/resource.h>

#define OK STORE__RESULT__OK
#define ROMEO "romeo@montague.example"
#define JULIET "juliet@capulet.example"

static struct cluster cluster; /* pid 0: SQLite */

static err open_store(struct bench *b)
{
    if (!cluster.pid)
        return bench_open(b, ":memory:", 64);
    struct store_postgres o = cluster_options(&cluster, 1);
    return bench_open_postgres(b, &o, 64);
}

static int setup(void **state)
{
    struct bench *b = malloc(sizeof *b);
    *state = b;
    assert_int_equal(open_store(b), ERR_OK);
    if (cluster.pid)
        cluster_sql(&cluster, "TRUNCATE account CASCADE");
    assert_int_equal(add_account(b, ROMEO), OK);
    return 0;
}

static int setup_file(void **state)
{
    char dir[] = "/tmp/store-XXXXXX", path[64];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/db", dir);
    struct bench *b = malloc(sizeof *b);
    *state = b;
    assert_int_equal(bench_open(b, path, 64), ERR_OK);
    assert_int_equal(add_account(b, ROMEO), OK);
    return 0;
}

static void remove_files(const char *path)
{
    const char *ends[] = {"", "-wal", "-shm", ".lock"};
    char name[300];
    for (size_t i = 0; i < array_len(ends); i++) {
        snprintf(name, sizeof name, "%s%s", path, ends[i]);
        unlink(name);
    }
    snprintf(name, sizeof name, "%s", path);
    *strrchr(name, '/') = 0;
    rmdir(name);
}

static int teardown(void **state)
{
    struct bench *b = *state;
    bench_close(b);
    if (*b->path && strcmp(b->path, ":memory:") != 0)
        remove_files(b->path);
    free(b);
    return 0;
}

static void send_put(struct bench *b, unsigned peer, uint64_t id, const char *jid, const char *uid,
                     uint32_t count_max)
{
    Store__Request q;
    Store__OfflinePut put;
    offline_put_init(&q, &put, jid, uid, "<m/>");
    q.id = id;
    put.count_max = count_max;
    bench_send(b, peer, &q);
}

static void one_failing_request_fails_alone(void **state)
{
    struct bench *b = *state;
    send_put(b, 0, 1, ROMEO, "u1", 0);
    send_put(b, 0, 2, ROMEO, "u2", 1);  /* FULL */
    send_put(b, 0, 3, JULIET, "u3", 0); /* NOT_FOUND */
    store_worker_on_request(b->worker, 0, "\xff\xff", 2);
    send_put(b, 0, 5, ROMEO, "u5", 0);
    bench_run(b);
    static const Store__Result want[] = {OK, STORE__RESULT__FULL, STORE__RESULT__NOT_FOUND,
                                         STORE__RESULT__BAD, OK};
    assert_int_equal(b->n, 5);
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(b->replies[i]->result, want[i]);
    Store__OfflinePage *page = get_offline(b, ROMEO, 0, 0, 0);
    assert_int_equal(page->n_rows, 2);
    assert_bytes(page->rows[1]->uid, "u5");
}

/* The roster row is written before pending_max is found exceeded: it must be undone. */
static void what_a_failing_request_wrote_is_undone(void **state)
{
    struct bench *b = *state;
    Store__RosterItem item = STORE__ROSTER_ITEM__INIT, *items = &item;
    item.contact = bytes_of(JULIET);
    Store__Pending first = STORE__PENDING__INIT, second = STORE__PENDING__INIT;
    first.contact = bytes_of("a@b"), first.stanza = bytes_of("<p/>");
    second.contact = bytes_of("c@d"), second.stanza = bytes_of("<p/>");
    Store__RosterChange change = STORE__ROSTER_CHANGE__INIT;
    change.pending_put = &first, change.pending_max = 1;
    REQUEST(q, ROMEO, ROSTER_CHANGE, roster_change, &change);
    bench_send(b, 0, &q);
    change.version = 1, change.items = &items, change.n_items = 1, change.pending_put = &second;
    bench_send(b, 0, &q);
    send_put(b, 0, 9, ROMEO, "u1", 0);
    bench_run(b);
    assert_int_equal(b->replies[0]->result, OK);
    assert_int_equal(b->replies[1]->result, STORE__RESULT__FULL);
    assert_int_equal(b->replies[2]->result, OK);
    Store__User *user = load_user(b, ROMEO);
    assert_int_equal(user->n_items, 0);
    assert_int_equal(user->n_pending, 1);
    assert_int_equal(user->offline_count, 1);
}

static void replies_come_in_order_to_who_asked(void **state)
{
    struct bench *b = *state;
    for (unsigned i = 0; i < 20; i++) {
        char uid[8];
        snprintf(uid, sizeof uid, "u%u", i);
        send_put(b, i % 3, 100 + i, ROMEO, uid, 0);
    }
    bench_run(b);
    assert_int_equal(b->n, 20);
    for (unsigned i = 0; i < 20; i++) {
        assert_int_equal(b->peers[i], i % 3);
        assert_int_equal(b->replies[i]->id, 100 + i);
    }
}

static void a_read_sees_the_writes_before_it_in_its_batch(void **state)
{
    struct bench *b = *state;
    send_put(b, 0, 1, ROMEO, "u1", 0);
    Store__OfflineCount count = STORE__OFFLINE_COUNT__INIT;
    REQUEST(q, ROMEO, OFFLINE_COUNT, offline_count, &count);
    bench_send(b, 0, &q);
    send_put(b, 0, 3, ROMEO, "u2", 0);
    bench_run(b);
    assert_int_equal(b->replies[1]->offline_state->count, 1);
}

static void a_batch_has_its_bound(void **state)
{
    struct bench *b = *state;
    store_worker_set_batch_max(b->worker, 4);
    for (unsigned i = 0; i < 10; i++)
        send_put(b, 0, i, JULIET, "u", 0);
    assert_true(store_worker_enough(b->worker));
    bench_forget(b);
    assert_true(store_worker_run(b->worker));
    assert_int_equal(b->n, 4);
    assert_true(store_worker_run(b->worker));
    assert_false(store_worker_enough(b->worker));
    assert_false(store_worker_run(b->worker));
    assert_int_equal(b->n, 10);
    assert_false(store_worker_run(b->worker));
}

static void great_replies_end_a_batch_early(void **state)
{
    struct bench *b = *state;
    static char stanza[1 << 20];
    memset(stanza, 'x', sizeof stanza - 1);
    assert_int_equal(put_offline(b, ROMEO, "u1", stanza), OK);
    Store__OfflineGet get = STORE__OFFLINE_GET__INIT;
    REQUEST(q, ROMEO, OFFLINE_GET, offline_get, &get);
    for (unsigned i = 0; i < 20; i++)
        bench_send(b, 0, &q);
    bench_forget(b);
    assert_true(store_worker_run(b->worker));
    assert_in_range(b->n, 8, 9);
    while (store_worker_run(b->worker))
        ;
    assert_int_equal(b->n, 20);
}

static void requests_of_a_dead_peer_are_dropped(void **state)
{
    struct bench *b = *state;
    send_put(b, 1, 1, ROMEO, "u1", 0);
    send_put(b, 2, 2, ROMEO, "u2", 0);
    store_worker_forget(b->worker, 1);
    bench_run(b);
    assert_int_equal(b->n, 1);
    assert_int_equal(b->peers[0], 2);
}

static void garbage_is_answered_bad(void **state)
{
    struct bench *b = *state;
    Store__Request q = STORE__REQUEST__INIT;
    q.id = 9;
    bench_send(b, 0, &q); /* no operation */
    store_worker_on_request(b->worker, 0, "\x08", 1);
    store_worker_on_request(b->worker, 0, "", 0);
    char *big = calloc(1, STORE_REQUEST_MAX + 1);
    store_worker_on_request(b->worker, 0, big, STORE_REQUEST_MAX + 1);
    free(big);
    bench_run(b);
    assert_int_equal(b->n, 4);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(b->replies[i]->result, STORE__RESULT__BAD);
    assert_int_equal(b->replies[0]->id, 9);
}

/* ---- on a disk ------------------------------------------------------------------------------- */

static int64_t number_on_disk(const char *path, const char *sql)
{
    sqlite3 *other;
    sqlite3_stmt *st;
    assert_int_equal(sqlite3_open_v2(path, &other, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(other, sql, -1, &st, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(st), SQLITE_ROW);
    int64_t n = sqlite3_column_int64(st, 0);
    sqlite3_finalize(st);
    sqlite3_close(other);
    return n;
}

static int64_t rows_on_disk(const char *path)
{
    return number_on_disk(path, "SELECT count(*) FROM offline");
}

static void a_removed_account_has_no_rows_left(void **state)
{
    struct bench *b = *state;
    assert_int_equal(put_offline(b, ROMEO, "u1", "<m/>"), OK);
    Store__VcardPut vcard = STORE__VCARD_PUT__INIT;
    vcard.xml = bytes_of("<vCard/>");
    REQUEST(v, ROMEO, VCARD_PUT, vcard_put, &vcard);
    assert_int_equal(bench_ask(b, &v)->result, OK);
    const char *count = "SELECT (SELECT count(*) FROM offline) + (SELECT count(*) FROM vcard)";
    assert_int_equal(number_on_disk(b->path, count), 2);
    Store__AccountRemove remove = STORE__ACCOUNT_REMOVE__INIT;
    REQUEST(q, ROMEO, ACCOUNT_REMOVE, account_remove, &remove);
    assert_int_equal(bench_ask(b, &q)->result, OK);
    assert_int_equal(number_on_disk(b->path, count), 0);
}

static int64_t seen_at_reply; /* by the first */
static void look_at_disk(struct store_port *port, unsigned peer, const char *p, size_t n)
{
    if (seen_at_reply < 0)
        seen_at_reply = rows_on_disk(container_of(port, struct bench, port)->path);
}

static void replies_leave_after_the_commit(void **state)
{
    struct bench *b = *state;
    b->port.reply = look_at_disk;
    send_put(b, 0, 1, ROMEO, "u1", 0);
    send_put(b, 0, 2, ROMEO, "u2", 0);
    seen_at_reply = -1;
    store_worker_run(b->worker);
    assert_int_equal(seen_at_reply, 2);
}

static void limit_file_size(rlim_t bytes)
{
    struct rlimit r;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &r), 0);
    r.rlim_cur = bytes;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &r), 0);
}

/* Fills until DISK_FULL; returns how many were acknowledged. */
static unsigned fill_disk(struct bench *b)
{
    static char stanza[20001];
    memset(stanza, 'x', sizeof stanza - 1);
    char uid[16];
    for (unsigned i = 0; i < 1000; i++) {
        snprintf(uid, sizeof uid, "u%u", i);
        Store__Result r = put_offline(b, ROMEO, uid, stanza);
        if (r == STORE__RESULT__DISK_FULL)
            return i;
        assert_int_equal(r, OK);
    }
    fail_msg("the disk never got full");
    return 0;
}

static void a_full_disk_fails_writes_keeps_reads_and_heals(void **state)
{
    struct bench *b = *state;
    signal(SIGXFSZ, SIG_IGN);
    limit_file_size(1 << 20);
    unsigned acknowledged = fill_disk(b);
    assert_true(acknowledged > 10);
    assert_int_equal(b->logged[LOG_store_failed], 1);
    assert_int_equal(b->logged[LOG_disk_low], 1);

    /* One batch: the writes fail, the reads between them are answered. */
    Store__UserLoad load = STORE__USER_LOAD__INIT;
    REQUEST(q, ROMEO, USER_LOAD, user_load, &load);
    Store__Request w;
    Store__OfflinePut put;
    static char stanza[20001];
    memset(stanza, 'y', sizeof stanza - 1);
    offline_put_init(&w, &put, ROMEO, "v1", stanza);
    bench_send(b, 0, &w);
    bench_send(b, 0, &q);
    put.uid = bytes_of("v2");
    bench_send(b, 0, &w);
    bench_run(b);
    assert_int_equal(b->n, 3);
    assert_int_equal(b->replies[0]->result, STORE__RESULT__DISK_FULL);
    assert_int_equal(b->replies[1]->result, OK);
    assert_int_equal(b->replies[1]->user->offline_count, acknowledged);
    assert_int_equal(b->replies[2]->result, STORE__RESULT__DISK_FULL);

    limit_file_size(RLIM_INFINITY);
    assert_int_equal(put_offline(b, ROMEO, "v1", stanza), OK);
    assert_int_equal(load_user(b, ROMEO)->offline_count, acknowledged + 1);
    assert_int_equal(rows_on_disk(b->path), acknowledged + 1);
}

static void a_broken_database_is_an_error_and_a_log_line(void **state)
{
    struct bench *b = *state;
    sqlite3 *other;
    assert_int_equal(sqlite3_open(b->path, &other), SQLITE_OK);
    assert_int_equal(sqlite3_exec(other, "DROP TABLE offline", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(other);
    assert_int_equal(put_offline(b, ROMEO, "u1", "<m/>"), STORE__RESULT__IO);
    assert_true(b->logged[LOG_store_failed] > 0);
    Store__LastPut put = STORE__LAST_PUT__INIT;
    REQUEST(q, ROMEO, LAST_PUT, last_put, &put);
    assert_int_equal(bench_ask(b, &q)->result, OK);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define T_FILE(name) cmocka_unit_test_setup_teardown(name, setup_file, teardown)
int main(void)
{
    const struct CMUnitTest both[] = {
        T(one_failing_request_fails_alone),     T(what_a_failing_request_wrote_is_undone),
        T(replies_come_in_order_to_who_asked),  T(a_read_sees_the_writes_before_it_in_its_batch),
        T(requests_of_a_dead_peer_are_dropped), T(garbage_is_answered_bad),
    };
    const struct CMUnitTest tests[] = {
        T(a_batch_has_its_bound),
        T(great_replies_end_a_batch_early),
        T_FILE(a_removed_account_has_no_rows_left),
        T_FILE(replies_leave_after_the_commit),
        T_FILE(a_full_disk_fails_writes_keeps_reads_and_heals),
        T_FILE(a_broken_database_is_an_error_and_a_log_line),
    };
    int failed = cmocka_run_group_tests_name("SQLite", both, NULL, NULL);
    failed += cmocka_run_group_tests_name("SQLite alone", tests, NULL, NULL);
    cluster_init(&cluster, "");
    failed += cmocka_run_group_tests_name("PostgreSQL", both, NULL, NULL);
    cluster_end(&cluster);
    return failed;
}
