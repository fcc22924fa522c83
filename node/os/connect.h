/* connect: a TCP connection in the making: the name is resolved, its addresses are tried one after
 * the other, and what comes out is a socket, or why there is none.
 *
 * Life: connect_start to its done, or to connect_stop; nobody has to free it. */
#ifndef NODE_OS_CONNECT_H
#define NODE_OS_CONNECT_H

#include "pemberley/loop.h"

struct resolver;
struct connecting;
/* fd: connected, close-on-exec, blocking (a loop on io_uring waits for it, one on epoll never
 * blocks), with TCP_NODELAY; the callee's. -1: e says why, ERR_IO when nobody answered there, and
 * failure, for people. */
typedef void connected_f(void *ctx, err e, int fd, const struct sockaddr_storage *to,
                         const char *failure);

struct connect_to {
    str host; /* a name or numeric; copied */
    uint16_t port;
    const struct sockaddr_storage *address; /* instead of host; also AF_UNIX. NULL: host */
    /* Of a name's addresses the one to begin with, modulo their number; counts up with each that
     * does not answer, and so does one that was given up. NULL: the first. */
    unsigned *first;
    uint32_t timeout_ms; /* besides the resolver's own; 0: who waits for done stops it */
};
/* done runs once, never from inside. resolver may be NULL with an address. */
struct connecting *connect_start(struct loop *l, struct resolver *r, const struct connect_to *to,
                                 connected_f *done, void *ctx);
void connect_stop(struct connecting *c); /* done does not run any more */

#endif
