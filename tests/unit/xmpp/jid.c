#include "proto/xmpp/jid.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <uninorm.h>
#include <unictype.h>
#include <cmocka.h>

#include "proto/xmpp/precis.h"

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

/* Prepares, and holds that what came out is a fixed point and consistent in itself. */
static err prepare(const char *raw, struct jid *out)
{
    err e = jid_prepare(str_of(raw), &arena, out);
    if (e) {
        assert_int_equal(e, ERR_STANZA_JID_MALFORMED);
        return e;
    }
    struct jid again, parsed = jid_parse_prepared(out->full);
    assert_int_equal(jid_prepare(out->full, &arena, &again), ERR_OK);
    assert_true(str_eq(again.full, out->full));
    assert_true(str_eq(parsed.local, out->local) && str_eq(parsed.domain, out->domain));
    assert_true(str_eq(parsed.resource, out->resource) && str_eq(parsed.bare, out->bare));
    assert_ptr_equal(out->bare.p, out->full.p);
    return ERR_OK;
}

static void becomes(const char *raw, const char *prepared)
{
    struct jid j;
    if (prepare(raw, &j)) {
        fail_msg("<%s> was refused", raw);
        return;
    }
    if (!str_eq(j.full, str_of(prepared)))
        fail_msg("<%s> became <%.*s>, not <%s>", raw, STR_ARG(j.full), prepared);
}

static void is_refused(const char *raw)
{
    struct jid j;
    if (!prepare(raw, &j))
        fail_msg("<%s> became <%.*s>", raw, STR_ARG(j.full));
}

/* RFC 7622 3.5, table 1. */
static void the_valid_examples_of_rfc_7622_prepare(void **state)
{
    becomes("juliet@example.com", "juliet@example.com");
    becomes("juliet@example.com/foo", "juliet@example.com/foo");
    becomes("juliet@example.com/foo bar", "juliet@example.com/foo bar");
    becomes("juliet@example.com/foo@bar", "juliet@example.com/foo@bar");
    becomes("foo\\20bar@example.com", "foo\\20bar@example.com");
    becomes("fussball@example.com", "fussball@example.com");
    becomes("fu\u00dfball@example.com", "fu\u00dfball@example.com");
    becomes("\u03c0@example.com", "\u03c0@example.com");
    becomes("\u03a3@example.com/foo", "\u03c3@example.com/foo");
    becomes("\u03c3@example.com/foo", "\u03c3@example.com/foo");
    becomes("\u03c2@example.com/foo", "\u03c2@example.com/foo");
    becomes("king@example.com/\u265a", "king@example.com/\u265a");
    becomes("example.com", "example.com");
    becomes("example.com/foobar", "example.com/foobar");
    becomes("a.example.com/b@example.net", "a.example.com/b@example.net");
}

/* RFC 7622 3.5, table 2. Its 18th, <juliet@example.com/ foo>, is accepted: OpaqueString allows
 * spaces anywhere, and no rule of the text forbids it (refusing would lose messages). */
static void the_invalid_examples_of_rfc_7622_are_refused(void **state)
{
    is_refused("\"juliet\"@example.com");
    is_refused("foo bar@example.com");
    is_refused("@example.com/");
    is_refused("henry\u2163@example.com");
    is_refused("\u265a@example.com");
    is_refused("juliet@");
    is_refused("/foobar");
    becomes("juliet@example.com/ foo", "juliet@example.com/ foo");
}

static void empty_parts_are_refused(void **state)
{
    struct jid j;
    assert_int_equal(jid_prepare(STR_NONE, &arena, &j), ERR_STANZA_JID_MALFORMED);
    is_refused("");
    is_refused("@example.com");
    is_refused("a@example.com/");
    is_refused("example.com/");
    is_refused("a@/x");
    is_refused("a@b@example.com");
}

static void a_prepared_ascii_jid_is_not_copied(void **state)
{
    static const char *const same[] = {"alice@example.com/laptop", "example.com", "a@b/ \"@/",
                                       "room+x@muc.xn.example.org", "a-b.example/r"};
    for (size_t i = 0; i < array_len(same); i++) {
        struct jid j;
        size_t used = arena.used;
        assert_int_equal(jid_prepare(str_of(same[i]), &arena, &j), ERR_OK);
        assert_ptr_equal(j.full.p, same[i]);
        assert_int_equal(arena.used, used);
    }
}

static void the_views_are_the_parts(void **state)
{
    struct jid j;
    assert_int_equal(prepare("Alice@Example.COM/La@p/Top", &j), ERR_OK);
    assert_true(str_is(j.full, "alice@example.com/La@p/Top"));
    assert_true(str_is(j.bare, "alice@example.com"));
    assert_true(str_is(j.local, "alice"));
    assert_true(str_is(j.domain, "example.com"));
    assert_true(str_is(j.resource, "La@p/Top"));
    assert_false(jid_is_bare(&j));
    assert_int_equal(prepare("example.com", &j), ERR_OK);
    assert_true(jid_is_bare(&j) && jid_is_domain(&j));
    j = jid_join(&arena, STR(""), STR("example.com"), STR("x"));
    assert_true(str_is(j.full, "example.com/x") && str_is(j.bare, "example.com"));
    assert_true(!jid_is_bare(&j) && !jid_is_domain(&j));
}

static void characters_forbidden_in_localparts_are_refused_in_every_width(void **state)
{
    for (const char *c = "\"&'/:<>@"; *c; c++) {
        char raw[64];
        snprintf(raw, sizeof raw, "a%cb@example.com", *c);
        if (*c != '/') /* there it begins a resource */
            is_refused(raw);
        snprintf(raw, sizeof raw, "a\xef\xbc%cb@example.com", 0x80 + (*c - 0x20)); /* U+FF00 + */
        is_refused(raw);
    }
    becomes("a,=;b@example.com", "a,=;b@example.com");
}

static void control_characters_and_bad_utf8_are_refused_everywhere(void **state)
{
    static const char *const bad[] = {"\x01",         "\x1f",         "\x7f",
                                      "\xc2\x80",     "\xff",         "\xc0\xaf",
                                      "\xed\xa0\x80", "\xef\xbf\xbe", "\xf4\x90\x80\x80",
                                      "\xc2\xad",     "\xe2\x80\x8b", "\xe2\x80\xae"};
    for (size_t i = 0; i < array_len(bad); i++) {
        char raw[64];
        snprintf(raw, sizeof raw, "a%sb@example.com", bad[i]);
        is_refused(raw);
        snprintf(raw, sizeof raw, "a@exa%sple.com", bad[i]);
        is_refused(raw);
        snprintf(raw, sizeof raw, "a@example.com/x%sy", bad[i]);
        is_refused(raw);
    }
    str out;
    assert_int_equal(jid_prepare_local(str_from("a\0b", 3), &arena, &out),
                     ERR_STANZA_JID_MALFORMED);
    assert_int_equal(jid_prepare_domain(str_from("a\0b", 3), &arena, &out),
                     ERR_STANZA_JID_MALFORMED);
    assert_int_equal(jid_prepare_resource(str_from("a\0b", 3), &arena, &out),
                     ERR_STANZA_JID_MALFORMED);
}

static void a_part_has_at_most_1023_bytes(void **state)
{
    char raw[JID_MAX + 8], *at = raw;
    at += sprintf(at, "%0*d@", JID_PART_MAX, 0);
    for (int i = 0; i < 16; i++)
        at += sprintf(at, "%s%063d", i ? "." : "", 0);
    at += sprintf(at, "/%0*d", JID_PART_MAX, 0);
    struct jid j;
    assert_int_equal(prepare(raw, &j), ERR_OK);
    assert_int_equal(j.local.n, JID_PART_MAX);
    assert_int_equal(j.domain.n, JID_PART_MAX);
    assert_int_equal(j.full.n, JID_MAX);
    strcat(raw, "0");
    is_refused(raw);
    str out, long_name = {raw, JID_PART_MAX + 1}; /* "000…0@" */
    assert_int_equal(jid_prepare_resource(long_name, &arena, &out), ERR_STANZA_JID_MALFORMED);
    raw[JID_PART_MAX] = '0';
    assert_int_equal(jid_prepare_local(long_name, &arena, &out), ERR_STANZA_JID_MALFORMED);
}

/* Each U+0130 has two bytes and becomes three: 400 of them fit before, not after. */
static void the_bound_holds_after_mapping_too(void **state)
{
    char raw[1024];
    for (int i = 0; i < 400; i++)
        memcpy(raw + 2 * i, "\u0130", 2);
    str out;
    assert_int_equal(jid_prepare_local((str){raw, 800}, &arena, &out), ERR_STANZA_JID_MALFORMED);
    assert_int_equal(jid_prepare_local((str){raw, 600}, &arena, &out), ERR_OK);
    assert_int_equal(out.n, 900);
}

static void domains_have_one_form(void **state)
{
    becomes("EXAMPLE.com", "example.com");
    becomes("example.com.", "example.com");
    becomes("a@Example.Com./r", "a@example.com/r");
    becomes("xn--mnchen-3ya.de", "m\u00fcnchen.de");
    becomes("XN--MNCHEN-3YA.DE", "m\u00fcnchen.de");
    becomes("M\u00dcNCHEN.de", "m\u00fcnchen.de");
    becomes("mu\u0308nchen.de", "m\u00fcnchen.de");
    becomes("\uff25xample\uff0ecom", "example.com");
    becomes("m\u00fcnchen\u3002de", "m\u00fcnchen.de");
    becomes("fa\u00df.de", "fa\u00df.de");
    becomes("xn--fa-hia.de", "fa\u00df.de");
    becomes("\u4f8b\u3048.jp", "\u4f8b\u3048.jp");
    becomes("\u13b0\u13a2.com", "\u13b0\u13a2.com"); /* capitals that IDNA2008 keeps */
    becomes("xn--mn3nh-ecya", "mn\u13b0\u13b03nh");
    becomes("pal\u00b7l.cat", "pal\u00b7l.cat");
    becomes("\u30a2\u30fb.jp", "\u30a2\u30fb.jp");
    becomes("localhost", "localhost");
    becomes("127.0.0.1", "127.0.0.1");
    becomes("[::1]", "[::1]");
    becomes("a@[2001:DB8:0::1]/x", "a@[2001:db8::1]/x");
}

static void domains_that_are_no_host_names_are_refused(void **state)
{
    static const char *const bad[] = {
        ".",
        "..",
        ".example",
        "a..b",
        "example.com..",
        "-a.example",
        "a-.example",
        "a_b",
        "a b.c",
        "ab--c.de",
        "xn--",
        "xn--a",
        "xn--abc-",
        "xn--a-\u00fc",
        "[::1",
        "[]",
        "[::g]",
        "[::1]x",
        "[fe80::1%lo]",
        "::1",
        "a:b",
        "\u2665.com",
        "ab--\u00fc.de",
        "\u0378\u00fc.de",
        "a\u00b7l.cat",
        "\u30fb\u00fc.jp",
        "\u0661\u06f1.x",
        "\U0001f600.com",
        "a\ufb01.com",
        "\u00fc_a.de",
        "\u00fc-.de",
        "-\u00fc.de",
        "\u0308a.de",
        "a\u200db.de",
        "\u2163.com",
        "xn--mnchen-3y\u00e4.de",
        "1\u05d0.a\u05d0",
        "\u05d0a.il",
        "3com.\u05d0\u05d1",
        "xn--zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz9.de",
    };
    for (size_t i = 0; i < array_len(bad); i++)
        is_refused(bad[i]);
    char label[80] = "";
    memset(label, 'a', 64);
    is_refused(label);
    label[63] = 0;
    becomes(label, label);
    strcpy(label + 60, "\u00fc"); /* an A-label of more than 63 */
    is_refused(label);
}

static void an_international_name_fits_the_dns(void **state)
{
    char name[1024] = "";
    for (int i = 0; i < 31; i++) /* each label is "xn--tda": 8 with its dot */
        strcat(name, i ? ".\u00fc" : "\u00fc");
    becomes(name, name);
    strcat(name, ".\u00fc");
    is_refused(name);
}

/* RFC 8265 3.5. */
static void the_username_examples_of_rfc_8265_prepare(void **state)
{
    static const char *const good[][2] = {
        {"juliet@example.com", "juliet@example.com"},
        {"fussball", "fussball"},
        {"fu\u00dfball", "fu\u00dfball"},
        {"\u03c0", "\u03c0"},
        {"\u03a3", "\u03c3"},
        {"\u03c3", "\u03c3"},
        {"\u03c2", "\u03c2"},
        /* and beyond */
        {"\uff21\uff22\uff23", "abc"},
        {"\u0130", "i\u0307"},
        {"A\u030a", "\u00e5"},
        {"l\u00b7l", "l\u00b7l"},
        {"\u0375\u03b1", "\u0375\u03b1"},
        {"\u05d0\u05f3", "\u05d0\u05f3"},
        {"\u30fb\u30a2", "\u30fb\u30a2"},
        {"\u0915\u094d\u200d", "\u0915\u094d\u200d"},
        {"\u0628\u200c\u0628", "\u0628\u200c\u0628"},
        {"\u0628\u0661", "\u0628\u0661"},
        {"\u05d0\u05d1", "\u05d0\u05d1"},
        {"\u0627\u06f1", "\u0627\u06f1"},
        {"\uff76", "\u30ab"},
    };
    for (size_t i = 0; i < array_len(good); i++) {
        str out;
        assert_int_equal(precis_username(str_of(good[i][0]), &arena, &out), ERR_OK);
        assert_true(str_eq(out, str_of(good[i][1])));
        assert_int_equal(precis_username(out, &arena, &out), ERR_OK);
        assert_true(str_eq(out, str_of(good[i][1])));
    }
}

static void what_is_no_username_is_refused(void **state)
{
    static const char *const bad[] = {
        "foo bar",        "",
        "henry\u2163",    "\u221e", /* RFC 8265 3.5 */
        "\u212b",                   /* has a compatibility equivalent */
        "\u0640",         "\u1100",
        "\u3164",         "\u00ad",
        "\ufdd0",         "\u0378",
        "\ue000",         "\u2028",
        "\ufb01",         "a\u00b7l",
        "\u0375a",        "a\u05f3",
        "a\u30fbb",       "a\u200d",
        "a\u200cb", /* context rules */
        "\u0661\u06f1",   "\u0628\u0661\u06f1",
        "\u06281a\u0628", "a\u05d0",
        "\u05d0a",        "1\u05d0",
        "\u0661",         "\u05d0-",
        "\u06281\u0661", /* Bidi rule */
        "\u3000",         "a\u00a0b",
    };
    for (size_t i = 0; i < array_len(bad); i++) {
        str out;
        if (!precis_username(str_of(bad[i]), &arena, &out))
            fail_msg("%zu <%s> became <%.*s>", i, bad[i], STR_ARG(out));
    }
}

/* RFC 8265 4.3. */
static void the_password_examples_of_rfc_8265_prepare(void **state)
{
    static const char *const good[][2] = {
        {"correct horse battery staple", "correct horse battery staple"},
        {"Correct Horse Battery Staple", "Correct Horse Battery Staple"},
        {"\u03c0\u00df\u00e5", "\u03c0\u00df\u00e5"},
        {"Jack of \u2666s", "Jack of \u2666s"},
        {"foo\u1680bar", "foo bar"},
        {"a\u030a\u2163\uff21", "\u00e5\u2163\uff21"},
    };
    for (size_t i = 0; i < array_len(good); i++) {
        str out;
        assert_int_equal(precis_opaque(str_of(good[i][0]), &arena, &out), ERR_OK);
        assert_true(str_eq(out, str_of(good[i][1])));
        assert_int_equal(precis_opaque(out, &arena, &out), ERR_OK);
        assert_true(str_eq(out, str_of(good[i][1])));
    }
    str out;
    assert_int_equal(precis_opaque(STR(""), &arena, &out), ERR_BAD);
    assert_int_equal(precis_opaque(STR("my cat is a \tby"), &arena, &out), ERR_BAD);
    assert_int_equal(precis_opaque(STR("x\u200b"), &arena, &out), ERR_BAD);
}

static bool nfkc_changes(uint32_t c)
{
    uint32_t out[32];
    size_t n = array_len(out);
    assert_ptr_equal(u32_normalize(UNINORM_NFKC, &c, 1, out, &n), out);
    return n != 1 || out[0] != c;
}

/* RFC 8264 9.17 by its definition, where neither exceptions nor width mapping come before it: of
 * the letters, usernames take those that NFKC leaves alone. */
static void letters_are_refused_exactly_when_nfkc_changes_them(void **state)
{
    const uint32_t letters = UC_CATEGORY_MASK_Ll | UC_CATEGORY_MASK_Lu | UC_CATEGORY_MASK_Lo |
                             UC_CATEGORY_MASK_Lm | UC_CATEGORY_MASK_Mn | UC_CATEGORY_MASK_Mc |
                             UC_CATEGORY_MASK_Nd;
    for (uint32_t c = 0x80; c < 0x30000; c++) {
        bool skip = (c >= 0xff00 && c <= 0xffef) || (c >= 0x1100 && c <= 0x11ff) ||
                    (c >= 0xa960 && c <= 0xa97c) || (c >= 0xd7b0 && c <= 0xdfff) ||
                    uc_is_property_default_ignorable_code_point(c) || c == 0x640 || c == 0x7fa ||
                    c == 0x302e || c == 0x302f || (c >= 0x3031 && c <= 0x3035) || c == 0x303b;
        if (skip || !uc_is_general_category_withtable(c, letters))
            continue;
        struct precis_text t = {.n = 1, .code = {c}};
        if (precis_bidi_present(t.code, 1) || uc_combining_class(c) ||
            uc_is_general_category_withtable(c, UC_CATEGORY_MASK_Mn | UC_CATEGORY_MASK_Nd))
            continue; /* alone it breaks the Bidi rule, which is another one */
        str out;
        bool refused = precis_username(precis_encode(&t, &arena), &arena, &out) != ERR_OK;
        if (refused != nfkc_changes(c))
            fail_msg("U+%04X %s", c, refused ? "refused" : "accepted");
        arena_reset(&arena);
    }
}

/* Whatever single code point a profile accepts, it gives something that it leaves alone. */
static void every_code_point_is_refused_or_prepared_for_good(void **state)
{
    size_t accepted = 0;
    for (uint32_t c = 0x80; c < 0x30000; c++) {
        if (c == 0xd800)
            c = 0xe000;
        struct precis_text t = {.n = 3, .code = {'a', c, 'b'}};
        str raw = precis_encode(&t, &arena), out, again;
        if (!precis_username(raw, &arena, &out)) {
            accepted++;
            assert_int_equal(precis_username(out, &arena, &again), ERR_OK);
            assert_true(str_eq(out, again));
        }
        if (!precis_opaque(raw, &arena, &out)) {
            assert_int_equal(precis_opaque(out, &arena, &again), ERR_OK);
            assert_true(str_eq(out, again));
        }
        arena_reset(&arena);
    }
    assert_in_range(accepted, 90000, 130000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_valid_examples_of_rfc_7622_prepare),
        cmocka_unit_test(the_invalid_examples_of_rfc_7622_are_refused),
        cmocka_unit_test(empty_parts_are_refused),
        cmocka_unit_test(a_prepared_ascii_jid_is_not_copied),
        cmocka_unit_test(the_views_are_the_parts),
        cmocka_unit_test(characters_forbidden_in_localparts_are_refused_in_every_width),
        cmocka_unit_test(control_characters_and_bad_utf8_are_refused_everywhere),
        cmocka_unit_test(a_part_has_at_most_1023_bytes),
        cmocka_unit_test(the_bound_holds_after_mapping_too),
        cmocka_unit_test(domains_have_one_form),
        cmocka_unit_test(domains_that_are_no_host_names_are_refused),
        cmocka_unit_test(an_international_name_fits_the_dns),
        cmocka_unit_test(the_username_examples_of_rfc_8265_prepare),
        cmocka_unit_test(what_is_no_username_is_refused),
        cmocka_unit_test(the_password_examples_of_rfc_8265_prepare),
        cmocka_unit_test(letters_are_refused_exactly_when_nfkc_changes_them),
        cmocka_unit_test(every_code_point_is_refused_or_prepared_for_good),
    };
    return cmocka_run_group_tests(tests, open_arena, close_arena);
}
