/* fake_redis: servers that say what a test lets them say, over transports without sockets, on
 * virtual time. Include it once per program that links no node/os. */
#ifndef TESTS_UNIT_REGISTRY_FAKE_REDIS_H
#define TESTS_UNIT_REGISTRY_FAKE_REDIS_H

#include <stdio.h>
#include <stdlib.h>

#include "node/registry/registry.h"
#include "tests/unit/support/fake_log.h"
#include "tests/unit/support/fake_loop.h"
#include "tests/unit/tls/pipe_transport.h"

enum { FAKE_CONNS = 16, FAKE_ARGS = 300 };

struct fake;
struct fake_conn {
    struct pipe_end ours, theirs; /* ours: the registry's */
    struct fake *fake;
    char address[300];
    bool used, opened;
    char *in; /* what the server has not parsed */
    size_t in_n;
};

/* The answer to a command, raw bytes; NULL: none. */
typedef const char *fake_answer_f(struct fake *f, struct fake_conn *c, int argc, const str *argv);

struct fake {
    struct registry_dialer dialer;
    struct loop loop;
    struct fake_log log;
    struct entropy entropy;
    struct metric_page *metrics;
    struct registry_redis *redis;
    struct registry *door;
    fake_answer_f *answer;
    bool unreachable; /* dialling never ends */
    size_t chunk;     /* bytes that arrive at a time; 0: all */
    uint64_t seed;
    struct fake_conn conns[FAKE_CONNS];
    int dials;
    int commands; /* but AUTH, ROLE and PING */
};

static inline void fake_fill(struct entropy *e, void *out, size_t n)
{
    struct fake *f = container_of(e, struct fake, entropy);
    for (size_t i = 0; i < n; i++) {
        f->seed = f->seed * 6364136223846793005u + 1442695040888963407u;
        ((unsigned char *)out)[i] = (unsigned char)(f->seed >> 56);
    }
}

/* ---- the servers' side ----------------------------------------------------------------------- */

static inline void fake_say(struct fake_conn *c, const char *p, size_t n)
{
    if (n && c->used && !c->ours.gone && !c->ours.freed)
        pipe_put(&c->ours, p, n);
}

static inline const char *fake_greet(int argc, const str *argv)
{
    if (str_is(argv[0], "AUTH"))
        return "+OK\r\n";
    if (str_is(argv[0], "PING"))
        return "+PONG\r\n";
    if (str_is(argv[0], "ROLE"))
        return "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n";
    return NULL;
}

/* A number behind a byte, up to CRLF; false: not all of it is there. Our own bytes: no checks. */
static inline bool fake_number(const struct fake_conn *c, size_t *at, size_t *n)
{
    const char *end = *at < c->in_n ? memchr(c->in + *at, '\n', c->in_n - *at) : NULL;
    if (!end)
        return false;
    *n = strtoul(c->in + *at + 1, NULL, 10);
    *at = (size_t)(end + 1 - c->in);
    return true;
}

static inline size_t fake_parse(struct fake_conn *c, str *argv, int *argc)
{
    size_t at = 0, n, bytes;
    if (!fake_number(c, &at, &n))
        return 0;
    must(n <= FAKE_ARGS);
    for (*argc = 0; *argc < (int)n; (*argc)++) {
        if (!fake_number(c, &at, &bytes) || c->in_n - at < bytes + 2)
            return 0;
        argv[*argc] = str_from(c->in + at, bytes);
        at += bytes + 2;
    }
    return at;
}

static inline void fake_on_bytes(struct transport *t, const char *p, size_t n)
{
    struct fake_conn *c = t->owner;
    str argv[FAKE_ARGS];
    int argc;
    size_t used;
    c->in = realloc(c->in, c->in_n + n + 1);
    must(c->in);
    memcpy(c->in + c->in_n, p, n);
    c->in_n += n;
    c->in[c->in_n] = 0;
    while ((used = fake_parse(c, argv, &argc)) > 0) {
        const char *answer = fake_greet(argc, argv);
        if (!answer)
            c->fake->commands++;
        const char *other = c->fake->answer(c->fake, c, argc, argv);
        if (other || answer)
            fake_say(c, other ? other : answer, strlen(other ? other : answer));
        memmove(c->in, c->in + used, c->in_n - used + 1);
        c->in_n -= used;
    }
}
static inline void fake_nothing(struct transport *t) {}
static inline void fake_closed(struct transport *t, err reason) {}
static const struct transport_sink fake_sink = {fake_nothing, fake_on_bytes, fake_nothing,
                                                fake_nothing, fake_closed};

/* The server closes the connection. */
static inline void fake_hang_up(struct fake_conn *c)
{
    if (c->used && !c->ours.gone)
        c->ours.ended = true;
}

/* ---- time ------------------------------------------------------------------------------------ */

static inline void fake_clean(struct fake_conn *c)
{
    if (!c->used || !c->ours.freed)
        return;
    free(c->theirs.in);
    free(c->in);
    memset(c, 0, sizeof *c);
}

static inline bool fake_pump(struct fake *f)
{
    bool any = false;
    for (int i = 0; i < FAKE_CONNS; i++) {
        struct fake_conn *c = &f->conns[i];
        fake_clean(c);
        if (!c->used)
            continue;
        if (!c->opened && !f->unreachable && !c->ours.gone) {
            c->opened = any = true;
            c->ours.t.sink->opened(&c->ours.t);
        }
        c->ours.chunk = f->chunk;
        if (pipe_pump(&c->ours) || (c->used && !c->theirs.freed && pipe_pump(&c->theirs)))
            any = true;
    }
    return any;
}

/* Until nothing moves. */
static inline void fake_run(struct fake *f)
{
    for (int i = 0; (int)fake_loop_turn(&f->loop) | (int)fake_pump(f); i++)
        must(i < 4000000);
}

static inline void fake_advance(struct fake *f, uint64_t ms)
{
    for (uint64_t i = 0; i < ms; i += 5) {
        f->loop.now_us += 5000;
        fake_run(f);
    }
}

/* ---- life ------------------------------------------------------------------------------------ */

static inline struct transport *fake_dial(struct registry_dialer *d, str address,
                                          const struct transport_sink *sink, void *owner,
                                          const char **problem)
{
    struct fake *f = container_of(d, struct fake, dialer);
    f->dials++;
    for (int i = 0; i < FAKE_CONNS; i++) {
        struct fake_conn *c = &f->conns[i];
        fake_clean(c);
        if (c->used)
            continue;
        c->used = true;
        c->fake = f;
        snprintf(c->address, sizeof c->address, "%.*s", STR_ARG(address));
        pipe_init(&c->ours, &c->theirs, 0);
        c->ours.t.sink = sink, c->ours.t.owner = owner;
        c->theirs.t.sink = &fake_sink, c->theirs.t.owner = c;
        return &c->ours.t;
    }
    *problem = "no more connections";
    return NULL;
}

static inline void fake_init(struct fake *f, fake_answer_f *answer)
{
    memset(f, 0, sizeof *f);
    fake_loop_init(&f->loop);
    fake_log_init(&f->log);
    f->entropy.fill = fake_fill;
    f->metrics = calloc(1, sizeof *f->metrics);
    must(f->metrics);
    f->dialer.dial = fake_dial;
    f->answer = answer;
}

static inline void fake_open(struct fake *f, enum registry_mode mode)
{
    struct registry_settings s = {
        .cluster = STR("c"),
        .mode = mode,
        .servers = {STR("10.0.0.1:1"), STR("10.0.0.2:2")},
        .servers_n = 2,
        .master = STR("m"),
        .timeout_ms = 1000,
        .refresh_ms = 6400,
        .record_lifetime_ms = 20000,
        .records_max = 1000,
        .records_bytes_max = 1 << 20,
    };
    struct registry_doors d = {&f->loop, &f->entropy, &f->log.log, f->metrics, &f->dialer};
    f->redis = registry_redis_new(&d, &s);
    f->door = registry_redis_door(f->redis);
}

static inline void fake_close(struct fake *f)
{
    registry_redis_stop(f->redis);
    fake_run(f);
    must(registry_redis_stopped(f->redis));
    registry_redis_free(f->redis);
    fake_run(f);
    for (int i = 0; i < FAKE_CONNS; i++)
        fake_clean(&f->conns[i]);
    free(f->metrics);
}

#endif
