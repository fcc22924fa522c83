/* The PROXY header: both versions, byte by byte; what is no header; the bounds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>

#include "proto/proxy/proxy.h"

#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define V2(command, family, length) SIGNATURE command family length
#define CASE(bytes, ...) \
    { \
        STR(bytes), __VA_ARGS__ \
    }

/* In memory of its own of just that size, so that a byte too far is seen. */
static err parse(str in, struct proxy_header *h, size_t *used)
{
    char *exact = malloc(in.n ? in.n : 1);
    memcpy(exact, in.p, in.n);
    err e = proxy_parse(str_from(exact, in.n), h, used);
    free(exact);
    return e;
}

static const char *text_of(const struct proxy_header *h, char out[80])
{
    char address[INET6_ADDRSTRLEN] = "";
    const struct sockaddr_in *v4 = (const void *)&h->source;
    const struct sockaddr_in6 *v6 = (const void *)&h->source;
    if (!h->claims)
        return "nobody";
    if (h->source.ss_family == AF_INET)
        inet_ntop(AF_INET, &v4->sin_addr, address, sizeof address);
    else
        inet_ntop(AF_INET6, &v6->sin6_addr, address, sizeof address);
    snprintf(out, 80, "%s %u", address,
             ntohs(h->source.ss_family == AF_INET ? v4->sin_port : v6->sin6_port));
    return out;
}

static const struct good {
    str in;
    const char *source;
} goods[] = {
    CASE("PROXY TCP4 192.0.2.1 10.0.0.1 40000 5222\r\n", "192.0.2.1 40000"),
    CASE("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255 65535"),
    CASE("PROXY TCP4 192.0.2.1 10.0.0.1 0 0\r\n", "192.0.2.1 0"),
    CASE("PROXY TCP6 2001:db8::7 ::1 1 2\r\n", "2001:db8::7 1"),
    CASE("PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
         "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
         "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535"),
    CASE("PROXY UNKNOWN\r\n", "nobody"),
    CASE("PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
         "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
         "nobody"),
    CASE(V2("\x21", "\x11", "\0\x0c") "\xc0\0\2\1\x0a\0\0\1\x9c\x40\x14\x66", "192.0.2.1 40000"),
    CASE(V2("\x21", "\x21", "\0\x24") "\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\7"
                                      "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\0\1\0\2",
         "2001:db8::7 1"),
    CASE(V2("\x20", "\0", "\0\0"), "nobody"),
    CASE(V2("\x20", "\x11", "\0\x0c") "\xc0\0\2\1\x0a\0\0\1\x9c\x40\x14\x66", "nobody"),
    CASE(V2("\x20", "\xff", "\0\2") "??", "nobody"), /* LOCAL: the rest is not looked at */
    CASE(V2("\x21", "\0", "\0\3") "\4\0\0", "nobody"),
    CASE(V2("\x21", "\x11", "\0\x13") "\xc0\0\2\1\x0a\0\0\1\x9c\x40\x14\x66\4\0\4abcd",
         "192.0.2.1 40000"),
    CASE(V2("\x21", "\x11", "\0\x0d") "\xc0\0\2\1\x0a\0\0\1\x9c\x40\x14\x66\4", "192.0.2.1 40000"),
};

static void a_header_is_read_whatever_follows(void **state)
{
    for (size_t i = 0; i < sizeof goods / sizeof *goods; i++) {
        struct proxy_header h;
        size_t used;
        char with[256], text[80];
        memcpy(with, goods[i].in.p, goods[i].in.n);
        memcpy(with + goods[i].in.n, "\x16\3\1", 3);
        for (size_t more = 0; more <= 3; more++) {
            assert_int_equal(parse(str_from(with, goods[i].in.n + more), &h, &used), ERR_OK);
            assert_int_equal(used, goods[i].in.n);
            assert_string_equal(text_of(&h, text), goods[i].source);
        }
    }
}

static void each_shorter_piece_waits_for_more(void **state)
{
    for (size_t i = 0; i < sizeof goods / sizeof *goods; i++)
        for (size_t n = 0; n < goods[i].in.n; n++) {
            struct proxy_header h;
            size_t used;
            assert_int_equal(parse(str_from(goods[i].in.p, n), &h, &used), ERR_PARTIAL);
        }
}

/* The last byte decides; one byte less was still possible. */
static void what_cannot_be_a_header_is_refused_at_once(void **state)
{
    static const str bads[] = {
        STR("<"),
        STR("\x16"),
        STR("G"),
        STR("PRI"),
        STR("p"),
        STR("PROXY\r"),
        STR("PROXY\t"),
        STR("\r\n\r\n\r"),
        STR("\r\n\r\n\0\r\nQUIT\r"),
        STR(SIGNATURE "\x22"),
        STR(SIGNATURE "\x11"),
        STR(SIGNATURE "\x01"),
    };
    for (size_t i = 0; i < sizeof bads / sizeof *bads; i++) {
        struct proxy_header h;
        size_t used;
        assert_int_equal(parse(bads[i], &h, &used), ERR_BAD);
        assert_int_equal(parse(str_from(bads[i].p, bads[i].n - 1), &h, &used), ERR_PARTIAL);
    }
}

static void a_damaged_line_is_refused(void **state)
{
    static const char *const bads[] = {
        "PROXY \r\n",
        "PROXY TCP4\r\n",
        "PROXY TCP5 192.0.2.1 10.0.0.1 1 2\r\n",
        "PROXY UDP4 192.0.2.1 10.0.0.1 1 2\r\n",
        "PROXY TCP4 192.0.2.1 10.0.0.1 1\r\n",
        "PROXY TCP4 192.0.2.1 10.0.0.1 1 \r\n",
        "PROXY TCP4 192.0.2.1 10.0.0.1 1 2 \r\n",
        "PROXY TCP4 192.0.2.1 10.0.0.1 1 2 3\r\n",
        "PROXY TCP4  192.0.2.1 10.0.0.1 1 2\r\n",
        "PROXY  TCP4 192.0.2.1 10.0.0.1 1 2\r\n",
        "PROXY TCP4 192.0.2.1 10.0.0.1 01 2\r\n",
        "PROXY TCP4 192.0.2.1 10.0.0.1 65536 2\r\n",
        "PROXY TCP4 192.0.2.1 10.0.0.1 1 99999\r\n",
        "PROXY TCP4 192.0.2.1 10.0.0.1 +1 2\r\n",
        "PROXY TCP4 192.0.2.1 10.0.0.1 1 -2\r\n",
        "PROXY TCP4 192.0.2.256 10.0.0.1 1 2\r\n",
        "PROXY TCP4 192.0.2 10.0.0.1 1 2\r\n",
        "PROXY TCP4 192.0.2.1 nowhere 1 2\r\n",
        "PROXY TCP4 ::1 ::1 1 2\r\n",
        "PROXY TCP6 192.0.2.1 10.0.0.1 1 2\r\n",
        "PROXY TCP6 fe80::1%lo ::1 1 2\r\n",
        "PROXY TCP4 192.0.2.1 10.0.0.1 1 2\n",
        "PROXY UNKNOWN\n",
        "PROXY UNKNOWNS\r\n",
    };
    for (size_t i = 0; i < sizeof bads / sizeof *bads; i++) {
        struct proxy_header h;
        size_t used;
        if (parse(str_of(bads[i]), &h, &used) != ERR_BAD)
            fail_msg("taken: %s", bads[i]);
    }
}

static void a_damaged_block_is_refused(void **state)
{
    static const str bads[] = {
        STR(V2("\x21", "\x11", "\0\x0b") "\xc0\0\2\1\x0a\0\0\1\x9c\x40\x14"),
        STR(V2("\x21", "\x11", "\0\0")),
        STR(V2("\x21", "\x21", "\0\x0c") "\xc0\0\2\1\x0a\0\0\1\x9c\x40\x14\x66"),
        STR(V2("\x21", "\x12", "\0\x0c") "\xc0\0\2\1\x0a\0\0\1\x9c\x40\x14\x66"),
        STR(V2("\x21", "\x41", "\0\x0c") "\xc0\0\2\1\x0a\0\0\1\x9c\x40\x14\x66"),
        STR(V2("\x21", "\x31", "\0\x01") "/"),
    };
    for (size_t i = 0; i < sizeof bads / sizeof *bads; i++) {
        struct proxy_header h;
        size_t used;
        assert_int_equal(parse(bads[i], &h, &used), ERR_BAD);
        assert_false(h.claims);
    }
}

static void nothing_is_longer_than_the_bound(void **state)
{
    char line[PROXY_LINE_MAX + 1], block[PROXY_HEADER_MAX + 1] = V2("\x20", "\0", "\x02\x08");
    struct proxy_header h;
    size_t used;
    memset(line, 'x', sizeof line);
    memcpy(line, "PROXY UNKNOWN ", 14);
    assert_int_equal(parse(str_from(line, PROXY_LINE_MAX - 1), &h, &used), ERR_PARTIAL);
    assert_int_equal(parse(str_from(line, PROXY_LINE_MAX), &h, &used), ERR_FULL);
    memcpy(line + PROXY_LINE_MAX - 2, "\r\n", 2);
    assert_int_equal(parse(str_from(line, PROXY_LINE_MAX), &h, &used), ERR_OK);
    assert_int_equal(used, PROXY_LINE_MAX);

    assert_int_equal(parse(str_from(block, PROXY_HEADER_MAX - 1), &h, &used), ERR_PARTIAL);
    assert_int_equal(parse(str_from(block, PROXY_HEADER_MAX), &h, &used), ERR_OK);
    assert_int_equal(used, PROXY_HEADER_MAX);
    block[15] = 9; /* one more */
    assert_int_equal(parse(str_from(block, 16), &h, &used), ERR_FULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_header_is_read_whatever_follows),
        cmocka_unit_test(each_shorter_piece_waits_for_more),
        cmocka_unit_test(what_cannot_be_a_header_is_refused_at_once),
        cmocka_unit_test(a_damaged_line_is_refused),
        cmocka_unit_test(a_damaged_block_is_refused),
        cmocka_unit_test(nothing_is_longer_than_the_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
