/* What is PostgreSQL's alone: links and their loss, lanes, locks, the fence, the schema, TLS. */
#include "tests/unit/store/bench.h"
#include "tests/unit/support/cluster.h"

#include <netinet/in.h>
#include <sys/socket.h>

#define OK STORE__RESULT__OK
#define IO STORE__RESULT__IO
#define EXISTS STORE__RESULT__EXISTS
#define ROMEO "romeo@montague.example"
#define JULIET "juliet@capulet.example"

static struct cluster cluster;
static struct store_postgres options;

static void run_sql(const char *sql) { cluster_sql(&cluster, sql); }

/* An empty database, and a worker with so many connections. */
static void open_with(struct bench *b, unsigned connections)
{
    options = cluster_options(&cluster, connections);
    assert_int_equal(bench_open_postgres(b, &options, 32), ERR_OK);
    run_sql("TRUNCATE account CASCADE");
    assert_int_equal(add_account(b, ROMEO), OK);
}

static int setup(void **state)
{
    *state = malloc(sizeof(struct bench));
    open_with(*state, 1);
    return 0;
}

static int setup_four(void **state)
{
    *state = malloc(sizeof(struct bench));
    open_with(*state, 4);
    return 0;
}

static int teardown(void **state)
{
    bench_close(*state);
    free(*state);
    return 0;
}

static void send_put(struct bench *b, const char *jid, unsigned n)
{
    Store__Request q;
    Store__OfflinePut put;
    char uid[16];
    snprintf(uid, sizeof uid, "u%u", n);
    offline_put_init(&q, &put, jid, uid, "<message/>");
    q.id = n;
    bench_send(b, 0, &q);
}

/* Turns until something holds, at most 20 s. */
#define turn_until(b, condition) \
    do { \
        time_t until_ = time(NULL) + 20; \
        while (!(condition)) { \
            bench_turn(b, 20); \
            assert_true(time(NULL) < until_); \
        } \
    } while (0)

/* ---- links ----------------------------------------------------------------------------------- */

#define END_LINKS \
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'pemb%'"

static void a_lost_link_is_made_anew_and_said(void **state)
{
    struct bench *b = *state;
    run_sql(END_LINKS);
    turn_until(b, b->logged[LOG_store_lost] == 1);
    assert_non_null(strstr(b->said[LOG_store_lost], "terminat"));
    assert_int_equal(put_offline(b, ROMEO, "u1", "<m/>"), OK);
    assert_int_equal(b->logged[LOG_store_back], 1);
    assert_int_equal(b->logged[LOG_store_lost], 1);
}

/* Rows u0 … in order, each once. */
static void check_rows(struct bench *b, const char *jid, unsigned n)
{
    unsigned i = 0;
    for (uint64_t after = 0;;) {
        Store__OfflinePage *page = get_offline(b, jid, after, 0, 0);
        for (size_t k = 0; k < page->n_rows; k++) {
            char uid[16];
            snprintf(uid, sizeof uid, "u%u", i++);
            assert_bytes(page->rows[k]->uid, uid);
            after = page->rows[k]->id;
        }
        if (!page->more)
            break;
    }
    assert_int_equal(i, n);
    assert_int_equal(load_user(b, jid)->offline_count, n);
}

/* Links end at any moment: before a batch, within it, or after COMMIT and before its answer. */
static void nothing_is_lost_or_doubled_when_links_end_under_load(void **state)
{
    enum { MESSAGES = 1500, IN_FLIGHT = 40, EVERY = 100 };
    struct bench *b = *state;
    unsigned sent = 0, answered = 0, ends = 0;
    time_t until = time(NULL) + 60;
    bench_forget(b);
    while (answered < MESSAGES) {
        while (sent < MESSAGES && sent - answered < IN_FLIGHT)
            send_put(b, ROMEO, sent++);
        if (answered >= (ends + 1) * EVERY)
            run_sql(END_LINKS), ends++;
        bench_turn(b, 20);
        for (size_t i = 0; i < b->n; i++, answered++) {
            assert_int_equal(b->replies[i]->result, OK);
            assert_int_equal(b->replies[i]->id, answered); /* in order, each once */
        }
        bench_forget(b);
        assert_true(time(NULL) < until);
    }
    assert_true(b->logged[LOG_store_lost] >= 5);
    check_rows(b, ROMEO, MESSAGES);
}

static void requests_wait_while_the_server_is_away(void **state)
{
    struct bench *b = *state;
    cluster_stop(&cluster, SIGKILL);
    turn_until(b, b->logged[LOG_store_lost] > 0); /* its children live a little longer */
    send_put(b, ROMEO, 0);
    send_put(b, ROMEO, 1);
    for (unsigned i = 0; i < 20; i++)
        bench_turn(b, 20);
    assert_int_equal(store_worker_queued(b->worker), 2);
    cluster_start(&cluster);
    bench_run(b);
    assert_int_equal(b->n, 2);
    assert_int_equal(b->replies[1]->result, OK);
    assert_int_equal(b->logged[LOG_store_back], 1);
    check_rows(b, ROMEO, 2);
}

/* A server that neither answers nor closes. */
static void a_silent_server_is_left(void **state)
{
    struct bench *b = *state;
    store_worker_set_timeout(b->worker, 500);
    assert_int_equal(put_offline(b, ROMEO, "u0", "<m/>"), OK); /* tells the link */
    pid_t pid = (pid_t)cluster_sql(&cluster, "SELECT pid FROM pg_stat_activity"
                                             " WHERE application_name LIKE 'pemb%'");
    kill(pid, SIGSTOP);
    send_put(b, ROMEO, 1);
    turn_until(b, b->logged[LOG_store_lost] > 0);
    assert_string_equal(b->said[LOG_store_lost], "no answer in time");
    kill(pid, SIGCONT); /* what it still has comes too late */
    bench_run(b);
    assert_int_equal(b->replies[0]->result, OK);
    check_rows(b, ROMEO, 2);
}

/* ---- lanes and locks ------------------------------------------------------------------------- */

static void each_owner_has_order_over_several_connections(void **state)
{
    enum { USERS = 12, EACH = 40 };
    struct bench *b = *state;
    char jid[32];
    for (unsigned u = 0; u < USERS; u++) {
        snprintf(jid, sizeof jid, "user%u@localhost", u);
        assert_int_equal(add_account(b, jid), OK);
    }
    for (unsigned i = 0; i < EACH; i++)
        for (unsigned u = 0; u < USERS; u++) {
            snprintf(jid, sizeof jid, "user%u@localhost", u);
            send_put(b, jid, i);
        }
    bench_run(b);
    assert_int_equal(b->n, USERS * EACH);
    for (unsigned u = 0; u < USERS; u++) {
        snprintf(jid, sizeof jid, "user%u@localhost", u);
        check_rows(b, jid, EACH);
    }
    assert_int_equal(cluster_sql(&cluster, "SELECT count(*) FROM fence WHERE node = 'n1'"), 4);
}

static void send_get(struct bench *b)
{
    Store__OfflineGet get = STORE__OFFLINE_GET__INIT;
    REQUEST(q, ROMEO, OFFLINE_GET, offline_get, &get);
    bench_send(b, 0, &q);
}

/* Their answers may be great, and wait for the batch's end: 32 alone, 16 beside a write. */
static void a_batch_has_few_reads(void **state)
{
    struct bench *b = *state;
    store_worker_set_batch_max(b->worker, 256);
    bench_forget(b);
    for (unsigned i = 0; i < 40; i++)
        send_get(b);
    turn_until(b, b->n > 0);
    assert_int_equal(b->n, 32);
    turn_until(b, b->n == 40);
    bench_forget(b);
    send_put(b, ROMEO, 0);
    for (unsigned i = 0; i < 20; i++)
        send_get(b);
    turn_until(b, b->n > 0);
    assert_int_equal(b->n, 17);
    turn_until(b, b->n == 21);
}

static PGconn *lock_account(const char *jid)
{
    char sql[128];
    PGconn *conn = cluster_connect(&cluster);
    snprintf(sql, sizeof sql, "BEGIN; SELECT id FROM account WHERE jid = '%s' FOR UPDATE", jid);
    PGresult *r = PQexec(conn, sql);
    assert_int_equal(PQntuples(r), 1);
    PQclear(r);
    return conn;
}

/* longer than lock_timeout: tried again, and nobody fails */
static void a_lock_of_another_delays_one_lane_only(void **state)
{
    struct bench *b = *state;
    char jid[32];
    for (unsigned u = 0; u < 20; u++) {
        snprintf(jid, sizeof jid, "user%u@localhost", u);
        assert_int_equal(add_account(b, jid), OK);
    }
    store_worker_set_timeout(b->worker, 200);
    PGconn *other = lock_account(ROMEO);
    bench_forget(b);
    send_put(b, ROMEO, 0);
    for (unsigned u = 0; u < 20; u++) {
        snprintf(jid, sizeof jid, "user%u@localhost", u);
        send_put(b, jid, 1);
    }
    turn_until(b, b->n >= 8);          /* twenty in four lanes: some wait behind Romeo's */
    for (unsigned i = 0; i < 5; i++) { /* five times lock_timeout */
        struct timespec began, now;
        clock_gettime(CLOCK_MONOTONIC, &began);
        do {
            bench_turn(b, 20);
            clock_gettime(CLOCK_MONOTONIC, &now);
        } while ((now.tv_sec - began.tv_sec) * 1000 + (now.tv_nsec - began.tv_nsec) / 1000000 <
                 100);
    }
    assert_true(b->n < 21);
    PQfinish(other);
    turn_until(b, b->n == 21);
    for (size_t i = 0; i < b->n; i++)
        assert_int_equal(b->replies[i]->result, OK);
    check_rows(b, ROMEO, 1);
}

static void a_failing_statement_fails_its_request_alone(void **state)
{
    struct bench *b = *state;
    run_sql("ALTER TABLE vcard ADD CONSTRAINT no CHECK (length(xml) > 100)");
    Store__VcardPut put = STORE__VCARD_PUT__INIT;
    put.xml = bytes_of("<vCard/>");
    REQUEST(q, ROMEO, VCARD_PUT, vcard_put, &put);
    send_put(b, ROMEO, 0);
    bench_send(b, 0, &q);
    send_put(b, ROMEO, 1);
    bench_run(b);
    run_sql("ALTER TABLE vcard DROP CONSTRAINT no");
    static const Store__Result want[] = {OK, IO, OK};
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(b->replies[i]->result, want[i]);
    assert_int_equal(b->logged[LOG_store_failed], 1);
    assert_non_null(strstr(b->said[LOG_store_failed], "check constraint"));
    check_rows(b, ROMEO, 2);
}

/* ---- the fence ------------------------------------------------------------------------------- */

static void a_fenced_node_writes_nothing(void **state)
{
    struct bench *b = *state, other;
    struct store_postgres o = cluster_options(&cluster, 1);
    o.node = "n2";
    assert_int_equal(bench_open_postgres(&other, &o, 8), ERR_OK);
    run_sql("UPDATE fence SET epoch = 7 WHERE node = 'n1'");
    send_put(b, ROMEO, 0);
    send_put(b, ROMEO, 1);
    bench_run(b);
    assert_int_equal(b->replies[0]->result, IO);
    assert_int_equal(b->replies[1]->result, IO);
    assert_non_null(strstr(b->said[LOG_store_failed], "fenced"));
    check_rows(&other, ROMEO, 0); /* who is not fenced goes on */
    assert_int_equal(put_offline(&other, ROMEO, "u0", "<m/>"), OK);
    bench_close(&other);
    run_sql("UPDATE fence SET epoch = 0");
    assert_int_equal(put_offline(b, ROMEO, "u1", "<m/>"), OK);
}

static void fence_other(struct bench *b, const char *node, uint64_t epoch)
{
    Store__NodeFence fence = STORE__NODE_FENCE__INIT;
    Store__Request q = STORE__REQUEST__INIT;
    q.op_case = STORE__REQUEST__OP_NODE_FENCE, q.node_fence = &fence;
    fence.node = (ProtobufCBinaryData){strlen(node), (uint8_t *)(uintptr_t)node};
    fence.epoch = epoch;
    assert_int_equal(bench_ask(b, &q)->result, OK);
}

static void send_admit(struct bench *b, const char *node, uint64_t epoch)
{
    Store__NodeAdmit admit = STORE__NODE_ADMIT__INIT;
    Store__Request q = STORE__REQUEST__INIT;
    q.op_case = STORE__REQUEST__OP_NODE_ADMIT, q.node_admit = &admit;
    admit.node = (ProtobufCBinaryData){strlen(node), (uint8_t *)(uintptr_t)node};
    admit.epoch = epoch;
    bench_send(b, 1, &q);
}

static void a_node_is_fenced_by_another_and_admitted_by_itself_in_a_later_epoch_only(void **state)
{
    struct bench *b = *state, other;
    struct store_postgres o = cluster_options(&cluster, 1);
    o.node = "n2";
    assert_int_equal(bench_open_postgres(&other, &o, 8), ERR_OK);
    fence_other(&other, "n1", 41);
    fence_other(&other, "n1", 40); /* who is late lowers nothing */
    assert_int_equal(put_offline(b, ROMEO, "u0", "<m/>"), IO);
    send_admit(b, "n1", 40);
    bench_run(b);
    assert_int_equal(b->replies[0]->result, EXISTS);
    assert_int_equal(put_offline(b, ROMEO, "u0", "<m/>"), IO);
    send_admit(b, "n1", 42);
    bench_run(b);
    assert_int_equal(put_offline(b, ROMEO, "u0", "<m/>"), OK);
    fence_other(&other, "n3", 43); /* that never was here: nor will it write when it comes */
    bench_close(&other);
    o.node = "n3";
    assert_int_equal(bench_open_postgres(&other, &o, 8), ERR_OK);
    assert_int_equal(put_offline(&other, ROMEO, "u1", "<m/>"), IO);
    bench_close(&other);
}

static void among_other_requests_one_that_admits_holds_for_those_behind_it(void **state)
{
    struct bench *b = *state, one_lane;
    struct store_postgres o = cluster_options(&cluster, 1);
    o.node = "n4";
    assert_int_equal(bench_open_postgres(&one_lane, &o, 8), ERR_OK);
    fence_other(b, "n4", 7);
    send_put(&one_lane, ROMEO, 0);
    send_admit(&one_lane, "n4", 8);
    send_put(&one_lane, ROMEO, 1);
    bench_run(&one_lane);
    assert_int_equal(one_lane.replies[0]->result, IO);
    assert_int_equal(one_lane.replies[1]->result, OK);
    assert_int_equal(one_lane.replies[2]->result, OK);
    bench_close(&one_lane);
}

static void without_a_row_nobody_is_fenced(void **state)
{
    struct bench *b = *state;
    run_sql("DELETE FROM fence");
    assert_int_equal(put_offline(b, ROMEO, "u0", "<m/>"), OK);
}

/* As a former link would find it. */
static void a_batch_of_a_former_link_does_not_count(void **state)
{
    struct bench *b = *state;
    run_sql("UPDATE fence SET link = link + 1");
    assert_int_equal(put_offline(b, ROMEO, "u0", "<m/>"), OK); /* by the next link */
    assert_non_null(strstr(b->said[LOG_store_lost], "another store worker"));
    check_rows(b, ROMEO, 1);
}

/* ---- the schema ------------------------------------------------------------------------------ */

#define FORGET "DROP SCHEMA public CASCADE; CREATE SCHEMA public"

static void an_empty_database_is_migrated_once(void **state)
{
    struct bench b;
    run_sql(FORGET);
    options = cluster_options(&cluster, 2);
    assert_int_equal(bench_open_postgres(&b, &options, 8), ERR_OK);
    assert_int_equal(b.logged[LOG_store_migrated], 1);
    assert_int_equal(add_account(&b, ROMEO), OK);
    bench_close(&b);
    assert_int_equal(bench_open_postgres(&b, &options, 8), ERR_OK);
    assert_int_equal(b.logged[LOG_store_migrated], 0);
    assert_true(load_user(&b, ROMEO)->exists);
    bench_close(&b);
}

/* A worker of another node in a process of its own; it ends with 0 when it has opened. */
static pid_t start_worker(const char *node)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid > 0)
        return pid;
    struct bench b;
    struct store_postgres o = cluster_options(&cluster, 1);
    o.node = node;
    _exit(bench_open_postgres(&b, &o, 8) != ERR_OK);
}

#define WAITING "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"

/* The test has the lock first, so that all wait for it; then one migrates, the others see that. */
static void workers_that_start_at_once_migrate_in_turn(void **state)
{
    enum { WORKERS = 4 };
    static const char *const names[WORKERS] = {"w1", "w2", "w3", "w4"};
    run_sql(FORGET);
    PGconn *first = cluster_connect(&cluster);
    PQclear(PQexec(first, "SELECT pg_advisory_lock(5783203949437083970)"));
    pid_t pids[WORKERS];
    for (unsigned i = 0; i < WORKERS; i++)
        pids[i] = start_worker(names[i]);
    for (time_t until = time(NULL) + 20; cluster_sql(&cluster, WAITING) < WORKERS;)
        assert_true(time(NULL) < until);
    PQfinish(first);
    for (unsigned i = 0; i < WORKERS; i++) {
        int status;
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    assert_int_equal(cluster_sql(&cluster, "SELECT version FROM pemberley_schema"), 5);
}

static void a_newer_schema_is_used_if_it_allows_that(void **state)
{
    struct bench b;
    options = cluster_options(&cluster, 1);
    run_sql("UPDATE pemberley_schema SET version = 99, oldest = 4");
    assert_int_equal(bench_open_postgres(&b, &options, 8), ERR_OK);
    bench_close(&b);
    run_sql("UPDATE pemberley_schema SET oldest = 99");
    assert_int_equal(bench_open_postgres(&b, &options, 8), ERR_BAD);
    assert_non_null(strstr(b.why, "schema version 99"));
    run_sql(FORGET);
}

static void tables_of_another_program_are_left_alone(void **state)
{
    struct bench b;
    run_sql(FORGET);
    run_sql("CREATE TABLE account (theirs BIGINT)");
    options = cluster_options(&cluster, 1);
    assert_int_equal(bench_open_postgres(&b, &options, 8), ERR_IO);
    assert_non_null(strstr(b.why, "already exists"));
    run_sql("INSERT INTO account (theirs) VALUES (1)");
    assert_int_equal(cluster_sql(&cluster, "SELECT count(*) FROM pg_tables"
                                           " WHERE schemaname = 'public'"),
                     2);
    run_sql(FORGET);
}

/* ---- the way there --------------------------------------------------------------------------- */

static unsigned short free_port(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, n), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &n), 0);
    close(fd);
    return ntohs(a.sin_port);
}

static void the_next_host_is_tried(void **state)
{
    char dead[32];
    snprintf(dead, sizeof dead, "127.0.0.1:%u", free_port());
    const char *hosts[] = {dead, "/nonexistent", cluster.host};
    struct bench b;
    options = cluster_options(&cluster, 1);
    options.hosts = hosts, options.hosts_n = 3;
    assert_int_equal(bench_open_postgres(&b, &options, 8), ERR_OK);
    assert_int_equal(add_account(&b, JULIET), OK);
    bench_close(&b);
    options.hosts_n = 2;
    assert_int_equal(bench_open_postgres(&b, &options, 8), ERR_AWAY);
    assert_non_null(strstr(b.why, "/nonexistent"));
}

static void a_read_only_server_is_not_the_one(void **state)
{
    struct bench b;
    options = cluster_options(&cluster, 1);
    run_sql("ALTER DATABASE postgres SET default_transaction_read_only = on");
    assert_int_equal(bench_open_postgres(&b, &options, 8), ERR_AWAY);
    assert_non_null(strstr(b.why, "read-only"));
    PGconn *conn = cluster_connect(&cluster);
    PQclear(PQexec(conn, "SET default_transaction_read_only = off"));
    PQclear(PQexec(conn, "ALTER DATABASE postgres SET default_transaction_read_only = off"));
    PQfinish(conn);
}

static void run_shell(const char *format, ...)
{
    char command[1024];
    va_list va;
    va_start(va, format);
    vsnprintf(command, sizeof command, format, va);
    va_end(va);
    assert_int_equal(system(command), 0);
}

static char ca_file[80], wrong_ca[80], password_file[80], tcp[32];

static void make_certificate(const char *name, const char *cn)
{
    run_shell("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 "
              "-subj /CN=%s -addext subjectAltName=DNS:%s -keyout %s/%s.key -out %s/%s.pem "
              "2>/dev/null",
              cn, cn, cluster.dir, name, cluster.dir, name);
}

static void write_password(const char *password, const char *mode)
{
    run_shell("printf '%s\\n' > %s && chmod %s %s", password, password_file, mode, password_file);
}

/* TCP only with TLS and SCRAM. */
static int setup_tls(void **state)
{
    snprintf(ca_file, sizeof ca_file, "%s/server.pem", cluster.dir);
    snprintf(wrong_ca, sizeof wrong_ca, "%s/other.pem", cluster.dir);
    snprintf(password_file, sizeof password_file, "%s/password", cluster.dir);
    make_certificate("server", "localhost");
    make_certificate("other", "localhost");
    run_shell("chown --reference=%s %s/server.key && chmod 600 %s/server.key", cluster.data,
              cluster.dir, cluster.dir);
    run_shell("printf 'local all all trust\\nhostssl all all 127.0.0.1/32 scram-sha-256\\n' > "
              "%s/pg_hba.conf",
              cluster.data);
    run_shell("printf \"ssl = on\\nssl_cert_file = '%s/server.pem'\\n"
              "ssl_key_file = '%s/server.key'\\n\" >> %s/postgresql.conf",
              cluster.dir, cluster.dir, cluster.data);
    run_sql("SET password_encryption = 'scram-sha-256'; ALTER ROLE pemberley PASSWORD 'swordfish'");
    cluster_stop(&cluster, SIGINT);
    snprintf(cluster.port, sizeof cluster.port, "%u", free_port());
    cluster_start(&cluster);
    snprintf(tcp, sizeof tcp, "localhost:%s", cluster.port);
    write_password("swordfish", "600");
    return 0;
}

static err open_tls(struct bench *b, enum store_tls tls, const char *host, const char *ca)
{
    static const char *hosts[1];
    hosts[0] = host;
    options = cluster_options(&cluster, 1);
    options.hosts = hosts, options.tls = tls, options.ca_file = ca;
    options.password_file = password_file;
    return bench_open_postgres(b, &options, 8);
}

static void scram_over_verified_tls_works(void **state)
{
    struct bench b;
    write_password("swordfish", "600");
    assert_int_equal(open_tls(&b, STORE_TLS_VERIFY_FULL, tcp, ca_file), ERR_OK);
    assert_int_equal(add_account(&b, "tls@localhost"), OK);
    assert_int_equal(cluster_sql(&cluster, "SELECT count(*) FROM pg_stat_ssl s JOIN"
                                           " pg_stat_activity a USING (pid) WHERE s.ssl AND"
                                           " a.application_name = 'pemberley n1'"),
                     1);
    bench_close(&b);
}

static void a_wrong_password_is_named(void **state)
{
    struct bench b;
    write_password("sardine", "600");
    assert_int_equal(open_tls(&b, STORE_TLS_VERIFY_FULL, tcp, ca_file), ERR_AWAY);
    assert_non_null(strstr(b.why, "password authentication failed for user \"pemberley\""));
    write_password("swordfish", "644");
    assert_int_equal(open_tls(&b, STORE_TLS_VERIFY_FULL, tcp, ca_file), ERR_IO);
    assert_non_null(strstr(b.why, "may be read by everybody"));
    write_password("swordfish", "600");
}

static void a_server_that_is_not_the_one_is_named(void **state)
{
    struct bench b;
    char by_address[32];
    snprintf(by_address, sizeof by_address, "127.0.0.1:%s", cluster.port);
    assert_int_equal(open_tls(&b, STORE_TLS_VERIFY_FULL, tcp, wrong_ca), ERR_AWAY);
    assert_non_null(strstr(b.why, "certificate verify failed"));
    assert_int_equal(open_tls(&b, STORE_TLS_VERIFY_FULL, by_address, ca_file), ERR_AWAY);
    assert_non_null(strstr(b.why, "does not match host name"));
    assert_int_equal(open_tls(&b, STORE_TLS_VERIFY_CA, by_address, ca_file), ERR_OK);
    bench_close(&b);
    assert_int_equal(open_tls(&b, STORE_TLS_REQUIRE, by_address, wrong_ca), ERR_OK);
    bench_close(&b);
    assert_int_equal(open_tls(&b, STORE_TLS_OFF, tcp, ""), ERR_AWAY);
    assert_non_null(strstr(b.why, "no pg_hba.conf entry"));
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define T4(name) cmocka_unit_test_setup_teardown(name, setup_four, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_lost_link_is_made_anew_and_said),
        T(nothing_is_lost_or_doubled_when_links_end_under_load),
        T(requests_wait_while_the_server_is_away),
        T(a_silent_server_is_left),
        T(a_batch_has_few_reads),
        T4(each_owner_has_order_over_several_connections),
        T4(a_lock_of_another_delays_one_lane_only),
        T(a_failing_statement_fails_its_request_alone),
        T(a_fenced_node_writes_nothing),
        T(a_node_is_fenced_by_another_and_admitted_by_itself_in_a_later_epoch_only),
        T(among_other_requests_one_that_admits_holds_for_those_behind_it),
        T(without_a_row_nobody_is_fenced),
        T(a_batch_of_a_former_link_does_not_count),
        cmocka_unit_test(an_empty_database_is_migrated_once),
        cmocka_unit_test(workers_that_start_at_once_migrate_in_turn),
        cmocka_unit_test(a_newer_schema_is_used_if_it_allows_that),
        cmocka_unit_test(tables_of_another_program_are_left_alone),
        cmocka_unit_test(the_next_host_is_tried),
        cmocka_unit_test(a_read_only_server_is_not_the_one),
    };
    const struct CMUnitTest tls[] = {
        cmocka_unit_test(scram_over_verified_tls_works),
        cmocka_unit_test(a_wrong_password_is_named),
        cmocka_unit_test(a_server_that_is_not_the_one_is_named),
    };
    cluster_init(&cluster, "");
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    failed += cmocka_run_group_tests(tls, setup_tls, NULL);
    cluster_end(&cluster);
    return failed;
}
