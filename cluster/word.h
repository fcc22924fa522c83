/* word: what shards tell each other about membership (cluster/member.h), one message each:
 *
 *   BEAT    clerk -> every other node, each heartbeat and whenever there is news
 *   ORDER   clerk -> sibling: how long the node may act, and the view to go by
 *   REPORT  sibling -> clerk: I am here, and this is the epoch that I go by
 *
 * Times in beats are of the clock of the one who wrote them, and come back as they were; times in
 * orders are of the clock that all shards of a machine share. */
#ifndef PEMBERLEY_WORD_H
#define PEMBERLEY_WORD_H

#include "cluster/view.h"

enum word_kind { WORD_BEAT = 1, WORD_ORDER, WORD_REPORT };

enum word_flag {
    WORD_ASKS = 1 << 0,     /* BEAT: the registry is away for me; is it for you, and will you keep
                               still? */
    WORD_PROMISES = 1 << 1, /* BEAT: I shall neither publish nor adopt an epoch for one lease */
    WORD_ENDED = 1 << 2,  /* BEAT: all that this node was in the view has stopped acting; ORDER: who
                             is stalled, or will be, ends */
    WORD_MEMBER = 1 << 3, /* BEAT: this node is in the view that its clerk goes by */
    WORD_ACTS = 1 << 4,   /* ORDER: its clerk does; who is stalled may go on as it says */
    WORD_RENEWS = 1 << 5, /* BEAT: the registry is there for me */
    WORD_STALLED = 1 << 6, /* BEAT: this node waits for the registry */
};

struct word {
    enum word_kind kind;
    uint32_t flags;
    str node; /* who says it */
    uint64_t owner;
    unsigned shard;
    uint64_t incarnation;
    uint64_t epoch;   /* BEAT: that all its shards go by, 0: they differ; else: that the shard goes
                         by */
    uint64_t adopted; /* BEAT: that its clerk goes by */
    uint64_t known;   /* the highest it has heard of */
    uint64_t mine_ms, yours_ms; /* BEAT: its time now; the last time of yours that it has */
    uint64_t lease_ms, frozen_ms, quiet_ms, renewed_ms, settled; /* ORDER: as in member_impl.h */
    str view; /* ORDER, BEAT: encoded; empty: none */
};

str word_encode(const struct word *w, struct arena *a);
/* Views in out live as long as bytes and the arena. ERR_BAD: not a word. ERR_REFUSED: of a version
 * that this program does not know. */
nodiscard err word_decode(str bytes, struct arena *a, struct word *out);

#endif
