/* The server's side against the room's own client, and against messages made by hand. The client
 * itself is held to the vectors of RFC 5802 and RFC 7677 in scram.c. */
#include "proto/sasl/sasl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

#include "proto/base/base64.h"
#include "proto/sasl/scram_client.h"

static struct arena arena;
static struct scram_keys alice;
static struct sasl sasl;
static unsigned char counter;

static void fill(struct entropy *e, void *out, size_t n) { memset(out, ++counter, n); }
static struct entropy entropy = {fill};
static struct sasl_offer offer;

static int setup(void **state)
{
    arena_init(&arena);
    scram_keys_make(STR("pencil"), 4096, &entropy, &alice);
    return 0;
}

static int teardown(void **state)
{
    arena_close(&arena);
    return 0;
}

static int each(void **state)
{
    offer = (struct sasl_offer){.tls = true,
                                .host = STR("example.com"),
                                .iterations = 4096,
                                .secret = STR("0123456789abcdef0123456789abcdef"),
                                .entropy = &entropy};
    offer.binding[CB_TLS_EXPORTER].n = 32;
    memset(offer.binding[CB_TLS_EXPORTER].data, 0xe0, 32);
    offer.binding[CB_TLS_SERVER_END_POINT].n = 48;
    memset(offer.binding[CB_TLS_SERVER_END_POINT].data, 0xe1, 48);
    offer.mechanisms = sasl_offered(&offer, UINT32_MAX);
    return 0;
}

static int after(void **state)
{
    sasl_end(&sasl);
    arena_reset(&arena);
    return 0;
}

static struct sasl_answer begin(const char *mechanism, str initial)
{
    return sasl_begin(&sasl, str_of(mechanism), &offer, &initial, &arena);
}

static void fails(struct sasl_answer a, err reason)
{
    assert_int_equal(a.verdict, SASL_FAILURE);
    if (a.reason != reason)
        fail_msg("%s, not %s", err_row(a.reason)->name, err_row(reason)->name);
}

static struct scram_client client(enum scram_hash h)
{
    return (struct scram_client){.hash = h,
                                 .user = STR("alice"),
                                 .password = STR("pencil"),
                                 .nonce = STR("fyko+d2lbbFgONRv9qkxdawL")};
}

static void bind_exporter(struct scram_client *c)
{
    c->binding_name = STR("tls-exporter");
    c->binding_data = str_from(offer.binding[CB_TLS_EXPORTER].data, 32);
}

/* One whole exchange of a client that means well; known NULL: no such account. */
static struct sasl_answer exchange(struct scram_client *c, const char *mechanism,
                                   const struct scram_keys *known, err refused)
{
    struct sasl_answer a = begin(mechanism, scram_client_first(c, &arena));
    if (a.verdict == SASL_NEED_KEYS)
        a = sasl_keys(&sasl, known, refused, &arena);
    if (a.verdict != SASL_CONTINUE)
        return a;
    str final;
    assert_int_equal(scram_client_final(c, a.bytes, &arena, &final), ERR_OK);
    return sasl_step(&sasl, final, &arena);
}

static void every_scram_mechanism_lets_the_right_password_in(void **state)
{
    for (int m = SASL_SCRAM_SHA_512_PLUS; m <= SASL_SCRAM_SHA_1; m++) {
        str name = sasl_mechanism_name((enum sasl_mechanism)m);
        struct scram_client c = client((enum scram_hash)(SCRAM_SHA512 - m / 2));
        if (m % 2 == 0)
            bind_exporter(&c);
        struct sasl_answer a = exchange(&c, name.p, &alice, ERR_OK);
        assert_int_equal(a.verdict, SASL_SUCCESS);
        assert_true(scram_client_verify(&c, a.bytes));
        assert_true(str_is(sasl.user, "alice@example.com"));
    }
}

static void both_binding_types_are_checked(void **state)
{
    struct scram_client c = client(SCRAM_SHA256);
    c.binding_name = STR("tls-server-end-point");
    c.binding_data = str_from(offer.binding[CB_TLS_SERVER_END_POINT].data, 48);
    struct sasl_answer a = exchange(&c, "SCRAM-SHA-256-PLUS", &alice, ERR_OK);
    assert_int_equal(a.verdict, SASL_SUCCESS);
    c.binding_data.n--;
    fails(exchange(&c, "SCRAM-SHA-256-PLUS", &alice, ERR_OK), ERR_SASL_NOT_AUTHORIZED);
    c.binding_data.n += 2;
    fails(exchange(&c, "SCRAM-SHA-256-PLUS", &alice, ERR_OK), ERR_SASL_NOT_AUTHORIZED);
    bind_exporter(&c);
    c.binding_data = STR("................................");
    fails(exchange(&c, "SCRAM-SHA-256-PLUS", &alice, ERR_OK), ERR_SASL_NOT_AUTHORIZED);
    c.binding_name = STR("tls-unique");
    fails(exchange(&c, "SCRAM-SHA-256-PLUS", &alice, ERR_OK), ERR_SASL_NOT_AUTHORIZED);
    bind_exporter(&c);
    offer.binding[CB_TLS_EXPORTER].n = 0; /* TLS 1.2: not offered, not even as an empty one */
    fails(exchange(&c, "SCRAM-SHA-256-PLUS", &alice, ERR_OK), ERR_SASL_NOT_AUTHORIZED);
    c.binding_data.n = 0;
    fails(exchange(&c, "SCRAM-SHA-256-PLUS", &alice, ERR_OK), ERR_SASL_NOT_AUTHORIZED);
}

static void a_client_that_was_not_shown_plus_is_turned_away(void **state)
{
    struct scram_client c = client(SCRAM_SHA1);
    c.flag = 'y';
    fails(exchange(&c, "SCRAM-SHA-1", &alice, ERR_OK), ERR_SASL_NOT_AUTHORIZED);
    memset(offer.binding, 0, sizeof offer.binding);
    offer.mechanisms = sasl_offered(&offer, UINT32_MAX);
    assert_int_equal(exchange(&c, "SCRAM-SHA-1", &alice, ERR_OK).verdict, SASL_SUCCESS);
}

static void binding_flags_belong_to_their_mechanisms(void **state)
{
    fails(begin("SCRAM-SHA-1", STR("p=tls-exporter,,n=alice,r=x")), ERR_SASL_MALFORMED_REQUEST);
    fails(begin("SCRAM-SHA-1-PLUS", STR("n,,n=alice,r=x")), ERR_SASL_MALFORMED_REQUEST);
    fails(begin("SCRAM-SHA-1-PLUS", STR("y,,n=alice,r=x")), ERR_SASL_MALFORMED_REQUEST);
}

static void a_wrong_password_fails_at_the_last_step(void **state)
{
    struct scram_client c = client(SCRAM_SHA256);
    c.password = STR("pencils");
    fails(exchange(&c, "SCRAM-SHA-256", &alice, ERR_OK), ERR_SASL_NOT_AUTHORIZED);
}

/* Everything a stranger sees of both: the same steps, lengths and reason, and the salt stays. */
static void an_unknown_user_looks_like_a_wrong_password(void **state)
{
    str salt[2], known;
    for (int i = 0; i < 2; i++) {
        struct scram_client c = client(SCRAM_SHA256);
        struct sasl_answer a = begin("SCRAM-SHA-256", scram_client_first(&c, &arena));
        assert_int_equal(a.verdict, SASL_NEED_KEYS);
        a = sasl_keys(&sasl, &alice, ERR_OK, &arena);
        known = a.bytes;
        a = begin("SCRAM-SHA-256", STR("n,,n=nobod,r=fyko+d2lbbFgONRv9qkxdawL"));
        assert_int_equal(a.verdict, SASL_NEED_KEYS);
        a = sasl_keys(&sasl, NULL, ERR_OK, &arena);
        assert_int_equal(a.verdict, SASL_CONTINUE);
        assert_int_equal(a.bytes.n, known.n);
        salt[i] = (str){memmem(a.bytes.p, a.bytes.n, ",s=", 3), 3 + 24};
        c.user = STR("nobod");
        fails(exchange(&c, "SCRAM-SHA-256", NULL, ERR_OK), ERR_SASL_NOT_AUTHORIZED);
    }
    assert_true(str_eq(salt[0], salt[1]));
    /* another name, another hash, another secret: other salts */
    struct sasl_answer a = begin("SCRAM-SHA-256", STR("n,,n=nobody,r=x"));
    a = sasl_keys(&sasl, NULL, ERR_OK, &arena);
    assert_null(memmem(a.bytes.p, a.bytes.n, salt[0].p, salt[0].n));
    a = begin("SCRAM-SHA-1", STR("n,,n=nobod,r=x"));
    a = sasl_keys(&sasl, NULL, ERR_OK, &arena);
    assert_null(memmem(a.bytes.p, a.bytes.n, salt[0].p, salt[0].n));
    offer.secret = STR("another");
    a = begin("SCRAM-SHA-256", STR("n,,n=nobod,r=x"));
    a = sasl_keys(&sasl, NULL, ERR_OK, &arena);
    assert_null(memmem(a.bytes.p, a.bytes.n, salt[0].p, salt[0].n));
}

static void made_up_keys_let_nobody_in(void **state)
{
    assert_int_equal(begin("SCRAM-SHA-1", STR("n,,n=nobody,r=x")).verdict, SASL_NEED_KEYS);
    assert_int_equal(sasl_keys(&sasl, NULL, ERR_OK, &arena).verdict, SASL_CONTINUE);
    /* a client that knows the secret, and so the keys, still fails */
    sasl.key = alice.of[SCRAM_SHA1];
    struct scram_client c = client(SCRAM_SHA1);
    c.user = STR("nobody"), c.nonce = STR("x");
    scram_client_first(&c, &arena);
    str salt = base64_encode_in(&arena, str_from(sasl.key.salt, sasl.key.salt_n)), final;
    str first = arena_printf(&arena, "r=%.*s,s=%.*s,i=4096", STR_ARG(sasl.nonce), STR_ARG(salt));
    sasl.auth = arena_printf(&arena, "%.*s,%.*s", STR_ARG(c.first_bare), STR_ARG(first));
    assert_int_equal(scram_client_final(&c, first, &arena, &final), ERR_OK);
    fails(sasl_step(&sasl, final, &arena), ERR_SASL_NOT_AUTHORIZED);
}

static void a_name_that_does_not_prepare_is_like_an_unknown_user(void **state)
{
    struct scram_client c = client(SCRAM_SHA256);
    c.user = STR("al ice");
    struct sasl_answer a = begin("SCRAM-SHA-256", scram_client_first(&c, &arena));
    assert_int_equal(a.verdict, SASL_CONTINUE);
    assert_int_equal(sasl.user.n, 0);
    fails(exchange(&c, "SCRAM-SHA-256", NULL, ERR_OK), ERR_SASL_NOT_AUTHORIZED);
}

static void an_account_without_keys_of_this_hash_is_like_an_unknown_user(void **state)
{
    struct scram_keys only = alice;
    only.of[SCRAM_SHA512] = (struct scram_key){0};
    struct scram_client c = client(SCRAM_SHA512);
    fails(exchange(&c, "SCRAM-SHA-512", &only, ERR_OK), ERR_SASL_NOT_AUTHORIZED);
}

static void names_are_prepared_and_escapes_are_strict(void **state)
{
    assert_int_equal(begin("SCRAM-SHA-1", STR("n,,n=ALICE,r=x")).verdict, SASL_NEED_KEYS);
    assert_true(str_is(sasl.user, "alice@example.com"));
    assert_int_equal(begin("SCRAM-SHA-1", STR("n,,n=a=2Cb=3D,r=x")).verdict, SASL_NEED_KEYS);
    assert_true(str_is(sasl.user, "a,b=@example.com"));
    static const char *const bad[] = {"a=", "a=2", "a=2c", "=3d", "a=2Db", "=", "a=b"};
    for (size_t i = 0; i < array_len(bad); i++)
        fails(begin("SCRAM-SHA-1", arena_printf(&arena, "n,,n=%s,r=x", bad[i])),
              ERR_SASL_MALFORMED_REQUEST);
}

static void an_authzid_must_be_the_bare_jid(void **state)
{
    struct scram_client c = client(SCRAM_SHA256);
    c.authzid = STR("alice@example.com");
    assert_int_equal(exchange(&c, "SCRAM-SHA-256", &alice, ERR_OK).verdict, SASL_SUCCESS);
    c.authzid = STR("Alice@Example.COM");
    assert_int_equal(exchange(&c, "SCRAM-SHA-256", &alice, ERR_OK).verdict, SASL_SUCCESS);
    static const char *const bad[] = {
        "alice",       "bob@example.com", "alice@example.org", "alice@example.com/x",
        "example.com", "a b@example.com"};
    for (size_t i = 0; i < array_len(bad); i++) {
        c.authzid = str_of(bad[i]);
        fails(exchange(&c, "SCRAM-SHA-256", &alice, ERR_OK), ERR_SASL_INVALID_AUTHZID);
        str plain = arena_printf(&arena, "%s%cx%cpencil", bad[i], 0, 0);
        memcpy(strchr(plain.p, 0) + 1, "x", 1);
        fails(begin("PLAIN", plain), ERR_SASL_INVALID_AUTHZID);
    }
}

static void malformed_first_messages_are_refused(void **state)
{
    static const char *const bad[] = {
        "",
        "n",
        "n,",
        "n,,",
        "n,,n=alice",
        "n,,n=alice,",
        "n,,r=x,n=alice",
        "n,,n=,r=x",
        "n,,n=alice,r=",
        "n,,m=x,n=alice,r=x",
        "n,,n=alice,r=x,m=y",
        "n,b=x,n=alice,r=x",
        "n,a=,n=alice,r=x",
        "n,a==,n=alice,r=x",
        "x,,n=alice,r=x",
        "p=,,n=alice,r=x",
        "nn,,n=alice,r=x",
        "n,,n=alice,r=a b",
        "n,,n=alice,r=\xc3\xa9",
        "n,,n=alice,r=x,",
        "n,,n=alice,r=x,1=y",
        "n,,n=alice,r=x,yy",
        "n,,n=alice,r=x,y=",
        "F,n,,n=alice,r=x",
    };
    for (size_t i = 0; i < array_len(bad); i++)
        fails(begin("SCRAM-SHA-1", str_of(bad[i])), ERR_SASL_MALFORMED_REQUEST);
    fails(begin("SCRAM-SHA-1", arena_printf(&arena, "n,,n=alice,r=%0300d", 0)),
          ERR_SASL_MALFORMED_REQUEST);
    fails(begin("SCRAM-SHA-1", arena_printf(&arena, "n,,n=%06200d,r=x", 0)),
          ERR_SASL_MALFORMED_REQUEST);
    assert_int_equal(begin("SCRAM-SHA-1", STR("n,,n=alice,r=x,y=ignored,z=too")).verdict,
                     SASL_NEED_KEYS);
}

static struct sasl_answer answer_with(const char *fmt)
{
    struct sasl_answer a = begin("SCRAM-SHA-1", STR("n,,n=alice,r=x"));
    assert_int_equal(a.verdict, SASL_NEED_KEYS);
    a = sasl_keys(&sasl, &alice, ERR_OK, &arena);
    assert_int_equal(a.verdict, SASL_CONTINUE);
    char text[512];
    int n = snprintf(text, sizeof text, fmt, STR_ARG(sasl.nonce));
    return sasl_step(&sasl, (str){text, (size_t)n}, &arena);
}

static void malformed_final_messages_are_refused(void **state)
{
    static const char *const bad[] = {
        "",
        "c=biws,r=%.*s",
        "c=biws,p=AAAA",
        "r=%.*s,c=biws,p=AAAA",
        "c=biw,r=%.*s,p=AAAA",
        "c=biws,r=%.*s,p=A",
        "c=biws,r=%.*s,p=",
        "c=,r=%.*s,p=AAAA",
        "c=biws,r=%.*s,m=x,p=AAAA",
        "c=biws,r=%.*s,p=AAAA,x=y",
        "p=AAAA",
        ",p=AAAA",
        "c=biws,r=,p=AAAA",
    };
    for (size_t i = 0; i < array_len(bad); i++)
        fails(answer_with(bad[i]), ERR_SASL_MALFORMED_REQUEST);
}

static void a_wrong_proof_nonce_or_header_is_not_authorized(void **state)
{
    fails(answer_with("c=biws,r=%.*s,p=AAAA"), ERR_SASL_NOT_AUTHORIZED);
    fails(answer_with("c=biws,r=%.*s,p=AAAAAAAAAAAAAAAAAAAAAAAAAAA="), ERR_SASL_NOT_AUTHORIZED);
    struct scram_client c = client(SCRAM_SHA1);
    str first = scram_client_first(&c, &arena), final;
    for (int i = 0; i < 3; i++) {
        struct sasl_answer a = begin("SCRAM-SHA-1", first);
        assert_int_equal(a.verdict, SASL_NEED_KEYS);
        a = sasl_keys(&sasl, &alice, ERR_OK, &arena);
        str challenge = arena_dup(&arena, a.bytes);
        c.gs2 = i == 0 ? STR("y,,") : STR("n,,");
        if (i == 1) /* the proof is right for another nonce */
            ((char *)challenge.p)[2 + c.nonce.n] ^= 1;
        assert_int_equal(scram_client_final(&c, challenge, &arena, &final), ERR_OK);
        a = sasl_step(&sasl, final, &arena);
        if (i == 2)
            assert_int_equal(a.verdict, SASL_SUCCESS);
        else
            fails(a, ERR_SASL_NOT_AUTHORIZED);
    }
}

/* Signs other bytes than the client did: its key is in its proof, for whoever has the StoredKey. */
static str sign_again(const struct scram_client *c, str server_first, str final, str other)
{
    const char *p = memrchr(final.p, ',', final.n);
    str without_proof = {final.p, (size_t)(p - final.p)}, proof;
    str text = str_skip(final, without_proof.n + 3);
    assert_int_equal(base64_decode_in(&arena, text, &proof), ERR_OK);
    unsigned char was[SCRAM_DIGEST_MAX], is[SCRAM_DIGEST_MAX];
    str stored = str_from(alice.of[SCRAM_SHA1].stored_key, 20);
    str parts[] = {c->first_bare, STR(","), server_first, STR(","), without_proof};
    scram_hmac(SCRAM_SHA1, stored, parts, array_len(parts), was);
    parts[4] = other;
    scram_hmac(SCRAM_SHA1, stored, parts, array_len(parts), is);
    for (int i = 0; i < 20; i++)
        is[i] ^= (unsigned char)(was[i] ^ (unsigned char)proof.p[i]);
    text = base64_encode_in(&arena, str_from(is, 20));
    return arena_printf(&arena, "%.*s,p=%.*s", STR_ARG(other), STR_ARG(text));
}

static void a_right_proof_of_a_wrong_nonce_is_not_authorized(void **state)
{
    for (int wrong = 0; wrong < 2; wrong++) {
        struct scram_client c = client(SCRAM_SHA1);
        struct sasl_answer a = begin("SCRAM-SHA-1", scram_client_first(&c, &arena));
        assert_int_equal(a.verdict, SASL_NEED_KEYS);
        a = sasl_keys(&sasl, &alice, ERR_OK, &arena);
        str final, other;
        assert_int_equal(scram_client_final(&c, a.bytes, &arena, &final), ERR_OK);
        other = arena_printf(&arena, "c=biws,r=%.*s%s", STR_ARG(sasl.nonce), wrong ? "x" : "");
        a = sasl_step(&sasl, sign_again(&c, a.bytes, final, other), &arena);
        if (wrong)
            fails(a, ERR_SASL_NOT_AUTHORIZED);
        else
            assert_int_equal(a.verdict, SASL_SUCCESS);
    }
}

static void the_hash_of_the_offer_is_the_one_of_xep_0474(void **state)
{
    offer.mechanisms = SASL_BIT(SASL_SCRAM_SHA_1) | SASL_BIT(SASL_SCRAM_SHA_1_PLUS);
    struct scram_client c = client(SCRAM_SHA1);
    struct sasl_answer a = begin("SCRAM-SHA-1", scram_client_first(&c, &arena));
    assert_int_equal(a.verdict, SASL_NEED_KEYS);
    a = sasl_keys(&sasl, &alice, ERR_OK, &arena);
    str h = STR(",h=G6k/rBLDqgOhRRaCuuatSDFkJ08=");
    assert_true(a.bytes.n > h.n && str_eq(str_skip(a.bytes, a.bytes.n - h.n), h));
    /* a client that saw less notices */
    str final;
    c.features_hash = STR("G6k/rBLDqgOhRRaCuuatSDFkJ08=");
    assert_int_equal(scram_client_final(&c, a.bytes, &arena, &final), ERR_OK);
    c.features_hash = STR("AAk/rBLDqgOhRRaCuuatSDFkJ08=");
    assert_int_equal(scram_client_final(&c, a.bytes, &arena, &final), ERR_BAD);
}

static void a_disabled_account_hears_so_only_with_the_right_password(void **state)
{
    struct scram_client c = client(SCRAM_SHA512);
    fails(exchange(&c, "SCRAM-SHA-512", &alice, ERR_SASL_ACCOUNT_DISABLED),
          ERR_SASL_ACCOUNT_DISABLED);
    fails(exchange(&c, "SCRAM-SHA-512", &alice, ERR_SASL_CREDENTIALS_EXPIRED),
          ERR_SASL_CREDENTIALS_EXPIRED);
    c.password = STR("wrong");
    fails(exchange(&c, "SCRAM-SHA-512", &alice, ERR_SASL_ACCOUNT_DISABLED),
          ERR_SASL_NOT_AUTHORIZED);
}

static struct sasl_answer plain(const char *name, const char *password,
                                const struct scram_keys *keys, err refused)
{
    str parts[] = {STR("\0"), str_of(name), STR("\0"), str_of(password)};
    struct sasl_answer a = begin("PLAIN", arena_concat(&arena, parts, array_len(parts)));
    if (a.verdict == SASL_NEED_KEYS)
        a = sasl_keys(&sasl, keys, refused, &arena);
    if (a.verdict != SASL_NEED_CHECK)
        return a;
    struct sasl_check check;
    sasl_check_take(&sasl, &check);
    return sasl_checked(&sasl, sasl_check_run(&check));
}

static void plain_lets_the_right_password_in_and_no_other(void **state)
{
    assert_int_equal(plain("Alice", "pencil", &alice, ERR_OK).verdict, SASL_SUCCESS);
    assert_true(str_is(sasl.user, "alice@example.com"));
    fails(plain("alice", "pencils", &alice, ERR_OK), ERR_SASL_NOT_AUTHORIZED);
    fails(plain("alice", "pencil", NULL, ERR_OK), ERR_SASL_NOT_AUTHORIZED);
    fails(plain("al ice", "pencil", NULL, ERR_OK), ERR_SASL_NOT_AUTHORIZED);
    fails(plain("alice", "pen\tcil", &alice, ERR_OK), ERR_SASL_NOT_AUTHORIZED);
    fails(plain("alice", "pencil", &alice, ERR_SASL_ACCOUNT_DISABLED), ERR_SASL_ACCOUNT_DISABLED);
    fails(plain("alice", "wrong", &alice, ERR_SASL_ACCOUNT_DISABLED), ERR_SASL_NOT_AUTHORIZED);
    str huge = arena_printf(&arena, "%05000d", 0);
    fails(plain("alice", huge.p, &alice, ERR_OK), ERR_SASL_NOT_AUTHORIZED);
}

static void plain_with_made_up_keys_lets_nobody_in(void **state)
{
    struct sasl_answer a = begin("PLAIN", STR("\0nobody\0pencil"));
    assert_int_equal(a.verdict, SASL_NEED_KEYS);
    assert_int_equal(sasl_keys(&sasl, NULL, ERR_OK, &arena).verdict, SASL_NEED_CHECK);
    fails(sasl_checked(&sasl, true), ERR_SASL_NOT_AUTHORIZED);
}

/* What does not prepare is cut to what a helper takes: the rest must not be forgotten. */
static void a_longer_password_is_another_password(void **state)
{
    str longest = arena_printf(&arena, "%0*d", SCRAM_PASSWORD_MAX, 0);
    struct scram_keys keys;
    scram_keys_make(longest, 1, &entropy, &keys);
    assert_int_equal(plain("alice", longest.p, &keys, ERR_OK).verdict, SASL_SUCCESS);
    str longer = arena_printf(&arena, "%.*s0", STR_ARG(longest));
    fails(plain("alice", longer.p, &keys, ERR_OK), ERR_SASL_NOT_AUTHORIZED);
}

static void plain_uses_whichever_keys_an_imported_account_has(void **state)
{
    struct scram_keys only = {.of[SCRAM_SHA1] = alice.of[SCRAM_SHA1]};
    assert_int_equal(plain("alice", "pencil", &only, ERR_OK).verdict, SASL_SUCCESS);
    fails(plain("alice", "pencil", &(struct scram_keys){0}, ERR_OK), ERR_SASL_NOT_AUTHORIZED);
}

static void malformed_plain_messages_are_refused(void **state)
{
    static const str bad[] = {STR(""),      STR("\0"),       STR("\0a"),       STR("\0a\0"),
                              STR("\0\0b"), STR("\0a\0b\0"), STR("\0a\0b\0c"), STR("ab")};
    for (size_t i = 0; i < array_len(bad); i++)
        fails(begin("PLAIN", bad[i]), ERR_SASL_MALFORMED_REQUEST);
}

static void plain_needs_tls(void **state)
{
    offer.tls = false;
    memset(offer.binding, 0, sizeof offer.binding);
    offer.mechanisms = sasl_offered(&offer, UINT32_MAX);
    assert_int_equal(offer.mechanisms, SASL_BIT(SASL_SCRAM_SHA_512) | SASL_BIT(SASL_SCRAM_SHA_256) |
                                           SASL_BIT(SASL_SCRAM_SHA_1) | SASL_BIT(SASL_ANONYMOUS));
    fails(begin("PLAIN", STR("\0alice\0pencil")), ERR_SASL_ENCRYPTION_REQUIRED);
}

static void what_was_not_offered_is_an_invalid_mechanism(void **state)
{
    offer.mechanisms = SASL_BIT(SASL_SCRAM_SHA_256);
    static const char *const bad[] = {
        "",      "EXTERNAL",  "scram-sha-256", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-1",
        "PLAIN", "ANONYMOUS", "SCRAM-SHA-256 "};
    for (size_t i = 0; i < array_len(bad); i++)
        fails(begin(bad[i], STR("n,,n=alice,r=x")), ERR_SASL_INVALID_MECHANISM);
}

static void anonymous_users_get_names_of_their_own(void **state)
{
    struct sasl_answer a = sasl_begin(&sasl, STR("ANONYMOUS"), &offer, NULL, &arena);
    assert_int_equal(a.verdict, SASL_SUCCESS);
    assert_int_equal(sasl.user.n, 32 + 1 + offer.host.n);
    str first = arena_dup(&arena, sasl.user);
    assert_int_equal(begin("ANONYMOUS", STR("trace")).verdict, SASL_SUCCESS);
    assert_false(str_eq(first, sasl.user));
}

static void without_an_initial_response_the_server_asks_for_it(void **state)
{
    struct sasl_answer a = sasl_begin(&sasl, STR("SCRAM-SHA-1"), &offer, NULL, &arena);
    assert_int_equal(a.verdict, SASL_CONTINUE);
    assert_int_equal(a.bytes.n, 0);
    assert_true(str_is(sasl_encode(a.bytes, &arena), "="));
    assert_int_equal(sasl_step(&sasl, STR("n,,n=alice,r=x"), &arena).verdict, SASL_NEED_KEYS);
}

static void base64_errors_have_their_own_condition(void **state)
{
    str out;
    assert_int_equal(sasl_decode(STR("="), &arena, &out), ERR_OK);
    assert_int_equal(out.n, 0);
    assert_int_equal(sasl_decode(STR("Zm9v"), &arena, &out), ERR_OK);
    assert_true(str_is(out, "foo"));
    assert_int_equal(sasl_decode(STR("Zm9v\n"), &arena, &out), ERR_SASL_INCORRECT_ENCODING);
    assert_int_equal(sasl_decode(STR("Zg"), &arena, &out), ERR_SASL_INCORRECT_ENCODING);
    char *big = arena_alloc(&arena, 9000);
    memset(big, 'A', 9000);
    assert_int_equal(sasl_decode((str){big, 9000}, &arena, &out), ERR_SASL_MALFORMED_REQUEST);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, each, after)
    const struct CMUnitTest tests[] = {
        T(every_scram_mechanism_lets_the_right_password_in),
        T(both_binding_types_are_checked),
        T(a_client_that_was_not_shown_plus_is_turned_away),
        T(binding_flags_belong_to_their_mechanisms),
        T(a_wrong_password_fails_at_the_last_step),
        T(an_unknown_user_looks_like_a_wrong_password),
        T(made_up_keys_let_nobody_in),
        T(a_name_that_does_not_prepare_is_like_an_unknown_user),
        T(an_account_without_keys_of_this_hash_is_like_an_unknown_user),
        T(names_are_prepared_and_escapes_are_strict),
        T(an_authzid_must_be_the_bare_jid),
        T(malformed_first_messages_are_refused),
        T(malformed_final_messages_are_refused),
        T(a_wrong_proof_nonce_or_header_is_not_authorized),
        T(a_right_proof_of_a_wrong_nonce_is_not_authorized),
        T(the_hash_of_the_offer_is_the_one_of_xep_0474),
        T(a_disabled_account_hears_so_only_with_the_right_password),
        T(plain_lets_the_right_password_in_and_no_other),
        T(plain_with_made_up_keys_lets_nobody_in),
        T(a_longer_password_is_another_password),
        T(plain_uses_whichever_keys_an_imported_account_has),
        T(malformed_plain_messages_are_refused),
        T(plain_needs_tls),
        T(what_was_not_offered_is_an_invalid_mechanism),
        T(anonymous_users_get_names_of_their_own),
        T(without_an_initial_response_the_server_asks_for_it),
        T(base64_errors_have_their_own_condition),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
