/* auth: see auth.h. The state machine is proto/sasl; here are its surroundings: base64 in XML, the
 * store, the helper thread, and what failures cost.
 *
 * Orders to the store and the thread outlive a connection that breaks meanwhile: they carry the
 * conn's number, never a pointer. */
#include "node/edge/auth.h"

#include "node/edge/admit.h"
#include "node/edge/bearer.h"
#include "node/edge/fast.h"
#include "node/edge/upgrade.h"
#include "node/tls/helper.h"
#include "proto/bus/store.pb-c.h"

/* The labels of METRIC_logins are this table's. */
_Static_assert(METRIC_SIZE_MECHANISM == SASL_MECHANISMS + 1, "labels.def: MECHANISM");

enum { BINDING_REFUSALS_MAX = 6, DELAY_MAX_MS = 10000 };

/* ---- the offer ---- */

static uint32_t configured(struct conn *c, const struct conf_host *host)
{
    const struct conf *conf = c->edge->node->conf;
    uint32_t set = 0;
    if (host->auth & CONF_AUTH_INTERNAL)
        for (uint32_t i = 0; i < conf->auth_mechanisms.count; i++) {
            enum sasl_mechanism m =
                sasl_mechanism_find(conf_list_at(conf, conf->auth_mechanisms, i));
            if (m != SASL_MECHANISMS)
                set |= SASL_BIT(m);
        }
    if ((host->auth & CONF_AUTH_JWT) && c->edge->jwt_keys)
        set |= SASL_BIT(SASL_OAUTHBEARER);
    return host->auth & CONF_AUTH_ANONYMOUS ? set | SASL_BIT(SASL_ANONYMOUS) : set;
}

void auth_offer(struct conn *c)
{
    struct node *node = c->edge->node;
    struct sasl_offer *o = &c->negotiation->offer;
    const struct conf_host *host = conf_host_find(node->conf, stream_host(c));
    *o = (struct sasl_offer){
        .tls = c->secured,
        .tls_version = conn_tls_version(c),
        .host = stream_host(c),
        .from = c->negotiation->from,
        .iterations = (uint32_t)node->conf->auth_scram_iterations,
        .secret = str_from(node->secret, sizeof node->secret),
        .entropy = node->entropy,
        .jwt = &c->edge->jwt,
    };
    for (int b = 0; c->secured && b < SASL_BINDINGS; b++) {
        size_t n = 0;
        if (transport_channel_binding(c->transport, (enum channel_binding)b, o->binding[b].data,
                                      &n) == ERR_OK)
            o->binding[b].n = (uint8_t)n;
    }
    o->mechanisms = host ? sasl_offered(o, configured(c, host)) : 0;
}

void auth_put_mechanisms(const struct sasl_offer *o, struct xml_writer *w)
{
    for (int m = 0; m < SASL_MECHANISMS; m++)
        if (o->mechanisms & SASL_BIT(m))
            xml_put_leaf(w, "mechanism", NULL, sasl_mechanism_name((enum sasl_mechanism)m));
}

void auth_put_features(struct conn *c, struct xml_writer *w)
{
    const struct sasl_offer *o = &c->negotiation->offer;
    bool bound = false;
    xml_open_ns(w, "mechanisms", xml_ns_uri(NS_SASL).p);
    auth_put_mechanisms(o, w);
    xml_close(w, "mechanisms");
    for (int b = 0; b < SASL_BINDINGS; b++)
        bound |= o->binding[b].n > 0;
    if (!bound)
        return;
    xml_open_ns(w, "sasl-channel-binding", xml_ns_uri(NS_SASL_CB).p); /* XEP-0440 */
    for (int b = 0; b < SASL_BINDINGS; b++)
        if (o->binding[b].n) {
            xml_open(w, "channel-binding");
            xml_put_attr(w, "type", sasl_binding_name((enum channel_binding)b));
            xml_close(w, "channel-binding");
        }
    xml_close(w, "sasl-channel-binding");
}

/* ---- failures ---- */

void auth_put_failure(struct conn *c, err reason, str extra)
{
    struct negotiation *n = c->negotiation;
    bool second = n->sasl2;
    struct xml_writer w;
    xml_writer_init(&w, c->edge->node->turn);
    xml_open_ns(&w, "failure", xml_ns_uri(second ? NS_SASL2 : NS_SASL).p);
    xml_put_leaf(&w, err_row(reason)->condition, second ? xml_ns_uri(NS_SASL).p : NULL, STR_NONE);
    xml_put_raw(&w, extra);
    xml_close(&w, "failure");
    conn_put(c, xml_written(&w));
    sasl2_free(n); /* the next one may be of the other profile */
}

static struct throttle_entry *by_address(struct conn *c)
{
    struct sockaddr_storage address;
    conn_address(c, &address);
    return throttle_get(&c->edge->failures, throttle_address_hash(&c->edge->node->key, &address));
}

static struct throttle_entry *by_account(struct conn *c, str user)
{
    return throttle_get(&c->edge->failures, hash_str(&c->edge->node->key, user) ^ 1);
}

/* Whether it is beyond its rate. One that is runs up no more debt: it is let in again when the rate
 * says so, however much was tried meanwhile. */
static bool charge_one(struct throttle_entry *t, struct conf_rate r, uint64_t now)
{
    return bucket_charge(&t->bucket, r, r.count, 0, now) > 0 ||
           bucket_charge(&t->bucket, r, r.count, 1, now) > 0;
}

/* Charges both rates; whether the failing account or address is beyond its own. */
static bool charge(struct conn *c, str user)
{
    const struct conf *conf = c->edge->node->conf;
    uint64_t now = loop_now_ms(c->edge->node->loop);
    bool beyond = charge_one(by_address(c), conf->auth_address_failure_rate, now);
    if (user.n)
        beyond |= charge_one(by_account(c, user), conf->auth_account_failure_rate, now);
    return beyond;
}

static bool is_address_beyond(struct conn *c)
{
    struct conf_rate r = c->edge->node->conf->auth_address_failure_rate;
    return bucket_charge(&by_address(c)->bucket, r, r.count, 0, loop_now_ms(c->edge->node->loop)) >
           0;
}

static void log_failed(struct conn *c, str user, err reason)
{
    struct node *n = c->edge->node;
    struct sasl *s = &c->negotiation->sasl;
    struct sockaddr_storage address;
    conn_address(c, &address);
    bool known = s->state != SASL_IDLE && s->mechanism < SASL_MECHANISMS;
    str mechanism = known ? sasl_mechanism_name(s->mechanism) : STR("");
    metric_add(
        n->metrics,
        METRIC_AT(login_failures, known ? s->mechanism : SASL_MECHANISMS, METRIC_ERR(SASL, reason)),
        1);
    metric_add(n->metrics,
               METRIC_AT(host_login_failures, conf_host_metric(n->conf, stream_host(c)), 0), 1);
    LOG(n->log, login_failed, F_STR("host", stream_host(c)), F_JID("user", user),
        F_STR("reason", str_of(err_row(reason)->name)), F_STR("mechanism", mechanism),
        F_ADDR("address", &address));
}

void auth_fail(struct conn *c, err reason)
{
    struct negotiation *n = c->negotiation;
    struct loop *loop = c->edge->node->loop;
    uint64_t delay = (uint64_t)c->edge->node->conf->auth_failure_delay;
    str user = n->sasl.user;
    log_failed(c, user, reason);
    if (charge(c, user)) {
        struct sockaddr_storage address;
        conn_address(c, &address);
        delay *= 2u << (n->tries < 4 ? n->tries : 4);
        LOG(c->edge->node->log, login_throttled, F_ADDR("address", &address),
            F_STR("reason", str_of(err_row(reason)->name)), F_INT("count", n->tries + 1));
    }
    sasl_end(&n->sasl);
    n->sasl.user = STR_NONE;
    n->tries++;
    n->failure = reason;
    conn_pause(c, PAUSE_LOGIN);
    loop_timer_set(loop, &n->delay, delay < DELAY_MAX_MS ? delay : DELAY_MAX_MS);
}

/* Refused for its channel binding before any key was looked at: no password was tried, so this is
 * not a try, and told at once. Clients that know only tls-unique go through every -PLUS mechanism
 * like that before they take a plain one (slixmpp 1.8 does, over TLS 1.3). */
static void refuse_binding(struct conn *c)
{
    struct negotiation *n = c->negotiation;
    log_failed(c, STR_NONE, ERR_SASL_NOT_AUTHORIZED);
    sasl_end(&n->sasl);
    n->sasl.user = STR_NONE;
    auth_put_failure(c, ERR_SASL_NOT_AUTHORIZED, STR_NONE);
}

void auth_put_deferred(struct conn *c, str text)
{
    struct negotiation *n = c->negotiation;
    if (!auth_is_going_on(n))
        return;
    log_failed(c, n->sasl.user, ERR_SASL_TEMPORARY_AUTH_FAILURE);
    sasl_end(&n->sasl);
    n->sasl.user = STR_NONE;
    auth_put_failure(
        c, ERR_SASL_TEMPORARY_AUTH_FAILURE,
        arena_printf(c->edge->node->turn, "<text xml:lang='en'>%.*s</text>", STR_ARG(text)));
}

/* ---- the exchange ---- */

static void put(struct conn *c, const char *name, str bytes)
{
    struct arena *a = c->edge->node->turn;
    str text = bytes.n ? sasl_encode(bytes, a) : STR("");
    str ns = xml_ns_uri(c->negotiation->sasl2 ? NS_SASL2 : NS_SASL);
    conn_put(c,
             arena_printf(a, "<%s xmlns='%.*s'>%.*s</%s>", name, STR_ARG(ns), STR_ARG(text), name));
}

void auth_succeed(struct conn *c, str additional)
{
    struct node *node = c->edge->node;
    struct negotiation *n = c->negotiation;
    struct sockaddr_storage address;
    conn_address(c, &address);
    negotiation_keep(&n->bare, n->sasl.user);
    n->anonymous = n->sasl.mechanism == SASL_ANONYMOUS;
    n->vouched = n->sasl.mechanism == SASL_OAUTHBEARER;
    LOG(node->log, login_ok, F_JID("jid", n->bare),
        F_STR("mechanism", sasl_mechanism_name(n->sasl.mechanism)),
        F_STR("tls", c->secured ? STR("yes") : STR("no")), F_ADDR("address", &address),
        F_INT("ms", loop_now_ms(node->loop) - c->opened_ms));
    metric_add(node->metrics, METRIC_AT(logins, n->sasl.mechanism, 0), 1);
    sasl_end(&n->sasl);
    conn_authenticated(c);
    if (n->sasl2)
        return sasl2_authenticated(c, additional);
    put(c, "success", additional);
    stream_restart(c);
}

/* ---- turns ----
 * So many orders to the store and the helper thread are under way at once; the others wait in line.
 * A place is held only while *we* work: a client that dawdles between two steps holds up nobody. */

static void work(struct conn *c);

/* auto: what the helper thread takes without refusing. Of a store that answers within 10 ms that is
 * 6,400 logins a second, more than a core does handshakes; one that takes longer has enough to do.
 */
size_t auth_jobs_max(const struct edge *e)
{
    uint64_t max = e->node->conf->limits_logins_concurrent;
    return max ? max : HELPER_JOBS_MAX;
}

bool auth_stop_waiting(struct negotiation *n)
{
    if (list_empty(&n->waiting))
        return false;
    list_remove(&n->waiting);
    n->conn->edge->logins_waiting_count--;
    admit_look(n->conn->edge);
    return true;
}

static void wait_for_turn(struct conn *c)
{
    struct edge *e = c->edge;
    struct negotiation *n = c->negotiation;
    const struct conf *conf = e->node->conf;
    if (admit_is_full(e))
        return admit_defer(c, ADMIT_FULL);
    list_push_back(&e->logins_waiting, &n->waiting);
    e->logins_waiting_count++;
    admit_look(e);
    conn_pause(c, PAUSE_LOGIN);
    loop_timer_set(e->node->loop, &n->delay, (uint64_t)conf->limits_login_wait_max);
}

static void job_done(struct edge *e)
{
    e->pending--, e->login_jobs--;
    while (e->login_jobs < auth_jobs_max(e) && !list_empty(&e->logins_waiting)) {
        struct negotiation *n = list_first(&e->logins_waiting, struct negotiation, waiting);
        auth_stop_waiting(n);
        loop_timer_stop(e->node->loop, &n->delay);
        if (!n->conn->ending)
            work(n->conn);
    }
    edge_check_stopped(e);
}

/* ---- keys and checks ---- */

struct asked {
    struct edge *edge;
    uint64_t conn;
    auth_reply_f *done; /* NULL: nobody waits */
};

static void on_reply(void *ctx, err e, const struct Store__Reply *reply)
{
    struct asked asked = *(struct asked *)ctx;
    free(ctx);
    struct conn *c = asked.done ? conn_find(asked.edge, asked.conn) : NULL;
    if (c && !c->ending) {
        conn_resume(c, PAUSE_LOGIN);
        asked.done(c, e, reply);
    }
    job_done(asked.edge);
}

static void ask(struct conn *c, Store__Request *r, auth_reply_f *done)
{
    struct asked *asked = malloc(sizeof *asked);
    must(asked);
    *asked = (struct asked){c->edge, c->negotiation->number, done};
    c->edge->pending++, c->edge->login_jobs++;
    store_submit(c->edge->node->store, r, on_reply, asked);
}

void auth_ask(struct conn *c, Store__Request *r, auth_reply_f *done)
{
    conn_pause(c, PAUSE_LOGIN);
    ask(c, r, done);
}

void auth_tell(struct conn *c, Store__Request *r) { ask(c, r, NULL); }

static void got_keys(struct conn *c, err e, const struct Store__Reply *reply)
{
    struct negotiation *n = c->negotiation;
    const Store__Account *account =
        reply && reply->body_case == STORE__REPLY__BODY_ACCOUNT ? reply->account : NULL;
    if (e != ERR_OK && e != ERR_NOT_FOUND)
        return admit_defer(c, ADMIT_STORE);
    struct scram_keys keys;
    bool usable =
        e == ERR_OK && account && account->exists &&
        scram_keys_decode(str_from(account->keys.data, account->keys.len), &keys) == ERR_OK;
    if (usable)
        upgrade_keep_keys(n, str_from(account->keys.data, account->keys.len));
    err refused = account && account->disabled ? ERR_SASL_ACCOUNT_DISABLED : ERR_OK;
    auth_answer(c, sasl_keys(&n->sasl, usable ? &keys : NULL, refused, c->edge->node->turn));
    scram_wipe(&keys, sizeof keys);
}

static void fetch_keys(struct conn *c)
{
    Store__Request request = STORE__REQUEST__INIT;
    Store__AccountGet get = STORE__ACCOUNT_GET__INIT;
    str user = c->negotiation->sasl.user;
    request.owner = (ProtobufCBinaryData){user.n, (uint8_t *)user.p};
    request.op_case = STORE__REQUEST__OP_ACCOUNT_GET;
    request.account_get = &get;
    auth_ask(c, &request, got_keys);
}

struct check_job {
    struct helper_job job;
    struct edge *edge;
    uint64_t conn;
    struct sasl_check check;
    bool right;
};

static void check_run(struct helper_job *j)
{
    struct check_job *job = container_of(j, struct check_job, job);
    job->right = sasl_check_run(&job->check);
}

static void check_free(struct check_job *job)
{
    scram_wipe(&job->check, sizeof job->check);
    free(job);
}

static void check_done(struct helper_job *j)
{
    struct check_job *job = container_of(j, struct check_job, job);
    struct edge *e = job->edge;
    struct conn *c = conn_find(e, job->conn);
    if (c && !c->ending) {
        conn_resume(c, PAUSE_LOGIN);
        auth_answer(c, sasl_checked(&c->negotiation->sasl, job->right));
    }
    check_free(job);
    job_done(e);
}

static void start_check(struct conn *c)
{
    struct check_job *job = calloc(1, sizeof *job);
    must(job);
    job->edge = c->edge, job->conn = c->negotiation->number;
    job->job.run = check_run, job->job.done = check_done;
    list_init(&job->job.link);
    sasl_check_take(&c->negotiation->sasl, &job->check);
    if (helper_submit(c->edge->node->helper, &job->job) != ERR_OK) {
        check_free(job);
        return admit_defer(c, ADMIT_FULL);
    }
    c->edge->pending++, c->edge->login_jobs++;
    conn_pause(c, PAUSE_LOGIN);
}

static bool has_token(const struct negotiation *n)
{
    return n->offer.tokens & SASL_BIT(n->sasl.mechanism);
}

/* What the attempt waits for: its keys or tokens, or PLAIN's derivation. */
static void work(struct conn *c)
{
    if (c->edge->login_jobs >= auth_jobs_max(c->edge))
        return wait_for_turn(c);
    bool keys = c->negotiation->sasl.state == SASL_KEYS;
    if (keys && has_token(c->negotiation))
        fast_fetch(c);
    else if (keys && c->negotiation->sasl.mechanism == SASL_OAUTHBEARER)
        bearer_fetch(c);
    else if (keys)
        fetch_keys(c);
    else
        start_check(c);
}

void auth_answer(struct conn *c, struct sasl_answer a)
{
    switch (a.verdict) {
    case SASL_CONTINUE: return put(c, "challenge", a.bytes);
    case SASL_NEED_KEYS:
    case SASL_NEED_TOKENS:
    case SASL_NEED_ACCOUNT:
    case SASL_NEED_CHECK: return work(c);
    case SASL_SUCCESS:
        return has_token(c->negotiation) ? fast_use(c, a.bytes) : auth_succeed(c, a.bytes);
    case SASL_FAILURE: return auth_fail(c, a.reason);
    }
}

bool auth_is_going_on(const struct negotiation *n)
{
    return n->sasl.state != SASL_IDLE && n->sasl.state != SASL_DONE;
}

void auth_start(struct conn *c, str mechanism, const str *initial)
{
    struct arena *a = c->edge->node->turn;
    struct negotiation *n = c->negotiation;
    str message = STR("");
    bearer_rules(c->edge, &c->edge->jwt);
    if (is_address_beyond(c))
        return auth_fail(c, ERR_SASL_TEMPORARY_AUTH_FAILURE);
    if (mechanism.n == 0)
        return auth_fail(c, ERR_SASL_INVALID_MECHANISM);
    if (initial && initial->n) {
        err e = sasl_decode(*initial, a, &message);
        if (e != ERR_OK)
            return auth_fail(c, e);
    }
    struct sasl_answer first =
        sasl_begin(&n->sasl, mechanism, &n->offer, initial ? &message : NULL, a);
    if (first.verdict == SASL_FAILURE && first.reason == ERR_SASL_NOT_AUTHORIZED &&
        n->refusals++ < BINDING_REFUSALS_MAX)
        return refuse_binding(c);
    auth_answer(c, first);
}

void auth_begin(struct conn *c, str item, const struct xml_index *x)
{
    struct arena *a = c->edge->node->turn;
    struct xml_el el = xml_root(item, STR("jabber:client"), a);
    str text = xml_text(&el, a);
    if (c->negotiation->sasl2)
        return conn_end(c, ERR_STREAM_NOT_AUTHORIZED);
    if (auth_is_going_on(c->negotiation))
        return auth_fail(c, ERR_SASL_MALFORMED_REQUEST); /* one exchange at a time */
    auth_start(c, xml_attr(&el, "mechanism", a), text.n ? &text : NULL);
}

/* Is this not the profile in which the exchange began? */
static bool is_mixed(const struct conn *c, const struct xml_index *x)
{
    return auth_is_going_on(c->negotiation) &&
           (x->ns == NS_SASL2) != (c->negotiation->sasl2 != NULL);
}

void auth_response(struct conn *c, str item, const struct xml_index *x)
{
    struct arena *a = c->edge->node->turn;
    struct negotiation *n = c->negotiation;
    struct xml_el el = xml_root(item, STR("jabber:client"), a);
    str response = STR_NONE;
    if (is_mixed(c, x))
        return conn_end(c, ERR_STREAM_NOT_AUTHORIZED);
    if (n->sasl.state != SASL_FIRST && n->sasl.state != SASL_FINAL)
        return auth_fail(c, ERR_SASL_MALFORMED_REQUEST);
    err e = sasl_decode(xml_text(&el, a), a, &response);
    if (e != ERR_OK)
        return auth_fail(c, e);
    bearer_rules(c->edge, &c->edge->jwt);
    auth_answer(c, sasl_step(&n->sasl, response, a));
}

void auth_abort(struct conn *c, str item, const struct xml_index *x)
{
    if (is_mixed(c, x))
        return conn_end(c, ERR_STREAM_NOT_AUTHORIZED);
    auth_fail(c, ERR_SASL_ABORTED);
}
