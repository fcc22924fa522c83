/* fifo_lane: one direction of a segment: a byte ring in shared memory with one producer and one
 * consumer, and the bell of a consumer. Pure memory, no descriptors, so that tests can run both
 * ends as threads of one process. Private to fifo_hub.c, its tests and fuzzer.
 *
 *   fragment:  u32 length (1..8192) | u32 flags (1: more of this frame follows) | bytes | pad to 8
 *
 * head and tail are 64-bit counts of bytes that never wrap. Each end keeps its own count privately
 * and only ever *reads* the other's, checked: what the other process writes is a peer's byte. */
#ifndef NODE_OS_FIFO_LANE_H
#define NODE_OS_FIFO_LANE_H

#include <stdalign.h>
#include <stdatomic.h>

#include "node/os/fifo.h"

enum { FIFO_CACHE_LINE = 64, FIFO_MORE = 1, FIFO_HEADER = 8, FIFO_LANE_MIN = 16 * 1024 };

struct fifo_lane {
    alignas(FIFO_CACHE_LINE) _Atomic uint64_t tail;   /* the producer's */
    alignas(FIFO_CACHE_LINE) _Atomic uint64_t head;   /* the consumer's */
    alignas(FIFO_CACHE_LINE) _Atomic uint32_t hungry; /* the producer waits for room */
};

struct fifo_bell {
    alignas(FIFO_CACHE_LINE) _Atomic uint32_t sleeping;
    alignas(FIFO_CACHE_LINE) _Atomic uint64_t pending[FIFO_PEERS / 64]; /* who published */
};

/* Says to the consumer that `self` published; true: it sleeps, and its eventfd must be written. */
static inline bool fifo_bell_ring(struct fifo_bell *b, unsigned self)
{
    atomic_fetch_or(&b->pending[self / 64], UINT64_C(1) << (self % 64));
    return atomic_fetch_add(&b->sleeping, 0) && atomic_exchange(&b->sleeping, 0);
}

/* The same without waking it. Whether it sleeps, or is about to without having seen it. */
static inline bool fifo_bell_note(struct fifo_bell *b, unsigned self)
{
    atomic_fetch_or(&b->pending[self / 64], UINT64_C(1) << (self % 64));
    return atomic_fetch_add(&b->sleeping, 0);
}

static inline size_t fifo_padded(size_t n) { return FIFO_HEADER + ((n + 7) & ~(size_t)7); }

struct fifo_out {
    struct fifo_lane *lane;
    char *data;
    size_t size; /* a power of two */
    uint64_t tail, published, head;
};
void fifo_out_init(struct fifo_out *o, struct fifo_lane *lane, char *data, size_t size);
/* Whether n more bytes (padded) fit; looks at the consumer's head if need be. bad: it lies. */
bool fifo_out_room(struct fifo_out *o, size_t n, bool *bad);
/* Appends without publishing; there must be room. */
void fifo_out_write(struct fifo_out *o, const void *p, size_t n);
void fifo_out_pad(struct fifo_out *o);          /* to a multiple of 8 */
bool fifo_out_publish(struct fifo_out *o);      /* whether there was anything */
bool fifo_out_unread(const struct fifo_out *o); /* is something published not taken? */
/* Asks the consumer for a wake-up when there is room. Look at the room again afterwards. */
void fifo_out_starve(struct fifo_out *o);

struct fifo_in {
    struct fifo_lane *lane;
    const char *data;
    size_t size;
    uint64_t head, tail; /* tail: as far as this poll goes */
};
void fifo_in_init(struct fifo_in *in, struct fifo_lane *lane, const char *data, size_t size);
/* Begins a poll: looks how far the producer is. ERR_BAD: it cannot be there. */
nodiscard err fifo_in_begin(struct fifo_in *in);
/* Copies the next fragment out. ERR_PARTIAL: none is left of this poll. ERR_BAD. */
nodiscard err fifo_in_next(struct fifo_in *in, char out[FIFO_FRAGMENT_MAX], size_t *n, bool *more);
/* Ends the poll: the room is the producer's again. True: it waits for that; ring its bell. */
bool fifo_in_end(struct fifo_in *in);

#endif
