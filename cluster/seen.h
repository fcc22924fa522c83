/* seen: what a home has handled lately, so that a stanza that comes again has no second effect
 * (delivery.md 5.4). Exact: per sender session, lane and addressee the last 256 ordinals as bits,
 * the width of a sender's window: an older one cannot be on its way any more (unsafe_max).
 *
 * A row lives for SEEN_MS after its last use. When a sender's home dies, its sessions' rows are
 * pinned: their clients may come back as late as resume_timeout and send again. Beyond max rows the
 * oldest goes, pinned ones last; that is counted. */
#ifndef PEMBERLEY_SEEN_H
#define PEMBERLEY_SEEN_H

#include "cluster/ring.h"
#include "pemberley/hash.h"
#include "pemberley/list.h"
#include "proto/bus/frame.h"

enum { SEEN_MS = 60000, SEEN_WIDTH = 256 };

struct seen {
    struct htable rows;
    struct list by_use; /* the oldest first */
    size_t max;
    uint64_t dropped;
};

void seen_init(struct seen *s, size_t max);
void seen_close(struct seen *s);
/* to: a hash of the addressee. True: it was noted before, and (as far as fingerprints are kept) is
 * the same stanza; a client that sends another one under an old number means a new one. */
bool seen_note(struct seen *s, struct uid uid, uint64_t to, unsigned slot, uint32_t fp,
               uint64_t now_ms);
/* Rows of senders for whose slot wanted() holds stay until then. */
void seen_pin(struct seen *s, ring_wanted_f *wanted, const void *ctx, uint64_t until_ms);
/* Addressees of these slots: their home is another, and what is forgotten with them was not handled
 * as far as that one knows. */
void seen_forget(struct seen *s, ring_wanted_f *wanted, const void *ctx);
void seen_sweep(struct seen *s, uint64_t now_ms);
size_t seen_bytes(const struct seen *s);

#endif
