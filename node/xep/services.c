/* XEP-0215: STUN and TURN services, with credentials for a time that a TURN server checks by itself
 * (draft-uberti-behave-turn-rest): username = when they end, password = HMAC-SHA-1 of it with the
 * secret that both know. They are for our own users: to anybody else nothing is told. */
#include <fcntl.h>
#include <unistd.h>

#include "node/conf/conf.h"
#include "node/xep/xep.h"
#include "proto/base/base64.h"
#include "proto/sasl/scram.h"

#define NS "urn:xmpp:extdisco:2"
enum { SECRET_MAX = 256 };

struct credentials {
    str username, password, expires; /* username empty: none are needed */
    bool missing;                    /* they are, and cannot be made */
};

static bool is_relay(const struct conf_service *s) { return str_starts(s->type, STR("turn")); }

/* The first line. n 0: it cannot be read. */
static str read_secret(const char *path, char buffer[SECRET_MAX])
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    ssize_t n = fd < 0 ? -1 : read(fd, buffer, SECRET_MAX);
    if (fd >= 0)
        close(fd);
    const char *end = n > 0 ? memchr(buffer, '\n', (size_t)n) : NULL;
    size_t length = end ? (size_t)(end - buffer) : n > 0 ? (size_t)n : 0;
    while (length && buffer[length - 1] == '\r')
        length--;
    return str_from(buffer, length);
}

static struct credentials credentials_for(const struct iq *q)
{
    struct credentials c = {.missing = false};
    const struct conf *conf = q->node->conf;
    if (!q->host->services_secret_file.n)
        return c;
    char buffer[SECRET_MAX];
    unsigned char mac[SCRAM_DIGEST_MAX];
    str secret = read_secret(conf_path(conf, q->host->services_secret_file, q->arena).p, buffer);
    c.missing = !secret.n;
    if (c.missing)
        return c;
    int64_t end_us = clock_wall_us(q->node->clock) + q->host->services_lifetime * 1000;
    int64_t end_s = end_us / 1000000;
    c.username = arena_printf(q->arena, "%lld", (long long)end_s);
    scram_hmac(SCRAM_SHA1, secret, &c.username, 1, mac);
    c.password = base64_encode_in(q->arena, str_from(mac, scram_hash_size(SCRAM_SHA1)));
    c.expires = stanza_stamp(end_s * 1000000, q->arena);
    scram_wipe(buffer, sizeof buffer);
    return c;
}

static void put_service(struct xml_writer *w, const struct conf_service *s,
                        const struct credentials *c)
{
    xml_open(w, "service");
    xml_put_attr(w, "type", s->type);
    xml_put_attr(w, "host", s->host);
    xml_put_attr_u64(w, "port", s->port);
    if (s->transport.n)
        xml_put_attr(w, "transport", s->transport);
    if (is_relay(s) && c->username.n) {
        xml_put_attr(w, "restricted", STR("true"));
        xml_put_attr(w, "username", c->username);
        xml_put_attr(w, "password", c->password);
        xml_put_attr(w, "expires", c->expires);
    }
    xml_close(w, "service");
}

/* Which are asked for: by type, by host and port. Empty, 0: any. */
struct wish {
    str type, host, port;
};

static bool is_wished(const struct conf_service *s, const struct wish *wish, struct arena *a)
{
    return (!wish->type.n || str_eq(wish->type, s->type)) &&
           (!wish->host.n || str_eq(wish->host, s->host)) &&
           (!wish->port.n || str_eq(wish->port, arena_printf(a, "%u", s->port)));
}

/* How many; those that need what cannot be made are left out. */
static unsigned put_services(struct xml_writer *w, const struct iq *q, const struct wish *wish,
                             bool relays_only)
{
    struct credentials c = credentials_for(q);
    struct conf_list all = q->host->services;
    unsigned n = 0;
    for (uint32_t i = 0; i < all.count; i++) {
        struct conf_service s;
        must(conf_service_parse(conf_list_at(q->node->conf, all, i), &s));
        bool fit = is_wished(&s, wish, q->arena) && (!relays_only || is_relay(&s));
        if (!fit || (is_relay(&s) && c.missing))
            continue;
        put_service(w, &s, &c);
        n++;
    }
    return n;
}

static void get_services(struct iq *q)
{
    struct wish wish = {.type = xml_attr(&q->payload, "type", q->arena)};
    struct xml_writer w;
    xml_writer_init(&w, q->arena);
    xml_open_ns(&w, "services", NS);
    if (wish.type.n)
        xml_put_attr(&w, "type", wish.type);
    put_services(&w, q, &wish, false);
    xml_close(&w, "services");
    iq_result(q, xml_written(&w));
}

/* 3.3 */
static void get_credentials(struct iq *q)
{
    struct xml_el asked;
    if (!xml_find(&q->payload, NS, "service", &asked, q->arena) ||
        !xml_attr(&asked, "host", q->arena).n || !xml_attr(&asked, "type", q->arena).n) {
        iq_error(q, ERR_STANZA_BAD_REQUEST);
        return;
    }
    struct wish wish = {.type = xml_attr(&asked, "type", q->arena),
                        .host = xml_attr(&asked, "host", q->arena),
                        .port = xml_attr(&asked, "port", q->arena)};
    struct xml_writer w;
    xml_writer_init(&w, q->arena);
    xml_open_ns(&w, "credentials", NS);
    unsigned n = put_services(&w, q, &wish, true);
    xml_close(&w, "credentials");
    if (n)
        iq_result(q, xml_written(&w));
    else
        iq_error(q, ERR_STANZA_ITEM_NOT_FOUND);
}

static void get(struct iq *q)
{
    if (!str_eq(q->asker.domain, conf_text(q->node->conf, q->host->domain)))
        iq_error(q, ERR_STANZA_FORBIDDEN);
    else if (xml_is(&q->payload, NS, "services"))
        get_services(q);
    else if (xml_is(&q->payload, NS, "credentials"))
        get_credentials(q);
    else
        iq_error(q, ERR_STANZA_BAD_REQUEST);
}

static const struct xep_iq iqs[] = {
    {NS, IQ_SERVER | IQ_OWN_ACCOUNT, get, NULL},
    {NULL, 0, NULL, NULL},
};
static const char *const features[] = {NS, NULL};
const struct xep xep_services = {
    .name = "services", .server = features, .account = features, .iqs = iqs};
