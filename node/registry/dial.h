/* dial: how a registry's servers are reached in production: a plain socket, and TLS over it if the
 * wiring gives a wrapper. Addresses are "127.0.0.1:6379", "[::1]:6379", "redis.example:6379" or
 * "unix:/path"; of a name's addresses one after the other is tried. */
#ifndef NODE_REGISTRY_DIAL_H
#define NODE_REGISTRY_DIAL_H

#include "node/os/resolve.h"
#include "node/registry/registry.h"

/* TLS: becomes low's sink and owner, opens when the server has proven that it is host (which rests
 * until the transport is freed): tls_proven_open of node/tls. */
typedef struct transport *registry_secure_f(void *ctx, struct transport *low, const char *host);

struct dialer {
    struct registry_dialer dialer;
    struct loop *loop;
    struct resolver *resolver; /* NULL: names are unknown */
    unsigned first;            /* of a name's addresses, the one to begin with */
    registry_secure_f *secure; /* NULL: plain, as unix: always is */
    void *ctx;
    const char *refusal; /* why nothing is dialled; NULL: it is. The wiring's */
};
void dialer_init(struct dialer *d, struct loop *l, struct resolver *resolver,
                 registry_secure_f *secure, void *ctx);

/* Is it an address that the dialer understands? */
bool dial_address_is_good(str address);

#endif
