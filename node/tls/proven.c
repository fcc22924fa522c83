/* proven: servers that we dial outside of the cluster, Redis for now: client.c's side of TLS, but
 * the certificate has to be of an authority that the operator named, in date, and of the host that
 * was dialled. */
#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>

#include "node/tls/inside.h"

enum { CHAIN_MAX = 8, AUTHORITIES_MAX = 1024 };

static const char *verdict(int e)
{
    switch (e) {
    case X509_V_ERR_CERT_HAS_EXPIRED: return "certificate_expired";
    case X509_V_ERR_CERT_NOT_YET_VALID: return "certificate_not_yet_valid";
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH: return "certificate_of_another_host";
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN: return "certificate_foreign";
    default: return "certificate_unfit";
    }
}

static bool is_address(const char *host)
{
    unsigned char ip[16];
    return inet_pton(AF_INET, host, ip) == 1 || inet_pton(AF_INET6, host, ip) == 1;
}

/* NULL: it is host's. */
static const char *judge(const struct tls *t, STACK_OF(X509) * chain, const char *host)
{
    X509_STORE_CTX *v = X509_STORE_CTX_new();

    must(v && X509_STORE_CTX_init(v, t->trust, sk_X509_value(chain, 0), chain));
    X509_VERIFY_PARAM *p = X509_STORE_CTX_get0_param(v);
    X509_STORE_CTX_set_time(v, 0, (time_t)tls_now_s(t));
    must(X509_STORE_CTX_set_purpose(v, X509_PURPOSE_SSL_SERVER));
    must(is_address(host) ? X509_VERIFY_PARAM_set1_ip_asc(p, host)
                          : X509_VERIFY_PARAM_set1_host(p, host, strlen(host)));
    const char *why = X509_verify_cert(v) == 1 ? NULL : verdict(X509_STORE_CTX_get_error(v));
    X509_STORE_CTX_free(v);
    return why;
}

static enum ssl_verify_result_t on_verify(SSL *ssl, uint8_t *alert)
{
    struct tls_conn *c = tls_conn_of(ssl);
    const STACK_OF(CRYPTO_BUFFER) *sent = SSL_get0_peer_certificates(ssl);
    STACK_OF(X509) *chain = sk_X509_new_null();

    must(chain);
    for (size_t i = 0; sent && i < sk_CRYPTO_BUFFER_num(sent) && i < CHAIN_MAX; i++) {
        X509 *x = X509_parse_from_buffer(sk_CRYPTO_BUFFER_value(sent, i));
        if (!x)
            break;
        must(sk_X509_push(chain, x));
    }
    c->why = "certificate_unfit";
    if (sk_X509_num(chain) > 0)
        c->why = judge(c->tls, chain, SSL_get_app_data(ssl));
    sk_X509_pop_free(chain, X509_free);
    ERR_clear_error();
    *alert = SSL_AD_BAD_CERTIFICATE;
    return c->why ? ssl_verify_invalid : ssl_verify_ok;
}

err tls_take_trust(struct tls *t, const char *ca_file)
{
    X509_STORE *store = X509_STORE_new();
    FILE *f = fopen(ca_file, "re");
    X509 *x;
    int n = 0;

    must(store);
    for (; f && n < AUTHORITIES_MAX && (x = PEM_read_X509(f, NULL, NULL, NULL)); n++) {
        must(X509_STORE_add_cert(store, x));
        X509_free(x);
    }
    ERR_clear_error();
    if (f)
        fclose(f);
    if (n == 0) {
        X509_STORE_free(store);
        return f ? ERR_BAD : ERR_IO;
    }
    X509_STORE_free(t->trust);
    t->trust = store;
    return ERR_OK;
}

struct transport *tls_proven_open(struct tls *t, struct transport *low, const char *host)
{
    must(t->trust);
    struct tls_conn *c = tls_client_new(t, low);
    SSL_set_custom_verify(c->ssl, SSL_VERIFY_PEER, on_verify);
    must(SSL_set_app_data(c->ssl, (void *)(uintptr_t)host));
    if (!is_address(host)) /* RFC 6066 3: names only */
        must(SSL_set_tlsext_host_name(c->ssl, host));
    return tls_client_start(c);
}
