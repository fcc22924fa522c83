/* A child for the supervisor's tests: does nothing but speak the control protocol. Its index and
 * kind decide nothing; commands make it die or hang:
 *   user-kick crash@localhost   aborts      user-kick hang@localhost   stops turning */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "node/conf/conf.h"
#include "node/os/os.h"
#include "node/super/child.h"

struct fake {
    struct child *child;
    struct metric_page *page;
    struct child_start start;
    unsigned listeners, peers_up, peers_down, reloads;
    bool done;
};

static void on_start(void *ctx, const struct child_start *s)
{
    struct fake *f = ctx;
    const struct conf *c;
    f->start = *s;
    must(conf_map(s->conf_fd, &c) == ERR_OK && conf_host_find(c, STR("localhost")));
    must(metric_page_map(s->metrics_fd, &f->page) == ERR_OK);
    must((s->kind == CHILD_SHARD) == (s->certs_fd >= 0) && s->wake_fd >= 0 && s->bell_fd >= 0);
    child_ready(f->child, "fake");
}

static void on_listener(void *ctx, enum child_listener kind, uint32_t owner, str address, int fd)
{
    struct fake *f = ctx;
    f->listeners++;
    close(fd);
}

static void on_peer_up(void *ctx, const struct child_peer *p)
{
    struct fake *f = ctx;
    must(p->segment_fd >= 0 && p->wake_fd >= 0 && p->bell_fd >= 0);
    f->peers_up++;
    close(p->segment_fd), close(p->wake_fd), close(p->bell_fd);
}

static void on_peer_down(void *ctx, enum child_kind kind, uint32_t index, uint64_t incarnation)
{
    ((struct fake *)ctx)->peers_down++;
}

static void on_reload(void *ctx, uint64_t generation, int conf_fd, int certs_fd)
{
    struct fake *f = ctx;
    f->reloads++;
    close(conf_fd);
    if (certs_fd >= 0)
        close(certs_fd);
    child_reloaded(f->child, generation);
}

static void on_command(void *ctx, uint64_t id, size_t argc, const str *argv)
{
    struct fake *f = ctx;
    char text[256];
    if (argc > 1 && str_is(argv[1], "crash@localhost"))
        abort();
    while (argc > 1 && str_is(argv[1], "hang@localhost"))
        pause();
    if (argc > 1 && str_is(argv[1], "nobody@localhost")) {
        child_reply(f->child, id, 4, STR("no user nobody@localhost"));
        return;
    }
    if (str_is(argv[0], "user-list")) { /* longer than one message */
        str big = {malloc(200000), 200000};
        memset((char *)(uintptr_t)big.p, ' ', big.n);
        memcpy((char *)(uintptr_t)big.p, "{\"items\":[{\"jid\":\"a@localhost\"}]}", 33);
        child_reply(f->child, id, 0, big);
        free((char *)(uintptr_t)big.p);
        return;
    }
    int n = snprintf(text, sizeof text,
                     "{\"v\":1,\"items\":[{\"index\":%u,\"listeners\":%u,\"peers_up\":%u,"
                     "\"peers_down\":%u,\"reloads\":%u}]}",
                     f->start.index, f->listeners, f->peers_up, f->peers_down, f->reloads);
    child_reply(f->child, id, 0, str_from(text, (size_t)n));
}

static void on_stop(void *ctx, uint32_t deadline_ms)
{
    struct fake *f = ctx;
    child_stopped(f->child, 1, 2);
    f->done = true;
}

static void on_lost(void *ctx) { ((struct fake *)ctx)->done = true; }

int main(void)
{
    static const struct child_calls calls = {
        .on_start = on_start,
        .on_listener = on_listener,
        .on_peer_up = on_peer_up,
        .on_peer_down = on_peer_down,
        .on_reload = on_reload,
        .on_command = on_command,
        .on_stop = on_stop,
        .on_lost = on_lost,
    };
    struct fake f = {0};
    signal(SIGINT, SIG_IGN);
    f.child = child_open(CHILD_FD, &calls, &f);
    while (!f.done) {
        struct pollfd p = {.fd = child_fd(f.child), .events = child_events(f.child)};
        poll(&p, 1, 100);
        child_turn(f.child);
        if (f.page)
            atomic_fetch_add(&f.page->heartbeat, 1);
    }
    child_close(f.child);
    return 0;
}
