#include "node/registry/server.h"

#include <fcntl.h>
#include <hiredis/hiredis.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { PAUSE_MS = 20, PAUSE_MS_MAX = 1000, PASSWORD_MAX = 1024, BYTES_KEPT = 64 << 10 };

static void set_reason(struct server *s, str reason)
{
    size_t n = reason.n < sizeof s->reason - 1 ? reason.n : sizeof s->reason - 1;
    memcpy(s->reason, reason.p, n);
    s->reason[n] = 0;
}

/* ---- the end --------------------------------------------------------------------------------- */

static void lose_requests(struct server *s)
{
    struct list lost;
    list_init(&lost);
    list_append(&lost, &s->requests);
    s->requests_n = 0;
    while (!list_empty(&lost)) {
        struct server_request *q = list_first(&lost, struct server_request, link);
        list_remove(&q->link);
        q->done(q, NULL);
    }
}

static void destroy(struct server *s)
{
    loop_timer_stop(s->redis->doors.loop, &s->timer);
    list_remove(&s->hook.link);
    list_remove(&s->link);
    if (s->reader)
        resp_reader_free(s->reader);
    free(s->filling.p);
    free(s->flying.p);
    explicit_bzero(s, sizeof *s);
    free(s);
}

static void end(struct server *s, str reason, bool failed)
{
    if (s->state == SERVER_DOWN || s->state == SERVER_CLOSING)
        return;
    s->state = SERVER_CLOSING;
    s->fails = failed ? s->fails + 1 : 0;
    set_reason(s, reason);
    loop_timer_stop(s->redis->doors.loop, &s->timer);
    lose_requests(s);
    loop_at_turn_end(s->redis->doors.loop, &s->hook);
}

void server_fail(struct server *s, str reason) { end(s, reason, true); }

void server_close(struct server *s)
{
    loop_timer_stop(s->redis->doors.loop, &s->timer); /* of a pause */
    end(s, STR("done"), false);
}

void server_drop(struct server *s)
{
    s->dropped = true;
    if (s->state == SERVER_DOWN)
        destroy(s);
    else
        server_close(s);
}

static void on_closed(struct transport *t, err reason)
{
    struct server *s = t->owner;
    struct transport_info info;
    if (s->state != SERVER_CLOSING) {
        transport_info(t, &info);
        s->fails++;
        set_reason(s, info.failure.n
                          ? info.failure
                          : str_of(err_row(reason == ERR_OK ? ERR_CLOSED : reason)->text));
        loop_timer_stop(s->redis->doors.loop, &s->timer);
        s->state = SERVER_CLOSING;
        lose_requests(s);
    }
    list_remove(&s->hook.link);
    transport_free(t);
    s->transport = NULL;
    s->state = SERVER_DOWN;
    resp_reader_free(s->reader);
    s->reader = NULL;
    s->writing = false;
    if (s->dropped)
        destroy(s);
    else
        s->sink->down(s);
}

static void on_ended(struct transport *t)
{
    server_fail(t->owner, STR("the server closed the connection"));
}

/* ---- writing --------------------------------------------------------------------------------- */

static void append(struct server_bytes *b, const char *p, size_t n)
{
    if (b->cap - b->n < n) {
        b->cap = (b->n + n) * 2;
        b->p = realloc(b->p, b->cap);
        must(b->p);
    }
    memcpy(b->p + b->n, p, n);
    b->n += n;
}

/* Empty again; what was large is given back. */
static void empty(struct server_bytes *b)
{
    b->n = 0;
    if (b->cap <= BYTES_KEPT)
        return;
    free(b->p);
    *b = (struct server_bytes){0};
}

/* One buffer is with the transport while the other one is filled. */
static void flush(struct server *s)
{
    if (s->writing || s->state == SERVER_CLOSING || s->state == SERVER_DOWN)
        return;
    if (s->flown == s->flying.n) {
        struct server_bytes spare = s->flying;
        empty(&spare);
        s->flying = s->filling, s->filling = spare;
        s->flown = 0;
    }
    if (s->flying.n == 0)
        return;
    struct iovec iov = {s->flying.p + s->flown, s->flying.n - s->flown};
    s->writing = true;
    s->flown += transport_write(s->transport, &iov, 1);
}

static void on_written(struct transport *t)
{
    struct server *s = t->owner;
    s->writing = false;
    flush(s);
}

/* The transport is closed here and not where something failed, which may be deep inside its own
 * callback, with the reader at work. */
static void on_turn_end(struct turn_hook *h)
{
    struct server *s = container_of(h, struct server, hook);
    if (s->state == SERVER_CLOSING)
        transport_close(s->transport, false);
    else
        flush(s);
}

void server_arg_printf(struct server_args *a, const char *fmt, ...)
{
    va_list ap;
    size_t room = sizeof a->text - a->used;
    va_start(ap, fmt);
    int n = vsnprintf(a->text + a->used, room, fmt, ap);
    va_end(ap);
    must(n >= 0 && (size_t)n < room);
    server_arg(a, str_from(a->text + a->used, (size_t)n));
    a->used += (size_t)n;
}

static void send_request(struct server *s, struct server_request *q, const struct server_args *a)
{
    struct loop *l = s->redis->doors.loop;
    sds bytes = NULL;
    must(redisFormatSdsCommandArgv(&bytes, a->n, (const char **)(uintptr_t)a->p, a->len) >= 0);
    append(&s->filling, bytes, sdslen(bytes));
    sdsfree(bytes);
    q->sent_us = loop_now_us(l);
    list_push_back(&s->requests, &q->link);
    s->requests_n++;
    if (!timer_is_set(&s->timer))
        loop_timer_set(l, &s->timer, s->redis->settings.timeout_ms);
    loop_at_turn_end(l, &s->hook);
}

void server_send(struct server *s, struct server_request *q, const struct server_args *a)
{
    must(s->state == SERVER_UP);
    send_request(s, q, a);
}

size_t server_unsent(const struct server *s) { return s->filling.n + s->flying.n - s->flown; }

/* ---- reading --------------------------------------------------------------------------------- */

static bool is_talking(const struct server *s)
{
    return s->state == SERVER_UP || s->state == SERVER_GREETING;
}

static bool on_reply(void *ctx, const struct resp *r)
{
    struct server *s = ctx;
    if (list_empty(&s->requests)) {
        server_fail(s, STR("an answer that nobody asked for"));
        return false;
    }
    struct server_request *q = list_first(&s->requests, struct server_request, link);
    list_remove(&q->link);
    s->requests_n--;
    bool greeted = s->state == SERVER_UP;
    q->done(q, r);
    if (greeted && s->state == SERVER_UP) /* an answer to go on with */
        s->fails = 0;
    return is_talking(s);
}

static void on_bytes(struct transport *t, const char *p, size_t n)
{
    struct server *s = t->owner;
    if (!is_talking(s))
        return;
    err e = resp_feed(s->reader, p, n, on_reply, s);
    if (e == ERR_FULL)
        server_fail(s, STR("an answer beyond bounds"));
    else if (e)
        server_fail(s, STR("an answer that is no RESP2"));
}

/* ---- greeting -------------------------------------------------------------------------------- */

/* The password without its line's end; empty: none, or it cannot be read. */
static str read_password(const struct redis *x, char buffer[PASSWORD_MAX])
{
    if (x->settings.password_file.n == 0)
        return STR_NONE;
    int fd = open(x->settings.password_file.p, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, buffer, PASSWORD_MAX);
    if (fd >= 0)
        close(fd);
    while (n > 0 && (buffer[n - 1] == '\n' || buffer[n - 1] == '\r'))
        n--;
    return n > 0 ? str_from(buffer, (size_t)n) : STR_NONE;
}

static void on_auth(struct server_request *q, const struct resp *r)
{
    struct server *s = container_of(q, struct server, hello[0]);
    if (r && r->kind == RESP_ERROR && s->greeting != SERVER_GUIDE)
        server_fail(s, r->text);
}

static bool says_master(const struct resp *r)
{
    return r->kind == RESP_ARRAY && r->n > 0 && r->items[0]->kind == RESP_STRING &&
           str_is(r->items[0]->text, "master");
}

static void on_hello(struct server_request *q, const struct resp *r)
{
    struct server *s = container_of(q, struct server, hello[1]);
    if (!r || s->state != SERVER_GREETING)
        return;
    if (r->kind == RESP_ERROR)
        return server_fail(s, r->text);
    if (s->greeting == SERVER_MASTER && !says_master(r))
        return server_fail(s, STR("it is no master"));
    loop_timer_stop(s->redis->doors.loop, &s->timer);
    s->state = SERVER_UP;
    s->sink->up(s);
}

static void on_opened(struct transport *t)
{
    struct server *s = t->owner;
    const struct registry_settings *c = &s->redis->settings;
    char buffer[PASSWORD_MAX];
    if (s->state != SERVER_DIALLING)
        return;
    s->state = SERVER_GREETING;
    str password = read_password(s->redis, buffer);
    if (c->password_file.n && !password.n && s->greeting != SERVER_GUIDE)
        return server_fail(s, STR("the password file is empty or cannot be read"));
    struct server_args a;
    server_args_init(&a);
    if (password.n) {
        server_arg(&a, STR("AUTH"));
        if (c->user.n)
            server_arg(&a, c->user);
        server_arg(&a, password);
        send_request(s, &s->hello[0], &a);
        explicit_bzero(buffer, sizeof buffer);
        server_args_init(&a);
    }
    server_arg(&a, s->greeting == SERVER_MASTER ? STR("ROLE") : STR("PING"));
    send_request(s, &s->hello[1], &a);
}

/* ---- the beginning, and time ----------------------------------------------------------------- */

static const struct transport_sink sink = {on_opened, on_bytes, on_written, on_ended, on_closed};

static void dial(struct server *s)
{
    struct registry_dialer *d = s->redis->doors.dialer;
    const char *problem = "cannot connect";
    s->filling.n = s->flying.n = s->flown = 0;
    s->transport = d->dial(d, str_of(s->address), &sink, s, &problem);
    if (!s->transport) {
        s->fails++;
        set_reason(s, str_of(problem));
        s->sink->down(s);
        return;
    }
    s->reader = resp_reader_new();
    s->state = SERVER_DIALLING;
    loop_timer_set(s->redis->doors.loop, &s->timer, s->redis->settings.timeout_ms);
}

/* One timer for the whole pipeline: it is not moved at each answer, but looks at the oldest. */
static void on_time(struct timer *t)
{
    struct server *s = container_of(t, struct server, timer);
    struct loop *l = s->redis->doors.loop;
    if (s->state == SERVER_DOWN)
        return dial(s);
    if (s->state != SERVER_UP)
        return server_fail(s, STR("no greeting in time"));
    if (list_empty(&s->requests))
        return;
    uint64_t limit = (uint64_t)s->redis->settings.timeout_ms * 1000;
    uint64_t waited =
        loop_now_us(l) - list_first(&s->requests, struct server_request, link)->sent_us;
    if (waited >= limit)
        server_fail(s, STR("no answer in time"));
    else
        loop_timer_set(l, t, (limit - waited) / 1000 + 1);
}

void server_open(struct server *s, str address, uint64_t pause_ms)
{
    must(server_is_idle(s) && address.n < sizeof s->address);
    memmove(s->address, address.p, address.n); /* it may be the same one */
    s->address[address.n] = 0;
    uint64_t earned = s->fails ? (uint64_t)PAUSE_MS << (s->fails < 8 ? s->fails : 8) : 0;
    earned = earned < PAUSE_MS_MAX ? earned : PAUSE_MS_MAX;
    if (earned < pause_ms)
        earned = pause_ms;
    loop_timer_set(s->redis->doors.loop, &s->timer, redis_jitter(s->redis, earned));
}

bool server_is_idle(const struct server *s)
{
    return s->state == SERVER_DOWN && !timer_is_set(&s->timer);
}

struct server *server_new(struct redis *x, enum server_greeting g, const struct server_sink *k,
                          void *owner)
{
    struct server *s = calloc(1, sizeof *s);
    must(s);
    s->redis = x, s->greeting = g, s->sink = k, s->owner = owner;
    list_init(&s->link);
    list_init(&s->requests);
    s->hello[0].done = on_auth;
    s->hello[1].done = on_hello;
    timer_init(&s->timer, on_time);
    s->hook = (struct turn_hook){.fn = on_turn_end};
    list_init(&s->hook.link);
    return s;
}
