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
 * blocks), with TCP_NODELAY; the callee's. -1: e says why, ERR_IO when nobody answered there. */
typedef void connected_f(void *ctx, err e, int fd, const struct sockaddr_storage *to);

/* done runs once, never from inside, within timeout_ms and the resolver's own. host is copied. */
struct connecting *connect_start(struct loop *l, struct resolver *r, str host, uint16_t port,
                                 uint32_t timeout_ms, connected_f *done, void *ctx);
void connect_stop(struct connecting *c); /* done does not run any more */

#endif
