/* Any bytes as requests to the worker: no crash, and exactly one reply each. Input: a length of two
 * bytes, then that many bytes of one request, and so on; one batch. */
#include <stdio.h>
#include <stdlib.h>

#include "node/store/store.h"
#include "proto/bus/store.pb-c.h"

struct target {
    struct store_port port;
    struct log log;
    struct store_worker *worker;
    size_t replies;
};

static void on_reply(struct store_port *port, unsigned peer, const char *p, size_t n)
{
    Store__Reply *r = store__reply__unpack(NULL, n, (const uint8_t *)p);
    must(r);
    store__reply__free_unpacked(r, NULL);
    container_of(port, struct target, port)->replies++;
}

static void no_log(struct log *l, enum log_event e, enum log_level level, const struct log_field *f,
                   size_t n)
{
}

/* The worker stays from input to input: what earlier ones wrote is what later ones meet. */
static void open_target(struct target *t)
{
    struct store_worker_options o = {.path = ":memory:", .batch_max = 256};
    char why[256];
    t->port.reply = on_reply;
    t->log.write = no_log;
    must(store_worker_open(&o, &t->port, &t->log, why, sizeof why, &t->worker) == ERR_OK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct target t;
    if (!t.worker)
        open_target(&t);
    size_t sent = 0;
    while (size >= 2) {
        size_t n = data[0] | (size_t)data[1] << 8;
        data += 2, size -= 2;
        n = n < size ? n : size;
        store_worker_on_request(t.worker, (unsigned)sent++, (const char *)data, n);
        data += n, size -= n;
    }
    t.replies = 0;
    while (store_worker_run(t.worker))
        ;
    must(t.replies == sent);
    return 0;
}
