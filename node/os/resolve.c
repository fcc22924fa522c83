/* resolve: the resolver on c-ares.
 *
 * The channel (c-ares' word: its sockets, servers and questions) is there while somebody waits for
 * an answer: so resolv.conf is never older than the question, and each time of quiet ends with new
 * sockets, whose ports nobody could learn beforehand.
 *
 * c-ares calls back from inside its functions, also at once; nothing of ours but notes is made
 * there. Sockets are polled and answers given at the turn's end.
 *
 *     asked --on_answer--> answered --turn's end--> done(), freed
 *       \-- forgotten, or too late: done is NULL; freed by on_answer, or with the channel */
#include "node/os/resolve.h"

#include <ares.h>
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>

enum { TRIES = 2, UDP_MAX = 1232 };

struct dns {
    struct resolver door;
    struct loop *loop;
    char *servers; /* NULL: resolv.conf's */
    uint32_t timeout_ms;
    ares_channel channel;
    bool open;    /* there is a channel */
    bool stopped; /* nobody asks any more */
    struct list watches, asked, answered;
    size_t asked_n, waiting; /* in asked; of these not given up */
    struct timer timer;      /* c-ares' next */
    struct turn_hook hook;
};

/* A socket of c-ares. */
struct watch {
    struct op op;
    struct list link;
    struct dns *dns;
    int fd;
    short events, polled; /* wanted; asked of the loop, 0: it is not armed */
    bool closed;          /* by c-ares: freed when the op has ended */
};

struct question {
    struct list link;
    struct dns *dns;
    struct timer timer;
    resolved_f *done; /* NULL: nobody waits for it */
    void *ctx;
    uint16_t port;
    err result;
    struct sockaddr_storage addresses[RESOLVE_ADDRESSES_MAX];
    size_t n;
};

static struct dns *dns_of(struct resolver *r) { return container_of(r, struct dns, door); }

/* ---- texts ----------------------------------------------------------------------------------- */

socklen_t resolve_length(const struct sockaddr_storage *a)
{
    return a->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
}

static void set_port(struct sockaddr_storage *a, uint16_t port)
{
    if (a->ss_family == AF_INET6)
        ((struct sockaddr_in6 *)a)->sin6_port = htons(port);
    else
        ((struct sockaddr_in *)a)->sin_port = htons(port);
}

static bool copy_text(str s, char out[RESOLVE_HOST_MAX + 1])
{
    if (s.n == 0 || s.n > RESOLVE_HOST_MAX || memchr(s.p, 0, s.n))
        return false;
    memcpy(out, s.p, s.n);
    out[s.n] = 0;
    return true;
}

bool resolve_is_numeric(str host, uint16_t port, struct sockaddr_storage *out)
{
    char text[RESOLVE_HOST_MAX + 1];
    struct sockaddr_in *v4 = (struct sockaddr_in *)out;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)out;
    *out = (struct sockaddr_storage){.ss_family = AF_UNSPEC};
    if (!copy_text(host, text))
        return false;
    if (inet_pton(AF_INET, text, &v4->sin_addr) == 1)
        out->ss_family = AF_INET;
    else if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1)
        out->ss_family = AF_INET6;
    else
        return false;
    set_port(out, port);
    return true;
}

/* Of the last label, or of what stands behind the last dot: an address that is none, not a name. */
static bool ends_in_digits(str s)
{
    size_t n = s.n - (s.p[s.n - 1] == '.'), digits = 0;
    while (digits < n && s.p[n - 1 - digits] >= '0' && s.p[n - 1 - digits] <= '9')
        digits++;
    return digits && (digits == n || s.p[n - 1 - digits] == '.');
}

/* Letters, digits, '-', '_' and dots between them: what a name in DNS or a hosts file may be here.
 */
static bool is_name(str s)
{
    if (s.n == 0 || s.n > RESOLVE_HOST_MAX)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        bool dot = c == '.' && i > 0 && s.p[i - 1] != '.';
        if (!letter && !dot && !(c >= '0' && c <= '9') && c != '-' && c != '_')
            return false;
    }
    return !ends_in_digits(s);
}

static bool read_port(str digits, uint16_t *port)
{
    unsigned n = 0;
    if (digits.n == 0 || digits.n > 5)
        return false;
    for (size_t i = 0; i < digits.n; i++) {
        if (digits.p[i] < '0' || digits.p[i] > '9')
            return false;
        n = n * 10 + (unsigned)(digits.p[i] - '0');
    }
    *port = (uint16_t)n;
    return n > 0 && n <= 65535;
}

bool resolve_split(str address, str *host, uint16_t *port)
{
    struct sockaddr_storage numeric;
    const char *colon = address.n ? memrchr(address.p, ':', address.n) : NULL;
    if (!colon || !read_port(str_skip(address, (size_t)(colon + 1 - address.p)), port))
        return false;
    str h = str_from(address.p, (size_t)(colon - address.p));
    bool bracketed = h.n > 2 && h.p[0] == '[' && h.p[h.n - 1] == ']';
    if (bracketed)
        h = str_from(h.p + 1, h.n - 2);
    *host = h;
    if (resolve_is_numeric(h, *port, &numeric))
        return !bracketed || numeric.ss_family == AF_INET6;
    return !bracketed && is_name(h);
}

/* ---- answers --------------------------------------------------------------------------------- */

static void free_question(struct question *q)
{
    loop_timer_stop(q->dns->loop, &q->timer);
    list_remove(&q->link);
    free(q);
}

static void give_up(struct question *q)
{
    q->done = NULL;
    q->dns->waiting--;
    loop_timer_stop(q->dns->loop, &q->timer);
    loop_at_turn_end(q->dns->loop, &q->dns->hook);
}

static void answer(struct question *q, err e)
{
    q->result = e;
    loop_timer_stop(q->dns->loop, &q->timer);
    list_remove(&q->link);
    list_push_back(&q->dns->answered, &q->link);
    loop_at_turn_end(q->dns->loop, &q->dns->hook);
}

static void give_answers(struct dns *d)
{
    for (size_t i = 0; i < RESOLVE_QUESTIONS_MAX && !list_empty(&d->answered); i++) {
        struct question *q = list_first(&d->answered, struct question, link);
        list_remove(&q->link);
        q->done(q->ctx, q->result, q->addresses, q->n);
        free_question(q);
    }
    if (!list_empty(&d->answered))
        loop_at_turn_end(d->loop, &d->hook);
}

static err error_of(int status)
{
    switch (status) {
    case ARES_SUCCESS: return ERR_OK;
    case ARES_ENOTFOUND:
    case ARES_ENODATA: return ERR_NOT_FOUND;
    case ARES_EBADNAME: return ERR_BAD;
    default: return ERR_AWAY;
    }
}

static void take_addresses(struct question *q, const struct ares_addrinfo *info)
{
    const struct ares_addrinfo_node *i = info->nodes;
    for (; i && q->n < RESOLVE_ADDRESSES_MAX; i = i->ai_next) {
        struct sockaddr_storage *a = &q->addresses[q->n];
        if ((i->ai_family != AF_INET && i->ai_family != AF_INET6) || i->ai_addrlen > sizeof *a)
            continue;
        memcpy(a, i->ai_addr, i->ai_addrlen);
        set_port(a, q->port);
        q->n++;
    }
}

static void on_answer(void *arg, int status, int timeouts, struct ares_addrinfo *info)
{
    struct question *q = arg;
    q->dns->asked_n--;
    if (!q->done) {
        free_question(q);
    } else {
        q->dns->waiting--;
        if (info)
            take_addresses(q, info);
        err e = error_of(status);
        answer(q, e == ERR_OK && q->n == 0 ? ERR_NOT_FOUND : e);
    }
    if (info)
        ares_freeaddrinfo(info);
}

/* ---- sockets and time ------------------------------------------------------------------------ */

static void free_watch(struct watch *w)
{
    list_remove(&w->link);
    free(w);
}

/* c-ares may have closed the socket, and so w been freed, when it returns. */
static void on_ready(struct op *op, int res)
{
    struct watch *w = container_of(op, struct watch, op);
    struct dns *d = w->dns;
    short ready = res < 0 ? w->polled : (short)res;
    w->polled = 0;
    loop_at_turn_end(d->loop, &d->hook);
    if (w->closed)
        return free_watch(w);
    if (res == -ECANCELED)
        return; /* it is polled for something else */
    int in = ready & ~POLLOUT ? w->fd : ARES_SOCKET_BAD;
    int out = ready & ~POLLIN ? w->fd : ARES_SOCKET_BAD;
    ares_process_fd(d->channel, in, out);
}

static struct watch *find_watch(struct dns *d, int fd)
{
    list_each(w, &d->watches, struct watch, link)
        if (w->fd == fd && !w->closed)
            return w;
    return NULL;
}

static struct watch *new_watch(struct dns *d, int fd)
{
    struct watch *w = calloc(1, sizeof *w);
    must(w);
    w->dns = d, w->fd = fd, w->op.done = on_ready;
    list_push_back(&d->watches, &w->link);
    return w;
}

/* What c-ares waits for on a socket from now on; for nothing: it closes it now. */
static void on_socket(void *ctx, ares_socket_t fd, int readable, int writable)
{
    struct dns *d = ctx;
    struct watch *w = find_watch(d, fd);
    w = w ? w : new_watch(d, fd);
    w->events = (short)((readable ? POLLIN : 0) | (writable ? POLLOUT : 0));
    w->closed = w->events == 0;
    if (w->polled && w->polled != w->events)
        loop_poll_stop(d->loop, &w->op);
    else if (w->closed)
        free_watch(w);
    loop_at_turn_end(d->loop, &d->hook);
}

static void poll_sockets(struct dns *d)
{
    list_each(w, &d->watches, struct watch, link) {
        if (w->polled || w->closed)
            continue;
        w->polled = w->events;
        loop_poll(d->loop, &w->op, w->fd, w->events);
    }
}

static void on_time(struct timer *t)
{
    struct dns *d = container_of(t, struct dns, timer);
    ares_process_fd(d->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    loop_at_turn_end(d->loop, &d->hook);
}

static void set_timer(struct dns *d)
{
    struct timeval most = {.tv_sec = 60}, tv;
    const struct timeval *next = ares_timeout(d->channel, &most, &tv);
    loop_timer_set(d->loop, &d->timer, (uint64_t)(next->tv_sec * 1000 + next->tv_usec / 1000 + 1));
}

/* ---- the channel ----------------------------------------------------------------------------- */

static void close_channel(struct dns *d)
{
    loop_timer_stop(d->loop, &d->timer);
    d->open = false;
    ares_destroy(d->channel); /* frees what is asked, closes the sockets */
    must(list_empty(&d->asked));
}

/* One that cannot be made is one whose servers are away. */
static bool open_channel(struct dns *d)
{
    struct ares_options o = {
        .flags = ARES_FLAG_EDNS | ARES_FLAG_NOALIASES,
        .ednspsz = UDP_MAX,
        .timeout = (int)(d->timeout_ms / 4 + 1), /* of the first try, so that there is a second */
        .tries = TRIES,
        .lookups = (char *)(uintptr_t) "fb",
        .sock_state_cb = on_socket,
        .sock_state_cb_data = d,
    };
    int mask = ARES_OPT_FLAGS | ARES_OPT_EDNSPSZ | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES |
               ARES_OPT_LOOKUPS | ARES_OPT_SOCK_STATE_CB;
    if (ares_init_options(&d->channel, &o, mask) != ARES_SUCCESS)
        return false;
    d->open = true;
    if (!d->servers || ares_set_servers_ports_csv(d->channel, d->servers) == ARES_SUCCESS)
        return true;
    close_channel(d);
    return false;
}

static void on_turn_end(struct turn_hook *h)
{
    struct dns *d = container_of(h, struct dns, hook);
    give_answers(d);
    if (d->open && d->waiting == 0)
        close_channel(d);
    if (!d->open)
        return;
    poll_sockets(d);
    set_timer(d);
}

/* ---- questions ------------------------------------------------------------------------------- */

static void on_too_late(struct timer *t)
{
    struct question *q = container_of(t, struct question, timer);
    resolved_f *done = q->done;
    give_up(q);
    done(q->ctx, ERR_AWAY, NULL, 0);
}

static void ask_dns(struct question *q, const char *name)
{
    struct dns *d = q->dns;
    struct ares_addrinfo_hints hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    if (!d->open && !open_channel(d))
        return answer(q, ERR_AWAY);
    list_push_back(&d->asked, &q->link);
    d->asked_n++, d->waiting++;
    loop_timer_set(d->loop, &q->timer, d->timeout_ms);
    loop_at_turn_end(d->loop, &d->hook);
    ares_getaddrinfo(d->channel, name, NULL, &hints, on_answer, q);
}

static void ask(struct resolver *r, str host, uint16_t port, resolved_f *done, void *ctx)
{
    struct dns *d = dns_of(r);
    char name[RESOLVE_HOST_MAX + 1];
    struct question *q = calloc(1, sizeof *q);
    must(q && !d->stopped);
    q->dns = d, q->done = done, q->ctx = ctx, q->port = port;
    list_init(&q->link);
    timer_init(&q->timer, on_too_late);
    q->n = resolve_is_numeric(host, port, &q->addresses[0]);
    if (q->n)
        answer(q, ERR_OK);
    else if (!is_name(host) || !copy_text(host, name))
        answer(q, ERR_BAD);
    else if (d->asked_n >= RESOLVE_QUESTIONS_MAX)
        answer(q, ERR_FULL);
    else
        ask_dns(q, name);
}

static void forget(struct resolver *r, void *ctx)
{
    struct dns *d = dns_of(r);
    list_each(q, &d->answered, struct question, link)
        if (q->ctx == ctx)
            free_question(q);
    list_each(q, &d->asked, struct question, link)
        if (q->ctx == ctx && q->done)
            give_up(q);
}

static const struct resolver_impl impl = {ask, forget};

/* ---- life ------------------------------------------------------------------------------------ */

struct resolver *resolver_open(struct loop *l, const struct resolver_config *c)
{
    struct dns *d = calloc(1, sizeof *d);
    must(d && c->timeout_ms > 0);
    d->door.impl = &impl;
    d->loop = l, d->timeout_ms = c->timeout_ms;
    d->servers = c->servers ? strdup(c->servers) : NULL;
    list_init(&d->watches);
    list_init(&d->asked);
    list_init(&d->answered);
    timer_init(&d->timer, on_time);
    d->hook = (struct turn_hook){.fn = on_turn_end};
    list_init(&d->hook.link);
    return &d->door;
}

void resolver_stop(struct resolver *r)
{
    struct dns *d = dns_of(r);
    d->stopped = true;
    list_each(q, &d->answered, struct question, link)
        free_question(q);
    list_each(q, &d->asked, struct question, link)
        if (q->done)
            give_up(q);
}

bool resolver_stopped(const struct resolver *r)
{
    const struct dns *d = container_of(r, const struct dns, door);
    return d->stopped && !d->open && list_empty(&d->watches);
}

void resolver_free(struct resolver *r)
{
    struct dns *d = dns_of(r);
    must(resolver_stopped(r));
    list_remove(&d->hook.link);
    free(d->servers);
    free(d);
}
