/* families: metrics.def, labels.def and own.def as tables, for who walks all of them: the
 * exposition, the clearing of a dead process's gauges, explain, tests. */
#ifndef PEMBERLEY_NODE_SUPER_FAMILIES_H
#define PEMBERLEY_NODE_SUPER_FAMILIES_H

#include "pemberley/arena.h"
#include "pemberley/metric.h"

enum family_kind { FAMILY_C, FAMILY_G }; /* as in the table: counter, gauge */
enum family_scope {
    FAMILY_SHARD,
    FAMILY_NODE,
    FAMILY_PROCESS,
    FAMILY_STORE,
    FAMILY_ALL,
    FAMILY_WORST
};
enum family_unit { FAMILY_SECONDS, FAMILY_BYTES, FAMILY_COUNT };

/* A row of the table: `first` and the a x b numbers behind it. */
struct family {
    const char *name, *labels; /* labels: fixed ones; "" */
    enum metric first;
    enum metric_set a, b;
    enum family_kind kind;
    enum family_scope scope;
    double scale;
    const char *help;
};
struct histogram_family {
    const char *name;
    enum histogram first;
    enum metric_set set;
    enum family_unit unit;
    enum family_scope scope;
    const char *help;
};
extern const struct family families[];
extern const unsigned families_count;
extern const struct histogram_family histogram_families[];
extern const unsigned histogram_families_count;

/* What the supervisor knows itself: on no page, with labels of its own. */
enum own {
#define OWN(name, kind, help) OWN_##name,
#include "node/super/own.def"
    OWN_MAX
};
struct own_family {
    const char *name;
    enum family_kind kind;
    const char *help;
};
extern const struct own_family own_families[OWN_MAX];

unsigned set_size(enum metric_set s);
/* `key="value"`; NONE: empty. */
str set_label(enum metric_set s, unsigned i, struct arena *a);

#endif
