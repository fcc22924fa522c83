/* client: the other side of conn.c, for tests and load generators: what is different is only how
 * the session is set up. It trusts any certificate. The context is made at the first use, because a
 * shard without one is the rule. */
#include "node/tls/inside.h"

static enum ssl_verify_result_t trust_all(SSL *ssl, uint8_t *alert) { return ssl_verify_ok; }

static int on_new_session(SSL *ssl, SSL_SESSION *s)
{
    struct tls_conn *c = tls_conn_of(ssl);

    SSL_SESSION_free(c->session);
    c->session = s;
    return 1; /* the reference is ours */
}

static SSL_CTX *client_context(void)
{
    SSL_CTX *x = SSL_CTX_new(TLS_with_buffers_method());

    must(x && SSL_CTX_set_min_proto_version(x, TLS1_2_VERSION));
    SSL_CTX_set_custom_verify(x, SSL_VERIFY_PEER, trust_all);
    SSL_CTX_set_session_cache_mode(x, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(x, on_new_session);
    return x;
}

static void client_configure(SSL *ssl, const struct tls_client_options *o)
{
    if (o->version_max)
        must(SSL_set_max_proto_version(ssl, o->version_max));
    if (o->sni.n > 0) {
        char name[256];
        must(o->sni.n < sizeof name);
        memcpy(name, o->sni.p, o->sni.n);
        name[o->sni.n] = 0;
        must(SSL_set_tlsext_host_name(ssl, name));
    }
    if (o->alpn.n > 0) {
        uint8_t list[256];
        must(o->alpn.n < sizeof list);
        list[0] = (uint8_t)o->alpn.n;
        memcpy(list + 1, o->alpn.p, o->alpn.n);
        must(SSL_set_alpn_protos(ssl, list, (unsigned)o->alpn.n + 1) == 0);
    }
    if (o->resume)
        SSL_set_session(ssl, (SSL_SESSION *)o->resume);
}

struct tls_conn *tls_client_new(struct tls *t, struct transport *low)
{
    struct tls_conn *c = tls_conn_new(t, low);

    if (!t->client)
        t->client = client_context();
    c->client = true;
    tls_conn_start(c);
    return c;
}

struct transport *tls_client_start(struct tls_conn *c)
{
    must(SSL_connect(tls_conn_calls(c)) == -1 && SSL_get_error(c->ssl, -1) == SSL_ERROR_WANT_READ);
    tls_conn_flush(c);
    return &c->t;
}

struct transport *tls_client_open(struct tls *t, struct transport *low,
                                  const struct tls_client_options *o)
{
    struct tls_conn *c = tls_client_new(t, low);

    client_configure(c->ssl, o);
    return tls_client_start(c);
}

struct tls_session *tls_client_session(const struct transport *t)
{
    struct tls_conn *c = (struct tls_conn *)(uintptr_t)t;

    must(c->client);
    if (c->session)
        SSL_SESSION_up_ref(c->session);
    return (struct tls_session *)c->session;
}

void tls_session_free(struct tls_session *s) { SSL_SESSION_free((SSL_SESSION *)s); }
