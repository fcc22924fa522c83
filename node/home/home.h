/* home: the role of a shard that owns bare JIDs: accounts, and later rooms and services. The only
 * place where anything is decided about them, so there are no locks and no races: all that concerns
 * one bare JID passes here in one order.
 *
 *   home.c      frames in, the barrier, peers that die;  send.c  what leaves: stanzas, requests
 *   move.c      slots that come and go, in a cluster
 *   user.c      one account in memory: loading, parking, leaving
 *   session.c   a bound full JID: resume, detach, end;  bind.c  its begin;  outbound.c  its queue
 *   second.c    who else holds it;  attach.c  sessions of a home that died, made again
 *   inactive.c  what an inactive client need not have at once (XEP-0352)
 *   ended.c     what is known of one that has ended
 *   chain.c     where extensions act on a stanza's way
 *   from.c      what the sender's home does with a stanza of its client (the sender's rules)
 *   route.c     what the addressee's home does: RFC 6121 8 as one function (xmpp.md 3)
 *   presence.c  presence: initial, later, directed, probes, unavailable
 *   roster.c    roster get, set, push, versions;  subscription.c: RFC 6121 3 and appendix A
 *   offline.c   XEP-0160
 *   blocked.c   whom an account has blocked (XEP-0191)
 *   iq.c        IQ to the account or the server: look-up of the handler, replies
 *   admin.c, admin_host.c   commands from the CLI that name an account, or a host
 *
 * A stanza's way: home_frame(FRAME_IN) -> session_in -> from_stanza -> channel_send(FRAME_ROUTE) …
 * home_frame(FRAME_ROUTE) -> route_stanza -> session_send -> channel_send(FRAME_OUT). */
#ifndef PEMBERLEY_HOME_H
#define PEMBERLEY_HOME_H

#include "node/node.h"

struct home;
struct conf_host;

struct home *home_new(struct node *n);
/* The barrier (delivery.md 5.2, 6): routes and logins wait until each other shard has said what it
 * holds of a former home of these slots (ATTACHED), or is late. Called before the first frame. */
void home_await_others(struct home *h);
/* BIND RESUME ENABLE IN CACK DETACH END ROUTE, ATTACH QUEUED KNOWN ATTACHED. channel_done exactly
 * once each, when safe. */
void home_frame(struct home *h, struct origin from, const struct frame *f);
/* A settled hold of HOLD_MIRROR. */
void home_settled(struct home *h, struct hold hold, bool lost);
/* A shard has died: the sessions of its edge are detached, or end where they cannot be resumed;
 * those that it held a copy of get another holder. */
void home_peer_down(struct home *h, unsigned shard);
/* One is there again: it may hold copies. */
void home_peer_up(struct home *h, unsigned shard);
/* In a cluster, by rooms_adopt: node->ring is another. What has left us is handed over and
 * forgotten, what has come waits. Then, when this shard's edge and copies have told what they hold:
 * second holders are looked at anew, and all is said to have been told. */
void home_adopt(struct home *h);
void home_has_attached(struct home *h);
void home_epoch_settled(struct home *h, uint64_t epoch);
void home_sample(struct home *h); /* memory_bytes of what is the home's */
void home_reload(struct home *h);
/* All sessions end; what was not delivered is stored; done when the store has it. */
void home_stop(struct home *h, void (*done)(void *ctx), void *ctx);
void home_free(struct home *h);

/* A command of the control socket (argv[0]: user-add, user-passwd, user-remove, user-list,
 * user-show, user-sessions, user-kick; user-disable, user-enable, user-roster, users-online,
 * announce: admin_host.c). Answered once: exit code of operator.md 3 and JSON, or a sentence. */
typedef void home_answer_f(void *ctx, int exit_code, str json_or_sentence);
void home_command(struct home *h, const str *argv, size_t argc, home_answer_f *answer, void *ctx);

#endif
