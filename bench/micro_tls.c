/* micro_tls: a TLS 1.3 record sealed and opened by node/tls, between a client and a server in one
 * thread without sockets: what a message pays for being secret, alone in a record and with others
 * in it; and a full handshake, both ends of it. Records are sealed in batches into memory and then
 * opened from there, so that each is timed alone. */
#include "bench/micro.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "node/os/os.h"
#include "node/tls/tls.h"

enum { WIRE_MAX = 1 << 20, READ_MAX = 64 << 10, RECORD_MAX = 16384 };

/* The lower transport: what is written lies in `wire` until it is handed to the other end. */
struct end {
    struct transport low;
    struct transport *tls;
    size_t wire_n, got;
    bool opened, flying, gone;
    char wire[WIRE_MAX];
};

static size_t low_write(struct transport *t, const struct iovec *iov, size_t n)
{
    struct end *e = container_of(t, struct end, low);
    size_t total = 0;
    for (size_t i = 0; i < n; total += iov[i++].iov_len) {
        must(e->wire_n + iov[i].iov_len <= WIRE_MAX);
        memcpy(e->wire + e->wire_n, iov[i].iov_base, iov[i].iov_len);
        e->wire_n += iov[i].iov_len;
    }
    e->flying = true;
    return total;
}
static void low_rest(struct transport *t) {}
static void low_close(struct transport *t, bool graceful)
{
    container_of(t, struct end, low)->gone = true;
}
static void low_info(const struct transport *t, struct transport_info *out)
{
    memset(out, 0, sizeof *out);
    out->address.ss_family = AF_INET;
}
static err low_binding(const struct transport *t, enum channel_binding kind, unsigned char out[64],
                       size_t *n)
{
    return ERR_NOT_FOUND;
}
static const struct transport_impl low_impl = {low_write, low_rest, low_rest,   low_close,
                                               low_rest,  low_info, low_binding};

static void on_opened(struct transport *t) { ((struct end *)t->owner)->opened = true; }
static void on_bytes(struct transport *t, const char *p, size_t n)
{
    ((struct end *)t->owner)->got += n;
}
static void on_nothing(struct transport *t) {}
static void on_closed(struct transport *t, err reason) {}
static const struct transport_sink sink = {on_opened, on_bytes, on_nothing, on_nothing, on_closed};

static void landed(struct end *e)
{
    e->flying = false;
    e->low.sink->written(&e->low);
}

/* All that lies in from's wire, in pieces as a loop reads them. */
static void hand_over(struct end *from, struct end *to)
{
    for (size_t at = 0; at < from->wire_n;) {
        size_t n = from->wire_n - at < READ_MAX ? from->wire_n - at : READ_MAX;
        to->low.sink->bytes(&to->low, from->wire + at, n);
        at += n;
    }
    from->wire_n = 0;
}

struct bench {
    struct tls *tls;
    struct end client, server;
    size_t bytes; /* per record */
};

static bool pump(struct end *from, struct end *to)
{
    bool moved = from->flying;
    if (moved)
        landed(from);
    hand_over(from, to);
    return moved;
}

static void open_both(struct bench *b)
{
    struct tls_client_options o = {.sni = STR("localhost")};
    for (struct end *e = &b->client;; e = &b->server) {
        *e = (struct end){.low.impl = &low_impl};
        e->tls = e == &b->client ? tls_client_open(b->tls, &e->low, &o)
                                 : tls_server_open(b->tls, &e->low, TLS_DIRECT, STR_NONE);
        e->tls->sink = &sink, e->tls->owner = e;
        if (e == &b->server)
            break;
    }
    for (int i = 0; (int)pump(&b->client, &b->server) | (int)pump(&b->server, &b->client); i++)
        must(i < 100);
    must(b->client.opened && b->server.opened);
}

/* As after a lost connection. */
static void close_both(struct bench *b)
{
    struct end *ends[] = {&b->client, &b->server};
    for (unsigned i = 0; i < array_len(ends); i++) {
        transport_close(ends[i]->tls, false);
        must(ends[i]->gone);
        ends[i]->low.sink->closed(&ends[i]->low, ERR_OK);
        transport_free(ends[i]->tls);
    }
}

static void seal(struct bench *b, size_t records)
{
    static char plain[RECORD_MAX];
    struct iovec v = {plain, b->bytes};
    for (size_t i = 0; i < records; i++) {
        must(transport_write(b->client.tls, &v, 1) == b->bytes);
        landed(&b->client);
    }
}

/* In batches that fit into the wire: seals, then opens; which of the two is timed, opening says. */
static double records(struct bench *b, size_t times, bool opening)
{
    size_t batch = WIRE_MAX / 2 / (b->bytes + 64);
    double ns = 0;
    while (times > 0) {
        size_t n = times < batch ? times : batch, had = b->server.got;
        double from = micro_ns();
        seal(b, n);
        double sealed = micro_ns();
        hand_over(&b->client, &b->server);
        ns += opening ? micro_ns() - sealed : sealed - from;
        must(b->server.got - had == n * b->bytes);
        times -= n;
    }
    return ns;
}

static double sealed(void *ctx, size_t times) { return records(ctx, times, false); }
static double opened(void *ctx, size_t times) { return records(ctx, times, true); }

static double handshakes(void *ctx, size_t times)
{
    struct bench *b = ctx;
    double from = micro_ns();
    for (size_t i = 0; i < times; i++) {
        open_both(b);
        close_both(b);
    }
    return micro_ns() - from;
}

static void on_problem(void *ctx, str host, const char *file, const char *problem)
{
    fprintf(stderr, "micro_tls: %s: %s\n", file, problem);
}

static int make_certs(void)
{
    char dir[] = "/tmp/micro-tls-XXXXXX", certificate[64], key[64];
    const str host = STR("localhost");
    int certs;
    must(mkdtemp(dir));
    snprintf(certificate, sizeof certificate, "%s/localhost.pem", dir);
    snprintf(key, sizeof key, "%s/localhost.key", dir);
    struct tls_pair pair = {host, certificate, key, 0, false};
    must(tls_selfsigned_write(&host, 1, time(NULL), certificate, key) == ERR_OK);
    must(tls_certs_build(&pair, 1, on_problem, NULL, &certs) == ERR_OK);
    unlink(certificate);
    unlink(key);
    rmdir(dir);
    return certs;
}

int main(int argc, char **argv)
{
    static const size_t sizes[] = {300, 1200, 2400, RECORD_MAX};
    static const unsigned char secret[TLS_SECRET_SIZE];
    static struct clock clock;
    static char names[2 * array_len(sizes)][48];
    struct micro_case cases[2 * array_len(sizes) + 1];
    struct bench *b[array_len(sizes) + 1];
    struct tls_config tc = {
        .version_min = 0x0303, .ticket_lifetime_s = 86400, .secret = secret, .clock = &clock};
    clock_real_init(&clock);
    struct tls *tls = tls_new(&tc);
    int certs = make_certs();
    must(tls_take_certs(tls, certs) == ERR_OK);
    close(certs);
    size_t n = 0;
    for (size_t i = 0; i < array_len(b); i++) {
        b[i] = calloc(1, sizeof *b[i]);
        must(b[i]);
        b[i]->tls = tls;
        if (i == array_len(sizes))
            break;
        b[i]->bytes = sizes[i];
        open_both(b[i]);
        for (int open = 0; open < 2; open++, n++) {
            sprintf(names[n], "record of %zu bytes %s", sizes[i], open ? "opened" : "sealed");
            cases[n] = (struct micro_case){names[n], open ? opened : sealed, b[i], 0};
        }
    }
    cases[n++] = (struct micro_case){"full handshake, ECDSA P-256, both ends", handshakes,
                                     b[array_len(sizes)], 0};
    micro_run(cases, n, argc, argv);
    for (size_t i = 0; i < array_len(b); i++) {
        if (i < array_len(sizes))
            close_both(b[i]);
        free(b[i]);
    }
    tls_free(tls);
    return 0;
}
