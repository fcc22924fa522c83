/* c2s: a session begins, takes its client's stanzas in, and ends (c2s.h). */
#include "node/edge/c2s.h"

#include "node/edge/sasl2.h"
#include "proto/xmpp/jid.h"

/* ---- frames ---- */

unsigned c2s_home(const struct c2s *s)
{
    return ring_home_of_slot(s->conn->edge->node->ring, (unsigned)(s->sid >> 50));
}

void c2s_tell(struct c2s *s, struct frame *f, bool keep)
{
    f->sid = s->sid, f->gen = s->gen;
    channel_send(s->conn->edge->node->channels, c2s_home(s), f, (struct hold){0}, keep);
}

static void tell_home_of(struct conn *c, str bare, struct frame *f)
{
    struct node *n = c->edge->node;
    if (n->epoch) /* what a home says late to the request before is not for this one */
        negotiation_renumber(c->negotiation);
    f->bare = bare, f->conn = c->negotiation->number;
    f->text = conn_address_text(c, n->turn);
    f->lane = conn_tls_version(c);
    conn_pause(c, PAUSE_HOME);
    channel_send(n->channels, ring_home(n->ring, bare), f, (struct hold){0}, true);
}

/* What a hold's number says: the low bits of the generation (a settled stanza of a former
 * attachment says nothing about this one, delivery.md 5.2), those of ord (the window is far
 * narrower), and the stanza's size in HOLD_UNITs, for limits.inbound_max. */
enum { HOLD_ORD_BITS = 24, HOLD_SIZE_BITS = 24, HOLD_UNIT = 64 };

static uint64_t hold_number(const struct c2s *s, const struct stanza *stanza)
{
    uint64_t ord = s->in_ord & ((1u << HOLD_ORD_BITS) - 1);
    uint64_t size = stanza->size / HOLD_UNIT + 1;
    return (uint64_t)(s->gen & 0xffff) << 48 | size << HOLD_ORD_BITS | ord;
}
static size_t hold_size(struct hold h)
{
    return (h.b >> HOLD_ORD_BITS & ((1u << HOLD_SIZE_BITS) - 1)) * HOLD_UNIT;
}
/* The last ord up to in_ord with these low bits. */
static uint64_t hold_ord(struct hold h, uint64_t in_ord)
{
    return in_ord - ((in_ord - h.b) & ((1u << HOLD_ORD_BITS) - 1));
}

/* How long it takes until a stanza is safe, of some of those that are waited for: one at a
 * time per row of the table. */
static struct probe *probe_of(struct edge *e, struct hold h)
{
    return &e->probes[h.a % array_len(e->probes)];
}
static void probe_begin(struct edge *e, struct hold h)
{
    struct probe *p = probe_of(e, h);
    if (!p->us)
        *p = (struct probe){h.a, h.b, loop_now_us(e->node->loop)};
}
static void probe_end(struct edge *e, struct hold h)
{
    struct probe *p = probe_of(e, h);
    if (!p->us || p->a != h.a || p->b != h.b)
        return;
    metric_observe(e->node->metrics, HISTOGRAM_safe, loop_now_us(e->node->loop) - p->us);
    p->us = 0;
}

/* ---- begin ---- */

void c2s_bind(struct conn *c, str item)
{
    struct arena *a = c->edge->node->turn;
    struct xml_el iq = xml_root(item, STR("jabber:client"), a), bind, wish;
    struct frame f = {.kind = FRAME_BIND};
    str resource = STR_NONE;
    if (!xml_find(&iq, "urn:ietf:params:xml:ns:xmpp-bind", "bind", &bind, a))
        return stream_put_iq_error(c, c->negotiation->bind_id, ERR_STANZA_BAD_REQUEST);
    if (xml_find(&bind, "", "resource", &wish, a))
        resource = xml_text(&wish, a);
    if (resource.n && jid_prepare_resource(resource, a, &f.resource) != ERR_OK)
        return stream_put_iq_error(c, c->negotiation->bind_id, ERR_STANZA_BAD_REQUEST);
    f.flags = c->negotiation->anonymous ? FRAME_ANONYMOUS : 0;
    tell_home_of(c, c->negotiation->bare, &f);
}

void c2s_bind2(struct conn *c, const struct xml_el *bind, str resource, bool client)
{
    struct arena *a = c->edge->node->turn;
    struct frame f = {.kind = FRAME_BIND,
                      .flags = FRAME_BIND2 | (client ? (uint32_t)FRAME_CLIENT : 0) |
                               (c->negotiation->anonymous ? (uint32_t)FRAME_ANONYMOUS : 0),
                      .resource = resource,
                      .payload = bind->all};
    struct xml_el enable;
    if (xml_find(bind, xml_ns_uri(NS_SM).p, "enable", &enable, a))
        f.flags |= FRAME_WANT_SM | c2s_enable_wish(c, &enable, &f.ms);
    tell_home_of(c, c->negotiation->bare, &f);
}

/* With memory for its names alone: there are as many of it as clients. */
static struct c2s *new_with_names(str full, struct arena *a)
{
    str to = xml_attr_text("to", full, a);
    bool escaped = to.n != C2S_TO_N + full.n + 1;
    size_t size = offsetof(struct c2s, names) + to.n + (escaped ? full.n : 0);
    struct c2s *s = calloc(1, size > sizeof *s ? size : sizeof *s);
    must(s);
    memcpy(s->names, to.p, to.n);
    if (escaped)
        memcpy(s->names + to.n, full.p, full.n);
    s->to_n = (uint16_t)to.n, s->full_n = (uint16_t)full.n;
    s->bare_n = (uint16_t)jid_parse_prepared(full).bare.n;
    return s;
}

struct c2s *c2s_new(struct conn *c, uint64_t sid, uint32_t gen, str full)
{
    struct c2s *s = new_with_names(full, c->edge->node->turn);
    s->conn = c, s->gen = gen;
    s->host = (uint8_t)conf_host_metric(c->edge->node->conf, jid_parse_prepared(full).domain);
    htable_insert(&c->edge->sessions, &s->by_sid, sid);
    return s;
}

void c2s_count_host(const struct c2s *s, enum metric_way way, enum stanza_kind kind, size_t n)
{
    struct metric_page *m = s->conn->edge->node->metrics;
    metric_add(m, METRIC_AT(host_stanzas, s->host, METRIC_TRAFFIC(way, kind)), 1);
    metric_add(m, METRIC_AT(host_bytes, s->host, way), (int64_t)n);
}

struct c2s *c2s_find(struct edge *e, uint64_t sid, uint32_t gen)
{
    struct hnode *first = htable_find(&e->sessions, sid);
    for (struct hnode *n = first; n; n = htable_find_next(n)) {
        struct c2s *s = container_of(n, struct c2s, by_sid);
        if (s->gen == gen) /* two generations may meet on one edge */
            return s;
    }
    if (first)
        metric_add(e->node->metrics, METRIC_AT(cluster_frames_refused, FRAMES_GEN, 0), 1);
    return NULL;
}

struct conn *c2s_waiting_conn(struct edge *e, const struct frame *f)
{
    struct conn *c = conn_find(e, f->conn);
    return c && !c->ending && c->step == STEP_BIND && (c->pauses & PAUSE_HOME) ? c : NULL;
}

void c2s_on_bound(struct edge *e, struct origin from, const struct frame *f)
{
    struct conn *c = c2s_waiting_conn(e, f);
    if (c)
        return stream_bound(c, f);
    if (f->reason != ERR_OK)
        return;
    struct frame end = {.kind = FRAME_END, .sid = f->sid, .gen = f->gen, .reason = ERR_CLOSED};
    channel_send(e->node->channels, from.peer, &end, (struct hold){0}, true);
}

/* previd: sixteen hexadecimal digits of the sid, "-", and what is nobody's business. */
static bool parse_previd(str previd, uint64_t *sid)
{
    *sid = 0;
    if (previd.n < 17 || previd.p[16] != '-')
        return false;
    for (int i = 0; i < 16; i++) {
        const char *digits = "0123456789abcdef", *d = strchr(digits, previd.p[i]);
        if (!d || !*d)
            return false;
        *sid = *sid << 4 | (uint64_t)(d - digits);
    }
    return *sid != 0;
}

static void resume_failed(struct conn *c, const struct frame *f)
{
    struct arena *a = c->edge->node->turn;
    bool has_h = f->flags & FRAME_HAS_H;
    str parts[] = {STR("<failed xmlns='urn:xmpp:sm:3'"),
                   has_h ? arena_printf(a, " h='%u'", (uint32_t)f->h) : STR_NONE,
                   STR("><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>")};
    str failed = arena_concat(a, parts, array_len(parts));
    if (c->negotiation->sasl2)
        return sasl2_resume_failed(c, failed);
    conn_put(c, failed);
    conn_resume(c, PAUSE_HOME);
}

static bool parse_u32(str s, uint32_t *out)
{
    uint64_t v = 0;
    if (s.n == 0 || s.n > 10)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9')
            return false;
        v = v * 10 + (uint64_t)(s.p[i] - '0');
    }
    return *out = (uint32_t)v, v <= UINT32_MAX;
}

void c2s_resume(struct conn *c, str item)
{
    struct arena *a = c->edge->node->turn;
    struct xml_el el = xml_root(item, STR("jabber:client"), a);
    str previd = xml_attr(&el, "previd", a);
    struct frame f = {.kind = FRAME_RESUME};
    uint32_t h = 0;
    if (!parse_previd(previd, &f.sid) || !parse_u32(xml_attr(&el, "h", a), &h)) {
        metric_add(c->edge->node->metrics, METRIC_resumption_failures_malformed, 1);
        return resume_failed(c, &f);
    }
    f.h = h;
    negotiation_keep(&c->negotiation->bind_id, xml_escape(previd, a));
    tell_home_of(c, c->negotiation->bare, &f);
}

static void take_snap(struct c2s *s, const struct snap *snap)
{
    s->sm = true, s->resumable = snap->resumable, s->max_s = snap->max_ms / 1000;
    s->in_ord = s->window.safe = snap->in_ord;
    s->in_base = snap->in_base;
    s->out_base = snap->out_base;
    s->acked = s->taken = s->put = s->asked = snap->out_acked;
}

/* The home counts on us as the holder of what follows, whether its client is still there or not. */
static void hold_anyway(struct edge *e, unsigned home, const struct frame *f)
{
    struct frame snap = *f;
    snap.kind = FRAME_SNAP;
    if (home != e->node->shard)
        copies_frame(e->node->copies, &snap);
}

void c2s_on_resumed(struct edge *e, struct origin from, const struct frame *f)
{
    struct arena *a = e->node->turn;
    struct conn *c = c2s_waiting_conn(e, f);
    struct snap snap;
    if (!c || snap_decode(f->payload, a, &snap) != ERR_OK) {
        hold_anyway(e, from.peer, f);
        struct frame detach = {
            .kind = FRAME_DETACH, .sid = f->sid, .gen = f->gen, .reason = ERR_CLOSED};
        channel_send(e->node->channels, from.peer, &detach, (struct hold){0}, true);
        if (c)
            conn_end(c, ERR_STREAM_INTERNAL);
        return;
    }
    struct c2s *s = c->session = c2s_new(c, f->sid, f->gen, snap.full);
    take_snap(s, &snap);
    str resumed = arena_printf(a, "<resumed xmlns='urn:xmpp:sm:3' previd='%.*s' h='%u'/>",
                               STR_ARG(c->negotiation->bind_id), c2s_h(s));
    if (c->negotiation->sasl2)
        sasl2_resumed(c, snap.full, resumed);
    else
        conn_put(c, resumed);
    stream_resumed(c);
}

void c2s_on_failed(struct edge *e, const struct frame *f)
{
    struct conn *c = c2s_waiting_conn(e, f);
    if (!c)
        return;
    resume_failed(c, f);
}

/* ---- stanzas in ---- */

/* The answer to an iq ping of ours outside of XEP-0198 (sm.c). */
static bool is_pong(struct c2s *s, str item, const struct xml_index *x, enum stanza_type type)
{
    str id = str_from(item.p + x->id.off, x->id.off ? x->id.len : 0);
    return !s->sm && !s->enabling && (type == TYPE_RESULT || type == TYPE_ERROR) &&
           str_starts(id, STR("pemberley-ping-"));
}

/* RFC 3921's session request, answered here while nothing is counted. */
static bool is_session_request(struct c2s *s, const struct xml_index *x, enum stanza_type type)
{
    return !s->sm && !s->enabling && type == TYPE_SET && x->nchild == 1 && x->children == 1 &&
           x->child[0].ns == NS_SESSION;
}

static err check_shape(enum stanza_kind kind, enum stanza_type type, const struct xml_index *x)
{
    if (type == TYPE_INVALID)
        return ERR_STANZA_BAD_REQUEST;
    if (kind != STANZA_IQ)
        return ERR_OK;
    if (x->id.off == 0 || x->id.len == 0)
        return ERR_STANZA_BAD_REQUEST;
    if ((type == TYPE_GET || type == TYPE_SET) && x->children != 1)
        return ERR_STANZA_BAD_REQUEST;
    if (type == TYPE_SET && x->nchild && x->child[0].ns == NS_BIND)
        return ERR_STANZA_NOT_ALLOWED; /* one resource per stream (RFC 6120 7.7.3 is MAY) */
    return ERR_OK;
}

static bool is_subscription(enum stanza_kind kind, enum stanza_type type)
{
    return kind == STANZA_PRESENCE && type >= TYPE_SUBSCRIBE && type <= TYPE_UNSUBSCRIBED;
}

/* The stanza as everybody else will see it: one splice behind the root's name, the client's own
 * `from` cut out, `to` replaced where preparing changed it. */
static struct stanza *make_stanza(struct c2s *s, str item, const struct xml_index *x,
                                  struct stanza_head *head, str new_to)
{
    bool bare = is_subscription(head->kind, head->type);
    struct arena *a = s->conn->edge->node->turn;
    const struct header *h = s->conn->header;
    str from = bare ? c2s_to_bare(s) : c2s_to_full(s); /* ` to='…'` */
    str ins[5] = {STR(" from"), str_skip(from, 3), bare ? STR("'") : STR_NONE};
    if (!x->lang.off && h->lang_n)
        ins[3] = str_from(h->lang, h->lang_n);
    if (x->header_prefixes)
        ins[4] = xml_header_declarations(&h->xml, x, a);
    struct xml_edit e[3] = {{x->splice, 0, arena_concat(a, ins, 5)}};
    size_t n = 1;
    struct xml_edit cut = {x->from_attr.off, x->from_attr.len, STR_NONE};
    if (cut.off && (!new_to.p || cut.off < x->to.off))
        e[n++] = cut, cut.off = 0;
    if (new_to.p)
        e[n++] = (struct xml_edit){x->to.off, x->to.len, xml_escape(new_to, a)};
    if (cut.off)
        e[n++] = cut;
    head->from = bare ? c2s_bare(s) : c2s_full(s);
    return stanza_edited(item, x, e, n, head);
}

/* head->to, prepared (it stays that of nobody where there is none); *changed.p: what it is to be in
 * the XML, where that is something else. */
static err prepare_to(struct c2s *s, str item, const struct xml_index *x, struct stanza_head *head,
                      str *changed)
{
    struct arena *a = s->conn->edge->node->turn;
    struct jid jid;
    if (!x->to.off) {
        if (head->kind != STANZA_PRESENCE)
            head->to = jid_parse_prepared(c2s_bare(s));
        return ERR_OK;
    }
    str raw = str_from(item.p + x->to.off, x->to.len);
    str text = x->entities ? xml_unescape(raw, true, a) : raw;
    err e = jid_prepare(text, a, &jid);
    if (e != ERR_OK)
        return e;
    head->to = jid;
    if (!str_eq(jid.full, text))
        *changed = jid.full;
    return ERR_OK;
}

/* Without XEP-0198 nobody asks what is safe; only where windows fill is it waited for, and where it
 * is measured. (Who sends, enables and asks at once has his <a/> at most FIFO_LATER_MS later.) */
static bool is_patient(const struct c2s *s)
{
    const struct conf *conf = s->conn->edge->node->conf;
    return !s->sm && !s->enabling &&
           !window_is_full(&s->window, s->in_ord, conf->limits_unsafe_max / 2) &&
           s->conn->edge->inbound <= conf->limits_inbound_max / 2;
}

static void send_in(struct c2s *s, struct stanza *stanza, err reason)
{
    struct node *n = s->conn->edge->node;
    struct frame f = {
        .kind = FRAME_IN,
        .sid = s->sid,
        .gen = s->gen,
        .ord = s->in_ord,
        .stanza = stanza,
        .fp = stanza_fp(stanza),
        .us = (uint64_t)edge_wall_us(s->conn->edge),
        .reason = reason,
    };
    f.sent = node_stage_stamp(n, f.us, f.ord);
    f.flags = is_patient(s) && !f.sent ? FRAME_PATIENT : 0;
    if (f.sent)
        metric_observe(n->metrics, HISTOGRAM_AT(stage, STAGE_EDGE_IN),
                       loop_clock_us(n->loop) - loop_now_us(n->loop));
    struct hold hold = {HOLD_EDGE_IN, s->sid, hold_number(s, stanza)};
    channel_send(n->channels, c2s_home(s), &f, hold, true);
    s->conn->edge->inbound += hold_size(hold);
    metric_add(n->metrics, METRIC_stanzas_unsafe, 1);
    if (!f.flags)
        probe_begin(s->conn->edge, hold);
}

void c2s_stanza(struct c2s *s, str item, const struct xml_index *x)
{
    struct conn *c = s->conn;
    struct node *n = c->edge->node;
    struct stanza_head head = {.to = {.full = STR("")}};
    err e = stanza_classify(item, x, &head.kind, &head.type);
    must(e == ERR_OK); /* the step table looked at namespace and name */
    enum stanza_kind kind = head.kind;
    enum stanza_type type = head.type;
    metric_add(n->metrics, METRIC_AT(stanzas_in, kind, c->listener), 1);
    metric_observe(n->metrics, HISTOGRAM_AT(stanza_size, kind), item.n);
    c2s_count_host(s, WAY_IN, kind, item.n);
    if (kind == STANZA_IQ && is_pong(s, item, x, type))
        return;
    if (kind == STANZA_IQ && is_session_request(s, x, type))
        return conn_put(c, arena_printf(n->turn, "<iq type='result' id='%.*s'/>",
                                        STR_ARG(stream_id_attr(item, x, n->turn))));
    str changed = STR_NONE;
    err reason = check_shape(kind, type, x);
    if (reason == ERR_OK)
        reason = prepare_to(s, item, x, &head, &changed);
    s->in_ord++;
    struct stanza *stanza = make_stanza(s, item, x, &head, changed);
    send_in(s, stanza, reason);
    stanza_unref(stanza);
    if (window_is_full(&s->window, s->in_ord, n->conf->limits_unsafe_max))
        conn_pause(c, PAUSE_WINDOW);
    if (c->edge->inbound > n->conf->limits_inbound_max)
        conn_pause(c, PAUSE_INBOUND);
    if (c->edge->bus_full)
        conn_pause(c, PAUSE_BUS);
}

/* Kept: a new home must know that its client is active again. */
void c2s_csi(struct c2s *s, bool inactive)
{
    struct frame f = {.kind = FRAME_CSI, .flags = inactive ? FRAME_INACTIVE : 0};
    const struct conn *c = s->conn;
    metric_add(c->edge->node->metrics, METRIC_AT(stanzas_in, METRIC_NONZA, c->listener), 1);
    s->inactive = inactive;
    c2s_tell(s, &f, true);
}

/* Safe or lost, it does not count any more. The few who were stopped by the shard's bound go on
 * when half of it is free. */
void c2s_settled(struct edge *e, struct hold h)
{
    uint64_t half = e->node->conf->limits_inbound_max / 2;
    bool was_over = e->inbound > half;
    e->inbound -= hold_size(h);
    metric_add(e->node->metrics, METRIC_stanzas_unsafe, -1);
    probe_end(e, h);
    if (was_over && e->inbound <= half)
        list_each(c, &e->conns, struct conn, link)
            conn_resume(c, PAUSE_INBOUND);
}

void c2s_safe(struct edge *e, struct hold h)
{
    struct hnode *node = htable_find(&e->sessions, h.a);
    for (; node; node = htable_find_next(node)) {
        struct c2s *s = container_of(node, struct c2s, by_sid);
        if ((s->gen & 0xffff) != h.b >> 48 || !window_mark(&s->window, hold_ord(h, s->in_ord)))
            continue;
        if (!window_is_full(&s->window, s->in_ord, e->node->conf->limits_unsafe_max))
            conn_resume(s->conn, PAUSE_WINDOW);
        return c2s_check_ack(s);
    }
}

/* ---- end ---- */

void c2s_free(struct c2s *s)
{
    struct conn *c = s->conn;
    htable_remove(&c->edge->sessions, &s->by_sid);
    window_close(&s->window);
    c2s_ack_free(s);
    c2s_out_free(s);
    buf_unref(s->state);
    c->session = NULL;
    free(s);
}

/* ---- held for the home ---- */

static struct snap snap_of(const struct c2s *s)
{
    struct arena *a = s->conn->edge->node->turn;
    struct snap snap = {.sid = s->sid,
                        .gen = s->gen,
                        .full = c2s_full(s),
                        .address = conn_address_text(s->conn, a),
                        .tls = conn_tls_version(s->conn),
                        .sm = s->sm,
                        .resumable = s->resumable,
                        .max_ms = s->max_s * 1000,
                        .in_ord = s->in_ord,
                        .in_base = s->in_base,
                        .out_base = s->out_base};
    copy_learn(&snap, s->state, a);
    snap.inactive |= s->inactive;
    return snap;
}

void c2s_attach(struct c2s *s)
{
    struct node *n = s->conn->edge->node;
    struct attaching what = {.snap = snap_of(s),
                             .outs = s->outs,
                             .acked = s->acked,
                             .flags = FRAME_LIVE,
                             .in = &s->window};
    copy_attach(n->channels, c2s_home(s), &what, n->turn);
}

/* Its queue stays here as a copy; not where the home is this process, which dies with us. */
static void leave_copy(struct c2s *s, bool ended)
{
    struct node *n = s->conn->edge->node;
    if (c2s_home(s) == n->shard)
        return;
    struct copy_of of = {.snap = snap_of(s),
                         .ended = ended,
                         .window = s->window,
                         .outs = s->outs,
                         .acked = s->acked};
    copies_take(n->copies, &of);
    s->outs = NULL, s->window.bits = NULL;
}

bool c2s_is_draining(const struct c2s *s) { return !s->sm && s->taken < s->put; }

void c2s_lost(struct c2s *s, err reason)
{
    const struct err_row *row = err_row(reason);
    bool ends = reason == ERR_OK || (row->class == ERR_CLASS_STREAM && row->ends_session);
    struct frame f = {.kind = ends || !s->resumable ? FRAME_END : FRAME_DETACH,
                      .reason = reason == ERR_OK ? ERR_CLOSED : reason};
    c2s_tell_acked(s);
    c2s_tell(s, &f, true);
    leave_copy(s, f.kind == FRAME_END);
    c2s_free(s);
}

void c2s_on_close(struct edge *e, const struct frame *f)
{
    struct c2s *s = c2s_find(e, f->sid, f->gen);
    if (!s)
        return;
    struct conn *c = s->conn;
    /* Else what waits is the home's to give to somebody; of a removed account nobody is left, and
     * the answer to the removal is among it. */
    if (f->reason == ERR_STREAM_ACCOUNT_GONE)
        c2s_pump(s);
    c2s_tell_acked(s);
    leave_copy(s, f->reason != ERR_STREAM_RESUMED_ELSEWHERE);
    c2s_free(s);
    conn_end(c, f->reason);
}
