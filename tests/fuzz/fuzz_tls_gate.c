/* fuzz_tls_gate: arbitrary bytes in arbitrary pieces at a server before its handshake. The first
 * byte seeds the pieces. Checked beside the sanitizers: gate and connection agree whatever the
 * pieces are (the same failure, the same answer), and memory stays within what came plus a
 * handshake's. */
#include <stdio.h>
#include <unistd.h>

#include "node/tls/gate.h"
#include "node/tls/tls.h"
#include "tests/unit/tls/pipe_transport.h"

static int64_t wall(struct clock *c) { return 1795000000000000; }
static struct clock clock_ = {wall};

static void on_opened(struct transport *t) {}
static void on_bytes(struct transport *t, const char *p, size_t n) {}
static void on_written(struct transport *t) {}
static void on_ended(struct transport *t) {}
static void on_closed(struct transport *t, err reason) { *(bool *)t->owner = true; }
static const struct transport_sink sink = {on_opened, on_bytes, on_written, on_ended, on_closed};

static void no_problem(void *ctx, str host, const char *file, const char *problem) { abort(); }

static struct tls *server(void)
{
    static const unsigned char secret[32];
    struct tls_config c = {0x0303, 86400, secret, &clock_};
    struct tls *t = tls_new(&c);
    char dir[] = "/tmp/fuzz-tls-XXXXXX", pem[64], key[64];
    str host = STR("a.example");
    int fd;

    must(mkdtemp(dir));
    snprintf(pem, sizeof pem, "%s/pem", dir);
    snprintf(key, sizeof key, "%s/key", dir);
    must(tls_selfsigned_write(&host, 1, 1795000000, pem, key) == ERR_OK);
    struct tls_pair pair = {.host = host, .certificate_file = pem, .key_file = key};
    must(tls_certs_build(&pair, 1, no_problem, NULL, &fd) == ERR_OK);
    must(tls_take_certs(t, fd) == ERR_OK);
    close(fd), unlink(pem), unlink(key), rmdir(dir);
    return t;
}

/* Feeds all of it; returns why the connection failed. */
static const char *feed(struct tls *tls, const uint8_t *p, size_t n, uint32_t seed)
{
    struct pipe_end low, far;
    bool closed = false;

    pipe_init(&low, &far, 0);
    struct transport *t = tls_server_open(tls, &low.t, TLS_DIRECT, STR_NONE);
    t->sink = &sink, t->owner = &closed;
    pipe_put(&low, p, n);
    do {
        seed = seed * 1664525 + 1013904223;
        low.chunk = seed >> 31 ? (seed >> 8) % 16 + 1 : (seed >> 8) % 2048 + 1;
    } while (pipe_pump(&low));
    const char *why = tls_failure(t);
    if (!closed)
        transport_close(t, false);
    while (pipe_pump(&low))
        ;
    must(closed);
    transport_free(t);
    free(far.in);
    return why;
}

static void gate_alone(const uint8_t *p, size_t n)
{
    size_t whole, at = 0;
    const char *bad = gate_run(p, n, GATE_FIRST, &whole);

    must(whole <= n);
    for (; at < whole; at += gate_size(p + at))
        must(gate_size(p + at) <= GATE_RECORD_MAX);
    must(at == whole);
    size_t missing = 0;
    if (!bad && whole < n)
        must(!gate_missing(p + whole, n - whole, whole ? GATE_OPEN : GATE_FIRST, &missing) &&
             missing > 0 && missing <= GATE_RECORD_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    static struct tls *tls;

    if (!tls)
        tls = server();
    if (n == 0)
        return 0;
    gate_alone(p + 1, n - 1);
    must(strcmp(feed(tls, p + 1, n - 1, p[0]), feed(tls, p + 1, n - 1, p[0] + 1000u)) == 0);
    return 0;
}
