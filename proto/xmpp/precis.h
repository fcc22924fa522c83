/* precis: the two string profiles that XMPP uses (RFC 8264, RFC 8265), over libunistring.
 *
 * UsernameCaseMapped (RFC 8265 3.3): width mapping, lower case, NFC, Bidi rule, IdentifierClass.
 * OpaqueString (RFC 8265 4.2): other spaces become U+0020, NFC, FreeformClass.
 *
 * Both take at most PRECIS_MAX bytes and give as many, fail with ERR_BAD, refuse what is not UTF-8
 * and what is empty, and give raw itself back when it is ASCII and prepared already. Code points
 * that libunistring's version of Unicode does not know are refused, as RFC 8264 8 asks. What they
 * accept is a fixed point: preparing it again changes nothing. */
#ifndef PEMBERLEY_PRECIS_H
#define PEMBERLEY_PRECIS_H

#include "pemberley/arena.h"
#include "pemberley/err.h"
#include "pemberley/str.h"

enum { PRECIS_MAX = 1023 };

nodiscard err precis_username(str raw, struct arena *a, str *out);
nodiscard err precis_opaque(str raw, struct arena *a, str *out);

/* What domain.c shares: code points on the stack, mapped and normalised. */
struct precis_text {
    size_t n;
    uint32_t code[2 * PRECIS_MAX + 1]; /* one code point becomes at most two (U+0130, lower case) */
};
nodiscard err precis_decode(str raw, struct precis_text *out);
/* Full and half width, then lower case; of a domain only what case folding changes as well:
 * IDNA2008 keeps the rest, which is Cherokee's capitals. */
void precis_width_and_case(struct precis_text *t, bool domain);
nodiscard err precis_nfc(struct precis_text *t);
str precis_encode(const struct precis_text *t, struct arena *a);
bool precis_contexts_ok(const struct precis_text *t);     /* RFC 5892 appendix A */
bool precis_bidi_present(const uint32_t *code, size_t n); /* any of R, AL, AN */
bool precis_bidi_ok(const uint32_t *code, size_t n);      /* RFC 5893 2, all six conditions */

#endif
