/* metrics: the shared page of numbers (metric.h) as a sealed memfd. The supervisor keeps the page
 * of a dead process, so its last numbers are not lost. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "node/os/os.h"

enum { SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL };

err metric_page_create(int *fd)
{
    *fd = memfd_create("pemberley-metrics", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (*fd < 0)
        return ERR_IO;
    if (ftruncate(*fd, sizeof(struct metric_page)) < 0 || fcntl(*fd, F_ADD_SEALS, SEALS) < 0) {
        close(*fd);
        return ERR_IO;
    }
    return ERR_OK;
}

err metric_page_map(int fd, struct metric_page **out)
{
    struct stat st;
    if (fstat(fd, &st) < 0 || (size_t)st.st_size < sizeof **out)
        return ERR_BAD;
    void *p = mmap(NULL, sizeof **out, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        return ERR_IO;
    *out = p;
    return ERR_OK;
}

void metric_sample_process(struct metric_page *m, uint64_t *cpu_counted_us)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    uint64_t cpu_us = (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000 +
                      (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
    metric_add(m, METRIC_process_cpu_us, (int64_t)(cpu_us - *cpu_counted_us));
    *cpu_counted_us = cpu_us;
    FILE *f = fopen("/proc/self/statm", "re");
    unsigned long size, resident, shared;
    if (f && fscanf(f, "%lu %lu %lu", &size, &resident, &shared) == 3)
        metric_set(m, METRIC_process_memory_bytes,
                   (resident - shared) * (uint64_t)sysconf(_SC_PAGESIZE));
    if (f)
        fclose(f);
}

unsigned metric_peer(struct metric_page *m, const char *name, unsigned max)
{
    unsigned n = atomic_load_explicit(&m->peers, memory_order_relaxed);
    for (unsigned i = 1; i <= n; i++)
        if (strncmp(m->peer[i], name, METRIC_PEER_BYTES) == 0)
            return i;
    if (n >= max || n + 1 >= METRIC_SIZE_PEER)
        return 0;
    snprintf(m->peer[n + 1], METRIC_PEER_BYTES, "%s", name);
    atomic_store_explicit(&m->peers, n + 1, memory_order_release);
    return n + 1;
}

void metric_page_unmap(struct metric_page *m)
{
    if (m)
        munmap(m, sizeof *m);
}
