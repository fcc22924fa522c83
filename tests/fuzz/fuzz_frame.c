/* Frames as a broken peer might send them: frame_decode and channel_receive must not crash, and
 * what they accept must be the same after it was encoded again. */
#include "cluster/channel.h"
#include "proto/bus/frame.h"

#include <stdlib.h>

static volatile unsigned sum; /* so that the reads stay */

static void on_frame(void *ctx, struct origin from, const struct frame *f)
{
    struct arena *a = ctx;
    if (!f->stanza)
        return;
    /* Every place the index names can be read. */
    struct xml_el root = stanza_root(f->stanza, a);
    (void)root;
    str xml = stanza_xml(f->stanza);
    for (unsigned i = 0; i < f->stanza->index.nchild; i++) {
        const struct xml_child *c = &f->stanza->index.child[i];
        for (uint32_t k = 0; k < c->name_len; k++)
            sum += (unsigned char)xml.p[c->name_off + k];
    }
    for (size_t i = 0; i < stanza_to(f->stanza).n; i++)
        sum += (unsigned char)stanza_to(f->stanza).p[i];
}
static void on_settled(void *ctx, struct hold h, bool lost) {}
static void on_send(void *ctx, unsigned peer, const struct iovec *v, size_t n, bool later) {}
static void on_wake(void *ctx) {}

static void same_again(const char *p, size_t n, struct arena *a)
{
    struct frame f, g;
    uint64_t number, again;
    if (frame_decode(p, n, a, &f, &number))
        return;
    str bytes = frame_bytes(&f, number, a);
    err e = frame_decode(bytes.p, bytes.n, a, &g, &again);
    must(!e && again == number && g.kind == f.kind && g.sid == f.sid && g.seq == f.seq);
    must(str_eq(f.bare, g.bare) && f.recipient_count == g.recipient_count);
    stanza_unref(f.stanza);
    stanza_unref(g.stanza);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena a;
    arena_init(&a);
    if (size > 60000)
        return 0;
    char *exact = malloc(size ? size : 1); /* so that a byte too far is seen */
    memcpy(exact, data, size);
    same_again(exact, size, &a);
    struct channel_sinks sinks = {&a, on_frame, on_settled, on_send, on_wake};
    struct channels *c = channels_new(0, 2, &sinks);
    channel_peer_up(c, 1, 1);
    err e = channel_receive(c, 1, (str){exact, size});
    (void)e;
    channel_run(c);
    channels_free(c);
    arena_close(&a);
    free(exact);
    return 0;
}
