/* identity: what makes a node one of a cluster, as files in data_dir/cluster: the authority's
 * certificate (and on one node its key), the node's own certificate and key, the cluster's secret.
 * For the command line only, and without a running node.
 *
 * All of it changes at once: a directory beside the old one is written, synced and exchanged for it
 * (renameat2); what else lies in the old one is linked into the new. Whoever looks, a node at its
 * reload too, finds the old or the new, never a key beside another's certificate. */
#ifndef PEMBERLEY_NODE_SUPER_IDENTITY_H
#define PEMBERLEY_NODE_SUPER_IDENTITY_H

#include "node/conf/load.h"
#include "node/tls/tls.h"
#include "pemberley/arena.h"

enum { IDENTITY_SECRET = 64, IDENTITY_FILE_MAX = 16 << 10, IDENTITY_TOKEN_MAX = 64 << 10 };

/* Texts of the files; n is 0 where there is none. */
struct identity {
    struct tls_identity_pem authority; /* key: only where the cluster was made */
    struct tls_identity_pem node;
    str secret; /* IDENTITY_SECRET hexadecimal digits */
};

struct identity_place {
    struct arena *arena;
    str data_dir;    /* ends with NUL, as all paths here */
    str secret_file; /* cluster.secret_file */
    int lock_fd;
    str problem; /* of what failed last: a sentence */
};

/* Takes data_dir (made if it is not there) for us alone. ERR_EXISTS: another command is at it. */
err identity_open(struct identity_place *p, const struct conf *c, struct arena *a) nodiscard;
void identity_close(struct identity_place *p);
/* What is there. ERR_IO: something is, and cannot be read. */
err identity_read(struct identity_place *p, struct identity *out) nodiscard;
/* Empty texts leave out what they would be; an empty secret keeps the one that is there. */
err identity_write(struct identity_place *p, const struct identity *i) nodiscard;

/* A token: all that a node needs, in one line of base64. It holds a key: for pipes only. */
str identity_token(const struct identity *i, struct arena *a);
/* ERR_BAD: it is none, or not whole. */
err identity_from_token(str token, struct arena *a, struct identity *out) nodiscard;

#endif
