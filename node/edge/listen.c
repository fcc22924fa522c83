/* listen: see listen.h. Sixteen one-shot accepts per listener, each with its own address
 * (systems.md 2). Who is refused is accepted and closed: left in the queue it would hold up those
 * behind it. */
#include "node/edge/listen.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <unistd.h>

#include "node/edge/proxied.h"
#include "node/os/os.h"
#include "node/tls/tls.h"

enum { ACCEPTS = 16, ACCEPT_RETRY_MS = 100 };

struct listener;
struct slot {
    struct accept_op accept;
    struct listener *listener;
    bool armed, waiting; /* waiting: for the retry timer, or to be let in (admit.h) */
};
struct listener {
    struct edge *edge;
    struct list link;
    enum listener_kind kind;
    unsigned owner;
    bool stopping;
    int fd;
    struct timer retry; /* after EMFILE: asked again at once it would burn the core */
    struct slot slots[ACCEPTS];
};

static const char *const refusals[] = {"stopping", "connections_max", "preauth.connections_max",
                                       "address_connections_max", "address_connect_rate"};
_Static_assert(array_len(refusals) == METRIC_SIZE_REFUSAL, "labels.def: REFUSAL");

static err room(struct edge *e, enum listen_refusal *why)
{
    if (e->stopping)
        return *why = REFUSE_STOPPING, ERR_FULL;
    if (e->conn_count >= e->connections_max)
        return *why = REFUSE_CONNECTIONS, ERR_FULL;
    if (e->preauth_count >= e->node->conf->limits_preauth_connections_max)
        return *why = REFUSE_PREAUTH, ERR_FULL;
    return ERR_OK;
}

static err count_address(struct edge *e, const struct sockaddr_storage *address,
                         struct throttle_entry **entry, enum listen_refusal *why)
{
    const struct conf *conf = e->node->conf;
    struct throttle_entry *t =
        throttle_get(&e->addresses, throttle_address_hash(&e->node->key, address));
    if (t->live >= conf->limits_address_connections_max)
        return *why = REFUSE_ADDRESS, ERR_FULL;
    if (!bucket_take(&t->bucket, conf->limits_address_connect_rate,
                     conf->limits_address_connect_burst, 1, loop_now_ms(e->node->loop)))
        return *why = REFUSE_RATE, ERR_FULL;
    t->live++;
    *entry = t;
    return ERR_OK;
}

err listen_admit(struct edge *e, const struct listen_peer *peer, struct throttle_entry **entry,
                 enum listen_refusal *why)
{
    *entry = NULL;
    err full = room(e, why);
    if (full != ERR_OK || listen_peer_is_in(e, peer, e->node->conf->limits_exempt_from))
        return full;
    return count_address(e, &peer->address, entry, why);
}

bool listen_peer_is_in(struct edge *e, const struct listen_peer *peer, struct conf_list nets)
{
    return !peer->elsewhere &&
           conf_net_contains(e->node->conf, nets, (const struct sockaddr *)&peer->address);
}

void listen_count_refused(struct edge *e, enum listener_kind kind,
                          const struct sockaddr_storage *address, enum listen_refusal why)
{
    struct node *n = e->node;
    metric_add(n->metrics, METRIC_AT(connections_refused, kind, why), 1);
    LOG(n->log, conn_refused, F_STR("listener", listen_name(kind)), F_ADDR("address", address),
        F_STR("reason", str_of(refusals[why])));
}

str listen_name(enum listener_kind kind)
{
    return kind == LISTENER_C2S ? STR("c2s") : STR("c2s_tls");
}

struct conn *listen_begin(struct edge *e, enum listener_kind kind, struct transport *t,
                          const struct listen_peer *peer, struct throttle_entry *entry)
{
    if (kind == LISTENER_C2S_TLS)
        t = tls_server_open(e->node->tls, t, TLS_DIRECT, STR_NONE);
    struct conn *c = conn_open(e, t, kind);
    c->address = entry;
    conn_place(c, peer->elsewhere);
    return c;
}

static bool is_from_proxy(const struct listener *l, const struct sockaddr_storage *address)
{
    const struct conf *conf = l->edge->node->conf;
    struct conf_list nets =
        l->kind == LISTENER_C2S ? conf->listen_c2s_proxy_from : conf->listen_c2s_tls_proxy_from;
    return conf_net_contains(conf, nets, (const struct sockaddr *)address);
}

/* Of a balancer's connections those are counted for whom it has made them, once it has said so. */
static void welcome(struct listener *l, int fd, const struct sockaddr_storage *address)
{
    struct edge *e = l->edge;
    struct throttle_entry *entry = NULL;
    const struct listen_peer peer = {*address, false};
    enum listen_refusal why;
    bool proxy = is_from_proxy(l, address);
    if ((proxy ? room(e, &why) : listen_admit(e, &peer, &entry, &why)) != ERR_OK) {
        close(fd);
        return listen_count_refused(e, l->kind, address, why);
    }
    struct transport *t = sock_transport_open(e->node->loop, fd, address, &conn_sink, NULL);
    if (proxy)
        proxied_open(e, l->kind, t);
    else
        listen_begin(e, l->kind, t, &peer, entry);
}

static void start(struct slot *s)
{
    s->waiting = false, s->armed = true;
    loop_accept(s->listener->edge->node->loop, &s->accept, s->listener->fd);
}

static void go_on(struct listener *l)
{
    if (!admit_is_open(l->edge))
        return;
    for (size_t i = 0; i < ACCEPTS; i++)
        if (l->slots[i].waiting)
            start(&l->slots[i]);
}

static void retry(struct timer *t) { go_on(container_of(t, struct listener, retry)); }

void listen_go_on(struct edge *e)
{
    list_each(l, &e->listeners, struct listener, link)
        if (!l->stopping && !timer_is_set(&l->retry))
            go_on(l);
}

static void drop(struct listener *l)
{
    loop_timer_stop(l->edge->node->loop, &l->retry);
    list_remove(&l->link);
    close(l->fd);
    free(l);
}

static void drop_if_idle(struct listener *l)
{
    for (size_t i = 0; i < ACCEPTS; i++)
        if (l->slots[i].armed)
            return;
    drop(l);
}

/* A listener on every address is one of IPv6; who comes to it over IPv4 is said to be of IPv4, in
 * logs (whose prefix of ::ffff:… would be nobody's) and to operators. */
void listen_unmap(struct sockaddr_storage *a)
{
    struct sockaddr_in6 v6;
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    memcpy(&v6, a, sizeof v6);
    if (a->ss_family != AF_INET6 || !IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr))
        return;
    memcpy(&v4.sin_addr, v6.sin6_addr.s6_addr + 12, sizeof v4.sin_addr);
    v4.sin_port = v6.sin6_port;
    memset(a, 0, sizeof *a);
    memcpy(a, &v4, sizeof v4);
}

static void accepted(struct op *op, int res)
{
    struct slot *s = container_of(op, struct slot, accept.op);
    struct listener *l = s->listener;
    s->armed = false;
    if (res >= 0) {
        listen_unmap(&s->accept.address);
        welcome(l, res, &s->accept.address);
    }
    if (l->stopping)
        return drop_if_idle(l);
    if (res == -ECANCELED || l->edge->stopping)
        return;
    /* EINVAL: the node has stopped listening, and we are about to hear of it. */
    if (res == -EMFILE || res == -ENFILE || res == -ENOBUFS || res == -ENOMEM || res == -EINVAL) {
        s->waiting = true;
        return loop_timer_set(l->edge->node->loop, &l->retry, ACCEPT_RETRY_MS);
    }
    s->waiting = true;
    if (!timer_is_set(&l->retry))
        go_on(l);
}

void listen_start(struct edge *e, enum listener_kind kind, unsigned owner, int fd)
{
    struct listener *l = calloc(1, sizeof *l);
    must(l);
    l->edge = e, l->kind = kind, l->owner = owner, l->fd = fd;
    list_init(&l->link);
    list_push_back(&e->listeners, &l->link);
    timer_init(&l->retry, retry);
    for (size_t i = 0; i < ACCEPTS; i++) {
        l->slots[i].listener = l;
        list_init(&l->slots[i].accept.op.link);
        l->slots[i].accept.op.done = accepted;
        start(&l->slots[i]);
    }
}

static void stop(struct listener *l)
{
    l->stopping = true;
    loop_timer_stop(l->edge->node->loop, &l->retry);
    for (size_t i = 0; i < ACCEPTS; i++)
        if (l->slots[i].armed)
            loop_accept_stop(l->edge->node->loop, &l->slots[i].accept);
    drop_if_idle(l);
}

void listen_stop(struct edge *e, unsigned owner)
{
    list_each(l, &e->listeners, struct listener, link)
        if (l->owner == owner && !l->stopping)
            stop(l);
}

void listen_free(struct edge *e)
{
    list_each(l, &e->listeners, struct listener, link)
        drop(l);
}
