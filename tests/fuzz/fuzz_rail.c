/* fuzz_rail: bytes into an accepted connection of the bus, before and after its HELLO. The first
 * byte says whether a good HELLO goes ahead, and in what pieces the rest comes. Beside the
 * sanitizers: a frame is never given before a HELLO, nor one longer than the bound, nor one of too
 * many hops; time may pass; everything comes to rest. */
#include <stdlib.h>

#include "cluster/rail.h"
#include "tests/unit/support/fake_log.h"
#include "tests/unit/support/fake_loop.h"
#include "tests/unit/tls/pipe_transport.h"

enum { FRAME_MAX = 4096 };

static bool up;
static void fill(struct entropy *e, void *out, size_t n) { memset(out, 7, n); }
static int64_t wall(struct clock *c) { return 1; }
static void on_dial(void *ctx, struct rail *r) { rail_failed(r, ERR_IO); }
static void on_up(void *ctx, struct rail *r, const struct hello *peer)
{
    must(!up && str_is(peer->node, "a") && str_is(peer->cluster, "derby") && peer->shard == 3);
    up = true;
}
static void on_down(void *ctx, struct rail *r, err reason)
{
    must(up);
    up = false;
}
static void on_frame(void *ctx, struct rail *r, const struct envelope *e)
{
    volatile char last = e->body.p[e->body.n - 1]; /* it can be read */
    (void)last;
    must(up && e->kind == ENVELOPE_FRAME && e->body.n > 0 && e->body.n <= FRAME_MAX);
    must(e->address.hops <= ENVELOPE_HOPS_MAX);
}
static void on_word(void *ctx, struct rail *r, str bytes)
{
    volatile char last = bytes.p[bytes.n - 1];
    (void)last;
    must(up && bytes.n > 0 && bytes.n <= FRAME_MAX);
}
static void on_full(void *ctx, struct rail *r, bool full) {}

static void s_nothing(struct transport *t) {}
static void s_bytes(struct transport *t, const char *p, size_t n) {}
static void s_closed(struct transport *t, err reason) {}
static const struct transport_sink stranger = {s_nothing, s_bytes, s_nothing, s_nothing, s_closed};

static void settle(struct loop *l, struct pipe_end *a, struct pipe_end *b)
{
    for (int i = 0; (int)fake_loop_turn(l) | (int)pipe_pump(a) | (int)pipe_pump(b); i++)
        must(i < 100000);
}

static void hello(struct pipe_end *to)
{
    struct hello h = {1, 1, 0, STR("derby"), STR("a"), 3, 1, 2, 5, STR("1.2.3")};
    char head[ENVELOPE_HEAD_MAX];
    struct arena a;
    arena_init(&a);
    str body = hello_encode(&h, &a);
    pipe_put(to, head, envelope_head(ENVELOPE_HELLO, NULL, body.n, head));
    pipe_put(to, body.p, body.n);
    arena_close(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    struct loop loop;
    struct fake_log log;
    struct entropy entropy = {fill};
    struct clock clock = {wall};
    struct pipe_end ends[2];
    if (n < 1 || n > 20000)
        return 0;
    fake_loop_init(&loop);
    fake_log_init(&log);
    up = false;
    struct rails_config c = {.loop = &loop,
                             .entropy = &entropy,
                             .clock = &clock,
                             .log = &log.log,
                             .cluster = STR("derby"),
                             .node = STR("b"),
                             .software = STR("0.1.0"),
                             .shard = 3,
                             .incarnation = 2,
                             .plain = true,
                             .ping_ms = 250,
                             .timeout_ms = 1000,
                             .queue_max = 8192,
                             .frame_max = FRAME_MAX};
    struct rail_sinks s = {NULL, on_dial, on_up, on_down, on_frame, on_word, on_full};
    struct rails *rails = rails_new(&c, &s);
    rail_open(rails, STR("a"), 3, NULL);
    pipe_init(&ends[0], &ends[1], p[0] >> 1);
    ends[0].t.sink = &stranger;
    rails_accept(rails, &ends[1].t);
    if (p[0] & 1)
        hello(&ends[1]);
    pipe_put(&ends[1], p + 1, n - 1);
    settle(&loop, &ends[0], &ends[1]);
    for (int i = 0; i < 8; i++) {
        loop.now_us += 300000;
        settle(&loop, &ends[0], &ends[1]);
    }
    rails_close(rails);
    loop.now_us += 2000000;
    settle(&loop, &ends[0], &ends[1]);
    must(rails_at_rest(rails));
    rails_free(rails);
    free(ends[0].in);
    return 0;
}
