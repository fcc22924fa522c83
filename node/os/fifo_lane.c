/* fifo_lane: the two ends of a byte ring (fifo_lane.h).
 *
 * Ordering: the data is published by the release store of tail and taken by the acquire load; room
 * likewise by head. Where one end writes one word and then reads another that the other end writes
 * and reads in the opposite order (hungry and head; pending and sleeping), all four are
 * sequentially consistent, as read-modify-writes: fences would say the same, but gcc's TSan does
 * not know them.
 *
 * Fragments are copied out before anything looks at them: a broken producer that writes on must not
 * change bytes under a parser. The copy of 300 bytes costs less than a cache miss. */
#include <string.h>

#include "node/os/fifo_lane.h"

void fifo_out_init(struct fifo_out *o, struct fifo_lane *lane, char *data, size_t size)
{
    *o = (struct fifo_out){.lane = lane, .data = data, .size = size};
}

bool fifo_out_room(struct fifo_out *o, size_t n, bool *bad)
{
    if (o->size - (o->tail - o->head) >= n)
        return true;
    uint64_t head = atomic_load(&o->lane->head);
    if (head < o->head || head > o->published) {
        *bad = true;
        return false;
    }
    o->head = head;
    return o->size - (o->tail - o->head) >= n;
}

void fifo_out_write(struct fifo_out *o, const void *p, size_t n)
{
    size_t at = o->tail & (o->size - 1), first = o->size - at;
    must(n <= o->size - (o->tail - o->head));
    o->tail += n;
    if (n <= first) {
        memcpy(o->data + at, p, n);
        return;
    }
    memcpy(o->data + at, p, first);
    memcpy(o->data, (const char *)p + first, n - first);
}

void fifo_out_pad(struct fifo_out *o) { o->tail = (o->tail + 7) & ~UINT64_C(7); }

bool fifo_out_publish(struct fifo_out *o)
{
    if (o->tail == o->published)
        return false;
    atomic_store_explicit(&o->lane->tail, o->tail, memory_order_release);
    o->published = o->tail;
    return true;
}

bool fifo_out_unread(const struct fifo_out *o)
{
    return atomic_load_explicit(&o->lane->head, memory_order_relaxed) != o->published;
}

void fifo_out_starve(struct fifo_out *o) { atomic_exchange(&o->lane->hungry, 1); }

void fifo_in_init(struct fifo_in *in, struct fifo_lane *lane, const char *data, size_t size)
{
    *in = (struct fifo_in){.lane = lane, .data = data, .size = size};
}

err fifo_in_begin(struct fifo_in *in)
{
    uint64_t tail = atomic_load_explicit(&in->lane->tail, memory_order_acquire);
    if (tail < in->head || tail - in->head > in->size || tail % 8)
        return ERR_BAD;
    in->tail = tail;
    return ERR_OK;
}

static void read_at(const struct fifo_in *in, uint64_t from, void *p, size_t n)
{
    size_t at = from & (in->size - 1), first = in->size - at;
    __asm__("" : "+r"(n)); /* gcc knows a bound and would make "rep movs" of it */
    if (n <= first) {
        memcpy(p, in->data + at, n);
        return;
    }
    memcpy(p, in->data + at, first);
    memcpy((char *)p + first, in->data, n - first);
}

err fifo_in_next(struct fifo_in *in, char out[FIFO_FRAGMENT_MAX], size_t *n, bool *more)
{
    uint32_t header[2];
    uint64_t left = in->tail - in->head;
    if (left == 0)
        return ERR_PARTIAL;
    memcpy(header, in->data + (in->head & (in->size - 1)), sizeof header); /* all is padded to 8 */
    if (header[0] == 0 || header[0] > FIFO_FRAGMENT_MAX || fifo_padded(header[0]) > left ||
        (header[1] & ~(uint32_t)FIFO_MORE))
        return ERR_BAD;
    read_at(in, in->head + FIFO_HEADER, out, header[0]);
    in->head += fifo_padded(header[0]);
    *n = header[0];
    *more = header[1] & FIFO_MORE;
    return ERR_OK;
}

bool fifo_in_end(struct fifo_in *in)
{
    atomic_exchange(&in->lane->head, in->head);
    return atomic_load(&in->lane->hungry) && atomic_exchange(&in->lane->hungry, 0);
}
