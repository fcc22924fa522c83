/* fencing: the registry's door, but a view that is without a node is not published before the store
 * has that node's fence (delivery.md 5.6): what its shards may still have under way there fails
 * from then on, and what it has done is seen by who comes after it. The store that is away holds a
 * removal up, as ERR_AWAY. Everything else goes through as it is. */
#ifndef PEMBERLEY_SHARD_FENCING_H
#define PEMBERLEY_SHARD_FENCING_H

#include "cluster/view.h"
#include "pemberley/store.h"

struct fencing;
/* Both doors live longer. */
struct fencing *fencing_new(struct registry *inner, struct store *store);
struct registry *fencing_door(struct fencing *f);
/* The view gone by: what a view to be published is without, is what this one has. Kept. */
void fencing_adopted(struct fencing *f, const struct view *v);
void fencing_free(struct fencing *f); /* no request may be under way */

#endif
