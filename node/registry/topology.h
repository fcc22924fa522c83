/* topology: which server has which slot, and connections to all of them.
 *
 *   single    one server: the first of registry.redis.servers that is reached and a master
 *   sentinel  the servers are sentinels; one after the other is asked for the master, each time
 *             that the connection to the last one ends. Nothing is subscribed to: a master that is
 *             none any more answers READONLY or goes away.
 *   cluster   CLUSTER SLOTS, from one after the other of the servers given and known, whenever an
 *             answer or an end of a connection says that the map is old, with a pause between.
 *
 * The connection that a map or a master is asked on (the *guide*) is one of its own and ends with
 * the answer. */
#ifndef NODE_REGISTRY_TOPOLOGY_H
#define NODE_REGISTRY_TOPOLOGY_H

#include "node/registry/server.h"

enum { TOPOLOGY_SLOTS = 16384, TOPOLOGY_SERVERS_MAX = 256 };

struct topology;
struct topology_sink {
    void (*up)(void *ctx);    /* one more server with data can be sent to */
    void (*down)(void *ctx);  /* one that was up is not any more, or one could not be reached */
    void (*moved)(void *ctx); /* a new map was taken */
};
struct topology *topology_new(struct redis *x, const struct topology_sink *sink, void *ctx);
/* CRC16 of the key, or of what stands between its first { and the } behind it; mod 16384. */
unsigned topology_slot(str key);
/* The server of a slot, or NULL: nobody knows, or it is not up. */
struct server *topology_server(const struct topology *t, unsigned slot);
/* A server said that slot is at address (host may be empty: its own host). The one there, if it is
 * up. moved: from now on; else only for one command (ASK). */
struct server *topology_redirect(struct topology *t, const struct server *from, unsigned slot,
                                 str address, bool moved);
/* What a server answered says that the topology is not what we think. */
void topology_doubt(struct topology *t);
/* Every slot can be sent to, as far as is known: no server is missing. */
bool topology_is_up(const struct topology *t);
/* The last server that came or went, and why it went or was not reached. */
str topology_where(const struct topology *t);
str topology_reason(const struct topology *t);
void topology_stop(struct topology *t);
bool topology_stopped(const struct topology *t);
void topology_free(struct topology *t);

#endif
