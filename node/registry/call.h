/* call: one script on the server that has its keys, until there is an answer. What is not an answer
 * is followed up: NOSCRIPT (the text is sent), MOVED and ASK (the other server is asked; both mean
 * that nothing was executed), so a call is executed at most once. */
#ifndef NODE_REGISTRY_CALL_H
#define NODE_REGISTRY_CALL_H

#include "node/registry/topology.h"

enum script {
#define SCRIPT(name) SCRIPT_##name,
#include "node/registry/scripts.def"
#undef SCRIPT
    SCRIPT_MAX
};
enum { CALL_REDIRECTIONS_MAX = 5 };

struct call;
/* The script's keys, then its arguments. Called for each attempt; what it adds is valid until then.
 */
typedef void call_args_f(struct call *c, struct server_args *a);
/* Once, from a later turn or callback, never from inside call_start. ERR_OK: r is the answer, no
 * error. ERR_AWAY: no server is there, or the answer never came (then it may have been executed).
 * ERR_REFUSED: the server answered with an error; r has its text. */
typedef void call_done_f(struct call *c, err e, const struct resp *r);

struct call {
    struct server_request request;
    struct topology *topology;
    struct server *server; /* asked */
    enum script script;
    unsigned keys;
    unsigned slot; /* of its keys */
    call_args_f *args;
    call_done_f *done;
    uint64_t began_us;
    unsigned redirections;
    bool whole;                 /* the text is sent, not the hash */
    bool asking;                /* the slot is on its way there */
    struct server_request hint; /* ASKING's answer */
};

/* Sends it. ERR_AWAY: there is no server to send it to; then done does not run. The caller has set
 * script, keys, slot, args and done; the rest is call_start's. */
nodiscard err call_start(struct call *c, struct topology *t);

#endif
