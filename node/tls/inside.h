/* inside: what the files of this room share with each other and with nobody else. */
#ifndef PEMBERLEY_NODE_TLS_INSIDE_H
#define PEMBERLEY_NODE_TLS_INSIDE_H

#include <openssl/ssl.h>
#include <openssl/x509.h>

#include "node/tls/tls.h"
#include "pemberley/buf.h"
#include "pemberley/list.h"
#include "proto/base/name.h"

/* --- certificates (certs.c) --- */

/* What a connection remembers of the certificate it has shown: small, so that a connection of
 * months does not keep a generation with its private keys alive. Shared by the connections of a
 * host. */
struct tls_identity {
    uint32_t refs;
    uint8_t binding_n;         /* 0: the signature algorithm has no single hash */
    unsigned char binding[64]; /* tls-server-end-point, RFC 5929 4.1 */
    unsigned char session[32]; /* session id context */
    uint16_t name_n;
    char name[]; /* of the host */
};
void identity_unref(struct tls_identity *id);

struct tls_host {
    struct tls_identity *identity;
    EVP_PKEY *key;
    CRYPTO_BUFFER **chain; /* views of the generation's pages */
    size_t chain_n;
    str ocsp; /* empty: none */
    int64_t ocsp_until_s;
};

struct tls_certs;
err tls_certs_map(int fd, struct tls_certs **out) nodiscard;
struct tls_certs *tls_certs_ref(struct tls_certs *g);
void tls_certs_unref(struct tls_certs *g);
/* The row for a domain as a client wrote it (any case, one dot at the end); -1: none. */
long tls_certs_find(const struct tls_certs *g, str domain);
long tls_certs_default(const struct tls_certs *g);
/* Parsed at the first call for this row, kept by the generation. NULL: the library refuses it. */
const struct tls_host *tls_certs_host(struct tls_certs *g, long row);

/* --- the format of a generation (build.c writes it, certs.c reads it) --- */

enum { GENERATION_MAGIC = 0x314c5450 }; /* "PTL1" */
struct generation_head {
    uint32_t magic, count, default_row, size; /* rows follow, sorted by name; then the bytes */
};
struct generation_row { /* offsets from the head */
    uint32_t name, name_n;
    uint32_t chain, chain_n; /* each certificate as a 24-bit length and DER */
    uint32_t key, key_n;     /* PKCS #8, DER */
    uint32_t ocsp, ocsp_n;
    int64_t ocsp_until_s;
};
static inline int generation_order(str a, str b)
{
    int c = memcmp(a.p, b.p, a.n < b.n ? a.n : b.n);
    return c ? c : (a.n > b.n) - (a.n < b.n);
}

/* --- channel binding (binding.c) --- */

/* The hash of a certificate (DER) by its own signature algorithm, MD5 and SHA-1 raised to SHA-256
 * (RFC 5929 4.1). Returns its length, 0 where the standard defines none (Ed25519). */
size_t binding_end_point(str der, unsigned char out[64]);

/* --- ticket keys (ticket.c) --- */

struct ticket_key {
    int64_t period;
    unsigned char name[16], aes[32], hmac[32];
};
struct ticket_keys {
    unsigned char secret[TLS_SECRET_SIZE];
    uint32_t lifetime_s;
    struct ticket_key key[3]; /* previous, current, next */
};
void ticket_keys_init(struct ticket_keys *k, const unsigned char *secret, uint32_t lifetime_s);
void ticket_keys_close(struct ticket_keys *k);
/* The body of SSL_CTX_set_tlsext_ticket_key_cb's callback: 1, 2 (open, but seal anew), 0 or -1. */
int ticket_crypt(struct ticket_keys *k, int64_t now_s, uint8_t *name, uint8_t *iv,
                 EVP_CIPHER_CTX *cipher, HMAC_CTX *hmac, int encrypt);

/* --- a shard's TLS (tls.c) --- */

enum {
    TLS_RECORD_PLAIN_MAX = 16384,
    TLS_SCRATCH = 64 << 10,
    TLS_POOL_CLASSES = 3,
    TLS_POOL_KEPT = 64,
};
struct tls_conn;
struct in_line; /* line.c */
struct tls {
    SSL_CTX *server;
    SSL_CTX *client; /* made at its first use */
    struct clock *clock;
    struct ticket_keys tickets;
    struct tls_certs *certs; /* NULL before the first tls_take_certs */
    struct tls_bus *bus;     /* NULL before the first tls_take_bus */
    X509_STORE *trust;       /* NULL before the first tls_take_trust */
    /* The library's way to us: one BIO for all connections (80 bytes less for each), which speaks
     * for the one that the library was called for last. */
    BIO *bio;
    struct tls_conn *calling;
    /* The input being fed, read for `feeding` alone. */
    struct tls_conn *feeding;
    const unsigned char *in;
    size_t in_n;
    struct list line; /* of handshakes (line.c) */
    size_t line_length;
    bool line_kept;
    /* Freed ciphertext buffers, by size. */
    struct buf *pool[TLS_POOL_CLASSES][TLS_POOL_KEPT];
    unsigned pool_n[TLS_POOL_CLASSES];
    char plain[TLS_SCRATCH];           /* what SSL_read gives */
    char linear[TLS_RECORD_PLAIN_MAX]; /* what goes to SSL_write, when it lies in pieces */
};
int64_t tls_now_s(const struct tls *t);
struct buf *tls_buf_get(struct tls *t, size_t need);
void tls_buf_put(struct tls *t, struct buf *b);

/* --- making certificates (selfsigned.c; also enrol.c's) --- */

EVP_PKEY *make_key(void); /* ECDSA P-256 */
/* Version 3, a random serial, issuer = subject = cn, from an hour before now_s; not signed. */
X509 *make_certificate(EVP_PKEY *key, str cn, int64_t now_s, int days);
void make_extension(X509 *x, int nid, const char *value);
/* The end of its life, seconds since 1970; -1: cannot be read (build.c). */
int64_t tls_not_after(const X509 *leaf);

/* --- the bus (bus.c; enrol.c) --- */

/* The names in the one URI of a certificate's subjectAltName, pemberley://<cluster>/<node> (an
 * authority: without a node), with a NUL each. False: it has none, or several, or a name is none.
 */
struct bus_names {
    char cluster[NODE_NAME_MAX + 1], node[NODE_NAME_MAX + 1];
};
bool bus_names_of(const X509 *x, struct bus_names *out);
enum bus_side { BUS_DIALS, BUS_ACCEPTS }; /* whose certificate is looked at */
/* NULL: x is of this authority, in date and fit for that side; else a word why not. */
const char *bus_verify(X509_STORE *authority, X509 *x, STACK_OF(X509) * more, enum bus_side side,
                       int64_t now_s);

/* What a node proves itself with, and what it believes others by. */
struct tls_bus {
    uint32_t refs;
    SSL_CTX *ctx; /* for both sides */
    X509_STORE *authority;
    struct bus_names own; /* of the authority: the cluster */
};
void tls_bus_unref(struct tls_bus *b);
/* What a connection of the bus has beside others. */
struct bus_peer {
    struct tls_bus *bus;   /* its handshake's */
    struct bus_names name; /* proven; empty before */
    const char *why;       /* the certificate was refused; static; or NULL */
};
void bus_peer_free(struct bus_peer *p);

/* --- a connection (conn.c; client.c; the hello's answers in hello.c) --- */

enum conn_state {
    CONN_HANDSHAKE,
    CONN_OPEN,
    CONN_FAILED, /* nothing is read; an alert may be on its way */
    CONN_GONE,   /* the lower transport was told to end */
};
struct tls_conn {
    struct transport t;
    struct tls *tls;
    struct transport *low;
    SSL *ssl;                /* NULL until the first whole record */
    struct buf *carry;       /* the beginning of a record */
    struct buf *out;         /* ciphertext to be written */
    struct buf *flying;      /* ciphertext that low is writing */
    struct in_line *line;    /* its hello waits to be called; NULL: it does not */
    const char *why;         /* of a failure; static */
    struct tls_certs *certs; /* during the handshake */
    union {
        struct tls_identity *identity; /* server: from the hello on */
        SSL_SESSION *session;          /* client: the newest ticket; first the one to resume */
        struct bus_peer *peer;         /* bus, both sides */
    };
    uint32_t fallback_row; /* of certs, for hellos that name no host of ours */
    uint32_t handshake_in; /* bytes fed during the handshake */
    enum conn_state state : 8;
    enum tls_use use : 8;
    uint8_t reason;     /* err, told in closed() in place of low's */
    uint8_t low_reason; /* err */
    uint8_t busy;       /* depth of our calls into the owner or low: closed() waits for 0 */
    bool client : 1;
    bool bus : 1;
    bool hello_seen : 1;  /* the gate's stage */
    bool called : 1;      /* its handshake may go on */
    bool named : 1;       /* the hello had SNI */
    bool user_queued : 1; /* out holds a write of the owner */
    bool user_flying : 1; /* flying holds one */
    bool closing : 1;     /* close(graceful) */
    bool notified : 1;    /* close_notify was sealed */
    bool low_closing : 1;
    bool low_closed : 1;
    bool told : 1; /* closed() was called */
    bool peer_ended : 1;
};
/* Within the library's callbacks. */
struct tls_conn *tls_conn_of(const SSL *ssl);
/* Its SSL, for calls that may read, write or call back. */
SSL *tls_conn_calls(struct tls_conn *c);
BIO *tls_bio_new(struct tls *t);
struct tls_conn *tls_conn_new(struct tls *t, struct transport *low); /* becomes low's sink */
void tls_conn_start(struct tls_conn *c);                             /* makes its SSL */
void tls_conn_flush(struct tls_conn *c);  /* writes what the library has said */
void tls_conn_called(struct tls_conn *c); /* takes what was held back in line */
/* Must what has come of its handshake wait (line.c)? It stands in line then. */
bool tls_line_holds(struct tls_conn *c);
void tls_line_leave(struct tls_conn *c);
/* The client's side in two steps (client.c); between them its SSL may be configured. */
struct tls_conn *tls_client_new(struct tls *t, struct transport *low);
struct transport *tls_client_start(struct tls_conn *c);
/* The server's answers to a ClientHello. */
enum ssl_select_cert_result_t hello_select(const SSL_CLIENT_HELLO *hello);
int hello_alpn(SSL *ssl, const uint8_t **out, uint8_t *out_n, const uint8_t *in, unsigned in_n,
               void *ctx);

#endif
