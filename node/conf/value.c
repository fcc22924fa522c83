/* Texts to values. Written over str with explicit bounds: what an operator types is checked to the
 * last byte, so that "10 m" or "1e3s" are errors and never something near. */
#include "node/conf/value.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>

#include "proto/xmpp/jid.h"

struct unit {
    const char *name;
    uint64_t factor;
};
static const struct unit duration_units[] = {{"ms", 1},      {"s", 1000},     {"m", 60000},
                                             {"h", 3600000}, {"d", 86400000}, {NULL, 0}};
static const struct unit size_units[] = {
    {"b", 1}, {"k", 1 << 10}, {"m", 1 << 20}, {"g", 1 << 30}, {NULL, 0}};
static const struct unit per_units[] = {{"s", 1000}, {"m", 60000}, {"h", 3600000}, {NULL, 0}};

/* Leading digits of s into *n; false when there are none or too many. */
static bool digits(str *s, uint64_t *n)
{
    size_t i = 0;
    uint64_t value = 0;
    while (i < s->n && isdigit((unsigned char)s->p[i]) && i < 18)
        value = value * 10 + (uint64_t)(s->p[i++] - '0');
    if (i == 0 || (i < s->n && isdigit((unsigned char)s->p[i])))
        return false;
    *n = value;
    *s = str_skip(*s, i);
    return true;
}

static bool with_unit(str s, const struct unit *units, uint64_t *out)
{
    uint64_t n;
    if (!digits(&s, &n))
        return false;
    for (const struct unit *u = units; u->name; u++)
        if (str_eq(s, str_of(u->name)))
            return !__builtin_mul_overflow(n, u->factor, out) && *out <= INT64_MAX;
    return false;
}

static bool rate(str s, bool bytes, struct conf_rate *out)
{
    const char *slash = s.n ? memchr(s.p, '/', s.n) : NULL;
    if (!slash)
        return false;
    str count = {s.p, (size_t)(slash - s.p)}, per = {slash + 1, s.n - count.n - 1};
    bool good = bytes ? with_unit(count, size_units, &out->count)
                      : digits(&count, &out->count) && count.n == 0;
    out->per_ms = 0;
    for (const struct unit *u = per_units; u->name; u++)
        if (str_eq(per, str_of(u->name)))
            out->per_ms = u->factor;
    return good && out->per_ms;
}

static bool memory(str s, struct conf_memory *out)
{
    *out = (struct conf_memory){0};
    str rest = s;
    if (digits(&rest, &out->percent) && str_is(rest, "%"))
        return out->percent >= 1 && out->percent <= 100;
    out->percent = 0;
    return with_unit(s, size_units, &out->bytes);
}

/* The place of a word in "a b c"; -1. */
static int word_index(const char *words, str word)
{
    int i = 0;
    for (const char *p = words; *p; i++) {
        size_t n = strcspn(p, " ");
        if (str_eq(word, str_from(p, n)))
            return i;
        p += n + (p[n] == ' ');
    }
    return -1;
}

static bool name(str s, str *out)
{
    *out = s;
    for (size_t i = 0; i < s.n; i++)
        if (!islower((unsigned char)s.p[i]) && !isdigit((unsigned char)s.p[i]) && s.p[i] != '-')
            return false;
    return s.n <= 32;
}

static bool port(str s, in_port_t *out)
{
    uint64_t n;
    if (!digits(&s, &n) || s.n || n < 1 || n > 65535)
        return false;
    *out = htons((uint16_t)n);
    return true;
}

bool conf_address_parse(str text, struct sockaddr_storage *out, socklen_t *len)
{
    char host[INET6_ADDRSTRLEN + 1] = "";
    size_t colon = text.n;
    while (colon > 0 && text.p[colon - 1] != ':')
        colon--;
    if (colon == 0)
        return false;
    str h = {text.p, colon - 1}, p = str_skip(text, colon);
    bool v6 = h.n >= 2 && h.p[0] == '[' && h.p[h.n - 1] == ']';
    if (v6)
        h = (str){h.p + 1, h.n - 2};
    if (h.n >= sizeof host)
        return false;
    if (h.n)
        memcpy(host, h.p, h.n);
    memset(out, 0, sizeof *out);
    if (v6 || h.n == 0) {
        struct sockaddr_in6 *a = (void *)out;
        a->sin6_family = AF_INET6, *len = sizeof *a;
        return port(p, &a->sin6_port) &&
               (h.n == 0 || inet_pton(AF_INET6, host, &a->sin6_addr) == 1);
    }
    struct sockaddr_in *a = (void *)out;
    a->sin_family = AF_INET, *len = sizeof *a;
    return port(p, &a->sin_port) && inet_pton(AF_INET, host, &a->sin_addr) == 1;
}

static bool is_every_address(const struct sockaddr_storage *a)
{
    if (a->ss_family == AF_INET)
        return ((const struct sockaddr_in *)(const void *)a)->sin_addr.s_addr == INADDR_ANY;
    const struct in6_addr *v6 = &((const struct sockaddr_in6 *)(const void *)a)->sin6_addr;
    return IN6_IS_ADDR_UNSPECIFIED(v6) ||
           (IN6_IS_ADDR_V4MAPPED(v6) && memcmp(v6->s6_addr + 12, "\0\0\0", 4) == 0);
}

/* A domain name by its bytes; what it means, the resolver knows. The last label is no number, so
 * that a mistyped address is not asked for in vain. */
static bool is_domain(str s)
{
    size_t label = 0, digits_only = 0;
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c == '.' ? label == 0 : !isalnum(c) && c != '-' && c != '_')
            return false;
        digits_only = c == '.' ? 0 : digits_only + (isdigit(c) != 0);
        label = c == '.' ? 0 : label + 1;
    }
    return s.n && s.n <= 253 && label && label <= 63 && digits_only < label;
}

bool conf_endpoint_parse(str text, str *host, uint16_t *number)
{
    struct sockaddr_storage address;
    socklen_t len;
    size_t colon = text.n;
    in_port_t p;
    while (colon > 0 && text.p[colon - 1] != ':')
        colon--;
    if (colon < 2 || !port(str_skip(text, colon), &p))
        return false;
    *number = ntohs(p);
    *host = (str){text.p, colon - 1};
    if (!conf_address_parse(text, &address, &len))
        return is_domain(*host);
    if (host->p[0] == '[')
        *host = (str){host->p + 1, host->n - 2};
    return !is_every_address(&address);
}

static bool is_service(str uri, struct conf_service *s)
{
    unsigned char address[16];
    char host[INET6_ADDRSTRLEN + 1] = "";
    if (!conf_service_parse(uri, s))
        return false;
    if (s->host.n < sizeof host)
        memcpy(host, s->host.p, s->host.n);
    return is_domain(s->host) || inet_pton(AF_INET, host, address) == 1 ||
           inet_pton(AF_INET6, host, address) == 1;
}

/* RFC 3986: a scheme, and something behind it that is printable and no blank. */
static bool is_uri(str s)
{
    size_t n = 0;
    while (n < s.n && (isalnum((unsigned char)s.p[n]) || (n && strchr("+-.", s.p[n]))))
        n++;
    if (n == 0 || n + 1 >= s.n || s.p[n] != ':' || !isalpha((unsigned char)s.p[0]))
        return false;
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] <= ' ' || strchr("<>\"{}|\\^`\x7f", s.p[i]))
            return false;
    return s.n <= 1024;
}

/* One that others reach us at ("" = none), or one of the registry's servers. */
static bool endpoint(const struct conf_row *row, str s)
{
    str host;
    uint16_t number;
    if (row->kind == CONF_ENDPOINT && s.n == 0)
        return true;
    if (row->kind == CONF_ENDPOINTS && str_starts(s, STR("unix:/")))
        return s.n < 108; /* sun_path */
    return conf_endpoint_parse(s, &host, &number);
}

static bool net(str s, struct conf_net *out)
{
    char host[INET6_ADDRSTRLEN + 1];
    const char *slash = s.n ? memchr(s.p, '/', s.n) : NULL;
    size_t n = slash ? (size_t)(slash - s.p) : s.n;
    if (n == 0 || n >= sizeof host)
        return false;
    memcpy(host, s.p, n);
    host[n] = 0;
    bool v4 = inet_pton(AF_INET, host, out->address + 12) == 1;
    if (v4)
        memset(out->address, 0, 10), memset(out->address + 10, 0xff, 2);
    else if (inet_pton(AF_INET6, host, out->address) != 1)
        return false;
    uint64_t bits = v4 ? 32 : 128;
    str rest = slash ? str_skip(s, n + 1) : STR("");
    if (slash && (!digits(&rest, &bits) || rest.n || bits > (v4 ? 32 : 128)))
        return false;
    out->bits = (uint32_t)bits + (v4 ? 96 : 0);
    return true;
}

static bool bare_jid(str s, struct arena *a, str *out)
{
    struct jid jid;
    if (jid_prepare(s, a, &jid) != ERR_OK || !jid_is_bare(&jid))
        return false;
    *out = jid.full;
    return true;
}

static uint64_t bound(const struct conf_row *row, const char *text)
{
    uint64_t n = 0;
    str s = str_of(text);
    if (row->kind == CONF_DURATION)
        (void)with_unit(s, duration_units, &n);
    else if (row->kind == CONF_SIZE || row->kind == CONF_MEMORY)
        (void)with_unit(s, size_units, &n);
    else
        (void)digits(&s, &n);
    return n;
}

static const char *in_range(const struct conf_row *row, uint64_t n)
{
    if (n < bound(row, row->min))
        return "too small";
    if (row->max[0] && n > bound(row, row->max))
        return "too big";
    return NULL;
}

/* Rates compare as events per hour, the largest unit. */
static long double per_hour(struct conf_rate r)
{
    return (long double)r.count * 3600000 / (long double)r.per_ms;
}

static const char *rate_in_range(const struct conf_row *row, struct conf_rate r)
{
    struct conf_rate min, max;
    bool bytes = row->kind == CONF_BYTE_RATE;
    must(rate(str_of(row->min), bytes, &min) && rate(str_of(row->max), bytes, &max));
    if (per_hour(r) < per_hour(min))
        return "too small";
    return per_hour(r) > per_hour(max) ? "too big" : NULL;
}

static const char *parse_number(const struct conf_row *row, str text, union conf_value *out)
{
    switch (row->kind) {
    case CONF_COUNT_AUTO:
        if (str_is(text, "auto"))
            return out->count = 0, NULL;
        /* fall through */
    case CONF_COUNT:
        if (!digits(&text, &out->count) || text.n)
            return row->kind == CONF_COUNT ? "plain digits are wanted" : "plain digits or auto";
        return in_range(row, out->count);
    case CONF_SIZE:
        if (!with_unit(text, size_units, &out->count))
            return "a size needs a unit (b, k, m, g)";
        return in_range(row, out->count);
    case CONF_DURATION:
        if (!with_unit(text, duration_units, &out->count))
            return "a duration needs a unit (ms, s, m, h, d)";
        return in_range(row, out->count);
    case CONF_RATE_AUTO:
        if (str_is(text, "auto"))
            return out->rate = (struct conf_rate){0, 1000}, NULL;
        /* fall through */
    case CONF_RATE:
        return rate(text, false, &out->rate) ? rate_in_range(row, out->rate)
                                             : "a rate is N/s, N/m or N/h";
    case CONF_BYTE_RATE:
        return rate(text, true, &out->rate)
                   ? rate_in_range(row, out->rate)
                   : "a rate of bytes is a size per s, m or h, like 256k/s";
    default:
        if (!memory(text, &out->memory))
            return "a share like 80%, or a size with its unit (b, k, m, g)";
        return out->memory.percent ? NULL : in_range(row, out->memory.bytes);
    }
}

static const char *parse_text(const struct conf_row *row, str text, struct arena *a,
                              union conf_value *out)
{
    struct sockaddr_storage address;
    socklen_t len;
    int i;
    out->text = text;
    struct conf_service service;
    switch (row->kind) {
    case CONF_NAME: return name(text, &out->text) ? NULL : "only a-z, 0-9 and -, 32 at most";
    case CONF_WORDS: return word_index(row->min, text) < 0 ? "not one of the words it knows" : NULL;
    case CONF_WORD:
    case CONF_FLAGS:
        i = word_index(row->min, text);
        out->count = i < 0 ? 0 : (uint64_t)i;
        return i < 0 ? "not one of the words it knows" : NULL;
    case CONF_SWITCH:
        out->count = str_is(text, "on");
        return out->count || str_is(text, "off") ? NULL : "a switch is on or off";
    case CONF_JIDS: return bare_jid(text, a, &out->text) ? NULL : "not a bare JID (user@domain)";
    case CONF_ADDRESSES:
        return conf_address_parse(text, &address, &len)
                   ? NULL
                   : "not an address (:5222, 10.0.0.1:5222, \"[::1]:5222\")";
    case CONF_ENDPOINT:
        return endpoint(row, text) ? NULL
                                   : "one address that other machines can reach is wanted "
                                     "(10.0.0.1:5275, \"[2001:db8::1]:5275\", b.example.net:5275)";
    case CONF_ENDPOINTS:
        return endpoint(row, text) ? NULL
                                   : "not a server (10.0.0.9:6379, \"[2001:db8::9]:6379\", "
                                     "redis.example.net:6379, unix:/run/redis/redis.sock)";
    case CONF_NETS:
        return net(text, &out->net) ? NULL : "not a network (10.0.0.0/8, \"2001:db8::/32\")";
    case CONF_URIS:
        return is_uri(text) ? NULL
                            : "not an URI (mailto:abuse@example.org, xmpp:admin@example.org)";
    case CONF_SERVICES:
        return is_service(text, &service) ? NULL
                                          : "not a service (stun:stun.example.org, "
                                            "\"turn:turn.example.org:3478?transport=udp\")";
    default: return text.n > 4096 ? "too long" : NULL;
    }
}

const char *conf_value_parse(const struct conf_row *row, str text, struct arena *a,
                             union conf_value *out)
{
    *out = (union conf_value){0};
    if (row->kind >= CONF_COUNT && row->kind <= CONF_MEMORY)
        return parse_number(row, text, out);
    return parse_text(row, text, a, out);
}

/* What was meant by digits without a unit: the default's unit, if that is in range. */
static str guess_unit(const struct conf_row *row, str text, struct arena *a)
{
    union conf_value v;
    uint64_t n;
    str rest = text;
    if (!digits(&rest, &n) || (rest.n && !isspace((unsigned char)rest.p[0])))
        return STR_NONE;
    const char *unit = row->def + strspn(row->def, "0123456789");
    str guess = arena_printf(a, "%llu%s", (unsigned long long)n, unit);
    return conf_value_parse(row, guess, a, &v) ? STR_NONE : guess;
}

static str guess_word(const struct conf_row *row, str text)
{
    unsigned best = (unsigned)text.n / 3 + 2;
    str found = STR_NONE;
    for (const char *p = row->min; *p;) {
        str word = {p, strcspn(p, " ")};
        unsigned d = conf_distance(text, word);
        if (d < best)
            best = d, found = word;
        p += word.n + (p[word.n] == ' ');
    }
    return found;
}

static str list_words(const char *words, struct arena *a)
{
    str out = STR("");
    for (const char *p = words; *p;) {
        size_t n = strcspn(p, " ");
        out = arena_printf(a, "%.*s%s%.*s", STR_ARG(out), out.n ? ", " : "", (int)n, p);
        p += n + (p[n] == ' ');
    }
    return out;
}

str conf_value_complaint(const struct conf_row *row, str text, const char *problem, struct arena *a)
{
    bool words = row->kind == CONF_WORD || row->kind == CONF_FLAGS || row->kind == CONF_WORDS;
    bool number = row->kind >= CONF_COUNT && row->kind <= CONF_MEMORY;
    str guess = STR_NONE, allowed = STR(".");
    if (words) {
        guess = guess_word(row, text);
        allowed =
            arena_printf(a, ". Allowed: %s; default %s.", list_words(row->min, a).p, row->def);
    } else if (number) {
        guess = guess_unit(row, text, a);
        allowed = row->max[0] ? arena_printf(a, ". Allowed %s to %s, default %s.", row->min,
                                             row->max, row->def)
                              : arena_printf(a, ". At least %s, default %s.", row->min, row->def);
    }
    return arena_printf(a, "%s%.*s%s%.*s%s", problem, STR_ARG(allowed),
                        guess.n ? " Did you mean " : "", STR_ARG(guess), guess.n ? "?" : "");
}

static str trim(str s)
{
    while (s.n && isspace((unsigned char)s.p[0]))
        s = str_skip(s, 1);
    while (s.n && isspace((unsigned char)s.p[s.n - 1]))
        s.n--;
    return s;
}

static const char *member(str s, str *members, size_t *n)
{
    s = trim(s);
    if (s.n >= 2 && s.p[0] == '"' && s.p[s.n - 1] == '"')
        s = (str){s.p + 1, s.n - 2};
    else if (s.n == 0)
        return "an empty member";
    if (*n == CONF_MEMBERS_MAX)
        return "too many members";
    members[(*n)++] = s;
    return NULL;
}

const char *conf_members_parse(str text, struct arena *a, str **members, size_t *n)
{
    str s = trim(text);
    size_t commas = 0;
    for (size_t i = 0; i < s.n; i++)
        commas += s.p[i] == ',';
    *members = arena_alloc(a, (commas + 1) * sizeof **members);
    *n = 0;
    if (s.n == 0 || s.p[0] != '{')
        return member(s, *members, n);
    if (s.p[s.n - 1] != '}')
        return "a list ends with }";
    s = trim((str){s.p + 1, s.n - 2});
    while (s.n) {
        const char *comma = memchr(s.p, ',', s.n);
        size_t len = comma ? (size_t)(comma - s.p) : s.n;
        const char *problem = member((str){s.p, len}, *members, n);
        if (problem)
            return problem;
        s = str_skip(s, len + (comma != NULL));
    }
    return NULL;
}
