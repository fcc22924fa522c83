#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <openssl/bytestring.h>

#include "node/tls/inside.h"

static char dir[] = "/tmp/test-certs-XXXXXX";
static int64_t now_s;

struct seen {
    int n;
    char text[512]; /* of the last problem: host, file's last letters, problem */
};
static void on_problem(void *ctx, str host, const char *file, const char *problem)
{
    struct seen *s = ctx;
    s->n++;
    snprintf(s->text, sizeof s->text, "%.*s %s: %s", STR_ARG(host), strrchr(file, '/') + 1,
             problem);
}

static const char *path(const char *name)
{
    static char out[32][128];
    static unsigned turn;
    char *p = out[turn++ % 32];
    snprintf(p, sizeof out[0], "%s/%s", dir, name);
    return p;
}
static void file_put(const char *name, const void *p, size_t n)
{
    int fd = open(path(name), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_int_equal(write(fd, p, n), n);
    close(fd);
}
static size_t file_get(const char *name, char *out, size_t cap)
{
    int fd = open(path(name), O_RDONLY);
    ssize_t n = read(fd, out, cap);
    close(fd);
    assert_true(n > 0);
    return (size_t)n;
}

static int setup(void **state)
{
    const str names[] = {STR("one.example"), STR("*.one.example"), STR("two.example")};
    now_s = time(NULL);
    assert_non_null(mkdtemp(dir));
    assert_int_equal(tls_selfsigned_write(names, 2, now_s, path("1.pem"), path("1.key")), ERR_OK);
    assert_int_equal(tls_selfsigned_write(&names[2], 1, now_s, path("2.pem"), path("2.key")),
                     ERR_OK);
    return 0;
}
static int teardown(void **state)
{
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", dir);
    return system(command);
}

static err build(struct tls_pair *pairs, size_t n, struct seen *s, int *fd)
{
    memset(s, 0, sizeof *s);
    *fd = -1;
    return tls_certs_build(pairs, n, on_problem, s, fd);
}
static struct tls_pair pair(str host, const char *certificate, const char *key)
{
    return (struct tls_pair){
        .host = host, .certificate_file = path(certificate), .key_file = path(key)};
}
static void assert_problem(struct tls_pair p, const char *text)
{
    struct seen s;
    int fd;
    assert_int_equal(build(&p, 1, &s, &fd), ERR_BAD);
    assert_string_equal(s.text, text);
    assert_int_equal(s.n, 1);
    assert_int_equal(fd, -1);
}

static void a_self_signed_certificate_is_good_for_its_domains_and_ten_years(void **state)
{
    struct tls_pair p[] = {pair(STR("one.example"), "1.pem", "1.key"),
                           pair(STR("*.one.example"), "1.pem", "1.key"),
                           pair(STR("other.example"), "1.pem", "1.key")};
    struct seen s;
    struct stat st;
    int fd;
    assert_int_equal(build(p, 3, &s, &fd), ERR_OK);
    assert_true(p[0].covers && p[1].covers && !p[2].covers);
    assert_in_range(p[0].not_after_s - now_s, 3650 * 86400 - 1, 3650 * 86400 + 1);
    assert_int_equal(stat(path("1.key"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    close(fd);
}

static void files_that_are_there_are_never_overwritten(void **state)
{
    str host = STR("x");
    char key[4096];
    size_t n = file_get("1.key", key, sizeof key);
    assert_int_equal(tls_selfsigned_write(&host, 1, now_s, path("new.pem"), path("1.key")),
                     ERR_EXISTS);
    assert_int_equal(access(path("new.pem"), F_OK), -1);
    assert_int_equal(tls_selfsigned_write(&host, 1, now_s, path("1.pem"), path("new.key")),
                     ERR_EXISTS);
    assert_int_equal(access(path("new.key"), F_OK), -1);
    char again[4096];
    assert_int_equal(file_get("1.key", again, sizeof again), n);
    assert_memory_equal(key, again, n);
    assert_int_equal(tls_selfsigned_write(&host, 1, now_s, path("no/1.pem"), path("no/1.key")),
                     ERR_IO);
}

static void every_problem_names_its_file(void **state)
{
    char text[8192];
    assert_problem(pair(STR("h"), "none.pem", "1.key"), "h none.pem: No such file or directory");
    assert_problem(pair(STR("h"), "1.pem", "none.key"), "h none.key: No such file or directory");
    assert_problem(pair(STR("h"), "1.key", "1.key"), "h 1.key: no certificate in PEM form");
    assert_problem(pair(STR("h"), "1.pem", "1.pem"),
                   "h 1.pem: no unencrypted private key in PEM form");
    assert_problem(pair(STR("h"), "1.pem", "2.key"),
                   "h 2.key: this key does not belong to the certificate");
    assert_problem(pair(STR("*"), "1.pem", "1.key"), "* 1.pem: not a domain");
    size_t n = file_get("1.pem", text, sizeof text);
    memcpy(text + n, text, n / 2); /* cut off within the second */
    file_put("cut.pem", text, n + n / 2);
    assert_problem(pair(STR("h"), "cut.pem", "1.key"),
                   "h cut.pem: a certificate behind the first is damaged");
}

static void all_pairs_are_looked_at_before_it_fails(void **state)
{
    struct tls_pair p[] = {pair(STR("a"), "none", "1.key"), pair(STR("b"), "1.pem", "1.key"),
                           pair(STR("c"), "none", "1.key")};
    struct tls_pair twice[] = {pair(STR("a"), "1.pem", "1.key"), pair(STR("a"), "2.pem", "2.key")};
    struct seen s;
    int fd;
    assert_int_equal(build(p, 3, &s, &fd), ERR_BAD);
    assert_int_equal(s.n, 2);
    assert_int_equal(build(twice, 2, &s, &fd), ERR_BAD);
    assert_non_null(strstr(s.text, "this host is named twice"));
}

static void a_generation_is_sealed_and_finds_its_hosts(void **state)
{
    struct tls_pair p[] = {pair(STR("two.example"), "2.pem", "2.key"),
                           pair(STR("one.example"), "1.pem", "1.key"),
                           pair(STR("*.one.example"), "1.pem", "1.key")};
    struct seen s;
    struct tls_certs *g;
    int fd;
    assert_int_equal(build(p, 3, &s, &fd), ERR_OK);
    assert_int_equal(write(fd, "x", 1), -1);
    assert_int_equal(ftruncate(fd, 0), -1);
    assert_int_equal(tls_certs_map(fd, &g), ERR_OK);
    close(fd);
    assert_int_equal(tls_certs_default(g), tls_certs_find(g, STR("two.example")));
    assert_int_not_equal(tls_certs_find(g, STR("ONE.example.")), -1);
    assert_int_not_equal(tls_certs_find(g, STR("a.one.example")), -1);
    assert_int_equal(tls_certs_find(g, STR("a.one.example")),
                     tls_certs_find(g, STR("B.ONE.EXAMPLE")));
    assert_int_equal(tls_certs_find(g, STR("a.b.one.example")), -1);
    assert_int_equal(tls_certs_find(g, STR("*.one.example")), -1);
    assert_int_equal(tls_certs_find(g, STR("three.example")), -1);
    assert_int_equal(tls_certs_find(g, STR(".one.example")), -1);
    assert_int_equal(tls_certs_find(g, STR(".")), -1);
    assert_int_equal(tls_certs_find(g, STR_NONE), -1);
    const struct tls_host *h = tls_certs_host(g, tls_certs_default(g));
    assert_non_null(h);
    assert_int_equal(h->chain_n, 1);
    assert_int_equal(h->identity->binding_n, 32);
    assert_ptr_equal(h, tls_certs_host(g, tls_certs_default(g)));
    tls_certs_unref(g);
}

static int copy_of(int fd, size_t at, unsigned char x, bool sealed)
{
    static unsigned char bytes[1 << 16];
    ssize_t n = pread(fd, bytes, sizeof bytes, 0);
    int out = memfd_create("test", MFD_ALLOW_SEALING);
    bytes[at] ^= x;
    assert_int_equal(write(out, bytes, (size_t)n), n);
    if (sealed)
        fcntl(out, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE);
    return out;
}

static void a_generation_that_is_not_sealed_or_damaged_is_refused_or_harmless(void **state)
{
    struct tls_pair p[] = {pair(STR("one.example"), "1.pem", "1.key"),
                           pair(STR("two.example"), "2.pem", "2.key")};
    struct seen s;
    struct tls_certs *g;
    int fd, refused = 0;
    assert_int_equal(build(p, 2, &s, &fd), ERR_OK);
    int open_ = copy_of(fd, 0, 0, false);
    assert_int_equal(tls_certs_map(open_, &g), ERR_BAD);
    close(open_);
    for (size_t at = 0; at < 300; at++)
        for (unsigned char x = 1; x; x = (unsigned char)(x << 1)) {
            int bad = copy_of(fd, at, x, true);
            if (tls_certs_map(bad, &g) == ERR_OK) {
                for (long row = 0; row < 2; row++)
                    (void)tls_certs_host(g, row);
                tls_certs_unref(g);
            } else {
                refused++;
            }
            close(bad);
        }
    assert_true(refused > 300);
    close(fd);
}

/* OCSPResponse { successful, basic { data { responder, produced, { { id, good, thisUpdate,
 * [0] nextUpdate } } } } }: as much as is read of it. */
static size_t ocsp_make(unsigned char *out, const char *next_update)
{
    CBB c, response, tagged, bytes, octets, basic, data, list, one, next, t;
    size_t n = 0;
    enum { EXPLICIT_0 = CBS_ASN1_CONTEXT_SPECIFIC | CBS_ASN1_CONSTRUCTED };
    static const uint8_t oid[] = {0x2b, 6, 1, 5, 5, 7, 48, 1, 1};
    must(CBB_init_fixed(&c, out, 512) && CBB_add_asn1(&c, &response, CBS_ASN1_SEQUENCE));
    must(CBB_add_asn1(&response, &t, CBS_ASN1_ENUMERATED) && CBB_add_u8(&t, 0));
    must(CBB_add_asn1(&response, &tagged, EXPLICIT_0));
    must(CBB_add_asn1(&tagged, &bytes, CBS_ASN1_SEQUENCE));
    must(CBB_add_asn1(&bytes, &t, CBS_ASN1_OBJECT) && CBB_add_bytes(&t, oid, sizeof oid));
    must(CBB_add_asn1(&bytes, &octets, CBS_ASN1_OCTETSTRING));
    must(CBB_add_asn1(&octets, &basic, CBS_ASN1_SEQUENCE));
    must(CBB_add_asn1(&basic, &data, CBS_ASN1_SEQUENCE));
    must(CBB_add_asn1(&data, &t, EXPLICIT_0 | 2) && CBB_add_u16(&t, 0x0400)); /* by key */
    must(CBB_add_asn1(&data, &t, CBS_ASN1_GENERALIZEDTIME) &&
         CBB_add_bytes(&t, (const uint8_t *)"20260101000000Z", 15));
    must(CBB_add_asn1(&data, &list, CBS_ASN1_SEQUENCE));
    must(CBB_add_asn1(&list, &one, CBS_ASN1_SEQUENCE));
    must(CBB_add_asn1(&one, &t, CBS_ASN1_SEQUENCE));
    must(CBB_add_asn1(&one, &t, CBS_ASN1_CONTEXT_SPECIFIC | 0));
    must(CBB_add_asn1(&one, &t, CBS_ASN1_GENERALIZEDTIME) &&
         CBB_add_bytes(&t, (const uint8_t *)"20260101000000Z", 15));
    must(CBB_add_asn1(&one, &next, EXPLICIT_0));
    must(CBB_add_asn1(&next, &t, CBS_ASN1_GENERALIZEDTIME) &&
         CBB_add_bytes(&t, (const uint8_t *)next_update, strlen(next_update)));
    must(CBB_finish(&c, NULL, &n));
    return n;
}

static void an_ocsp_response_beside_the_certificate_comes_with_its_end(void **state)
{
    unsigned char der[512];
    size_t n = ocsp_make(der, "20270203040506Z");
    struct tls_pair p = pair(STR("one.example"), "1.pem", "1.key");
    struct seen s;
    struct tls_certs *g;
    int fd;
    file_put("1.pem.ocsp", der, n);
    err e = build(&p, 1, &s, &fd);
    assert_string_equal(s.text, "");
    assert_int_equal(e, ERR_OK);
    assert_int_equal(tls_certs_map(fd, &g), ERR_OK);
    const struct tls_host *h = tls_certs_host(g, 0);
    assert_int_equal(h->ocsp.n, n);
    assert_memory_equal(h->ocsp.p, der, n);
    assert_int_equal(h->ocsp_until_s, 1801627506);
    tls_certs_unref(g);
    close(fd);
    file_put("1.pem.ocsp", der, n / 2);
    assert_problem(p, "one.example 1.pem.ocsp: no successful OCSP response with an end");
    unlink(path("1.pem.ocsp"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_self_signed_certificate_is_good_for_its_domains_and_ten_years),
        cmocka_unit_test(files_that_are_there_are_never_overwritten),
        cmocka_unit_test(every_problem_names_its_file),
        cmocka_unit_test(all_pairs_are_looked_at_before_it_fails),
        cmocka_unit_test(a_generation_is_sealed_and_finds_its_hosts),
        cmocka_unit_test(a_generation_that_is_not_sealed_or_damaged_is_refused_or_harmless),
        cmocka_unit_test(an_ocsp_response_beside_the_certificate_comes_with_its_end),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
