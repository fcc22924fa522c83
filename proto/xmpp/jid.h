/* jid: addresses (RFC 7622). A JID is prepared once, at the edge, when it comes from a peer; from
 * then on everybody compares bytes. What is prepared already (nearly everything is) costs one look
 * at each byte and no copy; Unicode goes through precis.c and libidn2.
 *
 * Bounds: 1,023 bytes per part and 3,071 in all, before and after preparation; a longer one is
 * refused before it is looked at. The worst that a hostile address can cost: bench/micro_jid.c.
 *
 * Every jid_prepare_* fails with ERR_STANZA_JID_MALFORMED and nothing else. XEP-0106 escapes
 * ("\20") are ordinary characters here. */
#ifndef PEMBERLEY_JID_H
#define PEMBERLEY_JID_H

#include "pemberley/arena.h"
#include "pemberley/err.h"
#include "pemberley/str.h"

enum {
    JID_PART_MAX = 1023,
    JID_MAX = 3 * JID_PART_MAX + 2,
};

/* Views into one contiguous prepared string: local@domain/resource. A part that is absent has
 * n == 0 (no part may be empty, so that says it all). bare is a prefix of full. */
struct jid {
    str full, bare;
    str local, domain, resource;
};

/* Prepares an address from a peer. The views point into raw itself when raw was prepared already
 * (then the arena is not touched), else into the arena. */
nodiscard err jid_prepare(str raw, struct arena *a, struct jid *out);

/* The parts alone, by the same rules and with the same sharing of raw. None may be empty. */
nodiscard err jid_prepare_local(str raw, struct arena *a, str *out);
nodiscard err jid_prepare_domain(str raw, struct arena *a, str *out);
nodiscard err jid_prepare_resource(str raw, struct arena *a, str *out);

/* Only splits: for JIDs that were prepared when they came in (from the bus, the store, our own
 * stamps). Garbage gives garbage, never a view outside s. */
struct jid jid_parse_prepared(str s);

/* Joins prepared parts (local and resource may be empty) in the arena. */
struct jid jid_join(struct arena *a, str local, str domain, str resource);

static inline bool jid_is_bare(const struct jid *j) { return j->resource.n == 0; }
static inline bool jid_is_domain(const struct jid *j) { return j->full.n == j->domain.n; }

#endif
