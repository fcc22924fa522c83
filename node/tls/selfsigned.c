/* selfsigned: the certificate of a first start, so that TLS works before anybody has bought one:
 * ECDSA P-256, ten years, all domains as dNSName, not a CA. */
#include <errno.h>
#include <fcntl.h>
#include <openssl/ec.h>
#include <openssl/ec_key.h>
#include <openssl/evp.h>
#include <openssl/mem.h>
#include <openssl/nid.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <unistd.h>

#include "node/tls/inside.h"

enum { VALID_DAYS = 3650, COMMON_NAME_MAX = 64 /* RFC 5280, ub-common-name */ };

EVP_PKEY *make_key(void)
{
    EC_KEY *ec = EC_KEY_new_by_curve_name(NID_X9_62_prime256v1);
    EVP_PKEY *key = EVP_PKEY_new();

    must(ec && key && EC_KEY_generate_key(ec) && EVP_PKEY_assign_EC_KEY(key, ec));
    return key;
}

void make_extension(X509 *x, int nid, const char *value)
{
    X509_EXTENSION *e = X509V3_EXT_nconf_nid(NULL, NULL, nid, (char *)(uintptr_t)value);

    must(e && X509_add_ext(x, e, -1));
    X509_EXTENSION_free(e);
}

static void names_add(X509 *x, const str *domains, size_t n)
{
    GENERAL_NAMES *names = sk_GENERAL_NAME_new_null();

    must(names);
    for (size_t i = 0; i < n; i++) {
        GENERAL_NAME *g = GENERAL_NAME_new();
        ASN1_IA5STRING *s = ASN1_IA5STRING_new();
        must(g && s && ASN1_STRING_set(s, domains[i].p, (int)domains[i].n));
        GENERAL_NAME_set0_value(g, GEN_DNS, s);
        must(sk_GENERAL_NAME_push(names, g));
    }
    must(X509_add1_ext_i2d(x, NID_subject_alt_name, names, 0, 0));
    GENERAL_NAMES_free(names);
}

X509 *make_certificate(EVP_PKEY *key, str cn, int64_t now_s, int days)
{
    X509 *x = X509_new();
    X509_NAME *name = X509_NAME_new();
    BIGNUM *serial = BN_new();

    must(x && name && serial && X509_set_version(x, X509_VERSION_3));
    must(BN_rand(serial, 127, BN_RAND_TOP_ONE, BN_RAND_BOTTOM_ANY) &&
         BN_to_ASN1_INTEGER(serial, X509_get_serialNumber(x)));
    must(X509_NAME_add_entry_by_NID(name, NID_commonName, MBSTRING_UTF8, (const uint8_t *)cn.p,
                                    (int)cn.n, -1, 0));
    must(X509_set_subject_name(x, name) && X509_set_issuer_name(x, name));
    /* An hour back: clocks differ. */
    must(ASN1_TIME_adj(X509_getm_notBefore(x), now_s, 0, -3600) &&
         ASN1_TIME_adj(X509_getm_notAfter(x), now_s, days, 0));
    must(X509_set_pubkey(x, key));
    BN_free(serial);
    X509_NAME_free(name);
    return x;
}

static X509 *certificate_new(EVP_PKEY *key, const str *domains, size_t n, int64_t now_s)
{
    str cn = domains[0].n <= COMMON_NAME_MAX ? domains[0] : STR("pemberley");
    X509 *x = make_certificate(key, cn, now_s, VALID_DAYS);

    make_extension(x, NID_basic_constraints, "critical,CA:FALSE");
    make_extension(x, NID_key_usage, "critical,digitalSignature");
    make_extension(x, NID_ext_key_usage, "serverAuth,clientAuth");
    names_add(x, domains, n);
    must(X509_sign(x, key, EVP_sha256()));
    return x;
}

/* A file that is there is somebody's: never overwritten. */
static err file_write(const char *path, mode_t mode, BIO *from)
{
    const uint8_t *p;
    size_t n;
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);

    if (fd < 0)
        return errno == EEXIST ? ERR_EXISTS : ERR_IO;
    must(BIO_mem_contents(from, &p, &n));
    bool ok = write(fd, p, n) == (ssize_t)n && fsync(fd) == 0;
    int e = errno;
    close(fd);
    if (ok)
        return ERR_OK;
    unlink(path);
    errno = e;
    return ERR_IO;
}

err tls_selfsigned_write(const str *domains, size_t n, int64_t now_s, const char *certificate_file,
                         const char *key_file)
{
    must(n > 0);
    EVP_PKEY *key = make_key();
    X509 *x = certificate_new(key, domains, n, now_s);
    BIO *key_pem = BIO_new(BIO_s_mem()), *pem = BIO_new(BIO_s_mem());

    must(key_pem && pem && PEM_write_bio_X509(pem, x) &&
         PEM_write_bio_PKCS8PrivateKey(key_pem, key, NULL, NULL, 0, NULL, NULL));
    err e = file_write(key_file, 0600, key_pem);
    if (!e) {
        e = file_write(certificate_file, 0644, pem);
        if (e)
            unlink(key_file); /* a key without its certificate is in the way of the next try */
    }
    BIO_free(key_pem); /* wipes the key */
    BIO_free(pem);
    X509_free(x);
    EVP_PKEY_free(key);
    return e;
}
