/* register: see register.h. The keys are derived on the helper thread; then the store decides
 * whether the name is free. One request at a time: reading pauses until it is answered. */
#include "node/edge/register.h"

#include "node/tls/new_keys.h"
#include "proto/bus/store.pb-c.h"
#include "proto/xmpp/jid.h"

struct registration {
    struct edge *edge;
    uint64_t conn;
    uint64_t host_max;
    int64_t wall_us;
    uint16_t jid_n, id_n;
    char jid[JID_MAX];
    char id[256]; /* of the request, escaped */
};

static void finish(struct registration *r, err e)
{
    struct edge *edge = r->edge;
    struct conn *c = conn_find(edge, r->conn);
    edge->pending--;
    metric_add(edge->node->metrics,
               e == ERR_OK ? METRIC_registrations_done : METRIC_registrations_failed, 1);
    if (c && !c->ending) {
        conn_resume(c, PAUSE_LOGIN);
        str id = str_from(r->id, r->id_n);
        if (e == ERR_OK)
            conn_put(c,
                     arena_printf(edge->node->turn, "<iq type='result' id='%.*s'/>", STR_ARG(id)));
        else
            stream_put_iq_error(c, id, e);
    }
    free(r);
    edge_check_stopped(edge);
}

static void full(struct registration *r)
{
    struct node *n = r->edge->node;
    str domain = jid_parse_prepared(str_from(r->jid, r->jid_n)).domain;
    metric_add(n->metrics,
               METRIC_AT(host_quota_hits, conf_host_metric(n->conf, domain), QUOTA_USERS), 1);
    finish(r, ERR_STANZA_RESOURCE_CONSTRAINT);
}

static void on_added(void *ctx, err e, const struct Store__Reply *reply)
{
    struct registration *r = ctx;
    switch (e) {
    case ERR_OK:
        LOG(r->edge->node->log, account_changed, F_JID("jid", str_from(r->jid, r->jid_n)),
            F_STR("what", STR("added")), F_STR("by", STR("registration")));
        return finish(r, ERR_OK);
    case ERR_EXISTS: return finish(r, ERR_STANZA_CONFLICT);
    case ERR_FULL: return full(r);
    default: return finish(r, ERR_STANZA_STORE_AWAY);
    }
}

static void derived(void *ctx, str blob)
{
    struct registration *r = ctx;
    Store__Request request = STORE__REQUEST__INIT;
    Store__AccountAdd add = STORE__ACCOUNT_ADD__INIT;
    add.keys = (ProtobufCBinaryData){blob.n, (uint8_t *)blob.p};
    add.created_us = r->wall_us;
    add.host_max = r->host_max;
    request.owner = (ProtobufCBinaryData){r->jid_n, (uint8_t *)r->jid};
    request.op_case = STORE__REQUEST__OP_ACCOUNT_ADD;
    request.account_add = &add;
    store_submit(r->edge->node->store, &request, on_added, r);
}

static bool is_rate_spent(struct conn *c)
{
    struct sockaddr_storage address;
    struct conf_rate rate = c->edge->node->conf->modules_register_address_rate;
    conn_address(c, &address);
    uint64_t hash = throttle_address_hash(&c->edge->node->key, &address);
    return !bucket_take(&throttle_get(&c->edge->registrations, hash)->bucket, rate, rate.count, 1,
                        loop_now_ms(c->edge->node->loop));
}

/* Everything of the request that has to be right before anything is spent on it. */
static err read_form(struct conn *c, const struct xml_el *query, struct jid *jid, str *password)
{
    struct node *n = c->edge->node;
    struct arena *a = n->turn;
    struct xml_el el;
    str local;
    if (!xml_find(query, "jabber:iq:register", "username", &el, a))
        return ERR_STANZA_NOT_ACCEPTABLE;
    err e = jid_prepare_local(xml_text(&el, a), a, &local);
    if (e != ERR_OK)
        return ERR_STANZA_NOT_ACCEPTABLE;
    if (!xml_find(query, "jabber:iq:register", "password", &el, a))
        return ERR_STANZA_NOT_ACCEPTABLE;
    *jid = jid_join(a, local, stream_host(c), STR_NONE);
    return scram_password_prepare(xml_text(&el, a), n->conf->auth_password_min, a, password);
}

static void submit(struct conn *c, str id, const struct jid *jid, str password)
{
    struct node *n = c->edge->node;
    struct registration *r = calloc(1, sizeof *r);
    must(r);
    r->edge = c->edge, r->conn = c->negotiation->number;
    r->host_max = conf_host_find(n->conf, stream_host(c))->users_max; /* it was asked before */
    r->wall_us = clock_wall_us(n->clock);
    r->jid_n = (uint16_t)jid->bare.n, memcpy(r->jid, jid->bare.p, jid->bare.n);
    r->id_n = (uint16_t)id.n, memcpy(r->id, id.p, id.n);
    if (new_keys(n->helper, n->entropy, password, (uint32_t)n->conf->auth_scram_iterations, derived,
                 r) != ERR_OK) {
        free(r);
        return stream_put_iq_error(c, id, ERR_STANZA_RESOURCE_CONSTRAINT);
    }
    c->edge->pending++;
    conn_pause(c, PAUSE_LOGIN);
}

static void put_form(struct conn *c, str id)
{
    conn_put(c, arena_printf(c->edge->node->turn,
                             "<iq type='result' id='%.*s'><query xmlns='jabber:iq:register'>"
                             "<instructions>Choose a name and a password.</instructions>"
                             "<username/><password/></query></iq>",
                             STR_ARG(id)));
}

void register_iq(struct conn *c, str item, const struct xml_index *x)
{
    struct arena *a = c->edge->node->turn;
    struct registration *r;
    struct xml_el iq = xml_root(item, STR("jabber:client"), a), query;
    str id = stream_id_attr(item, x, a), type = xml_attr(&iq, "type", a), password;
    struct jid jid;
    if (id.n == 0 || id.n > sizeof r->id || !xml_first(&iq, &query, a))
        return stream_put_iq_error(c, STR(""), ERR_STANZA_BAD_REQUEST);
    if (str_is(type, "get"))
        return put_form(c, id);
    if (!str_is(type, "set"))
        return conn_end(c, ERR_STREAM_NOT_AUTHORIZED);
    err e = read_form(c, &query, &jid, &password);
    if (e != ERR_OK)
        return stream_put_iq_error(c, id, e);
    if (is_rate_spent(c)) {
        metric_add(c->edge->node->metrics, METRIC_limit_registrations, 1);
        return stream_put_iq_error(c, id, ERR_STANZA_RESOURCE_CONSTRAINT);
    }
    submit(c, id, &jid, password);
}
