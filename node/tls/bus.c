/* bus: how nodes prove to each other who they are. The supervisor reads and checks the files and
 * seals them (tls_bus_build); shards make one SSL_CTX of that, for dialling and accepting alike.
 *
 *     memfd: magic, then with 24-bit lengths: the authority's DER; the chain's DERs as one list of
 *            such; the key as PKCS #8
 *
 * Certificates are looked at by X509_verify_cert against the cluster's authority alone, at the time
 * of our own clock. Parsed X509 objects live for the handshake only: there are few rails. */
#include <errno.h>
#include <fcntl.h>
#include <openssl/bytestring.h>
#include <openssl/err.h>
#include <openssl/mem.h>
#include <openssl/pem.h>
#include <openssl/pool.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "node/tls/inside.h"

enum { BUS_MAGIC = 0x31425450 /* "PTB1" */, CHAIN_MAX = 4, SEALED_MAX = 64 << 10, DEPTH_MAX = 3 };

/* --- names --- */

static const char scheme[] = "pemberley://";

static bool name_take(str *uri, char out[NODE_NAME_MAX + 1])
{
    size_t n = 0;
    while (n < uri->n && uri->p[n] != '/')
        n++;
    if (!node_name_is_good((str){uri->p, n}))
        return false;
    memcpy(out, uri->p, n);
    out[n] = 0;
    *uri = str_skip(*uri, n);
    return true;
}

static bool names_of_uri(str uri, struct bus_names *out)
{
    memset(out, 0, sizeof *out);
    if (!str_starts(uri, str_of(scheme)))
        return false;
    uri = str_skip(uri, sizeof scheme - 1);
    if (!name_take(&uri, out->cluster) || uri.n == 0)
        return false;
    uri = str_skip(uri, 1);
    return uri.n == 0 || (name_take(&uri, out->node) && uri.n == 0);
}

bool bus_names_of(const X509 *x, struct bus_names *out)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);
    unsigned uris = 0;
    bool good = false;

    for (size_t i = 0; names && i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *g = sk_GENERAL_NAME_value(names, i);
        if (g->type != GEN_URI)
            continue;
        const ASN1_IA5STRING *s = g->d.uniformResourceIdentifier;
        uris++;
        good = names_of_uri(str_from(ASN1_STRING_get0_data(s), (size_t)ASN1_STRING_length(s)), out);
    }
    GENERAL_NAMES_free(names);
    ERR_clear_error();
    return good && uris == 1;
}

/* --- verifying --- */

static const char *verdict(int e)
{
    switch (e) {
    case X509_V_OK: return NULL;
    case X509_V_ERR_CERT_HAS_EXPIRED: return "certificate_expired";
    case X509_V_ERR_CERT_NOT_YET_VALID: return "certificate_not_yet_valid";
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_CERT_SIGNATURE_FAILURE: return "certificate_foreign";
    default: return "certificate_unfit";
    }
}

const char *bus_verify(X509_STORE *authority, X509 *x, STACK_OF(X509) * more, enum bus_side side,
                       int64_t now_s)
{
    X509_STORE_CTX *v = X509_STORE_CTX_new();
    const char *why;

    must(v && X509_STORE_CTX_init(v, authority, x, more));
    X509_STORE_CTX_set_time(v, 0, (time_t)now_s);
    X509_VERIFY_PARAM_set_depth(X509_STORE_CTX_get0_param(v), DEPTH_MAX);
    must(X509_STORE_CTX_set_purpose(v, side == BUS_DIALS ? X509_PURPOSE_SSL_CLIENT
                                                         : X509_PURPOSE_SSL_SERVER));
    if (X509_verify_cert(v) == 1) {
        why = NULL;
    } else {
        why = verdict(X509_STORE_CTX_get_error(v));
        why = why ? why : "certificate_unfit";
    }
    X509_STORE_CTX_free(v);
    ERR_clear_error();
    return why;
}

static uint8_t alert_for(const char *why)
{
    if (strcmp(why, "certificate_expired") == 0)
        return SSL_AD_CERTIFICATE_EXPIRED;
    return strcmp(why, "certificate_foreign") == 0 ? SSL_AD_UNKNOWN_CA : SSL_AD_BAD_CERTIFICATE;
}

static const char *judge(const struct tls_conn *c, X509 *leaf, STACK_OF(X509) * more,
                         struct bus_names *names)
{
    const struct tls_bus *b = c->peer->bus;
    enum bus_side side = c->client ? BUS_ACCEPTS : BUS_DIALS;
    const char *why = bus_verify(b->authority, leaf, more, side, tls_now_s(c->tls));

    if (why)
        return why;
    if (!bus_names_of(leaf, names) || !names->node[0])
        return "certificate_without_name";
    return strcmp(names->cluster, b->own.cluster) == 0 ? NULL : "certificate_wrong_cluster";
}

static enum ssl_verify_result_t on_verify(SSL *ssl, uint8_t *alert)
{
    struct tls_conn *c = tls_conn_of(ssl);
    const STACK_OF(CRYPTO_BUFFER) *chain = SSL_get0_peer_certificates(ssl);
    STACK_OF(X509) *parsed = sk_X509_new_null();
    struct bus_names names;
    const char *why = "certificate_unfit";

    must(parsed);
    for (size_t i = 0; chain && i < sk_CRYPTO_BUFFER_num(chain) && i < CHAIN_MAX; i++) {
        X509 *x = X509_parse_from_buffer(sk_CRYPTO_BUFFER_value(chain, i));
        if (!x)
            break;
        must(sk_X509_push(parsed, x));
    }
    if (sk_X509_num(parsed) > 0)
        why = judge(c, sk_X509_value(parsed, 0), parsed, &names);
    sk_X509_pop_free(parsed, X509_free);
    ERR_clear_error();
    c->peer->why = why;
    if (!why) {
        c->peer->name = names;
        return ssl_verify_ok;
    }
    *alert = alert_for(why);
    return ssl_verify_invalid;
}

/* --- a shard's side --- */

static SSL_CTX *context_new(CRYPTO_BUFFER **chain, size_t n, EVP_PKEY *key)
{
    SSL_CTX *x = SSL_CTX_new(TLS_with_buffers_method());

    must(x && SSL_CTX_set_min_proto_version(x, TLS1_3_VERSION) &&
         SSL_CTX_set_max_proto_version(x, TLS1_3_VERSION));
    SSL_CTX_set_custom_verify(x, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, on_verify);
    SSL_CTX_set_session_cache_mode(x, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_options(x, SSL_OP_NO_TICKET);
    SSL_CTX_set_early_data_enabled(x, 0);
    if (SSL_CTX_set_chain_and_key(x, chain, n, key, NULL))
        return x;
    SSL_CTX_free(x);
    return NULL;
}

static X509 *parse(CBS *der)
{
    const uint8_t *p = CBS_data(der);
    X509 *x = d2i_X509(NULL, &p, (long)CBS_len(der));

    if (x && p == CBS_data(der) + CBS_len(der))
        return x;
    X509_free(x);
    return NULL;
}

static bool authority_take(struct tls_bus *b, CBS *der)
{
    X509 *ca = parse(der);
    bool good = ca && bus_names_of(ca, &b->own);

    b->authority = X509_STORE_new();
    must(b->authority && (!good || X509_STORE_add_cert(b->authority, ca)));
    X509_free(ca);
    return good;
}

static bool context_take(struct tls_bus *b, CBS *list, CBS *key_der)
{
    CRYPTO_BUFFER *chain[CHAIN_MAX];
    EVP_PKEY *key = EVP_parse_private_key(key_der);
    size_t n = 0;
    CBS der;

    while (n < CHAIN_MAX && CBS_get_u24_length_prefixed(list, &der))
        must((chain[n++] = CRYPTO_BUFFER_new_from_CBS(&der, NULL)));
    if (key && n > 0)
        b->ctx = context_new(chain, n, key);
    while (n > 0)
        CRYPTO_BUFFER_free(chain[--n]);
    EVP_PKEY_free(key);
    return b->ctx != NULL;
}

static bool bus_parse(struct tls_bus *b, const uint8_t *p, size_t n)
{
    CBS in, ca, list, key;
    uint32_t magic;

    CBS_init(&in, p, n);
    bool good = CBS_get_u32(&in, &magic) && magic == BUS_MAGIC &&
                CBS_get_u24_length_prefixed(&in, &ca) && CBS_get_u24_length_prefixed(&in, &list) &&
                CBS_get_u24_length_prefixed(&in, &key) && CBS_len(&in) == 0 &&
                authority_take(b, &ca) && context_take(b, &list, &key);
    ERR_clear_error();
    return good;
}

err tls_take_bus(struct tls *t, int fd)
{
    const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
    struct stat st;

    if ((fcntl(fd, F_GET_SEALS) & seals) != seals || fstat(fd, &st) < 0 || st.st_size <= 0 ||
        st.st_size > SEALED_MAX)
        return ERR_BAD;
    void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        return ERR_IO;
    struct tls_bus *b = calloc(1, sizeof *b);
    must(b);
    b->refs = 1;
    bool good = bus_parse(b, map, (size_t)st.st_size);
    munmap(map, (size_t)st.st_size);
    if (!good) {
        tls_bus_unref(b);
        return ERR_BAD;
    }
    tls_bus_unref(t->bus);
    t->bus = b;
    return ERR_OK;
}

void tls_bus_unref(struct tls_bus *b)
{
    if (!b || --b->refs > 0)
        return;
    SSL_CTX_free(b->ctx);
    X509_STORE_free(b->authority);
    free(b);
}

void bus_peer_free(struct bus_peer *p)
{
    tls_bus_unref(p->bus);
    free(p);
}

static struct tls_conn *rail_new(struct tls *t, struct transport *low)
{
    struct tls_conn *c = tls_conn_new(t, low);

    must(t->bus);
    c->bus = true;
    c->peer = calloc(1, sizeof *c->peer);
    must(c->peer);
    c->peer->bus = t->bus;
    t->bus->refs++;
    return c;
}

struct transport *tls_rail_open(struct tls *t, struct transport *low)
{
    struct tls_conn *c = rail_new(t, low);

    c->client = true;
    tls_conn_start(c);
    must(SSL_connect(tls_conn_calls(c)) == -1 && SSL_get_error(c->ssl, -1) == SSL_ERROR_WANT_READ);
    tls_conn_flush(c);
    return &c->t;
}

struct transport *tls_rail_accept(struct tls *t, struct transport *low)
{
    return &rail_new(t, low)->t;
}

/* --- the supervisor's side --- */

struct files {
    struct tls_bus_files *f;
    tls_problem_f *problem;
    void *ctx;
    unsigned problems;
};

static void report(struct files *b, const char *file, const char *problem)
{
    b->problems++;
    b->problem(b->ctx, b->f->node, file, problem);
    ERR_clear_error();
}

static BIO *file_open(struct files *b, const char *file)
{
    static const size_t file_max = SEALED_MAX / 4;
    char bytes[SEALED_MAX / 4 + 1];
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, bytes, sizeof bytes);
    int e = errno;

    if (fd >= 0)
        close(fd);
    if (n < 0 || (size_t)n > file_max) {
        report(b, file, n < 0 ? strerror(e) : "too long");
        return NULL;
    }
    BIO *in = BIO_new(BIO_s_mem());
    must(in && (n == 0 || BIO_write(in, bytes, (int)n) == n));
    OPENSSL_cleanse(bytes, sizeof bytes);
    return in;
}

static void der_add(CBB *out, X509 *x)
{
    uint8_t *der = NULL;
    int n = i2d_X509(x, &der);
    CBB child;

    must(n > 0 && CBB_add_u24_length_prefixed(out, &child) &&
         CBB_add_bytes(&child, der, (size_t)n) && CBB_flush(out));
    OPENSSL_free(der);
}

static X509 *authority_add(struct files *b, CBB *out)
{
    BIO *in = file_open(b, b->f->ca_file);
    X509 *x = in ? PEM_read_bio_X509(in, NULL, NULL, NULL) : NULL;

    if (x)
        der_add(out, x);
    else if (in)
        report(b, b->f->ca_file, "no certificate in PEM form");
    BIO_free(in);
    return x;
}

static X509 *chain_add(struct files *b, CBB *out)
{
    BIO *in = file_open(b, b->f->certificate_file);
    X509 *leaf = NULL, *x;
    CBB list;

    must(CBB_add_u24_length_prefixed(out, &list));
    for (int n = 0; in && n < CHAIN_MAX && (x = PEM_read_bio_X509(in, NULL, NULL, NULL)); n++) {
        der_add(&list, x);
        if (leaf)
            X509_free(x);
        else
            leaf = x;
    }
    must(CBB_flush(out));
    if (in && !leaf)
        report(b, b->f->certificate_file, "no certificate in PEM form");
    BIO_free(in);
    ERR_clear_error();
    return leaf;
}

static EVP_PKEY *key_add(struct files *b, CBB *out)
{
    BIO *in = file_open(b, b->f->key_file);
    EVP_PKEY *key = in ? PEM_read_bio_PrivateKey(in, NULL, NULL, (void *)(uintptr_t) "") : NULL;
    CBB child;

    if (key)
        must(CBB_add_u24_length_prefixed(out, &child) && EVP_marshal_private_key(&child, key) &&
             CBB_flush(out));
    else if (in)
        report(b, b->f->key_file, "no unencrypted private key in PEM form");
    BIO_free(in);
    return key;
}

static void check(struct files *b, X509 *ca, X509 *leaf, EVP_PKEY *key, int64_t now_s)
{
    struct bus_names names;
    X509_STORE *authority = X509_STORE_new();

    must(authority && X509_STORE_add_cert(authority, ca));
    const char *why = bus_verify(authority, leaf, NULL, BUS_DIALS, now_s);
    why = why ? why : bus_verify(authority, leaf, NULL, BUS_ACCEPTS, now_s);
    if (why)
        report(b, b->f->certificate_file, why);
    if (!bus_names_of(leaf, &names) || !str_eq(str_of(names.cluster), b->f->cluster) ||
        !str_eq(str_of(names.node), b->f->node))
        report(b, b->f->certificate_file, "it is not this node's in this cluster");
    if (!X509_check_private_key(leaf, key))
        report(b, b->f->key_file, "this key does not belong to the certificate");
    X509_STORE_free(authority);
}

static err seal(CBB *out, int *memfd)
{
    const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL;
    int fd = memfd_create("pemberley-bus", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0)
        return ERR_IO;
    if (write(fd, CBB_data(out), CBB_len(out)) != (ssize_t)CBB_len(out) ||
        fcntl(fd, F_ADD_SEALS, seals) < 0) {
        close(fd);
        return ERR_IO;
    }
    *memfd = fd;
    return ERR_OK;
}

err tls_bus_build(struct tls_bus_files *f, int64_t now_s, tls_problem_f *problem, void *ctx,
                  int *memfd)
{
    struct files b = {.f = f, .problem = problem, .ctx = ctx};
    CBB out;

    must(CBB_init(&out, 4096) && CBB_add_u32(&out, BUS_MAGIC));
    X509 *ca = authority_add(&b, &out), *leaf = chain_add(&b, &out);
    EVP_PKEY *key = key_add(&b, &out);
    if (ca && leaf && key) {
        check(&b, ca, leaf, key, now_s);
        f->not_after_s = tls_not_after(leaf);
    }
    err e = b.problems ? ERR_BAD : seal(&out, memfd);
    X509_free(ca);
    X509_free(leaf);
    EVP_PKEY_free(key);
    OPENSSL_cleanse((void *)(uintptr_t)CBB_data(&out), CBB_len(&out));
    CBB_cleanup(&out);
    ERR_clear_error();
    return e;
}
