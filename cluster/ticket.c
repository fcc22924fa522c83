#include "cluster/ticket.h"

#include "pemberley/pool.h"

struct ticket {
    struct channels *channels;
    struct origin origin;
    struct uid uid;
    uint32_t open;
    ticket_done_f *done;
    void *ctx;
};

struct ticket *ticket_new(struct channels *c, struct origin o, struct uid uid, ticket_done_f *done,
                          void *ctx)
{
    struct ticket *t = pool_get(channel_tickets(c), sizeof *t);
    *t = (struct ticket){c, o, uid, 1, done, ctx};
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
    if (t->origin.number)
        channel_done(t->channels, t->origin);
    if (t->done)
        t->done(t->ctx, t);
    pool_put(channel_tickets(t->channels), t);
}

struct uid ticket_uid(const struct ticket *t) { return t->uid; }

struct hold ticket_hold(struct ticket *t)
{
    ticket_open(t);
    return (struct hold){HOLD_TICKET, (uintptr_t)t, 0};
}

void ticket_settled(struct hold h)
{
    must(h.owner == HOLD_TICKET);
    ticket_close((struct ticket *)(uintptr_t)h.a);
}
