/* records: the presence of users and rooms as this process has put it, written behind.
 *
 * An *entry* is a hash in Redis, its *fields* are the records. One command of an entry is on its
 * way at a time; what is put meanwhile goes with the next one. The hash's field "" holds the
 * writer's epoch, which fences earlier ones, and a stamp of the last write: a write or a refresh
 * that does not find the stamp it left (Redis was emptied, or failed over to a server that had not
 * everything) writes the hash anew. So after an outage every entry is only touched, and what is
 * missing comes by itself.
 *
 *     put --> dirty --a window of commands--> flying --OK--> saved --refresh--> stale
 *              ^                                 |                               |
 *              +--- no server: parked <----------+<------------------------------+
 *
 * Every hash expires a lifetime after its last write or touch; an entry whose last field was
 * removed is written once more, empty, and forgotten. */
#ifndef NODE_REGISTRY_RECORDS_H
#define NODE_REGISTRY_RECORDS_H

#include "node/registry/topology.h"

struct records;
struct records *records_new(struct redis *x, struct topology *t);
void records_put(struct records *r, const struct registry_record *record);
void records_remove(struct records *r, const struct registry_record *record);
void records_forget(struct records *r, enum registry_kind kind, str key);
/* A server can be sent to again: it may have lost anything. */
void records_resync(struct records *r);
/* The topology has changed: what found no server may find one now. */
void records_retry(struct records *r);
/* Entries to be looked at since the last resync: 0 = done. */
size_t records_resyncing(const struct records *r);
size_t records_unsaved(const struct records *r);
void records_stop(struct records *r); /* sends no more */
void records_free(struct records *r); /* no command is on its way (topology_stopped) */

#endif
