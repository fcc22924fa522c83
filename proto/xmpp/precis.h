/* precis: the two string profiles that XMPP uses (RFC 8264, RFC 8265), over libunistring.
 *
 * UsernameCaseMapped (RFC 8265 3.3): width mapping, lower case, NFC, Bidi rule, IdentifierClass.
 * OpaqueString (RFC 8265 4.2): other spaces become U+0020, NFC, FreeformClass.
 *
 * Both take at most PRECIS_MAX bytes, fail with ERR_BAD, refuse what is not UTF-8 and what is empty,
 * and give raw itself back when it is prepared already and ASCII. Code points that the Unicode
 * version of libunistring does not know are refused, as RFC 8264 8 (Unassigned) asks. */
#ifndef PEMBERLEY_PRECIS_H
#define PEMBERLEY_PRECIS_H

#include "pemberley/arena.h"
#include "pemberley/err.h"
#include "pemberley/str.h"

enum { PRECIS_MAX = 1023 };

nodiscard err precis_username(str raw, struct arena *a, str *out);
nodiscard err precis_opaque(str raw, struct arena *a, str *out);

#endif
