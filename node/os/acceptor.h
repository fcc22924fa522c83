/* acceptor: takes connections from one listening socket, for whoever expects few of them (the
 * edge's listener knows limits, balancers and neighbours).
 *
 * Life: as the process'. */
#ifndef NODE_OS_ACCEPTOR_H
#define NODE_OS_ACCEPTOR_H

#include "pemberley/loop.h"

/* fd: connected, the callee's. */
typedef void accepted_f(void *ctx, int fd, const struct sockaddr_storage *from);

/* Takes the listening socket over. */
void acceptor_open(struct loop *l, int listen_fd, accepted_f *accepted, void *ctx);

#endif
