/* child: the child's side of the supervisor's control socket, used by the mains of pemberley-shard
 * and pemberley-store. It knows no loop: the owner waits for child_events on child_fd with whatever
 * it has (loop_poll, poll) and calls child_turn, which runs the callbacks.
 *
 * Order: on_start comes first and once. The child builds itself and says child_ready; then the
 * supervisor begins to listen and sends on_listener. on_peer_up may come any time after on_start,
 * also for a peer that is up already: that one has been started anew (its down came first), or the
 * pair got a fresh segment. A descriptor given to a callback belongs to the callback.
 *
 * The supervisor's socket is descriptor CHILD_FD of a child. A child ends when the socket does. */
#ifndef PEMBERLEY_NODE_SUPER_CHILD_H
#define PEMBERLEY_NODE_SUPER_CHILD_H

#include "cluster/member.h"
#include "pemberley/err.h"
#include "pemberley/str.h"

enum { CHILD_FD = 3, CHILD_SECRET = 32, CHILD_SHARDS_MAX = 64 };

enum child_kind { CHILD_SHARD, CHILD_STORE };
enum child_listener { CHILD_C2S, CHILD_C2S_TLS, CHILD_BUS };

/* What a shard of a cluster needs beside its configuration, for member_settings. Without a cluster
 * (cluster.name is empty) owner is 0, identity_fd -1, and no callback of a cluster comes. */
struct child_cluster {
    uint64_t owner;  /* random, of this run of the supervisor */
    bool again;      /* shards of this run have run before */
    uint64_t epoch;  /* the highest that the node remembers (child_epoch); 0: none */
    int identity_fd; /* tls_take_bus */
};

/* Who this process is, and what it needs. All descriptors are the callee's. */
struct child_start {
    enum child_kind kind;
    uint32_t index;
    uint32_t shards, stores; /* how many of each the node has */
    uint64_t incarnation;    /* never the same twice while the supervisor lives */
    unsigned char secret[CHILD_SECRET];
    str node;       /* the node's name; valid until on_start returns */
    int conf_fd;    /* conf_map */
    int certs_fd;   /* tls_certs; -1 for a store worker */
    int metrics_fd; /* struct metric_page, ours to write */
    int wake_fd;    /* our eventfd, that peers write to wake us */
    int bell_fd;    /* our shared page with the sleeping flag and pending masks (node/os/fifo.h) */
    struct child_cluster cluster;
};

/* A process to talk with: the arguments of fifo_hub_attach. The segment is fresh for this pair. */
struct child_peer {
    enum child_kind kind;
    uint32_t index;
    uint64_t incarnation;
    int segment_fd;
    int wake_fd; /* the peer's */
    int bell_fd; /* the peer's */
};

/* The connections go: `count` in `per_ms`; 0: as fast as may be. */
struct child_drain {
    bool on, now; /* on false: no further ones; now: all at once */
    uint64_t count, per_ms;
};

/* What the operator wants of this node in its cluster: member_drain, member_weight. */
struct child_wish {
    bool drain;
    uint32_t weight; /* `node weight`'s, else cluster.weight as of the last reload */
};

/* Callbacks that a process has no use for are NULL (their descriptors are closed). */
struct child_calls {
    void (*on_start)(void *ctx, const struct child_start *s);
    /* owner: the shard whose queue this is; another one's only while that one stays down.
     * CHILD_BUS: a shard's own, on listen.bus.address with its index added to the port; it listens,
     * comes once, right behind on_start and before child_ready, and is never taken back. */
    void (*on_listener)(void *ctx, enum child_listener kind, uint32_t owner, str address, int fd);
    void (*on_listener_gone)(void *ctx, uint32_t owner); /* stop accepting there, close it */
    void (*on_peer_up)(void *ctx, const struct child_peer *p);
    void (*on_peer_down)(void *ctx, enum child_kind kind, uint32_t index, uint64_t incarnation);
    /* The new generation; take it between two turns, then child_reloaded. certs_fd may be -1. */
    void (*on_reload)(void *ctx, uint64_t generation, int conf_fd, int certs_fd);
    void (*on_drain)(void *ctx, const struct child_drain *d);
    /* In a cluster only. The clerk, by its index: told to every shard, behind on_peer_up for all
     * siblings that live; it stays the clerk while it lives, then it is the lowest that does. */
    void (*on_clerk)(void *ctx, uint32_t shard);
    /* Behind on_start, and when it changes. */
    void (*on_wish)(void *ctx, const struct child_wish *w);
    void (*on_identity)(void *ctx, int fd); /* tls_take_bus: renewed, for rails from now on */
    /* To a child_ask, in pieces; the last one has more = false. exit and text as of child_reply. */
    void (*on_answer)(void *ctx, uint64_t id, unsigned exit, str text, bool more);
    /* Answer with child_reply, at once or later, exactly once per id. argv is valid until return.
     */
    void (*on_command)(void *ctx, uint64_t id, size_t argc, const str *argv);
    /* Finish within the deadline, then child_stopped and exit(0). In a cluster the clerk is told
     * when all its siblings have ended: when its rooms have finished, it leaves (member_leave) and
     * waits for MEMBER_LEFT before child_stopped, also within the deadline. */
    void (*on_stop)(void *ctx, uint32_t deadline_ms);
    /* The supervisor is gone: flush for a second at most and exit. */
    void (*on_lost)(void *ctx);
};

/* Is there a supervisor's socket at CHILD_FD? Else somebody has started the program by hand. */
bool child_has_supervisor(void);

struct child;
/* fd: CHILD_FD in production, one end of a SOCK_SEQPACKET pair in tests; owned from here. */
struct child *child_open(int fd, const struct child_calls *calls, void *ctx);
void child_close(struct child *c);
int child_fd(const struct child *c);
/* POLLIN, and POLLOUT while something waits to be sent. */
short child_events(const struct child *c);
void child_turn(struct child *c); /* never blocks; callbacks run here */

/* How a child ends that cannot do here what the config asks for, and said why in the log. Before
 * the node was ready for the first time, that ends the node. */
enum { CHILD_EXIT_CONFIG = 78 };
/* How a shard ends whose membership has (member_sinks.ended; child_ended said why). It is started
 * again at once, as no crash; with MEMBER_NAME_TAKEN a second later, and before the node was ready
 * for the first time that, or MEMBER_FULL, ends the node. */
enum { CHILD_EXIT_FENCED = 79 };
void child_ready(struct child *c, const char *loop); /* "io_uring", "epoll"; store: "sqlite" */
/* Sent before it returns. */
void child_stopped(struct child *c, uint64_t sessions, uint64_t flushed);
void child_reloaded(struct child *c, uint64_t generation);
/* exit: operator.md section 3. text: of exit 0 JSON, else a sentence; any length, sent in chunks.
 */
void child_reply(struct child *c, uint64_t id, unsigned exit, str text);
/* The peer's fifo holds what it never may: the supervisor starts that process anew. */
void child_poisoned(struct child *c, enum child_kind kind, uint32_t index, uint64_t incarnation);

/* ---- in a cluster ----------------------------------------------------------------------------
 *
 * Commands for the clerk's shard, by on_command, also before child_ready; exits as operator.md 3
 * has them. Numbers that are not known (of a node that does not answer within a second) are left
 * out. node-list                {"v":1,"node":"a","epoch":41,"settled":true,"frozen":false,
 *                             "stalled":false,"registry":true,"slots":16384,"items":[NODE…]}
 *                            slots: of those that somebody owns; frozen: acting by promises;
 *                            stalled: not acting
 *     NODE                   {"name":"a","self":true,"state":"live","address":"10.0.0.1:5275",
 *                             "shards":8,"weight":100,"slots":5461,"epoch":41,
 *                             "version":"0.1.0","sessions":41203,"lease_seconds":2.4,
 *                             "rtt_seconds":0.0003,"up_seconds":432000,"drain_share":0.78,
 *                             "drain_eta_seconds":40,"config":"7f3a91c2"}
 *                            state: "joining", "live", "drain", "suspect" (silent; else as it was).
 *                            epoch: that it goes by. drain_…: while it drains. All by name
 *   node-ring                {"v":1,"node":"a","epoch":41,"items":[{"node":"a","shard":0,
 *                             "slots":682,"weight":100}…]}
 *   node-ring slot N|jid J   {"v":1,"node":"a","epoch":41,"slot":4711,"home":"a/3",
 *                             "successor":"b/1","since":40}; successor left out: there is none
 *   node-remove NAME         member_forget: {"v":1,"node":"a","name":"b"}. Exit 4: no such node;
 *                            5: it is heard (drain and stop it)
 *   node-drain NAME ARGS…, node-weight NAME W
 *                            of another node: to any shard of it, which asks its own supervisor
 *                            (child_ask) the same words and passes the answer back. One answer,
 *                            soon: node-drain answers how far it is, and is asked again. Exit 4: no
 *                            such node; 7: no answer within five seconds
 * Commands about accounts (user-…) come to any shard, which passes them to the home. */

/* As member_sinks.ended has it; said without waiting. The process then ends at once with
 * CHILD_EXIT_FENCED. The supervisor logs node_fenced, once for all shards. */
void child_ended(struct child *c, enum member_end why, uint64_t epoch);
/* As member_sinks.stalled has it, and again when a clerk that is has company, or has none any more
 * (else true). The supervisor logs node_stalled and node_goes_on, once for all shards. */
void child_stalled(struct child *c, bool stalled, bool company, uint64_t epoch);
/* member_known_epoch, when it has grown: the supervisor keeps the highest over restarts. */
void child_epoch(struct child *c, uint64_t epoch);
/* member_sinks.stuck: the supervisor ends this sibling, and starts it anew. */
void child_stuck(struct child *c, uint32_t shard, uint64_t incarnation);
/* A command for the supervisor, as from the command line: node-drain and node-weight of this node,
 * and status. Answered by on_answer with this id; as many at once as CHILD_ASKS_MAX, further ones
 * are refused. id: not 0, of one's own choice. */
enum { CHILD_ASKS_MAX = 16 };
void child_ask(struct child *c, uint64_t id, size_t argc, const str *argv);

#endif
