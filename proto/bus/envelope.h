/* envelope: what travels on a rail, the bus connection between two nodes (cluster/rail.h).
 *
 *     0      4      5      6        8
 *     | length | kind | hops | zero | body: `length` bytes                       little-endian
 *
 *     HELLO   "PRAL", then bus.proto's Hello: the first of each side, who it is
 *     REFUSE  one byte, enum rail_refusal; the sender closes behind it
 *     PING    8 bytes of the sender's own;  PONG  the same 8, and the answerer's wall clock in µs
 *     FRAME   to (2), from (2), incarnations of both (4 + 4), then a frame (frame.h) as it is
 *     WORD    about membership (cluster/word.h), for any shard of the node
 *
 * Fixed words instead of protobuf where it is hot; what may grow, HELLO, is protobuf. Unknown kinds
 * are malformed: a version that has more says so in its HELLO first. */
#ifndef PEMBERLEY_BUS_ENVELOPE_H
#define PEMBERLEY_BUS_ENVELOPE_H

#include "pemberley/arena.h"
#include "pemberley/err.h"
#include "pemberley/str.h"
#include "proto/base/name.h"

enum envelope_kind {
    ENVELOPE_NONE,
    ENVELOPE_HELLO,
    ENVELOPE_REFUSE,
    ENVELOPE_PING,
    ENVELOPE_PONG,
    ENVELOPE_FRAME,
    ENVELOPE_WORD,
    ENVELOPE_KINDS
};
enum {
    ENVELOPE_HEAD = 8,
    ENVELOPE_ADDRESS = 12,
    ENVELOPE_HEAD_MAX = ENVELOPE_HEAD + ENVELOPE_ADDRESS,
    ENVELOPE_BODY_MAX = 512, /* of all kinds but FRAME and WORD */
    ENVELOPE_HOPS_MAX = 2,
};

/* Between which shards a frame goes, of the two nodes at the rail's ends. A frame for an
 * incarnation that is gone is dropped by who gets it. */
struct envelope_address {
    uint16_t to, from;
    uint32_t to_incarnation, from_incarnation;
    uint8_t hops; /* rails and fifos on the way so far, at most ENVELOPE_HOPS_MAX */
};

struct envelope {
    enum envelope_kind kind;
    struct envelope_address address; /* FRAME */
    str body;                        /* FRAME: behind the address */
};

/* The head of an envelope whose body of body_n bytes (FRAME: the frame's) follows: returns its
 * length. address is that of a FRAME, else NULL. */
size_t envelope_head(enum envelope_kind kind, const struct envelope_address *address, size_t body_n,
                     char out[ENVELOPE_HEAD_MAX]);
/* The envelope at the front of `in`, as views; *size: its bytes. ERR_PARTIAL: *size, or more, are
 * needed in all. ERR_BAD: not an envelope, or its frame or word is longer than frame_max. */
nodiscard err envelope_read(str in, size_t frame_max, struct envelope *out, size_t *size);

enum { HELLO_SOFTWARE_MAX = 32 };
struct hello {
    uint32_t version_min, version_max; /* of the envelopes and frames it speaks */
    uint64_t features;
    str cluster, node;
    uint32_t shard, incarnation;
    uint32_t sees; /* the other's incarnation as its sender knows it; 0: not at all */
    uint64_t epoch;
    str software; /* its version, to be told apart from others; at most HELLO_SOFTWARE_MAX */
};
/* The body, in the arena; at most ENVELOPE_BODY_MAX. */
str hello_encode(const struct hello *h, struct arena *a);
/* Strings lie in the arena. ERR_BAD: not a hello, or a name that is none. */
nodiscard err hello_decode(str body, struct arena *a, struct hello *out);

#endif
