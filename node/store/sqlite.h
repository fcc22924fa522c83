/* sqlite: the database as a file: one connection, all statements prepared once (statements.def),
 * errors as err. Only the sqlite_* files of this room include it. */
#ifndef NODE_STORE_SQLITE_H
#define NODE_STORE_SQLITE_H

#include <sqlite3.h>

#include "node/store/sql.h"

/* What a batch says around its statements. */
enum db_control { DB_BEGIN_READ, DB_BEGIN_WRITE, DB_COMMIT, DB_SAVEPOINT, DB_RELEASE, DB_UNDO };
enum { DB_CONTROLS = DB_UNDO + 1 };

struct db {
    sqlite3 *sqlite;
    sqlite3_stmt *statements[SQL_MAX];
    sqlite3_stmt *controls[DB_CONTROLS];
    char *path;      /* NULL: in memory */
    int lock_fd;     /* -1: in memory */
    int schema_from; /* version found at the start; sqlite_schema_version now */
};

/* See store_worker_open. */
nodiscard err db_open(struct db *db, const char *path, bool sync_full, char *text, size_t text_n);
void db_close(struct db *db);

nodiscard err db_control(struct db *db, enum db_control c);
/* Runs a statement to its end, or until on_row wants no more; ids as JSON are in `a` already. */
nodiscard err db_run(struct db *db, struct ops *x, enum statement s, sql_row_f *on_row,
                     const struct sql_arg *a, size_t n);

nodiscard err db_exec(struct db *db, const char *sql); /* fixed text: BEGIN, PRAGMA, schema */
bool db_in_transaction(const struct db *db);
err db_error(const struct db *db, int code); /* DISK_FULL or IO */
const char *db_why(const struct db *db);     /* the last failure in SQLite's words */
uint64_t db_disk_free(const struct db *db);
uint64_t db_bytes_on_disk(const struct db *db); /* with its WAL */

/* sqlite_schema.c: brings the database to sqlite_schema_version, or says why not. */
extern const int sqlite_schema_version;
nodiscard err schema_migrate(struct db *db, char *text, size_t text_n);

#endif
