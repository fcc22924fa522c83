#include "node/registry/topology.h"

#include <stdio.h>
#include <stdlib.h>

enum { GUIDE_PAUSE_MS = 100 };

struct topology {
    struct redis *redis;
    const struct topology_sink *sink;
    void *ctx;
    struct list servers; /* that have data */
    size_t servers_n;
    struct server *guide; /* NULL: mode single */
    struct server_request question;
    bool wanted; /* an answer of the guide is */
    bool asked;  /* once at least */
    bool stopped;
    size_t next;            /* which of the settings' servers, then of `servers`, comes next */
    struct server **slots;  /* of mode cluster; entries may be NULL */
    struct server **coming; /* the map being read */
    bool covered;           /* every slot had a server in the last map */
    char where[SERVER_ADDRESS_MAX], reason[128];
};

/* ---- slots ----------------------------------------------------------------------------------- */

/* CRC-16/XMODEM, as Redis Cluster has it. */
static unsigned crc16(str s)
{
    unsigned crc = 0;
    for (size_t i = 0; i < s.n; i++) {
        crc ^= (unsigned)(unsigned char)s.p[i] << 8;
        for (int bit = 0; bit < 8; bit++)
            crc = (crc & 0x8000 ? crc << 1 ^ 0x1021 : crc << 1) & 0xffff;
    }
    return crc;
}

unsigned topology_slot(str key)
{
    const char *open = memchr(key.p, '{', key.n);
    if (open) {
        str rest = str_skip(key, (size_t)(open + 1 - key.p));
        const char *close = memchr(rest.p, '}', rest.n);
        if (close && close > rest.p)
            key = str_from(rest.p, (size_t)(close - rest.p));
    }
    return crc16(key) % TOPOLOGY_SLOTS;
}

struct server *topology_server(const struct topology *t, unsigned slot)
{
    struct server *s = NULL;
    if (t->slots)
        s = t->slots[slot];
    else if (!list_empty(&t->servers))
        s = list_first(&t->servers, struct server, link);
    return s && server_is_up(s) ? s : NULL;
}

/* ---- servers --------------------------------------------------------------------------------- */

static const struct server_sink data_sink, guide_sink;

static str seed(const struct topology *t)
{
    const struct registry_settings *c = &t->redis->settings;
    return c->servers[t->next % c->servers_n];
}

/* Whom to ask next: those given, then those known. */
static str next_guide(struct topology *t)
{
    size_t given = t->redis->settings.servers_n;
    size_t i = t->next++ % (given + (t->slots ? t->servers_n : 0));
    if (i < given)
        return t->redis->settings.servers[i];
    i -= given;
    list_each(s, &t->servers, struct server, link)
        if (i-- == 0)
            return str_of(s->address);
    return seed(t);
}

static void ask_guide(struct topology *t)
{
    t->wanted = true;
    if (t->guide && !t->stopped && server_is_idle(t->guide))
        server_open(t->guide, next_guide(t), t->asked ? GUIDE_PAUSE_MS : 0);
}

static struct server *add_server(struct topology *t, enum server_greeting g)
{
    struct server *s = server_new(t->redis, g, &data_sink, t);
    list_push_back(&t->servers, &s->link);
    t->servers_n++;
    return s;
}

static struct server *server_at(struct topology *t, str address)
{
    list_each(s, &t->servers, struct server, link)
        if (str_eq(str_of(s->address), address))
            return s;
    if (t->servers_n >= TOPOLOGY_SERVERS_MAX)
        return NULL;
    struct server *s = add_server(t, SERVER_ANY);
    server_open(s, address, 0);
    return s;
}

static void remove_server(struct topology *t, struct server *s)
{
    list_remove(&s->link);
    t->servers_n--;
    server_drop(s);
}

static void remember(struct topology *t, const struct server *s)
{
    snprintf(t->where, sizeof t->where, "%s", s->address);
    snprintf(t->reason, sizeof t->reason, "%s", s->reason);
}

static void on_data_up(struct server *s)
{
    struct topology *t = s->owner;
    remember(t, s);
    t->sink->up(t->ctx);
}

static void on_data_down(struct server *s)
{
    struct topology *t = s->owner;
    remember(t, s);
    t->sink->down(t->ctx);
    if (t->stopped)
        return;
    if (t->slots)
        server_open(s, str_of(s->address), 0);
    if (t->guide)
        return ask_guide(t);
    t->next++;
    server_open(s, seed(t), 0);
}

static const struct server_sink data_sink = {on_data_up, on_data_down};

/* ---- the guide ------------------------------------------------------------------------------- */

/* "host:port", or ":port" or nothing: the host of the one who says so. Host names and addresses
 * of IPv6 may have brackets or not; the last colon counts. */
static bool address_of(char out[SERVER_ADDRESS_MAX], const struct server *from, str host,
                       int64_t port)
{
    if (host.n == 0) {
        const char *colon = strrchr(from->address, ':');
        if (!colon || str_starts(str_of(from->address), STR("unix:")))
            return false;
        host = str_from(from->address, (size_t)(colon - from->address));
    }
    if (host.n > 255 || memchr(host.p, 0, host.n) || port < 1 || port > 65535)
        return false;
    snprintf(out, SERVER_ADDRESS_MAX, "%.*s:%d", STR_ARG(host), (int)port);
    return true;
}

static bool port_of(str digits, int64_t *port)
{
    *port = 0;
    if (digits.n == 0 || digits.n > 5)
        return false;
    for (size_t i = 0; i < digits.n; i++) {
        if (digits.p[i] < '0' || digits.p[i] > '9')
            return false;
        *port = *port * 10 + (digits.p[i] - '0');
    }
    return true;
}

/* SENTINEL GET-MASTER-ADDR-BY-NAME: host and port, both strings. */
static bool take_master(struct topology *t, const struct resp *r)
{
    char address[SERVER_ADDRESS_MAX];
    int64_t port;
    if (r->kind != RESP_ARRAY || r->n != 2 || r->items[0]->kind != RESP_STRING ||
        r->items[1]->kind != RESP_STRING || !port_of(r->items[1]->text, &port) ||
        !address_of(address, t->guide, r->items[0]->text, port))
        return false;
    struct server *s = list_first(&t->servers, struct server, link);
    if (server_is_idle(s))
        server_open(s, str_of(address), 0);
    return true;
}

/* One range of CLUSTER SLOTS: first, last, then the master and its replicas as [host, port, …].
 * A host of nil or "" is that of the server asked. */
static bool take_range(struct topology *t, const struct resp *r)
{
    char address[SERVER_ADDRESS_MAX];
    if (r->kind != RESP_ARRAY || r->n < 3 || r->items[0]->kind != RESP_INTEGER ||
        r->items[1]->kind != RESP_INTEGER)
        return false;
    int64_t first = r->items[0]->integer, last = r->items[1]->integer;
    const struct resp *master = r->items[2];
    if (first < 0 || first > last || last >= TOPOLOGY_SLOTS || master->kind != RESP_ARRAY ||
        master->n < 2 || master->items[1]->kind != RESP_INTEGER ||
        (master->items[0]->kind != RESP_STRING && master->items[0]->kind != RESP_NIL) ||
        !address_of(address, t->guide, master->items[0]->text, master->items[1]->integer))
        return false;
    struct server *s = server_at(t, str_of(address));
    if (!s)
        return false;
    s->kept = true;
    for (int64_t i = first; i <= last; i++)
        t->coming[i] = s;
    return true;
}

/* The whole map or nothing; who has no slot any more goes. */
static bool take_slots(struct topology *t, const struct resp *r)
{
    bool good = r->kind == RESP_ARRAY && r->n > 0 && r->n <= TOPOLOGY_SLOTS;
    memset(t->coming, 0, TOPOLOGY_SLOTS * sizeof *t->coming);
    list_each(s, &t->servers, struct server, link)
        s->kept = false;
    for (size_t i = 0; good && i < r->n; i++)
        good = take_range(t, r->items[i]);
    if (!good)
        return false;
    struct server **old = t->slots;
    t->slots = t->coming, t->coming = old;
    t->covered = true;
    for (unsigned i = 0; i < TOPOLOGY_SLOTS; i++)
        t->covered = t->covered && t->slots[i];
    list_each(s, &t->servers, struct server, link)
        if (!s->kept)
            remove_server(t, s);
    return true;
}

static void on_answer(struct server_request *q, const struct resp *r)
{
    struct topology *t = container_of(q, struct topology, question);
    if (!r)
        return;
    if (r->kind == RESP_ERROR)
        return server_fail(t->guide, r->text);
    if (!(t->slots ? take_slots(t, r) : take_master(t, r)))
        return server_fail(t->guide, t->slots ? STR("no map of the cluster's slots")
                                              : STR("the sentinel knows no such master"));
    if (t->slots)
        t->sink->moved(t->ctx);
    if (t->slots && !t->covered)
        return server_fail(t->guide, STR("slots without a server"));
    t->wanted = false;
    server_close(t->guide);
}

static void on_guide_up(struct server *s)
{
    struct topology *t = s->owner;
    struct server_args a;
    server_args_init(&a);
    t->asked = true;
    if (t->slots) {
        server_arg(&a, STR("CLUSTER"));
        server_arg(&a, STR("SLOTS"));
    } else {
        server_arg(&a, STR("SENTINEL"));
        server_arg(&a, STR("GET-MASTER-ADDR-BY-NAME"));
        server_arg(&a, t->redis->settings.master);
    }
    server_send(s, &t->question, &a);
}

static void on_guide_down(struct server *s)
{
    struct topology *t = s->owner;
    if (t->wanted) {
        remember(t, s);
        t->sink->down(t->ctx);
        ask_guide(t);
    }
}

static const struct server_sink guide_sink = {on_guide_up, on_guide_down};

/* ---- what answers say ------------------------------------------------------------------------ */

struct server *topology_redirect(struct topology *t, const struct server *from, unsigned slot,
                                 str address, bool moved)
{
    char text[SERVER_ADDRESS_MAX];
    const char *colon = memrchr(address.p, ':', address.n);
    int64_t port;
    if (!t->slots || slot >= TOPOLOGY_SLOTS || !colon ||
        !port_of(str_skip(address, (size_t)(colon + 1 - address.p)), &port) ||
        !address_of(text, from, str_from(address.p, (size_t)(colon - address.p)), port))
        return NULL;
    struct server *s = server_at(t, str_of(text));
    if (moved) {
        if (s)
            t->slots[slot] = s;
        ask_guide(t);
    }
    return s && server_is_up(s) ? s : NULL;
}

void topology_doubt(struct topology *t)
{
    if (t->slots)
        ask_guide(t);
}

bool topology_is_up(const struct topology *t)
{
    list_each(s, &t->servers, struct server, link)
        if (!server_is_up(s))
            return false;
    return t->servers_n > 0 && (!t->slots || t->covered);
}

str topology_where(const struct topology *t) { return str_of(t->where); }
str topology_reason(const struct topology *t) { return str_of(t->reason); }

/* ---- life ------------------------------------------------------------------------------------ */

struct topology *topology_new(struct redis *x, const struct topology_sink *sink, void *ctx)
{
    struct topology *t = calloc(1, sizeof *t);
    must(t);
    t->redis = x, t->sink = sink, t->ctx = ctx;
    t->question.done = on_answer;
    list_init(&t->servers);
    if (x->settings.mode != REGISTRY_SINGLE)
        t->guide = server_new(x, SERVER_GUIDE, &guide_sink, t);
    if (x->settings.mode == REGISTRY_CLUSTER) {
        t->slots = calloc(TOPOLOGY_SLOTS, sizeof *t->slots);
        t->coming = calloc(TOPOLOGY_SLOTS, sizeof *t->coming);
        must(t->slots && t->coming);
    } else {
        add_server(t, SERVER_MASTER);
    }
    if (t->guide)
        ask_guide(t);
    else
        server_open(list_first(&t->servers, struct server, link), seed(t), 0);
    return t;
}

void topology_stop(struct topology *t)
{
    t->stopped = true;
    t->wanted = false;
    if (t->guide)
        server_close(t->guide);
    list_each(s, &t->servers, struct server, link)
        server_close(s);
}

static bool at_rest(const struct server *s) { return s->state == SERVER_DOWN; }

bool topology_stopped(const struct topology *t)
{
    list_each(s, &t->servers, struct server, link)
        if (!at_rest(s))
            return false;
    return t->stopped && (!t->guide || at_rest(t->guide));
}

void topology_free(struct topology *t)
{
    must(topology_stopped(t));
    if (t->guide)
        server_drop(t->guide);
    list_each(s, &t->servers, struct server, link)
        server_drop(s);
    free(t->slots);
    free(t->coming);
    free(t);
}
