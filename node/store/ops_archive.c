/* ops_archive: what was said (XEP-0313). A page is found by ranges of indexes alone, wherever it
 * begins; how many rows there are is counted up to a bound that the asker names.
 *
 * The order of an account's rows is a number of microseconds (statements.def), so times need no
 * index of their own. */
#include <stdlib.h>

#include "node/store/ops.h"

err op_archive_put(struct ops *x)
{
    const Store__ArchivePut *put = x->q->archive_put;
    str contact = ops_str(put->contact), stanza = ops_str(put->stanza);
    if (put->id.len != ARCHIVE_ID || put->time_us < 0 || put->time_us > INT64_MAX / 2 ||
        !ops_key_ok(contact, CONTACT_MAX) || put->resource > INT64_MAX ||
        put->message > INT64_MAX || stanza.n == 0 || stanza.n > XML_MAX)
        return ERR_BAD;
    ops_sql(x, archive_put, NULL, A_TEXT(x->owner), A_INT(put->time_us), A_BLOB(ops_str(put->id)),
            A_TEXT(contact), A_INT(put->resource), A_INT(put->message), A_BLOB(stanza));
    return ERR_OK;
}

/* ---- pages ----------------------------------------------------------------------------------- */

static Store__ArchivePage *page_begin(struct ops *x)
{
    x->r.body_case = STORE__REPLY__BODY_ARCHIVE;
    x->r.archive = arena_alloc(x->arena, sizeof *x->r.archive);
    store__archive_page__init(x->r.archive);
    return x->r.archive;
}

/* Columns seq, id, stanza. */
static void add_row(struct ops *x, const struct sql_row *from)
{
    Store__ArchivePage *page = x->r.archive;
    Store__ArchiveRow *row = arena_alloc(x->arena, sizeof *row);
    store__archive_row__init(row);
    row->time_us = from->c[0].i;
    row->id = ops_keep(x, from->c[1].s);
    row->stanza = ops_keep(x, from->c[2].s);
    page->rows = ops_grow(x, page->rows, page->n_rows, sizeof(void *));
    page->rows[page->n_rows++] = row;
}

static bool on_row(struct ops *x, const struct sql_row *from)
{
    Store__ArchivePage *page = x->r.archive;
    size_t n = from->c[2].s.n;
    if (page->n_rows == x->limit || (page->n_rows > 0 && n > x->left)) {
        page->more = true;
        return false;
    }
    x->left -= n < x->left ? n : x->left;
    add_row(x, from);
    return true;
}

/* Of an id that bounds what is asked for: where it is. */
static bool on_lower(struct ops *x, const struct sql_row *row)
{
    x->missing--;
    if (row->c[0].i > x->lower)
        x->lower = row->c[0].i;
    return false;
}

static bool on_upper(struct ops *x, const struct sql_row *row)
{
    x->missing--;
    if (row->c[0].i < x->upper)
        x->upper = row->c[0].i;
    return false;
}

static void look_at(struct ops *x, ProtobufCBinaryData id, sql_row_f *on_bound)
{
    if (id.len == 0)
        return;
    x->missing++;
    ops_sql(x, archive_has, on_bound, A_TEXT(x->owner), A_BLOB(ops_str(id)));
}

/* The ids that bound what is asked for must be there. */
static void look_at_bounds(struct ops *x)
{
    const Store__ArchiveGet *get = x->q->archive_get;
    x->lower = -1, x->upper = INT64_MAX;
    look_at(x, get->after_id, on_lower);
    look_at(x, get->page_after_id, on_lower);
    look_at(x, get->before_id, on_upper);
    look_at(x, get->page_before_id, on_upper);
}

/* Neither has the limit: they are counted one further, which tells that there are more. */
static bool on_total(struct ops *x, const struct sql_row *row)
{
    x->r.archive->total = (uint32_t)row->c[0].i;
    return false;
}

static bool on_ranged(struct ops *x, const struct sql_row *row)
{
    x->r.archive->index = (uint32_t)row->c[0].i;
    return false;
}

/* The arguments of archive_page_with; those of the others are among them. */
struct range {
    struct sql_arg a[11];
};
static struct range range_of(struct ops *x, bool paged, size_t rows)
{
    const Store__ArchiveGet *get = x->q->archive_get;
    str none = STR("");
    return (struct range){{A_TEXT(x->owner), A_BLOB(ops_str(get->after_id)),
                           A_BLOB(paged ? ops_str(get->page_after_id) : none),
                           A_BLOB(ops_str(get->before_id)),
                           A_BLOB(paged ? ops_str(get->page_before_id) : none),
                           A_INT(get->start_us - (get->start_us > 0)),
                           A_INT(get->end_us ? get->end_us + 1 : INT64_MAX), A_INT(rows),
                           A_INT(x->left), A_TEXT(ops_str(get->contact)), A_INT(get->resource)}};
}

static void ask_rows(struct ops *x)
{
    const Store__ArchiveGet *get = x->q->archive_get;
    struct range r = range_of(x, true, x->limit + 1);
    if (x->limit == 0)
        return;
    if (get->contact.len)
        ops_sql_args(x, get->backwards ? SQL_archive_page_with_back : SQL_archive_page_with, on_row,
                     r.a, 11);
    else
        ops_sql_args(x, get->backwards ? SQL_archive_page_back : SQL_archive_page, on_row, r.a, 9);
}

static void ask_count(struct ops *x, bool paged, sql_row_f *on_count)
{
    const Store__ArchiveGet *get = x->q->archive_get;
    struct range r = range_of(x, paged, (size_t)get->count_max + 1);
    r.a[8] = r.a[9], r.a[9] = r.a[10];
    if (get->contact.len)
        ops_sql_args(x, SQL_archive_count_with, on_count, r.a, 10);
    else
        ops_sql_args(x, SQL_archive_count, on_count, r.a, 8);
}

static void reverse(Store__ArchivePage *page)
{
    for (size_t i = 0, j = page->n_rows; j > 0 && i < --j; i++) {
        Store__ArchiveRow *row = page->rows[i];
        page->rows[i] = page->rows[j], page->rows[j] = row;
    }
}

/* index has come as the number of rows on the page's side of where it begins. */
static void place(Store__ArchivePage *page, const Store__ArchiveGet *get)
{
    uint32_t ranged = page->index;
    page->counted = get->count_max && page->total <= get->count_max;
    if (!page->counted || ranged > page->total)
        page->total = page->index = 0, page->counted = false;
    else if (!get->backwards)
        page->index = page->total - ranged;
    else
        page->index = ranged > page->n_rows ? ranged - (uint32_t)page->n_rows : 0;
}

static err page_done(struct ops *x)
{
    const Store__ArchiveGet *get = x->q->archive_get;
    if (x->missing)
        return ERR_NOT_FOUND;
    if (get->backwards)
        reverse(x->r.archive);
    place(x->r.archive, get);
    if (x->limit == 0)
        x->r.archive->more = !x->r.archive->counted || x->r.archive->total > 0;
    return ERR_OK;
}

/* ---- rows by their ids: few, so what else is asked for is looked at here --------------------- */

static bool on_named(struct ops *x, const struct sql_row *row)
{
    const Store__ArchiveGet *get = x->q->archive_get;
    int64_t seq = row->c[0].i;
    x->missing--;
    if (seq <= x->lower || seq >= x->upper || seq < get->start_us ||
        (get->end_us && seq > get->end_us))
        return false;
    if (get->contact.len && !str_eq(ops_str(get->contact), row->c[3].s))
        return false;
    if (get->resource && get->resource != (uint64_t)row->c[4].i)
        return false;
    add_row(x, row);
    return false;
}

static int by_time(const void *a, const void *b)
{
    const Store__ArchiveRow *const *x = a, *const *y = b;
    return ((*x)->time_us > (*y)->time_us) - ((*x)->time_us < (*y)->time_us);
}

/* An id named twice is one row. */
static void sort_rows(Store__ArchivePage *page)
{
    size_t kept = 0;
    if (page->n_rows > 1)
        qsort(page->rows, page->n_rows, sizeof *page->rows, by_time);
    for (size_t i = 0; i < page->n_rows; i++)
        if (kept == 0 || page->rows[kept - 1]->time_us != page->rows[i]->time_us)
            page->rows[kept++] = page->rows[i];
    page->n_rows = kept;
}

/* From its beginning, or its end, what the page may hold. */
static void cut_rows(struct ops *x)
{
    Store__ArchivePage *page = x->r.archive;
    bool back = x->q->archive_get->backwards;
    size_t all = page->n_rows, n = 0;
    while (n < all && n < x->limit) {
        size_t bytes = page->rows[back ? all - 1 - n : n]->stanza.len;
        if (n > 0 && bytes > x->left)
            break;
        x->left -= bytes < x->left ? bytes : x->left;
        n++;
    }
    page->more = n < all;
    page->n_rows = n;
    if (back && n < all)
        memmove(page->rows, page->rows + (all - n), n * sizeof *page->rows);
}

static err named_done(struct ops *x)
{
    if (x->missing)
        return ERR_NOT_FOUND;
    sort_rows(x->r.archive);
    cut_rows(x);
    return ERR_OK;
}

static void ask_named(struct ops *x)
{
    const Store__ArchiveGet *get = x->q->archive_get;
    for (size_t i = 0; i < get->n_ids; i++) {
        x->missing++;
        ops_sql(x, archive_one, on_named, A_TEXT(x->owner), A_BLOB(ops_str(get->ids[i])));
    }
    x->done = named_done;
}

static bool id_ok(ProtobufCBinaryData id) { return id.len == 0 || id.len == ARCHIVE_ID; }

static bool get_ok(const Store__ArchiveGet *get)
{
    if (get->contact.len > CONTACT_MAX || get->resource > INT64_MAX || get->start_us < 0 ||
        get->end_us < 0 || get->end_us == INT64_MAX || get->limit > PAGE_MAX ||
        get->bytes_max > PAGE_BYTES_MAX || get->count_max > ARCHIVE_COUNT_MAX ||
        get->n_ids > ARCHIVE_IDS_MAX || (get->resource && !get->contact.len))
        return false;
    for (size_t i = 0; i < get->n_ids; i++)
        if (get->ids[i].len != ARCHIVE_ID)
            return false;
    return id_ok(get->after_id) && id_ok(get->before_id) && id_ok(get->page_after_id) &&
           id_ok(get->page_before_id);
}

err op_archive_get(struct ops *x)
{
    const Store__ArchiveGet *get = x->q->archive_get;
    if (!get_ok(get))
        return ERR_BAD;
    page_begin(x);
    x->limit = get->limit;
    x->left = get->bytes_max ? get->bytes_max : PAGE_BYTES_MAX;
    look_at_bounds(x);
    if (get->n_ids) {
        ask_named(x);
        return ERR_OK;
    }
    ask_rows(x);
    if (get->count_max) {
        ask_count(x, false, on_total);
        ask_count(x, true, on_ranged);
    }
    x->done = page_done;
    return ERR_OK;
}

/* ---- single rows ----------------------------------------------------------------------------- */

static bool on_end(struct ops *x, const struct sql_row *row)
{
    Store__ArchivePage *page = x->r.archive;
    if (page->n_rows == 0 || !str_eq(ops_str(page->rows[0]->id), row->c[1].s)) {
        struct sql_row bare = {.c = {row->c[0], row->c[1]}};
        add_row(x, &bare);
    }
    return false;
}

err op_archive_ends(struct ops *x)
{
    page_begin(x);
    ops_sql(x, archive_first, on_end, A_TEXT(x->owner));
    ops_sql(x, archive_last, on_end, A_TEXT(x->owner));
    return ERR_OK;
}

static bool on_any(struct ops *x, const struct sql_row *row)
{
    add_row(x, row);
    return true;
}

err op_archive_find(struct ops *x)
{
    const Store__ArchiveFind *find = x->q->archive_find;
    str contact = ops_str(find->contact);
    if (!ops_key_ok(contact, CONTACT_MAX) || find->message == 0 || find->message > INT64_MAX)
        return ERR_BAD;
    page_begin(x);
    ops_sql(x, archive_find, on_any, A_TEXT(x->owner), A_TEXT(contact), A_INT(find->message),
            A_INT(ARCHIVE_FIND_ROWS));
    return ERR_OK;
}

err op_archive_replace(struct ops *x)
{
    const Store__ArchiveReplace *put = x->q->archive_replace;
    str stanza = ops_str(put->stanza);
    if (put->id.len != ARCHIVE_ID || stanza.n == 0 || stanza.n > XML_MAX)
        return ERR_BAD;
    ops_sql(x, archive_replace, NULL, A_TEXT(x->owner), A_BLOB(ops_str(put->id)), A_BLOB(stanza));
    return ERR_OK;
}

err op_archive_prefs_put(struct ops *x)
{
    str prefs = ops_str(x->q->archive_prefs_put->prefs);
    if (prefs.n > ARCHIVE_PREFS_MAX)
        return ERR_BAD;
    ops_sql(x, archive_prefs_put, NULL, A_TEXT(x->owner), A_BLOB(prefs));
    return ERR_OK;
}

/* ---- forgetting ------------------------------------------------------------------------------ */

static bool on_account(struct ops *x, const struct sql_row *row)
{
    x->r.archive_trimmed->last = ops_keep(x, row->c[1].s);
    return true;
}

static bool on_removed(struct ops *x, const struct sql_row *row)
{
    x->r.archive_trimmed->removed++;
    return true;
}

static bool on_removed_gone(struct ops *x, const struct sql_row *row)
{
    x->r.archive_trimmed->removed_gone++;
    return true;
}

err op_archive_trim(struct ops *x)
{
    const Store__ArchiveTrim *t = x->q->archive_trim;
    str host = ops_str(t->host), after = ops_str(t->after);
    if (host.n > OWNER_MAX || after.n > OWNER_MAX || t->accounts == 0 || t->accounts > PAGE_MAX ||
        t->limit == 0 || t->limit > TRIM_MAX || t->before_us < 0 || t->count_max > INT64_MAX)
        return ERR_BAD;
    x->r.body_case = STORE__REPLY__BODY_ARCHIVE_TRIMMED;
    x->r.archive_trimmed = arena_alloc(x->arena, sizeof *x->r.archive_trimmed);
    store__archive_trimmed__init(x->r.archive_trimmed);
    ops_sql(x, trim_accounts, on_account, A_TEXT(host), A_TEXT(after), A_INT(t->accounts));
    if (t->before_us)
        ops_sql(x, trim_age, on_removed, A_TEXT(host), A_TEXT(after), A_INT(t->accounts),
                A_INT(t->before_us), A_INT(t->limit));
    if (t->count_max)
        ops_sql(x, trim_count, on_removed, A_TEXT(host), A_TEXT(after), A_INT(t->accounts),
                A_INT(t->count_max), A_INT(t->limit));
    ops_sql(x, trim_gone, on_removed_gone, A_INT(t->limit));
    ops_sql_args(x, SQL_trim_forget, NULL, NULL, 0);
    return ERR_OK;
}
