/* frame: what shards say to each other (delivery.md 4). A header in protobuf (bus.proto), then, for
 * the kinds that carry one, the stanza's block behind it: protobuf-c would copy it. Strings of a
 * decoded frame are views into the received bytes or the arena. */
#ifndef PEMBERLEY_FRAME_H
#define PEMBERLEY_FRAME_H

#include <stddef.h>
#include <sys/uio.h>

#include "pemberley/arena.h"
#include "pemberley/err.h"
#include "proto/xmpp/stanza.h"

enum frame_kind {
    FRAME_NONE,
    FRAME_ACK, /* the channel's own: cumulative + ranges; ms = the sender's epoch */
    /* edge -> home */
    FRAME_BIND,   /* bare, resource (wish, may be empty), conn, text = peer's address,
                     lane = version of its TLS                                         -> BOUND
                     Flag BIND2: payload = the <bind/> of XEP-0386; ms = max wished */
    FRAME_RESUME, /* bare, sid, h = the client's (low 32 bits), conn, text and lane as there
                                                                             -> RESUMED or FAILED */
    FRAME_ENABLE, /* sid gen, ord = the last one before it, resume wished (flag), ms = max wished ->
                     ENABLED */
    FRAME_IN,     /* sid gen ord fp stanza; reject: answer it with this error instead   */
    FRAME_CACK,   /* sid gen seq: the client has (or, without SM, the socket took) all up to seq;
                     bare, payload = rows of the offline store among it, 8 bytes each, big-endian */
    FRAME_DETACH, /* sid gen reason: the connection is lost, the session may be resumed */
    FRAME_END,    /* sid gen reason: the session ends (</stream:stream>, its own fault)  */
    /* second holder -> new home (delivery.md 6) */
    FRAME_ATTACH,   /* sid gen, ord = the last up to which all from its client is safe, text = the
                       window behind it; payload = snap: a session whose home was another. Flags:
                       LIVE, its   connection is here; ENDED, it is over; FORMER, the sender was its
                       home */
    FRAME_QUEUED,   /* sid gen seq, uid (its sid in conn) stanza us flags h as in OUT: the next that
                       this holder has for it, behind its ATTACH */
    FRAME_KNOWN,    /* payload = marks of what its clients have lately (cluster/mark.h); sent again,
                       it is no news */
    FRAME_ATTACHED, /* from each shard: that was all I held (delivery.md 5.2, 6) */
    /* home -> home */
    FRAME_ROUTE, /* uid fp, stanza, recipients (empty: the stanza's own `to`) */
    /* home -> edge */
    FRAME_BOUND,   /* conn, sid gen, text = full JID, or reason = stanza error; to a BIND2
                      payload = what <bound/> holds                                       */
    FRAME_RESUMED, /* conn, sid gen, payload = snap; OUTs of the queue follow             */
    FRAME_FAILED,  /* conn; h if has_h                                                    */
    FRAME_ENABLED, /* sid gen, seq = the last one before it, ms = max (0: no resumption)  */
    FRAME_OUT,     /* sid gen seq, uid (its sid in conn) stanza, us = time it came,
                      flags: FRAME_TO_*, FRAME_REPLAY; h = its row of the offline store, 0: none */
    FRAME_CLOSE,   /* sid gen reason: end this stream with that stream error              */
    /* home -> second holder (cluster/copy.h) */
    FRAME_STATE,  /* sid gen, payload = snap without what it knows by itself: its name, whose it is
                   */
    FRAME_SNAP,   /* sid gen, payload = snap, to a successor: hold this; MIRRORs follow    */
    FRAME_MIRROR, /* as OUT                                                                */
    FRAME_NOTE,   /* payload = notes: what is safe, what clients have, what is not needed  */
    /* shard -> shard: the channel's own, in a cluster */
    FRAME_EPOCH, /* ms = epoch: from here on the sender goes by it; payload = slots it has lost by
                    that, a bit each, or nothing (cluster/channel.h) */
    /* shard -> shard: a command of the operator's, which concerns the other (node/shard/commands.h)
     */
    FRAME_COMMAND, /* conn = whose answer it is; recipients = its words */
    FRAME_ANSWER,  /* conn, ord = exit code, payload = a piece of the text; flag MORE: not the last
                    */
    /* edge -> home */
    FRAME_CSI, /* sid gen; flag INACTIVE: its client is (XEP-0352), else it is active again */
    FRAME_KINDS
};

enum frame_flag {
    FRAME_TO_BARE = 1 << 0, /* the stanza has no `to`: splice the session's bare JID in */
    FRAME_TO_FULL = 1 << 1, /* … its full JID */
    FRAME_AGAIN = 1 << 2,   /* sent before to somebody who died */
    FRAME_WANT_RESUME = 1 << 3,
    FRAME_TAKEN = 1 << 3, /* QUEUED, MIRROR: another resource has it for sure */
    FRAME_HAS_H = 1 << 4,
    FRAME_INACTIVE = 1 << 4,  /* CSI */
    FRAME_REPLAY = 1 << 5,    /* OUT: sent to the client's former connection already */
    FRAME_ANONYMOUS = 1 << 6, /* BIND: SASL ANONYMOUS, there is no account */
    FRAME_ENDED = 1 << 7,     /* ATTACH: the session is over, its queue is to be disposed of */
    FRAME_LIVE = 1 << 8,      /* ATTACH: its connection is the sender's */
    FRAME_SAME = 1 << 9,      /* the channel's own: with the stanza that came last */
    FRAME_FORMER = 1 << 10,   /* ATTACH: from its former home, which has handed its slot over */
    FRAME_DISPOSED = 1 << 11, /* … and its queue is disposed of */
    FRAME_MORE = 1 << 11,     /* ANSWER: another piece follows */
    FRAME_AWAITED = 1 << 4,   /* OUT: its home waits for the CACK */
    /* Who sleeps need not be woken (cluster/channel.h): */
    FRAME_PATIENT = 1 << 12, /* nobody waits for this one's ack */
    FRAME_LATER = 1 << 13,   /* nobody waits for this one */
    FRAME_BIND2 = 1 << 14,   /* BIND: XEP-0386 */
    FRAME_CLIENT = 1 << 15,  /* … and the last part of the resource is that client's alone */
    FRAME_WANT_SM = 1 << 16, /* … and XEP-0198; BOUND: it is on, ms as in ENABLED */
};

/* delivery.md 2. sid: slot of the owner in the upper 14 bits, 50 random bits below; 0 is none
 * (stanzas made by a home itself, by lane). */
struct uid {
    uint64_t sid, ord;
    uint32_t lane;
};

static inline bool uid_eq(struct uid a, struct uid b)
{
    return a.sid == b.sid && a.ord == b.ord && a.lane == b.lane;
}

/* What nearly every frame is made of comes first (FRAME_HEAD), then the stanza, then what few have.
 */
struct frame {
    enum frame_kind kind;
    uint32_t flags;
    uint32_t gen, lane, fp;
    err reason;
    uint64_t sid, ord,
        seq;       /* ord: IN, ENABLE and uid; seq: a session's number of an outbound stanza */
    uint64_t conn; /* the edge's own name of a connection, given back as it was */
    uint64_t h, ms;
    uint64_t us;   /* wall time: IN: the edge read it; ROUTE, OUT: the same of its cause */
    uint64_t sent; /* wall time, µs, of the frame itself, where its stage is timed; else 0 */
    struct stanza *stanza; /* borrowed: who keeps it takes a reference */
    str bare, resource, text, payload;
    const str *recipients; /* ROUTE: prepared JIDs */
    size_t recipient_count;
    /* ACK */
    uint64_t ack_upto;          /* everything up to and with this channel number is done */
    const uint64_t *ack_ranges; /* pairs first, last; beyond ack_upto */
    size_t ack_range_count;
};

enum { FRAME_HEAD = offsetof(struct frame, stanza) };
/* Is there nothing behind the stanza? */
static inline bool frame_is_plain(const struct frame *f)
{
    return !(f->bare.n | f->resource.n | f->text.n | f->payload.n | f->recipient_count |
             f->ack_upto | f->ack_range_count);
}

static inline struct uid frame_uid(const struct frame *f)
{
    return (struct uid){f->sid, f->ord, f->lane};
}

/* Recipients of one ROUTE: who has more sends several. Keeps the header below 64 KiB. */
enum { FRAME_RECIPIENTS_BYTES = 48 * 1024, FRAME_ACK_RANGES = 2048 };

/* number: the channel's; of an ACK to another node how far its frames have come, else 0. Fills out
 * with the header, which lies in the arena, and the stanza's block where it is; returns how many.
 */
enum { FRAME_PARTS = 2 };
size_t frame_encode(const struct frame *f, uint64_t number, struct arena *a,
                    struct iovec out[FRAME_PARTS]);
/* The same in one piece, in the arena. */
str frame_bytes(const struct frame *f, uint64_t number, struct arena *a);
/* A plain frame for a shard of this node, which is of the same build, as it lies in memory: head
 * has room for it. Half of what a message's frame cost was putting numbers into varints and back.
 */
enum { FRAME_PLAIN = sizeof(uint16_t) + sizeof(uint64_t) + FRAME_HEAD };
size_t frame_encode_plain(const struct frame *f, uint64_t number, char head[FRAME_PLAIN],
                          struct iovec out[FRAME_PARTS]);
/* The stanza of a decoded frame has one reference, owned by the caller. ERR_BAD: not a frame. */
nodiscard err frame_decode(const char *p, size_t n, struct arena *a, struct frame *out,
                           uint64_t *number);

#endif
