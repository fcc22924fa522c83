/* The supervisor's own structs, shared by its files and nobody else.
 *
 * One thread, one poll() over: a signalfd, the control sockets of the children, the admin socket
 * and its clients. It never reads a byte from an XMPP client. super.c is the life, process.c one
 * child, admin.c the admin socket, command.c what can be asked there, status.c what is counted. */
#ifndef PEMBERLEY_NODE_SUPER_INSIDE_H
#define PEMBERLEY_NODE_SUPER_INSIDE_H

#include <poll.h>
#include <sys/types.h>

#include "cluster/ring.h"
#include "node/conf/load.h"
#include "node/os/control.h"
#include "node/os/fifo.h"
#include "node/os/os.h"
#include "node/super/backoff.h"
#include "node/super/child.h"
#include "node/super/cluster.h"
#include "node/super/drain.h"
#include "node/super/http.h"
#include "node/super/listen.h"
#include "pemberley/list.h"
#include "proto/bus/control.pb-c.h"

enum {
    PROCESSES_MAX = CHILD_SHARDS_MAX + 1,
    LISTENERS_MAX = 32,
    CLIENTS_MAX = 32,
    HEARTBEAT_LATE_MS = 10000, /* a loop without a turn for so long is aborted */
    HANDOVER_MS = 2000,        /* a queue whose shard is down for so long goes to a neighbour */
    CERTIFICATE_LOOK_MS = 2000,
    CERTIFICATES_SHOWN_MAX = 100, /* in the metrics: hosts whose certificates end first */
    HISTORY = 60,                 /* of the status page's sparklines: ten minutes */
};

/* ---- a child --------------------------------------------------------------------------------- */

enum death { DEATH_EXIT, DEATH_KILL, DEATH_ABORT, DEATH_SIGNAL, DEATHS }; /* how a process ended */
enum process_state { PROCESS_DOWN, PROCESS_STARTING, PROCESS_UP };
struct process {
    struct super *super;
    enum child_kind kind;
    uint32_t index;
    enum process_state state;
    pid_t pid;
    uint64_t incarnation;
    int fd;              /* control; -1 while down */
    struct list waiting; /* messages that its socket had no room for */
    size_t waiting_count;
    int metrics_fd, wake_fd, bell_fd;
    struct metric_page *page; /* the same for all incarnations: counters go on */
    struct backoff backoff;
    int64_t restart_at_ms; /* while down */
    int64_t down_since_ms;
    uint64_t generation; /* of the config that it goes by */
    uint64_t heartbeat;  /* as last seen, */
    int64_t heartbeat_at_ms;
    unsigned restarts, restarts_by[DEATHS]; /* in all; by enum death */
    unsigned open_fds;                      /* as last counted */
    bool ended;                             /* has closed its socket */
    bool stopped;                           /* said Stopped, or died while we stop */
    bool fenced;                            /* its membership has ended, */
    bool name_taken;                        /* because of that */
    bool stalled;                           /* may not act */
    bool lent;                              /* its listeners are with a neighbour too */
    uint32_t lent_to;                       /* … with this shard */
    char loop[16];
    /* status.c: counters a second ago, and what they did in it */
    uint64_t was[METRIC_MAX];
    uint64_t rate[METRIC_MAX];
    /* of deliveries; of the store's transactions */
    uint64_t latency_old[METRIC_HISTOGRAM_BUCKETS], latency_new[METRIC_HISTOGRAM_BUCKETS];
};

void process_init(struct process *p, struct super *s, enum child_kind kind, uint32_t index);
nodiscard err process_open(struct process *p); /* its metrics page */
void process_start(struct process *p, int64_t now_ms);
void process_turn(struct process *p, short events); /* its socket */
void process_flush(struct process *p);
/* It has ended with this wait status. */
void process_died(struct process *p, int status, int64_t now_ms);
/* Sends m with these descriptors (borrowed), or keeps both until there is room. */
void process_send(struct process *p, Control__ToChild *m, const int *fds, size_t n);
void process_listeners(struct process *p, uint32_t owner); /* sends the owner's listeners to p */
const char *process_name(const struct process *p);         /* "shard", "store" */
/* Open descriptors of all processes into open_fds and own_fds. On kernels before 6.2 that reads a
 * line per descriptor: every ten seconds, never by a shard itself. */
void process_count_fds(struct super *s);
/* Bytes of fifos and metrics pages between the processes. */
uint64_t process_shared_bytes(const struct super *s);

/* ---- an admin client ------------------------------------------------------------------------- */

/* The command line, or a shard that asks for another node (child_ask). */
struct client {
    int fd;                /* -1: not by the socket */
    struct process *asker; /* a shard's; NULL. Neither: free */
    uint64_t id;           /* of its command in progress; 0: none. A shard's: its own */
    uint64_t forwarded;    /* the id under which a child has it; 0: none */
    struct process *to;
    bool waits_for_stop, waits_for_drain;
    uint64_t waits_for; /* a generation that all processes are to have; 0: none */
    str reloaded;       /* the answer then; own memory */
    char command[64];   /* for the log */
    struct list waiting;
};

static inline bool client_is_there(const struct client *c) { return c->fd >= 0 || c->asker; }

void admin_accept(struct super *s);
/* A shard asks, as if it were the command line. */
void admin_ask(struct process *p, const Control__Command *m);
void admin_turn(struct client *c, struct super *s, short events);
void admin_close(struct client *c);
/* Answers the command in progress. */
void admin_reply(struct super *s, struct client *c, unsigned exit, str text);
/* Something before that, unless the client has not taken the last. */
void admin_progress(struct client *c, str text);
/* A chunk from a child. */
void admin_forward(struct super *s, const Control__Reply *r);
void admin_lost(struct super *s, const struct process *p); /* its answers will not come */
nodiscard err admin_open(struct super *s, str *problem);   /* run_dir/control.sock */

/* To a child, whose answer comes by admin_forward. */
void command_forward(struct super *s, struct client *c, struct process *to, size_t argc,
                     const str *argv);
bool command_is_for_others(str name); /* may a shard ask it for another node? */
void command_run(struct super *s, struct client *c, size_t argc, const str *argv);
/* A process has taken a config over, or died: perhaps nobody is to be waited for any more. */
void command_reloaded(struct super *s);
str command_reload(struct super *s, const char *by, unsigned *exit, struct arena *a); /* JSON */

/* ---- the node -------------------------------------------------------------------------------- */

/* What the tiles of the status page show. */
struct history {
    double sessions, detached, in_rate, p99_ms, login_rate, dropped;
};

struct super {
    const char *config_file;
    const char *const *sets; /* --set */
    size_t set_count;
    struct conf_draft *draft; /* in force */
    struct conf *conf;
    int conf_fd, certs_fd;
    uint64_t generation;
    char node[33];
    unsigned char secret[CHILD_SECRET];
    struct ring *ring;
    struct log *log;
    struct clock clock;
    char directory[4096]; /* of our executable, where the others are */

    int lock_fd, signal_fd, admin_fd;
    char admin_path[108];
    uint64_t next_incarnation, next_command;
    unsigned shards;
    struct process process[PROCESSES_MAX]; /* shards, then the store */
    unsigned process_count;
    struct listener listener[LISTENERS_MAX];
    unsigned listener_count;
    struct http *http;
    struct client client[CLIENTS_MAX];

    int64_t now_ms, started_ms, turn_ms; /* monotonic; turn_ms: of the last turn */
    int64_t tick_at_ms, certificates_at_ms, rotate_at_ms;
    int64_t ready_ms; /* from the start */
    bool ready;
    struct drain drain;
    struct cluster_state cluster;
    bool stopping;
    int64_t stop_moving_until_ms; /* first the slots go elsewhere; 0: they have */
    bool clerk_told;              /* to stop, behind its siblings */
    int64_t stop_started_ms, stop_deadline_ms;
    bool store_told;
    const char *stop_reason;
    int exit_code;                       /* of the node when it has stopped */
    int64_t watchdog_ms, watchdog_at_ms; /* notify.h; 0: nobody waits */
    uint64_t told_sessions, flushed;
    unsigned restart_pending;   /* options that wait for a restart */
    uint64_t certificates_seen; /* a hash of the files' times */
    struct certificate {
        char host[256];
        int64_t end_s; /* Unix time */
    } * certificates;  /* the first to end first */
    uint32_t certificate_count;
    bool reload_refused;     /* the last one */
    int64_t reload_s;        /* Unix time */
    struct metric_page *own; /* CPU time and memory of the supervisor itself */
    uint64_t own_cpu_us;
    struct hosts *hosts; /* places among the labels of metrics */
    unsigned own_fds;
    struct history history[HISTORY];  /* status.c: a circular array, one row per rotation */
    unsigned history_n;               /* rows ever written */
    char buffer[CONTROL_MESSAGE_MAX]; /* the message being read */
};

static inline struct process *super_store(struct super *s) { return &s->process[s->shards]; }
void super_ready(struct super *s, struct process *p); /* p said Ready */
void super_stop(struct super *s, int64_t within_ms, const char *reason);
/* The shards that accept for this one are to stop that; and all are to begin again. */
void super_unlisten(struct super *s, const struct process *owner);
void super_listen_again(struct super *s);
/* Nobody gets in any more; the addresses stay bound. What waits in the queues is reset. */
void super_go_deaf(struct super *s);
void super_log_again(struct super *s); /* as the config says now */
int64_t super_clock_ms(void);
int64_t super_clock_us(void);

/* files.c: what a node has on disk. Each says its problem in one sentence. */
/* mkdir -p, private; path ends with NUL. False: errno says why. */
bool files_directory(str path, struct arena *a);
nodiscard err files_directories(const struct conf *c, str *problem, struct arena *a);
nodiscard err files_lock(struct super *s, str *problem, struct arena *a);
nodiscard err files_secret(const struct conf *c, unsigned char out[CHILD_SECRET], str *problem,
                           struct arena *a);

/* certificates.c: every host's pair into a fresh generation; self-signed where none is named and
 * none is there. */
nodiscard err certificates_build(struct super *s, const struct conf *c, int *fd);
/* The node's identity in its cluster: files there and fit, of this cluster and node, in date.
 * Problems go to the draft. *fd: what shards get. Without a cluster *fd is -1. */
nodiscard err certificates_bus(struct conf_draft *d, const struct conf *c, int *fd, int64_t *end_s);
/* A hash of all files' identities and times: when it changes, reload. */
uint64_t certificates_look(const struct super *s, struct arena *a);

/* status.c */
/* The last of the stanzas among what is counted with them. */
#define STANZAS_IN_LAST ((enum metric)(METRIC_AT(stanzas_in, METRIC_NONZA, 0) - 1))
#define STANZAS_OUT_LAST ((enum metric)(METRIC_AT(stanzas_out, METRIC_NONZA, 0) - 1))
void status_tick(struct super *s);   /* once a second */
void status_rotate(struct super *s); /* every ten seconds: the window of the percentiles */
str status_json(struct super *s, struct arena *a);
struct history status_now(const struct super *s);
const char *status_state(const struct super *s); /* "ready" … */
/* One process: deliveries, or the store's transactions, of the last ten to twenty seconds. */
double status_p99_s(const struct process *p);
uint64_t status_rate(const struct process *p, enum metric first, enum metric last); /* per second */
uint64_t status_disk_free(const struct super *s);
/* The p-th share (0.99) of a histogram in microseconds; 0 when it is empty. */
uint64_t status_percentile(const uint64_t old[METRIC_HISTOGRAM_BUCKETS],
                           const uint64_t now[METRIC_HISTOGRAM_BUCKETS], double p);

#endif
