/* acceptor: takes connections from one listening socket, for whoever expects few of them (the
 * edge's listener knows limits, balancers and neighbours).
 *
 * Life: acceptor_new to acceptor_stop, some turns after which it is gone by itself. */
#ifndef NODE_OS_ACCEPTOR_H
#define NODE_OS_ACCEPTOR_H

#include "pemberley/loop.h"

struct acceptor;
/* fd: connected, the callee's. */
typedef void accepted_f(void *ctx, int fd, const struct sockaddr_storage *from);

struct acceptor *acceptor_new(struct loop *l, int listen_fd, accepted_f *accepted, void *ctx);
void acceptor_stop(struct acceptor *a); /* closes the listening socket; accepted is not called */

#endif
