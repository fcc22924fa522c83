/* sm: XEP-0198 on a bound session. `h` is what is *safe*, not what was received (delivery.md I3);
 * an <r/> waits for it, at most limits.ack_delay_max, then it is told what is safe and, unasked,
 * the rest when that is. Several <r/> in one turn get one <a/>. */
#include "node/edge/c2s.h"

struct asked_ack {
    struct timer timer; /* an <a/> is due at the latest then */
    struct c2s *session;
    uint64_t ord; /* … or when this is safe */
};

static str attr(struct c2s *s, str item, const char *name)
{
    struct arena *a = s->conn->edge->node->turn;
    struct xml_el el = xml_root(item, STR("jabber:client"), a);
    return xml_attr(&el, name, a);
}

static bool parse_number(str s, uint64_t max, uint64_t *out)
{
    uint64_t v = 0;
    if (s.n == 0 || s.n > 15)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9')
            return false;
        v = v * 10 + (uint64_t)(s.p[i] - '0');
    }
    *out = v;
    return v <= max;
}

/* XEP-0198's elements among the stanzas counted. */
static void count_in(const struct c2s *s)
{
    const struct conn *c = s->conn;
    metric_add(c->edge->node->metrics, METRIC_AT(stanzas_in, METRIC_NONZA, c->listener), 1);
}
static void put(const struct c2s *s, str nonza)
{
    struct conn *c = s->conn;
    metric_add(c->edge->node->metrics, METRIC_AT(stanzas_out, METRIC_NONZA, c->listener), 1);
    conn_put(c, nonza);
}

static void unexpected(struct c2s *s)
{
    conn_put_cstr(s->conn, "<failed xmlns='urn:xmpp:sm:3'><unexpected-request "
                           "xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>");
}

uint32_t c2s_enable_wish(const struct conn *c, const struct xml_el *enable, uint64_t *ms)
{
    struct arena *a = c->edge->node->turn;
    uint64_t limit = (uint64_t)c->edge->node->conf->limits_resume_timeout, max_s;
    str resume = xml_attr(enable, "resume", a);
    *ms = limit;
    if (parse_number(xml_attr(enable, "max", a), UINT32_MAX, &max_s) && max_s &&
        max_s * 1000 < limit)
        *ms = max_s * 1000;
    return str_is(resume, "true") || str_is(resume, "1") ? FRAME_WANT_RESUME : 0;
}

void c2s_enable(struct c2s *s, str item)
{
    struct xml_el el = xml_root(item, STR("jabber:client"), s->conn->edge->node->turn);
    count_in(s);
    if (s->sm || s->enabling)
        return unexpected(s);
    struct frame f = {.kind = FRAME_ENABLE, .ord = s->in_ord};
    f.flags = c2s_enable_wish(s->conn, &el, &f.ms);
    s->enabling = true;
    s->in_base = s->in_ord;
    c2s_tell(s, &f, true);
}

void c2s_on_enabled(struct c2s *s, const struct frame *f)
{
    if (!s->enabling)
        return;
    s->enabling = false;
    s->sm = s->enabled_due = true;
    s->resumable = f->ms > 0;
    s->max_s = (uint32_t)(f->ms / 1000);
    s->out_base = f->seq;
    conn_at_turn_end(s->conn);
}

static str enabled(const struct c2s *s)
{
    if (!s->resumable)
        return STR("<enabled xmlns='urn:xmpp:sm:3'/>");
    return arena_printf(s->conn->edge->node->turn,
                        "<enabled xmlns='urn:xmpp:sm:3' id='%016llx-%x' resume='true' max='%u'/>",
                        (unsigned long long)s->sid, s->gen, s->max_s);
}

/* At exactly its place among the stanzas: the client counts from here. */
void c2s_put_enabled(struct c2s *s)
{
    if (!s->enabled_due || s->put < s->out_base)
        return;
    s->enabled_due = false;
    s->asked = s->out_base;
    put(s, enabled(s));
}

str c2s_begin_sm(struct c2s *s, uint64_t max_ms)
{
    s->sm = true, s->resumable = max_ms > 0;
    s->max_s = (uint32_t)(max_ms / 1000);
    return enabled(s);
}

/* ---- acks to the client ---- */

uint32_t c2s_h(const struct c2s *s)
{
    return s->window.safe < s->in_base ? 0 : (uint32_t)(s->window.safe - s->in_base);
}

void c2s_put_ack(struct c2s *s)
{
    s->ack_now = false;
    put(s, arena_printf(s->conn->edge->node->turn, "<a xmlns='urn:xmpp:sm:3' h='%u'/>", c2s_h(s)));
}

static void ack_soon(struct c2s *s)
{
    s->ack_now = true;
    conn_at_turn_end(s->conn);
}

/* Not everything is safe yet: what is, now; ord stays, for the unasked one. */
static void on_ack_timer(struct timer *t)
{
    ack_soon(container_of(t, struct asked_ack, timer)->session);
}

static struct asked_ack *asked_ack_new(struct c2s *s)
{
    struct asked_ack *a = malloc(sizeof *a);
    must(a);
    a->session = s;
    timer_init(&a->timer, on_ack_timer);
    return a;
}

void c2s_request(struct c2s *s)
{
    struct node *n = s->conn->edge->node;
    count_in(s);
    if (!s->sm && !s->enabling)
        return unexpected(s);
    if (s->window.safe >= s->in_ord)
        return ack_soon(s);
    if (!s->asked_ack)
        s->asked_ack = asked_ack_new(s);
    s->asked_ack->ord = s->in_ord;
    if (!timer_is_set(&s->asked_ack->timer))
        loop_timer_set(n->loop, &s->asked_ack->timer, (uint64_t)n->conf->limits_ack_delay_max);
}

void c2s_check_ack(struct c2s *s)
{
    if (!s->asked_ack || s->window.safe < s->asked_ack->ord)
        return;
    c2s_ack_free(s);
    ack_soon(s);
}

void c2s_ack_free(struct c2s *s)
{
    if (!s->asked_ack)
        return;
    loop_timer_stop(s->conn->edge->node->loop, &s->asked_ack->timer);
    free(s->asked_ack);
    s->asked_ack = NULL;
}

/* ---- the client's acks ---- */

void c2s_ack(struct c2s *s, str item)
{
    uint64_t h;
    count_in(s);
    if (!s->sm || s->enabled_due)
        return unexpected(s);
    if (!parse_number(attr(s, item, "h"), UINT32_MAX, &h))
        return conn_end(s->conn, ERR_STREAM_BAD_FORMAT);
    s->request_open = false;
    uint64_t known = s->acked < s->out_base ? s->out_base : s->acked;
    uint32_t more = (uint32_t)h - (uint32_t)(known - s->out_base); /* modulo 2^32 (XEP-0198 4) */
    if (more >= 1u << 31)
        return; /* an older one than we have seen */
    if (known + more > (s->put < s->out_base ? s->out_base : s->put)) {
        uint32_t sent = s->put < s->out_base ? 0 : (uint32_t)(s->put - s->out_base);
        str extra = arena_printf(s->conn->edge->node->turn,
                                 "<handled-count-too-high xmlns='urn:xmpp:sm:3' h='%u' "
                                 "send-count='%u'/>",
                                 (uint32_t)h, sent);
        return conn_end_extra(s->conn, ERR_STREAM_HANDLED_COUNT_TOO_HIGH, extra);
    }
    if (more)
        c2s_out_acked(s, known + more);
    conn_at_turn_end(s->conn); /* something may have been put after our <r/> */
}

void c2s_put_request(struct c2s *s)
{
    if (!s->sm || s->enabled_due || s->request_open || s->put <= s->asked || s->put <= s->acked)
        return;
    s->request_open = true;
    s->asked = s->put;
    put(s, STR("<r xmlns='urn:xmpp:sm:3'/>"));
}

/* Is the silent client still there? Whatever it answers is life (conn.c). */
void c2s_ping(struct c2s *s)
{
    struct arena *a = s->conn->edge->node->turn;
    str full = c2s_full(s), bare = c2s_bare(s);
    if (s->sm && !s->enabled_due) {
        s->request_open = true;
        return put(s, STR("<r xmlns='urn:xmpp:sm:3'/>"));
    }
    const char *at = memchr(bare.p, '@', bare.n);
    str domain = at ? str_skip(bare, (size_t)(at + 1 - bare.p)) : bare;
    struct xml_writer w;
    xml_writer_init(&w, a);
    xml_open(&w, "iq");
    xml_put_attr(&w, "type", STR("get"));
    unsigned long long now = loop_now_ms(s->conn->edge->node->loop);
    xml_put_attr(&w, "id", arena_printf(a, "pemberley-ping-%llx", now));
    xml_put_attr(&w, "from", domain);
    xml_put_attr(&w, "to", full);
    xml_put_leaf(&w, "ping", "urn:xmpp:ping", STR_NONE);
    xml_close(&w, "iq");
    conn_put(s->conn, xml_written(&w));
}
