/* control: messages with file descriptors over a SOCK_SEQPACKET pair, between the supervisor and a
 * child. What the messages say is proto/bus/control.proto's; this knows bytes and fds only. Two
 * layers: one non-blocking message on an fd (for a plain poll loop), and the same on a struct loop.
 */
#ifndef NODE_OS_CONTROL_H
#define NODE_OS_CONTROL_H

#include "pemberley/loop.h"

enum {
    CONTROL_MESSAGE_MAX = 64 * 1024,
    CONTROL_FDS_MAX = 16,
    CONTROL_QUEUE_MAX = 256, /* messages waiting for the socket */
};

/* Both ends, CLOEXEC and non-blocking, with room for a few of the largest messages. */
nodiscard err control_pair(int fds[2]);

/* One message of 1..CONTROL_MESSAGE_MAX bytes; the fds stay the caller's. ERR_FULL: the socket has
 * no room now; ERR_CLOSED: nobody is there; ERR_IO. Never blocks. */
nodiscard err control_write(int fd, const void *p, size_t n, const int *fds, size_t n_fds);
/* One message into buf; the fds (CLOEXEC) are the caller's. ERR_PARTIAL: none is waiting;
 * ERR_CLOSED; ERR_BAD: it did not fit, or had too many fds (they are closed); ERR_IO. */
nodiscard err control_read(int fd, char buf[CONTROL_MESSAGE_MAX], size_t *n,
                           int fds[CONTROL_FDS_MAX], size_t *n_fds);

struct control;
struct control_sink {
    /* The bytes are valid until it returns; the fds are the callee's to close. */
    void (*message)(void *ctx, const char *p, size_t n, const int *fds, size_t n_fds);
    /* The other end is gone (or the socket broke): nothing comes any more; call control_close. */
    void (*closed)(void *ctx);
};
/* Takes over the fd. */
struct control *control_open(struct loop *l, int fd, const struct control_sink *sink, void *ctx);
/* Sends, or queues what the socket cannot take now; the fds are duplicated if it waits, and stay
 * the caller's. ERR_FULL: CONTROL_QUEUE_MAX are waiting. ERR_CLOSED. */
nodiscard err control_send(struct control *c, const void *p, size_t n, const int *fds,
                           size_t n_fds);
/* Ends it: no callback after this; what is queued is dropped; the fd is closed and the memory freed
 * when its polls have come back (in the next turns). May be called from a callback. */
void control_close(struct control *c);
bool control_idle(const struct control *c); /* nothing is queued */

#endif
