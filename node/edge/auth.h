/* auth: the SASL exchange of one stream (RFC 6120 6): keys from the store, PLAIN's derivation on
 * the helper thread, failures counted per stream, address and account, and told late. Reading
 * pauses while an answer is under way. */
#ifndef PEMBERLEY_EDGE_AUTH_H
#define PEMBERLEY_EDGE_AUTH_H

#include "node/edge/stream.h"
#include "proto/bus/store.pb-c.h"

/* Fills the negotiation's offer from TLS, configuration and host. */
void auth_offer(struct conn *c);
/* <mechanisms/> and <sasl-channel-binding/> of the offer. */
void auth_put_features(struct conn *c, struct xml_writer *w);
/* A <mechanism/> each. */
void auth_put_mechanisms(const struct sasl_offer *o, struct xml_writer *w);
/* One attempt; initial: as it came, in base64, NULL: none. */
void auth_start(struct conn *c, str mechanism, const str *initial);
/* Is an exchange under way? */
bool auth_is_going_on(const struct negotiation *n);
/* <failure/> of the profile that is spoken; extra: XML beside the condition, may be empty. */
void auth_put_failure(struct conn *c, err reason, str extra);
/* The attempt goes on with this verdict. */
void auth_answer(struct conn *c, struct sasl_answer a);
/* It has proven who it is; additional: the mechanism's last word. */
void auth_succeed(struct conn *c, str additional);
/* Asks the store on behalf of this login: the client is not read meanwhile. done is called if it is
 * there then. */
typedef void auth_reply_f(struct conn *c, err e, const struct Store__Reply *reply);
void auth_ask(struct conn *c, Store__Request *r, auth_reply_f *done);
/* The same, and nobody waits for it. */
void auth_tell(struct conn *c, Store__Request *r);
void auth_begin(struct conn *c, str item, const struct xml_index *x);
void auth_response(struct conn *c, str item, const struct xml_index *x);
void auth_abort(struct conn *c, str item, const struct xml_index *x);
/* Tells a failure after its delay; the stream ends with the last try. */
void auth_fail(struct conn *c, err reason);
/* An exchange that is under way ends with temporary-auth-failure (RFC 6120 6.5.10), at once, and
 * nobody is charged for it. */
void auth_put_deferred(struct conn *c, str text);
/* How many at once may have something asked of the store or the helper thread. */
size_t auth_jobs_max(const struct edge *e);
/* It waits for its turn no longer. Whether it did. */
bool auth_stop_waiting(struct negotiation *n);

#endif
