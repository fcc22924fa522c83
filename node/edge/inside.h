/* inside: the struct edge that the files of this room share. Life: edge_new … edge_free; everything
 * else of the room hangs off it. */
#ifndef PEMBERLEY_EDGE_INSIDE_H
#define PEMBERLEY_EDGE_INSIDE_H

#include "cluster/mark.h"
#include "node/conf/conf.h"
#include "node/edge/admit.h"
#include "node/edge/edge.h"
#include "node/edge/throttle.h"
#include "pemberley/pool.h"
#include "proto/sasl/jwt.h"
#include "proto/xml/xml.h"

struct listener;
struct conn;

/* Bounds that are not options: tables of strangers. */
enum {
    EDGE_ADDRESSES_MAX = 65536, /* remembered addresses, and accounts with failed logins */
    EDGE_PROBES = 64,           /* stanzas whose way to safety, or to the socket, is timed */
    EDGE_LANG_MAX = 64,         /* bytes of a stream's xml:lang; a longer one is ignored */
    EDGE_LANG_ATTR_MAX = sizeof " xml:lang=''" + 6 * EDGE_LANG_MAX, /* escaped: at most &quot; */
};

struct edge {
    struct node *node;
    struct list listeners;
    struct list conns;
    struct list proxied;        /* struct proxied.link: their PROXY header is awaited */
    struct htable negotiations; /* struct negotiation.by_number */
    struct htable sessions;     /* struct c2s.by_sid */
    struct htable headers;      /* struct header.node: shared by the conns */
    uint64_t last_number;
    size_t conn_count, preauth_count; /* with the proxied ones */
    size_t connections_max;
    uint64_t rate_units; /* edge.c: in which time units the rates were counted so far */
    uint64_t inbound;    /* bytes of stanzas that are not safe yet */
    size_t carried;      /* bytes that conns hold for carrying */
    struct pool short_queues, short_outputs; /* of sessions (cluster/outs.h), of conns (output.h) */
    struct probe {
        uint64_t a, b, us; /* a hold (c2s.c) and when it began; us 0: free */
    } probes[EDGE_PROBES];
    struct probe out_probes[EDGE_PROBES]; /* of stanzas on their way out: sid, seq */
    struct list logins_waiting; /* struct negotiation.waiting: for a place among login_jobs */
    size_t logins_waiting_count, login_jobs;
    struct admission admission;
    struct jwt_keys *jwt_keys; /* NULL: there are none */
    struct jwt_rules jwt;      /* of the attempt at hand */
    size_t pending;            /* store requests and helper jobs under way */
    struct xml_limits preauth, c2s;
    struct throttle addresses;     /* connections */
    struct throttle failures;      /* failed logins, by address and by account */
    struct throttle registrations; /* new accounts, by address */
    struct drain {
        struct timer timer; /* set while draining */
        struct conf_rate rate;
        uint64_t at_ms, credit; /* connections times rate.per_ms that may go */
    } drain;
    uint64_t wall_read_us; /* loop time at which wall_us was read */
    int64_t wall_us;
    bool bus_full;
    bool stopping;
    void (*stopped)(void *ctx);
    void *stopped_ctx;
    struct turn_hook stop_hook;
};

void edge_drain_tick(struct timer *t); /* drain.c */

/* Wall time, read once per turn: a stanza's clock starts when its bytes were there. */
static inline int64_t edge_wall_us(struct edge *e)
{
    uint64_t now = loop_now_us(e->node->loop);
    if (e->wall_read_us != now)
        e->wall_read_us = now, e->wall_us = clock_wall_us(e->node->clock);
    return e->wall_us;
}

/* Something ended that edge_stop may be waiting for. */
void edge_check_stopped(struct edge *e);

#endif
