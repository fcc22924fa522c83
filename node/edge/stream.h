/* stream: the XML dialogue on a connection up to a bound session (RFC 6120 4-7): headers, features
 * by stage, the table of what may come when, STARTTLS, bind; and how a stream ends. What a stream
 * needs only until then is its *negotiation*, freed at bind: an idle session does not pay for its
 * login. */
#ifndef PEMBERLEY_EDGE_STREAM_H
#define PEMBERLEY_EDGE_STREAM_H

#include "node/edge/conn.h"
#include "proto/sasl/sasl.h"

/* The client's header, shared by all conns that sent an equal one. */
struct header {
    struct hnode node;
    uint32_t refs;
    uint16_t lang_n;
    char lang[EDGE_LANG_ATTR_MAX]; /* ` xml:lang='…'` of the stream, for its stanzas; n 0: none */
    struct xml_header xml;         /* allocated as far as its prefixes reach */
};

enum { SASL_VERSION_N = 24 };

struct negotiation {
    struct conn *conn;
    struct hnode by_number;
    uint64_t number;     /* of the conn, for whoever is asked for something */
    str host;            /* own memory: the stream's `to`, prepared; empty before the header */
    str bare;            /* own memory: who has logged in */
    str bind_id;         /* own memory: of the bind request, escaped */
    str from;            /* own memory: the bare JID of the header's `from`, or empty */
    struct sasl2 *sasl2; /* XEP-0388 is spoken; NULL: RFC 6120's SASL, or nothing yet */
    bool anonymous;
    bool vouched; /* by somebody else, without a password */
    struct sasl sasl;
    struct sasl_offer offer;
    char version[SASL_VERSION_N]; /* of the features shown, by which a client knows them again */
    struct list waiting;          /* for its turn to be worked on */
    struct timer delay; /* a failure waits to be told, or that turn has not come in time */
    err failure;
    unsigned tries, refusals; /* failed logins; those refused before any key was looked at */
};

struct negotiation *negotiation_new(struct conn *c);
/* Whoever has its number from before does not find it any more. */
void negotiation_renumber(struct negotiation *n);
void negotiation_free(struct negotiation *n); /* NULL is fine */
/* Replaces *s by a copy in memory of its own. */
void negotiation_keep(str *s, str value);

/* One item that the scanner accepted. index is valid until the next scan. */
void stream_item(struct conn *c, enum xml_item what, str item, const struct xml_index *index);
/* Bytes that are no XMPP. */
void stream_bad(struct conn *c, err e);
/* The scanner's header for items; NULL while a header is awaited. */
const struct xml_header *stream_header(const struct conn *c);
void stream_header_unref(struct edge *e, struct header *h);
str stream_host(const struct conn *c);
/* What this step offers. */
void stream_put_features(struct conn *c);
/* A new header is awaited: TLS or SASL has succeeded. */
void stream_restart(struct conn *c);
/* Our end of the stream, after its header if that had not been sent. */
void stream_put_end(struct conn *c, err reason, str extra);

/* Deadlines: milliseconds to the next look; 0: none (the stream may have been ended). */
uint64_t stream_deadline_ms(const struct conn *c);
uint64_t stream_tick(struct conn *c);

/* May this client log in without TLS? */
bool stream_plain_allowed(const struct conn *c);
/* <iq type='error'/> outside of a session's count; id as it stands in the XML. */
void stream_put_iq_error(struct conn *c, str raw_id, err e);
str stream_id_attr(str item, const struct xml_index *x, struct arena *a); /* escaped value */

/* BOUND has come: a session, or the error for the bind request. */
void stream_bound(struct conn *c, const struct frame *f);
/* RESUMED has come, or FAILED: the client may bind. */
void stream_resumed(struct conn *c);

#endif
