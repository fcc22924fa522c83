/* XEP-0157: whom to write to, as a form of the server's disco#info. */
#include "node/conf/conf.h"
#include "node/xep/xep.h"

static void put_field(struct xml_writer *w, const char *var, const struct conf *c,
                      struct conf_list uris)
{
    if (!uris.count)
        return;
    xml_open(w, "field");
    xml_put_attr(w, "var", str_of(var));
    for (uint32_t i = 0; i < uris.count; i++)
        xml_put_leaf(w, "value", NULL, conf_list_at(c, uris, i));
    xml_close(w, "field");
}

static void put_form_type(struct xml_writer *w)
{
    xml_open(w, "field");
    xml_put_attr(w, "var", STR("FORM_TYPE"));
    xml_put_attr(w, "type", STR("hidden"));
    xml_put_leaf(w, "value", NULL, STR("http://jabber.org/network/serverinfo"));
    xml_close(w, "field");
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
    xml_open_ns(w, "x", "jabber:x:data");
    xml_put_attr(w, "type", STR("result"));
    put_form_type(w);
    for (size_t i = 0; i < array_len(fields); i++)
        put_field(w, fields[i].var, q->node->conf, fields[i].uris);
    xml_close(w, "x");
}

const struct xep xep_contact = {.name = "contact", .info = info};
