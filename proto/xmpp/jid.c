/* jid: splitting, and one look at each byte through a table. Only parts with other than plain bytes
 * go on to precis.c and domain.c. Rejected: SSE2, as addresses are 10 to 60 bytes and the table is
 * through with these before a vector loop has set up its constants and handled its tail. */
#include "proto/xmpp/jid.h"

#include "proto/xmpp/domain.h"
#include "proto/xmpp/precis.h"

_Static_assert((int)JID_PART_MAX == (int)PRECIS_MAX, "one bound for a part");

/* Which parts a byte is plain in: allowed, and unchanged by preparation. Localparts are without the
 * characters of RFC 7622 3.3.1; a plain domainpart is of lower-case letters, digits and single dots
 * (hyphens and everything else get a closer look). */
enum { LOCAL = 1, DOMAIN = 2, RESOURCE = 4 };
#define ALL (LOCAL | DOMAIN | RESOURCE)
#define NAME (LOCAL | RESOURCE)
static const unsigned char plain_in[256] = {
    [' '] = RESOURCE,     ['!'] = NAME,        ['"'] = RESOURCE,
    ['#' ... '%'] = NAME, ['&'] = RESOURCE,    ['\''] = RESOURCE,
    ['(' ... '-'] = NAME, ['.'] = ALL,         ['/'] = RESOURCE,
    ['0' ... '9'] = ALL,  [':'] = RESOURCE,    [';'] = NAME,
    ['<'] = RESOURCE,     ['='] = NAME,        ['>'] = RESOURCE,
    ['?'] = NAME,         ['@'] = RESOURCE,    ['A' ... 'Z'] = RESOURCE,
    ['[' ... '`'] = NAME, ['a' ... 'z'] = ALL, ['{' ... '~'] = NAME,
};

static bool is_plain(str s, unsigned part)
{
    unsigned all = part;
    for (size_t i = 0; i < s.n; i++)
        all &= plain_in[(unsigned char)s.p[i]];
    return all != 0;
}

static bool size_ok(str s) { return s.n > 0 && s.n <= JID_PART_MAX; }

err jid_prepare_local(str raw, struct arena *a, str *out)
{
    if (!size_ok(raw))
        return ERR_STANZA_JID_MALFORMED;
    str s = raw;
    if (!is_plain(s, LOCAL)) {
        if (precis_username(raw, a, &s))
            return ERR_STANZA_JID_MALFORMED;
        for (size_t i = 0; i < s.n; i++) /* full-width forms may have become forbidden ones */
            if ((unsigned char)s.p[i] < 0x80 && !(plain_in[(unsigned char)s.p[i]] & LOCAL))
                return ERR_STANZA_JID_MALFORMED;
    }
    *out = s;
    return ERR_OK;
}

/* No label empty or too long: with letters, digits and dots alone that is all there is to check. */
static bool plain_labels_ok(str s)
{
    size_t label = 0;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] != '.')
            label++;
        else if (label == 0 || label > 63)
            return false;
        else
            label = 0;
    }
    return label > 0 && label <= 63;
}

err jid_prepare_domain(str raw, struct arena *a, str *out)
{
    if (!size_ok(raw))
        return ERR_STANZA_JID_MALFORMED;
    *out = raw;
    if (is_plain(raw, DOMAIN) && plain_labels_ok(raw))
        return ERR_OK;
    return domain_prepare(raw, a, out) ? ERR_STANZA_JID_MALFORMED : ERR_OK;
}

err jid_prepare_resource(str raw, struct arena *a, str *out)
{
    if (!size_ok(raw))
        return ERR_STANZA_JID_MALFORMED;
    *out = raw;
    if (is_plain(raw, RESOURCE))
        return ERR_OK;
    return precis_opaque(raw, a, out) ? ERR_STANZA_JID_MALFORMED : ERR_OK;
}

/* RFC 7622 3.1: the resource begins behind the first '/', and only what is before it is looked at
 * for the first '@'. An empty local or resource keeps its p, so that a separator with nothing is
 * told from none. */
static struct jid split(str s)
{
    struct jid j = {.full = s, .bare = s, .domain = s};
    const char *slash = s.n ? memchr(s.p, '/', s.n) : NULL;
    if (slash) {
        j.bare.n = (size_t)(slash - s.p);
        j.resource = str_skip(s, j.bare.n + 1);
        j.domain = j.bare;
    }
    const char *at = j.bare.n ? memchr(s.p, '@', j.bare.n) : NULL;
    if (at) {
        j.local = (str){s.p, (size_t)(at - s.p)};
        j.domain = str_skip(j.bare, j.local.n + 1);
    }
    return j;
}

struct jid jid_parse_prepared(str s) { return split(s); }

struct jid jid_join(struct arena *a, str local, str domain, str resource)
{
    str parts[] = {local, local.n ? STR("@") : STR(""), domain, resource.n ? STR("/") : STR(""),
                   resource};
    struct jid j = {.full = arena_concat(a, parts, array_len(parts))};
    const char *p = j.full.p;
    j.bare = (str){p, parts[0].n + parts[1].n + domain.n};
    j.local = (str){p, local.n};
    j.domain = (str){p + parts[0].n + parts[1].n, domain.n};
    if (resource.n)
        j.resource = (str){j.bare.p + j.bare.n + 1, resource.n};
    return j;
}

static bool same_view(str a, str b) { return a.p == b.p && a.n == b.n; }

static size_t plain_from(str s, size_t i, unsigned part)
{
    while (i < s.n && (plain_in[(unsigned char)s.p[i]] & part))
        i++;
    return i;
}

/* What nearly every address is, local@domain or local@domain/resource and plain in all parts, needs
 * no more than a look at each byte. False: it may be another one, or none. */
static bool split_plain(str s, struct jid *out)
{
    size_t at = plain_from(s, 0, LOCAL);
    if (at == s.n || s.p[at] != '@')
        return false;
    size_t end = plain_from(s, at + 1, DOMAIN);
    *out = (struct jid){
        .full = s, .bare = {s.p, end}, .local = {s.p, at}, .domain = {s.p + at + 1, end - at - 1}};
    if (!size_ok(out->local) || !size_ok(out->domain) || !plain_labels_ok(out->domain))
        return false;
    if (end == s.n)
        return true;
    out->resource = str_skip(s, end + 1);
    return s.p[end] == '/' && plain_from(s, end + 1, RESOURCE) == s.n && size_ok(out->resource);
}

err jid_prepare(str raw, struct arena *a, struct jid *out)
{
    if (raw.n == 0 || raw.n > JID_MAX)
        return ERR_STANZA_JID_MALFORMED;
    if (split_plain(raw, out))
        return ERR_OK;
    struct jid j = split(raw);
    str local = {0}, domain, resource = {0};
    err e = jid_prepare_domain(j.domain, a, &domain);
    if (!e && j.local.p)
        e = jid_prepare_local(j.local, a, &local);
    if (!e && j.resource.p)
        e = jid_prepare_resource(j.resource, a, &resource);
    if (e)
        return e;
    bool same =
        same_view(local, j.local) && same_view(domain, j.domain) && same_view(resource, j.resource);
    *out = same ? j : jid_join(a, local, domain, resource);
    return ERR_OK;
}
