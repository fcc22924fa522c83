/* hello: what a server decides on seeing a ClientHello: the host, its certificate, whether tickets
 * may be given, the application protocol. Runs inside the library's callbacks. */
#include <openssl/bytestring.h>
#include <openssl/pool.h>

#include "node/tls/inside.h"

/* The host_name of server_name (RFC 6066 3); false: none, or nonsense, which BoringSSL refuses. */
static bool server_name(const SSL_CLIENT_HELLO *hello, str *out)
{
    const uint8_t *p;
    size_t n;
    CBS in, list, name;
    uint8_t type;

    if (!SSL_early_callback_ctx_extension_get(hello, TLSEXT_TYPE_server_name, &p, &n))
        return false;
    CBS_init(&in, p, n);
    if (!CBS_get_u16_length_prefixed(&in, &list) || !CBS_get_u8(&list, &type) || type != 0 ||
        !CBS_get_u16_length_prefixed(&list, &name) || CBS_len(&name) == 0)
        return false;
    *out = str_from(CBS_data(&name), CBS_len(&name));
    return true;
}

static bool offers_tls13(const SSL_CLIENT_HELLO *hello)
{
    const uint8_t *p;
    size_t n;
    CBS in, list;
    uint16_t version;

    if (!SSL_early_callback_ctx_extension_get(hello, TLSEXT_TYPE_supported_versions, &p, &n))
        return false;
    CBS_init(&in, p, n);
    if (!CBS_get_u8_length_prefixed(&in, &list))
        return false;
    while (CBS_get_u16(&list, &version))
        if (version == TLS1_3_VERSION)
            return true;
    return false;
}

static const struct tls_host *host_for(struct tls_conn *c, const SSL_CLIENT_HELLO *hello)
{
    str name;
    long row = -1;

    c->named = server_name(hello, &name);
    if (c->named)
        row = tls_certs_find(c->certs, name);
    return tls_certs_host(c->certs, row >= 0 ? row : (long)c->fallback_row);
}

enum ssl_select_cert_result_t hello_select(const SSL_CLIENT_HELLO *hello)
{
    struct tls_conn *c = tls_conn_of(hello->ssl);
    const struct tls_host *h = c->certs ? host_for(c, hello) : NULL;

    if (!h || !SSL_set_chain_and_key(hello->ssl, h->chain, h->chain_n, h->key, NULL) ||
        !SSL_set_session_id_context(hello->ssl, h->identity->session, sizeof h->identity->session))
        return ssl_select_cert_error;
    if (h->ocsp.n > 0 && tls_now_s(c->tls) < h->ocsp_until_s &&
        !SSL_set_ocsp_response(hello->ssl, (const uint8_t *)h->ocsp.p, h->ocsp.n))
        return ssl_select_cert_error;
    /* A ticket of TLS 1.2 carries the master secret: who gets the key reads recordings. */
    if (!offers_tls13(hello))
        SSL_set_options(hello->ssl, SSL_OP_NO_TICKET);
    /* The library asks once per handshake, after a HelloRetryRequest it remembers. */
    identity_unref(c->identity);
    c->identity = h->identity;
    c->identity->refs++;
    return ssl_select_cert_success;
}

int hello_alpn(SSL *ssl, const uint8_t **out, uint8_t *out_n, const uint8_t *in, unsigned in_n,
               void *ctx)
{
    static const str wanted = STR("xmpp-client"); /* XEP-0368 */
    CBS list, name;

    if (tls_conn_of(ssl)->use == TLS_STARTTLS)
        return SSL_TLSEXT_ERR_NOACK;
    CBS_init(&list, in, in_n);
    while (CBS_get_u8_length_prefixed(&list, &name))
        if (str_eq(str_from(CBS_data(&name), CBS_len(&name)), wanted)) {
            *out = CBS_data(&name), *out_n = (uint8_t)CBS_len(&name);
            return SSL_TLSEXT_ERR_OK;
        }
    return SSL_TLSEXT_ERR_ALERT_FATAL;
}
