/* offline: messages for those who are not there (XEP-0160). They are given out to the first
 * resource that may have them, page by page: the next page when the client has taken half of what
 * it may hold. What comes live meanwhile waits behind (order), at most USER_WAIT_MS; then it is
 * stored behind.
 *
 * A row leaves the store when the client has it (SM) or the socket took it. One that a session held
 * at its end has never left the store. */
#include "node/xep/archive.h"
#include "proto/xmpp/sid.h"

enum { PAGE = 50, PAGE_BYTES = 1 << 20, TRIES = 4 };

struct giving {
    struct list link;    /* of home->givings */
    struct list waiting; /* struct route.work */
    struct user *user;
    uint64_t sid, after_id, waiting_since_ms;
    unsigned tries; /* of this page */
    bool asked, more;
    bool again; /* rows have come back from a queue, or left it: from the first one on */
    bool late;  /* one was put into the store since a page was asked for: another page */
    bool over;  /* ended while a page was asked for: its answer frees it */
};

/* xmpp.md 5, column "offline". */
bool offline_wants(const struct user *u, const struct stanza *s)
{
    const struct conf_host *host = user_host(u);
    if (!u->exists || u->anonymous || !host || !host->offline_max)
        return false;
    if (s->kind != STANZA_MESSAGE || (s->type != TYPE_CHAT && s->type != TYPE_NORMAL))
        return false;
    if (s->flags & STANZA_HINT_NO_STORE)
        return false;
    if (s->flags & STANZA_HINT_STORE)
        return true;
    return (s->flags & STANZA_CONTENT) || !(s->flags & STANZA_ONLY_TRANSIENT);
}

/* ---- put ---- */

static void put_u64(unsigned char *p, uint64_t x)
{
    for (int i = 0; i < 8; i++)
        p[i] = (unsigned char)(x >> (56 - 8 * i));
}
static uint64_t get_u64(const unsigned char *p)
{
    uint64_t x = 0;
    for (int i = 0; i < 8; i++)
        x = x << 8 | p[i];
    return x;
}

static void put_u32(unsigned char *p, uint32_t x)
{
    for (int i = 0; i < 4; i++)
        p[i] = (unsigned char)(x >> (24 - 8 * i));
}
static uint32_t get_u32(const unsigned char *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* The key of a row: the fingerprint too, because a client that does not send again what it had sent
 * sends another stanza under the same uid, which is a new one (delivery.md 2). Rows of former
 * versions have none. */
enum { UID_BYTES = 20, KEY_BYTES = UID_BYTES + 4 };
static void key_encode(struct uid uid, uint32_t fp, unsigned char out[KEY_BYTES])
{
    put_u64(out, uid.sid);
    put_u64(out + 8, uid.ord);
    put_u32(out + 16, uid.lane);
    put_u32(out + UID_BYTES, fp);
}
static struct uid uid_of_key(ProtobufCBinaryData b)
{
    if (b.len != KEY_BYTES && b.len != UID_BYTES)
        return (struct uid){0, 0, 0};
    return (struct uid){get_u64(b.data), get_u64(b.data + 8), get_u32(b.data + 16)};
}

static void submit(struct route *r);

/* A bit of user.astray. */
static uint64_t astray_bit(const struct home *h, str resource)
{
    return resource.n ? 1ull << (hash_str(&h->node->key, resource) & 63) : 0;
}

void offline_give(struct user *u)
{
    user_each_session(s, u)
        if (session_eligible(s) && !s->detached && !s->doomed) {
            offline_start(s);
            return;
        }
}

static void on_put(struct home *h, void *ctx, err e, const Store__Reply *reply)
{
    struct route *r = ctx;
    struct user *u = r->user;
    if (e == ERR_AWAY && ++r->tries < TRIES) {
        submit(r); /* the same uid: harmless if it was written */
        return;
    }
    u->putting--;
    if (e == ERR_OK) {
        u->offline_count++;
        home_count(h, METRIC_offline_stored, 1);
        home_count(h, METRIC_offline_in, 1);
        offline_give(u); /* somebody may have come while it was written */
    } else if (e == ERR_NOT_FOUND || (e == ERR_FULL && reply)) {
        home_count(h, METRIC_offline_full, e == ERR_FULL);
        home_count(h, METRIC_AT(host_quota_hits, u->host_metric, QUOTA_OFFLINE), e == ERR_FULL);
        route_error(r, ERR_STANZA_SERVICE_UNAVAILABLE);
    } else {
        route_error(r, e == ERR_DISK_FULL ? ERR_STANZA_DISK_FULL : ERR_STANZA_RESOURCE_CONSTRAINT);
    }
    route_done(r);
    user_unpin(u);
}

/* The archive's id of it: the archive puts its own on, and takes off what only looks like it. */
static ProtobufCBinaryData archived_as(const struct route *r, unsigned char id[ARCHIVE_ID_BYTES])
{
    struct home *h = r->home;
    const struct conf_host *host = user_host(r->user);
    if (!host || !xep_active(&xep_archive, h->node->conf, host) ||
        !archive_id_of_text(sid_find(r->stanza, user_bare(r->user), home_arena(h)), id))
        return (ProtobufCBinaryData){0, NULL};
    return home_bytes(str_from(id, ARCHIVE_ID_BYTES));
}

static void submit(struct route *r)
{
    const struct conf_host *host = user_host(r->user);
    Store__Request req = STORE__REQUEST__INIT;
    Store__OfflinePut op = STORE__OFFLINE_PUT__INIT;
    unsigned char key[KEY_BYTES], token[8], archived[ARCHIVE_ID_BYTES];
    key_encode(r->uid, stanza_fp(r->stanza), key);
    op.uid = home_bytes(str_from(key, sizeof key));
    op.time_us = r->us;
    op.stanza = home_bytes(stanza_xml(r->stanza));
    op.archived = archived_as(r, archived);
    if (r->sid) {
        put_u64(token, r->sid);
        op.sid = home_bytes(str_from(token, sizeof token)), op.seq = r->seq;
    }
    op.count_max = host ? (uint32_t)host->offline_max : 0;
    op.bytes_max = host ? host->offline_bytes_max : 0;
    req.op_case = STORE__REQUEST__OP_OFFLINE_PUT, req.offline_put = &op;
    if (r->user->giving)
        r->user->giving->late = true;
    home_store(r->home, user_bare(r->user), &req, on_put, r);
}

void offline_put(struct user *u, struct route *r)
{
    struct route *k = route_keep(r);
    k->user = u;
    user_pin(u);
    u->putting++;
    u->astray |= astray_bit(u->home, r->to.resource);
    submit(k);
    offline_give(u); /* whoever is there gets it before what comes now */
}

/* What waits live behind the rows would come behind r too, which may be newer. */
static void put_waiting(struct giving *g)
{
    struct user *u = g->user;
    list_each(w, &g->waiting, struct work, link) {
        struct route *r = container_of(w, struct route, work);
        if (!offline_wants(u, r->stanza))
            continue;
        list_remove(&w->link);
        u->home->parked_bytes -= w->bytes;
        offline_put(u, r);
        route_done(r);
    }
}

void offline_put_again(struct user *u, struct route *r)
{
    if (u->giving)
        put_waiting(u->giving);
    offline_put(u, r);
}

/* ---- give out ---- */

static void ask(struct giving *g);

static void flush(struct giving *g, bool behind)
{
    struct user *u = g->user;
    struct list waiting;
    list_init(&waiting);
    list_append(&waiting, &g->waiting);
    while (!list_empty(&waiting)) {
        struct work *w = list_first(&waiting, struct work, link);
        struct route *r = container_of(w, struct route, work);
        list_remove(&w->link);
        u->home->parked_bytes -= w->bytes;
        r->offline_only = behind;
        route_stanza(u, r);
        route_done(r);
    }
}

static void finish(struct giving *g)
{
    struct user *u = g->user;
    u->giving = NULL;
    list_remove(&g->link);
    flush(g, false);
    g->over = true;
    if (!g->asked)
        free(g);
    if (!u->giving && !u->offline_count && !u->putting)
        u->astray = 0;
    user_touch(u);
}

static bool in_a_queue(const struct user *u, uint64_t id)
{
    user_each_session(s, u)
        for (const struct outbound *o = session_newest(s); o; o = session_older(s, o))
            if (o->offline_id == id)
                return true;
    return false;
}

static void remove_rows(struct user *u, const uint64_t *ids, size_t n);

/* In the archive it does not have its id. */
static str kept_xml(const struct user *u, const Store__OfflineRow *row)
{
    struct arena *a = home_arena(u->home);
    str xml = home_str(row->stanza);
    return row->archived.len
               ? sid_into(xml, user_bare(u), archive_id_text(home_str(row->archived), a), a)
               : xml;
}

static void give_row(struct session *s, const Store__OfflineRow *row)
{
    struct user *u = s->user;
    struct home *h = u->home;
    struct stanza *was, *given;
    if (in_a_queue(u, row->id))
        return;
    if (!row->stanza.len) { /* the archive has forgotten it, or its author has taken it back */
        remove_rows(u, &row->id, 1);
        return;
    }
    if (stanza_of_kept(h->node->scan, kept_xml(u, row), home_arena(h), &was)) {
        LOG(h->node->log, store_failed, F_STR("op", STR("offline_get")),
            F_STR("reason", STR("a stored message is no stanza; it is removed")));
        remove_rows(u, &row->id, 1); /* nobody will ever read it */
        return;
    }
    str domain = jid_parse_prepared(user_bare(u)).domain;
    given = stanza_with_delay(h->node->scan, was, domain, row->time_us, home_arena(h));
    route_note(h, was, uid_of_key(row->uid)); /* its sender may send it again to us */
    session_send_row(s, given, uid_of_key(row->uid), given->index.to.off ? 0 : FRAME_TO_BARE,
                     row->time_us, row->id);
    u->offline_count -= u->offline_count > 0;
    home_count(h, METRIC_offline_delivered, 1);
    stanza_unref(was);
    stanza_unref(given);
}

static void on_given(struct home *h, void *ctx, err e, const Store__Reply *reply)
{
    session_ungate(h, (uintptr_t)ctx);
}

/* Notes what the queue of s holds from seq on: should we die, a failed resume of its client says
 * which of these rows it has. */
static void note_given(struct session *s, uint64_t seq)
{
    Store__Request req = STORE__REQUEST__INIT;
    Store__OfflineGiven op = STORE__OFFLINE_GIVEN__INIT;
    unsigned char token[8];
    put_u64(token, s->sid);
    op.sid = home_bytes(str_from(token, sizeof token)), op.seq = seq - s->out_base;
    op.ids = arena_alloc(home_arena(s->user->home), PAGE * sizeof *op.ids);
    for (const struct outbound *o = session_newest(s); o && o->seq >= seq; o = session_older(s, o))
        op.ids[o->seq - seq] = o->offline_id, op.n_ids++;
    req.op_case = STORE__REQUEST__OP_OFFLINE_GIVEN, req.offline_given = &op;
    home_store(s->user->home, user_bare(s->user), &req, on_given, (void *)(uintptr_t)s->sid);
}

static void give_page(struct session *s, struct giving *g, const Store__OfflinePage *page)
{
    uint64_t seq = s->out_seq + 1;
    if (s->resumable)
        session_gate(s);
    for (size_t i = 0; i < page->n_rows; i++) {
        give_row(s, page->rows[i]);
        g->after_id = page->rows[i]->id;
    }
    if (s->resumable)
        note_given(s, seq);
}

static void on_page(struct home *h, void *ctx, err e, const Store__Reply *reply)
{
    struct giving *g = ctx;
    user_unpin(g->user);
    g->asked = false;
    if (g->over) {
        free(g);
        return;
    }
    struct session *s = session_find(h, g->sid);
    bool there = s && session_eligible(s) && !s->detached && !s->doomed;
    if (e == ERR_AWAY && there && ++g->tries < TRIES) {
        ask(g); /* what came live meanwhile waits on, behind these */
        return;
    }
    if (e != ERR_OK || !reply || reply->body_case != STORE__REPLY__BODY_OFFLINE || !there) {
        finish(g); /* what is in the store stays there for the next one who comes */
        return;
    }
    if (g->again) { /* what comes first is not in this page */
        offline_more(s);
        return;
    }
    const Store__OfflinePage *page = reply->offline;
    g->tries = 0;
    give_page(s, g, page);
    g->more = (page->more && page->n_rows) || g->late;
    if (g->more) {
        offline_more(s);
        return;
    }
    g->user->offline_count = 0;
    finish(g);
}

static uint32_t at_least_one(uint64_t n, uint32_t max)
{
    return n == 0 ? 1 : n < max ? (uint32_t)n : max;
}

/* A page is at most a quarter of what the session may hold, asked for when half of that is free. */
static void ask(struct giving *g)
{
    Store__Request req = STORE__REQUEST__INIT;
    Store__OfflineGet op = STORE__OFFLINE_GET__INIT;
    const struct conf *c = g->user->home->node->conf;
    if (g->again)
        g->after_id = 0, g->again = false;
    op.after_id = g->after_id;
    op.limit = at_least_one(c->limits_unacked_max / 4, PAGE);
    op.bytes_max = at_least_one(c->limits_unacked_bytes_max / 4, PAGE_BYTES);
    req.op_case = STORE__REQUEST__OP_OFFLINE_GET, req.offline_get = &op;
    g->asked = true, g->late = false;
    user_pin(g->user);
    home_store(g->user->home, user_bare(g->user), &req, on_page, g);
}

static void on_dropped(struct home *h, void *ctx, err e, const Store__Reply *reply) {}

/* The store does one after the other: the page that is asked for next is without them. */
static void drop_archived(struct user *u)
{
    Store__Request req = STORE__REQUEST__INIT;
    Store__OfflineDropArchived op = STORE__OFFLINE_DROP_ARCHIVED__INIT;
    req.op_case = STORE__REQUEST__OP_OFFLINE_DROP_ARCHIVED, req.offline_drop_archived = &op;
    home_store(u->home, user_bare(u), &req, on_dropped, NULL);
}

void session_reads_archive(struct session *s)
{
    if (s->reads_archive)
        return;
    s->reads_archive = true;
    second_state(s, NULL);
}

void offline_start(struct session *s)
{
    struct user *u = s->user;
    /* Those still being written count: the store does one after the other. */
    if (u->giving || s->detached || (!u->offline_count && !u->putting))
        return;
    if (s->reads_archive)
        drop_archived(u);
    struct giving *g = calloc(1, sizeof *g);
    must(g);
    g->user = u, g->sid = s->sid;
    list_init(&g->waiting);
    list_push_back(&u->home->givings, &g->link);
    u->giving = g;
    ask(g);
}

void offline_more(struct session *s)
{
    struct giving *g = s->user->giving;
    if (g && g->sid == s->sid && (g->more || g->again) && !g->asked && session_has_room(s))
        ask(g);
}

void offline_back(struct user *u, struct route *r)
{
    if (r->sid)
        offline_put(u, r);
    else
        u->offline_count++;
    u->astray |= astray_bit(u->home, r->to.resource);
    if (u->giving)
        u->giving->again = true;
}

/* Its session has gone, or takes no messages any more: another one gets the rest, or nobody. */
void offline_left(struct user *u, struct session *s)
{
    struct giving *g = u->giving;
    if (!g || g->sid != s->sid)
        return;
    user_each_session(o, u)
        if (o != s && session_eligible(o) && !o->detached) {
            g->sid = o->sid;
            offline_more(o);
            return;
        }
    finish(g);
}

bool offline_wait(struct user *u, struct route *r, const struct session *to)
{
    struct giving *g = u->giving;
    struct home *h = u->home;
    if (!g || r->offline_only)
        return false;
    uint64_t bit = astray_bit(h, r->to.resource);
    if (to && to->sid != g->sid && !(u->astray & bit))
        return false;
    u->astray |= bit;
    struct route *k = route_keep(r);
    if (h->parked_bytes + k->work.bytes > h->node->conf->limits_park_max) {
        home_count(h, METRIC_limit_park, 1);
        route_error(r, ERR_STANZA_RESOURCE_CONSTRAINT);
        route_done(k);
        return true;
    }
    h->parked_bytes += k->work.bytes;
    if (list_empty(&g->waiting))
        g->waiting_since_ms = loop_now_ms(h->node->loop);
    list_push_back(&g->waiting, &k->work.link);
    return true;
}

void offline_sweep(struct home *h, uint64_t now_ms)
{
    list_each(g, &h->givings, struct giving, link)
        if (!list_empty(&g->waiting) && now_ms - g->waiting_since_ms >= USER_WAIT_MS)
            flush(g, true);
}

/* ---- remove ---- */

static void on_removed(struct home *h, void *ctx, err e, const Store__Reply *reply)
{
    if (ctx)
        ticket_close(ctx);
}

static void remove_with(struct user *u, const uint64_t *ids, size_t n, struct ticket *t)
{
    Store__Request req = STORE__REQUEST__INIT;
    Store__OfflineRemove op = STORE__OFFLINE_REMOVE__INIT;
    op.ids = (uint64_t *)ids, op.n_ids = n;
    if (u->giving && u->giving->asked)
        u->giving->again = true; /* they may be in the page that comes */
    req.op_case = STORE__REQUEST__OP_OFFLINE_REMOVE, req.offline_remove = &op;
    home_store(u->home, user_bare(u), &req, on_removed, t);
}

static void remove_rows(struct user *u, const uint64_t *ids, size_t n)
{
    remove_with(u, ids, n, NULL);
}

void offline_acked(struct session *s, const uint64_t *ids, size_t n)
{
    remove_rows(s->user, ids, n);
}

void offline_taken(struct user *u, str rows, struct ticket *t)
{
    size_t n = rows.n / sizeof(uint64_t);
    uint64_t *ids = arena_alloc(home_arena(u->home), n * sizeof *ids);
    for (size_t i = 0; i < n; i++)
        ids[i] = get_u64((const unsigned char *)rows.p + i * sizeof *ids);
    ticket_open(t);
    remove_with(u, ids, n, t);
}

static void give_up(struct giving *g)
{
    g->user->giving = NULL;
    list_remove(&g->link);
    list_each(w, &g->waiting, struct work, link) {
        g->user->home->parked_bytes -= w->bytes;
        list_remove(&w->link);
        route_done(container_of(w, struct route, work));
    }
}

void offline_leave(struct user *u)
{
    struct giving *g = u->giving;
    if (!g)
        return;
    give_up(g);
    g->over = true; /* the answer to what it has asked for frees it */
    if (!g->asked)
        free(g);
}

void offline_free(struct user *u)
{
    struct giving *g = u->giving;
    if (!g)
        return;
    give_up(g);
    free(g);
}
