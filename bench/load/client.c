/* client: bytes in and out, and the life of connections; see client.h. */
#include "bench/load/client.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif
enum { OUT_MIN = 512 };

static const struct xml_limits limits = {
    .bytes_max = 1 << 20,
    .depth_max = 64,
    .attributes_max = 64,
    .namespaces_max = 32,
    .name_max = 1024,
    .elements_max = 4096,
    .whitespace_max = 1024,
};

uint64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* ---- husks: a transport that its client has left, with the bytes that it may still be sending ---
 */

struct husk {
    struct buf *flying;
};

static void on_husk_opened(struct transport *t) {}
static void on_husk_bytes(struct transport *t, const char *p, size_t n) {}
static void on_husk_closed(struct transport *t, err reason)
{
    struct husk *h = t->owner;
    buf_unref(h->flying);
    free(h);
    transport_free(t);
}

static const struct transport_sink husk_sink = {on_husk_opened, on_husk_bytes, on_husk_opened,
                                                on_husk_opened, on_husk_closed};

static void leave_transport(struct client *c)
{
    struct husk *h = malloc(sizeof *h);
    must(h);
    h->flying = c->flying, c->flying = NULL;
    if (c->rig->tickets && c->secured) {
        struct tls_session *newest = tls_client_session(c->transport);
        if (newest) {
            tls_session_free(c->ticket);
            c->ticket = newest;
        }
    }
    c->transport->sink = &husk_sink, c->transport->owner = h;
    transport_close(c->transport, false);
    c->transport = NULL;
}

static void reset(struct client *c)
{
    if (c->transport)
        leave_transport(c);
    buf_unref(c->flying);
    buf_unref(c->out);
    buf_unref(c->carry);
    c->flying = c->out = c->carry = NULL;
    list_remove(&c->hook.link);
    client_drop_login(c);
    c->secured = c->authenticated = c->upgrading = c->enabled = c->asked = c->paused = false;
}

void client_fail(struct client *c, const char *why)
{
    if (c->step >= CLIENT_FAILED)
        return;
    reset(c);
    c->step = CLIENT_FAILED;
    c->rig->calls->failed(c, why);
}

static void become_closed(struct client *c)
{
    reset(c);
    c->step = CLIENT_CLOSED;
    c->rig->calls->closed(c);
}

/* ---- out ---- */

static void flush(struct client *c)
{
    if (!c->flying) {
        if (!c->out || !c->transport)
            return;
        c->flying = c->out, c->flying_off = 0;
        c->out = NULL;
    }
    struct iovec v = {c->flying->data + c->flying_off, c->flying->len - c->flying_off};
    c->flying_off += transport_write(c->transport, &v, 1);
}

static void on_turn_end(struct turn_hook *h)
{
    struct client *c = container_of(h, struct client, hook);
    if (c->rig->keep)
        kept_ask(c);
    if (!c->flying && c->step < CLIENT_FAILED)
        flush(c);
}

static void on_written(struct transport *t)
{
    struct client *c = t->owner;
    if (c->flying && c->flying_off == c->flying->len) {
        buf_unref(c->flying);
        c->flying = NULL;
    }
    if (c->upgrading)
        client_start_tls(c);
    else if (c->flying)
        flush(c);
    else
        loop_at_turn_end(c->rig->loop, &c->hook);
}

void client_put(struct client *c, str xml)
{
    struct buf *b = c->out;
    if (!b || b->cap - b->len < xml.n) {
        uint32_t have = b ? b->len : 0;
        struct buf *more = buf_new((uint32_t)(2 * (have + xml.n) + OUT_MIN));
        if (have)
            memcpy(more->data, b->data, have);
        more->len = have;
        buf_unref(b);
        c->out = b = more;
    }
    memcpy(b->data + b->len, xml.p, xml.n);
    b->len += (uint32_t)xml.n;
    loop_at_turn_end(c->rig->loop, &c->hook);
}

void client_send(struct client *c, str stanza)
{
    if (c->rig->keep)
        kept_put(c, stanza);
    if (c->step == CLIENT_READY)
        client_put(c, stanza);
}

/* ---- in ---- */

/* The bytes of one item; 0: more are needed, or it failed. */
static size_t feed_one(struct client *c, str in)
{
    struct rig *r = c->rig;
    bool header = c->step == CLIENT_FEATURES && in.n > 1 && (in.p[1] == '?' || in.p[1] == 's') &&
                  !str_starts(in, STR("<stream:features"));
    enum xml_item what = XML_NONE;
    const struct xml_index *x = NULL;
    size_t used = 0;
    xml_scan_begin(r->scan, &limits, header ? NULL : &r->header);
    err e = xml_scan(r->scan, in, header ? XML_EXPECT_START : XML_EXPECT_ELEMENT, &what, &used, &x);
    if (e == ERR_PARTIAL)
        return 0;
    if (e != ERR_OK)
        return client_fail(c, "bad XML from the server"), 0;
    if (what == XML_HEADER && !r->has_header)
        r->has_header = xml_header_read(r->scan, str_from(in.p, used), &r->header) == ERR_OK;
    else if (what == XML_CLOSE && c->step == CLIENT_CLOSING)
        return become_closed(c), 0;
    else if (what == XML_CLOSE)
        return client_fail(c, "the server closed the stream"), 0;
    else if (what == XML_ELEMENT)
        client_element(c, str_from(in.p, used), x);
    return used;
}

static bool may_feed(const struct client *c)
{
    return c->transport && c->step < CLIENT_FAILED && c->step != CLIENT_TLS;
}

static size_t feed(struct client *c, str in)
{
    size_t taken = 0, n;
    while (taken < in.n && may_feed(c) && (n = feed_one(c, str_skip(in, taken))))
        taken += n;
    return taken;
}

static void carry_put(struct client *c, str in)
{
    struct buf *old = c->carry;
    uint32_t have = old ? old->len : 0;
    if (!old || old->cap - have < in.n) {
        c->carry = buf_new((uint32_t)(2 * (have + in.n)));
        if (have)
            memcpy(c->carry->data, old->data, have);
        buf_unref(old);
    }
    memcpy(c->carry->data + have, in.p, in.n);
    c->carry->len = have + (uint32_t)in.n;
}

static void on_bytes(struct transport *t, const char *p, size_t n)
{
    struct client *c = t->owner;
    str in = str_from(p, n);
    struct buf *whole = NULL;
    if (c->carry) {
        carry_put(c, in);
        whole = c->carry, c->carry = NULL;
        in = str_from(whole->data, whole->len);
    }
    size_t taken = feed(c, in);
    if (taken < in.n && may_feed(c))
        carry_put(c, str_skip(in, taken));
    buf_unref(whole);
}

/* ---- the transport ---- */

static void on_opened(struct transport *t)
{
    struct client *c = t->owner;
    struct transport_info info;
    transport_info(t, &info);
    c->secured = true, c->tls_resumed = info.resumed;
    client_header(c);
}

static void on_ended(struct transport *t)
{
    struct client *c = t->owner;
    if (c->step == CLIENT_CLOSING)
        become_closed(c);
    else
        client_fail(c, "the server closed the connection");
}

static void on_closed(struct transport *t, err reason)
{
    struct client *c = t->owner;
    c->transport = NULL;
    transport_free(t);
    if (c->step == CLIENT_CLOSING)
        become_closed(c);
    else
        client_fail(c, err_row(reason)->text);
}

static const struct transport_sink sink = {on_opened, on_bytes, on_written, on_ended, on_closed};

void client_start_tls(struct client *c)
{
    struct tls_client_options o = {.sni = str_of(c->rig->host), .resume = c->ticket};
    if (c->rig->security == SECURITY_TLS)
        o.alpn = STR("xmpp-client");
    c->step = CLIENT_TLS, c->upgrading = false;
    c->transport = tls_client_open(c->rig->tls, c->transport, &o);
    c->transport->sink = &sink, c->transport->owner = c;
}

/* ---- connecting: never blocking, or a full accept queue would stop everybody ---- */

static void on_connected(struct op *op, int res)
{
    struct client *c = container_of(op, struct client, connecting);
    int error = 0;
    socklen_t n = sizeof error;
    if (res < 0 || getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &n) < 0 || error) {
        close(c->fd);
        return client_fail(c, strerror(error ? error : res < 0 ? -res : errno));
    }
    fcntl(c->fd, F_SETFL, fcntl(c->fd, F_GETFL) & ~O_NONBLOCK);
    c->transport = sock_transport_open(c->rig->loop, c->fd, NULL, &sink, c);
    if (c->rig->security == SECURITY_TLS)
        client_start_tls(c);
    else
        client_header(c);
}

static int connect_to(const struct sockaddr_in *server, uint32_t source)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), on = 1;
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(source)};
    if (fd < 0)
        return -1;
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&from, sizeof from) < 0 ||
        (connect(fd, (const struct sockaddr *)server, sizeof *server) < 0 &&
         errno != EINPROGRESS)) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

void client_init(struct client *c, struct rig *r, unsigned index, unsigned unit, unsigned user,
                 unsigned resource)
{
    *c = (struct client){.rig = r,
                         .index = index,
                         .unit = unit,
                         .user = user,
                         .resource = resource,
                         .fd = -1,
                         .connecting = {.done = on_connected},
                         .hook = {.fn = on_turn_end}};
    list_init(&c->hook.link);
    list_init(&c->kept);
}

/* Each begins at the server of its index; then the others follow in turn, and again from there.
 * With which of the others differs from client to client: those of a server that has died share
 * them. */
static unsigned server_next(struct client *c)
{
    unsigned n = c->rig->servers_n, turn = c->tried++ % n;
    return (c->index + (turn ? 1 + (turn - 1 + c->index / n) % (n - 1) : 0)) % n;
}

void client_open(struct client *c)
{
    must(c->step != CLIENT_CONNECT);
    reset(c);
    c->step = CLIENT_CONNECT;
    c->resumed = c->tls_resumed = false;
    c->began_us = now_us();
    const struct rig *r = c->rig;
    c->server = server_next(c);
    c->fd = connect_to(&r->servers[c->server], source_of(&r->sources, c->index, c->unit));
    if (c->fd < 0)
        return client_fail(c, strerror(errno));
    loop_poll(c->rig->loop, &c->connecting, c->fd, POLLOUT);
}

/* ---- the end of a connection ---- */

/* connect(2) to nowhere is the way to send RST although the transport's close sends FIN. */
void client_cut(struct client *c)
{
    static const struct sockaddr nowhere = {.sa_family = AF_UNSPEC};
    must(c->step != CLIENT_CONNECT);
    if (c->transport && connect(c->fd, &nowhere, sizeof nowhere) < 0)
        must(errno != EBADF);
    reset(c);
    c->step = CLIENT_NEW;
}

void client_forget(struct client *c)
{
    c->sm_id[0] = 0, c->handled = 0;
    kept_drop(c);
}

void client_close(struct client *c)
{
    must(c->step == CLIENT_READY);
    if (c->paused)
        client_resume(c);
    if (c->enabled)
        client_put(c, arena_printf(&c->rig->turn, "<a xmlns='urn:xmpp:sm:3' h='%u'/>", c->handled));
    client_put(c, STR("</stream:stream>"));
    c->step = CLIENT_CLOSING;
}

void client_pause(struct client *c)
{
    c->paused = true;
    transport_pause(c->transport);
}

void client_resume(struct client *c)
{
    c->paused = false;
    transport_resume(c->transport);
}
