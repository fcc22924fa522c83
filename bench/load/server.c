/* server: see server.h. Process clocks (clock_getcpuclockid), because /proc/PID/stat counts in
 * ticks of 10 ms; PSS, because the shards of a node share pages (fifos, certificates, the
 * program). */
#include "bench/load/server.h"

#include <dirent.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static bool is_shard_of(pid_t pid, pid_t parent)
{
    char path[64], line[512] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *f = fopen(path, "re");
    if (!f)
        return false;
    size_t n = fread(line, 1, sizeof line - 1, f);
    fclose(f);
    line[n] = 0;
    const char *behind = strrchr(line, ')');
    int of = 0;
    return behind && sscanf(behind, ") %*c %d", &of) == 1 && of == parent &&
           strstr(line, "(pemberley-shard)");
}

unsigned server_find(struct server *s, pid_t supervisor)
{
    DIR *d = opendir("/proc");
    *s = (struct server){.shards = 0};
    for (struct dirent *e; d && (e = readdir(d)) && s->shards < SERVER_SHARDS_MAX;) {
        pid_t pid = (pid_t)atoi(e->d_name);
        if (pid > 0 && is_shard_of(pid, supervisor))
            s->shard[s->shards++] = pid;
    }
    if (d)
        closedir(d);
    return s->shards;
}

unsigned server_take(struct server *s, const char *pids)
{
    *s = (struct server){.shards = 0};
    for (char *end; *pids && s->shards < SERVER_SHARDS_MAX; pids = *end ? end + 1 : end) {
        long pid = strtol(pids, &end, 10);
        if (pid <= 0 || (*end && *end != ','))
            return 0;
        s->shard[s->shards++] = (pid_t)pid;
    }
    return s->shards;
}

void server_kill(const struct server *s)
{
    for (unsigned i = 0; i < s->shards; i++)
        kill(s->shard[i], SIGKILL);
}

double server_cpu_us(const struct server *s)
{
    double us = 0;
    for (unsigned i = 0; i < s->shards; i++) {
        clockid_t clock;
        struct timespec t;
        if (clock_getcpuclockid(s->shard[i], &clock) == 0 && clock_gettime(clock, &t) == 0)
            us += (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
    }
    return us;
}

/* The sum of one field of /proc/PID/smaps_rollup over all shards. */
static uint64_t rollup(const struct server *s, const char *field)
{
    uint64_t bytes = 0;
    size_t n = strlen(field);
    for (unsigned i = 0; i < s->shards; i++) {
        char path[64], line[256];
        snprintf(path, sizeof path, "/proc/%d/smaps_rollup", s->shard[i]);
        FILE *f = fopen(path, "re");
        while (f && fgets(line, sizeof line, f))
            if (!strncmp(line, field, n) && line[n] == ':')
                bytes += strtoull(line + n + 1, NULL, 10) * 1024;
        if (f)
            fclose(f);
    }
    return bytes;
}

uint64_t server_memory(const struct server *s) { return rollup(s, "Pss"); }

uint64_t server_private(const struct server *s)
{
    return rollup(s, "Private_Clean") + rollup(s, "Private_Dirty");
}
