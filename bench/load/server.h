/* server: what the processes under test cost, as the kernel counts it: CPU time and memory of the
 * shards, which are found as children of the supervisor, or of any processes named by their ids
 * (other servers'). */
#ifndef PEMBERLEY_BENCH_SERVER_H
#define PEMBERLEY_BENCH_SERVER_H

#include <stdint.h>
#include <sys/types.h>

enum { SERVER_SHARDS_MAX = 64 };
struct server {
    pid_t shard[SERVER_SHARDS_MAX];
    unsigned shards;
};

/* Returns the number of shards found. */
unsigned server_find(struct server *s, pid_t supervisor);
/* Takes "PID,PID,…" instead; returns how many. */
unsigned server_take(struct server *s, const char *pids);
/* kill -9 of all of them. */
void server_kill(const struct server *s);
/* user + system time of all shards, microseconds. */
double server_cpu_us(const struct server *s);
/* Proportional set size of all shards: their user-space memory, bytes. */
uint64_t server_memory(const struct server *s);
/* Private pages of all shards, bytes: without what they share. */
uint64_t server_private(const struct server *s);

#endif
