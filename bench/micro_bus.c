/* micro_bus: the frames between shards, encoded and decoded: the three of a message's way (in,
 * route, out) with a stanza of 300 bytes behind the header, a broadcast to 100 recipients, an ack.
 * The stanza's block is not in "encoded": it is sent from where it lies; making a stanza of it (one
 * malloc) and letting it go is in "decoded". */
#include "bench/micro.h"

#include <stdio.h>
#include <stdlib.h>

#include "pemberley/must.h"
#include "proto/bus/frame.h"

enum { RECIPIENTS = 100, STANZA_BYTES = 300 };

struct bench {
    struct frame frame;
    struct arena arena, kept;
    str wire; /* the frame, encoded; in kept */
};

static double encoded(void *ctx, size_t times)
{
    struct bench *b = ctx;
    double from = micro_ns();
    for (size_t i = 0; i < times; i++) {
        struct iovec v[FRAME_PARTS];
        micro_use(frame_encode(&b->frame, 1000000 + i, &b->arena, v) + v[0].iov_len);
        arena_reset(&b->arena);
    }
    return micro_ns() - from;
}

static double decoded(void *ctx, size_t times)
{
    struct bench *b = ctx;
    double from = micro_ns();
    for (size_t i = 0; i < times; i++) {
        struct frame f;
        uint64_t number;
        must(frame_decode(b->wire.p, b->wire.n, &b->arena, &f, &number) == ERR_OK);
        micro_use(f.sid + number);
        stanza_unref(f.stanza);
        arena_reset(&b->arena);
    }
    return micro_ns() - from;
}

static struct stanza *make_message(void)
{
    static const char head[] = "<message from='alice@localhost/r0' to='bob@localhost/r0' "
                               "type='chat' id='load-1'><body>",
                      tail[] = "</body></message>";
    char xml[STANZA_BYTES + 1];
    struct arena a;
    struct xml_scan *scan = xml_scan_new();
    memset(xml, 'x', STANZA_BYTES);
    memcpy(xml, head, sizeof head - 1);
    memcpy(xml + STANZA_BYTES - (sizeof tail - 1), tail, sizeof tail - 1);
    arena_init(&a);
    struct stanza *s = stanza_make(scan, str_from(xml, STANZA_BYTES), &a);
    must(s);
    arena_close(&a);
    xml_scan_free(scan);
    return s;
}

static struct bench *bench_of(struct frame f)
{
    struct bench *b = calloc(1, sizeof *b);
    must(b);
    b->frame = f;
    b->frame.us = 1795360000000000;
    arena_init(&b->arena);
    arena_init(&b->kept);
    b->wire = frame_bytes(&b->frame, 1000000, &b->kept);
    return b;
}

int main(int argc, char **argv)
{
    static str recipients[RECIPIENTS];
    static char text[RECIPIENTS][32];
    static const uint64_t ranges[] = {120, 140, 150, 150};
    struct stanza *message = make_message();
    const struct frame id = {.sid = 0x1234567890abcdef, .gen = 3, .fp = 0xabcdef01};
    for (unsigned i = 0; i < RECIPIENTS; i++)
        recipients[i] = str_from(text[i], (size_t)sprintf(text[i], "contact%u@localhost", i));
    struct frame in = id, route = id, out = id, wide,
                 ack = {.kind = FRAME_ACK, .ack_upto = 1 << 20};
    in.kind = FRAME_IN, in.ord = 70000, in.stanza = message;
    route.kind = FRAME_ROUTE, route.ord = 70000, route.lane = 0, route.stanza = message;
    out.kind = FRAME_OUT, out.seq = 70000, out.conn = id.sid, out.stanza = message;
    wide = route, wide.recipients = recipients, wide.recipient_count = RECIPIENTS;
    ack.ack_ranges = ranges, ack.ack_range_count = array_len(ranges);
    struct bench *b[] = {bench_of(in), bench_of(route), bench_of(out), bench_of(wide),
                         bench_of(ack)};
    struct micro_case cases[] = {
        {"in, 300 bytes: encoded", encoded, b[0], 0},
        {"in, 300 bytes: decoded", decoded, b[0], 0},
        {"route: encoded", encoded, b[1], 0},
        {"route: decoded", decoded, b[1], 0},
        {"out: encoded", encoded, b[2], 0},
        {"out: decoded", decoded, b[2], 0},
        {"route to 100: encoded", encoded, b[3], 0},
        {"route to 100: decoded", decoded, b[3], 0},
        {"ack with 2 ranges: encoded", encoded, b[4], 0},
        {"ack with 2 ranges: decoded", decoded, b[4], 0},
    };
    micro_run(cases, array_len(cases), argc, argv);
    for (size_t i = 0; i < array_len(b); i++) {
        arena_close(&b[i]->arena);
        arena_close(&b[i]->kept);
        free(b[i]);
    }
    stanza_unref(message);
    return 0;
}
