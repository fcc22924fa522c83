#include "node/xep/adhoc.h"

#include <stdio.h>

#include "node/conf/conf.h"
#include "node/xep/xep.h"

/* ---- answers ---- */

static void answer(const struct adhoc *r, const char *status, str actions, str payload)
{
    struct xml_writer w;
    xml_writer_init(&w, r->iq->arena);
    xml_open_ns(&w, "command", ADHOC_NS);
    xml_put_attr(&w, "node", str_of(r->command->node));
    xml_put_attr(&w, "sessionid", str_of(r->session));
    xml_put_attr(&w, "status", str_of(status));
    xml_put_raw(&w, actions);
    xml_put_raw(&w, payload);
    xml_close(&w, "command");
    iq_result(r->iq, xml_written(&w));
}

void adhoc_ask(const struct adhoc *r, str form)
{
    answer(r, "executing", STR("<actions execute='complete'><complete/></actions>"), form);
}

void adhoc_done(const struct adhoc *r, str payload) { answer(r, "completed", STR_NONE, payload); }

void adhoc_failed(const struct adhoc *r, str why)
{
    struct xml_writer w;
    xml_writer_init(&w, r->iq->arena);
    xml_open(&w, "note");
    xml_put_attr(&w, "type", STR("error"));
    xml_put_text(&w, why);
    xml_close(&w, "note");
    adhoc_done(r, xml_written(&w));
}

static void refuse(struct iq *q, const char *condition) /* 4.4 */
{
    iq_error_extra(q, ERR_STANZA_BAD_REQUEST,
                   arena_printf(q->arena, "<%s xmlns='" ADHOC_NS "'/>", condition));
}

void adhoc_bad_payload(const struct adhoc *r) { refuse(r->iq, "bad-payload"); }

/* ---- requests ---- */

static const struct adhoc_command *find(str node)
{
    for (const struct adhoc_command *c = service_admin_commands; c->node; c++)
        if (str_eq(node, str_of(c->node)))
            return c;
    return NULL;
}

/* False: refused. */
static bool read_session(struct iq *q, struct adhoc *r)
{
    str id = xml_attr(&q->payload, "sessionid", q->arena);
    if (id.n >= sizeof r->session) {
        refuse(q, "bad-sessionid");
        return false;
    }
    if (id.n)
        memcpy(r->session, id.p, id.n);
    else
        snprintf(r->session, sizeof r->session, "%016llx",
                 (unsigned long long)entropy_u64(q->node->entropy));
    return true;
}

static void cancel(const struct adhoc *r) { answer(r, "canceled", STR_NONE, STR_NONE); }

static void set(struct iq *q)
{
    str action = xml_attr(&q->payload, "action", q->arena);
    struct adhoc r = {.iq = q, .command = find(xml_attr(&q->payload, "node", q->arena))};
    r.submitted = xml_find(&q->payload, "jabber:x:data", "x", &r.form, q->arena);
    if (!xml_is(&q->payload, ADHOC_NS, "command"))
        iq_error(q, ERR_STANZA_BAD_REQUEST);
    else if (!r.command)
        iq_error(q, ERR_STANZA_ITEM_NOT_FOUND);
    else if (!r.command->may(q))
        iq_error(q, ERR_STANZA_FORBIDDEN);
    else if (!read_session(q, &r))
        return;
    else if (str_is(action, "cancel"))
        cancel(&r);
    else if (str_is(action, "prev") || str_is(action, "next"))
        refuse(q, "bad-action");
    else if (action.n && !str_is(action, "execute") && !str_is(action, "complete"))
        refuse(q, "malformed-action");
    else
        r.command->run(&r);
}

/* ---- disco (2.1, 2.2) ---- */

static void put_list(struct iq *q)
{
    struct xml_writer w;
    str domain = conf_text(q->node->conf, q->host->domain);
    xml_writer_init(&w, q->arena);
    xml_open_ns(&w, "query", "http://jabber.org/protocol/disco#items");
    xml_put_attr(&w, "node", STR(ADHOC_NS));
    for (const struct adhoc_command *c = service_admin_commands; c->node; c++) {
        if (!c->may(q))
            continue;
        xml_open(&w, "item");
        xml_put_attr(&w, "jid", domain);
        xml_put_attr(&w, "node", str_of(c->node));
        xml_put_attr(&w, "name", str_of(c->name));
        xml_close(&w, "item");
    }
    xml_close(&w, "query");
    iq_result(q, xml_written(&w));
}

static void put_info(struct iq *q, str node, const char *type, const char *name)
{
    struct xml_writer w;
    xml_writer_init(&w, q->arena);
    xml_open_ns(&w, "query", "http://jabber.org/protocol/disco#info");
    xml_put_attr(&w, "node", node);
    xml_open(&w, "identity");
    xml_put_attr(&w, "category", STR("automation"));
    xml_put_attr(&w, "type", str_of(type));
    xml_put_attr(&w, "name", str_of(name));
    xml_close(&w, "identity");
    xml_put_raw(&w, STR("<feature var='" ADHOC_NS "'/><feature var='jabber:x:data'/>"));
    xml_close(&w, "query");
    iq_result(q, xml_written(&w));
}

static bool disco_node(struct iq *q, str node, bool items)
{
    const struct adhoc_command *c = find(node);
    if (q->entity != IQ_SERVER || (c && !c->may(q)))
        return false;
    if (str_is(node, ADHOC_NS) && items)
        put_list(q);
    else if (str_is(node, ADHOC_NS))
        put_info(q, node, "command-list", "Commands");
    else if (c && !items)
        put_info(q, node, "command-node", c->name);
    else
        return false;
    return true;
}

static const struct xep_iq iqs[] = {
    {ADHOC_NS, IQ_SERVER, NULL, set},
    {NULL, 0, NULL, NULL},
};
static const char *const features[] = {ADHOC_NS, NULL};
const struct xep xep_adhoc = {
    .name = "adhoc", .server = features, .disco_node = disco_node, .iqs = iqs};
