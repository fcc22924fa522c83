/* client: one XMPP client of the load generator, on our own loop: connect, STARTTLS or direct TLS
 * or none, SCRAM-SHA-256, bind, then stanzas in and out as callbacks. What is queued within a turn
 * goes out as one write: the server's cost is measured here, not the client's.
 *
 * Nouns: *rig* is what all clients of the process share; a *client* is one connection. Life:
 * clients live as long as the process. A client that fails says so once (failed), with a reason. */
#ifndef PEMBERLEY_BENCH_CLIENT_H
#define PEMBERLEY_BENCH_CLIENT_H

#include "node/os/os.h"
#include "node/tls/tls.h"
#include "pemberley/arena.h"
#include "pemberley/buf.h"
#include "proto/sasl/scram_client.h"
#include "proto/xml/xml.h"

enum security { SECURITY_PLAIN, SECURITY_STARTTLS, SECURITY_TLS };

struct client;
struct client_calls {
    void (*ready)(struct client *c); /* bound; with presence, when that has been answered */
    void (*stanza)(struct client *c, str item, const struct xml_index *x);
    void (*failed)(struct client *c, const char *why);
};

struct rig {
    struct loop *loop;
    struct tls *tls;
    struct xml_scan *scan;
    struct arena turn; /* reset by whoever runs the loop, after each turn */
    struct clock clock;
    struct entropy_real entropy;
    struct scram_salted salted; /* all accounts have one password, salt and count */
    struct sockaddr_storage server;
    socklen_t server_len;
    enum security security;
    const char *host, *prefix, *password;
    bool sm;       /* XEP-0198 with resumption; the server's <r/> are answered */
    bool presence; /* roster get and initial presence once bound */
    bool has_header;
    struct xml_header header; /* of the server's streams: they are all alike */
    const struct client_calls *calls;
};

enum client_step {
    CLIENT_TLS,
    CLIENT_FEATURES,
    CLIENT_PROCEED,
    CLIENT_CHALLENGE,
    CLIENT_SUCCESS,
    CLIENT_BIND,
    CLIENT_ENABLED,
    CLIENT_ROSTER,
    CLIENT_PRESENCE,
    CLIENT_READY,
    CLIENT_FAILED,
};

struct client {
    struct rig *rig;
    unsigned index, user; /* of all clients; the account is <prefix><user>@<host> */
    unsigned resource;
    uint32_t handled; /* XEP-0198: stanzas since <enabled/> */
    void *owner;
    struct transport *transport;
    struct buf *carry; /* the beginning of an item */
    struct buf *out, *flying;
    size_t flying_off;
    struct turn_hook hook;
    struct scram_client *scram;
    struct arena login; /* until SASL has succeeded */
    enum client_step step : 8;
    bool secured, authenticated, upgrading; /* upgrading: TLS begins once nothing flies */
};

/* Connects from 127.0.p.x: x by index, so that ports suffice; p by pair, so that bench_limit can
 * have both ends of a pair in one process. */
void client_open(struct client *c, struct rig *r, unsigned index, unsigned user, unsigned resource);
void client_put(struct client *c, str xml);
/* "<prefix><user>@<host>/r<resource>" in the arena. */
str client_jid(const struct client *c, struct arena *a);

#endif
