/* roster: a user's contacts (RFC 6121 2) in memory, their versions, and the requests that wait for
 * the user's answer. What the store has not committed is not here yet: a change is a work in
 * user->changes; they are done one after the other, each: look at the state, ask the store, apply,
 * tell (xmpp.md 4, "change of state"). */
#ifndef PEMBERLEY_ROSTER_H
#define PEMBERLEY_ROSTER_H

#include "node/home/iq.h"
#include "node/home/user.h"

/* = Store__Subscription; bits TO and FROM */
enum subscription { SUB_NONE, SUB_TO, SUB_FROM, SUB_BOTH };

struct item {
    struct hnode node;
    uint64_t version; /* of its last change */
    uint8_t subscription;
    bool ask, approved; /* pending out; pre-approved (RFC 6121 3.4) */
    bool removed;       /* a tombstone: for versions only */
    uint16_t groups;
    uint16_t contact_len, name_len;
    char text[]; /* contact, name, then groups: each 2 bytes of length and its bytes */
};
static inline str item_contact(const struct item *i) { return (str){i->text, i->contact_len}; }
static inline str item_name(const struct item *i)
{
    return (str){i->text + i->contact_len, i->name_len};
}
str item_group(const struct item *i, unsigned n);

/* A subscription request that waits for the user (RFC 6121 3.1.3). */
struct pending {
    struct list link;
    struct stanza *stanza;
    int64_t us;
    uint16_t contact_len;
    char contact[];
};

struct roster {
    struct htable items; /* tombstones too */
    struct list pending;
    uint64_t version, log_floor;
    uint32_t count, pending_count; /* items that are no tombstones */
};

/* The item of a contact, NULL when there is none. */
const struct item *roster_find(const struct user *u, str contact);
struct pending *roster_pending(const struct user *u, str contact);
/* May `bare` see this account's presence (from, both, or its own)? */
bool roster_sees_us(const struct user *u, str bare);
typedef void roster_each_f(const struct item *i, void *ctx);
void user_roster_each(const struct user *u, roster_each_f *fn, void *ctx);

void roster_iq_get(struct iq *q);
void roster_iq_set(struct iq *q);
str roster_xml(const struct user *u, struct arena *a); /* the whole <query/> */

/* ---- for subscription.c, user.c, presence.c ---- */

/* What a change makes of one contact; the store has it before memory has. The first member of what
 * embeds it: change_end frees that. */
struct change {
    struct work work; /* in user->changes; run: look and submit, or give up */
    struct user *user;
    struct ticket *ticket; /* an effect is open; may be NULL */
    struct stanza *stanza; /* the cause; may be NULL */
    uint64_t sid;          /* the session that waits; 0: none */
    str contact;           /* rests with the change */
    struct item *item;     /* next state of the contact; NULL: unchanged */
    int64_t us;
    bool pending_put, pending_remove;
    void (*committed)(struct change *c, err e); /* memory is up to date; frees c by change_end */
};
/* Takes an effect of the ticket and a reference of the stanza; its session waits (sid). Runs now or
 * behind the others. */
void change_start(struct user *u, struct change *c);
/* Asks the store for c->item, c->pending_*; then applies it and calls committed. */
void change_submit(struct change *c);
/* Frees c; the next change runs. */
void change_end(struct change *c);

struct item *item_new(str contact, str name, const str *groups, unsigned n);
struct item *item_copy(const struct item *i, str contact); /* i may be NULL: a bare new one */
/* The item's push to every interested session. */
void roster_push(struct user *u, const struct item *i, struct ticket *t);
struct roster *roster_of(struct user *u); /* made when there is none */
void roster_free(struct user *u);         /* u->roster is NULL then */
struct Store__User;
void roster_load(struct user *u, const struct Store__User *from);

#endif
