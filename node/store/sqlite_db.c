/* sqlite_db: opening (lock, WAL, pragmas), statements, errors.
 *
 * One process per database is held by flock on <path>.lock, not by SQLite's own locks: those would
 * also keep an operator's sqlite3 shell from reading, and could not name who has it. The lock goes
 * with the process however it dies. WAL with synchronous = FULL makes a commit one fsync of an
 * append; a batch costs what one request costs (measurements.md 8). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "node/store/sqlite.h"

static const char *const statement_sql[SQL_MAX] = {
#define STATEMENT(name, args, sqlite, postgres) sqlite,
#include "node/store/statements.def"
};
static const char *const control_sql[DB_CONTROLS] = {
    "BEGIN", "BEGIN IMMEDIATE", "COMMIT", "SAVEPOINT op", "RELEASE op", "ROLLBACK TO op",
};

enum {
    BUSY_MS = 2000,       /* an operator's shell may hold the database that long */
    VALUE_MAX = 16 << 20, /* bytes of a row; the ops' bounds are below it */
};

/* ENOSPC comes as SQLITE_FULL from writes, but as an IOERR from the shared index, and so do quotas
 * and file size limits. sqlite3_system_errno knows why, but not when it was a COMMIT: then it is
 * errno, which is cleared before each step. */
err db_error(const struct db *db, int code)
{
    int system = sqlite3_system_errno(db->sqlite);
    if (system == 0)
        system = errno;
    if ((code & 0xff) == SQLITE_FULL || code == SQLITE_IOERR_SHMSIZE)
        return ERR_DISK_FULL;
    bool full = system == ENOSPC || system == EDQUOT || system == EFBIG;
    return (code & 0xff) == SQLITE_IOERR && full ? ERR_DISK_FULL : ERR_IO;
}

const char *db_why(const struct db *db) { return sqlite3_errmsg(db->sqlite); }

bool db_in_transaction(const struct db *db) { return !sqlite3_get_autocommit(db->sqlite); }

err db_exec(struct db *db, const char *sql)
{
    errno = 0;
    int code = sqlite3_exec(db->sqlite, sql, NULL, NULL, NULL);
    return code == SQLITE_OK ? ERR_OK : db_error(db, code);
}

static void bind(sqlite3_stmt *st, int at, const struct sql_arg *a)
{
    const char *p = a->s.p ? a->s.p : ""; /* a NULL pointer would bind NULL, not an empty value */
    int code = SQLITE_OK;
    switch (a->kind) {
    case SQL_ARG_INT: code = sqlite3_bind_int64(st, at, a->i); break;
    case SQL_ARG_IDS: /* as JSON */
    case SQL_ARG_TEXT: code = sqlite3_bind_text(st, at, p, (int)a->s.n, SQLITE_STATIC); break;
    case SQL_ARG_BLOB: code = sqlite3_bind_blob(st, at, p, (int)a->s.n, SQLITE_STATIC); break;
    }
    must(code == SQLITE_OK); /* sizes are bounded by STORE_REQUEST_MAX, positions by the .def */
}

err db_control(struct db *db, enum db_control c)
{
    errno = 0;
    int code = sqlite3_step(db->controls[c]);
    err e = code == SQLITE_DONE ? ERR_OK : db_error(db, code); /* before reset forgets errno */
    sqlite3_reset(db->controls[c]);
    return e;
}

static void read_row(sqlite3_stmt *st, struct sql_row *row)
{
    int columns = sqlite3_data_count(st);
    must(columns <= SQL_COLUMNS_MAX);
    for (int i = 0; i < columns; i++) {
        struct sql_cell *c = &row->c[i];
        int type = sqlite3_column_type(st, i);
        *c = (struct sql_cell){.null = type == SQLITE_NULL};
        if (type == SQLITE_INTEGER) {
            c->i = sqlite3_column_int64(st, i);
        } else if (!c->null) {
            const void *p = sqlite3_column_blob(st, i);
            c->s = str_from(p, p ? (size_t)sqlite3_column_bytes(st, i) : 0);
        }
    }
}

err db_run(struct db *db, struct ops *x, enum statement s, sql_row_f *on_row,
           const struct sql_arg *a, size_t n)
{
    sqlite3_stmt *st = db->statements[s];
    struct sql_row row;
    for (size_t i = 0; i < n; i++)
        bind(st, (int)i + 1, &a[i]);
    errno = 0;
    int code;
    bool more = on_row != NULL;
    while ((code = sqlite3_step(st)) == SQLITE_ROW && more) {
        read_row(st, &row);
        more = on_row(x, &row);
        errno = 0;
    }
    err e = code == SQLITE_DONE || code == SQLITE_ROW ? ERR_OK : db_error(db, code);
    sqlite3_reset(st);
    sqlite3_clear_bindings(st);
    return e;
}

uint64_t db_disk_free(const struct db *db)
{
    struct statvfs v;
    if (!db->path || statvfs(db->path, &v) < 0)
        return 0;
    return (uint64_t)v.f_bavail * v.f_frsize;
}

uint64_t db_bytes_on_disk(const struct db *db)
{
    char wal[4096];
    struct stat st;
    uint64_t n = 0;
    if (!db->path)
        return 0;
    if (stat(db->path, &st) == 0)
        n = (uint64_t)st.st_size;
    snprintf(wal, sizeof wal, "%s-wal", db->path);
    return stat(wal, &st) == 0 ? n + (uint64_t)st.st_size : n;
}

/* The pid in the lock file is for the sentence only; the lock is flock's. */
static err take_lock(struct db *db, char *text, size_t text_n)
{
    char path[4096];
    int n = snprintf(path, sizeof path, "%s.lock", db->path);
    db->lock_fd = n < (int)sizeof path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (db->lock_fd < 0) {
        err e = errno == ENOSPC ? ERR_DISK_FULL : ERR_IO;
        snprintf(text, text_n, "cannot open %s.lock: %s", db->path, strerror(errno));
        return e;
    }
    char pid[32] = "";
    if (flock(db->lock_fd, LOCK_EX | LOCK_NB) < 0) {
        ssize_t got = pread(db->lock_fd, pid, sizeof pid - 1, 0);
        pid[got > 0 ? got : 0] = 0;
        pid[strspn(pid, "0123456789")] = 0;
        snprintf(text, text_n, "%s is in use by process %s", db->path, *pid ? pid : "(unknown)");
        return ERR_EXISTS;
    }
    n = snprintf(pid, sizeof pid, "%d\n", (int)getpid());
    /* A full disk may keep the pid out; the lock holds all the same. */
    if (ftruncate(db->lock_fd, 0) == 0)
        (void)!pwrite(db->lock_fd, pid, (size_t)n, 0);
    return ERR_OK;
}

/* Ours alone: it holds password keys. SQLite gives -wal and -shm the mode of the database. */
static err create_file(struct db *db, char *text, size_t text_n)
{
    int fd = open(db->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        err e = errno == ENOSPC ? ERR_DISK_FULL : ERR_IO;
        snprintf(text, text_n, "cannot open %s: %s", db->path, strerror(errno));
        return e;
    }
    close(fd);
    return ERR_OK;
}

static err configure(struct db *db, bool sync_full)
{
    sqlite3_extended_result_codes(db->sqlite, 1);
    sqlite3_busy_timeout(db->sqlite, BUSY_MS);
    sqlite3_limit(db->sqlite, SQLITE_LIMIT_LENGTH, VALUE_MAX);
    err e = db_exec(db, "PRAGMA journal_mode = WAL; PRAGMA foreign_keys = ON;"
                        "PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF;"
                        "PRAGMA cache_size = -32768; PRAGMA journal_size_limit = 67108864;");
    if (e == ERR_OK)
        e = db_exec(db, sync_full ? "PRAGMA synchronous = FULL" : "PRAGMA synchronous = NORMAL");
    return e;
}

static err prepare(struct db *db, const char *sql, sqlite3_stmt **out)
{
    int code = sqlite3_prepare_v3(db->sqlite, sql, -1, SQLITE_PREPARE_PERSISTENT, out, NULL);
    return code == SQLITE_OK ? ERR_OK : db_error(db, code);
}

static err prepare_all(struct db *db)
{
    err e = ERR_OK;
    for (int i = 0; e == ERR_OK && i < SQL_MAX; i++)
        e = prepare(db, statement_sql[i], &db->statements[i]);
    for (int i = 0; e == ERR_OK && i < DB_CONTROLS; i++)
        e = prepare(db, control_sql[i], &db->controls[i]);
    return e;
}

static err open_connection(struct db *db, bool sync_full, char *text, size_t text_n)
{
    const char *name = db->path ? db->path : ":memory:";
    int code = sqlite3_open_v2(
        name, &db->sqlite, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);
    must(db->sqlite); /* NULL only without memory */
    err e = code == SQLITE_OK ? configure(db, sync_full) : db_error(db, code);
    if (e != ERR_OK) {
        snprintf(text, text_n, "cannot open %s: %s", name, db_why(db));
        return e;
    }
    if ((e = schema_migrate(db, text, text_n)) != ERR_OK)
        return e;
    if ((e = prepare_all(db)) != ERR_OK)
        snprintf(text, text_n, "%s does not have our tables: %s", name, db_why(db));
    return e;
}

err db_open(struct db *db, const char *path, bool sync_full, char *text, size_t text_n)
{
    *db = (struct db){.lock_fd = -1};
    err e = ERR_OK;
    if (strcmp(path, ":memory:") != 0) {
        must((db->path = strdup(path)));
        if ((e = take_lock(db, text, text_n)) != ERR_OK)
            goto fail;
        if ((e = create_file(db, text, text_n)) != ERR_OK)
            goto fail;
    }
    if ((e = open_connection(db, sync_full, text, text_n)) == ERR_OK)
        return ERR_OK;
fail:
    db_close(db);
    return e;
}

void db_close(struct db *db)
{
    for (int i = 0; i < SQL_MAX; i++)
        sqlite3_finalize(db->statements[i]);
    for (int i = 0; i < DB_CONTROLS; i++)
        sqlite3_finalize(db->controls[i]);
    sqlite3_close(db->sqlite);
    if (db->lock_fd >= 0)
        close(db->lock_fd);
    free(db->path);
    *db = (struct db){.lock_fd = -1};
}
