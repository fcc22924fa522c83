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

#include "pemberley/err.h"
#include "pemberley/str.h"

enum { CHILD_FD = 3, CHILD_SECRET = 32, CHILD_SHARDS_MAX = 64 };

enum child_kind { CHILD_SHARD, CHILD_STORE };
enum child_listener { CHILD_C2S, CHILD_C2S_TLS };

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

/* Callbacks that a process has no use for are NULL (their descriptors are closed). */
struct child_calls {
    void (*on_start)(void *ctx, const struct child_start *s);
    /* owner: the shard whose queue this is; another one's only while that one stays down. */
    void (*on_listener)(void *ctx, enum child_listener kind, uint32_t owner, str address, int fd);
    void (*on_listener_gone)(void *ctx, uint32_t owner); /* stop accepting there, close it */
    void (*on_peer_up)(void *ctx, const struct child_peer *p);
    void (*on_peer_down)(void *ctx, enum child_kind kind, uint32_t index, uint64_t incarnation);
    /* The new generation; take it between two turns, then child_reloaded. certs_fd may be -1. */
    void (*on_reload)(void *ctx, uint64_t generation, int conf_fd, int certs_fd);
    void (*on_drain)(void *ctx, const struct child_drain *d);
    /* Answer with child_reply, at once or later, exactly once per id. argv is valid until return.
     */
    void (*on_command)(void *ctx, uint64_t id, size_t argc, const str *argv);
    /* Finish within the deadline, then child_stopped and exit(0). */
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
void child_ready(struct child *c, const char *loop); /* "io_uring", "epoll"; store: "sqlite" */
/* Sent before it returns. */
void child_stopped(struct child *c, uint64_t sessions, uint64_t flushed);
void child_reloaded(struct child *c, uint64_t generation);
/* exit: operator.md section 3. text: of exit 0 JSON, else a sentence; any length, sent in chunks.
 */
void child_reply(struct child *c, uint64_t id, unsigned exit, str text);
/* The peer's fifo holds what it never may: the supervisor starts that process anew. */
void child_poisoned(struct child *c, enum child_kind kind, uint32_t index, uint64_t incarnation);

#endif
