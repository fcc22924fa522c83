/* inside: what the files of this room share and nobody outside sees. */
#ifndef PEMBERLEY_HOME_INSIDE_H
#define PEMBERLEY_HOME_INSIDE_H

#include <stdlib.h>

#include "cluster/mark.h"
#include "cluster/seen.h"
#include "cluster/snap.h"
#include "cluster/ticket.h"
#include "node/conf/conf.h"
#include "node/home/blocked.h"
#include "node/home/chain.h"
#include "node/home/roster.h"
#include "node/home/session.h"
#include "node/home/user.h"
#include "pemberley/pool.h"
#include "proto/bus/store.pb-c.h"

enum {
    USER_WAIT_MS = 20000, /* for the store, then resource-constraint (delivery.md 5.3) */
    USER_REST_MS = 60000, /* in memory after its last use */
    USERS_RESTING_MAX = 10000,
    BARRIER_MS = 5000,          /* a shard silent for so long is late, and late is dead (5.3) */
    RESUME_WAIT_MS = 30000,     /* for open tickets: longer than the longest of their waits */
    SUBSCRIBE_BYTES_MAX = 8192, /* of a request that is kept for the user's answer */
    ROSTER_LOG = 500,           /* versions whose changes are known (xmpp.md 4) */
};

struct home {
    struct node *node;
    uint32_t
        served; /* the place of the host that was asked for last, in whatever config there is */
    struct htable users, sessions;
    struct list resting; /* struct user.rest, longest first */
    struct list again;   /* struct user.rest: loads that failed, to be tried again */
    struct list givings; /* struct giving.link */
    struct doomed {
        uint64_t *sids; /* of sessions that end with this turn */
        size_t n, cap;
    } doomed;
    int64_t in_us;              /* wall time at which its edge read the stanza that is being run */
    struct timer sweep;         /* every second */
    struct list frames;         /* struct late.link: of sessions, behind the barrier */
    struct list routes, logins; /* struct work.link: the same; routes go first */
    struct htable attached;     /* struct attached.by_sid: sessions to be made again */
    struct list unloaded;       /* struct attached.link: their account could not be loaded */
    struct list notes;          /* struct notes.link (second.c) */
    struct list endings;        /* struct ending.link (ended.c) */
    struct turn_hook noting;
    struct list tickets;    /* in a cluster: those that tell a session of their end */
    struct list disposals;  /* struct disposal.link, of ended sessions */
    bool closed;            /* slots wait: */
    uint64_t awaited;       /* without a cluster all: a bit per shard that has not said what it
                               holds of ours */
    struct moving *moving;  /* in a cluster some (move.c); NULL: none */
    struct list asked;      /* struct request.link: of the store, in a cluster */
    struct list open;       /* tickets of ROUTEs */
    struct seen seen;       /* what was handled lately */
    uint64_t marks_dropped; /* there and of the node, as already counted */
    struct mark_set known;  /* what the edges' clients had of a former home */
    uint64_t known_until_ms;
    struct timer barrier; /* … and will not be waited for any longer */
    struct turn_hook reap;
    size_t resting_count, parked_bytes;
    size_t roster_bytes; /* of the items of all users' rosters */
    struct pool outbounds;
    uint64_t archive_keys[4]; /* of the ids of archives, once they are known */
    bool archive_keys_known;
    struct caps_cache *caps; /* what clients can do (node/xep/caps.h); NULL: none is known */
    uint32_t requests;       /* store requests without an answer */
    uint16_t copies;         /* begun, modulo 2^16 */
    uint32_t handled;        /* IQ requests, for the sample of their cost */
    bool stopping;
    void (*stopped)(void *ctx);
    void *stopped_ctx;
};

/* ---- home.c ---- */

static inline void home_count(struct home *h, enum metric m, int64_t n)
{
    metric_add(h->node->metrics, m, n);
}
static inline struct arena *home_arena(struct home *h) { return h->node->turn; }
static inline int64_t home_wall_us(struct home *h) { return clock_wall_us(h->node->clock); }
bool home_serves(struct home *h, str domain);
/* w waits in this list for the end of the barrier; without room for it it runs now. */
void home_park(struct home *h, struct list *list, struct work *w);
/* The barrier opens: what waits goes on. */
void home_open(struct home *h);
/* What waits for slots that are wanted is dropped. */
void home_drop_waiting(struct home *h, ring_wanted_f *wanted, const void *ctx);
/* Requests to the store of owners of such slots, now: how many. They are former ones from now on.
 */
size_t home_part_with_requests(struct home *h, ring_wanted_f *wanted, const void *ctx);
/* Is the sender of this frame to be obeyed as one that goes by a ring in which the slot is ours
 * (delivery.md 5.6)? */
bool home_obeys(const struct home *h, struct origin from, unsigned slot);

/* The client of that session of a former home has this. */
void home_know(struct home *h, struct uid uid, uint64_t sid, uint32_t fp);

/* lane of what `deriver` makes of a stanza for `purpose` (delivery.md 2): no counter, the same
 * wherever and whenever it is made again. */
uint32_t home_lane(str deriver, const char *purpose);
/* Sends a stanza to the home of its addressee: `to` names who (empty: its own `to`); ticket may be
 * NULL. */
void home_send(struct home *h, struct stanza *s, str to, struct uid uid, uint32_t flags, int64_t us,
               struct ticket *t);
/* An answer, or what a home makes of something else: the cause's uid, with the lane of `deriver`
 * and purpose. Goes to its own `to`; nowhere when that is not served here. */
void home_send_derived(struct home *h, struct stanza *s, struct uid cause, str deriver,
                       const char *purpose, struct ticket *t);
static inline struct uid home_cause(struct ticket *t)
{
    return t ? ticket_uid(t) : (struct uid){0, 0, 0};
}
/* A store request whose answer is counted. done gets ctx; reply as in the door. */
typedef void home_store_f(struct home *h, void *ctx, err e, const Store__Reply *reply);
void home_store(struct home *h, str owner, Store__Request *req, home_store_f *done, void *ctx);
static inline ProtobufCBinaryData home_bytes(str s)
{
    return (ProtobufCBinaryData){s.n, (uint8_t *)s.p};
}
static inline str home_str(ProtobufCBinaryData b) { return str_from(b.data, b.len); }

/* One stanza for many: one frame per home of them (architecture 4). */
struct fanout {
    struct home *home;
    struct stanza *stanza;
    struct uid uid;
    int64_t us;
    struct ticket *ticket;
    uint16_t *place; /* by peer: 1 + where it is among lists; 0: not there */
    unsigned nobody; /* the place of those without a home */
    struct fanout_list {
        unsigned peer;
        str *to; /* grown in the arena, as the lists are */
        size_t n, cap, bytes;
    } * lists;
    size_t count, cap;
};
void fanout_init(struct fanout *f, struct home *h, struct stanza *s, struct uid uid, int64_t us,
                 struct ticket *t);
void fanout_add(struct fanout *f, str to); /* `to` rests until fanout_send */
void fanout_send(struct fanout *f);

/* ---- move.c ---- */

void move_attached(struct home *h, unsigned peer, uint64_t epoch);
bool move_waits(const struct home *h, unsigned slot);
/* A request of somebody who has left is sent, is answered. */
void move_asked(struct home *h);
void move_answered(struct home *h);
void move_free(struct home *h);
void move_sample(struct home *h); /* once a second: metrics */
/* Does what concerns a slot, or an account, wait for the barrier? */
static inline bool home_slot_waits(const struct home *h, unsigned slot)
{
    return h->closed && (h->awaited || move_waits(h, slot));
}
static inline bool home_waits(const struct home *h, str bare)
{
    return h->closed && home_slot_waits(h, ring_slot(h->node->ring, bare));
}

/* ---- user.c ---- */

void user_sweep(struct home *h);
/* One session more (1) or less (-1), while it is not among the others. */
void user_count_session(struct user *u, int n);
void user_reload(struct user *u); /* READY, without session: asks the store again */
void user_free(struct user *u);

/* ---- session.c, for those that begin one ---- */

struct session *session_new(struct user *u, str resource, uint64_t sid, uint32_t gen);
uint64_t session_new_sid(struct user *u);

/* ---- bind.c ---- */

/* XEP-0198 is on, as an ENABLE or BIND2 wishes. */
void session_sm_on(struct session *s, const struct frame *f);
/* Where its client is, as the edge says. */
void session_note_peer(struct session *s, str address, uint16_t tls);
/* BOUND to a BIND2: what was switched on is safe by now; or it has ended before. */
void bind_answer(struct session *s);
void bind_give_up(struct session *s);

/* ---- from.c ---- */

/* A stanza of a client. reason: the edge has found it wrong; answer it so. */
void from_stanza(struct session *s, struct stanza *stanza, err reason, struct ticket *t);
/* An error to our own client about what it sent. extra: an element of its own, or empty. */
void from_error_extra(struct session *s, struct stanza *stanza, err e, str extra, struct ticket *t);
void from_error(struct session *s, struct stanza *stanza, err e, struct ticket *t);

/* ---- route.c ---- */

enum { GAVE_NONE = 128 };

/* One stanza for one recipient, at that recipient's home. */
struct route {
    struct work work;
    struct home *home;
    struct user *user;
    struct ticket *ticket; /* may be NULL */
    struct stanza *stanza;
    struct jid to;
    struct uid uid;
    int64_t us;
    uint32_t flags; /* FRAME_AGAIN, and of route.c's own */
    uint8_t tries;
    bool noted;  /* as handled, or found not to be (cluster/seen.h) */
    bool stored; /* a former home may have, as it ended the session whose queue it was in */
    struct stanza *owned;     /* the reference that ends with it: the stanza, or nothing */
    struct session *gave_one; /* a message: to this full JID, or to the bare one, and so to */
    int gave_least;           /* eligible resources of this priority and more; else GAVE_NONE */
    bool offline_only;        /* it has waited for offline messages too long: behind them */
    uint64_t sid;             /* of an ended session's queue: seq is its number there; 0: none */
    uint64_t seq;
    char text[];
};
void route_deliver(struct home *h, const struct jid *to, struct stanza *s, struct uid uid,
                   uint32_t flags, int64_t us, struct ticket *t);
void route_stanza(struct user *u, struct route *r);
/* It was handled by our predecessor, for whom it is addressed to. */
void route_note(struct home *h, const struct stanza *s, struct uid uid);
/* A copy that may wait: holds the stanza and an effect of the ticket. */
struct route *route_keep(const struct route *r);
void route_done(struct route *kept);
/* An error answer to the sender; nothing where errors are not answered. */
void route_error(struct route *r, err e);
/* What an ended session had not given to its client (xmpp.md 6). */
void route_undelivered(struct route *r, bool shared, bool taken);
/* It is this from now on (chain.h); the reference is the route's. */
void route_replace(struct route *r, struct stanza *with);
/* Did s get it, by the choice of resources? */
bool route_gave(const struct route *r, const struct session *s);
/* Of one that was handled already: as if it was given now. */
void route_would_give(struct user *u, struct route *r);
/* Sessions that messages to the bare JID go to get it; how many. */
unsigned route_to_eligible(struct user *u, struct route *r);

/* ---- presence.c ---- */

void presence_from(struct session *s, struct stanza *stanza, struct ticket *t);
void presence_ended(struct session *s); /* unavailable on behalf of a session that ends */
/* Its part of what a second holder keeps, and back. */
void presence_snap(const struct session *s, struct snap *snap);
void presence_restore(struct session *s, const struct snap *snap);
bool presence_is_here(const struct session *s); /* shown, and neither away nor xa */
str presence_shown(const struct session *s);    /* what it shows, as XML; only if it is available */
void presence_probed(struct user *u, struct route *r);
/* <presence from to type/>; to and type may be empty, NULL. */
struct stanza *presence_make(struct home *h, str from, str to, const char *type);
/* Current presence of every available session to `to` (bare), or unavailable of each. */
void presence_show(struct user *u, str to, struct ticket *t);
void presence_hide(struct user *u, str to, struct ticket *t);
/* Of all resources to who is blocked now and has been told of them directly. */
void presence_hide_directed(struct user *u, struct ticket *t);
/* Every available session asks `contact` (bare) for all that is to be seen of it now: what it was
 * told before may be wrong, or is not there. */
void presence_ask(struct user *u, str contact, struct ticket *t);
/* The same of one session's contacts, all of them. */
void presence_ask_all(struct session *s);
void presence_probe_more(struct session *s); /* its queue has become shorter */
/* A probe that asks contacts of subscription both for something else than presence, each for up to
 * so many answers; purpose: of its lane, static. Behind the probes of a login. */
void presence_ask_friends(struct session *s, struct stanza *probe, const char *purpose,
                          unsigned answers);
void probes_free(struct session *s);
bool presence_directed_to(const struct session *s, str jid);
void directed_free(struct session *s);

/* ---- inactive.c: XEP-0352 ---- */

void inactive_set(struct session *s, bool inactive, struct ticket *t);
/* Of an inactive one: is this held back? Else what was goes now, before it. */
bool inactive_holds(struct session *s, struct stanza *stanza, struct uid uid, uint32_t flags,
                    int64_t us);
void inactive_flush(struct session *s);
void inactive_free(struct session *s);

/* ---- record.c: the registry's presence records; without one these do nothing ---- */

void record_put(const struct session *s); /* as it is now */
void record_remove(const struct session *s);
void record_leave(const struct user *u); /* another home writes them from now on */

/* ---- subscription.c ---- */

void subscription_from(struct session *s, struct stanza *stanza, struct ticket *t);
void subscription_to(struct user *u, struct route *r);
/* unsubscribe and unsubscribed to a contact whose item (NULL: none) goes, as its state asks;
 * pending_in: it waits for an answer (RFC 6121 2.5.2). */
void subscription_cancel(struct user *u, str contact, const struct item *i, bool pending_in,
                         struct ticket *t);

/* ---- offline.c ---- */

bool offline_wants(const struct user *u, const struct stanza *s);
/* Stores it, or answers that it could not. */
void offline_put(struct user *u, struct route *r);
/* The same of what may be in the store already, or among what waits behind it. */
void offline_put_again(struct user *u, struct route *r);
/* A row that an ended session's queue held; the store has it still, and notes where it was. */
void offline_back(struct user *u, struct route *r);
void offline_start(struct session *s); /* it may have them now */
void offline_give(struct user *u);     /* whoever is there may */
bool offline_wait(struct user *u, struct route *r, const struct session *to); /* taken: it waits */
void offline_acked(struct session *s, const uint64_t *ids, size_t n);
/* Rows that a client has, as a CACK names them; the ticket gets an effect until they are gone. */
void offline_taken(struct user *u, str rows, struct ticket *t);
void offline_left(struct user *u, struct session *s); /* s is no longer there to take them */
void offline_leave(struct user *u);                   /* u has another home */
void offline_more(struct session *s);                 /* its queue has become shorter */
void offline_sweep(struct home *h, uint64_t now_ms);
void offline_free(struct user *u);

/* ---- second.c ---- */

/* Who is to hold s now: its edge, a copy, nobody. False: a copy was begun, and session_copied
 * follows. */
bool second_choose(struct session *s);
bool second_mirrors(const struct session *s);    /* what goes to the client is in a copy first */
struct others *second_others(struct session *s); /* made when there are none */
void second_settled(struct session *s);          /* … and let go when they say nothing */
/* What its holder is to know beside the queue has changed; an effect of t (may be NULL) until it
 * does. */
void second_state(struct session *s, struct ticket *t);
void second_mirror(struct session *s, const struct outbound *o);
void second_mirrored(struct home *h, struct hold hold); /* the copy has it */
/* From the end of an IN's ticket: its ack waits until the copy knows. */
void second_safe(struct session *s, struct ticket *t);
void second_acked(struct session *s);    /* out_acked has moved */
void second_detached(struct session *s); /* its connection is going, just now */
void second_fence(struct session *s);    /* a RESUME is taken; it is whole */
/* An edge has kept what it had of an attachment that is over; s: the session, NULL when that is
 * over too. It forgets it, now or when it is not needed any more. */
void second_stray(struct home *h, const struct session *s, struct holder who, uint64_t sid);
/* Does its holder have all, or is there nobody to have it? Until then the former one is needed. */
bool second_is_whole(const struct session *s);
void second_replayed(struct session *s); /* its new edge was sent all */
void second_former(struct session *s, struct holder who);
void second_sweep(struct home *h);
/* Sessions of these slots that have ended lately: their new home is told, lest it makes them again.
 */
void second_leave_ended(struct home *h, ring_wanted_f *wanted, const void *ctx);
void second_free(struct home *h);
/* That copy is not needed any more. */
void second_drop(struct home *h, struct holder who, uint64_t sid);
/* For the effects of the queue of a session that ends, whose holders forget it when these are
 * safe. */
struct ticket *second_disposal(struct session *s);
void second_peer_down(struct session *s, unsigned shard);
/* Domains may be others now. */
void second_ring_changed(struct session *s);
/* s has another home, and goes: what it is becomes a copy here, which is offered to that home like
 * any other. Nobody is told. */
void second_leave(struct session *s);
void second_peer_up(struct session *s);
void second_flush(struct home *h); /* the notes of this turn */

/* ---- ended.c ---- */

/* FAILED; client_h (NULL: not known) is of the session that was asked for. */
void ended_failed(struct home *h, unsigned edge, uint64_t conn, const uint32_t *client_h);
/* s ends: its h goes to the store when what it counts is safe. dropped: stanzas of its client that
 * were received last and never run. */
void ended_note(struct session *s, uint64_t dropped);
/* One of its client's stanzas is safe, and the session is not there any more. */
void ended_in_safe(struct home *h, uint64_t sid);
/* What the store has of its queue with these numbers (as the client counts) is not for others. */
void ended_take_rows(struct user *u, uint64_t sid, uint64_t seq_min, uint64_t seq_max);
/* A RESUME of a session that is not there: FAILED, with its h if the store knows it, and the rows
 * that its client has go. */
void ended_resume(struct user *u, unsigned edge, const struct frame *f, struct ticket *t);
void ended_leave(struct user *u); /* u has another home */
void ended_free(struct home *h);

/* ---- attach.c ---- */

void attach_offer(struct home *h, struct origin from, const struct frame *f); /* ATTACH, QUEUED */
void attach_drop(struct home *h, ring_wanted_f *wanted, const void *ctx);
/* The barrier is open: sessions are made again as their accounts are loaded. */
void attach_restore(struct home *h);
void attach_sweep(struct home *h); /* those whose account could not be loaded: again */
/* The account of a session that is to be made again; empty: there is none such. */
str attach_bare(struct home *h, uint64_t sid);
void attach_free(struct home *h);

/* ---- iq.c ---- */

/* us: when an edge read it. */
void iq_dispatch(struct home *h, enum iq_entity entity, struct user *u, struct session *s,
                 struct stanza *stanza, bool subscribed, int64_t us, struct ticket *t);
void iq_session_ended(struct session *s); /* kept IQs forget it */

#endif
