/* URIs of STUN and TURN servers (RFC 7064, 7065), as they stand in host.services. */
#include "node/conf/conf.h"

static bool port_of(str digits, uint16_t *out)
{
    uint32_t n = 0;
    for (size_t i = 0; i < digits.n; i++) {
        if (digits.p[i] < '0' || digits.p[i] > '9' || n > UINT16_MAX)
            return false;
        n = n * 10 + (uint32_t)(digits.p[i] - '0');
    }
    *out = (uint16_t)n;
    return n > 0 && n <= UINT16_MAX;
}

/* host, host:port, [IPv6], [IPv6]:port; the port stays when there is none. */
static bool split(str s, struct conf_service *out)
{
    const char *bracket = s.n && s.p[0] == '[' ? memchr(s.p, ']', s.n) : NULL;
    const char *colon = bracket ? bracket + 1 : s.n ? memchr(s.p, ':', s.n) : NULL;
    if (bracket && colon == s.p + s.n)
        colon = NULL;
    size_t n = colon ? (size_t)(colon - s.p) : s.n;
    out->host = bracket ? str_from(s.p + 1, (size_t)(bracket - s.p - 1)) : str_from(s.p, n);
    if (!out->host.n || (bracket && colon && *colon != ':'))
        return false;
    return !colon || port_of(str_skip(s, n + 1), &out->port);
}

bool conf_service_parse(str uri, struct conf_service *out)
{
    static const struct {
        const char *scheme;
        bool relay;
        uint16_t port;
    } known[] = {
        {"stun", false, 3478}, {"stuns", false, 5349}, {"turn", true, 3478}, {"turns", true, 5349}};
    const char *colon = uri.n ? memchr(uri.p, ':', uri.n) : NULL;
    size_t i = 0, n = colon ? (size_t)(colon - uri.p) : 0;
    while (i < array_len(known) && !str_eq(str_from(uri.p, n), str_of(known[i].scheme)))
        i++;
    if (i == array_len(known))
        return false;
    *out = (struct conf_service){.type = str_from(uri.p, n), .port = known[i].port};
    str rest = str_skip(uri, n + 1);
    const char *query = rest.n ? memchr(rest.p, '?', rest.n) : NULL;
    if (query) {
        str q = str_skip(rest, (size_t)(query - rest.p));
        if (!known[i].relay || !str_starts(q, STR("?transport=")))
            return false;
        out->transport = str_skip(q, sizeof "?transport=" - 1);
        if (!str_is(out->transport, "udp") && !str_is(out->transport, "tcp"))
            return false;
        rest.n = (size_t)(query - rest.p);
    }
    return split(rest, out);
}
