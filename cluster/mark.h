/* mark: what a holder remembers of a stanza that it has let go of, so that it is known when it
 * comes again (delivery.md 1, 5.4). An edge has given a message to its client and been told so; its
 * home dies before it has said so to the sender's home, which sends it again to the new home: only
 * the edge knows that it must not be stored. So each edge keeps its last marks, for all sessions
 * together (a session that is idle pays nothing), and tells them to the new home before the barrier
 * opens.
 *
 * A stanza may have several addressees under one uid: a mark is of one of them, by the slot of its
 * account, and of one of its sessions. */
#ifndef PEMBERLEY_MARK_H
#define PEMBERLEY_MARK_H

#include "pemberley/arena.h"
#include "pemberley/hash.h"
#include "proto/bus/frame.h"

struct mark {
    struct uid uid;
    uint64_t sid; /* of the session whose client has it: the slot of its account, and some bits */
    uint32_t fp;  /* stanza_fp: a client may go on with another one under an old uid */
    uint64_t ms;  /* when it was let go of */
};

/* The last ones, the oldest overwritten. Memory is taken with the first. */
/* Older ones are of no use: routes wait 20 s at most. */
enum { MARKS_MAX = 16384, MARKS_MS = 60000 };
struct packed_mark; /* mark.c */
struct marks {
    struct packed_mark *ring;
    uint64_t count;   /* ever put */
    uint64_t dropped; /* overwritten although younger than MARKS_MS */
};
void marks_put(struct marks *m, struct mark mark);
/* Those of slots for which wanted() holds and that are young enough, as bytes for a frame; from *at
 * on, which moves (start with 0), as many as fit a frame. Empty: no more. */
typedef bool mark_wanted_f(const void *ctx, unsigned slot);
str marks_encode(const struct marks *m, uint64_t *at, mark_wanted_f *wanted, const void *ctx,
                 uint64_t now_ms, struct arena *a);
size_t marks_bytes(const struct marks *m);
void marks_close(struct marks *m);

/* At a new home: what it was told. */
struct mark_set {
    struct htable table; /* zeroed: empty */
};
void mark_set_add(struct mark_set *s, str bytes);
void mark_set_put(struct mark_set *s, struct mark mark);
/* A client of an account of that slot has it; that of this session has. */
bool mark_set_has(const struct mark_set *s, struct uid uid, unsigned slot, uint32_t fp);
bool mark_set_has_of(const struct mark_set *s, struct uid uid, uint64_t sid, uint32_t fp);
/* Those of accounts in slots for which wanted() holds, as bytes for frames. */
typedef void mark_tell_f(void *ctx, str bytes);
void mark_set_tell(const struct mark_set *s, mark_wanted_f *wanted, const void *wanted_ctx,
                   struct arena *a, mark_tell_f *tell, void *ctx);
void mark_set_clear(struct mark_set *s);

#endif
