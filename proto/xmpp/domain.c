/* domain: a domainpart is a host name of NR-LDH labels and U-labels (A-labels become U-labels, so
 * that one domain has one form), or an IP address. A dot at the end is dropped.
 *
 * Host names without any IDN may have the 1,023 bytes of RFC 7622; with one, the A-label form must
 * fit the DNS (253), which also bounds what libidn2 can be made to do per address. Underscores are
 * not letters, digits or hyphens: refused. */
#include "proto/xmpp/domain.h"

#include <arpa/inet.h>
#include <idn2.h>
#include <stdlib.h>

#include "proto/base/utf8.h"
#include "proto/xmpp/precis.h"

enum {
    LABEL_MAX = 63,
    U_LABEL_MAX = LABEL_MAX - 4, /* code points: "xn--" and at least one character for each */
    NAME_MAX_DNS = 253,
};

static bool is_ldh(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'; }

static bool is_a_label(str l) { return str_starts(l, STR("xn--")); }

/* RFC 5890 2.3.1: an NR-LDH label has no hyphen at either end, nor two as third and fourth. */
static bool ldh_label_ok(str l)
{
    if (l.n == 0 || l.n > LABEL_MAX || l.p[0] == '-' || l.p[l.n - 1] == '-')
        return false;
    if (l.n >= 4 && l.p[2] == '-' && l.p[3] == '-')
        return false;
    for (size_t i = 0; i < l.n; i++)
        if (!is_ldh(l.p[i]))
            return false;
    return true;
}

/* Takes the next label off *rest; false when there is none left. */
static bool next_label(str *rest, str *label)
{
    if (!rest->p)
        return false;
    const char *dot = rest->n ? memchr(rest->p, '.', rest->n) : NULL;
    *label = (str){rest->p, dot ? (size_t)(dot - rest->p) : rest->n};
    *rest = dot ? str_skip(*rest, label->n + 1) : STR_NONE;
    return true;
}

static bool ldh_name_ok(str name)
{
    for (str rest = name, label; next_label(&rest, &label);)
        if (!ldh_label_ok(label))
            return false;
    return true;
}

/* What libidn2's lookup leaves open: hyphens and the context rules. Its registration would ask for
 * them too, but takes quadratic time over the dots of a Katakana label (60 us for 84 of them). */
static bool u_label_ok(str u)
{
    struct precis_text t;
    if (precis_decode(u, &t) || t.n > U_LABEL_MAX || t.code[0] == '-' || t.code[t.n - 1] == '-')
        return false;
    if (t.n >= 4 && t.code[2] == '-' && t.code[3] == '-')
        return false;
    return precis_contexts_ok(&t);
}

/* A U-label of an A-label, or one as it stands, held to IDNA2008 (RFC 5891 5.4): both forms must
 * give each other. *ace_n: its length as an A-label. */
static err u_label(str label, struct arena *a, str *out, size_t *ace_n)
{
    char z[4 * U_LABEL_MAX + 1], *unicode = NULL;
    uint8_t *ace = NULL;
    if (label.n >= sizeof z)
        return ERR_BAD;
    memcpy(z, label.p, label.n);
    z[label.n] = 0;
    bool given_ace = is_a_label(label);
    err e = ERR_BAD;
    if (given_ace && (label.n > LABEL_MAX || idn2_to_unicode_8z8z(z, &unicode, 0) != IDN2_OK))
        goto end;
    const char *u = given_ace ? unicode : z;
    if (utf8_is_ascii(str_of(u)) || !u_label_ok(str_of(u)))
        goto end;
    if (idn2_lookup_u8((const uint8_t *)u, &ace, IDN2_NO_TR46) != IDN2_OK)
        goto end;
    *ace_n = strlen((const char *)ace); /* at most LABEL_MAX, says libidn2 */
    if (given_ace && strcmp((const char *)ace, z) != 0)
        goto end;
    *out = arena_dup(a, str_of(u));
    e = ERR_OK;
end:
    idn2_free(unicode);
    idn2_free(ace);
    return e;
}

/* RFC 5893 2: in a name with any right-to-left label, every label keeps the rule. */
static err bidi_check(str name)
{
    struct precis_text t;
    err e = precis_decode(name, &t);
    if (e || !precis_bidi_present(t.code, t.n))
        return e;
    for (size_t from = 0, i = 0; i <= t.n; i++) {
        if (i < t.n && t.code[i] != '.')
            continue;
        if (!precis_bidi_ok(t.code + from, i - from))
            return ERR_BAD;
        from = i + 1;
    }
    return ERR_OK;
}

/* Full stops of other scripts are dots (RFC 5895 2); U+FF0E and U+FF61 are widths of these two. */
static err map(str raw, struct arena *a, str *out)
{
    struct precis_text t;
    err e = precis_decode(raw, &t);
    if (e)
        return e;
    precis_width_and_case(&t, true);
    for (size_t i = 0; i < t.n; i++)
        if (t.code[i] == 0x3002)
            t.code[i] = '.';
    e = precis_nfc(&t);
    if (!e)
        *out = precis_encode(&t, a);
    return e;
}

/* Of a name in lower case and NFC that has at least one label beyond NR-LDH. */
static err idn_name(str name, struct arena *a, str *out)
{
    char joined[PRECIS_MAX + 1];
    size_t n = 0, ace_total = 0;
    for (str rest = name, label; next_label(&rest, &label);) {
        str u = label;
        size_t ace_n = label.n;
        if (is_a_label(label) || !utf8_is_ascii(label)) {
            err e = u_label(label, a, &u, &ace_n);
            if (e)
                return e;
        } else if (!ldh_label_ok(label)) {
            return ERR_BAD;
        }
        ace_total += ace_n + 1;
        if (ace_total > NAME_MAX_DNS + 1 || n + u.n + 1 > sizeof joined)
            return ERR_BAD;
        memcpy(joined + n, u.p, u.n);
        n += u.n;
        joined[n++] = '.';
    }
    *out = arena_dup(a, (str){joined, n - 1});
    str again; /* an A-label may hide what mapping would change: then it is no canonical form */
    err e = map(*out, a, &again);
    if (!e && !str_eq(again, *out))
        e = ERR_BAD;
    return e ? e : bidi_check(*out);
}

/* The canonical text of RFC 5952; no zone, which means nothing to anybody else. */
static err ipv6_literal(str raw, struct arena *a, str *out)
{
    char z[INET6_ADDRSTRLEN], canonical[INET6_ADDRSTRLEN];
    struct in6_addr address;
    if (raw.n < 4 || raw.n - 2 >= sizeof z || raw.p[raw.n - 1] != ']')
        return ERR_BAD;
    memcpy(z, raw.p + 1, raw.n - 2);
    z[raw.n - 2] = 0;
    if (memchr(z, 0, raw.n - 2) || inet_pton(AF_INET6, z, &address) != 1 ||
        !inet_ntop(AF_INET6, &address, canonical, sizeof canonical))
        return ERR_BAD;
    if (str_eq(str_of(canonical), str_of(z)))
        *out = raw;
    else
        *out = arena_printf(a, "[%s]", canonical);
    return ERR_OK;
}

static bool has_idn(str name)
{
    if (!utf8_is_ascii(name))
        return true;
    for (str rest = name, label; next_label(&rest, &label);)
        if (is_a_label(label))
            return true;
    return false;
}

static bool needs_map(str raw)
{
    for (size_t i = 0; i < raw.n; i++)
        if ((unsigned char)raw.p[i] >= 0x80 || (raw.p[i] >= 'A' && raw.p[i] <= 'Z'))
            return true;
    return false;
}

err domain_prepare(str raw, struct arena *a, str *out)
{
    if (raw.n == 0 || raw.n > PRECIS_MAX)
        return ERR_BAD;
    if (raw.p[0] == '[')
        return ipv6_literal(raw, a, out);
    str name = raw;
    if (needs_map(raw)) {
        err e = map(raw, a, &name);
        if (e)
            return e;
    }
    if (name.n && name.p[name.n - 1] == '.')
        name.n--;
    if (has_idn(name))
        return idn_name(name, a, out);
    if (!ldh_name_ok(name))
        return ERR_BAD;
    *out = name;
    return ERR_OK;
}
