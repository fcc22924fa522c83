/* The archive's operations (XEP-0313): order, pages, ids, what is forgotten; on SQLite, then the
 * same on PostgreSQL. */
#include "tests/unit/store/bench.h"
#include "tests/unit/support/cluster.h"

#define OK STORE__RESULT__OK
#define ROMEO "romeo@montague.example"
#define JULIET "juliet@capulet.example"
#define TYBALT "tybalt@capulet.example"

static struct cluster cluster; /* pid 0: SQLite */

static int setup(void **state)
{
    struct bench *b = malloc(sizeof *b);
    *state = b;
    if (cluster.pid) {
        struct store_postgres o = cluster_options(&cluster, 1);
        assert_int_equal(bench_open_postgres(b, &o, 16), ERR_OK);
        cluster_sql(&cluster, "TRUNCATE account, archive, archive_gone CASCADE");
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

/* The id of a number: rows of a test are called 1, 2, 3 … */
static ProtobufCBinaryData id_of(unsigned n)
{
    static char ids[64][17];
    char *id = ids[n % 64];
    snprintf(id, sizeof ids[0], "%013u-id", n);
    return bytes_of(id);
}

struct row {
    unsigned n;
    int64_t us;
    const char *contact;
    uint64_t resource, message;
    const char *stanza;
};

static Store__Result put_row(struct bench *b, const char *owner, struct row r)
{
    Store__ArchivePut put = STORE__ARCHIVE_PUT__INIT;
    char text[32];
    snprintf(text, sizeof text, "<m>%u</m>", r.n);
    put.id = id_of(r.n), put.time_us = r.us, put.contact = bytes_of(r.contact ? r.contact : JULIET);
    put.resource = r.resource, put.message = r.message;
    put.stanza = bytes_of(r.stanza ? r.stanza : text);
    REQUEST(q, owner, ARCHIVE_PUT, archive_put, &put);
    return bench_ask(b, &q)->result;
}

static void put_rows(struct bench *b, unsigned from, unsigned to)
{
    for (unsigned n = from; n <= to; n++)
        assert_int_equal(put_row(b, ROMEO, (struct row){.n = n, .us = n * 1000}), OK);
}

static Store__ArchiveGet all(uint32_t limit)
{
    Store__ArchiveGet get = STORE__ARCHIVE_GET__INIT;
    get.limit = limit, get.count_max = 100;
    return get;
}

static Store__Reply *ask_page(struct bench *b, Store__ArchiveGet *get)
{
    REQUEST(q, ROMEO, ARCHIVE_GET, archive_get, get);
    return bench_ask(b, &q);
}

/* Ids of the rows, e.g. "2 3 4", then "+" when there are more, then "index/total". */
static void assert_page(struct bench *b, Store__ArchiveGet get, const char *want)
{
    char text[256] = "";
    Store__Reply *r = ask_page(b, &get);
    assert_int_equal(r->result, OK);
    Store__ArchivePage *p = r->archive;
    for (size_t i = 0; i < p->n_rows; i++)
        sprintf(text + strlen(text), "%d ", atoi((char *)p->rows[i]->id.data));
    if (p->more)
        strcat(text, "+ ");
    if (p->counted)
        sprintf(text + strlen(text), "%u/%u", p->index, p->total);
    assert_string_equal(text, want);
}

static void rows_come_in_the_order_of_their_puts(void **state)
{
    assert_int_equal(put_row(*state, ROMEO, (struct row){.n = 3, .us = 5000}), OK);
    assert_int_equal(put_row(*state, ROMEO, (struct row){.n = 1, .us = 5000}), OK);
    assert_int_equal(put_row(*state, ROMEO, (struct row){.n = 2, .us = 4000}), OK);
    Store__ArchiveGet get = all(10);
    Store__ArchivePage *p = ask_page(*state, &get)->archive;
    assert_int_equal(p->n_rows, 3);
    assert_int_equal(p->rows[0]->time_us, 5000);
    assert_int_equal(p->rows[1]->time_us, 5001); /* one time is for one row */
    assert_int_equal(p->rows[2]->time_us, 5002); /* and does not go backwards */
    assert_bytes(p->rows[2]->stanza, "<m>2</m>");
    assert_page(*state, get, "3 1 2 0/3");
}

static void an_id_is_put_once(void **state)
{
    put_rows(*state, 1, 2);
    struct row again = {.n = 1, .us = 9000, .stanza = "<other/>"};
    assert_int_equal(put_row(*state, ROMEO, again), OK);
    assert_page(*state, all(10), "1 2 0/2");
    Store__ArchiveGet get = all(1);
    assert_bytes(ask_page(*state, &get)->archive->rows[0]->stanza, "<m>1</m>");
}

static void an_account_has_its_own_rows_only(void **state)
{
    assert_int_equal(add_account(*state, JULIET), OK);
    put_rows(*state, 1, 1);
    assert_int_equal(put_row(*state, JULIET, (struct row){.n = 1, .us = 1}), OK);
    assert_int_equal(put_row(*state, JULIET, (struct row){.n = 2, .us = 2}), OK);
    assert_int_equal(put_row(*state, TYBALT, (struct row){.n = 3, .us = 3}), OK); /* nobody */
    assert_page(*state, all(10), "1 0/1");
    Store__ArchiveGet get = all(10);
    get.page_after_id = id_of(2);
    assert_int_equal(ask_page(*state, &get)->result, STORE__RESULT__NOT_FOUND);
}

static void pages_go_both_ways(void **state)
{
    put_rows(*state, 1, 7);
    Store__ArchiveGet get = all(3);
    assert_page(*state, get, "1 2 3 + 0/7");
    get.page_after_id = id_of(3);
    assert_page(*state, get, "4 5 6 + 3/7");
    get.page_after_id = id_of(6);
    assert_page(*state, get, "7 6/7");
    get.page_after_id = id_of(7);
    assert_page(*state, get, "7/7");
    get = all(3), get.backwards = true;
    assert_page(*state, get, "5 6 7 + 4/7");
    get.page_before_id = id_of(5);
    assert_page(*state, get, "2 3 4 + 1/7");
    get.page_before_id = id_of(2);
    assert_page(*state, get, "1 0/7");
    get = all(0);
    assert_page(*state, get, "+ 0/7");
    get = all(7);
    assert_page(*state, get, "1 2 3 4 5 6 7 0/7");
    get.count_max = 6; /* more are not counted */
    assert_page(*state, get, "1 2 3 4 5 6 7 ");
}

static void rows_are_chosen_by_contact_time_and_id(void **state)
{
    struct row rows[] = {{.n = 1, .us = 1000, .resource = 11},
                         {.n = 2, .us = 2000, .contact = TYBALT},
                         {.n = 3, .us = 3000, .resource = 12},
                         {.n = 4, .us = 4000, .resource = 11},
                         {.n = 5, .us = 5000, .contact = TYBALT, .resource = 9}};
    for (size_t i = 0; i < array_len(rows); i++)
        assert_int_equal(put_row(*state, ROMEO, rows[i]), OK);
    Store__ArchiveGet get = all(10);
    get.contact = bytes_of(JULIET);
    assert_page(*state, get, "1 3 4 0/3");
    get.resource = 11;
    assert_page(*state, get, "1 4 0/2");
    get.page_after_id = id_of(3); /* is in the archive, if not among these */
    assert_page(*state, get, "4 1/2");
    get = all(1), get.contact = bytes_of(JULIET), get.backwards = true;
    assert_page(*state, get, "4 + 2/3");
    get = all(10), get.start_us = 2000, get.end_us = 4000;
    assert_page(*state, get, "2 3 4 0/3");
    get.start_us = 2001, get.end_us = 3999;
    assert_page(*state, get, "3 0/1");
    get = all(10), get.after_id = id_of(1), get.before_id = id_of(4);
    assert_page(*state, get, "2 3 0/2");
    get.page_after_id = id_of(2);
    assert_page(*state, get, "3 1/2");
    get.before_id = id_of(6);
    assert_int_equal(ask_page(*state, &get)->result, STORE__RESULT__NOT_FOUND);
    get = all(10), get.contact = bytes_of("nobody@montague.example");
    assert_page(*state, get, "0/0");
}

static void rows_are_had_by_their_ids(void **state)
{
    put_rows(*state, 1, 5);
    put_row(*state, ROMEO, (struct row){.n = 6, .us = 6000, .contact = TYBALT, .resource = 4});
    ProtobufCBinaryData ids[] = {id_of(6), id_of(2), id_of(4), id_of(2)};
    Store__ArchiveGet get = all(10);
    get.ids = ids, get.n_ids = 4;
    assert_page(*state, get, "2 4 6 ");
    get.limit = 2;
    assert_page(*state, get, "2 4 + ");
    get.backwards = true;
    assert_page(*state, get, "4 6 + ");
    get.page_before_id = id_of(6);
    assert_page(*state, get, "2 4 ");
    get = all(10), get.ids = ids, get.n_ids = 4, get.contact = bytes_of(TYBALT);
    assert_page(*state, get, "6 ");
    get.resource = 5;
    assert_page(*state, get, "");
    ids[1] = id_of(7);
    assert_int_equal(ask_page(*state, &get)->result, STORE__RESULT__NOT_FOUND);
}

static void a_page_is_bounded_in_bytes(void **state)
{
    static char big[40001];
    memset(big, 'x', sizeof big - 1);
    for (unsigned n = 1; n <= 4; n++)
        assert_int_equal(put_row(*state, ROMEO, (struct row){.n = n, .us = n, .stanza = big}), OK);
    Store__ArchiveGet get = all(10);
    get.bytes_max = 100000;
    assert_page(*state, get, "1 2 + 0/4");
    get.backwards = true;
    assert_page(*state, get, "3 4 + 2/4");
    get.bytes_max = 1; /* one is always given */
    assert_page(*state, get, "4 + 3/4");
}

static void the_ends_are_told(void **state)
{
    Store__ArchiveEnds ends = STORE__ARCHIVE_ENDS__INIT;
    REQUEST(q, ROMEO, ARCHIVE_ENDS, archive_ends, &ends);
    assert_int_equal(bench_ask(*state, &q)->archive->n_rows, 0);
    put_rows(*state, 1, 1);
    assert_int_equal(bench_ask(*state, &q)->archive->n_rows, 1);
    put_rows(*state, 2, 4);
    Store__ArchivePage *p = bench_ask(*state, &q)->archive;
    assert_int_equal(p->n_rows, 2);
    assert_memory_equal(p->rows[0]->id.data, id_of(1).data, 16);
    assert_int_equal(p->rows[1]->time_us, 4000);
}

static Store__ArchivePage *find(struct bench *b, uint64_t message)
{
    Store__ArchiveFind f = STORE__ARCHIVE_FIND__INIT;
    f.contact = bytes_of(JULIET), f.message = message;
    REQUEST(q, ROMEO, ARCHIVE_FIND, archive_find, &f);
    return bench_ask(b, &q)->archive;
}

static Store__Result replace(struct bench *b, unsigned n, const char *stanza)
{
    Store__ArchiveReplace r = STORE__ARCHIVE_REPLACE__INIT;
    r.id = id_of(n), r.stanza = bytes_of(stanza);
    REQUEST(q, ROMEO, ARCHIVE_REPLACE, archive_replace, &r);
    return bench_ask(b, &q)->result;
}

static void a_message_is_found_and_replaced(void **state)
{
    struct row rows[] = {{.n = 1, .us = 1, .message = 77},
                         {.n = 2, .us = 2, .contact = TYBALT, .message = 77},
                         {.n = 3, .us = 3, .message = 78}};
    for (size_t i = 0; i < array_len(rows); i++)
        assert_int_equal(put_row(*state, ROMEO, rows[i]), OK);
    assert_int_equal(find(*state, 77)->n_rows, 1);
    assert_memory_equal(find(*state, 77)->rows[0]->id.data, id_of(1).data, 16);
    assert_int_equal(find(*state, 79)->n_rows, 0);
    assert_int_equal(replace(*state, 1, "<gone/>"), OK);
    assert_int_equal(replace(*state, 9, "<gone/>"), OK);
    assert_bytes(find(*state, 77)->rows[0]->stanza, "<gone/>");
    assert_page(*state, all(10), "1 2 3 0/3");
}

static void preferences_are_in_the_user(void **state)
{
    assert_int_equal(load_user(*state, ROMEO)->archive_prefs.len, 0);
    Store__ArchivePrefsPut put = STORE__ARCHIVE_PREFS_PUT__INIT;
    put.prefs = bytes_of("p");
    REQUEST(q, ROMEO, ARCHIVE_PREFS_PUT, archive_prefs_put, &put);
    assert_int_equal(bench_ask(*state, &q)->result, OK);
    assert_bytes(load_user(*state, ROMEO)->archive_prefs, "p");
}

/* ---- with what waits offline --- */

static Store__Result put_referring(struct bench *b, const char *uid, unsigned n, const char *stanza,
                                   uint64_t bytes_max)
{
    Store__Request q;
    Store__OfflinePut put;
    offline_put_init(&q, &put, ROMEO, uid, stanza);
    put.archived = id_of(n), put.bytes_max = bytes_max;
    return bench_ask(b, &q)->result;
}

static void what_waits_and_is_archived_has_one_body(void **state)
{
    put_rows(*state, 1, 1);
    assert_int_equal(put_referring(*state, "u1", 1, "<body/>", 3), OK); /* counts no bytes */
    assert_int_equal(put_referring(*state, "u1", 1, "<body/>", 3), OK); /* a repeat */
    assert_int_equal(put_referring(*state, "u2", 2, "<own/>", 3), STORE__RESULT__FULL);
    assert_int_equal(put_referring(*state, "u2", 2, "<own/>", 0), OK);
    assert_int_equal(load_user(*state, ROMEO)->offline_count, 2);
    assert_int_equal(load_user(*state, ROMEO)->offline_bytes, 6);
    Store__OfflinePage *p = get_offline(*state, ROMEO, 0, 10, 0);
    assert_int_equal(p->n_rows, 2);
    assert_bytes(p->rows[0]->stanza, "<m>1</m>");
    assert_memory_equal(p->rows[0]->archived.data, id_of(1).data, 16);
    assert_bytes(p->rows[1]->stanza, "<own/>");
    assert_int_equal(p->rows[1]->archived.len, 0);
    assert_int_equal(replace(*state, 1, "<gone/>"), OK);
    assert_int_equal(get_offline(*state, ROMEO, 0, 10, 0)->rows[0]->stanza.len, 0);
}

static void who_reads_the_archive_keeps_only_what_it_has_not(void **state)
{
    put_rows(*state, 1, 2);
    put_referring(*state, "u1", 1, "<body/>", 0);
    put_offline(*state, ROMEO, "u2", "<own/>");
    put_referring(*state, "u3", 2, "<body/>", 0);
    Store__OfflineDropArchived drop = STORE__OFFLINE_DROP_ARCHIVED__INIT;
    REQUEST(q, ROMEO, OFFLINE_DROP_ARCHIVED, offline_drop_archived, &drop);
    Store__OfflineState *left = bench_ask(*state, &q)->offline_state;
    assert_int_equal(left->count, 1);
    assert_int_equal(left->bytes, 6);
    assert_bytes(get_offline(*state, ROMEO, 0, 10, 0)->rows[0]->stanza, "<own/>");
}

/* ---- forgetting --- */

static Store__ArchiveTrimmed *trim(struct bench *b, Store__ArchiveTrim *t)
{
    t->host = bytes_of("montague.example");
    REQUEST(q, "", ARCHIVE_TRIM, archive_trim, t);
    Store__Reply *r = bench_ask(b, &q);
    assert_int_equal(r->result, OK);
    return r->archive_trimmed;
}

static void old_rows_go_in_slices_but_not_what_waits(void **state)
{
    Store__ArchiveTrim t = STORE__ARCHIVE_TRIM__INIT;
    assert_int_equal(add_account(*state, "benvolio@montague.example"), OK);
    put_rows(*state, 1, 6);
    put_referring(*state, "u1", 2, "<body/>", 0);
    t.accounts = 10, t.before_us = 5000, t.limit = 2;
    Store__ArchiveTrimmed *done = trim(*state, &t);
    assert_int_equal(done->removed, 2);
    assert_bytes(done->last, ROMEO);
    assert_page(*state, all(10), "2 4 5 6 0/4");
    assert_int_equal(trim(*state, &t)->removed, 1);
    assert_int_equal(trim(*state, &t)->removed, 0);
    assert_page(*state, all(10), "2 5 6 0/3");
    t.after = bytes_of(ROMEO);
    assert_int_equal(trim(*state, &t)->last.len, 0);
}

static void rows_beyond_a_number_go(void **state)
{
    Store__ArchiveTrim t = STORE__ARCHIVE_TRIM__INIT;
    put_rows(*state, 1, 6);
    t.accounts = 1, t.count_max = 2, t.limit = 3;
    assert_int_equal(trim(*state, &t)->removed, 3);
    assert_int_equal(trim(*state, &t)->removed, 1);
    assert_int_equal(trim(*state, &t)->removed, 0);
    assert_page(*state, all(10), "5 6 0/2");
}

static void a_removed_account_takes_its_archive_with_it(void **state)
{
    Store__ArchiveTrim t = STORE__ARCHIVE_TRIM__INIT;
    put_rows(*state, 1, 3);
    Store__AccountRemove remove = STORE__ACCOUNT_REMOVE__INIT;
    REQUEST(q, ROMEO, ACCOUNT_REMOVE, account_remove, &remove);
    assert_int_equal(bench_ask(*state, &q)->result, OK);
    assert_int_equal(add_account(*state, ROMEO), OK);
    assert_page(*state, all(10), "0/0"); /* nobody finds what is left of the former one */
    t.accounts = 10, t.limit = 2;
    assert_int_equal(trim(*state, &t)->removed_gone, 2);
    assert_int_equal(trim(*state, &t)->removed_gone, 1);
    assert_int_equal(trim(*state, &t)->removed_gone, 0);
}

static void what_is_no_request_is_bad(void **state)
{
    Store__ArchiveGet get = all(1001);
    assert_int_equal(ask_page(*state, &get)->result, STORE__RESULT__BAD);
    get = all(1), get.page_after_id = bytes_of("short");
    assert_int_equal(ask_page(*state, &get)->result, STORE__RESULT__BAD);
    get = all(1), get.resource = 1; /* of whom? */
    assert_int_equal(ask_page(*state, &get)->result, STORE__RESULT__BAD);
    get = all(1), get.end_us = -1;
    assert_int_equal(ask_page(*state, &get)->result, STORE__RESULT__BAD);
    struct row bad = {.n = 1, .us = -1};
    assert_int_equal(put_row(*state, ROMEO, bad), STORE__RESULT__BAD);
    bad.us = 1, bad.contact = "";
    assert_int_equal(put_row(*state, ROMEO, bad), STORE__RESULT__BAD);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(rows_come_in_the_order_of_their_puts),
        T(an_id_is_put_once),
        T(an_account_has_its_own_rows_only),
        T(pages_go_both_ways),
        T(rows_are_chosen_by_contact_time_and_id),
        T(rows_are_had_by_their_ids),
        T(a_page_is_bounded_in_bytes),
        T(the_ends_are_told),
        T(a_message_is_found_and_replaced),
        T(preferences_are_in_the_user),
        T(what_waits_and_is_archived_has_one_body),
        T(who_reads_the_archive_keeps_only_what_it_has_not),
        T(old_rows_go_in_slices_but_not_what_waits),
        T(rows_beyond_a_number_go),
        T(a_removed_account_takes_its_archive_with_it),
        T(what_is_no_request_is_bad),
    };
    int failed = cmocka_run_group_tests_name("SQLite", tests, NULL, NULL);
    cluster_init(&cluster, "");
    failed += cmocka_run_group_tests_name("PostgreSQL", tests, NULL, NULL);
    cluster_end(&cluster);
    return failed;
}
