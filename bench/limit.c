/* limit: what this machine lets any server do: a server without XML, routing or state, on the
 * same loop, sockets and TLS as Pemberley's, under the same client (pemberley-load message P). It
 * answers the login by rote, one answer for each flight of the client, and then forwards an
 * account's bytes to the others of its group, all that a turn has brought in one write to each, as
 * the edge does: with groups of two, account 2k's to account 2k + 1 and back; with groups of R + 1,
 * each presence to R others and, as RFC 6121 4.4.2 has it, to its sender. What a message costs here
 * is the kernel's and TLS's; what Pemberley costs above it is Pemberley.
 *
 * One process per shard. A forwarder between processes would measure how they talk to each other,
 * so a whole group must be in one process: the parent accepts, and gives each socket to the worker
 * that the third byte of the client's address (127.0.GROUP.x) says.
 *
 *     bench_limit --port N --tls-port N --certificate FILE --key FILE [--workers N] [--loop epoll]
 *                 [--group ACCOUNTS] [--pin]
 *
 * prints "ready PID PID …" (the workers) and runs until it is ended. A bench's own client is its
 * only peer: what is not as expected closes the connection. */
#include <arpa/inet.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "node/os/os.h"
#include "node/tls/tls.h"
#include "proto/sasl/sasl.h"

enum {
    USERS_MAX = 1 << 16,
    WORKERS_MAX = 16,
    FLIGHT_MAX = 2048,
    OUT_FIRST = 4096,
    OUT_MAX = 64 << 20,
    BACKLOG = 4096,
    ITERATIONS = 4096,
    TICKET_LIFETIME_S = 86400,
};

struct worker {
    struct loop *loop;
    struct tls *tls;
    unsigned group;  /* accounts */
    char prefix[64]; /* of all accounts' names */
    struct op control;
    int control_fd;
    struct arena turn;
    struct entropy_real entropy;
    struct sasl_offer offer;
    const struct scram_keys *keys;
    struct peer *users[USERS_MAX]; /* by the number of the account */
};

struct bytes {
    char *p;
    size_t n, cap;
};

struct peer {
    struct worker *worker;
    struct transport *transport; /* NULL: it is being closed */
    struct turn_hook hook;
    struct bytes queued, flying;
    size_t flown;
    unsigned step; /* of the login; STEPS: forwarding */
    unsigned user; /* USERS_MAX: not known yet */
    struct sasl sasl;
    size_t flight_n;
    char flight[FLIGHT_MAX]; /* what has come of a flight of the login */
};

/* ---- out: the same as the load generator's and the edge's: one write for all of a turn ------- */

static void put(struct peer *p, str s)
{
    struct bytes *b = &p->queued;
    if (b->cap - b->n < s.n) {
        b->cap = 2 * (b->n + s.n) + OUT_FIRST;
        must(b->cap < OUT_MAX); /* the client's window bounds it */
        b->p = realloc(b->p, b->cap);
        must(b->p);
    }
    memcpy(b->p + b->n, s.p, s.n);
    b->n += s.n;
    loop_at_turn_end(p->worker->loop, &p->hook);
}

static void flush(struct peer *p)
{
    if (!p->flying.n) {
        struct bytes empty = p->flying;
        p->flying = p->queued, p->queued = empty;
        p->flown = 0;
    }
    if (!p->flying.n || !p->transport)
        return;
    struct iovec v = {p->flying.p + p->flown, p->flying.n - p->flown};
    p->flown += transport_write(p->transport, &v, 1);
}

static void on_turn_end(struct turn_hook *h)
{
    struct peer *p = container_of(h, struct peer, hook);
    if (!p->flying.n)
        flush(p);
}

static void on_written(struct transport *t)
{
    struct peer *p = t->owner;
    if (p->flown < p->flying.n)
        return flush(p);
    p->flying.n = 0;
    loop_at_turn_end(p->worker->loop, &p->hook);
}

/* ---- the login, by rote ---------------------------------------------------------------------- */

#define HEADER \
    "<?xml version='1.0'?><stream:stream xmlns='jabber:client' " \
    "xmlns:stream='http://etherx.jabber.org/streams' id='limit' from='localhost' version='1.0'>"
#define SASL_NS "xmlns='urn:ietf:params:xml:ns:xmpp-sasl'"

enum step {
    STEP_HEADER,
    STEP_AUTH,
    STEP_RESPONSE,
    STEP_AGAIN,
    STEP_BIND,
    STEP_ROSTER,
    STEP_PRESENCE,
    STEPS,
};
/* NULL: SASL's own answer, and the roster. */
static const char *const rote[STEPS] = {
    [STEP_HEADER] =
        HEADER "<stream:features><mechanisms " SASL_NS "><mechanism>SCRAM-SHA-256</mechanism>"
               "<mechanism>SCRAM-SHA-1</mechanism></mechanisms></stream:features>",
    [STEP_AGAIN] = HEADER "<stream:features><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>"
                          "</stream:features>",
    [STEP_BIND] = "<iq type='result' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>"
                  "<jid>load@localhost/r0</jid></bind></iq>",
    [STEP_PRESENCE] = "<presence from='load@localhost/r0'/>",
};

/* Between the first '>' and the last '<'. */
static str text_of(str flight)
{
    const char *begin = memchr(flight.p, '>', flight.n);
    const char *end = memrchr(flight.p, '<', flight.n);
    return begin && end > begin ? str_from(begin + 1, (size_t)(end - begin) - 1) : STR_NONE;
}

static struct sasl_answer scram(struct peer *p, str flight, str bytes)
{
    struct worker *w = p->worker;
    if (p->step == STEP_RESPONSE)
        return sasl_step(&p->sasl, bytes, &w->turn);
    bool sha1 = memmem(flight.p, flight.n, "'SCRAM-SHA-1'", 13);
    struct sasl_answer a = sasl_begin(&p->sasl, sha1 ? STR("SCRAM-SHA-1") : STR("SCRAM-SHA-256"),
                                      &w->offer, &bytes, &w->turn);
    return a.verdict == SASL_NEED_KEYS ? sasl_keys(&p->sasl, w->keys, ERR_OK, &w->turn) : a;
}

/* What is before the digits before the '@'. */
static str prefix_of(str jid)
{
    const char *at = memchr(jid.p, '@', jid.n);
    size_t n = at ? (size_t)(at - jid.p) : 0;
    while (n > 0 && jid.p[n - 1] >= '0' && jid.p[n - 1] <= '9')
        n--;
    return str_from(jid.p, n);
}

static unsigned number_of(str jid)
{
    size_t first = prefix_of(jid).n;
    bool digit = first < jid.n && jid.p[first] >= '0' && jid.p[first] <= '9';
    return digit ? (unsigned)strtoul(jid.p + first, NULL, 10) : USERS_MAX;
}

static bool authenticate(struct peer *p, str flight)
{
    struct worker *w = p->worker;
    bool last = p->step == STEP_RESPONSE;
    str bytes;
    if (sasl_decode(text_of(flight), &w->turn, &bytes) != ERR_OK)
        return false;
    struct sasl_answer a = scram(p, flight, bytes);
    if (a.verdict != (last ? SASL_SUCCESS : SASL_CONTINUE))
        return false;
    const char *name = last ? "success" : "challenge";
    put(p, arena_printf(&w->turn, "<%s " SASL_NS ">%.*s</%s>", name,
                        STR_ARG(sasl_encode(a.bytes, &w->turn)), name));
    if (!last)
        return true;
    p->user = number_of(p->sasl.user);
    snprintf(w->prefix, sizeof w->prefix, "%.*s", (int)prefix_of(p->sasl.user).n, p->sasl.user.p);
    sasl_end(&p->sasl);
    if (p->user >= USERS_MAX)
        return false;
    w->users[p->user] = p;
    return true;
}

/* Everybody else of the group, as contacts; of a pair nobody. */
static void put_roster(struct peer *p)
{
    struct worker *w = p->worker;
    unsigned first = p->user - p->user % w->group;
    put(p, STR("<iq type='result' id='roster'><query xmlns='jabber:iq:roster'>"));
    for (unsigned user = first; user < first + w->group && w->group > 2; user++)
        if (user != p->user)
            put(p, arena_printf(&w->turn, "<item jid='%s%u@localhost' subscription='both'/>",
                                w->prefix, user));
    put(p, STR("</query></iq>"));
}

/* A flight ends with '>'; nothing else is looked at. */
static bool log_in(struct peer *p, const char *bytes, size_t n)
{
    if (n > FLIGHT_MAX - p->flight_n)
        return false;
    memcpy(p->flight + p->flight_n, bytes, n);
    p->flight_n += n;
    if (p->flight[p->flight_n - 1] != '>')
        return true;
    str flight = str_from(p->flight, p->flight_n);
    p->flight_n = 0;
    if (rote[p->step])
        put(p, str_of(rote[p->step]));
    else if (p->step == STEP_ROSTER)
        put_roster(p);
    else if (!authenticate(p, flight))
        return false;
    p->step++;
    return true;
}

/* ---- a peer ---------------------------------------------------------------------------------- */

/* What others still have for it is not written any more. */
static void drop(struct peer *p)
{
    struct transport *t = p->transport;
    p->transport = NULL;
    if (t)
        transport_close(t, false);
}

static void forward(struct peer *p, str bytes)
{
    unsigned size = p->worker->group, first = p->user - p->user % size;
    for (unsigned user = first; user < first + size && user < USERS_MAX; user++) {
        struct peer *to = p->worker->users[user];
        if (to && (to != p || size > 2))
            put(to, bytes);
    }
}

static void on_bytes(struct transport *t, const char *bytes, size_t n)
{
    struct peer *p = t->owner;
    if (p->step == STEPS) {
        forward(p, str_from(bytes, n));
    } else if (!log_in(p, bytes, n)) {
        drop(p);
    }
}

static void on_opened(struct transport *t) {}
static void on_ended(struct transport *t) { drop(t->owner); }

static void on_closed(struct transport *t, err reason)
{
    struct peer *p = t->owner;
    transport_free(t);
    if (p->user < USERS_MAX && p->worker->users[p->user] == p)
        p->worker->users[p->user] = NULL;
    sasl_end(&p->sasl);
    list_remove(&p->hook.link);
    free(p->queued.p);
    free(p->flying.p);
    free(p);
}

static const struct transport_sink sink = {on_opened, on_bytes, on_written, on_ended, on_closed};

static void take(struct worker *w, int fd, bool tls)
{
    struct peer *p = calloc(1, sizeof *p);
    must(p);
    p->worker = w, p->user = USERS_MAX, p->hook.fn = on_turn_end;
    list_init(&p->hook.link);
    struct transport *t = sock_transport_open(w->loop, fd, NULL, &sink, p);
    if (tls)
        t = tls_server_open(w->tls, t, TLS_DIRECT, STR_NONE);
    t->sink = &sink, t->owner = p;
    p->transport = t;
}

/* ---- sockets from the parent ----------------------------------------------------------------- */

union control {
    char space[CMSG_SPACE(sizeof(int))];
    struct cmsghdr align;
};

static void give(int to, int fd, char tls)
{
    union control c = {{0}};
    struct iovec v = {&tls, 1};
    struct msghdr m = {
        .msg_iov = &v, .msg_iovlen = 1, .msg_control = &c, .msg_controllen = sizeof c};
    struct cmsghdr *h = CMSG_FIRSTHDR(&m);
    h->cmsg_level = SOL_SOCKET, h->cmsg_type = SCM_RIGHTS, h->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(h), &fd, sizeof fd);
    must(sendmsg(to, &m, 0) == 1);
    close(fd);
}

static bool receive(int from, int *fd, char *tls)
{
    union control c;
    struct iovec v = {tls, 1};
    struct msghdr m = {
        .msg_iov = &v, .msg_iovlen = 1, .msg_control = &c, .msg_controllen = sizeof c};
    if (recvmsg(from, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) != 1)
        return false;
    must(CMSG_FIRSTHDR(&m)); /* else: out of descriptors */
    memcpy(fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof *fd);
    return true;
}

static void on_control(struct op *op, int res)
{
    struct worker *w = container_of(op, struct worker, control);
    int fd;
    char tls;
    while (receive(w->control_fd, &fd, &tls))
        take(w, fd, tls);
    loop_poll(w->loop, &w->control, w->control_fd, POLLIN);
}

/* ---- processes ------------------------------------------------------------------------------- */

struct options {
    unsigned port, tls_port, workers, group;
    enum loop_choice loop;
    bool pin;
    const char *certificate, *key, *password;
};

/* As node.pin does it: the nth worker on the nth CPU that we may use. */
static void pin(unsigned nth)
{
    cpu_set_t mine, one;
    must(sched_getaffinity(0, sizeof mine, &mine) == 0);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &mine) || nth-- > 0)
            continue;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        must(sched_setaffinity(0, sizeof one, &one) == 0);
        return;
    }
}

static _Noreturn void work(const struct options *o, int control_fd, int certs,
                           const struct scram_keys *keys)
{
    static struct worker w;
    static const unsigned char secret[TLS_SECRET_SIZE];
    static struct clock clock;
    struct loop_config lc = {.choice = o->loop, .wake_fd = -1};
    struct loop_fault fault;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    must(loop_new(&lc, &fault, &w.loop) == ERR_OK);
    clock_real_init(&clock);
    entropy_real_init(&w.entropy);
    arena_init(&w.turn);
    struct tls_config tc = {.version_min = 0x0303,
                            .ticket_lifetime_s = TICKET_LIFETIME_S,
                            .secret = secret,
                            .clock = &clock};
    w.tls = tls_new(&tc);
    must(tls_take_certs(w.tls, certs) == ERR_OK);
    w.keys = keys, w.group = o->group;
    w.offer =
        (struct sasl_offer){.mechanisms = SASL_BIT(SASL_SCRAM_SHA_1) | SASL_BIT(SASL_SCRAM_SHA_256),
                            .host = STR("localhost"),
                            .iterations = ITERATIONS,
                            .secret = str_from(secret, sizeof secret),
                            .entropy = &w.entropy.entropy};
    w.control.done = on_control, w.control_fd = control_fd;
    list_init(&w.control.link);
    loop_poll(w.loop, &w.control, control_fd, POLLIN);
    for (;;) {
        loop_turn(w.loop, 60000);
        arena_reset(&w.turn);
    }
}

static int listen_on(unsigned port)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons((uint16_t)port),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    must(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* what is accepted inherits it */
    if (bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || listen(fd, BACKLOG) < 0) {
        perror("bench_limit: listen");
        exit(1);
    }
    return fd;
}

static void on_problem(void *ctx, str host, const char *file, const char *problem)
{
    fprintf(stderr, "bench_limit: %s: %s\n", file, problem);
}

static _Noreturn void distribute(const int listeners[2], const int *controls, unsigned workers)
{
    struct pollfd fds[2] = {{listeners[0], POLLIN, 0}, {listeners[1], POLLIN, 0}};
    for (;;) {
        must(poll(fds, 2, -1) > 0);
        for (int i = 0; i < 2; i++) {
            struct sockaddr_in peer;
            socklen_t n = sizeof peer;
            int fd = fds[i].revents
                         ? accept4(listeners[i], (struct sockaddr *)&peer, &n, SOCK_CLOEXEC)
                         : -1;
            if (fd >= 0)
                give(controls[(ntohl(peer.sin_addr.s_addr) >> 8 & 255) % workers], fd, (char)i);
        }
    }
}

static bool parse(struct options *o, int argc, char **argv)
{
    static const struct option options[] = {
        {"port", 1, 0, 'p'},        {"tls-port", 1, 0, 't'},
        {"certificate", 1, 0, 'c'}, {"key", 1, 0, 'k'},
        {"workers", 1, 0, 'w'},     {"loop", 1, 0, 'l'},
        {"password", 1, 0, 'W'},    {"group", 1, 0, 'g'},
        {"pin", 0, 0, 'P'},         {0},
    };
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;)
        switch (c) {
        case 'p': o->port = (unsigned)atoi(optarg); break;
        case 't': o->tls_port = (unsigned)atoi(optarg); break;
        case 'c': o->certificate = optarg; break;
        case 'k': o->key = optarg; break;
        case 'w': o->workers = (unsigned)atoi(optarg); break;
        case 'l': o->loop = strcmp(optarg, "epoll") ? LOOP_URING : LOOP_EPOLL; break;
        case 'W': o->password = optarg; break;
        case 'P': o->pin = true; break;
        case 'g': o->group = (unsigned)atoi(optarg); break;
        default: return false;
        }
    return optind == argc && o->port && o->tls_port && o->certificate && o->key && o->workers &&
           o->workers <= WORKERS_MAX && o->group >= 2;
}

int main(int argc, char **argv)
{
    struct options o = {
        .workers = 2, .group = 2, .loop = LOOP_URING, .password = "secret-password"};
    if (!parse(&o, argc, argv)) {
        fprintf(stderr,
                "usage: %s --port N --tls-port N --certificate FILE --key FILE "
                "[--workers N] [--loop io_uring|epoll] [--group ACCOUNTS] [--pin] "
                "[--password WORD]\n",
                argv[0]);
        return 2;
    }
    static struct scram_keys keys;
    struct entropy_real entropy;
    struct tls_pair pair = {STR("localhost"), o.certificate, o.key, 0, false};
    int certs, controls[WORKERS_MAX];
    int listeners[2] = {listen_on(o.port), listen_on(o.tls_port)};
    entropy_real_init(&entropy);
    scram_keys_make(str_of(o.password), ITERATIONS, &entropy.entropy, &keys);
    if (tls_certs_build(&pair, 1, on_problem, NULL, &certs) != ERR_OK)
        return 1;
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    signal(SIGPIPE, SIG_IGN);
    printf("ready");
    fflush(stdout);
    for (unsigned i = 0; i < o.workers; i++) {
        int ends[2];
        must(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends));
        pid_t pid = fork();
        must(pid >= 0);
        if (!pid) {
            if (o.pin)
                pin(i);
            work(&o, ends[1], certs, &keys);
        }
        close(ends[1]);
        controls[i] = ends[0];
        printf(" %d", pid);
    }
    printf("\n");
    fflush(stdout);
    distribute(listeners, controls, o.workers);
}
