/* commands_inside: what commands.c (who does it, and the way of the answer) and node_commands.c
 * (what is known of the nodes) share. */
#ifndef PEMBERLEY_SHARD_COMMANDS_INSIDE_H
#define PEMBERLEY_SHARD_COMMANDS_INSIDE_H

#include "node/node.h"
#include "node/shard/commands.h"

enum { /* operator.md 3 */
       COMMAND_DONE,
       COMMAND_FAILED,
       COMMAND_USAGE,
       COMMAND_NO_SUCH = 4,
       COMMAND_CONFLICT = 5,
       COMMAND_LATE = 7
};
enum { COMMAND_ARGS_MAX = 16 };

struct commands {
    struct command_door door;
    struct commands_config c;
    uint64_t next_id;
    struct list asks;
    size_t ask_count, job_count;
};

/* A command that waits for its answer: the supervisor's, another shard's, or the door's. */
struct job {
    struct commands *commands;
    uint64_t id; /* as who asked calls it */
    bool remote; /* asked by: */
    struct origin from;
    command_done_f *done; /* the door's; NULL: it is not */
    void *ctx;
};
/* The answer; j is gone. */
void job_answer(struct job *j, unsigned exit, str text);

/* Asks a shard of this or another node, or the own supervisor (PEER_SUPERVISOR). done runs once,
 * also when there is no answer: COMMAND_LATE after timeout_ms. text is valid until it returns. */
enum { PEER_SUPERVISOR = UINT32_MAX };
void commands_ask(struct commands *c, unsigned peer, size_t argc, const str *argv,
                  uint64_t timeout_ms, command_done_f *done, void *ctx);

/* node-list, node-ring, node-remove; node-status, which shards ask each other. False: none of
 * them. */
bool node_command(struct job *j, size_t argc, const str *argv);

#endif
