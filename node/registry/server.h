/* server: one Redis server and our connection to it.
 *
 *     down --server_open, after a pause--> dialling --opened--> greeting --its answer--> up
 *      ^                                      |                    |                      |
 *      +------------- closing <---------------+--------------------+----------------------+
 *
 * Greeting: AUTH, and ROLE (which must say master) or PING. Requests are pipelined and answered in
 * order; when the oldest has had no answer for the settings' timeout, the connection ends: a
 * server that is slow by seconds is away. Every attempt that fails makes the pause before the next
 * one longer, up to a second; an answered request makes it short again. */
#ifndef NODE_REGISTRY_SERVER_H
#define NODE_REGISTRY_SERVER_H

#include "node/registry/inside.h"
#include "node/registry/resp.h"
#include "pemberley/list.h"

enum { SERVER_ADDRESS_MAX = 300, SERVER_ARGS_MAX = 256 };

/* One command: views, valid until server_send returns, and room for text made for it. */
struct server_args {
    int n;
    size_t used;
    const char *p[SERVER_ARGS_MAX];
    size_t len[SERVER_ARGS_MAX];
    char text[512];
};
static inline void server_args_init(struct server_args *a) { a->n = 0, a->used = 0; }
static inline void server_arg(struct server_args *a, str s)
{
    must(a->n < SERVER_ARGS_MAX);
    a->p[a->n] = s.n ? s.p : "", a->len[a->n] = s.n;
    a->n++;
}
void server_arg_printf(struct server_args *a, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* A command on its way. done comes once; r is NULL when the connection ended before the answer
 * (the command may have been executed). It may send again. */
struct server_request;
typedef void server_done_f(struct server_request *q, const struct resp *r);
struct server_request {
    struct list link;
    uint64_t sent_us;
    server_done_f *done;
};

enum server_greeting { SERVER_MASTER, SERVER_ANY, SERVER_GUIDE };
enum server_state {
    SERVER_DOWN,
    SERVER_DIALLING,
    SERVER_GREETING,
    SERVER_UP,
    SERVER_CLOSING,
};

struct server;
struct server_sink {
    void (*up)(struct server *s);
    /* Not before all its requests are done; server_open may be called at once. */
    void (*down)(struct server *s);
};

struct server {
    struct list link; /* the owner's */
    void *owner;
    const struct server_sink *sink;
    struct redis *redis;
    enum server_greeting greeting;
    enum server_state state;
    char address[SERVER_ADDRESS_MAX]; /* text */
    char reason[128];                 /* why it is down */
    bool dropped;
    bool kept; /* the owner's: still part of the topology */
    unsigned fails;
    struct transport *transport;
    struct resp_reader *reader;
    struct list requests; /* sent, in order */
    size_t requests_n;
    struct server_bytes {
        char *p;
        size_t n, cap;
    } filling, flying;
    size_t flown; /* of flying: taken by the transport */
    bool writing;
    struct server_request hello[2];
    struct timer timer; /* down: the pause; else: the time-out */
    struct turn_hook hook;
};

/* SERVER_MASTER logs in and wants ROLE to say master; SERVER_ANY logs in; SERVER_GUIDE tries to
 * log in, but does not mind if there is no need (a sentinel's usual state). */
struct server *server_new(struct redis *x, enum server_greeting g, const struct server_sink *sink,
                          void *owner);
/* Connects, after the pause that its failures have earned and at least this one. Only when it is
 * down and was not opened yet; address is copied and no longer than SERVER_ADDRESS_MAX - 1. */
void server_open(struct server *s, str address, uint64_t pause_ms);
bool server_is_idle(const struct server *s); /* down, and nobody has opened it */
static inline bool server_is_up(const struct server *s) { return s->state == SERVER_UP; }
/* Only while it is up. */
void server_send(struct server *s, struct server_request *q, const struct server_args *a);
size_t server_unsent(const struct server *s); /* bytes that wait for the transport */
/* The connection ends; a failure, which makes the next pause longer. Does nothing if it is down. */
void server_fail(struct server *s, str reason);
/* The connection ends because it has done its work; nor is it opened after a pause any more. */
void server_close(struct server *s);
/* It ends and frees itself, now or some turns later; its sink is not called any more. */
void server_drop(struct server *s);

#endif
