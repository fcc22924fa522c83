/* sasl2: see sasl2.h. */
#include "node/edge/sasl2.h"

#include "node/edge/auth.h"
#include "node/edge/c2s.h"
#include "node/edge/fast.h"
#include "node/edge/upgrade.h"
#include "proto/base/base64.h"
#include "proto/xmpp/jid.h"

static const char BIND2[] = "urn:xmpp:bind:0", IAP[] = "urn:xmpp:iap:0";

/* ---- what is offered ---- */

/* What Bind 2 may switch on (XEP-0386 4.1). */
static void put_bind_inline(const struct conn *c, struct xml_writer *w)
{
    static const struct {
        const char *module, *feature;
    } rows[] = {
#define INLINE(module, feature) {#module, feature},
#include "node/edge/inline.def"
#undef INLINE
        {NULL, "urn:xmpp:sm:3"}};
    const struct conf *conf = c->edge->node->conf;
    const struct conf_host *host = conf_host_find(conf, stream_host(c));
    xml_open_ns(w, "bind", BIND2);
    xml_open(w, "inline");
    for (size_t i = 0; i < array_len(rows); i++) {
        if (rows[i].module && conf_module_off(conf, host, str_of(rows[i].module)))
            continue;
        xml_open(w, "feature");
        xml_put_attr(w, "var", str_of(rows[i].feature));
        xml_close(w, "feature");
    }
    xml_close(w, "inline");
    xml_close(w, "bind");
}

void sasl2_put_features(struct conn *c, struct xml_writer *w)
{
    const struct sasl_offer *o = &c->negotiation->offer;
    if (!c->secured || !o->mechanisms) /* XEP-0388 7 */
        return;
    xml_open_ns(w, "authentication", xml_ns_uri(NS_SASL2).p);
    auth_put_mechanisms(o, w);
    xml_open(w, "inline");
    xml_put_leaf(w, "sm", xml_ns_uri(NS_SM).p, STR_NONE);
    put_bind_inline(c, w);
    fast_put_features(c, w);
    xml_close(w, "inline");
    upgrade_put_features(c, w);
    xml_close(w, "authentication");
}

/* The same wherever the same is offered: a hash of it. */
void sasl2_put_version(struct conn *c, struct xml_writer *w)
{
    struct negotiation *n = c->negotiation;
    unsigned char digest[SCRAM_DIGEST_MAX];
    str features = xml_written(w);
    scram_digest(SCRAM_SHA256, &features, 1, digest);
    base64_encode(n->version, str_from(digest, sizeof n->version / 4 * 3));
    xml_open_ns(w, "config-version", IAP);
    xml_put_attr(w, "scheme", STR("opaque"));
    xml_put_attr(w, "value", str_from(n->version, sizeof n->version));
    xml_close(w, "config-version");
}

/* ---- what is asked for ---- */

/* Does it go by other features than those that were shown? */
static bool is_outdated(const struct conn *c, const struct xml_el *request)
{
    const struct negotiation *n = c->negotiation;
    struct arena *a = c->edge->node->turn;
    struct xml_el version;
    return xml_find(request, IAP, "config-version", &version, a) &&
           !str_eq(xml_attr(&version, "value", a), str_from(n->version, sizeof n->version));
}

/* Nobody has tried anything: nothing is charged for it (XEP-0509 2.2). */
static void refuse_outdated(struct conn *c)
{
    auth_put_failure(c, ERR_SASL_ABORTED, STR("<config-version-mismatch xmlns='urn:xmpp:iap:0'/>"));
}

static void keep_text(const struct xml_el *parent, const char *name, str *out, struct arena *a)
{
    struct xml_el el;
    if (!xml_find(parent, xml_ns_uri(NS_SASL2).p, name, &el, a))
        return;
    str text = xml_text(&el, a);
    if (text.n && text.n <= SASL2_TEXT_MAX)
        negotiation_keep(out, text);
}

static void keep_agent(struct sasl2 *s, const struct xml_el *request, struct arena *a)
{
    struct xml_el agent;
    if (!xml_find(request, xml_ns_uri(NS_SASL2).p, "user-agent", &agent, a))
        return;
    str id = xml_attr(&agent, "id", a);
    if (id.n && id.n <= SASL2_TEXT_MAX)
        negotiation_keep(&s->agent, id);
    keep_text(&agent, "software", &s->software, a);
    keep_text(&agent, "device", &s->device, a);
}

static void keep_element(const struct xml_el *request, const char *ns, const char *name, str *out,
                         struct arena *a)
{
    struct xml_el el;
    if (xml_find(request, ns, name, &el, a))
        negotiation_keep(out, xml_standalone(&el, STR("jabber:client"), a));
}

void sasl2_begin(struct conn *c, str item, const struct xml_index *x)
{
    struct arena *a = c->edge->node->turn;
    struct negotiation *n = c->negotiation;
    if (n->sasl2 || auth_is_going_on(n)) /* XEP-0388 2.6: nothing but what the exchange needs */
        return conn_end(c, ERR_STREAM_NOT_AUTHORIZED);
    struct sasl2 *s = n->sasl2 = calloc(1, sizeof *s);
    must(s);
    if (!c->secured)
        return auth_fail(c, ERR_SASL_ENCRYPTION_REQUIRED);
    struct xml_el el = xml_root(item, STR("jabber:client"), a), initial;
    if (is_outdated(c, &el))
        return refuse_outdated(c);
    keep_agent(s, &el, a);
    upgrade_read(c, &el);
    keep_element(&el, BIND2, "bind", &s->bind, a);
    keep_element(&el, xml_ns_uri(NS_SM).p, "resume", &s->resume, a);
    if (!fast_read(c, &el))
        return auth_fail(c, ERR_SASL_MALFORMED_REQUEST);
    bool has = xml_find(&el, xml_ns_uri(NS_SASL2).p, "initial-response", &initial, a);
    str text = has ? xml_text(&initial, a) : STR_NONE;
    auth_start(c, xml_attr(&el, "mechanism", a), has ? &text : NULL);
}

void sasl2_free(struct negotiation *n)
{
    struct sasl2 *s = n->sasl2;
    if (!s)
        return;
    str *all[] = {&s->additional, &s->agent,  &s->software, &s->device, &s->resume,
                  &s->bind,       &s->failed, &s->keys,     &s->word,   &s->token};
    n->offer.tokens = 0;
    if (s->keys.n)
        scram_wipe((char *)s->keys.p, s->keys.n);
    for (size_t i = 0; i < array_len(all); i++)
        free((char *)all[i]->p);
    free(s);
    n->sasl2 = NULL;
}

/* ---- it is done ---- */

/* identity: bare or full JID; inner: what else was done. */
static void put_success(struct conn *c, str identity, str inner)
{
    const struct sasl2 *s = c->negotiation->sasl2;
    struct arena *a = c->edge->node->turn;
    struct xml_writer w;
    xml_writer_init(&w, a);
    xml_open_ns(&w, "success", xml_ns_uri(NS_SASL2).p);
    if (s->additional.n)
        xml_put_leaf(&w, "additional-data", NULL, s->additional);
    xml_put_leaf(&w, "authorization-identifier", NULL, identity);
    xml_put_raw(&w, s->failed);
    xml_put_raw(&w, inner);
    xml_put_raw(&w, s->token);
    xml_close(&w, "success");
    conn_put(c, xml_written(&w));
}

static void finish_unbound(struct conn *c, str inner)
{
    put_success(c, c->negotiation->bare, inner);
    sasl2_free(c->negotiation);
    stream_put_features(c);
    conn_resume(c, PAUSE_HOME);
}

/* The part of a resource that is this client's, or that nobody had before. Its id is not to be seen
 * in it (XEP-0386 4.2). */
str sasl2_client(const struct conn *c, str bare)
{
    struct node *node = c->edge->node;
    const struct negotiation *n = c->negotiation;
    unsigned char bytes[SCRAM_DIGEST_MAX];
    str parts[] = {STR("pemberley client\0"), bare, STR("\0"), n->sasl2->agent};
    if (n->sasl2->agent.n)
        scram_hmac(SCRAM_SHA256, str_from(node->secret, sizeof node->secret), parts,
                   array_len(parts), bytes);
    else
        entropy_fill(node->entropy, bytes, sizeof bytes);
    str text = base64_encode_in(node->turn, str_from(bytes, SASL2_CLIENT_N / 4 * 3));
    must(text.n == SASL2_CLIENT_N);
    char *p = (char *)text.p;
    for (size_t i = 0; i < text.n; i++)
        p[i] = p[i] == '+' ? '-' : p[i] == '/' ? '_' : p[i];
    return text;
}

/* [tag]/[ours] (XEP-0386 4.2); without the tag, where that cannot be part of a resource. */
static str resource_of(struct conn *c, const struct xml_el *bind)
{
    struct arena *a = c->edge->node->turn;
    str ours = sasl2_client(c, c->negotiation->bare), out;
    struct xml_el tag;
    str text = xml_find(bind, BIND2, "tag", &tag, a) ? xml_text(&tag, a) : STR_NONE;
    if (text.n == 0 || text.n > SASL2_TEXT_MAX)
        return ours;
    str parts[] = {text, STR("/"), ours};
    return jid_prepare_resource(arena_concat(a, parts, 3), a, &out) == ERR_OK ? out : ours;
}

void sasl2_go_on(struct conn *c)
{
    struct negotiation *n = c->negotiation;
    struct sasl2 *s = n->sasl2;
    if (upgrade_next(c))
        return;
    if (!s->noted)
        return s->noted = true, fast_note(c);
    if (s->resume.n && !s->failed.n)
        return c2s_resume(c, s->resume);
    if (!s->bind.n)
        return finish_unbound(c, STR_NONE);
    struct xml_el bind = xml_root(s->bind, STR("jabber:client"), c->edge->node->turn);
    c2s_bind2(c, &bind, resource_of(c, &bind), s->agent.n > 0);
}

void sasl2_authenticated(struct conn *c, str additional)
{
    struct sasl2 *s = c->negotiation->sasl2;
    if (additional.n)
        negotiation_keep(&s->additional, base64_encode_in(c->edge->node->turn, additional));
    c->step = STEP_BIND;
    sasl2_go_on(c);
}

void sasl2_resume_failed(struct conn *c, str failed)
{
    negotiation_keep(&c->negotiation->sasl2->failed, failed);
    sasl2_go_on(c);
}

/* No features behind it: the stream is what it was (XEP-0198 9.2). */
void sasl2_resumed(struct conn *c, str full, str resumed) { put_success(c, full, resumed); }

static str bound_element(struct conn *c, const struct frame *f)
{
    struct xml_writer w;
    xml_writer_init(&w, c->edge->node->turn);
    xml_open_ns(&w, "bound", BIND2);
    xml_put_raw(&w, f->payload);
    if (f->flags & FRAME_WANT_SM)
        xml_put_raw(&w, c2s_begin_sm(c->session, f->ms));
    xml_close(&w, "bound");
    return xml_written(&w);
}

/* Who could not be bound may try the old way. */
static void bind_failed(struct conn *c, err reason)
{
    struct arena *a = c->edge->node->turn;
    str parts[] = {STR("<failed xmlns='urn:xmpp:bind:0'>"),
                   stanza_error_element(reason, STR_NONE, STR_NONE, a), STR("</failed>")};
    finish_unbound(c, arena_concat(a, parts, array_len(parts)));
}

void sasl2_bound(struct conn *c, const struct frame *f)
{
    if (f->reason != ERR_OK)
        return bind_failed(c, f->reason);
    c->session = c2s_new(c, f->sid, f->gen, f->text);
    put_success(c, f->text, bound_element(c, f));
    sasl2_free(c->negotiation);
    stream_put_features(c);
}
