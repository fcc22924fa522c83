/* log: lines on stderr, logfmt or JSON (operator.md 4). One line is built on the stack and written
 * by one write(2), so that lines of several processes on one pipe do not mix (up to PIPE_BUF) and
 * nothing is buffered when a process dies. A line that would block is lost, and counted as
 * suppressed: the log must never stop the loop. (Asked by poll: O_NONBLOCK would be set for all who
 * share stderr.) Values come from peers: they are bounded, and control bytes, quotes and bytes that
 * are not UTF-8 are escaped, so that nobody writes lines of their own.
 *
 * Rate: more than event_rate lines of one event in a second are counted instead, and summed up when
 * the second is over, by the next line of that event or log_flush. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "node/os/os.h"
#include "node/os/recent.h"

enum { LINE_MAX = 8192, VALUE_MAX = 256 };

const enum log_level log_event_level[LOG_EVENT_MAX] = {
#define EVENT(name, level, fields) [LOG_##name] = level,
#include "pemberley/events.def"
#undef EVENT
};

const char *const log_event_names[LOG_EVENT_MAX] = {
#define EVENT(name, level, fields) [LOG_##name] = #name,
#include "pemberley/events.def"
#undef EVENT
};

static const char *const level_names[] = {"debug", "info", "warn", "error"};

struct rate {
    int64_t second;
    uint32_t written, suppressed;
};
struct log_real {
    struct log log;
    struct log_config c;
    struct rate rate[LOG_EVENT_MAX];
};

struct line {
    char p[LINE_MAX];
    size_t n;
    bool json;
};

/* ---- one line -------------------------------------------------------------------------------- */

/* Room is kept for what ends a line; what does not fit is left out. */
static void put(struct line *o, const char *p, size_t n)
{
    if (n <= sizeof o->p - 4 - o->n)
        memcpy(o->p + o->n, p, n), o->n += n;
}

static void put_z(struct line *o, const char *z) { put(o, z, strlen(z)); }

/* The length of the UTF-8 sequence at p, 0 if it is none. Also refuses C1 controls and the line and
 * paragraph separators: some viewers break lines there. */
static size_t utf8_len(const unsigned char *p, size_t n)
{
    size_t len = p[0] < 0x80       ? 1
                 : p[0] >> 5 == 6  ? 2
                 : p[0] >> 4 == 14 ? 3
                 : p[0] >> 3 == 30 ? 4
                                   : 0;
    if (len == 0 || len > n)
        return 0;
    uint32_t c = len == 1 ? p[0] : p[0] & (0x7fu >> len);
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (p[i] & 0x3f);
    }
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (c < least[len] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) || (c >= 0x80 && c < 0xa0) ||
        c == 0x2028 || c == 0x2029)
        return 0;
    return len;
}

static bool plain(unsigned char c)
{
    return c > ' ' && c != '"' && c != '=' && c != '\\' && c != 0x7f;
}

static bool needs_quotes(str v)
{
    for (size_t i = 0; i < v.n;) {
        size_t len = utf8_len((const unsigned char *)v.p + i, v.n - i);
        if (len == 0 || (len == 1 && !plain((unsigned char)v.p[i])))
            return true;
        i += len;
    }
    return v.n == 0;
}

static void put_escaped(struct line *o, str v)
{
    for (size_t i = 0; i < v.n;) {
        const unsigned char *p = (const unsigned char *)v.p + i;
        size_t len = utf8_len(p, v.n - i);
        char esc[8];
        if (len == 1 && (*p == '"' || *p == '\\')) {
            put(o, (char[]){'\\', (char)*p}, 2);
        } else if (len == 0 || (len == 1 && (*p < ' ' || *p == 0x7f))) {
            int n = snprintf(esc, sizeof esc, "\\u%04x", *p); /* valid in JSON; the byte's value */
            put(o, esc, (size_t)n);
            len = 1;
        } else {
            put(o, (const char *)p, len);
        }
        i += len;
    }
}

/* Cut at VALUE_MAX, not inside a character. */
static str bounded(str v)
{
    if (v.n <= VALUE_MAX)
        return v;
    v.n = VALUE_MAX;
    while (v.n > VALUE_MAX - 4 && ((unsigned char)v.p[v.n] & 0xc0) == 0x80)
        v.n--;
    return v;
}

static void put_key(struct line *o, const char *key)
{
    if (o->n > 1)
        put_z(o, o->json ? "," : " ");
    if (o->json)
        put_z(o, "\"");
    put_z(o, key);
    put_z(o, o->json ? "\":" : "=");
}

static void put_str(struct line *o, const char *key, str v)
{
    bool cut = v.n > VALUE_MAX;
    v = bounded(v);
    if (sizeof o->p - o->n < 6 * VALUE_MAX + 64) /* no half values */
        return;
    put_key(o, key);
    bool quotes = o->json || cut || needs_quotes(v);
    if (quotes)
        put_z(o, "\"");
    put_escaped(o, v);
    if (cut)
        put_z(o, "…");
    if (quotes)
        put_z(o, "\"");
}

static void put_int(struct line *o, const char *key, int64_t i)
{
    char digits[24];
    int n = snprintf(digits, sizeof digits, "%lld", (long long)i);
    put_key(o, key);
    put(o, digits, (size_t)n);
}

/* ---- fields ---------------------------------------------------------------------------------- */

/* Equal JIDs look equal, and nobody without the key can tell whose they are. */
static void put_jid(struct line *o, const struct log_config *c, const char *key, str jid)
{
    char hash[20];
    if (c->jids == LOG_FULL) {
        put_str(o, key, jid);
    } else if (c->jids == LOG_HASH && c->key) {
        int n = snprintf(hash, sizeof hash, "#%016llx", (unsigned long long)hash_str(c->key, jid));
        put_str(o, key, str_from(hash, (size_t)n));
    }
}

/* As log.addresses says: all of it, or the network: /24 of IPv4, /48 of IPv6. */
static void put_address(struct line *o, const struct log_config *c, const char *key,
                        const struct sockaddr_storage *a)
{
    char text[INET6_ADDRSTRLEN + 8] = "-";
    if (c->addresses == LOG_OFF)
        return;
    bool cut = c->addresses == LOG_PREFIX;
    if (a && a->ss_family == AF_INET) {
        struct in_addr in = ((const struct sockaddr_in *)a)->sin_addr;
        in.s_addr &= cut ? htonl(0xffffff00u) : ~0u;
        inet_ntop(AF_INET, &in, text, sizeof text);
        if (cut)
            strcat(text, "/24");
    } else if (a && a->ss_family == AF_INET6) {
        struct in6_addr in = ((const struct sockaddr_in6 *)a)->sin6_addr;
        if (cut)
            memset(in.s6_addr + 6, 0, 10);
        inet_ntop(AF_INET6, &in, text, sizeof text);
        if (cut)
            strcat(text, "/48");
    } else if (a && a->ss_family == AF_UNIX) {
        strcpy(text, "unix");
    }
    put_str(o, key, str_of(text));
}

static void put_field(struct line *o, const struct log_config *c, const struct log_field *f)
{
    switch (f->kind) {
    case LOG_STR: put_str(o, f->key, f->s); break;
    case LOG_INT: put_int(o, f->key, f->i); break;
    case LOG_JID: put_jid(o, c, f->key, f->s); break;
    case LOG_ADDRESS: put_address(o, c, f->key, f->addr); break;
    }
}

/* RFC 3339, UTC, milliseconds. */
static void put_time(struct line *o, int64_t us)
{
    time_t s = us / 1000000;
    struct tm tm;
    char text[40];
    gmtime_r(&s, &tm);
    size_t n = strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(text + n, sizeof text - n, ".%03dZ", (int)(us / 1000 % 1000));
    put_str(o, "ts", str_of(text));
}

static void count(struct log_real *l, enum metric m)
{
    if (l->c.metrics)
        metric_add(l->c.metrics, m, 1);
}

static void suppress(struct log_real *l, enum log_event e)
{
    l->rate[e].suppressed++;
    count(l, METRIC_AT(log_suppressed, e, 0));
}

static void write_line(struct log_real *l, enum log_event e, enum log_level level,
                       const struct log_field *f, size_t n, int64_t now_us)
{
    struct line o;
    o.n = 0, o.json = l->c.format == LOG_FORMAT_JSON;
    if (o.json)
        put_z(&o, "{");
    put_time(&o, now_us);
    put_str(&o, "level", str_of(level_names[level]));
    put_str(&o, "event", str_of(log_event_names[e]));
    put_str(&o, "node", str_of(l->c.node));
    put_str(&o, "shard", str_of(l->c.process));
    for (size_t i = 0; i < n; i++)
        put_field(&o, &l->c, &f[i]);
    if (o.json)
        o.p[o.n++] = '}';
    o.p[o.n++] = '\n';
    struct pollfd room = {.fd = l->c.fd, .events = POLLOUT};
    if (poll(&room, 1, 0) != 1 || !(room.revents & POLLOUT)) {
        suppress(l, e);
        return;
    }
    count(l, METRIC_AT(log_events, level, 0));
    ssize_t r;
    do
        r = write(l->c.fd, o.p, o.n);
    while (r < 0 && errno == EINTR);
}

/* ---- rate ------------------------------------------------------------------------------------ */

static void sum_up(struct log_real *l, enum log_event e, int64_t now_us)
{
    struct rate *r = &l->rate[e];
    if (r->suppressed) {
        const struct log_field f[] = {F_STR("event", str_of(log_event_names[e])),
                                      F_INT("count", r->suppressed)};
        write_line(l, LOG_log_suppressed, log_event_level[LOG_log_suppressed], f, array_len(f),
                   now_us);
    }
    r->second = now_us / 1000000;
    r->written = r->suppressed = 0;
}

static void log_write(struct log *log, enum log_event e, enum log_level level,
                      const struct log_field *f, size_t n)
{
    struct log_real *l = container_of(log, struct log_real, log);
    int64_t now_us = clock_wall_us(l->c.clock);
    struct rate *r = &l->rate[e];
    if (r->second != now_us / 1000000)
        sum_up(l, e, now_us);
    if (l->c.event_rate && r->written >= l->c.event_rate) {
        suppress(l, e);
        return;
    }
    r->written++;
    if (level >= LOG_WARN && l->c.metrics)
        recent_keep(l->c.metrics, now_us, e, f, n);
    write_line(l, e, level, f, n, now_us);
}

void log_flush(struct log *log)
{
    struct log_real *l = container_of(log, struct log_real, log);
    int64_t now_us = clock_wall_us(l->c.clock);
    for (int e = 0; e < LOG_EVENT_MAX; e++)
        if (l->rate[e].suppressed && l->rate[e].second != now_us / 1000000)
            sum_up(l, (enum log_event)e, now_us);
}

/* ---- life ------------------------------------------------------------------------------------ */

struct log *log_open(const struct log_config *c)
{
    struct log_real *l = calloc(1, sizeof *l);
    must(l && c->clock && c->node && c->process);
    l->c = *c;
    l->log = (struct log){.write = log_write, .level = c->level};
    return &l->log;
}

void log_reconfigure(struct log *log, const struct log_config *c)
{
    struct log_real *l = container_of(log, struct log_real, log);
    l->c.format = c->format;
    l->c.jids = c->jids;
    l->c.addresses = c->addresses;
    l->c.event_rate = c->event_rate;
    l->log.level = c->level;
}

void log_close(struct log *log)
{
    if (log)
        free(container_of(log, struct log_real, log));
}
