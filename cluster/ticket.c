#include "cluster/ticket.h"

#include "pemberley/pool.h"

struct ticket {
    struct list link; /* of a list that somebody looks through, or none */
    struct channels *channels;
    struct origin origin;
    struct uid uid;
    uint32_t open;
    bool again;
    ticket_done_f *done;
    void *ctx;
    struct follower *followers; /* those that have joined this one */
};

struct follower {
    struct follower *next;
    struct ticket *ticket;
};

struct ticket *ticket_new(struct channels *c, struct origin o, struct uid uid, ticket_done_f *done,
                          void *ctx)
{
    struct ticket *t = pool_get(channel_tickets(c), sizeof *t);
    *t = (struct ticket){
        .channels = c, .origin = o, .uid = uid, .open = 1, .done = done, .ctx = ctx};
    list_init(&t->link);
    return t;
}

void ticket_open(struct ticket *t)
{
    must(t->open > 0);
    t->open++;
}

void ticket_close(struct ticket *t)
{
    must(t->open > 0);
    if (--t->open)
        return;
    list_remove(&t->link);
    if (t->done)
        t->done(t->ctx, t);
    if (t->origin.number)
        channel_done(t->channels, t->origin);
    while (t->followers) {
        struct follower *f = t->followers;
        t->followers = f->next;
        ticket_close(f->ticket);
        free(f);
    }
    pool_put(channel_tickets(t->channels), t);
}

struct uid ticket_uid(const struct ticket *t) { return t->uid; }

struct origin ticket_defer(struct ticket *t)
{
    struct origin o = t->origin;
    t->origin.number = 0;
    return o;
}

void ticket_set_again(struct ticket *t) { t->again = true; }
bool ticket_is_again(const struct ticket *t) { return t->again; }

uint32_t ticket_flags(const struct ticket *t)
{
    if (!t)
        return FRAME_PATIENT;
    return (t->again ? FRAME_AGAIN : 0) | (t->origin.patient ? FRAME_PATIENT : 0);
}

void ticket_list(struct ticket *t, struct list *l) { list_push_back(l, &t->link); }

struct ticket *ticket_find(const struct list *l, struct uid uid, const struct ticket *before)
{
    list_each(t, l, struct ticket, link) {
        if (t == before)
            break;
        if (uid_eq(t->uid, uid))
            return t;
    }
    return NULL;
}

void ticket_join(struct ticket *first, struct ticket *second)
{
    must(first != second);
    struct follower *f = malloc(sizeof *f);
    must(f);
    *f = (struct follower){first->followers, second};
    first->followers = f;
    ticket_open(second);
}

struct hold ticket_hold(struct ticket *t)
{
    ticket_open(t);
    return (struct hold){HOLD_TICKET, (uintptr_t)t, 0};
}

void ticket_hold_more(struct hold h)
{
    if (h.owner == HOLD_TICKET)
        ticket_open((struct ticket *)(uintptr_t)h.a);
}

void ticket_ords(const struct list *l, uint64_t sid, ticket_done_f *done, uint64_t bits[4])
{
    list_each(t, l, struct ticket, link)
        if (t->uid.sid == sid && t->done == done)
            bits[t->uid.ord / 64 % 4] |= 1ull << t->uid.ord % 64;
}

void ticket_orphan_of(const struct list *l, ring_wanted_f *of, const void *ctx)
{
    list_each(t, l, struct ticket, link)
        if (of(ctx, (unsigned)(t->uid.sid >> 50)))
            t->done = NULL;
}

void ticket_settled(struct hold h)
{
    must(h.owner == HOLD_TICKET);
    ticket_close((struct ticket *)(uintptr_t)h.a);
}
