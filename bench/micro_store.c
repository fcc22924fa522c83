/* micro_store: how many offline messages a second the store commits, by size of the batch. Run with
 * the path of a database to be made (on the disk in question), :memory:, or postgres:HOST (a
 * socket's directory; role pemberley, database postgres) and how many connections. CPU is this
 * process's. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "node/store/store.h"
#include "proto/bus/store.pb-c.h"

enum { USERS = 1000, STANZA = 300, RUN_MS = 2000 };

struct bench {
    struct store_port port;
    struct log log;
    unsigned results[16];
};

static void on_reply(struct store_port *port, unsigned peer, const char *p, size_t n)
{
    struct bench *b = container_of(port, struct bench, port);
    Store__Reply *r = store__reply__unpack(NULL, n, (const uint8_t *)p);
    must(r);
    b->results[r->result & 15]++;
    store__reply__free_unpacked(r, NULL);
}

static void no_log(struct log *l, enum log_event e, enum log_level level, const struct log_field *f,
                   size_t n)
{
}

static double seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void send_request(struct store_worker *w, Store__Request *q)
{
    uint8_t packed[1024];
    must(store__request__get_packed_size(q) <= sizeof packed);
    size_t n = store__request__pack(q, packed);
    store_worker_on_request(w, 0, (const char *)packed, n);
}

static ProtobufCBinaryData bytes(const void *p, size_t n)
{
    return (ProtobufCBinaryData){n, (uint8_t *)p};
}

static void run_all(struct store_worker *w)
{
    struct pollfd fds[STORE_FDS_MAX];
    while (store_worker_queued(w) > 0) {
        if (store_worker_run(w) || store_worker_queued(w) == 0)
            continue;
        size_t n = store_worker_fds(w, fds, STORE_FDS_MAX);
        poll(fds, n, store_worker_wait_ms(w, 1000));
    }
}

static void add_users(struct store_worker *w)
{
    for (unsigned i = 0; i < USERS; i++) {
        char jid[32];
        Store__AccountAdd add = STORE__ACCOUNT_ADD__INIT;
        Store__Request q = STORE__REQUEST__INIT;
        q.owner = bytes(jid, (size_t)snprintf(jid, sizeof jid, "user%u@localhost", i));
        q.op_case = STORE__REQUEST__OP_ACCOUNT_ADD;
        q.account_add = &add;
        send_request(w, &q);
    }
    run_all(w);
}

static void put(struct store_worker *w, uint64_t uid)
{
    static char stanza[STANZA];
    char jid[32];
    Store__OfflinePut m = STORE__OFFLINE_PUT__INIT;
    Store__Request q = STORE__REQUEST__INIT;
    q.owner = bytes(jid, (size_t)snprintf(jid, sizeof jid, "user%u@localhost",
                                          (unsigned)(uid * 2654435761u % USERS)));
    m.uid = bytes(&uid, sizeof uid);
    m.stanza = bytes(stanza, sizeof stanza);
    q.op_case = STORE__REQUEST__OP_OFFLINE_PUT;
    q.offline_put = &m;
    send_request(w, &q);
}

static struct store_postgres postgres_of(const char *const *host, unsigned connections)
{
    return (struct store_postgres){
        .open = store_postgres_open,
        .hosts = host,
        .hosts_n = 1,
        .database = "postgres",
        .user = "pemberley",
        .password_file = "",
        .tls = STORE_TLS_OFF,
        .ca_file = "",
        .connections = connections,
        .node = "bench",
        .timeout_ms = 10000,
    };
}

int main(int argc, char **argv)
{
    if (argc < 2 || argc > 3) {
        fprintf(stderr, "usage: %s PATH|:memory:|postgres:HOST [CONNECTIONS]\n", argv[0]);
        return 2;
    }
    struct bench b = {.port.reply = on_reply, .log = {.write = no_log}};
    const char *host = strncmp(argv[1], "postgres:", 9) == 0 ? argv[1] + 9 : NULL;
    struct store_postgres postgres = postgres_of(&host, argc > 2 ? (unsigned)atoi(argv[2]) : 1);
    struct store_worker_options o = {
        .path = argv[1], .sync_full = true, .batch_max = 1024, .postgres = host ? &postgres : NULL};
    struct store_worker *w;
    char why[512];
    if (store_worker_open(&o, &b.port, &b.log, why, sizeof why, &w) != ERR_OK) {
        fprintf(stderr, "%s\n", why);
        return 1;
    }
    add_users(w);
    uint64_t uid = 0;
    static const unsigned batches[] = {1, 8, 64, 256};
    printf("%8s %10s %12s\n", "batch", "rows/s", "CPU us/row");
    for (size_t i = 0; i < array_len(batches); i++) {
        double start = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
        uint64_t first = uid;
        while (seconds(CLOCK_MONOTONIC) - start < RUN_MS / 1e3) {
            for (unsigned k = 0; k < batches[i]; k++)
                put(w, ++uid);
            run_all(w);
        }
        double rows = (double)(uid - first);
        printf("%8u %10.0f %12.1f\n", batches[i], rows / (seconds(CLOCK_MONOTONIC) - start),
               (seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu) / rows * 1e6);
    }
    printf("ok %u, disk full %u, other %u\n", b.results[STORE__RESULT__OK],
           b.results[STORE__RESULT__DISK_FULL],
           (unsigned)(uid + USERS) - b.results[STORE__RESULT__OK] -
               b.results[STORE__RESULT__DISK_FULL]);
    store_worker_close(w);
    return 0;
}
