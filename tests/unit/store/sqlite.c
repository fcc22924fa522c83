/* The database as a file: lock, schema, kill -9. */
#include "tests/unit/store/bench.h"

#include <signal.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define OK STORE__RESULT__OK
#define ROMEO "romeo@montague.example"

static char dir[32], path[64];

static int setup(void **state)
{
    strcpy(dir, "/tmp/store-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/db", dir);
    return 0;
}

static int teardown(void **state)
{
    const char *ends[] = {"", "-wal", "-shm", ".lock"};
    char name[80];
    for (size_t i = 0; i < array_len(ends); i++) {
        snprintf(name, sizeof name, "%s%s", path, ends[i]);
        unlink(name);
    }
    return rmdir(dir);
}

static void run_sql(const char *sql)
{
    sqlite3 *db;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

static void an_empty_file_is_migrated_to_the_current_schema_once(void **state)
{
    struct bench b;
    assert_int_equal(bench_open(&b, path, 1), ERR_OK);
    assert_int_equal(b.logged[LOG_store_migrated], 1);
    assert_int_equal(add_account(&b, ROMEO), OK);
    bench_close(&b);
    assert_int_equal(bench_open(&b, path, 1), ERR_OK);
    assert_int_equal(b.logged[LOG_store_migrated], 0);
    assert_true(load_user(&b, ROMEO)->exists);
    bench_close(&b);
}

static void a_newer_schema_is_refused(void **state)
{
    struct bench b;
    assert_int_equal(bench_open(&b, path, 1), ERR_OK);
    bench_close(&b);
    run_sql("PRAGMA user_version = 99");
    assert_int_equal(bench_open(&b, path, 1), ERR_BAD);
    assert_non_null(strstr(b.why, "schema version 99"));
}

static void a_database_of_another_program_is_refused_and_untouched(void **state)
{
    struct bench b;
    run_sql("CREATE TABLE theirs (x)");
    assert_int_equal(bench_open(&b, path, 1), ERR_BAD);
    assert_non_null(strstr(b.why, "another program"));
    run_sql("INSERT INTO theirs VALUES (1)");
}

static void a_file_that_is_no_database_is_refused(void **state)
{
    FILE *f = fopen(path, "w");
    for (int i = 0; i < 1000; i++)
        fputs("this is not a database\n", f);
    fclose(f);
    struct bench b;
    assert_int_equal(bench_open(&b, path, 1), ERR_IO);
    assert_non_null(strstr(b.why, "not a database"));
}

static void a_missing_folder_is_named(void **state)
{
    struct bench b;
    assert_int_equal(bench_open(&b, "/nonexistent/folder/db", 1), ERR_IO);
    assert_non_null(strstr(b.why, "/nonexistent/folder/db"));
    assert_non_null(strstr(b.why, "No such file"));
}

static void a_second_worker_is_refused_with_the_pid_of_the_first(void **state)
{
    struct bench first, second;
    assert_int_equal(bench_open(&first, path, 1), ERR_OK);
    assert_int_equal(bench_open(&second, path, 1), ERR_EXISTS);
    char pid[32];
    snprintf(pid, sizeof pid, "process %d", (int)getpid());
    assert_non_null(strstr(second.why, pid));
    assert_int_equal(add_account(&first, ROMEO), OK);
    bench_close(&first);
    assert_int_equal(bench_open(&second, path, 1), ERR_OK);
    bench_close(&second);
}

static void nobody_else_may_read_the_files(void **state)
{
    struct bench b;
    assert_int_equal(bench_open(&b, path, 1), ERR_OK);
    assert_int_equal(add_account(&b, ROMEO), OK);
    const char *ends[] = {"", "-wal", "-shm", ".lock"};
    for (size_t i = 0; i < array_len(ends); i++) {
        char name[80];
        struct stat s;
        snprintf(name, sizeof name, "%s%s", path, ends[i]);
        assert_int_equal(stat(name, &s), 0);
        assert_int_equal(s.st_mode & 0777, 0600);
    }
    bench_close(&b);
}

/* ---- kill -9 --------------------------------------------------------------------------------- */

struct victim {
    struct store_port port;
    int pipe;
};

static void tell(struct store_port *port, unsigned peer, const char *p, size_t n)
{
    struct victim *v = container_of(port, struct victim, port);
    Store__Reply *r = store__reply__unpack(NULL, n, (const uint8_t *)p);
    if (!r || r->result != OK || write(v->pipe, &r->id, sizeof r->id) != (ssize_t)sizeof r->id)
        _exit(1);
    store__reply__free_unpacked(r, NULL);
}

static void no_log(struct log *l, enum log_event e, enum log_level level, const struct log_field *f,
                   size_t n)
{
}

/* Commits batches of 1 to 8 for ever, and says which were acknowledged. */
static void be_the_victim(int fd, uint64_t from)
{
    struct victim v = {{tell}, fd};
    struct log log = {.write = no_log};
    struct store_worker_options o = {.path = path, .sync_full = true, .batch_max = 8};
    struct store_worker *w;
    char why[200], uid[24];
    if (store_worker_open(&o, &v.port, &log, why, sizeof why, &w) != ERR_OK)
        _exit(2);
    for (uint64_t i = from;;) {
        for (uint64_t end = i + 1 + i % 8; i < end; i++) {
            Store__Request q;
            Store__OfflinePut put;
            uint8_t packed[256];
            snprintf(uid, sizeof uid, "u%llu", (unsigned long long)i);
            offline_put_init(&q, &put, ROMEO, uid, "<message/>");
            q.id = i;
            store_worker_on_request(w, 0, (char *)packed, store__request__pack(&q, packed));
        }
        store_worker_run(w);
    }
}

/* Kills after some acknowledgements; returns one more than the last that was acknowledged. */
static uint64_t kill_a_victim(uint64_t from, unsigned after)
{
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        close(fds[0]);
        be_the_victim(fds[1], from);
    }
    close(fds[1]);
    uint64_t id, last = from;
    unsigned n = 0;
    while (read(fds[0], &id, sizeof id) == (ssize_t)sizeof id) {
        last = id + 1;
        if (++n == after)
            kill(pid, SIGKILL);
    }
    close(fds[0]);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && n >= after);
    return last;
}

static void check_rows(struct bench *b, uint64_t acknowledged)
{
    uint64_t after = 0, i = 0;
    for (;;) {
        Store__OfflinePage *page = get_offline(b, ROMEO, after, 0, 0);
        for (size_t k = 0; k < page->n_rows; k++, i++) {
            char uid[24];
            snprintf(uid, sizeof uid, "u%llu", (unsigned long long)i);
            assert_bytes(page->rows[k]->uid, uid);
            after = page->rows[k]->id;
        }
        if (!page->more)
            break;
    }
    assert_true(i >= acknowledged); /* those of the last commit may be more */
    assert_int_equal(load_user(b, ROMEO)->offline_count, i);
}

static void what_was_acknowledged_survives_kill_9(void **state)
{
    struct bench b;
    assert_int_equal(bench_open(&b, path, 1), ERR_OK);
    assert_int_equal(add_account(&b, ROMEO), OK);
    bench_close(&b);
    uint64_t next = 0;
    for (unsigned round = 0; round < 12; round++) {
        next = kill_a_victim(next, 20 + round * 7);
        assert_int_equal(bench_open(&b, path, 1), ERR_OK);
        check_rows(&b, next);
        next = load_user(&b, ROMEO)->offline_count;
        bench_close(&b);
    }
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(an_empty_file_is_migrated_to_the_current_schema_once),
        T(a_newer_schema_is_refused),
        T(a_database_of_another_program_is_refused_and_untouched),
        T(a_file_that_is_no_database_is_refused),
        T(a_missing_folder_is_named),
        T(a_second_worker_is_refused_with_the_pid_of_the_first),
        T(nobody_else_may_read_the_files),
        T(what_was_acknowledged_survives_kill_9),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
