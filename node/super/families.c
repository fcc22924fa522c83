#include "node/super/families.h"

#include <ctype.h>

const struct family families[] = {
#define METRIC(id, family, labels, kind, scope, scale, help) \
    {family,         labels, METRIC_##id, METRIC_SET_NONE, METRIC_SET_NONE, FAMILY_##kind, \
     FAMILY_##scope, scale,  help},
#define METRIC_ARRAY(id, family, a, b, kind, scope, scale, help) \
    {family,         "",    METRIC_##id, METRIC_SET_##a, METRIC_SET_##b, FAMILY_##kind, \
     FAMILY_##scope, scale, help},
#include "pemberley/metrics.def"
};
const unsigned families_count = array_len(families);

const struct histogram_family histogram_families[] = {
#define HISTOGRAM(id, family, set, unit, scope, help) \
    {family, HISTOGRAM_##id, METRIC_SET_##set, FAMILY_##unit, FAMILY_##scope, help},
#include "pemberley/metrics.def"
};
const unsigned histogram_families_count = array_len(histogram_families);

const struct own_family own_families[OWN_MAX] = {
#define OWN(name, kind, help) {#name, FAMILY_##kind, help},
#include "node/super/own.def"
};

static const struct set {
    const char *key;
    const char *const *labels; /* NULL: rows of err.def from first on, and "other" */
    unsigned size, first;
} sets[METRIC_SET_MAX] = {
#define LABELS(set, key, ...) {key, (const char *const[]){__VA_ARGS__}, METRIC_SIZE_##set, 0},
#define ERRORS(set, key, first, last) {key, NULL, METRIC_SIZE_##set, first},
#define EVENTS(set, key) {key, log_event_names, METRIC_SIZE_##set, 0},
#define HOSTS(set, key, n) {key, NULL, METRIC_SIZE_##set, 0}, /* named by exposition.c */
#define PEERS(set, key, n) {key, NULL, METRIC_SIZE_##set, 0}, /* by peers.c */
#include "pemberley/labels.def"
};

unsigned set_size(enum metric_set s) { return sets[s].size; }

/* Rows of err.def have names in capitals, labels in small letters. */
static str error_label(const struct set *s, unsigned i, struct arena *a)
{
    str name = str_of(i + 1 < s->size ? err_row((err)(s->first + i))->name : "other");
    char *small = arena_alloc(a, name.n);
    for (size_t k = 0; k < name.n; k++)
        small[k] = (char)tolower((unsigned char)name.p[k]);
    return (str){small, name.n};
}

str set_label(enum metric_set s, unsigned i, struct arena *a)
{
    str value = sets[s].labels ? str_of(sets[s].labels[i]) : error_label(&sets[s], i, a);
    if (!*sets[s].key)
        return value;
    return arena_printf(a, "%s=\"%.*s\"", sets[s].key, STR_ARG(value));
}
