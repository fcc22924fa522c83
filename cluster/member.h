/* member: one shard's part in deciding who is a member (architecture 7). A state machine without a
 * socket, a clock or a timer: the wiring brings time, words and news, and carries out what the
 * sinks say.
 *
 *   starting --lease, view with me in it--> acting --removed, left, cut off--> ended
 *                                           ^    | deadline, nobody knows more      ^
 *                                  a view   |    v                                  |
 *                               of its own  +- stalled --removed, cut off-----------+
 *
 * One shard of a node is its *clerk*: it renews the node's lease in the registry, reads and
 * publishes views, and tells its siblings by ORDERs how long they may act; a sibling that hears no
 * orders stops as a node does that cannot renew. Clerks of different nodes send each other BEATs.
 *
 * What holds (tests/unit/cluster/member_sim.c checks it from outside):
 *  - *Lease.* A shard acts only before its deadline: the sending time of the last renewal that
 *    succeeded, plus the lease, less a tenth of it for clocks that run unequally. A lease that the
 *    registry does not have any more is of a node that has stopped acting.
 *  - *Who may remove.* A node is removed by full members (LIVE or DRAINING) only, for want of a
 *    lease; its dead shards by its own clerk. A node that joins is JOINING until all shards of all
 *    full members have said that they go by a view with it: so who goes by an old view has all who
 *    may remove it in that view. An epoch that removes a member changes nothing else.
 *  - *Frozen.* With the registry away a node acts on while every other node of its view, in the
 *    same epoch, promises not to publish nor adopt an epoch for one lease. Who gives promises keeps
 *    them, also over a change of clerk, and goes on giving them for two leases after the registry
 *    has come back, for those whose connection comes back later.
 *  - *Stalled.* Whose deadline passes while the registry is away stops acting, but need not end:
 *    it may be that nobody has removed it. Alone or with others that miss the registry too it
 *    waits; who hears from a node that has the registry, or from the registry that its lease is
 *    another's or revoked, is the one cut off, and ends. With the registry back it renews its lease
 *    and publishes the view in force once more, unchanged, under an epoch of its own: if it was
 *    removed it finds that out, and if somebody is about to remove it, that publication fails, and
 *    what was seen of leases in an epoch before says nothing in this one. A sibling goes on by the
 *    order of a clerk that acts. Promises do not end it: who finds the registry empty, and its
 * lease missing, may have given its slots to others.
 *  - *Settled.* A shard that gains slots in an epoch may own them once that epoch is settled: all
 *    shards of all full members in it go by it, or have been fenced. Who skips an epoch never says
 *    it, so that nobody owns anything by an epoch that was skipped.
 *  - *Empty registry.* When it has lost the view (or goes back to an older one), any member whose
 *    view is the newest known publishes it again under an epoch above the highest known, not before
 *    one lease has passed and every other node of the view has been heard or has lost its lease.
 *    Who is no member waits for that.
 *  - *Founded.* A cluster begins with one node that has a short found_ms: that on which it was
 *    made, at its very first start. Any other, and who remembers an epoch or has seen or heard a
 *    member, founds one only after four leases in which the registry had no view and no member's
 *    lease, and none was heard: so one that was off as a whole comes back with an empty registry.
 *
 * An ended member does nothing any more. Its shard closes its clients' sockets (delivery.md 5.6)
 * and starts as a new incarnation, with a new struct member. */
#ifndef PEMBERLEY_MEMBER_H
#define PEMBERLEY_MEMBER_H

#include "cluster/view.h"

enum member_end {
    MEMBER_FENCED,     /* the lease could not be renewed in time, and others could */
    MEMBER_REMOVED,    /* a view in force is without this incarnation */
    MEMBER_LEFT,       /* as asked for by member_leave */
    MEMBER_NAME_TAKEN, /* another node of this name holds the lease, for two leases now */
    MEMBER_FULL,       /* the view has VIEW_NODES_MAX nodes */
};
const char *member_end_text(enum member_end e); /* for logs and the operator */

struct member_settings {
    str node;                        /* name */
    str address;                     /* of the bus */
    uint64_t owner;                  /* random, of this run of the supervisor; not 0 */
    unsigned shard;                  /* index */
    uint64_t incarnation;            /* never the same twice for a name; not 0 */
    uint32_t weight;                 /* cluster.weight */
    uint32_t heartbeat_ms, lease_ms; /* lease_ms >= 3 * heartbeat_ms */
    uint32_t silence_ms;             /* cluster.barrier_timeout: who is silent so long is removed */
    uint32_t found_ms; /* no sign of a cluster for so long: found one. A heartbeat for the node that
                          made the cluster while it remembers no epoch, four leases for others; 0:
                          never */
    uint64_t epoch;    /* the highest that this node remembers; 0: none */
    bool again;        /* shards of this node have run under this owner before */
};

enum { MEMBER_ANY_SHARD = VIEW_SHARDS_MAX };

struct member_sinks {
    void *ctx;
    /* Milliseconds of a clock that never goes back nor stops in suspend (CLOCK_BOOTTIME), one for
     * all shards of the machine. */
    uint64_t (*now_ms)(void *ctx);
    /* Words for a sibling, or for any shard of another node (MEMBER_ANY_SHARD), which hands them to
     * member_hear there. May be lost, late, out of order. Gone when it returns. */
    void (*say)(void *ctx, str node, unsigned shard, str bytes);
    /* This is the view to go by from now on; it lives until the next one. */
    void (*adopted)(void *ctx, const struct view *v);
    /* The view adopted last is settled: what was gained in it may be owned. Once per view. */
    void (*settled)(void *ctx, uint64_t epoch);
    /* A node of the view is silent (or is heard again). */
    void (*suspect)(void *ctx, const struct view_node *n, bool suspect);
    /* A sibling does not report, or has been removed from the view while it ran: end its process.
     */
    void (*stuck)(void *ctx, unsigned shard);
    /* Stop acting, now; or go on, in the view adopted last. */
    void (*stalled)(void *ctx, bool stalled);
    /* The last call: stop acting, now. */
    void (*ended)(void *ctx, enum member_end why);
};

struct member;
/* The registry and the sinks must live longer. No sink is called before the first member_wake. */
struct member *member_new(const struct member_settings *s, struct registry *registry,
                          const struct member_sinks *sinks);
void member_free(struct member *m);

/* To be called after every wake-up of the loop, before anything else is done (the deadline is
 * looked at), and at the time that it returned (milliseconds of the same clock). Every other call
 * here looks at the deadline first, too. Sinks call nothing of the member. */
uint64_t member_wake(struct member *m);

/* The supervisor's news. Siblings: shards of this node, this one not among them. The clerk: the
 * lowest live shard; another one is appointed when it is down, and only then, and is told of all
 * its siblings first. */
void member_sibling_up(struct member *m, unsigned shard, uint64_t incarnation);
void member_sibling_down(struct member *m, unsigned shard);
void member_clerk(struct member *m, unsigned shard);

/* A word from a shard of that node, whose name is proven. ERR_BAD, ERR_REFUSED: the peer says what
 * no peer of ours says. */
nodiscard err member_hear(struct member *m, str node, str bytes);
/* Pings to a node's shards are lost: its lease is looked at more closely. Or the way there is open
 * (again): it is told at once what it has not heard. */
void member_silent(struct member *m, str node, bool silent);

/* What the operator wants; the clerk publishes it as soon as it can, all shards of a node are to be
 * told. Draining is not published while no other node would have a share. */
void member_weight(struct member *m, uint32_t weight);
void member_drain(struct member *m, bool drain);
void member_leave(struct member *m); /* after draining, when nothing is left here; once the clerk
                                        has MEMBER_LEFT, its siblings have nothing to stay for */
/* The operator says that this node is dead: it may be removed by anybody once it has no lease. */
void member_forget(struct member *m, str node);

/* Is this shard a member of the view it goes by, before its deadline? As of the last call. */
bool member_acts(const struct member *m);
bool member_is_stalled(const struct member *m);
/* Another node is heard that misses the registry too: asked of a clerk that is stalled, to whose
 * clients no other node may be of more use. */
bool member_has_company(const struct member *m);
const struct view *member_view(const struct member *m); /* NULL: none yet */
bool member_is_settled(const struct member *m);
uint64_t member_lease_failures(const struct member *m); /* renewals refused or not answered */
/* As the suspect sink was told last; false for who is not in the view. */
bool member_suspects(const struct member *m, str node);
uint64_t member_silence_ms(const struct member *m, str node); /* since its last beat */
uint64_t member_deadline_ms(const struct member *m);          /* 0: no lease yet */
/* It acts by promises, not by its lease. */
bool member_is_frozen(const struct member *m);
uint64_t member_known_epoch(const struct member *m); /* to be remembered as settings.epoch */

#endif
