#include "proto/base/base64.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "proto/base/hex.h"
#include "proto/base/utf8.h"

static void encodes_and_decodes_the_vectors_of_rfc_4648(void **state)
{
    static const char *const pairs[][2] = {
        {"", ""},
        {"f", "Zg=="},
        {"fo", "Zm8="},
        {"foo", "Zm9v"},
        {"foob", "Zm9vYg=="},
        {"fooba", "Zm9vYmE="},
        {"foobar", "Zm9vYmFy"},
    };
    for (size_t i = 0; i < array_len(pairs); i++) {
        char text[16];
        unsigned char bytes[16];
        size_t n = base64_encode(text, str_of(pairs[i][0]));
        assert_true(str_eq((str){text, n}, str_of(pairs[i][1])));
        assert_int_equal(n, base64_encoded_size(strlen(pairs[i][0])));
        assert_int_equal(base64_decode((str){text, n}, bytes, &n), ERR_OK);
        assert_true(str_eq(str_from(bytes, n), str_of(pairs[i][0])));
    }
}

static void refuses_every_text_that_the_encoder_would_not_write(void **state)
{
    static const char *const bad[] = {
        "Z",    "Zg",   "Zg=",      "Zg= =", "Zm9v\n", "Zm9vYg", "=",    "====",  "Z===",
        "Zh==", "Zm9=", "Zg==Zg==", "Zm-_",  "Zm9 ",   "=Zg=",   "Zm=v", "Zm9v=", "Zm\xc3\xa9",
    };
    for (size_t i = 0; i < array_len(bad); i++) {
        unsigned char bytes[16];
        size_t n;
        assert_int_equal(base64_decode(str_of(bad[i]), bytes, &n), ERR_BAD);
    }
}

static void all_byte_values_survive_base64_and_hex(void **state)
{
    unsigned char all[256], back[259];
    char text[512];
    size_t n;
    for (int i = 0; i < 256; i++)
        all[i] = (unsigned char)i;
    n = base64_encode(text, str_from(all, sizeof all));
    assert_int_equal(base64_decode((str){text, n}, back, &n), ERR_OK);
    assert_int_equal(n, sizeof all);
    assert_memory_equal(back, all, sizeof all);
    hex_encode(text, str_from(all, sizeof all));
    assert_int_equal(hex_decode(str_from(text, 512), back, sizeof all), ERR_OK);
    assert_memory_equal(back, all, sizeof all);
}

static void hex_takes_digits_of_either_case_and_nothing_else(void **state)
{
    unsigned char out[2];
    assert_int_equal(hex_decode(STR("aBC9"), out, 2), ERR_OK);
    assert_memory_equal(out, "\xab\xc9", 2);
    assert_int_equal(hex_decode(STR("aBC"), out, 2), ERR_BAD);
    assert_int_equal(hex_decode(STR("aBC99"), out, 2), ERR_BAD);
    assert_int_equal(hex_decode(STR("aBg9"), out, 2), ERR_BAD);
}

static void every_code_point_but_surrogates_survives_utf8(void **state)
{
    for (uint32_t c = 0; c <= 0x10ffff; c++) {
        char p[4];
        uint32_t back;
        if (c == 0xd800)
            c = 0xe000;
        size_t n = utf8_encode(p, c);
        assert_int_equal(utf8_decode((str){p, n}, &back), n);
        assert_int_equal(back, c);
        if (n > 1) /* cut short, it is nothing */
            assert_int_equal(utf8_decode((str){p, n - 1}, &back), 0);
    }
}

static void malformed_utf8_is_refused(void **state)
{
    static const char *const bad[] = {
        "\x80",
        "\xc0\x80",
        "\xc1\xbf",
        "\xc3",
        "\xc3(",
        "\xe0\x80\x80",
        "\xe0\x9f\xbf",
        "\xed\xa0\x80",
        "\xed\xbf\xbf",
        "\xf0\x80\x80\x80",
        "\xf0\x8f\xbf\xbf",
        "\xf4\x90\x80\x80",
        "\xf5\x80\x80\x80",
        "\xff",
        "\xe2\x82",
        "\xf0\x9f\x98",
    };
    for (size_t i = 0; i < array_len(bad); i++)
        assert_false(utf8_valid(str_of(bad[i])));
    assert_true(utf8_valid(STR("a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80")));
    assert_int_equal(utf8_count(STR("a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80")), 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(encodes_and_decodes_the_vectors_of_rfc_4648),
        cmocka_unit_test(refuses_every_text_that_the_encoder_would_not_write),
        cmocka_unit_test(all_byte_values_survive_base64_and_hex),
        cmocka_unit_test(hex_takes_digits_of_either_case_and_nothing_else),
        cmocka_unit_test(every_code_point_but_surrogates_survives_utf8),
        cmocka_unit_test(malformed_utf8_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
