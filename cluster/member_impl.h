/* member_impl: the inside of a member, for the three files that make it up: member.c (life,
 * deadline, views, siblings), member_talk.c (words, promises), member_clerk.c (the registry). */
#ifndef PEMBERLEY_MEMBER_IMPL_H
#define PEMBERLEY_MEMBER_IMPL_H

#include "cluster/member.h"
#include "cluster/word.h"

/* Where the registry has lost its view, the next epoch leaves room for those that only somebody
 * knew whom we have not heard: who had just joined, or has not come back yet. */
enum { RESTORE_GAP = 100 };

/* The simulation is built with each of these in turn, and must find it. */
enum {
    CANARY_NO_FENCE = 1,
    CANARY_ONE_PROMISE,
    CANARY_ADOPT,
    CANARY_ANYONE_REMOVES,
    CANARY_LEASE_IS_ENOUGH,
    CANARY_OLD_EVIDENCE,
};
#ifdef MEMBER_CANARY
#define canary(n) (MEMBER_CANARY == (n))
#else
#define canary(n) false
#endif

/* What is known of another node of the view; at the node's place in it. */
struct peer {
    uint64_t heard_ms;   /* its last beat, or when it came into the view, or we began to listen */
    uint64_t beat_ms;    /* its last beat; 0: none */
    uint64_t epoch;      /* all its shards went by, at its last beat */
    uint64_t adopted;    /* its clerk went by */
    uint64_t their_ms;   /* its time then */
    uint64_t sent_ms;    /* our last beat to it */
    uint64_t asked_ms;   /* its last beat with WORD_ASKS */
    uint64_t promise_ms; /* my time that came back with its last promise in my epoch; 0: none */
    uint64_t read_ms;    /* when its lease was last asked for, of those that were answered */
    uint64_t absent_ms; /* since when its lease was found missing, and that says that it has stopped
                           acting; 0: not so */
    bool missing;       /* its lease was, when last asked for */
    bool renews;        /* it has the registry, it said; or: */
    bool misses;        /* it has not */
    bool settled;       /* it has said my epoch */
    bool ended;         /* it has said that it is */
    bool silent;        /* pings are lost */
    bool suspect;       /* told so to the sink */
};

struct sibling {
    uint64_t incarnation; /* 0: down */
    uint64_t heard_ms;    /* its last report, or when it came up */
    uint64_t epoch;       /* it goes by */
    uint64_t granted_ms;  /* it may act until then */
    uint64_t offered;     /* epoch that was published, or tried to be, with it; 0: none */
    bool ready;           /* it has reported */
    bool cut;             /* gets no orders any more: late is dead */
};

enum ask { ASK_RENEW, ASK_LEASES, ASK_VIEW, ASK_CAS, ASK_REVOKE, ASK_DROP };
enum { REQUESTS_MAX = 16 };
struct request {
    struct member *m; /* NULL: free */
    enum ask what;
    uint64_t sent_ms;
    uint64_t epoch; /* of a CAS; of the view in which leases were asked for */
    bool evidence;  /* a lease that is missing says that its node has stopped */
    size_t count;
    uint16_t nodes[REGISTRY_LEASES_MAX]; /* whose leases: places in that view */
};

struct member {
    struct member_settings s;
    char name[REGISTRY_NODE_MAX + 1], address[VIEW_ADDRESS_MAX + 1];
    struct registry *registry;
    struct member_sinks sinks;
    struct arena scratch; /* of one call */
    uint64_t now, start_ms, next_ms;
    bool over;
    bool stalled; /* its deadline has passed */
    bool refused; /* the registry says that its lease is another's or revoked, or its clerk that it
                     is to end: it does at its deadline */
    uint32_t margin_ms;

    /* How long. The deadline is the later of two: */
    uint64_t lease_ms;   /* by the lease; 0: never had one */
    uint64_t frozen_ms;  /* by promises, in the epoch of `view` only */
    uint64_t renewed_ms; /* sending time of the last renewal that succeeded */
    uint64_t quiet_ms;   /* promised: neither publish nor adopt before */
    uint64_t back_ms;    /* when the registry came back; 0: it was not away */

    /* Who. */
    struct view *view; /* gone by */
    struct peer *peers;
    bool in_view, settled;
    uint64_t adopted_ms;
    uint64_t known;
    struct sibling siblings[VIEW_SHARDS_MAX]; /* its own place: offered only */
    unsigned clerk;                           /* VIEW_SHARDS_MAX: not told yet */

    /* The clerk's. */
    struct request requests[REQUESTS_MAX];
    bool registry_said; /* registry_epoch is known */
    uint64_t registry_epoch;
    uint64_t said_ms;      /* when that was asked for */
    uint64_t asked_ms;     /* last renewal sent */
    struct view *in_force; /* the registry's, when it could be read; NULL */
    struct view *pending;  /* being published; NULL: nothing is */
    uint64_t lost_ms;      /* since when the registry has no view, or an older one; 0: it has */
    uint64_t emptied_ms;   /* when that was last seen, here or by who published the view gone by */
    uint64_t nobody_last_ms;
    uint64_t nobody_ms; /* since when it has no view and no member has a lease, nor was one heard;
                           0: not so */
    bool met;           /* a view, or a member, has been seen or heard */
    uint64_t taken_ms;  /* since when another node has our name's lease; 0: it has not */
    uint64_t lease_failures;
    bool away;
    size_t watch; /* where the next look at leases begins */

    /* What is wanted. */
    bool drain, leave;
    char forget[REGISTRY_NODE_MAX + 1];
};

/* ---- member.c ---- */
/* Every way in begins with this: takes the time, and looks at the deadline. False: it is over. */
bool member_enter(struct member *m);
void member_over(struct member *m, enum member_end why);
/* Goes by v, which it takes, if that may be now; else frees it. sure: v is in force since its lease
 * was there, so that who is stalled goes on by it. */
void member_adopt(struct member *m, struct view *v, bool sure);
void member_go_on(struct member *m); /* who is stalled, in its epoch */
/* Lately, and not only granted to be. */
bool member_is_heard(const struct member *m, const struct peer *p);
bool member_has_me(const struct member *m, const struct view *v); /* this shard */
void member_know(struct member *m, uint64_t epoch);
struct view_node *member_own(const struct member *m, const struct view *v); /* of my owner */
bool member_sibling_counts(const struct member *m, unsigned shard);         /* up and trusted */
/* Its node is in the view it goes by, be it with shards that are no more. */
static inline bool member_has_node_in_view(const struct member *m)
{
    return m->view && member_own(m, m->view);
}
static inline bool member_is_clerk(const struct member *m) { return m->clerk == m->s.shard; }
static inline bool member_is_peer(const struct member *m, size_t i)
{
    return strcmp(m->view->nodes[i].name, m->name) != 0;
}
/* One lease from now as somebody else counts it who promised me, and as I count what I promise. */
static inline uint64_t member_short_lease(const struct member *m)
{
    return m->s.lease_ms - m->margin_ms;
}
static inline uint64_t member_long_lease(const struct member *m)
{
    return m->s.lease_ms + m->margin_ms;
}

/* ---- member_talk.c ---- */
void member_beat(struct member *m, size_t i);          /* to the node at that place in the view */
void member_beats(struct member *m);                   /* to all peers */
void member_orders(struct member *m);                  /* to all siblings */
void member_report(struct member *m);                  /* to the clerk */
uint64_t member_uniform_epoch(const struct member *m); /* all shards of my node go by; 0: differ */
void member_settle(struct member *m);
void member_freeze(struct member *m); /* counts the promises */

/* ---- member_clerk.c ---- */
void member_ask_registry(struct member *m);   /* each heartbeat */
uint32_t member_pace(const struct member *m); /* between two renewals */
void member_publish(struct member *m);        /* what is due, if anything and if it may */
void member_drop_lease(struct member *m);
void member_read_view(struct member *m);
void member_note_others(struct member *m, bool somebody); /* are there members but us? */
bool member_is_away(const struct member *m);

#endif
