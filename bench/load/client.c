/* client: see client.h. The login is one step after the other, as on the wire: RFC 6120 4-7. */
#include "bench/load/client.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <unistd.h>

#include "proto/base/base64.h"

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif
enum { PER_SOURCE = 4000, PAIR_SOURCES = 16, OUT_MIN = 512 };

static const struct xml_limits limits = {
    .bytes_max = 1 << 20,
    .depth_max = 64,
    .attributes_max = 64,
    .namespaces_max = 32,
    .name_max = 1024,
    .elements_max = 4096,
    .whitespace_max = 1024,
};

static void fail(struct client *c, const char *why)
{
    if (c->step == CLIENT_FAILED)
        return;
    c->step = CLIENT_FAILED;
    c->rig->calls->failed(c, why);
}

static void start_tls(struct client *c);

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
    if (!c->flying && c->step != CLIENT_FAILED)
        flush(c);
}

static void on_written(struct transport *t)
{
    struct client *c = t->owner;
    if (c->flying_off == c->flying->len) {
        buf_unref(c->flying);
        c->flying = NULL;
    }
    if (c->upgrading)
        start_tls(c);
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

static void put_header(struct client *c)
{
    client_put(c, arena_printf(&c->rig->turn,
                               "<?xml version='1.0'?><stream:stream to='%s' version='1.0' "
                               "xml:lang='en' xmlns='jabber:client' "
                               "xmlns:stream='http://etherx.jabber.org/streams'>",
                               c->rig->host));
    c->step = CLIENT_FEATURES;
}

/* ---- the login ---- */

str client_jid(const struct client *c, struct arena *a)
{
    return arena_printf(a, "%s%u@%s/r%u", c->rig->prefix, c->user, c->rig->host, c->resource);
}

static void begin_sasl(struct client *c)
{
    struct rig *r = c->rig;
    struct arena *a = &c->login;
    arena_init(a);
    struct scram_client *s = c->scram = arena_zalloc(a, sizeof *s);
    s->hash = SCRAM_SHA256;
    s->user = arena_printf(a, "%s%u", r->prefix, c->user);
    s->password = str_of(r->password);
    s->nonce =
        arena_printf(a, "%016llx%016llx", (unsigned long long)entropy_u64(&r->entropy.entropy),
                     (unsigned long long)entropy_u64(&r->entropy.entropy));
    s->salted = &r->salted;
    str first = base64_encode_in(a, scram_client_first(s, a));
    client_put(c, arena_printf(a,
                               "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' "
                               "mechanism='SCRAM-SHA-256'>%.*s</auth>",
                               STR_ARG(first)));
    c->step = CLIENT_CHALLENGE;
}

static void on_features(struct client *c)
{
    if (c->rig->security == SECURITY_STARTTLS && !c->secured) {
        client_put(c, STR("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"));
        c->step = CLIENT_PROCEED;
    } else if (!c->authenticated) {
        begin_sasl(c);
    } else {
        client_put(c, arena_printf(&c->rig->turn,
                                   "<iq type='set' id='bind'><bind "
                                   "xmlns='urn:ietf:params:xml:ns:xmpp-bind'>"
                                   "<resource>r%u</resource></bind></iq>",
                                   c->resource));
        c->step = CLIENT_BIND;
    }
}

static void on_challenge(struct client *c, str item, struct arena *turn)
{
    struct arena *a = &c->login;
    struct xml_el el = xml_root(item, STR("jabber:client"), turn);
    str challenge, answer;
    if (base64_decode_in(a, xml_text(&el, turn), &challenge) != ERR_OK ||
        scram_client_final(c->scram, challenge, a, &answer) != ERR_OK)
        return fail(c, "bad SASL challenge");
    client_put(c, arena_printf(a,
                               "<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>%.*s"
                               "</response>",
                               STR_ARG(base64_encode_in(a, answer))));
    c->step = CLIENT_SUCCESS;
}

static void on_success(struct client *c, str item, struct arena *turn)
{
    struct xml_el el = xml_root(item, STR("jabber:client"), turn);
    str final;
    if (base64_decode_in(&c->login, xml_text(&el, turn), &final) != ERR_OK ||
        !scram_client_verify(c->scram, final))
        return fail(c, "the server has not proven itself");
    arena_close(&c->login);
    c->scram = NULL, c->authenticated = true;
    put_header(c);
}

static void become_ready(struct client *c)
{
    c->step = CLIENT_READY;
    c->rig->calls->ready(c);
}

static void on_enabled(struct client *c)
{
    c->handled = 0;
    if (!c->rig->presence)
        return become_ready(c);
    client_put(c, STR("<iq type='get' id='roster'><query xmlns='jabber:iq:roster'/></iq>"));
    c->step = CLIENT_ROSTER;
}

static void on_bound(struct client *c)
{
    if (!c->rig->sm) {
        on_enabled(c);
        return;
    }
    client_put(c, STR("<enable xmlns='urn:xmpp:sm:3' resume='true'/>"));
    c->step = CLIENT_ENABLED;
}

/* Its own presence comes back to it (RFC 6121 4.2.2): then the server has done its part. */
static void on_roster(struct client *c)
{
    client_put(c, STR("<presence/>"));
    c->step = CLIENT_PRESENCE;
}

/* <starttls/> may not be known as written yet, and nothing may be in flight below TLS. */
static void on_proceed(struct client *c)
{
    c->step = CLIENT_TLS;
    c->upgrading = c->flying != NULL;
    if (!c->upgrading)
        start_tls(c);
}

static void on_element(struct client *c, str item, const struct xml_index *x)
{
    str name = str_from(item.p + x->name_off, x->name_len);
    struct arena *a = &c->rig->turn;
    if (x->ns == NS_SM && str_is(name, "r"))
        return client_put(c, arena_printf(a, "<a xmlns='urn:xmpp:sm:3' h='%u'/>", c->handled));
    c->handled += x->ns == NS_CLIENT;
    if (c->step == CLIENT_READY)
        return c->rig->calls->stanza(c, item, x);
    if (c->step == CLIENT_FEATURES && str_is(name, "features"))
        return on_features(c);
    if (c->step == CLIENT_PROCEED && str_is(name, "proceed"))
        return on_proceed(c);
    if (c->step == CLIENT_CHALLENGE && str_is(name, "challenge"))
        return on_challenge(c, item, a);
    if (c->step == CLIENT_SUCCESS && str_is(name, "success"))
        return on_success(c, item, a);
    if (c->step == CLIENT_ENABLED && str_is(name, "enabled"))
        return on_enabled(c);
    bool result = str_is(name, "iq") && x->type.off &&
                  str_is(str_from(item.p + x->type.off, x->type.len), "result");
    if (c->step == CLIENT_BIND && result)
        return on_bound(c);
    if (c->step == CLIENT_ROSTER && result)
        return on_roster(c);
    if (c->step == CLIENT_PRESENCE && str_is(name, "presence"))
        return become_ready(c);
    /* Others' presence may be quicker. */
    if (c->step != CLIENT_ROSTER && c->step != CLIENT_PRESENCE)
        fail(c, item.n < 512 ? arena_printf(a, "unexpected: %.*s", STR_ARG(item)).p : "unexpected");
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
        return fail(c, "bad XML from the server"), 0;
    if (what == XML_HEADER && !r->has_header)
        r->has_header = xml_header_read(r->scan, str_from(in.p, used), &r->header) == ERR_OK;
    else if (what == XML_CLOSE)
        return fail(c, "the server closed the stream"), 0;
    else if (what == XML_ELEMENT)
        on_element(c, str_from(in.p, used), x);
    return used;
}

static size_t feed(struct client *c, str in)
{
    size_t taken = 0, n;
    while (taken < in.n && c->step < CLIENT_FAILED && c->step != CLIENT_TLS &&
           (n = feed_one(c, str_skip(in, taken))))
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
    if (taken < in.n && c->step < CLIENT_FAILED && c->step != CLIENT_TLS)
        carry_put(c, str_skip(in, taken));
    buf_unref(whole);
}

/* ---- the transport ---- */

static void on_opened(struct transport *t)
{
    struct client *c = t->owner;
    c->secured = true;
    put_header(c);
}

static void on_ended(struct transport *t)
{
    struct client *c = t->owner;
    fail(c, "the server closed the connection");
    transport_close(t, false);
}

static void on_closed(struct transport *t, err reason)
{
    struct client *c = t->owner;
    c->transport = NULL;
    fail(c, err_row(reason)->text);
    transport_free(t);
}

static const struct transport_sink sink = {on_opened, on_bytes, on_written, on_ended, on_closed};

static void start_tls(struct client *c)
{
    struct tls_client_options o = {.sni = str_of(c->rig->host)};
    if (c->rig->security == SECURITY_TLS)
        o.alpn = STR("xmpp-client");
    c->step = CLIENT_TLS, c->upgrading = false;
    c->transport = tls_client_open(c->rig->tls, c->transport, &o);
    c->transport->sink = &sink, c->transport->owner = c;
}

static int connect_from(unsigned index, const struct rig *r)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    uint32_t address = 0x7f000002 + (index / 2 % PAIR_SOURCES << 8) + index / PER_SOURCE;
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(address)};
    if (fd < 0)
        return -1;
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&from, sizeof from) < 0 ||
        connect(fd, (const struct sockaddr *)&r->server, r->server_len) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

void client_open(struct client *c, struct rig *r, unsigned index, unsigned user, unsigned resource)
{
    *c = (struct client){.rig = r,
                         .index = index,
                         .user = user,
                         .resource = resource,
                         .owner = c->owner,
                         .hook = {.fn = on_turn_end}};
    list_init(&c->hook.link);
    int fd = connect_from(index, r);
    if (fd < 0)
        return fail(c, strerror(errno));
    c->transport = sock_transport_open(r->loop, fd, NULL, &sink, c);
    if (r->security == SECURITY_TLS)
        start_tls(c);
    else
        put_header(c);
}
