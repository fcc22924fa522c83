/* fifo_segment: making and mapping segments and bells. Both are sealed against resizing: nobody who
 * has one can shrink it under another's feet (SIGBUS). */
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "node/os/fifo_segment.h"

enum {
    PAGE = 4096,
    SIZE_TOTAL = 8 << 20,
    SIZE_MIN = 64 << 10,
    SIZE_MAX_ = 1 << 20,
    SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL,
};
#define FIFO_MAGIC UINT64_C(0x316f6669662d6d70) /* "pm-fifo1" */

struct head {
    uint64_t magic, size;
    struct fifo_end ends[2];
    struct fifo_lane lanes[2];
};
_Static_assert(sizeof(struct head) <= PAGE, "the head is a page");
_Static_assert(sizeof(struct fifo_bell) <= PAGE, "a bell is a page");

size_t fifo_size_for(unsigned processes)
{
    size_t size = SIZE_MAX_, share = SIZE_TOTAL / (processes > 1 ? processes - 1 : 1);
    while (size > SIZE_MIN && size > share)
        size /= 2;
    return size;
}

static bool size_good(uint64_t size)
{
    return size >= FIFO_LANE_MIN && size <= SIZE_TOTAL && (size & (size - 1)) == 0;
}

static err memory_create(const char *name, size_t n, int *fd)
{
    *fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (*fd < 0)
        return ERR_IO;
    if (ftruncate(*fd, (off_t)n) < 0 || fcntl(*fd, F_ADD_SEALS, SEALS) < 0) {
        close(*fd);
        return ERR_IO;
    }
    return ERR_OK;
}

err fifo_segment_create(size_t size, const struct fifo_end ends[2], int *fd)
{
    must(size_good(size));
    struct head h = {.magic = FIFO_MAGIC, .size = size, .ends = {ends[0], ends[1]}};
    err e = memory_create("pemberley-fifo", PAGE + 2 * size, fd);
    if (e)
        return e;
    if (pwrite(*fd, &h, sizeof h, 0) != sizeof h) {
        close(*fd);
        return ERR_IO;
    }
    return ERR_OK;
}

err fifo_bell_create(int *fd) { return memory_create("pemberley-bell", PAGE, fd); }

static bool end_is(const struct fifo_end *a, const struct fifo_end *b)
{
    return a->peer == b->peer && a->incarnation == b->incarnation;
}

/* Of n bytes exactly (0: any number), and sealed. */
static err memory_map(int fd, size_t *n, void **out)
{
    struct stat st;
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || (seals & SEALS) != SEALS || fstat(fd, &st) < 0)
        return ERR_BAD;
    if (st.st_size < PAGE || (*n && (size_t)st.st_size != *n))
        return ERR_BAD;
    *n = (size_t)st.st_size;
    *out = mmap(NULL, *n, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (*out == MAP_FAILED)
        return ERR_IO;
    madvise(*out, *n, MADV_DONTDUMP); /* peers' plain text */
    return ERR_OK;
}

err fifo_segment_map(int fd, const struct fifo_end *self, const struct fifo_end *peer,
                     struct fifo_segment *out)
{
    void *base;
    size_t bytes = 0;
    err e = memory_map(fd, &bytes, &base);
    if (e)
        return e;
    struct head h;
    memcpy(&h, base, offsetof(struct head, lanes)); /* once: what is checked is what is used */
    unsigned end = end_is(&h.ends[0], self) ? 0 : 1;
    if (h.magic != FIFO_MAGIC || !size_good(h.size) || bytes != PAGE + 2 * h.size ||
        !end_is(&h.ends[end], self) || !end_is(&h.ends[1 - end], peer)) {
        munmap(base, bytes);
        return ERR_BAD;
    }
    *out = (struct fifo_segment){base, bytes, h.size, end, ((struct head *)base)->lanes};
    return ERR_OK;
}

void fifo_segment_unmap(struct fifo_segment *s)
{
    if (s->base)
        munmap(s->base, s->bytes);
    s->base = NULL;
}

err fifo_bell_map(int fd, struct fifo_bell **out)
{
    void *p;
    size_t n = PAGE;
    err e = memory_map(fd, &n, &p);
    if (e == ERR_OK)
        *out = p;
    return e;
}

void fifo_bell_unmap(struct fifo_bell *b)
{
    if (b)
        munmap(b, PAGE);
}
