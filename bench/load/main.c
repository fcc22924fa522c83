/* pemberley-load: the command line; load.h says what is behind it. Accounts are <prefix>0 … with
 * one password (bench/run makes them). What the server costs is taken from the kernel: of the
 * shards of --supervisor PID, or of the processes of --pids. */
#include <arpa/inet.h>
#include <getopt.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "bench/load/load.h"

enum { SPARE_FILES = 256, BYTES_MAX = 65536 };

static const struct scenario *const scenarios[] = {
#define SCENARIO(name) &scenario_##name,
#include "bench/load/scenarios.def"
#undef SCENARIO
};

unsigned scenario_one(const struct plan *p) { return 1; }
unsigned scenario_two(const struct plan *p) { return 2; }

double outcome_seconds(const struct outcome *o, unsigned step)
{
    return (double)(o->at[step + 1].us - o->at[step].us) / 1e6;
}

double outcome_cpu_us(const struct outcome *o, unsigned step)
{
    return o->at[step + 1].cpu_us - o->at[step].cpu_us;
}

static int usage(void)
{
    fprintf(stderr, "usage: pemberley-load [options] SCENARIO N\n\n");
    for (unsigned i = 0; i < array_len(scenarios); i++)
        fprintf(stderr, "  %-9s %s\n", scenarios[i]->name, scenarios[i]->says);
    fprintf(stderr,
            "\n"
            "  --server ADDRESS,…  --port PORT  --host DOMAIN  127.0.0.1 5222 localhost\n"
            "  --security plain|starttls|tls                   starttls\n"
            "  --mechanism SCRAM-SHA-1|-256|-512               SCRAM-SHA-256\n"
            "  --prefix NAME  --password WORD  --users N       accounts NAME0 … NAME<N-1>\n"
            "  --sm                                            with stream management\n"
            "  --tickets                                       reconnects resume the TLS session\n"
            "  --supervisor PID                                whose shards are measured\n"
            "  --pids PID,PID,…                                or these processes\n"
            "  --processes P                                   as many as descriptors ask for\n"
            "  --sources ADDRESS[+K]                           fresh ones of 127.0.0.0/8\n"
            "  --concurrent N                                  logins at a time, 32\n"
            "  --timeout SECONDS                               for a step that waits, 120\n"
            "  --seconds N  --bytes N  --window N              5, 300 per stanza, 8\n"
            "  --baseline N                                    idle: first sessions, 1000\n"
            "  --rate R                                        rate: messages/s in all, 1000\n"
            "  --roster R  --burst K  --prepare                presence: 20, 1; makes rosters\n"
            "  --messages M                                    offline: 20, slow: 20000; per pair\n"
            "  --jitter MS                                     resume, storm: reconnect within, 0\n"
            "  --kill PID,PID,…                                …: so the first server dies\n"
            "  --stalled K                                     slow: pairs that stall, a tenth\n"
            "  --loop io_uring|epoll  --json\n");
    return 2;
}

/* ---- options --------------------------------------------------------------------------------- */

/* Index of the word, or -1. */
static int find(const char *word, const char *const *words, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        if (!strcmp(word, words[i]))
            return (int)i;
    return -1;
}

static bool parse_security(const char *s, enum security *out)
{
    static const char *const names[] = {"plain", "starttls", "tls"};
    int i = find(s, names, array_len(names));
    *out = (enum security)i;
    return i >= 0;
}

static bool parse_mechanism(const char *s, enum scram_hash *out)
{
    static const char *const names[] = {"SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512"};
    int i = find(s, names, array_len(names));
    *out = (enum scram_hash)i;
    return i >= 0;
}

/* One or several, with commas between: the nodes of a cluster. */
static bool parse_servers(struct rig *r, char *addresses, const char *port)
{
    char *rest = addresses;
    for (char *one; (one = strsep(&rest, ","));) {
        if (r->servers_n == RIG_SERVERS_MAX)
            return false;
        struct sockaddr_in *in = &r->servers[r->servers_n++];
        in->sin_family = AF_INET;
        in->sin_port = htons((uint16_t)atoi(port));
        if (inet_pton(AF_INET, one, &in->sin_addr) != 1)
            return false;
    }
    return true;
}

static const struct scenario *find_scenario(const char *name)
{
    for (unsigned i = 0; i < array_len(scenarios); i++)
        if (!strcmp(scenarios[i]->name, name))
            return scenarios[i];
    return NULL;
}

enum choice {
    OPT_SERVER,
    OPT_PORT,
    OPT_HOST,
    OPT_SECURITY,
    OPT_MECHANISM,
    OPT_PREFIX,
    OPT_PASSWORD,
    OPT_SUPERVISOR,
    OPT_PIDS,
    OPT_KILL,
    OPT_SOURCES,
    OPT_RATE,
    OPT_LOOP,
    OPT_SM,
    OPT_TICKETS,
    OPT_PREPARE,
    OPT_JSON,
    OPT_NUMBERS, /* and on: rows of numbers[] */
};

struct number {
    const char *name;
    size_t at; /* of an unsigned in struct plan */
    unsigned least, most;
};
#define NUMBER(name, least, most) \
    { \
#name, offsetof(struct plan, name), least, most \
    }
static const struct number numbers[] = {
    NUMBER(users, 1, UINT32_MAX),
    NUMBER(concurrent, 1, 100000),
    NUMBER(processes, 1, PROCESSES_MAX),
    NUMBER(baseline, 0, UINT32_MAX),
    NUMBER(window, 1, WINDOW_MAX),
    NUMBER(seconds, 1, 86400),
    {"bytes", offsetof(struct plan, stanza_bytes), 0, BYTES_MAX},
    {"timeout", offsetof(struct plan, timeout_s), 1, 86400},
    NUMBER(roster, 1, 10000),
    NUMBER(burst, 1, 1000),
    NUMBER(messages, 1, 1000000),
    NUMBER(stalled, 1, UINT32_MAX),
    {"jitter", offsetof(struct plan, jitter_ms), 0, 3600000},
};

static bool take_number(struct plan *p, const struct number *n, const char *value)
{
    char *end;
    unsigned long v = strtoul(value, &end, 10);
    if (*end || end == value || v < n->least || v > n->most)
        return fprintf(stderr, "--%s: %u to %u\n", n->name, n->least, n->most), false;
    *(unsigned *)((char *)p + n->at) = (unsigned)v;
    return true;
}

struct words { /* options that are looked at when all are known */
    char *addresses;
    const char *port;
};

static bool take_option(struct plan *p, struct words *w, int o)
{
    switch (o) {
    case OPT_SERVER: w->addresses = optarg; return true;
    case OPT_PORT: w->port = optarg; return true;
    case OPT_HOST: p->rig.host = optarg; return true;
    case OPT_SECURITY: return parse_security(optarg, &p->rig.security);
    case OPT_MECHANISM: return parse_mechanism(optarg, &p->rig.mechanism);
    case OPT_PREFIX: p->rig.prefix = optarg; return true;
    case OPT_PASSWORD: p->rig.password = optarg; return true;
    case OPT_SUPERVISOR: p->server_known = server_find(&p->server, atoi(optarg)) > 0; return true;
    case OPT_PIDS: p->server_known = server_take(&p->server, optarg) > 0; return true;
    case OPT_KILL: return server_take(&p->victim, optarg) > 0;
    case OPT_SOURCES: return sources_parse(&p->rig.sources, optarg);
    case OPT_RATE: return (p->rate = atof(optarg)) > 0;
    case OPT_LOOP: p->loop = strcmp(optarg, "epoll") ? LOOP_URING : LOOP_EPOLL; return true;
    case OPT_SM: return p->rig.sm = true;
    case OPT_TICKETS: return p->rig.tickets = true;
    case OPT_PREPARE: return p->prepare = true;
    case OPT_JSON: return p->json = true;
    default:
        return o >= OPT_NUMBERS && o < OPT_NUMBERS + (int)array_len(numbers) &&
               take_number(p, &numbers[o - OPT_NUMBERS], optarg);
    }
}

static bool parse(struct plan *p, int argc, char **argv)
{
    struct option options[OPT_NUMBERS + array_len(numbers) + 1] = {
        {"server", 1, 0, OPT_SERVER},       {"port", 1, 0, OPT_PORT},
        {"host", 1, 0, OPT_HOST},           {"security", 1, 0, OPT_SECURITY},
        {"mechanism", 1, 0, OPT_MECHANISM}, {"prefix", 1, 0, OPT_PREFIX},
        {"password", 1, 0, OPT_PASSWORD},   {"supervisor", 1, 0, OPT_SUPERVISOR},
        {"pids", 1, 0, OPT_PIDS},           {"kill", 1, 0, OPT_KILL},
        {"sources", 1, 0, OPT_SOURCES},     {"rate", 1, 0, OPT_RATE},
        {"loop", 1, 0, OPT_LOOP},           {"sm", 0, 0, OPT_SM},
        {"tickets", 0, 0, OPT_TICKETS},     {"prepare", 0, 0, OPT_PREPARE},
        {"json", 0, 0, OPT_JSON},
    };
    char here[] = "127.0.0.1";
    struct words w = {.addresses = here, .port = "5222"};
    for (unsigned i = 0; i < array_len(numbers); i++)
        options[OPT_NUMBERS + i] = (struct option){numbers[i].name, 1, 0, OPT_NUMBERS + (int)i};
    for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;)
        if (!take_option(p, &w, o))
            return false;
    if (optind + 2 != argc || !parse_servers(&p->rig, w.addresses, w.port))
        return false;
    p->scenario = find_scenario(argv[optind]);
    p->count = (unsigned)strtoul(argv[optind + 1], NULL, 10);
    return p->scenario && p->count > 0;
}

/* ---- the plan -------------------------------------------------------------------------------- */

static bool complete(struct plan *p)
{
    struct entropy_real e;
    struct rlimit files;
    entropy_real_init(&e);
    p->run = (uint32_t)entropy_u64(&e.entropy);
    if (p->rig.sources.count == 0)
        sources_fresh(&p->rig.sources, p->run);
    p->rig.presence = p->scenario->presence;
    p->rig.sm |= p->scenario->sm;
    must(getrlimit(RLIMIT_NOFILE, &files) == 0);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    if (files.rlim_cur <= SPARE_FILES)
        return fprintf(stderr, "pemberley-load: RLIMIT_NOFILE is too low\n"), false;
    uint64_t sockets = (uint64_t)p->count * p->scenario->clients(p) * (1 + p->scenario->reconnects);
    uint64_t each = files.rlim_cur - SPARE_FILES;
    uint64_t least = (sockets + each - 1) / each;
    if (p->processes < least)
        p->processes = (unsigned)least;
    if (p->processes > PROCESSES_MAX)
        return fprintf(stderr, "pemberley-load: %u processes at most\n", PROCESSES_MAX), false;
    return true;
}

int main(int argc, char **argv)
{
    static struct plan p = {
        .rig = {.host = "localhost",
                .prefix = "load",
                .password = "secret-password",
                .security = SECURITY_STARTTLS,
                .mechanism = SCRAM_SHA256},
        .concurrent = 32,
        .processes = 1,
        .users = UINT32_MAX,
        .window = 8,
        .baseline = 1000,
        .seconds = 5,
        .stanza_bytes = 300,
        .timeout_s = 120,
        .rate = 1000,
        .roster = 20,
        .burst = 1,
    };
    static struct outcome outcome;
    if (!parse(&p, argc, argv) || !complete(&p))
        return usage();
    if (p.victim.shards && (!p.scenario->reconnects || p.rig.servers_n < 2))
        return fprintf(stderr, "pemberley-load: --kill: resume or storm, with another --server\n"),
               2;
    if (p.scenario == &scenario_idle && p.baseline >= p.count)
        return fprintf(stderr, "pemberley-load: idle: N is not above --baseline\n"), 2;
    if (!processes_run(&p, &outcome))
        return 1;
    report_print(&outcome);
    const struct faults *f = &outcome.tally.faults;
    return f->lost || f->duplicated || f->reordered || f->damaged;
}
