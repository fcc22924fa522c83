/* proxied: a connection from listen.*.proxy_from until its PROXY header has come. The header stands
 * before everything else, TLS too, so this is the socket's first sink; what was received behind the
 * header goes on to the next one. After it the connection is like any other, of the address that
 * the header names: limits, logs, throttles and session lists know no other.
 *
 * Who may claim what: only peers within proxy_from, by their socket's address, are believed; from
 * anybody else a header is what any bytes that are no XMPP are. And an address is where a client
 * asks from only as far as it means the same to the balancer and to us. So privileges that hang on
 * an address (listen.c2s.plain_from, limits.exempt_from) are not given (`elsewhere`)
 *   - to a loopback or unspecified address claimed by a balancer that is not on loopback itself:
 * that is the balancer's machine, and the way from there to us is not loopback;
 *   - where the header names nobody (LOCAL, UNKNOWN, a unix socket's peer): the address is then the
 *     balancer's, and the client may be anywhere.
 * A balancer on loopback that names a loopback client speaks of this machine: that is believed.
 *
 * Life: proxied_open … the header (the conn takes the transport over), or the transport's closed().
 */
#ifndef PEMBERLEY_EDGE_PROXIED_H
#define PEMBERLEY_EDGE_PROXIED_H

#include "node/edge/listen.h"

/* Takes the transport over. The header must come whole within limits.preauth.header_timeout; it and
 * the client's time to log in count from now. */
void proxied_open(struct edge *e, enum listener_kind kind, struct transport *t);
/* Closes all that still wait. */
void proxied_stop(struct edge *e);

#endif
