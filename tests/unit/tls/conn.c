#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <malloc.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "node/tls/tls.h"
#include "tests/unit/tls/pipe_transport.h"

/* --- a server with three hosts, and a clock of its own --- */

static int64_t now_s; /* begins with real time, by which the library ages sessions */
static int64_t wall(struct clock *c) { return now_s * 1000000; }
static struct clock clock_ = {wall};
static const unsigned char secret[32] = "a secret of thirty-two bytes ...";
static const unsigned char other_secret[32] = "another one";

static char dir[] = "/tmp/test-tls-XXXXXX";
static char files[4][2][64]; /* a.example, b.example, *.wild.example, a renewed a.example */

static void no_problem(void *ctx, str host, const char *file, const char *problem)
{
    fail_msg("%.*s %s: %s", STR_ARG(host), file, problem);
}

static int group_setup(void **state)
{
    const str names[4] = {STR("a.example"), STR("b.example"), STR("*.wild.example"),
                          STR("a.example")};
    now_s = time(NULL);
    assert_non_null(mkdtemp(dir));
    for (int i = 0; i < 4; i++) {
        snprintf(files[i][0], sizeof files[i][0], "%s/%d.pem", dir, i);
        snprintf(files[i][1], sizeof files[i][1], "%s/%d.key", dir, i);
        assert_int_equal(tls_selfsigned_write(&names[i], 1, now_s, files[i][0], files[i][1]), 0);
    }
    return 0;
}

static int group_teardown(void **state)
{
    for (int i = 0; i < 4; i++)
        unlink(files[i][0]), unlink(files[i][1]);
    return rmdir(dir);
}

static void give_certs(struct tls *t, int a)
{
    struct tls_pair pairs[] = {
        {.host = STR("a.example"), .certificate_file = files[a][0], .key_file = files[a][1]},
        {.host = STR("*.wild.example"), .certificate_file = files[2][0], .key_file = files[2][1]},
        {.host = STR("b.example"), .certificate_file = files[1][0], .key_file = files[1][1]},
    };
    int fd = -1;
    assert_int_equal(tls_certs_build(pairs, 3, no_problem, NULL, &fd), ERR_OK);
    assert_int_equal(tls_take_certs(t, fd), ERR_OK);
    close(fd);
    assert_true(pairs[0].covers && pairs[1].covers && pairs[2].covers);
}

static struct tls *server_with(uint16_t version_min, uint32_t lifetime, const unsigned char *s)
{
    struct tls_config c = {version_min, lifetime, s, &clock_};
    struct tls *t = tls_new(&c);
    give_certs(t, 0);
    return t;
}
static struct tls *server(void) { return server_with(0x0303, 86400, secret); }

/* --- an owner that remembers what it was told --- */

struct owner {
    struct transport *t;
    char in[256 << 10];
    size_t in_n;
    int opened, written, ended, closed, calls;
    err reason;
    void (*on_bytes)(struct owner *o, const char *p, size_t n);
    void (*on_written)(struct owner *o);
};

static void on_opened(struct transport *t) { ((struct owner *)t->owner)->opened++; }
static void on_bytes(struct transport *t, const char *p, size_t n)
{
    struct owner *o = t->owner;
    assert_int_equal(o->opened, 1);
    assert_true(o->in_n + n <= sizeof o->in);
    memcpy(o->in + o->in_n, p, n);
    o->in_n += n;
    o->calls++;
    if (o->on_bytes)
        o->on_bytes(o, p, n);
}
static void on_written(struct transport *t)
{
    struct owner *o = t->owner;
    o->written++;
    if (o->on_written)
        o->on_written(o);
}
static void on_ended(struct transport *t) { ((struct owner *)t->owner)->ended++; }
static void on_closed(struct transport *t, err reason)
{
    struct owner *o = t->owner;
    o->closed++;
    o->reason = reason;
}
static const struct transport_sink owner_sink = {on_opened, on_bytes, on_written, on_ended,
                                                 on_closed};

struct dialogue {
    struct pipe_end server_low, client_low;
    struct owner server, client;
};

static void own(struct owner *o, struct transport *t)
{
    o->t = t;
    t->sink = &owner_sink;
    t->owner = o;
}

static struct dialogue *dial(struct tls *s, struct tls *c, enum tls_use use, str starttls_host,
                             struct tls_client_options o, size_t chunk)
{
    struct dialogue *d = calloc(1, sizeof *d);
    pipe_init(&d->server_low, &d->client_low, chunk);
    own(&d->server, tls_server_open(s, &d->server_low.t, use, starttls_host));
    own(&d->client, tls_client_open(c, &d->client_low.t, &o));
    return d;
}
static void run(struct dialogue *d) { pipe_run(&d->server_low, &d->client_low); }

static struct dialogue *connect_(struct tls *t, struct tls_client_options o)
{
    struct dialogue *d = dial(t, t, TLS_DIRECT, STR_NONE, o, 0);
    run(d);
    assert_int_equal(d->server.opened, 1);
    assert_int_equal(d->client.opened, 1);
    return d;
}

static void hang_up(struct dialogue *d)
{
    if (!d->server.closed)
        transport_close(d->server.t, false);
    run(d);
    if (!d->client.closed)
        transport_close(d->client.t, false);
    run(d);
    assert_int_equal(d->server.closed, 1);
    assert_int_equal(d->client.closed, 1);
    transport_free(d->server.t);
    transport_free(d->client.t);
    assert_true(d->server_low.freed && d->client_low.freed);
    free(d);
}

static void say(struct owner *o, str s)
{
    struct iovec v = {(void *)(uintptr_t)s.p, s.n};
    assert_int_equal(transport_write(o->t, &v, 1), s.n);
}
static void assert_heard(const struct owner *o, str s)
{
    assert_int_equal(o->in_n, s.n);
    assert_memory_equal(o->in, s.p, s.n);
}
static struct transport_info info_of(const struct owner *o)
{
    struct transport_info i;
    transport_info(o->t, &i);
    return i;
}
static void assert_same_binding(struct dialogue *d, enum channel_binding kind)
{
    unsigned char s[64], c[64];
    size_t sn = 0, cn = 0;
    assert_int_equal(transport_channel_binding(d->server.t, kind, s, &sn), ERR_OK);
    assert_int_equal(transport_channel_binding(d->client.t, kind, c, &cn), ERR_OK);
    assert_int_equal(sn, 32);
    assert_int_equal(cn, sn);
    assert_memory_equal(s, c, sn);
}
static size_t end_point_of(struct owner *o, unsigned char out[64])
{
    size_t n = 0;
    assert_int_equal(transport_channel_binding(o->t, CB_TLS_SERVER_END_POINT, out, &n), ERR_OK);
    return n;
}

/* --- tests --- */

static void both_versions_shake_hands_and_echo(void **state)
{
    struct tls *t = server();
    for (uint16_t v = 0x0303; v <= 0x0304; v++) {
        struct dialogue *d = connect_(t, (struct tls_client_options){.version_max = v});
        say(&d->client, STR("ping"));
        run(d);
        assert_heard(&d->server, STR("ping"));
        say(&d->server, STR("pong"));
        run(d);
        assert_heard(&d->client, STR("pong"));
        assert_int_equal(d->server.written, 1);
        assert_int_equal(info_of(&d->server).tls_version, v);
        assert_true(info_of(&d->server).tls);
        assert_int_equal(info_of(&d->server).address.ss_family, AF_INET);
        hang_up(d);
    }
    tls_free(t);
}

static void a_client_of_1_2_is_refused_where_1_3_is_the_least(void **state)
{
    struct tls *t = server_with(0x0304, 86400, secret);
    struct dialogue *d =
        dial(t, t, TLS_DIRECT, STR_NONE, (struct tls_client_options){.version_max = 0x0303}, 0);
    run(d);
    assert_int_equal(d->server.reason, ERR_TLS);
    assert_string_equal(tls_failure(d->server.t), "UNSUPPORTED_PROTOCOL");
    assert_string_equal(tls_failure(d->client.t), "TLSV1_ALERT_PROTOCOL_VERSION");
    assert_int_equal(d->server.opened + d->client.opened, 0);
    hang_up(d);
    tls_free(t);
}

static void bytes_may_come_one_by_one(void **state)
{
    struct tls *t = server();
    struct dialogue *d = dial(t, t, TLS_DIRECT, STR_NONE, (struct tls_client_options){0}, 1);
    static char big[40000];
    memset(big, 'x', sizeof big);
    run(d);
    for (size_t at = 0; at < sizeof big; at += 10000) {
        say(&d->client, str_from(big + at, 10000));
        run(d);
    }
    assert_heard(&d->server, str_from(big, sizeof big));
    hang_up(d);
    tls_free(t);
}

static void pieces_of_any_size_give_the_same_bytes(void **state)
{
    struct tls *t = server();
    static char text[16384];
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (char)(i * 31);
    for (size_t chunk = 2; chunk < 20000; chunk = chunk * 3 / 2 + 1) {
        struct dialogue *d =
            dial(t, t, TLS_DIRECT, STR_NONE, (struct tls_client_options){0}, chunk);
        run(d);
        for (size_t n = 1; n <= sizeof text; n = n * 5 + 3) {
            d->server.in_n = d->client.in_n = 0;
            say(&d->client, str_from(text, n));
            say(&d->server, str_from(text, n));
            run(d);
            assert_heard(&d->server, str_from(text, n));
            assert_heard(&d->client, str_from(text, n));
        }
        hang_up(d);
    }
    tls_free(t);
}

static void a_write_takes_at_most_16_kib_and_gathers_slices(void **state)
{
    struct tls *t = server();
    struct dialogue *d = connect_(t, (struct tls_client_options){0});
    static char big[20000];
    struct iovec v[] = {{"head ", 5}, {"", 0}, {big, sizeof big}};
    memset(big, 'b', sizeof big);
    assert_int_equal(transport_write(d->client.t, v, 3), 16384);
    memset(big, 'c', sizeof big); /* it was copied */
    run(d);
    assert_int_equal(d->server.in_n, 16384);
    assert_memory_equal(d->server.in, "head bbb", 8);
    assert_int_equal(d->server.in[16383], 'b');
    v[0] = (struct iovec){big, sizeof big};
    assert_int_equal(transport_write(d->client.t, v, 1), 16384);
    run(d);
    assert_int_equal(d->server.in_n, 2 * 16384);
    hang_up(d);
    tls_free(t);
}

static void records_that_come_together_are_delivered_together(void **state)
{
    struct tls *t = server();
    struct dialogue *d = connect_(t, (struct tls_client_options){0});
    transport_pause(d->server.t);
    for (int i = 0; i < 8; i++) {
        say(&d->client, STR("<presence/>"));
        run(d);
    }
    assert_int_equal(d->server.calls, 0);
    transport_resume(d->server.t);
    run(d);
    assert_int_equal(d->server.calls, 1);
    assert_int_equal(d->server.in_n, 8 * 11);
    hang_up(d);
    tls_free(t);
}

static void data_right_behind_the_handshake_does_not_count_as_handshake(void **state)
{
    struct tls *t = server();
    struct dialogue *d = dial(t, t, TLS_DIRECT, STR_NONE, (struct tls_client_options){0}, 0);
    static char big[16384];
    pipe_pump(&d->client_low), pipe_pump(&d->server_low); /* the server has answered */
    transport_pause(d->server.t);
    run(d);
    for (int i = 0; i < 3; i++) {
        say(&d->client, str_from(big, sizeof big));
        run(d);
    }
    assert_int_equal(d->server.opened, 0);
    transport_resume(d->server.t);
    run(d);
    assert_int_equal(d->server.opened, 1);
    assert_int_equal(d->server.in_n, 3 * sizeof big);
    hang_up(d);
    tls_free(t);
}

static void answer(struct owner *o, const char *p, size_t n)
{
    if (o->in_n == n) /* the first time */
        say(o, STR("answer"));
}
static void a_write_from_inside_bytes_is_sent(void **state)
{
    struct tls *t = server();
    struct dialogue *d = connect_(t, (struct tls_client_options){0});
    d->server.on_bytes = answer;
    say(&d->client, STR("question"));
    run(d);
    assert_heard(&d->client, STR("answer"));
    hang_up(d);
    tls_free(t);
}

static void close_now(struct owner *o, const char *p, size_t n) { transport_close(o->t, false); }
static void a_close_from_inside_bytes_delivers_nothing_more(void **state)
{
    struct tls *t = server();
    struct dialogue *d = connect_(t, (struct tls_client_options){0});
    static char big[16384];
    d->server.on_bytes = close_now;
    transport_pause(d->server.t);
    for (int i = 0; i < 10; i++) { /* more than one scratch full */
        say(&d->client, str_from(big, sizeof big));
        run(d);
    }
    transport_resume(d->server.t);
    run(d);
    assert_int_equal(d->server.calls, 1);
    assert_int_equal(d->server.closed, 1);
    assert_int_equal(d->server.reason, ERR_OK);
    assert_int_equal(d->client.ended, 1); /* a bare FIN is an end too */
    hang_up(d);
    tls_free(t);
}

static void free_now(struct transport *t, err reason)
{
    struct owner *o = t->owner;
    o->closed++;
    transport_free(t);
}
static void a_transport_freed_while_it_delivers_is_not_touched_again(void **state)
{
    static const struct transport_sink sink = {on_opened, on_bytes, on_written, on_ended, free_now};
    struct tls *t = server();
    struct dialogue *d = connect_(t, (struct tls_client_options){0});
    d->server.t->sink = &sink;
    d->server.on_bytes = close_now;
    d->server_low.abrupt = true;
    say(&d->client, STR("boo"));
    run(d);
    assert_int_equal(d->server.closed, 1);
    assert_true(d->server_low.freed);
    transport_close(d->client.t, false);
    run(d);
    transport_free(d->client.t);
    free(d);
    tls_free(t);
}

static void say_again(struct owner *o)
{
    if (o->written < 3)
        say(o, STR("more"));
    else
        transport_close(o->t, true);
}
static void written_may_write_and_close(void **state)
{
    struct tls *t = server();
    struct dialogue *d = connect_(t, (struct tls_client_options){0});
    d->server.on_written = say_again;
    say(&d->server, STR("once"));
    run(d);
    assert_heard(&d->client, STR("oncemoremore"));
    assert_int_equal(d->client.ended, 1);
    hang_up(d);
    tls_free(t);
}

static void a_graceful_close_waits_for_the_write_and_says_close_notify(void **state)
{
    struct tls *t = server();
    for (uint16_t v = 0x0303; v <= 0x0304; v++) {
        struct dialogue *d = connect_(t, (struct tls_client_options){.version_max = v});
        say(&d->server, STR("</stream:stream>"));
        transport_close(d->server.t, true);
        d->client_low.told_ended = true; /* the FIN alone shall not be what ends it */
        run(d);
        assert_heard(&d->client, STR("</stream:stream>"));
        assert_int_equal(d->server.written, 1);
        assert_int_equal(d->client.ended, 1);
        assert_int_equal(d->server.closed, 0); /* it reads on until the peer closes */
        if (v == 0x0304) {                     /* where each side ends its own direction */
            say(&d->client, STR("last"));
            run(d);
            assert_heard(&d->server, STR("last"));
        }
        transport_close(d->client.t, true);
        run(d);
        assert_int_equal(d->server.ended, 1);
        assert_int_equal(d->server.reason, ERR_OK);
        assert_int_equal(d->client.reason, ERR_OK);
        hang_up(d);
    }
    tls_free(t);
}

static void close_notify_without_fin_ends_and_what_follows_is_ignored(void **state)
{
    struct tls *t = server();
    struct dialogue *d = connect_(t, (struct tls_client_options){0});
    transport_close(d->client.t, true);
    run(d);
    assert_int_equal(d->server.ended, 1);
    pipe_put(&d->server_low, "garbage", 7);
    d->server_low.told_ended = true;
    run(d);
    assert_int_equal(d->server.closed, 0);
    assert_int_equal(d->server.ended, 1);
    hang_up(d);
    tls_free(t);
}

static void a_shard_resumes_what_another_sealed(void **state)
{
    struct tls *first = server(), *second = server(),
               *stranger = server_with(0x0303, 86400, other_secret);
    struct dialogue *d = connect_(first, (struct tls_client_options){.sni = STR("a.example")});
    assert_false(info_of(&d->server).resumed);
    assert_null(tls_client_session(d->client.t)); /* tickets leave with the first write */
    say(&d->server, STR("hello"));
    run(d);
    struct tls_session *s = tls_client_session(d->client.t);
    assert_non_null(s);
    hang_up(d);

    struct tls_client_options again = {.sni = STR("a.example"), .resume = s};
    d = connect_(second, again);
    assert_true(info_of(&d->server).resumed);
    assert_same_binding(d, CB_TLS_EXPORTER);
    assert_same_binding(d, CB_TLS_SERVER_END_POINT);
    hang_up(d);

    d = connect_(stranger, again);
    assert_false(info_of(&d->server).resumed);
    hang_up(d);
    tls_session_free(s);
    tls_free(first), tls_free(second), tls_free(stranger);
}

static struct tls_session *ticket_of(struct tls *t, str host)
{
    struct dialogue *d = connect_(t, (struct tls_client_options){.sni = host});
    say(&d->server, STR("x"));
    run(d);
    struct tls_session *s = tls_client_session(d->client.t);
    hang_up(d);
    return s;
}
static bool resumes(struct tls *t, str host, struct tls_session *s)
{
    struct dialogue *d = connect_(t, (struct tls_client_options){.sni = host, .resume = s});
    bool yes = info_of(&d->server).resumed;
    hang_up(d);
    return yes;
}

static void a_ticket_of_one_host_is_nothing_at_another(void **state)
{
    struct tls *t = server();
    struct tls_session *s = ticket_of(t, STR("a.example"));
    assert_true(resumes(t, STR("a.example"), s));
    assert_false(resumes(t, STR("b.example"), s));
    tls_session_free(s);
    tls_free(t);
}

static void a_renewed_certificate_ends_the_tickets_of_the_old(void **state)
{
    struct tls *t = server();
    struct tls_session *s = ticket_of(t, STR("a.example")), *b = ticket_of(t, STR("b.example"));
    give_certs(t, 3);
    assert_false(resumes(t, STR("a.example"), s)); /* or both sides would bind to different ones */
    assert_true(resumes(t, STR("b.example"), b));
    tls_session_free(s), tls_session_free(b);
    tls_free(t);
}

static void tickets_live_through_one_change_of_keys_but_not_two(void **state)
{
    struct tls *t = server_with(0x0303, 1000, secret);
    int64_t start = now_s = time(NULL) / 500 * 500; /* the beginning of a period */
    struct tls_session *s = ticket_of(t, STR("a.example"));
    now_s = start + 499;
    struct tls_session *late = ticket_of(t, STR("a.example"));
    assert_true(resumes(t, STR("a.example"), s));
    now_s = start + 999;
    assert_true(resumes(t, STR("a.example"), s)); /* by the previous key */
    now_s = start + 1001;
    assert_false(resumes(t, STR("a.example"), s));
    assert_false(resumes(t, STR("a.example"), late)); /* 502 s old, but its key is gone */
    now_s = start - 1;
    assert_true(resumes(t, STR("a.example"), s)); /* sealed by a node whose clock is ahead */
    now_s = start;
    tls_session_free(s), tls_session_free(late);
    tls_free(t);
}

static void no_tickets_for_1_2_nor_with_a_lifetime_of_0(void **state)
{
    struct tls *t = server(), *none = server_with(0x0303, 0, secret);
    struct dialogue *d = connect_(t, (struct tls_client_options){.version_max = 0x0303});
    say(&d->server, STR("x"));
    run(d);
    struct tls_session *s = tls_client_session(d->client.t);
    hang_up(d);
    if (s) { /* a session id, which the server has not kept */
        d = connect_(t, (struct tls_client_options){.version_max = 0x0303, .resume = s});
        assert_false(info_of(&d->server).resumed);
        hang_up(d);
        tls_session_free(s);
    }
    assert_null(ticket_of(none, STR("a.example")));
    tls_free(t), tls_free(none);
}

static void the_hello_chooses_the_host(void **state)
{
    struct tls *t = server();
    const struct {
        str sni, starttls_host, shown;
        int like; /* the same certificate as the row */
    } row[] = {
        {STR("a.example"), STR_NONE, STR("a.example"), 0},
        {STR("B.Example."), STR_NONE, STR("b.example"), 1},
        {STR("b.example"), STR("a.example"), STR("b.example"), 1},
        {STR("b.example"), STR_NONE, STR("b.example"), 1},
        {STR_NONE, STR("b.example"), STR_NONE, 1},
        {STR_NONE, STR("nobody.example"), STR_NONE, 0},
        {STR_NONE, STR_NONE, STR_NONE, 0},
        {STR("nobody.example"), STR_NONE, STR("a.example"), 0},
        {STR("x.wild.example"), STR_NONE, STR("*.wild.example"), 8},
        {STR("x.y.wild.example"), STR_NONE, STR("a.example"), 0},
        {STR("wild.example"), STR_NONE, STR("a.example"), 0},
    };
    unsigned char seen[array_len(row)][64];
    for (size_t i = 0; i < array_len(row); i++) {
        struct dialogue *d = dial(t, t, TLS_STARTTLS, row[i].starttls_host,
                                  (struct tls_client_options){.sni = row[i].sni}, 0);
        run(d);
        assert_int_equal(d->server.opened, 1);
        assert_true(str_eq(info_of(&d->server).sni, row[i].shown));
        assert_same_binding(d, CB_TLS_SERVER_END_POINT);
        assert_int_equal(end_point_of(&d->server, seen[i]), 32);
        assert_memory_equal(seen[i], seen[row[i].like], 32);
        hang_up(d);
    }
    assert_memory_not_equal(seen[0], seen[1], 32);
    assert_memory_not_equal(seen[0], seen[8], 32);
    tls_free(t);
}

static void a_handshake_in_progress_keeps_its_generation(void **state)
{
    struct tls *t = server();
    unsigned char old[64], new[64];
    struct dialogue *d = connect_(t, (struct tls_client_options){.sni = STR("a.example")});
    end_point_of(&d->client, old);
    hang_up(d);

    struct dialogue *before =
        dial(t, t, TLS_DIRECT, STR_NONE, (struct tls_client_options){.sni = STR("a.example")}, 0);
    struct dialogue *half =
        dial(t, t, TLS_DIRECT, STR_NONE, (struct tls_client_options){.sni = STR("a.example")}, 0);
    struct dialogue *dropped =
        dial(t, t, TLS_DIRECT, STR_NONE, (struct tls_client_options){.sni = STR("a.example")}, 0);
    pipe_pump(&half->client_low), pipe_pump(&half->server_low); /* the server has answered */
    pipe_pump(&dropped->client_low), pipe_pump(&dropped->server_low);
    give_certs(t, 3);
    hang_up(dropped);
    run(before), run(half);
    end_point_of(&before->client, new);
    assert_memory_equal(old, new, 32);
    end_point_of(&half->client, new);
    assert_memory_equal(old, new, 32);
    assert_same_binding(half, CB_TLS_SERVER_END_POINT);
    d = connect_(t, (struct tls_client_options){.sni = STR("a.example")});
    end_point_of(&d->client, new);
    assert_memory_not_equal(old, new, 32);
    say(&half->client, STR("still here"));
    run(half);
    assert_heard(&half->server, STR("still here"));
    hang_up(d), hang_up(before), hang_up(half);
    tls_free(t);
}

static void both_sides_export_the_same_binding_and_another_each_time(void **state)
{
    struct tls *t = server();
    unsigned char a[64], b[64];
    size_t n;
    for (uint16_t v = 0x0303; v <= 0x0304; v++) {
        struct dialogue *d = connect_(t, (struct tls_client_options){.version_max = v});
        struct dialogue *e = connect_(t, (struct tls_client_options){.version_max = v});
        assert_same_binding(d, CB_TLS_EXPORTER);
        assert_int_equal(transport_channel_binding(d->server.t, CB_TLS_EXPORTER, a, &n), ERR_OK);
        assert_int_equal(transport_channel_binding(e->server.t, CB_TLS_EXPORTER, b, &n), ERR_OK);
        assert_memory_not_equal(a, b, n);
        hang_up(d), hang_up(e);
    }
    tls_free(t);
}

static void no_binding_before_the_handshake(void **state)
{
    struct tls *t = server();
    struct dialogue *d = dial(t, t, TLS_DIRECT, STR_NONE, (struct tls_client_options){0}, 0);
    unsigned char out[64];
    size_t n;
    assert_int_equal(transport_channel_binding(d->server.t, CB_TLS_EXPORTER, out, &n),
                     ERR_NOT_FOUND);
    assert_int_equal(transport_channel_binding(d->server.t, CB_TLS_SERVER_END_POINT, out, &n),
                     ERR_NOT_FOUND);
    assert_int_equal(info_of(&d->server).tls_version, 0);
    hang_up(d);
    tls_free(t);
}

static void direct_tls_wants_xmpp_client_or_no_alpn_at_all(void **state)
{
    struct tls *t = server();
    struct dialogue *d = connect_(t, (struct tls_client_options){.alpn = STR("xmpp-client")});
    assert_true(str_is(info_of(&d->server).alpn, "xmpp-client"));
    hang_up(d);
    d = connect_(t, (struct tls_client_options){0});
    assert_int_equal(info_of(&d->server).alpn.n, 0);
    hang_up(d);
    d = dial(t, t, TLS_DIRECT, STR_NONE, (struct tls_client_options){.alpn = STR("h2")}, 0);
    run(d);
    assert_int_equal(d->server.reason, ERR_TLS);
    assert_string_equal(tls_failure(d->server.t), "NO_APPLICATION_PROTOCOL");
    assert_string_equal(tls_failure(d->client.t), "TLSV1_ALERT_NO_APPLICATION_PROTOCOL");
    hang_up(d);
    d = dial(t, t, TLS_STARTTLS, STR_NONE, (struct tls_client_options){.alpn = STR("h2")}, 0);
    run(d);
    assert_int_equal(d->server.opened, 1);
    hang_up(d);
    tls_free(t);
}

/* --- attacks --- */

/* A server alone with bytes from nowhere. */
struct victim {
    struct pipe_end low, far;
    struct owner owner;
};
static struct victim *victim(struct tls *t, size_t chunk)
{
    struct victim *v = calloc(1, sizeof *v);
    pipe_init(&v->low, &v->far, chunk);
    own(&v->owner, tls_server_open(t, &v->low.t, TLS_DIRECT, STR_NONE));
    return v;
}
static void pump(struct victim *v)
{
    while (pipe_pump(&v->low))
        ;
}
static void bury(struct victim *v)
{
    if (!v->owner.closed)
        transport_close(v->owner.t, false);
    pump(v);
    assert_int_equal(v->owner.closed, 1);
    transport_free(v->owner.t);
    free(v->far.in);
    free(v);
}
static size_t heap(void) { return mallinfo2().uordblks; }

static void announcing_16_kib_costs_nine_bytes_little(void **state)
{
    struct tls *t = server();
    const unsigned char nine[] = {22, 3, 1, 0x40, 0, 1, 0, 0x10, 0};
    struct victim *v[100];
    for (int i = 0; i < 100; i++)
        v[i] = victim(t, 0);
    size_t before = heap();
    for (int i = 0; i < 100; i++)
        v[i]->owner.t->sink = &owner_sink,
        v[i]->low.t.sink->bytes(&v[i]->low.t, (const char *)nine, 9);
    if (heap() > 0) /* the sanitizers' malloc does not count */
        assert_true(heap() - before <= 100 * 128);
    printf("  nine bytes cost %zu bytes\n", (heap() - before) / 100);
    for (int i = 0; i < 100; i++)
        bury(v[i]);
    tls_free(t);
}

static void garbage_ends_at_its_first_byte(void **state)
{
    struct tls *t = server();
    struct victim *v = victim(t, 1);
    pipe_put(&v->low, "<stream:stream to='a.example'>", 30);
    pump(v);
    assert_int_equal(v->owner.reason, ERR_TLS);
    assert_string_equal(tls_failure(v->owner.t), "not_tls");
    assert_int_equal(v->low.in_n, 29);
    bury(v);
    tls_free(t);
}

static void a_hello_above_8_kib_ends_it(void **state)
{
    struct tls *t = server();
    static unsigned char hello[9000] = {22, 3, 1, 0x23, 0x23, 1, 0, 0x23, 0x1f};
    struct victim *v = victim(t, 3);
    pipe_put(&v->low, hello, sizeof hello);
    pump(v);
    assert_string_equal(tls_failure(v->owner.t), "client_hello_too_big");
    assert_int_equal(v->low.in_n, sizeof hello - 9);
    bury(v);
    tls_free(t);
}

static void a_hello_that_is_nonsense_gets_an_alert(void **state)
{
    struct tls *t = server();
    const unsigned char hello[] = {22, 3, 1, 0, 6, 1, 0, 0, 2, 3, 3};
    struct victim *v = victim(t, 0);
    pipe_put(&v->low, hello, sizeof hello);
    pump(v);
    assert_int_equal(v->owner.reason, ERR_TLS);
    assert_int_equal(v->far.in_n, 7);
    assert_int_equal(v->far.in[0], 21);
    bury(v);
    tls_free(t);
}

static void a_peer_that_goes_in_the_handshake_is_closed_not_failed(void **state)
{
    struct tls *t = server();
    struct victim *v = victim(t, 0);
    pipe_put(&v->low, "\x16\x03\x01", 3);
    v->low.ended = true;
    pump(v);
    assert_int_equal(v->owner.reason, ERR_CLOSED);
    bury(v);
    tls_free(t);
}

static void endless_handshake_records_end(void **state)
{
    struct tls *t = server();
    struct dialogue *d = dial(t, t, TLS_DIRECT, STR_NONE, (struct tls_client_options){0}, 0);
    const unsigned char change[] = {20, 3, 3, 0, 1, 1};
    pipe_pump(&d->client_low), pipe_pump(&d->server_low), pipe_pump(&d->server_low);
    for (int i = 0; i < 10000 && !d->server.closed; i++) {
        d->server_low.in_n = 0;
        pipe_put(&d->server_low, change, sizeof change);
        while (pipe_pump(&d->server_low))
            ;
    }
    assert_int_equal(d->server.reason, ERR_TLS);
    hang_up(d);
    tls_free(t);
}

static void a_damaged_record_ends_it_with_an_alert(void **state)
{
    struct tls *t = server();
    struct dialogue *d = connect_(t, (struct tls_client_options){0});
    const unsigned char forged[5 + 30] = {23, 3, 3, 0, 30};
    say(&d->client, STR("good"));
    pipe_pump(&d->client_low);
    pipe_put(&d->server_low, forged, sizeof forged);
    run(d);
    assert_heard(&d->server, STR("good"));
    assert_int_equal(d->server.reason, ERR_TLS);
    assert_string_equal(tls_failure(d->client.t), "SSLV3_ALERT_BAD_RECORD_MAC");
    hang_up(d);
    tls_free(t);
}

static void an_owner_that_was_not_told_yet_may_write(void **state)
{
    struct tls *t = server();
    struct dialogue *d = connect_(t, (struct tls_client_options){0});
    pipe_put(&d->server_low, "garbage", 7);
    pipe_pump(&d->server_low);
    assert_int_equal(d->server.closed, 0);
    say(&d->server, STR("into the void"));
    transport_close(d->server.t, true);
    run(d);
    assert_int_equal(d->server.written, 0);
    assert_int_equal(d->server.reason, ERR_TLS);
    assert_int_equal(d->client.in_n, 0);
    hang_up(d);
    tls_free(t);
}

static void a_server_without_certificates_refuses(void **state)
{
    struct tls_config c = {0x0303, 0, secret, &clock_};
    struct tls *t = tls_new(&c);
    struct dialogue *d = dial(t, t, TLS_DIRECT, STR_NONE, (struct tls_client_options){0}, 0);
    run(d);
    assert_int_equal(d->server.reason, ERR_TLS);
    hang_up(d);
    tls_free(t);
}

/* Counts heap bytes of a hundred idle connections, the client's side left out. */
static void an_idle_connection_costs_no_more_than_its_budget(void **state)
{
    enum { CONNS = 100 };
    struct tls *t = server();
    static struct dialogue *d[CONNS];
    for (int warm = 0; warm < 2; warm++) {
        struct dialogue *w = connect_(t, (struct tls_client_options){.sni = STR("a.example")});
        say(&w->server, STR("x"));
        run(w);
        hang_up(w);
    }
    for (int i = 0; i < CONNS; i++) {
        d[i] = connect_(t, (struct tls_client_options){.sni = STR("a.example")});
        say(&d[i]->client, STR("<stream:stream>"));
        say(&d[i]->server, STR("<stream:stream>"));
        run(d[i]);
        free(d[i]->server_low.in), d[i]->server_low.in = NULL;
    }
    size_t before = heap();
    for (int i = 0; i < CONNS; i++) {
        transport_close(d[i]->server.t, false);
        while (pipe_pump(&d[i]->server_low))
            ;
        transport_free(d[i]->server.t);
    }
    size_t each = (before - heap()) / CONNS;
    if (before > 0) { /* glibc's malloc counts with its headers */
        printf("  an idle connection: %zu bytes of heap\n", each);
        assert_true(each > 0 && each <= 2800 + 300);
    }
    for (int i = 0; i < CONNS; i++) {
        while (pipe_pump(&d[i]->client_low))
            ;
        if (!d[i]->client.closed)
            transport_close(d[i]->client.t, false);
        while (pipe_pump(&d[i]->client_low))
            ;
        transport_free(d[i]->client.t);
        free(d[i]);
    }
    tls_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_versions_shake_hands_and_echo),
        cmocka_unit_test(a_client_of_1_2_is_refused_where_1_3_is_the_least),
        cmocka_unit_test(bytes_may_come_one_by_one),
        cmocka_unit_test(pieces_of_any_size_give_the_same_bytes),
        cmocka_unit_test(a_write_takes_at_most_16_kib_and_gathers_slices),
        cmocka_unit_test(records_that_come_together_are_delivered_together),
        cmocka_unit_test(data_right_behind_the_handshake_does_not_count_as_handshake),
        cmocka_unit_test(a_write_from_inside_bytes_is_sent),
        cmocka_unit_test(a_close_from_inside_bytes_delivers_nothing_more),
        cmocka_unit_test(a_transport_freed_while_it_delivers_is_not_touched_again),
        cmocka_unit_test(written_may_write_and_close),
        cmocka_unit_test(a_graceful_close_waits_for_the_write_and_says_close_notify),
        cmocka_unit_test(close_notify_without_fin_ends_and_what_follows_is_ignored),
        cmocka_unit_test(a_shard_resumes_what_another_sealed),
        cmocka_unit_test(a_ticket_of_one_host_is_nothing_at_another),
        cmocka_unit_test(a_renewed_certificate_ends_the_tickets_of_the_old),
        cmocka_unit_test(tickets_live_through_one_change_of_keys_but_not_two),
        cmocka_unit_test(no_tickets_for_1_2_nor_with_a_lifetime_of_0),
        cmocka_unit_test(the_hello_chooses_the_host),
        cmocka_unit_test(a_handshake_in_progress_keeps_its_generation),
        cmocka_unit_test(both_sides_export_the_same_binding_and_another_each_time),
        cmocka_unit_test(no_binding_before_the_handshake),
        cmocka_unit_test(direct_tls_wants_xmpp_client_or_no_alpn_at_all),
        cmocka_unit_test(announcing_16_kib_costs_nine_bytes_little),
        cmocka_unit_test(garbage_ends_at_its_first_byte),
        cmocka_unit_test(a_hello_above_8_kib_ends_it),
        cmocka_unit_test(a_hello_that_is_nonsense_gets_an_alert),
        cmocka_unit_test(a_peer_that_goes_in_the_handshake_is_closed_not_failed),
        cmocka_unit_test(endless_handshake_records_end),
        cmocka_unit_test(a_damaged_record_ends_it_with_an_alert),
        cmocka_unit_test(an_owner_that_was_not_told_yet_may_write),
        cmocka_unit_test(a_server_without_certificates_refuses),
        cmocka_unit_test(an_idle_connection_costs_no_more_than_its_budget),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
