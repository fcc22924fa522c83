/* One datagram each, by hand: libsystemd would bring libgcrypt and more into the supervisor. It is
 * sent without waiting: a manager that does not read must not stop a node. */
#include "node/super/notify.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

void notify_send(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    if (!path || strlen(path) >= sizeof to.sun_path)
        return;
    memcpy(to.sun_path, path, strlen(path));
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
    if (to.sun_path[0] == '@')
        to.sun_path[0] = 0;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return;
    (void)!sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&to, len);
    close(fd);
}

/* The stamp is what Type=notify-reload (systemd 253) asks for. */
void notify_reloading(void)
{
    struct timespec t;
    char state[64];
    clock_gettime(CLOCK_MONOTONIC, &t);
    snprintf(state, sizeof state, "RELOADING=1\nMONOTONIC_USEC=%" PRId64,
             (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000);
    notify_send(state);
}

int64_t notify_watchdog_ms(void)
{
    const char *within = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
    if (!within || (pid && strtol(pid, NULL, 10) != getpid()))
        return 0;
    int64_t us = strtoll(within, NULL, 10);
    return us > 0 ? us / 2000 + 1 : 0;
}
