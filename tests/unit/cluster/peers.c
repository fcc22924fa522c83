/* Peer numbers: a block per name, kept. */
#include "cluster/peers.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static str name_of(unsigned i, char text[16])
{
    snprintf(text, 16, "n%u", i);
    return str_of(text);
}

static void a_name_has_one_block_and_the_own_one_is_the_first(void **state)
{
    struct peers *p = peers_new(STR("own"));
    assert_int_equal(peers_block(p, STR("own")), 0);
    unsigned a = peers_block(p, STR("a")), b = peers_block(p, STR("b"));
    assert_true(a && b && a != b);
    assert_int_equal(peers_block(p, STR("a")), a);
    assert_int_equal(peers_find(p, STR("b")), b);
    assert_int_equal(peers_find(p, STR("c")), PEERS_NONE);
    assert_true(str_eq(peers_name(p, b), STR("b")));
    assert_int_equal(peers_name(p, b + 1).n, 0);
    assert_int_equal(peer_block(peer_number(b, 63)), b);
    assert_int_equal(peer_shard(peer_number(b, 63)), 63);
    peers_free(p);
}

static void who_comes_back_has_its_block_unless_all_are_needed(void **state)
{
    struct peers *p = peers_new(STR("own"));
    struct view *v = view_new(1);
    struct view_node *n;
    char text[16];
    unsigned first = peers_block(p, name_of(0, text));
    assert_int_equal(view_add(v, STR("n1"), STR("x"), &n), ERR_OK);
    unsigned second = peers_block(p, STR("n1"));
    peers_keep(p, v); /* n0 has gone, n1 is there */
    assert_int_equal(peers_block(p, name_of(0, text)), first);
    peers_keep(p, v);
    for (unsigned i = 2; i < PEERS_BLOCKS_MAX - 1; i++)
        (void)peers_block(p, name_of(i, text));
    assert_int_equal(peers_find(p, STR("n0")), first);
    assert_int_equal(peers_block(p, STR("one-more")), first);
    assert_int_equal(peers_find(p, STR("n0")), PEERS_NONE);
    assert_int_equal(peers_find(p, STR("n1")), second);
    view_free(v);
    peers_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_name_has_one_block_and_the_own_one_is_the_first),
        cmocka_unit_test(who_comes_back_has_its_block_unless_all_are_needed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
