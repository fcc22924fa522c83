/* chain: the places on a stanza's way where extensions act, at the sender's home and at the
 * addressee's. node/xep/chains.def has each place with its hooks, in their order, and why; a hook
 * runs when its extension is active for the account's host (xep.h).
 *
 *   sent      a client's stanza, before anything is done with it: refused, changed, copied
 *   received  a stanza that has come to an account for the first time, before the choice of
 *             resources
 *   known     one that was handled by a former home: what that may not have finished
 *   given     a message, after the choice of resources: route_gave tells who has got it
 *   bound     a session begins by XEP-0386: what its client wants on from the start
 *   shown     a session's broadcast presence has changed
 *   loaded, forgotten   an account comes into memory, leaves it */
#ifndef PEMBERLEY_HOME_CHAIN_H
#define PEMBERLEY_HOME_CHAIN_H

#include "node/home/session.h"
#include "node/home/user.h"

struct route;
struct Store__User;

/* What a client sends. */
struct sent {
    struct stanza *stanza;
    struct stanza *made; /* by sent_replace; NULL: it is as it came */
    struct jid to; /* whom it is for: of a message or request without `to` the own bare JID; of
                      a broadcast nobody */
    struct ticket *ticket;
    str archive_id; /* of its entry in the sender's archive; empty: there is none */
};
/* What goes on is this from now on; the reference is the chain's. */
void sent_replace(struct sent *m, struct stanza *with);

/* A session has just been bound by XEP-0386; nothing was given to it yet. */
struct binding {
    struct xml_el bind;      /* <bind/>: what its client wants on, beside XEP-0198 */
    struct xml_writer bound; /* within <bound/>: what is said of it */
};

enum shown_change {
    SHOWN_INITIAL,
    SHOWN_LATER,
    SHOWN_GONE,
    SHOWN_RESTORED, /* as it was at a former home: the session has been made again */
};

/* false: it goes no further; the hook has answered it, or nobody is to answer. */
typedef bool chain_sent_f(struct session *s, struct sent *m);
typedef bool chain_received_f(struct user *u, struct route *r);
typedef void chain_known_f(struct user *u, struct route *r);
typedef void chain_given_f(struct user *u, struct route *r);
typedef void chain_bound_f(struct session *s, struct binding *b);
typedef void chain_shown_f(struct session *s, enum shown_change change, struct ticket *t);
typedef void chain_loaded_f(struct user *u, const struct Store__User *from);
typedef void chain_forgotten_f(struct user *u);

chain_sent_f chain_sent;
chain_received_f chain_received;
chain_known_f chain_known;
chain_given_f chain_given;
chain_bound_f chain_bound;
chain_shown_f chain_shown;
/* Whether active or not: that may change while the account is here. */
chain_loaded_f chain_loaded;
chain_forgotten_f chain_forgotten;

#endif
