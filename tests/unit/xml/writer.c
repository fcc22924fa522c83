#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

#include "pemberley/must.h"
#include "proto/xml/xml.h"

static struct arena arena;
static struct xml_writer w;

static int begin(void **state)
{
    arena_init(&arena);
    xml_writer_init(&w, &arena);
    return 0;
}

static int end(void **state)
{
    arena_close(&arena);
    return 0;
}

static void check_str(str s, const char *expect)
{
    if (!str_eq(s, str_of(expect)))
        fail_msg("'%.*s', not '%s'", STR_ARG(s), expect);
}

static void elements_nest_and_close(void **state)
{
    xml_open(&w, "iq");
    xml_put_attr(&w, "type", STR("result"));
    xml_put_attr_u64(&w, "n", UINT64_MAX);
    xml_open_ns(&w, "query", "urn:q");
    xml_put_leaf(&w, "a", NULL, STR("x"));
    xml_put_leaf(&w, "b", "urn:b", STR(""));
    xml_put_raw(&w, STR("<c/>"));
    xml_close(&w, "query");
    xml_close(&w, "iq");
    check_str(xml_written(&w), "<iq type='result' n='18446744073709551615'><query xmlns='urn:q'>"
                               "<a>x</a><b xmlns='urn:b'/><c/></query></iq>");
}

static void an_element_without_content_is_closed_at_once(void **state)
{
    xml_open(&w, "a");
    xml_close(&w, "a");
    check_str(xml_written(&w), "<a/>");
}

static void what_would_be_markup_is_escaped(void **state)
{
    xml_open(&w, "a");
    xml_put_attr(&w, "b", STR("<&>'\"\t\n\r"));
    xml_put_text(&w, STR("<&>'\"\t\n\r]]>"));
    xml_close(&w, "a");
    check_str(xml_written(&w), "<a b='&lt;&amp;&gt;&apos;&quot;&#9;&#10;&#13;'>"
                               "&lt;&amp;&gt;&apos;&quot;\t\n&#13;]]&gt;</a>");
}

static void what_xml_cannot_hold_is_left_out(void **state)
{
    check_str(xml_escape(str_from("a\0b\x01\x1f", 5), &arena), "ab");
    check_str(xml_escape(STR("\xff\xc0\x80x\xed\xa0\x80y\xef\xbf\xbez\xc3"), &arena), "xyz");
    check_str(xml_escape(STR("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"), &arena),
              "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
    check_str(xml_escape(STR_NONE, &arena), "");
}

static void it_grows_beyond_its_first_buffer(void **state)
{
    char text[3000];
    memset(text, '<', sizeof text);
    xml_open(&w, "a");
    xml_put_text(&w, str_from(text, sizeof text));
    xml_close(&w, "a");
    str s = xml_written(&w);
    assert_int_equal(s.n, 3 + 4 * sizeof text + 4);
    for (size_t i = 0; i < sizeof text; i++)
        assert_memory_equal(s.p + 3 + 4 * i, "&lt;", 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(elements_nest_and_close, begin, end),
        cmocka_unit_test_setup_teardown(an_element_without_content_is_closed_at_once, begin, end),
        cmocka_unit_test_setup_teardown(what_would_be_markup_is_escaped, begin, end),
        cmocka_unit_test_setup_teardown(what_xml_cannot_hold_is_left_out, begin, end),
        cmocka_unit_test_setup_teardown(it_grows_beyond_its_first_buffer, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
