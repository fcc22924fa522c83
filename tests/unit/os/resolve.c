/* Names to addresses, against a DNS server of this test's own on 127.0.0.1, over both loops. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "node/os/os.h"
#include "node/os/resolve.h"

enum { TURNS_MAX = 20000, PACKET_MAX = 20000, TYPE_A = 1, TYPE_CNAME = 5, TYPE_AAAA = 28 };

static const enum loop_choice choices[] = {LOOP_URING, LOOP_EPOLL};

/* ---- the server ------------------------------------------------------------------------------ */

struct server {
    int udp, listener, tcp;
    unsigned questions, by_tcp;
    unsigned char in[PACKET_MAX], out[PACKET_MAX];
    size_t n;
};

static void put16(struct server *s, unsigned v)
{
    s->out[s->n++] = (unsigned char)(v >> 8);
    s->out[s->n++] = (unsigned char)v;
}

/* A record of the name that stands at an offset; 12: the one asked for. */
static void put_record(struct server *s, size_t at, unsigned type, const void *data, size_t n)
{
    put16(s, 0xc000 | (unsigned)at), put16(s, type), put16(s, 1);
    put16(s, 0), put16(s, 60); /* to live */
    put16(s, (unsigned)n);
    memcpy(s->out + s->n, data, n);
    s->n += n;
    s->out[7]++, s->out[6] += s->out[7] == 0; /* of the answers */
}

static void put_v4(struct server *s, unsigned address)
{
    uint32_t a = htonl(address);
    put_record(s, 12, TYPE_A, &a, sizeof a);
}

static void answer_alias(struct server *s, unsigned type)
{
    static const unsigned char target[] = {1, 'x', 0xc0, 12 + sizeof "alias"}; /* x.test */
    static const unsigned char address[] = {127, 0, 0, 7};
    put_record(s, 12, TYPE_CNAME, target, sizeof target);
    if (type == TYPE_A)
        put_record(s, s->n - sizeof target, TYPE_A, address, sizeof address);
}

/* The question in in[12…]: its name with dots, its type; its length. */
static size_t read_question(const struct server *s, char name[256], unsigned *type)
{
    const unsigned char *p = s->in + 12;
    size_t n = 0;
    while (*p) {
        memcpy(name + n, p + 1, *p);
        n += *p;
        name[n++] = '.';
        p += *p + 1;
    }
    name[n ? n - 1 : 0] = 0;
    *type = (unsigned)p[1] << 8 | p[2];
    return (size_t)(p + 5 - s->in);
}

static void answer_many(struct server *s, unsigned type, bool tcp)
{
    if (!tcp)
        s->out[2] |= 0x02; /* truncated */
    for (unsigned i = 0; tcp && type == TYPE_A && i < 1000; i++)
        put_v4(s, 0x7f000001 + i);
}

/* False: nothing is said. */
static bool make_answer(struct server *s, bool tcp)
{
    char name[256];
    unsigned type;
    s->n = read_question(s, name, &type);
    memcpy(s->out, s->in, s->n);
    memset(s->out + 6, 0, 6);
    s->out[2] = 0x84, s->out[3] = 0;
    s->questions++;
    s->by_tcp += tcp;
    if (strcmp(name, "none.test") == 0)
        s->out[3] = 3;
    else if (strcmp(name, "fails.test") == 0)
        s->out[3] = 2;
    else if (strcmp(name, "short.test") == 0)
        s->n = 13;
    else if (strcmp(name, "alias.test") == 0)
        answer_alias(s, type);
    else if (strcmp(name, "many.test") == 0)
        answer_many(s, type, tcp);
    if ((strcmp(name, "two.test") == 0 || strcmp(name, "late.test") == 0) && type == TYPE_A)
        put_v4(s, 0x7f000001), put_v4(s, 0x7f000002);
    if (strcmp(name, "two.test") == 0 && type == TYPE_AAAA)
        put_record(s, 12, TYPE_AAAA, &in6addr_loopback, sizeof in6addr_loopback);
    if (strcmp(name, "late.test") == 0 && s->questions <= 2)
        return false;
    return strcmp(name, "silent.test") != 0;
}

static void serve_tcp(struct server *s)
{
    unsigned char head[2];
    if (s->tcp < 0)
        s->tcp = accept4(s->listener, NULL, NULL, SOCK_NONBLOCK);
    if (s->tcp < 0)
        return;
    ssize_t n = recv(s->tcp, s->in, sizeof s->in, 0);
    if (n == 0)
        close(s->tcp), s->tcp = -1;
    size_t done = 0;
    while (n > 0 && done < (size_t)n) { /* a question comes in one piece here */
        size_t length = (size_t)s->in[done] << 8 | s->in[done + 1];
        assert_true(done + 2 + length <= (size_t)n);
        memmove(s->in, s->in + done + 2, (size_t)n - done - 2);
        n -= (ssize_t)(done + 2), done = 0;
        if (make_answer(s, true)) {
            head[0] = (unsigned char)(s->n >> 8), head[1] = (unsigned char)s->n;
            assert_int_equal(send(s->tcp, head, 2, MSG_NOSIGNAL | MSG_MORE), 2);
            assert_int_equal(send(s->tcp, s->out, s->n, MSG_NOSIGNAL), s->n);
        }
        done = length;
    }
}

static void serve(struct server *s)
{
    struct sockaddr_in from;
    socklen_t size = sizeof from;
    while (recvfrom(s->udp, s->in, sizeof s->in, 0, (struct sockaddr *)&from, &size) > 0)
        if (make_answer(s, false))
            sendto(s->udp, s->out, s->n, 0, (struct sockaddr *)&from, size);
    serve_tcp(s);
}

/* UDP and TCP of one port, which only a try can find. */
static unsigned server_start(struct server *s)
{
    for (int i = 0; i < 100; i++) {
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t n = sizeof a;
        *s = (struct server){.tcp = -1};
        s->udp = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        s->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        assert_int_equal(bind(s->udp, (struct sockaddr *)&a, n), 0);
        assert_int_equal(getsockname(s->udp, (struct sockaddr *)&a, &n), 0);
        if (bind(s->listener, (struct sockaddr *)&a, n) == 0 && listen(s->listener, 5) == 0)
            return ntohs(a.sin_port);
        close(s->udp), close(s->listener);
    }
    fail_msg("no port");
    return 0;
}

/* ---- who asks -------------------------------------------------------------------------------- */

struct given {
    unsigned times;
    err result;
    size_t n;
    struct sockaddr_storage a[RESOLVE_ADDRESSES_MAX];
    struct resolver *then; /* asked once more from done */
};

struct rig {
    struct loop *loop;
    struct resolver *resolver;
    struct server server;
    struct given given;
};

static void on_done(void *ctx, err e, const struct sockaddr_storage *a, size_t n)
{
    struct given *g = ctx;
    assert_true(n <= RESOLVE_ADDRESSES_MAX && (n > 0) == (e == ERR_OK));
    g->times++, g->result = e, g->n = n;
    if (n)
        memcpy(g->a, a, n * sizeof *a);
    if (g->then)
        resolve(g->then, STR("two.test"), 1, on_done, g);
    g->then = NULL;
}

#define turn_until(g, condition) \
    do { \
        int turns_ = 0; \
        while (!(condition)) { \
            assert_true(turns_++ < TURNS_MAX); \
            serve(&(g)->server); \
            loop_turn((g)->loop, 1); \
        } \
    } while (0)

static err ask(struct rig *g, const char *name)
{
    unsigned before = g->given.times;
    resolve(g->resolver, str_of(name), 5275, on_done, &g->given);
    assert_int_equal(g->given.times, before);
    turn_until(g, g->given.times > before);
    return g->given.result;
}

static bool has(const struct rig *g, const char *address)
{
    char text[INET6_ADDRSTRLEN];
    for (size_t i = 0; i < g->given.n; i++) {
        const struct sockaddr_storage *a = &g->given.a[i];
        bool v6 = a->ss_family == AF_INET6;
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)a;
        const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)a;
        inet_ntop(a->ss_family, v6 ? (const void *)&six->sin6_addr : &v4->sin_addr, text,
                  sizeof text);
        assert_int_equal(ntohs(v6 ? six->sin6_port : v4->sin_port), 5275);
        if (strcmp(text, address) == 0)
            return true;
    }
    return false;
}

static void open_resolver(struct rig *g, uint32_t timeout_ms)
{
    char servers[32];
    snprintf(servers, sizeof servers, "127.0.0.1:%u", server_start(&g->server));
    struct resolver_config c = {.servers = servers, .timeout_ms = timeout_ms};
    g->resolver = resolver_open(g->loop, &c);
}

static void close_resolver(struct rig *g)
{
    resolver_stop(g->resolver);
    turn_until(g, resolver_stopped(g->resolver));
    resolver_free(g->resolver);
    close(g->server.udp), close(g->server.listener);
    if (g->server.tcp >= 0)
        close(g->server.tcp);
}

static int setup(void **state)
{
    struct loop_fault fault;
    struct loop_config c = {.choice = *(const enum loop_choice *)*state, .wake_fd = -1};
    struct rig *g = calloc(1, sizeof *g);
    err e = loop_new(&c, &fault, &g->loop);
    if (e)
        fail_msg("%s: %s", fault.feature, strerror(fault.error));
    open_resolver(g, 5000);
    *state = g;
    return 0;
}

static int teardown(void **state)
{
    struct rig *g = *state;
    close_resolver(g);
    loop_close(g->loop);
    free(g);
    return 0;
}

/* ---- tests ----------------------------------------------------------------------------------- */

static void a_name_has_its_addresses_of_both_families(void **state)
{
    struct rig *g = *state;
    assert_int_equal(ask(g, "two.test"), ERR_OK);
    assert_int_equal(g->given.n, 3);
    assert_true(has(g, "127.0.0.1") && has(g, "127.0.0.2") && has(g, "::1"));
    assert_int_equal(ask(g, "two.test"), ERR_OK);
    assert_int_equal(g->server.questions, 4); /* nothing is remembered */
}

static void an_alias_is_followed(void **state)
{
    struct rig *g = *state;
    assert_int_equal(ask(g, "alias.test"), ERR_OK);
    assert_true(g->given.n == 1 && has(g, "127.0.0.7"));
}

static void what_does_not_exist_is_told_from_who_does_not_answer(void **state)
{
    struct rig *g = *state;
    assert_int_equal(ask(g, "none.test"), ERR_NOT_FOUND);
    assert_int_equal(ask(g, "empty.test"), ERR_NOT_FOUND);
    assert_int_equal(ask(g, "fails.test"), ERR_AWAY);
}

static void a_name_without_an_answer_ends_in_time(void **state)
{
    struct rig *g = *state;
    close_resolver(g);
    open_resolver(g, 200);
    uint64_t began = loop_clock_us(g->loop);
    assert_int_equal(ask(g, "silent.test"), ERR_AWAY);
    assert_int_equal(ask(g, "short.test"), ERR_AWAY);
    assert_true(loop_clock_us(g->loop) - began >= 200 * 1000);
    assert_int_equal(ask(g, "two.test"), ERR_OK);
}

/* Each of them is asked twice: more time than there is. */
static void many_silent_servers_take_no_longer_than_one(void **state)
{
    enum { SERVERS = 16, TIMEOUT_MS = 200 };
    struct rig *g = *state;
    char servers[SERVERS * 24] = "";
    struct server *silent = calloc(SERVERS, sizeof *silent);
    for (int i = 0; i < SERVERS; i++)
        sprintf(servers + strlen(servers), "%s127.0.0.1:%u", i ? "," : "",
                server_start(&silent[i]));
    struct resolver *mine = g->resolver;
    struct resolver_config c = {.servers = servers, .timeout_ms = TIMEOUT_MS};
    g->resolver = resolver_open(g->loop, &c);
    uint64_t began = loop_clock_us(g->loop);
    assert_int_equal(ask(g, "silent.test"), ERR_AWAY);
    assert_in_range(loop_clock_us(g->loop) - began, TIMEOUT_MS * 1000 / 2, 8 * TIMEOUT_MS * 1000);
    resolver_stop(g->resolver);
    turn_until(g, resolver_stopped(g->resolver));
    resolver_free(g->resolver);
    for (int i = 0; i < SERVERS; i++)
        close(silent[i].udp), close(silent[i].listener);
    free(silent);
    g->resolver = mine;
}

static void a_lost_question_is_asked_again(void **state)
{
    struct rig *g = *state;
    close_resolver(g);
    open_resolver(g, 2000);
    assert_int_equal(ask(g, "late.test"), ERR_OK);
    assert_true(g->server.questions > 2);
    assert_true(has(g, "127.0.0.2"));
}

static void a_long_answer_comes_by_tcp_and_is_cut_to_the_bound(void **state)
{
    struct rig *g = *state;
    assert_int_equal(ask(g, "many.test"), ERR_OK);
    assert_int_equal(g->given.n, RESOLVE_ADDRESSES_MAX);
    assert_true(g->server.by_tcp > 0);
}

static void an_address_is_its_own_answer(void **state)
{
    struct rig *g = *state;
    assert_int_equal(ask(g, "127.0.0.9"), ERR_OK);
    assert_true(g->given.n == 1 && has(g, "127.0.0.9"));
    assert_int_equal(ask(g, "::9"), ERR_OK);
    assert_true(g->given.n == 1 && has(g, "::9"));
    assert_int_equal(g->server.questions, 0);
}

static void what_cannot_be_a_name_is_not_asked_for(void **state)
{
    struct rig *g = *state;
    char longest[RESOLVE_HOST_MAX + 2];
    memset(longest, 'a', sizeof longest);
    assert_int_equal(ask(g, ""), ERR_BAD);
    assert_int_equal(ask(g, "a b"), ERR_BAD);
    assert_int_equal(ask(g, "1.2.3"), ERR_BAD);
    assert_int_equal(ask(g, "a..test"), ERR_BAD);
    resolve(g->resolver, str_from("a\0b", 3), 1, on_done, &g->given);
    resolve(g->resolver, str_from(longest, sizeof longest), 1, on_done, &g->given);
    turn_until(g, g->given.times == 6);
    assert_int_equal(g->given.result, ERR_BAD);
    longest[RESOLVE_HOST_MAX - 1] = 0; /* one label of 254 bytes */
    assert_int_equal(ask(g, longest), ERR_BAD);
    assert_int_equal(g->server.questions, 0);
}

/* The first line of the machine's own file that names something but localhost. */
static bool read_hosts(char name[256], char address[64])
{
    char line[1024];
    FILE *f = fopen("/etc/hosts", "r");
    bool found = false;
    while (f && !found && fgets(line, sizeof line, f))
        found = sscanf(line, " %63[0-9a-fA-F:.] %255s", address, name) == 2 &&
                strcmp(name, "localhost") != 0;
    if (f)
        fclose(f);
    return found;
}

static void the_hosts_file_comes_first(void **state)
{
    struct rig *g = *state;
    char name[256], address[64];
    if (!read_hosts(name, address))
        skip();
    assert_int_equal(ask(g, name), ERR_OK);
    assert_true(has(g, address));
    assert_int_equal(g->server.questions, 0);
}

static void an_answer_that_nobody_waits_for_any_more_does_not_come(void **state)
{
    struct rig *g = *state;
    struct given other = {.times = 0};
    resolve(g->resolver, STR("two.test"), 5275, on_done, &other);
    resolve(g->resolver, STR("silent.test"), 5275, on_done, &other);
    resolve(g->resolver, STR("127.0.0.1"), 5275, on_done, &other);
    resolve_forget(g->resolver, &other);
    assert_int_equal(ask(g, "two.test"), ERR_OK);
    assert_int_equal(other.times, 0);
    resolve(g->resolver, STR("silent.test"), 5275, on_done, &other);
    loop_turn(g->loop, 1); /* sockets are there: teardown ends it as it is */
}

static void who_is_answered_may_ask_again_at_once(void **state)
{
    struct rig *g = *state;
    g->given.then = g->resolver;
    assert_int_equal(ask(g, "none.test"), ERR_NOT_FOUND);
    turn_until(g, g->given.times == 2);
    assert_int_equal(g->given.result, ERR_OK);
}

static void too_many_questions_are_refused(void **state)
{
    struct rig *g = *state;
    struct given many = {.times = 0};
    for (size_t i = 0; i < RESOLVE_QUESTIONS_MAX; i++)
        resolve(g->resolver, STR("two.test"), 5275, on_done, &many);
    assert_int_equal(ask(g, "two.test"), ERR_FULL);
    turn_until(g, many.times == RESOLVE_QUESTIONS_MAX);
    assert_int_equal(many.result, ERR_OK);
    assert_int_equal(ask(g, "two.test"), ERR_OK);
}

static void a_server_that_is_not_there_is_away(void **state)
{
    struct rig *g = *state;
    struct resolver *mine = g->resolver;
    struct resolver_config c = {.servers = "127.0.0.1:1", .timeout_ms = 500};
    struct resolver_config bad = {.servers = "nonsense", .timeout_ms = 500};
    const struct resolver_config *const configs[] = {&c, &bad};
    for (size_t i = 0; i < array_len(configs); i++) {
        g->resolver = resolver_open(g->loop, configs[i]);
        assert_int_equal(ask(g, "two.test"), ERR_AWAY);
        resolver_stop(g->resolver);
        turn_until(g, resolver_stopped(g->resolver));
        resolver_free(g->resolver);
    }
    g->resolver = mine;
}

#define BOTH(test) \
    {#test " (io_uring)", test, setup, teardown, (void *)&choices[0]}, \
    { \
#test " (epoll)", test, setup, teardown, (void *)&choices[1] \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(a_name_has_its_addresses_of_both_families),
        BOTH(an_alias_is_followed),
        BOTH(what_does_not_exist_is_told_from_who_does_not_answer),
        BOTH(a_name_without_an_answer_ends_in_time),
        BOTH(many_silent_servers_take_no_longer_than_one),
        BOTH(a_lost_question_is_asked_again),
        BOTH(a_long_answer_comes_by_tcp_and_is_cut_to_the_bound),
        BOTH(an_address_is_its_own_answer),
        BOTH(what_cannot_be_a_name_is_not_asked_for),
        BOTH(the_hosts_file_comes_first),
        BOTH(an_answer_that_nobody_waits_for_any_more_does_not_come),
        BOTH(who_is_answered_may_ask_again_at_once),
        BOTH(too_many_questions_are_refused),
        BOTH(a_server_that_is_not_there_is_away),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
