/* canary: the traps of delivery.md 10 and the rules that tests/model leaves out, put back by lying
 * on the wire between shards (or, of the barrier, by wiring a shard without it). The simulation
 * must find each of them.
 *
 * Not here: trap 10 (what an old edge holds) and NO_GEN, which do no harm as long as the former
 * copy stays frozen, as the model found; 16 (ids of an archive), whose homes have none yet; 17
 * (nobody can renew), because nobody here asks a registry: tests/unit/cluster/member_sim.c has it.
 */
#ifndef TESTS_SIM_CANARY_H
#define TESTS_SIM_CANARY_H

#include "tests/sim/world.h"

/* name, nodes of the cluster (0: none), what it does */
#define CANARIES(X) \
    X(ack_when_read, 0, "a ROUTE is acked when it arrives, not when its effects are safe") \
    X(no_barrier, 0, "a new home begins before the others have said what they hold") \
    X(out_before_mirror, 0, "a MIRROR is acked before the copy has it, so OUT goes too early") \
    X(ack_before_note, 0, "a NOTE is acked before the copy has it, so <a/> goes too early") \
    X(no_seen, 0, "a ROUTE that comes again is not marked so: nothing looks it up") \
    X(drop_without_gen, 0, "DROP is obeyed for a later attachment too") \
    X(no_marks, 0, "what clients have taken is forgotten at once: KNOWN is empty") \
    X(copies_not_remade, 0, "after a death no copy is made: SNAP says nothing") \
    X(held_early, 0, "OUT is acked before the edge has it") \
    X(break_before_make, 0, "the former holder is dropped when a session is fenced") \
    X(high_water, 0, "what comes below a sender's last number to an account is taken for known") \
    X(mark_per_shard, 3, "what comes again below a sender's last number to a shard is, too") \
    X(marks_of_a_minute, 0, "who resumes so late that nobody remembers what he sent") \
    X(successor_is_next_home, 0, "holders of copies offer nothing to a new home") \
    X(edge_is_enough, 0, "an edge counts as the second holder in its home's process too") \
    X(resume_at_once, 0, "a <resume/> is answered before what had come is safe") \
    X(no_fence, 0, "frames of a dead home are obeyed beside those of the next") \
    X(new_before_old, 0, "what goes again to a new home goes behind what is new") \
    X(zombie_commits, 3, "what a removed node asks of the store is done") \
    X(credits_on_relays, 0, "a home may have one ROUTE under way to another")

#define CANARY_ENUM(name, nodes, text) CANARY_##name,
enum canary { CANARY_NONE, CANARIES(CANARY_ENUM) CANARY_COUNT };

const char *canary_name(enum canary c);
const char *canary_text(enum canary c);
unsigned canary_nodes(enum canary c);
enum canary canary_named(const char *name); /* NONE: no such */
/* Valid as long as the process; one at a time. */
const struct world_hooks *canary_hooks(enum canary c);

#endif
