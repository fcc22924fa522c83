/* user: one bare JID in memory at its home: an account, one that does not exist (remembered, so
 * that a flood to it does not reach the store), or an anonymous guest who exists as long as a
 * session.
 *
 *   LOADING --store answers--> READY --no session, no work, 60 s--> freed
 *
 * While it is LOADING everything that concerns it waits in `parked`, in order of arrival. A user is
 * owned by the home; pins keep it (a kept IQ, a change being committed). */
#ifndef PEMBERLEY_USER_H
#define PEMBERLEY_USER_H

#include "node/home/home.h"
#include "proto/xmpp/jid.h"

struct conf_host;
struct giving;
struct roster;
struct session;
struct extras;
struct user;

/* Something to do with a user when it is there. run frees it; user is NULL when the store did not
 * answer in time. Embedded by whoever waits. */
struct work {
    struct list link;
    void (*run)(struct work *w, struct user *user);
    void (*drop)(struct work *w); /* it is to be done elsewhere now; NULL: run without a user */
    uint32_t bytes;               /* for limits.park_max */
};

/* The last time it became unavailable, and its status then (XEP-0012). */
struct last {
    int64_t us;
    char status[]; /* ends with a NUL */
};

enum user_state { USER_LOADING, USER_READY };

struct user {
    struct hnode node;
    struct home *home;
    struct session *sessions; /* by struct session.next, the oldest first */
    struct list *parked;      /* ring of struct work.link */
    struct list *changes;     /* the same: of the roster, one at a time (roster.h) */
    struct list rest;      /* home's list of users that nobody needs now, or of loads that failed */
    struct roster *roster; /* NULL: empty */
    struct giving *giving; /* offline messages on their way; NULL: none */
    int64_t created_us;
    struct last *last;      /* NULL: never */
    struct extras *extras;  /* what extensions keep (user_extra); NULL: nothing */
    uint64_t since_ms;      /* LOADING: since; resting: since */
    uint64_t astray;        /* a bit per resource: messages to these full JIDs may be among them */
    uint32_t offline_count; /* messages in the store that no session was given */
    uint32_t putting;       /* messages on their way into the store */
    uint32_t pins;
    enum user_state state : 8;
    bool exists : 1, disabled : 1, anonymous : 1;
    bool changing : 1, pumping : 1; /* the first of `changes` is in flight; they are being run */
    bool left : 1; /* its home is another: here until the store has answered what was asked */
    uint16_t bare_len;
    uint16_t slot;
    uint8_t host_metric; /* conf_host.metric, as long as it lives: gauges come back to zero */
    char bare[];
};

static inline str user_bare(const struct user *u) { return (str){u->bare, u->bare_len}; }
const struct conf_host *user_host(const struct user *u); /* NULL: no longer served */

/* Runs w now (when the user is in memory and ready) or later. Ownership of w moves here. */
void user_with(struct home *h, str bare, struct work *w);
/* The user if it is in memory, loading or not; else NULL: it has no session then. */
struct user *user_find(struct home *h, str bare);
/* A guest without account (host.auth anonymous): made now. */
struct user *user_anonymous(struct home *h, str bare);

/* What an extension keeps of an account while it is in memory: its own, from the hook `loaded` to
 * `forgotten` (chain.h). NULL: nothing, which costs nothing. */
enum user_extra {
    EXTRA_BLOCKING,
    EXTRA_ARCHIVE,
    EXTRA_PUBSUB,
    EXTRA_CAPS,
    EXTRA_AVATAR,
    EXTRA_PUSH,
    EXTRAS
};
void *user_extra(const struct user *u, enum user_extra which);
void user_set_extra(struct user *u, enum user_extra which, void *p);

/* It became unavailable then. */
void user_set_last(struct user *u, int64_t us, str status);

/* What it waits for is done elsewhere from now on. */
void work_drop(struct work *w);
/* Its home is another: sessions are handed over, what waits for it is dropped, all without effect.
 * u is gone, or in no table any more. */
void user_leave(struct user *u);

void user_pin(struct user *u);
void user_unpin(struct user *u);
void user_touch(struct user *u); /* rests when nobody needs it any more */

/* All sessions but `except` (may be NULL) end with this stream error; now, unless `except` is among
 * the callers up the stack. */
void user_end_sessions(struct user *u, err reason, struct session *except);
/* Ends everything between this account and its contacts, as they see it (unsubscribe, unsubscribed,
 * unavailable): before an account is removed. */
void user_cancel_subscriptions(struct user *u);
/* The store has removed (or added, or enabled, disabled) the account: its sessions end when it is
 * gone or disabled, and what is known of it is forgotten and loaded again when needed. */
void user_account_changed(struct user *u, bool exists, bool disabled);

#endif
