/* Each operation of store.proto: what it does, what a repeat does, where its bounds are; on SQLite,
 * then the same on PostgreSQL. */
#include "tests/unit/store/bench.h"
#include "tests/unit/support/cluster.h"

#define OK STORE__RESULT__OK
#define ROMEO "romeo@montague.example"
#define JULIET "juliet@capulet.example"

static struct cluster cluster; /* pid 0: SQLite */

static err open_store(struct bench *b)
{
    if (!cluster.pid)
        return bench_open(b, ":memory:", 16);
    struct store_postgres o = cluster_options(&cluster, 1);
    return bench_open_postgres(b, &o, 16);
}

static int setup(void **state)
{
    struct bench *b = malloc(sizeof *b);
    *state = b;
    assert_int_equal(open_store(b), ERR_OK);
    if (cluster.pid)
        cluster_sql(&cluster, "TRUNCATE account CASCADE");
    assert_int_equal(add_account(b, ROMEO), OK);
    return 0;
}

static int teardown(void **state)
{
    bench_close(*state);
    free(*state);
    return 0;
}

static Store__Reply *get_account(struct bench *b, const char *jid)
{
    Store__AccountGet get = STORE__ACCOUNT_GET__INIT;
    REQUEST(q, jid, ACCOUNT_GET, account_get, &get);
    return bench_ask(b, &q);
}

static void an_account_is_as_it_was_added(void **state)
{
    Store__Reply *r = get_account(*state, ROMEO);
    assert_int_equal(r->result, OK);
    assert_true(r->account->exists);
    assert_false(r->account->disabled);
    assert_bytes(r->account->keys, "keys");
    assert_int_equal(r->account->created_us, 1000);
    r = get_account(*state, JULIET);
    assert_int_equal(r->result, OK);
    assert_false(r->account->exists);
}

static void adding_again_is_a_repeat_or_exists(void **state)
{
    assert_int_equal(add_account(*state, ROMEO), OK);
    Store__AccountAdd other = STORE__ACCOUNT_ADD__INIT;
    other.keys = bytes_of("other");
    other.created_us = 1000;
    REQUEST(q, ROMEO, ACCOUNT_ADD, account_add, &other);
    assert_int_equal(bench_ask(*state, &q)->result, STORE__RESULT__EXISTS);
    assert_bytes(get_account(*state, ROMEO)->account->keys, "keys");
}

static void an_account_needs_localpart_and_host(void **state)
{
    assert_int_equal(add_account(*state, "montague.example"), STORE__RESULT__BAD);
    assert_int_equal(add_account(*state, "@montague.example"), STORE__RESULT__BAD);
    assert_int_equal(add_account(*state, "romeo@"), STORE__RESULT__BAD);
    assert_int_equal(add_account(*state, ""), STORE__RESULT__BAD);
}

static void keys_and_disabled_are_changed(void **state)
{
    Store__AccountSetKeys keys = STORE__ACCOUNT_SET_KEYS__INIT;
    keys.keys = bytes_of("new");
    REQUEST(q, ROMEO, ACCOUNT_SET_KEYS, account_set_keys, &keys);
    assert_int_equal(bench_ask(*state, &q)->result, OK);
    Store__AccountSetDisabled disabled = STORE__ACCOUNT_SET_DISABLED__INIT;
    disabled.disabled = true;
    REQUEST(d, ROMEO, ACCOUNT_SET_DISABLED, account_set_disabled, &disabled);
    assert_int_equal(bench_ask(*state, &d)->result, OK);
    Store__Reply *r = get_account(*state, ROMEO);
    assert_bytes(r->account->keys, "new");
    assert_true(r->account->disabled);
    assert_true(load_user(*state, ROMEO)->disabled);
}

static Store__Reply *list_accounts(struct bench *b, const char *like, const char *after,
                                   uint32_t limit)
{
    Store__AccountList list = STORE__ACCOUNT_LIST__INIT;
    list.host = bytes_of("montague.example");
    list.like = bytes_of(like), list.after = bytes_of(after), list.limit = limit;
    REQUEST(q, "", ACCOUNT_LIST, account_list, &list);
    return bench_ask(b, &q);
}

static void accounts_are_listed_by_host_in_pages(void **state)
{
    const char *more[] = {"a@montague.example", "b@montague.example", JULIET};
    for (size_t i = 0; i < array_len(more); i++)
        assert_int_equal(add_account(*state, more[i]), OK);
    Store__AccountPage *page = list_accounts(*state, "", "", 2)->accounts;
    assert_int_equal(page->total, 3);
    assert_int_equal(page->n_jids, 2);
    assert_bytes(page->jids[0], "a@montague.example");
    page = list_accounts(*state, "", "b@montague.example", 2)->accounts;
    assert_int_equal(page->n_jids, 1);
    assert_bytes(page->jids[0], ROMEO);
    page = list_accounts(*state, "omeo@", "", 0)->accounts;
    assert_int_equal(page->total, 1);
    assert_bytes(page->jids[0], ROMEO);
    assert_int_equal(list_accounts(*state, "", "", 1001)->result, STORE__RESULT__BAD);
}

static Store__RosterItem item_of(const char *contact)
{
    Store__RosterItem item = STORE__ROSTER_ITEM__INIT;
    item.contact = bytes_of(contact);
    return item;
}

static Store__Result change_item(struct bench *b, uint64_t version, Store__RosterItem *item)
{
    Store__RosterChange change = STORE__ROSTER_CHANGE__INIT;
    change.version = version;
    change.items = &item;
    change.n_items = 1;
    REQUEST(q, ROMEO, ROSTER_CHANGE, roster_change, &change);
    return bench_ask(b, &q)->result;
}

static void a_roster_item_comes_back_whole(void **state)
{
    ProtobufCBinaryData groups[] = {bytes_of("Friends"), bytes_of("Lovers")};
    Store__RosterItem item = item_of(JULIET);
    item.name = bytes_of("Juliet");
    item.subscription = STORE__SUBSCRIPTION__BOTH;
    item.ask = true, item.approved = true;
    item.groups = groups, item.n_groups = 2;
    assert_int_equal(change_item(*state, 1, &item), OK);
    Store__User *user = load_user(*state, ROMEO);
    assert_int_equal(user->roster_version, 1);
    assert_int_equal(user->n_items, 1);
    Store__RosterItem *got = user->items[0];
    assert_bytes(got->contact, JULIET);
    assert_bytes(got->name, "Juliet");
    assert_int_equal(got->subscription, STORE__SUBSCRIPTION__BOTH);
    assert_true(got->ask && got->approved && !got->removed);
    assert_int_equal(got->n_groups, 2);
    assert_bytes(got->groups[1], "Lovers");
    assert_int_equal(got->version, 1);
}

static void a_version_is_applied_once(void **state)
{
    Store__RosterItem item = item_of(JULIET);
    assert_int_equal(change_item(*state, 1, &item), OK);
    item.name = bytes_of("newer");
    assert_int_equal(change_item(*state, 2, &item), OK);
    item.name = bytes_of("stale");
    assert_int_equal(change_item(*state, 1, &item), OK);
    assert_int_equal(change_item(*state, 2, &item), OK);
    Store__User *user = load_user(*state, ROMEO);
    assert_int_equal(user->roster_version, 2);
    assert_bytes(user->items[0]->name, "newer");
}

static void a_removed_item_leaves_a_tombstone_for_500_versions(void **state)
{
    Store__RosterItem item = item_of(JULIET);
    assert_int_equal(change_item(*state, 1, &item), OK);
    item.removed = true;
    assert_int_equal(change_item(*state, 2, &item), OK);
    Store__User *user = load_user(*state, ROMEO);
    assert_int_equal(user->n_items, 0);
    assert_int_equal(user->n_tombstones, 1);
    assert_bytes(user->tombstones[0]->contact, JULIET);
    assert_int_equal(user->tombstones[0]->version, 2);
    assert_int_equal(user->roster_log_floor, 0);

    Store__RosterItem other = item_of("nurse@capulet.example");
    assert_int_equal(change_item(*state, 501, &other), OK);
    user = load_user(*state, ROMEO);
    assert_int_equal(user->n_tombstones, 1); /* a client at version 1 still learns of it */
    assert_int_equal(user->roster_log_floor, 1);
    assert_int_equal(change_item(*state, 502, &other), OK);
    user = load_user(*state, ROMEO);
    assert_int_equal(user->n_tombstones, 0);
    assert_int_equal(user->roster_log_floor, 2);
    assert_int_equal(user->n_items, 1);
}

static void a_bad_item_spoils_the_whole_change(void **state)
{
    Store__RosterItem good = item_of(JULIET), bad = item_of("");
    Store__RosterItem *items[] = {&good, &bad};
    Store__RosterChange change = STORE__ROSTER_CHANGE__INIT;
    change.version = 1, change.items = items, change.n_items = 2;
    REQUEST(q, ROMEO, ROSTER_CHANGE, roster_change, &change);
    assert_int_equal(bench_ask(*state, &q)->result, STORE__RESULT__BAD);
    bad = item_of(JULIET);
    bad.subscription = (Store__Subscription)4;
    assert_int_equal(bench_ask(*state, &q)->result, STORE__RESULT__BAD);
    change.version = 0, change.n_items = 1;
    assert_int_equal(bench_ask(*state, &q)->result, STORE__RESULT__BAD);
    assert_int_equal(load_user(*state, ROMEO)->n_items, 0);
}

static Store__Result put_pending(struct bench *b, const char *contact, const char *stanza,
                                 uint32_t max)
{
    Store__Pending put = STORE__PENDING__INIT;
    put.contact = bytes_of(contact), put.stanza = bytes_of(stanza), put.time_us = 9;
    Store__RosterChange change = STORE__ROSTER_CHANGE__INIT;
    change.pending_put = &put;
    change.pending_max = max;
    REQUEST(q, ROMEO, ROSTER_CHANGE, roster_change, &change);
    return bench_ask(b, &q)->result;
}

static void a_request_is_kept_once_per_contact_until_answered(void **state)
{
    assert_int_equal(put_pending(*state, JULIET, "<one/>", 2), OK);
    assert_int_equal(put_pending(*state, "paris@capulet.example", "<p/>", 2), OK);
    assert_int_equal(put_pending(*state, JULIET, "<two/>", 2), OK);
    assert_int_equal(put_pending(*state, "nurse@capulet.example", "<n/>", 2), STORE__RESULT__FULL);
    Store__User *user = load_user(*state, ROMEO);
    assert_int_equal(user->n_pending, 2);
    assert_bytes(user->pending[0]->stanza, "<two/>");
    assert_int_equal(user->pending[0]->time_us, 9);

    Store__RosterItem item = item_of(JULIET), *items = &item;
    Store__RosterChange change = STORE__ROSTER_CHANGE__INIT;
    change.version = 1, change.items = &items, change.n_items = 1;
    change.pending_remove = bytes_of(JULIET);
    REQUEST(q, ROMEO, ROSTER_CHANGE, roster_change, &change);
    assert_int_equal(bench_ask(*state, &q)->result, OK);
    user = load_user(*state, ROMEO);
    assert_int_equal(user->n_pending, 1);
    assert_int_equal(user->n_items, 1);
}

static void a_full_pending_list_undoes_the_roster_change_with_it(void **state)
{
    assert_int_equal(put_pending(*state, JULIET, "<one/>", 1), OK);
    Store__RosterItem item = item_of(JULIET), *items = &item;
    Store__Pending put = STORE__PENDING__INIT;
    put.contact = bytes_of("x@y"), put.stanza = bytes_of("<x/>");
    Store__RosterChange change = STORE__ROSTER_CHANGE__INIT;
    change.version = 1, change.items = &items, change.n_items = 1;
    change.pending_put = &put, change.pending_max = 1;
    REQUEST(q, ROMEO, ROSTER_CHANGE, roster_change, &change);
    assert_int_equal(bench_ask(*state, &q)->result, STORE__RESULT__FULL);
    Store__User *user = load_user(*state, ROMEO);
    assert_int_equal(user->roster_version, 0);
    assert_int_equal(user->n_items, 0);
}

static void a_roster_over_4_mib_is_full(void **state)
{
    char name[8000], contact[32];
    memset(name, 'n', sizeof name);
    Store__Result r = OK;
    uint64_t i = 0;
    while (r == OK && i < 1000) {
        snprintf(contact, sizeof contact, "c%d@x", (int)i);
        Store__RosterItem item = item_of(contact);
        item.name = (ProtobufCBinaryData){sizeof name, (uint8_t *)name};
        r = change_item(*state, ++i, &item);
    }
    assert_int_equal(r, STORE__RESULT__FULL);
    assert_in_range(i, 515, 525);
    assert_int_equal(load_user(*state, ROMEO)->n_items, i - 1);
}

static void offline_messages_come_in_order_and_in_pages(void **state)
{
    assert_int_equal(put_offline(*state, ROMEO, "u1", "<one/>"), OK);
    assert_int_equal(put_offline(*state, ROMEO, "u2", "<two/>"), OK);
    assert_int_equal(put_offline(*state, ROMEO, "u3", "<three/>"), OK);
    Store__OfflinePage *page = get_offline(*state, ROMEO, 0, 2, 0);
    assert_int_equal(page->n_rows, 2);
    assert_true(page->more);
    assert_bytes(page->rows[0]->uid, "u1");
    assert_bytes(page->rows[1]->stanza, "<two/>");
    assert_int_equal(page->rows[0]->time_us, 5);
    page = get_offline(*state, ROMEO, page->rows[1]->id, 2, 0);
    assert_int_equal(page->n_rows, 1);
    assert_false(page->more);
    assert_bytes(page->rows[0]->stanza, "<three/>");
    page = get_offline(*state, ROMEO, 0, 0, 12);
    assert_int_equal(page->n_rows, 2);
    page = get_offline(*state, ROMEO, 0, 0, 1); /* one, or nobody would ever get it */
    assert_int_equal(page->n_rows, 1);
    assert_true(page->more);
}

static void a_uid_is_stored_once(void **state)
{
    assert_int_equal(put_offline(*state, ROMEO, "u1", "<one/>"), OK);
    assert_int_equal(put_offline(*state, ROMEO, "u1", "<again/>"), OK);
    Store__OfflinePage *page = get_offline(*state, ROMEO, 0, 0, 0);
    assert_int_equal(page->n_rows, 1);
    assert_bytes(page->rows[0]->stanza, "<one/>");
    assert_int_equal(add_account(*state, JULIET), OK);
    assert_int_equal(put_offline(*state, JULIET, "u1", "<hers/>"), OK);
    assert_int_equal(get_offline(*state, JULIET, 0, 0, 0)->n_rows, 1);
}

static void offline_quotas_hold_but_not_for_a_repeat(void **state)
{
    Store__Request q;
    Store__OfflinePut put;
    offline_put_init(&q, &put, ROMEO, "u1", "12345");
    put.count_max = 1, put.bytes_max = 8;
    assert_int_equal(bench_ask(*state, &q)->result, OK);
    put.uid = bytes_of("u2");
    assert_int_equal(bench_ask(*state, &q)->result, STORE__RESULT__FULL);
    put.count_max = 0;
    assert_int_equal(bench_ask(*state, &q)->result, STORE__RESULT__FULL);
    put.bytes_max = 10;
    assert_int_equal(bench_ask(*state, &q)->result, OK);
    put.uid = bytes_of("u1");
    put.count_max = 1;
    assert_int_equal(bench_ask(*state, &q)->result, OK);
}

static void removed_messages_are_gone_and_counted_out(void **state)
{
    assert_int_equal(add_account(*state, JULIET), OK);
    put_offline(*state, ROMEO, "u1", "<one/>");
    put_offline(*state, ROMEO, "u2", "<two/>");
    put_offline(*state, JULIET, "u3", "<three/>");
    uint64_t hers = get_offline(*state, JULIET, 0, 0, 0)->rows[0]->id;
    uint64_t ids[] = {get_offline(*state, ROMEO, 0, 0, 0)->rows[0]->id, hers, 999};
    Store__OfflineRemove remove = STORE__OFFLINE_REMOVE__INIT;
    remove.ids = ids, remove.n_ids = 3;
    REQUEST(q, ROMEO, OFFLINE_REMOVE, offline_remove, &remove);
    assert_int_equal(bench_ask(*state, &q)->result, OK);
    assert_int_equal(bench_ask(*state, &q)->result, OK);
    Store__OfflineCount ask = STORE__OFFLINE_COUNT__INIT;
    REQUEST(c, ROMEO, OFFLINE_COUNT, offline_count, &ask);
    Store__Reply *r = bench_ask(*state, &c);
    assert_int_equal(r->offline_state->count, 1);
    assert_int_equal(r->offline_state->bytes, 6);
    assert_int_equal(load_user(*state, ROMEO)->offline_count, 1);
    assert_int_equal(get_offline(*state, JULIET, 0, 0, 0)->n_rows, 1); /* not his to remove */
}

static void a_queue_is_removed_up_to_its_number(void **state)
{
    Store__Request q;
    Store__OfflinePut put;
    const char *uids[] = {"a", "b", "c", "d"};
    for (unsigned i = 0; i < 4; i++) {
        offline_put_init(&q, &put, ROMEO, uids[i], "<m/>");
        put.sid = bytes_of(i < 3 ? "session" : "other");
        put.seq = i;
        assert_int_equal(bench_ask(*state, &q)->result, OK);
    }
    Store__OfflineRemoveQueue remove = STORE__OFFLINE_REMOVE_QUEUE__INIT;
    remove.sid = bytes_of("session"), remove.seq_max = 1;
    REQUEST(r, ROMEO, OFFLINE_REMOVE_QUEUE, offline_remove_queue, &remove);
    assert_int_equal(bench_ask(*state, &r)->result, OK);
    Store__OfflinePage *page = get_offline(*state, ROMEO, 0, 0, 0);
    assert_int_equal(page->n_rows, 2);
    assert_bytes(page->rows[0]->uid, "c");
    assert_bytes(page->rows[1]->uid, "d");
}

static Store__Reply *put_private(struct bench *b, const char *key, const char *xml, uint64_t max)
{
    Store__PrivatePut put = STORE__PRIVATE_PUT__INIT;
    put.key = bytes_of(key), put.xml = bytes_of(xml), put.size_max = max;
    REQUEST(q, ROMEO, PRIVATE_PUT, private_put, &put);
    return bench_ask(b, &q);
}

static Store__Reply *get_private(struct bench *b, const char *key)
{
    Store__PrivateGet get = STORE__PRIVATE_GET__INIT;
    get.key = bytes_of(key);
    REQUEST(q, ROMEO, PRIVATE_GET, private_get, &get);
    return bench_ask(b, &q);
}

static void private_xml_is_kept_by_key_within_its_quota(void **state)
{
    assert_int_equal(get_private(*state, "k")->result, STORE__RESULT__NOT_FOUND);
    assert_int_equal(put_private(*state, "k", "<x/>", 10)->result, OK);
    assert_int_equal(put_private(*state, "l", "<y/>", 10)->result, OK);
    assert_int_equal(put_private(*state, "k", "<xx/>", 10)->result, STORE__RESULT__FULL);
    assert_bytes(get_private(*state, "k")->xml->xml, "<x/>");
    assert_int_equal(put_private(*state, "l", "", 10)->result, OK);
    assert_int_equal(get_private(*state, "l")->result, STORE__RESULT__NOT_FOUND);
    assert_int_equal(put_private(*state, "", "<x/>", 10)->result, STORE__RESULT__BAD);
}

static void a_vcard_is_put_replaced_and_removed(void **state)
{
    Store__VcardGet get = STORE__VCARD_GET__INIT;
    REQUEST(g, ROMEO, VCARD_GET, vcard_get, &get);
    Store__VcardPut put = STORE__VCARD_PUT__INIT;
    REQUEST(p, ROMEO, VCARD_PUT, vcard_put, &put);
    assert_int_equal(bench_ask(*state, &g)->result, STORE__RESULT__NOT_FOUND);
    put.xml = bytes_of("<vCard/>");
    assert_int_equal(bench_ask(*state, &p)->result, OK);
    put.xml = bytes_of("<vCard>2</vCard>");
    assert_int_equal(bench_ask(*state, &p)->result, OK);
    assert_bytes(bench_ask(*state, &g)->xml->xml, "<vCard>2</vCard>");
    put.xml = bytes_of("");
    assert_int_equal(bench_ask(*state, &p)->result, OK);
    assert_int_equal(bench_ask(*state, &g)->result, STORE__RESULT__NOT_FOUND);
}

static void a_block_list_is_put_loaded_and_removed(void **state)
{
    Store__BlockPut put = STORE__BLOCK_PUT__INIT;
    REQUEST(p, ROMEO, BLOCK_PUT, block_put, &put);
    assert_int_equal(load_user(*state, ROMEO)->blocked.len, 0);
    put.jids = (ProtobufCBinaryData){8, (uint8_t *)"a\0b\0c.d"};
    assert_int_equal(bench_ask(*state, &p)->result, OK);
    Store__User *user = load_user(*state, ROMEO);
    assert_int_equal(user->blocked.len, 8);
    assert_memory_equal(user->blocked.data, "a\0b\0c.d", 8);
    put.jids.len = 7; /* not followed by a NUL */
    assert_int_equal(bench_ask(*state, &p)->result, STORE__RESULT__BAD);
    put.jids.len = 2;
    assert_int_equal(bench_ask(*state, &p)->result, OK);
    assert_int_equal(load_user(*state, ROMEO)->blocked.len, 2);
    put.jids.len = 0;
    assert_int_equal(bench_ask(*state, &p)->result, OK);
    assert_int_equal(load_user(*state, ROMEO)->blocked.len, 0);
}

#define HOUR_US INT64_C(3600000000)

static Store__Reply *get_ended(struct bench *b, const char *token, int64_t now)
{
    Store__EndedGet get = STORE__ENDED_GET__INIT;
    get.token = bytes_of(token), get.time_us = now;
    REQUEST(q, ROMEO, ENDED_GET, ended_get, &get);
    return bench_ask(b, &q);
}

static void put_ended(struct bench *b, const char *token, uint32_t h, int64_t time_us)
{
    Store__EndedPut put = STORE__ENDED_PUT__INIT;
    put.token = bytes_of(token), put.h = h, put.time_us = time_us;
    REQUEST(q, ROMEO, ENDED_PUT, ended_put, &put);
    assert_int_equal(bench_ask(b, &q)->result, OK);
}

static void ended_sessions_are_known_for_a_day_and_the_last_ten(void **state)
{
    char token[8];
    for (unsigned i = 0; i < 12; i++) {
        snprintf(token, sizeof token, "t%u", i);
        put_ended(*state, token, 100 + i, (30 + i) * HOUR_US);
    }
    assert_int_equal(get_ended(*state, "t1", 0)->result, STORE__RESULT__NOT_FOUND);
    assert_int_equal(get_ended(*state, "t2", 0)->ended->h, 102);
    assert_int_equal(get_ended(*state, "t2", 56 * HOUR_US)->result, OK);
    assert_int_equal(get_ended(*state, "t2", 57 * HOUR_US)->result, STORE__RESULT__NOT_FOUND);
    put_ended(*state, "late", 1, 60 * HOUR_US);
    assert_int_equal(get_ended(*state, "t5", 0)->result, STORE__RESULT__NOT_FOUND);
    assert_int_equal(get_ended(*state, "t6", 0)->result, OK);
}

static void the_last_time_is_in_the_user(void **state)
{
    assert_null(load_user(*state, ROMEO)->last);
    Store__LastPut put = STORE__LAST_PUT__INIT;
    put.time_us = 77, put.status = bytes_of("gone");
    REQUEST(q, ROMEO, LAST_PUT, last_put, &put);
    assert_int_equal(bench_ask(*state, &q)->result, OK);
    Store__User *user = load_user(*state, ROMEO);
    assert_int_equal(user->last->time_us, 77);
    assert_bytes(user->last->status, "gone");
}

static void a_removed_account_leaves_nothing_behind(void **state)
{
    Store__RosterItem item = item_of(JULIET);
    change_item(*state, 1, &item);
    put_pending(*state, JULIET, "<p/>", 0);
    put_offline(*state, ROMEO, "u1", "<one/>");
    put_private(*state, "k", "<x/>", 0);
    put_ended(*state, "t", 1, HOUR_US);
    Store__AccountRemove remove = STORE__ACCOUNT_REMOVE__INIT;
    REQUEST(q, ROMEO, ACCOUNT_REMOVE, account_remove, &remove);
    assert_int_equal(bench_ask(*state, &q)->result, OK);
    assert_int_equal(bench_ask(*state, &q)->result, STORE__RESULT__NOT_FOUND);
    assert_false(load_user(*state, ROMEO)->exists);
    assert_int_equal(put_offline(*state, ROMEO, "u2", "<m/>"), STORE__RESULT__NOT_FOUND);
    assert_int_equal(change_item(*state, 2, &item), STORE__RESULT__NOT_FOUND);

    assert_int_equal(add_account(*state, ROMEO), OK);
    Store__User *user = load_user(*state, ROMEO);
    assert_int_equal(user->n_items + user->n_pending + user->offline_count, 0);
    assert_int_equal(user->roster_version, 0);
    assert_int_equal(get_offline(*state, ROMEO, 0, 0, 0)->n_rows, 0);
    assert_int_equal(get_private(*state, "k")->result, STORE__RESULT__NOT_FOUND);
    assert_int_equal(get_ended(*state, "t", 0)->result, STORE__RESULT__NOT_FOUND);
}

static void ping_tells_the_state_of_the_worker(void **state)
{
    Store__Ping ping = STORE__PING__INIT;
    REQUEST(q, "", PING, ping, &ping);
    bench_send(*state, 0, &q);
    bench_send(*state, 0, &q);
    bench_run(*state);
    struct bench *b = *state;
    assert_int_equal(b->replies[0]->health->schema_version, 5);
    assert_int_equal(b->replies[0]->health->queue, 1);
    assert_int_equal(b->replies[1]->health->queue, 0);
    assert_true(cluster.pid || b->replies[0]->health->database_bytes > 4096);
}

static void too_long_is_bad(void **state)
{
    static char big[(1 << 20) + 2];
    memset(big, 'x', sizeof big - 1);
    assert_int_equal(put_offline(*state, ROMEO, "u", big), STORE__RESULT__BAD);
    assert_int_equal(put_private(*state, "k", big, 0)->result, STORE__RESULT__BAD);
    big[65] = 0;
    assert_int_equal(put_offline(*state, ROMEO, big, "<m/>"), STORE__RESULT__BAD);
    big[65] = 'x', big[4000] = 0;
    assert_int_equal(add_account(*state, big), STORE__RESULT__BAD);
    Store__RosterItem item = item_of(big);
    assert_int_equal(change_item(*state, 1, &item), STORE__RESULT__BAD);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(an_account_is_as_it_was_added),
        T(adding_again_is_a_repeat_or_exists),
        T(an_account_needs_localpart_and_host),
        T(keys_and_disabled_are_changed),
        T(accounts_are_listed_by_host_in_pages),
        T(a_roster_item_comes_back_whole),
        T(a_version_is_applied_once),
        T(a_removed_item_leaves_a_tombstone_for_500_versions),
        T(a_bad_item_spoils_the_whole_change),
        T(a_request_is_kept_once_per_contact_until_answered),
        T(a_full_pending_list_undoes_the_roster_change_with_it),
        T(a_roster_over_4_mib_is_full),
        T(offline_messages_come_in_order_and_in_pages),
        T(a_uid_is_stored_once),
        T(offline_quotas_hold_but_not_for_a_repeat),
        T(removed_messages_are_gone_and_counted_out),
        T(a_queue_is_removed_up_to_its_number),
        T(private_xml_is_kept_by_key_within_its_quota),
        T(a_vcard_is_put_replaced_and_removed),
        T(a_block_list_is_put_loaded_and_removed),
        T(ended_sessions_are_known_for_a_day_and_the_last_ten),
        T(the_last_time_is_in_the_user),
        T(a_removed_account_leaves_nothing_behind),
        T(ping_tells_the_state_of_the_worker),
        T(too_long_is_bad),
    };
    int failed = cmocka_run_group_tests_name("SQLite", tests, NULL, NULL);
    cluster_init(&cluster, "");
    failed += cmocka_run_group_tests_name("PostgreSQL", tests, NULL, NULL);
    cluster_end(&cluster);
    return failed;
}
