/* Cores, cgroup limits, and the owner of a port. */
#include "node/super/machine.h"

#include <ctype.h>
#include <dirent.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static bool read_line(const char *path, char *out, size_t n)
{
    FILE *f = fopen(path, "re");
    bool good = f && fgets(out, (int)n, f);
    if (f)
        fclose(f);
    return good;
}

unsigned machine_cores_of_quota(const char *cpu_max)
{
    unsigned long long quota, period;
    if (sscanf(cpu_max, "%llu %llu", &quota, &period) != 2 || period == 0)
        return 0;
    unsigned long long cores = (quota + period - 1) / period;
    return cores ? (unsigned)cores : 1;
}

unsigned machine_quota_cores(const char *root, const char *group)
{
    char path[2 * PATH_MAX], line[128], at[PATH_MAX];
    unsigned least = 0;
    snprintf(at, sizeof at, "%s", group);
    for (;;) {
        snprintf(path, sizeof path, "%s%s/cpu.max", root, at);
        unsigned cores = read_line(path, line, sizeof line) ? machine_cores_of_quota(line) : 0;
        if (cores && (!least || cores < least))
            least = cores;
        char *last = strrchr(at, '/');
        if (!last)
            return least;
        *last = 0;
    }
}

/* Version 2 of cgroups has one line for us, "0::/path"; a container sees its own as "/". */
static unsigned quota_cores(void)
{
    char line[PATH_MAX] = "";
    if (!read_line("/proc/self/cgroup", line, sizeof line) || strncmp(line, "0::/", 4) != 0)
        return machine_quota_cores("/sys/fs/cgroup", "");
    line[strcspn(line, "\n")] = 0;
    return machine_quota_cores("/sys/fs/cgroup", line + 3);
}

unsigned machine_cores(void)
{
    cpu_set_t mask;
    unsigned cores = sched_getaffinity(0, sizeof mask, &mask) == 0 ? (unsigned)CPU_COUNT(&mask) : 1;
    unsigned quota = quota_cores();
    if (quota && quota < cores)
        cores = quota;
    return cores ? cores : 1;
}

uint64_t machine_listen_inode(const char *line, uint16_t port)
{
    char local[64], remote[64];
    unsigned state;
    unsigned long long inode;
    if (sscanf(line, " %*d: %63s %63s %x %*s %*s %*s %*d %*d %llu", local, remote, &state,
               &inode) != 4)
        return 0;
    const char *colon = strrchr(local, ':');
    if (!colon || state != 0x0a || strtoul(colon + 1, NULL, 16) != port)
        return 0;
    return inode;
}

static uint64_t inode_of_port(const char *table, uint16_t port)
{
    char line[512];
    uint64_t inode = 0;
    FILE *f = fopen(table, "re");
    while (f && !inode && fgets(line, sizeof line, f))
        inode = machine_listen_inode(line, port);
    if (f)
        fclose(f);
    return inode;
}

static bool holds(const char *pid, const char *socket)
{
    char path[PATH_MAX], target[64];
    snprintf(path, sizeof path, "/proc/%s/fd", pid);
    DIR *d = opendir(path);
    bool found = false;
    for (struct dirent *e; d && !found && (e = readdir(d));) {
        snprintf(path, sizeof path, "/proc/%s/fd/%s", pid, e->d_name);
        ssize_t n = readlink(path, target, sizeof target - 1);
        found = n > 0 && (target[n] = 0, strcmp(target, socket) == 0);
    }
    if (d)
        closedir(d);
    return found;
}

static str describe(const char *pid, struct arena *a)
{
    char path[PATH_MAX], name[64] = "";
    snprintf(path, sizeof path, "/proc/%s/comm", pid);
    if (!read_line(path, name, sizeof name))
        return STR("");
    name[strcspn(name, "\n")] = 0;
    return arena_printf(a, "\"%s\" (pid %s)", name, pid);
}

str machine_port_holder(uint16_t port, struct arena *a)
{
    uint64_t inode = inode_of_port("/proc/net/tcp", port);
    if (!inode)
        inode = inode_of_port("/proc/net/tcp6", port);
    if (!inode)
        return STR("");
    const char *socket = arena_printf(a, "socket:[%llu]", (unsigned long long)inode).p;
    DIR *d = opendir("/proc");
    str found = STR("");
    for (struct dirent *e; d && !found.n && (e = readdir(d));)
        if (isdigit((unsigned char)e->d_name[0]) && holds(e->d_name, socket))
            found = describe(e->d_name, a);
    if (d)
        closedir(d);
    return found;
}
