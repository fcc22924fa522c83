/* XEP-0077 after login: what is registered, a new password, removal of the account with everything
 * that belongs to it. Only where the host offers registration (host.registration). Making an
 * account before login is the edge's (node/edge/register.c).
 *
 * A new password: keys are derived on the helper thread, then committed, then the result goes out,
 * then all other sessions end with reset. Removal: committed, the contacts see unsubscribe(d) and
 * unavailable, the result goes out, then all sessions end. */
#include "node/conf/conf.h"
#include "node/home/session.h"
#include "node/tls/new_keys.h"
#include "node/xep/xep.h"
#include "proto/bus/store.pb-c.h"
#include "proto/sasl/scram.h"

/* Clients ask their own account or its server; either way it is about the account. A guest has
 * none, and another host of ours is another service. */
static bool offered(struct iq *q)
{
    if (!q->host || q->host->registration != CONF_REGISTRATION_OPEN || !q->session ||
        !str_eq(jid_parse_prepared(q->asked).domain, q->asker.domain))
        return false;
    q->user = q->session->user;
    return !q->user->anonymous;
}

static void get(struct iq *q)
{
    if (!offered(q)) {
        iq_error(q, ERR_STANZA_SERVICE_UNAVAILABLE);
        return;
    }
    struct xml_writer w;
    xml_writer_init(&w, q->arena);
    xml_open_ns(&w, "query", "jabber:iq:register");
    xml_put_leaf(&w, "registered", NULL, STR_NONE);
    xml_put_leaf(&w, "username", NULL, q->asker.local);
    xml_put_leaf(&w, "password", NULL, STR_NONE);
    xml_close(&w, "query");
    iq_result(q, xml_written(&w));
}

static Store__Request request_for(const struct iq *q)
{
    Store__Request r = STORE__REQUEST__INIT;
    r.owner = (ProtobufCBinaryData){.len = q->asker.bare.n, .data = (uint8_t *)q->asker.bare.p};
    return r;
}

/* ---- a new password ---- */

static void changed(struct iq *kept, err e, const Store__Reply *reply)
{
    if (e) {
        iq_store_error(kept, e);
        return;
    }
    struct user *u = kept->user;
    struct session *asking = kept->session;
    LOG(kept->node->log, account_changed, F_JID("jid", kept->asker.bare),
        F_STR("what", STR("password")), F_JID("by", kept->asker.full));
    iq_result(kept, STR_NONE);
    user_end_sessions(u, ERR_STREAM_RESET, asking);
}

static void derived(void *ctx, str blob)
{
    struct iq *kept = ctx;
    Store__AccountSetKeys set_keys = STORE__ACCOUNT_SET_KEYS__INIT;
    set_keys.keys = (ProtobufCBinaryData){.len = blob.n, .data = (uint8_t *)blob.p};
    Store__Request r = request_for(kept);
    r.op_case = STORE__REQUEST__OP_ACCOUNT_SET_KEYS, r.account_set_keys = &set_keys;
    iq_store(kept, &r, changed);
}

static void change_password(struct iq *q, str given)
{
    str password;
    const struct conf *conf = q->node->conf;
    if (scram_password_prepare(given, conf->auth_password_min, q->arena, &password)) {
        iq_error(q, ERR_STANZA_NOT_ACCEPTABLE);
        return;
    }
    struct iq *kept = iq_keep(q);
    if (new_keys(q->node->helper, q->node->entropy, password, (uint32_t)conf->auth_scram_iterations,
                 derived, kept))
        iq_error(kept, ERR_STANZA_RESOURCE_CONSTRAINT);
}

/* ---- removal ---- */

static void removed(struct iq *kept, err e, const Store__Reply *reply)
{
    if (e && e != ERR_NOT_FOUND) {
        iq_store_error(kept, e);
        return;
    }
    struct user *u = kept->user;
    LOG(kept->node->log, account_changed, F_JID("jid", kept->asker.bare),
        F_STR("what", STR("removed")), F_JID("by", kept->asker.full));
    user_cancel_subscriptions(u);
    iq_result(kept, STR_NONE);
    user_account_changed(u, false, false);
}

static void remove_account(struct iq *q)
{
    Store__AccountRemove op = STORE__ACCOUNT_REMOVE__INIT;
    Store__Request r = request_for(q);
    r.op_case = STORE__REQUEST__OP_ACCOUNT_REMOVE, r.account_remove = &op;
    iq_store(q, &r, removed);
}

/* ---- set ---- */

static void set(struct iq *q)
{
    struct xml_el el, more;
    if (!offered(q)) {
        iq_error(q, ERR_STANZA_SERVICE_UNAVAILABLE);
        return;
    }
    if (xml_find(&q->payload, "jabber:iq:register", "remove", &el, q->arena)) {
        more = el;
        bool alone =
            xml_first(&q->payload, &more, q->arena) && !xml_next(&q->payload, &more, q->arena);
        if (alone) /* XEP-0077 3.2: with anything beside it, it is a bad request */
            remove_account(q);
        else
            iq_error(q, ERR_STANZA_BAD_REQUEST);
        return;
    }
    str name = STR_NONE, given = STR_NONE;
    if (xml_find(&q->payload, "jabber:iq:register", "username", &el, q->arena))
        name = xml_text(&el, q->arena);
    if (xml_find(&q->payload, "jabber:iq:register", "password", &el, q->arena))
        given = xml_text(&el, q->arena);
    str local;
    if (!given.n || jid_prepare_local(name, q->arena, &local))
        iq_error(q, ERR_STANZA_BAD_REQUEST);
    else if (!str_eq(local, q->asker.local))
        iq_error(q, ERR_STANZA_NOT_ALLOWED);
    else
        change_password(q, given);
}

static const struct xep_iq iqs[] = {
    {"jabber:iq:register", IQ_SERVER | IQ_OWN_ACCOUNT, get, set},
    {NULL, 0, NULL, NULL},
};
static const char *const features[] = {"jabber:iq:register", NULL};
const struct xep xep_register = {.name = "register", .server = features, .iqs = iqs};
