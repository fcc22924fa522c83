/* super: the supervisor (architecture 3, systems.md 7): config, listening sockets, children and
 * their restarts, signals, the admin socket. */
#ifndef PEMBERLEY_NODE_SUPER_SUPER_H
#define PEMBERLEY_NODE_SUPER_SUPER_H

#include <stddef.h>

/* Exit codes of every command (operator.md 3). */
enum {
    EXIT_DONE = 0,
    EXIT_FAILED = 1,
    EXIT_USAGE = 2,
    EXIT_NOT_RUNNING = 3,
    EXIT_NOT_FOUND = 4,
    EXIT_EXISTS = 5,
    EXIT_NOT_CONFIRMED = 6,
    EXIT_TIMEOUT = 7,
    EXIT_CONFIG = 78,
};

struct conf;
/* node.name, or the first label of the host name as far as it is fit; with a NUL. */
void super_node_name(const struct conf *c, char out[33]);

/* `pemberley run`: until it is stopped; returns the exit code. sets: --set assignments. */
int super_run(const char *config_file, const char *const *sets, size_t n);

#endif
