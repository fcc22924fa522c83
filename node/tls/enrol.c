/* enrol: identities in a cluster. An authority of its own (no public one knows nodes), made once on
 * one node, where its key stays; a year's certificate per node, renewed by enrolling again. Bytes
 * in and out are PEM: files and standard streams are the command line's business. */
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/nid.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>

#include "node/tls/inside.h"

static str pem_of(BIO *from, struct arena *a)
{
    const uint8_t *p;
    size_t n;

    must(BIO_mem_contents(from, &p, &n));
    str out = arena_dup(a, str_from(p, n));
    BIO_free(from); /* wipes keys */
    return out;
}

static void to_pem(X509 *x, EVP_PKEY *key, struct arena *a, struct tls_identity_pem *out)
{
    BIO *certificate = BIO_new(BIO_s_mem()), *secret = BIO_new(BIO_s_mem());

    must(certificate && secret && PEM_write_bio_X509(certificate, x) &&
         PEM_write_bio_PKCS8PrivateKey(secret, key, NULL, NULL, 0, NULL, NULL));
    out->certificate = pem_of(certificate, a), out->key = pem_of(secret, a);
}

static X509 *certificate_of(str pem)
{
    BIO *in = BIO_new_mem_buf(pem.p, (int)pem.n);
    must(in);
    X509 *x = PEM_read_bio_X509(in, NULL, NULL, NULL);
    BIO_free(in);
    ERR_clear_error();
    return x;
}

static EVP_PKEY *key_of(str pem)
{
    BIO *in = BIO_new_mem_buf(pem.p, (int)pem.n);
    must(in);
    EVP_PKEY *key = PEM_read_bio_PrivateKey(in, NULL, NULL, (void *)(uintptr_t) "");
    BIO_free(in);
    ERR_clear_error();
    return key;
}

static void name_it(X509 *x, str cluster, str node)
{
    char uri[2 * NODE_NAME_MAX + 32];

    must(node_name_is_good(cluster));
    snprintf(uri, sizeof uri, "URI:pemberley://%.*s/%.*s", STR_ARG(cluster), STR_ARG(node));
    make_extension(x, NID_subject_alt_name, uri);
}

void tls_authority_make(str cluster, int64_t now_s, struct arena *a, struct tls_identity_pem *out)
{
    EVP_PKEY *key = make_key();
    X509 *x = make_certificate(key, cluster, now_s, TLS_AUTHORITY_DAYS);

    make_extension(x, NID_basic_constraints, "critical,CA:TRUE,pathlen:0");
    make_extension(x, NID_key_usage, "critical,keyCertSign");
    name_it(x, cluster, STR(""));
    must(X509_sign(x, key, EVP_sha256()));
    to_pem(x, key, a, out);
    X509_free(x);
    EVP_PKEY_free(key);
}

static bool is_authority(X509 *ca, const EVP_PKEY *key, struct bus_names *names)
{
    return ca && key && X509_check_ca(ca) == 1 && X509_check_private_key(ca, key) &&
           bus_names_of(ca, names) && !names->node[0];
}

static void node_make(X509 *ca, EVP_PKEY *ca_key, str cluster, str node, int64_t now_s,
                      struct arena *a, struct tls_identity_pem *out)
{
    EVP_PKEY *key = make_key();
    X509 *x = make_certificate(key, node, now_s, TLS_NODE_DAYS);

    must(X509_set_issuer_name(x, X509_get_subject_name(ca)));
    make_extension(x, NID_basic_constraints, "critical,CA:FALSE");
    make_extension(x, NID_key_usage, "critical,digitalSignature");
    make_extension(x, NID_ext_key_usage, "serverAuth,clientAuth");
    name_it(x, cluster, node);
    must(X509_sign(x, ca_key, EVP_sha256()));
    to_pem(x, key, a, out);
    X509_free(x);
    EVP_PKEY_free(key);
}

err tls_node_make(const struct tls_identity_pem *authority, str node, int64_t now_s,
                  struct arena *a, struct tls_identity_pem *out)
{
    X509 *ca = certificate_of(authority->certificate);
    EVP_PKEY *ca_key = key_of(authority->key);
    struct bus_names names;
    err e = is_authority(ca, ca_key, &names) ? ERR_OK : ERR_BAD;

    must(node_name_is_good(node));
    if (!e)
        node_make(ca, ca_key, str_of(names.cluster), node, now_s, a, out);
    X509_free(ca);
    EVP_PKEY_free(ca_key);
    ERR_clear_error();
    return e;
}

err tls_identity_read(str certificate, struct arena *a, struct tls_identity_names *out)
{
    X509 *x = certificate_of(certificate);
    struct bus_names names;
    err e = x && bus_names_of(x, &names) ? ERR_OK : ERR_BAD;

    if (!e) {
        out->cluster = arena_dup(a, str_of(names.cluster));
        out->node = arena_dup(a, str_of(names.node));
        out->not_after_s = tls_not_after(x);
    }
    X509_free(x);
    return e;
}

static const char *check(X509 *ca, X509 *x, const EVP_PKEY *key, int64_t now_s)
{
    struct bus_names of_ca, of_node;

    if (!ca || !x || !key)
        return "a certificate or a key is no PEM";
    if (!bus_names_of(ca, &of_ca) || of_ca.node[0] || !bus_names_of(x, &of_node) ||
        !of_node.node[0] || strcmp(of_ca.cluster, of_node.cluster) != 0)
        return "the certificates are not of a cluster and a node of it";
    if (!X509_check_private_key(x, key))
        return "the key does not belong to the certificate";
    X509_STORE *authority = X509_STORE_new();
    must(authority && X509_STORE_add_cert(authority, ca));
    const char *why = bus_verify(authority, x, NULL, BUS_DIALS, now_s);
    X509_STORE_free(authority);
    return why;
}

const char *tls_identity_check(str authority, const struct tls_identity_pem *node, int64_t now_s)
{
    X509 *ca = certificate_of(authority), *x = certificate_of(node->certificate);
    EVP_PKEY *key = key_of(node->key);
    const char *why = check(ca, x, key, now_s);

    X509_free(ca);
    X509_free(x);
    EVP_PKEY_free(key);
    ERR_clear_error();
    return why;
}
