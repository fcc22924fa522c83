/* fifo_link: one end of a segment: frames out (fragments, outbox) and frames in (put together).
 * Pure memory, like fifo_lane.h; the hub gives it its place in a process. Private to node/os. */
#ifndef NODE_OS_FIFO_LINK_H
#define NODE_OS_FIFO_LINK_H

#include "node/os/fifo_lane.h"

struct fifo_link {
    struct fifo_out out;
    struct fifo_in in;
    size_t frame_max, outbox_max;
    char *outbox; /* encoded fragments that wait for room */
    size_t outbox_at, outbox_n, outbox_cap;
    char *partial; /* a frame of several fragments, as far as it came */
    size_t partial_n, partial_cap;
    const char *poison; /* why; NULL: it is well */
};
typedef void fifo_link_frame_f(void *ctx, const char *p, size_t n);

/* size: of each lane; out and in: the lanes and their data. */
void fifo_link_init(struct fifo_link *l, size_t frame_max, size_t outbox_max);
void fifo_link_close(struct fifo_link *l); /* frees what it holds, not the memory of the lanes */
/* Never refuses; a full outbox poisons. Nothing is published yet. */
void fifo_link_send(struct fifo_link *l, const struct iovec *iov, size_t n);
/* Moves what fits out of the outbox and publishes. True: ring the peer's bell. */
bool fifo_link_flush(struct fifo_link *l);
/* Gives all frames that are there to f, which may set l->poison to end it; scratch holds a
 * fragment. Returns their number. *ring: the peer waits for room. */
size_t fifo_link_poll(struct fifo_link *l, char scratch[FIFO_FRAGMENT_MAX], fifo_link_frame_f *f,
                      void *ctx, bool *ring);

#endif
