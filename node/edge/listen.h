/* listen: accepting connections, and whom we do not let in: limits per shard and per address. */
#ifndef PEMBERLEY_EDGE_LISTEN_H
#define PEMBERLEY_EDGE_LISTEN_H

#include "node/edge/conn.h"

void listen_start(struct edge *e, enum listener_kind kind, unsigned owner, str address, int fd);
/* Those of that owner: they are closed when their last accept has come back. */
void listen_stop(struct edge *e, unsigned owner);
/* Only when the loop will not run again: accepts cannot be taken back. */
void listen_free(struct edge *e);
/* May a connection from this address stay? Counts it (*entry: NULL for exempt networks) if so;
 * ERR_FULL with a word for the log if not. */
nodiscard err listen_admit(struct edge *e, const struct sockaddr_storage *address,
                           struct throttle_entry **entry, const char **why);

#endif
