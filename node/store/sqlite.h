/* sqlite: the database as the ops see it: one connection, all statements prepared once
 * (statements.def), errors as err. Only files of this room include it. */
#ifndef NODE_STORE_SQLITE_H
#define NODE_STORE_SQLITE_H

#include <sqlite3.h>

#include "pemberley/arena.h"
#include "pemberley/err.h"

enum statement {
#define STATEMENT(name, sql) SQL_##name,
#include "node/store/statements.def"
#undef STATEMENT
    SQL_MAX
};

struct db {
    sqlite3 *sqlite;
    sqlite3_stmt *statements[SQL_MAX];
    char *path;      /* NULL: in memory */
    int lock_fd;     /* -1: in memory */
    int schema_from; /* version found at the start; schema_version now */
};

/* See store_worker_open. */
nodiscard err db_open(struct db *db, const char *path, bool sync_full, char *text, size_t text_n);
void db_close(struct db *db);

/* An argument of a statement. Views need to rest until the statement has run. */
struct sql_arg {
    enum { SQL_ARG_INT, SQL_ARG_TEXT, SQL_ARG_BLOB } kind;
    int64_t i;
    str s;
};
#define A_INT(v) ((struct sql_arg){SQL_ARG_INT, (int64_t)(v), STR_NONE})
#define A_TEXT(v) ((struct sql_arg){SQL_ARG_TEXT, 0, v})
#define A_BLOB(v) ((struct sql_arg){SQL_ARG_BLOB, 0, v})

/* Runs a statement that gives no rows. */
nodiscard err db_do_args(struct db *db, enum statement s, const struct sql_arg *a, size_t n);
#define db_do(db, name, ...) \
    db_do_args((db), SQL_##name, (const struct sql_arg[]){__VA_ARGS__}, \
               sizeof((const struct sql_arg[]){__VA_ARGS__}) / sizeof(struct sql_arg))
/* Starts one that gives rows; db_next until ERR_NOT_FOUND (the end: it is reset) or another error.
 * A walk that stops early calls db_stop. The arguments are copied. */
sqlite3_stmt *db_start_args(struct db *db, enum statement s, const struct sql_arg *a, size_t n);
#define db_start(db, name, ...) \
    db_start_args((db), SQL_##name, (const struct sql_arg[]){__VA_ARGS__}, \
                  sizeof((const struct sql_arg[]){__VA_ARGS__}) / sizeof(struct sql_arg))
nodiscard err db_next(struct db *db, sqlite3_stmt *st);
void db_stop(sqlite3_stmt *st);
int64_t db_changes(const struct db *db); /* rows of the last db_do */

static inline int64_t db_int(sqlite3_stmt *st, int column)
{
    return sqlite3_column_int64(st, column);
}
str db_bytes(sqlite3_stmt *st, int column); /* a view, until the next step */

nodiscard err db_exec(struct db *db, const char *sql); /* fixed text: BEGIN, PRAGMA, schema */
bool db_in_transaction(const struct db *db);
err db_error(const struct db *db, int code); /* DISK_FULL or IO */
const char *db_why(const struct db *db);     /* the last failure in SQLite's words */
uint64_t db_disk_free(const struct db *db);
uint64_t db_bytes_on_disk(const struct db *db); /* with its WAL */

/* schema.c: brings the database to schema_version, or says why not. */
extern const int schema_version;
nodiscard err schema_migrate(struct db *db, char *text, size_t text_n);

#endif
