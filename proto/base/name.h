/* name: what clusters and nodes may be called: [a-z0-9-], 1 to 32. Fit for certificates, keys of a
 * registry, metrics and the shell alike; need not match DNS. */
#ifndef PEMBERLEY_BASE_NAME_H
#define PEMBERLEY_BASE_NAME_H

#include "pemberley/str.h"

enum { NODE_NAME_MAX = 32 };

static inline bool node_name_is_good(str name)
{
    for (size_t i = 0; i < name.n; i++) {
        char c = name.p[i];
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'))
            return false;
    }
    return name.n > 0 && name.n <= NODE_NAME_MAX;
}

#endif
