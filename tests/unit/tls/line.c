/* Handshakes wait in line, in order, until they are called (tls.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "node/tls/gate.h"
#include "node/tls/inside.h"
#include "tests/unit/tls/pipe_transport.h"

static int64_t wall(struct clock *c) { return (int64_t)time(NULL) * 1000000; }
static struct clock clock_ = {wall};
static const unsigned char secret[32] = "a secret of thirty-two bytes ...";

struct side {
    struct transport *t;
    int opened, closed;
    size_t heard;
    err reason;
};
static void on_opened(struct transport *t) { ((struct side *)t->owner)->opened++; }
static void on_bytes(struct transport *t, const char *p, size_t n)
{
    ((struct side *)t->owner)->heard += n;
}
static void on_nothing(struct transport *t) {}
static void on_closed(struct transport *t, err reason)
{
    struct side *s = t->owner;
    s->closed++, s->reason = reason;
}
static const struct transport_sink sink = {on_opened, on_bytes, on_nothing, on_nothing, on_closed};

struct dialogue {
    struct pipe_end server_low, client_low;
    struct side server, client;
};

static void no_problem(void *ctx, str host, const char *file, const char *problem)
{
    fail_msg("%s %s", file, problem);
}

static struct tls *server(void)
{
    static const str names[] = {STR("a.example")};
    char dir[] = "/tmp/test-tls-line-XXXXXX", cert[64], key[64];
    assert_non_null(mkdtemp(dir));
    snprintf(cert, sizeof cert, "%s/cert", dir), snprintf(key, sizeof key, "%s/key", dir);
    assert_int_equal(tls_selfsigned_write(names, 1, time(NULL), cert, key), ERR_OK);
    struct tls_pair pair = {.host = names[0], .certificate_file = cert, .key_file = key};
    int fd = -1;
    assert_int_equal(tls_certs_build(&pair, 1, no_problem, NULL, &fd), ERR_OK);
    struct tls_config c = {0x0303, 86400, secret, &clock_};
    struct tls *t = tls_new(&c);
    assert_int_equal(tls_take_certs(t, fd), ERR_OK);
    close(fd), unlink(cert), unlink(key), rmdir(dir);
    tls_line_keep(t);
    return t;
}

static void own(struct side *s, struct transport *t)
{
    s->t = t;
    t->sink = &sink, t->owner = s;
}

static void run(struct dialogue *d) { pipe_run(&d->server_low, &d->client_low); }

/* A client whose hello is on its way, in pieces of so many bytes (0: whole). */
static void dial(struct dialogue *d, struct tls *t, size_t chunk, uint16_t version)
{
    struct tls_client_options o = {.version_max = version};
    memset(d, 0, sizeof *d);
    pipe_init(&d->server_low, &d->client_low, chunk);
    own(&d->server, tls_server_open(t, &d->server_low.t, TLS_DIRECT, STR_NONE));
    own(&d->client, tls_client_open(t, &d->client_low.t, &o));
    run(d);
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
    transport_free(d->server.t);
    transport_free(d->client.t);
}

static void hellos_wait_until_they_are_called_in_order(void **state)
{
    enum { N = 4 };
    struct dialogue d[N];
    struct tls *t = server();
    for (int i = 0; i < N; i++)
        dial(&d[i], t, i % 2, i == 2 ? 0x0303 : 0); /* some in crumbs, one of TLS 1.2 */
    assert_int_equal(tls_line_length(t), N);
    for (int i = 0; i < N; i++) {
        assert_int_equal(d[i].server.opened + d[i].client.opened, 0);
        assert_true(tls_line_next(t));
        for (int k = 0; k < N; k++)
            run(&d[k]);
        assert_int_equal(d[i].server.opened + d[i].client.opened, 2);
        assert_int_equal(tls_line_length(t), N - 1 - i);
    }
    assert_false(tls_line_next(t));
    for (int i = 0; i < N; i++) { /* what comes later waits for nobody */
        struct iovec v = {"ping", 4};
        transport_write(d[i].client.t, &v, 1);
        run(&d[i]);
        assert_int_equal(d[i].server.heard, 4);
        hang_up(&d[i]);
    }
    tls_free(t);
}

static void who_goes_leaves_the_line(void **state)
{
    enum { N = 4 };
    struct dialogue d[N];
    struct tls *t = server();
    for (int i = 0; i < N; i++)
        dial(&d[i], t, 0, 0);
    transport_close(d[0].server.t, false); /* its owner has given it up */
    transport_close(d[2].client.t, false); /* its client */
    run(&d[0]), run(&d[2]);
    assert_int_equal(tls_line_length(t), 2);
    assert_int_equal(d[2].server.reason, ERR_CLOSED);
    assert_true(tls_line_next(t) && tls_line_next(t));
    assert_false(tls_line_next(t));
    run(&d[1]), run(&d[3]);
    assert_int_equal(d[1].server.opened + d[3].server.opened, 2);
    for (int i = 0; i < N; i++)
        hang_up(&d[i]);
    tls_free(t);
}

static void what_is_held_behind_a_hello_has_a_bound(void **state)
{
    static char more[GATE_RECORD_MAX];
    struct dialogue d;
    struct tls *t = server();
    dial(&d, t, 0, 0);
    assert_int_equal(tls_line_length(t), 1);
    d.server_low.t.sink->bytes(&d.server_low.t, more, 1000);
    assert_int_equal(d.server.closed, 0);
    d.server_low.t.sink->bytes(&d.server_low.t, more, sizeof more);
    run(&d);
    assert_int_equal(d.server.reason, ERR_TLS);
    assert_string_equal(tls_failure(d.server.t), "handshake_too_long");
    assert_int_equal(tls_line_length(t), 0);
    hang_up(&d);
    tls_free(t);
}

/* The first hello had no key that the server takes: asking for another costs nothing, the second
 * hello is the one that does. */
static void a_second_hello_waits_again(void **state)
{
    static const int p384[] = {NID_secp384r1};
    struct dialogue d;
    struct tls *t = server();
    assert_true(SSL_CTX_set1_curves(t->server, p384, 1));
    dial(&d, t, 0, 0);
    assert_true(tls_line_next(t));
    run(&d);
    assert_int_equal(tls_line_length(t), 1);
    assert_int_equal(d.server.opened, 0);
    for (int i = 0; i < 4 && tls_line_next(t); i++)
        run(&d);
    assert_int_equal(d.server.opened + d.client.opened, 2);
    hang_up(&d);
    tls_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hellos_wait_until_they_are_called_in_order),
        cmocka_unit_test(who_goes_leaves_the_line),
        cmocka_unit_test(what_is_held_behind_a_hello_has_a_bound),
        cmocka_unit_test(a_second_hello_waits_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
