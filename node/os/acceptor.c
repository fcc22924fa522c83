#include "node/os/acceptor.h"

#include <errno.h>
#include <stdlib.h>

enum { SLOTS = 4, RETRY_MS = 100 };

struct slot {
    struct accept_op accept;
    struct acceptor *owner;
};
struct acceptor {
    struct loop *loop;
    accepted_f *accepted;
    void *ctx;
    int fd;
    struct timer retry; /* after EMFILE and its like: asked again at once it would burn the core */
    struct slot slots[SLOTS];
};

static void arm(struct acceptor *a)
{
    for (unsigned i = 0; i < SLOTS; i++)
        if (a->slots[i].accept.op.state == OP_IDLE)
            loop_accept(a->loop, &a->slots[i].accept, a->fd);
}

static void on_retry(struct timer *t) { arm(container_of(t, struct acceptor, retry)); }

static void on_accept(struct op *op, int res)
{
    struct slot *s = container_of(op, struct slot, accept.op);
    struct acceptor *a = s->owner;
    struct sockaddr_storage from = s->accept.address;
    if (res < 0 && res != -ECONNABORTED) {
        loop_timer_set(a->loop, &a->retry, RETRY_MS);
        return;
    }
    loop_accept(a->loop, &s->accept, a->fd);
    if (res >= 0)
        a->accepted(a->ctx, res, &from);
}

void acceptor_open(struct loop *l, int listen_fd, accepted_f *accepted, void *ctx)
{
    struct acceptor *a = calloc(1, sizeof *a);
    must(a);
    a->loop = l, a->fd = listen_fd, a->accepted = accepted, a->ctx = ctx;
    timer_init(&a->retry, on_retry);
    for (unsigned i = 0; i < SLOTS; i++)
        a->slots[i].owner = a, a->slots[i].accept.op.done = on_accept;
    arm(a);
}
