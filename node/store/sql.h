/* sql: the seam between what is asked of the store (ops) and what it is kept in (back-ends).
 *
 *   ops -- statement, arguments, on_row --> struct sql --> SQLite: runs at once, rows at once
 *                                                     `--> PostgreSQL: sent; rows come later
 *
 * So that a batch costs PostgreSQL one round trip, an op cannot look at one statement's rows to
 * choose the next: it names all its statements at once, what depends on the data stands in their
 * SQL, and what came back is weighed at the end (ops_end). A savepoint would cost a round trip too;
 * a statement that finds the whole op impossible divides by zero, which PostgreSQL reports as an
 * error that undoes the transaction, and SQLite as NULL.
 *
 * Only files of this room include it. */
#ifndef NODE_STORE_SQL_H
#define NODE_STORE_SQL_H

#include "pemberley/err.h"

enum statement {
#define STATEMENT(name, args, sqlite, postgres) SQL_##name,
#include "node/store/statements.def"
    SQL_MAX
};

/* An argument; views need to rest until the statement was handed over. */
struct sql_arg {
    enum { SQL_ARG_INT, SQL_ARG_TEXT, SQL_ARG_BLOB, SQL_ARG_IDS } kind;
    int64_t i;
    str s;
    const uint64_t *ids;
};
#define A_INT(v) ((struct sql_arg){SQL_ARG_INT, (int64_t)(v), STR_NONE, NULL})
#define A_TEXT(v) ((struct sql_arg){SQL_ARG_TEXT, 0, v, NULL})
#define A_BLOB(v) ((struct sql_arg){SQL_ARG_BLOB, 0, v, NULL})
#define A_IDS(p, n) \
    ((struct sql_arg){SQL_ARG_IDS, (int64_t)(n), STR_NONE, p}) /* each ≤ INT64_MAX */

enum { SQL_COLUMNS_MAX = 12, SQL_ARGS_MAX = 12 };
struct sql_cell {
    bool null;
    int64_t i; /* numbers */
    str s;     /* text and blobs; a view until the handler returns */
};
struct sql_row {
    struct sql_cell c[SQL_COLUMNS_MAX];
};

struct ops;
/* Returns whether it wants more rows. */
typedef bool sql_row_f(struct ops *x, const struct sql_row *row);
/* on_row may be NULL: rows are of no interest. What fails is the back-end's to keep. */
struct sql {
    void (*run)(struct sql *sql, struct ops *x, enum statement s, sql_row_f *on_row,
                const struct sql_arg *a, size_t n);
    uint64_t (*disk_free)(const struct sql *sql); /* NULL: nobody here knows */
    int schema_version;
};

#endif
