/* sim: one run: a world, its clients, and what is known of each message. */
#ifndef TESTS_SIM_SIM_H
#define TESTS_SIM_SIM_H

#include "tests/sim/canary.h"
#include "tests/sim/client.h"

struct message {
    unsigned from, session, to; /* clients; to: also for the account when not full */
    bool full;
    bool confirmed; /* XEP-0198 h has said so */
    bool bounced, excused;
    uint32_t heard, may_again; /* a bit per client */
    uint64_t sent_us;
};

struct sim {
    struct world w;
    struct list lines;
    struct client *client[CLIENTS_MAX];
    unsigned clients, accounts;
    char bare[CLIENTS_MAX][64];
    bool friends[CLIENTS_MAX][CLIENTS_MAX];
    struct message message[MESSAGES_MAX];
    unsigned messages;
    uint64_t seed, stall_until_us[WORLD_ENDS][WORLD_ENDS];
    uint64_t died_us; /* the last death of a shard */
    bool anytime;     /* kills at any moment */
    bool overlapped;  /* one came before copies were complete again: only crashes, endless waits
                         and h count (delivery.md 9, 1) */
    bool store_fails; /* it was away or full for longer than requests wait */
    char story[4096];
};

void sim_story(struct sim *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
_Noreturn void sim_fail(struct sim *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
