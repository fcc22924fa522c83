/* line: the handshakes of clients wait here for their owner's call, in the order in which their
 * hellos came whole (tls.h says why). A hello waits where an incomplete record does, in the carry;
 * the link has memory of its own, for nearly all connections are open, and idle.
 *
 * A second hello (HelloRetryRequest) is the one that costs, so it waits again. What follows a hello
 * (Finished) does not: whoever has had the dear part is to be done with. */
#include "node/tls/inside.h"

struct in_line {
    struct list link;
    struct tls_conn *conn;
};

void tls_line_keep(struct tls *t) { t->line_kept = true; }
size_t tls_line_length(const struct tls *t) { return t->line_length; }

bool tls_line_holds(struct tls_conn *c)
{
    struct tls *t = c->tls;

    if (c->line)
        return true;
    if (!t->line_kept || c->client || c->bus || c->called || c->state != CONN_HANDSHAKE)
        return false;
    c->line = malloc(sizeof *c->line);
    must(c->line);
    c->line->conn = c;
    list_push_back(&t->line, &c->line->link);
    t->line_length++;
    return true;
}

void tls_line_leave(struct tls_conn *c)
{
    if (!c->line)
        return;
    list_remove(&c->line->link);
    c->tls->line_length--;
    free(c->line);
    c->line = NULL;
}

bool tls_line_next(struct tls *t)
{
    if (list_empty(&t->line))
        return false;
    struct tls_conn *c = list_first(&t->line, struct in_line, link)->conn;
    tls_line_leave(c);
    c->called = true;
    tls_conn_called(c);
    return true;
}
