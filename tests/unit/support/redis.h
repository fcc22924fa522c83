/* redis: Redis servers of the test's own, in a directory of its own, on ports of the loopback
 * address, not longer than the test. Debian has the server in one binary with redis-check-rdb (of
 * redis-tools), which goes by the name it is called with: so no service is installed. */
#ifndef TESTS_UNIT_SUPPORT_REDIS_H
#define TESTS_UNIT_SUPPORT_REDIS_H

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { REDIS_MAX = 8 };
struct redis_server {
    const char *role; /* "redis-server", "redis-sentinel" */
    char config[96], log[96];
    int port;
    pid_t pid;
};
struct redis_park {
    char dir[48];
    struct redis_server servers[REDIS_MAX];
    int n;
    char answer[4096]; /* of redis_cli */
};

static inline void redis_must(bool good, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "redis: %s\n", what);
    abort();
}

static inline void redis_park_init(struct redis_park *p)
{
    *p = (struct redis_park){.n = 0};
    strcpy(p->dir, "/tmp/pemberley-redis-XXXXXX");
    redis_must(mkdtemp(p->dir) != NULL, "no directory");
}

static inline bool redis_port_is_free(int port)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons((uint16_t)port),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool is_free = bind(fd, (const struct sockaddr *)&a, sizeof a) == 0;
    close(fd);
    return is_free;
}

/* One whose cluster bus (10,000 above) has room too. */
static inline int redis_port(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    unsigned seed = (unsigned)getpid() * 7919u + (unsigned)t.tv_nsec;
    for (int i = 0; i < 1000; i++) {
        int port = 20000 + (int)((seed + (unsigned)i * 101) % 10000);
        if (redis_port_is_free(port) && redis_port_is_free(port + 10000))
            return port;
    }
    redis_must(false, "no port is free");
    return 0;
}

static inline void redis_start(struct redis_park *p, struct redis_server *s)
{
    s->pid = fork();
    redis_must(s->pid >= 0, "fork");
    if (s->pid > 0)
        return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int log = open(s->log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    dup2(log, 1), dup2(log, 2);
    if (chdir(p->dir) == 0)
        execl("/usr/bin/redis-check-rdb", s->role, s->config, (char *)NULL);
    _exit(127);
}

/* What redis-cli says, with a NUL; lines end with \n. */
__attribute__((format(printf, 3, 4))) static inline const char *
redis_cli(struct redis_park *p, int port, const char *fmt, ...)
{
    char command[512];
    va_list ap;
    int n = snprintf(command, sizeof command, "redis-cli -p %d ", port);
    va_start(ap, fmt);
    n += vsnprintf(command + n, sizeof command - (size_t)n, fmt, ap);
    va_end(ap);
    snprintf(command + n, sizeof command - (size_t)n, " 2>&1");
    FILE *f = popen(command, "r");
    redis_must(f != NULL, "redis-cli");
    size_t got = fread(p->answer, 1, sizeof p->answer - 1, f);
    pclose(f);
    p->answer[got] = 0;
    return p->answer;
}

static inline void redis_wait(struct redis_park *p, const struct redis_server *s)
{
    struct timespec pause = {0, 20 * 1000 * 1000};
    for (int i = 0; i < 500; i++, nanosleep(&pause, NULL)) {
        const char *said = redis_cli(p, s->port, "PING");
        if (strstr(said, "PONG") || strstr(said, "NOAUTH"))
            return;
        redis_must(waitpid(s->pid, NULL, WNOHANG) == 0, "a server does not start; see its log");
    }
    redis_must(false, "a server does not answer");
}

/* A server of this role and configuration; started, and answering. */
__attribute__((format(printf, 3, 4))) static inline struct redis_server *
redis_add(struct redis_park *p, const char *role, const char *fmt, ...)
{
    redis_must(p->n < REDIS_MAX, "too many servers");
    struct redis_server *s = &p->servers[p->n];
    *s = (struct redis_server){.role = role, .port = redis_port()};
    char dir[sizeof p->dir];
    memcpy(dir, p->dir, sizeof dir);
    snprintf(s->config, sizeof s->config, "%s/%d.conf", dir, p->n);
    snprintf(s->log, sizeof s->log, "%s/%d.log", dir, p->n);
    p->n++;
    FILE *f = fopen(s->config, "w");
    va_list ap;
    redis_must(f != NULL, "cannot write a configuration");
    fprintf(f, "port %d\nbind 127.0.0.1\ndir %s\n", s->port, p->dir);
    if (strcmp(role, "redis-server") == 0)
        fprintf(f, "save \"\"\nappendonly no\nenable-debug-command yes\n");
    va_start(ap, fmt);
    vfprintf(f, fmt, ap);
    va_end(ap);
    fclose(f);
    redis_start(p, s);
    redis_wait(p, s);
    return s;
}

static inline void redis_kill(struct redis_server *s)
{
    kill(s->pid, SIGKILL);
    waitpid(s->pid, NULL, 0);
    s->pid = 0;
}

static inline void redis_park_end(struct redis_park *p)
{
    char command[80];
    for (int i = 0; i < p->n; i++)
        if (p->servers[i].pid)
            redis_kill(&p->servers[i]);
    snprintf(command, sizeof command, "rm -rf %s", p->dir);
    redis_must(system(command) == 0, "cannot remove the directory");
}

#endif
