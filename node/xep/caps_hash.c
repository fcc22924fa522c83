/* caps_hash: what a presence says of its client's caps, and whether an answer is what a hash is of
 * (XEP-0115 5, XEP-0390 4). An answer that could be read in two ways proves nothing: names with the
 * separator in them, twice the same name, forms of two types (0115 5.4). */
#include <openssl/digest.h>
#include <stdlib.h>

#include "node/xep/caps.h"
#include "proto/base/base64.h"

#define NS_OLD "http://jabber.org/protocol/caps"
#define NS_NEW "urn:xmpp:caps"
#define NS_HASHES "urn:xmpp:hashes:2"
#define NS_INFO "http://jabber.org/protocol/disco#info"
#define NS_FORM "jabber:x:data"

enum { PARTS_MAX = 1024 };

static const EVP_MD *algorithm(str name)
{
    if (str_is(name, "sha-256"))
        return EVP_sha256();
    if (str_is(name, "sha-512"))
        return EVP_sha512();
    return str_is(name, "sha-1") ? EVP_sha1() : NULL;
}

/* ---- what is said ---- */

static str join(struct arena *a, str x, str y, str z)
{
    return arena_concat(a, (str[]){x, y, z}, 3);
}

static struct caps_said said_new(const struct xml_el *c, struct arena *a)
{
    struct xml_el hash;
    for (bool more = xml_first(c, &hash, a); more; more = xml_next(c, &hash, a)) {
        str algo = xml_attr(&hash, "algo", a), text = xml_text(&hash, a);
        if (!xml_is(&hash, NS_HASHES, "hash") || !algorithm(algo) || str_is(algo, "sha-1") ||
            text.n + algo.n + 6 > CAPS_KEY_MAX || !text.n)
            continue;
        str value = join(a, algo, STR("."), text);
        return (struct caps_said){join(a, STR("0390 "), value, STR_NONE),
                                  join(a, STR(NS_NEW "#"), value, STR_NONE)};
    }
    return (struct caps_said){STR_NONE, STR_NONE};
}

static struct caps_said said_old(const struct xml_el *c, struct arena *a)
{
    str node = xml_attr(c, "node", a), ver = xml_attr(c, "ver", a), algo = xml_attr(c, "hash", a);
    struct caps_said said = {STR_NONE, STR_NONE};
    if (!node.n || !ver.n || node.n + ver.n > 2000)
        return said;
    said.query = join(a, node, STR("#"), ver);
    if (algorithm(algo) && algo.n + ver.n + 6 <= CAPS_KEY_MAX)
        said.key = arena_concat(a, (str[]){STR("0115 "), algo, STR("."), ver}, 4);
    return said;
}

struct caps_said caps_read(str presence, struct arena *a)
{
    struct caps_said said = {STR_NONE, STR_NONE};
    struct xml_el root, c;
    if (!memmem(presence.p, presence.n, "caps", 4)) /* nearly as good as a look, and quick */
        return said;
    root = xml_root(presence, STR("jabber:client"), a);
    if (xml_find(&root, NS_NEW, "c", &c, a))
        said = said_new(&c, a);
    if (!said.query.n && xml_find(&root, NS_OLD, "c", &c, a))
        said = said_old(&c, a);
    return said;
}

/* ---- whether it is so ---- */

/* Parts that are sorted before they are hashed. */
struct parts {
    str *all;
    size_t n;
    bool bad; /* too many, or one that could be read in two ways */
};

static struct parts parts_new(struct arena *a)
{
    return (struct parts){.all = arena_alloc(a, PARTS_MAX * sizeof(str))};
}

static void add(struct parts *p, str part)
{
    if (p->n == PARTS_MAX)
        p->bad = true;
    else
        p->all[p->n++] = part;
}

static int by_octets(const void *x, const void *y)
{
    const str *a = x, *b = y;
    size_t n = a->n < b->n ? a->n : b->n;
    int d = n ? memcmp(a->p, b->p, n) : 0;
    return d ? d : (a->n > b->n) - (a->n < b->n);
}

/* In order; twice the same is bad where `once`. */
static str sorted(struct parts *p, bool once, bool *bad, struct arena *a)
{
    qsort(p->all, p->n, sizeof *p->all, by_octets);
    for (size_t i = 1; once && i < p->n; i++)
        p->bad |= str_eq(p->all[i - 1], p->all[i]);
    *bad |= p->bad;
    return arena_concat(a, p->all, p->n);
}

/* The separators of the one format and of the other. */
struct format {
    str within_identity, behind_identity, behind_var, behind_value, behind_field, behind_form,
        behind_part;
    char forbidden;
    bool type_first; /* FORM_TYPE's value alone stands before the other fields */
};
static const struct format old_format = {STR("/"), STR("<"), STR("<"), STR("<"), STR(""),
                                         STR(""),  STR(""),  '<',      true};
static const struct format new_format = {STR("\x1f"), STR("\x1e"), STR("\x1f"),
                                         STR("\x1f"), STR("\x1e"), STR("\x1d"),
                                         STR("\x1c"), '\x1f',      false};

static bool is_plain(const struct format *f, str s)
{
    return !s.n || !memchr(s.p, f->forbidden, s.n);
}

static str identity(const struct format *f, const struct xml_el *el, struct arena *a, bool *bad)
{
    str parts[] = {xml_attr(el, "category", a),
                   f->within_identity,
                   xml_attr(el, "type", a),
                   f->within_identity,
                   xml_attr_ns(el, "http://www.w3.org/XML/1998/namespace", "lang", a),
                   f->within_identity,
                   xml_attr(el, "name", a),
                   f->type_first ? STR_NONE : f->within_identity,
                   f->behind_identity};
    for (size_t i = 0; i < 8; i += 2)
        *bad |= !is_plain(f, parts[i]);
    return arena_concat(a, parts, array_len(parts));
}

static str values_of(const struct format *f, const struct xml_el *field, struct arena *a, bool *bad)
{
    struct parts values = parts_new(a);
    struct xml_el v;
    for (bool more = xml_first(field, &v, a); more; more = xml_next(field, &v, a)) {
        if (!xml_is(&v, NS_FORM, "value"))
            continue;
        str text = xml_text(&v, a);
        *bad |= !is_plain(f, text);
        add(&values, join(a, text, f->behind_value, STR_NONE));
    }
    return sorted(&values, false, bad, a);
}

/* Empty: a form that does not count. */
static str form(const struct format *f, const struct xml_el *x, struct arena *a, bool *bad)
{
    struct parts fields = parts_new(a);
    struct xml_el el;
    str type = STR_NONE;
    for (bool more = xml_first(x, &el, a); more; more = xml_next(x, &el, a)) {
        if (!xml_is(&el, NS_FORM, "field"))
            continue;
        str var = xml_attr(&el, "var", a), values = values_of(f, &el, a, bad);
        *bad |= !is_plain(f, var);
        if (f->type_first && str_is(var, "FORM_TYPE")) {
            *bad |= type.n > 0 || (values.n && memchr(values.p, '<', values.n - 1));
            type = values;
        } else {
            add(&fields, arena_concat(a, (str[]){var, f->behind_var, values, f->behind_field}, 4));
        }
    }
    if (f->type_first && !type.n)
        return STR_NONE; /* 0115 5.4, 3.6 */
    return join(a, type, sorted(&fields, false, bad, a), f->behind_form);
}

static str text_of(const struct format *f, const struct xml_el *query, struct arena *a, bool *bad)
{
    struct parts identities = parts_new(a), features = parts_new(a), forms = parts_new(a);
    struct xml_el el;
    for (bool more = xml_first(query, &el, a); more; more = xml_next(query, &el, a)) {
        str var = xml_attr(&el, "var", a);
        if (xml_is(&el, NS_INFO, "identity"))
            add(&identities, identity(f, &el, a, bad));
        else if (xml_is(&el, NS_INFO, "feature"))
            *bad |= !is_plain(f, var), add(&features, join(a, var, f->behind_var, STR_NONE));
        else if (xml_is(&el, NS_FORM, "x"))
            add(&forms, form(f, &el, a, bad));
    }
    str i = sorted(&identities, true, bad, a), v = sorted(&features, true, bad, a),
        x = sorted(&forms, false, bad, a), end = f->behind_part;
    return f->type_first ? join(a, i, v, x) : arena_concat(a, (str[]){v, end, i, end, x, end}, 6);
}

bool caps_verify(str key, const struct xml_el *query, struct arena *a)
{
    const struct format *f = str_starts(key, STR("0115 ")) ? &old_format : &new_format;
    bool bad = false;
    const char *dot = memchr(key.p, '.', key.n);
    if (!dot)
        return false;
    const EVP_MD *md = algorithm(str_from(key.p + 5, (size_t)(dot - key.p) - 5));
    str hash = str_skip(key, (size_t)(dot - key.p) + 1), text = text_of(f, query, a, &bad);
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    if (!md || bad)
        return false;
    must(EVP_Digest(text.p ? text.p : "", text.n, digest, &n, md, NULL));
    return str_eq(base64_encode_in(a, str_from(digest, n)), hash);
}
