/* Queries of the own archive (XEP-0313 4, 5). One of a session is with the store at a time, and
 * only while the session's queue has room for its page: the others wait in order, as many as the
 * client may have unanswered. What is asked is read from the request anew at each step; nothing of
 * it is kept beside. */
#include "node/xep/archive.h"

#include <time.h>

#include "proto/xmpp/form.h"
#include "proto/xmpp/sid.h"

#define MAM "urn:xmpp:mam:2"
#define RSM "http://jabber.org/protocol/rsm"

enum { COUNT_MAX = 10000, PAGE_BYTES = 1 << 20, IDS_MAX = 250 };

struct query {
    struct list link; /* of session->waiting->queries */
    struct iq *kept;
    uint64_t sid;
    bool asked;
};

/* ---- what is asked ---- */

struct wish {
    str queryid;
    bool flip;
    Store__ArchiveGet get;
};

static bool number(const char **p, const char *end, unsigned digits, int *out)
{
    for (*out = 0; digits; digits--, ++*p) {
        if (*p == end || **p < '0' || **p > '9')
            return false;
        *out = *out * 10 + (**p - '0');
    }
    return true;
}

static bool skip(const char **p, const char *end, const char *any)
{
    return *p < end && **p && strchr(any, *(*p)++);
}

/* The fraction of a second behind its point; *step: what its last digit stands for. */
static bool fraction(const char **p, const char *end, int64_t *us, int64_t *step)
{
    const char *first = *p;
    *step = 1000000;
    for (; *p < end && **p >= '0' && **p <= '9'; ++*p)
        if (*step > 1)
            *step /= 10, *us += (**p - '0') * *step;
    return *p > first;
}

static bool zone(const char **p, const char *end, int64_t *offset_s)
{
    int hours, minutes;
    *offset_s = 0;
    if (*p < end && **p == 'Z')
        return ++*p == end;
    int64_t sign = *p < end && **p == '-' ? -1 : 1;
    if (!skip(p, end, "+-") || !number(p, end, 2, &hours) || !skip(p, end, ":") ||
        !number(p, end, 2, &minutes) || hours > 23 || minutes > 59)
        return false;
    *offset_s = sign * (hours * 3600 + minutes * 60);
    return *p == end;
}

/* XEP-0082: a DateTime. *step: its precision, at least that of the stamps that we write. */
static bool read_time(str text, int64_t *us, int64_t *step)
{
    const char *p = text.p, *end = text.p + text.n;
    struct tm t = {0};
    int64_t offset_s, part = 0;
    *step = 1000000;
    if (!number(&p, end, 4, &t.tm_year) || !skip(&p, end, "-") || !number(&p, end, 2, &t.tm_mon) ||
        !skip(&p, end, "-") || !number(&p, end, 2, &t.tm_mday) || !skip(&p, end, "T") ||
        !number(&p, end, 2, &t.tm_hour) || !skip(&p, end, ":") || !number(&p, end, 2, &t.tm_min) ||
        !skip(&p, end, ":") || !number(&p, end, 2, &t.tm_sec))
        return false;
    if (p < end && *p == '.' && (p++, !fraction(&p, end, &part, step)))
        return false;
    if (!zone(&p, end, &offset_s) || t.tm_mon < 1 || t.tm_mon > 12 || t.tm_mday < 1 ||
        t.tm_mday > 31 || t.tm_hour > 24 || t.tm_min > 59 || t.tm_sec > 60)
        return false;
    t.tm_year -= 1900, t.tm_mon--;
    *us = ((int64_t)timegm(&t) - offset_s) * 1000000 + part;
    return true;
}

/* What lies before 1970 is as good as 1970. Stamps that we write have milliseconds of rows' times:
 * what ends with one ends behind that row. */
static err read_bound(const struct form *f, const char *var, bool ends, int64_t *out)
{
    int64_t us, step;
    str text = form_value(f, var);
    if (!text.n)
        return ERR_OK;
    if (!read_time(text, &us, &step))
        return ERR_STANZA_BAD_REQUEST;
    *out = (us < 1 ? 1 : us) + (ends && step >= 1000 ? 999 : 0);
    return ERR_OK;
}

static err read_id(str text, struct arena *a, ProtobufCBinaryData *out)
{
    unsigned char *id = arena_alloc(a, ARCHIVE_ID_BYTES);
    if (!text.n)
        return ERR_OK;
    if (!archive_id_of_text(text, id))
        return ERR_STANZA_ITEM_NOT_FOUND;
    *out = home_bytes(str_from(id, ARCHIVE_ID_BYTES));
    return ERR_OK;
}

static err read_ids(const struct form_field *f, struct arena *a, Store__ArchiveGet *get)
{
    if (f->n > IDS_MAX)
        return ERR_STANZA_NOT_ACCEPTABLE;
    get->ids = arena_alloc(a, (f->n + 1) * sizeof *get->ids);
    for (size_t i = 0; i < f->n; i++) {
        ProtobufCBinaryData id = {0, NULL};
        err e = read_id(f->values[i], a, &id);
        if (e || !id.len)
            return e ? e : ERR_STANZA_ITEM_NOT_FOUND;
        get->ids[get->n_ids++] = id;
    }
    return ERR_OK;
}

/* 4.1.1: a bare JID is any of its resources; the own one finds what was sent to oneself. */
static err read_with(const struct iq *q, str text, Store__ArchiveGet *get)
{
    struct jid with;
    if (!text.n)
        return ERR_OK;
    err e = jid_prepare(text, q->arena, &with);
    if (e)
        return e;
    get->contact = home_bytes(with.bare);
    if (with.resource.n && !str_eq(with.bare, q->asker.bare))
        get->resource = archive_resource_hash(with.resource);
    return ERR_OK;
}

static bool is_known_field(str var)
{
    static const char *const fields[] = {"with", "start", "end", "before-id", "after-id", "ids"};
    for (size_t i = 0; i < array_len(fields); i++)
        if (str_eq(var, str_of(fields[i])))
            return true;
    return false;
}

static err read_form(const struct iq *q, const struct xml_el *x, Store__ArchiveGet *get)
{
    struct form f;
    if (form_read(x, q->arena, &f) || f.cancel || !str_is(f.type, MAM))
        return ERR_STANZA_BAD_REQUEST;
    for (size_t i = 0; i < f.n; i++)
        if (!is_known_field(f.fields[i].var))
            return ERR_STANZA_FEATURE_NOT_IMPLEMENTED;
    err e = read_with(q, form_value(&f, "with"), get);
    if (!e)
        e = read_bound(&f, "start", false, &get->start_us);
    if (!e)
        e = read_bound(&f, "end", true, &get->end_us);
    if (!e)
        e = read_id(form_value(&f, "before-id"), q->arena, &get->before_id);
    if (!e)
        e = read_id(form_value(&f, "after-id"), q->arena, &get->after_id);
    const struct form_field *ids = form_find(&f, "ids");
    return e || !ids ? e : read_ids(ids, q->arena, get);
}

/* XEP-0059 2.1: a number; a greater one than we give is as good as that. */
static err read_max(str text, uint32_t most, uint32_t *out)
{
    uint64_t n = 0;
    if (!text.n)
        return ERR_STANZA_BAD_REQUEST;
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] < '0' || text.p[i] > '9')
            return ERR_STANZA_BAD_REQUEST;
        n = n * 10 + (uint64_t)(text.p[i] - '0');
        n = n < most ? n : most;
    }
    *out = (uint32_t)n;
    return ERR_OK;
}

static err read_set(const struct iq *q, const struct xml_el *set, uint32_t most,
                    Store__ArchiveGet *get)
{
    struct xml_el el;
    struct arena *a = q->arena;
    err e = ERR_OK;
    for (bool more = xml_first(set, &el, a); !e && more; more = xml_next(set, &el, a)) {
        str text = xml_text(&el, a);
        if (xml_is(&el, RSM, "max"))
            e = read_max(text, most, &get->limit);
        else if (xml_is(&el, RSM, "after"))
            e = read_id(text, a, &get->page_after_id);
        else if (xml_is(&el, RSM, "before"))
            get->backwards = true, e = read_id(text, a, &get->page_before_id);
        else if (xml_is(&el, RSM, "index"))
            e = ERR_STANZA_FEATURE_NOT_IMPLEMENTED; /* 2.6: out of order */
    }
    return e;
}

/* As many as the session has room for in a quarter of its queue, as with offline messages. */
static uint32_t page_max(const struct conf *c)
{
    uint64_t n = c->limits_unacked_max / 4;
    n = n < c->modules_archive_page_max ? n : c->modules_archive_page_max;
    return n ? (uint32_t)n : 1;
}

static err read_wish(const struct iq *q, struct wish *w)
{
    struct xml_el payload = q->payload.all.p ? q->payload : iq_payload(q, q->arena), el;
    const struct conf *c = q->node->conf;
    uint32_t most = page_max(c);
    *w = (struct wish){.queryid = xml_attr(&payload, "queryid", q->arena)};
    store__archive_get__init(&w->get);
    w->get.limit = c->modules_archive_page < most ? (uint32_t)c->modules_archive_page : most;
    w->get.bytes_max =
        c->limits_unacked_bytes_max / 4 < PAGE_BYTES ? c->limits_unacked_bytes_max / 4 : PAGE_BYTES;
    w->get.count_max = COUNT_MAX;
    err e = ERR_OK;
    for (bool more = xml_first(&payload, &el, q->arena); !e && more;
         more = xml_next(&payload, &el, q->arena)) {
        if (xml_is(&el, "jabber:x:data", "x"))
            e = read_form(q, &el, &w->get);
        else if (xml_is(&el, RSM, "set"))
            e = read_set(q, &el, most, &w->get);
        else if (xml_is(&el, MAM, "flip-page"))
            w->flip = true;
    }
    return e;
}

/* ---- the answer ---- */

static str wrapped(const struct iq *q, const struct wish *w, const Store__ArchiveRow *row)
{
    struct arena *a = q->arena;
    str id = archive_id_text(home_str(row->id), a);
    str xml = sid_into(home_str(row->stanza), q->asker.bare, id, a);
    struct xml_writer out;
    xml_writer_init(&out, a);
    xml_open(&out, "message");
    xml_put_attr(&out, "to", q->asker.full);
    xml_put_attr(&out, "from", q->asker.bare);
    xml_open_ns(&out, "result", MAM);
    if (w->queryid.n)
        xml_put_attr(&out, "queryid", w->queryid);
    xml_put_attr(&out, "id", id);
    xml_open_ns(&out, "forwarded", "urn:xmpp:forward:0");
    xml_open_ns(&out, "delay", "urn:xmpp:delay");
    xml_put_attr(&out, "stamp", stanza_stamp(row->time_us, a));
    xml_close(&out, "delay");
    xml_put_raw(&out, xml_with_default_ns(xml, "jabber:client", a));
    xml_close(&out, "forwarded");
    xml_close(&out, "result");
    xml_close(&out, "message");
    return xml_written(&out);
}

static void give(struct iq *q, const struct wish *w, const Store__ArchivePage *page)
{
    for (size_t i = 0; i < page->n_rows; i++) {
        const Store__ArchiveRow *row = page->rows[w->flip ? page->n_rows - 1 - i : i];
        struct stanza *s;
        str purpose = arena_printf(q->arena, "archive %zu", i);
        if (stanza_of_kept(q->node->scan, wrapped(q, w, row), q->arena, &s))
            continue; /* the store's bytes, whatever has befallen them, are no reason to end */
        session_answer(q->session, s, purpose.p, q->ticket);
        stanza_unref(s);
    }
}

static void finish(struct iq *q, const Store__ArchivePage *page)
{
    struct arena *a = q->arena;
    struct xml_writer w;
    xml_writer_init(&w, a);
    xml_open_ns(&w, "fin", MAM);
    if (!page->more)
        xml_put_attr(&w, "complete", STR("true"));
    xml_open_ns(&w, "set", RSM);
    if (page->n_rows) {
        xml_open(&w, "first");
        if (page->counted)
            xml_put_attr_u64(&w, "index", page->index);
        xml_put_text(&w, archive_id_text(home_str(page->rows[0]->id), a));
        xml_close(&w, "first");
        xml_put_leaf(&w, "last", NULL,
                     archive_id_text(home_str(page->rows[page->n_rows - 1]->id), a));
    }
    if (page->counted)
        xml_put_leaf(&w, "count", NULL, arena_printf(a, "%u", page->total));
    xml_close(&w, "set");
    xml_close(&w, "fin");
    iq_result(q, xml_written(&w));
}

static void next_of(struct home *h, uint64_t sid)
{
    struct session *s = session_find(h, sid);
    if (s)
        archive_more(s);
}

static void on_page(struct iq *kept, err e, const Store__Reply *reply)
{
    struct session *s = kept->session;
    struct home *h = kept->home;
    struct wish w;
    if (!s) { /* it has ended: nobody hears this */
        iq_store_error(kept, e);
        return;
    }
    struct query *mine = list_entry(s->waiting->queries, struct query, link);
    uint64_t sid = s->sid;
    ring_remove(&s->waiting->queries, &mine->link);
    free(mine);
    int64_t us = home_wall_us(h) - kept->us;
    metric_observe(h->node->metrics, HISTOGRAM_archive_query, us > 0 ? (uint64_t)us : 0);
    if (e || reply->body_case != STORE__REPLY__BODY_ARCHIVE || read_wish(kept, &w)) {
        iq_store_error(kept, e);
    } else {
        give(kept, &w, reply->archive);
        finish(kept, reply->archive);
    }
    next_of(h, sid);
}

static void ask(struct query *query)
{
    struct iq *q = query->kept;
    struct wish w;
    Store__Request req = STORE__REQUEST__INIT;
    query->asked = true;
    (void)!read_wish(q, &w); /* it was read before */
    req.op_case = STORE__REQUEST__OP_ARCHIVE_GET, req.archive_get = &w.get;
    req.owner = home_bytes(q->asker.bare);
    iq_store(q, &req, on_page);
}

void archive_more(struct session *s)
{
    if (!s->waiting || !s->waiting->queries)
        return;
    struct query *first = list_entry(s->waiting->queries, struct query, link);
    if (!first->asked && session_has_room(s))
        ask(first);
}

void archive_session_ended(struct session *s)
{
    while (s->waiting && s->waiting->queries) {
        struct query *query = list_entry(s->waiting->queries, struct query, link);
        struct iq *kept = query->kept;
        bool asked = query->asked;
        ring_remove(&s->waiting->queries, &query->link);
        free(query);
        if (!asked)
            iq_error(kept, ERR_STANZA_RECIPIENT_UNAVAILABLE);
    }
}

/* ---- requests ---- */

static bool refused(struct iq *q)
{
    if (q->entity == IQ_OTHER_ACCOUNT)
        iq_error(q, ERR_STANZA_FORBIDDEN);
    else if (!q->user || !q->user->exists || q->user->anonymous)
        iq_error(q, ERR_STANZA_SERVICE_UNAVAILABLE);
    else
        return false;
    return true;
}

void archive_query(struct iq *q)
{
    struct wish w;
    if (refused(q))
        return;
    if (xml_is(&q->payload, "", "prefs")) {
        archive_set_prefs(q);
        return;
    }
    err e =
        xml_is(&q->payload, "", "query") ? read_wish(q, &w) : ERR_STANZA_FEATURE_NOT_IMPLEMENTED;
    if (e) {
        iq_error(q, e);
        return;
    }
    struct session *s = q->session;
    if (!s->had_presence)
        session_reads_archive(s);
    struct query *query = malloc(sizeof *query);
    must(query);
    *query = (struct query){.kept = iq_keep(q), .sid = s->sid};
    list_init(&query->link);
    ring_push_back(&session_waiting(s)->queries, &query->link);
    archive_more(s);
}

static void put_field(struct xml_writer *w, const char *type, const char *var)
{
    xml_open(w, "field");
    xml_put_attr(w, "type", str_of(type));
    xml_put_attr(w, "var", str_of(var));
}

/* 4.1.5. */
static void answer_form(struct iq *q)
{
    static const char *const fields[][2] = {{"jid-single", "with"},
                                            {"text-single", "start"},
                                            {"text-single", "end"},
                                            {"text-single", "before-id"},
                                            {"text-single", "after-id"}};
    struct xml_writer w;
    xml_writer_init(&w, q->arena);
    xml_open_ns(&w, "query", MAM);
    form_open(&w, "form", MAM, NULL);
    for (size_t i = 0; i < array_len(fields); i++) {
        put_field(&w, fields[i][0], fields[i][1]);
        xml_close(&w, "field");
    }
    put_field(&w, "list-multi", "ids");
    xml_put_raw(&w, STR("<validate xmlns='http://jabber.org/protocol/xdata-validate'"
                        " datatype='xs:string'><open/></validate>"));
    xml_close(&w, "field");
    form_close(&w);
    xml_close(&w, "query");
    iq_result(q, xml_written(&w));
}

/* ---- metadata (5) ---- */

static void put_end(struct xml_writer *w, const char *name, const Store__ArchiveRow *row)
{
    xml_open(w, name);
    xml_put_attr(w, "id", archive_id_text(home_str(row->id), w->arena));
    xml_put_attr(w, "timestamp", stanza_stamp(row->time_us, w->arena));
    xml_close(w, name);
}

static str metadata_of(const Store__Reply *reply, struct arena *a)
{
    const Store__ArchivePage *page = reply->archive;
    struct xml_writer w;
    xml_writer_init(&w, a);
    xml_open_ns(&w, "metadata", MAM);
    if (page->n_rows) {
        put_end(&w, "start", page->rows[0]);
        put_end(&w, "end", page->rows[page->n_rows - 1]);
    }
    xml_close(&w, "metadata");
    return xml_written(&w);
}

static void on_ends(struct iq *kept, err e, const Store__Reply *reply)
{
    if (e || reply->body_case != STORE__REPLY__BODY_ARCHIVE)
        iq_store_error(kept, e);
    else
        iq_result(kept, metadata_of(reply, kept->arena));
}

void archive_get(struct iq *q)
{
    Store__ArchiveEnds ends = STORE__ARCHIVE_ENDS__INIT;
    Store__Request req = STORE__REQUEST__INIT;
    if (refused(q))
        return;
    if (xml_is(&q->payload, "", "query")) {
        answer_form(q);
    } else if (xml_is(&q->payload, "", "prefs")) {
        archive_get_prefs(q);
    } else if (xml_is(&q->payload, "", "metadata")) {
        req.op_case = STORE__REQUEST__OP_ARCHIVE_ENDS, req.archive_ends = &ends;
        req.owner = home_bytes(q->asker.bare);
        iq_store(q, &req, on_ends);
    } else {
        iq_error(q, ERR_STANZA_FEATURE_NOT_IMPLEMENTED);
    }
}

struct metadata {
    archive_metadata_f *done;
    void *ctx;
};

static void on_metadata(struct home *h, void *ctx, err e, const Store__Reply *reply)
{
    struct metadata m = *(struct metadata *)ctx;
    bool good = e == ERR_OK && reply && reply->body_case == STORE__REPLY__BODY_ARCHIVE;
    free(ctx);
    m.done(m.ctx, good ? metadata_of(reply, home_arena(h)) : STR_NONE);
}

void archive_metadata(struct user *u, archive_metadata_f *done, void *ctx)
{
    Store__Request req = STORE__REQUEST__INIT;
    Store__ArchiveEnds ends = STORE__ARCHIVE_ENDS__INIT;
    struct metadata *m = malloc(sizeof *m);
    must(m);
    *m = (struct metadata){done, ctx};
    req.op_case = STORE__REQUEST__OP_ARCHIVE_ENDS, req.archive_ends = &ends;
    home_store(u->home, user_bare(u), &req, on_metadata, m);
}
