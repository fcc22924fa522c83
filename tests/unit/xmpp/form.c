/* Data forms (XEP-0004): what is read of one, what is refused, and that what is written reads back.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "proto/xmpp/form.h"

static struct arena a;

static err read(str xml, struct form *f)
{
    struct xml_el x = xml_root(xml, STR("jabber:client"), &a);
    return form_read(&x, &a, f);
}

static void fields_have_their_values_in_order(void **state)
{
    struct form f;
    assert_int_equal(
        read(STR("<x xmlns='jabber:x:data' type='submit'>"
                 "<field var='FORM_TYPE'><value>urn:t</value></field>"
                 "<field var='a'><value>1</value><other/><value>2 &amp; 3</value></field>"
                 "<reported/><field var='b'/></x>"),
             &f),
        ERR_OK);
    assert_true(str_is(f.type, "urn:t"));
    assert_int_equal(f.n, 2);
    assert_int_equal(form_find(&f, "a")->n, 2);
    assert_true(str_is(form_find(&f, "a")->values[1], "2 & 3"));
    assert_true(str_is(form_value(&f, "a"), "1"));
    assert_int_equal(form_value(&f, "b").n, 0);
    assert_null(form_find(&f, "c"));
}

static void what_is_no_answer_is_refused(void **state)
{
    struct form f;
    assert_int_equal(read(STR("<x xmlns='jabber:x:data' type='form'/>"), &f), ERR_BAD);
    assert_int_equal(read(STR("<x xmlns='jabber:x:data'/>"), &f), ERR_BAD);
    assert_int_equal(read(STR("<y xmlns='jabber:x:data' type='submit'/>"), &f), ERR_BAD);
    assert_int_equal(read(STR("<x xmlns='urn:x' type='submit'/>"), &f), ERR_BAD);
    assert_int_equal(
        read(STR("<x xmlns='jabber:x:data' type='submit'>"
                 "<field var='FORM_TYPE'><value>a</value><value>b</value></field></x>"),
             &f),
        ERR_BAD);
    assert_int_equal(read(STR("<x xmlns='jabber:x:data' type='cancel'/>"), &f), ERR_OK);
    assert_true(f.cancel);
}

static str many(const char *each, size_t n, const char *inside)
{
    str s = STR("");
    for (size_t i = 0; i < n; i++)
        s = arena_concat(&a, (str[]){s, str_of(each)}, 2);
    return arena_printf(&a, "<x xmlns='jabber:x:data' type='submit'>%s%.*s%s</x>",
                        inside ? "<field var='a'>" : "", STR_ARG(s), inside ? "</field>" : "");
}

static void there_are_bounds(void **state)
{
    struct form f;
    assert_int_equal(read(many("<field/>", FORM_FIELDS_MAX, NULL), &f), ERR_OK);
    assert_int_equal(read(many("<field/>", FORM_FIELDS_MAX + 1, NULL), &f), ERR_BAD);
    assert_int_equal(read(many("<value/>", FORM_VALUES_MAX, "a"), &f), ERR_OK);
    assert_int_equal(form_find(&f, "a")->n, FORM_VALUES_MAX);
    assert_int_equal(read(many("<value/>", FORM_VALUES_MAX + 1, "a"), &f), ERR_BAD);
}

static void what_is_written_reads_back(void **state)
{
    struct form f;
    struct xml_writer w;
    xml_writer_init(&w, &a);
    form_open(&w, "submit", "T", "urn:t");
    form_put(&w, "a", (str[]){STR("<1>"), STR("2")}, 2);
    form_put_one(&w, "b", STR("'"));
    form_close(&w);
    assert_int_equal(read(xml_written(&w), &f), ERR_OK);
    assert_true(str_is(f.type, "urn:t"));
    assert_true(str_is(form_value(&f, "a"), "<1>") && str_is(form_value(&f, "b"), "'"));
}

static int open_arena(void **state) { return arena_init(&a), 0; }
static int close_arena(void **state) { return arena_close(&a), 0; }

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fields_have_their_values_in_order),
        cmocka_unit_test(what_is_no_answer_is_refused),
        cmocka_unit_test(there_are_bounds),
        cmocka_unit_test(what_is_written_reads_back),
    };
    return cmocka_run_group_tests(tests, open_arena, close_arena);
}
