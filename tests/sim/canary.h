/* canary: the traps of delivery.md 10, put back by lying on the wire between shards (or, of the
 * barrier, by wiring a shard without it). The simulation must find each of them. */
#ifndef TESTS_SIM_CANARY_H
#define TESTS_SIM_CANARY_H

#include "tests/sim/world.h"

/* name, what it does */
#define CANARIES(X) \
    X(ack_when_read, "a ROUTE is acked when it arrives, not when its effects are safe") \
    X(no_barrier, "a new home begins before the others have said what they hold") \
    X(out_before_mirror, "a MIRROR is acked before the copy has it, so OUT goes too early") \
    X(ack_before_note, "a NOTE is acked before the copy has it, so <a/> goes too early") \
    X(no_seen, "a ROUTE that comes again is not marked so: nothing looks it up") \
    X(drop_without_gen, "DROP is obeyed for a later attachment too") \
    X(no_marks, "what clients have taken is forgotten at once: KNOWN is empty") \
    X(copies_not_remade, "after a death no copy is made: SNAP says nothing") \
    X(held_early, "OUT is acked before the edge has it") \
    X(break_before_make, "the former holder is dropped when a session is fenced")

#define CANARY_ENUM(name, text) CANARY_##name,
enum canary { CANARY_NONE, CANARIES(CANARY_ENUM) CANARY_COUNT };

const char *canary_name(enum canary c);
const char *canary_text(enum canary c);
enum canary canary_named(const char *name); /* NONE: no such */
/* Valid as long as the process; one at a time. */
const struct world_hooks *canary_hooks(enum canary c);

#endif
