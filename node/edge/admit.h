/* admit: what a shard gives to those who come, so that those who are here do not wait for them. A
 * network that is back brings thousands at once, and a login costs as much as a hundred messages.
 *
 *   kernel's backlog --accept--> line of handshakes --> logins_waiting --> store, helper
 *          ^                            |                     |
 *          +--- accepting pauses while either is long --------+--too long--> told to come back
 *
 * - TLS handshakes (most of a login) wait in line (tls.h), in order, and get ADMIT_TURN_US of each
 *   turn, measured; one at least. A shard with nothing else to do has a turn after the other for
 *   them; in a busy one they lengthen each turn by so much and no more. That paces all that follows
 *   a handshake, too.
 * - Accepting pauses while the line holds ADMIT_LINE_US of work by what handshakes have cost
 * lately, or ADMIT_LOGINS logins wait for each place at the store (limits.logins_concurrent): who
 * comes then waits in the kernel, where he costs nothing and keeps his place.
 * - A login that finds limits.logins_queue_max others waiting, or has waited for
 *   limits.login_wait_max, or which the store does not answer, is told to come back, each client
 *   after a time of its own (admit_defer).
 *
 * A client that dawdles holds nobody up: only what waits for *us* is counted. */
#ifndef PEMBERLEY_EDGE_ADMIT_H
#define PEMBERLEY_EDGE_ADMIT_H

#include "pemberley/loop.h"

struct conn;
struct edge;

enum {
    ADMIT_TURN_US = 1000, /* for handshakes, of each turn */
    ADMIT_LINE_US = 250 * 1000,
    ADMIT_LOGINS = 16,
};

/* In struct edge. */
struct admission {
    struct loop_source source;
    uint64_t cost_us;         /* of a handshake, lately */
    uint64_t silent_until_ms; /* the log knows */
    bool sleeping;            /* the loop asks only whether there is work */
    bool closed;              /* accepting pauses */
};

void admit_start(struct edge *e);
void admit_stop(struct edge *e);
/* The line has changed: in the metrics, and for who wants to accept. */
void admit_look(struct edge *e);
/* May the next connection be accepted? Else listen_go_on is called when it may. */
bool admit_is_open(const struct edge *e);

enum admit_why { ADMIT_FULL, ADMIT_LATE, ADMIT_STORE };
/* Is the line of logins as long as it may be? */
bool admit_is_full(const struct edge *e);
/* Ends the stream with resource-constraint (RFC 6120 4.9.3.17), whose text says after how many
 * seconds to come back; the time is drawn, or all would come at once again. No failed login: the
 * client has done nothing wrong. */
void admit_defer(struct conn *c, enum admit_why why);

#endif
