/* precis: a profile is: decode, check the class, map, normalise, check what came out. The class of
 * a code point is derived from its Unicode properties in the order of RFC 8264 8; no table of our
 * own that would age. Context rules are RFC 5892 appendix A.
 *
 * Bounds: at most 1,023 code points, every step linear in them (NFC sorts marks, n log n), so the
 * worst that a peer can ask for is some tens of microseconds (bench/micro_jid.c). The class check
 * runs twice where mapping changed something: RFC 8265 3.3.2 wants it before, idempotence after. */
#include "proto/xmpp/precis.h"

#include <stdlib.h>
#include <unicase.h>
#include <uninorm.h>
#include <unictype.h>

#include "proto/base/utf8.h"

enum class { CLASS_VALID, CLASS_FREEFORM, CLASS_JOIN, CLASS_CONTEXT, CLASS_DISALLOWED };

/* RFC 8264 9.6 (F): what the general rules would get wrong. False: no exception. */
static bool exception_of(uint32_t c, enum class *out)
{
    switch (c) {
    case 0xdf:
    case 0x3c2:
    case 0x6fd:
    case 0x6fe:
    case 0xf0b:
    case 0x3007: *out = CLASS_VALID; return true;
    case 0xb7:
    case 0x375:
    case 0x5f3:
    case 0x5f4:
    case 0x30fb:
    case 0x660 ... 0x669:
    case 0x6f0 ... 0x6f9: *out = CLASS_CONTEXT; return true;
    case 0x640:
    case 0x7fa:
    case 0x302e:
    case 0x302f:
    case 0x3031 ... 0x3035:
    case 0x303b: *out = CLASS_DISALLOWED; return true;
    default: return false;
    }
}

/* RFC 8264 9.9 (I). */
static bool is_old_hangul(uint32_t c)
{
    return (c >= 0x1100 && c <= 0x11ff) || (c >= 0xa960 && c <= 0xa97c) ||
           (c >= 0xd7b0 && c <= 0xd7fb);
}

/* RFC 8264 9.17 (Q): NFKC changes it. Which is: some decomposition on the way down is a
 * compatibility one, or NFC does not put the canonical one together again (singletons, exclusions).
 * Only first halves decompose further, and only whole code points are excluded; that this equals
 * NFKC is a test. Walking the tables costs a tenth of normalising each code point. */
static bool has_compat(uint32_t c)
{
    ucs4_t parts[UC_DECOMPOSITION_MAX_LENGTH];
    int tag, n = uc_decomposition(c, &tag, parts);
    if (n < 0)
        return false;
    if (tag != UC_DECOMP_CANONICAL || n == 1 || uc_composition(parts[0], parts[1]) != c)
        return true;
    while ((n = uc_decomposition(parts[0], &tag, parts)) > 0)
        if (tag != UC_DECOMP_CANONICAL)
            return true;
    return false;
}

static enum class class_of(uint32_t c) {
    enum class special; if (c < 0x80) return c > 0x20 && c < 0x7f ? CLASS_VALID
                        : c == 0x20                               ? CLASS_FREEFORM
                                                                  : CLASS_DISALLOWED;
    if (exception_of(c, &special)) return special;
    if (c == 0x200c || c == 0x200d) return CLASS_JOIN;
    if (c >= 0xac00 && c <= 0xd7a3) return CLASS_VALID; /* Hangul syllables, for which the rules
                                                           take longest to say so */
    uint32_t category = uc_general_category(c).bitmask;
    if (category &
        (UC_CATEGORY_MASK_Cn | UC_CATEGORY_MASK_Cc | UC_CATEGORY_MASK_Cs)) return CLASS_DISALLOWED;
    if (is_old_hangul(c) || uc_is_property_default_ignorable_code_point(c)) return CLASS_DISALLOWED;
    if (has_compat(c)) return CLASS_FREEFORM;
    if (category &
        (UC_CATEGORY_MASK_Lu | UC_CATEGORY_MASK_Ll | UC_CATEGORY_MASK_Lo | UC_CATEGORY_MASK_Lm |
         UC_CATEGORY_MASK_Nd | UC_CATEGORY_MASK_Mn | UC_CATEGORY_MASK_Mc)) return CLASS_VALID;
    if (category &
        (UC_CATEGORY_MASK_Lt | UC_CATEGORY_MASK_Nl | UC_CATEGORY_MASK_No | UC_CATEGORY_MASK_Me |
         UC_CATEGORY_MASK_Zs | UC_CATEGORY_MASK_S | UC_CATEGORY_MASK_P)) return CLASS_FREEFORM;
    return CLASS_DISALLOWED;
}

static bool is_virama(uint32_t c) { return uc_combining_class(c) == UC_CCC_VR; }

/* RFC 5892 A.1, A.2. The walk passes transparent marks only and no joiner is transparent, so all
 * walks of a string together look at each code point twice at most. */
static bool join_ok(const uint32_t *code, size_t n, size_t at)
{
    if (at > 0 && is_virama(code[at - 1]))
        return true;
    if (code[at] == 0x200d)
        return false;
    size_t before = at, after = at + 1;
    while (before > 0 && uc_joining_type(code[before - 1]) == UC_JOINING_TYPE_T)
        before--;
    while (after < n && uc_joining_type(code[after]) == UC_JOINING_TYPE_T)
        after++;
    if (before == 0 || after == n)
        return false;
    int left = uc_joining_type(code[before - 1]), right = uc_joining_type(code[after]);
    return (left == UC_JOINING_TYPE_L || left == UC_JOINING_TYPE_D) &&
           (right == UC_JOINING_TYPE_R || right == UC_JOINING_TYPE_D);
}

static bool is_script(uint32_t c, const char *name)
{
    const uc_script_t *script = uc_script(c);
    return script && strcmp(script->name, name) == 0;
}

/* What the rules that look at the whole string need to know, found in one pass. */
struct context {
    bool japanese, arabic_digits, extended_digits;
};

static struct context context_of(const uint32_t *code, size_t n)
{
    struct context x = {0};
    for (size_t i = 0; i < n; i++) {
        uint32_t c = code[i];
        x.arabic_digits |= c >= 0x660 && c <= 0x669;
        x.extended_digits |= c >= 0x6f0 && c <= 0x6f9;
        if (c >= 0x2e80 && !x.japanese)
            x.japanese =
                is_script(c, "Hiragana") || is_script(c, "Katakana") || is_script(c, "Han");
    }
    return x;
}

/* RFC 5892 A.3 to A.9. */
static bool context_ok(const struct context *x, const uint32_t *code, size_t n, size_t at)
{
    uint32_t before = at > 0 ? code[at - 1] : 0, after = at + 1 < n ? code[at + 1] : 0;
    switch (code[at]) {
    case 0xb7: return before == 'l' && after == 'l';
    case 0x375: return after && is_script(after, "Greek");
    case 0x5f3:
    case 0x5f4: return before && is_script(before, "Hebrew");
    case 0x30fb: return x->japanese;
    case 0x660 ... 0x669: return !x->extended_digits;
    default: return !x->arabic_digits;
    }
}

static bool class_ok(const struct precis_text *t, bool freeform)
{
    for (size_t i = 0; i < t->n; i++) {
        enum class k = class_of(t->code[i]);
        if (k == CLASS_DISALLOWED || (k == CLASS_FREEFORM && !freeform))
            return false;
    }
    return true;
}

bool precis_contexts_ok(const struct precis_text *t)
{
    struct context x = context_of(t->code, t->n);
    for (size_t i = 0; i < t->n; i++) {
        uint32_t c = t->code[i];
        enum class special;
        if (c == 0x200c || c == 0x200d) {
            if (!join_ok(t->code, t->n, i))
                return false;
        } else if (exception_of(c, &special) && special == CLASS_CONTEXT) {
            if (!context_ok(&x, t->code, t->n, i))
                return false;
        }
    }
    return true;
}

/* ---- Bidi (RFC 5893 2) ---- */

bool precis_bidi_present(const uint32_t *code, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (code[i] < 0x590) /* the first right-to-left block is Hebrew */
            continue;
        int b = uc_bidi_class(code[i]);
        if (b == UC_BIDI_R || b == UC_BIDI_AL || b == UC_BIDI_AN)
            return true;
    }
    return false;
}

#define B(x) (1u << UC_BIDI_##x)

bool precis_bidi_ok(const uint32_t *code, size_t n)
{
    const uint32_t neutral = B(EN) | B(ES) | B(CS) | B(ET) | B(ON) | B(BN) | B(NSM);
    uint32_t seen = 0, last = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t b = 1u << uc_bidi_class(code[i]);
        seen |= b;
        if (b != B(NSM))
            last = b;
    }
    uint32_t first = n ? 1u << uc_bidi_class(code[0]) : 0;
    if (first == B(L))
        return !(seen & ~(neutral | B(L))) && (last & (B(L) | B(EN)));
    if (!(first & (B(R) | B(AL))) || (seen & ~(neutral | B(R) | B(AL) | B(AN))))
        return false;
    return (last & (B(R) | B(AL) | B(EN) | B(AN))) && (seen & (B(EN) | B(AN))) != (B(EN) | B(AN));
}

/* ---- mapping ---- */

err precis_decode(str raw, struct precis_text *out)
{
    if (raw.n == 0 || raw.n > PRECIS_MAX)
        return ERR_BAD;
    out->n = 0;
    for (size_t i = 0; i < raw.n;) {
        size_t used = utf8_decode(str_skip(raw, i), &out->code[out->n]);
        if (used == 0)
            return ERR_BAD;
        i += used;
        out->n++;
    }
    return ERR_OK;
}

/* RFC 8264 5.2.1. */
static uint32_t width_of(uint32_t c)
{
    if (c != 0x3000 && (c < 0xff00 || c > 0xffef))
        return c;
    ucs4_t parts[UC_DECOMPOSITION_MAX_LENGTH];
    int tag;
    if (uc_decomposition(c, &tag, parts) != 1)
        return c;
    return tag == UC_DECOMP_WIDE || tag == UC_DECOMP_NARROW ? parts[0] : c;
}

static uint32_t lower_of(uint32_t c, bool domain)
{
    if (c < 0x80)
        return c >= 'A' && c <= 'Z' ? c + 32 : c;
    return domain && !uc_is_property_changes_when_casefolded(c) ? c : uc_tolower(c);
}

/* Unicode's toLowerCase without its one rule that depends on neighbours (final sigma): a name does
 * not change its letters by what stands behind them. U+0130 is the only one that becomes two. */
void precis_width_and_case(struct precis_text *t, bool domain)
{
    size_t extra = 0;
    for (size_t i = 0; i < t->n; i++) {
        t->code[i] = width_of(t->code[i]);
        extra += t->code[i] == 0x130;
    }
    for (size_t i = t->n; i-- > 0;) {
        uint32_t c = t->code[i];
        if (c == 0x130) {
            t->code[i + extra] = 0x307;
            extra--;
            t->code[i + extra] = 'i';
            t->n++;
            continue;
        }
        t->code[i + extra] = lower_of(c, domain);
    }
}

err precis_nfc(struct precis_text *t)
{
    bool plain = true;
    for (size_t i = 0; i < t->n; i++)
        plain &= t->code[i] < 0x300; /* NFC leaves everything below as it is */
    if (plain)
        return ERR_OK;
    struct precis_text to;
    to.n = sizeof to.code / sizeof to.code[0];
    uint32_t *p = u32_normalize(UNINORM_NFC, t->code, t->n, to.code, &to.n);
    if (p != to.code) { /* grew beyond what 1,023 bytes can hold anyway, or no memory */
        free(p);
        return ERR_BAD;
    }
    memcpy(t->code, to.code, to.n * sizeof to.code[0]);
    t->n = to.n;
    return ERR_OK;
}

str precis_encode(const struct precis_text *t, struct arena *a)
{
    char *p = arena_alloc(a, 4 * t->n + 1);
    size_t n = 0;
    for (size_t i = 0; i < t->n; i++)
        n += utf8_encode(p + n, t->code[i]);
    p[n] = 0;
    return (str){p, n};
}

/* ---- profiles ---- */

static bool text_eq(const struct precis_text *a, const struct precis_text *b)
{
    return a->n == b->n && memcmp(a->code, b->code, a->n * sizeof a->code[0]) == 0;
}

static void map_spaces(struct precis_text *t)
{
    for (size_t i = 0; i < t->n; i++)
        if (t->code[i] >= 0x80 && uc_general_category(t->code[i]).bitmask == UC_CATEGORY_MASK_Zs)
            t->code[i] = ' ';
}

static void map(struct precis_text *t, bool freeform)
{
    if (freeform)
        map_spaces(t);
    else
        precis_width_and_case(t, false);
}

/* RFC 8264 7 has the rules applied again until the string is stable; one that the mappings would
 * change a second time is refused (normalising again changes nothing, by definition). */
static bool is_stable(const struct precis_text *t, bool freeform)
{
    struct precis_text again = *t;
    map(&again, freeform);
    return text_eq(&again, t);
}

static err enforce(struct precis_text *t, bool freeform)
{
    for (size_t i = 0; !freeform && i < t->n; i++)
        t->code[i] = width_of(t->code[i]);
    if (!class_ok(t, freeform))
        return ERR_BAD;
    struct precis_text before = *t;
    map(t, freeform);
    if (precis_nfc(t))
        return ERR_BAD;
    if (!text_eq(&before, t) && (!is_stable(t, freeform) || !class_ok(t, freeform)))
        return ERR_BAD;
    if (!precis_contexts_ok(t))
        return ERR_BAD;
    if (!freeform && precis_bidi_present(t->code, t->n) && !precis_bidi_ok(t->code, t->n))
        return ERR_BAD;
    return ERR_OK;
}

static err prepare(str raw, bool freeform, struct arena *a, str *out)
{
    struct precis_text t;
    err e = precis_decode(raw, &t);
    if (!e)
        e = enforce(&t, freeform);
    if (e)
        return e;
    str s = precis_encode(&t, a);
    if (s.n == 0 || s.n > PRECIS_MAX)
        return ERR_BAD;
    *out = s;
    return ERR_OK;
}

err precis_username(str raw, struct arena *a, str *out)
{
    bool changes = raw.n == 0 || raw.n > PRECIS_MAX, refused = false;
    for (size_t i = 0; i < raw.n && !changes; i++) {
        unsigned char c = (unsigned char)raw.p[i];
        refused |= c <= ' ' || c == 0x7f;
        changes = c >= 0x80 || (c >= 'A' && c <= 'Z');
    }
    if (changes)
        return prepare(raw, false, a, out);
    if (refused)
        return ERR_BAD;
    *out = raw;
    return ERR_OK;
}

err precis_opaque(str raw, struct arena *a, str *out)
{
    if (raw.n == 0 || raw.n > PRECIS_MAX || !utf8_is_ascii(raw))
        return prepare(raw, true, a, out);
    for (size_t i = 0; i < raw.n; i++)
        if ((unsigned char)raw.p[i] < ' ' || raw.p[i] == 0x7f)
            return ERR_BAD;
    *out = raw;
    return ERR_OK;
}
