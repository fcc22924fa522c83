/* The dialer: which of a name's addresses is connected to, and what happens while there is none. */
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "node/os/os.h"
#include "node/registry/dial.h"

enum { TURNS_MAX = 2000, FILLERS = 4 };

/* ---- names that the test answers ------------------------------------------------------------- */

struct names {
    struct resolver resolver;
    resolved_f *done; /* NULL: nobody has asked */
    void *ctx;
    uint16_t port;
    unsigned forgotten;
};

static void names_ask(struct resolver *r, str host, uint16_t port, resolved_f *done, void *ctx)
{
    struct names *n = container_of(r, struct names, resolver);
    assert_true(str_is(host, "redis.test") && !n->done);
    n->port = port, n->done = done, n->ctx = ctx;
}

static void names_forget(struct resolver *r, void *ctx)
{
    struct names *n = container_of(r, struct names, resolver);
    assert_ptr_equal(ctx, n->ctx);
    n->forgotten++;
    n->done = NULL;
}

static const struct resolver_impl names_impl = {names_ask, names_forget};

static void names_answer(struct names *n, const char *const *addresses)
{
    struct sockaddr_storage a[RESOLVE_ADDRESSES_MAX];
    resolved_f *done = n->done;
    size_t k = 0;
    for (; addresses[k]; k++)
        assert_true(resolve_is_numeric(str_of(addresses[k]), n->port, &a[k]));
    n->done = NULL;
    done(n->ctx, k ? ERR_OK : ERR_NOT_FOUND, a, k);
}

/* ---- the rig --------------------------------------------------------------------------------- */

struct rig {
    struct loop *loop;
    struct names names;
    struct dialer dialer;
    int listener;
    char address[64]; /* the listener's, by name */
    unsigned opened, closed;
    err reason;
};

static void on_opened(struct transport *t) { ((struct rig *)t->owner)->opened++; }
static void on_bytes(struct transport *t, const char *p, size_t n) {}
static void on_nothing(struct transport *t) {}
static void on_closed(struct transport *t, err reason)
{
    struct rig *g = t->owner;
    g->closed++;
    g->reason = reason;
}
static const struct transport_sink sink = {on_opened, on_bytes, on_nothing, on_nothing, on_closed};

#define turn_until(g, condition) \
    do { \
        int turns_ = 0; \
        while (!(condition)) { \
            assert_true(turns_++ < TURNS_MAX); \
            loop_turn((g)->loop, 10); \
        } \
    } while (0)

static struct transport *dial(struct rig *g, const char *address)
{
    const char *problem = NULL;
    g->opened = g->closed = 0;
    struct registry_dialer *d = &g->dialer.dialer;
    struct transport *t = d->dial(d, str_of(address), &sink, g, &problem);
    assert_int_equal(g->opened + g->closed, 0);
    return t;
}

static void end(struct rig *g, struct transport *t)
{
    transport_close(t, false);
    turn_until(g, g->closed);
    transport_free(t);
}

static int listen_at(const char *address, uint16_t *port, int backlog)
{
    struct sockaddr_storage a;
    struct sockaddr_in *in = (struct sockaddr_in *)&a;
    socklen_t n = sizeof *in;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(resolve_is_numeric(str_of(address), *port, &a));
    assert_int_equal(bind(fd, (struct sockaddr *)&a, n), 0);
    assert_int_equal(listen(fd, backlog), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &n), 0);
    *port = ntohs(in->sin_port);
    return fd;
}

static int setup(void **state)
{
    static struct rig g;
    struct loop_config c = {LOOP_AUTO, -1};
    struct loop_fault fault;
    uint16_t port = 0;
    g = (struct rig){.names = {.resolver = {&names_impl}}};
    assert_int_equal(loop_new(&c, &fault, &g.loop), ERR_OK);
    dialer_init(&g.dialer, g.loop, &g.names.resolver, NULL, NULL);
    g.listener = listen_at("127.0.0.1", &port, 16);
    snprintf(g.address, sizeof g.address, "redis.test:%u", port);
    *state = &g;
    return 0;
}

static int teardown(void **state)
{
    struct rig *g = *state;
    close(g->listener);
    loop_close(g->loop);
    return 0;
}

/* ---- tests ----------------------------------------------------------------------------------- */

static void the_next_address_is_tried_when_one_refuses(void **state)
{
    static const char *const addresses[] = {"::1", "127.0.0.9", "127.0.0.1", NULL};
    struct rig *g = *state;
    struct transport *t = dial(g, g->address);
    names_answer(&g->names, addresses);
    turn_until(g, g->opened);
    end(g, t);
    assert_int_equal(g->reason, ERR_OK);
}

static void the_last_address_says_why_there_is_no_connection(void **state)
{
    static const char *const addresses[] = {"::1", "127.0.0.9", NULL};
    struct rig *g = *state;
    struct transport_info info;
    struct transport *t = dial(g, g->address);
    names_answer(&g->names, addresses);
    turn_until(g, g->closed);
    assert_int_equal(g->reason, ERR_IO);
    transport_info(t, &info);
    assert_true(str_is(info.failure, "Connection refused"));
    transport_free(t);
}

static void a_name_without_addresses_is_no_connection(void **state)
{
    static const char *const none[] = {NULL};
    struct rig *g = *state;
    struct transport_info info;
    struct transport *t = dial(g, g->address);
    names_answer(&g->names, none);
    assert_true(g->closed == 1 && g->reason == ERR_IO);
    transport_info(t, &info);
    assert_true(str_is(info.failure, "no such name"));
    transport_free(t);
}

/* A listener whose queue is full: the kernel drops what else would connect. */
static void an_address_that_swallows_everything_is_not_the_first_for_ever(void **state)
{
    static const char *const addresses[] = {"127.0.0.77", "127.0.0.1", NULL};
    struct rig *g = *state;
    struct sockaddr_storage a;
    int fillers[FILLERS];
    uint16_t port = (uint16_t)atoi(strchr(g->address, ':') + 1);
    int deaf = listen_at(addresses[0], &port, 0);
    assert_true(resolve_is_numeric(str_of(addresses[0]), port, &a));
    for (int i = 0; i < FILLERS; i++) {
        fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        connect(fillers[i], (struct sockaddr *)&a, resolve_length(&a));
    }
    struct transport *t = dial(g, g->address);
    names_answer(&g->names, addresses);
    for (int i = 0; i < 10; i++)
        loop_turn(g->loop, 10);
    assert_int_equal(g->opened, 0);
    end(g, t); /* its owner's time is over */
    t = dial(g, g->address);
    names_answer(&g->names, addresses);
    turn_until(g, g->opened);
    end(g, t);
    close(deaf);
    for (int i = 0; i < FILLERS; i++)
        close(fillers[i]);
}

static void closing_before_there_is_an_answer_forgets_the_question(void **state)
{
    struct rig *g = *state;
    struct transport *t = dial(g, g->address);
    transport_close(t, false);
    assert_true(g->names.forgotten == 1 && g->closed == 0);
    turn_until(g, g->closed);
    assert_int_equal(g->reason, ERR_OK);
    transport_free(t);
}

static void an_address_in_digits_needs_no_names(void **state)
{
    struct rig *g = *state;
    char address[64];
    dialer_init(&g->dialer, g->loop, NULL, NULL, NULL);
    assert_null(dial(g, g->address));
    snprintf(address, sizeof address, "127.0.0.1:%s", strchr(g->address, ':') + 1);
    struct transport *t = dial(g, address);
    turn_until(g, g->opened);
    end(g, t);
}

static struct transport *nobody(void *ctx, struct transport *low, const char *host)
{
    fail_msg("a path has no host that could prove itself");
    return low;
}

static void a_path_is_plain_whatever_others_are(void **state)
{
    struct rig *g = *state;
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    char address[sizeof un.sun_path + 8];
    snprintf(un.sun_path, sizeof un.sun_path, "/tmp/pemberley-dial-%d", (int)getpid());
    snprintf(address, sizeof address, "unix:%s", un.sun_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    unlink(un.sun_path);
    assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof un), 0);
    assert_int_equal(listen(fd, 1), 0);
    dialer_init(&g->dialer, g->loop, NULL, nobody, NULL);
    struct transport *t = dial(g, address);
    turn_until(g, g->opened);
    end(g, t);
    g->dialer.refusal = "no";
    assert_null(dial(g, address));
    close(fd);
    unlink(un.sun_path);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(the_next_address_is_tried_when_one_refuses),
        CASE(the_last_address_says_why_there_is_no_connection),
        CASE(a_name_without_addresses_is_no_connection),
        CASE(an_address_that_swallows_everything_is_not_the_first_for_ever),
        CASE(closing_before_there_is_an_answer_forgets_the_question),
        CASE(an_address_in_digits_needs_no_names),
        CASE(a_path_is_plain_whatever_others_are),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
