/* A hostile producer and consumer: whatever lies in the shared memory, a link hands out frames
 * within its bound or is poisoned; it never reads outside, loops or fails otherwise. Input: 8 bytes
 * each that the peer writes as tail and head, 1 byte of hungry, then the data; a second poll with
 * the bytes turned round stands for a peer that writes on meanwhile. */
#include <stdlib.h>
#include <string.h>

#include "node/os/fifo_link.h"

enum { SIZE = 16384, FRAME_MAX = 20000 };

static void on_frame(void *ctx, const char *p, size_t n)
{
    unsigned *sum = ctx;
    must(n > 0 && n <= FRAME_MAX);
    for (size_t i = 0; i < n; i++)
        *sum += (unsigned char)p[i];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct shared {
        struct fifo_lane lanes[2];
        char data[2][SIZE];
    } * s;
    static char scratch[FIFO_FRAGMENT_MAX];
    uint64_t word[2];
    unsigned sum = 0;
    bool ring;
    if (size < 17)
        return 0;
    s = aligned_alloc(FIFO_CACHE_LINE, (sizeof *s + FIFO_CACHE_LINE - 1) & ~(size_t)63);
    must(s);
    memset(s, 0, sizeof *s);
    memcpy(word, data, 16);
    struct fifo_link l;
    fifo_link_init(&l, FRAME_MAX, 64 * 1024);
    fifo_out_init(&l.out, &s->lanes[0], s->data[0], SIZE);
    fifo_in_init(&l.in, &s->lanes[1], s->data[1], SIZE);
    s->lanes[1].tail = word[0];
    s->lanes[1].hungry = data[16];
    size_t n = size - 17 < SIZE ? size - 17 : SIZE;
    memcpy(s->data[1], data + 17, n);
    fifo_link_poll(&l, scratch, on_frame, &sum, &ring);
    s->lanes[0].head = word[1];
    char frame[300] = {0};
    struct iovec iov = {frame, sizeof frame};
    for (int i = 0; i < 100; i++)
        fifo_link_send(&l, &iov, 1);
    fifo_link_flush(&l);
    s->lanes[1].tail += word[0];
    for (size_t i = 0; i < n; i++)
        s->data[1][SIZE - 1 - i] = (char)data[17 + i];
    fifo_link_poll(&l, scratch, on_frame, &sum, &ring);
    fifo_link_flush(&l);
    fifo_link_close(&l);
    free(s);
    return 0;
}
