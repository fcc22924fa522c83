/* domain: the domainpart alone (RFC 7622 3.2), for jid.c. ERR_BAD; raw itself where it is prepared
 * already and ASCII. */
#ifndef PEMBERLEY_DOMAIN_H
#define PEMBERLEY_DOMAIN_H

#include "pemberley/arena.h"
#include "pemberley/err.h"
#include "pemberley/str.h"

nodiscard err domain_prepare(str raw, struct arena *a, str *out);

#endif
