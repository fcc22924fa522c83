#include "proto/sasl/scram.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

#include "proto/base/base64.h"
#include "proto/sasl/scram_client.h"

static struct arena arena;

static int open_arena(void **state)
{
    arena_init(&arena);
    return 0;
}

static int close_arena(void **state)
{
    arena_close(&arena);
    return 0;
}

static str unbase64(const char *text)
{
    str out;
    assert_int_equal(base64_decode_in(&arena, str_of(text), &out), ERR_OK);
    return out;
}

/* RFC 5802 5, RFC 7677 3, and one for SHA-512 made with Python's hashlib. */
static const struct vector {
    enum scram_hash hash;
    const char *nonce, *server_first, *client_final, *server_final;
    const char *salt, *stored_key, *server_key;
} vectors[] = {
    {SCRAM_SHA1, "fyko+d2lbbFgONRv9qkxdawL",
     "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
     "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
     "v=rmF9pqV8S7suAoZWja4dJRkFsKQ=", "QSXCR+Q6sek8bf92",
     "6dlGYMOdZcOPutkcNY8U2g7vK9Y=", "D+CSWLOshSulAsxiupA+qs2/fTE="},
    {SCRAM_SHA256, "rOprNGfwEbeRWgbNEkqO",
     "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
     "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
     "p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
     "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=", "W22ZaJ0SNY7soEsUEjb6gQ==",
     "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=",
     "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="},
    {SCRAM_SHA512, "rOprNGfwEbeRWgbNEkqO",
     "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
     "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
     "p=gMGXRcevScNtxZ6/8lQYpGtnsNAc3mGcmNomv+xnoOMw+3R2xNJdMNnzMlTN8PPC6wdp6dybEmDYXYTxwnYPJQ==",
     "v=ZQnYEgWQMFmmsM8aQMF0nDDCy/AgCzkwk8CmMZYcMg0vSVlKDanekLtifDSeVGT4+5ZxXnJq199RVG2rR7N7Zw==",
     "W22ZaJ0SNY7soEsUEjb6gQ==",
     "6AAub3065EYRmyFpM2RNwqK+eGnrkYuEWbXn19LsEmBqzu8QaCXNc1FwpnX9NhH2hK/60dzj9DoO5DvVkOHbvg==",
     "jZHbYjC1aHh0/hKbxyBuGFjDrgjgKTT1esA7awWiKcRZ0o/0b1yWEebBeSVkkCFewf91nLDfKF24mvD5nmE6rA=="},
};

static void the_client_speaks_the_exchanges_of_the_rfcs(void **state)
{
    for (size_t i = 0; i < array_len(vectors); i++) {
        const struct vector *v = &vectors[i];
        struct scram_client c = {.hash = v->hash,
                                 .user = STR("user"),
                                 .password = STR("pencil"),
                                 .nonce = str_of(v->nonce)};
        str first = scram_client_first(&c, &arena), final;
        assert_true(str_eq(first, arena_printf(&arena, "n,,n=user,r=%s", v->nonce)));
        assert_int_equal(scram_client_final(&c, str_of(v->server_first), &arena, &final), ERR_OK);
        assert_true(str_eq(final, str_of(v->client_final)));
        assert_true(scram_client_verify(&c, str_of(v->server_final)));
        assert_false(scram_client_verify(&c, STR("v=AAAA")));
    }
}

static str final_of(const struct vector *v, const char *server_first, struct scram_salted *salted)
{
    struct scram_client c = {.hash = v->hash,
                             .user = STR("user"),
                             .password = STR("pencil"),
                             .nonce = str_of(v->nonce),
                             .salted = salted};
    str final;
    scram_client_first(&c, &arena);
    assert_int_equal(scram_client_final(&c, str_of(server_first), &arena, &final), ERR_OK);
    return final;
}

static void salted_keys_serve_only_their_own_hash_salt_and_count(void **state)
{
    struct scram_salted salted = {.iterations = 0};
    for (size_t i = 0; i < 2 * array_len(vectors); i++) {
        const struct vector *v = &vectors[i % array_len(vectors)];
        for (int again = 0; again < 2; again++)
            assert_true(str_eq(final_of(v, v->server_first, &salted), str_of(v->client_final)));
    }
    const struct vector *v = &vectors[array_len(vectors) - 1];
    char other[256];
    snprintf(other, sizeof other, "%s", v->server_first);
    other[strlen(other) - 1] = '7'; /* i=4097 */
    assert_true(str_eq(final_of(v, other, &salted), final_of(v, other, NULL)));
    strstr(other, ",s=")[3] ^= 1; /* another salt */
    str fresh = final_of(v, other, NULL);
    assert_true(str_eq(final_of(v, other, &salted), fresh));
    salted.client_key[0] ^= 1; /* they are what is used */
    assert_false(str_eq(final_of(v, other, &salted), fresh));
}

static void the_keys_are_those_of_the_rfcs(void **state)
{
    for (size_t i = 0; i < array_len(vectors); i++) {
        const struct vector *v = &vectors[i];
        size_t size = scram_hash_size(v->hash);
        struct scram_key k;
        scram_derive(STR("pencil"), v->hash, unbase64(v->salt), 4096, &k);
        assert_true(str_eq(str_from(k.stored_key, size), unbase64(v->stored_key)));
        assert_true(str_eq(str_from(k.server_key, size), unbase64(v->server_key)));
    }
}

static void fill(struct entropy *e, void *out, size_t n)
{
    static unsigned char next;
    memset(out, ++next, n);
}

static void keys_survive_the_store(void **state)
{
    struct entropy e = {fill};
    struct scram_keys keys, back;
    unsigned char blob[SCRAM_BLOB_MAX];
    scram_keys_make(STR("pencil"), 4096, &e, &keys);
    assert_memory_not_equal(keys.of[0].salt, keys.of[1].salt, SCRAM_SALT_BYTES);
    size_t n = scram_keys_encode(&keys, blob);
    assert_int_equal(scram_keys_decode(str_from(blob, n), &back), ERR_OK);
    assert_memory_equal(&keys, &back, sizeof keys);
    for (size_t cut = 0; cut < n; cut++) /* whole keys may be missing, parts of them not */
        if (!scram_keys_decode(str_from(blob, cut), &back))
            assert_int_equal(scram_keys_encode(&back, blob), cut);
    keys.of[SCRAM_SHA256].iterations = 0;
    n = scram_keys_encode(&keys, blob);
    assert_int_equal(scram_keys_decode(str_from(blob, n), &back), ERR_OK);
    assert_int_equal(back.of[SCRAM_SHA256].iterations, 0);
    keys.of[SCRAM_SHA512].iterations = 0;
    n = scram_keys_encode(&keys, blob);
    memcpy(blob + n, blob + 1, n - 1); /* the same hash twice */
    assert_int_equal(scram_keys_decode(str_from(blob, n), &back), ERR_OK);
    assert_int_equal(scram_keys_decode(str_from(blob, 2 * n - 1), &back), ERR_BAD);
    blob[1] = SCRAM_HASHES;
    assert_int_equal(scram_keys_decode(str_from(blob, n), &back), ERR_BAD);
    blob[1] = SCRAM_SHA1, blob[0] = 2;
    assert_int_equal(scram_keys_decode(str_from(blob, n), &back), ERR_BAD);
}

static void the_password_policy_counts_characters(void **state)
{
    str out;
    assert_int_equal(scram_password_prepare(STR("12345678"), 8, &arena, &out), ERR_OK);
    assert_int_equal(scram_password_prepare(STR("1234567"), 8, &arena, &out),
                     ERR_STANZA_NOT_ACCEPTABLE);
    assert_int_equal(scram_password_prepare(STR("1234\u00e567"), 8, &arena, &out),
                     ERR_STANZA_NOT_ACCEPTABLE);
    assert_int_equal(scram_password_prepare(STR("1234567a\u030a"), 8, &arena, &out), ERR_OK);
    assert_true(str_is(out, "1234567\u00e5"));
    assert_int_equal(scram_password_prepare(STR("1234\t56789"), 8, &arena, &out),
                     ERR_STANZA_NOT_ACCEPTABLE);
}

static void the_client_distrusts_a_malformed_server(void **state)
{
    static const char *const bad[] = {
        "",
        "r=abc,s=QSXC,i=4096",
        "r=xyz1,s=QSXC,i=4096",
        "r=abcd,i=4096",
        "r=abcd,s=QSXC",
        "r=abcd,s=QS,i=4096",
        "r=abcd,s=QSXC,i=0",
        "r=abcd,s=QSXC,i=4096x",
        "r=abcd,s=QSXC,i=99999999999",
    };
    for (size_t i = 0; i < array_len(bad); i++) {
        struct scram_client c = {.hash = SCRAM_SHA1,
                                 .user = STR("user"),
                                 .password = STR("pencil"),
                                 .nonce = STR("abc")};
        str out;
        scram_client_first(&c, &arena);
        assert_int_equal(scram_client_final(&c, str_of(bad[i]), &arena, &out), ERR_BAD);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_client_speaks_the_exchanges_of_the_rfcs),
        cmocka_unit_test(salted_keys_serve_only_their_own_hash_salt_and_count),
        cmocka_unit_test(the_keys_are_those_of_the_rfcs),
        cmocka_unit_test(keys_survive_the_store),
        cmocka_unit_test(the_password_policy_counts_characters),
        cmocka_unit_test(the_client_distrusts_a_malformed_server),
    };
    return cmocka_run_group_tests(tests, open_arena, close_arena);
}
