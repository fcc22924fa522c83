/* stream: see stream.h. What may come when is one table (steps × events below); each cell is a
 * small function that does the step or names the error of xmpp.md 10. */
#include "node/edge/stream.h"

#include <stdio.h>

#include "node/edge/admit.h"
#include "node/edge/auth.h"
#include "node/edge/register.h"
#include "node/edge/upgrade.h"
#include "node/edge/c2s.h"
#include "proto/xmpp/jid.h"

/* ---- negotiation ---- */

static void failure_due(struct timer *t);

struct negotiation *negotiation_new(struct conn *c)
{
    struct negotiation *n = calloc(1, sizeof *n);
    must(n);
    n->conn = c;
    n->number = ++c->edge->last_number;
    htable_insert(&c->edge->negotiations, &n->by_number, hash_u64(n->number));
    list_init(&n->waiting);
    timer_init(&n->delay, failure_due);
    return n;
}

void negotiation_renumber(struct negotiation *n)
{
    struct edge *e = n->conn->edge;
    htable_remove(&e->negotiations, &n->by_number);
    n->number = ++e->last_number;
    htable_insert(&e->negotiations, &n->by_number, hash_u64(n->number));
}

void negotiation_keep(str *s, str value)
{
    char *p = malloc(value.n + 1);
    must(p);
    memcpy(p, value.p ? value.p : "", value.n);
    p[value.n] = 0;
    free((char *)s->p);
    *s = (str){p, value.n};
}

void negotiation_free(struct negotiation *n)
{
    if (!n)
        return;
    htable_remove(&n->conn->edge->negotiations, &n->by_number);
    loop_timer_stop(n->conn->edge->node->loop, &n->delay);
    auth_stop_waiting(n);
    sasl_end(&n->sasl);
    free((char *)n->host.p);
    free((char *)n->bare.p);
    free((char *)n->bind_id.p);
    free((char *)n->from.p);
    sasl2_free(n);
    free(n);
}

static void failure_due(struct timer *t)
{
    struct negotiation *n = container_of(t, struct negotiation, delay);
    struct conn *c = n->conn;
    bool waited = auth_stop_waiting(n);
    if (c->ending)
        return;
    if (waited)
        return admit_defer(c, ADMIT_LATE);
    auth_put_failure(c, n->failure, STR_NONE);
    if (n->tries >= c->edge->node->conf->auth_failures_max)
        return conn_end(c, ERR_STREAM_SASL_TRIES);
    conn_resume(c, PAUSE_LOGIN);
}

/* ---- the client's header ---- */

const struct xml_header *stream_header(const struct conn *c)
{
    return c->step == STEP_HEADER || !c->header ? NULL : &c->header->xml;
}

void stream_header_unref(struct edge *e, struct header *h)
{
    if (h && --h->refs == 0) {
        htable_remove(&e->headers, &h->node);
        free(h);
    }
}

static size_t header_size(const struct xml_header *x)
{
    return offsetof(struct xml_header, prefix) + x->prefixes * sizeof x->prefix[0];
}

/* Nearly all clients send one of two headers: one object each. lang: as an attribute. */
static struct header *header_intern(struct edge *e, const struct xml_header *x, str lang)
{
    size_t size = header_size(x);
    uint64_t hash = hash_str(&e->node->key, str_from(x, size)) ^ hash_str(&e->node->key, lang);
    for (struct hnode *n = htable_find(&e->headers, hash); n; n = htable_find_next(n)) {
        struct header *h = container_of(n, struct header, node);
        if (header_size(&h->xml) == size && memcmp(&h->xml, x, size) == 0 &&
            str_eq(str_from(h->lang, h->lang_n), lang))
            return h->refs++, h;
    }
    struct header *h = calloc(1, offsetof(struct header, xml) + size);
    must(h);
    must(lang.n <= sizeof h->lang);
    h->refs = 1, h->lang_n = (uint16_t)lang.n;
    memcpy(h->lang, lang.p ? lang.p : "", lang.n);
    memcpy(&h->xml, x, size);
    htable_insert(&e->headers, &h->node, hash);
    return h;
}

str stream_host(const struct conn *c) { return c->negotiation ? c->negotiation->host : STR_NONE; }

void stream_restart(struct conn *c)
{
    stream_header_unref(c->edge, c->header);
    c->header = NULL;
    c->step = STEP_HEADER;
    c->header_sent = c->declared = false;
}

bool stream_plain_allowed(const struct conn *c)
{
    const struct conf *conf = c->edge->node->conf;
    return conf->listen_c2s_tls == CONF_TLS_OPTIONAL || conn_is_in(c, conf->listen_c2s_plain_from);
}

/* An attribute of the header's start tag, which is no element of its own yet. */
static str header_attr(str item, const char *name, struct arena *a)
{
    bool closed = item.n > 1 && item.p[item.n - 2] == '/';
    str parts[] = {{item.p, item.n - (closed ? 2 : 1)}, STR("/>")};
    struct xml_el el = xml_root(arena_concat(a, parts, 2), STR("jabber:client"), a);
    return xml_attr(&el, name, a);
}

/* Our header (RFC 6120 4.7). to: the client's `from`, if it gave one. */
static void put_header(struct conn *c, str to)
{
    struct node *n = c->edge->node;
    str host = stream_host(c);
    unsigned char id[16];
    entropy_fill(n->entropy, id, sizeof id);
    char hex[33];
    for (size_t i = 0; i < sizeof id; i++)
        snprintf(hex + 2 * i, 3, "%02x", id[i]);
    if (host.n == 0 && n->conf->host_count > 0)
        host = conf_text(n->conf, conf_host_at(n->conf, 0)->domain);
    conn_put_cstr(c, "<?xml version='1.0'?><stream:stream xmlns='jabber:client' "
                     "xmlns:stream='http://etherx.jabber.org/streams' version='1.0' xml:lang='en'");
    conn_put(c, xml_attr_text("id", str_from(hex, 32), n->turn));
    if (host.n)
        conn_put(c, xml_attr_text("from", host, n->turn));
    if (to.n)
        conn_put(c, xml_attr_text("to", to, n->turn));
    conn_put_cstr(c, ">");
    c->header_sent = true;
}

static err check_to(struct conn *c, str to)
{
    struct node *n = c->edge->node;
    str *host = &c->negotiation->host;
    struct jid jid;
    if (to.n == 0)
        return ERR_STREAM_IMPROPER_ADDRESSING;
    if (jid_prepare(to, n->turn, &jid) != ERR_OK || !conf_host_find(n->conf, jid.full))
        return ERR_STREAM_HOST_UNKNOWN;
    /* After TLS or SASL the peer speaks of the same host or of nothing. */
    if (c->authenticated && !str_eq(jid.full, *host))
        return ERR_STREAM_NOT_AUTHORIZED;
    negotiation_keep(host, jid.full);
    return ERR_OK;
}

/* "1.0" and above; a future minor or major version is answered with ours (RFC 6120 4.7.5). */
static bool is_version_known(str v)
{
    return v.n >= 3 && v.p[0] >= '1' && v.p[0] <= '9' && memchr(v.p, '.', v.n);
}

static err check_header(struct conn *c, str item, const struct xml_index *x,
                        const struct xml_header *h)
{
    struct arena *a = c->edge->node->turn;
    if (x->ns != NS_STREAM)
        return ERR_STREAM_INVALID_NAMESPACE;
    if (!str_is(str_from(item.p + x->name_off, x->name_len), "stream"))
        return ERR_STREAM_BAD_FORMAT;
    if (h->default_ns != NS_CLIENT && (h->default_ns != NS_STREAM || x->root_prefixed))
        return ERR_STREAM_INVALID_NAMESPACE;
    str to = x->to.off ? xml_unescape(str_from(item.p + x->to.off, x->to.len), true, a) : STR_NONE;
    err e = check_to(c, to);
    if (e != ERR_OK)
        return e;
    return is_version_known(header_attr(item, "version", a)) ? ERR_OK
                                                             : ERR_STREAM_UNSUPPORTED_VERSION;
}

static enum step step_after_header(const struct conn *c)
{
    if (c->authenticated)
        return STEP_BIND;
    return c->secured || stream_plain_allowed(c) ? STEP_LOGIN : STEP_TLS;
}

/* XEP-0478: what is in force from here on. Before login a silent client is not pinged: it has its
 * time and no more. */
static void put_limits(const struct conn *c, struct xml_writer *w)
{
    const struct conf *conf = c->edge->node->conf;
    uint64_t max = c->authenticated ? conf->limits_c2s_stanza_max : conf->limits_preauth_stanza_max;
    str bytes = arena_printf(w->arena, "%llu", (unsigned long long)max);
    uint64_t idle_s = c->authenticated ? (uint64_t)conf->limits_ping_interval / 1000 : 0;
    xml_open_ns(w, "limits", "urn:xmpp:stream-limits:0");
    xml_put_leaf(w, "max-bytes", NULL, bytes);
    if (idle_s)
        xml_put_leaf(w, "idle-seconds", NULL,
                     arena_printf(w->arena, "%llu", (unsigned long long)idle_s));
    xml_close(w, "limits");
}

/* XEP-0352 */
static bool has_csi(const struct conn *c)
{
    const struct conf *conf = c->edge->node->conf;
    str host = c->session ? jid_parse_prepared(c2s_bare(c->session)).domain : stream_host(c);
    return !conf_module_off(conf, conf_host_find(conf, host), STR("csi"));
}

/* What holds before and after a resource is bound. */
static void put_features_of_account(const struct conn *c, struct xml_writer *w)
{
    xml_put_leaf(w, "ver", xml_ns_uri(NS_ROSTERVER).p, STR_NONE);
    xml_put_leaf(w, "sub", xml_ns_uri(NS_PREAPPROVAL).p, STR_NONE);
    if (has_csi(c))
        xml_put_leaf(w, "csi", xml_ns_uri(NS_CSI).p, STR_NONE);
}

void stream_put_features(struct conn *c)
{
    const struct conf *conf = c->edge->node->conf;
    struct xml_writer w;
    xml_writer_init(&w, c->edge->node->turn);
    xml_open(&w, "stream:features");
    if (c->step == STEP_BOUND || c->session) {
        put_features_of_account(c, &w);
    } else if (c->step == STEP_BIND) {
        xml_put_leaf(&w, "bind", xml_ns_uri(NS_BIND).p, STR_NONE);
        /* RFC 3921's session: old clients ask for it unless told that they need not. */
        xml_put_raw(&w, STR("<session xmlns='urn:ietf:params:xml:ns:xmpp-session'><optional/>"
                            "</session>"));
        xml_put_leaf(&w, "sm", xml_ns_uri(NS_SM).p, STR_NONE);
        put_features_of_account(c, &w);
    } else {
        if (c->step == STEP_TLS)
            xml_put_raw(&w, STR("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/>"
                                "</starttls>"));
        else if (!c->secured)
            xml_put_leaf(&w, "starttls", xml_ns_uri(NS_TLS).p, STR_NONE);
        if (c->step == STEP_LOGIN) {
            auth_offer(c);
            auth_put_features(c, &w);
            sasl2_put_features(c, &w);
            const struct conf_host *host = conf_host_find(conf, stream_host(c));
            if (host && host->registration == CONF_REGISTRATION_OPEN)
                xml_put_leaf(&w, "register", xml_ns_uri(NS_REGISTER_FEATURE).p, STR_NONE);
        }
    }
    if (c->step != STEP_TLS) /* RFC 6120 5.3.1: nothing beside what is mandatory */
        put_limits(c, &w);
    if (c->step == STEP_LOGIN && c->secured)
        sasl2_put_version(c, &w);
    xml_close(&w, "stream:features");
    conn_put(c, xml_written(&w));
}

static str answer_to(str item, const struct xml_index *x, struct arena *a)
{
    struct jid jid;
    if (!x->from.off)
        return STR_NONE;
    str from = xml_unescape(str_from(item.p + x->from.off, x->from.len), true, a);
    return jid_prepare(from, a, &jid) == ERR_OK ? jid.bare : STR_NONE;
}

static void on_header(struct conn *c, str item, const struct xml_index *x)
{
    struct arena *a = c->edge->node->turn;
    struct xml_header h;
    memset(&h, 0, sizeof h);
    err e = xml_header_read(c->edge->node->scan, item, &h);
    if (e == ERR_OK)
        e = check_header(c, item, x, &h);
    if (e != ERR_OK)
        return conn_end(c, e);
    str lang =
        x->lang.off ? xml_unescape(str_from(item.p + x->lang.off, x->lang.len), true, a) : STR_NONE;
    if (lang.n > EDGE_LANG_MAX)
        lang = STR_NONE;
    if (lang.n)
        lang = xml_attr_text("xml:lang", lang, a);
    str from = answer_to(item, x, a);
    if (from.n && !str_eq(jid_parse_prepared(from).domain, stream_host(c)))
        return conn_end(c, ERR_STREAM_INVALID_FROM); /* XEP-0388 2.1 */
    negotiation_keep(&c->negotiation->from, from);
    c->header = header_intern(c->edge, &h, lang);
    c->step = step_after_header(c);
    loop_timer_set(c->edge->node->loop, &c->timer, stream_deadline_ms(c));
    put_header(c, from);
    if (!c->authenticated && admit_is_full(c->edge))
        return admit_defer(c, ADMIT_FULL);
    stream_put_features(c);
    if (x->empty)
        conn_end(c, ERR_OK);
}

/* ---- the end ---- */

/* Of whom a log line speaks. */
static str known_jid(const struct conn *c)
{
    if (c->session)
        return c2s_full(c->session);
    return c->negotiation ? c->negotiation->bare : STR_NONE;
}

void stream_bad(struct conn *c, err e)
{
    struct node *n = c->edge->node;
    if (err_row(e)->class != ERR_CLASS_STREAM)
        e = ERR_STREAM_NOT_WELL_FORMED;
    if (str_is(str_of(err_row(e)->condition), "policy-violation")) {
        struct sockaddr_storage address;
        conn_address(c, &address);
        metric_add(n->metrics, METRIC_AT(limits_hit, METRIC_ERR(POLICY, e), 0), 1);
        LOG(n->log, limit_hit, F_STR("limit", str_of(err_row(e)->name)),
            F_ADDR("address", &address), F_JID("jid", known_jid(c)), F_INT("value", 0));
    }
    conn_end(c, e);
}

static void log_error(struct conn *c, err reason)
{
    struct node *n = c->edge->node;
    struct sockaddr_storage address;
    conn_address(c, &address);
    LOG(n->log, stream_error, F_STR("direction", STR("out")),
        F_STR("condition", str_of(err_row(reason)->condition)), F_ADDR("address", &address),
        F_JID("jid", known_jid(c)));
    metric_add(n->metrics, METRIC_AT(stream_errors, 0, METRIC_ERR(STREAM, reason)), 1);
}

void stream_put_end(struct conn *c, err reason, str extra)
{
    const struct err_row *row = err_row(reason);
    struct arena *a = c->edge->node->turn;
    if (!c->header_sent)
        put_header(c, STR_NONE);
    if (row->class == ERR_CLASS_STREAM) {
        static const char ns[] = "urn:ietf:params:xml:ns:xmpp-streams";
        conn_put(c, arena_printf(a, "<stream:error><%s xmlns='%s'/>", row->condition, ns));
        if (*row->text)
            conn_put(c, arena_printf(a, "<text xmlns='%s' xml:lang='en'>%.*s</text>", ns,
                                     STR_ARG(xml_escape(str_of(row->text), a))));
        conn_put(c, extra);
        conn_put_cstr(c, "</stream:error>");
        log_error(c, reason);
    }
    conn_put_cstr(c, "</stream:stream>");
}

/* ---- deadlines ---- */

static uint64_t login_limit_ms(const struct conn *c)
{
    const struct conf *conf = c->edge->node->conf;
    if (c->handshaking || c->step == STEP_TLS)
        return (uint64_t)conf->limits_preauth_tls_timeout;
    if (c->step == STEP_HEADER && !c->authenticated && !c->secured)
        return (uint64_t)conf->limits_preauth_header_timeout;
    return (uint64_t)conf->limits_preauth_bind_timeout;
}

uint64_t stream_deadline_ms(const struct conn *c)
{
    uint64_t spent = loop_now_ms(c->edge->node->loop) - c->opened_ms, limit = login_limit_ms(c);
    return spent < limit ? limit - spent : 1;
}

static uint64_t min_u64(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* Not moved by every stanza: looked at when due (systems.md 7). */
static uint64_t tick_bound(struct conn *c)
{
    const struct conf *conf = c->edge->node->conf;
    uint64_t now = loop_now_ms(c->edge->node->loop), next = UINT64_MAX;
    uint64_t interval = (uint64_t)conf->limits_ping_interval;
    uint64_t timeout = (uint64_t)conf->limits_ping_timeout;
    uint64_t stall = (uint64_t)conf->limits_output_stall_timeout;
    if (c->flying) {
        if (now - c->wrote_ms >= stall)
            return conn_end(c, ERR_STREAM_OUTPUT_STALLED), 0;
        next = c->wrote_ms + stall - now;
    }
    if (c->stopped)
        c->heard_ms = now, c->pinged = false; /* it is we who do not listen */
    if (interval) {
        uint64_t silent = now - c->heard_ms;
        if (c->pinged && silent >= interval + timeout)
            return conn_end(c, ERR_STREAM_CONNECTION_TIMEOUT), 0;
        if (silent >= interval && !c->pinged) {
            c2s_ping(c->session);
            c->pinged = true;
            c->heard_ms = now - interval; /* the timeout counts from the ping, also after a pause */
            silent = interval;
        }
        next = min_u64(next, c->pinged ? interval + timeout - silent : interval - silent);
    }
    return next == UINT64_MAX ? 0 : next;
}

uint64_t stream_tick(struct conn *c)
{
    if (c->step == STEP_BOUND)
        return tick_bound(c);
    uint64_t spent = loop_now_ms(c->edge->node->loop) - c->opened_ms;
    if (spent < login_limit_ms(c))
        return stream_deadline_ms(c);
    conn_end(c, ERR_STREAM_LOGIN_TIMEOUT);
    return 0;
}

/* ---- elements by step ---- */

enum event {
    EV_STARTTLS,
    EV_AUTH,
    EV_AUTHENTICATE, /* XEP-0388 */
    EV_RESPONSE,
    EV_ABORT,
    EV_ENABLE,
    EV_RESUME,
    EV_REQUEST,
    EV_ACK, /* XEP-0198 */
    EV_CSI,
    EV_STANZA,
    EV_ERROR,
    EV_OTHER,
    EVENTS
};

static enum event event_of(str item, const struct xml_index *x)
{
    static const struct {
        enum xml_ns ns;
        const char *name;
        enum event event;
    } known[] = {
        {NS_CLIENT, "message", EV_STANZA},
        {NS_CLIENT, "iq", EV_STANZA},
        {NS_CLIENT, "presence", EV_STANZA},
        {NS_SM, "r", EV_REQUEST},
        {NS_SM, "a", EV_ACK},
        {NS_CSI, "active", EV_CSI},
        {NS_CSI, "inactive", EV_CSI},
        {NS_SM, "enable", EV_ENABLE},
        {NS_SM, "resume", EV_RESUME},
        {NS_TLS, "starttls", EV_STARTTLS},
        {NS_SASL, "auth", EV_AUTH},
        {NS_SASL2, "authenticate", EV_AUTHENTICATE},
        {NS_SASL2, "response", EV_RESPONSE},
        {NS_SASL2, "abort", EV_ABORT},
        {NS_SASL, "response", EV_RESPONSE},
        {NS_SASL, "abort", EV_ABORT},
        {NS_STREAM, "error", EV_ERROR},
    };
    str name = str_from(item.p + x->name_off, x->name_len);
    for (size_t i = 0; i < array_len(known); i++)
        if (x->ns == known[i].ns && str_eq(name, str_of(known[i].name)))
            return known[i].event;
    return EV_OTHER;
}

typedef void step_f(struct conn *c, str item, const struct xml_index *x);

static void not_authorized(struct conn *c, str item, const struct xml_index *x)
{
    conn_end(c, ERR_STREAM_NOT_AUTHORIZED);
}
static void unsupported(struct conn *c, str item, const struct xml_index *x)
{
    conn_end(c, ERR_STREAM_UNSUPPORTED_STANZA_TYPE);
}
/* The peer ends the stream with an error of its own (RFC 6120 4.9.1.1): never answered with one. */
static void peer_error(struct conn *c, str item, const struct xml_index *x)
{
    metric_add(c->edge->node->metrics, METRIC_AT(stream_errors, 1, METRIC_SIZE_STREAM - 1), 1);
    conn_end(c, ERR_OK);
}
static void tls_required(struct conn *c, str item, const struct xml_index *x)
{
    conn_end(c, ERR_STREAM_TLS_REQUIRED);
}
static void sm_unexpected(struct conn *c, str item, const struct xml_index *x)
{
    conn_put_cstr(c, "<failed xmlns='urn:xmpp:sm:3'><unexpected-request "
                     "xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>");
}

/* PLAIN in clear is told so by SASL's own word (xmpp.md 10); anything else must not come yet. */
static void auth_in_clear(struct conn *c, str item, const struct xml_index *x)
{
    struct arena *a = c->edge->node->turn;
    struct xml_el el = xml_root(item, STR("jabber:client"), a);
    if (!str_is(xml_attr(&el, "mechanism", a), "PLAIN"))
        return conn_end(c, ERR_STREAM_TLS_REQUIRED);
    auth_fail(c, ERR_SASL_ENCRYPTION_REQUIRED);
}

static void starttls(struct conn *c, str item, const struct xml_index *x)
{
    if (c->secured || !c->edge->node->tls) { /* RFC 6120 5.4.2.2: failure ends the stream */
        conn_put_cstr(c, "<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
        return conn_end(c, ERR_OK);
    }
    conn_pause(c, PAUSE_TLS);
    c->upgrading = true;
    conn_put_cstr(c, "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
}

str stream_id_attr(str item, const struct xml_index *x, struct arena *a)
{
    if (!x->id.off)
        return STR("");
    return xml_escape(xml_unescape(str_from(item.p + x->id.off, x->id.len), true, a), a);
}

void stream_put_iq_error(struct conn *c, str id, err e)
{
    struct arena *a = c->edge->node->turn;
    conn_put_cstr(c, "<iq type='error' id='");
    conn_put(c, id);
    conn_put_cstr(c, "'>");
    conn_put(c, stanza_error_element(e, STR_NONE, STR_NONE, a));
    conn_put_cstr(c, "</iq>");
}

static bool is_iq(str item, const struct xml_index *x)
{
    return str_is(str_from(item.p + x->name_off, x->name_len), "iq");
}

static void login_stanza(struct conn *c, str item, const struct xml_index *x)
{
    const struct conf *conf = c->edge->node->conf;
    const struct conf_host *host = conf_host_find(conf, stream_host(c));
    if (is_iq(item, x) && x->nchild == 1 && x->child[0].ns == NS_REGISTER && host &&
        host->registration == CONF_REGISTRATION_OPEN)
        return register_iq(c, item, x);
    conn_end(c, ERR_STREAM_NOT_AUTHORIZED);
}

/* Bind, or too early: to the server or the own account that is an error, else a stream error. */
static void unbound_stanza(struct conn *c, str item, const struct xml_index *x)
{
    struct arena *a = c->edge->node->turn;
    struct negotiation *n = c->negotiation;
    str id = stream_id_attr(item, x, a);
    enum stanza_kind kind;
    enum stanza_type type;
    if (stanza_classify(item, x, &kind, &type) != ERR_OK || kind != STANZA_IQ)
        return conn_end(c, ERR_STREAM_NOT_AUTHORIZED);
    if (type == TYPE_SET && x->nchild == 1 && x->children == 1 && x->child[0].ns == NS_BIND) {
        negotiation_keep(&n->bind_id, id);
        return c2s_bind(c, item);
    }
    struct jid to = {.full = STR_NONE};
    if (x->to.off) {
        str raw = xml_unescape(str_from(item.p + x->to.off, x->to.len), true, a);
        if (jid_prepare(raw, a, &to) != ERR_OK ||
            (!str_eq(to.full, n->host) && !str_eq(to.full, n->bare)))
            return conn_end(c, ERR_STREAM_NOT_AUTHORIZED);
    }
    if (type == TYPE_GET || type == TYPE_SET)
        stream_put_iq_error(c, id, ERR_STANZA_NOT_AUTHORIZED);
}

static void bound_stanza(struct conn *c, str item, const struct xml_index *x)
{
    c2s_stanza(c->session, item, x);
}
static void bound_enable(struct conn *c, str item, const struct xml_index *x)
{
    c2s_enable(c->session, item);
}
static void bound_request(struct conn *c, str item, const struct xml_index *x)
{
    c2s_request(c->session);
}
static void bound_csi(struct conn *c, str item, const struct xml_index *x)
{
    if (has_csi(c))
        c2s_csi(c->session, str_is(str_from(item.p + x->name_off, x->name_len), "inactive"));
    else
        unsupported(c, item, x);
}
static void bound_ack(struct conn *c, str item, const struct xml_index *x)
{
    c2s_ack(c->session, item);
}
static void unbound_resume(struct conn *c, str item, const struct xml_index *x)
{
    c2s_resume(c, item);
}

static step_f *const table[EVENTS][STEPS] = {
    /*               STEP_TLS        STEP_LOGIN       STEP_BIND        STEP_BOUND */
    [EV_STARTTLS] = {[STEP_TLS] = starttls, starttls, unsupported, unsupported},
    [EV_AUTH] = {[STEP_TLS] = auth_in_clear, auth_begin, not_authorized, unsupported},
    [EV_AUTHENTICATE] = {[STEP_TLS] = tls_required, sasl2_begin, not_authorized, unsupported},
    [EV_RESPONSE] = {[STEP_TLS] = tls_required, auth_response, not_authorized, unsupported},
    [EV_ABORT] = {[STEP_TLS] = tls_required, auth_abort, not_authorized, unsupported},
    [EV_ENABLE] = {[STEP_TLS] = tls_required, sm_unexpected, sm_unexpected, bound_enable},
    [EV_RESUME] = {[STEP_TLS] = tls_required, sm_unexpected, unbound_resume, sm_unexpected},
    [EV_REQUEST] = {[STEP_TLS] = tls_required, sm_unexpected, sm_unexpected, bound_request},
    [EV_ACK] = {[STEP_TLS] = tls_required, sm_unexpected, sm_unexpected, bound_ack},
    [EV_CSI] = {[STEP_TLS] = tls_required, not_authorized, unsupported, bound_csi},
    [EV_STANZA] = {[STEP_TLS] = tls_required, login_stanza, unbound_stanza, bound_stanza},
    [EV_ERROR] = {[STEP_TLS] = peer_error, peer_error, peer_error, peer_error},
    [EV_OTHER] = {[STEP_TLS] = tls_required, not_authorized, unsupported, unsupported},
};

static void on_element(struct conn *c, str item, const struct xml_index *x)
{
    enum event event = event_of(item, x);
    if (c->step == STEP_HEADER)
        return conn_end(c, ERR_STREAM_BAD_FORMAT);
    /* RFC 6120 4.8.5; a stanza stands alone in all other hands. */
    if (event == EV_STANZA && x->root_prefixed && c->step != STEP_TLS)
        return conn_end(c, ERR_STREAM_BAD_NAMESPACE_PREFIX);
    if (c->step == STEP_BOUND)
        conn_charge_stanza(c);
    if (c->step == STEP_BIND && c->negotiation->sasl2)
        return upgrade_task(c, item, x);
    table[event][c->step](c, item, x);
}

void stream_item(struct conn *c, enum xml_item what, str item, const struct xml_index *x)
{
    switch (what) {
    case XML_DECLARATION: c->declared = true; return;
    case XML_HEADER: return on_header(c, item, x);
    case XML_ELEMENT: return on_element(c, item, x);
    case XML_CLOSE: return conn_end(c, ERR_OK);
    case XML_NONE:
    case XML_WHITESPACE: return;
    }
}

/* ---- bound ---- */

static void become_bound(struct conn *c)
{
    const struct conf *conf = c->edge->node->conf;
    negotiation_free(c->negotiation);
    c->negotiation = NULL;
    c->step = STEP_BOUND;
    struct loop *loop = c->edge->node->loop;
    loop_timer_stop(loop, &c->timer);
    if (conf->limits_ping_interval)
        loop_timer_set(loop, &c->timer, (uint64_t)conf->limits_ping_interval);
    if (c->flying)
        conn_set_stall_timer(c);
    conn_resume(c, PAUSE_HOME);
}

/* A new one, if there is one. */
static void begin_session(struct conn *c)
{
    if (!c->session)
        return;
    metric_observe(c->edge->node->metrics, HISTOGRAM_login,
                   (loop_now_ms(c->edge->node->loop) - c->opened_ms) * 1000);
    become_bound(c);
}

void stream_bound(struct conn *c, const struct frame *f)
{
    struct arena *a = c->edge->node->turn;
    struct negotiation *n = c->negotiation;
    if (n->sasl2)
        return sasl2_bound(c, f), begin_session(c);
    if (f->reason != ERR_OK) {
        stream_put_iq_error(c, n->bind_id, f->reason);
        return conn_resume(c, PAUSE_HOME);
    }
    c->session = c2s_new(c, f->sid, f->gen, f->text);
    conn_put_cstr(c, "<iq type='result' id='");
    conn_put(c, n->bind_id);
    conn_put_cstr(c, "'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>");
    conn_put(c, xml_escape(f->text, a));
    conn_put_cstr(c, "</jid></bind></iq>");
    begin_session(c);
}

void stream_resumed(struct conn *c) { become_bound(c); }
