/* tls: a shard's TLS: the contexts of BoringSSL with all that is switched off, ticket keys, scratch
 * memory and the pool of ciphertext buffers. One SSL_CTX for all hosts (hello.c picks the
 * certificate): a context each would cost 3.4 KB and 50 us per host. */
#include <openssl/ssl.h>

#include "node/tls/inside.h"

/* ECDHE and AEAD only. Groups in brackets are equal: the client's order decides, it knows whether
 * it has AES in hardware. Those of TLS 1.3 are the library's. */
static const char ciphers_tls12[] =
    "[ECDHE-ECDSA-AES128-GCM-SHA256|ECDHE-ECDSA-CHACHA20-POLY1305]:ECDHE-ECDSA-AES256-GCM-SHA384:"
    "[ECDHE-RSA-AES128-GCM-SHA256|ECDHE-RSA-CHACHA20-POLY1305]:ECDHE-RSA-AES256-GCM-SHA384";

static const uint32_t pool_sizes[TLS_POOL_CLASSES] = {1024, 4096, 17 << 10};
static const unsigned pool_kept[TLS_POOL_CLASSES] = {64, 32, 16};

int64_t tls_now_s(const struct tls *t) { return clock_wall_us(t->clock) / 1000000; }

static int on_ticket(SSL *ssl, uint8_t *name, uint8_t *iv, EVP_CIPHER_CTX *cipher, HMAC_CTX *hmac,
                     int encrypt)
{
    struct tls *t = tls_conn_of(ssl)->tls;

    return ticket_crypt(&t->tickets, tls_now_s(t), name, iv, cipher, hmac, encrypt);
}

void tls_configure(struct tls *t, const struct tls_config *c)
{
    must(c->version_min == TLS1_2_VERSION || c->version_min == TLS1_3_VERSION);
    must(SSL_CTX_set_min_proto_version(t->server, c->version_min));
    t->clock = c->clock;
    ticket_keys_init(&t->tickets, c->secret, c->ticket_lifetime_s);
    if (c->ticket_lifetime_s == 0) {
        SSL_CTX_set_options(t->server, SSL_OP_NO_TICKET);
        return;
    }
    SSL_CTX_clear_options(t->server, SSL_OP_NO_TICKET);
    SSL_CTX_set_timeout(t->server, c->ticket_lifetime_s);
    SSL_CTX_set_session_psk_dhe_timeout(t->server, c->ticket_lifetime_s);
}

static SSL_CTX *server_context(void)
{
    /* with_buffers: no X509 objects, which cost memory per certificate and are never asked here. */
    SSL_CTX *x = SSL_CTX_new(TLS_with_buffers_method());

    must(x && SSL_CTX_set_max_proto_version(x, TLS1_3_VERSION));
    must(SSL_CTX_set_strict_cipher_list(x, ciphers_tls12));
    SSL_CTX_set_options(x, SSL_OP_CIPHER_SERVER_PREFERENCE);
    SSL_CTX_set_session_cache_mode(x, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_early_data_enabled(x, 0);
    must(SSL_CTX_set_num_tickets(x, 1)); /* every resumption gives a new one */
    must(SSL_CTX_set_tlsext_ticket_key_cb(x, on_ticket));
    SSL_CTX_set_select_certificate_cb(x, hello_select);
    SSL_CTX_set_alpn_select_cb(x, hello_alpn, NULL);
    return x;
}

struct tls *tls_new(const struct tls_config *c)
{
    struct tls *t = calloc(1, sizeof *t);

    must(t);
    t->server = server_context();
    list_init(&t->line);
    t->bio = tls_bio_new(t);
    tls_configure(t, c);
    return t;
}

void tls_free(struct tls *t)
{
    for (int k = 0; k < TLS_POOL_CLASSES; k++)
        while (t->pool_n[k] > 0)
            free(t->pool[k][--t->pool_n[k]]);
    tls_certs_unref(t->certs);
    tls_bus_unref(t->bus);
    X509_STORE_free(t->trust);
    ticket_keys_close(&t->tickets);
    SSL_CTX_free(t->server);
    SSL_CTX_free(t->client);
    BIO_free(t->bio);
    free(t);
}

err tls_take_certs(struct tls *t, int fd)
{
    struct tls_certs *g;
    err e = tls_certs_map(fd, &g);

    if (e)
        return e;
    tls_certs_unref(t->certs);
    t->certs = g;
    return ERR_OK;
}

/* --- ciphertext buffers: most writes are a few stanzas, so three sizes --- */

struct buf *tls_buf_get(struct tls *t, size_t need)
{
    for (int k = 0; k < TLS_POOL_CLASSES; k++)
        if (need <= pool_sizes[k]) {
            if (t->pool_n[k] == 0)
                return buf_new(pool_sizes[k]);
            struct buf *b = t->pool[k][--t->pool_n[k]];
            b->len = 0;
            return b;
        }
    return buf_new((uint32_t)need);
}

void tls_buf_put(struct tls *t, struct buf *b)
{
    if (!b)
        return;
    for (int k = 0; k < TLS_POOL_CLASSES; k++)
        if (b->cap == pool_sizes[k] && t->pool_n[k] < pool_kept[k]) {
            t->pool[k][t->pool_n[k]++] = b;
            return;
        }
    buf_unref(b);
}
