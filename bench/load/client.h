/* client: one XMPP client of the load generator, on our own loop: connect, STARTTLS or direct TLS
 * or none, SCRAM, bind or resume, then stanzas in and out as callbacks. What is queued within a
 * turn goes out as one write: the server's cost is measured here, not the client's.
 *
 * Nouns: *rig* is what all clients of the process share; a *client* is one account's device. It may
 * have many connections in its life, one at a time; the *husk* of a former one ends by itself.
 *
 *     client_open -> logging in -> READY -> client_cut, client_open again …
 *                          \          \-> client_close -> CLOSED
 *                           \-> FAILED (said once, with a reason; client_open again is allowed,
 *                                       but not from within the callback)
 *
 *   client.c     bytes, and the life of connections
 *   negotiate.c  from the stream header to ready: RFC 6120 4-7, XEP-0198 5
 *   kept.c       with rig.keep: stanzas that the server has not acknowledged yet
 *   source.c     which address of ours it connects from */
#ifndef PEMBERLEY_BENCH_CLIENT_H
#define PEMBERLEY_BENCH_CLIENT_H

#include <netinet/in.h>

#include "node/os/os.h"
#include "node/tls/tls.h"
#include "pemberley/arena.h"
#include "pemberley/buf.h"
#include "proto/sasl/scram_client.h"
#include "proto/xml/xml.h"

enum security { SECURITY_PLAIN, SECURITY_STARTTLS, SECURITY_TLS };

uint64_t now_us(void); /* CLOCK_MONOTONIC, now: the loop's time is as old as its turn */

struct client;
struct client_calls {
    void (*ready)(struct client *c); /* bound or resumed; with presence, when that was answered */
    void (*stanza)(struct client *c, str item, const struct xml_index *x);
    void (*roster)(struct client *c, str item); /* its answer, with presence */
    void (*acked)(struct client *c);            /* with keep: nothing is unacknowledged any more */
    void (*failed)(struct client *c, const char *why);
    void (*closed)(struct client *c); /* after client_close */
};

/* Which of the loopback addresses the clients have. Automatic (count 0): 127.NET.U.X, U by unit (0
 * to 15), so that bench_limit can have all ends of a unit in one process; X by client, 4,000 to
 * one; NET is another one in each run, because a client that was killed leaves its ports in
 * TIME_WAIT. */
struct sources {
    uint32_t first; /* host order */
    uint32_t count; /* clients take them in turn */
};
/* "127.0.0.9" or "127.0.0.9+16" */
bool sources_parse(struct sources *s, const char *text);
void sources_fresh(struct sources *s, uint32_t run);
uint32_t source_of(const struct sources *s, unsigned index, unsigned unit);

enum { RIG_SERVERS_MAX = 16 };
struct rig {
    struct loop *loop;
    struct tls *tls;
    struct xml_scan *scan;
    struct arena turn; /* reset by whoever runs the loop, after each turn */
    struct clock clock;
    struct entropy_real entropy;
    struct scram_salted salted; /* all accounts have one password, salt and count */
    enum scram_hash mechanism;
    struct sockaddr_in servers[RIG_SERVERS_MAX]; /* a client begins at its index, see server_next */
    unsigned servers_n;
    struct sources sources;
    enum security security;
    const char *host, *prefix, *password;
    bool sm;       /* XEP-0198 with resumption; the server's <r/> are answered */
    bool keep;     /* what is sent is kept until acknowledged, and sent again when resumed */
    bool tickets;  /* a later connection resumes the TLS session of the one before */
    bool presence; /* roster get and initial presence once bound */
    bool has_header;
    struct xml_header header; /* of the server's streams: they are all alike */
    const struct client_calls *calls;
};

enum client_step {
    CLIENT_NEW,
    CLIENT_CONNECT,
    CLIENT_TLS,
    CLIENT_FEATURES,
    CLIENT_PROCEED,
    CLIENT_CHALLENGE,
    CLIENT_SUCCESS,
    CLIENT_BIND,
    CLIENT_ENABLED,
    CLIENT_RESUMED,
    CLIENT_ROSTER,
    CLIENT_PRESENCE,
    CLIENT_READY,
    CLIENT_CLOSING, /* </stream:stream> has been sent */
    CLIENT_FAILED,
    CLIENT_CLOSED,
};

enum { SM_ID_MAX = 128 };
struct client {
    struct rig *rig;
    unsigned index, unit, user; /* of all clients; the account is <prefix><user>@<host> */
    unsigned resource;
    unsigned tried;  /* connections so far */
    unsigned server; /* of the rig's: where its newest one goes */
    struct transport *transport;
    struct op connecting;
    int fd;            /* the transport's */
    struct buf *carry; /* the beginning of an item */
    struct buf *out, *flying;
    size_t flying_off;
    struct turn_hook hook;
    struct scram_client *scram;
    struct arena login; /* until SASL has succeeded */
    struct tls_session *ticket;
    uint64_t began_us; /* client_open */
    uint32_t handled;  /* XEP-0198: stanzas since <enabled/> */
    uint32_t acked;    /* the server's newest h */
    struct list kept;  /* kept.c's, oldest first: number acked + 1 and on */
    char sm_id[SM_ID_MAX];
    enum client_step step : 8;
    bool secured, authenticated, upgrading; /* upgrading: TLS begins once nothing flies */
    bool enabled, asked;                    /* XEP-0198; asked: an <r/> is open */
    bool resumed, tls_resumed;              /* the newest connection's */
    bool paused;                            /* client_pause */
};

void client_init(struct client *c, struct rig *r, unsigned index, unsigned unit, unsigned user,
                 unsigned resource);
/* Connects and logs in; if there is a session with XEP-0198, resumes it. */
void client_open(struct client *c);
/* Raw bytes: what is no stanza, and stanzas of a rig that does not keep. */
void client_put(struct client *c, str xml);
void client_send(struct client *c, str stanza);
/* The connection is reset (RST, so that no port of ours waits), nothing is said. */
void client_cut(struct client *c);
/* Forgets the session, so that client_open makes a new one. */
void client_forget(struct client *c);
/* </stream:stream>; the server closes. */
void client_close(struct client *c);
void client_pause(struct client *c); /* reads no more */
void client_resume(struct client *c);
static inline bool client_is_busy(const struct client *c) { return c->flying || c->out; }
/* "<prefix><user>@<host>/r<resource>" in the arena. */
str client_jid(const struct client *c, struct arena *a);

/* ---- between its files ---- */

void client_fail(struct client *c, const char *why);
void client_start_tls(struct client *c);
void client_header(struct client *c); /* the stream begins, or begins anew */
void client_element(struct client *c, str item, const struct xml_index *x);
void client_drop_login(struct client *c); /* a login that did not come to its end */

void kept_put(struct client *c, str stanza);
void kept_ask(struct client *c);               /* an <r/> if one is due */
void kept_acked(struct client *c, uint32_t h); /* the server has them up to h */
void kept_again(struct client *c);             /* after <resumed/> */
void kept_drop(struct client *c);

#endif
