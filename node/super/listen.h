/* listen: one SO_REUSEPORT socket per address and shard (systems.md 2). The supervisor keeps all of
 * them open for its life: the queue of a dead shard's socket waits for the next one, while closing
 * it would reset everybody in it. Options that connections inherit are set here, once. */
#ifndef PEMBERLEY_NODE_SUPER_LISTEN_H
#define PEMBERLEY_NODE_SUPER_LISTEN_H

#include "node/super/child.h"
#include "pemberley/arena.h"

struct listener {
    enum child_listener kind;
    str address; /* as in the config */
    int backlog;
    int fd[CHILD_SHARDS_MAX];
};

/* Binds, does not listen yet. shards sockets; on failure none, and *problem is the sentence. */
nodiscard err listener_open(struct listener *l, unsigned shards, struct arena *a, str *problem);
nodiscard err listener_start(const struct listener *l, unsigned shards); /* errno */
/* Nobody gets in, the addresses stay bound; until listener_start. */
void listener_pause(const struct listener *l, unsigned shards);
/* The bus: one socket per shard, each on a port of its own (the address' and those behind it),
 * which listen at once. A name is looked up once, and waited for. */
nodiscard err listener_open_bus(str address, unsigned shards, int backlog, int fd[CHILD_SHARDS_MAX],
                                str *problem, struct arena *a);
void listener_close(struct listener *l, unsigned shards);
/* "cannot listen on :5222: …". holder may be empty. */
str listener_complaint(str address, int problem, str holder, struct arena *a);

#endif
