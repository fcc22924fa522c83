#include "node/store/trim.h"

#include <stdlib.h>

#include "proto/bus/store.pb-c.h"

enum {
    ACCOUNTS = 100, /* in a slice */
    ROWS = 200,     /* … removed: some milliseconds */
    PAUSE_MS = 20,  /* between two slices */
    PASS_MS = 600000,
};

static void ask(struct trimmer *t, struct store_worker *w, const struct conf *c,
                const struct conf_host *host, int64_t wall_us)
{
    Store__Request q = STORE__REQUEST__INIT;
    Store__ArchiveTrim op = STORE__ARCHIVE_TRIM__INIT;
    str domain = conf_text(c, host->domain);
    op.host = (ProtobufCBinaryData){domain.n, (uint8_t *)domain.p};
    op.after = (ProtobufCBinaryData){t->after_n, (uint8_t *)t->after};
    op.accounts = ACCOUNTS, op.limit = ROWS;
    if (host->archive_retention && wall_us > host->archive_retention * 1000)
        op.before_us = wall_us - host->archive_retention * 1000;
    op.count_max = host->archive_max;
    q.op_case = STORE__REQUEST__OP_ARCHIVE_TRIM, q.archive_trim = &op;
    size_t n = store__request__get_packed_size(&q);
    uint8_t *p = malloc(n);
    must(p);
    store__request__pack(&q, p);
    store_worker_on_request(w, TRIM_PEER, (const char *)p, n);
    free(p);
    t->asked = true;
}

void trim_turn(struct trimmer *t, struct store_worker *w, const struct conf *c, uint64_t now_ms,
               int64_t wall_us)
{
    if (t->asked || now_ms < t->next_ms)
        return;
    if (t->host < c->host_count) {
        ask(t, w, c, conf_host_at(c, t->host), wall_us);
        return;
    }
    t->host = 0;
    t->next_ms = now_ms + PASS_MS;
}

/* A slice of which there is more is taken again. */
static void go_on(struct trimmer *t, const Store__ArchiveTrimmed *done)
{
    if (done->removed >= ROWS || done->removed_gone >= ROWS)
        return;
    if (!done->last.len || done->last.len > sizeof t->after) {
        t->host++, t->after_n = 0;
        return;
    }
    t->after_n = done->last.len;
    memcpy(t->after, done->last.data, t->after_n);
}

void trim_on_reply(struct trimmer *t, const char *p, size_t n, uint64_t now_ms)
{
    Store__Reply *r = store__reply__unpack(NULL, n, (const uint8_t *)p);
    must(r);
    t->asked = false;
    t->next_ms = now_ms + PAUSE_MS;
    if (r->result == STORE__RESULT__OK && r->body_case == STORE__REPLY__BODY_ARCHIVE_TRIMMED)
        go_on(t, r->archive_trimmed);
    else
        t->next_ms = now_ms + PASS_MS; /* the database has other worries */
    store__reply__free_unpacked(r, NULL);
}

int trim_wait_ms(const struct trimmer *t, uint64_t now_ms, int ms)
{
    if (t->asked)
        return ms;
    uint64_t left = t->next_ms > now_ms ? t->next_ms - now_ms : 0;
    return left < (uint64_t)ms ? (int)left : ms;
}
