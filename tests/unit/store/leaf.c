/* Leaves and their items, and what clients can do; on SQLite, then the same on PostgreSQL. */
#include "tests/unit/store/bench.h"
#include "tests/unit/support/cluster.h"

#define OK STORE__RESULT__OK
#define ROMEO "romeo@montague.example"
#define JULIET "juliet@capulet.example"

static struct cluster cluster; /* pid 0: SQLite */

static int setup(void **state)
{
    struct bench *b = malloc(sizeof *b);
    *state = b;
    if (cluster.pid) {
        struct store_postgres o = cluster_options(&cluster, 1);
        assert_int_equal(bench_open_postgres(b, &o, 16), ERR_OK);
        cluster_sql(&cluster, "TRUNCATE account, caps CASCADE");
    } else {
        assert_int_equal(bench_open(b, ":memory:", 16), ERR_OK);
    }
    assert_int_equal(add_account(b, ROMEO), OK);
    return 0;
}

static int teardown(void **state)
{
    bench_close(*state);
    free(*state);
    return 0;
}

static Store__LeafSet *load(struct bench *b, const char *jid)
{
    Store__LeafLoad op = STORE__LEAF_LOAD__INIT;
    op.inline_max = 10;
    REQUEST(q, jid, LEAF_LOAD, leaf_load, &op);
    Store__Reply *r = bench_ask(b, &q);
    assert_int_equal(r->result, OK);
    return r->leaves;
}

/* config: of a leaf that is made; NULL: none is. */
static Store__Result publish(struct bench *b, const char *leaf, const char *id, const char *xml,
                             int64_t us, uint32_t max, const char *config, int64_t again_us)
{
    Store__LeafItem item = STORE__LEAF_ITEM__INIT;
    item.id = bytes_of(id), item.xml = bytes_of(xml), item.time_us = us;
    item.publisher = bytes_of(ROMEO "/x");
    Store__ItemPut op = STORE__ITEM_PUT__INIT;
    op.leaf = bytes_of(leaf), op.item = &item, op.items_max = max, op.leaves_max = 2;
    op.again_us = again_us;
    if (config)
        op.config = bytes_of(config);
    REQUEST(q, ROMEO, ITEM_PUT, item_put, &op);
    return bench_ask(b, &q)->result;
}

static Store__Reply *get(struct bench *b, const char *leaf, const char *id, uint32_t limit,
                         uint32_t bytes, const char *behind)
{
    ProtobufCBinaryData ids[] = {bytes_of(id)};
    Store__ItemGet op = STORE__ITEM_GET__INIT;
    op.leaf = bytes_of(leaf), op.limit = limit, op.bytes_max = bytes, op.behind = bytes_of(behind);
    if (*id)
        op.ids = ids, op.n_ids = 1;
    REQUEST(q, ROMEO, ITEM_GET, item_get, &op);
    return bench_ask(b, &q);
}

static Store__Result configure(struct bench *b, const char *leaf, const char *config, int64_t us,
                               uint32_t items_max, int64_t again_us)
{
    Store__LeafPut op = STORE__LEAF_PUT__INIT;
    op.leaf = bytes_of(leaf), op.config = bytes_of(config), op.time_us = us, op.leaves_max = 2;
    op.items_max = items_max, op.again_us = again_us;
    REQUEST(q, ROMEO, LEAF_PUT, leaf_put, &op);
    return bench_ask(b, &q)->result;
}

static Store__Result remove_item(struct bench *b, const char *leaf, const char *id, int64_t again)
{
    Store__ItemRemove op = STORE__ITEM_REMOVE__INIT;
    op.leaf = bytes_of(leaf), op.id = bytes_of(id), op.again_us = again;
    REQUEST(q, ROMEO, ITEM_REMOVE, item_remove, &op);
    return bench_ask(b, &q)->result;
}

static void an_item_comes_back_whole_and_its_leaf_is_made_with_it(void **state)
{
    assert_int_equal(publish(*state, "mood", "a", "<m/>", 5, 1, NULL, 0), STORE__RESULT__FULL);
    assert_int_equal(load(*state, ROMEO)->n_leaves, 0);
    assert_int_equal(publish(*state, "mood", "a", "<m/>", 5, 1, "config", 0), OK);
    Store__ItemPage *page = get(*state, "mood", "", 0, 0, "")->items;
    assert_int_equal(page->n_items, 1);
    assert_bytes(page->items[0]->id, "a");
    assert_bytes(page->items[0]->publisher, ROMEO "/x");
    assert_bytes(page->items[0]->xml, "<m/>");
    assert_int_equal(page->items[0]->time_us, 5);
    assert_false(page->more);
    assert_int_equal(page->count, 1);
    Store__LeafSet *set = load(*state, ROMEO);
    assert_int_equal(set->n_leaves, 1);
    assert_bytes(set->leaves[0]->name, "mood");
    assert_bytes(set->leaves[0]->config, "config");
    assert_bytes(set->leaves[0]->last->id, "a");
    assert_bytes(set->leaves[0]->last->xml, "<m/>");
}

static void older_items_go_and_a_large_one_is_not_inlined(void **state)
{
    assert_int_equal(publish(*state, "n", "1", "<a/>", 1, 2, "c", 0), OK);
    assert_int_equal(publish(*state, "n", "2", "<b/>", 2, 2, NULL, 0), OK);
    assert_int_equal(publish(*state, "n", "1", "<a-more-than-ten/>", 3, 2, NULL, 0), OK);
    assert_int_equal(publish(*state, "n", "3", "<a-more-than-ten/>", 4, 2, NULL, 0), OK);
    Store__ItemPage *page = get(*state, "n", "", 0, 0, "")->items;
    assert_int_equal(page->n_items, 2);
    assert_bytes(page->items[0]->id, "3");
    assert_bytes(page->items[1]->id, "1");
    Store__Leaf *leaf = load(*state, ROMEO)->leaves[0];
    assert_bytes(leaf->last->id, "3");
    assert_int_equal(leaf->last->xml.len, 0);
}

static void pages_hold_so_many_items_and_bytes(void **state)
{
    const char *ids[] = {"1", "2", "3", "4"};
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(publish(*state, "n", ids[i], "<four/>", 1, 9, "c", 0), OK);
    Store__ItemPage *page = get(*state, "n", "", 3, 0, "")->items;
    assert_int_equal(page->n_items, 3);
    assert_true(page->more);
    assert_int_equal(page->count, 4);
    page = get(*state, "n", "", 0, 15, "4")->items;
    assert_int_equal(page->n_items, 2);
    assert_bytes(page->items[0]->id, "3");
    assert_true(page->more);
    page = get(*state, "n", "2", 0, 0, "")->items;
    assert_int_equal(page->n_items, 1);
    assert_bytes(page->items[0]->id, "2");
    assert_int_equal(get(*state, "n", "9", 0, 0, "")->items->n_items, 0);
    assert_int_equal(get(*state, "n", "", 0, 0, "9")->result, STORE__RESULT__NOT_FOUND);
    Store__ItemGet op = STORE__ITEM_GET__INIT;
    op.leaf = bytes_of("n"), op.names = true, op.behind = bytes_of("3"), op.limit = 1;
    REQUEST(q, ROMEO, ITEM_GET, item_get, &op);
    page = bench_ask(*state, &q)->items;
    assert_int_equal(page->n_items, 1);
    assert_bytes(page->items[0]->id, "2");
    assert_int_equal(page->items[0]->xml.len, 0);
    assert_true(page->more);
}

static void what_comes_again_undoes_nothing_that_came_later(void **state)
{
    assert_int_equal(publish(*state, "n", "1", "<new/>", 20, 2, "c", 0), OK);
    assert_int_equal(publish(*state, "n", "1", "<old/>", 10, 2, "c", 10), OK);
    assert_bytes(get(*state, "n", "1", 0, 0, "")->items->items[0]->xml, "<new/>");
    assert_int_equal(remove_item(*state, "n", "1", 10), OK);
    assert_int_equal(get(*state, "n", "1", 0, 0, "")->items->n_items, 1);
    assert_int_equal(configure(*state, "n", "new", 30, 2, 0), OK);
    assert_int_equal(configure(*state, "n", "old", 25, 2, 25), OK);
    assert_bytes(load(*state, ROMEO)->leaves[0]->config, "new");
    assert_int_equal(publish(*state, "n", "1", "<new/>", 20, 2, "c", 20), OK);
    assert_int_equal(remove_item(*state, "n", "1", 0), OK);
    assert_int_equal(remove_item(*state, "n", "1", 0), STORE__RESULT__NOT_FOUND);
    assert_int_equal(remove_item(*state, "n", "1", 30), OK);
    assert_int_equal(get(*state, "n", "1", 0, 0, "")->items->n_items, 0);
}

static void leaves_are_bounded_purged_and_removed_with_all_they_have(void **state)
{
    assert_int_equal(configure(*state, "a", "c", 1, 9, 0), OK);
    assert_int_equal(publish(*state, "b", "1", "<x/>", 1, 9, "c", 0), OK);
    assert_int_equal(configure(*state, "c", "c", 1, 9, 0), STORE__RESULT__FULL);
    assert_int_equal(publish(*state, "c", "1", "<x/>", 1, 9, "c", 0), STORE__RESULT__FULL);
    assert_int_equal(publish(*state, "b", "2", "<x/>", 1, 9, "c", 0), OK);
    assert_int_equal(configure(*state, "b", "d", 2, 1, 0), OK);
    assert_int_equal(get(*state, "b", "", 0, 0, "")->items->n_items, 1);
    Store__LeafPurge purge = STORE__LEAF_PURGE__INIT;
    purge.leaf = bytes_of("b");
    REQUEST(p, ROMEO, LEAF_PURGE, leaf_purge, &purge);
    assert_int_equal(bench_ask(*state, &p)->result, OK);
    assert_int_equal(get(*state, "b", "", 0, 0, "")->items->n_items, 0);
    assert_int_equal(publish(*state, "b", "2", "<x/>", 1, 9, NULL, 0), OK);
    Store__LeafRemove remove = STORE__LEAF_REMOVE__INIT;
    remove.leaf = bytes_of("b");
    REQUEST(q, ROMEO, LEAF_REMOVE, leaf_remove, &remove);
    assert_int_equal(bench_ask(*state, &q)->result, OK);
    assert_int_equal(load(*state, ROMEO)->n_leaves, 1);
    assert_int_equal(publish(*state, "b", "3", "<x/>", 1, 9, "c", 0), OK);
    assert_int_equal(get(*state, "b", "", 0, 0, "")->items->n_items, 1);
}

static void affiliations_and_subscriptions_hang_at_their_leaf(void **state)
{
    assert_int_equal(configure(*state, "a", "c", 1, 9, 0), OK);
    Store__LeafAffiliation one = STORE__LEAF_AFFILIATION__INIT, two = one;
    one.jid = bytes_of(JULIET), one.affiliation = 3;
    two.jid = bytes_of("x@y"), two.affiliation = 1;
    Store__LeafAffiliation *both[] = {&one, &two};
    Store__AffiliationPut put = STORE__AFFILIATION_PUT__INIT;
    put.leaf = bytes_of("a"), put.affiliations = both, put.n_affiliations = 2;
    REQUEST(q, ROMEO, AFFILIATION_PUT, affiliation_put, &put);
    assert_int_equal(bench_ask(*state, &q)->result, OK);
    two.affiliation = 0;
    assert_int_equal(bench_ask(*state, &q)->result, OK);
    Store__LeafSubscription s = STORE__LEAF_SUBSCRIPTION__INIT, *subs[] = {&s};
    s.jid = bytes_of(JULIET "/balcony"), s.subid = bytes_of("id"), s.state = 2;
    s.options = bytes_of("<x/>");
    Store__SubscriptionPut sub = STORE__SUBSCRIPTION_PUT__INIT;
    sub.leaf = bytes_of("a"), sub.subscriptions = subs, sub.n_subscriptions = 1;
    REQUEST(p, ROMEO, SUBSCRIPTION_PUT, subscription_put, &sub);
    assert_int_equal(bench_ask(*state, &p)->result, OK);
    Store__Leaf *leaf = load(*state, ROMEO)->leaves[0];
    assert_int_equal(leaf->n_affiliations, 1);
    assert_bytes(leaf->affiliations[0]->jid, JULIET);
    assert_int_equal(leaf->affiliations[0]->affiliation, 3);
    assert_int_equal(leaf->n_subscriptions, 1);
    assert_bytes(leaf->subscriptions[0]->jid, JULIET "/balcony");
    assert_bytes(leaf->subscriptions[0]->subid, "id");
    assert_bytes(leaf->subscriptions[0]->options, "<x/>");
    assert_int_equal(leaf->subscriptions[0]->state, 2);
    s.state = 0;
    assert_int_equal(bench_ask(*state, &p)->result, OK);
    assert_int_equal(load(*state, ROMEO)->leaves[0]->n_subscriptions, 0);
}

static void caps_are_nobodys_and_the_first_stays(void **state)
{
    Store__CapsGet get_op = STORE__CAPS_GET__INIT;
    get_op.key = bytes_of("sha-1 x");
    REQUEST(q, "", CAPS_GET, caps_get, &get_op);
    assert_int_equal(bench_ask(*state, &q)->result, STORE__RESULT__NOT_FOUND);
    const char *features[] = {"a\nb", "c"};
    for (size_t i = 0; i < 2; i++) {
        Store__CapsPut put = STORE__CAPS_PUT__INIT;
        put.key = bytes_of("sha-1 x"), put.features = bytes_of(features[i]);
        REQUEST(p, "", CAPS_PUT, caps_put, &put);
        assert_int_equal(bench_ask(*state, &p)->result, OK);
    }
    assert_bytes(bench_ask(*state, &q)->caps->features, "a\nb");
}

static void a_removed_account_leaves_no_leaf_behind(void **state)
{
    assert_int_equal(publish(*state, "b", "1", "<x/>", 1, 9, "c", 0), OK);
    Store__AccountRemove remove = STORE__ACCOUNT_REMOVE__INIT;
    REQUEST(q, ROMEO, ACCOUNT_REMOVE, account_remove, &remove);
    assert_int_equal(bench_ask(*state, &q)->result, OK);
    assert_int_equal(publish(*state, "b", "1", "<x/>", 1, 9, "c", 0), STORE__RESULT__NOT_FOUND);
    assert_int_equal(add_account(*state, ROMEO), OK);
    assert_int_equal(load(*state, ROMEO)->n_leaves, 0);
    assert_int_equal(get(*state, "b", "", 0, 0, "")->items->n_items, 0);
}

static void what_is_out_of_bounds_is_bad(void **state)
{
    static char name[1100], big[(1 << 20) + 2];
    memset(name, 'x', sizeof name - 1);
    memset(big, 'x', sizeof big - 1);
    assert_int_equal(publish(*state, name, "1", "<x/>", 1, 9, "c", 0), STORE__RESULT__BAD);
    assert_int_equal(publish(*state, "", "1", "<x/>", 1, 9, "c", 0), STORE__RESULT__BAD);
    assert_int_equal(publish(*state, "n", "", "<x/>", 1, 9, "c", 0), STORE__RESULT__BAD);
    assert_int_equal(publish(*state, "n", "1", big, 1, 9, "c", 0), STORE__RESULT__BAD);
    assert_int_equal(get(*state, "n", "", 1001, 0, "")->result, STORE__RESULT__BAD);
    Store__ItemPut op = STORE__ITEM_PUT__INIT;
    op.leaf = bytes_of("n");
    REQUEST(q, ROMEO, ITEM_PUT, item_put, &op);
    assert_int_equal(bench_ask(*state, &q)->result, STORE__RESULT__BAD);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(an_item_comes_back_whole_and_its_leaf_is_made_with_it),
        T(older_items_go_and_a_large_one_is_not_inlined),
        T(pages_hold_so_many_items_and_bytes),
        T(what_comes_again_undoes_nothing_that_came_later),
        T(leaves_are_bounded_purged_and_removed_with_all_they_have),
        T(affiliations_and_subscriptions_hang_at_their_leaf),
        T(caps_are_nobodys_and_the_first_stays),
        T(a_removed_account_leaves_no_leaf_behind),
        T(what_is_out_of_bounds_is_bad),
    };
    int failed = cmocka_run_group_tests_name("SQLite", tests, NULL, NULL);
    cluster_init(&cluster, "");
    failed += cmocka_run_group_tests_name("PostgreSQL", tests, NULL, NULL);
    cluster_end(&cluster);
    return failed;
}
