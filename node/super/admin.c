/* The admin socket: run_dir/control.sock, mode 0600, and only our own user and root are heard (peer
 * credentials). One command in progress per client, and no further one is read before its answer
 * has been taken: so what waits for a client is bounded by one answer. */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "node/super/inside.h"
#include "node/super/super.h"

enum { CHUNK = 60 * 1024, ARGV_MAX = 64 };

struct packet {
    struct list link;
    size_t n;
    char bytes[];
};

err admin_open(struct super *s, str *problem)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    str directory = conf_text(s->conf, s->conf->node_run_dir);
    int n = snprintf(s->admin_path, sizeof s->admin_path, "%s/control.sock", directory.p);
    *problem = STR("node.run_dir is too long a path: 90 bytes at most");
    if (n < 0 || (size_t)n >= sizeof a.sun_path)
        return ERR_FULL;
    memcpy(a.sun_path, s->admin_path, (size_t)n);
    unlink(s->admin_path); /* of a dead node: we hold the lock */
    *problem = STR("cannot make the control socket in node.run_dir");
    s->admin_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    mode_t mask = umask(0177);
    bool good = s->admin_fd >= 0 && bind(s->admin_fd, (struct sockaddr *)&a, sizeof a) == 0 &&
                listen(s->admin_fd, CLIENTS_MAX) == 0;
    umask(mask);
    return good ? ERR_OK : ERR_IO;
}

static bool may_ask(int fd)
{
    struct ucred who;
    socklen_t n = sizeof who;
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &n) == 0 &&
           (who.uid == 0 || who.uid == geteuid());
}

void admin_accept(struct super *s)
{
    int fd = accept4(s->admin_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    for (unsigned i = 0; i < CLIENTS_MAX && may_ask(fd); i++) {
        if (client_is_there(&s->client[i]))
            continue;
        s->client[i] = (struct client){.fd = fd};
        list_init(&s->client[i].waiting);
        return;
    }
    close(fd);
}

static void drop_first(struct client *c)
{
    struct packet *p = list_first(&c->waiting, struct packet, link);
    list_remove(&p->link);
    free(p);
}

void admin_close(struct client *c)
{
    while (!list_empty(&c->waiting))
        drop_first(c);
    if (c->fd >= 0)
        close(c->fd);
    free((char *)(uintptr_t)c->reloaded.p);
    c->waits_for_stop = c->waits_for_drain = false;
    c->asker = NULL;
    c->fd = -1, c->id = c->forwarded = c->waits_for = 0, c->reloaded = STR_NONE;
}

static void flush(struct client *c)
{
    while (!list_empty(&c->waiting)) {
        struct packet *p = list_first(&c->waiting, struct packet, link);
        if (control_write(c->fd, p->bytes, p->n, NULL, 0) == ERR_FULL)
            return;
        drop_first(c);
    }
}

static void send_answer(struct client *c, Control__Reply *r)
{
    Control__ToChild m = CONTROL__TO_CHILD__INIT;
    m.what_case = CONTROL__TO_CHILD__WHAT_ANSWER, m.answer = r;
    process_send(c->asker, &m, NULL, 0);
}

static void send_chunk(struct client *c, unsigned exit, str text, bool more)
{
    Control__Reply r = CONTROL__REPLY__INIT;
    r.id = c->id, r.exit = exit, r.more = more;
    r.text.data = (uint8_t *)(uintptr_t)text.p, r.text.len = text.n;
    if (c->asker) {
        send_answer(c, &r);
        return;
    }
    size_t n = control__reply__get_packed_size(&r);
    struct packet *p = malloc(sizeof *p + n);
    must(p);
    p->n = control__reply__pack(&r, (uint8_t *)p->bytes);
    list_push_back(&c->waiting, &p->link);
    flush(c);
}

static void finish(struct super *s, struct client *c, unsigned exit)
{
    if (!c->asker ||
        strcmp(c->command, "status") != 0) /* each `node list` asks all nodes for that */
        LOG(s->log, admin_command, F_STR("command", str_of(c->command)),
            F_STR("by", str_of(c->asker ? "cluster" : "socket")), F_INT("exit", exit));
    c->id = c->forwarded = 0;
    c->to = c->asker = NULL;
}

void admin_reply(struct super *s, struct client *c, unsigned exit, str text)
{
    while (text.n > CHUNK) {
        send_chunk(c, exit, (str){text.p, CHUNK}, true);
        text = str_skip(text, CHUNK);
    }
    send_chunk(c, exit, text, false);
    finish(s, c, exit);
}

void admin_progress(struct client *c, str text)
{
    if (list_empty(&c->waiting))
        send_chunk(c, 0, text, true);
}

void admin_forward(struct super *s, const Control__Reply *r)
{
    for (unsigned i = 0; i < CLIENTS_MAX; i++) {
        struct client *c = &s->client[i];
        if (!client_is_there(c) || c->forwarded == 0 || c->forwarded != r->id)
            continue;
        send_chunk(c, r->exit, str_from(r->text.data, r->text.len), r->more);
        if (!r->more)
            finish(s, c, r->exit);
        return;
    }
}

void admin_lost(struct super *s, const struct process *p)
{
    for (unsigned i = 0; i < CLIENTS_MAX; i++) {
        struct client *c = &s->client[i];
        if (c->asker == p)
            admin_close(c);
        else if (c->fd >= 0 && c->forwarded && c->to == p)
            admin_reply(s, c, EXIT_TIMEOUT, STR("the shard that was asked has ended; ask again"));
    }
}

/* ---- a shard that asks ----------------------------------------------------------------------- */

static void refuse_ask(struct process *p, uint64_t id, const char *why)
{
    struct client c = {.fd = -1, .asker = p, .id = id};
    send_chunk(&c, EXIT_FAILED, str_of(why), false);
}

void admin_ask(struct process *p, const Control__Command *m)
{
    struct super *s = p->super;
    struct client *free_one = NULL;
    str argv[ARGV_MAX];
    unsigned asked = 0;
    if (m->n_argv == 0 || m->n_argv > ARGV_MAX || m->id == 0)
        return;
    for (unsigned i = 0; i < CLIENTS_MAX; i++) {
        asked += s->client[i].asker == p;
        if (!client_is_there(&s->client[i]))
            free_one = &s->client[i];
    }
    for (size_t i = 0; i < m->n_argv; i++)
        argv[i] = str_from(m->argv[i].data, m->argv[i].len);
    if (!command_is_for_others(argv[0]))
        return refuse_ask(p, m->id, "that is not done for another node");
    if (!free_one || asked >= CHILD_ASKS_MAX)
        return refuse_ask(p, m->id, "this node is asked too much; ask again");
    *free_one = (struct client){.fd = -1, .asker = p, .id = m->id};
    list_init(&free_one->waiting);
    snprintf(free_one->command, sizeof free_one->command, "%.*s", STR_ARG(argv[0]));
    command_run(s, free_one, m->n_argv, argv);
}

static void receive(struct super *s, struct client *c, size_t n)
{
    Control__Command *m = control__command__unpack(NULL, n, (const uint8_t *)s->buffer);
    if (!m || m->n_argv == 0 || m->n_argv > ARGV_MAX || m->id == 0 || c->id != 0) {
        control__command__free_unpacked(m, NULL);
        admin_close(c);
        return;
    }
    str argv[ARGV_MAX];
    for (size_t i = 0; i < m->n_argv; i++)
        argv[i] = str_from(m->argv[i].data, m->argv[i].len);
    c->id = m->id;
    snprintf(c->command, sizeof c->command, "%.*s", STR_ARG(argv[0]));
    command_run(s, c, m->n_argv, argv);
    control__command__free_unpacked(m, NULL);
}

void admin_turn(struct client *c, struct super *s, short events)
{
    int fds[CONTROL_FDS_MAX];
    size_t n, n_fds;
    if (events & POLLOUT)
        flush(c);
    if (!(events & (POLLIN | POLLHUP | POLLERR)))
        return;
    err e = control_read(c->fd, s->buffer, &n, fds, &n_fds);
    if (e == ERR_PARTIAL)
        return;
    for (size_t i = 0; e == ERR_OK && i < n_fds; i++)
        close(fds[i]);
    if (e == ERR_OK)
        receive(s, c, n);
    else
        admin_close(c);
}
