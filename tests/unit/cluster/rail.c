/* Rails between two nodes in one process: memory instead of sockets, virtual time. */
#include "cluster/rail.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/support/fake_log.h"
#include "tests/unit/support/fake_loop.h"
#include "tests/unit/tls/pipe_transport.h"

enum { FRAME_MAX = 100000, QUEUE_MAX = 64 << 10, PIPES = 256, GOT_MAX = 4096 };

static struct loop loop;
static int64_t wall_us;
static int64_t wall(struct clock *c) { return wall_us; }
static struct clock clock_ = {wall};
static uint64_t seed;
static void fill(struct entropy *e, void *out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ((unsigned char *)out)[i] = (unsigned char)((seed = seed * 6364136223846793005u + 1) >> 56);
}
static struct entropy entropy_ = {fill};
static struct fake_log log_;
#define logged log_.text

/* ---- two nodes, and the pipes between them ---- */

struct end {
    struct pipe_end pipe;
    struct transport_impl impl;
    bool tls;
    const char *proven, *failure; /* with tls */
};
struct node {
    struct rails *rails;
    struct rail *rail;
    struct node *other;
    const char *name;
    unsigned ups, downs, fulls, frees, dials;
    err down_reason;
    struct hello hello;
    bool refuse_dials, close_on_frame;
    char got[GOT_MAX][32];
    size_t got_n[GOT_MAX];
    struct envelope_address from[GOT_MAX];
    unsigned got_count;
    uint64_t dialled_ms[64];
};
static struct node a, b;
static struct end pipes[PIPES][2];
static unsigned pipe_count;
static size_t chunk;

static void proven_info(const struct transport *t, struct transport_info *out)
{
    const struct end *e = (const struct end *)(const void *)t;
    memset(out, 0, sizeof *out);
    out->address.ss_family = AF_INET;
    out->tls = e->tls;
    out->peer = str_of(e->proven);
    out->failure = str_of(e->failure);
}

static struct end *pipe_new(void)
{
    must(pipe_count < PIPES);
    struct end *p = pipes[pipe_count++];
    memset(p, 0, 2 * sizeof *p);
    pipe_init(&p[0].pipe, &p[1].pipe, chunk);
    for (int i = 0; i < 2; i++) {
        p[i].impl = pipe_impl;
        p[i].impl.info = proven_info;
        p[i].pipe.t.impl = &p[i].impl;
    }
    return p;
}

static bool pump_pipes(void)
{
    bool any = false;
    for (unsigned i = 0; i < pipe_count; i++)
        for (int k = 0; k < 2; k++)
            if (pipes[i][k].pipe.t.sink)
                any |= pipe_pump(&pipes[i][k].pipe);
    return any;
}

static void settle(void)
{
    for (int i = 0; (int)fake_loop_turn(&loop) | (int)pump_pipes(); i++)
        must(i < 1000000);
}
static void pass(uint64_t ms)
{
    for (; ms > 0; ms--) {
        loop.now_us += 1000;
        wall_us += 1000;
        settle();
    }
}

static void on_dial(void *ctx, struct rail *r)
{
    struct node *n = ctx;
    if (n->dials < 64)
        n->dialled_ms[n->dials] = loop_now_ms(&loop);
    n->dials++;
    if (n->refuse_dials) {
        rail_failed(r, ERR_IO);
        return;
    }
    struct end *p = pipe_new();
    rail_connected(r, &p[0].pipe.t);
    rails_accept(n->other->rails, &p[1].pipe.t);
}
static void on_up(void *ctx, struct rail *r, const struct hello *peer)
{
    struct node *n = ctx;
    n->ups++;
    n->hello = *peer;
}
static void on_down(void *ctx, struct rail *r, err reason)
{
    struct node *n = ctx;
    n->downs++;
    n->down_reason = reason;
}
static void on_frame(void *ctx, struct rail *r, const struct envelope *e)
{
    struct node *n = ctx;
    assert_true(n->got_count < GOT_MAX);
    snprintf(n->got[n->got_count], 32, "%.*s", (int)(e->body.n < 31 ? e->body.n : 31), e->body.p);
    n->got_n[n->got_count] = e->body.n;
    n->from[n->got_count++] = e->address;
    if (n->close_on_frame) {
        n->rail = NULL;
        rail_close(r);
    }
}
static void on_word(void *ctx, struct rail *r, str bytes)
{
    struct node *n = ctx;
    assert_true(n->got_count < GOT_MAX && rail_node(r).n == 1);
    snprintf(n->got[n->got_count], 32, "word %.*s", (int)(bytes.n < 25 ? bytes.n : 25), bytes.p);
    n->got_n[n->got_count++] = bytes.n;
}
static void on_full(void *ctx, struct rail *r, bool full)
{
    struct node *n = ctx;
    n->fulls += full, n->frees += !full;
}

static void node_open(struct node *n, struct node *other, const char *name, const char *peer)
{
    struct rails_config c = {
        .loop = &loop,
        .entropy = &entropy_,
        .clock = &clock_,
        .log = &log_.log,
        .cluster = STR("derby"),
        .node = str_of(name),
        .shard = 3,
        .incarnation = name[0],
        .plain = true,
        .ping_ms = 250,
        .timeout_ms = 1000,
        .queue_max = QUEUE_MAX,
        .frame_max = FRAME_MAX,
    };
    struct rail_sinks s = {n, on_dial, on_up, on_down, on_frame, on_word, on_full};
    memset(n, 0, sizeof *n);
    n->name = name, n->other = other;
    n->rails = rails_new(&c, &s);
    n->rail = rail_open(n->rails, str_of(peer), 3, n);
}

static int open_nodes(void **state)
{
    fake_loop_init(&loop);
    wall_us = 5000000000, seed = 42, pipe_count = 0, chunk = 0;
    fake_log_init(&log_);
    node_open(&a, &b, "a", "b");
    node_open(&b, &a, "b", "a");
    return 0;
}
static int close_nodes(void **state)
{
    rails_close(a.rails), rails_close(b.rails);
    pass(2000);
    assert_true(rails_at_rest(a.rails) && rails_at_rest(b.rails));
    rails_free(a.rails), rails_free(b.rails);
    for (unsigned i = 0; i < pipe_count; i++)
        for (int k = 0; k < 2; k++)
            free(pipes[i][k].pipe.in);
    return 0;
}

static void send_text(struct node *n, const char *text)
{
    struct envelope_address to = {.to = 7, .from = 3, .to_incarnation = 70, .from_incarnation = 30};
    struct iovec v = {(void *)(uintptr_t)text, strlen(text)};
    assert_true(rail_send(n->rail, &to, &v, 1));
}
static void send_big(struct node *n, size_t size)
{
    static char big[FRAME_MAX];
    struct envelope_address to = {0};
    struct iovec v[] = {{big, size / 3}, {big, size - size / 3}};
    assert_true(rail_send(n->rail, &to, v, 2));
}
static void assert_both_up(void) { assert_true(rail_is_up(a.rail) && rail_is_up(b.rail)); }

/* ---- somebody by hand at the other end of an accepted connection ---- */

struct stranger {
    struct end *pipe; /* [0] is the stranger's */
    char in[1024];
    size_t n;
    bool ended;
};
static struct stranger stranger;
static void s_opened(struct transport *t) {}
static void s_bytes(struct transport *t, const char *p, size_t n)
{
    assert_true(stranger.n + n <= sizeof stranger.in);
    memcpy(stranger.in + stranger.n, p, n);
    stranger.n += n;
}
static void s_written(struct transport *t) {}
static void s_ended(struct transport *t) { stranger.ended = true; }
static void s_closed(struct transport *t, err reason) {}
static const struct transport_sink s_sink = {s_opened, s_bytes, s_written, s_ended, s_closed};

static void stranger_comes(struct node *to)
{
    memset(&stranger, 0, sizeof stranger);
    stranger.pipe = pipe_new();
    stranger.pipe[0].pipe.t.sink = &s_sink;
    rails_accept(to->rails, &stranger.pipe[1].pipe.t);
}
static void stranger_goes(void)
{
    if (!stranger.pipe[0].pipe.gone)
        transport_close(&stranger.pipe[0].pipe.t, false);
    settle();
}
static void says(const void *p, size_t n)
{
    pipe_put(&stranger.pipe[1].pipe, p, n);
    settle();
}
static size_t envelope(char *out, enum envelope_kind kind, const void *body, size_t n)
{
    size_t head = envelope_head(kind, NULL, n, out);
    memcpy(out + head, body, n);
    return head + n;
}
static struct hello good_hello(void)
{
    return (struct hello){1, 1, 0, STR("derby"), STR("a"), 3, 97, 98, 5, STR("1.2.3")};
}
static size_t hello_bytes(char out[600], const struct hello *h)
{
    struct arena arena;
    arena_init(&arena);
    str body = hello_encode(h, &arena);
    size_t n = envelope(out, ENVELOPE_HELLO, body.p, body.n);
    arena_close(&arena);
    return n;
}
static void says_hello(const struct hello *h)
{
    char out[600];
    says(out, hello_bytes(out, h));
}
static void assert_refused(enum rail_refusal why)
{
    struct envelope e;
    size_t size;
    assert_int_equal(envelope_read(str_from(stranger.in, stranger.n), 0, &e, &size), ERR_OK);
    assert_int_equal(e.kind, ENVELOPE_REFUSE);
    assert_int_equal(e.body.p[0], why);
    assert_true(stranger.ended);
    assert_non_null(strstr(logged, "peer_refused reason="));
    assert_non_null(strstr(logged, rail_refusal_name(why)));
}

/* ---- tests ---- */

static void the_smaller_name_dials_and_both_learn_who_is_there(void **state)
{
    rails_set_epoch(a.rails, 41);
    rail_set_incarnation(a.rail, 98);
    settle();
    assert_both_up();
    assert_int_equal(a.dials, 1);
    assert_int_equal(b.dials, 0);
    assert_int_equal(b.hello.epoch, 41);
    assert_int_equal(b.hello.incarnation, 'a');
    assert_int_equal(b.hello.sees, 98);
    assert_int_equal(a.hello.incarnation, 'b');
    assert_int_equal(a.hello.shard, 3);
    assert_non_null(strstr(logged, "rail_up peer=b"));
}

static void frames_go_both_ways_in_order_with_their_address(void **state)
{
    char text[16];
    settle();
    for (int i = 0; i < 500; i++) {
        snprintf(text, sizeof text, "f%d", i);
        send_text(&a, text), send_text(&b, text);
        if (i % 7 == 0)
            settle();
    }
    settle();
    assert_int_equal(a.got_count, 500);
    assert_int_equal(b.got_count, 500);
    for (int i = 0; i < 500; i++) {
        snprintf(text, sizeof text, "f%d", i);
        assert_string_equal(a.got[i], text);
        assert_string_equal(b.got[i], text);
        assert_int_equal(b.from[i].to, 7);
        assert_int_equal(b.from[i].from_incarnation, 30);
    }
    assert_int_equal(rail_stats(a.rail).frames_in, 500);
}

static void a_word_goes_between_the_frames(void **state)
{
    static char long_word[FRAME_MAX];
    settle();
    send_text(&a, "one");
    assert_true(rail_say(a.rail, STR("beat")));
    send_text(&a, "two");
    assert_true(rail_say(a.rail, str_from(long_word, FRAME_MAX)));
    settle();
    assert_int_equal(b.got_count, 4);
    assert_string_equal(b.got[0], "one");
    assert_string_equal(b.got[1], "word beat");
    assert_string_equal(b.got[2], "two");
    assert_int_equal(b.got_n[3], FRAME_MAX);
    rail_close(b.rail);
    settle();
    assert_false(rail_say(a.rail, STR("nobody hears")));
    b.rail = rail_open(b.rails, STR("a"), 3, &b);
}

static void one_turn_is_one_write(void **state)
{
    settle();
    for (int i = 0; i < 100; i++)
        send_text(&a, "text");
    assert_int_equal(pipes[0][0].pipe.flying_n, 0);
    fake_loop_turn(&loop);
    assert_int_equal(pipes[0][0].pipe.flying_n, 1);
    settle();
    assert_int_equal(b.got_count, 100);
}

static void reads_may_be_split_anywhere(void **state)
{
    for (size_t n = 1; n <= 60; n++) {
        close_nodes(NULL);
        open_nodes(NULL);
        chunk = n;
        settle();
        assert_both_up();
        send_text(&a, "one"), send_big(&a, 1000 + n), send_text(&a, "two");
        settle();
        assert_int_equal(b.got_count, 3);
        assert_string_equal(b.got[2], "two");
        assert_int_equal(b.got_n[1], 1000 + n);
    }
}

static void a_frame_of_the_longest_size_passes_and_a_longer_one_breaks_the_call(void **state)
{
    char head[ENVELOPE_HEAD_MAX];
    settle();
    send_big(&a, FRAME_MAX);
    settle();
    assert_int_equal(b.got_n[0], FRAME_MAX);
    struct envelope_address to = {0};
    size_t n = envelope_head(ENVELOPE_FRAME, &to, FRAME_MAX + 1, head);
    pipe_put(&pipes[0][1].pipe, head, n);
    settle();
    assert_int_equal(b.downs, 1);
    assert_int_equal(b.down_reason, ERR_BAD);
    assert_int_equal(a.downs, 1);
}

static void who_says_a_wrong_hello_is_told_why(void **state)
{
    const struct {
        uint32_t min, max;
        const char *cluster, *node;
        uint32_t shard;
        enum rail_refusal why;
    } rows[] = {
        {0, 0, "derby", "a", 3, RAIL_VERSION},
        {RAIL_VERSION_MAX + 1, 9, "derby", "a", 3, RAIL_VERSION},
        {1, 1, "epsom", "a", 3, RAIL_CLUSTER},
        {1, 1, "derby", "b", 3, RAIL_SELF},
        {1, 1, "derby", "c", 3, RAIL_UNKNOWN},
        {1, 1, "derby", "a", 4, RAIL_UNKNOWN},
        {1, 1, "derby", "A", 3, RAIL_MALFORMED},
        {1, 1, "derby", "", 3, RAIL_MALFORMED},
    };
    uint64_t refused = 0;
    for (size_t i = 0; i < array_len(rows); i++) {
        struct hello h = good_hello();
        h.version_min = rows[i].min, h.version_max = rows[i].max, h.shard = rows[i].shard;
        h.cluster = str_of(rows[i].cluster), h.node = str_of(rows[i].node);
        logged[0] = 0;
        stranger_comes(&b);
        says_hello(&h);
        assert_refused(rows[i].why);
        refused += rows[i].why != RAIL_UNKNOWN;
        assert_int_equal(rails_refused(b.rails), refused);
        stranger_goes();
    }
    assert_true(rail_is_up(b.rail)); /* nobody was disturbed */
}

static void a_name_that_is_not_the_certificates_is_refused(void **state)
{
    struct hello h = good_hello();
    for (int i = 0; i < 2; i++) { /* another's; none, where TLS proves names */
        stranger_comes(&b);
        stranger_goes();
        memset(&stranger, 0, sizeof stranger);
        stranger.pipe = pipe_new();
        stranger.pipe[0].pipe.t.sink = &s_sink;
        stranger.pipe[1].tls = true, stranger.pipe[1].proven = i ? "" : "c";
        rails_accept(b.rails, &stranger.pipe[1].pipe.t);
        stranger.pipe[1].pipe.t.sink->opened(&stranger.pipe[1].pipe.t);
        says_hello(&h);
        assert_refused(RAIL_NAME);
        stranger_goes();
    }
}

static void tls_that_proves_the_name_brings_the_rail_up_once_it_is_open(void **state)
{
    a.refuse_dials = true;
    settle();
    struct hello h = good_hello();
    memset(&stranger, 0, sizeof stranger);
    stranger.pipe = pipe_new();
    stranger.pipe[0].pipe.t.sink = &s_sink;
    stranger.pipe[1].tls = true, stranger.pipe[1].proven = "a";
    rails_accept(b.rails, &stranger.pipe[1].pipe.t);
    settle();
    stranger.pipe[1].pipe.t.sink->opened(&stranger.pipe[1].pipe.t);
    says_hello(&h);
    assert_true(rail_is_up(b.rail));
    stranger_goes();
    assert_false(rail_is_up(b.rail));
}

static void why_a_handshake_failed_is_logged_at_both_ends(void **state)
{
    fake_loop_turn(&loop); /* a dials */
    assert_int_equal(pipe_count, 1);
    pipes[0][0].failure = "alert_unknown_ca";
    pipes[0][0].pipe.told_closed = pipes[0][0].pipe.gone = true;
    pipes[0][0].pipe.t.sink->closed(&pipes[0][0].pipe.t, ERR_TLS);
    assert_non_null(strstr(logged, "rail_down peer=b reason=alert_unknown_ca"));
    pipes[0][0].pipe.t.sink = NULL;
    memset(&stranger, 0, sizeof stranger);
    stranger.pipe = pipe_new();
    stranger.pipe[0].pipe.t.sink = &s_sink;
    stranger.pipe[1].tls = true, stranger.pipe[1].failure = "certificate_expired";
    rails_accept(b.rails, &stranger.pipe[1].pipe.t);
    stranger.pipe[1].pipe.told_closed = stranger.pipe[1].pipe.gone = true;
    stranger.pipe[1].pipe.t.sink->closed(&stranger.pipe[1].pipe.t, ERR_TLS);
    assert_non_null(strstr(logged, "peer_refused reason=certificate_expired"));
    stranger_goes();
}

static void without_tls_nobody_is_believed_unless_the_config_says_so(void **state)
{
    close_nodes(NULL);
    open_nodes(NULL);
    struct rails_config c = {.loop = &loop,
                             .entropy = &entropy_,
                             .clock = &clock_,
                             .log = &log_.log,
                             .cluster = STR("derby"),
                             .node = STR("strict"),
                             .shard = 3,
                             .incarnation = 1,
                             .ping_ms = 250,
                             .timeout_ms = 1000,
                             .queue_max = QUEUE_MAX,
                             .frame_max = FRAME_MAX};
    struct rail_sinks s = {&b, on_dial, on_up, on_down, on_frame, on_word, on_full};
    struct node strict = {.rails = rails_new(&c, &s)};
    rail_open(strict.rails, STR("a"), 3, NULL);
    struct hello h = good_hello();
    stranger_comes(&strict);
    says_hello(&h);
    assert_refused(RAIL_NAME);
    stranger_goes();
    rails_close(strict.rails);
    pass(2000);
    rails_free(strict.rails);
}

static void a_dialler_refuses_who_is_not_whom_it_called(void **state)
{
    static const char *const names[] = {"b", "c", "a"};
    for (int i = 0; i < 3; i++) {
        close_nodes(NULL);
        open_nodes(NULL);
        /* b's shard 4 answers where its shard 3 was called, then another node, then oneself. */
        struct hello h = {1, 1, 0, STR("derby"), str_of(names[i]), i ? 3 : 4, 1, 1, 1, STR("")};
        char out[600];
        size_t n = hello_bytes(out, &h);
        fake_loop_turn(&loop);
        assert_int_equal(pipe_count, 1);
        pipe_put(&pipes[0][0].pipe, out, n);
        pipe_pump(&pipes[0][0].pipe), pipe_pump(&pipes[0][0].pipe);
        assert_false(rail_is_up(a.rail));
        assert_non_null(strstr(logged, i == 2 ? "reason=self" : "reason=name"));
    }
}

static void noise_before_the_hello_costs_nothing_and_ends_the_call(void **state)
{
    char out[600];
    for (int i = 0; i < 200; i++) {
        unsigned char noise[64];
        fill(&entropy_, noise, sizeof noise);
        stranger_comes(&b);
        says(noise, sizeof noise);
        assert_true(stranger.ended);
        stranger_goes();
        if (i % 20 == 0) { /* pipes are bounded here */
            close_nodes(NULL);
            open_nodes(NULL);
        }
    }
    stranger_comes(&b); /* a frame before the HELLO */
    struct envelope_address to = {0};
    size_t n = envelope_head(ENVELOPE_FRAME, &to, 4, out);
    memcpy(out + n, "text", 4);
    says(out, n + 4);
    assert_refused(RAIL_MALFORMED);
    stranger_goes();
    assert_int_equal(b.got_count, 0);
}

static void noise_behind_the_hello_breaks_the_rail_and_it_comes_back(void **state)
{
    settle();
    pipe_put(&pipes[0][1].pipe, "\xff\xff\xff\xff\xff\xff\xff\xff", 8);
    settle();
    assert_int_equal(b.down_reason, ERR_BAD);
    assert_int_equal(b.downs, 1);
    assert_int_equal(a.downs, 1);
    pass(200);
    assert_both_up();
    assert_int_equal(a.ups, 2);
    assert_int_equal(rail_stats(a.rail).reconnects, 1);
}

static void of_two_that_connect_at_once_one_is_kept_and_it_is_the_same_at_both_ends(void **state)
{
    /* b's own call: begun by hand, for its name is the greater. Every order of the first steps. */
    for (unsigned steps = 0; steps < 12; steps++) {
        close_nodes(NULL);
        open_nodes(NULL);
        fake_loop_turn(&loop); /* a dials */
        struct hello h = {1, 1, 0, STR("derby"), STR("b"), 3, 98, 97, 5, STR("")};
        char out[600];
        size_t n = hello_bytes(out, &h);
        for (unsigned i = 0; i < steps; i++)
            fake_loop_turn(&loop), pump_pipes();
        stranger_comes(&a);
        says(out, n);
        settle();
        assert_both_up();
        assert_refused(RAIL_REPLACED + 0);
        send_text(&a, "x"), send_text(&b, "y");
        settle();
        assert_string_equal(b.got[0], "x");
        assert_string_equal(a.got[0], "y");
        stranger_goes();
    }
}

static void a_newer_call_of_the_same_dialler_replaces_the_old_one(void **state)
{
    settle();
    struct hello h = good_hello();
    stranger_comes(&b);
    says_hello(&h);
    assert_int_equal(b.downs, 1);
    assert_int_equal(b.ups, 2);
    assert_true(rail_is_up(b.rail));
    assert_int_equal(a.downs, 1); /* its call was closed; it dials again */
    pass(200);
    assert_true(rail_is_up(a.rail));
    assert_int_equal(b.ups, 3);
}

static void full_is_said_once_and_free_when_half_is_out(void **state)
{
    settle();
    pipes[0][1].pipe.paused = true;
    for (int i = 0; i < 40; i++) /* nothing is refused */
        send_big(&a, 5000);
    assert_int_equal(a.fulls, 1);
    assert_int_equal(a.frees, 0);
    assert_true(rail_stats(a.rail).queued > 3 * QUEUE_MAX - QUEUE_MAX / 10);
    pipes[0][1].pipe.paused = false;
    settle();
    assert_int_equal(a.frees, 1);
    assert_int_equal(b.got_count, 40);
    assert_int_equal(rail_stats(a.rail).queued, 0);
    for (int i = 0; i < 40; i++)
        send_big(&a, 5000);
    settle();
    assert_int_equal(a.fulls, 2);
    assert_int_equal(a.frees, 2);
}

static void it_is_not_free_before_half_is_out(void **state)
{
    settle();
    for (int i = 0; i < 64; i++)
        send_big(&a, 5000);
    fake_loop_turn(&loop);
    assert_true(pipe_pump(&pipes[0][0].pipe)); /* one write is taken: 256 KiB of 321,280 bytes */
    assert_in_range(rail_stats(a.rail).queued, QUEUE_MAX / 2 + 1, QUEUE_MAX);
    assert_int_equal(a.frees, 0);
    settle();
    assert_int_equal(a.frees, 1);
}

static void who_talks_but_does_not_answer_times_out_later(void **state)
{
    char out[32];
    a.refuse_dials = true;
    settle();
    struct hello h = good_hello();
    stranger_comes(&b);
    says_hello(&h);
    assert_true(rail_is_up(b.rail));
    for (int i = 0; i < 60 && !b.downs; i++) {
        stranger.n = 0;
        says(out, envelope(out, ENVELOPE_PING, "12345678", 8));
        pass(100);
        assert_true(i > 35 || !b.downs);
    }
    assert_int_equal(b.down_reason, ERR_TIMEOUT);
    stranger_goes();
}

static void a_silent_peer_times_out_and_is_dialled_again_with_growing_pauses(void **state)
{
    settle();
    pass(5000);
    assert_int_equal(a.downs, 0);
    pipes[0][0].pipe.paused = pipes[0][1].pipe.paused = true; /* a cut cable */
    a.refuse_dials = true;
    uint64_t cut = loop_now_ms(&loop);
    for (int i = 0; i < 3000 && !a.downs; i++)
        pass(1);
    assert_int_equal(a.down_reason, ERR_TIMEOUT);
    assert_in_range(loop_now_ms(&loop) - cut, 750, 1600);
    unsigned before = a.dials;
    pass(60000);
    assert_in_range(a.dials - before, 12, 40);
    for (unsigned i = before + 1; i < a.dials && i < 64; i++)
        assert_true(a.dialled_ms[i] - a.dialled_ms[i - 1] <= 5000);
    assert_true(a.dialled_ms[a.dials - 1] - a.dialled_ms[a.dials - 2] >= 2500);
    a.refuse_dials = false;
    pass(5100);
    assert_both_up();
}

static void who_is_not_known_yet_is_dialled_again_soon_and_without_noise(void **state)
{
    log_.log.level = LOG_INFO;
    rail_close(b.rail); /* its view is older */
    pass(1000);
    assert_false(rail_is_up(a.rail));
    assert_in_range(a.dials, 9, 21);
    for (unsigned i = 1; i < a.dials; i++)
        assert_in_range(a.dialled_ms[i] - a.dialled_ms[i - 1], 20, 110);
    assert_int_equal(rails_refused(b.rails), 0);
    assert_null(strstr(logged, "peer_refused"));
    assert_null(strstr(logged, "rail_down"));
    b.rail = rail_open(b.rails, STR("a"), 3, &b);
    pass(110);
    assert_both_up();
}

static void who_stays_unknown_is_dialled_with_growing_pauses(void **state)
{
    rail_close(b.rail);
    pass(60000);
    assert_in_range(a.dials, 30, 60);
    assert_true(a.dialled_ms[a.dials - 1] - a.dialled_ms[a.dials - 2] >= 2500);
    b.rail = rail_open(b.rails, STR("a"), 3, &b);
}

static void who_was_late_himself_judges_nobody(void **state)
{
    settle();
    loop.now_us += 30000000; /* a machine that was paused */
    fake_loop_turn(&loop);
    settle();
    pass(3000);
    assert_int_equal(a.downs + b.downs, 0);
}

static void one_way_silence_is_found_too(void **state)
{
    settle();
    for (int i = 0; i < 10000 && !b.downs; i++) { /* a hears b's frames, b hears nothing */
        pipes[0][1].pipe.paused = true;
        if (rail_is_up(b.rail) && i % 100 == 0)
            send_text(&b, "x");
        pass(1);
    }
    assert_int_equal(b.down_reason, ERR_TIMEOUT);
}

static void pings_measure_the_way_and_the_clocks(void **state)
{
    settle();
    pass(1000);
    assert_int_equal(rail_stats(a.rail).round_trip_us, 1); /* no time passes on the way here */
    assert_int_equal(rail_stats(a.rail).offset_us, 0);
}

static void who_says_nothing_is_closed_in_time(void **state)
{
    stranger_comes(&b);
    pass(4900);
    assert_false(stranger.ended);
    pass(200);
    assert_true(stranger.ended);
    stranger_goes();
}

static void guests_are_bounded_and_the_oldest_goes(void **state)
{
    stranger_comes(&b);
    struct end *first = stranger.pipe;
    for (int i = 0; i < 64; i++) {
        assert_false(first[1].pipe.gone);
        stranger_comes(&b);
    }
    assert_true(first[1].pipe.gone);
    pass(6000);
}

static void a_rail_may_be_closed_from_inside_of_its_callbacks(void **state)
{
    settle();
    b.close_on_frame = true;
    for (int i = 0; i < 10; i++)
        send_text(&a, "x");
    settle();
    assert_int_equal(b.got_count, 1);
    assert_null(b.rail);
    assert_int_equal(a.downs, 1);
    pass(1000);
    assert_non_null(strstr(logged, "reason=unknown_peer"));
}

static void a_transport_that_closes_at_once_is_no_trap(void **state)
{
    settle();
    for (unsigned i = 0; i < pipe_count; i++)
        pipes[i][0].pipe.abrupt = pipes[i][1].pipe.abrupt = true;
    pipe_put(&pipes[0][1].pipe, "\xff\xff\xff\xff\xff\xff\xff\xff", 8);
    settle();
    assert_int_equal(b.downs, 1);
    pass(300);
    assert_both_up();
    for (unsigned i = 0; i < pipe_count; i++)
        pipes[i][0].pipe.abrupt = pipes[i][1].pipe.abrupt = true;
    pipes[1][0].pipe.paused = pipes[1][1].pipe.paused = true;
    pass(3000);
    assert_true(a.downs >= 2);
}

#define T(f) cmocka_unit_test_setup_teardown(f, open_nodes, close_nodes)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(the_smaller_name_dials_and_both_learn_who_is_there),
        T(frames_go_both_ways_in_order_with_their_address),
        T(a_word_goes_between_the_frames),
        T(one_turn_is_one_write),
        T(reads_may_be_split_anywhere),
        T(a_frame_of_the_longest_size_passes_and_a_longer_one_breaks_the_call),
        T(who_says_a_wrong_hello_is_told_why),
        T(a_name_that_is_not_the_certificates_is_refused),
        T(tls_that_proves_the_name_brings_the_rail_up_once_it_is_open),
        T(why_a_handshake_failed_is_logged_at_both_ends),
        T(without_tls_nobody_is_believed_unless_the_config_says_so),
        T(a_dialler_refuses_who_is_not_whom_it_called),
        T(noise_before_the_hello_costs_nothing_and_ends_the_call),
        T(noise_behind_the_hello_breaks_the_rail_and_it_comes_back),
        T(of_two_that_connect_at_once_one_is_kept_and_it_is_the_same_at_both_ends),
        T(a_newer_call_of_the_same_dialler_replaces_the_old_one),
        T(full_is_said_once_and_free_when_half_is_out),
        T(it_is_not_free_before_half_is_out),
        T(who_talks_but_does_not_answer_times_out_later),
        T(a_silent_peer_times_out_and_is_dialled_again_with_growing_pauses),
        T(who_is_not_known_yet_is_dialled_again_soon_and_without_noise),
        T(who_stays_unknown_is_dialled_with_growing_pauses),
        T(who_was_late_himself_judges_nobody),
        T(one_way_silence_is_found_too),
        T(pings_measure_the_way_and_the_clocks),
        T(who_says_nothing_is_closed_in_time),
        T(guests_are_bounded_and_the_oldest_goes),
        T(a_rail_may_be_closed_from_inside_of_its_callbacks),
        T(a_transport_that_closes_at_once_is_no_trap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
