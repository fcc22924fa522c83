/* Ids of archives on stanzas (XEP-0359): ours put on, those in our name taken off. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "proto/xmpp/sid.h"

#define BOB "bob@localhost"
#define OURS "<stanza-id xmlns='urn:xmpp:sid:0' by='bob@localhost' id='77'/>"

static struct xml_scan *scan;
static struct arena arena;

static int setup(void **state)
{
    scan = xml_scan_new();
    arena_init(&arena);
    return 0;
}

static int teardown(void **state)
{
    xml_scan_free(scan);
    arena_close(&arena);
    return 0;
}

static void assert_str(str s, const char *want)
{
    assert_int_equal(s.n, strlen(want));
    assert_memory_equal(s.p, want, s.n);
}

/* The result must be what a scan of its bytes would make. */
static void assert_sound(const struct stanza *s)
{
    struct stanza *again = stanza_make(scan, stanza_xml(s), &arena);
    assert_int_equal(s->size, again->size);
    assert_int_equal(s->flags, again->flags);
    assert_int_equal(s->fp, again->fp);
    assert_int_equal(s->index.children, again->index.children);
    assert_int_equal(s->index.nchild, again->index.nchild);
    for (unsigned i = 0; i < s->index.nchild; i++) {
        const struct xml_child *x = &s->index.child[i], *y = &again->index.child[i];
        assert_int_equal(x->off, y->off);
        assert_int_equal(x->len, y->len);
        assert_int_equal(x->name_off, y->name_off);
        assert_int_equal(x->name_len, y->name_len);
        assert_int_equal(x->ns, y->ns);
        assert_int_equal(x->ns_uri.off, y->ns_uri.off);
        assert_int_equal(x->ns_uri.len, y->ns_uri.len);
    }
    stanza_unref(again);
}

static void check(const char *xml, const char *id, const char *want, const char *want_kept)
{
    struct stanza *s = stanza_make(scan, str_of(xml), &arena);
    str kept;
    struct stanza *with = sid_put(s, STR(BOB), str_of(id), &arena, &kept);
    assert_str(kept, want_kept);
    if (want) {
        assert_non_null(with);
        assert_str(stanza_xml(with), want);
        assert_sound(with);
        if (*id)
            assert_str(sid_find(with, STR(BOB), &arena), id);
        assert_str(stanza_to(with), "bob@localhost");
    } else {
        assert_null(with);
    }
    stanza_unref(with);
    stanza_unref(s);
}

#define MSG "<message to='bob@localhost' from='a@x/y' id='m'>"

static void an_id_is_the_last_child(void **state)
{
    check(MSG "<body>hi</body></message>", "77", MSG "<body>hi</body>" OURS "</message>",
          MSG "<body>hi</body></message>");
}

static void one_in_our_name_is_taken_off_in_any_spelling(void **state)
{
    static const char *const forged[] = {
        "<stanza-id xmlns='urn:xmpp:sid:0' by='bob@localhost' id='1'/>",
        "<stanza-id xmlns=\"urn:xmpp:sid:0\" id='1' by=\"BOB@LocalHost\"></stanza-id>",
        "<stanza-id xmlns='urn:xmpp:sid:0' by='b&#x6f;b@localhost' id='1'/>",
        "<s:stanza-id xmlns:s='urn:xmpp:sid:0' by='bob@localhost' id='1'><x/></s:stanza-id>",
        "<stanza-id xmlns='urn:xmpp:sid:&#48;' by='bob@localhost' id='1'/>",
    };
    for (size_t i = 0; i < array_len(forged); i++) {
        char xml[512];
        snprintf(xml, sizeof xml, MSG "%s<body>hi</body>%s</message>", forged[i], forged[i]);
        check(xml, "77", MSG "<body>hi</body>" OURS "</message>", MSG "<body>hi</body></message>");
        check(xml, "", MSG "<body>hi</body></message>", MSG "<body>hi</body></message>");
    }
}

static void those_of_others_stay(void **state)
{
#define OTHERS \
    "<origin-id xmlns='urn:xmpp:sid:0' id='1'/>" \
    "<stanza-id xmlns='urn:xmpp:sid:0' by='room@localhost' id='1'/>" \
    "<stanza-id xmlns='urn:xmpp:sid:0' by='bob@localhost/phone' id='1'/>" \
    "<stanza-id xmlns='urn:xmpp:sid:0' by='@' id='1'/><stanza-id xmlns='urn:x' by='" BOB "'/>"
    check(MSG OTHERS "</message>", "", NULL, MSG OTHERS "</message>");
    check(MSG OTHERS "</message>", "77", MSG OTHERS OURS "</message>", MSG OTHERS "</message>");
}

static void beyond_the_listed_children_too(void **state)
{
    char xml[4096] = MSG, want[4096] = MSG;
    for (int i = 0; i < 40; i++)
        strcat(xml, "<a xmlns='urn:a'/>"), strcat(want, "<a xmlns='urn:a'/>");
    strcat(xml, "<stanza-id xmlns='urn:xmpp:sid:0' by='bob@localhost' id='1'/></message>");
    strcat(want, "</message>");
    check(xml, "", want, want);
    want[strlen(want) - strlen("</message>")] = '\0';
    char kept[4096];
    snprintf(kept, sizeof kept, "%s</message>", want);
    strcat(want, OURS "</message>");
    check(xml, "77", want, kept);
}

static void a_stored_text_gets_its_id(void **state)
{
    assert_str(sid_into(STR("<message><body>x</body></message>"), STR(BOB), STR("77"), &arena),
               "<message><body>x</body>" OURS "</message>");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_id_is_the_last_child),
        cmocka_unit_test(one_in_our_name_is_taken_off_in_any_spelling),
        cmocka_unit_test(those_of_others_stay),
        cmocka_unit_test(beyond_the_listed_children_too),
        cmocka_unit_test(a_stored_text_gets_its_id),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
