/* node/tls: TLS on top of any transport, the certificates it shows, and the helper thread for what
 * is too slow for the loop (helper.h). BoringSSL lives here and in proto/sasl only.
 *
 * Nouns: *tls* is a shard's TLS: one SSL_CTX, ticket keys, scratch memory, the current generation
 * of certificates. A *generation* is one sealed memfd with every host's chain and key: the
 * supervisor builds it, all shards map the same pages. A TLS *transport* wraps a lower one and is
 * its sink.
 *
 * What it does not do, on purpose: renegotiation, compression, early data, TLS < 1.2, session ids,
 * tickets for TLS 1.2 (their key would open recordings). One thread: that of the loop. */
#ifndef PEMBERLEY_NODE_TLS_H
#define PEMBERLEY_NODE_TLS_H

#include "pemberley/arena.h"
#include "pemberley/clock.h"
#include "pemberley/err.h"
#include "pemberley/loop.h"
#include "pemberley/transport.h"

struct tls;

enum {
    TLS_SECRET_SIZE = 32,
    /* Over a socket: as the loop's LOOP_RECV_MAX, but plaintext: with the record of which all but
     * the end had been there before. */
    TLS_RECV_MAX = LOOP_RECV_MAX + 16384,
};

struct tls_config {
    uint16_t version_min;        /* tls.version_min: 0x0303 or 0x0304 */
    uint32_t ticket_lifetime_s;  /* tls.ticket_lifetime; 0: no tickets */
    const unsigned char *secret; /* 32 bytes, the same in all shards that shall resume each other's
                                  * sessions; ticket keys are derived from it and the time */
    struct clock *clock;         /* kept: ticket keys follow it */
};

/* Never fails (must: the library could not be set up). Everything but clock is copied. */
struct tls *tls_new(const struct tls_config *c);
/* How long the key that seals tickets now has done so; 0 without tickets. */
int64_t tls_ticket_key_age_s(int64_t now_s, int64_t lifetime_s);
/* For what starts from now on; handshakes in progress keep what they have. */
void tls_configure(struct tls *t, const struct tls_config *c);
/* All transports must have been freed. */
void tls_free(struct tls *t);

/* Takes a generation (borrows fd, which may be closed afterwards) for all handshakes that start
 * from now on; the old one goes with its last handshake in progress. Call it between turns.
 * ERR_BAD: not a sealed, well-formed generation; ERR_IO: it cannot be mapped; the old one stays. */
err tls_take_certs(struct tls *t, int fd) nodiscard;

/* Which port: decides what the client may say in ALPN. */
enum tls_use {
    TLS_DIRECT,   /* XEP-0368: no ALPN, or one with xmpp-client; else no_application_protocol */
    TLS_STARTTLS, /* RFC 6120 5: ALPN is ignored */
};

/* Wraps low and becomes its sink and owner; frees it with itself. Nothing may be in flight on low
 * (STARTTLS: call it from written() of <proceed/>; whatever came behind <starttls/> is dropped by
 * the caller, RFC 6120 5.4.3.3) and low's reading goes on as it was (pause and resume are passed
 * on). The owner sets sink and owner of the result before the next byte can come.
 *
 * The certificate is that of the hello's SNI; if it names none or one we do not know, that of
 * starttls_host (the `to` of the stream header; may be empty), or of the generation's first host.
 *
 * The contract of transport.h holds, and:
 * - opened() comes once, before the first bytes(); write() before it is a must.
 * - bytes() brings the records of one piece of input together, at most 64 KiB.
 * - write() takes up to 16 KiB and has copied them when it returns; it and close() and pause()
 *   may be called from any callback. After close(graceful) nothing is taken: write() is a must.
 * - close(graceful): what is in flight, close_notify, FIN; bytes() may still come.
 * - closed(ERR_TLS): the peer broke the rules or agrees to nothing (tls_failure says what; it was
 *   sent an alert where there was one to send); ERR_CLOSED: it went away in the handshake. */
struct transport *tls_server_open(struct tls *t, struct transport *low, enum tls_use use,
                                  str starttls_host);

/* A handshake is the dearest thing that a stranger may ask for: 0.2 ms, as much as fifty messages.
 * From tls_line_keep on those of tls_server_open wait, each from its whole ClientHello on, until
 * tls_line_next comes to them, so that its caller can give them a share of his time; at most one
 * record's length of each is held. tls_line_next does the one that has waited for longest, not from
 * inside a transport's callback; false: nobody waits. */
void tls_line_keep(struct tls *t);
bool tls_line_next(struct tls *t);
size_t tls_line_length(const struct tls *t);

/* Why the transport failed, for the log's tls_failed: a static word or two; "" if it did not. */
const char *tls_failure(const struct transport *t);

/* The client's side, for tests and load generators: checks no certificate, so the peer's name is
 * not proven. opened(), write() … as above. */
struct tls_session; /* a ticket to resume with */
struct tls_client_options {
    str sni, alpn;              /* empty: not sent */
    uint16_t version_max;       /* 0: the newest */
    struct tls_session *resume; /* or NULL; borrowed */
};
struct transport *tls_client_open(struct tls *t, struct transport *low,
                                  const struct tls_client_options *o);
/* The newest ticket received on a client transport, NULL if there is none; the caller's. */
struct tls_session *tls_client_session(const struct transport *t);
void tls_session_free(struct tls_session *s);

/* --- servers that we dial outside of the cluster ---
 *
 * The authorities by which their certificates are believed, from now on: a file of certificates in
 * PEM form. ERR_IO: it cannot be opened; ERR_BAD: there is none in it; the former ones stay. */
err tls_take_trust(struct tls *t, const char *ca_file) nodiscard;
/* Wraps low as tls_client_open does. After tls_take_trust only (must). host: a name or a numeric
 * address, which the certificate must be of; it rests until the transport is freed. tls_failure:
 * certificate_expired, certificate_not_yet_valid, certificate_foreign (no authority of ours),
 * certificate_of_another_host, certificate_unfit. */
struct transport *tls_proven_open(struct tls *t, struct transport *low, const char *host);

/* --- the bus: rails between the nodes of a cluster ---
 *
 * TLS 1.3 only, both sides show a certificate of the cluster's own authority and trust no other.
 * A node's certificate names it in one URI, pemberley://<cluster>/<node>; the cluster must be ours,
 * the node is what transport_info says as the name that the peer has proven: whether it is the one
 * that is wanted, the rail decides. No tickets: each handshake looks at certificates, with the
 * clock's time. tls_failure: certificate_expired, certificate_not_yet_valid, certificate_foreign
 * (another authority), certificate_wrong_cluster, certificate_without_name, certificate_unfit. */

/* What tls_bus_build made; borrows fd. Rails that are there go on with what they have shown.
 * ERR_BAD, ERR_IO as tls_take_certs. */
err tls_take_bus(struct tls *t, int fd) nodiscard;
/* Wraps low as tls_server_open does. After tls_take_bus only (must). */
struct transport *tls_rail_open(struct tls *t, struct transport *low); /* we dial */
struct transport *tls_rail_accept(struct tls *t, struct transport *low);

/* The supervisor's side: reads and checks all pairs and makes a generation of them. The first pair
 * is the default host. host is a domain in its ASCII form, or "*.domain" for all domains one label
 * below that have no pair of their own. */
struct tls_pair {
    str host;
    const char *certificate_file; /* PEM, leaf first. Beside it `….ocsp` (DER), stapled if there */
    const char *key_file;         /* PEM, unencrypted */
    int64_t not_after_s;          /* out: end of the leaf's life, seconds since 1970 */
    bool covers;                  /* out: the leaf's names include host */
};
/* One call per thing wrong, with the file it is in. Valid until it returns. */
typedef void tls_problem_f(void *ctx, str host, const char *file, const char *problem);
/* All or nothing: ERR_BAD when there was a problem (all pairs are looked at first), ERR_IO when the
 * memfd could not be made. An expired certificate is no problem here (old is better than none): the
 * caller looks at not_after_s. *memfd is the caller's, close-on-exec. */
err tls_certs_build(struct tls_pair *pairs, size_t n, tls_problem_f *problem, void *ctx,
                    int *memfd) nodiscard;

/* The same for the bus: reads and checks the three files and seals them in one memfd. cluster,
 * node: what the certificate must say. An expired one is a problem here: nobody would talk to us.
 */
struct tls_bus_files {
    const char *ca_file, *certificate_file, *key_file;
    str cluster, node;
    int64_t not_after_s; /* out */
};
err tls_bus_build(struct tls_bus_files *f, int64_t now_s, tls_problem_f *problem, void *ctx,
                  int *memfd) nodiscard;

/* Identities in a cluster. All ECDSA P-256, PEM in the arena, keys too.
 */
struct tls_identity_pem {
    str certificate, key;
};
enum { TLS_AUTHORITY_DAYS = 3650, TLS_NODE_DAYS = 365 };
void tls_authority_make(str cluster, int64_t now_s, struct arena *a, struct tls_identity_pem *out);
/* ERR_BAD: that is no authority of a cluster with its key. */
err tls_node_make(const struct tls_identity_pem *authority, str node, int64_t now_s,
                  struct arena *a, struct tls_identity_pem *out) nodiscard;
/* What a certificate says; node is empty for an authority. ERR_BAD: it is neither's. */
struct tls_identity_names {
    str cluster, node; /* in the arena */
    int64_t not_after_s;
};
err tls_identity_read(str certificate, struct arena *a, struct tls_identity_names *out) nodiscard;
/* NULL: the node's certificate is of this authority and in date, and the key is its own; else why
 * not. */
const char *tls_identity_check(str authority, const struct tls_identity_pem *node, int64_t now_s);

/* Writes a self-signed certificate (ECDSA P-256, ten years from now_s) for these domains and its
 * key (mode 0600). Existing files stay: ERR_EXISTS. ERR_IO: errno says why. */
err tls_selfsigned_write(const str *domains, size_t n, int64_t now_s, const char *certificate_file,
                         const char *key_file) nodiscard;

#endif
