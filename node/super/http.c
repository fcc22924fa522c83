#include "node/super/http.h"

#include <errno.h>
#include <http_parser.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "node/super/exposition.h"
#include "node/super/health.h"
#include "node/super/inside.h"
#include "node/super/page.h"

enum { HEAD_MAX = 8192, PATH_MAX_BYTES = 256, ACCEPT_MAX = 512 };

struct http_client {
    struct http *http;
    int fd; /* -1: free */
    int64_t until_ms;
    http_parser parser;
    size_t read;  /* bytes of the request */
    bool allowed; /* by listen.metrics.allow_from */
    bool complete, wants_accept;
    char path[PATH_MAX_BYTES], accept[ACCEPT_MAX], field[16];
    size_t path_n, accept_n, field_n;
    char *out; /* the answer; NULL: not yet */
    size_t out_n, out_at;
};

struct http {
    struct super *super;
    struct listener listener[HTTP_LISTENERS_MAX];
    unsigned listeners;
    struct http_client client[HTTP_CLIENTS_MAX];
};

/* ---- parsing: http_parser's callbacks; a non-zero return ends the parse ---------------------- */

static int append(char *to, size_t *n, size_t max, const char *p, size_t len)
{
    if (len > max - *n)
        return 1;
    memcpy(to + *n, p, len);
    *n += len;
    return 0;
}

static int on_url(http_parser *p, const char *at, size_t n)
{
    struct http_client *c = p->data;
    return append(c->path, &c->path_n, sizeof c->path, at, n);
}

static int on_field(http_parser *p, const char *at, size_t n)
{
    struct http_client *c = p->data;
    if (c->wants_accept || c->field_n == sizeof c->field)
        c->field_n = 0; /* a value came, or the name is longer than any we know */
    c->wants_accept = false;
    if (append(c->field, &c->field_n, sizeof c->field, at, n))
        c->field_n = sizeof c->field;
    return 0;
}

static int on_value(http_parser *p, const char *at, size_t n)
{
    struct http_client *c = p->data;
    bool is_accept = c->field_n == 6 && strncasecmp(c->field, "accept", 6) == 0;
    c->wants_accept = true; /* the next name starts anew */
    if (is_accept && append(c->accept, &c->accept_n, sizeof c->accept, at, n))
        c->accept_n = 0; /* an Accept that long asks for nothing in particular */
    return 0;
}

static int on_complete(http_parser *p)
{
    struct http_client *c = p->data;
    c->complete = true;
    return 0;
}

static const http_parser_settings settings = {
    .on_url = on_url,
    .on_header_field = on_field,
    .on_header_value = on_value,
    .on_message_complete = on_complete,
};

/* ---- answers --------------------------------------------------------------------------------- */

static const char *reason_of(unsigned status)
{
    switch (status) {
    case 200: return "OK";
    case 400: return "Bad Request";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 431: return "Request Header Fields Too Large";
    default: return "Service Unavailable";
    }
}

static struct http_answer text_answer(unsigned status, str body)
{
    return (struct http_answer){status, "text/plain; charset=utf-8", body};
}

struct http_answer http_route(struct super *s, str method, str path, str accept, struct arena *a)
{
    if (!str_is(method, "GET") && !str_is(method, "HEAD"))
        return text_answer(405, STR("only GET and HEAD\n"));
    const char *query = memchr(path.p, '?', path.n);
    str asked = query ? str_skip(path, (size_t)(query - path.p) + 1) : STR("");
    str page_path = query ? (str){path.p, (size_t)(query - path.p)} : path;
    if (str_is(page_path, "/metrics"))
        return exposition(s, memmem(accept.p, accept.n, "openmetrics", 11) != NULL, a);
    if (str_is(page_path, "/livez"))
        return health_live(s, str_is(asked, "json"), a);
    if (str_is(page_path, "/readyz"))
        return health_ready(s, str_is(asked, "json"), a);
    if (str_is(page_path, "/status.json"))
        return (struct http_answer){200, "application/json", status_json(s, a)};
    if (str_is(page_path, "/"))
        return page(s, str_is(asked, "live"), a);
    return text_answer(404, STR("/ /metrics /livez /readyz /status.json\n"));
}

static void put_answer(struct http_client *c, const struct http_answer *r, bool with_body)
{
    size_t room = 1024 + r->body.n;
    c->out = malloc(room);
    must(c->out);
    int n = snprintf(c->out, room,
                     "HTTP/1.1 %u %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n%s"
                     "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
                     "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; "
                     "script-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'\r\n"
                     "Connection: close\r\n\r\n",
                     r->status, reason_of(r->status), r->type, r->body.n,
                     r->status == 405 ? "Allow: GET, HEAD\r\n" : "");
    c->out_n = (size_t)n;
    if (with_body && r->body.n) {
        memcpy(c->out + c->out_n, r->body.p, r->body.n);
        c->out_n += r->body.n;
    }
}

static void answer_request(struct http_client *c)
{
    struct arena a;
    arena_init(&a);
    str method = str_of(http_method_str((enum http_method)c->parser.method));
    struct http_answer r =
        c->allowed ? http_route(c->http->super, method, (str){c->path, c->path_n},
                                (str){c->accept, c->accept_n}, &a)
                   : text_answer(403, STR("not from here: listen.metrics.allow_from\n"));
    put_answer(c, &r, !str_is(method, "HEAD"));
    arena_close(&a);
}

static void refuse(struct http_client *c, unsigned status)
{
    struct http_answer r = text_answer(status, STR("not a request that this server takes\n"));
    put_answer(c, &r, true);
}

/* ---- connections ----------------------------------------------------------------------------- */

static void close_client(struct http_client *c)
{
    close(c->fd);
    free(c->out);
    *c = (struct http_client){.http = c->http, .fd = -1};
}

static void write_answer(struct http_client *c)
{
    while (c->out_at < c->out_n) {
        ssize_t n = send(c->fd, c->out + c->out_at, c->out_n - c->out_at, MSG_NOSIGNAL);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n < 0) {
            close_client(c);
            return;
        }
        c->out_at += (size_t)n;
    }
    shutdown(c->fd, SHUT_WR);
    close_client(c);
}

static void read_request(struct http_client *c)
{
    char buffer[4096];
    ssize_t n = recv(c->fd, buffer, sizeof buffer, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        close_client(c);
        return;
    }
    c->read += (size_t)n;
    size_t used = http_parser_execute(&c->parser, &settings, buffer, (size_t)n);
    if (c->read > HEAD_MAX)
        refuse(c, 431);
    else if (c->complete)
        answer_request(c);
    else if (used != (size_t)n || c->parser.upgrade)
        refuse(c, 400);
    if (c->out)
        write_answer(c);
}

static struct http_client *free_client(struct http *h)
{
    for (unsigned i = 0; i < HTTP_CLIENTS_MAX; i++)
        if (h->client[i].fd < 0)
            return &h->client[i];
    return NULL;
}

static void accept_client(struct http *h, int listener)
{
    struct sockaddr_storage address;
    socklen_t n = sizeof address;
    int fd = accept4(listener, (struct sockaddr *)&address, &n, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    struct http_client *c = free_client(h);
    if (!c) {
        close(fd);
        return;
    }
    const struct conf *conf = h->super->conf;
    c->fd = fd;
    c->until_ms = h->super->now_ms + HTTP_TIME_MS;
    c->allowed =
        conf_net_contains(conf, conf->listen_metrics_allow_from, (const struct sockaddr *)&address);
    http_parser_init(&c->parser, HTTP_REQUEST);
    c->parser.data = c;
}

void http_fds(const struct http *h, struct pollfd *p)
{
    for (unsigned i = 0; i < HTTP_LISTENERS_MAX; i++)
        p[i] =
            (struct pollfd){.fd = i < h->listeners ? h->listener[i].fd[0] : -1, .events = POLLIN};
    p += HTTP_LISTENERS_MAX;
    for (unsigned i = 0; i < HTTP_CLIENTS_MAX; i++)
        p[i] =
            (struct pollfd){.fd = h->client[i].fd, .events = h->client[i].out ? POLLOUT : POLLIN};
}

void http_turn(struct http *h, const struct pollfd *p)
{
    for (unsigned i = 0; i < HTTP_CLIENTS_MAX; i++) {
        struct http_client *c = &h->client[i];
        if (!p[HTTP_LISTENERS_MAX + i].revents || c->fd < 0)
            continue;
        if (c->out)
            write_answer(c);
        else
            read_request(c);
    }
    for (unsigned i = 0; i < h->listeners; i++)
        if (p[i].revents)
            accept_client(h, h->listener[i].fd[0]);
}

void http_tick(struct http *h)
{
    for (unsigned i = 0; i < HTTP_CLIENTS_MAX; i++)
        if (h->client[i].fd >= 0 && h->super->now_ms >= h->client[i].until_ms)
            close_client(&h->client[i]);
}

/* ---- life ------------------------------------------------------------------------------------ */

err http_open(struct super *s, struct http **out, struct arena *a, str *problem)
{
    struct http *h = calloc(1, sizeof *h);
    must(h);
    h->super = s;
    for (unsigned i = 0; i < HTTP_CLIENTS_MAX; i++)
        h->client[i] = (struct http_client){.http = h, .fd = -1};
    struct conf_list addresses = s->conf->listen_metrics_address;
    for (uint32_t i = 0; i < addresses.count && i < HTTP_LISTENERS_MAX; i++) {
        struct listener *l = &h->listener[h->listeners];
        *l = (struct listener){.address = conf_list_at(s->conf, addresses, i), .backlog = 64};
        err e = listener_open(l, 1, a, problem);
        if (e) {
            http_close(h);
            return e;
        }
        h->listeners++;
        if (listener_start(l, 1)) {
            *problem = listener_complaint(l->address, errno, STR(""), a);
            http_close(h);
            return ERR_IO;
        }
    }
    *out = h;
    return ERR_OK;
}

void http_close(struct http *h)
{
    if (!h)
        return;
    for (unsigned i = 0; i < HTTP_CLIENTS_MAX; i++)
        if (h->client[i].fd >= 0)
            close_client(&h->client[i]);
    for (unsigned i = 0; i < h->listeners; i++)
        listener_close(&h->listener[i], 1);
    free(h);
}
