/* edge: the role of a shard that holds connections. TCP and TLS, the XML stream, SASL, and the
 * edge's half of a session: it numbers what the client sends, makes each stanza once
 * (stanza_edited: from, to, xml:lang, prefixes), keeps what the home has not acked out of
 * reading's way (window), queues what the home sends, and speaks XEP-0198. Everything that is
 * decided about an account is decided by its home.
 *
 *   listen.c    accepting, limits per address;  throttle.c  what is remembered of addresses
 *   admit.c     how much time those who come are given, when they wait, when they are to come back
 *   proxied.c   a balancer's connection until it has said whose it is
 *   conn.c      bytes: transport, carry-over, scanning, closing;  output.c  what is to be written
 *   stream.c    the XML stream up to bind: header, features, what may come when, stream errors
 *   auth.c      SASL exchange: keys from the store, delay and counting of failures
 *   register.c  XEP-0077 before login
 *   c2s.c       the session's half: bind, resume, stanzas in, end
 *   sm.c        XEP-0198: h, acks, enable, the idle ping;  out.c  stanzas out, their queue
 *   drain.c     letting the connections go one after the other
 *
 * A stanza's way: transport -> conn_bytes -> xml_scan -> stream_item -> c2s_stanza -> channel_send
 * (FRAME_IN) … edge_frame (FRAME_OUT) -> c2s_on_out -> c2s_pump -> transport_write. */
#ifndef PEMBERLEY_EDGE_H
#define PEMBERLEY_EDGE_H

#include "node/conf/conf.h"
#include "node/node.h"

struct edge;

enum listener_kind { LISTENER_C2S, LISTENER_C2S_TLS };

struct edge *edge_new(struct node *n);
/* Takes the listening socket. owner: the shard whose queue of connections it is: a neighbour's
 * while that one is down, until edge_unlisten gives it back (stops accepting there and closes our
 * copy). */
void edge_listen(struct edge *e, enum listener_kind kind, unsigned owner, int fd);
void edge_unlisten(struct edge *e, unsigned owner);

/* BOUND RESUMED FAILED ENABLED OUT CLOSE STATE. Each is answered with channel_done exactly once. */
void edge_frame(struct edge *e, struct origin from, const struct frame *f);
/* A FRAME_IN (HOLD_EDGE_IN; the numbers are our own) is safe. */
void edge_settled(struct edge *e, struct hold h, bool lost);
/* This shard is a new home: it is told of all sessions and copies of its slots that are here, and
 * what their clients have taken lately (delivery.md 6). Their clients notice a pause. */
void edge_attach(struct edge *e, unsigned shard);
/* In a cluster, by rooms_adopt: the same for all slots that have moved, to their homes. */
void edge_attach_moved(struct edge *e);
bool edge_awaits(struct edge *e, const struct frame *f); /* a BOUND or RESUMED */
/* A BIND or RESUME is to be asked of another home. False: its answer is there already, or nobody
 * waits for it any more. Else f gets another number: what the first home answers is not heard. */
bool edge_asks_again(struct edge *e, struct frame *f);
/* A CLOSE of a home that was it when it said so, and is not any more. */
void edge_former_close(struct edge *e, const struct frame *f);

/* Another node takes less than we have for it: who sends something is not read any more, until it
 * is full no longer (delivery.md 5.3). */
void edge_bus_full(struct edge *e, bool full);

void edge_reload(struct edge *e); /* node->conf is the new one */
/* Lets the connections go, the oldest first, so many in so long (count 0: as fast as the loop stays
 * free for others), with system-shutdown, which leaves sessions resumable. Until edge_drain_stop;
 * those that come meanwhile go too. */
void edge_drain(struct edge *e, struct conf_rate rate);
void edge_drain_stop(struct edge *e);
void edge_let_all_go(struct edge *e);
/* Ends all streams with system-shutdown; done is called when the last connection is closed. */
void edge_stop(struct edge *e, void (*done)(void *ctx), void *ctx);
void edge_free(struct edge *e); /* after done */

/* One line per connection for `session show`; JSON objects are the home's work. */
size_t edge_connections(const struct edge *e);
void edge_sample(struct edge *e); /* memory_bytes of what is the edge's */

#endif
