/* resolve: names to addresses, by DNS and /etc/hosts, on a loop: for the servers of the registry
 * and for the other nodes' rails. c-ares asks; its sockets are polled by our loop, one poll at a
 * time.
 *
 * A and AAAA are asked for together; what there is of them is the answer, in the order of RFC 6724
 * (what this machine has a route to comes first), the first RESOLVE_ADDRESSES_MAX of it. Nothing is
 * remembered: who asks dials, which is seldom, and a failover by DNS shall be seen at once.
 *
 * struct resolver is a door of its own: resolver_open is the real one, tests have theirs. */
#ifndef NODE_OS_RESOLVE_H
#define NODE_OS_RESOLVE_H

#include "pemberley/loop.h"

enum {
    RESOLVE_ADDRESSES_MAX = 8,
    RESOLVE_QUESTIONS_MAX = 256, /* open at a time */
    RESOLVE_HOST_MAX = 255,      /* bytes of a name or numeric address */
};

struct sockaddr_storage;
/* n addresses, with the port, to be tried in this order; valid until it returns.
 *   ERR_OK         n > 0
 *   ERR_NOT_FOUND  there is no such name, or it has no address
 *   ERR_BAD        it cannot be a name
 *   ERR_AWAY       no server answered, or not what can be used, in time
 *   ERR_FULL       too many questions are open */
typedef void resolved_f(void *ctx, err e, const struct sockaddr_storage *addresses, size_t n);

struct resolver;
struct resolver_impl {
    void (*ask)(struct resolver *r, str host, uint16_t port, resolved_f *done, void *ctx);
    void (*forget)(struct resolver *r, void *ctx);
};
struct resolver {
    const struct resolver_impl *impl;
};

/* done runs once, in a later turn or at this one's end, never from inside. A numeric address is an
 * answer by itself. host is copied. */
static inline void resolve(struct resolver *r, str host, uint16_t port, resolved_f *done, void *ctx)
{
    r->impl->ask(r, host, port, done, ctx);
}
/* No done with this ctx runs any more. */
static inline void resolve_forget(struct resolver *r, void *ctx) { r->impl->forget(r, ctx); }

/* "host:port", "[IPv6]:port": its host without brackets, a view, and its port (1 to 65535). The
 * last colon counts, so that brackets may be missing. False: it is neither. */
bool resolve_split(str address, str *host, uint16_t *port);
/* Is host an address and no name? Then *out has it, with the port. */
bool resolve_is_numeric(str host, uint16_t port, struct sockaddr_storage *out);
/* Bytes of a sockaddr, by its family. */
socklen_t resolve_length(const struct sockaddr_storage *address);

struct resolver_config {
    const char *servers; /* "127.0.0.1:53,…" instead of resolv.conf's; NULL: those */
    uint32_t timeout_ms; /* until a question without an answer is ERR_AWAY */
};
struct resolver *resolver_open(struct loop *l, const struct resolver_config *c);
/* Open questions end without their done. */
void resolver_stop(struct resolver *r);
/* Some turns after stop. */
bool resolver_stopped(const struct resolver *r);
void resolver_free(struct resolver *r); /* only when stopped */

#endif
