#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

#include "pemberley/must.h"
#include "proto/xml/xml.h"

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

static void check_str(str s, const char *expect)
{
    if (!str_eq(s, str_of(expect)))
        fail_msg("'%.*s', not '%s'", STR_ARG(s), expect);
}

static const struct xml_limits limits = {
    .bytes_max = 1000,
    .depth_max = 8,
    .attributes_max = 8,
    .namespaces_max = 8,
    .name_max = 40,
    .elements_max = 20,
    .whitespace_max = 8,
};

static struct xml_index scan(str xml, const struct xml_header *h)
{
    struct xml_scan *s = xml_scan_new();
    enum xml_item what;
    size_t used;
    const struct xml_index *x;
    xml_scan_begin(s, &limits, h);
    assert_int_equal(xml_scan(s, xml, XML_EXPECT_ELEMENT, &what, &used, &x), ERR_OK);
    struct xml_index copy = *x;
    xml_scan_free(s);
    return copy;
}

static str apply(str xml, const struct xml_edit *e, size_t n)
{
    char *out = arena_alloc(&arena, xml_splice_size(xml.n, e, n));
    xml_splice(xml, e, n, out);
    return str_from(out, xml_splice_size(xml.n, e, n));
}

static str at(str xml, uint32_t off, uint32_t len) { return str_from(xml.p + off, len); }

static void edits_replace_insert_and_cut(void **state)
{
    const struct xml_edit e[] = {
        {0, 0, STR("A")}, {1, 2, STR("xyz")}, {4, 1, STR("")}, {6, 0, STR("Z")}};
    check_str(apply(STR("012345"), e, 4), "A0xyz35Z");
    check_str(apply(STR("012"), NULL, 0), "012");
}

static void the_index_moves_with_the_bytes(void **state)
{
    str xml = STR("<message from='a' to='bb' id='i'><x xmlns='urn:xmpp:ping'/><y/></message>");
    struct xml_index x = scan(xml, NULL);
    const struct xml_edit e[] = {{x.splice, 0, STR(" from='somebody'")},
                                 {x.from_attr.off, x.from_attr.len, STR("")}};
    str out = apply(xml, e, 2);
    check_str(out,
              "<message from='somebody' to='bb' id='i'><x xmlns='urn:xmpp:ping'/><y/></message>");
    xml_index_splice(&x, e, 2);
    assert_int_equal(x.len, out.n);
    assert_int_equal(x.from.off, 0);
    assert_int_equal(x.from_attr.off, 0);
    assert_int_equal(x.splice, 8);
    check_str(at(out, x.to.off, x.to.len), "bb");
    check_str(at(out, x.to_attr.off, x.to_attr.len), " to='bb'");
    check_str(at(out, x.id.off, x.id.len), "i");
    check_str(at(out, 0, x.open_len), "<message from='somebody' to='bb' id='i'>");
    check_str(at(out, x.child[0].off, x.child[0].len), "<x xmlns='urn:xmpp:ping'/>");
    check_str(at(out, x.child[0].ns_uri.off, x.child[0].ns_uri.len), "urn:xmpp:ping");
    check_str(at(out, x.child[1].name_off, x.child[1].name_len), "y");
}

static void a_child_that_is_cut_leaves_the_index(void **state)
{
    str xml = STR("<m><a/><b><c/></b><d/></m>");
    struct xml_index x = scan(xml, NULL);
    const struct xml_edit e[] = {{x.child[0].off, x.child[0].len, STR("")},
                                 {x.child[1].off + 3, 0, STR("<new/>")}};
    str out = apply(xml, e, 2);
    xml_index_splice(&x, e, 2);
    assert_int_equal(x.children, 2);
    assert_int_equal(x.nchild, 2);
    check_str(at(out, x.child[0].off, x.child[0].len), "<b><new/><c/></b>");
    check_str(at(out, x.child[1].off, x.child[1].len), "<d/>");
}

static void what_is_put_before_a_child_is_not_in_it(void **state)
{
    str xml = STR("<m><a/></m>");
    struct xml_index x = scan(xml, NULL);
    const struct xml_edit e[] = {{3, 0, STR("<n/>")}, {7, 0, STR("<o/>")}};
    str out = apply(xml, e, 2);
    xml_index_splice(&x, e, 2);
    check_str(out, "<m><n/><a/><o/></m>");
    check_str(at(out, x.child[0].off, x.child[0].len), "<a/>");
    assert_int_equal(x.open_len, 3);
}

static void the_header_s_prefixes_are_declared_where_they_are_used(void **state)
{
    const struct xml_header h = {
        .default_ns = NS_CLIENT,
        .prefixes = 3,
        .prefix = {{.prefix = "s", .prefix_len = 1, .ns = NS_STREAM},
                   {.prefix = "p", .prefix_len = 1, .uri = "urn:&quot;it's", .uri_len = 14},
                   {.prefix = "q", .prefix_len = 1, .uri = "urn:q", .uri_len = 5}}};
    struct xml_index x = scan(STR("<m><p:a q:b=''/></m>"), &h);
    check_str(xml_header_declarations(&h, &x, &arena),
              " xmlns:p=\"urn:&quot;it's\" xmlns:q='urn:q'");
    x = scan(STR("<m xmlns:q='urn:q'><q:a/></m>"), &h);
    assert_int_equal(xml_header_declarations(&h, &x, &arena).n, 0);
}

static void a_default_namespace_is_put_on_unless_there_is_one(void **state)
{
    check_str(xml_with_default_ns(STR("<m a='1'/>"), "urn:m", &arena), "<m xmlns='urn:m' a='1'/>");
    check_str(xml_with_default_ns(STR("<m\n/>"), "urn:m", &arena), "<m xmlns='urn:m'\n/>");
    check_str(xml_with_default_ns(STR("<m a='xmlns' xmlns='' />"), "urn:m", &arena),
              "<m a='xmlns' xmlns='' />");
    check_str(xml_with_default_ns(STR("<m xmlns:p='urn:p'/>"), "urn:m", &arena),
              "<m xmlns='urn:m' xmlns:p='urn:p'/>");
}

static void an_attribute_text_is_escaped(void **state)
{
    check_str(xml_attr_text("to", STR("a'b&c"), &arena), " to='a&apos;b&amp;c'");
}

/* The short way for one insertion against the long one, which a second edit of nothing brings. */
static void one_insertion_moves_an_index_as_several_edits_do(void **state)
{
    str xml = STR("<message to='a@b' xml:lang='en' from='' id='1'><body>x</body>"
                  "<x xmlns='jabber:x:data'/></message>");
    struct xml_index before = scan(xml, NULL);
    for (uint32_t off = 0; off < xml.n; off++) {
        struct xml_edit e[] = {{off, 0, STR(" from='c@d'")}, {(uint32_t)xml.n, 0, STR_NONE}};
        struct xml_index one = before, two = before;
        xml_index_splice(&one, e, 1);
        xml_index_splice(&two, e, 2);
        assert_memory_equal(&one, &two, xml_index_size(&two));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(edits_replace_insert_and_cut),
        cmocka_unit_test(the_index_moves_with_the_bytes),
        cmocka_unit_test(a_child_that_is_cut_leaves_the_index),
        cmocka_unit_test(what_is_put_before_a_child_is_not_in_it),
        cmocka_unit_test(the_header_s_prefixes_are_declared_where_they_are_used),
        cmocka_unit_test(a_default_namespace_is_put_on_unless_there_is_one),
        cmocka_unit_test(an_attribute_text_is_escaped),
        cmocka_unit_test(one_insertion_moves_an_index_as_several_edits_do),
    };
    return cmocka_run_group_tests(tests, open_arena, close_arena);
}
