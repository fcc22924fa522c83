/* client: an XMPP client of the simulation, on a connection whose both directions take their time.
 * It speaks what is needed: bind, XEP-0198 with resumption, messages with a number each, presence
 * with a number each. It remembers what it has heard and said, and complains at once (sim_fail)
 * when what it hears breaks a rule:
 *
 *   - h: never more than was sent, never less than was told before;
 *   - a message comes once to each resource, and those of one session to one address in order.
 *
 * What a client that behaves badly may not expect is in may_again and in excused (sim.h). */
#ifndef TESTS_SIM_CLIENT_H
#define TESTS_SIM_CLIENT_H

#include "tests/sim/world.h"

enum { CLIENTS_MAX = 16, MESSAGES_MAX = 4096, SENT_MAX = 4096, TEXT_MAX = 1 << 18 };

struct sim;
struct client;

struct chunk {
    struct list link;
    uint64_t due_us;
    size_t n, at;
    char data[];
};

struct line { /* one connection; the edge frees it */
    struct transport t;
    struct list link;      /* of sim->lines */
    struct client *client; /* NULL: has gone */
    struct client *loose;  /* … whose it was, without XEP-0198 */
    unsigned shard;
    uint32_t incarnation;
    struct list up, down; /* struct chunk.link: to the server, to the client */
    uint64_t up_due_us, down_due_us, close_us, written_us;
    size_t unread; /* bytes in down, and what nobody reads */
    size_t in_flight;
    bool paused, closing, client_closed, freed;
};

enum client_state { CLIENT_AWAY, CLIENT_DIALED, CLIENT_BOUND };

/* What a client is like. */
struct manner {
    bool sm;      /* XEP-0198 with resumption */
    bool resends; /* what was not handled when it resumed */
    bool lazy;    /* <r/> is left unanswered mostly */
    bool forgets; /* never resumes: binds again */
};

struct client {
    struct sim *sim;
    unsigned index, account;
    char bare[64], full[96], resource[8], previd[64];
    struct manner manner;
    struct line *line;
    enum client_state state;
    bool counting, slow, quiet, enabling;
    bool shown;                  /* has heard its own presence */
    bool left;                   /* it has said </stream:stream>, and nothing since */
    uint64_t shown_us, ended_us; /* shown since; its last session may have had a queue until */
    uint64_t next_us;            /* of its next deed */
    char *in;
    size_t in_n;
    uint32_t received; /* h towards the server, since <enabled/> */
    uint32_t told;     /* the last one it said */
    uint32_t *sent;    /* since <enable/>: number of the message, 0: other */
    uint32_t sent_n, acked;
    unsigned session;              /* serial: +1 with each bind */
    unsigned status;               /* the last number of its presence; 0: unavailable */
    unsigned seen[CLIENTS_MAX];    /* status of others, as it was told */
    uint32_t last[CLIENTS_MAX][2]; /* the last message of a session of others, to bare and full */
    unsigned last_session[CLIENTS_MAX][2];
};

struct client *client_new(struct sim *s, unsigned index, unsigned account);
void client_dial(struct client *c, unsigned shard);
/* To a full JID (of client `to`) or to the bare one. */
void client_message(struct client *c, unsigned to, bool full);
void client_presence(struct client *c, bool available);
void client_request(struct client *c); /* <r/> */
void client_ack(struct client *c);
void client_leave(struct client *c); /* </stream:stream> */
/* The connection breaks; the server learns of it after some time. */
void client_cut(struct client *c, uint64_t after_us);
/* What of it has come; moves bytes that are due both ways. Whether any was. */
bool client_turn(struct client *c);

bool lines_turn(struct sim *s);
uint64_t lines_next_us(const struct sim *s);
/* The shard has died: what the kernel had taken arrives. */
void lines_shard_died(struct sim *s, unsigned shard);

#endif
