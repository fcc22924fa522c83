/* snap: what a session *is*, in one portable piece: what its home knows, what another edge needs to
 * go on with it, what a second holder keeps (delivery.md 1). One codec for resuming, mirroring and
 * attaching. The outbound queue travels beside it: OUT, MIRROR, QUEUED frames. */
#ifndef PEMBERLEY_SNAP_H
#define PEMBERLEY_SNAP_H

#include "pemberley/arena.h"
#include "pemberley/err.h"

struct snap {
    uint64_t sid;
    uint32_t gen;       /* +1 at each resume */
    str full;           /* full JID */
    bool sm, resumable; /* XEP-0198 enabled; may be resumed */
    uint32_t max_ms;    /* how long a detached session waits */
    uint64_t in_ord;    /* last stanza of the client that reached the home */
    uint64_t in_base;   /* in_ord at <enable/>: h towards the client = in_ord - in_base */
    uint64_t out_seq;   /* last number given to an outbound stanza */
    uint64_t out_base;  /* out_seq at <enabled/>: the client's h counts from here */
    uint64_t out_acked; /* all up to here were acknowledged by the client */
    int64_t presence_us, since_us; /* wall time */
    str presence;                  /* XML of its last broadcast; empty: not available */
    uint64_t presence_ord;         /* … or unavailable, of this attachment; 0: none */
    bool interested;               /* has asked for the roster */
    bool blocklist;                /* has asked for the block list (XEP-0191 3.2) */
    bool carbons;                  /* wants copies (XEP-0280) */
    bool reads_archive;            /* and not what is there from offline (XEP-0313, 0386) */
    bool inactive;                 /* its client is (XEP-0352): what was held back for it is lost */
    bool anonymous;                /* there is no account */
    const str *directed;           /* JIDs that got directed presence */
    size_t directed_count;
    str address; /* of its last connection's peer, and the version of its TLS */
    uint16_t tls;
};

/* What the numbers say when some are of another moment than others is the holder's business: the
 * decoder takes any. Views into bytes and arena. */
str snap_encode(const struct snap *s, struct arena *a);
nodiscard err snap_decode(str bytes, struct arena *a, struct snap *out);

/* What only the home knows of it, and what a STATE is about: presence and whom it was shown to,
 * what it has asked for, since when. Of anything else a STATE may be silent. */
void snap_learn(struct snap *s, const struct snap *told);

#endif
