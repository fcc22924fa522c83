/* fast: tokens in place of passwords (XEP-0484), and what is remembered of the clients that have
 * them, or that have logged in otherwise (XEP-0494).
 *
 * A token is HMAC(cluster's secret; account, client, mechanism, nonce, expiry) in base64: the store
 * keeps the nonce and the expiry, so that nobody makes a token of what is read there, and one of
 * another client or for another mechanism is another token. Of each client two are good: the one in
 * use, and a fresh one, which takes its place when it is used.
 *
 * No request is taken from TLS early data, which is off: `count` is looked at wherever it comes. */
#ifndef PEMBERLEY_EDGE_FAST_H
#define PEMBERLEY_EDGE_FAST_H

#include "node/edge/sasl2.h"

/* <fast/> among what is inline. */
void fast_put_features(struct conn *c, struct xml_writer *w);
/* <fast/> and <request-token/> of an <authenticate/>. False: they make no sense. */
nodiscard bool fast_read(struct conn *c, const struct xml_el *request);
/* The tokens of the attempt's user and client; then auth_answer. */
void fast_fetch(struct conn *c);
/* One was right, and word proves that to the client. It is used up, rotated, invalidated in the
 * store as was asked for; then auth_succeed, or a failure. */
void fast_use(struct conn *c, str word);
/* It has logged in by other means: the client is noted, and given a token if it wants one; then
 * sasl2_go_on. */
void fast_note(struct conn *c);

#endif
