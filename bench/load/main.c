/* pemberley-load: the load generator. One process, one loop, four scenarios:
 *
 *   login N     N sessions log in, --concurrent at a time: logins/s, server CPU per login
 *   idle N      N sessions stay: user-space memory of the server per session, from --baseline to N
 *   message P   P pairs send to each other's full JIDs, --window messages on the way per pair, for
 *               --seconds: messages/s, latency, server CPU per message; every body is checked
 *   ping N      N sessions ping the server (XEP-0199), --window on the way each: as message
 *
 * Accounts are <prefix>0 … with one password (bench/run makes them). What the server costs is taken
 * from the kernel: of the shards of --supervisor PID, or of the processes of --pids. RLIMIT_NOFILE
 * bounds the sessions of one process. */
#include <arpa/inet.h>
#include <getopt.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "bench/load/message.h"
#include "bench/load/ping.h"
#include "bench/load/server.h"

enum scenario { LOGIN, IDLE, MESSAGE, PING };
enum phase { OPENING, SETTLING, GROWING, SETTLED, WARMING, MEASURING, DRAINING, DONE };
enum { SETTLE_MS = 3000, WARM_MS = 1500, DRAIN_MS = 1500 };

struct load {
    struct rig rig;
    struct server server;
    enum scenario scenario;
    enum phase phase;
    unsigned count, opened, ready, target; /* sessions; target: of this phase */
    unsigned concurrent, users, window, baseline, seconds, stanza_bytes;
    bool json, server_known;
    struct client *clients;  /* login, idle, ping */
    struct pinger *pingers;  /* ping */
    struct pair *pairs;      /* message: clients 2i and 2i + 1 are of pair i */
    struct tally all, tally; /* tally: of the measured period */
    struct timer progress, step;
    uint64_t begin_us, end_us;
    double cpu_begin, cpu_end;
    uint64_t memory_begin, memory_end, private_begin, private_end;
    unsigned failures;
};

static struct load *load_of(const struct client *c)
{
    return container_of(c->rig, struct load, rig);
}
static uint64_t now_us(const struct load *l) { return loop_now_us(l->rig.loop); }

/* ---- sessions -------------------------------------------------------------------------------- */

static struct client *client_at(struct load *l, unsigned i)
{
    if (l->scenario != MESSAGE)
        return &l->clients[i];
    return i % 2 ? &l->pairs[i / 2].to : &l->pairs[i / 2].from;
}

static void open_more(struct load *l)
{
    while (l->opened < l->target && l->opened - l->ready < l->concurrent) {
        unsigned i = l->opened++;
        struct client *c = client_at(l, i);
        c->owner = l->scenario == MESSAGE ? &l->pairs[i / 2] : NULL;
        client_open(c, &l->rig, i, i % l->users, i / l->users);
    }
}

static void mark_begin(struct load *l)
{
    l->begin_us = now_us(l);
    l->cpu_begin = server_cpu_us(&l->server);
}

static void mark_end(struct load *l)
{
    l->end_us = now_us(l);
    l->cpu_end = server_cpu_us(&l->server);
}

static void phase_begin(struct load *l, enum phase p, uint64_t ms)
{
    l->phase = p;
    loop_timer_set(l->rig.loop, &l->step, ms);
}

static void send_first(struct load *l)
{
    for (unsigned i = 0; i < l->count; i++) {
        struct pair *p = &l->pairs[i];
        pair_init(p, i, client_jid(&p->to, &l->rig.turn), l->stanza_bytes);
        for (unsigned w = 0; w < l->window; w++)
            pair_send(p, &l->all, now_us(l));
    }
}

static void ping_first(struct load *l)
{
    for (unsigned i = 0; i < l->count; i++)
        for (unsigned w = 0; w < l->window; w++)
            pinger_send(&l->pingers[i], &l->clients[i], w, &l->all, now_us(l));
}

static void all_ready(struct load *l)
{
    switch (l->scenario) {
    case LOGIN:
        mark_end(l);
        l->phase = DONE;
        return;
    case IDLE: phase_begin(l, l->phase == OPENING ? SETTLING : SETTLED, SETTLE_MS); return;
    case MESSAGE:
        send_first(l);
        phase_begin(l, WARMING, WARM_MS);
        return;
    case PING:
        ping_first(l);
        phase_begin(l, WARMING, WARM_MS);
        return;
    }
}

static void on_ready(struct client *c)
{
    struct load *l = load_of(c);
    l->ready++;
    if (l->ready == l->target)
        all_ready(l);
    else
        open_more(l);
}

static void on_failed(struct client *c, const char *why)
{
    struct load *l = load_of(c);
    if (l->failures++ < 10)
        fprintf(stderr, "session %u (%s%u): %s\n", c->index, c->rig->prefix, c->user, why);
    l->phase = DONE;
}

static void on_answer(struct load *l, struct client *c, str item, const struct xml_index *x)
{
    struct pinger *p = &l->pingers[c->index];
    unsigned slot;
    if (pinger_take(p, &l->all, item, x, now_us(l), &slot) && l->phase < DRAINING)
        pinger_send(p, c, slot, &l->all, now_us(l));
}

static void on_stanza(struct client *c, str item, const struct xml_index *x)
{
    struct load *l = load_of(c);
    struct pair *p = c->owner;
    if (l->scenario == PING)
        return on_answer(l, c, item, x);
    if (!p || c != &p->to || !str_is(str_from(item.p + x->name_off, x->name_len), "message"))
        return;
    pair_take(p, &l->all, item, x, now_us(l));
    if (l->phase < DRAINING)
        pair_send(p, &l->all, now_us(l));
}

static const struct client_calls calls = {on_ready, on_stanza, on_failed};

/* ---- phases ---------------------------------------------------------------------------------- */

static void tally_begin(struct load *l) { l->tally = l->all; }

static void tally_end(struct load *l)
{
    struct tally *t = &l->tally;
    t->received = l->all.received - t->received;
    for (unsigned i = 0; i < LATENCY_CELLS; i++)
        t->latency[i] = l->all.latency[i] - t->latency[i];
}

static void on_step(struct timer *timer)
{
    struct load *l = container_of(timer, struct load, step);
    switch (l->phase) {
    case SETTLING:
        l->memory_begin = server_memory(&l->server);
        l->private_begin = server_private(&l->server);
        l->phase = GROWING;
        l->target = l->count;
        open_more(l);
        return;
    case SETTLED:
        l->memory_end = server_memory(&l->server);
        l->private_end = server_private(&l->server);
        l->phase = DONE;
        return;
    case WARMING:
        tally_begin(l);
        mark_begin(l);
        phase_begin(l, MEASURING, l->seconds * 1000ull);
        return;
    case MEASURING:
        mark_end(l);
        tally_end(l);
        phase_begin(l, DRAINING, DRAIN_MS);
        return;
    case DRAINING:
        for (unsigned i = 0; i < l->count; i++) {
            if (l->scenario == PING)
                pinger_end(&l->pingers[i], &l->all);
            else
                pair_end(&l->pairs[i], &l->all);
        }
        l->phase = DONE;
        return;
    default: return;
    }
}

static void on_progress(struct timer *timer)
{
    struct load *l = container_of(timer, struct load, progress);
    fprintf(stderr, "\r%u of %u sessions, %llu messages   ", l->ready, l->target,
            (unsigned long long)l->all.received);
    loop_timer_set(l->rig.loop, timer, 1000);
}

/* ---- results --------------------------------------------------------------------------------- */

static void row(const struct load *l, const char *name, double value, const char *unit)
{
    if (l->json)
        printf(",\"%s\":%.3f", name, value);
    else
        printf("%-24s %12.2f %s\n", name, value, unit);
}

static void print_message(const struct load *l, double seconds, double cpu)
{
    double n = (double)l->tally.received;
    bool ping = l->scenario == PING;
    row(l, ping ? "pings" : "messages", n, "");
    row(l, ping ? "pings_per_s" : "messages_per_s", n / seconds, "/s");
    row(l, "latency_p50_us", (double)tally_latency_us(&l->tally, 0.5), "us");
    row(l, "latency_p99_us", (double)tally_latency_us(&l->tally, 0.99), "us");
    if (l->server_known)
        row(l, "server_cpu_us", n ? cpu / n : 0, "us each");
    row(l, "lost", (double)l->all.lost, "");
    row(l, "duplicated", (double)l->all.duplicated, "");
    row(l, "reordered", (double)l->all.reordered, "");
    row(l, "damaged", (double)l->all.damaged, "");
}

static void print(const struct load *l)
{
    static const char *const names[] = {"login", "idle", "message", "ping"};
    static const char *const security[] = {"plain", "starttls", "tls"};
    double seconds = (double)(l->end_us - l->begin_us) / 1e6, cpu = l->cpu_end - l->cpu_begin;
    if (timer_is_set(&l->progress))
        fprintf(stderr, "\n");
    if (l->json)
        printf("{\"scenario\":\"%s\",\"security\":\"%s%s\",\"count\":%u", names[l->scenario],
               security[l->rig.security], l->rig.sm ? "+sm" : "", l->count);
    else
        printf("%s %u, %s%s\n", names[l->scenario], l->count, security[l->rig.security],
               l->rig.sm ? "+sm" : "");
    if (l->scenario == LOGIN) {
        row(l, "logins_per_s", l->count / seconds, "/s");
        if (l->server_known)
            row(l, "server_cpu_us", cpu / l->count, "us per login");
    } else if (l->scenario == IDLE) {
        double growth = (double)l->memory_end - (double)l->memory_begin;
        row(l, "baseline_bytes", (double)l->memory_begin, "bytes, all shards");
        row(l, "bytes_per_session", growth / (l->count - l->baseline), "bytes");
        growth = (double)l->private_end - (double)l->private_begin;
        row(l, "private_per_session", growth / (l->count - l->baseline), "bytes");
    } else {
        row(l, "window", l->window, "per pair");
        print_message(l, seconds, cpu);
    }
    printf(l->json ? "}\n" : "");
}

/* ---- start ----------------------------------------------------------------------------------- */

static int usage(void)
{
    fprintf(stderr,
            "usage: pemberley-load [options] login N | idle N | message PAIRS | ping N\n"
            "  --server ADDRESS  --port PORT  --host DOMAIN    127.0.0.1 5222 localhost\n"
            "  --security plain|starttls|tls                   starttls\n"
            "  --prefix NAME  --password WORD  --users N       accounts NAME0 … NAME<N-1>\n"
            "  --supervisor PID                                whose shards are measured\n"
            "  --pids PID,PID,…                                or these processes\n"
            "  --concurrent N                                  logins at a time, 32\n"
            "  --baseline N                                    idle: first sessions, 1000\n"
            "  --window N  --seconds N  --bytes N              message: 8, 5, 300 per stanza\n"
            "  --sm                                            with stream management\n"
            "  --loop io_uring|epoll  --json\n");
    return 2;
}

static bool parse_security(const char *s, enum security *out)
{
    static const char *const names[] = {"plain", "starttls", "tls"};
    for (unsigned i = 0; i < array_len(names); i++)
        if (!strcmp(s, names[i]))
            return *out = (enum security)i, true;
    return false;
}

static bool parse_address(struct load *l, const char *address, const char *port)
{
    struct sockaddr_in *in = (struct sockaddr_in *)&l->rig.server;
    in->sin_family = AF_INET;
    in->sin_port = htons((uint16_t)atoi(port));
    l->rig.server_len = sizeof *in;
    return inet_pton(AF_INET, address, &in->sin_addr) == 1;
}

static bool parse(struct load *l, enum loop_choice *loop, int argc, char **argv)
{
    static const struct option options[] = {
        {"server", 1, 0, 's'},   {"port", 1, 0, 'p'},       {"host", 1, 0, 'h'},
        {"security", 1, 0, 'S'}, {"prefix", 1, 0, 'n'},     {"password", 1, 0, 'w'},
        {"users", 1, 0, 'u'},    {"supervisor", 1, 0, 'P'}, {"concurrent", 1, 0, 'c'},
        {"baseline", 1, 0, 'b'}, {"window", 1, 0, 'W'},     {"seconds", 1, 0, 't'},
        {"bytes", 1, 0, 'B'},    {"loop", 1, 0, 'l'},       {"pids", 1, 0, 'i'},
        {"json", 0, 0, 'j'},     {"sm", 0, 0, 'm'},         {0},
    };
    const char *address = "127.0.0.1", *port = "5222";
    for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;)
        switch (o) {
        case 's': address = optarg; break;
        case 'p': port = optarg; break;
        case 'h': l->rig.host = optarg; break;
        case 'S':
            if (!parse_security(optarg, &l->rig.security))
                return false;
            break;
        case 'n': l->rig.prefix = optarg; break;
        case 'w': l->rig.password = optarg; break;
        case 'u': l->users = (unsigned)atoi(optarg); break;
        case 'P': l->server_known = server_find(&l->server, atoi(optarg)) > 0; break;
        case 'i': l->server_known = server_take(&l->server, optarg) > 0; break;
        case 'c': l->concurrent = (unsigned)atoi(optarg); break;
        case 'b': l->baseline = (unsigned)atoi(optarg); break;
        case 'W': l->window = (unsigned)atoi(optarg); break;
        case 't': l->seconds = (unsigned)atoi(optarg); break;
        case 'B': l->stanza_bytes = (unsigned)atoi(optarg); break;
        case 'l': *loop = strcmp(optarg, "epoll") ? LOOP_URING : LOOP_EPOLL; break;
        case 'j': l->json = true; break;
        case 'm': l->rig.sm = true; break;
        default: return false;
        }
    static const char *const names[] = {"login", "idle", "message", "ping"};
    if (optind + 2 != argc || !parse_address(l, address, port))
        return false;
    for (unsigned i = 0; i < array_len(names); i++)
        if (!strcmp(argv[optind], names[i])) {
            l->scenario = (enum scenario)i;
            l->count = (unsigned)atoi(argv[optind + 1]);
            return l->count > 0 && l->users > 0 && l->concurrent > 0 && l->window > 0 &&
                   l->window <= MESSAGE_WINDOW_MAX && l->stanza_bytes <= 65536;
        }
    return false;
}

static void set_up(struct load *l, enum loop_choice choice)
{
    struct rig *r = &l->rig;
    struct loop_config lc = {.choice = choice, .wake_fd = -1};
    struct loop_fault fault;
    static const unsigned char secret[TLS_SECRET_SIZE];
    must(loop_new(&lc, &fault, &r->loop) == ERR_OK);
    clock_real_init(&r->clock);
    entropy_real_init(&r->entropy);
    arena_init(&r->turn);
    r->scan = xml_scan_new();
    struct tls_config tc = {.version_min = 0x0303, .secret = secret, .clock = &r->clock};
    r->tls = tls_new(&tc);
    r->calls = &calls;
    r->presence = l->scenario != LOGIN;
    l->clients = calloc(l->count, sizeof *l->clients);
    l->pingers = calloc(l->count, sizeof *l->pingers);
    l->pairs = l->scenario == MESSAGE ? calloc(l->count, sizeof *l->pairs) : NULL;
    must(l->clients && l->pingers && (l->pairs || l->scenario != MESSAGE));
    timer_init(&l->progress, on_progress);
    timer_init(&l->step, on_step);
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
}

int main(int argc, char **argv)
{
    static struct load l = {
        .rig = {.host = "localhost",
                .prefix = "load",
                .password = "secret-password",
                .security = SECURITY_STARTTLS},
        .concurrent = 32,
        .users = UINT32_MAX,
        .window = 8,
        .baseline = 1000,
        .seconds = 5,
        .stanza_bytes = 300,
    };
    enum loop_choice choice = LOOP_AUTO;
    if (!parse(&l, &choice, argc, argv) || (l.scenario == IDLE && l.baseline >= l.count))
        return usage();
    set_up(&l, choice);
    l.target = l.scenario == IDLE ? l.baseline : l.scenario == MESSAGE ? 2 * l.count : l.count;
    if (isatty(STDERR_FILENO))
        loop_timer_set(l.rig.loop, &l.progress, 1000);
    loop_turn(l.rig.loop, 0); /* so that time is known */
    mark_begin(&l);
    open_more(&l);
    while (l.phase != DONE) {
        loop_turn(l.rig.loop, 1000);
        arena_reset(&l.rig.turn);
    }
    if (l.failures)
        return fprintf(stderr, "%u sessions failed\n", l.failures), 1;
    print(&l);
    return l.all.lost || l.all.duplicated || l.all.reordered || l.all.damaged;
}
