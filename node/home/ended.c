/* ended: what the store knows of a session that has ended, for the client that tries to resume it
 * (XEP-0198 5): its h, and which rows of the offline store were in its queue.
 *
 * h counts what is safe, like any that is told (delivery.md I3): a session may end while stanzas of
 * its client are on their way, so its h is put there when the last of them is safe. Until then, or
 * if this home dies before, the answer is without h. */
#include "node/home/inside.h"

struct ending {
    struct list link;  /* of home->endings */
    struct user *user; /* pinned */
    uint64_t sid;
    uint32_t h, open; /* open: stanzas of its client that are not safe yet */
};

void ended_failed(struct home *h, unsigned edge, uint64_t conn, const uint32_t *client_h)
{
    struct frame f = {.kind = FRAME_FAILED,
                      .conn = conn,
                      .h = client_h ? *client_h : 0,
                      .flags = client_h ? FRAME_HAS_H : 0};
    home_count(h, METRIC_resumption_failures_unknown, 1);
    channel_send(h->node->channels, edge, &f, (struct hold){0}, false);
}

static void token_of(uint64_t sid, unsigned char out[8])
{
    for (int i = 0; i < 8; i++)
        out[i] = (unsigned char)(sid >> (56 - 8 * i));
}

static void on_nothing(struct home *h, void *ctx, err e, const Store__Reply *reply) {}

/* ---- its h ---- */

static void put(struct user *u, uint64_t sid, uint32_t client_h)
{
    unsigned char token[8];
    token_of(sid, token);
    Store__Request req = STORE__REQUEST__INIT;
    Store__EndedPut op = STORE__ENDED_PUT__INIT;
    op.token = home_bytes(str_from(token, 8));
    op.h = client_h;
    op.time_us = home_wall_us(u->home);
    req.op_case = STORE__REQUEST__OP_ENDED_PUT, req.ended_put = &op;
    home_store(u->home, user_bare(u), &req, on_nothing, NULL);
}

void ended_note(struct session *s, uint64_t dropped)
{
    struct user *u = s->user;
    uint32_t client_h = (uint32_t)(s->in_ord - dropped - s->in_base);
    uint32_t open = s->open_in - (uint32_t)dropped;
    if (!open || u->home->stopping) { /* it goes, the store stays a moment */
        put(u, s->sid, client_h);
        return;
    }
    struct ending *e = malloc(sizeof *e);
    must(e);
    *e = (struct ending){.user = u, .sid = s->sid, .h = client_h, .open = open};
    user_pin(u);
    list_push_back(&u->home->endings, &e->link);
}

void ended_in_safe(struct home *h, uint64_t sid)
{
    list_each(e, &h->endings, struct ending, link) {
        if (e->sid != sid || --e->open)
            continue;
        struct user *u = e->user;
        put(u, sid, e->h);
        list_remove(&e->link);
        free(e);
        user_unpin(u);
        return;
    }
}

/* As if this home had died: the answer is without h. */
void ended_leave(struct user *u)
{
    list_each(e, &u->home->endings, struct ending, link) {
        if (e->user != u)
            continue;
        list_remove(&e->link);
        free(e);
        user_unpin(u);
    }
}

void ended_free(struct home *h)
{
    list_each(e, &h->endings, struct ending, link) {
        list_remove(&e->link);
        free(e);
    }
}

/* ---- its client comes back ---- */

struct failing {
    struct ticket *ticket;
    uint64_t conn;
    uint32_t edge;
    bool early; /* its count is not in the store yet */
};

/* XEP-0198 5: the h of an ended session, and what its client has of what was stored for it. */
static void on_ended_known(struct home *h, void *ctx, err e, const Store__Reply *reply)
{
    struct failing *f = ctx;
    bool known = e == ERR_OK && reply && reply->body_case == STORE__REPLY__BODY_ENDED && !f->early;
    uint32_t was = known ? reply->ended->h : 0;
    ended_failed(h, f->edge, f->conn, known ? &was : NULL);
    ticket_close(f->ticket);
    free(f);
}

void ended_take_rows(struct user *u, uint64_t sid, uint64_t seq_min, uint64_t seq_max)
{
    unsigned char token[8];
    token_of(sid, token);
    Store__Request req = STORE__REQUEST__INIT;
    Store__OfflineRemoveQueue remove = STORE__OFFLINE_REMOVE_QUEUE__INIT;
    remove.sid = home_bytes(str_from(token, 8));
    remove.seq_min = seq_min, remove.seq_max = seq_max;
    req.op_case = STORE__REQUEST__OP_OFFLINE_REMOVE_QUEUE, req.offline_remove_queue = &remove;
    home_store(u->home, user_bare(u), &req, on_nothing, NULL);
}

/* What the store has of it may be of a time before: it had ended here, and came back with a home
 * that had not heard of that. */
static bool is_ending(const struct home *h, uint64_t sid)
{
    list_each(e, &h->endings, struct ending, link)
        if (e->sid == sid)
            return true;
    return false;
}

void ended_resume(struct user *u, unsigned edge, const struct frame *f, struct ticket *t)
{
    struct home *h = u->home;
    LOG(h->node->log, resume_failed, F_JID("jid", user_bare(u)), F_STR("reason", STR("unknown")));
    unsigned char token[8];
    token_of(f->sid, token);
    ended_take_rows(u, f->sid, 0, (uint32_t)f->h);
    struct failing *w = malloc(sizeof *w);
    must(w);
    *w =
        (struct failing){.ticket = t, .conn = f->conn, .edge = edge, .early = is_ending(h, f->sid)};
    ticket_open(t);
    Store__EndedGet get = STORE__ENDED_GET__INIT;
    get.token = home_bytes(str_from(token, 8)), get.time_us = home_wall_us(h);
    Store__Request req = STORE__REQUEST__INIT;
    req.op_case = STORE__REQUEST__OP_ENDED_GET, req.ended_get = &get;
    home_store(h, user_bare(u), &req, on_ended_known, w);
}
