/* Binding. A probe without SO_REUSEPORT comes first: with it, a second node of the same user would
 * silently share the port and get half of the connections. */
#include "node/super/listen.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "node/conf/value.h"
#include "node/super/machine.h"

enum {
    RECEIVE_BUFFER = 128 * 1024, /* autotuned, a connection we do not read may take 6 MB */
    NOT_SENT_LOW = 64 * 1024,
    KEEPALIVE_IDLE_S = 60,
    USER_TIMEOUT_MS = 120 * 1000,
};

static uint16_t port_of(const struct sockaddr_storage *a)
{
    return ntohs(a->ss_family == AF_INET
                     ? ((const struct sockaddr_in *)(const void *)a)->sin_port
                     : ((const struct sockaddr_in6 *)(const void *)a)->sin6_port);
}

static bool set(int fd, int level, int option, int value)
{
    return setsockopt(fd, level, option, &value, sizeof value) == 0;
}

static bool set_inherited(int fd)
{
    return set(fd, IPPROTO_TCP, TCP_NODELAY, 1) && set(fd, SOL_SOCKET, SO_KEEPALIVE, 1) &&
           set(fd, IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S) &&
           set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, USER_TIMEOUT_MS) &&
           set(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, NOT_SENT_LOW) &&
           set(fd, SOL_SOCKET, SO_RCVBUF, RECEIVE_BUFFER);
}

/* ":5222" on a machine without IPv6. */
static void fall_back_to_v4(struct sockaddr_storage *a, socklen_t *len)
{
    uint16_t port = port_of(a);
    memset(a, 0, sizeof *a);
    struct sockaddr_in *v4 = (void *)a;
    v4->sin_family = AF_INET, v4->sin_port = htons(port);
    *len = sizeof *v4;
}

static int bind_one(const struct sockaddr_storage *a, socklen_t len, bool share)
{
    int fd = socket(a->ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    if (a->ss_family == AF_INET6)
        (void)set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
    if (set(fd, SOL_SOCKET, SO_REUSEADDR, 1) && (!share || set(fd, SOL_SOCKET, SO_REUSEPORT, 1)) &&
        set_inherited(fd) && bind(fd, (const struct sockaddr *)a, len) == 0)
        return fd;
    int problem = errno;
    close(fd);
    errno = problem;
    return -1;
}

str listener_complaint(str address, int problem, str holder, struct arena *a)
{
    if (problem == EADDRINUSE)
        return arena_printf(a,
                            "cannot listen on %.*s: address in use%s%.*s. Stop it, or: ops/start "
                            "--port-shift 1000",
                            STR_ARG(address), holder.n ? " by " : "", STR_ARG(holder));
    if (problem == EACCES)
        return arena_printf(a,
                            "cannot listen on %.*s: ports below 1024 need CAP_NET_BIND_SERVICE. "
                            "Choose a higher one, or grant it",
                            STR_ARG(address));
    return arena_printf(a, "cannot listen on %.*s: %s", STR_ARG(address), strerror(problem));
}

err listener_open(struct listener *l, unsigned shards, struct arena *a, str *problem)
{
    struct sockaddr_storage address;
    socklen_t len;
    unsigned opened = 0;
    must(conf_address_parse(l->address, &address, &len)); /* the config was checked */
    int probe = bind_one(&address, len, false);
    if (probe < 0 && errno == EAFNOSUPPORT && l->address.p[0] == ':') {
        fall_back_to_v4(&address, &len);
        probe = bind_one(&address, len, false);
    }
    if (probe < 0)
        goto fail;
    close(probe);
    for (; opened < shards; opened++)
        if ((l->fd[opened] = bind_one(&address, len, true)) < 0)
            goto fail;
    return ERR_OK;
fail:;
    int why = errno;
    str holder = why == EADDRINUSE ? machine_port_holder(port_of(&address), a) : STR("");
    *problem = listener_complaint(l->address, why, holder, a);
    listener_close(l, opened);
    return ERR_IO;
}

static bool look_up(str host, struct sockaddr_storage *out, socklen_t *len, str *problem,
                    struct arena *a)
{
    const struct addrinfo wanted = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *found;
    int e = getaddrinfo(arena_dup(a, host).p, NULL, &wanted, &found);
    if (e) {
        *problem = arena_printf(a, "listen.bus.address: %.*s: %s", STR_ARG(host), gai_strerror(e));
        return false;
    }
    memcpy(out, found->ai_addr, found->ai_addrlen);
    *len = found->ai_addrlen;
    freeaddrinfo(found);
    return true;
}

static void set_port(struct sockaddr_storage *a, unsigned port)
{
    if (a->ss_family == AF_INET)
        ((struct sockaddr_in *)(void *)a)->sin_port = htons((uint16_t)port);
    else
        ((struct sockaddr_in6 *)(void *)a)->sin6_port = htons((uint16_t)port);
}

static str bus_complaint(str host, unsigned port, struct arena *a)
{
    int why = errno;
    str address = arena_printf(a, "%.*s:%u", STR_ARG(host), port);
    if (why == EADDRNOTAVAIL)
        return arena_printf(a,
                            "cannot listen on %.*s: this machine has no such address. "
                            "listen.bus.address is one of its own",
                            STR_ARG(address));
    str holder = why == EADDRINUSE ? machine_port_holder((uint16_t)port, a) : STR("");
    return listener_complaint(address, why, holder, a);
}

err listener_open_bus(str text, unsigned shards, int backlog, int fd[CHILD_SHARDS_MAX],
                      str *problem, struct arena *a)
{
    struct sockaddr_storage address;
    socklen_t len;
    str host;
    uint16_t port;
    must(conf_endpoint_parse(text, &host, &port)); /* the config was checked */
    if (!conf_address_parse(text, &address, &len) && !look_up(host, &address, &len, problem, a))
        return ERR_IO;
    for (unsigned i = 0; i < shards; i++) {
        set_port(&address, port + i);
        fd[i] = bind_one(&address, len, false);
        if (fd[i] >= 0 && listen(fd[i], backlog) == 0)
            continue;
        *problem = bus_complaint(host, port + i, a);
        for (unsigned k = 0; k <= i; k++)
            if (fd[k] >= 0)
                close(fd[k]);
        return ERR_IO;
    }
    return ERR_OK;
}

err listener_start(const struct listener *l, unsigned shards)
{
    for (unsigned i = 0; i < shards; i++)
        if (listen(l->fd[i], l->backlog) < 0)
            return ERR_IO;
    return ERR_OK;
}

/* Linux takes a listening socket that is shut down back to the state before listen(2). */
void listener_pause(const struct listener *l, unsigned shards)
{
    for (unsigned i = 0; i < shards; i++)
        (void)shutdown(l->fd[i], SHUT_RD);
}

void listener_close(struct listener *l, unsigned shards)
{
    for (unsigned i = 0; i < shards; i++)
        close(l->fd[i]);
}
