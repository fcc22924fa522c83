/* fifo_segment: the memfds of fifo.h: how a segment and a bell lie in memory. Private to node/os.
 *
 *   page 0: struct fifo_head, lane 0 (written by end 0), lane 1 | data of lane 0 | data of lane 1
 */
#ifndef NODE_OS_FIFO_SEGMENT_H
#define NODE_OS_FIFO_SEGMENT_H

#include "node/os/fifo_lane.h"

struct fifo_segment {
    char *base;
    size_t bytes, size;
    unsigned end; /* which one we are: 0 or 1 */
    struct fifo_lane *lanes;
};
/* Maps it and checks that it is of these two ends. The fd stays the caller's. */
nodiscard err fifo_segment_map(int fd, const struct fifo_end *self, const struct fifo_end *peer,
                               struct fifo_segment *out);
void fifo_segment_unmap(struct fifo_segment *s);
static inline char *fifo_segment_data(const struct fifo_segment *s, unsigned lane)
{
    return s->base + (s->bytes - 2 * s->size) + lane * s->size;
}
nodiscard err fifo_bell_map(int fd, struct fifo_bell **out);
void fifo_bell_unmap(struct fifo_bell *b);

#endif
