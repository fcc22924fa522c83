/* conn: one client's connection: bytes in and out, and when it ends.
 *
 *   in    transport -> conn_bytes -> xml_scan -> stream_item. Bytes are scanned where they were
 *         received; only the tail of an incomplete item is carried over, with the scanner's saved
 *         state, and freed as soon as the item is complete.
 *   out   conn_put… -> output -> one transport_write in flight, at the end of the turn
 *   end   conn_end (we end it: stream error, close tag), conn_lost (it broke), conn_drop (now)
 *
 * Reading pauses while anybody has a reason to (enum conn_pause); what was received already waits
 * in the carry buffer. Nothing is scanned from inside conn_resume: it happens at the end of the
 * turn.
 *
 * Life: conn_open … transport's closed(), which frees it. Timers, orders to the store and the
 * helper thread name a conn by its negotiation's number, so that they may come back after its end.
 */
#ifndef PEMBERLEY_EDGE_CONN_H
#define PEMBERLEY_EDGE_CONN_H

#include "node/edge/inside.h"
#include "node/edge/output.h"
#include "pemberley/transport.h"

struct negotiation;
struct c2s;
struct header;

enum conn_pause {
    PAUSE_WINDOW = 1 << 0, /* too many stanzas are not safe yet */
    PAUSE_LOGIN = 1 << 1,  /* the store or the helper thread is asked */
    PAUSE_HOME = 1 << 2,   /* BOUND or RESUMED is awaited */
    PAUSE_RATE = 1 << 3,
    PAUSE_TLS = 1 << 4,     /* between <starttls/> and TLS */
    PAUSE_OUTPUT = 1 << 5,  /* it does not read our answers */
    PAUSE_INBOUND = 1 << 6, /* the shard has too many bytes that are not safe yet */
    PAUSE_BUS = 1 << 7,     /* another node does not take what goes there */
};

/* Where the stream is (stream.c has the table). */
enum step {
    STEP_HEADER, /* the client's stream header is awaited */
    STEP_TLS,    /* only STARTTLS is offered */
    STEP_LOGIN,  /* SASL */
    STEP_BIND,   /* logged in */
    STEP_BOUND,
    STEPS
};

struct conn {
    struct edge *edge;
    struct transport *transport;
    struct list link;
    struct negotiation *negotiation; /* until bound or resumed */
    struct c2s *session;             /* from then on */
    struct header *header;           /* of the client's stream; shared */
    struct throttle_entry *address;  /* NULL: exempt */
    struct timer timer;              /* the next deadline: login, ping, stall, close */
    struct rate_hold *rate_hold;     /* reading waits for a rate; NULL: it does not */
    struct turn_hook hook;           /* feed what waits, flush */

    struct carried *carried; /* received, not scanned to the end of an item; NULL: nothing */
    uint32_t whitespace;     /* keepalive bytes lately */

    uint32_t flying; /* bytes of out in the transport */
    struct output out;
    struct bucket stanza_rate, byte_rate;
    uint64_t opened_ms, heard_ms, wrote_ms, bytes_in, bytes_out;
    uint32_t counted_out; /* of out, in the metrics */

    err end_reason : 8; /* what the log says */
    enum step step : 8;
    enum listener_kind listener : 8;
    unsigned pauses : 8;
    bool stopped : 1; /* the transport was told to pause */
    bool secured : 1, authenticated : 1, exempt : 1;
    bool elsewhere : 1;                 /* its address is in no network of ours (proxied.h) */
    bool header_sent : 1, declared : 1; /* ours; theirs: <?xml?> of this stream was seen */
    bool upgrading : 1;                 /* <proceed/> is on its way */
    bool pinged : 1;                    /* an answer to our ping is awaited */
    bool feeding : 1;                   /* conn_feed is on the stack */
    bool handshaking : 1;               /* TLS is not open: nothing may be written */
    bool left : 1;                      /* the peer will send no more */
    bool ending : 1, closing : 1;       /* no more input; transport_close was called */
};

/* Takes the transport over and starts the stream's clocks. */
struct conn *conn_open(struct edge *e, struct transport *t, enum listener_kind kind);
/* Its clocks run from then: before it was a conn it was a connection. */
void conn_opened_at(struct conn *c, uint64_t ms);
/* Whether the networks of limits.exempt_from and listen.c2s.plain_from count for it: not when it is
 * elsewhere (proxied.h). */
void conn_place(struct conn *c, bool elsewhere);
bool conn_is_in(const struct conn *c, struct conf_list nets);
/* For the transport: STARTTLS and direct TLS put theirs around the plain one. */
extern const struct transport_sink conn_sink;

/* By the number of its negotiation. */
struct conn *conn_find(struct edge *e, uint64_t number);
/* For what is no session stanza (those have a bounded queue of their own): answers to what the peer
 * sends. Its reading pauses while too many of them wait. */
void conn_put(struct conn *c, str xml);
void conn_put_cstr(struct conn *c, const char *xml);
void conn_at_turn_end(struct conn *c); /* have it fed and flushed */
void conn_pause(struct conn *c, enum conn_pause why);
void conn_resume(struct conn *c, enum conn_pause why);

/* One stanza more, or an element of XEP-0198, which costs us as much: over the rate reading
 * pauses. */
void conn_charge_stanza(struct conn *c);

/* Ends the stream: its header if it had none, the stream error (unless ERR_OK or a LOCAL one),
 * extra inside the error, the close tag; then the transport. The session is let go as the error
 * says, unless the home knows already (conn->session is NULL then). A second end does nothing. */
void conn_end(struct conn *c, err reason);
void conn_end_extra(struct conn *c, err reason, str extra);
/* The connection broke: the session is lost, nothing is written. */
void conn_lost(struct conn *c, err reason);

/* The client is logged in: not a stranger any more for the limits. */
void conn_authenticated(struct conn *c);
/* A write has begun: look after it when it should have ended. */
void conn_set_stall_timer(struct conn *c);
void conn_address(const struct conn *c, struct sockaddr_storage *out);
uint16_t conn_tls_version(const struct conn *c); /* 0x0304; 0: none */
/* "192.0.2.1:5222", in the arena. */
str conn_address_text(const struct conn *c, struct arena *a);

#endif
