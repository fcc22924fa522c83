/* The log: what a peer puts into a field stays in its field. And the clock, entropy and metrics
 * page. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "node/os/os.h"
#include "node/os/recent.h"

struct fake_clock {
    struct clock clock;
    int64_t us;
};
static int64_t fake_us(struct clock *c) { return container_of(c, struct fake_clock, clock)->us; }

struct fixture {
    struct log *log;
    struct log_config c;
    struct fake_clock clock;
    struct hash_key key;
    int read_fd;
    char out[65536];
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    int fds[2];
    if (pipe2(fds, O_NONBLOCK) < 0)
        return -1;
    f->read_fd = fds[0];
    f->clock = (struct fake_clock){{fake_us}, INT64_C(1700000000123456)};
    f->c = (struct log_config){.fd = fds[1],
                               .event_rate = 3,
                               .node = "n1",
                               .process = "0",
                               .clock = &f->clock.clock,
                               .key = &f->key};
    f->log = log_open(&f->c);
    *state = f;
    return 0;
}
static int teardown(void **state)
{
    struct fixture *f = *state;
    log_close(f->log);
    close(f->read_fd), close(f->c.fd);
    free(f);
    return 0;
}

static const char *written(struct fixture *f)
{
    ssize_t n = read(f->read_fd, f->out, sizeof f->out - 1);
    f->out[n > 0 ? n : 0] = 0;
    return f->out;
}
static unsigned lines(const char *p)
{
    unsigned n = 0;
    for (; *p; p++)
        n += *p == '\n';
    return n;
}

static void a_line_is_time_level_event_node_shard_and_fields(void **state)
{
    struct fixture *f = *state;
    LOG(f->log, stream_error, F_STR("condition", STR("not-well-formed")), F_INT("count", -3));
    assert_string_equal(written(f),
                        "ts=2023-11-14T22:13:20.123Z level=info event=stream_error node=n1 "
                        "shard=0 condition=not-well-formed count=-3\n");
}

static void json_has_the_same_keys(void **state)
{
    struct fixture *f = *state;
    f->c.format = LOG_FORMAT_JSON;
    log_reconfigure(f->log, &f->c);
    LOG(f->log, login_failed, F_STR("user", STR("a\"b\\c\n\x01")), F_INT("ms", 7));
    assert_string_equal(written(f),
                        "{\"ts\":\"2023-11-14T22:13:20.123Z\",\"level\":\"info\",\"event\":"
                        "\"login_failed\",\"node\":\"n1\",\"shard\":\"0\",\"user\":"
                        "\"a\\\"b\\\\c\\u000a\\u0001\",\"ms\":7}\n");
}

static void nobody_writes_a_line_or_a_field_of_their_own(void **state)
{
    static const char *const evil[] = {"x\nts=2023 level=error event=node_stopped",
                                       "x\r\nfake=1",
                                       "a b=c",
                                       "\"",
                                       "\\",
                                       "",
                                       "\xff\xfe",
                                       "\xc0\x8a",
                                       "\xe2\x80\xa8next",
                                       "\xc2\x85next",
                                       "\x1b[31mred",
                                       "\xf4\x90\x80\x80",
                                       "\xed\xa0\x80",
                                       "cut\xe2\x82"};
    struct fixture *f = *state;
    f->c.event_rate = 0;
    for (int json = 0; json < 2; json++) {
        f->c.format = json ? LOG_FORMAT_JSON : LOG_FORMAT_LOGFMT;
        log_reconfigure(f->log, &f->c);
        for (size_t i = 0; i < array_len(evil); i++) {
            LOG(f->log, login_failed, F_STR("user", str_of(evil[i])), F_STR("end", STR("e")));
            const char *line = written(f);
            assert_int_equal(lines(line), 1);
            const char *user = strstr(line, "user"),
                       *end = strstr(line, json ? "\"end\"" : " end=e\n");
            assert_non_null(user);
            assert_non_null(end);
            const char *v = user + (json ? 6 : 5);
            assert_int_equal(*v, '"');
            bool open = true;
            for (v++; v < end && open; v++) { /* the quotes close just before the next field */
                assert_true((unsigned char)*v >= ' ' && (unsigned char)*v != 0x7f);
                if (*v == '\\')
                    v++;
                else if (*v == '"')
                    open = false;
            }
            assert_false(open);
            assert_ptr_equal(v + json, end);
            assert_null(strstr(line, "\xe2\x80\xa8"));
            assert_null(strstr(line, "\xc2\x85"));
        }
    }
}

static void a_value_is_at_most_256_bytes_and_cut_between_characters(void **state)
{
    struct fixture *f = *state;
    char v[1000];
    memset(v, 'a', 255);
    for (size_t i = 255; i + 2 <= sizeof v; i += 2)
        memcpy(v + i, "\xc3\xa9", 2);
    LOG(f->log, login_failed, F_STR("user", str_from(v, 999)));
    const char *user = strstr(written(f), "user=\"");
    assert_non_null(user);
    assert_int_equal(strspn(user + 6, "a"), 255);
    assert_string_equal(user + 6 + 255, "\xe2\x80\xa6\"\n");
}

static void many_long_fields_still_make_one_whole_line(void **state)
{
    struct fixture *f = *state;
    char v[300];
    struct log_field many[64];
    memset(v, '\n', sizeof v);
    for (size_t i = 0; i < array_len(many); i++)
        many[i] = F_STR("k", str_from(v, sizeof v));
    f->log->write(f->log, LOG_login_failed, LOG_INFO, many, array_len(many));
    const char *line = written(f);
    assert_int_equal(lines(line), 1);
    assert_true(strlen(line) > 4000 && strlen(line) <= 8192);
    assert_string_equal(line + strlen(line) - 2, "\"\n");
}

static void more_lines_than_the_rate_are_summed_up(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 10; i++)
        LOG(f->log, login_failed, F_INT("i", i));
    LOG(f->log, login_ok, F_INT("i", 0)); /* another event has its own rate */
    assert_int_equal(lines(written(f)), 4);
    log_flush(f->log);
    assert_string_equal(written(f), "");
    f->clock.us += 1000000;
    log_flush(f->log);
    assert_non_null(strstr(written(f), "level=warn event=log_suppressed node=n1 shard=0 "
                                       "event=login_failed count=7\n"));
    LOG(f->log, login_failed, F_INT("i", 11));
    assert_int_equal(lines(written(f)), 1);
}

static void jids_and_addresses_are_written_as_configured(void **state)
{
    struct fixture *f = *state;
    struct sockaddr_storage v4 = {.ss_family = AF_INET}, v6 = {.ss_family = AF_INET6};
    inet_pton(AF_INET, "192.0.2.77", &((struct sockaddr_in *)&v4)->sin_addr);
    inet_pton(AF_INET6, "2001:db8:1:2:3::9", &((struct sockaddr_in6 *)&v6)->sin6_addr);
    f->c.event_rate = 0;
    log_reconfigure(f->log, &f->c);
#define LINE() \
    LOG(f->log, login_ok, F_JID("jid", STR("romeo@example.net")), F_ADDR("a", &v4), \
        F_ADDR("b", &v6))
    LINE();
    assert_non_null(
        strstr(written(f), " jid=romeo@example.net a=192.0.2.77 b=2001:db8:1:2:3::9\n"));
    f->c.jids = LOG_HASH, f->c.addresses = LOG_PREFIX;
    log_reconfigure(f->log, &f->c);
    LINE();
    const char *line = written(f);
    assert_null(strstr(line, "romeo"));
    assert_non_null(strstr(line, " jid=#"));
    assert_non_null(strstr(line, " a=192.0.2.0/24 b=2001:db8:1::/48\n"));
    f->c.jids = LOG_OFF, f->c.addresses = LOG_OFF;
    log_reconfigure(f->log, &f->c);
    LINE();
    assert_non_null(strstr(written(f), "shard=0\n"));
}

static void events_below_the_level_are_not_written(void **state)
{
    struct fixture *f = *state;
    f->c.level = LOG_WARN;
    log_reconfigure(f->log, &f->c);
    LOG(f->log, login_ok, F_INT("i", 1));
    assert_string_equal(written(f), "");
    LOG(f->log, store_slow, F_INT("i", 1));
    assert_int_equal(lines(written(f)), 1);
}

static void a_full_pipe_does_not_block(void **state)
{
    struct fixture *f = *state;
    f->c.event_rate = 0;
    log_reconfigure(f->log, &f->c);
    for (int i = 0; i < 5000; i++)
        LOG(f->log, login_failed, F_INT("i", i));
    assert_true(lines(written(f)) > 0);
}

static void entropy_does_not_repeat_and_wipes_what_it_gave(void **state)
{
    struct entropy_real e;
    uint64_t seen[100];
    unsigned char big[300] = {0};
    entropy_real_init(&e);
    for (size_t i = 0; i < array_len(seen); i++) {
        seen[i] = entropy_u64(&e.entropy);
        for (size_t j = 0; j < i; j++)
            assert_int_not_equal(seen[i], seen[j]);
    }
    for (size_t i = 0; i < sizeof e.pool - e.left; i++)
        assert_int_equal(e.pool[i], 0);
    entropy_fill(&e.entropy, big, sizeof big);
    assert_int_not_equal(big[0] | big[1] | big[298] | big[299], 0);
}

static void the_wall_clock_is_the_kernels(void **state)
{
    struct clock c;
    clock_real_init(&c);
    int64_t seconds = clock_wall_us(&c) / 1000000 - (int64_t)time(NULL);
    assert_true(seconds >= -1 && seconds <= 1);
}

static void a_metrics_page_survives_its_writer(void **state)
{
    struct metric_page *m;
    int fd;
    assert_int_equal(metric_page_create(&fd), ERR_OK);
    assert_int_equal(metric_page_map(fd, &m), ERR_OK);
    pid_t pid = fork();
    if (pid == 0) {
        metric_add(m, METRIC_logins, 3);
        atomic_fetch_add(&m->heartbeat, 1);
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    assert_int_equal(m->value[METRIC_logins], 3);
    assert_int_equal(m->heartbeat, 1);
    assert_int_equal(ftruncate(fd, 0), -1);
    metric_page_unmap(m);
    close(fd);
    int small = memfd_create("small", MFD_CLOEXEC);
    assert_int_equal(metric_page_map(small, &m), ERR_BAD);
    close(small);
}

static void warnings_are_kept_without_whom_they_were_about(void **state)
{
    struct fixture *f = *state;
    struct metric_page *m = calloc(1, sizeof *m);
    struct sockaddr_storage a = {.ss_family = AF_INET};
    struct recent_event e;
    f->c.metrics = m;
    struct log *log = log_open(&f->c);
    LOG(log, login_failed, F_STR("reason", STR("not-authorized")));
    assert_false(recent_read(m, 0, &e));
    LOG(log, queue_overflow, F_JID("jid", STR("juliet@example.org")), F_ADDR("address", &a),
        F_INT("bytes", 7), F_STR("fate", STR("ended")));
    assert_true(recent_read(m, 0, &e));
    assert_int_equal(e.event, LOG_queue_overflow);
    assert_int_equal(e.at_us, f->clock.us);
    assert_string_equal(e.text, " bytes=7 fate=ended");
    assert_false(recent_read(m, 1, &e));
    assert_int_equal(metric_get(m, METRIC_AT(log_events, LOG_INFO, 0)), 1);
    assert_int_equal(metric_get(m, METRIC_AT(log_events, LOG_WARN, 0)), 1);
    log_close(log);
    free(m);
}

static void only_the_newest_warnings_are_kept_and_long_ones_are_cut(void **state)
{
    struct metric_page *m = calloc(1, sizeof *m);
    struct recent_event e;
    char v[300];
    memset(v, 'x', sizeof v);
    for (int i = 0; i < 3 * METRIC_RECENT; i++) {
        const struct log_field fields[] = {F_INT("n", i), F_STR("why", str_from(v, sizeof v))};
        recent_keep(m, i, LOG_store_failed, fields, array_len(fields));
    }
    for (unsigned i = 0; i < METRIC_RECENT; i++) {
        assert_true(recent_read(m, i, &e));
        assert_int_equal(e.at_us, 3 * METRIC_RECENT - 1 - (int)i);
        assert_int_equal(strlen(e.text), sizeof e.text - 1);
    }
    assert_false(recent_read(m, METRIC_RECENT, &e));
    m->recent[(3 * METRIC_RECENT - 1) % METRIC_RECENT].version |= 1; /* its writer has died there */
    assert_false(recent_read(m, 0, &e));
    free(m);
}

static void an_event_may_be_more_than_its_row_says(void **state)
{
    struct fixture *f = *state;
    f->log->level = LOG_INFO;
    LOG_AT(f->log, LOG_DEBUG, conn_closed, F_STR("reason", STR("closed")));
    assert_string_equal(written(f), "");
    LOG_AT(f->log, LOG_INFO, conn_closed, F_STR("reason", STR("closed")));
    assert_non_null(strstr(written(f), "level=info event=conn_closed "));
}

#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_line_is_time_level_event_node_shard_and_fields),
        T(json_has_the_same_keys),
        T(nobody_writes_a_line_or_a_field_of_their_own),
        T(a_value_is_at_most_256_bytes_and_cut_between_characters),
        T(many_long_fields_still_make_one_whole_line),
        T(more_lines_than_the_rate_are_summed_up),
        T(jids_and_addresses_are_written_as_configured),
        T(events_below_the_level_are_not_written),
        T(a_full_pipe_does_not_block),
        T(warnings_are_kept_without_whom_they_were_about),
        T(only_the_newest_warnings_are_kept_and_long_ones_are_cut),
        T(an_event_may_be_more_than_its_row_says),
        cmocka_unit_test(entropy_does_not_repeat_and_wipes_what_it_gave),
        cmocka_unit_test(the_wall_clock_is_the_kernels),
        cmocka_unit_test(a_metrics_page_survives_its_writer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
