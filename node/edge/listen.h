/* listen: accepting connections, and whom we do not let in: limits per shard and per address. */
#ifndef PEMBERLEY_EDGE_LISTEN_H
#define PEMBERLEY_EDGE_LISTEN_H

#include "node/edge/conn.h"

void listen_start(struct edge *e, enum listener_kind kind, unsigned owner, int fd);
/* Those of that owner: they are closed when their last accept has come back. */
void listen_stop(struct edge *e, unsigned owner);
/* Accepting has paused (admit.h) and goes on. */
void listen_go_on(struct edge *e);
/* Only when the loop will not run again: accepts cannot be taken back. */
void listen_free(struct edge *e);
/* Who is at the other end. elsewhere: the address says nothing about where we are asked from, so no
 * network's privileges go with it (proxied.h). */
struct listen_peer {
    struct sockaddr_storage address;
    bool elsewhere;
};
/* Is it one of these networks', with what they are allowed? */
bool listen_peer_is_in(struct edge *e, const struct listen_peer *peer, struct conf_list nets);
/* Why not; the names are labels of metrics too. */
enum listen_refusal {
    REFUSE_STOPPING,
    REFUSE_CONNECTIONS,
    REFUSE_PREAUTH,
    REFUSE_ADDRESS,
    REFUSE_RATE
};
/* May this connection stay? Counts it (*entry: NULL for exempt networks) if so; ERR_FULL and
 * why if not. */
nodiscard err listen_admit(struct edge *e, const struct listen_peer *peer,
                           struct throttle_entry **entry, enum listen_refusal *why);
/* It may: t gets its TLS, where that comes first, and its conn. */
struct conn *listen_begin(struct edge *e, enum listener_kind kind, struct transport *t,
                          const struct listen_peer *peer, struct throttle_entry *entry);
/* It may not, said and counted. */
void listen_count_refused(struct edge *e, enum listener_kind kind,
                          const struct sockaddr_storage *address, enum listen_refusal why);
/* ::ffff:192.0.2.1 becomes 192.0.2.1. */
void listen_unmap(struct sockaddr_storage *a);
str listen_name(enum listener_kind kind); /* the section of `listen` */

#endif
