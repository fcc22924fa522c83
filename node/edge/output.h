/* output: the bytes a connection still has to write, in order, as pieces.
 *
 * Small things are copied behind each other into a tail buffer (copying 300 bytes costs 10 ns, one
 * more iovec and one more reference cost more, and a TLS record wants contiguous bytes anyway); a
 * large stanza is a piece of its own that refers to it, and so is the first of a batch, which is
 * likely to be the only one. An empty output holds no memory.
 *
 * pool: of who has many outputs, always the same one: for the few pieces that nearly all have. */
#ifndef PEMBERLEY_EDGE_OUTPUT_H
#define PEMBERLEY_EDGE_OUTPUT_H

#include <sys/uio.h>

#include "pemberley/buf.h"
#include "pemberley/pool.h"
#include "proto/xmpp/stanza.h"

enum {
    OUTPUT_COPY_MAX = 2048,   /* larger ones are referred to */
    OUTPUT_REFER_MIN = 128,   /* smaller ones are copied, also the first */
    OUTPUT_CHUNK = 4000,      /* of the tail buffer: with its header and malloc's below a page */
    OUTPUT_WRITE_MAX = 65536, /* bytes in one write */
};

struct piece {
    const char *p;
    struct buf *buf; /* one of these two owns p */
    struct stanza *stanza;
    uint32_t n;
    uint32_t outs; /* session stanzas that end in this piece */
};
struct output {
    struct pieces *pieces; /* NULL: nothing is to be written */
    uint32_t bytes;
};

static inline bool output_is_empty(const struct output *o) { return !o->pieces; }

void output_close(struct output *o, struct pool *pool);
void output_put(struct output *o, str bytes, struct pool *pool);
/* bytes lie within s, which is referred to if they are many. */
void output_put_stanza(struct output *o, struct stanza *s, str bytes, struct pool *pool);
/* A session stanza ends with what was put last. */
void output_mark_out(struct output *o);
/* Fills iov with the first bytes; returns the number of rows. */
size_t output_iov(const struct output *o, struct iovec *iov, size_t max);
/* The first n bytes were written; returns how many session stanzas ended in them. */
uint32_t output_taken(struct output *o, size_t n, struct pool *pool);

#endif
