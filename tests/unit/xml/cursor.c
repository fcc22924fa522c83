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
    if (!s.p || !str_eq(s, str_of(expect)))
        fail_msg("'%.*s', not '%s'", STR_ARG(s), expect);
}

static struct xml_el root(const char *xml)
{
    return xml_root(str_of(xml), STR("jabber:client"), &arena);
}

static void an_element_knows_its_parts(void **state)
{
    struct xml_el el = root("<p:m xmlns:p='urn:p' a='>'>x<b/></p:m >");
    check_str(el.name, "m");
    check_str(el.ns, "urn:p");
    check_str(el.start, "<p:m xmlns:p='urn:p' a='>'>");
    check_str(el.inner, "x<b/>");
    el = root("<m/>");
    check_str(el.ns, "jabber:client");
    assert_int_equal(el.inner.n, 0);
}

static void children_come_in_order_whatever_stands_between(void **state)
{
    struct xml_el el = root("<m>t<a x='/>'/>&lt;<![CDATA[<no/>]]><b><c/><b></b></b>\n<d></d></m>"),
                  child;
    assert_true(xml_first(&el, &child, &arena));
    check_str(child.all, "<a x='/>'/>");
    assert_true(xml_next(&el, &child, &arena));
    check_str(child.all, "<b><c/><b></b></b>");
    check_str(child.inner, "<c/><b></b>");
    assert_true(xml_next(&el, &child, &arena));
    check_str(child.all, "<d></d>");
    assert_false(xml_next(&el, &child, &arena));
    assert_false(xml_first(&child, &child, &arena));
}

static void a_child_is_found_by_name_and_namespace(void **state)
{
    struct xml_el el = root("<m><x xmlns='urn:1'/><x xmlns='urn:2' n='2'/><y/></m>"), child;
    assert_true(xml_find(&el, "urn:2", "x", &child, &arena));
    check_str(xml_attr(&child, "n", &arena), "2");
    assert_true(xml_find(&el, "", "y", &child, &arena));
    assert_true(xml_is(&child, "jabber:client", "y"));
    assert_false(xml_is(&child, "urn:1", "y"));
    assert_true(xml_find(&el, "urn:1", "", &child, &arena));
    assert_false(xml_find(&el, "urn:3", "x", &child, &arena));
    assert_false(xml_find(&el, "jabber:client", "x", &child, &arena));
}

static void namespaces_follow_the_scope(void **state)
{
    struct xml_el el = root("<m xmlns:p='urn:p&amp;'><p:a xmlns:p='urn:q'><p:b/></p:a><p:c/>"
                            "<d xmlns=''><e/></d><xml:f/></m>"),
                  child, inner;
    assert_true(xml_first(&el, &child, &arena));
    check_str(child.ns, "urn:q");
    assert_true(xml_first(&child, &inner, &arena));
    check_str(inner.ns, "urn:q");
    assert_true(xml_next(&el, &child, &arena));
    check_str(child.ns, "urn:p&");
    assert_true(xml_next(&el, &child, &arena));
    assert_true(xml_first(&child, &inner, &arena));
    check_str(inner.ns, "");
    assert_true(xml_next(&el, &child, &arena));
    check_str(child.ns, "http://www.w3.org/XML/1998/namespace");
}

static void attributes_are_read_with_references_and_white_space_resolved(void **state)
{
    struct xml_el el =
        root("<m a='1' b = \"x&lt;&#x20AC;'\ty\r\nz&#10;\" xmlns:p='urn:p' p:a='2' c=''/>");
    check_str(xml_attr(&el, "a", &arena), "1");
    check_str(xml_attr(&el, "b", &arena), "x<\xe2\x82\xac' y z\n");
    check_str(xml_attr_ns(&el, "urn:p", "a", &arena), "2");
    check_str(xml_attr(&el, "c", &arena), "");
    assert_null(xml_attr(&el, "d", &arena).p);
    assert_null(xml_attr_ns(&el, "urn:q", "a", &arena).p);
    assert_null(xml_attr_ns(&el, "", "a", &arena).p);
}

static void text_is_what_stands_directly_inside(void **state)
{
    struct xml_el el = root("<m>a&amp;b<c>no</c>\r\n<![CDATA[<&amp;\r]]>&#13;d</m>");
    check_str(xml_text(&el, &arena), "a&b\n<&amp;\n\rd");
    el = root("<m>plain</m>");
    assert_ptr_equal(xml_text(&el, &arena).p, el.inner.p);
    el = root("<m/>");
    check_str(xml_text(&el, &arena), "");
}

static void an_element_can_stand_alone_with_what_it_inherited(void **state)
{
    struct xml_el el = root("<m xmlns='urn:m' xmlns:p='urn:&apos;p' xmlns:q='urn:q'><a p:x='1'/>"
                            "<b xmlns='jabber:client'><p:c xmlns:p='urn:own'/></b></m>"),
                  child;
    assert_true(xml_first(&el, &child, &arena));
    check_str(xml_standalone(&child, STR("jabber:client"), &arena),
              "<a xmlns='urn:m' xmlns:p='urn:&apos;p' p:x='1'/>");
    check_str(xml_standalone(&child, STR("urn:m"), &arena), "<a xmlns:p='urn:&apos;p' p:x='1'/>");
    assert_true(xml_next(&el, &child, &arena));
    assert_true(xml_first(&child, &child, &arena));
    check_str(xml_standalone(&child, STR("jabber:client"), &arena), "<p:c xmlns:p='urn:own'/>");
    el = root("<m xmlns:p='urn:1'><a xmlns:p='urn:2'><p:b/></a></m>");
    assert_true(xml_first(&el, &child, &arena));
    assert_true(xml_first(&child, &child, &arena));
    check_str(xml_standalone(&child, STR("jabber:client"), &arena), "<p:b xmlns:p='urn:2'/>");
}

static void bytes_the_scanner_never_saw_do_no_harm(void **state)
{
    static const char *const broken[] = {
        "",     "<",     "<a",         "<a b", "<a b='", "<a></", "<a><![CDATA[",
        "<a>&", "<a><b", "<a><b c='>", "</a>", "<a>x",   "<!",    "<a b='&'/>"};
    for (size_t i = 0; i < array_len(broken); i++)
        for (size_t n = 0; n <= strlen(broken[i]); n++) {
            str copy = arena_dup(&arena, str_from(broken[i], n));
            struct xml_el el = xml_root(copy, STR(""), &arena), child;
            xml_text(&el, &arena);
            xml_attr(&el, "b", &arena);
            xml_standalone(&el, STR("x"), &arena);
            for (bool more = xml_first(&el, &child, &arena); more;)
                more = xml_next(&el, &child, &arena);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_element_knows_its_parts),
        cmocka_unit_test(children_come_in_order_whatever_stands_between),
        cmocka_unit_test(a_child_is_found_by_name_and_namespace),
        cmocka_unit_test(namespaces_follow_the_scope),
        cmocka_unit_test(attributes_are_read_with_references_and_white_space_resolved),
        cmocka_unit_test(text_is_what_stands_directly_inside),
        cmocka_unit_test(an_element_can_stand_alone_with_what_it_inherited),
        cmocka_unit_test(bytes_the_scanner_never_saw_do_no_harm),
    };
    return cmocka_run_group_tests(tests, open_arena, close_arena);
}
