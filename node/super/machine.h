/* machine: what this process may use, and who else is here. Reads /proc and /sys; never fails: what
 * cannot be read counts as not limited. */
#ifndef PEMBERLEY_NODE_SUPER_MACHINE_H
#define PEMBERLEY_NODE_SUPER_MACHINE_H

#include "pemberley/arena.h"

/* CPUs of the affinity mask, or the cgroup's cpu.max rounded up if that is less. At least 1. */
unsigned machine_cores(void);
/* cpu.max's two numbers to cores; 0: no limit. "200000 100000" is 2. */
unsigned machine_cores_of_quota(const char *cpu_max);
/* The least of the quotas of this cgroup ("/a/b" or "") and of those it is in, under root; 0. */
unsigned machine_quota_cores(const char *root, const char *group);
/* Who listens on this TCP port: `"prosody" (pid 812)`, or empty when it cannot be seen. */
str machine_port_holder(uint16_t port, struct arena *a);
/* The inode of the listening socket on this port in a line of /proc/net/tcp or tcp6; 0. */
uint64_t machine_listen_inode(const char *line, uint16_t port);

#endif
