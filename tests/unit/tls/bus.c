/* TLS between nodes, over real sockets on loopback: who proves which name, and who is refused. */
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include <openssl/bytestring.h>
#include <openssl/mem.h>
#include <openssl/pem.h>

#include "node/os/os.h"
#include "node/tls/inside.h"

enum { DAY = 86400, TURNS_MAX = 2000 };

static int64_t now_s;
static int64_t wall(struct clock *c) { return now_s * 1000000; }
static struct clock clock_ = {wall};
static const unsigned char secret[32] = "a secret of thirty-two bytes ...";
static struct arena arena;
static struct loop *loop;
static char dir[] = "/tmp/test-bus-XXXXXX";
static struct tls_identity_pem derby, epsom, other_derby; /* authorities */

static int group_setup(void **state)
{
    struct loop_fault fault;
    struct loop_config c = {.choice = LOOP_EPOLL, .wake_fd = -1};
    arena_init(&arena);
    now_s = time(NULL);
    tls_authority_make(STR("derby"), now_s - 400 * DAY, &arena, &derby);
    tls_authority_make(STR("derby"), now_s - 400 * DAY, &arena, &other_derby);
    tls_authority_make(STR("epsom"), now_s - 400 * DAY, &arena, &epsom);
    assert_int_equal(loop_new(&c, &fault, &loop), ERR_OK);
    return mkdtemp(dir) ? 0 : 1;
}
static int group_teardown(void **state)
{
    loop_close(loop);
    arena_close(&arena);
    return rmdir(dir);
}

/* ---- a node's TLS, from files as the supervisor reads them ---- */

static const char *file(const char *name) { return arena_printf(&arena, "%s/%s", dir, name).p; }
static void write_file(const char *path, str s)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(s.p, 1, s.n, f), s.n);
    fclose(f);
}

static char problems[1024];
static void on_problem(void *ctx, str host, const char *path, const char *problem)
{
    size_t at = strlen(problems);
    snprintf(problems + at, sizeof problems - at, "%s: %s\n", strrchr(path, '/') + 1, problem);
}

static err build(const struct tls_identity_pem *ca, const struct tls_identity_pem *id, str cluster,
                 str node, int64_t at_s, int *fd)
{
    struct tls_bus_files f = {file("ca.pem"), file("node.pem"), file("node.key"), cluster, node, 0};
    problems[0] = 0;
    write_file(f.ca_file, ca->certificate);
    write_file(f.certificate_file, id->certificate), write_file(f.key_file, id->key);
    err e = tls_bus_build(&f, at_s, on_problem, NULL, fd);
    unlink(f.ca_file), unlink(f.certificate_file), unlink(f.key_file);
    return e;
}

static struct tls_identity_pem made(const struct tls_identity_pem *ca, const char *node,
                                    int64_t at_s)
{
    struct tls_identity_pem id;
    assert_int_equal(tls_node_make(ca, str_of(node), at_s, &arena, &id), ERR_OK);
    return id;
}

static void give(struct tls *t, const struct tls_identity_pem *ca, const char *cluster,
                 const char *node, int64_t made_s)
{
    struct tls_identity_pem id = made(ca, node, made_s);
    int fd = -1;
    /* Sealed as if all were well: the other side is to find what is not. */
    assert_int_equal(build(ca, &id, str_of(cluster), str_of(node), made_s, &fd), ERR_OK);
    assert_int_equal(tls_take_bus(t, fd), ERR_OK);
    close(fd);
}

/* A certificate for "a" that this authority has signed, naming whatever and fit for whatever. */
static struct tls_identity_pem crafted(const struct tls_identity_pem *ca, const char *san,
                                       const char *use)
{
    EVP_PKEY *key = make_key();
    X509 *x = make_certificate(key, STR("a"), now_s, 365);
    BIO *ca_in = BIO_new_mem_buf(ca->certificate.p, (int)ca->certificate.n);
    BIO *key_in = BIO_new_mem_buf(ca->key.p, (int)ca->key.n);
    X509 *issuer = PEM_read_bio_X509(ca_in, NULL, NULL, NULL);
    EVP_PKEY *ca_key = PEM_read_bio_PrivateKey(key_in, NULL, NULL, NULL);
    BIO *out[2] = {BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem())};
    str pem[2];
    assert_true(issuer && ca_key && X509_set_issuer_name(x, X509_get_subject_name(issuer)));
    make_extension(x, NID_ext_key_usage, use);
    make_extension(x, NID_subject_alt_name, san);
    assert_true(X509_sign(x, ca_key, EVP_sha256()));
    assert_true(PEM_write_bio_X509(out[0], x));
    assert_true(PEM_write_bio_PKCS8PrivateKey(out[1], key, NULL, NULL, 0, NULL, NULL));
    for (int i = 0; i < 2; i++) {
        const uint8_t *p;
        size_t n;
        assert_true(BIO_mem_contents(out[i], &p, &n));
        pem[i] = arena_dup(&arena, str_from(p, n));
        BIO_free(out[i]);
    }
    BIO_free(ca_in), BIO_free(key_in);
    X509_free(x), X509_free(issuer);
    EVP_PKEY_free(key), EVP_PKEY_free(ca_key);
    return (struct tls_identity_pem){pem[0], pem[1]};
}

static void put_der(CBB *out, str pem)
{
    uint8_t *der = NULL;
    CBB child;
    BIO *in = BIO_new_mem_buf(pem.p, (int)pem.n);
    X509 *x = PEM_read_bio_X509(in, NULL, NULL, NULL);
    int n = i2d_X509(x, &der);
    assert_true(n > 0 && CBB_add_u24_length_prefixed(out, &child) &&
                CBB_add_bytes(&child, der, (size_t)n) && CBB_flush(out));
    OPENSSL_free(der);
    X509_free(x);
    BIO_free(in);
}

/* A node that believes one authority and shows what it likes. */
static struct tls *shower(const struct tls_identity_pem *believes,
                          const struct tls_identity_pem *shows)
{
    struct tls_config c = {0x0303, 0, secret, &clock_};
    struct tls *t = tls_new(&c);
    BIO *in = BIO_new_mem_buf(shows->key.p, (int)shows->key.n);
    EVP_PKEY *key = PEM_read_bio_PrivateKey(in, NULL, NULL, NULL);
    CBB out, child;
    assert_true(CBB_init(&out, 4096) && CBB_add_u32(&out, 0x31425450));
    put_der(&out, believes->certificate);
    assert_true(CBB_add_u24_length_prefixed(&out, &child));
    put_der(&child, shows->certificate);
    assert_true(CBB_flush(&out) && CBB_add_u24_length_prefixed(&out, &child) &&
                EVP_marshal_private_key(&child, key) && CBB_flush(&out));
    int fd = memfd_create("shower", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_int_equal(write(fd, CBB_data(&out), CBB_len(&out)), CBB_len(&out));
    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE);
    assert_int_equal(tls_take_bus(t, fd), ERR_OK);
    close(fd);
    CBB_cleanup(&out);
    EVP_PKEY_free(key);
    BIO_free(in);
    return t;
}

static struct tls *node_of(const struct tls_identity_pem *ca, const char *cluster, const char *name,
                           int64_t made_s)
{
    struct tls_config c = {0x0303, 0, secret, &clock_};
    struct tls *t = tls_new(&c);
    give(t, ca, cluster, name, made_s);
    return t;
}

/* ---- two ends of a socket ---- */

struct end {
    struct transport *t;
    char in[256], peer[40], why[64];
    size_t n;
    unsigned opened, closed;
    err reason;
};
static void keep_info(struct end *e)
{
    struct transport_info i;
    transport_info(e->t, &i);
    if (i.peer.n)
        snprintf(e->peer, sizeof e->peer, "%.*s", STR_ARG(i.peer));
    snprintf(e->why, sizeof e->why, "%.*s", STR_ARG(i.failure));
}
static void on_opened(struct transport *t)
{
    struct end *e = t->owner;
    e->opened++;
    keep_info(e);
}
static void on_bytes(struct transport *t, const char *p, size_t n)
{
    struct end *e = t->owner;
    assert_int_equal(e->opened, 1);
    assert_true(e->n + n <= sizeof e->in);
    memcpy(e->in + e->n, p, n);
    e->n += n;
}
static void on_written(struct transport *t) {}
static void on_ended(struct transport *t) { transport_close(t, false); }
static void on_closed(struct transport *t, err reason)
{
    struct end *e = t->owner;
    e->closed++, e->reason = reason;
    keep_info(e);
}
static const struct transport_sink sink = {on_opened, on_bytes, on_written, on_ended, on_closed};

static void sockets(int fds[2])
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    int l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(l, (struct sockaddr *)&a, n), 0);
    assert_int_equal(listen(l, 1), 0);
    assert_int_equal(getsockname(l, (struct sockaddr *)&a, &n), 0);
    fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fds[0], (struct sockaddr *)&a, n), 0);
    fds[1] = accept4(l, NULL, NULL, SOCK_CLOEXEC);
    assert_true(fds[1] >= 0);
    close(l);
}

static struct end dialler, acceptor;
static void own(struct end *e, struct transport *t)
{
    memset(e, 0, sizeof *e);
    e->t = t, t->sink = &sink, t->owner = e;
}
static bool settled(void) { return (acceptor.opened && dialler.n) || acceptor.closed; }
/* Both shake hands, and the acceptor says "hello" when it is open (as a dialler of TLS 1.3 learns
 * only then whether it was taken). */
static void shake(struct tls *dials, struct tls *accepts)
{
    int fds[2];
    sockets(fds);
    struct transport *low[2];
    for (int i = 0; i < 2; i++)
        low[i] = sock_transport_open(loop, fds[i], NULL, NULL, NULL);
    own(&dialler, tls_rail_open(dials, low[0]));
    own(&acceptor, tls_rail_accept(accepts, low[1]));
    bool said = false;
    for (int i = 0; i < TURNS_MAX && !settled(); i++) {
        loop_turn(loop, 10);
        if (acceptor.opened && !said && !acceptor.closed) {
            said = true;
            transport_write(acceptor.t, &(struct iovec){"hello", 5}, 1);
        }
    }
    assert_true(settled());
}
static void hang_up(void)
{
    struct end *ends[] = {&dialler, &acceptor};
    for (int i = 0; i < 2; i++)
        if (!ends[i]->closed)
            transport_close(ends[i]->t, false);
    for (int i = 0; i < TURNS_MAX && !(dialler.closed && acceptor.closed); i++)
        loop_turn(loop, 10);
    assert_true(dialler.closed == 1 && acceptor.closed == 1);
    transport_free(dialler.t), transport_free(acceptor.t);
}

/* ---- tests ---- */

static void two_nodes_of_a_cluster_prove_their_names_to_each_other(void **state)
{
    struct tls *a = node_of(&derby, "derby", "a", now_s), *b = node_of(&derby, "derby", "b", now_s);
    shake(a, b);
    assert_string_equal(dialler.peer, "b");
    assert_string_equal(acceptor.peer, "a");
    assert_memory_equal(dialler.in, "hello", 5);
    struct transport_info i;
    transport_info(acceptor.t, &i);
    assert_true(i.tls && i.tls_version == 0x0304 && !i.resumed);
    hang_up();
    tls_free(a), tls_free(b);
}

static void refused(struct tls *dials, struct tls *accepts, const char *at_acceptor,
                    const char *at_dialler)
{
    shake(dials, accepts);
    if (at_acceptor) {
        assert_int_equal(acceptor.opened, 0);
        assert_int_equal(acceptor.reason, ERR_TLS);
        assert_string_equal(acceptor.why, at_acceptor);
    }
    for (int i = 0; i < TURNS_MAX && !dialler.closed; i++)
        loop_turn(loop, 10);
    if (at_dialler)
        assert_string_equal(dialler.why, at_dialler);
    assert_int_equal(dialler.n, 0);
    hang_up();
    tls_free(dials), tls_free(accepts);
}

static void an_expired_certificate_is_refused_at_both_ends(void **state)
{
    refused(node_of(&derby, "derby", "a", now_s - 366 * DAY), node_of(&derby, "derby", "b", now_s),
            "certificate_expired", "SSLV3_ALERT_CERTIFICATE_EXPIRED");
    refused(node_of(&derby, "derby", "a", now_s), node_of(&derby, "derby", "b", now_s - 366 * DAY),
            NULL, "certificate_expired");
}

static void one_that_is_not_yet_valid_is_refused(void **state)
{
    refused(node_of(&derby, "derby", "a", now_s + 2 * DAY), node_of(&derby, "derby", "b", now_s),
            "certificate_not_yet_valid", NULL);
}

static void another_authority_is_refused_also_of_the_same_name(void **state)
{
    refused(node_of(&derby, "derby", "a", now_s), node_of(&other_derby, "derby", "b", now_s), NULL,
            "certificate_foreign");
    refused(node_of(&epsom, "epsom", "a", now_s), node_of(&derby, "derby", "b", now_s), NULL,
            "certificate_foreign");
}

static void who_shows_no_certificate_is_refused(void **state)
{
    struct tls *accepts = node_of(&derby, "derby", "b", now_s);
    struct tls_config c = {0x0303, 0, secret, &clock_};
    struct tls *dials = tls_new(&c);
    int fds[2];
    sockets(fds);
    struct transport *low = sock_transport_open(loop, fds[0], NULL, NULL, NULL);
    /* A plain client: believes everybody, shows nothing. */
    own(&dialler, tls_client_open(dials, low, &(struct tls_client_options){0}));
    own(&acceptor, tls_rail_accept(accepts, sock_transport_open(loop, fds[1], NULL, NULL, NULL)));
    for (int i = 0; i < TURNS_MAX && !acceptor.closed; i++)
        loop_turn(loop, 10);
    assert_int_equal(acceptor.reason, ERR_TLS);
    assert_string_equal(acceptor.why, "PEER_DID_NOT_RETURN_A_CERTIFICATE");
    assert_int_equal(acceptor.opened, 0);
    hang_up();
    tls_free(dials), tls_free(accepts);
}

static void a_dialler_of_another_authority_is_refused(void **state)
{
    struct tls_identity_pem foreign = made(&epsom, "a", now_s);
    refused(shower(&derby, &foreign), node_of(&derby, "derby", "b", now_s), "certificate_foreign",
            "TLSV1_ALERT_UNKNOWN_CA");
}

static void names_that_are_none_and_other_uses_are_refused(void **state)
{
    static const struct {
        const char *san, *use, *why;
    } rows[] = {
        {"URI:pemberley://epsom/a", "clientAuth", "certificate_wrong_cluster"},
        {"DNS:a", "clientAuth", "certificate_without_name"},
        {"URI:pemberley://derby/", "clientAuth", "certificate_without_name"},
        {"URI:pemberley://derby/a,URI:pemberley://derby/b", "clientAuth",
         "certificate_without_name"},
        {"URI:pemberley://derby/A", "clientAuth", "certificate_without_name"},
        {"URI:pemberley://derby/a/b", "clientAuth", "certificate_without_name"},
        {"URI:https://derby/a", "clientAuth", "certificate_without_name"},
        {"URI:pemberley://derby/a", "serverAuth", "certificate_unfit"},
    };
    for (size_t i = 0; i < array_len(rows); i++) {
        struct tls_identity_pem id = crafted(&derby, rows[i].san, rows[i].use);
        refused(shower(&derby, &id), node_of(&derby, "derby", "b", now_s), rows[i].why, NULL);
    }
}

static void tls_1_2_is_refused(void **state)
{
    struct tls *accepts = node_of(&derby, "derby", "b", now_s);
    int fds[2];
    sockets(fds);
    struct transport *low = sock_transport_open(loop, fds[0], NULL, NULL, NULL);
    struct tls_client_options o = {.version_max = 0x0303};
    own(&dialler, tls_client_open(accepts, low, &o));
    own(&acceptor, tls_rail_accept(accepts, sock_transport_open(loop, fds[1], NULL, NULL, NULL)));
    for (int i = 0; i < TURNS_MAX && !acceptor.closed; i++)
        loop_turn(loop, 10);
    assert_string_equal(acceptor.why, "UNSUPPORTED_PROTOCOL");
    hang_up();
    tls_free(accepts);
}

static void a_new_certificate_is_shown_to_who_comes_next(void **state)
{
    struct tls *a = node_of(&derby, "derby", "a", now_s - 366 * DAY);
    struct tls *b = node_of(&derby, "derby", "b", now_s);
    shake(a, b);
    assert_string_equal(acceptor.why, "certificate_expired");
    hang_up();
    give(a, &derby, "derby", "a", now_s);
    shake(a, b);
    assert_string_equal(acceptor.peer, "a");
    give(a, &derby, "derby", "a2", now_s); /* while the other is in use */
    give(b, &derby, "derby", "b2", now_s);
    assert_false(acceptor.closed || dialler.closed);
    hang_up();
    shake(a, b);
    assert_string_equal(acceptor.peer, "a2");
    assert_string_equal(dialler.peer, "b2");
    hang_up();
    tls_free(a), tls_free(b);
}

static void what_is_wrong_with_the_files_is_named(void **state)
{
    struct tls_identity_pem a = made(&derby, "a", now_s), b = made(&derby, "b", now_s);
    struct tls_identity_pem mixed = {a.certificate, b.key}, none = {STR("nothing"), STR("")};
    int fd = -1;
    assert_int_equal(build(&derby, &a, STR("derby"), STR("b"), now_s, &fd), ERR_BAD);
    assert_string_equal(problems, "node.pem: it is not this node's in this cluster\n");
    assert_int_equal(build(&derby, &a, STR("epsom"), STR("a"), now_s, &fd), ERR_BAD);
    assert_int_equal(build(&derby, &a, STR("derby"), STR("a"), now_s + 366 * DAY, &fd), ERR_BAD);
    assert_string_equal(problems, "node.pem: certificate_expired\n");
    assert_int_equal(build(&epsom, &a, STR("derby"), STR("a"), now_s, &fd), ERR_BAD);
    assert_string_equal(problems, "node.pem: certificate_foreign\n");
    assert_int_equal(build(&derby, &mixed, STR("derby"), STR("a"), now_s, &fd), ERR_BAD);
    assert_string_equal(problems, "node.key: this key does not belong to the certificate\n");
    assert_int_equal(build(&derby, &none, STR("derby"), STR("a"), now_s, &fd), ERR_BAD);
    assert_string_equal(problems, "node.pem: no certificate in PEM form\n"
                                  "node.key: no unencrypted private key in PEM form\n");
    struct tls_bus_files away = {"/nonexistent/ca.pem",
                                 "/nonexistent/node.pem",
                                 "/nonexistent/node.key",
                                 STR("derby"),
                                 STR("a"),
                                 0};
    problems[0] = 0;
    assert_int_equal(tls_bus_build(&away, now_s, on_problem, NULL, &fd), ERR_BAD);
    assert_non_null(strstr(problems, "ca.pem: No such file"));
    assert_int_equal(fd, -1);
}

static void sealed_bytes_that_are_none_of_ours_are_refused(void **state)
{
    struct tls_identity_pem a = made(&derby, "a", now_s);
    struct tls_config c = {0x0303, 0, secret, &clock_};
    struct tls *t = tls_new(&c);
    unsigned char bytes[8192];
    int fd = -1;
    assert_int_equal(build(&derby, &a, STR("derby"), STR("a"), now_s, &fd), ERR_OK);
    ssize_t n = pread(fd, bytes, sizeof bytes, 0);
    assert_true(n > 100);
    for (ssize_t cut = 0; cut < n; cut += 7) {
        int bad = memfd_create("bad", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        assert_int_equal(write(bad, bytes, (size_t)cut), cut);
        assert_int_equal(tls_take_bus(t, bad), ERR_BAD); /* not sealed */
        fcntl(bad, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE);
        assert_int_equal(tls_take_bus(t, bad), ERR_BAD);
        close(bad);
    }
    assert_int_equal(tls_take_bus(t, fd), ERR_OK);
    close(fd);
    tls_free(t);
}

static void identities_are_checked_as_a_whole(void **state)
{
    struct tls_identity_pem a = made(&derby, "a", now_s), b = made(&derby, "b", now_s), id;
    struct tls_identity_names names;
    assert_null(tls_identity_check(derby.certificate, &a, now_s));
    assert_string_equal(tls_identity_check(derby.certificate, &a, now_s + 366 * DAY),
                        "certificate_expired");
    assert_string_equal(tls_identity_check(other_derby.certificate, &a, now_s),
                        "certificate_foreign");
    id = (struct tls_identity_pem){a.certificate, b.key};
    assert_non_null(tls_identity_check(derby.certificate, &id, now_s));
    assert_non_null(tls_identity_check(epsom.certificate, &a, now_s));
    assert_non_null(tls_identity_check(a.certificate, &a, now_s)); /* a node is no authority */
    assert_int_equal(tls_identity_read(a.certificate, &arena, &names), ERR_OK);
    assert_true(str_is(names.cluster, "derby") && str_is(names.node, "a"));
    assert_int_equal(names.not_after_s, now_s + 365 * DAY);
    assert_int_equal(tls_identity_read(derby.certificate, &arena, &names), ERR_OK);
    assert_int_equal(names.node.n, 0);
    assert_int_equal(tls_identity_read(STR("x"), &arena, &names), ERR_BAD);
    assert_int_equal(tls_node_make(&a, STR("c"), now_s, &arena, &id), ERR_BAD); /* a signs nobody */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_nodes_of_a_cluster_prove_their_names_to_each_other),
        cmocka_unit_test(an_expired_certificate_is_refused_at_both_ends),
        cmocka_unit_test(one_that_is_not_yet_valid_is_refused),
        cmocka_unit_test(another_authority_is_refused_also_of_the_same_name),
        cmocka_unit_test(a_dialler_of_another_authority_is_refused),
        cmocka_unit_test(who_shows_no_certificate_is_refused),
        cmocka_unit_test(names_that_are_none_and_other_uses_are_refused),
        cmocka_unit_test(tls_1_2_is_refused),
        cmocka_unit_test(a_new_certificate_is_shown_to_who_comes_next),
        cmocka_unit_test(what_is_wrong_with_the_files_is_named),
        cmocka_unit_test(sealed_bytes_that_are_none_of_ours_are_refused),
        cmocka_unit_test(identities_are_checked_as_a_whole),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
