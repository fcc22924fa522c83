/* copy: what a shard keeps of sessions that are not its own, for the day on which their home dies
 * (delivery.md 1: the secondary). Three come here in the same form:
 *
 *   - the queue of a session whose connection this edge had (copies_take), until the home says that
 *     another holds it;
 *   - a session whose home this shard was, until its new home has another holder (of another
 *     domain than its own);
 *   - a session whose edge and home are one domain: SNAP begins it, MIRROR, STATE and NOTE keep it
 *     what its home is. It is held when the frame is acked.
 *
 * When the slots of a home have gone to another, everything of them is attached there (ATTACH, then
 * QUEUED per stanza); a copy itself ends only by DROP: make before break. (sid, gen) names one: an
 * attachment that comes back must not be killed by what was meant for its predecessor
 * (delivery.md 10, 15). */
#ifndef PEMBERLEY_COPY_H
#define PEMBERLEY_COPY_H

#include "cluster/channel.h"
#include "cluster/mark.h"
#include "cluster/outs.h"
#include "cluster/ring.h"
#include "cluster/snap.h"
#include "cluster/window.h"
#include "pemberley/buf.h"
#include "pemberley/loop.h"

/* ATTACH and QUEUED frames to a new home. */
struct attaching {
    struct snap snap;  /* in_ord with it; what is acked and queued stands below */
    struct outs *outs; /* the first has seq acked + 1 */
    uint64_t acked;
    uint32_t flags;          /* FRAME_LIVE, FRAME_ENDED */
    const struct window *in; /* what of in_ord is safe; NULL: all */
};
void copy_attach(struct channels *c, unsigned peer, const struct attaching *what, struct arena *a);
struct buf *state_of(const struct frame *f); /* of STATE, ATTACH */
/* snap_learn from that of the last STATE; NULL: there was none yet. */
void copy_learn(struct snap *s, const struct buf *state, struct arena *a);

/* ---- notes: a home's short words to a holder, many to a frame ---- */

enum note_kind {
    NOTE_SAFE,  /* value: ord of a stanza of the client that is safe */
    NOTE_ACKED, /* value: seq; the client has all up to it */
    NOTE_DROP,  /* value: gen; that copy is not needed any more */
    NOTE_ENDED, /* value: gen; its home has ended it, and is disposing of its queue */
    /* DROP, of one that lay beside that attachment's own connection, which may have gone meanwhile:
     * what the connection has left in its place stays. */
    NOTE_DROP_BESIDE,
};
struct copy_note {
    uint64_t sid, value;
    enum note_kind kind;
};
enum { NOTE_BYTES = 17, NOTE_FRAME_MAX = 2048 }; /* in one frame: its header holds 64 KiB */
void note_encode(struct copy_note n, char out[NOTE_BYTES]);

/* ---- the copies of a shard ---- */

struct copies;
struct copies_config {
    struct channels *channels;
    const struct ring *ring;
    struct arena *turn;
    /* What clients have taken is remembered here when a NOTE says so. */
    struct marks *marks;
    struct loop *loop; /* for the time */
};
struct copies *copies_new(const struct copies_config *c);
void copies_free(struct copies *c);
void copies_adopt(struct copies *c, const struct ring *ring); /* instead of the one before */
size_t copies_count(const struct copies *c);
size_t copies_bytes(const struct copies *c); /* with their queues */

/* STATE SNAP MIRROR NOTE, and OUT for a session whose connection has just gone. The caller acks:
 * when this returns it is held. */
void copies_frame(struct copies *c, const struct frame *f);
/* The edge's session as its connection goes; its queue moves here. ended: nobody will resume it,
 * its home is disposing of the queue. */
struct copy_of {
    struct snap snap; /* in_ord: window.safe counts */
    bool ended;
    bool former;          /* of its home, which this shard was: says so once, as it is attached */
    struct window window; /* move here: */
    struct outs *outs;
    uint64_t acked;
};
void copies_take(struct copies *c, const struct copy_of *of);
/* All of the wanted slots, to their homes, which are new there. */
void copies_attach(struct copies *c, ring_wanted_f *wanted, const void *ctx);

#endif
