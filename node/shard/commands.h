/* commands: what the supervisor passes on from the command line, done here or by whom it concerns:
 * an account's home, another node's supervisor. child.h has the commands and their answers.
 *
 *     on_command ─► run ─┬► here: home_command, the view
 *                        ├► FRAME_COMMAND ─► a shard elsewhere: run ─► FRAME_ANSWER
 *                        └► child_ask ─► the own supervisor ─► on_answer
 *
 * Extensions ask through node->commands, which is the same. What concerns all accounts of a host
 * (all[]) is asked of every shard of every node, and the answers stand one behind the other.
 *
 * One job at a time may ask others, each in bounded time; what comes from another shard is never
 * passed on to a third. */
#ifndef PEMBERLEY_SHARD_COMMANDS_H
#define PEMBERLEY_SHARD_COMMANDS_H

#include "cluster/channel.h"
#include "pemberley/str.h"

struct bus;
struct child;
struct commands;
struct home;
struct membership;
struct node;

struct commands_config {
    struct node *node;
    struct home *home;
    struct child *child;
    struct membership *membership; /* NULL: no cluster, nor a bus */
    struct bus *bus;
};
struct commands *commands_new(const struct commands_config *c);

/* child_calls.on_command, on_answer. */
void commands_run(struct commands *c, uint64_t id, size_t argc, const str *argv);
void commands_answered(struct commands *c, uint64_t id, unsigned exit, str text, bool more);
/* FRAME_COMMAND, FRAME_ANSWER; channel_done once. */
void commands_frame(struct commands *c, struct origin from, const struct frame *f);

#endif
