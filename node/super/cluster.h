/* cluster: the supervisor's part when the node is one of a cluster (child.h has the shards').
 *
 * It owns what must outlive a shard: the sockets of the bus, the identity on it, the lease's owner,
 * the highest epoch heard of (also over restarts: data_dir/cluster/epoch), and the operator's wish.
 * It names the clerk, ends siblings that are stuck, and starts fenced shards anew. What the cluster
 * decides, the shards do among themselves; what they know, their metrics pages have.
 *
 * Without cluster.name nothing here does anything (owner is 0). */
#ifndef PEMBERLEY_NODE_SUPER_CLUSTER_H
#define PEMBERLEY_NODE_SUPER_CLUSTER_H

#include "node/super/child.h"
#include "pemberley/arena.h"
#include "pemberley/metric.h"
#include "proto/bus/control.pb-c.h"

struct super;
struct client;
struct conf;
struct process;

struct cluster_state {
    uint64_t owner; /* 0: a single node */
    uint64_t epoch; /* the highest heard of */
    int identity_fd;
    int64_t identity_end_s; /* Unix time */
    int bus_fd[CHILD_SHARDS_MAX];
    str bus_address;            /* own memory */
    bool ran;                   /* a shard of this run has ended */
    uint32_t clerk;             /* its index, */
    uint64_t clerk_incarnation; /* 0: none is appointed */
    bool told;                  /* node_fenced is logged, and no shard has been ready since */
    bool fenced;                /* all that were up have ended: nobody gets in */
    int64_t stalled_ms;         /* since when a shard may not act (monotonic); 0: all may */
    bool let_go;                /* and clients were let go because of that: nobody gets in */
    bool drain;
    uint32_t weight;
    int64_t registry_lost_ms; /* monotonic; 0: it is there */
};

/* The sockets, the owner, the epoch; the identity is there already (certificates_bus). */
nodiscard err cluster_open(struct super *s, str *problem, struct arena *a);
void cluster_close(struct super *s);
/* A config is in force instead of old, and with it the identity as it is now. */
void cluster_configured(struct super *s, const struct conf *old);

void cluster_fill(const struct process *p, Control__Start *start);
/* p has been started and introduced to its siblings. */
void cluster_started(struct process *p);
/* Names another clerk where there is none any more: whenever a process has come or gone. */
void cluster_appoint(struct super *s);
bool cluster_is_clerk(const struct process *p);
/* A shard is ready: the node has its part again. */
void cluster_ready(struct super *s);
/* It ended with CHILD_EXIT_FENCED, at now_ms: in how many milliseconds it is started again. */
int64_t cluster_fenced_wait(const struct process *p, int64_t now_ms);

/* What shards say. */
void cluster_on_ended(struct process *p, unsigned why, uint64_t epoch);
void cluster_on_stalled(struct process *p, const Control__Stalled *m);
void cluster_on_epoch(struct super *s, uint64_t epoch);
void cluster_on_stuck(struct process *by, uint32_t shard, uint64_t incarnation);

/* The node's slots are to go elsewhere, or to come back. */
void cluster_drain(struct super *s, bool drain);
/* Have they gone, or is there nobody who could have them? True without a cluster. */
bool cluster_has_moved(const struct super *s);

/* For readiness, metrics and the status page. */
void cluster_tick(struct super *s);            /* once a second */
uint64_t cluster_epoch(const struct super *s); /* of the view in force; 0: none yet */
uint64_t cluster_slots(const struct super *s); /* at home here */
uint64_t cluster_nodes(const struct super *s, enum metric_member state);
int64_t cluster_registry_away_s(const struct super *s); /* 0: it is there */
uint64_t cluster_rails(const struct super *s, enum metric_rail state);
bool cluster_bus_is_degraded(const struct super *s); /* a rail is not up */
bool cluster_is_one(const struct super *s); /* all nodes, and none is suspect, go by one view */

/* node-list, node-ring, node-remove, node-drain, node-weight (operator.md 3). */
void cluster_command(struct super *s, struct client *c, size_t argc, const str *argv);

#endif
