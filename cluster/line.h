/* line: envelopes over one transport, for cluster/rail.c. It cuts what comes into envelopes, and
 * gathers what goes out into one write per turn. It knows nothing of names, shards or heartbeats.
 *
 * Life: line_new takes the transport over; ended() is the last call ever, and the line is gone when
 * it returns. Everything may be called from inside the callbacks. */
#ifndef PEMBERLEY_LINE_H
#define PEMBERLEY_LINE_H

#include "pemberley/loop.h"
#include "pemberley/transport.h"
#include "proto/bus/envelope.h"

struct line;

struct line_sink {
    /* The transport's handshake is done. Never called for one that is open from the start. */
    void (*opened)(struct line *l);
    /* Views valid until it returns. */
    void (*envelope)(struct line *l, const struct envelope *e);
    /* Queued bytes were taken by the transport's socket. */
    void (*drained)(struct line *l);
    /* reason: that of line_drop, ERR_BAD (the peer sent what is no envelope), ERR_CLOSED, or the
     * transport's. */
    void (*ended)(struct line *l, err reason);
};

struct line *line_new(struct loop *loop, struct transport *t, size_t frame_max,
                      const struct line_sink *sink, void *owner);
void *line_owner(const struct line *l);
bool line_is_open(const struct line *l); /* what is sent before goes when it is */
const struct transport *line_transport(const struct line *l);

/* Queues one envelope; its body, iov, is copied. Dropped when the line is ending. */
void line_send(struct line *l, enum envelope_kind kind, const struct envelope_address *address,
               const struct iovec *iov, size_t n);
/* Reads no more, sends what is queued, and closes. The owner bounds how long that may take. */
void line_finish(struct line *l);
void line_drop(struct line *l, err reason);

size_t line_queued(const struct line *l);     /* bytes that the transport has not taken */
uint64_t line_heard_ms(const struct line *l); /* loop time of the last bytes */
uint64_t line_bytes_in(const struct line *l);
uint64_t line_bytes_out(const struct line *l);

#endif
