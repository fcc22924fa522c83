/* micro_rail: what a frame costs on a rail between two nodes: two ends on one loop and one thread,
 * over loopback TCP, plain and TLS; so the figure is both ends and the kernel between them. Frames
 * go in bursts of one turn, and the next burst when the last has come. CPU time of the thread. */
#include "bench/micro.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "cluster/rail.h"
#include "node/os/os.h"
#include "node/tls/tls.h"

struct bench;
struct side {
    struct bench *bench;
    struct rails *rails;
    struct rail *rail;
    struct tls *tls; /* NULL: plain */
    struct side *other;
    uint64_t got;
};
struct bench {
    struct loop *loop;
    struct side a, b;
    size_t bytes, burst;
};

static void on_log(struct log *l, enum log_event e, enum log_level level, const struct log_field *f,
                   size_t n)
{
}
static struct log quiet = {on_log, LOG_ERROR};

static void pair(int fds[2])
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    int one = 1, l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    must(bind(l, (struct sockaddr *)&a, n) == 0 && listen(l, 1) == 0);
    must(getsockname(l, (struct sockaddr *)&a, &n) == 0);
    fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    must(connect(fds[0], (struct sockaddr *)&a, n) == 0);
    fds[1] = accept4(l, NULL, NULL, SOCK_CLOEXEC);
    must(fds[1] >= 0);
    for (int i = 0; i < 2; i++)
        setsockopt(fds[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    close(l);
}

static void on_dial(void *ctx, struct rail *r)
{
    struct side *s = ctx;
    int fds[2];
    pair(fds);
    struct transport *here = sock_transport_open(s->bench->loop, fds[0], NULL, NULL, NULL);
    struct transport *there = sock_transport_open(s->bench->loop, fds[1], NULL, NULL, NULL);
    rail_connected(r, s->tls ? tls_rail_open(s->tls, here) : here);
    rails_accept(s->other->rails, s->tls ? tls_rail_accept(s->other->tls, there) : there);
}
static void on_up(void *ctx, struct rail *r, const struct hello *peer) {}
static void on_down(void *ctx, struct rail *r, err reason) { must(!"down"); }
static void on_frame(void *ctx, struct rail *r, const struct envelope *e)
{
    ((struct side *)ctx)->got++;
}
static void on_full(void *ctx, struct rail *r, bool full) {}

static void side_open(struct side *s, struct bench *b, struct side *other, const char *name,
                      struct clock *clock, struct entropy *entropy)
{
    struct rails_config c = {
        .loop = b->loop,
        .entropy = entropy,
        .clock = clock,
        .log = &quiet,
        .cluster = STR("bench"),
        .node = str_of(name),
        .incarnation = 1,
        .plain = s->tls == NULL,
        .ping_ms = 60000,
        .timeout_ms = 120000,
        .queue_max = 8 << 20,
        .frame_max = 1 << 20,
    };
    struct rail_sinks sinks = {.ctx = s,
                               .dial = on_dial,
                               .up = on_up,
                               .down = on_down,
                               .frame = on_frame,
                               .full = on_full};
    s->bench = b, s->other = other;
    s->rails = rails_new(&c, &sinks);
}

static void on_problem(void *ctx, str host, const char *file, const char *problem)
{
    fprintf(stderr, "micro_rail: %s: %s\n", file, problem);
}

static const char *put(struct arena *a, const char *dir, const char *name, str text)
{
    const char *path = arena_printf(a, "%s/%s", dir, name).p;
    FILE *f = fopen(path, "w");
    must(f && fwrite(text.p, 1, text.n, f) == text.n && fclose(f) == 0);
    return path;
}

static struct tls *tls_of(const struct tls_identity_pem *ca, const char *name, struct clock *clock,
                          struct arena *a)
{
    static const unsigned char secret[TLS_SECRET_SIZE];
    char dir[] = "/tmp/micro-rail-XXXXXX";
    struct tls_config tc = {.version_min = 0x0304, .secret = secret, .clock = clock};
    struct tls *t = tls_new(&tc);
    struct tls_identity_pem id;
    int fd;
    must(mkdtemp(dir) && tls_node_make(ca, str_of(name), time(NULL), a, &id) == ERR_OK);
    struct tls_bus_files f = {put(a, dir, "ca.pem", ca->certificate),
                              put(a, dir, "node.pem", id.certificate),
                              put(a, dir, "node.key", id.key),
                              STR("bench"),
                              str_of(name),
                              0};
    must(tls_bus_build(&f, time(NULL), on_problem, NULL, &fd) == ERR_OK);
    must(tls_take_bus(t, fd) == ERR_OK);
    close(fd);
    unlink(f.ca_file), unlink(f.certificate_file), unlink(f.key_file), rmdir(dir);
    return t;
}

static double frames(void *ctx, size_t times)
{
    static char text[16384];
    struct bench *b = ctx;
    struct iovec v = {text, b->bytes};
    struct envelope_address to = {.hops = 1};
    double from = micro_ns();
    for (size_t done = 0; done < times; done += b->burst) {
        uint64_t until = b->b.got + b->burst;
        for (size_t i = 0; i < b->burst; i++)
            must(rail_send(b->a.rail, &to, &v, 1));
        for (int turns = 0; b->b.got < until; turns++) {
            must(turns < 100000);
            loop_turn(b->loop, 1000);
        }
    }
    return micro_ns() - from;
}

static void bench_open(struct bench *b, bool tls, const struct tls_identity_pem *ca,
                       struct clock *clock, struct entropy *entropy, struct arena *a)
{
    if (tls)
        b->a.tls = tls_of(ca, "a", clock, a), b->b.tls = tls_of(ca, "b", clock, a);
    side_open(&b->a, b, &b->b, "a", clock, entropy),
        side_open(&b->b, b, &b->a, "b", clock, entropy);
    b->b.rail = rail_open(b->b.rails, STR("a"), 0, NULL);
    b->a.rail = rail_open(b->a.rails, STR("b"), 0, NULL);
    for (int turns = 0; !rail_is_up(b->a.rail); turns++) {
        must(turns < 1000);
        loop_turn(b->loop, 100);
    }
}

static void bench_close(struct bench *b)
{
    struct side *sides[] = {&b->a, &b->b};
    rails_close(b->a.rails), rails_close(b->b.rails);
    for (int turns = 0; !rails_at_rest(b->a.rails) || !rails_at_rest(b->b.rails); turns++) {
        must(turns < 1000);
        loop_turn(b->loop, 100);
    }
    for (int i = 0; i < 2; i++) {
        rails_free(sides[i]->rails);
        if (sides[i]->tls)
            tls_free(sides[i]->tls);
    }
}

int main(int argc, char **argv)
{
    static const size_t sizes[] = {300, 2400}, bursts[] = {1, 16, 256};
    enum { CASES = 2 * array_len(sizes) * array_len(bursts) };
    static struct bench benches[CASES];
    static char names[CASES][64];
    struct micro_case cases[CASES];
    struct loop_config lc = {.choice = LOOP_AUTO, .wake_fd = -1};
    struct loop_fault fault;
    struct loop *loop;
    struct clock clock;
    struct entropy_real entropy;
    struct arena arena;
    struct tls_identity_pem ca;
    size_t n = 0;
    arena_init(&arena);
    clock_real_init(&clock), entropy_real_init(&entropy);
    must(loop_new(&lc, &fault, &loop) == ERR_OK);
    tls_authority_make(STR("bench"), time(NULL), &arena, &ca);
    for (int tls = 0; tls < 2; tls++)
        for (size_t s = 0; s < array_len(sizes); s++)
            for (size_t k = 0; k < array_len(bursts); k++, n++) {
                struct bench *b = &benches[n];
                b->loop = loop, b->bytes = sizes[s], b->burst = bursts[k];
                bench_open(b, tls, &ca, &clock, &entropy.entropy, &arena);
                snprintf(names[n], sizeof names[n], "%s, %zu bytes, %zu in a turn",
                         tls ? "TLS" : "plain", sizes[s], bursts[k]);
                cases[n] = (struct micro_case){names[n], frames, b, b->burst > 1 ? 8192 : 2048};
            }
    micro_run(cases, n, argc, argv);
    for (size_t i = 0; i < n; i++)
        bench_close(&benches[i]);
    loop_close(loop);
    arena_close(&arena);
    return 0;
}
