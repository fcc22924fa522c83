/* proxied: see proxied.h. Nearly every header comes in one piece and needs no memory; of one that
 * is cut the bytes so far are kept and read again with the next ones (PROXY_HEADER_MAX bounds it).
 */
#include "node/edge/proxied.h"

#include <netinet/in.h>
#include <stdlib.h>

#include "node/os/os.h"
#include "proto/proxy/proxy.h"

struct proxied {
    struct edge *edge;
    struct transport *transport;
    struct list link;
    struct timer timer;
    uint64_t opened_ms;
    char *carry; /* PROXY_HEADER_MAX bytes, or NULL */
    size_t carry_n;
    enum listener_kind kind;
    bool ending;
};

static void count(struct edge *e, int n)
{
    e->conn_count += (size_t)n, e->preauth_count += (size_t)n;
    metric_add(e->node->metrics, METRIC_connections_preauth, n);
}

static void forget(struct proxied *p)
{
    loop_timer_stop(p->edge->node->loop, &p->timer);
    list_remove(&p->link);
    count(p->edge, -1);
    free(p->carry);
    free(p);
}

static void address_of(const struct proxied *p, struct sockaddr_storage *out)
{
    struct transport_info info;
    transport_info(p->transport, &info);
    *out = info.address;
}

static void drop(struct proxied *p)
{
    p->ending = true;
    transport_close(p->transport, false);
}

static void reject(struct proxied *p, const char *problem)
{
    struct node *n = p->edge->node;
    struct sockaddr_storage address;
    address_of(p, &address);
    metric_add(n->metrics, METRIC_AT(proxy_rejected, p->kind, 0), 1);
    LOG(n->log, proxy_rejected, F_ADDR("address", &address), F_STR("problem", str_of(problem)));
    drop(p);
}

/* ---- the header ------------------------------------------------------------------------------ */

static bool is_this_machine(const struct sockaddr_storage *a)
{
    const struct sockaddr_in *v4 = (const void *)a;
    const struct sockaddr_in6 *v6 = (const void *)a;
    if (a->ss_family == AF_INET) {
        uint32_t net = ntohl(v4->sin_addr.s_addr) >> 24;
        return net == IN_LOOPBACKNET || net == 0;
    }
    return a->ss_family == AF_INET6 &&
           (IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr) || IN6_IS_ADDR_UNSPECIFIED(&v6->sin6_addr));
}

static struct listen_peer peer_of(const struct proxied *p, struct proxy_header *h)
{
    struct sockaddr_storage balancer;
    address_of(p, &balancer);
    if (!h->claims)
        return (struct listen_peer){balancer, true};
    listen_unmap(&h->source);
    bool elsewhere = is_this_machine(&h->source) && !is_this_machine(&balancer);
    return (struct listen_peer){h->source, elsewhere};
}

/* rest: what came behind the header, TLS's or the stream's. */
static void go_on(struct proxied *p, struct proxy_header *h, str rest)
{
    struct edge *e = p->edge;
    struct transport *t = p->transport;
    struct throttle_entry *entry;
    struct listen_peer peer = peer_of(p, h);
    enum listen_refusal why;
    count(e, -1); /* it is not to be in its own way */
    err full = listen_admit(e, &peer, &entry, &why);
    count(e, 1);
    if (full != ERR_OK) {
        listen_count_refused(e, p->kind, &peer.address, why);
        return drop(p);
    }
    sock_transport_readdress(t, &peer.address);
    enum listener_kind kind = p->kind;
    uint64_t opened_ms = p->opened_ms;
    forget(p);
    conn_opened_at(listen_begin(e, kind, t, &peer, entry), opened_ms);
    if (rest.n)
        t->sink->bytes(t, rest.p, rest.n);
}

static void keep(struct proxied *p, str bytes)
{
    if (!p->carry)
        p->carry = malloc(PROXY_HEADER_MAX);
    must(p->carry && p->carry_n + bytes.n <= PROXY_HEADER_MAX);
    memcpy(p->carry + p->carry_n, bytes.p, bytes.n);
    p->carry_n += bytes.n;
}

static void on_bytes(struct transport *t, const char *bytes, size_t n)
{
    struct proxied *p = t->owner;
    struct proxy_header h;
    size_t used, before = p->carry_n;
    if (p->ending)
        return;
    str in = str_from(bytes, n);
    if (before) { /* the rest of the header is all that is needed of these */
        size_t room = PROXY_HEADER_MAX - before;
        keep(p, str_from(bytes, n < room ? n : room));
        in = str_from(p->carry, p->carry_n);
    }
    err e = proxy_parse(in, &h, &used);
    if (e == ERR_OK)
        go_on(p, &h, str_from(bytes + (used - before), n - (used - before)));
    else if (e != ERR_PARTIAL)
        reject(p, e == ERR_FULL ? "header too long" : "no PROXY header");
    else if (!before)
        keep(p, in);
}

/* ---- the end --------------------------------------------------------------------------------- */

static void too_late(struct timer *t)
{
    reject(container_of(t, struct proxied, timer), "no whole header in time");
}

/* Who says nothing at all and goes has only looked whether somebody listens. */
static void on_ended(struct transport *t)
{
    struct proxied *p = t->owner;
    if (p->ending)
        return;
    if (p->carry_n)
        reject(p, "it ended within the header");
    else
        drop(p);
}

static void on_closed(struct transport *t, err reason)
{
    struct proxied *p = t->owner;
    struct edge *e = p->edge;
    forget(p);
    transport_free(t);
    edge_check_stopped(e);
}

static void on_opened(struct transport *t) {}
static void on_written(struct transport *t) {}

static const struct transport_sink proxied_sink = {on_opened, on_bytes, on_written, on_ended,
                                                   on_closed};

void proxied_open(struct edge *e, enum listener_kind kind, struct transport *t)
{
    struct proxied *p = calloc(1, sizeof *p);
    must(p);
    p->edge = e, p->transport = t, p->kind = kind;
    p->opened_ms = loop_now_ms(e->node->loop);
    t->sink = &proxied_sink, t->owner = p;
    list_init(&p->link);
    list_push_back(&e->proxied, &p->link);
    timer_init(&p->timer, too_late);
    loop_timer_set(e->node->loop, &p->timer,
                   (uint64_t)e->node->conf->limits_preauth_header_timeout);
    count(e, 1);
}

void proxied_stop(struct edge *e)
{
    list_each(p, &e->proxied, struct proxied, link)
        if (!p->ending)
            drop(p);
}
