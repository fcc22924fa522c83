/* fake_store: the store for tests of other rooms: the door (include/pemberley/store.h) on the real
 * worker and a database in memory, so that there is one truth about what an operation does. Nothing
 * happens until fake_store_run: then all that was submitted is executed and answered, in order, as
 * is what the callbacks submit meanwhile. */
#ifndef TESTS_SUPPORT_FAKE_STORE_H
#define TESTS_SUPPORT_FAKE_STORE_H

#include "pemberley/store.h"

struct fake_store;
struct fake_store *fake_store_open(void);
struct store *fake_store_door(struct fake_store *f);
/* Returns how many requests were answered. */
size_t fake_store_run(struct fake_store *f);
size_t fake_store_waiting(const struct fake_store *f);
/* Paused: run answers nothing, as if the worker were away. */
void fake_store_pause(struct fake_store *f, bool paused);
/* Answers the oldest request, paused or not. */
void fake_store_step(struct fake_store *f);
/* The next n requests to be run are executed, but their answers are lost (ERR_AWAY). */
void fake_store_lose_next(struct fake_store *f, size_t n);
/* The next n requests to be run are not executed but answered with e: ERR_AWAY and ERR_FULL without
 * a reply, ERR_DISK_FULL and ERR_IO with one. */
void fake_store_fail_next(struct fake_store *f, size_t n, err e);
/* Adds an account at once. */
void fake_store_add_account(struct fake_store *f, const char *jid, str keys);
void fake_store_close(struct fake_store *f);

#endif
