/* XEP-0494: Client Access Management: the owner of an account sees which clients have access to it,
 * and takes it from one. A client is whoever named itself at login (XEP-0388 2.3), by what the end
 * of its resource says of it; a session of one that did not is listed by itself.
 *
 * Who has shown the password has access as long as that is the account's: only another password
 * ends it (4.2). */
#include "node/home/session.h"
#include "node/xep/xep.h"
#include "proto/bus/store.pb-c.h"

static const char CAM[] = "urn:xmpp:cam:0";

static str text_of(ProtobufCBinaryData b) { return str_from(b.data, b.len); }

static struct session *session_of(struct user *u, str client)
{
    user_each_session(s, u)
        if (!s->doomed && str_eq(session_client(s), client))
            return s;
    return NULL;
}

/* Of a session without a client: nothing else is named like that. */
static str session_id(const struct session *s, struct arena *a)
{
    return arena_printf(a, "session-%016llx", (unsigned long long)s->sid);
}

static void put_head(struct xml_writer *w, str id, bool connected, int64_t first_us,
                     int64_t last_us)
{
    xml_open(w, "client");
    xml_put_attr(w, "id", id);
    xml_put_attr(w, "connected", connected ? STR("true") : STR("false"));
    xml_put_attr(w, "type", STR("session"));
    xml_put_leaf(w, "first-seen", NULL, stanza_stamp(first_us, w->arena));
    xml_put_leaf(w, "last-seen", NULL, stanza_stamp(last_us, w->arena));
}

/* Who has neither is vouched for by somebody else. */
static void put_access(struct xml_writer *w, bool password, bool token)
{
    xml_open(w, "auth");
    if (password)
        xml_put_leaf(w, "password", NULL, STR_NONE);
    if (token)
        xml_put_leaf(w, "fast", NULL, STR_NONE);
    if (!password && !token)
        xml_put_leaf(w, "grant", NULL, STR_NONE);
    xml_close(w, "auth");
    xml_open(w, "permission");
    xml_put_attr(w, "status", STR("unrestricted"));
    xml_close(w, "permission");
}

static void put_agent(struct xml_writer *w, str software, str device)
{
    if (!software.n && !device.n)
        return;
    xml_open(w, "user-agent");
    if (software.n)
        xml_put_leaf(w, "software", NULL, software);
    if (device.n)
        xml_put_leaf(w, "device", NULL, device);
    xml_close(w, "user-agent");
}

static void put_client(struct iq *q, struct xml_writer *w, const Store__Client *c)
{
    const struct session *s = session_of(q->user, text_of(c->client));
    bool token = c->token_until_us > q->us;
    if (!s && !token && !c->password)
        return; /* its access has ended */
    put_head(w, text_of(c->client), s, c->first_us, s ? q->us : c->last_us);
    put_access(w, c->password, token);
    put_agent(w, text_of(c->software), text_of(c->device));
    xml_close(w, "client");
}

static bool is_listed(const Store__ClientPage *page, const struct session *s)
{
    for (size_t i = 0; i < page->n_clients; i++)
        if (str_eq(text_of(page->clients[i]->client), session_client(s)))
            return true;
    return false;
}

static void put_sessions(struct iq *q, struct xml_writer *w, const Store__ClientPage *page)
{
    user_each_session(s, q->user)
        if (!s->doomed && !is_listed(page, s)) {
            put_head(w, session_id(s, w->arena), true, s->since_us, q->us);
            put_access(w, true, false);
            xml_close(w, "client");
        }
}

static void listed(struct iq *kept, err e, const Store__Reply *reply)
{
    struct xml_writer w;
    if (e) {
        iq_store_error(kept, e);
        return;
    }
    xml_writer_init(&w, kept->arena);
    xml_open_ns(&w, "clients", CAM);
    for (size_t i = 0; i < reply->clients->n_clients; i++)
        put_client(kept, &w, reply->clients->clients[i]);
    put_sessions(kept, &w, reply->clients);
    xml_close(&w, "clients");
    iq_result(kept, xml_written(&w));
}

static void ask_for_list(struct iq *q, iq_store_f *done)
{
    Store__Request r = STORE__REQUEST__INIT;
    Store__ClientList list = STORE__CLIENT_LIST__INIT;
    r.owner = (ProtobufCBinaryData){q->asker.bare.n, (uint8_t *)q->asker.bare.p};
    r.op_case = STORE__REQUEST__OP_CLIENT_LIST, r.client_list = &list;
    iq_store(q, &r, done);
}

/* The own account's, which is not a guest's. */
static bool may(struct iq *q)
{
    if (q->entity == IQ_OWN_ACCOUNT && q->user && !q->user->anonymous)
        return true;
    iq_error(q,
             q->entity == IQ_OWN_ACCOUNT ? ERR_STANZA_SERVICE_UNAVAILABLE : ERR_STANZA_FORBIDDEN);
    return false;
}

static void get(struct iq *q)
{
    if (!may(q))
        return;
    if (str_is(q->payload.name, "list"))
        ask_for_list(q, listed);
    else
        iq_error(q, ERR_STANZA_BAD_REQUEST);
}

/* ---- revoke ---- */

static str wanted(struct iq *q)
{
    struct xml_el revoke = iq_payload(q, q->arena);
    return xml_attr(&revoke, "id", q->arena);
}

static void revoked(struct iq *kept, err e, const Store__Reply *reply)
{
    if (e) {
        iq_store_error(kept, e);
        return;
    }
    struct user *u = kept->user;
    str id = arena_dup(kept->arena, wanted(kept)); /* the answer frees kept and its stanza */
    iq_result(kept, STR_NONE);
    user_each_session(s, u)
        if (str_eq(session_client(s), id))
            session_doom(s, ERR_STREAM_REVOKED);
}

static void needs_password(struct iq *kept)
{
    iq_error_extra(kept, ERR_STANZA_SERVICE_UNAVAILABLE,
                   STR("<password-reset-required xmlns='urn:xmpp:cam:0'/>"));
}

static void found(struct iq *kept, err e, const Store__Reply *reply)
{
    str id = wanted(kept);
    const Store__Client *client = NULL;
    if (e) {
        iq_store_error(kept, e);
        return;
    }
    for (size_t i = 0; i < reply->clients->n_clients; i++)
        if (str_eq(text_of(reply->clients->clients[i]->client), id))
            client = reply->clients->clients[i];
    user_each_session(s, kept->user)
        if (str_eq(session_id(s, kept->arena), id) && !is_listed(reply->clients, s)) {
            needs_password(kept);
            return;
        }
    if (!client) {
        iq_error(kept, ERR_STANZA_ITEM_NOT_FOUND);
        return;
    }
    if (client->password) {
        needs_password(kept);
        return;
    }
    Store__Request r = STORE__REQUEST__INIT;
    Store__ClientRevoke revoke = STORE__CLIENT_REVOKE__INIT;
    r.owner = (ProtobufCBinaryData){kept->asker.bare.n, (uint8_t *)kept->asker.bare.p};
    revoke.client = client->client;
    r.op_case = STORE__REQUEST__OP_CLIENT_REVOKE, r.client_revoke = &revoke;
    iq_store(kept, &r, revoked);
}

static void set(struct iq *q)
{
    if (!may(q))
        return;
    str id = xml_attr(&q->payload, "id", q->arena);
    if (!str_is(q->payload.name, "revoke") || id.n == 0)
        iq_error(q, ERR_STANZA_BAD_REQUEST);
    else
        ask_for_list(q, found);
}

static const struct xep_iq iqs[] = {
    {"urn:xmpp:cam:0", IQ_OWN_ACCOUNT | IQ_OTHER_ACCOUNT, get, set},
    {NULL, 0, NULL, NULL},
};
static const char *const features[] = {"urn:xmpp:cam:0", NULL};
const struct xep xep_clients = {.name = "clients", .account = features, .iqs = iqs};
