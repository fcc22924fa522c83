/* os: the production side of the doors: sockets, time, shared memory, the clock, entropy, the log
 * and the metrics page. Everything above speaks to include/pemberley's headers; only the wiring
 * (the shard's, the store worker's and the supervisor's mains, and tests) includes this one.
 *
 * Nouns: a *loop* runs ops (loop.h) on io_uring or on epoll; a *transport* is a plain socket on a
 * loop; a *link* is one end of a shared-memory segment (fifo.h); a *control* is a SOCK_SEQPACKET
 * between supervisor and child (control.h).
 *
 * Which loop: LOOP_AUTO takes io_uring and falls back to epoll when it is forbidden or lacks
 * something; the caller logs the fault as uring_missing, so that it is never silent. */
#ifndef NODE_OS_OS_H
#define NODE_OS_OS_H

#include "pemberley/clock.h"
#include "pemberley/entropy.h"
#include "pemberley/hash.h"
#include "pemberley/log.h"
#include "pemberley/loop.h"
#include "pemberley/metric.h"
#include "pemberley/transport.h"

/* ---- loop ------------------------------------------------------------------------------------ */

enum loop_choice { LOOP_AUTO, LOOP_URING, LOOP_EPOLL };
struct loop_config {
    enum loop_choice choice;
    int wake_fd; /* an EFD_NONBLOCK eventfd, which the loop takes over; -1: it makes its own */
};
struct loop_fault {
    const char *feature; /* NULL: nothing was missing; else what the kernel refused */
    int error;           /* its errno */
};

/* A loop of the calling thread, which from then on is the only one to use it. ERR_IO: fault says
 * what failed. With LOOP_AUTO fault->feature may be set although the result is a (epoll) loop. */
nodiscard err loop_new(const struct loop_config *c, struct loop_fault *fault, struct loop **out);
/* The two implementations. ENOMEM of a ring is tried again for 2 s: the memory of a dead process's
 * ring is uncounted late, and rings count against RLIMIT_MEMLOCK. */
nodiscard err uring_loop_new(const struct loop_config *c, struct loop_fault *fault,
                             struct loop **out);
nodiscard err epoll_loop_new(const struct loop_config *c, struct loop_fault *fault,
                             struct loop **out);

/* ---- transport ------------------------------------------------------------------------------- */

/* The plain transport (transport.h) of a connected stream socket, whose fd it takes over; it reads
 * at once, so set sink and owner before the turn ends (or here). After close(graceful) what still
 * comes is read and dropped, and neither bytes() nor ended() is called any more; closed(ERR_OK)
 * comes with the peer's FIN. When the socket fails it closes by itself: closed(ERR_CLOSED) for a
 * reset, ERR_TIMEOUT, else ERR_IO. closed() is never called from inside a transport_ function. What
 * is written after a failure or a close is dropped. peer may be NULL. */
struct transport *sock_transport_open(struct loop *l, int fd, const struct sockaddr_storage *peer,
                                      const struct transport_sink *sink, void *owner);

/* The peer is somebody else than the socket says: what transport_info tells from now on. For a
 * transport of sock_transport_open. */
void sock_transport_readdress(struct transport *t, const struct sockaddr_storage *peer);

/* ---- clock and entropy ----------------------------------------------------------------------- */

void clock_real_init(struct clock *c);

/* getrandom(2) through a small buffer; bytes handed out are wiped from it. */
struct entropy_real {
    struct entropy entropy;
    unsigned char pool[256];
    size_t left;
};
void entropy_real_init(struct entropy_real *e);

/* ---- log ------------------------------------------------------------------------------------- */

enum log_format { LOG_FORMAT_LOGFMT, LOG_FORMAT_JSON };
enum log_privacy { LOG_FULL, LOG_HASH, LOG_PREFIX, LOG_OFF }; /* HASH: JIDs; PREFIX: addresses */
struct log_config {
    int fd; /* 2; one write(2) per line; lines that would block are lost */
    enum log_format format;
    enum log_level level;
    enum log_privacy jids;      /* LOG_FULL, LOG_HASH, LOG_OFF */
    enum log_privacy addresses; /* LOG_FULL, LOG_PREFIX (/24, /48), LOG_OFF */
    uint32_t event_rate;        /* lines per event and second; 0: no bound */
    const char *node, *process; /* "node" and "shard" of each line: "n1", "3", "store", "super" */
    struct clock *clock;
    const struct hash_key *key; /* for LOG_HASH */
    /* Lines are counted there, warnings and errors kept (recent.h); NULL: not. */
    struct metric_page *metrics;
};
struct log *log_open(const struct log_config *c);
/* Changes what a reload may change: format, level, jids, addresses, event_rate. */
void log_reconfigure(struct log *l, const struct log_config *c);
/* Writes the log_suppressed lines that are due; also done by each write of the same event. */
void log_flush(struct log *l);
void log_close(struct log *l); /* not the fd */

/* ---- metrics --------------------------------------------------------------------------------- */

/* A page made by the supervisor (sealed against resizing), mapped by it and by one writer. */
nodiscard err metric_page_create(int *fd);
nodiscard err metric_page_map(int fd, struct metric_page **out); /* the fd may be closed after */
void metric_page_unmap(struct metric_page *m);
/* CPU time and memory of this process into its page. *cpu_counted_us: what was added so far, 0
 * first. */
void metric_sample_process(struct metric_page *m, uint64_t *cpu_counted_us);

#endif
