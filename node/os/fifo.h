/* fifo: frames between processes of one node through shared memory (systems.md 6).
 *
 * A *segment* is a memfd with two single-producer byte rings, one per direction, for one pair of
 * processes. The supervisor makes a fresh one whenever either end starts and sends it to both, so
 * the segment stands for both incarnations: no stale state, no half frame, no reset protocol.
 * A *bell* is a page per consumer: its sleeping flag and a mask of the producers that published.
 * The supervisor makes bell and eventfd afresh for each incarnation of a process and sends both to
 * the process itself and to each of its peers. A *link* is one end of a segment. A *hub* is all
 * links of a process, and a loop_source.
 *
 *   supervisor:  fifo_segment_create, fifo_bell_create, eventfd(EFD_NONBLOCK | EFD_CLOEXEC)
 *   process:     fifo_hub_open(own bell) ... fifo_hub_attach(peer's id, segment, bell, eventfd)
 *
 * Peers are numbered 0..63 for shards and 64..127 for store workers (fifo_shard, fifo_store).
 * Trust: what the other end writes is checked, copied out before it is looked at, and can only
 * poison the link; on_poisoned then tells the owner once, who tells the supervisor.
 * What a peer has published outlives it: who hears of its end polls once more, then detaches it. */
#ifndef NODE_OS_FIFO_H
#define NODE_OS_FIFO_H

#include <sys/uio.h>

#include "pemberley/loop.h"

enum { FIFO_PEERS = 128, FIFO_FRAGMENT_MAX = 8192 };
static inline unsigned fifo_shard(unsigned index) { return index; }
static inline unsigned fifo_store(unsigned index) { return 64 + index; }

/* ---- the supervisor's side ------------------------------------------------------------------- */

struct fifo_end {
    uint32_t peer;        /* fifo_shard(i) or fifo_store(i) */
    uint64_t incarnation; /* of that process: each start has another */
};
/* Bytes per direction for a node of so many processes: clamp(8 MiB / (n - 1), 64 KiB, 1 MiB),
 * rounded down to a power of two. */
size_t fifo_size_for(unsigned processes);
/* A sealed memfd for this pair (CLOEXEC); size as above. Close it once both ends were sent it. */
nodiscard err fifo_segment_create(size_t size, const struct fifo_end ends[2], int *fd);
nodiscard err fifo_bell_create(int *fd);

/* ---- a process's side ------------------------------------------------------------------------ */

struct fifo_hub;
/* A whole frame, contiguous, private memory, valid until it returns. It may send to any peer, and
 * detach any. */
typedef void fifo_frame_f(void *ctx, unsigned peer, const char *p, size_t n);
/* The other end broke the rules, or did not read until outbox_max was reached: nothing more is read
 * from or written to it until it is attached anew. */
typedef void fifo_poisoned_f(void *ctx, unsigned peer, const char *why);

struct fifo_hub_config {
    struct fifo_end self;
    int bell_fd;       /* our own; taken over */
    struct loop *loop; /* NULL: the owner polls and flushes (a worker without a loop) */
    size_t frame_max;  /* longer ones from a peer poison */
    size_t outbox_max; /* bytes per peer that may wait for room */
    fifo_frame_f *on_frame;
    fifo_poisoned_f *on_poisoned;
    void *ctx;
};
nodiscard err fifo_hub_open(const struct fifo_hub_config *c, struct fifo_hub **out);
void fifo_hub_close(struct fifo_hub *h);

/* Takes over the three fds, also on failure. A peer already attached is replaced (what was unread
 * or unsent is dropped: the protocol above repairs that). ERR_BAD: not a segment of ours and of
 * this peer's incarnation. */
nodiscard err fifo_hub_attach(struct fifo_hub *h, struct fifo_end peer, int segment_fd, int bell_fd,
                              int wake_fd);
/* Of one that is not attached: no effect. */
void fifo_hub_detach(struct fifo_hub *h, unsigned peer);
bool fifo_hub_attached(const struct fifo_hub *h, unsigned peer);

/* Sends one frame (1 byte to frame_max), copied before it returns; published at the turn's end.
 * Never refuses: what does not fit waits in the outbox; to a peer that is not attached or is
 * poisoned it is dropped (and counted). */
void fifo_hub_send(struct fifo_hub *h, unsigned peer, const struct iovec *iov, size_t n);
/* The same, but it is no reason to wake the peer: one that sleeps finds it when it is woken for
 * something else, or FIFO_LATER_MS later. For who has a loop. */
enum { FIFO_LATER_MS = 50 };
void fifo_hub_send_later(struct fifo_hub *h, unsigned peer, const struct iovec *iov, size_t n);

/* Without a loop: poll handles what is there and says whether there was anything; flush publishes
 * and wakes; to wait: sleep(true), poll once more, wait on the eventfd if there was nothing,
 * sleep(false). With a loop all this happens by itself. */
bool fifo_hub_poll(struct fifo_hub *h);
void fifo_hub_flush(struct fifo_hub *h);
void fifo_hub_sleep(struct fifo_hub *h, bool sleeping);

struct fifo_stats {
    uint64_t frames_in, frames_out, dropped, wakeups, full;
};
const struct fifo_stats *fifo_hub_stats(const struct fifo_hub *h);
/* Bytes sent that the peers have not taken: in the fifos and waiting for room in them. */
uint64_t fifo_hub_queued(const struct fifo_hub *h);

#endif
