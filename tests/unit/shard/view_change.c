/* What a view changes, in the words of the log. */
#include "node/shard/view_change.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct view *was, *is;

static struct view_node *node(struct view *v, const char *name)
{
    struct view_node *n;
    assert_int_equal(view_add(v, str_of(name), STR("x:1"), &n), ERR_OK);
    n->owner = 1, n->state = VIEW_LIVE, n->weight = 100;
    view_node_set(n, 0, 1);
    return n;
}
static int open_views(void **state)
{
    was = view_new(1), is = view_new(2);
    node(was, "a"), node(was, "b"), node(is, "a"), node(is, "b");
    return 0;
}
static int close_views(void **state)
{
    view_free(was), view_free(is);
    return 0;
}
static struct view_node *now(const char *name) { return view_find(is, str_of(name)); }
static void assert_change(const char *cause, const char *joined, const char *left)
{
    struct view_change c = view_change_of(was, is);
    assert_string_equal(view_change_cause(&c), cause);
    assert_string_equal(c.joined, joined);
    assert_string_equal(c.left, left);
}

static void each_change_has_its_word(void **state)
{
    assert_change("none", "", "");
    now("b")->incarnation[0] = 2;
    assert_change("shard", "", "");
    now("b")->weight = 50;
    assert_change("weight", "", "");
    now("b")->state = VIEW_DRAINING;
    assert_change("drain", "", "");
    node(is, "c");
    assert_change("joined", "c", "");
    view_remove(is, now("a"));
    assert_change("died", "c", "a");
}

static void who_drained_has_left_and_who_did_not_has_died(void **state)
{
    view_find(was, STR("a"))->state = VIEW_DRAINING;
    view_remove(is, now("a"));
    assert_change("left", "", "a");
    view_remove(is, now("b"));
    assert_change("died", "", "a,b");
}

static void a_node_that_becomes_a_full_member_has_joined(void **state)
{
    view_find(was, STR("b"))->state = VIEW_JOINING;
    assert_change("joined", "", "");
}

static void the_first_view_and_a_thousand_names_fit(void **state)
{
    char name[33];
    for (int i = 0; i < 900; i++) {
        snprintf(name, sizeof name, "a-rather-long-name-of-a-node-%03d", i);
        node(is, name);
    }
    struct view_change c = view_change_of(NULL, is);
    assert_int_equal(strlen(c.joined), VIEW_CHANGE_NAMES - 1);
    assert_memory_equal(c.joined, "a,a-rather", 10);
}

#define T(f) cmocka_unit_test_setup_teardown(f, open_views, close_views)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(each_change_has_its_word),
        T(who_drained_has_left_and_who_did_not_has_died),
        T(a_node_that_becomes_a_full_member_has_joined),
        T(the_first_view_and_a_thousand_names_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
