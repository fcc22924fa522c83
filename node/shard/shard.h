/* shard: one process, one core, one loop. Wires the rooms together in start order and takes them
 * down in reverse; holds what is one per shard (struct node). Nothing is decided here.
 *
 *   supervisor -> child -> on_start: conf, log, loop, store, channels, tls, home, edge ->
 * child_ready fifo frames:  hub -> shard_frame -> channel_receive -> home_frame or edge_frame hub
 * -> shard_frame -> store_client_on_frame each turn:    loop_turn; hooks run the own shard's queue
 * and flush acks; the turn's arena is reset */
#ifndef PEMBERLEY_SHARD_H
#define PEMBERLEY_SHARD_H

/* The whole life of pemberley-shard: returns the exit code. */
int shard_main(void);

#endif
