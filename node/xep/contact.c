/* XEP-0157: whom to write to, as a form of the server's disco#info. */
#include "node/conf/conf.h"
#include "node/xep/xep.h"
#include "proto/xmpp/form.h"

static void put_field(struct xml_writer *w, const char *var, const struct iq *q,
                      struct conf_list uris)
{
    str *values = arena_alloc(q->arena, uris.count * sizeof *values);
    for (uint32_t i = 0; i < uris.count; i++)
        values[i] = conf_list_at(q->node->conf, uris, i);
    if (uris.count)
        form_put(w, var, values, uris.count);
}

static void info(const struct iq *q, struct xml_writer *w)
{
    const struct conf_host *h = q->host;
    const struct {
        const char *var;
        struct conf_list uris;
    } fields[] = {
        {"abuse-addresses", h->contact_abuse},       {"admin-addresses", h->contact_admin},
        {"feedback-addresses", h->contact_feedback}, {"sales-addresses", h->contact_sales},
        {"security-addresses", h->contact_security}, {"status-addresses", h->contact_status},
        {"support-addresses", h->contact_support},
    };
    uint32_t n = 0;
    for (size_t i = 0; i < array_len(fields); i++)
        n += fields[i].uris.count;
    if (q->entity != IQ_SERVER || !n)
        return;
    form_open(w, "result", NULL, "http://jabber.org/network/serverinfo");
    for (size_t i = 0; i < array_len(fields); i++)
        put_field(w, fields[i].var, q, fields[i].uris);
    form_close(w);
}

const struct xep xep_contact = {.name = "contact", .info = info};
