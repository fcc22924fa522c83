/* negotiate: one step after the other, as on the wire, from the stream header until the client is
 * ready: RFC 6120 4-7, XEP-0198 3 and 5. Then every stanza is its owner's. */
#include <stdio.h>
#include <stdlib.h>

#include "bench/load/client.h"
#include "proto/base/base64.h"

#define SASL "xmlns='urn:ietf:params:xml:ns:xmpp-sasl'"
#define SM "xmlns='urn:xmpp:sm:3'"

void client_header(struct client *c)
{
    client_put(c, arena_printf(&c->rig->turn,
                               "<?xml version='1.0'?><stream:stream to='%s' version='1.0' "
                               "xml:lang='en' xmlns='jabber:client' "
                               "xmlns:stream='http://etherx.jabber.org/streams'>",
                               c->rig->host));
    c->step = CLIENT_FEATURES;
}

str client_jid(const struct client *c, struct arena *a)
{
    return arena_printf(a, "%s%u@%s/r%u", c->rig->prefix, c->user, c->rig->host, c->resource);
}

static void become_ready(struct client *c)
{
    c->step = CLIENT_READY;
    if (c->resumed)
        kept_again(c);
    c->rig->calls->ready(c);
}

/* It counts for the server's h, so it counts for us. */
static void put_stanza(struct client *c, str stanza)
{
    if (c->rig->keep)
        kept_put(c, stanza);
    client_put(c, stanza);
}

/* ---- SASL ---- */

void client_drop_login(struct client *c)
{
    if (c->scram)
        arena_close(&c->login);
    c->scram = NULL;
}

static void begin_sasl(struct client *c)
{
    static const char *const names[SCRAM_HASHES] = {"SCRAM-SHA-1", "SCRAM-SHA-256",
                                                    "SCRAM-SHA-512"};
    struct rig *r = c->rig;
    struct arena *a = &c->login;
    arena_init(a);
    struct scram_client *s = c->scram = arena_zalloc(a, sizeof *s);
    s->hash = r->mechanism;
    s->user = arena_printf(a, "%s%u", r->prefix, c->user);
    s->password = str_of(r->password);
    s->nonce =
        arena_printf(a, "%016llx%016llx", (unsigned long long)entropy_u64(&r->entropy.entropy),
                     (unsigned long long)entropy_u64(&r->entropy.entropy));
    s->salted = &r->salted;
    str first = base64_encode_in(a, scram_client_first(s, a));
    client_put(c, arena_printf(a, "<auth " SASL " mechanism='%s'>%.*s</auth>", names[s->hash],
                               STR_ARG(first)));
    c->step = CLIENT_CHALLENGE;
}

static void on_challenge(struct client *c, str item)
{
    struct arena *a = &c->login;
    struct xml_el el = xml_root(item, STR("jabber:client"), &c->rig->turn);
    str challenge, answer;
    if (base64_decode_in(a, xml_text(&el, &c->rig->turn), &challenge) != ERR_OK ||
        scram_client_final(c->scram, challenge, a, &answer) != ERR_OK)
        return client_fail(c, "bad SASL challenge");
    client_put(c, arena_printf(a, "<response " SASL ">%.*s</response>",
                               STR_ARG(base64_encode_in(a, answer))));
    c->step = CLIENT_SUCCESS;
}

static void on_success(struct client *c, str item)
{
    struct xml_el el = xml_root(item, STR("jabber:client"), &c->rig->turn);
    str final;
    if (base64_decode_in(&c->login, xml_text(&el, &c->rig->turn), &final) != ERR_OK ||
        !scram_client_verify(c->scram, final))
        return client_fail(c, "the server has not proven itself");
    client_drop_login(c);
    c->authenticated = true;
    client_header(c);
}

/* ---- features: STARTTLS, SASL, then resume or bind ---- */

static void put_bind(struct client *c)
{
    client_put(c, arena_printf(&c->rig->turn,
                               "<iq type='set' id='bind'><bind "
                               "xmlns='urn:ietf:params:xml:ns:xmpp-bind'>"
                               "<resource>r%u</resource></bind></iq>",
                               c->resource));
    c->step = CLIENT_BIND;
}

static void on_features(struct client *c)
{
    if (c->rig->security == SECURITY_STARTTLS && !c->secured) {
        client_put(c, STR("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"));
        c->step = CLIENT_PROCEED;
    } else if (!c->authenticated) {
        begin_sasl(c);
    } else if (c->sm_id[0]) {
        client_put(c, arena_printf(&c->rig->turn, "<resume " SM " previd='%s' h='%u'/>", c->sm_id,
                                   c->handled));
        c->step = CLIENT_RESUMED;
    } else {
        put_bind(c);
    }
}

/* <starttls/> may not be known as written yet, and nothing may be in flight below TLS. */
static void on_proceed(struct client *c)
{
    c->step = CLIENT_TLS;
    c->upgrading = c->flying != NULL;
    if (!c->upgrading)
        client_start_tls(c);
}

/* ---- the session ---- */

static void begin_presence(struct client *c)
{
    if (!c->rig->presence)
        return become_ready(c);
    put_stanza(c, STR("<iq type='get' id='roster'><query xmlns='jabber:iq:roster'/></iq>"));
    c->step = CLIENT_ROSTER;
}

static void on_bound(struct client *c)
{
    if (!c->rig->sm)
        return begin_presence(c);
    client_put(c, STR("<enable " SM " resume='true'/>"));
    c->step = CLIENT_ENABLED;
}

/* Of <enabled/>, <resumed/>, <a/>; numbers that are none are 0. */
static str attribute(const struct client *c, str item, const char *name)
{
    struct xml_el el = xml_root(item, STR("jabber:client"), &c->rig->turn);
    return xml_attr(&el, name, &c->rig->turn);
}

static uint32_t number(const struct client *c, str item, const char *name)
{
    str s = attribute(c, item, name);
    return s.p ? (uint32_t)strtoul(arena_dup(&c->rig->turn, s).p, NULL, 10) : 0;
}

static void on_enabled(struct client *c, str item)
{
    str id = attribute(c, item, "id");
    c->handled = c->acked = 0, c->enabled = true;
    if (id.p && id.n < SM_ID_MAX)
        memcpy(c->sm_id, id.p, id.n), c->sm_id[id.n] = 0;
    begin_presence(c);
}

static void on_resumed(struct client *c, str item)
{
    c->enabled = c->resumed = true;
    kept_acked(c, number(c, item, "h"));
    if (c->step < CLIENT_FAILED)
        become_ready(c);
}

/* The session is gone: a new one, as any client would make. */
static void on_resume_failed(struct client *c)
{
    client_forget(c);
    put_bind(c);
}

/* Its own presence comes back to it (RFC 6121 4.2.2): then the server has done its part. */
static void on_roster(struct client *c, str item)
{
    if (c->rig->calls->roster)
        c->rig->calls->roster(c, item);
    put_stanza(c, STR("<presence/>"));
    c->step = CLIENT_PRESENCE;
}

static void on_login_element(struct client *c, str name, str item, const struct xml_index *x)
{
    bool result = str_is(name, "iq") && x->type.off &&
                  str_is(str_from(item.p + x->type.off, x->type.len), "result");
    if (c->step == CLIENT_FEATURES && str_is(name, "features"))
        on_features(c);
    else if (c->step == CLIENT_PROCEED && str_is(name, "proceed"))
        on_proceed(c);
    else if (c->step == CLIENT_CHALLENGE && str_is(name, "challenge"))
        on_challenge(c, item);
    else if (c->step == CLIENT_SUCCESS && str_is(name, "success"))
        on_success(c, item);
    else if (c->step == CLIENT_ENABLED && str_is(name, "enabled"))
        on_enabled(c, item);
    else if (c->step == CLIENT_RESUMED && str_is(name, "resumed"))
        on_resumed(c, item);
    else if (c->step == CLIENT_RESUMED && str_is(name, "failed"))
        on_resume_failed(c);
    else if (c->step == CLIENT_BIND && result)
        on_bound(c);
    else if (c->step == CLIENT_ROSTER && result)
        on_roster(c, item);
    else if (c->step == CLIENT_PRESENCE && str_is(name, "presence"))
        become_ready(c);
    else if (c->step != CLIENT_ROSTER && c->step != CLIENT_PRESENCE) /* others' may be quicker */
        client_fail(c, arena_printf(&c->rig->turn, "unexpected: %.*s",
                                    item.n < 512 ? (int)item.n : 0, item.p)
                           .p);
}

void client_element(struct client *c, str item, const struct xml_index *x)
{
    str name = str_from(item.p + x->name_off, x->name_len);
    if (c->step == CLIENT_CLOSING)
        return;
    if (x->ns == NS_SM && str_is(name, "r"))
        return client_put(c, arena_printf(&c->rig->turn, "<a " SM " h='%u'/>", c->handled));
    if (x->ns == NS_SM && str_is(name, "a"))
        return c->rig->keep ? kept_acked(c, number(c, item, "h")) : (void)0;
    c->handled += x->ns == NS_CLIENT;
    if (c->step == CLIENT_READY)
        c->rig->calls->stanza(c, item, x);
    else
        on_login_element(c, name, item, x);
}
