/* session: a bound full JID (RFC 6120 7). It outlives its connection: detached, it waits for its
 * client to resume it (XEP-0198 5), and is for everybody else what it was before.
 *
 *   bind -> ATTACHED --DETACH, edge died--> DETACHED --RESUME--> ATTACHED (gen + 1)
 *                 \--END, replaced, kicked, overflow--> ended <--max_ms--/
 *
 * Its home numbers what it sends (seq) and keeps it until the client has it (delivery.md I4). What
 * an ended session still held is given to others, stored, answered or dropped (xmpp.md 6). */
#ifndef PEMBERLEY_SESSION_H
#define PEMBERLEY_SESSION_H

#include "cluster/window.h"
#include "node/home/user.h"
#include "proto/bus/frame.h"

struct out;
struct snap;
struct ticket;

/* One stanza that the client has not acknowledged. */
struct outbound {
    struct outbound *next, *prev; /* the oldest's prev is the newest */
    uint64_t seq;
    struct uid uid;
    struct stanza *stanza;
    int64_t us;            /* wall time the home took it */
    uint64_t offline_id;   /* row of the offline store that it is; 0: none */
    struct ticket *ticket; /* an effect that ends when it is held; while it is not sent */
    uint32_t flags;        /* FRAME_TO_BARE, FRAME_TO_FULL */
    bool shared, taken;    /* given to several resources; one of them has it for sure */
};

/* Somebody who holds it too (second.c), in that generation. gen 0: nobody. */
struct holder {
    uint32_t peer, gen;
};
enum second_kind { SECOND_NONE, SECOND_EDGE, SECOND_COPY };
/* Of a session whose holders change, or of which a copy is to have the queue too. */
struct others {
    struct holder former;        /* of an attachment before, until second holds it all */
    struct outbound *unmirrored; /* first that the copy was not sent; NULL: it was sent all */
    uint64_t mirrored;           /* the copy has all up to this seq */
    uint16_t copy;               /* number of the copy, of its home's; 0: none was made */
    uint64_t doubt;              /* up to this ord its stanzas may have been done already */
    /* What is said when the copy is there; until then nothing beyond seq `stop` goes to the edge.
     */
    enum { ANSWER_NONE, ANSWER_ENABLED, ANSWER_RESUMED, ANSWER_BOUND } answer;
    uint64_t stop, conn;
    struct buf *bound;    /* ANSWER_BOUND: what <bound/> holds */
    struct ticket *asked; /* of what is answered: not safe before; NULL: nothing is */
    struct window in;     /* made again: what was safe of its client's stanzas up to in_upto; the */
    uint64_t in_upto;     /* others come again */
};

/* What waits at a session: at nearly all, at any moment, nothing does, and they have none. */
struct waiting {
    struct list *held;      /* ring of struct held_in.link: stanzas behind a handler */
    struct list *kept;      /* ring of kept IQs that name this session */
    struct list *queries;   /* the same of queries of the archive (node/xep/archive_query.c) */
    struct probes *probes;  /* contacts that are still to be probed; NULL: none */
    struct held_back *back; /* of an inactive client (inactive.c); NULL: nothing */
    uint64_t gate;          /* while gates: nothing beyond this seq is sent */
    uint32_t holds;         /* handlers that its later stanzas wait for */
    uint32_t gates;         /* pages of offline messages that the store is noting as given */
};

/* The last broadcast available presence. */
struct shown {
    int64_t us;
    uint32_t n;
    char xml[]; /* behind `<presence from='…'`, with which that of a session always begins */
};

/* Where the client of the last connection is, for people. family 0: nowhere on the net. */
struct peer {
    unsigned char ip[16]; /* IPv4: the first four */
    uint16_t port;        /* of the host's byte order */
    uint8_t family;       /* 4, 6 */
};

struct session {
    union {
        struct hnode node; /* home's sessions, by sid */
        struct {
            struct hnode *next_;
            uint64_t sid; /* random, so it is its own hash */
        };
    };
    struct session *next; /* of user->sessions */
    struct user *user;
    uint64_t in_ord, in_base, out_seq, out_base, out_acked; /* as in cluster/snap.h */
    struct outbound *first, *unsent; /* the oldest; the first that its edge was not sent; or NULL */
    uint32_t queued, queued_bytes;
    struct waiting *waiting;    /* NULL: nothing waits */
    struct others *others;      /* NULL: there is nothing to say about holders but `second` */
    struct absence *absence;    /* detached: until when, and a RESUME; NULL: attached */
    struct htable *directed;    /* JIDs that got directed presence; NULL: none */
    struct shown *shown;        /* NULL: not available */
    uint64_t shown_ord;         /* of the stanza that said so, of this attachment; 0: none */
    int64_t since_us;           /* wall time */
    uint32_t gen, max_ms, edge; /* edge: shard */
    struct holder second;       /* a copy, or the edge of the connection that has gone */
    struct peer peer;
    uint16_t open_in; /* tickets of its client's stanzas that are open; WINDOW_MAX at most */
    uint16_t resource_len;
    uint16_t tls; /* version of the last connection's, 0: none */
    int8_t priority;
    enum second_kind second_kind : 8;
    bool sm : 1, resumable : 1, detached : 1, ended : 1;
    bool doomed : 1;        /* ends at the end of this turn, as `doom` says */
    bool missing : 1;       /* counted as without a second holder */
    bool closing : 1;       /* its client has ended it; stanzas before that wait */
    bool draining : 1;      /* held stanzas are being run */
    bool interested : 1;    /* has asked for the roster (RFC 6121 2.2) */
    bool blocklist : 1;     /* has asked for the block list (XEP-0191 3.2) */
    bool carbons : 1;       /* wants copies of the account's messages (XEP-0280) */
    bool inactive : 1;      /* its client is (XEP-0352) */
    bool had_presence : 1;  /* initial presence was sent once */
    bool reads_archive : 1; /* has what its archive has from there, not from offline */
    bool offline_done : 1;  /* was given the offline messages */
    err doom : 8;
    char resource[];
};

_Static_assert(offsetof(struct session, sid) == offsetof(struct session, node.hash), "one field");
_Static_assert(ERR_MAX <= 256, "a reason fits into its bits");

static inline str session_resource(const struct session *s)
{
    return (str){s->resource, s->resource_len};
}
str session_full(const struct session *s, struct arena *a);
/* The last part of its resource: with XEP-0386 the client's, by which it is known again. */
str session_client(const struct session *s);
static inline bool session_available(const struct session *s) { return s->shown != NULL; }
static inline bool session_eligible(const struct session *s) /* xmpp.md 3 */
{
    return s->shown && s->priority >= 0;
}
struct session *session_find(struct home *h, uint64_t sid);
struct session *session_named(struct user *u, str resource);
/* The body may end `it` (and only `it`). */
#define user_each_session(it, user) \
    for (struct session *it = (user)->sessions, *it##_next = it ? it->next : NULL; it; \
         it = it##_next, it##_next = it ? it->next : NULL)
/* "192.0.2.1:5222" */
str session_address(const struct session *s, struct arena *a);

/* Gives s a stanza: numbers, queues and sends it. ticket (may be NULL) gets an effect that ends
 * when primary and secondary hold it. flags: FRAME_TO_*; FRAME_AGAIN: may be in its queue already.
 * Never ends a session at once: one that is too full ends at the end of the turn. */
struct outbound *session_send(struct session *s, struct stanza *stanza, struct uid uid,
                              uint32_t flags, int64_t us, struct ticket *ticket);
/* The same for a row of the offline store, whose delivery is nobody's effect. */
void session_send_row(struct session *s, struct stanza *stanza, struct uid uid, uint32_t flags,
                      int64_t us, uint64_t row);
/* What is queued from now on is sent when the gate is open again (delivery.md 5.2, 1: the store,
 * which is the other holder of these rows, is to know their seqs before the client counts them). */
void session_gate(struct session *s);
void session_ungate(struct home *h, uint64_t sid);
/* Sends on what may go: to the copy, to the edge. */
void session_pump(struct session *s);
/* The same for an answer of our own, lane by purpose. */
void session_answer(struct session *s, struct stanza *answer, const char *purpose,
                    struct ticket *ticket);

/* Its queue from the newest on: NULL behind the oldest. */
static inline struct outbound *session_newest(const struct session *s)
{
    return s->first ? s->first->prev : NULL;
}
static inline struct outbound *session_older(const struct session *s, const struct outbound *o)
{
    return o == s->first ? NULL : o->prev;
}

struct waiting *session_waiting(struct session *s); /* made when there is none */
void session_waited(struct session *s);             /* … and let go when nothing waits */
/* Do its client's stanzas wait behind a handler, or behind others that do? */
static inline bool session_is_held(const struct session *s)
{
    return s->waiting && (s->waiting->holds || s->waiting->held);
}

/* Its client reads the archive (asked it before its initial presence, or by XEP-0386): of what
 * waits offline it gets what is not there (XEP-0313 6.1.1). */
void session_reads_archive(struct session *s);

/* Does less than half of what it may hold wait in its queue? Who has many stanzas for it asks. */
bool session_has_room(const struct session *s);

/* Ends at the end of this turn, its edge is told (CLOSE). */
void session_doom(struct session *s, err reason);

/* A handler waits: later stanzas of this client wait behind it. release runs them in order; the
 * session may have ended in between: by sid. */
void session_hold(struct session *s);
void session_release(struct home *h, uint64_t sid);

/* What waits in its queue under that uid and is the same stanza; NULL: nothing. A client that goes
 * on under old numbers sends another one under one uid (delivery.md 2). */
struct outbound *session_find_out(const struct session *s, struct uid uid, uint32_t fp);
/* Its queue, from the front; out_acked stays. */
struct outbound *session_pop_out(struct session *s);
void session_let_go(struct home *h, struct outbound *o);
/* All up to seq is with the client; rows: those of the offline store leave it. */
void session_out_acked(struct session *s, uint64_t seq, bool rows);
/* All that may go, to a new edge. */
void session_replay(struct session *s);

/* From home.c. */
void session_bind(struct user *u, unsigned edge, const struct frame *f, struct ticket *t);
void session_resume(struct user *u, unsigned edge, const struct frame *f, struct ticket *t);
void session_frame(struct session *s, struct origin from, const struct frame *f);
/* CACK: the rows among it are not its business. */
void session_acked(struct session *s, uint64_t seq);
void session_edge_died(struct session *s, unsigned shard); /* it may have been its edge */
/* What it had asked for is answered, or will not be. */
void session_answered(struct session *s);
/* Its copy has all that there was when it was begun (or has died): what waited for that. */
void session_copied(struct session *s);
/* A RESUME that waits may have waited long enough. */
void session_may_resume(struct session *s);
/* A session of a former home, as its holders had it (attach.c): detached, without a queue.
 * session_restore_out fills that, session_restored lets it go on: live: at that edge, which was
 * sent all up to `sent`. */
struct session *session_restore(struct user *u, const struct snap *snap);
void session_restore_in(struct session *s, const struct window *safe);
void session_restore_out(struct session *s, const struct out *o);
void session_take_back_rows(struct session *s);
void session_restored(struct session *s, unsigned edge, bool live, uint64_t sent);
/* It lives on at another home: nobody hears of its end here. */
void session_leave(struct session *s);
/* What of its client's stanzas is safe: up to where all is, and (out) the ords that are not among
 * the last 256, modulo that. In a cluster; without one all that it has received counts. */
uint64_t session_in_safe(const struct session *s, uint64_t open[4]);
/* Now; not from within anything that walks sessions. tell: its edge gets CLOSE. */
void session_end(struct session *s, err reason, bool tell);

#endif
