/* sqlite_schema: the tables, as a list of migrations. Migration i brings version i to i + 1; a
 * released one is never changed, only followed by another, and each is additive (the former minor
 * version goes on with the result). PRAGMA user_version counts; application_id says that the file
 * is ours.
 *
 * Everything of an account hangs off its row with ON DELETE CASCADE, so that removing it is one
 * statement that no later table can be forgotten in. Ids are AUTOINCREMENT: a late request must
 * never meet a stranger under an old id. JIDs are TEXT for whoever looks with the sqlite3 shell;
 * all that clients wrote is BLOB: kept as it came. */
#include <stdio.h>

#include "node/store/sqlite.h"

enum { APPLICATION_ID = 0x50454d42 }; /* "PEMB" */

static const char *const migrations[] = {
    /* 0 -> 1 */
    "CREATE TABLE account ("
    " id INTEGER PRIMARY KEY AUTOINCREMENT,"
    " jid TEXT NOT NULL UNIQUE,"
    " host TEXT NOT NULL,"
    " disabled INTEGER NOT NULL DEFAULT 0,"
    " keys BLOB NOT NULL,"
    " created_us INTEGER NOT NULL,"
    " roster_version INTEGER NOT NULL DEFAULT 0,"
    " roster_log_floor INTEGER NOT NULL DEFAULT 0,"
    " offline_count INTEGER NOT NULL DEFAULT 0,"
    " offline_bytes INTEGER NOT NULL DEFAULT 0,"
    " last_us INTEGER,"
    " last_status BLOB) STRICT;"
    "CREATE INDEX account_host ON account (host, jid);"

    /* An item, or with removed = 1 the tombstone that versioned rosters need. */
    "CREATE TABLE roster ("
    " account INTEGER NOT NULL REFERENCES account ON DELETE CASCADE,"
    " contact TEXT NOT NULL,"
    " version INTEGER NOT NULL,"
    " removed INTEGER NOT NULL,"
    " name BLOB NOT NULL,"
    " subscription INTEGER NOT NULL," /* as in store.proto: 0 none, 1 to, 2 from, 3 both */
    " ask INTEGER NOT NULL,"
    " approved INTEGER NOT NULL,"
    " groups BLOB NOT NULL," /* each followed by a NUL, which XML cannot contain */
    " PRIMARY KEY (account, contact)) STRICT, WITHOUT ROWID;"
    "CREATE INDEX roster_tombstone ON roster (account, version) WHERE removed;"

    "CREATE TABLE pending ("
    " id INTEGER PRIMARY KEY AUTOINCREMENT,"
    " account INTEGER NOT NULL REFERENCES account ON DELETE CASCADE,"
    " contact TEXT NOT NULL,"
    " stanza BLOB NOT NULL,"
    " time_us INTEGER NOT NULL,"
    " UNIQUE (account, contact)) STRICT;"

    "CREATE TABLE offline ("
    " id INTEGER PRIMARY KEY AUTOINCREMENT,"
    " account INTEGER NOT NULL REFERENCES account ON DELETE CASCADE,"
    " uid BLOB NOT NULL,"
    " time_us INTEGER NOT NULL,"
    " sid BLOB,"
    " seq INTEGER NOT NULL,"
    " stanza BLOB NOT NULL,"
    " UNIQUE (account, uid)) STRICT;"
    "CREATE INDEX offline_account ON offline (account, id);"
    "CREATE INDEX offline_queue ON offline (account, sid, seq) WHERE sid IS NOT NULL;"
    /* The quota is looked at with every message: counted here, where no DELETE can slip by. */
    "CREATE TRIGGER offline_added AFTER INSERT ON offline BEGIN"
    " UPDATE account SET offline_count = offline_count + 1,"
    " offline_bytes = offline_bytes + length(new.stanza) WHERE id = new.account; END;"
    "CREATE TRIGGER offline_gone AFTER DELETE ON offline BEGIN"
    " UPDATE account SET offline_count = offline_count - 1,"
    " offline_bytes = offline_bytes - length(old.stanza) WHERE id = old.account; END;"

    "CREATE TABLE private ("
    " account INTEGER NOT NULL REFERENCES account ON DELETE CASCADE,"
    " key BLOB NOT NULL,"
    " xml BLOB NOT NULL,"
    " UNIQUE (account, key)) STRICT;"
    "CREATE TABLE vcard ("
    " account INTEGER PRIMARY KEY REFERENCES account ON DELETE CASCADE,"
    " xml BLOB NOT NULL) STRICT;"
    "CREATE TABLE ended ("
    " account INTEGER NOT NULL REFERENCES account ON DELETE CASCADE,"
    " token BLOB NOT NULL,"
    " h INTEGER NOT NULL,"
    " time_us INTEGER NOT NULL,"
    " PRIMARY KEY (account, token)) STRICT, WITHOUT ROWID;",
    /* 1 -> 2: leaves (XEP-0060) and what clients can do (XEP-0115) */
    "CREATE TABLE leaf ("
    " account INTEGER NOT NULL REFERENCES account ON DELETE CASCADE,"
    " name BLOB NOT NULL,"
    " config BLOB NOT NULL,"
    " time_us INTEGER NOT NULL,"
    " PRIMARY KEY (account, name)) STRICT, WITHOUT ROWID;"
    "CREATE TABLE leaf_item ("
    " account INTEGER NOT NULL,"
    " leaf BLOB NOT NULL,"
    " id BLOB NOT NULL,"
    " seq INTEGER NOT NULL," /* rises with each publication */
    " publisher BLOB NOT NULL,"
    " time_us INTEGER NOT NULL,"
    " xml BLOB NOT NULL,"
    " UNIQUE (account, leaf, id),"
    " FOREIGN KEY (account, leaf) REFERENCES leaf (account, name) ON DELETE CASCADE) STRICT;"
    "CREATE INDEX leaf_item_seq ON leaf_item (account, leaf, seq);"
    "CREATE TABLE leaf_affiliation ("
    " account INTEGER NOT NULL,"
    " leaf BLOB NOT NULL,"
    " jid TEXT NOT NULL,"
    " affiliation INTEGER NOT NULL,"
    " PRIMARY KEY (account, leaf, jid),"
    " FOREIGN KEY (account, leaf) REFERENCES leaf (account, name) ON DELETE CASCADE)"
    " STRICT, WITHOUT ROWID;"
    "CREATE TABLE leaf_subscription ("
    " account INTEGER NOT NULL,"
    " leaf BLOB NOT NULL,"
    " jid TEXT NOT NULL,"
    " subid BLOB NOT NULL,"
    " state INTEGER NOT NULL,"
    " options BLOB NOT NULL,"
    " PRIMARY KEY (account, leaf, jid),"
    " FOREIGN KEY (account, leaf) REFERENCES leaf (account, name) ON DELETE CASCADE)"
    " STRICT, WITHOUT ROWID;"
    "CREATE TABLE caps ("
    " id INTEGER PRIMARY KEY AUTOINCREMENT,"
    " hash BLOB NOT NULL UNIQUE,"
    " features BLOB NOT NULL) STRICT;",

    /* 2 -> 3: the archive. seq: order and time in microseconds; contact: a bare JID; resource,
     * message: hashes; retracted: a tombstone. It has no foreign key: an account may have a million
     * rows, which go in slices after it (archive_gone). */
    "CREATE TABLE archive ("
    " account INTEGER NOT NULL,"
    " seq INTEGER NOT NULL,"
    " id BLOB NOT NULL,"
    " contact TEXT NOT NULL,"
    " resource INTEGER NOT NULL,"
    " message INTEGER NOT NULL,"
    " retracted INTEGER NOT NULL DEFAULT 0,"
    " stanza BLOB NOT NULL) STRICT;"
    "CREATE UNIQUE INDEX archive_seq ON archive (account, seq);"
    "CREATE UNIQUE INDEX archive_id ON archive (account, id);"
    "CREATE INDEX archive_contact ON archive (account, contact, seq, resource, message);"
    "CREATE TABLE archive_gone (account INTEGER PRIMARY KEY) STRICT;"
    "CREATE TRIGGER archive_left AFTER DELETE ON account BEGIN"
    " INSERT INTO archive_gone (account) VALUES (old.id); END;"
    "ALTER TABLE account ADD COLUMN archive_prefs BLOB;"
    "ALTER TABLE offline ADD COLUMN archived BLOB;"
    "CREATE INDEX offline_archived ON offline (account, archived) WHERE archived IS NOT NULL;",
    /* 3 -> 4: whom an account has blocked (XEP-0191) */
    "CREATE TABLE blocking ("
    " account INTEGER PRIMARY KEY REFERENCES account ON DELETE CASCADE,"
    " jids BLOB NOT NULL) STRICT;", /* each followed by a NUL */
    /* 4 -> 5: clients and their tokens (XEP-0484, XEP-0494); nonce NULL: none */
    "CREATE TABLE client ("
    " account INTEGER NOT NULL REFERENCES account ON DELETE CASCADE,"
    " client TEXT NOT NULL,"
    " software BLOB NOT NULL,"
    " device BLOB NOT NULL,"
    " first_us INTEGER NOT NULL,"
    " last_us INTEGER NOT NULL,"
    " password INTEGER NOT NULL,"
    " mechanism BLOB,"
    " nonce BLOB,"
    " expiry_us INTEGER,"
    " counter INTEGER NOT NULL DEFAULT 0,"
    " attempt BLOB," /* the last use of nonce */
    " fresh_mechanism BLOB,"
    " fresh_nonce BLOB,"
    " fresh_expiry_us INTEGER,"
    " PRIMARY KEY (account, client)) STRICT, WITHOUT ROWID;",
};
const int sqlite_schema_version = (int)array_len(migrations);

static err read_number(struct db *db, const char *sql, int64_t *out)
{
    sqlite3_stmt *st = NULL;
    int code = sqlite3_prepare_v2(db->sqlite, sql, -1, &st, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_step(st);
    *out = code == SQLITE_ROW ? sqlite3_column_int64(st, 0) : 0;
    sqlite3_finalize(st);
    return code == SQLITE_ROW ? ERR_OK : db_error(db, code);
}

static err run_migration(struct db *db, int from)
{
    char stamp[128];
    snprintf(stamp, sizeof stamp, "PRAGMA user_version = %d; PRAGMA application_id = %d; COMMIT;",
             from + 1, APPLICATION_ID);
    err e = db_exec(db, "BEGIN IMMEDIATE");
    if (e == ERR_OK)
        e = db_exec(db, migrations[from]);
    if (e == ERR_OK)
        e = db_exec(db, stamp);
    if (e != ERR_OK && db_in_transaction(db))
        sqlite3_exec(db->sqlite, "ROLLBACK", NULL, NULL, NULL);
    return e;
}

err schema_migrate(struct db *db, char *text, size_t text_n)
{
    int64_t version = 0, application = 0, tables = 0;
    err e = read_number(db, "PRAGMA user_version", &version);
    if (e == ERR_OK)
        e = read_number(db, "PRAGMA application_id", &application);
    if (e == ERR_OK)
        e = read_number(db, "SELECT count(*) FROM sqlite_schema", &tables);
    if (e != ERR_OK) {
        snprintf(text, text_n, "cannot read %s: %s", db->path ? db->path : ":memory:", db_why(db));
        return e;
    }
    if (tables > 0 && application != APPLICATION_ID) {
        snprintf(text, text_n, "%s is a database of another program", db->path);
        return ERR_BAD;
    }
    if (version > sqlite_schema_version || version < 0) {
        snprintf(text, text_n,
                 "%s has schema version %lld, this program knows up to %d: use the newer program",
                 db->path, (long long)version, sqlite_schema_version);
        return ERR_BAD;
    }
    db->schema_from = (int)version;
    for (int v = (int)version; v < sqlite_schema_version; v++)
        if ((e = run_migration(db, v)) != ERR_OK) {
            snprintf(text, text_n, "migration from schema version %d failed: %s", v, db_why(db));
            return e;
        }
    return ERR_OK;
}
