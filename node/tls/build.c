/* build: the supervisor's side of certificates: reads and checks PEM files and lays all of them out
 * in one sealed memfd, a generation (inside.h has the format). Everything that may be wrong with a
 * file is found here, with the file's name, so that shards only ever see what works. */
#include <errno.h>
#include <fcntl.h>
#include <openssl/asn1.h>
#include <openssl/bytestring.h>
#include <openssl/err.h>
#include <openssl/mem.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "node/tls/inside.h"

enum { FILE_MAX = 256 << 10, CHAIN_MAX = 10 };

struct build {
    tls_problem_f *problem;
    void *ctx;
    unsigned problems;
    CBB bytes;   /* what follows the rows */
    uint32_t at; /* offset of bytes in the memfd */
};

static void report(struct build *b, str host, const char *file, const char *problem)
{
    b->problems++;
    b->problem(b->ctx, host, file, problem);
    ERR_clear_error();
}

/* --- reading files --- */

/* Returns a BIO over the file's bytes, or NULL and errno. */
static BIO *file_bio(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    BIO *out = NULL;
    char chunk[4096];
    ssize_t n;
    size_t total = 0;

    if (fd < 0)
        return NULL;
    out = BIO_new(BIO_s_mem());
    must(out);
    while ((n = read(fd, chunk, sizeof chunk)) > 0 && (total += (size_t)n) <= FILE_MAX)
        must(BIO_write(out, chunk, (int)n) == n);
    int e = n < 0 ? errno : total > FILE_MAX ? EFBIG : 0;
    close(fd);
    if (e == 0)
        return out;
    BIO_free(out);
    errno = e;
    return NULL;
}

/* "20270102030405Z" to seconds since 1970; -1: something else. */
static int64_t time_of(const unsigned char *p, size_t n)
{
    struct tm tm = {0};
    char z[16] = "";

    if (n != 15)
        return -1;
    memcpy(z, p, 15);
    char *end = strptime(z, "%Y%m%d%H%M%S", &tm);
    return end && strcmp(end, "Z") == 0 ? (int64_t)timegm(&tm) : -1;
}

int64_t tls_not_after(const X509 *leaf)
{
    ASN1_GENERALIZEDTIME *g = ASN1_TIME_to_generalizedtime(X509_get0_notAfter(leaf), NULL);
    int64_t t = g ? time_of(ASN1_STRING_get0_data(g), (size_t)ASN1_STRING_length(g)) : -1;

    ASN1_GENERALIZEDTIME_free(g);
    return t;
}

/* Appends every certificate of the file to b->bytes and gives the first one. */
static X509 *chain_read(struct build *b, const struct tls_pair *p)
{
    BIO *in = file_bio(p->certificate_file);
    X509 *leaf = NULL, *x;
    int n = 0;

    if (!in) {
        report(b, p->host, p->certificate_file, strerror(errno));
        return NULL;
    }
    for (; n < CHAIN_MAX && (x = PEM_read_bio_X509(in, NULL, NULL, NULL)); n++) {
        CBB child;
        uint8_t *der = NULL;
        int len = i2d_X509(x, &der);
        must(len > 0 && CBB_add_u24_length_prefixed(&b->bytes, &child) &&
             CBB_add_bytes(&child, der, (size_t)len) && CBB_flush(&b->bytes));
        OPENSSL_free(der);
        if (n == 0)
            leaf = x;
        else
            X509_free(x);
    }
    uint32_t e = ERR_peek_last_error();
    BIO_free(in);
    if (!leaf)
        report(b, p->host, p->certificate_file, "no certificate in PEM form");
    else if (n < CHAIN_MAX && ERR_GET_REASON(e) != PEM_R_NO_START_LINE)
        report(b, p->host, p->certificate_file, "a certificate behind the first is damaged");
    else if (n == CHAIN_MAX)
        report(b, p->host, p->certificate_file, "more than 9 certificates");
    ERR_clear_error();
    return leaf;
}

static int no_password(char *out, int size, int writing, void *ctx) { return 0; }

static EVP_PKEY *key_read(struct build *b, const struct tls_pair *p)
{
    BIO *in = file_bio(p->key_file);
    EVP_PKEY *key = NULL;

    if (!in) {
        report(b, p->host, p->key_file, strerror(errno));
        return NULL;
    }
    key = PEM_read_bio_PrivateKey(in, NULL, no_password, NULL);
    BIO_free(in);
    if (!key)
        report(b, p->host, p->key_file, "no unencrypted private key in PEM form");
    return key;
}

/* --- OCSP (RFC 6960 4.2.1) --- */

/* The end of a response's life: nextUpdate of its first single response; -1: no good response. */
static int64_t ocsp_until(const uint8_t *der, size_t n)
{
    enum { EXPLICIT = CBS_ASN1_CONTEXT_SPECIFIC | CBS_ASN1_CONSTRUCTED };
    CBS in, r, tagged, seq, basic, data, list, one, t;
    uint8_t status;

    CBS_init(&in, der, n);
    if (!CBS_get_asn1(&in, &r, CBS_ASN1_SEQUENCE) || CBS_len(&in) > 0 ||
        !CBS_get_asn1(&r, &tagged, CBS_ASN1_ENUMERATED) || !CBS_get_u8(&tagged, &status) ||
        status != 0 || !CBS_get_asn1(&r, &tagged, EXPLICIT | 0) ||
        !CBS_get_asn1(&tagged, &seq, CBS_ASN1_SEQUENCE) ||
        !CBS_get_asn1(&seq, NULL, CBS_ASN1_OBJECT) ||
        !CBS_get_asn1(&seq, &basic, CBS_ASN1_OCTETSTRING) ||
        !CBS_get_asn1(&basic, &seq, CBS_ASN1_SEQUENCE) ||
        !CBS_get_asn1(&seq, &data, CBS_ASN1_SEQUENCE) ||
        !CBS_get_optional_asn1(&data, NULL, NULL, EXPLICIT | 0) || /* version */
        !CBS_get_any_asn1_element(&data, NULL, NULL, NULL) ||      /* responder */
        !CBS_get_asn1(&data, NULL, CBS_ASN1_GENERALIZEDTIME) ||
        !CBS_get_asn1(&data, &list, CBS_ASN1_SEQUENCE) ||
        !CBS_get_asn1(&list, &one, CBS_ASN1_SEQUENCE) ||
        !CBS_get_asn1(&one, NULL, CBS_ASN1_SEQUENCE) ||      /* certificate's id */
        !CBS_get_any_asn1_element(&one, NULL, NULL, NULL) || /* its status */
        !CBS_get_asn1(&one, NULL, CBS_ASN1_GENERALIZEDTIME) ||
        !CBS_get_asn1(&one, &tagged, EXPLICIT | 0) ||
        !CBS_get_asn1(&tagged, &t, CBS_ASN1_GENERALIZEDTIME))
        return -1;
    return time_of(CBS_data(&t), CBS_len(&t));
}

/* The response beside the certificate, if there is one. A bad one is a problem, an old one is left
 * to the shards, who look at its end at each handshake. */
static void ocsp_add(struct build *b, const struct tls_pair *p, struct generation_row *r)
{
    char path[4096];
    const uint8_t *der;
    size_t n;

    if (snprintf(path, sizeof path, "%s.ocsp", p->certificate_file) >= (int)sizeof path)
        return;
    BIO *in = file_bio(path);
    if (!in) {
        if (errno != ENOENT)
            report(b, p->host, path, strerror(errno));
        return;
    }
    must(BIO_mem_contents(in, &der, &n));
    r->ocsp_until_s = ocsp_until(der, n);
    if (r->ocsp_until_s < 0)
        report(b, p->host, path, "no successful OCSP response with an end");
    r->ocsp = b->at + (uint32_t)CBB_len(&b->bytes), r->ocsp_n = (uint32_t)n;
    must(CBB_add_bytes(&b->bytes, der, n));
    BIO_free(in);
}

/* --- a pair --- */

static void pair_check(struct build *b, struct tls_pair *p, X509 *leaf, EVP_PKEY *key)
{
    str host = p->host;

    p->not_after_s = tls_not_after(leaf);
    if (p->not_after_s < 0)
        report(b, host, p->certificate_file, "its end (notAfter) cannot be read");
    if (host.n > 0 && host.p[0] == '*') /* any label: the certificate must have a wildcard too */
        host = (str){host.p + 2, host.n - 2};
    char name[256 + 2];
    snprintf(name, sizeof name, "%s%.*s", host.n == p->host.n ? "" : "x.", STR_ARG(host));
    p->covers = X509_check_host(leaf, name, strlen(name), 0, NULL) == 1;
    int type = EVP_PKEY_id(key);
    if (type != EVP_PKEY_EC && type != EVP_PKEY_RSA && type != EVP_PKEY_ED25519)
        report(b, p->host, p->key_file, "a kind of key that TLS does not use");
    else if (!X509_check_private_key(leaf, key))
        report(b, p->host, p->key_file, "this key does not belong to the certificate");
}

static void pair_add(struct build *b, struct tls_pair *p, struct generation_row *r)
{
    CBB *out = &b->bytes;

    r->name = b->at + (uint32_t)CBB_len(out), r->name_n = (uint32_t)p->host.n;
    must(CBB_add_bytes(out, (const uint8_t *)p->host.p, p->host.n));
    r->chain = b->at + (uint32_t)CBB_len(out);
    X509 *leaf = chain_read(b, p);
    r->chain_n = b->at + (uint32_t)CBB_len(out) - r->chain;
    EVP_PKEY *key = key_read(b, p);
    if (leaf && key) {
        pair_check(b, p, leaf, key);
        r->key = b->at + (uint32_t)CBB_len(out);
        must(EVP_marshal_private_key(out, key) && CBB_flush(out));
        r->key_n = b->at + (uint32_t)CBB_len(out) - r->key;
    }
    ocsp_add(b, p, r);
    X509_free(leaf);
    EVP_PKEY_free(key);
    ERR_clear_error();
}

/* --- the generation --- */

static int by_host(const void *a, const void *b)
{
    return generation_order((*(struct tls_pair *const *)a)->host,
                            (*(struct tls_pair *const *)b)->host);
}

static bool write_all(int fd, const void *p, size_t n)
{
    const char *at = p;

    while (n > 0) {
        ssize_t k = write(fd, at, n);
        if (k <= 0)
            return false;
        at += k, n -= (size_t)k;
    }
    return true;
}

static err generation_write(const struct build *b, struct generation_head *head,
                            const struct generation_row *rows, int *out)
{
    const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL;
    int fd = memfd_create("pemberley-certificates", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0)
        return ERR_IO;
    head->size = b->at + (uint32_t)CBB_len(&b->bytes);
    if (!write_all(fd, head, sizeof *head) || !write_all(fd, rows, head->count * sizeof *rows) ||
        !write_all(fd, CBB_data(&b->bytes), CBB_len(&b->bytes)) ||
        fcntl(fd, F_ADD_SEALS, seals) < 0) {
        close(fd);
        return ERR_IO;
    }
    *out = fd;
    return ERR_OK;
}

static bool host_ok(str host)
{
    return host.n > 0 && host.n <= 255 && (host.p[0] != '*' || (host.n > 2 && host.p[1] == '.'));
}

static void pairs_add(struct build *b, struct tls_pair **sorted, size_t n, struct tls_pair *first,
                      struct generation_head *head, struct generation_row *rows)
{
    for (size_t i = 0; i < n; i++) {
        if (!host_ok(sorted[i]->host))
            report(b, sorted[i]->host, sorted[i]->certificate_file, "not a domain");
        else if (i > 0 && by_host(&sorted[i - 1], &sorted[i]) == 0)
            report(b, sorted[i]->host, sorted[i]->certificate_file, "this host is named twice");
        pair_add(b, sorted[i], &rows[i]);
        if (CBB_len(&b->bytes) > 1 << 30)
            report(b, sorted[i]->host, sorted[i]->certificate_file, "more than 1 GiB in all");
        if (sorted[i] == first)
            head->default_row = (uint32_t)i;
    }
}

err tls_certs_build(struct tls_pair *pairs, size_t n, tls_problem_f *problem, void *ctx, int *memfd)
{
    must(n > 0 && n < 1 << 20);
    struct generation_head head = {.magic = GENERATION_MAGIC, .count = (uint32_t)n};
    struct generation_row *rows = calloc(n, sizeof *rows);
    struct tls_pair **sorted = calloc(n, sizeof *sorted);
    struct build b = {
        .problem = problem, .ctx = ctx, .at = (uint32_t)(sizeof head + n * sizeof *rows)};

    must(rows && sorted && CBB_init(&b.bytes, n * 2048));
    for (size_t i = 0; i < n; i++)
        sorted[i] = &pairs[i];
    qsort(sorted, n, sizeof *sorted, by_host);
    pairs_add(&b, sorted, n, pairs, &head, rows);
    err e = b.problems ? ERR_BAD : generation_write(&b, &head, rows, memfd);
    CBB_cleanup(&b.bytes);
    free(rows);
    free(sorted);
    return e;
}
