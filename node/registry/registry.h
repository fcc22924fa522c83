/* node/registry: the registry's door (pemberley/registry.h) on Redis: one server, Sentinel, or
 * Redis Cluster. hiredis is the codec; connections are transports, given by a dialer. Redis 6.2 or
 * later.
 *
 *   registry.c   the door: leases, the view            records.c   presence, written behind
 *       |                                                  |
 *   call.c       one script with its redirections: MOVED, ASK, NOSCRIPT
 *       |
 *   topology.c   which server has which slot: given, told by Sentinel, told by the cluster
 *       |
 *   server.c     one server: connection, login, pipeline, time-outs, back-off      resp.c  replies
 *
 * Keys, with the cluster's name C. All that a script touches has one hash tag, so that Redis
 * Cluster has it on one server:
 *   pemberley:{C}:member:NODE   string, expires   owner (16 hex digits), behind it "!" if revoked
 *   pemberley:{C}:members       string, expires   some node has renewed its lease as a member
 *   pemberley:{C}:ring          hash              epoch (decimal), view (bytes)
 *   pemberley:C:u:{BARE}        hash, expires     resource -> record; and "" -> epoch and stamp
 *   pemberley:C:room:{BARE}     hash, expires     nickname -> record; and "" -> epoch and stamp
 *
 * What the user of registry.redis needs: `~pemberley:* +evalsha +eval +role +ping`, with Redis
 * Cluster also `+asking +cluster|slots`, and what the scripts do (`lua/`): get set del pttl hget
 * hmget hset hdel pexpire. */
#ifndef NODE_REGISTRY_REGISTRY_H
#define NODE_REGISTRY_REGISTRY_H

#include "pemberley/clock.h"
#include "pemberley/entropy.h"
#include "pemberley/log.h"
#include "pemberley/loop.h"
#include "pemberley/metric.h"
#include "pemberley/registry.h"
#include "pemberley/transport.h"

enum registry_mode { REGISTRY_SINGLE, REGISTRY_SENTINEL, REGISTRY_CLUSTER };
enum { REGISTRY_SERVERS_MAX = 16 };

/* registry.* of the configuration. Strings are copied. */
struct registry_settings {
    str cluster; /* cluster.name */
    enum registry_mode mode;
    str servers[REGISTRY_SERVERS_MAX]; /* "host:port", "[address]:port", "unix:/path": one is used,
                                          the next one when it fails; the sentinels; or some servers
                                          of the cluster */
    size_t servers_n;
    str master;          /* its name, with sentinel */
    str user;            /* "" = Redis' default user */
    str password_file;   /* "" = no password; read at each login, so that it may be changed */
    uint32_t timeout_ms; /* of a connection until it is greeted; of an answer */
    uint32_t refresh_ms, record_lifetime_ms; /* lifetime >= 3 x refresh */
    size_t records_max, records_bytes_max;   /* kept; more are not taken, and counted */
};

/* How a server is reached: a transport that calls opened() when it is (also a plain one), or
 * closed() when it is not. NULL with *problem: not even tried. In tests a fake. */
struct registry_dialer {
    struct transport *(*dial)(struct registry_dialer *d, str address,
                              const struct transport_sink *sink, void *owner, const char **problem);
};

/* What it works with; all of it outlives the registry. */
struct registry_doors {
    struct loop *loop;
    struct entropy *entropy;
    struct log *log;
    struct metric_page *metrics;
    struct registry_dialer *dialer;
};

struct registry_redis;
/* It connects at once. The settings have been checked (must). */
struct registry_redis *registry_redis_new(const struct registry_doors *d,
                                          const struct registry_settings *s);
struct registry *registry_redis_door(struct registry_redis *r);
/* The connections end; requests without an answer end without their done; records stay in Redis
 * for what is left of their lifetime. */
void registry_redis_stop(struct registry_redis *r);
/* Some turns after stop. */
bool registry_redis_stopped(const struct registry_redis *r);
void registry_redis_free(struct registry_redis *r); /* only when stopped */

/* Records that Redis does not have yet, as far as is known. */
size_t registry_redis_unsaved(const struct registry_redis *r);

#endif
