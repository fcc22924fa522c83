/* iq: finds who answers a request to an account or to the server, and sends the answer: to a
 * session of this home directly, to anybody else through its own home. The roster is the room's
 * own; all other namespaces are rows of extensions (node/xep). */
#include "node/home/iq.h"

#include "node/home/inside.h"
#include "node/xep/archive.h"

enum { HANDLER_SAMPLE = 64, MODULE_ROSTER = METRIC_SIZE_MODULE - 1 }; /* labels.def: MODULE */

/* A request that outlives its turn. iq is first: handlers hold &kept->iq. */
struct kept {
    struct iq iq;
    struct list link; /* of session->waiting->kept */
    iq_store_f *done;
};

/* payload lives in the turn's arena, so only one that was not kept has it. */
static bool is_kept(const struct iq *q) { return q->payload.all.p == NULL; }

static void end(struct iq *q)
{
    if (!is_kept(q))
        return;
    struct kept *k = container_of(q, struct kept, iq);
    if (q->session)
        ring_remove(&q->session->waiting->kept, &k->link), session_waited(q->session);
    stanza_unref(q->stanza);
    if (q->ticket)
        ticket_close(q->ticket);
    if (q->user)
        user_unpin(q->user);
    free(k);
}

static void answer(struct iq *q, struct stanza *s)
{
    int64_t us = home_wall_us(q->home) - q->us;
    metric_observe(q->node->metrics, HISTOGRAM_iq, us > 0 ? (uint64_t)us : 0);
    if (!s)
        return;
    if (q->entity == IQ_OTHER_ACCOUNT)
        home_send_derived(q->home, s, home_cause(q->ticket), q->asked, "iq", q->ticket);
    else if (q->session)
        session_answer(q->session, s, "iq", q->ticket);
    stanza_unref(s);
}

void iq_result(struct iq *q, str payload)
{
    struct arena *a = q->arena;
    struct xml_writer w;
    xml_writer_init(&w, a);
    xml_open(&w, "iq");
    xml_put_attr(&w, "type", STR("result"));
    xml_put_attr(&w, "id", xml_unescape(stanza_id(q->stanza), true, a));
    xml_put_attr(&w, "to", q->asker.full);
    if (q->stanza->index.to.off)
        xml_put_attr(&w, "from", q->asked);
    if (payload.n)
        xml_put_raw(&w, payload);
    xml_close(&w, "iq");
    answer(q, stanza_make(q->node->scan, xml_written(&w), a));
    end(q);
}

void iq_error_extra(struct iq *q, err e, str extra)
{
    home_count(q->home, METRIC_AT(stanza_errors, METRIC_ERR(CONDITION, e), 0), 1);
    str by = q->entity == IQ_OTHER_ACCOUNT ? jid_parse_prepared(q->asked).domain : STR_NONE;
    answer(q, stanza_error(q->node->scan, q->stanza, e, by, extra, q->arena));
    end(q);
}

void iq_error(struct iq *q, err e) { iq_error_extra(q, e, STR_NONE); }

struct iq *iq_keep(struct iq *q)
{
    must(!is_kept(q));
    struct kept *k = malloc(sizeof *k);
    must(k);
    *k = (struct kept){.iq = *q};
    k->iq.payload = (struct xml_el){0};
    stanza_ref(q->stanza); /* asker and asked are views into it */
    if (q->ticket)
        ticket_open(q->ticket);
    if (q->user)
        user_pin(q->user);
    list_init(&k->link);
    if (q->session)
        ring_push_back(&session_waiting(q->session)->kept, &k->link);
    return &k->iq;
}

void iq_session_ended(struct session *s)
{
    archive_session_ended(s);
    while (s->waiting && s->waiting->kept) {
        struct kept *k = list_entry(s->waiting->kept, struct kept, link);
        k->iq.session = NULL;
        ring_remove(&s->waiting->kept, &k->link);
    }
}

struct xml_el iq_payload(const struct iq *q, struct arena *a)
{
    struct xml_el root = stanza_root(q->stanza, a), child;
    must(xml_first(&root, &child, a));
    return child;
}

static void on_stored(struct home *h, void *ctx, err e, const Store__Reply *reply)
{
    struct kept *k = ctx;
    k->done(&k->iq, e, reply);
}

void iq_store(struct iq *q, struct Store__Request *request, iq_store_f *done)
{
    struct iq *kept = is_kept(q) ? q : iq_keep(q);
    struct kept *k = container_of(kept, struct kept, iq);
    k->done = done;
    str owner =
        request->owner.len ? home_str(request->owner) : jid_parse_prepared(kept->asked).bare;
    home_store(kept->home, owner, request, on_stored, k);
}

void iq_store_error(struct iq *kept, err e)
{
    switch (e) {
    case ERR_DISK_FULL: iq_error(kept, ERR_STANZA_DISK_FULL); return;
    case ERR_NOT_FOUND: iq_error(kept, ERR_STANZA_ITEM_NOT_FOUND); return;
    case ERR_EXISTS: iq_error(kept, ERR_STANZA_CONFLICT); return;
    case ERR_BAD: /* over a bound of the store's own, e.g. of a key's length */
        iq_error(kept, ERR_STANZA_NOT_ACCEPTABLE);
        return;
    default: iq_error(kept, ERR_STANZA_STORE_AWAY);
    }
}

/* ---- dispatch ---- */

/* Its cost is taken from some, times their number. The handler may free q. */
static void run(struct iq *q, iq_handler_f *handler, unsigned module)
{
    struct home *h = q->home;
    home_count(h, METRIC_AT(module_requests, module, 0), 1);
    if (++h->handled % HANDLER_SAMPLE) {
        handler(q);
        return;
    }
    int64_t began_us = home_wall_us(h);
    handler(q);
    int64_t us = home_wall_us(h) - began_us;
    home_count(h, METRIC_AT(module_cpu_us, module, 0), us > 0 ? us * HANDLER_SAMPLE : 0);
}

static void dispatch_roster(struct iq *q)
{
    if (q->entity != IQ_OWN_ACCOUNT || !xml_is(&q->payload, "", "query"))
        iq_error(q, ERR_STANZA_SERVICE_UNAVAILABLE);
    else
        run(q, q->set ? roster_iq_set : roster_iq_get, MODULE_ROSTER);
}

static void dispatch_xep(struct iq *q)
{
    const struct xep *x;
    const struct xep_iq *row = xep_iq_find(q->payload.ns, &x);
    if (!row || !(row->entities & q->entity) || !q->host ||
        !xep_active(x, q->node->conf, q->host)) {
        iq_error(q, ERR_STANZA_SERVICE_UNAVAILABLE);
        return;
    }
    iq_handler_f *handler = q->set ? row->set : row->get;
    if (handler)
        run(q, handler, xep_index(x));
    else if (q->entity == IQ_OTHER_ACCOUNT) /* as if nobody were there (xmpp.md 3) */
        iq_error(q, ERR_STANZA_SERVICE_UNAVAILABLE);
    else
        iq_error(q, ERR_STANZA_FEATURE_NOT_IMPLEMENTED);
}

void iq_dispatch(struct home *h, enum iq_entity entity, struct user *u, struct session *s,
                 struct stanza *stanza, bool subscribed, int64_t us, struct ticket *t)
{
    struct arena *a = home_arena(h);
    struct iq q = {.home = h,
                   .node = h->node,
                   .entity = entity,
                   .user = u,
                   .session = s,
                   .asker = jid_parse_prepared(stanza_from(stanza)),
                   .subscribed = subscribed,
                   .stanza = stanza,
                   .set = stanza->type == TYPE_SET,
                   .ticket = t,
                   .arena = a,
                   .us = us};
    q.asked = stanza_to(stanza).n ? stanza_to(stanza) : q.asker.bare;
    q.host = conf_host_find(h->node->conf, jid_parse_prepared(q.asked).domain);
    struct xml_el root = stanza_root(stanza, a);
    if (!xml_first(&root, &q.payload, a)) {
        iq_error(&q, ERR_STANZA_BAD_REQUEST);
        return;
    }
    if (str_is(q.payload.ns, "jabber:iq:roster"))
        dispatch_roster(&q);
    else if (str_is(q.payload.ns, "urn:ietf:params:xml:ns:xmpp-session") && q.set &&
             entity != IQ_OTHER_ACCOUNT)
        iq_result(&q, STR_NONE); /* RFC 3921 3: old clients ask for it, it means nothing any more */
    else
        dispatch_xep(&q);
}
